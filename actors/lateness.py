"""Rounds that come too late: what a gateway's clock shows by now, by its newest rounds.

A line is not decided past its deadline, which is of its gateway's clock. A round says when it was
sent, but not how long it was on its way. One that was stuck for longer than a refusal is remembered
could have a request decided that was told no long ago, and so turn the no into a yes. A gateway
sends at least every 200 ms, and its rounds arrive in about the order in which they left: so one
that was sent long before another that is here already is late, and its lines are held against the
time of that other.

A connection on which nothing moved for a while delivers at once all that was sent meanwhile, the
oldest first, and so does the socket of a process that was stopped. So silence before a late round
proves nothing; only if for a second nothing but late rounds comes was it the gateway's clock that
went back.
"""

from typing import NamedTuple

LATE_MS = 2_000
"""A round this much older than what came from its gateway before is late. Twice a gateway's
patience with a round; and with a call of 10 s well within the 15 s that a refusal is remembered."""
ONLY_LATE_S = 1.0
"""Nothing but late rounds for this long: the gateway's clock went back, and they are not late at
all."""
GATEWAYS_MAX = 1_024
"""Gateways remembered; who was first known is forgotten first, and is then known anew."""


class _Heard(NamedTuple):
    offset_ms: float
    """The gateway's clock less the loop's."""
    late_since_s: float | None = None
    """When the first of the late rounds was received that came since."""


class SenderClocks:
    """The clocks of the gateways that call a primary."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def shown_ms(self, gateway: str, sent_ms: int, received_at_s: float) -> int:
        """What the gateway's clock showed when a round that it sent at `sent_ms` was received; the
        loop's clock showed `received_at_s` then. `sent_ms`, unless the round is late."""
        offset_ms = sent_ms - received_at_s * 1000
        heard = self._heard.get(gateway)
        if heard is not None and offset_ms < heard.offset_ms - LATE_MS:
            since_s = received_at_s if heard.late_since_s is None else heard.late_since_s
            if received_at_s - since_s <= ONLY_LATE_S:
                self._heard[gateway] = _Heard(heard.offset_ms, since_s)
                return int(heard.offset_ms + received_at_s * 1000)
        elif heard is None and len(self._heard) >= GATEWAYS_MAX:
            del self._heard[next(iter(self._heard))]
        self._heard[gateway] = _Heard(offset_ms)
        return sent_ms
