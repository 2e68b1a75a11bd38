"""A running service for the fault tests: a local cluster, and all that its buyers were told.

The cluster is that of `stockray.testing`, as users have it. All acknowledged answers of all tests
are kept, and every check holds the journal, memory and SQL to all of them.
"""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from stockray import (
    AsyncClient,
    ClusterStatus,
    ReplicaRole,
    ReserveResult,
    SeatResult,
    StockrayError,
)
from stockray.testing import Books, start_local
from stockray.testing.processes import alive
from stockray.testing.standing import is_level, is_whole

from actors.core.identity import slot_of
from persistence.private import PrivateMariaDB, PrivateRedis
from server.settings import Settings, load
from tests.helpers.services import require

KINDS = ("sqlite", "redis")
FIRST_KIND = (KINDS[0], *(pytest.param(kind, marks=pytest.mark.extended) for kind in KINDS[1:]))
"""Of what is long, the ordinary run has one kind only."""
OTHER_LINKS = ("sqlite-ray", "sqlite-tcp")
"""Kinds whose rounds travel otherwise than on Unix sockets."""
SHARDS = 2
SETTLE_TIMEOUT_S = 60.0


class Stack:
    """One service on stores of its own, not started yet."""

    def __init__(self, kind: str, settings: Mapping[str, Any] | None = None) -> None:
        self.kind, _, rounds = kind.partition("-")
        self.acks: list[tuple[str, ReserveResult | SeatResult]] = []
        """(campaign, what a buyer was told)."""
        on_redis = self.kind == "redis"
        self.cluster = start_local(
            journal="redis" if on_redis else "sqlite",
            database="mariadb" if on_redis else "sqlite",
            shards=SHARDS,
            settings={"rounds": rounds or "road", **(settings or {})},
        )
        self.aio = self.cluster.aio

    @property
    def listen(self) -> str:
        """host:port of the service; it stays the same over restarts."""
        return self.cluster.address

    @property
    def settings(self) -> Settings:
        """Where the stores are."""
        cluster = self.cluster
        stores = {"journal": cluster.journal_url, "database": cluster.database_url}
        return load({"data_dir": cluster.data_dir, **stores}, environment={}).settings

    def ensure_running(self) -> None:
        """Start what does not run, on the ports and data that it had."""
        self.cluster.start()

    def client(self) -> AsyncClient:
        """A client that is patient enough for every fault here."""
        return self.cluster.async_client()

    @property
    def flags(self) -> list[str]:
        """What a command needs to find the stores."""
        settings = self.settings
        stores = {"journal": settings.journal, "database": settings.database}
        urls = [word for key, url in stores.items() if url for word in (f"--{key}", url)]
        return ["--data-dir", str(settings.data_dir), *urls]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a `stockray` command on the stores."""
        return stockray(*words, *self.flags)

    async def check(self, client: AsyncClient) -> Books:
        """Wait until all is settled, then verify everything. NotBalanced names what differs."""
        await self.settled(client)
        return await self.aio.verify(self.acks)

    def check_stopped(self) -> Books:
        """Verify what is left in the stores. Asserts that SQL is at the end, too."""
        books = self.cluster.verify(self.acks)
        assert not books.live
        behind = [s for s in books.data["shards"] if s["sink_seq"] != s["last_seq"]]
        assert not behind, behind
        return books

    async def pairs(self, client: AsyncClient) -> ClusterStatus:
        """Until every shard has a primary and a standby that keeps up, and all gateways answer."""
        return await until(client, is_whole, "every shard to have its pair")

    async def settled(self, client: AsyncClient) -> ClusterStatus:
        """Until standbys and SQL stand where the primaries stand. Nobody may be selling."""
        return await until(client, lambda s: is_whole(s) and is_level(s), "standbys and SQL")

    def log_of(self, name: str) -> str:
        """The whole log of one process."""
        return self.cluster.log(name)


@contextmanager
def running_stack(kind: str, settings: Mapping[str, Any] | None = None) -> Iterator[Stack]:
    """A stack of a kind, started, and gone afterwards."""
    if kind == "redis":
        require(PrivateRedis.available(), "redis-server is not installed: run tools/services.sh")
        require(PrivateMariaDB.available(), "mariadbd is not installed: run tools/services.sh")
    stack = Stack(kind, settings)
    with stack.cluster:
        yield stack


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
        if stack.kind != "sqlite":
            return True
        # Looked at again later: a thread in the kernel stops only on its way out, without the lock
        # that it had.
        if journal_locked(stack, 0) is holding_lock:
            await asyncio.sleep(0.05)
            if journal_locked(stack, 0) is holding_lock:
                return True
        os.kill(pid, signal.SIGCONT)
        return False

    assert await within(20, stopped), "the moment was never met"


def journal_locked(stack: Stack, shard: int) -> bool:
    """Whether somebody holds the write lock of a shard's journal file."""
    path = stack.settings.data_dir / "journal" / f"shard-{shard:04d}.db"
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        probe.execute("ROLLBACK")
        return False
