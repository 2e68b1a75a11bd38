"""Rules of group-buys broken on purpose: histories beside the naive rules must notice each.

The first are the bugs found in well-known shops, as `docs` and the semantics list them; see
`tests/helpers/team_breakages.py`. A mutant that survives fails its test.
"""

from collections.abc import Callable

import pytest

from actors.core import snapshot
from actors.core.evolve import Impossible
from tests.helpers import team_breakages as b
from tests.model.team_walk import walk

WALKS_MAX = 90
"""A mutant has to be caught within 90 seeded histories."""

Mutant = Callable[[pytest.MonkeyPatch], None]

MUTANTS: list[Mutant] = [
    b.the_last_seat_is_taken_by_all_who_ask_at_once,
    b.a_late_payer_enters_a_full_team,
    b.a_late_payer_enters_a_team_that_ended,
    b.one_members_refund_stops_those_after_it,
    b.a_refund_that_is_put_back_closes_the_others_of_its_team,
    b.a_team_has_failed_before_its_refunds_exist,
    b.all_refunds_have_the_leaders_key,
    b.settlements_have_the_leaders_key,
    b.a_member_who_left_still_counts,
    b.the_leader_counts_twice,
    b.minus_one_seats_are_not_none,
    b.a_tier_is_reached_by_exactly_its_people,
    b.a_late_payment_is_taken_and_nothing_follows,
    b.a_full_team_is_only_seen_when_the_payment_was_in_time,
    b.a_late_payer_goes_to_the_emptiest_team,
    b.a_late_payer_is_never_relocated,
    b.nobody_checks_who_is_in_already,
    b.a_team_is_joined_before_its_leader_paid,
    b.the_last_seats_are_for_anybody,
    b.nobody_follows_a_leader_who_left,
    b.the_newest_member_follows_a_leader,
    b.a_ladders_refund_is_off_by_a_cent,
    b.a_settlement_is_for_one_unit,
    b.a_settlement_is_forgotten_at_a_return,
    b.a_leaver_is_not_paid_back,
    b.unpaid_seats_outlive_their_team,
    b.an_empty_team_goes_on,
    b.a_payment_extends_the_teams_time,
    b.who_opened_a_team_may_open_no_more,
    b.a_completion_is_known_by_its_virtual_seats,
    b.a_snapshot_has_seats_without_their_team,
    b.a_snapshot_loses_who_leads,
    b.a_snapshots_teams_are_not_counted,
    b.a_snapshot_forgets_which_campaigns_are_closing,
    b.a_team_is_named_after_its_opener,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_rules_of_teams_notice_that(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 2)
    mutant(monkeypatch)
    for seed in range(WALKS_MAX):
        try:
            walk(seed)
        except (AssertionError, Impossible) as noticed:
            print(f"noticed in history {seed}: {noticed}")
            return
    pytest.fail(f"the mutant survived {WALKS_MAX} histories")
