"""Risk through a whole cluster: failures on two shards freeze, and every gateway knows."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from stockray import (
    AsyncClient,
    FreezeCause,
    PaymentOutcome,
    RefundOutcome,
    ReplicaRole,
    Sku,
    Status,
)

from tests.helpers.stack import SHARDS, Stack, on_shard, pid_of, running_stack, within

GATEWAYS = 2
CONNECTIONS = 16
"""Each by itself: the kernel gives them to either gateway."""


@pytest.fixture(scope="module")
def guarded() -> Iterator[Stack]:
    with running_stack("sqlite", {"gateways": GATEWAYS}) as stack:
        yield stack


async def hold(client: AsyncClient, sku_id: str, buyer_id: str, mark: str) -> str:
    """A unit of a SKU, held."""
    held = await client.reserve(sku_id, buyer_id=buyer_id, request_id=f"{buyer_id}:{mark}")
    assert held.ok, held
    return held.reservation_id


async def stock(client: AsyncClient) -> list[str]:
    """SKUs, two on the first shard and one on the other."""
    skus = [on_shard(0, "risk-a"), on_shard(1, "risk-b"), on_shard(0, "risk-c")]
    for sku_id in skus:
        sku = Sku(sku_id=sku_id, list_price_minor=500, currency_code="CNY", buffer_bps=0)
        assert (await client.put_sku(sku)).ok
        received = await client.receive_stock(
            sku_id, quantity=50, request_id=f"doc-{sku_id}", reason="first delivery"
        )
        assert received.ok
    return skus


async def ask_everywhere(stack: Stack, sku_id: str, buyer_id: str) -> set[Status]:
    """What all gateways answer to a buyer who wants one."""
    answers = set()
    for number in range(CONNECTIONS):
        async with AsyncClient(stack.listen) as client:
            request_id = f"{buyer_id}:everywhere:{number}"
            held = await client.reserve(sku_id, buyer_id=buyer_id, request_id=request_id)
            answers.add(held.status)
    return answers


async def accounts_know(client: AsyncClient, sku_id: str) -> None:
    """Until account shards, which start last, have learned of a failure by the relay."""
    reservation_id = await hold(client, sku_id, "first", "first")
    await client.report_payment(
        reservation_id, payment_id="p-first", outcome=PaymentOutcome.FAILED, paid_minor=500
    )

    async def learned() -> bool:
        profile = (await client.get_profile("first")).profile
        return profile is not None and profile.failed_payment_count == 1

    assert await within(30, learned)


async def test_three_failures_on_two_shards_freeze_at_every_gateway(guarded: Stack) -> None:
    async with guarded.client() as client:
        skus = await stock(client)
        await accounts_know(client, skus[1])
        paid = await hold(client, skus[0], "thief", "paid")
        held = [await hold(client, sku_id, "thief", sku_id) for sku_id in skus]
        assert (await client.confirm(paid, payment_id="p-paid", paid_minor=500)).ok
        for number, reservation_id in enumerate(held):
            failed = await client.report_payment(
                reservation_id,
                payment_id=f"p-{number}",
                outcome=PaymentOutcome.FAILED,
                paid_minor=500,
            )
            assert failed.ok, failed
        began = time.monotonic()

        async def frozen() -> bool:
            more = await client.reserve(skus[0], buyer_id="thief", quantity=1_000)
            return more.status is Status.BUYER_FROZEN

        assert await within(20, frozen)
        print(f"frozen {time.monotonic() - began:.2f} s after the third failure")
        assert await within(20, lambda: all_refuse(guarded, skus[1], "thief"))
        print(f"at every gateway after {time.monotonic() - began:.2f} s")
        profile = (await client.get_profile("thief")).profile
        assert profile is not None
        assert (profile.frozen, profile.freeze_cause) == (True, FreezeCause.PAYMENT_FAILURES)
        assert (profile.failed_payment_count, profile.score) == (3, 70)
        # What is held already can be paid, returned and refunded.
        assert (await client.confirm(held[1], payment_id="p-late", paid_minor=500)).ok
        back = await client.return_units(paid, quantity=1)
        assert back.ok
        assert back.refund is not None
        refunded = await client.report_refund(
            back.refund.refund_id, outcome=RefundOutcome.SUCCEEDED
        )
        assert refunded.ok
        assert (await client.release(held[2])).ok
        # Others buy, and so does this one when an operator says so.
        await hold(client, skus[0], "honest", "one")
        assert (await client.unfreeze("thief", reason="the bank was down")).ok

        async def free() -> bool:
            return (await client.reserve(skus[0], buyer_id="thief", request_id="t:free")).ok

        assert await within(20, free)


async def all_refuse(stack: Stack, sku_id: str, buyer_id: str) -> bool:
    return await ask_everywhere(stack, sku_id, buyer_id) == {Status.BUYER_FROZEN}


async def test_a_freeze_outlives_the_account_shards_primary(guarded: Stack) -> None:
    async with guarded.client() as client:
        skus = await stock(client)
        assert (await client.freeze("marked", reason="a test")).ok
        assert await within(20, lambda: all_refuse(guarded, skus[0], "marked"))
        os.kill(pid_of(await client.cluster_status(), SHARDS, ReplicaRole.PRIMARY), signal.SIGKILL)
        assert await within(30, lambda: all_refuse(guarded, skus[1], "marked"))
        profile = (await client.get_profile("marked")).profile
        assert profile is not None
        assert profile.frozen
        assert (await client.unfreeze("marked", reason="a test")).ok

        async def free() -> bool:
            return (await client.reserve(skus[0], buyer_id="marked", request_id="m:free")).ok

        assert await within(30, free)
