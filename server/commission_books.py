"""Holds the ledger of commission to what buyers were told: each order, each month, each cent.

Every entry is read. An order of somebody whom a distributor brought must have exactly the entries
that the rates say, reckoned by `Outreach`, and no other order any. Months are summed up from their
entries: of a month that is over, its statement must say the same; a month that is not over has none
yet, so its statement to date must lead to the account's balance. The funnel must be what a count of
SQL's rows comes to, and what buyers were told.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stockray import (
    AsyncClient,
    CommissionEntry,
    CommissionEvent,
    CommissionStatement,
    FunnelRow,
    LeaderboardKind,
    LedgerAmounts,
    Status,
)

from actors.core.commission_state import Sums
from persistence.sql.dump import View
from server.outreach import Outreach, Share, each
from server.sale import Order
from server.verify_accounts import count_in_month

ACCOUNTS = (
    *("expense_minor", "frozen_minor", "available_minor"),
    *("settled_minor", "withdrawing_minor", "paid_out_minor"),
)
EARNS, REVERSES = int(CommissionEvent.ACCRUED), int(CommissionEvent.REVERSED)
THAWS = int(CommissionEvent.BECAME_AVAILABLE)
PAGE_SIZE = 1_000
READ_AT_ONCE = 4
BOARD_LENGTH = 10
SHOWN = 8
"""Months shown of those who have most; and 2 of those who have least."""

Key = tuple[str, str, str]
"""A row of the funnel: campaign, share code, channel."""
FUNNEL = (
    "seckill_reservation_count",
    "seckill_confirmed_count",
    "group_reservation_count",
    "group_confirmed_count",
    "amount_minor",
    "commission_minor",
)


class Earning(NamedTuple):
    """An order that is to earn, if somebody brought its buyer."""

    order: Order
    version: int
    """Of the rates when it was reserved."""
    matured: bool
    """Whether its freeze was over before anything of it came back."""


class CatchUp(NamedTuple):
    """How the ledger followed the sale."""

    confirmed: int
    """Orders that were confirmed when the sale ended."""
    behind_entries: int
    """Of the journals, at the end of the sale; if the relay was being started again, by what it
    had said before."""
    lag_ms: float
    took_s: float
    """Until the ledger had all of the sale."""


class Line(NamedTuple):
    """A distributor's month: opening + available - reversed - withdrawn + restored = closing."""

    distributor_id: str
    month: int
    made: bool
    """False: to date, of a month that is not over."""
    entry_count: int
    opening_minor: int
    available_minor: int
    reversed_minor: int
    withdrawn_minor: int
    restored_minor: int
    closing_minor: int


class Brought(NamedTuple):
    """What a distributor's share code brought a campaign, as `FUNNEL`."""

    campaign_id: str
    distributor_id: str
    seckill_reservation_count: int
    seckill_confirmed_count: int
    group_reservation_count: int
    group_confirmed_count: int
    amount_minor: int
    commission_minor: int


class Part:
    """What one level has of one order, by its entries."""

    __slots__ = (
        "accrued_minor",
        "distributor_id",
        "events",
        "frozen_minor",
        "left_minor",
        "version",
    )

    def __init__(self, entry: CommissionEntry) -> None:
        self.distributor_id = entry.distributor_id
        self.version = entry.rates_version
        self.events: Counter[int] = Counter()
        self.accrued_minor = self.frozen_minor = self.left_minor = 0

    def take(self, event: int, amounts: tuple[int, ...]) -> None:
        """One of its entries."""
        self.events[event] += 1
        self.accrued_minor += amounts[1] if event == EARNS else 0
        self.left_minor -= amounts[0]
        self.frozen_minor += amounts[1]


@dataclass(slots=True, kw_only=True)
class CommissionBooks:
    """What a campaign's distributors came to."""

    outreach: Outreach
    catch_up: CatchUp
    earnings: list[Earning]
    told: Counter[Key] = field(default_factory=Counter)
    """Reservations that carried a share code, as their buyers were told."""
    undecided: int = 0
    """Calls of which no buyer knows whether they reserved anything."""
    paid_out_minor: int = 0
    """Withdrawals that were told to be paid; all others are over as well."""
    entries: int = 0
    ledger_sum_minor: int = 0
    """Over all entries and accounts: 0, or money was made or lost."""
    sums: tuple[int, ...] = (0,) * len(ACCOUNTS)
    """The ledger's balance of each account, over all distributors."""
    lines: list[Line] = field(default_factory=list)
    funnel: list[FunnelRow] = field(default_factory=list)
    board: list[tuple[str, int]] = field(default_factory=list)
    """The leaderboard of sales."""
    problems: list[str] = field(default_factory=list)
    balances: dict[str, list[int]] = field(default_factory=dict)
    """By distributor, in the order of `ACCOUNTS`: what its entries come to."""
    earned_in: set[int] = field(default_factory=set)
    """Months in which anything was accrued."""
    _months: dict[tuple[str, int], Sums] = field(default_factory=dict)
    _parts: dict[tuple[str, int], Part] = field(default_factory=dict)

    @property
    def reconcile(self) -> bool:
        """Whether all agree: orders and entries, entries and statements, funnel and SQL."""
        return not self.problems

    @property
    def balanced(self) -> bool:
        """Whether nothing is wrong, and there was something that could have been."""
        return self.reconcile and self.ledger_sum_minor == 0 and self.entries > 0

    def as_data(self) -> dict[str, Any]:
        """For `-o json`, beside the names that the contract fixes."""
        return {
            "distributors": len(self.outreach.distributors),
            "orders": len(self.earnings),
            "entries": self.entries,
            "balances": dict(zip(ACCOUNTS, self.sums, strict=True)),
            "sale": self.catch_up._asdict(),
            "statements": [line._asdict() for line in self.lines],
            "funnel": self.funnel_totals(),
            "funnel_by_distributor": [row._asdict() for row in self.funnel_rows()],
            "leaders": self.board,
            "problems": self.problems[:10],
        }

    def lines_shown(self) -> list[Line]:
        """Of those who have most and least."""
        return [*self.lines[:SHOWN], *self.lines[max(SHOWN, len(self.lines) - 2) :]]

    def funnel_rows(self) -> list[Brought]:
        """By campaign and distributor, over all channels; who earns most first."""
        sums: dict[tuple[str, str], list[int]] = {}
        for row in self.funnel:
            total = sums.setdefault((row.campaign_id, row.distributor_id), [0] * len(FUNNEL))
            for at, name in enumerate(FUNNEL):
                total[at] += getattr(row, name)
        found = [Brought(*key, *total) for key, total in sums.items()]
        campaigns = list(self.funnel_totals())
        found.sort(
            key=lambda one: (
                campaigns.index(one.campaign_id),
                -one.commission_minor,
                one.distributor_id,
            )
        )
        return found

    def funnel_totals(self) -> dict[str, dict[str, int]]:
        """By campaign, over all share codes."""
        totals: dict[str, dict[str, int]] = {}
        for row in self.funnel:
            total = totals.setdefault(row.campaign_id, dict.fromkeys(FUNNEL, 0))
            for name in FUNNEL:
                total[name] += getattr(row, name)
        return totals

    def check(self, holds: bool, problem: str) -> None:
        """Keep what is wrong."""
        if not holds:
            self.problems.append(problem)

    def take(self, entry: CommissionEntry) -> None:
        """One entry of the ledger."""
        amounts = amounts_of(entry.amounts)
        self.entries += 1
        self.ledger_sum_minor += sum(amounts)
        self.check(not sum(amounts), f"entry {entry.entry_number}: comes to {sum(amounts)}")
        balances = self.balances.setdefault(entry.distributor_id, [0] * len(ACCOUNTS))
        for at, amount in enumerate(amounts):
            balances[at] += amount
        month, event = (entry.distributor_id, entry.month), int(entry.event)
        count_in_month(self._months, month, event, amounts[2] + amounts[3])
        if event == EARNS:
            self.earned_in.add(entry.month)
        if entry.reservation_id:
            place = (entry.reservation_id, entry.level)
            part = self._parts.get(place) or self._parts.setdefault(place, Part(entry))
            part.take(event, amounts)
            self.check(
                (part.distributor_id, part.version) == (entry.distributor_id, entry.rates_version),
                f"entry {entry.entry_number}: of {entry.distributor_id}, not {part.distributor_id}",
            )

    def judge_orders(self) -> None:
        """Each order has its entries, and there are no others."""
        for earning in self.earnings:
            for share in self.outreach.shares(earning.order, earning.version):
                self._judge_share(earning, share)
        for (reservation_id, level), part in self._parts.items():
            self.check(
                False, f"order {reservation_id}: level {level} is paid to {part.distributor_id}"
            )
        self._parts.clear()

    def _judge_share(self, earning: Earning, share: Share) -> None:
        order = earning.order
        name = f"order {order.reservation_id}: level {share.level}"
        part = self._parts.pop((order.reservation_id, share.level), None)
        if part is None:
            self.check(False, f"{name} earned nothing instead of {share.amount_minor}")
            return
        left_minor = left_of(share.amount_minor, order)
        thawed = earning.matured and share.distributor_id != self.outreach.suspended
        wanted = (
            *(share.distributor_id, earning.version, share.amount_minor),
            *(left_minor, 0 if thawed else left_minor),
            Counter({EARNS: 1, REVERSES: int(left_minor < share.amount_minor), THAWS: int(thawed)}),
        )
        found = (
            *(part.distributor_id, part.version, part.accrued_minor),
            *(part.left_minor, part.frozen_minor),
            part.events,
        )
        self.check(found == wanted, f"{name}: {found}, not {wanted}")

    def frozen_minor(self) -> int:
        """What is to be frozen, by the orders."""
        suspended = self.outreach.suspended
        return sum(
            left_of(share.amount_minor, order)
            for order, version, matured in self.earnings
            for share in self.outreach.shares(order, version)
            if not matured or share.distributor_id == suspended
        )

    def sales(self) -> dict[str, tuple[int, int]]:
        """Orders that each distributor brought, and what was paid for what is left of them."""
        found: dict[str, tuple[int, int]] = {}
        for order, _, _ in self.earnings:
            name = self.outreach.referrer(order.buyer_id)
            if name:
                orders, paid_minor = found.get(name, (0, 0))
                found[name] = (orders + 1, paid_minor + left_of(order.paid_minor, order))
        return found

    def close_months(self, name: str, made: Iterable[CommissionStatement]) -> int:
        """Sum up a distributor's months in order. Answers what the last one closes with."""
        statements = {one.month: one for one in made}
        opening_minor = 0
        for month in sorted(
            {month for who, month in self._months if who == name} | set(statements)
        ):
            sums = self._months.get((name, month), Sums())
            available, returned, withdrawn, restored, count = sums.pack()
            closing_minor = opening_minor + available - returned - withdrawn + restored
            told = statements.get(month)
            line = Line(
                *(name, month, told is not None, count, opening_minor),
                *(available, returned, withdrawn, restored, closing_minor),
            )
            self.lines.append(line)
            self.check(
                told is None or all(getattr(told, key) == getattr(line, key) for key in _SAID),
                f"statement {month} of {name}: {told}, its entries come to {line}",
            )
            opening_minor = closing_minor
        return opening_minor

    def judge_funnel(self, counted: Mapping[Key, list[int]]) -> None:
        """The funnel is what SQL's rows come to, and what buyers were told."""
        found = {_key(row): [getattr(row, name) for name in FUNNEL] for row in self.funnel}
        for key in sorted(found.keys() | counted.keys()):
            got, rows = found.get(key), counted.get(key)
            self.check(got == rows, f"funnel {key}: {got}, SQL's rows come to {rows}")
        owners = {code: name for name, code in self.outreach.codes.items()}
        for row in self.funnel:
            self.check(
                owners.get(row.share_code) == row.distributor_id,
                f"funnel {_key(row)}: of {row.distributor_id}",
            )
        told = self._told_funnel()
        reserved = sum(one[0] + one[2] for one in found.values())
        self.check(
            0 <= reserved - sum(self.told.values()) <= self.undecided,
            f"funnel: {reserved} reserved, buyers were told of {sum(self.told.values())}",
        )
        for key in sorted(found.keys() | told.keys()):
            got, said = found.get(key, [0] * len(FUNNEL)), told.get(key, [0] * len(FUNNEL))
            self.check(
                [got[1], got[3], *got[4:]] == [said[1], said[3], *said[4:]],
                f"funnel {key}: {got}, buyers were told {said}",
            )

    def _told_funnel(self) -> dict[Key, list[int]]:
        """As `FUNNEL`, by what buyers were told; reservations are counted apart."""
        found: dict[Key, list[int]] = {}
        for order, version, _ in self.earnings:
            carried = order.attribution
            if carried is None:
                continue
            key = (order.campaign_id, carried.share_code, carried.channel)
            row = found.setdefault(key, [0] * len(FUNNEL))
            row[3 if order.of_team else 1] += 1
            row[4] += order.paid_minor
            row[5] += sum(
                left_of(share.amount_minor, order) for share in self.outreach.shares(order, version)
            )
        return found


_SAID = Line._fields[3:]
"""What a statement says too."""


def left_of(amount_minor: int, order: Order) -> int:
    """What units that came back leave of an amount: from the total, so parts never drift."""
    return amount_minor * (order.quantity - order.returned_quantity) // order.quantity


def amounts_of(amounts: LedgerAmounts | None) -> tuple[int, ...]:
    """In the order of `ACCOUNTS`."""
    told = amounts or LedgerAmounts()
    return tuple(getattr(told, name) for name in ACCOUNTS)


def _key(row: FunnelRow) -> Key:
    return (row.campaign_id, row.share_code, row.channel)


def count_rows(view: View) -> dict[Key, list[int]]:
    """The funnel as SQL's rows have it, one by one."""
    seats = {
        name: (settled_ms, settled_minor)
        for name, settled_ms, settled_minor in view.rows(
            "seats", ("reservation_id", "settled_ms", "settled_minor")
        )
    }
    earned: Counter[str] = Counter()
    for name, event, expense_minor in view.rows(
        "commission_entries", ("reservation_id", "event", "expense_minor")
    ):
        earned[name] -= expense_minor if event in (EARNS, REVERSES) else 0
    columns = ("reservation_id", "campaign_id", "share_code", "channel")
    found: dict[Key, list[int]] = {}
    for name, campaign_id, code, channel, confirmed_ms, paid_minor in view.rows(
        "reservations", (*columns, "confirmed_ms", "paid_minor")
    ):
        if not (campaign_id and code):
            continue
        row = found.setdefault((campaign_id, code, channel), [0] * len(FUNNEL))
        settled_ms, settled_minor = seats.get(name, (1, 0))
        row[2 if name in seats else 0] += 1
        if confirmed_ms and settled_ms:
            row[3 if name in seats else 1] += 1
            row[4] += paid_minor - settled_minor
            row[5] += earned[name]
    return found


async def audit(client: AsyncClient, books: CommissionBooks, campaign_ids: Iterable[str]) -> None:
    """Read the whole ledger and what stands on it, and fill in the books; all but `judge_funnel`.
    SQL must have caught up."""
    programme = await client.get_rates()
    books.sums = amounts_of(programme.sums)
    closings: dict[str, int] = {}

    async def read(name: str) -> None:
        async for entry in client.list_entries(name, page_size=PAGE_SIZE):
            books.take(entry)
        made = [one async for one in client.list_statements(name)]
        closings[name] = books.close_months(name, made)

    await each(books.outreach.distributors, read, at_once=READ_AT_ONCE)
    books.check(
        books.entries == programme.entry_count,
        f"{books.entries} entries, the ledger says {programme.entry_count}",
    )
    books.check(
        books.sums[-2:] == (0, books.paid_out_minor),
        f"ledger: withdrawing and paid out {books.sums[-2:]}, not {books.paid_out_minor}",
    )
    books.judge_orders()
    await _judge_accounts(client, books, closings)
    books.lines.sort(key=lambda line: (-line.closing_minor, line.distributor_id))
    for campaign_id in campaign_ids:
        found = await client.get_funnel((campaign_id,))
        books.check(not found.truncated, f"funnel of {campaign_id}: there is more of it")
        books.funnel.extend(found.rows)


async def _judge_accounts(
    client: AsyncClient, books: CommissionBooks, closings: Mapping[str, int]
) -> None:
    """Balances are the sums of the entries; months close with what can be withdrawn."""
    sales = books.sales()
    whole = [0] * len(ACCOUNTS)
    for name, closing_minor in closings.items():
        account = (await client.get_account(name)).account
        found = books.balances.get(name, [0] * len(ACCOUNTS))
        whole = [one + other for one, other in zip(whole, found, strict=True)]
        if account is None:
            books.check(False, f"account {name}: not there")
            continue
        told = amounts_of(account.balances)
        books.check(told == tuple(found), f"account {name}: {told}, its entries come to {found}")
        books.check(
            closing_minor == account.withdrawable_minor,
            f"account {name}: {account.withdrawable_minor}, its months close at {closing_minor}",
        )
        brought = (account.order_count, account.sales_minor)
        books.check(
            brought == sales.get(name, (0, 0)),
            f"account {name}: brought {brought}, by the orders {sales.get(name)}",
        )
    books.check(tuple(whole) == books.sums, f"ledger: {books.sums}, its accounts come to {whole}")
    if len(books.earned_in) == 1:
        await _judge_board(client, books, *books.earned_in)


async def _judge_board(client: AsyncClient, books: CommissionBooks, month: int) -> None:
    """The leaderboard of sales is that of the orders, all of them of one month."""
    board = await client.get_leaderboard(LeaderboardKind.SALES, month=month, limit=BOARD_LENGTH)
    if board.status is Status.NOT_FOUND:
        return  # Only this month and the last have one.
    books.board = [(place.distributor_id, place.sales_minor) for place in board.places]
    sales = sorted((-minor, name) for name, (_, minor) in books.sales().items() if minor > 0)
    best = [(name, -minor) for minor, name in sales[:BOARD_LENGTH]]
    books.check(books.board == best, f"leaderboard: {books.board}, by the orders {best}")
