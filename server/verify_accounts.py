"""The ledger of commission, for `verify`: counted anew from its entries alone.

By which facts orders earned is in `verify_facts.py`.

* I6: every entry sums to 0 by itself and follows the one before it; balances are the sums of the
  entries; a statement is its month's entries, to the cent, and follows the one before it.
* I5: SQL has each entry as the journal does; its sums are the fold's balances; its statements are
  its own entries, to the cent.
"""

from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from actors.commission_rows import ENTRIES, ENTRY_COLUMNS, WITH_ENTRIES, entry_values
from actors.core import commission_records as r
from actors.core import commission_state as c
from actors.core import state as s
from actors.core.codec import EntryContent
from actors.core.identity import PROGRAMME_SLOT
from persistence.sql.dump import View
from server.bootstrap import ShardMap
from server.verify_account_rows import STATEMENT_COLUMNS, known_orders
from server.verify_facts import Check, Earned, TakenFacts, Told

_NUMBER, _EVENT, _WHO, _MONTH = 0, 1, 2, 6
_SQL_COLUMNS = tuple(name for name in ENTRY_COLUMNS if name not in ("generation", "seq"))
_AT = {name: at for at, name in enumerate(_SQL_COLUMNS)}
_AMOUNTS = slice(_AT["expense_minor"], _AT["paid_out_minor"] + 1)


class Ledger:
    """One account shard's, as its journal tells it."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self.count = 0
        self.hashes = array("q")
        """Of the rows of entries after the `skipped` first."""
        self.skipped = 0
        """Entries before the snapshot that the fold began with."""
        self.balances: dict[str, list[int]] = {}
        self.months: dict[tuple[str, int], c.Sums] = {}
        self.closings: dict[str, int] = {}
        self.statements: dict[tuple[str, int], tuple[Any, ...]] = {}

    def begin(self, slot: s.SlotState) -> None:
        """The fold begins with a snapshot's programme."""
        programme = slot.programme
        if programme is None:
            return
        self.count = self.skipped = programme.entry_count
        for name, held in programme.distributors.items():
            self.balances[name] = list(held.balances)
            self.closings[name] = held.closing_minor
            for month, sums in held.months.items():
                self.months[name, month] = c.Sums.of(sums.pack())
            for made in held.statements:
                self.statements[name, made.month] = made

    def take(self, seq: int, now_ms: int, records: Sequence[Any]) -> None:
        """An entry of the journal."""
        for record in records:
            kind = record.kind
            if kind in WITH_ENTRIES:
                self._post(seq, now_ms, record)
            if kind == r.ORDER_ACCRUED:
                self._check_shares(record)
            elif kind == r.STATEMENT_MADE:
                self._close(record, now_ms)

    def _post(self, seq: int, now_ms: int, record: Any) -> None:
        for row in entry_values(record, now_ms, seq):
            self.hashes.append(hash(_without_origin(row)))
        for entry in record.entries:
            amounts = entry[r.AMOUNTS_FROM :]
            self.count += 1
            self._check(
                entry[_NUMBER] == self.count,
                f"ledger: entry {entry[_NUMBER]} stands where {self.count} would",
            )
            self.count = entry[_NUMBER]
            self._check(
                not sum(amounts),
                f"ledger: entry {entry[_NUMBER]} comes to {sum(amounts)} instead of 0",
            )
            balances = self.balances.setdefault(entry[_WHO], [0] * 6)
            for at, amount in enumerate(amounts):
                balances[at] += amount
            count_in_month(
                self.months,
                (entry[_WHO], entry[_MONTH]),
                entry[_EVENT],
                amounts[c.AVAILABLE_AT] + amounts[c.SETTLED_AT],
            )

    def _check_shares(self, record: r.OrderAccrued) -> None:
        name = f"order {record.reservation_id}"
        got = [
            (entry[4], entry[_WHO], entry[r.AMOUNTS_FROM + c.FROZEN_AT]) for entry in record.entries
        ]
        shares = [(one[0], one[1], one[3]) for one in record.shares]
        self._check(got == shares, f"{name}: its shares are {shares}, its entries {got}")
        all_minor = sum(one[3] for one in record.shares)
        self._check(
            all_minor <= record.base_minor,
            f"{name}: {all_minor} were earned of {record.base_minor}",
        )

    def _close(self, record: r.StatementMade, now_ms: int) -> None:
        name, month = record.distributor_id, record.month
        sums = self.months.pop((name, month), c.Sums())
        made = c.Statement(month, *record[4:14], now_ms)
        self.statements[name, month] = made
        check_statement(name, made, sums, self.closings.get(name, 0), self._check)
        self.closings[name] = made.closing_minor

    def check_fold(self, programme: c.Programme) -> None:
        """Balances and open months are the sums of the entries."""
        whole = [0] * 6
        for name, held in programme.distributors.items():
            told = self.balances.get(name, [0] * 6)
            self._check(
                told == held.balances,
                f"distributor {name}: entries come to {told}, the balances are {held.balances}",
            )
            whole = [one + other for one, other in zip(whole, told, strict=True)]
        self._check(
            not sum(programme.sums) and whole == programme.sums,
            f"ledger: accounts come to {programme.sums}, distributors to {whole}",
        )
        months = {
            (name, month): sums.pack()
            for name, held in programme.distributors.items()
            for month, sums in held.months.items()
        }
        found = {key: sums.pack() for key, sums in self.months.items()}
        self._check(
            months == found, f"ledger: open months {sorted(months)}, by entries {sorted(found)}"
        )


def count_in_month(
    months: dict[tuple[str, int], c.Sums], key: tuple[str, int], event: int, moved_minor: int
) -> None:
    """An entry in the sums of its distributor's month, if it moved anything there."""
    if not moved_minor:
        return
    sums = months.setdefault(key, c.Sums())
    sums.count += 1
    if event == r.BECAME_AVAILABLE:
        sums.available_minor += moved_minor
    elif event == r.REVERSED:
        sums.reversed_minor -= moved_minor
    elif event == r.WITHDRAWN:
        sums.withdrawn_minor -= moved_minor
    else:
        sums.restored_minor += moved_minor


def check_statement(
    name: str, made: c.Statement, sums: c.Sums, opening_minor: int, check: Check
) -> None:
    """It is its month's entries, and follows the statement before it."""
    told = (
        made.available_minor,
        made.reversed_minor,
        made.withdrawn_minor,
        made.restored_minor,
        made.entry_count,
    )
    check(
        told == sums.pack(),
        f"statement {made.month} of {name}: says {told}, its entries {sums.pack()}",
    )
    moved = told[0] - told[1] - told[2] + told[3]
    check(
        made.opening_minor == opening_minor and made.closing_minor == opening_minor + moved,
        f"statement {made.month} of {name}: {made.opening_minor} to {made.closing_minor}, after "
        f"{opening_minor} and {moved}",
    )


def compare_entries(
    view: View, ledger: Ledger, programme: c.Programme, check: Check
) -> dict[tuple[str, int], c.Sums]:
    """SQL's entries are the journal's; of those before the fold there are as many. Answers SQL's
    sums by distributor and month."""
    balances: dict[str, list[int]] = {}
    months: dict[tuple[str, int], c.Sums] = {}
    left: dict[tuple[str, int], int] = {}
    seen = bytearray(len(ledger.hashes))
    unknown = 0
    for row in view.rows(ENTRIES, _SQL_COLUMNS):
        number, amounts = row[_AT["entry_id"]], row[_AMOUNTS]
        who, event = row[_AT["distributor_id"]], row[_AT["event"]]
        at = number - ledger.skipped - 1
        if at < 0:
            unknown += 1
        else:
            known = at < len(seen) and ledger.hashes[at] == hash(row)
            check(known, partial("{}: SQL {} is not the journal's".format, ENTRIES, row))
            if at < len(seen):
                seen[at] = 1
        check(not sum(amounts), f"{ENTRIES}: entry {number} comes to {sum(amounts)} instead of 0")
        sums = balances.setdefault(who, [0] * 6)
        for place, amount in enumerate(amounts):
            sums[place] += amount
        moved = row[_AT["available_minor"]] + row[_AT["settled_minor"]]
        count_in_month(months, (who, row[_AT["month"]]), event, moved)
        if event in (r.ACCRUED, r.REVERSED):
            key = (row[_AT["reservation_id"]], row[_AT["level"]])
            left[key] = left.get(key, 0) - row[_AT["expense_minor"]]
    missing = seen.find(0)
    check(
        missing < 0, f"{ENTRIES}: {seen.count(0)} are missing, first {ledger.skipped + missing + 1}"
    )
    check(
        unknown == ledger.skipped,
        f"{ENTRIES}: {unknown} of the first {ledger.skipped}",
    )
    _compare_sums(programme, balances, left, check)
    return months


def _compare_sums(
    programme: c.Programme,
    balances: Mapping[str, list[int]],
    left: Mapping[tuple[str, int], int],
    check: Check,
) -> None:
    for name, held in programme.distributors.items():
        found = balances.get(name, [0] * 6)
        check(
            found == held.balances,
            f"distributor {name}: SQL's entries come to {found}, the journal's {held.balances}",
        )
    for key, order in known_orders(programme):
        name = c.reservation_of(key)
        for earning in order.earnings:
            got = left.get((name, earning.level), 0)
            check(
                got == earning.amount_minor,
                f"order {name}: level {earning.level} has {earning.amount_minor}, SQL's entries "
                f"come to {got}",
            )


def compare_statements(
    view: View, ledger: Ledger, months: Mapping[tuple[str, int], c.Sums], check: Check
) -> None:
    """SQL's statements are the journal's, as far as it is known, and its own entries."""
    rows: dict[str, list[c.Statement]] = {}
    for name, *fields in view.rows("statements", STATEMENT_COLUMNS):
        rows.setdefault(name, []).append(c.Statement(*fields))
    found = {(name, made.month) for name, all_made in rows.items() for made in all_made}
    for key in ledger.statements.keys() - found:
        check(False, f"statement {key[1]} of {key[0]} is missing in SQL")
    for name, all_made in rows.items():
        all_made.sort()
        for made in all_made:
            wanted = ledger.statements.get((name, made.month))
            known = wanted is not None or not ledger.skipped
            check(
                not known or wanted == made,
                f"statement {made.month} of {name}: SQL {made}, journal {wanted}",
            )
        first = [c.Statement(*[0] * len(c.Statement._fields))]
        for before, made in pairwise([*first, *all_made]):
            sums = months.get((name, made.month), c.Sums())
            check_statement(name, made, sums, before.closing_minor, check)


def _without_origin(row: Iterable[Any]) -> tuple[Any, ...]:
    """What `_SQL_COLUMNS` select of a row of ENTRY_COLUMNS."""
    number, slot, _, _, *rest = row
    return (number, slot, *rest)


class AccountBooks:
    """The ledgers of all account shards, and what stock shards tell them."""

    def __init__(self, shard_map: ShardMap, check: Check) -> None:
        self._slots_of = shard_map.slots_of
        self._incarnation = shard_map.incarnation
        self._check = check
        self._ledgers: dict[int, Ledger] = {}
        self._facts: dict[int, TakenFacts] = {}
        self._told: dict[int, Told] = {}

    def begin(self, shard: int, state: s.ShardState) -> None:
        """A shard's fold begins with a snapshot."""
        self._told.setdefault(shard, Told()).from_seq = state.seq
        self._taken(shard).begin(state)
        for slot in state.slots.values():
            self._ledger(shard).begin(slot)

    def take(self, shard: int, seq: int, content: EntryContent) -> None:
        """An entry of a shard's journal."""
        told = self._told.setdefault(shard, Told())
        told.take(self._slots_of, seq, content.now_ms, content.records)
        self._taken(shard).take(seq, content.records)
        self._ledger(shard).take(seq, content.now_ms, content.records)

    def compare(
        self, view: View, states: Sequence[s.ShardState], unread: Collection[int], check: Check
    ) -> None:
        """SQL's entries and statements, as of its positions."""
        for shard, state in enumerate(states):
            programmes = [one.programme for one in state.slots.values() if one.programme]
            if shard not in unread and self._slots_of[PROGRAMME_SLOT] == shard:
                ledger = self._ledger(shard)
                programme = programmes[0] if programmes else c.Programme()
                months = compare_entries(view, ledger, programme, check)
                compare_statements(view, ledger, months, check)

    def check(self, states: Sequence[s.ShardState]) -> None:
        """All shards are folded to their ends."""
        for shard, state in enumerate(states):
            taken, check = self._taken(shard), self._check
            for slot in state.slots.values():
                if slot.programme is not None:
                    self._ledger(shard).check_fold(slot.programme)
                    Earned(taken, state, slot, self._incarnation, check).compare(self._told)

    def _taken(self, shard: int) -> TakenFacts:
        return self._facts.setdefault(shard, TakenFacts(self._check))

    def _ledger(self, shard: int) -> Ledger:
        return self._ledgers.setdefault(shard, Ledger(self._check))
