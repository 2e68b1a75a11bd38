"""The naive rules of commission, led by records: what a shard decides by itself as time passes is
told, and judged, when it is journalled, since nobody knows before when it finds the time.

What a fact or a command leads to is decided here first (`take`), and the record is held against it.
"""

from collections import Counter
from typing import Any

from actors.core import commission_records as cr
from actors.core import commission_state as cs
from actors.core import facts as f
from actors.core.outcomes import Outcome
from tests.model.naive_commission import Naive, Order
from tests.sim.books import need

ACTS = {
    (cs.ACTIVE, "applied"): "approve",
    (cs.ACTIVE, "rejected"): "approve",
    (cs.ACTIVE, "suspended"): "resume",
    (cs.REJECTED, "applied"): "reject",
    (cs.SUSPENDED, "active"): "suspend",
}
"""(State that a distributor comes to, state before) -> what an operator did."""
REVIEWS = {cs.APPROVED: "approve", cs.DECLINED: "reject", cs.PAID: "paid", cs.FAILED: "failed"}


class ProgrammeRules(Naive):
    """One programme."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: dict[str, str] = {}
        """Share code -> distributor."""
        self._sums: Counter[tuple[str, str]] = Counter()

    def _move(self, name: str, account: str, amount: int, now_ms: int, kind: str) -> None:
        super()._move(name, account, amount, now_ms, kind)
        self._sums[name, account] += amount

    def balance(self, name: str, account: str) -> int:
        """The sum of all moves, counted as they come: it is asked for at every entry."""
        return self._sums[name, account]

    # Facts

    def take(self, fact: Any, now_ms: int) -> int:
        """The kind of the one record that this fact must lead to; 0 if to none."""
        if not self.versions:
            return 0
        return TAKE[fact.kind](self, fact, now_ms)

    def _take_bound(self, fact: f.OrderBound, now_ms: int) -> int:
        to = self.codes.get(fact.share_code, "")
        if not to:
            return 0
        told = self.bind(fact.buyer_id, to, fact.reserved_ms, now_ms, fact.new_buyer)
        return cr.BUYER_BOUND if told is Outcome.APPLIED else 0

    def _take_earned(self, fact: f.OrderEarned, now_ms: int) -> int:
        before = len(self.orders)
        self.earned(fact, now_ms)
        return cr.ORDER_ACCRUED if len(self.orders) > before else 0

    def _take_reduced(self, fact: f.OrderReduced, now_ms: int) -> int:
        order = self.orders.get(fact.reservation_id)
        before = 0 if order is None else order.returned
        self.reduced(fact.reservation_id, fact.returned_total, now_ms)
        return cr.ORDER_REVERSED if order is not None and order.returned > before else 0

    def _take_delivered(self, fact: f.OrderDelivered, now_ms: int) -> int:
        order = self.orders.get(fact.reservation_id)
        before = order is None or order.delivered
        self.delivered(fact.reservation_id, fact.at_ms)
        return cr.MATURITY_MOVED if order is not None and order.delivered > before else 0

    # Records

    def bound(self, record: cr.BuyerBound, now_ms: int) -> None:
        """The binding stands, as it was decided here."""
        bond = self.bound_at(record.buyer_id, record.from_ms)
        told = (record.distributor_id, record.from_ms, record.until_ms)
        need(
            bond is not None and (bond.to, bond.from_ms, bond.until_ms) == told,
            "commission",
            lambda: f"{record.buyer_id} is bound as {told}, by the rules {bond}",
        )
        need(self.no_cycle_at(now_ms), "commission", "bindings go in a circle")

    def accrued(self, record: cr.OrderAccrued) -> None:
        """Who gets what of an order."""
        order = self.orders[record.reservation_id]
        got = (
            record.base_minor,
            record.quantity,
            record.referrer_id,
            record.version,
            record.earned_ms,
            record.matures_ms,
            record.month,
            [(level, name, amount) for level, name, _, amount in record.shares],
        )
        wanted = (
            order.base,
            order.quantity,
            order.referrer,
            order.version,
            order.earned_ms,
            order.matures_ms,
            order.month,
            [(share.level, share.name, share.full) for share in order.shares],
        )
        need(got == wanted, "commission", lambda: f"an order earned {got}, by the rules {wanted}")

    def reversed(self, record: cr.OrderReversed) -> None:
        """What is left of the shares after a return."""
        order = self.orders[record.reservation_id]
        got = (record.returned_total, *record.left_minor)
        wanted = (order.returned, *(share.now for share in order.shares))
        need(
            got == wanted,
            "commission",
            lambda: f"{record.reservation_id} is reduced to {got}, by the rules {wanted}",
        )

    def moved(self, record: cr.MaturityMoved) -> None:
        """From when on an order's freeze is over."""
        order = self.orders[record.reservation_id]
        need(
            record.matures_ms == order.matures_ms,
            "commission",
            lambda: f"the freeze ends at {record.matures_ms}, by the rules {order.matures_ms}",
        )

    def matured(self, record: cr.OrderMatured, now_ms: int) -> None:
        """A freeze is over: not early, not twice, and not for who is held."""
        order: Order = self.orders[record.reservation_id]
        name = record.reservation_id
        need(order.matures_ms <= now_ms, "commission", lambda: f"{name} matures early")
        told = (*record.available, *record.waiting)
        need(len(told) == len(set(told)), "commission", lambda: f"{name}: one level twice")
        for level in told:
            share = next(share for share in order.shares if share.level == level)
            waits = level in record.waiting
            need(
                share.state == "frozen" or (share.state == "waiting" and not waits),
                "commission",
                lambda share=share: f"{name} matures, and was {share.state}",
            )
            need(
                self.is_held(share.name) == waits,
                "commission",
                lambda share=share: f"{name}: {share.name} is held, or is not",
            )
            share.state = "waiting" if waits else "available"
            if not waits:
                self._move(share.name, "frozen", -share.now, now_ms, "matured")
                self._move(share.name, "available", share.now, now_ms, "matured")

    def hold_over(self, name: str, now_ms: int) -> None:
        """A hold ended by itself."""
        need(0 < self.held.get(name, 0) <= now_ms, "commission", f"a hold of {name} ends early")
        self.held[name] = 0

    def closed(self, record: cr.StatementMade, now_ms: int) -> None:
        """A month of a distributor."""
        name, month = record.distributor_id, record.month
        need(month < self.month(now_ms), "commission", f"{month} is closed before it is over")
        need(self._close(name, month, now_ms), "commission", f"{month} of {name} has no statement")
        wanted, got = self.statements[name, month], tuple(record[6:13])
        need(
            got == wanted,
            "commission",
            lambda: f"the statement {month} of {name} is {got}, by the rules {wanted}",
        )

    def withdrawn(self, record: cr.WithdrawalRequested, now_ms: int) -> None:
        """Money is asked for."""
        name, amount = record.distributor_id, record.amount_minor
        told = self.withdraw(record.request_id, name, amount, now_ms)
        need(told is Outcome.APPLIED, "commission", lambda: f"withdrawn; by the rules {told}")
        held = self.withdrawals[record.request_id]
        need(
            held.settled == record.from_settled_minor,
            "commission",
            lambda: f"{record.from_settled_minor} from settled, by the rules {held.settled}",
        )

    def acted(self, name: str, state: int) -> str:
        """An operator changed a distributor's state; answers how."""
        before = self.states.get(name, "")
        act = ACTS.get((state, before), "")
        need(act, "commission", f"{name} was {before!r}, and is {state} now")
        told = self.act(name, act)
        need(told is Outcome.APPLIED, "commission", lambda: f"{act}; by the rules {told}")
        return act


TAKE = {
    f.ORDER_BOUND: ProgrammeRules._take_bound,
    f.ORDER_EARNED: ProgrammeRules._take_earned,
    f.ORDER_REDUCED: ProgrammeRules._take_reduced,
    f.ORDER_DELIVERED: ProgrammeRules._take_delivered,
}
