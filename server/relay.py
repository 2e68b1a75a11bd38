"""The relay: order facts from the journals of stock shards to account shards, each once in effect.

How it works
------------
Each stock shard's journal is followed as write-behind follows it. The records of an entry make
facts (`actors/core/order_facts.py`), each for one account slot, and these go to the account shard
in order, many to a line. An account shard takes facts only if they follow the one that it took last
of this source, and journals how far it is (its mark) in the entry of what they do. It may take the
first of a line and not the next: what it answers says how many, and why no more.

Rules
-----
* Nothing is known here that could be lost: at the start, and after any answer but yes, the marks
  are asked for again, and the reading goes on from there. A fact sent twice is noted, not taken.
* The journal of a stock shard is not trimmed beyond the mark that is furthest behind (reader
  "relay"). What a mark lacks of a journal that was made anew, the facts kept in SQL have.
* Lines of one source to one account shard wait for each other, so none overtakes another. Sources
  wait for each other where an order, or a second touch, must not be told before what bound its
  buyer (`server/frontier.py`).
* A fact about an order that left the account shard's memory is answered RECALL: the order's row is
  read from SQL, and the fact sent again with it. While SQL does not answer, the source waits.
* A fact on which the account shard fails three times is set aside: the mark moves over it, and the
  log and the status say so. It must neither keep others waiting nor the journal from being trimmed.
  Until what was read with it is sent each fact has a line of its own, for of a line whose primaries
  died with it nobody says which fact it was.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import structlog

from actors.clock import Clock
from actors.core.codec import UnreadableEntry, unpack_told
from actors.core.commands import RECALLED, Recalled
from actors.core.order_facts import FACT_KINDS, Addressed, order_facts
from actors.core.outcomes import Outcome
from actors.core.relay_commands import (
    ENTRY_END,
    GET_MARKS,
    TAKE_FACTS,
    GetMarks,
    Placed,
    TakeFacts,
)
from actors.core.state import NO_MARK, Mark
from actors.specs import RELAY_READER
from actors.threads import AsyncJournal
from persistence.errors import StorageError, Trimmed
from persistence.sql.views import KeptFacts
from server.frontier import Board, Claim, claim_of
from server.recall import recalled_order
from server.waiting import Answer

log = structlog.get_logger()

CALLER = "relay"
DRAIN_PAUSE_MS = 10
FAILURES_MAX = 3
"""Of one fact, before it is set aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """How much is read and sent at once, and how long is waited. Times are milliseconds."""

    read_bytes: int = 500_000
    window_facts: int = 1_000
    """On their way from one source to one account shard."""
    line_facts: int = 64
    """Of a line, at most: they take a primary less than a millisecond."""
    deadline_ms: int = 5_000
    gather_ms: int = 100
    """Between two reads, so that busy shards are read in larger pieces."""
    move_marks_ms: int = 1_000
    """How often marks are moved over entries without facts for their shard."""
    trouble_pause_ms: int = 500
    patience_ms: int = 10_000
    """With a source that is to tell first and makes no progress, before others go on without."""


class Accounts(Protocol):
    """The way to the account shards."""

    async def submit(self, shard: int, commands: Sequence[Any]) -> Sequence[Answer]:
        """Answers, dense and in order: the lines reach the shard in this order, or are answered
        RETRY or UNKNOWN."""


KeptReader = Callable[[int, int], Awaitable[KeptFacts]]
"""Facts of a shard after an entry that SQL keeps. StorageError."""
FindOrder = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""The row in SQL of an order that earned, by its reservation. StorageError."""


class Entry(NamedTuple):
    """An entry, or what SQL keeps of one."""

    seq: int
    at_ms: int
    records: Sequence[Any]


class Piece(NamedTuple):
    """Entries in order; all that there is up to `to_seq` is in them."""

    entries: Sequence[Entry]
    to_seq: int


def numbered_facts(
    slots_of: Sequence[int], records: Sequence[Any], at_ms: int
) -> Iterator[tuple[int, int, int, Any]]:
    """(Account shard, index, slot, fact) of an entry, numbered by account shard, of which one comes
    after the other."""
    found: dict[int, list[Addressed]] = {}
    for addressed in order_facts(records, at_ms):
        found.setdefault(slots_of[addressed[0]], []).append(addressed)
    for shard, facts in found.items():
        last_slot, last_fact = facts.pop()
        for index, (slot, fact) in enumerate(facts):
            yield shard, index, slot, fact
        yield shard, ENTRY_END, last_slot, last_fact


Numbered = tuple[int, Sequence[tuple[int, int, int, Any]]]
"""An entry's seq, and its facts as `numbered_facts` has them."""
_ALL = frozenset({int(Outcome.APPLIED), int(Outcome.NOTED)})
"""Answers that say that all facts of a line were taken."""
_SOME = frozenset({int(Outcome.RECALL), int(Outcome.INTERNAL)})
"""Answers that say how many, and are about the next one."""


class Doubt(Exception):
    """An account shard answered something else than yes: ask for its mark, and begin there."""


class Source:
    """Relays one stock shard."""

    def __init__(
        self,
        *,
        shard: int,
        journal: AsyncJournal,
        kept: KeptReader | None,
        find_order: FindOrder | None = None,
        accounts: Accounts,
        slots_of: Sequence[int],
        account_slots: Mapping[int, int],
        clock: Clock,
        limits: RelayLimits,
        board: Board | None = None,
    ) -> None:
        """`account_slots`: by account shard, one of its slots. Without `kept`, what the journal
        lacks is passed over; nothing leaves an account shard's memory without SQL, so without
        `find_order` nothing is to be found. `board`: of all sources that wait for each other."""
        self.shard = shard
        self.position = 0
        """All facts up to this entry were taken."""
        self.lag_entries = 0
        self.gap_entries = 0
        """Entries whose facts were kept nowhere any more."""
        self.set_aside = 0
        self.trouble = "starting"
        self.draining = False
        self._journal = journal
        self._kept = kept
        self._find_order = find_order
        self._accounts = accounts
        self._slots_of = slots_of
        self._account_slots = account_slots
        self._clock = clock
        self._limits = limits
        self._frontier = (board or Board(limits.patience_ms)).join(shard)
        self._incarnation = ""
        self._marks: dict[int, Mark] = {}
        self._moved_at = 0.0
        self._reported = -1
        self._passed_lag_ms = 0
        """How old the newest fact was when it was passed, if it was not the last one."""
        self._goal = (0, 0)
        """Where the journal ended, and when; not passed yet while there is a lag."""
        self._failures: dict[tuple[int, int, int], int] = {}
        """(Account shard, seq, index) -> how often the shard failed on it."""

    async def run(self) -> None:
        """Follow for ever, and wait out every trouble."""
        while True:
            try:
                await self._begin()
                while True:
                    self.trouble = ""
                    pause_ms = await self._step()
                    most_ms = DRAIN_PAUSE_MS if self.draining else self._limits.gather_ms
                    await asyncio.sleep(min(pause_ms, most_ms) / 1000)
            except (Doubt, StorageError) as error:
                if self.trouble != str(error):
                    log.warning("relay_waits", shard=self.shard, error=str(error))
                self.trouble = str(error)
            await asyncio.sleep(self._limits.trouble_pause_ms / 1000)

    @property
    def lag_ms(self) -> int:
        """How long facts wait. Grows while nothing is passed, whatever the trouble is."""
        if not self.lag_entries:
            return 0
        return max(self._passed_lag_ms, self._clock.now_ms() - self._goal[1])

    def status(self) -> dict[str, Any]:
        """What operators see of it. `marked`: every account shard has journalled that it is so far;
        what has no fact for a shard is marked a moment after `position` has passed it. `waits_for`:
        shards that are to tell first; `without`: those that it has waited for in vain."""
        return {
            "shard": self.shard,
            "position": self.position,
            "marked": self._marked(),
            "lag_entries": self.lag_entries,
            "lag_ms": self.lag_ms,
            "gap_entries": self.gap_entries,
            "set_aside": self.set_aside,
            "trouble": self.trouble,
            "waits_for": list(self._frontier.waits_for),
            "without": sorted(self._frontier.without),
        }

    async def _begin(self) -> None:
        """Ask every account shard how far it is."""
        meta = await self._journal.read_meta()
        if meta.incarnation != self._incarnation:
            self._incarnation, self._goal = meta.incarnation, (0, 0)
        self._measure(meta.last_seq, 0)
        self._frontier.begin()
        self._marks = await self._ask_all()
        furthest = max(seq for _, seq, _ in self._marks.values())
        if furthest > meta.last_seq:
            raise Doubt(
                f"facts of entry {furthest} were taken, and the journal ends at {meta.last_seq}"
            )
        self.position = self._marked()

    async def _ask_all(self) -> dict[int, Mark]:
        shards = list(self._account_slots)
        marks = await asyncio.gather(*(self._ask(one) for one in shards))
        return dict(zip(shards, marks, strict=True))

    async def _ask(self, shard: int) -> Mark:
        command = GetMarks(GET_MARKS, self._account_slots[shard], self._deadline_ms(), CALLER)
        (answer,) = await self._accounts.submit(shard, [command])
        if answer[0] != Outcome.FOUND:
            raise Doubt(f"account shard {shard} does not say its marks: {_told(answer)}")
        for source, *mark in answer[1]:
            if source == self.shard:
                incarnation, seq, index = mark
                return (incarnation, seq, index)
        return NO_MARK

    async def _step(self) -> float:
        """Relay what comes next. Answers for how long to wait before the next step."""
        self._frontier.look()
        meta = await self._journal.read_meta()
        if meta.incarnation != self._incarnation:
            raise Doubt("the journal was made anew")
        self._measure(meta.last_seq, 0)
        self._frontier.found(meta.last_seq, self.position)
        # Idle, it asks its journal for one thing a step, not for two.
        news = meta.last_seq > self.position
        piece = await self._read() if news else Piece((), self.position)
        if news:
            await self._send(piece)
        self._failures.clear()
        self.position = max(self.position, piece.to_seq)
        self._measure(meta.last_seq, piece.entries[-1].at_ms if piece.entries else 0)
        await self._move_marks()
        return self._limits.gather_ms if self.position >= meta.last_seq else 0

    def _measure(self, last_seq: int, at_ms: int) -> None:
        now_ms = self._clock.now_ms()
        self.lag_entries = max(0, last_seq - self.position)
        if self.position >= self._goal[0]:
            self._goal = (last_seq, now_ms)
        if not self.lag_entries:
            self._passed_lag_ms = 0
        elif at_ms:
            self._passed_lag_ms = max(0, now_ms - at_ms)

    async def _read(self) -> Piece:
        try:
            found = await self._journal.read(
                after_seq=self.position, max_bytes=self._limits.read_bytes
            )
        except Trimmed:
            return await self._read_kept()
        entries = [
            entry for one in found if (entry := self._decoded(one.seq, one.data)) is not None
        ]
        return Piece(entries, found[-1].seq if found else self.position)

    async def _read_kept(self) -> Piece:
        """The journal begins later: SQL may have what is missing."""
        first_seq = (await self._journal.read_meta()).first_seq
        if self._kept is None:
            return self._gap(first_seq - 1)
        kept = await self._kept(self.shard, self.position)
        if not kept.incarnation:
            raise Doubt("the journal begins later, and the database has nothing of this shard")
        if kept.after_seq > self.position:
            return self._gap(min(kept.after_seq, first_seq - 1))
        if kept.to_seq <= self.position:
            raise Doubt("the journal begins later, and the database has not come as far")
        entries = [
            entry for row in kept.rows if (entry := self._decoded(row.seq, row.data)) is not None
        ]
        return Piece(entries, kept.to_seq)

    def _gap(self, to_seq: int) -> Piece:
        """Go on behind what is gone. Before its first fact an account shard had none to lose."""
        if any(mark != NO_MARK for mark in self._marks.values()):
            self.gap_entries += to_seq - self.position
            log.error("relay_gap", shard=self.shard, after_seq=self.position, to_seq=to_seq)
        return Piece((), to_seq)

    def _decoded(self, seq: int, data: bytes) -> Entry | None:
        try:
            return Entry(seq, *unpack_told(data, FACT_KINDS))
        except UnreadableEntry as error:
            # The same entry stands among the dead letters of write-behind.
            log.error("relay_cannot_read", shard=self.shard, seq=seq, error=str(error))
            return None

    async def _send(self, piece: Piece) -> None:
        """Have all facts taken, each run of entries in its turn. Doubt."""
        told = [
            (seq, list(numbered_facts(self._slots_of, records, at_ms)))
            for seq, at_ms, records in piece.entries
        ]
        self._claim(piece, told)
        done = 0
        while done < len(told):
            free_seq = await self._frontier.turn(told[done][0], self._ask_all)
            end = bisect_right(told, free_seq, lo=done, key=itemgetter(0))
            await self._send_run(told[done:end])
            self._frontier.told(told[end - 1][0])
            done = end
        self._frontier.told(piece.to_seq)

    def _claim(self, piece: Piece, told: Sequence[Numbered]) -> None:
        """Say what of it waits for other sources, and they for it."""
        claims = () if self._frontier.alone else self._claims(piece, told)
        newest_ms = piece.entries[-1].at_ms if piece.entries else -1
        self._frontier.read(claims, newest_ms, piece.to_seq)

    @staticmethod
    def _claims(piece: Piece, told: Sequence[Numbered]) -> Iterator[Claim]:
        for entry, (_, facts) in zip(piece.entries, told, strict=True):
            claim = claim_of(entry.seq, entry.at_ms, [fact for *_, fact in facts])
            if claim is not None:
                yield claim

    async def _send_run(self, told: Sequence[Numbered]) -> None:
        due: dict[int, list[Placed]] = {shard: [] for shard in self._marks}
        for seq, facts in told:
            for shard, index, slot, fact in facts:
                due[shard].append((seq, index, slot, fact))
        sent = [self._send_to(shard, self._missing(shard, found)) for shard, found in due.items()]
        for error in await asyncio.gather(*sent, return_exceptions=True):
            if error is not None:
                raise error

    def _missing(self, shard: int, facts: list[Placed]) -> list[Placed]:
        """Without those that the shard has already, or fails on."""
        mark = self._marks[shard][1:]
        if facts and facts[0][:2] <= mark:
            facts = [placed for placed in facts if placed[:2] > mark]
        return [self._unless_failing(shard, one) for one in facts] if self._failures else facts

    def _unless_failing(self, shard: int, placed: Placed) -> Placed:
        seq, index, slot, fact = placed
        if self._failures.get((shard, seq, index), 0) < FAILURES_MAX:
            return placed
        self.set_aside += 1
        log.error("fact_set_aside", shard=self.shard, to=shard, seq=seq, fact=repr(fact))
        return (seq, index, slot, ())

    async def _send_to(self, shard: int, facts: Sequence[Placed]) -> None:
        done, size = 0, self._limits.window_facts
        while done < len(facts):
            lines = self._lines(shard, facts[done : done + size])
            answers = await self._accounts.submit(shard, lines)
            for line, answer in zip(lines, answers, strict=True):
                taken = self._heed(shard, line, answer)
                done += taken
                if taken < len(line.facts):
                    # Those behind it do not follow now, and are sent again.
                    await self._send_recalled(shard, line.facts[taken])
                    done += 1
                    break

    async def _send_recalled(self, shard: int, placed: Placed) -> None:
        """A fact with the row of its order, or with word that SQL has none."""
        (line,) = self._lines(shard, [placed])
        find, (*_, fact) = self._find_order, placed
        row = None if find is None else await find(fact.reservation_id)
        fields = () if row is None else recalled_order(row)
        head = (RECALLED, line.slot, self._deadline_ms(), CALLER)
        (answer,) = await self._accounts.submit(shard, [Recalled(*head, fields, line)])
        if not self._heed(shard, line, answer):
            raise Doubt(f"account shard {shard} answers {_told(answer)} again")

    def _lines(self, shard: int, facts: Sequence[Placed]) -> list[TakeFacts]:
        """Each follows the one before it, and the first one the mark."""
        slot, deadline_ms = self._account_slots[shard], self._deadline_ms()
        head = (TAKE_FACTS, slot, deadline_ms, CALLER, self.shard, self._incarnation)
        _, after_seq, after_index = self._marks[shard]
        size = 1 if self._failures else self._limits.line_facts
        lines = []
        for at in range(0, len(facts), size):
            some = facts[at : at + size]
            lines.append(TakeFacts(*head, after_seq, after_index, some))
            after_seq, after_index, *_ = some[-1]
        return lines

    def _heed(self, shard: int, line: TakeFacts, answer: Answer) -> int:
        """Answers how many facts of a line were taken: all, or those before one of which the row
        must be brought. Doubt."""
        outcome, *counted = answer
        taken = len(line.facts)
        if outcome not in _ALL:
            # Of a line that a primary died with nobody counted.
            taken = counted[0] if outcome in _SOME and counted else 0
        if taken:
            self._marks[shard] = (line.incarnation, *line.facts[taken - 1][:2])
        if outcome in _ALL or outcome == Outcome.RECALL:
            return taken
        if outcome == Outcome.INTERNAL:
            place = (shard, *line.facts[taken][:2])
            self._failures[place] = self._failures.get(place, 0) + 1
        raise Doubt(f"account shard {shard} answers {_told(answer)}")

    async def _move_marks(self) -> None:
        """Over entries that had nothing for a shard; tell the journal what is needed no more."""
        now = asyncio.get_running_loop().time()
        if (now - self._moved_at) * 1000 < self._limits.move_marks_ms and not self.draining:
            return
        self._moved_at = now
        behind = [shard for shard, mark in self._marks.items() if _whole(mark) < self.position]
        seq = self.position
        await asyncio.gather(
            *(
                self._send_to(shard, [(seq, ENTRY_END, self._account_slots[shard], ())])
                for shard in behind
            )
        )
        done = self._marked()
        if done > self._reported:
            await self._journal.set_position(RELAY_READER, done)
            self._reported = done

    def _marked(self) -> int:
        """The entry up to which every account shard has all; 0 before they were asked."""
        return min(map(_whole, self._marks.values()), default=0)

    def _deadline_ms(self) -> int:
        return self._clock.now_ms() + self._limits.deadline_ms


def _whole(mark: Mark) -> int:
    """The entry up to which nothing is missing."""
    _, seq, index = mark
    return seq if index == ENTRY_END else max(0, seq - 1)


def _told(answer: Answer) -> str:
    return Outcome(answer[0]).name
