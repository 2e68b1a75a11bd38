"""Real services for tests: private processes; missing ones skip loudly, and fail when CI is set."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from persistence.private import PrivateMariaDB, PrivateRedis


def require(available: bool, what: str) -> None:
    """Go on when `available`; else skip with the reason, or fail when the environment has CI."""
    if available:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{what} (and CI is set, so this is not skipped)")
    pytest.skip(what)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A temporary directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp") as directory:
        yield Path(directory)


@contextmanager
def private_redis(settings: dict[str, str] | None = None) -> Iterator[PrivateRedis]:
    """A running Redis with the journal's settings, but for the ones given."""
    require(PrivateRedis.available(), "redis-server is not installed: run tools/services.sh")
    with short_directory() as directory:
        server = PrivateRedis(directory, settings=settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def private_mariadb() -> Iterator[PrivateMariaDB]:
    """A running MariaDB with an empty database `stockray`."""
    require(PrivateMariaDB.available(), "mariadbd is not installed: run tools/services.sh")
    with short_directory() as directory:
        server = PrivateMariaDB(directory)
        server.start()
        try:
            yield server
        finally:
            server.stop()
