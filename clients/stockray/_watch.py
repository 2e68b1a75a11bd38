"""A server stream that is opened again when it ends or breaks.

A stream ends by itself after half an hour, breaks when a gateway goes, and tells nothing twice that
matters: each begins with all that was asked for, or where the last one ended. It is given up with
the last error when no message came for the client's `timeout_ms` though it was tried.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from stockray._channel import Connections, Method
from stockray._failures import read_failure
from stockray._retry import pause_s
from stockray.options import ClientOptions

M = TypeVar("M", bound=Message)


class Watch:
    """One watcher."""

    def __init__(self, connections: Connections, options: ClientOptions) -> None:
        self._connections = connections
        self._options = options

    async def messages(
        self, method: Method[M], payload: Callable[[], bytes]
    ) -> AsyncGenerator[M, None]:
        """The messages of one stream after the other; ends only by an error or by its closing.
        `payload` makes the request of each: what was told before may be left out of the next."""
        clock = asyncio.get_running_loop().time
        broken_at: float | None = None
        attempts = 0
        while True:
            call = self._connections.stream(method, payload())
            wait = None
            try:
                async for message in call:
                    attempts, broken_at = 0, None
                    yield message
            except grpc.aio.AioRpcError as failed:
                failure = read_failure(failed)
                broken_at = broken_at or clock()
                late = clock() - broken_at > self._options.timeout_ms / 1_000
                if late or not failure.resend:
                    raise failure.error from failed
                wait = failure.error.retry_after
            finally:
                call.cancel()
            attempts += 1
            await asyncio.sleep(pause_s(self._options, attempts, wait))
