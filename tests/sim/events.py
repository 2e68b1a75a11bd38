"""What the real code logs, counted while a seed runs; with a story, told in it."""

import logging
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from tests.sim.loop import World

MEANS = {
    "primary_silent": "a round was lost and its lines sent again",
    "primary_closed": "a primary died with a round",
    "journal_slow": "a primary said that its journal is slow",
    "follower_reloads": "a trim forced a reload",
    "shard_halted": "a shard halted and said why",
    "promotion_not_ready": "a standby was not ready",
    "late_reader_not_waited_for": "a journal was trimmed before a late relay",
    "line_given_up": "a line was given up",
    "snapshot_published": "a snapshot was taken",
    "snapshot_failed": "a snapshot failed",
    "acquire_again": "a promotion was sent again",
    "projector_position_moved": "the projector met a moved position",
    "projector_waits": "the projector waited for a store",
    "row_not_recalled": "a row could not be recalled",
}
"""Events that show something interesting -> what."""


class Events:
    """Counts the events of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.counts: Counter[str] = Counter()

    def take(self, _: Any, level: str, event: MutableMapping[str, Any]) -> Any:
        """A structlog processor that ends the line here."""
        name = event.pop("event")
        self.counts[name] += 1
        if self.world.story is not None:
            said = " ".join(f"{key}={value}" for key, value in event.items())
            self.world.tell("log", "%s %s", name, said)
        raise structlog.DropEvent

    def sometimes(self) -> Counter[str]:
        """In the words of the report."""
        return Counter({MEANS[n]: count for n, count in self.counts.items() if n in MEANS})


@contextmanager
def listening(events: Events, *, story: bool) -> Iterator[None]:
    """Send all log events to `events`, and put back what was configured before."""
    before = structlog.get_config()
    level = logging.DEBUG if story else logging.INFO
    structlog.configure(
        processors=[events.take],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
