"""What is checked of teams at every entry: part of the ledger, whose rules hold here.

Each record of a team is held against the naive rules (`tests/model/naive_teams.py`) as it comes,
and when its entry is whole: seats = paid + reserved, never more than the last tier has people; a
team that ended has settled or paid back each member once, by the member's own key.
"""

from collections.abc import Callable
from typing import Any

from actors.core import state as s
from actors.core import team_records as t
from actors.core.codec import EntryContent
from actors.core.identity import public_id
from actors.core.refunds import RefundReason
from actors.core.teams import team_view
from persistence.ports import Ownership
from tests.model.naive_teams import TOLD, NaiveTeams
from tests.sim.books import Book, History, Violation, need
from tests.sim.ledger import ON_ONE, Ledger
from tests.sim.loop import START_MS, START_S, World


class TeamLedger(Ledger):
    """A ledger that knows teams."""

    def __init__(self, world: World, shards: int) -> None:
        super().__init__(world, shards)
        archive = self.naive.forgotten
        self.naive = self.rules = NaiveTeams(START_MS)
        self.rules.forgotten = archive
        self.rules.sometimes = lambda what: self.sometimes.update((what,))
        self.teams: dict[tuple[int, bytes], History] = {}
        """(slot, team) -> what could be read of it."""
        self._promoted_ms: dict[int, int] = {}
        self.judges |= TEAM_JUDGES

    def acquired(self, shard: int, ownership: Ownership) -> None:
        super().acquired(shard, ownership)
        self._promoted_ms[shard] = START_MS + round((self.world.now - START_S) * 1000)

    def _entry_is_whole(self, book: Book, seq: int, content: EntryContent) -> None:
        if self.rules.touched or self.rules.early:
            self._by_naive(self.rules.after_entry)

    def _note(self, book: Book, kind: int, record: Any) -> None:
        super()._note(book, kind, record)
        if kind == t.TEAMS_FORGOTTEN:
            for gone in record.keys:
                self.teams[record.slot, gone].append((book.at, None))
            return
        slot = book.state.slots[record.slot]
        key = getattr(record, "team_key", b"")
        if kind in ON_ONE:
            held = slot.reservations.get(record.key)
            key = held.team_key if type(held) is s.Seat else b""
        team = slot.teams.get(key) if key else None
        if team is not None:
            seen = self.teams.setdefault((record.slot, key), [])
            seen.append((book.at, team_view(slot, team)))

    def _by_naive(self, judge: Callable[..., None], *record: Any) -> None:
        try:
            judge(*record)
        except AssertionError as error:
            raise Violation(f"teams: {error} {record}") from error

    def told(self, book: Book, record: Any) -> None:
        """What follows from a decision, or what a shard decided by itself."""
        if record[0] in (t.TEAM_FORMED, t.TEAM_CLOSED):
            team = book.state.slots[record.slot].teams.get(record.team_key)
            if team is not None and team.deadline_ms <= self._promoted_ms.get(book.shard, 0):
                self.sometimes["a promotion came when a team was to end"] += 1
        self._by_naive(self.rules.told, record)

    def seat_taken(self, book: Book, record: t.SeatTaken) -> None:
        self.reserved(book, record)  # type: ignore[arg-type]  # Its first fields are the same.
        self._by_naive(self.rules.taken, record)

    def seat_closed(self, book: Book, record: t.SeatClosed) -> None:
        """A paid seat ended: somebody left, or a team failed."""
        if record.why == RefundReason.LEFT_TEAM:
            mark = ("left", public_id(record.slot, record.key))
            self._once(book, mark)
            answer = self.rules.apply(self._operation(book, mark).command)
            need(answer == ("LEFT",), "rules", lambda: f"left; by the rules {answer}")
        self.told(book, record)

    def formed(self, book: Book, record: t.TeamFormed) -> None:
        if record.caller:
            mark = ("completed", record.slot, record.team_key)
            answer = self.rules.apply(self._operation(book, mark).command)
            need(answer == ("APPLIED",), "rules", lambda: f"completed; by the rules {answer}")
        self.told(book, record)

    def teams_forgotten(self, book: Book, record: t.TeamsForgotten) -> None:
        position = self.sink.position(book.shard)[1]
        for key in record.keys:
            team = book.state.slots[record.slot].teams.get(key)
            need(team is not None, "I4", "a team is forgotten that is not in memory")
            if team is not None:
                need(team.seq <= position, "I5", "a team is forgotten before SQL has it")
        self._by_naive(self.rules.forgotten_teams, record)
        self.sometimes["a team left memory"] += 1


TEAM_JUDGES: dict[int, Callable[[Any, Book, Any], None]] = {
    **dict.fromkeys(TOLD, TeamLedger.told),
    t.SEAT_TAKEN: TeamLedger.seat_taken,
    t.SEAT_CLOSED: TeamLedger.seat_closed,
    t.TEAM_FORMED: TeamLedger.formed,
    t.TEAMS_FORGOTTEN: TeamLedger.teams_forgotten,
}
