"""What an order that earns costs write-behind: read from the journal, unpacked, projected, stored.

Run it as `python -m tests.bench.account_row [--orders N] [--batch N] [--directory DIR]`. One
process, no Ray: a SQLite journal of an account shard with entries of 30 facts each, of which both
levels earn, and as many orders that become available; and a SQLite file of tables that they are
applied to, as the projector does it. It prints CPU in microseconds an order, by stage.
"""

import argparse
import tempfile
from pathlib import Path

from actors.core import facts as f
from actors.core.codec import pack_entry
from actors.core.earning import earn
from actors.core.evolve import close_entry, evolve, open_entry
from actors.core.relay_records import FACT_TAKEN, FactTaken
from persistence.sql.sink import SqlSink
from persistence.sqlite import SqliteJournal
from tests.bench.projector_line import ENTRY_LINES, INCARNATION, apply
from tests.model.bureau import FREEZE_MS, SLOT, Bureau, order_id


def journal_of(orders: int) -> tuple[list[bytes], int]:
    """Entries of a programme whose buyers bring orders; how many there are of facts."""
    bureau = Bureau()
    bureau.open("d0", "d1")
    bureau.bind("d1", "d0")
    for number in range(100):
        bureau.bind(f"buyer-{number}", "d1")
    state, before = bureau.state, len(bureau.journal)
    made = list(bureau.journal)
    for start in range(0, orders, ENTRY_LINES):
        records: list[object] = []
        open_entry(state, len(made) + 1, bureau.now_ms)
        for number in range(start, start + ENTRY_LINES):
            fact = f.OrderEarned(
                f.ORDER_EARNED,
                bureau.now_ms,
                order_id(f"r{number}"),
                f"buyer-{number % 100}",
                "double-11",
                "sku-1001",
                1,
                9_900,
                "CNY",
                bureau.now_ms,
                10_000,
            )
            told = (
                FactTaken(FACT_TAKEN, SLOT, 0, INCARNATION, start + 1, number),
                *earn(state, state.slot(SLOT), fact, bureau.now_ms),
            )
            for record in told:
                evolve(state, record)
            records.extend(told)
        made.append(
            pack_entry(epoch=1, now_ms=bureau.now_ms, records=records, balances=close_entry(state))
        )
    facts = len(made) - before
    bureau.journal = made
    bureau.now_ms += FREEZE_MS
    while bureau.beat(ENTRY_LINES):
        pass
    return bureau.journal, before + facts


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=30_000, help="orders that earn")
    parser.add_argument("--batch", type=int, default=600, help="orders of a batch")
    parser.add_argument("--directory", default="", help="where the files go")
    arguments = parser.parse_args()
    entries, earned = journal_of(arguments.orders)
    size = max(1, arguments.batch // ENTRY_LINES)
    with tempfile.TemporaryDirectory(prefix="sr-", dir=arguments.directory or None) as place:
        journal = SqliteJournal(Path(place) / "journal", durable=False)
        journal.create(0, incarnation=INCARNATION)
        journal.acquire(0, incarnation=INCARNATION, seen_epoch=0, token="bench")
        for seq, entry in enumerate(entries, 1):
            journal.append(
                0, incarnation=INCARNATION, epoch=1, seq=seq, batch_id=str(seq), entry=entry
            )
        sink = SqlSink(f"sqlite:///{place}/tables.db")
        sink.upgrade()
        begins = earned - arguments.orders // ENTRY_LINES
        apply(journal, sink, after_seq=0, last_seq=begins, size=1_000, facts=True)
        for what, after, last in (
            ("earns", begins, earned),
            ("becomes available", earned, len(entries)),
        ):
            costs = apply(journal, sink, after_seq=after, last_seq=last, size=size, facts=True)
            us = {
                stage: seconds / arguments.orders * 1e6 for stage, seconds in costs.seconds.items()
            }
            shown = " + ".join(f"{stage} {cost:.2f}" for stage, cost in us.items())
            print(f"us CPU an order that {what}: {shown} = {sum(us.values()):.2f}")
        sink.close()
        journal.close()


if __name__ == "__main__":
    main()
