"""Which faults a run tries, and when: drawn from the seed alone, the same on every machine.

What a machine cannot do is found out later and skipped with its reason; it keeps its place here.
A kind is `target-act`, or the name of something that is done to a whole node or store.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SECONDS_MIN, SECONDS_MAX = 10.0, 86_400.0
NODES_MIN, NODES_MAX = 3, 6
FIRST_S = 3.0
"""Before the first fault, so that there is a rate to compare with."""
QUIET_SHARE, QUIET_MAX_S = 0.25, 20.0
"""The end of a run without faults: what came to a stop must go on there."""
DECIMALS = 1

_ACTS = ("kill", "stop", "slow")
_PROCESSES = ("primary", "standby", "gateway", "projector")
_PLACES = ("raylet", "gcs", "head", "journal", "database")
LAST = ("head-kill",)
"""Kinds after which an operator starts the service again: they come at the end of each round."""
EMBEDDED_KINDS = (
    *(f"{target}-{act}" for target in _PROCESSES for act in _ACTS),
    "account-kill",
    "relay-kill",
    "relay-stop",
    "memory-limit-primary",
    "clock-forward",
    "clock-back",
    "clock-forward-gateway",
)
KINDS = (
    *EMBEDDED_KINDS,
    *(f"{target}-{act}" for target in _PLACES for act in _ACTS),
    "partition-journal",
    "partition-journal-requests",
    "partition-journal-answers",
    "partition-gcs",
    "partition-gcs-requests",
    "partition-gcs-answers",
    "partition-both",
    "partition-node",
    "disk-full-journal",
    "memory-limit-journal",
)
_OF_A_SHARD = (
    "primary",
    "standby",
    "account",
    "raylet",
    "partition",
    "clock",
    "memory-limit-primary",
)
"""Beginnings of the kinds whose victim is chosen by a shard: of accounts, or else of stock."""
_LONG = ("raylet", "gcs", "head", "partition-gcs", "partition-both", "partition-node")
"""Beginnings of the kinds after which Ray needs its time until all is whole."""
_OUTAGES_S = {
    "journal-kill": (1.0, 3.0),
    "database-kill": (2.0, 4.0),
    "gcs-kill": (2.0, 4.0),
    "head-kill": (2.0, 4.0),
    "raylet-kill": (1.0, 3.0),
    "disk-full-journal": (2.0, 4.0),
}
"""How long what was killed stays away, where somebody else than Ray has to start it again."""
_STORE_STOP_S = (1.0, 4.0)
_STOP_S = (2.0, 6.0)
_SLOW_S = (3.0, 5.0)
_CUT_S = (3.0, 7.0)
_SETTLE_S, _LONG_SETTLE_S = 5.0, 9.0


class PlanError(ValueError):
    """An option has no allowed value. Names the option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosOptions:
    """What a run is asked for."""

    seconds: float
    """Of load, from SECONDS_MIN on; the start and the checks come on top."""
    seed: int
    nodes: int = 3
    """Ray nodes, of which the first is the head and holds no shards."""
    embedded: bool = False
    """SQLite and a local Ray, instead of several nodes, Redis and MariaDB."""
    kinds: tuple[str, ...] = ()
    """Beginnings of the kinds that are wanted; empty: all."""
    directory: Path

    def __post_init__(self) -> None:
        if not SECONDS_MIN <= self.seconds <= SECONDS_MAX:
            raise PlanError(f"seconds: must be from {SECONDS_MIN:.0f} to {SECONDS_MAX:.0f}")
        if not NODES_MIN <= self.nodes <= NODES_MAX:
            raise PlanError(f"nodes: must be from {NODES_MIN} to {NODES_MAX}, the head included")
        for wanted in self.kinds:
            if not any(kind.startswith(wanted) for kind in kinds_of(self.embedded)):
                known = ", ".join(kinds_of(self.embedded))
                raise PlanError(f"kinds: no fault begins with {wanted!r}; known are {known}")


class Fault(NamedTuple):
    """One fault to come."""

    kind: str
    begin_s: float
    """After the beginning of the load."""
    seconds: float
    """How long it lasts; 0 for the kill of a process that Ray starts again."""
    shard: int | None
    """Whose process, or whose primary's node, is meant; None for what all shards share. To be
    taken modulo the number of shards."""


def kinds_of(embedded: bool) -> tuple[str, ...]:
    """All kinds that make sense for a way of running, whatever this machine can do."""
    return EMBEDDED_KINDS if embedded else KINDS


def plan_faults(options: ChaosOptions) -> tuple[Fault, ...]:
    """The faults in order of time; every wanted kind once before one comes twice.

    None begins before the one before it has ended and had time to settle, and none lasts into the
    quiet end of the run. A run that is too short for all kinds has a draw of them."""
    dice = random.Random(f"chaos {options.seed}")
    quiet_s = min(QUIET_MAX_S, options.seconds * QUIET_SHARE)
    end_s = options.seconds - quiet_s
    faults: list[Fault] = []
    now_s = FIRST_S
    for kind in _rounds(options, dice):
        seconds = _seconds_of(kind, dice)
        of_a_shard = kind.startswith(_OF_A_SHARD) and not kind.endswith("-gateway")
        shard = dice.randrange(256) if of_a_shard else None
        if now_s + seconds > end_s:
            break
        faults.append(Fault(kind, round(now_s, DECIMALS), seconds, shard))
        settle_s = _LONG_SETTLE_S if kind.startswith(_LONG) else _SETTLE_S
        now_s += seconds + settle_s + dice.uniform(0, 1)
    return tuple(faults)


def _rounds(options: ChaosOptions, dice: random.Random) -> Iterator[str]:
    """Kinds for ever, in rounds of all that are wanted."""
    wanted = [
        kind
        for kind in kinds_of(options.embedded)
        if not options.kinds or kind.startswith(options.kinds)
    ]
    first = [kind for kind in wanted if kind not in LAST]
    while True:
        dice.shuffle(first)
        yield from first
        yield from (kind for kind in wanted if kind in LAST)


def _seconds_of(kind: str, dice: random.Random) -> float:
    return round(dice.uniform(*_span_of(kind)), DECIMALS)


def _span_of(kind: str) -> tuple[float, float]:
    if kind in _OUTAGES_S:
        return _OUTAGES_S[kind]
    if kind.endswith("-kill"):
        return (0.0, 0.0)
    if kind.endswith("-slow"):
        return _SLOW_S
    if kind in ("journal-stop", "database-stop"):
        return _STORE_STOP_S
    return _STOP_S if kind.endswith("-stop") else _CUT_S
