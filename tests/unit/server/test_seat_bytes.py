"""Results of seats that are put together from parts are, byte by byte, as protobuf writes them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stockray_proto.v1 import common_pb2 as com
from stockray_proto.v1 import group_buy_service_pb2 as buy

from actors.core import team_commands as t
from actors.core.outcomes import Outcome
from server.translate import seat
from server.translate.scalars import stamp
from server.translate.seat import join_team_command, join_team_results, seat_response
from tests.unit.server.group_buying import join_line
from tests.unit.server.test_reserve_bytes import ANSWERS, IDS

TEAM_ID = "7ff" + "ab" * 16
TEAMS = st.tuples(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 253_402_300_799_999),
    st.integers(0, 500),
)


def command(request_id: str, slot: int = 7) -> t.JoinTeam:
    return t.JoinTeam(t.JOIN_TEAM, slot, 0, "web", request_id, b"k" * 16, 1, "ann")


@given(IDS, st.integers(0, 1023), ANSWERS, TEAMS)
def test_a_seat_is_written_as_protobuf_writes_it(
    request_id: str, slot: int, answer: tuple[Any, ...], team: tuple[bytes, int, int]
) -> None:
    _, key, list_price, unit_price, payable, currency, deadline_ms, remaining = answer
    team_key, ends_ms, free = team
    result = buy.SeatResult(
        status=com.LINE_STATUS_RESERVED,
        request_id=request_id,
        reservation_id=f"{slot:03x}{key.hex()}",
        unit_price_minor=unit_price,
        list_price_minor=list_price,
        payable_minor=payable,
        currency_code=currency,
        deadline_time=stamp(deadline_ms),
        remaining_count=remaining,
        team_id=f"{slot:03x}{team_key.hex()}",
        team_deadline_time=stamp(ends_ms) if ends_ms else None,
        free_count=free,
    )
    written = seat_response(command(request_id, slot), (*answer, *team))
    assert written == buy.OpenTeamResponse(result=result).SerializeToString()
    assert written == buy.JoinTeamResponse(result=result).SerializeToString()
    asked = command(request_id, slot)
    many = join_team_results([None, written, None], [asked] * 2, [(*answer, *team)] * 2)
    assert many == buy.JoinTeamManyResponse(results=[result] * 3).SerializeToString()


@given(IDS, st.sampled_from(Outcome), st.lists(st.just(TEAM_ID), max_size=3))
def test_a_refusal_is_written_as_protobuf_writes_it(
    request_id: str, outcome: Outcome, others: list[str]
) -> None:
    if outcome is Outcome.RESERVED:
        return
    answer: tuple[Any, ...] = (int(outcome), 5, tuple(others))
    if outcome is Outcome.RATE_LIMITED:
        answer = (int(outcome), None, 501)
    written = seat_response(command(request_id), answer)
    (result,) = buy.JoinTeamManyResponse.FromString(written).results
    assert (result.status, result.request_id) == (outcome, request_id)
    at_the_edge = outcome in (Outcome.RATE_LIMITED, Outcome.BUYER_FROZEN)
    looked_up = outcome not in (Outcome.ID_REUSED, Outcome.NOT_FOUND) and not at_the_edge
    assert list(result.other_team_ids) == (others if looked_up else [])
    assert result.HasField("remaining_count") == looked_up
    if outcome is Outcome.RATE_LIMITED:
        assert result.retry_after.ToMilliseconds() == 501


def test_team_ids_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat, "TEAMS_REMEMBERED_MAX", 2)
    seat._teams.clear()
    for number in range(5):
        team_id = f"{number:03x}" + "ab" * 16
        made = join_team_command(join_line(team_id, "ann"), caller="web", deadline_ms=1)
        assert made is not None
        assert (made.slot, made.team_key) == (number, b"\xab" * 16)
        assert len(seat._teams) <= 2
