"""GroupBuyService, the part about teams; group campaigns are in `seckill.py`, beside the others.

Seats are taken the quick way, gathered into rounds like any line. A team that left memory is read
from the SQL view: it has ended, so the view, as old as it may be, has all of it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from stockray_proto.v1 import common_pb2, group_buy_service_pb2

from actors.core.outcomes import Outcome
from server.errors import refuse_fields
from server.handlers import CallContext, Calls, Method, QuickCalls
from server.lines import Lines
from server.reply import Reply
from server.services.reservations import GROUP_BUY, require_line
from server.services.team_listings import TeamListings
from server.translate.payment import NOT_FOUND, refund_message
from server.translate.reserve import LineRefused
from server.translate.scalars import age_of
from server.translate.seat import (
    join_team_command,
    join_team_commands,
    join_team_results,
    open_team_command,
    seat_response,
    seat_result,
)
from server.translate.stock import head, item
from server.translate.team import (
    MESSAGES,
    complete_team_command,
    get_team_command,
    leave_team_command,
    suggest_teams_command,
    team_message,
    team_view,
    team_violations,
)

T = TypeVar("T")


class Teams:
    """Open, join, leave, read, suggest and complete teams."""

    def __init__(self, lines: Lines, listings: TeamListings) -> None:
        self._lines = lines
        self._listings = listings

    def methods(self) -> list[Method]:
        """The calls of this part."""
        buy = group_buy_service_pb2
        one: QuickCalls = {
            "OpenTeam": (buy.OpenTeamRequest, self.open_team),
            "JoinTeam": (buy.JoinTeamRequest, self.join_team),
            "LeaveTeam": (buy.LeaveTeamRequest, self.leave_team),
            "SuggestTeams": (buy.SuggestTeamsRequest, self.suggest_teams),
            "CompleteTeam": (buy.CompleteTeamRequest, self.complete_team),
        }
        calls: Calls = {
            "GetTeam": (buy.GetTeamRequest, self.get_team),
            "ListTeams": (buy.ListTeamsRequest, self._listings.list_teams),
        }
        return [
            *(Method(path=GROUP_BUY + n, request=r, quick=h) for n, (r, h) in one.items()),
            *(Method(path=GROUP_BUY + n, request=r, unary=h) for n, (r, h) in calls.items()),
            Method(
                path=GROUP_BUY + "JoinTeamMany",
                request=buy.JoinTeamManyRequest,
                unary=self.join_team_many,
                lines_field="lines",
            ),
        ]

    def open_team(
        self, request: group_buy_service_pb2.OpenTeamRequest, context: CallContext, reply: Reply
    ) -> None:
        """A team's first seat."""
        command = _seat_command(request, context, open_team_command)
        self._lines.put(command, reply.after(seat_response, command))

    def join_team(
        self, request: group_buy_service_pb2.JoinTeamRequest, context: CallContext, reply: Reply
    ) -> None:
        """A further seat."""
        command = _seat_command(request, context, join_team_command)
        if command is None:
            reply.finish(seat_result(request.line.request_id, 0, NOT_FOUND))
        else:
            self._lines.put(command, reply.after(seat_response, command))

    async def join_team_many(
        self, request: group_buy_service_pb2.JoinTeamManyRequest, context: CallContext
    ) -> bytes:
        """Seats, each by itself."""
        commands, known = join_team_commands(
            request.lines, caller=context.caller, deadline_ms=context.deadline_ms
        )
        answers = await self._lines.submit(commands) if commands else ()
        return join_team_results(known, commands, answers)

    def leave_team(
        self, request: group_buy_service_pb2.LeaveTeamRequest, context: CallContext, reply: Reply
    ) -> None:
        """Give a seat up."""
        command = leave_team_command(request, context)
        answered = reply.after(_left, (request, 0 if command is None else command.slot))
        if command is None:
            answered(NOT_FOUND)
        else:
            self._lines.put(command, answered)

    def suggest_teams(
        self, request: group_buy_service_pb2.SuggestTeamsRequest, context: CallContext, reply: Reply
    ) -> None:
        """Teams that the buyer could join now."""
        command = suggest_teams_command(request, context)
        subject = (command, context, context.now_ms())
        self._lines.put(command, reply.after(_suggested, subject))

    def complete_team(
        self, request: group_buy_service_pb2.CompleteTeamRequest, context: CallContext, reply: Reply
    ) -> None:
        """Form a team with virtual seats."""
        command = complete_team_command(request, context)
        answered = reply.after(_completed, (command, context))
        if command is None:
            answered(NOT_FOUND)
        else:
            self._lines.put(command, answered)

    async def get_team(
        self, request: group_buy_service_pb2.GetTeamRequest, context: CallContext
    ) -> group_buy_service_pb2.GetTeamResponse:
        """Read one from its shard, or from SQL when its shard forgot it or its members."""
        team_violations(request).refuse()
        asked_ms = context.now_ms()
        command = get_team_command(request.team_id, context.deadline_ms, context.caller)
        answer = NOT_FOUND
        if command is not None:
            (answer,) = await self._lines.submit([command])
        view = team_view(item(answer, 1))
        age = age_of(asked_ms, context.now_ms(), common_pb2.DATA_SOURCE_SHARD)
        # Members of a team that ended may leave memory before it does.
        is_part = view is not None and view.ended and len(view.members) < view.paid
        if command is not None and (answer[0] == Outcome.NOT_FOUND or is_part):
            view, age = await self._listings.find_team(
                request.team_id, context.now_ms(), context.time_remaining_s()
            )
            answer = NOT_FOUND if view is None else (Outcome.FOUND,)
        response = group_buy_service_pb2.GetTeamResponse(**head(answer))
        if command is not None and view is not None:
            team = team_message(
                command.slot, view, viewer=request.viewer_buyer_id, now_ms=context.now_ms()
            )
            response.team.CopyFrom(team)
            response.age.CopyFrom(age)
        return response


def _seat_command(request: Any, context: CallContext, make: Callable[..., T]) -> T:
    """What `make` makes of a request's one line. Raises CallError, with all that is wrong in it."""
    require_line(request)
    try:
        return make(
            request.line, caller=context.caller, deadline_ms=context.deadline_ms, prefix="line."
        )
    except LineRefused as error:
        refuse_fields(error.violations.found)


def _left(subject: tuple[Any, int], answer: tuple[Any, ...]) -> bytes:
    request, slot = subject
    return group_buy_service_pb2.LeaveTeamResponse(
        **head(answer),
        reservation_id=request.reservation_id,
        state=item(answer, 1, 0),
        refund=refund_message(slot, item(answer, 2)),
    ).SerializeToString()


def _suggested(subject: tuple[Any, CallContext, int], answer: tuple[Any, ...]) -> bytes:
    command, context, asked_ms = subject
    response = group_buy_service_pb2.SuggestTeamsResponse(**head(answer))
    now_ms = context.now_ms()
    for found in item(answer, 1, ()):
        view = team_view(found)
        if view is not None:
            response.teams.append(team_message(command.slot, view, now_ms=now_ms))
    if answer[0] == Outcome.FOUND:
        response.age.CopyFrom(age_of(asked_ms, now_ms, common_pb2.DATA_SOURCE_SHARD))
    return response.SerializeToString()


def _completed(subject: tuple[Any, CallContext], answer: tuple[Any, ...]) -> bytes:
    command, context = subject
    response = group_buy_service_pb2.CompleteTeamResponse(
        **head(answer, MESSAGES.get(answer[0], ""))
    )
    view = team_view(item(answer, 1))
    if command is not None and view is not None:
        response.team.CopyFrom(team_message(command.slot, view, now_ms=context.now_ms()))
    return response.SerializeToString()
