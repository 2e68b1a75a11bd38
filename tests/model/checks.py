"""What is compared after every step: the shop with the naive model, the replica with the shop, and
a snapshot that was written meanwhile with both."""

from typing import Any

from actors.core import state as s
from actors.core.codec import pack_entry, unpack_entry
from actors.core.evolve import fold
from actors.core.evolve_reservations import counted_units
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason
from actors.core.snapshot import Loader, digest
from tests.model.naive import REMEMBERED_MS, Naive
from tests.model.naive_stock import PARTS
from tests.model.shop import T0, Shop, deadlines, limits, replay

BUYERS = ("ann", "bob", "cy")
STATES = {
    "RESERVED": s.RESERVED,
    "CONFIRMED": s.CONFIRMED,
    "EXPIRED": s.EXPIRED,
    "RELEASED": s.RELEASED,
    "RETURNED": s.RETURNED,
    "REVOKED": s.REVOKED,
}


class Checks:
    """The shop, the model, a replica that follows, and now and then a snapshot under way."""

    def __init__(self) -> None:
        self.shop = Shop()
        self.naive = Naive(T0)
        # What left memory counts against no limit: its campaign has ended.
        assert self.shop.state.archive is not None
        self.naive.forgotten = self.shop.state.archive
        self.replica = s.ShardState()
        self.folded = 0
        self.copying: Any = None
        self.copied: list[bytes] = []
        self.copy_began = 0
        self.copies = 0

    def check(self) -> None:
        """All invariants."""
        self._check_pools()
        self._check_campaigns()
        self._check_reservations()
        self._check_money()
        self._check_refusals(self.shop.state)
        self._follow()
        self._same(self.replica)
        self._take_chunk()

    def _check_pools(self) -> None:
        real = {
            (p.campaign_id, p.sku_id): p for x in self.shop.state.slots.values() for p in x.pools()
        }
        assert set(real) == set(self.naive.pools)
        for name, told in self.naive.pools.items():
            pool = real[name]
            for part in (*PARTS, "owed", "granted"):
                assert getattr(pool, part) == told[part], f"{name}.{part}"
            assert not pool.broken_law()
            assert pool.owed <= pool.reserved + pool.sold
            assert not pool.owed or not (pool.available or pool.scheduled or pool.buffer)
        for sku, units in self.naive.units.items():
            pools = [pool for (_, name), pool in real.items() if name == sku]
            twice = [
                t["units"]
                for key, t in self.naive.transfers.items()
                if t["args"][0] == sku and not t["ended"] and self.naive.arrived.get(key)
            ]
            assert sum(p.total for p in pools) - sum(twice) == units, f"units of {sku}"

    def _check_campaigns(self) -> None:
        real = {n: x for slot in self.shop.state.slots.values() for n, x in slot.campaigns.items()}
        assert set(real) == set(self.naive.sales)
        for name, told in self.naive.sales.items():
            sale = real[name]
            assert sale.version == told["version"], name
            assert (sale.created_ms, sale.updated_ms) == (told["created"], told["updated"]), name

    def _check_reservations(self) -> None:
        state, waiting = self.shop.state, set()
        assert state.archive is not None
        tables = [x.reservations for x in state.slots.values()] + list(state.archive.values())
        assert sum(map(len, tables)) == len(self.naive.held)
        for told in self.naive.held.values():
            row = self._row_of(told["slot"], told["key"])
            found = (
                row.state,
                row.returned,
                row.deadline_ms,
                row.begun,
                row.payable_minor,
                row.stage,
            )
            expected = (
                STATES[told["state"]],
                *(told[k] for k in ("returned", "deadline", "begun", "payable", "stage")),
            )
            assert found == expected, told["id"]
            if told["state"] == "RESERVED":
                waiting.add((told["slot"], -(-told["deadline"] // 100) * 100, told["key"]))
        assert deadlines(state) == waiting
        for (sale, sku), counts in limits(state).items():
            owned = {buyer: self.naive.owns(buyer, sale, sku) for buyer in BUYERS}
            assert counts == {buyer: n for buyer, n in owned.items() if n}, f"limit {sale}/{sku}"

    def _row_of(self, slot: int, key: bytes) -> s.Reservation:
        """In memory, or as it was when it left."""
        state = self.shop.state
        row = state.slots[slot].reservations.get(key) or (state.archive or {})[slot][key]
        for pool in state.slots[slot].pools():
            gone = [r for r in (state.archive or {}).get(slot, {}).values() if r.pool is pool]
            assert pool.forgotten_sold == sum(counted_units(r) for r in gone)
        return row

    def _check_money(self) -> None:
        documents = sum(len(slot.documents) for slot in self.shop.state.slots.values())
        assert documents == len(self.naive.documents) + len(self.naive.failures)
        real = {
            public_id(n, k): r
            for n, x in self.shop.state.slots.items()
            for k, r in x.refunds.items()
        }
        assert set(real) == set(self.naive.refunds)
        back: dict[tuple[int, str], int] = {}
        for name, told in self.naive.refunds.items():
            refund = real[name]
            assert refund.amount_minor == told["amount"]
            assert RefundReason(refund.reason).name == told["reason"]
            assert (refund.compensation, refund.attempts) == (
                told["compensation"],
                told["attempts"],
            )
            assert (refund.state == s.REFUND_CLOSED) == told["closed"]
            payment = told["slot"], refund.payment_id
            back[payment] = back.get(payment, 0) + refund.amount_minor
        for (slot, name), (reservation, paid, effect) in self.naive.payments.items():
            kept = 0
            if effect == "CONFIRMED":
                row = self._row_of(slot, bytes.fromhex(reservation[3:]))
                assert row.payment is not None
                assert row.payment.refunded_minor == back.get((slot, name), 0)
                share = paid * row.returned // row.quantity
                kept = 0 if row.state == s.REVOKED else paid - share
            assert paid == kept + back.get((slot, name), 0), f"payment {name}"

    def _check_refusals(self, state: s.ShardState) -> None:
        for (slot, key), (_, outcome, at) in self.naive.refused.items():
            if self.shop.now_ms - at < REMEMBERED_MS:
                found = state.slots[slot].refusals.get(key)
                assert found is not None, f"a refusal was forgotten ({outcome})"
                assert found[1] == Outcome[outcome]

    def _follow(self) -> None:
        """The replica folds what is new, through bytes."""
        for number, entry in enumerate(self.shop.journal[self.folded :], self.folded + 1):
            content = unpack_entry(entry)
            again = pack_entry(**content._asdict())
            assert again == entry, "an entry does not survive a round trip"
            fold(self.replica, number, content.now_ms, content.records, content.balances)
        self.folded = len(self.shop.journal)

    def _same(self, other: s.ShardState) -> None:
        state = self.shop.state
        assert digest(other) == digest(state), "a replica differs"
        assert deadlines(other) == deadlines(state), "a replica's deadlines differ"
        assert limits(other) == limits(state), "a replica's limits differ"
        owing = [{(p.campaign_id, p.sku_id) for p in x.debtors} for x in (other, state)]
        assert owing[0] == owing[1], "a replica's debtors differ"
        for number, slot in state.slots.items():
            assert other.slot(number).open_transfers == slot.open_transfers
            for table in ("documents", "figures", "payments", "arrivals"):
                rows = dict(getattr(slot, table).items())
                assert dict(getattr(other.slot(number), table).items()) == rows, table
        self._check_refusals(other)

    def _take_chunk(self) -> None:
        if self.copying is None:
            return
        chunk = next(self.copying, None)
        if chunk is not None:
            self.copied.append(chunk)
            return
        self.copying = None
        self.copies += 1
        loader = Loader(s.ShardState(), self.copy_began)
        loader.read(self.copied)
        replay(loader.state, self.shop.journal[: loader.end_seq], self.copy_began)
        if loader.end_seq > self.copy_began:
            loader.finish()
        replay(loader.state, self.shop.journal, loader.end_seq)
        self._same(loader.state)
