"""A gateway's senders over a pair of shells, or over replicas that do what a test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from actors.core import commands as c
from actors.core.outcomes import Outcome
from actors.rounds import Answers, RoundStatus, pack_answers, unpack_round
from actors.shard import Promotion
from server.gather import Gather, GatherLimits, Sender
from tests.helpers.shells import (
    LoopClock,
    LoopLink,
    Pair,
    get_stock,
    payload_has_lines,
    put_sku,
    receive,
    reserve,
    running,
)


async def no_chores(_: tuple[Any, ...]) -> None:
    """For tests without chores."""


class Desk:
    """A gateway over one pair."""

    def __init__(self, pair: Pair, on_chore: Any = no_chores, **changes: Any) -> None:
        self.pair = pair
        self.links = {name: LoopLink(pair, name) for name in ("a", "b")}
        self.sender = Sender(
            shard=0,
            gateway="test",
            links=list(self.links.items()),
            clock=pair.clock,
            limits=GatherLimits(**changes),
            map_version=1,
            on_chore=on_chore,
        )
        self.gather = Gather([self.sender], [0] * 1024)

    def deadline(self, wait_ms: int = 5_000) -> int:
        return self.pair.clock.now_ms() + wait_ms

    async def ask(self, *lines: Any) -> list[Outcome]:
        return [Outcome(answer[0]) for answer in await self.gather.submit(lines)]

    def asking(self, *lines: Any) -> "asyncio.Future[list[Outcome]]":
        return asyncio.ensure_future(self.ask(*lines))

    async def stock_up(self, units: int = 100) -> None:
        done = await self.ask(put_sku(self.deadline()), receive(self.deadline(), units))
        assert done == [Outcome.APPLIED] * 2

    def reserve(self, request: str, wait_ms: int = 5_000) -> c.Reserve:
        return reserve(self.deadline(wait_ms), request)

    async def reserved(self) -> int:
        """Units held, as the primary has them."""
        return int((await self.gather.submit([get_stock(self.deadline())]))[0][1][6])


@asynccontextmanager
async def desk(pair: Pair | None = None, *names: str, **changes: Any) -> AsyncIterator[Desk]:
    """A running gateway over a running pair, with tea in stock."""
    async with running(pair or Pair(), *names) as started:
        opened = Desk(started, **changes)
        task = asyncio.create_task(opened.gather.run())
        try:
            await opened.stock_up()
            yield opened
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def lines_in(payload: bytes) -> int:
    return len(unpack_round(payload).lines)


def full_rounds(link: LoopLink) -> list[int]:
    """Line counts of the rounds that had lines."""
    return [lines_in(payload) for payload in link.sent if payload_has_lines(payload)]


class ScriptedLink:
    """A replica that does what a test says."""

    def __init__(self, answer: Callable[[bytes], Any], token: str = "") -> None:
        self.answer = answer
        self.token = token
        self.life = token or "x"
        self.sent: list[bytes] = []
        self.in_flight = 0
        self.in_flight_max = 0
        self.promote_answers: list[Promotion] = []
        self.promoted: list[int] = []

    async def hello(self) -> str:
        self.token = self.life
        return self.token

    def forget(self) -> None:
        self.token = ""

    async def round(self, payload: bytes) -> bytes:
        if payload_has_lines(payload):
            self.sent.append(payload)
            self.in_flight += 1
            self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            found = self.answer(payload)
            answers = await found if asyncio.iscoroutine(found) else found
            return pack_answers(answers)
        finally:
            self.in_flight -= payload_has_lines(payload)

    async def promote(self, seen_epoch: int, seen_seq: int) -> Promotion:
        self.promoted.append(seen_epoch)
        return self.promote_answers.pop(0)

    async def control(self, method: str, *arguments: Any) -> Any:
        return (method, *arguments)


def echo(payload: bytes, token: str = "x", epoch: int = 1) -> Answers:
    """OK: each line is answered with its request id."""
    lines = unpack_round(payload).lines
    answers = tuple((int(Outcome.RESERVED), line[4]) for line in lines)
    return Answers(RoundStatus.OK, epoch, token, token, answers, ())


def not_primary(epoch: int, owner: str, token: str) -> Answers:
    return Answers(RoundStatus.NOT_PRIMARY, epoch, owner, token, (), ())


def busy(epoch: int = 1, token: str = "x") -> Answers:
    return Answers(RoundStatus.BUSY, epoch, token, token, (), ())


@asynccontextmanager
async def scripted(*links: ScriptedLink, **changes: Any) -> AsyncIterator[tuple[Gather, LoopClock]]:
    """A gateway over scripted replicas."""
    clock = LoopClock()
    sender = Sender(
        shard=0,
        gateway="test",
        links=[(chr(97 + index), link) for index, link in enumerate(links)],
        clock=clock,
        limits=GatherLimits(**changes),
        map_version=1,
        on_chore=no_chores,
    )
    gather = Gather([sender], [0] * 1024)
    task = asyncio.create_task(gather.run())
    try:
        yield gather, clock
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def restart_the_dead(pair: Pair) -> None:
    """What Ray does."""
    while True:
        for name, instance in list(pair.instances.items()):
            if not instance.alive:
                pair.start(name)
        await asyncio.sleep(0.05)
