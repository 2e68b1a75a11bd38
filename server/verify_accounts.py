"""The ledger of commission, for `verify`: counted anew from entries and facts alone.

* I6: every entry sums to 0 by itself and follows the one before it; balances are the sums of the
  entries; a statement is its month's entries, to the cent, and follows the one before it.
* I6: an order earns only by a fact of its stock shard's journal, with what that journal says; and
  every order that was paid for good and whose fact was taken has earned, if someone brought it.
* I5: SQL has each entry as the journal does; its sums are the fold's balances; its statements are
  its own entries, to the cent.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from actors.commission_rows import ENTRIES, ENTRY_COLUMNS, WITH_ENTRIES, entry_values
from actors.core import commission_records as r
from actors.core import commission_state as c
from actors.core import facts as f
from actors.core import relay_records as y
from actors.core import state as s
from actors.core.bloom import Forgotten
from actors.core.codec import EntryContent
from actors.core.identity import PROGRAMME_SLOT
from actors.core.programme import bond_at
from persistence.sql.dump import View
from server.bootstrap import ShardMap
from server.relay import numbered_facts
from server.verify_account_rows import STATEMENT_COLUMNS, known_order, known_orders

Check = Callable[[bool, str | Callable[[], str]], None]
Place = tuple[int, int]
"""A fact's entry and index."""

_NUMBER, _EVENT, _WHO, _MONTH = 0, 1, 2, 6
_SQL_COLUMNS = tuple(name for name in ENTRY_COLUMNS if name not in ("generation", "seq"))
_AT = {name: at for at, name in enumerate(_SQL_COLUMNS)}
_AMOUNTS = slice(_AT["expense_minor"], _AT["paid_out_minor"] + 1)


class Accrual(NamedTuple):
    """What an order earned by."""

    taken: tuple[int, str, int, int]
    """Source, incarnation, entry, index of the fact before it; (-1, '', 0, 0) of none."""
    told: tuple[Any, ...]


class Ledger:
    """One account shard's, as its journal tells it."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self.count = 0
        self.hashes = array("q")
        """Of the rows of entries after the `skipped` first."""
        self.skipped = 0
        """Entries before the snapshot that the fold began with."""
        self.forgotten: Forgotten | None = None
        """Keys of what left memory, of a fold that began with a snapshot."""
        self.balances: dict[str, list[int]] = {}
        self.months: dict[tuple[str, int], c.Sums] = {}
        self.closings: dict[str, int] = {}
        self.statements: dict[tuple[str, int], tuple[Any, ...]] = {}
        self.accruals: dict[bytes, Accrual] = {}
        self.bound: dict[tuple[str, int, str], int] = {}
        """A binding -> entry of its last change."""
        self.taken: dict[int, list[tuple[Place, int]]] = {}
        """Source -> places of its facts, and the entries that took them; both rise."""

    def begin(self, slot: s.SlotState) -> None:
        """The fold begins with a snapshot's programme."""
        programme = slot.programme
        if programme is None:
            return
        self.forgotten = slot.forgotten
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
        fact = (-1, "", 0, 0)
        for record in records:
            kind = record.kind
            if kind in WITH_ENTRIES:
                self._post(seq, now_ms, record)
            if kind == y.FACT_TAKEN:
                fact = tuple(record[2:])
                place = (record.source_seq, record.fact_index)
                self.taken.setdefault(record.source, []).append((place, seq))
            elif kind == r.ORDER_ACCRUED:
                self._accrue(record, fact)
            elif kind == r.BUYER_BOUND:
                self.bound[record.buyer_id, record.from_ms, record.distributor_id] = seq
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

    def _accrue(self, record: r.OrderAccrued, fact: tuple[int, str, int, int]) -> None:
        told = (
            record.reservation_id,
            record.buyer_id,
            record.campaign_id,
            record.sku_id,
            record.quantity,
            record.base_minor,
            record.currency_code,
            record.reserved_ms,
            record.earned_ms,
        )
        self.accruals[record.key] = Accrual(fact, told)
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

    def taken_in(self, source: int, place: Place) -> int:
        """The entry that took a fact; 0 if none of the fold did."""
        places = self.taken.get(source, [])
        at = bisect_left(places, (place, 0))
        return places[at][1] if at < len(places) and places[at][0] == place else 0


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


class Told:
    """What a stock shard's journal tells account shards of its orders."""

    def __init__(self) -> None:
        self.from_seq = 0
        """Facts of entries up to this one are not known."""
        self.earned: dict[bytes, tuple[int, Place, tuple[Any, ...]]] = {}
        """Order -> account shard, place, what it says."""
        self.returned: dict[bytes, tuple[Place, int]] = {}
        """Order -> place and total of the last return."""

    def take(self, slots_of: Sequence[int], seq: int, now_ms: int, records: Sequence[Any]) -> None:
        """An entry of the journal."""
        for shard, index, _, fact in numbered_facts(slots_of, records, now_ms):
            if fact.kind not in (f.ORDER_EARNED, f.ORDER_REDUCED):
                continue
            key = c.order_key(fact.reservation_id)
            if key is None:
                continue
            if fact.kind == f.ORDER_REDUCED:
                self.returned[key] = ((seq, index), fact.returned_total)
                continue
            said = (
                fact.reservation_id,
                fact.buyer_id,
                fact.campaign_id,
                fact.sku_id,
                fact.quantity,
                fact.base_minor,
                fact.currency_code,
                fact.reserved_ms,
                fact.at_ms,
            )
            self.earned[key] = (shard, (seq, index), said)


class Earned(NamedTuple):
    """Compares what orders earned with what stock journals say."""

    ledger: Ledger
    state: s.ShardState
    programme: c.Programme
    incarnation: str
    """Of the journals."""
    check: Check

    def compare(self, told: Mapping[int, Told]) -> None:
        """Orders earned what stock journals say, and all that these say."""
        for accrual in self.ledger.accruals.values():
            self._compare_accrual(accrual, told)
        for source, stock in told.items():
            of, *mark = self.state.sources.get(source, s.NO_MARK)
            if of != self.incarnation:
                continue
            for key, (_, at, said) in stock.earned.items():
                entry = self.ledger.taken_in(source, at) if [*at] <= mark else 0
                if entry:
                    self._require(key, said, entry)
            for key, (at, total) in stock.returned.items():
                if self.ledger.taken_in(source, at):
                    self._compare_return(key, total)

    def _compare_accrual(self, accrual: Accrual, told: Mapping[int, Told]) -> None:
        source, of, *place = accrual.taken
        name = f"order {accrual.told[0]}"
        self.check(source >= 0, f"{name}: earned without a fact")
        stock = told.get(source)
        if stock is None or of != self.incarnation or place[0] <= stock.from_seq:
            return
        found = stock.earned.get(c.order_key(accrual.told[0]) or b"")
        self.check(
            found is not None and [*found[1]] == place and found[2] == accrual.told,
            f"{name}: earned {accrual.told} by entry {place[0]} of shard {source}, which says "
            f"{found}",
        )

    def _compare_return(self, key: bytes, total: int) -> None:
        order = known_order(self.programme, key)
        if order is None or key not in self.ledger.accruals:
            return
        self.check(
            order.returned == min(total, order.quantity),
            f"order {c.reservation_of(key)}: {total} units are back, commission knows of "
            f"{order.returned}",
        )

    def _is_known(self, key: bytes) -> bool:
        """Whether an order earned; of one that left memory before the fold, its key says so."""
        if known_order(self.programme, key) is not None:
            return True
        forgotten = self.ledger.forgotten
        return forgotten is not None and forgotten.may_contain(key[: c.KEY_BYTES])

    def _require(self, key: bytes, said: tuple[Any, ...], entry: int) -> None:
        """An order whose fact was taken in `entry` has earned, if somebody brought it by then."""
        _, buyer_id, *_, currency, reserved_ms, _ = said
        version = self.programme.version_at(reserved_ms)
        bond = bond_at(self.programme, buyer_id, reserved_ms)
        due = (
            not self._is_known(key)
            and version is not None
            and version.seq < entry
            and version.config.currency_code == currency
            and bond is not None
            # What was decided on the binding later says nothing of then.
            and self.ledger.bound.get((buyer_id, bond.from_ms, bond.distributor_id), entry) < entry
        )
        self.check(not due, f"order {said[0]}: paid for good, brought by {bond}, earned nothing")


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
        self._told: dict[int, Told] = {}

    def begin(self, shard: int, state: s.ShardState) -> None:
        """A shard's fold begins with a snapshot."""
        self._told.setdefault(shard, Told()).from_seq = state.seq
        for slot in state.slots.values():
            self._ledger(shard).begin(slot)

    def take(self, shard: int, seq: int, content: EntryContent) -> None:
        """An entry of a shard's journal."""
        told = self._told.setdefault(shard, Told())
        told.take(self._slots_of, seq, content.now_ms, content.records)
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
            ledger = self._ledger(shard)
            for slot in state.slots.values():
                if slot.programme is not None:
                    ledger.check_fold(slot.programme)
                    programme, check = slot.programme, self._check
                    Earned(ledger, state, programme, self._incarnation, check).compare(self._told)

    def _ledger(self, shard: int) -> Ledger:
        return self._ledgers.setdefault(shard, Ledger(self._check))
