"""The demo's distributors against a gateway over the real core: every order's commission is found,
and when a rule of commission is broken, or a row of SQL, the books say so."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import create_engine, delete, select, update
from stockray import AsyncClient, TeamState

from actors.core.codec import unpack_entry
from actors.core.identity import PROGRAMME_SLOT
from actors.core.order_facts import order_facts
from persistence.sql.tables_accounts import commission_entries, statements
from server import integrated
from server.commission_books import CatchUp, CommissionBooks, audit
from server.group_books import GroupBooks, judge, until_ended
from server.group_sale import CAMPAIGN_ID, GroupPlan, GroupRush, prepare_group, shoppers_of
from server.outreach import Outreach, outreach_of
from server.sale import GapMeter, Plan, Rush, Tally, buyers_of, lines_of, prepare
from tests.helpers import commission_breakages as broken
from tests.helpers.core_lines import CoreLines, FakeClock
from tests.unit.server.commissioning import DAY_MS
from tests.unit.server.conftest import View, serving
from tests.unit.server.test_ops import ToldCluster

TICK_MS = 1_000
SALE = Plan(units=240, buyers=600, seed=5, concurrency=64)
GROUP = GroupPlan(shoppers=160, seed=5)


class Shop(CoreLines):
    """The core at the time of day, with a relay that works when it is asked to."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self._relayed = 0
        self.be_today()

    def be_today(self) -> None:
        """Campaigns begin at the time of day; later than that is as good."""
        self.clock.pass_ms(max(0, int(time.time() * 1000) - self.clock.now_ms()))

    def relay(self) -> None:
        """Accounts learn of all orders; then time passes, and what is thawed is available."""
        new, self._relayed = self.entries[self._relayed :], len(self.entries)
        for entry in new:
            content = unpack_entry(entry.data)
            for slot, fact in order_facts(content.records, content.now_ms):
                if slot == PROGRAMME_SLOT:
                    self.learn(fact)
        self.let_pass(5 * TICK_MS)

    def let_pass(self, length_ms: int) -> None:
        """Time passes, and what is due in the programme is decided."""
        self.clock.pass_ms(length_ms)
        self.look_at_programme()


class Fair(NamedTuple):
    """A campaign that is over."""

    shop: Shop
    view: View
    client: AsyncClient
    books: CommissionBooks
    teams: GroupBooks
    tally: Tally


@asynccontextmanager
async def fair(directory: Path) -> AsyncIterator[Fair]:
    """The integrated campaign, without kills, up to where its ledger is read."""
    shop = Shop()
    view = View(shop, f"sqlite:///{directory / 'tables.db'}")
    try:
        async with (
            shop.running(),
            serving(shop, views=view.views, cluster=ToldCluster()) as gateway,
            AsyncClient(gateway.address) as client,
        ):
            outreach = outreach_of(buyers_of(SALE, lines_of(SALE)), shoppers_of(GROUP), SALE.seed)
            await integrated.warm_up_all(client, outreach)
            tally = await _sell(shop, client, outreach)
            caught_up = CatchUp(len(tally.orders), 0, 0.0, 0.0)
            books = await integrated.between(client, outreach, tally, caught_up)
            teams = await _team_up(shop, view, client, outreach)
            yield Fair(shop, view, client, books, teams, tally)
    finally:
        view.close()


async def _sell(shop: Shop, client: AsyncClient, outreach: Outreach) -> Tally:
    lines = lines_of(SALE)
    await prepare(client, SALE, lines)
    shop.be_today()
    rush = Rush(
        client,
        SALE,
        outreach.send(buyers_of(SALE, lines)),
        gap=GapMeter(),
        watched_campaign="",
        on_progress=lambda done, reserved: None,
    )
    tally = await rush.run()
    shop.clock.pass_ms(SALE.payment_window_ms + TICK_MS)
    shop.expire_due()
    shop.relay()
    return tally


async def _team_up(shop: Shop, view: View, client: AsyncClient, outreach: Outreach) -> GroupBooks:
    await prepare_group(client, GROUP)
    shop.be_today()
    rush = GroupRush(client, GROUP, outreach.send(shoppers_of(GROUP)), gap=GapMeter())
    await rush.run()
    shop.clock.pass_ms(GROUP.payment_window_ms + TICK_MS)
    shop.expire_due()
    await rush.pay_late("pay late")
    await rush.open_last()
    (await client.end_campaign(CAMPAIGN_ID)).raise_for_status()
    shop.end_teams()
    teams = list((await until_ended(client, rush.tally.team_ids)).values())
    await rush.send_back(teams)
    shop.relay()
    view.follow()
    books = GroupBooks(lines=GROUP.lines(), tally=rush.tally, kills=1, gap_ms=1.0, teams=teams)
    await judge(client, books)
    assert books.balanced, books.as_data()
    return books


async def close(found: Fair) -> CommissionBooks:
    """Read the ledger."""
    await integrated.close(
        found.client,
        found.books,
        found.tally,
        found.teams,
        lines=lines_of(SALE),
        database_url=found.view.url,
    )
    return found.books


async def test_every_order_has_its_entries_and_every_month_its_sum(tmp_path: Path) -> None:
    async with fair(tmp_path) as found:
        books = await close(found)
    assert books.balanced, books.as_data()
    assert (books.ledger_sum_minor, sum(books.sums)) == (0, 0)
    assert min(abs(amount) for at, amount in enumerate(books.sums) if at != 4) > 0, (
        "all but 'withdrawing'"
    )
    assert len({line.distributor_id for line in books.lines}) > 5
    assert min(line.closing_minor for line in books.lines) < 0, "a debt"
    assert max(line.restored_minor for line in books.lines) > 0
    totals = books.funnel_totals()
    assert set(totals) == {"flash-sale", "evening-sale", CAMPAIGN_ID}
    assert all(total["commission_minor"] > 0 for total in totals.values())
    brought = books.funnel_rows()
    assert len({(one.campaign_id, one.distributor_id) for one in brought}) == len(brought)
    for campaign_id, total in totals.items():
        of_campaign = [one for one in brought if one.campaign_id == campaign_id]
        assert [sum(column) for column in list(zip(*of_campaign, strict=True))[2:]] == [
            *total.values()
        ]
        earned = [one.commission_minor for one in of_campaign]
        assert earned == sorted(earned, reverse=True)
    assert found.teams.count(TeamState.FORMED) > 0
    assert any(earning.order.returned_quantity for earning in books.earnings if earning.matured)
    assert any(earning.order.returned_quantity for earning in books.earnings if not earning.matured)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong may never thaw."""
    monkeypatch.setattr(integrated, "THAWED_TIMEOUT_S", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "breakage",
    [
        broken.a_running_total_is_credited_inside_the_loop,
        broken.a_refund_after_the_payout_is_ignored,
        broken.a_reversal_is_clamped_at_zero,
        broken.the_base_is_multiplied_by_the_quantity,
        broken.a_share_is_rounded_up,
        broken.the_second_level_earns_on_the_firsts_share,
        broken.margins_are_not_looked_at,
        broken.the_margin_is_that_of_one_unit,
        broken.a_suspended_first_level_feeds_the_second,
        broken.what_a_held_distributor_earned_is_paid_all_the_same,
        broken.a_return_takes_back_the_whole_share,
        broken.returns_stay_on_the_board_of_sales,
        broken.a_binding_by_a_fact_stands_from_when_it_is_told,
        broken.buyers_are_bound_to_themselves,
        broken.a_failed_withdrawal_is_gone,
    ],
)
async def test_a_broken_rule_is_found(
    breakage: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    breakage(monkeypatch)
    async with fair(tmp_path) as found:
        books = await close(found)
    assert not books.reconcile
    assert not books.balanced


async def test_a_row_that_sql_lost_is_missed_in_the_funnel(tmp_path: Path) -> None:
    async with fair(tmp_path) as found:
        carried = {e.order.reservation_id for e in found.books.earnings if e.order.attribution}
        ids = commission_entries.c.reservation_id
        with create_engine(found.view.url).begin() as connection:
            rows = connection.execute(select(commission_entries.c.entry_id, ids))
            lost = next(row.entry_id for row in rows if row.reservation_id in carried)
            connection.execute(
                delete(commission_entries).where(commission_entries.c.entry_id == lost)
            )
        books = await close(found)
    assert not books.reconcile
    assert {problem.partition(" ")[0] for problem in books.problems} == {"funnel"}


async def test_months_that_are_over_are_held_to_their_statements(tmp_path: Path) -> None:
    async with fair(tmp_path) as found:
        await close(found)
        found.shop.let_pass(8 * DAY_MS)
        found.shop.let_pass(31 * DAY_MS)
        found.view.follow()
        later = await read_again(found)
        assert later.balanced, later.problems[:2]
        assert later.lines
        assert all(line.made for line in later.lines)
        with create_engine(found.view.url).begin() as connection:
            wrong = {"closing_minor": statements.c.closing_minor + 1}
            connection.execute(update(statements).values(wrong))
        wrong_books = await read_again(found)
    assert len(wrong_books.problems) == len(later.lines)
    assert all(problem.startswith("statement") for problem in wrong_books.problems)


async def read_again(found: Fair) -> CommissionBooks:
    """The ledger when everything has thawed."""
    before = found.books
    books = CommissionBooks(
        outreach=before.outreach,
        catch_up=before.catch_up,
        paid_out_minor=before.paid_out_minor,
        earnings=[
            # What came back whole while it was frozen never thaws.
            earning._replace(matured=earning.matured or not earning.order.returned_quantity)
            for earning in before.earnings
        ],
    )
    campaign_ids: Any = before.funnel_totals()
    await audit(found.client, books, campaign_ids)
    return books
