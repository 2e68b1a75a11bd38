"""Money: a payment is kept or owed back, never lost and never counted twice."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core import commands as c
from actors.core import state as s
from actors.core.identity import public_id, slot_of
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason, payment_key
from tests.model.shop import T0, WINDOW_MS, Shop, line

AMOUNT, REASON, COMPENSATION, STATE, ATTEMPTS, CURRENCY = 4, 5, 6, 7, 8, 9


@pytest.fixture
def shop() -> Shop:
    """SKU tea with 3 units."""
    shop = Shop()
    shop.sku()
    shop.receive(3)
    return shop


def refund_id(payment: str = "p1", slot: int | None = None) -> str:
    """The id of the refund of a whole payment."""
    return public_id(slot_of("tea") if slot is None else slot, payment_key(payment))


def lapse(shop: Shop) -> None:
    """Let what is unpaid expire."""
    shop.wait(WINDOW_MS)
    shop.expire()


def test_the_first_success_confirms_and_a_resend_answers_the_same(shop: Shop) -> None:
    own = shop.hold()
    assert shop.pay(own) == (Outcome.CONFIRMED, s.CONFIRMED, None)
    assert shop.pay(own) == (Outcome.CONFIRMED, s.CONFIRMED, None)
    assert shop.stock() == {"available": 2, "sold": 1}


def owed_back(answer: tuple[Any, ...], reason: RefundReason, amount: int = 100) -> bool:
    """Whether the answer says that the payment is refund due for this reason."""
    late = reason is RefundReason.LATE_PAYMENT
    refund = answer[2]
    assert answer[0] == Outcome.REFUND_DUE
    assert refund[AMOUNT:CURRENCY] == (amount, reason, late, s.REFUND_DUE, 0)
    return True


def test_a_second_payment_is_owed_back(shop: Shop) -> None:
    own = shop.hold()
    shop.pay(own, "p1")
    second = shop.pay(own, "p2")
    assert owed_back(second, RefundReason.SECOND_PAYMENT)
    assert shop.pay(own, "p2") == second
    assert shop.stock()["sold"] == 1


def test_a_wrong_amount_is_owed_back_and_the_right_one_still_confirms(shop: Shop) -> None:
    own = shop.hold()
    assert owed_back(shop.pay(own, "p1", 99), RefundReason.WRONG_AMOUNT, 99)
    assert owed_back(shop.pay(own, "p2", 101), RefundReason.WRONG_AMOUNT, 101)
    assert shop.pay(own, "p3")[0] == Outcome.CONFIRMED


def test_a_payment_for_nothing_held_is_owed_back(shop: Shop) -> None:
    released, returned, revoked = shop.hold("r1"), shop.hold("r2"), shop.hold("r3")
    shop.release(released)
    shop.pay(returned)
    shop.bring_back(returned, 1)
    shop.short(3)
    shop.revoke()
    unknown = public_id(slot_of("tea"), bytes(16))
    for number, own in enumerate((released, returned, revoked, unknown, "nonsense")):
        paid = shop.pay(own, f"late {number}", slot=slot_of("tea"))
        assert owed_back(paid, RefundReason.NOT_HELD)
        assert shop.pay(own, f"late {number}", slot=slot_of("tea")) == paid


def test_one_payment_id_has_one_effect_for_ever(shop: Shop) -> None:
    one, two = shop.hold("r1"), shop.hold("r2")
    shop.pay(one)
    assert shop.pay(two) == (Outcome.PAYMENT_ID_REUSED, s.RESERVED, None)
    assert shop.pay(one, paid=99)[0] == Outcome.PAYMENT_ID_REUSED
    shop.wait(10**10)
    shop.bring_back(one, 1)
    assert shop.pay(one)[0] == Outcome.CONFIRMED, "the effect, though the unit came back since"
    assert shop.stock() == {"available": 2, "reserved": 1}


def test_a_late_payer_gets_a_unit_at_the_reserved_price_if_one_is_left(shop: Shop) -> None:
    own = shop.hold("r1", 2)
    lapse(shop)
    shop.sku(price_minor=500)
    assert shop.pay(own, paid=200)[0] == Outcome.CONFIRMED
    assert shop.stock() == {"available": 1, "sold": 2}
    assert shop.expire() == []


def test_a_late_payer_gets_the_money_and_a_compensation_if_none_is_left(shop: Shop) -> None:
    own = shop.hold("r1", 2)
    lapse(shop)
    shop.hold("r2", 2)
    assert owed_back(shop.pay(own, paid=200), RefundReason.LATE_PAYMENT, 200)
    assert shop.stock() == {"available": 1, "reserved": 2}


def test_a_late_payer_is_bound_by_the_limits_of_that_moment() -> None:
    shop = Shop()
    shop.open_sale(10, line("tea", limit=2))
    own = shop.hold("r1", 2, sale="sale")
    lapse(shop)
    other = shop.hold("r2", 1, sale="sale")
    assert owed_back(shop.pay(own, "p1", 160), RefundReason.LATE_PAYMENT, 160)
    shop.release(other)
    assert shop.pay(own, "p2", 160)[0] == Outcome.CONFIRMED
    assert shop.reserve("r3", sale="sale")[0] == Outcome.LIMIT_EXCEEDED


# Begin and failures


def test_begin_moves_the_deadline_once_to_a_full_window(shop: Shop) -> None:
    own = shop.hold()
    shop.wait(WINDOW_MS - 1)
    assert shop.begin(own) == (Outcome.PAYMENT_BEGUN, s.RESERVED, T0 + 2 * WINDOW_MS - 1)
    shop.wait(WINDOW_MS - 1)
    assert shop.begin(own, "p2")[2] == T0 + 2 * WINDOW_MS - 1, "another attempt keeps it"
    assert shop.expire() == []
    shop.wait(100)
    assert len(shop.expire()) == 1


def test_a_payment_that_had_its_effect_cannot_begin(shop: Shop) -> None:
    """Its row in SQL would say that it was begun, and its refund would be of nothing."""
    own = shop.hold()
    assert shop.pay(own, "p1", 99)[0] == Outcome.REFUND_DUE
    assert shop.begin(own, "p1")[0] == Outcome.PAYMENT_ID_REUSED
    assert shop.begin(own, "p2")[0] == Outcome.PAYMENT_BEGUN


def test_begin_never_shortens_a_deadline(shop: Shop) -> None:
    own = shop.hold()
    shop.sku(payment_window_ms=1_000)
    assert shop.begin(own)[2] == T0 + WINDOW_MS


def test_begin_is_refused_by_what_became_of_the_reservation(shop: Shop) -> None:
    paid, released, gone = shop.hold("r1"), shop.hold("r2"), shop.hold("r3")
    shop.pay(paid)
    shop.release(released)
    lapse(shop)
    lost = shop.hold("r4")
    shop.short(2)
    shop.revoke(1)
    assert shop.begin(paid)[0] == Outcome.ALREADY_CONFIRMED
    assert shop.begin(released)[0] == Outcome.ALREADY_RELEASED
    assert shop.begin(gone)[0] == Outcome.EXPIRED
    assert shop.begin(lost)[0] == Outcome.REVOKED
    assert shop.begin("nonsense")[0] == Outcome.NOT_FOUND


def test_a_failed_payment_changes_nothing_and_may_still_succeed(shop: Shop) -> None:
    own = shop.hold()
    deadline = shop.held(own).deadline_ms
    assert shop.fail(own) == (Outcome.NOTED, s.RESERVED)
    assert shop.held(own).deadline_ms == deadline
    assert shop.pay(own)[0] == Outcome.CONFIRMED
    assert shop.fail(own)[0] == Outcome.PAYMENT_ID_REUSED
    assert shop.fail("nonsense")[0] == Outcome.NOT_FOUND


def test_a_resent_failure_is_noted_once(shop: Shop) -> None:
    own, other = shop.hold("r1"), shop.hold("r2")
    assert shop.fail(own) == (Outcome.NOTED, s.RESERVED)
    entries = len(shop.journal)
    assert shop.fail(own) == (Outcome.NOTED, s.RESERVED)
    assert len(shop.journal) == entries
    shop.fail(own, "p2")
    shop.fail(other)
    assert len(shop.journal) == entries + 2, "another attempt, and another reservation"


# Returns


def test_parts_of_a_return_restore_stock_and_money(shop: Shop) -> None:
    own = shop.hold("r1", 3, payable_minor=100)
    shop.pay(own)
    parts = [shop.bring_back(own, 1, f"b{number}") for number in range(3)]
    assert [part[3][AMOUNT] for part in parts] == [33, 33, 34]
    assert [part[1:3] for part in parts] == [(s.CONFIRMED, 1), (s.CONFIRMED, 2), (s.RETURNED, 3)]
    assert shop.stock() == {"available": 3}


@settings(max_examples=200)
@given(paid=st.integers(0, 10**6), parts=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_parts_of_a_return_add_up_to_the_cent(paid: int, parts: list[int]) -> None:
    shop = Shop()
    shop.sku(price_minor=10**6)
    shop.receive(sum(parts))
    own = shop.hold("r1", sum(parts), payable_minor=paid)
    shop.pay(own, paid=paid)
    back, units = 0, 0
    for number, part in enumerate(parts):
        refund = shop.bring_back(own, part, f"b{number}")[3]
        back += refund[AMOUNT] if refund else 0
        units += part
        assert back == paid * units // sum(parts)
    assert back == paid


def test_returned_units_go_where_the_caller_says(shop: Shop) -> None:
    own = shop.hold("r1", 3)
    shop.pay(own, paid=300)
    shop.bring_back(own, 1, "b1", c.RESTOCK_SCHEDULED)
    assert shop.stock() == {"scheduled": 1, "sold": 2}
    shop.bring_back(own, 1, "b2", c.RESTOCK_WRITE_OFF)
    assert shop.stock() == {"scheduled": 1, "sold": 1}
    assert shop.pool().total == 2


def test_a_return_is_idempotent_and_its_refusal_is_remembered(shop: Shop) -> None:
    own = shop.hold("r1", 2)
    assert shop.bring_back(own, 1, "b1")[0] == Outcome.NOT_CONFIRMED
    shop.pay(own, paid=200)
    assert shop.bring_back(own, 1, "b1")[0] == Outcome.NOT_CONFIRMED, "the same id, the same answer"
    first = shop.bring_back(own, 1, "b2")
    assert shop.bring_back(own, 1, "b2") == first
    assert shop.bring_back(own, 2, "b2")[0] == Outcome.ID_REUSED
    assert shop.bring_back(own, 2, "b3")[0] == Outcome.EXCEEDS_QUANTITY
    assert shop.bring_back("nonsense", 1, "b4")[0] == Outcome.NOT_FOUND
    assert shop.stock() == {"available": 2, "sold": 1}


def test_a_revoked_order_cannot_be_returned(shop: Shop) -> None:
    own = shop.hold("r1", 3)
    shop.pay(own, paid=300)
    shop.short(1)
    shop.revoke()
    assert shop.bring_back(own, 1)[0] == Outcome.REVOKED


# Refunds


def test_a_refund_is_due_until_a_success_is_reported(shop: Shop) -> None:
    own = shop.hold()
    shop.pay(own, "p1", 99)
    due = refund_id()
    assert shop.refunded(due, False, "f1")[1][STATE:CURRENCY] == (s.REFUND_DUE, 1)
    assert shop.refunded(due, False, "f1")[1][STATE:CURRENCY] == (s.REFUND_DUE, 1), (
        "resent, not again"
    )
    assert shop.refunded(due, True, "f2")[1][STATE:CURRENCY] == (s.REFUND_CLOSED, 2)
    assert shop.refunded(due, True, "f2")[0] == Outcome.APPLIED
    assert shop.refunded(due, True, "f3")[0] == Outcome.REFUND_CLOSED


def test_a_refund_tells_its_currency_if_the_reservation_is_known(shop: Shop) -> None:
    own = shop.hold()
    answer = shop.pay(own, "p1", 99)
    assert answer[2][CURRENCY] == shop.pay(own, "p1", 99)[2][CURRENCY] == "CNY"
    assert shop.refunded(refund_id())[1][CURRENCY] == "CNY"
    unknown = public_id(slot_of("tea"), bytes(16))
    assert shop.pay(unknown, "p2")[2][CURRENCY] == ""
    assert shop.refunded(refund_id("p2"))[1][CURRENCY] == ""
    shop.pay(own, "p3")
    returned = shop.bring_back(own, 1)
    assert returned[3][CURRENCY] == shop.bring_back(own, 1)[3][CURRENCY] == "CNY"


def test_records_of_refunds_say_of_which_campaign() -> None:
    shop = Shop()
    shop.open_sale(10)
    paid, late = shop.hold("r1", 2, sale="sale"), shop.hold("r2", sale="sale")
    shop.pay(paid, "p1", 160)
    shop.pay(late, "p2", 1)
    fell_due = shop.records[0]
    assert (fell_due.campaign_id, fell_due.currency_code) == ("sale", "CNY")
    shop.bring_back(paid, 1)
    assert (shop.records[0].campaign_id, shop.records[0].currency_code) == ("sale", "CNY")
    shop.short(10, sale="sale")
    revoked = {(x.campaign_id, x.currency_code, x.refund_minor) for x in shop.revoke()}
    assert revoked == {("sale", "CNY", 80), ("sale", "CNY", 0)}


def test_a_report_of_a_refund_keeps_the_channels_number(shop: Shop) -> None:
    shop.pay(shop.hold(), "p1", 99)
    head = (c.REPORT_REFUND, slot_of("tea"), 0, "web", refund_id(), True, "f1")
    shop.do(c.ReportRefund(*head, "wx-77"))
    assert shop.records[0].reference == "wx-77"


def test_a_report_that_changes_its_mind_is_told_so(shop: Shop) -> None:
    """A success under the id of a failure must not look recorded: the refund would stay due."""
    own = shop.hold()
    shop.pay(own, "p1", 99)
    shop.refunded(refund_id(), False, "f1")
    assert shop.refunded(refund_id(), True, "f1")[0] == Outcome.ID_REUSED
    assert shop.refunded(refund_id(), True, "f2")[0] == Outcome.APPLIED
    assert shop.refunded(refund_id(), False, "f2")[0] == Outcome.ID_REUSED


def test_a_refund_of_another_slot_is_not_found(shop: Shop) -> None:
    shop.pay(shop.hold(), "p1", 99)
    other = refund_id(slot=7)
    assert shop.refunded(other, slot=slot_of("tea"))[0] == Outcome.NOT_FOUND
    assert shop.refunded("nonsense")[0] == Outcome.NOT_FOUND
