"""A commission programme without its shell: commands and order facts in, entries journalled.

`Bureau` does what a primary of an account shard does with its programme: opens an entry, decides
and folds, closes it into bytes. Builders fill in what a test does not care about. Times are in
milliseconds; the programme's months are those of Shanghai.
"""

from collections.abc import Sequence
from typing import Any

from actors.core import commission_commands as d
from actors.core import commission_records as cr
from actors.core import facts as f
from actors.core import relay_commands as y
from actors.core import state as s
from actors.core.act import act
from actors.core.codec import pack_entry
from actors.core.commission_state import Distributor, Programme
from actors.core.evolve import close_entry, evolve, open_entry
from actors.core.forgetting import recall
from actors.core.forgetting_accounts import ForgettingAccounts
from actors.core.identity import public_id, request_key
from actors.core.outcomes import Outcome
from actors.core.programme_config import ProgrammeConfig
from actors.core.pulse import Pulse
from actors.core.relay_records import FACT_TAKEN
from actors.core.snapshot import Loader, chunks
from actors.rows import RowBatch
from server.verify_account_rows import same_account_row
from tests.model.account_rows import AccountRows
from tests.model.shop import replay

SLOT = 1_500
STOCK_SLOT = 7
ZONE = "Asia/Shanghai"
T0 = 1_699_000_000_000
"""3 November 2023 there."""
NOVEMBER, DECEMBER, JANUARY = 202311, 202312, 202401
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FREEZE_MS = 7 * DAY_MS

Answer = tuple[Any, ...]


def config(**changes: Any) -> ProgrammeConfig:
    """10 % and 5 %, distributors approved at once."""
    fields: dict[str, Any] = {
        "currency_code": "CNY",
        "time_zone": ZONE,
        "level1_bps": 1_000,
        "level2_bps": 500,
        "approve_at_once": True,
    }
    return ProgrammeConfig(**{**fields, **changes})


def order_id(name: str) -> str:
    """The reservation id that stands for a name."""
    return public_id(STOCK_SLOT, request_key("web", name))


class Bureau:
    """One primary of the programme's shard."""

    def __init__(self) -> None:
        self.state = s.ShardState()
        self.pulse = Pulse()
        self.now_ms = T0
        self.journal: list[bytes] = []
        self.records: list[Any] = []
        """All that was ever decided."""
        self.state.archive = {}
        self.forgetting = ForgettingAccounts()
        self.sql = AccountRows()
        self.recalls = 0

    def entry(self, decided: Sequence[Any]) -> None:
        """Fold and journal what was decided; nothing is no entry."""
        if not decided:
            return
        open_entry(self.state, len(self.journal) + 1, self.now_ms)
        for record in decided:
            evolve(self.state, record)
        self._journal(decided)

    def _journal(self, decided: Sequence[Any]) -> None:
        if not decided:
            return
        balances = close_entry(self.state)
        self.journal.append(
            pack_entry(epoch=1, now_ms=self.now_ms, records=decided, balances=balances)
        )
        self.records.extend(decided)
        batch = RowBatch(0)
        for record in decided:
            batch.add(len(self.journal), self.now_ms, record)
        self.sql.take(batch)

    def do(self, kind: int, *fields: Any, **named: Any) -> Answer:
        """The answer to a command, which is an entry by itself."""
        return self.ask(COMMANDS[kind](kind, SLOT, 0, "web", *fields, **named))

    def ask(self, command: Any) -> Answer:
        """The same; what left memory comes back by itself, as with a gateway or the relay."""
        answer = self.shard_says(command)
        if answer[0] != Outcome.RECALL:
            return answer
        command = self.sql.with_row(command)
        for record in recall(self.state, command):
            slot = self.state.slot(SLOT)
            assert same_account_row(self.state, slot, record), "a row came back otherwise"
            self.recalls += 1
        return self.shard_says(command)

    def shard_says(self, command: Any) -> Answer:
        """The answer alone, of an entry of its own."""
        records: list[Any] = []
        open_entry(self.state, len(self.journal) + 1, self.now_ms)
        answer = act(self.state, command, self.now_ms, records)
        if not records:
            self.state.seq = len(self.journal)
        self._journal(records)
        return answer

    def fact_line(self, *facts: Any) -> y.TakeFacts:
        """Facts as the relay sends them: the next ones of the one stock shard there is."""
        _, seq, index = self.state.sources.get(0, s.NO_MARK)
        placed = [(seq + 1 + at, 0, SLOT, fact) for at, fact in enumerate(facts)]
        return y.TakeFacts(y.TAKE_FACTS, SLOT, 0, "relay", 0, "i", seq, index, placed)

    def tell(self, fact: Any) -> Sequence[Any]:
        """An order fact arrives; answers what it led to."""
        before = len(self.records)
        assert self.ask(self.fact_line(fact))[0] == Outcome.APPLIED
        of_relay = (cr.ORDER_RECALLED, FACT_TAKEN)
        return tuple(r for r in self.records[before:] if r.kind not in of_relay)

    def forget(self, after_ms: int = DAY_MS, limit: int = 1_000, sink_seq: int = -1) -> int:
        """One look of the shard at what may leave memory, as an entry; answers how much left.
        SQL has all, or what is said."""
        sink_seq = len(self.journal) if sink_seq < 0 else sink_seq
        records = self.forgetting.look_on(
            self.state,
            now_ms=self.now_ms,
            recall_after_ms=after_ms,
            sink_seq=sink_seq,
            limit=limit,
        )
        self.entry(records)
        return sum(len(record.keys) for record in records)

    def beat(self, limit: int = 100) -> list[Any]:
        """One look of the shard at what is due, as an entry."""
        records = self.pulse.commission(self.state, self.now_ms, limit)
        self.entry(records)
        return records

    def wait(self, ms: int, limit: int = 100) -> None:
        """Time passes, and all that is due is decided at the end of each day."""
        end_ms = self.now_ms + ms
        while True:
            self.now_ms = min(end_ms, self.now_ms + DAY_MS)
            while self.beat(limit):
                pass
            if self.now_ms == end_ms:
                return

    # Builders

    def open(self, *distributors: str, **changes: Any) -> None:
        """A programme with these distributors."""
        assert self.rates(**changes)[0] == Outcome.APPLIED
        for name in distributors:
            assert self.apply(name)[0] == Outcome.APPLIED

    def rates(self, **changes: Any) -> Answer:
        return self.do(d.PUT_RATES, config(**changes))

    def apply(self, name: str) -> Answer:
        return self.do(d.APPLY_DISTRIBUTOR, name)

    def act(self, name: str, act: int) -> Answer:
        return self.do(d.APPROVE_DISTRIBUTOR, name, act, "why")

    def code(self, name: str) -> str:
        return self.distributor(name).share_code

    def bind(self, buyer: str, to: str, *, new: bool = False) -> Answer:
        return self.do(d.BIND_REFERRER, buyer, self.code(to), new)

    def touch(self, name: str, buyer: str, to: str, ago_ms: int = 0) -> Sequence[Any]:
        """A reservation that carries a share code."""
        at_ms = self.now_ms - ago_ms
        return self.tell(
            f.OrderBound(f.ORDER_BOUND, at_ms, order_id(name), buyer, self.code(to), at_ms)
        )

    def earned(self, name: str, buyer: str, base: int = 10_000, **fields: Any) -> Sequence[Any]:
        """An order of `base` minor units was paid for good now, reserved `ago_ms` before."""
        return self.tell(
            f.OrderEarned(
                f.ORDER_EARNED,
                self.now_ms,
                order_id(name),
                buyer,
                fields.get("campaign", ""),
                fields.get("sku", "tea"),
                fields.get("quantity", 1),
                base,
                fields.get("currency", "CNY"),
                self.now_ms - fields.get("ago_ms", 0),
                base,
            )
        )

    def returned(self, name: str, total: int, of: int = 1) -> Sequence[Any]:
        return self.tell(f.OrderReduced(f.ORDER_REDUCED, self.now_ms, order_id(name), total, of))

    def delivered(self, name: str) -> Sequence[Any]:
        return self.tell(f.OrderDelivered(f.ORDER_DELIVERED, self.now_ms, order_id(name)))

    def hold(self, name: str, for_ms: int) -> Answer:
        """As risk decides now."""
        until_ms = self.now_ms + for_ms if for_ms else 0
        return self.tell_hold(name, until_ms, self.now_ms)

    def tell_hold(self, name: str, until_ms: int, as_of_ms: int) -> Answer:
        return self.do(d.HOLD_DISTRIBUTOR, name, until_ms, as_of_ms, "risk")

    def withdraw(self, name: str, amount: int, request: str = "w1") -> Answer:
        return self.do(d.REQUEST_WITHDRAWAL, request, name, amount)

    def review(self, key: bytes, act: int, reference: str = "bank-1") -> Answer:
        return self.do(d.REVIEW_WITHDRAWAL, key, act, reference, "why")

    def statement(self, name: str, month: int) -> Any:
        return self.do(d.GET_STATEMENT, name, month)[1]

    # What there is

    @property
    def programme(self) -> Programme:
        programme = self.state.slot(SLOT).programme
        assert programme is not None
        return programme

    def distributor(self, name: str) -> Distributor:
        held = self.programme.distributors.get(name)
        assert held is not None
        return held

    def money(self, name: str) -> tuple[int, ...]:
        """(Frozen, available, settled, withdrawing, paid out)."""
        return tuple(self.distributor(name).balances[1:])

    def entries(self, name: str = "") -> list[cr.Entry]:
        """All ever written, or those of a distributor."""
        return [
            entry
            for record in self.records
            for entry in getattr(record, "entries", ())
            if name in {"", entry.distributor_id}
        ]

    # Replicas

    def replica(self) -> s.ShardState:
        """The fold of the whole journal."""
        state = s.ShardState()
        replay(state, self.journal, 0)
        return state

    def from_snapshot(self) -> s.ShardState:
        """A state loaded from a snapshot of this one."""
        loader = Loader(s.ShardState(), self.state.seq)
        loader.read(list(chunks(self.state)))
        return loader.state


COMMANDS: dict[int, Any] = {
    d.APPLY_DISTRIBUTOR: d.ApplyDistributor,
    d.APPROVE_DISTRIBUTOR: d.ApproveDistributor,
    d.BIND_REFERRER: d.BindReferrer,
    d.PUT_RATES: d.PutRates,
    d.GET_ACCOUNT: d.GetAccount,
    d.LIST_ENTRIES: d.ListEntries,
    d.SETTLE: d.Settle,
    d.REQUEST_WITHDRAWAL: d.RequestWithdrawal,
    d.REVIEW_WITHDRAWAL: d.ReviewWithdrawal,
    d.GET_STATEMENT: d.GetStatement,
    d.GET_LEADERBOARD: d.GetLeaderboard,
    d.GET_PROGRAMME: d.GetProgramme,
    d.HOLD_DISTRIBUTOR: d.HoldDistributor,
}
