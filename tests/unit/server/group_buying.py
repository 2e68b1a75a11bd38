"""Group-buys for tests: a campaign of tea for teams, and its buyers."""

from typing import Any

from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import group_buy_service_pb2 as buy
from stockray_proto.v1 import reservation_pb2 as res

from actors.core.identity import slot_of
from actors.core.state import Refund
from server.translate.scalars import duration, stamp
from tests.helpers.core_lines import START_MS
from tests.unit.server.conftest import HOUR_MS, Gateway, buyer

FIXED = ((3, 80),)
LADDER = ((2, 90), (3, 80), (5, 50))


def group_line(*tiers: tuple[int, int], units: int = 100, **fields: Any) -> buy.GroupLine:
    """Tea at these tiers, alone at 100."""
    body: dict[str, Any] = {
        "sku_id": "tea",
        "allocation_count": units,
        "unit_price_minor": 100,
        "tiers": [buy.Tier(people=people, unit_price_minor=price) for people, price in tiers],
        **fields,
    }
    return buy.GroupLine(**body)


def group_campaign(
    *tiers: tuple[int, int], rules: dict[str, Any] | None = None, **fields: Any
) -> buy.PutGroupCampaignRequest:
    """A campaign "together" of tea for teams, open now for three hours; teams have one hour."""
    body: dict[str, Any] = {
        "campaign_id": "together",
        "title": "Together",
        "currency_code": "CNY",
        "lines": [group_line(*(tiers or FIXED))],
        "start_time": stamp(START_MS),
        "end_time": stamp(START_MS + 3 * HOUR_MS),
        "rules": buy.GroupRules(**{"window": duration(HOUR_MS), **(rules or {})}),
        **fields,
    }
    return buy.PutGroupCampaignRequest(campaign=buy.GroupCampaign(**body), reason="spring")


def open_line(buyer_id: str, **fields: Any) -> buy.OpenTeamLine:
    """One unit of tea for a team that this buyer opens."""
    body: dict[str, Any] = {
        "request_id": f"{buyer_id}-opens",
        "sku_id": "tea",
        "campaign_id": "together",
        "quantity": 1,
        "buyer": buyer(buyer_id),
        **fields,
    }
    return buy.OpenTeamLine(**body)


def join_line(team_id: str, buyer_id: str, **fields: Any) -> buy.JoinTeamLine:
    """One unit of tea for a seat of the team."""
    body: dict[str, Any] = {
        "request_id": f"{buyer_id}-joins",
        "team_id": team_id,
        "quantity": 1,
        "buyer": buyer(buyer_id),
        **fields,
    }
    return buy.JoinTeamLine(**body)


class TeamShop:
    """What buyers do at a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.stub = gateway.teams

    async def sell(self, *tiers: tuple[int, int], **fields: Any) -> buy.GroupCampaign:
        """Tea in stock, and the campaign."""
        await self.gateway.stock_up(units=1_000)
        put = await self.stub.PutGroupCampaign(group_campaign(*tiers, **fields))
        assert put.status == com.LINE_STATUS_APPLIED
        campaign: buy.GroupCampaign = put.campaign
        return campaign

    async def open(self, buyer_id: str, **fields: Any) -> buy.SeatResult:
        """Open a team."""
        answer = await self.stub.OpenTeam(buy.OpenTeamRequest(line=open_line(buyer_id, **fields)))
        result: buy.SeatResult = answer.result
        return result

    async def join(self, team_id: str, buyer_id: str, **fields: Any) -> buy.SeatResult:
        """Join a team."""
        line = join_line(team_id, buyer_id, **fields)
        result: buy.SeatResult = (await self.stub.JoinTeam(buy.JoinTeamRequest(line=line))).result
        return result

    async def pay(self, seat: buy.SeatResult) -> res.ConfirmResult:
        """Pay for a seat that was taken."""
        assert seat.status == com.LINE_STATUS_RESERVED, seat
        return await self.gateway.confirm(
            seat.reservation_id, f"p-{seat.request_id}", seat.payable_minor
        )

    async def start(self, buyer_id: str, **fields: Any) -> str:
        """Open a team and pay for its first seat: its id."""
        seat = await self.open(buyer_id, **fields)
        assert (await self.pay(seat)).status == com.LINE_STATUS_CONFIRMED
        return seat.team_id

    async def comes(self, team_id: str, buyer_id: str, **fields: Any) -> buy.SeatResult:
        """Join a team and pay."""
        seat = await self.join(team_id, buyer_id, **fields)
        assert (await self.pay(seat)).status == com.LINE_STATUS_CONFIRMED
        return seat

    async def team(self, team_id: str, viewer: str = "") -> buy.Team:
        """The team as its shard has it."""
        request = buy.GetTeamRequest(team_id=team_id, viewer_buyer_id=viewer)
        answer = await self.stub.GetTeam(request)
        assert answer.status == com.LINE_STATUS_FOUND, answer
        team: buy.Team = answer.team
        return team

    async def suggested(self, buyer_id: str, **fields: Any) -> list[str]:
        """Ids of the teams that are suggested to the buyer."""
        request = buy.SuggestTeamsRequest(campaign_id="together", buyer_id=buyer_id, **fields)
        answer = await self.stub.SuggestTeams(request)
        assert answer.status == com.LINE_STATUS_FOUND
        return [team.team_id for team in answer.teams]

    def refunds(self) -> list[Refund]:
        """All refunds of the campaign's slot."""
        return list(self.gateway.lines.state.slot(slot_of("together")).refunds.values())

    async def pass_deadline(self) -> None:
        """The teams' window passes, and what is due is decided."""
        self.gateway.clock.pass_ms(HOUR_MS)
        self.gateway.lines.expire_due()
        self.gateway.lines.end_teams()
