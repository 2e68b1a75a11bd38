"""Risk, decided: signals lower a buyer's score, failures to pay freeze, freezes end.

One view over all features: facts of stock shards (`note`), hits of the rate limits that gateways
report, and what operators say, come together in the account slot of the buyer. Whoever is frozen
or has a low score is told to gateways (`pull_risk`), which refuse without asking anybody.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from actors.core import facts as f
from actors.core import risk_commands as c
from actors.core import risk_records as r
from actors.core.identity import account_slot
from actors.core.outcomes import Outcome
from actors.core.risk_state import (
    FAILED_PAYMENT,
    FAILURE_WINDOW_MS,
    FAILURES_KEPT_MS,
    FAILURES_MAX,
    FAILURES_TO_FREEZE,
    FREEZE_MS,
    HITS_A_REPORT_MAX,
    HOUR_MS,
    PROFILES_MAX,
    RATE_HIT,
    RETURN,
    SCORE_MAX,
    UNPAID,
    WEIGHTS,
    Change,
    Profile,
    RiskIndex,
)
from actors.core.state import ShardState, SlotState

Decision = tuple[tuple[Any, ...], tuple[Any, ...]]

PULL_ROWS = 500
"""In an answer to PullRisk, and those more that changed in the entry of the last: some 20 kB."""

SIGNALS = {f.PAYMENT_FAILED: FAILED_PAYMENT, f.UNPAID_EXPIRY: UNPAID, f.ORDER_RETURNED: RETURN}
"""Kind of fact -> signal."""
THREE_FAILURES = "three failed payments within five minutes"


def note(state: ShardState, slot: SlotState, fact: Any, now_ms: int) -> Sequence[Any]:
    """The records that a fact makes in its buyer's slot."""
    if not fact.buyer_id:
        return ()  # Of a record that an earlier release journalled.
    return _signalled(
        state,
        slot,
        fact.buyer_id,
        SIGNALS[fact.kind],
        count=1,
        at_ms=min(fact.at_ms, now_ms),
        now_ms=now_ms,
        reservation_id=fact.reservation_id,
    )


def report_signals(state: ShardState, command: c.ReportSignals, now_ms: int) -> Decision:
    """(NOTED). A report that comes twice counts twice: it is no money."""
    count = max(1, min(command.times, HITS_A_REPORT_MAX))
    slot = state.slot(command.slot)
    records = _signalled(
        state, slot, command.buyer_id, RATE_HIT, count=count, at_ms=now_ms, now_ms=now_ms
    )
    return (Outcome.NOTED,), tuple(records)


def _signalled(
    state: ShardState,
    slot: SlotState,
    buyer_id: str,
    signal: int,
    *,
    count: int,
    at_ms: int,
    now_ms: int,
    reservation_id: str = "",
) -> list[Any]:
    profile = slot.profiles.get(buyer_id)
    failed = signal == FAILED_PAYMENT
    if profile is None and state.risk.count >= PROFILES_MAX and not failed:
        return []
    whole_ms = 0 if profile is None else profile.whole_ms
    lost_ms = WEIGHTS[signal] * count * HOUR_MS
    whole_ms = min(max(whole_ms, at_ms) + lost_ms, now_ms + SCORE_MAX * HOUR_MS)
    if profile is None and whole_ms <= now_ms:
        return []  # It was long on its way, and has healed.
    failures = () if profile is None else profile.failures
    if failed:
        failures = _with_failure(failures, at_ms)
    noted = r.SignalNoted(
        r.SIGNAL_NOTED, slot.slot, buyer_id, signal, count, whole_ms, failures, reservation_id
    )
    until_ms = _freezes_until(failures) if failed else 0
    if until_ms <= max(now_ms, 0 if profile is None else profile.frozen_until_ms):
        return [noted]
    frozen = r.BuyerFrozen(
        r.BUYER_FROZEN,
        slot.slot,
        buyer_id,
        until_ms,
        r.BY_PAYMENT_FAILURES,
        "",
        THREE_FAILURES,
        (profile or Profile()).next_as_of_ms(now_ms),
    )
    return [noted, frozen]


def _with_failure(failures: tuple[int, ...], at_ms: int) -> tuple[int, ...]:
    """The failures that matter after this one."""
    known = sorted((*failures, at_ms))[-FAILURES_MAX:]
    return tuple(known_ms for known_ms in known if known_ms > known[-1] - FAILURES_KEPT_MS)


def _freezes_until(failures: tuple[int, ...]) -> int:
    """When a freeze by these failures ends, as the last of them say; 0 if they make none."""
    last = FAILURES_TO_FREEZE - 1
    return max(
        (
            third_ms + FREEZE_MS
            for first_ms, third_ms in zip(failures, failures[last:], strict=False)
            if third_ms - first_ms <= FAILURE_WINDOW_MS
        ),
        default=0,
    )


def get_profile(state: ShardState, command: c.GetProfile, now_ms: int) -> Decision:
    """(FOUND, view). Everybody has a profile: who is not known has a score of 100."""
    return (Outcome.FOUND, profile_view(state, command, now_ms)), ()


def freeze(state: ShardState, command: c.Freeze, now_ms: int) -> Decision:
    """(APPLIED, view)."""
    profile = state.slot(command.slot).profiles.get(command.buyer_id) or Profile()
    frozen = r.BuyerFrozen(
        r.BUYER_FROZEN,
        command.slot,
        command.buyer_id,
        now_ms + command.length_ms,
        r.BY_OPERATOR,
        command.caller,
        command.reason,
        profile.next_as_of_ms(now_ms),
    )
    return (Outcome.APPLIED, None), (frozen,)


def unfreeze(state: ShardState, command: c.Unfreeze, now_ms: int) -> Decision:
    """(APPLIED, view), also for a buyer who is not frozen."""
    profile = state.slot(command.slot).profiles.get(command.buyer_id)
    if profile is None or profile.frozen_until_ms <= now_ms:
        return (Outcome.APPLIED, profile_view(state, command, now_ms)), ()
    ended = r.BuyerUnfrozen(
        r.BUYER_UNFROZEN,
        command.slot,
        command.buyer_id,
        False,
        command.caller,
        command.reason,
        profile.next_as_of_ms(now_ms),
    )
    return (Outcome.APPLIED, None), (ended,)


def profile_view(state: ShardState, command: Any, now_ms: int) -> tuple[Any, ...]:
    """(Score, frozen until or 0, cause, caller, reason, when whole, counts by signal, when
    somebody changed the freeze last or 0)."""
    profile = state.slot(command.slot).profiles.get(command.buyer_id) or Profile()
    until_ms = profile.frozen_until_ms if profile.frozen_until_ms > now_ms else 0
    by = (profile.cause, profile.caller, profile.reason) if until_ms else (0, "", "")
    whole_ms = profile.whole_ms if profile.whole_ms > now_ms else 0
    counts, as_of_ms = profile.counts, profile.frozen_as_of_ms
    return (profile.score(now_ms), until_ms, *by, whole_ms, counts, as_of_ms)


def pull_risk(state: ShardState, command: c.PullRisk, now_ms: int) -> Decision:
    """(FOUND, anew, since, cursor, more, rows): who is over a line, and until when.

    A row is (buyer, frozen until or 0, when whole) of a change after `cursor`, earliest first; both
    0 is who is over no line any more. `anew`: what the caller has is too old, these rows begin the
    whole set. The caller asks on with `since` and `cursor` as answered, for the next page while
    there is `more`, and for what is new later. What the entry changes that is being decided may be
    told twice and is never left out, since an answer ends before it."""
    index, before = state.risk, state.seq - 1
    since, cursor = command.since, command.cursor
    anew = not index.floor <= since <= before
    if anew:
        since, cursor = before, -1
    rows, last, more = _rows_after(index, cursor)
    if not more:
        since = last = before
    return (Outcome.FOUND, anew, since, last, more, rows), ()


def _rows_after(index: RiskIndex, cursor: int) -> tuple[tuple[Any, ...], int, bool]:
    """Rows of a page, the entry that the last one is of, and whether there are more."""
    rows: list[tuple[Any, ...]] = []
    for buyer_id, change in _changes_after(index, cursor):
        # All of an entry or nothing of it: the cursor is its number.
        if len(rows) >= PULL_ROWS and change.seq != cursor:
            return tuple(rows), cursor, True
        cursor = change.seq
        rows.append((buyer_id, change.frozen_until_ms, change.whole_ms))
    return tuple(rows), cursor, False


def _changes_after(index: RiskIndex, cursor: int) -> Iterable[tuple[str, Change]]:
    """Found from the end if they are few, as they mostly are; else from the beginning."""
    newest: list[tuple[str, Change]] = []
    for item in reversed(index.changes.items()):
        if item[1].seq <= cursor:
            newest.reverse()
            return newest
        if len(newest) > PULL_ROWS:
            break
        newest.append(item)
    return (item for item in index.changes.items() if item[1].seq > cursor)


def hold_told(state: ShardState, command: c.HoldTold, now_ms: int) -> Decision:
    """(NOTED). What was changed since is still to be told; what comes late changes nothing."""
    profile = state.slot(command.slot).profiles.get(command.buyer_id) or Profile()
    if not profile.told_as_of_ms < command.as_of_ms <= profile.frozen_as_of_ms:
        return (Outcome.NOTED,), ()
    noted = r.HoldNoted(r.HOLD_NOTED, command.slot, command.buyer_id, command.as_of_ms)
    return (Outcome.NOTED,), (noted,)


def due_risk(state: ShardState, now_ms: int, limit: int) -> list[Any]:
    """Up to `limit` freezes that are over and profiles that are at rest."""
    records: list[Any] = []
    rested: dict[int, list[str]] = {}
    for key in state.risk.due.due(now_ms, limit):
        buyer_id = key.decode()
        number = account_slot(buyer_id)
        profile = state.slot(number).profiles.get(buyer_id)
        if profile is None:
            raise AssertionError(f"no profile of {buyer_id}, which is due")
        if profile.frozen_until_ms:
            as_of_ms = profile.frozen_as_of_ms
            over = r.BuyerUnfrozen(r.BUYER_UNFROZEN, number, buyer_id, True, "", "", as_of_ms)
            records.append(over)
        else:
            rested.setdefault(number, []).append(buyer_id)
    for number, buyer_ids in rested.items():
        records.append(r.ProfilesRested(r.PROFILES_RESTED, number, tuple(buyer_ids)))
    return records
