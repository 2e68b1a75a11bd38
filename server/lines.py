"""What the services need of everything behind them: somebody who decides lines."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Lines(Protocol):
    """Routes commands to their shards and gathers the answers (`gather.py`)."""

    async def submit(self, commands: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """Commands of `actors/core/commands.py`, routed by `.slot`; answers dense, in order.

        An answer is what `actors/core/decide.py` gives, or a lone (RETRY,), (UNKNOWN,) or
        (INTERNAL,). Never raises for a line. The commit runs in tasks of its own: cancelling the
        caller of `submit` undoes nothing and tears nothing."""

    def put(self, command: Any, on_answer: Callable[[tuple[Any, ...]], object]) -> None:
        """One command; `on_answer` is called with its answer exactly once, now or later on the
        loop, at the latest a moment after the command's deadline. No task is made for it."""

    def shard_of(self, slot: int) -> int:
        """The shard that owns the slot by the map in use; for people and for watchers."""
