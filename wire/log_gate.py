"""How often a listener may log about its peers: nobody can fill a disk by knocking.

Each connection logs its end at most once; strangers open connections for ever. So a listener has a
budget, and the next line that is let through says how many were withheld.
"""

import time

BURST = 20
LINES_PER_S = 1.0


class LogGate:
    """A token bucket for lines about peers. `allow` first, then `withheld` into the line."""

    __slots__ = ("_at_s", "_missed", "_tokens", "withheld")

    def __init__(self) -> None:
        self.withheld = 0
        """Lines that were not written between the last one and this one."""
        self._missed = 0
        self._tokens = float(BURST)
        self._at_s = time.monotonic()

    def allow(self) -> bool:
        """Whether one more line may be written now."""
        now_s = time.monotonic()
        more = self._tokens + (now_s - self._at_s) * LINES_PER_S
        self._tokens, self._at_s = min(float(BURST), more), now_s
        if self._tokens < 1:
            self._missed += 1
            return False
        self._tokens -= 1
        self.withheld, self._missed = self._missed, 0
        return True
