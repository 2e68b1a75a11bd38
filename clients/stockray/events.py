"""The event feed as frozen values.

As in `records` and `results`: names and meanings are those of the messages in
`stockray_proto/v1/event_service.proto`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from stockray.commission import CommissionEntry
from stockray.enums import (
    DistributorState,
    FactKind,
    FreezeCause,
    FulfilmentStage,
    ReservationState,
    WithdrawalState,
)
from stockray.records import Attribution, Refund

__all__ = [
    "Fact",
    "FactBatch",
    "FactBuyer",
    "FeedCursor",
    "StockChanges",
    "format_cursors",
    "parse_cursors",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedCursor:
    """The place in a shard's feed up to which all was told."""

    shard: int
    seq: int
    index: int = 0
    incarnation: str = ""
    """Of which journal. A recovery makes another, and its cursors are refused; "" is not compared.
    """


def format_cursors(cursors: Iterable[FeedCursor]) -> str:
    """Cursors as one word, to be kept beside what was done with the facts."""
    return ",".join(f"{c.shard}:{c.seq}:{c.index}:{c.incarnation}" for c in cursors)


def parse_cursors(text: str) -> tuple[FeedCursor, ...]:
    """What `format_cursors` made. ValueError for anything else; "" has none."""
    found = []
    for word in filter(None, text.split(",")):
        parts = word.split(":")
        if len(parts) != 4 or not all(part.isdecimal() for part in parts[:3]):
            raise ValueError(f"{word!r} is no cursor: shard:seq:index:incarnation")
        shard, seq, index = map(int, parts[:3])
        found.append(FeedCursor(shard=shard, seq=seq, index=index, incarnation=parts[3]))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactBuyer:
    """A buyer as attested at reserve."""

    buyer_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StockChanges:
    """What a document changed of a pool, signed."""

    available_count: int
    buffer_count: int
    scheduled_count: int
    owed_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What was decided. Fields that its kind does not speak of are empty."""

    shard: int
    seq: int
    index: int
    kind: FactKind
    time: datetime | None
    """When; None for one that cannot be read."""
    campaign_id: str
    sku_id: str
    reservation_id: str
    team_id: str
    buyer_id: str
    caller: str
    request_id: str
    order_id: str
    buyer: FactBuyer | None
    attribution: Attribution | None
    quantity: int
    list_price_minor: int
    unit_price_minor: int
    payable_minor: int
    paid_minor: int
    currency_code: str
    payment_id: str
    payment_channel: str
    deadline_time: datetime | None
    reacquired: bool
    stage: FulfilmentStage
    refund: Refund | None
    reason: str
    reference: str
    state: ReservationState
    from_campaign_id: str
    to_campaign_id: str
    transfer_id: str
    arrived: bool
    changes: StockChanges | None
    from_team_id: str
    new_buyer: bool
    missing_count: int
    tier_people: int
    virtual_count: int
    member_reservation_ids: tuple[str, ...]
    version: int
    distributor_id: str
    distributor_state: DistributorState
    share_code: str
    entries: tuple[CommissionEntry, ...]
    withdrawal_id: str
    withdrawal_state: WithdrawalState
    amount_minor: int
    month: int
    freeze_cause: FreezeCause


@dataclass(frozen=True, slots=True, kw_only=True)
class FactBatch:
    """What came in a watch: facts of one shard in order, or none."""

    facts: tuple[Fact, ...]
    cursors: tuple[FeedCursor, ...]
    """Where to go on after these facts, in all shards that are watched. Keep them together with
    what the facts made you do, and a later watch misses nothing and repeats nothing."""
    unreachable_shards: tuple[int, ...]
    server_time: datetime
