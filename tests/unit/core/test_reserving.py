"""Reserve and release: precedence, limits, idempotency, expiry."""

from typing import Any

import pytest

from actors.core import commands as c
from actors.core import state as s
from actors.core.identity import public_id, slot_of
from actors.core.outcomes import Outcome
from actors.core.risk_state import UNKNOWN_SCORE
from tests.model.shop import MINUTE_MS, T0, WINDOW_MS, Shop, campaign, line


@pytest.fixture
def shop() -> Shop:
    """SKU tea with 3 units."""
    shop = Shop()
    shop.sku()
    shop.receive(3)
    return shop


def test_a_reservation_holds_units_until_its_deadline(shop: Shop) -> None:
    answer = shop.reserve("r1", 2)
    assert answer == (Outcome.RESERVED, answer[1], 100, 100, 200, "CNY", T0 + WINDOW_MS, 1)
    assert shop.stock() == {"available": 1, "reserved": 2}


def test_the_last_unit_is_sold_once(shop: Shop) -> None:
    shop.hold("r1", 3)
    assert shop.reserve("r2")[0] == Outcome.SOLD_OUT


def test_part_of_a_line_is_never_reserved(shop: Shop) -> None:
    assert shop.reserve("r1", 4)[0] == Outcome.SOLD_OUT
    assert shop.stock() == {"available": 3}


def test_a_sold_out_line_names_other_lines_with_units_and_never_itself() -> None:
    shop = Shop()
    shop.open_sale(2, line("tea"), line("cup"), line("pot"))
    shop.adjust(1, "c", sku="pot", sale="sale")
    assert shop.reserve("r1", 3, sale="sale") == (Outcome.SOLD_OUT, 2, ("pot",))


@pytest.mark.parametrize(
    ("sale", "sku"), [("", "nothing"), ("sale", "nothing"), ("nothing", "tea")]
)
def test_what_is_not_there_is_not_found(sale: str, sku: str) -> None:
    shop = Shop()
    shop.open_sale()
    assert shop.reserve(sale=sale, sku=sku)[0] == Outcome.NOT_FOUND


def test_the_first_broken_rule_is_the_outcome() -> None:
    """A request that breaks every rule is answered by precedence, as one after another is met."""
    shop = Shop()
    shop.open_sale(
        2,
        line("tea", limit=1),
        starts_ms=T0 + 1_000,
        required_claims=("member",),
        ends_ms=T0 + 5_000,
    )
    asked: dict[str, Any] = {"quantity": 3, "sale": "sale", "payable_minor": 241}
    number = iter(range(100))

    def outcome() -> Outcome:
        return Outcome(shop.reserve(f"r{next(number)}", **asked)[0])

    shop.turn(s.CAMPAIGN_PAUSED)
    shop.wait(5_000)
    assert outcome() == Outcome.ENDED
    shop.wait(-5_000)
    assert outcome() == Outcome.PAUSED
    shop.turn(s.CAMPAIGN_ACTIVE)
    assert outcome() == Outcome.NOT_STARTED
    shop.wait(1_000)
    assert outcome() == Outcome.NOT_ELIGIBLE
    asked["claims"] = ("member",)
    assert outcome() == Outcome.INVALID
    asked["payable_minor"] = 240
    assert outcome() == Outcome.LIMIT_EXCEEDED
    shop.put(campaign(line("tea"), starts_ms=T0, required_claims=("member",), ends_ms=T0 + 5_000))
    assert outcome() == Outcome.SOLD_OUT
    asked["quantity"], asked["payable_minor"] = 2, 160
    assert outcome() == Outcome.RESERVED


def test_a_campaign_takes_nobody_below_the_score_that_it_asks_for() -> None:
    shop = Shop()
    shop.open_sale(9, min_score=30)

    def outcome(request: str, score: int) -> Outcome:
        return Outcome(shop.reserve(request, sale="sale", score=score)[0])

    assert outcome("low", 29) == Outcome.NOT_ELIGIBLE
    assert outcome("low", 100) == Outcome.NOT_ELIGIBLE, "the same request has the same answer"
    assert outcome("enough", 30) == Outcome.RESERVED
    assert outcome("enough", 0) == Outcome.RESERVED, "it was reserved before"
    entries = len(shop.journal)
    assert outcome("nobody knows", UNKNOWN_SCORE) == Outcome.RETRY
    assert len(shop.journal) == entries
    assert outcome("nobody knows", 100) == Outcome.RESERVED
    shop.open_sale(9, sale="open to all", ends_ms=T0 + 60_000)
    assert shop.reserve("any", sale="open to all", score=UNKNOWN_SCORE)[0] == Outcome.RESERVED


def test_an_ended_campaign_is_ended_at_once_and_for_ever() -> None:
    shop = Shop()
    shop.open_sale()
    shop.turn(s.CAMPAIGN_ENDED)
    assert shop.reserve(sale="sale")[0] == Outcome.ENDED
    assert shop.turn(s.CAMPAIGN_ACTIVE)[0] == Outcome.CAMPAIGN_CONFLICT
    assert shop.turn(s.CAMPAIGN_ENDED)[0] == Outcome.APPLIED


def test_a_campaign_starts_and_ends_on_the_millisecond() -> None:
    shop = Shop()
    shop.open_sale(starts_ms=T0 + 10, ends_ms=T0 + 20)
    outcomes = []
    for at_ms in (9, 10, 19, 20):
        shop.now_ms = T0 + at_ms
        outcomes.append(shop.reserve(f"r{at_ms}", sale="sale")[0])
    assert outcomes == [Outcome.NOT_STARTED, Outcome.RESERVED, Outcome.RESERVED, Outcome.ENDED]


def test_the_price_is_fixed_at_reserve_and_the_caller_may_take_off(shop: Shop) -> None:
    own = shop.hold("r1", 2, payable_minor=150)
    shop.sku(price_minor=999)
    assert shop.reserve("r1", 2, payable_minor=150)[2:5] == (100, 100, 150)
    assert shop.pay(own, paid=150)[0] == Outcome.CONFIRMED


# Idempotency


def test_the_same_id_is_answered_the_same_after_everything_changed(shop: Shop) -> None:
    first = shop.reserve("r1", 2)
    own = public_id(slot_of("tea"), first[1])
    shop.sku(price_minor=7, payment_window_ms=1)
    shop.begin(own)
    shop.pay(own, paid=200)
    shop.bring_back(own, 2)
    shop.wait(10**9)
    assert shop.reserve("r1", 2)[:7] == first[:7]
    assert shop.stock() == {"available": 3}


def test_an_expired_reservations_request_still_answers_the_same(shop: Shop) -> None:
    first = shop.reserve("r1")
    shop.wait(WINDOW_MS)
    shop.expire()
    assert shop.reserve("r1")[:7] == first[:7]
    assert shop.stock() == {"available": 3}


@pytest.mark.parametrize(
    "other",
    [
        {"quantity": 2},
        {"buyer": "bob"},
        {"payable_minor": 99},
        {"order_id": "o"},
    ],
)
def test_an_id_with_other_arguments_is_reused(shop: Shop, other: dict[str, Any]) -> None:
    shop.hold("r1")
    assert shop.reserve("r1", **other)[0] == Outcome.ID_REUSED
    shop.reserve("no", 9)
    assert (
        shop.reserve(
            "no", **{"quantity": 9, **other, **({"quantity": 8} if "quantity" in other else {})}
        )[0]
        == Outcome.ID_REUSED
    )


def test_what_is_no_business_of_the_request_may_differ(shop: Shop) -> None:
    """A retry through another channel or address is still the same request."""
    shop.hold("r1")
    assert shop.reserve("r1", ip="10.0.0.1", channel="app", claims=("x",))[0] == Outcome.RESERVED


def test_ids_of_two_callers_are_two_ids(shop: Shop) -> None:
    shop.hold("r1")
    assert shop.reserve("r1", caller="app")[0] == Outcome.RESERVED
    assert shop.stock()["reserved"] == 2


def test_a_refused_request_stays_refused_for_the_window(shop: Shop) -> None:
    assert shop.reserve("r1", 4)[0] == Outcome.SOLD_OUT
    shop.receive(10, "more")
    for step in range(15):
        shop.wait(999)
        shop.receive(1, f"tick {step}")
        assert shop.reserve("r1", 4)[0] == Outcome.SOLD_OUT


def test_a_refusal_in_a_quiet_slot_is_not_forgotten_by_the_next_entry(shop: Shop) -> None:
    """The window counts from the refusal, not from when the slot last heard something."""
    shop.wait(10**8)
    assert shop.reserve("r1", 4)[0] == Outcome.SOLD_OUT
    shop.wait(14_999)
    shop.receive(10, "more")
    assert shop.reserve("r1", 4)[0] == Outcome.SOLD_OUT


def test_a_forgotten_refusal_is_decided_anew(shop: Shop) -> None:
    assert shop.reserve("r1", 4)[0] == Outcome.SOLD_OUT
    for number in range(3):
        shop.wait(s.REFUSAL_WINDOW_MS)
        shop.receive(1, f"more {number}")
    assert shop.reserve("r1", 4)[0] == Outcome.RESERVED


def test_a_full_table_of_refusals_answers_retry_and_forgets_nothing() -> None:
    shop = Shop(refusal_count_max=2)
    shop.sku()
    for name in ("r1", "r2"):
        assert shop.reserve(name)[0] == Outcome.SOLD_OUT
    entries = len(shop.journal)
    assert shop.reserve("r3") == (Outcome.RETRY,)
    assert len(shop.journal) == entries, "a RETRY is not a decision"
    shop.receive(1)
    assert shop.reserve("r1")[0] == Outcome.SOLD_OUT
    assert shop.reserve("r3")[0] == Outcome.RESERVED, "a RETRY is not remembered"


def test_a_full_table_of_refusals_empties_as_the_journals_time_goes_on() -> None:
    shop = Shop(refusal_count_max=1)
    shop.sku()
    shop.reserve("r1")
    assert shop.reserve("r2")[0] == Outcome.RETRY
    for _ in range(2):
        shop.wait(s.REFUSAL_WINDOW_MS)
        shop.open()
        shop.state.advance(shop.now_ms)
    assert shop.reserve("r2")[0] == Outcome.SOLD_OUT


# Limits


def test_a_buyer_is_limited_by_line_and_by_campaign() -> None:
    shop = Shop()
    shop.open_sale(10, line("tea", limit=2), line("cup"), limit_per_buyer=3)
    shop.adjust(10, "c", sku="cup", sale="sale")
    shop.hold("r1", 2, sale="sale")
    assert shop.reserve("r2", sale="sale")[0] == Outcome.LIMIT_EXCEEDED
    shop.hold("r3", sale="sale", sku="cup")
    assert shop.reserve("r4", sale="sale", sku="cup")[0] == Outcome.LIMIT_EXCEEDED
    assert shop.reserve("r5", 2, "bob", sale="sale")[0] == Outcome.RESERVED


@pytest.mark.parametrize("how", ["release", "expiry", "return", "shortage"])
def test_limits_are_restored_exactly(how: str) -> None:
    shop = Shop()
    shop.open_sale(10, line("tea", limit=3), limit_per_buyer=3)
    own = shop.hold("r1", 3, sale="sale")
    if how == "release":
        shop.release(own)
        shop.release(own)
    elif how == "expiry":
        shop.wait(WINDOW_MS)
        shop.expire()
    elif how == "return":
        shop.pay(own, paid=240)
        shop.bring_back(own, 1, "b1")
        assert shop.reserve("r2", 2, sale="sale")[0] == Outcome.LIMIT_EXCEEDED
        shop.bring_back(own, 2, "b2")
    else:
        shop.short(10, sale="sale")
        shop.revoke()
        shop.adjust(10, sale="sale")
    assert shop.reserve("r3", 4, sale="sale")[0] == Outcome.LIMIT_EXCEEDED
    assert shop.reserve("r4", 3, sale="sale")[0] == Outcome.RESERVED


def test_a_limit_that_comes_later_counts_what_is_held_already() -> None:
    shop = Shop()
    shop.open_sale(10)
    shop.hold("r1", 2, sale="sale")
    shop.put(campaign(line("tea", limit=2)))
    assert shop.reserve("r2", sale="sale")[0] == Outcome.LIMIT_EXCEEDED
    shop.put(campaign(line("tea"), limit_per_buyer=3))
    assert shop.reserve("r3", 2, sale="sale")[0] == Outcome.LIMIT_EXCEEDED
    assert shop.reserve("r4", 1, sale="sale")[0] == Outcome.RESERVED


# Release and expiry


def test_a_release_gives_the_units_back_and_again_answers_the_same(shop: Shop) -> None:
    own = shop.hold()
    assert shop.release(own) == (Outcome.RELEASED, s.RELEASED)
    assert shop.release(own) == (Outcome.RELEASED, s.RELEASED)
    assert shop.stock() == {"available": 3}


def test_a_release_comes_too_late_for_what_was_paid_expired_or_revoked(shop: Shop) -> None:
    paid, gone, lost = shop.hold("r1"), shop.hold("r2"), shop.hold("r3")
    shop.pay(paid)
    assert shop.release(paid)[0] == Outcome.ALREADY_CONFIRMED
    shop.bring_back(paid, 1)
    assert shop.release(paid)[0] == Outcome.ALREADY_CONFIRMED
    shop.short(2)
    shop.revoke()
    assert shop.release(lost)[0] == Outcome.REVOKED
    shop.wait(WINDOW_MS)
    shop.expire()
    assert shop.release(gone)[0] == Outcome.EXPIRED
    assert shop.release("nonsense")[0] == Outcome.NOT_FOUND


def test_nothing_expires_early_and_everything_within_a_tenth_of_a_second(shop: Shop) -> None:
    shop.wait(33)
    shop.hold()
    shop.wait(WINDOW_MS - 1)
    assert shop.expire() == []
    shop.wait(100)
    assert len(shop.expire()) == 1
    assert shop.expire() == []
    assert shop.stock() == {"available": 3}


def test_a_reservation_lives_until_its_record_whatever_the_clock(shop: Shop) -> None:
    own = shop.hold()
    shop.wait(10 * WINDOW_MS)
    assert shop.pay(own)[0] == Outcome.CONFIRMED
    assert shop.expire() == []


def test_expiries_come_in_slices() -> None:
    shop = Shop()
    for sku in ("tea", "cup"):
        shop.sku(sku)
        shop.receive(10, sku=sku)
        for number in range(10):
            shop.hold(f"{sku}{number}", sku=sku)
    shop.wait(WINDOW_MS + MINUTE_MS)
    assert [len(shop.expire(limit=6)) for _ in range(5)] == [6, 6, 6, 2, 0]


def test_a_deadline_of_what_is_not_held_is_a_bug(shop: Shop) -> None:
    own = shop.hold()
    shop.release(own)
    shop.state.slot(slot_of("tea")).deadlines.add(shop.held(own).key, T0, T0)
    with pytest.raises(AssertionError, match="not held"):
        shop.expire()


# Reading, and reports


def test_a_reservation_is_read_as_it_stands(shop: Shop) -> None:
    own = shop.hold("r1", 2)
    view = shop.read(own)
    assert view[1:8] == ("", "tea", "ann", 2, 0, s.RESERVED, 0)
    shop.pay(own, paid=200)
    shop.bring_back(own, 1)
    assert shop.read(own)[-1] == ("p1", "alipay", 200, 100)
    entries = len(shop.journal)
    shop.read(own)
    assert len(shop.journal) == entries, "a read is no decision"


def test_fulfilment_only_rises_and_needs_a_payment(shop: Shop) -> None:
    own = shop.hold()
    assert shop.ship(own) == (Outcome.NOT_CONFIRMED, 0)
    shop.pay(own)
    assert [shop.ship(own, stage) for stage in (1, 3, 2)] == [
        (Outcome.NOTED, 1),
        (Outcome.NOTED, 3),
        (Outcome.NOTED, 3),
    ]
    assert shop.ship("nonsense")[0] == Outcome.NOT_FOUND


def test_a_pool_and_a_campaign_are_read_as_they_stand() -> None:
    shop = Shop()
    shop.open_sale(4)
    slot = slot_of("sale")
    found, view, sku = shop.do(c.GetStock(c.GET_STOCK, slot, 0, "web", "sale", "tea", True))
    assert (found, view[4:6], view[-2:], sku) == (Outcome.FOUND, (4, 4), (4, "CNY"), None)
    assert shop.do(c.GetStock(c.GET_STOCK, slot, 0, "web", "sale", "x")) == (
        Outcome.NOT_FOUND,
        None,
        None,
    )
    found, view, now_ms = shop.do(c.GetCampaign(c.GET_CAMPAIGN, slot, 0, "web", "sale"))
    assert (found, view[:2], now_ms) == (Outcome.FOUND, ("sale", s.CAMPAIGN_ACTIVE), shop.now_ms)
    assert shop.do(c.GetCampaign(c.GET_CAMPAIGN, slot, 0, "web", "x"))[:2] == (
        Outcome.NOT_FOUND,
        None,
    )
