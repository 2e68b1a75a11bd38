"""The scripted sale by grpcio's blocking client. See `sale_script.py`."""

import sys
from typing import Any

import grpc
from stockray_proto.v1 import inventory_service_pb2_grpc, reservation_pb2

from tests.interop.python import sale_script as script
from tests.interop.python.sale_script import TIMEOUT_S, say, say_reserved, status_name, wish


class Sale:
    """One run over one channel."""

    def __init__(self, channel: grpc.Channel, run: str) -> None:
        self.channel = channel
        self.run = run
        self.few = f"{run}-few"
        self.inventory = inventory_service_pb2_grpc.InventoryServiceStub(channel)

    def reserve(self, sku_id: str, name: str, quantity: int = 1) -> reservation_pb2.ReserveResult:
        request = wish(sku_id, f"{self.run}-{name}", quantity)
        for _ in range(script.RESENDS_MAX):
            result = self.inventory.Reserve(request, timeout=TIMEOUT_S).result
            if result.status not in script.TRY_AGAIN:
                break
        return result

    def all_steps(self) -> None:
        first = self.reserve(self.few, "first")
        say_reserved("reserve", first)
        say_reserved("retry", self.reserve(self.few, "first"))
        say("sold_out", status=status_name(self.reserve(self.few, "second", 3).status))
        say("reused", status=status_name(self.reserve(self.few, "first", 2).status))
        paid = script.payment(self.run, first.reservation_id, first.payable_minor)
        confirmed = self.inventory.Confirm(paid, timeout=TIMEOUT_S)
        say("confirm", status=status_name(confirmed.result.status))
        self.refusals()
        self.stream()
        self.deadline()
        self.cancelled_reserve()
        self.large()
        self.crowd()
        skus = [self.few, f"{self.run}-many", f"{self.run}-crowd"]
        script.say_books([self.inventory.GetStock(script.pool(s), timeout=10) for s in skus])

    def refusals(self) -> None:
        nowhere = self.channel.unary_unary(script.NOWHERE, None, None)
        for step, ask in (
            ("refused", lambda: self.reserve(self.few, "x" * 129, 0)),
            ("unimplemented", lambda: nowhere(b"", timeout=TIMEOUT_S)),
        ):
            try:
                ask()
            except grpc.RpcError as error:
                ended: Any = error  # It is a grpc.Call, too.
                script.say_refused(step, ended.code(), ended.trailing_metadata() or ())

    def stream(self) -> None:
        messages = self.inventory.WatchStock(script.watch(self.few), timeout=TIMEOUT_S)
        first = next(messages).stocks[0].available_count
        self.reserve(self.few, "stream")
        second = next(m.stocks[0].available_count for m in messages if m.stocks)
        say("stream", first=first, second=second)
        messages.cancel()
        say("cancel", code=messages.code().value[0])

    def deadline(self) -> None:
        messages = self.inventory.WatchStock(script.watch(self.few), timeout=0.5)
        count = 0
        try:
            for _ in messages:
                count += 1
        except grpc.RpcError:
            say("deadline", code=messages.code().value[0], messages=count)

    def cancelled_reserve(self) -> None:
        flying = self.inventory.Reserve.future(wish(self.few, f"{self.run}-cancelled"), timeout=10)
        flying.cancel()
        code = flying.code().value[0]
        again = self.reserve(self.few, "cancelled")
        say("cancelled_reserve", code=code, status=status_name(again.status))

    def large(self) -> None:
        request = script.large_wish(self.run)
        for _ in range(script.RESENDS_MAX):
            answer = self.inventory.ReserveMany(request, timeout=TIMEOUT_S)
            if script.is_final(answer):
                break
        script.say_large(request, answer)

    def crowd(self) -> None:
        waiting = {number: f"{self.run}-crowd-{number}" for number in range(script.CROWD)}
        results: dict[int, reservation_pb2.ReserveResult] = {}
        for _ in range(script.RESENDS_MAX):
            flying = {
                number: self.inventory.Reserve.future(
                    wish(f"{self.run}-crowd", request_id), timeout=TIMEOUT_S
                )
                for number, request_id in waiting.items()
            }
            for number, call in flying.items():
                results[number] = call.result().result
                if results[number].status not in script.TRY_AGAIN:
                    del waiting[number]
        script.say_crowd(list(results.values()))


if __name__ == "__main__":
    with grpc.insecure_channel(sys.argv[1]) as channel:
        Sale(channel, sys.argv[2]).all_steps()
