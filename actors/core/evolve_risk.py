"""Applying what was decided on risk. Part of `evolve.py`, whose rules hold here.

While a snapshot is completed only the rows change; the index is counted at the end.
"""

from actors.core import risk_records as r
from actors.core import state as s
from actors.core.risk_state import FAILED_PAYMENT, Profile


def signal_noted(state: s.ShardState, slot: s.SlotState, record: r.SignalNoted) -> None:
    if skip_profile(state, slot, record.buyer_id):
        return
    profile = _profile(state, slot, record.buyer_id)
    profile.whole_ms = record.whole_ms
    counts = list(profile.counts)
    counts[record.signal] += record.times
    profile.counts = tuple(counts)
    if record.signal == FAILED_PAYMENT:
        profile.failures = tuple(record.failures)
    _changed(state, record.buyer_id, profile)


def buyer_frozen(state: s.ShardState, slot: s.SlotState, record: r.BuyerFrozen) -> None:
    if skip_profile(state, slot, record.buyer_id):
        return
    profile = _profile(state, slot, record.buyer_id)
    profile.frozen_until_ms = record.until_ms
    profile.frozen_as_of_ms = record.as_of_ms
    profile.cause, profile.caller, profile.reason = record.cause, record.caller, record.reason
    profile.failures = ()
    _changed(state, record.buyer_id, profile)


def buyer_unfrozen(state: s.ShardState, slot: s.SlotState, record: r.BuyerUnfrozen) -> None:
    if skip_profile(state, slot, record.buyer_id):
        return
    profile = _profile(state, slot, record.buyer_id)
    if not profile.frozen_until_ms and state.fuzzy is None:
        raise s.Impossible(f"entry {state.seq}: {record.buyer_id} is not frozen")
    if not record.by_itself:
        profile.failures = ()
    profile.frozen_until_ms = 0
    profile.frozen_as_of_ms = record.as_of_ms
    profile.cause, profile.caller, profile.reason = 0, "", ""
    _changed(state, record.buyer_id, profile)


def profiles_rested(state: s.ShardState, slot: s.SlotState, record: r.ProfilesRested) -> None:
    for buyer_id in record.buyer_ids:
        if skip_profile(state, slot, buyer_id):
            continue
        profile = slot.profiles.pop(buyer_id)
        if state.fuzzy is not None:
            continue
        if profile is None:
            raise s.Impossible(f"entry {state.seq}: no profile of {buyer_id}")
        state.risk.drop(buyer_id, profile, state.seq)


def hold_noted(state: s.ShardState, slot: s.SlotState, record: r.HoldNoted) -> None:
    if skip_profile(state, slot, record.buyer_id):
        return
    profile = _profile(state, slot, record.buyer_id)
    profile.told_as_of_ms = record.as_of_ms
    _changed(state, record.buyer_id, profile)


def skip_profile(state: s.ShardState, slot: s.SlotState, buyer_id: str) -> bool:
    """Whether a snapshot that is being completed has the row as of this entry or a later one."""
    fuzzy = state.fuzzy
    if fuzzy is None:
        return False
    return fuzzy.get(("profiles", slot.slot, buyer_id.encode()), 0) >= state.seq


def recount_risk(state: s.ShardState) -> None:
    """A snapshot is complete: count its profiles."""
    profiles = [item for slot in state.slots.values() for item in slot.profiles.items()]
    state.risk.recount(profiles, state.seq, state.now_ms)


def _profile(state: s.ShardState, slot: s.SlotState, buyer_id: str) -> Profile:
    profile = slot.profiles.get(buyer_id)
    if profile is None:
        profile = Profile()
        slot.profiles.put(buyer_id, profile)
        if state.fuzzy is None:
            state.risk.count += 1
    return profile


def _changed(state: s.ShardState, buyer_id: str, profile: Profile) -> None:
    profile.seq = state.seq
    if state.fuzzy is None:
        state.risk.touch(buyer_id, profile, state.now_ms)
