"""How reports look to a person."""

import sys
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from stockray import TeamState

from server.bench.result import BenchResult, Measured
from server.commission_books import ACCOUNTS, Brought, CommissionBooks
from server.demo_books import Books, balances_of
from server.doctor import Finding, Verdict
from server.group_books import GroupBooks
from server.verify import INVARIANTS, Report

LINE_EVERY = 20_000
POOLS_SHOWN = 40
BEST_SHOWN = 3
"""Distributors shown of each campaign."""


class SaleProgress:
    """Messages and, on a terminal, a bar; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._terminal = sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[reserved]:,} reserved"),
            TimeElapsedColumn(),
            console=console,
            disable=not self._terminal,
        )
        self._task = self._progress.add_task("buyers served", total=None, reserved=0)
        self._last = 0

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        """One step."""
        self._progress.console.print(f"[bold]·[/] {text}", highlight=False)

    def sold(self, done: int, reserved: int, total: int) -> None:
        """How far the rush is."""
        self._progress.update(self._task, completed=done, total=total, reserved=reserved)
        if not self._terminal and done - self._last >= LINE_EVERY:
            self._last = done
            self.say(f"{done:,} of {total:,} buyers served, {reserved:,} reserved")


def show_books(books: Books, console: Console) -> None:
    """The demo's result."""
    data = books.as_data()
    tally = books.tally
    table = Table(title=f"The sale (journal: {books.journal}, database: {books.database})")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in (
        ("requests answered", f"{tally.requests:,}"),
        ("  of them deliberate retries of an id", f"{tally.retried:,}"),
        ("reserved", f"{data['reserved']:,}"),
        ("sold (units paid and confirmed)", f"{data['sold']:,}"),
        ("released by their buyers", f"{tally.released:,}"),
        ("left to expire", f"{tally.left_to_expire:,}"),
        ("refused: sold out", f"{tally.statuses['SOLD_OUT']:,}"),
        ("refused: over the buyer's limit", f"{tally.statuses['LIMIT_EXCEEDED']:,}"),
        ("undecided in time (RETRY, UNKNOWN)", f"{data['undecided']:,}"),
        ("rate", f"{tally.rate_per_s:,.0f} requests/s"),
        ("latency p50 / p99 / p99.9", _latencies(books)),
        *((f"kill -9 of {whose}", "1") for whose in books.killed),
        ("longest silence of the hot campaign", f"{data['failover_gap_ms']:,.0f} ms"),
    ):
        table.add_row(name, value)
    console.print(table)
    if books.teams is not None:
        console.print(_teams_table(books.teams))
    if books.commission is not None:
        show_commission(books.commission, console)
    show_report(books.stopped, console, title="The books, as left on disk")
    zeros = [
        ("oversold", data["oversold"]),
        ("acknowledged and lost", data["acked_lost"]),
        ("applied twice", data["applied_twice"]),
    ]
    if books.teams is not None:
        zeros.append(("stranded (minor units)", books.teams.stranded_minor))
    if books.commission is not None:
        zeros.append(("ledger's sum (minor units)", books.commission.ledger_sum_minor))
        zeros.append(("commission that differs", len(books.commission.problems)))
    for name, value in zeros:
        console.print(f"  {name:26} [{'green' if value == 0 else 'bold red'}]{value}[/]")
    teams_wrong = (*books.teams.problems[:10], *books.teams.tally.wrong[:10]) if books.teams else ()
    for problem in (
        *(*books.receipts_differ, *tally.changed_answers[:10], *tally.unexpected),
        *teams_wrong,
        *(books.commission.problems[:10] if books.commission else ()),
    ):
        console.print(f"  [bold red]{problem}[/]", highlight=False)
    if not books.drained:
        console.print("  [bold red]the service did not drain in order[/]")
    if not books.live.ok:
        show_report(books.live, console, title="While it was live")
    verdict = "[bold green]The books balance.[/]" if books.balanced else "[bold red]They do not.[/]"
    console.print(f"{verdict} ({books.seconds:.0f} s)")


def _teams_table(books: GroupBooks) -> Table:
    """The group-buy: its teams, and where the money went."""
    table = Table(title="The group-buy")
    table.add_column("")
    table.add_column("", justify="right")
    tally = books.tally
    late = Counter[str]()
    for told, number in tally.late.items():
        late[told.rpartition(" ")[2]] += number
    rows: list[tuple[str, int]] = [
        ("teams opened", len(books.teams)),
        ("  formed", books.count(TeamState.FORMED)),
        *(
            (f"    {sku_id}, price of {people}", number)
            for (sku_id, people), number in sorted(books.tiers_reached().items())
        ),
        ("  failed, their members paid back", books.count(TeamState.FAILED)),
        ("  cancelled, nobody was left", books.count(TeamState.CANCELLED)),
        ("seats taken", books.seats),
        ("refused: the team was full", tally.statuses["TEAM_FULL"]),
        ("refused: seats for new buyers only", tally.statuses["NEW_BUYERS_ONLY"]),
        ("refused: sold out", tally.statuses["SOLD_OUT"]),
        ("late payers seated", late["CONFIRMED"]),
        ("late payers paid back", late["REFUND_DUE"]),
        ("paid (minor units)", books.paid_minor),
        ("  kept by formed teams", books.kept_minor),
        ("  refund due", books.owed_minor),
        ("kill -9 of its shard's primary", books.kills),
    ]
    for name, value in rows:
        table.add_row(name, f"{value:,}")
    table.add_row("longest silence after it", f"{books.gap_ms:,.0f} ms")
    return table


def show_commission(books: CommissionBooks, console: Console) -> None:
    """From share codes to money, and the month of those who have most and least."""
    console.print(_funnel_table(books))
    ledger = Table(title="The ledger (minor units)")
    for name in ACCOUNTS:
        ledger.add_column(name.removesuffix("_minor").replace("_", " "), justify="right")
    ledger.add_row(*(f"{amount:,}" for amount in books.sums))
    console.print(ledger)
    sale = books.catch_up
    console.print(
        f"  at the end of the sale the ledger was {sale.behind_entries:,} entries of journals and"
        f" {sale.lag_ms:,.0f} ms behind; {sale.took_s:.1f} s later it had all"
        f" {sale.confirmed:,} confirmed orders",
        highlight=False,
    )
    console.print(_months_table(books))


def _funnel_table(books: CommissionBooks) -> Table:
    """Each campaign whole, and below it the distributors who earn most of it."""
    table = Table(title="The funnel of share codes (money in minor units)")
    for name in ("campaign", "distributor"):
        table.add_column(name, no_wrap=True)
    for name in ("reserved", "paid", "amount", "commission"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = books.funnel_rows()
    for campaign_id, total in books.funnel_totals().items():
        of_campaign = [row for row in rows if row.campaign_id == campaign_id]
        whole = Brought(campaign_id, "", *total.values())
        table.add_section()
        table.add_row(campaign_id, f"all {len(of_campaign):,}", *_reached(whole), style="bold")
        for row in of_campaign[:BEST_SHOWN]:
            table.add_row("", row.distributor_id, *_reached(row))
    return table


def _reached(row: Brought) -> tuple[str, ...]:
    """How far reservations came; a seat counts as paid when its team has formed."""
    reserved = row.seckill_reservation_count + row.group_reservation_count
    paid = row.seckill_confirmed_count + row.group_confirmed_count
    share = f"{paid / reserved:.0%}" if reserved else "-"
    return (
        f"{reserved:,}",
        f"{paid:,} {share}",
        f"{row.amount_minor:,}",
        f"{row.commission_minor:,}",
    )


def _months_table(books: CommissionBooks) -> Table:
    table = Table(
        title=f"Statements of {len({line.distributor_id for line in books.lines}):,} distributors "
        "(minor units)",
        caption="opening + available - reversed - withdrawn + restored = closing; a month marked * "
        "is not over: to date, its statement follows",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for name in ("distributor", "month"):
        table.add_column(name, no_wrap=True)
    names = ("opening", "available", "reversed", "withdrawn", "restored", "closing")
    for name in names:
        table.add_column(name, justify="right")
    for line in books.lines_shown():
        month = f"{line.month}" if line.made else f"{line.month}*"
        table.add_row(line.distributor_id, month, *(f"{one:,}" for one in line[-6:]))
    return table


def show_report(report: Report, console: Console, *, title: str = "Invariants") -> None:
    """What verify found."""
    console.print(_pools_table(report, title))
    checks = Table()
    checks.add_column("")
    checks.add_column("invariant")
    checks.add_column("checked", justify="right")
    checks.add_column("violated", justify="right")
    for name, found in report.invariants.items():
        colour = "green" if not found.violations else "bold red"
        checks.add_row(
            name, INVARIANTS[name], f"{found.checked:,}", f"[{colour}]{found.violations}[/]"
        )
    console.print(checks)
    for name, found in report.invariants.items():
        for example in found.examples:
            console.print(f"  [bold red]{name}[/] {example}", highlight=False)
    for note in report.notes:
        console.print(f"  {note}", highlight=False)


def show_bench(result: BenchResult, console: Console) -> None:
    """Rates, latencies, and where the time goes."""
    setting = "  ".join(f"{key} {value}" for key, value in result.setting.items())
    table = Table(title="One run; compare ratios, not rates of different runs", caption=setting)
    table.add_column("", no_wrap=True)
    for name in ("rate/s", "p50 ms", "p99 ms", "p99.9 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("CPU us a line (time wanted by the busiest thread)")
    for row in result.results:
        table.add_row(
            row.name,
            f"{row.rate_per_s:,.0f}",
            *(
                "-" if value is None else f"{value:,.2f}"
                for value in (row.p50_ms, row.p99_ms, row.p99_9_ms)
            ),
            _where_the_time_goes(row),
        )
    console.print(table)
    for row in result.results:
        if row.refused or row.errors:
            console.print(f"[bold red]{row.name}[/]: refused {row.refused}, failed {row.errors}")
    for title, values in (
        *((f"{row.name}, what followed", row.accrual) for row in result.results),
        ("ratios", result.ratios),
        ("failover gap (ms)", result.failover_gap_ms),
        ("cold start (s)", result.cold_start_s),
        ("memory", result.memory),
        ("idle connections", result.idle),
        ("honest buyers of one address who gave up (%)", result.honest_refused_percent),
    ):
        if values:
            console.print(f"{title}: " + "  ".join(f"{k} {v:,}" for k, v in values.items()))
    console.print(f"{result.acks_checked:,} acknowledged sales looked for in the journal")
    console.print("[green]invariants hold[/]" if result.ok else "[bold red]invariants broken[/]")


def _where_the_time_goes(row: Measured) -> str:
    """CPU by role; the role that had no time left is marked."""
    parts = []
    for role, used in row.cpu_us_per_line.items():
        text = f"{role} {used:,.1f}"
        if role in row.wanted:
            text += f" ({row.wanted[role]:.0%})"
        parts.append(f"[bold yellow]{text}[/]" if role == row.limit else text)
    return "  ".join(parts)


def _pools_table(report: Report, title: str) -> Table:
    """The pools, without the columns in which no pool has anything."""
    pools = balances_of(report)[:POOLS_SHOWN]
    always = ("total", "available", "reserved", "sold")
    names = [
        name
        for name in (*always, "buffer", "scheduled", "in_transit", "owed")
        if name in always or any(getattr(pool, name) for pool in pools)
    ]
    table = Table(title=title)
    for name in ("campaign", "SKU"):
        table.add_column(name, no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    table.add_column("law", no_wrap=True)
    for pool in pools:
        parts = pool[5:11]
        holds = pool.total == sum(parts) and min(parts) >= 0
        table.add_row(
            pool.campaign_id or "(base)",
            pool.sku_id,
            *(f"{getattr(pool, name):,}" for name in names),
            "[green]holds[/]" if holds else "[bold red]BROKEN[/]",
        )
    return table


VERDICTS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def show_findings(findings: list[Finding], console: Console) -> None:
    """What the doctor found."""
    for finding in findings:
        colour = VERDICTS[finding.verdict]
        console.print(
            f"[{colour}]{finding.verdict:4}[/] {finding.check}: {finding.found}", highlight=False
        )
        if finding.mend:
            console.print(f"       -> {finding.mend}", highlight=False)


def _latencies(books: Books) -> str:
    tally = books.tally
    shown = (tally.latency_ms(p) for p in (50, 99, 99.9))
    return " / ".join(f"{value:,.1f}" for value in shown) + " ms"
