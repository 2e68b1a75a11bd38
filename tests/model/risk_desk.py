"""An account shard without its shell, told of failures, returns and hits, and its edges.

`Desk` is a `Shop` that is asked about risk. `Edge` pulls from it as a gateway does.
"""

from typing import Any

from actors.core import facts as f
from actors.core import risk_commands as c
from actors.core.identity import account_slot
from actors.core.outcomes import Outcome
from actors.core.risk import due_risk, note
from actors.core.risk_state import FREEZE_MS
from server.risk_set import RiskSet
from tests.model.shop import Shop

HEAD = (0, "op")


class Desk(Shop):
    """One account shard's primary."""

    def tell(self, fact: Any) -> None:
        """The relay brings a fact."""
        self.open()
        slot = self.state.slot(account_slot(fact.buyer_id))
        self.fold(note(self.state, slot, fact, self.now_ms))
        self.close()

    def fail_to_pay(self, buyer: str, *, ago_ms: int = 0, sku: str = "tea") -> None:
        self.tell(f.PaymentFailed(f.PAYMENT_FAILED, self.now_ms - ago_ms, "r", buyer, sku))

    def leave_unpaid(self, buyer: str, *, ago_ms: int = 0) -> None:
        self.tell(f.UnpaidExpiry(f.UNPAID_EXPIRY, self.now_ms - ago_ms, "r", buyer))

    def send_back(self, buyer: str, *, ago_ms: int = 0) -> None:
        self.tell(f.OrderReturned(f.ORDER_RETURNED, self.now_ms - ago_ms, "r", buyer))

    def hit_the_limit(self, buyer: str, count: int = 1) -> tuple[Any, ...]:
        return self.do(c.ReportSignals(c.REPORT_SIGNALS, account_slot(buyer), *HEAD, buyer, count))

    def freeze(self, buyer: str, length_ms: int = FREEZE_MS) -> tuple[Any, ...]:
        command = c.Freeze(c.FREEZE, account_slot(buyer), *HEAD, buyer, length_ms, "stolen cards")
        return self.do(command)

    def unfreeze(self, buyer: str) -> tuple[Any, ...]:
        return self.do(c.Unfreeze(c.UNFREEZE, account_slot(buyer), *HEAD, buyer, "it was not"))

    def told(self, buyer: str, as_of_ms: int) -> tuple[Any, ...]:
        return self.do(c.HoldTold(c.HOLD_TOLD, account_slot(buyer), *HEAD, buyer, as_of_ms))

    def as_of(self, buyer: str) -> int:
        """When the freeze was changed last."""
        return int(self.view(buyer)[7])

    def view(self, buyer: str) -> tuple[Any, ...]:
        """(Score, frozen until or 0, cause, caller, reason, when whole, counts, as of when)."""
        outcome, view = self.do(c.GetProfile(c.GET_PROFILE, account_slot(buyer), *HEAD, buyer))
        assert outcome == Outcome.FOUND
        return tuple(view)

    def score(self, buyer: str) -> int:
        return int(self.view(buyer)[0])

    def frozen_until(self, buyer: str) -> int:
        return int(self.view(buyer)[1])

    def pulse_risk(self, limit: int = 1_000) -> list[Any]:
        """What time does by itself, a slice of it."""
        return self._due(lambda: due_risk(self.state, self.now_ms, limit))

    def remembered(self) -> set[str]:
        """Buyers with a profile in memory."""
        return {buyer for slot in self.state.slots.values() for buyer, _ in slot.profiles.items()}


class Edge:
    """A gateway's set of a desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.set = RiskSet()
        self.pages = 0

    def page(self) -> bool:
        """One pull; True if there is more to ask for at once."""
        self.pages += 1
        command = c.PullRisk(c.PULL_RISK, 1024, *HEAD, self.set.since, self.set.cursor)
        return self.set.take(self.desk.do(command), self.desk.now_ms / 1000)

    def pull(self) -> None:
        """Until it has all."""
        while self.page():
            pass

    def frozen(self) -> set[str]:
        """Whom it refuses now."""
        now_ms = self.desk.now_ms
        return {buyer for buyer, (until_ms, _) in self.set.rows.items() if until_ms > now_ms}
