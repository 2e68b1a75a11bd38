"""Rules for all tests: the fast ones start no Ray, those that do are never run side by side, and a
failing example can be run again."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

ROOMS = Path(__file__).parent
FAST = {"unit", "scenarios", "model"}
WHOLE_MACHINE = ("tests/cluster/", "tests/e2e/", "tests/interop/test_sale.py")
"""Where whole clusters run: two at once would be in each other's way."""


class OneClusterAtATime(LoadScopeScheduling):
    """With `-n 2` one worker has all tests with whole clusters, which take the longest, and the
    other one everything else, file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return "whole machine" if _takes_the_machine(nodeid) else nodeid.split("::", maxsplit=1)[0]


def _takes_the_machine(nodeid: str) -> bool:
    return nodeid.startswith(WHOLE_MACHINE)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneClusterAtATime:
    """Who runs which tests."""
    return OneClusterAtATime(config, log)


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
    """Leave out what is marked `extended`, and say how many. The longest come first."""
    items.sort(key=lambda item: _takes_the_machine(item.nodeid), reverse=True)
    if config.getoption("--extended"):
        return
    left = [item for item in items if item.get_closest_marker("extended")]
    if left:
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


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
