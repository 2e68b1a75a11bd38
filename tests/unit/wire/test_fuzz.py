"""Whatever bytes come, in whatever pieces: no exception leaves a connection, every handler is told,
and nothing is left.

`FUZZ_EXAMPLES=200000 pytest tests/unit/wire/test_fuzz.py --timeout 0` runs for hours; without it, a
sample of some seconds. Streams are made of what a stock client says (recorded from it), with bytes
changed, left out and doubled, and of frames, right and wrong, in any order.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import h2_frames as h2
from tests.helpers.wire_peers import Bench, turns
from wire.limits import WireLimits

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))
RECORDED = Path(__file__).parents[2] / "fixtures" / "grpcio_client.bin"
LIMITS = WireLimits(streams_max=20, message_bytes_max=50_000, upload_bytes_max=100_000)

PATHS = ["Echo", "Hold", "Chat", "Deaf", "Pour", "Big", "None"]
stream_ids = st.one_of(st.sampled_from([1, 3, 5, 7, 9]), st.integers(0, 2**31 - 1))
bodies = st.one_of(
    st.binary(max_size=40),
    st.builds(h2.message, st.binary(max_size=40), flag=st.sampled_from([0, 0, 0, 1, 2])),
    st.builds(h2.message, st.just(b"x"), length=st.integers(0, 2**32 - 1)),
    st.just(h2.message(b"2000")),
)
headers = st.one_of(
    st.builds(
        h2.request_block,
        st.sampled_from([f"/test/{path}" for path in PATHS]),
        st.lists(
            st.tuples(
                st.sampled_from([b"grpc-timeout", b"grpc-encoding", b"x-bin", b"te", b"a", b":x"]),
                st.sampled_from([b"1m", b"0n", b"gzip", b"YQ", b"!", b"", b"\xff"]),
            ),
            max_size=3,
        ),
        method=st.sampled_from([b"POST", b"POST", b"POST", b"GET"]),
        content_type=st.sampled_from([b"application/grpc", b"application/grpc", b"text/html"]),
    ),
    st.binary(max_size=60),
)
frames = st.one_of(
    st.builds(h2.frame, st.just(h2.HEADERS), st.sampled_from([4, 5, 0, 1]), stream_ids, headers),
    st.builds(h2.frame, st.just(h2.DATA), st.sampled_from([0, 1, 8]), stream_ids, bodies),
    st.builds(h2.request, stream_ids, st.sampled_from([f"/test/{path}" for path in PATHS])),
    st.builds(h2.reset, stream_ids, st.integers(0, 15)),
    st.builds(
        h2.window_update,
        st.one_of(st.just(0), stream_ids),
        st.one_of(st.just(0), st.integers(1, 100_000), st.just(2**31 - 1)),
    ),
    st.builds(
        h2.settings,
        st.lists(
            st.tuples(st.integers(0, 10), st.one_of(st.integers(0, 2), st.integers(0, 2**32 - 1))),
            max_size=3,
        ),
        ack=st.booleans(),
    ),
    st.builds(
        h2.frame, st.integers(0, 12), st.integers(0, 255), stream_ids, st.binary(max_size=30)
    ),
    st.builds(h2.frame, st.just(h2.PING), st.integers(0, 1), st.just(0), st.just(b"12345678")),
    st.builds(h2.frame, st.just(h2.CONTINUATION), st.sampled_from([0, 4]), stream_ids, headers),
)
pieces = st.lists(st.integers(1, 300), min_size=1, max_size=10)
acts = st.lists(st.sampled_from(["fill", "drain", "look", "late", "turn"]), max_size=12)


def run(said: bytes, sizes: list[int], between: list[str]) -> None:
    """Say it to a connection in pieces, with things that happen in between."""
    asyncio.run(_run(said, sizes, between))


async def _run(said: bytes, sizes: list[int], between: list[str]) -> None:
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: failures.append(context))
    bench = Bench(LIMITS)
    now, at, turn = bench.connection.opened_at, 0, 0
    while at < len(said) and not bench.transport.closing:
        size = sizes[turn % len(sizes)]
        bench.connection.data_received(said[at : at + size])
        at, turn = at + size, turn + 1
        act = between[turn % len(between)] if between else ""
        if act == "look":
            now += 7
            bench.connection.look(now, 7.0)
        elif act == "turn":
            await turns(2)
        elif act == "late":
            for call in bench.service.held:
                call.reply(b"late", compress=True)
        elif act:
            getattr(bench.transport, act)()
    await turns(5)
    bench.transport.lose()
    await turns(5)
    bench.leaves_nothing()
    assert not failures
    assert bench.service.ended <= bench.service.begun
    # `Hold` is told, or was answered; the streaming handlers are over.
    assert all(call.closed and call.task is None for call in bench.service.held)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@settings(max_examples=EXAMPLES)
@given(st.lists(frames, max_size=25), st.booleans(), pieces, acts)
def test_frames_in_any_order_are_survived(
    said: list[bytes], greets: bool, sizes: list[int], between: list[str]
) -> None:
    run((h2.HELLO if greets else h2.PREFACE) + b"".join(said), sizes, between)


@settings(max_examples=EXAMPLES)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(["flip", "cut", "double"]), st.integers(1, 255)),
        max_size=8,
    ),
    pieces,
    acts,
)
def test_what_a_stock_client_says_is_survived_with_bytes_changed(
    changes: list[tuple[float, str, int]], sizes: list[int], between: list[str]
) -> None:
    said = bytearray(RECORDED.read_bytes())
    for where, what, by in changes:
        if not said:
            break
        at = int(where * (len(said) - 1))
        if what == "flip":
            said[at] ^= by
        elif what == "cut":
            del said[at : at + by]
        else:
            said[at:at] = said[at : at + by]
    run(bytes(said), sizes, between)


def test_what_a_stock_client_says_is_served() -> None:
    """The recording is one that a server of ours answers, or changing it would prove little."""

    async def serve() -> int:
        bench = Bench()
        await bench.say(RECORDED.read_bytes())
        await turns(20)
        return bench.server.counters.calls.succeeded

    assert asyncio.run(serve()) >= 3


@settings(max_examples=max(20, EXAMPLES // 10))
@given(st.binary(max_size=500), pieces)
def test_any_bytes_are_survived(said: bytes, sizes: list[int]) -> None:
    run(said, sizes, [])
    run(h2.HELLO + said, sizes, [])


@pytest.mark.parametrize("size", [1, 9, 24])
def test_a_recording_is_survived_in_tiny_pieces(size: int) -> None:
    run(RECORDED.read_bytes(), [size], ["turn"])
