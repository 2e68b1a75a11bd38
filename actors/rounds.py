"""What travels between a gateway and a shard: a round of lines, and its answers.

Both are msgpack arrays. Lines are packed one by one by whoever has them, so that a round is cut by
bytes and resent without packing anything twice. Formats carry a version; a shard answers a round of
an unknown version MALFORMED and changes nothing.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack

ROUND_FORMAT = 1
ARRAY_SHORT_MAX, ARRAY_MEDIUM_MAX = 15, 65_535
"""Elements of a msgpack array whose head is one byte, and three; five of all others."""


class RoundStatus(IntEnum):
    """What became of a round as a whole."""

    OK = 1
    NOT_PRIMARY = 2
    """Nothing was decided; `epoch` and `owner` say who the shard believes owns the journal."""
    BUSY = 3
    """Nothing was decided: the shard's queue is full."""
    MALFORMED = 4
    HALTED = 5
    """Nothing was decided, and nothing will be until an operator has acted."""


class Round(NamedTuple):
    """A gateway's round. An empty one drives time and asks who is primary."""

    gateway: str
    sent_ms: int
    map_version: int
    wants_chores: bool
    lines: Sequence[tuple[Any, ...]]


class Answers(NamedTuple):
    """A shard's answer: one tuple per line, dense and in order, if the status is OK."""

    status: RoundStatus
    epoch: int
    owner: str
    token: str
    answers: Sequence[tuple[Any, ...]]
    chores: Sequence[tuple[Any, ...]]
    last_seq: int = 0
    """Of the last entry that is known to be durable; 0 from who does not know. Whoever takes over
    later must find a journal that reaches as far."""


class MalformedRound(Exception):
    """The bytes are no round of a version this release knows."""


_packer = msgpack.Packer()
"""One for all: a packer brings a buffer of its own, and a call of it runs to its end under the
interpreter's lock. 0.33 us a command, where `msgpack.packb` takes 0.49."""


def pack_line(command: Any) -> bytes:
    """One command as it travels."""
    packed: bytes = _packer.pack(command)
    return packed


def pack_lines(commands: Sequence[Any]) -> bytes:
    """What `pack_line` makes of each, joined."""
    packed: bytes = _packer.pack(commands)
    return packed[len(_array_head(len(commands))) :]


def pack_round(
    *,
    gateway: str,
    sent_ms: int,
    map_version: int,
    lines: Sequence[bytes],
    count: int | None = None,
    wants_chores: bool = False,
) -> bytes:
    """A round of lines that were packed by `pack_line`, or by `pack_lines`: then `count` says how
    many they are."""
    head = _packer.pack((ROUND_FORMAT, gateway, sent_ms, map_version, wants_chores, ()))
    # The empty array at its end, one byte, makes room for the one of the lines.
    return b"".join((head[:-1], _array_head(len(lines) if count is None else count), *lines))


def _array_head(count: int) -> bytes:
    if count <= ARRAY_SHORT_MAX:
        return bytes((0x90 | count,))
    if count <= ARRAY_MEDIUM_MAX:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def unpack_round(data: bytes) -> Round:
    """The round. Raises MalformedRound."""
    try:
        version, *fields = msgpack.unpackb(data, use_list=False, strict_map_key=False)
        if version != ROUND_FORMAT:
            raise MalformedRound(f"round format {version}, not {ROUND_FORMAT}")
        round_ = Round(*fields)
        if not isinstance(round_.sent_ms, int) or not isinstance(round_.lines, tuple):
            raise MalformedRound("not a round: its fields are of other types")
        return round_
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MalformedRound(f"not a round: {error}") from error


def pack_answers(answers: Answers) -> bytes:
    """The answer to a round."""
    packed: bytes = msgpack.packb((ROUND_FORMAT, *answers))
    return packed


def unpack_answers(data: bytes) -> Answers:
    """The answer. Raises MalformedRound."""
    try:
        version, status, *rest = msgpack.unpackb(data, use_list=False, strict_map_key=False)
        if version != ROUND_FORMAT:
            raise MalformedRound(f"answer format {version}, not {ROUND_FORMAT}")
        return Answers(RoundStatus(status), *rest)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MalformedRound(f"not an answer: {error}") from error
