"""What an order fact costs the account shard that takes it, and what the programme holds costs it.

Run it as `python -m tests.bench.fact_line [--facts N] [--distributors N]`. One process, no Ray, no
journal: facts decided by `earn` and folded by `evolve`, as the shard does with them. It prints

* CPU in microseconds per fact, decided and folded, by what the fact leads to (both levels earn);
* memory of an order and of a binding, in bytes;
* CPU in milliseconds of single steps, which must not stall a shard (20 ms): a chunk of a snapshot,
  its last step, a leaderboard, 500 orders maturing, 256 statements.

The budget: 20 microseconds for an order that earns.
"""

import argparse
import gc
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

from actors.core import commission_commands as d
from actors.core import facts as f
from actors.core.decide import decide
from actors.core.earning import earn
from actors.core.evolve import close_entry, evolve, open_entry
from actors.core.pulse import MATURED_A_STEP
from actors.core.snapshot import chunks
from tests.model.bureau import DAY_MS, FREEZE_MS, SLOT, Bureau, order_id

LINES = 1_000
"""Facts of an entry."""


def programme(distributors: int) -> Bureau:
    """Distributors who are bound to the one before, each."""
    bureau = Bureau()
    bureau.open(*(f"d{number}" for number in range(distributors)))
    for number in range(1, min(distributors, 1_000)):
        bureau.bind(f"d{number}", f"d{number - 1}")
    return bureau


def taken(bureau: Bureau, facts: list[Any]) -> float:
    """CPU in microseconds per fact, the median entry of `LINES`."""
    state, took = bureau.state, []
    for start in range(0, len(facts), LINES):
        some = facts[start : start + LINES]
        slot = state.slot(SLOT)
        begun = time.process_time()
        open_entry(state, state.seq + 1, bureau.now_ms)
        for fact in some:
            for record in earn(state, slot, fact, bureau.now_ms):
                evolve(state, record)
        close_entry(state)
        took.append((time.process_time() - begun) / len(some) * 1e6)
    return sorted(took)[len(took) // 2]


def steps(calls: Iterable[Callable[[], Any]]) -> float:
    """CPU in milliseconds of the worst call."""
    worst = 0.0
    for call in calls:
        begun = time.process_time()
        call()
        worst = max(worst, time.process_time() - begun)
    return worst * 1e3


def beat(bureau: Bureau, limit: int) -> Callable[[], Any]:
    """One step of what is due, decided and folded."""

    def step() -> None:
        records = bureau.pulse.commission(bureau.state, bureau.now_ms, limit)
        open_entry(bureau.state, bureau.state.seq + 1, bureau.now_ms)
        for record in records:
            evolve(bureau.state, record)
        close_entry(bureau.state)

    return step


def fact_costs(bureau: Bureau, count: int, distributors: int) -> None:
    """Print what facts cost."""
    active, now_ms = min(distributors, 1_000), bureau.now_ms
    codes = [bureau.code(f"d{number}") for number in range(active)]
    ids = [order_id(f"r{number}") for number in range(count)]
    names = [f"buyer-{number}" for number in range(count)]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    bound = [
        f.OrderBound(f.ORDER_BOUND, now_ms, ids[at], names[at], codes[at % active], now_ms)
        for at in range(count)
    ]
    before = tracemalloc.get_traced_memory()[0]
    taken(bureau, bound)
    after_bonds = tracemalloc.get_traced_memory()[0]
    earned = [_earned(at, ids, names, now_ms) for at in range(count)]
    before_orders = tracemalloc.get_traced_memory()[0]
    taken(bureau, earned)
    after_orders = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(f"binding: {(after_bonds - before) / count:.0f} B, its buyer's name not counted")
    print(f"order: {(after_orders - before_orders) / count:.0f} B, both levels")
    more = [order_id(f"s{number}") for number in range(count)]
    others = [f"other-{number}" for number in range(count)]
    lines = {
        "bound by a share code": [
            f.OrderBound(f.ORDER_BOUND, now_ms, more[at], others[at], codes[at % active], now_ms)
            for at in range(count)
        ],
        "an order that earns": [_earned(at, more, others, now_ms) for at in range(count)],
        "the same told again": [_earned(at, more, others, now_ms) for at in range(count)],
        "an order of nobody's": [
            _earned(at, more, [f"x{at}"] * (at + 1), now_ms) for at in range(min(LINES, count))
        ],
        "delivered": [f.OrderDelivered(f.ORDER_DELIVERED, now_ms, name) for name in more],
        "a unit came back": [f.OrderReduced(f.ORDER_REDUCED, now_ms, name, 1, 2) for name in more],
    }
    for what, facts in lines.items():
        print(f"{what}: {taken(bureau, facts):.1f} us per fact")


def _earned(at: int, ids: list[str], names: list[str], now_ms: int) -> f.OrderEarned:
    return f.OrderEarned(
        f.ORDER_EARNED, now_ms, ids[at], names[at], "", "tea", 2, 9_900, "CNY", now_ms, 9_900
    )


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=20_000)
    parser.add_argument("--distributors", type=int, default=10_000)
    arguments = parser.parse_args()
    bureau = programme(arguments.distributors)
    fact_costs(bureau, arguments.facts, arguments.distributors)
    state = bureau.state
    made = chunks(state)
    count = sum(1 for _ in chunks(state))
    print(f"a chunk of a snapshot: {steps([lambda: next(made)] * (count - 1)):.1f} ms")
    print(f"its last step: {steps([lambda: next(made)]):.1f} ms")
    board = d.GetLeaderboard(d.GET_LEADERBOARD, SLOT, 0, "bench", d.BOARD_SALES)
    print(f"a leaderboard: {steps([lambda: decide(state, board, bureau.now_ms)]):.1f} ms")
    bureau.now_ms += FREEZE_MS + 2_000
    turns = 1 + 2 * arguments.facts // MATURED_A_STEP
    print(f"{MATURED_A_STEP} orders that mature: {steps([beat(bureau, LINES)] * turns):.1f} ms")
    bureau.now_ms += 31 * DAY_MS
    print(f"256 statements: {steps([beat(bureau, 256)] * 3):.1f} ms")
    print(f"the ledger: {bureau.programme.sums}, their sum {sum(bureau.programme.sums)}")


if __name__ == "__main__":
    main()
