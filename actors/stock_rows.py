"""Stock records as SQL rows: SKUs, documents, transfers and campaigns. See `rows.py`."""

import json
from collections.abc import Sequence
from typing import Any

from actors.core import records as r
from actors.core import state as s
from actors.core.campaign_config import CampaignLine, campaign_config
from actors.core.outcomes import Outcome

Row = tuple[str, dict[str, Any], dict[str, Any]]
"""(table, key columns, other columns)."""

DOCUMENT_ARRIVAL, DOCUMENT_RETURN, DOCUMENT_FAILED_PAYMENT = 6, 7, 8
"""Kinds in `stock_documents` beside those of `records`: ids that are kept for ever, too."""


def sku(record: r.SkuPut, now_ms: int) -> Sequence[Row]:
    columns = {
        "name": record.name,
        "attributes_json": json.dumps(record.attributes, ensure_ascii=False, sort_keys=True),
        "buffer_bps": record.buffer_bps,
        "list_price_minor": record.price_minor,
        "currency_code": record.currency_code,
        "payment_window_ms": record.payment_window_ms,
        "created_ms": record.created_ms,
        "updated_ms": now_ms,
    }
    price, currency = record.price_minor, record.currency_code
    return [
        ("skus", {"sku_id": record.sku_id}, columns),
        _priced("", record.sku_id, price, price, currency),
    ]


def _pool(campaign_id: str, sku_id: str, **columns: Any) -> Row:
    """What no balance says of a pool. The entry has its balance, too: the two make one row."""
    return "pools", {"campaign_id": campaign_id, "sku_id": sku_id}, columns


def _priced(campaign_id: str, sku_id: str, list_minor: int, unit_minor: int, currency: str) -> Row:
    return _pool(
        campaign_id,
        sku_id,
        list_price_minor=list_minor,
        unit_price_minor=unit_minor,
        currency_code=currency,
    )


def stock_changed(record: r.StockChanged, now_ms: int) -> Sequence[Row]:
    other = {
        "sku_id": record.sku_id,
        "campaign_id": record.campaign_id,
        "reason": record.reason,
        "fingerprint": record.fingerprint,
        "available": record.available,
        "buffer": record.buffer,
        "scheduled": record.scheduled,
        "owed": record.owed,
        "from_reserved": record.from_reserved,
    }
    return [
        document(
            record.document,
            record.caller,
            record.request_id,
            record.quantity,
            now_ms,
            other,
            record.slot,
        )
    ]


def transferred_out(record: r.TransferredOut, now_ms: int) -> Sequence[Row]:
    columns = {
        "sku_id": record.sku_id,
        "from_campaign_id": record.from_campaign_id,
        "to_campaign_id": record.to_campaign_id,
        "quantity": record.quantity,
        "state": s.IN_TRANSIT,
        "at_ms": now_ms,
        "fingerprint": record.fingerprint,
    }
    rows: list[Row] = [("transfers", {"transfer_id": record.transfer_id.hex()}, columns)]
    if record.from_campaign_id:
        rows.append(_pool(record.from_campaign_id, record.sku_id, granted=record.granted))
    return rows


def transferred_in(record: r.TransferredIn, now_ms: int) -> Sequence[Row]:
    other = {
        "sku_id": record.sku_id,
        "campaign_id": record.to_campaign_id,
        "reason": "arrived" if record.arrived else "turned away",
    }
    transfer_id = record.transfer_id.hex()
    rows = [
        document(DOCUMENT_ARRIVAL, "", transfer_id, record.quantity, now_ms, other, record.slot)
    ]
    if record.arrived and record.to_campaign_id:
        rows.append(_pool(record.to_campaign_id, record.sku_id, granted=record.granted))
    return rows


def transfer_ended(record: r.TransferEnded, now_ms: int) -> Sequence[Row]:
    state = s.TRANSFER_ARRIVED if record.arrived else s.TRANSFER_TURNED_AWAY
    key = {"transfer_id": record.transfer_id.hex()}
    rows: list[Row] = [("transfers", key, {"state": state})]
    if record.from_campaign_id:
        rows.append(_pool(record.from_campaign_id, record.sku_id, granted=record.granted))
    return rows


def campaign_put(record: r.CampaignPut, now_ms: int) -> Sequence[Row]:
    config = campaign_config(record.config)
    told: dict[str, Any] = {
        "name": config.name,
        "currency_code": config.currency_code,
        "payment_window_ms": config.payment_window_ms,
        "limit_per_buyer": config.limit_per_buyer,
        "required_claims": list(config.required_claims),
        "lines": [_line(line) for line in config.lines],
        "min_score": config.min_score,
    }
    if config.group is not None:
        told["group"] = config.group._asdict()
    columns = {
        "state": record.state,
        "config_json": json.dumps(told, ensure_ascii=False),
        "starts_ms": config.starts_ms,
        "ends_ms": config.ends_ms,
        "version": record.version,
        "created_ms": record.created_ms,
        "updated_ms": now_ms,
    }
    return [
        ("campaigns", {"campaign_id": record.campaign_id}, columns),
        *(
            _priced(
                record.campaign_id,
                line.sku_id,
                line.list_price_minor,
                line.unit_price_minor,
                config.currency_code,
            )
            for line in config.lines
        ),
    ]


def _line(line: CampaignLine) -> dict[str, Any]:
    told = line._asdict()
    tiers = told.pop("tiers")
    if tiers:
        told["tiers"] = [tier._asdict() for tier in tiers]
    return told


def campaign_state(record: r.CampaignStateSet, now_ms: int) -> Sequence[Row]:
    columns = {"state": record.state, "updated_ms": now_ms}
    return [("campaigns", {"campaign_id": record.campaign_id}, columns)]


def document(  # noqa: PLR0917
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
