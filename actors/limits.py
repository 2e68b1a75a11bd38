"""The shell's limits and times: one frozen value, checked when it is made."""

from dataclasses import dataclass
from typing import NamedTuple


class Readers(NamedTuple):
    """Who reads a shard's journal under a name, and holds back its trim."""

    first: tuple[str, ...] = ()
    """What these have not passed is kept: SQL."""
    late: tuple[str, ...] = ()
    """What these have not is kept while it is at most `late_hold_percent`: they go on in SQL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLimits:
    """How much a shard takes at once, and how long it waits. Times are milliseconds."""

    queue_rounds: int = 64
    """Rounds waiting for the writer; more are answered BUSY."""
    batch_lines: int = 4_096
    """Lines decided for one journal entry."""
    append_patience_ms: int = 150
    """An append unanswered for this long: its lines are told UNKNOWN, new ones RETRY."""
    resend_pause_ms: int = 20
    """Between two sends of an append or a check whose outcome is not definite."""
    promote_patience_ms: int = 100
    """A standby takes over only if its ownership read succeeds within this time."""
    promote_lag_entries: int = 5_000
    """... and it lags at most this many entries behind the journal."""
    expiry_grace_ms: int = 60_000
    """After a promotion or a stalled append nothing expires for this long, so that waiting
    confirms come first."""
    expiries_a_round: int = 1_000
    """Reservations expired, or revoked, in one entry: about 4 ms of work."""
    team_records_a_round: int = 100
    """Records that end teams in one entry, those of one team at least: about 3 ms of work."""
    recall_after_ms: int = 86_400_000
    """A finished reservation untouched for this long, and in SQL, leaves memory."""
    follow_pause_ms: int = 10
    """How long a follower waits at the journal's end before it looks again."""
    follow_bytes: int = 1_000_000
    """How much a follower reads at once."""
    snapshot_entries: int = 20_000
    """Entries since the last snapshot that make the standby take the next one."""
    snapshot_records: int = 500_000
    """... or so many records, which a recovery would fold in 1.5 s of CPU."""
    snapshot_every_ms: int = 300_000
    """... or this long, if there is anything new."""
    snapshot_pause_ms: int = 5
    """Between two chunks, so that the standby goes on folding."""
    housekeeping_ms: int = 1_000
    """How often a primary measures and trims its journal."""
    trim_entries: int = 500
    """Entries removed in one slice."""
    journal_bytes_max: int = 4_000_000_000
    """Above 90 % of it new reservations wait (RETRY); above all of it every change does."""
    late_hold_percent: int = 25
    """Of `journal_bytes_max`: so much is held for readers alone that find in SQL what is gone."""
    facts_keep_ms: int = 604_800_000
    """How long SQL keeps what the event feed tells, for watchers that come back late."""
    refusals_max: int = 1_000_000
    """Refusals remembered at once; at the bound new ones are answered RETRY."""

    def __post_init__(self) -> None:
        """Every limit is positive, and none defeats another."""
        for name in self.__slots__:
            if getattr(self, name) < (0 if name.endswith("_ms") else 1):
                raise ValueError(f"{name}: must be positive, not {getattr(self, name)}")
        if self.trim_entries > self.snapshot_entries:
            raise ValueError("trim_entries: must not exceed snapshot_entries")
        if self.late_hold_percent > 50:
            raise ValueError("late_hold_percent: must not exceed 50, or nothing is left to sell in")
