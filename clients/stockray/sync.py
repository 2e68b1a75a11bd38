"""The synchronous client: the same verbs, from any thread, over one private loop in a thread.

Rules
* Every verb is the asynchronous one, run on the private loop; many threads that call at once share
  RPCs as many tasks would.
* The thread is a daemon: an interpreter that exits with an open client does not hang.
* A verb that is called on the private thread itself would wait for itself; the thread never runs
  the caller's code, so that cannot happen.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack

from stockray._client import AsyncClient
from stockray._fork import generation
from stockray._paging import Page, Pager
from stockray.enums import FactKind
from stockray.errors import ClientClosed
from stockray.events import FactBatch, FeedCursor
from stockray.group_buy import TeamChange
from stockray.options import ClientOptions, OptionChanges
from stockray.records import PoolKey
from stockray.results import StockChange

__all__ = ["Client", "SyncPager"]

P = ParamSpec("P")
T = TypeVar("T")


class SyncPager(Generic[T]):
    """A list: `for item in pager`, or `for page in pager.pages()`."""

    def __init__(self, client: Client, pager: Pager[T]) -> None:
        self._client = client
        self._pager = pager

    def pages(self) -> Iterator[Page[T]]:
        """The pages, one RPC each."""
        return self._client._iterate(self._pager.pages())

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.items


def _blocking(
    verb: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(verb(self._client, *args, **kwargs))

    return _named(call, verb)


def _listing(
    verb: Callable[Concatenate[AsyncClient, P], Pager[T]],
) -> Callable[Concatenate[Client, P], SyncPager[T]]:
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> SyncPager[T]:
        return SyncPager(self, verb(self._client, *args, **kwargs))

    return _named(call, verb)


def _named(call: Callable[P, T], verb: Callable[..., Any]) -> Callable[P, T]:
    call.__name__ = verb.__name__
    call.__qualname__ = f"Client.{verb.__name__}"
    call.__doc__ = verb.__doc__
    return call


class Client:
    """A client of one cluster for threads; see `AsyncClient` for what the verbs do."""

    def __init__(
        self,
        target: str = "127.0.0.1:7443",
        options: ClientOptions | None = None,
        **changes: Unpack[OptionChanges],
    ) -> None:
        """Makes a client of the gateway at `target` and starts its thread; see `AsyncClient`."""
        self._client = AsyncClient(target, options, **changes)
        self._generation = generation()
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="stockray-client", daemon=True)
        self._thread.start()

    reserve = _blocking(AsyncClient.reserve)
    grab = _blocking(AsyncClient.grab)
    confirm = _blocking(AsyncClient.confirm)
    release = _blocking(AsyncClient.release)
    reserve_many = _blocking(AsyncClient.reserve_many)
    grab_many = _blocking(AsyncClient.grab_many)
    confirm_many = _blocking(AsyncClient.confirm_many)
    release_many = _blocking(AsyncClient.release_many)
    begin_payment = _blocking(AsyncClient.begin_payment)
    report_payment = _blocking(AsyncClient.report_payment)
    return_units = _blocking(AsyncClient.return_units)
    get_reservation = _blocking(AsyncClient.get_reservation)
    report_fulfilment = _blocking(AsyncClient.report_fulfilment)
    report_refund = _blocking(AsyncClient.report_refund)
    list_reservations = _listing(AsyncClient.list_reservations)
    list_refunds = _listing(AsyncClient.list_refunds)
    put_sku = _blocking(AsyncClient.put_sku)
    get_stock = _blocking(AsyncClient.get_stock)
    list_stock = _listing(AsyncClient.list_stock)
    receive_stock = _blocking(AsyncClient.receive_stock)
    adjust_stock = _blocking(AsyncClient.adjust_stock)
    set_buffer = _blocking(AsyncClient.set_buffer)
    transfer_stock = _blocking(AsyncClient.transfer_stock)
    declare_shortage = _blocking(AsyncClient.declare_shortage)
    put_campaign = _blocking(AsyncClient.put_campaign)
    get_campaign = _blocking(AsyncClient.get_campaign)
    list_campaigns = _listing(AsyncClient.list_campaigns)
    pause_campaign = _blocking(AsyncClient.pause_campaign)
    end_campaign = _blocking(AsyncClient.end_campaign)
    put_group_campaign = _blocking(AsyncClient.put_group_campaign)
    get_group_campaign = _blocking(AsyncClient.get_group_campaign)
    open_team = _blocking(AsyncClient.open_team)
    join_team = _blocking(AsyncClient.join_team)
    join_team_many = _blocking(AsyncClient.join_team_many)
    leave_team = _blocking(AsyncClient.leave_team)
    get_team = _blocking(AsyncClient.get_team)
    suggest_teams = _blocking(AsyncClient.suggest_teams)
    list_teams = _listing(AsyncClient.list_teams)
    complete_team = _blocking(AsyncClient.complete_team)
    apply_distributor = _blocking(AsyncClient.apply_distributor)
    approve_distributor = _blocking(AsyncClient.approve_distributor)
    get_distributor = _blocking(AsyncClient.get_distributor)
    list_distributors = _listing(AsyncClient.list_distributors)
    bind_referrer = _blocking(AsyncClient.bind_referrer)
    get_referrer = _blocking(AsyncClient.get_referrer)
    put_rates = _blocking(AsyncClient.put_rates)
    get_rates = _blocking(AsyncClient.get_rates)
    get_account = _blocking(AsyncClient.get_account)
    list_entries = _listing(AsyncClient.list_entries)
    get_statement = _blocking(AsyncClient.get_statement)
    list_statements = _listing(AsyncClient.list_statements)
    settle = _blocking(AsyncClient.settle)
    request_withdrawal = _blocking(AsyncClient.request_withdrawal)
    review_withdrawal = _blocking(AsyncClient.review_withdrawal)
    list_withdrawals = _listing(AsyncClient.list_withdrawals)
    get_leaderboard = _blocking(AsyncClient.get_leaderboard)
    get_profile = _blocking(AsyncClient.get_profile)
    freeze = _blocking(AsyncClient.freeze)
    unfreeze = _blocking(AsyncClient.unfreeze)
    cluster_status = _blocking(AsyncClient.cluster_status)
    verify = _blocking(AsyncClient.verify)
    take_snapshot = _blocking(AsyncClient.take_snapshot)
    promote = _blocking(AsyncClient.promote)
    drain_gateway = _blocking(AsyncClient.drain_gateway)
    get_funnel = _blocking(AsyncClient.get_funnel)

    def watch_stock(
        self, pools: Iterable[PoolKey], *, interval: timedelta | None = None
    ) -> Iterator[StockChange]:
        """Yields pools as they change, as `AsyncClient.watch_stock`; close it to end it."""
        return self._iterate(self._client.watch_stock(pools, interval=interval))

    def watch_team(
        self, team_id: str, *, viewer_buyer_id: str = "", interval: timedelta | None = None
    ) -> Iterator[TeamChange]:
        """Yields a team as it changes, as `AsyncClient.watch_team`; close it to end it."""
        return self._iterate(
            self._client.watch_team(team_id, viewer_buyer_id=viewer_buyer_id, interval=interval)
        )

    def watch_events(
        self,
        cursors: Iterable[FeedCursor] = (),
        *,
        oldest: bool = False,
        kinds: Iterable[FactKind] = (),
        campaign_id: str = "",
        shards: Iterable[int] = (),
    ) -> Iterator[FactBatch]:
        """Yields facts as they are decided, as `AsyncClient.watch_events`; close it to end it."""
        return self._iterate(
            self._client.watch_events(
                cursors, oldest=oldest, kinds=kinds, campaign_id=campaign_id, shards=shards
            )
        )

    @property
    def options(self) -> ClientOptions:
        """The settings in force."""
        return self._client.options

    def close(self) -> None:
        """Lets everything that was asked for come to its end, then ends the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._generation != generation():
            return  # The thread and its loop are the parent's.
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a verb on the private loop and waits; an interrupted wait cancels only the wait."""
        with self._lock:
            if self._closed or self._generation != generation():
                work.close()
                why = "is closed" if self._closed else "belongs to the process before a fork"
                raise ClientClosed(f"the client {why}")
            waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        except BaseException:
            waiting.cancel()
            raise

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> tuple[T, ...]:
            async for item in items:
                return (item,)
            return ()

        async def end() -> None:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

        try:
            while found := self._run(following()):
                yield found[0]
        finally:
            if not self._closed:
                self._run(end())
