"""Transfers whose two ends were stored up to different moments: found, and set right by records.

The view of each shard ends at an entry of its own, so of a transfer between two shards one end may
be in SQL and the other not. A transfer that is in transit at its source needs nothing: it is
finished as ever. The other cases are put right by records for the new journal's first entry, so
that units count once:

* the source has booked the units off, the target never got them: they arrive now;
* the source says they were turned away, the target does not know: it does now;
* the target has them, the source knows of no such transfer: they leave a pool of the SKU now, the
  base pool if it has them. Which one it was is not in SQL; the units of the SKU are right either
  way. What no pool has is a shortage of the base pool, taken from the newest reservations.

Records are folded into the states as they are made, so each one sees what those before it left.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from actors.core import commands as c
from actors.core import records as r
from actors.core import state as s
from actors.core.evolve import evolve, open_entry
from actors.core.identity import fingerprint, slot_of
from actors.core.outcomes import Outcome
from actors.core.pools import Pool
from actors.core.stock import declare_shortage
from server.handlers import OWN_CALLER

REASON = "recovery: the other end of this transfer was stored up to another moment"


class Arrival(NamedTuple):
    """Units that a target has on its books, as `stock_documents` has them."""

    transfer_id: bytes
    sku_id: str
    to_campaign_id: str
    quantity: int


class Repairs:
    """Makes every transfer count once. `records` (by shard) are of one entry after each state's
    own, which stays open; `told` says what they do."""

    def __init__(self, states: Sequence[s.ShardState], slots_of: Sequence[int]) -> None:
        self.records: dict[int, list[Any]] = {}
        self.told: list[str] = []
        self._states = states
        self._slots_of = slots_of

    def tell(self, slot: int, pool: Pool) -> None:
        """Have the entry say how a pool stands, so that its row in SQL says the same."""
        self._add(slot)
        self._states[self._slots_of[slot]].touched[pool] = slot

    def run(self, arrivals: Sequence[Arrival]) -> None:
        """`arrivals`: those that arrived, of all shards."""
        known = {key for slot in self._slots() for key, _ in slot.transfers.items()}
        ended = [
            (slot, key, transfer)
            for slot in self._slots()
            for key, transfer in slot.transfers.items()
            if transfer.state != s.IN_TRANSIT
        ]
        for slot, key, transfer in ended:
            self._finish(slot, key, transfer)
        for arrival in arrivals:
            if arrival.transfer_id not in known:
                self._leave(arrival)

    def _add(self, slot: int, *records: Any) -> None:
        shard = self._slots_of[slot]
        state = self._states[shard]
        if shard not in self.records:
            self.records[shard] = []
            open_entry(state, state.seq + 1, state.now_ms)
        for record in records:
            evolve(state, record)
            self.records[shard].append(record)

    def _slots(self) -> Iterator[s.SlotState]:
        for state in self._states:
            yield from state.slots.values()

    def _finish(self, source: s.SlotState, key: bytes, transfer: s.Transfer) -> None:
        """The source's books are closed: the target's say the same."""
        number = slot_of(transfer.to_campaign_id or transfer.sku_id)
        target = self._states[self._slots_of[number]].slot(number)
        if key in target.arrivals:
            return
        arrived = transfer.state == s.TRANSFER_ARRIVED
        pool = target.pool(transfer.to_campaign_id, transfer.sku_id)
        what = f"transfer {key.hex()} of {transfer.quantity} {transfer.sku_id}"
        if arrived and pool is None:
            self._add(source.slot, _back(source.slot, key, transfer))
            self.told.append(f"{what}: its target is lost; the units are back at their source")
            return
        granted = 0
        if arrived and pool is not None and transfer.to_campaign_id:
            granted = pool.granted + transfer.quantity
        record = r.TransferredIn(
            r.TRANSFERRED_IN,
            number,
            key,
            transfer.sku_id,
            transfer.to_campaign_id,
            transfer.quantity,
            arrived,
            granted,
        )
        self._add(number, record)
        ending = "arrives now" if arrived else "was turned away, as its target knows now"
        self.told.append(f"{what}: {ending}")

    def _leave(self, arrival: Arrival) -> None:
        """The target has the units: they leave where they must have come from."""
        what = f"transfer {arrival.transfer_id.hex()} of {arrival.quantity} {arrival.sku_id}"
        others = [
            (pool.campaign_id, slot.slot, pool)
            for slot in self._slots()
            for pool in slot.pools()
            if pool.sku_id == arrival.sku_id and pool.campaign_id != arrival.to_campaign_id
        ]
        for campaign_id, number, pool in sorted(others, key=lambda one: one[:2]):
            if pool.available >= arrival.quantity:
                self._add(number, *_left(number, pool, arrival))
                name = campaign_id or "the base pool"
                self.told.append(f"{what}: leaves {name}, where it was available as well")
                return
        self._short(arrival, what)

    def _short(self, arrival: Arrival, what: str) -> None:
        number = slot_of(arrival.sku_id)
        state = self._states[self._slots_of[number]]
        command = c.DeclareShortage(
            kind=c.DECLARE_SHORTAGE,
            slot=number,
            deadline_ms=0,
            caller=OWN_CALLER,
            request_id=f"recover/{arrival.transfer_id.hex()}",
            campaign_id="",
            sku_id=arrival.sku_id,
            quantity=arrival.quantity,
            reason=REASON,
            dry_run=False,
        )
        answer, records = declare_shortage(state, command, state.now_ms)
        if answer[0] != Outcome.APPLIED:
            self.told.append(f"{what}: no pool of the SKU can give it up; count the SKU's units")
            return
        self._add(number, *records)
        self.told.append(
            f"{what}: no pool has it available any more; declared short at the base pool, whose "
            "newest reservations are revoked for what it lacks"
        )


def _back(number: int, key: bytes, transfer: s.Transfer) -> r.StockChanged:
    return r.StockChanged(
        r.STOCK_CHANGED,
        number,
        r.DOCUMENT_ADJUST,
        OWN_CALLER,
        f"recover/{key.hex()}",
        fingerprint("recover", key.hex()),
        transfer.from_campaign_id,
        transfer.sku_id,
        transfer.quantity,
        transfer.quantity,
        0,
        0,
        0,
        REASON,
        0,
    )


def _left(number: int, pool: Pool, arrival: Arrival) -> tuple[Any, Any]:
    mark = fingerprint(arrival.sku_id, pool.campaign_id, arrival.to_campaign_id, arrival.quantity)
    granted = pool.granted - arrival.quantity if pool.campaign_id else 0
    out = r.TransferredOut(
        r.TRANSFERRED_OUT,
        number,
        arrival.transfer_id,
        OWN_CALLER,
        f"recover/{arrival.transfer_id.hex()}",
        mark,
        arrival.sku_id,
        pool.campaign_id,
        arrival.to_campaign_id,
        arrival.quantity,
        REASON,
        granted,
    )
    ended = r.TransferEnded(
        r.TRANSFER_ENDED,
        number,
        arrival.transfer_id,
        True,
        arrival.sku_id,
        pool.campaign_id,
        granted,
    )
    return out, ended
