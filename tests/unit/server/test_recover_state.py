"""A state that is rebuilt from SQL is the fold of the journal, but for what the audit names."""

from pathlib import Path

import pytest

from actors.core.commission_state import KEY_BYTES, Order
from actors.core.identity import PROGRAMME_SLOT, SLOTS_IN_ALL
from persistence.sql.dump import SqlDump
from server.recover_state import Rebuilt, rebuild
from tests.helpers.histories import Database, full_day, journal_of, rows_of
from tests.helpers.states import differences, folded, loaded, remembered

SLOTS = (0,) * SLOTS_IN_ALL
NEVER_MS = 10**12


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("template") / "tables.db"


def from_sql(url: str, seq: int, recall_after_ms: int = NEVER_MS) -> Rebuilt:
    dump = SqlDump(url)
    try:
        with dump.open() as view:
            view.positions()
            return rebuild(view, slots_of=SLOTS, seqs=[seq], recall_after_ms=recall_after_ms)
    finally:
        dump.close()


@pytest.mark.parametrize("seed", range(12))
def test_what_sql_has_makes_the_state_that_the_journal_made(
    seed: int, tmp_path: Path, template: Path
) -> None:
    shop = full_day(seed)
    database = Database(tmp_path, template)
    database.follow(journal_of(shop.journal))
    rebuilt = from_sql(database.url, len(shop.journal))
    assert rebuilt.differences == []
    assert differences(remembered(folded(shop.journal)), loaded(rebuilt.states[0])) == []


@pytest.mark.parametrize("seed", range(3))
def test_orders_and_withdrawals_that_may_have_left_memory_stay_in_sql(
    seed: int, tmp_path: Path, template: Path
) -> None:
    shop = full_day(seed)
    database = Database(tmp_path, template)
    database.follow(journal_of(shop.journal))
    rebuilt = from_sql(database.url, len(shop.journal), recall_after_ms=0)
    assert rebuilt.differences == []
    whole = remembered(folded(shop.journal)).slot(PROGRAMME_SLOT).programme
    slot = loaded(rebuilt.states[0]).slot(PROGRAMME_SLOT)
    assert whole is not None
    assert slot.programme is not None
    assert slot.forgotten is not None
    tables = (
        (whole.orders, slot.programme.orders),
        (whole.withdrawals, slot.programme.withdrawals),
    )
    left = [(key, row) for before, now in tables for key, row in before.items() if key not in now]
    assert left
    assert all(slot.forgotten.may_contain(key[:KEY_BYTES]) for key, _ in left)
    orders = [row for _, row in left if isinstance(row, Order)]
    assert slot.programme.forgotten_ms == max((row.earned_ms for row in orders), default=0)
    assert not any(row.open() for row in orders)
    for name, held in whole.distributors.items():
        now = slot.programme.distributors.get(name)
        assert now is not None
        mine, theirs = (
            (one.balances, one.orders, one.sales_minor, one.board, one.open_withdrawals)
            for one in (held, now)
        )
        assert mine == theirs


def test_orders_that_stay_in_sql_and_their_entries_are_compared(
    tmp_path: Path, template: Path
) -> None:
    shop = full_day(0)
    database = Database(tmp_path, template)
    database.follow(journal_of(shop.journal))
    rows_of(database, "UPDATE commission_orders SET level1_minor = level1_minor + 10000")
    told = from_sql(database.url, len(shop.journal), recall_after_ms=0).differences
    assert any("that stay in SQL have" in one for one in told), told
