"""What can be asked about risk. Part of `commands.py`, whose rules hold here.

A profile lives in the account slot of its buyer. `ReportSignals` and `PullRisk` come from gateways
alone; they are about nobody's money, and nothing is lost with a lost one but a little time.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

GET_PROFILE, FREEZE, UNFREEZE, REPORT_SIGNALS, PULL_RISK, HOLD_TOLD = range(90, 96)


class GetProfile(NamedTuple):
    """Read a buyer's score, signals and freeze."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    buyer_id: str


class Freeze(NamedTuple):
    """An operator freezes a buyer for so long from now; a freeze that stands ends then, too."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    buyer_id: str
    length_ms: int
    reason: str = ""


class Unfreeze(NamedTuple):
    """An operator ends a buyer's freeze now."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    buyer_id: str
    reason: str = ""


class ReportSignals(NamedTuple):
    """A gateway refused a buyer so many calls for their rate lately."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    buyer_id: str
    times: int


class PullRisk(NamedTuple):
    """Who is over a line in the shard that owns the slot. `since` is where the answer before began
    to be valid, or -1; `cursor` where its page ended. See `risk.pull_risk`."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    since: int
    cursor: int


class HoldTold(NamedTuple):
    """The commission programme knows what was decided on this buyer's freeze up to then."""

    kind: int
    slot: int
    deadline_ms: int
    caller: str
    buyer_id: str
    as_of_ms: int


MAKE: dict[int, Callable[[Sequence[Any]], Any]] = {
    GET_PROFILE: GetProfile._make,
    FREEZE: Freeze._make,
    UNFREEZE: Unfreeze._make,
    REPORT_SIGNALS: ReportSignals._make,
    PULL_RISK: PullRisk._make,
    HOLD_TOLD: HoldTold._make,
}
"""See `commands.MAKE`."""
