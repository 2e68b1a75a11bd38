"""Before anything starts: the stores are there, are ours, agree, and would lose nothing.

Rules
-----
* A cluster is made once. Its map (slots, shards, incarnation) is written first, then the journals,
  then the map is marked ready; a start that finds it ready never makes a journal again. So a wiped
  store is found, and never started empty.
* The database's position is compared with the journal's end: a journal that ends earlier has lost
  acknowledged entries, and only `accept_journal` starts over that.
* The embedded database is migrated here; any other never silently.
"""

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from typing import Any, NamedTuple

from actors.core.identity import SLOT_COUNT
from actors.specs import slots_between, stock_shards_of
from persistence.errors import NoJournal, StorageError
from persistence.open import open_journal, open_sink, open_snapshots
from persistence.ports import Journal, Sink
from persistence.sql.cluster import KeptMap, SqlCluster
from server.settings import Settings

DEFAULT_SHARDS = 2
DEFAULT_ACCOUNT_SHARDS = 1


class CannotStart(Exception):
    """Why the service does not start, and what to do. `unreachable`: a store cannot be reached."""

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


class ShardMap(NamedTuple):
    """Which shard owns which slot, and of which cluster."""

    version: int
    incarnation: str
    slots_of: tuple[int, ...]

    @property
    def shards(self) -> int:
        """How many shards there are, of both kinds."""
        return max(self.slots_of) + 1

    @property
    def stock_shards(self) -> int:
        """How many of them own stock: the first ones."""
        return stock_shards_of(self.slots_of)

    @property
    def account_shards(self) -> int:
        """How many own accounts: the others. None in a map of a release before them, which the
        next start extends."""
        return self.shards - self.stock_shards


class DirectoryLock:
    """Holds a data directory for one server at a time."""

    def __init__(self, settings: Settings) -> None:
        directory = settings.data_dir
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / "LOCK").open("a+")
        except OSError as error:
            raise CannotStart(f"data_dir: cannot use {directory}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            raise CannotStart(
                f"data_dir: {directory} is in use by {holder}; stop that server or choose another "
                "directory with --data-dir"
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}")
        self._file.flush()

    def release(self) -> None:
        """Let the next server have it."""
        self._file.truncate(0)
        self._file.close()


def prepare(settings: Settings, warn: Callable[[str], None]) -> ShardMap:
    """Make or check the stores; answers the shard map. What is allowed but unwise goes to `warn`.
    CannotStart."""
    journal, sink = _open(settings)
    try:
        for warning in journal.verify_settings():
            warn(warning)
        _prepare_database(settings, sink)
        shard_map = _read_map(journal)
        if shard_map is None:
            _require_nothing_stored(settings, sink)
            shard_map = _make(settings, journal)
        _require_shards(settings, shard_map)
        _compare(settings, journal, sink, shard_map)
        if not shard_map.account_shards:
            shard_map = _extend(settings, journal, shard_map)
        _keep_map(settings, journal)
    except StorageError as error:
        raise CannotStart(str(error), unreachable=error.retriable) from error
    finally:
        journal.close()
        sink.close()
    return shard_map


def read_map(journal: Journal) -> ShardMap:
    """The map of an existing cluster. CannotStart if there is none."""
    shard_map = _read_map(journal)
    if shard_map is None:
        raise CannotStart("journal: holds no cluster; start one with `stockray serve`")
    return shard_map


def require_free_port(listen: str) -> str:
    """`listen` with a port that nobody listens on (port 0 is chosen now). CannotStart.

    Gateways share the port, so none of them would notice a stranger there."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise CannotStart(
                f"listen: cannot listen on {listen}: {error.strerror}; choose another with --listen"
            ) from error
        chosen = probe.getsockname()[1]
    return f"[{host}]:{chosen}" if family == socket.AF_INET6 else f"{host}:{chosen}"


def _open(settings: Settings) -> tuple[Journal, Sink]:
    try:
        # The journal first: a wrong address is then told under the name of its setting.
        journal = open_journal(settings.journal_url)
        open_snapshots(settings.snapshots_url).close()
        return journal, open_sink(settings.database_url)
    except StorageError as error:
        raise CannotStart(str(error)) from error


def _prepare_database(settings: Settings, sink: Sink) -> None:
    if settings.embedded_database:
        sink.upgrade()
    sink.require_revision()


def _read_map(journal: Journal) -> ShardMap | None:
    version, data = journal.read_map()
    if not version:
        return None
    fields: dict[str, Any] = json.loads(data)
    if not fields["ready"] and "recovers" in fields:
        raise CannotStart(
            "journal: a recovery was begun and did not come to its end; run "
            "`stockray recover --from-sql` again, and it goes on"
        )
    if not fields["ready"] and "restores" in fields:
        raise CannotStart(
            "journal: its store holds a restore that did not come to its end; empty the stores and "
            "run `stockray restore` again"
        )
    if not fields["ready"]:
        made = range(fields.pop("extends_from", 0), max(fields["slots_of"]) + 1)
        _create_journals(journal, fields["incarnation"], made)
        fields["ready"] = True
        journal.swap_map(expected_version=version, data=json.dumps(fields).encode())
        version += 1
    return ShardMap(version, fields["incarnation"], tuple(fields["slots_of"]))


def _require_nothing_stored(settings: Settings, sink: Sink) -> None:
    """No map means a new cluster, unless the database has seen one."""
    for shard in range(256):
        incarnation, seq = sink.position(shard)
        if incarnation and not settings.accept_journal:
            raise CannotStart(
                f"journal: holds no cluster, but the database has applied entry {seq} of shard "
                f"{shard}: the journal store was wiped or is another one. Point --journal at the "
                "right store, restore it, make it anew from the database (`stockray recover "
                "--from-sql`), or use an empty database"
            )


def _make(settings: Settings, journal: Journal) -> ShardMap:
    shards = settings.shards or DEFAULT_SHARDS
    incarnation = uuid.uuid4().hex
    slots_of = slots_between(shards, settings.account_shards or DEFAULT_ACCOUNT_SHARDS)
    fields = {"incarnation": incarnation, "slots_of": slots_of, "ready": False}
    # Who loses the race finds the winner's map below.
    journal.swap_map(expected_version=0, data=json.dumps(fields).encode())
    made = _read_map(journal)
    if made is None:
        raise CannotStart("journal: the shard map could not be written")
    return made


def _extend(settings: Settings, journal: Journal, shard_map: ShardMap) -> ShardMap:
    """Account shards for a cluster of a release before them. Cut off between the two writes, the
    next start finds what is left to do; journals that were there are never made again."""
    stock = shard_map.stock_shards
    fields = json.loads(journal.read_map()[1])
    whole = slots_between(stock, settings.account_shards or DEFAULT_ACCOUNT_SHARDS)
    fields["slots_of"] = (*shard_map.slots_of, *whole[SLOT_COUNT:])
    fields |= {"ready": False, "extends_from": stock}
    journal.swap_map(expected_version=shard_map.version, data=json.dumps(fields).encode())
    made = _read_map(journal)
    if made is None or not made.account_shards:
        raise CannotStart("journal: its map has changed meanwhile: something else is at work")
    return made


def _create_journals(journal: Journal, incarnation: str, shards: Iterable[int]) -> None:
    for shard in shards:
        journal.create(shard, incarnation=incarnation)


def _require_shards(settings: Settings, shard_map: ShardMap) -> None:
    for name, wanted, there in (
        ("shards", settings.shards, shard_map.stock_shards),
        ("account_shards", settings.account_shards, shard_map.account_shards),
    ):
        if wanted is not None and there and wanted != there:
            raise CannotStart(
                f"{name}: this cluster has {there}; leave it out "
                "(changing the number of a stored cluster is not offered yet)"
            )


def _compare(settings: Settings, journal: Journal, sink: Sink, shard_map: ShardMap) -> None:
    for shard in range(shard_map.shards):
        try:
            meta = journal.read_meta(shard)
        except NoJournal as error:
            raise CannotStart(
                f"journal: the journal of shard {shard} is missing from a cluster that had it; "
                "nothing was started. Restore the journal store, or make it anew from the database "
                "(`stockray recover --from-sql`)"
            ) from error
        incarnation, seq = sink.position(shard)
        if incarnation and incarnation != meta.incarnation:
            raise CannotStart(
                f"database: its rows of shard {shard} belong to another cluster "
                f"({incarnation[:8]}; the journal is {meta.incarnation[:8]}); use its own database"
            )
        if seq > meta.last_seq and not settings.accept_journal:
            raise CannotStart(
                f"journal: shard {shard} ends at entry {meta.last_seq}, but the database has "
                f"applied entry {seq}: acknowledged entries are missing from the journal. Restore "
                "it, or make it anew from the database (`stockray recover --from-sql`); "
                "--accept-journal starts without them"
            )


def _keep_map(settings: Settings, journal: Journal) -> None:
    """A copy of the map in the database, for the day on which the journal's store is lost."""
    version, data = journal.read_map()
    incarnation = json.loads(data)["incarnation"]
    with closing(SqlCluster(settings.database_url)) as cluster:
        cluster.keep_map(KeptMap(version, incarnation, data.decode()))


def release_quietly(lock: DirectoryLock | None) -> None:
    """Release a lock at the end of a command, whatever happened before."""
    if lock is not None:
        with suppress(OSError, ValueError):
            lock.release()
