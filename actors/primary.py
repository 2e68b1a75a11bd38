"""The primary: takes rounds, decides, journals, and only then answers.

Rules
-----
* One writer task, one entry in flight. Rounds that wait while it flies share the next entry.
* The entry's records are folded before they are appended. An exception in `evolve` therefore ends
  the process with nothing journalled; one in `decide` answers that line INTERNAL and goes on.
* Nothing leaves before the append, or for rounds without records an ownership check, that was made
  after the decision. RETRY, UNKNOWN and BUSY claim nothing and may leave at once.
* What became due in the meantime is looked for when a round without lines comes, or after those of
  a round with lines were answered, then in an entry of its own.
* An append or check without a definite answer is sent again as it was, for as long as it takes.
  After `append_patience_ms` the waiting lines are told UNKNOWN and new rounds BUSY: this process is
  alive and the journal is slow, which is no reason to promote anybody.
* Fenced, conflicting or without its journal, it ends: `run` raises and the process exits.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import structlog

from actors.clock import ShardTime
from actors.core import commands as c
from actors.core.act import act
from actors.core.chores import chores
from actors.core.codec import pack_entry
from actors.core.evolve import close_entry, evolve, open_entry
from actors.core.forgetting import Forgetting
from actors.core.forgetting_accounts import ForgettingAccounts
from actors.core.outcomes import Outcome, Undecided
from actors.core.pulse import Pulse
from actors.core.state import ShardState
from actors.fullness import FULL_FOR_NEW_PERCENT, has_room_for
from actors.lateness import SenderClocks
from actors.limits import Readers, ShardLimits
from actors.rounds import Answers, Round, RoundStatus
from actors.threads import AsyncJournal, AsyncSnapshots
from persistence.errors import StorageError

log = structlog.get_logger()
T = TypeVar("T")

_WRONG_SHARD, _RETRY, _INTERNAL = (Outcome.WRONG_SHARD,), (Outcome.RETRY,), (Outcome.INTERNAL,)
DUE_EVERY_MS = 50
SPLIT_LINES = 16
"""So many waiting lines are worth two entries."""
TURNS_OF_AN_ANSWER = 3
"""Of the loop, until an answer is with the link that sends it: its future, its round, its call."""


class Reply:
    """As much of a future as `Waiting` needs, for who is called and does not wait. `call` runs in
    the writer's turn and must not raise."""

    __slots__ = ("_call", "_done")

    def __init__(self, call: Callable[[Answers], None]) -> None:
        self._call = call
        self._done = False

    def done(self) -> bool:
        """Whether it was answered."""
        return self._done

    def set_result(self, answers: Answers) -> None:
        """Answer it."""
        self._done = True
        self._call(answers)


class Waiting(NamedTuple):
    """A round in the queue, and who waits for its answer."""

    round: Round
    answer: "asyncio.Future[Answers] | Reply"
    received_at: float
    """Of the loop's clock."""


def _have_lines(taken: Sequence[Waiting]) -> bool:
    return any(waiting.round.lines for waiting in taken)


class _Patience:
    """Calls `over` once so much time has passed, unless ended before.

    When the loop itself stood still for that long (the process was stopped, or had no CPU), an
    answer that came meanwhile is heard first: it is in the loop's queue, two turns before its task.
    """

    def __init__(self, length_ms: int, over: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = over
        self._handle: asyncio.Handle = self._loop.call_later(length_ms / 1000, self._turn, 2)

    def end(self) -> None:
        """It is not needed any more."""
        self._handle.cancel()

    def _turn(self, turns: int) -> None:
        if turns:
            self._handle = self._loop.call_soon(self._turn, turns - 1)
        else:
            self._over()


class Identity(NamedTuple):
    """Whose primary this is: all that stands in every answer and every append."""

    shard: int
    incarnation: str
    epoch: int
    token: str


class Primary:
    """Runs from a won `acquire` to the end of the process."""

    def __init__(
        self,
        *,
        identity: Identity,
        state: ShardState,
        journal: AsyncJournal,
        reader: AsyncJournal,
        snapshots: AsyncSnapshots,
        time: ShardTime,
        limits: ShardLimits,
        owned_slots: frozenset[int],
        readers: Readers,
    ) -> None:
        self.identity = identity
        self.state = state
        self.last_seq = state.seq
        self.stalled = False
        self.journal_bytes = 0
        self.full_percent = 0
        self.first_seq = 0
        """First entry that is left since the last trim; 0 before one."""
        self.sink_seq = 0
        """SQL has all entries up to this one."""
        self.counters = {"rounds": 0, "lines": 0, "entries": 0, "records": 0, "internal": 0}
        self._journal = journal
        self._reader = reader
        self._snapshots = snapshots
        self._time = time
        self._limits = limits
        self._owned = owned_slots
        self._readers = readers
        self._late_seq: int | None = None
        """Up to here none of the late readers needs the journal; None if there are none."""
        self._pulse = Pulse()
        walk = Forgetting()
        self._forgets = (walk.look_on, walk.look_for_teams, ForgettingAccounts().look_on)
        self._senders = SenderClocks()
        self._queue: deque[Waiting] = deque()
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._looks: deque[Callable[[], None]] = deque()
        self._busy_at = self._due_at = self._taken_at = self._now()
        self._quiet_until = self._later(limits.expiry_grace_ms)
        time.raise_to(state.now_ms)

    @property
    def queue_length(self) -> int:
        """Rounds that wait."""
        return len(self._queue)

    def idle_ms(self) -> float:
        """For how long nobody but the clock has called."""
        return (self._now() - self._busy_at) * 1000

    async def submit(self, round_: Round) -> Answers:
        """Queue a round; its answer comes after its entry is durable."""
        answer: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._queue_up(round_, answer)
        return await answer

    def submit_then(self, round_: Round, done: Callable[[Answers], None]) -> None:
        """The same, answered by a call, perhaps before this one returns; `done` must not raise."""
        self._queue_up(round_, Reply(done))

    def _queue_up(self, round_: Round, answer: "asyncio.Future[Answers] | Reply") -> None:
        if self.stalled or len(self._queue) >= self._limits.queue_rounds:
            answer.set_result(self._answers(RoundStatus.BUSY, ()))
            return
        self._queue.append(Waiting(round_, answer, self._now()))
        if round_.lines:
            self._busy_at = self._now()
        self._idle.clear()
        self._work.set()

    async def run(self) -> None:
        """Take rounds until the journal says that this process is no longer the owner."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_house())
            tasks.create_task(self._stay_sure())
            while True:
                await self._work.wait()
                self._work.clear()
                while self._queue:
                    taken = self._take()
                    await self._write(taken)
                    self._let_look()
                    await self._write_due(taken)
                    self._let_look()
                self._idle.set()

    async def quiesce(self) -> None:
        """Returns when no round waits and none flies."""
        while not self._idle.is_set():
            await self._idle.wait()

    async def look(self, see: Callable[[], T]) -> T:
        """What `see` finds between two entries: the state as of `last_seq`, with nothing in it that
        is decided and not journalled. Waits for one entry at most."""
        if self._idle.is_set():
            return see()
        seen: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def take_turn() -> None:
            if not seen.done():
                seen.set_result(see())

        self._looks.append(take_turn)
        return await seen

    def _let_look(self) -> None:
        """The writer goes on without a pause, so those who wait look here and now."""
        while self._looks:
            self._looks.popleft()()

    def _take(self) -> list[Waiting]:
        """The rounds of the next entry, in the order they came: all, or if they are large, half of
        what waits, so that gateways have answers to pass on while the rest is decided."""
        most = self._limits.batch_lines
        waiting = sum([len(waiting.round.lines) for waiting in self._queue])
        if waiting >= SPLIT_LINES:
            most = min(most, (waiting + 1) // 2)
        taken = [self._queue.popleft()]
        lines = len(taken[0].round.lines)
        while self._queue and lines + len(self._queue[0].round.lines) <= most:
            taken.append(self._queue.popleft())
            lines += len(taken[-1].round.lines)
        return taken

    async def _write(self, taken: list[Waiting]) -> None:
        self._taken_at = self._now()
        now_ms = self._begin_entry(taken)
        records: list[Any] = []
        answers = [self._decide_round(waiting, now_ms, records) for waiting in taken]
        if not _have_lines(taken):
            self._decide_due(now_ms, records)
        self.counters["rounds"] += len(taken)
        if records:
            await self._store(now_ms, records, taken)
        else:
            # Time passes for the refusals also when nothing is journalled: with their table full
            # every answer is RETRY, and without this it would stay full.
            self.state.advance(now_ms)
            await self._until_definite(self._check, taken)
        for waiting, answer in zip(taken, answers, strict=True):
            if not waiting.answer.done():
                # Made only now: it says that it rests on the entry that was just stored.
                waiting.answer.set_result(self._answers(RoundStatus.OK, *answer))

    async def _write_due(self, taken: list[Waiting]) -> None:
        """What became due, in an entry of its own, after these rounds were answered: looking for it
        takes a few ms in a large shard, which nobody's reservation need wait for."""
        if not _have_lines(taken) or not self._is_due():
            return
        for _ in range(TURNS_OF_AN_ANSWER):
            await asyncio.sleep(0)
        now_ms = self._begin_entry(taken)
        records: list[Any] = []
        self._decide_due(now_ms, records)
        if records:
            await self._store(now_ms, records, [])

    def _begin_entry(self, taken: list[Waiting]) -> int:
        """The time of the entry that these rounds make, or cause."""
        sent_ms = max(waiting.round.sent_ms for waiting in taken)
        now_ms = self._time.now_ms(sent_ms, self._now())
        open_entry(self.state, self.last_seq + 1, now_ms)
        return now_ms

    async def _store(self, now_ms: int, records: list[Any], taken: list[Waiting]) -> None:
        """Append the open entry; it is durable on return."""
        seq = self.last_seq + 1
        entry = pack_entry(
            epoch=self.identity.epoch,
            now_ms=now_ms,
            records=records,
            balances=close_entry(self.state),
        )
        await self._until_definite(lambda: self._append(seq, entry), taken)
        self.last_seq = seq
        self.counters["entries"] += 1
        self.counters["records"] += len(records)

    def _decide_round(
        self, waiting: Waiting, now_ms: int, records: list[Any]
    ) -> tuple[tuple[tuple[Any, ...], ...], tuple[tuple[Any, ...], ...]]:
        """Answers to its lines, and chores."""
        round_ = waiting.round
        # A line's deadline is of its gateway's clock, so it is held against that clock, moved on by
        # the time the round waited here: this shard's own time may have followed a jump.
        shown_ms = self._senders.shown_ms(round_.gateway, round_.sent_ms, waiting.received_at)
        sender_ms = shown_ms + int((self._now() - waiting.received_at) * 1000)
        answers = tuple(
            [self._decide_line(line, sender_ms, now_ms, records) for line in round_.lines]
        )
        self.counters["lines"] += len(answers)
        found = chores(self.state, now_ms) if round_.wants_chores else ()
        return answers, found

    def _decide_line(
        self, line: tuple[Any, ...], sender_ms: int, now_ms: int, records: list[Any]
    ) -> tuple[Any, ...]:
        try:
            kind = line[0]
            if line[1] not in self._owned:
                return _WRONG_SHARD
            if kind in c.OF_MANY_SLOTS and not self._owned.issuperset(c.slots_within(line)):
                return _WRONG_SHARD
            if line[2] < sender_ms:
                return _RETRY
            full = self.full_percent
            if full >= FULL_FOR_NEW_PERCENT and not has_room_for(line, full):
                return _RETRY
            command = c.MAKE[kind](line)
        except Exception:  # A poison line must not take the shard with it.
            log.exception("line_failed", shard=self.identity.shard, line=repr(line)[:100])
            self.counters["internal"] += 1
            return _INTERNAL
        try:
            # Any other exception in here must end the process: nothing is journalled yet.
            return act(self.state, command, now_ms, records)
        except Undecided as failed:  # As above.
            log.exception("line_failed", shard=self.identity.shard, line=repr(line)[:100])
            self.counters["internal"] += 1
            return failed.answer

    def _fold(self, decided: Sequence[Any], records: list[Any]) -> None:
        state = self.state
        for record in decided:
            evolve(state, record)
            records.append(record)

    def _decide_due(self, now_ms: int, records: list[Any]) -> None:
        """Expiries and revocations, folded like any other record. Not while it is quiet: after a
        promotion or a stall the confirms that wait come first."""
        if not self._is_due():
            return
        room = self._limits.expiries_a_round
        due = self._pulse.expiries(self.state, now_ms, room)
        if len(due) < room:
            # All slots were looked at, which at thousands of rounds a second would cost too much.
            self._due_at = self._later(DUE_EVERY_MS)
        self._fold(due, records)
        if len(due) < room:
            ends = self._pulse.teams(self.state, now_ms, self._limits.team_records_a_round)
            self._fold(ends, records)
            self._fold(self._pulse.risk(self.state, now_ms, room - len(due)), records)
        if self.state.programmes and len(due) < room:
            self._fold(self._pulse.commission(self.state, now_ms, room), records)
        if self.state.debtors and len(due) < room:
            self._fold(self._pulse.revocations(self.state, room - len(due)), records)
        if not due:
            age = {"recall_after_ms": self._limits.recall_after_ms, "sink_seq": self.sink_seq}
            for look_on in self._forgets:
                self._fold(look_on(self.state, now_ms=now_ms, limit=room, **age), records)

    def _is_due(self) -> bool:
        """Whether it is time to look for what is due."""
        if self.full_percent >= 100:
            return False
        return self._now() >= max(self._quiet_until, self._due_at)

    async def _append(self, seq: int, entry: bytes) -> None:
        await self._journal.append(
            incarnation=self.identity.incarnation,
            epoch=self.identity.epoch,
            seq=seq,
            batch_id=f"{self.identity.token}:{seq}",
            entry=entry,
        )

    async def _check(self) -> None:
        await self._journal.check(incarnation=self.identity.incarnation, epoch=self.identity.epoch)

    async def _until_definite(
        self, call: Callable[[], Awaitable[None]], taken: list[Waiting]
    ) -> None:
        """Make a call, and make it again as it was until its outcome is definite. Raises what is
        final: Fenced, Conflict, NoJournal, Corrupt."""
        patience = _Patience(self._limits.append_patience_ms, lambda: self._stall(taken))
        try:
            while True:
                try:
                    await call()
                    break
                except StorageError as error:
                    if not error.retriable:
                        raise
                await asyncio.sleep(self._limits.resend_pause_ms / 1000)
        finally:
            patience.end()
        if self.stalled:
            self.stalled = False
            self._quiet_until = self._later(self._limits.expiry_grace_ms)
            log.info("journal_answers_again", shard=self.identity.shard)

    def _stall(self, taken: list[Waiting]) -> None:
        """The journal is slow: say so to everybody who waits."""
        if not self.stalled:
            log.warning("journal_slow", shard=self.identity.shard, queued=len(self._queue))
        self.stalled = True
        for waiting in taken:
            if not waiting.answer.done():
                unknown = tuple((Outcome.UNKNOWN,) for _ in waiting.round.lines)
                waiting.answer.set_result(self._answers(RoundStatus.OK, unknown))
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                waiting.answer.set_result(self._answers(RoundStatus.BUSY, ()))

    def _answers(
        self,
        status: RoundStatus,
        answers: tuple[tuple[Any, ...], ...],
        found: tuple[tuple[Any, ...], ...] = (),
    ) -> Answers:
        token = self.identity.token
        return Answers(status, self.identity.epoch, token, token, answers, found, self.last_seq)

    async def _stay_sure(self) -> None:
        """A primary that nobody calls asks the journal by itself whether it still is one.

        Gateways leave a paused primary for its successor and never call it again: without this it
        would go on for ever as one that was fenced and does not know, and its shard would have no
        standby."""
        pause_ms = self._limits.housekeeping_ms
        while True:
            await asyncio.sleep(pause_ms / 1000)
            if (self._now() - self._taken_at) * 1000 >= pause_ms:
                await self.submit(Round("", 0, 0, False, ()))

    async def _keep_house(self) -> None:
        """Measure the journal, and trim what no snapshot and no reader needs."""
        while True:
            await asyncio.sleep(self._limits.housekeeping_ms / 1000)
            try:
                self.journal_bytes = await self._reader.bytes_used()
                self.full_percent = self.journal_bytes * 100 // self._limits.journal_bytes_max
                positions = await self._reader.positions()
                self.sink_seq = min(
                    (positions.get(name, 0) for name in self._readers.first), default=0
                )
                late = [positions.get(name, 0) for name in self._readers.late]
                self._late_seq = min(late, default=None)
                await self._trim()
            except StorageError as error:
                log.warning("housekeeping_failed", shard=self.identity.shard, error=str(error))

    async def _trim(self) -> None:
        # A store may still hold snapshots of another cluster, whose numbers mean nothing here.
        begins = [
            info.begin_seq
            for info in await self._snapshots.list()
            if info.incarnation == self.identity.incarnation
        ]
        if len(begins) < 2:
            return
        needed = min(*begins, self.sink_seq) if self._readers.first else min(begins)
        needed = await self._held_for_late(needed)
        removed = self._limits.trim_entries
        while removed == self._limits.trim_entries:
            removed = await self._reader.trim(
                before_seq=needed + 1, max_entries=self._limits.trim_entries
            )
        self.first_seq = needed + 1

    async def _held_for_late(self, needed: int) -> int:
        """How far is trimmed if, but for late readers, it would be to `needed`. A reader that is
        stuck must not fill the journal until the shard refuses sales."""
        if self._late_seq is None or self._late_seq >= needed:
            return needed
        meta = await self._reader.read_meta()
        held = meta.last_seq - meta.first_seq + 1
        alone = needed - max(self._late_seq, meta.first_seq - 1)
        alone_bytes = self.journal_bytes * alone // max(held, 1)
        if alone_bytes * 100 <= self._limits.journal_bytes_max * self._limits.late_hold_percent:
            return self._late_seq
        log.warning(
            "late_reader_not_waited_for",
            shard=self.identity.shard,
            position=self._late_seq,
            trimmed_to=needed,
        )
        return needed

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _later(self, wait_ms: int) -> float:
        return self._now() + wait_ms / 1000
