"""What is wrong with a cluster, in words: the warnings of OpsService and of `stockray status`.

Whatever is said here makes the cluster's health degraded, so it must be worth a look, and must end
when the trouble does. Counts of what happened (facts set aside, facts lost) stand until the process
that counts them is started again: nothing else says that somebody has seen to them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.services.cluster_info import GatewayStatus, ShardStatus

STANDBY_MISSING = "no caught-up standby"
PRIMARY_MISSING = "no replica says that it is the primary: the shard sells nothing"
ACCOUNTS_MISSING = "no replica says that it is the primary: its accounts and what they earn wait"
ASKS_FOR_A_SCORE = "account shards do not tell; campaigns that ask for a score answer RETRY"
RELAY_LAG_MAX_MS = 60_000
"""A relay that is further behind is not at work on a sale any more: it does not keep up."""


def warnings_of(
    shards: Sequence[ShardStatus],
    sinks: Mapping[int, tuple[int, str]],
    relayed: Mapping[int, Mapping[str, Any]],
    gateways: Sequence[GatewayStatus],
    *,
    stock_shards: int,
) -> list[str]:
    """`sinks`: by shard, position and trouble of write-behind. `relayed`: by stock shard, what the
    relay says of it."""
    missing = [shard.shard for shard in shards if without_primary(shard)]
    return [
        *(
            f"shard {shard.shard}: {replica.replica_id} is {replica.state}: {replica.message}"
            for shard in shards
            for replica in shard.replicas
            if replica.state != "ready"
        ),
        *(
            f"shard {number}: {PRIMARY_MISSING if number < stock_shards else ACCOUNTS_MISSING}"
            for number in missing
        ),
        *(
            f"shard {shard.shard}: {STANDBY_MISSING}"
            for shard in shards
            if not any(r.role == "standby" and r.state == "ready" for r in shard.replicas)
        ),
        *(
            f"shard {number}: write-behind waits: {trouble}"
            for number, (_, trouble) in sinks.items()
            if trouble
        ),
        *(
            f"shard {number}: {warning}"
            for number, found in relayed.items()
            for warning in _of_relay(found)
        ),
        *(f"{one.gateway_id} {_ignorance(one)}" for one in gateways if _ignorance(one)),
    ]


def without_primary(shard: ShardStatus) -> bool:
    """Whether nobody says that it is the shard's primary."""
    return all(replica.role != "primary" for replica in shard.replicas)


def _of_relay(found: Mapping[str, Any]) -> Iterator[str]:
    """Of the way from one stock shard to the accounts."""
    if found["trouble"]:
        yield f"facts of its orders wait: {found['trouble']}"
    lag_ms = found.get("lag_ms", 0)
    if lag_ms > RELAY_LAG_MAX_MS:
        yield f"accounts know of its orders as of {lag_ms // 1_000} s ago: the relay is behind"
    if found.get("without"):
        shards = ", ".join(map(str, found["without"]))
        yield (
            f"accounts learn of its orders without waiting for bindings of shard {shards}, which "
            "the relay cannot pass on: orders of buyers bound there may earn nothing"
        )
    if found.get("set_aside", 0):
        yield (
            f"{found['set_aside']} facts of its orders were set aside and have no effect: "
            "look for fact_set_aside in the relay's log"
        )
    if found.get("gap_entries", 0):
        yield (
            f"facts of {found['gap_entries']} entries were kept nowhere any more when the relay "
            "came to them: no commission came of their orders"
        )


def _ignorance(gateway: GatewayStatus) -> str:
    """What a gateway that serves knows too little of; '' if it knows who is frozen."""
    if not gateway.ready or not gateway.risk_stale:
        return ""
    known = "does not know who is frozen"
    if gateway.risk_age_ms is not None:
        known = f"knows who is frozen as of {gateway.risk_age_ms // 1_000} s ago"
    return f"{known}: {ASKS_FOR_A_SCORE}"
