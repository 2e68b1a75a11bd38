"""`events`: the feed of all facts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated

import typer

from stockray.cli._command import over_grpc, parse_member, say
from stockray.cli._output import Show
from stockray.enums import FactKind
from stockray.events import Fact, FactBatch, FeedCursor, format_cursors, parse_cursors
from stockray.sync import Client

COLUMNS = (
    "time",
    "shard",
    "seq",
    "index",
    "kind",
    "campaign_id",
    "sku_id",
    "reservation_id",
    "team_id",
    "buyer_id",
    "quantity",
    "payment_id",
)

events_app = typer.Typer(help="What was decided, fact by fact.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds these commands to the root."""
    app.add_typer(events_app, name="events")


@over_grpc(events_app, "tail")
def tail(
    client: Client,
    show: Show,
    *,
    after: Annotated[str, typer.Option("--from", help="Cursors, as this command ends with.")] = "",
    oldest: Annotated[bool, typer.Option("--oldest", help="Begin with what is kept.")] = False,
    kind: Annotated[list[str] | None, typer.Option(help="Only facts of these kinds.")] = None,
    campaign_id: Annotated[str, typer.Option("--campaign", help="Only this campaign's.")] = "",
    shard: Annotated[list[int] | None, typer.Option(help="Only these shards.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="End after so many; 0: never.")] = 0,
) -> None:
    """Show facts as they are decided, from now on. Says at its end where to go on."""
    try:
        cursors = parse_cursors(after)
    except ValueError as error:
        raise ValueError(f"--from: {error}") from error
    batches = client.watch_events(
        cursors,
        oldest=oldest,
        kinds=[_parse_kind(name) for name in kind or ()],
        campaign_id=campaign_id,
        shards=shard or (),
    )
    seen = _Seen()
    try:
        facts = seen.facts(batches)
        if limit:
            show.rows(itertools.islice(facts, limit), COLUMNS)
        else:
            for fact in facts:
                show.rows([fact], COLUMNS)
    except KeyboardInterrupt:
        pass
    finally:
        if seen.cursors:
            say(f"go on with --from {format_cursors(seen.cursors.values())}")


def _parse_kind(name: str) -> FactKind:
    try:
        return parse_member(FactKind, name)
    except ValueError as error:
        raise ValueError(f"--kind: {error}") from error


class _Seen:
    """Which facts were shown."""

    def __init__(self) -> None:
        self.cursors: dict[int, FeedCursor] = {}

    def facts(self, batches: Iterator[FactBatch]) -> Iterator[Fact]:
        """One by one. The cursors are after the last one that was taken."""
        for batch in batches:
            now = {cursor.shard: cursor for cursor in batch.cursors}
            for fact in batch.facts:
                self.cursors[fact.shard] = FeedCursor(
                    shard=fact.shard,
                    seq=fact.seq,
                    index=fact.index + 1,
                    incarnation=now[fact.shard].incarnation,
                )
                yield fact
            self.cursors = now
