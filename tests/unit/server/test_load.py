"""The load generator, against real servers: what it sends, and that it hides nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ngh2 import Connection, ErrorCode, RequestReceived, Role
from stockray_proto.v1 import (
    common_pb2,
    group_buy_service_pb2,
    reservation_pb2,
    seckill_service_pb2,
)

from server import load
from server.load import CannotConnect, Load, LoadOptions, as_data, main
from server.load_calls import (
    MALFORMED,
    RESERVED,
    WRONG_ID,
    EchoCalls,
    GrabCalls,
    JoinCalls,
    grab_template,
    request_ids,
)
from server.load_connection import INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, Tally

SOLD_OUT = common_pb2.LINE_STATUS_SOLD_OUT
IDS = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=40)
Answer = Callable[[bytes, Any], Awaitable[bytes]]


class _Handler(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def __init__(self, answer: Answer) -> None:
        self._handler = grpc.unary_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handler


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A grpc.aio server that answers every call so; its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Handler(answer),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


CALLS = 100
TIME_ENOUGH_S = 60.0


async def run_load(target: str, **options: Any) -> tuple[Load, Tally]:
    """One short loop."""
    one = Load(LoadOptions(target=target, in_flight=8, connections=2, calls_max=CALLS, **options))
    await one.open()
    try:
        tally, _ = await one.run(TIME_ENOUGH_S)
    finally:
        one.close()
    return one, tally


def answer_to(request: bytes, status: int) -> bytes:
    """A `GrabResponse` as the service makes it."""
    line = seckill_service_pb2.GrabRequest.FromString(request).line
    result = reservation_pb2.ReserveResult(
        status=status,  # type: ignore[arg-type]
        request_id=line.request_id,
        reservation_id="R" * 30,
        payable_minor=4_900,
        currency_code="CNY",
    )
    return seckill_service_pb2.GrabResponse(result=result).SerializeToString()


async def test_every_call_has_an_id_of_its_own_and_every_answer_is_counted_by_its_status() -> None:
    seen: list[tuple[str, str]] = []

    async def answer(request: bytes, context: Any) -> bytes:
        line = seckill_service_pb2.GrabRequest.FromString(request).line
        assert (line.campaign_id, line.sku_id, line.quantity) == ("bench", "bench-sku", 1)
        seen.append((line.request_id, line.buyer.buyer_id))
        return answer_to(request, RESERVED if len(seen) % 2 else SOLD_OUT)

    async with serving(answer) as target:
        one, tally = await run_load(target)
    requests, buyers = ({pair[place] for pair in seen} for place in (0, 1))
    assert len(seen) == len(requests) == len(buyers) == tally.calls == CALLS
    assert tally.statuses == {RESERVED: CALLS // 2, SOLD_OUT: CALLS // 2}
    assert not tally.errors
    assert not tally.lost_connections
    reserved = set(request_ids("load", one.reserved_runs))
    assert reserved == {request_id for request_id, _ in seen[::2]}


async def test_what_is_printed_counts_sales_apart_from_refusals() -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        return answer_to(request, SOLD_OUT)

    async with serving(answer) as target:
        one, tally = await run_load(target)
    printed = as_data(one, tally, 2.0, 0.5)
    assert printed["done"] == 0
    assert printed["statuses"] == {"SOLD_OUT": CALLS}
    assert printed["reserved_runs"] == []


async def test_errors_are_counted_by_their_grpc_code() -> None:
    turns = iter(range(1_000_000))

    async def answer(request: bytes, context: Any) -> bytes:
        if next(turns) % 2:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no room: 50 %")
        return answer_to(request, RESERVED)

    async with serving(answer) as target:
        _, tally = await run_load(target)
    assert tally.errors == {RESOURCE_EXHAUSTED: CALLS // 2}
    assert tally.statuses == {RESERVED: CALLS // 2}


async def test_an_answer_to_another_request_or_none_that_can_be_read_is_no_sale() -> None:
    answers = iter(range(1_000_000))

    async def answer(request: bytes, context: Any) -> bytes:
        good = answer_to(request, RESERVED)
        return (good, good.replace(b"load-", b"lost-"), b"\xff\xff")[next(answers) % 3]

    async with serving(answer) as target:
        _, tally = await run_load(target)
    assert tally.statuses == {RESERVED: 34, WRONG_ID: 33, MALFORMED: 33}
    assert not tally.errors


async def test_an_echo_must_bring_back_what_was_sent() -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        return request

    async with serving(answer) as target:
        one, tally = await run_load(target, kind="echo")
    assert as_data(one, tally, 1.0, 0.1)["done"] == CALLS


class _Resetting(asyncio.Protocol):
    """An HTTP/2 server that resets every stream."""

    code = ErrorCode.REFUSED_STREAM

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.http2 = Connection(Role.SERVER)
        self.http2.initiate_connection()

    def data_received(self, data: bytes) -> None:
        self.http2.receive_data(data)
        for event in self.http2.events():
            if isinstance(event, RequestReceived):
                self.take(event.stream_id)
        self.transport.write(self.http2.data_to_send())

    def take(self, stream_id: int) -> None:
        self.http2.reset_stream(stream_id, self.code)


class _Breaking(_Resetting):
    code = ErrorCode.INTERNAL_ERROR


class _Leaving(_Resetting):
    """Takes one call on a connection and says goodbye to the others."""

    def take(self, stream_id: int) -> None:
        self.http2.send_goaway(0, last_stream_id=1)
        if stream_id == 1:
            self.http2.send_response(
                1, [(b":status", b"200"), (b"grpc-status", b"14")], end_stream=True
            )


class _Closing(_Resetting):
    """Closes the connection at the first call."""

    def take(self, stream_id: int) -> None:
        self.transport.abort()


class _Silent(_Resetting):
    def take(self, stream_id: int) -> None:
        """Never answers."""


@asynccontextmanager
async def listening(make: type[_Resetting]) -> AsyncIterator[str]:
    """A raw HTTP/2 server; its address."""
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("peer", "code"),
    [(_Resetting, UNAVAILABLE), (_Breaking, INTERNAL)],
    ids=["refused", "internal"],
)
async def test_reset_streams_are_errors_with_the_code_that_grpc_gives_them(
    peer: type[_Resetting], code: int
) -> None:
    async with listening(peer) as target:
        _, tally = await run_load(target)
    assert tally.errors == {code: CALLS}


@pytest.mark.parametrize("peer", [_Closing, _Leaving], ids=["closed", "goaway"])
async def test_a_lost_connection_fails_what_was_in_flight_and_another_one_goes_on(
    peer: type[_Resetting],
) -> None:
    async with listening(peer) as target:
        _, tally = await run_load(target)
    assert tally.lost_connections > 2, "the loop must have gone on"
    assert tally.errors == {UNAVAILABLE: CALLS}


async def test_answers_that_never_come_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "ANSWER_GRACE_S", 0.05)
    async with listening(_Silent) as target:
        one = Load(LoadOptions(target=target, in_flight=8, connections=2))
        await one.open()
        tally, _ = await one.run(0.05)
        one.close()
    assert tally.errors == {load.DEADLINE_EXCEEDED: 8}
    assert tally.calls == 8


async def test_a_loop_ends_when_its_time_is_over() -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        return answer_to(request, RESERVED)

    async with serving(answer) as target:
        one = Load(LoadOptions(target=target, in_flight=8, connections=2))
        await one.open()
        first, took = await one.run(0.05)
        second, _ = await one.run(0.05)
        one.close()
    assert took >= 0.05
    reserved = sum(end - begin for begin, end in one.reserved_runs)
    assert first.calls + second.calls == reserved, "a second loop goes on with new numbers"


async def test_nobody_at_the_target_is_said_at_once() -> None:
    async with listening(_Closing) as target:
        pass
    with pytest.raises(CannotConnect, match=target):
        await Load(LoadOptions(target=target)).open()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--target", "nowhere"], "target: 'nowhere'"),
        (["--target", "127.0.0.1:1", "--in-flight", "2", "--connections", "3"], "in_flight"),
    ],
)
def test_a_bad_option_is_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert named in capsys.readouterr().err


@given(IDS, IDS, IDS, st.integers(0, 10**12 - 1))
def test_a_filled_template_is_the_message(
    prefix: str, campaign_id: str, sku_id: str, number: int
) -> None:
    sent = grab_template(prefix, campaign_id=campaign_id, sku_id=sku_id) % (number, number)
    line = seckill_service_pb2.GrabRequest.FromString(sent[5:]).line
    assert int.from_bytes(sent[1:5], "big") == len(sent) - 5
    assert line.request_id == line.buyer.buyer_id == f"{prefix}-{number:012}"
    assert (line.campaign_id, line.sku_id, line.quantity) == (campaign_id, sku_id, 1)


@given(IDS, st.lists(st.text("0123456789abcdef", min_size=35, max_size=35), min_size=1, max_size=3))
def test_a_join_is_filled_with_one_team_after_the_other(prefix: str, team_ids: list[str]) -> None:
    calls = JoinCalls(prefix, team_ids=team_ids)
    for number in range(5):
        sent = calls.request(number)
        line = group_buy_service_pb2.JoinTeamRequest.FromString(sent[5:]).line
        assert int.from_bytes(sent[1:5], "big") == len(sent) - 5
        assert line.request_id == line.buyer.buyer_id == f"{prefix}-{number:012}"
        assert (line.team_id, line.quantity) == (team_ids[number % len(team_ids)], 1)


@given(
    st.builds(
        group_buy_service_pb2.SeatResult,
        status=st.integers(0, 60),
        request_id=st.sampled_from(["load-000000000007", "load-000000000008", "", "x"]),
        reservation_id=st.text(max_size=200),
        message=st.text(max_size=40),
        team_id=st.text(max_size=40),
        other_team_ids=st.lists(st.text(max_size=40), max_size=3),
    )
)
def test_a_seats_answer_is_read_as_a_parser_reads_it(
    result: group_buy_service_pb2.SeatResult,
) -> None:
    calls = JoinCalls("load", team_ids=["0" * 35])
    message = group_buy_service_pb2.JoinTeamResponse(result=result).SerializeToString()
    found = calls.read(7, b"\x00" + len(message).to_bytes(4, "big") + message)
    assert found == (result.status if result.request_id == "load-000000000007" else WRONG_ID)


@given(
    st.builds(
        reservation_pb2.ReserveResult,
        status=st.integers(0, 60),
        request_id=st.sampled_from(["load-000000000007", "load-000000000008", "", "x"]),
        reservation_id=st.text(max_size=200),
        message=st.text(max_size=40),
    )
)
def test_an_answer_is_read_as_a_parser_reads_it(result: reservation_pb2.ReserveResult) -> None:
    calls = GrabCalls("load", campaign_id="c", sku_id="s")
    message = seckill_service_pb2.GrabResponse(result=result).SerializeToString()
    found = calls.read(7, b"\x00" + len(message).to_bytes(4, "big") + message)
    mine = result.request_id == "load-000000000007"
    assert found == (result.status if mine else WRONG_ID)
    assert calls.reserved_runs() == ([(7, 8)] if mine and result.status == RESERVED else [])


@given(st.binary(max_size=80))
def test_no_bytes_are_taken_for_a_sale(frame: bytes) -> None:
    assert GrabCalls("load", campaign_id="c", sku_id="s").read(7, frame) in (MALFORMED, WRONG_ID)
    assert EchoCalls("load", campaign_id="c", sku_id="s").read(7, frame) == WRONG_ID


def test_reserved_numbers_come_back_as_runs() -> None:
    calls = GrabCalls("load", campaign_id="c", sku_id="s")
    reserved = [0, 1, 2, 65_535, 65_536, 400_000]
    for number in reserved:
        message = answer_to(calls.request(number)[5:], RESERVED)
        assert calls.read(number, b"\x00" + len(message).to_bytes(4, "big") + message) == RESERVED
    assert calls.reserved_runs() == [(0, 3), (65_535, 65_537), (400_000, 400_001)]
