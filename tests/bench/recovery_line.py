"""What it takes a replica to have its state again: loading a snapshot, or folding the journal.

Run it as `python -m tests.bench.recovery_line [--open N]`. One process, no Ray, no real store: a
state with so many open reservations of one campaign, as the chunks of its snapshot and as journal
entries of 1,000 reservations. It prints, with the collector stopped as in a replica,

* what the snapshot takes to make, and its size;
* what recovering from the snapshot takes: CPU, and the longest that the loop stood still;
* what recovering from the entries takes: what a tail costs.

The budget is 4 us a reservation, either way.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator

from actors.core import commands as c
from actors.core.codec import pack_entry
from actors.core.decide import decide
from actors.core.evolve import close_entry, evolve, open_entry
from actors.core.outcomes import Outcome
from actors.core.snapshot import chunks, digest
from actors.core.state import ShardState
from actors.hosting import memory_bytes, stop_collector
from actors.limits import ShardLimits
from actors.recovery import Recovery, fold_entries
from actors.threads import JournalThread, SnapshotsThread
from persistence.memory import MemoryJournal, MemorySnapshots
from tests.bench.shard_line import CAMPAIGN, SKU, SLOT, on_a_replicas_loop, stocked

SHARD, INCARNATION = 0, "bench"
BATCH, BATCH_TAKES_MS = 1_000, 20
LOOK_EVERY_S = 0.001


def entries(state: ShardState, count: int) -> Iterator[bytes]:
    """Decide and fold so many reservations; yields each entry."""
    now_ms = int(time.time() * 1000)
    commands: list[object] = list(stocked())
    for at in range(0, count, BATCH):
        now_ms += BATCH_TAKES_MS
        commands += [
            c.Reserve(
                c.RESERVE,
                SLOT,
                now_ms + 10_000,
                "default",
                f"0190c0de-open-bbbb-{number:016d}",
                CAMPAIGN,
                SKU,
                1,
                f"u-{number}",
            )
            for number in range(at, min(at + BATCH, count))
        ]
        open_entry(state, state.seq + 1, now_ms)
        records = []
        for command in commands:
            answer, decided = decide(state, command, now_ms)
            assert answer[0] in (Outcome.APPLIED, Outcome.RESERVED), answer
            for record in decided:
                evolve(state, record)
                records.append(record)
        commands = []
        yield pack_entry(epoch=1, now_ms=now_ms, records=records, balances=close_entry(state))


class Stores:
    """The same state as a journal and as a snapshot, in memory."""

    def __init__(self, count: int) -> None:
        self.state = ShardState()
        self.journal, self.snapshots = MemoryJournal(), MemorySnapshots()
        self.journal.create(SHARD, incarnation=INCARNATION)
        self.journal.acquire(SHARD, incarnation=INCARNATION, seen_epoch=0, token="bench")
        for entry in entries(self.state, count):
            self.journal.append(
                SHARD,
                incarnation=INCARNATION,
                epoch=1,
                seq=self.state.seq,
                batch_id=f"bench:{self.state.seq}",
                entry=entry,
            )
        handle = self.snapshots.begin(SHARD, incarnation=INCARNATION, begin_seq=self.state.seq)
        began = time.process_time()
        self.made = list(chunks(self.state))
        self.making_s = time.process_time() - began
        for index, chunk in enumerate(self.made):
            self.snapshots.write(SHARD, handle, index, chunk)
        self.snapshots.publish(SHARD, handle, end_seq=self.state.seq)


async def longest_stall(stop: asyncio.Event) -> float:
    """The longest that the loop kept one waiting who looks every millisecond, in seconds."""
    longest = 0.0
    while not stop.is_set():
        began = time.perf_counter()
        await asyncio.sleep(LOOK_EVERY_S)
        longest = max(longest, time.perf_counter() - began - LOOK_EVERY_S)
    return longest


async def recover(stores: Stores, from_snapshot: bool) -> None:
    """Recover as a replica does, and print what it took."""
    stop = asyncio.Event()
    looking = asyncio.create_task(longest_stall(stop))
    journal = JournalThread(stores.journal, SHARD)
    snapshots = stores.snapshots if from_snapshot else MemorySnapshots()
    before, began, cpu = memory_bytes(), time.perf_counter(), time.process_time()
    recovery = Recovery(
        journal=journal, snapshots=SnapshotsThread(snapshots, SHARD), limits=ShardLimits()
    )
    state = await recovery.run(await journal.read_meta())
    while found := await journal.read(after_seq=state.seq, max_bytes=1_000_000):
        await fold_entries(state, found)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    stop.set()
    stall = await looking
    count = sum(len(slot.reservations) for slot in state.slots.values())
    grown = (memory_bytes() - before) / count
    print(
        f"  from the {'snapshot' if from_snapshot else 'journal'}: {cpu:.2f} s CPU, "
        f"{cpu / count * 1e6:.2f} us a reservation, {took:.2f} s; "
        f"longest stall {stall * 1000:.0f} ms; {grown:.0f} bytes each"
    )
    assert digest(state) == digest(stores.state)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description="What a replica's recovery costs")
    parser.add_argument("--open", type=int, default=200_000)
    count = parser.parse_args().open
    stop_collector()
    stores = Stores(count)
    size = sum(map(len, stores.made))
    print(
        f"{count:,} open: snapshot of {len(stores.made):,} chunks, {size / 1e6:.0f} MB, "
        f"{stores.making_s:.2f} s CPU to make"
    )
    for from_snapshot in (True, False):
        on_a_replicas_loop(recover(stores, from_snapshot))


if __name__ == "__main__":
    main()
