"""The proxy that stands in for a bad network: against plain sockets, and before a real Redis."""

import contextlib
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from persistence import tcp_proxy
from persistence.private import PrivateRedis
from persistence.tcp_proxy import BUFFER_BYTES, Direction, ProxyError, TcpProxy
from tests.helpers.services import private_redis, short_directory

PATIENCE_S = 10.0
GIVE_UP_S = 0.3


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back whatever it gets."""
    with echo_server(socket.create_server(("127.0.0.1", 0))) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def proxy(echo: int) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", echo) as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with private_redis() as running:
        yield running


@pytest.fixture
def before_redis(server: PrivateRedis) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", server.port) as running:
        yield running


def test_bytes_pass_unchanged_both_ways_whatever_their_number(proxy: TcpProxy) -> None:
    sent = os.urandom(3_000_000)
    with connect(proxy) as peer:
        writing = threading.Thread(target=peer.sendall, args=(sent,))
        writing.start()
        assert take(peer, len(sent)) == sent
        writing.join()


def test_an_orderly_end_is_passed_on_with_what_is_still_under_way(proxy: TcpProxy) -> None:
    with connect(proxy) as peer:
        peer.sendall(b"last words")
        peer.shutdown(socket.SHUT_WR)
        assert take(peer, 10) == b"last words"
        assert peer.recv(1) == b""
    wait_until(lambda: proxy.connections_count == 0)


@pytest.mark.parametrize("direction", list(Direction))
def test_stalled_bytes_wait_on_an_open_connection_and_come_in_order(
    proxy: TcpProxy, direction: Direction
) -> None:
    with connect(proxy) as peer:
        proxy.stall(direction)
        peer.sendall(b"first ")
        wait_until(lambda: proxy.held_bytes == 6)
        peer.sendall(b"second")
        wait_until(lambda: proxy.held_bytes == 12)
        assert nothing_comes(peer)
        proxy.pass_on()
        assert take(peer, 12) == b"first second"
        # The peer may have the bytes before the proxy has counted them as gone.
        wait_until(lambda: proxy.held_bytes == 0)


def test_stalled_answers_show_that_the_request_was_delivered(proxy: TcpProxy, echo: int) -> None:
    with recording_server() as (port, got), TcpProxy("127.0.0.1", port) as before:
        before.stall(Direction.ANSWERS)
        with connect(before) as peer:
            peer.sendall(b"request")
            wait_until(lambda: bytes(got) == b"request")
        before.stall(Direction.REQUESTS)
        with connect(before) as peer:
            peer.sendall(b"held back")
            wait_until(lambda: before.held_bytes == 9)
            assert bytes(got) == b"request"


def test_a_stalled_request_takes_effect_after_its_sender_has_gone() -> None:
    with recording_server() as (port, got), TcpProxy("127.0.0.1", port) as before:
        before.stall()
        with connect(before) as peer:
            peer.sendall(b"late")
            wait_until(lambda: before.held_bytes == 4)
        assert bytes(got) == b""
        before.pass_on()
        wait_until(lambda: bytes(got) == b"late")
        wait_until(lambda: before.connections_count == 0)


def test_a_stalled_sender_is_slowed_and_the_proxy_does_not_grow(proxy: TcpProxy) -> None:
    """What kernel and proxy take is bounded; afterwards all of it arrives."""
    proxy.stall()
    with connect(proxy) as peer:
        peer.setblocking(False)
        taken = 0
        chunk = bytes(65_536)
        full_since: float | None = None
        while full_since is None or time.monotonic() - full_since < GIVE_UP_S:
            try:
                taken += peer.send(chunk)
                full_since = None
            except BlockingIOError:
                full_since = full_since or time.monotonic()
            assert taken < 64_000_000, "nothing slows the sender"
        assert 0 < proxy.held_bytes <= BUFFER_BYTES
        peer.settimeout(PATIENCE_S)
        proxy.pass_on()
        assert len(take(peer, taken)) == taken


def test_refusing_resets_open_connections_and_new_ones(proxy: TcpProxy) -> None:
    with connect(proxy) as peer:
        peer.sendall(b"x")
        assert take(peer, 1) == b"x"
        proxy.refuse()
        assert proxy.connections_count == 0
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        assert not echoes(proxy)
        proxy.pass_on()
        assert echoes(proxy)


def test_a_delay_holds_each_way_back_for_its_time(proxy: TcpProxy) -> None:
    """A lower bound, so a busy machine cannot break it."""
    with connect(proxy) as peer:
        proxy.delay(100)
        start_s = time.monotonic()
        peer.sendall(b"x")
        assert take(peer, 1) == b"x"
        assert time.monotonic() - start_s >= 0.2
        proxy.delay(tcp_proxy.DELAY_MAX_MS, Direction.ANSWERS)
        peer.sendall(b"y")
        wait_until(lambda: proxy.held_bytes == 1)
        assert nothing_comes(peer)
        proxy.pass_on()
        assert take(peer, 1) == b"y"


def test_one_process_is_cut_off_and_the_others_are_not(proxy: TcpProxy) -> None:
    """Both its open connections and those that it makes later."""
    with other_process(proxy.port) as (pid, ask), connect(proxy) as ours:
        assert ask("echo")
        proxy.stall(pid=pid)
        assert not ask("echo")
        ours.sendall(b"x")
        assert take(ours, 1) == b"x"
        proxy.pass_on(pid=pid)
        assert ask("reconnect")
        proxy.refuse(pid=pid)
        assert not ask("reconnect")
        assert echoes(proxy)
        # The rule for one beats the rule for all.
        proxy.stall()
        proxy.pass_on(pid=pid)
        assert ask("reconnect")
        ours.sendall(b"y")
        wait_until(lambda: proxy.held_bytes == 1)
        assert nothing_comes(ours)
        assert not echoes(proxy)
        proxy.pass_on()
        assert echoes(proxy)


def test_connections_leave_no_descriptor_behind(proxy: TcpProxy) -> None:
    """However they end: in order, by a reset, cut before or while they run."""
    before = len(os.listdir("/proc/self/fd"))
    for mode in (proxy.pass_on, proxy.stall, proxy.refuse, proxy.pass_on) * 5:
        mode()
        assert echoes(proxy) is (mode == proxy.pass_on)
    wait_until(lambda: proxy.connections_count == 0)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_what_is_out_of_range_is_refused_by_name(proxy: TcpProxy) -> None:
    with pytest.raises(ProxyError, match="delay_ms: -1 is not from 0 to 60000"):
        proxy.delay(-1)
    with pytest.raises(ProxyError, match="the proxy runs already"):
        proxy.start()
    for pid in range(1, tcp_proxy.RULES_MAX + 1):
        proxy.stall(pid=-pid)
    with pytest.raises(ProxyError, match="pid: at most 64 modes"):
        proxy.stall(pid=-1_000)
    assert echoes(proxy)


def test_above_its_limit_of_connections_the_newest_is_reset(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_proxy, "CONNECTIONS_MAX", 1)
    with connect(proxy) as first:
        first.sendall(b"x")
        assert take(first, 1) == b"x"
        assert not echoes(proxy)
        first.sendall(b"y")
        assert take(first, 1) == b"y"


def test_a_target_that_is_away_is_told_by_a_reset_and_found_when_it_is_back(echo: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with TcpProxy("127.0.0.1", port) as before:
        assert not echoes(before)
        with echo_server(socket.create_server(("127.0.0.1", port))):
            assert echoes(before)


def test_a_closed_proxy_takes_the_same_port_again_and_forgets_its_modes(echo: int) -> None:
    before = TcpProxy("127.0.0.1", echo)
    with pytest.raises(ProxyError, match="port: the proxy was not started"):
        _ = before.address
    before.start()
    port = before.port
    with connect(before) as peer:
        peer.sendall(b"x")
        assert take(peer, 1) == b"x"
        before.stall()
        before.close()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    before.close()
    with pytest.raises(ProxyError, match="not running"):
        before.pass_on()
    with before:
        assert before.port == port
        assert echoes(before)


def test_a_unix_socket_can_be_the_target() -> None:
    with short_directory() as directory:
        path = Path(directory) / "echo.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        with echo_server(listener), TcpProxy.to_unix(path) as before:
            assert echoes(before)


def test_redis_applies_a_command_that_its_client_gave_up(
    server: PrivateRedis, before_redis: TcpProxy
) -> None:
    with redis_client(server.port, PATIENCE_S) as direct, redis_client(before_redis.port) as client:
        client.set("given-up", "before")
        before_redis.stall(Direction.REQUESTS)
        with pytest.raises(redis.exceptions.TimeoutError):
            client.set("given-up", "after")
        client.connection_pool.disconnect()
        assert direct.get("given-up") == b"before"
        before_redis.pass_on()
        wait_until(lambda: direct.get("given-up") == b"after")


def test_redis_has_applied_what_it_could_not_answer(
    server: PrivateRedis, before_redis: TcpProxy
) -> None:
    with redis_client(server.port, PATIENCE_S) as direct, redis_client(before_redis.port) as client:
        client.ping()
        before_redis.stall(Direction.ANSWERS)
        with pytest.raises(redis.exceptions.TimeoutError):
            client.incr("unanswered")
        assert direct.get("unanswered") == b"1"
        before_redis.refuse()
        with pytest.raises(redis.exceptions.ConnectionError):
            client.incr("unanswered")
        assert direct.get("unanswered") == b"1"
        before_redis.pass_on()
        assert client.incr("unanswered") == 2


@contextmanager
def redis_client(port: int, timeout_s: float = 1.0) -> Iterator["redis.Redis"]:
    """One that gives up when there is no answer in time, and does not ask again by itself."""
    with redis.Redis(
        host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0), socket_timeout=timeout_s
    ) as client:
        yield client


@contextmanager
def echo_server(listener: socket.socket) -> Iterator[socket.socket]:
    """Each connection in a thread; those that are open end with the listener's test."""
    ends: list[socket.socket] = []

    def answer(end: socket.socket) -> None:
        with contextlib.suppress(OSError), end:
            while data := end.recv(65_536):
                end.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = listener.accept()
                ends.append(end)
                threading.Thread(target=answer, args=(end,), daemon=True).start()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield listener
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        serving.join(PATIENCE_S)


@contextmanager
def recording_server() -> Iterator[tuple[int, bytearray]]:
    """(port, what arrived of all connections); it answers each piece with one byte."""
    got = bytearray()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = listener.accept()
                with end:
                    while data := end.recv(65_536):
                        got.extend(data)
                        end.sendall(b"!")

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield listener.getsockname()[1], got
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join(PATIENCE_S)


@contextmanager
def other_process(port: int) -> Iterator[tuple[int, Callable[[str], bool]]]:
    """A process with a connection of its own; asked to `echo` or to `reconnect` and echo, it says
    whether an answer came."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=echo_when_asked, args=(there, port), daemon=True)
    child.start()

    def ask(what: str) -> bool:
        here.send(what)
        assert here.poll(PATIENCE_S), "the other process does not answer"
        return bool(here.recv())

    try:
        assert here.poll(60), "the other process did not start"
        here.recv()
        assert child.pid is not None
        yield child.pid, ask
    finally:
        here.close()
        child.join(PATIENCE_S)
        child.kill()


def echo_when_asked(pipe: "multiprocessing.connection.Connection", port: int) -> None:
    peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    pipe.send(True)
    with contextlib.suppress(EOFError):
        while True:
            if pipe.recv() == "reconnect":
                peer.close()
                peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
            peer.settimeout(GIVE_UP_S)
            try:
                peer.sendall(b"z")
                pipe.send(peer.recv(1) == b"z")
            except OSError:
                pipe.send(False)
            peer.settimeout(PATIENCE_S)


def connect(proxy: TcpProxy) -> socket.socket:
    host, _, port = proxy.address.partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def echoes(proxy: TcpProxy) -> bool:
    """Whether a new connection gets an answer soon."""
    try:
        with connect(proxy) as peer:
            peer.settimeout(GIVE_UP_S)
            peer.sendall(b"hello")
            return take(peer, 5) == b"hello"
    except OSError:
        return False


def take(peer: socket.socket, count: int) -> bytes:
    """Exactly as many bytes; fewer when the other side ends first."""
    got = bytearray()
    while len(got) < count and (data := peer.recv(65_536)):
        got.extend(data)
    return bytes(got)


def nothing_comes(peer: socket.socket) -> bool:
    """Whether the peer gets nothing for a while; its time limit is as before afterwards."""
    before = peer.gettimeout()
    peer.settimeout(GIVE_UP_S)
    try:
        peer.recv(1)
    except TimeoutError:
        return True
    finally:
        peer.settimeout(before)
    return False


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, "waited for nothing"
        time.sleep(0.005)
