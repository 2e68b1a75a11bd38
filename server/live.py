"""What live replicas say of their state, for `verify`, asked through the public OpsService."""

from stockray import AsyncClient, Stock

from actors.core.identity import slot_of
from actors.core.records import Balance
from actors.core.state import GENERATION
from server.verify import ReplicaClaim


async def replica_claims(client: AsyncClient) -> list[ReplicaClaim]:
    """Digests of all replicas that answer, and the balances that the primaries hold."""
    report = await client.verify(include_pools=True)
    claims = [
        ReplicaClaim(
            shard.shard, replica.replica_id, replica.position.seq, replica.state_digest, ()
        )
        for shard in report.reports
        for replica in shard.replicas
        if replica.position is not None
    ]
    balances: dict[tuple[int, int], list[Balance]] = {}
    for pool in report.pools:
        if pool.position is not None:
            place = (pool.position.shard, pool.position.seq)
            balances.setdefault(place, []).append(_balance(pool))
    claims += [
        ReplicaClaim(shard, f"primary of shard {shard}", seq, "", tuple(held))
        for (shard, seq), held in balances.items()
    ]
    return claims


def _balance(pool: Stock) -> Balance:
    return Balance(
        slot_of(pool.campaign_id or pool.sku_id),
        GENERATION,
        pool.campaign_id,
        pool.sku_id,
        pool.total_count,
        pool.available_count,
        pool.reserved_count,
        pool.sold_count,
        pool.buffer_count,
        pool.scheduled_count,
        pool.in_transit_count,
        pool.owed_count,
    )
