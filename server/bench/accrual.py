"""How the ledger of commission follows a sale: orders by share codes, confirmed as fast as it goes.

Two sales. The first is before there is a programme: it warms everything up, and what write-behind
takes for one of its orders is for stock alone. The second is by distributors two levels deep, each
order of a buyer of its own, who is bound by it: an order makes two facts, one binding and two
entries. Then the ledger is waited for, and SQL, and the books must balance: every order is in the
ledger once, and earned to the cent what the rates say.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from hdrh.histogram import HdrHistogram
from stockray import AsyncClient, Attribution, ClusterStatus, ConfirmLine, GrabLine, Rates

from server.bench.processes import Roles, Shares, Watch, relay_roles
from server.bench.result import CAMPAIGN, SKU, AckedSales, CannotMeasure, Measured
from server.load_calls import request_ids
from server.outreach import FULL_BPS, each

LEVEL_BPS = (500, 200)
ABOVE, BELOW_EACH = 10, 9
"""Distributors: so many who have others below them, and how many each."""
FACTS_AN_ORDER = 2
WARM_UP_PART = 5
"""By how much the first sale is smaller."""
LINES_A_CALL, CALLS_AT_ONCE = 1_000, 4
TRIES_MAX, TRY_AGAIN_S = 50, 0.2
LOOK_EVERY_S = 0.1
REST_S = 3.0
"""How long processes are watched at rest; the kernel counts CPU by hundredths of a second."""
FOLLOWS_BASE_S, FOLLOWED_A_SECOND = 120.0, 500
"""How long the ledger and SQL may take."""

Ask = Callable[[Sequence[Any]], Awaitable[Sequence[Any]]]


class Ledger(NamedTuple):
    """What it comes to."""

    orders: int
    entries: int
    expense_minor: int
    frozen_minor: int
    elsewhere_minor: int

    def since(self, before: "Ledger") -> "Ledger":
        """What was added."""
        return Ledger(*(now - then for now, then in zip(self, before, strict=True)))


def ledger_of(paid_minor: Sequence[int]) -> Ledger:
    """What orders of these amounts are to come to."""
    frozen_minor = sum(paid * bps // FULL_BPS for paid in paid_minor for bps in LEVEL_BPS)
    orders = len(paid_minor)
    return Ledger(orders, orders * len(LEVEL_BPS), -frozen_minor, frozen_minor, 0)


class Sale(NamedTuple):
    """What was sold."""

    paid_minor: list[int]
    """Of each order."""
    took_s: float
    call_us: HdrHistogram
    """Of each call of lines, reserved and confirmed."""


class Accrual:
    """Measures it on one service, again and again if asked to."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        serve_pid: int,
        numbers: Iterator[int],
        orders: int,
        acked: AckedSales,
    ) -> None:
        self._client = client
        self._serve_pid = serve_pid
        self._numbers = numbers
        self._orders = orders
        self._acked = acked
        self._sales = count(1)
        self._codes: dict[str, str] = {}
        """Of those who bring buyers, by distributor."""
        self._stock_us = 0.0
        """CPU of write-behind for an order that earns nobody anything."""

    async def measure(self, name: str, roles: Roles) -> Measured:
        """A sale, until everything has followed. CannotMeasure if something does not, or the books
        do not balance."""
        client = self._client
        if not self._codes:
            await self._sell_without_programme(roles)
            self._codes = await open_programme(client)
        before = await self._ledger()
        status = await client.cluster_status()
        followers = relay_roles(status, self._serve_pid)
        at_rest = await _at_rest(followers)
        began_at = time.perf_counter()
        watch = Watch({"client": [os.getpid()], **roles, **followers})
        sale = await self._sell(self._orders)
        ended_at = time.perf_counter()
        status = await client.cluster_status()
        ends = {shard.shard: shard.seq for shard in status.stock_shards}
        ledger_s = await self._until(ended_at, lambda now: _told(now, ends))
        balance(ledger_of(sale.paid_minor), (await self._ledger()).since(before))
        sql_s = await self._until(ended_at, _in_sql)
        shares = watch.shares()
        took_s = time.perf_counter() - began_at
        rested_s = {role: cores * took_s for role, cores in at_rest.items()}
        return Measured(
            name=name,
            rate_per_s=round(self._orders / sale.took_s, 1),
            p50_ms=sale.call_us.get_value_at_percentile(50) / 1000,
            p99_ms=sale.call_us.get_value_at_percentile(99) / 1000,
            p99_9_ms=sale.call_us.get_value_at_percentile(99.9) / 1000,
            cpu_us_per_line={
                role: round(used * 1e6 / self._orders, 2) for role, used in shares.cpu_s.items()
            },
            cores=shares.cores,
            wanted=shares.wanted,
            limit=shares.limit,
            accrual={
                "orders": self._orders,
                "sale_s": round(sale.took_s, 2),
                **lag_of(status),
                "in_ledger_after_s": round(ledger_s, 2),
                "in_sql_after_s": round(sql_s, 2),
                **self._a_fact(shares, rested_s),
            },
        )

    async def _sell_without_programme(self, roles: Roles) -> None:
        orders = max(1, self._orders // WARM_UP_PART)
        # What rows before this one left for write-behind to do is no cost of this sale.
        await self._until(time.perf_counter(), _in_sql)
        watch = Watch({"projector": roles.get("projector", ())})
        await self._sell(orders)
        await self._until(time.perf_counter(), _in_sql)
        self._stock_us = watch.shares().cpu_s["projector"] * 1e6 / orders

    def _a_fact(self, shares: Shares, rested_s: Mapping[str, float]) -> dict[str, float]:
        """Microseconds of CPU. What processes take while nothing is sold is left out, and of
        write-behind what it takes for orders of the first sale: that is stock's."""
        facts = self._orders * FACTS_AN_ORDER
        own = {
            f"{role}_us_a_fact": (shares.cpu_s[role] - used_s) * 1e6 / facts
            for role, used_s in rested_s.items()
        }
        behind_us = shares.cpu_s.get("projector", 0.0) * 1e6 / self._orders - self._stock_us
        found = {
            **own,
            "together_us_a_fact": sum(own.values()),
            "at_rest_us_a_fact": sum(rested_s.values()) * 1e6 / facts,
            "write_behind_us_a_fact": behind_us / FACTS_AN_ORDER,
        }
        return {name: round(us, 2) for name, us in found.items()}

    async def _sell(self, orders: int) -> Sale:
        """So many orders, reserved and confirmed."""
        prefix = f"accrual{next(self._sales)}"
        ids = list(request_ids(prefix, [(0, orders)]))
        parts = iter(
            [ids[start : start + LINES_A_CALL] for start in range(0, orders, LINES_A_CALL)]
        )
        paid_minor: list[int] = []
        call_us = HdrHistogram(1, 600_000_000, 3)
        began = time.perf_counter()

        async def caller() -> None:
            for part in parts:
                called = time.perf_counter()
                paid_minor.extend(await self._buy(part))
                call_us.record_value(max(1, int((time.perf_counter() - called) * 1e6)))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CALLS_AT_ONCE):
                tasks.create_task(caller())
        took_s = time.perf_counter() - began
        self._acked.add(prefix, [(0, orders)])
        return Sale(paid_minor, took_s, call_us)

    async def _buy(self, ids: Sequence[str]) -> list[int]:
        """Reserve a unit by each id, and pay for it. Answers what was paid. CannotMeasure."""
        reserved = await _all(self._client.grab_many, [self._line(one) for one in ids], "reserved")
        paid = [
            ConfirmLine(one.reservation_id, f"p-{one.reservation_id}", one.payable_minor)
            for one in reserved
        ]
        await _all(self._client.confirm_many, paid, "confirmed")
        return [line.paid_minor for line in paid]

    def _line(self, request_id: str) -> GrabLine:
        number = next(self._numbers)
        codes = [*self._codes.values()]
        carried = Attribution(share_code=codes[number % len(codes)]) if codes else None
        return GrabLine(CAMPAIGN, SKU, f"a-{number}", request_id=request_id, attribution=carried)

    async def _ledger(self) -> Ledger:
        """As the accounts have it now. CannotMeasure if they do not come to the ledger's sums."""
        found = await self._client.get_rates()
        accounts: list[tuple[int, int]] = []

        async def read(name: str) -> None:
            account = (await self._client.get_account(name)).account
            if account is None or account.balances is None:
                raise CannotMeasure(f"no account of {name}")
            accounts.append((account.order_count, account.balances.frozen_minor))

        await each(names(), read)
        sums = found.sums
        if sums is None:
            raise CannotMeasure("the ledger has no sums")
        orders, frozen_minor = (sum(column) for column in zip(*accounts, strict=True))
        if frozen_minor != sums.frozen_minor:
            raise CannotMeasure(f"accounts have {frozen_minor} frozen, the ledger {sums}")
        elsewhere_minor = sums.available_minor + sums.settled_minor + sums.withdrawing_minor
        return Ledger(
            orders,
            found.entry_count,
            sums.expense_minor,
            frozen_minor,
            elsewhere_minor + sums.paid_out_minor,
        )

    async def _until(self, ended_at: float, done: Callable[[ClusterStatus], bool]) -> float:
        """Wait for it. Answers how long after the end that was. CannotMeasure."""
        most_s = FOLLOWS_BASE_S + self._orders / FOLLOWED_A_SECOND
        while not done(await self._client.cluster_status()):
            if time.perf_counter() - ended_at > most_s:
                raise CannotMeasure(f"accounts or SQL have not followed after {most_s:.0f} s")
            await asyncio.sleep(LOOK_EVERY_S)
        return time.perf_counter() - ended_at


def names() -> list[str]:
    """Of all distributors; who has nobody above comes first."""
    above = [f"above-{number}" for number in range(ABOVE)]
    return [*above, *(f"below-{number}" for number in range(ABOVE * BELOW_EACH))]


async def open_programme(client: AsyncClient) -> dict[str, str]:
    """Rates, and distributors. Answers the share codes of those who have somebody above. Refused,
    if the service does not take one."""
    rates = Rates(currency_code="CNY", time_zone="Asia/Shanghai", level_bps=LEVEL_BPS)
    (await client.put_rates(rates, reason="bench")).raise_for_status()
    codes: dict[str, str] = {}

    async def join(name: str) -> None:
        (await client.apply_distributor(name)).raise_for_status()
        (await client.approve_distributor(name, reason="bench")).raise_for_status()
        found = (await client.get_distributor(name)).distributor
        codes[name] = "" if found is None else found.share_code

    await each(names(), join)
    below = names()[ABOVE:]

    async def bind(number: int) -> None:
        above = names()[number % ABOVE]
        (await client.bind_referrer(below[number], codes[above])).raise_for_status()

    await each(range(len(below)), bind)
    return {name: codes[name] for name in below}


def balance(wanted: Ledger, found: Ledger) -> None:
    """CannotMeasure unless what was added to the ledger is what the orders come to."""
    if found != wanted:
        raise CannotMeasure(
            f"the books do not balance: the sale is {wanted}, in the ledger {found}"
        )


def lag_of(status: ClusterStatus) -> dict[str, float]:
    """How far accounts are behind."""
    lags = [shard.relay_lag.total_seconds() for shard in status.stock_shards if shard.relay_lag]
    behind = sum(max(0, shard.seq - shard.relay_seq) for shard in status.stock_shards)
    return {"behind_entries": behind, "behind_ms": round(1000 * max(lags, default=0.0))}


async def _at_rest(roles: Roles) -> dict[str, float]:
    """CPU seconds a second that processes take while nothing is sold."""
    watch, began_at = Watch(roles), time.perf_counter()
    await asyncio.sleep(REST_S)
    took_s = time.perf_counter() - began_at
    return {role: used_s / took_s for role, used_s in watch.shares().cpu_s.items()}


def _told(status: ClusterStatus, ends: dict[int, int]) -> bool:
    """Accounts have the facts of all entries up to these."""
    return all(shard.relay_seq >= ends[shard.shard] for shard in status.stock_shards)


def _in_sql(status: ClusterStatus) -> bool:
    return all(shard.sink_seq >= shard.seq for shard in status.shards)


async def _all(ask: Ask, lines: Sequence[Any], what: str) -> list[Any]:
    """The answers to lines that were all done, in order. Who is told that the machine is busy asks
    again by the same id. CannotMeasure."""
    answers: dict[int, Any] = {}
    left = list(range(len(lines)))
    for _ in range(TRIES_MAX):
        found = await ask([lines[place] for place in left])
        answers |= dict(zip(left, found, strict=True))
        left = [place for place in left if not answers[place].ok]
        if not left:
            return [answers[place] for place in range(len(lines))]
        await asyncio.sleep(TRY_AGAIN_S)
    raise CannotMeasure(f"{len(left)} of {len(lines)} orders not {what}: {answers[left[0]].status}")
