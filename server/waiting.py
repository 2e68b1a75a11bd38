"""Lines on their way to a shard, alone or many in a parcel, and those who wait for their answers.

A parcel is lines of one submit for one shard with one deadline. It is packed, queued, sent and
answered as one, which costs a line a tenth of what it costs alone. Only when a primary died with it
is it taken apart: from then on each line is looked at by itself.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from actors.core.outcomes import Outcome
from actors.rounds import pack_line, pack_lines

log = structlog.get_logger()

Answer = tuple[Any, ...]
RETRY: Answer = (Outcome.RETRY,)
UNKNOWN: Answer = (Outcome.UNKNOWN,)
INTERNAL: Answer = (Outcome.INTERNAL,)

_UNDONE = frozenset({int(Outcome.WRONG_SHARD), int(Outcome.RETRY)})
"""What a shard says of a line that it did not decide."""


class Waiting(Protocol):
    """What a sender queues: one line or a parcel of them."""

    packed: bytes
    deadline_ms: int
    deaths: int
    """How many primaries died with it."""
    answered: bool
    """Whether it has its answer, if only that its time was up: nobody waits for another."""
    sent: bool
    lost: bool
    """A round with it got no answer, so it may have been done."""

    @property
    def count(self) -> int:
        """Lines in it."""

    def answer(self, answer: Answer) -> None:
        """Deliver to all its lines, once; a later answer of what was resent is dropped."""

    def take(self, answers: Sequence[Answer], at: int) -> int:
        """Deliver a shard's answers, of which its own begin at `at`; answers where they end."""

    def undone(self) -> None:
        """Deliver that this attempt did nothing: UNKNOWN if an earlier one may have."""

    def lines(self) -> Sequence["Line"]:
        """Its lines, each by itself. Answers to them count, and to it no more."""


class Line:
    """One command on its way, and who is told its answer."""

    __slots__ = ("_tell", "answered", "deadline_ms", "deaths", "lost", "packed", "sent")

    count = 1

    def __init__(self, packed: bytes, deadline_ms: int, tell: Callable[[Answer], object]) -> None:
        self.packed = packed
        self.deadline_ms = deadline_ms
        self.deaths = 0
        self.answered = False
        self.sent = False
        self.lost = False
        self._tell = tell

    def answer(self, answer: Answer) -> None:
        """See `Waiting`. Who is told may fail: that ends nothing here."""
        if self.answered:
            return
        self.answered = True
        try:
            self._tell(answer)
        except Exception:  # It must not take other callers' answers with it.
            log.exception("answer_not_taken")

    def take(self, answers: Sequence[Answer], at: int) -> int:
        """See `Waiting`."""
        answer = answers[at]
        if answer[0] in _UNDONE:
            self.undone()
        else:
            self.answer(answer)
        return at + 1

    def undone(self) -> None:
        """See `Waiting`."""
        self.answer(UNKNOWN if self.lost else RETRY)

    def lines(self) -> Sequence["Line"]:
        """See `Waiting`."""
        return (self,)


class Parcel:
    """Several commands of one submit for one shard."""

    __slots__ = (
        "_commands",
        "_group",
        "_places",
        "answered",
        "count",
        "deadline_ms",
        "deaths",
        "lost",
        "packed",
        "sent",
    )

    def __init__(
        self, commands: Sequence[Any], deadline_ms: int, group: "Group", places: Sequence[int]
    ) -> None:
        self.packed = pack_lines(commands)
        self.deadline_ms = deadline_ms
        self.count = len(commands)
        self.deaths = 0
        self.answered = False
        self.sent = False
        self.lost = False
        self._commands = commands
        self._group = group
        self._places = places

    def answer(self, answer: Answer) -> None:
        """See `Waiting`."""
        if not self.answered:
            self._deliver([answer] * self.count)

    def take(self, answers: Sequence[Answer], at: int) -> int:
        """See `Waiting`."""
        end = at + self.count
        if self.answered:
            return end
        own = answers[at:end]
        if not _UNDONE.isdisjoint([answer[0] for answer in own]):
            instead = UNKNOWN if self.lost else RETRY
            own = [instead if answer[0] in _UNDONE else answer for answer in own]
        self._deliver(own)
        return end

    def undone(self) -> None:
        """See `Waiting`."""
        self.answer(UNKNOWN if self.lost else RETRY)

    def lines(self) -> Sequence[Line]:
        """See `Waiting`."""
        if self.answered:
            return ()
        self.answered = True
        lines = [
            Line(pack_line(command), self.deadline_ms, partial(self._group.put, place))
            for command, place in zip(self._commands, self._places, strict=True)
        ]
        for line in lines:
            line.sent, line.lost, line.deaths = self.sent, self.lost, self.deaths
        return lines

    def _deliver(self, answers: Sequence[Answer]) -> None:
        self.answered = True
        self._group.fill(self._places, answers)


class Group:
    """The lines of one submit; done when all are answered."""

    __slots__ = ("answers", "done", "missing")

    def __init__(self, size: int) -> None:
        self.answers: list[Answer] = [UNKNOWN] * size
        self.missing = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, place: int, answer: Answer) -> None:
        """The answer to one line. Called once for each."""
        self.answers[place] = answer
        self._told(1)

    def fill(self, places: Sequence[int], answers: Sequence[Answer]) -> None:
        """The answers to the lines at these places. Called once for each."""
        if isinstance(places, range):
            self.answers[places.start : places.stop] = answers
        else:
            for place, answer in zip(places, answers, strict=True):
                self.answers[place] = answer
        self._told(len(answers))

    def _told(self, count: int) -> None:
        self.missing -= count
        # Cancelled when its caller went away.
        if not self.missing and not self.done.done():
            self.done.set_result(None)
