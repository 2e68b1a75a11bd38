"""`distributor`: who brings buyers, what they earn, and what is paid out."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated

import typer
from stockray_proto.v1 import commission_service_pb2 as wire

from stockray._codec import read
from stockray.cli._command import (
    OK,
    Reason,
    Yes,
    agreed,
    message_of,
    over_grpc,
    parse_member,
    say,
    shown,
)
from stockray.cli._output import Show
from stockray.commission import Rates
from stockray.enums import (
    DistributorAct,
    DistributorState,
    LeaderboardKind,
    WithdrawalAct,
    WithdrawalState,
)
from stockray.sync import Client

DistributorId = Annotated[str, typer.Argument(help="The distributor: a buyer id.")]
Month = Annotated[int, typer.Argument(help="For example 202611, in the programme's time zone.")]
OnlyMonth = Annotated[int, typer.Option("--month", help="For example 202611; 0: any.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the record.")]

COLUMNS = ("distributor_id", "state", "share_code", "apply_time", "held_until_time")
ENTRY_COLUMNS = (
    "entry_number",
    "entry_time",
    "event",
    "reservation_id",
    "level",
    "rates_version",
    "amounts",
)
STATEMENT_COLUMNS = (
    "month",
    "opening_minor",
    "available_minor",
    "reversed_minor",
    "withdrawn_minor",
    "restored_minor",
    "closing_minor",
    "currency_code",
)
WITHDRAWAL_COLUMNS = (
    "withdrawal_id",
    "distributor_id",
    "amount_minor",
    "currency_code",
    "state",
    "request_time",
)
FUNNEL_COLUMNS = (
    "campaign_id",
    "share_code",
    "channel",
    "distributor_id",
    "seckill_reservation_count",
    "seckill_confirmed_count",
    "group_reservation_count",
    "group_confirmed_count",
    "amount_minor",
    "commission_minor",
)
PAGE_MAX = 1_000

distributor_app = typer.Typer(help="Distributors and their commission.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the root."""
    app.add_typer(distributor_app, name="distributor")


@over_grpc(distributor_app, "apply")
def apply(client: Client, show: Show, *, distributor_id: DistributorId, reason: Reason = "") -> int:
    """Make a buyer a distributor, who waits for approval unless the rates say otherwise."""
    return shown(show, client.apply_distributor(distributor_id, reason=reason))


@over_grpc(distributor_app, "approve")
def approve(
    client: Client, show: Show, *, distributor_id: DistributorId, reason: Reason = ""
) -> int:
    """Approve an application; the first time this makes the share code."""
    return shown(show, client.approve_distributor(distributor_id, reason=reason))


@over_grpc(distributor_app, "reject")
def reject(client: Client, show: Show, *, distributor_id: DistributorId, reason: Why) -> int:
    """Reject an application."""
    act = DistributorAct.REJECT
    return shown(show, client.approve_distributor(distributor_id, act=act, reason=reason))


@over_grpc(distributor_app, "suspend")
def suspend(
    client: Client, show: Show, *, distributor_id: DistributorId, reason: Why, yes: Yes = False
) -> int:
    """Suspend a distributor: it binds nobody, and what it earns is held."""
    agreed(f"Suspend distributor {distributor_id}?", yes)
    act = DistributorAct.SUSPEND
    return shown(show, client.approve_distributor(distributor_id, act=act, reason=reason))


@over_grpc(distributor_app, "resume")
def resume(
    client: Client, show: Show, *, distributor_id: DistributorId, reason: Reason = ""
) -> int:
    """Let a suspended distributor go on."""
    act = DistributorAct.RESUME
    return shown(show, client.approve_distributor(distributor_id, act=act, reason=reason))


@over_grpc(distributor_app, "show")
def show_one(client: Client, show: Show, *, distributor_id: DistributorId) -> int:
    """A distributor with its share code, balances and counts."""
    found = client.get_distributor(distributor_id)
    if not found.ok:
        return shown(show, found)
    account = client.get_account(distributor_id)
    if not account.ok:
        return shown(show, account)
    show.one({"distributor": found.distributor, "account": account.account, "age": account.age})
    return OK


@over_grpc(distributor_app, "list")
def list_distributors(
    client: Client,
    show: Show,
    *,
    state: Annotated[list[str] | None, typer.Option(help="Only these states.")] = None,
    limit: Limit = 100,
) -> None:
    """Distributors from the SQL view, by id."""
    states = tuple(parse_member(DistributorState, name) for name in state or ())
    found = client.list_distributors(states=states, page_size=min(limit, PAGE_MAX))
    show.rows(itertools.islice(found, limit), COLUMNS)


@over_grpc(distributor_app, "bind")
def bind(
    client: Client,
    show: Show,
    *,
    buyer_id: Annotated[str, typer.Argument(help="The buyer.")],
    share_code: Annotated[str, typer.Argument(help="A distributor's share code.")],
    new_buyer: Annotated[bool, typer.Option("--new-buyer", help="The buyer is new.")] = False,
) -> int:
    """Bind a buyer to the owner of a share code."""
    return shown(show, client.bind_referrer(buyer_id, share_code, new_buyer=new_buyer))


@over_grpc(distributor_app, "of")
def referrer_of(
    client: Client,
    show: Show,
    *,
    buyer_id: Annotated[str, typer.Argument(help="The buyer.")],
) -> int:
    """Who earns from what a buyer orders now."""
    return shown(show, client.get_referrer(buyer_id))


@over_grpc(distributor_app, "entries")
def entries(
    client: Client,
    show: Show,
    *,
    distributor_id: DistributorId,
    month: OnlyMonth = 0,
    limit: Limit = 100,
) -> None:
    """A distributor's lines of the ledger, newest first."""
    found = client.list_entries(distributor_id, month=month, page_size=min(limit, PAGE_MAX))
    show.rows(itertools.islice(found, limit), ENTRY_COLUMNS)


@over_grpc(distributor_app, "statement")
def statement(client: Client, show: Show, *, distributor_id: DistributorId, month: Month) -> int:
    """A distributor's statement of a month."""
    return shown(show, client.get_statement(distributor_id, month))


@over_grpc(distributor_app, "statements")
def statements(
    client: Client, show: Show, *, distributor_id: DistributorId, limit: Limit = 100
) -> None:
    """A distributor's statements from the SQL view, newest first."""
    found = client.list_statements(distributor_id, page_size=min(limit, PAGE_MAX))
    show.rows(itertools.islice(found, limit), STATEMENT_COLUMNS)


@over_grpc(distributor_app, "settle")
def settle(
    client: Client,
    show: Show,
    *,
    month: Month,
    distributor_id: Annotated[str, typer.Option("--only", help="Only this distributor's.")] = "",
    reason: Reason = "",
) -> int:
    """Make the statements of a month that is over, until there are no more to make."""
    made = 0
    more = True
    while more:
        answer = client.settle(month, distributor_id=distributor_id, reason=reason)
        made += answer.made_count
        more = answer.ok and answer.more
    return shown(show, dataclasses.replace(answer, made_count=made))


@over_grpc(distributor_app, "withdraw")
def withdraw(
    client: Client,
    show: Show,
    *,
    distributor_id: DistributorId,
    amount_minor: Annotated[int, typer.Argument(min=1, help="In minor units.")],
    request_id: Annotated[str, typer.Option(help="To ask again for the same.")] = "",
    reason: Reason = "",
) -> int:
    """Ask for money to be paid out."""
    answer = client.request_withdrawal(
        distributor_id, amount_minor, request_id=request_id, reason=reason
    )
    return shown(show, answer)


@over_grpc(distributor_app, "withdrawals")
def withdrawals(
    client: Client,
    show: Show,
    *,
    distributor_id: Annotated[str, typer.Option("--only", help="Only this distributor's.")] = "",
    state: Annotated[list[str] | None, typer.Option(help="Only these states.")] = None,
    limit: Limit = 100,
) -> None:
    """Withdrawals from the SQL view, newest first."""
    states = tuple(parse_member(WithdrawalState, name) for name in state or ())
    found = client.list_withdrawals(
        distributor_id=distributor_id, states=states, page_size=min(limit, PAGE_MAX)
    )
    show.rows(itertools.islice(found, limit), WITHDRAWAL_COLUMNS)


@over_grpc(distributor_app, "review")
def review(
    client: Client,
    show: Show,
    *,
    withdrawal_id: Annotated[str, typer.Argument(help="The withdrawal.")],
    act: Annotated[str, typer.Argument(help="approve, reject, report_paid or report_failed.")],
    reference: Annotated[str, typer.Option(help="Of the payment, at whoever made it.")] = "",
    reason: Reason = "",
    yes: Yes = False,
) -> int:
    """Approve or reject a withdrawal, or report what became of its payment."""
    chosen = parse_member(WithdrawalAct, act)
    if chosen is not WithdrawalAct.APPROVE:
        agreed(f"{chosen.name} of withdrawal {withdrawal_id}?", yes)
    answer = client.review_withdrawal(withdrawal_id, chosen, reference=reference, reason=reason)
    return shown(show, answer)


@over_grpc(distributor_app, "board")
def board(
    client: Client,
    show: Show,
    *,
    kind: Annotated[str, typer.Argument(help="sales or invites.")] = "sales",
    month: OnlyMonth = 0,
    limit: Annotated[int, typer.Option(min=1, max=10, help="At most so many.")] = 10,
) -> int:
    """The first of this or the last month."""
    found = client.get_leaderboard(parse_member(LeaderboardKind, kind), month=month, limit=limit)
    if not found.ok:
        return shown(show, found)
    show.rows(found.places, ("place", "distributor_id", "sales_minor", "invited_count"))
    return OK


@over_grpc(distributor_app, "rates")
def rates(
    client: Client,
    show: Show,
    *,
    file: Annotated[
        Path | None, typer.Option("--put", help="A new version: JSON of the message Rates.")
    ] = None,
    version: Annotated[int, typer.Option(min=0, help="The version to show; 0: the newest.")] = 0,
    reason: Reason = "",
) -> int:
    """Show the rates and rules with the sums of the ledger, or put a new version."""
    if file is None:
        return shown(show, client.get_rates(version))
    wanted = read(Rates, message_of(file, wire.Rates))
    return shown(show, client.put_rates(wanted, reason=reason))


@over_grpc(distributor_app, "funnel")
def funnel(
    client: Client,
    show: Show,
    *,
    campaign_ids: Annotated[list[str], typer.Argument(help="Campaigns, 1-20 of them.")],
    channel: Annotated[str, typer.Option(help="Only this channel.")] = "",
    distributor_id: Annotated[str, typer.Option("--only", help="Only this distributor's.")] = "",
) -> None:
    """What share codes brought: reserved, confirmed, paid, and the commission."""
    found = client.get_funnel(campaign_ids, channel=channel, distributor_id=distributor_id)
    show.rows(found.rows, FUNNEL_COLUMNS)
    if found.truncated:
        say("there are more: ask for fewer campaigns, one channel or one distributor")
