"""Callers who buy together: they open teams, pay, bring friends, leave, pay late, and complete.

Callers of a shard know of each other's teams, so that last seats are asked for at once. Late payers
wait until their seat has expired; what they then find is another team, or a refund.
"""

import time
from collections import deque
from typing import Any, NamedTuple

from actors.core.identity import public_id, request_key
from actors.core.teams import team_key_of
from server.chaos.callers import TIMEOUT_MS, Asked, Call, Caller, Market, nothing_told
from server.chaos.goods import Line
from server.chaos.history import (
    CALLER,
    OK,
    Operation,
    completion_mark,
    release_mark,
    request_mark,
)
from server.chaos.referrals import attribution_of
from server.chaos.team_goods import PAYMENT_WINDOW_S, GroupGoods

LATE_S = PAYMENT_WINDOW_S + 0.5
LATE_MAX = 32
"""Late payers whom one caller plays at once."""
SUGGESTED = 5


class Late(NamedTuple):
    """A seat that is paid for when it has expired."""

    at_s: float
    line: Line
    held: Operation


class TeamCaller(Caller):
    """One caller of a shard's group campaigns."""

    def __init__(self, load: Market, goods: GroupGoods, *, name: str, pause_s: float) -> None:
        super().__init__(load, goods.lines, name=name, pause_s=pause_s)
        self._goods = goods
        self._late: deque[Late] = deque(maxlen=LATE_MAX)

    async def gather(self) -> None:
        """Teams through their lives."""
        while self._load.going:
            teams = self._goods.open_teams
            if self._late and self._late[0].at_s <= time.monotonic():
                late = self._late.popleft()
                await self._confirm(late.line, late.held)
            elif teams and self._random.random() < 0.6:
                await self._visit(*self._random.choice(teams))
            else:
                await self._found(self._goods.line)
            if self._old and self._random.random() < 0.1:
                await self._repeat(self._random.choice(self._old))

    async def _found(self, line: Line) -> None:
        """Open a team and lead it."""
        buyer_id = self._new("leader")
        held = await self._open(line, buyer_id)
        if held.outcome != OK:
            return
        if self._random.random() < 0.15:
            await self._join(line, held.team_id, self._new("hasty"))
        if self._random.random() < 0.15:
            await self._open(line, buyer_id)
        if await self._decide(line, held, paid=0.9):
            self._goods.open_teams.append((line, held.team_id))
            await self._visit(line, held.team_id, buyer_id)

    async def _visit(self, line: Line, team_id: str, buyer_id: str = "") -> None:
        """A friend joins; sometimes somebody who is in already, an operator, or only a reader."""
        draw = self._random.random()
        if draw < 0.15:
            await self._suggest(line)
        elif draw < 0.2:
            await self._complete(line, team_id)
        elif buyer_id and draw < 0.3:
            await self._join(line, team_id, buyer_id)
        else:
            held = await self._join(line, team_id, self._new("friend"))
            if held.status in ("TEAM_CLOSED", "ENDED"):
                self._goods.over(line, team_id)
            elif held.outcome == OK:
                await self._decide(line, held, paid=0.6)
        if self._random.random() < 0.4:
            await self._read_team(line, team_id)

    async def _decide(self, line: Line, held: Operation, *, paid: float) -> bool:
        """What the owner of a seat does with it; whether it was paid and kept."""
        draw = self._random.random()
        if draw < paid:
            told = await self._confirm(line, held)
            if told.status == "CONFIRMED" and self._random.random() < 0.15:
                await self._leave(line, held)
            return told.status == "CONFIRMED"
        if draw < paid + 0.1:
            await self._leave(line, held)
        elif draw < paid + 0.3:
            self._late.append(Late(time.monotonic() + LATE_S, line, held))
        return False

    async def _open(self, line: Line, buyer_id: str) -> Operation:
        request_id = self._new("request")
        team_id = public_id(line.slot, team_key_of(request_key(CALLER, request_id)))
        return await self._sit("open_team", line, buyer_id, request_id, team_id)

    async def _join(self, line: Line, team_id: str, buyer_id: str) -> Operation:
        return await self._sit("join_team", line, buyer_id, self._new("request"), team_id)

    async def _sit(
        self, verb: str, line: Line, buyer_id: str, request_id: str, team_id: str
    ) -> Operation:
        quantity, new_buyer = self._random.choice((1, 1, 1, 2)), self._random.random() < 0.4
        mark = request_mark(line.slot, request_id)
        code = self._load.referrals.code_of(buyer_id)
        asked = Asked(verb, line, buyer_id, quantity, mark, "", team_id, new_buyer, code)
        return await self._take(asked, request_id)

    def _reserving(self, asked: Asked, request_id: str) -> Call:
        client, line = self._client, asked.line
        by = attribution_of(asked.share_code)
        if asked.verb == "open_team":
            return lambda timeout_ms: client.open_team(
                line.campaign_id,
                line.sku_id,
                buyer_id=asked.buyer_id,
                quantity=asked.quantity,
                new_buyer=asked.new_buyer,
                request_id=request_id,
                attribution=by,
                timeout_ms=timeout_ms,
            )
        return lambda timeout_ms: client.join_team(
            asked.team_id,
            buyer_id=asked.buyer_id,
            quantity=asked.quantity,
            new_buyer=asked.new_buyer,
            request_id=request_id,
            attribution=by,
            timeout_ms=timeout_ms,
        )

    async def _leave(self, line: Line, held: Operation) -> None:
        client, reservation_id = self._client, held.reservation_id
        asked = self._of(line, held, "leave_team", release_mark(reservation_id))
        for _ in range(2 if self._random.random() < 0.1 else 1):
            await self._ask(
                asked,
                lambda timeout_ms: client.leave_team(
                    reservation_id, reason="changed my mind", timeout_ms=timeout_ms
                ),
                nothing_told,
            )

    async def _complete(self, line: Line, team_id: str) -> None:
        client = self._client
        await self._ask(
            Asked("complete_team", line, "", 0, completion_mark(team_id), "", team_id),
            lambda timeout_ms: client.complete_team(
                team_id, reason="goodwill", timeout_ms=timeout_ms
            ),
            nothing_told,
        )

    async def _read_team(self, line: Line, team_id: str) -> None:
        client = self._client
        await self._once(
            Asked("get_team", line, "", 0, "", "", team_id),
            lambda timeout_ms: client.get_team(team_id, timeout_ms=timeout_ms),
            _team_told,
            TIMEOUT_MS,
        )

    async def _suggest(self, line: Line) -> None:
        client, buyer_id = self._client, self._new("looker")
        await self._once(
            Asked("suggest_teams", line, buyer_id, 0, ""),
            lambda timeout_ms: client.suggest_teams(
                line.campaign_id,
                buyer_id=buyer_id,
                new_buyer=True,
                limit=SUGGESTED,
                timeout_ms=timeout_ms,
            ),
            _teams_told,
            TIMEOUT_MS,
        )


def _team_told(result: Any) -> tuple[Any, ...]:
    team = result.team
    return (team.state.name, team.paid_count, team.unpaid_count, team.virtual_count)


def _teams_told(result: Any) -> tuple[Any, ...]:
    return tuple(team.team_id for team in result.teams)
