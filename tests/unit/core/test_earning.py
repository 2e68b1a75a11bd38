"""What orders earn, when it becomes available, and how it is taken back."""

import pytest

from actors.core import commission_commands as d
from actors.core import commission_records as cr
from actors.core.outcomes import Outcome
from actors.core.programme_config import CampaignRate, SkuRate
from tests.model.bureau import DAY_MS, FREEZE_MS, HOUR_MS, Bureau


def two_levels(**changes: object) -> Bureau:
    """Ann was brought by bob, who was brought by cid."""
    bureau = Bureau()
    bureau.open("bob", "cid", **changes)
    assert bureau.bind("bob", "cid")[0] == Outcome.APPLIED
    assert bureau.bind("ann", "bob")[0] == Outcome.APPLIED
    bureau.wait(HOUR_MS)
    return bureau


def amounts(bureau: Bureau, *names: str) -> list[int]:
    return [bureau.money(name)[0] for name in names]


def test_both_levels_earn_their_rate_of_the_same_base_rounded_down() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann", 10_999)
    assert amounts(bureau, "bob", "cid") == [1_099, 549]


def test_an_order_is_told_with_the_share_code_of_its_referrer() -> None:
    """Its buyer came by that code once; the order itself need not carry it."""
    bureau = two_levels()
    (accrued,) = bureau.earned("r1", "ann")
    assert (accrued.referrer_id, accrued.share_code) == ("bob", bureau.code("bob"))


def test_every_record_of_the_ledger_sums_to_0_and_so_do_the_accounts() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann", 10_999, quantity=3)
    bureau.returned("r1", 1, of=3)
    bureau.wait(FREEZE_MS)
    for entry in bureau.entries():
        assert sum(entry[cr.AMOUNTS_FROM :]) == 0
    assert sum(bureau.programme.sums) == 0
    assert bureau.programme.sums[0] == -sum(sum(bureau.money(name)) for name in ("bob", "cid"))


def test_an_order_earns_once_however_often_it_is_told() -> None:
    bureau = two_levels()
    assert len(bureau.earned("r1", "ann")) == 1
    assert bureau.earned("r1", "ann") == ()
    assert len(bureau.entries("bob")) == 1


def test_a_buyer_without_a_referrer_makes_nobody_earn() -> None:
    bureau = two_levels()
    assert bureau.earned("r1", "eve") == ()


def test_an_order_pays_who_was_bound_when_it_was_reserved() -> None:
    bureau = two_levels(policy=2)
    bureau.open("dan", policy=2)
    assert bureau.bind("ann", "dan")[0] == Outcome.APPLIED
    bureau.wait(HOUR_MS)
    bureau.earned("early", "ann", 10_000, ago_ms=HOUR_MS + 1)
    bureau.earned("late", "ann", 30_000, ago_ms=HOUR_MS)
    assert [(e.distributor_id, e.frozen_minor) for e in bureau.entries()] == [
        ("bob", 1_000),
        ("cid", 500),
        ("dan", 3_000),
    ]


def test_the_rates_are_those_of_when_it_was_reserved_and_the_version_is_on_the_entry() -> None:
    bureau = two_levels()
    bureau.rates(level1_bps=100, level2_bps=0)
    bureau.wait(HOUR_MS)
    bureau.earned("old", "ann", ago_ms=HOUR_MS + 1)
    bureau.earned("new", "ann")
    assert [(e.version, e.frozen_minor) for e in bureau.entries("bob")] == [(1, 1_000), (2, 100)]
    assert len(bureau.entries("cid")) == 1


def test_a_skus_rate_goes_before_its_campaigns_and_that_before_the_default() -> None:
    rates = {
        "campaigns": (CampaignRate("sale", 200, 0),),
        "skus": (SkuRate("cup", 300, 0),),
    }
    bureau = two_levels(**rates)
    bureau.earned("r1", "ann", sku="cup", campaign="sale")
    bureau.earned("r2", "ann", sku="tea", campaign="sale")
    bureau.earned("r3", "ann", sku="tea")
    assert [entry.frozen_minor for entry in bureau.entries("bob")] == [300, 200, 1_000]


@pytest.mark.parametrize(
    ("margin", "quantity", "shares"),
    [(2_000, 1, [1_000, 500]), (600, 2, [1_000, 200]), (700, 1, [700]), (0, 1, [])],
)
def test_all_levels_together_get_no_more_than_the_margin_and_the_second_is_cut_first(
    margin: int, quantity: int, shares: list[int]
) -> None:
    bureau = two_levels(skus=(SkuRate("tea", 1_000, 500, margin),))
    bureau.earned("r1", "ann", quantity=quantity)
    assert [entry.frozen_minor for entry in bureau.entries()] == shares


def test_a_buyer_earns_nothing_on_an_own_purchase() -> None:
    bureau = two_levels()
    bureau.earned("r1", "bob")
    assert [(e.distributor_id, e.level) for e in bureau.entries()] == [("cid", 1)]
    bureau.earned("r2", "cid")
    assert len(bureau.entries()) == 1


def test_the_second_level_earns_only_if_the_first_is_active() -> None:
    bureau = two_levels()
    bureau.act("bob", d.SUSPEND)
    bureau.earned("r1", "ann")
    assert [(e.distributor_id, e.level) for e in bureau.entries()] == [("bob", 1)]


def test_a_suspended_or_frozen_distributor_earns_and_is_held_at_either_level() -> None:
    bureau = two_levels()
    bureau.hold("bob", 60 * DAY_MS)
    bureau.act("cid", d.SUSPEND)
    bureau.earned("r1", "ann")
    assert amounts(bureau, "bob", "cid") == [1_000, 500], "bob is active, if frozen"
    bureau.wait(FREEZE_MS + 2_000)
    assert amounts(bureau, "bob", "cid") == [1_000, 500]
    bureau.hold("bob", 0)
    bureau.act("cid", d.RESUME)
    bureau.wait(1)
    assert [bureau.money(name)[:2] for name in ("bob", "cid")] == [(0, 1_000), (0, 500)]


def test_a_return_while_a_share_waits_for_its_distributor_is_taken_from_what_is_frozen() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann", quantity=2)
    bureau.hold("bob", 60 * DAY_MS)
    bureau.wait(FREEZE_MS + 2_000)
    bureau.returned("r1", 1, of=2)
    assert bureau.money("bob")[:2] == (500, 0)
    bureau.hold("bob", 0)
    bureau.wait(1)
    assert bureau.money("bob")[:2] == (0, 500)


def test_an_order_reserved_before_the_first_rates_earns_nothing() -> None:
    bureau = two_levels()
    assert bureau.earned("r1", "ann", ago_ms=2 * HOUR_MS) == ()


def test_an_order_in_another_currency_earns_nothing() -> None:
    bureau = two_levels()
    assert bureau.earned("r1", "ann", currency="EUR") == ()


# The freeze


def test_what_was_earned_becomes_available_once_its_freeze_is_over() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann")
    bureau.wait(FREEZE_MS - 2_000)
    assert bureau.money("bob") == (1_000, 0, 0, 0, 0)
    bureau.wait(4_000)
    assert bureau.money("bob") == (0, 1_000, 0, 0, 0)
    assert bureau.beat() == []


def test_the_freeze_counts_from_the_first_report_of_the_delivery() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann")
    bureau.wait(3 * DAY_MS)
    assert len(bureau.delivered("r1")) == 1
    bureau.wait(DAY_MS)
    assert bureau.delivered("r1") == ()
    bureau.wait(FREEZE_MS - DAY_MS - HOUR_MS)
    assert bureau.money("bob")[:2] == (1_000, 0)
    bureau.wait(2 * HOUR_MS)
    assert bureau.money("bob")[:2] == (0, 1_000)


def test_no_delivery_holds_the_money_for_longer_than_the_maximum() -> None:
    bureau = two_levels(freeze_max_ms=8 * DAY_MS)
    bureau.earned("r1", "ann")
    bureau.wait(6 * DAY_MS)
    bureau.delivered("r1")
    bureau.wait(2 * DAY_MS + 2_000)
    assert bureau.money("bob")[:2] == (0, 1_000)
    assert bureau.delivered("r1") == ()


def test_a_crowd_of_orders_matures_in_slices() -> None:
    bureau = two_levels()
    for number in range(10):
        bureau.earned(f"r{number}", "ann")
    bureau.now_ms += FREEZE_MS + 2_000
    assert [len(bureau.beat(limit=4)) for _ in range(4)] == [4, 4, 2, 0]


@pytest.mark.parametrize("held", ["suspended", "frozen"])
def test_what_a_held_distributor_earned_waits_and_is_not_lost(held: str) -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann")
    if held == "suspended":
        bureau.act("bob", d.SUSPEND)
    else:
        bureau.hold("bob", 60 * DAY_MS)
    bureau.wait(FREEZE_MS + 2_000)
    assert bureau.money("bob")[:2] == (1_000, 0)
    assert bureau.money("cid")[:2] == (0, 500)
    bureau.wait(DAY_MS)
    assert bureau.beat() == []
    if held == "suspended":
        bureau.act("bob", d.RESUME)
    else:
        bureau.hold("bob", 0)
    bureau.wait(1)
    assert bureau.money("bob")[:2] == (0, 1_000)


def test_a_hold_ends_by_itself() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann")
    bureau.hold("bob", 8 * DAY_MS)
    bureau.wait(FREEZE_MS + 2_000)
    assert bureau.money("bob")[:2] == (1_000, 0)
    bureau.wait(DAY_MS)
    assert bureau.money("bob")[:2] == (0, 1_000)


def test_what_waited_for_several_distributors_comes_in_slices() -> None:
    bureau = Bureau()
    bureau.open("bob", "cid")
    for buyer, name in [("ann", "bob"), ("eve", "cid")]:
        bureau.bind(buyer, name)
        bureau.hold(name, 60 * DAY_MS)
        for number in range(3):
            bureau.earned(f"{name} {number}", buyer)
    bureau.wait(FREEZE_MS + 2_000)
    for name in ("bob", "cid"):
        bureau.hold(name, 0)
    assert [len(bureau.beat(limit=4)) for _ in range(3)] == [4, 2, 0]
    assert [bureau.money(name)[:2] for name in ("bob", "cid")] == [(0, 3_000)] * 2


# Reversals


def test_parts_that_come_back_never_drift_from_the_whole() -> None:
    """10 % of 999 for 7 units: 99, and what is left of it after each unit."""
    bureau = two_levels()
    bureau.earned("r1", "ann", 999, quantity=7)
    left = []
    for back in range(1, 8):
        bureau.returned("r1", back, of=7)
        left.append(bureau.money("bob")[0])
    assert left == [99 * (7 - back) // 7 for back in range(1, 8)]
    assert left[-1] == 0


def test_a_reversal_is_at_the_original_version() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann", 10_000, quantity=2)
    bureau.rates(level1_bps=5_000, level2_bps=0)
    bureau.returned("r1", 1, of=2)
    assert amounts(bureau, "bob", "cid") == [500, 250]
    assert bureau.entries("bob")[-1].version == 1


def test_a_return_that_is_told_twice_or_late_is_one_reversal() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann", quantity=3)
    assert len(bureau.returned("r1", 2, of=3)) == 1
    assert bureau.returned("r1", 2, of=3) == ()
    assert bureau.returned("r1", 1, of=3) == ()
    assert bureau.returned("r9", 1) == ()
    assert len(bureau.returned("r1", 9, of=3)) == 1, "no more can come back than there were"
    assert bureau.returned("r1", 10, of=3) == ()
    assert bureau.money("bob")[0] == 0


def test_a_reversal_after_the_freeze_takes_what_is_available() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann", quantity=2)
    bureau.wait(FREEZE_MS + 2_000)
    bureau.returned("r1", 1, of=2)
    assert bureau.money("bob") == (0, 500, 0, 0, 0)


def test_a_reversal_of_what_was_paid_out_is_a_debt() -> None:
    bureau = two_levels()
    bureau.earned("r1", "ann")
    bureau.wait(FREEZE_MS + 2_000)
    key = bureau.withdraw("bob", 1_000)[1]
    bureau.review(key, d.WITHDRAWAL_APPROVE)
    bureau.review(key, d.WITHDRAWAL_PAID)
    bureau.returned("r1", 1)
    assert bureau.money("bob") == (0, 0, -1_000, 0, 1_000)
    assert bureau.withdraw("bob", 1, "w2")[0] == Outcome.EXCEEDS_AVAILABLE
    bureau.earned("r2", "ann", 15_000)
    bureau.wait(FREEZE_MS + 2_000)
    assert bureau.withdraw("bob", 501, "w3")[0] == Outcome.EXCEEDS_AVAILABLE
    assert bureau.withdraw("bob", 500, "w4")[0] == Outcome.APPLIED
