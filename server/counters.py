"""What a gateway counts of its calls and sockets, for channelz: see `channelz.py`.

Calls are counted by the handler table, for whichever front serves it. Sockets are the front's: only
it knows them, and a front that cannot see a connection's counts says 0.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class CallCounters:
    """Calls of one table since its gateway began. Of one event loop."""

    __slots__ = ("failed", "last_started_ms", "started", "succeeded")

    def __init__(self) -> None:
        self.started = 0
        self.succeeded = 0
        self.failed = 0
        """Ended with an error, or were cancelled."""
        self.last_started_ms = 0
        """Of the wall clock; 0 before the first call."""

    def begin(self, now_ms: int) -> None:
        """A call began."""
        self.started += 1
        self.last_started_ms = now_ms


class Address(NamedTuple):
    """One end of a socket: host and port, or the path of a Unix socket."""

    host: str = ""
    """IPv4 or IPv6 in text form; anything else is passed on as it is."""
    port: int = 0
    path: str = ""


class SocketCounters(NamedTuple):
    """One socket, with its counts since it was opened. Instants are of the wall clock, 0 if the
    thing has not happened."""

    socket_id: int
    """Above 0, never given twice by a front, larger for the later socket."""
    name: str
    local: Address
    remote: Address | None = None
    """None of a socket that listens."""
    streams_started: int = 0
    streams_succeeded: int = 0
    """Ended with END_STREAM both ways, whatever the status said."""
    streams_failed: int = 0
    messages_sent: int = 0
    messages_received: int = 0
    keepalives_sent: int = 0
    last_stream_ms: int = 0
    last_message_sent_ms: int = 0
    last_message_received_ms: int = 0
    identity: str = ""
    """Who the peer is by its TLS certificate; '' if it showed none."""


class FrontCounters(Protocol):
    """What a front tells of its sockets. Called in the gateway's loop; must not wait."""

    @property
    def name(self) -> str:
        """For people: what serves, and where."""

    def listening(self) -> Sequence[SocketCounters]:
        """The sockets that it listens on."""

    def sockets(self, first_id: int, count_max: int) -> Sequence[SocketCounters]:
        """Accepted connections that are open, with ids from `first_id` on, ascending, at most
        `count_max` of them."""
