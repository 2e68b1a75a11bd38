"""The edge: who is refused before any shard is asked.

Rules
-----
* Guarded is what makes something new: reserving, grabbing, opening and joining teams, binding.
  Whatever serves what a buyer holds already (payments, refunds, returns) passes, whoever it is.
* A frozen buyer is refused BUYER_FROZEN; one who asks too often RATE_LIMITED, and is told for how
  long. A refusal takes no token, asks nobody and is remembered by nobody: the same id may come
  again. Buckets are of a buyer, of an address and of a device; each line counts as one.
* A key's bucket has its whole burst on every gateway and refills at this gateway's share of the
  rate: n gateways let no more through than the rate and n bursts.
* Who is frozen is pulled from the account shards every 250 ms and is known as of then: what happens
  within the lag passes. Until each set was whole once the edge is not `ready`, and its gateway
  serves nobody for as long as it has patience; it is `stale` when one is older than 5 s.
* A campaign may ask for a score. The edge does not know which do: it says on the line what it knows
  of a buyer below the line, or that its sets are too old, and the shard refuses or answers RETRY.
* Hits of a buyer's own limits are signals, told in batches. An address is not a person: who is
  refused for it did nothing.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog

from actors.core.commands import RESERVE
from actors.core.commission_commands import BIND_REFERRER
from actors.core.identity import ACCOUNT_SLOT_COUNT, SLOT_COUNT, account_slot
from actors.core.outcomes import Outcome
from actors.core.risk_commands import PULL_RISK, REPORT_SIGNALS, PullRisk, ReportSignals
from actors.core.risk_state import LOW_SCORE, SCORE_MAX, UNKNOWN_SCORE, score_at
from actors.core.team_commands import JOIN_TEAM, OPEN_TEAM
from server.buckets import Buckets, Rate
from server.handlers import OWN_CALLER, wall_ms
from server.lines import Lines
from server.risk_set import RiskSet, Watched

log = structlog.get_logger("server.edge")

Answer = tuple[Any, ...]

SCORED = frozenset({RESERVE, OPEN_TEAM, JOIN_TEAM})
"""Kinds of commands whose campaign may ask for a score."""
GUARDED = SCORED | {BIND_REFERRER}
"""Kinds of commands that the edge may refuse."""
PULL_EVERY_S = 0.25
STALE_S = 5.0
PULL_DEADLINE_MS = 2_000
REPORT_EVERY_S = 1.0
REPORTED_MAX = 1_000
"""Buyers in one report of hits; of others who hit a limit in the same second nothing is told."""
KEYS_MAX = 200_000
"""Of each kind of key, about 100 bytes each."""
FROZEN: Answer = (Outcome.BUYER_FROZEN,)


class EdgeRates(NamedTuple):
    """What everybody may ask for, over all gateways."""

    buyer: Rate
    ip: Rate
    device: Rate


PROFILES = {
    "default": EdgeRates(buyer=Rate(2, 10), ip=Rate(10, 600), device=Rate(2, 10)),
    "strict": EdgeRates(buyer=Rate(1, 3), ip=Rate(10 / 60, 10), device=Rate(1, 3)),
}
"""By the setting `risk_profile`; with `off` nobody is refused for a rate."""


def share_of(rate: Rate, gateways: int) -> Rate:
    """A gateway's part of a rate: callers spread their calls over all gateways."""
    return rate._replace(per_s=rate.per_s / gateways)


class Edge:
    """What one gateway knows and counts of those who ask. Of one event loop."""

    def __init__(
        self,
        rates: EdgeRates | None,
        *,
        gateways: int = 1,
        now_ms: Callable[[], int] = wall_ms,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `rates` nobody is refused for a rate."""
        self.ready = asyncio.Event()
        """Set once all sets were whole."""
        self.refused = {"frozen": 0, "buyer": 0, "ip": 0, "device": 0}
        """Lines, by why."""
        self._now_ms = now_ms
        self._now_s = now_s
        self._sets: list[RiskSet] = []
        self._watched: tuple[dict[str, Watched], ...] = ()
        """Of the sets that tell of anybody, what they tell."""
        self._fresh_until_s = float("-inf")
        self._hits: dict[str, int] = {}
        self._buckets: tuple[Buckets, Buckets, Buckets] | None = None
        if rates is not None:
            buyer, ip, device = (
                Buckets(share_of(rate, gateways), keys_max=KEYS_MAX) for rate in rates
            )
            self._buckets = (buyer, ip, device)
        self._turns_at = self._room = 0.0
        """When, or after how many lines, buckets are to be turned."""

    def begin(self, lines: int) -> float:
        """The time at which so many lines are judged."""
        now = self._now_s()
        self._room -= lines
        if now >= self._turns_at or self._room < 0:
            self._turn(now, lines)
        return now

    def _turn(self, now: float, lines: int) -> None:
        buckets = self._buckets or ()
        for one in buckets:
            one.turn(now, lines)
        self._turns_at = min((one.turns_at for one in buckets), default=float("inf"))
        self._room = min((one.room for one in buckets), default=float("inf")) - lines

    def refusal(self, command: Any, now: float) -> Answer | None:
        """The answer to a guarded command that goes no further: (BUYER_FROZEN,) or
        (RATE_LIMITED, None, milliseconds to wait). None takes its tokens. `now` is of `begin`."""
        buyer_id = command.buyer_id
        for rows in self._watched:
            watched = rows.get(buyer_id)
            if watched is not None and watched[0] > self._now_ms():
                self.refused["frozen"] += 1
                return FROZEN
        if self._buckets is None:
            return None
        ip = device_id = ""
        if command[0] in SCORED:
            ip, device_id = command.ip, command.device_id
        buyers, addresses, devices = self._buckets
        ip_at = now
        known_at = buyers.current.get(buyer_id)
        buyer_at = buyers.previous.get(buyer_id, now) if known_at is None else known_at
        if buyer_at - now > buyers.slack:
            return self._over_rate("buyer", buyer_id, buyer_at - now - buyers.slack)
        if ip:
            known_at = addresses.current.get(ip)
            ip_at = addresses.previous.get(ip, now) if known_at is None else known_at
            if ip_at - now > addresses.slack:
                return self._over_rate("ip", buyer_id, ip_at - now - addresses.slack)
        if device_id:
            known_at = devices.current.get(device_id)
            device_at = devices.previous.get(device_id, now) if known_at is None else known_at
            if device_at - now > devices.slack:
                return self._over_rate("device", buyer_id, device_at - now - devices.slack)
            devices.current[device_id] = (device_at if device_at > now else now) + devices.interval
        if ip:
            addresses.current[ip] = (ip_at if ip_at > now else now) + addresses.interval
        buyers.current[buyer_id] = (buyer_at if buyer_at > now else now) + buyers.interval
        return None

    def _over_rate(self, why: str, buyer_id: str, wait_s: float) -> Answer:
        self.refused[why] += 1
        if why != "ip":
            self._hit(buyer_id)
        return (Outcome.RATE_LIMITED, None, int(wait_s * 1_000) + 1)

    def says_nothing(self, now: float) -> bool:
        """Whether `scored` would leave every command as it is."""
        return not self._watched and now <= self._fresh_until_s

    def scored(self, command: Any, now: float) -> Any:
        """A command that goes on: as it is, or with a score that its campaign may refuse."""
        if command[0] not in SCORED:
            return command
        if now > self._fresh_until_s:
            return command._replace(score=UNKNOWN_SCORE)
        buyer_id = command.buyer_id
        for rows in self._watched:
            if buyer_id in rows:
                return command._replace(score=self.score(buyer_id))
        return command

    def score(self, buyer_id: str) -> int:
        """The buyer's score if it is below the line that account shards tell, else 100."""
        for rows in self._watched:
            watched = rows.get(buyer_id)
            if watched is not None and watched[1]:
                score = score_at(watched[1], self._now_ms())
                return score if score < LOW_SCORE else SCORE_MAX
        return SCORE_MAX

    def age_s(self) -> float:
        """Of the oldest set; infinite until all were whole once."""
        times = [known.taken_at for known in self._sets]
        if not times or None in times:
            return float("inf")
        return self._now_s() - min(at for at in times if at is not None)

    @property
    def stale(self) -> bool:
        """Whether too little is known to rely on it."""
        return self._now_s() > self._fresh_until_s

    async def learns_within(self, patience_s: float) -> bool:
        """Wait until all sets were whole once. False if that takes longer; they are taken later."""
        try:
            async with asyncio.timeout(patience_s):
                await self.ready.wait()
        except TimeoutError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        """What operators see of it. The age is None until all sets were whole once."""
        return {
            "age_ms": int(self.age_s() * 1_000) if self.ready.is_set() else None,
            "stale": self.stale,
            "frozen": self.frozen_count(),
            "keys": self.keys,
            "refused": dict(self.refused),
        }

    @property
    def keys(self) -> int:
        """Buckets that are remembered, of all kinds."""
        return sum(len(one) for one in self._buckets or ())

    def frozen_count(self) -> int:
        """Buyers who are refused."""
        now_ms = self._now_ms()
        return sum(until_ms > now_ms for known in self._sets for until_ms, _ in known.rows.values())

    def _hit(self, buyer_id: str) -> None:
        if buyer_id in self._hits or len(self._hits) < REPORTED_MAX:
            self._hits[buyer_id] = self._hits.get(buyer_id, 0) + 1

    async def run(self, lines: Lines) -> None:
        """Pull and report for ever, by lines that are not guarded."""
        slots = _slot_of_each_shard(lines)
        self._sets = [RiskSet() for _ in slots]
        async with asyncio.TaskGroup() as tasks:
            for slot, known in zip(slots, self._sets, strict=True):
                tasks.create_task(self._follow(lines, slot, known))
            tasks.create_task(self._report(lines))

    async def _follow(self, lines: Lines, slot: int, known: RiskSet) -> None:
        while True:
            asked_at = self._now_s()
            command = PullRisk(
                PULL_RISK,
                slot,
                self._now_ms() + PULL_DEADLINE_MS,
                OWN_CALLER,
                known.since,
                known.cursor,
            )
            (answer,) = await lines.submit([command])
            more = known.take(answer, asked_at)
            self._watched = tuple(one.rows for one in self._sets if one.rows)
            if more:
                continue
            self._fresh_until_s = self._now_s() - self.age_s() + STALE_S
            if all(one.taken_at is not None for one in self._sets):
                self.ready.set()
            await asyncio.sleep(PULL_EVERY_S)

    async def _report(self, lines: Lines) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            hits, self._hits = self._hits, {}
            deadline_ms = self._now_ms() + PULL_DEADLINE_MS
            commands = [
                ReportSignals(
                    REPORT_SIGNALS, account_slot(buyer), deadline_ms, OWN_CALLER, buyer, count
                )
                for buyer, count in hits.items()
            ]
            if commands:
                answers = await lines.submit(commands)
                lost = sum(answer[0] != Outcome.NOTED for answer in answers)
                log.info("hits_reported", buyers=len(commands), lost=lost)


class GuardedLines:
    """`Lines` behind an edge: what it refuses goes no further."""

    def __init__(self, lines: Lines, edge: Edge) -> None:
        self._lines = lines
        self._edge = edge

    async def submit(self, commands: Sequence[Any]) -> Sequence[Answer]:
        """See `Lines.submit`."""
        edge = self._edge
        now = edge.begin(len(commands))
        refused: dict[int, Answer] = {}
        for at, command in enumerate(commands):
            if command[0] in GUARDED:
                answer = edge.refusal(command, now)
                if answer is not None:
                    refused[at] = answer
        passed = commands
        if refused:
            passed = [command for at, command in enumerate(commands) if at not in refused]
        if not edge.says_nothing(now):
            passed = [edge.scored(command, now) for command in passed]
        answers = await self._lines.submit(passed) if passed else ()
        if not refused:
            return answers
        told = iter(answers)
        return [refused[at] if at in refused else next(told) for at in range(len(commands))]

    def put(self, command: Any, on_answer: Callable[[Answer], object]) -> None:
        """See `Lines.put`."""
        if command[0] in GUARDED:
            edge = self._edge
            now = edge.begin(1)
            refused = edge.refusal(command, now)
            if refused is not None:
                on_answer(refused)
                return
            command = edge.scored(command, now)
        self._lines.put(command, on_answer)

    def shard_of(self, slot: int) -> int:
        """See `Lines.shard_of`."""
        return self._lines.shard_of(slot)


def _slot_of_each_shard(lines: Lines) -> list[int]:
    """For each account shard, a slot of it."""
    slots: dict[int, int] = {}
    for slot in range(SLOT_COUNT, SLOT_COUNT + ACCOUNT_SLOT_COUNT):
        slots.setdefault(lines.shard_of(slot), slot)
    return list(slots.values())
