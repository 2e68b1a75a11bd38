"""Reserve and Grab: lines to commands, answers to results. The hottest code of the gateway.

A line that is fine costs one expression; only one that is not is looked at field by field. All ids
of a line are tested as one string: if it is printable and without spaces, so is each part, and if
it is no longer than one id may be, neither is any part. Measured in `tests/bench/gateway_line.py`.
"""

from binascii import hexlify
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from google.protobuf.message import Message
from stockray_proto.v1 import common_pb2, inventory_service_pb2, reservation_pb2

from actors.core.commands import DEFAULT_PAYABLE, RESERVE, Reserve
from actors.core.identity import SLOT_COUNT
from actors.core.outcomes import Outcome
from actors.core.risk_state import SCORE_MAX
from server.translate.scalars import SLOT_OF_KEY, advice_of, stamp
from server.validate import (
    CLAIMS_MAX,
    ID_LENGTH_MAX,
    LINE_UNITS_MAX,
    MONEY_MAX_MINOR,
    Violations,
    is_ip,
)

ADDRESSES_REMEMBERED_MAX = 65_536
PARTS_REMEMBERED_MAX = 4_096
"""Serialized parts of results kept of each kind, about 100 bytes each."""
RESULT_BYTES_MAX = 4_096
"""Above any result: three ids of 128 characters with four bytes each, and 256 of a message."""
ONLY_SESSION = "main"

_RESERVED = int(Outcome.RESERVED)
_INVALID, _SOLD_OUT = int(Outcome.INVALID), int(Outcome.SOLD_OUT)
NOT_LOOKED_UP = frozenset(
    {Outcome.ID_REUSED, Outcome.NOT_FOUND, Outcome.RATE_LIMITED, Outcome.BUYER_FROZEN}
)
"""Of these nothing is said of what is left: no shard, or no pool, was looked at."""
PAYABLE_TOO_HIGH = "payable_minor: at most unit price x quantity"

_new_reserve = partial(tuple.__new__, Reserve)
"""A Reserve of all its fields: 0.1 us, where calling the class takes 0.23."""
_addresses: set[str] = set()
"""IP addresses found well-formed lately; forgotten all at once when full."""


class LineRefused(Exception):
    """The line breaks rules; never leaves this file's callers."""

    def __init__(self, violations: Violations) -> None:
        super().__init__(violations.message())
        self.violations = violations


def reserve_command(
    line: Any, *, caller: str, deadline_ms: int, grab: bool, prefix: str = ""
) -> Reserve:
    """The command of a ReserveLine, or with `grab` of a GrabLine. Raises LineRefused."""
    request_id, sku_id, campaign_id = line.request_id, line.sku_id, line.campaign_id
    quantity, buyer, order_id = line.quantity, line.buyer, line.order_id
    buyer_id, device_id, ip = buyer.buyer_id, buyer.device_id, buyer.ip
    claimed = buyer.claims
    claims = tuple(claimed) if claimed else ()
    share_code = channel = experiment = ""
    if line.HasField("attribution"):
        way = line.attribution
        share_code, channel, experiment = way.share_code, way.channel, way.experiment
    payable = line.payable_minor
    ids = (
        f"{request_id}{sku_id}{campaign_id}{buyer_id}{order_id}{device_id}"
        f"{share_code}{channel}{experiment}"
    )
    if claims:
        ids += "".join(claims)
    fine = (
        request_id
        and sku_id
        and buyer_id
        and (campaign_id or not grab)
        and 0 < quantity <= LINE_UNITS_MAX
        and 0 <= payable <= MONEY_MAX_MINOR
        and len(ids) <= ID_LENGTH_MAX
        and ids.isprintable()
        and " " not in ids
        and (not ip or ip in _addresses)
        and (not claims or (all(claims) and len(claims) <= CLAIMS_MAX))
        and not (grab and line.session_id)
    )
    if not fine:
        violations = find_violations(line, grab=grab, prefix=prefix)
        if violations.found:
            raise LineRefused(violations)
    return _new_reserve(
        (
            RESERVE,
            SLOT_OF_KEY[campaign_id or sku_id],
            deadline_ms,
            caller,
            request_id,
            campaign_id,
            sku_id,
            quantity,
            buyer_id,
            payable if payable or line.HasField("payable_minor") else DEFAULT_PAYABLE,
            order_id,
            device_id,
            ip,
            claims,
            share_code,
            channel,
            experiment,
            SCORE_MAX,
        )
    )


def find_violations(line: Any, *, grab: bool, prefix: str) -> Violations:
    """Field by field, in the order of the message."""
    wrong = Violations(prefix)
    wrong.id("request_id", line.request_id)
    wrong.id("sku_id", line.sku_id)
    (wrong.id if grab else wrong.optional_id)("campaign_id", line.campaign_id)
    wish_violations(line, wrong)
    if grab and line.session_id not in ("", ONLY_SESSION):
        wrong.add("session_id", f"empty or '{ONLY_SESSION}': this release has no other")
    return wrong


def wish_violations(line: Any, wrong: Violations) -> None:
    """The fields from `quantity` on, which every wish for units has. Remembers an address that is
    well-formed."""
    wrong.number("quantity", line.quantity, 1, LINE_UNITS_MAX)
    buyer = line.buyer
    wrong.id("buyer.buyer_id", buyer.buyer_id)
    wrong.optional_id("buyer.device_id", buyer.device_id)
    wrong.ip("buyer.ip", buyer.ip)
    wrong.ids("buyer.claims", buyer.claims, count_max=CLAIMS_MAX)
    way = line.attribution
    wrong.optional_id("attribution.share_code", way.share_code)
    wrong.optional_id("attribution.channel", way.channel)
    wrong.optional_id("attribution.experiment", way.experiment)
    wrong.optional_id("order_id", line.order_id)
    wrong.money("payable_minor", line.payable_minor)
    if is_ip(buyer.ip):
        if len(_addresses) >= ADDRESSES_REMEMBERED_MAX:
            _addresses.clear()
        _addresses.add(buyer.ip)


def known_address(ip: str) -> bool:
    """Whether it was found well-formed lately."""
    return ip in _addresses


def reserve_commands(
    lines: Iterable[Any], *, caller: str, deadline_ms: int, grab: bool
) -> tuple[list[Reserve], dict[int, str]]:
    """The commands of the lines that are fine, and index -> message of those that are not."""
    commands: list[Reserve] = []
    refused: dict[int, str] = {}
    for index, line in enumerate(lines):
        try:
            commands.append(
                reserve_command(line, caller=caller, deadline_ms=deadline_ms, grab=grab)
            )
        except LineRefused as error:
            refused[index] = error.violations.message()
    return commands, refused


class Parts(dict[Any, bytes]):
    """Serialized parts of results by what is in them: the answers of a sale mostly share theirs.
    Forgets all when it is full."""

    def __init__(self, make: Callable[[Any], Message]) -> None:
        self._make = make

    def __missing__(self, key: Any) -> bytes:
        if len(self) >= PARTS_REMEMBERED_MAX:
            self.clear()
        part = self[key] = self._make(key).SerializeToString()
        return part


def _price_part(prices: tuple[int, int, int, str]) -> reservation_pb2.ReserveResult:
    list_price, unit_price, payable, currency = prices
    return reservation_pb2.ReserveResult(
        unit_price_minor=unit_price,
        list_price_minor=list_price,
        payable_minor=payable,
        currency_code=currency,
    )


_prices = Parts(_price_part)
_deadlines = Parts(lambda at_ms: reservation_pb2.ReserveResult(deadline_time=stamp(at_ms)))
_remaining = Parts(lambda count: reservation_pb2.ReserveResult(remaining_count=count))


def reserve_results(
    lines: Sequence[Any],
    commands: Sequence[Reserve],
    refused: dict[int, str],
    answers: Sequence[tuple[Any, ...]],
) -> bytes:
    """The bytes of a ReserveManyResponse or GrabManyResponse: a result for every line, in order."""
    if not refused and len(commands) == len(answers):
        return b"".join(map(_field, commands, answers))
    decided = zip(commands, answers, strict=True)
    results = []
    for index, line in enumerate(lines):
        if index in refused:
            result = reservation_pb2.ReserveResult(
                status=common_pb2.LINE_STATUS_INVALID,
                request_id=line.request_id,
                message=refused[index],
            )
            results.append(as_field(result.SerializeToString()))
        else:
            results.append(_field(*next(decided)))
    return b"".join(results)


def reserve_response(command: Reserve, answer: tuple[Any, ...]) -> bytes:
    """The bytes of a ReserveResponse or GrabResponse."""
    return _field(command, answer)


def _field(command: Reserve, answer: tuple[Any, ...]) -> bytes:
    """One result as the field of its response. A message's bytes are its fields' one after the
    other, so the two answers of a sale are put together from parts: 0.6 us where making the message
    and serializing it takes 2. All others are made as messages."""
    status = answer[0]
    if status == _RESERVED:
        result = reserved_bytes(command[4], command[1], answer)
    elif status == _SOLD_OUT and not answer[2]:
        request_id = command[4].encode()
        result = _SOLD_OUT_TO + LENGTHS[len(request_id)] + request_id + _remaining[answer[1]]
    else:
        result = _other(command, answer).SerializeToString()
    return as_field(result)


def reserved_bytes(request_id: str, slot: int, answer: tuple[Any, ...]) -> bytes:
    """A ReserveResult, or the same part of a SeatResult, of what was reserved: `answer` begins as
    that of `core.reservations.reserve`."""
    _, key, list_price, unit_price, payable, currency, deadline_ms, remaining = answer[:8]
    asked = request_id.encode()
    reservation_id = SLOTS[slot] + hexlify(key)
    return (
        _RESERVED_TO
        + LENGTHS[len(asked)]
        + asked
        + _RESERVATION
        + LENGTHS[len(reservation_id)]
        + reservation_id
        + _prices[list_price, unit_price, payable, currency]
        + _deadlines[deadline_ms]
        + _remaining[remaining]
    )


def as_field(result: bytes) -> bytes:
    """A result as the first field of its response."""
    return _RESULT + LENGTHS[len(result)] + result


def _other(command: Reserve, answer: tuple[Any, ...]) -> reservation_pb2.ReserveResult:
    status: Any = answer[0]
    result = reservation_pb2.ReserveResult(status=status, request_id=command.request_id)
    advice = advice_of(answer)
    if advice is not None:
        result.retry_after.CopyFrom(advice)
    elif status == _INVALID:
        result.message = PAYABLE_TOO_HIGH
    elif status == _SOLD_OUT:
        result.alternative_sku_ids.extend(answer[2])
    if len(answer) > 1 and status not in NOT_LOOKED_UP:
        result.remaining_count = answer[1]
    return result


def tag(message: Any, field: str) -> bytes:
    """What stands before a field of text, bytes or a message whose number is below 16."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | 2])


def _length(size: int) -> bytes:
    """A varint: seven bits a byte, the lowest first, the eighth set in all but the last."""
    return bytes([size]) if size < 128 else bytes([size & 127 | 128]) + _length(size >> 7)


LENGTHS = [_length(size) for size in range(RESULT_BYTES_MAX)]
SLOTS = [b"%03x" % slot for slot in range(SLOT_COUNT)]
_RESULT = tag(inventory_service_pb2.ReserveResponse, "result")
"""The same in all four responses; a test says so."""
_RESERVATION = tag(reservation_pb2.ReserveResult, "reservation_id")
_REQUEST = tag(reservation_pb2.ReserveResult, "request_id")
_RESERVED_TO, _SOLD_OUT_TO = (
    reservation_pb2.ReserveResult(status=status).SerializeToString() + _REQUEST
    for status in (common_pb2.LINE_STATUS_RESERVED, common_pb2.LINE_STATUS_SOLD_OUT)
)
