"""A local cluster for an event loop: every method of `LocalCluster`, awaited, run in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

from stockray._client import AsyncClient
from stockray.options import OptionChanges
from stockray.testing.cluster import Fault, LocalCluster

__all__ = ["AsyncFault", "AsyncLocalCluster"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncFault(Awaitable["AsyncFault"]):
    """A fault that begins when it is awaited or entered (`async with`), and lasts until `end`."""

    def __init__(self, begin: Callable[[], Fault]) -> None:
        self._begin = begin
        self._fault: Fault | None = None

    async def end(self) -> None:
        """Returns when it is over. Idempotent."""
        if self._fault is not None:
            await asyncio.to_thread(self._fault.end)

    def __await__(self) -> Generator[Any, None, AsyncFault]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> AsyncFault:
        if self._fault is None:
            self._fault = await asyncio.to_thread(self._begin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.end()


def _awaited(
    method: Callable[Concatenate[LocalCluster, P], T],
) -> Callable[Concatenate[AsyncLocalCluster, P], Coroutine[Any, Any, T]]:
    async def call(self: AsyncLocalCluster, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(method, self.local, *args, **kwargs)

    return _named(call, method)


def _lasting(
    method: Callable[Concatenate[LocalCluster, P], Fault],
) -> Callable[Concatenate[AsyncLocalCluster, P], AsyncFault]:
    def call(self: AsyncLocalCluster, /, *args: P.args, **kwargs: P.kwargs) -> AsyncFault:
        return AsyncFault(lambda: method(self.local, *args, **kwargs))

    return _named(call, method)


def _named(call: Callable[P, T], method: Callable[..., Any]) -> Callable[P, T]:
    call.__name__ = method.__name__
    call.__qualname__ = f"AsyncLocalCluster.{method.__name__}"
    call.__doc__ = method.__doc__
    return call


class AsyncLocalCluster:
    """See `LocalCluster`; what is no method (`address`, `data_dir`, `async_client()`, `logs()` ...)
    is that of `local`."""

    def __init__(self, local: LocalCluster) -> None:
        self.local = local

    @property
    def address(self) -> str:
        """host:port of the service."""
        return self.local.address

    def async_client(self, **changes: Unpack[OptionChanges]) -> AsyncClient:
        """A new client, which you close. Patient enough for a failover."""
        return self.local.async_client(**changes)

    start = _awaited(LocalCluster.start)
    stop = _awaited(LocalCluster.stop)
    kill_all = _awaited(LocalCluster.kill_all)
    restart = _awaited(LocalCluster.restart)
    pids = _awaited(LocalCluster.pids)
    shard_of = _awaited(LocalCluster.shard_of)
    status = _awaited(LocalCluster.status)
    wait_until = _awaited(LocalCluster.wait_until)
    wait_ready = _awaited(LocalCluster.wait_ready)
    wait_settled = _awaited(LocalCluster.wait_settled)
    verify = _awaited(LocalCluster.verify)
    kill = _awaited(LocalCluster.kill)
    kill_primary = _awaited(LocalCluster.kill_primary)
    kill_standby = _awaited(LocalCluster.kill_standby)
    kill_gateway = _awaited(LocalCluster.kill_gateway)
    kill_projector = _awaited(LocalCluster.kill_projector)
    pause = _lasting(LocalCluster.pause)
    partition_journal = _lasting(LocalCluster.partition_journal)
    slow_journal = _lasting(LocalCluster.slow_journal)
    stop_database = _awaited(LocalCluster.stop_database)
    start_database = _awaited(LocalCluster.start_database)
    heal = _awaited(LocalCluster.heal)
    pid_of = _awaited(LocalCluster.pid_of)
