"""Stores for the contract suites: every test of a port runs over every adapter, on real servers."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from persistence.files import FileSnapshots
from persistence.memory import MemoryJournal, MemorySnapshots
from persistence.ports import Journal, Snapshots
from persistence.private import PrivateMariaDB, PrivateRedis
from persistence.redis import RedisJournal
from persistence.redis_link import RedisLink
from persistence.redis_snapshots import RedisSnapshots
from persistence.sqlite import SqliteJournal
from tests.helpers.services import private_mariadb, private_redis

_PREFIXES = (f"test{number}" for number in itertools.count())


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStore:
    """One journal store. `connect` answers one more client of it, as another process would have."""

    connect: Callable[[], Journal]
    wipe: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotStore:
    """One snapshot store. `damage` and `remove` (shard, index) hit that chunk of every snapshot."""

    connect: Callable[[], Snapshots]
    damage: Callable[[int, int], None]
    remove: Callable[[int, int], None]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[PrivateRedis]:
    with private_redis() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[PrivateMariaDB]:
    with private_mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_url(mariadb_server: PrivateMariaDB) -> str:
    return mariadb_server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> JournalStore:
    if request.param == "memory":
        journal = MemoryJournal()
        return JournalStore(connect=lambda: journal, wipe=journal.wipe)
    if request.param == "sqlite":
        return _sqlite_store(request, tmp_path)
    return _redis_store(request, request.getfixturevalue("redis_server").url)


@pytest.fixture
def journal(store: JournalStore) -> Journal:
    """A client of the store, whose shard 7 has an empty journal `inc-1` that nobody owns."""
    journal = store.connect()
    journal.create(7, incarnation="inc-1")
    return journal


@pytest.fixture(params=["memory", "files", "redis"])
def snapshot_store(request: pytest.FixtureRequest, tmp_path: Path) -> SnapshotStore:
    if request.param == "memory":
        snapshots = MemorySnapshots()
        return SnapshotStore(
            connect=lambda: snapshots, damage=snapshots.damage, remove=snapshots.lose
        )
    if request.param == "files":
        return _file_store(tmp_path)
    return _redis_snapshot_store(request, request.getfixturevalue("redis_server").url)


@pytest.fixture
def snapshots(snapshot_store: SnapshotStore) -> Snapshots:
    return snapshot_store.connect()


def _sqlite_store(request: pytest.FixtureRequest, directory: Path) -> JournalStore:
    def connect() -> Journal:
        journal = SqliteJournal(directory)
        request.addfinalizer(journal.close)
        return journal

    def wipe(shard: int) -> None:
        for path in directory.glob(f"shard-{shard:04d}*"):
            path.unlink()

    return JournalStore(connect=connect, wipe=wipe)


def _redis_store(request: pytest.FixtureRequest, url: str) -> JournalStore:
    prefix = next(_PREFIXES)

    def connect() -> Journal:
        journal = RedisJournal(url, prefix=prefix)
        request.addfinalizer(journal.close)
        return journal

    def wipe(shard: int) -> None:
        link = RedisLink(url, timeout_ms=10_000)
        for name in ("meta", "log", "positions"):
            link.call("DEL", f"{prefix}:{{{shard}}}:{name}")
        link.close()

    return JournalStore(connect=connect, wipe=wipe)


def _file_store(directory: Path) -> SnapshotStore:
    def chunks(shard: int, index: int) -> list[Path]:
        return list(directory.glob(f"shard-{shard:04d}/*/chunk-{index:06d}"))

    def damage(shard: int, index: int) -> None:
        for path in chunks(shard, index):
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    def remove(shard: int, index: int) -> None:
        for path in chunks(shard, index):
            path.unlink()

    return SnapshotStore(connect=lambda: FileSnapshots(directory), damage=damage, remove=remove)


def _redis_snapshot_store(request: pytest.FixtureRequest, url: str) -> SnapshotStore:
    prefix = next(_PREFIXES)
    link = RedisLink(url, timeout_ms=10_000)
    request.addfinalizer(link.close)

    def connect() -> Snapshots:
        snapshots = RedisSnapshots(url, prefix=prefix)
        request.addfinalizer(snapshots.close)
        return snapshots

    def keys(shard: int) -> list[bytes]:
        # The braces are literal in a Redis pattern; only brackets, ? and * are special.
        found: list[bytes] = link.call("KEYS", f"{prefix}:{{{shard}}}:snapshot:*")
        return found

    def damage(shard: int, index: int) -> None:
        for key in keys(shard):
            data = link.call("HGET", key, index)
            link.call("HSET", key, index, data[:-1] + bytes([data[-1] ^ 1]))

    def remove(shard: int, index: int) -> None:
        for key in keys(shard):
            link.call("HDEL", key, index)

    return SnapshotStore(connect=connect, damage=damage, remove=remove)
