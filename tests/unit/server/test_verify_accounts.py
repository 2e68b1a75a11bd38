"""`verify` finds what is wrong with commission and risk, when it is made wrong on purpose."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.core import commission_commands as d
from actors.core import commission_records as m
from actors.core import facts as f
from actors.core import risk_commands as k
from actors.core.commission_state import BONDS_MAX
from actors.core.earning import earn
from actors.core.identity import PROGRAMME_SLOT, account_slot
from actors.core.months import month_at
from actors.core.outcomes import Outcome
from actors.core.programme_config import LAST_TOUCH
from actors.core.relay_records import FACT_TAKEN
from actors.core.snapshot import chunks
from persistence.memory import MemorySnapshots
from server.verify_account_rows import known_orders
from tests.helpers.account_acts import DAY_MS, HEAD, AccountActs
from tests.helpers.histories import (
    INCARNATION,
    Database,
    full_day,
    journal_of,
    rewritten,
    rows_of,
    violated,
)
from tests.helpers.states import folded
from tests.model.bureau import order_id
from tests.model.shop import Shop

SEED, STEPS = 46, 200
Change = Callable[[list[Any]], None]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("migrated") / "tables.db"


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> Database:
    """An empty, migrated one."""
    return Database(tmp_path, migrated)


@pytest.fixture(scope="module")
def shop() -> Shop:
    """A day with orders that earned, came back, became available, were settled and withdrawn."""
    made = full_day(SEED, STEPS)
    programme = made.state.slot(PROGRAMME_SLOT).programme
    assert programme is not None
    orders = [order for _, order in known_orders(programme)]
    assert {earning.level for order in orders for earning in order.earnings} == {1, 2}
    assert any(order.returned for order in orders)
    assert programme.archived_orders
    assert programme.archived_withdrawals
    assert made.recalls
    return made


def test_nothing_is_wrong_with_a_day_of_commission(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    report = database.verify(journal)
    assert (violated(report), report.notes) == ({}, [])


def test_sql_may_lag_behind_the_ledger(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal, to_seq=len(shop.journal) - 60)
    assert violated(database.verify(journal)) == {}


def test_bindings_that_left_memory_are_no_rows_too_many(database: Database) -> None:
    shop = Shop()
    acts = AccountActs(shop, 1, INCARNATION)
    config = acts.programme.versions[-1].config._replace(policy=LAST_TOUCH, validity_ms=0)
    shop.do(d.PutRates(d.PUT_RATES, *HEAD, config))
    for number in range(BONDS_MAX + 9):
        shop.wait(DAY_MS)
        acts._bind("eve", ("d1", "d2")[number % 2])
    journal = journal_of(shop.journal)
    database.follow(journal)
    assert rows_of(database, "SELECT count(*) FROM bonds WHERE buyer_id = 'eve'") == [
        (BONDS_MAX + 9,)
    ]
    assert violated(database.verify(journal)) == {}


def test_sql_says_who_did_the_last_act_on_something_and_why(database: Database) -> None:
    shop = Shop()
    acts = AccountActs(shop, 1, INCARNATION)
    month, slot = month_at("Asia/Shanghai", shop.now_ms), shop.state.slot(PROGRAMME_SLOT)
    paid = (f.ORDER_EARNED, shop.now_ms, order_id("r"), "d1", "", "tea", 1, 10_000, "CNY")
    fact = f.OrderEarned(*paid, shop.now_ms, 10_000)
    shop._due(lambda: earn(shop.state, slot, fact, shop.now_ms))
    shop.wait(DAY_MS)
    assert acts.beat()
    asked = d.RequestWithdrawal(d.REQUEST_WITHDRAWAL, *HEAD, "w-1", "d0", 4, "rent")
    key = shop.do(asked)[1]
    by = (PROGRAMME_SLOT, 0, "ben")
    for command in (
        d.ApproveDistributor(d.APPROVE_DISTRIBUTOR, *by, "d1", d.SUSPEND, "spam"),
        d.ReviewWithdrawal(d.REVIEW_WITHDRAWAL, *by, key, d.WITHDRAWAL_REJECT, "", "no account"),
        k.Freeze(k.FREEZE, account_slot("eve"), 0, "ben", "eve", DAY_MS, "stolen cards"),
        k.Freeze(k.FREEZE, account_slot("fay"), 0, "ben", "fay", DAY_MS, "stolen cards"),
        k.Unfreeze(k.UNFREEZE, account_slot("fay"), 0, "cat", "fay", "her own"),
    ):
        assert shop.do(command)[0] == Outcome.APPLIED
    shop.wait(31 * DAY_MS)
    closed = d.Settle(d.SETTLE, *by, month, "d0", "audit")
    assert shop.do(closed)[0] == Outcome.APPLIED
    journal = journal_of(shop.journal)
    database.follow(journal)

    def last(table: str, where: str) -> list[tuple[Any, ...]]:
        return rows_of(database, f"SELECT changed_by, change_reason FROM {table} WHERE {where}")

    assert last("distributors", "distributor_id = 'd0'") == [("op", "why")]
    assert last("distributors", "distributor_id = 'd1'") == [("ben", "spam")]
    assert last("withdrawals", "state = 3") == [("ben", "no account")]
    assert last("risk_profiles", "buyer_id = 'eve'") == [("ben", "stolen cards")]
    assert last("risk_profiles", "buyer_id = 'fay'") == [("cat", "her own")]
    assert last("statements", "distributor_id = 'd0'") == [("ben", "audit")]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_ledger_is_verified_from_a_snapshot_on(
    share: float, shop: Shop, database: Database
) -> None:
    journal, snapshots = journal_of(shop.journal), MemorySnapshots()
    database.follow(journal)
    at = int(len(shop.journal) * share)
    handle = snapshots.begin(0, incarnation=INCARNATION, begin_seq=at)
    for index, chunk in enumerate(chunks(folded(shop.journal[:at]))):
        snapshots.write(0, handle, index, chunk)
    snapshots.publish(0, handle, end_seq=at)
    journal.trim(0, before_seq=at + 1, max_entries=10_000)
    assert violated(database.verify(journal, snapshots=snapshots)) == {}


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM distributors WHERE distributor_id = 'd1'",
        "UPDATE distributors SET state = state + 1",
        "UPDATE distributors SET share_code = 'x'",
        "UPDATE distributors SET applied_ms = 0",
        "UPDATE bonds SET until_ms = until_ms + 1",
        "UPDATE bonds SET distributor_id = 'zoe'",
        "DELETE FROM bonds WHERE buyer_id = 'bob'",
        "UPDATE commission_rates SET config_json = replace(config_json, 'CNY', 'USD')",
        "DELETE FROM commission_rates WHERE version = 1",
        "UPDATE commission_orders SET returned_quantity = 0",
        "UPDATE commission_orders SET level1_minor = level1_minor + 1",
        "UPDATE commission_orders SET level2_state = 1 WHERE level2_id <> ''",
        "UPDATE commission_orders SET base_minor = base_minor + 1",
        "UPDATE commission_orders SET matures_ms = 1",
        "UPDATE commission_orders SET commission_minor = commission_minor - 1",
        "DELETE FROM commission_entries WHERE entry_id = 3",
        "UPDATE commission_entries SET distributor_id = 'zoe' WHERE entry_id = 1",
        "UPDATE commission_entries SET frozen_minor = frozen_minor + 1, expense_minor ="
        " expense_minor - 1 WHERE entry_id = 2",
        "UPDATE commission_entries SET month = month + 1 WHERE entry_id = 2",
        "UPDATE commission_entries SET reservation_id = 'x' WHERE entry_id = 1",
        "UPDATE commission_entries SET expense_minor = 1 WHERE event = 3",
        "DELETE FROM statements WHERE distributor_id = 'd1'",
        "UPDATE statements SET closing_minor = closing_minor + 1",
        "UPDATE statements SET entry_count = 0",
        "UPDATE withdrawals SET state = 5 - state",
        "UPDATE withdrawals SET amount_minor = amount_minor + 1",
        "UPDATE withdrawals SET reference = 'x'",
        "UPDATE risk_profiles SET whole_ms = whole_ms + 1",
        "UPDATE risk_profiles SET frozen = 1 - frozen",
        "UPDATE risk_profiles SET failures_json = '[1]'",
        "DELETE FROM risk_profiles WHERE buyer_id = 'fay'",
        "UPDATE marks SET source_seq = source_seq - 1",
    ],
)
def test_rows_of_accounts_that_are_not_the_journals_fold_are_found(
    damage: str, shop: Shop, database: Database
) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    rows_of(database, damage)
    assert set(violated(database.verify(journal))) == {"I5"}


def test_an_entry_too_many_is_found(shop: Shop, database: Database) -> None:
    journal = journal_of(shop.journal)
    database.follow(journal)
    columns = [name for _, name, *_ in rows_of(database, "PRAGMA table_info(commission_entries)")]
    source = ", ".join("entry_id + 10000" if name == "entry_id" else name for name in columns)
    names = ", ".join(columns)
    rows_of(
        database,
        f"INSERT INTO commission_entries ({names}) SELECT {source} FROM commission_entries"
        " WHERE entry_id = 1",
    )
    assert set(violated(database.verify(journal))) == {"I5"}


def at_first(kind: int, change: Callable[[Any], Any]) -> Change:
    """The first record of a kind says something else; None: it was never decided."""
    done: list[int] = []

    def changed(records: list[Any]) -> None:
        at = next((at for at, one in enumerate(records) if one.kind == kind), -1)
        if at < 0 or done:
            return
        made = change(records[at])
        if made is not records[at]:
            done.append(1)
            records[at : at + 1] = () if made is None else (made,)

    return changed


def entry_of(record: Any, **fields: int) -> Any:
    """The record with its first entry changed."""
    first = m.Entry(*record.entries[0])
    more = {name: getattr(first, name) + extra for name, extra in fields.items()}
    return record._replace(entries=(first._replace(**more), *record.entries[1:]))


def share_of(record: Any) -> Any:
    """The record with a share of one minor unit more than its entry."""
    first = m.Share(*record.shares[0])
    share = first._replace(amount_minor=first.amount_minor + 1)
    return record._replace(shares=(share, *record.shares[1:]))


def without_fact(records: list[Any]) -> None:
    """Orders earn by nothing."""
    if any(one.kind == m.ORDER_ACCRUED for one in records):
        records[:] = [one for one in records if one.kind != FACT_TAKEN]


def twice(kind: int) -> Change:
    """Each record of a kind is there twice."""

    def changed(records: list[Any]) -> None:
        records.extend([one for one in records if one.kind == kind])

    return changed


@pytest.mark.parametrize(
    ("change", "where", "told"),
    [
        (
            at_first(m.ORDER_ACCRUED, lambda one: entry_of(one, frozen_minor=1)),
            "I6",
            "comes to 1 instead of 0",
        ),
        (
            at_first(m.ORDER_ACCRUED, lambda one: entry_of(one, number=5)),
            "I6",
            "stands where 1 would",
        ),
        (
            at_first(m.ORDER_ACCRUED, lambda one: one._replace(base_minor=one.base_minor + 1)),
            "I6",
            "which says",
        ),
        (
            at_first(m.ORDER_ACCRUED, lambda one: one._replace(buyer_id="zoe")),
            "I6",
            "which says",
        ),
        (at_first(m.ORDER_ACCRUED, share_of), "I6", "its shares are"),
        (at_first(m.ORDER_ACCRUED, lambda _: None), "I6", "earned nothing"),
        (without_fact, "I6", "earned without a fact"),
        (
            at_first(
                m.STATEMENT_MADE, lambda one: one._replace(closing_minor=one.closing_minor + 1)
            ),
            "I6",
            "after 0 and",
        ),
        (
            at_first(m.STATEMENT_MADE, lambda one: one._replace(entry_count=one.entry_count + 1)),
            "I6",
            "its entries",
        ),
        (at_first(m.ORDER_REVERSED, lambda _: None), "I6", "commission knows of"),
        (
            at_first(m.ORDER_RECALLED, lambda one: one._replace(base_minor=one.base_minor + 1)),
            "I5",
            "came back otherwise",
        ),
        (
            at_first(m.WITHDRAWAL_RECALLED, lambda one: one._replace(reference="other")),
            "I5",
            "came back otherwise",
        ),
        (twice(m.ORDER_ACCRUED), "I4", "OrderAccrued"),
        (twice(m.ORDER_MATURED), "I4", "OrderMatured"),
        (twice(m.ORDER_REVERSED), "I4", "OrderReversed"),
        (twice(m.STATEMENT_MADE), "I4", "StatementMade"),
        (twice(m.WITHDRAWAL_REQUESTED), "I4", "WithdrawalRequested"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_journal_that_decided_wrongly_is_found(
    change: Change, where: str, told: str, shop: Shop, database: Database
) -> None:
    journal = journal_of(rewritten(shop.journal, lambda _, records: change(records)))
    found = violated(database.verify(journal))
    assert any(told in example for example in found[where]), found
