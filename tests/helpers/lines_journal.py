"""The journal of `CoreLines` as a gateway reads it, trimmed and silent at a test's word."""

from collections.abc import Sequence

from persistence.errors import NotApplied, Trimmed
from persistence.ports import Entry, Meta
from tests.helpers.core_lines import CoreLines

INCARNATION = "i"


class LinesJournal:
    """What readers of facts use of `actors.threads.AsyncJournal`."""

    def __init__(self, lines: CoreLines) -> None:
        self.first_seq = 1
        self.silent = False
        self.reads = 0
        self._lines = lines

    async def read_meta(self) -> Meta:
        self._answer()
        return Meta(INCARNATION, 1, "t", len(self._lines.entries), self.first_seq)

    async def read(self, *, after_seq: int, max_bytes: int) -> Sequence[Entry]:
        self._answer()
        self.reads += 1
        if after_seq + 1 < self.first_seq:
            raise Trimmed(first_seq=self.first_seq)
        found: list[Entry] = []
        for entry in self._lines.entries[after_seq:]:
            max_bytes -= len(entry.data)
            if found and max_bytes < 0:
                break
            found.append(entry)
        return found

    def trim(self) -> None:
        """Let go of all that there is."""
        self.first_seq = len(self._lines.entries) + 1

    def _answer(self) -> None:
        if self.silent:
            raise NotApplied("simulated: the journal does not answer")
