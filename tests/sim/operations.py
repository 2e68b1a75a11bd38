"""Operations of callers: a command, its attempts with one id, and what became of it."""

from collections.abc import Callable
from typing import Any

from actors.core import commands as c
from actors.core import commission_commands as d
from actors.core import commission_state as cs
from actors.core import risk_commands as k
from actors.core import team_commands as t
from actors.core.identity import fingerprint as core_fingerprint
from actors.core.identity import fingerprint_of, request_key
from actors.core.stock import transfer_key

REQUESTS = frozenset(
    {
        c.RESERVE,
        c.RETURN_UNITS,
        c.RECEIVE_STOCK,
        c.ADJUST_STOCK,
        c.SET_BUFFER,
        c.DECLARE_SHORTAGE,
        t.OPEN_TEAM,
        t.JOIN_TEAM,
        d.REQUEST_WITHDRAWAL,
    }
)
"""Commands that are remembered by their request id."""


class Operation:
    """What a caller wants, until it knows how it ended or gives up."""

    __slots__ = (
        "attempts",
        "command",
        "final",
        "fingerprint",
        "first_at",
        "mark",
        "number",
        "only_retry",
        "open",
        "retries_left",
        "shard",
        "then",
        "took_effect",
    )

    def __init__(self, number: int, command: Any, shard: int) -> None:
        self.number = number
        self.command = command
        self.shard = shard
        self.mark = mark_of(command)
        self.fingerprint = fingerprint(command)
        self.attempts = 0
        self.open = 0
        """Attempts without an answer."""
        self.first_at = -1
        """Where its journal stood when it was first asked."""
        self.final: int | None = None
        """The outcome it was told for good."""
        self.only_retry = True
        """Each attempt so far was told that it did nothing."""
        self.retries_left = 0
        self.took_effect = False
        self.then: Any = None
        """Called with it when it is over."""

    def __str__(self) -> str:
        return f"op {self.number} {brief(self.command)}"


def fingerprint(command: Any) -> Any:
    """What tells two commands with one id apart, as a record has it; None if nothing need."""
    if command.kind == c.RESERVE:
        fields = (command.campaign_id, command.sku_id, command.quantity, command.buyer_id)
        rest = (command.payable_minor, command.order_id)
        return fingerprint_of("\0".join([str(x) for x in (*fields, *rest)]))
    if command.kind == t.OPEN_TEAM:
        return _seat_fingerprint("open", command.campaign_id, command.sku_id, command)
    if command.kind == t.JOIN_TEAM:
        return _seat_fingerprint("join", command.team_key.hex(), command)
    if command.kind == d.REQUEST_WITHDRAWAL:
        return core_fingerprint(command.distributor_id, command.amount_minor)
    if command.kind == c.CONFIRM:
        return command.reservation_id, command.paid_minor
    if command.kind == c.TRANSFER_OUT:
        ends = (command.sku_id, command.from_campaign_id, command.to_campaign_id)
        return core_fingerprint(*ends, command.quantity)
    return None


def _seat_fingerprint(*given: Any) -> int:
    *what, q = given
    who = "new" if q.new_buyer else ""
    fields = (*what, q.quantity, q.buyer_id, q.payable_minor, who, q.order_id)
    return fingerprint_of("\0".join([str(x) for x in fields]))


def mark_of(command: Any) -> Any:
    """What an effect of the command is known by."""
    kind = command.kind
    if kind in REQUESTS:
        return ("request", command.slot, request_key(command.caller, command.request_id))
    if kind == c.TRANSFER_OUT:
        key = transfer_key(command.slot, command.caller, command.request_id)
        return ("request", command.slot, key)
    if kind == c.CONFIRM:
        return ("payment", command.slot, command.payment_id)
    if kind == c.REPORT_REFUND:
        return ("report", command.slot, request_key(command.caller, command.request_id))
    if kind == c.PUT_SKU:
        return ("put", command.sku_id)
    if kind == c.PUT_CAMPAIGN:
        return ("put", command.campaign_id)
    if kind == c.BEGIN_PAYMENT:
        return ("begun", command.reservation_id)
    if kind == t.LEAVE_TEAM:
        return ("left", command.reservation_id)
    if kind == t.COMPLETE_TEAM:
        return ("completed", command.slot, command.team_key)
    if kind == c.REPORT_FAILED_PAYMENT:
        return ("failed", command.reservation_id, command.payment_id)
    of_accounts = ACCOUNT_MARKS.get(kind)
    return None if of_accounts is None else of_accounts(command)


REVIEWED = {
    d.WITHDRAWAL_APPROVE: cs.APPROVED,
    d.WITHDRAWAL_REJECT: cs.DECLINED,
    d.WITHDRAWAL_PAID: cs.PAID,
    d.WITHDRAWAL_FAILED: cs.FAILED,
}
"""What a review makes of a withdrawal."""
ACCOUNT_MARKS: dict[int, Callable[[Any], tuple[Any, ...]]] = {
    d.PUT_RATES: lambda q: ("rates", q.config),
    d.APPLY_DISTRIBUTOR: lambda q: ("distributor", q.distributor_id),
    d.APPROVE_DISTRIBUTOR: lambda q: ("act", q.distributor_id, q.act),
    d.BIND_REFERRER: lambda q: ("bind", q.buyer_id, q.share_code),
    d.REVIEW_WITHDRAWAL: lambda q: ("review", q.withdrawal_key, REVIEWED[q.act]),
    k.FREEZE: lambda q: ("freeze", q.buyer_id, q.length_ms),
    k.UNFREEZE: lambda q: ("unfreeze", q.buyer_id),
}
"""By kind of a command to an account shard."""


def brief(command: Any) -> str:
    """A command in a line of the story."""
    left_out = ("kind", "slot", "deadline_ms", "caller", "attributes", "config")
    said = [
        f"{name}={value[:11] if isinstance(value, str) else value}"
        for name, value in command._asdict().items()
        if name not in left_out and value not in ("", (), -1, 0)
    ]
    return " ".join([type(command).__name__, *said])
