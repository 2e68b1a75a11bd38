"""The filter of forgotten keys: nothing that was added is missed, little else is found."""

import random

from hypothesis import given
from hypothesis import strategies as st

from actors.core.bloom import BITS_A_KEY, FIRST_KEYS, SEGMENT_KEYS, Forgotten

KEYS = st.lists(st.binary(min_size=16, max_size=16), max_size=300)


@given(KEYS)
def test_a_key_that_was_added_is_always_found(keys: list[bytes]) -> None:
    filter_ = Forgotten()
    for key in keys:
        filter_.add(key)
    assert all(filter_.may_contain(key) for key in keys)


@given(KEYS)
def test_adding_again_what_is_there_changes_nothing(keys: list[bytes]) -> None:
    once, twice = Forgotten(), Forgotten()
    for key in keys:
        once.add(key)
    for key in (*keys, *keys):
        twice.add(key)
    assert [(s.count, s.bits) for s in once.segments] == [(s.count, s.bits) for s in twice.segments]


def test_of_keys_that_were_never_added_few_look_like_it_and_a_key_costs_two_bytes() -> None:
    chance = random.Random(1)
    filter_ = Forgotten()
    added = [chance.randbytes(16) for _ in range(2 * SEGMENT_KEYS)]
    for key in added:
        filter_.add(key)
    assert all(filter_.may_contain(key) for key in added)
    others = 50_000
    wrong = sum(filter_.may_contain(chance.randbytes(16)) for _ in range(others))
    assert wrong / others < 0.006
    size = sum(len(segment.bits) for segment in filter_.segments)
    assert size <= 2 * len(added) * BITS_A_KEY // 8
    assert [len(s.bits) * 8 // BITS_A_KEY for s in filter_.segments][:3] == [
        FIRST_KEYS,
        2 * FIRST_KEYS,
        4 * FIRST_KEYS,
    ]
    assert max(len(s.bits) for s in filter_.segments) == SEGMENT_KEYS * BITS_A_KEY // 8
