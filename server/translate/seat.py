"""Opening and joining teams: lines to commands, answers to results.

A line that is fine costs one expression, and the answer of a seat that was taken is put together
from the parts that `reserve.py` keeps; see there.
"""

from binascii import hexlify
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from stockray_proto.v1 import common_pb2, group_buy_service_pb2

from actors.core import team_commands as t
from actors.core.commands import DEFAULT_PAYABLE
from actors.core.identity import parse_public_id
from actors.core.outcomes import Outcome
from actors.core.risk_state import SCORE_MAX
from server.translate.reserve import (
    LENGTHS,
    NOT_LOOKED_UP,
    PAYABLE_TOO_HIGH,
    SLOTS,
    LineRefused,
    Parts,
    as_field,
    known_address,
    reserved_bytes,
    tag,
    wish_violations,
)
from server.translate.scalars import SLOT_OF_KEY, advice_of, stamp
from server.validate import CLAIMS_MAX, ID_LENGTH_MAX, LINE_UNITS_MAX, MONEY_MAX_MINOR, Violations

_RESERVED, _INVALID = int(Outcome.RESERVED), int(Outcome.INVALID)
TEAMS_REMEMBERED_MAX = 65_536

_new_join = partial(tuple.__new__, t.JoinTeam)
"""See `reserve.py`."""
NOT_FOUND: tuple[Any, ...] = (Outcome.NOT_FOUND,)


def open_team_command(
    line: group_buy_service_pb2.OpenTeamLine, *, caller: str, deadline_ms: int, prefix: str = ""
) -> t.OpenTeam:
    """OpenTeam. Raises LineRefused."""
    request_id, sku_id, campaign_id = line.request_id, line.sku_id, line.campaign_id
    whole = bool(request_id and sku_id and campaign_id)
    wish = _wish(line, f"{request_id}{sku_id}{campaign_id}", whole)
    if wish is None:
        wrong = Violations(prefix)
        wrong.id("request_id", request_id)
        wrong.id("sku_id", sku_id)
        wrong.id("campaign_id", campaign_id)
        wish_violations(line, wrong)
        if wrong.found:
            raise LineRefused(wrong)
        # Long together, each by itself is fine.
        wish = _fields(line)
    return t.OpenTeam(
        t.OPEN_TEAM,
        SLOT_OF_KEY[campaign_id],
        deadline_ms,
        caller,
        request_id,
        campaign_id,
        sku_id,
        *wish,
    )


def join_team_command(
    line: group_buy_service_pb2.JoinTeamLine, *, caller: str, deadline_ms: int, prefix: str = ""
) -> t.JoinTeam | None:
    """JoinTeam; None for a team id that no shard can know. Raises LineRefused."""
    request_id, team_id = line.request_id, line.team_id
    wish = _wish(line, request_id + team_id, bool(request_id and team_id))
    if wish is None:
        wrong = Violations(prefix)
        wrong.id("request_id", request_id)
        wrong.id("team_id", team_id)
        wish_violations(line, wrong)
        if wrong.found:
            raise LineRefused(wrong)
        wish = _fields(line)
    parsed = _teams[team_id]
    if parsed is None:
        return None
    return _new_join((t.JOIN_TEAM, parsed[0], deadline_ms, caller, request_id, parsed[1], *wish))


def _wish(line: Any, own_ids: str, whole: bool) -> tuple[Any, ...] | None:
    """The fields from `quantity` on that both commands have; None for a line to be looked at."""
    fields = _fields(line)
    quantity, buyer_id, payable, order_id, device_id, ip, claims, share, channel, arm, *_ = fields
    ids = f"{own_ids}{buyer_id}{order_id}{device_id}{share}{channel}{arm}"
    if claims:
        ids += "".join(claims)
    fine = (
        whole
        and buyer_id
        and 0 < quantity <= LINE_UNITS_MAX
        and DEFAULT_PAYABLE <= payable <= MONEY_MAX_MINOR
        and (payable >= 0 or not line.HasField("payable_minor"))
        and len(ids) <= ID_LENGTH_MAX
        and ids.isprintable()
        and " " not in ids
        and (not ip or known_address(ip))
        and (not claims or (all(claims) and len(claims) <= CLAIMS_MAX))
    )
    return fields if fine else None


def _fields(line: Any) -> tuple[Any, ...]:
    buyer, payable = line.buyer, line.payable_minor
    claimed = buyer.claims
    share_code = channel = experiment = ""
    if line.HasField("attribution"):
        way = line.attribution
        share_code, channel, experiment = way.share_code, way.channel, way.experiment
    return (
        line.quantity,
        buyer.buyer_id,
        payable if payable or line.HasField("payable_minor") else DEFAULT_PAYABLE,
        line.order_id,
        buyer.device_id,
        buyer.ip,
        tuple(claimed) if claimed else (),
        share_code,
        channel,
        experiment,
        line.new_buyer,
        SCORE_MAX,
    )


def join_team_commands(
    lines: Iterable[group_buy_service_pb2.JoinTeamLine], *, caller: str, deadline_ms: int
) -> tuple[list[t.JoinTeam], list[bytes | None]]:
    """The commands of the lines that are fine, and for every line the result that needs no shard,
    or None."""
    commands: list[t.JoinTeam] = []
    known: list[bytes | None] = []
    for line in lines:
        try:
            command = join_team_command(line, caller=caller, deadline_ms=deadline_ms)
        except LineRefused as error:
            known.append(_refused(line.request_id, error.violations.message()))
            continue
        if command is None:
            known.append(seat_result(line.request_id, 0, NOT_FOUND))
        else:
            commands.append(command)
            known.append(None)
    return commands, known


def join_team_results(
    known: Sequence[bytes | None],
    commands: Sequence[t.JoinTeam],
    answers: Sequence[tuple[Any, ...]],
) -> bytes:
    """The bytes of a JoinTeamManyResponse: a result for every line, in order."""
    decided = zip(commands, answers, strict=True)
    return b"".join(seat_response(*next(decided)) if result is None else result for result in known)


def seat_response(command: t.OpenTeam | t.JoinTeam, answer: tuple[Any, ...]) -> bytes:
    """The bytes of an OpenTeamResponse or a JoinTeamResponse."""
    return seat_result(command.request_id, command.slot, answer)


def seat_result(request_id: str, slot: int, answer: tuple[Any, ...]) -> bytes:
    """A SeatResult as the field `result` or `results` of its response."""
    if answer[0] != _RESERVED:
        return as_field(_other(request_id, answer).SerializeToString())
    team_id = SLOTS[slot] + hexlify(answer[8])
    return as_field(
        reserved_bytes(request_id, slot, answer)
        + _TEAM
        + LENGTHS[len(team_id)]
        + team_id
        + _team_deadlines[answer[9]]
        + _free_seats[answer[10]]
    )


def _other(request_id: str, answer: tuple[Any, ...]) -> group_buy_service_pb2.SeatResult:
    status: Any = answer[0]
    result = group_buy_service_pb2.SeatResult(status=status, request_id=request_id)
    advice = advice_of(answer)
    if advice is not None:
        result.retry_after.CopyFrom(advice)
    elif status == _INVALID:
        result.message = PAYABLE_TOO_HIGH
    if len(answer) > 1 and status not in NOT_LOOKED_UP:
        result.remaining_count = answer[1]
        result.other_team_ids.extend(answer[2])
    return result


def _refused(request_id: str, message: str) -> bytes:
    result = group_buy_service_pb2.SeatResult(
        status=common_pb2.LINE_STATUS_INVALID, request_id=request_id, message=message
    )
    return as_field(result.SerializeToString())


def _deadline_part(at_ms: int) -> group_buy_service_pb2.SeatResult:
    if not at_ms:
        return group_buy_service_pb2.SeatResult()
    return group_buy_service_pb2.SeatResult(team_deadline_time=stamp(at_ms))


class _TeamIds(dict[str, tuple[int, bytes] | None]):
    """Team id -> (slot, key): many join the same few teams. Forgets all when it is full."""

    def __missing__(self, team_id: str) -> tuple[int, bytes] | None:
        if len(self) >= TEAMS_REMEMBERED_MAX:
            self.clear()
        parsed = self[team_id] = parse_public_id(team_id)
        return parsed


_teams = _TeamIds()
_team_deadlines = Parts(_deadline_part)
_free_seats = Parts(lambda count: group_buy_service_pb2.SeatResult(free_count=count))
_TEAM = tag(group_buy_service_pb2.SeatResult, "team_id")
