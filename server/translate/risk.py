"""Risk: requests to commands, views of profiles to messages. A view is `core.risk.profile_view`."""

from collections.abc import Sequence
from typing import Any

from stockray_proto.v1 import risk_service_pb2

from actors.core import risk_commands as c
from actors.core.identity import account_slot
from actors.core.risk_state import FREEZE_MS
from server.handlers import CallContext
from server.translate.scalars import stamp_or_none
from server.validate import Violations

LENGTH_MIN_MS = 1_000
LENGTH_MAX_MS = 3_650 * 86_400_000


def get_profile_command(
    request: risk_service_pb2.GetProfileRequest, context: CallContext
) -> c.GetProfile:
    """GetProfile."""
    wrong = Violations()
    wrong.id("buyer_id", request.buyer_id)
    wrong.refuse()
    return c.GetProfile(c.GET_PROFILE, *_head(request, context), request.buyer_id)


def freeze_command(request: risk_service_pb2.FreezeRequest, context: CallContext) -> c.Freeze:
    """Freeze, for 24 hours if it is not said for how long."""
    wrong = Violations()
    wrong.id("buyer_id", request.buyer_id)
    length_ms = FREEZE_MS
    if request.HasField("length"):
        length_ms = wrong.duration("length", request.length, LENGTH_MIN_MS, LENGTH_MAX_MS)
    wrong.reason(request.reason, required=True)
    wrong.refuse()
    head = _head(request, context)
    return c.Freeze(c.FREEZE, *head, request.buyer_id, length_ms, request.reason)


def unfreeze_command(request: risk_service_pb2.UnfreezeRequest, context: CallContext) -> c.Unfreeze:
    """Unfreeze."""
    wrong = Violations()
    wrong.id("buyer_id", request.buyer_id)
    wrong.reason(request.reason, required=True)
    wrong.refuse()
    return c.Unfreeze(c.UNFREEZE, *_head(request, context), request.buyer_id, request.reason)


def _head(request: Any, context: CallContext) -> tuple[int, int, str]:
    return account_slot(request.buyer_id), context.deadline_ms, context.caller


def profile_message(
    buyer_id: str, view: Sequence[Any] | None
) -> risk_service_pb2.RiskProfile | None:
    """A profile; None (an unset field) when there is no view."""
    if view is None:
        return None
    score, until_ms, cause, caller, reason, whole_ms, counts, _ = view
    hits, unpaid, failed, returned = counts
    return risk_service_pb2.RiskProfile(
        buyer_id=buyer_id,
        score=score,
        whole_time=stamp_or_none(whole_ms),
        frozen=until_ms > 0,
        freeze_end_time=stamp_or_none(until_ms),
        freeze_cause=cause,
        freeze_caller=caller,
        freeze_reason=reason,
        rate_hit_count=hits,
        unpaid_count=unpaid,
        failed_payment_count=failed,
        return_count=returned,
    )
