"""The states of all shards as the SQL view has them, each at the view's position of its shard.

Rules
-----
* Nothing is decided here: what the rows say is what the state is. Where rows contradict each other
  (`Rebuilt.differences`), who recovers decides; a pool whose own parts do not add up is refused.
* Finished reservations untouched for `recall_after_ms` are not loaded but forgotten, as the shard
  itself would have done: callers who ask for one get it from SQL. So are orders and withdrawals of
  commission.
* Counts, deadlines and debts are not made: whoever loads the snapshot of such a state makes them.
* `recover_audit.py` says for each field of the state where it comes from, or that it is lost.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.core import state as s
from actors.core.bloom import Forgotten
from actors.core.pools import Pool
from actors.core.snapshot_rows import FILL, Filling
from actors.core.team_state import TEAM_FORMING
from actors.stock_rows import DOCUMENT_ARRIVAL
from persistence.sql.dump import View
from server.recover_accounts import (
    Accounts,
    BondRow,
    DistributorRow,
    EntryRow,
    OrderRow,
    ProfileRow,
    RateRow,
    StatementRow,
    WithdrawalRow,
    put_profile,
)
from server.recover_marks import MarkRow, put_mark
from server.recover_rows import (
    CampaignRow,
    DocumentRow,
    PaymentRow,
    PoolRow,
    RefundRow,
    ReservationRow,
    SkuRow,
    TransferRow,
    changed_ms,
    packed_refund,
    packed_reservation,
    put_campaign,
    put_document,
    put_payment,
    put_pool,
    put_sku,
    put_transfer,
    rows_of,
    time_of,
    units_held,
)
from server.recover_survey import CannotRecover
from server.recover_teams import SeatRow, TeamRow, Teams, packed_team
from server.recover_transfers import Arrival

DIFFERENCES_MAX = 20
"""So many are told by name; the rest is counted."""
ROWS_AT_ONCE = 1_000


@dataclass(slots=True)
class Rebuilt:
    """All shards' states, and what in the rows does not fit together."""

    states: list[s.ShardState]
    differences: list[str] = field(default_factory=list)
    difference_count: int = 0
    reservations: list[int] = field(default_factory=list)
    """By shard: rows of reservations, those that are not in memory too."""
    forgotten: list[int] = field(default_factory=list)
    """By shard: of these, the ones left to SQL."""
    arrivals: list[Arrival] = field(default_factory=list)
    """Transfers that arrived, of all shards."""
    sums: dict[Pool, list[int]] = field(default_factory=dict)
    """By pool, units that its reservations [hold, own]."""

    def differ(self, what: str) -> None:
        """Note a contradiction."""
        self.difference_count += 1
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(what)

    def settle(self) -> list[tuple[int, Pool]]:
        """Make pools count what reservations add up to, for rows that contradict each other. Units
        that a pool counts and nobody has stay sold: they may be somebody's whose row is lost. Units
        that somebody has and the pool does not count come out of what is available, and what is
        not available is owed. Answers the slots and pools that were changed."""
        changed = []
        for state in self.states:
            for slot in state.slots.values():
                changed += [(slot.slot, pool) for pool in slot.pools() if self._settle(pool)]
        return changed

    def _settle(self, pool: Pool) -> bool:
        held, owned = self.sums.get(pool, [0, 0])
        surplus = [pool.reserved - held, pool.sold - owned]
        if surplus == [0, 0]:
            return False
        nobodys = sum(max(0, units) for units in surplus)
        pool.reserved, pool.sold = held, owned + nobodys
        pool.forgotten_sold += nobodys
        pool.available -= sum(max(0, -units) for units in surplus)
        if pool.available < 0:
            pool.owed -= pool.available
            pool.total -= pool.available
            pool.available = 0
        return True


def rebuild(
    view: View,
    *,
    slots_of: Sequence[int],
    seqs: Sequence[int],
    recall_after_ms: int,
    progress: Callable[[str, int], None] = lambda table, rows: None,
) -> Rebuilt:
    """Read the whole view. `seqs`: by shard, the entry that its rows reach to. `progress` is told
    (table, rows read so far) now and then. StorageError."""
    shards = max(slots_of) + 1
    rebuilt = Rebuilt([s.ShardState() for _ in range(shards)])
    rebuilt.reservations, rebuilt.forgotten = [0] * shards, [0] * shards
    for shard, state in enumerate(rebuilt.states):
        state.seq = seqs[shard]
    return _Rebuilding(view, slots_of, recall_after_ms, progress, rebuilt).run()


def _filling(state: s.ShardState) -> Filling:
    return Filling(state, state.seq, state.now_ms)


class _Rebuilding:
    """One run over the view."""

    def __init__(
        self,
        view: View,
        slots_of: Sequence[int],
        recall_after_ms: int,
        progress: Callable[[str, int], None],
        rebuilt: Rebuilt,
    ) -> None:
        self._view = view
        self._slots_of = slots_of
        self._recall_after_ms = recall_after_ms
        self._progress = progress
        self._rebuilt = rebuilt
        self._sums = rebuilt.sums
        self._teams = Teams(rebuilt.differ)
        self._accounts = Accounts(rebuilt.differ, recall_after_ms)

    def run(self) -> Rebuilt:
        """Everything. The order matters: pools need their SKUs, teams their pools and seats,
        reservations all of these."""
        self._each(SkuRow, lambda _, slot, row: put_sku(slot, row))
        self._each(CampaignRow, lambda _, slot, row: put_campaign(slot, row))
        self._each(PoolRow, self._pool)
        self._each(DocumentRow, self._document)
        self._each(PaymentRow, lambda _, slot, row: put_payment(slot, row))
        self._each(TransferRow, lambda _, slot, row: put_transfer(slot, row))
        self._each(RefundRow, self._refund)
        self._each(SeatRow, lambda _, __, row: self._teams.put_seat(row))
        self._each(TeamRow, self._team)
        self._each(ReservationRow, self._reservation)
        self._each(MarkRow, lambda state, _, row: put_mark(state, row))
        self._accounts_of_slots()
        self._teams.compare()
        for state in self._rebuilt.states:
            for slot in state.slots.values():
                self._compare_sums(slot)
        return self._rebuilt

    def _accounts_of_slots(self) -> None:
        """Distributors before all that is about them."""
        accounts = self._accounts
        self._each(RateRow, accounts.put_rates)
        self._each(DistributorRow, accounts.put_distributor)
        self._each(BondRow, accounts.put_bond)
        self._each(OrderRow, accounts.put_order)
        self._each(EntryRow, accounts.put_entry)
        self._each(StatementRow, accounts.put_statement)
        self._each(WithdrawalRow, accounts.put_withdrawal)
        self._each(ProfileRow, lambda _, slot, row: put_profile(slot, row))
        accounts.compare()

    def _each(self, kind: type[Any], put: Callable[[s.ShardState, s.SlotState, Any], None]) -> None:
        count = 0
        for row in rows_of(self._view, kind):
            shard = self._slots_of[row.slot]
            state = self._rebuilt.states[shard]
            if row.seq > state.seq:
                self._rebuilt.differ(
                    f"{kind.__name__} {row[3]} is of entry {row.seq}, beyond the position "
                    f"{state.seq} of shard {shard}"
                )
            state.now_ms = max(state.now_ms, time_of(row))
            put(state, state.slot(row.slot), row)
            count += 1
            if count % ROWS_AT_ONCE == 0:
                self._progress(kind.__name__, count)
        self._progress(kind.__name__, count)

    def _pool(self, _: s.ShardState, slot: s.SlotState, row: PoolRow) -> None:
        pool = slot.pool(row.campaign_id, row.sku_id)
        if pool is None:
            self._rebuilt.differ(f"pool {_name(row)} has no SKU or campaign line")
            return
        put_pool(pool, row)
        broken = pool.broken_law()
        if broken:
            raise CannotRecover(f"database: {broken}")

    def _document(self, _: s.ShardState, slot: s.SlotState, row: DocumentRow) -> None:
        put_document(slot, row)
        key = bytes.fromhex(row.request_id) if row.kind == DOCUMENT_ARRIVAL else b""
        if slot.arrivals.get(key):
            self._rebuilt.arrivals.append(Arrival(key, row.sku_id, row.campaign_id, row.quantity))

    def _refund(self, state: s.ShardState, slot: s.SlotState, row: RefundRow) -> None:
        FILL["refunds"](_filling(state), slot, (packed_refund(row),))

    def _team(self, state: s.ShardState, slot: s.SlotState, row: TeamRow) -> None:
        pool = slot.pool(row.campaign_id, row.sku_id)
        if pool is None or pool.group is None:
            self._rebuilt.differ(f"team {row.team_id} of no line that teams buy: {_name(row)}")
            return
        pool.group.opened += 1
        members = self._teams.members(row, pool.group.capacity)
        before_ms = state.now_ms - self._recall_after_ms
        ended = row.state != TEAM_FORMING and row.updated_ms <= before_ms
        if not (ended and self._is_over(state, slot, row.campaign_id)):
            FILL["teams"](_filling(state), slot, (packed_team(row, members),))

    def _reservation(self, state: s.ShardState, slot: s.SlotState, row: ReservationRow) -> None:
        shard = self._slots_of[row.slot]
        self._rebuilt.reservations[shard] += 1
        pool = slot.pool(row.campaign_id, row.sku_id)
        if pool is None:
            self._rebuilt.differ(f"reservation {row.reservation_id} of no pool: {_name(row)}")
            return
        units = units_held(row)
        sums = self._sums.setdefault(pool, [0, 0])
        sums[row.state != s.RESERVED] += units
        seat = self._teams.take_seat(row.reservation_id, row.buyer_id, row.state)
        packed = packed_reservation(row, seat)
        if self._may_go(state, slot, pool, row, seat):
            if slot.forgotten is None:
                slot.forgotten = Forgotten()
            slot.forgotten.add(packed[0])
            pool.forgotten_sold += units
            self._rebuilt.forgotten[shard] += 1
        else:
            FILL["reservations"](_filling(state), slot, (packed,))

    def _may_go(
        self,
        state: s.ShardState,
        slot: s.SlotState,
        pool: Pool,
        row: ReservationRow,
        seat: SeatRow | None,
    ) -> bool:
        """As `actors/core/forgetting.py` decides it."""
        before_ms = state.now_ms - self._recall_after_ms
        if row.state == s.RESERVED or changed_ms(row, seat) > before_ms:
            return False
        if seat is not None and self._teams.is_needed(seat, row.state):
            return False
        if not units_held(row):
            return True
        if pool.owed:
            return False
        return self._is_over(state, slot, pool.campaign_id)

    @staticmethod
    def _is_over(state: s.ShardState, slot: s.SlotState, campaign_id: str) -> bool:
        campaign = slot.campaigns.get(campaign_id)
        return (
            campaign is None
            or campaign.state == s.CAMPAIGN_ENDED
            or state.now_ms >= campaign.config.ends_ms
        )

    def _compare_sums(self, slot: s.SlotState) -> None:
        for pool in slot.pools():
            sums = self._sums.get(pool, [0, 0])
            if sums != [pool.reserved, pool.sold]:
                self._rebuilt.differ(
                    f"pool {_name(pool)} has [reserved, sold] {[pool.reserved, pool.sold]}, its "
                    f"reservations add up to {sums}"
                )


def _name(row: Any) -> str:
    return f"{row.campaign_id or '(base)'}/{row.sku_id}"


def counted(states: Iterable[s.ShardState]) -> dict[str, int]:
    """How much was rebuilt, by kind."""
    slots = [slot for state in states for slot in state.slots.values()]
    programmes = [slot.programme for slot in slots if slot.programme is not None]
    return {
        "skus": sum(len(slot.skus) for slot in slots),
        "campaigns": sum(len(slot.campaigns) for slot in slots),
        "reservations_in_memory": sum(len(slot.reservations) for slot in slots),
        "teams": sum(len(slot.teams) for slot in slots),
        "payments": sum(len(slot.payments) for slot in slots),
        "refunds": sum(len(slot.refunds) for slot in slots),
        "request_ids": sum(len(slot.documents) for slot in slots),
        "distributors": sum(len(one.distributors) for one in programmes),
        "commission_orders": sum(len(one.orders) for one in programmes),
        "ledger_entries": sum(one.entry_count for one in programmes),
        "withdrawals": sum(len(one.withdrawals) for one in programmes),
        "risk_profiles": sum(len(slot.profiles) for slot in slots),
        "transfers_under_way": sum(len(slot.open_transfers) for slot in slots),
    }
