"""Rules for all tests: the fast ones start no Ray, those that do are never run side by side, and a
failing example can be run again."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOMS = Path(__file__).parent
FAST = {"unit", "scenarios", "model"}
WHOLE_MACHINE = (ROOMS / "cluster", ROOMS / "e2e", ROOMS / "interop" / "test_sale.py")
"""Where whole clusters run: two at once would be in each other's way."""

settings.register_profile(
    "default",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ordinary run has one form of each thing, so that it stays short."""
    parser.addoption("--extended", action="store_true", help="also what is marked `extended`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `extended`, and say how many."""
    for item in items:
        group = "whole-machine" if _takes_the_machine(item) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    # They take the longest: everything else runs beside them.
    items.sort(key=_takes_the_machine, reverse=True)
    if config.getoption("--extended"):
        return
    left = [item for item in items if item.get_closest_marker("extended")]
    if left:
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


def _takes_the_machine(item: pytest.Item) -> bool:
    return any(item.path.is_relative_to(room) for room in WHOLE_MACHINE)


@pytest.fixture(autouse=True)
def fast_tests_start_no_ray(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In unit, scenario and model tests `ray.init` raises."""
    room = Path(request.path).relative_to(ROOMS).parts[0]
    if room in FAST:

        def refuse(*_args: object, **_options: object) -> None:
            raise AssertionError("a fast test may not start Ray")

        monkeypatch.setattr("ray.init", refuse)
