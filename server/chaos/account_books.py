"""What journals say of commission and risk, kept by plain arithmetic: part of `books.py`.

Stock journals say what may earn and who failed to pay, account journals what came of it. Their
entries are read in no order between shards, so both sides are only collected here, and are held
against each other when all is read (`account_checks.py`). Nothing of the core's rules is used.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from actors.core import commission_records as cr
from actors.core import records as r
from actors.core import risk_records as k
from actors.core import team_records as t
from actors.core.commission_state import SUSPENDED
from actors.core.identity import public_id
from actors.core.programme_config import FULL_BPS, ProgrammeConfig, programme_config
from actors.core.relay_records import FACT_TAKEN, FactTaken
from actors.core.risk_state import FAILED_PAYMENT
from server.verify import Invariant

DELIVERED = 2
FAILURES, WITHIN_MS = 3, 300_000
"""So many failed payments within so long freeze a buyer."""


class Touch(NamedTuple):
    """A buyer met somebody's share code."""

    at_ms: int
    distributor_id: str
    place: int = 0
    """In the account journal, if the code was given alone."""


class Version(NamedTuple):
    """Rates that stand from then on."""

    from_ms: int
    config: ProgrammeConfig
    place: int
    """In the account journal."""


class Sold:
    """An order, as its stock shard's journal has it."""

    __slots__ = ("at_ms", "base_minor", "delivered_ms", "of", "returned", "seq", "shard")

    def __init__(self, of: "Reserved", base_minor: int, at_ms: int, place: tuple[int, int]) -> None:
        self.of = of
        self.base_minor = base_minor
        self.at_ms = at_ms
        self.shard, self.seq = place
        self.returned: list[int] = []
        """Units that were back after each return."""
        self.delivered_ms = 0


class Reserved(NamedTuple):
    """A reservation."""

    buyer_id: str
    campaign_id: str
    sku_id: str
    quantity: int
    at_ms: int
    is_seat: bool


class Share(NamedTuple):
    """What one level of an order earns."""

    level: int
    distributor_id: str
    amount_minor: int


class Earned:
    """An order, as the account journal has it."""

    __slots__ = ("accrued", "entries", "matured", "matures_ms", "moved_ms", "reversed")

    def __init__(self) -> None:
        self.accrued: list[cr.OrderAccrued] = []
        self.reversed: list[cr.OrderReversed] = []
        self.entries: Counter[tuple[int, int, str, int]] = Counter()
        """(Event, level, distributor, amount)."""
        self.matured: Counter[int] = Counter()
        """Level -> how often it became available."""
        self.matures_ms = 0
        self.moved_ms = 0
        """By a delivery: when the freeze ends then."""


class AccountBooks:
    """All that account shards do, and what it rests on."""

    def __init__(self) -> None:
        self.sold: dict[str, Sold] = {}
        self.earned: dict[str, Earned] = {}
        self.codes: dict[str, str] = {}
        """Share code -> distributor."""
        self.suspended: set[str] = set()
        self.versions: list[Version] = []
        self.carried: dict[str, list[tuple[int, str]]] = {}
        """Buyer -> (when, share code) of reservations that carried one."""
        self.bound: dict[str, list[Touch]] = {}
        """Buyer -> bindings by a code that was given alone."""
        self.states: dict[str, list[tuple[int, ...]]] = {}
        """Distributor -> its balances after each entry of the ledger."""
        self.failures: dict[str, list[int]] = {}
        """Reservation -> when each payment of it failed."""
        self.noted: dict[str, list[tuple[str, int]]] = {}
        """Buyer -> (reservation, when it was noted) of failed payments that its account knows."""
        self.frozen: dict[str, list[int]] = {}
        """Buyer -> causes of freezes."""
        self.ledger = Invariant()
        self.taken = 0
        """Marks: of facts that were taken, and over entries without any."""
        self.entry_count = 0
        self._reserved: dict[str, Reserved] = {}
        self._marks: dict[int, list[tuple[int, int]]] = {}
        """Source -> (its entry, place here) of marks, both rising. What facts did comes behind."""
        self._held: set[str] = set()
        self._place = self._now_ms = 0
        self._from: tuple[int, int] = (0, 0)

    def entry_begins(self, shard: int, seq: int, now_ms: int) -> None:
        """An entry's records follow."""
        self._now_ms, self._from = now_ms, (shard, seq)

    def take(self, record: Any) -> None:
        """A record of any shard."""
        keep = KEEPERS.get(record.kind)
        if keep is not None:
            self._place += 1
            keep(self, record)

    # What should be

    def referrers(self, sold: Sold) -> set[str]:
        """Who may earn from an order: whoever the buyer met first, by the time of its reservation.
        Several if instants are the same, or if it is not known what was decided first."""
        of = sold.of
        met = [
            Touch(at_ms, self.codes.get(code, ""))
            for at_ms, code in self.carried.get(of.buyer_id, ())
        ]
        met = [
            one
            for one in (*met, *self.bound.get(of.buyer_id, ()))
            if one.at_ms <= of.at_ms and self._may_bind(one.distributor_id, of.buyer_id)
        ]
        first_ms = min((one.at_ms for one in met), default=0)
        firsts = [one for one in met if one.at_ms == first_ms]
        found = {one.distributor_id for one in firsts}
        late = [one for one in firsts if one.place and not self._before(one.place, sold)]
        if late and len(late) == len(firsts):
            # Bound by a clock that is behind, perhaps after the order had earned nothing.
            found |= {one.distributor_id for one in met if one not in late} or {""}
        return found or {""}

    def _may_bind(self, distributor_id: str, buyer_id: str) -> bool:
        return bool(distributor_id) and distributor_id not in self.suspended | {buyer_id}

    def _before(self, place: int, sold: Sold) -> bool:
        """Whether something was decided before the account shard can have heard of an order."""
        marks = self._marks.get(sold.shard, [])
        at = bisect_left(marks, (sold.seq, 0))
        return at == len(marks) or place < marks[at][1]

    def rates(self, sold: Sold) -> list[int]:
        """Which versions may be an order's: that of the time of its reservation. The one before,
        too, if it is not known what was decided first."""
        stood = [n for n, one in enumerate(self.versions, 1) if one.from_ms <= sold.of.at_ms]
        known = not stood or self._before(self.versions[stood[-1] - 1].place, sold)
        return stood[-1:] if known else stood[-2:]

    def shares(self, sold: Sold, referrer_id: str, version: int) -> list[Share]:
        """What each level earns of an order by a version of the rates."""
        of = sold.of
        level_bps, most_minor = _rate_of(self.versions[version - 1].config, of, sold.base_minor)
        above = {""}
        if referrer_id not in self.suspended:
            above = {one.distributor_id for one in self.bound.get(referrer_id, ())} or {""}
        names = (referrer_id, *above)
        found = []
        for level, (name, bps) in enumerate(zip(names, level_bps, strict=False), 1):
            amount_minor = min(sold.base_minor * bps // FULL_BPS, most_minor)
            if name and name != of.buyer_id and amount_minor:
                found.append(Share(level, name, amount_minor))
                most_minor -= amount_minor
        return found

    def freeze_ends_ms(self, sold: Sold, version: int, *, delivered: bool) -> int:
        """When what an order earned may become available."""
        config = self.versions[version - 1].config
        from_ms = sold.delivered_ms if delivered else sold.at_ms
        return min(from_ms + config.freeze_ms, sold.at_ms + config.freeze_max_ms)

    def must_freeze(self, buyer_id: str) -> bool:
        """Whether three failed payments lie within five minutes."""
        nth: Counter[str] = Counter()
        times = []
        for name, noted_ms in self.noted.get(buyer_id, ()):
            times.append(min([noted_ms, *self.failures.get(name, [])[nth[name] :][:1]]))
            nth[name] += 1
        times.sort()
        pairs = zip(times, times[FAILURES - 1 :], strict=False)
        return any(third - first <= WITHIN_MS for first, third in pairs)

    # Records of stock shards

    def _reserves(self, record: r.StockReserved | t.SeatTaken) -> None:
        name = public_id(record.slot, record.key)
        self._reserved[name] = Reserved(
            record.buyer_id,
            record.campaign_id,
            record.sku_id,
            record.quantity,
            self._now_ms,
            isinstance(record, t.SeatTaken),
        )
        if record.share_code:
            met = self.carried.setdefault(record.buyer_id, [])
            met.append((self._now_ms, record.share_code))

    def _confirmed(self, record: r.ReservationConfirmed) -> None:
        name = public_id(record.slot, record.key)
        of = self._reserved.get(name)
        if of is not None and not of.is_seat:
            self.sold[name] = Sold(of, record.paid_minor, self._now_ms, self._from)

    def _settled(self, record: t.SeatSettled) -> None:
        name = public_id(record.slot, record.key)
        of = self._reserved.get(name)
        if of is not None:
            self.sold[name] = Sold(of, record.final_minor, self._now_ms, self._from)

    def _returned(self, record: r.UnitsReturned) -> None:
        sold = self.sold.get(public_id(record.slot, record.key))
        if sold is not None:
            sold.returned.append(record.returned_total)

    def _delivered(self, record: r.FulfilmentReported) -> None:
        sold = self.sold.get(public_id(record.slot, record.key))
        if sold is not None and record.stage >= DELIVERED and not sold.delivered_ms:
            sold.delivered_ms = self._now_ms

    def _failed(self, record: r.PaymentFailed) -> None:
        name = public_id(record.slot, record.key)
        self.failures.setdefault(name, []).append(self._now_ms)

    # Records of account shards

    def _mark(self, record: FactTaken) -> None:
        self.taken += 1
        marks = self._marks.setdefault(record.source, [])
        marks.append((record.source_seq, self._place))

    def _distributor(self, record: cr.DistributorSet) -> None:
        if record.share_code:
            self.codes[record.share_code] = record.distributor_id
        if record.state == SUSPENDED:
            self.suspended.add(record.distributor_id)

    def _rates(self, record: cr.RatesPut) -> None:
        config = programme_config(record.config)
        self.versions.append(Version(self._now_ms, config, self._place))

    def _bound(self, record: cr.BuyerBound) -> None:
        if not record.reservation_id:
            touch = Touch(record.from_ms, record.distributor_id, self._place)
            self.bound.setdefault(record.buyer_id, []).append(touch)

    def _holds(self, record: cr.DistributorHeld) -> None:
        change = self._held.add if record.until_ms else self._held.discard
        change(record.distributor_id)

    def _of(self, name: str) -> Earned:
        return self.earned.setdefault(name, Earned())

    def _accrued(self, record: cr.OrderAccrued) -> None:
        earned = self._of(record.reservation_id)
        earned.accrued.append(record)
        earned.matures_ms = record.matures_ms
        self._post(record)

    def _turned_back(self, record: cr.OrderReversed) -> None:
        self._of(record.reservation_id).reversed.append(record)
        self._post(record)

    def _moved(self, record: cr.MaturityMoved) -> None:
        earned = self._of(record.reservation_id)
        earned.matures_ms = earned.moved_ms = record.matures_ms

    def _matured(self, record: cr.OrderMatured) -> None:
        earned, name = self._of(record.reservation_id), record.reservation_id
        self.ledger.check(
            self._now_ms >= earned.matures_ms,
            f"{name}: available at {self._now_ms}, its freeze ends at {earned.matures_ms}",
        )
        for level in record.available:
            earned.matured[level] += 1
            self.ledger.check(earned.matured[level] == 1, f"{name}: level {level} matures twice")
        for entry in _entries_of(record):
            self.ledger.check(
                entry.distributor_id not in self._held | self.suspended,
                f"{name}: {entry.distributor_id} is held, and its commission is available",
            )
        self._post(record)

    def _closes(self, record: Any) -> None:
        self._post(record)

    def _post(self, record: Any) -> None:
        """The ledger's entries of a record."""
        for entry in _entries_of(record):
            self.entry_count += 1
            amounts: tuple[Any, ...] = tuple(entry[cr.AMOUNTS_FROM :])
            self.ledger.check(
                entry.number == self.entry_count and not sum(amounts),
                f"entry {entry.number}, the {self.entry_count}th, comes to {sum(amounts)}",
            )
            states = self.states.setdefault(entry.distributor_id, [(0,) * len(amounts)])
            states.append(tuple(a + b for a, b in zip(states[-1], amounts, strict=True)))
            if entry.level:
                key = (entry.event, entry.level, entry.distributor_id, -amounts[0])
                self._of(entry.about).entries[key] += 1

    def _signalled(self, record: k.SignalNoted) -> None:
        if record.signal != FAILED_PAYMENT:
            return
        noted = self.noted.setdefault(record.buyer_id, [])
        noted.append((record.reservation_id, self._now_ms))

    def _freezes(self, record: k.BuyerFrozen) -> None:
        self.frozen.setdefault(record.buyer_id, []).append(record.cause)


def _entries_of(record: Any) -> list[cr.Entry]:
    """Those of the ledger, which a journal has as plain arrays."""
    return [cr.Entry(*fields) for fields in record.entries]


def _rate_of(config: ProgrammeConfig, of: Reserved, base_minor: int) -> tuple[tuple[int, int], int]:
    """The levels, and what they may have together."""
    for sku in config.skus:
        if sku.sku_id == of.sku_id:
            most = base_minor if sku.margin_minor < 0 else sku.margin_minor * of.quantity
            return (sku.level1_bps, sku.level2_bps), most
    for campaign in config.campaigns:
        if campaign.campaign_id == of.campaign_id:
            return (campaign.level1_bps, campaign.level2_bps), base_minor
    return (config.level1_bps, config.level2_bps), base_minor


KEEPERS: dict[int, Callable[[AccountBooks, Any], None]] = {
    r.STOCK_RESERVED: AccountBooks._reserves,
    t.SEAT_TAKEN: AccountBooks._reserves,
    r.RESERVATION_CONFIRMED: AccountBooks._confirmed,
    t.SEAT_SETTLED: AccountBooks._settled,
    r.UNITS_RETURNED: AccountBooks._returned,
    r.FULFILMENT_REPORTED: AccountBooks._delivered,
    r.PAYMENT_FAILED: AccountBooks._failed,
    FACT_TAKEN: AccountBooks._mark,
    cr.DISTRIBUTOR_SET: AccountBooks._distributor,
    cr.RATES_PUT: AccountBooks._rates,
    cr.BUYER_BOUND: AccountBooks._bound,
    cr.DISTRIBUTOR_HELD: AccountBooks._holds,
    cr.ORDER_ACCRUED: AccountBooks._accrued,
    cr.ORDER_REVERSED: AccountBooks._turned_back,
    cr.ORDER_MATURED: AccountBooks._matured,
    cr.MATURITY_MOVED: AccountBooks._moved,
    cr.STATEMENT_MADE: AccountBooks._closes,
    cr.WITHDRAWAL_REQUESTED: AccountBooks._closes,
    cr.WITHDRAWAL_REVIEWED: AccountBooks._closes,
    k.SIGNAL_NOTED: AccountBooks._signalled,
    k.BUYER_FROZEN: AccountBooks._freezes,
}
"""Kind of record -> who keeps it."""
