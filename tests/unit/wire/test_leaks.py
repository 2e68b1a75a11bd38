"""What is over is forgotten without the garbage collector: a shard decides when that runs."""

import gc
import weakref

import pytest

from tests.helpers.h2_frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    HELLO,
    WINDOW_SIZE,
    frame,
    message,
    request,
    request_block,
    reset,
    settings,
)
from tests.helpers.wire_peers import Bench, Service, turns
from wire.crowd import SMALL, Crowd
from wire.limits import WireLimits
from wire.server import WireServer

HALF = frame(HEADERS, END_HEADERS, 1, request_block("/test/Hold")) + frame(
    DATA, 0, 1, message(b"x" * 99)[:50]
)
LIVES = {
    "no word": b"",
    "a call that was answered": HELLO + request(1),
    "a call that nobody answers": HELLO + request(1, "/test/Hold"),
    "a call that was reset": HELLO + request(1, "/test/Hold") + reset(1),
    "half a request": HELLO + HALF,
    "a stream that nobody reads": HELLO + settings([(WINDOW_SIZE, 0)]) + request(1, "/test/Pour"),
    "a stream that waits": HELLO + request(1, "/test/Chat", None),
    "a breach": HELLO + request(1, "/test/Hold") + frame(DATA, 0, 0, b"x"),
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("said", list(LIVES.values()), ids=list(LIVES))
async def test_a_connection_that_is_lost_is_forgotten_at_once(said: bytes, drained: bool) -> None:
    bench = Bench()
    gc.disable()
    try:
        await bench.say(said)
        if drained:
            bench.connection.drain()
        await turns(20)
        bench.transport.lose()
        await turns(5)
        bench.leaves_nothing()
        left = weakref.ref(bench.connection)
        # A call that a handler keeps knows its connection.
        bench.service.held.clear()
        bench.transport.protocol = None
        del bench
        await turns(5)
        assert left() is None
    finally:
        gc.enable()


async def test_a_large_crowd_is_looked_through_at_a_pace() -> None:
    """Or a peer with thousands of streams makes much work with each tiny frame."""
    bench = Bench(WireLimits())
    await bench.say(HELLO + settings([(WINDOW_SIZE, 0)]))
    await bench.say(b"".join(request(stream, "/test/Deaf") for stream in range(1, 1_001, 2)))
    looked = []
    loop = bench.connection._loop
    crowd = Crowd(loop, lambda: looked.append(loop.time()))
    for call in bench.service.held[:SMALL]:
        crowd.join(call)
    assert all(crowd.may_look(0) for _ in range(100)), "a small one at any time"
    for call in bench.service.held[SMALL:]:
        crowd.join(call)
    crowd._next_s = loop.time() + 0.01
    assert not any(crowd.may_look(0) for _ in range(100))
    while not looked:
        await bench.say(b"")
    assert crowd.may_look(0)
    assert len(looked) == 1
    crowd.clear()
    bench.transport.lose()


async def test_answers_that_wait_on_all_connections_together_are_bounded() -> None:
    """The connection that holds most is closed, and the others are not."""
    service = Service()
    server = WireServer(service.routes.get, limits=WireLimits(outbound_total_bytes_max=1_000_000))
    benches = [Bench(server=server) for _ in range(3)]
    for count, bench in enumerate(benches, 1):
        await bench.say(HELLO + settings([(WINDOW_SIZE, 0)]))
        for stream in range(1, 2 * count, 2):
            await bench.say(request(stream, "/test/Big", b"300000"))
    server._limit_answers()
    await turns()
    assert [bench.transport.lost for bench in benches] == [False, False, True]
