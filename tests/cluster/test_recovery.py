"""A journal's store is wiped under a live service: it halts and says so, and the database makes it
anew up to where the database was.

Each test has a service and stores of its own, since it loses them.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from stockray import AsyncClient, ClusterHealth, ReplicaState, Status, StockrayError
from stockray.testing import LocalClusterError

from actors.core.identity import request_key, slot_of
from persistence.redis_link import RedisLink
from server.children import ServeChild
from server.sale import CALLER
from server.settings import load
from server.verify import Ack
from server.verifying import verify_stores
from tests.cluster.test_faults import process_named
from tests.helpers.sale import UNDECIDED, BackgroundSale
from tests.helpers.stack import FIRST_KIND, SHARDS, Stack, running_stack, stockray, until

ALL_SHARDS = SHARDS + 1
"""With that of accounts."""


@pytest.fixture(params=FIRST_KIND)
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with running_stack(request.param) as stack:
        yield stack


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[AsyncClient]:
    async with stack.client() as client:
        await stack.pairs(client)
        yield client


def wipe(stack: Stack, shard: int | None = None) -> None:
    """Lose the journal's store as a whole, snapshots too, or one shard's journal."""
    if stack.settings.journal:
        link = RedisLink(stack.settings.journal, timeout_ms=1_000)
        if shard is None:
            link.call("FLUSHALL")
        else:
            for name in ("meta", "log", "positions"):
                link.call("DEL", f"stockray:{{{shard}}}:{name}")
        link.close()
        return
    journal = stack.settings.data_dir / "journal"
    for path in journal.glob("*" if shard is None else f"shard-{shard:04d}*"):
        path.unlink()
    if shard is None:
        shutil.rmtree(stack.settings.data_dir / "snapshots", ignore_errors=True)


async def sold(stack: Stack, client: AsyncClient, name: str) -> BackgroundSale:
    """A sale that is over, with all of it in SQL."""
    async with BackgroundSale(stack, client, name) as sale:
        await sale.goes_on()
    await stack.settled(client)
    return sale


async def halted(client: AsyncClient, shards: set[int]) -> None:
    def holds(status: Any) -> bool:
        return shards == {
            shard.shard
            for shard in status.shards
            if all(replica.state is ReplicaState.HALTED for replica in shard.replicas)
        }

    status = await until(client, holds, f"shards {shards} to halt")
    assert status.health is ClusterHealth.FAILED
    assert sum("is halted" in warning for warning in status.warnings) == 2 * len(shards)


async def refused_everything(stack: Stack, campaigns: list[str]) -> None:
    """Nothing is acknowledged, and callers are told to come again."""
    async with AsyncClient(stack.listen, timeout_ms=2_000, rpc_timeout_ms=1_000) as client:
        for campaign_id in campaigns:
            sku_id = f"{campaign_id}-plenty"
            told = await asyncio.gather(
                client.grab(campaign_id, sku_id, buyer_id="late", quantity=1, request_id="late:1"),
                return_exceptions=True,
            )
            for answer in told:
                undecided = not isinstance(answer, BaseException) and answer.status in UNDECIDED
                assert undecided or getattr(answer, "retriable", False), answer
            with pytest.raises(StockrayError) as caught:
                await client.get_stock(sku_id, campaign_id=campaign_id)
            assert caught.value.retriable


def recovered(stack: Stack) -> dict[str, Any]:
    made = stack.command("recover", "--from-sql", "--yes", "-o", "json")
    assert made.returncode == 0, made.stderr
    report: dict[str, Any] = json.loads(made.stdout)
    assert report["verified"] is True
    assert report["differences"] == []
    return report


async def test_a_store_that_is_wiped_halts_the_service_and_is_made_anew_from_sql(
    stack: Stack, client: AsyncClient
) -> None:
    assert (await client.freeze("marked", reason="a test")).ok
    sale = await sold(stack, client, "wiped")
    kept, acks = dict(sale.winners), list(stack.acks)
    # From now on the database stays behind, so that something is lost.
    os.kill(process_named(stack, "ProjectorProcess"), signal.SIGSTOP)
    last = await client.cluster_status()
    assert [gateway.front for gateway in last.gateways] == ["nghttp2"]
    late = await bought(client, sale.campaigns[0])
    wipe(stack)
    await halted(client, set(range(ALL_SHARDS)))
    await refused_everything(stack, sale.campaigns)
    shown = stockray("status", "--address", stack.listen)
    assert (shown.returncode, "is halted" in shown.stderr) == (1, True)
    assert shown.stderr.count("the shard sells nothing") == SHARDS
    refused = stack.command("recover", "--from-sql", "--yes")
    assert (refused.returncode, "Stop the service first" in refused.stderr) == (1, True)
    await stack.aio.kill_all(stores=False)
    with pytest.raises(LocalClusterError, match=r"exit code 1:[\s\S]*stockray recover"):
        stack.ensure_running()
    examined = stack.command("doctor")
    assert (examined.returncode, "stockray recover --from-sql" in examined.stdout) == (1, True)
    looked = stack.command("recover", "--from-sql", "--dry-run", "-o", "json")
    assert looked.returncode == 0, looked.stderr
    report = recovered(stack)
    assert [s["journal"] for s in report["shards"]] == ["gone"] * ALL_SHARDS
    assert report["shards"] == json.loads(looked.stdout)["shards"]
    for shard in report["shards"]:
        # Marks of the relay move for a moment longer.
        behind = last.shards[shard["shard"]].seq - shard["recovered_to_seq"]
        assert behind == 0 or (shard["shard"] >= SHARDS and behind > 0)
        assert shard["missing_from"]
    assert list(stack.settings.data_dir.glob("recovery-*.json"))
    again = stack.command("recover", "--from-sql", "--yes")
    assert again.returncode == 1
    assert "nothing is lost" in again.stderr

    stack.ensure_running()
    stack.acks[:] = acks
    async with stack.client() as after:
        first = await after.reserve("anything", buyer_id="marked")
        assert first.status is Status.BUYER_FROZEN, "who is frozen is known before the first call"
        await stack.pairs(after)
        await stack.check(after)
        for request_id, (campaign_id, reservation_id) in list(kept.items())[:20]:
            told = await sale_answer(after, campaign_id, request_id)
            assert told == reservation_id
        # What was lost is asked for again with its id, and gets its old reservation id.
        assert await bought(after, sale.campaigns[0]) == late
        async with BackgroundSale(stack, after, "afterwards") as next_sale:
            await next_sale.goes_on()
        await next_sale.check()
        await stack.check(after)
    assert await stack.aio.stop() == 0
    stack.check_stopped()


async def bought(client: AsyncClient, campaign_id: str) -> str:
    """One more unit: the reservation's id."""
    sku_id = f"{campaign_id}-plenty"
    answer = await client.grab(
        campaign_id, sku_id, buyer_id="after", quantity=1, request_id=f"after:{campaign_id}"
    )
    assert answer.status is Status.RESERVED
    return answer.reservation_id


async def sale_answer(client: AsyncClient, campaign_id: str, request_id: str) -> str:
    """The reservation that a request is answered with, asked again."""
    number = int(request_id.rpartition(":")[2])
    sku_id = f"{campaign_id}-{'few' if number % 3 == 0 else 'plenty'}"
    answer = await client.grab(
        campaign_id, sku_id, buyer_id=f"buyer-{number}", quantity=1, request_id=request_id
    )
    return answer.reservation_id


@pytest.mark.extended
async def test_one_lost_journal_halts_its_shard_alone_and_the_others_lose_nothing(
    stack: Stack, client: AsyncClient
) -> None:
    sale = await sold(stack, client, "half")
    projector = process_named(stack, "ProjectorProcess")
    os.kill(projector, signal.SIGSTOP)
    for campaign_id in sale.campaigns:
        await bought(client, campaign_id)
    wipe(stack, 0)
    await halted(client, {0})
    goes_on = await client.grab(
        sale.campaigns[1],
        f"{sale.campaigns[1]}-plenty",
        buyer_id="later",
        quantity=1,
        request_id="later:1",
    )
    assert goes_on.status is Status.RESERVED
    await refused_everything(stack, sale.campaigns[:1])
    os.kill(projector, signal.SIGCONT)
    await stack.aio.stop()
    report = recovered(stack)
    assert [shard["journal"] for shard in report["shards"]] == ["gone", "sound", "sound"]
    assert [shard["nothing_missing"] for shard in report["shards"][:SHARDS]] == [False, True]
    stack.ensure_running()
    async with stack.client() as after:
        await stack.pairs(after)
        await stack.check(after)
        kept = await after.get_reservation(goes_on.reservation_id)
        assert kept.reservation is not None


@pytest.mark.extended
async def test_a_backup_of_a_live_sale_is_restored_with_every_answer_given_before_it(
    stack: Stack, client: AsyncClient, tmp_path: Path
) -> None:
    """A backup that is killed half-way is none; one that is not is taken while the sale goes on."""
    async with BackgroundSale(stack, client, "backed") as sale:
        await sale.goes_on()
        killed = await asyncio.to_thread(_killed_backup, stack, tmp_path / "killed")
        winners = dict(sale.winners)
        taken = await asyncio.to_thread(
            stack.command, "backup", str(tmp_path / "copy"), "-o", "json"
        )
        await sale.goes_on()
    assert killed != 0
    assert taken.returncode == 0, taken.stderr
    manifest = json.loads(taken.stdout)
    assert "slots_of" not in manifest
    await sale.check()
    await stack.check(client)

    place = ("--data-dir", str(tmp_path / "restored"))
    refused = stockray("restore", str(tmp_path / "killed"), *place)
    assert (refused.returncode, "did not come to its end" in refused.stderr) == (1, True)
    restored = stockray("restore", str(tmp_path / "copy"), *place, "-o", "json")
    assert restored.returncode == 0, restored.stderr
    assert json.loads(restored.stdout)["verified"] is True
    again = stockray("restore", str(tmp_path / "copy"), *place)
    assert (again.returncode, "holds a cluster" in again.stderr) == (1, True)
    settings = load({"data_dir": tmp_path / "restored"}, environment={}).settings
    acks = [
        Ack(slot_of(campaign_id), request_key(CALLER, request_id), True, request_id)
        for request_id, (campaign_id, _) in winners.items()
    ]
    report = verify_stores(settings, acks=acks)
    assert report.ok, report.as_data()["invariants"]
    sale_goes_on = ["--data-dir", str(settings.data_dir), "--listen", "127.0.0.1:0"]
    with ServeChild(sale_goes_on, log=tmp_path / "serve.log") as child:
        child.wait_ready()
        async with AsyncClient(child.listen, timeout_ms=30_000) as other:
            request_id, (campaign_id, reservation_id) = next(iter(winners.items()))
            assert await sale_answer(other, campaign_id, request_id) == reservation_id
            assert await bought(other, campaign_id)
        assert child.terminate() == 0


def _killed_backup(stack: Stack, place: Path) -> int:
    """A backup that is killed when it has begun to copy tables; its exit code."""
    command = [sys.executable, "-m", "stockray.cli", "backup", str(place), *stack.flags]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while not list(place.glob("table-*")) and child.poll() is None:
            assert time.monotonic() < deadline, "the backup did not begin"
            time.sleep(0.001)
        child.kill()
        return child.wait()
