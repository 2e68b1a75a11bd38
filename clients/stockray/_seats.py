"""Seats of teams on the wire: how a line is encoded, and how its result is read. See `_verbs`."""

from __future__ import annotations

from datetime import timedelta

from stockray_proto.v1 import group_buy_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import instant, span
from stockray._verbs import STATUS, Key, Verb, fill_context, frame
from stockray.enums import Status
from stockray.group_buy import SeatResult
from stockray.lines import JoinTeamLine, OpenTeamLine

GROUP_BUY = "/stockray.v1.GroupBuyService/"


def write_open(message: wire.OpenTeamLine, line: OpenTeamLine) -> None:
    """Fills the line of `OpenTeam`."""
    message.request_id = line.request_id
    message.campaign_id = line.campaign_id
    message.sku_id = line.sku_id
    message.quantity = line.quantity
    message.new_buyer = line.new_buyer
    message.buyer.buyer_id = line.buyer_id
    fill_context(message, line)


def encode_join(line: JoinTeamLine, request_id: str) -> bytes:
    """A line of `JoinTeamMany`."""
    message = wire.JoinTeamLine(
        request_id=request_id,
        team_id=line.team_id,
        quantity=line.quantity,
        new_buyer=line.new_buyer,
    )
    message.buyer.buyer_id = line.buyer_id
    fill_context(message, line)
    return frame(message.SerializeToString())


def read_status(number: int) -> Status:
    """The status of this number, also one of a newer service."""
    return STATUS.get(number) or Status(number)


def decode_seat(message: wire.SeatResult, status: Status) -> SeatResult:
    """A result of `OpenTeam`, `JoinTeam` or `JoinTeamMany`."""
    has = message.HasField
    others = message.other_team_ids
    return SeatResult(
        status,
        message.request_id,
        message.reservation_id,
        message.unit_price_minor,
        message.list_price_minor,
        message.payable_minor,
        message.currency_code,
        instant(message.deadline_time) if has("deadline_time") else None,
        message.remaining_count if has("remaining_count") else None,
        span(message.retry_after) if has("retry_after") else None,
        message.message,
        message.team_id,
        instant(message.team_deadline_time) if has("team_deadline_time") else None,
        message.free_count,
        tuple(others) if others else (),
    )


def _blank_seat(key: Key, status: Status, text: str, wait: timedelta | None) -> SeatResult:
    return SeatResult(status, key[0], message=text, retry_after=wait)


JOIN: Verb[SeatResult] = Verb(
    "join_team",
    Method(GROUP_BUY + "JoinTeamMany", wire.JoinTeamManyResponse.FromString),
    decode_seat,
    _blank_seat,
)
