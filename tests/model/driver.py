"""Drives a shop and the naive model side by side, and compares all there is after every step.

`OPS` names every operation with the bound of each of its (small, whole) arguments: Hypothesis draws
them in `test_shop.py`, a seeded walk draws them in `test_mutations.py`. A reference to something
that exists is a number modulo how many there are.
"""

import random
from typing import Any

from actors.core import bloom, snapshot, tables
from actors.core import commands as c
from actors.core import state as s
from actors.core.identity import public_id, request_key, slot_of
from actors.core.outcomes import Outcome
from actors.core.snapshot import chunks
from actors.core.stock import transfer_key
from tests.model.checks import BUYERS, Checks
from tests.model.naive import REMEMBERED_MS
from tests.model.shop import T0, campaign, line

POOLS = (("sale", "tea"), ("", "tea"), ("sale", "cup"), ("gala", "tea"), ("", "cup"), ("", "pot"))
CALLERS = ("web", "app")
WAITS_MS = (50, 100, 999, 7_500, 16_000, 450_000, 900_000)
MANY = 1_000
OPS: dict[str, dict[str, int]] = {
    "reserve": {"pool": 6, "buyer": 3, "quantity": 4, "payable": 4, "caller": 2, "member": 12},
    "reserve_more": {"pool": 2, "buyer": 3, "quantity": 3, "payable": 1, "caller": 1, "member": 1},
    "again": {"which": MANY},
    "twist": {"which": MANY},
    "pay": {"which": MANY, "payment": 8, "offset": 8},
    "pay_old": {"which": MANY, "payment": 2, "offset": 1},
    "begin": {"which": MANY},
    "fail": {"which": MANY, "payment": 3},
    "release": {"which": MANY},
    "bring_back": {"which": MANY, "quantity": 2, "restock": 3},
    "ship": {"which": MANY, "stage": 3},
    "refunded": {"which": MANY, "report": 3, "succeeded": 2},
    "receive": {"sku": 2, "quantity": 6},
    "adjust": {"pool": 6, "delta": 7},
    "set_buffer": {"sku": 2, "buffer": 6},
    "short": {"pool": 5, "quantity": 12, "dry_run": 4},
    "put_sku": {"sku": 2, "buffer": 3, "price": 3, "currency": 8},
    "put_sale": {"sale": 2, "line_limit": 4, "limit": 4, "price": 3, "lines": 2},
    "turn": {"sale": 2, "state": 16},
    "leave": {"source": 4, "goal": 4, "quantity": 5},
    "arrive": {"which": MANY},
    "settle": {"which": MANY},
    "wait": {"ms": 7},
    "expire": {"limit": 3},
    "revoke": {"limit": 3},
    "hold": {"commands": 4},
    "forget": {"age": 4, "limit": 4, "lag": 4},
    "copy": {},
}
"""Operation -> argument -> how many values it has."""

OFTEN = {
    "reserve": 3,
    "reserve_more": 4,
    "pay": 2,
    "bring_back": 2,
    "expire": 2,
    "revoke": 4,
    "receive": 2,
}
"""A walk takes these so many times as often."""


class Driver(Checks):
    """The shop, the model, a replica that follows, and now and then a snapshot under way."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[Any] = []
        self.transfers: list[tuple[bytes, Any]] = []
        self.numbers = 0
        self.holding = 0
        self._open_shop()

    def _open_shop(self) -> None:
        for sku in range(2):
            self.put_sku(sku=sku, buffer=0, price=0, currency=0)
            self.receive(sku=sku, quantity=5)
            self.receive(sku=sku, quantity=5)
        for sale in range(2):
            self.put_sale(sale=sale, line_limit=3, limit=3, price=0, lines=0)
        for target in (1, 2, 3):
            self.leave(source=0, goal=target, quantity=4)
            self.arrive(which=target - 1)

    def step(self, name: str, arguments: dict[str, int]) -> None:
        """One operation, then every check."""
        getattr(self, name)(**arguments)
        if self.shop.is_open and name != "hold":
            self.holding -= 1
            if self.holding <= 0:
                self._close()
        if not self.shop.is_open:
            self.check()

    # Asking both

    def _id(self, kind: str) -> str:
        self.numbers += 1
        return f"{kind}{self.numbers}"

    def _ask(self, command: Any) -> tuple[Any, ...]:
        self.naive.now_ms = self.shop.now_ms
        expected = self.naive.apply(command)
        answer = self.shop.do(command)
        told = (Outcome(answer[0]).name, *_essence(command, answer))
        assert told[: len(expected)] == expected, f"{command}: {told} is not {expected}"
        self.history.append(command)
        return answer

    def _close(self) -> None:
        self.holding = 0
        if self.shop.is_open:
            self.shop.close()

    def _reservation(self, which: int) -> Any:
        rows = list(self.naive.held.values())
        return rows[which % len(rows)] if rows else None

    def _unknown(self) -> Any:
        slot = slot_of("tea")
        return {"id": public_id(slot, bytes(16)), "slot": slot, "payable": 100}

    def _row(self, which: int) -> Any:
        """Mostly a reservation that exists."""
        return (self._unknown() if which % 37 == 0 else None) or (
            self._reservation(which) or self._unknown()
        )

    # Operations

    def reserve(
        self, *, pool: int, buyer: int, quantity: int, payable: int, caller: int, member: int
    ) -> None:
        sale, sku = POOLS[pool]
        price = self.naive.pools.get((sale, sku), {"price": 0})["price"] * (quantity + 1)
        asked = (c.DEFAULT_PAYABLE, c.DEFAULT_PAYABLE, max(0, price - 1), price + 1)[payable]
        claims = () if member == 11 else ("vip", "member")
        head = (c.RESERVE, slot_of(sale or sku), 0, CALLERS[caller], self._id("r"), sale, sku)
        self._ask(c.Reserve(*head, quantity + 1, BUYERS[buyer], asked, claims=claims))

    reserve_more = reserve

    def again(self, *, which: int) -> None:
        """The same command once more."""
        if self.history:
            command = self.history[which % len(self.history)]
            if not self._forgotten(command):
                self._ask(command)

    def twist(self, *, which: int) -> None:
        """The same id with other arguments."""
        twisted = [q for q in self.history if hasattr(q, "request_id") and hasattr(q, "quantity")]
        if twisted:
            command = twisted[which % len(twisted)]
            if not self._forgotten(command):
                self._ask(command._replace(quantity=command.quantity + 1))

    def _forgotten(self, command: Any) -> bool:
        """A refusal older than the window may be answered anew."""
        if not hasattr(command, "request_id"):
            return False
        keys = (
            request_key(command.caller, command.request_id),
            transfer_key(command.slot, command.caller, command.request_id),
        )
        times = [
            self.naive.refused[command.slot, k][2]
            for k in keys
            if (command.slot, k) in self.naive.refused
        ]
        return any(self.shop.now_ms - at >= REMEMBERED_MS for at in times)

    def pay(self, *, which: int, payment: int, offset: int) -> None:
        row = self._row(which)
        known = [name for slot, name in self.naive.payments if slot == row["slot"]]
        name = known[which % len(known)] if known and payment == 0 else self._id("p")
        paid = row["payable"] + (1 if offset == 0 else 0)
        self._ask(c.Confirm(c.CONFIRM, row["slot"], 0, "web", row["id"], name, paid, "alipay"))

    def pay_old(self, *, which: int, payment: int, offset: int) -> None:
        """Pay what has expired."""
        rows = [row for row in self.naive.held.values() if row["state"] == "EXPIRED"]
        if rows:
            row = rows[which % len(rows)]
            head = (c.CONFIRM, row["slot"], 0, "web", row["id"], self._id("p"))
            self._ask(c.Confirm(*head, row["payable"] + offset, "card"))

    def begin(self, *, which: int) -> None:
        row = self._row(which)
        head = (c.BEGIN_PAYMENT, row["slot"], 0, "web", row["id"], self._id("p"))
        self._ask(c.BeginPayment(*head))

    def fail(self, *, which: int, payment: int) -> None:
        row = self._row(which)
        known = [name for slot, name in self.naive.payments if slot == row["slot"]]
        name = known[which % len(known)] if known and payment == 0 else self._id("p")
        head = (c.REPORT_FAILED_PAYMENT, row["slot"], 0, "web", row["id"], name)
        self._ask(c.ReportFailedPayment(*head, 1))

    def release(self, *, which: int) -> None:
        row = self._row(which)
        self._ask(c.Release(c.RELEASE, row["slot"], 0, "web", row["id"]))

    def bring_back(self, *, which: int, quantity: int, restock: int) -> None:
        rows = [r for r in self.naive.held.values() if r["state"] == "CONFIRMED"]
        begun = [r for r in rows if r["returned"]]
        rows = begun if begun and which % 2 else rows
        row = rows[which % len(rows)] if rows and which % 5 else self._row(which)
        head = (c.RETURN_UNITS, row["slot"], 0, "web", self._id("b"), row["id"])
        self._ask(c.ReturnUnits(*head, quantity + 1, restock + 1))

    def ship(self, *, which: int, stage: int) -> None:
        row = self._row(which)
        head = (c.REPORT_FULFILMENT, row["slot"], 0, "web", row["id"], stage + 1)
        self._ask(c.ReportFulfilment(*head, self.shop.now_ms))

    def refunded(self, *, which: int, report: int, succeeded: int) -> None:
        names = list(self.naive.refunds)
        if names:
            name = names[which % len(names)]
            head = (c.REPORT_REFUND, self.naive.refunds[name]["slot"], 0, "web", name)
            self._ask(c.ReportRefund(*head, bool(succeeded), f"f{report}"))

    def receive(self, *, sku: int, quantity: int) -> None:
        name = ("tea", "cup")[sku]
        head = (c.RECEIVE_STOCK, slot_of(name), 0, "web", self._id("d"), name)
        self._ask(c.ReceiveStock(*head, quantity + 1))

    def adjust(self, *, pool: int, delta: int) -> None:
        sale, sku = POOLS[pool]
        head = (c.ADJUST_STOCK, slot_of(sale or sku), 0, "web", self._id("d"), sale, sku)
        self._ask(c.AdjustStock(*head, delta - 4))

    def set_buffer(self, *, sku: int, buffer: int) -> None:
        name = ("tea", "cup")[sku]
        head = (c.SET_BUFFER, slot_of(name), 0, "web", self._id("d"), name)
        self._ask(c.SetBuffer(*head, buffer))

    def short(self, *, pool: int, quantity: int, dry_run: int) -> None:
        sale, sku = POOLS[pool]
        known = self.shop.state.slot(slot_of(sale or sku)).pool(sale, sku)
        if known is not None and known.forgotten_sold:
            return  # Orders that left memory are not found by a shortage.
        head = (c.DECLARE_SHORTAGE, slot_of(sale or sku), 0, "web", self._id("d"), sale, sku)
        self._ask(c.DeclareShortage(*head, quantity + 1, "lost", dry_run == 0))

    def put_sku(self, *, sku: int, buffer: int, price: int, currency: int) -> None:
        name = ("tea", "cup")[sku]
        head = (c.PUT_SKU, slot_of(name), 0, "web", name, name, {"size": "1"})
        prices = (100, 99, 7)[price], "EUR" if currency == 7 else "CNY"
        self._ask(c.PutSku(*head, (0, 1_000, 5_000)[buffer], *prices, 900_000))

    def put_sale(self, *, sale: int, line_limit: int, limit: int, price: int, lines: int) -> None:
        each = [line("tea", 20, (80, 70, 33)[price], line_limit)]
        if sale == 0:
            each.append(line("cup", 20, 50, 0))
        if lines == 1:
            each.append(line("pot", 5, 9, 1))
        config = campaign(
            *each,
            limit_per_buyer=limit,
            required_claims=("member",),
            ends_ms=T0 + 36_000_000,
            min_score=price,
        )
        name = ("sale", "gala")[sale]
        self._ask(c.PutCampaign(c.PUT_CAMPAIGN, slot_of(name), 0, "web", name, config))

    def turn(self, *, sale: int, state: int) -> None:
        name = ("sale", "gala")[sale]
        to = s.CAMPAIGN_ENDED if state == 15 else 1 + (state == 0)
        head = (c.SET_CAMPAIGN_STATE, slot_of(name), 0, "web", name, to)
        self._ask(c.SetCampaignState(*head))

    def leave(self, *, source: int, goal: int, quantity: int) -> None:
        places = ("", "sale", "sale", "gala")
        sku = "cup" if 2 in (source, goal) else "tea"
        out, into = places[source], places[goal]
        head = (c.TRANSFER_OUT, slot_of(out or sku), 0, "web", self._id("t"), sku, out, into)
        answer = self._ask(c.TransferOut(*head, quantity + 1))
        if answer[0] == Outcome.APPLIED:
            self.transfers.append((answer[1], self.history[-1]))

    def arrive(self, *, which: int) -> None:
        if self.transfers:
            key, out = self.transfers[which % len(self.transfers)]
            slot = slot_of(out.to_campaign_id or out.sku_id)
            head = (c.TRANSFER_IN, slot, 0, "web", key, out.sku_id, out.to_campaign_id)
            self._ask(c.TransferIn(*head, out.quantity))

    def settle(self, *, which: int) -> None:
        ended = [pair for pair in self.transfers if pair[0] in self.naive.arrived]
        if ended:
            key, out = ended[which % len(ended)]
            head = (c.TRANSFER_DONE, out.slot, 0, "web", key)
            self._ask(c.TransferDone(*head, self.naive.arrived[key]))

    def wait(self, *, ms: int) -> None:
        self._close()
        self.shop.wait(WAITS_MS[ms])

    def expire(self, *, limit: int) -> None:
        """Slices of expiries until nothing is due."""
        self._close()
        self.naive.now_ms = self.shop.now_ms
        while True:
            records = self.shop.expire(limit + 1)
            assert len(records) <= limit + 1
            for record in records:
                self.naive.expired(public_id(record.slot, record.key))
            if not records:
                break
        assert not self.naive.due(), "due and not expired"

    def revoke(self, *, limit: int) -> None:
        """A slice of every shortage."""
        self._close()
        for record in self.shop.revoke(limit + 1):
            self.naive.revoked(public_id(record.slot, record.key))

    def forget(self, *, age: int, limit: int, lag: int) -> None:
        """What is finished, old enough and in SQL leaves memory; no answer may tell."""
        self._close()
        self.naive.now_ms = self.shop.now_ms
        after_ms, sink_seq = (0, 100, 7_500, 450_000)[age], len(self.shop.journal) - lag
        for _ in range(limit + 1):
            self.shop.forget(after_ms, sink_seq, limit + 1)

    def hold(self, *, commands: int) -> None:
        """The commands that follow share an entry."""
        if not self.shop.is_open:
            self.shop.open()
            self.holding = commands + 2

    def copy(self) -> None:
        """Begin a snapshot of the replica; every later step takes a chunk."""
        if self.copying is None:
            self._follow()
            self.copy_began, self.copied = self.folded, []
            self.copying = chunks(self.replica)


def _essence(command: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What of an answer a retry relies on."""
    if command.kind == c.RESERVE:
        return answer[1:7]
    if command.kind in (c.TRANSFER_IN, c.REPORT_FULFILMENT):
        return answer[1:2]
    if command.kind == c.BEGIN_PAYMENT:
        return answer[2:3]
    with_figures = (c.DECLARE_SHORTAGE, c.RECEIVE_STOCK)
    return tuple(answer[2:3]) if command.kind in with_figures else ()


def walk(seed: int, steps: int) -> int:
    """A seeded walk; raises where the shop breaks a rule. Answers how many snapshots it took, or 0
    if nothing that left memory came back."""
    rng = random.Random(seed)
    driver = Driver()
    names = [name for name in OPS for _ in range(OFTEN.get(name, 1))]
    for _ in range(steps):
        name = rng.choice(names)
        driver.step(name, {key: rng.randrange(bound) for key, bound in OPS[name].items()})
    return driver.copies if driver.shop.recalls else 0


def small_tables(monkeypatch: Any) -> None:
    """Split tables at 8 rows and write 2 rows a chunk, so that a short walk sees all of it; and
    begin a filter of forgotten keys with 4."""
    monkeypatch.setattr(bloom, "FIRST_KEYS", 4)
    monkeypatch.setattr(tables, "SPLIT_AT", 8)
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 2)
