"""A relay in one loop: a stock shard's journal on one side, a pair of account replicas on the
other, and what each fact did, as the account shard's journal tells it.

The effect of a fact is a refusal whose key is the fact: the only record that changes an account's
slot without any rule of commission or risk.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any

import msgpack
import pytest

from actors.core import records as r
from actors.core import taking
from actors.core.codec import pack_entry, unpack_entry
from actors.core.identity import account_slot, buyer_part, request_key, slot_of
from actors.core.order_facts import order_facts
from actors.core.relay_records import FACT_TAKEN
from actors.core.state import ShardState, SlotState
from actors.specs import owned_by, slots_between
from persistence.memory import MemoryJournal, MemorySnapshots
from server.gather import GatherLimits, Sender
from server.relay import FindOrder, KeptReader, RelayLimits, Source
from server.relay_process import SenderAccounts
from tests.helpers.loop_stores import LoopJournal
from tests.helpers.shells import INCARNATION, LoopClock, LoopLink, Pair

STOCK, ACCOUNT = 0, 1
SLOTS_OF = slots_between(1, 1)
ACCOUNT_SLOT = account_slot("ann")
LIMITS = RelayLimits(
    read_bytes=2_000,
    window_facts=11,
    line_facts=4,
    deadline_ms=1_000,
    gather_ms=10,
    trouble_pause_ms=50,
)


def name_of(fact: Any) -> bytes:
    """16 bytes that stand for a fact."""
    return blake2b(msgpack.packb(fact), digest_size=16).digest()


def note(state: ShardState, slot: SlotState, fact: Any, now_ms: int) -> Sequence[Any]:
    """What facts do here."""
    return (r.RequestRefused(r.REQUEST_REFUSED, slot.slot, name_of(fact), 0, 20),)


def note_all(patch: pytest.MonkeyPatch) -> None:
    """Have every kind of fact noted."""
    patch.setattr(taking, "FACT_HANDLERS", dict.fromkeys(taking.FACT_HANDLERS, note))


def failed(number: int, buyer: str = "ann") -> r.PaymentFailed:
    """A record that makes one fact, for the buyer."""
    key = request_key("web", f"f{number}")
    head = (r.PAYMENT_FAILED, slot_of("tea"), key, buyer_part(buyer))
    return r.PaymentFailed(*head, f"p{number}", "card", 100, "", buyer, "tea")


def confirmed(number: int, buyer: str = "ann") -> r.ReservationConfirmed:
    """A record that makes one fact, for the programme."""
    key = request_key("web", f"c{number}")
    head = (r.RESERVATION_CONFIRMED, slot_of("tea"), key, buyer_part(buyer))
    return r.ReservationConfirmed(
        *head, f"q{number}", "card", 100, False, "", buyer, "tea", 1, 1, 100, "CNY", False
    )


def silent(number: int) -> r.RequestRefused:
    """A record that makes none."""
    key = request_key("web", f"s{number}")
    return r.RequestRefused(r.REQUEST_REFUSED, slot_of("tea"), key, 0, 20)


class Stage:
    """Both sides, and any number of relays between them."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.journal = MemoryJournal()
        self.accounts = Pair(
            number=ACCOUNT,
            journal=self.journal,
            snapshots=MemorySnapshots(),
            clock=self.clock,
            owned_slots=owned_by(ACCOUNT, SLOTS_OF),
        )
        self.told: list[Any] = []
        """All facts of all entries, in order."""
        self.incarnation = INCARNATION
        self._tasks: set[asyncio.Task[Any]] = set()

    def append(self, *records: Any) -> int:
        """An entry of the stock shard; answers its seq."""
        meta = self.journal.read_meta(STOCK)
        seq, at_ms = meta.last_seq + 1, self.clock.now_ms()
        entry = pack_entry(epoch=meta.epoch, now_ms=at_ms, records=records, balances=())
        self.journal.append(
            STOCK,
            incarnation=self.incarnation,
            epoch=meta.epoch,
            seq=seq,
            batch_id=f"s:{self.incarnation}:{seq}",
            entry=entry,
        )
        self.told += [fact for _, fact in order_facts(records, at_ms)]
        return seq

    def relay(
        self, kept: KeptReader | None = None, find_order: FindOrder | None = None
    ) -> tuple[Source, Callable[[], None]]:
        """A relay that runs, and what kills it."""
        links = [(name, LoopLink(self.accounts, name)) for name in ("a", "b")]
        sender = Sender(
            shard=ACCOUNT,
            gateway=f"relay-{len(self._tasks)}",
            links=links,
            clock=self.clock,
            limits=GatherLimits(rounds_in_flight=1, promotion_gap_ms=100),
            map_version=1,
            on_chore=_leave,
        )
        source = Source(
            shard=STOCK,
            journal=LoopJournal(self.journal, STOCK),
            kept=kept,
            find_order=find_order,
            accounts=SenderAccounts([sender]),
            slots_of=SLOTS_OF,
            account_slots={ACCOUNT: ACCOUNT_SLOT},
            clock=self.clock,
            limits=LIMITS,
        )
        tasks = [asyncio.create_task(sender.run()), asyncio.create_task(source.run())]
        self._tasks.update(tasks)

        def kill() -> None:
            for task in tasks:
                task.cancel()

        return source, kill

    def effects(self) -> list[bytes]:
        """What facts did, by the account shard's journal, in order."""
        return [x.key for x in self._journalled() if x.kind == r.REQUEST_REFUSED]

    def marks(self) -> list[tuple[str, int, int]]:
        """Every mark that was journalled."""
        return [
            (x.incarnation, x.source_seq, x.fact_index)
            for x in self._journalled()
            if x.kind == FACT_TAKEN
        ]

    def have_all(self) -> bool:
        """Whether as many facts had an effect as there are."""
        return len(self.effects()) >= len(self.told)

    def check(self) -> None:
        """Each fact had one effect, in the order of its source."""
        assert self.effects() == [name_of(fact) for fact in self.told]

    def stop(self) -> None:
        """End whatever runs."""
        for task in self._tasks:
            task.cancel()

    def _journalled(self) -> list[Any]:
        return [x for entry in self.accounts.entries() for x in unpack_entry(entry.data).records]


async def _leave(chore: tuple[Any, ...]) -> None:
    raise AssertionError(f"an account shard has a chore: {chore}")


@asynccontextmanager
async def stage(patch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A stage whose journals exist; no replica and no relay runs yet."""
    note_all(patch)
    made = Stage()
    for shard in (STOCK, ACCOUNT):
        made.journal.create(shard, incarnation=INCARNATION)
    made.journal.acquire(STOCK, incarnation=INCARNATION, seen_epoch=0, token="t")
    try:
        yield made
    finally:
        made.stop()
        for instance in made.accounts.instances.values():
            instance.kill()
