"""Calendar months of a time zone, where clocks are changed at a month's end, too."""

import zoneinfo
from datetime import UTC, datetime
from importlib import metadata
from zoneinfo import ZoneInfo

import pytest

from actors.core.months import bounds_ms, is_month, month_after, month_at, month_before


def utc_ms(*fields: int) -> int:
    return int(datetime(*fields, tzinfo=UTC).timestamp() * 1_000)


@pytest.mark.parametrize(
    ("zone", "month", "begins"),
    [
        ("Asia/Shanghai", 202401, (2023, 12, 31, 16)),
        ("Europe/Berlin", 202404, (2024, 3, 31, 22)),
        ("Europe/Berlin", 202411, (2024, 10, 31, 23)),
        # Midnight does not exist: the clock goes from 23:59 to 1:00.
        ("America/Asuncion", 202310, (2023, 10, 1, 4)),
        # Midnight comes twice on that day: the first counts.
        ("America/Havana", 202011, (2020, 11, 1, 4)),
        ("Asia/Kathmandu", 202405, (2024, 4, 30, 18, 15)),
        ("Pacific/Kiritimati", 202405, (2024, 4, 30, 10)),
        ("Pacific/Pago_Pago", 202405, (2024, 5, 1, 11)),
    ],
)
def test_a_month_begins_with_its_first_instant_there(
    zone: str, month: int, begins: tuple[int, ...]
) -> None:
    begins_ms, _ = bounds_ms(zone, month)
    assert begins_ms == utc_ms(*begins)
    assert (month_at(zone, begins_ms - 1), month_at(zone, begins_ms)) == (
        month_before(month),
        month,
    )


@pytest.mark.parametrize(
    "zone", ["Asia/Shanghai", "Europe/Berlin", "America/Asuncion", "Australia/Lord_Howe"]
)
def test_months_follow_each_other_without_a_gap_and_hold_every_instant(zone: str) -> None:
    month, ends_ms = 202112, bounds_ms(zone, 202112)[1]
    there = ZoneInfo(zone)
    while month < 202512:
        month = month_after(month)
        begins_ms, next_ms = bounds_ms(zone, month)
        assert begins_ms == ends_ms
        for at_ms in range(begins_ms, next_ms, 11 * 3_600_000 + 7):
            day = datetime.fromtimestamp(at_ms / 1_000, there)
            assert month_at(zone, at_ms) == month == day.year * 100 + day.month
        ends_ms = next_ms


def test_a_number_is_a_month_or_is_none() -> None:
    assert is_month(202312)
    assert not any(is_month(number) for number in (0, 12, 202300, 202313, 999_901, -202301))
    assert (month_after(202312), month_before(202401)) == (202401, 202312)


def test_zones_are_known_where_the_system_has_none() -> None:
    """A slim container has no database of zones: it comes with the service, for itself."""
    needed = metadata.requires("stockray-server") or []
    assert any(line.startswith("tzdata") for line in needed)
    zoneinfo.reset_tzpath(to=())
    try:
        shanghai = zoneinfo.ZoneInfo.no_cache("Asia/Shanghai")
    finally:
        zoneinfo.reset_tzpath()
    assert datetime.fromtimestamp(0, shanghai).hour == 8
