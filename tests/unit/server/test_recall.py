"""The gateway fetches what left a shard's memory, or says RETRY."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.core import commands as c
from actors.core.identity import public_id, request_key, slot_of
from actors.core.outcomes import Outcome
from persistence.errors import NotApplied
from persistence.memory import MemoryJournal
from persistence.sql.views import SqlViews
from server import recall
from server.recall import RecallingLines
from tests.helpers.core_lines import CoreLines, FakeClock
from tests.helpers.histories import INCARNATION, Database

SLOT = slot_of("tea")
HELD = public_id(SLOT, request_key("web", "r1"))


@pytest.fixture
def lines() -> CoreLines:
    """One unit of tea sold for 100, of 5."""
    made = CoreLines(FakeClock())
    late = made.clock.now_ms() + 5_000
    head = (c.PUT_SKU, SLOT, late, "web", "tea", "tea", {}, 0, 100, "CNY", 900_000)
    made.decide_now([c.PutSku(*head)])
    made.decide_now([c.ReceiveStock(c.RECEIVE_STOCK, SLOT, late, "web", "doc", "tea", 5)])
    made.decide_now([reserve(made)])
    made.decide_now([c.Confirm(c.CONFIRM, SLOT, late, "web", HELD, "p1", 100, "alipay")])
    return made


def reserve(lines: CoreLines, request: str = "r1") -> c.Reserve:
    head = (c.RESERVE, SLOT, lines.clock.now_ms() + 5_000, "web", request, "", "tea", 1, "ann")
    return c.Reserve(*head)


def give_back(lines: CoreLines) -> c.ReturnUnits:
    head = (c.RETURN_UNITS, SLOT, lines.clock.now_ms() + 5_000, "web", "b1", HELD)
    return c.ReturnUnits(*head, 1, c.RESTOCK_AVAILABLE)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path, tmp_path / "template.db")


async def test_what_left_memory_comes_back_from_a_real_database(
    lines: CoreLines, database: Database
) -> None:
    journal = MemoryJournal()
    journal.create(0, incarnation=INCARNATION)
    journal.acquire(0, incarnation=INCARNATION, seen_epoch=0, token="t")
    for entry in lines.entries:
        journal.append(
            0,
            incarnation=INCARNATION,
            epoch=1,
            seq=entry.seq,
            batch_id=f"t:{entry.seq}",
            entry=entry.data,
        )
    database.follow(journal)
    get = c.GetReservation(c.GET_RESERVATION, SLOT, lines.clock.now_ms() + 5_000, "web", HELD)
    before = lines.decide_now([reserve(lines), get])
    assert lines.forget() == 1
    views = SqlViews(database.url)
    gateway = RecallingLines(lines, views.get_reservation, lines.clock)
    async with lines.running():
        unknown = reserve(lines, "r2")
        answers = await gateway.submit([get, reserve(lines), unknown, get])
        assert [answers[0], answers[3]] == [before[1]] * 2
        assert answers[1][:7] == before[0][:7]
        assert answers[2][0] == Outcome.RESERVED
        back = (await gateway.submit([give_back(lines)]))[0]
        assert (back[0], back[3][4]) == (Outcome.RETURNED, 100)
    gateway.close()
    views.close()
    database.sink.close()


def away(_: str) -> Mapping[str, Any] | None:
    raise NotApplied("the database is away")


async def test_without_sql_the_caller_is_told_to_retry_and_nothing_is_applied(
    lines: CoreLines,
) -> None:
    lines.forget()
    gateway = RecallingLines(lines, away, lines.clock)
    pools = [pool.balance(0, 0) for pool in lines.pools().values()]
    async with lines.running():
        assert await gateway.submit([give_back(lines), reserve(lines)]) == [(Outcome.RETRY,)] * 2
    assert [pool.balance(0, 0) for pool in lines.pools().values()] == pools
    assert not lines.state.slot(SLOT).documents.get(request_key("web", "b1"))
    assert len(lines.state.slot(SLOT).reservations) == 0
    gateway.close()


async def test_a_database_that_hangs_costs_no_more_than_the_patience(
    lines: CoreLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "LOOK_TIMEOUT_MS", 20)
    lines.forget()
    let_go = threading.Event()

    def hang(_: str) -> None:
        let_go.wait(10)

    gateway = RecallingLines(lines, hang, lines.clock)
    async with lines.running():
        assert await gateway.submit([give_back(lines)]) == [(Outcome.RETRY,)]
    let_go.set()
    gateway.close()


async def test_a_line_whose_time_is_up_is_not_looked_for(lines: CoreLines) -> None:
    lines.forget()
    asked: list[str] = []
    gateway = RecallingLines(lines, asked.append, lines.clock)
    async with lines.running():
        late = give_back(lines)._replace(deadline_ms=lines.clock.now_ms())
        assert await gateway.submit([late]) == [(Outcome.RETRY,)]
    assert asked == []
    gateway.close()


async def told(gateway: RecallingLines, command: Any) -> tuple[Any, ...]:
    """The answer to one command that is put."""
    answer: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
    gateway.put(command, answer.set_result)
    return await answer


async def test_a_line_that_is_put_is_recalled_as_well(
    lines: CoreLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines.forget()
    gateway = RecallingLines(lines, away, lines.clock)
    broken = RecallingLines(lines, lambda _: 1 // 0, lines.clock)  # type: ignore[arg-type, return-value]
    async with lines.running():
        assert await told(gateway, give_back(lines)) == (Outcome.RETRY,)
        assert await told(broken, give_back(lines)) == (Outcome.INTERNAL,)
        gone = RecallingLines(lines, lambda _: None, lines.clock)
        with monkeypatch.context() as patch:
            patch.setattr(recall, "WAITING_MAX", 0)
            assert await told(gone, reserve(lines)) == (Outcome.RETRY,)
        assert (await told(gone, reserve(lines)))[0] == Outcome.RESERVED
    for opened in (gateway, broken, gone):
        opened.close()
