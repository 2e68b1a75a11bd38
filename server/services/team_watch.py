"""WatchTeam: a team as it changes, until it has ended. How it is polled is in `polling.py`."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import Message
from stockray_proto.v1 import group_buy_service_pb2

from actors.core.outcomes import Outcome
from server.handlers import OWN_CALLER, CallContext, Method, wall_ms
from server.lines import Lines
from server.services.polling import Feed, Polling, WatchLimits, read_interval
from server.services.reservations import GROUP_BUY
from server.services.team_listings import TeamListings
from server.services.views import ANSWER_TIMEOUT_S
from server.translate.payment import slot_of_public_id
from server.translate.scalars import stamp
from server.translate.team import (
    TeamView,
    get_team_command,
    team_message,
    team_view,
    team_violations,
)

_versions = itertools.count(1)


class TeamFeed(Feed[str]):
    """One watched team, by its id."""

    def __init__(self, team_id: str) -> None:
        super().__init__(team_id, slot_of_public_id(team_id) or 0)
        self.view: TeamView | None = None
        self.version = 0
        """Grows with every change; a watcher has sent what is not above its own."""
        self.status = Outcome.RETRY

    def question(self, deadline_ms: int) -> Any:
        return get_team_command(self.key, deadline_ms, OWN_CALLER)

    async def take(self, answer: tuple[Any, ...], asked_ms: int) -> bool:
        before = self.status
        known = answer[0] in (Outcome.FOUND, Outcome.NOT_FOUND)
        self.status = Outcome(answer[0]) if known else Outcome.RETRY
        changed = self.status is not before
        if self.status is Outcome.FOUND:
            view = team_view(answer[1])
            if view != self.view:
                self.view, self.version = view, next(_versions)
                changed = True
        return changed


class TeamWatch:
    """The call WatchTeam."""

    def __init__(
        self,
        lines: Lines,
        listings: TeamListings,
        *,
        limits: WatchLimits | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._listings = listings
        self._now_ms = now_ms
        self.polling: Polling[str, TeamFeed] = Polling(
            lines, TeamFeed, limits=limits, now_ms=now_ms
        )

    def methods(self) -> list[Method]:
        """The one call."""
        request = group_buy_service_pb2.WatchTeamRequest
        return [Method(path=GROUP_BUY + "WatchTeam", request=request, stream=self.watch_team)]

    async def watch_team(
        self, request: group_buy_service_pb2.WatchTeamRequest, context: CallContext
    ) -> AsyncIterator[Message]:
        """The team first, then whenever it changed; its end is the last message."""
        wrong = team_violations(request)
        interval_ms = read_interval(request, wrong)
        wrong.refuse()
        team_id, viewer = request.team_id, request.viewer_buyer_id
        if slot_of_public_id(team_id) is None:
            yield self._message(Outcome.NOT_FOUND)
            return
        event = asyncio.Event()
        feeds = self.polling.join([team_id], event, interval_ms)
        (feed,) = feeds
        sent_version = 0
        try:
            async for _ in self.polling.turns(feeds, event, interval_ms):
                if feed.status is Outcome.NOT_FOUND:
                    yield await self._last(team_id, viewer)
                    return
                changed = feed.version > sent_version
                sent_version = feed.version
                yield self._message(feed.status, team_id, feed.view if changed else None, viewer)
                if feed.view is not None and feed.view.ended:
                    return
        finally:
            self.polling.leave(feeds, event)

    async def _last(self, team_id: str, viewer: str) -> group_buy_service_pb2.WatchTeamResponse:
        """Its shard has it no more: it ended long ago, or never was."""
        view, _ = await self._listings.find_team(team_id, self._now_ms(), ANSWER_TIMEOUT_S)
        status = Outcome.NOT_FOUND if view is None else Outcome.FOUND
        return self._message(status, team_id, view, viewer)

    def _message(
        self, status: Outcome, team_id: str = "", view: TeamView | None = None, viewer: str = ""
    ) -> group_buy_service_pb2.WatchTeamResponse:
        now_ms = self._now_ms()
        team = None
        if view is not None:
            slot = slot_of_public_id(team_id) or 0
            team = team_message(slot, view, viewer=viewer, now_ms=now_ms)
        return group_buy_service_pb2.WatchTeamResponse(
            status=int(status),  # type: ignore[arg-type]
            team=team,
            server_time=stamp(now_ms),
        )
