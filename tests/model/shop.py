"""A shard without its shell: commands in, answers out, entries journalled, replicas folded.

`Shop` opens an entry, decides and folds each command, and closes the entry into bytes, as the
primary does. Builders fill in what a test does not care about. Times are in milliseconds.
"""

from typing import Any

from actors.core import commands as c
from actors.core import state as s
from actors.core.act import act
from actors.core.campaign_config import CampaignConfig, CampaignLine
from actors.core.codec import EntryContent, pack_entry, unpack_entry
from actors.core.evolve import close_entry, evolve, fold, open_entry
from actors.core.forgetting import Forgetting, recall, reservation_key
from actors.core.forgetting_accounts import ON_ACCOUNTS, ForgettingAccounts
from actors.core.identity import parse_public_id, public_id, slot_of
from actors.core.outcomes import Outcome
from actors.core.pools import Pool
from actors.core.pulse import Pulse
from actors.core.records import RESERVATION_RECALLED
from actors.core.snapshot import Loader, chunks
from actors.rows import RowBatch
from persistence.ports import Rows
from persistence.sql.tables import reservations
from server.recall import recalled_row
from server.verify_account_rows import same_account_row
from server.verify_rows import find, same_row
from tests.model.account_rows import AccountRows

T0 = 1_700_000_000_000
MINUTE_MS = 60_000
WINDOW_MS = 15 * MINUTE_MS


def line(sku: str, allocation: int = 100, price: int = 80, limit: int = 0) -> CampaignLine:
    """A campaign's line at list price 100."""
    return CampaignLine(sku, allocation, 100, price, limit)


def campaign(*lines: CampaignLine, **changes: Any) -> CampaignConfig:
    """A campaign that is open from T0 for an hour."""
    fields: dict[str, Any] = {
        "name": "a sale",
        "currency_code": "CNY",
        "starts_ms": T0,
        "ends_ms": T0 + 60 * MINUTE_MS,
        "payment_window_ms": WINDOW_MS,
        "limit_per_buyer": 0,
        "required_claims": (),
        "lines": lines,
    }
    return CampaignConfig(**{**fields, **changes})


class Shop:
    """One primary. `do` answers a command that is an entry by itself."""

    def __init__(self, *, refusal_count_max: int = 1_000_000) -> None:
        self.state = s.ShardState(refusal_count_max=refusal_count_max)
        self.pulse = Pulse()
        self.forgetting = Forgetting()
        self.now_ms = T0
        self.journal: list[bytes] = []
        self.records: list[Any] = []
        self.is_open = False
        self.state.archive = {}
        self.sql: dict[str, dict[str, Any]] = {}
        """Reservations as the projector writes them."""
        self.account_rows = AccountRows()
        self.forgetting_accounts = ForgettingAccounts()
        self.recalls = 0

    def open(self) -> None:
        """The commands that follow share an entry, until `close`."""
        open_entry(self.state, len(self.journal) + 1, self.now_ms)
        self.records = []
        self.is_open = True

    def close(self) -> None:
        """Journal the open entry, if it decided anything."""
        self.is_open = False
        if self.records:
            balances = close_entry(self.state)
            entry = pack_entry(epoch=1, now_ms=self.now_ms, records=self.records, balances=balances)
            self.journal.append(entry)
            batch = RowBatch(0)
            for record in self.records:
                batch.add(len(self.journal), self.now_ms, record)
            for rows in batch.tables():
                if rows.table in ("reservations", "seats"):
                    self._write(rows)
            self.account_rows.take(batch)

    def _write(self, rows: Rows) -> None:
        for values in rows.values:
            row = dict(zip(rows.columns, values, strict=True))
            known: dict[str, Any] = dict.fromkeys(reservations.columns.keys(), 0)
            known |= dict.fromkeys(("payment_id", "payment_channel", "team_id"), "")
            known["settled_minor"] = 0
            self.sql.setdefault(row["reservation_id"], known).update(row)

    def do(self, command: Any) -> tuple[Any, ...]:
        """The answer to a command; what left memory comes back by itself, as with a gateway."""
        answer = self.ask(command)
        if answer[0] != Outcome.RECALL:
            return answer
        of_account = command.kind in ON_ACCOUNTS
        again = (self.account_rows if of_account else self).with_row(command)
        for record in recall(self.state, again):
            assert self._same_row(record), "a row came back otherwise"
            self.recalls += 1
        return self.ask(again)

    def _same_row(self, record: Any) -> bool:
        same = same_row if record.kind == RESERVATION_RECALLED else same_account_row
        return same(self.state, self.state.slot(record.slot), record)

    def with_row(self, command: Any) -> c.Recalled:
        """A command that was answered RECALL, with what SQL has of its reservation."""
        row = self.sql.get(public_id(command.slot, reservation_key(command) or b""))
        head = (c.RECALLED, command.slot, 0, command.caller)
        return c.Recalled(*head, () if row is None else recalled_row(row), command)

    def ask(self, command: Any) -> tuple[Any, ...]:
        """The shard's own answer."""
        alone = not self.is_open
        if alone:
            self.open()
        made: list[Any] = []
        answer = act(self.state, command, self.now_ms, made)
        self.made(made)
        if alone:
            self.close()
        return answer

    def fold(self, records: Any) -> None:
        """Apply records to the open entry."""
        for record in records:
            evolve(self.state, record)
        self.made(records)

    def made(self, records: Any) -> None:
        """Records of the open entry that are folded."""
        self.records.extend(records)

    def wait(self, ms: int) -> None:
        """Time passes; nothing is decided."""
        self.now_ms += ms

    def expire(self, limit: int = 1_000) -> list[Any]:
        """One slice of expiries, as an entry."""
        return self._due(lambda: self.pulse.expiries(self.state, self.now_ms, limit))

    def revoke(self, limit: int = 1_000) -> list[Any]:
        """One slice of a shortage, as an entry."""
        return self._due(lambda: self.pulse.revocations(self.state, limit))

    def end_teams(self, limit: int = 1_000) -> list[Any]:
        """One slice of teams that are due, as an entry."""
        return self._due(lambda: self.pulse.teams(self.state, self.now_ms, limit))

    def forget(self, after_ms: int, sink_seq: int, limit: int = 1_000) -> list[Any]:
        """One slice of forgetting, as an entry."""
        return self._due(
            lambda: self.forgetting.look_on(
                self.state,
                now_ms=self.now_ms,
                recall_after_ms=after_ms,
                sink_seq=sink_seq,
                limit=limit,
            )
        )

    def forget_teams(self, after_ms: int, sink_seq: int, limit: int = 1_000) -> list[Any]:
        """The same for teams."""
        return self._due(
            lambda: self.forgetting.look_for_teams(
                self.state,
                now_ms=self.now_ms,
                recall_after_ms=after_ms,
                sink_seq=sink_seq,
                limit=limit,
            )
        )

    def _due(self, ask: Any) -> list[Any]:
        self.open()
        records = ask()
        self.fold(records)
        self.close()
        return list(records)

    def sku(self, sku: str = "tea", **changes: Any) -> tuple[Any, ...]:
        """Put a SKU: no buffer, 100 a unit, 15 min to pay."""
        fields: dict[str, Any] = {
            "name": sku,
            "attributes": {},
            "buffer_bps": 0,
            "price_minor": 100,
            "currency_code": "CNY",
            "payment_window_ms": WINDOW_MS,
        }
        command = c.PutSku(c.PUT_SKU, slot_of(sku), 0, "web", sku, **{**fields, **changes})
        return self.do(command)

    def receive(self, quantity: int, request: str = "doc", sku: str = "tea") -> tuple[Any, ...]:
        """Receive units."""
        return self.do(
            c.ReceiveStock(c.RECEIVE_STOCK, slot_of(sku), 0, "web", request, sku, quantity)
        )

    def adjust(
        self, delta: int, request: str = "count", sku: str = "tea", sale: str = ""
    ) -> tuple[Any, ...]:
        """Correct a pool."""
        slot = slot_of(sale or sku)
        return self.do(c.AdjustStock(c.ADJUST_STOCK, slot, 0, "web", request, sale, sku, delta))

    def set_buffer(self, buffer: int, request: str = "keep", sku: str = "tea") -> tuple[Any, ...]:
        """Keep units back."""
        return self.do(c.SetBuffer(c.SET_BUFFER, slot_of(sku), 0, "web", request, sku, buffer))

    def short(
        self,
        quantity: int,
        request: str = "gone",
        *,
        sku: str = "tea",
        sale: str = "",
        dry_run: bool = False,
    ) -> tuple[Any, ...]:
        """Declare a shortage."""
        slot = slot_of(sale or sku)
        head = (c.DECLARE_SHORTAGE, slot, 0, "web", request, sale, sku, quantity, "lost", dry_run)
        return self.do(c.DeclareShortage(*head))

    def put(self, config: CampaignConfig, sale: str = "sale") -> tuple[Any, ...]:
        """Put a campaign."""
        return self.do(c.PutCampaign(c.PUT_CAMPAIGN, slot_of(sale), 0, "web", sale, config))

    def turn(self, state: int, sale: str = "sale") -> tuple[Any, ...]:
        """Pause, resume or end a campaign."""
        return self.do(
            c.SetCampaignState(c.SET_CAMPAIGN_STATE, slot_of(sale), 0, "web", sale, state)
        )

    def leave(
        self, quantity: int, request: str = "move", *, source: str = "", target: str = "sale"
    ) -> tuple[Any, ...]:
        """First step of a transfer of tea."""
        slot = slot_of(source or "tea")
        head = (c.TRANSFER_OUT, slot, 0, "web", request, "tea", source, target, quantity)
        return self.do(c.TransferOut(*head))

    def arrive(self, key: bytes, quantity: int, target: str = "sale") -> tuple[Any, ...]:
        """Second step."""
        slot = slot_of(target or "tea")
        return self.do(c.TransferIn(c.TRANSFER_IN, slot, 0, "web", key, "tea", target, quantity))

    def settle(self, key: bytes, arrived: bool, source: str = "") -> tuple[Any, ...]:
        """Third step."""
        slot = slot_of(source or "tea")
        return self.do(c.TransferDone(c.TRANSFER_DONE, slot, 0, "web", key, arrived))

    def open_sale(
        self, units: int = 10, *lines: CampaignLine, sale: str = "sale", **changes: Any
    ) -> None:
        """SKU tea, and a campaign that has `units` of it."""
        self.sku()
        self.receive(units, f"for {sale}")
        self.put(campaign(*(lines or (line("tea"),)), **changes), sale)
        _, key, *_ = self.leave(units, f"to {sale}", target=sale)
        self.arrive(key, units, sale)
        self.settle(key, arrived=True)

    def reserve(
        self,
        request: str = "r1",
        quantity: int = 1,
        buyer: str = "ann",
        *,
        sale: str = "",
        sku: str = "tea",
        caller: str = "web",
        **more: Any,
    ) -> tuple[Any, ...]:
        """Reserve units of a base pool, or of a campaign."""
        slot = slot_of(sale or sku)
        head = (c.RESERVE, slot, 0, caller, request, sale, sku, quantity, buyer)
        return self.do(c.Reserve(*head, **more))

    def hold(self, request: str = "r1", quantity: int = 1, **more: Any) -> str:
        """Reserve; answers the reservation id."""
        answer = self.reserve(request, quantity, **more)
        assert answer[0] == Outcome.RESERVED, answer
        return public_id(slot_of(more.get("sale") or more.get("sku", "tea")), answer[1])

    def pay(
        self, reservation: str, payment: str = "p1", paid: int = 100, *, slot: int | None = None
    ) -> tuple[Any, ...]:
        """Confirm."""
        head = (c.CONFIRM, self._slot(reservation, slot), 0, "web", reservation, payment, paid)
        return self.do(c.Confirm(*head, "alipay"))

    def begin(self, reservation: str, payment: str = "p1") -> tuple[Any, ...]:
        """Begin a payment."""
        head = (c.BEGIN_PAYMENT, self._slot(reservation), 0, "web", reservation, payment)
        return self.do(c.BeginPayment(*head))

    def fail(self, reservation: str, payment: str = "p1") -> tuple[Any, ...]:
        """Report a failed payment."""
        head = (c.REPORT_FAILED_PAYMENT, self._slot(reservation), 0, "web", reservation, payment)
        return self.do(c.ReportFailedPayment(*head, 100))

    def release(self, reservation: str) -> tuple[Any, ...]:
        """Give a reservation up."""
        return self.do(c.Release(c.RELEASE, self._slot(reservation), 0, "web", reservation))

    def bring_back(
        self,
        reservation: str,
        quantity: int,
        request: str = "b1",
        restock: int = c.RESTOCK_AVAILABLE,
    ) -> tuple[Any, ...]:
        """Return units."""
        head = (c.RETURN_UNITS, self._slot(reservation), 0, "web", request, reservation)
        return self.do(c.ReturnUnits(*head, quantity, restock))

    def ship(self, reservation: str, stage: int = 1) -> tuple[Any, ...]:
        """Report fulfilment."""
        head = (c.REPORT_FULFILMENT, self._slot(reservation), 0, "web", reservation, stage)
        return self.do(c.ReportFulfilment(*head, self.now_ms))

    def refunded(
        self, refund: str, succeeded: bool = True, request: str = "f1", slot: int | None = None
    ) -> tuple[Any, ...]:
        """Report how an attempt to pay a refund back ended."""
        head = (c.REPORT_REFUND, self._slot(refund, slot), 0, "web", refund, succeeded, request)
        return self.do(c.ReportRefund(*head))

    def read(self, reservation: str) -> tuple[Any, ...]:
        """A reservation's view."""
        head = (c.GET_RESERVATION, self._slot(reservation), 0, "web", reservation)
        answer = self.do(c.GetReservation(*head))
        return tuple(answer[1])

    @staticmethod
    def _slot(public: str, slot: int | None = None) -> int:
        parsed = parse_public_id(public)
        if slot is not None or parsed is None:
            return slot or 0
        return parsed[0]

    def pool(self, sale: str = "", sku: str = "tea") -> Pool:
        """A pool."""
        pool = self.state.slot(slot_of(sale or sku)).pool(sale, sku)
        assert pool is not None
        return pool

    def stock(self, sale: str = "", sku: str = "tea") -> dict[str, int]:
        """A pool's parts that are not 0, without its total (which is their sum)."""
        assert not self.pool(sale, sku).broken_law()
        names = ("available", "reserved", "sold", "buffer", "scheduled", "in_transit", "owed")
        pool = self.pool(sale, sku)
        return {name: getattr(pool, name) for name in names if getattr(pool, name)}

    def held(self, reservation: str) -> s.Reservation:
        """A reservation's row, in memory or as it was when it left."""
        parsed = parse_public_id(reservation)
        assert parsed is not None
        row = find(self.state, self.state.slot(parsed[0]), parsed[1])
        assert row is not None
        return row

    def replica(self) -> s.ShardState:
        """A state folded from the journal alone."""
        state = s.ShardState()
        replay(state, self.journal, 0)
        return state

    def from_snapshot(self) -> s.ShardState:
        """A state from a snapshot of now."""
        state = s.ShardState()
        loader = Loader(state, self.state.seq)
        loader.read(list(chunks(self.state)))
        return state


def replay(state: s.ShardState, journal: list[bytes], after_seq: int) -> None:
    """Fold the entries after `after_seq`."""
    for number, entry in enumerate(journal[after_seq:], after_seq + 1):
        content: EntryContent = unpack_entry(entry)
        fold(state, number, content.now_ms, content.records, content.balances)


def limits(state: s.ShardState) -> dict[tuple[str, str], dict[str, int]]:
    """What limits of campaigns and lines count, set or not, by (campaign, SKU or '')."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for slot in state.slots.values():
        for name, sale in slot.campaigns.items():
            found[name, ""] = dict(sale.buyers.items())
            for pool in sale.pools.values():
                found[name, pool.sku_id] = dict(pool.buyers.items())
    return found


def deadlines(state: s.ShardState) -> set[tuple[int, int, bytes]]:
    """(slot, end of the bucket, key) of all deadlines."""
    return {
        (number, end_ms, key)
        for number, slot in state.slots.items()
        for end_ms, keys in slot.deadlines.buckets.items()
        for key in ({keys} if isinstance(keys, bytes) else keys)
    }
