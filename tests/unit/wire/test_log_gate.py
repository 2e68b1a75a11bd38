"""Strangers cannot fill a disk."""

import pytest

from wire import log_gate
from wire.log_gate import BURST, LogGate


def test_lines_beyond_the_burst_are_withheld_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(log_gate.time, "monotonic", lambda: now_s)
    gate = LogGate()
    assert sum(gate.allow() for _ in range(1_000)) == BURST
    now_s += 5
    assert gate.allow()
    assert gate.withheld == 1_000 - BURST
    assert sum(gate.allow() for _ in range(1_000)) == 4
    assert gate.withheld == 0
