"""The verbs of risk: profiles of buyers, and operators' freezes."""

from __future__ import annotations

from datetime import timedelta

from stockray_proto.v1 import risk_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import set_field
from stockray._session import Session
from stockray.risk import FreezeResult, GetProfileResult, UnfreezeResult

RISK = "/stockray.v1.RiskService/"
GET_PROFILE = Method(RISK + "GetProfile", wire.GetProfileResponse.FromString)
FREEZE = Method(RISK + "Freeze", wire.FreezeResponse.FromString)
UNFREEZE = Method(RISK + "Unfreeze", wire.UnfreezeResponse.FromString)


class RiskCalls(Session):
    """A frozen buyer makes nothing new, and can pay for and return what is held."""

    async def get_profile(
        self, buyer_id: str, *, timeout_ms: int | None = None
    ) -> GetProfileResult:
        """Reads a buyer's score, signals and freeze from its shard, fenced."""
        request = wire.GetProfileRequest(buyer_id=buyer_id)
        return await self._ask(GetProfileResult, GET_PROFILE, request, timeout_ms=timeout_ms)

    async def freeze(
        self,
        buyer_id: str,
        *,
        reason: str,
        length: timedelta | None = None,
        timeout_ms: int | None = None,
    ) -> FreezeResult:
        """Freezes a buyer for `length` from now on (None: 24 hours): an operator's act."""
        request = wire.FreezeRequest(buyer_id=buyer_id, reason=reason)
        set_field(request, "length", length)
        return await self._ask(
            FreezeResult, FREEZE, request, ids=(buyer_id,), timeout_ms=timeout_ms
        )

    async def unfreeze(
        self, buyer_id: str, *, reason: str, timeout_ms: int | None = None
    ) -> UnfreezeResult:
        """Ends a buyer's freeze now: an operator's act."""
        request = wire.UnfreezeRequest(buyer_id=buyer_id, reason=reason)
        return await self._ask(
            UnfreezeResult, UNFREEZE, request, ids=(buyer_id,), timeout_ms=timeout_ms
        )
