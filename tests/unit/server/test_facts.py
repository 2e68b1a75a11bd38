"""Records as facts: every kind is told, at a place that is the same wherever it is read."""

import pytest
from stockray_proto.v1 import commission_service_pb2 as com
from stockray_proto.v1 import event_service_pb2 as ev
from stockray_proto.v1 import reservation_pb2 as res
from stockray_proto.v1 import risk_service_pb2 as risk

from actors.core import records as r
from actors.core import relay_records as y
from actors.core import risk_records as k
from actors.core.codec import pack_entry, pack_told, unpack_entry, unpack_told
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.state import CAMPAIGN_ENDED
from server.translate.fact import TOLD, facts_of
from tests.helpers.account_acts import accounts_of
from tests.helpers.histories import INCARNATION, busy_day
from tests.model.shop import WINDOW_MS
from tests.model.team_shop import TeamShop

NOW_MS = 1_700_000_000_000
KEY = bytes(range(16))
REFUSED = r.RequestRefused(r.REQUEST_REFUSED, 7, KEY, 1, 20)
RELEASED = r.ReservationReleased(r.RESERVATION_RELEASED, 7, KEY, 3, "bored", "sale")
RETURNED = r.UnitsReturned(
    kind=r.UNITS_RETURNED,
    slot=7,
    key=KEY,
    part=3,
    request_key=b"q" * 16,
    fingerprint=1,
    quantity=2,
    returned_total=2,
    restock=1,
    refund_key=b"f" * 16,
    refund_minor=900,
    payment_id="p-1",
    payment_channel="wechat",
    buyer_id="ann",
    reason="too small",
    state=5,
    campaign_id="sale",
    currency_code="CNY",
)


def packed(*records: object) -> bytes:
    return pack_entry(epoch=1, now_ms=NOW_MS, records=records, balances=())


RECORDS_TOLD = {
    "BuyerBound": "BUYER_BOUND",
    "BuyerFrozen": "BUYER_FROZEN",
    "BuyerUnfrozen": "BUYER_UNFROZEN",
    "DistributorHeld": "DISTRIBUTOR_HELD",
    "DistributorSet": "DISTRIBUTOR_SET",
    "MaturityMoved": "COMMISSION_DUE_SET",
    "OrderAccrued": "COMMISSION_ACCRUED",
    "OrderMatured": "COMMISSION_AVAILABLE",
    "OrderReversed": "COMMISSION_REVERSED",
    "RatesPut": "RATES_PUT",
    "StatementMade": "COMMISSION_SETTLED",
    "WithdrawalRequested": "WITHDRAWAL_REQUESTED",
    "WithdrawalReviewed": "WITHDRAWAL_REVIEWED",
    "CampaignPut": "CAMPAIGN_PUT",
    "CampaignStateSet": "CAMPAIGN_PAUSED CAMPAIGN_RESUMED CAMPAIGN_ENDED",
    "FulfilmentReported": "FULFILMENT_REPORTED",
    "PaymentBegun": "PAYMENT_BEGUN",
    "PaymentFailed": "PAYMENT_FAILED",
    "RefundFellDue": "REFUND_DUE",
    "RefundReported": "REFUND_CLOSED REFUND_FAILED",
    "ReservationConfirmed": "CONFIRMED",
    "ReservationExpired": "EXPIRED",
    "ReservationReleased": "RELEASED",
    "ReservationRevoked": "REVOKED REFUND_DUE",
    "SeatClosed": "SEAT_CLOSED REFUND_DUE",
    "SeatMoved": "SEAT_MOVED",
    "SeatSettled": "SEAT_SETTLED REFUND_DUE",
    "SeatTaken": "SEAT_TAKEN",
    "SkuPut": "SKU_PUT",
    "StockChanged": "BUFFER_SET SHORTAGE_DECLARED STOCK_ADJUSTED STOCK_RECEIVED",
    "StockReserved": "RESERVED",
    "TeamClosed": "TEAM_FAILED TEAM_CANCELLED",
    "TeamFormed": "TEAM_FORMED",
    "TeamLed": "TEAM_LED",
    "TeamNearlyFull": "TEAM_NEARLY_FULL",
    "TeamOpened": "TEAM_OPENED",
    "TransferEnded": "TRANSFER_ENDED",
    "TransferredIn": "TRANSFER_ARRIVED",
    "TransferredOut": "TRANSFER_SENT",
    "UnitsReturned": "RETURNED REFUND_DUE",
}
"""What each record is told as."""


def test_every_kind_of_record_is_told_or_named_as_one_that_never_is() -> None:
    assert set(TOLD) | r.UNTOLD == set(r.RECORDS)
    assert not set(TOLD) & r.UNTOLD


def busy_entries() -> list[bytes]:
    """All kinds of records between them."""
    return [
        *(entry for seed in range(3) for entry in busy_day(seed, 250).journal),
        *teams_that_end().journal,
        *late_payer().journal,
        *account_entries(),
    ]


def account_entries() -> list[bytes]:
    """Of account shards that took the facts of such days."""
    return [
        entry
        for seed in range(3)
        for entry in accounts_of([busy_day(seed, 250).journal], seed, INCARNATION)
    ]


def teams_that_end() -> TeamShop:
    shop = TeamShop()
    shop.sell_to_teams((2, 90), (3, 80))
    team, first = shop.start("ann")
    shop.paid(first)
    shop.comes(team, "bob")
    left = shop.comes(team, "cat")
    shop.leaves(left)
    shop.wait(10**9)
    shop.end_teams()
    shop.turn(CAMPAIGN_ENDED, shop.team_sale)
    return shop


def late_payer() -> TeamShop:
    """Whose own team is full by then, and another has room."""
    shop = TeamShop()
    shop.sell_to_teams((3, 80))
    full, _ = shop.start("ann")
    late = shop.seat(full, "bob")
    shop.wait(WINDOW_MS)
    shop.expire()
    shop.comes(full, "cat")
    shop.comes(full, "dan")
    shop.start("eve")
    assert shop.paid(late)[0] == Outcome.CONFIRMED
    return shop


def test_every_record_is_told_as_what_it_says() -> None:
    told: dict[str, set[str]] = {}
    for seq, entry in enumerate(busy_entries(), 1):
        _, records = unpack_told(entry)
        for fact in facts_of(0, seq, entry):
            kinds = told.setdefault(type(records[fact.index // 2]).__name__, set())
            kinds.add(ev.FactKind.Name(fact.kind).removeprefix("FACT_KIND_"))
            if ev.FACT_KIND_RESERVED <= fact.kind < ev.FACT_KIND_DISTRIBUTOR_SET:
                assert fact.reservation_id or fact.team_id or fact.refund.refund_id, fact
    assert told == {name: set(kinds.split()) for name, kinds in RECORDS_TOLD.items()}
    every = {name.removeprefix("FACT_KIND_") for name, _ in ev.FactKind.items()}
    assert every - set().union(*told.values()) == {"UNSPECIFIED", "UNREADABLE"}


def test_what_sql_keeps_of_an_entry_tells_the_same_at_the_same_places() -> None:
    whole = cut = 0
    for seq, entry in enumerate(busy_entries(), 1):
        kept = pack_told(entry, unpack_entry(entry), r.UNTOLD, r.UNKEPT)
        facts = facts_of(0, seq, entry)
        assert (facts_of(0, seq, kept) if kept else []) == facts
        assert not any(fact.kind == ev.FACT_KIND_UNREADABLE for fact in facts)
        places = [fact.index for fact in facts]
        assert places == sorted(set(places))
        whole += kept == entry
        cut += kept is not None and kept != entry
    assert whole > 100
    assert cut, "no entry had both what is told and what is not"


def test_the_ledger_can_be_told_from_its_facts_alone() -> None:
    """Every line, in order, each booked to 0; and whose it is."""
    events = set()
    for seed in range(5):
        lines = [
            entry
            for seq, data in enumerate(
                accounts_of([busy_day(seed, 250).journal], seed, INCARNATION), 1
            )
            for fact in facts_of(0, seq, data)
            for entry in fact.entries
        ]
        assert [line.entry_number for line in lines] == list(range(1, len(lines) + 1))
        events |= {line.event for line in lines}
        for line in lines:
            assert sum(value for _, value in line.amounts.ListFields()) == 0
            assert line.distributor_id
            assert line.entry_time.seconds
    rare = {com.COMMISSION_EVENT_UNSPECIFIED, com.COMMISSION_EVENT_PAID_OUT}
    assert events >= set(com.CommissionEvent.values()) - rare


def test_a_freeze_says_who_and_until_when_and_signals_are_nobodys_business() -> None:
    frozen = k.BuyerFrozen(k.BUYER_FROZEN, 1500, "ann", NOW_MS + 5, k.BY_OPERATOR, "op", "cards", 1)
    ended = k.BuyerUnfrozen(k.BUYER_UNFROZEN, 1500, "ann", True, "", "", 1)
    noted = k.SignalNoted(k.SIGNAL_NOTED, 1500, "ann", 2, 1, NOW_MS, ())
    taken = y.FactTaken(y.FACT_TAKEN, 1500, 0, "inc", 7, 1)
    entry = packed(taken, noted, frozen, ended)
    kept = pack_told(entry, unpack_entry(entry), r.UNTOLD, r.UNKEPT)
    assert kept == entry, "packing it again would cost more than it is worth"
    first, second = facts_of(3, 9, kept)
    assert (first.kind, first.index, first.buyer_id) == (ev.FACT_KIND_BUYER_FROZEN, 4, "ann")
    assert first.deadline_time.ToMilliseconds() == NOW_MS + 5
    assert (first.freeze_cause, first.caller) == (risk.FREEZE_CAUSE_OPERATOR, "op")
    assert (second.kind, second.index, second.buyer_id) == (ev.FACT_KIND_BUYER_UNFROZEN, 6, "ann")
    only = packed(taken, noted)
    assert pack_told(only, unpack_entry(only), r.UNTOLD, r.UNKEPT) is None


def test_refusals_are_never_told_and_keep_their_place() -> None:
    entry = packed(REFUSED, RELEASED, REFUSED)
    kept = pack_told(entry, unpack_entry(entry), r.UNTOLD, r.UNKEPT)
    assert kept is not None
    assert len(kept) < len(entry)
    (fact,) = facts_of(4, 9, kept)
    assert (fact.shard, fact.seq, fact.index) == (4, 9, 2)
    assert (fact.kind, fact.reason, fact.campaign_id) == (ev.FACT_KIND_RELEASED, "bored", "sale")
    assert fact.reservation_id == public_id(7, KEY)
    assert fact.time.ToMilliseconds() == NOW_MS
    only = packed(REFUSED)
    assert pack_told(only, unpack_entry(only), r.UNTOLD, r.UNKEPT) is None
    assert facts_of(4, 9, only) == []


def test_a_refund_is_a_fact_of_its_own_whatever_it_comes_of() -> None:
    returned, due = facts_of(0, 1, packed(RETURNED))
    assert (returned.kind, returned.index) == (ev.FACT_KIND_RETURNED, 0)
    assert (returned.quantity, returned.state) == (2, res.RESERVATION_STATE_RETURNED)
    assert (due.kind, due.index) == (ev.FACT_KIND_REFUND_DUE, 1)
    assert (due.refund.amount_minor, due.refund.reason) == (900, res.REFUND_REASON_RETURN)
    assert (due.buyer_id, due.campaign_id) == ("ann", "sale")
    free = RETURNED._replace(refund_key=b"", refund_minor=0)
    assert [fact.kind for fact in facts_of(0, 1, packed(free))] == [ev.FACT_KIND_RETURNED]


@pytest.mark.parametrize("data", [b"", b"\xc1 no entry"])
def test_an_entry_that_cannot_be_read_is_told_as_that(data: bytes) -> None:
    (fact,) = facts_of(0, 5, data)
    assert (fact.kind, fact.seq) == (ev.FACT_KIND_UNREADABLE, 5)


def test_a_record_that_cannot_be_told_hides_no_other() -> None:
    broken = RELEASED._replace(key=None)  # type: ignore[arg-type]
    kinds = [fact.kind for fact in facts_of(0, 5, packed(broken, RELEASED))]
    assert kinds == [ev.FACT_KIND_UNREADABLE, ev.FACT_KIND_RELEASED]
