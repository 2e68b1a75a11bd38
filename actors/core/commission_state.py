"""The commission programme as its account slot holds it.

Rows are found by the ids that they are about; a row never refers to another one, so each can stand
in a snapshot by itself. What can be counted over the rows (who waits for what, which months are
open, the graph upwards) is kept beside them and made anew by `recount` when a snapshot was loaded.

Balances are those of the ledger: per distributor the sum of all its entries by account, and
`Programme.sums` over all. Only `evolve_commission.py` changes any of it.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from actors.core.identity import parse_public_id, public_id
from actors.core.leaderboard import MONTHS_KEPT, Boards, Rank
from actors.core.programme_config import CampaignRate, ProgrammeConfig, SkuRate
from actors.core.tables import Deadlines, SplitDict

APPLIED, ACTIVE, REJECTED, SUSPENDED = 1, 2, 3, 4
"""States of a distributor, numbered as `stockray.v1.DistributorState`."""
REQUESTED, APPROVED, DECLINED, PAID, FAILED = 1, 2, 3, 4, 5
"""States of a withdrawal, numbered as `stockray.v1.WithdrawalState`."""
FROZEN, WAITING, AVAILABLE = 1, 2, 3
"""States of a share: its freeze runs; it is over, but the distributor is held; over."""
FINISHED = (DECLINED, PAID, FAILED)
"""States of a withdrawal that nothing leads out of."""
KEY_BYTES = 16
"""Of an order's key, what filters of forgotten keys take: the rest is the slot."""

DISTRIBUTORS_MAX = 200_000
BUYERS_MAX = 5_000_000
BONDS_MAX = 100
"""Bindings remembered of one buyer."""
BONDS_NEEDED_MS = 30 * 86_400_000
"""So long after its end a binding may still be asked for, by an order that was reserved under it
and is paid late; it is not given up for a newer one."""
STATEMENTS_KEPT = 6
"""Of one distributor, in memory; SQL has all."""
RECENT_MAX = 2_048
"""Newest entries kept in memory, of the whole programme; SQL has all."""
OPEN_WITHDRAWALS_MAX = 10
"""Of one distributor."""
FOR_EVER_MS = 1 << 60
INVITED_AT, SALES_AT = 1, 2
"""Places of the scores in a line of `Distributor.board`."""


class Sums:
    """What entries of one distributor and month came to, over available and settled together."""

    __slots__ = ("available_minor", "count", "restored_minor", "reversed_minor", "withdrawn_minor")

    def __init__(self) -> None:
        self.available_minor = self.reversed_minor = 0
        self.withdrawn_minor = self.restored_minor = 0
        self.count = 0

    def pack(self) -> tuple[int, ...]:
        """As a snapshot has it."""
        return (
            self.available_minor,
            self.reversed_minor,
            self.withdrawn_minor,
            self.restored_minor,
            self.count,
        )

    @classmethod
    def of(cls, packed: tuple[int, ...]) -> "Sums":
        """From what `pack` made."""
        sums = cls()
        (
            sums.available_minor,
            sums.reversed_minor,
            sums.withdrawn_minor,
            sums.restored_minor,
            sums.count,
        ) = packed
        return sums


class Statement(NamedTuple):
    """A closed month of a distributor."""

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


class Distributor:
    """A distributor, its balances, its months that are not closed, its newest statements."""

    __slots__ = (
        "applied_ms",
        "balances",
        "board",
        "changed_ms",
        "closing_minor",
        "held_as_of_ms",
        "held_until_ms",
        "invited",
        "months",
        "open_withdrawals",
        "orders",
        "sales_minor",
        "seq",
        "settled_through",
        "share_code",
        "state",
        "statements",
        "waiting",
    )

    def __init__(self) -> None:
        self.state = APPLIED
        self.share_code = ""
        self.applied_ms = self.changed_ms = 0
        self.held_until_ms = 0
        """By risk; 0: not held."""
        self.held_as_of_ms = 0
        """When risk decided that; 0: it never told anything."""
        self.balances = [0] * 6
        """By account, in the order of an entry's amounts."""
        self.months: dict[int, Sums] = {}
        """Months that have no statement yet."""
        self.closing_minor = 0
        """Of the newest statement."""
        self.settled_through = 0
        """Month of the newest statement."""
        self.statements: tuple[Statement, ...] = ()
        self.orders = 0
        """Orders of buyers bound to it, and what they paid, less what came back."""
        self.sales_minor = 0
        self.invited = 0
        self.board: tuple[tuple[int, int, int], ...] = ()
        """(Month, buyers bound, sales) of the two newest months with any."""
        self.open_withdrawals = 0
        self.seq = 0
        self.waiting: dict[bytes, None] = {}
        """Keys of orders with a share that waits for the end of a hold. Counted, not in a row."""

    def withdrawable_minor(self) -> int:
        """What may be paid out: below 0 it is a debt."""
        return self.balances[AVAILABLE_AT] + self.balances[SETTLED_AT]

    def held(self) -> bool:
        """Whether what matures waits. A hold lasts until the record of its end."""
        return self.state != ACTIVE or self.held_until_ms > 0


EXPENSE_AT, FROZEN_AT, AVAILABLE_AT, SETTLED_AT, WITHDRAWING_AT, PAID_OUT_AT = range(6)
"""Places in `Distributor.balances`."""


class Bond(NamedTuple):
    """A buyer's orders reserved from `from_ms` on, and before `until_ms` or the next bond, pay this
    distributor."""

    from_ms: int
    until_ms: int
    distributor_id: str


class Bonds(NamedTuple):
    """A buyer's bindings, oldest first."""

    seq: int
    bonds: tuple[Bond, ...]

    def at(self, at_ms: int) -> Bond | None:
        """The one in force at an instant."""
        for bond in reversed(self.bonds):
            if bond.from_ms <= at_ms:
                return bond if at_ms < bond.until_ms else None
        return None

    def full(self, at_ms: int) -> bool:
        """Whether another one, from an instant on, would push out one that may be needed."""
        if len(self.bonds) < BONDS_MAX:
            return False
        oldest, follower = self.bonds[:2]
        return at_ms < min(oldest.until_ms, follower.from_ms) + BONDS_NEEDED_MS

    def after(self, at_ms: int) -> Iterator[Bond]:
        """Those that are in force at some time after an instant, or at it."""
        for number, bond in enumerate(self.bonds):
            later = self.bonds[number + 1 : number + 2]
            end_ms = min([bond.until_ms, *(follower.from_ms for follower in later)])
            if end_ms > at_ms:
                yield bond


class Earning:
    """A share of an order: `amount_minor` of `full_minor` is left after returns."""

    __slots__ = ("amount_minor", "distributor_id", "full_minor", "level", "rate_bps", "state")

    def __init__(self, level: int, distributor_id: str, rate_bps: int, full_minor: int) -> None:
        self.level = level
        self.distributor_id = distributor_id
        self.rate_bps = rate_bps
        self.full_minor = full_minor
        self.amount_minor = full_minor
        self.state = FROZEN


class Order:
    """An order that a distributor brought. Its key is `order_key` of its reservation."""

    __slots__ = (
        "base_minor",
        "delivered",
        "earned_ms",
        "earnings",
        "matures_ms",
        "month",
        "quantity",
        "referrer_id",
        "returned",
        "seq",
        "version",
    )

    base_minor: int
    quantity: int
    returned: int
    referrer_id: str
    version: int
    month: int
    """On whose board its sales count."""
    earned_ms: int
    matures_ms: int
    delivered: bool
    """The freeze counts from the first report of the delivery."""
    earnings: tuple[Earning, ...]
    seq: int

    def frozen(self) -> bool:
        """Whether the freeze of some share still runs."""
        return any(earning.state == FROZEN for earning in self.earnings)

    def open(self) -> bool:
        """Whether some share is not available yet."""
        return any(earning.state != AVAILABLE for earning in self.earnings)


class Withdrawal:
    """Money on its way out, or what became of it."""

    __slots__ = (
        "amount_minor",
        "changed_ms",
        "distributor_id",
        "fingerprint",
        "from_settled_minor",
        "reference",
        "requested_ms",
        "seq",
        "state",
    )

    distributor_id: str
    amount_minor: int
    from_settled_minor: int
    fingerprint: int
    state: int
    requested_ms: int
    changed_ms: int
    reference: str
    seq: int


class Version:
    """Rates and rules as they stand from an instant on."""

    __slots__ = ("campaigns", "config", "from_ms", "number", "seq", "skus")

    def __init__(self, number: int, from_ms: int, config: ProgrammeConfig, seq: int) -> None:
        self.number = number
        self.from_ms = from_ms
        self.config = config
        self.seq = seq
        self.skus = {rate.sku_id: rate for rate in config.skus}
        self.campaigns = {rate.campaign_id: rate for rate in config.campaigns}

    def rates(self, campaign_id: str, sku_id: str) -> tuple[int, int, int]:
        """(Level 1, level 2, margin of a unit or -1): the SKU's, else the campaign's, else the
        default."""
        sku: SkuRate | None = self.skus.get(sku_id)
        if sku is not None:
            return sku.level1_bps, sku.level2_bps, sku.margin_minor
        campaign: CampaignRate | None = self.campaigns.get(campaign_id)
        if campaign is not None:
            return campaign.level1_bps, campaign.level2_bps, -1
        return self.config.level1_bps, self.config.level2_bps, -1


class Programme:
    """All of the programme."""

    __slots__ = (
        "archived_orders",
        "archived_withdrawals",
        "boards",
        "bonds",
        "codes",
        "distributors",
        "entry_count",
        "forgotten_ms",
        "hold_ends",
        "maturing",
        "months",
        "orders",
        "rate_lines",
        "rates",
        "recent",
        "released",
        "starts",
        "sums",
        "versions",
        "withdrawals",
    )

    def __init__(self) -> None:
        self.distributors: SplitDict[str, Distributor] = SplitDict()
        self.bonds: SplitDict[str, Bonds] = SplitDict()
        """By buyer."""
        self.orders: SplitDict[bytes, Order] = SplitDict()
        self.withdrawals: SplitDict[bytes, Withdrawal] = SplitDict()
        """By request key."""
        self.forgotten_ms = 0
        """When the youngest order that left memory had earned; 0 before the first."""
        self.archived_orders: dict[bytes, Order] = {}
        """By key, as they were when they were forgotten, if `ShardState.archive` is kept."""
        self.archived_withdrawals: dict[bytes, Withdrawal] = {}
        """The same of withdrawals."""
        self.rates: SplitDict[bytes, Version] = SplitDict()
        """By `version_key`; kept for ever."""
        self.entry_count = 0
        self.sums = [0] * 6
        """Of all entries, by account: their sum is 0."""
        self.recent: deque[tuple[Any, ...]] = deque(maxlen=RECENT_MAX)
        """The newest entries, each with its instant before it."""
        # From here on: counted over the rows.
        self.codes: dict[str, str] = {}
        """Share code -> distributor."""
        self.versions: list[Version] = []
        self.starts: list[int] = []
        """Of the versions."""
        self.rate_lines = 0
        self.maturing = Deadlines()
        self.hold_ends = Deadlines()
        """Distributors' ids by the end of their hold."""
        self.released: dict[str, None] = {}
        """Distributors that are held no more, with shares that still wait."""
        self.months: dict[int, dict[str, None]] = {}
        """Open months -> distributors with entries in them."""
        self.boards = Boards()
        """The first of the newest months; a score's place is that in `Distributor.board`."""

    def version_at(self, at_ms: int) -> Version | None:
        """The version that stood at an instant; None before the first."""
        at = bisect_right(self.starts, at_ms)
        return self.versions[at - 1] if at else None

    def newest(self) -> Version | None:
        """The version that stands now."""
        return self.versions[-1] if self.versions else None


def order_key(reservation_id: str) -> bytes | None:
    """The key of an order's row, its first byte a hash; None if no id can look like this."""
    parsed = parse_public_id(reservation_id)
    return None if parsed is None else parsed[1] + parsed[0].to_bytes(2, "big")


def reservation_of(key: bytes) -> str:
    """The reservation id that `order_key` made a key of."""
    return public_id(int.from_bytes(key[16:], "big"), key[:16])


def version_key(number: int) -> bytes:
    """The key of a version's row."""
    return number.to_bytes(4, "big")


def recount(programme: Programme, now_ms: int) -> None:
    """Count what is kept beside the rows."""
    programme.codes = {}
    programme.versions = sorted(programme.rates.values(), key=lambda version: version.number)
    programme.starts = [version.from_ms for version in programme.versions]
    programme.rate_lines = sum(
        len(version.skus) + len(version.campaigns) for version in programme.versions
    )
    programme.maturing, programme.hold_ends = Deadlines(), Deadlines()
    programme.released, programme.months = {}, {}
    programme.boards = _boards(programme)
    for distributor_id, distributor in programme.distributors.items():
        distributor.waiting = {}
        if distributor.share_code:
            programme.codes[distributor.share_code] = distributor_id
        if distributor.held_until_ms:
            programme.hold_ends.add(distributor_id.encode(), distributor.held_until_ms, now_ms)
        for month in distributor.months:
            programme.months.setdefault(month, {})[distributor_id] = None
    for key, order in programme.orders.items():
        if order.frozen():
            programme.maturing.add(key, order.matures_ms, now_ms)
        for earning in order.earnings:
            if earning.state == WAITING:
                wait(programme, earning.distributor_id, key)


def _boards(programme: Programme) -> Boards:
    boards = Boards()
    parts = programme.distributors.parts
    months = {row[0] for part in parts for held in part.values() for row in held.board}
    for month in sorted(months)[-MONTHS_KEPT:]:
        for board in (INVITED_AT, SALES_AT):
            boards.set_up(month, board).recount(ranks(programme, month, board))
    return boards


def ranks(programme: Programme, month: int, board: int) -> list[Rank]:
    """All distributors that have a score on a board."""
    # Nested as it is, it takes half the time of a generator's.
    return [
        (-row[board], distributor_id)
        for part in programme.distributors.parts
        for distributor_id, held in part.items()
        for row in held.board
        if row[0] == month and row[board] > 0
    ]


def wait(programme: Programme, distributor_id: str, key: bytes) -> None:
    """A share of this order waits until its distributor is held no more."""
    distributor = programme.distributors.get(distributor_id)
    if distributor is None:
        return
    distributor.waiting[key] = None
    release(programme, distributor_id, distributor)


def release(programme: Programme, distributor_id: str, distributor: Distributor) -> None:
    """After any change: whether what waits for this distributor is to become available."""
    if distributor.waiting and not distributor.held():
        programme.released[distributor_id] = None
    else:
        programme.released.pop(distributor_id, None)
