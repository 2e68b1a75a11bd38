"""Transfers between slots, for `verify`: what left has arrived where it says, and the other way
round, so that no unit counts twice or nowhere."""

from collections.abc import Callable, Sequence

from actors.core import state as s
from actors.core.identity import slot_of

Check = Callable[[bool, str], None]
FoldOn = Callable[[int], None]
"""Folds a shard to where its journal ends by now: shards of a live cluster are not read at one
instant."""


def check_transfers(
    states: Sequence[s.ShardState], slots_of: Sequence[int], check: Check, fold_on: FoldOn
) -> None:
    """Both ends of every transfer that is over."""
    ended = [
        (key, transfer, transfer.state)
        for key, transfer in _departures(states)
        if transfer.state != s.IN_TRANSIT
    ]
    for key, transfer, told in ended:
        arrived = _arrival(states, slots_of, key, transfer, fold_on)
        check(
            arrived is (told == s.TRANSFER_ARRIVED),
            f"transfer {key.hex()}: its source says {told}, target {arrived}",
        )
    arrivals = {
        key
        for state in states
        for slot in state.slots.values()
        for key, arrived in slot.arrivals.items()
        if arrived
    }
    unknown = arrivals - {key for key, _ in _departures(states)}
    if unknown:
        for shard in range(len(states)):
            fold_on(shard)
        unknown -= {key for key, _ in _departures(states)}
    for key in arrivals:
        check(key not in unknown, f"transfer {key.hex()} arrived and left nowhere")


def _departures(states: Sequence[s.ShardState]) -> list[tuple[bytes, s.Transfer]]:
    return [
        found
        for state in states
        for slot in state.slots.values()
        for found in slot.transfers.items()
    ]


def _arrival(
    states: Sequence[s.ShardState],
    slots_of: Sequence[int],
    key: bytes,
    transfer: s.Transfer,
    fold_on: FoldOn,
) -> bool | None:
    target = slot_of(transfer.to_campaign_id or transfer.sku_id)
    shard = slots_of[target]
    if key not in states[shard].slot(target).arrivals:
        fold_on(shard)
    return states[shard].slot(target).arrivals.get(key)
