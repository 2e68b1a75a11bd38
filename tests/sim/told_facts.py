"""Which facts stock journals tell, and which of them account shards took: each once, in order.

In order of each source; and what binds a buyer before the orders that it pays for, whatever source
it is of: an order is taken when all bindings were that stood in another journal before it, and are
of a time before the order was reserved. So is a second touch of one buyer.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.core import facts as f
from actors.core.order_facts import order_facts
from actors.core.relay_commands import ENTRY_END
from actors.core.relay_records import FactTaken
from tests.sim.books import need

Place = tuple[int, int]
"""An entry of a stock shard, and a fact of it for one account shard."""


class Told(NamedTuple):
    """A fact that is to be taken."""

    place: Place
    slot: int
    fact: Any
    entry: int
    """How many entries were told before its own, of all sources."""


def needed_ms(fact: Any) -> int:
    """Bindings of a time before this are to be taken before it; 0: it needs none."""
    if fact.kind == f.ORDER_EARNED:
        return int(fact.reserved_ms)
    return int(fact.at_ms) if fact.kind == f.ORDER_BOUND else 0


class ToldFacts:
    """Of all shards."""

    def __init__(self, slots_of: Sequence[int]) -> None:
        self._slots_of = slots_of
        self._waiting: dict[tuple[int, int], deque[Told]] = {}
        """(Account shard, source) -> what is told and not taken."""
        self._marks: dict[tuple[int, int], Place] = {}
        self._entries = 0
        self.overtaking = 0
        """Orders that were told when an older binding of another source was not taken."""
        self.earned: dict[str, tuple[str, int, int]] = {}
        """Order -> (buyer, units, money) of the fact that it earns."""

    @property
    def missing(self) -> int:
        """Facts that were told and not taken."""
        return sum(len(facts) for facts in self._waiting.values())

    def waiting(self, source: int) -> bool:
        """A fact of this shard was told and not taken."""
        return any(facts for (_, of), facts in self._waiting.items() if of == source)

    def mark(self, account: int, source: int) -> Place:
        """How far an account shard has taken them."""
        return self._marks.get((account, source), (0, 0))

    def tell(self, source: int, seq: int, records: Sequence[Any], at_ms: int) -> None:
        """An entry of a stock shard."""
        self._entries += 1
        found: dict[int, list[tuple[int, Any]]] = {}
        for slot, fact in order_facts(records, at_ms):
            found.setdefault(self._slots_of[slot], []).append((slot, fact))
            if fact.kind == f.ORDER_EARNED:
                need(fact.reservation_id not in self.earned, "relay", "an order earns twice")
                told = fact.buyer_id, fact.quantity, fact.base_minor
                self.earned[fact.reservation_id] = told
        for account, facts in found.items():
            waiting = self._waiting.setdefault((account, source), deque())
            for index, (slot, fact) in enumerate(facts, start=1):
                # The last of an entry ends it.
                at = index - 1 if index < len(facts) else ENTRY_END
                told = Told((seq, at), slot, fact, self._entries)
                waiting.append(told)
                earns = fact.kind == f.ORDER_EARNED
                self.overtaking += earns and self._older(account, source, told) is not None

    def take(self, account: int, record: FactTaken, source_seq: int) -> list[Told]:
        """The facts that a mark takes: all since the one before it, if there are any, and it stands
        at the last of them. `source_seq`: where its journal ends."""
        key = account, record.source
        place, before = (record.source_seq, record.fact_index), self._marks.get(key, (0, 0))
        need(place > before, "relay", lambda: f"the mark of {key} goes from {before} to {place}")
        need(
            record.source_seq <= source_seq,
            "relay",
            lambda: f"the mark of {key} is at {place}, and its journal ends at {source_seq}",
        )
        self._marks[key] = place
        waiting, passed = self._waiting.get(key), list[Told]()
        while waiting and waiting[0].place <= place:
            passed.append(waiting.popleft())
        need(
            not passed or passed[-1].place == place,
            "relay",
            lambda: f"the mark of {key} at {place} passes over {passed}",
        )
        for told in passed:
            older = self._older(account, record.source, told)
            need(older is None, "relay", lambda a=told, b=older: f"{a} is taken before {b}")
        return passed

    def _older(self, account: int, source: int, told: Told) -> Told | None:
        """A binding of another source that is to be taken before this fact, and is not."""
        until_ms = needed_ms(told.fact)
        for (to, of), waiting in self._waiting.items() if until_ms else ():
            if to != account or of == source:
                continue
            for other in waiting:
                if other.fact.at_ms >= until_ms or other.entry >= told.entry:
                    break
                anyone = told.fact.kind == f.ORDER_EARNED
                bound = other.fact.kind == f.ORDER_BOUND
                if bound and (anyone or other.fact.buyer_id == told.fact.buyer_id):
                    return other
        return None
