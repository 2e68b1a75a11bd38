"""Follows each cent of a group-buy, by what the service says of teams, seats and refunds now.

Of all that was paid for a seat, what a formed team keeps at its price and what is owed back make up
the whole, or money is stranded. Prices are reckoned here from the tier and the leader's discount,
not taken from the settlement that is judged.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stockray import AsyncClient, ReservationState, Team, TeamMember, TeamState

from server.group_sale import CAMPAIGN_ID, DISCOUNT_BPS, GroupTally, Seat, ask_for_seat
from server.sale import Line, Order

ASKED_AT_ONCE = 64
ENDED_TIMEOUT_S = 30.0
LOOK_EVERY_S = 0.1
PAGE_SIZE = 1_000


@dataclass(slots=True, kw_only=True)
class GroupBooks:
    """What a group-buy came to."""

    lines: list[Line]
    tally: GroupTally
    kills: int
    gap_ms: float
    teams: list[Team]
    seats: int = 0
    paid_minor: int = 0
    kept_minor: int = 0
    owed_minor: int = 0
    stranded_minor: int = 0
    """Paid and neither kept by a formed team at its price nor owed back, or owed beyond that."""
    sold: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Units that members of formed teams own, by campaign and SKU."""
    orders: list[Order] = field(default_factory=list)
    """Of all who were members when their team formed."""
    problems: list[str] = field(default_factory=list)

    def count(self, state: TeamState) -> int:
        """Teams that ended so."""
        return sum(1 for team in self.teams if team.state is state)

    @property
    def balanced(self) -> bool:
        """Whether every team ended, every cent is accounted for, and no answer was wrong."""
        return (
            not self.problems
            and not self.tally.wrong
            and self.stranded_minor == 0
            and self.kills > 0
            and self.count(TeamState.FORMED) > 0
        )

    def as_data(self) -> dict[str, Any]:
        """For `-o json`, beside the names that the contract fixes."""
        return {
            "teams_opened": len(self.teams),
            "teams_cancelled": self.count(TeamState.CANCELLED),
            "tiers_reached": {
                f"{sku_id}: {people}": number
                for (sku_id, people), number in sorted(self.tiers_reached().items())
            },
            "seats": self.seats,
            "units_sold": sum(self.sold.values()),
            "paid_minor": self.paid_minor,
            "kept_minor": self.kept_minor,
            "refund_due_minor": self.owed_minor,
            "late_payments": dict(self.tally.late),
            "kills": self.kills,
            "failover_gap_ms": round(self.gap_ms, 1),
            "statuses": dict(self.tally.statuses),
            "wrong": self.tally.wrong[:10],
            "problems": self.problems[:10],
        }

    def tiers_reached(self) -> Counter[tuple[str, int]]:
        """Formed teams by SKU and people of the tier reached."""
        return Counter(
            (team.sku_id, team.tier.people)
            for team in self.teams
            if team.state is TeamState.FORMED and team.tier is not None
        )


async def until_ended(client: AsyncClient, team_ids: Iterable[str]) -> dict[str, Team]:
    """The teams by id, once none of them is forming. TimeoutError if one goes on."""
    found: dict[str, Team] = {}
    left = list(team_ids)
    async with asyncio.timeout(ENDED_TIMEOUT_S):
        while left:
            teams = await asyncio.gather(*(_team(client, team_id, "") for team_id in left))
            found.update((team.team_id, team) for team in teams if team.ended)
            left = [team_id for team_id in left if team_id not in found]
            await asyncio.sleep(LOOK_EVERY_S if left else 0)
    return found


async def judge(client: AsyncClient, books: GroupBooks) -> None:
    """Look at every seat, its team and its money as they are now, and fill in the books. Refunds
    are read from SQL, which must have caught up."""
    owed: Counter[str] = Counter()
    async for refund in client.list_refunds(page_size=PAGE_SIZE):
        owed[refund.payment_id] += refund.amount_minor
    members: Counter[str] = Counter()
    seats = iter(books.tally.seats)

    async def worker() -> None:
        for seat in seats:
            members.update(await _judge_seat(client, books, seat, owed))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(ASKED_AT_ONCE):
            tasks.create_task(worker())
    for team in books.teams:
        formed = team.state is TeamState.FORMED
        if formed and not (members[team.team_id] == team.paid_count <= team.capacity_count):
            books.problems.append(
                f"team {team.team_id}: {members[team.team_id]} members of {team.paid_count}"
            )
        if formed and (team.tier is None or team.tier.people > team.paid_count):
            books.problems.append(f"team {team.team_id}: {team.paid_count} paid, {team.tier}")


async def _judge_seat(
    client: AsyncClient, books: GroupBooks, seat: Seat, refunds: Mapping[str, int]
) -> list[str]:
    """Book one seat, with what is owed back by payment id. Answers the formed team of which it is
    or was a member, if any."""
    found = await client.get_reservation(seat.answer.reservation_id)
    if found.reservation is None:
        books.problems.append(f"{seat.request_id}: lost")
        return []
    team, member = await _team_now(client, books, seat)
    held = found.reservation.state is ReservationState.CONFIRMED
    kept = 0
    if member is not None:
        # An opener who came late into another's team has paid less: the rest is not asked for.
        price = seat.shopper.quantity * _price(team, leads=member.leader)
        order = _order(seat, min(price, seat.answer.payable_minor), returned=not held)
        books.orders.append(order)
        if held:
            kept = order.paid_minor
            books.sold[order.campaign_id, order.sku_id] += order.quantity
    elif held:
        books.problems.append(f"{seat.request_id}: kept, and of no formed team")
    paid = sum(seat.paid.values())
    owed = sum(refunds.get(payment_id, 0) for payment_id in seat.paid)
    books.seats += 1
    books.paid_minor += paid
    books.kept_minor += kept
    books.owed_minor += owed
    if paid != kept + owed:
        books.stranded_minor += abs(paid - kept - owed)
        books.problems.append(f"{seat.request_id}: paid {paid}, kept {kept}, owed {owed}")
    return [] if member is None else [team.team_id]


def _order(seat: Seat, paid_minor: int, *, returned: bool) -> Order:
    shopper = seat.shopper
    return Order(
        seat.answer.reservation_id,
        shopper.name,
        CAMPAIGN_ID,
        shopper.sku_id,
        shopper.quantity,
        paid_minor,
        shopper.attribution,
        returned_quantity=shopper.quantity if returned else 0,
        of_team=True,
    )


async def _team_now(
    client: AsyncClient, books: GroupBooks, seat: Seat
) -> tuple[Team, TeamMember | None]:
    """A seat's team, to which a late payment may have moved it, and its place if that formed. Asked
    by the seat's own request id, which must be answered with the same seat still."""
    again = await ask_for_seat(client, seat.shopper, seat.request_id, seat.asked_team_id)
    if again[:8] != seat.answer[:8]:
        books.tally.wrong.append(f"{seat.request_id}: asked at the end, {again.status}")
        again = seat.answer
    team = await _team(client, again.team_id, seat.shopper.name)
    own = (member for member in team.members if member.own and team.state is TeamState.FORMED)
    member = next((m for m in own if m.reservation_id == seat.answer.reservation_id), None)
    return team, member


def _price(team: Team, *, leads: bool) -> int:
    """What a unit costs in the end: of the highest tier that its paid seats reach."""
    reached = [tier for tier in team.tiers if team.paid_count >= tier.people]
    price = reached[-1].unit_price_minor if reached else 0
    return price - price * DISCOUNT_BPS // 10_000 if leads else price


async def _team(client: AsyncClient, team_id: str, viewer: str) -> Team:
    found = await client.get_team(team_id, viewer_buyer_id=viewer)
    if found.team is None:
        raise RuntimeError(f"team {team_id}: {found.status} {found.message}")
    return found.team
