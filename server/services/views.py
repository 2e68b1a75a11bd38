"""Reading the SQL view from the event loop: bounded, timed, and never a reason to fail a sale.

Rules
-----
* A view's queries block, so they run in a few threads of their own. What would wait behind more
  than `waiting_max` others is refused at once: a slow database must not pile up calls.
* Whatever a view raises is VIEW_UNAVAILABLE to the caller and a line in the log.
* An answer says how old it is: as old as the shard whose rows are, of all that the view has rows
  of.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import structlog
from stockray_proto.v1 import common_pb2

from persistence.sql.paging import Page, Row
from persistence.sql.views import KeptFacts, RefundFilter, ReservationFilter, ShardPosition
from server.errors import CallError, overloaded, view_unavailable
from server.translate.scalars import age_of

THREADS = 4
WAITING_MAX = 64
ANSWER_TIMEOUT_S = 9.0
"""Below the longest deadline of a call, so that the caller is told why."""

T = TypeVar("T")
log = structlog.get_logger("server.views")


class Views(Protocol):
    """`persistence.sql.views.SqlViews`: all calls block, and may be made by several threads."""

    def list_reservations(
        self,
        wanted: ReservationFilter,
        *,
        page_size: int = 100,
        after: tuple[int, str] | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Ordered by (reserved_ms, reservation_id)."""

    def list_refunds(
        self,
        wanted: RefundFilter,
        *,
        page_size: int = 100,
        after: tuple[int, str] | None = None,
    ) -> Page:
        """Ordered by (due_ms, refund_id)."""

    def list_stock(
        self,
        *,
        sku_id: str = "",
        campaign_id: str | None = None,
        page_size: int = 100,
        after: tuple[str, str] | None = None,
    ) -> Page:
        """Ordered by (campaign_id, sku_id)."""

    def list_campaigns(
        self, *, state: int | None = None, page_size: int = 100, after: tuple[str] | None = None
    ) -> Page:
        """Ordered by campaign_id."""

    def get_campaign(self, campaign_id: str) -> Row | None:
        """One campaign."""

    def get_team(self, team_id: str) -> Row | None:
        """One team."""

    def list_teams(
        self,
        *,
        campaign_id: str,
        state: int,
        page_size: int = 100,
        after: tuple[int, str] | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Ordered by (opened_ms, team_id)."""

    def list_seats(self, team_id: str) -> Sequence[Row]:
        """In the order of joining."""

    def count_seats(self, team_ids: Sequence[str], states: Sequence[int]) -> Sequence[Row]:
        """Seats of teams by the state of their reservation."""

    def list_distributors(
        self, *, state: int, page_size: int = 100, after: tuple[str] | None = None
    ) -> Page:
        """Those in one state, ordered by id."""

    def has_entry(self, entry_id: int) -> bool:
        """Whether an entry of the ledger is here."""

    def list_entries(
        self,
        distributor_id: str,
        *,
        month: int = 0,
        page_size: int = 100,
        after: tuple[int] | None = None,
    ) -> Page:
        """A distributor's entries, newest first."""

    def get_statement(self, distributor_id: str, month: int) -> Row | None:
        """One statement."""

    def list_statements(
        self, distributor_id: str, *, page_size: int = 100, after: tuple[int] | None = None
    ) -> Page:
        """A distributor's statements, newest first."""

    def list_withdrawals(
        self,
        *,
        state: int,
        distributor_id: str = "",
        page_size: int = 100,
        after: tuple[int, str] | None = None,
    ) -> Page:
        """Those in one state, newest first."""

    def funnel(
        self, campaign_id: str, *, channel: str = "", distributor_id: str = "", rows_max: int
    ) -> Sequence[Row]:
        """What became of a campaign's reservations with a share code, by code and channel."""

    def list_facts(self, shard: int, *, after_seq: int, rows_max: int, bytes_max: int) -> KeptFacts:
        """Facts of a shard's entries after `after_seq`, in order."""

    def positions(self) -> Sequence[ShardPosition]:
        """How far each shard's journal has been applied, and of when that is."""


class ViewReader:
    """Runs queries in threads, and turns whatever goes wrong into VIEW_UNAVAILABLE."""

    def __init__(self, views: Views | None) -> None:
        self._views = views
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="views")
        self._waiting = 0

    async def read(self, query: Callable[[Views], T], *, timeout_s: float) -> T:
        """The query's result. CallError when there is no view, or it does not answer."""
        if self._views is None:
            raise view_unavailable()
        if self._waiting >= WAITING_MAX:
            raise overloaded("listings")
        self._waiting += 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, query, self._views)
        # The thread is busy until the query ends, also when nobody waits for it any more.
        running.add_done_callback(self._done)
        try:
            async with asyncio.timeout(min(timeout_s, ANSWER_TIMEOUT_S)):
                return await asyncio.shield(running)
        except CallError:
            raise
        except Exception as error:
            log.warning("view_unavailable", error=type(error).__name__, exc_info=True)
            raise view_unavailable() from error

    def close(self) -> None:
        """Take no query any more; one that runs ends by its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, running: "asyncio.Future[Any]") -> None:
        self._waiting -= 1
        if not running.cancelled():
            running.exception()


def view_age(positions: Sequence[ShardPosition], now_ms: int) -> common_pb2.DataAge:
    """The age of an answer from the view; of one that holds nothing yet, since 1970."""
    as_of_ms = min((position.updated_ms for position in positions), default=0)
    return age_of(as_of_ms, now_ms, common_pb2.DATA_SOURCE_SQL)
