"""What can be asked of a shard: one NamedTuple per command, imperative names.

They travel as plain arrays (`actors/rounds.py`), so the order of fields is the wire format between
gateways and shards; add fields at the end, with a default. The first four fields are common:
`kind`, `slot` (of the command's key), `deadline_ms` (past it the line is answered RETRY undecided)
and `caller` (request ids are unique within a caller and slot). Lengths and ranges were checked by
the gateway. Tuples and not dataclasses: one line costs 0.2 us to build instead of 1.1.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from actors.core.campaign_config import CampaignConfig, campaign_config
from actors.core.commission_commands import MAKE as COMMISSION_COMMANDS
from actors.core.relay_commands import MAKE as RELAY_COMMANDS
from actors.core.relay_commands import TAKE_FACTS, fact_slots
from actors.core.risk_commands import MAKE as RISK_COMMANDS
from actors.core.risk_state import SCORE_MAX
from actors.core.team_commands import MAKE as TEAM_COMMANDS

RESERVE, CONFIRM, RELEASE, BEGIN_PAYMENT, REPORT_FAILED_PAYMENT = 1, 2, 3, 4, 5
RETURN_UNITS, REPORT_FULFILMENT, REPORT_REFUND, GET_RESERVATION, GET_STOCK = 6, 7, 8, 9, 10
PUT_SKU, RECEIVE_STOCK, ADJUST_STOCK, SET_BUFFER = 20, 21, 22, 23
TRANSFER_OUT, TRANSFER_IN, TRANSFER_DONE, DECLARE_SHORTAGE = 24, 25, 26, 27
PUT_CAMPAIGN, SET_CAMPAIGN_STATE, GET_CAMPAIGN = 30, 31, 32
RECALLED = 40

RESTOCK_AVAILABLE, RESTOCK_SCHEDULED, RESTOCK_WRITE_OFF = 1, 2, 3
"""Where returned units go: `restock` of ReturnUnits."""

DEFAULT_PAYABLE = -1
"""`payable_minor` of a Reserve that leaves the price to the pool: unit price x quantity."""


class Reserve(NamedTuple):
    """Hold units of a campaign's line, or of a base pool when `campaign_id` is empty."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    campaign_id: str
    sku_id: str
    quantity: int
    buyer_id: str
    payable_minor: int = DEFAULT_PAYABLE
    order_id: str = ""
    device_id: str = ""
    ip: str = ""
    claims: tuple[str, ...] = ()
    share_code: str = ""
    channel: str = ""
    experiment: str = ""
    score: int = SCORE_MAX
    """Of the buyer's conduct, as its gateway knows it; UNKNOWN_SCORE if it knows too little."""


class Confirm(NamedTuple):
    """A payment succeeded. Keeps the unit, or records what is owed back; never refuses money."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    reservation_id: str
    payment_id: str
    paid_minor: int
    payment_channel: str = ""


class Release(NamedTuple):
    """The buyer gave it up before paying."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    reservation_id: str
    reason: str = ""


class BeginPayment(NamedTuple):
    """The buyer is at the cashier: the deadline moves, once, to a full payment window from now."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    reservation_id: str
    payment_id: str
    payment_channel: str = ""


class ReportFailedPayment(NamedTuple):
    """An attempt to pay failed. Recorded; changes neither unit nor deadline."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    reservation_id: str
    payment_id: str
    paid_minor: int
    payment_channel: str = ""


class ReturnUnits(NamedTuple):
    """Confirmed units come back; their share of what was paid becomes a refund due."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    reservation_id: str
    quantity: int
    restock: int
    reason: str = ""


class ReportFulfilment(NamedTuple):
    """Shipped (1), delivered (2) or completed (3), at `at_ms`; stages only rise."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    reservation_id: str
    stage: int
    at_ms: int


class ReportRefund(NamedTuple):
    """The caller paid a refund back, or failed to."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    refund_id: str
    succeeded: bool
    request_id: str
    reference: str = ""


class GetReservation(NamedTuple):
    """Read one reservation."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    reservation_id: str


class GetStock(NamedTuple):
    """Read one pool's balance, and `with_sku` the SKU's description, if it is the base pool."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    campaign_id: str
    sku_id: str
    with_sku: bool = False


class PutSku(NamedTuple):
    """Make a SKU and its base pool, or change its description, price or buffer rate."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    sku_id: str
    name: str
    attributes: dict[str, str]
    buffer_bps: int
    price_minor: int
    currency_code: str
    payment_window_ms: int
    reason: str = ""


class ReceiveStock(NamedTuple):
    """Units arrived with a supply document, whose id is the request id, kept for ever."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    sku_id: str
    quantity: int
    reason: str = ""


class AdjustStock(NamedTuple):
    """Correct a pool's total, and its available units with it, by a signed amount."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    campaign_id: str
    sku_id: str
    delta: int
    reason: str = ""


class SetBuffer(NamedTuple):
    """Keep back exactly `buffer` units of a base pool, from or to its available ones."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    sku_id: str
    buffer: int
    reason: str = ""


class TransferOut(NamedTuple):
    """Units leave a pool for another slot's pool of the same SKU. First of three steps."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    sku_id: str
    from_campaign_id: str
    to_campaign_id: str
    quantity: int
    reason: str = ""


class TransferIn(NamedTuple):
    """They arrive, or are turned away; either way for ever. Second step."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    transfer_id: bytes
    sku_id: str
    to_campaign_id: str
    quantity: int


class TransferDone(NamedTuple):
    """The source learns how it ended, and books the units off or takes them back. Third step."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    transfer_id: bytes
    arrived: bool


class DeclareShortage(NamedTuple):
    """`quantity` units of a pool are not there after all."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    request_id: str
    campaign_id: str
    sku_id: str
    quantity: int
    reason: str
    dry_run: bool


class PutCampaign(NamedTuple):
    """Make or change a campaign. Its units are allocated by transfers that follow."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    campaign_id: str
    config: CampaignConfig
    reason: str = ""


class SetCampaignState(NamedTuple):
    """Pause, resume or end a campaign at this instant."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    campaign_id: str
    state: int
    reason: str = ""


class GetCampaign(NamedTuple):
    """Read a campaign with the balances of its lines."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    campaign_id: str


class RecalledRow(NamedTuple):
    """A finished reservation as SQL has it."""

    campaign_id: str
    sku_id: str
    buyer_id: str
    quantity: int
    returned: int
    state: int
    stage: int
    fingerprint: int
    reserved_ms: int
    first_deadline_ms: int
    deadline_ms: int
    begun: bool
    list_price_minor: int
    unit_price_minor: int
    payable_minor: int
    payment_id: str
    """'' for one that was never paid."""
    payment_channel: str
    paid_minor: int
    team_id: str = ""
    """'' for one that is no seat."""
    new_buyer: bool = False
    settled_minor: int = 0
    """Of a seat: paid back when its team formed."""
    joined_ms: int = 0


class Recalled(NamedTuple):
    """A command that was answered RECALL, with the row of its reservation from SQL: the fields of
    a `RecalledRow`, or () if SQL has none."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    row: tuple[Any, ...]
    command: Any


def _put_campaign(fields: Sequence[Any]) -> PutCampaign:
    command = PutCampaign._make(fields)
    return command._replace(config=campaign_config(command.config))


def _recalled(fields: Sequence[Any]) -> Recalled:
    command = Recalled._make(fields)
    inner = MAKE[command.command[0]](command.command)
    if inner.kind == RECALLED or inner.slot != command.slot:
        raise ValueError("a recalled command is about one reservation of its slot")
    return command._replace(command=inner)


MAKE: dict[int, Callable[[Sequence[Any]], Any]] = {
    RESERVE: Reserve._make,
    CONFIRM: Confirm._make,
    RELEASE: Release._make,
    BEGIN_PAYMENT: BeginPayment._make,
    REPORT_FAILED_PAYMENT: ReportFailedPayment._make,
    RETURN_UNITS: ReturnUnits._make,
    REPORT_FULFILMENT: ReportFulfilment._make,
    REPORT_REFUND: ReportRefund._make,
    GET_RESERVATION: GetReservation._make,
    GET_STOCK: GetStock._make,
    PUT_SKU: PutSku._make,
    RECEIVE_STOCK: ReceiveStock._make,
    ADJUST_STOCK: AdjustStock._make,
    SET_BUFFER: SetBuffer._make,
    TRANSFER_OUT: TransferOut._make,
    TRANSFER_IN: TransferIn._make,
    TRANSFER_DONE: TransferDone._make,
    DECLARE_SHORTAGE: DeclareShortage._make,
    PUT_CAMPAIGN: _put_campaign,
    SET_CAMPAIGN_STATE: SetCampaignState._make,
    GET_CAMPAIGN: GetCampaign._make,
    RECALLED: _recalled,
    **TEAM_COMMANDS,
    **COMMISSION_COMMANDS,
    **RELAY_COMMANDS,
    **RISK_COMMANDS,
}
"""From a decoded array (its first item is the kind) to the command."""
OF_MANY_SLOTS = frozenset({RECALLED, TAKE_FACTS})


def slots_within(line: Sequence[Any]) -> set[int]:
    """The slots that an array of a kind among OF_MANY_SLOTS concerns beside the one it names."""
    command = line[5] if line[0] == RECALLED else line
    return fact_slots(command) if command[0] == TAKE_FACTS else set()
