"""`team`: group-buys."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Annotated

import typer

from stockray.cli._command import Yes, agreed, over_grpc, parse_member, say, shown
from stockray.cli._output import Show
from stockray.enums import Status, TeamState
from stockray.sync import Client

TeamId = Annotated[str, typer.Argument(help="The team.")]
CampaignId = Annotated[str, typer.Argument(help="The group campaign.")]
Viewer = Annotated[str, typer.Option("--viewer", help="Buyer whose own seat is shown.")]
COLUMNS = (
    "team_id",
    "sku_id",
    "state",
    "paid_count",
    "unpaid_count",
    "virtual_count",
    "capacity_count",
    "missing_count",
    "deadline_time",
)

team_app = typer.Typer(help="Teams of group-buys.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the root."""
    app.add_typer(team_app, name="team")


@over_grpc(team_app, "list")
def list_teams(
    client: Client,
    show: Show,
    *,
    campaign_id: CampaignId,
    state: Annotated[list[str] | None, typer.Option(help="Only these states.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
) -> None:
    """A campaign's teams from the SQL view, newest first."""
    states = tuple(parse_member(TeamState, name) for name in state or ())
    found = client.list_teams(campaign_id, states=states, page_size=min(limit, 1_000))
    show.rows(itertools.islice(found, limit), COLUMNS)


@over_grpc(team_app, "show")
def show_one(client: Client, show: Show, *, team_id: TeamId, viewer: Viewer = "") -> int:
    """One team with its members, masked."""
    return shown(show, client.get_team(team_id, viewer_buyer_id=viewer))


@over_grpc(team_app, "watch")
def watch(
    client: Client,
    show: Show,
    *,
    team_id: TeamId,
    viewer: Viewer = "",
    interval_ms: Annotated[int, typer.Option(min=100, max=60_000, help="At most so often.")] = 500,
) -> int:
    """Show a team as it changes, until it has ended."""
    interval = timedelta(milliseconds=interval_ms)
    for change in client.watch_team(team_id, viewer_buyer_id=viewer, interval=interval):
        if change.status is Status.NOT_FOUND:
            say("NOT_FOUND")
            return 1
        if change.team is not None:
            show.rows([change.team], COLUMNS)
    return 0


@over_grpc(team_app, "suggest")
def suggest(
    client: Client,
    show: Show,
    *,
    campaign_id: CampaignId,
    buyer_id: Annotated[str, typer.Option("--buyer", help="Who would join.")],
    sku_id: Annotated[str, typer.Option("--sku", help="Only teams of this line.")] = "",
    new_buyer: Annotated[bool, typer.Option("--new-buyer", help="The buyer is new.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=50, help="At most so many.")] = 10,
) -> int:
    """Teams that a buyer could join now, nearest to full first."""
    found = client.suggest_teams(
        campaign_id, buyer_id=buyer_id, sku_id=sku_id, new_buyer=new_buyer, limit=limit
    )
    if not found.ok:
        return shown(show, found)
    show.rows(found.teams, COLUMNS)
    return 0


@over_grpc(team_app, "complete")
def complete(
    client: Client,
    show: Show,
    *,
    team_id: TeamId,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    people: Annotated[int, typer.Option(min=0, max=500, help="Of the tier to reach.")] = 0,
    yes: Yes = False,
) -> int:
    """Form a team with virtual seats, where its campaign allows that. Cannot be undone."""
    agreed(f"Complete team {team_id} with virtual seats?", yes)
    return shown(show, client.complete_team(team_id, people=people, reason=reason))
