"""`grab`, `reservation` and `refund`."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from stockray.cli._command import Yes, agreed, over_grpc, parse_member, shown
from stockray.cli._output import Show
from stockray.enums import RefundState, ReservationState
from stockray.sync import Client

ReservationId = Annotated[str, typer.Argument(help="The reservation.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]

reservation_app = typer.Typer(help="Reservations.", no_args_is_help=True)
refund_app = typer.Typer(help="Refunds.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the root."""
    over_grpc(app, "grab")(grab)
    app.add_typer(reservation_app, name="reservation")
    app.add_typer(refund_app, name="refund")


def grab(
    client: Client,
    show: Show,
    *,
    campaign_id: Annotated[str, typer.Argument(help="The campaign.")],
    sku_id: Annotated[str, typer.Argument(help="The SKU.")],
    buyer_id: Annotated[str, typer.Option("--buyer", help="The buyer.")],
    quantity: Annotated[int, typer.Option(help="Units.")] = 1,
    request_id: Annotated[str, typer.Option("--id", help="Request id; made if not given.")] = "",
    claim: Annotated[list[str] | None, typer.Option(help="What the buyer is.")] = None,
) -> int:
    """Grab units of a campaign for a buyer."""
    return shown(
        show,
        client.grab(
            campaign_id,
            sku_id,
            buyer_id=buyer_id,
            quantity=quantity,
            request_id=request_id,
            claims=tuple(claim or ()),
        ),
    )


@over_grpc(reservation_app, "show")
def show_one(client: Client, show: Show, *, reservation_id: ReservationId) -> int:
    """One reservation with its payments."""
    return shown(show, client.get_reservation(reservation_id))


@over_grpc(reservation_app, "confirm")
def confirm(
    client: Client,
    show: Show,
    *,
    reservation_id: ReservationId,
    payment_id: Annotated[str, typer.Option("--payment", help="The payment's id.")],
    paid_minor: Annotated[int, typer.Option(min=0, help="What came in, minor units.")],
    payment_channel: Annotated[str, typer.Option("--channel", help="Way of the money.")] = "",
) -> int:
    """Record a successful payment."""
    return shown(
        show,
        client.confirm(
            reservation_id,
            payment_id=payment_id,
            paid_minor=paid_minor,
            payment_channel=payment_channel,
        ),
    )


@over_grpc(reservation_app, "release")
def release(
    client: Client,
    show: Show,
    *,
    reservation_id: ReservationId,
    reason: Annotated[str, typer.Option("--reason", help="For the record.")] = "",
    yes: Yes = False,
) -> int:
    """Give up an unpaid reservation."""
    agreed(f"Release reservation {reservation_id}?", yes)
    return shown(show, client.release(reservation_id, reason=reason))


@over_grpc(reservation_app, "list")
def list_reservations(
    client: Client,
    show: Show,
    *,
    buyer_id: Annotated[str, typer.Option("--buyer")] = "",
    campaign_id: Annotated[str, typer.Option("--campaign")] = "",
    sku_id: Annotated[str, typer.Option("--sku")] = "",
    order_id: Annotated[str, typer.Option("--order")] = "",
    team_id: Annotated[str, typer.Option("--team")] = "",
    state: Annotated[list[str] | None, typer.Option(help="Only these states.")] = None,
    limit: Limit = 100,
) -> None:
    """Reservations from the SQL view, newest first."""
    found = client.list_reservations(
        buyer_id=buyer_id,
        campaign_id=campaign_id,
        sku_id=sku_id,
        order_id=order_id,
        team_id=team_id,
        states=tuple(parse_member(ReservationState, name) for name in state or ()),
        page_size=min(limit, 1_000),
    )
    columns = ("reservation_id", "state", "sku_id", "campaign_id", "buyer_id", "quantity")
    show.rows(itertools.islice(found, limit), (*columns, "payable_minor", "reserve_time"))


@over_grpc(refund_app, "list")
def list_refunds(
    client: Client,
    show: Show,
    *,
    state: Annotated[str, typer.Option(help="DUE or REFUNDED; else all.")] = "UNSPECIFIED",
    campaign_id: Annotated[str, typer.Option("--campaign")] = "",
    reservation_id: Annotated[str, typer.Option("--reservation")] = "",
    buyer_id: Annotated[str, typer.Option("--buyer")] = "",
    limit: Limit = 100,
) -> None:
    """Refunds from the SQL view, those due longest first."""
    found = client.list_refunds(
        state=parse_member(RefundState, state),
        campaign_id=campaign_id,
        reservation_id=reservation_id,
        buyer_id=buyer_id,
        page_size=min(limit, 1_000),
    )
    columns = ("refund_id", "state", "amount_minor", "currency_code", "reason", "payment_id")
    show.rows(itertools.islice(found, limit), (*columns, "reservation_id", "due_time"))
