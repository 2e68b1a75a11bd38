"""What a seat of a team costs its shard beside a grab, and what many open teams cost it.

Run it as `python -m tests.bench.team_line [--teams N] [--directory DIR]`. One process, no Ray, no
gateway: a real primary over a real journal on SQLite, as in `shard_line`. It prints

* CPU in microseconds per line, of rounds of 1,000 lines in turn, the median round: grabs of a
  flash sale, openings, payments and joins of a group-buy; and what a join costs of a grab;
* with so many open teams of one campaign, CPU of one suggestion, and of one step of ending teams
  whose deadline has passed, each decided and folded: median and worst.

The budgets: a join 1.5 times a grab; a suggestion and a step of deadlines 5 ms each.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import count
from statistics import median
from typing import Any

from actors.clock import WallClock
from actors.core import commands as c
from actors.core import team_commands as t
from actors.core.campaign_config import CampaignConfig, CampaignLine, GroupRules, Tier
from actors.core.decide import decide
from actors.core.evolve import close_entry, evolve, open_entry
from actors.core.identity import public_id, slot_of
from actors.core.outcomes import Outcome
from actors.core.pulse import Pulse
from actors.core.state import ShardState
from actors.hosting import collect_young, stop_collector
from actors.limits import ShardLimits
from actors.primary import Primary
from actors.rounds import pack_line, pack_round, unpack_answers
from persistence.ports import Journal
from tests.bench import shard_line
from tests.bench.shard_line import LINES, UNITS, Stages, journals, on_a_replicas_loop, one_round

CAMPAIGN, SKU = "together-11", "sku-2001"
SLOT = slot_of(CAMPAIGN)
PRICE, PEOPLE = 9_900, 5
ROUNDS = 40
"""Of joins, and of grabs between them."""
SUGGESTIONS = 300
WINDOW_MS = 86_400_000


class Shop:
    """A primary, and who asks it."""

    def __init__(self, primary: Primary, stages: Stages) -> None:
        self.stages = stages
        self._primary = primary
        self._numbers = count()

    async def ask(self, kind: str, commands: list[Any], wanted: Outcome) -> list[Any]:
        """One round, as a gateway sends it."""
        payload = pack_round(
            gateway="bench",
            sent_ms=WallClock().now_ms(),
            map_version=1,
            lines=[pack_line(command) for command in commands],
        )
        answers = unpack_answers(await one_round(self._primary, payload, self.stages, kind)).answers
        assert all(answer[0] == wanted for answer in answers), answers[0]
        collect_young()
        return list(answers)

    def head(self, kind: int, slot: int) -> tuple[int, int, int, str]:
        """What every command begins with."""
        return (kind, slot, WallClock().now_ms() + 10_000, "default")

    def grabs(self) -> list[Any]:
        """A thousand grabs of the flash sale, a buyer each."""
        head = self.head(c.RESERVE, shard_line.SLOT)
        ware = (shard_line.CAMPAIGN, shard_line.SKU, 1)
        return [c.Reserve(*head, self._id(n), *ware, f"u-{n}") for n in self._next()]

    def openings(self) -> list[Any]:
        """A thousand teams, a buyer each."""
        head = self.head(t.OPEN_TEAM, SLOT)
        return [t.OpenTeam(*head, self._id(n), CAMPAIGN, SKU, 1, f"u-{n}") for n in self._next()]

    def joins(self, teams: Iterator[bytes]) -> list[Any]:
        """A thousand joins, a buyer each, in the order of the teams given."""
        head = self.head(t.JOIN_TEAM, SLOT)
        return [t.JoinTeam(*head, self._id(n), next(teams), 1, f"u-{n}") for n in self._next()]

    def payments(self, opened: list[Any]) -> list[Any]:
        """Of the seats in these answers, what each is to pay."""
        head = self.head(c.CONFIRM, SLOT)
        due = [(public_id(SLOT, answer[1]), answer[4]) for answer in opened]
        return [c.Confirm(*head, seat, f"p-{seat}", payable) for seat, payable in due]

    def _next(self) -> list[int]:
        return [next(self._numbers) for _ in range(LINES)]

    def _id(self, number: int) -> str:
        return f"0190c0de-team-bbbb-{number:016d}"


def stocked() -> list[Any]:
    """The flash sale of `shard_line`, and a group-buy with as many units."""
    far = WallClock().now_ms() + 60_000
    config = CampaignConfig(
        name="Together 11",
        starts_ms=0,
        ends_ms=far + 2 * WINDOW_MS,
        currency_code="CNY",
        payment_window_ms=900_000,
        limit_per_buyer=5,
        required_claims=(),
        lines=(
            CampaignLine(
                SKU, UNITS, 10_000, 0, 2, (Tier(2, PRICE), Tier(3, 8_900), Tier(PEOPLE, 6_900))
            ),
        ),
        group=GroupRules(WINDOW_MS, 1, 3, 500, 1, False),
    )
    head = (SLOT, far, "bench")
    return [
        *shard_line.stocked(),
        c.PutCampaign(c.PUT_CAMPAIGN, *head, CAMPAIGN, config),
        c.TransferIn(c.TRANSFER_IN, *head, bytes(16), SKU, CAMPAIGN, UNITS),
    ]


async def sell(journal: Journal, stages: Stages, wanted: int) -> ShardState:
    """Open so many teams, then join some of them between grabs; the state afterwards."""
    primary = await shard_line.primary_over(journal)
    running = asyncio.create_task(primary.run())
    shop = Shop(primary, stages)
    await shop.ask("setup", stocked(), Outcome.APPLIED)
    teams: list[bytes] = []
    while len(teams) < wanted:
        opened = await shop.ask("open", shop.openings(), Outcome.RESERVED)
        await shop.ask("pay", shop.payments(opened), Outcome.CONFIRMED)
        teams += [answer[8] for answer in opened]
    # One more could join, and a new buyer: no join is refused, and all teams can be suggested.
    places = (key for key in teams for _ in range(PEOPLE - 3))
    for _ in range(min(ROUNDS, len(teams) * (PEOPLE - 3) // LINES)):
        await shop.ask("grab", shop.grabs(), Outcome.RESERVED)
        await shop.ask("join", shop.joins(places), Outcome.RESERVED)
    running.cancel()
    return primary.state


def suggestions_ms(state: ShardState) -> list[float]:
    """CPU of suggestions of ten teams, each to another buyer."""
    took = []
    for number in range(SUGGESTIONS):
        command = t.SuggestTeams(
            *(t.SUGGEST_TEAMS, SLOT, 0, "default", CAMPAIGN, ""), f"u-{number}", number % 2 == 0, 10
        )
        began = time.thread_time()
        answer, _ = decide(state, command, state.now_ms)
        took.append((time.thread_time() - began) * 1000)
        assert len(answer[1]) == 10, answer
    return took


def deadlines_ms(state: ShardState) -> list[float]:
    """CPU of the steps that end all teams, one entry each, when all their deadlines have passed."""
    pulse, took, now_ms = Pulse(), [], state.now_ms + 2 * WINDOW_MS
    limit = ShardLimits().team_records_a_round
    while True:
        began = time.thread_time()
        records = pulse.teams(state, now_ms, limit)
        if not records:
            return took
        open_entry(state, state.seq + 1, now_ms)
        for record in records:
            evolve(state, record)
        close_entry(state)
        took.append((time.thread_time() - began) * 1000)
        collect_young()


def report(stages: Stages, teams: int) -> None:
    """Print what lines cost."""

    def us(kind: str) -> float:
        return sum(stages.middle_us(f"{kind} {part}", LINES) for part in ("loop", "journal"))

    print(
        f"  us a line: grab {us('grab'):.2f}, open {us('open'):.2f}, pay {us('pay'):.2f}, ", end=""
    )
    print(f"join {us('join'):.2f} = {us('join') / us('grab'):.2f} x a grab; {teams:,} teams open")


def _spread(name: str, measure: Callable[[], list[float]]) -> None:
    took = measure()
    print(f"  {name}: median {median(took):.3f} ms, worst {max(took):.3f} ms, of {len(took):,}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teams", type=int, default=100_000, help="open teams of one campaign")
    parser.add_argument("--directory", default="", help="where SQLite's files go")
    arguments = parser.parse_args()
    stop_collector()
    stages = Stages()
    with journals(arguments.directory, redis=False) as (name, journal):
        state = on_a_replicas_loop(sell(journal, stages, arguments.teams))
        print(f"{name}: rounds of {LINES:,} lines")
        report(stages, arguments.teams)
        _spread("a suggestion", lambda: suggestions_ms(state))
        _spread("a step of deadlines", lambda: deadlines_ms(state))
        journal.close()


if __name__ == "__main__":
    main()
