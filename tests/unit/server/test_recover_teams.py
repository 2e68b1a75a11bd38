"""Teams that were made anew from SQL go on as they would have; rows that cannot be are named."""

from contextlib import closing
from pathlib import Path

import pytest

from actors.core.identity import SLOT_COUNT
from actors.core.snapshot import digest
from actors.core.team_state import TEAM_FORMED, TEAM_FORMING
from persistence.sql.dump import SqlDump
from server.recover_state import Rebuilt, rebuild
from tests.helpers.histories import Database, journal_of, rows_of
from tests.helpers.states import loaded
from tests.model.shop import WINDOW_MS, Shop
from tests.model.team_shop import SLOT, TEAM_WINDOW_MS, TeamShop, key_of, teams_of

NEVER_MS = 10**12


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("template") / "tables.db"


@pytest.fixture
def database(tmp_path: Path, template: Path) -> Database:
    """An empty, migrated one."""
    return Database(tmp_path, template)


def from_sql(database: Database, seq: int, recall_after_ms: int = NEVER_MS) -> Rebuilt:
    with closing(SqlDump(database.url)) as dump, dump.open() as view:
        view.positions()
        slots_of = (0,) * SLOT_COUNT
        return rebuild(view, slots_of=slots_of, seqs=[seq], recall_after_ms=recall_after_ms)


class Sold:
    """A team that formed, and one that is forming, with an unpaid seat and a late one."""

    def __init__(self) -> None:
        shop = self.shop = TeamShop()
        shop.sell_to_teams((2, 90), (4, 70), leader_discount_bps=1_000, new_buyer_seats=1)
        self.formed, _ = shop.start("ann", new_buyer=True)
        seats = []
        for buyer in ("bob", "cat", "dan"):
            shop.wait(1_000)
            seats.append(shop.seat(self.formed, buyer))
        for seat in reversed(seats):
            shop.paid(seat)
        self.forming, self.first = shop.start("eve", new_buyer=True)
        self.late = shop.seat(self.forming, "fay", new_buyer=True)
        shop.wait(WINDOW_MS)
        shop.expire()
        self.unpaid = shop.seat(self.forming, "gus")

    def goes_on(self) -> list[object]:
        """What happens to them from here, told by the shop's answers and its books."""
        shop = self.shop
        told: list[object] = [
            shop.suggest("zoe"),
            shop.join(self.forming, "gus", "twice")[0],
            shop.paid(self.late),
            shop.paid(self.unpaid),
        ]
        told.append(shop.leaves(self.first))
        shop.wait(TEAM_WINDOW_MS)
        shop.expire()
        shop.end_teams()
        told += [sorted(shop.refunds().items()), teams_of(shop.state), digest(shop.state)]
        return told


def test_teams_go_on_after_a_recovery_as_they_would_have(database: Database) -> None:
    sold, other = Sold(), Sold()
    database.follow(journal_of(sold.shop.journal))
    rebuilt = from_sql(database, len(sold.shop.journal))
    assert rebuilt.differences == []
    state = loaded(rebuilt.states[0])
    assert digest(state) == digest(sold.shop.state)
    sold.shop.state = state
    assert sold.goes_on() == other.goes_on()
    assert sold.shop.team(sold.forming).state == TEAM_FORMED


def test_members_stand_in_the_order_of_joining_whoever_paid_last() -> None:
    """SQL knows no other order."""
    sold = Sold()
    seats = sold.shop.state.slot(SLOT).reservations
    members = [seats.get(key) for key in sold.shop.team(sold.formed).members]
    assert [seat and seat.buyer_id for seat in members] == ["ann", "bob", "cat", "dan"]


def test_ended_teams_of_campaigns_that_are_over_stay_in_sql(database: Database) -> None:
    sold = Sold()
    sold.shop.turn(3)
    sold.shop.wait(60_000)
    sold.shop.end_teams()
    database.follow(journal_of(sold.shop.journal))
    (state,) = from_sql(database, len(sold.shop.journal), 30_000).states
    assert [team.key for team in state.slot(SLOT).teams.values()] == [key_of(sold.forming)]
    pool = state.slot(SLOT).pool("sale", "tea")
    assert pool is not None
    assert pool.group is not None
    assert pool.group.opened == 2


def test_a_team_that_is_forming_keeps_its_paid_seats_in_memory(database: Database) -> None:
    sold = Sold()
    database.follow(journal_of(sold.shop.journal))
    (state,) = from_sql(database, len(sold.shop.journal), 0).states
    assert key_of(sold.first) in state.slot(SLOT).reservations
    (team,) = [one for one in loaded(state).slot(SLOT).teams.values() if one.state == TEAM_FORMING]
    assert (team.key, team.paid) == (key_of(sold.forming), 1)


_SEAT = "reservation_id = (SELECT min(reservation_id) FROM seats WHERE settled_ms > 0)"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DELETE FROM teams WHERE state = 1", "which is not there"),
        ("DELETE FROM teams WHERE state = 2", "has members and no row"),
        (f"DELETE FROM seats WHERE {_SEAT}", "ended with 4 members, has 3"),
        (f"DELETE FROM reservations WHERE {_SEAT}", "has no reservation"),
        ("DELETE FROM seats WHERE settled_ms = 0", "is forming and has no seats"),
        ("UPDATE teams SET state = 4 WHERE state = 1", "has ended"),
        ("UPDATE teams SET leader_reservation_id = '' WHERE state = 1", "is led by nobody"),
        ("UPDATE teams SET leader_reservation_id = '' WHERE state = 2", "without its leader"),
        ("UPDATE reservations SET buyer_id = 'one'", "has a buyer twice"),
        (
            "UPDATE seats SET team_id = (SELECT team_id FROM teams WHERE state = 1)",
            "seats taken of 4",
        ),
        ("UPDATE teams SET sku_id = 'cup' WHERE state = 1", "of no line that teams buy: sale/cup"),
    ],
)
def test_rows_of_teams_that_contradict_each_other_are_named(
    damage: str, told: str, database: Database
) -> None:
    sold = Sold()
    database.follow(journal_of(sold.shop.journal))
    assert from_sql(database, len(sold.shop.journal)).differences == []
    rows_of(database, damage)
    found = from_sql(database, len(sold.shop.journal))
    assert any(told in difference for difference in found.differences), found.differences


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE teams SET leader_reservation_id = '' WHERE state = 1",
        "DELETE FROM seats WHERE settled_ms = 0",
        "UPDATE reservations SET buyer_id = 'one'",
        "DELETE FROM reservations WHERE state = 2 AND payable_minor = 81",
    ],
)
def test_a_team_of_rows_that_contradict_each_other_ends_at_its_deadline(
    damage: str, database: Database
) -> None:
    """What `recover --accept-differences` makes of it stops no shard."""
    sold = Sold()
    database.follow(journal_of(sold.shop.journal))
    rows_of(database, damage)
    rebuilt = from_sql(database, len(sold.shop.journal))
    assert rebuilt.differences
    rebuilt.settle()
    # Not a TeamShop, whose own checks would end it.
    shop = Shop()
    shop.state = loaded(rebuilt.states[0])
    shop.journal = list(sold.shop.journal)
    shop.now_ms = sold.shop.now_ms + TEAM_WINDOW_MS
    shop.expire()
    shop.end_teams()
    states = {team.state for team in shop.state.slot(SLOT).teams.values()}
    assert TEAM_FORMING not in states
