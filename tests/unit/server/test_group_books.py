"""The demo's group-buy against a gateway over the real core: every cent is found, and when the shop
behind the gateway loses some, the books say so."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from stockray import AsyncClient, TeamState

from actors.core import act as acting
from actors.core import records as r
from actors.core import team_records as t
from actors.core.decide import decide
from actors.core.state import ShardState
from server.group_books import GroupBooks, judge, until_ended
from server.group_sale import CAMPAIGN_ID, GroupPlan, GroupRush, prepare_group, shoppers_of
from server.sale import GapMeter
from tests.helpers.core_lines import CoreLines, FakeClock
from tests.unit.server.conftest import View, serving

TICK_MS = 1_000
"""Deadlines are kept by whole seconds."""
PLAN = GroupPlan(shoppers=160, seed=3)


class Honest(CoreLines):
    """The core as it is, at the time of day."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.be_today()

    def be_today(self) -> None:
        """Campaigns begin at the time of day, which goes on meanwhile."""
        self.clock.pass_ms(max(0, int(time.time() * 1000) - self.clock.now_ms()))


class ACentShort(Honest):
    """Pays back a cent too little when a team forms at a lower price."""

    def _fold(self, records: Sequence[Any], journalled: list[Any]) -> None:
        found = [
            record._replace(refund_minor=record.refund_minor - 1)
            if record.kind == t.SEAT_SETTLED and record.refund_minor
            else record
            for record in records
        ]
        super()._fold(found, journalled)


class Halving(Honest):
    """Owes members of failed teams half of what they paid."""

    def _fold(self, records: Sequence[Any], journalled: list[Any]) -> None:
        found = [
            record._replace(refund_minor=record.refund_minor // 2)
            if record.kind == t.SEAT_CLOSED
            else record
            for record in records
        ]
        super()._fold(found, journalled)


class KeepsLateMoney(Honest):
    """Forgets payments for which there is no seat."""

    def _decide(self, command: Any, journalled: list[Any]) -> tuple[Any, ...]:
        with patch.object(acting, "decide", self._forgetful):
            return super()._decide(command, journalled)

    @staticmethod
    def _forgetful(state: ShardState, command: Any, now_ms: int) -> Any:
        answer, records = decide(state, command, now_ms)
        return answer, [record for record in records if record.kind != r.REFUND_FELL_DUE]


async def sell(shop: Honest, directory: Path) -> GroupBooks:
    """The whole group-buy, without a kill."""
    view = View(shop, f"sqlite:///{directory / 'tables.db'}")
    try:
        async with (
            shop.running(),
            serving(shop, views=view.views) as gateway,
            AsyncClient(gateway.address) as client,
        ):
            return await _sell(shop, view, client)
    finally:
        view.close()


async def _sell(shop: Honest, view: View, client: AsyncClient) -> GroupBooks:
    await prepare_group(client, PLAN)
    shop.be_today()
    rush = GroupRush(client, PLAN, shoppers_of(PLAN), gap=GapMeter())
    await rush.run()
    shop.clock.pass_ms(PLAN.payment_window_ms + TICK_MS)
    assert shop.expire_due() > 0
    await rush.pay_late("pay late")
    await rush.open_last()
    (await client.end_campaign(CAMPAIGN_ID)).raise_for_status()
    shop.end_teams()
    teams = list((await until_ended(client, rush.tally.team_ids)).values())
    await rush.pay_late("pay after the end")
    await rush.send_back(teams)
    view.follow()
    books = GroupBooks(lines=PLAN.lines(), tally=rush.tally, kills=1, gap_ms=1.0, teams=teams)
    await judge(client, books)
    return books


async def test_every_cent_of_a_group_buy_is_kept_or_owed_back(tmp_path: Path) -> None:
    shop = Honest()
    books = await sell(shop, tmp_path)
    assert books.balanced, books.as_data()
    assert books.stranded_minor == 0
    assert books.paid_minor == books.kept_minor + books.owed_minor
    assert min(books.kept_minor, books.owed_minor) > 0
    assert min(books.count(state) for state in list(TeamState)[2:]) > 0, "all endings"
    assert {people for _, people in books.tiers_reached()} == {2, 3, 5}, "all tiers"
    pools = shop.pools()
    for line in books.lines:
        key = (line.campaign_id, line.sku_id)
        assert books.sold[key] == pools[key].sold


@pytest.mark.parametrize("shop", [ACentShort, Halving, KeepsLateMoney])
async def test_money_that_a_shop_loses_is_stranded_in_the_books(
    shop: Callable[[], Honest], tmp_path: Path
) -> None:
    books = await sell(shop(), tmp_path)
    assert books.stranded_minor > 0
    assert not books.balanced
    assert "kept" in books.problems[0]
