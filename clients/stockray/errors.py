"""What can go wrong with a request, as exceptions.

A business "no" is never one of these: it is the `status` of a result, and only
`raise_for_status()` turns it into `Refused`. Each class says by `retriable` whether the same
request with the same ids may succeed later; the library has then already tried until the
deadline. `reason`, `domain` and `metadata` are those of google.rpc.ErrorInfo and are empty when the
answer carried none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, NamedTuple

import grpc

__all__ = [
    "ClientClosed",
    "DeadlineExceeded",
    "FieldViolation",
    "InvalidRequest",
    "Overloaded",
    "PermissionDenied",
    "Refused",
    "ServerError",
    "StockrayError",
    "Unauthenticated",
    "Unavailable",
]


class FieldViolation(NamedTuple):
    """One rule that one field of a request broke."""

    field: str
    description: str


class StockrayError(Exception):
    """Base of everything that this library raises about a request."""

    retriable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        grpc_code: grpc.StatusCode | None = None,
        retry_after: timedelta | None = None,
        violations: Sequence[FieldViolation] = (),
        maybe_applied: bool = False,
        ids: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.domain = domain
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.grpc_code = grpc_code
        self.retry_after = retry_after
        """How long the service asks to wait; None when it did not say."""
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        self.maybe_applied = maybe_applied
        """True when the request may have taken effect: ask again with the same ids."""
        self.ids: tuple[str, ...] = tuple(ids)
        """The ids of the request, made by the caller or by the library."""

    def copy_for(self, ids: Sequence[str], *, maybe_applied: bool) -> StockrayError:
        """The same error for one of several waiters of a shared call; this one is its cause."""
        copy = type(self)(
            self.message,
            reason=self.reason,
            domain=self.domain,
            metadata=self.metadata,
            grpc_code=self.grpc_code,
            retry_after=self.retry_after,
            violations=self.violations,
            maybe_applied=maybe_applied,
            ids=ids,
        )
        copy.__cause__ = self
        return copy


class InvalidRequest(StockrayError):
    """The request breaks rules; `violations` lists all of them at once."""


class Unauthenticated(StockrayError):
    """There is no token, or one that is not valid."""


class PermissionDenied(StockrayError):
    """The token's role does not allow the call."""


class Overloaded(StockrayError):
    """More calls than the gateway, or lines than this client, takes. Nothing was applied."""

    retriable: ClassVar[bool] = True


class Unavailable(StockrayError):
    """No gateway answered, or the one that did cannot serve now."""

    retriable: ClassVar[bool] = True


class DeadlineExceeded(StockrayError):
    """The time for the request is up; `maybe_applied` and `ids` say what to ask again for."""

    retriable: ClassVar[bool] = True


class ServerError(StockrayError):
    """A fault of the service; asking again with the same ids is safe."""


class ClientClosed(StockrayError):
    """The client was closed, belongs to another event loop, or to the process before a fork."""


class Refused(StockrayError):
    """`raise_for_status()` of a result whose status says no; `reason` is the status' name."""
