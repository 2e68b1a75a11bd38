"""`verify` over the stores that settings name."""

from collections.abc import Iterable, Sequence

from persistence.open import open_journal, open_snapshots
from persistence.sql.dump import SqlDump
from server.bootstrap import read_map
from server.settings import Settings
from server.verify import Ack, ReplicaClaim, Report, Verifier


def verify_stores(
    settings: Settings,
    *,
    claims: Sequence[ReplicaClaim] = (),
    acks: Iterable[Ack] = (),
) -> Report:
    """All invariants over journal, SQL and what replicas and clients claim. Reads only, so it may
    run beside a live service. CannotStart if there is no cluster, StorageError if a store cannot
    be read."""
    journal = open_journal(settings.journal_url)
    snapshots = open_snapshots(settings.snapshots_url)
    dump = SqlDump(settings.database_url)
    try:
        verifier = Verifier(
            journal=journal,
            snapshots=snapshots,
            dump=dump,
            shard_map=read_map(journal),
            claims=claims,
            acks=acks,
        )
        return verifier.run()
    finally:
        journal.close()
        snapshots.close()
        dump.close()
