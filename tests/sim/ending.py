"""The end of a seed: nothing is wrong any more, so everything comes right, and all books agree.

Liveness: every operation is over, each shard takes a probe, standbys and SQL catch up. Then the
fold of the journal is compared with the primary, the standby, each snapshot with its tail, and SQL.
"""

from actors.core import commands as c
from actors.core import records as r
from actors.core import state as s
from actors.core.codec import unpack_entry, unpack_told
from actors.core.evolve import fold
from actors.core.identity import slot_of
from actors.core.outcomes import Outcome
from actors.core.snapshot import Loader, digest
from actors.core.totals import totals
from actors.shard import Role
from server.verify_rows import (
    PAYMENT_COLUMNS,
    POOL_COLUMNS,
    REFUND_COLUMNS,
    RESERVATION_COLUMNS,
    SEAT_COLUMNS,
    TEAM_COLUMNS,
    payment_rows,
    pool_rows,
    refund_rows,
    reservation_rows,
    seat_rows,
    team_rows,
)
from tests.model.shop import deadlines, limits
from tests.model.team_shop import teams_of
from tests.sim.account_ending import AccountEnding
from tests.sim.account_ledger import AccountLedger
from tests.sim.books import Book, Violation, need
from tests.sim.callers import SALE, SKUS, Callers
from tests.sim.cluster import Cluster
from tests.sim.ledger import Ledger
from tests.sim.operations import REQUESTS, Operation

TABLES = (
    ("pools", POOL_COLUMNS, pool_rows),
    ("reservations", RESERVATION_COLUMNS, reservation_rows),
    ("refunds", REFUND_COLUMNS, refund_rows),
    ("payments", PAYMENT_COLUMNS, payment_rows),
    ("teams", TEAM_COLUMNS, team_rows),
    ("seats", SEAT_COLUMNS, seat_rows),
)
FINE = (Outcome.FOUND, Outcome.APPLIED, Outcome.EXCEEDS_TOTAL, Outcome.NOT_DISTRIBUTOR)
"""What a probe may be told."""
KEPT_OR_DUE = (3, 4)
"""States of a payment that took effect; begun and failed ones are no facts of the fold."""


class Ending:
    """Compares all there is."""

    def __init__(self, cluster: Cluster, ledger: Ledger, callers: Callers) -> None:
        self.cluster, self.ledger, self.callers = cluster, ledger, callers
        self.world = cluster.world
        self._accounts = (
            AccountEnding(cluster, ledger) if isinstance(ledger, AccountLedger) else None
        )
        self._digests: dict[int, int] = {}
        """Of the fold of each shard's whole journal."""

    def compare(self, patience_s: float) -> None:
        """Raises Violation."""
        cluster, world = self.cluster, self.world
        end_s = world.now + patience_s
        self._no_findings()
        if not world.run(lambda: not self.callers.waiting or bool(cluster.findings), end_s):
            raise Violation(f"liveness: {self.callers.waiting} operations are never over")
        self._no_findings()
        self._probe(end_s)
        if not world.run(self._at_rest, end_s):
            raise Violation(f"liveness: {self._what_lags()}")
        self._no_findings()
        for book in self.ledger.books:
            self._compare_memory(book)
            self._compare_snapshots(book)
            self._compare_sql(book)
            self._compare_facts(book)
            sums = totals(book.state)
            need(not sums.broken, "I1", str(sums.broken))
            owed = sums.kept_minor + sums.refund_due_minor + sums.refunded_minor
            need(sums.paid_minor == owed, "I6", f"{sums.paid_minor} paid, {owed} accounted for")
        if self._accounts is not None:
            self._accounts.compare()
        self._compare_retries()

    def _no_findings(self) -> None:
        if self.cluster.findings:
            raise Violation(self.cluster.findings[0])

    def _probe(self, end_s: float) -> None:
        """Each shard takes a change and a read."""
        told: list[Operation] = []
        keys = [("", SKUS[0])]
        if self.cluster.shape.shards > 1:
            keys.append((SALE, SKUS[0]))
        for sale, sku in keys:
            slot = slot_of(sale or sku)
            self.callers.must(c.GetStock(c.GET_STOCK, slot, 0, "web", sale, sku), told.append)
            head = (c.ADJUST_STOCK, slot, 0, "web", f"probe{slot}")
            self.callers.must(c.AdjustStock(*head, sale, sku, 1), told.append)
        wanted = 2 * len(keys)
        if self._accounts is not None:
            commands = self._accounts.probes()
            wanted += len(commands)
            for command in commands:
                self.callers.must(command, told.append)
        if not self.world.run(lambda: len(told) == wanted or bool(self.cluster.findings), end_s):
            raise Violation("liveness: a shard does not answer after all faults were mended")
        for operation in told:
            final = operation.final
            fine = final in FINE
            need(fine, "liveness", lambda o=operation: f"{o} ended {o.final}")

    def _at_rest(self) -> bool:
        if self.cluster.findings:
            return True
        if self._accounts is not None and not self._accounts.at_rest():
            return False
        for book, pair in zip(self.ledger.books, self.cluster.pairs, strict=True):
            last = len(book.entries)
            roles = sorted(str(x.shard.role) for x in pair.instances.values())
            if roles != [Role.PRIMARY, Role.STANDBY]:
                return False
            if self.cluster.sink.position(pair.shard)[1] != last:
                return False
            for instance in pair.instances.values():
                primary, state = instance.shard._primary, instance.shard.state
                if state is None or not instance.process.alive:
                    return False
                if (state.seq if primary is None else primary.last_seq) != last:
                    return False
                if primary is not None and (primary.queue_length or instance.journal.appending):
                    return False
        return True

    def _what_lags(self) -> str:
        said = []
        for book, pair in zip(self.ledger.books, self.cluster.pairs, strict=True):
            for instance in pair.instances.values():
                state = instance.shard.state
                said.append(
                    f"{instance.token} is {instance.shard.role} {instance.shard.halt_reason} at "
                    f"{state and state.seq}"
                )
            position = self.cluster.sink.position(pair.shard)[1]
            said.append(f"SQL at {position}, the journal at {len(book.entries)}")
        if self._accounts is not None:
            said += self._accounts.what_lags()
        return "; ".join(said)

    def _compare_memory(self, book: Book) -> None:
        for instance in self.cluster.pairs[book.shard].instances.values():
            state = instance.shard.state
            assert state is not None
            self._same(book, state, f"{instance.shard.role} {instance.token}")

    def _same(self, book: Book, other: s.ShardState, who: str) -> None:
        state = book.state
        need(digest(other) == self._digest_of(book), "fold", f"the state of {who} differs")
        need(deadlines(other) == deadlines(state), "fold", f"the deadlines of {who} differ")
        need(limits(other) == limits(state), "fold", f"the limits of {who} differ")
        need(teams_of(other) == teams_of(state), "fold", f"the teams of {who} differ")
        need(other.closing == state.closing, "fold", f"{who} ends the teams of other campaigns")
        if self._accounts is not None:
            self._accounts.same(book, other, who)
        owing = [{(p.campaign_id, p.sku_id) for p in x.debtors} for x in (other, state)]
        need(owing[0] == owing[1], "fold", f"the debtors of {who} differ")
        for (slot, key), known_no in self.ledger.refusals.items():
            _, outcome, at_ms = known_no[-1]
            # A primary's time goes on without entries.
            now_ms = max(state.now_ms, other.now_ms)
            if slot not in state.slots or now_ms - at_ms >= s.REFUSAL_WINDOW_MS:
                continue
            found = other.slot(slot).refusals.get(key)
            need(found and found[1] == outcome, "I4", f"{who} has forgotten a refusal")

    def _digest_of(self, book: Book) -> int:
        if book.shard not in self._digests:
            self._digests[book.shard] = digest(book.state)
        return self._digests[book.shard]

    def _compare_snapshots(self, book: Book) -> None:
        snapshots = self.cluster.snapshots
        for _, handle, info in snapshots._published(book.shard):
            if handle in self.cluster.damaged:
                continue
            loader = Loader(s.ShardState(), info.begin_seq)
            loader.read(snapshots.read(book.shard, info))
            self._fold_on(loader.state, book, loader.end_seq)
            if loader.end_seq > info.begin_seq:
                loader.finish()
            self._fold_on(loader.state, book, len(book.entries))
            self._same(book, loader.state, f"the snapshot from {info.begin_seq} and its tail")

    def _fold_on(self, state: s.ShardState, book: Book, end_seq: int) -> None:
        for entry in book.entries[state.seq : end_seq]:
            content = unpack_entry(entry.data)
            fold(state, entry.seq, content.now_ms, content.records, content.balances)

    def _compare_sql(self, book: Book) -> None:
        sink = self.cluster.sink
        need(not sink.letters, "I5", lambda: f"a dead letter: {sink.letters[0]}")
        mine = self.cluster.pairs[book.shard].slots
        for table, columns, rows_of in TABLES:
            expected = {
                row for slot in book.state.slots.values() for row in rows_of(book.state, slot)
            }
            found = {
                tuple([row[name] for name in columns])
                for row in sink.rows(table)
                if row["slot"] in mine and (table != "payments" or row["state"] in KEPT_OR_DUE)
            }
            need(
                found == expected,
                "I5",
                lambda t=table, a=found, b=expected: f"{t} in SQL {a - b}, by the fold {b - a}",
            )

    def _compare_facts(self, book: Book) -> None:
        """SQL tells each decided fact once, in order, and nothing else."""
        facts = self.cluster.sink.facts.get(book.shard, [])
        need(
            [(fact.seq, fact.at_ms) for fact in facts] == [told[:2] for told in book.told],
            "I5",
            lambda: f"facts in SQL are of {[x.seq for x in facts]}, the journal's of {book.told}",
        )
        for fact, (seq, _, whole) in zip(facts, book.told, strict=True):
            data = book.entries[seq - 1].data
            if whole:
                need(fact.data == data, "I5", lambda seq=seq: f"the facts of entry {seq} differ")
                continue
            records = unpack_entry(data).records
            expected = [None if record[0] in r.UNKEPT else record for record in records]
            need(
                list(unpack_told(fact.data)[1]) == expected,
                "I5",
                lambda seq=seq: f"what is told of entry {seq} differs",
            )

    def _compare_retries(self) -> None:
        """RETRY says that an attempt did nothing."""
        if self.world.harm["repeated"]:
            return  # A round that came twice did what its gateway knows nothing of.
        for operation in self.callers.told:
            alone = len(self.ledger.asked.get(operation.mark, ())) == 1
            request = operation.command.kind in REQUESTS
            if operation.final is None and operation.only_retry and alone and request:
                need(
                    not operation.took_effect,
                    "I4",
                    lambda o=operation: f"{o} was only ever told RETRY, and took effect",
                )
