"""The load of a chaos run against a gateway over the real core: all that it was told is explained.

And when the shop behind the gateway breaks a rule, the checks say which: from the load to the
verdict nothing is made up here but the shop's fault.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from stockray import AsyncClient, Status, TeamState

from actors.core import commands as c
from actors.core import records as r
from actors.core.codec import pack_entry, unpack_entry
from actors.core.evolve import close_entry
from actors.core.identity import ACCOUNT_SLOT_COUNT, SLOT_COUNT
from actors.core.outcomes import Outcome
from actors.core.relay_commands import TAKE_FACTS, Placed, TakeFacts
from persistence.ports import Entry
from server.chaos.account_checks import Told, check_accounts, read_accounts
from server.chaos.books import Books
from server.chaos.checks import Checks, check_history, new_checks
from server.chaos.goods import lines_of, prepare
from server.chaos.history import History
from server.chaos.load import Load, LoadPlan, groups_of
from server.chaos.referrals import Referrals
from server.chaos.team_goods import GroupGoods
from server.edge import Edge
from server.relay import numbered_facts
from tests.helpers.core_lines import START_MS, CoreLines, FakeClock
from tests.unit.server.conftest import serving
from tests.unit.server.test_chaos_checks import OF_TEAMS, OF_THE_HISTORY

OPERATIONS = 2_400
SLOTS_OF = (0,) * (SLOT_COUNT + ACCOUNT_SLOT_COUNT)
OF_ACCOUNTS = {"earned", "reversed", "ledger", "bound", "frozen"}
RARE = frozenset(
    {
        ("reserve", "BUYER_FROZEN"),
        ("bind", "APPLIED"),
        ("deliver", "NOTED"),
    }
)
"""Told to few: a load goes on until all of it was."""
EVERYTHING = RARE | {
    ("grab", "RESERVED"),
    ("reserve", "RESERVED"),
    ("grab", "SOLD_OUT"),
    ("grab", "LIMIT_EXCEEDED"),
    ("confirm", "CONFIRMED"),
    ("confirm", "REFUND_DUE"),
    ("begin", "PAYMENT_BEGUN"),
    ("report_failed", "NOTED"),
    ("release", "RELEASED"),
    ("return", "RETURNED"),
    ("get_stock", "FOUND"),
    ("get_reservation", "FOUND"),
    ("open_team", "RESERVED"),
    ("open_team", "TOO_MANY_TEAMS"),
    ("join_team", "RESERVED"),
    ("join_team", "TEAM_FULL"),
    ("join_team", "TEAM_CLOSED"),
    ("join_team", "TEAM_NOT_OPEN"),
    ("join_team", "ALREADY_IN_TEAM"),
    ("join_team", "NEW_BUYERS_ONLY"),
    ("leave_team", "LEFT"),
    ("complete_team", "APPLIED"),
    ("get_team", "FOUND"),
    ("suggest_teams", "FOUND"),
    ("bind", "APPLIED"),
    ("bind", "NOT_ACTIVE"),
}
PLAN = LoadPlan(
    seed=5,
    promoter_rate=600,
    seconds=60,
    steady_rate=400,
    busy_rate=3_000,
    busy_callers=12,
    team_rate=3_000,
    team_callers=8,
)
Shop = Callable[[], CoreLines]


class Honest(CoreLines):
    """The core as it is, at the time of day."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.clock.pass_ms(int(time.time() * 1000) - START_MS)

    def decide_now(self, commands: Sequence[Any]) -> list[tuple[Any, ...]]:
        self.clock.pass_ms(1)
        return super().decide_now(commands)


class Forgetful(Honest):
    """Acknowledges payments, and now and then leaves one out of its journal."""

    def _journal(self, records: list[Any]) -> None:
        kept = [
            record
            for record in records
            if record.kind != r.RESERVATION_CONFIRMED or record.key[0] % 8
        ]
        balances = close_entry(self.state)
        data = pack_entry(epoch=1, now_ms=self.clock.now_ms(), records=kept, balances=balances)
        self.entries.append(Entry(self.state.seq, 1, "", data))


class Stale(Honest):
    """Answers reads of a pool from what it was some reads ago."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, str], list[tuple[Any, ...]]] = {}

    def decide_now(self, commands: Sequence[Any]) -> list[tuple[Any, ...]]:
        answers = super().decide_now(commands)
        for index, command in enumerate(commands):
            if command.kind == c.GET_STOCK:
                seen = self.seen.setdefault((command.campaign_id, command.sku_id), [])
                seen.append(answers[index])
                answers[index] = seen[-3:][0]
        return answers


class Denying(Honest):
    """Tells every twentieth winner that all is sold out."""

    def decide_now(self, commands: Sequence[Any]) -> list[tuple[Any, ...]]:
        answers = super().decide_now(commands)
        for index, answer in enumerate(answers):
            if answer[0] == Outcome.RESERVED and answer[1][0] % 20 == 0:
                answers[index] = (Outcome.SOLD_OUT, 0, ())
        return answers


class Generous(Honest):
    """Remembers no id: who asks again is served again, by another price."""

    def decide_now(self, commands: Sequence[Any]) -> list[tuple[Any, ...]]:
        answers = super().decide_now(commands)
        seen = self.told
        for index, (command, answer) in enumerate(zip(commands, answers, strict=True)):
            if command.kind == c.RESERVE and answer[0] == Outcome.RESERVED:
                seen[command.request_id] += 1
                dearer = answer[4] + seen[command.request_id] - 1
                answers[index] = (*answer[:4], dearer, *answer[5:])
        return answers

    def __init__(self) -> None:
        super().__init__()
        self.told: Counter[str] = Counter()


class Relayed(NamedTuple):
    """A load that is over, and what can be known of it."""

    history: History
    entries: list[Entry]
    told: Told

    def books(self) -> Books:
        """The journal's order."""
        books = Books(1)
        for entry in self.entries:
            books.take(0, entry)
        return books


def enough(load: Load, rare: frozenset[tuple[str, str]]) -> bool:
    """Whether everything was asked for by now."""
    operations = load.history.operations
    if len(operations) < OPERATIONS:
        return False
    return not rare or rare <= {(one.verb, one.status) for one in operations}


class Teller:
    """A relay from a shard's stock slots to its own account slots."""

    def __init__(self, lines: CoreLines) -> None:
        self._lines = lines
        self._read = 0
        self._mark = (0, 0)

    async def run(self) -> None:
        """For ever."""
        while True:
            self.tell()
            await asyncio.sleep(0.005)

    def tell(self) -> None:
        """All facts of the entries that are there now."""
        entries = self._lines.entries[self._read :]
        self._read += len(entries)
        facts: list[Placed] = []
        for entry in entries:
            content = unpack_entry(entry.data)
            for _, *place, fact in numbered_facts(SLOTS_OF, content.records, content.now_ms):
                index, slot = place
                facts.append((entry.seq, index, slot, fact))
        if facts:
            head = (TAKE_FACTS, facts[0][2], 0, "relay", 0, "first")
            ((outcome, _),) = self._lines.decide_now([TakeFacts(*head, *self._mark, facts)])
            assert outcome == Outcome.APPLIED
            self._mark = facts[-1][:2]


async def sold(lines: CoreLines, rare: frozenset[tuple[str, str]] = RARE) -> Relayed:
    """A load of some operations, and the journal behind it."""
    goods, groups, referrals = lines_of(1), groups_of(1, PLAN), Referrals()
    teller, edge = Teller(lines), Edge(None, now_ms=lines.clock.now_ms)
    async with (
        lines.running(),
        serving(lines, edge=edge) as gateway,
        AsyncClient(gateway.address) as client,
    ):
        await prepare(client, goods[0], seconds=60)
        await groups[0].prepare(client, seconds=60)
        await referrals.prepare(client, goods[0])
        relaying = asyncio.create_task(teller.run())
        load = Load(gateway.address, PLAN, goods, groups, referrals)
        async with asyncio.timeout(60), load:
            while not enough(load, rare):
                load.check_callers()
                await asyncio.sleep(0.01)
        await groups[0].end_all(client)
        relaying.cancel()
        lines.end_teams()
        teller.tell()
        lines.clock.pass_ms(10_000)
        lines.look_at_programme()
        told = await read_accounts(client, referrals, load.frozen)
    return Relayed(load.history, lines.entries, told)


async def checked(
    lines: CoreLines, rare: frozenset[tuple[str, str]] = frozenset()
) -> tuple[History, Checks]:
    """The same, checked."""
    relayed = await sold(lines, rare)
    checks, operations, books = new_checks(), relayed.history.operations, relayed.books()
    check_history(operations, books, checks)
    check_accounts(operations, books.accounts, relayed.told, checks)
    return relayed.history, checks


def violated(checks: Checks) -> set[str]:
    return {name for name, found in checks.items() if found.violations}


async def test_an_honest_shop_is_explained_whole_and_nothing_goes_unchecked() -> None:
    _, checks = await checked(Honest(), EVERYTHING)
    assert {name: found.examples for name, found in checks.items() if found.violations} == {}
    looked_at = OF_THE_HISTORY | OF_TEAMS | OF_ACCOUNTS
    assert {name for name, found in checks.items() if found.checked} == looked_at


@pytest.mark.parametrize(
    ("shop", "named"),
    [
        (Forgetful, "lost_acks"),
        (Stale, "reads"),
        (Denying, "phantom_refusals"),
        (Generous, "changed_answers"),
    ],
)
async def test_a_shop_that_breaks_a_rule_is_found_by_its_customers(shop: Shop, named: str) -> None:
    _, checks = await checked(shop())
    assert named in violated(checks)


async def test_a_load_that_is_long_asks_less_often() -> None:
    """All of a run has to fit into its history."""
    goods = lines_of(2)
    plans = [LoadPlan(seed=1, seconds=seconds) for seconds in (60, 36_000)]
    short, long = (
        Load("127.0.0.1:1", plan, goods, groups_of(2, plan), Referrals()) for plan in plans
    )
    assert short.slower == 1.0
    assert 0 < long.slower < 0.1


async def test_group_campaigns_follow_one_another_and_end_with_their_teams() -> None:
    lines, goods = Honest(), GroupGoods(0, 1, seconds=0.02, each_s=0.01)
    first, second = goods.lines
    async with lines.running(), serving(lines) as gateway, AsyncClient(gateway.address) as client:
        await goods.prepare(client, seconds=60)
        assert goods.line == first
        opened = await client.open_team(first.campaign_id, first.sku_id, buyer_id="ann")
        paid = await client.confirm(
            opened.reservation_id, payment_id="p1", paid_minor=opened.payable_minor
        )
        assert paid.status is Status.CONFIRMED
        await goods.end_in_turn(client, lambda: True)
        assert goods.line == second
        lines.end_teams()
        late = await client.open_team(first.campaign_id, first.sku_id, buyer_id="bob")
        assert late.status is Status.ENDED
        team = (await client.get_team(opened.team_id)).team
        assert team is not None
        assert team.state is TeamState.FAILED
        now = await client.open_team(second.campaign_id, second.sku_id, buyer_id="bob")
        assert now.ok
