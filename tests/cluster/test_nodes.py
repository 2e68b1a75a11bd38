"""A cluster of several Ray nodes: pairs stand apart, and their rounds cross by TCP with TLS.

The nodes are processes of this machine, so the service is told to use TCP everywhere.
"""

import asyncio
import json
import os
import shutil
import signal
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import ray.cluster_utils
from stockray import AsyncClient, ClusterStatus, ReplicaRole

from actors.certificates import SERVER_NAME, calling_context, make_certificate
from actors.cluster import RAY_ENVIRONMENT
from actors.road import HELLO, ROUND
from actors.specs import replica_name
from server.children import descendants
from tests.helpers.sale import BackgroundSale
from tests.helpers.stack import Stack, pid_of, running_stack
from wire.client import WireClient, WireError

WORKERS = 2
NODE: Any = {"object_store_memory": 80_000_000, "include_dashboard": False}
GAP_MAX_S = 5.0
SILENT_S = 20.0
"""Ray would take a node for dead after a minute of silence; no test may last so long."""


@pytest.fixture(scope="module")
def ray_nodes() -> Iterator[Any]:
    """A head that is kept free of work, and two nodes."""
    directory = tempfile.mkdtemp(prefix="sr-")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in RAY_ENVIRONMENT.items():
            patched.setenv(name, value)
        head = {"num_cpus": 0, "temp_dir": directory, **NODE}
        cluster: Any = ray.cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(WORKERS):
                cluster.add_node(num_cpus=2, **NODE)
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes(ray_nodes: Any) -> Iterator[Stack]:
    """A service on them."""
    with running_stack("sqlite-tcp", {"ray_address": ray_nodes.address}) as stack:
        yield stack


@pytest.fixture
async def client(nodes: Stack) -> AsyncIterator[AsyncClient]:
    async with nodes.client() as client:
        await nodes.pairs(client)
        yield client


def roads_of(stack: Stack) -> dict[str, str]:
    """Replica -> the address at which the gateway reaches it by now, without `ipv4:`."""
    events = [json.loads(line) for line in stack.log_of("gateway-00").splitlines()]
    return {
        event["name"]: event["peer"].removeprefix("ipv4:")
        for event in events
        if event["event"] == "road_taken"
    }


def node_of(pid: int) -> int:
    """The process id of the node that a process runs on."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def nodes_of(status: ClusterStatus) -> list[set[int]]:
    """For each shard, the process ids of its replicas' nodes."""
    return [{node_of(r.pid) for r in shard.replicas} for shard in status.shards]


async def once(
    stack: Stack, client: AsyncClient, found: Callable[[ClusterStatus], bool]
) -> ClusterStatus:
    """The status as soon as all pairs are whole and it is so. TimeoutError after a minute."""
    async with asyncio.timeout(60):
        while True:
            status = await stack.pairs(client)
            with suppress(FileNotFoundError):  # of a process that has just ended
                if found(status):
                    return status
            await asyncio.sleep(0.2)


async def ask(address: str, path: str, context: ssl.SSLContext | None) -> bytes:
    """One call by somebody who is not of the cluster."""
    host, _, port = address.rpartition(":")
    client = await WireClient.connect_tcp(host, int(port), tls=context, server_name=SERVER_NAME)
    try:
        return await client.call(path, b"")
    finally:
        client.close()


async def test_pairs_stand_on_two_nodes_and_rounds_cross_between_them(
    nodes: Stack, client: AsyncClient
) -> None:
    async with BackgroundSale(nodes, client, "nodes-sell") as sale:
        await sale.goes_on()
        status = await nodes.pairs(client)
    for shard in status.shards:
        assert len({node_of(replica.pid) for replica in shard.replicas}) == 2
    roads = roads_of(nodes)
    numbers = [shard.shard for shard in status.shards]
    assert roads.keys() == {replica_name(shard, name) for shard in numbers for name in "ab"}
    assert all(address.rpartition(":")[2].isdigit() for address in roads.values())
    assert "road_unreachable" not in nodes.log_of("gateway-00")
    await sale.check()
    await nodes.check(client)


async def test_a_primary_killed_on_another_node_is_replaced(
    nodes: Stack, client: AsyncClient
) -> None:
    async with BackgroundSale(nodes, client, "nodes-kill") as sale:
        before = await nodes.pairs(client)
        heir = pid_of(before, 0, ReplicaRole.STANDBY)
        old = roads_of(nodes)
        os.kill(pid_of(before, 0, ReplicaRole.PRIMARY), signal.SIGKILL)
        await sale.goes_on()
        after = await nodes.pairs(client)
        await sale.goes_on()
    assert pid_of(after, 0, ReplicaRole.PRIMARY) == heir
    assert max(sale.longest_gap_s.values()) < GAP_MAX_S
    fallen = next(r.replica_id for r in after.shards[0].replicas if r.role is ReplicaRole.STANDBY)
    async with asyncio.timeout(30):
        while roads_of(nodes)[fallen] == old[fallen]:  # noqa: ASYNC110 - a log has no events
            await asyncio.sleep(0.1)
    await sale.check()
    await nodes.check(client)


async def test_a_silent_node_is_left_for_the_other_one(
    nodes: Stack, client: AsyncClient, record_property: Callable[[str, float], None]
) -> None:
    """All processes of a node stop: nothing is closed, nobody says so, and sockets take bytes."""
    before = await nodes.pairs(client)
    gateway_node = node_of(before.gateways[0].pid)
    for shard in before.shards:
        if node_of(pid_of(before, shard.shard, ReplicaRole.PRIMARY)) == gateway_node:
            (await client.promote(shard.shard, seen_epoch=shard.epoch)).raise_for_status()
    before = await nodes.pairs(client)
    silent = node_of(pid_of(before, 0, ReplicaRole.PRIMARY))
    assert silent != gateway_node
    heirs = [pid_of(before, shard, ReplicaRole.STANDBY) for shard in (0, 1)]
    async with BackgroundSale(nodes, client, "nodes-silent") as sale:
        family = [silent, *descendants(silent)]
        stopped_at = time.monotonic()
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            await sale.goes_on()
            assert time.monotonic() - stopped_at < SILENT_S
        finally:
            for pid in family:
                # One that held the journal's write lock was ended by its heir.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        after = await nodes.pairs(client)
        await sale.goes_on()
    assert [pid_of(after, shard, ReplicaRole.PRIMARY) for shard in (0, 1)] == heirs
    gap_s = max(sale.longest_gap_s.values())
    record_property("silent_node_gap_s", gap_s)
    assert gap_s < GAP_MAX_S
    await sale.check()
    await nodes.check(client)


async def test_a_pair_that_shares_a_node_is_parted_when_another_one_is_there(
    nodes: Stack, client: AsyncClient, ray_nodes: Any
) -> None:
    """A node that died comes back under another id: Ray would leave everything where it is."""
    lost, left = ray_nodes.worker_nodes
    home = left.all_processes["raylet"][0].process.pid
    async with BackgroundSale(nodes, client, "nodes-part") as sale:
        ray_nodes.remove_node(lost, allow_graceful=False)
        await sale.goes_on()
        together = await once(
            nodes, client, lambda found: all(pair == {home} for pair in nodes_of(found))
        )
        ray_nodes.add_node(num_cpus=2, **NODE)
        parted = await once(nodes, client, lambda found: min(map(len, nodes_of(found))) == 2)
        await sale.goes_on()
    # Who sold went on selling: only standbys were moved.
    for shard in parted.shards:
        sold_by = pid_of(together, shard.shard, ReplicaRole.PRIMARY)
        assert pid_of(parted, shard.shard, ReplicaRole.PRIMARY) == sold_by
    await sale.check()
    await nodes.check(client)


@pytest.mark.parametrize("path", [HELLO, ROUND])
async def test_a_stranger_gets_no_word_in(nodes: Stack, client: AsyncClient, path: str) -> None:
    """Not with TLS and a certificate of its own, and not without TLS."""
    address = roads_of(nodes)["shard-0000-a"]
    with pytest.raises((WireError, OSError)):
        await ask(address, path, calling_context(make_certificate()))
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    trusting.set_alpn_protocols(["h2"])
    with pytest.raises((WireError, OSError)):
        await ask(address, path, trusting)
    with pytest.raises((WireError, OSError)):
        await ask(address, path, None)
    await nodes.check(client)


async def test_the_sale_goes_on_without_rays_head(
    nodes: Stack, client: AsyncClient, ray_nodes: Any
) -> None:
    """The last test of this file: nobody brings the head back. A status, which asks it, answers
    with what it knows, and keeps nobody waiting."""
    async with BackgroundSale(nodes, client, "nodes-headless") as sale:
        before = await nodes.pairs(client)
        ray_nodes.head_node.kill_gcs_server()
        await sale.goes_on()
        status = await client.cluster_status(timeout_ms=10_000)
        assert [shard.epoch for shard in status.shards] == [s.epoch for s in before.shards]
        heir = pid_of(before, 0, ReplicaRole.STANDBY)
        os.kill(pid_of(before, 0, ReplicaRole.PRIMARY), signal.SIGKILL)
        await sale.goes_on()
        status = await client.cluster_status(timeout_ms=10_000)
    assert pid_of(status, 0, ReplicaRole.PRIMARY) == heir
    assert max(sale.longest_gap_s.values()) < GAP_MAX_S
    await sale.check()
