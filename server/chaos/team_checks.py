"""Holds what callers were told of teams against the journal's order: part of `checks.py`."""

from bisect import bisect_left

from server.chaos.books import Books, Effect
from server.chaos.history import Operation
from server.chaos.team_books import FORMING, Team, TeamBooks
from server.chaos.times import Times, brief, indexes
from server.verify import Invariant

SEAT_REFUSALS = frozenset(
    {
        "ENDED",
        "TEAM_FULL",
        "TEAM_CLOSED",
        "TEAM_NOT_OPEN",
        "ALREADY_IN_TEAM",
        "NEW_BUYERS_ONLY",
        "TOO_MANY_TEAMS",
    }
)
"""Of opening and joining; each is a record of the journal."""


def check_teams(teams: TeamBooks, checks: dict[str, Invariant]) -> None:
    """What their own records say, once all of them should have ended."""
    teams.check_ends()
    checks["seated"] = teams.seated
    checks["formed"] = teams.formed_right
    checks["owed"] = teams.owed


def check_seat_refusal(call: Operation, effect: Effect, books: Books, found: Invariant) -> None:
    """Whether the rule that was named was the first that was broken at the place of the refusal."""
    if call.status == "ENDED":
        ended = books.ended.get(call.campaign_id)
        found.check(
            ended is not None and ended <= effect.place,
            f"{brief(call)} was told ENDED; {call.campaign_id} was ended at {ended}",
        )
        return
    if call.status == "TOO_MANY_TEAMS":
        opened = books.teams.opened_by.get((call.campaign_id, call.buyer_id), [])
        forming = [team for team in opened if _forming_at(team, effect.place)]
        found.check(
            bool(forming) and len(forming) >= forming[0].terms.rules.teams_per_buyer,
            f"{brief(call)} was told TOO_MANY_TEAMS with {len(forming)} of them",
        )
        return
    team = books.teams.teams.get(call.team_id)
    index = -1 if team is None else team.index(effect.place)
    if team is None or index < 0:
        found.check(False, f"{brief(call)} was told {call.status} of a team that was not there")
        return
    stood, free = team.states[index], team.free(index)
    broken = {
        "TEAM_CLOSED": stood.state != FORMING or effect.now_ms >= team.deadline_ms,
        "ALREADY_IN_TEAM": call.buyer_id in team.rosters[index],
        "TEAM_NOT_OPEN": not stood.paid,
        "TEAM_FULL": free <= 0,
        "NEW_BUYERS_ONLY": free <= team.missing[index],
    }
    first = next((name for name, so in broken.items() if so), "none")
    found.check(
        call.status == first,
        f"{brief(call)} was told {call.status}; the first broken rule was {first}: {stood}",
    )


def _forming_at(team: Team, place: int) -> bool:
    index = team.index(place)
    return index >= 0 and team.states[index].state == FORMING


def team_stood_so(call: Operation, books: Books, times: Times) -> bool:
    """Whether a team was closed, or had nobody who paid, at some instant of the call: what leaving
    and completing are told without a record."""
    seat = books.teams.seats.get(call.reservation_id)
    team = books.teams.teams.get(call.team_id) if seat is None else seat.team
    if team is None:
        return False
    window = indexes(team, times.after(call.began_s), times.until(call.ended_s))
    stood = [team.states[index] for index in window]
    if call.status == "TEAM_NOT_OPEN":
        return any(one.state == FORMING and not one.paid for one in stood)
    if call.verb == "complete_team" and team.by_hand:
        return False  # Whoever asks again is told APPLIED again.
    return call.status == "TEAM_CLOSED" and any(one.state != FORMING for one in stood)


def place_of_suggestion(read: Operation, books: Books, after: int, until: int) -> int | None:
    """The first place in the window at which all teams that were named could be joined by the
    buyer, and stood nearest to full first."""
    teams = [books.teams.teams.get(name) for name in read.answer]
    places = {after}
    for team in teams:
        if team is None:
            return None
        first = bisect_left(team.places, after)
        places.update(team.places[first : bisect_left(team.places, until)])
    for place in sorted(places):
        free = [_free_for(team, place, read.buyer_id) for team in teams if team is not None]
        if all(free) and free == sorted(free):
            return place
    return None


def _free_for(team: Team, place: int, buyer_id: str) -> int:
    """Seats that this new buyer could take; 0: none."""
    index = team.index(place)
    if index < 0:
        return 0
    stood = team.states[index]
    joinable = stood.state == FORMING and stood.paid and buyer_id not in team.rosters[index]
    return max(0, team.free(index)) if joinable else 0
