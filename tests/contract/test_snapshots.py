"""The contract of the `Snapshots` port, over memory, files and Redis."""

import pytest

from persistence.errors import Corrupt, Misconfigured, StorageError
from persistence.files import FileSnapshots
from persistence.memory import MemorySnapshots
from persistence.open import open_snapshots
from persistence.ports import SnapshotInfo, Snapshots
from persistence.redis_snapshots import RedisSnapshots
from persistence.snapshots import CHUNK_BYTES_MAX
from tests.contract.conftest import SnapshotStore

CHUNKS = [b"first" * 10, b"", bytes(range(256)) * 100]


def save(
    snapshots: Snapshots,
    *,
    end_seq: int,
    incarnation: str = "inc-1",
    chunks: list[bytes] = CHUNKS,
    shard: int = 7,
) -> SnapshotInfo:
    handle = snapshots.begin(shard, incarnation=incarnation, begin_seq=end_seq - 5)
    for index, chunk in enumerate(chunks):
        snapshots.write(shard, handle, index, chunk)
    return snapshots.publish(shard, handle, end_seq=end_seq)


def test_a_published_snapshot_reads_back_through_another_client(
    snapshot_store: SnapshotStore,
) -> None:
    info = save(snapshot_store.connect(), end_seq=20)
    byte_count = sum(map(len, CHUNKS))
    assert info == SnapshotInfo("inc-1", 15, 20, 3, byte_count, handle=info.handle)
    other = snapshot_store.connect()
    assert list(other.list(7)) == [info]
    assert list(other.read(7, info)) == CHUNKS


def test_a_shard_without_snapshots_lists_none(snapshots: Snapshots) -> None:
    save(snapshots, end_seq=20, shard=8)
    assert list(snapshots.list(7)) == []


def test_a_half_written_snapshot_is_never_listed(snapshots: Snapshots) -> None:
    whole = save(snapshots, end_seq=20)
    handle = snapshots.begin(7, incarnation="inc-1", begin_seq=30)
    snapshots.write(7, handle, 0, b"half")
    assert list(snapshots.list(7)) == [whole]


def test_a_new_begin_discards_the_unfinished_one(snapshots: Snapshots) -> None:
    abandoned = snapshots.begin(7, incarnation="inc-1", begin_seq=30)
    snapshots.write(7, abandoned, 0, b"half")
    whole = save(snapshots, end_seq=40)
    with pytest.raises(StorageError, match="discarded"):
        snapshots.write(7, abandoned, 1, b"more")
    with pytest.raises(StorageError, match="discarded"):
        snapshots.publish(7, abandoned, end_seq=35)
    assert list(snapshots.list(7)) == [whole]


def test_a_snapshot_that_lacks_a_chunk_cannot_be_published(snapshots: Snapshots) -> None:
    handle = snapshots.begin(7, incarnation="inc-1", begin_seq=30)
    snapshots.write(7, handle, 0, b"zero")
    snapshots.write(7, handle, 2, b"two")
    with pytest.raises(StorageError, match="lacks a chunk"):
        snapshots.publish(7, handle, end_seq=35)
    assert list(snapshots.list(7)) == []


def test_a_chunk_written_twice_is_the_second_one(snapshots: Snapshots) -> None:
    handle = snapshots.begin(7, incarnation="inc-1", begin_seq=30)
    snapshots.write(7, handle, 0, b"a first try, longer")
    snapshots.write(7, handle, 0, b"the second")
    info = snapshots.publish(7, handle, end_seq=35)
    assert list(snapshots.read(7, info)) == [b"the second"]
    assert info.byte_count == 10


def test_publishing_again_answers_the_same_and_changes_nothing(snapshots: Snapshots) -> None:
    handle = snapshots.begin(7, incarnation="inc-1", begin_seq=30)
    snapshots.write(7, handle, 0, b"chunk")
    info = snapshots.publish(7, handle, end_seq=35)
    assert snapshots.publish(7, handle, end_seq=35) == info
    with pytest.raises(StorageError, match="published"):
        snapshots.write(7, handle, 0, b"too late")
    assert list(snapshots.list(7)) == [info]
    assert list(snapshots.read(7, info)) == [b"chunk"]


def test_the_newest_two_are_kept(snapshots: Snapshots) -> None:
    infos = [save(snapshots, end_seq=seq) for seq in (10, 20, 30, 40)]
    assert list(snapshots.list(7)) == [infos[3], infos[2]]
    assert list(snapshots.read(7, infos[2])) == CHUNKS
    with pytest.raises(Corrupt):
        list(snapshots.read(7, infos[1]))


def test_a_late_older_snapshot_does_not_displace_newer_ones(snapshots: Snapshots) -> None:
    newer = [save(snapshots, end_seq=seq) for seq in (30, 40)]
    save(snapshots, end_seq=20)
    assert list(snapshots.list(7)) == [newer[1], newer[0]]


def test_snapshots_of_two_incarnations_are_not_mixed(snapshots: Snapshots) -> None:
    for seq in (1000, 2000):
        save(snapshots, end_seq=seq, incarnation="inc-1")
    first = save(snapshots, end_seq=10, incarnation="inc-2")
    assert list(snapshots.list(7)) == [first]
    second = save(snapshots, end_seq=20, incarnation="inc-2")
    assert list(snapshots.list(7)) == [second, first]


def test_two_snapshots_of_a_journal_that_stood_still_are_told_apart(snapshots: Snapshots) -> None:
    """Found by the simulator: with the newer one damaged the older could not be read, since only
    their chunks differ."""
    infos = [save(snapshots, end_seq=20, chunks=[chunk]) for chunk in (b"older", b"newer")]
    assert list(snapshots.list(7)) == [infos[1], infos[0]]
    assert [list(snapshots.read(7, info)) for info in infos] == [[b"older"], [b"newer"]]


def test_a_damaged_chunk_is_corrupt(snapshot_store: SnapshotStore) -> None:
    snapshots = snapshot_store.connect()
    info = save(snapshots, end_seq=20)
    snapshot_store.damage(7, 2)
    chunks = iter(snapshots.read(7, info))
    assert next(chunks) == CHUNKS[0]
    assert next(chunks) == CHUNKS[1]
    with pytest.raises(Corrupt, match="chunk 2"):
        next(chunks)


def test_a_missing_chunk_is_corrupt(snapshot_store: SnapshotStore) -> None:
    snapshots = snapshot_store.connect()
    info = save(snapshots, end_seq=20)
    snapshot_store.remove(7, 1)
    with pytest.raises(Corrupt, match="chunk 1"):
        list(snapshots.read(7, info))


def test_the_largest_chunk_is_stored_and_a_larger_one_refused(snapshots: Snapshots) -> None:
    largest = b"x" * CHUNK_BYTES_MAX
    info = save(snapshots, end_seq=20, chunks=[largest])
    assert list(snapshots.read(7, info)) == [largest]
    with pytest.raises(ValueError, match="more than"):
        save(snapshots, end_seq=30, chunks=[largest + b"x"])


def test_an_empty_snapshot_has_no_chunks(snapshots: Snapshots) -> None:
    info = save(snapshots, end_seq=5, chunks=[])
    assert (info.chunk_count, info.byte_count) == (0, 0)
    assert list(snapshots.read(7, info)) == []


def test_a_url_names_the_adapter() -> None:
    assert isinstance(open_snapshots("memory:"), MemorySnapshots)
    assert isinstance(open_snapshots("file:/var/lib/some%20where"), FileSnapshots)
    assert isinstance(open_snapshots("redis://127.0.0.1:6379/0"), RedisSnapshots)


@pytest.mark.parametrize("url", ["s3://bucket", "file:relative", "", "/var/lib", "file://host/dir"])
def test_a_wrong_url_names_the_setting_and_what_it_may_be(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"snapshots: .*file:/absolute/directory"):
        open_snapshots(url)
