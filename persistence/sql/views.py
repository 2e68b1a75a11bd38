"""The read side of the SQL view, for pages of the gateway and the console.

Rules
-----
* Nothing here is the truth: an answer is as old as `positions()` says, and the caller says so.
* Pages are read by key, not by offset: each ends with the key at which the next one begins, so a
  row that is there all the time is listed once, whatever is written between two pages.
* Every query walks an index. A listing of reservations needs a filter that has one.
* A row is a mapping from the names of the columns in `tables.py`.
* All calls block; run them in a thread. They may be made by several threads at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, literal_column, select

from persistence.ports import FactRow
from persistence.sql.engine import connected, make_engine, parse_url
from persistence.sql.migrate import require_revision
from persistence.sql.paging import PAGE_SIZE_MAX, Page, Row
from persistence.sql.tables import (
    BUYER_PARTS,
    buyer_part,
    campaigns,
    facts,
    pools,
    positions,
    refunds,
    reservations,
    seats,
    teams,
)
from persistence.sql.views_accounts import AccountViews

SEATS_MAX = 10_000
"""Of one team: those that it has at the end are 500 at most; others expired or were left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationFilter:
    """Which reservations to list; '' and None do not filter.

    One of buyer, campaign, SKU, order, team and state must be given: a listing of everything that
    is ordered by time would have no index to walk."""

    buyer_id: str = ""
    campaign_id: str = ""
    sku_id: str = ""
    order_id: str = ""
    team_id: str = ""
    state: int | None = None
    from_ms: int | None = None
    """Reserved at this time or later."""
    to_ms: int | None = None
    """Reserved before this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFilter:
    """Which refunds of one state to list; '' and None do not filter. Each id has an index."""

    state: int
    buyer_id: str = ""
    campaign_id: str = ""
    reservation_id: str = ""
    payment_id: str = ""
    due_before_ms: int | None = None
    """Became due before this time."""


class ShardPosition(NamedTuple):
    """How far a shard's journal has been applied here."""

    shard: int
    incarnation: str
    seq: int
    updated_ms: int
    """All that was decided up to this time is here, and perhaps more."""


class KeptFacts(NamedTuple):
    """Facts of a shard in the order of their entries."""

    rows: Sequence[FactRow]
    to_seq: int
    """All that is kept up to this entry is in `rows`."""
    after_seq: int
    """Facts of entries up to this one may be gone."""
    incarnation: str
    """'' when nothing of the shard was ever applied."""


class SqlViews(AccountViews):
    """Queries for one database. Opens nothing before its first call.

    Every call raises NotApplied when the database does not answer within about `timeout_ms` (up
    to four times that on a frozen one), and WrongRevision when a table is missing."""

    def __init__(self, url: str, *, timeout_ms: int = 2_000, connections: int = 4) -> None:
        super().__init__(
            make_engine(parse_url(url), timeout_ms=timeout_ms, pool_size=connections, writes=False)
        )

    def require_revision(self) -> None:
        """WrongRevision, with what to do, unless the schema is the needed one. Call it at open."""
        require_revision(self._engine)

    def list_reservations(
        self,
        wanted: ReservationFilter,
        *,
        page_size: int = 100,
        after: tuple[int, str] | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Ordered by (reserved_ms, reservation_id), with the columns of `get_reservation`.
        ValueError for a filter without an index."""
        return self._page(
            select(reservations, *_SEAT_COLUMNS)
            .join(seats, _SEAT_OF, isouter=not wanted.team_id)
            .where(*_conditions(wanted)),
            key=(reservations.c.reserved_ms, reservations.c.reservation_id),
            page_size=page_size,
            after=after,
            descending=newest_first,
        )

    def get_reservation(self, reservation_id: str) -> Row | None:
        """One reservation, None if it is not here (yet); with `team_id`, `new_buyer`,
        `settled_minor` and `joined_ms` of its seat ('' and 0 for one that is no seat)."""
        # Its buyer is not known: the primary key begins with one of so many parts.
        rows = self._rows(
            select(reservations, *_SEAT_COLUMNS)
            .join(seats, _SEAT_OF, isouter=True)
            .where(
                reservations.c.buyer_part.in_(range(BUYER_PARTS)),
                reservations.c.reservation_id == reservation_id,
            )
        )
        return rows[0] if rows else None

    def list_refunds(
        self,
        wanted: RefundFilter,
        *,
        page_size: int = 100,
        after: tuple[int, str] | None = None,
    ) -> Page:
        """Ordered by (due_ms, refund_id): soonest due first."""
        query = select(refunds).where(refunds.c.state == wanted.state)
        for name in ("buyer_id", "campaign_id", "reservation_id", "payment_id"):
            if value := getattr(wanted, name):
                query = query.where(refunds.c[name] == value)
        if wanted.due_before_ms is not None:
            query = query.where(refunds.c.due_ms < wanted.due_before_ms)
        key = (refunds.c.due_ms, refunds.c.refund_id)
        return self._page(query, key=key, page_size=page_size, after=after)

    def list_stock(
        self,
        *,
        sku_id: str = "",
        campaign_id: str | None = None,
        page_size: int = 100,
        after: tuple[str, str] | None = None,
    ) -> Page:
        """Pools, ordered by (campaign_id, sku_id); campaign_id '' means the base pools only."""
        query = select(pools)
        if sku_id:
            query = query.where(pools.c.sku_id == sku_id)
        if campaign_id is not None:
            query = query.where(pools.c.campaign_id == campaign_id)
        key = (pools.c.campaign_id, pools.c.sku_id)
        return self._page(query, key=key, page_size=page_size, after=after)

    def list_campaigns(
        self, *, state: int | None = None, page_size: int = 100, after: tuple[str] | None = None
    ) -> Page:
        """Campaigns, ordered by id."""
        query = select(campaigns)
        if state is not None:
            query = query.where(campaigns.c.state == state)
        return self._page(query, key=(campaigns.c.campaign_id,), page_size=page_size, after=after)

    def get_campaign(self, campaign_id: str) -> Row | None:
        """One campaign, None if it is not here (yet)."""
        rows = self._rows(select(campaigns).where(campaigns.c.campaign_id == campaign_id))
        return rows[0] if rows else None

    def get_team(self, team_id: str) -> Row | None:
        """One team, None if it is not here (yet)."""
        rows = self._rows(select(teams).where(teams.c.team_id == team_id))
        return rows[0] if rows else None

    def list_teams(
        self,
        *,
        campaign_id: str,
        state: int,
        page_size: int = 100,
        after: tuple[int, str] | None = None,
        newest_first: bool = False,
    ) -> Page:
        """A campaign's teams in one state, ordered by (opened_ms, team_id)."""
        return self._page(
            select(teams).where(teams.c.campaign_id == campaign_id, teams.c.state == state),
            key=(teams.c.opened_ms, teams.c.team_id),
            page_size=page_size,
            after=after,
            descending=newest_first,
        )

    def list_seats(self, team_id: str) -> Sequence[Row]:
        """All seats that a team ever had, in the order of joining: their row in `seats`, and of
        their reservation `state` and `payment_id`. As many as ever joined it: expired and left
        ones, too."""
        return self._rows(
            select(seats, reservations.c.state, reservations.c.payment_id)
            .join(reservations, _SEAT_OF)
            .where(seats.c.team_id == team_id)
            .order_by(seats.c.joined_ms, seats.c.reservation_id)
            .limit(SEATS_MAX)
        )

    def count_seats(self, team_ids: Sequence[str], states: Sequence[int]) -> Sequence[Row]:
        """Of these teams, at most a page of them, how many seats have a reservation in each of the
        states: (team_id, state, seats, new_buyers)."""
        if len(team_ids) > PAGE_SIZE_MAX:
            raise ValueError(f"at most {PAGE_SIZE_MAX} teams, not {len(team_ids)}")
        return self._rows(
            select(
                seats.c.team_id,
                reservations.c.state,
                func.count().label("seats"),
                func.sum(seats.c.new_buyer).label("new_buyers"),
            )
            .join(reservations, _SEAT_OF)
            .where(seats.c.team_id.in_(team_ids), reservations.c.state.in_(states))
            .group_by(seats.c.team_id, reservations.c.state)
        )

    def positions(self) -> Sequence[ShardPosition]:
        """How far each shard has been applied, ordered by shard: the age of all the above."""
        columns = [positions.c[name] for name in ShardPosition._fields]
        rows = self._rows(select(*columns).order_by(positions.c.shard))
        return [ShardPosition(**row) for row in rows]

    def list_facts(self, shard: int, *, after_seq: int, rows_max: int, bytes_max: int) -> KeptFacts:
        """Facts of a shard's entries after `after_seq`: at least one if there is one, else at most
        `rows_max` of about `bytes_max` together."""
        beyond = facts.c.shard == shard, facts.c.seq > after_seq
        of_shard = positions.c.shard == shard
        with connected(self._engine) as connection:
            # In this order: the position says less than what is read after it, and what was pruned
            # meanwhile is told.
            place = connection.execute(
                select(positions.c.seq, positions.c.incarnation).where(of_shard)
            ).one_or_none()
            sizes = connection.execute(
                select(facts.c.seq, func.length(facts.c.data))
                .where(*beyond)
                .order_by(facts.c.seq)
                .limit(rows_max)
            ).all()
            last_seq = _last_within(sizes, bytes_max)
            rows = connection.execute(
                select(facts.c.seq, facts.c.at_ms, facts.c.data)
                .where(*beyond, facts.c.seq <= last_seq)
                .order_by(facts.c.seq)
            ).all()
            gone = select(positions.c.facts_after_seq).where(of_shard)
            gone_to = connection.execute(gone).scalar() or 0
        if place is None:
            return KeptFacts((), after_seq, 0, "")
        found = [FactRow(*row) for row in rows]
        whole = len(found) == len(sizes) < rows_max
        to_seq = max(place.seq, last_seq, after_seq) if whole else last_seq
        return KeptFacts(found, to_seq, gone_to, place.incarnation)

    def close(self) -> None:
        """Give up the connections. Idempotent; a later call would open new ones."""
        self._engine.dispose()


_SEAT_OF = and_(
    reservations.c.buyer_part == seats.c.buyer_part,
    reservations.c.reservation_id == seats.c.reservation_id,
)
_SEAT_COLUMNS = (
    func.coalesce(seats.c.team_id, "").label("team_id"),
    func.coalesce(seats.c.new_buyer, 0).label("new_buyer"),
    func.coalesce(seats.c.settled_minor, 0).label("settled_minor"),
    func.coalesce(seats.c.joined_ms, 0).label("joined_ms"),
)


def _last_within(sizes: Sequence[Any], bytes_max: int) -> int:
    """The last of these entries that fits; the first one always does. 0 if there is none."""
    last_seq = byte_count = 0
    for seq, size in sizes:
        byte_count += size
        if last_seq and byte_count > bytes_max:
            break
        last_seq = seq
    return last_seq


def _conditions(wanted: ReservationFilter) -> list[ColumnElement[bool]]:
    columns = reservations.c
    equal: dict[str, object] = {
        "buyer_id": wanted.buyer_id,
        "campaign_id": wanted.campaign_id,
        "sku_id": wanted.sku_id,
        "order_id": wanted.order_id,
    }
    conditions = [columns[name] == value for name, value in equal.items() if value]
    if wanted.state is not None:
        conditions.append(columns.state == wanted.state)
    if wanted.team_id:
        conditions.append(seats.c.team_id == wanted.team_id)
    if not conditions:
        raise ValueError(
            "give a buyer, campaign, SKU, order, team or state to list reservations by"
        )
    if wanted.buyer_id:
        # Leaves MySQL one partition to look into.
        conditions.append(columns.buyer_part == buyer_part(wanted.buyer_id))
    if wanted.order_id:
        # SQLite's index has reservations with an order only, and must be told that this is one.
        conditions.append(columns.order_id != literal_column("''"))
    if wanted.from_ms is not None:
        conditions.append(columns.reserved_ms >= wanted.from_ms)
    if wanted.to_ms is not None:
        conditions.append(columns.reserved_ms < wanted.to_ms)
    return conditions
