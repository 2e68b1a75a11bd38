"""Commission of a running service: orders of the sale reach the ledger once, whoever dies."""

import os
import signal
from collections.abc import AsyncIterator

import pytest
from stockray import (
    AsyncClient,
    Attribution,
    LeaderboardKind,
    Rates,
    ReplicaRole,
    Sku,
    Status,
)

from tests.helpers.stack import KINDS, SHARDS, Stack, ended, pid_of, within

ACCOUNTS = SHARDS
"""The number of the only account shard."""
AMOUNTS = (
    *("expense_minor", "frozen_minor", "available_minor"),
    *("settled_minor", "withdrawing_minor", "paid_out_minor"),
)
ORDERS = 40
PRICE_MINOR = 9_900

pytestmark = pytest.mark.parametrize("shared_stack", KINDS[:1], indirect=True)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with stack.client() as client:
        await stack.pairs(client)
        yield client


async def distributor(client: AsyncClient, name: str) -> str:
    """Somebody who brings buyers: the share code."""
    (await client.apply_distributor(name)).raise_for_status()
    (await client.approve_distributor(name)).raise_for_status()
    found = (await client.get_distributor(name)).distributor
    assert found is not None
    return found.share_code


async def frozen(client: AsyncClient, name: str) -> int:
    account = (await client.get_account(name)).account
    assert account is not None
    assert account.balances is not None
    return account.balances.frozen_minor


async def test_orders_earn_once_for_both_levels_while_the_account_shard_dies(
    stack: Stack, client: AsyncClient
) -> None:
    await stack.settled(client)
    rates = Rates(currency_code="CNY", time_zone="Asia/Shanghai", level_bps=(1_000, 500))
    (await client.put_rates(rates)).raise_for_status()
    code = await distributor(client, "bob")
    (await client.bind_referrer("bob", await distributor(client, "cat"))).raise_for_status()
    tea = Sku(sku_id="oolong", currency_code="CNY", list_price_minor=PRICE_MINOR, buffer_bps=0)
    (await client.put_sku(tea)).raise_for_status()
    received = await client.receive_stock("oolong", quantity=ORDERS, request_id="oolong-1")
    received.raise_for_status()
    sold = []
    for number in range(ORDERS):
        order = await client.reserve(
            "oolong",
            buyer_id=f"friend-{number}",
            quantity=1,
            attribution=Attribution(share_code=code),
        )
        order.raise_for_status()
        paid = await client.confirm(
            order.reservation_id, payment_id=f"oolong-{number}", paid_minor=PRICE_MINOR
        )
        paid.raise_for_status()
        sold.append(order)
        if number == ORDERS // 2:
            victim = pid_of(await stack.pairs(client), ACCOUNTS, ReplicaRole.PRIMARY)
            os.kill(victim, signal.SIGKILL)
            assert await ended(victim)
    full = ORDERS * PRICE_MINOR // 10

    async def earned() -> bool:
        return await frozen(client, "bob") >= full

    assert await within(30, earned)
    assert (await frozen(client, "bob"), await frozen(client, "cat")) == (full, full // 2)
    back = await client.return_units(sold[0].reservation_id, quantity=1, request_id="back-1")
    back.raise_for_status()

    async def reversed_once() -> bool:
        return await frozen(client, "bob") == full - PRICE_MINOR // 10

    assert await within(30, reversed_once)
    account = (await client.get_account("bob")).account
    assert account is not None
    assert (account.order_count, account.invited_count) == (ORDERS, ORDERS)
    entries = [entry async for entry in client.list_entries("bob")]
    assert len(entries) == ORDERS + 1
    assert len({(e.reservation_id, e.level, e.event) for e in entries}) == len(entries)
    sums = (await client.get_rates()).sums
    assert sum(getattr(sums, name) for name in AMOUNTS) == 0
    board = await client.get_leaderboard(LeaderboardKind.INVITES)
    assert ("bob", ORDERS) in [
        (place.distributor_id, place.invited_count) for place in board.places
    ]
    assert (await client.bind_referrer("cat", code)).status is Status.CYCLE
