"""The last seat of each team, wanted by many at once, while primaries are killed.

Every team has exactly the seats that it has, every team forms, and of everything that was paid each
cent is kept for a seat or owed back.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta

from stockray import (
    AsyncClient,
    ConfirmResult,
    GroupCampaign,
    GroupLine,
    GroupRules,
    RefundReason,
    ReplicaRole,
    SeatResult,
    Sku,
    Status,
    Team,
    TeamState,
    Tier,
)

from tests.helpers.stack import SHARDS, Stack, on_shard, pid_of

TEAMS, BUYERS, TRIES = 100, 500, 3
SEATS = 3
"""Of a team: one is the leader's, one is taken before the rush, one is left."""
FIRST_MINOR, LAST_MINOR = 9_000, 7_000
REFUSALS = {Status.TEAM_FULL, Status.TEAM_CLOSED, Status.ALREADY_IN_TEAM}


class Rush:
    """Buyers after the last seats, and every answer that they got."""

    def __init__(self, stack: Stack, client: AsyncClient) -> None:
        self.teams: list[str] = []
        self._campaign_of: dict[str, str] = {}
        self.seats: dict[str, SeatResult] = {}
        """Request id -> seat, of those that were taken in the rush."""
        self.statuses: Counter[str] = Counter()
        self.paid: dict[str, ConfirmResult] = {}
        """Payment id -> its answer."""
        self.won = asyncio.Event()
        self._stack = stack
        self._client = client
        self._chance = random.Random(5)

    async def open_shop(self) -> None:
        """A campaign on each shard, and its share of the teams, with one seat left in each."""
        for shard in range(SHARDS):
            campaign_id = on_shard(shard, f"rush-{self._stack.kind}")
            await self._put(campaign_id)
            numbers = range(shard, TEAMS, SHARDS)
            self.teams += await asyncio.gather(*(self._start(campaign_id, n) for n in numbers))

    async def _put(self, campaign_id: str) -> None:
        client, sku_id = self._client, f"{campaign_id}-tea"
        sku = Sku(sku_id=sku_id, name=sku_id, buffer_bps=0, currency_code="CNY")
        (await client.put_sku(sku)).raise_for_status()
        units = TEAMS * SEATS
        received = await client.receive_stock(sku_id, quantity=units, request_id=f"doc-{sku_id}")
        received.raise_for_status()
        now = datetime.now(UTC)
        tiers = (
            Tier(people=2, unit_price_minor=FIRST_MINOR),
            Tier(people=SEATS, unit_price_minor=LAST_MINOR),
        )
        campaign = GroupCampaign(
            campaign_id=campaign_id,
            currency_code="CNY",
            start_time=now - timedelta(seconds=1),
            end_time=now + timedelta(hours=1),
            payment_window=timedelta(minutes=30),
            lines=(GroupLine(sku_id=sku_id, allocation_count=units, tiers=tiers),),
            rules=GroupRules(window=timedelta(minutes=30), nearly_full_count=1),
        )
        (await client.put_group_campaign(campaign)).raise_for_status()

    async def _start(self, campaign_id: str, number: int) -> str:
        name = f"{campaign_id}-leader-{number}"
        opened = await self._client.open_team(
            campaign_id, f"{campaign_id}-tea", buyer_id=name, request_id=name
        )
        opened.raise_for_status()
        (await self._pay(opened, f"p-{name}")).raise_for_status()
        second = await self._client.join_team(opened.team_id, buyer_id=f"{name}-friend")
        second.raise_for_status()
        (await self._pay(second, f"p-{name}-friend")).raise_for_status()
        self._campaign_of[opened.team_id] = campaign_id
        return opened.team_id

    async def buy(self, number: int) -> None:
        """Try some teams until one has a seat; pay for it twice, as a double click does."""
        for team_id in self._chance.sample(self.teams, TRIES):
            request_id = f"{team_id}-by-{number}"
            answer = await self._client.join_team(
                team_id, buyer_id=f"rusher-{number}", request_id=request_id
            )
            self.statuses[answer.status.name] += 1
            assert answer.ok or answer.status in REFUSALS, answer
            self._stack.acks.append((self._campaign_of[team_id], answer))
            if answer.ok:
                self.seats[request_id] = answer
                self.won.set()
                await asyncio.gather(
                    *(self._pay(answer, f"p-{request_id}-{attempt}") for attempt in "ab")
                )
                return

    async def _pay(self, seat: SeatResult, payment_id: str) -> ConfirmResult:
        answer = await self._client.confirm(
            seat.reservation_id, payment_id=payment_id, paid_minor=seat.payable_minor
        )
        self.paid[payment_id] = answer
        return answer

    async def watch(self, team_id: str) -> TeamState:
        """The last state of a team that is watched to its end."""
        state = TeamState.UNSPECIFIED
        async for change in self._client.watch_team(team_id):
            if change.team is not None:
                state = change.team.state
        return state

    async def fill_the_rest(self) -> None:
        """Teams that nobody happened to try."""
        for number, team_id in enumerate(self.teams):
            team = await self._team(team_id)
            if team.state is TeamState.FORMING:
                seat = await self._client.join_team(team_id, buyer_id=f"last-{number}")
                seat.raise_for_status()
                (await self._pay(seat, f"p-last-{number}")).raise_for_status()

    async def _team(self, team_id: str) -> Team:
        found = (await self._client.get_team(team_id)).team
        assert found is not None
        return found

    async def check(self) -> None:
        """What teams, seats and money are, against what buyers were told."""
        assert self.statuses["RESERVED"] == len(self.seats) <= TEAMS
        taken = Counter(seat.team_id for seat in self.seats.values())
        assert set(taken.values()) == {1}, "the last seat can be taken once"
        for team_id in self.teams:
            team = await self._team(team_id)
            assert (team.state, team.paid_count, team.final_unit_price_minor) == (
                TeamState.FORMED,
                SEATS,
                LAST_MINOR,
            ), team
            assert len(team.members) == SEATS
        for request_id in self.seats:
            answers = [self.paid[f"p-{request_id}-{attempt}"] for attempt in "ab"]
            statuses = {answer.status for answer in answers}
            assert statuses == {Status.CONFIRMED, Status.REFUND_DUE}, answers

    async def check_money(self) -> None:
        """Of every payment each cent is kept or owed back, as SQL has it."""
        due: Counter[str] = Counter()
        reasons: Counter[RefundReason] = Counter()
        async for refund in self._client.list_refunds(page_size=1_000):
            if refund.payment_id in self.paid:
                due[refund.payment_id] += refund.amount_minor
                reasons[refund.reason] += 1
        for payment_id, answer in self.paid.items():
            kept = LAST_MINOR if answer.status is Status.CONFIRMED else 0
            assert due[payment_id] == FIRST_MINOR - kept, (payment_id, answer)
        assert reasons[RefundReason.TEAM_PRICE] == TEAMS * SEATS
        assert reasons[RefundReason.SECOND_PAYMENT] == len(self.seats)


async def test_last_seats_are_taken_once_and_paid_for_whoever_dies(stack: Stack) -> None:
    options = {"timeout_ms": 30_000, "rpc_timeout_ms": 5_000, "gathered_lines_max": 16}
    async with AsyncClient(stack.listen, **options) as client:
        before = await stack.pairs(client)
        rush = Rush(stack, client)
        await rush.open_shop()
        watching = asyncio.create_task(rush.watch(rush.teams[0]))
        buyers = [asyncio.create_task(rush.buy(number)) for number in range(BUYERS)]
        await rush.won.wait()
        for shard in range(SHARDS):
            os.kill(pid_of(before, shard, ReplicaRole.PRIMARY), signal.SIGKILL)
        await asyncio.gather(*buyers)
        await rush.fill_the_rest()
        assert await watching is TeamState.FORMED, "a watch outlives its team's primary"
        after = await stack.pairs(client)
        epochs = [shard.epoch for shard in before.shards[:SHARDS]]
        assert [shard.epoch for shard in after.shards[:SHARDS]] == [one + 1 for one in epochs]
        await rush.check()
        await stack.settled(client)
        await rush.check_money()
        await stack.check(client)
