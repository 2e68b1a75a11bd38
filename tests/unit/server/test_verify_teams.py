"""`verify` finds each thing that can be wrong with teams, when it is made wrong on purpose."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.core import state as s
from actors.core import team_records as t
from actors.core.codec import unpack_entry
from actors.core.evolve import fold
from actors.core.snapshot import chunks
from actors.core.team_state import TEAM_FORMED, TEAM_FORMING, Team
from persistence.memory import MemorySnapshots
from server.verify_teams import check_teams
from tests.helpers.histories import (
    INCARNATION,
    Database,
    journal_of,
    rewritten,
    rows_of,
    violated,
)
from tests.model.shop import MINUTE_MS
from tests.model.team_shop import SLOT, TEAM_WINDOW_MS, TeamShop, key_of


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("migrated") / "tables.db"


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Database:
    """An empty, migrated one."""
    return Database(tmp_path, migrated)


def sold_to_teams() -> TeamShop:
    """One team that formed at the ladder's end, one that failed, one whose paid leader left, and
    one that is forming with a paid, an unpaid and a free seat."""
    shop = TeamShop()
    shop.sell_to_teams((2, 90), (4, 70), leader_discount_bps=1_000, new_buyer_seats=1)
    formed, _ = shop.start("ann", new_buyer=True)
    for buyer in ("bob", "cat", "dan"):
        shop.wait(1)
        shop.comes(formed, buyer)
    lonely, _ = shop.start("eve")
    shop.seat(lonely, "fay")
    left, leader = shop.start("gus")
    shop.comes(left, "hal", new_buyer=True)
    shop.leaves(leader)
    shop.wait(TEAM_WINDOW_MS + MINUTE_MS)
    shop.expire()
    shop.end_teams()
    forming, _ = shop.start("ida", new_buyer=True)
    shop.seat(forming, "jon")
    return shop


@pytest.fixture(scope="module")
def shop() -> TeamShop:
    return sold_to_teams()


def test_nothing_is_wrong_with_teams_of_every_kind(shop: TeamShop, database: Database) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    report = database.verify(journal)
    assert (violated(report), report.notes) == ({}, [])
    states = [team.state for team in shop.state.slot(SLOT).teams.values()]
    assert sorted(states) == [1, 2, 3, 3]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM seats WHERE rowid = (SELECT max(rowid) FROM seats)",
        "DELETE FROM teams WHERE rowid = (SELECT max(rowid) FROM teams)",
        "UPDATE teams SET state = 2 WHERE state = 1",
        "UPDATE teams SET opener_id = 'zoe'",
        "UPDATE teams SET leader_id = 'zoe'",
        "UPDATE teams SET leader_reservation_id = '' WHERE state = 1",
        "UPDATE teams SET paid = paid + 1 WHERE state = 3",
        "UPDATE teams SET new_members = 0 WHERE state = 2",
        "UPDATE teams SET virtual_seats = 1 WHERE state = 2",
        "UPDATE teams SET completed_by = 'zoe' WHERE state = 2",
        "UPDATE teams SET tier_people = 2 WHERE state = 2",
        "UPDATE teams SET unit_price_minor = unit_price_minor + 1 WHERE state = 2",
        "UPDATE teams SET deadline_ms = deadline_ms + 1",
        "UPDATE teams SET ended_ms = 0",
        "UPDATE seats SET team_id = (SELECT max(team_id) FROM teams)",
        "UPDATE seats SET buyer_id = 'zoe'",
        "UPDATE seats SET new_buyer = 1 - new_buyer",
        "UPDATE seats SET closed = 0",
        "UPDATE seats SET final_minor = final_minor + 1 WHERE settled_ms > 0",
        "UPDATE seats SET settled_minor = 0",
        "UPDATE seats SET settled_ms = 0",
        "UPDATE seats SET joined_ms = joined_ms - 1",
    ],
)
def test_rows_of_teams_that_are_not_the_journals_fold_are_found(
    damage: str, shop: TeamShop, database: Database
) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    rows_of(database, damage)
    assert set(violated(database.verify(journal))) == {"I5"}


def first(kind: int, **fields: Any) -> Callable[[list[Any]], None]:
    """The first record of a kind says something else."""

    def change(records: list[Any]) -> None:
        at = next(at for at, record in enumerate(records) if record.kind == kind)
        records[at] = records[at]._replace(**fields)

    return change


def every(kind: int, **fields: Any) -> Callable[[list[Any]], None]:
    """All records of a kind in the entry do."""

    def change(records: list[Any]) -> None:
        for at, record in enumerate(records):
            if record.kind == kind:
                records[at] = record._replace(**fields)

    return change


def without(kind: int) -> Callable[[list[Any]], None]:
    """The first record of a kind was never decided."""

    def change(records: list[Any]) -> None:
        records.remove(next(record for record in records if record.kind == kind))

    return change


def again(kind: int) -> Callable[[list[Any]], None]:
    """The first record of a kind was decided twice."""

    def change(records: list[Any]) -> None:
        records.append(next(record for record in records if record.kind == kind))

    return change


def shorten(records: list[Any]) -> None:
    """The team's last member is not among its members."""
    at = next(at for at, record in enumerate(records) if record.kind == t.TEAM_FORMED)
    records[at] = records[at]._replace(members=records[at].members[:-1])


KEY = b"k" * 16
CHANGES: dict[str, tuple[int, Callable[[list[Any]], None], str, str]] = {
    "a seat is taken twice": (t.SEAT_TAKEN, again(t.SEAT_TAKEN), "I4", "SeatTaken"),
    "a team is opened twice": (t.TEAM_OPENED, again(t.TEAM_OPENED), "I4", "TeamOpened"),
    "a team forms twice": (t.TEAM_FORMED, again(t.TEAM_FORMED), "I4", "TeamFormed"),
    "a team fails twice": (t.TEAM_CLOSED, again(t.TEAM_CLOSED), "I4", "TeamClosed"),
    "a member is settled twice": (t.SEAT_SETTLED, again(t.SEAT_SETTLED), "I4", "SeatSettled"),
    "a buyer is twice in a team": (
        t.SEAT_TAKEN,
        first(t.SEAT_TAKEN, buyer_id="ann"),
        "I1",
        "no seat for ann",
    ),
    "a member is not settled": (t.SEAT_SETTLED, without(t.SEAT_SETTLED), "I6", "3 were settled"),
    "a team fails before its refunds exist": (
        t.SEAT_CLOSED,
        without(t.SEAT_CLOSED),
        "I6",
        "1 members, 0 were settled with it",
    ),
    "a settlement is off by a cent": (
        t.SEAT_SETTLED,
        first(t.SEAT_SETTLED, refund_minor=17),
        "I6",
        "its tier costs 63, 64 was kept",
    ),
    "a failed team keeps a cent": (
        t.SEAT_CLOSED,
        first(t.SEAT_CLOSED, refund_minor=80),
        "I6",
        "in no team, 80 of",
    ),
    "all refunds are keyed to one order": (
        t.SEAT_SETTLED,
        every(t.SEAT_SETTLED, refund_key=KEY),
        "I6",
        "is not its own",
    ),
    "one key for two refunds": (
        t.SEAT_SETTLED,
        every(t.SEAT_SETTLED, refund_key=KEY),
        "I4",
        "again",
    ),
    "a refund of another's payment": (
        t.SEAT_CLOSED,
        first(t.SEAT_CLOSED, payment_id="another"),
        "I6",
        "of another payment",
    ),
    "a refund to another buyer": (
        t.SEAT_SETTLED,
        first(t.SEAT_SETTLED, buyer_id="zoe"),
        "I6",
        "of another payment",
    ),
    "a team forms at a tier it did not reach": (
        t.TEAM_FORMED,
        first(t.TEAM_FORMED, tier_people=2),
        "I1",
        "it formed at 2",
    ),
    "a member is forgotten": (
        t.TEAM_FORMED,
        shorten,
        "I6",
        "3 members, 4 were settled",
    ),
    "a team forms without the new buyers": (
        t.TEAM_FORMED,
        first(t.TEAM_FORMED, new_members=0),
        "I1",
        "says 0 new buyers, has 1 of 1",
    ),
    "a stranger leads a formed team": (
        t.TEAM_FORMED,
        first(t.TEAM_FORMED, leader_key=KEY),
        "I1",
        "without its leader",
    ),
    "a team is completed against the rules": (
        t.TEAM_FORMED,
        first(t.TEAM_FORMED, caller="zoe"),
        "I1",
        "completed by zoe against",
    ),
    "a stranger leads a forming team": (
        t.TEAM_LED,
        first(t.TEAM_LED, leader_key=KEY),
        "I1",
        "which is no paid seat of it",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_journal_in_which_something_is_wrong_with_a_team_is_found(
    name: str, shop: TeamShop, database: Database
) -> None:
    kind, change, invariant, words = CHANGES[name]
    entries = [
        seq
        for seq, data in enumerate(shop.journal, 1)
        if kind in {record.kind for record in unpack_entry(data).records}
    ]
    # Of seats that are taken a later one, whose team goes on; of those that are closed the last,
    # whose teams failed; of the leaders the last, whose team is forming.
    at = {t.SEAT_TAKEN: 1, t.SEAT_CLOSED: -1, t.TEAM_LED: -1}.get(kind, 0)
    seq = entries[at]

    def spoil(number: int, records: list[Any]) -> None:
        if number == seq:
            change(records)

    found = violated(database.verify(journal_of(rewritten(shop.journal, spoil))))
    assert any(words in example for example in found.get(invariant, [])), found


def _team(state: s.ShardState, of: int = TEAM_FORMING) -> Team:
    """The first one in a state."""
    return next(team for team in state.slot(SLOT).teams.values() if team.state == of)


def _forget_a_seat(state: s.ShardState) -> None:
    state.slot(SLOT).reservations.pop(_team(state).leader)


def _one_more_seat(state: s.ShardState) -> None:
    team = _team(state)
    for held in state.slot(SLOT).reservations.values():
        if type(held) is s.Seat and held.team_key != team.key:
            held.team_key, held.state = team.key, s.RESERVED


def _hold_a_seat(state: s.ShardState) -> None:
    for held in state.slot(SLOT).reservations.values():
        if type(held) is s.Seat and held.state == s.EXPIRED:
            held.state = s.RESERVED


SPOILED: dict[str, tuple[Callable[[s.ShardState], object], str]] = {
    "a paid seat is gone": (_forget_a_seat, "its seats are of ['jon']"),
    "more seats than people": (_one_more_seat, "seats taken of 4"),
    "an unpaid seat outlives its team": (_hold_a_seat, "ended with unpaid seats"),
    "paid is one more": (lambda state: setattr(_team(state), "paid", 2), "counts (paid"),
    "new is one less": (lambda state: setattr(_team(state), "new_count", 0), "counts (paid"),
    "a buyer too many": (
        lambda state: _team(state).buyers.update(zoe=KEY),
        "its seats are of ['ida', 'jon']",
    ),
    "openers are forgotten": (
        lambda state: state.slot(SLOT).campaigns["sale"].openers.change("ida", -1),
        "open teams by buyer",
    ),
    "nobody asked for a virtual seat": (
        lambda state: setattr(_team(state, TEAM_FORMED), "virtual", 1),
        "1 virtual seats, completed by nobody",
    ),
    "a team is gone": (
        lambda state: state.slot(SLOT).teams.pop(_team(state).key),
        "seats of no team",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_state_that_does_not_add_up_is_found(name: str) -> None:
    spoil, words = SPOILED[name]
    state = sold_to_teams().state
    told: list[str] = []

    def check(holds: bool, what: str) -> None:
        if not holds:
            told.append(what)

    check_teams(state, whole=True, i1=check, i6=check)
    assert told == []
    spoil(state)
    check_teams(state, whole=True, i1=check, i6=check)
    assert any(words in one for one in told), told


def test_teams_that_left_memory_are_compared_as_long_as_the_journal_has_them(
    database: Database,
) -> None:
    shop = sold_to_teams()
    shop.turn(s.CAMPAIGN_ENDED)
    shop.end_teams()
    shop.wait(1_000)
    shop.forget(1_000, len(shop.journal))
    shop.forget_teams(1_000, len(shop.journal))
    assert not len(shop.state.slot(SLOT).teams)
    journal, snapshots = journal_of(shop.journal), MemorySnapshots()
    database.follow(journal)
    whole = database.verify(journal)
    assert (violated(whole), whole.notes) == ({}, [])
    state = s.ShardState()
    for seq, data in enumerate(shop.journal, 1):
        content = unpack_entry(data)
        fold(state, seq, content.now_ms, content.records, content.balances)
    for _ in range(2):
        handle = snapshots.begin(0, incarnation=INCARNATION, begin_seq=state.seq)
        for index, chunk in enumerate(chunks(state)):
            snapshots.write(0, handle, index, chunk)
        snapshots.publish(0, handle, end_seq=state.seq)
    journal.trim(0, before_seq=state.seq, max_entries=1_000)
    cut = database.verify(journal, snapshots=snapshots)
    assert violated(cut) == {}
    assert any("teams: 4 rows are of what left memory" in note for note in cut.notes)


def test_a_team_is_named_by_its_public_id(shop: TeamShop, database: Database) -> None:
    """What is found can be looked up."""
    journal = journal_of(shop.journal)
    database.follow(journal)
    team = rows_of(database, "SELECT team_id FROM teams WHERE state = 1")[0][0]
    assert key_of(team) == _team(shop.state).key
    rows_of(database, "UPDATE teams SET opener_id = 'zoe' WHERE state = 1")
    assert team in violated(database.verify(journal))["I5"][0]
