"""The rules of commission told again, slowly: lists of all that ever happened, sums made anew.

Nothing here is shared with the code under test but the numbers of outcomes. Money is a list of
movements (distributor, account, amount, month, kind); a balance is a sum over it.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from actors.core.outcomes import Outcome
from actors.core.programme_config import ProgrammeConfig

ACCOUNTS = ("frozen", "available", "settled", "withdrawing", "paid_out")


class Bound(NamedTuple):
    buyer: str
    to: str
    from_ms: int
    until_ms: int


class Move(NamedTuple):
    name: str
    account: str
    amount: int
    month: int
    kind: str


@dataclass
class Share:
    level: int
    name: str
    full: int
    state: str = "frozen"
    now: int = 0


@dataclass
class Order:
    base: int
    quantity: int
    referrer: str
    version: int
    earned_ms: int
    matures_ms: int
    month: int
    returned: int = 0
    delivered: bool = False
    shares: list[Share] = field(default_factory=list)


@dataclass
class Withdrawal:
    name: str
    amount: int
    settled: int
    state: str = "requested"
    reference: str = ""


@dataclass
class Naive:
    """What a programme must be, by the rules of the semantics."""

    versions: list[tuple[int, ProgrammeConfig]] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    held_as_of: dict[str, int] = field(default_factory=dict)
    bonds: list[Bound] = field(default_factory=list)
    orders: dict[str, Order] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    withdrawals: dict[str, Withdrawal] = field(default_factory=dict)
    refused: dict[str, Outcome] = field(default_factory=dict)
    statements: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    invited: list[tuple[str, str, int]] = field(default_factory=list)
    """(Distributor, buyer, month)."""

    # The programme

    @property
    def config(self) -> ProgrammeConfig:
        return self.versions[-1][1]

    def month(self, at_ms: int) -> int:
        there = datetime.fromtimestamp(at_ms / 1_000, ZoneInfo(self.config.time_zone))
        return there.year * 100 + there.month

    def put_rates(self, config: ProgrammeConfig, now_ms: int) -> None:
        if not self.versions or self.config != config:
            self.versions.append((now_ms, config))

    def apply(self, name: str) -> Outcome:
        if name in self.states:
            return Outcome.FOUND
        self.states[name] = "active" if self.config.approve_at_once else "applied"
        return Outcome.APPLIED

    def act(self, name: str, act: str) -> Outcome:
        if name not in self.states:
            return Outcome.NOT_DISTRIBUTOR
        allowed = {
            "approve": ("active", "applied", "rejected"),
            "reject": ("rejected", "applied"),
            "suspend": ("suspended", "active"),
            "resume": ("active", "suspended"),
        }[act]
        if self.states[name] not in allowed:
            return Outcome.DISTRIBUTOR_CONFLICT
        self.states[name] = allowed[0]
        return Outcome.APPLIED

    def hold(self, name: str, until_ms: int, as_of_ms: int) -> None:
        """What is known of later stands, in whatever order it is told."""
        if name in self.states and as_of_ms > self.held_as_of.get(name, 0):
            self.held[name] = until_ms
            self.held_as_of[name] = as_of_ms

    def is_held(self, name: str) -> bool:
        return self.states[name] != "active" or self.held.get(name, 0) > 0

    # Bindings

    def bound_at(self, buyer: str, at_ms: int) -> Bound | None:
        found = None
        for bond in self.bonds_of(buyer):
            if bond.from_ms <= at_ms:
                found = bond
        return found if found is not None and at_ms < found.until_ms else None

    def bonds_of(self, buyer: str) -> list[Bound]:
        return sorted(
            (bond for bond in self.bonds if bond.buyer == buyer), key=lambda bond: bond.from_ms
        )

    def bind(self, buyer: str, to: str, at_ms: int, now_ms: int, new: bool) -> Outcome:
        config, bond = self.config, self.bound_at(buyer, at_ms)
        until_ms = at_ms + config.validity_ms if config.validity_ms else 1 << 60
        last = config.policy == 2
        same = bond is not None and bond.to == to
        if bond is not None and same and not (last and bond.until_ms < until_ms):
            return Outcome.FOUND
        if self.states[to] != "active":
            return Outcome.NOT_ACTIVE
        if buyer == to:
            return Outcome.SELF_REFERRAL
        protected = bond is not None and at_ms - bond.from_ms < max(1, config.protection_ms)
        if bond is not None and not same and (not last or protected):
            return Outcome.BOUND_ALREADY
        if config.new_buyers_only and not new and not same:
            return Outcome.NOT_NEW_BUYER
        if buyer in self._above(to, at_ms, ()):
            return Outcome.CYCLE
        if bond is not None and same:
            self.bonds[self.bonds.index(bond)] = bond._replace(until_ms=until_ms)
            return Outcome.APPLIED
        if not any(old.buyer == buyer and old.to == to for old in self.bonds):
            self.invited.append((to, buyer, self.month(now_ms)))
        self.bonds.append(Bound(buyer, to, at_ms, until_ms))
        return Outcome.APPLIED

    def _above(self, name: str, at_ms: int, path: tuple[str, ...]) -> set[str]:
        """All whom a name is bound to from an instant on, over any number of steps."""
        found: set[str] = set()
        bonds = self.bonds_of(name)
        for place, bond in enumerate(bonds):
            ends = min([bond.until_ms, *(later.from_ms for later in bonds[place + 1 :][:1])])
            if ends > at_ms and bond.to not in path:
                found |= {bond.to} | self._above(bond.to, at_ms, (*path, name))
        return found

    def no_cycle_at(self, at_ms: int) -> bool:
        for name in {bond.buyer for bond in self.bonds}:
            seen, at = {name}, self.bound_at(name, at_ms)
            while at is not None:
                if at.to in seen:
                    return False
                seen.add(at.to)
                at = self.bound_at(at.to, at_ms)
        return True

    # Orders

    def earned(self, fact: Any, now_ms: int) -> None:
        name = fact.reservation_id
        number = sum(from_ms <= fact.reserved_ms for from_ms, _ in self.versions)
        bond = self.bound_at(fact.buyer_id, fact.reserved_ms)
        if name in self.orders or not number or bond is None or fact.currency_code != "CNY":
            return
        config = self.versions[number - 1][1]
        rates, margin = (config.level1_bps, config.level2_bps), -1
        for sale in config.campaigns:
            if sale.campaign_id == fact.campaign_id:
                rates = (sale.level1_bps, sale.level2_bps)
        for sku in config.skus:
            if sku.sku_id == fact.sku_id:
                rates, margin = (sku.level1_bps, sku.level2_bps), sku.margin_minor
        order = Order(
            fact.base_minor,
            fact.quantity,
            bond.to,
            number,
            fact.at_ms,
            fact.at_ms + min(config.freeze_ms, config.freeze_max_ms),
            self.month(now_ms),
        )
        first = fact.base_minor * rates[0] // 10_000
        second = fact.base_minor * rates[1] // 10_000
        if bond.to == fact.buyer_id:
            first = 0
        upper = self.bound_at(bond.to, fact.reserved_ms)
        if upper is None or upper.to == fact.buyer_id or self.states[bond.to] != "active":
            second = 0
        if margin >= 0:
            first = min(first, margin * fact.quantity)
            second = min(second, margin * fact.quantity - first)
        if first:
            order.shares.append(Share(1, bond.to, first, now=first))
        if second and upper is not None:
            order.shares.append(Share(2, upper.to, second, now=second))
        for share in order.shares:
            self._move(share.name, "frozen", share.full, now_ms, "accrued")
        self.orders[name] = order

    def reduced(self, name: str, total: int, now_ms: int) -> None:
        order = self.orders.get(name)
        if order is None or total <= order.returned:
            return
        order.returned = total
        for share in order.shares:
            left = share.full * (order.quantity - total) // order.quantity
            back, share.now = share.now - left, left
            if share.state != "available":
                self._move(share.name, "frozen", -back, now_ms, "reversed")
                continue
            from_available = min(back, self.balance(share.name, "available"))
            self._move(share.name, "available", -from_available, now_ms, "reversed")
            self._move(share.name, "settled", from_available - back, now_ms, "reversed")

    def delivered(self, name: str, at_ms: int) -> None:
        order = self.orders.get(name)
        if order is None or order.delivered:
            return
        if any(share.state == "frozen" for share in order.shares):
            config = self.versions[order.version - 1][1]
            order.delivered = True
            order.matures_ms = min(at_ms + config.freeze_ms, order.earned_ms + config.freeze_max_ms)

    def beat(self, now_ms: int) -> None:
        """All that is due by now happens."""
        for name, until_ms in self.held.items():
            if 0 < until_ms <= now_ms:
                self.held[name] = 0
        for order in self.orders.values():
            for share in order.shares:
                if share.state == "frozen" and order.matures_ms <= now_ms:
                    share.state = "waiting"
                if share.state == "waiting" and not self.is_held(share.name):
                    share.state = "available"
                    self._move(share.name, "frozen", -share.now, now_ms, "matured")
                    self._move(share.name, "available", share.now, now_ms, "matured")
        for month in sorted({move.month for move in self.moves}):
            for name in self.states:
                if month < self.month(now_ms):
                    self._close(name, month, now_ms)

    # Money

    def _move(self, name: str, account: str, amount: int, now_ms: int, kind: str) -> None:
        if amount:
            self.moves.append(Move(name, account, amount, self.month(now_ms), kind))

    def balance(self, name: str, account: str) -> int:
        return sum(m.amount for m in self.moves if (m.name, m.account) == (name, account))

    def money(self, name: str) -> tuple[int, ...]:
        return tuple(self.balance(name, account) for account in ACCOUNTS)

    def _listed(self, name: str, month: int) -> list[Move]:
        return [
            move
            for move in self.moves
            if (move.name, move.month) == (name, month)
            and move.account in {"available", "settled"}
            and move.kind != "settled"
        ]

    def settle(self, name: str, month: int, now_ms: int) -> Outcome:
        if month >= self.month(now_ms):
            return Outcome.MONTH_NOT_OVER
        for earlier in sorted({move.month for move in self.moves}):
            if earlier <= month and self._close(name, earlier, now_ms):
                return Outcome.APPLIED
        return Outcome.FOUND

    def _close(self, name: str, month: int, now_ms: int) -> bool:
        listed = self._listed(name, month)
        if not listed or (name, month) in self.statements:
            return False
        kinds = ("matured", "reversed", "withdrawn", "restored")
        sums = [sum(move.amount for move in listed if move.kind == kind) for kind in kinds]
        opening = sum(
            move.amount
            for earlier in {move.month for move in self.moves}
            if earlier < month
            for move in self._listed(name, earlier)
        )
        since = sum(
            move.amount
            for move in self.moves
            if move.name == name and move.month > month and move.account == "available"
            if move.kind == "matured"
        )
        moved = max(0, self.balance(name, "available") - since)
        self._move(name, "available", -moved, now_ms, "settled")
        self._move(name, "settled", moved, now_ms, "settled")
        amounts = (sums[0], -sums[1], -sums[2], sums[3])
        self.statements[name, month] = (opening, *amounts, opening + sum(sums), moved)
        return True

    def withdraw(self, request: str, name: str, amount: int, now_ms: int) -> Outcome:
        before = self.withdrawals.get(request)
        if before is not None:
            same = (before.name, before.amount) == (name, amount)
            return Outcome.FOUND if same else Outcome.ID_REUSED
        settled = self.balance(name, "settled")
        if self.states.get(name) is None:
            return Outcome.NOT_DISTRIBUTOR
        if self.states[name] != "active":
            return Outcome.NOT_ACTIVE
        if self.held.get(name):
            return Outcome.BUYER_FROZEN
        mine = [w for w in self.withdrawals.values() if w.name == name]
        if sum(w.state in {"requested", "approved"} for w in mine) >= 10:
            return Outcome.LIMIT_EXCEEDED
        if amount > settled + self.balance(name, "available"):
            return Outcome.EXCEEDS_AVAILABLE
        part = max(0, min(amount, settled))
        self.withdrawals[request] = Withdrawal(name, amount, part)
        self._move(name, "settled", -part, now_ms, "withdrawn")
        self._move(name, "available", part - amount, now_ms, "withdrawn")
        self._move(name, "withdrawing", amount, now_ms, "withdrawn")
        return Outcome.APPLIED

    def review(self, request: str, act: str, now_ms: int, reference: str = "bank-1") -> Outcome:
        held = self.withdrawals[request]
        before, after = {
            "approve": ("requested", "approved"),
            "reject": ("requested", "declined"),
            "paid": ("approved", "paid"),
            "failed": ("approved", "failed"),
        }[act]
        if held.state == after:
            paid_twice = after == "paid" and reference and reference != held.reference
            return Outcome.WITHDRAWAL_CONFLICT if paid_twice else Outcome.APPLIED
        if held.state != before:
            return Outcome.WITHDRAWAL_CONFLICT
        held.state = after
        held.reference = reference or held.reference
        if after == "approved":
            return Outcome.APPLIED
        self._move(held.name, "withdrawing", -held.amount, now_ms, after)
        if after == "paid":
            self._move(held.name, "paid_out", held.amount, now_ms, after)
        else:
            self._move(held.name, "settled", held.settled, now_ms, "restored")
            self._move(held.name, "available", held.amount - held.settled, now_ms, "restored")
        return Outcome.APPLIED

    # Boards

    def invites(self, month: int) -> dict[str, int]:
        names = [to for to, _, of in self.invited if of == month]
        return {name: names.count(name) for name in names}

    def sales(self, month: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for order in self.orders.values():
            if order.month == month:
                left = order.base * (order.quantity - order.returned) // order.quantity
                found[order.referrer] = found.get(order.referrer, 0) + left
        return {name: left for name, left in found.items() if left > 0}
