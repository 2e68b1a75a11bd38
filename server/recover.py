"""`stockray recover --from-sql`: a new journal whose state is what the database has.

How it works
------------
1. Look (`recover_survey.py`): per shard, the database's position and what is left of the journal.
2. What is left of a journal beyond the database's position is applied to the database, as
   write-behind would have done. So of a store that lost one shard's journal only that shard loses.
3. The states are read back from the rows (`recover_state.py`), each at its shard's position.
4. The map gets a new incarnation and is marked unfinished: no start accepts it from here on.
5. Per shard: the state is published as a snapshot at its position, the journal starts over at that
   position, and the database's position is handed to the new incarnation.
6. What transfers between shards need (`recover_transfers.py`) is the new journals' first entry.
7. The map is marked finished, and everything is verified.

Rules
-----
* Cut off anywhere, it may be run again and goes on: each step is idempotent, and what it is made
  from changes no more. Before step 4 nothing was changed but the database, which caught up.
* The new incarnation is the fence: whoever owned an old journal meets NoJournal.
* Sequences go on where the database stands, since its rows are guarded by them.
"""

import json
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NamedTuple

from actors.core import state as s
from actors.core.codec import pack_entry
from actors.core.evolve import close_entry
from actors.core.snapshot import chunks
from actors.projector import BATCH_BYTES, apply_batch, project
from persistence.open import open_journal, open_sink, open_snapshots
from persistence.ports import Journal, Sink, Snapshots
from persistence.sql.cluster import KeptMap, SqlCluster
from persistence.sql.dump import SqlDump
from server.recover_marks import moved_marks
from server.recover_state import Rebuilt, counted, rebuild
from server.recover_survey import CannotRecover, Left, ShardSurvey, Survey, survey
from server.recover_transfers import Repairs
from server.settings import Settings
from server.verifying import verify_stores

Progress = Callable[[str], None]
OWNER = "recover"

LOST_KINDS = (
    "Refusals: a request that was refused, sent again with its id, is decided anew.",
    "What was decided after the database's position of its shard: reservations, payments, returns, "
    "documents. Their request ids are unknown again: sent again, they are applied, as if new. A "
    "reservation asked for again with its old request id gets its old reservation id.",
    "A confirmation of a reservation that is gone finds none: the payment is kept as a refund due.",
)
"""What is not in SQL, and what follows for callers, beside what the shards' figures say."""


class Outcome(NamedTuple):
    """What a recovery did, or a dry run would do."""

    dry_run: bool
    found: Survey
    incarnation: str
    """Of the new journals; '' after a dry run."""
    rebuilt: dict[str, int]
    reservations: Sequence[int]
    differences: Sequence[str]
    difference_count: int
    dead_letters: int
    transfers: Sequence[str]
    verified: bool | None
    violations: Sequence[str]

    def as_data(self) -> dict[str, Any]:
        """For `-o json`: a report to be kept."""
        return {
            "dry_run": self.dry_run,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "incarnation_before": self.found.before,
            "incarnation": self.incarnation,
            "map_from": self.found.map_from,
            "shards": [shard_data(one, self.reservations[one.shard]) for one in self.found.shards],
            "rebuilt": self.rebuilt,
            "missing": list(LOST_KINDS),
            "transfers_set_right": list(self.transfers),
            "dead_letters": self.dead_letters,
            "differences": list(self.differences),
            "difference_count": self.difference_count,
            "verified": self.verified,
            "violations": list(self.violations),
        }


def shard_data(one: ShardSurvey, reservations: int) -> dict[str, Any]:
    """A shard's part of the report."""
    as_of = one.view.as_of_ms
    everything = one.left in (Left.SOUND, Left.UNUSABLE)
    return {
        "shard": one.shard,
        "journal": str(one.left),
        "journal_why": one.journal_why,
        "journal_seq": one.journal_seq,
        "database_seq": one.view.seq,
        "caught_up_entries": one.catches_up,
        "recovered_to_seq": one.seq,
        "nothing_missing": everything,
        "missing_entries_at_least": one.gone_at_least,
        "missing_from": "" if everything else time_text(as_of),
        "reservations": reservations,
    }


def time_text(at_ms: int) -> str:
    """A time as people and programs read it; '' for none."""
    if not at_ms:
        return ""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


class Recovery:
    """One run. `look` first; `run` does it. The caller holds the data directory's lock."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self._settings = settings
        self._progress = progress
        self._journal: Journal = open_journal(settings.journal_url)
        self._snapshots: Snapshots = open_snapshots(settings.snapshots_url)
        self._sink: Sink = open_sink(settings.database_url)
        self._cluster = SqlCluster(settings.database_url)

    def close(self) -> None:
        """Give up the stores."""
        for store in (self._journal, self._snapshots, self._sink, self._cluster):
            store.close()

    def look(self) -> Survey:
        """What there is. CannotRecover, StorageError."""
        self._journal.verify_settings()
        if self._settings.embedded_database:
            self._sink.upgrade()
        self._sink.require_revision()
        return survey(
            journal=self._journal,
            snapshots=self._snapshots,
            cluster=self._cluster,
            shards=self._settings.shards,
            account_shards=self._settings.account_shards,
            log_directory=self._settings.log_directory,
        )

    def rehearse(self, found: Survey) -> Outcome:
        """What `run` would do, as far as it can be told without changing anything."""
        rebuilt, letters = self._rebuild(found, [one.view.seq for one in found.shards])
        repairs = Repairs(rebuilt.states, found.slots_of)
        repairs.undo()
        repairs.run(rebuilt.arrivals)
        return _outcome(found, rebuilt, letters, repairs, dry_run=True)

    def run(self, found: Survey, *, accept_differences: bool) -> Outcome:
        """Recover. CannotRecover when rows contradict each other, with nothing changed but a
        database that has caught up."""
        for one in found.shards:
            if one.catches_up:
                self._catch_up(one.shard, one.journal_incarnation)
        rebuilt, letters = self._rebuild(found, [one.seq for one in found.shards])
        if rebuilt.differences and not accept_differences:
            raise CannotRecover(
                f"database: {rebuilt.difference_count} things do not fit together, the first: "
                f"{'; '.join(rebuilt.differences[:3])}. Mend the rows, or recover all the same "
                "with --accept-differences"
            )
        settled = rebuilt.settle()
        repairs = Repairs(rebuilt.states, found.slots_of)
        repairs.undo()
        incarnation = found.resumes or uuid.uuid4().hex
        version = self._mark(found, incarnation)
        for one, state in zip(found.shards, rebuilt.states, strict=True):
            self._progress(f"shard {one.shard}: snapshot at entry {state.seq}, new journal")
            self._publish(one.shard, incarnation, state)
            self._journal.start_over(
                one.shard,
                incarnation=incarnation,
                replaces=one.journal_incarnation,
                last_seq=state.seq,
            )
        for slot, pool in settled:
            repairs.tell(slot, pool)
        repairs.run(rebuilt.arrivals)
        repairs.take(moved_marks(rebuilt.states, found.slots_of, incarnation))
        for shard, records in repairs.records.items():
            self._append(shard, incarnation, rebuilt.states[shard], records)
        for one in found.shards:
            if one.view.incarnation or one.catches_up:
                self._cluster.hand_over(
                    one.shard,
                    seq=one.seq,
                    before=one.view.incarnation or one.journal_incarnation,
                    after=incarnation,
                )
        self._finish(found, incarnation, version)
        for shard in repairs.records:
            # As write-behind would; not before the map is ready, for a recovery that is run again
            # must find the database where this one found it.
            self._catch_up(shard, incarnation)
        outcome = _outcome(found, rebuilt, letters, repairs, dry_run=False)
        return self._verified(outcome._replace(incarnation=incarnation))

    def _catch_up(self, shard: int, incarnation: str) -> None:
        """What the journal has and the database lacks."""
        _, position = self._sink.position(shard)
        while True:
            entries = self._journal.read(shard, after_seq=position, max_bytes=BATCH_BYTES)
            if not entries:
                return
            batch = project(shard, entries)
            apply_batch(self._sink, shard, incarnation, position, batch)
            position = batch.to_seq
            self._progress(f"shard {shard}: the database has caught up to entry {position}")

    def _rebuild(self, found: Survey, seqs: Sequence[int]) -> tuple[Rebuilt, int]:
        with closing(SqlDump(self._settings.database_url)) as dump, dump.open() as view:
            view.positions()
            letters = view.dead_letters()
            rebuilt = rebuild(
                view,
                slots_of=found.slots_of,
                seqs=seqs,
                recall_after_ms=self._settings.recall_after_ms,
                progress=lambda table, rows: self._progress(f"read {rows:,} rows of {table}"),
            )
        return rebuilt, letters

    def _mark(self, found: Survey, incarnation: str) -> int:
        """From now on there is a cluster that is not ready. Answers the map's version."""
        if found.resumes:
            return found.map_version
        fields = {
            "incarnation": incarnation,
            "slots_of": found.slots_of,
            "ready": False,
            "recovers": found.before,
        }
        data = json.dumps(fields).encode()
        if not self._journal.swap_map(expected_version=found.map_version, data=data):
            raise CannotRecover("journal: its map has changed meanwhile: something else is at work")
        return found.map_version + 1

    def _publish(self, shard: int, incarnation: str, state: s.ShardState) -> None:
        handle = self._snapshots.begin(shard, incarnation=incarnation, begin_seq=state.seq)
        for index, chunk in enumerate(chunks(state)):
            self._snapshots.write(shard, handle, index, chunk)
        self._snapshots.publish(shard, handle, end_seq=state.seq)

    def _append(
        self, shard: int, incarnation: str, state: s.ShardState, records: Sequence[Any]
    ) -> None:
        """The entry that sets transfers right; once, however often this is run."""
        meta = self._journal.read_meta(shard)
        if meta.epoch == 0:
            self._journal.acquire(shard, incarnation=incarnation, seen_epoch=0, token=OWNER)
        self._journal.append(
            shard,
            incarnation=incarnation,
            epoch=1,
            seq=state.seq,
            batch_id=f"{OWNER}:{incarnation}",
            entry=pack_entry(
                epoch=1, now_ms=state.now_ms, records=records, balances=close_entry(state)
            ),
        )

    def _finish(self, found: Survey, incarnation: str, version: int) -> None:
        fields = {
            "incarnation": incarnation,
            "slots_of": found.slots_of,
            "ready": True,
            "recovered_from": found.before,
        }
        text = json.dumps(fields)
        self._journal.swap_map(expected_version=version, data=text.encode())
        self._cluster.keep_map(KeptMap(version + 1, incarnation, text))

    def _verified(self, outcome: Outcome) -> Outcome:
        self._progress("verifying")
        report = verify_stores(self._settings)
        examples = [
            f"{name}: {example}"
            for name, invariant in report.invariants.items()
            for example in invariant.examples
        ]
        return outcome._replace(verified=report.ok, violations=examples)


def _outcome(
    found: Survey, rebuilt: Rebuilt, letters: int, repairs: Repairs, *, dry_run: bool
) -> Outcome:
    return Outcome(
        dry_run=dry_run,
        found=found,
        incarnation="",
        rebuilt=counted(rebuilt.states),
        reservations=rebuilt.reservations,
        differences=rebuilt.differences,
        difference_count=rebuilt.difference_count,
        dead_letters=letters,
        transfers=repairs.told,
        verified=None,
        violations=(),
    )
