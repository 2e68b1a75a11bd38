"""Records of teams and seats as SQL rows. See `rows.py`.

A seat's own row says which team it is of; its units, money and state are its reservation's row.
"""

from collections.abc import Sequence
from typing import Any

from actors.core import state as s
from actors.core import team_records as t
from actors.core.identity import buyer_part, public_id
from actors.core.refunds import RefundReason
from actors.core.team_state import TEAM_FORMED, TEAM_FORMING
from actors.reservation_rows import RESERVED_COLUMNS, refund, reservation, reserved_values
from actors.stock_rows import Row

_LEFT_OUT = 5
"""Of RESERVED_COLUMNS, those that `RowBatch` sets or that are the key."""


def team_opened(record: t.TeamOpened, now_ms: int) -> Sequence[Row]:
    columns = {
        "campaign_id": record.campaign_id,
        "sku_id": record.sku_id,
        "opener_id": record.opener_id,
        "state": TEAM_FORMING,
        "opened_ms": now_ms,
        "deadline_ms": record.deadline_ms,
        "updated_ms": now_ms,
    }
    return [_team(record, columns)]


def seat_taken(record: t.SeatTaken, now_ms: int) -> Sequence[Row]:
    values = reserved_values(record[: t.SEAT_FIELDS_FROM], now_ms, 0)
    columns = dict(zip(RESERVED_COLUMNS[_LEFT_OUT:], values[_LEFT_OUT:], strict=True))
    part = buyer_part(record.buyer_id)
    seat = {
        "team_id": public_id(record.slot, record.team_key),
        "campaign_id": record.campaign_id,
        "buyer_id": record.buyer_id,
        "new_buyer": int(record.new_buyer),
        "joined_ms": now_ms,
        "updated_ms": now_ms,
    }
    return [
        reservation(record.slot, record.key, part, columns),
        _seat(record.slot, record.key, part, seat),
    ]


def team_led(record: t.TeamLed, now_ms: int) -> Sequence[Row]:
    leader = public_id(record.slot, record.leader_key) if record.leader_key else ""
    columns = {
        "leader_reservation_id": leader,
        "leader_id": record.leader_id,
        "updated_ms": now_ms,
    }
    return [_team(record, columns)]


def seat_moved(record: t.SeatMoved, now_ms: int) -> Sequence[Row]:
    columns = {
        "team_id": public_id(record.slot, record.team_key),
        "joined_ms": now_ms,
        "updated_ms": now_ms,
    }
    return [_seat(record.slot, record.key, record.part, columns)]


def seat_closed(record: t.SeatClosed, now_ms: int) -> Sequence[Row]:
    columns = {
        "returned_quantity": record.quantity,
        "state": s.RETURNED,
        "ended_ms": now_ms,
        "updated_ms": now_ms,
    }
    return [
        reservation(record.slot, record.key, record.part, columns),
        _seat(record.slot, record.key, record.part, {"closed": record.why, "updated_ms": now_ms}),
        _refund(record, record.why, record.why == RefundReason.TEAM_FAILED, now_ms),
    ]


def seat_settled(record: t.SeatSettled, now_ms: int) -> Sequence[Row]:
    columns = {
        "final_minor": record.final_minor,
        "settled_minor": record.refund_minor,
        "settled_ms": now_ms,
        "updated_ms": now_ms,
    }
    rows = [_seat(record.slot, record.key, record.part, columns)]
    if record.refund_key:
        rows.append(_refund(record, int(RefundReason.TEAM_PRICE), False, now_ms))
    return rows


def team_formed(record: t.TeamFormed, now_ms: int) -> Sequence[Row]:
    columns = {
        "state": TEAM_FORMED,
        "leader_reservation_id": public_id(record.slot, record.leader_key),
        "paid": len(record.members),
        "new_members": record.new_members,
        "virtual_seats": record.virtual,
        "tier_people": record.tier_people,
        "unit_price_minor": record.unit_price_minor,
        "completed_by": record.caller,
        "reason": record.reason,
        "ended_ms": now_ms,
        "updated_ms": now_ms,
    }
    return [_team(record, columns)]


def team_closed(record: t.TeamClosed, now_ms: int) -> Sequence[Row]:
    columns = {
        "state": record.state,
        "paid": len(record.members),
        "ended_ms": now_ms,
        "updated_ms": now_ms,
    }
    return [_team(record, columns)]


def _team(record: Any, columns: dict[str, Any]) -> Row:
    return "teams", {"team_id": public_id(record.slot, record.team_key)}, columns


def _seat(slot: int, key: bytes, part: int, columns: dict[str, Any]) -> Row:
    return "seats", {"buyer_part": part, "reservation_id": public_id(slot, key)}, columns


def _refund(record: Any, reason: int, compensation: bool, now_ms: int) -> Row:
    return refund(
        record.slot,
        record.refund_key,
        public_id(record.slot, record.key),
        record,
        record.refund_minor,
        reason,
        compensation,
        now_ms,
    )
