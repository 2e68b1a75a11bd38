"""`stockray restore PLACE`: a backup into stores that are empty.

Rules
-----
* Every file is compared with its checksum before anything is written.
* The stores must hold nothing. A restore that did not come to its end leaves a map that no start
  accepts; the stores are then emptied, and it is begun anew.
* The restored cluster has a new incarnation: from the backup's last entry on, its history is
  another one than that of the cluster it was taken of, which may still run.
* Entries keep their sequences and epochs; the journal begins where the backup's does.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from actors.core.identity import SLOT_COUNT, SLOTS_IN_ALL
from persistence.errors import NoJournal
from persistence.open import open_journal, open_sink, open_snapshots
from persistence.ports import Entry, Journal, Sink, Snapshots
from persistence.sql.cluster import KeptMap, SqlCluster
from persistence.sql.copying import COPIED, SqlCopy, columns_of
from persistence.sql.tables import positions
from server.backup_files import CannotBackUp, FileFacts, check, read_manifest, values
from server.settings import Settings

Progress = Callable[[str], None]
OWNER = "restore"
SHARDS_MAX = 256
REPORT_EVERY_ENTRIES = 2_000
FACTS_AFTER = "facts_after_seq"


class Restore:
    """One run into the stores of `settings`, whose data directory the caller has locked."""

    def __init__(self, settings: Settings, place: Path, progress: Progress) -> None:
        self._settings = settings
        self._place = place
        self._progress = progress
        self._incarnation = uuid.uuid4().hex

    def run(self) -> dict[str, Any]:
        """Restore; answers the backup's manifest with the new incarnation. CannotBackUp,
        StorageError."""
        manifest = read_manifest(self._place)
        names = self._checked(manifest)
        settings = self._settings
        with ExitStack() as stores:
            journal = stores.enter_context(closing(open_journal(settings.journal_url)))
            snapshots = stores.enter_context(closing(open_snapshots(settings.snapshots_url)))
            sink = stores.enter_context(closing(open_sink(settings.database_url)))
            copy = stores.enter_context(closing(SqlCopy(settings.database_url)))
            cluster = stores.enter_context(closing(SqlCluster(settings.database_url)))
            journal.verify_settings()
            _require_empty(journal, snapshots, copy)
            _require_schema(sink, manifest["schema"])
            fields = {
                "incarnation": self._incarnation,
                "slots_of": manifest["slots_of"],
                "ready": False,
                "restores": manifest["incarnation"],
            }
            journal.swap_map(expected_version=0, data=json.dumps(fields).encode())
            for table in COPIED:
                if f"table-{table}.bin" in names:
                    self._fill(copy, table)
            for shard in manifest["shards"]:
                self._snapshot(snapshots, shard)
                self._journal(journal, shard)
            text = json.dumps(fields | {"ready": True})
            journal.swap_map(expected_version=1, data=text.encode())
            cluster.keep_map(KeptMap(2, self._incarnation, text))
        return manifest | {"restored_incarnation": self._incarnation}

    def _checked(self, manifest: dict[str, Any]) -> set[str]:
        """The names of the files, all of which are whole."""
        try:
            found = [FileFacts(**facts) for facts in manifest["files"]]
            shards = [shard["shard"] for shard in manifest["shards"]]
            # A backup of a release before account shards has none; the first start adds them.
            sound = len(manifest["slots_of"]) in (SLOT_COUNT, SLOTS_IN_ALL)
            sound = sound and shards == list(range(max(manifest["slots_of"]) + 1))
        except (KeyError, TypeError, ValueError) as error:
            raise CannotBackUp(f"{self._place}: its manifest is damaged: {error}") from error
        names = {facts.name for facts in found}
        if not sound or any(Path(name).name != name for name in names):
            raise CannotBackUp(f"{self._place}: its manifest is damaged")
        needed = {f"{kind}-{shard:04d}.bin" for kind in ("journal", "snapshot") for shard in shards}
        if missing := sorted(needed - names):
            raise CannotBackUp(f"{self._place}: its manifest names no {missing[0]}")
        for facts in found:
            self._progress(f"checking {facts.name}")
            check(self._place, facts)
        return names

    def _fill(self, copy: SqlCopy, table: str) -> None:
        rows = values(self._place, f"table-{table}.bin")
        columns: Sequence[str] = next(rows)
        unknown = sorted(set(columns) - set(columns_of(table)))
        if unknown:
            raise CannotBackUp(f"table {table}: this release knows no column {unknown[0]}")
        filled = columns
        if table == positions.name and FACTS_AFTER not in columns:
            filled = (*columns, FACTS_AFTER)
        count = 0
        for chunk in rows:
            copy.fill(table, filled, list(self._as_mine(table, columns, chunk)))
            count += len(chunk)
            self._progress(f"{table}: {count:,} rows")

    def _as_mine(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[Any, ...]]:
        """Positions are of the new incarnation; those of a release before the feed have no facts of
        what they have applied."""
        if table != positions.name:
            yield from rows
            return
        at, seq_at = columns.index("incarnation"), columns.index("seq")
        for row in rows:
            mine = (*row[:at], self._incarnation, *row[at + 1 :])
            yield mine if FACTS_AFTER in columns else (*mine, row[seq_at])

    def _snapshot(self, snapshots: Snapshots, shard: dict[str, Any]) -> None:
        info, number = shard["snapshot"], shard["shard"]
        if info is None:
            return
        handle = snapshots.begin(number, incarnation=self._incarnation, begin_seq=info["begin_seq"])
        for index, chunk in enumerate(values(self._place, f"snapshot-{number:04d}.bin")):
            snapshots.write(number, handle, index, chunk)
        snapshots.publish(number, handle, end_seq=info["end_seq"])
        self._progress(f"shard {number}: snapshot of entry {info['end_seq']}")

    def _journal(self, journal: Journal, shard: dict[str, Any]) -> None:
        number, epoch = shard["shard"], -1
        before_seq = shard["journal_first_seq"] - 1
        for fields in values(self._place, f"journal-{number:04d}.bin"):
            entry = Entry(*fields)
            if epoch < 0:
                epoch = entry.epoch - 1
                self._start(journal, number, before_seq, epoch)
            while epoch < entry.epoch:
                won = journal.acquire(
                    number, incarnation=self._incarnation, seen_epoch=epoch, token=OWNER
                )
                epoch = won.epoch
            journal.append(
                number,
                incarnation=self._incarnation,
                epoch=epoch,
                seq=entry.seq,
                batch_id=entry.batch_id,
                entry=entry.data,
            )
            if entry.seq % REPORT_EVERY_ENTRIES == 0:
                self._progress(f"shard {number}: journal up to entry {entry.seq}")
        if epoch < 0:
            self._start(journal, number, before_seq, shard["epoch"])
        self._progress(f"shard {number}: journal up to entry {shard['journal_last_seq']}")

    def _start(self, journal: Journal, number: int, last_seq: int, epoch: int) -> None:
        journal.start_over(
            number, incarnation=self._incarnation, replaces="", last_seq=last_seq, epoch=epoch
        )


def _require_empty(journal: Journal, snapshots: Snapshots, copy: SqlCopy) -> None:
    version, data = journal.read_map()
    if version and "restores" in json.loads(data) and not json.loads(data)["ready"]:
        raise CannotBackUp(
            "journal: its store holds a restore that did not come to its end; empty the stores "
            "(or choose others) and begin anew"
        )
    if version:
        raise CannotBackUp("journal: its store holds a cluster; restore to an empty one")
    for shard in range(SHARDS_MAX):
        try:
            journal.read_meta(shard)
        except NoJournal:
            if not snapshots.list(shard):
                continue
        raise CannotBackUp(
            f"journal: its store has something of a shard {shard}; restore to an empty one"
        )
    filled = copy.filled_table()
    if filled:
        raise CannotBackUp(f"database: its table {filled} has rows; restore to an empty one")


def _require_schema(sink: Sink, schema: str) -> None:
    """Make the tables. A newer release's rows are not for this one."""
    needed = sink.revision()[1]
    if schema > needed:
        raise CannotBackUp(
            f"the backup is of a newer release (schema {schema}, this one knows {needed})"
        )
    sink.upgrade()
