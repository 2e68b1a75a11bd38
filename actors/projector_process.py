"""A projector's process: one `Projector` for each of several shards, beside one another."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog

from actors.hosting import Host, process_identity
from actors.logs import configure_logs
from actors.projector import Projector
from actors.specs import SINK_READER, ClusterSpec, projector_name
from actors.threads import JournalThread
from persistence.errors import StorageError
from persistence.open import open_journal, open_sink

log = structlog.get_logger()
T = TypeVar("T")
NICENESS = 10


class ProjectorProcess:
    """Write-behind for some shards, hosted. Stateless: a restart goes on at the stored position."""

    def __init__(self, spec: ClusterSpec, index: int, shards: tuple[int, ...]) -> None:
        name = projector_name(index)
        configure_logs(spec.log_directory, name)
        # Write-behind has time; whoever sells goes first.
        os.nice(NICENESS)
        self.spec = spec
        self._host = Host(name)
        self.projectors: list[Projector] = []
        self.shards = shards
        self.trouble = "starting"
        self._host.start(lambda: _serve(self))

    def hello(self) -> str:
        """The process identity."""
        return process_identity()

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


async def _serve(process: ProjectorProcess) -> None:
    sink = open_sink(process.spec.places.database_url)
    executor = ThreadPoolExecutor(1, thread_name_prefix="sink")

    def in_thread(call: Callable[[], T]) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(executor, call)

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
            journal=JournalThread(open_journal(process.spec.places.journal_url), shard),
            sink=sink,
            in_thread=in_thread,
            limits=process.spec.limits,
        )
        for shard in process.shards
    ]
    async with asyncio.TaskGroup() as tasks:
        for projector in process.projectors:
            tasks.create_task(projector.run())
