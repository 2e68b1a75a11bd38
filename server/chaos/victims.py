"""Whom a fault hits: processes by their part in the cluster, and what is done to them by signals.

A process id is only ever used together with the moment its process began: an id that went to
another process meanwhile is left alone.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

from stockray import AsyncClient, ClusterStatus, ReplicaRole, ReplicaState, StockrayError

from actors.hosting import process_identity
from server.chaos.plan import Fault
from server.chaos.stage import Stage
from server.children import descendants
from server.live import replica_claims

STATUS_TIMEOUT_S = 20.0
STATUS_CALL_MS = 3_000
ASK_EVERY_S = 0.2
LAG_MAX = 100
STOPPED_S, RUNNING_S = 0.09, 0.01
"""A slow process runs for a tenth of the time."""
PROJECTOR_TITLE, RELAY_TITLE = "ProjectorProcess", "RelayProcess"


class Impossible(Exception):
    """A fault cannot be carried out on this machine. Says why."""


class NoVictim(Exception):
    """The part that a fault is meant for was not found: an error of the run."""


class Victim(NamedTuple):
    """Processes that are hit together."""

    name: str
    identities: tuple[str, ...]
    """As `actors.hosting.process_identity` gives them; the first is the one that is named."""
    shard: int | None

    @property
    def pid(self) -> int:
        """Of the first."""
        return int(self.identities[0].split(":")[1])

    @property
    def target(self) -> str:
        """For the report."""
        others = len(self.identities) - 1
        return f"{self.name} pid {self.pid}" + (f" and {others} more" if others else "")

    @classmethod
    def of(cls, name: str, pids: Iterable[int], shard: int | None = None) -> Self:
        """Those of the processes that exist. NoVictim if none does."""
        identities = tuple(found for pid in pids if (found := process_identity(pid)))
        if not identities:
            raise NoVictim(f"{name} has no process")
        return cls(name, identities, shard)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all that still are who they were."""
        for identity in self.identities:
            pid = int(identity.split(":")[1])
            if process_identity(pid) == identity:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue

    async def hold(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT so much later."""
        self.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.send(signal.SIGCONT)

    async def slow(self, seconds: float) -> None:
        """Let it run for a tenth of the time only."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.hold(STOPPED_S)
            await asyncio.sleep(RUNNING_S)


class Finder:
    """Finds victims by asking the service, as an operator would."""

    def __init__(self, stage: Stage, client: AsyncClient) -> None:
        self._stage = stage
        self._client = client

    async def victim(self, part: str, fault: Fault) -> Victim:
        """The processes of a part: primary, standby, account (the primary of an account shard),
        gateway, projector, relay, raylet, gcs, head, journal or database. NoVictim."""
        stage = self._stage
        if part in ("primary", "standby", "account", "raylet"):
            return await self._of_shard(part, fault.shard or 0)
        if part == "gateway":
            status = await self.status()
            return Victim.of("gateway-00", [status.gateways[0].pid])
        if part == "projector":
            return Victim.of("projector-00", named(PROJECTOR_TITLE, stage.roots()))
        if part == "relay":
            return Victim.of("relay", named(RELAY_TITLE, stage.roots()))
        if part == "gcs":
            return Victim.of("gcs", [stage.head.gcs_pid])
        if part == "head":
            return Victim.of("head", descendants(stage.head.pid))
        server = stage.redis if part == "journal" else stage.mariadb
        if server is None:
            raise NoVictim(f"there is no {part} server on this stage")
        return Victim.of(part, [server.pid])

    async def status(self) -> ClusterStatus:
        """The cluster's status; asked again while nobody answers. NoVictim after 20 s."""
        deadline = time.monotonic() + STATUS_TIMEOUT_S
        while True:
            try:
                return await self._client.cluster_status(timeout_ms=STATUS_CALL_MS)
            except StockrayError as error:
                if time.monotonic() > deadline:
                    raise NoVictim(f"no status after {STATUS_TIMEOUT_S:.0f} s: {error}") from error
                await asyncio.sleep(ASK_EVERY_S)

    async def until_whole(self, timeout_s: float) -> str:
        """Wait until every shard has its pair and every gateway answers. '' or what is missing."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                lacking = lacks(await self._client.cluster_status(timeout_ms=STATUS_CALL_MS))
            except StockrayError as error:
                lacking = f"no status: {error}"
            if not lacking or time.monotonic() > deadline:
                return lacking
            await asyncio.sleep(ASK_EVERY_S)

    async def ask_for_digests(self) -> None:
        """Have every replica fold all that it holds into a digest. Whether it answers is not asked:
        it may be hit."""
        with contextlib.suppress(StockrayError, TimeoutError):
            async with asyncio.timeout(STATUS_CALL_MS / 1000):
                await replica_claims(self._client)

    async def _of_shard(self, part: str, number: int) -> Victim:
        role = ReplicaRole.STANDBY if part == "standby" else ReplicaRole.PRIMARY
        deadline = time.monotonic() + STATUS_TIMEOUT_S
        while True:
            status = await self.status()
            shards = [one for one in status.shards if one.accounts is (part == "account")]
            shard = shards[number % len(shards)]
            found = [r for r in shard.replicas if r.role is role]
            if found:
                break
            if time.monotonic() > deadline:
                raise NoVictim(f"shard {shard.shard} has no {role.name.lower()}")
            await asyncio.sleep(ASK_EVERY_S)
        if part != "raylet":
            return Victim.of(found[0].replica_id, [found[0].pid], shard.shard)
        node = self._stage.node_of(found[0].pid)
        if node is None:
            raise NoVictim(f"{found[0].replica_id} runs on no node of ours")
        return Victim.of(node.place.name, [node.raylet_pid, *descendants(node.raylet_pid)])


def lacks(status: ClusterStatus) -> str:
    """What a cluster lacks to be whole; '' if nothing."""
    for gateway in status.gateways:
        if not gateway.ready:
            return f"gateway {gateway.pid} is not ready"
    for shard in status.shards:
        roles = sorted(replica.role.name for replica in shard.replicas)
        if roles != ["PRIMARY", "STANDBY"]:
            return f"shard {shard.shard} is {' and '.join(roles)}"
        for replica in shard.replicas:
            if replica.state is not ReplicaState.READY:
                return f"{replica.replica_id} is {replica.state.name}"
            if replica.lag_count >= LAG_MAX:
                return f"{replica.replica_id} is {replica.lag_count} entries behind"
    return ""


def named(word: str, roots: Iterable[int]) -> list[int]:
    """Processes below any of the roots whose title has the word."""
    found = []
    for root in roots:
        for pid in descendants(root):
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0", 1)[0]
            except OSError:
                continue
            if word.encode() in title:
                found.append(pid)
    return found
