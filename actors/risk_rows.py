"""Records of risk as SQL rows. See `rows.py`."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from actors.core import risk_records as r
from actors.core.risk_state import FAILED_PAYMENT
from actors.stock_rows import Row

_NOBODY = {"cause": 0, "caller": "", "reason": ""}
_NO_FAILURES = {"failures_json": "[]"}


def signal_noted(record: r.SignalNoted, now_ms: int) -> Sequence[Row]:
    columns: dict[str, Any] = {"rested": 0, "whole_ms": record.whole_ms, "updated_ms": now_ms}
    if record.signal == FAILED_PAYMENT:
        columns["failures_json"] = json.dumps(record.failures)
    return [_profile(record.buyer_id, columns)]


def buyer_frozen(record: r.BuyerFrozen, now_ms: int) -> Sequence[Row]:
    columns = {
        "rested": 0,
        "frozen": 1,
        "frozen_until_ms": record.until_ms,
        "frozen_as_of_ms": record.as_of_ms,
        "cause": record.cause,
        "caller": record.caller,
        "reason": record.reason,
        "updated_ms": now_ms,
        **_NO_FAILURES,
    }
    if record.cause == r.BY_OPERATOR:
        columns |= {"changed_by": record.caller, "change_reason": record.reason}
    return [_profile(record.buyer_id, columns)]


def buyer_unfrozen(record: r.BuyerUnfrozen, now_ms: int) -> Sequence[Row]:
    columns = {
        "rested": 0,
        "frozen": 0,
        "frozen_until_ms": 0,
        "frozen_as_of_ms": record.as_of_ms,
        "updated_ms": now_ms,
        **_NOBODY,
    }
    # A payment that failed while a freeze stood counts when it has ended by itself.
    if not record.by_itself:
        columns |= {"changed_by": record.caller, "change_reason": record.reason, **_NO_FAILURES}
    return [_profile(record.buyer_id, columns)]


def profiles_rested(record: r.ProfilesRested, now_ms: int) -> Sequence[Row]:
    columns = {
        "rested": 1,
        "whole_ms": 0,
        "frozen": 0,
        "frozen_until_ms": 0,
        "frozen_as_of_ms": 0,
        "told_as_of_ms": 0,
        "updated_ms": now_ms,
        **_NOBODY,
        **_NO_FAILURES,
    }
    return [_profile(buyer_id, columns) for buyer_id in record.buyer_ids]


def hold_noted(record: r.HoldNoted, now_ms: int) -> Sequence[Row]:
    columns = {"rested": 0, "told_as_of_ms": record.as_of_ms, "updated_ms": now_ms}
    return [_profile(record.buyer_id, columns)]


def _profile(buyer_id: str, columns: dict[str, Any]) -> Row:
    return "risk_profiles", {"buyer_id": buyer_id}, columns


ROWS: dict[int, Callable[[Any, int], Sequence[Row]]] = {
    r.SIGNAL_NOTED: signal_noted,
    r.BUYER_FROZEN: buyer_frozen,
    r.BUYER_UNFROZEN: buyer_unfrozen,
    r.PROFILES_RESTED: profiles_rested,
    r.HOLD_NOTED: hold_noted,
}
"""See `rows.ROWS`."""
