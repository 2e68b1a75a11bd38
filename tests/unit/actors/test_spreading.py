"""Which replica moves to part a pair, and where to."""

import pytest

from actors.spreading import Move, Standing, next_move

PRIMARY, STANDBY = "primary", "standby"


def pair(first: str, second: str, roles: tuple[str, str] = (PRIMARY, STANDBY)) -> list[Standing]:
    return [Standing(first, roles[0]), Standing(second, roles[1])]


def test_a_standby_leaves_the_node_of_its_primary_for_the_other_one() -> None:
    assert next_move([pair("n1", "n2"), pair("n1", "n1")], ["n1", "n2"]) == Move(1, 1, "n2")


def test_the_primary_stays_whichever_of_the_two_it_is() -> None:
    assert next_move([pair("n1", "n1", (STANDBY, PRIMARY))], ["n1", "n2"]) == Move(0, 0, "n2")


def test_of_several_nodes_the_one_with_the_fewest_replicas_is_taken() -> None:
    pairs = [pair("n2", "n3"), pair("n1", "n2"), pair("n1", "n1")]
    assert next_move(pairs, ["n1", "n2", "n3"]) == Move(2, 1, "n3")


@pytest.mark.parametrize(
    "pairs",
    [
        [pair("n1", "n2"), pair("n2", "n1")],
        [pair("n1", "n1", (STANDBY, STANDBY))],
        [pair("n1", "n1", (PRIMARY, "recovering"))],
        [[Standing("n1", PRIMARY), None]],
    ],
    ids=["apart", "no primary", "recovers", "silent"],
)
def test_nobody_moves_who_need_not_or_of_whom_too_little_is_known(
    pairs: list[list[Standing | None]],
) -> None:
    assert next_move(pairs, ["n1", "n2"]) is None


def test_nobody_moves_where_there_is_one_node() -> None:
    assert next_move([pair("n1", "n1")], ["n1"]) is None
