"""What a running service takes: memory, handles and threads of its processes, files, tables.

Everything is looked at from outside: `/proc`, the data directory, the public status, the database's
own counts. A process that ends between two lines of a look counts as nothing.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from stockray import ClusterStatus, ReplicaRole, VerifyReport

from server.children import descendants
from server.settings import Settings

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MEMORY, HANDLES, THREADS = "memory", "handles", "threads"
CLIENT, RAY = "client", "ray"
NAMED = {
    "gcs_server": "gcs",
    "raylet": "raylet",
    "ray::ProjectorProcess": "projector",
    "ray::RelayProcess": "relay",
    "ray::GatewayProcess": "gateway",
}
"""Role by how a process calls itself."""
SQL_TABLES = (
    "reservations",
    "payments",
    "refunds",
    "stock_documents",
    "transfers",
    "campaigns",
    "pools",
    "audit",
    "dead_letters",
)


class Sampler:
    """Looks at one service that `serve_pid` is the first process of."""

    def __init__(self, settings: Settings, serve_pid: int, *, shards: int) -> None:
        self._settings = settings
        self._serve_pid = serve_pid
        self._shards = shards
        self.ray_directory = _ray_directory(serve_pid)

    def roles(self, status: ClusterStatus) -> dict[str, list[int]]:
        """Process ids by role: those of each shard, and whoever else belongs to the service."""
        roles: dict[str, list[int]] = {CLIENT: [os.getpid()], "serve": [self._serve_pid]}
        of_shard = {
            replica.pid: f"shard {shard.shard}"
            for shard in status.shards
            for replica in shard.replicas
        }
        for pid in descendants(self._serve_pid):
            role = of_shard.get(pid) or NAMED.get(_name(pid), RAY)
            roles.setdefault(role, []).append(pid)
        return roles

    def processes(self, status: ClusterStatus) -> dict[str, float]:
        """Memory (bytes), handles and threads by role, and how many processes there are."""
        found: dict[str, float] = {}
        roles = self.roles(status)
        for role, pids in roles.items():
            found[f"{MEMORY} {role}"] = sum(_memory(pid) for pid in pids)
            found[f"{HANDLES} {role}"] = sum(_handles(pid) for pid in pids)
            found[f"{THREADS} {role}"] = sum(_threads(pid) for pid in pids)
        found["processes"] = sum(len(pids) for role, pids in roles.items() if role != CLIENT)
        return found

    def files(self) -> dict[str, float]:
        """Bytes on disk, by what they are for."""
        directory = self._settings.data_dir
        journal = list(_files(directory / "journal"))
        tables = list(directory.glob("tables.db*"))
        logs = self._settings.log_directory
        found: dict[str, float] = {
            "journal files": _bytes(path for path in journal if path.suffix == ".db"),
            "WAL files": _bytes(p for p in [*journal, *tables] if p.name.endswith("-wal")),
            "snapshot files": _bytes(_files(directory / "snapshots")),
            "SQL file": _bytes(path for path in tables if path.suffix == ".db"),
            "logs": _bytes(_files(logs)) + _bytes([directory.parent / "serve.log"]),
        }
        if self.ray_directory:
            found["Ray's files"] = _bytes(_files(Path(self.ray_directory)))
        return found

    def sql_rows(self) -> dict[str, float]:
        """Rows of the embedded database's tables; nothing of another database."""
        if not self._settings.embedded_database:
            return {}
        path = self._settings.data_dir / "tables.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return {
                f"rows {table}": float(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
                for table in SQL_TABLES
            }


def stood(status: ClusterStatus) -> dict[str, float]:
    """What the status tells: journal between trims, and how far others are behind."""
    return {
        "journal bytes": sum(shard.journal_bytes for shard in status.shards),
        "journal entries": sum(shard.seq - shard.first_seq + 1 for shard in status.shards),
        "entries not in SQL": sum(shard.seq - shard.sink_seq for shard in status.shards),
    }


def rows_in_memory(report: VerifyReport) -> dict[str, float]:
    """By shard, reservations that a standby holds; a primary that sells does not count them."""
    found = {}
    for shard in report.reports:
        counts = [
            replica.reservation_count
            for replica in shard.replicas
            if replica.role is ReplicaRole.STANDBY and replica.state_digest
        ]
        if counts:
            found[f"reservations in memory, shard {shard.shard}"] = float(max(counts))
    return found


def control_address(serve_pid: int) -> str:
    """Where Ray's global control service listens, as its raylet was told; '' if there is none."""
    return _word_of_raylet(serve_pid, "--gcs-address=")


def _ray_directory(serve_pid: int) -> str:
    return _word_of_raylet(serve_pid, "--temp_dir=")


def _word_of_raylet(serve_pid: int, beginning: str) -> str:
    for pid in descendants(serve_pid):
        if _name(pid) == "raylet":
            for word in _words(pid):
                if word.startswith(beginning):
                    return word.removeprefix(beginning)
    return ""


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _name(pid: int) -> str:
    words = _words(pid)
    return Path(words[0]).name.partition(" ")[0] if words else ""


def _memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _handles(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _threads(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[17])
    except (OSError, IndexError):
        return 0


def _files(directory: Path) -> Iterable[Path]:
    return (Path(at) / name for at, _, names in os.walk(directory) for name in names)


def _bytes(paths: Iterable[Path]) -> int:
    """What the files take on disk; sockets and files that are gone take nothing."""
    total = 0
    for path in paths:
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue
    return total
