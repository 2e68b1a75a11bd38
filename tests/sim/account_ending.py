"""The end of a seed for account shards: every fact was taken, and all books of them agree.

Orders are compared with what the stock shards' own books have, replicas with the fold (also what is
counted over the rows), and SQL with both: entries, marks and statements too.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from actors.commission_rows import ENTRIES, ENTRY_COLUMNS, entry_values
from actors.core import commission_commands as d
from actors.core import commission_state as cs
from actors.core import state as s
from actors.core.codec import unpack_entry
from actors.core.identity import PROGRAMME_SLOT
from actors.core.risk_state import Profile
from server.verify_account_rows import (
    ACCOUNT_TABLES,
    STATEMENT_COLUMNS,
    known_orders,
    left_memory,
    read_row,
)
from tests.model.programme_walk import indexes
from tests.sim.account_ledger import BEHAVIOUR, AccountLedger, entries_of
from tests.sim.books import Book, need
from tests.sim.cluster import Cluster


def statement_rows(_: s.ShardState, slot: s.SlotState) -> Iterator[tuple[Any, ...]]:
    """The slot's statements, of which a seed makes so few that memory has them all."""
    programme = slot.programme or cs.Programme()
    for name, held in programme.distributors.items():
        for made in held.statements:
            yield (name, *made)


TABLES = {**ACCOUNT_TABLES, "statements": (STATEMENT_COLUMNS, statement_rows)}
LOOK_EVERY_S = 0.01
SOON_MS = 3_000
"""A freeze that ends later than this is of a stock shard whose clock had jumped."""
MARK_COLUMNS = ("shard", "source", "incarnation", "source_seq", "source_index")


class AccountEnding:
    """Compares all there is of account shards."""

    def __init__(self, cluster: Cluster, ledger: AccountLedger) -> None:
        self._cluster, self._ledger = cluster, ledger
        self._look_again_s = 0.0

    @property
    def _books(self) -> Sequence[Book]:
        return self._ledger.books[self._ledger.stock_shards :]

    def probes(self) -> Sequence[Any]:
        """A read, and a change."""
        head = PROGRAMME_SLOT, 0, "web"
        return (
            d.GetAccount(d.GET_ACCOUNT, *head, "dot"),
            d.ApplyDistributor(d.APPLY_DISTRIBUTOR, *head, "late"),
        )

    def at_rest(self) -> bool:
        """Every fact was taken, and nothing waits for its time any more; asked at every step of
        time, it looks now and then."""
        if self._cluster.world.now < self._look_again_s:
            return False
        self._look_again_s = self._cluster.world.now + LOOK_EVERY_S
        if self._ledger.facts.missing:
            return False
        now_ms = self._cluster.world.root.now_ms()
        for book in self._books:
            if any(self._waits(programme, now_ms) for programme in book.state.programmes.values()):
                return False
            if book.state.risk.untold:
                return False
            profiles = [x for slot in book.state.slots.values() for x in slot.profiles.values()]
            if any(0 < profile.frozen_until_ms <= now_ms for profile in profiles):
                return False
        return True

    def _waits(self, programme: cs.Programme, now_ms: int) -> bool:
        """Something is due, or soon will be: money of a freeze that ends, what waited for the end
        of a hold, holds themselves, statements of a month that is over."""
        this_month, soon_ms = self._ledger.programme.month(now_ms), now_ms + SOON_MS
        return bool(
            programme.released
            or any(x.frozen() and x.matures_ms < soon_ms for x in programme.orders.values())
            or any(
                0 < x.held_until_ms <= (soon_ms if x.waiting else now_ms)
                for _, x in programme.distributors.items()
            )
            or min(programme.months, default=this_month) < this_month
        )

    def what_lags(self) -> list[str]:
        """For who asks why it is not at rest."""
        status = [x.status() for relay in self._cluster.relays for x in relay.sources]
        return [f"{self._ledger.facts.missing} facts are not taken, the relay is at {status}"]

    def same(self, book: Book, other: s.ShardState, who: str) -> None:
        """What a replica counts over its rows is what the fold counts."""
        state = book.state
        need(other.sources == state.sources, "relay", f"the marks of {who} differ")
        if state.programmes:
            found, wanted = indexes(other), indexes(state)
            differ = [name for name in wanted if found[name] != wanted[name]]
            need(not differ, "fold", f"the programme's {differ} of {who} differ")
        risks = [(x.risk.count, set(x.risk.untold)) for x in (other, state)]
        need(risks[0] == risks[1], "fold", f"the profiles of {who} are counted otherwise")

    def compare(self) -> None:
        """Raises Violation."""
        self._compare_told()
        for book in self._books:
            for slot in book.state.slots.values():
                if slot.programme is not None:
                    self._compare_orders(slot.programme)
                    self._compare_holds(slot.programme)
            self._compare_sql(book)
        self._compare_entries()
        self._compare_marks()

    def _compare_told(self) -> None:
        """Each order that was paid for good has told that it earns, and what: a seat when its team
        had formed, of what is kept then."""
        ledger = self._ledger
        wanted = {
            name: (row["buyer"], row["quantity"], row["paid"] - row["settled"])
            for name, row in ledger.naive.held.items()
            if row["payment"] and ("team" not in row or name in ledger.seats_settled)
        }
        found = ledger.facts.earned
        taken = {BEHAVIOUR[kind]: count for kind, count in ledger.behaved.items()}
        need(
            all(ledger.facts_taken[name] == count for name, count in taken.items()),
            "relay",
            lambda: f"facts of buyers {ledger.facts_taken}, by the records {taken}",
        )
        need(found == wanted, "relay", lambda: f"what earns: told {found}, by the rules {wanted}")

    def _compare_orders(self, programme: cs.Programme) -> None:
        """Each is what the stock shards have of it; each that was told and earns by the rules is
        there."""
        held = self._ledger.naive.held
        orders = dict(known_orders(programme))
        names = {cs.reservation_of(key) for key in orders}
        wanted = set(self._ledger.programme.orders)
        need(names == wanted, "commission", lambda: f"orders {names}, by the rules {wanted}")
        for key, order in orders.items():
            name = cs.reservation_of(key)
            row = held[name]
            back = row["quantity"] if row["state"] == "REVOKED" else row["returned"]
            found, told = (order.quantity, order.returned), (row["quantity"], back)
            need(
                found == told,
                "commission",
                lambda n=name, a=found, b=told: f"{n} has {a} units and returns, in stock {b}",
            )
            for earning in order.earnings:
                left = earning.full_minor * (order.quantity - back) // order.quantity
                need(earning.amount_minor == left, "commission", f"a share of {name} has drifted")

    def _compare_holds(self, programme: cs.Programme) -> None:
        """Who was a distributor when the freeze was changed last is held as that says, whatever was
        told late or twice. (Operators make distributors here; the gateway's look at who applies is
        not in it.)"""
        profiles = {
            buyer: profile
            for book in self._books
            for slot in book.state.slots.values()
            for buyer, profile in slot.profiles.items()
        }
        for name, distributor in programme.distributors.items():
            until_ms = profiles.get(name, Profile()).frozen_until_ms
            changed_ms = max(self._ledger.freezes.get(name, ()), default=distributor.applied_ms)
            need(
                distributor.held_until_ms == until_ms or changed_ms < distributor.applied_ms,
                "risk",
                lambda n=name, a=until_ms, b=distributor.held_until_ms: (
                    f"{n} is frozen until {a}, and held until {b}"
                ),
            )

    def _compare_sql(self, book: Book) -> None:
        sink, mine = self._cluster.sink, self._cluster.pairs[book.shard].slots
        for table, (columns, rows_of) in TABLES.items():
            expected = [
                row for slot in book.state.slots.values() for row in rows_of(book.state, slot)
            ]
            found = []
            for told in [row for row in sink.rows(table) if row["slot"] in mine]:
                row = read_row(table, tuple([told[name] for name in columns]))
                slot = book.state.slot(told["slot"])
                if row in expected or not left_memory(table, row, slot):
                    found.append(row)
            extra = [row for row in found if row not in expected]
            missing = [row for row in expected if row not in found]
            need(
                not extra and not missing and len(found) == len(expected),
                "I5",
                lambda t=table, a=extra, b=missing: f"{t} in SQL {a}, by the fold {b}",
            )

    def _compare_entries(self) -> None:
        expected = {
            tuple(row)
            for book in self._books
            for entry in book.entries
            for content in (unpack_entry(entry.data),)
            for record in content.records
            if entries_of(record)
            for row in entry_values(record, content.now_ms, entry.seq)
        }
        found = {
            tuple([row[name] for name in ENTRY_COLUMNS]) for row in self._cluster.sink.rows(ENTRIES)
        }
        need(
            found == expected,
            "I5",
            lambda: f"entries in SQL {found - expected}, by the journal {expected - found}",
        )

    def _compare_marks(self) -> None:
        expected = {
            (book.shard, source, *mark)
            for book in self._books
            for source, mark in book.state.sources.items()
        }
        found = {
            tuple([row[name] for name in MARK_COLUMNS]) for row in self._cluster.sink.rows("marks")
        }
        need(found == expected, "I5", lambda: f"marks in SQL {found}, by the fold {expected}")
