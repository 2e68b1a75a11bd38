"""What a reservation costs write-behind: read from the journal, unpacked, projected, stored.

Run it as `python -m tests.bench.projector_line [--lines N] [--batch N] [--directory DIR]`. One
process, no Ray: a SQLite journal of entries of 30 new reservations each, and a SQLite file of
tables that it is applied to in batches of about so many lines, as the projector does it. It prints
CPU in microseconds a line by stage, and the bytes that were written to the disk by then.

The bytes grow with the table, since request ids and buyers fall anywhere in an index: compare runs
of the same number of lines. `--warm` lines are applied first and not counted.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from actors.core import records as r
from actors.core.codec import pack_entry, unpack_entry
from actors.core.identity import fingerprint, request_key, slot_of
from actors.projector import project
from persistence.ports import Entry
from persistence.sql.sink import SqlSink
from persistence.sqlite import SqliteJournal

CAMPAIGN, SKU, INCARNATION = "double-11", "sku-1001", "bench"
SLOT = slot_of(CAMPAIGN)
ENTRY_LINES = 30
BEGAN_MS = 1_790_000_000_000


def entry(seq: int, chance: random.Random) -> bytes:
    """An entry of new reservations, each of a buyer of its own."""
    now_ms = BEGAN_MS + seq
    records = []
    for _ in range(ENTRY_LINES):
        request_id = f"{chance.getrandbits(128):032x}"
        buyer = f"buyer-{chance.getrandbits(40)}"
        records.append(
            r.StockReserved(
                kind=r.STOCK_RESERVED,
                slot=SLOT,
                key=request_key("default", request_id),
                caller="default",
                request_id=request_id,
                fingerprint=fingerprint(CAMPAIGN, SKU, 1, buyer),
                campaign_id=CAMPAIGN,
                sku_id=SKU,
                quantity=1,
                buyer_id=buyer,
                list_price_minor=10_000,
                unit_price_minor=9_900,
                payable_minor=9_900,
                currency_code="CNY",
                deadline_ms=now_ms + 900_000,
            )
        )
    sold = seq * ENTRY_LINES
    units = 10**9
    balance = r.Balance(SLOT, 1, CAMPAIGN, SKU, units, units - sold, sold, 0, 0, 0, 0, 0)
    return pack_entry(epoch=1, now_ms=now_ms, records=records, balances=[balance])


def fill(journal: SqliteJournal, entries: int) -> None:
    """Append so many entries."""
    chance = random.Random(1)
    journal.create(0, incarnation=INCARNATION)
    journal.acquire(0, incarnation=INCARNATION, seen_epoch=0, token="bench")
    for seq in range(1, entries + 1):
        journal.append(
            0,
            incarnation=INCARNATION,
            epoch=1,
            seq=seq,
            batch_id=str(seq),
            entry=entry(seq, chance),
        )


def bytes_written() -> int:
    """To the disk, by this process."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


class Costs:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("read", "unpack", "project", "sql"), 0.0)
        self._since = time.thread_time()

    def lap(self, stage: str) -> None:
        """What was used since the last lap was used by `stage`."""
        now = time.thread_time()
        self.seconds[stage] += now - self._since
        self._since = now


def apply(
    journal: SqliteJournal,
    sink: SqlSink,
    *,
    after_seq: int,
    last_seq: int,
    size: int,
    facts: bool,
) -> Costs:
    """Apply the entries up to `last_seq`, so many at a time."""
    per_entry = len(journal.read(0, after_seq=after_seq, max_bytes=1)[0].data)
    costs = Costs()
    position = after_seq
    while position < last_seq:
        entries: list[Entry] = list(
            journal.read(0, after_seq=position, max_bytes=per_entry * size)
        )[: last_seq - position]
        costs.lap("read")
        for one in entries:
            unpack_entry(one.data)
        costs.lap("unpack")
        batch = project(0, entries)
        costs.lap("project")
        sink.apply(
            0,
            incarnation=INCARNATION,
            from_seq=position,
            to_seq=batch.to_seq,
            rows=batch.rows,
            facts=batch.facts if facts else (),
        )
        costs.lap("sql")
        position = batch.to_seq
    # It unpacks once more, by itself.
    costs.seconds["project"] -= costs.seconds["unpack"]
    return costs


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=90_000, help="lines that are counted")
    parser.add_argument("--warm", type=int, default=60_000, help="lines applied before those")
    parser.add_argument("--batch", type=int, default=600, help="lines of a batch")
    parser.add_argument("--directory", default="", help="where the files go")
    parser.add_argument("--no-facts", action="store_true", help="keep nothing for the event feed")
    arguments = parser.parse_args()
    facts = not arguments.no_facts
    warm, last = arguments.warm // ENTRY_LINES, (arguments.warm + arguments.lines) // ENTRY_LINES
    size = max(1, arguments.batch // ENTRY_LINES)
    with tempfile.TemporaryDirectory(prefix="sr-", dir=arguments.directory or None) as place:
        journal = SqliteJournal(Path(place) / "journal", durable=False)
        fill(journal, last)
        sink = SqlSink(f"sqlite:///{place}/tables.db")
        sink.upgrade()
        apply(journal, sink, after_seq=0, last_seq=warm, size=max(size, 100), facts=facts)
        written, began = bytes_written(), time.perf_counter()
        costs = apply(journal, sink, after_seq=warm, last_seq=last, size=size, facts=facts)
        elapsed_s = time.perf_counter() - began
        written = bytes_written() - written
        sink.close()
        journal.close()
    lines = (last - warm) * ENTRY_LINES
    us = {stage: seconds / lines * 1e6 for stage, seconds in costs.seconds.items()}
    shown = " + ".join(f"{stage} {cost:.2f}" for stage, cost in us.items())
    print(f"{lines:,} lines in batches of {size * ENTRY_LINES:,} after {arguments.warm:,} others")
    print(f"  us CPU a line: {shown} = {sum(us.values()):.2f}; {elapsed_s:.1f} s in all")
    print(f"  bytes written a line: {written / lines:,.0f}")


if __name__ == "__main__":
    main()
