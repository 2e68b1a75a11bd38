"""What is checked of account shards at every entry: part of the ledger, whose rules hold here.

Each fact that a stock journal tells is expected from then on; a mark takes the next ones and no
others, and what each leads to by the naive rules, decided when those before it are judged, stands
behind the mark in the same entry, in their order. When the entry is whole: each record's postings
sum to 0 and are numbered on, the ledger sums to 0, each (reservation, level, event) is there once,
and the money of everybody concerned is where the rules have it.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from actors.core import commission_records as cr
from actors.core import commission_state as cs
from actors.core import facts as f
from actors.core import records as r
from actors.core import risk_records as k
from actors.core import team_records as t
from actors.core.codec import EntryContent
from actors.core.commission_commands import REQUEST_WITHDRAWAL
from actors.core.identity import account_slot, public_id
from actors.core.outcomes import Outcome
from actors.core.paying_out import withdrawal_view
from actors.core.programme import account_view
from actors.core.programme_config import programme_config
from actors.core.relay_records import FACT_TAKEN, FactTaken
from actors.core.risk_state import Profile
from actors.core.state import CAMPAIGN_ENDED
from server.verify_account_rows import same_account_row
from tests.model.naive_risk import NaiveRisk, Signal
from tests.sim.books import Book, History, need
from tests.sim.loop import World
from tests.sim.programme_rules import REVIEWS, ProgrammeRules
from tests.sim.team_ledger import TeamLedger
from tests.sim.told_facts import Told, ToldFacts

SIGNALS = {
    f.PAYMENT_FAILED: "failed",
    f.UNPAID_EXPIRY: "unpaid",
    f.ORDER_RETURNED: "returned",
}
BEHAVIOUR = {
    r.PAYMENT_FAILED: "PaymentFailed",
    r.RESERVATION_EXPIRED: "UnpaidExpiry",
    r.UNITS_RETURNED: "OrderReturned",
}
"""Records of stock shards of which each makes a fact of its buyer -> which."""
LATE_MS = 400
"""A fact that is taken so long after it was told comes late."""
OVERTAKING = "an order was told before an older binding of another shard was taken"
REVIEWED = {"approve": "approved", "reject": "rejected", "paid": "paid", "failed": "put back"}
ACT_NUMBERS = {"approve": 1, "reject": 2, "suspend": 3, "resume": 4}


class AccountLedger(TeamLedger):
    """A ledger that knows commission and risk."""

    def __init__(self, world: World, slots_of: Sequence[int], stock_shards: int) -> None:
        super().__init__(world, max(slots_of) + 1)
        self.stock_shards = stock_shards
        self.facts = ToldFacts(slots_of)
        self.programme = ProgrammeRules()
        self.risk = NaiveRisk()
        self.accounts: dict[str, History] = {}
        """What could be read of each distributor."""
        self.withdrawals: dict[bytes, History] = {}
        self.requests: dict[bytes, str] = {}
        """Withdrawal -> the id that it was asked by."""
        self.freezes: dict[str, dict[int, int]] = {}
        """Buyer -> as of when each change of a freeze was decided -> the end; 0: no more."""
        self.sums = [0] * 6
        """Of all entries of the commission's ledger, by account."""
        self._passed: deque[Told] = deque()
        """Facts that the last mark takes, without those whose effects were judged."""
        self._due: tuple[int, str, int] | None = None
        """The kind of the record that must follow, what it is about, and its slot."""
        self._count = 0
        self.behaved: Counter[int] = Counter()
        """Such records, by kind."""
        self.facts_taken: Counter[str] = Counter()
        self.seats_settled: set[str] = set()
        """Seats of teams that formed."""
        self._touched: set[str] = set()
        """Distributors whose money the entry moved."""
        self._behaved: set[str] = set()
        """Buyers whose risk the entry changed."""
        self.judges |= ACCOUNT_JUDGES

    def _entry_is_whole(self, book: Book, seq: int, content: EntryContent) -> None:
        super()._entry_is_whole(book, seq, content)
        if book.shard < self.stock_shards:
            self.facts.tell(book.shard, seq, content.records, content.now_ms)
            self.sometimes[OVERTAKING] = self.facts.overtaking
            self._conduct(content.records)
            return
        self._go_on_to_an_effect(book)
        self._nothing_due()
        for programme in book.state.programmes.values():
            self._money_is_where_the_rules_have_it(programme)
        self._touched.clear()
        for buyer in self._behaved:
            self._same_risk(book, buyer)
        self._behaved.clear()

    def _conduct(self, records: Sequence[Any]) -> None:
        """Which of an entry's records count against a buyer."""
        for record in records:
            if record[0] not in BEHAVIOUR:
                continue
            if record.buyer_id:
                self.behaved[record[0]] += 1
                continue
            # Only who lost a seat to an operator's act, before there was time to pay.
            row = self.naive.held[public_id(record.slot, record.key)]
            acted = any(x[0] == t.TEAM_FORMED and x.caller for x in records)
            over = "team" in row and self.naive.sales[row["pool"][0]]["state"] == CAMPAIGN_ENDED
            need(acted or over, "risk", lambda one=record: f"{one} counts against nobody")
            self.sometimes["a seat was ended unpaid by an operator"] += 1

    def _money_is_where_the_rules_have_it(self, programme: cs.Programme) -> None:
        need(not sum(self.sums), "I6", lambda: f"the ledger comes to {sum(self.sums)}")
        need(
            programme.sums == self.sums,
            "I6",
            lambda: f"the accounts have {programme.sums}, the entries come to {self.sums}",
        )
        for name in self._touched:
            held = programme.distributors.get(name)
            found = None if held is None else tuple(held.balances[1:])
            wanted = self.programme.money(name)
            need(
                found == wanted,
                "I6",
                lambda n=name, a=found, b=wanted: f"{n} has {a}, by the rules {b}",
            )

    def _same_risk(self, book: Book, buyer: str) -> None:
        now_ms = book.state.now_ms
        profile = book.state.slot(account_slot(buyer)).profiles.get(buyer) or Profile()
        until_ms = profile.frozen_until_ms if profile.frozen_until_ms > now_ms else 0
        found = profile.score(now_ms), until_ms
        wanted = self.risk.score(buyer, now_ms), self.risk.frozen_until(buyer, now_ms)
        need(found == wanted, "risk", lambda: f"{buyer} has {found}, by the rules {wanted}")

    def _note(self, book: Book, kind: int, record: Any) -> None:
        super()._note(book, kind, record)
        if book.shard < self.stock_shards:
            return
        names = {entry.distributor_id for entry in entries_of(record)}
        names |= {getattr(record, name, "") for name in ("distributor_id", "referrer_id")}
        programme = book.state.slots[record.slot].programme
        if programme is None:
            return
        for name in names - {""}:
            view = account_view(programme, name)
            self.accounts.setdefault(name, []).append((book.at, view))
        if kind in (cr.WITHDRAWAL_REQUESTED, cr.WITHDRAWAL_REVIEWED):
            held = programme.withdrawals.get(record.key)
            if held is not None:
                seen = self.withdrawals.setdefault(record.key, [])
                seen.append((book.at, withdrawal_view(record.key, held)))

    def code_of(self, name: str) -> str:
        """Its share code; '' of who is no distributor yet."""
        return next((code for code, of in self.programme.codes.items() if of == name), "")

    # What must follow

    def _nothing_due(self) -> None:
        need(self._due is None, "relay", lambda: f"a fact had no effect: {self._due}")

    def _judge(self, book: Book, kind: int, record: Any) -> None:
        if book.shard >= self.stock_shards:
            self._go_on_to_an_effect(book)
            due = self._due is not None and kind != self._due[0]
            need(
                not due or kind == k.BUYER_FROZEN,
                "relay",
                lambda: f"a record {kind}, and what follows is {self._due}",
            )
        super()._judge(book, kind, record)

    def _go_on_to_an_effect(self, book: Book) -> None:
        """Of the facts that were taken, the next that must do something."""
        while self._due is None and self._passed:
            self._taken_one(book, self._passed.popleft())

    def _follows(self, record: Any, about: str) -> None:
        found = (record[0], about, record.slot)
        need(self._due == found, "relay", lambda: f"{found} follows; it should be {self._due}")
        self._due = None

    def taken(self, book: Book, record: FactTaken) -> None:
        """A mark, and the facts up to it."""
        self._nothing_due()
        end_seq = len(self.books[record.source].entries)
        self._passed.extend(self.facts.take(book.shard, record, end_seq))
        self.sometimes["several facts were taken at once"] += len(self._passed) > 1

    def _taken_one(self, book: Book, told: Told) -> None:
        """What a fact must do."""
        fact, now_ms = told.fact, book.state.now_ms
        self.facts_taken[type(fact).__name__] += 1
        self.sometimes[f"a fact was taken: {type(fact).__name__}"] += 1
        self.sometimes["a fact was taken late"] += now_ms - fact.at_ms > LATE_MS
        signal = SIGNALS.get(fact.kind)
        if signal is not None:
            # A whole score or an empty name leaves nothing to note; here neither comes.
            at_ms = min(fact.at_ms, now_ms)
            self.risk.signal(fact.buyer_id, Signal(signal, at_ms), now_ms)
            self._due = (k.SIGNAL_NOTED, fact.buyer_id, told.slot)
            return
        kind = self.programme.take(fact, now_ms)
        self._due = (kind, fact.reservation_id, told.slot) if kind else None

    # Stock shards

    def seat_settled(self, book: Book, record: t.SeatSettled) -> None:
        """A seat earns from now on."""
        self.told(book, record)
        self.seats_settled.add(public_id(record.slot, record.key))

    # Money

    def _post(self, book: Book, record: Any) -> None:
        """The entries of a record."""
        amount_sum = 0
        for entry in entries_of(record):
            self._count += 1
            need(entry.number == self._count, "I6", lambda e=entry: f"{e} is {self._count}")
            self._touched.add(entry.distributor_id)
            for at, amount in enumerate(entry[cr.AMOUNTS_FROM :]):
                self.sums[at] += amount
                amount_sum += amount
            if entry.level:
                times = getattr(record, "returned_total", 0)
                self._once(book, ("entry", entry.about, entry.level, entry.event, times))
        need(not amount_sum, "I6", lambda: f"{record} comes to {amount_sum}")

    def accrued(self, book: Book, record: cr.OrderAccrued) -> None:
        self._follows(record, record.reservation_id)
        self._post(book, record)
        rules, met = self.programme, self.sometimes
        rules.accrued(record)
        if not record.shares:
            return
        met["an order earned"] += 1
        met["two levels earned"] += len(record.shares) > 1
        met["a seat of a team earned"] += record.reservation_id in self.seats_settled
        met["an order earned at the rates of before"] += record.version < len(rules.versions)
        bond = rules.bound_at(record.buyer_id, book.state.now_ms)
        met["an order paid who was bound before"] += not bond or bond.to != record.referrer_id
        met["a held distributor earned"] += any(rules.is_held(x[1]) for x in record.shares)

    def turned_back(self, book: Book, record: cr.OrderReversed) -> None:
        self._follows(record, record.reservation_id)
        self._post(book, record)
        rules, met, entries = self.programme, self.sometimes, entries_of(record)
        rules.reversed(record)
        order = rules.orders[record.reservation_id]
        met["a commission was reversed"] += bool(entries)
        met["a reversal was at the rates of before"] += order.version < len(rules.versions)
        met["a reversal took what was settled"] += any(x.settled_minor for x in entries)
        owes = any(rules.balance(x.distributor_id, "settled") < 0 for x in entries)
        met["a distributor came to owe"] += owes
        met["a reversal took what a hold kept"] += any(x.state == "waiting" for x in order.shares)

    def matured(self, book: Book, record: cr.OrderMatured) -> None:
        self._post(book, record)
        shares = self.programme.orders[record.reservation_id].shares
        kept = any(share.state == "waiting" for share in shares if share.level in record.available)
        self.sometimes["what a hold kept became available"] += kept
        self.programme.matured(record, book.state.now_ms)
        self.sometimes["a commission became available"] += bool(record.entries)
        self.sometimes["a commission waited for the end of a hold"] += bool(record.waiting)

    def maturity_moved(self, book: Book, record: cr.MaturityMoved) -> None:
        self._follows(record, record.reservation_id)
        self.programme.moved(record)

    def closed_month(self, book: Book, record: cr.StatementMade) -> None:
        self._once(book, ("statement", record.distributor_id, record.month))
        self._post(book, record)
        self.programme.closed(record, book.state.now_ms)
        self.sometimes["a statement was made"] += 1
        self.sometimes["a month was closed by itself"] += not record.caller
        self.sometimes["a statement says that money left"] += record.withdrawn_minor > 0
        self.sometimes["a statement says that money is owed"] += record.closing_minor < 0

    def withdrawn(self, book: Book, record: cr.WithdrawalRequested) -> None:
        mark = ("request", record.slot, record.key)
        self._once(book, mark)
        self._operation(book, mark, record.fingerprint)
        self._post(book, record)
        self.programme.withdrawn(record, book.state.now_ms)
        self.requests[record.key] = record.request_id
        self.sometimes["money was withdrawn"] += 1

    def reviewed(self, book: Book, record: cr.WithdrawalReviewed) -> None:
        self._operation(book, ("review", record.key, record.state))
        self._post(book, record)
        request, act = self.requests[record.key], REVIEWS[record.state]
        self.sometimes[f"a withdrawal was {REVIEWED[act]}"] += 1
        told = self.programme.review(request, act, book.state.now_ms)
        need(told is Outcome.APPLIED, "commission", lambda: f"{act}; by the rules {told}")

    def orders_forgotten(self, book: Book, record: cr.OrdersForgotten) -> None:
        position = self.sink.position(book.shard)[1]
        programme = book.state.programmes[record.slot]
        for key in record.keys:
            name, held = cs.reservation_of(key), programme.orders.get(key)
            need(held is not None, "I4", f"order {name} is forgotten and not in memory")
            need(held and held.seq <= position, "I5", f"{name} is forgotten before SQL has it")
            states = {share.state for share in self.programme.orders[name].shares}
            need(states <= {"available"}, "commission", f"order {name} is forgotten: {states}")
        self.sometimes["an order that earned left memory"] += 1

    def withdrawals_forgotten(self, book: Book, record: cr.WithdrawalsForgotten) -> None:
        position = self.sink.position(book.shard)[1]
        programme = book.state.programmes[record.slot]
        for key in record.keys:
            held, request = programme.withdrawals.get(key), self.requests[key]
            need(held is not None, "I4", f"{request} is forgotten and not in memory")
            need(held and held.seq <= position, "I5", f"{request} is forgotten before SQL has it")
            state = self.programme.withdrawals[request].state
            need(
                state in {"declined", "paid", "failed"},
                "commission",
                f"{request} is forgotten and {state}",
            )
        self.sometimes["a withdrawal left memory"] += 1

    def came_back(self, book: Book, record: cr.OrderRecalled | cr.WithdrawalRecalled) -> None:
        slot = book.state.slot(record.slot)
        need(same_account_row(book.state, slot, record), "I4", f"{record} was not so")
        what = "an order" if record.kind == cr.ORDER_RECALLED else "a withdrawal"
        self.sometimes[f"{what} was recalled"] += 1

    def _model_says(self, command: Any) -> str:
        if command.kind != REQUEST_WITHDRAWAL:
            return super()._model_says(command)
        wanted = command.distributor_id, command.amount_minor
        now_ms = self.naive.now_ms
        return self.programme.withdraw(command.request_id, *wanted, now_ms).name

    # The programme

    def rates(self, book: Book, record: cr.RatesPut) -> None:
        config = programme_config(record.config)
        mark = ("rates", config)
        self.effects.setdefault(mark, book.at)
        self._operation(book, mark)
        self.programme.put_rates(config, book.state.now_ms)
        versions = len(self.programme.versions)
        need(record.version == versions, "commission", f"version {record.version} of {versions}")

    def distributor(self, book: Book, record: cr.DistributorSet) -> None:
        name = record.distributor_id
        if record.applies:
            mark: tuple[Any, ...] = ("distributor", name)
            told = self.programme.apply(name)
            need(told is Outcome.APPLIED, "commission", f"{name} applies twice")
            active = self.programme.states[name] == "active"
            need(active == (record.state == cs.ACTIVE), "commission", f"{name} is {record.state}")
        else:
            act = self.programme.acted(name, record.state)
            mark = ("act", name, ACT_NUMBERS[act])
        self.effects.setdefault(mark, book.at)
        self._operation(book, mark)
        if record.share_code:
            owner = self.programme.codes.setdefault(record.share_code, name)
            need(owner == name, "commission", f"{owner} and {name} have one code")

    def held(self, book: Book, record: cr.DistributorHeld) -> None:
        name, now_ms = record.distributor_id, book.state.now_ms
        if not record.caller:
            self.sometimes["a hold ended by itself"] += 1
            self.programme.hold_over(name, now_ms)
            return
        told_ms = self.freezes.get(name, {}).get(record.as_of_ms, -1)
        # That a freeze is over may be told, too.
        need(record.until_ms in {told_ms, 0}, "risk", f"{name} is held and was never frozen so")
        need(told_ms >= 0, "risk", f"what is told of {name} was never decided")
        later = record.as_of_ms > self.programme.held_as_of.get(name, 0)
        need(later, "risk", f"an older telling changes the hold of {name}")
        self.programme.hold(name, record.until_ms, record.as_of_ms)
        self.sometimes["a distributor was held"] += bool(record.until_ms)

    def bound(self, book: Book, record: cr.BuyerBound) -> None:
        now_ms = book.state.now_ms
        before = self.programme.bonds_of(record.buyer_id)
        self.sometimes["a buyer was bound to another"] += any(
            bond.to != record.distributor_id for bond in before
        )
        self.sometimes["a binding was renewed"] += record.renewed
        if record.reservation_id:
            self._follows(record, record.reservation_id)
            self.sometimes["a reservation bound its buyer"] += 1
        else:
            mark = ("bind", record.buyer_id, record.share_code)
            self._operation(book, mark)
            to = self.programme.codes[record.share_code]
            told = self.programme.bind(record.buyer_id, to, now_ms, now_ms, new=True)
            need(told is Outcome.APPLIED, "commission", lambda: f"bound; by the rules {told}")
        self.effects.setdefault(("bound", record.buyer_id, record.distributor_id), book.at)
        self.programme.bound(record, now_ms)

    # Risk

    def signalled(self, book: Book, record: k.SignalNoted) -> None:
        self._follows(record, record.buyer_id)
        self._behaved.add(record.buyer_id)

    def frozen(self, book: Book, record: k.BuyerFrozen) -> None:
        buyer, now_ms = record.buyer_id, book.state.now_ms
        self._freeze_changed(buyer, record.as_of_ms, record.until_ms)
        if record.cause == k.BY_PAYMENT_FAILURES:
            # The third failure froze by the rules, and stands before this in the entry.
            need(buyer in self._behaved, "risk", f"{buyer} is frozen for nothing")
            self.sometimes["failed payments froze a buyer"] += 1
            return
        self._behaved.add(buyer)
        mark = ("freeze", buyer, record.until_ms - now_ms)
        self.effects.setdefault(mark, book.at)
        self._operation(book, mark)
        self.risk.freeze(buyer, record.until_ms)

    def unfrozen(self, book: Book, record: k.BuyerUnfrozen) -> None:
        buyer = record.buyer_id
        self._behaved.add(buyer)
        self.sometimes["a freeze ended by itself"] += record.by_itself
        if not record.by_itself:
            self._freeze_changed(buyer, record.as_of_ms, 0)
            self._operation(book, ("unfreeze", buyer))
            self.risk.unfreeze(buyer, book.state.now_ms)

    def rested(self, book: Book, record: k.ProfilesRested) -> None:
        self._behaved.update(record.buyer_ids)

    def _freeze_changed(self, buyer: str, as_of_ms: int, until_ms: int) -> None:
        changes = self.freezes.setdefault(buyer, {})
        need(as_of_ms > max(changes, default=0), "risk", f"a later change of {buyer} is not later")
        changes[as_of_ms] = until_ms

    def hold_noted(self, book: Book, record: k.HoldNoted) -> None:
        known = self.freezes.get(record.buyer_id, {})
        need(record.as_of_ms in known, "risk", f"the programme knows more of {record.buyer_id}")


def entries_of(record: Any) -> list[cr.Entry]:
    """Those of the commission's ledger, which a journal has as plain arrays."""
    return [cr.Entry(*fields) for fields in getattr(record, "entries", ())]


ACCOUNT_JUDGES: dict[int, Callable[[Any, Book, Any], None]] = {
    FACT_TAKEN: AccountLedger.taken,
    t.SEAT_SETTLED: AccountLedger.seat_settled,
    cr.RATES_PUT: AccountLedger.rates,
    cr.DISTRIBUTOR_SET: AccountLedger.distributor,
    cr.DISTRIBUTOR_HELD: AccountLedger.held,
    cr.BUYER_BOUND: AccountLedger.bound,
    cr.ORDER_ACCRUED: AccountLedger.accrued,
    cr.ORDER_REVERSED: AccountLedger.turned_back,
    cr.ORDER_MATURED: AccountLedger.matured,
    cr.MATURITY_MOVED: AccountLedger.maturity_moved,
    cr.STATEMENT_MADE: AccountLedger.closed_month,
    cr.WITHDRAWAL_REQUESTED: AccountLedger.withdrawn,
    cr.WITHDRAWAL_REVIEWED: AccountLedger.reviewed,
    cr.ORDERS_FORGOTTEN: AccountLedger.orders_forgotten,
    cr.ORDER_RECALLED: AccountLedger.came_back,
    cr.WITHDRAWALS_FORGOTTEN: AccountLedger.withdrawals_forgotten,
    cr.WITHDRAWAL_RECALLED: AccountLedger.came_back,
    k.SIGNAL_NOTED: AccountLedger.signalled,
    k.BUYER_FROZEN: AccountLedger.frozen,
    k.BUYER_UNFROZEN: AccountLedger.unfrozen,
    k.PROFILES_RESTED: AccountLedger.rested,
    k.HOLD_NOTED: AccountLedger.hold_noted,
}
