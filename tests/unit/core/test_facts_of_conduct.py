"""From records of stock shards to profiles: each feature's failures, expiries and returns count."""

import pytest

from actors.core.codec import unpack_entry
from actors.core.identity import account_slot, public_id
from actors.core.order_facts import order_facts
from actors.core.outcomes import Outcome
from actors.core.risk_state import FREEZE_MS, HOUR_MS
from actors.core.state import CAMPAIGN_ENDED, EXPIRED
from tests.model.risk_desk import Desk
from tests.model.shop import MINUTE_MS, Shop, line
from tests.model.team_shop import TEAM_WINDOW_MS, TeamShop


class Town:
    """Two stock shards, one of which sells to teams, and the desk that learns of both."""

    def __init__(self) -> None:
        self.shop, self.teams, self.desk = Shop(), TeamShop(), Desk()
        self.desk.now_ms = self.shop.now_ms
        self.shop.open_sale(9, line("tea"))
        self.shop.sku("cup")
        self.shop.receive(9, "cups", "cup")
        self.teams.sell_to_teams()
        self.read = {id(self.shop): 0, id(self.teams): 0}
        self.team = ""

    def wait(self, ms: int) -> None:
        for one in (self.shop, self.teams, self.desk):
            one.wait(ms)

    def hold_one_of_each(self) -> list[tuple[Shop, str]]:
        """Of base stock, of a flash sale, and a seat of a team: (where, reservation)."""
        seat = self.teams.open_team("ann")
        self.team = public_id(self.teams.team_slot, seat[8])
        return [
            (self.shop, self.shop.hold("base", sku="cup")),
            (self.shop, self.shop.hold("grab", sale="sale")),
            (self.teams, public_id(self.teams.team_slot, seat[1])),
        ]

    def decided(self) -> None:
        """The desk learns of all that was decided since."""
        for one in (self.shop, self.teams):
            for data in one.journal[self.read[id(one)] :]:
                content = unpack_entry(data)
                for slot, fact in order_facts(content.records, content.now_ms):
                    if slot == account_slot("ann"):
                        self.desk.tell(fact)
            self.read[id(one)] = len(one.journal)


def test_failed_payments_of_base_stock_a_grab_and_a_seat_freeze_together() -> None:
    town = Town()
    for number, (where, held) in enumerate(town.hold_one_of_each()):
        assert town.desk.frozen_until("ann") == 0
        town.wait(MINUTE_MS)
        for _ in range(2):
            assert where.fail(held, f"p{number}")[0] == Outcome.NOTED, "told twice it counts once"
        town.decided()
    assert town.desk.view("ann")[:2] == (70, town.desk.now_ms + FREEZE_MS)
    assert town.desk.view("ann")[6] == (0, 0, 3, 0)


def test_a_fourth_failure_changes_no_freeze_and_a_success_is_no_signal() -> None:
    town = Town()
    held = town.hold_one_of_each()
    for number, (where, reservation) in enumerate(held):
        where.fail(reservation, f"p{number}")
    town.decided()
    frozen = town.desk.frozen_until("ann")
    town.wait(MINUTE_MS)
    held[0][0].fail(held[0][1], "p9")
    town.decided()
    assert town.desk.frozen_until("ann") == frozen > 0
    score = town.desk.score("ann")
    for number, (where, reservation) in enumerate(held):
        due = where.held(reservation).payable_minor
        assert where.pay(reservation, f"p{number}", due)[0] == Outcome.CONFIRMED
    town.decided()
    assert (town.desk.score("ann"), town.desk.frozen_until("ann")) == (score, frozen)


def test_after_a_freeze_that_ended_one_more_failure_makes_no_other() -> None:
    """Ended by itself, and by an operator."""
    desk = Desk()
    for buyer in ("ann", "bob"):
        for _ in range(3):
            desk.fail_to_pay(buyer)
    desk.unfreeze("ann")
    desk.fail_to_pay("ann")
    assert desk.frozen_until("ann") == 0
    desk.wait(FREEZE_MS)
    desk.pulse_risk()
    desk.fail_to_pay("bob")
    assert desk.frozen_until("bob") == 0


def test_what_expires_unpaid_and_what_comes_back_counts_for_each_feature() -> None:
    town = Town()
    base, *others = town.hold_one_of_each()
    for where, held in others:
        where.pay(held, "p", where.held(held).payable_minor)
    for friend in ("bea", "cid"):
        town.teams.comes(town.team, friend)
    town.wait(TEAM_WINDOW_MS)
    assert len(base[0].expire()) == 1
    town.decided()
    assert (town.desk.score("ann"), town.desk.view("ann")[6]) == (95, (0, 1, 0, 0))
    for where, held in others:
        assert where.bring_back(held, 1)[0] == Outcome.RETURNED
    town.decided()
    assert (town.desk.score("ann"), town.desk.view("ann")[6]) == (89, (0, 1, 0, 2))
    town.wait(11 * HOUR_MS)
    assert town.desk.score("ann") == 100


@pytest.mark.parametrize("ended", ["its deadline", "completed", "its campaign"])
def test_a_seat_that_an_operator_ended_unpaid_counts_against_nobody(ended: str) -> None:
    town = Town()
    teams = TeamShop()
    teams.sell_to_teams(virtual_completion=True)
    town.teams = teams
    town.read[id(teams)] = 0
    team, _ = teams.start("bea")
    seat = teams.seat(team, "ann")
    if ended == "its deadline":
        town.wait(TEAM_WINDOW_MS)
    elif ended == "completed":
        assert teams.complete(team)[0] == Outcome.APPLIED
    else:
        teams.turn(CAMPAIGN_ENDED)
    teams.end_teams()
    assert teams.held(seat).state == EXPIRED
    town.decided()
    assert town.desk.view("ann")[6][1] == (1 if ended == "its deadline" else 0)
