"""The integrated campaign of the demo: distributors, then the flash sale, then teams, one ledger.

Distributors warm up; buyers come by their share codes; what is confirmed earns, by the relay and
through kills of it and of the accounts' primary. Between the sale and the teams some of it is paid
out, some orders come back (one of somebody whose money is gone, which makes a debt), and the rates
change. At the end `commission_books` reads the whole ledger.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from stockray import (
    AsyncClient,
    ClusterStatus,
    CommissionAccount,
    ReplicaRole,
    Status,
    WithdrawalAct,
)

from persistence.sql.dump import SqlDump
from server.children import descendants
from server.commission_books import CatchUp, CommissionBooks, Earning, Key, audit, count_rows
from server.group_books import GroupBooks
from server.group_sale import CAMPAIGN_ID
from server.outreach import GROUP_RATES, Outreach, each, open_programme, put_rates, warm_up
from server.sale import Line, Order, Tally

PAIR = {ReplicaRole.PRIMARY, ReplicaRole.STANDBY}
STARTED_TIMEOUT_S = 60.0
TOLD_TIMEOUT_S = 120.0
THAWED_TIMEOUT_S = 30.0
LOOK_EVERY_S = 0.05
RETURNS = 20
"""Orders of the sale of which a unit comes back."""
RELAY_TITLE = b"RelayProcess"
"""A local Ray names its workers after their classes."""


async def warm_up_all(client: AsyncClient, outreach: Outreach) -> int:
    """The programme with its distributors, and the buyers whom they bring before the sale."""
    await open_programme(client, outreach)
    return await warm_up(client, outreach)


async def until_accounts(client: AsyncClient) -> None:
    """Until account shards have their pairs: they are started once stock is served."""
    deadline = time.monotonic() + STARTED_TIMEOUT_S
    while time.monotonic() < deadline:
        status = await client.cluster_status()
        roles = [{one.role for one in shard.replicas} for shard in status.shards if shard.accounts]
        if roles and all(found >= PAIR for found in roles):
            return
        await asyncio.sleep(LOOK_EVERY_S)
    raise RuntimeError(f"accounts are not served after {STARTED_TIMEOUT_S:.0f} s")


def accounts_pid(status: ClusterStatus) -> int:
    """Process id of the primary that keeps the programme."""
    for shard in status.shards:
        for replica in shard.replicas:
            if shard.accounts and replica.role is ReplicaRole.PRIMARY:
                return replica.pid
    raise RuntimeError("no account shard has a primary")


def relay_pid(serving: int) -> int:
    """Process id of the relay below a serving process."""
    for pid in descendants(serving):
        try:
            if RELAY_TITLE in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except OSError:
            continue  # It ended meanwhile.
    raise RuntimeError("there is no relay")


async def catch_up(client: AsyncClient, tally: Tally) -> CatchUp:
    """Wait until accounts have every fact of the sale, which is just over."""
    status = await client.cluster_status()
    ends = {shard.shard: shard.seq for shard in status.stock_shards}
    behind = sum(max(0, shard.seq - shard.relay_seq) for shard in status.stock_shards)
    lags_s = [lag.total_seconds() for one in status.stock_shards if (lag := one.relay_lag)]
    await until_told(client, ends)
    return CatchUp(
        confirmed=len(tally.orders),
        behind_entries=behind,
        lag_ms=round(max(lags_s, default=0.0) * 1000, 1),
        took_s=round(time.perf_counter() - tally.ended_at, 2),
    )


async def until_told(client: AsyncClient, ends: dict[int, int] | None = None) -> None:
    """Until accounts have all facts of the stock shards' entries up to these; of all now."""
    deadline = time.monotonic() + TOLD_TIMEOUT_S
    while time.monotonic() < deadline:
        shards = (await client.cluster_status()).stock_shards
        wanted = ends or {shard.shard: shard.seq for shard in shards}
        if all(shard.relay_seq >= wanted[shard.shard] for shard in shards):
            return
        await asyncio.sleep(LOOK_EVERY_S)
    raise RuntimeError(f"accounts have not learnt of all orders after {TOLD_TIMEOUT_S:.0f} s")


async def between(
    client: AsyncClient, outreach: Outreach, tally: Tally, caught_up: CatchUp
) -> CommissionBooks:
    """From the sale to the teams: what was earned is paid out, some orders come back, the rates
    change. Answers the books, with the sale's orders in them."""
    (version,) = outreach.rates
    books = CommissionBooks(outreach=outreach, catch_up=caught_up, earnings=[])
    books.earnings = [Earning(order, version, True) for order in tally.orders]
    await _until_thawed(client, books)
    first, books.paid_out_minor = await _pay_out(client, outreach)
    orders = await _send_back(client, outreach, tally, first)
    books.earnings = [Earning(order, version, True) for order in orders]
    await put_rates(client, outreach, GROUP_RATES)
    return books


async def _until_thawed(client: AsyncClient, books: CommissionBooks) -> None:
    """Until all that is not held is available, or time is up: then the books will say what."""
    deadline, frozen_minor = time.monotonic() + THAWED_TIMEOUT_S, books.frozen_minor()
    while time.monotonic() < deadline:
        sums = (await client.get_rates()).sums
        if sums is not None and sums.frozen_minor == frozen_minor:
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def _pay_out(client: AsyncClient, outreach: Outreach) -> tuple[str, int]:
    """Of the three who have most, the first is paid all, half of the second's fails to be paid, and
    the third asks for too much. Answers the first, and what it was paid."""
    found: list[CommissionAccount] = []

    async def read(name: str) -> None:
        account = (await client.get_account(name)).account
        if account is not None:
            found.append(account)

    await each(outreach.distributors, read)
    found.sort(key=lambda one: (-one.withdrawable_minor, one.distributor_id))
    first, second, third = found[:3]
    for account, part, act in (
        (first, 1, WithdrawalAct.REPORT_PAID),
        (second, 2, WithdrawalAct.REPORT_FAILED),
    ):
        asked = await client.request_withdrawal(
            account.distributor_id,
            max(1, account.withdrawable_minor // part),
            request_id=f"pay-{account.distributor_id}",
        )
        asked.raise_for_status()
        if asked.withdrawal is None:
            raise RuntimeError(f"no withdrawal of {account.distributor_id}")
        for step in (WithdrawalAct.APPROVE, act):
            reviewed = await client.review_withdrawal(
                asked.withdrawal.withdrawal_id, step, reason="demo"
            )
            reviewed.raise_for_status()
    refused = await client.request_withdrawal(
        third.distributor_id, third.withdrawable_minor + 1, request_id="too-much"
    )
    if refused.status is not Status.EXCEEDS_AVAILABLE:
        raise RuntimeError(f"{third.distributor_id} asked for too much: {refused.status}")
    return first.distributor_id, first.withdrawable_minor


async def _send_back(
    client: AsyncClient, outreach: Outreach, tally: Tally, paid_out: str
) -> list[Order]:
    """A unit of some orders comes back, of pairs above all and of one whose commission was paid out
    already. Answers all orders as they are then."""
    orders = list(tally.orders)
    by_paid = [n for n, one in enumerate(orders) if outreach.referrer(one.buyer_id) == paid_out]
    pairs = [n for n, one in enumerate(orders) if one.quantity > 1]
    for number in sorted({*by_paid[:1], *pairs[:RETURNS]}):
        order = orders[number]
        answer = await client.return_units(
            order.reservation_id, quantity=1, request_id=f"return-{order.buyer_id}"
        )
        answer.raise_for_status()
        orders[number] = order._replace(returned_quantity=1)
        tally.confirmed[order.campaign_id, order.sku_id] -= 1
    return orders


async def close(
    client: AsyncClient,
    books: CommissionBooks,
    tally: Tally,
    teams: GroupBooks,
    *,
    lines: Sequence[Line],
    database_url: str,
) -> None:
    """Read the ledger and the funnel, and hold them to all orders. Everything has settled."""
    version = max(books.outreach.rates)
    books.earnings += [Earning(order, version, False) for order in teams.orders]
    for (campaign_id, carried), count in tally.reserved_by.items():
        books.told[campaign_id, carried.share_code, carried.channel] += count
    for seat in teams.tally.seats:
        by = seat.shopper.attribution
        if by is not None:
            books.told[CAMPAIGN_ID, by.share_code, by.channel] += 1
    books.undecided = sum(
        statuses[name]
        for statuses in (tally.statuses, teams.tally.statuses)
        for name in ("RETRY", "UNKNOWN")
    )
    await audit(client, books, dict.fromkeys((*(one.campaign_id for one in lines), CAMPAIGN_ID)))
    books.judge_funnel(await asyncio.to_thread(_count, database_url))


def _count(database_url: str) -> dict[Key, list[int]]:
    dump = SqlDump(database_url)
    try:
        with dump.open() as view:
            return count_rows(view)
    finally:
        dump.close()
