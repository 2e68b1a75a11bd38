"""What CPython asks for: no cycles, no large dict, few bytes a reservation."""

import gc
import tracemalloc

import pytest

from actors.core import tables
from actors.core.snapshot import digest
from tests.model.shop import WINDOW_MS, Shop, line

BYTES_A_RESERVATION_MAX = 600


def used_shop(reservations: int) -> Shop:
    """A shop with open reservations, and some in every other state."""
    shop = Shop()
    shop.open_sale(reservations, line("tea", reservations, limit=100), limit_per_buyer=100)
    shop.journal.clear()
    for number in range(reservations):
        own = shop.hold(f"r{number}", sale="sale", buyer=f"buyer {number % 1_000}")
        if number % 50 == 0:
            shop.pay(own, f"p{number}", paid=80)
            shop.bring_back(own, 1, f"b{number}")
        if number % 50 == 1:
            shop.release(own)
        shop.journal.clear()
        shop.sql.clear()
    return shop


def test_a_used_state_leaves_no_cycles() -> None:
    """The collector is off in a shard, so a cycle would be a leak."""
    shop = used_shop(300)
    shop.reserve("no", 9_999, sale="sale")
    shop.short(10, sale="sale")
    shop.revoke(5)
    shop.wait(WINDOW_MS + 100)
    shop.expire()
    copy = shop.from_snapshot()
    assert digest(copy) == digest(shop.state)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        del shop, copy
        gc.collect()
        ours = [x for x in gc.garbage if type(x).__module__.startswith("actors.core")]
        assert ours == []
        assert gc.garbage == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_no_table_of_a_state_grows_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a hundredth of the split threshold: 4,000 here are more than 200,000 there."""
    monkeypatch.setattr(tables, "SPLIT_AT", 164)
    shop = used_shop(4_000)
    for slot in shop.state.slots.values():
        for name in ("reservations", "documents", "figures", "payments", "refunds"):
            parts = getattr(slot, name).parts
            assert max(len(part) for part in parts) <= 164, name


@pytest.mark.parametrize("lines", [1, 2])
def test_an_open_reservation_is_small(lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    """With its id, its timer and what counts it: one table for an only line, two for several."""
    shop = Shop()
    shop.open_sale(20_000, line("tea", 20_000), *[line("cup")] * (lines - 1))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(20_000):
        shop.reserve(f"r{number}", sale="sale", buyer=f"buyer {number}")
        shop.journal.clear()
        shop.sql.clear()
        shop.records = []
        shop.wait(1)
    gc.collect()
    each = (tracemalloc.get_traced_memory()[0] - before) / 20_000
    tracemalloc.stop()
    with capsys.disabled():
        print(f" {each:.0f} B per open reservation", end="")
    assert each <= BYTES_A_RESERVATION_MAX
