"""A scripted group-buy: strangers who team up for a lower price, as merchants run it.

Everything that a shopper means to do is drawn from the seed before the doors open; which team it
joins depends on what the service suggests. Some never pay, some pay when their seat is long gone or
after the end, some leave, some pay twice. Every answer and every payment is kept, so that
`group_books` can follow each cent.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple, TypeVar

from stockray import (
    AsyncClient,
    Attribution,
    GroupCampaign,
    GroupLine,
    GroupRules,
    SeatResult,
    Status,
    Team,
    TeamState,
    Tier,
)

from actors.core.identity import request_key, slot_of
from server.sale import CALLER, CURRENCY, GapMeter, Line, require_allocated, stock_up
from server.verify import Ack

CAMPAIGN_ID = "tea-together"
LADDER = (
    Tier(people=2, unit_price_minor=9_900),
    Tier(people=3, unit_price_minor=8_700),
    Tier(people=5, unit_price_minor=6_490),
)
FIXED = (Tier(people=3, unit_price_minor=3_900),)
TIERS = {"sku-tea": LADDER, "sku-teapot": FIXED}
DISCOUNT_BPS = 333
"""The leader's: chosen so that it does not divide the prices."""
NEW_BUYER_SEATS = 1
SUGGESTED, PICKED_FROM, TRIES = 5, 2, 4
PATIENCE_MS = 30_000
"""Of calls that raise when time is up; a failover is far shorter."""
Item = TypeVar("Item")
UNDECIDED = frozenset({Status.RETRY, Status.UNKNOWN})
REFUSALS = frozenset(
    {
        Status.SOLD_OUT,
        Status.LIMIT_EXCEEDED,
        Status.TEAM_FULL,
        Status.TEAM_CLOSED,
        Status.TEAM_NOT_OPEN,
        Status.NEW_BUYERS_ONLY,
    }
)
"""What a shopper may be told instead of a seat; anything else is unexpected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """The size of a group-buy. Shares are of shoppers, from 0 to 1."""

    shoppers: int = 2_000
    seed: int = 1
    payment_window_ms: int = 2_000
    open_share: float = 0.12
    """Open a team rather than join one; who finds none to join opens one as well."""
    new_share: float = 0.4
    retry_share: float = 0.05
    """Ask again with the same id after they have the answer."""
    last_openers: int = 12
    """Open teams just before the end; every second is joined by one friend, the others fail."""
    returns: int = 10
    """Members of formed teams who send their units back."""

    @property
    def concurrency(self) -> int:
        """Shoppers at a time; so few of all that most find a team to join."""
        return min(64, self.shoppers // 16)

    def lines(self) -> list[Line]:
        """What is on sale: tea in plenty, teapots for about half of those who want one."""
        return [
            Line(CAMPAIGN_ID, "sku-tea", 2 * self.shoppers, LADDER[0].unit_price_minor),
            Line(CAMPAIGN_ID, "sku-teapot", max(9, self.shoppers // 7), FIXED[0].unit_price_minor),
        ]


class Shopper(NamedTuple):
    """What one shopper is going to do."""

    name: str
    sku_id: str
    quantity: int
    opens: bool
    new_buyer: bool
    retries: bool
    then: str
    """One of `WEIGHTS`."""
    attribution: Attribution | None = None


WEIGHTS = {
    "pay": 70,
    "pay twice": 4,
    "leave": 3,
    "pay and leave": 6,
    "forget": 6,
    "pay late": 8,
    "pay after the end": 3,
}
"""What becomes of a seat, in so many of a hundred cases."""


@dataclass(slots=True, kw_only=True)
class Seat:
    """A seat that a shopper was given, and what was paid for it."""

    shopper: Shopper
    request_id: str
    asked_team_id: str
    """The team that was joined; '' if it was opened."""
    answer: SeatResult
    paid: dict[str, int] = field(default_factory=dict)
    """Payment id -> minor units that the service was told of."""


@dataclass(slots=True)
class GroupTally:
    """What happened, as the shoppers saw it."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Answers: of seats by their name, of other calls with the call's name before."""
    seats: list[Seat] = field(default_factory=list)
    team_ids: list[str] = field(default_factory=list)
    late: Counter[str] = field(default_factory=Counter)
    """Answers to payments that came after their seat had expired, before and after the end."""
    wrong: list[str] = field(default_factory=list)
    """Answers that cannot be."""
    acks: list[Ack] = field(default_factory=list)


def shoppers_of(plan: GroupPlan) -> list[Shopper]:
    """Everything that all shoppers mean to do, in the order in which they come."""
    random = Random(plan.seed)
    return [
        Shopper(
            f"shopper-{plan.seed}-{number}",
            "sku-tea" if random.random() < 0.75 else "sku-teapot",
            1 if random.random() < 0.9 else 2,
            random.random() < plan.open_share,
            random.random() < plan.new_share,
            random.random() < plan.retry_share,
            random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0],
        )
        for number in range(plan.shoppers)
    ]


async def prepare_group(client: AsyncClient, plan: GroupPlan) -> None:
    """SKUs, their units, and the campaign with its allocations. Raises on any refusal."""
    now = datetime.now(UTC)
    for line in plan.lines():
        await stock_up(client, line)
    campaign = GroupCampaign(
        campaign_id=CAMPAIGN_ID,
        title=CAMPAIGN_ID,
        currency_code=CURRENCY,
        start_time=now - timedelta(seconds=1),
        end_time=now + timedelta(hours=1),
        payment_window=timedelta(milliseconds=plan.payment_window_ms),
        lines=tuple(
            GroupLine(
                sku_id=line.sku_id,
                allocation_count=line.units,
                list_price_minor=2 * line.price_minor,
                limit_per_buyer=2,
                tiers=TIERS[line.sku_id],
            )
            for line in plan.lines()
        ),
        rules=GroupRules(
            window=timedelta(minutes=30),
            new_buyer_count=NEW_BUYER_SEATS,
            leader_discount_bps=DISCOUNT_BPS,
        ),
    )
    answer = await client.put_group_campaign(campaign)
    answer.raise_for_status()
    require_allocated(answer.campaign)


class GroupRush:
    """The group-buy itself, one step after the other."""

    def __init__(
        self, client: AsyncClient, plan: GroupPlan, shoppers: Sequence[Shopper], *, gap: GapMeter
    ) -> None:
        self.tally = GroupTally()
        self.plan = plan
        self.served = 0
        self.gap = gap
        self._client = client
        self._shoppers = shoppers
        self._random = Random(plan.seed)

    async def run(self) -> None:
        """All shoppers, so many at a time; late payers have not paid yet."""
        await self._each(self._shoppers, self._shop)
        self.gap.settle()

    async def pay_late(self, then: str) -> None:
        """Those pay now who meant to do so at this time."""
        late = [seat for seat in self.tally.seats if seat.shopper.then == then]
        await self._each(late, self._pay_late)

    async def open_last(self) -> None:
        """Teams that have no time left: those that are joined reach the first tier of the ladder,
        the others none."""
        pairs = [
            tuple(
                Shopper(f"{who}-{self.plan.seed}-{number}", "sku-tea", 1, False, True, False, "pay")
                for who in ("last", "friend")
            )
            for number in range(self.plan.last_openers)
        ]
        for number, (last, friend) in enumerate(pairs):
            seat = await self._take(last, "")
            if seat is not None:
                await self._pay(seat, "pay")
            if seat is None or number % 2:
                continue
            joined = await self._take(friend, seat.answer.team_id)
            if joined is not None:
                await self._pay(joined, "pay")

    async def send_back(self, teams: Iterable[Team]) -> None:
        """Some members of formed teams return all of their units."""
        formed = {team.team_id for team in teams if team.state is TeamState.FORMED}
        members = [seat for seat in self.tally.seats if seat.paid and seat.answer.team_id in formed]
        for seat in members[: self.plan.returns]:
            answer = await self._client.return_units(
                seat.answer.reservation_id,
                quantity=seat.shopper.quantity,
                request_id=f"return-{seat.request_id}",
                timeout_ms=PATIENCE_MS,
            )
            self.tally.statuses[f"return {answer.status}"] += 1

    async def _each(self, items: Iterable[Item], act: Callable[[Item], Awaitable[None]]) -> None:
        left = iter(items)

        async def worker() -> None:
            for item in left:
                await act(item)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.plan.concurrency):
                tasks.create_task(worker())

    async def _shop(self, shopper: Shopper) -> None:
        seat = await self._find_seat(shopper)
        self.served += 1
        if seat is None or shopper.then in ("forget", "pay late", "pay after the end"):
            return
        if shopper.then != "leave":
            await self._pay(seat, "pay")
        if shopper.then == "pay twice":
            await self._pay(seat, "again")
        if shopper.then in ("leave", "pay and leave"):
            left = await self._client.leave_team(
                seat.answer.reservation_id, reason="changed my mind", timeout_ms=PATIENCE_MS
            )
            self.tally.statuses[f"leave {left.status}"] += 1

    async def _find_seat(self, shopper: Shopper) -> Seat | None:
        """A seat of a team that was suggested, or that a refusal named; else of a team of its own.
        None if there is nothing left, or the answer is not known."""
        team_ids = [] if shopper.opens else await self._suggested(shopper)
        for _ in range(TRIES):
            team_id = team_ids[self._random.randrange(len(team_ids))] if team_ids else ""
            request_id = f"{team_id or 'open'}-by-{shopper.name}"
            answer = await self._ask(shopper, request_id, team_id)
            if answer.ok:
                return self._taken(shopper, request_id, team_id, answer)
            if not team_id or answer.status in UNDECIDED or answer.status is Status.SOLD_OUT:
                return None
            team_ids = list(answer.other_team_ids)
        return None

    async def _take(self, shopper: Shopper, team_id: str) -> Seat | None:
        request_id = f"{team_id or 'open'}-by-{shopper.name}"
        answer = await self._ask(shopper, request_id, team_id)
        return self._taken(shopper, request_id, team_id, answer) if answer.ok else None

    def _taken(self, shopper: Shopper, request_id: str, team_id: str, answer: SeatResult) -> Seat:
        seat = Seat(shopper=shopper, request_id=request_id, asked_team_id=team_id, answer=answer)
        self.tally.seats.append(seat)
        if not team_id:
            self.tally.team_ids.append(answer.team_id)
        return seat

    async def _suggested(self, shopper: Shopper) -> list[str]:
        found = await self._client.suggest_teams(
            CAMPAIGN_ID,
            sku_id=shopper.sku_id,
            buyer_id=shopper.name,
            new_buyer=shopper.new_buyer,
            limit=SUGGESTED,
            timeout_ms=PATIENCE_MS,
        )
        return [team.team_id for team in found.teams[:PICKED_FROM]]

    async def _ask(self, shopper: Shopper, request_id: str, team_id: str) -> SeatResult:
        answer = await ask_for_seat(self._client, shopper, request_id, team_id)
        tally = self.tally
        tally.statuses[answer.status.name] += 1
        if answer.ok or answer.status in REFUSALS:
            self.gap.answered()
            key = request_key(CALLER, request_id)
            tally.acks.append(Ack(slot_of(CAMPAIGN_ID), key, answer.ok, request_id))
        elif answer.status not in UNDECIDED:
            tally.wrong.append(f"{request_id}: {answer.status} {answer.message}")
        if shopper.retries and answer.status not in UNDECIDED:
            again = await ask_for_seat(self._client, shopper, request_id, team_id)
            if again.status not in UNDECIDED and again[:8] != answer[:8]:
                tally.wrong.append(f"{request_id}: {answer.status}, then {again.status}")
        return answer

    async def _pay(self, seat: Seat, which: str) -> Status:
        """Until it is known what became of the payment: money that was taken is told of until then,
        as a payment provider's notice is."""
        payment_id, amount = f"{which}-{seat.request_id}", seat.answer.payable_minor
        for _ in range(TRIES):
            answer = await self._client.confirm(
                seat.answer.reservation_id, payment_id=payment_id, paid_minor=amount
            )
            if answer.status not in UNDECIDED:
                break
        seat.paid[payment_id] = amount
        self.tally.statuses[f"{which} {answer.status}"] += 1
        if answer.status not in (Status.CONFIRMED, Status.REFUND_DUE):
            self.tally.wrong.append(f"payment {payment_id}: {answer.status} {answer.message}")
        return answer.status

    async def _pay_late(self, seat: Seat) -> None:
        then = seat.shopper.then
        status = await self._pay(seat, "late")
        self.tally.late[f"{then}: {status}"] += 1
        if then == "pay after the end" and status is Status.CONFIRMED:
            self.tally.wrong.append(f"{seat.request_id}: a seat of a campaign that had ended")


async def ask_for_seat(
    client: AsyncClient, shopper: Shopper, request_id: str, team_id: str
) -> SeatResult:
    """Join that team, or open one if it is ''. The same id is answered with the same seat."""
    if team_id:
        return await client.join_team(
            team_id,
            buyer_id=shopper.name,
            quantity=shopper.quantity,
            new_buyer=shopper.new_buyer,
            request_id=request_id,
            attribution=shopper.attribution,
        )
    return await client.open_team(
        CAMPAIGN_ID,
        shopper.sku_id,
        buyer_id=shopper.name,
        quantity=shopper.quantity,
        new_buyer=shopper.new_buyer,
        request_id=request_id,
        attribution=shopper.attribution,
        timeout_ms=PATIENCE_MS,
    )
