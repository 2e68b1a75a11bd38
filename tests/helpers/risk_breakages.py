"""Rules of risk, each broken on purpose; see `tests/model/test_risk_mutations.py`."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.core import evolve as evolving
from actors.core import evolve_risk, risk, risk_state, snapshot, snapshot_rows
from actors.core import risk_records as r
from actors.core.outcomes import Outcome
from actors.core.risk_state import Change, Profile, RiskIndex
from server.risk_set import RiskSet

Patch = pytest.MonkeyPatch


def failures_count_by_sku_or_shard_of_the_last_alone(patch: Patch) -> None:
    patch.setattr(risk, "_with_failure", lambda failures, at_ms: (at_ms,))


def the_window_never_closes(patch: Patch) -> None:
    patch.setattr(risk, "FAILURE_WINDOW_MS", 10 * 3_600_000)
    patch.setattr(risk, "FAILURES_KEPT_MS", 10 * 3_600_000)


def the_window_ends_a_moment_early(patch: Patch) -> None:
    patch.setattr(risk, "FAILURE_WINDOW_MS", risk.FAILURE_WINDOW_MS - 1)


def two_failures_are_enough(patch: Patch) -> None:
    patch.setattr(risk, "FAILURES_TO_FREEZE", 2)


def a_freeze_counts_its_failures_again(patch: Patch) -> None:
    def frozen(state: Any, slot: Any, record: Any) -> None:
        failures = getattr(slot.profiles.get(record.buyer_id), "failures", ())
        evolve_risk.buyer_frozen(state, slot, record)
        slot.profiles.get(record.buyer_id).failures = failures

    patch.setitem(evolving.EVOLVE, r.BUYER_FROZEN, frozen)


def an_unfrozen_buyers_failures_still_count(patch: Patch) -> None:
    def unfrozen(state: Any, slot: Any, record: Any) -> None:
        failures = slot.profiles.get(record.buyer_id).failures
        evolve_risk.buyer_unfrozen(state, slot, record)
        slot.profiles.get(record.buyer_id).failures = failures

    patch.setitem(evolving.EVOLVE, r.BUYER_UNFROZEN, unfrozen)


def a_shorter_freeze_replaces_a_longer_one(patch: Patch) -> None:
    honest = risk._signalled

    def signalled(state: Any, slot: Any, buyer_id: str, signal: int, **how: Any) -> Any:
        profile = slot.profiles.get(buyer_id)
        if profile is None or signal != risk.FAILED_PAYMENT:
            return honest(state, slot, buyer_id, signal, **how)
        until_ms, profile.frozen_until_ms = profile.frozen_until_ms, 0
        try:
            return honest(state, slot, buyer_id, signal, **how)
        finally:
            profile.frozen_until_ms = until_ms

    patch.setattr(risk, "_signalled", signalled)


def a_freeze_never_ends_by_itself(patch: Patch) -> None:
    honest = risk.profile_view

    def view(state: Any, command: Any, now_ms: int) -> Any:
        return honest(state, command, 0)

    patch.setattr(risk, "profile_view", view)


def a_score_never_heals(patch: Patch) -> None:
    patch.setattr(Profile, "score", lambda self, now_ms: risk_state.score_at(self.whole_ms, 0))


def a_score_heals_a_point_too_early(patch: Patch) -> None:
    def score(self: Profile, now_ms: int) -> int:
        return 100 - min(100, max(0, self.whole_ms - now_ms) // risk_state.HOUR_MS)

    patch.setattr(Profile, "score", score)


def a_score_falls_below_nothing(patch: Patch) -> None:
    patch.setattr(risk, "SCORE_MAX", 10_000)


def returns_weigh_as_failures(patch: Patch) -> None:
    patch.setattr(risk, "WEIGHTS", (2, 5, 10, 10))


def all_hits_of_a_report_count(patch: Patch) -> None:
    patch.setattr(risk, "HITS_A_REPORT_MAX", 1_000)


def an_old_signal_adds_to_a_healed_score(patch: Patch) -> None:
    """The score is taken from when it was whole last, not from now."""

    def noted(state: Any, slot: Any, record: Any) -> None:
        profile = slot.profiles.get(record.buyer_id)
        if profile is not None and profile.whole_ms and profile.whole_ms < state.now_ms:
            lost_ms = record.whole_ms - state.now_ms
            record = record._replace(whole_ms=profile.whole_ms + lost_ms)
        evolve_risk.signal_noted(state, slot, record)

    patch.setitem(evolving.EVOLVE, r.SIGNAL_NOTED, noted)


def profiles_are_forgotten_before_they_healed(patch: Patch) -> None:
    honest = RiskIndex.touch

    def touch(self: RiskIndex, buyer_id: str, profile: Profile, now_ms: int) -> None:
        honest(self, buyer_id, profile, now_ms)
        if profile.due_ms and not profile.frozen_until_ms:
            self.due.remove(buyer_id.encode(), profile.due_ms)
            profile.due_ms = now_ms + 1
            self.due.add(buyer_id.encode(), profile.due_ms, now_ms)

    patch.setattr(RiskIndex, "touch", touch)


def profiles_stay_for_ever(patch: Patch) -> None:
    patch.setattr(risk, "due_risk", lambda state, now_ms, limit: [])
    from tests.model import risk_desk  # noqa: PLC0415 - it holds the function by name.

    patch.setattr(risk_desk, "due_risk", lambda state, now_ms, limit: [])


def the_edge_is_not_told_of_an_end(patch: Patch) -> None:
    honest = RiskIndex._put

    def put(self: RiskIndex, buyer_id: str, change: Change) -> None:
        if change.frozen_until_ms or change.whole_ms:
            honest(self, buyer_id, change)

    patch.setattr(RiskIndex, "_put", put)


def the_edge_is_told_of_the_open_entry_once_too_early(patch: Patch) -> None:
    """An answer ends with the entry that is being decided: what follows in it is never told."""
    honest = risk.pull_risk

    def pull(state: Any, command: Any, now_ms: int) -> Any:
        (outcome, anew, since, cursor, more, rows), records = honest(state, command, now_ms)
        return (outcome, anew, since + 1, cursor + 1, more, rows), records

    patch.setattr(risk, "pull_risk", pull)
    from actors.core.decide import HANDLERS  # noqa: PLC0415
    from actors.core.risk_commands import PULL_RISK  # noqa: PLC0415

    patch.setitem(HANDLERS, PULL_RISK, pull)


def a_low_score_is_told_to_nobody(patch: Patch) -> None:
    patch.setattr(risk_state, "LOW_SCORE", 0)


def the_edge_keeps_what_it_had_when_it_begins_anew(patch: Patch) -> None:
    honest = RiskSet.take

    def take(self: RiskSet, answer: Any, asked_at: float) -> bool:
        if answer[0] == Outcome.FOUND:
            answer = (answer[0], False, *answer[2:])
        return honest(self, answer, asked_at)

    patch.setattr(RiskSet, "take", take)


def a_page_ends_within_an_entry(patch: Patch) -> None:
    def rows_after(index: RiskIndex, cursor: int) -> Any:
        found = [item for item in index.changes.items() if item[1].seq > cursor]
        page = found[: risk.PULL_ROWS]
        last = page[-1][1].seq if page else cursor
        rows = tuple((buyer_id, *change[1:]) for buyer_id, change in page)
        return rows, last, len(found) > len(page)

    patch.setattr(risk, "_rows_after", rows_after)


def a_snapshot_forgets_freezes(patch: Patch) -> None:
    honest = snapshot_rows._pack_profile

    def pack(buyer_id: str, profile: Profile) -> Any:
        return (*honest(buyer_id, profile)[:4], 0, *honest(buyer_id, profile)[5:])

    _patch_pack(patch, pack)


def a_snapshot_forgets_failures(patch: Patch) -> None:
    honest = snapshot_rows._pack_profile

    def pack(buyer_id: str, profile: Profile) -> Any:
        packed = honest(buyer_id, profile)
        return (*packed[:3], (), *packed[4:])

    _patch_pack(patch, pack)


def _patch_pack(patch: Patch, pack: Callable[..., Any]) -> None:
    """The rows of snapshots alone, not those of the digest."""
    honest = snapshot.chunks

    def chunks(state: Any) -> Any:
        with pytest.MonkeyPatch.context() as own:
            own.setitem(snapshot.PACK, "profiles", pack)
            made = list(honest(state))
        return iter(made)

    patch.setattr(snapshot, "chunks", chunks)
    from tests.model import risk_walk, shop  # noqa: PLC0415 - they hold the function by name.

    patch.setattr(risk_walk, "chunks", chunks)
    patch.setattr(shop, "chunks", chunks)


def a_snapshots_profiles_are_not_counted(patch: Patch) -> None:
    patch.setattr(snapshot, "recount_risk", lambda state: None)


def a_snapshots_newer_row_is_changed_again(patch: Patch) -> None:
    patch.setattr(evolve_risk, "skip_profile", lambda state, slot, buyer_id: False)


def the_programme_is_not_told_of_an_end(patch: Patch) -> None:
    patch.setattr(
        Profile,
        "untold",
        lambda self: bool(self.frozen_until_ms) and self.told_as_of_ms < self.frozen_as_of_ms,
    )


def two_changes_of_a_moment_are_told_as_one(patch: Patch) -> None:
    patch.setattr(Profile, "next_as_of_ms", lambda self, now_ms: now_ms)
