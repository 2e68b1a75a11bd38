"""Calendar months of a time zone, as numbers like 202611.

Only who decides asks: the month and its ends are in the record, so a replica with other rules for
a time zone arrives at the same state.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MONTHS_A_YEAR = 12


def month_at(time_zone: str, at_ms: int) -> int:
    """The month in which an instant falls there."""
    return _month_of_hour(time_zone, at_ms // _STEP_MS)


_STEP_MS = 15 * 60_000
"""No zone has ever changed its month within a quarter of an hour of UTC since 1972."""


@lru_cache(maxsize=1_024)
def _month_of_hour(time_zone: str, step: int) -> int:
    there = datetime.fromtimestamp(step * _STEP_MS / 1_000, ZoneInfo(time_zone))
    return there.year * 100 + there.month


@lru_cache(maxsize=256)
def bounds_ms(time_zone: str, month: int) -> tuple[int, int]:
    """The first instant of a month there, and that of the next."""
    return _begins_ms(time_zone, month), _begins_ms(time_zone, month_after(month))


def _begins_ms(time_zone: str, month: int) -> int:
    # Midnight may not exist there on that day, or twice: the first instant of the day is looked
    # for among the quarters of an hour around it.
    zone = ZoneInfo(time_zone)
    midnight = datetime(month // 100, month % 100, 1, tzinfo=zone)
    step = int((midnight - timedelta(hours=3)).timestamp() * 1_000) // _STEP_MS
    while month_at(time_zone, step * _STEP_MS) < month:
        step += 1
    return step * _STEP_MS


def month_after(month: int) -> int:
    """The next one."""
    year, number = divmod(month, 100)
    return month + 1 if number < MONTHS_A_YEAR else (year + 1) * 100 + 1


def month_before(month: int) -> int:
    """The one before."""
    year, number = divmod(month, 100)
    return month - 1 if number > 1 else (year - 1) * 100 + MONTHS_A_YEAR


def is_month(month: int) -> bool:
    """Whether a number names a month of the years 1970 to 9998."""
    year, number = divmod(month, 100)
    return 1970 <= year < 9_999 and 1 <= number <= MONTHS_A_YEAR
