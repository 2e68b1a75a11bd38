"""One local stack for somebody's tests: its stores, its `stockray serve`, and its store faults.

`stockray.testing` starts this as a process of its own (`server/testing_host.py`) and speaks to it;
the client distribution imports nothing of the service.

Rules
-----
* Everything lies and works in one directory, whose path is short, and which is also the TMPDIR of
  the service and so of its Ray. `close` ends every process that works there, whoever its parent is
  by now, and removes the directory.
* With Redis the service reaches its journal by a `TcpProxy`, and the books are read past it.
* One thread does all: servers die with the thread that started them.
"""

import asyncio
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from stockray import AsyncClient
from stockray.testing.processes import alive, end_all, processes_in

from actors.core.identity import request_key, slot_of
from persistence.open import open_journal, open_sink
from persistence.private import PrivateMariaDB, PrivateRedis, ServerFailedError
from persistence.tcp_proxy import Direction, TcpProxy
from server.bootstrap import read_map
from server.children import ChildFailed, ServeChild
from server.live import replica_claims
from server.settings import PREFIX, Settings, SettingsError, load
from server.verify import Ack, ReplicaClaim
from server.verifying import verify_stores

JOURNALS = ("sqlite", "redis")
DATABASES = ("sqlite", "mariadb")
OWN_SETTINGS = ("data_dir", "journal", "database")
"""What a stack decides itself."""
DEFAULTS: Mapping[str, Any] = {
    "listen": "127.0.0.1:0",
    "expiry_grace_ms": 2_000,
    # Tests have one buyer ask as often as they like, unless rates are what they test.
    "risk_profile": "off",
}
DIRECTORY_BYTES_MAX = 24
"""Longest path of the directory: Ray's sockets below it have 107 bytes for theirs."""
CLAIMS_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 10.0


class BadWish(Exception):
    """A wish names something that there is not. Names the argument."""


class NotOffered(Exception):
    """A fault that these stores cannot have. Says which can."""


class ServiceEnded(Exception):
    """The service did not start. Carries its exit code and the end of what it printed."""


class Wish(NamedTuple):
    """What a stack is made of."""

    journal: str = "sqlite"
    database: str = "sqlite"
    settings: Mapping[str, Any] = {}


class LocalStack:
    """One stack: made by `start`, gone after `close`."""

    def __init__(self, wish: Wish) -> None:
        """Makes the directory and works there from now on; starts nothing. BadWish when a part or
        a setting is unknown or has no allowed value."""
        _check("journal", wish.journal, JOURNALS)
        _check("database", wish.database, DATABASES)
        self.directory = _short_directory()
        self._redis = PrivateRedis(self.directory / "r") if wish.journal == "redis" else None
        self._mariadb = PrivateMariaDB(self.directory / "m") if wish.database == "mariadb" else None
        self._proxy = TcpProxy("127.0.0.1", self._redis.port) if self._redis else None
        self._listen = ""
        self._child: ServeChild | None = None
        self._locks: list[sqlite3.Connection] = []
        try:
            self.settings = self._settings(wish.settings)
        except BaseException:
            shutil.rmtree(self.directory)
            raise
        os.chdir(self.directory)

    def start(self) -> dict[str, Any]:
        """Start what does not run, stores first, on the ports and data that it had. Returns when
        the service answers. ServerFailedError or ServiceEnded with the end of a log."""
        for server in (self._redis, self._mariadb):
            if server is not None and not _runs(server):
                server.start()
        if self._proxy is not None and not self._listen:
            self._proxy.start()
        if self._mariadb is not None and not self._listen:
            sink = open_sink(self.settings.database_url)
            sink.upgrade()
            sink.close()
        if self._child is None or self._child.exit_code is not None:
            self._serve()
        return self.facts()

    def facts(self) -> dict[str, Any]:
        """Where everything is."""
        return {
            "address": self._listen,
            "directory": str(self.directory),
            "data_dir": str(self.settings.data_dir),
            "log_directory": str(self.settings.log_directory),
            "journal_url": self.settings.journal,
            "database_url": self.settings.database,
            "pid": self._child.pid if self._child is not None else 0,
            "running": self._child is not None and self._child.exit_code is None,
        }

    def stop(self) -> int:
        """Drain and stop the service (SIGTERM); answers its exit code. Stores stay."""
        if self._child is None:
            raise BadWish("the service was not started")
        return self._child.terminate()

    def kill(self, *, stores: bool) -> None:
        """kill -9 the service whole, and with `stores` the private servers too."""
        servers = [s for s in (self._redis, self._mariadb) if s is not None and _runs(s)]
        end_all(self.directory, but=() if stores else [server.pid for server in servers])
        if self._child is not None:
            self._child.terminate()
        for server in servers if stores else ():
            server.kill9()

    def close(self) -> None:
        """End everything and remove the directory. Idempotent."""
        self.free_journal()
        self.kill(stores=True)
        if self._proxy is not None:
            self._proxy.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def shard_of(self, key: str) -> int:
        """The shard that decides on a SKU or campaign."""
        with closing(open_journal(self.settings.journal_url)) as journal:
            return read_map(journal).slots_of[slot_of(key)]

    def pids(self) -> list[int]:
        """All living processes of the stack, this one too."""
        return sorted(processes_in(self.directory))

    def projectors(self) -> list[int]:
        """The processes of write-behind on a local Ray, which names its workers after classes."""
        return [pid for pid in self.pids() if b"ProjectorProcess" in _title(pid)]

    def relays(self) -> list[int]:
        """The relay's process, in the same way."""
        return [pid for pid in self.pids() if b"RelayProcess" in _title(pid)]

    def stall_journal(self, *, direction: str, pid: int | None) -> None:
        """Hold back what the service and Redis send each other, of one process or of all."""
        _check("direction", direction, [way.value for way in Direction])
        self._journal_proxy("partition_journal of one direction or process").stall(
            Direction(direction), pid=pid
        )

    def delay_journal(self, *, delay_ms: int) -> None:
        """Deliver bytes this much later, each way."""
        self._journal_proxy("slow_journal").delay(delay_ms)

    def lock_journal(self, *, shards: Iterable[int]) -> None:
        """SQLite: hold the write lock of these shards' journals. Reading goes on."""
        if self._redis is not None:
            raise NotOffered("the journal is in Redis, which has no write lock to hold")
        for shard in shards:
            path = self.settings.data_dir / "journal" / f"shard-{shard:04d}.db"
            if not path.exists():
                raise BadWish(f"shards: there is no shard {shard}")
            lock = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
            self._locks.append(lock)
            lock.execute("BEGIN IMMEDIATE")

    def free_journal(self) -> None:
        """End all stalls, delays and locks of the journal. Idempotent."""
        while self._locks:
            self._locks.pop().close()
        if self._proxy is not None and self._listen:
            self._proxy.pass_on()

    def act_on_store(self, *, store: str, act: str) -> int:
        """`kill` or `start` the server of the journal or the database, or ask for its `pid`.
        Answers its process id, 0 after a kill. A signal may have stopped it meanwhile."""
        server = self._redis if store == "journal" else self._mariadb
        if server is None:
            needed = "journal='redis'" if store == "journal" else "database='mariadb'"
            raise NotOffered(f"the {store} is SQLite files, which no server keeps; use {needed}")
        if act == "kill":
            server.kill9()
            return 0
        if act == "start" and not _runs(server):
            server.start()
        return server.pid

    def verify(self, *, acks: Iterable[Iterable[Any]]) -> dict[str, Any]:
        """All invariants over journal and SQL, with a running service over its live memory, and
        over the answers that callers got: (SKU or campaign, caller, request id, reserved)."""
        running = self.facts()["running"]
        claims = asyncio.run(self._claims()) if running else []
        told = [
            Ack(slot_of(key), request_key(caller, request_id), reserved, request_id)
            for key, caller, request_id, reserved in acks
        ]
        report = verify_stores(self.settings, claims=claims, acks=told)
        return report.as_data() | {"live": running}

    async def _claims(self) -> list[ReplicaClaim]:
        """A primary tells its digest only when it has been idle for a moment; after a while
        what there is must do."""
        deadline = time.monotonic() + CLAIMS_TIMEOUT_S
        async with AsyncClient(self._listen) as client:
            while True:
                claims = await replica_claims(client)
                silent = {c.shard for c in claims} - {c.shard for c in claims if c.digest}
                if not silent or time.monotonic() > deadline:
                    return claims
                await asyncio.sleep(0.05)

    def _settings(self, wished: Mapping[str, Any]) -> Settings:
        """As a reader of the books has them: the journal's address is not the proxy's."""
        for key in OWN_SETTINGS:
            if key in wished:
                raise BadWish(f"settings: {key} is the stack's own")
        flags: dict[str, Any] = {**DEFAULTS, **wished, "data_dir": self.directory / "data"}
        if self._mariadb is not None:
            flags["database"] = self._mariadb.url
        if self._redis is not None:
            flags["journal"] = self._redis.url
        try:
            return load(flags, environment={}).settings
        except SettingsError as error:
            raise BadWish(f"settings: {error}") from error

    def _serve(self) -> None:
        """Run the service with exactly the settings of the stack, on the port that it had."""
        told = self.settings.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        if self._proxy is not None:
            told["journal"] = f"redis://{self._proxy.address}/0"
        if self._listen:
            told["listen"] = self._listen
        variables = {f"{PREFIX}{key.upper()}": str(value) for key, value in told.items()}
        self._child = ServeChild(
            (),
            log=self.directory / "serve.log",
            environment=variables | {"TMPDIR": str(self.directory)},
        )
        try:
            self._child.wait_ready()
        except ChildFailed as error:
            raise ServiceEnded(
                f"the service ended with exit code {error.exit_code}:\n{error}"
            ) from error
        self._listen = self._child.listen

    def _journal_proxy(self, fault: str) -> TcpProxy:
        if self._proxy is None:
            raise NotOffered(f"{fault} needs a network before the journal: use journal='redis'")
        return self._proxy


def _check(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise BadWish(f"{name}: {value!r} is none of {', '.join(allowed)}")


def _runs(server: PrivateRedis | PrivateMariaDB) -> bool:
    try:
        return alive(server.pid)
    except ServerFailedError:
        return False


def _short_directory() -> Path:
    """A new directory of this user alone, in the usual place if that leaves room for sockets."""
    usual = tempfile.gettempdir()
    room = len(os.fsencode(usual)) + len("/srt-12345678") <= DIRECTORY_BYTES_MAX
    return Path(tempfile.mkdtemp(prefix="srt-", dir=usual if room else "/tmp"))


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
