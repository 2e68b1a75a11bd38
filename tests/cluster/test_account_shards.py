"""Account shards of a running service: what happens to orders reaches them once, whoever dies."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from stockray import AsyncClient, Rates, ReplicaRole

from actors.core import facts as f
from actors.core.codec import unpack_entry
from actors.core.commission_records import BUYER_BOUND, ORDER_ACCRUED
from actors.core.order_facts import order_facts
from actors.core.relay_records import FACT_TAKEN
from persistence.open import open_journal
from persistence.ports import Journal
from tests.helpers.sale import BackgroundSale
from tests.helpers.stack import FIRST_KIND, SHARDS, Stack, ended, pid_of

ACCOUNTS = SHARDS
"""The number of the only account shard."""
EFFECTS = {BUYER_BOUND: f.ORDER_BOUND, ORDER_ACCRUED: f.ORDER_EARNED}
"""Kind of record -> of the fact that leads to it."""
pytestmark = pytest.mark.parametrize("shared_stack", FIRST_KIND, indirect=True)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with stack.client() as client:
        await stack.pairs(client)
        yield client


Order = tuple[int, str]
"""A kind of fact, and the reservation that it is about."""


async def share_code(client: AsyncClient) -> str:
    """Of a distributor in a programme."""
    rates = Rates(currency_code="CNY", time_zone="Asia/Shanghai", level_bps=(1_000, 500))
    (await client.put_rates(rates)).raise_for_status()
    (await client.apply_distributor("relayed")).raise_for_status()
    (await client.approve_distributor("relayed")).raise_for_status()
    found = (await client.get_distributor("relayed")).distributor
    assert found is not None
    return found.share_code


def facts_of(journal: Journal, source: int, code: str) -> list[Order]:
    """What a stock shard tells of reservations that carried a share code."""
    told: list[Order] = []
    carried: set[str] = set()
    for entry in journal.read(source, after_seq=0, max_bytes=10**9):
        content = unpack_entry(entry.data)
        for _, fact in order_facts(content.records, content.now_ms):
            if fact.kind == f.ORDER_BOUND and fact.share_code == code:
                carried.add(fact.reservation_id)
            if fact.reservation_id in carried:
                told.append((fact.kind, fact.reservation_id))
    return told


def effects_of(journal: Journal, code: str) -> tuple[dict[int, list[Order]], dict[int, list[Any]]]:
    """By source, what facts did in the account shard's journal, and the marks there."""
    done: dict[int, list[Order]] = {source: [] for source in range(SHARDS)}
    marks: dict[int, list[Any]] = {source: [] for source in range(SHARDS)}
    for entry in journal.read(ACCOUNTS, after_seq=0, max_bytes=10**9):
        source = -1
        for record in unpack_entry(entry.data).records:
            if record.kind == FACT_TAKEN:
                source = record.source
                marks[source].append(tuple(record[4:6]))
            elif record.kind in EFFECTS and record.share_code == code:
                done[source].append((EFFECTS[record.kind], record.reservation_id))
    return done, marks


async def test_facts_of_orders_are_taken_once_while_everybody_dies(
    stack: Stack, client: AsyncClient
) -> None:
    await stack.settled(client)
    code = await share_code(client)
    async with BackgroundSale(stack, client, "relayed", code) as sale:
        for _ in range(2):
            status = await stack.pairs(client)
            victim = pid_of(status, ACCOUNTS, ReplicaRole.PRIMARY)
            os.kill(victim, signal.SIGKILL)
            await sale.goes_on()
            assert await ended(victim)
            await stack.aio.kill("relay")
            await sale.goes_on()
            await stack.aio.kill_primary(sale.campaigns[0])
            await sale.goes_on()
            await stack.pairs(client)
    await stack.settled(client)
    assert sale.statuses.keys() <= {"RESERVED", "SOLD_OUT", "UNKNOWN", "RETRY"}
    with closing(open_journal(stack.settings.journal_url)) as journal:
        done, marks = effects_of(journal, code)
        for source in range(SHARDS):
            told = facts_of(journal, source, code)
            assert len(told) > 50
            assert done[source] == told
            assert marks[source] == sorted(set(marks[source]))
    await sale.check()
    await stack.check(client)


async def test_a_sale_goes_on_without_its_account_shard(stack: Stack, client: AsyncClient) -> None:
    await stack.settled(client)
    before = await stack.pairs(client)
    async with BackgroundSale(stack, client, "alone") as sale:
        for role in (ReplicaRole.STANDBY, ReplicaRole.PRIMARY):
            os.kill(pid_of(before, ACCOUNTS, role), signal.SIGKILL)
        await sale.goes_on()
    after = await stack.settled(client)
    assert [shard.epoch for shard in after.shards[:SHARDS]] == [
        shard.epoch for shard in before.shards[:SHARDS]
    ]
    assert all(shard.relay_seq == shard.seq for shard in after.shards[:SHARDS])
    assert [shard.accounts for shard in after.shards] == [False, False, True]
    await sale.check()
    await stack.check(client)
