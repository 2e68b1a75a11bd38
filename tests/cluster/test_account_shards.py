"""Account shards of a running service: what happens to orders reaches them once, whoever dies."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from stockray import AsyncClient, ReplicaRole

from actors.core.codec import unpack_entry
from actors.core.order_facts import order_facts
from actors.core.relay_commands import ENTRY_END
from actors.core.relay_records import FACT_TAKEN
from persistence.open import open_journal
from tests.helpers.sale import BackgroundSale
from tests.helpers.stack import FIRST_KIND, SHARDS, Stack, ended, pid_of

ACCOUNTS = SHARDS
"""The number of the only account shard."""
pytestmark = pytest.mark.parametrize("shared_stack", FIRST_KIND, indirect=True)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with stack.client() as client:
        await stack.pairs(client)
        yield client


def places(stack: Stack) -> tuple[dict[int, list[tuple[int, int]]], dict[int, int]]:
    """By source: the places of the facts that the account shard took, in its order, without moves
    of the mark alone; and how many facts the source's journal makes."""
    known: dict[int, set[tuple[int, int]]] = {}
    taken: dict[int, list[tuple[int, int]]] = {source: [] for source in range(SHARDS)}
    with closing(open_journal(stack.settings.journal_url)) as journal:
        for source in range(SHARDS):
            known[source] = set()
            for entry in journal.read(source, after_seq=0, max_bytes=10**9):
                content = unpack_entry(entry.data)
                count = len(order_facts(content.records, content.now_ms))
                indexes = [*range(count - 1), ENTRY_END][:count]
                known[source] |= {(entry.seq, index) for index in indexes}
        for entry in journal.read(ACCOUNTS, after_seq=0, max_bytes=10**9):
            for record in unpack_entry(entry.data).records:
                place = record[4:6]
                if record.kind == FACT_TAKEN and tuple(place) in known[record.source]:
                    taken[record.source].append(tuple(place))
    return taken, {source: len(found) for source, found in known.items()}


async def test_facts_of_orders_are_taken_once_while_everybody_dies(
    stack: Stack, client: AsyncClient
) -> None:
    await stack.settled(client)
    async with BackgroundSale(stack, client, "relayed") as sale:
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
    taken, expected = places(stack)
    for source in range(SHARDS):
        assert expected[source] > 50
        assert taken[source] == sorted(set(taken[source]))
        assert len(taken[source]) == expected[source]
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
