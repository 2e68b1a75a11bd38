"""Steps that several tests of recovery take."""

from actors.core.outcomes import Outcome
from actors.core.snapshot import digest
from tests.helpers.shells import Pair


async def sell(pair: Pair, name: str, first: int, count: int) -> None:
    """`count` entries of one reservation each."""
    for number in range(first, first + count):
        answer = (await pair.do(name, pair.reserve(f"r{number}")))[0]
        assert answer[0] == Outcome.RESERVED, answer


def digest_of(pair: Pair, name: str) -> int:
    state = pair[name].shard.state
    assert state is not None
    return digest(state)


async def primary_with_snapshots(pair: Pair) -> None:
    """a is primary; snapshots at entries 4 and 7 of 10."""
    await pair.promote("a")
    await pair.stock_up("a", 100)
    for first in (0, 3, 6):
        await sell(pair, "a", first, 3)
        await pair.caught_up("b")
        if first < 6:
            await pair["b"].shard.take_snapshot()
