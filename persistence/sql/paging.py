"""Reading pages by key: what all queries of `views.py` stand on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, Select, and_, or_

from persistence.sql.engine import connected

PAGE_SIZE_MAX = 1_000

Row = Mapping[str, Any]


class Page(NamedTuple):
    """Rows in order, and the key to ask for the next page with; None after the last row."""

    rows: Sequence[Row]
    after: tuple[Any, ...] | None


class Reading:
    """Queries of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _page(
        self,
        query: Select[Any],
        *,
        key: tuple[ColumnElement[Any], ...],
        page_size: int,
        after: tuple[Any, ...] | None,
        descending: bool = False,
    ) -> Page:
        if not 1 <= page_size <= PAGE_SIZE_MAX:
            raise ValueError(f"page_size must be 1 to {PAGE_SIZE_MAX}, not {page_size}")
        if after is not None:
            query = query.where(_beyond(key, after, descending=descending))
        query = query.order_by(*(column.desc() if descending else column for column in key))
        # One row more than asked tells whether there is a next page.
        rows = self._rows(query.limit(page_size + 1))
        if len(rows) <= page_size:
            return Page(rows, None)
        last = rows[page_size - 1]
        return Page(rows[:page_size], tuple(last[column.key or ""] for column in key))

    def _rows(self, query: Select[Any]) -> list[Row]:
        with connected(self._engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _beyond(
    key: tuple[ColumnElement[Any], ...], after: tuple[Any, ...], *, descending: bool
) -> ColumnElement[bool]:
    """Rows past `after`. Written so that the first column alone bounds the walk of the index:
    MySQL finds no range in a comparison of tuples."""
    if len(key) != len(after):
        raise ValueError(f"a key of {len(key)} parts continues this page, not {after!r}")
    first, value = key[0], after[0]
    strictly: ColumnElement[bool] = first < value if descending else first > value
    if len(key) == 1:
        return strictly
    bound = first <= value if descending else first >= value
    rest = _beyond(key[1:], after[1:], descending=descending)
    within: ColumnElement[bool] = and_(bound, or_(strictly, rest))
    return within
