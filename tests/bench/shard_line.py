"""What a reservation costs its shard: round in, decided, journalled, answered; and its standby.

Run it as `python -m tests.bench.shard_line [--redis] [--directory DIR]`. One process, no Ray, no
gateway: a real primary over a real journal, on the loop that a replica's process has. It prints

* CPU in microseconds per line, of rounds of 1,000 lines, by stage, the median round;
* a round of one line: CPU of the loop's and of the journal's thread, and its latency from bytes to
  bytes (wall time: on a shared machine compare medians of one run only);
* what the same entries cost a standby per line.

The budget is 8 us a line for the shard, 4 us for the standby, 0.35 ms for a round of one.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from actors.clock import ShardTime, WallClock
from actors.core import commands as c
from actors.core.campaign_config import CampaignConfig, CampaignLine
from actors.core.codec import EntryContent, pack_entry, unpack_entry
from actors.core.evolve import fold
from actors.core.identity import SLOT_COUNT, slot_of
from actors.core.outcomes import Outcome
from actors.core.state import ShardState
from actors.hosting import collect_young, new_loop, stop_collector
from actors.limits import Readers, ShardLimits
from actors.primary import Identity, Primary
from actors.rounds import pack_answers, pack_line, pack_round, unpack_answers, unpack_round
from actors.threads import JournalThread, SnapshotsThread
from persistence.memory import MemorySnapshots
from persistence.ports import Journal
from persistence.redis import RedisJournal
from persistence.sqlite import SqliteJournal
from tests.helpers.services import private_redis

CAMPAIGN, SKU, SHARD, INCARNATION = "double-11", "sku-1001", 0, "bench"
SLOT = slot_of(CAMPAIGN)
LINES, ROUNDS, SINGLES = 1_000, 60, 2_000
UNITS = 10_000_000


def stocked() -> tuple[c.PutSku | c.PutCampaign | c.ReceiveStock | c.TransferIn, ...]:
    """A campaign with one line, a limit per buyer, and more units than will be asked for."""
    far = WallClock().now_ms() + 60_000
    config = CampaignConfig(
        name="Double 11",
        starts_ms=0,
        ends_ms=far + 86_400_000,
        currency_code="CNY",
        payment_window_ms=900_000,
        limit_per_buyer=5,
        required_claims=(),
        lines=(CampaignLine(SKU, UNITS, 10_000, 9_900, 2),),
    )
    head = (SLOT, far, "bench")
    return (
        c.PutCampaign(c.PUT_CAMPAIGN, *head, CAMPAIGN, config),
        c.TransferIn(c.TRANSFER_IN, *head, bytes(16), SKU, CAMPAIGN, UNITS),
    )


def rounds(count: int, lines: int, prefix: str) -> Iterator[bytes]:
    """Packed rounds as a gateway sends them: unique request ids, a buyer each."""
    for number in range(count):
        now_ms = WallClock().now_ms()
        commands = [
            c.Reserve(
                c.RESERVE,
                SLOT,
                now_ms + 10_000,
                "default",
                f"0190c0de-{prefix}-bbbb-{number:04d}-{line:012d}",
                CAMPAIGN,
                SKU,
                1,
                f"u-{prefix}-{number}-{line}",
            )
            for line in range(lines)
        ]
        yield pack_round(
            gateway="bench",
            sent_ms=now_ms,
            map_version=1,
            lines=[pack_line(command) for command in commands],
        )


class Stages:
    """CPU seconds by name, all samples."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        self.samples.setdefault(name, []).append(seconds)

    def middle_us(self, name: str, per: int) -> float:
        """Microseconds of one of `per` lines, in the middle round of all."""
        return median(self.samples[name]) / per * 1e6


async def primary_over(journal: Journal) -> Primary:
    """A primary of everything, with an empty state."""
    journal.create(SHARD, incarnation=INCARNATION)
    awaited = JournalThread(journal, SHARD)
    ownership = await awaited.acquire(
        incarnation=INCARNATION, seen_epoch=0, token="bench", owner_info=""
    )
    return Primary(
        identity=Identity(SHARD, INCARNATION, ownership.epoch, ownership.owner),
        state=ShardState(),
        journal=awaited,
        reader=awaited,
        snapshots=SnapshotsThread(MemorySnapshots(), SHARD),
        time=ShardTime(WallClock()),
        # A shared disk may stall for longer than a gateway should wait: that is latency here.
        limits=ShardLimits(append_patience_ms=60_000),
        owned_slots=frozenset(range(SLOT_COUNT)),
        readers=Readers(),
    )


async def one_round(primary: Primary, payload: bytes, stages: Stages, kind: str) -> bytes:
    """A round from bytes to bytes."""
    all_began, began = time.process_time(), time.thread_time()
    round_ = unpack_round(payload)
    unpacked = time.thread_time()
    answers = await primary.submit(round_)
    decided = time.thread_time()
    packed = pack_answers(answers)
    ended = time.thread_time()
    stages.add(f"{kind} unpack", unpacked - began)
    stages.add(f"{kind} submit", decided - unpacked)
    stages.add(f"{kind} answer", ended - decided)
    stages.add(f"{kind} loop", ended - began)
    stages.add(f"{kind} journal", time.process_time() - all_began - (ended - began))
    return packed


async def sell(journal: Journal, stages: Stages) -> list[float]:
    """All rounds of a run; answers the latencies of the rounds of one, in milliseconds."""
    primary = await primary_over(journal)
    running = asyncio.create_task(primary.run())
    setup = pack_round(
        gateway="bench",
        sent_ms=WallClock().now_ms(),
        map_version=1,
        lines=[pack_line(command) for command in stocked()],
    )
    ready = await primary.submit(unpack_round(setup))
    assert [answer[0] for answer in ready.answers] == [Outcome.APPLIED] * 2, ready
    for payload in rounds(ROUNDS, LINES, "many"):
        packed = await one_round(primary, payload, stages, "many")
        assert all(answer[0] == Outcome.RESERVED for answer in unpack_answers(packed).answers)
        collect_young()
    latencies_ms: list[float] = []
    for number, payload in enumerate(rounds(SINGLES, 1, "single")):
        began = time.perf_counter()
        packed = await one_round(primary, payload, stages, "one")
        latencies_ms.append((time.perf_counter() - began) * 1000)
        assert unpack_answers(packed).answers[0][0] == Outcome.RESERVED
        if number % 500 == 0:
            collect_young()
    running.cancel()
    return latencies_ms


def follow(journal: Journal, stages: Stages) -> None:
    """Fold what was journalled as a standby does, and pack it again as its primary did."""
    state, after_seq = ShardState(), 0
    while True:
        entries = journal.read(SHARD, after_seq=after_seq, max_bytes=1_000_000)
        if not entries:
            return
        for entry in entries:
            began = time.thread_time()
            content = unpack_entry(entry.data)
            unpacked = time.thread_time()
            fold(state, entry.seq, content.now_ms, content.records, content.balances)
            folded = time.thread_time()
            if len(content.records) == LINES:
                stages.add("standby unpack", unpacked - began)
                stages.add("standby fold", folded - unpacked)
                stages.add("standby", folded - began)
                _pack_again(content)
                stages.add("pack entry", time.thread_time() - folded)
        after_seq = entries[-1].seq
        collect_young()


def _pack_again(content: EntryContent) -> None:
    pack_entry(
        epoch=content.epoch,
        now_ms=content.now_ms,
        records=content.records,
        balances=content.balances,
    )


@contextmanager
def journals(directory: str, redis: bool) -> Iterator[tuple[str, Journal]]:
    """The journal that is asked for, on real disks, gone afterwards."""
    if redis:
        with private_redis() as server:
            yield "Redis, appendfsync always", RedisJournal(server.url)
        return
    with tempfile.TemporaryDirectory(prefix="sr-", dir=directory or None) as place:
        yield "SQLite, synchronous=FULL", SqliteJournal(Path(place))


def report(name: str, stages: Stages, latencies_ms: Sequence[float]) -> None:
    """Print all of it."""
    print(f"{name}: {ROUNDS} rounds of {LINES:,} lines, {SINGLES:,} rounds of 1")
    many = {
        stage: stages.middle_us(f"many {stage}", LINES)
        for stage in ("unpack", "submit", "answer", "journal")
    }
    pack = stages.middle_us("pack entry", LINES)
    print(
        f"  us a line: unpack {many['unpack']:.2f} + decide and fold {many['submit'] - pack:.2f} "
        f"+ pack the entry {pack:.2f} + journal's thread {many['journal']:.2f} "
        f"+ pack the answers {many['answer']:.2f} = {sum(many.values()):.2f}"
    )
    print(
        f"  standby, us a line: unpack {stages.middle_us('standby unpack', LINES):.2f} "
        f"+ fold {stages.middle_us('standby fold', LINES):.2f} "
        f"= {stages.middle_us('standby', LINES):.2f}"
    )
    cuts = quantiles(latencies_ms, n=1000)
    print(
        f"  round of 1: {median(stages.samples['one loop']) * 1e6:.0f} us CPU in the loop, "
        f"{median(stages.samples['one journal']) * 1e6:.0f} elsewhere; "
        f"p50 {cuts[499]:.3f} ms, p99 {cuts[989]:.3f} ms, p99.9 {cuts[998]:.3f} ms"
    )


def on_a_replicas_loop(main: Coroutine[Any, Any, Any]) -> Any:
    """Run on the loop that `Host` makes."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", action="store_true", help="a private Redis, not SQLite")
    parser.add_argument("--directory", default="", help="where SQLite's files go")
    arguments = parser.parse_args()
    stop_collector()
    stages = Stages()
    with journals(arguments.directory, arguments.redis) as (name, journal):
        latencies_ms = on_a_replicas_loop(sell(journal, stages))
        follow(journal, stages)
        report(name, stages, latencies_ms)
        journal.close()


if __name__ == "__main__":
    main()
