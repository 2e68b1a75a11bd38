"""What left an account shard's memory comes back from a real database: by the gateway when a
withdrawal is asked for again, by the relay when something of an order comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.core import commission_commands as d
from actors.core import facts as f
from actors.core import records as r
from actors.core.codec import pack_entry
from actors.core.commission_state import order_key
from actors.core.identity import PROGRAMME_SLOT, account_slot, public_id, request_key, slot_of
from actors.core.outcomes import Outcome
from actors.core.programme_config import ProgrammeConfig
from actors.core.relay_commands import ENTRY_END
from persistence.errors import NotApplied
from persistence.memory import MemoryJournal
from persistence.sql.views import SqlViews
from server.recall import RecallingLines, forgotten_in
from server.relay import RelayLimits, Source
from tests.helpers.core_lines import CoreLines, FakeClock
from tests.helpers.histories import INCARNATION, Database
from tests.helpers.loop_stores import LoopJournal
from tests.helpers.virtual_time import until

DAY_MS = 86_400_000
NAMES = ("r1", "r2", "r3")
SLOTS_OF = (0,) * 1024 + (1,) * 1024
HEAD = (PROGRAMME_SLOT, 1 << 50, "web")


def order_id(name: str) -> str:
    return public_id(slot_of("tea"), request_key("web", name))


@pytest.fixture
def lines() -> CoreLines:
    """Three orders of two units whose commission of 1,000 each is available, 300 of it paid out."""
    made = CoreLines(FakeClock())
    config = ProgrammeConfig("CNY", "UTC", 1_000, 0, approve_at_once=True)
    made.decide_now([d.PutRates(d.PUT_RATES, *HEAD, config)])
    made.decide_now([d.ApplyDistributor(d.APPLY_DISTRIBUTOR, *HEAD, "bob")])
    (code,) = made.programme.codes
    made.decide_now([d.BindReferrer(d.BIND_REFERRER, *HEAD, "ann", code)])
    for name in NAMES:
        now_ms = made.clock.now_ms()
        what = (order_id(name), "ann", "", "tea", 2, 10_000, "CNY", now_ms, 10_000)
        made.learn(f.OrderEarned(f.ORDER_EARNED, now_ms, *what))
    made.clock.pass_ms(8 * DAY_MS)
    made.look_at_programme()
    key = made.decide_now([withdrawal()])[0][1]
    for act in (d.WITHDRAWAL_APPROVE, d.WITHDRAWAL_PAID):
        made.decide_now([d.ReviewWithdrawal(d.REVIEW_WITHDRAWAL, *HEAD, key, act, "bank-1")])
    return made


def withdrawal(amount: int = 300) -> d.RequestWithdrawal:
    return d.RequestWithdrawal(d.REQUEST_WITHDRAWAL, *HEAD, "w1", "bob", amount)


@pytest.fixture
def views(tmp_path: Path, lines: CoreLines) -> "AsyncIterator[SqlViews]":
    """SQL as write-behind leaves it; then all that may go has left memory."""
    journal = MemoryJournal()
    journal.create(0, incarnation=INCARNATION)
    journal.acquire(0, incarnation=INCARNATION, seen_epoch=0, token="t")
    append(journal, [entry.data for entry in lines.entries])
    database = Database(tmp_path, tmp_path / "template.db")
    database.follow(journal)
    assert lines.forget_accounts() == 4
    assert not lines.programme.orders.size
    made = SqlViews(database.url)
    yield made  # type: ignore[misc]
    made.close()
    database.sink.close()


def append(journal: MemoryJournal, entries: Sequence[bytes]) -> None:
    first = journal.read_meta(0).last_seq + 1
    for seq, data in enumerate(entries, first):
        told = {"incarnation": INCARNATION, "epoch": 1, "batch_id": f"t:{seq}"}
        journal.append(0, seq=seq, entry=data, **told)  # type: ignore[arg-type]


async def test_a_withdrawal_that_left_memory_is_answered_as_before_and_not_paid_again(
    lines: CoreLines, views: SqlViews
) -> None:
    gateway = RecallingLines(lines, forgotten_in(views), lines.clock)
    money = list(lines.programme.sums)
    async with lines.running():
        found, other = await gateway.submit([withdrawal(), withdrawal(301)])
        assert (found[0], found[3][2:4]) == (Outcome.FOUND, (300, 4))
        assert found[4] == "CNY"
        assert other[0] == Outcome.ID_REUSED
        lines.forget_accounts()
        paid = d.ReviewWithdrawal(d.REVIEW_WITHDRAWAL, *HEAD, found[1], d.WITHDRAWAL_PAID)
        failed = paid._replace(act=d.WITHDRAWAL_FAILED)
        answers = await gateway.submit([paid, failed])
        assert [answer[0] for answer in answers] == [Outcome.APPLIED, Outcome.WITHDRAWAL_CONFLICT]
        assert answers[0][1:] == (found[3], "CNY")
    assert lines.programme.sums == money
    gateway.close()


class LinesOfAccounts:
    """The way to one account shard."""

    def __init__(self, lines: CoreLines) -> None:
        self._lines = lines

    async def submit(self, shard: int, commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        assert shard == 1
        return await self._lines.submit(commands)


def returned(name: str, total: int) -> r.UnitsReturned:
    """A unit of an order of two is back."""
    key = request_key("web", name)
    head = (r.UNITS_RETURNED, slot_of("tea"), key, 0, request_key("web", f"{name}{total}"), 1)
    return r.UnitsReturned(
        *head, 1, total, 1, b"", 0, "p1", "card", "ann", "why", 3, "", "CNY", of_quantity=2
    )


def relay_of(
    lines: CoreLines, stock: MemoryJournal, find: Callable[[str], Mapping[str, Any] | None]
) -> Source:
    async def find_order(reservation_id: str) -> Mapping[str, Any] | None:
        return find(reservation_id)

    return Source(
        shard=0,
        journal=LoopJournal(stock, 0),
        kept=None,
        find_order=find_order,
        accounts=LinesOfAccounts(lines),
        slots_of=SLOTS_OF,
        account_slots={1: account_slot("ann")},
        clock=lines.clock,
        limits=RelayLimits(gather_ms=1, trouble_pause_ms=1),
    )


def stock_journal(*records: Any) -> MemoryJournal:
    """A stock shard's, with these in one entry."""
    stock = MemoryJournal()
    stock.create(0, incarnation=INCARNATION)
    stock.acquire(0, incarnation=INCARNATION, seen_epoch=0, token="t")
    append(stock, [pack_entry(epoch=1, now_ms=5, records=records, balances=())])
    return stock


async def until_taken(lines: CoreLines) -> None:
    """All facts of the first entry were taken."""
    await until(lambda: lines.state.sources.get(0) == (INCARNATION, 1, ENTRY_END))


async def test_a_return_of_orders_that_left_memory_is_reversed(
    lines: CoreLines, views: SqlViews
) -> None:
    """Orders that nobody brought, and one that comes back twice, are among them."""
    records = [returned("r1", 1), returned("r2", 2), returned("nobody's", 1), returned("r1", 2)]
    relay = relay_of(lines, stock_journal(*records), views.get_commission_order)
    async with lines.running():
        task = asyncio.create_task(relay.run())
        await until_taken(lines)
        task.cancel()
    # 3,000 were earned, 300 of it paid out; r1 and r2 came back.
    frozen, available, settled, withdrawing, paid_out = lines.programme.sums[1:]
    assert (frozen, available + settled, withdrawing, paid_out) == (0, 700, 0, 300)
    orders = {key: order.returned for key, order in lines.programme.orders.items()}
    assert orders == {order_key(order_id("r1")): 2, order_key(order_id("r2")): 2}


async def test_while_sql_is_away_a_return_of_a_forgotten_order_waits(
    lines: CoreLines, views: SqlViews
) -> None:
    away = asyncio.Event()

    def find(reservation_id: str) -> Mapping[str, Any] | None:
        if not away.is_set():
            raise NotApplied("the database is away")
        return views.get_commission_order(reservation_id)

    relay = relay_of(lines, stock_journal(returned("r1", 1), returned("r3", 2)), find)
    money = list(lines.programme.sums)
    async with lines.running():
        task = asyncio.create_task(relay.run())
        await until(lambda: relay.trouble == "the database is away")
        assert lines.programme.sums == money
        assert relay.position == 0
        away.set()
        await until_taken(lines)
        task.cancel()
    assert lines.programme.sums[3] + lines.programme.sums[2] == 3_000 - 300 - 500 - 1_000
