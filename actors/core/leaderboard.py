"""The first of a month, kept as scores change, so that nobody counts 200,000 distributors to read.

A `Top` has the best of a board: up to `KEPT` members with their scores, and with `floor` a rank
that nobody else is above. Who comes above it becomes a member; a member who falls below it is none
any more, for it is not known whether somebody else is better. So the members are always the best
there are, and a reader of ten finds them until so many members fell that fewer are left: then the
read counts all distributors again. All of it is counted over the distributors, and in no snapshot.
"""

from collections.abc import Iterable
from heapq import nsmallest

KEPT = 64
"""Of a board: this many less the ten that are read must fall before all are counted again."""
MONTHS_KEPT = 2
"""This month and the last are read."""

Rank = tuple[int, str]
"""(-score, name): the best is the smallest."""


class Top:
    """The best of one board and month."""

    __slots__ = ("floor", "members")

    def __init__(self) -> None:
        self.members: dict[str, int] = {}
        self.floor: Rank | None = None
        """Nobody but the members is above it; None: nobody else has a score."""

    def change(self, name: str, score: int) -> None:
        """The score of somebody is this from now on; not above 0 is none."""
        if score <= 0 or (self.floor is not None and (-score, name) >= self.floor):
            # Who falls to the floor or below is not above it, so the floor holds for him, too.
            self.members.pop(name, None)
            return
        self.members[name] = score
        if len(self.members) > KEPT:
            last = max((-score, name) for name, score in self.members.items())
            del self.members[last[1]]
            self.floor = last

    def knows(self, length: int) -> bool:
        """Whether the best `length` are among the members."""
        return self.floor is None or len(self.members) >= length

    def recount(self, ranks: Iterable[Rank]) -> None:
        """Begin anew with everybody who has a score."""
        best = nsmallest(KEPT + 1, ranks)
        self.members = {name: -score for score, name in best[:KEPT]}
        self.floor = best[KEPT] if len(best) > KEPT else None

    def best(self, length: int) -> tuple[tuple[str, int], ...]:
        """(name, score) of the best, equals by name."""
        ranks = ((-score, name) for name, score in self.members.items())
        return tuple((name, -score) for score, name in nsmallest(length, ranks))


class Boards:
    """The tops of the newest months, by board (the place of its score in a distributor's line)."""

    __slots__ = ("months",)

    def __init__(self) -> None:
        self.months: dict[int, dict[int, Top]] = {}
        """Month -> board -> top. A month that is newer than all is one without any scores."""

    def change(self, month: int, board: int, name: str, score: int) -> None:
        """A score of a month is this from now on."""
        tops = self.months.get(month)
        if tops is None:
            if not self._is_new(month):
                return
            tops = self.months[month] = {}
            while len(self.months) > MONTHS_KEPT:
                del self.months[min(self.months)]
        top = tops.get(board)
        if top is None:
            top = tops[board] = Top()
        top.change(name, score)

    def set_up(self, month: int, board: int) -> Top:
        """The top of a month, made if there is none."""
        tops = self.months.setdefault(month, {})
        return tops.get(board) or tops.setdefault(board, Top())

    def _is_new(self, month: int) -> bool:
        return len(self.months) < MONTHS_KEPT or month > min(self.months)

    def top(self, month: int, board: int) -> Top:
        """The top of a month; an empty one if it has no scores."""
        return self.months.get(month, {}).get(board) or Top()
