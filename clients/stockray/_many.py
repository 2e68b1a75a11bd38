"""Explicit batches: lines of one caller, cut into calls and answered in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from stockray._batcher import Batcher
from stockray._session import Session, _Open
from stockray.errors import InvalidRequest, StockrayError

R = TypeVar("R")
Encoded = tuple[tuple[str, ...], bytes]


class ManyCalls(Session):
    """How `*_many` sends."""

    async def _many(
        self, batcher: Batcher[R], opened: _Open, encoded: Sequence[Encoded], deadline: float
    ) -> list[R]:
        """Results in the order of the lines; raises when a call of them was refused as a whole.

        As many calls as may fly are handed over at once; the others wait here, in the caller.
        """
        calls = []
        for lines in self._cut(encoded):
            await opened.many_slots.acquire()
            call = batcher.submit_group(lines, deadline)
            call.add_done_callback(lambda _: opened.many_slots.release())
            calls.append(call)
        results: list[R] = []
        errors: list[StockrayError] = []
        for call in calls:
            for outcome in await call:
                if isinstance(outcome, StockrayError):
                    errors.append(outcome)
                else:
                    results.append(outcome)
        if errors:
            doubt = bool(results) or any(error.maybe_applied for error in errors)
            raise errors[0].copy_for([key[-1] for key, _ in encoded], maybe_applied=doubt)
        return results

    def _cut(self, encoded: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
        lines_max, bytes_max = self._options.call_lines_max, self._options.message_bytes_max
        start = size = 0
        for index, (key, frame) in enumerate(encoded):
            if len(frame) > bytes_max:
                raise InvalidRequest("a line is larger than message_bytes_max", ids=key[-1:])
            size += len(frame)
            if size > bytes_max or index - start == lines_max:
                yield encoded[start:index]
                start, size = index, len(frame)
        if start < len(encoded):
            yield encoded[start:]
