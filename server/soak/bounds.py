"""What each measure of a soak may grow by. The numbers are of one machine's runs, with room.

Bytes for things that are kept for ever by design: an id of a payment, a stock document, a refund
with its row, a campaign with its pools; and two bytes of a filter for each key that left memory.
A shard has two replicas and about half of the keys, so a sum over its two processes grows by what
one process would that had them all.
"""

from collections.abc import Mapping

from server.soak.judge import Bound
from server.soak.sampler import HANDLES, MEMORY, RAY, SQL_TABLES, THREADS

MB = 1_000_000
FILLED_S = 100.0
"""Reservations leave memory a minute after they ended; by then as many leave as come."""
ROLES = ("gateway", "projector", "relay", "serve", "gcs", "raylet", "ray", "client")
KEPT: Mapping[str, float] = {
    "sales": 4,
    "payments": 300,
    "refunds": 500,
    "documents": 200,
    "campaigns": 20_000,
    "transfers": 1_000,
}
"""Bytes of a shard's memory for each thing done."""
SQL_BYTES: Mapping[str, float] = {
    "sales": 1_200,
    "payments": 800,
    "begun": 800,
    "refunds": 900,
    "documents": 800,
    "campaigns": 20_000,
    "transfers": 2_000,
}
ROWS: Mapping[str, Mapping[str, float]] = {
    "reservations": {"sales": 1.05},
    "payments": {"payments": 1.05, "begun": 1.05, "documents": 1.05},
    "refunds": {"refunds": 1.1, "payments": 0.05},
    "stock_documents": {"documents": 1.1, "transfers": 3, "campaigns": 20},
    "transfers": {"transfers": 1.1, "campaigns": 12},
    "campaigns": {"campaigns": 1.1},
    "pools": {"campaigns": 3.3},
    "audit": {"campaigns": 20, "documents": 1.1, "transfers": 3},
    "dead_letters": {},
}
"""Rows for each thing done, by table."""


def bounds_of(shards: int) -> dict[str, Bound]:
    """By measure, for a cluster of so many shards."""
    bounds = {
        f"{MEMORY} shard {shard}": Bound(fixed=16 * MB, per=KEPT, warm_up_s=FILLED_S)
        for shard in range(shards)
    }
    for role in ROLES:
        bounds[f"{MEMORY} {role}"] = Bound(fixed=12 * MB, warm_up_s=FILLED_S)
    roles = [*ROLES, *(f"shard {shard}" for shard in range(shards))]
    for role in roles:
        # Ray's log monitor holds the logs of processes that ended (200 files at most).
        held = {"promotions": 3.0} if role == RAY else {}
        bounds[f"{HANDLES} {role}"] = Bound(fixed=8, per=held)
        bounds[f"{THREADS} {role}"] = Bound(fixed=6)
    bounds |= {
        "processes": Bound(fixed=2),
        "journal bytes": Bound(fixed=8 * MB, warm_up_s=FILLED_S),
        "journal entries": Bound(fixed=20_000, warm_up_s=FILLED_S),
        "journal files": Bound(fixed=12 * MB, warm_up_s=FILLED_S),
        "WAL files": Bound(fixed=16 * MB, warm_up_s=FILLED_S),
        "snapshot files": Bound(fixed=4 * MB, per=KEPT, warm_up_s=FILLED_S),
        "entries not in SQL": Bound(fixed=2_000),
        "SQL file": Bound(fixed=8 * MB, per=SQL_BYTES),
        "logs": Bound(fixed=50_000, per={"seconds": 300}),
        "Ray's files": Bound(fixed=300_000, per={"seconds": 3_000}),
    }
    for shard in range(shards):
        bounds[f"reservations in memory, shard {shard}"] = Bound(fixed=10_000, warm_up_s=FILLED_S)
    for table in SQL_TABLES:
        bounds[f"rows {table}"] = Bound(fixed=2_000, per=ROWS[table])
    for what in ("actors", "nodes", "jobs", "task_events"):
        bounds[f"GCS {what}"] = Bound(fixed=1)
    bounds["GCS workers"] = Bound(fixed=4, per={"promotions": 2})
    return bounds
