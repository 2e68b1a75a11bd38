"""Campaigns, of SeckillService and of GroupBuyService; Grab is in `reservations.py`.

A put makes the campaign, then fetches what its lines lack from the SKUs' base pools, as much as
they have. It does so in passes, since what a base pool has and what a line lacks change while
others sell and put; the campaign's shard alone decides what a line may take.
"""

import asyncio
from typing import Any, NamedTuple

from stockray_proto.v1 import common_pb2, group_buy_service_pb2, seckill_service_pb2

from actors.core.commands import PutCampaign
from actors.core.outcomes import Outcome
from actors.core.state import CAMPAIGN_ACTIVE, CAMPAIGN_ENDED, CAMPAIGN_PAUSED
from server.handlers import OWN_CALLER, CallContext, Calls, Method
from server.lines import Lines
from server.services.reservations import GROUP_BUY, SECKILL
from server.transfers import Moved, Transfers
from server.translate.campaign import (
    CampaignView,
    LineAllocation,
    campaign_id_violations,
    campaign_message,
    campaign_view,
    get_campaign_command,
    put_campaign_command,
    set_state_command,
)
from server.translate.group_campaign import group_campaign_message, put_group_campaign_command
from server.translate.scalars import WAITING, age_of
from server.translate.stock import head, item, read_pool

PASSES_MAX = 4
TRANSFERS_AT_ONCE = 64
"""Lines of one campaign that are fetched side by side."""

_NO_SKU = LineAllocation(Outcome.NOT_FOUND, "there is no such SKU")


class Lack(NamedTuple):
    """A line that was granted less than it is to have."""

    sku_id: str
    granted: int
    missing: int


class Put(NamedTuple):
    """What came of a put: how its answer begins, and the campaign, if it is known."""

    head: dict[str, Any]
    view: CampaignView | None
    as_of_ms: int
    allocations: dict[str, LineAllocation]


class Campaigns:
    """Put, read, pause and end."""

    def __init__(self, lines: Lines, transfers: Transfers) -> None:
        self._lines = lines
        self._transfers = transfers

    def methods(self) -> list[Method]:
        """The calls of this part."""
        sec = seckill_service_pb2
        calls: Calls = {
            "PutCampaign": (sec.PutCampaignRequest, self.put_campaign),
            "GetCampaign": (sec.GetCampaignRequest, self.get_campaign),
            "PauseCampaign": (sec.PauseCampaignRequest, self.pause_campaign),
            "EndCampaign": (sec.EndCampaignRequest, self.end_campaign),
        }
        buy = group_buy_service_pb2
        for_teams: Calls = {
            "PutGroupCampaign": (buy.PutGroupCampaignRequest, self.put_group_campaign),
            "GetGroupCampaign": (buy.GetGroupCampaignRequest, self.get_group_campaign),
        }
        return [
            *(Method(path=SECKILL + n, request=r, unary=h) for n, (r, h) in calls.items()),
            *(Method(path=GROUP_BUY + n, request=r, unary=h) for n, (r, h) in for_teams.items()),
        ]

    async def put_campaign(
        self, request: seckill_service_pb2.PutCampaignRequest, context: CallContext
    ) -> seckill_service_pb2.PutCampaignResponse:
        """Make or change a campaign, then allocate what its lines lack."""
        put = await self._put(put_campaign_command(request, context), context)
        return seckill_service_pb2.PutCampaignResponse(
            **put.head,
            campaign=None
            if put.view is None
            else campaign_message(
                put.view,
                as_of_ms=put.as_of_ms,
                now_ms=context.now_ms(),
                allocations=put.allocations,
            ),
        )

    async def put_group_campaign(
        self, request: group_buy_service_pb2.PutGroupCampaignRequest, context: CallContext
    ) -> group_buy_service_pb2.PutGroupCampaignResponse:
        """The same for a campaign whose lines have tiers."""
        put = await self._put(put_group_campaign_command(request, context), context)
        return group_buy_service_pb2.PutGroupCampaignResponse(
            **put.head,
            campaign=None
            if put.view is None
            else group_campaign_message(
                put.view,
                as_of_ms=put.as_of_ms,
                now_ms=context.now_ms(),
                allocations=put.allocations,
            ),
        )

    async def get_group_campaign(
        self, request: group_buy_service_pb2.GetGroupCampaignRequest, context: CallContext
    ) -> group_buy_service_pb2.GetGroupCampaignResponse:
        """Read one with teams from its shard."""
        campaign_id_violations(request.campaign_id).refuse()
        answer = await self._ask(
            get_campaign_command(request.campaign_id, context.deadline_ms, context.caller)
        )
        view, now_ms = campaign_view(item(answer, 1)), context.now_ms()
        if view is None:
            return group_buy_service_pb2.GetGroupCampaignResponse(**head(answer))
        campaign = group_campaign_message(view, as_of_ms=answer[2], now_ms=now_ms)
        if campaign is None:
            return group_buy_service_pb2.GetGroupCampaignResponse(
                **head((Outcome.NOT_FOUND,), "the campaign has no teams")
            )
        age = age_of(answer[2], now_ms, common_pb2.DATA_SOURCE_SHARD)
        return group_buy_service_pb2.GetGroupCampaignResponse(
            **head(answer), campaign=campaign, age=age
        )

    async def _put(self, command: PutCampaign, context: CallContext) -> Put:
        answer = await self._ask(command)
        view = campaign_view(item(answer, 1))
        allocations: dict[str, LineAllocation] = {}
        as_of_ms = item(answer, 2, context.now_ms())
        if answer[0] == Outcome.APPLIED and view is not None:
            view, as_of_ms, allocations = await self._allocate(view, as_of_ms, context)
        return Put(head(answer, item(answer, 3, "")), view, as_of_ms, allocations)

    async def get_campaign(
        self, request: seckill_service_pb2.GetCampaignRequest, context: CallContext
    ) -> seckill_service_pb2.GetCampaignResponse:
        """Read one from its shard."""
        campaign_id_violations(request.campaign_id).refuse()
        answer = await self._ask(
            get_campaign_command(request.campaign_id, context.deadline_ms, context.caller)
        )
        fields = self._campaign_fields(answer, context)
        response = seckill_service_pb2.GetCampaignResponse(**fields)
        if answer[0] == Outcome.FOUND:
            age = age_of(answer[2], context.now_ms(), common_pb2.DATA_SOURCE_SHARD)
            response.age.CopyFrom(age)
        return response

    async def pause_campaign(
        self, request: seckill_service_pb2.PauseCampaignRequest, context: CallContext
    ) -> seckill_service_pb2.PauseCampaignResponse:
        """Stop reserving, or go on."""
        state = CAMPAIGN_ACTIVE if request.resume else CAMPAIGN_PAUSED
        command = set_state_command(request.campaign_id, state, request.reason, context)
        answer = await self._ask(command)
        conflict = answer[0] == Outcome.CAMPAIGN_CONFLICT
        fields = self._campaign_fields(
            answer, context, "the campaign has ended" if conflict else ""
        )
        return seckill_service_pb2.PauseCampaignResponse(**fields)

    async def end_campaign(
        self, request: seckill_service_pb2.EndCampaignRequest, context: CallContext
    ) -> seckill_service_pb2.EndCampaignResponse:
        """End it, then send what is unsold back to the base pools."""
        command = set_state_command(request.campaign_id, CAMPAIGN_ENDED, request.reason, context)
        answer = await self._ask(command)
        view = campaign_view(item(answer, 1))
        if answer[0] == Outcome.APPLIED and view is not None:
            await self._give_back(view, context)
            again = await self._ask(
                get_campaign_command(command.campaign_id, context.deadline_ms, OWN_CALLER)
            )
            # The campaign has ended durably, whatever this read says.
            answer = (answer[0], item(again, 1) or answer[1], item(again, 2, answer[2]))
        fields = self._campaign_fields(answer, context)
        return seckill_service_pb2.EndCampaignResponse(**fields)

    async def _give_back(self, view: CampaignView, context: CallContext) -> None:
        room = asyncio.Semaphore(TRANSFERS_AT_ONCE)

        async def one(pool: Any) -> None:
            async with room:
                await self._transfers.give_back(
                    campaign_id=view.campaign_id,
                    sku_id=pool[3],
                    available=pool[5],
                    granted=pool[14],
                    deadline_ms=context.deadline_ms,
                )

        async with asyncio.TaskGroup() as group:
            for pool in view.pools:
                if pool[5]:
                    group.create_task(one(pool))

    async def _allocate(
        self, view: CampaignView, as_of_ms: int, context: CallContext
    ) -> tuple[CampaignView, int, dict[str, LineAllocation]]:
        """Fetch what lines lack, until nothing lacks or nothing more can be had."""
        allocations: dict[str, LineAllocation] = {}
        attempts: dict[str, int] = {}
        for _ in range(PASSES_MAX):
            lacking = _lacking(view)
            if not lacking or context.time_remaining_s() == 0:
                break
            progressed = await self._fetch(view, lacking, allocations, attempts, context)
            read = await self._ask(
                get_campaign_command(view.campaign_id, context.deadline_ms, OWN_CALLER)
            )
            fresh = campaign_view(item(read, 1))
            if fresh is None:
                break
            view, as_of_ms = fresh, read[2]
            if not progressed:
                break
        still = {lack.sku_id for lack in _lacking(view)}
        kept = {sku_id: told for sku_id, told in allocations.items() if sku_id in still}
        return view, as_of_ms, kept

    async def _fetch(
        self,
        view: CampaignView,
        lacking: list[Lack],
        allocations: dict[str, LineAllocation],
        attempts: dict[str, int],
        context: CallContext,
    ) -> bool:
        """One pass. Says in `allocations` why a line got less; True if another pass may help."""
        stocks = await self._lines.submit(
            [read_pool("", lack.sku_id, context.deadline_ms, OWN_CALLER) for lack in lacking]
        )
        room = asyncio.Semaphore(TRANSFERS_AT_ONCE)
        may_help = False

        async def one(lack: Lack, available: int) -> None:
            nonlocal may_help
            async with room:
                moved = await self._transfers.allocate(
                    campaign_id=view.campaign_id,
                    sku_id=lack.sku_id,
                    granted=lack.granted,
                    quantity=min(lack.missing, available),
                    attempt=attempts.get(lack.sku_id, 0),
                    deadline_ms=context.deadline_ms,
                )
            allocations[lack.sku_id] = told = _told(moved, lack, available)
            if moved.outcome == Outcome.APPLIED and not moved.left_now:
                # A transfer of this name ended before. If the line still lacks the units when it
                # is read again, they were taken out since, and the next attempt has another name.
                attempts[lack.sku_id] = attempts.get(lack.sku_id, 0) + 1
            may_help |= told.status != Outcome.RETRY

        async with asyncio.TaskGroup() as group:
            for lack, stock in zip(lacking, stocks, strict=True):
                told = _cannot(stock, lack)
                if told is None:
                    group.create_task(one(lack, stock[1][5]))
                else:
                    allocations[lack.sku_id] = told
        return may_help

    def _campaign_fields(
        self, answer: tuple[Any, ...], context: CallContext, message: str = ""
    ) -> dict[str, Any]:
        view = campaign_view(item(answer, 1))
        campaign = None
        if view is not None:
            campaign = campaign_message(view, as_of_ms=answer[2], now_ms=context.now_ms())
        return {**head(answer, message), "campaign": campaign}

    async def _ask(self, command: Any) -> tuple[Any, ...]:
        (answer,) = await self._lines.submit([command])
        return answer


def _lacking(view: CampaignView) -> list[Lack]:
    granted = {pool[3]: pool[14] for pool in view.pools}
    return [
        Lack(line.sku_id, granted[line.sku_id], line.allocation - granted[line.sku_id])
        for line in view.config.lines
        if line.allocation > granted[line.sku_id]
    ]


def _cannot(stock: tuple[Any, ...], lack: Lack) -> LineAllocation | None:
    """Why nothing can be fetched for a line; None if something can."""
    if stock[0] == Outcome.NOT_FOUND:
        return _NO_SKU
    if stock[0] != Outcome.FOUND:
        return LineAllocation(Outcome.RETRY, "the SKU's shard did not answer")
    if not stock[1][5]:
        return _too_few(lack.missing, 0)
    return None


def _too_few(missing: int, available: int) -> LineAllocation:
    return LineAllocation(
        Outcome.EXCEEDS_AVAILABLE, f"{missing} units were missing; the base pool had {available}"
    )


def _told(moved: Moved, lack: Lack, available: int) -> LineAllocation:
    """What one transfer says of its line, should the line still lack units in the end."""
    if moved.outcome in WAITING:
        return LineAllocation(Outcome.RETRY, "the SKU's shard did not answer")
    if moved.outcome == Outcome.APPLIED and moved.arrived is None:
        return LineAllocation(Outcome.RETRY, "units are in transit; they arrive by themselves")
    if moved.outcome == Outcome.NOT_FOUND:
        return _NO_SKU
    return _too_few(lack.missing, available)
