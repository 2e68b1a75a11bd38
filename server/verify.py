"""Checks the invariants I1-I6: journal against memory against SQL, and names the culprit.

How it works
------------
The journal is folded from its beginning, or from the older snapshot when it was trimmed. On the way
each entry is checked by itself (contiguous, epochs rising, conservation, ids once), and the fold is
compared with whatever claims to be the state at some entry: the SQL rows at SQL's position, each
live replica's digest and balances at the entry it reported. Every check has a counter, so a run
that checked nothing shows it.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from actors.core import records as r
from actors.core import state as s
from actors.core.codec import EntryContent, UnreadableEntry, unpack_entry
from actors.core.evolve import Impossible, fold
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.snapshot import Loader, UnreadableSnapshot, digest
from persistence.errors import Corrupt, StorageError
from persistence.ports import Entry, Journal, SnapshotInfo, Snapshots
from persistence.sql.dump import SqlDump, View
from server.bootstrap import ShardMap
from server.verify_account_rows import ACCOUNT_TABLES, left_memory, read_row
from server.verify_accounts import AccountBooks
from server.verify_marks import check_sources, compare_marks
from server.verify_once import SAME_ROW, effects
from server.verify_rows import (
    PAYMENT_COLUMNS,
    POOL_COLUMNS,
    REFUND_COLUMNS,
    RESERVATION_COLUMNS,
    SEAT_COLUMNS,
    TEAM_COLUMNS,
    find,
    known_teams,
    payment_rows,
    pool_rows,
    refund_rows,
    reservation_rows,
    seat_rows,
    team_rows,
)
from server.verify_teams import check_decided, check_ends, check_teams
from server.verify_transfers import check_transfers

EXAMPLES_MAX = 10
READ_BYTES = 4_000_000


@dataclass(slots=True)
class Invariant:
    """What was checked of one invariant, and what was wrong."""

    checked: int = 0
    violations: int = 0
    examples: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str | Callable[[], str]) -> None:
        """Count one check; `what` names the culprit if it does not hold."""
        self.checked += 1
        if holds:
            return
        self.violations += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(what if isinstance(what, str) else what())


INVARIANTS = {
    "I1": "conservation",
    "I2": "acked is durable",
    "I3": "one writer",
    "I4": "one effect",
    "I5": "exactly-once view",
    "I6": "money never strands",
}


class ReplicaClaim(NamedTuple):
    """What a live replica says its state is at an entry; `digest` '' if it did not compute one."""

    shard: int
    name: str
    seq: int
    digest: str
    balances: Sequence[r.Balance]


class Ack(NamedTuple):
    """A definite answer that a client got for a request id: reserved, or refused for good."""

    slot: int
    key: bytes
    reserved: bool
    what: str


@dataclass(slots=True)
class Report:
    """What `verify` found."""

    invariants: dict[str, Invariant] = field(
        default_factory=lambda: {name: Invariant() for name in INVARIANTS}
    )
    shards: list[dict[str, Any]] = field(default_factory=list)
    pools: list[r.Balance] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was violated and something was checked."""
        return all(not i.violations for i in self.invariants.values()) and bool(self.shards)

    def as_data(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "ok": self.ok,
            "invariants": {
                name: {
                    "name": INVARIANTS[name],
                    "checked": found.checked,
                    "violations": found.violations,
                    "examples": found.examples,
                }
                for name, found in self.invariants.items()
            },
            "shards": self.shards,
            "pools": [pool._asdict() for pool in self.pools],
            "notes": self.notes,
        }


class Verifier:
    """One run over one cluster's stores, with what replicas and clients claim."""

    def __init__(
        self,
        *,
        journal: Journal,
        snapshots: Snapshots,
        dump: SqlDump,
        shard_map: ShardMap,
        claims: Sequence[ReplicaClaim] = (),
        acks: Iterable[Ack] = (),
    ) -> None:
        self.report = Report()
        self.states: list[s.ShardState] = []
        self._journal = journal
        self._snapshots = snapshots
        self._dump = dump
        self._map = shard_map
        self._claims = claims
        self._acks = acks
        self._epochs: dict[int, int] = {}
        self._beyond_sql: set[int] = set()
        self._partial: set[int] = set()
        """Shards folded from a snapshot: of what was forgotten before it, only keys are known."""
        self._books = AccountBooks(shard_map, self.report.invariants["I6"].check)

    def run(self) -> Report:
        """Everything. Raises StorageError when a store cannot be read at all."""
        with self._dump.open() as view:
            positions = view.positions()
            letters = view.dead_letters()
            i5 = self.report.invariants["I5"]
            i5.check(letters == 0, f"{letters} records stand in dead_letters")
            for shard in range(self._map.shards):
                self._verify_shard(shard, positions.get(shard, ("", 0)))
            self._compare_sql(view)
        for shard in range(self._map.shards):
            self._finish_shard(shard)
        i1 = self.report.invariants["I1"]
        check_transfers(self.states, self._map.slots_of, i1.check, self._fold_on)
        check_sources(self.states, self.report.invariants["I2"].check, self._fold_on)
        for state in self.states:
            self._check_money(state)
            self._check_limits(state)
            self._check_pools(state)
        for shard, state in enumerate(self.states):
            i6, whole = self.report.invariants["I6"], shard not in self._partial
            check_teams(state, whole=whole, i1=i1.check, i6=i6.check)
        self._books.check(self.states)
        self._check_acks()
        return self.report

    def _verify_shard(self, shard: int, position: tuple[str, int]) -> None:
        """Fold up to SQL's position, comparing claims on the way."""
        meta = self._journal.read_meta(shard)
        i3, i5 = self.report.invariants["I3"], self.report.invariants["I5"]
        i3.check(
            meta.incarnation == self._map.incarnation,
            f"shard {shard}: journal of incarnation {meta.incarnation}, map of another",
        )
        incarnation, seq = position
        i5.check(
            not incarnation or incarnation == meta.incarnation,
            f"shard {shard}: SQL rows of incarnation {incarnation}",
        )
        i5.check(
            seq <= meta.last_seq,
            f"shard {shard}: SQL has applied entry {seq}, the journal ends at {meta.last_seq}",
        )
        self.states.append(self._begin(shard, meta.first_seq, seq))
        self._fold_to(shard, seq)
        self.report.shards.append(
            {"shard": shard, "sink_seq": seq, "from_seq": self.states[shard].seq}
        )

    def _begin(self, shard: int, first_seq: int, sink_seq: int) -> s.ShardState:
        """An empty state, or that of the newest snapshot not beyond SQL's position. If all are
        beyond it (a database that was away for long), SQL is not compared, and a note says so."""
        if first_seq <= 1:
            state = s.ShardState()
            state.archive = {}
            return state
        reached = [i for i in self._snapshots.list(shard) if i.begin_seq + 1 >= first_seq]
        before = [info for info in reached if info.end_seq <= sink_seq]
        for info in (*before, *reversed(reached)):
            try:
                state = self._from_snapshot(shard, info)
            except (Corrupt, UnreadableSnapshot) as error:
                self.report.notes.append(f"shard {shard}: {error}")
                continue
            self.report.notes.append(f"shard {shard}: folded from the snapshot at {state.seq}")
            self._partial.add(shard)
            if state.seq > sink_seq:
                self._beyond_sql.add(shard)
                self.report.notes.append(
                    f"shard {shard}: SQL stands at {sink_seq}, before every snapshot: not compared"
                )
            return state
        raise StorageError(
            f"shard {shard}: the journal begins at {first_seq} and no snapshot reaches back to it"
        )

    def _from_snapshot(self, shard: int, info: SnapshotInfo) -> s.ShardState:
        state = s.ShardState()
        loader = Loader(state, info.begin_seq)
        loader.read(self._snapshots.read(shard, info))
        for entry in self._entries(shard, state.seq):
            if state.seq >= loader.end_seq:
                break
            self._fold_one(shard, state, entry)
        if state.fuzzy is not None:
            loader.finish()
        # What was forgotten before is known by its keys only.
        state.archive = {}
        self._books.begin(shard, state)
        return state

    def _finish_shard(self, shard: int) -> None:
        """Fold to the journal's end."""
        last_seq = self._journal.read_meta(shard).last_seq
        self._fold_to(shard, last_seq)
        state = self.states[shard]
        self.report.invariants["I2"].check(
            state.seq == last_seq, f"shard {shard}: entries after {state.seq} are missing"
        )
        self.report.shards[shard] |= {
            "last_seq": state.seq,
            "reservations": sum(len(slot.reservations) for slot in state.slots.values()),
            "refunds": sum(len(slot.refunds) for slot in state.slots.values()),
        }

    def _fold_to(self, shard: int, seq: int) -> None:
        state = self.states[shard]
        claims = [(c.seq, c.name, c) for c in self._claims if c.shard == shard and c.seq <= seq]
        heapq.heapify(claims)
        while claims and claims[0][0] < state.seq:
            heapq.heappop(claims)
        self._compare_claims(state, claims)
        if state.seq >= seq:
            return
        for entry in self._entries(shard, state.seq):
            self._fold_one(shard, state, entry)
            self._compare_claims(state, claims)
            if state.seq >= seq:
                return

    def _fold_on(self, shard: int) -> None:
        """To where the journal ends by now."""
        self._fold_to(shard, self._journal.read_meta(shard).last_seq)

    def _compare_claims(self, state: s.ShardState, claims: list[tuple[int, str, Any]]) -> None:
        while claims and claims[0][0] == state.seq:
            claim: ReplicaClaim = heapq.heappop(claims)[2]
            i1, i2 = self.report.invariants["I1"], self.report.invariants["I2"]
            if claim.digest:
                i2.check(
                    claim.digest == f"{digest(state):016x}",
                    f"{claim.name}: memory at entry {claim.seq} is not the journal's fold",
                )
            for told in claim.balances:
                pool = state.slot(told.slot).pool(told.campaign_id, told.sku_id)
                found = None if pool is None else pool.balance(told.slot, told.generation)
                i1.check(found == told, f"{claim.name}: memory has {told}, the journal {found}")

    def _entries(self, shard: int, after_seq: int) -> Iterator[Entry]:
        while True:
            entries = self._journal.read(shard, after_seq=after_seq, max_bytes=READ_BYTES)
            if not entries:
                return
            yield from entries
            after_seq = entries[-1].seq

    def _fold_one(self, shard: int, state: s.ShardState, entry: Entry) -> None:
        i1, i3, i6 = (self.report.invariants[name] for name in ("I1", "I3", "I6"))
        i3.check(entry.seq == state.seq + 1, f"shard {shard}: gap before entry {entry.seq}")
        i3.check(
            entry.epoch >= self._epochs.get(shard, 0),
            f"shard {shard}: entry {entry.seq} is of epoch {entry.epoch}, an older one",
        )
        self._epochs[shard] = entry.epoch
        try:
            content = unpack_entry(entry.data)
            i3.check(
                content.epoch == entry.epoch,
                f"shard {shard}: entry {entry.seq} was written by epoch {content.epoch}",
            )
            if state.fuzzy is None:
                self._check_once(shard, state, entry.seq, content)
                self._books.take(shard, entry.seq, content)
                check_ends(content.records, i6.check)
            fold(state, entry.seq, content.now_ms, content.records, content.balances)
            i1.check(True, "")
            if state.fuzzy is None:
                check_decided(state, content.records, i1.check, i6.check)
        except (UnreadableEntry, Impossible, LookupError, AttributeError) as error:
            # After a gap or a foreign entry the fold may fail in other ways than it foresees.
            i1.check(False, f"shard {shard}: entry {entry.seq}: {type(error).__name__}: {error}")
            state.seq = entry.seq
        if state.fuzzy is None:
            # Before a snapshot is complete its pools are ahead of the entries folded into them.
            for pool in state.touched:
                i1.check(not pool.broken_law(), pool.broken_law)

    def _check_once(self, shard: int, state: s.ShardState, seq: int, content: EntryContent) -> None:
        """No id may have a second effect."""
        i4 = self.report.invariants["I4"]
        # An id is unique within its slot and table only.
        seen: set[tuple[str, int, bytes]] = set()
        for record in content.records:
            slot = state.slot(record.slot)
            same = SAME_ROW.get(record.kind)
            if same is not None:
                self.report.invariants["I5"].check(
                    same(state, slot, record),
                    f"shard {shard}: entry {seq}: {record.key.hex()} came back otherwise",
                )
            for table, key, taken in effects(state, slot, record):
                i4.check(
                    not taken and (table, record.slot, key) not in seen,
                    f"shard {shard}: entry {seq}: {type(record).__name__} {key.hex()} again",
                )
                seen.add((table, record.slot, key))

    def _compare_sql(self, view: View) -> None:
        """Every row of SQL against the fold at SQL's position, and every row of the fold in SQL."""
        self._compare_table(view, "pools", POOL_COLUMNS, pool_rows)
        self._compare_table(view, "reservations", RESERVATION_COLUMNS, reservation_rows)
        self._compare_table(view, "teams", TEAM_COLUMNS, team_rows)
        self._compare_table(view, "seats", SEAT_COLUMNS, seat_rows)
        self._compare_table(view, "refunds", REFUND_COLUMNS, refund_rows)
        self._compare_table(view, "payments", PAYMENT_COLUMNS, payment_rows, state_from=3)
        i5 = self.report.invariants["I5"].check
        compare_marks(view, self.states, self._beyond_sql, i5)
        for table, (columns, rows) in ACCOUNT_TABLES.items():
            self._compare_table(view, table, columns, rows)
        self._books.compare(view, self.states, self._beyond_sql, i5)

    def _compare_table(
        self,
        view: View,
        table: str,
        columns: Sequence[str],
        expected_of: Callable[[s.ShardState, s.SlotState], Iterator[tuple[Any, ...]]],
        *,
        state_from: int = 0,
    ) -> None:
        i5 = self.report.invariants["I5"]
        expected: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for shard, state in enumerate(self.states):
            if shard in self._beyond_sql:
                continue
            for slot in state.slots.values():
                for row in expected_of(state, slot):
                    expected[row[:2]] = row
        slot_at = columns.index("slot")
        gone = {
            columns.index(name): is_gone
            for name, is_gone in (
                ("reservation_id", self._gone),
                ("withdrawal_id", self._gone),
                ("team_id", self._team_gone),
            )
            if name in columns
        }
        unknown = 0
        for read in view.rows(table, columns):
            row = read_row(table, read)
            if state_from and row[columns.index("state")] < state_from:
                continue
            if self._map.slots_of[row[slot_at]] in self._beyond_sql:
                continue
            wanted = expected.pop(row[:2], None)
            if wanted is None and left_memory(table, row, self._slot(row[slot_at])):
                continue
            if wanted is None and any(
                is_gone(row[slot_at], row[at]) for at, is_gone in gone.items()
            ):
                unknown += 1
                continue
            i5.check(wanted == row, partial("{}: SQL {}, journal {}".format, table, row, wanted))
        for row in expected.values():
            i5.check(False, f"{table}: {row} is missing in SQL")
        if unknown:
            self.report.notes.append(
                f"{table}: {unknown} rows are of what left memory before the snapshot: not compared"
            )

    def _slot(self, number: int) -> s.SlotState:
        return self.states[self._map.slots_of[number]].slot(number)

    def _gone(self, number: int, reservation_id: str) -> bool:
        """Whether a reservation seems to have been forgotten before the snapshot of its shard."""
        shard = self._map.slots_of[number]
        slot = self.states[shard].slot(number)
        if shard not in self._partial or slot.forgotten is None:
            return False
        key = bytes.fromhex(reservation_id[3:])
        return find(self.states[shard], slot, key) is None and slot.forgotten.may_contain(key)

    def _team_gone(self, number: int, team_id: str) -> bool:
        """The same of a team; nothing but SQL keeps the keys of those."""
        shard = self._map.slots_of[number]
        state = self.states[shard]
        teams = known_teams(state, state.slot(number))
        return shard in self._partial and bytes.fromhex(team_id[3:]) not in teams

    def _check_money(self, state: s.ShardState) -> None:
        i6 = self.report.invariants["I6"]
        for slot in state.slots.values():
            owed: dict[str, int] = {}
            for refund in slot.refunds.values():
                owed[refund.payment_id] = owed.get(refund.payment_id, 0) + refund.amount_minor
            for key, (reservation_id, amount, outcome) in slot.payments.items():
                if outcome == Outcome.REFUND_DUE:
                    whole = slot.refunds.get(key)
                    due = None if whole is None else whole.amount_minor
                    i6.check(due == amount, f"{reservation_id}: paid {amount}, refund due {due}")
                    continue
                if self._gone(slot.slot, reservation_id):
                    continue
                held = find(state, slot, bytes.fromhex(reservation_id[3:]))
                payment = None if held is None else held.payment
                i6.check(payment is not None, f"{reservation_id}: its payment is nowhere")
                if payment is not None:
                    back = owed.get(payment.payment_id, 0)
                    i6.check(
                        back == payment.refunded_minor <= amount == payment.amount_minor,
                        f"payment {payment.payment_id}: refunds {back}, booked "
                        f"{payment.refunded_minor}, paid {amount}",
                    )

    def _check_limits(self, state: s.ShardState) -> None:
        """What reservations add up to is what the pools say."""
        i1 = self.report.invariants["I1"]
        for slot in state.slots.values():
            held: dict[int, list[int]] = {}
            for one in slot.reservations.values():
                sums = held.setdefault(id(one.pool), [0, 0])
                if one.state == s.RESERVED:
                    sums[0] += one.quantity
                elif one.state == s.CONFIRMED:
                    sums[1] += one.quantity - one.returned
            for pool in slot.pools():
                sums = held.get(id(pool), [0, 0])
                sums[1] += pool.forgotten_sold
                i1.check(
                    sums == [pool.reserved, pool.sold],
                    f"pool {pool.campaign_id}/{pool.sku_id}: reservations add up to {sums}, "
                    f"the pool says {[pool.reserved, pool.sold]}",
                )

    def _check_pools(self, state: s.ShardState) -> None:
        i1 = self.report.invariants["I1"]
        for slot in state.slots.values():
            for pool in slot.pools():
                i1.check(not pool.broken_law(), pool.broken_law)
                self.report.pools.append(pool.balance(slot.slot, slot.generation))

    def _check_acks(self) -> None:
        """What a client was told is in the journal, once (a second effect is I4's business)."""
        i2 = self.report.invariants["I2"]
        for ack in self._acks:
            state = self.states[self._map.slots_of[ack.slot]]
            there = find(state, state.slot(ack.slot), ack.key) is not None
            if not there and ack.reserved:
                there = self._gone(ack.slot, public_id(ack.slot, ack.key))
            wrong = "acknowledged and lost" if ack.reserved else "refused and yet done"
            i2.check(there is ack.reserved, f"{wrong}: {ack.what}")
