"""When what stood: a shard's effects by place, and which states a call may have met.

Part of `checks.py`, whose rules hold here.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from server.chaos.books import Held, Shelf
from server.chaos.history import Operation
from server.chaos.team_books import Team
from server.verify import Invariant


class Times:
    """One shard's effects by place, by when they were acknowledged, by when they were asked for."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, float, float, str]] = []
        self._ended: list[float] = []
        self._before: list[int] = []
        self._began: list[float] = []
        self._behind: list[int] = []

    def add(self, place: int, began_s: float, ended_s: float, mark: str) -> None:
        """An effect, asked for at `began_s`; told at `ended_s`, infinity if it never was."""
        self._spans.append((place, began_s, ended_s, mark))

    def seal(self) -> None:
        """All were added."""
        highest, lowest = 0, 1 << 62
        for place, _, ended_s, _ in sorted(self._spans, key=lambda span: span[2]):
            highest = max(highest, place)
            self._ended.append(ended_s)
            self._before.append(highest)
        for place, began_s, _, _ in sorted(self._spans, key=lambda span: -span[1]):
            lowest = min(lowest, place)
            self._began.append(-began_s)
            self._behind.append(lowest)

    def after(self, began_s: float) -> int:
        """A call that began then has its point at this place or behind."""
        index = bisect_left(self._ended, began_s)
        return self._before[index - 1] if index else 0

    def until(self, ended_s: float) -> int:
        """A call that ended then has its point before this place."""
        index = bisect_left(self._began, -ended_s)
        return self._behind[index - 1] if index else 1 << 62

    def check_order(self, shard: int, found: Invariant) -> None:
        """No effect lies behind one that was asked for after its acknowledgement."""
        latest, by = 0.0, ""
        for place, began_s, ended_s, mark in sorted(self._spans):
            found.check(
                ended_s >= latest,
                (
                    f"shard {shard}: {mark} stands at {place}, "
                    f"behind {by}, which was asked for after it was acknowledged"
                ),
            )
            if began_s > latest:
                latest, by = began_s, mark


def indexes(it: Shelf | Held | Team, after: int, until: int) -> Iterator[int]:
    """Which states stood at some place from `after` to before `until`."""
    first = max(0, bisect_right(it.places, after) - 1)
    yield from range(first, max(first, bisect_left(it.places, until)))


def seen(held: Held, after: int, until: int) -> Iterator[tuple[str, int]]:
    """The states of a reservation in a window."""
    return (held.states[index] for index in indexes(held, after, until))


def brief(call: Operation) -> str:
    """A call in a few words."""
    what = f"{call.campaign_id or '(base)'}/{call.sku_id}" if call.sku_id else call.reservation_id
    what = call.team_id or what
    return f"#{call.number} {call.verb} {what} {call.buyer_id} ({call.mark or 'read'})"
