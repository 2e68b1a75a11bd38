"""HTTP/2 by hand, for peers that no library would let one be: frames as bytes, and read back.

Header blocks are written as literals without Huffman coding and without the table, so that a block
means the same wherever it stands.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4
HEADER_TABLE_SIZE, CONCURRENT_STREAMS, WINDOW_SIZE, FRAME_SIZE = 1, 3, 4, 5


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame as bytes; nothing is checked."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def settings(values: Iterable[tuple[int, int]] = (), *, ack: bool = False) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values)
    return frame(SETTINGS, ACK if ack else 0, 0, payload)


HELLO = PREFACE + settings() + settings(ack=True)
"""What a peer says first, if it takes the server's settings unseen."""


def number(value: int, bits: int, first: int = 0) -> bytes:
    """An integer of HPACK, in a prefix of `bits`."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    out = bytearray((first | most,))
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """A header as a literal; an `indexed` one enters the table."""
    first = b"\x40" if indexed else b"\x00"
    return first + number(len(name), 7) + name + number(len(value), 7) + value


def request_block(
    path: str = "/test/Echo",
    extra: Iterable[tuple[bytes, bytes]] = (),
    *,
    method: bytes = b"POST",
    content_type: bytes = b"application/grpc",
) -> bytes:
    """The header block of a call."""
    pairs = [
        (b":method", method),
        (b":scheme", b"http"),
        (b":path", path.encode()),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", content_type),
        *extra,
    ]
    return b"".join(literal(name, value) for name, value in pairs)


def message(body: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message; `length` may lie."""
    size = len(body) if length is None else length
    return bytes((flag,)) + size.to_bytes(4, "big") + body


def request(stream: int, path: str = "/test/Echo", body: bytes | None = b"hi") -> bytes:
    """A whole unary call; with `body` None only its headers."""
    head = frame(HEADERS, END_HEADERS, stream, request_block(path))
    if body is None:
        return head
    return head + frame(DATA, END_STREAM, stream, message(body))


def reset(stream: int, code: int = 8) -> bytes:
    """A RST_STREAM frame, of CANCEL unless told."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def window_update(stream: int, by: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, by.to_bytes(4, "big"))


def frames_in(data: bytes) -> Iterator[Frame]:
    """The whole frames at the head of some bytes."""
    at = 0
    while len(data) - at >= 9:
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        if len(data) < end:
            return
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        yield Frame(data[at + 3], data[at + 4], stream, data[at + 9 : end])
        at = end


def goaway_of(data: bytes) -> tuple[int, int] | None:
    """(last stream, error code) of the last GOAWAY, None without one."""
    found = None
    for each in frames_in(data):
        if each.kind == GOAWAY:
            last = int.from_bytes(each.payload[:4], "big") & 0x7FFFFFFF
            found = last, int.from_bytes(each.payload[4:8], "big")
    return found
