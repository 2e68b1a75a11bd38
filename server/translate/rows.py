"""Rows of the SQL view to messages. A row maps the column names of `persistence/sql/tables.py`."""

import json
from typing import Any

from stockray_proto.v1 import common_pb2, reservation_pb2, stock_pb2

from actors.core.campaign_config import CampaignConfig, CampaignLine
from actors.core.state import REFUND_DUE
from persistence.sql.views import Row
from server.translate.campaign import CampaignView
from server.translate.scalars import stamp, stamp_or_none


def reservation_from(row: Row) -> reservation_pb2.Reservation:
    """A reservation with all that the journal said of it."""
    return reservation_pb2.Reservation(
        reservation_id=row["reservation_id"],
        request_id=row["request_id"],
        campaign_id=row["campaign_id"],
        sku_id=row["sku_id"],
        buyer_id=row["buyer_id"],
        order_id=row["order_id"],
        quantity=row["quantity"],
        returned_quantity=row["returned_quantity"],
        state=row["state"],
        list_price_minor=row["list_price_minor"],
        unit_price_minor=row["unit_price_minor"],
        payable_minor=row["payable_minor"],
        paid_minor=row["paid_minor"],
        currency_code=row["currency_code"],
        reserve_time=stamp(row["reserved_ms"]),
        deadline_time=stamp(row["deadline_ms"]),
        payment_begun=row["payment_begun_ms"] > 0,
        confirm_time=stamp_or_none(row["confirmed_ms"]),
        end_time=stamp_or_none(row["ended_ms"]),
        fulfilment_stage=row["fulfilment"],
        fulfilment_time=stamp_or_none(row["fulfilled_ms"]),
        buyer=common_pb2.BuyerContext(
            buyer_id=row["buyer_id"],
            device_id=row["device_id"],
            ip=row["ip"],
            claims=json.loads(row["claims_json"] or "[]"),
        ),
        attribution=common_pb2.Attribution(
            share_code=row["share_code"], channel=row["channel"], experiment=row["experiment"]
        ),
    )


def refund_from(row: Row) -> reservation_pb2.Refund:
    """A refund with all that the journal said of it."""
    due = row["state"] == REFUND_DUE
    return reservation_pb2.Refund(
        refund_id=row["refund_id"],
        reservation_id=row["reservation_id"],
        payment_id=row["payment_id"],
        payment_channel=row["payment_channel"],
        amount_minor=row["amount_minor"],
        currency_code=row["currency_code"],
        reason=row["reason"],
        compensation=bool(row["compensation"]),
        state=row["state"],
        attempt_count=row["attempts"],
        failed_attempt_count=row["attempts"] if due else row["attempts"] - 1,
        due_time=stamp(row["due_ms"]),
        report_time=stamp(row["updated_ms"]) if row["attempts"] else None,
        refund_time=stamp_or_none(row["closed_ms"]),
        campaign_id=row["campaign_id"],
        buyer_id=row["buyer_id"],
    )


def stock_from(row: Row, age: common_pb2.DataAge) -> stock_pb2.Stock:
    """A pool."""
    return stock_pb2.Stock(
        sku_id=row["sku_id"],
        campaign_id=row["campaign_id"],
        total_count=row["total"],
        available_count=row["available"],
        reserved_count=row["reserved"],
        sold_count=row["sold"],
        buffer_count=row["buffer"],
        scheduled_count=row["scheduled"],
        in_transit_count=row["in_transit"],
        owed_count=row["owed"],
        unit_price_minor=row["unit_price_minor"],
        list_price_minor=row["list_price_minor"],
        currency_code=row["currency_code"],
        age=age,
    )


def campaign_view_from(row: Row, pools: list[Row]) -> CampaignView:
    """A campaign's row and its pools', in the shape of a shard's view."""
    config: dict[str, Any] = json.loads(row["config_json"])
    lines = tuple(CampaignLine(**line) for line in config["lines"])
    return CampaignView(
        campaign_id=row["campaign_id"],
        state=row["state"],
        config=CampaignConfig(
            **{
                **config,
                "lines": lines,
                "required_claims": tuple(config["required_claims"]),
                "starts_ms": row["starts_ms"],
                "ends_ms": row["ends_ms"],
            }
        ),
        pools=[_pool_view(pool) for pool in pools],
        version=row["version"],
        created_ms=row["created_ms"],
        updated_ms=row["updated_ms"],
    )


def _pool_view(row: Row) -> tuple[Any, ...]:
    counts = (
        "total",
        "available",
        "reserved",
        "sold",
        "buffer",
        "scheduled",
        "in_transit",
        "owed",
    )
    return (
        row["slot"],
        row["generation"],
        row["campaign_id"],
        row["sku_id"],
        *(row[name] for name in counts),
        row["list_price_minor"],
        row["unit_price_minor"],
        row["granted"],
        row["currency_code"],
    )
