"""How a client behaves: every option with its unit, range and reason.

Options are checked once, when they are made; a wrong one raises ValueError that begins with the
name of the field. Nothing is read from the environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypedDict

__all__ = ["ClientOptions", "OptionChanges"]

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """Settings of a client; fixed for its life."""

    timeout_ms: int = 10_000
    """For one verb, all attempts together, 1-600,000. Never endless; each verb can override it."""

    rpc_timeout_ms: int = 10_000
    """For one attempt, 1-10,000: the service counts no longer deadline."""

    connections: int = 1
    """TCP connections, 1-64. One connection reaches one gateway process; calls go round them."""

    in_flight_per_verb: int = 2
    """Calls of one batched verb that fly at once on one connection, 1-64. More means smaller
    batches and more CPU a line."""

    gathered_lines_max: int = 1_024
    """Lines of single calls that one RPC takes along, 1-4,096."""

    gathered_bytes_max: int = 256 * 1024
    """Bytes of the same, 1 kB-4 MiB; a single larger line travels alone."""

    call_lines_max: int = 4_096
    """Lines of a `*_many` in one RPC, 1-4,096: the service's limit."""

    pending_lines_max: int = 65_536
    """Lines of single calls of one verb that may wait at once, 1-10,000,000; one more raises
    Overloaded without being sent."""

    backoff_min_ms: int = 20
    """Pause before the first resend, 1-60,000; doubles with each, and jitter takes up to half."""

    backoff_max_ms: int = 1_000
    """Longest pause that the library chooses, `backoff_min_ms`-60,000; the service may ask for a
    longer one."""

    caller: str = "default"
    """Who asks (metadata `stockray-caller`): request ids are unique within a caller. 1-128
    printable ASCII characters without whitespace."""

    token: str | None = None
    """Bearer token; None sends none. Over an insecure connection it travels in the clear."""

    tls: bool = False
    """True encrypts, with `tls_ca_pem` or the system's roots."""

    tls_ca_pem: bytes | None = None
    """Roots to trust, PEM. Needs `tls`."""

    tls_certificate_pem: bytes | None = None
    """The client's own certificate chain, PEM. Needs `tls` and `tls_key_pem`."""

    tls_key_pem: bytes | None = None
    """The key to it, PEM. Needs `tls` and `tls_certificate_pem`."""

    tls_server_name: str | None = None
    """Name to expect in the server's certificate instead of the target's. Needs `tls`."""

    keepalive_ms: int = 30_000
    """A ping after so much silence, 10,000-3,600,000, so that a dead connection is noticed."""

    keepalive_timeout_ms: int = 15_000
    """How long its answer may take, 1,000-60,000."""

    message_bytes_max: int = 4 * MEBIBYTE
    """Largest message either way, 64 kB-64 MiB: the service takes 4 MiB unless told otherwise."""

    def __post_init__(self) -> None:
        for field in fields(self):
            bounds = RANGES.get(field.name)
            if bounds is not None:
                _check_int(field.name, getattr(self, field.name), *bounds)
        for name, (holds, rule) in RULES.items():
            if not holds(self):
                raise ValueError(f"{name}: {rule}")


class OptionChanges(TypedDict, total=False):
    """The fields of `ClientOptions` as keyword arguments of a client."""

    timeout_ms: int
    rpc_timeout_ms: int
    connections: int
    in_flight_per_verb: int
    gathered_lines_max: int
    gathered_bytes_max: int
    call_lines_max: int
    pending_lines_max: int
    backoff_min_ms: int
    backoff_max_ms: int
    caller: str
    token: str | None
    tls: bool
    tls_ca_pem: bytes | None
    tls_certificate_pem: bytes | None
    tls_key_pem: bytes | None
    tls_server_name: str | None
    keepalive_ms: int
    keepalive_timeout_ms: int
    message_bytes_max: int


RANGES: dict[str, tuple[int, int]] = {
    "timeout_ms": (1, 600_000),
    "rpc_timeout_ms": (1, 10_000),
    "connections": (1, 64),
    "in_flight_per_verb": (1, 64),
    "gathered_lines_max": (1, 4_096),
    "gathered_bytes_max": (1_024, 4 * MEBIBYTE),
    "call_lines_max": (1, 4_096),
    "pending_lines_max": (1, 10_000_000),
    "backoff_min_ms": (1, 60_000),
    "backoff_max_ms": (1, 60_000),
    "keepalive_ms": (10_000, 3_600_000),
    "keepalive_timeout_ms": (1_000, 60_000),
    "message_bytes_max": (64 * 1024, 64 * MEBIBYTE),
}


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}: must be a whole number from {low:,} to {high:,}, not {value!r}")


def _is_header_word(text: str) -> bool:
    return 1 <= len(text) <= 128 and text.isascii() and all("!" <= char <= "~" for char in text)


RULES: dict[str, tuple[Callable[[ClientOptions], bool], str]] = {
    "backoff_max_ms": (
        lambda options: options.backoff_max_ms >= options.backoff_min_ms,
        "must not be less than backoff_min_ms",
    ),
    "gathered_bytes_max": (
        lambda options: options.gathered_bytes_max <= options.message_bytes_max,
        "must not be more than message_bytes_max",
    ),
    "caller": (
        lambda options: _is_header_word(options.caller),
        "must be 1-128 printable ASCII characters without whitespace",
    ),
    "token": (
        lambda options: (
            options.token is None
            or (bool(options.token) and options.token.isascii() and options.token.isprintable())
        ),
        "must be printable ASCII, or None",
    ),
    "tls": (
        lambda options: (
            options.tls
            or (
                (options.tls_ca_pem, options.tls_certificate_pem, options.tls_key_pem)
                == (None,) * 3
                and options.tls_server_name is None
            )
        ),
        "must be true when any other tls option is set",
    ),
    "tls_key_pem": (
        lambda options: (options.tls_key_pem is None) == (options.tls_certificate_pem is None),
        "and tls_certificate_pem go together",
    ),
}
