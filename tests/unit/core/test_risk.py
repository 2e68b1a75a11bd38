"""Risk, rule by rule: what lowers a score, what freezes, what ends, and what gateways are told."""

import pytest

from actors.core import facts as f
from actors.core import risk_records as r
from actors.core import risk_state
from actors.core.codec import unpack_entry
from actors.core.identity import account_slot
from actors.core.outcomes import Outcome
from actors.core.risk_state import FREEZE_KEPT_MS, FREEZE_MS, HOUR_MS, LOW_SCORE
from actors.core.snapshot import digest
from tests.model.risk_desk import Desk, Edge

MINUTE_MS = 60_000


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_everybody_begins_with_a_whole_score(desk: Desk) -> None:
    assert desk.view("ann") == (100, 0, 0, "", "", 0, (0, 0, 0, 0), 0)
    assert desk.remembered() == set()


def test_each_signal_takes_its_weight_and_an_hour_gives_one_back(desk: Desk) -> None:
    desk.hit_the_limit("ann")
    assert desk.score("ann") == 98
    desk.leave_unpaid("ann")
    assert desk.score("ann") == 93
    desk.fail_to_pay("ann")
    assert desk.score("ann") == 83
    desk.send_back("ann")
    assert desk.score("ann") == 80
    assert desk.view("ann")[6] == (1, 1, 1, 1)
    desk.wait(HOUR_MS - 1)
    assert desk.score("ann") == 80
    desk.wait(1)
    assert desk.score("ann") == 81
    desk.wait(19 * HOUR_MS)
    assert desk.score("ann") == 100


def test_a_score_never_falls_below_nothing_and_is_whole_again_in_time(desk: Desk) -> None:
    for _ in range(40):
        desk.leave_unpaid("ann")
    assert desk.score("ann") == 0
    desk.wait(HOUR_MS)
    assert desk.score("ann") == 1


def test_of_one_report_of_hits_only_a_few_count(desk: Desk) -> None:
    desk.hit_the_limit("ann", 1_000)
    assert desk.score("ann") == 90


def test_a_signal_that_was_long_on_its_way_has_healed_as_long(desk: Desk) -> None:
    desk.leave_unpaid("ann", ago_ms=2 * HOUR_MS)
    assert desk.score("ann") == 97
    desk.leave_unpaid("bob", ago_ms=6 * HOUR_MS)
    assert desk.remembered() == {"ann"}


def test_a_signal_from_a_clock_that_is_ahead_weighs_no_more_than_one_of_now(desk: Desk) -> None:
    desk.leave_unpaid("ann", ago_ms=-HOUR_MS)
    assert desk.score("ann") == 95
    for _ in range(3):
        desk.fail_to_pay("bob", ago_ms=-HOUR_MS)
    assert desk.frozen_until("bob") == desk.now_ms + FREEZE_MS


def test_three_failed_payments_of_any_skus_within_five_minutes_freeze(desk: Desk) -> None:
    for sku in ("tea", "cup"):
        desk.fail_to_pay("ann", sku=sku)
        desk.wait(2 * MINUTE_MS)
    assert desk.frozen_until("ann") == 0
    desk.wait(MINUTE_MS)
    desk.fail_to_pay("ann", sku="pot")
    until_ms = desk.now_ms + FREEZE_MS
    assert desk.view("ann")[:5] == (
        70,
        until_ms,
        r.BY_PAYMENT_FAILURES,
        "",
        "three failed payments within five minutes",
    )
    assert desk.frozen_until("bob") == 0


def test_three_failed_payments_in_more_than_five_minutes_do_not(desk: Desk) -> None:
    desk.fail_to_pay("ann")
    desk.wait(MINUTE_MS)
    desk.fail_to_pay("ann")
    desk.wait(4 * MINUTE_MS + 1)
    desk.fail_to_pay("ann")
    assert desk.frozen_until("ann") == 0
    desk.wait(MINUTE_MS - 2)
    desk.fail_to_pay("ann")
    assert desk.frozen_until("ann") > 0


def test_failures_of_different_shards_count_in_the_order_in_which_they_were(desk: Desk) -> None:
    desk.fail_to_pay("ann", ago_ms=4 * MINUTE_MS)
    desk.fail_to_pay("ann")
    desk.fail_to_pay("ann", ago_ms=2 * MINUTE_MS)
    assert desk.frozen_until("ann") == desk.now_ms + FREEZE_MS


def test_failures_that_were_long_on_their_way_freeze_from_then_on(desk: Desk) -> None:
    for _ in range(3):
        desk.fail_to_pay("ann", ago_ms=HOUR_MS)
        desk.fail_to_pay("bob", ago_ms=FREEZE_MS)
    assert desk.frozen_until("ann") == desk.now_ms + FREEZE_MS - HOUR_MS
    assert desk.frozen_until("bob") == 0


def test_the_failures_of_a_freeze_make_no_second_one(desk: Desk) -> None:
    for _ in range(3):
        desk.fail_to_pay("ann")
    desk.unfreeze("ann")
    desk.fail_to_pay("ann")
    desk.fail_to_pay("ann")
    assert desk.frozen_until("ann") == 0
    desk.fail_to_pay("ann")
    assert desk.frozen_until("ann") > 0


def test_who_goes_on_failing_stays_frozen_longer_and_a_longer_freeze_stands(desk: Desk) -> None:
    for _ in range(3):
        desk.fail_to_pay("ann")
    desk.wait(HOUR_MS)
    for _ in range(3):
        desk.fail_to_pay("ann")
    assert desk.frozen_until("ann") == desk.now_ms + FREEZE_MS
    desk.freeze("bob", 9 * FREEZE_MS)
    until_ms = desk.frozen_until("bob")
    for _ in range(30):
        desk.fail_to_pay("bob")
    assert desk.view("bob")[1:3] == (until_ms, r.BY_OPERATOR)
    profile = desk.state.slot(account_slot("bob")).profiles.get("bob")
    assert profile is not None
    assert len(profile.failures) == risk_state.FAILURES_MAX


def test_an_operator_freezes_and_unfreezes_and_is_named(desk: Desk) -> None:
    outcome, view = desk.freeze("ann", HOUR_MS)
    assert outcome == Outcome.APPLIED
    frozen = (100, desk.now_ms + HOUR_MS, r.BY_OPERATOR, "op", "stolen cards")
    assert view[:5] == frozen == desk.view("ann")[:5]
    outcome, view = desk.unfreeze("ann")
    assert (outcome, view[:5]) == (Outcome.APPLIED, (100, 0, 0, "", ""))
    entries = len(desk.journal)
    assert desk.unfreeze("ann")[0] == Outcome.APPLIED
    assert len(desk.journal) == entries
    (record,) = unpack_entry(desk.journal[-1]).records
    assert (record.by_itself, record.caller, record.reason) == (False, "op", "it was not")


def test_a_freeze_ends_by_itself_and_the_profile_leaves_memory(desk: Desk) -> None:
    desk.freeze("ann", HOUR_MS)
    desk.told("ann", desk.as_of("ann"))
    desk.wait(HOUR_MS - 1)
    assert desk.pulse_risk() == []
    desk.wait(1)
    assert desk.frozen_until("ann") == 0
    desk.wait(1_000)
    (ended,) = desk.pulse_risk()
    assert (ended.kind, ended.buyer_id, ended.by_itself) == (r.BUYER_UNFROZEN, "ann", True)
    (rested,) = desk.pulse_risk()
    assert (rested.kind, rested.buyer_ids) == (r.PROFILES_RESTED, ("ann",))
    assert desk.remembered() == set()
    assert desk.state.risk.count == 0
    assert desk.pulse_risk() == []


def test_a_profile_is_remembered_until_its_score_has_healed(desk: Desk) -> None:
    desk.send_back("ann")
    desk.leave_unpaid("bob")
    desk.wait(3 * HOUR_MS - 1)
    assert desk.pulse_risk() == []
    desk.wait(2_000)
    desk.pulse_risk()
    assert desk.remembered() == {"bob"}


def test_what_time_does_comes_in_slices(desk: Desk) -> None:
    for number in range(10):
        desk.send_back(f"u-{number}")
    desk.wait(4 * HOUR_MS)
    while records := desk.pulse_risk(3):
        assert sum(len(record.buyer_ids) for record in records) <= 3
    assert desk.remembered() == set()


def test_the_programme_is_told_of_each_freeze_and_of_its_end(desk: Desk) -> None:
    index = desk.state.risk
    desk.freeze("ann", HOUR_MS)
    first_ms = desk.as_of("ann")
    assert list(index.untold) == ["ann"]
    desk.freeze("ann", 2 * HOUR_MS)
    desk.told("ann", first_ms)
    assert list(index.untold) == ["ann"]
    desk.told("ann", desk.as_of("ann"))
    assert not index.untold
    desk.unfreeze("ann")
    assert list(index.untold) == ["ann"]
    desk.wait(HOUR_MS)
    assert desk.pulse_risk() == []
    desk.told("ann", desk.as_of("ann"))
    assert not index.untold
    desk.pulse_risk()
    assert desk.remembered() == set()
    assert desk.told("nobody", 5) == (Outcome.NOTED,)


def test_changes_of_one_millisecond_are_told_in_their_order(desk: Desk) -> None:
    desk.open()
    told = []
    for _ in range(2):
        desk.freeze("ann", HOUR_MS)
        told.append(desk.as_of("ann"))
        desk.unfreeze("ann")
        told.append(desk.as_of("ann"))
    desk.close()
    first_ms = desk.now_ms
    assert told == [first_ms, first_ms + 1, first_ms + 2, first_ms + 3]
    desk.freeze("ann", HOUR_MS)
    assert desk.as_of("ann") > told[-1]


def test_that_the_programme_was_told_of_an_older_change_may_come_late(desk: Desk) -> None:
    desk.freeze("ann", HOUR_MS)
    first_ms = desk.as_of("ann")
    desk.unfreeze("ann")
    desk.told("ann", desk.as_of("ann"))
    journalled = len(desk.journal)
    desk.told("ann", first_ms)
    assert (len(desk.journal), list(desk.state.risk.untold)) == (journalled, [])
    desk.freeze("ann", HOUR_MS)
    desk.told("ann", first_ms)
    assert list(desk.state.risk.untold) == ["ann"]


def test_a_freeze_that_ends_by_itself_before_it_was_told_is_still_to_be_told(desk: Desk) -> None:
    desk.freeze("ann", HOUR_MS)
    desk.freeze("bob", HOUR_MS)
    desk.told("bob", desk.as_of("bob"))
    desk.wait(HOUR_MS + 1_000)
    desk.pulse_risk()
    assert list(desk.state.risk.untold) == ["ann"]
    desk.told("ann", desk.as_of("ann"))
    assert not desk.state.risk.untold


def test_a_profile_stays_as_long_as_what_was_told_of_its_freeze_may_be_on_its_way(
    desk: Desk,
) -> None:
    desk.freeze("ann", HOUR_MS)
    desk.unfreeze("ann")
    desk.told("ann", desk.as_of("ann"))
    desk.wait(FREEZE_KEPT_MS - 1_000)
    assert desk.pulse_risk() == []
    assert desk.remembered() == {"ann"}
    desk.wait(2_000)
    desk.pulse_risk()
    assert desk.remembered() == set()


def test_a_fact_without_a_buyer_is_of_an_older_release_and_means_nothing(desk: Desk) -> None:
    desk.tell(f.PaymentFailed(f.PAYMENT_FAILED, desk.now_ms, "r", "", ""))
    assert desk.remembered() == set()
    assert desk.journal == []


def test_memory_is_kept_for_failures_and_freezes_when_profiles_are_many(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.core.risk.PROFILES_MAX", 2)
    for buyer in ("ann", "bob", "cat"):
        desk.leave_unpaid(buyer)
    assert desk.remembered() == {"ann", "bob"}
    desk.leave_unpaid("ann")
    assert desk.score("ann") == 90
    desk.fail_to_pay("dan")
    desk.freeze("eve")
    assert desk.remembered() == {"ann", "bob", "dan", "eve"}


# What gateways pull.


def test_an_edge_learns_all_and_then_what_is_new(desk: Desk) -> None:
    desk.freeze("ann")
    edge, other = Edge(desk), Edge(desk)
    edge.pull()
    assert edge.frozen() == {"ann"}
    desk.freeze("bob")
    edge.pull()
    other.pull()
    assert edge.frozen() == other.frozen() == {"ann", "bob"}
    desk.unfreeze("ann")
    edge.pull()
    other.pull()
    assert edge.frozen() == other.frozen() == {"bob"}
    assert edge.set.rows == other.set.rows


def test_a_freeze_in_the_entry_of_a_pull_is_told_by_the_next(desk: Desk) -> None:
    edge = Edge(desk)
    edge.pull()
    desk.open()
    desk.freeze("ann")
    edge.pull()
    desk.freeze("bob")
    desk.close()
    edge.pull()
    assert edge.frozen() == {"ann", "bob"}


def test_low_scores_are_told_and_others_are_not(desk: Desk) -> None:
    edge = Edge(desk)
    for _ in range(12):
        desk.leave_unpaid("low")
    desk.leave_unpaid("low")
    for _ in range(12):
        desk.leave_unpaid("fair")
    edge.pull()
    assert list(edge.set.rows) == ["low"]
    assert desk.score("low") < LOW_SCORE <= desk.score("fair")
    assert edge.set.rows["low"] == (0, desk.now_ms + 65 * HOUR_MS)


def test_a_set_is_pulled_in_pages_and_what_changes_meanwhile_is_in_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.core.risk.PULL_ROWS", 2)
    for number in range(7):
        desk.freeze(f"u-{number}")
    edge = Edge(desk)
    assert edge.page()
    assert edge.frozen() == set()
    desk.unfreeze("u-0")
    desk.unfreeze("u-6")
    desk.freeze("u-7")
    edge.pull()
    assert edge.frozen() == {f"u-{number}" for number in (1, 2, 3, 4, 5, 7)}


def test_rows_of_one_entry_are_in_one_page(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.core.risk.PULL_ROWS", 2)
    desk.open()
    for number in range(5):
        desk.freeze(f"u-{number}")
    desk.close()
    desk.freeze("last")
    edge = Edge(desk)
    assert edge.page()
    assert not edge.page()
    assert len(edge.frozen()) == 6


def test_an_edge_whose_news_are_lost_takes_the_whole_set_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(risk_state, "CHANGES_MAX", 3)
    desk.freeze("ann")
    edge = Edge(desk)
    edge.pull()
    desk.unfreeze("ann")
    for buyer in ("bob", "cat", "dan"):
        desk.freeze(buyer)
    assert list(desk.state.risk.changes) == ["bob", "cat", "dan"]
    edge.pull()
    assert edge.frozen() == {"bob", "cat", "dan"}


def test_an_edge_goes_on_with_a_promoted_standby_and_begins_anew_with_a_recovered_one(
    desk: Desk,
) -> None:
    desk.freeze("ann")
    edge = Edge(desk)
    edge.pull()
    desk.unfreeze("ann")
    desk.freeze("bob")
    desk.state = desk.replica()
    edge.pull()
    assert edge.frozen() == {"bob"}
    desk.unfreeze("bob")
    desk.state = desk.from_snapshot()
    desk.freeze("cat")
    edge.pull()
    assert edge.frozen() == {"cat"}


def test_an_edge_that_knows_more_than_the_shard_begins_anew(desk: Desk) -> None:
    desk.freeze("ann")
    edge = Edge(desk)
    edge.pull()
    edge.desk = Desk()
    edge.desk.freeze("bob")
    edge.set.since = edge.set.cursor = 99
    edge.pull()
    assert edge.frozen() == {"bob"}


def test_a_failed_pull_changes_nothing(desk: Desk) -> None:
    desk.freeze("ann")
    edge = Edge(desk)
    edge.pull()
    at = edge.set.taken_at
    for outcome in (Outcome.RETRY, Outcome.UNKNOWN):
        assert not edge.set.take((outcome,), 9e9)
    assert (edge.frozen(), edge.set.taken_at) == ({"ann"}, at)


def test_a_snapshot_has_the_profiles_and_what_is_counted_over_them(desk: Desk) -> None:
    desk.freeze("ann", HOUR_MS)
    desk.told("ann", desk.as_of("ann"))
    desk.leave_unpaid("bob")
    for _ in range(2):
        desk.fail_to_pay("cat")
    loaded, state = desk.from_snapshot(), desk.state
    assert digest(loaded) == digest(state) == digest(desk.replica())
    assert (loaded.risk.count, loaded.risk.untold) == (3, {})
    assert list(loaded.risk.changes.items()) == list(state.risk.changes.items())
    desk.state = loaded
    desk.fail_to_pay("cat")
    assert desk.frozen_until("cat") > 0
    desk.wait(HOUR_MS + 1_000)
    assert [record.buyer_id for record in desk.pulse_risk()] == ["ann"]
