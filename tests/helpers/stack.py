"""A running service for the fault tests: its stores, its process, its pids, and its books.

The stores outlive the process: `restart` starts the service again on the same data and port, as an
operator would. All acknowledged answers of all tests are kept, and every check holds the journal,
memory and SQL to all of them.
"""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from stockray import AsyncClient, ClusterStatus, ReplicaRole, ReplicaState, StockrayError

from actors.core.identity import slot_of
from persistence.private import PrivateMariaDB, PrivateRedis
from server.children import ServeChild, alive
from server.live import replica_claims
from server.settings import Settings, load
from server.verify import Ack, ReplicaClaim, Report
from server.verifying import verify_stores
from tests.helpers.services import private_mariadb, private_redis

KINDS = ("sqlite", "redis")
OTHER_LINKS = ("sqlite-ray", "sqlite-tcp")
"""Kinds whose rounds travel otherwise than on Unix sockets."""
SHARDS = 2
SETTLE_TIMEOUT_S = 60.0
LOG_TAIL_LINES = 25


class Stack:
    """One service on stores of its own."""

    def __init__(
        self,
        kind: str,
        directory: Path,
        *,
        redis: PrivateRedis | None = None,
        mariadb: PrivateMariaDB | None = None,
    ) -> None:
        self.kind, _, rounds = kind.partition("-")
        self.directory = directory
        self.redis = redis
        self.mariadb = mariadb
        self.rounds = rounds or "road"
        self.ray_address = "local"
        self.listen = "127.0.0.1:0"
        self.acks: list[Ack] = []
        stores = {}
        if redis is not None and mariadb is not None:
            stores = {"journal": redis.url, "database": mariadb.url}
        flags = {"data_dir": directory / "data", **stores}
        self.settings: Settings = load(flags, environment={}).settings
        self.flags = [
            *("--data-dir", str(self.settings.data_dir)),
            *(word for key, url in stores.items() for word in (f"--{key}", url)),
        ]
        self._child: ServeChild | None = None

    @property
    def child(self) -> ServeChild:
        """The process of `stockray serve`."""
        assert self._child is not None, "the service was not started"
        return self._child

    def ensure_running(self) -> None:
        """Start the service if it does not run, on the port that it had."""
        if self._child is not None and self._child.exit_code is None:
            return
        arguments = [*self.flags, "--listen", self.listen, "--expiry-grace-ms", "2000"]
        arguments += ["--rounds", self.rounds, "--ray-address", self.ray_address]
        self._child = ServeChild(arguments, log=self.directory / "serve.log")
        self._child.wait_ready()
        self.listen = self._child.listen

    def close(self) -> None:
        """End what runs."""
        if self._child is not None and self._child.exit_code is None:
            self._child.kill_tree()

    def client(self) -> AsyncClient:
        """A client that is patient enough for every fault here."""
        return AsyncClient(self.listen, timeout_ms=30_000, rpc_timeout_ms=5_000)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a `stockray` command on the stores."""
        return stockray(*words, *self.flags)

    async def check(self, client: AsyncClient) -> Report:
        """Wait until all is settled, then verify everything, live. Asserts that nothing differs."""
        await self.settled(client)
        claims = await self._claims(client)
        report = await asyncio.to_thread(
            verify_stores, self.settings, claims=claims, acks=self.acks
        )
        assert report.ok, report.as_data()["invariants"]
        return report

    async def _claims(self, client: AsyncClient) -> list[ReplicaClaim]:
        """What replicas say; a primary says its digest only when it has been idle for a moment."""
        claims: list[ReplicaClaim] = []

        async def told() -> bool:
            claims[:] = await replica_claims(client)
            return {claim.shard for claim in claims if claim.digest} == set(range(SHARDS))

        assert await within(10, told), claims
        return claims

    def check_stopped(self) -> Report:
        """Verify what is left in the stores. Asserts that nothing differs, SQL is at the end."""
        report = verify_stores(self.settings, acks=self.acks)
        assert report.ok, report.as_data()["invariants"]
        behind = [s for s in report.shards if s["sink_seq"] != s["last_seq"]]
        assert not behind, behind
        return report

    async def pairs(self, client: AsyncClient) -> ClusterStatus:
        """Until every shard has a primary and a standby that keeps up, and all gateways answer."""
        return await until(client, _paired, "every shard to have its pair")

    async def settled(self, client: AsyncClient) -> ClusterStatus:
        """Until standbys and SQL stand where the primaries stand. Nobody may be selling."""
        return await until(client, lambda s: _paired(s) and _level(s), "standbys and SQL to be up")

    def logs(self) -> Iterator[tuple[str, str]]:
        """(name, end of the text) of each log, for a failed test's report."""
        files = [self.directory / "serve.log", *self.settings.log_directory.glob("*.log")]
        for path in sorted(files):
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()
                yield path.name, "\n".join(line[:400] for line in lines[-LOG_TAIL_LINES:])

    def log_of(self, name: str) -> str:
        """The whole log of one process."""
        path = self.settings.log_directory / f"{name}.log"
        return path.read_text() if path.exists() else ""


@contextmanager
def running_stack(kind: str, directory: Path) -> Iterator[Stack]:
    """A stack of a kind, its stores ready and its service not started yet."""
    with ExitStack() as servers:
        if kind.startswith("sqlite"):
            stack = Stack(kind, directory)
        else:
            redis = servers.enter_context(private_redis())
            mariadb = servers.enter_context(private_mariadb())
            stack = Stack(kind, directory, redis=redis, mariadb=mariadb)
            upgraded = stockray("db", "upgrade", "--database", mariadb.url)
            assert upgraded.returncode == 0, upgraded.stderr
        try:
            yield stack
        finally:
            stack.close()


def stockray(
    *words: str,
    environment: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run `stockray` to its end, as from a shell."""
    # Wide, so that no message is broken into lines.
    shell = {k: v for k, v in os.environ.items() if not k.startswith("STOCKRAY_")}
    return subprocess.run(
        [sys.executable, "-m", "stockray.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        cwd=cwd,
        env=shell | {"COLUMNS": "1000"} | (environment or {}),
    )


async def until(
    client: AsyncClient,
    holds: Callable[[ClusterStatus], bool],
    what: str,
    *,
    timeout_s: float = SETTLE_TIMEOUT_S,
) -> ClusterStatus:
    """Ask for the cluster's status until it holds. A gateway that is away is waited for."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            status = await client.cluster_status(timeout_ms=5_000)
        except StockrayError as error:
            last = error
        else:
            if holds(status):
                return status
            last = status
        await asyncio.sleep(0.1)
    raise AssertionError(f"waited {timeout_s:.0f} s for {what}: {last}")


async def within(timeout_s: float, question: Callable[[], bool | Awaitable[bool]]) -> bool:
    """Whether the answer becomes yes in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = question()
        if answer if isinstance(answer, bool) else await answer:
            return True
        await asyncio.sleep(0.02)
    return False


async def ended(pid: int, *, timeout_s: float = 15.0) -> bool:
    """Whether the process ends in time."""
    return await within(timeout_s, lambda: not alive(pid))


def pid_of(status: ClusterStatus, shard: int, role: ReplicaRole) -> int:
    """Process id of a shard's primary or standby."""
    for replica in status.shards[shard].replicas:
        if replica.role is role:
            return replica.pid
    raise AssertionError(f"shard {shard} has no {role}: {status.shards[shard]}")


def name_of(status: ClusterStatus, pid: int) -> str:
    """The replica with this process id."""
    return next(r.replica_id for s in status.shards for r in s.replicas if r.pid == pid)


def on_shard(shard: int, name: str) -> str:
    """An id like `name` that belongs to the shard."""
    return next(
        candidate
        for number in range(1_000)
        if slot_of(candidate := f"{name}-{number}") % SHARDS == shard
    )


async def stop_process(stack: Stack, pid: int, *, holding_lock: bool) -> None:
    """SIGSTOP a primary of shard 0 while it holds, or does not hold, the journal's write lock."""

    async def stopped() -> bool:
        os.kill(pid, signal.SIGSTOP)
        if stack.kind != "sqlite" or journal_locked(stack, 0) is holding_lock:
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    assert await within(20, stopped), "the moment was never met"


def journal_locked(stack: Stack, shard: int) -> bool:
    """Whether somebody holds the write lock of a shard's journal file."""
    path = next((stack.settings.data_dir / "journal").glob(f"*{shard:04d}*.db"))
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        probe.execute("ROLLBACK")
        return False


def _paired(status: ClusterStatus) -> bool:
    return all(gateway.ready for gateway in status.gateways) and all(
        sorted(r.role for r in shard.replicas) == [ReplicaRole.PRIMARY, ReplicaRole.STANDBY]
        and all(r.state is ReplicaState.READY and r.lag_count < 100 for r in shard.replicas)
        for shard in status.shards
    )


def _level(status: ClusterStatus) -> bool:
    return all(
        shard.sink_seq == shard.seq and all(r.seq == shard.seq for r in shard.replicas)
        for shard in status.shards
    )
