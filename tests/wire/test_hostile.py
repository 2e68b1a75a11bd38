"""Hostile peers: each is bounded in memory and in work, leaves nothing, and others are served."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.helpers.h2_frames import PING, frame
from tests.helpers.wire_peers import RawPeer
from tests.helpers.wire_serving import Serving
from tests.wire.attacks import ATTACKS, Attack
from wire.client import WireClient

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMITS = {
    # So wide that peers need not wait for room: what is tested does not depend on it.
    "stream_window_bytes": 2**21,
    "connection_window_bytes": 2**30,
}
"""The limits of time are the usual ones: a slow machine says these bytes slowly."""
LOG_BYTES_MAX = 30_000
SETTLED_CALLS = 20
TURNS_TO_READ = 400
"""Calls that are served while what an unread peer sent is surely read."""
TIME_S_MAX = 20
BARRIER = b"all read"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """One process for all attacks, so that what one leaves is seen in the next."""
    child = await Serving.start(LIMITS, tmp_path_factory.mktemp("log") / "log.txt")
    yield child
    logged = await child.stop()
    assert len(logged) < LOG_BYTES_MAX, "peers can fill the log"
    assert "Traceback" not in logged


async def settle(serving: Serving) -> dict[str, int]:
    """Wait until the attackers' connections are over. The test's time limit is the limit."""
    while (numbers := await serving.numbers())["connections"] > 1:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return numbers


async def send(attack: Attack, peer: RawPeer) -> None:
    """Say it all, taking what comes back or not."""
    data = attack.hello + attack.data
    if not attack.reads:
        # What the server does not read any more cannot be sent.
        await asyncio.wait([asyncio.ensure_future(peer.say(data))], timeout=1)
        return
    if attack.ends:
        taking = asyncio.ensure_future(peer.read_to_end())
        await peer.say(data)
        await taking
        return
    taking = asyncio.ensure_future(peer.read_until(BARRIER))
    await peer.say(data + frame(PING, 0, 0, BARRIER))
    assert await taking, "the server ended the connection"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_a_hostile_peer_is_bounded_and_others_are_served(
    serving: Serving, attack: Attack
) -> None:
    other = await WireClient.connect_tcp("127.0.0.1", serving.port)
    peer = await RawPeer.connect(serving.port)
    try:
        await withstand(serving, attack, peer, other)
    finally:
        peer.abort()
        other.close()
    numbers = await settle(serving)
    assert (numbers["calls_open"], numbers["upload_bytes"]) == (1, 0)


async def withstand(serving: Serving, attack: Attack, peer: RawPeer, other: WireClient) -> None:
    """One attack, while calls of another connection are answered."""
    await other.call("/test/Echo", b"before")
    memory, cpu_s = serving.memory_bytes(), serving.cpu_s()
    serving.forget_peak()
    sending = asyncio.ensure_future(send(attack, peer))
    served, least = 0, SETTLED_CALLS if attack.reads else TURNS_TO_READ
    async with asyncio.timeout(TIME_S_MAX):
        while not sending.done() or served < least:
            assert await other.call("/test/Echo", b"meanwhile") == b"meanwhile"
            served += 1
        await sending
    more, cost_s = serving.memory_peak_bytes() - memory, serving.cpu_s() - cpu_s
    sent = len(attack.hello + attack.data)
    print(f"{attack.name}: {sent} bytes, {more / 1e6:.1f} MB, {cost_s:.2f} s, {served} served")
    assert more < attack.memory_bytes_max
    # A call that is served costs something too.
    assert cost_s - served * 500e-6 - 0.1 < sent * attack.cpu_ns_per_byte_max * 1e-9
