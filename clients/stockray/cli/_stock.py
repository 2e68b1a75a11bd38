"""`sku` and `stock`: what is counted, and the changes of its count."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Annotated

import typer

from stockray.cli._command import Reason, Yes, agreed, over_grpc, shown
from stockray.cli._output import Show
from stockray.records import PoolKey, Sku
from stockray.sync import Client

SkuId = Annotated[str, typer.Argument(help="The SKU.")]
CampaignId = Annotated[str, typer.Option("--campaign", help="Its pool; empty: the base pool.")]
RequestId = Annotated[str, typer.Option("--id", help="Request id; made if not given.")]
Units = Annotated[int, typer.Argument(help="Units.")]
COLUMNS = (
    "sku_id",
    "campaign_id",
    "total_count",
    "available_count",
    "reserved_count",
    "sold_count",
    "buffer_count",
    "in_transit_count",
    "owed_count",
)

sku_app = typer.Typer(help="SKUs.", no_args_is_help=True)
stock_app = typer.Typer(help="Pools of stock.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the root."""
    app.add_typer(sku_app, name="sku")
    app.add_typer(stock_app, name="stock")


@over_grpc(sku_app, "put")
def put_sku(
    client: Client,
    show: Show,
    *,
    sku_id: SkuId,
    name: str = "",
    price_minor: Annotated[int, typer.Option(min=0, help="Of one unit, minor units.")] = 0,
    currency: Annotated[str, typer.Option(help="ISO 4217 code.")] = "",
    buffer_bps: Annotated[
        int | None, typer.Option(min=0, max=10_000, help="Kept back of receipts, 1/10,000.")
    ] = None,
    payment_window_s: Annotated[int, typer.Option(help="1-86,400; 0: 15 min.")] = 0,
    reason: Reason = "",
) -> int:
    """Make a SKU or replace what is known of it; its units stay."""
    sku = Sku(
        sku_id=sku_id,
        name=name,
        buffer_bps=buffer_bps,
        list_price_minor=price_minor,
        currency_code=currency,
        payment_window=timedelta(seconds=payment_window_s) if payment_window_s else None,
    )
    return shown(show, client.put_sku(sku, reason=reason))


@over_grpc(sku_app, "show")
def show_sku(client: Client, show: Show, *, sku_id: SkuId, campaign_id: CampaignId = "") -> int:
    """A SKU and its base pool, or its pool in a campaign."""
    return shown(show, client.get_stock(sku_id, campaign_id=campaign_id))


@over_grpc(stock_app, "list")
def list_stock(
    client: Client,
    show: Show,
    *,
    campaign_id: Annotated[str, typer.Option("--campaign", help="Only its pools.")] = "",
    sku_id: Annotated[str, typer.Option("--sku", help="Only its pools.")] = "",
    base_only: Annotated[bool, typer.Option("--base-only", help="Only base pools.")] = False,
) -> None:
    """All pools, or some."""
    show.rows(
        client.list_stock(campaign_id=campaign_id, sku_id=sku_id, base_only=base_only), COLUMNS
    )


@over_grpc(stock_app, "watch")
def watch(
    client: Client,
    show: Show,
    *,
    sku_id: Annotated[list[str] | None, typer.Argument(help="SKUs.")] = None,
    campaign_id: CampaignId = "",
    interval_ms: Annotated[int, typer.Option(min=100, max=60_000, help="At most so often.")] = 500,
    count: Annotated[int, typer.Option(min=0, help="Changes to show; 0: until stopped.")] = 0,
) -> None:
    """Show pools as they change; without SKUs all pools of the campaign."""
    pools = [PoolKey(sku_id=sku, campaign_id=campaign_id) for sku in sku_id or [""]]
    changes = client.watch_stock(pools, interval=timedelta(milliseconds=interval_ms))
    for change in itertools.islice(changes, count or None):
        if change.stocks:
            show.rows(change.stocks, COLUMNS)


@over_grpc(stock_app, "receive")
def receive(
    client: Client,
    show: Show,
    *,
    sku_id: SkuId,
    units: Units,
    request_id: RequestId = "",
    reference: Annotated[str, typer.Option(help="Number of your books.")] = "",
    reason: Reason = "",
) -> int:
    """Take units of a supply document into the base pool."""
    return shown(
        show,
        client.receive_stock(
            sku_id, quantity=units, request_id=request_id, reference=reference, reason=reason
        ),
    )


@over_grpc(stock_app, "adjust")
def adjust(
    client: Client,
    show: Show,
    *,
    sku_id: SkuId,
    delta: Annotated[int, typer.Option(help="Units to add, or with a minus to take.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit.")],
    campaign_id: CampaignId = "",
    request_id: RequestId = "",
) -> int:
    """Correct a pool's count."""
    return shown(
        show,
        client.adjust_stock(
            sku_id,
            delta_count=delta,
            reason=reason,
            campaign_id=campaign_id,
            request_id=request_id,
        ),
    )


@over_grpc(stock_app, "buffer")
def set_buffer(
    client: Client,
    show: Show,
    *,
    sku_id: SkuId,
    units: Units,
    request_id: RequestId = "",
    reason: Reason = "",
) -> int:
    """Set how many units the base pool keeps back."""
    return shown(
        show,
        client.set_buffer(sku_id, buffer_count=units, request_id=request_id, reason=reason),
    )


@over_grpc(stock_app, "transfer")
def transfer(
    client: Client,
    show: Show,
    *,
    sku_id: SkuId,
    units: Units,
    source: Annotated[str, typer.Option("--from", help="Campaign; empty: base pool.")] = "",
    target: Annotated[str, typer.Option("--to", help="Campaign; empty: base pool.")] = "",
    request_id: RequestId = "",
    reason: Reason = "",
) -> int:
    """Move available units between pools of a SKU."""
    return shown(
        show,
        client.transfer_stock(
            sku_id,
            quantity=units,
            from_campaign_id=source,
            to_campaign_id=target,
            request_id=request_id,
            reason=reason,
        ),
    )


@over_grpc(stock_app, "shortage")
def shortage(
    client: Client,
    show: Show,
    *,
    sku_id: SkuId,
    units: Units,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit.")],
    campaign_id: CampaignId = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it takes.")] = False,
    request_id: RequestId = "",
    yes: Yes = False,
) -> int:
    """Declare units missing, which may revoke reservations and paid orders."""
    if not dry_run:
        agreed(f"Declare {units:,} units of {sku_id} missing?", yes)
    return shown(
        show,
        client.declare_shortage(
            sku_id,
            quantity=units,
            reason=reason,
            campaign_id=campaign_id,
            dry_run=dry_run,
            request_id=request_id,
        ),
    )
