"""RPC errors: what an error says, and the google.rpc.Status that carries it on the wire.

Rules
-----
* Every RPC error has a gRPC code, an `ErrorReason`, and a text for people without internals in it.
* A service raises `CallError`; only a front turns it into trailers. Nothing here knows of a front.
* Advice to wait travels twice: as RetryInfo, and as `grpc-retry-pushback-ms` for stock gRPC
  clients, which retry by themselves. The latter must be in the same trailers as the status.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, NoReturn

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from stockray_proto.v1 import common_pb2

DOMAIN = "stockray"
OVERLOAD_RETRY_MS = 200
"""Advice with OVERLOADED and TOO_MANY_STREAMS."""
AWAY_RETRY_MS = 1_000
"""Advice with DRAINING, NOT_READY and VIEW_UNAVAILABLE: another gateway, or a little patience."""
_REASON_PREFIX = "ERROR_REASON_"


class Code(IntEnum):
    """The gRPC status codes, all of them, numbered as gRPC numbers them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Violation(NamedTuple):
    """One field that breaks its rule: its path in the request, and what is allowed."""

    field: str
    allowed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StockrayStatus:
    """All that an RPC error says."""

    code: Code
    reason: common_pb2.ErrorReason.ValueType
    message: str
    violations: Sequence[Violation] = ()
    retry_after_ms: int = 0
    """Advice: how long to wait before asking again; 0 for none."""
    metadata: tuple[tuple[str, str], ...] = ()
    """What a program may want to know of the reason, for ErrorInfo."""

    @property
    def reason_name(self) -> str:
        """As ErrorInfo carries it, for example "TOO_MANY_LINES"."""
        return common_pb2.ErrorReason.Name(self.reason).removeprefix(_REASON_PREFIX)

    def rpc_status(self) -> status_pb2.Status:
        """For the trailer `grpc-status-details-bin`."""
        details: list[Message] = [
            error_details_pb2.ErrorInfo(
                reason=self.reason_name, domain=DOMAIN, metadata=dict(self.metadata)
            )
        ]
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for field, allowed in self.violations:
                bad.field_violations.add(field=field, description=allowed)
            details.append(bad)
        if self.retry_after_ms:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(self.retry_after_ms)
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code, message=self.message)
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """The trailing metadata of the failed call, besides code and message."""
        trailers: list[tuple[str, str | bytes]] = [
            ("grpc-status-details-bin", self.rpc_status().SerializeToString())
        ]
        if self.retry_after_ms:
            trailers.append(("grpc-retry-pushback-ms", str(self.retry_after_ms)))
        return tuple(trailers)


class CallError(Exception):
    """Ends a call with an RPC error. Raised by services, mapped by the fronts."""

    def __init__(self, status: StockrayStatus) -> None:
        super().__init__(f"{status.reason_name}: {status.message}")
        self.status = status


def refuse_fields(violations: Sequence[Violation]) -> NoReturn:
    """INVALID_FIELD with all violations at once."""
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    raise CallError(
        StockrayStatus(
            code=Code.INVALID_ARGUMENT,
            reason=common_pb2.ERROR_REASON_INVALID_FIELD,
            message=f"{first.field}: {first.allowed}{more}",
            violations=violations,
        )
    )


def too_many_lines(field: str, lines_max: int) -> CallError:
    """No line, or more than a call may carry."""
    allowed = f"a call carries 1 to {lines_max} lines"
    return CallError(
        StockrayStatus(
            code=Code.INVALID_ARGUMENT,
            reason=common_pb2.ERROR_REASON_TOO_MANY_LINES,
            message=f"{field}: {allowed}",
            violations=(Violation(field, allowed),),
        )
    )


def message_too_large(bytes_max: int) -> CallError:
    """More bytes than a message may have; resending it as it is cannot help."""
    allowed = f"a message has at most {bytes_max} bytes"
    return CallError(
        StockrayStatus(
            code=Code.INVALID_ARGUMENT,
            reason=common_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
            message=allowed,
            violations=(Violation("(message)", allowed),),
        )
    )


def malformed_message(type_name: str) -> CallError:
    """The bytes are not the message that the call takes."""
    return CallError(
        StockrayStatus(
            code=Code.INVALID_ARGUMENT,
            reason=common_pb2.ERROR_REASON_MALFORMED_MESSAGE,
            message=f"the bytes are no {type_name}",
        )
    )


def bad_page_token() -> CallError:
    """The page token is not ours, or was made for other filters."""
    allowed = "the last answer's next_page_token, with all filters unchanged; or empty"
    return CallError(
        StockrayStatus(
            code=Code.INVALID_ARGUMENT,
            reason=common_pb2.ERROR_REASON_PAGE_TOKEN_INVALID,
            message="the page token does not continue this listing",
            violations=(Violation("page_token", allowed),),
        )
    )


def overloaded(what: str) -> CallError:
    """More in flight than the gateway takes; nothing of the call was applied."""
    return CallError(
        StockrayStatus(
            code=Code.RESOURCE_EXHAUSTED,
            reason=common_pb2.ERROR_REASON_OVERLOADED,
            message=f"the gateway has too many {what} in flight; nothing of this call was applied",
            retry_after_ms=OVERLOAD_RETRY_MS,
        )
    )


def too_many_streams() -> CallError:
    """More open streams, or watched pools, than the gateway serves."""
    return CallError(
        StockrayStatus(
            code=Code.RESOURCE_EXHAUSTED,
            reason=common_pb2.ERROR_REASON_TOO_MANY_STREAMS,
            message="the gateway has too many open streams",
            retry_after_ms=AWAY_RETRY_MS,
        )
    )


def draining() -> CallError:
    """This gateway is shutting down and took nothing."""
    return CallError(
        StockrayStatus(
            code=Code.UNAVAILABLE,
            reason=common_pb2.ERROR_REASON_DRAINING,
            message="this gateway is shutting down; another one serves",
            retry_after_ms=AWAY_RETRY_MS,
        )
    )


def not_ready() -> CallError:
    """This gateway has not learned the shard map yet."""
    return CallError(
        StockrayStatus(
            code=Code.UNAVAILABLE,
            reason=common_pb2.ERROR_REASON_NOT_READY,
            message="this gateway is starting",
            retry_after_ms=AWAY_RETRY_MS,
        )
    )


def view_unavailable() -> CallError:
    """The SQL view does not answer, or this gateway has none."""
    return CallError(
        StockrayStatus(
            code=Code.UNAVAILABLE,
            reason=common_pb2.ERROR_REASON_VIEW_UNAVAILABLE,
            message="the SQL view does not answer; the sale is not touched by it",
            retry_after_ms=AWAY_RETRY_MS,
        )
    )


def cursor_too_old(shard: int, oldest_seq: int, incarnation: str) -> CallError:
    """Facts after a cursor of the event feed are gone. `oldest_seq` 0: it is not known now."""
    return _bad_cursor(
        common_pb2.ERROR_REASON_CURSOR_TOO_OLD,
        f"facts of shard {shard} after this cursor are gone; the oldest that is kept is of entry "
        f"{oldest_seq or '(not known now)'}",
        (shard, oldest_seq, incarnation),
    )


def cursor_unknown(shard: int, oldest_seq: int, incarnation: str) -> CallError:
    """A cursor of another journal, or beyond the end of this one."""
    return _bad_cursor(
        common_pb2.ERROR_REASON_CURSOR_UNKNOWN,
        f"the cursor of shard {shard} is of another journal (before a recovery, say) or beyond the "
        f"end of this one, whose oldest entry that can be watched is {oldest_seq}",
        (shard, oldest_seq, incarnation),
    )


def _bad_cursor(
    reason: common_pb2.ErrorReason.ValueType, message: str, oldest: tuple[int, int, str]
) -> CallError:
    names = ("shard", "oldest_seq", "incarnation")
    return CallError(
        StockrayStatus(
            code=Code.OUT_OF_RANGE,
            reason=reason,
            message=message,
            metadata=tuple((name, str(value)) for name, value in zip(names, oldest, strict=True)),
        )
    )


def unimplemented(path: str) -> CallError:
    """No such call in this release."""
    return CallError(
        StockrayStatus(
            code=Code.UNIMPLEMENTED,
            reason=common_pb2.ERROR_REASON_UNIMPLEMENTED,
            message=f"no call {path[:200]} in this release",
        )
    )


def not_found(what: str) -> CallError:
    """A diagnostic service was asked for a thing that is not, or not any more."""
    return CallError(
        StockrayStatus(
            code=Code.NOT_FOUND,
            reason=common_pb2.ERROR_REASON_UNIMPLEMENTED,
            message=f"no {what}",
        )
    )


def deadline_exceeded() -> CallError:
    """The call's deadline passed; what it asked for may have been applied."""
    return CallError(
        StockrayStatus(
            code=Code.DEADLINE_EXCEEDED,
            reason=common_pb2.ERROR_REASON_DEADLINE_EXCEEDED,
            message="the call's deadline passed; what it asked for may have been applied",
        )
    )


def internal() -> CallError:
    """A fault of the service. Its text stays in the log."""
    return CallError(
        StockrayStatus(
            code=Code.INTERNAL,
            reason=common_pb2.ERROR_REASON_INTERNAL,
            message="a fault of the service; asking again with the same ids is safe",
        )
    )
