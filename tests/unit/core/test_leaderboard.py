"""The first of a month are those that counting everybody would find, however scores change."""

from collections.abc import Callable
from random import Random

import pytest

from actors.core import leaderboard
from actors.core.leaderboard import Boards, Top

Patch = pytest.MonkeyPatch
LENGTH = 3


@pytest.fixture(autouse=True)
def few_are_kept(monkeypatch: Patch) -> None:
    """Two more than are read."""
    monkeypatch.setattr(leaderboard, "KEPT", LENGTH + 2)


def first_of(scores: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """By looking at everybody."""
    ranked = sorted((-score, name) for name, score in scores.items() if score > 0)
    return tuple((name, -score) for score, name in ranked[:LENGTH])


def walk(seed: int) -> tuple[int, int]:
    """A history of scores; answers reads, and for how many of them all were counted."""
    random, top = Random(seed), Top()
    scores: dict[str, int] = {}
    reads = counts = 0
    down = random.choice([0.1, 0.5, 0.8])
    for _ in range(300):
        name = f"d{random.randrange(12)}"
        move = random.randint(1, 9)
        scores[name] = scores.get(name, 0) + (-move if random.random() < down else move)
        top.change(name, scores[name])
        if random.random() < 0.3:
            reads += 1
            if not top.knows(LENGTH):
                counts += 1
                top.recount((-score, who) for who, score in scores.items() if score > 0)
            assert top.best(LENGTH) == first_of(scores)
            assert len(top.members) <= leaderboard.KEPT
    return reads, counts


@pytest.mark.parametrize("seed", range(40))
def test_random_histories_read_as_if_everybody_was_counted(seed: int) -> None:
    walk(seed)


def test_most_reads_count_nobody() -> None:
    told = [walk(seed) for seed in range(40)]
    reads, counts = (sum(one) for one in zip(*told, strict=True))
    assert 0 < counts < reads / 4, f"{counts} of {reads} reads counted everybody"


def test_scores_that_only_rise_are_never_counted() -> None:
    random, top = Random(5), Top()
    scores: dict[str, int] = {}
    for _ in range(500):
        name = f"d{random.randrange(50)}"
        scores[name] = scores.get(name, 0) + random.randint(1, 9)
        top.change(name, scores[name])
        assert top.knows(LENGTH)
        assert top.best(LENGTH) == first_of(scores)


def who_falls_stays(patch: Patch) -> None:
    honest = Top.change

    def change(self: Top, name: str, score: int) -> None:
        if score >= self.members.get(name, 0):
            honest(self, name, score)

    patch.setattr(Top, "change", change)


def the_floor_stays_where_it_was(patch: Patch) -> None:
    honest = Top.change

    def change(self: Top, name: str, score: int) -> None:
        floor = self.floor
        honest(self, name, score)
        if floor is not None:
            self.floor = floor

    patch.setattr(Top, "change", change)


def who_fell_is_not_missed(patch: Patch) -> None:
    patch.setattr(Top, "knows", lambda self, length: True)


def nobody_new_comes_in(patch: Patch) -> None:
    honest = Top.change

    def change(self: Top, name: str, score: int) -> None:
        if name in self.members or len(self.members) < LENGTH:
            honest(self, name, score)

    patch.setattr(Top, "change", change)


def equals_come_in_any_order(patch: Patch) -> None:
    patch.setattr(
        Top,
        "best",
        lambda self, length: tuple(
            sorted(self.members.items(), key=lambda member: -member[1])[:length]
        ),
    )


@pytest.mark.parametrize(
    "mutant",
    [
        who_falls_stays,
        the_floor_stays_where_it_was,
        who_fell_is_not_missed,
        nobody_new_comes_in,
        equals_come_in_any_order,
    ],
    ids=lambda mutant: mutant.__name__,
)
def test_a_board_that_is_kept_wrongly_is_noticed(
    mutant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        any(walk(seed) is None for seed in range(40))


def test_boards_of_two_months_are_kept() -> None:
    boards = Boards()
    for month, name in ((202310, "old"), (202311, "bob"), (202312, "cid")):
        boards.change(month, 2, name, 5)
    assert sorted(boards.months) == [202311, 202312]
    boards.change(202310, 2, "old", 9)
    assert boards.top(202310, 2).best(1) == ()
    assert boards.top(202312, 2).best(1) == (("cid", 5),)
    assert boards.top(202312, 1).best(1) == (), "another board"
