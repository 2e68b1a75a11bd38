"""What an operator reads when Ray does not start, and what is ours to raise through it."""

from typing import Any

import pytest
import ray

from actors import cluster


@pytest.mark.parametrize(
    "trouble",
    [
        ConnectionError("no such host"),
        TimeoutError("too late"),
        # As Ray raises it when its node takes longer than it likes.
        Exception("The current node timed out during startup."),
    ],
)
def test_a_ray_that_does_not_start_is_an_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    monkeypatch.setattr(ray, "init", _raises(trouble))
    with pytest.raises(cluster.ClusterError, match=f"ray_address: .*127.0.0.1:1.*{trouble}"):
        cluster.connect("127.0.0.1:1", namespace="test")


def test_an_error_of_ours_passes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", _raises(AssertionError("ours")))
    with pytest.raises(AssertionError, match="ours"):
        cluster.connect("127.0.0.1:1", namespace="test")


def _raises(error: Exception) -> Any:
    def init(**_options: object) -> None:
        raise error

    return init
