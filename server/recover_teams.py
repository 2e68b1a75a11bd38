"""Teams and seats of the SQL view, and what of the state they are. Part of `recover_rows.py`.

A seat is a reservation with a row of its own in `seats`; who is in a team is told by these alone.
Rows are read in this order: seats, teams, reservations. Nothing is decided: `Teams.compare` tells
what does not fit together.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from actors.core import state as s
from actors.core.refunds import RefundReason
from actors.core.team_state import TEAM_FORMED, TEAM_FORMING

Differ = Callable[[str], None]


class SeatRow(NamedTuple):
    """Of `seats`."""

    slot: int
    generation: int
    seq: int
    reservation_id: str
    team_id: str
    new_buyer: int
    closed: int
    settled_minor: int
    joined_ms: int
    settled_ms: int
    updated_ms: int


class TeamRow(NamedTuple):
    """Of `teams`."""

    slot: int
    generation: int
    seq: int
    team_id: str
    campaign_id: str
    sku_id: str
    state: int
    opener_id: str
    leader_id: str
    leader_reservation_id: str
    paid: int
    new_members: int
    virtual_seats: int
    tier_people: int
    unit_price_minor: int
    completed_by: str
    opened_ms: int
    deadline_ms: int
    ended_ms: int
    updated_ms: int


def key_of(public: str) -> bytes:
    """The key of a public id; b'' of ''."""
    return bytes.fromhex(public[3:])


def packed_seat(seat: SeatRow) -> tuple[Any, ...]:
    """What a snapshot has of a seat beyond its reservation."""
    return (key_of(seat.team_id), seat.new_buyer > 0, seat.joined_ms, seat.settled_minor)


def packed_team(row: TeamRow, members: tuple[bytes, ...]) -> tuple[Any, ...]:
    """A team as a snapshot has it."""
    return (
        key_of(row.team_id),
        row.campaign_id,
        row.sku_id,
        row.opener_id,
        row.opened_ms,
        row.deadline_ms,
        row.state,
        key_of(row.leader_reservation_id),
        row.leader_id,
        members,
        row.tier_people,
        row.unit_price_minor,
        row.virtual_seats,
        row.ended_ms,
        row.seq,
        row.updated_ms,
        row.new_members,
        row.completed_by,
    )


class _Forming:
    """A team that is forming: its row, and its seats as their reservations come."""

    __slots__ = ("buyers", "capacity", "paid", "row", "twice")

    def __init__(self, row: TeamRow, capacity: int) -> None:
        self.row = row
        self.capacity = capacity
        self.buyers: set[str] = set()
        self.paid: set[str] = set()
        self.twice = False


class Teams:
    """Seats until their reservations are read, and teams until all are."""

    def __init__(self, differ: Differ) -> None:
        self._differ = differ
        self._seats: dict[str, SeatRow] = {}
        self._members: dict[str, list[tuple[int, bytes]]] = {}
        self._forming: dict[str, _Forming] = {}
        self._ended: set[str] = set()

    def put_seat(self, row: SeatRow) -> None:
        """Read all of them before the teams."""
        self._seats[row.reservation_id] = row
        if row.settled_ms or row.closed == RefundReason.TEAM_FAILED:
            member = (row.joined_ms, key_of(row.reservation_id))
            self._members.setdefault(row.team_id, []).append(member)

    def members(self, row: TeamRow, capacity: int) -> tuple[bytes, ...]:
        """Keys of the seats that were paid when the team ended, in the order of joining; of one
        that is forming none. `capacity`: seats that it has."""
        members = tuple(key for _, key in sorted(self._members.pop(row.team_id, ())))
        if row.state == TEAM_FORMING:
            self._forming[row.team_id] = _Forming(row, capacity)
        else:
            self._ended.add(row.team_id)
        if len(members) != row.paid:
            self._differ(f"team {row.team_id} ended with {row.paid} members, has {len(members)}")
        if row.state == TEAM_FORMED and key_of(row.leader_reservation_id) not in members:
            self._differ(f"team {row.team_id} formed without its leader")
        return members

    def take_seat(self, reservation_id: str, buyer_id: str, state: int) -> SeatRow | None:
        """What a reservation is as a seat; None for one that is none."""
        seat = self._seats.pop(reservation_id, None)
        if seat is None:
            return None
        forming = self._forming.get(seat.team_id)
        if forming is None:
            if seat.team_id not in self._ended:
                self._differ(f"seat {reservation_id} is of team {seat.team_id}, which is not there")
            elif state == s.RESERVED:
                self._differ(f"seat {reservation_id} is held, its team {seat.team_id} has ended")
        elif state in (s.RESERVED, s.CONFIRMED):
            forming.twice |= buyer_id in forming.buyers
            forming.buyers.add(buyer_id)
            if state == s.CONFIRMED:
                forming.paid.add(reservation_id)
        return seat

    def is_needed(self, seat: SeatRow, state: int) -> bool:
        """Whether it is held or paid in a team that is forming."""
        return seat.team_id in self._forming and state in (s.RESERVED, s.CONFIRMED)

    def compare(self) -> None:
        """When all was read."""
        for reservation_id in self._seats:
            self._differ(f"seat {reservation_id} has no reservation")
        for team_id in self._members:
            self._differ(f"team {team_id} has members and no row")
        for team_id, forming in self._forming.items():
            for what in _wrong(forming):
                self._differ(f"team {team_id} {what}")


def _wrong(forming: _Forming) -> Iterator[str]:
    leader = forming.row.leader_reservation_id
    if forming.twice:
        yield "has a buyer twice"
    if not forming.buyers:
        yield "is forming and has no seats"
    if len(forming.buyers) > forming.capacity:
        yield f"has {len(forming.buyers)} seats taken of {forming.capacity}"
    if leader not in (forming.paid or {""}):
        yield f"is led by {leader or 'nobody'}, its paid seats are {sorted(forming.paid)}"
