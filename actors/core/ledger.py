"""Writing entries: numbers, months and amounts of what is decided, before any of it is folded."""

from actors.core.commission_records import Entry
from actors.core.commission_state import (
    AVAILABLE_AT,
    SETTLED_AT,
    Distributor,
    Programme,
)
from actors.core.months import month_at

NO_ZONE = "UTC"
"""Of a programme without rates, which has no entries."""


def month_now(programme: Programme, now_ms: int) -> int:
    """The month of the programme's time zone."""
    newest = programme.newest()
    return month_at(NO_ZONE if newest is None else newest.config.time_zone, now_ms)


class Book:
    """Numbers the entries of one decision, which may be many records folded in order."""

    __slots__ = ("month", "number")

    def __init__(self, programme: Programme, now_ms: int) -> None:
        self.number = programme.entry_count
        self.month = month_now(programme, now_ms)

    def entry(
        self,
        event: int,
        distributor_id: str,
        about: str,
        *,
        level: int = 0,
        version: int = 0,
        expense: int = 0,
        frozen: int = 0,
        available: int = 0,
        settled: int = 0,
        withdrawing: int = 0,
        paid_out: int = 0,
    ) -> Entry:
        """The next one. Its amounts, in minor units, sum to 0."""
        self.number += 1
        return Entry(
            self.number,
            event,
            distributor_id,
            about,
            level,
            version,
            self.month,
            expense,
            frozen,
            available,
            settled,
            withdrawing,
            paid_out,
        )


def taken(distributor: Distributor, amount_minor: int, *, settled_first: bool) -> tuple[int, int]:
    """(From available, from settled) of an amount. A withdrawal takes what is settled first and is
    never above both; a reversal takes what is available first, and the rest may go below 0."""
    available, settled = distributor.balances[AVAILABLE_AT], distributor.balances[SETTLED_AT]
    if settled_first:
        from_settled = min(amount_minor, max(0, settled))
    else:
        from_settled = amount_minor - min(amount_minor, available)
    return amount_minor - from_settled, from_settled
