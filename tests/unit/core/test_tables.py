"""Tables that never stall."""

import sys
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core import tables
from actors.core.tables import SPLIT_AT, Counts, Deadlines, Refusals, Seconds, SplitDict


def name(number: int) -> bytes:
    """A key as request ids make them."""
    return blake2b(str(number).encode(), digest_size=16).digest()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "pop", "get"]), st.integers(0, 40), st.integers()
    ),
    max_size=150,
)


@given(operations=OPERATIONS, as_text=st.booleans())
def test_a_split_dict_is_a_dict(operations: list[tuple[str, int, int]], as_text: bool) -> None:
    """Before, across and after the split."""
    table: Any = SplitDict()
    model: dict[bytes | str, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SPLIT_AT", 10)
        for operation, number, value in operations:
            key = str(number) if as_text else name(number)
            if operation == "put":
                table.put(key, value)
                model[key] = value
            elif operation == "pop":
                assert table.pop(key) == model.pop(key, None)
            assert table.get(key) == model.get(key)
            assert (key in table) == (key in model)
            assert len(table) == len(model)
    assert dict(table.items()) == model
    assert sorted(table.values()) == sorted(model.values())


def test_a_table_is_split_once_and_no_part_is_large() -> None:
    table: SplitDict[bytes, int] = SplitDict()
    for number in range(tables.SPLIT_AT - 1):
        table.put(name(number), number)
    assert len(table.parts) == 1
    for number in range(tables.SPLIT_AT - 1, 200_000):
        table.put(name(number), number)
    assert len(table.parts) == tables.PART_COUNT
    assert max(len(part) for part in table.parts) < 1_200
    assert len(table) == 200_000


def test_a_refusal_lives_for_the_window_and_not_for_ever() -> None:
    refusals = Refusals(window_ms=1_000)
    refusals.advance(10_000)
    refusals.put(name(1), 7 << 32, 20)
    refusals.advance(10_999)
    assert refusals.get(name(1)) == (7 << 32, 20)
    refusals.advance(11_000)
    refusals.put(name(2), 1, 21)
    assert refusals.get(name(1)) == (7 << 32, 20)
    refusals.advance(12_000)
    assert refusals.get(name(1)) is None
    assert refusals.get(name(2)) == (1, 21)
    assert len(refusals) == 1


@given(steps=st.lists(st.tuples(st.integers(0, 5_000), st.booleans()), max_size=40))
def test_no_refusal_is_forgotten_within_the_window(steps: list[tuple[int, bool]]) -> None:
    refusals, now_ms, put = Refusals(window_ms=1_000), 10**12, {}
    for number, (wait_ms, advances) in enumerate(steps):
        now_ms += wait_ms
        refusals.put(name(number), 1, 20)
        put[name(number)] = now_ms
        if advances:
            refusals.advance(now_ms)
        for key, at_ms in put.items():
            assert refusals.get(key) is not None or now_ms - at_ms >= 1_000


def test_forgotten_refusals_are_dropped_in_slices() -> None:
    refusals = Refusals(window_ms=1_000)
    for number in range(tables.SPLIT_AT):
        refusals.put(name(number), 1, 20)
    refusals.advance(10_000)
    refusals.advance(11_000)
    assert len(refusals) == 0
    assert len(refusals._dying) == tables.PART_COUNT
    refusals.advance(11_250)
    assert len(refusals._dying) == tables.PART_COUNT - 8


@given(
    added=st.dictionaries(st.integers(0, 50), st.integers(0, 2_000), max_size=30),
    removed=st.sets(st.integers(0, 50)),
    far=st.sets(st.integers(0, 50)),
    now_ms=st.integers(0, 3_500),
    limit=st.integers(0, 10),
)
def test_deadlines_are_never_early_and_late_by_a_bucket_at_most(
    added: dict[int, int], removed: set[int], far: set[int], now_ms: int, limit: int
) -> None:
    """A tenth of a second for what was near when it was added, a second for what was far."""
    deadlines = Deadlines()
    for number, at_ms in added.items():
        began_ms = at_ms - Deadlines.FAR_AWAY_MS - (number in far)
        deadlines.add(name(number), at_ms, began_ms)
    for number in removed & set(added):
        deadlines.remove(name(number), added[number])
        deadlines.remove(name(number), added[number])
    left = {number: at for number, at in added.items() if number not in removed}
    width = {number: 1_000 if number in far else 100 for number in left}
    due = {name(n) for n, at in left.items() if -(-at // width[n]) * width[n] <= now_ms}
    first = deadlines.due(now_ms, limit)
    assert len(first) == min(limit, len(due))
    found = deadlines.due(now_ms, 1_000)
    assert len(found) == len(due)
    assert set(found) == due
    assert len(deadlines) == len(left)


def test_what_is_due_stays_until_it_is_removed() -> None:
    deadlines = Deadlines()
    deadlines.add(name(1), 100, 0)
    assert deadlines.due(100, 5) == deadlines.due(100, 5) == [name(1)]
    deadlines.remove(name(1), 100)
    deadlines.remove(name(1), 100)
    deadlines.remove(name(2), 999)
    assert deadlines.due(100, 5) == []
    assert not deadlines.buckets


HOUR_MS = 3_600_000


def test_an_emptied_bucket_goes_at_once_and_the_heap_stays_small() -> None:
    """A quick buyer leaves nothing behind, however far the deadline was."""
    deadlines = Deadlines()
    for number in range(20_000):
        now_ms = number * 37
        deadlines.add(name(number), now_ms + HOUR_MS, now_ms)
        deadlines.remove(name(number), now_ms + HOUR_MS)
        deadlines.add(name(0), HOUR_MS, 0)
        deadlines.remove(name(0), HOUR_MS)
        assert not deadlines.buckets
        assert len(deadlines._heap) <= tables.HEAP_SLACK + 1
    assert len(deadlines) == 0


def test_a_bucket_that_comes_again_is_due_once() -> None:
    deadlines = Deadlines()
    deadlines.add(name(1), 100, 0)
    deadlines.remove(name(1), 100)
    deadlines.add(name(2), 100, 0)
    deadlines.add(name(3), 100, 0)
    assert sorted(deadlines.due(100, 9)) == sorted([name(2), name(3)])


def test_a_day_of_deadlines_makes_a_bucket_a_second() -> None:
    deadlines = Deadlines()
    for number in range(200_000):
        deadlines.add(name(number), number * 432, 0)
    far = 86_400 - Deadlines.FAR_AWAY_MS // 1_000
    assert len(deadlines.buckets) <= far + Deadlines.FAR_AWAY_MS // 100
    assert len(deadlines._heap) == len(deadlines.buckets)
    assert len(deadlines) == 200_000


def test_a_second_that_is_full_sends_the_next_to_its_tenths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Deadlines, "FAR_KEYS_MAX", 16)
    deadlines = Deadlines()
    for number in range(200):
        deadlines.add(name(number), HOUR_MS + number * 5 + 1, 0)
    sizes = [len(keys) for keys in deadlines.buckets.values() if isinstance(keys, set)]
    assert max(sizes) <= 16 + 20
    assert len(deadlines.due(HOUR_MS + 1_000, 999)) == 200
    for number in range(200):
        deadlines.remove(name(number), HOUR_MS + number * 5 + 1)
    assert not deadlines.buckets


@given(
    moves=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(["to", "in", "out"])),
        max_size=60,
    )
)
def test_a_key_that_moves_is_found_where_it_went_and_nowhere_else(
    moves: list[tuple[int, int, str]],
) -> None:
    """Two keys end in each second, so that buckets are single keys, sets and gone in turn."""
    places, model = [Seconds() for _ in range(4)], dict[int, int]()
    for number, place, how in moves:
        key, at_ms, before = name(number), number // 2 * 1_000 + 7, model.pop(number, None)
        if before is not None and how == "to":
            places[before].move(key, at_ms, places[place])
        elif before is not None:
            places[before].remove(key, at_ms)
        if (how == "to" and before is None) or how == "in":
            places[place].add(key, at_ms, 0)
        if how != "out":
            model[number] = place
        for index, found in enumerate(places):
            wanted = sorted(name(n) for n, stands in model.items() if stands == index)
            assert sorted(found.due(3_000, 9)) == wanted
            assert len(found) == len(wanted)
            assert set(found.buckets) <= {1_000, 2_000, 3_000}


@given(changes=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), max_size=60))
def test_counts_add_up_and_hold_nobody_who_has_none(changes: list[tuple[int, int]]) -> None:
    counts, model = Counts(), dict.fromkeys(map(str, range(6)), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "SPLIT_AT", 3)
        for number, units in changes:
            change = units if units < 4 else -model[str(number)]
            counts.change(str(number), change)
            model[str(number)] += change
        held = {key: value for key, value in model.items() if value}
        other = counts.copy()
        assert (dict(counts.items()), len(counts)) == (held, len(held))
        counts.change("x", 1)
        assert dict(other.items()) == held


@pytest.mark.parametrize("names", [1_000, SPLIT_AT + 10])
def test_a_table_that_is_empty_again_takes_no_more_than_a_new_one(names: int) -> None:
    """Found by a soak: the buyers of every campaign that had ended were empty dicts of their
    greatest size, for ever."""
    counts: Counts = Counts()
    rows: SplitDict[bytes, int] = SplitDict()
    for number in range(names):
        counts.change(f"buyer-{number}", 1)
        rows.put(number.to_bytes(16, "big")[::-1], number)
    for number in range(names):
        counts.change(f"buyer-{number}", -1)
        rows.pop(number.to_bytes(16, "big")[::-1])
    for table in (counts, rows):
        assert len(table) == 0
        assert sum(sys.getsizeof(part) for part in table.parts) == sys.getsizeof({})
    counts.change("buyer-1", 2)
    assert counts.get("buyer-1") == 2
