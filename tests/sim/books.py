"""A shard's journal as it was appended, its fold, and what could be read at each place of it."""

from collections.abc import Callable
from typing import Any

from actors.core import state as s
from persistence.ports import Entry
from server.verify_rows import POOL_COLUMNS
from tests.sim.sink import MemorySink


class Violation(AssertionError):
    """Something that must never be."""


def need(holds: Any, law: str, what: str | Callable[[], str]) -> None:
    """Stop the run if a law is broken."""
    if not holds:
        raise Violation(f"{law}: {what if isinstance(what, str) else what()}")


History = list[tuple[int, Any]]
"""(place in the journal, value from then on)."""


class Book:
    """One shard's journal as it was appended, all of it, and its fold."""

    def __init__(self, shard: int, archive: Any) -> None:
        self.shard = shard
        self.state = s.ShardState()
        self.state.archive = archive
        self.entries: list[Entry] = []
        self.epoch = 0
        self.owner = ""
        self.at = 0
        """Records journalled so far: the place of the last one."""
        self.pools: dict[tuple[str, str], History] = {}
        self.held: dict[str, History] = {}
        self.sales: dict[str, History] = {}
        self.starts: list[int] = []
        """Place after each entry."""
        self.told: list[tuple[int, int, bool]] = []
        """Entries that the event feed tells: (seq, when it was decided, whether all of it)."""


def compare_commit(book: Book, sink: MemorySink, from_seq: int, to_seq: int) -> None:
    """SQL has the entries up to `to_seq` now: what the new ones changed of pools and of
    reservations stands there as it stood then."""
    first, last = (book.starts[seq - 1] if seq else 0 for seq in (from_seq, to_seq))
    for (sale, sku), history in book.pools.items():
        balance = _changed(history, first, last)
        if balance is not None:
            row = sink.tables.get("pools", {}).get((sale, sku), {})
            found = tuple([row.get(name) for name in BALANCE])
            need(
                found == balance[4:],
                "I5",
                lambda s=sku, f=found, b=balance: (
                    f"at {to_seq} SQL has {f} of {s}, the fold {b[4:]}"
                ),
            )
    for public, history in book.held.items():
        view = _changed(history, first, last)
        if view is not None:
            row = sink.by_id.get(public, {})
            found = tuple([row.get(name) for name in VIEW])
            need(
                found == (*view[4:7], view[12], view[13]),
                "I5",
                lambda p=public, f=found, v=view: f"at {to_seq} SQL has {f} of {p}, the fold {v}",
            )


def _changed(history: History, first: int, last: int) -> Any:
    """What stood at `last`, if it came to stand after `first`; else None."""
    for at, value in reversed(history):
        if at <= last:
            return value if at > first else None
    return None


BALANCE = POOL_COLUMNS[3:]
VIEW = ("quantity", "returned_quantity", "state", "reserved_ms", "deadline_ms")
