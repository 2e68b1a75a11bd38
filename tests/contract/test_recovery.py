"""Recovery, backup and restore on servers, and from one kind of store to the other."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from persistence.open import open_sink
from persistence.private import PrivateRedis
from persistence.redis_link import RedisLink
from server.backup import Backup
from server.recover import Recovery
from server.recover_survey import Left
from server.restore import Restore
from server.settings import Settings
from server.verifying import verify_stores
from tests.helpers.databases import database_on
from tests.helpers.days import SHARDS, StoredDay, settings_in
from tests.helpers.services import private_redis


@pytest.fixture
def redis() -> Iterator[PrivateRedis]:
    """A server of its own, since it is wiped."""
    with private_redis() as server:
        yield server


@pytest.fixture
def servers(redis: PrivateRedis, mariadb_url: str, tmp_path: Path) -> Settings:
    """An empty cluster on Redis and MariaDB."""
    settings = settings_in(
        tmp_path / "servers", journal=redis.url, database=database_on(mariadb_url)
    )
    settings.data_dir.mkdir(parents=True)
    with closing(open_sink(settings.database_url)) as sink:
        sink.upgrade()
    return settings


def flush(redis: PrivateRedis) -> None:
    with closing(RedisLink(redis.url, timeout_ms=10_000)) as link:
        link.call("FLUSHALL")


@pytest.mark.parametrize("seed", range(3))
def test_a_flushed_redis_is_made_anew_from_mariadb(
    servers: Settings, redis: PrivateRedis, seed: int
) -> None:
    day = StoredDay(servers, seed)
    seqs = day.project_part(random.Random(seed))
    flush(redis)
    with closing(Recovery(servers, lambda _: None)) as recovery:
        found = recovery.look()
        assert [one.left for one in found.shards] == [Left.GONE] * SHARDS
        outcome = recovery.run(found, accept_differences=False)
    assert outcome.verified, outcome.violations
    assert [one.seq for one in outcome.found.shards] == seqs


def test_a_lost_stream_in_redis_costs_its_own_shard_alone(
    servers: Settings, redis: PrivateRedis
) -> None:
    day = StoredDay(servers, 4)
    seqs = day.project_part(random.Random(4))
    with closing(RedisLink(redis.url, timeout_ms=10_000)) as link:
        for name in ("meta", "log"):
            link.call("DEL", f"stockray:{{0}}:{name}")
    with closing(Recovery(servers, lambda _: None)) as recovery:
        outcome = recovery.run(recovery.look(), accept_differences=False)
    assert outcome.verified, outcome.violations
    assert [one.seq for one in outcome.found.shards] == [
        seqs[0],
        *(len(entries) for entries in day.entries[1:]),
    ]


def test_files_become_servers_and_servers_become_files(servers: Settings, tmp_path: Path) -> None:
    day = StoredDay(settings_in(tmp_path / "files"), 5)
    day.project_part(random.Random(5))
    before = verify_stores(day.settings)
    Backup(day.settings, tmp_path / "copy", lambda _: None).run()
    Restore(servers, tmp_path / "copy", lambda _: None).run()
    on_servers = verify_stores(servers)
    assert on_servers.ok, on_servers.as_data()["invariants"]
    assert on_servers.pools == before.pools
    Backup(servers, tmp_path / "again", lambda _: None).run()
    back = settings_in(tmp_path / "back")
    back.data_dir.mkdir(parents=True)
    Restore(back, tmp_path / "again", lambda _: None).run()
    on_files = verify_stores(back)
    assert on_files.ok, on_files.as_data()["invariants"]
    assert on_files.pools == before.pools
