"""The checks of commission and risk in a chaos run can fail: each finds what is wrong in one thing.

The journal is that of one honest load, its facts relayed as they came; then records of it are
dropped, doubled or changed, as a relay or an account shard would that breaks a rule.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.core import commission_records as cr
from actors.core import records as r
from actors.core import risk_records as k
from actors.core.codec import pack_entry, unpack_entry
from actors.core.risk_state import FAILED_PAYMENT
from persistence.ports import Entry
from server.chaos.account_checks import REFUSED_AFTER_S, Told, check_accounts
from server.chaos.books import Books
from server.chaos.checks import new_checks
from server.chaos.history import OK, Operation
from tests.unit.server.test_chaos_load import Honest, Relayed, sold

Change = Callable[[Any], list[Any]]


@pytest.fixture(scope="module")
def load() -> Relayed:
    return asyncio.run(sold(Honest()))


def violated(
    load: Relayed,
    change: Change | None = None,
    *,
    calls: list[Operation] | None = None,
    told: Told | None = None,
) -> set[str]:
    """Names of the checks that fail when `change` answers what stands in a record's place."""
    books = Books(1)
    for entry in load.entries:
        books.take(0, entry if change is None else rewritten(entry, change))
    checks = new_checks()
    operations = load.history.operations if calls is None else calls
    check_accounts(operations, books.accounts, told or load.told, checks)
    return {name for name, found in checks.items() if found.violations}


def rewritten(entry: Entry, change: Change) -> Entry:
    """The entry with other records."""
    content = unpack_entry(entry.data)
    records = [x for record in content.records for x in change(record)]
    data = pack_entry(
        epoch=1, now_ms=content.now_ms, records=records, balances=list(content.balances)
    )
    return entry._replace(data=data)


def once(kind: int, change: Change, fits: Callable[[Any], bool] = bool) -> Change:
    """`change` for the first record of a kind that fits, and no other."""
    done: list[Any] = []

    def apply(record: Any) -> list[Any]:
        if done or record.kind != kind or not fits(record):
            return [record]
        done.append(record)
        return change(record)

    return apply


def gone(record: Any) -> list[Any]:
    return []


def twice(record: Any) -> list[Any]:
    return [record, record]


def another(**fields: Any) -> Change:
    return lambda record: [record._replace(**fields)]


def has_entries(record: Any) -> bool:
    return bool(record.entries)


def dearer(record: cr.OrderAccrued) -> list[Any]:
    """A cent more for the first level, in share and entry alike."""
    share, *shares = (cr.Share(*one) for one in record.shares)
    entry, *entries = (cr.Entry(*one) for one in record.entries)
    share = share._replace(amount_minor=share.amount_minor + 1)
    more = {"expense_minor": entry.expense_minor - 1, "frozen_minor": entry.frozen_minor + 1}
    changed = record._replace(shares=(share, *shares), entries=(entry._replace(**more), *entries))
    return [changed]


def unbalanced(record: Any) -> list[Any]:
    entry, *entries = (cr.Entry(*one) for one in record.entries)
    less = entry._replace(frozen_minor=entry.frozen_minor - 1)
    return [record._replace(entries=(less, *entries))]


def by_code(record: Any) -> bool:
    return not record.reservation_id and record.buyer_id.startswith("bound-")


def failed(record: Any) -> bool:
    return bool(record.signal == FAILED_PAYMENT)


def test_nothing_is_wrong_with_an_honest_load(load: Relayed) -> None:
    assert violated(load) == set()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (once(cr.ORDER_ACCRUED, gone, has_entries), "earned"),
        (once(cr.ORDER_ACCRUED, twice, has_entries), "earned"),
        (once(cr.ORDER_ACCRUED, another(referrer_id="root-9")), "earned"),
        (once(cr.ORDER_ACCRUED, another(reservation_id="0" * 35)), "earned"),
        (once(cr.ORDER_ACCRUED, dearer, has_entries), "earned"),
        (once(cr.ORDER_REVERSED, gone), "reversed"),
        (once(cr.ORDER_REVERSED, twice, has_entries), "reversed"),
        (once(cr.ORDER_REVERSED, another(left_minor=(-1,)), has_entries), "reversed"),
        (once(cr.ORDER_ACCRUED, unbalanced, has_entries), "ledger"),
        (once(cr.ORDER_MATURED, gone, has_entries), "ledger"),
        (once(cr.ORDER_MATURED, twice, has_entries), "ledger"),
        (once(cr.MATURITY_MOVED, another(matures_ms=1)), "ledger"),
        (once(cr.BUYER_BOUND, gone, by_code), "bound"),
        (once(cr.BUYER_BOUND, another(buyer_id="nobody"), by_code), "bound"),
        (once(k.SIGNAL_NOTED, gone, failed), "frozen"),
        (once(k.SIGNAL_NOTED, twice, failed), "frozen"),
        (once(k.BUYER_FROZEN, gone, lambda x: x.cause == k.BY_PAYMENT_FAILURES), "frozen"),
        (once(k.BUYER_FROZEN, another(buyer_id="nobody")), "frozen"),
        (once(k.BUYER_FROZEN, twice), "frozen"),
    ],
)
def test_what_one_record_of_an_account_shard_has_wrong_is_found(
    load: Relayed, change: Change, named: str
) -> None:
    assert named in violated(load, change)


def test_a_sale_that_earned_less_than_it_brought_is_found(load: Relayed) -> None:
    """What the stock journal says counts, whatever the account shard was told."""

    def cheaper(record: Any) -> list[Any]:
        return [record._replace(paid_minor=record.paid_minor + 1_000)]

    assert "earned" in violated(load, once(r.RESERVATION_CONFIRMED, cheaper, earns(load)))


def earns(load: Relayed) -> Callable[[Any], bool]:
    """Whether the order of a record earned anything."""
    keys = {
        record.reservation_id
        for entry in load.entries
        for record in unpack_entry(entry.data).records
        if record.kind == cr.ORDER_ACCRUED and record.entries
    }
    return lambda record: (
        not record.is_seat and any(name.endswith(record.key.hex()) for name in keys)
    )


def test_commission_of_a_held_distributor_that_became_available_is_found(load: Relayed) -> None:
    held = load.told.held
    assert "ledger" in violated(load, told=load.told._replace(held="root-0"))
    assert "ledger" in violated(load, once(cr.DISTRIBUTOR_HELD, another(distributor_id="root-0")))
    assert held


def test_an_account_that_was_read_as_it_never_stood_is_found(load: Relayed) -> None:
    (name, (expense, *balances)), *others = load.told.balances
    wrong = [(name, (expense + 1, *balances)), *others]
    assert violated(load, told=load.told._replace(balances=wrong)) == {"ledger"}


def test_a_buyer_who_was_told_to_be_bound_to_another_is_found(load: Relayed) -> None:
    calls = list(load.history.operations)
    at = next(n for n, one in enumerate(calls) if one.verb == "bind" and one.outcome == OK)
    calls[at] = calls[at]._replace(answer=("root-9",))
    assert violated(load, calls=calls) == {"bound"}


def test_a_frozen_buyer_who_reserves_for_long_is_found(load: Relayed) -> None:
    (buyer_id, told_s), *_ = load.told.frozen
    calls = list(load.history.operations)
    sale = next(one for one in calls if one.verb == "reserve" and one.outcome == OK)
    soon = sale._replace(buyer_id=buyer_id, began_s=told_s + 1)
    late = soon._replace(began_s=told_s + REFUSED_AFTER_S + 1)
    assert violated(load, calls=[*calls, soon]) == set()
    assert violated(load, calls=[*calls, late]) == {"frozen"}


@pytest.mark.parametrize(
    "fields", [{"buyer_id": "never-failed"}, {"verb": "confirm"}, {"verb": "return"}]
)
def test_a_refusal_as_frozen_that_has_no_ground_is_found(
    load: Relayed, fields: dict[str, str]
) -> None:
    """Whoever is frozen pays for, and returns, what is held already."""
    calls = list(load.history.operations)
    at = next(n for n, one in enumerate(calls) if one.status == "BUYER_FROZEN")
    calls[at] = calls[at]._replace(**fields)
    assert violated(load, calls=calls) == {"frozen"}
