"""Turns a failed RPC into one of the errors of `stockray.errors`.

The details come from `grpc-status-details-bin`: a google.rpc.Status with ErrorInfo, BadRequest and
RetryInfo. An error without our ErrorInfo was made by a transport or a proxy on the way, never by
the service; then nobody knows whether the request was applied.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from stockray.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    ServerError,
    StockrayError,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "stockray"
DETAILS_KEY = "grpc-status-details-bin"
INVALID_REASONS = frozenset({"MESSAGE_TOO_LARGE"})
CODES: dict[grpc.StatusCode, type[StockrayError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
DOUBTFUL = frozenset({DeadlineExceeded, ServerError})
TRANSPORT_CODES = frozenset(
    {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
)


class Failure(NamedTuple):
    """A failed attempt."""

    error: StockrayError
    resend: bool
    """True when the same bytes may be sent again."""
    lost: bool
    """True when the attempt may have been applied."""


def read_failure(failed: grpc.aio.AioRpcError) -> Failure:
    """Says what an RPC's failure means."""
    code = failed.code()
    info, fields = _details(failed)
    ours = info.domain == DOMAIN
    cls = CODES.get(code, ServerError)
    if not ours and code in TRANSPORT_CODES:
        cls = Unavailable
    if info.reason in INVALID_REASONS:
        cls = InvalidRequest
    lost = cls in DOUBTFUL or (cls.retriable and not ours)
    error = cls(
        failed.details() or code.name,
        reason=info.reason,
        domain=info.domain,
        metadata=dict(info.metadata),
        grpc_code=code,
        retry_after=fields.retry_after,
        violations=fields.violations,
        maybe_applied=lost,
    )
    error.__cause__ = failed
    resend = cls.retriable and not (cls is Overloaded and fields.retry_after is None)
    return Failure(error, resend, lost)


class _Details(NamedTuple):
    retry_after: timedelta | None = None
    violations: tuple[FieldViolation, ...] = ()


def _details(failed: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, _Details]:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad = error_details_pb2.BadRequest()
    retry_after: timedelta | None = None
    for detail in _status(failed).details:
        if detail.Unpack(info) or detail.Unpack(bad):
            continue
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    return info, _Details(retry_after, violations)


def _status(failed: grpc.aio.AioRpcError) -> status_pb2.Status:
    trailers: Any = failed.trailing_metadata() or ()
    for key, value in trailers:
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(bytes(value))
            except DecodeError:  # A proxy's invention: the code alone has to do.
                break
    return status_pb2.Status()
