"""What a fault does, by its kind. Each act undoes what it did before it returns, or raises.

A process dies or is held by a signal. What Ray does not start again (a node, a store, the global
control service) the act starts itself, when its time is over.
"""

import asyncio
import contextlib
import re
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from actors.nodes import RayNode
from persistence.tcp_proxy import Direction
from server.chaos.network import Cut
from server.chaos.operator import Operator, runs
from server.chaos.plan import Fault
from server.chaos.stage import HEAD, NODE_MANAGER_PORT, Stage
from server.chaos.victims import ASK_EVERY_S, Finder, Impossible, NoVictim, Victim
from server.children import alive

HOUR_S = 3_600
FILL_EVERY_S = 0.02
ROOM_BYTES = 100_000
"""What a limit of memory leaves: enough for a moment, not for a fault's time."""
ANYWHERE = "0.0.0.0/0"


class Done(NamedTuple):
    """What was done."""

    target: str
    begun_s: float
    ended_s: float
    """By the steady clock."""
    shard: int | None = None


class Scene(NamedTuple):
    """What acts work on."""

    stage: Stage
    finder: Finder
    operator: Operator


Act = Callable[[Scene, Fault], Awaitable[Done]]


async def carry_out(scene: Scene, fault: Fault) -> Done:
    """Do it. Impossible when this machine cannot; NoVictim when nobody was found."""
    if fault.kind.startswith("partition-"):
        return await _partition(scene, fault)
    if fault.kind in _BY_KIND:
        return await _BY_KIND[fault.kind](scene, fault)
    part, _, act = fault.kind.rpartition("-")
    if act == "kill":
        return await _KILLS.get(part, _kill)(scene, fault)
    victim = await scene.finder.victim(part, fault)
    begun = time.monotonic()
    await (victim.hold if act == "stop" else victim.slow)(fault.seconds)
    return Done(victim.target, begun, time.monotonic(), victim.shard)


def impossible(stage: Stage, kind: str) -> str:
    """Why a kind cannot be carried out on a stage; '' if it can."""
    if kind.startswith("clock-"):
        return stage.missing.get("clock", "")
    if kind == "disk-full-journal":
        return stage.missing.get("disk", "")
    if kind.startswith("partition-") and not kind.startswith("partition-journal"):
        return stage.missing.get("network", "")
    return ""


async def _kill(scene: Scene, fault: Fault) -> Done:
    victim = await scene.finder.victim(fault.kind.rpartition("-")[0], fault)
    return _killed(victim)


def _killed(victim: Victim) -> Done:
    begun = time.monotonic()
    victim.send(signal.SIGKILL)
    return Done(victim.target, begun, begun, victim.shard)


async def _kill_store(scene: Scene, fault: Fault) -> Done:
    part = fault.kind.rpartition("-")[0]
    server = scene.stage.redis if part == "journal" else scene.stage.mariadb
    if server is None:
        raise NoVictim(f"there is no {part} server on this stage")
    victim = await scene.finder.victim(part, fault)
    with scene.operator.hands_off(part):
        begun = time.monotonic()
        server.kill9()
        await asyncio.sleep(fault.seconds)
        await scene.operator.work(server.start)
    return Done(victim.target, begun, time.monotonic())


async def _kill_gcs(scene: Scene, fault: Fault) -> Done:
    victim = await scene.finder.victim("gcs", fault)
    done = _killed(victim)
    await asyncio.sleep(fault.seconds)
    await scene.operator.work(scene.stage.head.restart_gcs)
    return done._replace(ended_s=time.monotonic())


async def _kill_node(scene: Scene, fault: Fault) -> Done:
    """A whole node: raylet, workers, agents, and the global control service on the head."""
    if fault.kind == "head-kill":
        node = scene.stage.head
        victim = await scene.finder.victim("head", fault)
    else:
        victim = await scene.finder.victim("raylet", fault)
        node = _node_of(scene.stage, victim.pid)
    with scene.operator.hands_off(node.place.name):
        begun = time.monotonic()
        await scene.operator.work(lambda: scene.stage.end_node(node))
        await asyncio.sleep(fault.seconds)
        await scene.operator.work(lambda: scene.stage.start_node(node))
    return Done(f"{node.place.name}: {victim.target}", begun, time.monotonic())


async def _partition(scene: Scene, fault: Fault) -> Done:
    stage = scene.stage
    primary = await scene.finder.victim("primary", fault)
    if stage.network is None:
        return await _partition_by_proxy(scene, fault, primary)
    node = _node_of(stage, primary.pid)
    if node.place.name == HEAD:
        raise NoVictim(f"{primary.name} runs on the head, which has no namespace")
    cuts = cuts_of(stage, fault.kind, node)
    begun = time.monotonic()
    try:
        stage.network.cut(*cuts)
        await asyncio.sleep(fault.seconds)
    finally:
        stage.network.heal()
    return Done(f"{node.place.name} with {primary.target}", begun, time.monotonic())


async def _partition_by_proxy(scene: Scene, fault: Fault, primary: Victim) -> Done:
    """One primary from the journal, where there are no namespaces."""
    proxy = scene.stage.proxy
    if proxy is None:
        raise Impossible(scene.stage.missing.get("network", "there is nothing to cut"))
    begun = time.monotonic()
    try:
        proxy.stall(_direction(fault.kind), pid=primary.pid)
        await asyncio.sleep(fault.seconds)
    finally:
        proxy.pass_on()
    return Done(primary.target, begun, time.monotonic(), primary.shard)


def _direction(kind: str) -> Direction:
    """What is lost between a shard and the journal."""
    ends = {"requests": Direction.REQUESTS, "answers": Direction.ANSWERS}
    return ends.get(kind.rpartition("-")[2], Direction.BOTH)


def cuts_of(stage: Stage, kind: str, node: RayNode) -> list[Cut]:
    """The packets that a partition drops. `requests` are the node's, `answers` come to it."""
    assert stage.network is not None
    here, root = node.place.address, stage.network.root_address
    if kind == "partition-node":
        return [Cut(here, ANYWHERE), Cut(ANYWHERE, here)]
    ports = []
    if stage.redis is not None and kind.startswith(("partition-journal", "partition-both")):
        ports.append((0, stage.redis.port))
    if kind.startswith(("partition-gcs", "partition-both")):
        # The control service asks the node's raylet, too, whether it is alive.
        gcs_port = int(stage.head.gcs_address.rpartition(":")[2])
        ports += [(0, gcs_port), (NODE_MANAGER_PORT, 0)]
    requests = [Cut(here, root, source_port=own, target_port=far) for own, far in ports]
    answers = [Cut(root, here, source_port=far, target_port=own) for own, far in ports]
    if kind.endswith("-requests"):
        return requests
    return answers if kind.endswith("-answers") else requests + answers


async def _shift_clock(scene: Scene, fault: Fault) -> Done:
    clocks = scene.stage.clocks
    if clocks is None:
        raise Impossible(scene.stage.missing.get("clock", "no clock to shift"))
    part = "gateway" if fault.kind.endswith("-gateway") else "primary"
    victim = await scene.finder.victim(part, fault)
    begun = time.monotonic()
    clocks.shift(victim.pid, -HOUR_S if fault.kind == "clock-back" else HOUR_S)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        clocks.shift(victim.pid, 0)
    return Done(victim.target, begun, time.monotonic(), victim.shard)


async def _fill_disk(scene: Scene, fault: Fault) -> Done:
    """Redis ends itself when it cannot write: it is started again when there is room."""
    disk, server = scene.stage.disk, scene.stage.redis
    if disk is None or server is None:
        raise Impossible(scene.stage.missing.get("disk", "no disk to fill"))
    victim = await scene.finder.victim("journal", fault)
    with scene.operator.hands_off("journal"):
        begun = time.monotonic()
        try:
            while time.monotonic() < begun + fault.seconds:
                disk.fill()
                await asyncio.sleep(FILL_EVERY_S)
        finally:
            disk.clear()
        if not runs(server):
            await scene.operator.work(server.start)
    return Done(victim.target, begun, time.monotonic())


async def _limit_redis(scene: Scene, fault: Fault) -> Done:
    """Redis refuses what would take more memory, until the limit is lifted."""
    server = scene.stage.redis
    if server is None:
        raise NoVictim("there is no journal server on this stage")
    victim = await scene.finder.victim("journal", fault)
    begun = time.monotonic()
    with redis.Redis.from_url(
        server.socket_url, retry=Retry(NoBackoff(), 0), socket_timeout=5
    ) as admin:
        before = admin.config_get("maxmemory")["maxmemory"]
        admin.config_set("maxmemory", int(admin.info("memory")["used_memory"]) + ROOM_BYTES)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            admin.config_set("maxmemory", before)
    return Done(victim.target, begun, time.monotonic())


async def _limit_primary(scene: Scene, fault: Fault) -> Done:
    """No more address space than it has: the next allocation from the system fails. A small sale
    lives on what the process has, so the replicas are asked for something large meanwhile."""
    victim = await scene.finder.victim("primary", fault)
    before = resource.prlimit(victim.pid, resource.RLIMIT_AS)
    begun = time.monotonic()
    resource.prlimit(victim.pid, resource.RLIMIT_AS, (_address_space(victim.pid), before[1]))
    while time.monotonic() < begun + fault.seconds:
        await scene.finder.ask_for_digests()
        await asyncio.sleep(ASK_EVERY_S)
    if alive(victim.pid):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(victim.pid, resource.RLIMIT_AS, before)
    return Done(victim.target, begun, time.monotonic(), victim.shard)


def _address_space(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmSize:\s+(\d+) kB", status)
    if found is None:
        raise NoVictim(f"process {pid} has no memory: it is gone")
    return int(found.group(1)) * 1024


def _node_of(stage: Stage, pid: int) -> RayNode:
    node = stage.node_of(pid)
    if node is None:
        raise NoVictim(f"process {pid} runs on no node of ours")
    return node


_KILLS: dict[str, Act] = {
    "journal": _kill_store,
    "database": _kill_store,
    "gcs": _kill_gcs,
    "head": _kill_node,
    "raylet": _kill_node,
}
_BY_KIND: dict[str, Act] = {
    "clock-forward": _shift_clock,
    "clock-back": _shift_clock,
    "clock-forward-gateway": _shift_clock,
    "disk-full-journal": _fill_disk,
    "memory-limit-journal": _limit_redis,
    "memory-limit-primary": _limit_primary,
}
