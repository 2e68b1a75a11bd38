"""The verbs of flash-sale campaigns."""

from __future__ import annotations

from collections.abc import Sequence

from stockray_proto.v1 import seckill_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import read, set_field, write
from stockray._paging import Page, Pager
from stockray._session import Session
from stockray._verbs import SECKILL
from stockray.enums import CampaignPhase
from stockray.records import Campaign, DataAge
from stockray.results import CampaignResult, GetCampaignResult

PUT_CAMPAIGN = Method(SECKILL + "PutCampaign", wire.PutCampaignResponse.FromString)
GET_CAMPAIGN = Method(SECKILL + "GetCampaign", wire.GetCampaignResponse.FromString)
LIST_CAMPAIGNS = Method(SECKILL + "ListCampaigns", wire.ListCampaignsResponse.FromString)
PAUSE_CAMPAIGN = Method(SECKILL + "PauseCampaign", wire.PauseCampaignResponse.FromString)
END_CAMPAIGN = Method(SECKILL + "EndCampaign", wire.EndCampaignResponse.FromString)


class CampaignCalls(Session):
    """Each is one RPC, sent again until it is decided or time is up; all are idempotent."""

    async def put_campaign(
        self, campaign: Campaign, *, reason: str = "", timeout_ms: int | None = None
    ) -> CampaignResult:
        """Makes a campaign or changes one, and allocates its lines' units from the base pools.

        APPLIED also when a line was not allocated in full: each line of the answer says how much
        was, and why not all. Instants must be aware datetimes.
        """
        request = wire.PutCampaignRequest(reason=reason)
        write(request.campaign, campaign)
        return await self._ask(
            CampaignResult,
            PUT_CAMPAIGN,
            request,
            ids=(campaign.campaign_id,),
            timeout_ms=timeout_ms,
        )

    async def get_campaign(
        self, campaign_id: str, *, timeout_ms: int | None = None
    ) -> GetCampaignResult:
        """Reads one campaign with its pools from its shard, fenced."""
        request = wire.GetCampaignRequest(campaign_id=campaign_id)
        return await self._ask(GetCampaignResult, GET_CAMPAIGN, request, timeout_ms=timeout_ms)

    def list_campaigns(
        self,
        *,
        phases: Sequence[CampaignPhase] = (),
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[Campaign]:
        """Campaigns in one of the phases, or all; in no promised order."""
        request = wire.ListCampaignsRequest(page_size=page_size)
        set_field(request, "phases", tuple(phases))

        async def fetch(token: str) -> Page[Campaign]:
            request.page_token = token
            found = await self._fetch(LIST_CAMPAIGNS, request, timeout_ms=timeout_ms)
            return Page(
                items=tuple(read(Campaign, item) for item in found.campaigns),
                next_page_token=found.next_page_token,
                age=read(DataAge, found.age),
                unreachable_shards=tuple(found.unreachable_shards),
            )

        return Pager(fetch, page_token)

    async def pause_campaign(
        self,
        campaign_id: str,
        *,
        resume: bool = False,
        reason: str = "",
        timeout_ms: int | None = None,
    ) -> CampaignResult:
        """Stops reserving at one instant, or with `resume` lets a paused campaign go on."""
        request = wire.PauseCampaignRequest(campaign_id=campaign_id, resume=resume, reason=reason)
        return await self._ask(
            CampaignResult, PAUSE_CAMPAIGN, request, ids=(campaign_id,), timeout_ms=timeout_ms
        )

    async def end_campaign(
        self, campaign_id: str, *, reason: str = "", timeout_ms: int | None = None
    ) -> CampaignResult:
        """Ends a campaign at one instant, before its time. Cannot be undone."""
        request = wire.EndCampaignRequest(campaign_id=campaign_id, reason=reason)
        return await self._ask(
            CampaignResult, END_CAMPAIGN, request, ids=(campaign_id,), timeout_ms=timeout_ms
        )
