"""Finished reservations leave memory, and come back when somebody asks for one.

How it works
------------
* The primary walks its reservations, a slice at a time, and finds those that are finished, were
  untouched for `recall_after_ms`, stand in SQL as they are, and are counted by no limit that still
  holds. `ReservationsForgotten` takes them out; their keys stay in a Bloom filter.
* A command on a key that is not in memory and may have been forgotten is answered RECALL, and
  nothing is decided. Its gateway reads the row from SQL and sends the command again with it, as
  `Recalled`; then `ReservationRecalled` puts the row back, and the command is decided as ever.
* Ids of payments, documents and refunds are not forgotten.

What account shards forget is in `forgetting_accounts.py`. Which rows are old enough is a matter of
the primary alone: what it decides is a record.
"""

from collections.abc import Iterator
from typing import Any

from actors.core import commands as c
from actors.core import forgetting_accounts as accounts
from actors.core import state as s
from actors.core import team_commands as t
from actors.core.evolve_reservations import counted_units, from_recalled
from actors.core.identity import parse_public_id, request_key
from actors.core.records import (
    RESERVATION_RECALLED,
    RESERVATIONS_FORGOTTEN,
    ReservationRecalled,
    ReservationsForgotten,
)
from actors.core.team_ends import team_of
from actors.core.team_records import TEAMS_FORGOTTEN, TeamsForgotten
from actors.core.team_state import TEAM_FORMING, Team

SEAT_FIELDS_FROM = c.RecalledRow._fields.index("team_id")

SCAN_SLICE = 4_096
"""Reservations looked at in one step (about 1 ms)."""

ON_RESERVATIONS = frozenset(
    {
        c.RESERVE,
        c.CONFIRM,
        c.RELEASE,
        c.BEGIN_PAYMENT,
        c.REPORT_FAILED_PAYMENT,
        c.RETURN_UNITS,
        c.REPORT_FULFILMENT,
        c.GET_RESERVATION,
        t.OPEN_TEAM,
        t.JOIN_TEAM,
        t.LEAVE_TEAM,
    }
)
"""Commands whose answer depends on one reservation, by its key."""


class Forgetting:
    """Walks a shard's reservations round and round. Belongs to a primary; where it stands is only a
    place to look next. A row that is not to be forgotten yet is met again in the next round."""

    def __init__(self) -> None:
        self._rows: Iterator[tuple[int, s.Reservation]] | None = None
        self._teams: Iterator[tuple[int, Team]] | None = None

    def look_on(
        self, state: s.ShardState, *, now_ms: int, recall_after_ms: int, sink_seq: int, limit: int
    ) -> list[ReservationsForgotten]:
        """One slice: records that forget up to `limit` rows. Fold them before asking again.

        `sink_seq`: SQL has all entries up to this one."""
        keys: dict[int, list[bytes]] = {}
        before_ms = now_ms - recall_after_ms
        found = 0
        if self._rows is None:
            self._rows = _walk(state)
        for _ in range(SCAN_SLICE):
            number, held = next(self._rows, (0, None))
            if held is None:
                self._rows = None
                break
            if held.state == s.RESERVED or held.touched_ms > before_ms or held.seq > sink_seq:
                continue
            # The walk may stand on a row that is gone, or was recalled as another object.
            slot = state.slots[number]
            if slot.reservations.get(held.key) is held and _may_go(slot, held, now_ms):
                keys.setdefault(number, []).append(held.key)
                found += 1
                if found == limit:
                    break
        return [
            ReservationsForgotten(RESERVATIONS_FORGOTTEN, number, tuple(gone))
            for number, gone in keys.items()
        ]

    def look_for_teams(
        self, state: s.ShardState, *, now_ms: int, recall_after_ms: int, sink_seq: int, limit: int
    ) -> list[TeamsForgotten]:
        """The same for teams: those that ended, of campaigns that are over."""
        keys: dict[int, list[bytes]] = {}
        before_ms = now_ms - recall_after_ms
        if self._teams is None:
            self._teams = _walk_teams(state)
        for _ in range(SCAN_SLICE):
            number, team = next(self._teams, (0, None))
            if team is None:
                self._teams = None
                break
            slot = state.slots[number]
            if team.state == TEAM_FORMING or team.touched_ms > before_ms or team.seq > sink_seq:
                continue
            if slot.teams.get(team.key) is team and _is_over(slot, team.campaign_id, now_ms):
                keys.setdefault(number, []).append(team.key)
                limit -= 1
                if not limit:
                    break
        return [
            TeamsForgotten(TEAMS_FORGOTTEN, number, tuple(gone)) for number, gone in keys.items()
        ]


def _walk_teams(state: s.ShardState) -> Iterator[tuple[int, Team]]:
    for number, slot in list(state.slots.items()):
        for part in list(slot.teams.parts):
            for team in list(part.values()):
                yield number, team


def _is_over(slot: s.SlotState, campaign_id: str, now_ms: int) -> bool:
    campaign = slot.campaigns[campaign_id]
    return campaign.state == s.CAMPAIGN_ENDED or now_ms >= campaign.config.ends_ms


def _walk(state: s.ShardState) -> Iterator[tuple[int, s.Reservation]]:
    """All rows. A part is listed in one step: it may change before the next row is asked for."""
    for number, slot in list(state.slots.items()):
        for part in list(slot.reservations.parts):
            for held in list(part.values()):
                yield number, held


def _may_go(slot: s.SlotState, held: s.Reservation, now_ms: int) -> bool:
    """Whether no rule needs the row: no limit that still holds counts it, and it is no order of a
    pool that owes units, whose search for the newest orders would miss it."""
    if team_of(slot, held) is not None:
        return False
    if not counted_units(held):
        return True
    pool = held.pool
    if pool.owed:
        return False
    return not pool.campaign_id or _is_over(slot, pool.campaign_id, now_ms)


def recall_key(command: Any) -> bytes | None:
    """The key of the row that a command is about; None for an id not of its slot."""
    if command.kind in accounts.ON_ACCOUNTS:
        return accounts.account_key(command)
    return reservation_key(command)


def reservation_key(command: Any) -> bytes | None:
    """The key of the reservation that a command is about; None for an id not of its slot."""
    if command.kind in (c.RESERVE, t.OPEN_TEAM, t.JOIN_TEAM):
        return request_key(command.caller, command.request_id)
    parsed = parse_public_id(command.reservation_id)
    return None if parsed is None or parsed[0] != command.slot else parsed[1]


def may_be_forgotten(state: s.ShardState, command: Any) -> bool:
    """Whether the command is about a row that is not in memory and may have been."""
    if command.kind in accounts.ON_ACCOUNTS:
        return accounts.may_be_forgotten(state, command)
    if command.kind not in ON_RESERVATIONS:
        return False
    slot = state.slots.get(command.slot)
    if slot is None or slot.forgotten is None:
        return False
    key = reservation_key(command)
    if key is None or key in slot.reservations:
        return False
    return slot.forgotten.may_contain(key)


def recall(state: s.ShardState, command: c.Recalled) -> tuple[Any, ...]:
    """The record that puts a command's row back, to be folded before the command is decided.

    None of them if there is no row, it is in memory already, no forgotten one could be it, or the
    command only reads. ValueError or TypeError for a row that is none."""
    if not command.row or command.command.kind == c.GET_RESERVATION:
        return ()
    of_account = command.command.kind in accounts.ON_ACCOUNTS
    record = (accounts.recalled_row if of_account else recalled_row)(state, command)
    return () if record is None else (record,)


def recalled_row(state: s.ShardState, command: c.Recalled) -> ReservationRecalled | None:
    """The row as it would come back; see `recall`."""
    if not may_be_forgotten(state, command.command):
        return None
    row = c.RecalledRow._make(command.row)
    if row.state not in s.TRANSITIONS or row.state == s.RESERVED:
        raise ValueError(f"a forgotten reservation in state {row.state}")
    if state.slot(command.slot).pool(row.campaign_id, row.sku_id) is None:
        raise ValueError(f"a forgotten reservation of no pool: {row.campaign_id}/{row.sku_id}")
    # Parts of a return are paid back from the total, and a revoked order is paid back whole.
    kept = row.paid_minor - row.settled_minor
    refunded = row.settled_minor + kept * row.returned // row.quantity
    if row.state == s.REVOKED:
        refunded = row.paid_minor
    key = reservation_key(command.command)
    team = parse_public_id(row.team_id)
    fields = (
        RESERVATION_RECALLED,
        command.slot,
        key or b"",
        *row[:SEAT_FIELDS_FROM],
        refunded,
        b"" if team is None else team[1],
        *row[SEAT_FIELDS_FROM + 1 :],
    )
    return ReservationRecalled._make(fields)


def peek(state: s.ShardState, command: c.Recalled) -> s.Reservation | None:
    """The row that a command brought, to be read and not kept; None as `recalled_row` says."""
    record = recalled_row(state, command) if command.row else None
    return None if record is None else from_recalled(state, state.slot(command.slot), record)
