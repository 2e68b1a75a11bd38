"""How results are shown: as tables for people, as JSON or JSON lines for programs.

JSON has the field names of the records; enums are their names, instants ISO 8601 in UTC, and a span
`x` is the number of seconds `x_s`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


def plain(value: Any) -> Any:
    """A result as what JSON knows."""
    if is_dataclass(value):
        return _pairs((field.name, getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _pairs(value._asdict().items())
    if isinstance(value, Mapping):
        return _pairs(value.items())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def _pairs(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {f"{k}_s" if isinstance(v, timedelta) else k: plain(v) for k, v in pairs}


class Show:
    """Writes to stdout in the format that was asked for."""

    def __init__(self, form: Format) -> None:
        self._form = form

    def one(self, value: Any) -> None:
        """One result: a table of its fields that say something, or one JSON object."""
        found = plain(value)
        if self._form is not Format.TABLE:
            self._line(found)
            return
        table = Table(show_header=False, box=None)
        for name, text in _flat(found):
            table.add_row(name, text)
        self._table(table)

    def rows(self, values: Iterable[Any], columns: Sequence[str]) -> None:
        """Many results: a table with these columns, a JSON array, or a JSON object a line."""
        if self._form is Format.JSONL:
            for value in values:
                self._line(plain(value))
            return
        found = [plain(value) for value in values]
        if self._form is Format.JSON:
            self._line(found)
            return
        table = Table(*columns, box=None)
        for row in found:
            table.add_row(*(_cell(row.get(column)) for column in columns))
        self._table(table)

    def many(self, value: Any, tables: Iterable[tuple[Sequence[str], Sequence[Any]]]) -> None:
        """One result that people would rather see as several tables of rows."""
        if self._form is not Format.TABLE:
            self._line(plain(value))
            return
        for columns, values in tables:
            if values:
                self.rows(values, columns)
                print()

    def _line(self, value: Any) -> None:
        indent = 2 if self._form is Format.JSON and sys.stdout.isatty() else None
        print(json.dumps(value, ensure_ascii=False, indent=indent), flush=True)

    def _table(self, table: Table) -> None:
        console = Console(soft_wrap=not sys.stdout.isatty())
        console.print(table)


def _flat(found: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            yield prefix + name, _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
