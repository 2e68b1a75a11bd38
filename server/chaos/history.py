"""What the load asked and what it was told: one row for each call, with the times of both.

An outcome is what the caller may rely on. `ok`: it was done, or read. `fail`: it was not done (a
refusal, or an answer that nothing was applied). `unknown`: it may be done or not. Times are those
of one monotonic clock in one process, so that "ended before the other began" is a fact.
"""

import json
from array import array
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from stockray import ServerError, Status, StockrayError

from actors.core.identity import public_id, request_key

CALLER = "default"
OPERATIONS_MAX = 200_000
"""Rows that a history holds, some 150 MB: a load stops there."""

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
RESERVING = frozenset({"grab", "reserve"})
SEATING = frozenset({"open_team", "join_team"})
HOLDING = RESERVING | SEATING
BINDING = "bind"
"""Calls that hold units; the pulse of sales is that of `RESERVING` alone."""
READING = frozenset({"get_stock", "get_reservation", "get_team", "suggest_teams"})

DONE = frozenset(
    {
        Status.RESERVED,
        Status.CONFIRMED,
        Status.RELEASED,
        Status.RETURNED,
        Status.PAYMENT_BEGUN,
        Status.NOTED,
        Status.REFUND_DUE,
        Status.FOUND,
        Status.LEFT,
        Status.APPLIED,
    }
)
"""Answers after which something is as it was asked for. A refund due is an effect, too."""


class Operation(NamedTuple):
    """One call. `mark` names the effect that it asks for: calls of one mark are repeats."""

    number: int
    verb: str
    shard: int
    campaign_id: str
    sku_id: str
    buyer_id: str
    quantity: int
    mark: str
    reservation_id: str
    began_s: float
    ended_s: float
    outcome: str
    status: str
    answer: tuple[Any, ...]
    """What must be the same for a repeat, or what a read saw."""
    team_id: str = ""

    @property
    def definite(self) -> bool:
        """Whether a shard decided and the caller was told so."""
        return self.outcome == OK or (self.outcome == FAIL and self.status not in NOT_APPLIED)


NOT_APPLIED = frozenset(
    {"RETRY", "Unavailable", "Overloaded", "DeadlineExceeded", "BUYER_FROZEN", "RATE_LIMITED"}
)
"""How a call ends that claims to have done nothing, without a decision of the shard."""


def request_mark(slot: int, request_id: str) -> str:
    """The effect of a reserve or a return."""
    return f"request:{public_id(slot, request_key(CALLER, request_id))}"


def payment_mark(slot: int, payment_id: str) -> str:
    """The effect of a payment that came in."""
    return f"payment:{slot}:{payment_id}"


def failed_mark(reservation_id: str, payment_id: str) -> str:
    """The effect of the report that a payment failed."""
    return f"failed:{reservation_id}:{payment_id}"


def begin_mark(reservation_id: str) -> str:
    """The effect of the first begin of a payment."""
    return f"begin:{reservation_id}"


def release_mark(reservation_id: str) -> str:
    """The effect of a release, or of leaving a team."""
    return f"release:{reservation_id}"


def bind_mark(buyer_id: str) -> str:
    """The effect of a share code that a buyer gives alone."""
    return f"bind:{buyer_id}"


def delivery_mark(reservation_id: str) -> str:
    """The effect of the report that an order was delivered."""
    return f"delivered:{reservation_id}"


def outcome_of(status: Status) -> str:
    """What a caller who was told this status may rely on."""
    if status in DONE:
        return OK
    return UNKNOWN if status in (Status.UNKNOWN, Status.INTERNAL) else FAIL


def outcome_of_error(error: StockrayError) -> str:
    """The same for a request without an answer. Raises the error when the load itself is wrong."""
    if isinstance(error, ServerError):
        return UNKNOWN
    if not error.retriable:
        raise error
    return UNKNOWN if error.maybe_applied else FAIL


def completion_mark(team_id: str) -> str:
    """The effect of completing a team by hand."""
    return f"complete:{team_id}"


class History:
    """All calls of a run, in the order in which they ended."""

    def __init__(self, shards: int, *, operations_max: int = OPERATIONS_MAX) -> None:
        self.operations: list[Operation] = []
        self.sales = [array("d") for _ in range(shards)]
        """By shard, when each acknowledged reservation was answered, rising."""
        self.asked = [array("d") for _ in range(shards)]
        """Beside `sales`, when it was asked for."""
        self.outcomes: Counter[str] = Counter()
        self._max = operations_max
        self._numbers = 0

    @property
    def full(self) -> bool:
        """Whether no more may be asked."""
        return self._numbers >= self._max

    def number(self) -> int:
        """The next call's number; a call that has one is added in any case."""
        self._numbers += 1
        return self._numbers

    def add(self, operation: Operation) -> None:
        """A call has ended."""
        self.operations.append(operation)
        self.outcomes[operation.outcome] += 1
        if operation.verb in RESERVING and operation.outcome == OK:
            self.sales[operation.shard].append(operation.ended_s)
            self.asked[operation.shard].append(operation.began_s)

    def write(self, path: Path) -> None:
        """As JSON lines, one for each call. Raises OSError."""
        with path.open("w", encoding="utf-8") as file:
            for operation in self.operations:
                file.write(json.dumps(operation._asdict()) + "\n")
