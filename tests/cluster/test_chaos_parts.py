"""The tools of the nemesis, each alone: a cut drops what it names and nothing else, a clock is one
process's, a full disk is full, a held process is held and let go.

What a machine does not allow (namespaces, mounts) is skipped with its reason, in CI too: a run of
faults does the same.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from actors.hosting import process_identity
from persistence.private import PrivateRedis
from server.chaos.clock import Clocks, NoClocks
from server.chaos.disk import NoDisk, RedisOnDisk, SmallDisk
from server.chaos.network import Cut, Network, NoNetwork
from server.chaos.victims import NoVictim, Victim
from tests.helpers.services import require, short_directory
from tests.helpers.stack import within

NODES = ("node-1", "node-2")
SMALL_BYTES = 40_000_000
TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as link:
    link.settimeout(2)
    link.sendall(b"hello")
    sys.exit(0 if link.recv(5) == b"world" else 1)
"""
ASK_TWICE = """
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)
link.sendall(b"1")
sys.stdin.readline()
link.sendall(b"2")
link.settimeout(1)
try:
    print(link.recv(1).decode(), flush=True)
except TimeoutError:
    print("nothing", flush=True)
link.settimeout(20)
print(link.recv(1).decode(), flush=True)
"""
SAY_TIMES = """
import sys, time
for _ in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        made = Network(NODES)
    except NoNetwork as error:
        pytest.skip(str(error))
    with made:
        yield made


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


class Listener:
    """Two ports of the machine; counts what reaches them."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.servers = [socket.create_server((network.root_address, 0)) for _ in range(2)]
        for server in self.servers:
            server.settimeout(2)

    def port(self, number: int) -> int:
        return int(self.servers[number].getsockname()[1])

    def close(self) -> None:
        for server in self.servers:
            server.close()

    def talk(self, node: str, number: int) -> tuple[bool, bool]:
        """Whether a node's words arrive here, and whether it gets its answer."""
        command = [sys.executable, "-I", "-S", "-c", TALK, self.network.root_address]
        caller = subprocess.Popen(
            [*self.network.enter(node), *command, str(self.port(number))],
            stderr=subprocess.DEVNULL,
        )
        try:
            link, _ = self.servers[number].accept()
        except TimeoutError:
            caller.wait(10)
            return False, False
        with link:
            link.settimeout(1)
            try:
                heard = link.recv(5) == b"hello"
            except TimeoutError:
                heard = False
            link.sendall(b"world")
            return heard, caller.wait(10) == 0


@pytest.fixture
def listener(network: Network) -> Iterator[Listener]:
    made = Listener(network)
    yield made
    made.close()


def test_a_cut_is_of_one_node_and_one_port(network: Network, listener: Listener) -> None:
    here, root = network.address_of("node-1"), network.root_address
    network.cut(
        Cut(here, root, target_port=listener.port(0)), Cut(root, here, source_port=listener.port(0))
    )
    assert listener.talk("node-1", 0) == (False, False)
    assert listener.talk("node-1", 1) == (True, True), "another port"
    assert listener.talk("node-2", 0) == (True, True), "another node"
    network.heal()
    assert listener.talk("node-1", 0) == (True, True)


def test_a_cut_of_one_direction_lets_the_other_pass(network: Network) -> None:
    """An open connection: what is sent arrives, and the answer does not, until it is healed."""
    with socket.create_server((network.root_address, 0)) as server:
        port = server.getsockname()[1]
        program = [sys.executable, "-I", "-S", "-c", ASK_TWICE]
        caller = subprocess.Popen(
            [*network.enter("node-1"), *program, network.root_address, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert caller.stdin is not None
        assert caller.stdout is not None
        link, _ = server.accept()
        link.settimeout(5)
        assert link.recv(1) == b"1"
        network.cut(Cut(network.root_address, network.address_of("node-1"), source_port=port))
        caller.stdin.write(b"go on\n")
        caller.stdin.flush()
        assert link.recv(1) == b"2", "requests are not cut"
        link.sendall(b"x")
        assert caller.stdout.readline() == b"nothing\n"
        network.heal()
        assert caller.stdout.readline() == b"x\n", "what was sent meanwhile comes after the healing"
        link.close()
        assert caller.wait(10) == 0


def test_a_closed_network_leaves_nothing_behind(network: Network) -> None:
    cable = f"sr{os.getpid()}"
    assert cable in {name for _, name in socket.if_nameindex()}
    network.close()
    assert cable not in {name for _, name in socket.if_nameindex()}


def test_a_clock_is_shifted_for_one_process_while_it_runs(directory: Path) -> None:
    try:
        clocks = Clocks(directory)
    except NoClocks as error:
        pytest.skip(str(error))
    command = [sys.executable, "-I", "-S", "-c", SAY_TIMES]
    environment = {**os.environ, **clocks.environment}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        subprocess.Popen(command, env=environment, text=True, **pipes) as one,  # type: ignore[call-overload]
        subprocess.Popen(command, env=environment, text=True, **pipes) as other,  # type: ignore[call-overload]
    ):

        def ahead(process: subprocess.Popen[str]) -> tuple[int, int]:
            """Minutes that its wall clock and its steady clock are ahead of ours."""
            assert process.stdin is not None
            assert process.stdout is not None
            print(file=process.stdin, flush=True)
            wall, steady = map(float, process.stdout.readline().split())
            return round((wall - time.time()) / 60), round((steady - time.monotonic()) / 60)

        assert ahead(one) == ahead(other) == (0, 0)
        clocks.shift(one.pid, 3_600)
        assert ahead(one) == (60, 0)
        assert ahead(other) == (0, 0)
        clocks.shift(one.pid, -3_600)
        assert ahead(one) == (-60, 0)
        clocks.shift(one.pid, 0)
        assert ahead(one) == (0, 0)
    with pytest.raises(NoClocks, match="not started with a clock"):
        clocks.shift(os.getpid(), 1)


def test_a_full_disk_ends_redis_which_loses_nothing(directory: Path) -> None:
    require(PrivateRedis.available(), "redis-server is not installed: run tools/services.sh")
    try:
        disk = SmallDisk(directory / "disk", size_bytes=SMALL_BYTES)
    except NoDisk as error:
        pytest.skip(str(error))
    server = RedisOnDisk(directory / "redis", disk, host="127.0.0.1")
    try:
        server.start()
        with redis.Redis.from_url(server.url) as client:
            client.set("before", "kept")
            disk.fill()
            acked = fill_up(client)
        disk.clear()
        server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("before") == b"kept"
            assert client.dbsize() in (acked + 1, acked + 2), "the last one's outcome is unknown"
    finally:
        server.stop()
        disk.close()
    assert str(directory) not in Path("/proc/mounts").read_text()


def fill_up(client: "redis.Redis") -> int:
    """Set keys until Redis is gone; how many it acknowledged."""
    for number in range(10_000):
        try:
            client.set(f"key-{number}", "x" * 1_000)
        except redis.exceptions.RedisError:
            return number
    raise AssertionError("the disk never was full")


def state_of(pid: int) -> str:
    """The state's letter of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


async def test_a_held_process_is_stopped_and_goes_on_afterwards(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    victim = Victim.of("sleeper", [sleeper.pid])
    assert victim.target == f"sleeper pid {sleeper.pid}"
    holding = asyncio.create_task(victim.hold(60))
    assert await within(5, lambda: state_of(sleeper.pid) == "T")
    holding.cancel()
    await asyncio.wait([holding])
    assert await within(5, lambda: state_of(sleeper.pid) == "S"), "a run that ends lets it go"


async def test_a_slow_process_is_left_running(sleeper: "subprocess.Popen[bytes]") -> None:
    slowing = asyncio.create_task(Victim.of("sleeper", [sleeper.pid]).slow(0.5))
    assert await within(5, lambda: state_of(sleeper.pid) == "T")
    assert await within(5, lambda: state_of(sleeper.pid) == "S")
    await slowing
    assert state_of(sleeper.pid) == "S"


def test_nobody_is_hit_for_a_process_that_is_gone() -> None:
    """Its id may be another one's by now: here it is ours, with another beginning."""
    boot, pid, began = process_identity().split(":")
    Victim("gone", (f"{boot}:{pid}:{int(began) + 1}",), None).send(signal.SIGKILL)
    with pytest.raises(NoVictim, match="nobody"):
        Victim.of("nobody", [])
