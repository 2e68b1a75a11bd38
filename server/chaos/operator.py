"""The operator of a run: starts again what ended and what neither Ray nor the service starts.

As a supervisor would (systemd, Kubernetes): a Ray node whose raylet ended, a store, `stockray
serve`. What a fault holds down on purpose is left alone until the fault lets go. Every start that
no fault had asked for is told, since somebody would have to do it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

from actors.nodes import NodeFailed
from persistence.private import PrivateMariaDB, PrivateRedis, ServerFailedError
from server.chaos.stage import Stage
from server.children import ChildFailed

LOOK_EVERY_S = 0.3
STARTS_MAX = 50
"""Of one run; a part that ends at once again and again is an error of the run."""
FAILURES_MAX = 3
"""Of one part, in a row."""
SERVE = "serve"


class OperatorGaveUp(Exception):
    """A part could not be started again. Says which, and why."""


class Operator:
    """Looks after the stage until it is cancelled."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._say = say
        self._held: set[str] = set()
        self._starts = 0
        self._failures: dict[str, int] = {}

    @contextlib.contextmanager
    def hands_off(self, part: str) -> Iterator[None]:
        """Inside, `part` (a node's name, journal, database) may be dead; afterwards it is started
        again if it still is."""
        self._held.add(part)
        try:
            yield
        finally:
            self._held.discard(part)

    async def run(self) -> None:
        """For ever. OperatorGaveUp."""
        while True:
            await self.mend()
            await asyncio.sleep(LOOK_EVERY_S)

    async def mend(self) -> None:
        """Start what has ended, once. OperatorGaveUp."""
        for part, start in self._ended():
            if part in self._held:
                continue
            if self._starts >= STARTS_MAX:
                raise OperatorGaveUp(f"{part} ended, after {STARTS_MAX} starts in this run")
            self._starts += 1
            self._failures.setdefault(part, 0)
            self._say(f"the operator starts {part} again")
            self._stage.warnings.append(f"the operator had to start {part} again")
            try:
                await self.work(start)
            except (NodeFailed, ServerFailedError, ChildFailed) as error:
                self._failures[part] += 1
                self._say(f"{part} did not start: {error}")
                if self._failures[part] >= FAILURES_MAX:
                    raise OperatorGaveUp(f"{part} does not start: {error}") from error
            else:
                self._failures[part] = 0

    async def work(self, start: Callable[[], None]) -> None:
        """Do what takes its time in the thread that started everything."""
        await asyncio.wrap_future(self._stage.keep(start))

    def _ended(self) -> list[tuple[str, Callable[[], None]]]:
        stage = self._stage
        ended: list[tuple[str, Callable[[], None]]] = []
        if stage.redis is not None and not runs(stage.redis):
            ended.append(("journal", stage.redis.start))
        if stage.mariadb is not None and not runs(stage.mariadb):
            ended.append(("database", stage.mariadb.start))
        for node in stage.nodes:
            if not node.running:
                ended.append((node.place.name, partial(stage.start_node, node)))
        if stage.serve.exit_code is not None and "head" not in self._held:
            ended.append((SERVE, stage.start_serve))
        return ended


def runs(server: PrivateRedis | PrivateMariaDB) -> bool:
    """Whether a store's process runs."""
    try:
        return server.pid > 0
    except ServerFailedError:
        return False


async def until(moment: float) -> None:
    """Until a moment of the steady clock."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
