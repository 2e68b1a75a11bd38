"""How far the relay is. While it does not answer: as it said last, and later by the clock.

Positions only rise, so what was told last is true at least. What has come since is as old as that
answer at most.
"""

from collections.abc import Mapping, Sequence
from typing import Any

SILENT = "the relay does not answer"


class RelayStatus:
    """One gateway's view of it."""

    def __init__(self, stock_shards: int) -> None:
        self._told: dict[int, dict[str, Any]] = {shard: {} for shard in range(stock_shards)}
        self._told_s = 0.0

    def take(
        self, statuses: Sequence[dict[str, Any]] | None, now_s: float
    ) -> Mapping[int, dict[str, Any]]:
        """An answer, or None if there was none: by stock shard position, lag, trouble, facts set
        aside. A shard of which nothing is known has no position."""
        if statuses is None:
            since_ms = round((now_s - self._told_s) * 1000)
            return {
                shard: {**told, "trouble": SILENT}
                | ({"lag_ms": told["lag_ms"] + since_ms} if told else {})
                for shard, told in self._told.items()
            }
        # A relay that has just begun does not know its own positions yet.
        for status in statuses:
            told = self._told[status["shard"]]
            if status["position"] >= told.get("position", 0):
                self._told[status["shard"]] = dict(status)
            else:
                self._told[status["shard"]] = {**status, "position": told["position"]}
        self._told_s = now_s
        return dict(self._told)
