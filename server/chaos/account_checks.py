"""Holds what account shards did against what stock shards' journals and callers say: a part of
`checks.py`.

Every order earns what the rates of its moment say for whoever brought its buyer by then, once, and
nothing else earns; so a fact that was lost, taken twice, or taken for another is found.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stockray import AsyncClient

from actors.core import commission_records as cr
from actors.core.risk_records import BY_OPERATOR, BY_PAYMENT_FAILURES
from server.chaos.account_books import AccountBooks, Earned, Sold
from server.chaos.history import BINDING, HOLDING, OK, Operation
from server.chaos.referrals import Referrals
from server.chaos.times import brief
from server.commission_books import amounts_of
from server.verify import Invariant

REFUSED_AFTER_S = 30.0
"""A frozen buyer is refused from so long after being told so. Without faults it takes a moment: a
gateway pulls who is frozen every 250 ms."""

FROZEN_STATUS = "BUYER_FROZEN"


class Told(NamedTuple):
    """What accounts told in the end."""

    frozen: Sequence[tuple[str, float]] = ()
    """(Buyer, when it was told to be frozen)."""
    balances: Sequence[tuple[str, tuple[int, ...]]] = ()
    """(Distributor, its balances by account)."""
    held: str = ""
    """A distributor who is frozen from the start."""


async def read_accounts(
    client: AsyncClient, referrals: Referrals, frozen: Sequence[tuple[str, float]]
) -> Told:
    """What distributors are told to have. Raises what the client does."""
    balances = []
    for name in referrals.names:
        account = (await client.get_account(name)).account
        if account is not None:
            balances.append((name, amounts_of(account.balances)))
    return Told(frozen, balances, referrals.frozen)


def check_accounts(
    operations: Iterable[Operation], books: AccountBooks, told: Told, checks: dict[str, Invariant]
) -> None:
    """Everything that is known of commission and risk."""
    calls = list(operations)
    checks["ledger"] = books.ledger
    for name, sold in books.sold.items():
        _check_order(name, sold, books, checks)
    for name, earned in books.earned.items():
        checks["earned"].check(name in books.sold, f"{name} earned {earned.accrued}, unsold")
    _check_balances(books, told, checks["ledger"])
    _check_bound(calls, books, checks["bound"])
    _check_frozen(calls, books, told, checks["frozen"])


def _check_order(name: str, sold: Sold, books: AccountBooks, checks: dict[str, Invariant]) -> None:
    earned = books.earned.get(name) or Earned()
    referrers = books.referrers(sold)
    who = earned.accrued[0].referrer_id if earned.accrued else ""
    checks["earned"].check(
        who in referrers and len(earned.accrued) == bool(who),
        f"{name} of {sold.of}: earned {len(earned.accrued)} times, for {who!r}, not {referrers}",
    )
    if len(earned.accrued) != 1:
        checks["reversed"].check(not earned.reversed, f"{name}: {earned.reversed} of nothing")
        return
    (record,) = earned.accrued
    of = sold.of
    said = (record.buyer_id, record.sku_id, record.quantity, record.base_minor, record.reserved_ms)
    wanted_of = (of.buyer_id, of.sku_id, of.quantity, sold.base_minor, of.at_ms)
    checks["earned"].check(said == wanted_of, f"{name}: earned as {said}, sold as {wanted_of}")
    wanted = {version: books.shares(sold, who, version) for version in books.rates(sold)}
    got = [(share[0], share[1], share[3]) for share in record.shares]
    checks["earned"].check(
        got == wanted.get(record.version),
        f"{name}: {got} by version {record.version}, not {wanted} of {sold.base_minor}",
    )
    entries = {key: n for key, n in earned.entries.items() if key[0] == cr.ACCRUED}
    checks["earned"].check(
        entries == {(cr.ACCRUED, *share): 1 for share in got},
        f"{name}: entries {entries} of shares {got}",
    )
    ends_ms = books.freeze_ends_ms(sold, record.version, delivered=bool(earned.moved_ms))
    checks["ledger"].check(
        earned.matures_ms == ends_ms,
        f"{name}: frozen until {earned.matures_ms}, by the rates until {ends_ms}",
    )
    _check_returns(name, sold, earned, checks["reversed"])


def _check_returns(name: str, sold: Sold, earned: Earned, found: Invariant) -> None:
    """Each return has its reversal: what is left is counted from the whole, so parts add up."""
    totals = [record.returned_total for record in earned.reversed]
    found.check(totals == sold.returned, f"{name}: back {sold.returned}, reversed {totals}")
    full = [(share[0], share[1], share[3]) for share in earned.accrued[0].shares]
    left = [amount for _, _, amount in full]
    entries: dict[tuple[int, int, str, int], int] = {}
    for record in earned.reversed:
        units = sold.of.quantity - record.returned_total
        after = [amount * units // sold.of.quantity for _, _, amount in full]
        found.check(
            list(record.left_minor) == after,
            f"{name}: {record.left_minor} left of {full} for {units} units, not {after}",
        )
        for (level, who, _), before, now in zip(full, left, after, strict=True):
            if now < before:
                key = (cr.REVERSED, level, who, now - before)
                entries[key] = entries.get(key, 0) + 1
        left = after
    got = {key: n for key, n in earned.entries.items() if key[0] == cr.REVERSED}
    found.check(got == entries, f"{name}: entries {got}, not {entries}")


def _check_balances(books: AccountBooks, told: Told, found: Invariant) -> None:
    """What an account was read as, it was at some place; who is held has nothing available."""
    for name, balances in told.balances:
        states = books.states.get(name, [(0,) * len(balances)])
        found.check(balances in states, f"{name} was read as {balances}, and ends as {states[-1]}")
    _, _, *free = books.states.get(told.held, [(0, 0)])[-1]
    found.check(not any(free), f"{told.held} is held, and has {free} beside what is frozen")


def _check_bound(calls: Iterable[Operation], books: AccountBooks, found: Invariant) -> None:
    """Whoever was told to be bound is bound so, and nobody is without having asked."""
    asked: set[str] = set()
    for call in calls:
        if call.verb != BINDING:
            continue
        asked.add(call.buyer_id)
        if call.outcome == OK:
            to = {one.distributor_id for one in books.bound.get(call.buyer_id, ())}
            to |= {books.codes.get(code, "") for _, code in books.carried.get(call.buyer_id, ())}
            found.check(
                set(call.answer) <= to and bool(call.answer),
                f"{brief(call)} was told {call.answer}; the journal has {to}",
            )
    for buyer_id, touches in books.bound.items():
        known = buyer_id in asked or buyer_id in books.codes.values()
        found.check(known, f"{buyer_id} is bound by {touches}, and never asked")
        found.check(len(touches) == 1, f"{buyer_id} is bound more than once: {touches}")


def _check_frozen(
    calls: Iterable[Operation], books: AccountBooks, told: Told, found: Invariant
) -> None:
    """Three failed payments freeze, less do not; the frozen get nothing new, all others do."""
    for buyer_id in books.noted:
        must, causes = books.must_freeze(buyer_id), books.frozen.get(buyer_id, [])
        found.check(
            bool(causes) == must,
            f"{buyer_id}: payments failed {books.noted[buyer_id]}, frozen {len(causes)} times",
        )
    for buyer_id, causes in books.frozen.items():
        cause = BY_OPERATOR if buyer_id == told.held else BY_PAYMENT_FAILURES
        found.check(causes == [cause], f"{buyer_id} is frozen for {causes}, and not once {cause}")
    failed = sum(len(times) for times in books.failures.values())
    noted = sum(len(times) for times in books.noted.values())
    found.check(failed == noted, f"{failed} payments failed, accounts know of {noted}")
    since = dict(told.frozen)
    for buyer_id in since:
        found.check(buyer_id in books.frozen, f"{buyer_id} was told to be frozen, and is not")
    for call in calls:
        if call.status == FROZEN_STATUS:
            found.check(
                call.buyer_id in books.frozen and call.verb in {*HOLDING, BINDING},
                f"{brief(call)} was told {FROZEN_STATUS}",
            )
        elif call.verb in HOLDING and call.buyer_id in since:
            late_s = call.began_s - since[call.buyer_id]
            found.check(
                call.outcome != OK or late_s < REFUSED_AFTER_S,
                f"{brief(call)}: {call.status}, {late_s:.0f} s after it was frozen",
            )
