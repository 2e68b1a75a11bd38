"""A local cluster for tests: started, hurt, watched, verified and gone again.

Rules
* All of it works in one temporary directory on private ports of 127.0.0.1. What ends the test
  process, kill -9 included, ends the cluster and removes the directory.
* A fault is in force when its call returns: a killed process is gone, a partition is closed.
* Faults that last (`pause`, `partition_journal`, `slow_journal`) answer a `Fault`: leave its `with`
  block or call `end`. Those of the journal replace each other. `heal` ends all that are left.
* Nothing waits for ever: each wait has a limit, whose passing is a LocalClusterError that says what
  was waited for and what was seen last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from stockray._client import AsyncClient
from stockray.cluster import ClusterStatus
from stockray.enums import ReplicaRole
from stockray.errors import StockrayError
from stockray.group_buy import SeatResult
from stockray.options import OptionChanges
from stockray.results import ReserveResult
from stockray.sync import Client
from stockray.testing.books import REFUSALS, Books, books_of
from stockray.testing.link import Link, LocalClusterError
from stockray.testing.processes import end_all, ended
from stockray.testing.standing import is_level, is_whole, pid_of

if TYPE_CHECKING:
    from stockray.testing.asynchronous import AsyncLocalCluster

__all__ = ["Fault", "LocalCluster", "Part"]

Part = Literal["primary", "standby", "gateway", "projector", "relay", "journal", "database"]
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 120.0
VERIFY_TIMEOUT_S = 240.0
ACT_TIMEOUT_S = 60.0
SETTLE_TIMEOUT_S = 60.0
END_TIMEOUT_S = 15.0
POLL_S = 0.1
LOG_TAIL_LINES = 25
LOG_LINE_CHARACTERS_MAX = 400


class Fault:
    """Something that is wrong until `end`; the end of a `with` block ends it too."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end

    def end(self) -> None:
        """Returns when it is over. Idempotent."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


class LocalCluster:
    """See `start_local`, which makes it. Its methods may be called from any thread."""

    def __init__(self, wish: Mapping[str, Any]) -> None:
        self._wish = wish
        self._link: Link | None = None
        self._facts: Mapping[str, Any] = {}
        self._client: Client | None = None
        self._faults: list[Fault] = []
        self._starting = threading.Lock()

    # Its life

    def start(self) -> Self:
        """Start what does not run: all of it, or after `stop` or a kill the service, on the data
        and port that it had. Returns when it answers. ValueError for a part or setting that there
        is not, ServiceMissing, or LocalClusterError with the end of a log."""
        with self._starting:
            if self._link is None:
                self._link = Link()
                try:
                    self._facts = self._call("open", **self._wish)
                except BaseException:
                    self._link.close()
                    self._link = None
                    raise
            try:
                self._facts = self._call("start", START_TIMEOUT_S)
            except LocalClusterError:
                if not self.address:
                    self.close()
                raise
        return self

    def close(self) -> None:
        """End all processes and remove the directory. Idempotent. Clients of it stay yours."""
        link, self._link = self._link, None
        if self._client is not None:
            self._client.close()
            self._client = None
        self._faults.clear()
        if link is not None:
            with contextlib.suppress(LocalClusterError):
                link.call("close", ACT_TIMEOUT_S)
            link.close()
            directory = self._facts.get("directory")
            if directory and Path(directory).exists():
                # The other process was killed before it could clear up.
                end_all(directory)
                shutil.rmtree(directory, ignore_errors=True)

    def stop(self) -> int:
        """Drain and stop the service (SIGTERM); answers its exit code. The stores go on, and
        `start` starts it again."""
        code: int = self._call("stop", STOP_TIMEOUT_S)
        self._facts = self._call("facts")
        return code

    def kill_all(self, *, stores: bool = True) -> None:
        """kill -9 the whole service at once, with `stores` also Redis and MariaDB. `start` starts
        them again on what they left."""
        self._end_faults()
        self._call("kill", stores=stores)
        self._facts = self._call("facts")

    def restart(self, *, stores: bool = True) -> None:
        """`kill_all`, then `start`. Returns when it answers."""
        self.kill_all(stores=stores)
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> AsyncLocalCluster:
        await asyncio.to_thread(self.start)
        return self.aio

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    # What it is

    @property
    def aio(self) -> AsyncLocalCluster:
        """The same cluster for an event loop: the same methods, awaited."""
        from stockray.testing.asynchronous import AsyncLocalCluster  # noqa: PLC0415 - it wraps us

        return AsyncLocalCluster(self)

    @property
    def address(self) -> str:
        """host:port of the service; it stays the same over restarts. '' before the first start."""
        return str(self._facts.get("address", ""))

    @property
    def directory(self) -> Path:
        """Everything of the cluster; gone after `close`. LocalClusterError before `start`."""
        return Path(self._fact("directory"))

    @property
    def data_dir(self) -> Path:
        """The service's `data_dir`, with the stores of the embedded mode."""
        return Path(self._fact("data_dir"))

    @property
    def journal_url(self) -> str:
        """Of Redis itself, past the proxy; '' for SQLite."""
        return self._fact("journal_url")

    @property
    def database_url(self) -> str:
        """Of MariaDB; '' for SQLite."""
        return self._fact("database_url")

    @property
    def running(self) -> bool:
        """Whether `stockray serve` runs."""
        return self._link is not None and bool(self._call("facts")["running"])

    @property
    def pid(self) -> int:
        """Of `stockray serve`; its Ray's processes have their own."""
        return int(self._fact("pid"))

    def pids(self) -> frozenset[int]:
        """All living processes of the cluster, stores included."""
        return frozenset(self._call("pids"))

    def client(self, **changes: Unpack[OptionChanges]) -> Client:
        """A new client for threads, which you close. Patient enough for a failover."""
        return Client(self.address, **_patient(changes))

    def async_client(self, **changes: Unpack[OptionChanges]) -> AsyncClient:
        """A new client for an event loop, which you close. Patient enough for a failover."""
        return AsyncClient(self.address, **_patient(changes))

    def shard_of(self, key: str) -> int:
        """The shard that decides on a SKU or campaign."""
        shard: int = self._call("shard_of", key=key)
        return shard

    def log(self, name: str) -> str:
        """The whole log of one process: `serve`, `shard-0000-a`, `gateway-00`, `projector-00`,
        `redis`, `mariadb`. '' when there is none."""
        path = self._log_paths().get(name)
        return path.read_text(errors="replace") if path is not None and path.exists() else ""

    def logs(self) -> Iterator[tuple[str, str]]:
        """(name, its last lines) of each log."""
        for name in sorted(self._log_paths()):
            lines = self.log(name).splitlines()[-LOG_TAIL_LINES:]
            if lines:
                yield name, "\n".join(line[:LOG_LINE_CHARACTERS_MAX] for line in lines)

    # Waiting and checking

    def status(self) -> ClusterStatus:
        """How the cluster stands. StockrayError while no gateway answers."""
        if self._client is None:
            self._client = Client(self.address, timeout_ms=5_000)
        return self._client.cluster_status()

    def wait_until(
        self,
        holds: Callable[[ClusterStatus], bool],
        what: str,
        *,
        timeout_s: float = SETTLE_TIMEOUT_S,
    ) -> ClusterStatus:
        """Ask for the status until it holds; answers that one. A gateway that is away is waited
        for."""
        deadline = time.monotonic() + timeout_s
        last: object = None
        while time.monotonic() < deadline:
            try:
                last = status = self.status()
                if holds(status):
                    return status
            except StockrayError as error:
                last = error
            time.sleep(POLL_S)
        raise LocalClusterError(f"waited {timeout_s:.0f} s for {what}: {last}")

    def wait_ready(self, *, timeout_s: float = SETTLE_TIMEOUT_S) -> ClusterStatus:
        """Until every shard has a primary and a standby that keeps up, and every gateway serves."""
        return self.wait_until(is_whole, "every shard to have its pair", timeout_s=timeout_s)

    def wait_settled(self, *, timeout_s: float = SETTLE_TIMEOUT_S) -> ClusterStatus:
        """Until standbys and SQL stand where the primaries stand. Nobody may be selling."""
        return self.wait_until(
            lambda status: is_whole(status) and is_level(status),
            "standbys and SQL to stand where the primaries stand",
            timeout_s=timeout_s,
        )

    def verify(
        self,
        answers: Iterable[tuple[str, ReserveResult | SeatResult]] = (),
        *,
        caller: str = "default",
    ) -> Books:
        """Check I1-I6 over the journal, SQL and, when the service runs, the memory of every
        replica, after waiting until all is settled: nobody may be selling. `answers` are (SKU or
        campaign, what `reserve`, `grab`, `open_team` or `join_team` answered) of one caller's
        requests; each must be true. NotBalanced names the culprits."""
        if self.running:
            self.wait_settled()
        told = [
            (key, caller, result.request_id, result.ok)
            for key, result in answers
            if result.ok or result.status in REFUSALS
        ]
        return books_of(self._call("verify", VERIFY_TIMEOUT_S, acks=told))

    # Faults

    def kill(self, part: Part, key: str = "") -> int:
        """kill -9 one process; answers the id that it had. `key` is a SKU or campaign of the shard
        whose primary or standby is meant. The journal's and the database's servers are killed too
        (Redis, MariaDB), and stay down until `start`."""
        if part in ("journal", "database"):
            pid: int = self._call("act_on_store", store=part, act="pid")
            self._call("act_on_store", store=part, act="kill")
            return pid
        pid = self.pid_of(part, key)
        os.kill(pid, signal.SIGKILL)
        if not ended(pid, END_TIMEOUT_S):
            raise LocalClusterError(f"the {part}, process {pid}, did not end by kill -9")
        return pid

    def kill_primary(self, key: str) -> int:
        """kill -9 the primary that decides on a SKU or campaign; answers its process id."""
        return self.kill("primary", key)

    def kill_standby(self, key: str) -> int:
        """kill -9 the standby of a SKU's or campaign's shard; answers its process id."""
        return self.kill("standby", key)

    def kill_gateway(self) -> int:
        """kill -9 the first gateway; answers its process id."""
        return self.kill("gateway")

    def kill_projector(self) -> int:
        """kill -9 the first write-behind process; answers its process id."""
        return self.kill("projector")

    def pause(self, part: Part, key: str = "") -> Fault:
        """SIGSTOP a process, as `kill` names it; the end lets it go on. One that was replaced
        meanwhile ends itself then."""
        if part in ("journal", "database"):
            pid: int = self._call("act_on_store", store=part, act="pid")
        else:
            pid = self.pid_of(part, key)
        os.kill(pid, signal.SIGSTOP)

        def resume() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        return self._lasting(resume)

    def partition_journal(
        self, key: str = "", *, direction: Literal["both", "requests", "answers"] = "both"
    ) -> Fault:
        """Nobody reaches the journal or, with `key`, not the present primary of its shard.

        Redis: bytes are held back on open connections, one way or both, and delivered at the end,
        so that a request which was given up may still take effect. SQLite has no network: the
        write lock of every shard, or of the key's, is held by somebody else. Nobody can append,
        everybody can read; one `direction` is NotOffered."""
        if self._fact("journal_url"):
            pid = self.pid_of("primary", key) if key else None
            self._call("free_journal")
            self._call("stall_journal", direction=direction, pid=pid)
        else:
            if direction != "both":
                self._call("stall_journal", direction=direction, pid=None)
            shards = [self.shard_of(key)] if key else range(len(self.status().shards))
            self._call("free_journal")
            self._call("lock_journal", shards=list(shards))
        return self._lasting(lambda: self._call("free_journal"))

    def slow_journal(self, delay_ms: int) -> Fault:
        """Every request to Redis and every answer comes this much later, 0-60,000. NotOffered on
        SQLite."""
        self._call("free_journal")
        self._call("delay_journal", delay_ms=delay_ms)
        return self._lasting(lambda: self._call("free_journal"))

    def stop_database(self) -> None:
        """kill -9 MariaDB. NotOffered on SQLite, which no server keeps."""
        self.kill("database")

    def start_database(self) -> None:
        """Start MariaDB again, on its data and port."""
        self._call("act_on_store", store="database", act="start")

    def heal(self, *, timeout_s: float = SETTLE_TIMEOUT_S) -> ClusterStatus:
        """End all faults that last, start what does not run, and wait until all is whole."""
        self._end_faults()
        self.start()
        return self.wait_ready(timeout_s=timeout_s)

    def pid_of(self, part: Part, key: str = "", *, timeout_s: float = SETTLE_TIMEOUT_S) -> int:
        """The process id of a part, as `kill` names it; waits while there is none."""
        if part == "projector":
            found = self._call("projectors")
            if not found:
                raise LocalClusterError("no write-behind process runs on this cluster's own Ray")
            return int(found[0])
        if part == "relay":
            found = self._call("relays")
            if not found:
                raise LocalClusterError("no relay runs on this cluster's own Ray")
            return int(found[0])
        if part == "gateway":
            status = self.wait_until(lambda s: bool(s.gateways), "a gateway", timeout_s=timeout_s)
            return status.gateways[0].pid
        if part not in ("primary", "standby"):
            raise ValueError(f"part: {part!r} has no process id that is told")
        if not key:
            raise ValueError(f"key: a SKU or campaign, so that it is clear which {part} is meant")
        shard = self.shard_of(key)
        role = ReplicaRole[part.upper()]
        status = self.wait_until(
            lambda s: bool(pid_of(s, shard, role)),
            f"shard {shard} to have a {part}",
            timeout_s=timeout_s,
        )
        return pid_of(status, shard, role)

    def _lasting(self, end: Callable[[], None]) -> Fault:
        fault = Fault(end)
        self._faults.append(fault)
        return fault

    def _end_faults(self) -> None:
        while self._faults:
            self._faults.pop().end()

    def _fact(self, name: str) -> str:
        if not self._facts:
            raise LocalClusterError(f"{name}: the local cluster was not started")
        return str(self._facts[name])

    def _call(self, act: str, timeout_s: float = ACT_TIMEOUT_S, /, **arguments: Any) -> Any:
        link = self._link
        if link is None:
            raise LocalClusterError(f"{act}: the local cluster is not running")
        return link.call(act, timeout_s, **arguments)

    def _log_paths(self) -> Mapping[str, Path]:
        directory = self.directory
        paths = {
            "serve": directory / "serve.log",
            "redis": directory / "r" / "server.log",
            "mariadb": directory / "m" / "server.log",
        }
        found = Path(self._fact("log_directory")).glob("*.log")
        return paths | {path.stem: path for path in found}


def _patient(changes: OptionChanges) -> OptionChanges:
    options: OptionChanges = {"timeout_ms": 30_000, "rpc_timeout_ms": 5_000}
    options.update(changes)
    return options
