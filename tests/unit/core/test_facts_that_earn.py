"""From records of a stock shard to entries of the ledger, through TakeFact."""

from typing import Any

from actors.core import commands as c
from actors.core import relay_commands as y
from actors.core.decide import decide
from actors.core.order_facts import order_facts
from actors.core.outcomes import Outcome
from actors.core.snapshot import digest
from tests.model.bureau import FREEZE_MS, HOUR_MS, SLOT, Bureau
from tests.model.shop import Shop, line


class Pair:
    """A shop, and a bureau that takes its facts in order."""

    def __init__(self) -> None:
        self.shop, self.bureau = Shop(), Bureau()
        self.bureau.now_ms = self.shop.now_ms
        self.mark = (0, 0)
        self.commands: list[Any] = []

    def decided(self) -> None:
        """Facts of the shop's last entry are taken."""
        seq = len(self.shop.journal)
        for index, (_, fact) in enumerate(order_facts(self.shop.records, self.shop.now_ms)):
            command = y.TakeFact(
                y.TAKE_FACT, SLOT, 0, "relay", 0, "one", *self.mark, seq, index, fact
            )
            assert self.take(command)[0] == Outcome.APPLIED
            self.commands.append(command)
            self.mark = (seq, index)

    def take(self, command: Any) -> Any:
        bureau = self.bureau
        again = c.MAKE[y.TAKE_FACT](tuple(command))
        answer, records = decide(bureau.state, again, bureau.now_ms)
        bureau.entry(records)
        return answer


def test_an_order_with_a_share_code_earns_once_it_is_paid() -> None:
    pair = Pair()
    pair.bureau.open("bob", new_buyers_only=True)
    shop = pair.shop
    shop.open_sale(9, line("tea"))
    held = shop.hold("r1", 2, sale="sale", share_code=pair.bureau.code("bob"), claims=("new_user",))
    pair.decided()
    assert pair.bureau.programme.bonds.get("ann") is not None
    shop.pay(held, paid=160)
    pair.decided()
    assert pair.bureau.money("bob")[0] == 16
    shop.bring_back(held, 1)
    pair.decided()
    assert pair.bureau.money("bob")[0] == 8
    for command in pair.commands:
        assert pair.take(command)[0] == Outcome.NOTED
    pair.bureau.wait(HOUR_MS)
    pair.bureau.wait(FREEZE_MS)
    assert pair.bureau.money("bob")[:2] == (0, 8)
    assert digest(pair.bureau.replica()) == digest(pair.bureau.state)
