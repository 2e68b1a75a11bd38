"""Teams as the journal tells them: part of `books.py`, whose rules hold here.

Of each team it is kept who sat in it, paid or not, from which place on. Each record is held against
what stood before it: a team has no more seats than its last tier has people and nobody twice; it
forms with the people of a tier and at that tier's price; and whoever paid for a seat is a member of
a formed team in the end, or has all of it due back, once.
"""

from bisect import bisect_right
from typing import NamedTuple

from actors.core import team_records as t
from actors.core.campaign_config import CampaignConfig, GroupRules, Tier
from actors.core.identity import public_id
from actors.core.team_state import TEAM_FAILED
from server.verify import Invariant

FORMING, FORMED, FAILED, CANCELLED = "FORMING", "FORMED", "FAILED", "CANCELLED"


class Terms(NamedTuple):
    """What a line's configuration says of its teams."""

    tiers: tuple[Tier, ...]
    rules: GroupRules

    @property
    def capacity(self) -> int:
        """Seats of a team."""
        return self.tiers[-1].people

    def reached(self, people: int) -> Tier | None:
        """The highest tier of so many people."""
        reached = [tier for tier in self.tiers if tier.people <= people]
        return reached[-1] if reached else None


class TeamStood(NamedTuple):
    """What is read of a team, from a place on."""

    state: str
    paid: int
    unpaid: int
    virtual: int


class Seat:
    """A seat, and what became of what was paid for it."""

    __slots__ = ("buyer_id", "end", "name", "new_buyer", "paid_minor", "quantity", "team")

    def __init__(self, name: str, team: "Team", record: t.SeatTaken) -> None:
        self.name = name
        self.team = team
        self.buyer_id = record.buyer_id
        self.quantity = record.quantity
        self.new_buyer = record.new_buyer
        self.paid_minor = 0
        self.end = ""
        """Of a paid one: SETTLED or REFUNDED, once that is so."""


class Team:
    """One team and all that it ever was."""

    __slots__ = (
        "by_hand",
        "campaign_id",
        "deadline_ms",
        "leader",
        "members",
        "missing",
        "name",
        "opener_id",
        "places",
        "rosters",
        "seats",
        "shard",
        "states",
        "terms",
        "tier",
    )

    def __init__(self, shard: int, name: str, terms: Terms, record: t.TeamOpened) -> None:
        self.shard, self.name, self.terms = shard, name, terms
        self.campaign_id, self.opener_id = record.campaign_id, record.opener_id
        self.deadline_ms = record.deadline_ms
        self.leader = ""
        self.seats: dict[str, Seat] = {}
        """Of a forming one, by name: reserved and paid."""
        self.members: frozenset[str] = frozenset()
        """Of a formed one."""
        self.tier: Tier | None = None
        self.by_hand = False
        """An operator completed it."""
        self.places: list[int] = []
        self.states: list[TeamStood] = []
        self.rosters: list[frozenset[str]] = []
        """Beside `states`: buyers who sit in it."""
        self.missing: list[int] = []
        """... and seats that only new buyers may still take."""

    @property
    def state(self) -> str:
        """As it stands now."""
        return self.states[-1].state if self.states else FORMING

    def paid(self) -> list[Seat]:
        """Seats that are paid for."""
        return [seat for seat in self.seats.values() if seat.paid_minor]

    def note(self, place: int, state: str = FORMING, members: int = 0, virtual: int = 0) -> None:
        """As it stands from `place` on; `members` of one that ended."""
        paid = len(self.paid()) if state == FORMING else members
        unpaid = len(self.seats) - paid if state == FORMING else 0
        new = sum(seat.new_buyer for seat in self.seats.values())
        self.places.append(place)
        self.states.append(TeamStood(state, paid, unpaid, virtual))
        self.rosters.append(frozenset(seat.buyer_id for seat in self.seats.values()))
        self.missing.append(max(0, self.terms.rules.new_buyer_seats - new))

    def index(self, place: int) -> int:
        """Which state stood after this place; -1 if it was not opened yet."""
        return bisect_right(self.places, place) - 1

    def free(self, index: int) -> int:
        """Seats that nobody had in a state."""
        stood = self.states[index]
        return self.terms.capacity - stood.paid - stood.unpaid


class TeamBooks:
    """All shards' teams, and what was wrong with them by counting alone."""

    def __init__(self) -> None:
        self.teams: dict[str, Team] = {}
        self.seats: dict[str, Seat] = {}
        self.joined: dict[str, str] = {}
        """Seat -> the team that it was taken in; late payers may end in another."""
        self.opened_by: dict[tuple[str, str], list[Team]] = {}
        """By campaign and buyer."""
        self.seated = Invariant()
        self.formed_right = Invariant()
        self.owed = Invariant()
        self._terms: dict[tuple[str, str], Terms] = {}
        self._refunds: set[str] = set()
        self._unsettled: set[str] = set()
        """Members of teams that formed in the entry that is being read."""

    @property
    def forming(self) -> int:
        """Teams that have not ended."""
        return sum(1 for team in list(self.teams.values()) if team.state == FORMING)

    def terms(self, campaign_id: str, config: CampaignConfig) -> None:
        """What a campaign says of its teams, if it has any."""
        for line in config.lines:
            if config.group is not None and line.tiers:
                self._terms[campaign_id, line.sku_id] = Terms(line.tiers, config.group)

    def opened(self, shard: int, place: int, record: t.TeamOpened) -> None:
        """A team begins."""
        name = public_id(record.slot, record.team_key)
        terms = self._terms[record.campaign_id, record.sku_id]
        team = self.teams[name] = Team(shard, name, terms, record)
        mine = self.opened_by.setdefault((team.campaign_id, team.opener_id), [])
        mine.append(team)
        forming = sum(1 for one in mine if one.state == FORMING)
        self.seated.check(
            forming <= terms.rules.teams_per_buyer,
            f"{team.opener_id} has {forming} open teams of {team.campaign_id}",
        )
        team.note(place)

    def taken(self, place: int, record: t.SeatTaken) -> None:
        """Somebody sits down."""
        name = public_id(record.slot, record.key)
        team = self.teams[public_id(record.slot, record.team_key)]
        seat = self.seats[name] = Seat(name, team, record)
        self.joined[name] = team.name
        self._enter(place, seat)

    def _enter(self, place: int, seat: Seat) -> None:
        team = seat.team
        free = team.terms.capacity - len(team.seats)
        who = f"{seat.name} of {seat.buyer_id}"
        there = [other.buyer_id for other in team.seats.values()]
        self.seated.check(team.state == FORMING, f"{team.name} takes {who}, and is {team.state}")
        self.seated.check(free > 0, f"{team.name} is full, and takes {who}")
        self.seated.check(seat.buyer_id not in there, f"{team.name} takes {who} twice")
        self.seated.check(
            seat.new_buyer or free > (team.missing[-1] if team.missing else 0),
            f"{team.name} takes {who}, and has {free} seats left for new buyers",
        )
        team.seats[seat.name] = seat
        team.note(place)

    def led(self, record: t.TeamLed) -> None:
        """A team has another leader."""
        team = self.teams[public_id(record.slot, record.team_key)]
        team.leader = public_id(record.slot, record.leader_key) if record.leader_key else ""

    def moved(self, record: t.SeatMoved) -> None:
        """A late payer comes to another team; the payment is the next record."""
        seat = self.seats[public_id(record.slot, record.key)]
        seat.team = self.teams[public_id(record.slot, record.team_key)]

    def paid(self, place: int, name: str, paid_minor: int) -> None:
        """A reservation was paid; whoever had lost the seat takes it anew."""
        seat = self.seats.get(name)
        if seat is None:
            return
        seat.paid_minor = paid_minor
        if name in seat.team.seats:
            seat.team.note(place)
        else:
            self._enter(place, seat)

    def freed(self, place: int, name: str) -> None:
        """An unpaid reservation ended."""
        seat = self.seats.get(name)
        if seat is not None:
            self._leaves(place, seat)

    def closed(self, place: int, record: t.SeatClosed) -> None:
        """A paid seat ends without a formed team."""
        name = public_id(record.slot, record.key)
        seat = self.seats[name]
        self._ends(seat, "REFUNDED")
        self._refund(seat, record)
        self.owed.check(
            record.refund_minor == seat.paid_minor,
            f"{name}: {seat.paid_minor} were paid, {record.refund_minor} are due",
        )
        self._leaves(place, seat)

    def _leaves(self, place: int, seat: Seat) -> None:
        if seat.name in seat.team.seats:
            del seat.team.seats[seat.name]
            seat.team.note(place)

    def _ends(self, seat: Seat, end: str) -> None:
        self.owed.check(
            bool(seat.paid_minor) and not seat.end,
            f"{seat.name} of {seat.buyer_id} is {end}; {seat.paid_minor} paid, {seat.end or '-'}",
        )
        seat.end = end

    def _refund(self, seat: Seat, record: t.SeatClosed | t.SeatSettled) -> None:
        refund = public_id(record.slot, record.refund_key)
        self.owed.check(refund not in self._refunds, f"{seat.name}: refund {refund} is one already")
        self._refunds.add(refund)

    def formed(self, place: int, record: t.TeamFormed) -> None:
        """A team reached a tier."""
        team = self.teams[public_id(record.slot, record.team_key)]
        members = frozenset(public_id(record.slot, key) for key in record.members)
        found = frozenset(seat.name for seat in team.paid())
        people = len(members) + record.virtual
        tier = team.terms.reached(people)
        check = self.formed_right.check
        check(team.state == FORMING, f"{team.name} forms, and is {team.state}")
        check(
            members == found and members == team.seats.keys(),
            f"{team.name} forms with {len(members)} members; {len(found)} have paid of "
            f"{len(team.seats)}",
        )
        check(
            tier == (record.tier_people, record.unit_price_minor),
            f"{team.name}: {people} people reach {tier}, it forms at {record.tier_people}",
        )
        check(bool(record.caller) or not record.virtual, f"{team.name}: virtual seats by nobody")
        new = sum(seat.new_buyer for seat in team.paid())
        check(
            bool(record.caller) or new >= team.terms.rules.new_buyer_seats,
            f"{team.name} forms with {new} new buyers",
        )
        check(team.leader in members, f"{team.name} forms without its leader")
        team.tier, team.members = Tier(record.tier_people, record.unit_price_minor), members
        team.by_hand = bool(record.caller)
        self._unsettled |= members
        team.seats = {}
        team.note(place, FORMED, len(members), record.virtual)

    def settled(self, record: t.SeatSettled) -> None:
        """What a member of a formed team pays in the end."""
        name = public_id(record.slot, record.key)
        seat = self.seats[name]
        team, tier = seat.team, seat.team.tier
        self._ends(seat, "SETTLED")
        self._unsettled.discard(name)
        if record.refund_minor:
            self._refund(seat, record)
        unit = 0 if tier is None else tier.unit_price_minor
        if name == team.leader:
            unit -= unit * team.terms.rules.leader_discount_bps // 10_000
        refund = max(0, seat.paid_minor - unit * seat.quantity)
        self.owed.check(
            name in team.members
            and (record.refund_minor, record.final_minor) == (refund, seat.paid_minor - refund),
            f"{name}: {seat.paid_minor} paid for {seat.quantity} at {unit}; {record.final_minor} "
            f"kept, {record.refund_minor} due",
        )

    def ended(self, place: int, record: t.TeamClosed) -> None:
        """A team failed, or nobody is left in it."""
        team = self.teams[public_id(record.slot, record.team_key)]
        self.formed_right.check(
            team.state == FORMING, f"{team.name} is closed, and was {team.state}"
        )
        left = sorted(team.seats)
        self.owed.check(not left, f"{team.name} ended before its seats: {left}")
        state = FAILED if record.state == TEAM_FAILED else CANCELLED
        team.seats = {}
        team.note(place, state, len(record.members))

    def entry_over(self) -> None:
        """All records of an entry were read."""
        if self._unsettled:
            self.owed.check(False, f"formed, and not settled with it: {sorted(self._unsettled)}")
            self._unsettled = set()

    def check_ends(self) -> None:
        """All teams should have ended by now: nobody who paid is left waiting."""
        for seat in self.seats.values():
            self.owed.check(
                not seat.paid_minor or bool(seat.end),
                f"{seat.name} of {seat.buyer_id}: {seat.paid_minor} paid, {seat.team.name} is "
                f"{seat.team.state}",
            )
