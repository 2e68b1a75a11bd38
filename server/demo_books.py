"""What a demo found: the sale, its group-buy, its commission, and whether all of it adds up."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from stockray import Status, TeamState

from actors.core.records import Balance
from server.commission_books import CommissionBooks
from server.group_books import GroupBooks
from server.sale import Line, Plan, Tally
from server.verify import Report


@dataclass(slots=True, kw_only=True)
class Books:
    """What a demo found."""

    plan: Plan
    lines: list[Line]
    tally: Tally
    killed: list[str]
    """Whose processes ended by kill -9 in the sale."""
    gaps_ms: list[float]
    live: Report
    stopped: Report
    journal: str
    database: str
    drained: bool
    seconds: float
    teams: GroupBooks | None = None
    """Of the group-buy, if there was one."""
    commission: CommissionBooks | None = None
    """Of the distributors, if there were any."""

    @property
    def kills(self) -> int:
        """Processes killed in the sale."""
        return len(self.killed)

    @property
    def all_lines(self) -> list[Line]:
        """What was on sale, with and without teams."""
        return [*self.lines, *(self.teams.lines if self.teams else ())]

    @property
    def receipts(self) -> Counter[tuple[str, str]]:
        """Units that buyers own by what they were told, by campaign and SKU."""
        return self.tally.confirmed + (self.teams.sold if self.teams else Counter())

    @property
    def oversold(self) -> int:
        """Units sold beyond what there was: by the buyers' own receipts, and by the pools."""
        receipts = self.receipts
        by_receipts = sum(
            max(0, receipts[line.campaign_id, line.sku_id] - line.units) for line in self.all_lines
        )
        by_pools = sum(max(0, p.sold + p.reserved - p.total) for p in self.stopped.pools)
        return by_receipts + by_pools

    @property
    def receipts_differ(self) -> list[str]:
        """Pools whose sold units are not what buyers were told."""
        sold = {(p.campaign_id, p.sku_id): p.sold for p in self.stopped.pools}
        receipts = self.receipts
        return [
            f"{line.campaign_id}/{line.sku_id}: buyers hold {told}, the pool sold {found}"
            for line in self.all_lines
            if (told := receipts[line.campaign_id, line.sku_id])
            != (found := sold.get((line.campaign_id, line.sku_id), 0))
        ]

    @property
    def balanced(self) -> bool:
        """Whether everything adds up."""
        return (
            self.live.ok
            and self.stopped.ok
            and self.oversold == 0
            and not self.receipts_differ
            and not self.tally.changed_answers
            and not self.tally.unexpected
            and self.drained
            and self.kills > 0
            and (self.teams is None or self.teams.balanced)
            and (self.commission is None or self.commission.balanced)
        )

    def as_data(self) -> dict[str, Any]:
        """For `-o json`; the names are fixed by the contract."""
        tally = self.tally
        refused = sum(
            count
            for status, count in tally.statuses.items()
            if status in Status.__members__ and status not in ("RESERVED", "RETRY", "UNKNOWN")
        )
        lost = self.live.invariants["I2"].violations + self.stopped.invariants["I2"].violations
        twice = self.live.invariants["I4"].violations + self.stopped.invariants["I4"].violations
        data = {
            "requests": tally.requests,
            "reserved": tally.statuses["RESERVED"],
            "sold": sum(tally.confirmed.values()),
            "refused": refused,
            "retried": tally.retried,
            "released": tally.released,
            "left_to_expire": tally.left_to_expire,
            "undecided": tally.statuses["RETRY"] + tally.statuses["UNKNOWN"],
            "statuses": dict(tally.statuses),
            "oversold": self.oversold,
            "acked_lost": lost,
            "applied_twice": twice + len(tally.changed_answers),
            "balanced": self.balanced,
            "kills": self.kills,
            "failover_gap_ms": round(max(self.gaps_ms, default=0.0), 1),
            "rate_per_s": round(tally.rate_per_s, 1),
            "p50_ms": tally.latency_ms(50),
            "p99_ms": tally.latency_ms(99),
            "p99_9_ms": tally.latency_ms(99.9),
            "drained": self.drained,
            "journal": self.journal,
            "database": self.database,
            "seconds": round(self.seconds, 1),
            "receipts_differ": self.receipts_differ,
            "changed_answers": tally.changed_answers[:10],
            "unexpected": dict(tally.unexpected),
            "live": self.live.as_data(),
            "stopped": self.stopped.as_data(),
        }
        if self.teams is not None:
            data |= {
                "teams_formed": self.teams.count(TeamState.FORMED),
                "teams_failed": self.teams.count(TeamState.FAILED),
                "stranded_minor": self.teams.stranded_minor,
                "group_buy": self.teams.as_data(),
            }
        if self.commission is not None:
            data |= {
                "ledger_sum_minor": self.commission.ledger_sum_minor,
                "statements_reconcile": self.commission.reconcile,
                "killed": self.killed,
                "commission": self.commission.as_data(),
            }
        return data


def balances_of(report: Report) -> list[Balance]:
    """The pools of a report, campaigns first."""
    return sorted(report.pools, key=lambda p: (not p.campaign_id, p.campaign_id, p.sku_id))
