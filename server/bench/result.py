"""What a benchmark is asked for, and what it found."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from actors.core.identity import request_key, slot_of
from server.load_calls import request_ids
from server.sale import CALLER
from server.verify import Ack

SKU, CAMPAIGN = "bench-sku", "bench"
PEERS = ("redis-lua", "mysql")
CROWD = 1_024
"""Calls in flight of the rows that show what batches of themselves make of a crowd."""

Say = Callable[[str], None]


class CannotMeasure(Exception):
    """The machine lacks what a row needs. Says what, and what mends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What is measured, and for how long."""

    seconds: float = 5.0
    callers: int = 64
    crowd: int = CROWD
    rows: tuple[str, ...] = ()
    """Beginnings of the names of the rows to measure; empty for all."""
    repeats: int = 1
    """How often each rate is measured, in turn with the others; the median counts."""
    generators: int = 1
    """Processes that make the load."""
    many_lines: int = 1_000
    accrual_orders: int = 100_000
    """Orders of the sale that the ledger has to follow."""
    kills: int = 0
    cold_starts: int = 0
    shards: int = 1
    open_reservations: int = 0
    idle_connections: int = 0
    private_services: bool = False
    front: str = ""
    """As `stockray serve --front`; empty for its default."""
    gateways: int = 1
    tls: bool = False
    against: tuple[str, ...] = ()
    """Peers to measure in the same run beside the echo: "redis-lua", "mysql"."""


@dataclass(slots=True, kw_only=True)
class Measured:
    """One row of the result."""

    name: str
    rate_per_s: float
    """Sales (echoes, lines) a second; what was refused or failed does not count."""
    p50_ms: float | None
    """None where the tool that measured gives no percentiles."""
    p99_ms: float | None
    p99_9_ms: float | None
    cpu_us_per_line: dict[str, float] = field(default_factory=dict)
    cores: dict[str, float] = field(default_factory=dict)
    """CPU seconds a second, by role."""
    wanted: dict[str, float] = field(default_factory=dict)
    """By role, the part of the time in which its busiest thread ran or waited for a core, or its
    threads together ran. Above 1 where threads run beside each other."""
    limit: str = ""
    """The role that had no time left; empty if none: then waiting is the limit (the disk, the
    other side, too few calls in flight)."""
    refused: dict[str, int] = field(default_factory=dict)
    """Answers that were no sale, by status."""
    errors: dict[str, int] = field(default_factory=dict)
    """Calls that failed, by gRPC code, and what else was wrong, by name."""
    accrual: dict[str, float] = field(default_factory=dict)
    """Of the row of that name: how the ledger followed its sale."""


@dataclass(slots=True, kw_only=True)
class BenchResult:
    """Everything that a run measured."""

    results: list[Measured] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    failover_gap_ms: dict[str, float] = field(default_factory=dict)
    """Its parts as in `docs/measuring.md`."""
    cold_start_s: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    honest_refused_percent: dict[str, float] = field(default_factory=dict)
    """Of so many honest buyers behind one address, by risk profile, who gave up."""
    acks_checked: int = 0
    """Sales of the generators that were looked for in the journal, one by one."""
    invariants: dict[str, Any] = field(default_factory=dict)
    setting: dict[str, Any] = field(default_factory=dict)
    """What it was measured on."""
    ok: bool = False

    def as_data(self) -> dict[str, Any]:
        """For `-o json`."""
        return asdict(self)

    def rate(self, *names: str) -> float:
        """The best rate of these rows; 0.0 if none was measured."""
        return max((row.rate_per_s for row in self.results if row.name in names), default=0.0)


class AckedSales:
    """The sales that generators were told of, made one at a time: there may be millions."""

    def __init__(self) -> None:
        self._runs: list[tuple[str, list[tuple[int, int]], int]] = []

    def add(self, prefix: str, runs: list[tuple[int, int]], campaign_id: str = CAMPAIGN) -> None:
        """The reserved numbers of one generator."""
        self._runs.append((prefix, runs, slot_of(campaign_id)))

    def __len__(self) -> int:
        return sum(end - first for _, runs, _ in self._runs for first, end in runs)

    def __iter__(self) -> Iterator[Ack]:
        for prefix, runs, slot in self._runs:
            for request_id in request_ids(prefix, runs):
                yield Ack(slot, request_key(CALLER, request_id), True, request_id)
