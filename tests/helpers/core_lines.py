"""`Lines` over the real core in memory: one shard, real decisions, a journal that is a list.

Commands and answers travel through msgpack as they do between gateway and shard, every entry's
balances are checked, and the commit runs in the lines' own task, as it does in the gateway. A test
can hold commands of a kind (a slow journal, a gateway that dies), answer them with a failure, and
count what reached the shard.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack

from actors.core import commands as c
from actors.core.act import act
from actors.core.chores import chores
from actors.core.codec import pack_entry
from actors.core.commission_state import Programme
from actors.core.earning import earn
from actors.core.evolve import close_entry, evolve, open_entry
from actors.core.forgetting import Forgetting
from actors.core.forgetting_accounts import ForgettingAccounts
from actors.core.identity import PROGRAMME_SLOT
from actors.core.outcomes import Outcome
from actors.core.pools import Pool
from actors.core.pulse import Pulse
from actors.core.state import ShardState
from actors.core.team_ends import closing_teams, due_teams
from persistence.ports import Entry

START_MS = 1_700_000_000_000


class FakeClock:
    """Wall time that a test moves."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def pass_ms(self, length_ms: int) -> None:
        self._now_ms += length_ms


class CoreLines:
    """Decides on one `ShardState`."""

    def __init__(self, clock: FakeClock) -> None:
        self.state = ShardState()
        self.clock = clock
        self.decided: Counter[int] = Counter()
        self.entries: list[Entry] = []
        """The journal, for whoever reads it."""
        self.failures: dict[int, list[Outcome]] = {}
        """kind -> outcomes to answer instead of deciding, first to last."""
        self._held: dict[int, asyncio.Event] = {}
        self.waiting = asyncio.Event()
        """Set when a held command has arrived."""
        self._queue: asyncio.Queue[tuple[list[bytes], asyncio.Future[Any]]] = asyncio.Queue()
        self._pulse = Pulse()
        self._forgetting = Forgetting()
        self._open: set[asyncio.Task[None]] = set()

    def hold(self, kind: int) -> asyncio.Event:
        """Rounds with a command of this kind wait for the event that this answers."""
        self.waiting.clear()
        return self._held.setdefault(kind, asyncio.Event())

    def let_through(self, kind: int) -> None:
        """New rounds with a command of this kind are held no more; those held already still are."""
        del self._held[kind]

    async def settled(self) -> None:
        """Returns when no round waits or is held."""
        while self._open:
            await asyncio.gather(*self._open, return_exceptions=True)

    async def submit(self, commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(([msgpack.packb(command) for command in commands], future))
        answers: Sequence[tuple[Any, ...]] = await asyncio.shield(future)
        return answers

    def put(self, command: Any, on_answer: Callable[[tuple[Any, ...]], object]) -> None:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: on_answer(done.result()[0]))
        self._queue.put_nowait(([msgpack.packb(command)], future))

    def shard_of(self, slot: int) -> int:
        return 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["CoreLines"]:
        """Decides while the block runs."""
        worker = asyncio.create_task(self._work())
        try:
            yield self
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                task = group.create_task(self._round(*await self._queue.get()))
                self._open.add(task)
                task.add_done_callback(self._open.discard)

    async def _round(self, packed: list[bytes], future: "asyncio.Future[Any]") -> None:
        lines = [msgpack.unpackb(line, use_list=False) for line in packed]
        for line in lines:
            held = self._held.get(line[0])
            if held is not None:
                self.waiting.set()
                await held.wait()
        answers = self.decide_now([c.MAKE[line[0]](line) for line in lines])
        if not future.done():
            future.set_result(answers)

    def decide_now(self, commands: Sequence[Any]) -> list[tuple[Any, ...]]:
        """One entry of the journal, decided and folded."""
        open_entry(self.state, self.state.seq + 1, self.clock.now_ms())
        records: list[Any] = []
        answers = [self._decide(command, records) for command in commands]
        self._journal(records)
        travelled: list[tuple[Any, ...]] = msgpack.unpackb(msgpack.packb(answers), use_list=False)
        return list(travelled)

    def _journal(self, records: list[Any]) -> None:
        balances = close_entry(self.state)
        data = pack_entry(epoch=1, now_ms=self.clock.now_ms(), records=records, balances=balances)
        self.entries.append(Entry(self.state.seq, 1, "", data))

    def _decide(self, command: Any, journalled: list[Any]) -> tuple[Any, ...]:
        if self.failures.get(command.kind):
            return (self.failures[command.kind].pop(0),)
        self.decided[command.kind] += 1
        return act(self.state, command, self.clock.now_ms(), journalled)

    def _fold(self, records: Sequence[Any], journalled: list[Any]) -> None:
        for record in records:
            evolve(self.state, record)
        journalled.extend(records)

    def forget(self) -> int:
        """All that is finished leaves memory, as if SQL had it; answers how many did."""
        before = sum(len(slot.reservations) for slot in self.state.slots.values())
        open_entry(self.state, self.state.seq + 1, self.clock.now_ms())
        now_ms, sink_seq = self.clock.now_ms(), self.state.seq
        gone = self._forgetting.look_on(
            self.state, now_ms=now_ms, recall_after_ms=0, sink_seq=sink_seq, limit=1_000
        )
        journalled: list[Any] = []
        self._fold(gone, journalled)
        self._journal(journalled)
        return before - sum(len(slot.reservations) for slot in self.state.slots.values())

    def expire_due(self) -> int:
        """What the shard's pulse does by itself; answers how many expired."""
        open_entry(self.state, self.state.seq + 1, self.clock.now_ms())
        due = self._pulse.expiries(self.state, self.clock.now_ms(), 1_000)
        for record in due:
            evolve(self.state, record)
        self._journal(due)
        return len(due)

    def end_teams(self) -> None:
        """What the shard's pulse does by itself: teams whose deadline has passed end."""
        open_entry(self.state, self.state.seq + 1, self.clock.now_ms())
        journalled: list[Any] = []
        while ends := due_teams(self.state, self.clock.now_ms(), 1_000):
            self._fold(ends, journalled)
        while ends := closing_teams(self.state, 1_000):
            self._fold(ends, journalled)
        self._journal(journalled)

    def forget_teams(self) -> None:
        """All that ended leave memory, as if SQL had them."""
        open_entry(self.state, self.state.seq + 1, self.clock.now_ms())
        now_ms, sink_seq = self.clock.now_ms(), self.state.seq
        journalled: list[Any] = []
        gone = self._forgetting.look_for_teams(
            self.state, now_ms=now_ms, recall_after_ms=0, sink_seq=sink_seq, limit=1_000
        )
        self._fold(gone, journalled)
        self._journal(journalled)

    def forget_accounts(self) -> int:
        """All orders and withdrawals that may go leave memory, as if SQL had them; answers how
        many did."""
        open_entry(self.state, self.state.seq + 1, self.clock.now_ms())
        now_ms, sink_seq = self.clock.now_ms(), self.state.seq
        gone = ForgettingAccounts().look_on(
            self.state, now_ms=now_ms, recall_after_ms=0, sink_seq=sink_seq, limit=1_000
        )
        journalled: list[Any] = []
        self._fold(gone, journalled)
        self._journal(journalled)
        return sum(len(record.keys) for record in gone)

    @property
    def programme(self) -> Programme:
        """What the account slot holds; fails unless something was decided there."""
        programme = self.state.slot(PROGRAMME_SLOT).programme
        assert programme is not None
        return programme

    def learn(self, fact: Any) -> None:
        """What the relay does: an order fact comes to the programme."""
        open_entry(self.state, self.state.seq + 1, self.clock.now_ms())
        slot = self.state.slot(PROGRAMME_SLOT)
        journalled: list[Any] = []
        self._fold(earn(self.state, slot, fact, self.clock.now_ms()), journalled)
        self._journal(journalled)

    def look_at_programme(self) -> None:
        """What the shard's pulse does by itself: what is due in the programme is decided."""
        open_entry(self.state, self.state.seq + 1, self.clock.now_ms())
        journalled: list[Any] = []
        while due := self._pulse.commission(self.state, self.clock.now_ms(), 1_000):
            self._fold(due, journalled)
        self._journal(journalled)

    def chores(self) -> tuple[tuple[Any, ...], ...]:
        """What the shard would ask a gateway to finish now."""
        return chores(self.state, self.clock.now_ms())

    def pools(self) -> dict[tuple[str, str], Pool]:
        """All pools by (campaign id, SKU)."""
        return {
            (pool.campaign_id, pool.sku_id): pool
            for slot in self.state.slots.values()
            for pool in slot.pools()
        }
