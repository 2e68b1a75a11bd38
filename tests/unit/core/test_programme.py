"""Distributors, bindings and rates."""

from itertools import pairwise

import pytest

from actors.core import commission_commands as d
from actors.core import programme
from actors.core.commission_state import (
    ACTIVE,
    APPLIED,
    BONDS_MAX,
    BONDS_NEEDED_MS,
    REJECTED,
    SUSPENDED,
)
from actors.core.outcomes import Outcome
from actors.core.programme_config import FIRST_TOUCH, LAST_TOUCH
from tests.model.bureau import DAY_MS, HOUR_MS, JANUARY, NOVEMBER, SLOT, Bureau


def with_distributors(*names: str, **changes: object) -> Bureau:
    bureau = Bureau()
    bureau.open(*(names or ("bob", "cid", "dan")), **changes)
    return bureau


def referrer(bureau: Bureau, buyer: str) -> str:
    bonds = bureau.programme.bonds.get(buyer)
    bond = None if bonds is None else bonds.at(bureau.now_ms)
    return "" if bond is None else bond.distributor_id


# Distributors


def test_who_applies_gets_a_share_code_at_once_or_when_approved() -> None:
    bureau = with_distributors("bob", approve_at_once=False)
    assert bureau.distributor("bob").state == APPLIED
    assert not bureau.code("bob")
    answer = bureau.act("bob", d.APPROVE)
    assert answer[0] == Outcome.APPLIED
    assert answer[1][:3] == ("bob", ACTIVE, bureau.code("bob"))
    assert len(bureau.code("bob")) == 10
    assert bureau.apply("bob")[0] == Outcome.FOUND


def test_acts_lead_only_where_they_may() -> None:
    bureau = with_distributors("bob", approve_at_once=False)
    assert bureau.act("eve", d.APPROVE)[0] == Outcome.NOT_DISTRIBUTOR
    assert bureau.act("bob", d.RESUME)[0] == Outcome.DISTRIBUTOR_CONFLICT
    assert bureau.act("bob", d.REJECT)[1][1] == REJECTED
    assert bureau.act("bob", d.SUSPEND)[0] == Outcome.DISTRIBUTOR_CONFLICT
    assert bureau.act("bob", d.APPROVE)[1][1] == ACTIVE
    code = bureau.code("bob")
    assert bureau.act("bob", d.SUSPEND)[1][1] == SUSPENDED
    before = len(bureau.journal)
    assert bureau.act("bob", d.SUSPEND)[0] == Outcome.APPLIED
    assert len(bureau.journal) == before
    assert bureau.act("bob", d.RESUME)[1][2] == code


# Bindings


def test_a_share_code_binds_a_buyer_to_its_owner() -> None:
    bureau = with_distributors()
    assert bureau.bind("ann", "bob")[:2] == (Outcome.APPLIED, "bob")
    assert bureau.bind("ann", "bob")[:2] == (Outcome.FOUND, "bob")
    assert bureau.do(d.BIND_REFERRER, "ann", "no such code")[0] == Outcome.NOT_FOUND
    assert referrer(bureau, "ann") == "bob"


def test_nobody_is_bound_to_oneself_nor_to_who_is_suspended() -> None:
    bureau = with_distributors()
    assert bureau.bind("bob", "bob")[0] == Outcome.SELF_REFERRAL
    bureau.act("bob", d.SUSPEND)
    assert bureau.bind("ann", "bob")[0] == Outcome.NOT_ACTIVE


def test_first_touch_keeps_the_buyer() -> None:
    bureau = with_distributors(policy=FIRST_TOUCH)
    bureau.bind("ann", "bob")
    bureau.wait(HOUR_MS)
    assert bureau.bind("ann", "cid")[:2] == (Outcome.BOUND_ALREADY, "bob")


def test_first_touch_ends_with_its_validity() -> None:
    bureau = with_distributors(validity_ms=DAY_MS)
    bureau.bind("ann", "bob")
    bureau.wait(DAY_MS - 1)
    assert bureau.bind("ann", "cid")[0] == Outcome.BOUND_ALREADY
    assert bureau.earned("r1", "ann") != ()
    bureau.wait(1)
    assert bureau.earned("r2", "ann") == ()
    assert bureau.bind("ann", "cid")[0] == Outcome.APPLIED


def test_last_touch_takes_the_buyer_over_once_the_protection_has_passed() -> None:
    bureau = with_distributors(policy=LAST_TOUCH, protection_ms=DAY_MS)
    bureau.bind("ann", "bob")
    bureau.wait(DAY_MS - 1)
    assert bureau.bind("ann", "cid")[0] == Outcome.BOUND_ALREADY
    bureau.wait(1)
    assert bureau.bind("ann", "cid")[0] == Outcome.APPLIED
    assert referrer(bureau, "ann") == "cid"


def test_of_two_touches_in_one_millisecond_the_first_counts() -> None:
    bureau = with_distributors(policy=LAST_TOUCH)
    assert bureau.bind("ann", "bob")[0] == Outcome.APPLIED
    assert bureau.bind("ann", "cid")[0] == Outcome.BOUND_ALREADY
    bureau.wait(1)
    assert bureau.bind("ann", "cid")[0] == Outcome.APPLIED


def test_last_touch_of_the_same_distributor_renews_the_validity() -> None:
    bureau = with_distributors(policy=LAST_TOUCH, validity_ms=2 * DAY_MS)
    bureau.bind("ann", "bob")
    bureau.wait(DAY_MS)
    assert bureau.bind("ann", "bob")[0] == Outcome.APPLIED
    bureau.wait(DAY_MS)
    assert referrer(bureau, "ann") == "bob"
    bonds = bureau.programme.bonds.get("ann")
    assert bonds is not None
    assert len(bonds.bonds) == 1


def test_only_new_buyers_are_bound_if_the_programme_says_so() -> None:
    bureau = with_distributors(new_buyers_only=True)
    assert bureau.bind("ann", "bob")[0] == Outcome.NOT_NEW_BUYER
    assert bureau.bind("ann", "bob", new=True)[0] == Outcome.APPLIED


@pytest.mark.parametrize("length", [2, 3, 4, 9])
def test_no_cycle_of_any_length_is_closed(length: int) -> None:
    names = [f"d{number}" for number in range(length)]
    bureau = with_distributors(*names)
    for one, other in pairwise(names):
        assert bureau.bind(one, other)[0] == Outcome.APPLIED
    assert bureau.bind(names[-1], names[0])[0] == Outcome.CYCLE


def test_a_binding_that_is_over_closes_no_cycle_and_one_that_begins_later_does() -> None:
    bureau = with_distributors(validity_ms=DAY_MS)
    bureau.bind("bob", "cid")
    bureau.wait(DAY_MS - 1)
    assert bureau.bind("cid", "bob")[0] == Outcome.CYCLE
    bureau.wait(1)
    assert bureau.bind("cid", "bob")[0] == Outcome.APPLIED
    # By the clock of a stock shard that is ahead dan is bound in an hour.
    assert len(bureau.touch("r1", "dan", "cid", ago_ms=-HOUR_MS)) == 1
    assert referrer(bureau, "dan") == ""
    assert bureau.bind("bob", "dan")[0] == Outcome.CYCLE


def test_an_older_telling_of_a_freeze_changes_nothing() -> None:
    bureau = with_distributors()
    frozen_ms = bureau.now_ms
    until_ms = frozen_ms + DAY_MS
    for told in ((until_ms, frozen_ms + 2), (0, frozen_ms + 1), (0, frozen_ms + 2)):
        bureau.tell_hold("bob", *told)
        assert bureau.distributor("bob").held_until_ms == until_ms
    assert bureau.tell_hold("bob", 0, frozen_ms + 1)[0] == Outcome.FOUND
    assert bureau.tell_hold("bob", 0, frozen_ms + 3)[0] == Outcome.APPLIED
    assert bureau.tell_hold("bob", until_ms, frozen_ms + 2)[0] == Outcome.FOUND
    assert bureau.distributor("bob").held_until_ms == 0


def test_that_a_freeze_is_over_is_remembered_though_its_beginning_was_never_told() -> None:
    bureau = with_distributors()
    assert bureau.tell_hold("bob", 0, bureau.now_ms)[0] == Outcome.APPLIED
    late = bureau.tell_hold("bob", bureau.now_ms + DAY_MS, bureau.now_ms - 1)
    assert (late[0], bureau.distributor("bob").held_until_ms) == (Outcome.FOUND, 0)


def test_a_hold_that_ended_by_itself_does_not_come_back() -> None:
    bureau = with_distributors()
    hold = ("bob", bureau.now_ms + DAY_MS, bureau.now_ms)
    bureau.tell_hold(*hold)
    bureau.wait(DAY_MS + 1_000)
    assert bureau.distributor("bob").held_until_ms == 0
    for state in (bureau.state, bureau.replica(), bureau.from_snapshot()):
        programme = state.slot(SLOT).programme
        assert programme is not None
        bob = programme.distributors.get("bob")
        assert bob is not None
        assert bob.held_as_of_ms == hold[2]
    assert bureau.tell_hold(*hold)[0] == Outcome.FOUND


def test_who_is_frozen_goes_on_binding_and_who_is_suspended_does_not() -> None:
    bureau = with_distributors()
    bureau.hold("bob", DAY_MS)
    assert bureau.bind("ann", "bob")[0] == Outcome.APPLIED
    bureau.act("bob", d.SUSPEND)
    assert bureau.bind("eve", "bob")[0] == Outcome.NOT_ACTIVE
    assert bureau.touch("r1", "eve", "bob") == ()
    assert bureau.bind("ann", "bob")[0] == Outcome.FOUND, "what stands goes on standing"


def test_a_chain_that_is_too_long_to_look_at_is_not_made_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programme, "ANCESTORS_MAX", 2)
    bureau = with_distributors("d0", "d1", "d2", "d3", "d4")
    for one, other in [("d0", "d1"), ("d1", "d2"), ("d2", "d3")]:
        assert bureau.bind(one, other)[0] == Outcome.APPLIED
    assert bureau.bind("d4", "d0")[0] == Outcome.LIMIT_EXCEEDED
    assert bureau.bind("ann", "d0")[0] == Outcome.APPLIED


def test_a_late_fact_closes_no_cycle_with_what_was_bound_since() -> None:
    """Cid's binding has ended when bob is bound to dan, dan to cid; then a share code of the past
    would bind cid to bob again, for longer."""
    bureau = with_distributors(policy=LAST_TOUCH, validity_ms=DAY_MS)
    bureau.bind("cid", "bob")
    bureau.wait(DAY_MS)
    assert bureau.bind("dan", "cid")[0] == Outcome.APPLIED
    assert bureau.bind("bob", "dan")[0] == Outcome.APPLIED
    assert bureau.touch("r1", "cid", "bob", ago_ms=HOUR_MS) == ()


def test_a_share_code_on_a_reservation_pays_for_that_very_order() -> None:
    bureau = with_distributors()
    bureau.wait(HOUR_MS)
    assert len(bureau.touch("r1", "ann", "bob", ago_ms=500)) == 1
    bureau.earned("r1", "ann", ago_ms=500)
    assert bureau.money("bob")[0] == 1_000


def test_a_touch_that_is_told_late_stands_until_the_next_binding() -> None:
    bureau = with_distributors(policy=LAST_TOUCH)
    bureau.wait(HOUR_MS)
    bureau.bind("ann", "cid")
    bureau.touch("r1", "ann", "bob", ago_ms=HOUR_MS // 2)
    assert referrer(bureau, "ann") == "cid"
    bureau.earned("r1", "ann", ago_ms=HOUR_MS // 2)
    assert bureau.money("bob")[0] == 1_000


def test_bindings_are_remembered_up_to_a_number() -> None:
    bureau = with_distributors(policy=LAST_TOUCH)
    for number in range(BONDS_MAX + 5):
        bureau.bind("ann", ("bob", "cid")[number % 2])
        bureau.now_ms += DAY_MS
    bonds = bureau.programme.bonds.get("ann")
    assert bonds is not None
    assert len(bonds.bonds) == BONDS_MAX
    assert referrer(bureau, "ann") == ("bob", "cid")[(BONDS_MAX + 4) % 2]


def test_no_buyer_makes_a_binding_forgotten_that_an_order_may_still_need() -> None:
    """Ann orders by bob, then touches others' codes until bob would be the one too many."""
    bureau = with_distributors(policy=LAST_TOUCH)
    bureau.bind("ann", "bob")
    ordered_ms = bureau.now_ms
    for number in range(BONDS_MAX - 1):
        bureau.now_ms += 1
        assert bureau.bind("ann", ("cid", "dan")[number % 2])[0] == Outcome.APPLIED
    bureau.now_ms += 1
    assert bureau.bind("ann", "dan")[:2] == (Outcome.LIMIT_EXCEEDED, "cid")
    assert bureau.touch("r2", "ann", "dan") == ()
    bureau.earned("r1", "ann", ago_ms=bureau.now_ms - ordered_ms)
    assert bureau.money("bob")[0] == 1_000
    bureau.now_ms = ordered_ms + 1 + BONDS_NEEDED_MS
    assert bureau.bind("ann", "dan")[0] == Outcome.APPLIED


# Rates


def test_a_version_stands_until_the_next_and_is_kept() -> None:
    bureau = with_distributors()
    assert bureau.rates()[:2] == (Outcome.APPLIED, 1)
    assert bureau.rates(level1_bps=1)[:2] == (Outcome.APPLIED, 2)
    assert bureau.do(d.GET_PROGRAMME, 1)[3].level1_bps == 1_000
    assert bureau.do(d.GET_PROGRAMME)[3].level1_bps == 1
    assert bureau.do(d.GET_PROGRAMME, 3)[0] == Outcome.NOT_FOUND


@pytest.mark.parametrize("field", ["currency_code", "time_zone"])
def test_what_the_ledger_rests_on_cannot_change(field: str) -> None:
    bureau = with_distributors()
    other = {"currency_code": "EUR", "time_zone": "Europe/Berlin"}[field]
    assert bureau.rates(**{field: other}) == (Outcome.INVALID, 1, f"{field} cannot change")


# Leaderboards


def test_boards_name_the_first_of_a_month_by_buyers_bound_and_by_sales() -> None:
    bureau = with_distributors("bob", "cid", "dan", policy=LAST_TOUCH)
    for buyer, to in [("b1", "bob"), ("b2", "cid"), ("b3", "cid"), ("b4", "dan")]:
        bureau.bind(buyer, to)
    bureau.wait(1)
    bureau.bind("b1", "cid")
    bureau.wait(1)
    bureau.bind("b1", "bob")
    bureau.earned("r1", "b1", 500, quantity=2)
    bureau.earned("r2", "b2", 300)
    bureau.returned("r1", 1, of=2)
    invites = bureau.do(d.GET_LEADERBOARD, d.BOARD_INVITES)
    assert invites[1:] == (NOVEMBER, (("cid", 3), ("bob", 1), ("dan", 1)))
    sales = bureau.do(d.GET_LEADERBOARD, d.BOARD_SALES, NOVEMBER, 1)
    assert sales[2] == (("cid", 300),)
    bureau.wait(60 * DAY_MS)
    bureau.earned("r3", "b1", 100)
    assert bureau.do(d.GET_LEADERBOARD, d.BOARD_SALES)[1:] == (JANUARY, (("bob", 100),))
    assert bureau.do(d.GET_LEADERBOARD, d.BOARD_SALES, NOVEMBER)[0] == Outcome.NOT_FOUND
