"""The kinds of column the tables are made of.

Rules
-----
* Every column is NOT NULL and, keys apart, has a server default: an upsert may then name a part
  of a row's columns, whichever of its parts is written first.
* An identifier is compared byte by byte, trailing spaces included, on every database. MySQL and
  MariaDB name that collation differently, and their common `utf8mb4_bin` ignores trailing spaces.
* Times are milliseconds UTC and money is minor units, both BIGINT.
* Migrations are built from these too: what a kind means never changes once released.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, SmallInteger, String, Text, text
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles


class Identifier(String):
    """A VARCHAR whose values are equal only when their bytes are."""

    cache_ok = True


@compiles(Identifier, "mysql")
def _identifier_on_mysql(kind: Identifier, compiler: Any, **_: object) -> str:
    collation = "utf8mb4_nopad_bin" if compiler.dialect.is_mariadb else "utf8mb4_0900_bin"
    return f"VARCHAR({kind.length}) CHARACTER SET utf8mb4 COLLATE {collation}"


def identifier(name: str) -> Column[Any]:
    """An id of at most 128 characters."""
    return Column(name, Identifier(128), nullable=False, server_default="")


def identifier_key(name: str) -> Column[Any]:
    """An id that is part of the primary key."""
    return Column(name, Identifier(128), primary_key=True, nullable=False)


def words(name: str, length: int = 1024) -> Column[Any]:
    """Text for people: never searched for, never a key."""
    return Column(name, String(length), nullable=False, server_default="")


def document(name: str) -> Column[Any]:
    """JSON text of up to 64 kB. MySQL takes a default for it only as an expression."""
    return Column(name, Text(), nullable=False, server_default=text("('')"))


def long_document(name: str) -> Column[Any]:
    """JSON text of up to 16 MB."""
    kind = Text().with_variant(mysql.MEDIUMTEXT(), "mysql")
    return Column(name, kind, nullable=False, server_default=text("('')"))


def blob(name: str) -> Column[Any]:
    """Opaque bytes, up to 16 MB."""
    kind = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql")
    return Column(name, kind, nullable=False)


def big(name: str) -> Column[Any]:
    """A signed 64-bit number: quantities, money, times, sequences, fingerprints."""
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def number(name: str) -> Column[Any]:
    """A signed 32-bit number."""
    return Column(name, Integer, nullable=False, server_default=text("0"))


def small(name: str) -> Column[Any]:
    """A signed 16-bit number: slots, states, kinds, flags."""
    return Column(name, SmallInteger, nullable=False, server_default=text("0"))


def small_key(name: str) -> Column[Any]:
    """A 16-bit part of the primary key."""
    return Column(name, SmallInteger, primary_key=True, autoincrement=False, nullable=False)


def number_key(name: str) -> Column[Any]:
    """A 32-bit part of the primary key."""
    return Column(name, Integer, primary_key=True, autoincrement=False, nullable=False)


def big_key(name: str) -> Column[Any]:
    """A 64-bit part of the primary key."""
    return Column(name, BigInteger, primary_key=True, autoincrement=False, nullable=False)


def row_number_key(name: str) -> Column[Any]:
    """The primary key by itself: a 64-bit number that grows from row to row. On SQLite it is the
    number of the row, so that no index beside the table has it."""
    kind = BigInteger().with_variant(Integer(), "sqlite")
    return Column(name, kind, primary_key=True, autoincrement=False, nullable=False)


def origin() -> tuple[Column[Any], Column[Any], Column[Any]]:
    """Where a row comes from: its slot, the slot's generation and the journal sequence.

    (generation, seq) is the guard of every upsert: a lower or equal pair changes nothing."""
    return small("slot"), number("generation"), big("seq")


OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}
"""Of every table. Documents and words need no NO PAD collation: they are never compared."""
