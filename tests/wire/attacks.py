"""What hostile peers send: each attack as the bytes of one connection, after its greeting."""

import gzip
import random
from collections.abc import Iterator
from typing import NamedTuple

from tests.helpers.h2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    HELLO,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_SIZE,
    frame,
    literal,
    message,
    number,
    request,
    request_block,
    reset,
    settings,
    window_update,
)


class Attack(NamedTuple):
    """Bytes to send, and what they may cost."""

    name: str
    data: bytes
    hello: bytes = HELLO
    reads: bool = True
    """Whether the peer takes what it is answered."""
    ends: bool = True
    """Whether the server ends the connection for it. Otherwise it is served on."""
    memory_bytes_max: int = 24 * 1024 * 1024
    cpu_ns_per_byte_max: int = 10_000


NO_WINDOW = HELLO + settings([(WINDOW_SIZE, 0)])
MANY = 20_000


def streams(count: int) -> range:
    """Numbers of that many streams."""
    return range(1, 2 * count, 2)


def floods() -> Iterator[Attack]:
    """Many small frames."""
    opened = request(1, "/test/Hold", None)
    pings = frame(PING, 0, 0, b"12345678") * MANY
    yield Attack("rapid reset", b"".join(request(s) + reset(s) for s in streams(MANY)))
    held = (request(s, "/test/Hold") + reset(s) for s in streams(MANY))
    yield Attack("rapid reset of calls that are held", b"".join(held))
    poured = (request(s, "/test/Pour") + reset(s) for s in streams(MANY))
    room = 48 * 1024 * 1024
    yield Attack("rapid reset of streams", b"".join(poured), memory_bytes_max=room)
    yield Attack("pings", pings)
    yield Attack("pings unread", pings, reads=False)
    yield Attack("settings", settings([(WINDOW_SIZE, 70_000)]) * MANY)
    yield Attack("settings unread", settings() * MANY, reads=False)
    yield Attack("acks of nothing", settings(ack=True) * MANY)
    yield Attack("empty data", opened + frame(DATA, 0, 1) * MANY)
    yield Attack("tiny window updates", opened + window_update(1, 1) * MANY)
    yield Attack("window updates of the connection", window_update(0, 1) * MANY)
    large = window_update(0, 257) * MANY
    yield Attack("window updates that make room", large, ends=False)
    yield Attack("priorities", frame(PRIORITY, 0, 1, bytes(5)) * MANY)
    yield Attack("frames of no known kind", frame(99, 0, 0, b"x") * MANY)
    bad = frame(HEADERS, END_HEADERS | END_STREAM, 0, literal(b"Bad", b"x"))
    bad_calls = (bad[:5] + s.to_bytes(4, "big") + bad[9:] for s in streams(MANY))
    yield Attack("calls with bad headers", b"".join(bad_calls))
    unknown = b"".join(request(s, "/none/" + "x" * 99) for s in streams(MANY))
    yield Attack("calls of nothing", unknown, ends=False)
    late = request(2 * MANY + 1, "/test/Hold") + b"".join(request(s) for s in streams(MANY))
    yield Attack("streams that are too late", late)
    # A caller that has acknowledged the limit of streams and goes beyond it.
    yield Attack("streams", b"".join(request(s, "/test/Hold") for s in streams(5_000)))
    unaware = PREFACE + settings()
    refused = b"".join(request(s, "/test/Hold") for s in streams(MANY))
    yield Attack("streams before the limit is known", refused, unaware, False, False)


def bombs() -> Iterator[Attack]:
    """Little that means much."""
    block = request_block()
    start = frame(HEADERS, 0, 1, block)
    yield Attack("continuations", start + frame(CONTINUATION, 0, 1) * MANY)
    full = frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 90) * 100) * 100
    yield Attack("full continuations", start + full)
    large = frame(CONTINUATION, END_HEADERS, 1, literal(b"x", b"y" * 16_375))
    yield Attack("headers beyond the limit", start + large, ends=False)
    many = literal(b"x", b"y") * 3_000
    yield Attack("many headers", frame(HEADERS, END_HEADERS, 1, block + many))
    entry = literal(b"x", b"y" * 3_900, indexed=True)
    table = entry + number(62, 7, 0x80) * 12_000
    yield Attack("a table that unfolds", frame(HEADERS, END_HEADERS, 1, block + table))
    yield Attack("a table entry that is not there", frame(HEADERS, 5, 1, number(99, 7, 0x80)))
    packed = gzip.compress(bytes(16 * 1024 * 1024))
    head = request_block("/test/Hold", [(b"grpc-encoding", b"gzip")])
    body = message(packed, flag=1)
    for path, held in (("unary", head), ("stream", head.replace(b"Hold", b"Deaf"))):
        data = b"".join(
            frame(HEADERS, END_HEADERS, s, held)
            + b"".join(frame(DATA, 0, s, body[a : a + 16_000]) for a in range(0, len(body), 16_000))
            for s in streams(12)
        )
        room = 160 if path == "unary" else 24
        yield Attack(f"gzip, {path}", data, ends=False, memory_bytes_max=room * 1024 * 1024)
    lie = frame(DATA, 0, 1, message(b"", length=2**32 - 1))
    yield Attack("a huge length", request(1, body=None) + lie, ends=False)
    half = b"".join(
        request(s, "/test/Hold", None)
        + b"".join(frame(DATA, 0, s, message(bytes(16_379), length=900_000)) for _ in range(1))
        + frame(DATA, 0, s, bytes(16_384)) * 40
        for s in streams(200)
    )
    room = 100 * 1024 * 1024
    yield Attack("requests without end", half, ends=False, memory_bytes_max=room)


def unread() -> Iterator[Attack]:
    """Answers that are not taken."""
    room = 96 * 1024 * 1024
    asked = b"".join(request(s, "/test/Big", b"1000000") for s in streams(1_500))
    yield Attack("large answers, no window", asked, NO_WINDOW, ends=False, memory_bytes_max=room)
    yield Attack("large answers, unread", asked, reads=False, ends=False, memory_bytes_max=room)
    small = b"".join(request(s, "/test/Big", b"9000") for s in streams(1_500))
    yield Attack("answers, no window", small, NO_WINDOW, ends=False, memory_bytes_max=room)
    poured = b"".join(request(s, "/test/Pour") for s in streams(600))
    asking = frame(PING, 0, 0, b"12345678") * 900
    yield Attack("streams, no window, and pings", poured + asking, NO_WINDOW, True, False, room)
    drops = b"".join(window_update(s, 300) for s in streams(600)) * 5
    yield Attack("streams that are sipped", poured + drops, NO_WINDOW, True, False, room)


def breaches() -> Iterator[Attack]:
    """What no peer may say; each ends the connection."""
    opened, whole = request(1, "/test/Hold", None), request(1, "/test/Hold")
    deaf = request(1, "/test/Deaf", None)
    noise = random.Random(7).randbytes(100_000)
    tls = bytes.fromhex("1603010200010001fc0303") + noise[:500]
    for name, hello in (
        ("random bytes", noise),
        ("HTTP/1.1", b"POST /test/Echo HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("TLS", tls),
        ("half a preface, then something else", PREFACE[:14] + noise),
        ("no settings after the preface", PREFACE + request(1)),
    ):
        yield Attack(name, b"", hello)
    yield Attack("random bytes after the greeting", noise)
    for name, data in (
        ("data of no stream", frame(DATA, 0, 0, b"x")),
        ("data of a stream that never began", frame(DATA, 0, 9, b"x")),
        ("headers of no stream", frame(HEADERS, 5, 0, request_block())),
        ("a stream of ours", frame(HEADERS, 5, 2, request_block())),
        ("a continuation of nothing", frame(CONTINUATION, 4, 1, request_block())),
        ("a frame between headers", frame(HEADERS, 0, 1, request_block()) + frame(PING)),
        ("a promise", opened + frame(PUSH_PROMISE, 4, 1, bytes(4) + request_block())),
        ("settings of a stream", frame(SETTINGS, 0, 1)),
        ("settings of a wrong size", frame(SETTINGS, 0, 0, b"12345")),
        ("settings of too many", settings([(99, 1)] * 100)),
        ("a window that is too large", settings([(WINDOW_SIZE, 2**31)])),
        ("a ping of a wrong size", frame(PING, 0, 0, b"x")),
        ("a ping of a stream", frame(PING, 0, 1, bytes(8))),
        ("a reset of no stream", frame(RST_STREAM, 0, 0, bytes(4))),
        ("a reset of a stream that never began", reset(7)),
        ("a frame that is too large", frame(DATA, 0, 1, bytes(16_385))),
        ("an update by nothing", window_update(0, 0)),
        ("an update beyond the window", window_update(0, 2**31 - 1)),
        ("padding beyond the frame", opened + frame(DATA, 8, 1, b"\xff")),
        ("more data than the window", deaf + frame(DATA, 0, 1, bytes(16_000)) * 300),
        ("a goodbye", frame(GOAWAY, 0, 0, bytes(8))),
        ("data after the end", whole + frame(DATA, 0, 1, b"x")),
    ):
        yield Attack(name, data)


ATTACKS = [*floods(), *bombs(), *unread(), *breaches()]
