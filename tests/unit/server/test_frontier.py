"""Bindings and orders of several stock shards are told in the order of their times, whoever of them
is behind; who makes no progress is waited for no longer than the patience."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.core import records as r
from actors.core.codec import pack_entry
from actors.core.commission_state import order_key
from actors.core.identity import PROGRAMME_SLOT, buyer_part, public_id, request_key, slot_of
from actors.core.outcomes import Outcome
from actors.core.relay_commands import TAKE_FACTS
from actors.specs import slots_between
from persistence.errors import NotApplied
from persistence.memory import MemoryJournal
from persistence.ports import Entry
from server.frontier import Board, Claim, Frontier
from server.relay import RelayLimits, Source
from server.waiting import Answer
from tests.helpers.loop_stores import LoopJournal
from tests.helpers.shells import LoopClock
from tests.helpers.virtual_time import in_virtual_time, until
from tests.model.bureau import SLOT, Bureau

LIMITS = RelayLimits(read_bytes=2_000, gather_ms=100, patience_ms=10_000)


class Office:
    """The programme's account shard, and the relay's way to it."""

    def __init__(self, clock: LoopClock) -> None:
        self.bureau = Bureau()
        self.bureau.open("bob", "cat")
        self.away: set[int] = set()
        """Sources whose facts are refused."""
        self.answers = True
        self.lines: list[int] = []
        """Facts of each submit."""
        self._clock = clock

    async def submit(self, shard: int, commands: Sequence[Any]) -> Sequence[Answer]:
        """See `server.relay.Accounts`."""
        await asyncio.sleep(0.002)
        self.lines.append(sum(len(one.facts) for one in commands if one.kind == TAKE_FACTS))
        return [self._answer(command) for command in commands]

    def _answer(self, command: Any) -> Answer:
        refused = command.kind == TAKE_FACTS and command.source in self.away
        if refused or not self.answers:
            return (Outcome.RETRY,)
        self.bureau.now_ms = self._clock.now_ms()
        if command.kind == TAKE_FACTS:
            command = command._replace(
                facts=[(seq, index, SLOT, fact) for seq, index, _, fact in command.facts]
            )
        return self.bureau.ask(command._replace(slot=SLOT))


class Slow(LoopJournal):
    """A journal whose reads can be refused."""

    refused = False

    async def read(self, **fields: Any) -> Sequence[Entry]:
        if self.refused:
            raise NotApplied("away")
        return await super().read(**fields)


class Shops:
    """Stock shards, of each of which the journal is told by a source of its own."""

    def __init__(self, count: int) -> None:
        self.clock = LoopClock()
        self.office = Office(self.clock)
        self.stock = MemoryJournal()
        self.board = Board(LIMITS.patience_ms)
        self.journals = [self._journal(shard) for shard in range(count)]
        self.sources = [
            Source(
                shard=shard,
                journal=journal,
                kept=None,
                accounts=self.office,
                slots_of=slots_between(count, 1),
                account_slots={count: PROGRAMME_SLOT},
                clock=self.clock,
                limits=LIMITS,
                board=self.board,
            )
            for shard, journal in enumerate(self.journals)
        ]
        self.tasks: list[asyncio.Task[None]] = []

    def _journal(self, shard: int) -> Slow:
        self.stock.create(shard, incarnation="i")
        self.stock.acquire(shard, incarnation="i", seen_epoch=0, token="t")
        return Slow(self.stock, shard)

    def run(self, *shards: int) -> None:
        """Follow these."""
        self.tasks += [asyncio.create_task(self.sources[shard].run()) for shard in shards]

    def append(self, shard: int, *records: Any) -> int:
        """An entry of now; answers its time."""
        seq, now_ms = self.stock.read_meta(shard).last_seq + 1, self.clock.now_ms()
        entry = pack_entry(epoch=1, now_ms=now_ms, records=records, balances=())
        self.stock.append(shard, incarnation="i", epoch=1, seq=seq, batch_id=str(seq), entry=entry)
        return now_ms

    def reserve(self, shard: int, name: str, buyer: str, referrer: str = "") -> int:
        """Perhaps through a referrer's share code."""
        code = self.office.bureau.code(referrer) if referrer else ""
        return self.append(shard, reserved(name, buyer, code))

    def pay(self, shard: int, name: str, buyer: str, reserved_ms: int) -> None:
        """The order earns."""
        self.append(shard, confirmed(name, buyer, reserved_ms))

    def referrer(self, name: str) -> str:
        """Whom an order paid; '' if it earned nothing."""
        key = order_key(public_id(slot_of("tea"), request_key("web", name)))
        order = self.office.bureau.programme.orders.get(key or b"")
        return "" if order is None else order.referrer_id

    def has_all(self, *shards: int) -> bool:
        """Everything that these have was taken."""
        return all(
            self.sources[shard].status()["marked"] == self.stock.read_meta(shard).last_seq
            for shard in shards
        )


def reserved(name: str, buyer: str, code: str = "") -> r.StockReserved:
    return r.StockReserved(
        kind=r.STOCK_RESERVED,
        slot=slot_of("tea"),
        key=request_key("web", name),
        caller="web",
        request_id=name,
        fingerprint=1,
        campaign_id="",
        sku_id="tea",
        quantity=1,
        buyer_id=buyer,
        list_price_minor=10_000,
        unit_price_minor=10_000,
        payable_minor=10_000,
        currency_code="CNY",
        deadline_ms=1 << 50,
        share_code=code,
    )


def confirmed(name: str, buyer: str, reserved_ms: int) -> r.ReservationConfirmed:
    head = (r.RESERVATION_CONFIRMED, slot_of("tea"), request_key("web", name), buyer_part(buyer))
    paid = (f"p-{name}", "card", 10_000, False, "", buyer, "tea", 1, reserved_ms, 10_000, "CNY")
    return r.ReservationConfirmed(*head, *paid, False)


@asynccontextmanager
async def shops(count: int) -> AsyncIterator[Shops]:
    made = Shops(count)
    try:
        yield made
    finally:
        for task in made.tasks:
            task.cancel()


@in_virtual_time
async def test_an_order_earns_for_a_binding_of_a_shard_that_is_behind() -> None:
    async with shops(2) as on:
        on.run(0, 1)
        on.journals[0].refused = True
        on.reserve(0, "r1", "ann", "bob")
        await asyncio.sleep(0.001)
        at_ms = on.reserve(1, "r2", "ann")
        on.pay(1, "r2", "ann", at_ms)
        await asyncio.sleep(5)
        assert on.sources[1].status()["waits_for"] == [0]
        assert not on.referrer("r2")
        on.journals[0].refused = False
        await until(lambda: on.has_all(0, 1))
        assert on.referrer("r2") == "bob"
        assert on.sources[1].status()["waits_for"] == []


@in_virtual_time
async def test_what_earns_before_the_binding_of_another_shard_does_not_wait_for_it() -> None:
    async with shops(2) as on:
        at_ms = on.reserve(1, "r2", "ann")
        await asyncio.sleep(0.001)
        on.reserve(0, "r1", "ann", "bob")
        on.pay(1, "r2", "ann", at_ms)
        on.office.away.add(0)
        on.run(0, 1)
        await until(lambda: on.has_all(1))
        assert not on.referrer("r2")
        assert not on.has_all(0)


@in_virtual_time
async def test_the_second_level_waits_for_the_binding_of_the_distributor() -> None:
    async with shops(2) as on:
        on.reserve(1, "r1", "ann", "bob")
        await asyncio.sleep(0.001)
        on.reserve(0, "r0", "bob", "cat")
        await asyncio.sleep(0.001)
        at_ms = on.reserve(1, "r2", "ann")
        on.pay(1, "r2", "ann", at_ms)
        on.office.away.add(0)
        on.run(0, 1)
        await asyncio.sleep(5)
        assert not on.referrer("r2")
        on.office.away.clear()
        await until(lambda: on.has_all(0, 1))
        assert {entry.distributor_id for entry in on.office.bureau.entries()} == {"bob", "cat"}


@in_virtual_time
async def test_of_two_touches_on_two_shards_the_first_counts() -> None:
    async with shops(2) as on:
        on.run(0, 1)
        on.journals[0].refused = True
        on.reserve(0, "r1", "ann", "bob")
        await asyncio.sleep(0.001)
        at_ms = on.reserve(1, "r2", "ann", "cat")
        on.pay(1, "r2", "ann", at_ms)
        await asyncio.sleep(2)
        on.journals[0].refused = False
        await until(lambda: on.has_all(0, 1))
        assert on.referrer("r2") == "bob"


@in_virtual_time
async def test_a_shard_in_trouble_holds_the_others_for_its_patience_only() -> None:
    async with shops(3) as on:
        on.run(0, 1, 2)
        await until(lambda: on.has_all(0, 1, 2))
        on.journals[0].refused = True
        on.reserve(0, "r0", "eve", "bob")
        await asyncio.sleep(0.001)
        orders = [on.reserve(shard, f"r{shard}", "ann", "cat") for shard in (1, 2)]
        for shard, at_ms in zip((1, 2), orders, strict=True):
            on.pay(shard, f"r{shard}", "ann", at_ms)
        with capture_logs() as logs:
            await asyncio.sleep(9)
            assert not on.has_all(1)
            await until(lambda: on.has_all(1, 2))
            at_ms = on.reserve(1, "r3", "ann")
            on.pay(1, "r3", "ann", at_ms)
            began_s = asyncio.get_running_loop().time()
            await until(lambda: on.has_all(1))
            assert asyncio.get_running_loop().time() - began_s < 2, "it is waited for no more"
        said = [(x["shard"], x["without"]) for x in logs if x["event"] == "relay_goes_on_without"]
        assert sorted(said) == [(1, 0), (2, 0)]
        assert on.sources[1].status()["without"] == [0]
        assert [on.referrer(f"r{shard}") for shard in (1, 2, 3)] == ["cat"] * 3
        on.journals[0].refused = False
        await until(lambda: on.sources[1].status()["without"] == [])


@pytest.mark.parametrize("away_ms", range(11_600, 12_300, 100))
@in_virtual_time
async def test_after_a_long_absence_of_the_account_shard_both_are_told_in_order(
    away_ms: int,
) -> None:
    """It comes back when the patience with the other is over, whose fault it was not."""
    async with shops(2) as on:
        on.run(0, 1)
        for shard in (0, 1):
            on.reserve(shard, f"r-{shard}", "eve")
        await until(lambda: on.has_all(0, 1))
        on.office.answers = False
        on.reserve(0, "r1", "ann", "bob")
        await asyncio.sleep(0.001)
        at_ms = on.reserve(1, "r2", "ann")
        on.pay(1, "r2", "ann", at_ms)
        await asyncio.sleep(away_ms / 1000)
        on.office.answers = True
        await until(lambda: on.has_all(0, 1))
        assert on.referrer("r2") == "bob"


@in_virtual_time
async def test_a_shard_that_has_not_begun_is_behind() -> None:
    async with shops(2) as on:
        on.reserve(0, "r1", "ann", "bob")
        await asyncio.sleep(0.001)
        at_ms = on.reserve(1, "r2", "ann")
        on.pay(1, "r2", "ann", at_ms)
        on.run(1)
        await asyncio.sleep(3)
        assert not on.referrer("r2")
        on.run(0)
        await until(lambda: on.has_all(0, 1))
        assert on.referrer("r2") == "bob"


@pytest.mark.parametrize("count", [2, 3])
@in_virtual_time
async def test_busy_shards_tell_all_and_in_pieces(count: int) -> None:
    """Every buyer is bound by one shard just before each order of another, and they wait for each
    other all the time; draining, too, comes to an end."""
    async with shops(count) as on:
        for number in range(60):
            one, other = number % count, (number + 1) % count
            on.reserve(one, f"b{number}", f"ann{number}", "bob")
            await asyncio.sleep(0.001)
            at_ms = on.reserve(other, f"r{number}", f"ann{number}", "cat")
            on.append(other, confirmed(f"r{number}", f"ann{number}", at_ms))
            await asyncio.sleep(0.001)
        for source in on.sources:
            source.draining = True
        on.run(*range(count))
        await until(lambda: on.has_all(*range(count)))
        assert {on.referrer(f"r{number}") for number in range(60)} == {"bob"}
        assert sum(on.office.lines) == 180


@in_virtual_time
async def test_bindings_of_other_buyers_do_not_part_a_shard_into_small_pieces() -> None:
    async with shops(2) as on:
        for number in range(60):
            on.reserve(number % 2, f"b{number}", f"ann{number}", "bob")
            await asyncio.sleep(0.001)
        on.run(0, 1)
        await until(lambda: on.has_all(0, 1))
        assert len([lines for lines in on.office.lines if lines]) < 30


# The rule alone


def claim(seq: int, at_ms: int, *buyers: str, reserved_ms: int = 0) -> Claim:
    return Claim(seq, at_ms, frozenset(buyers), reserved_ms)


class Clock:
    at_s = 0.0

    def now_s(self) -> float:
        return self.at_s


def looked(frontier: Frontier, end_seq: int, *claims: Claim, told_seq: int = 0) -> None:
    """It was looked at, and read to its end."""
    frontier.look()
    frontier.found(end_seq, told_seq)
    if end_seq > told_seq:
        newest_ms = max([one.at_ms for one in claims], default=-1)
        frontier.read(claims, newest_ms, end_seq)


def two() -> tuple[Frontier, Frontier]:
    board = Board(10_000, Clock().now_s)
    return board.join(0), board.join(1)


def free_seq(frontier: Frontier) -> int:
    return frontier.free()[0]


def test_a_look_that_began_before_an_entry_was_seen_says_nothing_of_it() -> None:
    a, b = two()
    a.look()
    looked(b, 5, claim(5, 90, reserved_ms=80))
    a.found(3, 3)
    assert free_seq(b) == 4
    looked(a, 3, told_seq=3)
    assert free_seq(b) > 5


def test_an_entry_that_was_seen_long_before_it_was_read_waits_for_no_further_look() -> None:
    a, b = two()
    b.look()
    b.found(9, 0)
    looked(a, 3, told_seq=3)
    b.look()
    b.found(12, 0)
    b.read([claim(5, 90, "ann"), claim(11, 95, "ann")], 95, 12)
    assert free_seq(b) == 10, "of entry 11 nobody knew then"


def test_what_came_between_a_look_and_the_reading_waits_for_one_more_look_of_the_others() -> None:
    a, b = two()
    b.look()
    b.found(3, 0)
    looked(a, 3, told_seq=3)
    b.read([claim(3, 80, "ann"), claim(5, 90, "ann")], 90, 5)
    assert free_seq(b) == 4
    looked(a, 3, told_seq=3)
    assert free_seq(b) > 5


def test_what_was_read_up_to_an_instant_has_nothing_older_to_come() -> None:
    a, b = two()
    a.look()
    a.found(100, 0)
    a.read([claim(1, 50, "eve")], 70, 10)
    looked(b, 4, claim(1, 40, "ann"), claim(2, 60, "ann"), claim(3, 71, "ann"))
    assert free_seq(b) == 2
    b.told(2)
    a.told(10)
    a.read([claim(11, 75, "eve")], 75, 20)
    assert free_seq(b) > 3


def test_an_order_waits_for_everybodys_binding_and_a_binding_for_that_of_its_buyer() -> None:
    a, b = two()
    looked(b, 3, claim(1, 55, "ann"), claim(2, 56, reserved_ms=50), claim(3, 57, reserved_ms=51))
    looked(a, 2, claim(1, 50, "eve"), claim(2, 60, "ann"))
    assert free_seq(b) == 2
    a.told(1)
    assert free_seq(b) > 3
    b.begin()
    looked(b, 3, claim(1, 60, "ann"), claim(2, 61, "ann"))
    assert free_seq(b) == 1, "at one instant neither is first"


def test_a_buyer_who_is_bound_twice_is_waited_for_until_the_last_is_told() -> None:
    a, b = two()
    looked(b, 1, claim(1, 55, "ann"))
    looked(a, 2, claim(1, 50, "ann"), claim(2, 54, "ann"), claim(3, 60, "ann"))
    a.told(1)
    assert free_seq(b) == 0
    a.told(2)
    assert free_seq(b) > 1


def test_times_that_fall_let_no_two_wait_for_each_other() -> None:
    a, b = two()
    for frontier in (a, b):
        frontier.look()
        frontier.found(2, 0)
    for frontier in (a, b):
        frontier.read([claim(1, 50, reserved_ms=45), claim(2, 20, "ann")], 20, 2)
    assert [free_seq(a), free_seq(b)] == [2**62] * 2


def test_looks_at_a_journal_that_is_far_ahead_are_bounded() -> None:
    a, b = two()
    for end_seq in range(1, 1_001):
        b.look()
        b.found(end_seq, 0)
    looked(a, 3, told_seq=3)
    b.look()
    b.found(1_001, 0)
    b.read([claim(1_000, 90, "ann")], 90, 1_001)
    assert len(b._looks) <= 64
    assert free_seq(b) == 999, "it counts as seen later than it was"
