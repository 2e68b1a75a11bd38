"""A replica's process: the shell with real stores, a real clock, and a way to end.

A plain class; `ray_actors.py` makes it an actor. Nothing here recovers or waits in the constructor,
and no method is a coroutine: one would turn the whole actor into an asyncio actor, in which a round
that waits keeps the next one waiting.
"""

import asyncio
import platform
import uuid
from concurrent.futures import Future
from typing import Any

import ray
import ray.util
import structlog

from actors.clock import WallClock
from actors.hosting import (
    Host,
    keep_collecting,
    kill_process,
    memory_bytes,
    process_identity,
    stop_collector,
)
from actors.lifeline import hold_lifeline, lifeline_path
from actors.limits import Readers
from actors.logs import configure_logs
from actors.road import Road
from actors.shard import Shard, Stores
from actors.specs import RELAY_READER, SINK_READER, ClusterSpec, Rounds, owned_by, replica_name
from actors.threads import JournalThread, SnapshotsThread
from persistence.open import open_journal, open_snapshots

log = structlog.get_logger()

ADDRESSES_TIMEOUT_S = 5.0
"""A listener takes milliseconds; a process that has none by then has other troubles."""


class ShardProcess:
    """One replica, hosted."""

    def __init__(self, spec: ClusterSpec, shard: int, replica: str) -> None:
        name = replica_name(shard, replica)
        configure_logs(spec.log_directory, name)
        self._host = Host(name)
        self._identity = process_identity()
        self._started_ms = WallClock().now_ms()
        node_id: Any = ray.get_runtime_context().get_node_id
        self._node_id = str(node_id())
        places = spec.places
        writer = open_journal(places.journal_url)
        reader = open_journal(places.journal_url)
        self._shard = Shard(
            shard=shard,
            token=f"{name}-{uuid.uuid4().hex}",
            owner_info=self._identity,
            stores=Stores(
                JournalThread(writer, shard),
                JournalThread(reader, shard),
                SnapshotsThread(open_snapshots(places.snapshots_url), shard),
            ),
            clock=WallClock(),
            limits=spec.limits,
            owned_slots=owned_by(shard, spec.slots_of),
            readers=Readers((SINK_READER,), (RELAY_READER,) if shard < spec.stock_shards else ()),
            kill_owner=kill_process,
        )
        self._addresses: Future[tuple[str, ...]] = Future()
        own_address: Any = ray.util.get_node_ip_address
        host = "" if spec.road.rounds is Rounds.RAY else own_address()
        stop_collector()
        self._host.start(lambda: _serve(self._shard, spec, host, self._addresses))

    def hello(self) -> tuple[str, str, tuple[str, ...]]:
        """(token, process identity, addresses of the road, best first)."""
        addresses = self._addresses.result(ADDRESSES_TIMEOUT_S)
        return self._shard.token, self._identity, addresses

    def round(self, payload: bytes) -> bytes:
        """A gateway's round; see `Shard.round`."""
        return self._host.call(self._shard.round(payload))

    def promote(self, seen_epoch: int, seen_seq: int) -> tuple[str, int, str]:
        """See `Shard.promote`."""
        status, epoch, owner = self._host.call(self._shard.promote(seen_epoch, seen_seq))
        return str(status), epoch, owner

    def status(self) -> dict[str, Any]:
        """See `Shard.status`."""
        return self._shard.status() | {
            "process": self._identity,
            "node": platform.node(),
            "node_id": self._node_id,
            "memory_bytes": memory_bytes(),
            "started_ms": self._started_ms,
        }

    def fingerprint(self, with_pools: bool) -> dict[str, Any]:
        """See `Shard.fingerprint`."""
        return self._host.call(self._shard.fingerprint(with_pools))

    def take_snapshot(self) -> dict[str, Any]:
        """See `Shard.take_snapshot`."""
        return self._host.call(self._shard.take_snapshot())._asdict()

    def settle(self) -> None:
        """See `Shard.settle`."""
        self._host.call(self._shard.settle())


async def _serve(
    shard: Shard, spec: ClusterSpec, host: str, addresses: Future[tuple[str, ...]]
) -> None:
    name = shard.token.rpartition("-")[0]
    road = Road(spec.road, name=name, token=shard.token, take_round=shard.take_round)
    found = await road.open(host)
    for address in found:
        kind, _, path = address.partition(":")
        if kind == "unix" and (trouble := hold_lifeline(lifeline_path(path))):
            log.info("no_lifeline", name=name, error=trouble)
    addresses.set_result(found)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(keep_collecting())
        await shard.run()
