"""What `SqlSink` does when a real MariaDB is killed, frozen or away in the middle of a batch."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from persistence.errors import Corrupt, NotApplied, OutcomeUnknown, PositionMoved
from persistence.private import PrivateMariaDB
from persistence.sql.sink import SqlSink
from tests.helpers.databases import database_on, execute, pool_rows, root_of
from tests.helpers.services import private_mariadb

COMMIT = b"\x03COMMIT"
TIMEOUT_MS = 1_000


class CommitTrap:
    """A proxy before a MySQL server that, once armed, springs around the next COMMIT.

    `before`: the COMMIT never reaches the server. `after`: it is executed, its answer withheld.
    Either way `spring` is called and then the connection is cut."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._armed: str = ""
        self._spring: Callable[[], None] = lambda: None
        port = self._listener.getsockname()[1]
        query = {k: v for k, v in self._target.query.items() if k != "unix_socket"}
        self.url = self._target.set(host="127.0.0.1", port=port, query=query).render_as_string(
            hide_password=False
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, when: str, spring: Callable[[], None]) -> None:
        self._armed, self._spring = when, spring

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), self._connect() as server:
            while True:
                readable, _, _ = select.select([client, server], [], [])
                for source in readable:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if self._armed and source is client and COMMIT in data:
                        self._trap(server, data)
                        return
                    (server if source is client else client).sendall(data)

    def _trap(self, server: socket.socket, data: bytes) -> None:
        when, self._armed = self._armed, ""
        if when == "after":
            server.sendall(data)
            assert server.recv(1 << 16)
        self._spring()

    def _connect(self) -> socket.socket:
        path = self._target.query.get("unix_socket")
        if not path:
            return socket.create_connection(
                (self._target.host or "127.0.0.1", self._target.port or 3306)
            )
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(path))
        return server


@pytest.fixture
def trap(mariadb_server: PrivateMariaDB) -> Iterator[CommitTrap]:
    trap = CommitTrap(database_on(mariadb_server.url))
    yield trap
    trap.close()


def impatient(url: str, timeout_ms: int = TIMEOUT_MS) -> SqlSink:
    """A sink on a database whose tables are there: making them may take longer than it waits."""
    with contextlib.closing(SqlSink(url)) as patient:
        patient.upgrade()
    return SqlSink(url, timeout_ms=timeout_ms)


@pytest.mark.parametrize(("when", "applied"), [("before", 0), ("after", 7)])
def test_after_a_cut_commit_the_position_tells_the_truth(
    trap: CommitTrap, when: str, applied: int
) -> None:
    sink = impatient(trap.url)
    sink.position(0)  # A new connection's set-up sends a COMMIT of its own.
    trap.arm(when, lambda: None)
    with pytest.raises(OutcomeUnknown):
        sink.apply(0, incarnation="i", from_seq=0, to_seq=7, rows=[pool_rows((1, 7, 5))])
    # The server notices a closed connection on its own; until then its row locks may stand.
    assert _settled_position(sink) == applied
    assert len(execute(trap.url, "SELECT seq FROM pools")) == (1 if applied else 0)
    sink.close()


def _settled_position(sink: SqlSink) -> int:
    """The position after a resend, which is refused exactly when the batch had been applied."""
    with contextlib.suppress(PositionMoved):
        sink.apply(0, incarnation="i", from_seq=0, to_seq=0, rows=())
    return sink.position(0)[1]


@pytest.mark.parametrize(("when", "applied"), [("before", 0), ("after", 7)])
def test_a_server_killed_during_commit_comes_back_whole(when: str, applied: int) -> None:
    with private_mariadb() as server:
        trap = CommitTrap(server.url)
        sink = impatient(trap.url)
        sink.position(0)  # A new connection's set-up sends a COMMIT of its own.
        trap.arm(when, server.kill9)
        with pytest.raises(OutcomeUnknown):
            sink.apply(0, incarnation="i", from_seq=0, to_seq=7, rows=[pool_rows((1, 7, 5))])
        with pytest.raises(NotApplied, match="setting `database`"):
            sink.position(0)
        server.start()
        assert sink.position(0)[1] == applied
        if not applied:
            sink.apply(0, incarnation="i", from_seq=0, to_seq=7, rows=[pool_rows((1, 7, 5))])
        assert execute(server.url, "SELECT generation, seq, available FROM pools") == [(1, 7, 5)]
        sink.close()
        trap.close()


@pytest.mark.parametrize("connected", [True, False])
def test_a_frozen_server_holds_a_call_for_a_bounded_time(
    mariadb_server: PrivateMariaDB, connected: bool
) -> None:
    sink = impatient(database_on(mariadb_server.url))
    if connected:
        sink.apply(0, incarnation="i", from_seq=0, to_seq=1, rows=())
    before = sink.position(0) if connected else ("", 0)
    mariadb_server.sigstop()
    began = time.monotonic()
    try:
        with pytest.raises(NotApplied):
            sink.apply(
                0,
                incarnation="i",
                from_seq=before[1],
                to_seq=9,
                rows=[pool_rows((1, 9, 5))],
            )
        took_ms = (time.monotonic() - began) * 1000
    finally:
        mariadb_server.sigcont()
    assert took_ms < 4 * TIMEOUT_MS + 500
    assert sink.position(0) == before
    sink.close()


def test_a_lock_held_elsewhere_rolls_the_whole_batch_back(mariadb_server: PrivateMariaDB) -> None:
    """MySQL answers 1205 by undoing one statement; the sink must undo the others too."""
    url = database_on(mariadb_server.url)
    sink = impatient(url, 2_900)
    sink.apply(0, incarnation="i", from_seq=0, to_seq=1, rows=[pool_rows((1, 1, 5), sku_id="b")])
    rival = SqlSink(url)
    with rival._engine.connect() as holder:
        holder.exec_driver_sql("SELECT * FROM pools WHERE sku_id = 'b' FOR UPDATE")
        batch = [pool_rows((1, 2, 4), sku_id="a"), pool_rows((1, 2, 4), sku_id="b")]
        with pytest.raises(NotApplied, match="1205"):
            sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=batch)
    assert execute(url, "SELECT sku_id, seq FROM pools") == [("b", 1)]
    sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=batch)
    assert execute(url, "SELECT sku_id, seq FROM pools ORDER BY sku_id") == [("a", 2), ("b", 2)]
    rival.close()
    sink.close()


def test_an_idle_connection_that_the_server_dropped_is_replaced(
    mariadb_server: PrivateMariaDB,
) -> None:
    url = database_on(mariadb_server.url)
    sink = impatient(url)
    sink.apply(0, incarnation="i", from_seq=0, to_seq=1, rows=())
    name = make_url(url).database
    for (thread,) in execute(
        root_of(mariadb_server.url),
        f"SELECT id FROM information_schema.processlist WHERE db = '{name}'",
    ):
        execute(root_of(mariadb_server.url), f"KILL {thread}")
    sink.apply(0, incarnation="i", from_seq=1, to_seq=2, rows=())
    assert sink.position(0) == ("i", 2)
    sink.close()


def test_a_server_with_lax_settings_still_refuses_what_does_not_fit(
    mariadb_server: PrivateMariaDB,
) -> None:
    url = database_on(mariadb_server.url)
    sink = SqlSink(url)
    sink.upgrade()
    ((usual,),) = execute(url, "SELECT @@GLOBAL.sql_mode")
    execute(root_of(url), "SET GLOBAL sql_mode = ''")
    try:
        strict = SqlSink(url)
        with pytest.raises(Exception, match="Data too long") as refused:
            strict.apply(
                0,
                incarnation="i",
                from_seq=0,
                to_seq=1,
                rows=[pool_rows((1, 1, 1), sku_id="x" * 129)],
            )
        assert not getattr(refused.value, "retriable", True)
        strict.close()
    finally:
        execute(root_of(url), f"SET GLOBAL sql_mode = '{usual}'")
    sink.close()


def test_a_damaged_sqlite_file_is_corrupt_and_not_a_database_that_is_away(tmp_path: Path) -> None:
    """A retry would wait for ever; an operator must put a backup in its place."""
    file = tmp_path / "tables.db"
    file.write_bytes(b"no database at all" * 500)
    sink = SqlSink(f"sqlite:///{file}")

    with pytest.raises(Corrupt, match=r"tables\.db.*backup"):
        sink.position(0)
