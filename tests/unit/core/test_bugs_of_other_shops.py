"""The bugs of commission that well-known shops had, as the semantics list them.

Each is a story that holds here, and that is not told to the end once the bug is put in.
"""

from collections.abc import Callable

import pytest

from actors.core import commission_commands as d
from actors.core.commission_state import Statement
from actors.core.evolve import Impossible
from actors.core.outcomes import Outcome
from actors.core.programme_config import LAST_TOUCH
from actors.core.pulse import Pulse
from tests.helpers import commission_breakages as b
from tests.model.bureau import DAY_MS, FREEZE_MS, HOUR_MS, NOVEMBER, Bureau


def shop(**changes: object) -> Bureau:
    """Ann was brought by bob, and he by cid: 10 % and 5 %."""
    bureau = Bureau()
    bureau.open("bob", "cid", "dan", **changes)
    bureau.bind("bob", "cid")
    bureau.bind("ann", "bob")
    bureau.wait(HOUR_MS)
    return bureau


def each_line_of_a_basket_credits_its_own_share() -> None:
    bureau = shop()
    for name, base in [("line 1", 1_000), ("line 2", 2_000), ("line 3", 4_000)]:
        bureau.earned(name, "ann", base)
    assert [entry.frozen_minor for entry in bureau.entries("bob")] == [100, 200, 400]
    assert [bureau.money(name)[0] for name in ("bob", "cid")] == [700, 350]


def a_share_that_two_workers_find_due_becomes_available_once() -> None:
    bureau = shop()
    bureau.earned("r1", "ann", 10_000)
    bureau.now_ms += FREEZE_MS + 1_000
    found = [Pulse().commission(bureau.state, bureau.now_ms, 10) for _ in range(2)]
    bureau.entry(found[0])
    assert bureau.money("bob") == (0, 1_000, 0, 0, 0)
    assert Pulse().commission(bureau.state, bureau.now_ms, 10) == []
    with pytest.raises(Impossible):
        bureau.entry(found[1])


def a_reversal_of_what_is_gone_goes_below_nothing() -> None:
    bureau = shop()
    bureau.earned("r1", "ann", 10_000, quantity=2)
    bureau.wait(FREEZE_MS + 1_000)
    bureau.withdraw("bob", 800)
    bureau.returned("r1", 2, of=2)
    assert bureau.money("bob") == (0, 0, -800, 800, 0)
    assert sum(bureau.programme.sums) == 0


def a_refund_after_the_payout_is_owed_and_comes_off_the_next_statement() -> None:
    bureau = shop()
    bureau.earned("r1", "ann", 10_000)
    bureau.wait(FREEZE_MS + 1_000)
    key = bureau.withdraw("bob", 1_000)[1]
    bureau.review(key, d.WITHDRAWAL_APPROVE)
    bureau.review(key, d.WITHDRAWAL_PAID)
    assert len(bureau.returned("r1", 1)) == 1
    assert bureau.money("bob") == (0, 0, -1_000, 0, 1_000)
    bureau.earned("r2", "ann", 15_000)
    bureau.wait(30 * DAY_MS)
    made = Statement(*bureau.statement("bob", NOVEMBER))
    assert (made.available_minor, made.reversed_minor, made.closing_minor) == (2_500, 1_000, 500)
    assert bureau.withdraw("bob", 501, "w2")[0] == Outcome.EXCEEDS_AVAILABLE


def a_cycle_of_three_is_refused_as_one_of_two_is() -> None:
    bureau = shop()
    assert bureau.bind("cid", "bob")[0] == Outcome.CYCLE
    assert bureau.bind("cid", "dan")[0] == Outcome.APPLIED
    assert bureau.bind("dan", "bob")[0] == Outcome.CYCLE


def a_binding_earns_within_its_validity_and_not_after_it() -> None:
    bureau = shop(validity_ms=DAY_MS)
    assert bureau.earned("within", "ann") != ()
    bureau.wait(DAY_MS)
    assert bureau.earned("after", "ann") == ()
    assert bureau.money("bob")[0] == 1_000


def who_was_bound_at_the_reservation_is_paid_whoever_is_bound_at_the_payout() -> None:
    bureau = shop(policy=LAST_TOUCH)
    reserved_ms_ago = HOUR_MS // 2
    bureau.wait(HOUR_MS)
    bureau.bind("ann", "dan")
    bureau.earned("r1", "ann", 10_000, quantity=2, ago_ms=reserved_ms_ago)
    bureau.wait(FREEZE_MS + 1_000)
    assert bureau.money("bob") == (0, 1_000, 0, 0, 0)
    bureau.returned("r1", 1, of=2)
    bureau.wait(30 * DAY_MS)
    assert bureau.money("bob") == (0, 0, 500, 0, 0)
    assert bureau.money("dan") == (0, 0, 0, 0, 0)


def the_base_is_what_was_paid_for_all_units_together() -> None:
    bureau = shop()
    bureau.earned("r1", "ann", 10_000, quantity=3)
    assert [bureau.money(name)[0] for name in ("bob", "cid")] == [1_000, 500]


Story = Callable[[], None]
Breakage = Callable[[pytest.MonkeyPatch], None]

STORIES: dict[Breakage, Story] = {
    b.a_running_total_is_credited_inside_the_loop: each_line_of_a_basket_credits_its_own_share,
    b.two_workers_thaw_the_same_share: a_share_that_two_workers_find_due_becomes_available_once,
    b.a_reversal_is_clamped_at_zero: a_reversal_of_what_is_gone_goes_below_nothing,
    b.a_refund_after_the_payout_is_ignored: (
        a_refund_after_the_payout_is_owed_and_comes_off_the_next_statement
    ),
    b.only_cycles_of_two_are_caught: a_cycle_of_three_is_refused_as_one_of_two_is,
    b.the_test_of_validity_is_inverted: a_binding_earns_within_its_validity_and_not_after_it,
    b.an_order_pays_who_is_bound_today: (
        who_was_bound_at_the_reservation_is_paid_whoever_is_bound_at_the_payout
    ),
    b.the_base_is_multiplied_by_the_quantity: the_base_is_what_was_paid_for_all_units_together,
}


@pytest.mark.parametrize("story", STORIES.values(), ids=lambda story: story.__name__)
def test_here(story: Story) -> None:
    story()


@pytest.mark.parametrize(("bug", "story"), STORIES.items(), ids=[bug.__name__ for bug in STORIES])
def test_the_story_notices_that(
    bug: Breakage, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    # pytest.fail is an exception of its own: an Impossible that does not come is noticed by it.
    with pytest.raises((AssertionError, Impossible, pytest.fail.Exception)):
        story()
