"""`grpc.testing.TestService` of the public interop tests, as calls of our handler table.

What it must do is said by gRPC's interop test descriptions. It is written against the table alone,
so whatever a client finds wrong with it is wrong with the front that serves it.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from stockray_proto.v1 import common_pb2

from server.errors import CallError, Code, StockrayStatus
from server.handlers import CallContext, Method
from tests.interop import messages as m

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
COMPRESSABLE = 0
RESPONSE_BYTES_MAX = 16 * 1024 * 1024
SERVER_ID = "stockray"


def methods() -> list[Method]:
    """The calls. UnimplementedCall and UnimplementedService are left out: that is their test."""
    handlers: dict[str, tuple[type[Any], str, Any]] = {
        "EmptyCall": (m.Empty, "unary", empty_call),
        "UnaryCall": (m.SimpleRequest, "unary", unary_call),
        "CacheableUnaryCall": (m.SimpleRequest, "unary", cacheable_call),
        "StreamingOutputCall": (m.StreamingOutputCallRequest, "stream", streaming_output),
        "StreamingInputCall": (m.StreamingInputCallRequest, "client_stream", streaming_input),
        "FullDuplexCall": (m.StreamingOutputCallRequest, "bidi", full_duplex),
        "HalfDuplexCall": (m.StreamingOutputCallRequest, "bidi", half_duplex),
    }
    return [
        # The limit of a message is the front's here, not the smaller one of the sale.
        Method(path=f"/grpc.testing.TestService/{name}", request=kind, always=True, **{how: call})
        for name, (kind, how, call) in handlers.items()
    ]


async def empty_call(request: Any, context: CallContext) -> Any:
    """Nothing for nothing."""
    return m.Empty()


async def unary_call(request: Any, context: CallContext) -> Any:
    """As many bytes as asked for, or the status asked for."""
    _echo_metadata(context)
    _check_compressed(request, context)
    _end_with(request.response_status)
    context.compress(request.response_compressed.value)
    answer = m.SimpleResponse(payload=_payload(request.response_type, request.response_size))
    if request.fill_server_id:
        answer.server_id = SERVER_ID
    return answer


async def cacheable_call(request: Any, context: CallContext) -> Any:
    """The time, and leave to keep it."""
    context.initial_metadata.append(("cache-control", "max-age=60, public"))
    return m.SimpleResponse(payload=m.Payload(body=str(time.time_ns()).encode()))


async def streaming_output(request: Any, context: CallContext) -> AsyncIterator[Any]:
    """One answer for each of the parameters."""
    _echo_metadata(context)
    _end_with(request.response_status)
    async for answer in _answers(request, context):
        yield answer


async def streaming_input(requests: AsyncIterator[Any], context: CallContext) -> Any:
    """How many bytes came."""
    _echo_metadata(context)
    total = 0
    async for request in requests:
        _check_compressed(request, context)
        total += len(request.payload.body)
    return m.StreamingInputCallResponse(aggregated_payload_size=total)


async def full_duplex(requests: AsyncIterator[Any], context: CallContext) -> AsyncIterator[Any]:
    """Answers to each request as it comes."""
    _echo_metadata(context)
    async for request in requests:
        _end_with(request.response_status)
        async for answer in _answers(request, context):
            yield answer


async def half_duplex(requests: AsyncIterator[Any], context: CallContext) -> AsyncIterator[Any]:
    """Answers to all requests when the last has come."""
    _echo_metadata(context)
    for request in [request async for request in requests]:
        _end_with(request.response_status)
        async for answer in _answers(request, context):
            yield answer


async def _answers(request: Any, context: CallContext) -> AsyncIterator[Any]:
    for parameters in request.response_parameters:
        if parameters.interval_us > 0:
            await asyncio.sleep(parameters.interval_us / 1_000_000)
        context.compress(parameters.compressed.value)
        payload = _payload(request.response_type, parameters.size)
        yield m.StreamingOutputCallResponse(payload=payload)


def _payload(kind: int, size: int) -> Any:
    if kind != COMPRESSABLE or not 0 <= size <= RESPONSE_BYTES_MAX:
        raise _error(Code.INVALID_ARGUMENT, "no such payload")
    return m.Payload(type=kind, body=bytes(size))


def _echo_metadata(context: CallContext) -> None:
    for key, sent in (
        (ECHO_INITIAL, context.initial_metadata),
        (ECHO_TRAILING, context.trailing_metadata),
    ):
        if key in context.metadata:
            sent.append((key, context.metadata[key]))


def _check_compressed(request: Any, context: CallContext) -> None:
    """The request must have come as it says that it should."""
    if request.HasField("expect_compressed"):
        expected = request.expect_compressed.value
        if expected and context.request_compressed is False:
            raise _error(Code.INVALID_ARGUMENT, "the message was to come compressed")


def _end_with(status: Any) -> None:
    if status.code:
        raise _error(Code(status.code), status.message)


def _error(code: Code, message: str) -> CallError:
    unspecified = common_pb2.ERROR_REASON_UNSPECIFIED
    return CallError(StockrayStatus(code=code, reason=unspecified, message=message))
