"""The journal as one order of facts per shard, kept by plain arithmetic.

How it works
------------
Entries are taken as they appear. Each record gets its place (1, 2, ...) in its shard's order. Of
every effect, pool and reservation it is kept what stood from which place on, so that any answer
can be compared with any instant. Nothing of `evolve` is used: units are added and taken here once
more, and must come to the balances that each entry tells.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from zlib import crc32

from actors.core import records as r
from actors.core import team_records as t
from actors.core.campaign_config import campaign_config
from actors.core.codec import unpack_entry
from actors.core.commands import RESTOCK_AVAILABLE
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason
from actors.core.state import CAMPAIGN_ENDED, REFUSAL_WINDOW_MS
from persistence.ports import Entry
from server.chaos.account_books import AccountBooks
from server.chaos.history import (
    begin_mark,
    completion_mark,
    delivery_mark,
    failed_mark,
    payment_mark,
    release_mark,
)
from server.chaos.team_books import TeamBooks
from server.verify import Invariant

PoolName = tuple[str, str]


class Effect(NamedTuple):
    """Something that took place, and what its caller has to be told."""

    shard: int
    seq: int
    """Of its entry."""
    place: int
    status: str
    now_ms: int


class Stood(NamedTuple):
    """A pool from a place on."""

    total: int
    available: int
    reserved: int
    sold: int
    in_transit: int


class Shelf:
    """One pool and all that it ever was."""

    __slots__ = ("limit", "now", "places", "shard", "states")

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.limit = 0
        self.now = Stood(0, 0, 0, 0, 0)
        self.places: list[int] = []
        self.states: list[Stood] = []

    def change(self, place: int, **by: int) -> None:
        """Add these amounts from `place` on."""
        now = self.now = self.now._replace(**{k: getattr(self.now, k) + v for k, v in by.items()})
        self.places.append(place)
        self.states.append(now)

    def at(self, place: int) -> Stood:
        """As it stood after this place."""
        index = bisect_right(self.places, place)
        return self.states[index - 1] if index else Stood(0, 0, 0, 0, 0)


class Held:
    """One reservation and all that it ever was: (state, units returned) from which place on."""

    __slots__ = ("buyer_id", "places", "pool", "quantity", "shard", "states")

    def __init__(self, shard: int, record: r.StockReserved | t.SeatTaken) -> None:
        self.shard = shard
        self.pool: PoolName = (record.campaign_id, record.sku_id)
        self.buyer_id = record.buyer_id
        self.quantity = record.quantity
        self.places: list[int] = []
        self.states: list[tuple[str, int]] = []

    @property
    def returned(self) -> int:
        """Units returned so far."""
        return self.states[-1][1] if self.states else 0

    def become(self, place: int, state: str, returned: int = 0) -> None:
        """From `place` on."""
        self.places.append(place)
        self.states.append((state, returned))

    def counted_at(self, place: int) -> int:
        """Units that a limit counted after this place."""
        index = bisect_right(self.places, place)
        state, returned = self.states[index - 1] if index else ("", 0)
        return self.quantity - returned if state in ("RESERVED", "CONFIRMED") else 0


class Books:
    """All shards' orders, and what was wrong by the arithmetic alone."""

    def __init__(self, shards: int) -> None:
        self.places = [0] * shards
        self.seqs = [0] * shards
        self.sums: list[dict[int, int]] = [{} for _ in range(shards)]
        """By shard, entry -> checksum of its bytes."""
        self.effects: dict[str, list[Effect]] = {}
        self.shelves: dict[PoolName, Shelf] = {}
        self.held: dict[str, Held] = {}
        self.of_buyer: dict[tuple[PoolName, str], list[Held]] = {}
        self.teams = TeamBooks()
        self.accounts = AccountBooks()
        self.ended: dict[str, int] = {}
        """Campaign -> the place where it was ended."""
        self.arithmetic = Invariant()
        self.once = Invariant()
        self.oversold = Invariant()
        self.units_oversold = 0
        self._now_ms = 0
        self._shard = 0
        self._out: dict[bytes, r.TransferredOut] = {}

    def take(self, shard: int, entry: Entry) -> None:
        """The next entry of a shard. Raises UnreadableEntry, and ValueError after a gap."""
        if entry.seq != self.seqs[shard] + 1:
            raise ValueError(f"shard {shard}: entry {entry.seq} follows {self.seqs[shard]}")
        content = unpack_entry(entry.data)
        self.seqs[shard] = entry.seq
        self.sums[shard][entry.seq] = crc32(entry.data)
        self._now_ms, self._shard = content.now_ms, shard
        self.accounts.entry_begins(shard, entry.seq, content.now_ms)
        for record in content.records:
            self.places[shard] += 1
            keep = KEEPERS.get(record.kind)
            if keep is not None:
                keep(self, record)
            self.accounts.take(record)
        self.teams.entry_over()
        for told in content.balances:
            now = self.shelf(told.campaign_id, told.sku_id).now
            found = Stood(told.total, told.available, told.reserved, told.sold, told.in_transit)
            self.arithmetic.check(
                now == found,
                (f"shard {shard}: entry {entry.seq} says {told}, its records add up to {now}"),
            )

    def shelf(self, campaign_id: str, sku_id: str) -> Shelf:
        """A pool, made when first named."""
        name = (campaign_id, sku_id)
        shelf = self.shelves.get(name)
        if shelf is None:
            shelf = self.shelves[name] = Shelf(self._shard)
        return shelf

    def holdings(self, pool: PoolName, buyer_id: str) -> Iterator[Held]:
        """What one buyer reserved of one pool."""
        yield from self.of_buyer.get((pool, buyer_id), ())

    @property
    def _place(self) -> int:
        return self.places[self._shard]

    def _effect(self, mark: str, status: str) -> None:
        """One effect for one mark; a refusal is forgotten after its window."""
        effects = self.effects.setdefault(mark, [])
        again = [e for e in effects if self._repeats(e)]
        before = again[0].status if again else ""
        self.once.check(not again, f"{mark}: {status}, although it was {before} before")
        effects.append(
            Effect(self._shard, self.seqs[self._shard], self._place, status, self._now_ms)
        )

    def _repeats(self, before: Effect) -> bool:
        refused = before.status in REFUSALS
        return not refused or self._now_ms - before.now_ms < REFUSAL_WINDOW_MS

    def _move(self, shelf: Shelf, name: PoolName, **by: int) -> None:
        shelf.change(self._place, **by)
        short = max(0, -shelf.now.available, shelf.now.sold + shelf.now.reserved - shelf.now.total)
        self.units_oversold = max(self.units_oversold, short)
        self.oversold.check(not short, f"pool {name}: {short} units too many: {shelf.now}")

    def _of(self, slot: int, key: bytes) -> tuple[str, Held | None]:
        name = public_id(slot, key)
        return name, self.held.get(name)

    # Records

    def _reserved(self, record: r.StockReserved | t.SeatTaken) -> None:
        name = public_id(record.slot, record.key)
        self._effect(f"request:{name}", "RESERVED")
        held = self.held[name] = Held(self._shard, record)
        held.become(self._place, "RESERVED")
        self.of_buyer.setdefault((held.pool, held.buyer_id), []).append(held)
        shelf = self.shelf(*held.pool)
        self._move(shelf, held.pool, available=-held.quantity, reserved=held.quantity)
        counted = sum(h.counted_at(self._place) for h in self.holdings(held.pool, held.buyer_id))
        self.oversold.check(
            not shelf.limit or counted <= shelf.limit,
            f"{held.buyer_id} has {counted} of {held.pool}, the limit is {shelf.limit}",
        )

    def _refused(self, record: r.RequestRefused) -> None:
        status = Outcome(record.outcome).name
        self._effect(f"request:{public_id(record.slot, record.key)}", status)

    def _confirmed(self, record: r.ReservationConfirmed) -> None:
        self._effect(payment_mark(record.slot, record.payment_id), "CONFIRMED")
        name, held = self._of(record.slot, record.key)
        if held is None:
            return
        self.teams.paid(self._place, name, record.paid_minor)
        held.become(self._place, "CONFIRMED")
        part = "available" if record.reacquired else "reserved"
        self._move(
            self.shelf(*held.pool), held.pool, **{part: -held.quantity, "sold": held.quantity}
        )

    def _refund_fell_due(self, record: r.RefundFellDue) -> None:
        self._effect(payment_mark(record.slot, record.payment_id), "REFUND_DUE")

    def _released(self, record: r.ReservationReleased) -> None:
        name, held = self._of(record.slot, record.key)
        # A seat is given up by leaving its team.
        self._effect(release_mark(name), "LEFT" if name in self.teams.seats else "RELEASED")
        self._freed(name, held, "RELEASED")

    def _expired(self, record: r.ReservationExpired) -> None:
        name, held = self._of(record.slot, record.key)
        self._effect(f"expiry:{name}", "EXPIRED")
        self._freed(name, held, "EXPIRED")

    def _freed(self, name: str, held: Held | None, state: str) -> None:
        self.teams.freed(self._place, name)
        if held is None:
            return
        held.become(self._place, state)
        shelf = self.shelf(*held.pool)
        self._move(shelf, held.pool, available=held.quantity, reserved=-held.quantity)

    def _begun(self, record: r.PaymentBegun) -> None:
        self._effect(begin_mark(public_id(record.slot, record.key)), "PAYMENT_BEGUN")

    def _failed(self, record: r.PaymentFailed) -> None:
        name = public_id(record.slot, record.key)
        self._effect(failed_mark(name, record.payment_id), "NOTED")

    def _delivered(self, record: r.FulfilmentReported) -> None:
        self._effect(delivery_mark(public_id(record.slot, record.key)), "NOTED")

    def _returned(self, record: r.UnitsReturned) -> None:
        self._effect(f"request:{public_id(record.slot, record.request_key)}", "RETURNED")
        _, held = self._of(record.slot, record.key)
        if held is None:
            return
        state = "RETURNED" if record.returned_total == held.quantity else "CONFIRMED"
        held.become(self._place, state, record.returned_total)
        to = "available" if record.restock == RESTOCK_AVAILABLE else "total"
        by = record.quantity if to == "available" else -record.quantity
        self._move(self.shelf(*held.pool), held.pool, **{"sold": -record.quantity, to: by})

    def _changed(self, record: r.StockChanged) -> None:
        shelf = self.shelf(record.campaign_id, record.sku_id)
        whole = record.available + record.buffer + record.scheduled
        shelf.change(self._place, total=whole, available=record.available)

    def _went_out(self, record: r.TransferredOut) -> None:
        shelf = self.shelf(record.from_campaign_id, record.sku_id)
        shelf.change(self._place, available=-record.quantity, in_transit=record.quantity)
        self._out[record.transfer_id] = record

    def _came_in(self, record: r.TransferredIn) -> None:
        if record.arrived:
            shelf = self.shelf(record.to_campaign_id, record.sku_id)
            shelf.change(self._place, total=record.quantity, available=record.quantity)

    def _transfer_ended(self, record: r.TransferEnded) -> None:
        out = self._out.pop(record.transfer_id, None)
        if out is None:
            return
        shelf = self.shelf(out.from_campaign_id, out.sku_id)
        to = "total" if record.arrived else "available"
        by = -out.quantity if record.arrived else out.quantity
        shelf.change(self._place, **{"in_transit": -out.quantity, to: by})

    def _campaign_put(self, record: r.CampaignPut) -> None:
        config = campaign_config(record.config)
        for line in config.lines:
            self.shelf(record.campaign_id, line.sku_id).limit = line.limit_per_buyer
        self.teams.terms(record.campaign_id, config)

    def _campaign_set(self, record: r.CampaignStateSet) -> None:
        if record.state == CAMPAIGN_ENDED:
            self.ended.setdefault(record.campaign_id, self._place)

    def _opened(self, record: t.TeamOpened) -> None:
        self.teams.opened(self._shard, self._place, record)

    def _taken(self, record: t.SeatTaken) -> None:
        self._reserved(record)
        self.teams.taken(self._place, record)

    def _led(self, record: t.TeamLed) -> None:
        self.teams.led(record)

    def _moved(self, record: t.SeatMoved) -> None:
        self.teams.moved(record)

    def _closed(self, record: t.SeatClosed) -> None:
        name, held = self._of(record.slot, record.key)
        if record.why == RefundReason.LEFT_TEAM:
            self._effect(release_mark(name), "LEFT")
        self.teams.closed(self._place, record)
        if held is None:
            return
        held.become(self._place, "RETURNED", held.quantity)
        by = record.quantity
        self._move(self.shelf(*held.pool), held.pool, sold=-by, available=by)

    def _formed(self, record: t.TeamFormed) -> None:
        if record.caller:
            self._effect(completion_mark(public_id(record.slot, record.team_key)), "APPLIED")
        self.teams.formed(self._place, record)

    def _settled(self, record: t.SeatSettled) -> None:
        self.teams.settled(record)

    def _team_ended(self, record: t.TeamClosed) -> None:
        self.teams.ended(self._place, record)


REFUSALS = frozenset(
    outcome.name
    for outcome in Outcome
    if outcome.value >= Outcome.SOLD_OUT and outcome is not Outcome.EXPIRED
)
"""What a request that is remembered as refused was told."""

KEEPERS: dict[int, Callable[[Books, Any], None]] = {
    r.STOCK_CHANGED: Books._changed,
    r.TRANSFERRED_OUT: Books._went_out,
    r.TRANSFERRED_IN: Books._came_in,
    r.TRANSFER_ENDED: Books._transfer_ended,
    r.CAMPAIGN_PUT: Books._campaign_put,
    r.STOCK_RESERVED: Books._reserved,
    r.REQUEST_REFUSED: Books._refused,
    r.RESERVATION_CONFIRMED: Books._confirmed,
    r.RESERVATION_RELEASED: Books._released,
    r.RESERVATION_EXPIRED: Books._expired,
    r.PAYMENT_BEGUN: Books._begun,
    r.PAYMENT_FAILED: Books._failed,
    r.REFUND_FELL_DUE: Books._refund_fell_due,
    r.UNITS_RETURNED: Books._returned,
    r.FULFILMENT_REPORTED: Books._delivered,
    r.CAMPAIGN_STATE_SET: Books._campaign_set,
    t.TEAM_OPENED: Books._opened,
    t.SEAT_TAKEN: Books._taken,
    t.TEAM_LED: Books._led,
    t.SEAT_MOVED: Books._moved,
    t.SEAT_CLOSED: Books._closed,
    t.TEAM_FORMED: Books._formed,
    t.SEAT_SETTLED: Books._settled,
    t.TEAM_CLOSED: Books._team_ended,
}
"""Kind of record -> who keeps it; of what the load never asks for, nothing is kept."""
