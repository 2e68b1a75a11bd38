"""What account shards have of stock shards' facts, against SQL and against the stock shards."""

from collections.abc import Callable, Collection, Sequence

from actors.core import state as s
from persistence.sql.dump import View
from server.verify_transfers import Check

COLUMNS = ("shard", "source", "incarnation", "source_seq", "source_index")


def compare_marks(
    view: View, states: Sequence[s.ShardState], unread: Collection[int], check: Check
) -> None:
    """Every mark at SQL's position is in SQL, and no other. Shards in `unread` are left out."""
    expected = {
        (shard, source): mark
        for shard, state in enumerate(states)
        if shard not in unread
        for source, mark in state.sources.items()
    }
    for shard, source, *found in view.rows("marks", COLUMNS):
        if shard in unread:
            continue
        wanted = expected.pop((shard, source), None)
        check(
            wanted == tuple(found),
            f"marks: shard {shard} of source {source}: SQL {found}, journal {wanted}",
        )
    for (shard, source), mark in expected.items():
        check(False, f"marks: {mark} of shard {shard} of source {source} is missing in SQL")


def check_sources(
    states: Sequence[s.ShardState], check: Check, fold_on: Callable[[int], None]
) -> None:
    """No account shard has facts of entries that their journal does not have."""
    for shard, state in enumerate(states):
        for source, (_, seq, _) in list(state.sources.items()):
            if seq > states[source].seq:
                # It was read before this shard's own journal, and has grown since.
                fold_on(source)
            check(
                seq <= states[source].seq,
                f"shard {shard} has facts of entry {seq} of shard {source}, whose journal ends at "
                f"{states[source].seq}",
            )
