"""What was decided on commission. Part of `records.py`, whose rules hold here.

Money moves only by the `entries` of a record. An entry is one line of the ledger: six signed
amounts, one per account, whose sum is 0; so every record sums to 0 by itself. `expense_minor` is
the programme's cost (what was earned is below 0 there) and `paid_out_minor` what has left it; the
other four say where a distributor's money is. Entries are numbered through the programme.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

DISTRIBUTOR_SET, BUYER_BOUND, RATES_PUT, ORDER_ACCRUED, ORDER_REVERSED = range(70, 75)
ORDER_MATURED, MATURITY_MOVED, DISTRIBUTOR_HELD, STATEMENT_MADE = range(75, 79)
WITHDRAWAL_REQUESTED, WITHDRAWAL_REVIEWED = 79, 80
ORDERS_FORGOTTEN, ORDER_RECALLED, WITHDRAWALS_FORGOTTEN, WITHDRAWAL_RECALLED = range(81, 85)

ACCRUED, REVERSED, BECAME_AVAILABLE, SETTLED = 1, 2, 3, 4
WITHDRAWN, WITHDRAWAL_RESTORED, PAID_OUT = 5, 6, 7
"""`event` of an entry, numbered as `stockray.v1.CommissionEvent`."""


class Entry(NamedTuple):
    """One line of the ledger."""

    number: int
    """From 1 on, through the programme."""
    event: int
    distributor_id: str
    about: str
    """Reservation id; of a withdrawal its public id; '' of a statement."""
    level: int
    """1 or 2 of what an order earned, else 0."""
    version: int
    """Of the rates by which it was earned, else 0."""
    month: int
    """In the programme's time zone, when it was decided."""
    expense_minor: int = 0
    frozen_minor: int = 0
    available_minor: int = 0
    settled_minor: int = 0
    withdrawing_minor: int = 0
    paid_out_minor: int = 0


AMOUNTS_FROM: Final = 7
"""Of Entry: from this field on, its amounts by account."""


class Share(NamedTuple):
    """What one level gets of an order."""

    level: int
    distributor_id: str
    rate_bps: int
    amount_minor: int


class DistributorSet(NamedTuple):
    """A distributor's state is this from now on."""

    kind: int
    slot: int
    distributor_id: str
    state: int
    share_code: str
    """'' until it is approved for the first time; then it stays."""
    caller: str
    reason: str
    applies: bool = False
    """It was none before."""


class BuyerBound(NamedTuple):
    """A buyer's orders from `from_ms` to `until_ms` pay this distributor."""

    kind: int
    slot: int
    buyer_id: str
    distributor_id: str
    share_code: str
    from_ms: int
    until_ms: int
    renewed: bool
    """The binding of `from_ms` was there: it lasts longer now."""
    invited: bool
    """It counts on the board of invitations: the buyer was never bound to this distributor."""
    month: int
    reservation_id: str
    """That carried the code, '' if it was given alone."""
    caller: str


class RatesPut(NamedTuple):
    """A version of rates and rules stands from now on."""

    kind: int
    slot: int
    version: int
    config: Any
    """A ProgrammeConfig."""
    caller: str
    reason: str


class OrderAccrued(NamedTuple):
    """What an order earned for whom. Also one that earned nothing, if a distributor brought it."""

    kind: int
    slot: int
    key: bytes
    reservation_id: str
    buyer_id: str
    referrer_id: str
    campaign_id: str
    sku_id: str
    quantity: int
    base_minor: int
    currency_code: str
    share_code: str
    """Of the referrer, whichever of its buyers' orders carried it."""
    version: int
    reserved_ms: int
    earned_ms: int
    matures_ms: int
    """What it earned becomes available then, unless the delivery moves it."""
    month: int
    shares: tuple[Share, ...]
    entries: tuple[Entry, ...]


class OrderReversed(NamedTuple):
    """Units came back: the shares are by now what the rest earns at the original version."""

    kind: int
    slot: int
    key: bytes
    reservation_id: str
    returned_total: int
    month: int
    referrer_id: str
    sales_minor: int
    """Of what was paid, what came back by this: the referrer's sales are less by it."""
    sales_month: int
    """On whose board they counted."""
    left_minor: tuple[int, ...]
    """Of each share, in the order of the levels."""
    entries: tuple[Entry, ...]


class OrderMatured(NamedTuple):
    """The freeze of these levels' shares is over. Those whose distributor is held or suspended
    wait until that is over, too."""

    kind: int
    slot: int
    key: bytes
    reservation_id: str
    available: tuple[int, ...]
    waiting: tuple[int, ...]
    entries: tuple[Entry, ...]


class MaturityMoved(NamedTuple):
    """The delivery was reported: the freeze counts from it."""

    kind: int
    slot: int
    key: bytes
    reservation_id: str
    matures_ms: int


class DistributorHeld(NamedTuple):
    """Nothing of this distributor becomes available before `until_ms`; 0: it is not held. That is
    what risk had decided at `as_of_ms`."""

    kind: int
    slot: int
    distributor_id: str
    until_ms: int
    caller: str
    reason: str
    as_of_ms: int


class StatementMade(NamedTuple):
    """A distributor's month is closed: opening + available - reversed - withdrawn + restored =
    closing, each the sum of the month's entries over what is available and settled."""

    kind: int
    slot: int
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
    """From available to settled, by the entry of this record."""
    entry_count: int
    """Entries of the month that it lists."""
    currency_code: str
    caller: str
    """'' if it was made by the shard itself."""
    reason: str
    entries: tuple[Entry, ...]


class WithdrawalRequested(NamedTuple):
    """Money is on its way out, `from_settled_minor` of it from what is settled."""

    kind: int
    slot: int
    key: bytes
    request_id: str
    fingerprint: int
    distributor_id: str
    amount_minor: int
    from_settled_minor: int
    currency_code: str
    caller: str
    reason: str
    entries: tuple[Entry, ...]


class WithdrawalReviewed(NamedTuple):
    """A withdrawal's state is this from now on; a rejected or failed one gave its money back."""

    kind: int
    slot: int
    key: bytes
    distributor_id: str
    state: int
    reference: str
    caller: str
    reason: str
    entries: tuple[Entry, ...]


class OrdersForgotten(NamedTuple):
    """Orders of which all is available left memory; SQL has them."""

    kind: int
    slot: int
    keys: tuple[bytes, ...]
    earned_ms: int
    """None of them earned later."""


class OrderRecalled(NamedTuple):
    """A forgotten order is back, as SQL had it: nobody changed it meanwhile."""

    kind: int
    slot: int
    key: bytes
    reservation_id: str
    referrer_id: str
    quantity: int
    returned: int
    base_minor: int
    version: int
    month: int
    earned_ms: int
    matures_ms: int
    delivered: bool
    shares: tuple[Any, ...]
    """What each level got at first, as fields of a Share."""


class WithdrawalsForgotten(NamedTuple):
    """Withdrawals that are finished left memory; SQL has them."""

    kind: int
    slot: int
    keys: tuple[bytes, ...]


class WithdrawalRecalled(NamedTuple):
    """A forgotten withdrawal is back, as SQL had it."""

    kind: int
    slot: int
    key: bytes
    distributor_id: str
    amount_minor: int
    from_settled_minor: int
    fingerprint: int
    state: int
    requested_ms: int
    changed_ms: int
    reference: str


RECORDS: dict[int, Callable[..., Any]] = {
    DISTRIBUTOR_SET: DistributorSet,
    BUYER_BOUND: BuyerBound,
    RATES_PUT: RatesPut,
    ORDER_ACCRUED: OrderAccrued,
    ORDER_REVERSED: OrderReversed,
    ORDER_MATURED: OrderMatured,
    MATURITY_MOVED: MaturityMoved,
    DISTRIBUTOR_HELD: DistributorHeld,
    STATEMENT_MADE: StatementMade,
    WITHDRAWAL_REQUESTED: WithdrawalRequested,
    WITHDRAWAL_REVIEWED: WithdrawalReviewed,
    ORDERS_FORGOTTEN: OrdersForgotten,
    ORDER_RECALLED: OrderRecalled,
    WITHDRAWALS_FORGOTTEN: WithdrawalsForgotten,
    WITHDRAWAL_RECALLED: WithdrawalRecalled,
}
"""See `records.RECORDS`."""
