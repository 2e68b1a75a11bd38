"""Histories of buyers' conduct beside the naive rules, and each rule broken on purpose.

A mutant that survives fails its test.
"""

from collections.abc import Callable

import pytest

from actors.core import risk, snapshot
from actors.core.evolve import Impossible
from tests.helpers import risk_breakages as b
from tests.model.risk_walk import walk

WALKS_MAX = 60
"""A mutant has to be caught within so many seeded histories."""

Mutant = Callable[[pytest.MonkeyPatch], None]

MUTANTS: list[Mutant] = [
    b.failures_count_by_sku_or_shard_of_the_last_alone,
    b.the_window_never_closes,
    b.the_window_ends_a_moment_early,
    b.two_failures_are_enough,
    b.a_freeze_counts_its_failures_again,
    b.an_unfrozen_buyers_failures_still_count,
    b.a_shorter_freeze_replaces_a_longer_one,
    b.a_freeze_never_ends_by_itself,
    b.a_score_never_heals,
    b.a_score_heals_a_point_too_early,
    b.a_score_falls_below_nothing,
    b.returns_weigh_as_failures,
    b.all_hits_of_a_report_count,
    b.an_old_signal_adds_to_a_healed_score,
    b.profiles_are_forgotten_before_they_healed,
    b.profiles_stay_for_ever,
    b.the_edge_is_not_told_of_an_end,
    b.the_edge_is_told_of_the_open_entry_once_too_early,
    b.a_low_score_is_told_to_nobody,
    b.the_edge_keeps_what_it_had_when_it_begins_anew,
    b.a_page_ends_within_an_entry,
    b.a_snapshot_forgets_freezes,
    b.a_snapshot_forgets_failures,
    b.a_snapshots_profiles_are_not_counted,
    b.a_snapshots_newer_row_is_changed_again,
    b.the_programme_is_not_told_of_an_end,
    b.two_changes_of_a_moment_are_told_as_one,
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and pages of two rows."""
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 2)
    monkeypatch.setattr(risk, "PULL_ROWS", 2)


def test_histories_are_as_the_naive_rules_say() -> None:
    for seed in range(200):
        walk(seed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_rules_of_risk_notice_that(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    for seed in range(WALKS_MAX):
        try:
            walk(seed)
        except (AssertionError, Impossible) as noticed:
            print(f"noticed in history {seed}: {noticed}")
            return
    pytest.fail(f"the mutant survived {WALKS_MAX} histories")
