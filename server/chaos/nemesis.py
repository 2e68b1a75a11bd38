"""Carries out the faults of a plan on a stage, one at a time, and writes down what was hit when.

Before each fault it waits, for a bounded time, until the cluster is whole: the gap of a fault is to
be the fault's own. What this machine cannot do is skipped with its reason; what it should have been
able to do and did not is an error of the run.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stockray import AsyncClient

from server.chaos.acts import Scene, carry_out, impossible
from server.chaos.operator import Operator, OperatorGaveUp, until
from server.chaos.plan import Fault
from server.chaos.stage import Stage
from server.chaos.victims import Finder, Impossible

WHOLE_TIMEOUT_S = 30.0
LATE_MAX_S = 10.0
CALL_TIMEOUT_MS = 5_000


class FaultSpan(NamedTuple):
    """A fault that was carried out; times by time.monotonic()."""

    kind: str
    target: str
    begun_s: float
    ended_s: float
    """When it was undone; for the kill of what Ray starts again, the moment of the kill."""
    shard: int | None
    """Whose owner was hit; None where all shards may notice."""


class Skipped(NamedTuple):
    """A fault that was not carried out, and counts as not run."""

    kind: str
    reason: str


class FailedFault(NamedTuple):
    """A fault that could not be carried out although it was thought possible."""

    kind: str
    reason: str


class Nemesis:
    """One run's faults. `run` once; the lists grow meanwhile."""

    def __init__(self, stage: Stage, faults: Sequence[Fault], say: Callable[[str], None]) -> None:
        self.spans: list[FaultSpan] = []
        self.skipped: list[Skipped] = []
        self.failed: list[FailedFault] = []
        self._stage = stage
        self._faults = faults
        self._say = say

    async def run(self) -> None:
        """Returns when the last fault is over and the cluster is whole again, or was waited for.
        A fault that is a little late begins late, and one that is more than LATE_MAX_S late is
        skipped, so that the plan is kept to. Cancelled, it undoes the fault that it is at."""
        begun = time.monotonic()
        operator = Operator(self._stage, self._say)
        caring = asyncio.create_task(operator.run())
        try:
            async with AsyncClient(
                self._stage.address, timeout_ms=CALL_TIMEOUT_MS, rpc_timeout_ms=CALL_TIMEOUT_MS
            ) as client:
                scene = Scene(self._stage, Finder(self._stage, client), operator)
                for fault in self._faults:
                    await until(begun + fault.begin_s)
                    await self._one(scene, fault, begun)
                await self._whole(scene, "the end")
        finally:
            caring.cancel()
            try:
                await caring
            except asyncio.CancelledError:
                pass
            except OperatorGaveUp as error:
                self.failed.append(FailedFault("operator", str(error)))

    async def _one(self, scene: Scene, fault: Fault, begun: float) -> None:
        reason = impossible(self._stage, fault.kind)
        if not reason:
            await self._whole(scene, fault.kind)
            late_s = time.monotonic() - begun - fault.begin_s
            if late_s > LATE_MAX_S:
                reason = f"the faults before it took {late_s:.0f} s longer than planned"
        if reason:
            self._skip(fault.kind, reason)
            return
        self._say(f"{fault.kind} begins")
        try:
            done = await carry_out(scene, fault)
        except Impossible as error:
            self._skip(fault.kind, str(error))
        except Exception as error:  # noqa: BLE001 - a fault that fails must not end the run
            self._say(f"{fault.kind} failed: {error!r}")
            self.failed.append(FailedFault(fault.kind, f"{type(error).__name__}: {error}"))
        else:
            self.spans.append(FaultSpan(fault.kind, *done))
            self._say(f"{fault.kind} is over: {done.target}")

    def _skip(self, kind: str, reason: str) -> None:
        self._say(f"{kind} skipped: {reason}")
        self.skipped.append(Skipped(kind, reason))

    async def _whole(self, scene: Scene, before: str) -> None:
        lacking = await scene.finder.until_whole(WHOLE_TIMEOUT_S)
        if lacking:
            told = f"not whole before {before}: {lacking}"
            self._say(told)
            self._stage.warnings.append(told)
