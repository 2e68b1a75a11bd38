"""The comparison of a rebuilt state can fail: each column that is read wrong is noticed, and each
field of the state has a decision."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from actors.core import state as s
from actors.core.identity import SLOTS_IN_ALL
from persistence.sql.dump import SqlDump
from server import recover_state
from server.recover_accounts import (
    BondRow,
    DistributorRow,
    OrderRow,
    ProfileRow,
    RateRow,
    StatementRow,
    WithdrawalRow,
)
from server.recover_audit import AUDIT, Verdict
from server.recover_marks import MarkRow
from server.recover_rows import (
    TABLES,
    DocumentRow,
    PaymentRow,
    PoolRow,
    RefundRow,
    SkuRow,
    TransferRow,
    rows_of,
)
from server.recover_teams import SeatRow, TeamRow
from tests.helpers.histories import Database, full_day, journal_of
from tests.helpers.states import KINDS, differences, fields_of, folded, loaded, remembered

SEEDS = (4, 6, 29, 31)
UNNOTICED: dict[tuple[type[Any], str], str] = {
    **{
        (kind, "seq"): "of the guard, not of the state; what came back from SQL has a newer one"
        for kind in TABLES
        if kind not in (RefundRow, TeamRow, RateRow, BondRow, ProfileRow)
    },
    **{
        (kind, "generation"): "the slot's: other rows say it too"
        for kind in TABLES
        if kind not in (DocumentRow, TransferRow)
    },
    **dict.fromkeys(
        (
            (SkuRow, "updated_ms"),
            (PoolRow, "updated_ms"),
            (DocumentRow, "at_ms"),
            (PaymentRow, "at_ms"),
            (RefundRow, "updated_ms"),
            (TransferRow, "at_ms"),
            (SeatRow, "updated_ms"),
            (MarkRow, "updated_ms"),
            (RateRow, "updated_ms"),
            (DistributorRow, "updated_ms"),
            (BondRow, "updated_ms"),
            (OrderRow, "updated_ms"),
            (StatementRow, "updated_ms"),
            (WithdrawalRow, "updated_ms"),
            (ProfileRow, "updated_ms"),
        ),
        "a time that only `now_ms` is made of, with all others",
    ),
    (DocumentRow, "sku_id"): "for transfers that were torn apart, by tests of their own",
    (DocumentRow, "campaign_id"): "the same",
    (DocumentRow, "quantity"): "the same",
    (SeatRow, "slot"): "the id says it too",
    (MarkRow, "slot"): "any of the shard's",
    (MarkRow, "shard"): "the slot says it too",
}
"""Columns whose change changes no state, and why."""


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[s.ShardState, str, int]]:
    """(the journal's fold, the database that has it, its last entry) of some random days."""
    directory = tmp_path_factory.mktemp("days")
    made = []
    for seed in SEEDS:
        shop = full_day(seed, 200)
        (directory / str(seed)).mkdir()
        database = Database(directory / str(seed), directory / "template.db")
        database.follow(journal_of(shop.journal))
        made.append((remembered(folded(shop.journal)), database.url, len(shop.journal)))
    return made


def rebuilt(url: str, seq: int) -> s.ShardState:
    with closing(SqlDump(url)) as dump, dump.open() as view:
        view.positions()
        found = recover_state.rebuild(
            view, slots_of=(0,) * SLOTS_IN_ALL, seqs=[seq], recall_after_ms=10**12
        )
    assert found.differences == []
    return loaded(found.states[0])


def noticed(days: list[tuple[s.ShardState, str, int]]) -> bool:
    """Whether some day's state differs from its fold, or cannot even be rebuilt."""
    for original, url, seq in days:
        try:
            if differences(original, rebuilt(url, seq)):
                return True
        except Exception:  # noqa: BLE001 - a row read wrong may break anything
            return True
    return False


def changed(name: str, value: Any) -> Any:
    """Another value of the same type, that a row might have."""
    if name == "seq":
        return value - 1
    if isinstance(value, int):
        return 0 if name.endswith("_ms") and value else value + 1
    return "" if value else "ab" * 16


COLUMNS = [(kind, name) for kind in TABLES for name in kind._fields]


@pytest.mark.parametrize(("kind", "name"), COLUMNS, ids=lambda x: getattr(x, "__name__", x))
def test_a_column_that_is_read_wrong_is_noticed(
    days: list[tuple[s.ShardState, str, int]],
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Any],
    name: str,
) -> None:
    def wrong(view: Any, wanted: type[Any]) -> Iterator[Any]:
        for row in rows_of(view, wanted):
            yield (
                row._replace(**{name: changed(name, getattr(row, name))}) if wanted is kind else row
            )

    monkeypatch.setattr(recover_state, "rows_of", wrong)
    assert noticed(days) is ((kind, name) not in UNNOTICED)


@pytest.mark.parametrize("kind", list(TABLES), ids=lambda kind: kind.__name__)
def test_a_row_that_is_missing_is_noticed(
    days: list[tuple[s.ShardState, str, int]], monkeypatch: pytest.MonkeyPatch, kind: type[Any]
) -> None:
    def fewer(view: Any, wanted: type[Any]) -> Iterator[Any]:
        rows = rows_of(view, wanted)
        if wanted is kind:
            next(rows)
        yield from rows

    monkeypatch.setattr(recover_state, "rows_of", fewer)
    assert noticed(days)


def test_the_honest_recovery_is_not_accused(days: list[tuple[s.ShardState, str, int]]) -> None:
    assert not noticed(days)


def test_every_field_of_the_state_has_a_decision() -> None:
    fields = {(kind, name) for kind, made in KINDS.items() for name in fields_of(made)}
    assert fields == set(AUDIT), "decide in server/recover_audit.py what a recovery makes of it"


def test_every_class_of_the_state_is_looked_at() -> None:
    """A class that a new field brings along is not forgotten."""
    shapes = {
        name
        for name, value in vars(s).items()
        if isinstance(value, type) and value.__module__ == s.__name__
    }
    assert shapes - {"Impossible"} <= set(KINDS)


def test_the_handbook_shows_the_same_table() -> None:
    text = Path("docs/recovery.md").read_text(encoding="utf-8")
    section = text.split("<!-- audit -->")[1].split("<!-- /audit -->")[0]
    shown = set(section.strip().splitlines()[2:])
    assert shown == {
        f"| {kind} | {name} | {decision.verdict} | {decision.text} |"
        for (kind, name), decision in AUDIT.items()
        if decision.verdict is not Verdict.PASSING
    }
