"""How far the relay is, as a gateway tells it while the relay is killed and comes back."""

from typing import Any

from server.relay_status import SILENT, RelayStatus


def said(position: int, lag_ms: int = 0, trouble: str = "") -> list[dict[str, Any]]:
    return [
        {"shard": 0, "position": position, "lag_ms": lag_ms, "set_aside": 0, "trouble": trouble}
    ]


def test_a_silent_relay_is_as_far_as_it_said_last_and_its_lag_grows() -> None:
    status = RelayStatus(1)
    assert status.take(said(40, lag_ms=200), 10.0)[0]["position"] == 40
    silent = status.take(None, 12.5)[0]
    assert (silent["position"], silent["lag_ms"], silent["trouble"]) == (40, 2_700, SILENT)
    assert status.take(None, 13.5)[0]["lag_ms"] == 3_700


def test_of_a_relay_that_never_answered_nothing_is_known_but_that() -> None:
    assert RelayStatus(2).take(None, 5.0) == {0: {"trouble": SILENT}, 1: {"trouble": SILENT}}


def test_a_relay_that_has_just_begun_does_not_set_positions_back() -> None:
    status = RelayStatus(1)
    status.take(said(40), 1.0)
    begun = status.take(said(0, trouble="starting"), 2.0)[0]
    assert (begun["position"], begun["trouble"]) == (40, "starting")
    assert status.take(said(41), 3.0)[0] == said(41)[0]
