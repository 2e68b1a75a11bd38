"""A pair of replicas in one event loop: real shells over the memory stores, links that can fail.

Stores are awaited without threads, and can be held, slowed and refused at any call; links can lose
answers, fall silent and close. With `virtual_time` every run is the same and timeouts are free.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from actors.core import commands as c
from actors.core.identity import SLOT_COUNT, slot_of
from actors.core.outcomes import Outcome
from actors.limits import Readers, ShardLimits
from actors.links import LinkClosed
from actors.rounds import Answers, RoundStatus, pack_line, pack_round, unpack_answers
from actors.shard import PromoteStatus, Promotion, Role, Shard, Stores
from persistence.memory import MemoryJournal, MemorySnapshots
from persistence.ports import Entry
from tests.helpers.loop_stores import LoopJournal, LoopSnapshots
from tests.helpers.virtual_time import until

T = TypeVar("T")
START_MS = 1_700_000_000_000
INCARNATION = "first"
LIMITS = ShardLimits(expiry_grace_ms=2_000, journal_bytes_max=1_000_000_000)


class LoopClock:
    """Wall time that follows the loop's, and that a test can make jump."""

    def __init__(self) -> None:
        self.jump_ms = 0

    def now_ms(self) -> int:
        passed_ms = (asyncio.get_running_loop().time() - 1_000) * 1000
        return START_MS + round(passed_ms) + self.jump_ms


class Instance:
    """One life of a replica's process."""

    def __init__(self, pair: "Pair", name: str, number: int) -> None:
        self.name = name
        self.journal = LoopJournal(pair.journal, pair.number)
        self.reader = LoopJournal(pair.journal, pair.number)
        self.snapshots = LoopSnapshots(pair.snapshots, pair.number)
        self.snapshots.damaged = pair.damaged
        self.killed_owners: list[str] = []
        self.shard = Shard(
            shard=pair.number,
            token=f"{name}-{number}",
            owner_info=f"process of {name}-{number}",
            stores=Stores(self.journal, self.reader, self.snapshots),
            clock=pair.clock,
            limits=pair.limits,
            owned_slots=pair.owned_slots,
            readers=Readers(("sink",), pair.late_readers),
            kill_owner=self._kill_owner,
        )
        self.error: BaseException | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._main = asyncio.create_task(self._live())

    @property
    def role(self) -> Role:
        return self.shard.role

    @property
    def alive(self) -> bool:
        return not self.ended.done()

    def kill(self) -> None:
        """kill -9: whatever it was doing, it does not go on. A call that is in a store's hands
        still takes effect, as it does in a real one."""
        for task in (self._main, *self._tasks):
            task.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    async def ask(self, question: Coroutine[Any, Any, T]) -> T:
        """Have it answer; LinkClosed if it ends first."""
        if not self.alive:
            question.close()
            raise LinkClosed(f"{self.shard.token} has ended")
        task = asyncio.ensure_future(question)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        either: set[asyncio.Future[Any]] = {task, self.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() or task.cancelled():
            task.cancel()
            raise LinkClosed(f"{self.shard.token} has ended")
        return task.result()

    async def _live(self) -> None:
        try:
            await self.shard.run()
        except BaseException as error:  # noqa: BLE001 - the process ends, whatever it was
            self.error = error
        finally:
            self.kill()

    def _kill_owner(self, owner: str) -> bool:
        self.killed_owners.append(owner)
        return True


class LoopLink:
    """A `Link` to a replica, with a network that can fail."""

    def __init__(self, pair: "Pair", name: str) -> None:
        self._pair = pair
        self._name = name
        self._instance: Instance | None = None
        self.token = ""
        self.lose_answers = 0
        self.lose_rounds = 0
        self.delay_ms = 0.0
        self.paused: asyncio.Event | None = None
        self.sent: list[bytes] = []
        self.answered: list[bytes] = []
        self.promotions = 0
        self.promoted_from: list[tuple[int, int]] = []

    def pause(self) -> None:
        """Nothing comes through, in either direction, until `resume`."""
        self.paused = asyncio.Event()

    def resume(self) -> None:
        if self.paused is not None:
            self.paused.set()
        self.paused = None

    async def hello(self) -> str:
        instance = self._pair[self._name]
        await self._travel()
        if not instance.alive:
            raise LinkClosed(f"{self._name} is dead")
        self._instance, self.token = instance, instance.shard.token
        return self.token

    def forget(self) -> None:
        self._instance, self.token = None, ""

    async def round(self, payload: bytes) -> bytes:
        self.sent.append(payload)
        instance = self._instance or self._pair[self._name]
        await self._travel()
        if self.lose_rounds:
            self.lose_rounds -= 1
            await asyncio.Event().wait()
        # The round is there: a caller that gives up does not take it back.
        answer = await asyncio.shield(asyncio.ensure_future(_settle(instance, payload)))
        if answer is None:
            raise LinkClosed(f"{self._name} has ended")
        if self.lose_answers and payload_has_lines(payload):
            self.lose_answers -= 1
            await asyncio.Event().wait()
        await self._travel()
        self.answered.append(answer)
        return answer

    async def promote(self, seen_epoch: int, seen_seq: int) -> Promotion:
        self.promotions += 1
        self.promoted_from.append((seen_epoch, seen_seq))
        instance = self._instance or self._pair[self._name]
        await self._travel()
        return await instance.ask(instance.shard.promote(seen_epoch, seen_seq))

    async def control(self, method: str, *arguments: Any) -> Any:
        instance = self._instance or self._pair[self._name]
        return await instance.ask(getattr(instance.shard, method)(*arguments))

    async def _travel(self) -> None:
        await asyncio.sleep(self.delay_ms / 1000)
        while self.paused is not None:
            await self.paused.wait()


async def _settle(instance: Instance, payload: bytes) -> bytes | None:
    try:
        return await instance.ask(instance.shard.round(payload))
    except LinkClosed:
        return None


def payload_has_lines(payload: bytes) -> bool:
    """Whether a packed round is not an empty one (whose last byte is the array header of 0)."""
    return payload[-1:] != b"\x90"


class Pair:
    """Both replicas of one shard, with their stores, in one loop."""

    def __init__(
        self,
        limits: ShardLimits = LIMITS,
        *,
        number: int = 0,
        journal: MemoryJournal | None = None,
        snapshots: MemorySnapshots | None = None,
        clock: LoopClock | None = None,
        owned_slots: frozenset[int] = frozenset(range(SLOT_COUNT)),
        late_readers: tuple[str, ...] = (),
    ) -> None:
        self.limits = limits
        self.number = number
        self.journal = journal or MemoryJournal()
        self.snapshots = snapshots or MemorySnapshots()
        self.clock = clock or LoopClock()
        self.owned_slots = owned_slots
        self.late_readers = late_readers
        self.damaged: set[int] = set()
        self.instances: dict[str, Instance] = {}
        self.lives = 0

    def __getitem__(self, name: str) -> Instance:
        return self.instances[name]

    def start(self, name: str) -> Instance:
        """A new life of a replica; the old one, if it still lives, is killed."""
        if name in self.instances:
            self.instances[name].kill()
        self.lives += 1
        self.instances[name] = Instance(self, name, self.lives)
        return self.instances[name]

    async def promote(self, name: str) -> Instance:
        """Make this replica primary."""
        instance = self[name]
        await until(lambda: instance.role is Role.STANDBY)
        epoch = self.journal.read_meta(self.number).epoch
        promotion = await instance.ask(instance.shard.promote(epoch))
        assert promotion.status is PromoteStatus.OK, promotion
        return instance

    async def caught_up(self, name: str) -> None:
        """Returns when this standby has folded all that is journalled."""

        def is_caught_up() -> bool:
            state = self[name].shard.state
            if self[name].role is not Role.STANDBY or state is None:
                return False
            return state.seq >= self.journal.read_meta(self.number).last_seq

        await until(is_caught_up)

    def entries(self) -> Sequence[Entry]:
        """What the journal holds."""
        first = self.journal.read_meta(self.number).first_seq
        return self.journal.read(self.number, after_seq=first - 1, max_bytes=10**12)

    async def round(self, name: str, *lines: Any, **fields: Any) -> Answers:
        """A round to a replica, without any link."""
        instance = self[name]
        payload = self.payload(*lines, **fields)
        return unpack_answers(await instance.ask(instance.shard.round(payload)))

    def payload(
        self,
        *lines: Any,
        sent_ms: int | None = None,
        wants_chores: bool = False,
        gateway: str = "test",
    ) -> bytes:
        return pack_round(
            gateway=gateway,
            sent_ms=self.clock.now_ms() if sent_ms is None else sent_ms,
            map_version=1,
            lines=[pack_line(line) for line in lines],
            wants_chores=wants_chores,
        )

    async def do(self, name: str, *lines: Any) -> tuple[tuple[Any, ...], ...]:
        """Answers to lines; the round itself must be OK."""
        answers = await self.round(name, *lines)
        assert answers.status is RoundStatus.OK, answers
        return tuple(answers.answers)

    async def stock_up(self, name: str, units: int = 10) -> None:
        """SKU tea with units."""
        deadline = self.clock.now_ms() + 5_000
        answers = await self.do(name, put_sku(deadline), receive(deadline, units))
        assert [answer[0] for answer in answers] == [Outcome.APPLIED] * 2

    def reserve(self, request: str, **fields: Any) -> c.Reserve:
        """A line for one unit of tea that may wait for 5 s."""
        return reserve(self.clock.now_ms() + 5_000, request, **fields)


@asynccontextmanager
async def running(pair: Pair, *names: str) -> AsyncIterator[Pair]:
    """A pair whose journal exists, with these replicas (both if none is named) started."""
    pair.journal.create(pair.number, incarnation=INCARNATION)
    for name in names or ("a", "b"):
        pair.start(name)
    try:
        yield pair
    finally:
        for instance in pair.instances.values():
            instance.kill()


def limits(**changes: Any) -> ShardLimits:
    """The limits of these tests, changed."""
    return replace(LIMITS, **changes)


SLOT = slot_of("tea")


def put_sku(deadline_ms: int, sku: str = "tea", window_ms: int = 900_000) -> c.PutSku:
    head = (c.PUT_SKU, slot_of(sku), deadline_ms, "web", sku, sku)
    return c.PutSku(*head, {}, 0, 100, "CNY", window_ms)


def receive(deadline_ms: int, units: int, request: str = "doc", sku: str = "tea") -> c.ReceiveStock:
    head = (c.RECEIVE_STOCK, slot_of(sku), deadline_ms, "web", request, sku, units)
    return c.ReceiveStock(*head)


def reserve(
    deadline_ms: int, request: str, quantity: int = 1, sku: str = "tea", buyer: str = "ann"
) -> c.Reserve:
    head = (c.RESERVE, slot_of(sku), deadline_ms, "web", request, "", sku, quantity, buyer)
    return c.Reserve(*head)


def get_stock(deadline_ms: int, sku: str = "tea") -> c.GetStock:
    return c.GetStock(c.GET_STOCK, slot_of(sku), deadline_ms, "web", "", sku)
