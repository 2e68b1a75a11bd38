"""Every outcome of every line, one enum: a success, or the rule that was broken.

Numbered for ever; the numbers are those of `stockray.v1.LineStatus` (a unit test compares them).
A refusal is a value, never an exception. `UNFINAL` outcomes claim nothing about the request: the
same id may be sent again and may then have another outcome.
"""

from enum import IntEnum
from typing import Any


class Outcome(IntEnum):
    """What became of one line."""

    APPLIED = 1
    RESERVED = 2
    CONFIRMED = 3
    RELEASED = 4
    RETURNED = 5
    PAYMENT_BEGUN = 6
    NOTED = 7
    REFUND_DUE = 8
    FOUND = 9
    LEFT = 10

    SOLD_OUT = 20
    LIMIT_EXCEEDED = 21
    DEVICE_LIMIT_EXCEEDED = 22
    NOT_STARTED = 23
    ENDED = 24
    PAUSED = 25
    NOT_FOUND = 26
    NOT_ELIGIBLE = 27
    BUYER_FROZEN = 28
    RATE_LIMITED = 29
    ID_REUSED = 30
    INVALID = 31
    INTERNAL = 32
    RETRY = 33
    UNKNOWN = 34

    EXPIRED = 40
    ALREADY_CONFIRMED = 41
    ALREADY_RELEASED = 42
    NOT_CONFIRMED = 43
    EXCEEDS_QUANTITY = 44
    EXCEEDS_AVAILABLE = 45
    PAYMENT_ID_REUSED = 46
    REFUND_CLOSED = 47
    CAMPAIGN_CONFLICT = 48
    REVOKED = 49
    EXCEEDS_TOTAL = 50

    TEAM_FULL = 60
    TEAM_CLOSED = 61
    TEAM_NOT_OPEN = 62
    ALREADY_IN_TEAM = 63
    NEW_BUYERS_ONLY = 64
    TOO_MANY_TEAMS = 65
    TEAM_ONLY = 66
    TEAM_FORMING = 67

    NOT_DISTRIBUTOR = 80
    NOT_ACTIVE = 81
    SELF_REFERRAL = 82
    CYCLE = 83
    BOUND_ALREADY = 84
    NOT_NEW_BUYER = 85
    WITHDRAWAL_CONFLICT = 86
    MONTH_NOT_OVER = 87
    DISTRIBUTOR_CONFLICT = 88

    WRONG_SHARD = 90
    """The shard does not own the line's slot: routing only, never shown to a caller."""
    RECALL = 91
    """The reservation may have left memory: its gateway fetches the row; never shown either."""
    OUT_OF_ORDER = 92
    """The relay's fact does not follow the one before; never shown either."""


class Undecided(Exception):
    """Deciding on a line failed, by a bug or because it is no command. `answer` is its answer."""

    def __init__(self, answer: tuple[Any, ...]) -> None:
        super().__init__(answer)
        self.answer = answer


UNFINAL = frozenset(
    {
        Outcome.INTERNAL,
        Outcome.RETRY,
        Outcome.UNKNOWN,
        Outcome.WRONG_SHARD,
        Outcome.RECALL,
        Outcome.OUT_OF_ORDER,
    }
)
