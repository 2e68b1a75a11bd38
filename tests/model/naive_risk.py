"""Risk as one says it: signals with their weights, failures with their times, freezes with an end.

Nothing is derived and nothing forgotten: every question is answered from all that ever happened.
"""

from typing import NamedTuple

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
WEIGHTS = {"hit": 2, "unpaid": 5, "failed": 10, "returned": 3}


class Signal(NamedTuple):
    """What a buyer did."""

    kind: str
    at_ms: int
    times: int = 1


class NaiveRisk:
    """All buyers."""

    def __init__(self) -> None:
        self.signals: dict[str, list[Signal]] = {}
        self.frozen: dict[str, tuple[int, str]] = {}
        """Buyer -> (until, by whom), of freezes that were not ended by hand."""
        self.counted: dict[str, list[int]] = {}
        """Failures that may yet freeze."""

    def signal(self, buyer: str, signal: Signal, now_ms: int) -> None:
        self.signals.setdefault(buyer, []).append(signal)
        if signal.kind != "failed":
            return
        failures = self.counted.setdefault(buyer, [])
        failures.append(signal.at_ms)
        failures.sort()
        for at, first_ms in enumerate(failures[:-2]):
            if failures[at + 2] - first_ms > 5 * MINUTE_MS:
                continue
            until_ms = failures[at + 2] + 24 * HOUR_MS
            if until_ms > max(now_ms, self.frozen_until(buyer, now_ms)):
                self.frozen[buyer] = (until_ms, "failures")
                failures.clear()
                return

    def freeze(self, buyer: str, until_ms: int) -> None:
        self.frozen[buyer] = (until_ms, "operator")
        self.counted.pop(buyer, None)

    def unfreeze(self, buyer: str, now_ms: int) -> None:
        if self.frozen_until(buyer, now_ms):
            self.counted.pop(buyer, None)
        self.frozen.pop(buyer, None)

    def frozen_until(self, buyer: str, now_ms: int) -> int:
        until_ms, _ = self.frozen.get(buyer, (0, ""))
        return until_ms if until_ms > now_ms else 0

    def by(self, buyer: str, now_ms: int) -> str:
        return self.frozen[buyer][1] if self.frozen_until(buyer, now_ms) else ""

    def score(self, buyer: str, now_ms: int) -> int:
        """Points are lost at once and come back hour by hour."""
        missing_ms, at_ms = 0, 0
        for signal in self.signals.get(buyer, ()):
            missing_ms = max(0, missing_ms - (signal.at_ms - at_ms))
            at_ms = signal.at_ms
            lost_ms = WEIGHTS[signal.kind] * signal.times * HOUR_MS
            missing_ms = min(100 * HOUR_MS, missing_ms + lost_ms)
        missing_ms = max(0, missing_ms - (now_ms - at_ms))
        return 100 - min(100, -(-missing_ms // HOUR_MS))
