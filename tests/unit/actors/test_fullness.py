"""What a shard still takes when its journal is nearly full, by kinds of commands."""

from actors.core import commands as c
from actors.core import commission_commands as d
from actors.core import risk_commands as k
from actors.core import team_commands as t
from actors.core.relay_commands import TAKE_FACTS
from actors.fullness import has_room_for


def taken(kind: int, full_percent: int) -> bool:
    return has_room_for((kind,), full_percent)


def test_whatever_changes_nothing_is_always_answered() -> None:
    kinds = {**c.MAKE, **t.MAKE, **d.MAKE, **k.MAKE}
    named = {kind: getattr(make, "__self__", type(make)).__name__ for kind, make in kinds.items()}
    reads = [kind for kind, name in named.items() if name.startswith(("Get", "List", "Suggest"))]
    assert {c.GET_STOCK, t.SUGGEST_TEAMS, d.GET_REFERRER, d.LIST_ENTRIES} <= set(reads)
    assert [kind for kind in (*reads, k.PULL_RISK) if not taken(kind, 100)] == []


def test_money_on_its_way_and_freezes_go_on_while_the_journal_is_nearly_full() -> None:
    goes_on = (
        c.CONFIRM,
        t.LEAVE_TEAM,
        TAKE_FACTS,
        k.FREEZE,
        k.HOLD_TOLD,
        d.HOLD_DISTRIBUTOR,
        d.REVIEW_WITHDRAWAL,
    )
    assert [taken(kind, 99) for kind in goes_on] == [True] * len(goes_on)
    assert not any(taken(kind, 100) for kind in goes_on)


def test_nothing_new_is_begun_in_what_is_left_of_the_journal() -> None:
    new = (
        c.RESERVE,
        t.JOIN_TEAM,
        d.BIND_REFERRER,
        d.APPLY_DISTRIBUTOR,
        d.REQUEST_WITHDRAWAL,
        d.PUT_RATES,
    )
    assert all(taken(kind, 89) for kind in new)
    assert not any(taken(kind, 90) for kind in new)
    assert not has_room_for((c.RECALLED, 0, 0, 0, 0, (c.RESERVE,)), 90)
