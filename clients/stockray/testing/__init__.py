"""A whole cluster on this machine for tests, and the means to hurt it.

`start_local` needs the service distribution beside the client. With pytest the fixtures
`stockray_cluster`, `stockray_client` and `stockray_async_client` do the rest; see the README.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from stockray.testing.asynchronous import AsyncFault, AsyncLocalCluster
from stockray.testing.books import Books, NotBalanced
from stockray.testing.cluster import Fault, LocalCluster, Part
from stockray.testing.link import LocalClusterError, NotOffered, ServiceMissing

__all__ = [
    "AsyncFault",
    "AsyncLocalCluster",
    "Books",
    "Fault",
    "LocalCluster",
    "LocalClusterError",
    "NotBalanced",
    "NotOffered",
    "Part",
    "ServiceMissing",
    "start_local",
]


def start_local(
    *,
    journal: Literal["sqlite", "redis"] = "sqlite",
    database: Literal["sqlite", "mariadb"] = "sqlite",
    shards: int = 2,
    gateways: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> LocalCluster:
    """A cluster of its own, on private ports and in a temporary directory.

    `with start_local() as cluster:` starts it and ends it; `async with` gives its methods awaited;
    without either call `start` and `close`. Redis and MariaDB are started for it from this
    machine's programs, with every commit synced. `settings` are those of the service, by name;
    `expiry_grace_ms` is 2,000 unless given. Nothing is started by this call itself."""
    wished = {"shards": shards, "gateways": gateways} | dict(settings or {})
    return LocalCluster({"journal": journal, "database": database, "settings": wished})
