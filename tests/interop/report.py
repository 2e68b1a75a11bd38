"""`make interop`: runs all that the interop tests know, and writes the results to docs/front.md.

Ends with 1 if anything failed; the document is written all the same, and says what.
"""

import asyncio
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import groupby
from typing import NamedTuple

from tests.helpers.stack import running_stack
from tests.interop import h2spec, sale
from tests.interop.cases import CASES, LEFT_OUT, LEFT_OUT_ON, run_case
from tests.interop.fronts import FRONTS
from tests.interop.serving import interop_server
from tests.interop.toolchains import ROOT, TOOLS, missing_tools, require_language

DOCUMENT = ROOT / "docs/front.md"
PASSED = "passed"


class Row(NamedTuple):
    """One line of a table."""

    cells: tuple[str, ...]
    failed: bool = False


def main() -> int:
    """Run everything; answers the exit code."""
    if missing := [tool for language in TOOLS for tool in missing_tools(language)]:
        print(f"not installed: {', '.join(missing)}; nothing was run", file=sys.stderr)
        return 1
    for language in TOOLS:
        require_language(language)
    tables = {
        "interop": (("case", "client", *FRONTS, "why not"), case_rows()),
        "sale": (("client", *FRONTS), sale_rows()),
        "h2spec": (("section", "cases", "passed", "not passed, and why"), h2spec_rows()),
    }
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, (head, rows) in tables.items():
        text = with_table(text, name, head, rows)
    DOCUMENT.write_text(text, encoding="utf-8")
    failed = [row.cells for _, rows in tables.values() for row in rows if row.failed]
    for cells in failed:
        print("FAILED:", " | ".join(cells), file=sys.stderr)
    return 1 if failed else 0


def with_table(text: str, name: str, head: Iterable[str], rows: Iterable[Row]) -> str:
    """The document with the table between the marks of that name replaced."""
    lines = [list(head), ["---"] * len(list(head)), *(row.cells for row in rows)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not marked.search(text):
        raise ValueError(f"{DOCUMENT} has no <!-- {name} -->")
    return marked.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


def case_rows() -> list[Row]:
    """Every case of every client on every front, plain and with TLS; then what no client runs."""
    ended: dict[tuple[str, str, str], str] = {}
    for front in FRONTS:
        for tls in (False, True):
            with interop_server(front, tls=tls) as port:
                _run_cases(front, port, ended, tls=tls)
    rows = []
    for client, cases in CASES.items():
        for case in cases:
            results = [ended[client, case, front] for front in FRONTS]
            reasons = {
                LEFT_OUT_ON[key] for front in FRONTS if (key := (front, case)) in LEFT_OUT_ON
            }
            failed = any("failed" in result for result in results)
            rows.append(Row((f"`{case}`", client, *results, "; ".join(reasons)), failed))
    skipped = ["skipped"] * len(FRONTS)
    return rows + [Row((f"`{case}`", "", *skipped, why)) for case, why in LEFT_OUT.items()]


def _run_cases(front: str, port: int, ended: dict[tuple[str, str, str], str], *, tls: bool) -> None:
    """Adds to `ended`: a case has passed only if it did so plain and with TLS."""
    for client, cases in CASES.items():
        for case in cases:
            key = (client, case, front)
            if (front, case) in LEFT_OUT_ON:
                ended[key] = "skipped"
                continue
            outcome = run_case(client, case, port, tls=tls)
            how = "TLS" if tls else "plain"
            print(f"{front} {how} {client} {case}: {outcome.passed}", flush=True)
            if not outcome.passed:
                print(outcome.output, file=sys.stderr)
                ended[key] = f"failed ({how})"
            else:
                ended.setdefault(key, PASSED)


def sale_rows() -> list[Row]:
    """Every client's sale on every front."""
    ended = {front: asyncio.run(_sales(front)) for front in FRONTS}
    rows = []
    for client in sale.CLIENTS:
        results = tuple(ended[front][client] for front in FRONTS)
        rows.append(Row((client, *results), any(result != PASSED for result in results)))
    return rows


async def _sales(front: str) -> Mapping[str, str]:
    """How the sale went for each client; all of them on one service."""
    ended = {}
    with ExitStack() as opened:
        stack = opened.enter_context(running_stack("sqlite", {"front": front}))
        async with stack.client() as client:
            for name in sale.CLIENTS:
                try:
                    await sale.sell(client, name, stack.listen)
                    ended[name] = PASSED
                except AssertionError as error:
                    print(f"{front} {name}: {error}", file=sys.stderr)
                    ended[name] = "failed"
                print(f"{front} sale {name}: {ended[name]}", flush=True)
            await stack.check(client)
    return ended


def h2spec_rows() -> list[Row]:
    """A line for each section, and the sum."""
    with interop_server(h2spec.FRONT) as port:
        cases = h2spec.run(port)
    rows = []
    for (package, section), group in groupby(cases, lambda case: (case.package, case.section)):
        found = list(group)
        missed = [case for case in found if not case.passed]
        why = "; ".join(f"{case.title}: {case.excuse or 'FAILED'}" for case in missed)
        passed = len(found) - len(missed)
        room = package.partition("/")[0]
        cells = (f"{room} {section}", str(len(found)), str(passed), why)
        rows.append(Row(cells, any(not case.excuse for case in missed)))
    total = str(sum(case.passed for case in cases))
    return [*rows, Row(("all", str(len(cases)), total, ""))]


if __name__ == "__main__":
    sys.exit(main())
