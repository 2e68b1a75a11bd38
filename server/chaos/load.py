"""Buyers on every shard, through the real client, with every answer written down.

How it works
------------
Each shard has goods and callers of its own, so that a shard that stands still stops nobody else. A
caller asks for one thing at a time and waits its turn before each, which bounds the rate. What it
does is drawn from the seed; what it meets is not. Steady callers only reserve what lasts: their
acknowledgements are the pulse by which gaps are measured. Busy ones lead reservations through
their lives, read, ask for too much, ask with deadlines that are too short, and repeat old requests
with their old ids. Teams are bought by callers of their own (`team_callers.py`), and some are bound
to distributors or freeze (`promoters.py`); most buyers come by a share code.
"""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from stockray import AsyncClient

from server.chaos.callers import TIMEOUT_MS, Caller
from server.chaos.goods import Line
from server.chaos.history import OPERATIONS_MAX, History
from server.chaos.promoters import Promoter
from server.chaos.referrals import Referrals
from server.chaos.team_callers import TeamCaller
from server.chaos.team_goods import GroupGoods

RPC_TIMEOUT_MS = 1_500
BACKOFF_MAX_MS = 100
"""Short, so that a gap is the service's own and not the client's pause."""
HISTORY_SHARE = 0.8
"""Of the history that the planned time may fill; faults that take longer need room, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """The size of a load. Rates are calls a second on each shard, all callers together."""

    seed: int
    seconds: float
    """How long the campaigns have to stay open, at least."""
    steady_rate: float = 60.0
    busy_rate: float = 60.0
    team_rate: float = 30.0
    steady_callers: int = 3
    busy_callers: int = 8
    team_callers: int = 5
    promoter_rate: float = 30.0
    """Of those who are bound and frozen, on all shards together."""
    promoters: int = 4
    group_campaign_s: float = 15.0
    """How long one is on sale; longer ones if the run is long."""


def groups_of(shards: int, plan: LoadPlan) -> list[GroupGoods]:
    """By shard, what teams buy."""
    return [
        GroupGoods(shard, shards, seconds=plan.seconds, each_s=plan.group_campaign_s)
        for shard in range(shards)
    ]


class Load:
    """All callers; an `async with` block begins them, and its end waits for what is in flight."""

    def __init__(
        self,
        address: str,
        plan: LoadPlan,
        lines: list[list[Line]],
        groups: list[GroupGoods],
        referrals: Referrals,
    ) -> None:
        self.referrals = referrals
        self.frozen: list[tuple[str, float]] = []
        self.history = History(len(lines))
        self.stopping = False
        self.client = AsyncClient(
            address,
            timeout_ms=TIMEOUT_MS,
            rpc_timeout_ms=RPC_TIMEOUT_MS,
            backoff_max_ms=BACKOFF_MAX_MS,
            connections=2,
        )
        self._plan = plan
        self._lines = lines
        self._groups = groups
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def going(self) -> bool:
        """Whether callers go on asking."""
        return not self.stopping and not self.history.full

    @property
    def slower(self) -> float:
        """Part of the planned rate at which a long run still fits into its history."""
        plan = self._plan
        rate = plan.steady_rate + plan.busy_rate + plan.team_rate
        wanted = (len(self._lines) * rate + plan.promoter_rate) * plan.seconds
        return min(1.0, HISTORY_SHARE * OPERATIONS_MAX / wanted)

    async def __aenter__(self) -> Self:
        for shard, (lines, goods) in enumerate(zip(self._lines, self._groups, strict=True)):
            self._begin(shard, lines, goods)
        self._promote()
        return self

    def _begin(self, shard: int, lines: list[Line], goods: GroupGoods) -> None:
        """All callers of a shard."""
        plan, slower = self._plan, self.slower
        steady, busy = plan.steady_callers, plan.busy_callers
        runs = []
        for number in range(steady + busy + plan.team_callers):
            name = f"{plan.seed}-{shard}-{number}"
            if number < steady:
                pause_s = steady / (slower * plan.steady_rate)
                runs.append(Caller(self, lines, name=name, pause_s=pause_s).sell_steadily())
            elif number < steady + busy:
                pause_s = busy / (slower * plan.busy_rate)
                runs.append(Caller(self, lines, name=name, pause_s=pause_s).live())
            else:
                pause_s = plan.team_callers / (slower * plan.team_rate)
                runs.append(TeamCaller(self, goods, name=name, pause_s=pause_s).gather())
        runs.append(goods.end_in_turn(self.client, lambda: self.going))
        self._tasks += [asyncio.create_task(run) for run in runs]

    def _promote(self) -> None:
        """Callers of all shards, by distributors."""
        plan, lines = self._plan, [line for of_shard in self._lines for line in of_shard]
        pause_s = plan.promoters / (self.slower * plan.promoter_rate)
        for number in range(plan.promoters):
            name = f"{plan.seed}-all-{number}"
            promoter = Promoter(self, lines, name=name, pause_s=pause_s)
            self._tasks.append(asyncio.create_task(promoter.promote(first=not number)))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stopping = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)
        await self.client.close()

    def check_callers(self) -> None:
        """Raises what ended a caller early: a fault of the load itself."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
