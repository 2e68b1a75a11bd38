"""What the load generator sends and what it takes for an answer, without building a message.

Rules
-----
* Ids have a fixed width, so a request is a template into which two numbers are written: no object
  per call. Every call has a request id and a buyer that no other call of the run has.
* Of an answer only the status and the id are read, at the places where every serializer puts them
  (fields in order of their numbers). Whatever looks different is parsed in full, never guessed at.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

from google.protobuf.message import DecodeError
from stockray_proto.v1 import common_pb2, group_buy_service_pb2, seckill_service_pb2

GRAB_PATH = "/stockray.v1.SeckillService/Grab"
JOIN_PATH = "/stockray.v1.GroupBuyService/JoinTeam"
ECHO_PATH = "/floor.Echo/Echo"
DIGITS = 12
TEAM_ID_LENGTH = 35
RESERVED = common_pb2.LINE_STATUS_RESERVED
MALFORMED, WRONG_ID, ECHOED = -1, -2, -3
"""In place of a LineStatus: not to be read; of another request than the one that was sent; an echo
of what was sent."""
_ACK_BLOCK = 65_536


class Calls(Protocol):
    """One kind of call: requests by number, answers to statuses."""

    path: str

    def request(self, number: int) -> bytes:
        """A gRPC frame with the request of this number."""

    def read(self, number: int, frame: bytes) -> int:
        """The status in the answer to this number: a LineStatus, MALFORMED or WRONG_ID."""


class EchoCalls:
    """An echo of the bytes that a `Grab` is, checked to be the ones sent."""

    path = ECHO_PATH

    def __init__(self, prefix: str, *, campaign_id: str, sku_id: str) -> None:
        self._template = grab_template(prefix, campaign_id=campaign_id, sku_id=sku_id)

    def request(self, number: int) -> bytes:
        """See `Calls`."""
        return self._template % (number, number)

    def read(self, number: int, frame: bytes) -> int:
        """See `Calls`."""
        return ECHOED if frame == self._template % (number, number) else WRONG_ID


class GrabCalls:
    """`Grab` of one unit, each by a buyer of its own; remembers which numbers were reserved."""

    path = GRAB_PATH
    response: ClassVar[
        type[seckill_service_pb2.GrabResponse | group_buy_service_pb2.JoinTeamResponse]
    ] = seckill_service_pb2.GrabResponse

    def __init__(self, prefix: str, *, campaign_id: str, sku_id: str) -> None:
        self._prefix = request_prefix(prefix)
        self._id_bytes = len(self._prefix) + DIGITS
        self._template = self._make_template(prefix, campaign_id, sku_id)
        self._acked = bytearray(_ACK_BLOCK)

    def request(self, number: int) -> bytes:
        """See `Calls`."""
        return self._template % (number, number)

    def read(self, number: int, frame: bytes) -> int:
        """See `Calls`."""
        # flag, length (4), 0x0a, length of the result (1 or 2), 0x08, status, 0x12, length, id.
        try:
            at = 7 if frame[6] < 128 else 8
            quick = (
                frame[5] == 0x0A
                and frame[at] == 0x08
                and frame[at + 1] < 128
                and frame[at + 2] == 0x12
                and frame[at + 3] == self._id_bytes
                and frame[0] == 0
                and int.from_bytes(frame[1:5], "big") == len(frame) - 5
            )
        except IndexError:
            quick = False
        if not quick:
            return self._read_slowly(number, frame)
        found = frame[at + 4 : at + 4 + self._id_bytes]
        return self._judge(number, frame[at + 1], found)

    def _make_template(self, prefix: str, campaign_id: str, sku_id: str) -> bytes:
        return grab_template(prefix, campaign_id=campaign_id, sku_id=sku_id)

    def _read_slowly(self, number: int, frame: bytes) -> int:
        if len(frame) < 5 or frame[0] or int.from_bytes(frame[1:5], "big") != len(frame) - 5:
            return MALFORMED
        try:
            result = self.response.FromString(frame[5:]).result
        except DecodeError:
            return MALFORMED
        return self._judge(number, result.status, result.request_id.encode())

    def _judge(self, number: int, status: int, request_id: bytes) -> int:
        if request_id != self._prefix + b"%012d" % number:
            return WRONG_ID
        if status == RESERVED:
            if number >= len(self._acked):
                self._acked.extend(bytes(number - len(self._acked) + _ACK_BLOCK))
            self._acked[number] = 1
        return status

    def reserved_runs(self) -> list[tuple[int, int]]:
        """The numbers that were reserved, as runs (first, after the last)."""
        runs: list[tuple[int, int]] = []
        at = self._acked.find(1)
        while at >= 0:
            end = self._acked.find(0, at)
            end = len(self._acked) if end < 0 else end
            runs.append((at, end))
            at = self._acked.find(1, end)
        return runs


class JoinCalls(GrabCalls):
    """`JoinTeam` of one unit, each by a buyer of its own, into one team after the other, for ever:
    there must be seats enough."""

    path = JOIN_PATH
    response = group_buy_service_pb2.JoinTeamResponse

    def __init__(self, prefix: str, *, team_ids: Sequence[str]) -> None:
        super().__init__(prefix, campaign_id="", sku_id="")
        self._team_ids = [team_id.encode() for team_id in team_ids]
        if not self._team_ids or any(len(one) != TEAM_ID_LENGTH for one in self._team_ids):
            raise ValueError(f"team_ids: one or more, of {TEAM_ID_LENGTH} characters each")

    def request(self, number: int) -> bytes:
        """See `Calls`."""
        team_id = self._team_ids[number % len(self._team_ids)]
        return self._template % (number, team_id, number)

    def _make_template(self, prefix: str, campaign_id: str, sku_id: str) -> bytes:
        return join_template(prefix)


def request_prefix(prefix: str) -> bytes:
    """What all request ids of one generator begin with; `DIGITS` digits follow."""
    return f"{prefix}-".encode()


def request_ids(prefix: str, runs: list[tuple[int, int]]) -> Iterator[str]:
    """The request ids of runs of numbers."""
    name = request_prefix(prefix).decode()
    for first, end in runs:
        for number in range(first, end):
            yield f"{name}{number:0{DIGITS}}"


def grab_template(prefix: str, *, campaign_id: str, sku_id: str) -> bytes:
    """A gRPC frame with a `GrabRequest`, to be filled by `% (number, number)`: one for the request
    id, one for the buyer."""
    name = request_prefix(prefix).decode()
    digits = "#" * DIGITS
    message = seckill_service_pb2.GrabRequest(
        line=seckill_service_pb2.GrabLine(
            request_id=f"{name}{digits}",
            campaign_id=campaign_id,
            sku_id=sku_id,
            quantity=1,
            buyer=common_pb2.BuyerContext(buyer_id=f"{name}{digits}"),
        )
    ).SerializeToString()
    return _filled_by_numbers(message)


def join_template(prefix: str) -> bytes:
    """The same with a `JoinTeamRequest`, to be filled by `% (number, team id, number)`."""
    name = request_prefix(prefix).decode()
    digits, team = "#" * DIGITS, "@" * TEAM_ID_LENGTH
    message = group_buy_service_pb2.JoinTeamRequest(
        line=group_buy_service_pb2.JoinTeamLine(
            request_id=f"{name}{digits}",
            team_id=team,
            quantity=1,
            buyer=common_pb2.BuyerContext(buyer_id=f"{name}{digits}"),
        )
    ).SerializeToString()
    return _filled_by_numbers(message).replace(team.encode(), b"%b")


def _filled_by_numbers(message: bytes) -> bytes:
    frame = b"\x00" + len(message).to_bytes(4, "big") + message
    # "%" may stand in the frame: in an id, or as a length of 37.
    return frame.replace(b"%", b"%%").replace(b"#" * DIGITS, b"%012d")
