"""Reserve and Grab: lines to commands, answers to results. The hottest code of the gateway.

A line that is fine costs one expression; only one that is not is looked at field by field. All ids
of a line are tested as one string: if it is printable and without spaces, so is each part, and if
it is no longer than one id may be, neither is any part. Measured in `tests/bench/gateway_line.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from stockray_proto.v1 import inventory_service_pb2

from actors.core.commands import DEFAULT_PAYABLE, RESERVE, Reserve
from actors.core.outcomes import Outcome
from server.translate.scalars import RETRY_AFTER, SLOT_OF_KEY, stamp
from server.validate import (
    CLAIMS_MAX,
    ID_LENGTH_MAX,
    LINE_UNITS_MAX,
    MONEY_MAX_MINOR,
    Violations,
    is_ip,
)

ADDRESSES_REMEMBERED_MAX = 65_536
ONLY_SESSION = "main"

_RESERVED, _RETRY, _UNKNOWN = int(Outcome.RESERVED), int(Outcome.RETRY), int(Outcome.UNKNOWN)
_INVALID, _SOLD_OUT = int(Outcome.INVALID), int(Outcome.SOLD_OUT)
_NOT_LOOKED_UP = frozenset({Outcome.ID_REUSED, Outcome.NOT_FOUND})
_PAYABLE_TOO_HIGH = "payable_minor: at most unit price x quantity"

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
    claims = tuple(buyer.claims)
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
    return Reserve(
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
    )


def find_violations(line: Any, *, grab: bool, prefix: str) -> Violations:
    """Field by field, in the order of the message. Remembers an address that is well-formed."""
    wrong = Violations(prefix)
    wrong.id("request_id", line.request_id)
    wrong.id("sku_id", line.sku_id)
    (wrong.id if grab else wrong.optional_id)("campaign_id", line.campaign_id)
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
    if grab and line.session_id not in ("", ONLY_SESSION):
        wrong.add("session_id", f"empty or '{ONLY_SESSION}': this release has no other")
    if is_ip(buyer.ip):
        if len(_addresses) >= ADDRESSES_REMEMBERED_MAX:
            _addresses.clear()
        _addresses.add(buyer.ip)
    return wrong


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


class Deadlines(dict[int, Timestamp]):
    """Timestamps of one call: the lines of a round mostly share theirs."""

    def __missing__(self, at_ms: int) -> Timestamp:
        made = self[at_ms] = stamp(at_ms)
        return made


def add_results(
    results: Any,
    lines: Sequence[Any],
    commands: Sequence[Reserve],
    refused: dict[int, str],
    answers: Sequence[tuple[Any, ...]],
) -> None:
    """Append the result of every line, in order, to the repeated field `results`."""
    add = results.add
    deadlines = Deadlines()
    if not refused:
        for command, answer in zip(commands, answers, strict=True):
            _add_result(add, command, answer, deadlines)
        return
    decided = zip(commands, answers, strict=True)
    for index, line in enumerate(lines):
        if index in refused:
            add(status=_INVALID, request_id=line.request_id, message=refused[index])
        else:
            _add_result(add, *next(decided), deadlines)


def _add_result(add: Any, command: Reserve, answer: tuple[Any, ...], deadlines: Deadlines) -> None:
    if answer[0] == _RESERVED:
        status, key, list_price, unit_price, payable, currency, deadline_ms, remaining = answer
        add(
            status=status,
            request_id=command[4],
            reservation_id=f"{command[1]:03x}{key.hex()}",
            unit_price_minor=unit_price,
            list_price_minor=list_price,
            payable_minor=payable,
            currency_code=currency,
            deadline_time=deadlines[deadline_ms],
            remaining_count=remaining,
        )
    elif answer[0] == _SOLD_OUT:
        add(
            status=_SOLD_OUT,
            request_id=command[4],
            remaining_count=answer[1],
            alternative_sku_ids=answer[2],
        )
    else:
        _add_other(add, command, answer)


def _add_other(add: Any, command: Reserve, answer: tuple[Any, ...]) -> None:
    status = answer[0]
    result = add(status=status, request_id=command.request_id)
    if status in (_RETRY, _UNKNOWN):
        result.retry_after.CopyFrom(RETRY_AFTER)
    elif status == _INVALID:
        result.message = _PAYABLE_TOO_HIGH
    if len(answer) > 1 and status not in _NOT_LOOKED_UP:
        result.remaining_count = answer[1]


def reserve_response(command: Reserve, answer: tuple[Any, ...]) -> bytes:
    """The bytes of a ReserveResponse or GrabResponse: they have the same fields."""
    response = inventory_service_pb2.ReserveManyResponse()
    _add_result(response.results.add, command, answer, Deadlines())
    return inventory_service_pb2.ReserveResponse(result=response.results[0]).SerializeToString()
