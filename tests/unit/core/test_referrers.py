"""Who earns from an order that a buyer would have reserved at an instant."""

from actors.core import commission_commands as d
from actors.core.decide import decide
from actors.core.outcomes import Outcome
from actors.core.programme_config import LAST_TOUCH
from tests.model.bureau import HOUR_MS, SLOT, T0, Answer, Bureau


def referrer(bureau: Bureau, buyer: str, at_ms: int = 0) -> Answer:
    command = d.GetReferrer(d.GET_REFERRER, SLOT, 0, "web", buyer, at_ms)
    answer, records = decide(bureau.state, command, bureau.now_ms)
    assert not records
    return answer


def test_both_levels_are_those_of_the_instant() -> None:
    bureau = Bureau()
    bureau.open("bob", "cat", "dan", policy=LAST_TOUCH, validity_ms=3 * HOUR_MS)
    bureau.bind("ann", "bob")
    assert referrer(bureau, "ann") == (Outcome.FOUND, ("bob", T0, T0 + 3 * HOUR_MS), "")
    bureau.wait(HOUR_MS)
    bureau.bind("bob", "cat")
    assert referrer(bureau, "ann")[2] == "cat"
    assert referrer(bureau, "ann", T0 + 1)[2] == ""
    bureau.bind("ann", "dan")
    assert referrer(bureau, "ann")[1][0] == "dan"
    assert referrer(bureau, "ann", T0 + HOUR_MS - 1)[1][0] == "bob"


def test_nobody_earns_before_the_binding_or_after_its_end() -> None:
    bureau = Bureau()
    bureau.open("bob", validity_ms=HOUR_MS)
    bureau.bind("ann", "bob")
    none = (Outcome.NOT_FOUND, None, "")
    assert referrer(bureau, "ann", T0 - 1) == none
    assert referrer(bureau, "ann", T0 + HOUR_MS) == none
    assert referrer(bureau, "eve") == none
