"""One running service for each kind of journal, shared by all tests of this room.

The tests run kind by kind, so that only one service runs at a time; each test gets it running and
whole, whatever the test before did to it.
"""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.helpers.stack import KINDS, OTHER_LINKS, Stack, running_stack

HERE = Path(__file__).parent


@pytest.fixture(scope="package", params=KINDS)
def shared_stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Stores and a service, perhaps stopped."""
    with running_stack(request.param) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """A running service."""
    shared_stack.ensure_running()
    return shared_stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First those with a service of their own, then kind by kind; otherwise as written. Tests of
    other rooms keep their places."""
    places = [place for place, item in enumerate(items) if item.path.is_relative_to(HERE)]
    ours = sorted((items[place] for place in places), key=_kind)
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def _kind(item: pytest.Item) -> int:
    callspec = getattr(item, "callspec", None)
    kinds = (None, *KINDS, *OTHER_LINKS)
    return kinds.index(callspec.params.get("shared_stack") if callspec else None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The ends of the service's logs, with a failed test."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("shared_stack")
    if report.failed and isinstance(stack, Stack):
        report.sections += [(f"log of {name}", tail) for name, tail in stack.cluster.logs()]
    return report
