"""Those who call: buyers, their shop and its operators, with attempts, deadlines and patience.

An operation is asked again with the same id as long as it is told RETRY or UNKNOWN, or nothing,
until its caller loses patience. Every answer is judged, also one that comes after the caller went
away. Which operation comes next is chance, among those that make sense for what was sold so far.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from actors.core import commands as c
from actors.core import team_commands as t
from actors.core.campaign_config import CampaignConfig, CampaignLine
from actors.core.identity import public_id, request_key, slot_of
from actors.core.outcomes import UNFINAL, Outcome
from tests.sim.answers import Answers
from tests.sim.books import need
from tests.sim.cluster import Cluster, Gateway, Instance
from tests.sim.loop import START_MS
from tests.sim.operations import Operation
from tests.sim.team_ledger import TeamLedger

CALL_MS_MAX = 1_250
"""A call's longest deadline: 10 s in the real world, a refusal being remembered for 15 s there."""
PATIENCE = 6
POISON = "poison"
SALE = "sale"
SKUS = ("tea", "cup")
BUYERS = ("ann", "bob", "cid")


class Attempt:
    """One call of one operation through one gateway."""

    __slots__ = ("at", "gateway", "is_over", "left_at", "operation")

    def __init__(self, operation: Operation, gateway: Gateway, at: int) -> None:
        self.operation = operation
        self.gateway = gateway
        self.at = at
        """Where the journal stood at the call."""
        self.left_at = 0
        self.is_over = False


class Callers:
    """Asks, waits, asks again, and judges what comes back."""

    def __init__(self, cluster: Cluster, ledger: TeamLedger) -> None:
        self.cluster, self.ledger = cluster, ledger
        self.world = cluster.world
        self.answers = Answers(ledger, self._may_give_up)
        self.waiting = 0
        """Operations that are not over."""
        self.told: list[Operation] = []
        self.window_ms = 600
        self._count = 0
        self._sold: list[tuple[str, Operation]] = []
        self._refunds: list[str] = []
        self._paid: dict[str, str] = {}
        cluster.on_gateway_ended = self._gateway_ended
        cluster.send_poison = self._poison
        cluster.rush = self._rush
        self.terms: Callable[[CampaignConfig], CampaignConfig] = lambda config: config
        """What becomes of the campaign before it is put."""
        self.share: Callable[[Any], Any] = lambda command: command
        """What becomes of a command that reserves: it may carry a share code."""
        self._only_at = ""
        """The gateway to call; '' for any."""

    # Calls

    def ask(self, command: Any, then: Callable[[Operation], None] | None = None) -> Operation:
        """Begin an operation."""
        operation = self._begin_operation(command, then)
        self._attempt(operation)
        return operation

    def _begin_operation(
        self, command: Any, then: Callable[[Operation], None] | None = None
    ) -> Operation:
        self._count += 1
        shard = self.cluster.slots_of[command.slot]
        operation = Operation(self._count, command, shard)
        operation.retries_left = self.world.chance.choice((1, PATIENCE, PATIENCE, PATIENCE))
        operation.then = then
        operation.first_at = self.ledger.books[shard].at
        if operation.mark is not None:
            self.ledger.ask(operation)
        if command.kind == c.CONFIRM:
            self.ledger.paying[command.reservation_id] += 1
        self.waiting += 1
        self.told.append(operation)
        return operation

    def _attempt(self, *operations: Operation) -> None:
        """Ask for one, or for several in one call."""
        chance, cluster = self.world.chance, self.cluster
        gateway = cluster.gateways[self._only_at or chance.choice(list(cluster.gateways))]
        wait_ms = 200 if cluster.shape.forgets else chance.choice((150, 400, 900, CALL_MS_MAX))
        attempts = [self._attempt_at(operation, gateway, wait_ms) for operation in operations]
        if gateway.process.alive:
            gateway.process.after(chance.random() * 0.002, self._arrive, attempts, wait_ms)

    def _attempt_at(self, operation: Operation, gateway: Gateway, wait_ms: int) -> Attempt:
        book = self.cluster.slots_of[operation.command.slot]
        attempt = Attempt(operation, gateway, self.ledger.books[book].at)
        operation.attempts += 1
        operation.open += 1
        self.world.tell(
            "caller", "%s, attempt %d at %s", operation, operation.attempts, gateway.name
        )
        gateway.calls[attempt] = None
        self.world.after(wait_ms / 1000 + 0.3, self._no_answer, attempt)
        return attempt

    def _arrive(self, attempts: Sequence[Attempt], wait_ms: int) -> None:
        gateway = attempts[0].gateway
        deadline_ms = gateway.process.now_ms() + wait_ms
        commands = [one.operation.command._replace(deadline_ms=deadline_ms) for one in attempts]
        if len(commands) == 1:
            gateway.lines.put(commands[0], partial(self._answered, attempts[0]))
        else:
            gateway.process.create_task(self._submit(attempts, commands))

    async def _submit(self, attempts: Sequence[Attempt], commands: Sequence[Any]) -> None:
        answers = await attempts[0].gateway.lines.submit(commands)
        for attempt, answer in zip(attempts, answers, strict=True):
            self._answered(attempt, answer)

    def _answered(self, attempt: Attempt, answer: Any) -> None:
        attempt.left_at = self.ledger.books[attempt.operation.shard].at
        self.world.after(self.world.chance.random() * 0.002, self._deliver, attempt, answer)

    def _gateway_ended(self, gateway: Gateway) -> None:
        for attempt in list(gateway.calls):
            self.world.after(self.world.chance.random() * 0.02, self._no_answer, attempt)

    def _no_answer(self, attempt: Attempt) -> None:
        """The caller's own deadline passed, or its connection was closed."""
        if not attempt.is_over:
            attempt.operation.only_retry = False
            self._over(attempt, None)

    def _deliver(self, attempt: Attempt, answer: Any) -> None:
        operation = attempt.operation
        self.world.tell("caller", "op %d: %s", operation.number, Outcome(answer[0]).name)
        self.answers.judge(operation, (attempt.at, attempt.left_at), answer)
        if not attempt.is_over:
            self._over(attempt, answer)

    def _over(self, attempt: Attempt, answer: Any) -> None:
        operation = attempt.operation
        attempt.is_over = True
        attempt.gateway.calls.pop(attempt, None)
        operation.open -= 1
        outcome = None if answer is None else Outcome(answer[0])
        if outcome is not None and outcome not in UNFINAL:
            self._same_as_before(operation, outcome)
            operation.final = outcome
            operation.only_retry = False
            self._end(operation, answer)
            return
        if outcome is not Outcome.RETRY:
            operation.only_retry = False
        operation.retries_left -= 1
        if operation.retries_left <= 0:
            self._end(operation, None)
        else:
            self.world.after(0.01 + self.world.chance.random() * 0.1, self._attempt, operation)

    def _same_as_before(self, operation: Operation, outcome: Outcome) -> None:
        need(
            operation.final in (None, outcome) or operation.command.kind not in ONE_ANSWER,
            "I4",
            lambda: f"{operation} was told {operation.final} and then {outcome.name}",
        )

    def _end(self, operation: Operation, answer: Any) -> None:
        self.waiting -= 1
        if operation.command.kind == c.CONFIRM:
            self.ledger.paying[operation.command.reservation_id] -= 1
        if answer is not None and answer[0] == Outcome.REFUND_DUE:
            self._refunds.append(public_id(operation.command.slot, answer[2][0]))
        if answer is not None and answer[0] == Outcome.LEFT and answer[2]:
            self._refunds.append(public_id(operation.command.slot, answer[2][0]))
        if answer is not None and answer[0] == Outcome.RETURNED and answer[3]:
            self._refunds.append(public_id(operation.command.slot, answer[3][0]))
        if operation.then is not None:
            operation.then(operation)

    # What is asked

    def must(self, command: Any, then: Callable[[Operation], None]) -> None:
        """With patience: nothing goes on without it."""
        self.ask(command, then).retries_left = 1_000

    def open_shop(self, then: Callable[[], None]) -> None:
        """SKUs, stock and a campaign, one after the other; `then` once they are there."""
        ends_ms = START_MS + self.world.chance.choice((3_000, 3_000_000))
        limit = self.world.chance.choice((0, 3))
        lines = tuple(CampaignLine(sku, 12, 100, 80, limit) for sku in SKUS[:1])
        config = self.terms(CampaignConfig(SALE, "CNY", 0, ends_ms, self.window_ms, 4, (), lines))
        steps: list[Callable[[], Any]] = []
        for sku in SKUS:
            slot = slot_of(sku)
            put = c.PutSku(c.PUT_SKU, slot, 0, "web", sku, sku, {}, 0, 100, "CNY", self.window_ms)
            steps += [lambda put=put: put, lambda sku=sku: self._receive(sku, 20)]
        head = (c.PUT_CAMPAIGN, slot_of(SALE), 0, "web", SALE, config)
        steps.append(lambda: c.PutCampaign(*head))

        def go_on(_: Operation | None = None) -> None:
            if steps:
                self.must(steps.pop(0)(), go_on)
            else:
                self._allocate(then)

        go_on()

    def _allocate(self, then: Callable[[], None]) -> None:
        """The service's own transfer from the base pool to the campaign."""
        gateway = self.world.chance.choice(self.cluster.living_gateways())
        deadline_ms = gateway.process.now_ms() + CALL_MS_MAX

        async def move() -> None:
            await gateway.transfers.allocate(
                campaign_id=SALE,
                sku_id=SKUS[0],
                granted=0,
                quantity=8,
                attempt=0,
                deadline_ms=deadline_ms,
            )
            self.world.after(0, then)

        gateway.process.call_soon(lambda: gateway.process.create_task(move()))

    def something(self) -> None:
        """One operation by chance."""
        chance = self.world.chance
        make = chance.choice(CHOICES if self._sold else CHOICES[:10])
        make(self)

    def name(self, letter: str) -> str:
        """An id that nobody has."""
        self._count += 1
        return f"{letter}{self._count}"

    def _reserve(self) -> None:
        self._attempt(self._reservation())

    def _basket(self) -> None:
        """Several reservations in one call."""
        self._attempt(*[self._reservation() for _ in range(self.world.chance.randint(2, 5))])

    def _poison(self) -> None:
        """A line that no process survives."""
        self.cluster.network.poison = POISON.encode()
        head = (c.RESERVE, slot_of(SKUS[0]), 0, "web", self.name(POISON), "", SKUS[0], 1)
        poison = self._begin_operation(c.Reserve(*head, BUYERS[0]))
        poison.retries_left = 1
        self._attempt(poison, self._reservation(), self._reservation())

    def _rush(self, sells: str, reads: str) -> None:
        def at(gateway: str, *what: Callable[[Callers], None]) -> None:
            self._only_at = gateway
            for ask in what:
                ask(self)
            self._only_at = ""

        at(sells, *[Callers._reserve] * 3)
        for _ in range(3):
            within_s = self.world.chance.random() * 0.04
            self.world.after(within_s, at, reads, *[Callers._read_stock] * 3)

    def _may_give_up(self, operation: Operation) -> bool:
        """It is a poison itself, or was with others that died: who dies with a poison only is told
        from it before the third death."""
        if getattr(operation.command, "request_id", "").startswith(POISON):
            return True
        if len(self.cluster.gateways) > 1:
            return True  # Gateways know nothing of each other's lines, which may die with them.
        harm = self.world.harm
        return harm["killed"] + harm["links broken"] > self.cluster.poisoned

    def _audit(self) -> None:
        """What `stockray verify` reads of a replica that is at work is true of one entry."""
        pair = self.world.chance.choice(self.cluster.pairs)
        instance = self.world.chance.choice(list(pair.instances.values()))
        if instance.process.alive:
            instance.process.call_soon(self._begin_audit, pair.shard, instance)

    def _begin_audit(self, shard: int, instance: Instance) -> None:
        instance.process.create_task(self._look(shard, instance))

    async def _look(self, shard: int, instance: Instance) -> None:
        found = await instance.shard.fingerprint(True)
        try:
            self.answers.judge_print(shard, found, instance.token)
        except AssertionError as error:
            self.cluster.broken(str(error))

    def _reservation(self) -> Operation:
        chance = self.world.chance
        sale = chance.choice((SALE, "", ""))
        sku = SKUS[0] if sale else chance.choice(SKUS)
        fields = (self.name("r"), sale, sku, chance.choice((1, 1, 2, 5)), chance.choice(BUYERS))
        return self._begin_reservation(sale, *fields)

    def _begin_reservation(self, sale: str, *fields: Any) -> Operation:
        command = c.Reserve(c.RESERVE, slot_of(sale or fields[2]), 0, "web", *fields)
        operation = self._begin_operation(self.share(command))
        self._sold.append((self._public(operation), operation))
        return operation

    def _public(self, operation: Operation) -> str:
        command = operation.command
        return public_id(command.slot, request_key("web", command.request_id))

    def reservation(self, sale: str, units: int, buyer: str = "") -> tuple[str, Operation]:
        """One that is asked for now, and its id."""
        sku = SKUS[0] if sale else self.world.chance.choice(SKUS)
        who = buyer or self.world.chance.choice(BUYERS)
        operation = self._begin_reservation(sale, self.name("r"), sale, sku, units, who)
        self._attempt(operation)
        return self._public(operation), operation

    def sold(self, public: str, operation: Operation) -> None:
        """Others ask about this reservation from now on too."""
        self._sold.append((public, operation))

    def payment_of(self, public: str) -> str:
        """The id of a reservation's first payment."""
        return self._paid.setdefault(public, self.name("p"))

    def _one(self) -> tuple[str, Operation]:
        """A reservation, rather one of the last."""
        sold = self._sold
        return self.world.chance.choice(sold[-8:] if self.world.chance.random() < 0.7 else sold)

    def _again(self) -> None:
        """The same request once more: from its caller, or with other arguments by mistake."""
        _, operation = self._one()
        if operation.final not in (None, Outcome.RESERVED) or operation.open:
            return
        command = operation.command
        if self.world.chance.random() < 0.3:
            command = command._replace(quantity=command.quantity + 1)
            self.ask(command)
        elif operation.final == Outcome.RESERVED or operation.retries_left <= 0:
            self.waiting += 1
            operation.then = None
            operation.retries_left = 2
            self._attempt(operation)

    def _pay(self) -> None:
        public, operation = self._one()
        chance, command = self.world.chance, operation.command
        paid = self._price(public, command) + (chance.random() < 0.1)
        payment = self._paid.setdefault(public, self.name("p"))
        if chance.random() < 0.15:
            payment = self.name("p")
        head = (c.CONFIRM, command.slot, 0, "web", public, payment)
        self.ask(c.Confirm(*head, paid))

    def _price(self, public: str, command: Any) -> int:
        if command.kind == c.RESERVE:
            return int((80 if command.campaign_id else 100) * command.quantity)
        row = self.ledger.naive.held.get(public)
        return 77 * command.quantity if row is None else int(row["payable"])

    def _begin(self) -> None:
        public, operation = self._one()
        payment = self._paid.setdefault(public, self.name("p"))
        head = (c.BEGIN_PAYMENT, operation.command.slot, 0, "web", public, payment)
        self.ask(c.BeginPayment(*head))

    def _fail(self) -> None:
        public, operation = self._one()
        payment = self._paid.setdefault(public, self.name("p"))
        head = (c.REPORT_FAILED_PAYMENT, operation.command.slot, 0, "web", public, payment, 1)
        self.ask(c.ReportFailedPayment(*head))

    def _release(self) -> None:
        public, operation = self._one()
        self.ask(c.Release(c.RELEASE, operation.command.slot, 0, "web", public))

    def _ship(self) -> None:
        self.ship(*self._one())

    def ship(self, public: str, operation: Operation) -> None:
        """The goods are on their way, or there."""
        head = (c.REPORT_FULFILMENT, operation.command.slot, 0, "web", public)
        self.ask(c.ReportFulfilment(*head, self.world.chance.randint(1, 3), START_MS))

    def _bring_back(self) -> None:
        self.bring_back(*self._one())

    def bring_back(self, public: str, operation: Operation) -> None:
        """One unit."""
        head = (c.RETURN_UNITS, operation.command.slot, 0, "web", self.name("b"), public)
        self.ask(c.ReturnUnits(*head, 1, self.world.chance.randint(1, 3)))

    def _report_refund(self) -> None:
        if not self._refunds:
            self._pay()
            return
        refund = self.world.chance.choice(self._refunds)
        closed = self.world.chance.random() < 0.6
        head = (c.REPORT_REFUND, int(refund[:3], 16), 0, "web", refund, closed, self.name("f"))
        self.ask(c.ReportRefund(*head))

    def _read_one(self) -> None:
        public, operation = self._one()
        self.ask(c.GetReservation(c.GET_RESERVATION, operation.command.slot, 0, "web", public))

    def _read_stock(self) -> None:
        sale = self.world.chance.choice((SALE, "", ""))
        sku = SKUS[0] if sale else self.world.chance.choice(SKUS)
        self.ask(c.GetStock(c.GET_STOCK, slot_of(sale or sku), 0, "web", sale, sku))

    def _receive(self, sku: str, units: int) -> c.ReceiveStock:
        head = (c.RECEIVE_STOCK, slot_of(sku), 0, "web", self.name("d"), sku)
        return c.ReceiveStock(*head, units)

    def _stock(self) -> None:
        chance = self.world.chance
        sku = chance.choice(SKUS)
        head = (slot_of(sku), 0, "web", self.name("d"))
        kind = chance.randrange(4)
        if kind == 0:
            self.ask(self._receive(sku, chance.randint(1, 4)))
        elif kind == 1:
            delta = chance.choice((-6, -2, 1, 3))
            self.ask(c.AdjustStock(c.ADJUST_STOCK, *head, "", sku, delta))
        elif kind == 2:
            self.ask(c.SetBuffer(c.SET_BUFFER, *head, sku, chance.randint(0, 3)))
        else:
            fields = (chance.randint(1, 6), "broken", False)
            self.ask(c.DeclareShortage(c.DECLARE_SHORTAGE, *head, "", sku, *fields))

    def _turn(self) -> None:
        state = self.world.chance.choice((1, 1, 1, 2, 2, 3))
        head = (c.SET_CAMPAIGN_STATE, slot_of(SALE), 0, "web", SALE, state)
        self.ask(c.SetCampaignState(*head))


ONE_ANSWER = frozenset(
    {
        c.RESERVE,
        c.CONFIRM,
        c.RECEIVE_STOCK,
        c.ADJUST_STOCK,
        c.SET_BUFFER,
        t.OPEN_TEAM,
        t.JOIN_TEAM,
    }
)
CHOICES: Sequence[Callable[[Callers], None]] = (
    *[Callers._reserve] * 5,
    Callers._basket,
    Callers._audit,
    Callers._read_stock,
    Callers._stock,
    Callers._turn,
    *[Callers._pay] * 4,
    Callers._begin,
    Callers._fail,
    *[Callers._release] * 2,
    Callers._ship,
    Callers._bring_back,
    Callers._report_refund,
    Callers._again,
    *[Callers._read_one] * 2,
)
"""In the order: what always makes sense, then what needs a reservation."""
