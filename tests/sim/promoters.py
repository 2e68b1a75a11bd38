"""Those who sell for others: some seeds have a commission programme, distributors and operators.

Rates and some distributors are there before the shop opens; some reservations carry a share code
from then on. What else is asked of account shards comes by chance beside all else.
"""

import random
from collections.abc import Callable
from typing import Any

from actors.core import commands as c
from actors.core import commission_commands as d
from actors.core import risk_commands as k
from actors.core.identity import PROGRAMME_SLOT, account_slot, request_key
from actors.core.outcomes import Outcome
from actors.core.programme_config import CampaignRate, ProgrammeConfig, SkuRate
from tests.sim.account_ledger import AccountLedger
from tests.sim.callers import SALE, SKUS, Callers
from tests.sim.operations import Operation

DISTRIBUTORS = ("dot", "ann", "dan")
"""Two of them buy as well."""
LATER = ("bob", "eve")
"""Who may apply while the shop is open."""
BUYERS = ("ann", "bob", "cid", "dan", "eve")
MONTH = 202311
"""That ends while the shop is open."""
BEFORE = (*[d.WITHDRAWAL_APPROVE] * 4, d.WITHDRAWAL_REJECT, d.WITHDRAWAL_PAID)
AFTER = (d.WITHDRAWAL_PAID, d.WITHDRAWAL_FAILED)
"""What an operator does with a withdrawal before and after it was approved."""
PRICES = {"": 100, SALE: 80}


def has_accounts(seed: int) -> bool:
    """A seventh of the seeds; by chance of its own, so that the others are what they were."""
    return random.Random(f"accounts of {seed}").random() < 1 / 7


class Promoters:
    """Asks for what concerns commission and risk."""

    def __init__(self, callers: Callers, ledger: AccountLedger) -> None:
        self._callers, self._ledger = callers, ledger
        self._world = callers.world
        self._withdrawals: list[bytes] = []
        self._approved: set[bytes] = set()
        self._end_s = 0.0

    def open(self, then: Callable[[], None]) -> None:
        """Rates, distributors and who is bound to whom; `then` once they are there."""
        chance = self._world.chance
        steps: list[Callable[[], Any]] = [self._rates_now]
        steps += [lambda name=name: self._applies(name) for name in DISTRIBUTORS]
        steps.append(lambda: self._binds("ann", "dot"))
        steps += [
            lambda buyer=buyer: self._binds(buyer, chance.choice(DISTRIBUTORS))
            for buyer in chance.sample(("bob", "cid", "dan", "eve"), chance.randint(0, 3))
        ]

        def go_on(_: Operation | None = None) -> None:
            if steps:
                self._callers.must(steps.pop(0)(), go_on)
            else:
                then()

        go_on()

    def schedule(self, length_s: float) -> None:
        """Choose when they come."""
        self._end_s = self._world.now + length_s
        for _ in range(self._world.chance.randint(6, 14)):
            self._within(length_s, lambda: self._world.chance.choice(ACTS)(self))

    def _within(self, within_s: float, act: Callable[[], None]) -> None:
        def do() -> None:
            if self._world.now < self._end_s:
                act()

        self._world.after(self._world.chance.random() * within_s, do)

    def share(self, command: Any) -> Any:
        """What somebody reserves, perhaps through somebody's link."""
        chance = self._world.chance
        if chance.random() < 0.5:
            return command
        code = self._ledger.code_of(chance.choice((*DISTRIBUTORS, *LATER)))
        return command._replace(share_code=code)

    # What is asked

    def _rates_now(self) -> d.PutRates:
        pick = self._world.chance.choice
        config = ProgrammeConfig(
            "CNY",
            "UTC",
            pick((333, 1_000)),
            pick((0, 500)),
            campaigns=(CampaignRate(SALE, pick((777, 1_500)), 250),),
            skus=(SkuRate(SKUS[1], 2_000, 1_500, pick((-1, 17, 30))),),
            freeze_ms=pick((100, 300, 900)),
            freeze_max_ms=pick((500, 1_000)),
            policy=pick((1, 2)),
            validity_ms=pick((0, 0, 1_500)),
            protection_ms=pick((0, 300)),
            approve_at_once=True,
        )
        return d.PutRates(d.PUT_RATES, PROGRAMME_SLOT, 0, "op", config, "why")

    def _applies(self, name: str) -> d.ApplyDistributor:
        return d.ApplyDistributor(d.APPLY_DISTRIBUTOR, PROGRAMME_SLOT, 0, "web", name)

    def _binds(self, buyer: str, to: str) -> d.BindReferrer:
        code = self._ledger.code_of(to)
        return d.BindReferrer(d.BIND_REFERRER, PROGRAMME_SLOT, 0, "web", buyer, code, True)

    def _rates(self) -> None:
        self._callers.ask(self._rates_now())

    def _apply(self) -> None:
        self._callers.ask(self._applies(self._world.chance.choice((*DISTRIBUTORS, *LATER))))

    def _act(self) -> None:
        chance = self._world.chance
        name, act = chance.choice(DISTRIBUTORS), chance.choice((d.SUSPEND, d.RESUME, d.RESUME))
        head = (d.APPROVE_DISTRIBUTOR, PROGRAMME_SLOT, 0, "op")
        self._callers.ask(d.ApproveDistributor(*head, name, act, "why"))

    def _bind(self) -> None:
        chance = self._world.chance
        command = self._binds(chance.choice(BUYERS), chance.choice((*DISTRIBUTORS, *LATER)))
        if command.share_code:
            self._callers.ask(command)

    def _read(self) -> None:
        name = self._world.chance.choice((*DISTRIBUTORS, *LATER))
        self._callers.ask(d.GetAccount(d.GET_ACCOUNT, PROGRAMME_SLOT, 0, "web", name))

    def _withdraw(self) -> None:
        chance, money = self._world.chance, self._ledger.programme
        have = {
            name: money.balance(name, "available") + money.balance(name, "settled")
            for name in DISTRIBUTORS
        }
        # Mostly who has something: nobody else is told yes.
        name = chance.choice((*DISTRIBUTORS, *[max(DISTRIBUTORS, key=lambda one: have[one])] * 4))
        most = have[name]
        amount = max(1, chance.choice((most, most, most // 2, most + 1)))
        request = self._callers.name("w")
        head = (d.REQUEST_WITHDRAWAL, PROGRAMME_SLOT, 0, "web", request)

        def told(operation: Operation) -> None:
            if operation.final == Outcome.APPLIED:
                self._withdrawals.append(request_key("web", request))
                self._within(0.5, self._review)

        self._callers.ask(d.RequestWithdrawal(*head, name, amount), told)

    def _review(self) -> None:
        if not self._withdrawals:
            self._withdraw()
            return
        chance = self._world.chance
        key = chance.choice(self._withdrawals[-2:])
        act = chance.choice(AFTER if key in self._approved else BEFORE)
        head = (d.REVIEW_WITHDRAWAL, PROGRAMME_SLOT, 0, "op", key, act)

        def told(operation: Operation) -> None:
            if act == d.WITHDRAWAL_APPROVE and operation.final == Outcome.APPLIED:
                self._approved.add(key)
                self._within(0.3, self._review)
            else:
                # Perhaps it left memory by then.
                self._within(2.0, self._review)

        self._callers.ask(d.ReviewWithdrawal(*head, "bank-1", "why"), told)

    def _settle(self) -> None:
        name = self._world.chance.choice(DISTRIBUTORS)
        self._callers.ask(d.Settle(d.SETTLE, PROGRAMME_SLOT, 0, "op", MONTH, name, "why"))

    def _freeze(self) -> None:
        chance = self._world.chance
        buyer = chance.choice((*BUYERS, *DISTRIBUTORS))
        length_ms = chance.choice((300, 300, 1_000, 3_600_000))
        self._callers.ask(k.Freeze(k.FREEZE, account_slot(buyer), 0, "op", buyer, length_ms, "why"))

    def _unfreeze(self) -> None:
        buyer = self._world.chance.choice((*BUYERS, *DISTRIBUTORS))
        self._callers.ask(k.Unfreeze(k.UNFREEZE, account_slot(buyer), 0, "op", buyer, "not so"))

    def _buy(self) -> None:
        """An order that goes all the way, and perhaps some of it back."""
        chance, callers = self._world.chance, self._callers
        sale = chance.choice(("", "", SALE))
        units = chance.choice((2, 3)) if sale else chance.choice((2, 3, 5))
        public, operation = callers.reservation(sale, units)

        def pay(reserved: Operation) -> None:
            if reserved.final == Outcome.RESERVED:
                head = (c.CONFIRM, operation.command.slot, 0, "web", public)
                paid = PRICES[sale] * units
                callers.ask(c.Confirm(*head, callers.payment_of(public), paid), then)

        def then(paid: Operation) -> None:
            if paid.final != Outcome.CONFIRMED:
                return
            if chance.random() < 0.4:
                self._within(0.5, lambda: callers.ship(public, operation))
            for _ in range(chance.choice((0, 1, 1, 2))):
                self._within(1.5, lambda: callers.bring_back(public, operation))

        operation.then = pay

    def _cannot_pay(self) -> None:
        """Somebody's card is refused, three times or more."""
        callers, buyer = self._callers, self._world.chance.choice(BUYERS)
        public, operation = callers.reservation("", 1, buyer)

        def fail(reserved: Operation) -> None:
            head = (c.REPORT_FAILED_PAYMENT, operation.command.slot, 0, "web", public)
            names = [callers.name("p") for _ in range(3)]
            for name in names if reserved.final == Outcome.RESERVED else ():
                self._within(
                    0.2, lambda name=name: callers.ask(c.ReportFailedPayment(*head, name, 1))
                )

        operation.then = fail


ACTS: tuple[Callable[[Promoters], None], ...] = (
    *[Promoters._buy] * 8,
    *[Promoters._bind] * 2,
    *[Promoters._withdraw] * 3,
    *[Promoters._cannot_pay] * 2,
    Promoters._rates,
    Promoters._apply,
    Promoters._act,
    Promoters._read,
    Promoters._review,
    Promoters._settle,
    *[Promoters._freeze] * 2,
    Promoters._unfreeze,
)
