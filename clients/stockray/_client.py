"""The asynchronous client: all verbs on one loop."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from stockray._campaigns import CampaignCalls
from stockray._commission import CommissionCalls
from stockray._events import EventCalls
from stockray._group_buy import GroupBuyCalls
from stockray._operations import OperationCalls
from stockray._reservations import ReservationCalls
from stockray._reserving import ReservingCalls
from stockray._risk import RiskCalls
from stockray._stock import StockCalls


class AsyncClient(
    ReservingCalls,
    ReservationCalls,
    StockCalls,
    CampaignCalls,
    GroupBuyCalls,
    CommissionCalls,
    EventCalls,
    RiskCalls,
    OperationCalls,
):
    """A client of one cluster, for one event loop and any number of its tasks.

    Make one and keep it: batching works across whatever runs at the same time. Connects at the
    first call. Leaving `async with` lets what was asked for come to its end.
    """

    async def __aenter__(self) -> Self:
        self._ready()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
