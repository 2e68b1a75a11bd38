"""What a soak was asked for, what it saw, and what that amounts to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.soak.judge import Sample, Verdict
from server.verify import ReplicaClaim, Report

SECONDS_MIN = 20.0
RATE_MAX = 20_000


class SoakError(Exception):
    """The run makes no sense, or could not be made; the message names what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakOptions:
    """How long, and how much."""

    directory: Path
    minutes: float = 10.0
    rate: float = 2_000.0
    """Calls a second."""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.seconds < SECONDS_MIN:
            raise SoakError(f"minutes: at least {SECONDS_MIN / 60:.2f}")
        if not 1 <= self.rate <= RATE_MAX:
            raise SoakError(f"rate: from 1 to {RATE_MAX:,} calls a second")

    @property
    def seconds(self) -> float:
        """Length of the sale."""
        return self.minutes * 60


@dataclass(slots=True, kw_only=True)
class SoakResult:
    """What was seen, and what it amounts to."""

    options: SoakOptions
    samples: list[Sample] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    claims: list[ReplicaClaim] = field(default_factory=list)
    report: Report | None = None
    drained: bool = False
    left: list[int] = field(default_factory=list)
    """Processes that outlived the service."""

    @property
    def culprits(self) -> list[str]:
        """Measures whose bound is broken."""
        return [verdict.measure for verdict in self.verdicts if not verdict.holds]

    @property
    def done(self) -> dict[str, int]:
        """What the sale did, by kind."""
        return dict(self.samples[-1].done) if self.samples else {}

    @property
    def rate_per_s(self) -> float:
        """Calls a second that were made."""
        return self.done.get("calls", 0) / self.samples[-1].time_s if self.samples else 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing grew beyond its bound, the books balance and nothing was left behind."""
        verified = self.report is not None and self.report.ok
        judged = any(verdict.judged for verdict in self.verdicts)
        sold = self.done.get("sales", 0) > 0
        told = not self.wrong and not self.left
        return not self.culprits and judged and sold and verified and self.drained and told

    def as_data(self) -> dict[str, Any]:
        """For `-o json`."""
        return {
            "ok": self.ok,
            "culprits": self.culprits,
            "seconds": round(self.samples[-1].time_s, 1) if self.samples else 0.0,
            "rate_per_s": round(self.rate_per_s, 1),
            "done": self.done,
            "statuses": self.statuses,
            "wrong_answers": self.wrong,
            "measures": {
                verdict.measure: {
                    "judged": verdict.judged,
                    "holds": verdict.holds,
                    "begin": round(verdict.begin, 1),
                    "end": round(verdict.end, 1),
                    "growth": round(verdict.growth, 1),
                    "allowed": round(verdict.allowed, 1),
                    "highest": round(verdict.highest, 1),
                }
                for verdict in self.verdicts
            },
            "drained": self.drained,
            "processes_left": self.left,
            "verify": self.report.as_data() if self.report else None,
        }
