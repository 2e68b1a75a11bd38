"""The relay's process: a `Source` for each stock shard, and senders to the account shards."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from actors.clock import Clock, WallClock
from actors.hosting import Host, process_identity
from actors.logs import configure_logs
from actors.specs import RELAY_NAME, ClusterSpec
from actors.threads import JournalThread
from persistence.open import open_journal
from persistence.sql.views import KeptFacts, SqlViews
from server.frontier import Board
from server.gather import GatherLimits, Sender
from server.links import links_of
from server.relay import RelayLimits, Source
from server.waiting import Answer, Group

log = structlog.get_logger()
NICENESS = 10
KEPT_ROWS = 1_000
KEPT_BYTES = 500_000

LIMITS = GatherLimits(rounds_in_flight=1, round_bytes=360_000, round_lines=16)
"""One round after the other: no line may overtake another. Lines of many facts are large, and
rounds larger than a gateway's, so that they are packed once; 1,000 facts take a primary 10 ms."""


class RelayProcess:
    """The relay, hosted. Stateless: a restart goes on where the account shards are."""

    def __init__(self, spec: ClusterSpec) -> None:
        configure_logs(spec.log_directory, RELAY_NAME)
        # As write-behind, it has time.
        os.nice(NICENESS)
        self.spec = spec
        self.sources: list[Source] = []
        self._host = Host(RELAY_NAME)
        self._host.start(lambda: _serve(self))

    def hello(self) -> str:
        """The process identity."""
        return process_identity()

    def drain(self) -> None:
        """No more sales will come: catch up without pauses."""
        for source in self.sources:
            source.draining = True

    def status(self) -> list[dict[str, Any]]:
        """Position, lag and trouble of each stock shard."""
        return [source.status() for source in self.sources]


class SenderAccounts:
    """See `server.relay.Accounts`."""

    def __init__(self, senders: Sequence[Sender]) -> None:
        self._senders = {sender.shard: sender for sender in senders}

    async def submit(self, shard: int, commands: Sequence[Any]) -> Sequence[Answer]:
        """See Accounts."""
        group = Group(len(commands))
        places = range(len(commands))
        self._senders[shard].put_many(commands, commands[0].deadline_ms, group, places)
        await group.done
        return group.answers


def make_sources(
    spec: ClusterSpec, accounts: SenderAccounts, views: SqlViews, clock: Clock
) -> list[Source]:
    """One for each stock shard."""
    account_slots = {
        shard: spec.slots_of.index(shard) for shard in range(spec.stock_shards, spec.shards)
    }

    async def find_order(reservation_id: str) -> Mapping[str, Any] | None:
        return await asyncio.to_thread(views.get_commission_order, reservation_id)

    async def kept(shard: int, after_seq: int) -> KeptFacts:
        read = partial(views.list_facts, rows_max=KEPT_ROWS, bytes_max=KEPT_BYTES)
        return await asyncio.to_thread(lambda: read(shard, after_seq=after_seq))

    limits = RelayLimits()
    board = Board(limits.patience_ms)
    return [
        Source(
            shard=shard,
            journal=JournalThread(open_journal(spec.places.journal_url), shard),
            kept=kept,
            find_order=find_order,
            accounts=accounts,
            slots_of=spec.slots_of,
            account_slots=account_slots,
            clock=clock,
            limits=limits,
            board=board,
        )
        for shard in range(spec.stock_shards)
    ]


async def _serve(process: RelayProcess) -> None:
    spec, clock = process.spec, WallClock()
    senders = [
        Sender(
            shard=shard,
            gateway=RELAY_NAME,
            links=links_of(spec, shard),
            clock=clock,
            limits=LIMITS,
            map_version=spec.map_version,
            on_chore=_leave_it,
        )
        for shard in range(spec.stock_shards, spec.shards)
    ]
    views = SqlViews(spec.places.database_url, connections=1)
    process.sources = make_sources(spec, SenderAccounts(senders), views, clock)
    async with asyncio.TaskGroup() as tasks:
        for sender in senders:
            tasks.create_task(sender.run())
        for source in process.sources:
            tasks.create_task(source.run())


async def _leave_it(chore: tuple[Any, ...]) -> None:
    """Chores are the gateways'; account shards have none."""
    log.info("chore_left", kind=chore[0])
