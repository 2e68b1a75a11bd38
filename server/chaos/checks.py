"""Holds what callers were told against the journal's order: each check named, each able to fail.

How it works
------------
The journal gives one total order of facts per shard. An answer is explained when a point of that
order lies between the call's begin and end and bears it out: for a change the place of its record,
for a read any place at which the pool stood as told. Real time bounds the points: what was
acknowledged before a call began lies before its point, what was asked after it ended lies behind.
With the writes' order known, this is a whole check of linearizability, and takes n log n.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from server.chaos.books import Books, Effect, Held, Shelf
from server.chaos.history import BINDING, FAIL, HOLDING, OK, SEATING, UNKNOWN, Operation
from server.chaos.team_books import Team
from server.chaos.team_checks import (
    SEAT_REFUSALS,
    check_seat_refusal,
    check_teams,
    place_of_suggestion,
    team_stood_so,
)
from server.chaos.times import Times, brief, indexes, seen
from server.verify import Invariant

CHECKS = {
    "lost_acks": "what was acknowledged is in the journal",
    "phantom_refusals": "what was refused, or not applied, has no effect",
    "changed_answers": "a repeated id gets the same answer",
    "once": "a mark has one effect",
    "asked": "every effect was asked for, as it was asked",
    "order": "what ended before another began stands before it in the journal",
    "refusals": "sold out and over the limit were so at that moment",
    "seated": "a team has seats for all its paid and unpaid, and nobody sits twice",
    "formed": "a team forms with people of a tier, all of whom have paid",
    "owed": "who paid for a seat is in a formed team at its price, or gets all back, once",
    "reads": "a read shows an instant between its begin and end, and never goes back",
    "oversold": "no pool and no buyer has more than there is",
    "arithmetic": "records add up to the balances that their entries tell",
    "earned": "an order earns by the rates of its moment for who brought its buyer, once",
    "reversed": "each return takes back its part of what was earned, and nothing else does",
    "ledger": "entries come to 0, thaw once and in time, and add up to what accounts are read as",
    "bound": "who was told to be bound is, and nobody else",
    "frozen": "three failed payments freeze; the frozen are refused, and nobody else is",
    "relayed": "accounts know of all orders soon after the load, and nothing is set aside",
    "journal": "entries stay as they were first read",
    "settled": "I1-I6 hold, and every acknowledged effect is in SQL",
    "progress": "no shard stands still for long, but while a fault lasts",
}

Checks = dict[str, Invariant]


def new_checks() -> Checks:
    """One counter for each."""
    return {name: Invariant() for name in CHECKS}


class Asked(NamedTuple):
    """All calls of one mark."""

    first: Operation
    calls: list[Operation]

    @property
    def answers(self) -> list[Operation]:
        """Those that were told a decision."""
        return [call for call in self.calls if call.definite]


def check_history(operations: Iterable[Operation], books: Books, checks: Checks) -> None:
    """Everything that history and journal say of each other."""
    reads: list[Operation] = []
    asked: dict[str, Asked] = {}
    for operation in sorted(operations, key=lambda o: o.began_s):
        if operation.verb == BINDING:
            continue  # Its record is of no stock shard: see `account_checks`.
        if not operation.mark:
            reads.append(operation)
        elif operation.mark in asked:
            asked[operation.mark].calls.append(operation)
        else:
            asked[operation.mark] = Asked(operation, [operation])
    times = [Times() for _ in books.places]
    for mark, one in asked.items():
        _check_mark(mark, one, books, checks, times)
    _check_asked(asked, books, checks)
    for shard_times in times:
        shard_times.seal()
    for shard, shard_times in enumerate(times):
        shard_times.check_order(shard, checks["order"])
    for one in asked.values():
        for call in one.answers:
            _check_state(call, books, times[call.shard], checks)
    _check_reads(reads, books, times, checks["reads"])
    for name, found in (("once", books.once), ("oversold", books.oversold)):
        checks[name] = found
    checks["arithmetic"] = books.arithmetic
    check_teams(books.teams, checks)


def last_acked(operations: Iterable[Operation], books: Books) -> list[int]:
    """By shard, the newest entry that somebody was told of."""
    found = [0] * len(books.places)
    for operation in operations:
        if operation.definite and operation.mark:
            for effect in books.effects.get(operation.mark, ()):
                found[effect.shard] = max(found[effect.shard], effect.seq)
    return found


def doubts_of(operations: Iterable[Operation], books: Books) -> dict[str, int]:
    """What became of those that nobody was told of: both must be possible, and happen."""
    told: dict[str, bool] = {}
    for operation in operations:
        if operation.mark:
            told[operation.mark] = told.get(operation.mark, False) or operation.outcome != UNKNOWN
    left = [mark for mark, known in told.items() if not known]
    applied = sum(mark in books.effects for mark in left)
    return {"took_effect": applied, "did_not": len(left) - applied}


def _check_mark(mark: str, one: Asked, books: Books, checks: Checks, times: list[Times]) -> None:
    """One mark's calls against its effects."""
    effects = books.effects.get(mark, [])
    answers = one.answers
    told = None
    for call in answers:
        if has_record(call):
            told = told or call
            checks["lost_acks" if call.outcome == OK else "refusals"].check(
                any(effect.status == call.status for effect in effects),
                (
                    f"{brief(call)} was told {call.status}; the journal has "
                    f"{[effect.status for effect in effects] or 'nothing'}"
                ),
            )
    done = [effect for effect in effects if effect.status in DONE_BY_RECORD]
    for call in answers:
        if call.outcome == FAIL and has_record(call):
            checks["phantom_refusals"].check(
                not done, f"{brief(call)} was told {call.status}, and took effect"
            )
    if all(call.outcome == FAIL and not call.definite for call in one.calls):
        checks["phantom_refusals"].check(
            not effects, f"{brief(one.first)} was told that nothing was applied; it was"
        )
    _check_same(mark, answers, checks["changed_answers"])
    for effect in effects[-1:]:
        matching = [call.ended_s for call in answers if call.status == effect.status]
        times[effect.shard].add(
            effect.place, one.first.began_s, min(matching, default=float("inf")), mark
        )
        checks["order"].check(
            effect.shard == one.first.shard, f"{mark} took effect on another shard"
        )


def _check_same(mark: str, answers: list[Operation], found: Invariant) -> None:
    """Marks that are remembered: requests and payments. What merely reads the reservation's state
    (a second begin, a second release) may be told of a later one."""
    if not mark.startswith(("request:", "payment:")):
        return
    for call in answers[1:]:
        first = answers[0]
        found.check(
            (call.status, call.answer) == (first.status, first.answer),
            (f"{brief(call)}: {first.status} {first.answer}, then {call.status} {call.answer}"),
        )


def _check_asked(asked: dict[str, Asked], books: Books, checks: Checks) -> None:
    """Every effect that callers can have was asked for, by whom and for what it says."""
    for mark in books.effects:
        if not mark.startswith("expiry:"):
            checks["asked"].check(mark in asked, f"{mark}: nobody asked for it")
    for name, held in books.held.items():
        one = asked.get(f"request:{name}")
        if one is None:
            continue
        first = one.first
        checks["asked"].check(
            (held.pool, held.buyer_id, held.quantity)
            == ((first.campaign_id, first.sku_id), first.buyer_id, first.quantity),
            (f"{brief(first)} became {held.quantity} of {held.pool} for {held.buyer_id}"),
        )
    for name, team_id in books.teams.joined.items():
        one = asked.get(f"request:{name}")
        checks["asked"].check(
            one is None or one.first.team_id == team_id,
            f"{name} is a seat of {team_id}, {brief(one.first) if one else ''}",
        )


def _check_state(call: Operation, books: Books, times: Times, checks: Checks) -> None:
    """Answers that rest on what stood at some instant."""
    if has_record(call):
        effects = books.effects.get(call.mark, [])
        for effect in [e for e in effects if e.status == call.status][-1:]:
            _check_refusal(call, effect, books, checks["refusals"])
        return
    if call.verb in ("leave_team", "complete_team") and call.status != "EXPIRED":
        checks["refusals"].check(
            team_stood_so(call, books, times),
            f"{brief(call)} was told {call.status}; the team never stood so meanwhile",
        )
        return
    states = STATES_BEHIND.get(call.status)
    held = books.held.get(call.reservation_id)
    checks["refusals"].check(
        states is not None
        and held is not None
        and any(
            state in states
            for state, _ in seen(held, times.after(call.began_s), times.until(call.ended_s))
        ),
        f"{brief(call)} was told {call.status}; the reservation never stood so meanwhile",
    )


def _check_refusal(call: Operation, effect: Effect, books: Books, found: Invariant) -> None:
    """Sold out and over the limit, exactly at the place of the refusal."""
    if call.verb in SEATING and call.status in SEAT_REFUSALS:
        check_seat_refusal(call, effect, books, found)
    pool = (call.campaign_id, call.sku_id)
    shelf = books.shelves.get(pool)
    if call.verb not in HOLDING or shelf is None:
        return
    if call.status == "SOLD_OUT":
        available = shelf.at(effect.place).available
        found.check(
            available < call.quantity,
            f"{brief(call)} was told SOLD_OUT with {available} units available",
        )
    elif call.status == "LIMIT_EXCEEDED":
        has = sum(h.counted_at(effect.place) for h in books.holdings(pool, call.buyer_id))
        found.check(
            0 < shelf.limit < has + call.quantity,
            f"{brief(call)} was told LIMIT_EXCEEDED with {has} of {shelf.limit}",
        )


def _check_reads(
    reads: list[Operation], books: Books, times: list[Times], found: Invariant
) -> None:
    """In the order of their begins, so that a read is known to those that began after its end."""
    ended: list[list[tuple[float, int]]] = [[] for _ in times]
    for read in reads:
        if read.outcome != OK:
            found.check(not read.definite, f"{brief(read)}: {read.status}")
            continue
        own = ended[read.shard]
        behind = bisect_left(own, (read.began_s, 0))
        earlier = own[behind - 1][1] if behind else 0
        after = max(times[read.shard].after(read.began_s), earlier)
        until = times[read.shard].until(read.ended_s)
        place = _place_of(read, books, after, until)
        found.check(
            place is not None,
            (
                f"{brief(read)} saw {read.answer}; "
                f"it never stood so from place {after} to before {until}"
            ),
        )
        _note(own, read.ended_s, after if place is None else place)


def _note(ended: list[tuple[float, int]], ended_s: float, place: int) -> None:
    """Keep (end of a read, highest place that reads had reached by then), rising in both."""
    index = bisect_right(ended, (ended_s, 1 << 62))
    reached = max(place, ended[index - 1][1] if index else 0)
    ended.insert(index, (ended_s, reached))
    for later in range(index + 1, len(ended)):
        if ended[later][1] >= reached:
            break
        ended[later] = (ended[later][0], reached)


def _place_of(read: Operation, books: Books, after: int, until: int) -> int | None:
    """The first place in the window at which what was read stood so."""
    it: Shelf | Held | Team | None
    if read.verb == "suggest_teams":
        return place_of_suggestion(read, books, after, until)
    if read.verb == "get_team":
        it = books.teams.teams.get(read.team_id)
    elif read.verb == "get_stock":
        it = books.shelves.get((read.campaign_id, read.sku_id))
    else:
        it = books.held.get(read.reservation_id)
    if it is None:
        return None
    for index in indexes(it, after, until):
        if tuple(it.states[index]) == tuple(read.answer):
            return max(after, it.places[index])
    return None


def has_record(call: Operation) -> bool:
    """Whether a record of the journal stands behind an answer."""
    return call.status in HAS_RECORD or (call.verb in SEATING and call.status in SEAT_REFUSALS)


DONE_BY_RECORD = frozenset(
    {
        "RESERVED",
        "CONFIRMED",
        "REFUND_DUE",
        "RELEASED",
        "RETURNED",
        "PAYMENT_BEGUN",
        "NOTED",
        "LEFT",
        "APPLIED",
    }
)
HAS_RECORD = DONE_BY_RECORD | {
    "SOLD_OUT",
    "LIMIT_EXCEEDED",
    "NOT_STARTED",
    "ENDED",
    "PAUSED",
    "NOT_ELIGIBLE",
    "EXCEEDS_QUANTITY",
    "NOT_CONFIRMED",
}
"""Answers that a record of the journal stands behind: yes, and the refusals of requests."""

STATES_BEHIND = {
    "EXPIRED": {"EXPIRED"},
    "ALREADY_CONFIRMED": {"CONFIRMED", "RETURNED"},
    "ALREADY_RELEASED": {"RELEASED"},
}
"""Answers without a record -> states of the reservation that make them true."""
