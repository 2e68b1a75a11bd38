"""What a replica has of the programme: the fold of the journal, and snapshots completed by it."""

from collections.abc import Iterator

import msgpack
import pytest

from actors.core import snapshot
from actors.core import state as s
from actors.core.evolve import Impossible, fold
from actors.core.snapshot import Loader, chunks, digest
from tests.model.bureau import DAY_MS, FREEZE_MS, T0, Bureau
from tests.model.programme_walk import Walk, indexes
from tests.model.shop import replay


@pytest.fixture(autouse=True)
def chunks_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a chunk."""
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 1)


def test_a_replica_that_folds_the_journal_is_the_primary() -> None:
    bureau = Walk(1).run(300).bureau
    assert digest(bureau.replica()) == digest(bureau.state)


def test_a_snapshot_is_the_state() -> None:
    bureau = Walk(2).run(300).bureau
    loaded = bureau.from_snapshot()
    assert digest(loaded) == digest(bureau.state)
    assert indexes(loaded) == indexes(bureau.state)


class Copy:
    """A snapshot that is written while the programme goes on."""

    def __init__(self, bureau: Bureau) -> None:
        self.bureau = bureau
        self.begin_seq = bureau.state.seq
        self._rest: Iterator[bytes] = chunks(bureau.state)
        self._taken: list[bytes] = []

    def step(self) -> None:
        """One more chunk is written."""
        self._taken.extend([chunk for _, chunk in zip(range(1), self._rest, strict=False)])

    def load(self) -> s.ShardState:
        """Finish writing, load it, and complete it by the journal."""
        self._taken.extend(self._rest)
        loader = Loader(s.ShardState(), self.begin_seq)
        loader.read(self._taken)
        journal = self.bureau.journal
        replay(loader.state, journal[: loader.end_seq], self.begin_seq)
        if loader.state.fuzzy is not None:
            loader.finish()
        replay(loader.state, journal, loader.end_seq)
        return loader.state


@pytest.mark.parametrize("seed", range(12))
def test_a_snapshot_written_while_the_programme_goes_on_is_completed_by_the_journal(
    seed: int,
) -> None:
    walk = Walk(seed).run(120)
    copy = Copy(walk.bureau)
    for _ in range(60):
        walk.run(2)
        copy.step()
    loaded = copy.load()
    assert digest(loaded) == digest(walk.bureau.state)
    assert indexes(loaded) == indexes(walk.bureau.state)


def test_a_loaded_programme_goes_on_as_the_first_does() -> None:
    bureau = Bureau()
    bureau.open("bob")
    bureau.bind("ann", "bob")
    bureau.earned("r1", "ann")
    other = Bureau()
    other.state, other.journal, other.now_ms = (
        bureau.from_snapshot(),
        list(bureau.journal),
        bureau.now_ms,
    )
    for one in (bureau, other):
        one.wait(FREEZE_MS + 2_000)
        one.wait(30 * DAY_MS)
    assert digest(other.state) == digest(bureau.state)
    assert bureau.money("bob")[:3] == (0, 0, 1_000)


def test_a_ledger_entry_that_does_not_sum_to_0_is_impossible() -> None:
    bureau = Bureau()
    bureau.open("bob")
    bureau.bind("ann", "bob")
    (record,) = bureau.earned("r1", "ann")
    entry = record.entries[0]._replace(number=2, frozen_minor=999)
    with pytest.raises(Impossible, match="does not sum to 0"):
        fold(bureau.state, 99, T0, [record._replace(key=bytes(18), entries=(entry,))], [])


def test_a_share_cannot_become_available_twice() -> None:
    bureau = Bureau()
    bureau.open("bob")
    bureau.bind("ann", "bob")
    bureau.earned("r1", "ann")
    bureau.now_ms += FREEZE_MS + 2_000
    (record,) = bureau.beat()
    with pytest.raises(Impossible):
        fold(bureau.state, 99, bureau.now_ms, [record], [])
    again = record._replace(entries=())
    with pytest.raises(Impossible, match="available twice"):
        fold(bureau.state, 100, bureau.now_ms, [again], [])


def test_a_stock_shards_snapshot_says_nothing_of_a_programme() -> None:
    state = s.ShardState()
    state.slot(1)
    (end,) = chunks(state)
    small = msgpack.unpackb(end, strict_map_key=False)[5]
    assert [len(row) for row in small] == [6]
