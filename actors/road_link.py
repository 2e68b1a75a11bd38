"""A link whose rounds travel on a connection of their own, and everything else as Ray calls.

Rules
-----
* A connection that closes is a dead process, and so is a lifeline that ends: every round in flight
  fails at once, later ones too, until `hello` has met an instance again.
* While no road leads to the instance, rounds go as Ray calls, and the road is tried again every
  `RETRY_S`, by one task, until there is one or the instance is forgotten.
* A connection counts once the instance at its other end has said the token that `hello` got over
  Ray: an address may have become another's.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

from actors.certificates import SERVER_NAME, calling_context
from actors.lifeline import Lifeline, lifeline_path
from actors.links import ControlLink, LinkClosed
from actors.road import HELLO, ROUND
from actors.shard import Promotion
from actors.specs import RoadSpec
from wire.client import WireClient, WireError
from wire.limits import ROUNDS

log = structlog.get_logger()

ROUND_BYTES = 256_000
"""No size is dear here: a line costs the shard 7.0-7.3 us in rounds of 72, 200, 290 and 790 kB. A
round holds the shard up for as long as it takes to decide, so it is its lines that are few."""
CONNECT_TIMEOUT_S = 2.0
HELLO_PATIENCE_S = 0.1
"""How long `hello` waits for the road; afterwards rounds go as Ray calls until it is there."""
RETRY_S = 3.0


class NoRoad(Exception):
    """None of the addresses leads to the instance."""


class RoadLink:
    """See Link. `name` is for the log."""

    def __init__(self, control: ControlLink, spec: RoadSpec, *, name: str) -> None:
        self.on_closed: Callable[[], None] | None = None
        self._control = control
        self._name = name
        self._tls = calling_context(spec.certificate) if spec.certificate else None
        self._client: WireClient | None = None
        self._lifeline: Lifeline | None = None
        self._seeking: asyncio.Task[None] | None = None
        self._closed = False
        control.on_closed = self._end

    @property
    def token(self) -> str:
        """See Link."""
        return self._control.token

    @property
    def round_bytes(self) -> int:
        """See Link."""
        return self._control.round_bytes if self._client is None else ROUND_BYTES

    @property
    def on_road(self) -> bool:
        """Whether rounds go by the road now."""
        return self._client is not None

    async def hello(self) -> str:
        """See Link. Also returns when the road is not there yet."""
        known = self._control.token
        token = await self._control.hello()
        if token == known and self._client is not None and not self._client.ending:
            return token
        self._leave()
        self._closed = False
        if self._control.addresses:
            seeking = asyncio.ensure_future(self._seek(self._control.addresses, token))
            self._seeking = seeking
            await asyncio.wait({seeking}, timeout=HELLO_PATIENCE_S)
        return token

    def forget(self) -> None:
        """See Link."""
        self._leave()
        self._closed = False
        self._control.forget()

    async def round(self, payload: bytes) -> bytes:
        """See Link. A caller that gives up resets the call; the round is done all the same."""
        if self._closed:
            raise LinkClosed("the connection is closed")
        if self._client is None:
            return await self._control.round(payload)
        try:
            return await self._client.call(ROUND, payload)
        except WireError as error:
            raise LinkClosed(error.message) from error

    async def promote(self, seen_epoch: int, seen_seq: int) -> Promotion:
        """See Link."""
        return await self._control.promote(seen_epoch, seen_seq)

    async def control(self, method: str, *arguments: Any) -> Any:
        """See Link."""
        return await self._control.control(method, *arguments)

    async def _seek(self, addresses: Sequence[str], token: str) -> None:
        """Connect, however long it takes."""
        said = False
        while True:
            try:
                self._take(*await self._connect(addresses, token))
                return
            except NoRoad as error:
                if not said:
                    log.warning("road_unreachable", name=self._name, error=str(error))
                said = True
            await asyncio.sleep(RETRY_S)

    async def _connect(self, addresses: Sequence[str], token: str) -> tuple[WireClient, str]:
        """A connection to the instance with this token, by the first address that leads there, and
        that address."""
        troubles = []
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    return await self._greet(await self._reach(address), token), address
            except (OSError, TimeoutError, WireError, NoRoad) as error:
                troubles.append(f"{address}: {error or repr(error)}")
        raise NoRoad("; ".join(troubles))

    async def _reach(self, address: str) -> WireClient:
        kind, _, place = address.partition(":")
        if kind == "unix":
            return await WireClient.connect_unix(place, limits=ROUNDS)
        if self._tls is None:
            raise NoRoad("this process has no certificate of the cluster")
        host, _, port = place.rpartition(":")
        return await WireClient.connect_tcp(
            host, int(port), tls=self._tls, server_name=SERVER_NAME, limits=ROUNDS
        )

    async def _greet(self, client: WireClient, token: str) -> WireClient:
        try:
            met = (await client.call(HELLO, b"")).decode("utf-8", "replace")
        except BaseException:
            client.close()
            raise
        if met != token:
            client.close()
            raise NoRoad("another instance answers there")
        return client

    def _take(self, client: WireClient, address: str) -> None:
        self._client = client
        self._seeking = None
        log.info("road_taken", name=self._name, peer=client.peer)
        client.gone.add_done_callback(lambda _: self._gone(client))
        kind, _, path = address.partition(":")
        if kind == "unix":
            with suppress(OSError):
                self._lifeline = Lifeline(lifeline_path(path), self._end)

    def _gone(self, client: WireClient) -> None:
        if self._client is client:
            self._end()

    def _end(self) -> None:
        """The instance is dead, as far as anybody here can tell. The kernel says it twice, by the
        connection and by the process; who listens hears it once."""
        if self._closed:
            return
        self._leave()
        self._closed = True
        if self.on_closed is not None:
            self.on_closed()

    def _leave(self) -> None:
        if self._seeking is not None:
            self._seeking.cancel()
            self._seeking = None
        if self._client is not None:
            client, self._client = self._client, None
            client.close()
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None
