"""What a chaos run found, as data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from server.chaos.checks import CHECKS, Checks
from server.chaos.gaps import Gap, Span, gaps_by_kind
from server.chaos.history import READING, RESERVING, History
from server.chaos.tail import Promotion
from server.verify import Report

TOPPLING = ("primary", "account", "raylet", "partition", "memory-limit-primary", "head-kill")
"""Beginnings of the kinds of faults that may leave a shard without a good primary. Whoever is
promoted after another one, or after none, was promoted by a false alarm."""


class Judged(NamedTuple):
    """A promotion and the fault that it is laid to; '' if there is none."""

    promotion: Promotion
    kind: str

    @property
    def false_alarm(self) -> bool:
        """Whether no fault had hit a primary."""
        return not self.kind.startswith(TOPPLING)


@dataclass(slots=True, kw_only=True)
class ChaosResult:
    """One run."""

    seed: int
    began_s: float
    """When the faults began, by the monotonic clock: second 0 of every timeline."""
    ended_s: float
    """When the load stopped."""
    history: History
    planned: int
    """Faults that the seed asks for."""
    spans: Sequence[Span]
    skipped: Sequence[tuple[str, str]]
    """(kind, reason) of what this machine cannot do: not run."""
    failed: Sequence[str]
    """What should have been possible and was not, and what could not be checked."""
    gaps: Sequence[Gap]
    commission_gaps: Sequence[Gap]
    """Of faults that keep accounts from learning of orders: how long that took. No sale waits."""
    calm_gap_ms: float
    """The longest silence when nothing was wrong: the machine's own."""
    doubts: Mapping[str, int]
    """Of what nobody was told: how many took effect, and how many did not."""
    promotions: Sequence[Judged]
    checks: Checks
    report: Report | None
    units_oversold: int
    settle_s: float
    """From the end of the load to standbys and SQL at the journal's end."""
    journal: str = ""
    database: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def lost_acks(self) -> int:
        """Acknowledged and not there."""
        beside = self.report.invariants["I2"].violations if self.report else 0
        return self.checks["lost_acks"].violations + beside

    @property
    def oversold(self) -> int:
        """Units sold beyond what there was, at any instant of the run."""
        pools = self.report.pools if self.report else []
        return self.units_oversold + sum(max(0, p.sold + p.reserved - p.total) for p in pools)

    @property
    def idle_checks(self) -> list[str]:
        """Checks that had nothing to look at: a run that proves nothing of them."""
        return [name for name, found in self.checks.items() if not found.checked]

    @property
    def ok(self) -> bool:
        """Whether everything was checked and held, under at least one fault."""
        return (
            all(not found.violations for found in self.checks.values())
            and not self.idle_checks
            and self.report is not None
            and self.report.ok
            and not self.oversold
            and not self.failed
            and bool(self.spans)
            and all(self.history.sales)
        )

    def as_data(self) -> dict[str, Any]:
        """For `-o json`; the first seven names are fixed by the contract."""
        history = self.history
        return {
            "operations": len(history.operations),
            "faults": len(self.spans),
            "lost_acks": self.lost_acks,
            "phantom_refusals": self.checks["phantom_refusals"].violations,
            "oversold": self.oversold,
            "gap_ms": gaps_by_kind(self.gaps),
            "commission_gap_ms": gaps_by_kind(self.commission_gaps),
            "ok": self.ok,
            "calm_gap_ms": round(self.calm_gap_ms, 1),
            "doubts": dict(self.doubts),
            "seed": self.seed,
            "seconds": round(self.ended_s - self.began_s, 1),
            "journal": self.journal,
            "database": self.database,
            "outcomes": dict(history.outcomes),
            "verbs": dict(Counter(operation.verb for operation in history.operations)),
            "statuses": statuses_of(history),
            "sales": sum(len(times) for times in history.sales),
            "faults_planned": self.planned,
            "spans": [self._span(gap) for gap in self.gaps],
            "skipped": [{"kind": kind, "reason": reason} for kind, reason in self.skipped],
            "failed": list(self.failed),
            "promotions": [
                {
                    "shard": one.promotion.shard,
                    "epoch": one.promotion.epoch,
                    "at_s": round(one.promotion.seen_s - self.began_s, 2),
                    "after": one.kind,
                    "false_alarm": one.false_alarm,
                }
                for one in self.promotions
            ],
            "false_alarms": sum(one.false_alarm for one in self.promotions),
            "settle_s": round(self.settle_s, 1),
            "checks": {
                name: {
                    "what": CHECKS[name],
                    "checked": found.checked,
                    "violations": found.violations,
                    "examples": found.examples,
                }
                for name, found in self.checks.items()
            },
            "verify": None if self.report is None else self.report.as_data(),
            "notes": self.notes,
        }

    def _span(self, gap: Gap) -> dict[str, Any]:
        span = gap.span
        return {
            "kind": span.kind,
            "target": span.target,
            "shard": span.shard,
            "begun_s": round(span.begun_s - self.began_s, 3),
            "ended_s": round(span.ended_s - self.began_s, 3),
            "gap_ms": round(gap.gap_ms, 1),
            "gap_shard": gap.shard,
        }


def statuses_of(history: History) -> dict[str, int]:
    """How often each kind of call was told what."""
    found: Counter[str] = Counter()
    for operation in history.operations:
        word = operation.verb
        if word in RESERVING or word in READING:
            word = "reserve" if word in RESERVING else "read"
        found[f"{word} {operation.status}"] += 1
    return dict(sorted(found.items()))
