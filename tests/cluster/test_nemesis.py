"""Some faults on a whole cluster of real processes, under a sale, and then the books.

`stockray chaos` does this at length; here it is short, with a kind of each sort: a kill, a cut, a
slow store, a shifted clock. Faults that this machine cannot do must say so.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stockray import AsyncClient, ReplicaRole

from actors.core.identity import request_key, slot_of
from persistence.private import PrivateMariaDB, PrivateRedis
from server.chaos.acts import impossible
from server.chaos.nemesis import Nemesis
from server.chaos.plan import ChaosOptions, Fault
from server.chaos.stage import Stage
from server.children import alive, descendants
from server.demo import until_settled
from server.live import replica_claims
from server.sale import CALLER
from server.verify import Ack
from server.verifying import verify_stores
from tests.helpers.sale import BackgroundSale
from tests.helpers.services import require, short_directory

FAULTS = (
    Fault("primary-kill", 1.0, 0.0, 0),
    Fault("partition-journal-answers", 5.0, 2.0, 1),
    Fault("journal-slow", 10.0, 1.5, None),
    Fault("clock-forward", 14.0, 2.0, 0),
    Fault("disk-full-journal", 18.0, 1.0, None),
)


@pytest.fixture
def stage() -> Iterator[Stage]:
    require(PrivateRedis.available(), "redis-server is not installed: run tools/services.sh")
    require(PrivateMariaDB.available(), "mariadbd is not installed: run tools/services.sh")
    with short_directory() as directory:
        options = ChaosOptions(seconds=30, seed=1, directory=directory)
        with Stage(options, print) as stage:
            family = [pid for root in stage.roots() for pid in (root, *descendants(root))]
            yield stage
        assert not [pid for pid in (*family, stage.serve.pid) if alive(pid)], "left behind"


@pytest.mark.extended
@pytest.mark.timeout(280)
async def test_faults_on_real_processes_lose_nothing_and_leave_nobody_behind(stage: Stage) -> None:
    books: Any = SimpleNamespace(kind="chaos", acks=[])
    async with AsyncClient(stage.address, timeout_ms=60_000, rpc_timeout_ms=5_000) as client:
        before = await client.cluster_status()
        async with BackgroundSale(books, client, "nemesis") as sale:
            nemesis = Nemesis(stage, FAULTS, print)
            await nemesis.run()
            await sale.goes_on()
        await sale.check()
        await until_settled(client)
        after = await client.cluster_status()
        claims = await replica_claims(client)
    assert nemesis.failed == []
    told = {span.kind for span in nemesis.spans} | {skip.kind for skip in nemesis.skipped}
    assert told == {fault.kind for fault in FAULTS}
    assert all(stage.missing.values())
    assert {s.reason for s in nemesis.skipped} <= set(stage.missing.values())
    for span in nemesis.spans:
        assert span.ended_s >= span.begun_s
        assert "pid" in span.target
    killed = next(span for span in nemesis.spans if span.kind == "primary-kill")
    old = next(r for r in before.shards[0].replicas if r.role is ReplicaRole.PRIMARY)
    assert killed.shard == 0
    assert killed.target == f"{old.replica_id} pid {old.pid}"
    assert after.shards[0].epoch > before.shards[0].epoch
    acks = [
        Ack(slot_of(key), request_key(CALLER, told.request_id), told.ok, told.request_id)
        for key, told in books.acks
    ]
    report = await asyncio.to_thread(verify_stores, stage.settings, claims=claims, acks=acks)
    assert report.ok, report.as_data()["invariants"]
    assert stage.drain()


def test_what_a_stage_lacks_is_skipped_with_its_reason(tmp_path: Path) -> None:
    stage = Stage(ChaosOptions(seconds=30, seed=1, directory=tmp_path), print)
    stage.missing = {"network": "no namespaces", "disk": "no mounts", "clock": "no compiler"}
    assert impossible(stage, "partition-gcs") == "no namespaces"
    assert impossible(stage, "partition-journal") == "", "a proxy does it"
    assert impossible(stage, "disk-full-journal") == "no mounts"
    assert impossible(stage, "clock-back") == "no compiler"
    assert impossible(stage, "primary-kill") == ""
    stage.close()
