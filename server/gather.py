"""Gathering: lines of many callers become rounds to the shards, and come back as answers.

How it works
------------
Each shard has a sender with one queue and two rounds in flight. What arrives while both fly waits
and makes the next round: an idle system answers in one call, a busy one batches itself, and there
is no timer. A round is cut below 100 kB, where Ray stops sending in line.

Who is primary
--------------
* Every answer carries (epoch, owner). On NOT_PRIMARY the sender follows the highest epoch it has
  seen, and promotes nobody while that owner is one of the two instances it knows.
* A closed link is a dead primary, known at once. A silent one is not, so a round has a deadline of
  its own; and a shard not called for 200 ms gets an empty round, which drives its time and expiry.
* The standby is asked to take over with the epoch seen last; it says NOT_READY when it cannot, and
  then the sender goes back to the owner, until that one has been silent for 5 s.
* Lines whose round was lost are sent again, as they were: every command is idempotent by the
  caller's ids. Lines of a round that a primary died with are sent in small rounds, then one by one,
  and after three deaths given up (INTERNAL): a poison line must not take the shard along for ever.

A line is answered when its deadline comes, whatever happens: RETRY if it never left, UNKNOWN if it
did. The commit belongs to the sender's tasks: a caller that goes away tears nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from actors.clock import Clock
from actors.core.outcomes import Outcome
from actors.links import Link, LinkClosed
from actors.rounds import (
    Answers,
    MalformedRound,
    RoundStatus,
    pack_line,
    pack_round,
    unpack_answers,
)
from actors.shard import PromoteStatus

log = structlog.get_logger()

Answer = tuple[Any, ...]
CHORES_WAITING = 128
RETRY: Answer = (Outcome.RETRY,)
UNKNOWN: Answer = (Outcome.UNKNOWN,)
INTERNAL: Answer = (Outcome.INTERNAL,)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherLimits:
    """A sender's limits and times, in milliseconds and bytes."""

    rounds_in_flight: int = 2
    round_bytes: int = 90_000
    """Below the 100 kB at which Ray leaves its in-line path, which costs five times as much."""
    round_lines: int = 1_000
    round_timeout_ms: int = 1_000
    """A round unanswered for this long: its primary is suspected."""
    idle_ms: int = 200
    """A shard not called for this long gets an empty round."""
    busy_pause_ms: int = 10
    busy_patience_ms: int = 500
    """Lines of a shard that says BUSY for this long are answered RETRY."""
    promotion_gap_ms: int = 2_000
    """A shard whose owner is silent, not dead, is promoted at most once in this time."""
    queue_lines: int = 100_000
    """Lines that wait for one shard; more are answered RETRY at once."""
    suspects_a_round: int = 32
    deaths_max: int = 3
    chores_ms: int = 1_000
    """How often a shard is asked for unfinished work."""


class Line:
    """One command on its way, and where its answer goes."""

    __slots__ = ("deadline_ms", "deaths", "group", "index", "lost", "packed", "sent")

    def __init__(self, packed: bytes, deadline_ms: int, group: "Group", index: int) -> None:
        self.packed = packed
        self.deadline_ms = deadline_ms
        self.group = group
        self.index = index
        self.deaths = 0
        self.sent = False
        self.lost = False
        """A round with it got no answer, so it may have been done."""

    def answer(self, answer: Answer) -> None:
        """Deliver, once; a later answer of a resent line is dropped."""
        self.group.put(self.index, answer)

    def undone(self) -> None:
        """Deliver that this attempt did nothing: UNKNOWN if an earlier one may have."""
        self.answer(UNKNOWN if self.lost else RETRY)


class Group:
    """The lines of one submit; done when all are answered."""

    __slots__ = ("answers", "done", "missing")

    def __init__(self, size: int) -> None:
        self.answers: list[Answer | None] = [None] * size
        self.missing = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, index: int, answer: Answer) -> None:
        """Answer one line; a second answer to it changes nothing."""
        if self.answers[index] is not None:
            return
        self.answers[index] = answer
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)


class Replica:
    """One of a shard's two replicas, as the sender knows it."""

    __slots__ = ("link", "name")

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self.link = link


ChoreHandler = Callable[[tuple[Any, ...]], Awaitable[None]]


class Sender:
    """Sends one shard's lines to its primary, whoever that is."""

    def __init__(
        self,
        *,
        shard: int,
        gateway: str,
        links: Sequence[tuple[str, Link]],
        clock: Clock,
        limits: GatherLimits,
        map_version: int,
        on_chore: ChoreHandler,
    ) -> None:
        self.shard = shard
        self.epoch = 0
        self.owner = ""
        self.failovers = 0
        self.ready = asyncio.Event()
        self._gateway = gateway
        self._replicas = [Replica(name, link) for name, link in links]
        self._primary: Replica | None = None
        self._clock = clock
        self._limits = limits
        self._map_version = map_version
        self._on_chore = on_chore
        self._queue: deque[Line] = deque()
        self._suspects: deque[Line] = deque()
        self._chores: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue(CHORES_WAITING)
        self._work = asyncio.Event()
        self._finding = asyncio.Lock()
        self._careful = asyncio.Lock()
        self._called_at = 0.0
        self._chores_at = 0.0
        self._promoted_at = -1e9
        self._busy_since: float | None = None

    def put(self, line: Line) -> None:
        """Queue a line; RETRY at once if the queue is full."""
        if len(self._queue) >= self._limits.queue_lines:
            line.answer(RETRY)
            return
        self._queue.append(line)
        self._work.set()

    @property
    def queued(self) -> int:
        """Lines that wait."""
        return len(self._queue) + len(self._suspects)

    @property
    def primary_name(self) -> str:
        """Which replica is primary as far as known; '' while it is being found out."""
        return "" if self._primary is None else self._primary.name

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._limits.rounds_in_flight):
                tasks.create_task(self._send_rounds())
            tasks.create_task(self._keep_alive())
            tasks.create_task(self._sweep())
            tasks.create_task(self._do_chores())

    async def control(self, replica: str, method: str, *arguments: Any) -> Any:
        """A control call to the replica of this name. LinkClosed."""
        for known in self._replicas:
            if known.name == replica:
                return await known.link.control(method, *arguments)
        raise LinkClosed(f"no replica {replica}")

    async def _send_rounds(self) -> None:
        while True:
            await self._work.wait()
            # First the primary, then the lines: while it is looked for they wait in the queue,
            # where their deadlines are watched.
            primary = await self._find_primary()
            if self._suspects:
                await self._send_suspects(primary)
                continue
            lines = self._take()
            if not lines:
                self._work.clear()
                continue
            await self._send(primary, lines)

    async def _send_suspects(self, primary: Replica) -> None:
        """One round of them at a time: two that die together could not be told apart."""
        if self._careful.locked():
            async with self._careful:
                return
        async with self._careful:
            # Released but promised to a waiter, the lock looks free and is not: the suspects may
            # have gone in that one's round.
            if self._suspects:
                await self._send(primary, self._take_suspects())

    async def _keep_alive(self) -> None:
        """Empty rounds for a shard that nobody calls, now and then with a question for chores."""
        pause = self._limits.idle_ms / 1000
        while True:
            await asyncio.sleep(pause / 2)
            now = self._now()
            wants_chores = now - self._chores_at >= self._limits.chores_ms / 1000
            if wants_chores or now - self._called_at >= pause:
                if wants_chores:
                    self._chores_at = now
                await self._send(await self._find_primary(), [], wants_chores=wants_chores)

    async def _do_chores(self) -> None:
        """Finish what the shard found undone, one after the other. What fails is found again."""
        while True:
            chore = await self._chores.get()
            try:
                await self._on_chore(chore)
            except Exception:  # One chore must not end the gateway.
                log.exception("chore_failed", shard=self.shard, kind=chore[0])

    async def _sweep(self) -> None:
        """Answer waiting lines whose time is up."""
        while True:
            await asyncio.sleep(0.1)
            now_ms = self._clock.now_ms()
            for queue in (self._queue, self._suspects):
                if any(line.deadline_ms < now_ms for line in queue):
                    keep = [line for line in queue if not self._too_late(line, now_ms)]
                    queue.clear()
                    queue.extend(keep)

    def _too_late(self, line: Line, now_ms: int) -> bool:
        if line.deadline_ms >= now_ms:
            return False
        line.answer(UNKNOWN if line.sent else RETRY)
        return True

    def _take_suspects(self) -> list[Line]:
        """Suspects of one death in a small round, those of more alone. The small rounds come first:
        who was in two of them has been told from the rest, and meets nobody any more."""
        suspects = self._suspects
        taken = [line for line in suspects if line.deaths == 1][: self._limits.suspects_a_round]
        taken = taken or [suspects[0]]
        chosen = set(taken)
        self._suspects = deque(line for line in suspects if line not in chosen)
        return taken

    def _take(self) -> list[Line]:
        """The lines of the next round."""
        limits = self._limits
        taken: list[Line] = []
        size = 0
        queue = self._queue
        while queue and len(taken) < limits.round_lines:
            size += len(queue[0].packed)
            if taken and size > limits.round_bytes:
                break
            taken.append(queue.popleft())
        return taken

    async def _send(
        self, primary: Replica, lines: list[Line], *, wants_chores: bool = False
    ) -> None:
        payload = pack_round(
            gateway=self._gateway,
            sent_ms=self._clock.now_ms(),
            map_version=self._map_version,
            lines=[line.packed for line in lines],
            wants_chores=wants_chores,
        )
        for line in lines:
            line.sent = True
        self._called_at = self._now()
        try:
            async with asyncio.timeout(self._limits.round_timeout_ms / 1000):
                answers = unpack_answers(await primary.link.round(payload))
        except LinkClosed as error:
            log.warning("primary_closed", shard=self.shard, name=primary.name, error=str(error))
            self._lost(primary, lines, died=True)
        except TimeoutError:
            log.warning("primary_silent", shard=self.shard, name=primary.name)
            self._lost(primary, lines, died=False)
        except MalformedRound as error:
            log.error("malformed_answer", shard=self.shard, error=str(error))
            self._again(lines)
            await asyncio.sleep(self._limits.busy_pause_ms / 1000)
        else:
            await self._answered(primary, lines, answers)

    async def _answered(self, primary: Replica, lines: list[Line], answers: Answers) -> None:
        self._learn(answers.epoch, answers.owner)
        if answers.status is RoundStatus.OK and len(answers.answers) == len(lines):
            self._busy_since = None
            for line, answer in zip(lines, answers.answers, strict=True):
                if answer[0] in (Outcome.WRONG_SHARD, Outcome.RETRY):
                    line.undone()
                else:
                    line.answer(answer)
            for chore in answers.chores:
                if not self._chores.full():
                    self._chores.put_nowait(chore)
        elif answers.status is RoundStatus.BUSY:
            await self._busy(lines)
        else:
            if self._primary is primary:
                self._primary = None
                self.ready.clear()
            self._again(lines, never_sent=True)

    async def _busy(self, lines: list[Line]) -> None:
        now = self._now()
        if self._busy_since is None:
            self._busy_since = now
        if (now - self._busy_since) * 1000 > self._limits.busy_patience_ms:
            # Only OK proves ownership: who is cut off from the journal says BUSY for ever.
            self._primary = None
            for line in lines:
                line.undone()
        else:
            self._again(lines, never_sent=True)
        await asyncio.sleep(self._limits.busy_pause_ms / 1000)

    def _lost(self, primary: Replica, lines: list[Line], *, died: bool) -> None:
        """A round without an answer: its lines may have been done."""
        if self._primary is primary:
            self._primary = None
            self.ready.clear()
        for line in lines:
            line.lost = True
        if not died:
            self._again(lines)
            return
        for line in lines:
            line.deaths += 1
            if line.deaths >= self._limits.deaths_max:
                log.error("line_given_up", shard=self.shard, deaths=line.deaths)
                line.answer(INTERNAL)
            else:
                self._suspects.append(line)
        self._work.set()

    def _again(self, lines: list[Line], *, never_sent: bool = False) -> None:
        """Back to the head of the queue, in order. `never_sent`: the shard decided nothing."""
        for line in reversed(lines):
            if never_sent and not line.lost:
                line.sent = False
            (self._suspects if line.deaths else self._queue).appendleft(line)
        if lines:
            self._work.set()

    def _learn(self, epoch: int, owner: str) -> None:
        if epoch > self.epoch or (epoch == self.epoch and not self.owner):
            self.epoch, self.owner = epoch, owner

    async def _find_primary(self) -> Replica:
        """The primary, however long it takes to find or make one."""
        if self._primary is not None:
            return self._primary
        async with self._finding:
            attempts = 0
            while self._primary is None:
                if attempts:
                    await asyncio.sleep(0.02)
                attempts += 1
                await self._look()
            self.ready.set()
            return self._primary

    async def _look(self) -> None:
        """One attempt: follow the owner that is known, else have a standby take over."""
        silent: list[Replica] = []
        busy: list[tuple[int, Replica]] = []
        for replica in self._replicas:
            answers = await self._ask(replica)
            if answers is None:
                silent.append(replica)
                continue
            self._learn(answers.epoch, answers.owner)
            if answers.status is RoundStatus.OK and answers.epoch == self.epoch:
                self._primary = replica
                return
            if answers.status is RoundStatus.BUSY:
                busy.append((answers.epoch, replica))
        for epoch, replica in busy:
            if epoch == self.epoch:
                self._primary = replica
                return
        owner = next((r for r in self._replicas if r.link.token == self.owner), None)
        if owner is not None and owner not in silent:
            return
        for replica in self._replicas:
            if replica is owner or replica in silent:
                continue
            # An owner that no instance answers for is dead, and waiting helps nobody; a silent one
            # may only be slow, and promotions back and forth would help nobody either.
            if owner is not None and self._promoted_lately():
                return
            if await self._promote(replica):
                return

    async def _ask(self, replica: Replica) -> Answers | None:
        """An empty round to a replica, after a hello if its instance may be a new one."""
        payload = pack_round(
            gateway=self._gateway,
            sent_ms=self._clock.now_ms(),
            map_version=self._map_version,
            lines=(),
        )
        try:
            async with asyncio.timeout(self._limits.round_timeout_ms / 4000):
                if not replica.link.token:
                    await replica.link.hello()
                answers = unpack_answers(await replica.link.round(payload))
                if answers.token != replica.link.token:
                    await replica.link.hello()
        except LinkClosed:
            replica.link.forget()
            return None
        except (TimeoutError, MalformedRound):
            return None
        return answers

    def _promoted_lately(self) -> bool:
        return (self._now() - self._promoted_at) * 1000 < self._limits.promotion_gap_ms

    async def _promote(self, replica: Replica) -> bool:
        try:
            async with asyncio.timeout(self._limits.round_timeout_ms / 1000):
                status, epoch, owner = await replica.link.promote(self.epoch)
        except (LinkClosed, TimeoutError) as error:
            log.warning("promote_failed", shard=self.shard, name=replica.name, error=str(error))
            return False
        self._learn(epoch, owner)
        if status is not PromoteStatus.OK:
            return False
        self._promoted_at = self._now()
        self.failovers += 1
        self._primary = replica
        log.info("primary_found", shard=self.shard, name=replica.name, epoch=epoch)
        return True

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class Gather:
    """All senders of a gateway; where the services submit their commands."""

    def __init__(self, senders: Sequence[Sender], slots_of: Sequence[int]) -> None:
        self.senders = list(senders)
        self._sender_of = [self.senders[shard] for shard in slots_of]

    async def submit(self, commands: Sequence[Any]) -> Sequence[Answer]:
        """Answers, dense and in order. Never raises for a line; returns when all are answered,
        which is at the latest a moment after their deadlines."""
        group = Group(len(commands))
        for index, command in enumerate(commands):
            line = Line(pack_line(command), command.deadline_ms, group, index)
            self._sender_of[command.slot].put(line)
        if commands:
            await asyncio.shield(group.done)
        return [answer if answer is not None else UNKNOWN for answer in group.answers]

    def shard_of(self, slot: int) -> int:
        """The shard that owns the slot by the map in use."""
        return self._sender_of[slot].shard

    async def run(self) -> None:
        """Run all senders for ever."""
        async with asyncio.TaskGroup() as tasks:
            for sender in self.senders:
                tasks.create_task(sender.run())
