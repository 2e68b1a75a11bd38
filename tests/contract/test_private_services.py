"""Private servers: ours alone, and gone with us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pymysql
import pytest
from sqlalchemy import make_url

from persistence.private import PrivateMariaDB, PrivateRedis, ServerFailedError
from tests.helpers.services import private_redis, require, short_directory

ROOT = Path(__file__).resolve().parents[2]
STARTER = """
import sys, time
from persistence.private import PrivateRedis
server = PrivateRedis(sys.argv[1])
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_a_server_dies_with_the_process_that_started_it() -> None:
    require(PrivateRedis.available(), "redis-server is not installed: run tools/services.sh")
    with short_directory() as directory:
        starter = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(directory)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert starter.stdout is not None
        server_pid = int(starter.stdout.readline())
        starter.send_signal(signal.SIGKILL)
        starter.communicate()
        deadline_s = time.monotonic() + 30
        while is_running(server_pid):
            assert time.monotonic() < deadline_s, "the server outlived its parent"
            time.sleep(0.01)


def is_running(pid: int) -> bool:
    """False for a zombie too: nobody may be there to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")")[-1][1] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_server_that_cannot_start_shows_its_log() -> None:
    with private_redis() as server, short_directory() as directory:
        rival = PrivateRedis(directory, port=server.port)
        with pytest.raises(ServerFailedError, match="Address already in use"):
            rival.start()
        with pytest.raises(ServerFailedError, match="not running"):
            os.kill(rival.pid, 0)


def test_a_database_server_keeps_its_data_through_a_kill() -> None:
    require(PrivateMariaDB.available(), "mariadbd is not installed: run tools/services.sh")
    with short_directory() as directory:
        server = PrivateMariaDB(directory)
        try:
            server.start()
            query(server, "CREATE TABLE kept (word VARCHAR(20))")
            query(server, "INSERT INTO kept VALUES ('库存')")
            server.restart()
            assert query(server, "SELECT word FROM kept") == (("库存",),)
            settings = "SELECT @@innodb_flush_log_at_trx_commit, @@character_set_database"
            assert query(server, settings) == ((1, "utf8mb4"),)
        finally:
            server.stop()


def query(server: PrivateMariaDB, statement: str) -> object:
    url = make_url(server.url)
    with (
        pymysql.connect(
            host=url.host,
            port=url.port or 0,
            user=url.username,
            password=url.password or "",
            database=url.database,
            charset="utf8mb4",
            autocommit=True,
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
        return cursor.fetchall()
