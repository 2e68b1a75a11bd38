"""Records of teams and their seats as facts. See `fact.py`."""

from typing import Any

from stockray_proto.v1 import event_service_pb2
from stockray_proto.v1.event_service_pb2 import Fact

from actors.core import team_records as t
from actors.core.identity import public_id
from actors.core.refunds import RefundReason
from actors.core.team_state import TEAM_FAILED
from server.translate.fact_reservations import reserved, with_refund
from server.translate.scalars import stamp


def _of_team(kind: event_service_pb2.FactKind.ValueType, record: Any, **fields: Any) -> Fact:
    return Fact(
        kind=kind,
        campaign_id=record.campaign_id,
        team_id=public_id(record.slot, record.team_key),
        **fields,
    )


def team_opened(record: t.TeamOpened) -> list[Fact]:
    fact = _of_team(
        event_service_pb2.FACT_KIND_TEAM_OPENED,
        record,
        sku_id=record.sku_id,
        buyer_id=record.opener_id,
        deadline_time=stamp(record.deadline_ms),
    )
    return [fact]


def seat_taken(record: t.SeatTaken) -> list[Fact]:
    (fact,) = reserved(record)
    fact.kind = event_service_pb2.FACT_KIND_SEAT_TAKEN
    fact.team_id = public_id(record.slot, record.team_key)
    fact.new_buyer = record.new_buyer
    return [fact]


def team_led(record: t.TeamLed) -> list[Fact]:
    leader = public_id(record.slot, record.leader_key) if record.leader_key else ""
    fact = _of_team(
        event_service_pb2.FACT_KIND_TEAM_LED,
        record,
        reservation_id=leader,
        buyer_id=record.leader_id,
    )
    return [fact]


def seat_moved(record: t.SeatMoved) -> list[Fact]:
    fact = _of_team(
        event_service_pb2.FACT_KIND_SEAT_MOVED,
        record,
        reservation_id=public_id(record.slot, record.key),
        from_team_id=public_id(record.slot, record.from_team_key),
    )
    return [fact]


def seat_closed(record: t.SeatClosed) -> list[Fact]:
    fact = _of_team(
        event_service_pb2.FACT_KIND_SEAT_CLOSED,
        record,
        reservation_id=public_id(record.slot, record.key),
        buyer_id=record.buyer_id,
        quantity=record.quantity,
        caller=record.caller,
        reason=record.reason,
    )
    failed = record.why == RefundReason.TEAM_FAILED
    return with_refund(fact, record, record.refund_key, record.why, failed)


def nearly_full(record: t.TeamNearlyFull) -> list[Fact]:
    fact = _of_team(
        event_service_pb2.FACT_KIND_TEAM_NEARLY_FULL,
        record,
        sku_id=record.sku_id,
        missing_count=record.missing,
    )
    return [fact]


def team_formed(record: t.TeamFormed) -> list[Fact]:
    fact = _of_team(
        event_service_pb2.FACT_KIND_TEAM_FORMED,
        record,
        sku_id=record.sku_id,
        unit_price_minor=record.unit_price_minor,
        tier_people=record.tier_people,
        virtual_count=record.virtual,
        caller=record.caller,
        reason=record.reason,
        member_reservation_ids=_members(record),
    )
    return [fact]


def seat_settled(record: t.SeatSettled) -> list[Fact]:
    fact = _of_team(
        event_service_pb2.FACT_KIND_SEAT_SETTLED,
        record,
        reservation_id=public_id(record.slot, record.key),
        buyer_id=record.buyer_id,
        payable_minor=record.final_minor,
        currency_code=record.currency_code,
    )
    return with_refund(fact, record, record.refund_key, RefundReason.TEAM_PRICE)


def team_closed(record: t.TeamClosed) -> list[Fact]:
    fact = _of_team(
        event_service_pb2.FACT_KIND_TEAM_FAILED
        if record.state == TEAM_FAILED
        else event_service_pb2.FACT_KIND_TEAM_CANCELLED,
        record,
        sku_id=record.sku_id,
        member_reservation_ids=_members(record),
    )
    return [fact]


def _members(record: Any) -> list[str]:
    return [public_id(record.slot, key) for key in record.members]
