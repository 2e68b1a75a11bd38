"""How a gateway reaches a replica: one narrow link, `round(bytes) -> bytes`, control calls apart.

`ray_link.py` carries both by Ray calls; `road_link.py` carries rounds on a connection of their own.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from actors.shard import Promotion


class LinkClosed(Exception):
    """The process at the other end is dead or unreachable. What was sent may have been done."""


class Link(Protocol):
    """A way to one replica."""

    on_closed: Callable[[], None] | None
    """Called when the instance that `hello` met is known to be dead or unreachable."""

    @property
    def token(self) -> str:
        """The replica instance's token; '' before the first `hello`."""

    @property
    def round_bytes(self) -> int:
        """How large a round may be that this link carries well, now."""

    async def hello(self) -> str:
        """(Re)connect to the instance that is there now; answers its token. LinkClosed."""

    def forget(self) -> None:
        """The instance that `hello` met is gone; `token` is '' until the next one."""

    async def round(self, payload: bytes) -> bytes:
        """A round and its answer. LinkClosed as soon as the death of the other end is known; a
        silent end is the caller's business: it has its own deadline."""

    async def promote(self, seen_epoch: int, seen_seq: int) -> Promotion:
        """Ask it to become primary; see `Shard.promote`. LinkClosed."""

    async def control(self, method: str, *arguments: Any) -> Any:
        """Any other control call of the replica's process. LinkClosed."""


class ControlLink(Link, Protocol):
    """A link that also knows where the instance takes rounds."""

    @property
    def addresses(self) -> Sequence[str]:
        """Of the road to the instance that `hello` met, best first."""
