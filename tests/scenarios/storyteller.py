"""The little language of the golden stories: a line in, a line out.

A story is paragraphs of commands, `----`, and what they answered. Words of a command after the
fixed ones are pairs (`as doc-1`, `in sale`). Times are of one day; amounts are minor units.
"""

from collections.abc import Callable
from typing import Any

from actors.core import commands as c
from actors.core import records as r
from actors.core import state as s
from actors.core.identity import public_id, request_key, slot_of
from actors.core.outcomes import Outcome
from actors.core.refunds import RefundReason, payment_key, return_refund_key
from actors.core.snapshot import digest
from tests.model.shop import Shop, campaign, line

DAY_MS = 1_700_006_400_000
UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
STATES = ("", "reserved", "confirmed", "expired", "released", "returned", "revoked")
RESTOCK = {"scheduled": c.RESTOCK_SCHEDULED, "written-off": c.RESTOCK_WRITE_OFF}
ENDS = {
    r.RESERVATION_EXPIRED: "expired",
    r.RESERVATION_REVOKED: "revoked",
}


def clock_ms(text: str) -> int:
    """10:00 or 10:00:30 of the day."""
    hours, minutes, *seconds = [int(part) for part in text.split(":")]
    return DAY_MS + hours * 3_600_000 + minutes * 60_000 + sum(seconds) * 1_000


def clock(ms: int) -> str:
    """The other way."""
    seconds = (ms - DAY_MS) // 1_000
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def duration_ms(text: str) -> int:
    """15m, 30s, 24h."""
    return int(text[:-1]) * UNITS_MS[text[-1]]


class Storyteller:
    """Plays one story."""

    def __init__(self) -> None:
        self.shop = Shop()
        self.shop.now_ms = clock_ms("09:00")
        self.names: dict[str, str] = {}
        self.refunds: dict[str, str] = {}
        self.told: dict[str, str] = {}

    def play(self, paragraph: list[str]) -> list[str]:
        """The answers of a paragraph, then the pools that it changed."""
        told = [self._line(text) for text in paragraph]
        assert digest(self.shop.replica()) == digest(self.shop.state), "a replica differs"
        pools = [pool for slot in self.shop.state.slots.values() for pool in slot.pools()]
        for pool in sorted(pools, key=lambda pool: (pool.campaign_id, pool.sku_id)):
            name = f"{pool.campaign_id or 'base'}/{pool.sku_id}"
            parts = self.shop.stock(pool.campaign_id, pool.sku_id)
            text = ", ".join(f"{units} {part.replace('_', ' ')}" for part, units in parts.items())
            text = f"  {name}: {pool.total} = {text or 'nothing'}"
            if self.told.get(name) != text:
                self.told[name] = text
                told.append(text)
        return told

    def _line(self, text: str) -> str:
        word, *rest = text.split()
        verb: Callable[..., str] = getattr(self, f"_{word.replace('-', '_')}")
        return verb(*rest)

    @staticmethod
    def _pairs(words: tuple[str, ...]) -> dict[str, str]:
        return dict(zip(words[::2], words[1::2], strict=True))

    def _at(self, time: str) -> str:
        self.shop.now_ms = clock_ms(time)
        return f"{clock(self.shop.now_ms)}{self._due()}"

    def _wait(self, time: str) -> str:
        self.shop.now_ms += duration_ms(time)
        return f"{clock(self.shop.now_ms)}{self._due()}"

    def _due(self) -> str:
        """What the shard decides by itself."""
        found = self.shop.expire()
        while taken := self.shop.revoke():
            found += taken
        names = {public: name for name, public in self.names.items()}
        ends = [f" {names[public_id(x.slot, x.key)]} {ENDS[x.kind]}" for x in found]
        return "".join(sorted(ends))

    def _sku(self, sku: str, *words: str) -> str:
        told = self._pairs(words)
        changes: dict[str, Any] = {"price_minor": int(told.get("price", 100))}
        changes["buffer_bps"] = int(told.get("buffer", "0%")[:-1]) * 100
        changes["payment_window_ms"] = duration_ms(told.get("window", "15m"))
        return Outcome(self.shop.sku(sku, **changes)[0]).name

    def _receive(self, units: str, sku: str, _as: str, document: str) -> str:
        return Outcome(self.shop.receive(int(units), document, sku)[0]).name

    def _campaign(self, sale: str, *words: str) -> str:
        told = self._pairs(words)
        lines = []
        for text in told["lines"].split(","):
            sku, _, rest = text.partition("=")
            allocation, _, price = rest.partition("@")
            lines.append(line(sku, int(allocation), int(price), int(told.get("each", 0))))
        config = campaign(
            *lines,
            limit_per_buyer=int(told.get("limit", 0)),
            required_claims=tuple(told["for"].split(",")) if "for" in told else (),
            starts_ms=clock_ms(told.get("from", "00:00")),
            ends_ms=clock_ms(told.get("to", "23:59")),
            payment_window_ms=duration_ms(told.get("window", "15m")),
        )
        outcome, _, _, why = self.shop.put(config, sale)
        return f"{Outcome(outcome).name} {why}".strip()

    def _turn(self, sale: str, word: str) -> str:
        to = {"on": s.CAMPAIGN_ACTIVE, "off": s.CAMPAIGN_PAUSED, "over": s.CAMPAIGN_ENDED}[word]
        return Outcome(self.shop.turn(to, sale)[0]).name

    def _send(self, units: str, source: str, target: str, _as: str, name: str) -> str:
        source, target = (place.replace("base", "") for place in (source, target))
        answer = self.shop.leave(int(units), name, source=source, target=target)
        self.names[name] = answer[1].hex()
        return Outcome(answer[0]).name

    def _arrive(self, name: str, units: str, target: str) -> str:
        key = bytes.fromhex(self.names[name])
        answer = self.shop.arrive(key, int(units), target.replace("base", ""))
        return "arrived" if answer[1] else "turned away"

    def _settle(self, name: str, how: str, source: str = "base") -> str:
        key = bytes.fromhex(self.names[name])
        answer = self.shop.settle(key, how == "arrived", source.replace("base", ""))
        return Outcome(answer[0]).name

    def _reserve(self, name: str, buyer: str, units: str, sku: str, *words: str) -> str:
        told = self._pairs(words)
        sale = told.get("in", "")
        claims = tuple(told["with"].split(",")) if "with" in told else ()
        payable = int(told.get("for", c.DEFAULT_PAYABLE))
        answer = self.shop.reserve(
            name, int(units), buyer, sku=sku, sale=sale, claims=claims, payable_minor=payable
        )
        if answer[0] != Outcome.RESERVED:
            others = f" try {', '.join(answer[2])}" if answer[2:] and answer[2] else ""
            return f"{Outcome(answer[0]).name}{others}"
        self.names[name] = public_id(slot_of(sale or sku), answer[1])
        return f"RESERVED for {answer[4]} until {clock(answer[6])}"

    def _pay(self, name: str, payment: str, amount: str) -> str:
        own = self.names.get(name, public_id(slot_of("tea"), bytes(16)))
        self.refunds[payment] = public_id(int(own[:3], 16), payment_key(payment))
        outcome, _, refund = self.shop.pay(own, payment, int(amount))
        if refund is None:
            return Outcome(outcome).name
        mark = " with compensation" if refund[6] else ""
        return f"{Outcome(outcome).name} {refund[4]} {RefundReason(refund[5]).name}{mark}"

    def _begin(self, name: str, payment: str) -> str:
        outcome, _, deadline_ms = self.shop.begin(self.names[name], payment)
        return f"{Outcome(outcome).name} until {clock(deadline_ms)}"

    def _fail(self, name: str, payment: str) -> str:
        return Outcome(self.shop.fail(self.names[name], payment)[0]).name

    def _release(self, name: str) -> str:
        return Outcome(self.shop.release(self.names[name])[0]).name

    def _return(self, units: str, name: str, _as: str, request: str, how: str = "") -> str:
        own = self.names[name]
        key = return_refund_key(request_key("web", request))
        self.refunds[request] = public_id(int(own[:3], 16), key)
        to = RESTOCK.get(how, c.RESTOCK_AVAILABLE)
        outcome, _, units_back, refund = self.shop.bring_back(own, int(units), request, to)
        due = f", {refund[4]} due" if refund else ""
        return f"{Outcome(outcome).name}, {units_back} in all{due}"

    def _refunded(self, name: str, how: str, _as: str, report: str) -> str:
        answer = self.shop.refunded(self.refunds[name], how == "yes", report)
        if answer[1] is None:
            return Outcome(answer[0]).name
        state = "closed" if answer[1][7] == s.REFUND_CLOSED else "due"
        return f"{Outcome(answer[0]).name} {state} after {answer[1][8]}"

    def _short(self, units: str, sku: str, _as: str, name: str, *words: str) -> str:
        told = self._pairs(words)
        dry, sale = told.get("dry") == "run", told.get("in", "")
        answer = self.shop.short(int(units), name, sku=sku, sale=sale, dry_run=dry)
        names = ("available", "scheduled", "buffer", "to come from reservations", "from orders")
        taken = [f"{n} {part}" for n, part in zip(answer[2], names, strict=True) if n]
        return f"{Outcome(answer[0]).name} {', '.join(taken)}{self._due()}".strip()

    def _look(self, name: str) -> str:
        view = self.shop.read(self.names[name])
        money = "" if view[-1] is None else f", paid {view[-1][2]}, {view[-1][3]} back or due"
        return f"{name}: {STATES[view[6]]}, {view[5]} of {view[4]} returned{money}"
