"""The rules of the shop, as dumb as they can be written: dicts, sums, no index, no cache.

Written from the semantics and not from the code. `Naive.apply(command)` answers the outcome's name
and what a caller relies on; expiries and revocations are told to it (`expired`, `revoked`) and it
says whether they were allowed. Ids are taken as names only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from actors.core import commands as c
from actors.core.identity import public_id, request_key
from actors.core.refunds import payment_key, return_refund_key
from tests.model.naive_stock import NaiveStock, Row

REMEMBERED_MS = 15_000
LIVE = ("RESERVED", "CONFIRMED")
RESTOCK = {c.RESTOCK_AVAILABLE: "available", c.RESTOCK_SCHEDULED: "scheduled"}


class Naive(NaiveStock):
    """One shop, all slots together."""

    forgotten: Mapping[int, Mapping[bytes, object]] = {}
    """By slot, keys of what left the real shop's memory, and so counts against no limit there."""

    def apply(self, command: Any) -> tuple[Any, ...]:
        """What the answer must say."""
        answer: tuple[Any, ...] = RULES[command.kind](self, command)
        return answer

    def revoked(self, reservation: str) -> None:
        """A shortage took these units. Raises if others came first."""
        row = self.held[reservation]
        pool = self.pools[row["pool"]]
        assert pool["owed"] > 0, "revoked though nothing is owed"
        rivals = [r for r in self.held.values() if r["pool"] == row["pool"] and r["state"] in LIVE]
        held = [r for r in rivals if r["state"] == "RESERVED"]
        assert row["state"] == "RESERVED" or not held, "an order was revoked before a reservation"
        peers = held or rivals
        assert row["at"] == max(r["at"] for r in peers), "an older one was revoked"
        left = row["quantity"] - row["returned"]
        pool["reserved" if row["state"] == "RESERVED" else "sold"] -= left
        if row["payment"]:
            self._refund_of(row, row["payment"], self._kept(row), "SHORTAGE", compensation=True)
        row["state"] = "REVOKED"
        self._free(pool, left)

    # Reservations

    def owns(self, buyer: str, sale: str, sku: str = "") -> int:
        """Units that a limit counts: held or owned, less returned; of a line, or of all."""
        # What left memory counts no more, which may be so only when the campaign is over.
        gone = self.forgotten if self._over(self.sales[sale]) else {}
        return sum(
            row["quantity"] - row["returned"]
            for row in self.held.values()
            if row["buyer"] == buyer
            and row["key"] not in gone.get(row["slot"], {})
            and row["state"] in LIVE
            and row["pool"][0] == sale
            and sku in ("", row["pool"][1])
        )

    def _too_many(self, buyer: str, pool: Row, quantity: int) -> bool:
        if not pool["sale"]:
            return False
        if pool["limit"] and self.owns(buyer, pool["sale"], pool["sku"]) + quantity > pool["limit"]:
            return True
        limit = self.sales[pool["sale"]]["config"].limit_per_buyer
        return bool(limit) and self.owns(buyer, pool["sale"]) + quantity > limit

    def _not_now(self, campaign_id: str, claims: Sequence[str]) -> str:
        if not campaign_id:
            return ""
        sale = self.sales[campaign_id]
        if self._over(sale):
            return "ENDED"
        if sale["state"] != 1:
            return "PAUSED"
        if self.now_ms < sale["config"].starts_ms:
            return "NOT_STARTED"
        missing = [claim for claim in sale["config"].required_claims if claim not in claims]
        return "NOT_ELIGIBLE" if missing else ""

    def _terms(self, pool: Row) -> tuple[str, int]:
        if pool["sale"]:
            config = self.sales[pool["sale"]]["config"]
            return config.currency_code, config.payment_window_ms
        return self.skus[pool["sku"]]["currency"], self.skus[pool["sku"]]["window"]

    def reserve(self, q: c.Reserve) -> tuple[Any, ...]:
        args = (q.campaign_id, q.sku_id, q.quantity, q.buyer_id, q.payable_minor, q.order_id)
        key = request_key(q.caller, q.request_id)
        public = public_id(q.slot, key)
        row = self.held.get(public)
        if row:
            return row["answer"] if row["args"] == args else ("ID_REUSED",)
        before = self._before({}, q, key, args)
        if before:
            return (before,)
        pool = self.pools.get((q.campaign_id, q.sku_id))
        if pool is None:
            return self._remember(q, key, args, "NOT_FOUND")
        broken = self._not_now(q.campaign_id, q.claims)
        broken = broken or self._not_to_be_had(q, pool, pool["price"])
        if broken:
            return self._remember(q, key, args, broken)
        until = self.now_ms + self._terms(pool)[1]
        answer: tuple[Any, ...] = self._take(q, args, pool, pool["price"], until)["answer"]
        return answer

    def _not_to_be_had(self, q: Any, pool: Row, unit: int) -> str:
        if q.payable_minor > unit * q.quantity:
            return "INVALID"
        if self._too_many(q.buyer_id, pool, q.quantity):
            return "LIMIT_EXCEEDED"
        return "SOLD_OUT" if q.quantity > pool["available"] else ""

    def _take(self, q: Any, args: Any, pool: Row, unit: int, until: int) -> Row:
        key = request_key(q.caller, q.request_id)
        public = public_id(q.slot, key)
        payable = unit * q.quantity if q.payable_minor == c.DEFAULT_PAYABLE else q.payable_minor
        row = self.held[public] = {
            "id": public,
            "args": args,
            "answer": ("RESERVED", key, pool["list"], unit, payable, self._terms(pool)[0], until),
            "pool": (pool["sale"], pool["sku"]),
            "slot": q.slot,
            "key": key,
            "buyer": q.buyer_id,
            "quantity": q.quantity,
            "returned": 0,
            "state": "RESERVED",
            "payable": payable,
            "deadline": until,
            "begun": False,
            "stage": 0,
            "payment": "",
            "paid": 0,
            "settled": 0,
            "at": self.now_ms,
        }
        pool["available"] -= q.quantity
        pool["reserved"] += q.quantity
        return row

    def due(self) -> set[str]:
        """Reservations whose deadline has passed (to a tenth of a second, never early)."""
        return {
            row["id"]
            for row in self.held.values()
            if row["state"] == "RESERVED" and -(-row["deadline"] // 100) * 100 <= self.now_ms
        }

    def expired(self, reservation: str) -> None:
        """A decision of the shard. Raises if it was early."""
        row = self.held[reservation]
        assert row["state"] == "RESERVED"
        assert row["deadline"] <= self.now_ms, "expired early"
        self._gone(row, "EXPIRED")

    def _gone(self, row: Row, state: str) -> None:
        row["state"] = state
        pool = self.pools[row["pool"]]
        pool["reserved"] -= row["quantity"]
        self._free(pool, row["quantity"])

    def release(self, q: c.Release) -> tuple[Any, ...]:
        row = self.held.get(q.reservation_id)
        if row is None:
            return ("NOT_FOUND",)
        if row["state"] == "RESERVED":
            self._gone(row, "RELEASED")
        ended = {"CONFIRMED": "ALREADY_CONFIRMED", "RETURNED": "ALREADY_CONFIRMED"}
        return (ended.get(row["state"], row["state"]),)

    def begin(self, q: c.BeginPayment) -> tuple[Any, ...]:
        row = self.held.get(q.reservation_id)
        if row is None:
            return ("NOT_FOUND",)
        if row["state"] != "RESERVED":
            told = {"EXPIRED": "EXPIRED", "REVOKED": "REVOKED", "RELEASED": "ALREADY_RELEASED"}
            return (told.get(row["state"], "ALREADY_CONFIRMED"),)
        if not row["begun"]:
            if (q.slot, q.payment_id) in self.payments:
                return ("PAYMENT_ID_REUSED",)
            row["begun"] = True
            window = self._terms(self.pools[row["pool"]])[1]
            row["deadline"] = self._at_most(row, max(row["deadline"], self.now_ms + window))
        return ("PAYMENT_BEGUN", row["deadline"])

    def _at_most(self, row: Row, deadline_ms: int) -> int:
        """The latest deadline that a reservation may have."""
        return deadline_ms

    def failed(self, q: c.ReportFailedPayment) -> tuple[Any, ...]:
        if q.reservation_id not in self.held:
            return ("NOT_FOUND",)
        if (q.slot, q.payment_id) in self.payments:
            return ("PAYMENT_ID_REUSED",)
        self.failures.add((q.reservation_id, q.payment_id))
        return ("NOTED",)

    def fulfil(self, q: c.ReportFulfilment) -> tuple[Any, ...]:
        row = self.held.get(q.reservation_id)
        if row is None:
            return ("NOT_FOUND",)
        if row["state"] not in ("CONFIRMED", "RETURNED"):
            return ("NOT_CONFIRMED",)
        row["stage"] = max(row["stage"], q.stage)
        return ("NOTED", row["stage"])

    # Money

    def _why_back(self, row: Row | None, paid: int) -> str:
        if row is None or row["state"] in ("RELEASED", "RETURNED", "REVOKED"):
            return "NOT_HELD"
        if row["state"] == "CONFIRMED":
            return "SECOND_PAYMENT"
        if paid != row["payable"]:
            return "WRONG_AMOUNT"
        pool = self.pools[row["pool"]]
        if row["state"] == "EXPIRED" and (
            pool["available"] < row["quantity"]
            or self._too_many(row["buyer"], pool, row["quantity"])
        ):
            return "LATE_PAYMENT"
        return ""

    def confirm(self, q: c.Confirm) -> tuple[Any, ...]:
        seen = self.payments.get((q.slot, q.payment_id))
        if seen:
            same = seen[:2] == (q.reservation_id, q.paid_minor)
            return (seen[2] if same else "PAYMENT_ID_REUSED",)
        row = self.held.get(q.reservation_id)
        reason = self._why_back(row, q.paid_minor)
        effect = "REFUND_DUE" if reason else "CONFIRMED"
        self.payments[q.slot, q.payment_id] = (q.reservation_id, q.paid_minor, effect)
        if reason or row is None:
            late = reason == "LATE_PAYMENT"
            name = public_id(q.slot, payment_key(q.payment_id))
            self._refund(name, q.slot, q.payment_id, q.paid_minor, reason, compensation=late)
            return (effect,)
        pool = self.pools[row["pool"]]
        pool["reserved" if row["state"] == "RESERVED" else "available"] -= row["quantity"]
        pool["sold"] += row["quantity"]
        row["state"], row["payment"], row["paid"] = "CONFIRMED", q.payment_id, q.paid_minor
        return (effect,)

    def _refund(
        self, name: str, slot: int, payment: str, amount: int, reason: str, *, compensation: bool
    ) -> None:
        assert name not in self.refunds, "a refund id was given twice"
        self.refunds[name] = {
            "slot": slot,
            "payment": payment,
            "amount": amount,
            "reason": reason,
            "compensation": compensation,
            "closed": False,
            "attempts": 0,
            "last": None,
        }

    def _refund_of(
        self, row: Row, payment: str, amount: int, reason: str, *, compensation: bool
    ) -> None:
        if amount:
            name = public_id(row["slot"], payment_key(payment))
            self._refund(name, row["slot"], payment, amount, reason, compensation=compensation)

    def _kept(self, row: Row) -> int:
        """What is kept of an order: all of it, less what was or will be paid back."""
        back = [
            refund["amount"]
            for refund in self.refunds.values()
            if (refund["slot"], refund["payment"]) == (row["slot"], row["payment"])
        ]
        return int(row["paid"] - sum(back))

    def bring_back(self, q: c.ReturnUnits) -> tuple[Any, ...]:
        key, args, answer = self._document(q, "return", q.reservation_id, q.quantity, q.restock)
        if answer:
            return ("RETURNED",) if answer == ("APPLIED",) else answer
        row = self.held.get(q.reservation_id)
        if row is None:
            return self._remember(q, key, args, "NOT_FOUND")
        if row["state"] not in ("CONFIRMED", "RETURNED"):
            broken = "REVOKED" if row["state"] == "REVOKED" else "NOT_CONFIRMED"
            return self._remember(q, key, args, broken)
        if q.quantity > row["quantity"] - row["returned"]:
            return self._remember(q, key, args, "EXCEEDS_QUANTITY")
        if self._is_of_a_forming_team(row):
            return self._remember(q, key, args, "TEAM_FORMING")
        self.documents[q.slot, key] = args
        row["returned"] += q.quantity
        # Of what is kept when all is settled.
        kept = row["paid"] - row["settled"]
        back = row["settled"] + kept * row["returned"] // row["quantity"]
        amount = back - (row["paid"] - self._kept(row))
        if amount:
            name = public_id(q.slot, return_refund_key(key))
            self._refund(name, q.slot, row["payment"], amount, "RETURN", compensation=False)
        pool = self.pools[row["pool"]]
        pool["sold"] -= q.quantity
        if q.restock in RESTOCK:
            self._free(pool, q.quantity, RESTOCK[q.restock])
        else:
            self.units[pool["sku"]] -= q.quantity
            pool["owed"] = min(pool["owed"], pool["reserved"] + pool["sold"])
        if row["returned"] == row["quantity"]:
            row["state"] = "RETURNED"
        return ("RETURNED",)

    def _is_of_a_forming_team(self, row: Row) -> bool:
        return False

    def refunded(self, q: c.ReportRefund) -> tuple[Any, ...]:
        refund = self.refunds.get(q.refund_id)
        if refund is None:
            return ("NOT_FOUND",)
        report = (q.caller, q.request_id)
        if refund["last"] and refund["last"][0] == report:
            return ("APPLIED" if refund["last"][1] == q.succeeded else "ID_REUSED",)
        if refund["closed"]:
            return ("REFUND_CLOSED",)
        refund["attempts"] += 1
        refund["closed"] = q.succeeded
        refund["last"] = (report, q.succeeded)
        return ("APPLIED",)


RULES: dict[int, Any] = {
    c.PUT_SKU: Naive.put_sku,
    c.RECEIVE_STOCK: Naive.receive,
    c.ADJUST_STOCK: Naive.adjust,
    c.SET_BUFFER: Naive.set_buffer,
    c.DECLARE_SHORTAGE: Naive.short,
    c.TRANSFER_OUT: Naive.leave,
    c.TRANSFER_IN: Naive.arrive,
    c.TRANSFER_DONE: Naive.settle,
    c.PUT_CAMPAIGN: Naive.put_campaign,
    c.SET_CAMPAIGN_STATE: Naive.turn,
    c.RESERVE: Naive.reserve,
    c.CONFIRM: Naive.confirm,
    c.RELEASE: Naive.release,
    c.BEGIN_PAYMENT: Naive.begin,
    c.REPORT_FAILED_PAYMENT: Naive.failed,
    c.REPORT_FULFILMENT: Naive.fulfil,
    c.RETURN_UNITS: Naive.bring_back,
    c.REPORT_REFUND: Naive.refunded,
}
