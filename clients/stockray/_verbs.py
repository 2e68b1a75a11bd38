"""The four verbs that travel in batches: how a line is encoded and how its result is read.

Rules
* A line is encoded once, at the call, into the bytes of field 1 of a request: a request of many is
  these bytes joined, a resend is the same bytes again, and their length is known.
* Results are named tuples built from the parsed answer: a parsed message would keep the memory of
  all results of its call alive. Measured, a refused line costs about 0.7 us, a reserved one 1.3.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from stockray_proto.v1 import inventory_service_pb2 as inventory
from stockray_proto.v1 import reservation_pb2 as wire
from stockray_proto.v1 import seckill_service_pb2 as seckill

from stockray._channel import Method
from stockray._codec import instant, read, span, write
from stockray.enums import ReservationState, Status
from stockray.lines import ConfirmLine, GrabLine, ReleaseLine, ReserveLine
from stockray.records import Refund
from stockray.results import ConfirmResult, ReleaseResult, ReserveResult

R = TypeVar("R")
Key = tuple[str, ...]

STATUS: dict[int, Status] = {status.value: status for status in Status}
STATE: dict[int, ReservationState] = {state.value: state for state in ReservationState}
FIELD_ONE = b"\x0a"
BARE_GRAB = GrabLine("", "", "")[5:]
BARE_RESERVE = ReserveLine("", "")[5:]
"""What follows the request id in a line that says no more than who wants what: the usual one."""


class Verb(NamedTuple, Generic[R]):
    """One batched verb."""

    name: str
    method: Method[Any]
    decode: Callable[[Any, Status], R]
    blank: Callable[[Key, Status, str, timedelta | None], R]
    """Makes the result of a line that was not decided."""


def frame(payload: bytes) -> bytes:
    """The bytes of an encoded line as field 1 of a request."""
    size = len(payload)
    if size < 0x80:
        return b"\x0a%c%b" % (size, payload)
    head = bytearray(FIELD_ONE)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + payload


def encode_grab(line: GrabLine, request_id: str) -> bytes:
    """A line of `GrabMany`."""
    message = seckill.GrabLine(
        request_id=request_id,
        sku_id=line.sku_id,
        campaign_id=line.campaign_id,
        quantity=line.quantity,
    )
    message.buyer.buyer_id = line.buyer_id
    if line[5:] != BARE_GRAB:
        fill_context(message, line)
        if line.session_id:
            message.session_id = line.session_id
    return frame(message.SerializeToString())


def encode_reserve(line: ReserveLine, request_id: str) -> bytes:
    """A line of `ReserveMany`."""
    message = wire.ReserveLine(
        request_id=request_id,
        sku_id=line.sku_id,
        campaign_id=line.campaign_id,
        quantity=line.quantity,
    )
    message.buyer.buyer_id = line.buyer_id
    if line[5:] != BARE_RESERVE:
        fill_context(message, line)
    return frame(message.SerializeToString())


def encode_confirm(line: ConfirmLine) -> bytes:
    """A line of `ConfirmMany`."""
    message = wire.ConfirmLine(
        reservation_id=line.reservation_id,
        payment_id=line.payment_id,
        paid_minor=line.paid_minor,
        payment_channel=line.payment_channel,
    )
    return frame(message.SerializeToString())


def encode_release(line: ReleaseLine) -> bytes:
    """A line of `ReleaseMany`."""
    message = wire.ReleaseLine(reservation_id=line.reservation_id, reason=line.reason)
    return frame(message.SerializeToString())


def fill_context(message: Any, line: Any) -> None:
    """What every line may say of its buyer, way, order and price."""
    buyer = message.buyer
    if line.device_id:
        buyer.device_id = line.device_id
    if line.ip:
        buyer.ip = line.ip
    if line.claims:
        buyer.claims.extend(line.claims)
    if line.attribution is not None:
        write(message.attribution, line.attribution)
    if line.order_id:
        message.order_id = line.order_id
    if line.payable_minor is not None:
        message.payable_minor = line.payable_minor


def _decode_reserve(message: wire.ReserveResult, status: Status) -> ReserveResult:
    has = message.HasField
    remaining = message.remaining_count if has("remaining_count") else None
    if status is Status.RESERVED:
        # In the order of the fields; the constructor of a named tuple would cost twice as much.
        return tuple.__new__(
            ReserveResult,
            (
                status,
                message.request_id,
                message.reservation_id,
                message.unit_price_minor,
                message.list_price_minor,
                message.payable_minor,
                message.currency_code,
                instant(message.deadline_time) if has("deadline_time") else None,
                remaining,
                None,
                "",
                (),
            ),
        )
    alternatives = message.alternative_sku_ids
    wait = span(message.retry_after) if has("retry_after") else None
    others = tuple(alternatives) if alternatives else ()
    text = message.message
    return tuple.__new__(
        ReserveResult,
        (status, message.request_id, "", 0, 0, 0, "", None, remaining, wait, text, others),
    )


def _decode_confirm(message: wire.ConfirmResult, status: Status) -> ConfirmResult:
    state = message.state
    return ConfirmResult(
        status,
        message.reservation_id,
        message.payment_id,
        STATE.get(state) or ReservationState(state),
        read(Refund, message.refund) if message.HasField("refund") else None,
        message.message,
        span(message.retry_after) if message.HasField("retry_after") else None,
    )


def _decode_release(message: wire.ReleaseResult, status: Status) -> ReleaseResult:
    state = message.state
    return ReleaseResult(
        status,
        message.reservation_id,
        STATE.get(state) or ReservationState(state),
        message.message,
        span(message.retry_after) if message.HasField("retry_after") else None,
    )


def _blank_reserve(key: Key, status: Status, text: str, wait: timedelta | None) -> ReserveResult:
    return ReserveResult(status, key[0], message=text, retry_after=wait)


def _blank_confirm(key: Key, status: Status, text: str, wait: timedelta | None) -> ConfirmResult:
    return ConfirmResult(status, key[0], key[1], message=text, retry_after=wait)


def _blank_release(key: Key, status: Status, text: str, wait: timedelta | None) -> ReleaseResult:
    return ReleaseResult(status, key[0], message=text, retry_after=wait)


INVENTORY = "/stockray.v1.InventoryService/"
SECKILL = "/stockray.v1.SeckillService/"

GRAB: Verb[ReserveResult] = Verb(
    "grab",
    Method(SECKILL + "GrabMany", seckill.GrabManyResponse.FromString),
    _decode_reserve,
    _blank_reserve,
)
RESERVE: Verb[ReserveResult] = Verb(
    "reserve",
    Method(INVENTORY + "ReserveMany", inventory.ReserveManyResponse.FromString),
    _decode_reserve,
    _blank_reserve,
)
CONFIRM: Verb[ConfirmResult] = Verb(
    "confirm",
    Method(INVENTORY + "ConfirmMany", inventory.ConfirmManyResponse.FromString),
    _decode_confirm,
    _blank_confirm,
)
RELEASE: Verb[ReleaseResult] = Verb(
    "release",
    Method(INVENTORY + "ReleaseMany", inventory.ReleaseManyResponse.FromString),
    _decode_release,
    _blank_release,
)
