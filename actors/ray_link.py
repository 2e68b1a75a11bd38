"""A link over Ray calls to a named actor: what carries everything but rounds, and rounds where no
road leads.

A process on this machine is watched through a pidfd as well, since Ray takes more than a second to
say that it died, and the kernel says it at once.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
import ray.exceptions
import structlog

from actors.cluster import ClusterError
from actors.hosting import process_identity
from actors.links import LinkClosed
from actors.shard import PromoteStatus, Promotion

log = structlog.get_logger()

ROUND_BYTES = 90_000
"""Below the 100 kB at which Ray leaves its in-line path, which costs five times as much."""

LATE_PAUSE_S = 0.2
"""Before the next look for an actor that was not started yet."""


class ActorReplaced(LinkClosed):
    """Ray will not start this actor again; there may be another one of its name."""


class RayLink:
    """See Link and ControlLink."""

    def __init__(self, handle: Any, find: Callable[[], Any] | None = None) -> None:
        """`find` looks for the actor by its name; it may block, and raises ClusterError. `handle`
        is None of an actor that may not have been started yet."""
        self.on_closed: Callable[[], None] | None = None
        self.token = ""
        self.addresses: tuple[str, ...] = ()
        self.round_bytes = ROUND_BYTES
        self._handle = handle
        self._find = find
        self._closed: asyncio.Future[None] | None = None
        self._pidfd = -1

    async def hello(self) -> str:
        """See Link."""
        if self._handle is None:
            await self._find_first()
        try:
            told = await self._call(self._handle.hello.remote)
        except ActorReplaced:
            await self._find_again()
            raise
        self.token, identity, self.addresses = told
        self._watch(identity)
        return self.token

    def forget(self) -> None:
        """See Link."""
        self._unwatch()
        self.token = ""

    async def round(self, payload: bytes) -> bytes:
        """See Link."""
        answer: bytes = await self._call(lambda: self._handle.round.remote(payload))
        return answer

    async def promote(self, seen_epoch: int, seen_seq: int) -> Promotion:
        """See Link."""
        promote = self._handle.promote.remote
        status, epoch, owner = await self._call(lambda: promote(seen_epoch, seen_seq))
        return Promotion(PromoteStatus(status), epoch, owner)

    async def control(self, method: str, *arguments: Any) -> Any:
        """See Link. It also reaches an instance that came after the one that `hello` met."""
        if self._handle is None:
            raise LinkClosed("the actor was not started yet")
        remote: Callable[..., Any] = getattr(self._handle, method).remote
        ended = self._closed is not None and self._closed.done()
        return await self._call(lambda: remote(*arguments), watched=not ended)

    async def _call(self, remote: Callable[[], Any], *, watched: bool = True) -> Any:
        closed = self._closed if watched else None
        try:
            answer = asyncio.wrap_future(remote().future())
            if closed is None:
                return await answer
            await asyncio.wait({answer, closed}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                answer.cancel()
                raise LinkClosed("the process has ended")
            return answer.result()
        except ray.exceptions.ActorDiedError as error:
            raise ActorReplaced("the actor has ended") from error
        except ray.exceptions.RayError as error:
            # Also an exception that the replica's own code raised: what failed there cannot be
            # known here, and must end no gateway.
            raise LinkClosed((str(error) or repr(error)).splitlines()[0]) from error

    async def _find_first(self) -> None:
        """However long it takes. An actor that was not started yet is silent, not closed: who looks
        for a primary goes on without it when it has waited as for any other."""
        await self._find_again()
        while self._handle is None:
            await asyncio.sleep(LATE_PAUSE_S)
            await self._find_again()

    async def _find_again(self) -> None:
        """An actor that was moved to another node is another one of the same name. On a thread,
        since Ray's head may be silent; the next `hello` meets what was found, also when this one
        was not waited for."""

        def find() -> None:
            if self._find is not None:
                with suppress(ClusterError):
                    self._handle = self._find()

        await asyncio.to_thread(find)

    def _watch(self, identity: str) -> None:
        """Learn from the kernel when a process of this machine ends."""
        self._unwatch()
        pid = identity.split(":")[1]
        if not identity or process_identity(int(pid)) != identity:
            return
        loop = asyncio.get_running_loop()
        try:
            self._pidfd = os.pidfd_open(int(pid))
        except OSError as error:
            log.warning("no_pidfd", error=str(error))
            return
        self._closed = loop.create_future()
        loop.add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        closed = self._closed
        self._unwatch()
        if closed is not None and not closed.done():
            closed.set_result(None)
        self._closed = closed
        if self.on_closed is not None:
            self.on_closed()

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._closed = None
