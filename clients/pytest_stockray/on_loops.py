"""The fixture that needs a running loop. Read only where pytest-asyncio is at work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio

if TYPE_CHECKING:
    from stockray import AsyncClient
    from stockray.testing import LocalCluster


@pytest_asyncio.fixture
async def stockray_async_client(stockray_cluster: LocalCluster) -> AsyncIterator[AsyncClient]:
    """A client for event loops of the local cluster, closed after the test."""
    async with stockray_cluster.async_client() as client:
        yield client
