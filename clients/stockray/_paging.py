"""Lists that come page by page: iterate over the items, or over `pages()` for their ages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from stockray.records import DataAge

__all__ = ["Page", "Pager"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page. It may be empty and still not the last; the last has no `next_page_token`."""

    items: tuple[T, ...]
    next_page_token: str = ""
    age: DataAge | None = None
    """How old the page is; None when the items say it themselves."""
    unreachable_shards: tuple[int, ...] = ()
    """Shards that did not answer: what they hold is missing from the page."""


class Pager(Generic[T]):
    """A list: `async for item in pager`, or `async for page in pager.pages()`.

    Each iteration starts from the first page, and fetches a page when it gets there.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[Page[T]]], first_token: str = "") -> None:
        self._fetch = fetch
        self._first_token = first_token

    async def pages(self) -> AsyncIterator[Page[T]]:
        """The pages, one RPC each."""
        page = await self._fetch(self._first_token)
        yield page
        while page.next_page_token:
            page = await self._fetch(page.next_page_token)
            yield page

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.items:
                yield item
