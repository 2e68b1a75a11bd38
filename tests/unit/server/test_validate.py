"""The rules of fields, and that the fast test of a line agrees with the slow one."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import reservation_pb2 as res
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.core.identity import slot_of
from actors.core.outcomes import Outcome
from server.errors import Code, StockrayStatus, Violation
from server.translate.reserve import LineRefused, find_violations, reserve_command
from server.translate.scalars import KEYS_REMEMBERED_MAX, SlotMemory
from server.validate import Violations, is_id, is_ip

TEXTS = st.one_of(
    st.sampled_from(["", "a", "a b", "x" * 128, "x" * 129, "\u3000", "é", "\x7f", "10.0.0.1"]),
    st.text(max_size=4),
)
NUMBERS = st.sampled_from([-1, 0, 1, 1_000_000, 1_000_001, 10**15, 10**15 + 1])


@given(data=st.data(), grab=st.booleans())
def test_a_line_is_refused_exactly_when_a_field_is_wrong(data: st.DataObject, grab: bool) -> None:
    fields: dict[str, Any] = {
        name: data.draw(TEXTS) for name in ("request_id", "sku_id", "campaign_id", "order_id")
    }
    fields["quantity"] = data.draw(NUMBERS)
    if data.draw(st.booleans()):
        fields["payable_minor"] = data.draw(NUMBERS)
    fields["buyer"] = com.BuyerContext(
        buyer_id=data.draw(TEXTS),
        device_id=data.draw(TEXTS),
        ip=data.draw(TEXTS),
        claims=data.draw(st.lists(TEXTS, max_size=2)),
    )
    if data.draw(st.booleans()):
        fields["attribution"] = com.Attribution(channel=data.draw(TEXTS))
    line = sec.GrabLine(**fields) if grab else res.ReserveLine(**fields)
    wrong = find_violations(line, grab=grab, prefix="")
    if wrong.found:
        with pytest.raises(LineRefused) as refused:
            reserve_command(line, caller="c", deadline_ms=1, grab=grab)
        assert refused.value.violations.found == wrong.found
    else:
        command = reserve_command(line, caller="c", deadline_ms=1, grab=grab)
        assert command.request_id == fields["request_id"]
        assert command.slot == slot_of(fields["campaign_id"] or fields["sku_id"])


@pytest.mark.parametrize("text", ["", " ", "a b", "a\tb", "a\u00a0b", "\u200b", "x" * 129, "\x00"])
def test_what_is_no_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize("text", ["a", "x" * 128, "双十一", "a/b:c-d_e.f", "😀"])
def test_what_is_an_id(text: str) -> None:
    assert is_id(text)


def test_addresses_are_of_either_kind_in_text_form() -> None:
    assert is_ip("10.0.0.1")
    assert is_ip("2001:db8::1")
    assert not is_ip("10.0.0.256")
    assert not is_ip("localhost")
    assert not is_ip("1" * 46)


def test_too_many_claims_are_one_violation() -> None:
    wrong = Violations()
    wrong.ids("claims", ["x"] * 33, count_max=32)
    assert [found.field for found in wrong.found] == ["claims"]


def test_durations_and_instants_have_ends() -> None:
    wrong = Violations()
    assert wrong.duration("ok", Duration(seconds=1), 1_000, 2_000) == 1_000
    wrong.duration("short", Duration(nanos=999_999_999), 1_000, 2_000)
    wrong.duration("negative", Duration(seconds=-1), 0, 2_000)
    wrong.duration("odd", Duration(seconds=1, nanos=-1), 0, 2_000)
    assert wrong.instant("ok", Timestamp(seconds=1)) == 1_000
    wrong.instant("early", Timestamp(seconds=-1))
    wrong.instant("late", Timestamp(seconds=253_402_300_800))
    assert [found.field for found in wrong.found] == ["short", "negative", "odd", "early", "late"]


def test_a_message_for_people_is_bounded() -> None:
    wrong = Violations()
    for _ in range(50):
        wrong.id("request_id", "")
    assert len(wrong.message()) == 256


def test_every_outcome_is_a_line_status_of_the_same_number_and_name() -> None:
    for outcome in Outcome:
        if outcome not in (Outcome.WRONG_SHARD, Outcome.RECALL, Outcome.OUT_OF_ORDER):
            assert com.LineStatus.Name(int(outcome)) == f"LINE_STATUS_{outcome.name}"  # type: ignore[arg-type]


def test_a_status_without_advice_has_no_pushback() -> None:
    status = StockrayStatus(
        code=Code.INVALID_ARGUMENT,
        reason=com.ERROR_REASON_INVALID_FIELD,
        message="m",
        violations=[Violation("f", "a")],
    )
    assert [key for key, _ in status.trailers()] == ["grpc-status-details-bin"]
    assert status.reason_name == "INVALID_FIELD"


def test_remembered_slots_are_bounded_and_right() -> None:
    memory = SlotMemory()
    for number in range(KEYS_REMEMBERED_MAX + 10):
        memory[f"k-{number}"]
    assert len(memory) == 10
    assert memory["k-1"] == slot_of("k-1")


@pytest.mark.parametrize("bad", ["x" * 129, "a b", "a\nb"])
@pytest.mark.parametrize(
    "field",
    [
        "request_id",
        "sku_id",
        "campaign_id",
        "order_id",
        "buyer.buyer_id",
        "buyer.device_id",
        "buyer.claims[0]",
        "attribution.share_code",
        "attribution.channel",
        "attribution.experiment",
    ],
)
def test_one_wrong_id_in_a_line_that_is_fine_is_found(field: str, bad: str) -> None:
    line = res.ReserveLine(request_id="r", sku_id="s", quantity=1)
    line.buyer.buyer_id = "u"
    owner, _, name = field.rpartition(".")
    target = getattr(line, owner) if owner else line
    if name == "claims[0]":
        target.claims.append(bad)
    else:
        setattr(target, name, bad)
    with pytest.raises(LineRefused) as refused:
        reserve_command(line, caller="c", deadline_ms=1, grab=False)
    assert [found.field for found in refused.value.violations.found] == [field]
