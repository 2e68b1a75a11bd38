"""Random histories of a programme beside the naive rules, in virtual time.

Each step is one command, fact or span of time; what it answers and where all money is must agree
after each. Facts are delivered again, late and in any order across orders, as a relay may. Instants
are whole seconds, so that what is due in the same second is due at once on both sides.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from actors.core import commission_commands as d
from actors.core import commission_records as cr
from actors.core import facts as f
from actors.core import state as s
from actors.core.commission_state import order_key, reservation_of
from actors.core.months import month_before
from actors.core.outcomes import Outcome
from actors.core.programme_config import CampaignRate, SkuRate
from actors.core.snapshot import digest
from server.verify_account_rows import known_order
from tests.model.bureau import DAY_MS, HOUR_MS, Bureau, config, order_id
from tests.model.naive_commission import Naive

DISTRIBUTORS = tuple(f"d{number}" for number in range(5))
BUYERS = (*DISTRIBUTORS, "ann", "eve", "fay", "gus")
ACTS = {"approve": d.APPROVE, "reject": d.REJECT, "suspend": d.SUSPEND, "resume": d.RESUME}
REVIEWS = {
    "approve": d.WITHDRAWAL_APPROVE,
    "reject": d.WITHDRAWAL_REJECT,
    "paid": d.WITHDRAWAL_PAID,
    "failed": d.WITHDRAWAL_FAILED,
}


class Walk:
    """One history."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.bureau = Bureau()
        self.naive = Naive()
        self.facts: list[Any] = []
        """Facts of orders that had an effect."""
        self.orders: dict[str, tuple[int, int]] = {}
        """Reservation id -> (units, how many came back)."""
        self.withdrawals: dict[str, bytes] = {}
        self.holds: list[tuple[str, int, int]] = []
        """Who was held until when, as of when: all that was ever told."""
        self.count = 0
        self.checked = 0
        self._rates()
        for name in DISTRIBUTORS[:3]:
            self._apply(name)

    def run(self, steps: int) -> "Walk":
        """So many more steps."""
        acts = (
            (self._earned, 24),
            (self._returned, 10),
            (self._bind, 10),
            (self._touch, 6),
            (self._wait, 9),
            (self._delivered, 8),
            (self._again, 6),
            (self._withdraw, 6),
            (self._review, 8),
            (self._hold, 2),
            (self._act, 3),
            (self._settle, 2),
            (self._rates, 1),
            (self._late, 2),
            (self._forget, 8),
            (lambda: self._apply(self.random.choice(DISTRIBUTORS)), 2),
        )
        calls = [act for act, _ in acts]
        weights = [weight for _, weight in acts]
        for _ in range(steps):
            self.random.choices(calls, weights)[0]()
            self.check()
        return self

    # Steps

    def _rates(self) -> None:
        pick = self.random.choice
        rates = config(
            level1_bps=pick([0, 333, 1_000]),
            level2_bps=pick([0, 77, 500]),
            campaigns=(CampaignRate("sale", pick([100, 777]), 50),),
            skus=(SkuRate("cup", 2_000, 1_500, pick([-1, 0, 17, 900])),),
            freeze_ms=pick([0, DAY_MS, 7 * DAY_MS]),
            freeze_max_ms=pick([8 * DAY_MS, 30 * DAY_MS]),
            policy=pick([1, 2, 2]),
            validity_ms=pick([0, 5 * DAY_MS, 40 * DAY_MS]),
            protection_ms=pick([0, DAY_MS]),
            new_buyers_only=pick([False, False, False, True]),
            approve_at_once=pick([True, True, False]),
        )
        assert self.bureau.do(d.PUT_RATES, rates)[0] == Outcome.APPLIED
        self.naive.put_rates(rates, self.bureau.now_ms)

    def _apply(self, name: str) -> None:
        assert self.bureau.apply(name)[0] == self.naive.apply(name)

    def _act(self) -> None:
        name, act = self.random.choice(DISTRIBUTORS), self.random.choice(list(ACTS))
        assert self.bureau.act(name, ACTS[act])[0] == self.naive.act(name, act)

    def _known(self) -> str:
        coded = [
            name for name, held in self.bureau.programme.distributors.items() if held.share_code
        ]
        return self.random.choice(sorted(coded)) if coded else ""

    def _bind(self) -> None:
        to, buyer, new = self._known(), self.random.choice(BUYERS), self.random.random() < 0.5
        if not to:
            return
        self._second()
        now_ms = self.bureau.now_ms
        told = self.bureau.bind(buyer, to, new=new)[0]
        assert told == self.naive.bind(buyer, to, now_ms, now_ms, new)

    def _touch(self) -> None:
        to, buyer = self._known(), self.random.choice(BUYERS)
        if not to:
            return
        self._second()
        at_ms = self.bureau.now_ms - self.random.choice([0, 500, HOUR_MS, DAY_MS])
        new = self.random.random() < 0.5
        code = self.bureau.code(to)
        fact = f.OrderBound(f.ORDER_BOUND, at_ms, order_id("x"), buyer, code, at_ms, "", new)
        self._tell(fact)

    def _earned(self) -> None:
        self.count += 1
        pick = self.random.choice
        now_ms, quantity = self.bureau.now_ms, pick([1, 2, 3, 7])
        name = order_id(f"r{self.count}")
        self.orders[name] = (quantity, 0)
        self._tell(
            f.OrderEarned(
                f.ORDER_EARNED,
                now_ms,
                name,
                pick(BUYERS),
                pick(["", "sale"]),
                pick(["tea", "cup"]),
                quantity,
                self.random.randrange(1, 20_000),
                "EUR" if self.random.random() < 0.05 else "CNY",
                now_ms - pick([0, 500, HOUR_MS, 3 * DAY_MS]),
                100,
            )
        )

    def _returned(self) -> None:
        if not self.orders:
            return
        name = self.random.choice(list(self.orders))
        quantity, back = self.orders[name]
        if back == quantity:
            return
        total = self.random.randint(back + 1, quantity)
        self.orders[name] = (quantity, total)
        self._tell(f.OrderReduced(f.ORDER_REDUCED, self.bureau.now_ms, name, total, quantity))

    def _delivered(self) -> None:
        if self.orders:
            name = self.random.choice(list(self.orders)[-3:])
            self._tell(f.OrderDelivered(f.ORDER_DELIVERED, self.bureau.now_ms, name))

    def _again(self) -> None:
        """A fact that had its effect is delivered once more."""
        if self.facts:
            assert self.bureau.tell(self.random.choice(self.facts)) == ()

    def _tell(self, fact: Any) -> None:
        naive, now_ms = self.naive, self.bureau.now_ms
        if self.bureau.tell(fact) and fact.kind != f.ORDER_BOUND:
            self.facts.append(fact)
        if fact.kind == f.ORDER_EARNED:
            naive.earned(fact, now_ms)
        elif fact.kind == f.ORDER_REDUCED:
            naive.reduced(fact.reservation_id, fact.returned_total, now_ms)
        elif fact.kind == f.ORDER_DELIVERED:
            naive.delivered(fact.reservation_id, fact.at_ms)
        else:
            to = self.bureau.programme.codes[fact.share_code]
            naive.bind(fact.buyer_id, to, fact.reserved_ms, now_ms, fact.new_buyer)

    def _hold(self) -> None:
        """Risk decides, and tells; or what was told before comes once more."""
        if self.holds and self.random.random() < 0.5:
            hold = self.random.choice(self.holds[-3:])
        else:
            now_ms = self.bureau.now_ms
            for_ms = self.random.choice([0, DAY_MS, 9 * DAY_MS])
            hold = (self.random.choice(DISTRIBUTORS), now_ms + for_ms if for_ms else 0, now_ms)
            self.holds.append(hold)
        self.bureau.tell_hold(*hold)
        name, until_ms, as_of_ms = hold
        self.naive.hold(name, until_ms if until_ms > self.bureau.now_ms else 0, as_of_ms)

    def _second(self) -> None:
        self.bureau.now_ms += 1_000

    def _late(self) -> None:
        """Time passes, and the shard finds no time to look what is due."""
        self.bureau.now_ms += self.random.choice([HOUR_MS, 8 * DAY_MS, 30 * DAY_MS])
        if self.random.random() < 0.5:
            self._settle()

    def _wait(self) -> None:
        self.bureau.now_ms += self.random.choice([1_000, HOUR_MS, DAY_MS, 4 * DAY_MS, 20 * DAY_MS])
        limit = self.random.choice([1, 3, 100])
        while self.bureau.beat(limit):
            pass
        self.naive.beat(self.bureau.now_ms)

    def _withdraw(self) -> None:
        rich = [
            name
            for name in DISTRIBUTORS
            if name in self.naive.states and self.naive.balance(name, "available") > 0
        ]
        anybody = not rich or self.random.random() < 0.3
        name = self.random.choice((*DISTRIBUTORS, "ann") if anybody else rich)
        held = self.bureau.programme.distributors.get(name)
        most = 0 if held is None else held.withdrawable_minor()
        amount = max(1, self.random.choice([most, most // 2, most + 1]))
        self.count += 1
        request = f"w{self.count}"
        if self.withdrawals and self.random.random() < 0.2:
            request = self.random.choice(list(self.withdrawals))
        outcome, key, *_ = self.bureau.withdraw(name, amount, request)
        assert outcome == self.naive.withdraw(request, name, amount, self.bureau.now_ms)
        if outcome == Outcome.APPLIED:
            self.withdrawals[request] = key

    def _review(self) -> None:
        if self.withdrawals:
            request = self.random.choice(list(self.withdrawals))
            act = self.random.choice(["approve", "approve", "reject", "paid", "failed"])
            reference = self.random.choice(["", "bank-1", "bank-2"])
            told = self.bureau.review(self.withdrawals[request], REVIEWS[act], reference)
            assert told[0] == self.naive.review(request, act, self.bureau.now_ms, reference)
            assert told[1][6] == self.naive.withdrawals[request].reference

    def _settle(self) -> None:
        name = self.random.choice(DISTRIBUTORS)
        month = self.naive.month(self.bureau.now_ms)
        month = self.random.choice([month, month_before(month)])
        told = self.bureau.do(d.SETTLE, month, name)[0]
        if name not in self.naive.states:
            assert told in {Outcome.NOT_DISTRIBUTOR, Outcome.MONTH_NOT_OVER}
            return
        assert told == self.naive.settle(name, month, self.bureau.now_ms)

    def _forget(self) -> None:
        """What is old enough, and as SQL has it, leaves memory."""
        programme = self.bureau.programme
        last_seq = len(self.bureau.journal)
        sink_seq = self.random.choice([last_seq, last_seq, max(0, last_seq - 5)])
        in_sql = {
            key
            for table in (programme.orders, programme.withdrawals)
            for key, row in table.items()
            if row.seq <= sink_seq
        }
        after_ms = self.random.choice([0, DAY_MS])
        before = len(self.bureau.records)
        self.bureau.forget(after_ms, self.random.choice([1, 5, 100]), sink_seq)
        for record in self.bureau.records[before:]:
            assert in_sql.issuperset(record.keys), "SQL has not all of what left memory"
            of_orders = record.kind == cr.ORDERS_FORGOTTEN
            for key in record.keys if of_orders else ():
                order = self.naive.orders[reservation_of(key)]
                assert order.matures_ms + after_ms <= self.bureau.now_ms
                assert all(share.state == "available" for share in order.shares)
            names = [] if of_orders else record.keys
            self._check_finished(names, after_ms)

    def _check_finished(self, keys: Sequence[bytes], after_ms: int) -> None:
        held = self.bureau.programme.archived_withdrawals
        requests = {key: request for request, key in self.withdrawals.items()}
        for key in keys:
            assert self.naive.withdrawals[requests[key]].state in {"declined", "paid", "failed"}
            assert held[key].changed_ms + after_ms <= self.bureau.now_ms

    # What must agree

    def check(self) -> None:
        """Money, statements and boards are what the naive rules say."""
        bureau, naive = self.bureau, self.naive
        for record in bureau.records[self.checked :]:
            self._check_record(record)
        self.checked = len(bureau.records)
        sums = [0] * 6
        for name, held in bureau.programme.distributors.items():
            assert bureau.money(name) == naive.money(name), name
            assert sum(held.balances) == 0, name
            assert held.held_until_ms == self.naive.held.get(name, 0), f"the hold of {name}"
            sums = [a + b for a, b in zip(sums, held.balances, strict=True)]
        assert sums == bureau.programme.sums
        now_ms = bureau.now_ms
        for buyer in BUYERS:
            ours, bonds = naive.bound_at(buyer, now_ms), bureau.programme.bonds.get(buyer)
            theirs = None if bonds is None else bonds.at(now_ms)
            assert (theirs and theirs.distributor_id) == (ours and ours.to), buyer
        assert naive.no_cycle_at(now_ms)
        self._check_orders()
        self._check_boards()

    def _check_orders(self) -> None:
        programme = self.bureau.programme
        known = len(programme.orders) + len(programme.archived_orders)
        assert known == len(self.naive.orders)
        for name, naive in self.naive.orders.items():
            order = known_order(programme, order_key(name) or b"")
            assert order is not None
            assert (order.matures_ms, order.returned) == (naive.matures_ms, naive.returned)
            ours = [(share.level, share.name, share.now) for share in naive.shares]
            assert [(e.level, e.distributor_id, e.amount_minor) for e in order.earnings] == ours

    def _check_record(self, record: Any) -> None:
        for entry in getattr(record, "entries", ()):
            assert sum(entry[cr.AMOUNTS_FROM :]) == 0
        if type(record) is not cr.StatementMade:
            return
        made = tuple(record[6:13])
        assert made == self.naive.statements[record.distributor_id, record.month]
        listed = [
            entry
            for entry in self.bureau.entries(record.distributor_id)
            if entry.month == record.month and entry.available_minor + entry.settled_minor
        ]
        changed = sum(entry.available_minor + entry.settled_minor for entry in listed)
        assert record.closing_minor - record.opening_minor == changed
        assert record.entry_count == len(listed)

    def _check_boards(self) -> None:
        month = self.naive.month(self.bureau.now_ms)
        for board, scores in (
            (d.BOARD_INVITES, self.naive.invites(month)),
            (d.BOARD_SALES, self.naive.sales(month)),
        ):
            told = self.bureau.do(d.GET_LEADERBOARD, board)[2]
            assert dict(told) == scores
            assert list(told) == sorted(told, key=lambda row: (-row[1], row[0]))


def walk(seed: int) -> None:
    """A history with, at the end, replicas that are the primary."""
    bureau = Walk(seed).run(200).bureau
    truth = digest(bureau.state)
    assert digest(bureau.replica()) == truth, "the fold of the journal is another state"
    loaded = bureau.from_snapshot()
    assert digest(loaded) == truth, "the snapshot is another state"
    assert indexes(loaded) == indexes(bureau.state), "the snapshot is counted otherwise"


def indexes(state: s.ShardState) -> dict[str, Any]:
    """What is counted over a programme's rows."""
    ((_, programme),) = state.programmes.items()
    return {
        "codes": programme.codes,
        "recent": list(programme.recent),
        "starts": programme.starts,
        "rate lines": programme.rate_lines,
        "maturing": _keys(programme.maturing),
        "holds": _keys(programme.hold_ends),
        "released": set(programme.released),
        "months": {month: set(names) for month, names in programme.months.items()},
        "boards": [
            (month, board, top.best(10))
            for month, tops in sorted(programme.boards.months.items())
            for board, top in sorted(tops.items())
            if top.members
        ],
        "waiting": {name: set(held.waiting) for name, held in programme.distributors.items()},
    }


def _keys(deadlines: Any) -> set[bytes]:
    return {
        key
        for keys in deadlines.buckets.values()
        for key in ({keys} if isinstance(keys, bytes) else keys)
    }
