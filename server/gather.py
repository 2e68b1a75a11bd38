"""Gathering: lines of many callers become rounds to the shards, and come back as answers.

How it works
------------
Each shard has a sender with one queue and two rounds in flight. What arrives while both fly waits
and makes the next round: an idle system answers in one call, a busy one batches itself, and there
is no timer. A round is cut below 100 kB, where Ray stops sending in line.

When a round is lost
--------------------
* A round has a deadline of its own, and a shard not called for 200 ms gets an empty round, which
  drives its time and expiry. Who is primary is the business of `finding.py`.
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
from functools import partial
from typing import Any

import structlog

from actors.clock import Clock
from actors.links import Link, LinkClosed
from actors.rounds import (
    Answers,
    MalformedRound,
    RoundStatus,
    pack_line,
    pack_round,
    unpack_answers,
)
from server.finding import PrimaryFinder, Replica
from server.flight import Bell, Flight
from server.waiting import INTERNAL, RETRY, UNKNOWN, Answer, Group, Line, Parcel, Waiting

log = structlog.get_logger()

CHORES_WAITING = 128
SLOT, DEADLINE = 1, 2
"""Where every command has them (`actors/core/commands.py`)."""
PARCEL_LINES_MAX = 250
PARCELS_A_ROUND = 4
"""Parcels are never cut, so they are made small enough that rounds are filled to three quarters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherLimits:
    """A sender's limits and times, in milliseconds and bytes."""

    rounds_in_flight: int = 2
    round_bytes: int = 90_000
    """Below the 100 kB at which Ray leaves its in-line path, which costs five times as much."""
    round_lines: int = 1_000
    round_timeout_ms: int = 750
    """A round unanswered for this long (and `SWEEP_EVERY_MS` at most): its primary is suspected,
    and asked for nearly as long again before anybody is promoted in its place."""
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


SWEEP_EVERY_MS = 100
SPLIT_LINES = 16
"""So many waiting lines are worth two rounds."""

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
        self._gateway = gateway
        self._replicas = [Replica(name, link) for name, link in links]
        self._finder = PrimaryFinder(
            shard=shard,
            replicas=self._replicas,
            empty_round=lambda: self._pack([]),
            answer_timeout_ms=limits.round_timeout_ms,
            promotion_gap_ms=limits.promotion_gap_ms,
        )
        self._clock = clock
        self._limits = limits
        self._round_timeout_s = limits.round_timeout_ms / 1000
        self._map_version = map_version
        self._on_chore = on_chore
        self._queue: deque[Waiting] = deque()
        self._queued = 0
        self._suspects: deque[Line] = deque()
        self._chores: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue(CHORES_WAITING)
        self._bell = Bell()
        self._careful = asyncio.Lock()
        self._flying: list[Flight] = []
        self._called_at = 0.0
        self._chores_at = 0.0
        self._busy_since: float | None = None

    def put(self, line: Waiting) -> None:
        """Queue a line or a parcel; RETRY at once if the queue is full."""
        queued = self._queued + line.count
        if queued > self._limits.queue_lines:
            line.answer(RETRY)
            return
        self._queued = queued
        self._queue.append(line)
        self._bell.ring()

    def put_many(
        self, commands: Sequence[Any], deadline_ms: int, group: Group, places: Sequence[int]
    ) -> None:
        """Queue commands of one deadline in parcels; RETRY at once to those the queue has no room
        for. `places` is where in the group their answers go."""
        limits = self._limits
        room = limits.queue_lines - self._queued
        if len(commands) > room:
            group.fill(places[room:], [RETRY] * (len(commands) - room))
        size = min(PARCEL_LINES_MAX, limits.round_lines)
        for at in range(0, min(room, len(commands)), size):
            end = min(at + size, room)
            self._put_parcel(commands[at:end], deadline_ms, group, places[at:end])

    def _put_parcel(
        self, commands: Sequence[Any], deadline_ms: int, group: Group, places: Sequence[int]
    ) -> None:
        parcel = Parcel(commands, deadline_ms, group, places)
        half = len(commands) // 2
        if half and len(parcel.packed) > self._limits.round_bytes // PARCELS_A_ROUND:
            self._put_parcel(commands[:half], deadline_ms, group, places[:half])
            self._put_parcel(commands[half:], deadline_ms, group, places[half:])
        else:
            self.put(parcel)

    @property
    def queued(self) -> int:
        """Lines that wait."""
        return self._queued + len(self._suspects)

    @property
    def epoch(self) -> int:
        """The highest epoch that an answer carried."""
        return self._finder.epoch

    @property
    def last_seq(self) -> int:
        """Of the newest entry that an answer rests on."""
        return self._finder.last_seq

    @property
    def failovers(self) -> int:
        """Promotions that this sender asked for and got."""
        return self._finder.failovers

    @property
    def false_alarms(self) -> int:
        """Those of them that nobody's death explains, as far as this gateway knows."""
        return self._finder.false_alarms

    @property
    def ready(self) -> asyncio.Event:
        """Set while a primary is known."""
        return self._finder.ready

    @property
    def primary_name(self) -> str:
        """Which replica is primary as far as known; '' while it is being found out."""
        return "" if self._finder.primary is None else self._finder.primary.name

    async def run(self) -> None:
        """Send for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._limits.rounds_in_flight):
                tasks.create_task(self._send_rounds())
            tasks.create_task(self._keep_alive())
            tasks.create_task(self._sweep())
            tasks.create_task(self._do_chores())
            tasks.create_task(self._finder.stay_acquainted())

    async def control(self, replica: str, method: str, *arguments: Any) -> Any:
        """A control call to the replica of this name. LinkClosed."""
        for known in self._replicas:
            if known.name == replica:
                return await known.link.control(method, *arguments)
        raise LinkClosed(f"no replica {replica}")

    async def _send_rounds(self) -> None:
        while True:
            if not self._queue and not self._suspects:
                await self._bell.wait()
            # First the primary, then the lines: while it is looked for they wait in the queue,
            # where their deadlines are watched.
            primary = self._finder.primary or await self._finder.find()
            if self._suspects:
                await self._send_suspects()
                continue
            lines = self._take()
            if self._queue:
                self._bell.ring()
            if lines:
                await self._send(primary, lines)

    async def _send_suspects(self) -> None:
        """One round of them at a time: two that die together could not be told apart."""
        if self._careful.locked():
            async with self._careful:
                return
        async with self._careful:
            # Released but promised to a waiter, the lock looks free and is not: the suspects may
            # have gone in that one's round.
            if self._suspects:
                # Who was primary before the wait may have died of the round that was waited for.
                primary = await self._finder.find()
                # Meanwhile their deadlines may have passed, and all of them have been answered.
                suspects = self._take_suspects() if self._suspects else []
                if self._queue:
                    self._bell.ring()
                if suspects:
                    await self._send(primary, suspects)

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
                await self._send(await self._finder.find(), [], wants_chores=wants_chores)

    async def _do_chores(self) -> None:
        """Finish what the shard found undone, one after the other. What fails is found again."""
        while True:
            chore = await self._chores.get()
            try:
                await self._on_chore(chore)
            except Exception:  # One chore must not end the gateway.
                log.exception("chore_failed", shard=self.shard, kind=chore[0])

    async def _sweep(self) -> None:
        """Answer lines whose time is up, waiting or flying, and give up rounds whose time is."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_MS / 1000)
            now_ms, silent_since = self._clock.now_ms(), self._now() - self._round_timeout_s
            late: list[Waiting] = []
            for flight in self._flying:
                if flight.began <= silent_since:
                    flight.give_up()
                late += [line for line in flight.lines if line.deadline_ms < now_ms]
            if any(line.deadline_ms < now_ms for line in self._queue):
                late += [line for line in self._queue if line.deadline_ms < now_ms]
                self._queue = deque(line for line in self._queue if line.deadline_ms >= now_ms)
                self._queued = sum(line.count for line in self._queue)
            if any(line.deadline_ms < now_ms for line in self._suspects):
                late += [line for line in self._suspects if line.deadline_ms < now_ms]
                self._suspects = deque(
                    line for line in self._suspects if line.deadline_ms >= now_ms
                )
            # Now that nothing is being looked through: who is told may put new lines.
            for line in late:
                line.answer(UNKNOWN if line.sent else RETRY)

    def _take_suspects(self) -> list[Waiting]:
        """Suspects of one death in a small round, those of more alone. The small rounds come first:
        who was in two of them has been told from the rest, and meets nobody any more."""
        suspects = self._suspects
        taken = [line for line in suspects if line.deaths == 1][: self._limits.suspects_a_round]
        taken = taken or [suspects[0]]
        chosen = set(taken)
        self._suspects = deque(line for line in suspects if line not in chosen)
        return [*taken]

    def _take(self) -> list[Waiting]:
        """The lines of the next round. With nothing on its way that is half of what waits: callers
        that are answered together ask together again, and in one round they would wait for the
        shard while it waits for them."""
        limits = self._limits
        most = limits.round_lines
        if self._queued >= SPLIT_LINES and not any(flight.lines for flight in self._flying):
            most = min(most, (self._queued + 1) // 2)
        taken: list[Waiting] = []
        count = size = 0
        queue = self._queue
        while queue:
            line = queue[0]
            count += line.count
            size += len(line.packed)
            if taken and (size > limits.round_bytes or count > most):
                break
            self._queued -= line.count
            taken.append(queue.popleft())
        return taken

    async def _send(
        self, primary: Replica, lines: list[Waiting], *, wants_chores: bool = False
    ) -> None:
        payload = self._pack(lines, wants_chores)
        for line in lines:
            line.sent = True
        self._called_at = now = self._now()
        flight = Flight(lines, now)
        self._flying.append(flight)
        try:
            answers = unpack_answers(await flight.land(primary.link.round(payload)))
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
        finally:
            self._flying.remove(flight)

    def _pack(self, lines: Sequence[Waiting], wants_chores: bool = False) -> bytes:
        return pack_round(
            gateway=self._gateway,
            sent_ms=self._clock.now_ms(),
            map_version=self._map_version,
            lines=[line.packed for line in lines],
            count=sum([line.count for line in lines]),
            wants_chores=wants_chores,
        )

    async def _answered(self, primary: Replica, lines: list[Waiting], answers: Answers) -> None:
        self._finder.learn(answers.epoch, answers.owner, answers.last_seq)
        found = answers.answers
        if answers.status is RoundStatus.OK and len(found) == sum([line.count for line in lines]):
            self._busy_since = None
            at = 0
            for line in lines:
                at = line.take(found, at)
            for chore in answers.chores:
                if not self._chores.full():
                    self._chores.put_nowait(chore)
        elif answers.status is RoundStatus.BUSY:
            await self._busy(lines)
        else:
            self._finder.doubt(primary)
            self._again(lines, never_sent=True)

    async def _busy(self, lines: list[Waiting]) -> None:
        now = self._now()
        if self._busy_since is None:
            self._busy_since = now
        if (now - self._busy_since) * 1000 > self._limits.busy_patience_ms:
            # Only OK proves ownership: who is cut off from the journal says BUSY for ever.
            self._finder.primary = None
            for line in lines:
                line.undone()
        else:
            self._again(lines, never_sent=True)
        await asyncio.sleep(self._limits.busy_pause_ms / 1000)

    def _lost(self, primary: Replica, lines: list[Waiting], *, died: bool) -> None:
        """A round without an answer: its lines may have been done."""
        self._finder.doubt(primary)
        for line in lines:
            line.lost = True
        if not died:
            self._again(lines)
            return
        # From here on each line is looked at by itself.
        for line in [line for parcel in lines for line in parcel.lines()]:
            line.deaths += 1
            if line.answered:
                continue
            if line.deaths >= self._limits.deaths_max:
                log.error("line_given_up", shard=self.shard, deaths=line.deaths)
                line.answer(INTERNAL)
            else:
                self._suspects.append(line)
        self._bell.ring()

    def _again(self, lines: list[Waiting], *, never_sent: bool = False) -> None:
        """Back to the head of the queue, in order. `never_sent`: the shard decided nothing."""
        for line in reversed(lines):
            if line.answered:
                continue
            if never_sent and not line.lost:
                line.sent = False
            if isinstance(line, Line) and line.deaths:
                self._suspects.appendleft(line)
            else:
                self._queue.appendleft(line)
                self._queued += line.count
        if lines:
            self._bell.ring()

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
        if len(commands) > 1 and len({command[DEADLINE] for command in commands}) == 1:
            self._put_many(commands, group)
        else:
            for place, command in enumerate(commands):
                self.put(command, partial(group.put, place))
        if commands:
            await group.done
        return group.answers

    def put(self, command: Any, on_answer: Callable[[Answer], object]) -> None:
        """See `Lines.put`."""
        line = Line(pack_line(command), command[DEADLINE], on_answer)
        self._sender_of[command[SLOT]].put(line)

    def _put_many(self, commands: Sequence[Any], group: Group) -> None:
        """Commands of one deadline, to each shard its own."""
        deadline_ms = commands[0][DEADLINE]
        places_of: dict[Sender, Sequence[int]] = {}
        sender_of = self._sender_of
        if len({sender_of[slot] for slot in {command[SLOT] for command in commands}}) == 1:
            places_of[sender_of[commands[0][SLOT]]] = range(len(commands))
        else:
            found: dict[Sender, list[int]] = {}
            for place, command in enumerate(commands):
                found.setdefault(sender_of[command[SLOT]], []).append(place)
            places_of.update(found)
        for sender, places in places_of.items():
            own = commands if len(places) == len(commands) else [commands[at] for at in places]
            sender.put_many(own, deadline_ms, group, places)

    def shard_of(self, slot: int) -> int:
        """The shard that owns the slot by the map in use."""
        return self._sender_of[slot].shard

    async def run(self) -> None:
        """Run all senders for ever."""
        async with asyncio.TaskGroup() as tasks:
            for sender in self.senders:
                tasks.create_task(sender.run())
