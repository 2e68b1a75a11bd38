"""Rows of the SQL view to messages. A row maps the column names of `persistence/sql/tables.py`."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from stockray_proto.v1 import common_pb2, reservation_pb2, stock_pb2

from actors.core.campaign_config import CampaignConfig, CampaignLine, GroupRules, Tier
from actors.core.identity import parse_public_id
from actors.core.refunds import RefundReason
from actors.core.state import CONFIRMED, REFUND_DUE, RESERVED, RETURNED
from actors.core.team_state import TEAM_FORMED, TEAM_FORMING
from persistence.sql.paging import Row
from server.translate.campaign import CampaignView
from server.translate.scalars import stamp, stamp_or_none
from server.translate.team import MemberView, TeamView


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
        team_id=row["team_id"],
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
    return CampaignView(
        campaign_id=row["campaign_id"],
        state=row["state"],
        config=config_from(row),
        pools=[_pool_view(pool) for pool in pools],
        version=row["version"],
        created_ms=row["created_ms"],
        updated_ms=row["updated_ms"],
    )


def config_from(row: Row) -> CampaignConfig:
    """The configuration in a campaign's row."""
    config: dict[str, Any] = json.loads(row["config_json"])
    group = config.get("group")
    return CampaignConfig(
        **{
            **config,
            "lines": tuple(_line(line) for line in config["lines"]),
            "required_claims": tuple(config["required_claims"]),
            "starts_ms": row["starts_ms"],
            "ends_ms": row["ends_ms"],
            "group": None if group is None else GroupRules(**group),
        }
    )


def _line(told: dict[str, Any]) -> CampaignLine:
    tiers = tuple(Tier(**tier) for tier in told.get("tiers", ()))
    return CampaignLine(**{**told, "tiers": tiers})


class SeatCounts(NamedTuple):
    """Of a team that is forming: seats by what they are."""

    paid: int = 0
    unpaid: int = 0
    new_buyers: int = 0


def seat_counts(rows: Sequence[Row]) -> dict[str, SeatCounts]:
    """By team, of rows that count seats by the state of their reservation."""
    found: dict[str, SeatCounts] = {}
    for row in rows:
        paid = row["seats"] if row["state"] == CONFIRMED else 0
        before = found.get(row["team_id"], SeatCounts())
        found[row["team_id"]] = SeatCounts(
            before.paid + paid,
            before.unpaid + row["seats"] - paid,
            # MySQL answers a sum as a decimal.
            before.new_buyers + int(row["new_buyers"]),
        )
    return found


def team_view_from(
    row: Row, config: CampaignConfig, counts: SeatCounts, seats: Sequence[Row] = ()
) -> TeamView:
    """A team's row, and of a forming one its seats' counts, in the shape of a shard's view. `seats`
    are all that it ever had; its members are found among them."""
    forming = row["state"] == TEAM_FORMING
    tiers = next((line.tiers for line in config.lines if line.sku_id == row["sku_id"]), ())
    new_buyers = counts.new_buyers if forming else row["new_members"]
    asked = 0 if config.group is None else config.group.new_buyer_seats
    return TeamView(
        key=_key(row["team_id"]),
        campaign_id=row["campaign_id"],
        sku_id=row["sku_id"],
        state=row["state"],
        opened_ms=row["opened_ms"],
        deadline_ms=row["deadline_ms"],
        ended_ms=row["ended_ms"],
        leader=_key(row["leader_reservation_id"]),
        tiers=tiers,
        paid=counts.paid if forming else row["paid"],
        unpaid=counts.unpaid if forming else 0,
        virtual=row["virtual_seats"],
        new_members=new_buyers,
        missing_new=max(0, asked - new_buyers) if forming else 0,
        tier_people=row["tier_people"],
        unit_price_minor=row["unit_price_minor"],
        members=tuple(_member(seat) for seat in seats if _is_member(row["state"], seat)),
        currency_code=config.currency_code,
    )


def _is_member(team_state: int, seat: Row) -> bool:
    """Whether a seat is in its team, or was among its paid ones when it ended."""
    if team_state == TEAM_FORMING:
        return seat["state"] in (RESERVED, CONFIRMED)
    if team_state == TEAM_FORMED:
        # One that was left, expired or was revoked before is none; one that was returned since is.
        kept = seat["state"] in (CONFIRMED, RETURNED) or seat["final_minor"] > 0
        return kept and not seat["closed"]
    return bool(seat["closed"] == RefundReason.TEAM_FAILED)


def _member(seat: Row) -> MemberView:
    return MemberView(
        key=_key(seat["reservation_id"]),
        buyer_id=seat["buyer_id"],
        paid=seat["state"] == CONFIRMED,
        new_buyer=seat["new_buyer"] > 0,
        joined_ms=seat["joined_ms"],
    )


def _key(public_id: str) -> bytes:
    parsed = parse_public_id(public_id)
    return b"" if parsed is None else parsed[1]


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
