"""What a listener has done: for operators, and for channelz."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class CallCounters:
    """Calls of one connection, or of all of a listener."""

    started: int = 0
    succeeded: int = 0
    """Ended with status OK."""
    failed: int = 0
    """Ended with another status, reset, cut off, or past their deadline."""
    messages_received: int = 0
    messages_sent: int = 0


@dataclass(slots=True)
class ListenerCounters:
    """A listener's connections; calls of those that are closed are in `calls` as well."""

    opened: int = 0
    closed: int = 0
    turned_away: int = 0
    """Closed as they came: too many connections, or draining."""
    cut_off: int = 0
    """Ended for breaking a rule or a limit."""
    keepalives_sent: int = 0
    calls: CallCounters = field(default_factory=CallCounters)
