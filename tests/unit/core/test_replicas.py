"""What a replica has: the fold of the journal, and snapshots completed by it."""

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from actors.core import records as r
from actors.core import snapshot
from actors.core import state as s
from actors.core.evolve import Impossible, fold
from actors.core.identity import public_id, request_key, slot_of
from actors.core.outcomes import Outcome
from actors.core.snapshot import Loader, UnreadableSnapshot, chunks, digest
from persistence.snapshots import CHUNK_BYTES_MAX
from tests.model.shop import T0, Shop, campaign, deadlines, limits, line, replay


@pytest.fixture(autouse=True)
def chunks_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a chunk."""
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 1)


def busy_shop() -> Shop:
    """A bit of everything."""
    shop = Shop()
    shop.open_sale(9, line("tea", limit=5), limit_per_buyer=6)
    one = shop.hold("r1", 2, sale="sale")
    shop.hold("r2", 2, sale="sale")
    shop.pay(one, paid=160)
    shop.pay(one, "p2", 160)
    shop.bring_back(one, 1)
    shop.reserve("r3", 99, sale="sale")
    shop.receive(5, "more")
    shop.leave(2, "on the way")
    return shop


def same(one: s.ShardState, other: s.ShardState) -> bool:
    """Whether two replicas agree in all that they must."""
    assert digest(one) == digest(other)
    assert deadlines(one) == deadlines(other)
    assert limits(one) == limits(other)
    return True


def test_a_replica_that_folds_the_journal_is_the_primary() -> None:
    shop = busy_shop()
    assert same(shop.replica(), shop.state)


def test_a_replica_that_diverges_stops_at_the_entry_that_shows_it() -> None:
    shop = busy_shop()
    replica = shop.replica()
    pool = replica.slot(slot_of("tea")).pool("", "tea")
    assert pool is not None
    pool.available += 1
    pool.total += 1
    shop.receive(1, "one more")
    with pytest.raises(Impossible, match="the fold has"):
        replay(replica, shop.journal, len(shop.journal) - 1)


def test_a_balance_of_an_unknown_pool_is_impossible() -> None:
    told = r.Balance(1, 1, "", "x", *[0] * 8)
    with pytest.raises(Impossible):
        fold(s.ShardState(), 1, T0, [], [told])


@pytest.mark.parametrize(
    "record",
    [
        r.ReservationReleased(r.RESERVATION_RELEASED, 1, bytes(16), 0, ""),
        r.RefundReported(r.REFUND_REPORTED, 1, bytes(16), True, 1, b"", ""),
        r.TransferEnded(r.TRANSFER_ENDED, 1, bytes(16), True, "x", "", 0),
        r.StockChanged(r.STOCK_CHANGED, 1, 1, "w", "d", 1, "", "x", 1, 1, 0, 0, 0, "", 0),
        r.StockReserved(
            r.STOCK_RESERVED, 1, bytes(16), "w", "r", 1, "", "x", 1, "ann", 1, 1, 1, "CNY", 1
        ),
    ],
)
def test_a_record_about_nothing_is_impossible(record: Any) -> None:
    with pytest.raises(Impossible):
        fold(s.ShardState(), 1, T0, [record], [])


def test_a_reservation_cannot_end_twice() -> None:
    shop = Shop()
    shop.sku()
    shop.receive(1)
    shop.release(shop.hold())
    again = r.ReservationReleased(
        r.RESERVATION_RELEASED, slot_of("tea"), request_key("web", "r1"), 0, ""
    )
    with pytest.raises(Impossible, match="cannot become"):
        fold(shop.state, 99, T0, [again], [])


def test_a_broken_law_ends_the_process() -> None:
    shop = Shop()
    shop.sku()
    shop.pool().available = -1
    with pytest.raises(Impossible, match=r"pool \(base\)/tea"):
        shop.receive(3)


# Snapshots


def test_a_snapshot_is_the_state() -> None:
    shop = busy_shop()
    loaded = shop.from_snapshot()
    assert same(loaded, shop.state)
    assert loaded.seq == shop.state.seq
    assert loaded.now_ms == shop.state.now_ms


class Copy:
    """A snapshot that is written while the shop goes on."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.began = len(shop.journal)
        self.rest: Iterator[bytes] = chunks(shop.state)
        self.taken: list[bytes] = []

    def take(self, number: int) -> None:
        """Write some chunks."""
        self.taken += [next(self.rest) for _ in range(number)]

    def finish(self) -> s.ShardState:
        """Write the rest, load it, and replay the journal to its end."""
        self.taken += list(self.rest)
        loader = Loader(s.ShardState(), self.began)
        loader.read(self.taken)
        if loader.end_seq > self.began:
            replay(loader.state, self.shop.journal[: loader.end_seq], self.began)
            loader.finish()
        replay(loader.state, self.shop.journal, loader.end_seq)
        return loader.state


@pytest.mark.parametrize("before", range(6))
def test_entries_between_the_chunks_are_completed_by_the_journal(before: int) -> None:
    shop = busy_shop()
    copy = Copy(shop)
    copy.take(before)
    two = public_id(slot_of("sale"), request_key("web", "r2"))
    shop.begin(two)
    shop.pay(two, "p9", 160)
    shop.bring_back(two, 1, "b9")
    copy.take(1)
    shop.bring_back(two, 1, "b10")
    shop.hold("r9", 1, sale="sale")
    shop.receive(3, "d9")
    assert same(copy.finish(), shop.state)


def test_a_line_that_joins_while_a_snapshot_is_written_keeps_its_reservations() -> None:
    """The tail has the campaign without the line and then with it; the rows refer to its pool."""
    shop = Shop()
    shop.open_sale(9)
    shop.hold("r1", sale="sale")
    copy = Copy(shop)
    shop.put(campaign(line("tea", price=70)))
    shop.put(campaign(line("tea"), line("cup")))
    shop.adjust(5, "c", sku="cup", sale="sale")
    own = shop.hold("r2", sale="sale", sku="cup")
    loaded = copy.finish()
    assert same(loaded, shop.state)
    shop.release(own)
    replay(loaded, shop.journal, len(shop.journal) - 1)
    assert same(loaded, shop.state)


def test_equal_ids_in_two_slots_are_two_rows_of_a_snapshot() -> None:
    """Request ids are unique within a slot: one row being newer says nothing of the other."""
    shop = Shop()
    for sku in ("tea", "cup"):
        shop.sku(sku)
        shop.receive(5, sku=sku)
    rows = [shop.hold("same", sku=sku) for sku in ("tea", "cup")]
    copy = Copy(shop)
    copy.take(1)
    shop.begin(rows[1])
    shop.begin(rows[0])
    shop.pay(rows[0], "p0")
    shop.pay(rows[1], "p1")
    shop.ship(rows[1])
    assert same(copy.finish(), shop.state)


def test_a_snapshot_keeps_both_generations_of_refusals_though_one_moves_on() -> None:
    shop = Shop()
    shop.sku()
    shop.receive(1)
    shop.wait(s.REFUSAL_WINDOW_MS)
    shop.receive(1, "turn")
    shop.reserve("older", 9)
    shop.wait(s.REFUSAL_WINDOW_MS)
    shop.receive(1, "turn again")
    shop.reserve("newer", 9)
    copy = Copy(shop)
    while b"refusals" not in (copy.taken or [b""])[-1]:
        copy.take(1)
    shop.wait(s.REFUSAL_WINDOW_MS - 1_000)
    shop.receive(1, "turn once more")
    refusals = copy.finish().slot(slot_of("tea")).refusals
    assert refusals.get(request_key("web", "newer")) is not None


def test_refusals_of_a_snapshot_outlive_the_next_entry() -> None:
    shop = Shop()
    shop.sku()
    shop.reserve("no", 9)
    shop.state = shop.from_snapshot()
    assert shop.state.refusal_count == 1
    shop.receive(20, "more")
    shop.wait(14_000)
    shop.receive(20, "and more")
    assert shop.reserve("no", 9)[0] == Outcome.SOLD_OUT


def test_a_snapshot_that_is_not_whole_is_unreadable() -> None:
    shop = busy_shop()
    whole = list(chunks(shop.state))
    for broken in (
        [],
        whole[:-1],
        whole[1:],
        [b"\xc1", *whole],
        [b"\x01", *whole],
        [msgpack.packb((9, "rows", 1, "payments", [])), *whole],
    ):
        with pytest.raises(UnreadableSnapshot):
            Loader(s.ShardState(), shop.state.seq).read(broken)


def test_a_snapshot_is_not_finished_before_its_tail() -> None:
    shop = busy_shop()
    copy = Copy(shop)
    shop.receive(1, "d9")
    loader = Loader(s.ShardState(), copy.began)
    loader.read(list(copy.rest))
    with pytest.raises(UnreadableSnapshot, match="replayed to"):
        loader.finish()


def test_a_digest_tells_slots_and_tables_apart() -> None:
    """The same row elsewhere is another state."""
    one, other = s.ShardState(), s.ShardState()
    one.slot(1).documents.put(bytes(16), 7)
    other.slot(2).documents.put(bytes(16), 7)
    assert digest(one) != digest(other)


def test_no_chunk_is_larger_than_a_store_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are up to 128 characters, and a shard has thousands of SKUs."""
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 1_000)
    shop = Shop()
    for number in range(2_000):
        shop.sku(f"{number:0128}")
    shop.receive(2_000, "all", sku=f"{0:0128}")
    for number in range(1_000):
        buyer, order = f"b{number:0127}", f"{number:0128}"
        shop.reserve(f"r{number}", 1, sku=f"{0:0128}", buyer=buyer, order_id=order)
    made = list(chunks(shop.state))
    assert max(len(chunk) for chunk in made) <= CHUNK_BYTES_MAX
    assert same(shop.from_snapshot(), shop.state)
    with pytest.raises(UnreadableSnapshot):
        Loader(s.ShardState(), 0).read(made[-1:])
