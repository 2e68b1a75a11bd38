"""`stockray doctor`: looks at everything that a start and a sale need, and says what mends it.

Read-only, and safe beside a live service. A check that could not be made is a warning, not an ok.
"""

import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from typing import Any

from persistence.errors import Misconfigured, NoJournal, StorageError
from persistence.open import open_journal, open_sink
from persistence.ports import Journal, Sink
from server.bootstrap import CannotStart, ShardMap, read_map
from server.settings import Settings

SHARDS_MAX = 256
OPEN_FILES_MIN = 4_096
FREE_BYTES_MIN = 2_000_000_000


class Verdict(StrEnum):
    """Of one check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor."""

    check: str
    verdict: Verdict
    found: str
    mend: str = ""
    """What to do; '' when there is nothing to."""


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order in which things are needed."""
    return [*_machine(settings), *_stores(settings)]


def as_data(findings: list[Finding]) -> list[dict[str, Any]]:
    """For `-o json`."""
    return [asdict(finding) for finding in findings]


def worst(findings: list[Finding]) -> Verdict:
    """The gravest verdict."""
    for verdict in (Verdict.FAIL, Verdict.WARN):
        if any(finding.verdict is verdict for finding in findings):
            return verdict
    return Verdict.OK


def _machine(settings: Settings) -> Iterator[Finding]:
    yield Finding(
        check="versions",
        verdict=Verdict.OK,
        found=f"stockray {version('stockray-server')}, ray {version('ray')}, "
        f"grpcio {version('grpcio')}",
    )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < OPEN_FILES_MIN
    yield Finding(
        check="open files",
        verdict=Verdict.WARN if few else Verdict.OK,
        found=f"limit {soft}",
        mend=f"ulimit -n {OPEN_FILES_MIN} (Ray and many connections need more)" if few else "",
    )
    place = settings.data_dir
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    short = free < FREE_BYTES_MIN
    yield Finding(
        check="disk",
        verdict=Verdict.WARN if short else Verdict.OK,
        found=f"{free // 1_000_000:,} MB free at {settings.data_dir}",
        mend="free space, or choose another --data-dir" if short else "",
    )
    yield _port(settings)


def _port(settings: Settings) -> Finding:
    host, _, port = settings.listen.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1)
        busy = int(port) != 0 and probe.connect_ex((host.strip("[]"), int(port))) == 0
    return Finding(
        check="port",
        verdict=Verdict.OK,
        found=f"{settings.listen} {'answers: a server is there' if busy else 'is free'}",
    )


def _stores(settings: Settings) -> Iterator[Finding]:
    if settings.embedded_journal and not (settings.data_dir / "journal").exists():
        # Looking would make the files that are looked for.
        yield Finding(
            check="cluster",
            verdict=Verdict.WARN,
            found=f"{settings.data_dir} holds no cluster",
            mend="stockray serve",
        )
        return
    try:
        journal = open_journal(settings.journal_url)
        sink = open_sink(settings.database_url)
    except StorageError as error:
        yield Finding(check="settings", verdict=Verdict.FAIL, found=str(error))
        return
    try:
        yield _journal_settings(journal)
        yield _revision(sink)
        yield from _shards(journal, sink)
    finally:
        journal.close()
        sink.close()


def _journal_settings(journal: Journal) -> Finding:
    try:
        warnings = journal.verify_settings()
    except Misconfigured as error:
        return Finding(check="journal settings", verdict=Verdict.FAIL, found=str(error))
    except StorageError as error:
        return Finding(
            check="journal settings",
            verdict=Verdict.FAIL,
            found=str(error),
            mend="start the journal's store, or correct --journal",
        )
    return Finding(
        check="journal settings",
        verdict=Verdict.WARN if warnings else Verdict.OK,
        found="; ".join(warnings) or "no acknowledged sale can be lost by them",
    )


def _revision(sink: Sink) -> Finding:
    try:
        found, needed = sink.revision()
    except StorageError as error:
        return Finding(
            check="database",
            verdict=Verdict.FAIL,
            found=str(error),
            mend="start the database, or correct --database",
        )
    if found == needed:
        return Finding(check="database", verdict=Verdict.OK, found=f"schema at {found}")
    return Finding(
        check="database",
        verdict=Verdict.FAIL if found else Verdict.WARN,
        found=f"schema at {found or 'nothing'}, this release needs {needed}",
        mend="stockray db upgrade",
    )


def _shards(journal: Journal, sink: Sink) -> Iterator[Finding]:
    try:
        shard_map = read_map(journal)
    except CannotStart as error:
        yield _no_cluster(sink, str(error))
        return
    except StorageError as error:
        yield Finding(check="cluster", verdict=Verdict.FAIL, found=str(error))
        return
    yield Finding(
        check="cluster",
        verdict=Verdict.OK,
        found=f"{shard_map.shards} shards, map version {shard_map.version}, "
        f"incarnation {shard_map.incarnation[:8]}",
    )
    for shard in range(shard_map.shards):
        examine_it = partial(_shard, journal, sink, shard_map, shard)
        yield _guarded(f"shard {shard}", examine_it)


def _no_cluster(sink: Sink, why: str) -> Finding:
    """A store that was never used, or one that was lost: the database knows which."""
    try:
        known = [shard for shard in range(SHARDS_MAX) if sink.position(shard)[0]]
    except StorageError as error:
        return Finding(check="cluster", verdict=Verdict.FAIL, found=f"{why}; {error}")
    if not known:
        return Finding(check="cluster", verdict=Verdict.WARN, found=why, mend="stockray serve")
    return Finding(
        check="cluster",
        verdict=Verdict.FAIL,
        found=f"the database has rows of {len(known)} shards, and the journal's store has no "
        f"cluster that can be started: {why}",
        mend="correct --journal, or make the journal anew: stockray recover --from-sql",
    )


def _guarded(check: str, examine_it: Callable[[], Finding]) -> Finding:
    try:
        return examine_it()
    except NoJournal as error:
        return Finding(
            check=check,
            verdict=Verdict.FAIL,
            found=str(error),
            mend="restore the journal's store, or make it anew: stockray recover --from-sql",
        )
    except StorageError as error:
        return Finding(check=check, verdict=Verdict.FAIL, found=str(error))


def _shard(journal: Journal, sink: Sink, shard_map: ShardMap, shard: int) -> Finding:
    meta = journal.read_meta(shard)
    incarnation, position = sink.position(shard)
    lag = meta.last_seq - position
    found = (
        f"journal ends at {meta.last_seq} (epoch {meta.epoch}), database at {position}, "
        f"{journal.bytes_used(shard) // 1_000:,} kB stored"
    )
    if meta.incarnation != shard_map.incarnation or (
        incarnation and incarnation != meta.incarnation
    ):
        return Finding(
            check=f"shard {shard}",
            verdict=Verdict.FAIL,
            found=f"{found}; incarnations differ",
            mend="journal and database are of different clusters: correct --journal or --database",
        )
    if lag < 0:
        return Finding(
            check=f"shard {shard}",
            verdict=Verdict.FAIL,
            found=f"{found}; the journal lacks {-lag} entries that the database has",
            mend="restore the journal, or make it anew: stockray recover --from-sql",
        )
    return Finding(check=f"shard {shard}", verdict=Verdict.OK, found=found)
