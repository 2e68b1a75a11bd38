"""Which facts stock journals tell, and which of them account shards took: each once, in order."""

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


class ToldFacts:
    """Of all shards."""

    def __init__(self, slots_of: Sequence[int]) -> None:
        self._slots_of = slots_of
        self._waiting: dict[tuple[int, int], deque[Told]] = {}
        """(Account shard, source) -> what is told and not taken."""
        self._marks: dict[tuple[int, int], Place] = {}
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
                waiting.append(Told((seq, at), slot, fact))

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
        return passed
