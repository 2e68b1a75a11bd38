"""By which facts orders earned, for `verify`: stock journals against account journals.

* I6: a mark takes the facts since the one before it. An order earns only by one of those before it
  in its entry, in their order, with what its stock shard's journal says.
* I6: every order that was paid for good and whose fact was taken has earned, if someone brought it;
  and of every order that earned, commission knows of all units that are back.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from actors.core import commission_records as r
from actors.core import commission_state as c
from actors.core import facts as f
from actors.core import relay_records as y
from actors.core import state as s
from actors.core.bloom import Forgotten
from actors.core.programme import bond_at
from server.relay import numbered_facts
from server.verify_account_rows import known_order

Check = Callable[[bool, str | Callable[[], str]], None]
Place = tuple[int, int]
"""A fact's entry and index."""


class Taken(NamedTuple):
    """Facts that a mark takes: those after one place, up to another."""

    source: int
    incarnation: str
    after: Place
    to: Place
    seq: int
    """The entry that took them."""


_NOTHING = Taken(-1, "", (0, 0), (0, 0), 0)


class Accrual(NamedTuple):
    """What an order earned by."""

    taken: Taken
    """The mark before it in its entry; nothing if there is none."""
    told: tuple[Any, ...]


class TakenFacts:
    """What one account shard took, as its journal tells it."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self.forgotten: Forgotten | None = None
        """Keys of what left memory, of a fold that began with a snapshot."""
        self.accruals: dict[bytes, Accrual] = {}
        self.bound: dict[tuple[str, int, str], int] = {}
        """A binding -> entry of its last change."""
        self._taken: dict[int, list[Taken]] = {}
        """By source, one after the other."""
        self._marks: dict[int, s.Mark] = {}

    def begin(self, state: s.ShardState) -> None:
        """The fold begins with a snapshot."""
        self._marks.update(state.sources)
        for slot in state.slots.values():
            if slot.programme is not None:
                self.forgotten = slot.forgotten

    def take(self, seq: int, records: Sequence[Any]) -> None:
        """An entry of the journal."""
        taken = _NOTHING
        for record in records:
            kind = record.kind
            if kind == y.FACT_TAKEN:
                taken = self._mark(record, seq)
            elif kind == r.ORDER_ACCRUED:
                self._accrue(record, taken)
            elif kind == r.BUYER_BOUND:
                self.bound[record.buyer_id, record.from_ms, record.distributor_id] = seq

    def _mark(self, record: y.FactTaken, seq: int) -> Taken:
        incarnation, *stood = self._marks.get(record.source, s.NO_MARK)
        place = (record.source_seq, record.fact_index)
        rises = stood < [*place]
        # A recovery moves marks back: its journals end before what was taken of those before.
        self._check(
            rises or incarnation != record.incarnation,
            f"facts of shard {record.source} are taken up to {place}, after {stood}",
        )
        taken = self._taken.setdefault(record.source, [])
        while taken and taken[-1].to > place:
            taken.pop()
        after = (stood[0], stood[1]) if rises else place
        found = Taken(record.source, record.incarnation, after, place, seq)
        taken.append(found)
        self._marks[record.source] = (record.incarnation, *place)
        return found

    def _accrue(self, record: r.OrderAccrued, fact: Taken) -> None:
        told = (
            record.reservation_id,
            record.buyer_id,
            record.campaign_id,
            record.sku_id,
            record.quantity,
            record.base_minor,
            record.currency_code,
            record.reserved_ms,
            record.earned_ms,
        )
        self.accruals[record.key] = Accrual(fact, told)

    def taken_in(self, source: int, place: Place) -> int:
        """The entry that took a fact; 0 if none of the fold did."""
        taken = self._taken.get(source, [])
        at = bisect_left(taken, place, key=lambda one: one.to)
        return taken[at].seq if at < len(taken) and taken[at].after < place else 0


class Told:
    """What a stock shard's journal tells account shards of its orders."""

    def __init__(self) -> None:
        self.from_seq = 0
        """Facts of entries up to this one are not known."""
        self.earned: dict[bytes, tuple[int, Place, tuple[Any, ...]]] = {}
        """Order -> account shard, place, what it says."""
        self.returned: dict[bytes, tuple[Place, int]] = {}
        """Order -> place and total of the last return."""

    def take(self, slots_of: Sequence[int], seq: int, now_ms: int, records: Sequence[Any]) -> None:
        """An entry of the journal."""
        for shard, index, _, fact in numbered_facts(slots_of, records, now_ms):
            if fact.kind not in (f.ORDER_EARNED, f.ORDER_REDUCED):
                continue
            key = c.order_key(fact.reservation_id)
            if key is None:
                continue
            if fact.kind == f.ORDER_REDUCED:
                self.returned[key] = ((seq, index), fact.returned_total)
                continue
            said = (
                fact.reservation_id,
                fact.buyer_id,
                fact.campaign_id,
                fact.sku_id,
                fact.quantity,
                fact.base_minor,
                fact.currency_code,
                fact.reserved_ms,
                fact.at_ms,
            )
            self.earned[key] = (shard, (seq, index), said)


class Earned(NamedTuple):
    """Compares what orders earned with what stock journals say."""

    facts: TakenFacts
    state: s.ShardState
    slot: s.SlotState
    """That has the programme."""
    incarnation: str
    """Of the journals."""
    check: Check

    @property
    def programme(self) -> c.Programme:
        """Of the slot."""
        return self.slot.programme or c.Programme()

    def compare(self, told: Mapping[int, Told]) -> None:
        """Orders earned what stock journals say, and all that these say."""
        before: tuple[Taken, Place] = (_NOTHING, (0, 0))
        for accrual in self.facts.accruals.values():
            place = self._compare_accrual(accrual, told)
            in_order = accrual.taken is not before[0] or place is None or before[1] < place
            self.check(in_order, f"order {accrual.told[0]}: earned after one that was paid later")
            before = (accrual.taken, place or (0, 0))
        for source, stock in told.items():
            of, *mark = self.state.sources.get(source, s.NO_MARK)
            if of != self.incarnation:
                continue
            for key, (_, at, said) in stock.earned.items():
                entry = self.facts.taken_in(source, at) if [*at] <= mark else 0
                if entry:
                    self._require(key, said, entry)
            for key, (at, total) in stock.returned.items():
                if self.facts.taken_in(source, at):
                    self._compare_return(key, total)

    def _compare_accrual(self, accrual: Accrual, told: Mapping[int, Told]) -> Place | None:
        """Answers the place of its fact, if it is known."""
        source, of, after, to, _ = accrual.taken
        name = f"order {accrual.told[0]}"
        self.check(source >= 0, f"{name}: earned without a fact")
        stock = told.get(source)
        if stock is None or of != self.incarnation or to[0] <= stock.from_seq:
            return None
        found = stock.earned.get(c.order_key(accrual.told[0]) or b"")
        if found is None and after[0] < stock.from_seq:
            return None
        self.check(
            found is not None and after < found[1] <= to and found[2] == accrual.told,
            f"{name}: earned {accrual.told} after {after} and up to {to} of shard {source}, which "
            f"says {found}",
        )
        return None if found is None else found[1]

    def _compare_return(self, key: bytes, total: int) -> None:
        order = known_order(self.programme, key)
        if order is None or key not in self.facts.accruals:
            return
        self.check(
            order.returned == min(total, order.quantity),
            f"order {c.reservation_of(key)}: {total} units are back, commission knows of "
            f"{order.returned}",
        )

    def _is_known(self, key: bytes) -> bool:
        """Whether an order earned; of one that left memory before the fold, its key says so."""
        if known_order(self.programme, key) is not None:
            return True
        forgotten = self.facts.forgotten
        return forgotten is not None and forgotten.may_contain(key[: c.KEY_BYTES])

    def _require(self, key: bytes, said: tuple[Any, ...], entry: int) -> None:
        """An order whose fact was taken in `entry` has earned, if somebody brought it by then."""
        _, buyer_id, *_, currency, reserved_ms, _ = said
        version = self.programme.version_at(reserved_ms)
        bond = bond_at(self.programme, buyer_id, reserved_ms)
        due = (
            not self._is_known(key)
            and version is not None
            and version.seq < entry
            and version.config.currency_code == currency
            and bond is not None
            # What was decided on the binding later says nothing of then.
            and self.facts.bound.get((buyer_id, bond.from_ms, bond.distributor_id), entry) < entry
        )
        self.check(not due, f"order {said[0]}: paid for good, brought by {bond}, earned nothing")
