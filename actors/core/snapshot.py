"""A shard's state to chunks of bytes and back: a fuzzy snapshot, completed by the journal.

How it works
------------
The standby goes on folding while it writes. Rows of the large tables are written a slice at a
time, each as it is when its turn comes, with the entry of its last change; so the file is no state
that ever was. The small rest (SKUs, campaigns, pools, transfers) is written last, in one step, at
`end_seq`. Loading takes all rows, counting each in limits and deadlines as it comes, replays the
entries after `begin_seq` and up to `end_seq` in fuzzy mode (a row that is as new as the entry, or
newer, is left alone, and so is what it counts), and then sets the small rest as it was at
`end_seq`. From there on it is the state.

A snapshot is a fold of journalled records only; who takes one has no undecided or unappended rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgpack

from actors.core import state as s
from actors.core.bloom import Segment
from actors.core.campaign_config import CampaignConfig, campaign_config
from actors.core.commission_rows import ledger, recent, set_ledger
from actors.core.commission_state import recount
from actors.core.evolve_risk import recount_risk
from actors.core.evolve_stock import set_group
from actors.core.pools import Pool
from actors.core.seats import recount_teams
from actors.core.snapshot_rows import FILL, PACK, Filling, UnreadableSnapshot, table_of

__all__ = ["SNAPSHOT_FORMAT", "Loader", "UnreadableSnapshot", "chunks", "digest"]

SNAPSHOT_FORMAT = 1
PART_BYTES = 240 * 1024
"""Of the small rest, in a chunk: a shop with thousands of SKUs has more than one."""
ROWS_A_CHUNK = 1_000
"""About 150 kB, and 2 ms to make; long names and rows are dealt to more chunks."""
CHUNK_BYTES_MAX = 256 * 1024
"""As much as a store takes at once (`persistence.snapshots`)."""


def chunks(state: s.ShardState) -> Iterator[bytes]:
    """The snapshot's chunks. Entries may be folded between two of them, not within one.

    The last chunk says how many came before it, and `end_seq` (the state's seq when it is made)."""
    count = 0
    for number in list(state.slots):
        slot = state.slots[number]
        for name, pack in PACK.items():
            table = table_of(slot, name)
            if table is None:
                continue
            # Both generations are taken hold of at once: they may move on while one is written.
            tables = (table.previous, table.current) if name == "refusals" else (table,)
            for part in tables:
                for chunk in _table(number, name, part, pack):
                    yield chunk
                    count += 1
        # After the rows: what is not among them any more is in here.
        for segment in _segments(slot):
            rows = ((segment.count, bytes(segment.bits)),)
            yield msgpack.packb((SNAPSHOT_FORMAT, "rows", number, "forgotten", rows))
            count += 1
        for chunk in (
            () if slot.programme is None else _rows(number, "recent", recent(slot.programme))
        ):
            yield chunk
            count += 1
    # Taken in one step, however many chunks it makes.
    small: Any = [_small(slot) for slot in state.slots.values()]
    # Of stock shards as releases before account shards have it.
    sources = [list(state.sources.items())] if state.sources else []
    seq, now_ms, packed = state.seq, state.now_ms, msgpack.packb(small)
    if len(packed) > PART_BYTES:
        small = 0
        for start in range(0, len(packed), PART_BYTES):
            yield msgpack.packb((SNAPSHOT_FORMAT, "part", packed[start : start + PART_BYTES]))
            count += 1
            small += 1
    yield msgpack.packb((SNAPSHOT_FORMAT, "end", count, seq, now_ms, small, *sources))


def _segments(slot: s.SlotState) -> Sequence[Segment]:
    return () if slot.forgotten is None else tuple(slot.forgotten.segments)


def _table(number: int, name: str, table: Any, pack: Any) -> Iterator[bytes]:
    """A large table in chunks. A part is listed in one step and packed in slices: rows that come
    meanwhile are in the journal after `begin_seq`, rows that change are packed as they are then."""
    for part in list(table.parts):
        items = list(part.items())
        for start in range(0, len(items), ROWS_A_CHUNK):
            rows = [pack(key, value) for key, value in items[start : start + ROWS_A_CHUNK]]
            yield from _rows(number, name, rows)


def _rows(number: int, name: str, rows: Sequence[Any]) -> list[bytes]:
    """Chunks of these rows: one, or more if it were too large. All are made in one step."""
    chunk: bytes = msgpack.packb((SNAPSHOT_FORMAT, "rows", number, name, rows))
    if len(chunk) <= CHUNK_BYTES_MAX or len(rows) == 1:
        return [chunk]
    half = len(rows) // 2
    return _rows(number, name, rows[:half]) + _rows(number, name, rows[half:])


def _small(slot: s.SlotState) -> tuple[Any, ...]:
    row = _stock(slot)
    return row if slot.programme is None else (*row, ledger(slot.programme))


def _stock(slot: s.SlotState) -> tuple[Any, ...]:
    return (
        slot.slot,
        slot.generation,
        [
            (
                sku.pool.sku_id,
                sku.name,
                sku.attributes,
                sku.buffer_bps,
                sku.currency_code,
                sku.payment_window_ms,
                sku.created_ms,
                _pack_pool(sku.pool),
            )
            for sku in slot.skus.values()
        ],
        [
            (
                name,
                campaign.state,
                _pack_config(campaign.config),
                (campaign.version, campaign.created_ms, campaign.updated_ms),
                [_pack_pool(p) for p in campaign.pools.values()],
            )
            for name, campaign in slot.campaigns.items()
        ],
        [
            (
                key,
                transfer.sku_id,
                transfer.from_campaign_id,
                transfer.to_campaign_id,
                transfer.quantity,
                transfer.fingerprint,
                transfer.state,
            )
            for key, transfer in slot.transfers.items()
        ],
        list(slot.arrivals.items()),
    )


def _pack_config(config: CampaignConfig) -> tuple[Any, ...]:
    """Without a score or teams as releases before them have it: their snapshots and digests are the
    same."""
    if config.min_score:
        return config
    if config.group is not None:
        return config[:-1]
    *fields, lines, _, _ = config
    return (*fields, tuple(line[:-1] for line in lines))


def _pack_pool(pool: Pool) -> tuple[Any, ...]:
    balance = (
        pool.sku_id,
        pool.total,
        pool.available,
        pool.reserved,
        pool.sold,
        pool.buffer,
        pool.scheduled,
        pool.in_transit,
        pool.owed,
        pool.granted,
        pool.list_price_minor,
        pool.unit_price_minor,
        pool.limit_per_buyer,
        pool.forgotten_sold,
    )
    return balance if pool.group is None else (*balance, pool.group.opened)


class Loader:
    """Builds a state from chunks. Steps: `read` the chunks, replay the journal after `begin_seq`
    up to `end_seq` with `evolve.fold`, then `finish`."""

    def __init__(self, state: s.ShardState, begin_seq: int) -> None:
        self.state = state
        self.begin_seq = begin_seq
        self.end_seq = 0
        self._end_now_ms = 0
        self._small: Any = None
        self._sources: Any = ()
        self._parts = 0
        """Chunks before the last one that have its small rest."""

    def read(self, data: Iterable[bytes]) -> None:
        """Take all chunks. Raises UnreadableSnapshot if they are not one whole snapshot."""
        for _ in self.steps(list(data)):
            pass

    def steps(self, data: Sequence[bytes]) -> Iterator[None]:
        """The same, a chunk at a time: some 2 ms each, between which others may have their turn."""
        self._take_end(data)
        self.state.fuzzy = {}
        self._set_small()
        filling = Filling(self.state, self.begin_seq, self._end_now_ms)
        for chunk in data[: len(data) - 1 - self._parts]:
            kind, *rest = _unpacked(chunk)
            if kind != "rows":
                raise UnreadableSnapshot(f"{kind!r} where rows should be")
            number, name, rows = rest
            FILL[name](filling, self.state.slot(number), rows)
            yield
        self.state.seq = self.begin_seq
        if self.end_seq <= self.begin_seq:
            self.finish()

    def _take_end(self, data: Sequence[bytes]) -> None:
        """The last chunk comes first: rows refer to its pools."""
        kind, *rest = _unpacked(data[-1]) if data else ("nothing",)
        if kind != "end":
            raise UnreadableSnapshot("the snapshot has no end")
        count, self.end_seq, self._end_now_ms, self._small, *sources = rest
        self._sources = sources[0] if sources else ()
        if count != len(data) - 1:
            raise UnreadableSnapshot(f"the snapshot has {len(data) - 1} chunks of its {count}")
        if isinstance(self._small, int):
            self._parts = self._small
            self._small = self._joined(data[len(data) - 1 - self._parts : -1])

    def _joined(self, parts: Sequence[bytes]) -> Any:
        """The small rest of a snapshot that has it in parts."""
        joined = b""
        for chunk in parts:
            kind, *rest = _unpacked(chunk)
            if kind != "part":
                raise UnreadableSnapshot(f"{kind!r} where a part of the end should be")
            joined += rest[0]
        return msgpack.unpackb(joined, use_list=False, strict_map_key=False)

    def finish(self) -> None:
        """The journal was replayed to `end_seq`: set what floated."""
        if self.state.seq != self.end_seq:
            raise UnreadableSnapshot(f"replayed to {self.state.seq}, not to {self.end_seq}")
        self._set_small()
        state = self.state
        state.fuzzy = None
        state.now_ms = max(state.now_ms, self._end_now_ms)
        state.debtors.clear()
        state.touched.clear()
        state.closing.clear()
        state.refusal_count = sum(len(slot.refusals) for slot in state.slots.values())
        for slot in state.slots.values():
            recount_teams(state, slot)
            if slot.programme is not None:
                recount(slot.programme, state.now_ms)
            for pool in slot.pools():
                if pool.owed:
                    state.debtors[pool] = s.Debt(slot.slot)
        recount_risk(state)

    def _set_small(self) -> None:
        self.state.sources = {source: tuple(mark) for source, mark in self._sources}
        for number, generation, skus, campaigns, transfers, arrivals, *programme in self._small:
            slot = self.state.slot(number)
            slot.generation = generation
            for sku_id, *fields in skus:
                sku = slot.skus.get(sku_id) or s.Sku(Pool("", sku_id))
                slot.skus[sku_id] = sku
                _set_sku(sku, fields)
            for row in campaigns:
                _set_campaign(slot, *row)
            for key, sku_id, source, target, quantity, mark, transfer_state in transfers:
                transfer = s.Transfer(
                    sku_id=sku_id,
                    from_campaign_id=source,
                    to_campaign_id=target,
                    quantity=quantity,
                    fingerprint=mark,
                )
                transfer.state = transfer_state
                slot.transfers.put(key, transfer)
                if transfer_state == s.IN_TRANSIT:
                    slot.open_transfers.add(key)
                else:
                    slot.open_transfers.discard(key)
            for key, arrived in arrivals:
                slot.arrivals.put(key, arrived)
            for packed in programme:
                set_ledger(self.state.programme(slot), packed)


def _unpacked(chunk: bytes) -> Sequence[Any]:
    """A chunk without its version. Raises UnreadableSnapshot."""
    try:
        rest: list[Any]
        version, *rest = msgpack.unpackb(chunk, use_list=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise UnreadableSnapshot(f"not a chunk: {error}") from error
    if version != SNAPSHOT_FORMAT:
        raise UnreadableSnapshot(f"snapshot format {version}, not {SNAPSHOT_FORMAT}")
    return rest


def _set_sku(sku: s.Sku, fields: Any) -> None:
    (
        sku.name,
        sku.attributes,
        sku.buffer_bps,
        sku.currency_code,
        sku.payment_window_ms,
        sku.created_ms,
        balance,
    ) = fields
    _set_pool(sku.pool, balance)


def _set_campaign(  # noqa: PLR0917
    slot: s.SlotState, campaign_id: str, campaign_state: int, config: Any, history: Any, pools: Any
) -> None:
    campaign = slot.campaigns.get(campaign_id)
    if campaign is None:
        campaign = slot.campaigns[campaign_id] = s.Campaign(campaign_config(config))
    campaign.config = campaign_config(config)
    campaign.state = campaign_state
    campaign.version, campaign.created_ms, campaign.updated_ms = history
    lines = {line.sku_id: line for line in campaign.config.lines}
    for balance in pools:
        pool = campaign.pools.get(balance[0]) or Pool(campaign_id, balance[0])
        campaign.pools[balance[0]] = pool
        set_group(pool, lines[balance[0]], campaign.config)
        _set_pool(pool, balance)
    campaign.link_counts()


def _set_pool(pool: Pool, balance: Any) -> None:
    (
        _,
        pool.total,
        pool.available,
        pool.reserved,
        pool.sold,
        pool.buffer,
        pool.scheduled,
        pool.in_transit,
        pool.owed,
        pool.granted,
        pool.list_price_minor,
        pool.unit_price_minor,
        pool.limit_per_buyer,
        pool.forgotten_sold,
        *teams_opened,
    ) = balance
    # Of a line without teams, and in snapshots of before them, it is not said.
    if pool.group is not None and teams_opened:
        pool.group.opened = teams_opened[0]


def digest(state: s.ShardState) -> int:
    """64 bits over all rows that must be equal on every replica at the same entry, whatever order
    its tables are in. Refusals are left out: replicas forget them at different entries."""
    total = sum(_hash(("source", *pair)) for pair in state.sources.items())
    for slot in state.slots.values():
        for name, pack in PACK.items():
            table = None if name == "refusals" else table_of(slot, name)
            for key, value in () if table is None else table.items():
                total += _hash((slot.slot, name, pack(key, value)))
        if slot.programme is not None:
            total += _hash((slot.slot, "recent", recent(slot.programme)))
        for at, segment in enumerate(_segments(slot)):
            total += _hash((slot.slot, "forgotten", at, segment.count, bytes(segment.bits)))
        skus, campaigns, transfers, arrivals, *programme = _small(slot)[2:]
        for row in (*skus, *campaigns, *transfers, *arrivals, *programme):
            total += _hash((slot.slot, row))
    return total % 2**64


def _hash(row: Any) -> int:
    return int.from_bytes(blake2b(msgpack.packb(row), digest_size=8).digest())
