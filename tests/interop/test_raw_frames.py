"""What one peer does to its own call, in one segment, costs its other calls nothing.

A library reads all frames of a segment before anybody answers the first: by then the call may be
reset. No client of another language does this on purpose; a cancelled call does it every day.
"""

from collections.abc import Iterator

import pytest

from tests.interop import raw_frames as raw
from tests.interop.serving import interop_server

FLOW_CONTROL_ERROR = 3
OVERFLOW = 2**31 - 1
UNARY = "/grpc.testing.TestService/EmptyCall"
STREAMING = "/grpc.testing.TestService/StreamingInputCall"
NOWHERE = "/grpc.testing.Nothing/Call"
CANCEL = raw.number(raw.RST_STREAM, raw.CANCEL)
UNKNOWN_RESET = raw.number(raw.RST_STREAM, 0xFF)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with interop_server("nghttp2") as port:
        yield port


@pytest.mark.parametrize("path", [UNARY, STREAMING, NOWHERE])
@pytest.mark.parametrize("reset", [CANCEL, UNKNOWN_RESET], ids=["cancel", "unknown-code"])
async def test_a_call_reset_in_the_same_segment_leaves_the_connection(
    port: int, path: str, reset: bytes
) -> None:
    begun, ended = raw.headers(path, ended=False), raw.headers(path, ended=True)
    some, whole = raw.message(9_000, ended=False), raw.message(0, ended=True)
    for pieces in (
        [begun + reset],
        [ended + reset],
        [begun + some + reset],
        [begun + whole + reset],
        [begun, some + reset],
        [begun + reset + some],
    ):
        assert await raw.is_alive_after(port, *pieces), pieces


@pytest.mark.parametrize("ended", [True, False])
async def test_a_reset_request_that_is_no_grpc_leaves_the_connection(
    port: int, ended: bool
) -> None:
    request = raw.headers("/", ended=ended, method="GET")
    assert await raw.is_alive_after(port, request + CANCEL)


async def test_a_reset_call_with_a_bad_deadline_leaves_the_connection(port: int) -> None:
    assert await raw.is_alive_after(port, raw.headers(UNARY, ended=True, timeout="soon") + CANCEL)


@pytest.mark.parametrize("path", [UNARY, STREAMING, NOWHERE])
async def test_a_window_that_overflows_ends_the_connection_with_its_reason(
    port: int, path: str
) -> None:
    for ended in (True, False):
        pieces = raw.headers(path, ended=ended) + raw.number(raw.WINDOW_UPDATE, OVERFLOW)
        assert await raw.last_words_after(port, pieces) == FLOW_CONTROL_ERROR
