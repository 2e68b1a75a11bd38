"""Journal records as SQL rows: the shape of the view, in one table of functions.

Every function answers (table, key columns, other columns). Rows of one key are merged over a batch,
the later record's columns winning, so that a batch has one row per key and the sink's guard by
(generation, seq) never has to choose within an entry. Columns that a record does not speak of are
left out, and stay as they are in SQL.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from actors.core import records as r
from actors.core import state as s
from actors.core.identity import buyer_part, public_id
from actors.core.outcomes import Outcome
from actors.core.payments import RefundReason, return_refund_key
from persistence.ports import Rows

Row = tuple[str, dict[str, Any], dict[str, Any]]

PAYMENT_BEGUN, PAYMENT_FAILED, PAYMENT_KEPT, PAYMENT_REFUND_DUE = 1, 2, 3, 4
"""States of a row in `payments`."""

DOCUMENT_ARRIVAL, DOCUMENT_RETURN = 6, 7
"""Kinds in `stock_documents` beside those of `records`: ids that are kept for ever, too."""


class RowBatch:
    """Collects rows, merged by key."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, tuple[Any, ...]], dict[str, Any]] = {}

    def add(self, seq: int, now_ms: int, record: Any) -> None:
        """The rows of one record. KeyError for a kind that this release does not know."""
        for table, key, columns in ROWS[record.kind](record, now_ms):
            self._put(table, key, {"slot": record.slot, **columns}, seq)

    def add_balance(self, seq: int, now_ms: int, balance: r.Balance) -> None:
        """A pool as it stands after an entry."""
        columns = balance._asdict()
        key = {"campaign_id": columns.pop("campaign_id"), "sku_id": columns.pop("sku_id")}
        self._put("pools", key, {**columns, "updated_ms": now_ms}, seq)

    def tables(self) -> list[Rows]:
        """All rows, those of one table and one set of columns together."""
        groups: dict[tuple[str, tuple[str, ...]], list[tuple[object, ...]]] = {}
        for (table, _), row in self._rows.items():
            names = tuple(sorted(row))
            groups.setdefault((table, names), []).append(tuple([row[name] for name in names]))
        return [
            Rows(table=table, columns=columns, values=values)
            for (table, columns), values in groups.items()
        ]

    def _put(self, table: str, key: dict[str, Any], columns: dict[str, Any], seq: int) -> None:
        row = self._rows.setdefault((table, tuple(key.values())), {})
        row.update(key)
        row.update(columns)
        row.setdefault("generation", s.GENERATION)
        row["seq"] = seq


def _sku(record: r.SkuPut, now_ms: int) -> Sequence[Row]:
    columns = {
        "name": record.name,
        "attributes_json": json.dumps(record.attributes, ensure_ascii=False, sort_keys=True),
        "buffer_bps": record.buffer_bps,
        "list_price_minor": record.price_minor,
        "currency_code": record.currency_code,
        "payment_window_ms": record.payment_window_ms,
        "updated_ms": now_ms,
    }
    return [("skus", {"sku_id": record.sku_id}, columns)]


def _document(  # noqa: PLR0917
    kind: int,
    caller: str,
    request_id: str,
    quantity: int,
    now_ms: int,
    other: dict[str, Any],
    slot: int,
) -> Row:
    key = {"slot": slot, "caller": caller, "request_id": request_id}
    status = int(Outcome.APPLIED)
    return (
        "stock_documents",
        key,
        {"kind": kind, "quantity": quantity, "status": status, "at_ms": now_ms, **other},
    )


def _stock_changed(record: r.StockChanged, now_ms: int) -> Sequence[Row]:
    other = {
        "sku_id": record.sku_id,
        "campaign_id": record.campaign_id,
        "reason": record.reason,
        "fingerprint": record.fingerprint,
    }
    return [
        _document(
            record.document,
            record.caller,
            record.request_id,
            record.quantity,
            now_ms,
            other,
            record.slot,
        )
    ]


def _transferred_out(record: r.TransferredOut, now_ms: int) -> Sequence[Row]:
    columns = {
        "sku_id": record.sku_id,
        "from_campaign_id": record.from_campaign_id,
        "to_campaign_id": record.to_campaign_id,
        "quantity": record.quantity,
        "state": s.IN_TRANSIT,
        "at_ms": now_ms,
    }
    return [("transfers", {"transfer_id": record.transfer_id.hex()}, columns)]


def _transferred_in(record: r.TransferredIn, now_ms: int) -> Sequence[Row]:
    other = {
        "sku_id": record.sku_id,
        "campaign_id": record.to_campaign_id,
        "reason": "arrived" if record.arrived else "turned away",
    }
    transfer_id = record.transfer_id.hex()
    return [
        _document(DOCUMENT_ARRIVAL, "", transfer_id, record.quantity, now_ms, other, record.slot)
    ]


def _transfer_ended(record: r.TransferEnded, now_ms: int) -> Sequence[Row]:
    state = s.TRANSFER_ARRIVED if record.arrived else s.TRANSFER_TURNED_AWAY
    return [("transfers", {"transfer_id": record.transfer_id.hex()}, {"state": state})]


def _campaign_put(record: r.CampaignPut, now_ms: int) -> Sequence[Row]:
    name, currency, starts_ms, ends_ms, window_ms, limit, claims, lines = record.config
    config = {
        "name": name,
        "currency_code": currency,
        "payment_window_ms": window_ms,
        "limit_per_buyer": limit,
        "required_claims": list(claims),
        "lines": [
            {
                "sku_id": sku_id,
                "allocation": allocation,
                "list_price_minor": list_minor,
                "unit_price_minor": unit_minor,
                "limit_per_buyer": line_limit,
            }
            for sku_id, allocation, list_minor, unit_minor, line_limit in lines
        ],
    }
    columns = {
        "state": record.state,
        "config_json": json.dumps(config, ensure_ascii=False),
        "starts_ms": starts_ms,
        "ends_ms": ends_ms,
        "updated_ms": now_ms,
    }
    return [("campaigns", {"campaign_id": record.campaign_id}, columns)]


def _campaign_state(record: r.CampaignStateSet, now_ms: int) -> Sequence[Row]:
    columns = {"state": record.state, "updated_ms": now_ms}
    return [("campaigns", {"campaign_id": record.campaign_id}, columns)]


def _reserved(record: r.StockReserved, now_ms: int) -> Sequence[Row]:
    columns = {
        "caller": record.caller,
        "request_id": record.request_id,
        "fingerprint": record.fingerprint,
        "campaign_id": record.campaign_id,
        "sku_id": record.sku_id,
        "buyer_id": record.buyer_id,
        "device_id": record.device_id,
        "ip": record.ip,
        "claims_json": json.dumps(record.claims, ensure_ascii=False),
        "share_code": record.share_code,
        "channel": record.channel,
        "experiment": record.experiment,
        "order_id": record.order_id,
        "quantity": record.quantity,
        "state": s.RESERVED,
        "list_price_minor": record.list_price_minor,
        "unit_price_minor": record.unit_price_minor,
        "payable_minor": record.payable_minor,
        "currency_code": record.currency_code,
        "reserved_ms": now_ms,
        "deadline_ms": record.deadline_ms,
        "updated_ms": now_ms,
    }
    return [_reservation(record.slot, record.key, buyer_part(record.buyer_id), columns)]


def _reservation(slot: int, key: bytes, part: int, columns: dict[str, Any]) -> Row:
    return "reservations", {"buyer_part": part, "reservation_id": public_id(slot, key)}, columns


def _no_rows(record: Any, now_ms: int) -> Sequence[Row]:
    return ()


def _payment(record: Any, now_ms: int, state: int, **columns: Any) -> Row:
    key = {"slot": record.slot, "payment_id": record.payment_id}
    channel = record.payment_channel
    return (
        "payments",
        key,
        {"payment_channel": channel, "state": state, "at_ms": now_ms, **columns},
    )


def _confirmed(record: r.ReservationConfirmed, now_ms: int) -> Sequence[Row]:
    columns = {
        "state": s.CONFIRMED,
        "payment_id": record.payment_id,
        "paid_minor": record.paid_minor,
        "confirmed_ms": now_ms,
        "ended_ms": 0,
        "updated_ms": now_ms,
    }
    return [
        _reservation(record.slot, record.key, record.part, columns),
        _payment(
            record,
            now_ms,
            PAYMENT_KEPT,
            reservation_id=public_id(record.slot, record.key),
            amount_minor=record.paid_minor,
        ),
    ]


def _released(record: r.ReservationReleased, now_ms: int) -> Sequence[Row]:
    return [_ended(record, now_ms, s.RELEASED)]


def _expired(record: r.ReservationExpired, now_ms: int) -> Sequence[Row]:
    return [_ended(record, now_ms, s.EXPIRED)]


def _ended(record: Any, now_ms: int, state: int) -> Row:
    columns = {"state": state, "ended_ms": now_ms, "updated_ms": now_ms}
    return _reservation(record.slot, record.key, record.part, columns)


def _payment_begun(record: r.PaymentBegun, now_ms: int) -> Sequence[Row]:
    columns = {
        "deadline_ms": record.deadline_ms,
        "payment_begun_ms": now_ms,
        "updated_ms": now_ms,
    }
    reservation_id = public_id(record.slot, record.key)
    return [
        _reservation(record.slot, record.key, record.part, columns),
        _payment(record, now_ms, PAYMENT_BEGUN, reservation_id=reservation_id),
    ]


def _payment_failed(record: r.PaymentFailed, now_ms: int) -> Sequence[Row]:
    reservation_id = public_id(record.slot, record.key)
    return [
        _payment(
            record,
            now_ms,
            PAYMENT_FAILED,
            reservation_id=reservation_id,
            amount_minor=record.paid_minor,
        )
    ]


def _refund(  # noqa: PLR0917
    slot: int,
    key: bytes,
    reservation_id: str,
    record: Any,
    amount_minor: int,
    reason: int,
    compensation: bool,
    now_ms: int,
) -> Row:
    columns = {
        "reservation_id": reservation_id,
        "buyer_id": record.buyer_id,
        "payment_id": record.payment_id,
        "payment_channel": record.payment_channel,
        "amount_minor": amount_minor,
        "reason": reason,
        "compensation": int(compensation),
        "state": s.REFUND_DUE,
        "due_ms": now_ms,
        "updated_ms": now_ms,
    }
    return "refunds", {"refund_id": public_id(slot, key)}, columns


def _refund_fell_due(record: r.RefundFellDue, now_ms: int) -> Sequence[Row]:
    return [
        _refund(
            record.slot,
            record.refund_key,
            record.reservation_id,
            record,
            record.amount_minor,
            record.reason,
            record.compensation,
            now_ms,
        ),
        _payment(
            record,
            now_ms,
            PAYMENT_REFUND_DUE,
            reservation_id=record.reservation_id,
            amount_minor=record.amount_minor,
        ),
    ]


def _units_returned(record: r.UnitsReturned, now_ms: int) -> Sequence[Row]:
    columns = {
        "returned_quantity": record.returned_total,
        "state": record.state,
        "updated_ms": now_ms,
    }
    if record.state == s.RETURNED:
        columns["ended_ms"] = now_ms
    other = {"fingerprint": record.fingerprint, "reason": record.reason}
    request = record.request_key.hex()
    rows = [
        _reservation(record.slot, record.key, record.part, columns),
        _document(DOCUMENT_RETURN, "", request, record.quantity, now_ms, other, record.slot),
    ]
    if record.refund_key:
        reason = int(RefundReason.RETURN)
        reservation_id = public_id(record.slot, record.key)
        amount = record.refund_minor
        key = return_refund_key(record.request_key)
        rows.append(
            _refund(record.slot, key, reservation_id, record, amount, reason, False, now_ms)
        )
    return rows


def _fulfilment(record: r.FulfilmentReported, now_ms: int) -> Sequence[Row]:
    columns = {
        "fulfilment": record.stage,
        "fulfilled_ms": record.at_ms,
        "updated_ms": now_ms,
    }
    return [_reservation(record.slot, record.key, record.part, columns)]


def _refund_reported(record: r.RefundReported, now_ms: int) -> Sequence[Row]:
    columns: dict[str, Any] = {
        "state": s.REFUND_CLOSED if record.closed else s.REFUND_DUE,
        "attempts": record.attempts,
        "updated_ms": now_ms,
    }
    if record.closed:
        columns["closed_ms"] = now_ms
    return [("refunds", {"refund_id": public_id(record.slot, record.refund_key)}, columns)]


def _revoked(record: r.ReservationRevoked, now_ms: int) -> Sequence[Row]:
    rows = [_ended(record, now_ms, s.REVOKED)]
    if record.refund_key:
        reason = int(RefundReason.SHORTAGE)
        reservation_id = public_id(record.slot, record.key)
        key, amount = record.refund_key, record.refund_minor
        rows.append(_refund(record.slot, key, reservation_id, record, amount, reason, True, now_ms))
    return rows


ROWS: dict[int, Callable[[Any, int], Sequence[Row]]] = {
    r.SKU_PUT: _sku,
    r.STOCK_CHANGED: _stock_changed,
    r.TRANSFERRED_OUT: _transferred_out,
    r.TRANSFERRED_IN: _transferred_in,
    r.TRANSFER_ENDED: _transfer_ended,
    r.CAMPAIGN_PUT: _campaign_put,
    r.CAMPAIGN_STATE_SET: _campaign_state,
    r.STOCK_RESERVED: _reserved,
    r.REQUEST_REFUSED: _no_rows,
    r.RESERVATION_CONFIRMED: _confirmed,
    r.RESERVATION_RELEASED: _released,
    r.RESERVATION_EXPIRED: _expired,
    r.PAYMENT_BEGUN: _payment_begun,
    r.PAYMENT_FAILED: _payment_failed,
    r.REFUND_FELL_DUE: _refund_fell_due,
    r.UNITS_RETURNED: _units_returned,
    r.FULFILMENT_REPORTED: _fulfilment,
    r.REFUND_REPORTED: _refund_reported,
    r.RESERVATION_REVOKED: _revoked,
}
