"""The stores as simulated processes see them: the real checks, with delays and lost answers.

Rules
-----
* What a call does is `persistence/memory.py`, whose checks are those of the ports; `sink.py` is the
  same for SQL.
* A call travels to the store and back. Its effect takes place there, whatever became of the caller
  meanwhile; an answer reaches only a caller that lives, and one that is stopped when it is resumed.
* A handle makes one call at a time, as the thread of `actors/threads.py` does.
* With an unknown outcome the effect may have taken place, may not, or may still do so later.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from persistence.errors import (
    Corrupt,
    Fenced,
    Locked,
    NoJournal,
    NotApplied,
    OutcomeUnknown,
    StorageError,
)
from persistence.memory import MemoryJournal, MemorySnapshots
from persistence.ports import Entry, Ownership, SnapshotInfo
from tests.sim.loop import Process, World, settle

TIMEOUT_S = 0.08
"""After so long an adapter says that it does not know."""
UNKNOWN = OutcomeUnknown("simulated: no answer in time")
DOWN = NotApplied("simulated: the store is loading")

KEPT, NOT_DONE, ANSWER_LOST, DONE_LATER, REFUSED = range(5)
"""What becomes of a call: all is well; its request, or its answer, is lost; it is done after the
caller was told that nobody knows; it is refused for now."""


class Weather(NamedTuple):
    """How a store behaves: delays of one way, and how often calls go wrong."""

    delay_s: float = 0.002
    trouble: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.3


class Store:
    """A store's own side: how it behaves now, and who is cut off from it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.weather = Weather()
        self.down = False
        self.full_bytes = 1_000_000_000
        """A journal that takes so many is called full."""
        self.cut: set[str] = set()
        """Names of the processes that do not reach it."""

    def fate(self, process: Process) -> int:
        """What becomes of the next call."""
        chance = self.world.chance
        if process.name in self.cut:
            self.harm("cut")
            return NOT_DONE
        if self.down:
            self.harm("down")
            return chance.choice((NOT_DONE, NOT_DONE, REFUSED))
        if self.weather.trouble and chance.random() < self.weather.trouble:
            self.harm("trouble")
            return chance.choice((NOT_DONE, ANSWER_LOST, ANSWER_LOST, DONE_LATER, REFUSED))
        return KEPT

    def harm(self, how: str) -> None:
        """A call fared ill: count it."""
        self.world.harm[f"{self.name} {how}"] += 1

    def delay_s(self) -> float:
        """One way."""
        random = self.world.chance.random
        weather = self.weather
        if weather.slow and random() < weather.slow:
            self.harm("slow")
            return random() * weather.slow_s
        return random() * weather.delay_s


class Line:
    """A process's handle of a store: one call at a time, and in order."""

    def __init__(self, store: Store, process: Process) -> None:
        self.store = store
        self._process = process
        self.on_call: Callable[[str], None] = _nothing
        """Told the kind of each call, before it leaves."""
        self._waiting: deque[tuple[str, Callable[[], Any], Any]] = deque()
        self._busy = False

    def call(self, kind: str, effect: Callable[[], Any]) -> Any:
        """A future of what `effect` does at the store."""
        self.on_call(kind)
        future = self._process.create_future()
        if self._busy:
            self._waiting.append((kind, effect, future))
        else:
            self._send(kind, effect, future)
        return future

    def _send(self, kind: str, effect: Callable[[], Any], future: Any) -> None:
        self._busy = True
        store, process = self.store, self._process
        world = store.world
        fate, there_s, back_s = store.fate(process), store.delay_s(), store.delay_s()
        if fate is KEPT:
            world.after(there_s, self._arrive, effect, future, back_s)
            return
        world.tell(process.name, "%s at the %s goes wrong (%s)", kind, store.name, FATES[fate])
        if fate is ANSWER_LOST:
            world.after(there_s, perform, effect)
        elif fate is DONE_LATER:
            world.after(TIMEOUT_S + world.chance.random() * 0.3, perform, effect)
        error, wait_s = (DOWN, there_s + back_s) if fate is REFUSED else (UNKNOWN, TIMEOUT_S)
        process.after(wait_s, self._answered, future, None, type(error)(*error.args))

    def _arrive(self, effect: Callable[[], Any], future: Any, back_s: float) -> None:
        answer, error = perform(effect)
        if isinstance(error, NoJournal):
            self.store.harm("gone")
        self._process.after(back_s, self._answered, future, answer, error)

    def _answered(self, future: Any, answer: Any, error: BaseException | None) -> None:
        self._busy = False
        settle(future, answer, error)
        if self._waiting:
            self._send(*self._waiting.popleft())


def _nothing(_: str) -> None:
    """Nobody listens."""


FATES = ("kept", "not done", "done, answer lost", "done later", "refused")


def perform(effect: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """An effect at the store, and how it ended."""
    try:
        return effect(), None
    except StorageError as error:
        return None, error


class Watcher:
    """Who sees everything that happens at a journal, at the moment it does."""

    def appended(self, shard: int, process: Process, entry: Entry) -> None:
        """An entry that was not there before."""

    def resent(self, shard: int) -> None:
        """An entry came again and was known."""

    def fenced(self, shard: int, process: Process) -> None:
        """Somebody was told that he is not the owner any more."""

    def acquired(self, shard: int, ownership: Ownership) -> None:
        """The epoch was raised."""

    def locked_by(self, shard: int) -> str:
        """Who holds the store's lock and cannot give it back; '' if nobody does."""
        return ""

    def met(self, shard: int, what: str) -> None:
        """Something happened that is worth counting."""


class SimJournal(Line):
    """`AsyncJournal` of one shard for one process."""

    def __init__(
        self, store: Store, process: Process, journal: MemoryJournal, shard: int, watcher: Watcher
    ) -> None:
        super().__init__(store, process)
        self._journal = journal
        self._shard = shard
        self._watcher = watcher
        self.appending = False
        self.sent = (0, b"")
        """Number and bytes of the newest entry that was sent."""
        self._held: list[Callable[[], None]] | None = None

    def hold(self) -> None:
        """Appends wait on their way, until `let_go`."""
        self._held = self._held or []

    def let_go(self) -> None:
        """They arrive now, in order."""
        held, self._held = self._held or [], None
        for send in held:
            send()

    def read_meta(self) -> Any:
        return self.call("read_meta", lambda: self._journal.read_meta(self._shard))

    def acquire(self, **fields: Any) -> Any:
        def effect() -> Ownership:
            holder = self._watcher.locked_by(self._shard)
            if holder:
                self._watcher.met(self._shard, "a stopped owner held the lock")
                raise Locked("simulated: locked", holder)
            before = self._journal.read_meta(self._shard).epoch
            ownership = self._journal.acquire(self._shard, **fields)
            if ownership.epoch != before:
                self._watcher.acquired(self._shard, ownership)
            return ownership

        return self.call("acquire", effect)

    def append(self, **fields: Any) -> Any:
        def effect() -> None:
            before = self._journal.read_meta(self._shard).last_seq
            self._guarded(lambda: self._journal.append(self._shard, **fields))
            if self._journal.read_meta(self._shard).last_seq == before:
                self._watcher.resent(self._shard)
            else:
                entry = self._journal._logs[self._shard].entries[-1]
                self._watcher.appended(self._shard, self._process, entry)

        self.appending, self.sent = True, (fields["seq"], fields["entry"])
        if self._held is None:
            future = self.call("append", effect)
        else:
            self.on_call("append")
            future = self._process.create_future()
            self._held.append(lambda: self._send("append", effect, future))
            self._busy = True
        future.add_done_callback(self._landed)
        return future

    def _landed(self, _: Any) -> None:
        self.appending = False

    def check(self, **fields: Any) -> Any:
        return self.call(
            "check", lambda: self._guarded(lambda: self._journal.check(self._shard, **fields))
        )

    def _guarded(self, effect: Callable[[], None]) -> None:
        try:
            effect()
        except Fenced:
            self._watcher.fenced(self._shard, self._process)
            raise

    def read(self, **fields: Any) -> Any:
        return self.call("read", lambda: self._journal.read(self._shard, **fields))

    def positions(self) -> Any:
        return self.call("positions", lambda: self._journal.positions(self._shard))

    def set_position(self, reader: str, seq: int) -> Any:
        return self.call(
            "set_position", lambda: self._journal.set_position(self._shard, reader, seq)
        )

    def trim(self, **fields: Any) -> Any:
        def effect() -> int:
            removed = self._journal.trim(self._shard, **fields)
            if removed:
                self._watcher.met(self._shard, "the journal was trimmed")
            return removed

        return self.call("trim", effect)

    def bytes_used(self) -> Any:
        def effect() -> int:
            used = self._journal.bytes_used(self._shard)
            if used >= self.store.full_bytes:
                self._watcher.met(self._shard, "a journal was full")
            return used

        return self.call("bytes_used", effect)


class SimSnapshots(Line):
    """`AsyncSnapshots` of one shard for one process."""

    def __init__(
        self,
        store: Store,
        process: Process,
        snapshots: MemorySnapshots,
        shard: int,
        watcher: Watcher,
    ) -> None:
        super().__init__(store, process)
        self._snapshots = snapshots
        self._shard = shard
        self._watcher = watcher

    def begin(self, **fields: Any) -> Any:
        return self.call("begin", lambda: self._snapshots.begin(self._shard, **fields))

    def write(self, handle: str, index: int, chunk: bytes) -> Any:
        return self.call("write", lambda: self._snapshots.write(self._shard, handle, index, chunk))

    def publish(self, handle: str, *, end_seq: int) -> Any:
        return self.call(
            "publish", lambda: self._snapshots.publish(self._shard, handle, end_seq=end_seq)
        )

    def list(self) -> Any:
        return self.call("list snapshots", lambda: self._snapshots.list(self._shard))

    def read(self, info: SnapshotInfo) -> Any:
        def effect() -> Sequence[bytes]:
            try:
                found = list(self._snapshots.read(self._shard, info))
            except Corrupt:
                self.store.harm("damaged")
                self._watcher.met(self._shard, "a damaged snapshot was not taken")
                raise
            self._watcher.met(self._shard, "a snapshot was loaded")
            return found

        return self.call("read a snapshot", effect)


class InThread:
    """The sink's one thread in the projector's process."""

    def __init__(self, store: Store, process: Process) -> None:
        self._store = store
        self._process = process

    def __call__(self, call: Callable[[], Any]) -> Any:
        future = self._process.create_future()
        world = self._store.world

        def run() -> None:
            answer, error = None, None
            try:
                if self._store.down:
                    self._store.harm("down")
                    raise NotApplied("simulated: the database is down")
                answer = call()
            except Exception as raised:  # noqa: BLE001 - as a thread would hand it over
                error = raised
            self._process.after(self._store.delay_s(), settle, future, answer, error)

        world.after(self._store.delay_s(), run)
        return future

    def hurry(self, who: int, wanted: bool) -> None:
        """Nobody else wants the processor here."""
