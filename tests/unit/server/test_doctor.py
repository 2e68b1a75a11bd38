"""The doctor names what is wrong and what mends it, and changes nothing."""

from pathlib import Path

import pytest

from persistence.open import open_journal, open_sink
from server.bootstrap import prepare
from server.doctor import Finding, Verdict, examine, worst
from server.settings import Settings, load


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of an embedded cluster that does not exist yet."""
    flags = {"data_dir": tmp_path / "data", "shards": 2, "listen": "127.0.0.1:0"}
    return load(flags, environment={}).settings


@pytest.fixture
def cluster(settings: Settings) -> Settings:
    """Of an embedded cluster with empty journals."""
    settings.data_dir.mkdir()
    prepare(settings, lambda text: None)
    return settings


def named(findings: list[Finding], check: str) -> Finding:
    """The finding of this check."""
    return next(finding for finding in findings if finding.check == check)


def test_a_directory_without_a_cluster_is_a_warning_that_says_how_to_start(
    settings: Settings,
) -> None:
    finding = named(examine(settings), "cluster")

    assert finding.verdict is Verdict.WARN
    assert finding.mend == "stockray serve"


def test_it_makes_nothing_where_nothing_is(settings: Settings) -> None:
    examine(settings)

    assert not settings.data_dir.exists()


def test_a_sound_cluster_is_ok_shard_by_shard(cluster: Settings) -> None:
    findings = examine(cluster)

    assert named(findings, "shard 0").verdict is Verdict.OK
    assert named(findings, "shard 1").verdict is Verdict.OK
    assert named(findings, "database").verdict is Verdict.OK
    assert worst([f for f in findings if f.check.startswith("shard")]) is Verdict.OK


def test_a_missing_journal_fails_and_says_to_restore_it(cluster: Settings) -> None:
    for file in (cluster.data_dir / "journal").glob("shard-0001*"):
        file.unlink()

    finding = named(examine(cluster), "shard 1")

    assert finding.verdict is Verdict.FAIL
    assert "restore" in finding.mend


def test_a_journal_that_ends_before_the_database_fails_with_how_much_is_missing(
    cluster: Settings,
) -> None:
    journal, sink = open_journal(cluster.journal_url), open_sink(cluster.database_url)
    incarnation = journal.read_meta(0).incarnation
    sink.apply(0, incarnation=incarnation, from_seq=0, to_seq=7, rows=[])
    sink.close()
    journal.close()

    finding = named(examine(cluster), "shard 0")

    assert finding.verdict is Verdict.FAIL
    assert "lacks 7 entries" in finding.found


def test_a_database_of_another_cluster_fails(cluster: Settings) -> None:
    sink = open_sink(cluster.database_url)
    sink.apply(0, incarnation="somebody-else", from_seq=0, to_seq=1, rows=[])
    sink.close()

    finding = named(examine(cluster), "shard 0")

    assert finding.verdict is Verdict.FAIL
    assert "incarnations differ" in finding.found


def test_an_unreachable_journal_fails_and_says_what_to_start(tmp_path: Path) -> None:
    flags = {"data_dir": tmp_path, "journal": "redis://127.0.0.1:1/0"}
    settings = load(flags, environment={}).settings

    finding = named(examine(settings), "journal settings")

    assert finding.verdict is Verdict.FAIL
    assert "--journal" in finding.mend


def test_the_worst_finding_decides() -> None:
    ok = Finding(check="a", verdict=Verdict.OK, found="")
    warn = Finding(check="b", verdict=Verdict.WARN, found="")
    fail = Finding(check="c", verdict=Verdict.FAIL, found="")

    assert worst([ok]) is Verdict.OK
    assert worst([ok, warn]) is Verdict.WARN
    assert worst([fail, warn, ok]) is Verdict.FAIL
