"""The state of a shard: plain slotted rows, kept by slot, changed only by `evolve`.

Every row of a slot can be found from the slot alone, so that a slot can move. Buyer context,
attribution and order ids are in the journal and SQL, not here: no rule of the shard reads them.
No row refers back to its owner, so the state has no cycles and the garbage collector can stay off.
"""

from collections.abc import Iterator

from actors.core.bloom import Forgotten
from actors.core.campaign_config import CampaignConfig
from actors.core.commission_state import Programme
from actors.core.pools import Pool
from actors.core.risk_state import Profile, RiskIndex
from actors.core.tables import Counts, Deadlines, Refusals, SplitDict
from actors.core.team_state import Team

RESERVED, CONFIRMED, EXPIRED, RELEASED, RETURNED, REVOKED = 1, 2, 3, 4, 5, 6
"""Reservation states, numbered as `stockray.v1.ReservationState`."""

TRANSITIONS = {
    RESERVED: (CONFIRMED, EXPIRED, RELEASED, REVOKED),
    CONFIRMED: (RETURNED, REVOKED),
    EXPIRED: (CONFIRMED,),
    RELEASED: (),
    RETURNED: (),
    REVOKED: (),
}
"""The state machine of a reservation as data; `evolve` raises on anything else."""

CAMPAIGN_ACTIVE, CAMPAIGN_PAUSED, CAMPAIGN_ENDED = 1, 2, 3
REFUND_DUE, REFUND_CLOSED = 1, 2
IN_TRANSIT, TRANSFER_ARRIVED, TRANSFER_TURNED_AWAY = 1, 2, 3

GENERATION = 1
"""A slot's generation: raised when the slot moves to another shard."""

ADVANCE_EVERY_MS = 250

REFUSAL_WINDOW_MS = 15_000
"""A call lives at most 10 s, so a duplicate of a refused request is never older than this."""


class Impossible(Exception):
    """A record that contradicts the state, or a broken invariant. Never caught, except to die."""


class Sku:
    """A SKU's description; its base pool carries price and balance."""

    __slots__ = (
        "attributes",
        "buffer_bps",
        "created_ms",
        "currency_code",
        "name",
        "payment_window_ms",
        "pool",
    )

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.name = ""
        self.attributes: dict[str, str] = {}
        self.buffer_bps = 0
        self.currency_code = ""
        self.payment_window_ms = 0
        self.created_ms = 0


class Campaign:
    """A campaign, its pools by SKU, and what each buyer holds and owns over all of them."""

    __slots__ = (
        "buyers",
        "config",
        "created_ms",
        "openers",
        "pools",
        "state",
        "updated_ms",
        "version",
    )

    def __init__(self, config: CampaignConfig) -> None:
        self.config = config
        self.state = CAMPAIGN_ACTIVE
        self.version = 0
        """Counts the changes of its content, from 1."""
        self.created_ms = 0
        self.updated_ms = 0
        """When its content, pause or end last changed."""
        self.pools: dict[str, Pool] = {}
        self.buyers = Counts()
        """Units held and owned by buyer, over all lines. The table of the only line, if it has no
        more than one: most campaigns count once."""
        self.openers = Counts()
        """Teams that are forming, by the buyer who opened them."""

    def link_counts(self) -> None:
        """Lines came: say in which tables each counts. The campaign's own table begins as a copy
        when it gets its second line."""
        pools = list(self.pools.values())
        if len(pools) == 1:
            self.buyers = pools[0].buyers
            pools[0].counted_in = (self.buyers,)
            return
        if any(pool.buyers is self.buyers for pool in pools):
            self.buyers = self.buyers.copy()
        for pool in pools:
            pool.counted_in = (pool.buyers, self.buyers)


class Payment:
    """A payment that took effect on a reservation. `refunded_minor` counts due and paid back."""

    __slots__ = ("amount_minor", "channel", "payment_id", "refunded_minor")

    def __init__(self, payment_id: str, channel: str, amount_minor: int) -> None:
        self.payment_id = payment_id
        self.channel = channel
        self.amount_minor = amount_minor
        self.refunded_minor = 0


class Reservation:
    """Units held or owned by a buyer. The key of its table is its request id, hashed."""

    __slots__ = (
        "begun",
        "buyer_id",
        "deadline_ms",
        "fingerprint",
        "first_deadline_ms",
        "key",
        "list_price_minor",
        "payable_minor",
        "payment",
        "pool",
        "quantity",
        "reserved_ms",
        "returned",
        "seq",
        "stage",
        "state",
        "touched_ms",
        "unit_price_minor",
    )

    key: bytes
    pool: Pool
    buyer_id: str
    quantity: int
    returned: int
    state: int
    stage: int
    """Fulfilment: 0 none, 1 shipped, 2 delivered, 3 completed."""
    fingerprint: int
    reserved_ms: int
    first_deadline_ms: int
    """As answered at reserve: a retry of the request must get the same answer."""
    deadline_ms: int
    """As it is now; differs from the first one after PaymentBegun."""
    begun: bool
    """A payment was begun: the deadline has moved and moves no more."""
    list_price_minor: int
    unit_price_minor: int
    payable_minor: int
    payment: Payment | None
    seq: int
    """Entry of the last change: a fuzzy snapshot is completed by it."""
    touched_ms: int
    """Journalled time of the last change."""


class Seat(Reservation):
    """A reservation that is a seat of a team: its units, and its place among the members."""

    __slots__ = ("joined_ms", "new_buyer", "settled_minor", "team_key")

    team_key: bytes
    """The team that it is of, or was of last."""
    new_buyer: bool
    """The caller's word at the time of joining."""
    joined_ms: int
    """When it was taken; of a seat that moved to another team, when it moved."""
    settled_minor: int
    """Paid back when the team formed: what was paid above the final price."""


class Refund:
    """Money owed back."""

    __slots__ = (
        "amount_minor",
        "attempts",
        "buyer_id",
        "channel",
        "compensation",
        "currency_code",
        "key",
        "last_report",
        "payment_id",
        "reason",
        "reservation_id",
        "seq",
        "state",
    )

    key: bytes
    reservation_id: str
    buyer_id: str
    payment_id: str
    channel: str
    amount_minor: int
    reason: int
    compensation: bool
    currency_code: str
    """That of its reservation, which may be forgotten; '' if there is none."""
    state: int
    attempts: int
    last_report: bytes
    """Request key of the last report, so that a resent report is not a second attempt."""
    seq: int


class Transfer:
    """Units on their way out of one of this slot's pools."""

    __slots__ = (
        "fingerprint",
        "from_campaign_id",
        "quantity",
        "sku_id",
        "state",
        "to_campaign_id",
    )

    def __init__(
        self,
        *,
        sku_id: str,
        from_campaign_id: str,
        to_campaign_id: str,
        quantity: int,
        fingerprint: int,
    ) -> None:
        self.sku_id = sku_id
        self.from_campaign_id = from_campaign_id
        self.to_campaign_id = to_campaign_id
        self.quantity = quantity
        self.fingerprint = fingerprint
        self.state = IN_TRANSIT


class SlotState:
    """All rows of one slot."""

    __slots__ = (
        "arrivals",
        "campaigns",
        "deadlines",
        "documents",
        "figures",
        "forgotten",
        "generation",
        "open_transfers",
        "payments",
        "profiles",
        "programme",
        "refunds",
        "refusals",
        "reservations",
        "skus",
        "slot",
        "team_deadlines",
        "teams",
        "transfers",
    )

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.generation = GENERATION
        self.skus: dict[str, Sku] = {}
        self.campaigns: dict[str, Campaign] = {}
        self.reservations: SplitDict[bytes, Reservation] = SplitDict()
        self.forgotten: Forgotten | None = None
        """Keys of reservations that left memory (and of those that came back); None before the
        first."""
        self.refusals = Refusals(REFUSAL_WINDOW_MS)
        self.deadlines = Deadlines()
        self.documents: SplitDict[bytes, int] = SplitDict()
        """Request keys of stock documents, returns and failed payments -> fingerprint; kept for
        ever."""
        self.figures: SplitDict[bytes, tuple[int, ...]] = SplitDict()
        """Request keys of receipts and shortages -> what was answered at first beside the pool;
        kept for ever."""
        self.payments: SplitDict[bytes, tuple[str, int, int]] = SplitDict()
        """Payment key -> (reservation id, amount, what became of it); kept for ever."""
        self.refunds: SplitDict[bytes, Refund] = SplitDict()
        self.transfers: SplitDict[bytes, Transfer] = SplitDict()
        self.open_transfers: set[bytes] = set()
        """Transfers whose end is not journalled here yet; a gateway finishes them."""
        self.teams: SplitDict[bytes, Team] = SplitDict()
        self.team_deadlines = Deadlines()
        """Of teams that are forming."""
        self.programme: Programme | None = None
        """Of the account slot that has it, from its first record on."""
        self.arrivals: SplitDict[bytes, bool] = SplitDict()
        """Transfer id -> arrived or turned away; kept for ever."""
        self.profiles: SplitDict[str, Profile] = SplitDict()
        """Of an account slot: risk profiles by buyer, of those who have one."""

    def pool(self, campaign_id: str, sku_id: str) -> Pool | None:
        """A campaign's pool of a SKU, or with campaign '' the SKU's base pool."""
        if not campaign_id:
            sku = self.skus.get(sku_id)
            return None if sku is None else sku.pool
        campaign = self.campaigns.get(campaign_id)
        return None if campaign is None else campaign.pools.get(sku_id)

    def pools(self) -> Iterator[Pool]:
        """All pools of the slot."""
        for sku in self.skus.values():
            yield sku.pool
        for campaign in self.campaigns.values():
            yield from campaign.pools.values()


Mark = tuple[str, int, int]
"""(incarnation, seq, index): how far an account shard has the facts of a stock shard's journal."""
NO_MARK: Mark = ("", 0, 0)


class Debt:
    """A pool's owing, from its first unit to its last: a new object each time it begins, so that
    who works on one knows when it is over."""

    __slots__ = ("slot",)

    def __init__(self, slot: int) -> None:
        self.slot = slot


class ShardState:
    """All slots that a shard owns, and where in the journal they stand."""

    __slots__ = (
        "advanced_ms",
        "archive",
        "archived_teams",
        "closing",
        "debtors",
        "forgets",
        "fuzzy",
        "now_ms",
        "programmes",
        "refusal_count",
        "refusal_count_max",
        "risk",
        "seq",
        "slots",
        "sources",
        "touched",
    )

    def __init__(self, *, refusal_count_max: int = 1_000_000) -> None:
        self.slots: dict[int, SlotState] = {}
        self.sources: dict[int, Mark] = {}
        """Of an account shard: stock shard -> how far its facts were taken."""
        self.seq = 0
        """Entry being folded, or last folded."""
        self.now_ms = 0
        """Journalled time: never goes back."""
        self.touched: dict[Pool, int] = {}
        """Pools that the open entry touched -> slot; in order, so balances are deterministic."""
        self.fuzzy: dict[tuple[str, int, bytes], int] | None = None
        """While a snapshot is being completed: (table, slot, key) of rows newer than its beginning
        -> seq. A request id is unique within its slot only, so the slot belongs to the key."""
        self.debtors: dict[Pool, Debt] = {}
        """Pools that owe units of a declared shortage."""
        self.closing: dict[tuple[int, str], None] = {}
        """(Slot, campaign) of campaigns that were ended with teams still forming."""
        self.programmes: dict[int, Programme] = {}
        """By slot: most shards have none."""
        self.forgets = False
        """A slot has forgotten reservations."""
        self.archive: dict[int, dict[bytes, Reservation]] | None = None
        """By slot and key, reservations as they were when they were forgotten. None: none are
        kept; for `verify`, which compares them with SQL."""
        self.archived_teams: dict[int, dict[bytes, Team]] = {}
        """By slot and key, teams as they were when they were forgotten, if `archive` is kept."""
        self.risk = RiskIndex()
        """Of an account shard: its profiles, counted."""
        self.refusal_count = 0
        self.refusal_count_max = refusal_count_max
        self.advanced_ms = 0

    def slot(self, number: int) -> SlotState:
        """The slot's state, made when first touched."""
        slot = self.slots.get(number)
        if slot is None:
            slot = self.slots[number] = SlotState(number)
        return slot

    def programme(self, slot: SlotState) -> Programme:
        """The slot's programme, made when first touched."""
        programme = slot.programme
        if programme is None:
            programme = slot.programme = self.programmes[slot.slot] = Programme()
        return programme

    def advance(self, now_ms: int) -> None:
        """Journalled time has come to `now_ms`: forget old refusals, a slice at a time."""
        if now_ms - self.advanced_ms < ADVANCE_EVERY_MS:
            return
        self.advanced_ms = now_ms
        count = 0
        for slot in self.slots.values():
            slot.refusals.advance(now_ms)
            count += len(slot.refusals)
        self.refusal_count = count
