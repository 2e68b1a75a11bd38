"""A shop with group-buys, and what must hold of its teams after every entry.

`check_teams` counts anew, from the reservations and refunds alone, what the rows of teams claim.
"""

from collections import Counter
from typing import Any

from actors.core import state as s
from actors.core import team_commands as t
from actors.core.campaign_config import CampaignLine, GroupRules, Tier
from actors.core.identity import public_id, slot_of
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason
from actors.core.snapshot import Loader, chunks, digest
from actors.core.team_state import (
    TEAM_FORMED,
    TEAM_FORMING,
    Team,
    find_place,
)
from tests.model.shop import MINUTE_MS, Shop, replay

TEAM_WINDOW_MS = 20 * MINUTE_MS
LADDER = (Tier(2, 90), Tier(3, 70), Tier(5, 50))
SLOT = slot_of("sale")


def group_line(
    *tiers: tuple[int, int], sku: str = "tea", units: int = 100, alone: int = 95, limit: int = 0
) -> CampaignLine:
    """A line that teams buy; without tiers it is a team of three at 80."""
    made = tuple(Tier(people, price) for people, price in tiers or ((3, 80),))
    return CampaignLine(sku, units, 100, alone, limit, made)


def rules(**changes: Any) -> GroupRules:
    """Twenty minutes, no new-buyer seats, three teams a buyer, no discount."""
    fields: dict[str, Any] = {
        "window_ms": TEAM_WINDOW_MS,
        "new_buyer_seats": 0,
        "teams_per_buyer": 3,
        "leader_discount_bps": 0,
        "nearly_full_seats": 1,
        "virtual_completion": False,
    }
    return GroupRules(**{**fields, **changes})


class TeamShop(Shop):
    """A shop one of whose campaigns sells tea to teams. Every entry is checked."""

    team_sale = "sale"
    """That campaign."""

    @property
    def team_slot(self) -> int:
        """The slot of its teams and seats."""
        return slot_of(self.team_sale)

    def sell_to_teams(self, *tiers: tuple[int, int], units: int = 100, **changes: Any) -> None:
        """Open it; `changes` are of the rules."""
        limit = changes.pop("limit", 0)
        line = group_line(*tiers, units=units, limit=limit)
        self.open_sale(units, line, sale=self.team_sale, group=rules(**changes))

    def close(self) -> None:
        super().close()
        check_teams(self)

    def open_team(self, buyer: str = "ann", request: str = "", **more: Any) -> tuple[Any, ...]:
        """Open a team of tea; the request id is the buyer's name unless given."""
        quantity = more.pop("quantity", 1)
        head = (
            t.OPEN_TEAM,
            self.team_slot,
            0,
            "web",
            request or buyer,
            self.team_sale,
            "tea",
            quantity,
            buyer,
        )
        return self.do(t.OpenTeam(*head, **more))

    def join(self, team: str, buyer: str, request: str = "", **more: Any) -> tuple[Any, ...]:
        """Join a team."""
        quantity = more.pop("quantity", 1)
        head = (
            t.JOIN_TEAM,
            self.team_slot,
            0,
            "web",
            request or f"{buyer}-joins",
            key_of(team),
            quantity,
            buyer,
        )
        return self.do(t.JoinTeam(*head, **more))

    def start(self, buyer: str = "ann", paid: int = 0, **more: Any) -> tuple[str, str]:
        """Open a team and pay for its first seat: (team, seat)."""
        answer = self.open_team(buyer, **more)
        assert answer[0] == Outcome.RESERVED, answer
        seat = public_id(self.team_slot, answer[1])
        self.paid(seat, paid or answer[4])
        return public_id(self.team_slot, answer[8]), seat

    def seat(self, team: str, buyer: str, **more: Any) -> str:
        """Take a seat, unpaid."""
        answer = self.join(team, buyer, **more)
        assert answer[0] == Outcome.RESERVED, answer
        return public_id(self.team_slot, answer[1])

    def paid(self, seat: str, amount: int = 0) -> tuple[Any, ...]:
        """Pay for a seat what it costs, by a payment of its own name."""
        due = amount or self.held(seat).payable_minor
        return self.pay(seat, f"pay-{seat}", due)

    def comes(self, team: str, buyer: str, **more: Any) -> str:
        """Take a seat and pay for it."""
        seat = self.seat(team, buyer, **more)
        answer = self.paid(seat)
        assert answer[0] == Outcome.CONFIRMED, answer
        return seat

    def leaves(self, seat: str) -> tuple[Any, ...]:
        """Leave a team."""
        return self.do(t.LeaveTeam(t.LEAVE_TEAM, self.team_slot, 0, "web", seat, "changed my mind"))

    def complete(self, team: str, people: int = 0) -> tuple[Any, ...]:
        """An operator completes a team."""
        return self.do(
            t.CompleteTeam(
                t.COMPLETE_TEAM, self.team_slot, 0, "web", key_of(team), people, "goodwill"
            )
        )

    def suggest(self, buyer: str, *, new: bool = False, limit: int = 10) -> list[str]:
        """Ids of teams suggested to a buyer."""
        head = (t.SUGGEST_TEAMS, self.team_slot, 0, "web", self.team_sale, "", buyer, new, limit)
        return [public_id(self.team_slot, view[0]) for view in self.do(t.SuggestTeams(*head))[1]]

    def team(self, team: str) -> Team:
        """A team's row."""
        found = self.state.slot(self.team_slot).teams.get(key_of(team))
        assert found is not None
        return found

    def refunds(self) -> dict[str, tuple[int, RefundReason]]:
        """Buyer -> (amount, reason) of the refunds of this shop's seats; one each."""
        found: dict[str, tuple[int, RefundReason]] = {}
        for refund in self.state.slot(self.team_slot).refunds.values():
            assert refund.buyer_id not in found, "two refunds"
            found[refund.buyer_id] = refund.amount_minor, RefundReason(refund.reason)
        return found


def check_teams(shop: Shop) -> None:
    """What every team says is what its seats say, and every payer has a seat or a refund due."""
    for slot in shop.state.slots.values():
        if not len(slot.teams):
            continue
        seats: dict[bytes, list[s.Seat]] = {}
        for held in slot.reservations.values():
            if type(held) is s.Seat:
                seats.setdefault(held.team_key, []).append(held)
        for team in slot.teams.values():
            _check_team(slot, team, seats.get(team.key, []))
        openers = Counter(
            (team.campaign_id, team.opener_id)
            for team in slot.teams.values()
            if team.state == TEAM_FORMING
        )
        told = {
            (name, buyer): count
            for name, sale in slot.campaigns.items()
            for buyer, count in sale.openers.items()
        }
        assert told == openers


def _check_team(slot: s.SlotState, team: Team, seats: list[s.Seat]) -> None:
    held = [seat for seat in seats if seat.state in (s.RESERVED, s.CONFIRMED)]
    paid = [seat for seat in held if seat.state == s.CONFIRMED]
    capacity = team.group.capacity
    assert team.place == find_place(team)
    due = {key for keys in slot.team_deadlines.buckets.values() for key in _keys(keys)}
    assert (team.key in due) == (team.state == TEAM_FORMING)
    if team.state == TEAM_FORMING:
        assert {seat.buyer_id: seat.key for seat in held} == team.buyers
        assert len(held) <= capacity, "more seats than the last tier has people"
        assert len(paid) < capacity, "a full team of payers has not formed"
        assert (team.paid, team.new_paid) == (len(paid), sum(seat.new_buyer for seat in paid))
        assert team.new_count == sum(seat.new_buyer for seat in held)
        assert team.group.rules.new_buyer_seats - team.new_count <= capacity - len(held)
        assert held, "an empty team goes on"
        if team.leader:
            assert team.leader in {seat.key for seat in paid}
        else:
            assert not paid, "a team with payers has no leader"
        return
    assert not team.buyers
    assert not [seat for seat in held if seat.state == s.RESERVED], "an unpaid seat outlived it"
    for seat in seats:
        payment = seat.payment
        if payment is None:
            continue
        kept = payment.amount_minor - payment.refunded_minor
        if team.state == TEAM_FORMED and seat.key in team.members:
            _check_price(team, seat, kept)
        elif team.state != TEAM_FORMED:
            assert kept == 0, "a failed team keeps money"


def _check_price(team: Team, seat: s.Seat, kept: int) -> None:
    unit = team.unit_price_minor
    if seat.key == team.leader:
        unit -= unit * team.group.rules.leader_discount_bps // 10_000
    assert seat.payment is not None
    price = min(seat.payment.amount_minor, unit * seat.quantity)
    if not seat.returned and seat.state == s.CONFIRMED:
        assert kept == price, "a member's price is not the tier's"
    else:
        assert kept <= price


def _keys(keys: Any) -> Any:
    return (keys,) if isinstance(keys, bytes) else keys


def teams_of(state: s.ShardState) -> dict[bytes, tuple[Any, ...]]:
    """All of a state's teams with what is counted over their seats."""
    return {
        team.key: (
            team.state,
            dict(sorted(team.buyers.items())),
            team.paid,
            team.new_count,
            team.new_paid,
            team.place,
            team.leader,
            team.members,
        )
        for slot in state.slots.values()
        for team in slot.teams.values()
    }


def check_replicas(shop: Shop) -> None:
    """A fold of the journal and a loaded snapshot arrive at the same."""
    for other in (shop.replica(), shop.from_snapshot()):
        assert digest(other) == digest(shop.state)
        assert teams_of(other) == teams_of(shop.state)
        assert other.closing == shop.state.closing, "teams of other campaigns are to end"
        for number, slot in shop.state.slots.items():
            assert {k: len(d) for k, d in _forming(slot)} == {
                k: len(d) for k, d in _forming(other.slots[number])
            }


def key_of(public: str) -> bytes:
    """A team's or a seat's key, from its id."""
    return bytes.fromhex(public[3:])


class SnapshotUnderWay:
    """A snapshot that is written while the shop goes on: a few rows a chunk, a chunk a step."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._begin_seq = len(shop.journal)
        self._replica = shop.replica()
        self._writing = chunks(self._replica)
        self._chunks: list[bytes] = []

    def step(self) -> bool:
        """One chunk, then the standby folds what came; False when it is complete."""
        chunk = next(self._writing, None)
        if chunk is None:
            self._check()
            return False
        self._chunks.append(chunk)
        replay(self._replica, self._shop.journal, self._replica.seq)
        return True

    def _check(self) -> None:
        state = s.ShardState()
        loader = Loader(state, self._begin_seq)
        loader.read(self._chunks)
        journal = self._shop.journal[: loader.end_seq]
        if loader.end_seq > self._begin_seq:
            replay(state, journal, self._begin_seq)
            loader.finish()
        other = s.ShardState()
        replay(other, journal, 0)
        assert digest(state) == digest(other)
        assert teams_of(state) == teams_of(other)
        replay(state, self._shop.journal, state.seq)
        assert teams_of(state) == teams_of(self._shop.state)


def _forming(slot: s.SlotState) -> list[tuple[Any, Any]]:
    return [
        ((pool.campaign_id, pool.sku_id, place), bucket)
        for pool in slot.pools()
        if pool.group is not None
        for place, bucket in pool.group.forming.items()
        if len(bucket)
    ]
