"""From records of a stock shard to entries of the ledger, through TakeFacts."""

from typing import Any

import pytest
from msgpack import packb, unpackb

from actors.core import commands as c
from actors.core import relay_commands as y
from actors.core.codec import unpack_entry
from actors.core.facts import ORDER_EARNED
from actors.core.identity import PROGRAMME_SLOT
from actors.core.order_facts import order_facts
from actors.core.outcomes import Outcome
from actors.core.snapshot import digest
from tests.model.bureau import DAY_MS, FREEZE_MS, HOUR_MS, SLOT, Bureau
from tests.model.shop import Shop, line
from tests.model.team_shop import TEAM_WINDOW_MS, TeamShop


class Pair:
    """A shop, and a bureau that takes its facts in order."""

    def __init__(self, shop: Shop | None = None) -> None:
        self.shop, self.bureau = shop or Shop(), Bureau()
        self.bureau.now_ms = self.shop.now_ms
        self.mark = (0, 0)
        self.commands: list[Any] = []
        self.facts: list[Any] = []

    def decided(self) -> None:
        """Facts of all that the shop decided since are taken."""
        self.bureau.now_ms = max(self.bureau.now_ms, self.shop.now_ms)
        for seq in range(self.mark[0] + 1, len(self.shop.journal) + 1):
            content = unpack_entry(self.shop.journal[seq - 1])
            facts = [
                fact
                for slot, fact in order_facts(content.records, content.now_ms)
                if slot == PROGRAMME_SLOT
            ]
            if facts:
                placed = [(seq, index, SLOT, fact) for index, fact in enumerate(facts)]
                head = (y.TAKE_FACTS, SLOT, 0, "relay", 0, "one")
                command = y.TakeFacts(*head, *self.mark, placed)
                assert self.take(command) == (Outcome.APPLIED, len(facts))
                self.commands.append(command)
                self.facts += facts
                self.mark = (seq, len(facts) - 1)

    def take(self, command: Any) -> Any:
        again = c.MAKE[y.TAKE_FACTS](unpackb(packb(command), use_list=False))
        return self.bureau.shard_says(again)

    def earned(self) -> list[tuple[str, int]]:
        """(Buyer, base) of each order that was told to have earned."""
        return [
            (fact.buyer_id, fact.base_minor) for fact in self.facts if fact.kind == ORDER_EARNED
        ]

    def money(self) -> int:
        """What bob has of all of it by now."""
        self.decided()
        return self.bureau.money("bob")[0]


def team_pair(*tiers: tuple[int, int], **rules: Any) -> Any:
    """Bob brings who joins teams; 10 % of what they pay in the end."""
    shop = TeamShop()
    pair = Pair(shop)
    pair.bureau.open("bob", level2_bps=0)
    shop.sell_to_teams(*tiers, **rules)
    return shop, pair, {"share_code": pair.bureau.code("bob")}


def test_an_order_with_a_share_code_earns_once_it_is_paid() -> None:
    pair = Pair()
    pair.bureau.open("bob", new_buyers_only=True)
    shop = pair.shop
    shop.open_sale(9, line("tea"))
    held = shop.hold("r1", 2, sale="sale", share_code=pair.bureau.code("bob"), claims=("new_user",))
    pair.decided()
    assert pair.bureau.programme.bonds.get("ann") is not None
    shop.pay(held, paid=160)
    pair.decided()
    assert pair.bureau.money("bob")[0] == 16
    shop.bring_back(held, 1)
    pair.decided()
    assert pair.bureau.money("bob")[0] == 8
    for command in pair.commands:
        assert pair.take(command)[0] == Outcome.NOTED
    pair.bureau.wait(HOUR_MS)
    pair.bureau.wait(FREEZE_MS)
    assert pair.bureau.money("bob")[:2] == (0, 8)
    assert digest(pair.bureau.replica()) == digest(pair.bureau.state)


def test_ones_own_share_code_on_an_order_binds_and_pays_nobody() -> None:
    pair = Pair()
    pair.bureau.open("bob")
    pair.shop.open_sale(9, line("tea"))
    code = pair.bureau.code("bob")
    held = pair.shop.hold("r1", buyer="bob", sale="sale", share_code=code)
    pair.shop.pay(held, paid=80)
    pair.decided()
    assert pair.bureau.programme.bonds.get("bob") is None
    assert pair.bureau.entries() == []


def test_a_later_share_code_on_an_order_does_not_take_a_bound_buyer_over() -> None:
    """First touch: the order pays who brought the buyer first, whatever code it carries."""
    pair = Pair()
    pair.bureau.open("bob", "cid")
    pair.bureau.bind("ann", "bob")
    pair.shop.wait(1)
    pair.shop.open_sale(9, line("tea"))
    held = pair.shop.hold("r1", sale="sale", share_code=pair.bureau.code("cid"))
    pair.shop.pay(held, paid=80)
    assert pair.money() == 8
    assert pair.bureau.money("cid")[0] == 0


def test_what_was_paid_twice_or_wrongly_is_no_base() -> None:
    pair = Pair()
    pair.bureau.open("bob")
    pair.shop.open_sale(9, line("tea"))
    held = pair.shop.hold("r1", sale="sale", share_code=pair.bureau.code("bob"))
    assert pair.shop.pay(held, "wrong", 8_000)[0] == Outcome.REFUND_DUE
    assert pair.shop.pay(held, "right", 80)[0] == Outcome.CONFIRMED
    assert pair.shop.pay(held, "again", 80)[0] == Outcome.REFUND_DUE
    assert pair.money() == 8
    assert pair.earned() == [("ann", 80)]


def test_a_late_payer_pays_who_was_bound_when_the_unit_was_reserved() -> None:
    pair = Pair()
    pair.bureau.open("bob", "cid", policy=2)
    pair.shop.open_sale(9, line("tea"))
    held = pair.shop.hold("r1", sale="sale", share_code=pair.bureau.code("bob"))
    pair.decided()
    pair.shop.wait(HOUR_MS)
    pair.shop.expire()
    pair.bureau.now_ms = pair.shop.now_ms
    assert pair.bureau.bind("ann", "cid")[0] == Outcome.APPLIED
    assert pair.shop.pay(held, paid=80)[0] == Outcome.CONFIRMED
    assert pair.money() == 8
    assert pair.bureau.money("cid")[0] == 0


def test_an_order_that_a_shortage_takes_away_earns_nothing_any_more() -> None:
    pair = Pair()
    pair.bureau.open("bob")
    pair.shop.open_sale(2, line("tea", 2))
    code = pair.bureau.code("bob")
    for name in ("r1", "r2"):
        held = pair.shop.hold(name, sale="sale", share_code=code)
        pair.shop.pay(held, f"p-{name}", 80)
    assert pair.money() == 16
    pair.shop.short(1, sale="sale")
    while pair.shop.revoke():
        pass
    assert pair.money() == 8


def test_members_of_a_team_earn_when_it_forms_on_what_they_pay_in_the_end() -> None:
    """Three at the deadline are the tier of 70, of 90 that they paid; the leader pays 10 % less."""
    shop, pair, way = team_pair((2, 90), (3, 70), (5, 50), leader_discount_bps=1_000)
    team, _ = shop.start("ann", **way)
    for name in ("cat", "dan"):
        shop.comes(team, name, **way)
    assert pair.money() == 0, "they have paid, and the team may fail yet"
    shop.wait(TEAM_WINDOW_MS)
    shop.end_teams()
    assert pair.money() == 6 + 7 + 7
    assert sorted(pair.earned()) == [("ann", 63), ("cat", 70), ("dan", 70)]


def test_a_team_that_fails_earns_nothing() -> None:
    shop, pair, way = team_pair()
    team, _ = shop.start("ann", **way)
    shop.comes(team, "cat", **way)
    shop.wait(TEAM_WINDOW_MS)
    shop.end_teams()
    assert pair.money() == 0
    assert pair.earned() == []


def test_who_leaves_before_the_team_forms_earns_nobody_anything() -> None:
    shop, pair, way = team_pair()
    team, _ = shop.start("ann", **way)
    gone = shop.comes(team, "cat", **way)
    assert shop.leaves(gone)[0] == Outcome.LEFT
    for name in ("dan", "eve"):
        shop.comes(team, name, **way)
    assert pair.money() == 3 * 8
    assert {buyer for buyer, _ in pair.earned()} == {"ann", "dan", "eve"}


def test_a_seat_that_comes_back_after_the_team_formed_is_reversed() -> None:
    shop, pair, way = team_pair()
    team, first = shop.start("ann", **way)
    for name in ("cat", "dan"):
        shop.comes(team, name, **way)
    assert pair.money() == 3 * 8
    assert shop.bring_back(first, 1)[0] == Outcome.RETURNED
    assert pair.money() == 2 * 8


def test_virtual_seats_earn_nothing_and_do_not_keep_real_ones_from_it() -> None:
    shop, pair, way = team_pair(virtual_completion=True)
    team, _ = shop.start("ann", **way)
    shop.comes(team, "cat", **way)
    assert shop.complete(team)[0] == Outcome.APPLIED
    assert pair.money() == 2 * 8
    assert {buyer for buyer, _ in pair.earned()} == {"ann", "cat"}


@pytest.mark.parametrize("delivered_first", [False, True])
def test_goods_that_arrive_before_the_team_has_formed_are_held_from_its_forming(
    delivered_first: bool,
) -> None:
    shop, pair, way = team_pair()
    team, first = shop.start("ann", **way)
    if delivered_first:
        assert shop.ship(first, 2)[0] == Outcome.NOTED
    for name in ("cat", "dan"):
        shop.comes(team, name, **way)
    assert pair.money() == 3 * 8
    pair.bureau.wait(FREEZE_MS - DAY_MS)
    assert pair.bureau.money("bob")[:2] == (24, 0)
    pair.bureau.wait(DAY_MS + HOUR_MS)
    assert pair.bureau.money("bob")[:2] == (0, 24)
