"""Stock gRPC clients of four languages run the scripted sale against the real service."""

from collections.abc import Iterator

import pytest

from tests.helpers.stack import Stack, running_stack
from tests.interop import sale
from tests.interop.fronts import FRONTS
from tests.interop.toolchains import require_language

# The first test of a language builds its clients.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module", params=FRONTS)
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """`stockray serve`, embedded, by one front for all clients."""
    with running_stack("sqlite", {"front": request.param}) as stack:
        yield stack


@pytest.mark.parametrize("name", sale.CLIENTS)
async def test_a_stock_client_sells_by_the_script(stack: Stack, name: str) -> None:
    require_language(sale.CLIENTS[name].language)
    async with stack.client() as client:
        await sale.sell(client, name, stack.listen)


async def test_after_all_clients_the_cluster_agrees_with_itself(stack: Stack) -> None:
    async with stack.client() as client:
        await stack.check(client)
