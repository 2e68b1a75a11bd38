"""What account shards decided, of the SQL view, and what of the state it is. Part of
`recover_rows.py`.

The ledger's entries say where all money is: balances, open months and the newest entries are made
of them. Rows are read in this order: rates, distributors, bonds, orders, entries, statements,
withdrawals. Orders of which all is available, and finished withdrawals, are not loaded but
forgotten when they are old enough, as the shard itself would have done. Nothing is decided:
`Accounts.compare` tells what does not fit together.
"""

import heapq
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from actors.core import commission_records as r
from actors.core import commission_state as c
from actors.core import state as s
from actors.core.bloom import Forgotten
from actors.core.evolve_commission import BOARD_MONTHS
from actors.core.identity import parse_account_id
from actors.core.programme_config import programme_config
from actors.core.risk_state import Profile

Differ = Callable[[str], None]
LEVELS = (1, 2)


class RateRow(NamedTuple):
    """Of `commission_rates`."""

    slot: int
    generation: int
    seq: int
    version: int
    from_ms: int
    config_json: str
    updated_ms: int


class DistributorRow(NamedTuple):
    """Of `distributors`."""

    slot: int
    generation: int
    seq: int
    distributor_id: str
    state: int
    share_code: str
    applied_ms: int
    changed_ms: int
    held_until_ms: int
    held_as_of_ms: int
    updated_ms: int


class BondRow(NamedTuple):
    """Of `bonds`."""

    slot: int
    generation: int
    seq: int
    buyer_id: str
    from_ms: int
    distributor_id: str
    until_ms: int
    invited: int
    month: int
    updated_ms: int


class OrderRow(NamedTuple):
    """Of `commission_orders`."""

    slot: int
    generation: int
    seq: int
    reservation_id: str
    referrer_id: str
    quantity: int
    returned_quantity: int
    base_minor: int
    version: int
    month: int
    level1_id: str
    level1_bps: int
    level1_minor: int
    level1_state: int
    level2_id: str
    level2_bps: int
    level2_minor: int
    level2_state: int
    earned_ms: int
    matures_ms: int
    delivered: int
    updated_ms: int


class EntryRow(NamedTuple):
    """Of `commission_entries`."""

    slot: int
    generation: int
    seq: int
    entry_id: int
    distributor_id: str
    event: int
    reservation_id: str
    withdrawal_id: str
    level: int
    version: int
    month: int
    expense_minor: int
    frozen_minor: int
    available_minor: int
    settled_minor: int
    withdrawing_minor: int
    paid_out_minor: int
    at_ms: int


_AMOUNTS = slice(EntryRow._fields.index("expense_minor"), -1)


class StatementRow(NamedTuple):
    """Of `statements`."""

    slot: int
    generation: int
    seq: int
    distributor_id: str
    month: int
    starts_ms: int
    ends_ms: int
    opening_minor: int
    available_minor: int
    reversed_minor: int
    withdrawn_minor: int
    restored_minor: int
    closing_minor: int
    moved_minor: int
    entry_count: int
    made_ms: int
    updated_ms: int


class WithdrawalRow(NamedTuple):
    """Of `withdrawals`."""

    slot: int
    generation: int
    seq: int
    withdrawal_id: str
    distributor_id: str
    amount_minor: int
    from_settled_minor: int
    fingerprint: int
    state: int
    requested_ms: int
    changed_ms: int
    reference: str
    updated_ms: int


class ProfileRow(NamedTuple):
    """Of `risk_profiles`."""

    slot: int
    generation: int
    seq: int
    buyer_id: str
    rested: int
    whole_ms: int
    failures_json: str
    frozen_until_ms: int
    frozen_as_of_ms: int
    cause: int
    caller: str
    reason: str
    told_as_of_ms: int
    updated_ms: int


TABLES: dict[type[Any], str] = {
    RateRow: "commission_rates",
    DistributorRow: "distributors",
    BondRow: "bonds",
    OrderRow: "commission_orders",
    EntryRow: "commission_entries",
    StatementRow: "statements",
    WithdrawalRow: "withdrawals",
    ProfileRow: "risk_profiles",
}


def put_profile(slot: s.SlotState, row: ProfileRow) -> None:
    """A buyer's conduct, unless it left memory."""
    if row.rested:
        return
    profile = Profile()
    profile.whole_ms = row.whole_ms
    profile.failures = tuple(json.loads(row.failures_json or "[]"))
    profile.frozen_until_ms = row.frozen_until_ms
    profile.frozen_as_of_ms = row.frozen_as_of_ms
    profile.cause, profile.caller, profile.reason = row.cause, row.caller, row.reason
    profile.told_as_of_ms = row.told_as_of_ms
    profile.seq = row.seq
    slot.profiles.put(row.buyer_id, profile)


class Accounts:
    """The programme, while its rows are read."""

    def __init__(self, differ: Differ, recall_after_ms: int) -> None:
        self._differ = differ
        self._recall_after_ms = recall_after_ms
        self._programmes: dict[int, c.Programme] = {}
        self._bonds: dict[str, list[BondRow]] = {}
        self._boards: dict[str, dict[int, list[int]]] = {}
        """Distributor -> month -> [buyers bound, sales]."""
        self._left: Counter[tuple[str, int]] = Counter()
        """(Reservation, level) -> what is left of it by the entries, of orders in memory."""
        self._left_in_sql = 0
        """What is left of the other orders by their rows, less what is by their entries."""
        self._months: dict[tuple[str, int], c.Sums] = {}
        self._newest: list[tuple[int, tuple[Any, ...]]] = []
        """A heap of the newest entries."""
        self._entry_max = 0
        self._statements: dict[str, list[StatementRow]] = {}

    def put_rates(self, state: s.ShardState, slot: s.SlotState, row: RateRow) -> None:
        """A version of the rates."""
        config = programme_config(json.loads(row.config_json))
        version = c.Version(row.version, row.from_ms, config, row.seq)
        self._programme(state, slot).rates.put(c.version_key(row.version), version)

    def put_distributor(self, state: s.ShardState, slot: s.SlotState, row: DistributorRow) -> None:
        """A distributor without its money."""
        held = c.Distributor()
        held.state = row.state
        held.share_code = row.share_code
        held.applied_ms, held.changed_ms = row.applied_ms, row.changed_ms
        held.held_until_ms = row.held_until_ms
        held.held_as_of_ms = row.held_as_of_ms
        held.seq = row.seq
        self._programme(state, slot).distributors.put(row.distributor_id, held)

    def put_bond(self, state: s.ShardState, slot: s.SlotState, row: BondRow) -> None:
        """A binding. Those of a buyer are put together at the end."""
        self._bonds.setdefault(row.buyer_id, []).append(row)
        held = self._distributor(self._programme(state, slot), row.distributor_id, row.seq)
        if held is not None and row.invited:
            held.invited += 1
            self._count(row.distributor_id, row.month, 1, 0)

    def put_order(self, state: s.ShardState, slot: s.SlotState, row: OrderRow) -> None:
        """An order, with all of what it earned at first."""
        key = c.order_key(row.reservation_id)
        if key is None:
            self._differ(f"commission order {row.reservation_id!r} is no reservation")
            return
        programme = self._programme(state, slot)
        order = c.Order()
        order.base_minor = row.base_minor
        order.quantity = row.quantity
        order.returned = row.returned_quantity
        order.referrer_id = row.referrer_id
        order.version = row.version
        order.month = row.month
        order.earned_ms, order.matures_ms = row.earned_ms, row.matures_ms
        order.delivered = row.delivered > 0
        order.seq = row.seq
        order.earnings = tuple(
            [earning for level in LEVELS if (earning := _earning(row, level)) is not None]
        )
        if order.open() or row.matures_ms > state.now_ms - self._recall_after_ms:
            programme.orders.put(key, order)
        else:
            _forget(slot, key)
            programme.forgotten_ms = max(programme.forgotten_ms, row.earned_ms)
            self._left_in_sql += sum(_left(row, earning) for earning in order.earnings)
        # The order's own changes are not all about who brought it.
        held = self._distributor(programme, row.referrer_id, 0)
        if held is not None and row.quantity:
            held.orders += 1
            sales = row.base_minor * (row.quantity - row.returned_quantity) // row.quantity
            held.sales_minor += sales
            self._count(row.referrer_id, row.month, 0, sales)

    def put_entry(self, state: s.ShardState, slot: s.SlotState, row: EntryRow) -> None:
        """An entry of the ledger."""
        amounts: tuple[int, ...] = row[_AMOUNTS]  # type: ignore[assignment]
        if sum(amounts):
            self._differ(f"ledger entry {row.entry_id} does not sum to 0")
        programme = self._programme(state, slot)
        programme.entry_count += 1
        self._entry_max = max(self._entry_max, row.entry_id)
        held = self._distributor(programme, row.distributor_id, row.seq)
        for at, amount in enumerate(amounts):
            programme.sums[at] += amount
            if held is not None:
                held.balances[at] += amount
        if row.event in (r.ACCRUED, r.REVERSED):
            if (c.order_key(row.reservation_id) or b"") in programme.orders:
                self._left[row.reservation_id, row.level] -= row.expense_minor
            else:
                self._left_in_sql += row.expense_minor
        self._count_in_month(row)
        about = row.withdrawal_id or row.reservation_id
        fields = (row.entry_id, row.event, row.distributor_id, about)
        recent = (row.at_ms, *fields, row.level, row.version, row.month, *amounts)
        heapq.heappush(self._newest, (row.entry_id, recent))
        if len(self._newest) > c.RECENT_MAX:
            heapq.heappop(self._newest)

    def _count_in_month(self, row: EntryRow) -> None:
        moved_minor = row.available_minor + row.settled_minor
        if not moved_minor:
            return
        sums = self._months.setdefault((row.distributor_id, row.month), c.Sums())
        sums.count += 1
        if row.event == r.BECAME_AVAILABLE:
            sums.available_minor += moved_minor
        elif row.event == r.REVERSED:
            sums.reversed_minor -= moved_minor
        elif row.event == r.WITHDRAWN:
            sums.withdrawn_minor -= moved_minor
        else:
            sums.restored_minor += moved_minor

    def put_statement(self, state: s.ShardState, slot: s.SlotState, row: StatementRow) -> None:
        """A statement. Those of a distributor are put together at the end."""
        self._distributor(self._programme(state, slot), row.distributor_id, row.seq)
        self._statements.setdefault(row.distributor_id, []).append(row)

    def put_withdrawal(self, state: s.ShardState, slot: s.SlotState, row: WithdrawalRow) -> None:
        """A withdrawal."""
        parsed = parse_account_id(row.withdrawal_id)
        if parsed is None:
            self._differ(f"withdrawal {row.withdrawal_id!r} is none")
            return
        held = c.Withdrawal()
        held.distributor_id = row.distributor_id
        held.amount_minor = row.amount_minor
        held.from_settled_minor = row.from_settled_minor
        held.fingerprint = row.fingerprint
        held.state = row.state
        held.requested_ms, held.changed_ms = row.requested_ms, row.changed_ms
        held.reference = row.reference
        held.seq = row.seq
        programme = self._programme(state, slot)
        before_ms = state.now_ms - self._recall_after_ms
        if row.state in c.FINISHED and row.changed_ms <= before_ms:
            _forget(slot, parsed[1])
        else:
            programme.withdrawals.put(parsed[1], held)
        distributor = self._distributor(programme, row.distributor_id, row.seq)
        if distributor is not None and row.state in (c.REQUESTED, c.APPROVED):
            distributor.open_withdrawals += 1

    def compare(self) -> None:
        """When all was read: put together what rows have in parts, and tell what does not fit."""
        if self._left_in_sql:
            self._differ(
                f"commission orders that stay in SQL have {self._left_in_sql} more than their "
                "entries come to"
            )
        for programme in self._programmes.values():
            self._put_bonds(programme)
            self._put_months(programme)
            programme.recent.extend(recent for _, recent in sorted(self._newest))
            if programme.entry_count != self._entry_max:
                self._differ(
                    f"ledger: {programme.entry_count} entries, the last is {self._entry_max}"
                )
            for key, order in programme.orders.items():
                self._put_left(c.reservation_of(key), order)
            for distributor_id, held in programme.distributors.items():
                self._put_board(distributor_id, held)
                for name, at in (("frozen", c.FROZEN_AT), ("available", c.AVAILABLE_AT)):
                    if held.balances[at] < 0:
                        self._differ(f"distributor {distributor_id}: {name} is below 0")

    def _put_bonds(self, programme: c.Programme) -> None:
        for buyer_id, rows in self._bonds.items():
            rows.sort(key=lambda row: row.from_ms)
            bonds = [c.Bond(row.from_ms, row.until_ms, row.distributor_id) for row in rows]
            seq = max(row.seq for row in rows)
            programme.bonds.put(buyer_id, c.Bonds(seq, tuple(bonds[-c.BONDS_MAX :])))

    def _put_months(self, programme: c.Programme) -> None:
        for distributor_id, rows in self._statements.items():
            rows.sort(key=lambda row: row.month)
            opening = 0
            for row in rows:
                self._compare_statement(row, opening)
                opening = row.closing_minor
            held = programme.distributors.get(distributor_id)
            if held is not None:
                made = [c.Statement(row.month, *row[5:16]) for row in rows]
                held.statements = tuple(made[-c.STATEMENTS_KEPT :])
                held.closing_minor, held.settled_through = rows[-1].closing_minor, rows[-1].month
        for (distributor_id, month), sums in self._months.items():
            held = programme.distributors.get(distributor_id)
            if held is not None:
                held.months[month] = sums

    def _compare_statement(self, row: StatementRow, opening: int) -> None:
        sums = self._months.pop((row.distributor_id, row.month), c.Sums())
        told = (
            row.available_minor,
            row.reversed_minor,
            row.withdrawn_minor,
            row.restored_minor,
            row.entry_count,
        )
        name = f"statement {row.month} of {row.distributor_id}"
        if told != sums.pack():
            self._differ(f"{name} says {told}, its entries {sums.pack()}")
        moved = told[0] - told[1] - told[2] + told[3]
        if (row.opening_minor, row.closing_minor) != (opening, opening + moved):
            self._differ(f"{name} does not follow the one before it")

    def _put_left(self, reservation_id: str, order: c.Order) -> None:
        for earning in order.earnings:
            left = self._left.pop((reservation_id, earning.level), 0)
            if not 0 <= left <= earning.full_minor:
                self._differ(
                    f"commission order {reservation_id}: level {earning.level} got "
                    f"{earning.full_minor}, its entries come to {left}"
                )
            earning.amount_minor = left

    def _put_board(self, distributor_id: str, held: c.Distributor) -> None:
        months = self._boards.get(distributor_id, {})
        newest = sorted(months)[-BOARD_MONTHS:]
        held.board = tuple((month, months[month][0], months[month][1]) for month in newest)

    def _count(self, distributor_id: str, month: int, invited: int, sales_minor: int) -> None:
        line = self._boards.setdefault(distributor_id, {}).setdefault(month, [0, 0])
        line[0] += invited
        line[1] += sales_minor

    def _programme(self, state: s.ShardState, slot: s.SlotState) -> c.Programme:
        programme = self._programmes[slot.slot] = state.programme(slot)
        if len(self._programmes) > 1:
            self._differ(f"slots {sorted(self._programmes)} have a programme each")
        return programme

    def _distributor(
        self, programme: c.Programme, distributor_id: str, seq: int
    ) -> c.Distributor | None:
        held = programme.distributors.get(distributor_id)
        if held is None:
            self._differ(f"distributor {distributor_id} has rows and is not there")
            return None
        held.seq = max(held.seq, seq)
        return held


def _forget(slot: s.SlotState, key: bytes) -> None:
    if slot.forgotten is None:
        slot.forgotten = Forgotten()
    slot.forgotten.add(key[: c.KEY_BYTES])


def _left(row: OrderRow, earning: c.Earning) -> int:
    return earning.full_minor * (row.quantity - row.returned_quantity) // row.quantity


def _earning(row: OrderRow, level: int) -> c.Earning | None:
    at = OrderRow._fields.index(f"level{level}_id")
    fields: Any = row[at : at + 4]
    distributor_id, rate_bps, full_minor, state = fields
    if not distributor_id:
        return None
    earning = c.Earning(level, distributor_id, rate_bps, full_minor)
    earning.state = state
    return earning
