"""Who is over a line, as a gateway knows it: pulled from account shards, whole and then by change.

One `RiskSet` for each account shard. A set that must begin anew is put together beside the one
that stands, which holds until the new one is whole. What ends by itself (a freeze, a low score)
ends here by the clock, with nobody telling.
"""

from collections.abc import Sequence
from typing import Any

from actors.core.outcomes import Outcome

Watched = tuple[int, int]
"""(Frozen until, score is whole at), both in milliseconds, 0 for neither."""


class RiskSet:
    """What one account shard has published."""

    __slots__ = ("_coming", "cursor", "rows", "since", "taken_at")

    def __init__(self) -> None:
        self.rows: dict[str, Watched] = {}
        self.since = -1
        self.cursor = -1
        """Both as the next pull is to ask with."""
        self.taken_at: float | None = None
        """When it was asked for what made it whole last; None before the first time."""
        self._coming: dict[str, Watched] | None = None

    def take(self, answer: Sequence[Any], asked_at: float) -> bool:
        """The answer of `risk.pull_risk` to a question of that time; True if the next page is to be
        asked for now. What is no answer changes nothing but the age."""
        if answer[0] != Outcome.FOUND:
            return False
        _, anew, self.since, self.cursor, more, rows = answer
        if anew:
            self._coming = {}
        target = self.rows if self._coming is None else self._coming
        for buyer_id, frozen_until_ms, whole_ms in rows:
            if frozen_until_ms or whole_ms:
                target[buyer_id] = (frozen_until_ms, whole_ms)
            else:
                target.pop(buyer_id, None)
        if more:
            return True
        if self._coming is not None:
            self.rows, self._coming = self._coming, None
        self.taken_at = asked_at
        return False
