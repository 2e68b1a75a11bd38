"""A call leaves nothing that only the garbage collector would find: at 20,000 calls a second it
would walk what is alive to find what is not."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.core.outcomes import Outcome
from server.front_nghttp2 import Nghttp2Front
from server.services.table import Services
from wire.client import WireClient, WireError

GRAB = "/stockray.v1.SeckillService/Grab"
CALLS = 200


class SoldOut:
    """Lines that are all too late."""

    def put(self, command: Any, on_answer: Callable[[tuple[Any, ...]], object]) -> None:
        """See `Lines.put`."""
        asyncio.get_running_loop().call_soon(on_answer, (Outcome.SOLD_OUT, 0, ()))

    async def submit(self, commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """See `Lines.submit`."""
        return [(Outcome.SOLD_OUT, 0, ())] * len(commands)

    def shard_of(self, slot: int) -> int:
        """One for all."""
        return 0


def grab(number: int) -> bytes:
    """A request of its own."""
    request = sec.GrabRequest()
    request.line.request_id = f"r-{number}"
    request.line.campaign_id = request.line.sku_id = "none"
    request.line.quantity = 1
    request.line.buyer.buyer_id = "b"
    return request.SerializeToString()


@pytest.mark.parametrize("message", [grab(0), b"\xff"], ids=["answered", "refused"])
async def test_a_call_leaves_no_circle_of_references(message: bytes) -> None:
    services = Services(SoldOut())
    services.health.open()
    front = Nghttp2Front(services.table)
    port = front.listen("127.0.0.1:0")
    await front.start()
    client = await WireClient.connect_tcp("127.0.0.1", port)

    async def call_often() -> None:
        for _ in range(CALLS):
            try:
                await client.call(GRAB, message)
            except WireError as error:
                error.__traceback__ = None

    await call_often()
    gc.collect()
    gc.disable()
    try:
        await call_often()
        await asyncio.sleep(0)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(type(thing).__name__ for thing in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    client.close()
    await front.stop(grace_s=1)
    assert found.total() < CALLS, found.most_common(12)
