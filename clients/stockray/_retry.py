"""What is sent again, and when: after doubling pauses with jitter, never shorter than the service
asks."""

from __future__ import annotations

import random
from datetime import timedelta

from stockray.enums import Status
from stockray.options import ClientOptions

UNKNOWN = Status.UNKNOWN.value
UNDECIDED = (Status.RETRY.value, UNKNOWN)
EDGE = frozenset(
    {
        Status.RATE_LIMITED.value,
        Status.BUYER_FROZEN.value,
        Status.INVALID.value,
        Status.INTERNAL.value,
    }
)
"""What a gateway may answer without asking the shard: it speaks of this attempt alone, so it does
not end what an attempt before it may have done."""
DOUBLINGS_MAX = 16
REPEAT_MIN_S = 0.02
"""Time that must be left after the pause for another attempt: one that is cut off at the deadline,
before its answer comes, makes a doubt of what was a no."""


def pause_s(options: ClientOptions, attempts: int, retry_after: timedelta | None) -> float:
    """Seconds to wait after so many failed attempts (from 1); jitter takes up to half."""
    doubled_ms = options.backoff_min_ms * (1 << min(attempts - 1, DOUBLINGS_MAX))
    own = min(doubled_ms, options.backoff_max_ms) / 1_000 * random.uniform(0.5, 1.0)
    if retry_after is None:
        return own
    # What the service asks for is a floor; jitter on top keeps waiters from coming back at once.
    return max(retry_after.total_seconds(), 0.0) + min(own, 0.05)
