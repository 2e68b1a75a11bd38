"""The scripted sale by grpc.aio. See `sale_script.py`."""

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio
from stockray_proto.v1 import inventory_service_pb2_grpc, reservation_pb2

from tests.interop.python import sale_script as script
from tests.interop.python.sale_script import TIMEOUT_S, say, say_reserved, status_name, wish


class Sale:
    """One run over one channel."""

    def __init__(self, channel: grpc.aio.Channel, run: str) -> None:
        self.channel = channel
        self.run = run
        self.few = f"{run}-few"
        self.inventory: Any = inventory_service_pb2_grpc.InventoryServiceStub(channel)

    async def reserve(
        self, sku_id: str, name: str, quantity: int = 1
    ) -> reservation_pb2.ReserveResult:
        request = wish(sku_id, f"{self.run}-{name}", quantity)
        result: reservation_pb2.ReserveResult
        for _ in range(script.RESENDS_MAX):
            result = (await self.inventory.Reserve(request, timeout=TIMEOUT_S)).result
            if result.status not in script.TRY_AGAIN:
                break
        return result

    async def all_steps(self) -> None:
        first = await self.reserve(self.few, "first")
        say_reserved("reserve", first)
        say_reserved("retry", await self.reserve(self.few, "first"))
        say("sold_out", status=status_name((await self.reserve(self.few, "second", 3)).status))
        say("reused", status=status_name((await self.reserve(self.few, "first", 2)).status))
        paid = script.payment(self.run, first.reservation_id, first.payable_minor)
        confirmed = await self.inventory.Confirm(paid, timeout=TIMEOUT_S)
        say("confirm", status=status_name(confirmed.result.status))
        await self.refused("refused", self.reserve(self.few, "x" * 129, 0))
        nowhere: Any = self.channel.unary_unary(script.NOWHERE)
        await self.refused("unimplemented", nowhere(b"", timeout=TIMEOUT_S))
        await self.stream()
        await self.deadline()
        await self.cancelled_reserve()
        await self.large()
        await self.crowd()
        skus = [self.few, f"{self.run}-many", f"{self.run}-crowd"]
        script.say_books([await self.inventory.GetStock(script.pool(sku)) for sku in skus])

    async def refused(self, step: str, call: Any) -> None:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            script.say_refused(step, error.code(), tuple(error.trailing_metadata()))

    async def stream(self) -> None:
        messages = self.inventory.WatchStock(script.watch(self.few), timeout=TIMEOUT_S)
        first = (await messages.read()).stocks[0].available_count
        await self.reserve(self.few, "stream")
        message = await messages.read()
        while not message.stocks:
            message = await messages.read()
        say("stream", first=first, second=message.stocks[0].available_count)
        messages.cancel()
        say("cancel", code=(await messages.code()).value[0])

    async def deadline(self) -> None:
        messages = self.inventory.WatchStock(script.watch(self.few), timeout=0.5)
        count = 0
        try:
            async for _ in messages:
                count += 1
        except grpc.aio.AioRpcError as error:
            say("deadline", code=error.code().value[0], messages=count)

    async def cancelled_reserve(self) -> None:
        flying = self.inventory.Reserve(wish(self.few, f"{self.run}-cancelled"), timeout=TIMEOUT_S)
        await asyncio.sleep(0)  # Lets the call begin; what it has done by then is not known.
        flying.cancel()
        code = (await flying.code()).value[0]
        again = await self.reserve(self.few, "cancelled")
        say("cancelled_reserve", code=code, status=status_name(again.status))

    async def large(self) -> None:
        request = script.large_wish(self.run)
        for _ in range(script.RESENDS_MAX):
            answer = await self.inventory.ReserveMany(request, timeout=TIMEOUT_S)
            if script.is_final(answer):
                break
        script.say_large(request, answer)

    async def crowd(self) -> None:
        async def one(number: int) -> reservation_pb2.ReserveResult:
            return await self.reserve(f"{self.run}-crowd", f"crowd-{number}")

        script.say_crowd(await asyncio.gather(*(one(number) for number in range(script.CROWD))))


async def main() -> None:
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        await Sale(channel, sys.argv[2]).all_steps()


if __name__ == "__main__":
    asyncio.run(main())
