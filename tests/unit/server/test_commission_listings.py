"""Commission out of the SQL view: lists, and what left the account shard's memory."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from zlib import crc32

import grpc
import grpc.aio
import pytest
from sqlalchemy import Engine, create_engine, insert
from stockray_proto.v1 import commission_service_pb2 as wire
from stockray_proto.v1 import common_pb2 as com

from actors.core import commission_commands as d
from actors.core.identity import PROGRAMME_SLOT, public_id, request_key
from actors.core.outcomes import Outcome
from persistence.sql.tables_accounts import (
    commission_entries,
    distributors,
    metadata,
    statements,
    withdrawals,
)
from server.translate.scalars import stamp
from tests.helpers.core_lines import START_MS, CoreLines
from tests.unit.server.commissioning import DECEMBER, NOVEMBER, Desk
from tests.unit.server.conftest import Gateway, View, reason_of, serving

pytestmark = pytest.mark.usefixtures("front_kind")


@pytest.fixture
def tables(view: View) -> Iterator[Engine]:
    """The view's database, with the tables of commission."""
    engine = create_engine(view.url)
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
async def desk(lines: CoreLines, view: View, tables: Engine) -> AsyncIterator[Desk]:
    async with serving(lines, views=view.views) as gateway:
        yield Desk(gateway)


def write(tables: Engine, table: Any, *rows: dict[str, Any]) -> None:
    """Rows as write-behind would have written them."""
    with tables.begin() as connection:
        connection.execute(insert(table), list(rows))


def entry_row(number: int, **fields: Any) -> dict[str, Any]:
    """Bob's accrual of 1 for an order."""
    return {
        "entry_id": number,
        "distributor_id": "bob",
        "event": 1,
        "reservation_id": "r-1",
        "withdrawal_id": "",
        "level": 1,
        "version": 1,
        "month": NOVEMBER,
        "amount_minor": 1,
        "expense_minor": -1,
        "frozen_minor": 1,
        "at_ms": START_MS,
        **fields,
    }


async def test_distributors_are_listed_by_id_and_by_state(desk: Desk, tables: Engine) -> None:
    names = ("ann", "bob", "cat", "dan", "eve")
    rows = [
        {"distributor_id": name, "state": at % 2 + 1, "share_code": f"c-{name}", "applied_ms": at}
        for at, name in enumerate(names, 1)
    ]
    write(tables, distributors, *rows)

    async def listed(**fields: Any) -> list[str]:
        request = wire.ListDistributorsRequest(page_size=2, **fields)
        found: list[str] = []
        while True:
            answer = await desk.stub.ListDistributors(request)
            found.extend(one.distributor_id for one in answer.distributors)
            assert answer.age.source == com.DATA_SOURCE_SQL
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found

    assert await listed() == list(names)
    assert await listed(states=[wire.DISTRIBUTOR_STATE_ACTIVE]) == ["ann", "cat", "eve"]
    assert await listed(states=[wire.DISTRIBUTOR_STATE_SUSPENDED]) == []


async def test_entries_that_left_memory_follow_those_that_did_not(
    desk: Desk, lines: CoreLines, tables: Engine
) -> None:
    await desk.with_money()
    await desk.withdraw("bob", 300)
    before = await desk.entries("bob")
    assert [entry.entry_number for entry in before] == [3, 2, 1]
    accrued, available = before[2], before[1]
    lines.programme.recent.popleft()
    lines.programme.recent.popleft()
    row = entry_row(
        1, reservation_id=accrued.reservation_id, expense_minor=-1_000, frozen_minor=1_000
    )
    moved = {"expense_minor": 0, "frozen_minor": -1_000, "available_minor": 1_000}
    later = available.entry_time.ToMilliseconds()
    write(
        tables,
        commission_entries,
        {"available_minor": 0, **row},
        {**row, **moved, "entry_id": 2, "event": 3, "at_ms": later},
    )
    assert await desk.entries("bob") == before
    assert await desk.entries("bob", page_size=1) == before
    assert await desk.entries("bob", month=NOVEMBER) == before
    assert not await desk.entries("bob", month=DECEMBER)


async def test_a_view_that_has_not_come_as_far_as_memory_ends_is_no_answer(
    desk: Desk, lines: CoreLines, tables: Engine
) -> None:
    """Entries in between would be missing from the list without a word."""
    await desk.with_money()
    lines.programme.recent.popleft()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.entries("bob")
    assert reason_of(caught.value) == "VIEW_UNAVAILABLE"
    write(tables, commission_entries, entry_row(1))
    assert len(await desk.entries("bob")) == 2


async def test_without_its_shard_entries_come_from_the_view_alone(
    desk: Desk, lines: CoreLines, tables: Engine
) -> None:
    await desk.open("bob")
    write(tables, commission_entries, *(entry_row(number) for number in (1, 2)))
    lines.failures[d.LIST_ENTRIES] = [Outcome.RETRY]
    answer = await desk.stub.ListEntries(wire.ListEntriesRequest(distributor_id="bob"))
    assert [entry.entry_number for entry in answer.entries] == [2, 1]
    assert answer.age.source == com.DATA_SOURCE_SQL


@pytest.mark.parametrize("size", [1, 2, 3, 5])
async def test_pages_of_entries_cross_months_and_leave_out_those_of_others(
    desk: Desk, lines: CoreLines, tables: Engine, size: int
) -> None:
    await desk.open("bob", "cat")
    whose = {1: "bob", 2: "cat", 3: "bob", 4: "bob", 5: "cat", 6: "bob", 7: "cat"}
    rows = [
        entry_row(number, distributor_id=name, month=NOVEMBER if number < 4 else DECEMBER)
        for number, name in whose.items()
    ]
    write(tables, commission_entries, *rows)
    lines.failures[d.LIST_ENTRIES] = [Outcome.RETRY] * 20

    async def numbers(**fields: Any) -> list[int]:
        return [one.entry_number for one in await desk.entries("bob", page_size=size, **fields)]

    assert await numbers() == [6, 4, 3, 1]
    assert await numbers(month=NOVEMBER) == [3, 1]
    assert await numbers(month=DECEMBER) == [6, 4]


async def test_entries_of_withdrawals_say_which(desk: Desk, tables: Engine) -> None:
    paid_out = {"event": 5, "reservation_id": "", "withdrawal_id": "w-1"}
    write(tables, commission_entries, entry_row(1, **paid_out))
    (entry,) = await desk.entries("bob")
    assert (entry.reservation_id, entry.withdrawal_id) == ("", "w-1")
    assert entry.amounts == wire.LedgerAmounts(expense_minor=-1, frozen_minor=1)


def statement_row(month: int, **fields: Any) -> dict[str, Any]:
    """Bob's, with a different number in each field."""
    sums = ("opening", "available", "reversed", "withdrawn", "restored", "closing", "moved")
    return {
        "distributor_id": "bob",
        "month": month,
        "starts_ms": START_MS,
        "ends_ms": START_MS + 1_000,
        **{f"{name}_minor": at for at, name in enumerate(sums, 1)},
        "entry_count": 8,
        "currency_code": "CNY",
        "made_ms": START_MS + 2_000,
        **fields,
    }


async def test_statements_are_listed_newest_first(desk: Desk, tables: Engine) -> None:
    rows = [statement_row(month) for month in (202310, NOVEMBER, DECEMBER)]
    write(tables, statements, *rows, statement_row(NOVEMBER, distributor_id="cat"))
    request = wire.ListStatementsRequest(distributor_id="bob", page_size=2)
    first = await desk.stub.ListStatements(request)
    request.page_token = first.next_page_token
    second = await desk.stub.ListStatements(request)
    found = [*first.statements, *second.statements]
    assert [made.month for made in found] == [DECEMBER, NOVEMBER, 202310]
    assert not second.next_page_token
    assert found[0] == wire.CommissionStatement(
        distributor_id="bob",
        month=DECEMBER,
        start_time=stamp(START_MS),
        end_time=stamp(START_MS + 1_000),
        currency_code="CNY",
        opening_minor=1,
        available_minor=2,
        reversed_minor=3,
        withdrawn_minor=4,
        restored_minor=5,
        closing_minor=6,
        moved_minor=7,
        entry_count=8,
        make_time=stamp(START_MS + 2_000),
    )


async def test_a_statement_that_left_memory_is_read_from_the_view(
    desk: Desk, tables: Engine
) -> None:
    await desk.open("bob")
    write(tables, statements, statement_row(202310))
    found = await desk.statement("bob", 202310)
    assert (found.status, found.age.source) == (com.LINE_STATUS_FOUND, com.DATA_SOURCE_SQL)
    assert found.statement.closing_minor == 6
    none = await desk.statement("bob", NOVEMBER)
    assert none.status == com.LINE_STATUS_NOT_FOUND
    assert not none.HasField("statement")


async def test_withdrawals_are_listed_newest_first_by_state_and_distributor(
    desk: Desk, tables: Engine
) -> None:
    ids = [public_id(PROGRAMME_SLOT, request_key("web", f"w-{number}")) for number in range(5)]
    rows = [
        {
            "withdrawal_id": withdrawal_id,
            "distributor_id": "bob" if at < 4 else "cat",
            "amount_minor": 100 + at,
            "currency_code": "CNY",
            "state": 1 + at % 2,
            "requested_ms": START_MS + at,
            "changed_ms": START_MS + 10 * at,
        }
        for at, withdrawal_id in enumerate(ids)
    ]
    write(tables, withdrawals, *rows)

    async def listed(**fields: Any) -> list[str]:
        request = wire.ListWithdrawalsRequest(page_size=2, **fields)
        found: list[str] = []
        while True:
            answer = await desk.stub.ListWithdrawals(request)
            found.extend(one.withdrawal_id for one in answer.withdrawals)
            request.page_token = answer.next_page_token
            if not request.page_token:
                return found

    assert await listed() == ids[::-1]
    assert await listed(distributor_id="bob") == ids[3::-1]
    approved = [wire.WITHDRAWAL_STATE_APPROVED]
    assert await listed(distributor_id="bob", states=approved) == [ids[3], ids[1]]
    answer = await desk.stub.ListWithdrawals(wire.ListWithdrawalsRequest(page_size=1))
    assert answer.withdrawals[0] == wire.Withdrawal(
        withdrawal_id=ids[4],
        distributor_id="cat",
        amount_minor=104,
        currency_code="CNY",
        state=wire.WITHDRAWAL_STATE_REQUESTED,
        request_time=stamp(START_MS + 4),
        change_time=stamp(START_MS + 40),
    )


async def test_a_token_of_another_list_is_refused(desk: Desk, tables: Engine) -> None:
    write(tables, statements, statement_row(202310), statement_row(NOVEMBER))
    first = wire.ListStatementsRequest(distributor_id="bob", page_size=1)
    token = (await desk.stub.ListStatements(first)).next_page_token
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.stub.ListEntries(wire.ListEntriesRequest(distributor_id="bob", page_token=token))
    assert reason_of(caught.value) == "PAGE_TOKEN_INVALID"


async def test_without_a_view_what_left_memory_is_no_certain_answer(gateway: Gateway) -> None:
    desk = Desk(gateway)
    await desk.with_money()
    assert len(await desk.entries("bob")) == 2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await desk.statement("bob", 202310)
    assert reason_of(caught.value) == "VIEW_UNAVAILABLE"


@pytest.mark.parametrize(
    ("number", "text"), [(1 << 63, "w"), (-(1 << 64), "w"), (True, "w"), (1, "\ud800")]
)
async def test_a_token_that_was_made_up_is_refused(desk: Desk, number: int, text: str) -> None:
    """It has the form and the filters, and a place that no row can have."""
    await desk.open("bob")
    states = tuple(wire.WithdrawalState.values()[1:])
    withdrawals_after = make_up((number, text), "", states)
    calls: list[tuple[Any, Any]] = [
        (desk.stub.ListWithdrawals, wire.ListWithdrawalsRequest(page_token=withdrawals_after))
    ]
    if number != 1:
        entries_after, statements_after = make_up((number,), "bob", 0), make_up((number,), "bob")
        calls += [
            (
                desk.stub.ListEntries,
                wire.ListEntriesRequest(distributor_id="bob", page_token=entries_after),
            ),
            (
                desk.stub.ListStatements,
                wire.ListStatementsRequest(distributor_id="bob", page_token=statements_after),
            ),
        ]
    for call, request in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(request)
        assert reason_of(caught.value) == "PAGE_TOKEN_INVALID"


def make_up(key: tuple[Any, ...], *filters: object) -> str:
    """A token as the service makes them, of any key."""
    said = json.dumps([crc32(repr(filters).encode()), list(key)])
    return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")
