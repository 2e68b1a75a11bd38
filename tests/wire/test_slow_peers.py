"""Peers that are silent, slow or many: what they hold is bounded, and they are closed in time."""

import asyncio
from pathlib import Path

import pytest

from tests.helpers.h2_frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    HELLO,
    PREFACE,
    frame,
    message,
    request,
    request_block,
    settings,
)
from tests.helpers.wire_peers import RawPeer
from tests.helpers.wire_serving import Serving
from wire.client import WireClient

QUICK = {
    "handshake_ms": 1_000,
    "upload_stall_ms": 1_000,
    "upload_ms": 3_000,
    "keepalive_ms": 1_000,
    "keepalive_timeout_ms": 1_000,
    "idle_ms": 2_000,
    "age_grace_ms": 1_000,
}
MANY = 1_500
IDLE_BYTES_MAX = 50_000
BURST_OF_LINES = 40
"""What a listener may log at once, and a while after."""

HALF_CALL = frame(HEADERS, END_HEADERS, 1, request_block("/test/Hold"))
SILENT = {
    "nothing": b"",
    "half a preface": PREFACE[:9],
    "a preface": PREFACE,
    "a greeting": HELLO,
    "half a frame": HELLO + HALF_CALL[:30],
    "headers without an end": HELLO + frame(HEADERS, 0, 1, request_block()),
    "half a request": HELLO + HALF_CALL + frame(DATA, 0, 1, message(b"x" * 99)[:50]),
    "half a message of a stream": HELLO
    + HALF_CALL.replace(b"Hold", b"Deaf")
    + frame(DATA, 0, 1, message(b"x" * 99)[:50]),
}


@pytest.mark.parametrize("said", list(SILENT.values()), ids=list(SILENT))
async def test_a_peer_that_falls_silent_is_closed_and_leaves_nothing(
    said: bytes, tmp_path: Path
) -> None:
    serving = await Serving.start(QUICK, tmp_path / "log")
    peers = [await RawPeer.connect(serving.port) for _ in range(50)]
    for peer in peers:
        await peer.say(said)
    client = await WireClient.connect_tcp("127.0.0.1", serving.port)
    closing = asyncio.gather(*(peer.read_to_end() for peer in peers))
    while not closing.done():
        assert await client.call("/test/Echo", b"on") == b"on"
        await asyncio.sleep(0.01)
    client.close()
    numbers = await serving.numbers()
    assert (numbers["calls_open"], numbers["upload_bytes"]) == (1, 0)
    logged = await serving.stop()
    assert "Traceback" not in logged
    assert len(logged.splitlines()) < BURST_OF_LINES


@pytest.mark.parametrize("part", ["preface", "headers", "body"])
async def test_a_byte_at_a_time_is_not_enough(part: str, tmp_path: Path) -> None:
    serving = await Serving.start(QUICK, tmp_path / "log")
    peer = await RawPeer.connect(serving.port)
    at_once, slowly = {
        "preface": (b"", PREFACE),
        "headers": (HELLO, HALF_CALL),
        "body": (HELLO + HALF_CALL, frame(DATA, 0, 1, message(b"x" * 200))),
    }[part]
    await peer.say(at_once)
    ended = asyncio.ensure_future(
        peer.read_until(frame(HEADERS, 5, 1)[3:9]) if part == "body" else peer.read_to_end()
    )
    for byte in slowly:
        if ended.done():
            break
        await peer.say(bytes((byte,)))
        await asyncio.sleep(0.1)
    assert ended.done(), "all of it was waited for"
    peer.abort()
    await serving.stop()


async def test_thousands_of_idle_connections_cost_little_and_others_are_served(
    tmp_path: Path,
) -> None:
    serving = await Serving.start({}, tmp_path / "log")
    client = await WireClient.connect_tcp("127.0.0.1", serving.port)
    await client.call("/test/Echo", b"")
    before = serving.memory_bytes()
    peers = [await RawPeer.connect(serving.port) for _ in range(MANY)]
    for peer in peers:
        await peer.say(HELLO + request(1))
    for peer in peers:
        assert await peer.read_until(b"hi")
    assert await client.call("/test/Echo", b"on") == b"on"
    each = (serving.memory_bytes() - before) / MANY
    print(f"{each:.0f} bytes for each idle connection")
    assert each < IDLE_BYTES_MAX
    for peer in peers:
        peer.abort()
    while (await serving.numbers())["connections"] > 2:  # noqa: ASYNC110 - another process.
        await asyncio.sleep(0.05)
    client.close()
    await serving.stop()


async def test_connections_beyond_the_limit_are_turned_away(tmp_path: Path) -> None:
    serving = await Serving.start({"connections_max": 5}, tmp_path / "log")
    client = await WireClient.connect_tcp("127.0.0.1", serving.port)
    peers = [await RawPeer.connect(serving.port) for _ in range(200)]
    for peer in peers:
        await peer.say(HELLO)
    for peer in peers[4:]:
        await peer.read_to_end()
    assert await client.call("/test/Echo", b"on") == b"on"
    for peer in peers:
        peer.abort()
    client.close()
    assert "Traceback" not in await serving.stop()


async def test_peers_that_come_again_and_again_cannot_fill_the_log(tmp_path: Path) -> None:
    serving = await Serving.start({}, tmp_path / "log")
    memory = 0
    for turn in range(1_000):
        peer = await RawPeer.connect(serving.port)
        await peer.say(HELLO + settings() + frame(DATA, 0, 0, b"x") + b"GET / HTTP/1.1\r\n")
        await peer.read_to_end()
        peer.abort()
        if turn == 300:
            memory = serving.memory_bytes()
    assert serving.memory_bytes() - memory < 3_000_000, "connections that are over stay"
    assert len((await serving.stop()).splitlines()) < BURST_OF_LINES


async def test_two_processes_share_a_port_and_one_may_go(tmp_path: Path) -> None:
    first = await Serving.start({}, tmp_path / "first")
    await first.stop()
    port = first.port
    one = await Serving.start({}, tmp_path / "one", port)
    two = await Serving.start({}, tmp_path / "two", port)
    pids = set()
    while len(pids) < 2:
        pids.add((await one.numbers())["pid"])
    await one.stop()
    for _ in range(20):
        pids = {(await two.numbers())["pid"]}
    assert len(pids) == 1
    await two.stop()
