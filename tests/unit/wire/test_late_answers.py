"""What one peer does to its own call, in one read, costs its other calls nothing.

nghttp2 reads all frames of a read before anybody answers the first: by then the call may be reset.
No library does this on purpose; a call that is cancelled quickly does it every day.
"""

import pytest

from tests.helpers.h2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    HELLO,
    PING,
    frame,
    goaway_of,
    message,
    request_block,
    reset,
    window_update,
)
from tests.helpers.wire_peers import Bench
from wire.framing import frame_gzip

QUESTION = b"alive?!?"
FLOW_CONTROL_ERROR = 3
PATHS = ["/test/Echo", "/test/Chat", "/test/Nowhere"]


async def is_alive_after(*pieces: bytes) -> bool:
    """Whether a new connection answers a PING at the end of each of the pieces."""
    bench = Bench()
    await bench.say(HELLO)
    answer = frame(PING, ACK, 0, QUESTION)
    return all([answer in await bench.say(each + frame(PING, 0, 0, QUESTION)) for each in pieces])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("code", [8, 0xFF])
async def test_a_call_reset_in_the_read_that_began_it_leaves_the_connection(
    path: str, code: int
) -> None:
    """Whatever of it has come, and by a code that nobody knows, too."""
    begun = frame(HEADERS, END_HEADERS, 1, request_block(path))
    ended = frame(HEADERS, END_HEADERS | END_STREAM, 1, request_block(path))
    part = frame(DATA, 0, 1, message(b"x" * 9_000)[:5_000])
    whole = frame(DATA, END_STREAM, 1, message(b"hi"))
    over = reset(1, code)
    for pieces in (
        [begun + over],
        [ended + over],
        [begun + part + over],
        [begun + whole + over],
        [begun, part + over],
        [begun + over + part],
    ):
        assert await is_alive_after(*pieces), pieces


@pytest.mark.parametrize("flags", [END_HEADERS, END_HEADERS | END_STREAM])
@pytest.mark.parametrize(
    "block",
    [
        request_block(method=b"GET"),
        request_block(content_type=b"text/html"),
        request_block(extra=[(b"grpc-timeout", b"soon")]),
        request_block(extra=[(b"grpc-encoding", b"zip")]),
    ],
)
async def test_a_reset_request_that_would_be_refused_leaves_the_connection(
    block: bytes, flags: int
) -> None:
    assert await is_alive_after(frame(HEADERS, flags, 1, block) + reset(1))


@pytest.mark.parametrize("path", PATHS)
async def test_a_window_that_overflows_ends_the_connection_with_its_reason(path: str) -> None:
    bench = Bench()
    await bench.say(HELLO)
    begun = frame(HEADERS, END_HEADERS, 1, request_block(path))
    answer = await bench.say(begun + window_update(1, 2**31 - 1))
    ended = goaway_of(answer)
    assert ended is not None
    assert ended[1] == FLOW_CONTROL_ERROR


async def test_a_stream_that_did_not_begin_compressed_stays_uncompressed() -> None:
    """Its headers named no encoding, so its caller could not unpack what came later."""
    bench = Bench()
    await bench.say(HELLO)
    block = request_block("/test/Deaf", [(b"grpc-accept-encoding", b"gzip")])
    await bench.say(frame(HEADERS, END_HEADERS, 1, block))
    (call,) = bench.service.held
    await call.send(b"first", compress=False)
    await call.send(b"second", compress=True)
    answer = await bench.say(b"")
    assert message(b"second") in answer
    assert frame_gzip(b"second") not in answer
