"""From nothing to the state at the journal's end: snapshot, then tail.

The newest snapshot that is whole and of this incarnation is used; if it is damaged, the one before;
if there is none, the journal from its first entry. If the journal no longer reaches back to where
the snapshot began, the shard cannot know its state and says so (`CannotRecover`): it never starts
with less than what was acknowledged.
"""

import asyncio
from collections.abc import Sequence

from actors.core.codec import UnreadableEntry, unpack_entry
from actors.core.evolve import fold
from actors.core.snapshot import Loader, UnreadableSnapshot
from actors.core.state import ShardState
from actors.limits import ShardLimits
from actors.threads import AsyncJournal, AsyncSnapshots
from persistence.errors import Corrupt, Trimmed
from persistence.ports import Entry, Meta, SnapshotInfo


class CannotRecover(Exception):
    """What is stored does not reach: an operator's decision is needed. Says what and why."""


class Recovery:
    """Builds a shard's state. One use each."""

    def __init__(
        self,
        *,
        journal: AsyncJournal,
        snapshots: AsyncSnapshots,
        limits: ShardLimits,
    ) -> None:
        self._journal = journal
        self._snapshots = snapshots
        self._limits = limits

    async def run(self, meta: Meta) -> ShardState:
        """The state as of some entry not before the newest usable snapshot; following goes on from
        there. Raises CannotRecover, or a retriable StorageError."""
        reasons: list[str] = []
        for info in await self._snapshots.list():
            if info.incarnation != meta.incarnation:
                reasons.append(f"snapshot at {info.begin_seq} is of another incarnation")
                continue
            if info.end_seq > meta.last_seq:
                # The snapshot may be younger than what was read of the journal: read again.
                meta = await self._journal.read_meta()
            if info.end_seq > meta.last_seq:
                raise CannotRecover(
                    f"the journal ends at {meta.last_seq}, before the snapshot at {info.end_seq}: "
                    "acknowledged entries are missing"
                )
            if info.begin_seq + 1 < meta.first_seq:
                reasons.append(f"nothing joins the snapshot at {info.begin_seq} to the journal")
                continue
            try:
                return await self._load(info)
            except (Corrupt, UnreadableSnapshot, Trimmed) as error:
                reasons.append(f"snapshot at {info.begin_seq}: {error}")
        if meta.first_seq > 1 and meta.last_seq > 0:
            reasons.append(f"the journal begins at entry {meta.first_seq}")
            raise CannotRecover("; ".join(reasons))
        return self._empty()

    def _empty(self) -> ShardState:
        return ShardState(refusal_count_max=self._limits.refusals_max)

    async def _load(self, info: SnapshotInfo) -> ShardState:
        state = self._empty()
        loader = Loader(state, info.begin_seq)
        for _ in loader.steps(await self._snapshots.read(info)):
            # A replica that loads still answers that it is not ready yet.
            await asyncio.sleep(0)
        if loader.end_seq != info.end_seq:
            raise UnreadableSnapshot(f"ends at {loader.end_seq}, published as {info.end_seq}")
        while state.seq < loader.end_seq:
            entries = await self._journal.read(
                after_seq=state.seq, max_bytes=self._limits.follow_bytes
            )
            if not entries:
                raise CannotRecover(f"the journal ends at {state.seq}, within a snapshot")
            await fold_entries(state, [e for e in entries if e.seq <= loader.end_seq])
            if state.seq == loader.end_seq and state.fuzzy is not None:
                loader.finish()
        return state


async def fold_entries(state: ShardState, entries: Sequence[Entry]) -> int:
    """Fold entries that follow the state's own; answers how many records they had. Gives way
    between two, so that a replica that catches up still answers."""
    count = 0
    for entry in entries:
        if entry.seq != state.seq + 1:
            raise CannotRecover(f"entry {entry.seq} does not follow {state.seq}")
        try:
            content = unpack_entry(entry.data)
        except UnreadableEntry as error:
            raise CannotRecover(f"entry {entry.seq}: {error}") from error
        if content.epoch != entry.epoch:
            raise CannotRecover(
                f"entry {entry.seq} was written by epoch {content.epoch}, stored as {entry.epoch}"
            )
        fold(state, entry.seq, content.now_ms, content.records, content.balances)
        count += len(content.records)
        await asyncio.sleep(0)
    return count
