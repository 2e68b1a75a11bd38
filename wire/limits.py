"""Limits of connections, in one place. Every queue, size and wait of this room has its name here.

The defaults suit a gateway that thousands of unknown callers reach. The straight road between
gateways and shards takes `ROUNDS`: few peers, large messages, no patience with silence.
"""

from dataclasses import dataclass

WINDOW_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """What one listener, or one outgoing connection, holds and waits for. 0 of a time: never."""

    connections_max: int = 20_000
    """Open connections of a listener; more are closed as they come."""
    streams_max: int = 2_048
    """Calls at once on a connection (SETTINGS_MAX_CONCURRENT_STREAMS)."""
    calls_max: int = 200_000
    """Calls at once over all connections; more are RESOURCE_EXHAUSTED."""
    message_bytes_max: int = 16 * 1024 * 1024
    """One message, either way, unpacked: beyond it RESOURCE_EXHAUSTED."""
    upload_bytes_max: int = 64 * 1024 * 1024
    """Requests that have not come whole, over all connections; beyond it RESOURCE_EXHAUSTED."""
    header_bytes_max: int = 16 * 1024
    """Headers of one call, counted as HTTP/2 does (32 bytes a field more than they have)."""
    header_count_max: int = 128
    stream_window_bytes: int = 256 * 1024
    """What a caller may send of one call before its handler has read it."""
    connection_window_bytes: int = 4 * 1024 * 1024
    """The same for all calls of a connection."""
    stream_backlog_bytes: int = 64 * 1024
    """What a handler may have written to a stream that its caller has not taken; then it waits."""
    outbound_bytes_max: int = 64 * 1024 * 1024
    """Answers that a connection has not taken; beyond it more large ones are RESOURCE_EXHAUSTED."""
    outbound_total_bytes_max: int = 512 * 1024 * 1024
    """The same over all connections; beyond it those that hold most are closed."""
    write_buffer_bytes: int = 256 * 1024
    """Framed bytes handed to the socket at once."""
    handshake_ms: int = 10_000
    """From a connection's begin to its first SETTINGS."""
    upload_stall_ms: int = 10_000
    """A message that has begun must go on within this time."""
    upload_ms: int = 120_000
    """A message that has begun must be whole within this time, however it trickles; so must the
    request of a unary call."""
    write_stall_ms: int = 60_000
    """A connection that takes nothing of what waits for it, for this long, is closed."""
    keepalive_ms: int = 60_000
    """A connection silent for this long is asked with a PING."""
    keepalive_timeout_ms: int = 20_000
    """It must answer within this time."""
    idle_ms: int = 3_600_000
    """A connection without calls for this long is closed in good order."""
    age_ms: int = 0
    """A connection older than this is drained, so that load balancers spread callers anew."""
    age_grace_ms: int = 30_000
    """Calls of a connection that is drained may go on for this long."""
    resets_burst: int = 5_000
    """Calls that a peer may reset at once, refilled at `resets_per_s`; beyond it GOAWAY."""
    resets_per_s: int = 500
    chatter_burst: int = 10_000
    """Frames that carry nothing (PING, SETTINGS, empty DATA, tiny window updates), likewise."""
    chatter_per_s: int = 1_000

    def __post_init__(self) -> None:
        counts = ("connections_max", "streams_max", "calls_max")
        for name in (*counts, "message_bytes_max", "header_bytes_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("stream_window_bytes", "connection_window_bytes"):
            if not 65_535 <= getattr(self, name) <= WINDOW_MAX_BYTES:
                raise ValueError(f"{name} must be from 65535 to {WINDOW_MAX_BYTES}")


ROUNDS = WireLimits(
    connections_max=1_024,
    streams_max=64,
    message_bytes_max=8 * 1024 * 1024,
    stream_window_bytes=8 * 1024 * 1024,
    connection_window_bytes=16 * 1024 * 1024,
    write_buffer_bytes=1024 * 1024,
    idle_ms=0,
    keepalive_ms=2_000,
    keepalive_timeout_ms=2_000,
)
"""Between a gateway and a shard."""


def passed(now: float, since: float, limit_ms: int) -> bool:
    """Whether a limit of time is over; a limit of 0 never is."""
    return limit_ms > 0 and (now - since) * 1000 >= limit_ms
