"""What `status` warns of, and that it is silent about a cluster that is well."""

from typing import Any

import pytest

from server.services.cluster_info import GatewayStatus, ReplicaStatus, ShardStatus
from server.warnings import RELAY_LAG_MAX_MS, warnings_of

RELAYED = {"trouble": "", "lag_ms": 0, "set_aside": 0, "gap_entries": 0}


def pair(shard: int, roles: tuple[str, str] = ("primary", "standby")) -> ShardStatus:
    replicas = [
        ReplicaStatus(replica_id=f"{shard}-{name}", role=role, state="ready")
        for name, role in zip("ab", roles, strict=True)
    ]
    return ShardStatus(shard=shard, replicas=replicas)


def gateway(**fields: Any) -> GatewayStatus:
    return GatewayStatus(
        gateway_id="gateway-00", **({"ready": True, "risk_age_ms": 40, "answering": True} | fields)
    )


def warned(
    *,
    shards: list[ShardStatus] | None = None,
    relayed: dict[str, Any] | None = None,
    one: GatewayStatus | None = None,
) -> list[str]:
    """Of a shard of stock and one of accounts."""
    return warnings_of(
        shards or [pair(0), pair(1)],
        {0: (5, ""), 1: (5, "")},
        {0: RELAYED | (relayed or {})},
        [one or gateway()],
        stock_shards=1,
    )


def test_a_cluster_that_is_well_is_not_warned_of() -> None:
    assert warned() == []
    assert warned(relayed={"lag_ms": RELAY_LAG_MAX_MS}) == []
    assert warned(one=gateway(ready=False, risk_stale=True)) == [], "it does not serve yet"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"trouble": "the journal was made anew"}, "shard 0: facts of its orders wait: the jou"),
        ({"lag_ms": 61_000}, "shard 0: accounts know of its orders as of 61 s ago"),
        ({"without": [2, 5]}, "shard 0: accounts learn of its orders without waiting for bin"),
        ({"set_aside": 3}, "shard 0: 3 facts of its orders were set aside"),
        ({"gap_entries": 12}, "shard 0: facts of 12 entries were kept nowhere any more"),
    ],
)
def test_troubles_of_the_relay_are_said(found: dict[str, Any], told: str) -> None:
    (warning,) = warned(relayed=found)
    assert warning.startswith(told)


def test_a_relay_that_does_not_answer_has_one_trouble() -> None:
    silent = {0: {"trouble": "the relay does not answer"}}
    (warning,) = warnings_of([pair(0)], {}, silent, [], stock_shards=1)
    assert warning == "shard 0: facts of its orders wait: the relay does not answer"


def test_gateways_that_do_not_know_who_is_frozen_say_so() -> None:
    (never,) = warned(one=gateway(risk_stale=True, risk_age_ms=None))
    assert never.startswith("gateway-00 does not know who is frozen: ")
    (old,) = warned(one=gateway(risk_stale=True, risk_age_ms=7_400))
    assert old.startswith("gateway-00 knows who is frozen as of 7 s ago: ")


def test_replicas_are_missed_by_what_waits_for_them() -> None:
    away = ("standby", "standby")
    (stock,) = warned(shards=[pair(0, away), pair(1)])
    (accounts,) = warned(shards=[pair(0), pair(1, away)])
    assert "sells nothing" in stock
    assert "its accounts and what they earn wait" in accounts
    assert warned(shards=[pair(0, ("primary", "")), pair(1)]) == [
        "shard 0: no caught-up standby",
    ]
