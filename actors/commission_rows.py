"""Records of the commission programme as SQL rows. See `rows.py`.

Most rows of a programme are entries of the ledger, which never change (`entry_values`, and of new
orders `accrued_entries`), new orders (`accrued_values`) and new bindings (`bound_values`), so these
are made without dicts.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from sys import intern
from typing import Any

from actors.core import commission_records as r
from actors.core import commission_state as c
from actors.core import state as s
from actors.core.identity import public_id
from actors.stock_rows import Row

ENTRIES = "commission_entries"
ENTRY_COLUMNS = (
    "entry_id",
    "slot",
    "generation",
    "seq",
    "distributor_id",
    "event",
    "reservation_id",
    "withdrawal_id",
    "level",
    "version",
    "month",
    "expense_minor",
    "frozen_minor",
    "available_minor",
    "settled_minor",
    "withdrawing_minor",
    "paid_out_minor",
    "at_ms",
)
"""In the table's own order: then the sink has nothing to put in order."""
_NEVER_ACCRUED = frozenset(
    {"withdrawal_id", "available_minor", "settled_minor", "withdrawing_minor", "paid_out_minor"}
)
ACCRUED_COLUMNS = tuple(name for name in ENTRY_COLUMNS if name not in _NEVER_ACCRUED)
"""Of the entries by which an order earned: in the others they have what the tables begin with."""
BONDS = "bonds"
BOND_COLUMNS = (
    "buyer_id",
    "from_ms",
    "distributor_id",
    "slot",
    "generation",
    "seq",
    "until_ms",
    "share_code",
    "invited",
    "month",
    "reservation_id",
    "caller",
    "bound_ms",
    "updated_ms",
)
"""Of a new binding, in the table's own order."""
ORDERS = "commission_orders"
ORDER_COLUMNS = (
    "reservation_id",
    "slot",
    "generation",
    "seq",
    "buyer_id",
    "referrer_id",
    "campaign_id",
    "sku_id",
    "quantity",
    "base_minor",
    "version",
    "month",
    "level1_id",
    "level1_bps",
    "level1_minor",
    "level1_state",
    "level2_id",
    "level2_bps",
    "level2_minor",
    "level2_state",
    "commission_minor",
    "earned_ms",
    "matures_ms",
    "updated_ms",
)
"""Of a new order, in the table's own order."""
_NO_LEVEL: tuple[str, int, int, int] = ("", 0, 0, 0)
OF_WITHDRAWALS = frozenset({r.WITHDRAWN, r.WITHDRAWAL_RESTORED, r.PAID_OUT})
WITH_ENTRIES = frozenset(
    kind for kind, record in r.RECORDS.items() if "entries" in getattr(record, "_fields", ())
)
"""Kinds of records that have entries."""


def entry_values(record: Any, now_ms: int, seq: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a record's entries, as `ENTRY_COLUMNS` says."""
    slot = record.slot
    for number, event, distributor_id, about, level, version, month, *amounts in record.entries:
        is_withdrawal = event in OF_WITHDRAWALS
        yield (
            number,
            slot,
            s.GENERATION,
            seq,
            distributor_id,
            event,
            "" if is_withdrawal else about,
            about if is_withdrawal else "",
            level,
            version,
            month,
            *amounts,
            now_ms,
        )


def accrued_entries(record: r.OrderAccrued, now_ms: int, seq: int) -> list[tuple[Any, ...]]:
    """The same of what an order earned, as `ACCRUED_COLUMNS` says.

    A batch has so many rows of orders that its memory is what it costs: a name that comes again and
    again is kept once."""
    slot, name = record.slot, record.reservation_id
    return [
        (
            number,
            slot,
            s.GENERATION,
            seq,
            intern(distributor_id),
            event,
            name,
            level,
            version,
            month,
            expense_minor,
            frozen_minor,
            now_ms,
        )
        for (
            number,
            event,
            distributor_id,
            _,
            level,
            version,
            month,
            expense_minor,
            frozen_minor,
            _,
            _,
            _,
            _,
        ) in record.entries
    ]


def distributor_set(record: r.DistributorSet, now_ms: int) -> Sequence[Row]:
    columns: dict[str, Any] = {
        "state": record.state,
        "share_code": record.share_code,
        "changed_ms": now_ms,
        **_changed(record),
        "updated_ms": now_ms,
    }
    if record.applies:
        columns["applied_ms"] = now_ms
    return [_distributor(record, columns)]


def distributor_held(record: r.DistributorHeld, now_ms: int) -> Sequence[Row]:
    columns = {
        "held_until_ms": record.until_ms,
        "held_as_of_ms": record.as_of_ms,
        "updated_ms": now_ms,
    }
    return [_distributor(record, columns)]


def bound_values(record: tuple[Any, ...], now_ms: int, seq: int) -> tuple[Any, ...]:
    """The row of a new binding, as `BOND_COLUMNS` says."""
    (
        _,
        slot,
        buyer_id,
        distributor_id,
        share_code,
        from_ms,
        until_ms,
        _,
        invited,
        month,
        reservation_id,
        caller,
    ) = record
    return (
        buyer_id,
        from_ms,
        intern(distributor_id),
        slot,
        s.GENERATION,
        seq,
        until_ms,
        intern(share_code),
        int(invited),
        month,
        reservation_id,
        caller,
        now_ms,
        now_ms,
    )


def buyer_bound(record: r.BuyerBound, now_ms: int) -> Sequence[Row]:
    """Of a binding that was renewed."""
    key = {
        "buyer_id": record.buyer_id,
        "from_ms": record.from_ms,
        "distributor_id": record.distributor_id,
    }
    return [(BONDS, key, {"until_ms": record.until_ms, "updated_ms": now_ms})]


def rates_put(record: r.RatesPut, now_ms: int) -> Sequence[Row]:
    columns = {
        "from_ms": now_ms,
        "config_json": json.dumps(record.config, ensure_ascii=False),
        "caller": record.caller,
        "reason": record.reason,
        "updated_ms": now_ms,
    }
    return [("commission_rates", {"version": record.version}, columns)]


def accrued_values(record: tuple[Any, ...], now_ms: int, seq: int) -> tuple[Any, ...]:
    """The row of a new order, as `ORDER_COLUMNS` says."""
    (
        _,
        slot,
        _,
        reservation_id,
        buyer_id,
        referrer_id,
        campaign_id,
        sku_id,
        quantity,
        base_minor,
        _,
        _,
        version,
        _,
        earned_ms,
        matures_ms,
        month,
        shares,
        _,
    ) = record
    levels = [_NO_LEVEL, _NO_LEVEL]
    commission_minor = 0
    for level, distributor_id, rate_bps, amount_minor in shares:
        levels[level - 1] = (intern(distributor_id), rate_bps, amount_minor, c.FROZEN)
        commission_minor += amount_minor
    return (
        reservation_id,
        slot,
        s.GENERATION,
        seq,
        buyer_id,
        intern(referrer_id),
        intern(campaign_id),
        intern(sku_id),
        quantity,
        base_minor,
        version,
        month,
        *levels[0],
        *levels[1],
        commission_minor,
        earned_ms,
        matures_ms,
        now_ms,
    )


def order_reversed(record: r.OrderReversed, now_ms: int) -> Sequence[Row]:
    columns = {
        "returned_quantity": record.returned_total,
        "commission_minor": sum(record.left_minor),
        "updated_ms": now_ms,
    }
    return [_order(record, columns)]


def order_matured(record: r.OrderMatured, now_ms: int) -> Sequence[Row]:
    columns = {"updated_ms": now_ms}
    columns |= {f"level{level}_state": c.AVAILABLE for level in record.available}
    columns |= {f"level{level}_state": c.WAITING for level in record.waiting}
    return [_order(record, columns)]


def maturity_moved(record: r.MaturityMoved, now_ms: int) -> Sequence[Row]:
    columns = {"matures_ms": record.matures_ms, "delivered": 1, "updated_ms": now_ms}
    return [_order(record, columns)]


def statement_made(record: r.StatementMade, now_ms: int) -> Sequence[Row]:
    columns = {
        "starts_ms": record.starts_ms,
        "ends_ms": record.ends_ms,
        "opening_minor": record.opening_minor,
        "available_minor": record.available_minor,
        "reversed_minor": record.reversed_minor,
        "withdrawn_minor": record.withdrawn_minor,
        "restored_minor": record.restored_minor,
        "closing_minor": record.closing_minor,
        "moved_minor": record.moved_minor,
        "entry_count": record.entry_count,
        "currency_code": record.currency_code,
        "made_ms": now_ms,
        **_changed(record),
        "updated_ms": now_ms,
    }
    key = {"distributor_id": record.distributor_id, "month": record.month}
    return [("statements", key, columns)]


def withdrawal_requested(record: r.WithdrawalRequested, now_ms: int) -> Sequence[Row]:
    columns = {
        "caller": record.caller,
        "request_id": record.request_id,
        "fingerprint": record.fingerprint,
        "distributor_id": record.distributor_id,
        "amount_minor": record.amount_minor,
        "from_settled_minor": record.from_settled_minor,
        "currency_code": record.currency_code,
        "state": c.REQUESTED,
        "requested_ms": now_ms,
        "changed_ms": now_ms,
        **_changed(record),
        "updated_ms": now_ms,
    }
    return [_withdrawal(record, columns)]


def withdrawal_reviewed(record: r.WithdrawalReviewed, now_ms: int) -> Sequence[Row]:
    columns = {
        "state": record.state,
        "reference": record.reference,
        "changed_ms": now_ms,
        **_changed(record),
        "updated_ms": now_ms,
    }
    return [_withdrawal(record, columns)]


def _changed(record: Any) -> dict[str, str]:
    """Who did it, and why."""
    return {"changed_by": record.caller, "change_reason": record.reason}


def _distributor(record: Any, columns: dict[str, Any]) -> Row:
    return "distributors", {"distributor_id": record.distributor_id}, columns


def _order(record: Any, columns: dict[str, Any]) -> Row:
    return ORDERS, {"reservation_id": record.reservation_id}, columns


def _withdrawal(record: Any, columns: dict[str, Any]) -> Row:
    return "withdrawals", {"withdrawal_id": public_id(record.slot, record.key)}, columns


ROWS: dict[int, Callable[[Any, int], Sequence[Row]]] = {
    r.DISTRIBUTOR_SET: distributor_set,
    r.BUYER_BOUND: buyer_bound,
    r.RATES_PUT: rates_put,
    r.ORDER_REVERSED: order_reversed,
    r.ORDER_MATURED: order_matured,
    r.MATURITY_MOVED: maturity_moved,
    r.DISTRIBUTOR_HELD: distributor_held,
    r.STATEMENT_MADE: statement_made,
    r.WITHDRAWAL_REQUESTED: withdrawal_requested,
    r.WITHDRAWAL_REVIEWED: withdrawal_reviewed,
}
"""See `rows.ROWS`; new orders are `accrued_values`, new bindings `bound_values`."""
