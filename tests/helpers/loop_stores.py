"""The memory stores awaited without threads; any call can be held, slowed or refused."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from persistence.errors import Corrupt
from persistence.memory import MemoryJournal, MemorySnapshots
from persistence.ports import Entry, Meta, Ownership, SnapshotInfo

T = TypeVar("T")


class Gate:
    """How a store behaves, by the name of the call: held before or after its effect, or slow."""

    def __init__(self) -> None:
        self.before: dict[str, asyncio.Event] = {}
        self.after: dict[str, asyncio.Event] = {}
        self.delay_ms: dict[str, float] = {}
        self.arrived: Counter[str] = Counter()
        """Calls that came in."""
        self.done: Counter[str] = Counter()
        """Calls that took effect."""
        self.log: list[tuple[str, dict[str, Any]]] = []
        self._turn = asyncio.Lock()

    def hold(self, *kinds: str, after: bool = False) -> Callable[[], None]:
        """Calls of these kinds wait; answers what lets them go on."""
        gate = asyncio.Event()
        held = self.after if after else self.before
        held.update(dict.fromkeys(kinds, gate))

        def let_go() -> None:
            for kind in kinds:
                if held.get(kind) is gate:
                    del held[kind]
            gate.set()

        return let_go

    async def call(self, kind: str, effect: Callable[[], T], **arguments: Any) -> T:
        """One call at a time and in order, as on a thread; who gives up waiting tears nothing."""
        self.arrived[kind] += 1
        return await asyncio.shield(asyncio.ensure_future(self._run(kind, effect, arguments)))

    async def _run(self, kind: str, effect: Callable[[], T], arguments: dict[str, Any]) -> T:
        async with self._turn:
            await asyncio.sleep(self.delay_ms.get(kind, 0) / 1000)
            if kind in self.before:
                await self.before[kind].wait()
            self.log.append((kind, arguments))
            answer = effect()
            self.done[kind] += 1
            if kind in self.after:
                await self.after[kind].wait()
            return answer


class LoopJournal(Gate):
    """`AsyncJournal` of one shard over the memory journal."""

    def __init__(self, journal: MemoryJournal, shard: int) -> None:
        super().__init__()
        self._journal = journal
        self._shard = shard

    async def read_meta(self) -> Meta:
        return await self.call("read_meta", lambda: self._journal.read_meta(self._shard))

    async def acquire(self, **fields: Any) -> Ownership:
        return await self.call(
            "acquire", lambda: self._journal.acquire(self._shard, **fields), **fields
        )

    async def append(self, **fields: Any) -> None:
        await self.call("append", lambda: self._journal.append(self._shard, **fields), **fields)

    async def check(self, **fields: Any) -> None:
        await self.call("check", lambda: self._journal.check(self._shard, **fields), **fields)

    async def read(self, **fields: Any) -> Sequence[Entry]:
        return await self.call("read", lambda: self._journal.read(self._shard, **fields))

    async def positions(self) -> Mapping[str, int]:
        return await self.call("positions", lambda: self._journal.positions(self._shard))

    async def set_position(self, reader: str, seq: int) -> None:
        await self.call(
            "set_position", lambda: self._journal.set_position(self._shard, reader, seq)
        )

    async def trim(self, **fields: Any) -> int:
        return await self.call("trim", lambda: self._journal.trim(self._shard, **fields), **fields)

    async def bytes_used(self) -> int:
        return await self.call("bytes_used", lambda: self._journal.bytes_used(self._shard))


class LoopSnapshots(Gate):
    """`AsyncSnapshots` of one shard over the memory snapshots."""

    def __init__(self, snapshots: MemorySnapshots, shard: int) -> None:
        super().__init__()
        self._snapshots = snapshots
        self._shard = shard
        self.damaged: set[int] = set()
        """`begin_seq` of the snapshots that read as damaged."""

    async def begin(self, **fields: Any) -> str:
        return await self.call("begin", lambda: self._snapshots.begin(self._shard, **fields))

    async def write(self, handle: str, index: int, chunk: bytes) -> None:
        await self.call("write", lambda: self._snapshots.write(self._shard, handle, index, chunk))

    async def publish(self, handle: str, *, end_seq: int) -> SnapshotInfo:
        return await self.call(
            "publish", lambda: self._snapshots.publish(self._shard, handle, end_seq=end_seq)
        )

    async def list(self) -> Sequence[SnapshotInfo]:
        return await self.call("list", lambda: self._snapshots.list(self._shard))

    async def read(self, info: SnapshotInfo) -> Sequence[bytes]:
        def chunks() -> Sequence[bytes]:
            if info.begin_seq in self.damaged:
                raise Corrupt(f"snapshot at {info.begin_seq}: injected")
            return list(self._snapshots.read(self._shard, info))

        return await self.call("read", chunks)
