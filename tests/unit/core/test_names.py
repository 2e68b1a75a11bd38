"""Ids are computed and never counted; numbers are those of the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stockray_proto.v1 import common_pb2, reservation_pb2

from actors.core import identity, payments
from actors.core import state as s
from actors.core.commands import MAKE
from actors.core.decide import HANDLERS
from actors.core.evolve import EVOLVE
from actors.core.outcomes import UNFINAL, Outcome
from actors.core.records import RECORDS
from actors.core.relay_commands import TAKE_FACTS


def test_slots_and_parts_are_fixed_for_ever() -> None:
    assert [identity.slot_of(key) for key in ("tea", "sale", "手机")] == [946, 5, 371]
    assert identity.buyer_part("ann") == 51
    assert identity.request_key("web", "r1").hex() == "d0ecd38178ab1c6281cf9f1e3d37527d"
    assert identity.fingerprint("a", 1) == 8179578943


@given(a=st.text(max_size=6), b=st.text(max_size=6), cut=st.integers(0, 6))
def test_caller_and_request_id_are_kept_apart(a: str, b: str, cut: int) -> None:
    both = a + b
    other = (both[:cut], both[cut:])
    same = identity.request_key(*other) == identity.request_key(a, b)
    assert same == (other == (a, b))


@given(slot=st.integers(0, 1023), key=st.binary(min_size=16, max_size=16))
def test_a_public_id_reads_back(slot: int, key: bytes) -> None:
    assert identity.parse_public_id(identity.public_id(slot, key)) == (slot, key)


@given(slot=st.integers(1024, 2047), key=st.binary(min_size=16, max_size=16))
def test_an_id_of_an_account_slot_is_never_taken_for_an_order(slot: int, key: bytes) -> None:
    text = identity.public_id(slot, key)
    assert identity.parse_account_id(text) == (slot, key)
    assert identity.parse_public_id(text) is None
    order = identity.public_id(slot - identity.SLOT_COUNT, key)
    assert identity.parse_account_id(order) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 35,
        "400" + "0" * 32,
        "0A1" + "0" * 32,
        " 01" + "0" * 32,
        "-01" + "0" * 32,
        "0x1" + "0" * 32,
        "001" + "F" * 32,
        "001" + "0 " * 16,
        "0" * 36,
    ],
)
def test_an_id_that_cannot_be_ours_is_none(text: str) -> None:
    assert identity.parse_public_id(text) is None


def test_outcomes_are_the_line_statuses_of_the_wire() -> None:
    wire = {
        name.removeprefix("LINE_STATUS_"): number
        for name, number in common_pb2.LineStatus.items()
        if number
    }
    ours = {outcome.name: int(outcome) for outcome in Outcome}
    for between_processes in ("WRONG_SHARD", "RECALL", "OUT_OF_ORDER"):
        del ours[between_processes]
    assert ours == wire


def test_what_claims_nothing_is_unfinal() -> None:
    names = {"INTERNAL", "RETRY", "UNKNOWN", "WRONG_SHARD", "RECALL", "OUT_OF_ORDER"}
    assert {outcome.name for outcome in UNFINAL} == names


def test_reservation_states_are_those_of_the_wire() -> None:
    names = ("RESERVED", "CONFIRMED", "EXPIRED", "RELEASED", "RETURNED", "REVOKED")
    ours = {f"RESERVATION_STATE_{name}": getattr(s, name) for name in names}
    assert ours == {k: v for k, v in reservation_pb2.ReservationState.items() if v}
    assert set(s.TRANSITIONS) == set(ours.values())


def test_refund_reasons_and_states_are_those_of_the_wire() -> None:
    reasons = {f"REFUND_REASON_{reason.name}": int(reason) for reason in payments.RefundReason}
    assert reasons == {k: v for k, v in reservation_pb2.RefundReason.items() if v}
    states = {"REFUND_STATE_DUE": s.REFUND_DUE, "REFUND_STATE_REFUNDED": s.REFUND_CLOSED}
    assert states == {k: v for k, v in reservation_pb2.RefundState.items() if v}


def test_every_command_is_decided_and_every_record_is_applied() -> None:
    # Facts are decided and applied by turns.
    assert set(MAKE) == set(HANDLERS) | {TAKE_FACTS}
    assert set(RECORDS) == set(EVOLVE)
