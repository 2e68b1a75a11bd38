"""Statements by calendar month, and withdrawals."""

from actors.core import commission_commands as d
from actors.core import commission_records as cr
from actors.core.commission_state import OPEN_WITHDRAWALS_MAX, STATEMENTS_KEPT, Statement
from actors.core.outcomes import Outcome
from actors.core.totals import totals
from tests.model.bureau import (
    DAY_MS,
    DECEMBER,
    FREEZE_MS,
    HOUR_MS,
    JANUARY,
    NOVEMBER,
    Bureau,
)


def with_money(amount: int = 1_000) -> Bureau:
    """Bob brought ann, and has so much available in November."""
    bureau = Bureau()
    bureau.open("bob")
    bureau.bind("ann", "bob")
    bureau.wait(HOUR_MS)
    bureau.earned("first", "ann", amount * 10)
    bureau.wait(FREEZE_MS + 2_000)
    assert bureau.money("bob") == (0, amount, 0, 0, 0)
    return bureau


def statement(bureau: Bureau, month: int) -> Statement:
    return Statement(*bureau.statement("bob", month))


def listed(bureau: Bureau, month: int) -> list[int]:
    """What entries of a month did to what is available and settled together."""
    changes = [
        entry.available_minor + entry.settled_minor
        for entry in bureau.entries("bob")
        if entry.month == month
    ]
    return [change for change in changes if change]


def reconciles(bureau: Bureau, month: int) -> bool:
    made = statement(bureau, month)
    assert made.closing_minor - made.opening_minor == sum(listed(bureau, month))
    assert made.entry_count == len(listed(bureau, month))
    return True


def test_a_month_is_closed_by_itself_once_it_is_over_in_the_programmes_time_zone() -> None:
    bureau = with_money()
    assert bureau.statement("bob", NOVEMBER) is None
    bureau.wait(30 * DAY_MS)
    made = statement(bureau, NOVEMBER)
    assert (made.opening_minor, made.available_minor, made.closing_minor) == (0, 1_000, 1_000)
    assert (made.starts_ms, made.ends_ms) == (1_698_768_000_000, 1_701_360_000_000)
    assert bureau.money("bob") == (0, 0, 1_000, 0, 0)
    assert reconciles(bureau, NOVEMBER)


def test_a_statement_is_made_once() -> None:
    bureau = with_money()
    assert bureau.do(d.SETTLE, NOVEMBER, "bob")[0] == Outcome.MONTH_NOT_OVER
    bureau.now_ms += 30 * DAY_MS
    answer = bureau.do(d.SETTLE, NOVEMBER, "bob")
    assert answer[:3] == (Outcome.APPLIED, 1, False)
    again = bureau.do(d.SETTLE, NOVEMBER, "bob")
    assert again == (Outcome.FOUND, 0, False, answer[3])
    assert bureau.beat() == []
    assert bureau.do(d.SETTLE, NOVEMBER) == (Outcome.FOUND, 0, False, None)
    assert len([record for record in bureau.records if type(record) is cr.StatementMade]) == 1


def test_a_month_is_over_at_the_very_instant_at_which_the_next_begins() -> None:
    bureau = with_money()
    bureau.now_ms = 1_701_360_000_000 - 1
    assert bureau.do(d.SETTLE, NOVEMBER, "bob")[0] == Outcome.MONTH_NOT_OVER
    assert bureau.beat() == []
    bureau.now_ms += 1
    assert [record.month for record in bureau.beat()] == [NOVEMBER]


def test_all_distributors_are_settled_for_a_month_and_for_none_after_it() -> None:
    bureau = with_money()
    bureau.wait(23 * DAY_MS)
    bureau.earned("december", "ann", 20_000)
    bureau.now_ms += FREEZE_MS + 2_000
    bureau.beat()
    # As it would be if the shard had found no time for any month.
    bureau.now_ms += 31 * DAY_MS
    bureau.earned("january", "ann", 100)
    assert bureau.do(d.SETTLE, NOVEMBER)[:2] == (Outcome.FOUND, 0)
    assert bureau.do(d.SETTLE, DECEMBER) == (Outcome.APPLIED, 1, False, None)
    assert statement(bureau, DECEMBER).available_minor == 2_000
    assert bureau.do(d.SETTLE, DECEMBER)[:2] == (Outcome.FOUND, 0)


def test_all_distributors_are_settled_in_slices() -> None:
    bureau = Bureau()
    names = [f"d{number}" for number in range(5)]
    bureau.open(*names)
    for name in names:
        bureau.bind(f"buyer of {name}", name)
        bureau.earned(f"order of {name}", f"buyer of {name}")
    bureau.wait(FREEZE_MS + 2_000)
    bureau.now_ms += 30 * DAY_MS
    assert [len(bureau.beat(limit=2)) for _ in range(4)] == [2, 2, 1, 0]


def test_what_came_after_the_months_end_is_in_the_next_statement() -> None:
    bureau = with_money()
    bureau.earned("december", "ann", 20_000)
    bureau.now_ms += 30 * DAY_MS
    (record,) = bureau.beat()
    assert record.kind == cr.ORDER_MATURED
    bureau.withdraw("bob", 100)
    bureau.wait(0)
    made = statement(bureau, NOVEMBER)
    assert (made.available_minor, made.withdrawn_minor, made.moved_minor) == (1_000, 0, 900)
    assert bureau.money("bob") == (0, 2_000, 900, 100, 0)
    bureau.wait(31 * DAY_MS)
    made = statement(bureau, DECEMBER)
    assert (made.opening_minor, made.available_minor, made.withdrawn_minor) == (1_000, 2_000, 100)
    assert made.closing_minor == 2_900
    assert reconciles(bureau, NOVEMBER)
    assert reconciles(bureau, DECEMBER)


def test_a_debt_is_carried_into_the_next_statement_and_never_clamped() -> None:
    bureau = with_money()
    bureau.review(bureau.withdraw("bob", 1_000)[1], d.WITHDRAWAL_APPROVE)
    bureau.wait(25 * DAY_MS)
    bureau.returned("first", 1)
    bureau.wait(31 * DAY_MS)
    assert statement(bureau, NOVEMBER).closing_minor == 0
    made = statement(bureau, DECEMBER)
    assert (made.opening_minor, made.reversed_minor, made.closing_minor) == (0, 1_000, -1_000)
    bureau.earned("january", "ann", 30_000)
    bureau.wait(31 * DAY_MS)
    made = statement(bureau, JANUARY)
    assert (made.opening_minor, made.available_minor, made.closing_minor) == (-1_000, 3_000, 2_000)
    assert bureau.money("bob")[:3] == (0, 0, 2_000)


def test_a_month_in_which_nothing_changed_has_no_statement() -> None:
    bureau = with_money()
    bureau.wait(90 * DAY_MS)
    assert bureau.statement("bob", DECEMBER) is None
    assert bureau.do(d.GET_STATEMENT, "eve", NOVEMBER)[0] == Outcome.NOT_DISTRIBUTOR


def test_memory_has_the_newest_statements() -> None:
    bureau = with_money()
    for number in range(STATEMENTS_KEPT + 2):
        bureau.wait(30 * DAY_MS)
        bureau.earned(f"r{number}", "ann")
    assert bureau.statement("bob", NOVEMBER) is None
    assert len(bureau.distributor("bob").statements) == STATEMENTS_KEPT


# Withdrawals


def test_a_withdrawal_takes_what_is_settled_first() -> None:
    bureau = with_money()
    bureau.wait(30 * DAY_MS)
    bureau.earned("december", "ann", 5_000)
    bureau.wait(FREEZE_MS + 2_000)
    assert bureau.money("bob") == (0, 500, 1_000, 0, 0)
    answer = bureau.withdraw("bob", 1_200)
    assert (answer[0], answer[2]) == (Outcome.APPLIED, 300)
    assert bureau.money("bob") == (0, 300, 0, 1_200, 0)
    record = bureau.records[-1]
    assert (record.from_settled_minor, record.currency_code) == (1_000, "CNY")
    (entry,) = record.entries
    assert (entry.level, entry.version, entry.month) == (0, 0, DECEMBER), "it is of no order"


def test_no_withdrawal_is_above_what_is_available() -> None:
    bureau = with_money()
    assert bureau.withdraw("bob", 1_001)[:3] == (Outcome.EXCEEDS_AVAILABLE, b"", 1_000)
    assert bureau.withdraw("bob", 1_000, "w2")[0] == Outcome.APPLIED
    assert bureau.withdraw("bob", 1, "w3")[0] == Outcome.EXCEEDS_AVAILABLE
    assert bureau.withdraw("eve", 1, "w4")[0] == Outcome.NOT_DISTRIBUTOR
    assert [bureau.withdraw("bob", least, f"w{least}")[0] for least in (0, -1)] == [
        Outcome.INVALID,
        Outcome.INVALID,
    ]
    assert bureau.money("bob") == (0, 0, 0, 1_000, 0)


def test_a_withdrawal_is_requested_once_and_a_refused_one_stays_refused() -> None:
    bureau = with_money()
    first = bureau.withdraw("bob", 600)
    assert bureau.withdraw("bob", 600)[:3] == (Outcome.FOUND, first[1], 400)
    assert bureau.withdraw("bob", 601)[0] == Outcome.ID_REUSED
    assert bureau.withdraw("bob", 600, "w2")[0] == Outcome.EXCEEDS_AVAILABLE
    bureau.review(first[1], d.WITHDRAWAL_REJECT)
    assert bureau.withdraw("bob", 600, "w2")[0] == Outcome.EXCEEDS_AVAILABLE
    assert bureau.withdraw("bob", 600, "w3")[0] == Outcome.APPLIED


def test_who_is_suspended_or_frozen_withdraws_nothing() -> None:
    bureau = with_money()
    bureau.hold("bob", HOUR_MS)
    assert bureau.withdraw("bob", 1)[0] == Outcome.BUYER_FROZEN
    bureau.act("bob", d.SUSPEND)
    assert bureau.withdraw("bob", 1, "w2")[0] == Outcome.NOT_ACTIVE
    assert bureau.money("bob")[1] == 1_000


def test_an_approved_withdrawal_is_paid_once() -> None:
    bureau = with_money()
    key = bureau.withdraw("bob", 600)[1]
    assert bureau.review(key, d.WITHDRAWAL_PAID)[0] == Outcome.WITHDRAWAL_CONFLICT
    assert bureau.review(key, d.WITHDRAWAL_APPROVE)[0] == Outcome.APPLIED
    assert bureau.review(key, d.WITHDRAWAL_PAID)[1][6] == "bank-1"
    assert bureau.review(key, d.WITHDRAWAL_PAID)[0] == Outcome.APPLIED
    assert bureau.review(key, d.WITHDRAWAL_FAILED)[0] == Outcome.WITHDRAWAL_CONFLICT
    assert bureau.money("bob") == (0, 400, 0, 0, 600)


def test_a_second_payment_of_a_withdrawal_is_told_apart_from_the_first_told_again() -> None:
    bureau = with_money()
    key = bureau.withdraw("bob", 600)[1]
    bureau.review(key, d.WITHDRAWAL_APPROVE, "order-1")
    paid = bureau.review(key, d.WITHDRAWAL_PAID, "")
    assert paid[1][6] == "order-1", "nothing was said anew"
    assert bureau.review(key, d.WITHDRAWAL_PAID, "order-1") == paid
    assert bureau.review(key, d.WITHDRAWAL_PAID, "") == paid
    again = bureau.review(key, d.WITHDRAWAL_PAID, "order-2")
    assert again == (Outcome.WITHDRAWAL_CONFLICT, paid[1], "CNY")


def test_what_comes_back_while_it_is_withdrawn_is_a_debt_until_it_is_settled_with_it() -> None:
    bureau = with_money()
    key = bureau.withdraw("bob", 1_000)[1]
    bureau.review(key, d.WITHDRAWAL_APPROVE)
    bureau.returned("first", 1)
    assert bureau.money("bob") == (0, 0, -1_000, 1_000, 0)
    bureau.review(key, d.WITHDRAWAL_FAILED)
    assert bureau.money("bob") == (0, 1_000, -1_000, 0, 0)
    assert bureau.withdraw("bob", 1, "w2")[0] == Outcome.EXCEEDS_AVAILABLE
    bureau.wait(30 * DAY_MS)
    made = statement(bureau, NOVEMBER)
    assert (made.reversed_minor, made.withdrawn_minor, made.restored_minor) == (1_000, 1_000, 1_000)
    assert (made.closing_minor, made.moved_minor) == (0, 1_000)
    assert bureau.money("bob") == (0, 0, 0, 0, 0)
    assert reconciles(bureau, NOVEMBER)


def test_of_two_withdrawals_of_all_there_is_one_is_made() -> None:
    bureau = with_money()
    both = [bureau.withdraw("bob", 1_000, name)[0] for name in ("w1", "w2")]
    assert both == [Outcome.APPLIED, Outcome.EXCEEDS_AVAILABLE]


def test_no_more_withdrawals_are_open_than_a_few() -> None:
    bureau = with_money()
    names = [f"w{number}" for number in range(OPEN_WITHDRAWALS_MAX + 1)]
    told = [bureau.withdraw("bob", 1, name) for name in names]
    assert [answer[0] for answer in told[:-1]] == [Outcome.APPLIED] * OPEN_WITHDRAWALS_MAX
    assert told[-1][0] == Outcome.LIMIT_EXCEEDED
    bureau.review(told[0][1], d.WITHDRAWAL_REJECT)
    assert bureau.withdraw("bob", 1, "one more")[0] == Outcome.APPLIED


def test_a_fact_of_the_last_month_is_in_the_statement_of_the_month_in_which_it_was_told() -> None:
    """Its order came back in November, and the fact in December, when November was closed."""
    bureau = with_money()
    bureau.wait(30 * DAY_MS)
    november = statement(bureau, NOVEMBER)
    bureau.returned("first", 1)
    assert bureau.entries("bob")[-1].month == DECEMBER
    bureau.wait(31 * DAY_MS)
    assert statement(bureau, NOVEMBER) == november
    made = statement(bureau, DECEMBER)
    assert (made.opening_minor, made.reversed_minor, made.closing_minor) == (1_000, 1_000, 0)
    assert reconciles(bureau, DECEMBER)


def test_a_rejected_or_failed_withdrawal_gives_the_money_back_to_where_it_was() -> None:
    bureau = with_money()
    bureau.wait(30 * DAY_MS)
    bureau.earned("december", "ann", 5_000)
    bureau.wait(FREEZE_MS + 2_000)
    before = bureau.money("bob")
    bureau.review(bureau.withdraw("bob", 1_200)[1], d.WITHDRAWAL_REJECT)
    assert bureau.money("bob") == before
    key = bureau.withdraw("bob", 1_200, "w2")[1]
    bureau.review(key, d.WITHDRAWAL_APPROVE)
    bureau.review(key, d.WITHDRAWAL_FAILED)
    assert bureau.money("bob") == before
    assert bureau.do(d.REVIEW_WITHDRAWAL, bytes(16), d.WITHDRAWAL_PAID)[0] == Outcome.NOT_FOUND


# Reading


def test_the_newest_entries_are_read_page_by_page() -> None:
    bureau = with_money()
    for number in range(5):
        bureau.earned(f"r{number}", "ann", 100)
    page = bureau.do(d.LIST_ENTRIES, "bob", 0, 3)
    assert [entry[1] for entry in page[1]] == [7, 6, 5]
    page = bureau.do(d.LIST_ENTRIES, "bob", 5, 10)
    assert [entry[1] for entry in page[1]] == [4, 3, 2, 1]
    assert page[2] == 1
    assert bureau.do(d.LIST_ENTRIES, "eve", 0, 3)[1] == ()


def test_an_account_says_where_the_money_is() -> None:
    bureau = with_money()
    bureau.earned("more", "ann", 2_000)
    bureau.withdraw("bob", 300)
    outcome, view, bound_to = bureau.do(d.GET_ACCOUNT, "bob")
    assert (outcome, bound_to) == (Outcome.FOUND, "")
    assert view[6] == (-1_200, 200, 700, 0, 300, 0)
    assert view[7:11] == (700, 2, 12_000, 1)
    assert view[-1] == "CNY"
    assert bureau.do(d.GET_ACCOUNT, "eve")[0] == Outcome.NOT_DISTRIBUTOR


def test_the_totals_of_a_shard_have_its_ledger_and_name_what_is_broken() -> None:
    bureau = with_money()
    bureau.withdraw("bob", 300)
    found = totals(bureau.state)
    assert (found.ledger_minor, found.broken) == ((-1_000, 0, 700, 0, 300, 0), ())
    bureau.distributor("bob").balances[1] += 1
    found = totals(bureau.state)
    assert [text.split(":")[0] for text in found.broken] == [
        "distributor bob",
        "programme of slot 1500",
    ]
