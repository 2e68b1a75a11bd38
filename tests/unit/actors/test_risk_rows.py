"""What SQL has of a buyer's risk is what memory has, also where a record alone does not say it."""

import json
from typing import Any

import pytest

from actors import risk_rows
from actors.core import facts as f
from actors.core import risk_records as r
from actors.core.evolve import evolve, open_entry
from actors.core.identity import account_slot
from actors.core.risk import due_risk, note, unfreeze
from actors.core.risk_commands import UNFREEZE, Unfreeze
from actors.core.risk_state import FREEZE_MS
from actors.core.state import ShardState

T0, BUYER = 1_700_000_000_000, "ann"
SLOT = account_slot(BUYER)


class Desk:
    """One shard, and the row that its records make."""

    def __init__(self) -> None:
        self.state = ShardState()
        self.row: dict[str, Any] = {}

    def take(self, records: Any, now_ms: int) -> None:
        open_entry(self.state, self.state.seq + 1, now_ms)
        for record in records:
            evolve(self.state, record)
            for _, _, columns in risk_rows.ROWS[record.kind](record, now_ms):
                self.row.update(columns)

    def fail(self, at_ms: int) -> None:
        fact = f.PaymentFailed(f.PAYMENT_FAILED, at_ms, "r", BUYER, "tea")
        self.take(note(self.state, self.state.slot(SLOT), fact, at_ms), at_ms)

    def failures(self) -> list[int]:
        profile = self.state.slot(SLOT).profiles.get(BUYER)
        assert profile is not None
        return list(profile.failures)


@pytest.mark.parametrize("by_itself", [True, False])
def test_failures_under_a_freeze_count_after_it_if_nobody_ended_it(by_itself: bool) -> None:
    desk = Desk()
    for second in range(3):
        desk.fail(T0 + second * 1_000)
    last_ms = T0 + 2_000 + FREEZE_MS - 5_000
    desk.fail(last_ms)
    if by_itself:
        over_ms = T0 + 2_000 + FREEZE_MS
        desk.take(due_risk(desk.state, over_ms, 10), over_ms)
    else:
        command = Unfreeze(UNFREEZE, SLOT, 0, "op", BUYER, "not so")
        desk.take(unfreeze(desk.state, command, last_ms)[1], last_ms)
    assert desk.row["frozen"] == 0
    assert desk.failures() == ([last_ms] if by_itself else [])
    assert json.loads(desk.row["failures_json"]) == desk.failures()


def test_a_freeze_uses_up_the_failures_that_made_it() -> None:
    desk = Desk()
    for second in range(3):
        desk.fail(T0 + second * 1_000)
    assert desk.row["frozen"] == 1
    assert desk.row["cause"] == r.BY_PAYMENT_FAILURES
    assert json.loads(desk.row["failures_json"]) == desk.failures() == []
