"""Random histories of group-buys, each decision judged by the naive rules at the entry it is in."""

import random
from typing import Any

from actors.core import commands as c
from actors.core import records as r
from actors.core import state as s
from actors.core import team_commands as t
from actors.core import team_records as tr
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.team_state import TEAM_FORMING
from tests.model.naive_stock import PARTS
from tests.model.naive_teams import TOLD, NaiveTeams
from tests.model.shop import T0, WINDOW_MS
from tests.model.team_shop import (
    SLOT,
    TEAM_WINDOW_MS,
    SnapshotUnderWay,
    TeamShop,
    check_replicas,
)

READS = frozenset({c.GET_RESERVATION, t.GET_TEAM, t.SUGGEST_TEAMS})
ASKED_FOR = {t.COMPLETE_TEAM: tr.TEAM_FORMED, t.LEAVE_TEAM: tr.SEAT_CLOSED}
SHORT = (2, 91), (3, 77)
LADDER = (*SHORT, (4, 50))
LONG = (*SHORT, (5, 50))
BUYERS = 8
LONG_MS = 3 * TEAM_WINDOW_MS
"""So that who did not pay in time may still find the team open, or full again."""
STEPS = 120


class JudgedShop(TeamShop):
    """A shop with teams beside the naive rules: every record and every answer is theirs too."""

    def __init__(self) -> None:
        super().__init__()
        self.naive = NaiveTeams(T0)
        self._asked: Any = None
        self._told: tuple[Any, ...] | None = None

    def open(self) -> None:
        super().open()
        self.naive.now_ms = self.now_ms

    def ask(self, command: Any) -> tuple[Any, ...]:
        self._asked, self._told = command, None
        answer = super().ask(command)
        if command.kind not in READS:
            told = self._by_the_rules()
            assert Outcome(answer[0]).name == told[0], f"{command}: by the rules {told[0]}"
            if answer[0] == Outcome.PAYMENT_BEGUN:
                assert answer[2] == told[1], "another deadline"
            if answer[0] == Outcome.RESERVED:
                assert answer[1:7] == told[1:], "another price or deadline"
        self._asked = None
        return answer

    def _by_the_rules(self) -> tuple[Any, ...]:
        """What the rules say of the command; it is applied once."""
        if self._told is None:
            self._told = self.naive.apply(self._asked)
        return self._told

    def made(self, records: Any) -> None:
        for record in records:
            self._judge(record)
        super().made(records)

    def _judge(self, record: Any) -> None:
        kind, naive = record[0], self.naive
        if kind == r.RESERVATION_EXPIRED:
            naive.expired(public_id(record.slot, record.key))
        elif kind == r.RESERVATION_REVOKED:
            naive.revoked(public_id(record.slot, record.key))
        elif kind in TOLD:
            # What an operator completes, and who leaves, was asked for; the rest follows.
            if kind == ASKED_FOR.get(getattr(self._asked, "kind", 0)):
                self._by_the_rules()
            naive.told(record)
        else:
            assert self._asked is not None, f"nobody asked for {record}"
            self._by_the_rules()
            if kind == tr.SEAT_TAKEN:
                naive.taken(record)

    def close(self) -> None:
        # A command that changed nothing is judged too, before what stands is compared.
        if self._asked is not None and self._asked.kind not in READS:
            self._by_the_rules()
        super().close()
        self.naive.after_entry()
        for pool in self.state.slot(SLOT).pools():
            row = self.naive.pools[pool.campaign_id, pool.sku_id]
            for part in (*PARTS, "owed"):
                assert getattr(pool, part) == row[part], f"{part} is not {row[part]}"


def walk(seed: int, steps: int = STEPS) -> JudgedShop:
    """A history of few buyers on a ladder: every entry is judged, replicas and snapshots agree,
    and in the end every team has ended. Set `snapshot.ROWS_A_CHUNK` low before."""
    dice = random.Random(seed)
    shop = JudgedShop()
    shop.sell_to_teams(
        *dice.choice((SHORT, LADDER, LONG)),
        units=dice.choice((6, 12, 60)),
        limit=dice.choice((0, 0, 3)),
        new_buyer_seats=dice.choice((0, 1, 2)),
        leader_discount_bps=dice.choice((0, 777)),
        virtual_completion=dice.random() < 0.7,
        teams_per_buyer=dice.choice((1, 3)),
        window_ms=dice.choice((TEAM_WINDOW_MS, LONG_MS)),
    )
    teams: list[str] = []
    seats: list[str] = []
    writing = SnapshotUnderWay(shop)
    for step in range(steps):
        act(shop, dice, teams, seats, step)
        if dice.random() < 0.4 and not writing.step():
            writing = SnapshotUnderWay(shop)
        if step % 20 == 19:
            check_replicas(shop)
    if dice.random() < 0.5:
        shop.turn(s.CAMPAIGN_ENDED)
        check_replicas(shop)
    else:
        shop.wait(LONG_MS)
        shop.expire()
    while shop.end_teams(3):
        pass
    assert all(team.state != TEAM_FORMING for team in shop.state.slot(SLOT).teams.values())
    check_replicas(shop)
    return shop


def act(shop: TeamShop, dice: random.Random, teams: list[str], seats: list[str], step: int) -> None:
    """One random act."""
    buyer = f"b{dice.randrange(BUYERS)}"
    quantity = dice.choice((1, 1, 2))
    choice = dice.random()
    answer: tuple[Any, ...] | None = None
    if choice < 0.12 or not teams:
        answer = shop.open_team(buyer, f"o{step}", new_buyer=dice.random() < 0.5, quantity=quantity)
    elif choice < 0.45:
        team = dice.choice(teams[-4:])
        answer = shop.join(
            team, buyer, f"j{step}", new_buyer=dice.random() < 0.5, quantity=quantity
        )
    elif choice < 0.48 and seats:
        shop.begin(dice.choice(seats[-4:]), f"b{step}")
    elif choice < 0.75 and seats:
        late = [seat for seat in seats[-20:] if shop.held(seat).state == s.EXPIRED]
        seat = dice.choice(late if late and dice.random() < 0.4 else seats[-4:])
        shop.paid(seat, shop.held(seat).payable_minor + (dice.random() < 0.05))
    elif choice < 0.80 and seats:
        shop.leaves(dice.choice((dice.choice(seats), _a_leader(shop, dice, teams))))
    elif choice < 0.83 and seats:
        shop.release(dice.choice(seats))
    elif choice < 0.86 and seats:
        shop.bring_back(dice.choice(seats), 1, f"r{step}")
    elif choice < 0.88:
        shop.complete(dice.choice(teams))
    elif choice < 0.90:
        _report_a_refund(shop, dice, step)
    elif choice < 0.91:
        shop.short(1, f"s{step}", sale="sale")
        while shop.revoke():
            pass
    else:
        shop.wait(dice.choice((1_000, WINDOW_MS // 2, WINDOW_MS)))
        shop.expire(dice.choice((1, 3, 100)))
        shop.end_teams(dice.choice((1, 100)))
    if answer is not None and answer[0] == Outcome.RESERVED:
        seats.append(public_id(SLOT, answer[1]))
        teams.append(public_id(SLOT, answer[8]))


def _a_leader(shop: TeamShop, dice: random.Random, teams: list[str]) -> str:
    return public_id(SLOT, shop.team(dice.choice(teams[-4:])).leader)


def _report_a_refund(shop: TeamShop, dice: random.Random, step: int) -> None:
    refunds = [refund.key for refund in shop.state.slot(SLOT).refunds.values()]
    if refunds:
        shop.refunded(public_id(SLOT, dice.choice(refunds)), dice.random() < 0.5, f"f{step}")
