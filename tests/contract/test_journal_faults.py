"""Journals under faults: killed, stopped, locked, damaged, full and wrongly configured stores.

What must hold each time: an acknowledged append is there, once, in its place; what is not known to
be applied says so; and nothing is quietly started anew.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from persistence.errors import (
    Corrupt,
    Fenced,
    Locked,
    Misconfigured,
    NoJournal,
    NotApplied,
    OutcomeUnknown,
)
from persistence.memory import MemoryJournal
from persistence.ports import Entry, Journal, Ownership
from persistence.private import PrivateRedis
from persistence.redis import RedisJournal
from persistence.redis_link import RedisLink
from persistence.sqlite import SqliteJournal
from tests.helpers import rival as rival_program
from tests.helpers.rival import INCARNATION, SHARD, Ack, Rival
from tests.helpers.services import private_redis, short_directory

AnyJournal = TypeVar("AnyJournal", bound=Journal)


@pytest.fixture
def fragile_redis() -> Iterator[PrivateRedis]:
    """A Redis of the test's own, to kill and stop."""
    with private_redis() as server:
        yield server


def opened(journal: AnyJournal) -> AnyJournal:
    journal.create(SHARD, incarnation=INCARNATION)
    journal.acquire(
        SHARD, incarnation=INCARNATION, seen_epoch=0, token="owner", owner_info="host:1:2"
    )
    return journal


def append(journal: Journal, seq: int, *, entry: bytes = b"entry") -> None:
    journal.append(
        SHARD, incarnation=INCARNATION, epoch=1, seq=seq, batch_id=f"batch-{seq}", entry=entry
    )


def append_until_refused(journal: Journal, *, entry: bytes) -> tuple[int, NotApplied]:
    """The last sequence that was accepted, at least 1, and the refusal of the next one."""
    for seq in range(1, 100):
        try:
            append(journal, seq, entry=entry)
        except NotApplied as refused:
            assert seq > 1
            return seq - 1, refused
    raise AssertionError("the store is never full")


def everything(journal: Journal) -> list[Entry]:
    return list(journal.read(SHARD, after_seq=0, max_bytes=1 << 30))


def assert_all_acks_are_there(entries: list[Entry], acks: list[Ack]) -> None:
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    epochs = [entry.epoch for entry in entries]
    assert epochs == sorted(epochs)
    stored = {Ack(entry.seq, entry.epoch, entry.batch_id) for entry in entries}
    assert stored.issuperset(acks)
    assert len({ack.seq for ack in acks}) == len(acks)


def test_no_ack_is_lost_when_redis_is_killed_under_rival_owners(
    fragile_redis: PrivateRedis,
) -> None:
    opened(RedisJournal(fragile_redis.url))
    with three_rivals(fragile_redis.url) as rivals:
        for _ in range(4):
            wait_for_acks(rivals, 100)
            fragile_redis.restart()
        fragile_redis.sigstop()
        doubts = sum(rival.doubts for rival in rivals)
        wait_for(lambda: sum(rival.doubts for rival in rivals) >= doubts + len(rivals))
        fragile_redis.sigcont()
        wait_for_acks(rivals, 100)

    entries = everything(RedisJournal(fragile_redis.url))
    assert_all_acks_are_there(entries, [ack for rival in rivals for ack in rival.acks])
    assert sum(rival.fenced for rival in rivals) > 0


@contextmanager
def three_rivals(url: str) -> Iterator[list[Rival]]:
    """Three contenders for one shard, at work in threads until the block is left."""
    over = threading.Event()
    rivals = [
        Rival(RedisJournal(url, timeout_ms=300), f"rival{number}", over.is_set)
        for number in range(3)
    ]
    threads = [threading.Thread(target=rival.run, args=(lambda _: None, 40)) for rival in rivals]
    for thread in threads:
        thread.start()
    try:
        yield rivals
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)


def test_no_ack_is_lost_when_owners_of_a_sqlite_journal_are_killed(tmp_path: Path) -> None:
    journal = opened(SqliteJournal(tmp_path))
    acks: list[Ack] = []
    for number in range(4):
        pair = [start_rival(tmp_path, f"p{number}{letter}") for letter in "ab"]
        # Each must have been promised something, so that the kill hits owners at work.
        for process in pair:
            acks += [read_ack(process) for _ in range(20)]
        for process in pair:
            process.kill()
        for process in pair:
            acks += [ack for ack in map(parse_ack, process.communicate()[0].splitlines()) if ack]
    assert_all_acks_are_there(everything(journal), acks)
    assert len(acks) >= 160


def start_rival(directory: Path, name: str) -> "subprocess.Popen[str]":
    program = str(rival_program.__file__)
    return subprocess.Popen(
        [sys.executable, program, str(directory), name], stdout=subprocess.PIPE, text=True
    )


def read_ack(process: "subprocess.Popen[str]") -> Ack:
    assert process.stdout is not None
    ack = parse_ack(process.stdout.readline())
    assert ack is not None
    return ack


def parse_ack(line: str) -> Ack | None:
    """None for a line that the kill cut short: that ack never reached us."""
    parts = line.split()
    if len(parts) != 3 or not parts[2].endswith(f"-{parts[0]}"):
        return None
    return Ack(int(parts[0]), int(parts[1]), parts[2])


def wait_for_acks(rivals: list[Rival], count: int) -> None:
    """Until the rivals together got `count` more."""
    goal = count + sum(len(rival.acks) for rival in rivals)
    wait_for(lambda: sum(len(rival.acks) for rival in rivals) >= goal)


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Until `condition()` holds. It polls, because what it waits for is in other threads' hands."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the rivals make no progress"
        time.sleep(0.005)


def test_a_stopped_redis_leaves_the_outcome_unknown_and_a_resend_is_stored_once(
    fragile_redis: PrivateRedis,
) -> None:
    journal = opened(RedisJournal(fragile_redis.url, timeout_ms=500))
    append(journal, 1)
    fragile_redis.sigstop()
    with pytest.raises(OutcomeUnknown):
        append(journal, 2)
    # The dropped connection's command is still in the stopped server's queue; so is the resend's.
    with pytest.raises(OutcomeUnknown):
        append(journal, 2)
    fragile_redis.sigcont()
    append(journal, 2)
    append(journal, 3)
    assert [entry.seq for entry in everything(journal)] == [1, 2, 3]


def test_a_redis_that_cannot_be_reached_has_definitely_done_nothing(
    fragile_redis: PrivateRedis,
) -> None:
    journal = opened(RedisJournal(fragile_redis.url))
    fragile_redis.kill9()
    with pytest.raises(OutcomeUnknown):
        append(journal, 1)
    with pytest.raises(NotApplied) as caught:
        append(journal, 1)
    assert not caught.value.maybe_applied
    fragile_redis.start()
    append(journal, 1)
    assert len(everything(journal)) == 1


def test_scripts_that_redis_forgot_are_sent_again(redis_server: PrivateRedis) -> None:
    journal = opened(RedisJournal(redis_server.url, prefix="forgetful"))
    link = RedisLink(redis_server.url, timeout_ms=10_000)
    link.call("SCRIPT", "FLUSH")
    append(journal, 1)
    assert len(everything(journal)) == 1


def test_a_full_redis_refuses_entries_but_lets_trims_and_take_overs_through() -> None:
    with private_redis({"maxmemory": "4mb"}) as server:
        journal = opened(RedisJournal(server.url))
        seq, refused = append_until_refused(journal, entry=b"x" * 200_000)
        assert "maxmemory" in str(refused)
        # Below what is stored already: from here on nothing but a trim makes room.
        RedisLink(server.url, timeout_ms=10_000).call("CONFIG", "SET", "maxmemory", "3mb")
        assert journal.read_meta(SHARD).last_seq == seq == len(everything(journal))
        taken = journal.acquire(SHARD, incarnation=INCARNATION, seen_epoch=1, token="second")
        assert taken == Ownership(2, "second")
        journal.set_position(SHARD, "sink", seq)
        assert journal.trim(SHARD, before_seq=seq + 1, max_entries=100) == seq
        journal.append(
            SHARD, incarnation=INCARNATION, epoch=2, seq=seq + 1, batch_id="b", entry=b"x"
        )


def test_a_wiped_redis_has_no_journal(fragile_redis: PrivateRedis) -> None:
    journal = opened(RedisJournal(fragile_redis.url))
    fragile_redis.kill9()
    shutil.rmtree(fragile_redis.directory / "appendonlydir")
    fragile_redis.start()
    with pytest.raises(OutcomeUnknown):
        append(journal, 1)
    with pytest.raises(NoJournal):
        append(journal, 1)


def test_entries_without_a_head_are_not_started_over(redis_server: PrivateRedis) -> None:
    journal = opened(RedisJournal(redis_server.url, prefix="headless"))
    append(journal, 1)
    RedisLink(redis_server.url, timeout_ms=10_000).call("DEL", f"headless:{{{SHARD}}}:meta")
    with pytest.raises(NoJournal):
        append(journal, 2)
    with pytest.raises(Exception, match="has a journal"):
        journal.create(SHARD, incarnation="inc-2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendfsync", "everysec"),
        ("appendonly", "no"),
        ("maxmemory-policy", "allkeys-lru"),
        ("no-appendfsync-on-rewrite", "yes"),
    ],
)
def test_a_redis_that_would_lose_acks_is_refused(name: str, value: str) -> None:
    with private_redis({name: value}) as server, pytest.raises(Misconfigured, match=name):
        RedisJournal(server.url).verify_settings()


def test_a_replica_is_refused(redis_server: PrivateRedis) -> None:
    primary = f"127.0.0.1 {redis_server.port}"
    with (
        private_redis({"replicaof": primary}) as replica,
        pytest.raises(Misconfigured, match="primary"),
    ):
        RedisJournal(replica.url).verify_settings()


def test_an_address_cannot_bring_retries_back() -> None:
    with pytest.raises(Misconfigured, match="retry_on_timeout"):
        RedisJournal("redis://127.0.0.1:1/0?retry_on_timeout=true")


def test_a_locked_sqlite_journal_names_its_owner_and_can_still_be_read(tmp_path: Path) -> None:
    journal = opened(SqliteJournal(tmp_path, timeout_ms=50))
    append(journal, 1)
    holder = sqlite3.connect(tmp_path / "shard-0007.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    rival = SqliteJournal(tmp_path, timeout_ms=50)
    began_s = time.monotonic()
    with pytest.raises(Locked) as caught:
        rival.acquire(SHARD, incarnation=INCARNATION, seen_epoch=1, token="second")
    assert time.monotonic() - began_s < 4
    assert caught.value.owner == "host:1:2"
    with pytest.raises(Locked):
        append(journal, 2)
    assert rival.read_meta(SHARD).last_seq == 1
    assert len(everything(rival)) == 1
    journal.check(SHARD, incarnation=INCARNATION, epoch=1)
    lost = rival.acquire(SHARD, incarnation=INCARNATION, seen_epoch=0, token="late")
    assert lost == Ownership(1, "owner")
    journal.set_position(SHARD, "sink", 1)
    holder.close()
    append(journal, 2)


@pytest.mark.parametrize("damage", ["not a database" * 1000, ""])
def test_a_damaged_sqlite_file_is_never_taken_for_an_empty_journal(
    tmp_path: Path, damage: str
) -> None:
    journal = opened(SqliteJournal(tmp_path))
    append(journal, 1)
    journal.close()
    (tmp_path / "shard-0007.db").write_text(damage)
    expected: type[Exception] = Corrupt if damage else NoJournal
    for call in (lambda: journal.read_meta(SHARD), lambda: append(journal, 2)):
        with pytest.raises(expected, match="shard-0007"):
            call()


def test_a_page_damaged_in_a_sqlite_journal_is_corrupt(tmp_path: Path) -> None:
    journal = opened(SqliteJournal(tmp_path))
    for seq in range(1, 101):
        append(journal, seq, entry=b"x" * 1000)
    journal.close()
    path = tmp_path / "shard-0007.db"
    pages = path.read_bytes()
    path.write_bytes(pages[:8192] + b"\xff" * 4096 * 10 + pages[8192 + 40960 :])
    with pytest.raises(Corrupt, match=str(path)):
        everything(journal)


def test_a_sqlite_journal_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    journal = opened(SqliteJournal(tmp_path))
    journal.close()
    with sqlite3.connect(tmp_path / "shard-0007.db") as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(Misconfigured, match="newer release"):
        journal.read_meta(SHARD)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with short_directory() as directory:
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)]
        mounted = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
        # Not required in CI: the runner may well not allow a mount.
        if not mounted:
            pytest.skip("cannot mount a small tmpfs here: a full disk is NOT tested")
        try:
            yield directory
        finally:
            subprocess.run(["umount", str(directory)], check=True)


def test_a_full_disk_is_definite_and_loses_nothing(small_disk: Path) -> None:
    journal = opened(SqliteJournal(small_disk))
    seq, refused = append_until_refused(journal, entry=b"x" * 50_000)
    assert not refused.maybe_applied
    assert [entry.seq for entry in everything(journal)] == list(range(1, seq + 1))
    other = SqliteJournal(small_disk)
    assert other.read_meta(SHARD).last_seq == seq
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    append(journal, seq + 1, entry=b"x" * 50_000)
    assert len(everything(other)) == seq + 1
    journal.close()
    other.close()


def test_a_memory_journal_fails_as_it_was_told() -> None:
    journal = opened(MemoryJournal())
    journal.fail_next("append", applied=True)
    with pytest.raises(OutcomeUnknown):
        append(journal, 1)
    append(journal, 1)
    journal.fail_next("append", applied=False, count=2)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            append(journal, 2)
    assert journal.read_meta(SHARD).last_seq == 1
    append(journal, 2)
    journal.fail_next("check", applied=False, error=Fenced(epoch=9, owner="other"))
    with pytest.raises(Fenced):
        journal.check(SHARD, incarnation=INCARNATION, epoch=1)
    with pytest.raises(ValueError, match="no method"):
        journal.fail_next("appendd", applied=True)
    assert [entry.seq for entry in everything(journal)] == [1, 2]
