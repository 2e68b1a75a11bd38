"""Risk profiles, and what the verbs about them answer, as frozen values.

As in `records` and `results`: names and meanings are those of the messages in
`stockray_proto/v1/risk_service.proto`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stockray.enums import FreezeCause
from stockray.records import DataAge
from stockray.results import Answer

__all__ = ["FreezeResult", "GetProfileResult", "RiskProfile", "UnfreezeResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskProfile:
    """What is known of a buyer's conduct; `score` is 0 to 100, 100 being the best."""

    buyer_id: str = ""
    score: int = 0
    whole_time: datetime | None = None
    frozen: bool = False
    freeze_end_time: datetime | None = None
    freeze_cause: FreezeCause = FreezeCause.UNSPECIFIED
    freeze_caller: str = ""
    freeze_reason: str = ""
    rate_hit_count: int = 0
    unpaid_count: int = 0
    failed_payment_count: int = 0
    return_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GetProfileResult(Answer):
    """The answer to `get_profile`."""

    profile: RiskProfile | None = None
    age: DataAge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeResult(Answer):
    """The answer to `freeze`; `profile` is as it stands after it."""

    profile: RiskProfile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfreezeResult(Answer):
    """The answer to `unfreeze`; `profile` is as it stands after it."""

    profile: RiskProfile | None = None
