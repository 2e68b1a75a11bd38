"""What callers were told, held against the journal: linearizable, refusals and reads included.

The journal is the order of all effects of a shard. An answer must be true at some place of it
between the call and the answer: an effect is there, by its id, before its yes is told; a read shows
what stood at one place in between, never something older than the call; a no was decided in
between, or before for the same id.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from actors.core import commands as c
from actors.core import state as s
from actors.core import team_commands as t
from actors.core.identity import public_id, request_key
from actors.core.outcomes import UNFINAL, Outcome
from actors.core.team_state import TEAM_CANCELLED, TEAM_FAILED, TEAM_FORMED, TEAM_FORMING
from tests.sim.account_answers import JUDGES as ACCOUNT_JUDGES
from tests.sim.account_answers import AccountAnswers
from tests.sim.account_ledger import AccountLedger
from tests.sim.books import Book, History, need
from tests.sim.operations import Operation
from tests.sim.team_ledger import TeamLedger

Window = tuple[int, int]
"""Places in the journal: at the call, and when the answer left."""


def between(history: History | None, window: Window) -> Iterator[Any]:
    """All values that stood within the window; None for before the first."""
    first, last = window
    for at, value in reversed(history or []):
        if at <= last:
            yield value
        if at <= first:
            return
    yield None


class Answers:
    """Judges one answer at a time."""

    def __init__(self, ledger: TeamLedger, may_give_up: Callable[[Operation], bool]) -> None:
        self._ledger = ledger
        self._may_give_up = may_give_up
        """Whether so many processes died with it that its line may be called a poison."""
        self._accounts = (
            AccountAnswers(ledger, between) if isinstance(ledger, AccountLedger) else None
        )

    def judge(self, operation: Operation, window: Window, answer: Any) -> None:
        """Raises Violation for an answer that cannot be true."""
        outcome = Outcome(answer[0])
        if outcome in UNFINAL:
            given_up = outcome is Outcome.INTERNAL and self._may_give_up(operation)
            need(
                given_up or outcome in (Outcome.RETRY, Outcome.UNKNOWN),
                "answers",
                lambda: f"{operation} was answered {outcome.name}",
            )
            return
        kind = operation.command.kind
        if self._accounts is not None and kind in ACCOUNT_JUDGES:
            true = self._accounts.judge(operation, window, outcome, answer)
        else:
            book = self._ledger.books[operation.shard]
            true = JUDGES[kind](self, book, operation, window, outcome, answer)
        need(
            true,
            "I2" if outcome in YES else "answers",
            lambda: (
                f"{operation} was told {outcome.name} {answer[1:]}, which was true at no place of "
                f"the journal between {window[0]} and {window[1]}"
            ),
        )

    def judge_print(self, shard: int, found: Mapping[str, Any], token: str) -> None:
        """Pools and sums of a replica's memory, as of an entry of the journal."""
        book, seq = self._ledger.books[shard], found["seq"]
        if "pools" not in found:
            return
        need(seq <= len(book.entries), "I2", lambda: f"{token} is at {seq}, beyond the journal")
        at = book.starts[seq - 1] if seq else 0
        for pool in found["pools"]:
            history = book.pools.get((pool[2], pool[3]))
            need(
                pool[:12] in between(history, (at, at)),
                "I1",
                lambda pool=pool: (
                    f"{token} has {pool[:12]} at entry {seq}, which never stood there"
                ),
            )
        sums = found["totals"]
        if sums is not None:
            need(not sums["broken"], "I1", str(sums["broken"]))
            owed = sums["kept_minor"] + sums["refund_due_minor"] + sums["refunded_minor"]
            need(sums["paid_minor"] == owed, "I6", f"{token}: {sums}")
        self._ledger.met(shard, "a replica at work was audited")

    def _done(self, mark: Any, window: Window) -> bool:
        """An effect was journalled when its answer left."""
        return bool(self._ledger.effects.get(mark, window[1] + 1) <= window[1])

    def _refused(self, operation: Operation, window: Window, outcome: Outcome) -> bool:
        """This no was journalled when it was told, and not before anybody asked with this id."""
        found = self._ledger.refusals.get(operation.mark[1:], ())
        first_at = min(asked.first_at for asked in self._ledger.asked[operation.mark])
        return any(first_at < at <= window[1] and told == outcome for at, told, _ in found)

    def _reused(self, operation: Operation, window: Window) -> bool:
        """Something else was decided for the same id when it was told."""
        found = self._ledger.taken.get(operation.mark, ())
        return any(at <= window[1] and told != operation.fingerprint for at, told in found)

    def _states(self, book: Book, reservation: str, window: Window) -> set[int]:
        """States that it had within the window; 0 for none at all."""
        history = book.held.get(reservation)
        return {0 if view is None else view[6] for view in between(history, window)}

    def reserve(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        command = q.command
        if outcome is Outcome.ID_REUSED:
            return self._reused(q, window)
        if outcome is not Outcome.RESERVED:
            return self._refused(q, window, outcome)
        if not self._done(q.mark, window):
            return False
        public = public_id(command.slot, request_key(command.caller, command.request_id))
        first = book.held[public][0][1]
        if (answer[1], *answer[2:6], answer[6]) != (first[0], *first[8:12], first[13]):
            return False
        pool = book.pools.get((command.campaign_id, command.sku_id))
        return any(balance and balance[5] == answer[7] for balance in between(pool, window))

    def by_request(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        """Documents and returns."""
        if outcome is Outcome.ID_REUSED:
            return self._reused(q, window)
        if outcome in YES:
            return self._done(q.mark, window)
        return self._refused(q, window, outcome)

    def confirm(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        if outcome is Outcome.PAYMENT_ID_REUSED:
            return self._reused(q, window)
        if not self._done(q.mark, window):
            return False
        seen = book.state.slots[q.command.slot].payments.get(
            request_key("payment", q.command.payment_id)
        )
        return seen is not None and seen[2] == outcome

    def release(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        return not AFTER_RELEASE[outcome].isdisjoint(
            self._states(book, q.command.reservation_id, window)
        )

    def begin(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        if outcome is Outcome.PAYMENT_BEGUN:
            return self._done(q.mark, window)
        if outcome is Outcome.PAYMENT_ID_REUSED:
            return self._done(("payment", q.command.slot, q.command.payment_id), window)
        return not AFTER_BEGIN[outcome].isdisjoint(
            self._states(book, q.command.reservation_id, window)
        )

    def failed(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        if outcome is Outcome.NOTED:
            return self._done(q.mark, window)
        if outcome is Outcome.PAYMENT_ID_REUSED:
            return self._done(("payment", q.command.slot, q.command.payment_id), window)
        return 0 in self._states(book, q.command.reservation_id, window)

    def fulfil(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        views = between(book.held.get(q.command.reservation_id), window)
        if outcome is Outcome.NOTED:
            return any(view and view[7] == answer[1] >= q.command.stage for view in views)
        return not AFTER_FULFIL[outcome].isdisjoint({view[6] if view else 0 for view in views})

    def report_refund(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        if outcome is Outcome.APPLIED:
            return self._done(q.mark, window)
        # Callers report refunds that they were told of, each with an id of its own.
        closed_at = self._ledger.closed.get(q.command.refund_id, window[1] + 1)
        return outcome is Outcome.REFUND_CLOSED and closed_at <= window[1]

    def read_one(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        views = between(book.held.get(q.command.reservation_id), window)
        if outcome is Outcome.NOT_FOUND:
            return None in views
        return answer[1] in views

    def read_stock(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        balances = between(book.pools.get((q.command.campaign_id, q.command.sku_id)), window)
        if outcome is Outcome.NOT_FOUND:
            return None in balances
        return answer[1][:12] in balances

    def take_seat(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        if outcome is not Outcome.RESERVED:
            return self.by_request(book, q, window, outcome, answer)
        if not self._done(q.mark, window):
            return False
        public = public_id(q.command.slot, request_key(q.command.caller, q.command.request_id))
        first = book.held[public][0][1]
        if (answer[1], *answer[2:6], answer[6]) != (first[0], *first[8:12], first[13]):
            return False
        row = self._ledger.rules.held[public]
        views = between(self._teams(q.command.slot, answer[8]), window)
        team = any(view and (answer[9] == view[5]) for view in views) or answer[9] == 0
        pool = book.pools.get(row["pool"])
        return team and any(b and b[5] == answer[7] for b in between(pool, window))

    def _teams(self, slot: int, key: bytes) -> History | None:
        return self._ledger.teams.get((slot, key))

    def leave(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        return not AFTER_LEAVE[outcome].isdisjoint(
            self._states(book, q.command.reservation_id, window)
        )

    def complete(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        views = between(self._teams(q.command.slot, q.command.team_key), window)
        states = {view[3] if view else 0 for view in views}
        return not AFTER_COMPLETE[outcome].isdisjoint(states)

    def read_team(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        views = between(self._teams(q.command.slot, q.command.team_key), window)
        if outcome is Outcome.NOT_FOUND:
            return None in views
        *row, members, currency = answer[1]
        # Members of a team that ended may have left memory, here or in the books.
        return any(
            view
            and (row, currency) == ([*view[:16]], view[17])
            and (row[3] != TEAM_FORMING or members == view[16])
            for view in views
        )

    def suggest(
        self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any
    ) -> bool:
        """Each of them could be joined by this buyer at some place within the window."""

        def fits(view: Any) -> bool:
            return view[3] == TEAM_FORMING and q.command.buyer_id not in [x[1] for x in view[16]]

        return outcome is Outcome.FOUND and all(
            any(view and fits(view) for view in between(self._teams(q.command.slot, x[0]), window))
            for x in answer[1]
        )

    def turn(self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        states = set(between(book.sales.get(q.command.campaign_id), window))
        if outcome is Outcome.APPLIED:
            return q.command.state in states
        return (
            s.CAMPAIGN_ENDED in states if outcome is Outcome.CAMPAIGN_CONFLICT else None in states
        )

    def put(self, book: Book, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        return outcome is Outcome.APPLIED and self._done(q.mark, window)


YES = frozenset(Outcome(number) for number in range(1, 10))
HELD = frozenset({s.CONFIRMED, s.RETURNED})
AFTER_RELEASE = {
    Outcome.RELEASED: {s.RELEASED},
    Outcome.ALREADY_CONFIRMED: HELD,
    Outcome.EXPIRED: {s.EXPIRED},
    Outcome.REVOKED: {s.REVOKED},
    Outcome.NOT_FOUND: {0},
}
AFTER_LEAVE = {
    Outcome.LEFT: {s.RELEASED, s.RETURNED},
    Outcome.TEAM_CLOSED: HELD,
    Outcome.EXPIRED: {s.EXPIRED},
    Outcome.REVOKED: {s.REVOKED},
    Outcome.NOT_FOUND: {0},
}
ENDED = {TEAM_FORMED, TEAM_FAILED, TEAM_CANCELLED}
AFTER_COMPLETE = {
    Outcome.APPLIED: {TEAM_FORMED},
    Outcome.TEAM_CLOSED: ENDED,
    Outcome.TEAM_NOT_OPEN: {TEAM_FORMING},
    Outcome.NOT_FOUND: {0},
}
AFTER_BEGIN = {
    Outcome.ALREADY_RELEASED: {s.RELEASED},
    Outcome.ALREADY_CONFIRMED: HELD,
    Outcome.EXPIRED: {s.EXPIRED},
    Outcome.REVOKED: {s.REVOKED},
    Outcome.NOT_FOUND: {0},
}
AFTER_FULFIL = {
    Outcome.NOT_CONFIRMED: {s.RESERVED, s.EXPIRED, s.RELEASED, s.REVOKED},
    Outcome.NOT_FOUND: {0},
}
JUDGES: dict[int, Callable[[Answers, Book, Operation, Window, Outcome, Any], bool]] = {
    c.RESERVE: Answers.reserve,
    c.CONFIRM: Answers.confirm,
    c.RELEASE: Answers.release,
    c.BEGIN_PAYMENT: Answers.begin,
    c.REPORT_FAILED_PAYMENT: Answers.failed,
    c.RETURN_UNITS: Answers.by_request,
    c.REPORT_FULFILMENT: Answers.fulfil,
    c.REPORT_REFUND: Answers.report_refund,
    c.GET_RESERVATION: Answers.read_one,
    c.GET_STOCK: Answers.read_stock,
    c.PUT_SKU: Answers.put,
    c.RECEIVE_STOCK: Answers.by_request,
    c.ADJUST_STOCK: Answers.by_request,
    c.SET_BUFFER: Answers.by_request,
    c.DECLARE_SHORTAGE: Answers.by_request,
    c.PUT_CAMPAIGN: Answers.put,
    c.SET_CAMPAIGN_STATE: Answers.turn,
    t.OPEN_TEAM: Answers.take_seat,
    t.JOIN_TEAM: Answers.take_seat,
    t.LEAVE_TEAM: Answers.leave,
    t.COMPLETE_TEAM: Answers.complete,
    t.GET_TEAM: Answers.read_team,
    t.SUGGEST_TEAMS: Answers.suggest,
}
