"""Teams from the SQL view: lists, and teams that left their shard's memory."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from stockray_proto.v1 import common_pb2, group_buy_service_pb2

from actors.core.campaign_config import CampaignConfig
from actors.core.identity import parse_public_id
from actors.core.state import CONFIRMED, RESERVED
from actors.core.team_state import TEAM_CANCELLED, TEAM_FAILED, TEAM_FORMED, TEAM_FORMING
from persistence.sql.paging import Row
from server.handlers import CallContext
from server.services.views import ViewReader, Views, view_age
from server.translate.pages import make_token, page_size, read_token
from server.translate.rows import SeatCounts, config_from, seat_counts, team_view_from
from server.translate.team import TeamView, team_message
from server.validate import Violations

ALL_STATES = (TEAM_FORMING, TEAM_FORMED, TEAM_FAILED, TEAM_CANCELLED)
HELD = (RESERVED, CONFIRMED)


class Listed(NamedTuple):
    """Rows of one page with what belongs to them."""

    rows: list[Row]
    after: tuple[int, str] | None
    config: CampaignConfig | None
    counts: dict[str, SeatCounts]
    age: common_pb2.DataAge


class TeamListings:
    """Reads `teams` and `seats`."""

    def __init__(self, reader: ViewReader) -> None:
        self._reader = reader

    async def list_teams(
        self, request: group_buy_service_pb2.ListTeamsRequest, context: CallContext
    ) -> group_buy_service_pb2.ListTeamsResponse:
        """Newest first. Several states, or none, are one walk of the index each, merged."""
        wrong = Violations()
        wrong.page(page_size=request.page_size, page_token=request.page_token)
        wrong.id("campaign_id", request.campaign_id)
        for index, state in enumerate(request.states):
            if state not in ALL_STATES:
                wrong.add(f"states[{index}]", "a state that a team can be in")
        wrong.refuse()
        states = tuple(sorted(set(request.states))) or ALL_STATES
        after = read_token(request.page_token, (int, str), request.campaign_id, states)
        size = page_size(request.page_size)

        def query(views: Views) -> Listed:
            age = view_age(views.positions(), context.now_ms())
            pages = [
                views.list_teams(
                    campaign_id=request.campaign_id,
                    state=state,
                    page_size=size,
                    after=after,
                    newest_first=True,
                )
                for state in states
            ]
            found = list(heapq.merge(*(page.rows for page in pages), key=_place, reverse=True))
            more = len(found) > size or any(page.after is not None for page in pages)
            rows = found[:size]
            forming = [row["team_id"] for row in rows if row["state"] == TEAM_FORMING]
            campaign = views.get_campaign(request.campaign_id)
            return Listed(
                rows,
                _place(rows[-1]) if more and rows else None,
                None if campaign is None else config_from(campaign),
                seat_counts(views.count_seats(forming, HELD)) if forming else {},
                age,
            )

        listed = await self._reader.read(query, timeout_s=context.time_remaining_s())
        response = group_buy_service_pb2.ListTeamsResponse(
            next_page_token=make_token(listed.after, request.campaign_id, states), age=listed.age
        )
        for row in listed.rows:
            view = _view(row, listed.config, listed.counts.get(row["team_id"], SeatCounts()))
            response.teams.append(
                team_message(_slot(row["team_id"]), view, now_ms=context.now_ms())
            )
        return response

    async def find_team(
        self, team_id: str, now_ms: int, timeout_s: float
    ) -> tuple[TeamView | None, common_pb2.DataAge]:
        """A team with its members, None if the view has none of this id. CallError when the view
        does not answer."""

        def query(views: Views) -> tuple[TeamView | None, common_pb2.DataAge]:
            age = view_age(views.positions(), now_ms)
            row = views.get_team(team_id)
            if row is None:
                return None, age
            campaign = views.get_campaign(row["campaign_id"])
            config = None if campaign is None else config_from(campaign)
            counts = seat_counts(views.count_seats([team_id], HELD)).get(team_id, SeatCounts())
            return _view(row, config, counts, views.list_seats(team_id)), age

        return await self._reader.read(query, timeout_s=timeout_s)


def _view(
    row: Row, config: CampaignConfig | None, counts: SeatCounts, seats: Sequence[Row] = ()
) -> TeamView:
    # A campaign is put before its first team is opened, and its row is written before the team's.
    assert config is not None, f"team {row['team_id']} is of no campaign"
    return team_view_from(row, config, counts, seats)


def _place(row: Row) -> tuple[int, str]:
    return row["opened_ms"], row["team_id"]


def _slot(team_id: str) -> int:
    parsed = parse_public_id(team_id)
    return 0 if parsed is None else parsed[0]
