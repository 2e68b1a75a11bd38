"""Looking before a recovery: what the database has, what is left of the journals, what is gone.

Changes nothing. `recover.py` does what `Survey` says can be done.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from actors.specs import slots_between, stock_shards_of
from persistence.errors import Corrupt, NoJournal, StorageError
from persistence.ports import Journal, Meta, Snapshots
from persistence.sql.cluster import KeptMap, Position, SqlCluster

LOG_BYTES = 4_000_000
"""So much of the end of each log is searched for hints."""
HINT_FIELDS = ("seq", "end")
"""Of a log's event, what tells that the shard had reached an entry."""


class CannotRecover(Exception):
    """Why nothing can be recovered, or need not be, and what to do instead."""


class Left(StrEnum):
    """What is left of a shard's journal."""

    GONE = "gone"
    """No journal, or one that cannot be read."""
    SOUND = "sound"
    """It reaches at least as far as the database, and a start can use it."""
    UNUSABLE = "unusable"
    """It reaches as far as the database, but no snapshot joins its first entry."""
    OLDER = "older"
    """It ends before the database's position: restored from an old copy."""
    CUT = "cut"
    """It begins beyond the entry that the database needs next."""
    NEW = "new"
    """Made by a recovery that did not come to its end."""


class ShardSurvey(NamedTuple):
    """One shard as it is found."""

    shard: int
    left: Left
    journal_why: str
    """Why the journal is no better than `left` says; '' if it is sound."""
    journal_incarnation: str
    journal_seq: int
    """Where it ends; 0 if there is none."""
    view: Position
    hint_seq: int
    """An entry that the shard's logs say it had reached; 0 if they say nothing."""

    @property
    def catches_up(self) -> int:
        """Entries that the database lacks and the journal still has."""
        if self.left not in (Left.SOUND, Left.UNUSABLE):
            return 0
        return max(0, self.journal_seq - self.view.seq)

    @property
    def seq(self) -> int:
        """The entry that the shard will be recovered to."""
        return self.view.seq + self.catches_up

    @property
    def gone_at_least(self) -> int | None:
        """How many entries are known to be gone; None if nothing tells."""
        if self.left in (Left.SOUND, Left.UNUSABLE, Left.NEW):
            return 0
        known = max(self.hint_seq, self.journal_seq)
        return known - self.seq if known > self.seq else None


class Survey(NamedTuple):
    """All that is known before anything is changed."""

    slots_of: tuple[int, ...]
    map_from: str
    """Where the map of slots is from: journal, database or flag."""
    map_version: int
    """Of the map in the journal's store; 0 if it has none."""
    before: str
    """The cluster's incarnation until now."""
    resumes: str
    """The incarnation of a recovery that did not come to its end; '' for none."""
    shards: tuple[ShardSurvey, ...]

    @property
    def nothing_lost(self) -> bool:
        """Whether a plain start would do."""
        return not self.resumes and all(one.left is Left.SOUND for one in self.shards)


def survey(
    *,
    journal: Journal,
    snapshots: Snapshots,
    cluster: SqlCluster,
    shards: int | None,
    account_shards: int | None,
    log_directory: Path,
) -> Survey:
    """Look. `shards`: how many the cluster had, for when neither store has its map. CannotRecover,
    or StorageError when a store cannot be reached."""
    positions = cluster.positions()
    kept = cluster.kept_map()
    version, data = journal.read_map()
    fields: Mapping[str, Any] = json.loads(data) if version else {}
    if not positions:
        raise CannotRecover(
            "database: it holds no cluster, so nothing can be made from it. Is --database the "
            "right one? A backup is brought back by `stockray restore`"
        )
    slots_of, map_from = _slots(fields, kept, positions, shards, account_shards)
    resumes = "" if fields.get("ready", True) else str(fields.get("recovers", ""))
    made = str(fields["incarnation"]) if resumes else ""
    _require_one_cluster(fields, kept, positions, made)
    before = resumes or _before(kept, positions, made)
    hints = _hints(log_directory, cluster.kept_since_ms())
    found = tuple(
        _shard(
            journal,
            snapshots,
            shard,
            positions.get(shard, Position("", 0, 0)),
            before=before,
            made=made,
            hint_seq=hints.get(shard, 0),
        )
        for shard in range(max(slots_of) + 1)
    )
    return Survey(slots_of, map_from, version, before, made, found)


def _slots(
    fields: Mapping[str, Any],
    kept: KeptMap | None,
    positions: Mapping[int, Position],
    shards: int | None,
    account_shards: int | None,
) -> tuple[tuple[int, ...], str]:
    if fields:
        found, where = tuple(fields["slots_of"]), "journal"
    elif kept is not None:
        found, where = tuple(json.loads(kept.text)["slots_of"]), "database"
    elif shards is None:
        raise CannotRecover(
            "shards: neither store says how many shards the cluster had (the database is of a "
            f"release before it kept that, and has rows of shard {max(positions)}); give the "
            "number that it was made with: --shards N (2 if it was never chosen)"
        )
    else:
        found, where = slots_between(shards, account_shards or 1), "flag"
    count, stock = max(found) + 1, stock_shards_of(found)
    if shards is not None and shards != stock:
        raise CannotRecover(f"shards: the cluster had {stock} by its {where}; leave --shards out")
    if account_shards is not None and count - stock not in (0, account_shards):
        raise CannotRecover(
            f"account_shards: the cluster had {count - stock} by its {where}; leave it out"
        )
    if max(positions) >= count:
        raise CannotRecover(
            f"shards: the database has rows of shard {max(positions)}, so there were more than "
            f"{count} shards"
        )
    return found, where


def _require_one_cluster(
    fields: Mapping[str, Any], kept: KeptMap | None, positions: Mapping[int, Position], made: str
) -> None:
    """The journal's store may hold nothing, this cluster, or its unfinished recovery."""
    mine = {position.incarnation for position in positions.values()}
    if kept is not None:
        mine.add(kept.incarnation)
    if fields and not made and fields["incarnation"] not in mine:
        raise CannotRecover(
            f"journal: its store holds another cluster ({fields['incarnation'][:8]}) than the "
            f"database ({', '.join(sorted(one[:8] for one in mine))}): correct --journal or "
            "--database, or use an empty store"
        )


def _before(kept: KeptMap | None, positions: Mapping[int, Position], made: str) -> str:
    others = [one.incarnation for one in positions.values() if one.incarnation != made]
    if kept is not None and kept.incarnation != made:
        others.insert(0, kept.incarnation)
    return others[0] if others else made


def _shard(
    journal: Journal,
    snapshots: Snapshots,
    shard: int,
    view: Position,
    *,
    before: str,
    made: str,
    hint_seq: int,
) -> ShardSurvey:
    def told(left: Left, why: str, meta: Meta | None) -> ShardSurvey:
        incarnation, seq = ("", 0) if meta is None else (meta.incarnation, meta.last_seq)
        return ShardSurvey(shard, left, why, incarnation, seq, view, hint_seq)

    try:
        meta = journal.read_meta(shard)
    except NoJournal as error:
        return told(Left.GONE, str(error), None)
    except Corrupt as error:
        raise CannotRecover(
            f"journal: {error}. Move what is damaged out of the way, and run this again"
        ) from error
    if made and meta.incarnation == made:
        return told(Left.NEW, "", meta)
    if meta.incarnation not in {before, view.incarnation}:
        raise CannotRecover(
            f"journal: that of shard {shard} is of another cluster ({meta.incarnation[:8]}); "
            "correct --journal, or use an empty store"
        )
    if meta.last_seq < view.seq:
        return told(Left.OLDER, f"ends at {meta.last_seq}, the database has {view.seq}", meta)
    if meta.first_seq > view.seq + 1:
        why = f"begins at {meta.first_seq}, the database has {view.seq}"
        return told(Left.CUT, why, meta)
    why = _unreadable(journal, shard, view.seq) or _unjoined(snapshots, shard, meta)
    return told(Left.UNUSABLE if why else Left.SOUND, why, meta)


def _unreadable(journal: Journal, shard: int, after_seq: int) -> str:
    """'' if the next entries can be read."""
    try:
        journal.read(shard, after_seq=after_seq, max_bytes=1)
    except StorageError as error:
        if error.retriable:
            raise
        return str(error)
    return ""


def _unjoined(snapshots: Snapshots, shard: int, meta: Meta) -> str:
    if meta.first_seq <= 1:
        return ""
    for info in snapshots.list(shard):
        if info.incarnation == meta.incarnation and info.begin_seq + 1 >= meta.first_seq:
            return ""
    return f"begins at {meta.first_seq}, and no snapshot reaches back to it"


def _hints(directory: Path, since_ms: int) -> dict[int, int]:
    """By shard, the last entry that its processes' logs speak of. Sequences of before an earlier
    recovery mean nothing: those entries are gone already."""
    found: dict[int, int] = {}
    for path in sorted(directory.glob("shard-*.log")):
        for event in _events(path):
            shard = event.get("shard")
            seqs = [event[name] for name in HINT_FIELDS if isinstance(event.get(name), int)]
            if isinstance(shard, int) and seqs and _time_ms(event) >= since_ms:
                found[shard] = max(found.get(shard, 0), *seqs)
    return found


def _time_ms(event: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(event["timestamp"]).timestamp() * 1000
    except (KeyError, TypeError, ValueError):
        return 0


def _events(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            lines: Sequence[bytes] = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event
