"""What a fact of an order costs on its way to the ledger: relay, account shard, standby, SQL.

Run it as `python -m tests.bench.accrual_line [--orders N] [--profile STAGE]`. One process, no Ray:
the journal of a stock shard with a sale in entries of 30 lines, each order of a buyer of its own by
a share code, so that it makes two facts; the relay's own `Source`, lines packed and unpacked as on
the road, and a real primary over a journal in memory. It prints CPU in microseconds per fact, by
stage; of write-behind also what its two sinks cost by `account_row`'s stages.

The budget: 40 microseconds for all of it. With `--profile relay`, `accounts`, `standby` or
`write_behind` it prints where that stage's time goes.
"""

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.clock import ShardTime, WallClock
from actors.core import commission_commands as d
from actors.core import records as r
from actors.core.codec import pack_entry, unpack_entry
from actors.core.evolve import fold
from actors.core.identity import PROGRAMME_SLOT, buyer_part, public_id, request_key, slot_of
from actors.core.programme_config import ProgrammeConfig
from actors.core.state import ShardState
from actors.hosting import collect_young, stop_collector
from actors.limits import Readers, ShardLimits
from actors.primary import Identity, Primary
from actors.rounds import pack_answers, pack_round, unpack_answers, unpack_round
from actors.specs import owned_by, slots_between
from persistence.memory import MemoryJournal, MemorySnapshots
from persistence.sql.sink import SqlSink
from persistence.sqlite import SqliteJournal
from server.relay import RelayLimits, Source
from server.waiting import Answer, Group, Parcel
from tests.bench.projector_line import apply
from tests.helpers.loop_stores import LoopJournal, LoopSnapshots

STOCK, ACCOUNTS = 0, 1
SLOTS_OF = slots_between(1, 1)
CAMPAIGN, SKU, INCARNATION = "double-11", "sku-1001", "bench"
SLOT = slot_of(CAMPAIGN)
ENTRY_LINES = 30
ROUND_LINES, ROUND_FACTS = 8, 500
"""As the relay's sender cuts what it is given: half of a window, which is one parcel."""
ABOVE, BELOW = 10, 90
STAGES = ("relay", "accounts", "standby", "write_behind")


class Costs:
    """CPU seconds by stage, and the profile of one."""

    def __init__(self, profiled: str = "") -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.profile = cProfile.Profile(time.thread_time)
        self._profiled = profiled
        self._stage = ""
        self._since = 0.0

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """What is used within is used by `stage`, and not by the stage around it."""
        before = self._stage
        self._turn(stage)
        try:
            yield
        finally:
            self._turn(before)

    def _turn(self, stage: str) -> None:
        now = time.thread_time()
        if self._stage:
            self.seconds[self._stage] += now - self._since
        if self._stage == self._profiled and self._stage:
            self.profile.disable()
        self._stage = stage
        if stage == self._profiled and stage:
            self.profile.enable()
        self._since = time.thread_time()


class Accounts:
    """`server.relay.Accounts`: a primary of the account shard at the end of a road of bytes."""

    def __init__(self, primary: Primary, costs: Costs) -> None:
        self._primary = primary
        self._costs = costs

    async def submit(self, shard: int, commands: Sequence[Any]) -> Sequence[Answer]:
        """See `server.relay.Accounts`."""
        group = Group(len(commands))
        for start in range(0, len(commands), ROUND_LINES):
            places = range(start, min(start + ROUND_LINES, len(commands)))
            lines = commands[places.start : places.stop]
            parcel = Parcel(lines, commands[0].deadline_ms, group, places)
            payload = pack_round(
                gateway="relay",
                sent_ms=WallClock().now_ms(),
                map_version=1,
                lines=[parcel.packed],
                count=len(places),
            )
            with self._costs.of("accounts"):
                answer = pack_answers(await self._primary.submit(unpack_round(payload)))
            parcel.take(unpack_answers(answer).answers, 0)
        await group.done
        return group.answers


class Followed(LoopJournal):
    """The journal of a stock shard whose reader has all of it, once `whole` is set."""

    def __init__(self, journal: MemoryJournal, shard: int) -> None:
        super().__init__(journal, shard)
        self.whole = asyncio.Event()
        self._last_seq = journal.read_meta(shard).last_seq

    async def set_position(self, reader: str, seq: int) -> None:
        """See `AsyncJournal`."""
        await super().set_position(reader, seq)
        if seq >= self._last_seq:
            self.whole.set()


def opening(deadline_ms: int) -> Iterator[Any]:
    """Commands that open a programme with distributors, of whom most have one above them."""
    head = (PROGRAMME_SLOT, deadline_ms, "bench")
    yield d.PutRates(
        d.PUT_RATES, *head, ProgrammeConfig("CNY", "UTC", 500, 200, approve_at_once=True)
    )
    for number in range(ABOVE + BELOW):
        yield d.ApplyDistributor(d.APPLY_DISTRIBUTOR, *head, f"d{number}")


def binding(deadline_ms: int, codes: Sequence[str]) -> Iterator[Any]:
    """And commands that bind those."""
    head = (PROGRAMME_SLOT, deadline_ms, "bench")
    for number in range(ABOVE, ABOVE + BELOW):
        yield d.BindReferrer(d.BIND_REFERRER, *head, f"d{number}", codes[number % ABOVE])


def sale(orders: int, codes: Sequence[str], began_ms: int) -> Iterator[tuple[int, list[Any]]]:
    """(Time, records) of the entries of a stock shard: orders reserved, then confirmed."""
    for start in range(0, orders, ENTRY_LINES):
        numbers = range(start, min(start + ENTRY_LINES, orders))
        now_ms = began_ms + start
        yield now_ms, [_reserved(number, codes[number % len(codes)], now_ms) for number in numbers]
        yield now_ms + 1, [_confirmed(number, now_ms) for number in numbers]


def _key(number: int) -> bytes:
    return request_key("default", f"accrual-{number:012}")


def _reserved(number: int, code: str, now_ms: int) -> r.StockReserved:
    return r.StockReserved(
        kind=r.STOCK_RESERVED,
        slot=SLOT,
        key=_key(number),
        caller="default",
        request_id=f"accrual-{number:012}",
        fingerprint=number,
        campaign_id=CAMPAIGN,
        sku_id=SKU,
        quantity=1,
        buyer_id=f"buyer-{number}",
        list_price_minor=10_000,
        unit_price_minor=9_900,
        payable_minor=9_900,
        currency_code="CNY",
        deadline_ms=now_ms + 900_000,
        share_code=code,
    )


def _confirmed(number: int, reserved_ms: int) -> r.ReservationConfirmed:
    return r.ReservationConfirmed(
        kind=r.RESERVATION_CONFIRMED,
        slot=SLOT,
        key=_key(number),
        part=buyer_part(f"buyer-{number}"),
        payment_id=f"p-{public_id(SLOT, _key(number))}",
        payment_channel="",
        paid_minor=9_900,
        reacquired=False,
        campaign_id=CAMPAIGN,
        buyer_id=f"buyer-{number}",
        sku_id=SKU,
        quantity=1,
        reserved_ms=reserved_ms,
        list_price_minor=10_000,
        currency_code="CNY",
    )


async def primary_of(journal: MemoryJournal) -> Primary:
    """A primary of the account shard, with an empty state."""
    journal.create(ACCOUNTS, incarnation=INCARNATION)
    awaited = LoopJournal(journal, ACCOUNTS)
    ownership = await awaited.acquire(
        incarnation=INCARNATION, seen_epoch=0, token="bench", owner_info=""
    )
    return Primary(
        identity=Identity(ACCOUNTS, INCARNATION, ownership.epoch, ownership.owner),
        state=ShardState(),
        journal=awaited,
        reader=awaited,
        snapshots=LoopSnapshots(MemorySnapshots(), ACCOUNTS),
        time=ShardTime(WallClock()),
        limits=ShardLimits(append_patience_ms=60_000),
        owned_slots=owned_by(ACCOUNTS, SLOTS_OF),
        readers=Readers(),
    )


async def relay(orders: int, journal: MemoryJournal, costs: Costs) -> tuple[Primary, int]:
    """Have all facts of a sale taken. Answers the primary, and the last entry before them."""
    primary = await primary_of(journal)
    running = asyncio.create_task(primary.run())
    accounts = Accounts(primary, Costs())
    far_ms = WallClock().now_ms() + 60_000
    await accounts.submit(ACCOUNTS, list(opening(far_ms)))
    programme = primary.state.slot(PROGRAMME_SLOT).programme
    assert programme is not None
    found = [programme.distributors.get(f"d{number}") for number in range(ABOVE + BELOW)]
    codes = [one.share_code for one in found if one is not None]
    await accounts.submit(ACCOUNTS, list(binding(far_ms, codes)))
    before = primary.last_seq
    journal.create(STOCK, incarnation=INCARNATION)
    journal.acquire(STOCK, incarnation=INCARNATION, seen_epoch=0, token="bench")
    began_ms = WallClock().now_ms()
    for seq, (now_ms, records) in enumerate(sale(orders, codes[ABOVE:], began_ms), 1):
        entry = pack_entry(epoch=1, now_ms=now_ms, records=records, balances=())
        journal.append(
            STOCK, incarnation=INCARNATION, epoch=1, seq=seq, batch_id=str(seq), entry=entry
        )
    followed = Followed(journal, STOCK)
    source = Source(
        shard=STOCK,
        journal=followed,
        kept=None,
        accounts=Accounts(primary, costs),
        slots_of=SLOTS_OF,
        account_slots={ACCOUNTS: PROGRAMME_SLOT},
        clock=WallClock(),
        limits=RelayLimits(gather_ms=0),
    )
    source.draining = True
    with costs.of("relay"):
        following = asyncio.create_task(source.run())
        whole = asyncio.create_task(followed.whole.wait())
        await asyncio.wait({whole, following, running}, return_when=asyncio.FIRST_COMPLETED)
    assert whole.done(), "the relay or the primary ended before all facts were taken"
    following.cancel()
    running.cancel()
    assert len(programme.orders) == orders, "an order is missing"
    assert not sum(programme.sums), programme.sums
    return primary, before


def follow(journal: MemoryJournal, after_seq: int, costs: Costs) -> ShardState:
    """Fold what was journalled as a standby does."""
    state = ShardState()
    entries = journal.read(ACCOUNTS, after_seq=0, max_bytes=2**40)
    for entry in entries:
        with costs.of("standby" if entry.seq > after_seq else ""):
            content = unpack_entry(entry.data)
            fold(state, entry.seq, content.now_ms, content.records, content.balances)
        collect_young()
    return state


def write(journal: MemoryJournal, after_seq: int, batch: int, costs: Costs) -> dict[str, float]:
    """Apply it to SQL as write-behind does. Answers CPU seconds by its stages."""
    with tempfile.TemporaryDirectory(prefix="sr-") as place:
        stored = SqliteJournal(Path(place) / "journal", durable=False)
        stored.create(0, incarnation=INCARNATION)
        stored.acquire(0, incarnation=INCARNATION, seen_epoch=0, token="bench")
        last_seq = 0
        for one in journal.read(ACCOUNTS, after_seq=0, max_bytes=2**40):
            last_seq = one.seq
            stored.append(
                0,
                incarnation=INCARNATION,
                epoch=1,
                seq=last_seq,
                batch_id=str(last_seq),
                entry=one.data,
            )
        sink = SqlSink(f"sqlite:///{place}/tables.db")
        sink.upgrade()
        size = max(1, batch // ROUND_FACTS)
        apply(stored, sink, after_seq=0, last_seq=after_seq, size=1_000, facts=True)
        with costs.of("write_behind"):
            found = apply(
                stored, sink, after_seq=after_seq, last_seq=last_seq, size=size, facts=True
            )
        # `apply` unpacks once to tell what that costs, and projects from the bytes again.
        costs.seconds["write_behind"] -= found.seconds["unpack"]
        sink.close()
        stored.close()
    return found.seconds


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=4_000, help="facts of a batch for SQL")
    parser.add_argument("--profile", default="", choices=("", *STAGES))
    arguments = parser.parse_args()
    stop_collector()
    costs, journal = Costs(arguments.profile), MemoryJournal()
    _, before = asyncio.run(relay(arguments.orders, journal, costs))
    follow(journal, before, costs)
    sql = write(journal, before, arguments.batch, costs)
    facts = 2 * arguments.orders
    us = {stage: seconds / facts * 1e6 for stage, seconds in costs.seconds.items()}
    print(" + ".join(f"{stage} {cost:.2f}" for stage, cost in us.items()), end="")
    print(f" = {sum(us.values()):.2f} us CPU a fact")
    parts = ", ".join(f"{stage} {seconds / facts * 1e6:.2f}" for stage, seconds in sql.items())
    print(f"write-behind: {parts}")
    if arguments.profile:
        pstats.Stats(costs.profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
