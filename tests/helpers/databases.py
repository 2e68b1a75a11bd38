"""Empty databases for the contract tests of SQL, and rows to put in them."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, create_engine, make_url
from sqlalchemy.dialects import mysql, sqlite

from persistence.ports import Rows
from persistence.sql.tables import buyer_part

KINDS = ("sqlite", "mariadb")

_numbers = itertools.count(1)


def empty_database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that nothing was ever written to."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'tables.db'}"
    return database_on(request.getfixturevalue("mariadb_server").url)


def database_on(server_url: str) -> str:
    """A new database on a private server, for that server's ordinary user."""
    name = f"contract_{os.getpid()}_{next(_numbers)}"
    url = make_url(server_url)
    execute(root_of(server_url), f"CREATE DATABASE {name}")
    execute(root_of(server_url), f"GRANT ALL ON {name}.* TO {url.username}@'%%'")
    return url.set(database=name).render_as_string(hide_password=False)


def root_of(server_url: str) -> str:
    """A private server's root user has no password."""
    root = make_url(server_url).set(username="root", database="mysql")
    return root._replace(password=None).render_as_string(hide_password=False)


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement and answer its rows. The drivers want a percent sign doubled."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            answer = connection.exec_driver_sql(statement)
            return [tuple(row) for row in answer] if answer.returns_rows else []
    finally:
        engine.dispose()


def reservation_rows(*rows: dict[str, Any]) -> Rows:
    """Rows of `reservations`, all with the columns of the first; a buyer brings its part."""
    full = [
        {"buyer_part": buyer_part(row.get("buyer_id", "")), "generation": 1, "seq": 1} | row
        for row in rows
    ]
    columns = tuple(full[0])
    return Rows(
        table="reservations",
        columns=columns,
        values=[tuple(row[name] for name in columns) for row in full],
    )


def pool_rows(*rows: tuple[int, int, int], sku_id: str = "sku") -> Rows:
    """Base pools of one SKU as (generation, seq, available)."""
    return Rows(
        table="pools",
        columns=("campaign_id", "sku_id", "generation", "seq", "available"),
        values=[("", sku_id, *row) for row in rows],
    )


def explained(url: str, query: Select[Any]) -> list[Any]:
    """The database's own plan of a query."""
    on_sqlite = url.startswith("sqlite")
    dialect: Any = sqlite.dialect() if on_sqlite else mysql.dialect(paramstyle="named")
    text = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    return list(execute(url, f"EXPLAIN {'QUERY PLAN ' if on_sqlite else ''}{text}"))


def assert_indexed(url: str, query: Select[Any]) -> str:
    """A query reads no table from end to end; answers how SQLite walks it."""
    plan = explained(url, query)
    if url.startswith("sqlite"):
        steps = [row[3] for row in plan]
        assert steps
        walks = [step for step in steps if not step.startswith("USE TEMP B-TREE FOR GROUP BY")]
        # The number of a row is a primary key without an index beside the table.
        indexes = (" INDEX ", " INTEGER PRIMARY KEY ")
        assert all(
            step.startswith("SEARCH ") and any(index in step for index in indexes) for step in walks
        ), steps
        return " ".join(steps)
    # Columns: id, select_type, table, type, possible_keys, key, ...
    assert all(row[4] for row in plan if row[2] is not None), (str(query), plan)
    return ""
