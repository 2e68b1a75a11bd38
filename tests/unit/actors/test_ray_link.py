"""A link to an actor that is not there yet, without Ray: what stands in for it is found or not."""

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from actors import ray_link
from actors.cluster import ClusterError
from actors.ray_link import RayLink
from tests.helpers.virtual_time import until


def handle_of(token: str) -> Any:
    """An actor that says hello."""
    told: Future[Any] = Future()
    told.set_result((token, "elsewhere:0:0", ()))
    return SimpleNamespace(
        hello=SimpleNamespace(remote=lambda: SimpleNamespace(future=lambda: told))
    )


async def test_an_actor_that_was_not_started_yet_is_silent_and_then_greeted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed, it would count as one that cannot own anything, and as greeted by nobody."""
    monkeypatch.setattr(ray_link, "LATE_PAUSE_S", 0.001)
    started: list[Any] = []
    looks = 0

    def find() -> Any:
        nonlocal looks
        looks += 1
        if not started:
            raise ClusterError("no such actor")
        return started[0]

    link = RayLink(None, find)
    given_up = asyncio.create_task(link.hello())
    greeting = asyncio.create_task(link.hello())
    await until(lambda: looks >= 20)
    assert not greeting.done()
    given_up.cancel()
    started.append(handle_of("a-1"))
    assert await asyncio.wait_for(greeting, 20) == "a-1"
    assert link.token == "a-1"
