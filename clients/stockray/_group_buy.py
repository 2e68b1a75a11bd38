"""The verbs of group-buys: campaigns for teams, teams and their seats."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta

from stockray_proto.v1 import group_buy_service_pb2 as wire

from stockray._channel import Method
from stockray._codec import read, set_field, write
from stockray._many import ManyCalls
from stockray._paging import Page, Pager
from stockray._seats import GROUP_BUY, decode_seat, encode_join, read_status, write_open
from stockray._watch import Watch
from stockray.enums import Status, TeamState
from stockray.group_buy import (
    CompleteTeamResult,
    GetGroupCampaignResult,
    GetTeamResult,
    GroupCampaign,
    GroupCampaignResult,
    LeaveTeamResult,
    SeatResult,
    SuggestTeamsResult,
    Team,
    TeamChange,
)
from stockray.lines import JoinTeamLine, OpenTeamLine
from stockray.records import Attribution, DataAge

PUT_GROUP_CAMPAIGN = Method(
    GROUP_BUY + "PutGroupCampaign", wire.PutGroupCampaignResponse.FromString
)
GET_GROUP_CAMPAIGN = Method(
    GROUP_BUY + "GetGroupCampaign", wire.GetGroupCampaignResponse.FromString
)
OPEN_TEAM = Method(
    GROUP_BUY + "OpenTeam", lambda data: wire.OpenTeamResponse.FromString(data).result
)
LEAVE_TEAM = Method(GROUP_BUY + "LeaveTeam", wire.LeaveTeamResponse.FromString)
GET_TEAM = Method(GROUP_BUY + "GetTeam", wire.GetTeamResponse.FromString)
SUGGEST_TEAMS = Method(GROUP_BUY + "SuggestTeams", wire.SuggestTeamsResponse.FromString)
WATCH_TEAM = Method(GROUP_BUY + "WatchTeam", wire.WatchTeamResponse.FromString)
LIST_TEAMS = Method(GROUP_BUY + "ListTeams", wire.ListTeamsResponse.FromString)
COMPLETE_TEAM = Method(GROUP_BUY + "CompleteTeam", wire.CompleteTeamResponse.FromString)


class GroupBuyCalls(ManyCalls):
    """A seat is a reservation: it is paid by `confirm`, and `release` gives an unpaid one up.

    `join_team` shares RPCs as `grab` does; each of the others is one RPC, sent again with the same
    id until it is decided or time is up, and raises DeadlineExceeded besides what `grab` raises.
    """

    async def put_group_campaign(
        self, campaign: GroupCampaign, *, reason: str = "", timeout_ms: int | None = None
    ) -> GroupCampaignResult:
        """Makes a campaign for teams or changes one, and allocates units, as `put_campaign`.

        Pause and end it by `pause_campaign` and `end_campaign`.
        """
        request = wire.PutGroupCampaignRequest(reason=reason)
        write(request.campaign, campaign)
        return await self._ask(
            GroupCampaignResult,
            PUT_GROUP_CAMPAIGN,
            request,
            ids=(campaign.campaign_id,),
            timeout_ms=timeout_ms,
        )

    async def get_group_campaign(
        self, campaign_id: str, *, timeout_ms: int | None = None
    ) -> GetGroupCampaignResult:
        """Reads one campaign for teams with its pools from its shard, fenced."""
        request = wire.GetGroupCampaignRequest(campaign_id=campaign_id)
        return await self._ask(
            GetGroupCampaignResult, GET_GROUP_CAMPAIGN, request, timeout_ms=timeout_ms
        )

    async def open_team(
        self,
        campaign_id: str,
        sku_id: str,
        *,
        buyer_id: str,
        quantity: int = 1,
        new_buyer: bool = False,
        request_id: str = "",
        device_id: str = "",
        ip: str = "",
        claims: Sequence[str] = (),
        attribution: Attribution | None = None,
        order_id: str = "",
        payable_minor: int | None = None,
        timeout_ms: int | None = None,
    ) -> SeatResult:
        """Opens a team and takes its first seat; others can join once that is paid.

        The same `request_id` opens one team, however often it is asked.
        """
        line = OpenTeamLine(
            campaign_id,
            sku_id,
            buyer_id,
            quantity,
            new_buyer,
            request_id or self._make_id(),
            device_id,
            ip,
            tuple(claims),
            attribution,
            order_id,
            payable_minor,
        )
        request = wire.OpenTeamRequest()
        write_open(request.line, line)
        ids = (line.request_id,)
        async with self._counted() as opened:
            message, lost = await self._send(opened, OPEN_TEAM, request, ids, timeout_ms)
        result = decode_seat(message, read_status(message.status))
        if lost:
            return result._replace(status=Status.UNKNOWN)
        return result

    async def join_team(
        self,
        team_id: str,
        *,
        buyer_id: str,
        quantity: int = 1,
        new_buyer: bool = False,
        request_id: str = "",
        device_id: str = "",
        ip: str = "",
        claims: Sequence[str] = (),
        attribution: Attribution | None = None,
        order_id: str = "",
        payable_minor: int | None = None,
        timeout_ms: int | None = None,
    ) -> SeatResult:
        """Takes a seat of a team with its units, until the payment deadline.

        `other_team_ids` of a refusal are teams that the buyer could join instead.
        """
        opened = self._ready()
        line = JoinTeamLine(
            team_id,
            buyer_id,
            quantity,
            new_buyer,
            request_id or self._make_id(),
            device_id,
            ip,
            tuple(claims),
            attribution,
            order_id,
            payable_minor,
        )
        return await opened.join.submit(
            (line.request_id,),
            encode_join(line, line.request_id),
            self._deadline(opened, timeout_ms),
        )

    async def join_team_many(
        self, lines: Iterable[JoinTeamLine], *, timeout_ms: int | None = None
    ) -> list[SeatResult]:
        """Joins line by line, as `reserve_many`."""
        async with self._counted() as opened:
            deadline = self._deadline(opened, timeout_ms)
            encoded = []
            for line in lines:
                request_id = line.request_id or self._make_id()
                encoded.append(((request_id,), encode_join(line, request_id)))
            return await self._many(opened.join, opened, encoded, deadline)

    async def leave_team(
        self, reservation_id: str, *, reason: str = "", timeout_ms: int | None = None
    ) -> LeaveTeamResult:
        """Gives a seat up while its team is forming; what was paid becomes refund due."""
        request = wire.LeaveTeamRequest(reservation_id=reservation_id, reason=reason)
        return await self._ask(
            LeaveTeamResult, LEAVE_TEAM, request, ids=(reservation_id,), timeout_ms=timeout_ms
        )

    async def get_team(
        self, team_id: str, *, viewer_buyer_id: str = "", timeout_ms: int | None = None
    ) -> GetTeamResult:
        """Reads a team and its members from its shard, or from the SQL view later."""
        request = wire.GetTeamRequest(team_id=team_id, viewer_buyer_id=viewer_buyer_id)
        return await self._ask(GetTeamResult, GET_TEAM, request, timeout_ms=timeout_ms)

    async def suggest_teams(
        self,
        campaign_id: str,
        *,
        buyer_id: str,
        sku_id: str = "",
        new_buyer: bool = False,
        limit: int = 0,
        timeout_ms: int | None = None,
    ) -> SuggestTeamsResult:
        """Teams that the buyer could join now: at most `limit`, 1-50 (0: 10)."""
        request = wire.SuggestTeamsRequest(
            campaign_id=campaign_id,
            sku_id=sku_id,
            buyer_id=buyer_id,
            new_buyer=new_buyer,
            limit=limit,
        )
        return await self._ask(SuggestTeamsResult, SUGGEST_TEAMS, request, timeout_ms=timeout_ms)

    async def watch_team(
        self, team_id: str, *, viewer_buyer_id: str = "", interval: timedelta | None = None
    ) -> AsyncIterator[TeamChange]:
        """Yields a team as it changes, until it has ended or is not found.

        `interval` is the shortest time between two changes, 100 ms to 60 s. A stream that ends
        before the team is opened again, and then begins with the team. Raises Unavailable when no
        stream could be had for `timeout_ms`.
        """
        request = wire.WatchTeamRequest(team_id=team_id, viewer_buyer_id=viewer_buyer_id)
        set_field(request, "interval", interval)
        opened = self._ready()
        watch = Watch(opened.connections, self._options)
        messages = watch.messages(WATCH_TEAM, request.SerializeToString)
        async with aclosing(messages):
            async for message in messages:
                change = read(TeamChange, message)
                yield change
                over = change.status is Status.NOT_FOUND
                if over or (change.team is not None and change.team.ended):
                    return

    def list_teams(
        self,
        campaign_id: str,
        *,
        states: Sequence[TeamState] = (),
        page_size: int = 0,
        page_token: str = "",
        timeout_ms: int | None = None,
    ) -> Pager[Team]:
        """A campaign's teams from the SQL view, newest first, without their members."""
        request = wire.ListTeamsRequest(page_size=page_size, campaign_id=campaign_id)
        set_field(request, "states", tuple(states))

        async def fetch(token: str) -> Page[Team]:
            request.page_token = token
            found = await self._fetch(LIST_TEAMS, request, timeout_ms=timeout_ms)
            return Page(
                items=tuple(read(Team, item) for item in found.teams),
                next_page_token=found.next_page_token,
                age=read(DataAge, found.age),
            )

        return Pager(fetch, page_token)

    async def complete_team(
        self, team_id: str, *, reason: str, people: int = 0, timeout_ms: int | None = None
    ) -> CompleteTeamResult:
        """Forms a team with virtual seats, where its campaign allows that: an operator's act.

        `people` of the tier to reach; 0 for the lowest that the paid seats do not exceed.
        """
        request = wire.CompleteTeamRequest(team_id=team_id, people=people, reason=reason)
        return await self._ask(
            CompleteTeamResult, COMPLETE_TEAM, request, ids=(team_id,), timeout_ms=timeout_ms
        )
