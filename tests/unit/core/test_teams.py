"""Teams: each seat is taken once, paid once, settled once."""

from typing import Any

import pytest

from actors.core import snapshot
from actors.core import state as s
from actors.core.identity import public_id
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason
from actors.core.team_state import TEAM_CANCELLED, TEAM_FAILED, TEAM_FORMED, TEAM_FORMING
from tests.model.shop import T0, WINDOW_MS, campaign
from tests.model.team_shop import (
    SLOT,
    TEAM_WINDOW_MS,
    TeamShop,
    check_replicas,
    group_line,
    rules,
)
from tests.model.team_walk import walk


@pytest.fixture
def shop() -> TeamShop:
    """Teams of three at 80."""
    shop = TeamShop()
    shop.sell_to_teams()
    return shop


def at_deadline(shop: TeamShop) -> None:
    """Let the teams' window pass, and what is due be decided."""
    shop.wait(TEAM_WINDOW_MS)
    shop.expire()
    shop.end_teams()


def test_a_team_forms_when_its_last_seat_is_paid(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    shop.comes(team, "bob")
    last = shop.seat(team, "cat")
    assert shop.team(team).state == TEAM_FORMING
    shop.paid(last)
    assert shop.team(team).state == TEAM_FORMED
    assert shop.refunds() == {}
    assert shop.stock("sale") == {"available": 97, "sold": 3}
    check_replicas(shop)


def test_members_are_told_in_the_order_of_joining_whoever_pays_last(shop: TeamShop) -> None:
    """It was the order of paying when a team became full (history 39 of the walks)."""
    team, ann = shop.start("ann")
    shop.wait(1)
    bob = shop.seat(team, "bob")
    shop.wait(1)
    cat = shop.comes(team, "cat")
    shop.paid(bob)
    assert shop.team(team).members == tuple(bytes.fromhex(seat[3:]) for seat in (ann, bob, cat))


def test_the_last_seat_is_taken_once(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    shop.comes(team, "bob")
    shop.seat(team, "cat")
    assert shop.join(team, "dan")[0] == Outcome.TEAM_FULL
    assert shop.join(team, "dan")[0] == Outcome.TEAM_FULL
    assert shop.join(team, "eve", "dan-joins")[0] == Outcome.ID_REUSED


def test_nobody_joins_before_the_leader_has_paid(shop: TeamShop) -> None:
    answer = shop.open_team("ann")
    team = public_id(SLOT, answer[8])
    assert shop.join(team, "bob")[0] == Outcome.TEAM_NOT_OPEN
    assert shop.suggest("bob") == []
    shop.paid(public_id(SLOT, answer[1]))
    assert shop.suggest("bob") == [team]
    assert shop.suggest("ann") == []


def test_no_buyer_is_twice_in_a_team(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    assert shop.join(team, "ann")[0] == Outcome.ALREADY_IN_TEAM
    shop.seat(team, "bob")
    assert shop.join(team, "bob", "again")[0] == Outcome.ALREADY_IN_TEAM


def test_who_expired_may_come_again(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    shop.seat(team, "bob")
    shop.wait(WINDOW_MS)
    shop.expire()
    shop.seat(team, "bob", request="again")


def test_a_buyer_opens_three_teams_and_no_more(shop: TeamShop) -> None:
    teams = [shop.start("ann", request=f"t{n}")[0] for n in range(3)]
    assert shop.open_team("ann", "t3")[0] == Outcome.TOO_MANY_TEAMS
    for buyer in ("bob", "cat"):
        shop.comes(teams[0], buyer)
    assert shop.open_team("ann", "t4")[0] == Outcome.RESERVED


def test_a_request_sent_again_is_answered_the_same(shop: TeamShop) -> None:
    first = shop.open_team("ann")
    again = shop.open_team("ann")
    assert again[:7] == first[:7]
    assert again[8:] == first[8:]
    shop.paid(public_id(SLOT, first[1]))
    team = public_id(SLOT, first[8])
    assert shop.join(team, "bob")[:7] == shop.join(team, "bob")[:7]


@pytest.mark.parametrize(
    "other",
    [
        {"order_id": "o-2"},
        {"order_id": ""},
        {"quantity": 2},
        {"new_buyer": True},
        {"payable_minor": 1},
    ],
    ids=str,
)
def test_a_request_sent_again_with_other_content_is_no_repetition(
    other: dict[str, Any], shop: TeamShop
) -> None:
    told = {"order_id": "o-1"}
    opened = shop.open_team("ann", **told)
    shop.paid(public_id(SLOT, opened[1]))
    team = public_id(SLOT, opened[8])
    assert shop.join(team, "bob", **told)[0] == Outcome.RESERVED
    assert shop.open_team("ann", **told | other)[0] == Outcome.ID_REUSED
    assert shop.join(team, "bob", **told | other)[0] == Outcome.ID_REUSED
    assert shop.open_team("ann", **told)[1] == opened[1]


def test_a_refused_request_sent_again_with_another_order_is_no_repetition(shop: TeamShop) -> None:
    team = public_id(SLOT, shop.open_team("ann")[8])
    for _ in range(2):
        assert shop.join(team, "bob", order_id="o-1")[0] == Outcome.TEAM_NOT_OPEN
    assert shop.join(team, "bob", order_id="o-2")[0] == Outcome.ID_REUSED


def test_a_team_that_reaches_no_tier_fails_and_owes_each_member_alone(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    shop.comes(team, "bob")
    at_deadline(shop)
    assert shop.team(team).state == TEAM_FAILED
    assert shop.refunds() == {
        "ann": (80, RefundReason.TEAM_FAILED),
        "bob": (80, RefundReason.TEAM_FAILED),
    }
    assert shop.stock("sale") == {"available": 100}
    check_replicas(shop)


def test_a_refund_that_cannot_be_paid_back_touches_no_other(shop: TeamShop) -> None:
    shop.start("ann")
    shop.start("bob")
    at_deadline(shop)
    ids = [public_id(SLOT, refund.key) for refund in shop.state.slot(SLOT).refunds.values()]
    assert shop.refunded(ids[0], False, "f1")[0] == Outcome.APPLIED
    assert shop.refunded(ids[1], True, "f2")[0] == Outcome.APPLIED
    states = [refund.state for refund in shop.state.slot(SLOT).refunds.values()]
    assert sorted(states) == [s.REFUND_DUE, s.REFUND_CLOSED]


def test_a_ladder_settles_at_the_highest_tier_reached_to_the_cent() -> None:
    shop = TeamShop()
    shop.sell_to_teams((2, 90), (3, 77), (5, 50), leader_discount_bps=333)
    team, _ = shop.start("ann")
    assert shop.held(public_id(SLOT, shop.team(team).leader)).payable_minor == 88
    for buyer in ("bob", "cat", "dan"):
        shop.comes(team, buyer)
    shop.seat(team, "eve")
    at_deadline(shop)
    assert shop.team(team).state == TEAM_FORMED
    # 77 less 3.33 %, rounded down to a discount of 2: the leader pays 75 of 88.
    assert shop.refunds() == {
        "ann": (13, RefundReason.TEAM_PRICE),
        "bob": (13, RefundReason.TEAM_PRICE),
        "cat": (13, RefundReason.TEAM_PRICE),
        "dan": (13, RefundReason.TEAM_PRICE),
    }
    check_replicas(shop)


def test_more_people_than_a_tier_asks_for_reach_it() -> None:
    shop = TeamShop()
    shop.sell_to_teams((2, 90), (5, 50))
    team, _ = shop.start("ann")
    for buyer in ("bob", "cat"):
        shop.comes(team, buyer)
    at_deadline(shop)
    assert (shop.team(team).state, shop.team(team).tier_people) == (TEAM_FORMED, 2)


def test_a_leaver_is_refunded_and_no_longer_counts(shop: TeamShop) -> None:
    team, ann = shop.start("ann")
    bob = shop.comes(team, "bob")
    left = shop.leaves(ann)
    assert (left[0], left[1], left[2][4:6]) == (Outcome.LEFT, s.RETURNED, (80, 7))
    assert shop.leaves(ann)[:2] == left[:2]
    assert shop.team(team).leader == bytes.fromhex(bob[3:])
    shop.comes(team, "cat")
    assert shop.team(team).state == TEAM_FORMING
    shop.comes(team, "dan")
    assert shop.team(team).state == TEAM_FORMED
    assert shop.refunds() == {"ann": (80, RefundReason.LEFT_TEAM)}


def test_a_team_that_everybody_left_is_cancelled(shop: TeamShop) -> None:
    team, ann = shop.start("ann")
    bob = shop.seat(team, "bob")
    shop.leaves(ann)
    assert shop.team(team).state == TEAM_FORMING
    assert shop.join(team, "cat")[0] == Outcome.TEAM_NOT_OPEN
    shop.release(bob)
    assert shop.team(team).state == TEAM_CANCELLED
    assert shop.join(team, "dan")[0] == Outcome.TEAM_CLOSED


def test_an_unpaid_opener_leaves_no_team_behind(shop: TeamShop) -> None:
    team = public_id(SLOT, shop.open_team("ann")[8])
    shop.wait(WINDOW_MS)
    shop.expire()
    assert shop.team(team).state == TEAM_CANCELLED


def test_a_late_payer_gets_the_seat_back_while_there_is_room(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    bob = shop.seat(team, "bob")
    shop.wait(WINDOW_MS)
    shop.expire()
    assert shop.paid(bob)[0] == Outcome.CONFIRMED
    assert shop.team(team).paid == 2


def test_a_late_payer_of_a_full_team_moves_to_the_nearest_to_full(shop: TeamShop) -> None:
    full, _ = shop.start("ann")
    bob = shop.seat(full, "bob")
    shop.start("far")
    near, _ = shop.start("ned")
    shop.comes(near, "nel")
    shop.wait(WINDOW_MS)
    shop.expire()
    for buyer in ("cat", "dan"):
        shop.comes(full, buyer)
    assert shop.paid(bob)[0] == Outcome.CONFIRMED
    assert shop.team(near).state == TEAM_FORMED
    assert bytes.fromhex(bob[3:]) in shop.team(near).members
    check_replicas(shop)


def test_a_late_payer_without_any_room_is_owed_all(shop: TeamShop) -> None:
    full, _ = shop.start("ann")
    bob = shop.seat(full, "bob")
    shop.wait(WINDOW_MS)
    shop.expire()
    for buyer in ("cat", "dan"):
        shop.comes(full, buyer)
    answer = shop.paid(bob)
    assert answer[0] == Outcome.REFUND_DUE
    assert shop.refunds() == {"bob": (80, RefundReason.LATE_PAYMENT)}


def test_a_formed_team_is_not_changed_by_a_return(shop: TeamShop) -> None:
    team, ann = shop.start("ann")
    for buyer in ("bob", "cat"):
        shop.comes(team, buyer)
    assert shop.bring_back(ann, 1)[0] == Outcome.RETURNED
    assert shop.team(team).state == TEAM_FORMED
    assert shop.refunds() == {"ann": (80, RefundReason.RETURN)}
    assert shop.leaves(ann)[0] == Outcome.TEAM_CLOSED


def test_parts_of_a_return_add_up_to_what_was_kept_after_the_settlement() -> None:
    shop = TeamShop()
    shop.sell_to_teams((1, 90), (2, 77))
    team, ann = shop.start("ann", quantity=3)
    shop.comes(team, "bob")
    parts = [shop.bring_back(ann, 1, f"part-{n}")[3][4] for n in range(3)]
    assert sum(parts) == 3 * 77
    payment = shop.held(ann).payment
    assert payment is not None
    assert payment.refunded_minor == payment.amount_minor == 3 * 90


def test_who_is_in_a_forming_team_leaves_it_instead_of_returning(shop: TeamShop) -> None:
    _, ann = shop.start("ann")
    assert shop.bring_back(ann, 1)[0] == Outcome.TEAM_FORMING


def test_the_last_seats_are_for_new_buyers() -> None:
    shop = TeamShop()
    shop.sell_to_teams(new_buyer_seats=2)
    team, _ = shop.start("ann")
    assert shop.join(team, "bob")[0] == Outcome.NEW_BUYERS_ONLY
    assert shop.suggest("bob") == []
    assert shop.suggest("new", new=True) == [team]
    shop.comes(team, "new", new_buyer=True)
    shop.comes(team, "newer", new_buyer=True)
    assert shop.team(team).state == TEAM_FORMED


def test_a_tier_without_its_new_buyers_is_no_success() -> None:
    shop = TeamShop()
    shop.sell_to_teams((2, 90), (4, 70), new_buyer_seats=1)
    team, _ = shop.start("ann")
    shop.comes(team, "bob")
    at_deadline(shop)
    assert shop.team(team).state == TEAM_FAILED


def test_a_seats_payment_window_ends_with_its_team(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    shop.wait(TEAM_WINDOW_MS - 5)
    bob = shop.seat(team, "bob")
    assert shop.held(bob).deadline_ms == T0 + TEAM_WINDOW_MS
    assert shop.begin(bob)[2] == T0 + TEAM_WINDOW_MS


def test_suggestions_are_nearest_to_full_and_then_earliest(shop: TeamShop) -> None:
    early, _ = shop.start("e1")
    shop.wait(1_000)
    late, _ = shop.start("l1")
    near, _ = shop.start("n1")
    shop.comes(near, "n2")
    assert shop.suggest("ann") == [near, early, late]
    assert shop.suggest("ann", limit=2) == [near, early]
    assert shop.suggest("n1") == [early, late]


def test_who_finds_a_team_full_is_told_of_others(shop: TeamShop) -> None:
    full, _ = shop.start("ann")
    for buyer in ("bob", "cat"):
        shop.seat(full, buyer)
    other, _ = shop.start("dan")
    assert shop.join(full, "eve")[::2] == (Outcome.TEAM_FULL, (other,))


def test_an_operator_completes_a_team_only_where_the_rules_allow_it(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    assert shop.complete(team)[0] == Outcome.NOT_ELIGIBLE


def test_virtual_seats_are_counted_apart() -> None:
    shop = TeamShop()
    shop.sell_to_teams((2, 90), (4, 70), virtual_completion=True)
    team, _ = shop.start("ann")
    shop.seat(team, "bob")
    assert shop.complete(team, 3)[0] == Outcome.INVALID
    done = shop.complete(team, 4)
    assert done[0] == Outcome.APPLIED
    assert shop.complete(team, 4) == done
    row = shop.team(team)
    assert (row.state, row.virtual, len(row.members), row.unit_price_minor) == (
        TEAM_FORMED,
        3,
        1,
        70,
    )
    assert shop.refunds() == {"ann": (20, RefundReason.TEAM_PRICE)}
    check_replicas(shop)


@pytest.mark.parametrize("people", [0, 2])
def test_a_team_that_was_completed_without_virtual_seats_is_completed_again(people: int) -> None:
    """It was told TEAM_CLOSED, as only virtual seats said that an operator had completed it."""
    shop = TeamShop()
    shop.sell_to_teams((2, 90), (4, 70), virtual_completion=True)
    team, _ = shop.start("ann")
    shop.comes(team, "bob")
    done = shop.complete(team, people)
    assert (done[0], shop.team(team).virtual, shop.team(team).completed_by) == (
        Outcome.APPLIED,
        0,
        "web",
    )
    assert shop.complete(team, people) == done
    assert shop.complete(team, 4)[0] == Outcome.TEAM_CLOSED
    check_replicas(shop)
    shop.state = shop.from_snapshot()
    assert shop.complete(team, people) == done


def test_a_team_that_formed_by_itself_was_completed_by_nobody() -> None:
    shop = TeamShop()
    shop.sell_to_teams((2, 90), virtual_completion=True)
    team, _ = shop.start("ann")
    shop.comes(team, "bob")
    assert shop.team(team).state == TEAM_FORMED
    assert shop.complete(team)[0] == Outcome.TEAM_CLOSED


def test_a_campaign_that_is_ended_ends_its_teams(shop: TeamShop) -> None:
    for number in range(5):
        shop.start(f"b{number}")
    shop.turn(s.CAMPAIGN_ENDED)
    while shop.end_teams(limit=2):
        check_replicas(shop)
    assert not shop.state.closing
    assert len(shop.refunds()) == 5


def test_what_a_line_costs_alone_is_another_price(shop: TeamShop) -> None:
    assert shop.reserve(sale="sale")[3] == 95
    other = TeamShop()
    other.open_sale(10, group_line(alone=0), group=rules())
    assert other.reserve(sale="sale")[0] == Outcome.TEAM_ONLY


def test_tiers_and_rules_stand_from_the_first_team_on(shop: TeamShop) -> None:
    changed = campaign(group_line((3, 79)), group=rules())
    assert shop.put(changed)[0] == Outcome.APPLIED
    shop.start("ann")
    assert shop.put(campaign(group_line((3, 70)), group=rules()))[0] == Outcome.CAMPAIGN_CONFLICT


def test_a_shortage_takes_a_seat_out_of_its_team(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    shop.comes(team, "bob")
    shop.adjust(-98, sale="sale")
    shop.short(1, sale="sale")
    while shop.revoke():
        pass
    assert shop.team(team).paid == 1
    check_replicas(shop)


def test_limits_count_seats_and_units_bought_alone() -> None:
    shop = TeamShop()
    shop.sell_to_teams(limit=2)
    team, _ = shop.start("bob")
    shop.seat(team, "ann")
    assert shop.reserve(sale="sale")[0] == Outcome.RESERVED
    assert shop.open_team("ann")[0] == Outcome.LIMIT_EXCEEDED


def test_ended_teams_leave_memory(shop: TeamShop) -> None:
    team, _ = shop.start("ann")
    for buyer in ("bob", "cat"):
        shop.comes(team, buyer)
    shop.turn(s.CAMPAIGN_ENDED)
    shop.wait(1_000)
    seq = len(shop.journal)
    shop.open()
    gone = shop.forgetting.look_for_teams(
        shop.state, now_ms=shop.now_ms, recall_after_ms=0, sink_seq=seq, limit=10
    )
    shop.fold(gone)
    shop.close()
    assert len(shop.state.slot(SLOT).teams) == 0
    check_replicas(shop)


@pytest.mark.parametrize("seed", range(30))
def test_any_history_keeps_the_books_of_teams(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random acts of few buyers on a ladder: every entry is judged, replicas and snapshots
    agree."""
    monkeypatch.setattr(snapshot, "ROWS_A_CHUNK", 2)
    walk(seed)
