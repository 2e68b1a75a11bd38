"""What callers of account shards were told, held against the journal: part of `answers.py`."""

from collections.abc import Callable, Mapping
from typing import Any

from actors.core import commission_commands as d
from actors.core import risk_commands as k
from actors.core.outcomes import Outcome
from tests.sim.account_ledger import AccountLedger
from tests.sim.books import History
from tests.sim.operations import Operation

Window = tuple[int, int]
Between = Callable[[History | None, Window], Any]
WELL = (Outcome.APPLIED, Outcome.FOUND)


def done(ledger: AccountLedger, mark: Any, window: Window) -> bool:
    """It was journalled when its answer left."""
    return bool(ledger.effects.get(mark, window[1] + 1) <= window[1])


class AccountAnswers:
    """Judges one answer at a time."""

    def __init__(self, ledger: AccountLedger, between: Between) -> None:
        self._ledger = ledger
        self._between = between

    def judge(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """Whether it is true at a place within the window."""
        return bool(JUDGES[q.command.kind](self, q, window, outcome, answer))

    def _views(self, name: str, window: Window) -> list[Any]:
        return list(self._between(self._ledger.accounts.get(name), window))

    def account(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """A distributor as it stood."""
        views = self._views(q.command.distributor_id, window)
        return None in views if outcome is Outcome.NOT_DISTRIBUTOR else answer[1] in views

    def bind(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """Bound to who is named, or by a rule not."""
        buyer, owner = q.command.buyer_id, self._ledger.programme.codes.get(q.command.share_code)
        if outcome in WELL or outcome is Outcome.BOUND_ALREADY:
            other = outcome is Outcome.BOUND_ALREADY
            bound = done(self._ledger, ("bound", buyer, answer[1]), window)
            return bound and (answer[1] != owner if other else answer[1] == owner)
        if outcome is Outcome.SELF_REFERRAL:
            return owner == buyer
        if outcome is Outcome.NOT_ACTIVE:
            return any(view and view[1] != 2 for view in self._views(str(owner), window))
        return outcome is Outcome.CYCLE

    def withdraw(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """Asked for once, or refused once."""
        if outcome in WELL:
            return done(self._ledger, q.mark, window)
        found = self._ledger.refusals.get(q.mark[1:], ())
        return any(at <= window[1] and told == outcome for at, told, _ in found)

    def review(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """A withdrawal as it stood."""
        views = self._between(self._ledger.withdrawals.get(q.command.withdrawal_key), window)
        return answer[1] in list(views)

    def rates(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """A version that was put."""
        return outcome is Outcome.APPLIED and done(self._ledger, q.mark, window)

    def freeze(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """Frozen by this."""
        return outcome is Outcome.APPLIED and done(self._ledger, q.mark, window)

    def unfreeze(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """Not frozen: also if nobody had frozen the buyer."""
        return outcome is Outcome.APPLIED and answer[1][1] == 0

    def settle(self, q: Operation, window: Window, outcome: Outcome, answer: Any) -> bool:
        """A month that is over has its statement; one that is not has none."""
        mark = ("statement", q.command.distributor_id, q.command.month)
        if outcome is Outcome.APPLIED:
            return done(self._ledger, mark, window)
        if outcome is Outcome.NOT_DISTRIBUTOR:
            return None in self._views(q.command.distributor_id, window)
        if outcome is Outcome.MONTH_NOT_OVER:
            return not done(self._ledger, mark, (0, window[0]))
        return outcome is Outcome.FOUND


JUDGES: Mapping[int, Callable[..., bool]] = {
    d.GET_ACCOUNT: AccountAnswers.account,
    d.APPLY_DISTRIBUTOR: AccountAnswers.account,
    d.APPROVE_DISTRIBUTOR: AccountAnswers.account,
    d.BIND_REFERRER: AccountAnswers.bind,
    d.REQUEST_WITHDRAWAL: AccountAnswers.withdraw,
    d.REVIEW_WITHDRAWAL: AccountAnswers.review,
    d.PUT_RATES: AccountAnswers.rates,
    d.SETTLE: AccountAnswers.settle,
    k.FREEZE: AccountAnswers.freeze,
    k.UNFREEZE: AccountAnswers.unfreeze,
}
