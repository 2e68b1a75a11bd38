"""Whose CPU a row took, and which process had no time left ("where the time goes").

The kernel counts, per thread, what it ran and what it waited for a core. A process that ran or
waited for a core all the time is what everybody else waits for: that shows also on a machine where
others took the core away.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stockray import ClusterStatus, ReplicaRole

from actors.core.identity import slot_of
from server.bench.result import CAMPAIGN
from server.children import descendants

TICKS = os.sysconf("SC_CLK_TCK")
SATURATED = 0.9
"""A process that wanted the CPU for more than this part of the time is the limit."""
WAITED_FOR = ("client", "gateway", "shard", "journal", "server")
"""Roles that a call waits for. Standby, write-behind and SQL follow in their own time; on a machine
with few cores they take some away, which shows as waiting in the others."""

Roles = Mapping[str, Sequence[int]]
"""Process ids by role."""


class Usage(NamedTuple):
    """One look at one process."""

    cpu_s: float
    threads_s: Mapping[str, float]
    """Running and waiting for a core, by thread."""


class Shares(NamedTuple):
    """What roles used between two looks; see `Measured`."""

    cpu_s: dict[str, float]
    cores: dict[str, float]
    wanted: dict[str, float]
    limit: str


class Watch:
    """Looks at processes when made, and again when asked."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._began = time.perf_counter()
        self._before = {pid: usage_of(pid) for pids in roles.values() for pid in pids}

    def shares(self) -> Shares:
        """What was used since then."""
        took = time.perf_counter() - self._began
        cpu: dict[str, float] = {}
        wanted: dict[str, float] = {}
        for role, pids in self._roles.items():
            cpu[role] = wanted[role] = 0.0
            for pid in pids:
                before, after = self._before[pid], usage_of(pid)
                cpu[role] += max(0.0, after.cpu_s - before.cpu_s)
                busiest = max(
                    (s - before.threads_s.get(t, 0.0) for t, s in after.threads_s.items()),
                    default=0.0,
                )
                # Threads of one interpreter take turns, so all of them together count as well.
                together = (after.cpu_s - before.cpu_s) / took
                wanted[role] = max(wanted[role], busiest / took, together)
        limit = max(
            (role for role in WAITED_FOR if role in wanted),
            key=lambda role: wanted[role],
            default="",
        )
        return Shares(
            cpu,
            {role: round(used / took, 2) for role, used in cpu.items()},
            {role: round(part, 2) for role, part in wanted.items()},
            limit if limit and wanted[limit] >= SATURATED else "",
        )


def usage_of(pid: int) -> Usage:
    """Of a process; nothing of one that is gone."""
    threads: dict[str, float] = {}
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            ran_ns, waited_ns, _ = path.read_text().split()
            threads[path.parent.name] = (int(ran_ns) + int(waited_ns)) / 1e9
    except OSError:
        return Usage(0.0, threads)
    return Usage((int(fields[11]) + int(fields[12])) / TICKS, threads)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files_max(pid: int) -> int:
    """How many files and sockets a process may have open."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else 2**31
    return 0


def service_roles(status: ClusterStatus, serve_pid: int) -> dict[str, list[int]]:
    """The processes of a service that this machine runs: those of the benchmark's shard, its
    gateways, write-behind, and the stores that this run started."""
    shard = status.stock_shards[slot_of(CAMPAIGN) % len(status.stock_shards)]
    names = {ReplicaRole.PRIMARY: "shard", ReplicaRole.STANDBY: "standby"}
    roles: dict[str, list[int]] = {"gateway": [gateway.pid for gateway in status.gateways]}
    for replica in shard.replicas:
        if replica.role in names:
            roles[names[replica.role]] = [replica.pid]
    roles["projector"] = _named("ProjectorProcess", serve_pid)
    roles["journal"] = _named("redis-server", os.getpid())
    roles["database"] = _named("mariadbd", os.getpid())
    return {role: pids for role, pids in roles.items() if pids}


def relay_roles(status: ClusterStatus, serve_pid: int) -> dict[str, list[int]]:
    """The processes that bring orders to accounts: the relay, and replicas of account shards."""
    roles: dict[str, list[int]] = {
        "relay": _named("RelayProcess", serve_pid),
        "accounts": [],
        "accounts_standby": [],
    }
    names = {ReplicaRole.PRIMARY: "accounts", ReplicaRole.STANDBY: "accounts_standby"}
    for shard in status.shards:
        for replica in shard.replicas:
            if shard.accounts and replica.role in names:
                roles[names[replica.role]].append(replica.pid)
    return roles


def _named(word: str, parent: int) -> list[int]:
    """Processes below `parent` whose command begins with a path or title that has `word`."""
    found = []
    for pid in descendants(parent):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0]
        except OSError:
            continue
        if word.encode() in command:
            found.append(pid)
    return found
