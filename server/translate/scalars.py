"""Instants, durations, advice to wait, and the slots of keys."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from stockray_proto.v1 import common_pb2

from actors.core.identity import SLOT_COUNT, slot_of
from actors.core.outcomes import Outcome

RETRY_AFTER = Duration(nanos=100_000_000)
"""Advice with RETRY and UNKNOWN: about what a failover takes to be noticed."""
WAITING = (Outcome.RETRY, Outcome.UNKNOWN)
KEYS_REMEMBERED_MAX = 65_536


def stamp(at_ms: int) -> Timestamp:
    """A Timestamp of milliseconds since 1970."""
    return Timestamp(seconds=at_ms // 1_000, nanos=at_ms % 1_000 * 1_000_000)


def stamp_or_none(at_ms: int) -> Timestamp | None:
    """A Timestamp, or None (an unset field) for 0."""
    return stamp(at_ms) if at_ms else None


def duration(length_ms: int) -> Duration:
    """A Duration of milliseconds."""
    return Duration(seconds=length_ms // 1_000, nanos=length_ms % 1_000 * 1_000_000)


def retry_after(outcome: int) -> Duration | None:
    """The advice that goes with an outcome; None (an unset field) for most."""
    return RETRY_AFTER if outcome in WAITING else None


def advice_of(answer: Sequence[Any]) -> Duration | None:
    """The advice that goes with an answer: what the edge says of a rate, else `retry_after`."""
    if answer[0] == Outcome.RATE_LIMITED:
        return duration(answer[2])
    return retry_after(answer[0])


def age_of(
    as_of_ms: int, now_ms: int, source: common_pb2.DataSource.ValueType
) -> common_pb2.DataAge:
    """How old a read is; an instant ahead of this gateway's clock is 0 old."""
    return common_pb2.DataAge(
        as_of_time=stamp(as_of_ms), age=duration(max(0, now_ms - as_of_ms)), source=source
    )


def slot_in_id(public_id: str) -> int:
    """The slot that a well-formed reservation or refund id carries."""
    slot = int(public_id[:3], 16)
    assert slot < SLOT_COUNT
    return slot


class SlotMemory(dict[str, int]):
    """key -> slot for the keys seen lately: campaigns and SKUs are few and come often.

    Forgets all when it is full; `memory[key]` is 30 ns for a known key, 300 for a new one."""

    def __missing__(self, key: str) -> int:
        if len(self) >= KEYS_REMEMBERED_MAX:
            self.clear()
        slot = self[key] = slot_of(key)
        return slot


SLOT_OF_KEY = SlotMemory()


def slot_of_pool(campaign_id: str, sku_id: str) -> int:
    """Where a pool lives: a campaign's in the campaign's slot, a base pool in its SKU's."""
    return SLOT_OF_KEY[campaign_id or sku_id]
