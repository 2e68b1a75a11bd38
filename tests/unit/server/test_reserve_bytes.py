"""Results that are put together from parts are, byte by byte, what protobuf would write."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import inventory_service_pb2 as inv
from stockray_proto.v1 import reservation_pb2
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.core.commands import Reserve
from actors.core.outcomes import Outcome
from server.translate import reserve
from server.translate.reserve import reserve_response, reserve_results
from server.translate.scalars import stamp

LETTERS = st.characters(codec="utf-8", exclude_categories=["Zs", "Cc"])
IDS = st.text(LETTERS, min_size=1, max_size=128)
COUNTS = st.integers(0, 2**63 - 1)


def command(request_id: str, slot: int = 7) -> Reserve:
    return Reserve(1, slot, 0, "web", request_id, "", "tea", 1, "ann")


ANSWERS = st.tuples(
    st.just(int(Outcome.RESERVED)),
    st.binary(min_size=16, max_size=16),
    COUNTS,
    COUNTS,
    COUNTS,
    st.sampled_from(["", "CNY"]),
    st.integers(1, 253_402_300_799_999),
    COUNTS,
)


@given(IDS, st.integers(0, 1023), ANSWERS)
def test_a_reservation_is_written_as_protobuf_writes_it(
    request_id: str, slot: int, answer: tuple[Any, ...]
) -> None:
    _, key, list_price, unit_price, payable, currency, deadline_ms, remaining = answer
    result = reservation_pb2.ReserveResult(
        status=com.LINE_STATUS_RESERVED,
        request_id=request_id,
        reservation_id=f"{slot:03x}{key.hex()}",
        unit_price_minor=unit_price,
        list_price_minor=list_price,
        payable_minor=payable,
        currency_code=currency,
        deadline_time=stamp(deadline_ms),
        remaining_count=remaining,
    )
    written = reserve_response(command(request_id, slot), answer)
    assert written == inv.ReserveResponse(result=result).SerializeToString()
    assert written == sec.GrabResponse(result=result).SerializeToString()


OTHERS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((Outcome.SOLD_OUT, 0, ()), {"remaining_count": 0}),
    ((Outcome.SOLD_OUT, 3, ()), {"remaining_count": 3}),
    ((Outcome.SOLD_OUT, 0, ("tea-2",)), {"remaining_count": 0, "alternative_sku_ids": ["tea-2"]}),
    ((Outcome.ID_REUSED,), {}),
]


@pytest.mark.parametrize(("answer", "fields"), OTHERS)
def test_other_answers_are_written_as_protobuf_writes_them(
    answer: tuple[Any, ...], fields: dict[str, Any]
) -> None:
    result = reservation_pb2.ReserveResult(status=answer[0], request_id="r" * 128, **fields)
    wanted = sec.GrabResponse(result=result).SerializeToString()
    assert reserve_response(command("r" * 128), answer) == wanted


def test_results_of_many_lines_stand_in_the_order_of_the_lines() -> None:
    lines = [reservation_pb2.ReserveLine(request_id=name) for name in ("a", "b", "c")]
    commands = [command("a"), command("c")]
    sold_out = (int(Outcome.SOLD_OUT), 0, ())
    data = reserve_results(lines, commands, {1: "wrong"}, [sold_out, sold_out])
    for kind in (inv.ReserveManyResponse, sec.GrabManyResponse):
        results = kind.FromString(data).results
        assert [result.request_id for result in results] == ["a", "b", "c"]
        assert [result.message for result in results] == ["", "wrong", ""]
        assert kind.FromString(data).SerializeToString() == data


def test_what_is_remembered_of_results_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "PARTS_REMEMBERED_MAX", 3)
    parts = reserve.Parts(lambda count: reservation_pb2.ReserveResult(remaining_count=count))
    for count in range(100):
        wanted = reservation_pb2.ReserveResult(remaining_count=count).SerializeToString()
        assert parts[count] == wanted
        assert len(parts) <= 3
