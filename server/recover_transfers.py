"""Transfers whose two ends were stored up to different moments: found, and set right by records.

The view of each shard ends at an entry of its own, so of a transfer between two shards one end may
be in SQL and the other not. A transfer that is in transit at its source needs nothing: it is
finished as ever. The other cases are put right by records for the new journal's first entry, so
that units count once:

* the source has booked the units off, the target never got them: they leave anew, and are then on
  their way as any other transfer;
* the source says they were turned away, the target does not know: it does now;
* the target has them, the source knows of no such transfer: they leave a pool of the SKU now, the
  base pool if it has them. Which one it was is not in SQL; the units of the SKU are right either
  way. What no pool has is a shortage of the base pool, taken from the newest reservations.

Records are folded into the states as they are made, so each one sees what those before it left.
After them the rows of SQL say the same, so that another recovery finds nothing to set right.
"""

from collections.abc import Iterable, Iterator, Sequence
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
from server.recover_survey import CannotRecover

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
        self._undone: list[tuple[s.SlotState, Pool, bytes, s.Transfer]] = []

    def tell(self, slot: int, pool: Pool) -> None:
        """Have the entry say how a pool stands, so that its row in SQL says the same."""
        self._add(slot)
        self._states[self._slots_of[slot]].touched[pool] = slot

    def take(self, records: Iterable[Any]) -> None:
        """Have the entries say this, too."""
        for record in records:
            self._add(record.slot, record)

    def undo(self) -> None:
        """Take back departures whose arrival is lost. Before the states are stored; `run` has the
        units leave anew."""
        for slot, key, transfer in self._ended():
            if transfer.state != s.TRANSFER_ARRIVED or key in self._target(transfer).arrivals:
                continue
            pool = slot.pool(transfer.from_campaign_id, transfer.sku_id)
            if pool is None:
                raise CannotRecover(f"database: transfer {key.hex()} left a pool that is not there")
            slot.transfers.pop(key)
            pool.total += transfer.quantity
            pool.available += transfer.quantity
            if pool.campaign_id:
                pool.granted += transfer.quantity
            self._undone.append((slot, pool, key, transfer))

    def run(self, arrivals: Sequence[Arrival]) -> None:
        """After `undo`. `arrivals`: those that arrived, of all shards."""
        known = {key for slot in self._slots() for key, _ in slot.transfers.items()}
        for slot, pool, key, transfer in self._undone:
            known.add(key)
            self._add(slot.slot, _left(slot.slot, pool, key, transfer))
            self._say(key, transfer, "its arrival is lost; it is on its way again")
        for _, key, transfer in self._ended():
            if key not in self._target(transfer).arrivals:
                self._turn_away(key, transfer)
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

    def _ended(self) -> list[tuple[s.SlotState, bytes, s.Transfer]]:
        """Transfers that are over, by their sources."""
        return [
            (slot, key, transfer)
            for slot in self._slots()
            for key, transfer in slot.transfers.items()
            if transfer.state != s.IN_TRANSIT
        ]

    def _target(self, transfer: s.Transfer) -> s.SlotState:
        number = slot_of(transfer.to_campaign_id or transfer.sku_id)
        return self._states[self._slots_of[number]].slot(number)

    def _say(self, key: bytes, transfer: Any, text: str) -> None:
        self.told.append(f"transfer {key.hex()} of {transfer.quantity} {transfer.sku_id}: {text}")

    def _turn_away(self, key: bytes, transfer: s.Transfer) -> None:
        number = self._target(transfer).slot
        record = r.TransferredIn(
            r.TRANSFERRED_IN,
            number,
            key,
            transfer.sku_id,
            transfer.to_campaign_id,
            transfer.quantity,
            False,
            0,
        )
        self._add(number, record)
        self._say(key, transfer, "was turned away, as its target knows now")

    def _leave(self, arrival: Arrival) -> None:
        """The target has the units: they leave where they must have come from."""
        key = arrival.transfer_id
        others = [
            (pool.campaign_id, slot.slot, pool)
            for slot in self._slots()
            for pool in slot.pools()
            if pool.sku_id == arrival.sku_id and pool.campaign_id != arrival.to_campaign_id
        ]
        for campaign_id, number, pool in sorted(others, key=lambda one: one[:2]):
            if pool.available >= arrival.quantity:
                out = _left(number, pool, key, arrival)
                self._add(number, out, _booked_off(out))
                name = campaign_id or "the base pool"
                self._say(key, arrival, f"leaves {name}, where it was available as well")
                return
        self._short(arrival)

    def _short(self, arrival: Arrival) -> None:
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
            text = "no pool of the SKU can give it up; count the SKU's units"
            self._say(arrival.transfer_id, arrival, text)
            return
        self._add(number, *records)
        self._say(
            arrival.transfer_id,
            arrival,
            "no pool has it available any more; declared short at the base pool, whose newest "
            "reservations are revoked for what it lacks",
        )


def _left(number: int, pool: Pool, key: bytes, transfer: Any) -> r.TransferredOut:
    """A departure from `pool` of what `transfer` (or an arrival) says."""
    target = transfer.to_campaign_id
    mark = getattr(transfer, "fingerprint", 0) or fingerprint(
        transfer.sku_id, pool.campaign_id, target, transfer.quantity
    )
    return r.TransferredOut(
        r.TRANSFERRED_OUT,
        number,
        key,
        OWN_CALLER,
        f"recover/{key.hex()}",
        mark,
        transfer.sku_id,
        pool.campaign_id,
        target,
        transfer.quantity,
        REASON,
        pool.granted - transfer.quantity if pool.campaign_id else 0,
    )


def _booked_off(out: r.TransferredOut) -> r.TransferEnded:
    """It has arrived."""
    return r.TransferEnded(
        r.TRANSFER_ENDED,
        out.slot,
        out.transfer_id,
        True,
        out.sku_id,
        out.from_campaign_id,
        out.granted,
    )
