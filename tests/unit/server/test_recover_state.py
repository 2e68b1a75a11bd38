"""A state that is rebuilt from SQL is the fold of the journal, but for what the audit names."""

from pathlib import Path

import pytest

from actors.core.identity import SLOTS_IN_ALL
from persistence.sql.dump import SqlDump
from server.recover_state import Rebuilt, rebuild
from tests.helpers.histories import Database, full_day, journal_of
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
