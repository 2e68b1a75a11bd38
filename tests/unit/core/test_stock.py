"""SKUs, documents, buffers and shortages."""

import pytest

from actors.core import commands as c
from actors.core import pulse
from actors.core import state as s
from actors.core.identity import slot_of
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason
from actors.core.stock import TOTAL_MAX
from tests.model.shop import T0, Shop, campaign, line


@pytest.fixture
def shop() -> Shop:
    """SKU tea with 10 units."""
    shop = Shop()
    shop.sku()
    shop.receive(10)
    return shop


# Documents


def test_a_receipt_counts_once_for_ever(shop: Shop) -> None:
    shop.wait(10**10)
    assert shop.receive(10)[0] == Outcome.APPLIED
    assert shop.receive(11)[0] == Outcome.ID_REUSED
    assert shop.stock() == {"available": 10}


def test_documents_of_two_kinds_do_not_share_an_id(shop: Shop) -> None:
    assert shop.adjust(10, "doc")[0] == Outcome.ID_REUSED
    assert shop.set_buffer(10, "doc")[0] == Outcome.ID_REUSED
    assert shop.short(10, "doc")[0] == Outcome.ID_REUSED


def test_a_receipt_keeps_the_buffers_share_back(shop: Shop) -> None:
    shop.sku(buffer_bps=1_500)
    shop.receive(9, "next")
    assert shop.stock() == {"available": 18, "buffer": 1}, "15 % of 9, rounded down"


def test_nothing_is_received_into_what_is_not_there(shop: Shop) -> None:
    assert shop.receive(1, "x0", "nothing")[0] == Outcome.NOT_FOUND
    assert shop.adjust(1, "x1", "nothing")[0] == Outcome.NOT_FOUND
    assert shop.set_buffer(1, "x2", "nothing")[0] == Outcome.NOT_FOUND
    assert shop.short(1, "x3", sku="nothing")[0] == Outcome.NOT_FOUND


def test_a_pool_never_answers_for_more_than_the_maximum(shop: Shop) -> None:
    assert shop.receive(TOTAL_MAX - 9, "much")[0] == Outcome.EXCEEDS_TOTAL
    assert shop.adjust(TOTAL_MAX - 9, "much too")[0] == Outcome.EXCEEDS_TOTAL
    assert shop.receive(TOTAL_MAX - 10, "just")[0] == Outcome.APPLIED


def test_a_correction_takes_available_units_only(shop: Shop) -> None:
    shop.hold("r1", 4)
    assert shop.adjust(-7)[0] == Outcome.EXCEEDS_AVAILABLE
    shop.release(shop.hold("r2"))
    assert shop.adjust(-7)[0] == Outcome.EXCEEDS_AVAILABLE, "the same id, the same answer"
    assert shop.adjust(-6, "less")[0] == Outcome.APPLIED
    assert shop.stock() == {"reserved": 4}


def test_a_buffer_is_set_to_a_number_and_moves_the_difference(shop: Shop) -> None:
    assert shop.set_buffer(4, "k1")[0] == Outcome.APPLIED
    assert shop.stock() == {"available": 6, "buffer": 4}
    assert shop.set_buffer(11, "k2")[0] == Outcome.EXCEEDS_AVAILABLE
    shop.set_buffer(1, "k3")
    assert shop.stock() == {"available": 9, "buffer": 1}
    assert shop.set_buffer(4, "k1")[0] == Outcome.APPLIED
    assert shop.stock() == {"available": 9, "buffer": 1}, "a resend changes nothing"


def test_a_sku_with_units_keeps_its_currency(shop: Shop) -> None:
    assert shop.sku(currency_code="EUR")[0] == Outcome.CAMPAIGN_CONFLICT
    shop.adjust(-10)
    assert shop.sku(currency_code="EUR")[0] == Outcome.APPLIED


def test_putting_what_stands_decides_nothing(shop: Shop) -> None:
    entries = len(shop.journal)
    assert shop.sku()[0] == Outcome.APPLIED
    assert len(shop.journal) == entries


def test_records_say_who_did_it_and_why(shop: Shop) -> None:
    """An audit is made from them."""
    head = (c.PUT_SKU, slot_of("tea"), 0, "desk", "tea", "Tea", {}, 0, 100, "CNY", 60_000)
    shop.do(c.PutSku(*head, "renamed"))
    assert (shop.records[0].caller, shop.records[0].reason) == ("desk", "renamed")
    slot = slot_of("sale")
    put = c.PutCampaign(c.PUT_CAMPAIGN, slot, 0, "desk", "sale", campaign(line("tea")), "new")
    shop.do(put)
    assert (shop.records[0].caller, shop.records[0].reason) == ("desk", "new")
    pause = (c.SET_CAMPAIGN_STATE, slot, 0, "boss", "sale", s.CAMPAIGN_PAUSED, "wrong price")
    shop.do(c.SetCampaignState(*pause))
    assert (shop.records[0].caller, shop.records[0].reason) == ("boss", "wrong price")


def test_another_reason_alone_changes_nothing(shop: Shop) -> None:
    entries = len(shop.journal)
    head = (c.PUT_SKU, slot_of("tea"), 0, "desk", "tea", "tea", {}, 0, 100, "CNY")
    assert shop.do(c.PutSku(*head, 15 * 60_000, "again"))[0] == Outcome.APPLIED
    assert len(shop.journal) == entries


def test_a_sku_keeps_the_time_it_was_made(shop: Shop) -> None:
    shop.wait(5_000)
    shop.sku(price_minor=99)
    assert shop.records[0].created_ms == T0
    for state in (shop.state, shop.replica(), shop.from_snapshot()):
        assert state.slot(slot_of("tea")).skus["tea"].created_ms == T0


def test_a_base_pool_is_read_with_what_is_known_of_its_sku(shop: Shop) -> None:
    shop.sku(attributes={"leaf": "green"})
    read = c.GetStock(c.GET_STOCK, slot_of("tea"), 0, "web", "", "tea", True)
    sku = ("tea", {"leaf": "green"}, 0, 100, "CNY", 15 * 60_000, T0)
    assert shop.do(read)[2] == sku
    assert shop.do(read._replace(with_sku=False))[2] is None


# Shortages


def test_a_dry_run_says_what_would_be_taken_and_takes_nothing(shop: Shop) -> None:
    shop.set_buffer(3)
    entries = len(shop.journal)
    assert shop.short(10, dry_run=True)[::2] == (Outcome.FOUND, (7, 0, 3, 0, 0))
    assert shop.short(11, dry_run=True)[0] == Outcome.EXCEEDS_TOTAL
    assert shop.short(1, sku="nothing", dry_run=True)[0] == Outcome.NOT_FOUND
    assert len(shop.journal) == entries


def test_missing_units_come_from_available_scheduled_buffer_then_people(shop: Shop) -> None:
    own = shop.hold("r1", 4)
    shop.pay(own, paid=400)
    shop.bring_back(own, 2, "b1", c.RESTOCK_SCHEDULED)
    shop.set_buffer(1)
    shop.hold("r2", 3)
    assert shop.stock() == {
        "available": 2, "reserved": 3, "sold": 2, "buffer": 1, "scheduled": 2,
    }  # fmt: skip
    assert shop.short(3, "g1")[2] == (2, 1, 0, 0, 0)
    assert shop.short(4, "g2")[2] == (0, 1, 1, 2, 0)
    assert shop.stock() == {"reserved": 3, "sold": 2, "owed": 2}
    assert shop.pool().total == 5
    assert shop.short(4, "g3")[0] == Outcome.EXCEEDS_TOTAL, "2 of the 5 are owed already"


def test_an_older_shortage_takes_its_reservations_first(shop: Shop) -> None:
    paid = shop.hold("r1", 6)
    shop.pay(paid, paid=600)
    shop.hold("r2", 4)
    assert shop.short(3, "g1")[2] == (0, 0, 0, 3, 0)
    assert shop.short(3, "g2")[2] == (0, 0, 0, 1, 2)
    assert shop.short(2, "g3", dry_run=True)[2] == (0, 0, 0, 0, 2)


def test_a_resent_document_answers_its_first_figures(shop: Shop) -> None:
    shop.sku(buffer_bps=2_500)
    shop.hold("r1", 10)
    assert shop.short(6, "g1")[2] == (0, 0, 0, 6, 0)
    assert shop.receive(8, "d1")[2] == (0, 6), "what is owed takes 6, and 25 % of 2 is none"
    assert shop.receive(8, "d2")[2] == (2, 0)
    for state in (shop.state, shop.replica(), shop.from_snapshot()):
        shop.state = state
        assert shop.short(6, "g1")[2] == (0, 0, 0, 6, 0)
        assert shop.receive(8, "d1")[2] == (0, 6)
        assert shop.receive(8, "d2")[2] == (2, 0)
        assert shop.receive(9, "d2")[2] == (0, 0), "another receipt, and none that counts"


def test_the_newest_reservations_are_revoked_then_the_newest_orders(shop: Shop) -> None:
    names = []
    for number in range(4):
        names.append(shop.hold(f"r{number}", 2))
        shop.wait(1)
    for own in names[:2]:
        shop.pay(own, own, paid=200)
    shop.short(9)
    taken = [key for _ in range(5) for key in (x.key for x in shop.revoke(limit=1))]
    order = [shop.held(names[n]).key for n in (3, 2, 1, 0)]
    assert taken == order
    assert shop.stock() == {"available": 1}, "a whole reservation goes; what is over is free again"
    assert shop.pool().total == 1


def test_a_revoked_order_is_owed_back_with_a_compensation(shop: Shop) -> None:
    own = shop.hold("r1", 3)
    shop.pay(own, paid=300)
    shop.bring_back(own, 1)
    shop.short(10)
    shop.revoke()
    refunds = list(shop.state.slot(slot_of("tea")).refunds.values())
    due = {(x.reason, x.amount_minor, x.compensation) for x in refunds}
    assert due == {(RefundReason.RETURN, 100, False), (RefundReason.SHORTAGE, 200, True)}
    assert shop.read(own)[-1][-1] == 300
    assert shop.stock() == {}


def owing(shop: Shop, sold: int = 3) -> str:
    """All units sold to one order, one of them short."""
    shop.adjust(sold - 10)
    own = shop.hold("r1", sold)
    shop.pay(own, paid=100 * sold)
    shop.short(1)
    assert shop.stock() == {"sold": sold, "owed": 1}
    return own


def test_a_receipt_pays_what_is_owed_before_the_buffer(shop: Shop) -> None:
    owing(shop)
    shop.sku(buffer_bps=5_000)
    shop.receive(3, "next")
    assert shop.stock() == {"available": 1, "buffer": 1, "sold": 3}
    assert shop.revoke() == []


def test_a_correction_pays_what_is_owed(shop: Shop) -> None:
    owing(shop)
    shop.adjust(2, "found")
    assert shop.stock() == {"available": 1, "sold": 3}


@pytest.mark.parametrize("restock", [c.RESTOCK_AVAILABLE, c.RESTOCK_SCHEDULED])
def test_a_return_pays_what_is_owed_wherever_it_was_to_go(shop: Shop, restock: int) -> None:
    own = owing(shop)
    shop.bring_back(own, 1, restock=restock)
    assert shop.stock() == {"sold": 2}
    assert not shop.state.debtors


def test_no_more_is_owed_than_people_could_give_up(shop: Shop) -> None:
    """Else the next receipt would pay for a unit that is in nobody's books any more."""
    own = owing(shop, sold=1)
    shop.bring_back(own, 1, restock=c.RESTOCK_WRITE_OFF)
    assert shop.stock() == {}
    assert not shop.state.debtors
    shop.receive(2, "next")
    assert shop.stock() == {"available": 2}


def test_arriving_and_turned_away_units_pay_what_is_owed() -> None:
    shop = Shop()
    shop.open_sale(5, line("tea", 9))
    shop.hold("r1", 5, sale="sale")
    shop.short(2, sale="sale")
    shop.receive(5, "more")
    _, key, *_ = shop.leave(3, "t1")
    shop.arrive(key, 3)
    assert shop.stock("sale") == {"available": 1, "reserved": 5}


def test_an_order_paid_during_the_search_is_ranked_anew(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest reservation was found, and paid before its turn: an older one goes first."""
    shop.adjust(-7)
    older = shop.hold("r1")
    shop.wait(1)
    middle = shop.hold("r2")
    shop.wait(1)
    newest = shop.hold("r3")
    shop.short(1)
    assert shop.revoke(limit=0) == []
    shop.pay(newest, "p3")
    taken = [x.key for _ in range(3) for x in shop.revoke()]
    assert taken == [shop.held(middle).key]
    assert shop.held(older).state == s.RESERVED


def test_more_owed_during_the_search_spares_no_reservation(shop: Shop) -> None:
    """One was looked for and two are owed: the second is a reservation too, not an order."""
    shop.adjust(-7)
    order = shop.hold("r1")
    shop.pay(order)
    one, two = shop.hold("r2"), shop.hold("r3")
    shop.short(1, "g1")
    shop.revoke(limit=0)
    shop.short(1, "g2")
    taken = {x.key for _ in range(3) for x in shop.revoke()}
    assert taken == {shop.held(one).key, shop.held(two).key}


def test_a_search_is_over_with_its_shortage(shop: Shop) -> None:
    """A later shortage of the same pool begins its own: what was newest then is not newest now."""
    shop.adjust(-8)
    older = shop.hold("r1")
    shop.short(2, "g1")
    shop.revoke(limit=0)
    shop.receive(2, "more")
    shop.wait(1)
    newer = shop.hold("r2")
    shop.adjust(-shop.pool().available, "count 2")
    shop.short(1, "g2")
    assert [x.key for x in shop.revoke()] == [shop.held(newer).key]
    assert shop.held(older).state == s.RESERVED


def test_a_search_is_done_in_slices(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.core.tables.SPLIT_AT", 4)
    monkeypatch.setattr(pulse, "SCAN_SLICE", 1)
    for number in range(8):
        shop.hold(f"r{number}")
    shop.short(3)
    slices = [len(shop.revoke()) for _ in range(12)]
    assert slices[0] == 0
    assert sum(slices) == 1, "2 were available"
