"""Histories of one shard: a shop's random day, its journal in a store, and the SQL view of it."""

import asyncio
import itertools
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from actors.core import commands as c
from actors.core.codec import pack_entry, unpack_entry
from actors.core.identity import SLOTS_IN_ALL, public_id, slot_of
from actors.core.outcomes import Outcome
from actors.limits import ShardLimits
from actors.projector import Projector, project
from persistence.memory import MemoryJournal, MemorySnapshots
from persistence.ports import Sink
from persistence.sql.dump import SqlDump
from persistence.sql.sink import SqlSink
from server.bootstrap import ShardMap
from server.verify import Ack, ReplicaClaim, Report, Verifier
from tests.helpers.account_acts import AccountActs
from tests.helpers.loop_stores import LoopJournal
from tests.helpers.shells import LIMITS
from tests.model.shop import MINUTE_MS, T0, Shop, line
from tests.model.team_shop import TeamShop, group_line, rules

T = TypeVar("T")
INCARNATION = "first"
MAP = ShardMap(1, INCARNATION, (0,) * SLOTS_IN_ALL)


class DayShop(TeamShop):
    """A shop that sells in three ways: as ever, in a flash sale, and to teams."""

    team_sale = "together"


class Day:
    """Random requests to one shop, from one seed."""

    def __init__(self, seed: int) -> None:
        self.shop = DayShop()
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self._held: list[str] = []
        self._refunds: list[str] = []
        self._teams: list[str] = []
        self._seats: list[str] = []
        group = rules(
            new_buyer_seats=self._chance.choice((0, 1)),
            leader_discount_bps=777,
            virtual_completion=True,
        )
        self.shop.open_sale(
            12,
            group_line((2, 91), (3, 77), units=12),
            sale=self.shop.team_sale,
            group=group,
            ends_ms=T0 + 90 * MINUTE_MS,
        )
        self.shop.open_sale(40, line("tea", limit=9), limit_per_buyer=12)
        self.shop.receive(60, "first")

    def step(self) -> None:
        """One request, after some time."""
        chance, shop = self._chance, self.shop
        shop.wait(chance.randint(0, 40_000))
        request: Callable[[], object] = chance.choice(
            (
                *[self._reserve] * 3,
                *[self._pay] * 2,
                self._begin,
                lambda: shop.fail(held := self._one(), self._payment(held)),
                lambda: shop.release(self._one()),
                lambda: shop.ship(self._one(), chance.randint(1, 3)),
                self._bring_back,
                self._report_refund,
                self._move,
                self._stock,
                lambda: shop.expire(3),
                lambda: shop.forget(300_000, len(shop.journal) - chance.randint(0, 3), 4),
                lambda: shop.turn(chance.randint(1, 2)),
                *[self._join] * 4,
                *[self._pay_seat] * 4,
                self._leave_or_complete,
                self._end_teams,
                self._forget_teams,
            )
        )
        request()

    def _name(self, letter: str) -> str:
        return f"{letter}{next(self._numbers)}"

    def _payment(self, reservation: str) -> str:
        return f"p{self._chance.randint(0, 30)}-{reservation}"

    def _one(self) -> str:
        """A reservation at random."""
        if not self._held:
            self._held.append(self.shop.hold(self._name("r")))
        return self._chance.choice(self._held)

    def _reserve(self) -> None:
        sale = self._chance.choice(("", "sale"))
        buyer = self._chance.choice(("ann", "bob", "cid"))
        units = self._chance.randint(1, 9)
        answer = self.shop.reserve(self._name("r"), units, buyer, sale=sale)
        if answer[0] == Outcome.RESERVED:
            self._held.append(public_id(slot_of(sale or "tea"), answer[1]))

    def _begin(self) -> None:
        held = self._one()
        self.shop.begin(held, self._payment(held))

    def _pay(self) -> None:
        held = self._one()
        paid = self.shop.held(held).payable_minor + self._chance.choice((0, 0, 0, 1))
        answer = self.shop.pay(held, self._payment(held), paid)
        if answer[0] == Outcome.REFUND_DUE:
            self._refunds.append(public_id(int(held[:3], 16), answer[2][0]))

    def _join(self) -> None:
        """A seat, of a new team or of one of the last."""
        buyer, request = f"b{self._chance.randrange(6)}", self._name("s")
        new = self._chance.random() < 0.6
        units = self._chance.choice((1, 1, 2))
        if not self._teams or self._chance.random() < 0.3:
            answer = self.shop.open_team(buyer, request, quantity=units, new_buyer=new)
        else:
            team = self._chance.choice(self._teams[-3:])
            answer = self.shop.join(team, buyer, request, quantity=units, new_buyer=new)
        if answer[0] == Outcome.RESERVED:
            seat, team = (public_id(self.shop.team_slot, answer[at]) for at in (1, 8))
            self._held.append(seat)
            self._seats.append(seat)
            if team not in self._teams:
                self._teams.append(team)

    def _pay_seat(self) -> None:
        """One of the last seats, perhaps too late."""
        if self._seats:
            self.shop.paid(self._chance.choice(self._seats[-4:]))

    def _leave_or_complete(self) -> None:
        if self._seats and self._chance.random() < 0.6:
            self.shop.leaves(self._chance.choice(self._seats[-4:]))
        elif self._teams:
            self.shop.complete(self._chance.choice(self._teams[-2:]))

    def _end_teams(self) -> None:
        """Time passes, and what is due is decided: some of it."""
        self.shop.wait(self._chance.choice((0, 0, 10 * MINUTE_MS)))
        self.shop.expire(self._chance.choice((1, 100)))
        self.shop.end_teams(self._chance.choice((1, 100)))
        if self._chance.random() < 0.02:
            self.shop.turn(3, self.shop.team_sale)

    def _forget_teams(self) -> None:
        self.shop.forget_teams(300_000, len(self.shop.journal) - self._chance.randint(0, 3), 4)

    def _bring_back(self) -> None:
        held = self._one()
        restock = self._chance.choice(
            (c.RESTOCK_AVAILABLE, c.RESTOCK_SCHEDULED, c.RESTOCK_WRITE_OFF)
        )
        units = self._chance.randint(1, 4)
        answer = self.shop.bring_back(held, units, self._name("b"), restock)
        if answer[3]:
            self._refunds.append(public_id(int(held[:3], 16), answer[3][0]))

    def _report_refund(self) -> None:
        if self._refunds:
            refund = self._chance.choice(self._refunds)
            self.shop.refunded(refund, self._chance.random() < 0.5, self._name("f"))

    def _move(self) -> None:
        units = self._chance.randint(1, 9)
        outcome, key, *_ = self.shop.leave(units, self._name("m"))
        if outcome == Outcome.APPLIED and self._chance.random() < 0.8:
            _, arrived = self.shop.arrive(key, units)
            if self._chance.random() < 0.8:
                self.shop.settle(key, arrived)

    def _stock(self) -> None:
        chance, shop, request = self._chance, self.shop, self._name("d")
        chance.choice(
            (
                lambda: shop.receive(chance.randint(1, 20), request),
                lambda: shop.adjust(chance.randint(-3, 3) or 1, request),
                lambda: shop.set_buffer(chance.randint(0, 5), request),
                lambda: shop.short(chance.randint(1, 12), request),
                lambda: shop.sku(name=request),
                lambda: shop.short(chance.randint(1, 5), request, sale=shop.team_sale),
            )
        )()
        for _ in range(chance.randint(0, 4)):
            shop.revoke()


def busy_day(seed: int, steps: int = 120) -> Shop:
    """A shop after so many random requests: every kind of record becomes likely."""
    day = Day(seed)
    for _ in range(steps):
        day.step()
    return day.shop


def full_day(seed: int, steps: int = 120) -> Shop:
    """The same with an account shard in one: it takes the shop's own facts, and ends months
    later."""
    day = Day(seed)
    acts = AccountActs(day.shop, seed, INCARNATION)
    taken = 0
    for step in range(steps):
        day.step()
        if acts.chance.random() < 0.5:
            acts.act()
        if acts.chance.random() < 0.5 or step == steps - 1:
            for seq in range(taken + 1, len(day.shop.journal) + 1):
                acts.take(0, seq, day.shop.journal[seq - 1])
                taken = seq
    acts.pass_months()
    return day.shop


def journal_of(entries: list[bytes], *, epoch: int = 1) -> MemoryJournal:
    """A store with a journal of these entries, all written by one epoch."""
    journal = MemoryJournal()
    journal.create(0, incarnation=INCARNATION)
    for seen in range(epoch):
        journal.acquire(0, incarnation=INCARNATION, seen_epoch=seen, token=f"t{seen}")
    for seq, entry in enumerate(entries, 1):
        journal.append(
            0,
            incarnation=INCARNATION,
            epoch=epoch,
            seq=seq,
            batch_id=f"t:{seq}",
            entry=entry,
        )
    return journal


def rewritten(entries: list[bytes], change: Callable[[int, list[Any]], Any]) -> list[bytes]:
    """The journal with its records changed; the balances say what they said."""
    made = []
    for seq, data in enumerate(entries, 1):
        content = unpack_entry(data)
        records = list(content.records)
        change(seq, records)
        made.append(
            pack_entry(
                epoch=content.epoch,
                now_ms=content.now_ms,
                records=records,
                balances=content.balances,
            )
        )
    return made


class Database:
    """A SQLite view in a file, migrated by copying one that is."""

    def __init__(self, directory: Path, template: Path) -> None:
        self.path = directory / "tables.db"
        if not template.exists():
            sink = SqlSink(f"sqlite:///{template}")
            sink.upgrade()
            sink.close()
        shutil.copy(template, self.path)
        self.url = f"sqlite:///{self.path}"
        self.sink = SqlSink(self.url)

    def follow(self, journal: MemoryJournal, *, to_seq: int = 0, batch: int = 7) -> None:
        """See `follow`."""
        follow(self.sink, journal, to_seq=to_seq, batch=batch)

    def verify(
        self,
        journal: MemoryJournal,
        *,
        snapshots: MemorySnapshots | None = None,
        claims: tuple[ReplicaClaim, ...] = (),
        acks: tuple[Ack, ...] = (),
    ) -> Report:
        """See `verify_view`."""
        try:
            return verify_view(self.url, journal, snapshots=snapshots, claims=claims, acks=acks)
        finally:
            self.sink.close()


def follow(sink: Sink, journal: MemoryJournal, *, to_seq: int = 0, batch: int = 7) -> None:
    """Apply the journal (up to `to_seq`) to a view, some entries at a time."""
    last = to_seq or journal.read_meta(0).last_seq
    position = sink.position(0)[1]
    while position < last:
        entries = journal.read(0, after_seq=position, max_bytes=10**9)
        made = project(0, entries[: min(batch, last - position)])
        sink.apply(
            0,
            incarnation=INCARNATION,
            from_seq=position,
            to_seq=made.to_seq,
            rows=made.rows,
            dead_letters=made.dead_letters,
            facts=made.facts,
        )
        position = made.to_seq


def verify_view(
    url: str,
    journal: MemoryJournal,
    *,
    snapshots: MemorySnapshots | None = None,
    claims: tuple[ReplicaClaim, ...] = (),
    acks: tuple[Ack, ...] = (),
) -> Report:
    """What `verify` finds in a view of this journal."""
    dump = SqlDump(url)
    try:
        return Verifier(
            journal=journal,
            snapshots=snapshots or MemorySnapshots(),
            dump=dump,
            shard_map=MAP,
            claims=claims,
            acks=acks,
        ).run()
    finally:
        dump.close()


class AtOnce:
    """A sink's thread that is none; it remembers who was in a hurry, and who no longer."""

    def __init__(self) -> None:
        self.hurries: list[bool] = []

    def __call__(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 - as a thread would hand it over
            future.set_exception(error)
        return future

    def hurry(self, _: int, wanted: bool) -> None:
        self.hurries.append(wanted)


class StoppedClock:
    """A clock that shows what it is told."""

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms


def projector(
    journal: MemoryJournal,
    sink: Sink,
    *,
    thread: AtOnce | None = None,
    clock: StoppedClock | None = None,
    limits: ShardLimits = LIMITS,
    needed_by: str = "",
) -> tuple[Projector, LoopJournal]:
    """A projector without threads, and the store as it sees it."""
    seen = LoopJournal(journal, 0)
    made = Projector(
        shard=0,
        reader="sink",
        needed_by=needed_by,
        journal=seen,
        sink=sink,
        in_thread=thread or AtOnce(),
        limits=limits,
        clock=clock or StoppedClock(0),
    )
    return made, seen


def violated(report: Report) -> dict[str, list[str]]:
    """The invariants that do not hold, with their examples."""
    return {name: found.examples for name, found in report.invariants.items() if found.violations}


def rows_of(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement on the file."""
    connection = sqlite3.connect(database.path)
    try:
        found = list(connection.execute(statement))
        connection.commit()
        return found
    finally:
        connection.close()
