"""The checks of teams in a chaos run can fail: each finds what is wrong in one thing.

As in `test_chaos_checks.py`, the journal is that of one shop, decided by the real core.
"""

from collections.abc import Callable
from typing import Any

import pytest

from actors.core import records as r
from actors.core import state as s
from actors.core import team_records as t
from actors.core.codec import pack_entry, unpack_entry
from actors.core.identity import parse_public_id, public_id, request_key
from actors.core.outcomes import Outcome
from actors.core.team_state import TEAM_FORMED
from actors.core.teams import team_key_of
from server.chaos.history import (
    FAIL,
    OK,
    Operation,
    completion_mark,
    payment_mark,
    release_mark,
)
from tests.model.shop import MINUTE_MS
from tests.model.team_shop import SLOT, TEAM_WINDOW_MS, TeamShop
from tests.unit.server.test_chaos_checks import OF_TEAMS, Story

DONE = ("RESERVED", "CONFIRMED", "REFUND_DUE", "LEFT", "APPLIED", "FOUND")
Change = Callable[[Any], Any]


class TeamStory(Story):
    """A shop that sells to teams of two and of four, one seat of each for a new buyer."""

    shop: TeamShop

    def __init__(self, units: int = 12) -> None:
        super().__init__()
        self.shop = TeamShop()
        self.shop.sell_to_teams(
            (2, 90),
            (4, 70),
            units=units,
            new_buyer_seats=1,
            teams_per_buyer=1,
            leader_discount_bps=333,
            virtual_completion=True,
        )

    def _told(self, verb: str, decided: tuple[Any, ...], **fields: Any) -> Operation:
        status = Outcome(decided[0]).name
        team = fields.pop("team", "")
        self.tell(verb, status, outcome=OK if status in DONE else FAIL, **fields)
        self.change(-1, team_id=team)
        return self.operations[-1]

    def _sat(self, verb: str, answer: Any, buyer: str, request: str, team: str) -> str:
        seat = public_id(SLOT, request_key("web", request))
        held = answer[0] == Outcome.RESERVED
        fields = {"mark": f"request:{seat}", "buyer": buyer, "team": team}
        self._told(verb, answer, reservation_id=seat if held else "", **fields)
        return seat

    def open_team(self, buyer: str, **more: Any) -> tuple[str, str]:
        """(team, opener's seat), whatever the answer."""
        request = f"{buyer}-{len(self.operations)}"
        team = public_id(SLOT, team_key_of(request_key("web", request)))
        answer = self.shop.open_team(buyer, request, **more)
        return team, self._sat("open_team", answer, buyer, request, team)

    def join(self, team: str, buyer: str, **more: Any) -> str:
        """The seat, whatever the answer."""
        request = f"{buyer}-{len(self.operations)}"
        answer = self.shop.join(team, buyer, request, **more)
        seat = self._sat("join_team", answer, buyer, request, team)
        self.change(-1, quantity=more.get("quantity", 1))
        return seat

    def pay(self, name: str, payment: str = "") -> None:
        payment = payment or f"pay-{name}"
        answer = self.shop.pay(name, payment, self.shop.held(name).payable_minor)
        self._told("confirm", answer, mark=payment_mark(SLOT, payment), reservation_id=name)

    def start(self, buyer: str, *, new: bool = True) -> str:
        """A team whose opener has paid."""
        team, seat = self.open_team(buyer, new_buyer=new)
        self.pay(seat)
        return team

    def comes(self, team: str, buyer: str, **more: Any) -> str:
        """A paid seat."""
        seat = self.join(team, buyer, **more)
        self.pay(seat)
        return seat

    def leaves(self, seat: str) -> None:
        """Somebody leaves."""
        answer = self.shop.leaves(seat)
        self._told("leave_team", answer, mark=release_mark(seat), reservation_id=seat)

    def complete(self, team: str) -> None:
        """An operator completes it."""
        answer = self.shop.complete(team)
        self._told("complete_team", answer, mark=completion_mark(team), team=team)

    def look(self, team: str) -> Operation:
        """A read of a team."""
        row = self.shop.team(team)
        state = "FORMED" if row.state == TEAM_FORMED else "FORMING"
        paid, unpaid = row.paid, len(row.buyers) - row.paid
        if state == "FORMED":
            paid, unpaid = len(row.members), 0
        answer = (state, paid, unpaid, row.virtual)
        return self._told("get_team", (Outcome.FOUND,), answer=answer, team=team)

    def suggest(self, buyer: str) -> Operation:
        """Teams for a new buyer."""
        found = tuple(self.shop.suggest(buyer, new=True))
        return self._told("suggest_teams", (Outcome.FOUND,), buyer=buyer, answer=found)

    def end(self) -> None:
        """The campaign is ended, and with it its teams."""
        self.shop.turn(s.CAMPAIGN_ENDED)
        self.shop.end_teams()

    def redo(self, change: Callable[[list[Any]], list[Any]]) -> None:
        """Other records in each entry."""
        for index, data in enumerate(self.shop.journal):
            content = unpack_entry(data)
            self.shop.journal[index] = pack_entry(
                epoch=1,
                now_ms=content.now_ms,
                records=change(list(content.records)),
                balances=content.balances,
            )

    def asked_for(self, verb: str, status: str) -> int:
        """Where in the history something was told."""
        return next(
            index
            for index, one in enumerate(self.operations)
            if (one.verb, one.status) == (verb, status)
        )


def good_story() -> TeamStory:
    """Every kind of answer and of end once, and all of them true."""
    story = TeamStory()
    full = story.start("ann")
    story.open_team("ann")  # one team a buyer
    story.join(full, "ann", new_buyer=True)  # is in it
    story.comes(full, "bob")
    late = story.join(full, "cid")
    last = story.join(full, "dan")
    story.join(full, "eve")  # full
    story.look(full)
    story.leaves(late)
    story.suggest("fay")
    story.comes(full, "gus")
    story.pay(last)  # complete
    story.leaves(last)  # too late
    story.look(full)
    story.join(full, "hal")  # formed

    story.complete(story.start("ida", new=False))

    failed, quiet = story.open_team("kim")
    story.join(failed, "lea")  # nobody has paid
    story.pay(quiet)
    story.comes(failed, "mia", quantity=2)
    gone = story.comes(failed, "ned")
    story.join(failed, "oda")  # the last seat is a new buyer's
    story.leaves(gone)
    unpaid = story.join(failed, "pam")
    story.end()
    story.pay(unpaid)  # there is no team any more
    story.open_team("quin")  # ended
    return story


def test_nothing_is_wrong_with_a_good_story_and_every_check_looked_at_it() -> None:
    story = good_story()
    checks = story.checks()
    assert {name: found.examples for name, found in checks.items() if found.violations} == {}
    assert {name for name, found in checks.items() if found.checked} >= OF_TEAMS
    told = {(one.verb, one.status) for one in story.operations}
    assert told >= {
        ("open_team", "TOO_MANY_TEAMS"),
        ("open_team", "ENDED"),
        ("join_team", "ALREADY_IN_TEAM"),
        ("join_team", "TEAM_FULL"),
        ("join_team", "TEAM_CLOSED"),
        ("join_team", "TEAM_NOT_OPEN"),
        ("join_team", "NEW_BUYERS_ONLY"),
        ("leave_team", "TEAM_CLOSED"),
        ("leave_team", "LEFT"),
        ("complete_team", "APPLIED"),
        ("confirm", "REFUND_DUE"),
    }


def test_a_late_payer_who_is_moved_to_another_team_is_explained() -> None:
    story = TeamStory()
    first, second = story.start("ann"), story.start("bob")
    late = story.join(first, "cid")
    story.shop.wait(16 * MINUTE_MS)
    story.shop.expire()
    for buyer in ("dan", "eve", "fay"):
        story.comes(first, buyer)
    story.pay(late)
    assert story.books().teams.seats[late].team.name == second
    story.end()
    assert story.violated() == set()


def test_a_team_that_reaches_a_tier_at_its_deadline_is_explained() -> None:
    story = TeamStory()
    story.comes(story.start("ann"), "bob")
    story.shop.wait(TEAM_WINDOW_MS)
    story.shop.end_teams()
    assert story.violated() == set()


def on(kind: int, change: Change, *, nth: int = 0) -> Change:
    """Changes the n-th record of this kind alone."""
    met = [0]

    def once(record: Any) -> Any:
        if getattr(record, "kind", None) != kind or isinstance(record, r.Balance):
            return record
        met[0] += 1
        return change(record) if met[0] == nth + 1 else record

    return once


def named(**fields: Any) -> Change:
    return lambda record: record._replace(**fields)


def off_by_a_cent(record: Any) -> Any:
    return record._replace(refund_minor=record.refund_minor - 1)


BROKEN_JOURNALS: dict[str, tuple[int, int, Change, str]] = {
    "a buyer sits twice in one team": (t.SEAT_TAKEN, 1, named(buyer_id="ann"), "seated"),
    "the last seat for a new buyer goes to another": (
        t.SEAT_TAKEN,
        0,
        named(new_buyer=False),
        "seated",
    ),
    "a team forms at a tier that it does not reach": (
        t.TEAM_FORMED,
        0,
        named(tier_people=2, unit_price_minor=90),
        "formed",
    ),
    "a team forms with people of no tier": (t.TEAM_FORMED, 0, named(tier_people=3), "formed"),
    "a team forms at a price of no tier": (t.TEAM_FORMED, 0, named(unit_price_minor=71), "formed"),
    "a team forms without one who paid": (
        t.TEAM_FORMED,
        0,
        lambda it: it._replace(members=it.members[1:]),
        "formed",
    ),
    "a team has virtual seats that nobody gave it": (
        t.TEAM_FORMED,
        0,
        named(virtual=1),
        "formed",
    ),
    "a ladder's refund is off by a cent": (t.SEAT_SETTLED, 1, off_by_a_cent, "owed"),
    "who left gets a cent too little back": (t.SEAT_CLOSED, 0, off_by_a_cent, "owed"),
    "the leader's discount is forgotten": (
        t.SEAT_SETTLED,
        0,
        lambda it: it._replace(refund_minor=it.refund_minor - 2, final_minor=it.final_minor + 2),
        "owed",
    ),
    "what is kept is not what was paid less the refund": (
        t.SEAT_SETTLED,
        0,
        lambda it: it._replace(final_minor=it.final_minor + 1),
        "owed",
    ),
}


@pytest.mark.parametrize("what", BROKEN_JOURNALS)
def test_a_journal_is_found_in_which(what: str) -> None:
    story = good_story()
    kind, nth, change, check = BROKEN_JOURNALS[what]
    before = list(story.shop.journal)
    story.rewrite(on(kind, change, nth=nth))
    assert story.shop.journal != before
    assert check in story.violated()


def test_a_seat_in_a_team_that_has_formed_is_found() -> None:
    story = good_story()
    formed = parse_public_id(next(iter(story.books().teams.joined.values())))
    assert formed is not None
    story.rewrite(
        lambda it: (
            it._replace(team_key=formed[1])
            if isinstance(it, t.SeatTaken) and it.buyer_id == "ida"
            else it
        )
    )
    assert story.violated() >= {"seated", "asked"}


def test_a_fifth_seat_of_four_is_found() -> None:
    story = TeamStory()
    team = story.start("ann")
    other = story.start("bob")
    for buyer in ("cid", "dan", "eve"):
        story.join(team, buyer)
    story.join(other, "fay")
    key = parse_public_id(team)
    assert key is not None
    story.rewrite(
        lambda it: (
            it._replace(team_key=key[1])
            if isinstance(it, t.SeatTaken) and it.buyer_id == "fay"
            else it
        )
    )
    assert story.violated() >= {"seated"}
    assert "is full" in " ".join(story.checks()["seated"].examples)


def test_a_second_open_team_of_one_buyer_is_found() -> None:
    story = TeamStory()
    story.start("ann")
    story.start("bob")
    story.end()
    assert story.violated() == set()
    story.rewrite(on(t.TEAM_OPENED, named(opener_id="ann"), nth=1))
    assert "seated" in story.violated()


@pytest.mark.parametrize("kind", [t.SEAT_CLOSED, t.SEAT_SETTLED])
def test_who_ended_with_nothing_settled_is_found(kind: int) -> None:
    """A member of a formed team without a settlement, a paid seat of a failed one without a
    refund."""
    story = good_story()
    ends = [
        one for data in story.shop.journal for one in unpack_entry(data).records if one.kind == kind
    ]
    story.redo(lambda records: [one for one in records if one != ends[-1]])
    assert "owed" in story.violated()


@pytest.mark.parametrize("kind", [t.SEAT_CLOSED, t.SEAT_SETTLED])
def test_a_refund_that_two_members_share_is_found(kind: int) -> None:
    story = good_story()
    ends = [
        one for data in story.shop.journal for one in unpack_entry(data).records if one.kind == kind
    ]
    story.rewrite(lambda it: it._replace(refund_key=ends[0].refund_key) if it == ends[1] else it)
    assert "owed" in story.violated()


@pytest.mark.parametrize("kind", [t.SEAT_CLOSED, t.SEAT_SETTLED])
def test_a_member_who_is_paid_back_twice_is_found(kind: int) -> None:
    story = good_story()
    story.redo(lambda records: [one for it in records for one in ([it] * (1 + (it.kind == kind)))])
    assert "owed" in story.violated()


def test_a_paid_seat_that_waits_for_ever_is_found() -> None:
    story = TeamStory()
    story.start("ann")
    assert story.violated() == {"owed"}
    story.end()
    assert story.violated() == set()


@pytest.mark.parametrize(
    ("told", "instead"),
    [
        ("TEAM_CLOSED", "TEAM_FULL"),
        ("NEW_BUYERS_ONLY", "TEAM_FULL"),
        ("TEAM_FULL", "TEAM_CLOSED"),
        ("TEAM_CLOSED", "TEAM_NOT_OPEN"),
        ("TEAM_CLOSED", "ALREADY_IN_TEAM"),
        ("TEAM_CLOSED", "NEW_BUYERS_ONLY"),
        ("TEAM_CLOSED", "ENDED"),
    ],
)
def test_a_refusal_for_a_reason_that_did_not_hold_is_found(told: str, instead: str) -> None:
    """The journal says the same: it is the decision that was wrong."""
    story = good_story()
    index = story.asked_for("join_team", told)
    parsed = parse_public_id(story.operations[index].mark.removeprefix("request:"))
    assert parsed is not None
    story.change(index, status=instead)
    story.rewrite(
        lambda it: (
            it._replace(outcome=int(Outcome[instead]))
            if isinstance(it, r.RequestRefused) and it.key == parsed[1]
            else it
        )
    )
    assert story.violated() == {"refusals"}


def test_too_many_teams_is_not_told_to_who_has_none() -> None:
    story = good_story()
    index = story.asked_for("open_team", "TOO_MANY_TEAMS")
    story.change(index, buyer_id="zoe")
    assert story.violated() == {"refusals"}


def test_a_team_that_was_closed_to_a_leaver_while_it_was_forming_is_found() -> None:
    story = good_story()
    left = story.asked_for("leave_team", "LEFT")
    again = story.operations[left]._replace(number=999, status="TEAM_CLOSED", outcome=FAIL)
    story.operations.insert(left + 1, again)
    assert "refusals" in story.violated()


def test_a_completion_that_is_not_in_the_journal_is_a_lost_ack() -> None:
    story = good_story()
    story.rewrite(on(t.TEAM_FORMED, named(caller="", reason=""), nth=1))
    assert story.violated() >= {"lost_acks", "formed"}


def test_a_completion_whose_repeat_is_told_otherwise_is_found() -> None:
    story = TeamStory()
    team = story.start("ann")
    story.complete(team)
    story.complete(team)
    assert [one.status for one in story.operations[-2:]] == ["APPLIED", "APPLIED"]
    assert story.violated() == set()
    story.change(-1, status="TEAM_CLOSED", outcome=FAIL)
    assert story.violated() >= {"refusals"}


def test_a_leaving_that_is_not_in_the_journal_is_a_lost_ack() -> None:
    story = good_story()
    story.tell("leave_team", "LEFT", mark=release_mark(f"{SLOT}-nobody"), outcome=OK)
    assert story.violated() == {"lost_acks"}


def test_a_team_that_never_stood_as_it_was_read_is_found() -> None:
    story = good_story()
    index = story.asked_for("get_team", "FOUND")
    story.change(index, answer=("FORMING", 3, 1, 0))
    assert story.violated() == {"reads"}


def test_a_read_of_a_team_as_it_was_before_is_found() -> None:
    story = good_story()
    first = story.operations[story.asked_for("get_team", "FOUND")]
    later = story.asked_for("leave_team", "TEAM_CLOSED") + 1
    assert story.operations[later].verb == "get_team"
    story.change(later, answer=first.answer)
    assert story.violated() == {"reads"}


def test_a_suggestion_of_a_team_that_takes_nobody_is_found() -> None:
    story = TeamStory()
    team, _ = story.open_team("ann", new_buyer=True)
    story.suggest("bob")
    assert story.operations[-1].answer == ()
    assert story.violated() == set()
    story.change(-1, answer=(team,))
    assert story.violated() == {"reads"}


def test_a_suggestion_of_ones_own_team_is_found() -> None:
    story = TeamStory()
    team = story.start("ann")
    story.suggest("bob")
    story.end()
    assert story.operations[-1].answer == (team,)
    assert story.violated() == set()
    story.change(-1, buyer_id="ann")
    assert story.violated() == {"reads"}


def test_suggestions_that_are_not_nearest_to_full_first_are_found() -> None:
    story = TeamStory()
    far, near = story.start("ann"), story.start("bob")
    story.join(near, "cid")
    story.suggest("dan")
    story.end()
    assert story.operations[-1].answer == (near, far)
    assert story.violated() == set()
    story.change(-1, answer=(far, near))
    assert story.violated() == {"reads"}


def test_a_seat_of_another_team_than_was_asked_for_is_found() -> None:
    story = TeamStory()
    first, second = story.start("ann"), story.start("bob")
    story.join(first, "cid")
    story.end()
    assert story.violated() == set()
    story.change(-1, team_id=second)
    assert story.violated() == {"asked"}
