"""Every start that cannot be good is refused: a clear message, the right exit code, no change.

Codes: 1 failed, 2 usage, 4 a store cannot be reached. Nothing but the lock file and logs may appear
in the data directory, and nothing in it may change.
"""

import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.open import open_journal, open_sink
from persistence.private import PrivateMariaDB
from server.bootstrap import prepare
from server.settings import load
from tests.helpers.services import private_mariadb, private_redis
from tests.helpers.stack import stockray

PORT = ("--listen", "127.0.0.1:0")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A directory that no server has seen."""
    return tmp_path / "data"


@pytest.fixture
def used_dir(data_dir: Path) -> Path:
    """A directory of a cluster that was made and stopped."""
    data_dir.mkdir()
    prepare(load({"data_dir": data_dir}, environment={}).settings, print)
    return data_dir


@pytest.fixture(scope="module")
def mariadb() -> Iterator[PrivateMariaDB]:
    """A server with an empty database, never upgraded."""
    with private_mariadb() as server:
        yield server


def content(directory: Path) -> dict[str, str]:
    """Digests of all files but the lock's and the logs'."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "LOCK" and "logs" not in path.parts
    }


def serve(
    data_dir: Path, *flags: str, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """A start that must end by itself, and leave the directory as it was."""
    before = content(data_dir)
    done = stockray(
        "serve", "--data-dir", str(data_dir), *PORT, *flags, environment=environment, cwd=cwd
    )
    assert content(data_dir) == before, "a refused start changed something"
    assert done.stdout == "", "standard output is for data"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_an_unknown_key_in_the_environment_is_named(data_dir: Path) -> None:
    done = serve(data_dir, environment={"STOCKRAY_SHARD": "4"})
    assert done.returncode == 2
    assert "shard (environment): no such setting" in done.stderr
    assert "shards" in done.stderr, "the known keys are listed"
    assert not data_dir.exists()


def test_an_unknown_key_in_the_file_is_named(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "stockray.toml").write_text("gatewys = 2\n")
    done = serve(data_dir, cwd=tmp_path)
    assert done.returncode == 2
    assert "gatewys (stockray.toml): no such setting" in done.stderr
    assert not data_dir.exists()


def test_an_unknown_flag_is_named(data_dir: Path) -> None:
    done = serve(data_dir, "--shrads", "2")
    assert done.returncode == 2
    assert "No such option: --shrads" in done.stderr
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--shards", "0"), "shards (flag):"),
        (("--listen", "nowhere"), "listen (flag):"),
        (("--front", "apache"), "front (flag):"),
        (("--config", "/nowhere/stockray.toml"), "/nowhere/stockray.toml: no such file"),
    ],
)
def test_a_wrong_value_is_named_with_where_it_came_from(
    data_dir: Path, flags: tuple[str, ...], message: str
) -> None:
    done = serve(data_dir, *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert not data_dir.exists()


def test_an_unknown_kind_of_journal_is_refused(data_dir: Path) -> None:
    done = serve(data_dir, "--journal", "kafka://u:secret@localhost/0")
    assert done.returncode == 1
    assert "journal: unknown scheme 'kafka'" in done.stderr
    assert "secret" not in done.stderr


def test_a_redis_that_is_not_there_is_unreachable(data_dir: Path, free_port: int) -> None:
    done = serve(data_dir, "--journal", f"redis://127.0.0.1:{free_port}/0")
    assert done.returncode == 4
    assert "cannot connect to Redis" in done.stderr
    assert str(free_port) in done.stderr


def test_a_mysql_that_is_not_there_is_unreachable(data_dir: Path, free_port: int) -> None:
    url = f"mysql+pymysql://stockray:secret@127.0.0.1:{free_port}/stockray"
    done = serve(data_dir, "--database", url)
    assert done.returncode == 4
    assert str(free_port) in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"appendonly": "no"}, "appendonly must be 'yes' (it is 'no')"),
        ({"appendfsync": "everysec"}, "appendfsync must be 'always' (it is 'everysec')"),
        ({"maxmemory-policy": "allkeys-lru"}, "maxmemory-policy must be 'noeviction'"),
    ],
)
def test_a_redis_that_would_lose_sales_is_refused(
    data_dir: Path, settings: dict[str, str], message: str
) -> None:
    with private_redis(settings) as redis:
        done = serve(data_dir, "--journal", redis.url)
        assert done.returncode == 1
        assert message in done.stderr
        assert open_journal(redis.url).read_map() == (0, b""), "nothing was written"


def test_a_port_that_somebody_has_is_refused(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        done = serve(data_dir, "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert content(data_dir) == {}


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = serve(tmp_path / "file" / "data")
    assert done.returncode == 1
    assert "data_dir: cannot use" in done.stderr


@pytest.mark.parametrize("name", ["journal", "tables"])
def test_a_damaged_file_is_refused_by_name(used_dir: Path, name: str) -> None:
    """The journal of one shard, or the SQL view: what is in it can no longer be read."""
    found = used_dir / "tables.db"
    if name == "journal":
        found = next((used_dir / "journal").glob("*0001*.db"))
    for sidecar in found.parent.glob(f"{found.name}-*"):
        sidecar.unlink()
    found.write_bytes(b"no database at all" + os.urandom(8_000))
    done = serve(used_dir)
    assert done.returncode == 1
    assert found.name in done.stderr


def test_a_wiped_journal_is_never_started_empty(used_dir: Path) -> None:
    next((used_dir / "journal").glob("*0001*.db")).unlink()
    done = serve(used_dir)
    assert done.returncode == 1
    assert "journal of shard 1 is missing" in done.stderr


def test_another_number_of_shards_is_refused(used_dir: Path) -> None:
    done = serve(used_dir, "--shards", "3")
    assert done.returncode == 1
    assert "this cluster has 2" in done.stderr


def test_a_database_that_is_not_upgraded_is_never_upgraded_silently(
    data_dir: Path, mariadb: PrivateMariaDB
) -> None:
    done = serve(data_dir, "--database", mariadb.url)
    assert done.returncode == 1
    assert "stockray db upgrade" in done.stderr

    now = stockray("db", "current", "--database", mariadb.url, "-o", "json")
    assert (now.returncode, json.loads(now.stdout)["revision"]) == (3, "")
    assert stockray("db", "upgrade", "--database", mariadb.url).returncode == 0
    now = stockray("db", "current", "--database", mariadb.url, "-o", "json")
    assert now.returncode == 0
    assert json.loads(now.stdout)["current"] is True
    sink = open_sink(mariadb.url)
    sink.require_revision()
    sink.close()


def test_verify_without_a_cluster_says_so(data_dir: Path) -> None:
    data_dir.mkdir()
    done = stockray("verify", "--data-dir", str(data_dir))
    assert done.returncode == 1
    assert "holds no cluster" in done.stderr
    assert done.stdout == ""


def test_verify_of_a_service_that_is_not_there_is_unreachable(
    used_dir: Path, free_port: int
) -> None:
    address = f"127.0.0.1:{free_port}"
    done = stockray("verify", "--data-dir", str(used_dir), "--address", address)
    assert done.returncode == 4
    assert address in done.stderr


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
