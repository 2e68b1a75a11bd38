"""What an account shard decides in random order: commission, risk, and the facts that it takes.

The shop that decides it may be the one whose facts they are, or that of a shard of its own.
"""

import random
from typing import Any

from actors.core import commission_commands as d
from actors.core import facts as f
from actors.core import relay_commands as y
from actors.core import risk_commands as k
from actors.core.codec import unpack_entry
from actors.core.commission_state import Programme
from actors.core.identity import PROGRAMME_SLOT, account_slot
from actors.core.order_facts import order_facts
from actors.core.outcomes import Outcome
from actors.core.programme_config import CampaignRate, ProgrammeConfig, SkuRate
from actors.core.risk import due_risk, note
from actors.core.state import NO_MARK
from tests.model.shop import MINUTE_MS, Shop

DAY_MS = 24 * 60 * MINUTE_MS
DISTRIBUTORS = ("d0", "d1", "d2", "ann")
BUYERS = ("ann", "bob", "cid", *(f"b{number}" for number in range(6)))
HEAD = (PROGRAMME_SLOT, 0, "op")


class AccountActs:
    """Random acts of one account shard, from one seed."""

    def __init__(self, shop: Shop, seed: int, incarnation: str) -> None:
        self.shop = shop
        self.chance = random.Random(seed)
        self.incarnation = incarnation
        self._requests = 0
        self._withdrawals: list[bytes] = []
        self._rates()
        for name in DISTRIBUTORS[:3]:
            self._apply(name)
        for name in DISTRIBUTORS[:3]:
            self._review_distributor(name, d.APPROVE)
        self._bind("d1", "d0")
        for buyer in BUYERS:
            self._bind(buyer, self.chance.choice(("d1", "d1", "d2")))

    @property
    def programme(self) -> Programme:
        programme = self.shop.state.slot(PROGRAMME_SLOT).programme
        assert programme is not None
        return programme

    def act(self) -> None:
        """One act."""
        chance, shop = self.chance, self.shop
        name, buyer = chance.choice(DISTRIBUTORS), chance.choice(BUYERS)
        slot = account_slot(buyer)
        chance.choice(
            (
                self._rates,
                lambda: self._apply(name),
                lambda: self._review_distributor(name, chance.randint(1, 4)),
                *[lambda: self._bind(buyer, name)] * 4,
                lambda: self._hold(name),
                *[lambda: self._withdraw(name)] * 2,
                *[self._review] * 3,
                lambda: shop.do(k.Freeze(k.FREEZE, slot, 0, "op", buyer, 5 * MINUTE_MS, "why")),
                lambda: shop.do(k.Unfreeze(k.UNFREEZE, slot, 0, "op", buyer, "not so")),
                lambda: shop.do(k.ReportSignals(k.REPORT_SIGNALS, slot, 0, "gw", buyer, 3)),
                *[lambda: self._tell(buyer)] * 2,
                lambda: self._fail(buyer),
                *[self.beat] * 3,
                *[self._forget] * 2,
            )
        )()

    def take(self, source: int, seq: int, data: bytes) -> None:
        """The facts of a stock shard's entry, in an entry of this one."""
        content = unpack_entry(data)
        facts = order_facts(content.records, content.now_ms)
        if not facts:
            return
        placed = [(seq, at, *addressed) for at, addressed in enumerate(facts[:-1])]
        placed.append((seq, y.ENTRY_END, *facts[-1]))
        self.shop.open()
        while placed:
            outcome, taken = self.shop.ask(self._line(source, placed))
            del placed[:taken]
            if outcome == Outcome.RECALL:
                assert self.shop.do(self._line(source, placed[:1])) == (Outcome.APPLIED, 1)
                del placed[0]
        self.shop.close()

    def _line(self, source: int, placed: list[y.Placed]) -> y.TakeFacts:
        after = self.shop.state.sources.get(source, NO_MARK)[1:]
        head = (y.TAKE_FACTS, PROGRAMME_SLOT, 0, "relay", source, self.incarnation)
        return y.TakeFacts(*head, *after, tuple(placed))

    def beat(self, limit: int = 5) -> int:
        """What is due."""
        shop = self.shop
        made = shop._due(lambda: due_risk(shop.state, shop.now_ms, limit))
        made += shop._due(lambda: shop.pulse.commission(shop.state, shop.now_ms, limit))
        return len(made)

    def _forget(self) -> None:
        shop = self.shop
        look = shop.forgetting_accounts.look_on
        age = {"recall_after_ms": 5 * MINUTE_MS, "sink_seq": len(shop.journal)}
        shop._due(lambda: look(shop.state, now_ms=shop.now_ms, limit=4, **age))

    def pass_months(self) -> None:
        """Freezes end, statements are made, what was earned is paid out, debts are left."""
        for days in (1, 30, 40):
            self.shop.wait(days * DAY_MS)
            while self.beat(self.chance.choice((3, 500))):
                pass
            for _ in range(12):
                self.act()
        self._forgive("eve")
        self._fail("fay")

    def _forgive(self, buyer: str) -> None:
        """A freeze that the programme was told of ends by itself; the score is not whole yet."""
        slot = account_slot(buyer)
        self._fail(buyer)
        self.shop.do(k.Freeze(k.FREEZE, slot, 0, "op", buyer, MINUTE_MS, "why"))
        self._tell(buyer)
        self.shop.wait(2 * MINUTE_MS)
        self.shop._due(lambda: due_risk(self.shop.state, self.shop.now_ms, 1_000))

    def _fail(self, buyer: str) -> None:
        """A payment failed somewhere."""
        shop = self.shop
        slot = shop.state.slot(account_slot(buyer))
        fact = f.PaymentFailed(f.PAYMENT_FAILED, shop.now_ms, "r", buyer, "tea")
        shop._due(lambda: note(shop.state, slot, fact, shop.now_ms))

    def _rates(self) -> None:
        chance = self.chance
        config = ProgrammeConfig(
            "CNY",
            "Asia/Shanghai",
            chance.choice((333, 1_000)),
            chance.choice((0, 500)),
            campaigns=(CampaignRate("together", 777, 50),),
            skus=(SkuRate("tea", 2_000, 1_500, chance.choice((-1, 17))),),
            freeze_ms=chance.choice((MINUTE_MS, 20 * MINUTE_MS)),
            freeze_max_ms=60 * MINUTE_MS,
            policy=chance.choice((1, 2)),
            validity_ms=chance.choice((0, 30 * MINUTE_MS)),
        )
        self.shop.do(d.PutRates(d.PUT_RATES, *HEAD, config, "why"))

    def _apply(self, name: str) -> None:
        self.shop.do(d.ApplyDistributor(d.APPLY_DISTRIBUTOR, *HEAD, name))

    def _review_distributor(self, name: str, act: int) -> None:
        self.shop.do(d.ApproveDistributor(d.APPROVE_DISTRIBUTOR, *HEAD, name, act, "why"))

    def _bind(self, buyer: str, name: str) -> None:
        held = self.programme.distributors.get(name)
        if held is not None and held.share_code:
            self.shop.do(d.BindReferrer(d.BIND_REFERRER, *HEAD, buyer, held.share_code, True))

    def _hold(self, name: str) -> None:
        until_ms = self.chance.choice((0, self.shop.now_ms + 5 * MINUTE_MS))
        hold = (name, until_ms, self.shop.now_ms, "risk")
        self.shop.do(d.HoldDistributor(d.HOLD_DISTRIBUTOR, *HEAD, *hold))

    def _withdraw(self, name: str) -> None:
        held = self.programme.distributors.get(name)
        most = 0 if held is None else held.withdrawable_minor()
        if most <= 0:
            return
        self._requests += 1
        request = f"w{self._requests}"
        amount = self.chance.randint(1, most)
        asked = d.RequestWithdrawal(d.REQUEST_WITHDRAWAL, *HEAD, request, name, amount)
        outcome, key, *_ = self.shop.do(asked)
        if outcome == Outcome.APPLIED:
            self._withdrawals.append(key)

    def _review(self) -> None:
        if self._withdrawals:
            key = self.chance.choice(self._withdrawals)
            act = self.chance.randint(1, 4)
            self.shop.do(d.ReviewWithdrawal(d.REVIEW_WITHDRAWAL, *HEAD, key, act, "bank-1", "why"))

    def _tell(self, buyer: str) -> None:
        """The programme was told of a buyer's freeze, or of its end."""
        slot = account_slot(buyer)
        profile = self.shop.state.slot(slot).profiles.get(buyer)
        if profile is not None:
            as_of_ms = profile.frozen_as_of_ms
            self.shop.do(k.HoldTold(k.HOLD_TOLD, slot, 0, "sr", buyer, as_of_ms))


def accounts_of(stock: list[list[bytes]], seed: int, incarnation: str) -> list[bytes]:
    """The journal of an account shard that took the facts of these stock shards, and did more."""
    shop = Shop()
    acts = AccountActs(shop, seed, incarnation)
    entries: list[Any] = sorted(
        (unpack_entry(data).now_ms, source, seq, data)
        for source, made in enumerate(stock)
        for seq, data in enumerate(made, 1)
    )
    for now_ms, source, seq, data in entries:
        shop.now_ms = max(shop.now_ms, now_ms)
        acts.take(source, seq, data)
        if acts.chance.random() < 0.5:
            acts.act()
    acts.pass_months()
    return shop.journal
