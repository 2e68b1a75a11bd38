"""What is checked at every entry: the journal, judged at the moment it grows.

How it works
------------
The ledger sees each entry when the store takes it. It folds it with the real `evolve` into a state
of its own, and asks the naive model of the shop (`tests/model/naive.py`) whether the decision was
right, from what callers asked for. So a violation stops the run at the entry that makes it:

* I1: every pool that an entry touches obeys the conservation law, and its balance is the model's.
* I3: sequences have no gaps, and only the newest epoch appends.
* I4: a request, payment, document or transfer id has one effect; nothing follows a told no.
* I5: what a commit changed in SQL is what stood at its position.
* I6: paid = kept + refunded + refund due, whenever money moved.
* Rules: nobody is sold out, refused, expired, refunded or revoked but by the rules, in this order.

`answers.py` holds what callers were told against the same books.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from actors.core import commands as c
from actors.core import records as r
from actors.core import state as s
from actors.core import team_records as t
from actors.core.codec import EntryContent, unpack_entry
from actors.core.evolve import evolve, open_entry
from actors.core.identity import public_id, request_key
from actors.core.outcomes import Outcome
from actors.core.reservations import reservation_view
from actors.core.totals import totals
from persistence.ports import Entry, Ownership
from server.verify_rows import same_row
from tests.model.naive import Naive
from tests.model.naive_stock import PARTS
from tests.sim.books import Book, Violation, compare_commit, need
from tests.sim.loop import START_MS, Process, World
from tests.sim.operations import Operation, fingerprint, mark_of
from tests.sim.sink import MemorySink
from tests.sim.stores import Watcher


class Ledger(Watcher):
    """All shards' books, the naive model, and what callers asked for."""

    def __init__(self, world: World, shards: int) -> None:
        self.world = world
        self.sink = MemorySink()
        """The cluster's, once there is one."""
        self.judges: dict[int, Callable[[Any, Book, Any], None]] = dict(JUDGES)
        self.naive = Naive(START_MS)
        archive: dict[int, dict[bytes, s.Reservation]] = {}
        self.naive.forgotten = archive
        self.books = [Book(shard, archive) for shard in range(shards)]
        self.asked: dict[Any, list[Operation]] = {}
        """Mark of an operation -> those that were asked with it (one, but for reused ids)."""
        self.effects: dict[Any, int] = {}
        """Mark of an operation -> its place in its journal."""
        self.taken: dict[Any, list[tuple[int, Any]]] = {}
        """Mark -> (place, fingerprint) of what was decided for its id."""
        self.closed: dict[str, int] = {}
        """Refund -> the place where it was closed."""
        self.refusals: dict[tuple[int, bytes], list[tuple[int, int, int]]] = {}
        """(slot, request key) -> (place, outcome, journalled time) of each no."""
        self.paying: Counter[str] = Counter()
        """Reservations that somebody is paying for just now."""
        self.sometimes: Counter[str] = Counter()
        self.lock_holder: Callable[[int], str] = lambda _: ""
        self.in_flight: Callable[[int, str], bool] = lambda _shard, _owner: False
        self.frozen = False
        """The store was wiped: nothing may be appended."""

    # What the stores tell

    def fenced(self, shard: int, process: Process) -> None:
        self.sometimes["a zombie was fenced"] += 1
        self.world.tell(process.name, "is fenced")

    def resent(self, shard: int) -> None:
        self.sometimes["a resend was recognised"] += 1

    def met(self, shard: int, what: str) -> None:
        self.sometimes[what] += 1

    def locked_by(self, shard: int) -> str:
        return self.lock_holder(shard)

    def acquired(self, shard: int, ownership: Ownership) -> None:
        book = self.books[shard]
        need(
            ownership.epoch == book.epoch + 1,
            "I3",
            lambda: f"epoch {book.epoch} became {ownership.epoch}",
        )
        book.epoch, book.owner = ownership.epoch, ownership.owner
        self.world.tell(ownership.owner, "owns shard %d, epoch %d", shard, ownership.epoch)
        if self.in_flight(shard, ownership.owner):
            self.sometimes["a promotion met an append in flight"] += 1

    def appended(self, shard: int, process: Process, entry: Entry) -> None:
        book = self.books[shard]
        state, seq = book.state, entry.seq
        need(not self.frozen, "I2", "something was appended to a journal that was wiped")
        need(seq == len(book.entries) + 1, "I3", lambda: f"entry {seq} after {len(book.entries)}")
        need(
            entry.epoch == book.epoch,
            "I3",
            lambda: f"entry {seq} of epoch {entry.epoch}; epoch {book.epoch} owns the journal",
        )
        content = unpack_entry(entry.data)
        now_ms = content.now_ms
        need(content.epoch == entry.epoch, "I3", "an entry says another epoch than it has")
        need(now_ms >= state.now_ms, "time", lambda: f"entry {seq} goes back in time")
        book.entries.append(entry)
        self.naive.now_ms = now_ms
        open_entry(state, seq, now_ms)
        for record in content.records:
            book.at += 1
            kind = record[0]
            if self.world.story is not None:
                self.world.tell(process.name, "entry %d: %s", seq, brief(record))
            self._judge(book, kind, record)
            evolve(state, record)
            self._note(book, kind, record)
        self._entry_is_whole(book, seq, content)
        state.advance(now_ms)
        book.starts.append(book.at)
        told = {(b.campaign_id, b.sku_id): b for b in content.balances}
        kinds = {record[0] for record in content.records}
        if not kinds <= r.UNTOLD:
            book.told.append((seq, now_ms, kinds.isdisjoint(r.UNKEPT)))
        if not MONEY.isdisjoint(kinds):
            self._money_is_where_it_was_paid(state, seq)
        for pool, slot in state.touched.items():
            name = pool.campaign_id, pool.sku_id
            need(not pool.broken_law(), "I1", pool.broken_law)
            need(
                told.get(name) == pool.balance(slot, state.slots[slot].generation),
                "fold",
                lambda name=name: f"entry {seq} says {told.get(name)}, the fold has another",
            )
            self._same_as_the_model(pool, name, seq)

    def _judge(self, book: Book, kind: int, record: Any) -> None:
        self.judges[kind](self, book, record)

    def _entry_is_whole(self, book: Book, seq: int, content: EntryContent) -> None:
        """All records of an entry were judged."""

    def committed(self, shard: int, from_seq: int, to_seq: int) -> None:
        """SQL has the entries up to `to_seq` now."""
        compare_commit(self.books[shard], self.sink, from_seq, to_seq)

    def _money_is_where_it_was_paid(self, state: s.ShardState, seq: int) -> None:
        sums = totals(state)
        owed = sums.kept_minor + sums.refund_due_minor + sums.refunded_minor
        need(
            sums.paid_minor == owed,
            "I6",
            lambda: f"entry {seq}: {sums.paid_minor} paid, {owed} accounted for",
        )

    def _same_as_the_model(self, pool: Any, name: tuple[str, str], seq: int) -> None:
        row = self.naive.pools[name]
        for part in PARTS:
            if getattr(pool, part) != row[part]:
                raise Violation(
                    f"I1: entry {seq}: {name} has {getattr(pool, part)} {part}, "
                    f"by the rules {row[part]}"
                )
        need(pool.owed == row["owed"], "I1", lambda: f"entry {seq}: {name} owes {pool.owed}")

    def _note(self, book: Book, kind: int, record: Any) -> None:
        """Remember what could be read from this place on."""
        state, at = book.state, book.at
        for pool, slot in state.touched.items():
            history = book.pools.setdefault((pool.campaign_id, pool.sku_id), [])
            balance = pool.balance(slot, 1)
            if not history or history[-1][1] != balance:
                history.append((at, balance))
        if kind in ON_ONE or kind in SEATS:
            slot_state = state.slots[record.slot]
            held = slot_state.reservations.get(record.key)
            if held is not None:
                history = book.held.setdefault(public_id(record.slot, record.key), [])
                history.append((at, reservation_view(slot_state, held)))
        elif kind in (r.CAMPAIGN_PUT, r.CAMPAIGN_STATE_SET):
            book.sales.setdefault(record.campaign_id, []).append((at, record.state))

    # What callers tell

    def ask(self, operation: Operation) -> None:
        """Somebody asks for this from now on."""
        self.asked.setdefault(operation.mark, []).append(operation)

    def serve(self, command: Any) -> None:
        """The service asks for a transfer of its own."""
        mark = mark_of(command)
        known = self.asked.setdefault(mark, [])
        if fingerprint(command) not in [one.fingerprint for one in known]:
            known.append(Operation(0, command, 0))

    # Judging records

    def _once(self, book: Book, mark: Any) -> None:
        need(mark not in self.effects, "I4", lambda: f"a second effect of {mark}")
        self.effects[mark] = book.at

    def _operation(self, book: Book, mark: Any, told: Any = None) -> Operation:
        for operation in self.asked.get(mark, ()):
            if told is None or operation.fingerprint in (None, told):
                operation.took_effect = True
                self.taken.setdefault(mark, []).append((book.at, operation.fingerprint))
                return operation
        raise Violation(f"I4: nobody asked for {mark}")

    def _by_the_rules(self, told: Any, record: Any) -> None:
        """Apply a command to the model; its outcome must be that of the record."""
        answer = self.naive.apply(told)
        expected = EXPECTED[record[0]]
        need(
            answer[0] == expected,
            "rules",
            lambda: f"{brief(record)} is {expected}; by the rules {answer[0]} ({told})",
        )

    def reserved(self, book: Book, record: r.StockReserved) -> None:
        key = (record.slot, record.key)
        self._once(book, ("request", *key))
        operation = self._operation(book, ("request", *key), record.fingerprint)
        need(
            operation.final in (None, Outcome.RESERVED),
            "I4",
            lambda: f"{operation} was told {operation.final}, and is reserved afterwards",
        )
        self._drop_old_refusal(key)
        answer = self.naive.apply(operation.command)
        fields = (record.list_price_minor, record.unit_price_minor, record.payable_minor)
        found = ("RESERVED", record.key, *fields, record.currency_code, record.deadline_ms)
        need(answer == found, "rules", lambda: f"reserved as {found}, by the rules {answer}")

    def _drop_old_refusal(self, key: tuple[int, bytes]) -> None:
        """A no is remembered for the window; after it the same id may be asked again."""
        known = self.naive.refused.get(key)
        if known is not None and self.naive.now_ms - known[2] >= s.REFUSAL_WINDOW_MS:
            del self.naive.refused[key]

    def refused(self, book: Book, record: r.RequestRefused) -> None:
        key = (record.slot, record.key)
        self._drop_old_refusal(key)
        need(
            key not in self.naive.refused,
            "I4",
            lambda: f"{key[1].hex()} was refused again, as if it had not been",
        )
        outcome = Outcome(record.outcome)
        operation = self._operation(book, ("request", *key), record.fingerprint)
        need(
            operation.open or key not in self.refusals,
            "I4",
            lambda: f"{operation} was refused long ago, and is decided again for nobody",
        )
        need(
            operation.final in (None, outcome),
            "I4",
            lambda: f"{operation} was told {operation.final}, and is {outcome.name} afterwards",
        )
        says = self._model_says(operation.command)
        need(
            says == outcome.name,
            "rules",
            lambda: f"{operation} is refused {outcome.name}, by the rules {says}",
        )
        self.naive.refused.setdefault(key, ((), says, self.naive.now_ms))
        self.refusals.setdefault(key, []).append((book.at, outcome, self.naive.now_ms))

    def _model_says(self, command: Any) -> str:
        """The outcome of a command that may be refused."""
        return str(self.naive.apply(command)[0])

    def as_asked(self, book: Book, record: Any) -> None:
        """SKUs and campaigns: idempotent by their content."""
        name = record.sku_id if record[0] == r.SKU_PUT else record.campaign_id
        self.effects.setdefault(("put", name), book.at)
        self._by_the_rules(self._operation(book, ("put", name)).command, record)

    def document(self, book: Book, record: Any) -> None:
        key = request_key(record.caller, record.request_id)
        mark = ("request", record.slot, key)
        self._once(book, mark)
        self._by_the_rules(self._operation(book, mark).command, record)

    def left(self, book: Book, record: r.TransferredOut) -> None:
        self._once(book, ("left", record.transfer_id))
        head = (c.TRANSFER_OUT, record.slot, 0, record.caller, record.request_id, record.sku_id)
        tail = (record.from_campaign_id, record.to_campaign_id, record.quantity)
        self._by_the_rules(c.TransferOut(*head, *tail), record)

    def arrived(self, book: Book, record: r.TransferredIn) -> None:
        self._once(book, ("arrived", record.transfer_id))
        need(("left", record.transfer_id) in self.effects, "I1", "units arrive that never left")
        head = (c.TRANSFER_IN, record.slot, 0, "", record.transfer_id, record.sku_id)
        told = c.TransferIn(*head, record.to_campaign_id, record.quantity)
        answer = self.naive.apply(told)
        need(answer[1] == record.arrived, "rules", lambda: f"{brief(record)}: {answer}")

    def settled(self, book: Book, record: r.TransferEnded) -> None:
        self._once(book, ("settled", record.transfer_id))
        need(
            self.naive.arrived.get(record.transfer_id) == record.arrived,
            "I1",
            "a transfer is settled otherwise than it arrived",
        )
        head = (c.TRANSFER_DONE, record.slot, 0, "", record.transfer_id)
        self._by_the_rules(c.TransferDone(*head, record.arrived), record)

    def turned(self, book: Book, record: r.CampaignStateSet) -> None:
        head = (c.SET_CAMPAIGN_STATE, record.slot, 0, "", record.campaign_id)
        self._by_the_rules(c.SetCampaignState(*head, record.state), record)

    def paid(self, book: Book, record: Any) -> None:
        """Kept, or due back: one effect of a payment id either way."""
        mark = ("payment", record.slot, record.payment_id)
        self._once(book, mark)
        if record[0] == r.RESERVATION_CONFIRMED:
            told = public_id(record.slot, record.key), record.paid_minor
            if record.reacquired:
                self.sometimes["a late payment found units"] += 1
        else:
            told = record.reservation_id, record.amount_minor
        self._by_the_rules(self._operation(book, mark, told).command, record)

    def released(self, book: Book, record: r.ReservationReleased) -> None:
        public = public_id(record.slot, record.key)
        self._must_be_held(public, "released")
        self._by_the_rules(c.Release(c.RELEASE, record.slot, 0, "", public), record)

    def expired(self, book: Book, record: r.ReservationExpired) -> None:
        public = public_id(record.slot, record.key)
        self._must_be_held(public, "expired")
        row = self.naive.held[public]
        # A seat may end with its team: that is judged when the entry is whole.
        due = "team" in row or row["deadline"] <= self.naive.now_ms
        need(due, "rules", f"{public} expires early")
        self.naive.expired(public)
        self.sometimes["a reservation expired"] += 1
        if self.paying[public]:
            self.sometimes["an expiry raced a confirm"] += 1

    def _must_be_held(self, public: str, what: str) -> None:
        row = self.naive.held.get(public)
        found = "unknown" if row is None else row["state"]
        need(found == "RESERVED", "I4", lambda: f"{public} is {what}, and was {found}")

    def begun(self, book: Book, record: r.PaymentBegun) -> None:
        public = public_id(record.slot, record.key)
        self._once(book, ("begun", public))
        told = c.BeginPayment(c.BEGIN_PAYMENT, record.slot, 0, "", public, record.payment_id)
        answer = self.naive.apply(told)
        need(answer == ("PAYMENT_BEGUN", record.deadline_ms), "rules", lambda: f"begun: {answer}")

    def failed(self, book: Book, record: r.PaymentFailed) -> None:
        public = public_id(record.slot, record.key)
        self._once(book, ("failed", public, record.payment_id))
        head = (c.REPORT_FAILED_PAYMENT, record.slot, 0, "", public, record.payment_id)
        self._by_the_rules(c.ReportFailedPayment(*head, record.paid_minor), record)

    def returned(self, book: Book, record: r.UnitsReturned) -> None:
        mark = ("request", record.slot, record.request_key)
        self._once(book, mark)
        self._by_the_rules(self._operation(book, mark).command, record)
        row = self.naive.held[public_id(record.slot, record.key)]
        need(row["returned"] == record.returned_total, "rules", "another total of returned units")

    def fulfilled(self, book: Book, record: r.FulfilmentReported) -> None:
        public = public_id(record.slot, record.key)
        head = (c.REPORT_FULFILMENT, record.slot, 0, "", public)
        self._by_the_rules(c.ReportFulfilment(*head, record.stage, record.at_ms), record)

    def refund_reported(self, book: Book, record: r.RefundReported) -> None:
        # A shard remembers the last report of a refund only: an earlier one that comes again after
        # another counts as one more attempt, as the rules have it.
        mark = ("report", record.slot, record.request_key)
        self.effects.setdefault(mark, book.at)
        self._by_the_rules(self._operation(book, mark).command, record)
        if record.closed:
            self.closed.setdefault(public_id(record.slot, record.refund_key), book.at)

    def revoked(self, book: Book, record: r.ReservationRevoked) -> None:
        # A shortage takes what is in memory; who was forgotten is passed over, and that is known.
        held, gone = self.naive.held, self.naive.forgotten
        self.naive.held = {
            name: row for name, row in held.items() if row["key"] not in gone.get(row["slot"], {})
        }
        try:
            self.naive.revoked(public_id(record.slot, record.key))
        except AssertionError as error:
            raise Violation(f"rules: {brief(record)}: {error}") from error
        finally:
            self.naive.held = held
        self.sometimes["a shortage revoked something"] += 1

    def forgotten(self, book: Book, record: r.ReservationsForgotten) -> None:
        position = self.sink.position(book.shard)[1]
        for key in record.keys:
            held = book.state.slots[record.slot].reservations.get(key)
            need(held is not None, "I4", "a reservation is forgotten that is not in memory")
            if held is not None:
                need(held.state != s.RESERVED, "rules", "an open reservation is forgotten")
                need(held.seq <= position, "I5", "a reservation is forgotten before SQL has it")

    def recalled(self, book: Book, record: r.ReservationRecalled) -> None:
        slot = book.state.slot(record.slot)
        need(
            same_row(book.state, slot, record),
            "I4",
            lambda: f"{public_id(record.slot, record.key)} came back otherwise than it was",
        )
        self.sometimes["a reservation was recalled"] += 1


JUDGES: dict[int, Callable[[Ledger, Book, Any], None]] = {
    r.SKU_PUT: Ledger.as_asked,
    r.STOCK_CHANGED: Ledger.document,
    r.TRANSFERRED_OUT: Ledger.left,
    r.TRANSFERRED_IN: Ledger.arrived,
    r.TRANSFER_ENDED: Ledger.settled,
    r.CAMPAIGN_PUT: Ledger.as_asked,
    r.CAMPAIGN_STATE_SET: Ledger.turned,
    r.STOCK_RESERVED: Ledger.reserved,
    r.REQUEST_REFUSED: Ledger.refused,
    r.RESERVATION_CONFIRMED: Ledger.paid,
    r.RESERVATION_RELEASED: Ledger.released,
    r.RESERVATION_EXPIRED: Ledger.expired,
    r.PAYMENT_BEGUN: Ledger.begun,
    r.PAYMENT_FAILED: Ledger.failed,
    r.REFUND_FELL_DUE: Ledger.paid,
    r.UNITS_RETURNED: Ledger.returned,
    r.FULFILMENT_REPORTED: Ledger.fulfilled,
    r.REFUND_REPORTED: Ledger.refund_reported,
    r.RESERVATION_REVOKED: Ledger.revoked,
    r.RESERVATIONS_FORGOTTEN: Ledger.forgotten,
    r.RESERVATION_RECALLED: Ledger.recalled,
}
EXPECTED = {
    r.SKU_PUT: "APPLIED",
    r.STOCK_CHANGED: "APPLIED",
    r.TRANSFERRED_OUT: "APPLIED",
    r.TRANSFER_ENDED: "APPLIED",
    r.CAMPAIGN_PUT: "APPLIED",
    r.CAMPAIGN_STATE_SET: "APPLIED",
    r.RESERVATION_CONFIRMED: "CONFIRMED",
    r.RESERVATION_RELEASED: "RELEASED",
    r.PAYMENT_FAILED: "NOTED",
    r.REFUND_FELL_DUE: "REFUND_DUE",
    r.UNITS_RETURNED: "RETURNED",
    r.FULFILMENT_REPORTED: "NOTED",
    r.REFUND_REPORTED: "APPLIED",
}


MONEY = frozenset(
    {
        r.RESERVATION_CONFIRMED,
        r.REFUND_FELL_DUE,
        r.UNITS_RETURNED,
        r.REFUND_REPORTED,
        r.RESERVATION_REVOKED,
        t.SEAT_CLOSED,
        t.SEAT_SETTLED,
    }
)
"""Records that move money."""
SEATS = frozenset({t.SEAT_TAKEN, t.SEAT_MOVED, t.SEAT_CLOSED, t.SEAT_SETTLED})
"""Records of one seat, by its key."""
ON_ONE = frozenset(
    {
        r.STOCK_RESERVED,
        r.RESERVATION_CONFIRMED,
        r.RESERVATION_RELEASED,
        r.RESERVATION_EXPIRED,
        r.PAYMENT_BEGUN,
        r.PAYMENT_FAILED,
        r.UNITS_RETURNED,
        r.FULFILMENT_REPORTED,
        r.RESERVATION_REVOKED,
        r.RESERVATION_RECALLED,
    }
)
"""Records of one reservation, by its key."""


def brief(record: Any) -> str:
    """A record in a line of the story."""
    fields = record._asdict()
    key = fields.get("key") or fields.get("refund_key") or fields.get("transfer_id") or b""
    names = ("request_id", "sku_id", "campaign_id", "quantity", "buyer_id", "payment_id", "outcome")
    said = [f"{name}={fields[name]}" for name in names if fields.get(name)]
    return " ".join([type(record).__name__, key.hex()[:8], *said])
