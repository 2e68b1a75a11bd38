"""`campaign`: flash sales."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from stockray_proto.v1 import seckill_service_pb2 as wire

from stockray._codec import read
from stockray.cli._command import Reason, Yes, agreed, message_of, over_grpc, parse_member, shown
from stockray.cli._output import Show
from stockray.enums import CampaignPhase
from stockray.records import Campaign, CampaignLine
from stockray.sync import Client

CampaignId = Annotated[str, typer.Argument(help="The campaign.")]
SPAN = re.compile(r"\+(\d+)([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

campaign_app = typer.Typer(help="Flash-sale campaigns.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the root."""
    app.add_typer(campaign_app, name="campaign")


@over_grpc(campaign_app, "put")
def put(
    client: Client,
    show: Show,
    *,
    campaign_id: CampaignId,
    line: Annotated[
        list[str] | None,
        typer.Option(help="SKU:UNITS:PRICE_MINOR[:LIMIT_PER_BUYER]; once for each SKU."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="All of it as JSON of the message Campaign.")
    ] = None,
    title: str = "",
    currency: Annotated[str, typer.Option(help="ISO 4217 code.")] = "",
    start: Annotated[str, typer.Option(help="ISO 8601, `now` or `+10m`.")] = "now",
    end: Annotated[str, typer.Option(help="ISO 8601 or `+2h`.")] = "+1h",
    payment_window_s: Annotated[int, typer.Option(help="1-86,400; 0: 15 min.")] = 0,
    limit_per_buyer: Annotated[int, typer.Option(help="Over all lines; 0: none.")] = 0,
    claim: Annotated[list[str] | None, typer.Option(help="Claim that buyers need.")] = None,
    min_score: Annotated[int, typer.Option(help="Of buyers' conduct, 1-40; 0: none.")] = 0,
    reason: Reason = "",
) -> int:
    """Make or change a campaign; the same content again tries to allocate what is missing."""
    if file is not None:
        message = message_of(file, wire.Campaign)
        message.campaign_id = campaign_id
        return shown(show, client.put_campaign(read(Campaign, message), reason=reason))
    now = datetime.now(UTC)
    campaign = Campaign(
        campaign_id=campaign_id,
        title=title,
        currency_code=currency,
        lines=tuple(parse_line(text) for text in line or ()),
        start_time=parse_instant(start, now),
        end_time=parse_instant(end, now),
        payment_window=timedelta(seconds=payment_window_s) if payment_window_s else None,
        limit_per_buyer=limit_per_buyer,
        required_claims=tuple(claim or ()),
        min_score=min_score,
    )
    return shown(show, client.put_campaign(campaign, reason=reason))


@over_grpc(campaign_app, "show")
def show_one(client: Client, show: Show, *, campaign_id: CampaignId) -> int:
    """One campaign with its pools, as its shard knows it."""
    return shown(show, client.get_campaign(campaign_id))


@over_grpc(campaign_app, "list")
def list_all(
    client: Client,
    show: Show,
    *,
    phase: Annotated[list[str] | None, typer.Option(help="Only these phases.")] = None,
) -> None:
    """All campaigns, or those in some phases."""
    phases = tuple(parse_member(CampaignPhase, name) for name in phase or ())
    show.rows(
        client.list_campaigns(phases=phases),
        ("campaign_id", "title", "phase", "start_time", "end_time", "version"),
    )


@over_grpc(campaign_app, "pause")
def pause(client: Client, show: Show, *, campaign_id: CampaignId, reason: Reason = "") -> int:
    """Stop reserving at one instant; what is held can still be paid."""
    return shown(show, client.pause_campaign(campaign_id, reason=reason))


@over_grpc(campaign_app, "resume")
def resume(client: Client, show: Show, *, campaign_id: CampaignId, reason: Reason = "") -> int:
    """Let a paused campaign go on."""
    return shown(show, client.pause_campaign(campaign_id, resume=True, reason=reason))


@over_grpc(campaign_app, "end")
def end_now(
    client: Client, show: Show, *, campaign_id: CampaignId, reason: Reason = "", yes: Yes = False
) -> int:
    """End a campaign before its time. Cannot be undone."""
    agreed(f"End campaign {campaign_id} for good?", yes)
    return shown(show, client.end_campaign(campaign_id, reason=reason))


def parse_line(text: str) -> CampaignLine:
    """SKU:UNITS:PRICE_MINOR[:LIMIT_PER_BUYER], where the SKU may have colons of its own."""
    found = re.fullmatch(r"(.+?):(\d+):(\d+)(?::(\d+))?", text)
    if found is None:
        raise ValueError(f"--line: {text!r} is not SKU:UNITS:PRICE_MINOR[:LIMIT_PER_BUYER]")
    sku_id, units, price, limit = found.groups()
    return CampaignLine(
        sku_id=sku_id,
        allocation_count=int(units),
        unit_price_minor=int(price),
        limit_per_buyer=int(limit or 0),
    )


def parse_instant(text: str, now: datetime) -> datetime:
    """An instant: ISO 8601 (local time where it names no zone), `now`, or `+10m` from now."""
    span = SPAN.fullmatch(text)
    if text == "now":
        return now
    if span is not None:
        return now + timedelta(**{UNITS[span[2]]: int(span[1])})
    return datetime.fromisoformat(text).astimezone(UTC)
