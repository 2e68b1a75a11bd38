"""What can be asked about commission. Part of `commands.py`, whose rules hold here.

All of it goes to the programme's account slot. A distributor is a buyer: the two ids are the same.
Months are numbers like 202611, calendar months in the programme's time zone. Answers are said by
the functions that decide: `programme.py`, `paying_out.py`, `accounts.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.core.programme_config import ProgrammeConfig, programme_config

APPLY_DISTRIBUTOR, APPROVE_DISTRIBUTOR, BIND_REFERRER, PUT_RATES, GET_ACCOUNT = range(70, 75)
LIST_ENTRIES, SETTLE, REQUEST_WITHDRAWAL, REVIEW_WITHDRAWAL, GET_STATEMENT = range(75, 80)
GET_LEADERBOARD, GET_PROGRAMME, HOLD_DISTRIBUTOR, GET_REFERRER = range(80, 84)

READS = frozenset(
    {GET_ACCOUNT, LIST_ENTRIES, GET_STATEMENT, GET_LEADERBOARD, GET_PROGRAMME, GET_REFERRER}
)
"""Kinds that change nothing."""

APPROVE, REJECT, SUSPEND, RESUME = 1, 2, 3, 4
"""`act` of ApproveDistributor."""
WITHDRAWAL_APPROVE, WITHDRAWAL_REJECT, WITHDRAWAL_PAID, WITHDRAWAL_FAILED = 1, 2, 3, 4
"""`act` of ReviewWithdrawal."""
BOARD_INVITES, BOARD_SALES = 1, 2


class ApplyDistributor(NamedTuple):
    """A buyer asks to be a distributor; who is one already is answered as it stands."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    distributor_id: str
    reason: str = ""


class ApproveDistributor(NamedTuple):
    """An operator's act on a distributor: approve or reject an application, suspend, resume."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    distributor_id: str
    act: int
    reason: str = ""


class BindReferrer(NamedTuple):
    """From now on a buyer's orders pay the owner of a share code."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    buyer_id: str
    share_code: str
    new_buyer: bool = False
    """The caller's word that the buyer is new."""


class PutRates(NamedTuple):
    """A new version of the programme's rates and rules stands from now on."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    config: ProgrammeConfig
    reason: str = ""


class GetAccount(NamedTuple):
    """Read a distributor's state and balances."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    distributor_id: str


class ListEntries(NamedTuple):
    """Read a distributor's newest entries, newest first, from those that memory still has."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    distributor_id: str
    before: int = 0
    """Only entries of lower numbers; 0: from the newest on."""
    limit: int = 100


class Settle(NamedTuple):
    """Make the statements of a month that is over, as time does by itself a little later."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    month: int
    distributor_id: str = ""
    """'': of all distributors, as many as one step makes; ask again while there are more."""
    reason: str = ""


class RequestWithdrawal(NamedTuple):
    """A distributor wants money paid out."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    distributor_id: str
    amount_minor: int
    reason: str = ""


class ReviewWithdrawal(NamedTuple):
    """An operator approves or rejects a withdrawal, or reports that it was paid, or was not."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    withdrawal_key: bytes
    act: int
    reference: str = ""
    """Of the payment at whoever made it."""
    reason: str = ""


class GetStatement(NamedTuple):
    """Read a distributor's statement of a month."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    distributor_id: str
    month: int


class GetLeaderboard(NamedTuple):
    """Read the first of this or the last month by buyers bound or by sales."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    board: int
    month: int = 0
    """0: this one."""
    limit: int = 10


class GetProgramme(NamedTuple):
    """Read the programme: its version's rates and rules, and the sums of its ledger."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    version: int = 0
    """0: the newest."""


class HoldDistributor(NamedTuple):
    """What risk says: nothing of this distributor becomes available before `until_ms`; 0 ends it.
    Nothing for a buyer who is no distributor.

    `as_of_ms` is when that was decided in the buyer's slot, another instant for each change: a line
    without an id may come late, or twice, and what is known as of later stands."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    distributor_id: str
    until_ms: int
    as_of_ms: int
    reason: str = ""


class GetReferrer(NamedTuple):
    """Read who earns from an order that a buyer would have reserved at an instant."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    buyer_id: str
    at_ms: int = 0
    """0: now."""


class RecalledOrder(NamedTuple):
    """An order that earned, all of it available, as SQL has it: the row of a Recalled TakeFacts."""

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
    """By level: the fields of a Share, and its state."""


class RecalledWithdrawal(NamedTuple):
    """A finished withdrawal as SQL has it."""

    distributor_id: str
    amount_minor: int
    from_settled_minor: int
    fingerprint: int
    state: int
    requested_ms: int
    changed_ms: int
    reference: str


def _put_rates(fields: Sequence[Any]) -> PutRates:
    command = PutRates._make(fields)
    return command._replace(config=programme_config(command.config))


MAKE: dict[int, Callable[[Sequence[Any]], Any]] = {
    APPLY_DISTRIBUTOR: ApplyDistributor._make,
    APPROVE_DISTRIBUTOR: ApproveDistributor._make,
    BIND_REFERRER: BindReferrer._make,
    PUT_RATES: _put_rates,
    GET_ACCOUNT: GetAccount._make,
    LIST_ENTRIES: ListEntries._make,
    SETTLE: Settle._make,
    REQUEST_WITHDRAWAL: RequestWithdrawal._make,
    REVIEW_WITHDRAWAL: ReviewWithdrawal._make,
    GET_STATEMENT: GetStatement._make,
    GET_LEADERBOARD: GetLeaderboard._make,
    GET_PROGRAMME: GetProgramme._make,
    HOLD_DISTRIBUTOR: HoldDistributor._make,
    GET_REFERRER: GetReferrer._make,
}
"""See `commands.MAKE`."""
