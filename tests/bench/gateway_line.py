"""CPU time of a gateway's own code, in one process, without network, front or shard.

Run it as `python -m tests.bench.gateway_line`; it prints microseconds, the best of several runs:

* the parts of a line of ReserveMany: up to the commands, and from the answers to bytes;
* a line of GrabMany, from the request's bytes to the response's, with gather and both packings;
* a unary Grab, the same, with so many calls in flight: the front's own cost is not in it;
* both again behind an edge that refuses nobody, as in a gateway: first buyers alone, then with an
  address and a device;
* what the edge itself takes of that.

The link answers with bytes made beforehand; what it costs is measured and subtracted. Budgets on
the build machine: 4 us a line and 0.8 us more for the edge, and a unary call 35 us with the front,
of which an echo takes 10.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from stockray_proto.v1 import common_pb2, inventory_service_pb2, reservation_pb2
from stockray_proto.v1 import seckill_service_pb2 as sec

from actors.clock import WallClock
from actors.core.outcomes import Outcome
from actors.rounds import Answers, RoundStatus, pack_answers
from server.buckets import Rate
from server.edge import Edge, EdgeRates, GuardedLines
from server.gather import Gather, GatherLimits, Sender
from server.handlers import Invocation
from server.recall import RecallingLines
from server.services.table import Services
from server.translate.reserve import reserve_command, reserve_commands, reserve_results

LINES, RUNS = 4_096, 15
CALLS = 8_192
GENEROUS = EdgeRates(*[Rate(1_000, 1_000_000)] * 3)
LINES_AT = 15
"""Where the array of lines begins in a round of a gateway whose name has one letter."""
WON = (int(Outcome.RESERVED), b"0123456789abcdef", 1_000, 900, 900, "CNY", 1_700_000_000_123, 5)
LOST = (int(Outcome.SOLD_OUT), 0, ())


def line(index: int, **buyer: Any) -> reservation_pb2.ReserveLine:
    """A line as a shop sends it."""
    return reservation_pb2.ReserveLine(
        request_id=f"0190c0de-aaaa-bbbb-cccc-{index:012d}",
        sku_id="sku-1001",
        campaign_id="double-11",
        quantity=1,
        buyer=common_pb2.BuyerContext(buyer_id=f"u-{index}", **buyer),
    )


def grab_line(index: int, **buyer: Any) -> sec.GrabLine:
    """The same of a campaign."""
    return sec.GrabLine.FromString(line(index, **buyer).SerializeToString())


def measure_parts(data: bytes, answer: tuple[object, ...]) -> tuple[float, float]:
    """Microseconds per line: up to the commands, and from the answers to bytes."""
    best_in = best_out = float("inf")
    answers = [answer] * LINES
    for _ in range(RUNS):
        began = time.process_time()
        request = inventory_service_pb2.ReserveManyRequest.FromString(data)
        commands, refused = reserve_commands(
            request.lines, caller="default", deadline_ms=1, grab=False
        )
        half = time.process_time()
        reserve_results(request.lines, commands, refused, answers)
        best_in = min(best_in, half - began)
        best_out = min(best_out, time.process_time() - half)
    return best_in / LINES * 1e6, best_out / LINES * 1e6


class InstantLink:
    """Answers every line alike. Counts its own CPU time and what it was asked."""

    def __init__(self, answer: tuple[object, ...]) -> None:
        self.token = "x"
        self.cpu_s = 0.0
        self.rounds = 0
        self._answer = answer
        self._made: dict[int, bytes] = {}

    async def hello(self) -> str:
        return self.token

    async def round(self, payload: bytes) -> bytes:
        await asyncio.sleep(0)
        began = time.process_time()
        head = payload[LINES_AT]
        count = (
            head & 0x0F
            if head & 0xF0 == 0x90
            else int.from_bytes(payload[LINES_AT + 1 : LINES_AT + 3])
        )
        if count not in self._made:
            answers = (self._answer,) * count
            self._made[count] = pack_answers(Answers(RoundStatus.OK, 1, "x", "x", answers, ()))
        self.rounds += 1
        self.cpu_s += time.process_time() - began
        return self._made[count]


class Desk:
    """A gateway's table over an instant link."""

    def __init__(self, answer: tuple[object, ...], edge: Edge | None) -> None:
        self.link: Any = InstantLink(answer)
        sender = Sender(
            shard=0,
            gateway="g",
            links=[("a", self.link), ("b", self.link)],
            clock=WallClock(),
            limits=GatherLimits(),
            map_version=1,
            on_chore=self._no_chore,
        )
        self.gather = Gather([sender], [0] * 1024)
        self.lines = RecallingLines(self.gather, lambda _: None, WallClock())
        self.services = Services(self.lines, edge=edge)
        self.services.health.open()

    async def _no_chore(self, _: tuple[Any, ...]) -> None:
        """There are none."""

    async def grab_many(self, data: bytes) -> float:
        """Microseconds a line of one call."""
        table = self.services.table
        method = table.methods["/stockray.v1.SeckillService/GrabMany"]
        began, link_s = time.process_time(), self.link.cpu_s
        await table.call(method, data, Invocation("peer", {}, None))
        return (time.process_time() - began - self.link.cpu_s + link_s) / LINES * 1e6

    async def grab(self, data: Sequence[bytes], in_flight: int) -> float:
        """Microseconds a call, with so many always in flight."""
        table = self.services.table
        method = table.methods["/stockray.v1.SeckillService/Grab"]
        left, ended = iter(data), asyncio.Event()
        calls = 0

        def done(_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == len(data):
                ended.set()
            # As a front does: the next request comes with the next read, not within the answer.
            asyncio.get_running_loop().call_soon(begin)

        def begin() -> None:
            message = next(left, None)
            if message is not None:
                table.begin(method, message, Invocation("peer", {}, None), done)

        began, link_s = time.process_time(), self.link.cpu_s
        for _ in range(in_flight):
            begin()
        await ended.wait()
        return (time.process_time() - began - self.link.cpu_s + link_s) / len(data) * 1e6


class NobodyWatched:
    """Account shards that tell of nobody."""

    async def submit(self, commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        return [(Outcome.FOUND, True, 0, 0, False, ()) for _ in commands]

    def put(self, command: Any, on_answer: Any) -> None:
        raise NotImplementedError("the edge pulls by submit")

    def shard_of(self, slot: int) -> int:
        return 1


class Unheard(NobodyWatched):
    """Takes lines, and has one answer for all."""

    answers = [(Outcome.RESERVED,)] * LINES

    async def submit(self, commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        return self.answers

    def put(self, command: Any, on_answer: Any) -> None:
        on_answer(self.answers[0])


async def measure_edge(**buyer: Any) -> tuple[float, float]:
    """Microseconds a line of an edge with nothing behind it: of many, and one by one."""
    edge = Edge(GENEROUS)
    pulling = asyncio.create_task(edge.run(NobodyWatched()))
    await edge.ready.wait()
    guarded, heard = GuardedLines(Unheard(), edge), list[tuple[Any, ...]]()
    best_many = best_one = float("inf")
    for run in range(2 * RUNS):
        many, ones = (
            [
                reserve_command(line(n, **buyer), caller="c", deadline_ms=1, grab=False)
                for n in range((2 * run + half) * LINES, (2 * run + half + 1) * LINES)
            ]
            for half in (0, 1)
        )
        began = time.process_time()
        await guarded.submit(many)
        half_s = time.process_time()
        for command in ones:
            guarded.put(command, heard.append)
        best_many = min(best_many, half_s - began)
        best_one = min(best_one, time.process_time() - half_s)
    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)
    assert len(heard) == 2 * RUNS * LINES
    return best_many / LINES * 1e6, best_one / LINES * 1e6


async def measure_whole(
    answer: tuple[object, ...], edge: Edge | None = None, **buyer: Any
) -> list[tuple[str, float]]:
    """(what, microseconds) from request bytes to response bytes."""
    desk = Desk(answer, edge)
    found = []
    task = asyncio.create_task(desk.gather.run())
    if edge is not None:
        edges = asyncio.create_task(edge.run(NobodyWatched()))
        await edge.ready.wait()
    lines = [grab_line(n, **buyer) for n in range(LINES)]
    data = sec.GrabManyRequest(lines=lines).SerializeToString()
    best = min([await desk.grab_many(data) for _ in range(RUNS)])
    found.append(("a line of GrabMany", best))
    calls = [sec.GrabRequest(line=grab_line(n, **buyer)).SerializeToString() for n in range(CALLS)]
    for in_flight in (1, 64, 1_024):
        best = min([await desk.grab(calls, in_flight) for _ in range(3)])
        found.append((f"a Grab, {in_flight} in flight", best))
    tasks = [task] if edge is None else [task, edges]
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def main() -> None:
    """Print one line for each shape of request and answer."""
    full = {"device_id": "d-12345", "ip": "10.0.0.1", "claims": ["new_user"]}
    for name, buyer, answer in (
        ("bare line, reserved", {}, WON),
        ("bare line, sold out", {}, LOST),
        ("device, ip and claim, reserved", full, WON),
    ):
        lines = [line(index, **buyer) for index in range(LINES)]
        data = inventory_service_pb2.ReserveManyRequest(lines=lines).SerializeToString()
        taken, given = measure_parts(data, answer)
        print(f"{name}: {taken:.2f} in + {given:.2f} out = {taken + given:.2f} us a line")
    for name, answer in (("reserved", WON), ("sold out", LOST)):
        for what, cost in asyncio.run(measure_whole(answer)):
            print(f"{what}, {name}: {cost:.2f} us")
    for who, buyer in (("buyers", {}), ("buyers, address and device", full)):
        for what, cost in asyncio.run(measure_whole(WON, Edge(GENEROUS), **buyer)):
            print(f"{what}, reserved, behind an edge of {who}: {cost:.2f} us")
        many, one = asyncio.run(measure_edge(**buyer))
        print(f"the edge itself, of {who}: {many:.2f} us a line of many, {one:.2f} us alone")


if __name__ == "__main__":
    main()
