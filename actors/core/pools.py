"""A pool: units counted by what they are doing, so that none is ever sold twice."""

from actors.core.records import Balance
from actors.core.tables import Counts
from actors.core.team_state import Group


class Pool:
    """Counted units. `total = available + reserved + sold + buffer + scheduled + in transit`."""

    __slots__ = (
        "available",
        "buffer",
        "buyers",
        "campaign_id",
        "counted_in",
        "forgotten_sold",
        "granted",
        "group",
        "in_transit",
        "limit_per_buyer",
        "list_price_minor",
        "owed",
        "reserved",
        "scheduled",
        "sku_id",
        "sold",
        "total",
        "unit_price_minor",
    )

    def __init__(self, campaign_id: str, sku_id: str) -> None:
        self.campaign_id = campaign_id
        self.sku_id = sku_id
        self.total = 0
        self.available = 0
        self.reserved = 0
        self.sold = 0
        self.forgotten_sold = 0
        """Of what is sold, the units of orders that left memory."""
        self.buffer = 0
        self.scheduled = 0
        self.in_transit = 0
        self.owed = 0
        """Units declared short that could not be taken yet; freed units pay it first."""
        self.granted = 0
        """Units that arrived by allocation, of the allocation that the campaign asks for."""
        self.list_price_minor = 0
        self.unit_price_minor = 0
        self.limit_per_buyer = 0
        self.buyers = Counts()
        """Units held and owned, by buyer. Of a campaign's pool always, limit or not, so that a
        limit that is put later need not count; of a base pool never, for it has none."""
        self.group: Group | None = None
        """Of a line that teams buy."""
        self.counted_in: tuple[Counts, ...] = ()
        """All tables in which a reservation of this pool counts."""

    def balance(self, slot: int, generation: int) -> Balance:
        """The pool as it stands."""
        return Balance(
            slot,
            generation,
            self.campaign_id,
            self.sku_id,
            self.total,
            self.available,
            self.reserved,
            self.sold,
            self.buffer,
            self.scheduled,
            self.in_transit,
            self.owed,
        )

    def broken_law(self) -> str:
        """'' if the conservation law holds, else what is wrong. A broken law ends the process."""
        parts = (
            self.available,
            self.reserved,
            self.sold,
            self.buffer,
            self.scheduled,
            self.in_transit,
        )
        if self.total == sum(parts) and min(parts) >= 0 and self.owed >= 0:
            return ""
        return (
            f"pool {self.campaign_id or '(base)'}/{self.sku_id}: total {self.total} is not "
            f"available + reserved + sold + buffer + scheduled + in transit = {parts}"
        )
