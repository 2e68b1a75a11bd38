"""What a run of faults is going to do: decided by the seed, in bounds, and every kind in turn."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from server.chaos.plan import (
    EMBEDDED_KINDS,
    FIRST_S,
    KINDS,
    LAST,
    QUIET_MAX_S,
    SECONDS_MAX,
    ChaosOptions,
    Fault,
    PlanError,
    kinds_of,
    plan_faults,
)

LONG_ENOUGH_S = 1_500.0
PLAN_OF_SEED_1 = (
    Fault(kind="primary-stop", begin_s=3.0, seconds=2.2, shard=86),
    Fault(kind="head-slow", begin_s=10.6, seconds=3.3, shard=None),
    Fault(kind="memory-limit-primary", begin_s=23.0, seconds=6.5, shard=28),
    Fault(kind="clock-back", begin_s=34.7, seconds=4.7, shard=244),
)


def options(**changes: Any) -> ChaosOptions:
    values: dict[str, Any] = {"seconds": 120.0, "seed": 7, "directory": Path("anywhere")}
    return ChaosOptions(**(values | changes))


def test_the_same_seed_plans_the_same_and_another_one_something_else() -> None:
    assert plan_faults(options()) == plan_faults(options(directory=Path("elsewhere")))
    assert plan_faults(options()) != plan_faults(options(seed=8))


def test_a_plan_of_a_seed_is_the_same_on_every_machine() -> None:
    """Written down when it was made: another one breaks the replay of a reported seed."""
    assert plan_faults(options(seconds=60.0, seed=1)) == PLAN_OF_SEED_1


@pytest.mark.parametrize("embedded", [True, False])
def test_every_kind_is_planned_when_time_allows(embedded: bool) -> None:
    planned = [fault.kind for fault in plan_faults(options(seconds=900.0, embedded=embedded))]
    assert set(planned) == set(kinds_of(embedded))
    kinds = kinds_of(embedded)
    assert set(planned[: len(kinds)]) == set(kinds), "one came twice before another came once"


def test_the_embedded_service_is_spared_what_it_does_not_have() -> None:
    assert set(EMBEDDED_KINDS) < set(KINDS)
    spared = ("journal", "database", "gcs", "head", "raylet", "partition", "disk")
    assert not [kind for kind in EMBEDDED_KINDS if kind.startswith(spared)]


@pytest.mark.parametrize("seed", range(20))
def test_faults_leave_each_other_time_and_the_end_is_quiet(seed: int) -> None:
    faults = plan_faults(options(seed=seed, seconds=200.0))
    assert faults[0].begin_s >= FIRST_S
    for before, after in itertools.pairwise(faults):
        assert after.begin_s >= before.begin_s + before.seconds + 4.9
    assert faults[-1].begin_s + faults[-1].seconds <= 200.0 - QUIET_MAX_S


def test_a_short_run_has_faults_too() -> None:
    assert len(plan_faults(options(seconds=10.0, kinds=("primary-kill",)))) >= 1


def test_only_wanted_kinds_are_planned() -> None:
    faults = plan_faults(options(kinds=("partition-journal", "primary-k"), seconds=LONG_ENOUGH_S))
    assert {fault.kind for fault in faults} == {
        "partition-journal",
        "partition-journal-requests",
        "partition-journal-answers",
        "primary-kill",
    }


def test_the_head_dies_after_all_others_were_hit() -> None:
    kinds = [fault.kind for fault in plan_faults(options(seconds=900.0))]
    assert kinds.index(LAST[0]) == len(KINDS) - 1


def test_a_kill_lasts_only_where_somebody_has_to_start_the_victim_again() -> None:
    lasting = {f.kind for f in plan_faults(options(seconds=LONG_ENOUGH_S)) if f.seconds > 0}
    assert {"journal-kill", "raylet-kill", "primary-stop", "clock-back"} <= lasting
    restarted = ("primary", "standby", "gateway", "projector", "account", "relay")
    assert not lasting & {f"{part}-kill" for part in restarted}


def test_a_fault_on_a_shard_names_one() -> None:
    for fault in plan_faults(options(seconds=LONG_ENOUGH_S)):
        of_a_shard = fault.kind in ("clock-forward", "clock-back") or fault.kind.startswith(
            ("primary", "standby", "account", "raylet", "partition", "memory-limit-primary")
        )
        assert (fault.shard is not None) is of_a_shard, fault


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seconds": 1.0}, "seconds"),
        ({"seconds": SECONDS_MAX + 1}, "seconds"),
        ({"nodes": 2}, "nodes"),
        ({"nodes": 99}, "nodes"),
        ({"kinds": ("meteorite",)}, "kinds.*meteorite"),
        ({"kinds": ("raylet",), "embedded": True}, "kinds.*raylet"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(PlanError, match=named):
        options(**change)
