"""Campaigns, and the transfers that bring them their units."""

from typing import Any

import pytest

from actors.core import state as s
from actors.core.campaign_config import CampaignConfig
from actors.core.identity import slot_of
from actors.core.outcomes import Outcome
from tests.model.shop import T0, Shop, campaign, line


@pytest.fixture
def shop() -> Shop:
    """SKU tea with 10 units."""
    shop = Shop()
    shop.sku()
    shop.receive(10)
    return shop


# Transfers


def test_units_on_the_way_are_counted_once() -> None:
    shop = Shop()
    shop.sku()
    shop.receive(10)
    shop.put(campaign(line("tea", 6)))
    out = shop.leave(6)
    assert shop.stock() == {"available": 4, "in_transit": 6}
    assert shop.arrive(out[1], 6) == (Outcome.APPLIED, True)
    assert shop.stock("sale") == {"available": 6}
    assert shop.settle(out[1], arrived=True) == (Outcome.APPLIED,)
    assert shop.stock() == {"available": 4}
    assert shop.pool().total + shop.pool("sale").total == 10


def test_every_step_of_a_transfer_may_be_resent() -> None:
    shop = Shop()
    shop.sku()
    shop.receive(10)
    shop.put(campaign(line("tea", 20)))
    key = shop.leave(6)[1]
    assert shop.leave(6)[:3] == (Outcome.APPLIED, key, s.IN_TRANSIT)
    assert shop.leave(5)[0] == Outcome.ID_REUSED
    for _ in range(2):
        assert shop.arrive(key, 6) == (Outcome.APPLIED, True)
    for _ in range(2):
        assert shop.settle(key, arrived=True) == (Outcome.APPLIED,)
    assert shop.arrive(key, 6) == (Outcome.APPLIED, True)
    assert shop.leave(6)[2] == s.TRANSFER_ARRIVED
    assert (shop.stock(), shop.stock("sale")) == ({"available": 4}, {"available": 6})
    assert shop.pool("sale").granted == 6


@pytest.mark.parametrize("why", ["no such campaign", "it is over", "it is ended", "allocation"])
def test_units_that_are_turned_away_come_back(why: str) -> None:
    shop = Shop()
    shop.sku()
    shop.receive(10)
    if why != "no such campaign":
        shop.put(campaign(line("tea", 5 if why == "allocation" else 10), ends_ms=T0 + 10))
    if why == "it is ended":
        shop.turn(s.CAMPAIGN_ENDED)
    shop.wait(10 if why == "it is over" else 0)
    key = shop.leave(6)[1]
    assert shop.arrive(key, 6) == (Outcome.APPLIED, False)
    shop.put(campaign(line("tea", 10), ends_ms=T0 + 100))
    assert shop.arrive(key, 6) == (Outcome.APPLIED, False), "turned away for ever"
    assert shop.settle(key, arrived=False) == (Outcome.APPLIED,)
    assert shop.settle(key, arrived=False) == (Outcome.APPLIED,)
    assert shop.leave(6)[2] == s.TRANSFER_TURNED_AWAY
    assert shop.stock() == {"available": 10}


def test_only_available_units_leave(shop: Shop) -> None:
    shop.hold("r1", 8)
    assert shop.leave(3)[0] == Outcome.EXCEEDS_AVAILABLE
    assert shop.leave(1, "x", source="nothing")[0] == Outcome.NOT_FOUND
    assert shop.settle(bytes(16), arrived=True) == (Outcome.NOT_FOUND,)


def test_units_go_back_from_a_campaign_and_are_not_granted_any_more() -> None:
    shop = Shop()
    shop.open_sale(4)
    shop.turn(s.CAMPAIGN_ENDED)
    key = shop.leave(4, "back", source="sale", target="")[1]
    assert shop.pool("sale").granted == 0
    shop.arrive(key, 4, "")
    shop.settle(key, arrived=True, source="sale")
    assert (shop.stock(), shop.stock("sale")) == ({"available": 4}, {})


# Campaigns


def test_a_campaign_is_idempotent_by_content() -> None:
    shop = Shop()
    shop.open_sale(4)
    entries = len(shop.journal)
    assert shop.put(campaign(line("tea")))[0] == Outcome.APPLIED
    assert len(shop.journal) == entries


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (campaign(line("tea"), currency_code="EUR"), "currency"),
        (campaign(line("cup")), "cannot be removed"),
        (campaign(line("tea", 3)), "granted 4 units"),
    ],
)
def test_a_campaign_keeps_what_buyers_rely_on(config: CampaignConfig, why: str) -> None:
    shop = Shop()
    shop.open_sale(4)
    outcome, view, _, told = shop.put(config)
    assert outcome == Outcome.CAMPAIGN_CONFLICT
    assert why in told
    assert view[2] == campaign(line("tea"))


def test_all_else_of_a_campaign_may_change() -> None:
    shop = Shop()
    shop.open_sale(4)
    config: dict[str, Any] = {
        "starts_ms": T0 - 1,
        "ends_ms": T0 + 1,
        "payment_window_ms": 1_000,
        "required_claims": ("vip",),
        "limit_per_buyer": 1,
    }
    changed = campaign(line("tea", 4, 70, 2), line("cup"), **config)
    assert shop.put(changed)[0] == Outcome.APPLIED
    assert shop.reserve("r1", sale="sale", claims=("vip",))[2:4] == (100, 70)
    shop.wait(1)
    assert shop.put(campaign(line("tea")))[0] == Outcome.CAMPAIGN_CONFLICT, "it has ended"


def test_pausing_stops_new_reservations_and_nothing_else() -> None:
    shop = Shop()
    shop.open_sale(4)
    own = shop.hold("r1", sale="sale")
    shop.turn(s.CAMPAIGN_PAUSED)
    assert shop.reserve("r2", sale="sale")[0] == Outcome.PAUSED
    assert shop.begin(own)[0] == Outcome.PAYMENT_BEGUN
    assert shop.pay(own, paid=80)[0] == Outcome.CONFIRMED
    shop.turn(s.CAMPAIGN_ACTIVE)
    assert shop.reserve("r3", sale="sale")[0] == Outcome.RESERVED
    assert shop.turn(s.CAMPAIGN_PAUSED, "nothing")[0] == Outcome.NOT_FOUND


def test_a_campaign_counts_its_changes() -> None:
    def told(state: s.ShardState) -> tuple[int, int, int]:
        sale = state.slot(slot_of("sale")).campaigns["sale"]
        return (sale.version, sale.created_ms, sale.updated_ms)

    shop = Shop()
    shop.sku()
    shop.put(campaign(line("tea")))
    assert told(shop.state) == (1, T0, T0)
    shop.wait(1_000)
    shop.put(campaign(line("tea")))
    assert told(shop.state) == (1, T0, T0), "the same content is no change"
    answer = shop.put(campaign(line("tea", limit=2)))
    assert answer[1][4:] == told(shop.state) == (2, T0, T0 + 1_000)
    shop.wait(1_000)
    shop.turn(s.CAMPAIGN_PAUSED)
    assert told(shop.state) == (2, T0, T0 + 2_000), "a pause is no change of its content"
    assert told(shop.replica()) == told(shop.from_snapshot()) == told(shop.state)


def test_a_limit_that_is_put_later_counts_what_was_reserved_before() -> None:
    shop = Shop()
    shop.open_sale(10, line("tea"))
    shop.hold("r1", 2, sale="sale")
    shop.put(campaign(line("tea"), line("cup")))
    shop.put(campaign(line("tea", limit=3), line("cup"), limit_per_buyer=3))
    assert shop.reserve("r2", 2, sale="sale")[0] == Outcome.LIMIT_EXCEEDED
    assert shop.reserve("r3", 1, sale="sale")[0] == Outcome.RESERVED
