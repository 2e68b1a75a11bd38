"""Comparing two states of a shard field by field, as `server/recover_audit.py` says."""

from typing import Any

from actors.core import commission_state as c
from actors.core import state as s
from actors.core.campaign_config import CampaignConfig, CampaignLine, GroupRules, Tier
from actors.core.codec import unpack_entry
from actors.core.evolve import fold
from actors.core.evolve_reservations import counted_units
from actors.core.pools import Pool
from actors.core.risk_state import Profile
from actors.core.snapshot import Loader, chunks
from actors.core.tables import Counts
from actors.core.team_state import Group, Team
from server.recover_audit import AUDIT, Verdict

KINDS: dict[str, type[Any]] = {
    "ShardState": s.ShardState,
    "SlotState": s.SlotState,
    "Sku": s.Sku,
    "Campaign": s.Campaign,
    "CampaignConfig": CampaignConfig,
    "CampaignLine": CampaignLine,
    "GroupRules": GroupRules,
    "Tier": Tier,
    "Group": Group,
    "Team": Team,
    "Pool": Pool,
    "Reservation": s.Reservation,
    "Seat": s.Seat,
    "Payment": s.Payment,
    "Refund": s.Refund,
    "Transfer": s.Transfer,
    "Programme": c.Programme,
    "Distributor": c.Distributor,
    "Sums": c.Sums,
    "Statement": c.Statement,
    "Bonds": c.Bonds,
    "Bond": c.Bond,
    "Order": c.Order,
    "Earning": c.Earning,
    "Withdrawal": c.Withdrawal,
    "Version": c.Version,
    "Profile": Profile,
    "Debt": s.Debt,
}


def folded(entries: list[bytes]) -> s.ShardState:
    """The journal's fold, with what it forgot in its archive."""
    state = s.ShardState()
    state.archive = {}
    for seq, entry in enumerate(entries, 1):
        content = unpack_entry(entry)
        fold(state, seq, content.now_ms, content.records, content.balances)
    return state


def loaded(state: s.ShardState) -> s.ShardState:
    """The state as recovery loads it: through a snapshot, which counts anew."""
    made = s.ShardState()
    Loader(made, state.seq).read(chunks(state))
    return made


def fields_of(kind: type[Any]) -> tuple[str, ...]:
    """The names of all that an object of this kind holds; of a seat, beyond its reservation."""
    return tuple(getattr(kind, "_fields", None) or kind.__slots__)


def differences(original: s.ShardState, rebuilt: s.ShardState) -> list[str]:
    """What of the state differs although the audit says that it is rebuilt or derived. Both must
    remember all their reservations."""
    found: list[str] = []
    _compare("ShardState", original, rebuilt, "", found)
    return found


def _compare(kind: str, first: Any, second: Any, at: str, found: list[str]) -> None:
    for name in fields_of(KINDS[kind]):
        verdict = AUDIT[kind, name].verdict
        mine, other = getattr(first, name), getattr(second, name)
        if verdict in (Verdict.REBUILT, Verdict.DERIVED):
            _match(mine, other, f"{at}.{name}", found)
        elif verdict is Verdict.NEAR and not 0 < other <= mine:
            found.append(f"{at}.{name}: {mine} is now {other}")


def _match(first: Any, second: Any, at: str, found: list[str]) -> None:
    kind = type(first).__name__
    if kind in KINDS and type(first) is type(second):
        if kind == "Seat":
            _compare("Reservation", first, second, at, found)
        _compare(kind, first, second, at, found)
        return
    pairs, others = _as_pairs(first), _as_pairs(second)
    if pairs is None or others is None:
        if first != second:
            found.append(f"{at}: {first!r} is now {second!r}")
        return
    for key in pairs.keys() | others.keys():
        if key not in pairs or key not in others:
            found.append(f"{at}[{key!r}]: only in {'the original' if key in pairs else 'SQL'}")
        else:
            _match(pairs[key], others[key], f"{at}[{key!r}]", found)


def _as_pairs(value: Any) -> dict[Any, Any] | None:
    """The parts of a table that are compared one by one; None for a plain value."""
    if isinstance(value, s.SlotState):
        return None
    if isinstance(value, Counts) or hasattr(value, "parts"):
        return dict(value.items())
    if isinstance(value, dict):
        # Pools as keys are the same pools by name; a slot may have been touched and hold nothing.
        return {_key(key): part for key, part in value.items() if not _is_empty(part)}
    if isinstance(value, tuple | list) and value and type(value[0]).__name__ in {*KINDS, "Counts"}:
        return dict(enumerate(value))
    if hasattr(value, "buckets"):
        return _due(value)
    return None


def _is_empty(part: Any) -> bool:
    if hasattr(part, "buckets"):
        return not part.buckets
    tables = ("skus", "campaigns", "documents", "payments", "refunds", "transfers", "arrivals")
    tables += ("profiles",)
    return isinstance(part, s.SlotState) and not any(len(getattr(part, name)) for name in tables)


def remembered(state: s.ShardState) -> s.ShardState:
    """The state, which has an archive, with all that it forgot back in memory."""
    for number, slot in state.slots.items():
        for key, held in (state.archive or {}).get(number, {}).items():
            slot.reservations.put(key, held)
        for team_key, team in state.archived_teams.get(number, {}).items():
            slot.teams.put(team_key, team)
        if slot.programme is not None:
            _remember(slot.programme)
        slot.forgotten = None
        for pool in slot.pools():
            pool.forgotten_sold = 0
        _recount(slot)
    state.forgets = False
    return state


def _remember(programme: c.Programme) -> None:
    for key, order in programme.archived_orders.items():
        programme.orders.put(key, order)
    for key, withdrawal in programme.archived_withdrawals.items():
        programme.withdrawals.put(key, withdrawal)
    programme.forgotten_ms = 0


def _recount(slot: s.SlotState) -> None:
    """Count anew what limits count."""
    for campaign in slot.campaigns.values():
        campaign.buyers = Counts()
        for pool in campaign.pools.values():
            pool.buyers = Counts()
        campaign.link_counts()
    for held in slot.reservations.values():
        for counts in held.pool.counted_in if counted_units(held) else ():
            counts.change(held.buyer_id, counted_units(held))


def _key(key: Any) -> Any:
    return (key.campaign_id, key.sku_id) if isinstance(key, Pool) else key


def _due(deadlines: Any) -> dict[Any, Any]:
    """Which keys have a deadline at all; a bucket's width depends on when a key was added."""
    keys: set[bytes] = set()
    for held in deadlines.buckets.values():
        keys |= {held} if isinstance(held, bytes) else held
    return dict.fromkeys(keys, True)
