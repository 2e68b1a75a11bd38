"""A projector's process: one `Projector` for each of several shards, beside one another."""

import asyncio
import os
from typing import Any

import structlog

from actors.clock import WallClock
from actors.hosting import Host, process_identity
from actors.logs import configure_logs
from actors.projector import Projector
from actors.sink_thread import SinkThread
from actors.specs import RELAY_READER, SINK_READER, ClusterSpec, projector_name
from actors.threads import JournalThread
from persistence.errors import StorageError
from persistence.open import open_journal, open_sink

log = structlog.get_logger()
NICENESS = 10


class ProjectorProcess:
    """Write-behind for some shards, hosted. Stateless: a restart goes on at the stored position."""

    def __init__(self, spec: ClusterSpec, index: int, shards: tuple[int, ...]) -> None:
        name = projector_name(index)
        configure_logs(spec.log_directory, name)
        # Write-behind has time; whoever sells goes first. The thread that works yields even more.
        os.nice(NICENESS)
        self.spec = spec
        self._host = Host(name)
        self.projectors: list[Projector] = []
        self.shards = shards
        self.trouble = "starting"
        self.thread = SinkThread()
        self._host.start(lambda: _serve(self))

    def hello(self) -> str:
        """The process identity."""
        return process_identity()

    def drain(self) -> None:
        """No more sales will come: catch up, at the process's own priority and without pauses."""
        self._host.call(_drain(self))

    def status(self) -> list[dict[str, Any]]:
        """Position, lag and trouble of each shard."""
        return [
            {
                "shard": projector.shard,
                "position": projector.position,
                "lag_entries": projector.lag_entries,
                "trouble": projector.trouble or self.trouble,
            }
            for projector in self.projectors
        ] or [
            {"shard": shard, "position": 0, "lag_entries": -1, "trouble": self.trouble}
            for shard in self.shards
        ]


async def _drain(process: ProjectorProcess) -> None:
    process.thread.hurry("drain", True)
    for projector in process.projectors:
        projector.draining = True


async def _serve(process: ProjectorProcess) -> None:
    sink = open_sink(process.spec.places.database_url)
    in_thread = process.thread
    process.trouble = "waiting for the database"
    while process.trouble:
        try:
            await in_thread(sink.require_revision)
            process.trouble = ""
        except StorageError as error:
            process.trouble = str(error)
            log.warning("sink_not_ready", error=str(error))
            await asyncio.sleep(1)
    process.projectors = [
        Projector(
            shard=shard,
            reader=SINK_READER,
            needed_by=RELAY_READER if shard < process.spec.stock_shards else "",
            journal=JournalThread(open_journal(process.spec.places.journal_url), shard),
            sink=sink,
            in_thread=in_thread,
            limits=process.spec.limits,
            clock=WallClock(),
        )
        for shard in process.shards
    ]
    async with asyncio.TaskGroup() as tasks:
        for projector in process.projectors:
            tasks.create_task(projector.run())
