"""`risk`: profiles of buyers' conduct, and freezes."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from stockray.cli._command import over_grpc, shown
from stockray.cli._output import Show
from stockray.sync import Client

BuyerId = Annotated[str, typer.Argument(help="The buyer.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the record.")]

risk_app = typer.Typer(help="Profiles of buyers, and freezes.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the root."""
    app.add_typer(risk_app, name="risk")


@over_grpc(risk_app, "show")
def show_one(client: Client, show: Show, *, buyer_id: BuyerId) -> int:
    """A buyer's score, signals and freeze."""
    return shown(show, client.get_profile(buyer_id))


@over_grpc(risk_app, "freeze")
def freeze(
    client: Client,
    show: Show,
    *,
    buyer_id: BuyerId,
    reason: Why,
    hours: Annotated[float, typer.Option(min=0.001, max=87_600, help="For how long.")] = 24,
) -> int:
    """Freeze a buyer; it ends by itself."""
    return shown(show, client.freeze(buyer_id, reason=reason, length=timedelta(hours=hours)))


@over_grpc(risk_app, "unfreeze")
def unfreeze(client: Client, show: Show, *, buyer_id: BuyerId, reason: Why) -> int:
    """End a buyer's freeze now."""
    return shown(show, client.unfreeze(buyer_id, reason=reason))
