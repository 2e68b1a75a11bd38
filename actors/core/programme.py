"""Deciding on the programme: who is a distributor, who is bound to whom, and at which rates.

The graph of bindings has no cycle at any instant. A binding may be decided a little after the
instant from which it stands (a share code on a reservation is a fact that comes by the relay), so
the check walks up all bindings that are in force then or later.
"""

from hashlib import blake2b
from typing import Any, NamedTuple

from actors.core import commission_commands as c
from actors.core.commission_records import (
    BUYER_BOUND,
    DISTRIBUTOR_HELD,
    DISTRIBUTOR_SET,
    RATES_PUT,
    BuyerBound,
    DistributorHeld,
    DistributorSet,
    RatesPut,
)
from actors.core.commission_state import (
    ACTIVE,
    APPLIED,
    BUYERS_MAX,
    DISTRIBUTORS_MAX,
    FOR_EVER_MS,
    INVITED_AT,
    REJECTED,
    SALES_AT,
    SUSPENDED,
    Bond,
    Bonds,
    Programme,
    ranks,
    version_key,
)
from actors.core.ledger import month_now
from actors.core.months import month_before
from actors.core.outcomes import Outcome
from actors.core.programme_config import (
    LAST_TOUCH,
    RATE_LINES_MAX,
    VERSION_LINES_MAX,
    VERSIONS_MAX,
    ProgrammeConfig,
)
from actors.core.state import ShardState

Decision = tuple[tuple[Any, ...], tuple[Any, ...]]

ANCESTORS_MAX = 10_000
"""Looked at for a cycle: some 10 ms."""
BOARD_LENGTH_MAX = 10
CODE_LENGTH = 10
_CODE_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's, without what is misread: i, l, o, u."""

_ACTS = {
    c.APPROVE: ((APPLIED, REJECTED), ACTIVE),
    c.REJECT: ((APPLIED,), REJECTED),
    c.SUSPEND: ((ACTIVE,), SUSPENDED),
    c.RESUME: ((SUSPENDED,), ACTIVE),
}
"""Act -> the states that allow it, and the state that it leads to."""


def programme_of(state: ShardState, number: int) -> Programme:
    """The programme of a slot, to be read: an empty one if nothing was ever decided there."""
    found = state.slot(number).programme
    return Programme() if found is None else found


def account_view(programme: Programme, distributor_id: str) -> tuple[Any, ...] | None:
    """(distributor id, state, share code, applied_ms, changed_ms, held_until_ms, balances by
    account, withdrawable, orders, sales, invited, closing of the newest statement and its month,
    open withdrawals, currency), or None."""
    held = programme.distributors.get(distributor_id)
    if held is None:
        return None
    newest = programme.newest()
    return (
        distributor_id,
        held.state,
        held.share_code,
        held.applied_ms,
        held.changed_ms,
        held.held_until_ms,
        tuple(held.balances),
        held.withdrawable_minor(),
        held.orders,
        held.sales_minor,
        held.invited,
        held.closing_minor,
        held.settled_through,
        held.open_withdrawals,
        "" if newest is None else newest.config.currency_code,
    )


def get_account(state: ShardState, command: c.GetAccount, now_ms: int) -> Decision:
    """(FOUND, account, id of who the distributor itself is bound to or '') or (NOT_DISTRIBUTOR,
    None, '')."""
    programme = programme_of(state, command.slot)
    view = account_view(programme, command.distributor_id)
    if view is None:
        return (Outcome.NOT_DISTRIBUTOR, None, ""), ()
    bond = bond_at(programme, command.distributor_id, now_ms)
    return (Outcome.FOUND, view, "" if bond is None else bond.distributor_id), ()


def apply_distributor(state: ShardState, command: c.ApplyDistributor, now_ms: int) -> Decision:
    """(APPLIED, account) or, for who applied before, (FOUND, account). LIMIT_EXCEEDED when the
    programme is full."""
    programme = programme_of(state, command.slot)
    view = account_view(programme, command.distributor_id)
    if view is not None:
        return (Outcome.FOUND, view), ()
    if len(programme.distributors) >= DISTRIBUTORS_MAX:
        return (Outcome.LIMIT_EXCEEDED, None), ()
    newest = programme.newest()
    at_once = newest is not None and newest.config.approve_at_once
    record = DistributorSet(
        DISTRIBUTOR_SET,
        command.slot,
        command.distributor_id,
        ACTIVE if at_once else APPLIED,
        _new_code(programme, command.distributor_id) if at_once else "",
        command.caller,
        command.reason,
        applies=True,
    )
    return (Outcome.APPLIED, None), (record,)


def approve_distributor(state: ShardState, command: c.ApproveDistributor, now_ms: int) -> Decision:
    """(APPLIED, account), also when it was so before. NOT_DISTRIBUTOR; DISTRIBUTOR_CONFLICT from a
    state that does not allow the act."""
    programme = programme_of(state, command.slot)
    view = account_view(programme, command.distributor_id)
    held = programme.distributors.get(command.distributor_id)
    if held is None:
        return (Outcome.NOT_DISTRIBUTOR, None), ()
    allowed, after = _ACTS[command.act]
    if held.state == after:
        return (Outcome.APPLIED, view), ()
    if held.state not in allowed:
        return (Outcome.DISTRIBUTOR_CONFLICT, view), ()
    code = held.share_code
    if after == ACTIVE and not code:
        code = _new_code(programme, command.distributor_id)
    record = DistributorSet(
        DISTRIBUTOR_SET,
        command.slot,
        command.distributor_id,
        after,
        code,
        command.caller,
        command.reason,
    )
    return (Outcome.APPLIED, view), (record,)


def hold_distributor(state: ShardState, command: c.HoldDistributor, now_ms: int) -> Decision:
    """(APPLIED, account); (FOUND, account) if what was decided then or later is known already;
    (NOT_DISTRIBUTOR, None)."""
    programme = programme_of(state, command.slot)
    held = programme.distributors.get(command.distributor_id)
    if held is None:
        return (Outcome.NOT_DISTRIBUTOR, None), ()
    view = account_view(programme, command.distributor_id)
    if command.as_of_ms <= held.held_as_of_ms:
        return (Outcome.FOUND, view), ()
    # Also if it stands so already: what was decided before may come yet.
    until_ms = command.until_ms if command.until_ms > now_ms else 0
    record = DistributorHeld(
        DISTRIBUTOR_HELD,
        command.slot,
        command.distributor_id,
        until_ms,
        command.caller,
        command.reason,
        command.as_of_ms,
    )
    return (Outcome.APPLIED, view), (record,)


def _new_code(programme: Programme, distributor_id: str) -> str:
    salt = 0
    while True:
        digest = blake2b(f"{salt}:{distributor_id}".encode(), digest_size=CODE_LENGTH).digest()
        code = "".join(_CODE_LETTERS[byte & 31] for byte in digest)
        if code not in programme.codes:
            return code
        salt += 1


def put_rates(state: ShardState, command: c.PutRates, now_ms: int) -> Decision:
    """(APPLIED, version, ''), also for what stands already; (INVALID, version, why) for a change
    of currency or time zone; LIMIT_EXCEEDED when there are too many versions or rates."""
    programme = programme_of(state, command.slot)
    newest, config = programme.newest(), command.config
    number = 0 if newest is None else newest.number
    if newest is not None:
        before = newest.config
        if before == config:
            return (Outcome.APPLIED, number, ""), ()
        for field in ("currency_code", "time_zone"):
            if getattr(before, field) != getattr(config, field):
                return (Outcome.INVALID, number, f"{field} cannot change"), ()
    lines = len(config.skus) + len(config.campaigns)
    many = lines > VERSION_LINES_MAX or programme.rate_lines + lines > RATE_LINES_MAX
    if number >= VERSIONS_MAX or many:
        return (Outcome.LIMIT_EXCEEDED, number, "too many versions or rates"), ()
    record = RatesPut(RATES_PUT, command.slot, number + 1, config, command.caller, command.reason)
    return (Outcome.APPLIED, number + 1, ""), (record,)


def get_programme(state: ShardState, command: c.GetProgramme, now_ms: int) -> Decision:
    """(FOUND, version, from_ms, config, sums of the ledger by account, entries, distributors,
    buyers bound) or (NOT_FOUND,)."""
    programme = programme_of(state, command.slot)
    version = (
        programme.rates.get(version_key(command.version)) if command.version else programme.newest()
    )
    if version is None:
        return (Outcome.NOT_FOUND,), ()
    return (
        Outcome.FOUND,
        version.number,
        version.from_ms,
        version.config,
        tuple(programme.sums),
        programme.entry_count,
        len(programme.distributors),
        len(programme.bonds),
    ), ()


def get_leaderboard(state: ShardState, command: c.GetLeaderboard, now_ms: int) -> Decision:
    """(FOUND, month, ((distributor id, buyers bound or sales in minor units), ...)), the highest
    first, equals by id. (NOT_FOUND, month, ()) for a month that is neither this nor the last."""
    programme = programme_of(state, command.slot)
    this = month_now(programme, now_ms)
    month = command.month or this
    if month not in {this, month_before(this)}:
        return (Outcome.NOT_FOUND, month, ()), ()
    column = INVITED_AT if command.board == c.BOARD_INVITES else SALES_AT
    limit = min(command.limit, BOARD_LENGTH_MAX)
    top = programme.boards.top(month, column)
    if not top.knows(limit):
        # What is counted over the rows is no state: each replica counts when it must.
        top.recount(ranks(programme, month, column))
    return (Outcome.FOUND, month, top.best(limit)), ()


def get_referrer(state: ShardState, command: c.GetReferrer, now_ms: int) -> Decision:
    """(FOUND, (distributor id, from_ms, until_ms), id of whom the distributor was bound to itself
    or '') or (NOT_FOUND, None, '')."""
    programme, at_ms = programme_of(state, command.slot), command.at_ms or now_ms
    bond = bond_at(programme, command.buyer_id, at_ms)
    if bond is None:
        return (Outcome.NOT_FOUND, None, ""), ()
    above = bond_at(programme, bond.distributor_id, at_ms)
    view = (bond.distributor_id, bond.from_ms, bond.until_ms)
    return (Outcome.FOUND, view, "" if above is None else above.distributor_id), ()


class Touch(NamedTuple):
    """A buyer met a share code."""

    buyer_id: str
    share_code: str
    at_ms: int
    """From when the binding stands."""
    new_buyer: bool
    reservation_id: str = ""
    caller: str = ""


def bind_referrer(state: ShardState, command: c.BindReferrer, now_ms: int) -> Decision:
    """(APPLIED, distributor id, from_ms, until_ms), or (FOUND, ...) for a binding that stands.
    NOT_FOUND (the code), NOT_ACTIVE, SELF_REFERRAL, BOUND_ALREADY, NOT_NEW_BUYER, CYCLE and
    LIMIT_EXCEEDED come with what binds the buyer instead, or ('', 0, 0)."""
    touch = Touch(
        command.buyer_id, command.share_code, now_ms, command.new_buyer, caller=command.caller
    )
    return bind(programme_of(state, command.slot), command.slot, touch, now_ms)


def bind(programme: Programme, number: int, touch: Touch, now_ms: int) -> Decision:
    """What a touch leads to, as `bind_referrer` says."""
    newest = programme.newest()
    distributor_id = programme.codes.get(touch.share_code, "")
    owner = programme.distributors.get(distributor_id)
    bonds = programme.bonds.get(touch.buyer_id)
    bond = None if bonds is None else bonds.at(touch.at_ms)
    told = ("", 0, 0) if bond is None else (bond.distributor_id, bond.from_ms, bond.until_ms)
    if newest is None or owner is None:
        return (Outcome.NOT_FOUND, *told), ()
    config = newest.config
    mine = bond is not None and bond.distributor_id == distributor_id
    until_ms = touch.at_ms + config.validity_ms if config.validity_ms else FOR_EVER_MS
    if mine and bond is not None and (config.policy != LAST_TOUCH or bond.until_ms >= until_ms):
        return (Outcome.FOUND, *told), ()
    if owner.state != ACTIVE:
        return (Outcome.NOT_ACTIVE, *told), ()
    broken = _not_bound(programme, config, touch, bonds, distributor_id)
    if broken is not None:
        return (broken, *told), ()
    from_ms = bond.from_ms if mine and bond is not None else touch.at_ms
    met = bonds is not None and any(old.distributor_id == distributor_id for old in bonds.bonds)
    record = BuyerBound(
        BUYER_BOUND,
        number,
        touch.buyer_id,
        distributor_id,
        touch.share_code,
        from_ms,
        until_ms,
        mine,
        not met,
        month_now(programme, now_ms),
        touch.reservation_id,
        touch.caller,
    )
    return (Outcome.APPLIED, distributor_id, from_ms, until_ms), (record,)


def _not_bound(
    programme: Programme,
    config: ProgrammeConfig,
    touch: Touch,
    bonds: Bonds | None,
    distributor_id: str,
) -> Outcome | None:
    """Why an active distributor's code does not bind; `bonds` are the buyer's."""
    if distributor_id == touch.buyer_id:
        return Outcome.SELF_REFERRAL
    bond = None if bonds is None else bonds.at(touch.at_ms)
    renewed = bond is not None and bond.distributor_id == distributor_id
    if bond is not None and not renewed:
        # Of two touches in one millisecond the first counts: no two bindings begin together.
        protected_until_ms = bond.from_ms + max(1, config.protection_ms)
        if config.policy != LAST_TOUCH or touch.at_ms < protected_until_ms:
            return Outcome.BOUND_ALREADY
    if config.new_buyers_only and not touch.new_buyer and not renewed:
        return Outcome.NOT_NEW_BUYER
    closed = closes_cycle(programme, touch.buyer_id, distributor_id, touch.at_ms)
    if closed is not None:
        return closed
    full = len(programme.bonds) >= BUYERS_MAX if bonds is None else bonds.full(touch.at_ms)
    return Outcome.LIMIT_EXCEEDED if full and not renewed else None


def bond_at(programme: Programme, buyer_id: str, at_ms: int) -> Bond | None:
    """What binds a buyer at an instant."""
    bonds = programme.bonds.get(buyer_id)
    return None if bonds is None else bonds.at(at_ms)


def closes_cycle(
    programme: Programme, buyer_id: str, distributor_id: str, at_ms: int
) -> Outcome | None:
    """CYCLE if the buyer is among those whom the distributor is bound to, over any number of steps,
    then or later. LIMIT_EXCEEDED if they are too many to tell: each is looked at once."""
    if buyer_id not in programme.distributors:
        # Nobody is bound to who is no distributor: most buyers.
        return None
    seen = {distributor_id}
    ahead = [distributor_id]
    while ahead:
        name = ahead.pop()
        if name == buyer_id:
            return Outcome.CYCLE
        if len(seen) > ANCESTORS_MAX:
            return Outcome.LIMIT_EXCEEDED
        bonds = programme.bonds.get(name)
        for bond in () if bonds is None else bonds.after(at_ms):
            if bond.distributor_id not in seen:
                seen.add(bond.distributor_id)
                ahead.append(bond.distributor_id)
    return None
