"""Teams out of the SQL view: lists, and those that left their shard's memory."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import group_buy_service_pb2 as buy
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import seckill_service_pb2 as sec

from server.recall import RecallingLines
from server.translate.scalars import stamp
from tests.helpers.core_lines import START_MS, CoreLines
from tests.unit.server.conftest import HOUR_MS, Gateway, View, reason_of, serving
from tests.unit.server.group_buying import LADDER, TeamShop

pytestmark = pytest.mark.usefixtures("front_kind")


@pytest.fixture
async def shop(lines: CoreLines, view: View) -> AsyncIterator[TeamShop]:
    async with serving(lines, views=view.views) as gateway:
        shop = TeamShop(gateway)
        await shop.sell(*LADDER, rules={"new_buyer_count": 1, "virtual_completion": True})
        yield shop


async def listed(shop: TeamShop, **fields: object) -> list[buy.Team]:
    """All teams of the campaign, two a page."""
    request = buy.ListTeamsRequest(campaign_id="together", page_size=2, **fields)  # type: ignore[arg-type]
    found: list[buy.Team] = []
    while True:
        answer = await shop.stub.ListTeams(request)
        found.extend(answer.teams)
        assert answer.age.source == com.DATA_SOURCE_SQL
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


async def some_teams(shop: TeamShop) -> list[str]:
    """A failed, a cancelled, a formed, a forming team, and one whose opener has not paid; in the
    order of their opening."""
    failed = await shop.start("ann")
    await shop.pass_deadline()
    seat = await shop.open("bob")
    await shop.gateway.inventory.Release(
        inv.ReleaseRequest(line={"reservation_id": seat.reservation_id})
    )
    shop.gateway.clock.pass_ms(1_000)
    formed = await shop.start("cat", new_buyer=True)
    for name in ("dan", "eve", "fay", "gus"):
        await shop.comes(formed, name)
    shop.gateway.clock.pass_ms(1_000)
    forming = await shop.start("hal")
    await shop.comes(forming, "ian", new_buyer=True)
    await shop.join(forming, "jay")
    left = await shop.comes(forming, "kim")
    await shop.stub.LeaveTeam(buy.LeaveTeamRequest(reservation_id=left.reservation_id))
    shop.gateway.clock.pass_ms(1_000)
    unpaid = await shop.open("lea")
    return [failed, seat.team_id, formed, forming, unpaid.team_id]


async def test_teams_are_listed_newest_first_with_their_counts(shop: TeamShop, view: View) -> None:
    opened = await some_teams(shop)
    view.follow()
    found = await listed(shop)
    assert [team.team_id for team in found] == opened[::-1]
    unpaid, forming, formed, cancelled, failed = found
    assert (unpaid.paid_count, unpaid.unpaid_count, unpaid.joinable) == (0, 1, False)
    assert (forming.paid_count, forming.unpaid_count, forming.free_count) == (2, 1, 2)
    assert (forming.new_buyer_count, forming.new_buyer_missing_count) == (1, 0)
    assert (forming.tier.people, forming.missing_count, forming.joinable) == (2, 1, True)
    assert (formed.paid_count, formed.final_unit_price_minor, formed.free_count) == (5, 50, 0)
    assert formed.new_buyer_count == 1
    assert cancelled.state == buy.TEAM_STATE_CANCELLED
    assert (failed.state, failed.paid_count) == (buy.TEAM_STATE_FAILED, 1)
    assert not any(team.members for team in found)


async def test_teams_are_listed_by_state(shop: TeamShop, view: View) -> None:
    failed, _, formed, *_ = await some_teams(shop)
    view.follow()
    states = [buy.TEAM_STATE_FAILED, buy.TEAM_STATE_FORMED]
    assert [team.team_id for team in await listed(shop, states=states)] == [formed, failed]
    request = buy.ListTeamsRequest(campaign_id="no-campaign")
    assert not (await shop.stub.ListTeams(request)).teams


async def test_seats_are_reservations_that_say_their_team(shop: TeamShop, view: View) -> None:
    seat = await shop.open("ann")
    await shop.gateway.reserve("r-1")
    await shop.pay(seat)
    await shop.join(seat.team_id, "bob")
    one = await shop.gateway.inventory.GetReservation(
        inv.GetReservationRequest(reservation_id=seat.reservation_id)
    )
    assert one.reservation.team_id == seat.team_id
    view.follow()
    request = inv.ListReservationsRequest(team_id=seat.team_id)
    found = (await shop.gateway.inventory.ListReservations(request)).reservations
    assert {reservation.buyer_id for reservation in found} == {"ann", "bob"}
    request = inv.ListReservationsRequest(sku_id="tea")
    every = (await shop.gateway.inventory.ListReservations(request)).reservations
    assert sorted(reservation.team_id for reservation in every) == ["", *[seat.team_id] * 2]


async def test_a_team_that_left_memory_is_read_as_it_was(shop: TeamShop, view: View) -> None:
    opened = await some_teams(shop)
    shop.gateway.clock.pass_ms(3 * HOUR_MS)
    shop.gateway.lines.expire_due()
    await shop.pass_deadline()
    request = [buy.GetTeamRequest(team_id=one, viewer_buyer_id="cat") for one in opened]
    before = [await shop.stub.GetTeam(one) for one in request]
    assert {answer.age.source for answer in before} == {com.DATA_SOURCE_SHARD}
    view.follow()
    shop.gateway.lines.forget()
    shop.gateway.lines.forget_teams()
    after = [await shop.stub.GetTeam(one) for one in request]
    assert {answer.age.source for answer in after} == {com.DATA_SOURCE_SQL}
    assert [answer.team for answer in after] == [answer.team for answer in before]
    assert [member.own for member in after[2].team.members] == [True, False, False, False, False]
    assert after[2].team.members[0].leader


async def test_members_who_left_memory_before_their_team_are_told(
    shop: TeamShop, view: View
) -> None:
    """The shard told a failed team without them (found by seed 319 of the simulator)."""
    seat = await shop.open("ann")
    await shop.pay(seat)
    await shop.pass_deadline()
    before = await shop.team(seat.team_id)
    assert (before.state, len(before.members)) == (buy.TEAM_STATE_FAILED, 1)
    view.follow()
    shop.gateway.lines.forget()
    assert await shop.team(seat.team_id) == before


async def test_a_return_after_success_changes_no_team(shop: TeamShop, view: View) -> None:
    seat = await shop.open("ann", new_buyer=True)
    await shop.pay(seat)
    await shop.comes(seat.team_id, "bob")
    await shop.pass_deadline()
    before = await shop.team(seat.team_id)
    assert before.state == buy.TEAM_STATE_FORMED
    back = inv.ReturnUnitsRequest(request_id="b", reservation_id=seat.reservation_id, quantity=1)
    answer = await shop.gateway.inventory.ReturnUnits(back)
    assert answer.status == com.LINE_STATUS_RETURNED
    assert await shop.team(seat.team_id) == before
    shop.gateway.clock.pass_ms(3 * HOUR_MS)
    view.follow()
    shop.gateway.lines.forget_teams()
    assert await shop.team(seat.team_id) == before


async def test_a_forgotten_seat_comes_back_with_its_team(lines: CoreLines, view: View) -> None:
    """A return pays back what was kept, not what was paid: the settlement is known again."""
    recalling = RecallingLines(lines, view.views.get_reservation, lines.clock)
    async with serving(lines, through=recalling, views=view.views) as gateway:
        shop = TeamShop(gateway)
        await shop.sell((2, 80), (3, 50))
        seat = await shop.open("ann")
        await shop.pay(seat)
        for name in ("bob", "cat"):
            await shop.comes(seat.team_id, name)
        gateway.clock.pass_ms(3 * HOUR_MS)
        view.follow()
        assert lines.forget() == 3
        again = await shop.open("ann")
        assert (again.reservation_id, again.team_id) == (seat.reservation_id, seat.team_id)
        back = inv.ReturnUnitsRequest(
            request_id="b", reservation_id=seat.reservation_id, quantity=1
        )
        returned = await gateway.inventory.ReturnUnits(back)
        assert returned.refund.amount_minor == 50
    recalling.close()


async def test_an_unknown_team_is_in_neither(shop: TeamShop) -> None:
    for team_id in ("no-team", "001" + "0" * 32):
        answer = await shop.stub.GetTeam(buy.GetTeamRequest(team_id=team_id))
        assert answer.status == com.LINE_STATUS_NOT_FOUND
        assert not answer.HasField("team")


async def test_without_a_view_an_unknown_team_is_no_certain_answer(gateway: Gateway) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.teams.GetTeam(buy.GetTeamRequest(team_id="001" + "0" * 32))
    assert reason_of(caught.value) == "VIEW_UNAVAILABLE"


async def test_group_campaigns_are_listed_among_the_others(shop: TeamShop, view: View) -> None:
    view.follow()
    answer = await shop.gateway.seckill.ListCampaigns(sec.ListCampaignsRequest())
    (campaign,) = answer.campaigns
    assert campaign.campaign_id == "together"
    assert campaign.lines[0].stock.available_count == 100
    assert campaign.start_time == stamp(START_MS)
