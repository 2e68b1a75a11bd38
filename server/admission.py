"""What this gateway takes: whether it serves at all, and how much may be in flight in it.

Rules
-----
* Refusing costs no work: bytes are counted before a message is parsed, lines before a service
  sees them. Nothing of a refused call was applied.
* Counts are of calls in flight, so they are exact and need no clock.
* A gateway starts not ready, opens once it can route, and drains once, for ever.
"""

from dataclasses import dataclass
from enum import Enum

from server.errors import draining, message_too_large, not_ready, overloaded, too_many_streams

LINES_A_CALL_MAX = 4_096
MESSAGE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How much one gateway holds at once."""

    lines_max: int = 65_536
    """Lines in flight; at least one full call. 65,536 is 16 full calls, about 50 MB of objects."""
    bytes_max: int = 64 * 1024 * 1024
    """Bytes of requests in flight; at least one full message."""
    streams_max: int = 1_024
    """Open server streams."""

    def __post_init__(self) -> None:
        if self.lines_max < LINES_A_CALL_MAX:
            raise ValueError(f"lines_max must be at least {LINES_A_CALL_MAX}")
        if self.bytes_max < MESSAGE_BYTES_MAX:
            raise ValueError(f"bytes_max must be at least {MESSAGE_BYTES_MAX}")
        if self.streams_max < 1:
            raise ValueError("streams_max must be at least 1")


class GatewayPhase(Enum):
    """Whether the gateway takes calls."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class Admission:
    """Counts what is in flight, and refuses what is too much. Of one event loop."""

    def __init__(self, limits: AdmissionLimits | None = None) -> None:
        self.limits = limits or AdmissionLimits()
        self.phase = GatewayPhase.STARTING
        self.calls = 0
        self.lines = 0
        self.bytes = 0
        self.streams = 0

    def open(self) -> None:
        """The gateway can route: take calls from now on. Changes nothing while draining."""
        if self.phase is GatewayPhase.STARTING:
            self.phase = GatewayPhase.SERVING

    def drain(self) -> None:
        """Take no call from now on; those in flight finish."""
        self.phase = GatewayPhase.DRAINING

    def take_message(self, size_bytes: int) -> None:
        """Hold the bytes of one call until `give_message`. Raises CallError when it may not be."""
        if self.phase is not GatewayPhase.SERVING:
            raise draining() if self.phase is GatewayPhase.DRAINING else not_ready()
        self.take_bytes(size_bytes)
        self.calls += 1

    def give_message(self, size_bytes: int) -> None:
        """The call is over."""
        self.calls -= 1
        self.bytes -= size_bytes

    def take_bytes(self, size_bytes: int) -> None:
        """Hold one message of a stream that is open until `give_bytes`, in every phase. Raises
        CallError when it may not be."""
        if size_bytes > MESSAGE_BYTES_MAX:
            raise message_too_large(MESSAGE_BYTES_MAX)
        if self.bytes + size_bytes > self.limits.bytes_max:
            raise overloaded("bytes")
        self.bytes += size_bytes

    def give_bytes(self, size_bytes: int) -> None:
        """The message is done with."""
        self.bytes -= size_bytes

    def take_lines(self, lines: int) -> None:
        """Hold the lines of one call until `give_lines`. Raises CallError if they are too many."""
        if self.lines + lines > self.limits.lines_max:
            raise overloaded("lines")
        self.lines += lines

    def give_lines(self, lines: int) -> None:
        """They are decided."""
        self.lines -= lines

    def take_stream(self) -> None:
        """Hold one open stream until `give_stream`. Raises CallError when there are too many."""
        if self.streams >= self.limits.streams_max:
            raise too_many_streams()
        self.streams += 1

    def give_stream(self) -> None:
        """The stream has ended."""
        self.streams -= 1
