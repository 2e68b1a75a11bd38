"""What a process of the cluster is told when it is made: plain frozen values, nothing else.

They travel as constructor arguments, which Ray keeps to restart the process with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from actors.core.identity import ACCOUNT_SLOT_COUNT, SLOT_COUNT
from actors.limits import ShardLimits

SINK_READER = "sink"
"""Name under which write-behind keeps its position in the journal."""

RELAY_READER = "relay"
"""... and the relay its own, in those of stock shards."""

REPLICAS = ("a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where state is kept; URLs as `persistence.open` takes them."""

    journal_url: str
    snapshots_url: str
    database_url: str


class Rounds(StrEnum):
    """What rounds travel on. Everything else always travels as Ray calls."""

    ROAD = "road"
    """A Unix socket on the same machine, TCP across machines."""
    TCP = "tcp"
    """TCP everywhere."""
    RAY = "ray"
    """Ray calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoadSpec:
    """How gateways and shards of a cluster reach each other."""

    rounds: Rounds = Rounds.RAY
    directory: str = ""
    """Of Unix sockets, on every machine; made by who comes first."""
    certificate: str = field(default="", repr=False)
    """The cluster's certificate and key as PEM; '' where no road leads across machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """One cluster."""

    namespace: str
    """Ray namespace; also what keeps two clusters on one Ray apart."""
    shards: int
    """Of both kinds: first those of stock, then those of accounts."""
    slots_of: tuple[int, ...]
    """Shard of each slot, those of stock and then those of accounts, as in the map that is stored
    beside the journal."""
    map_version: int
    incarnation: str
    places: Places
    log_directory: str
    """Where each process writes its log; '' for standard error."""
    limits: ShardLimits = field(default_factory=ShardLimits)
    road: RoadSpec = field(default_factory=RoadSpec)

    @property
    def stock_shards(self) -> int:
        """How many shards own stock: the first ones."""
        return stock_shards_of(self.slots_of)


def slots_between(stock_shards: int, account_shards: int) -> tuple[int, ...]:
    """The map of a new cluster: slots dealt out evenly, those of stock first."""
    stock = [slot % stock_shards for slot in range(SLOT_COUNT)]
    accounts = [stock_shards + slot % account_shards for slot in range(ACCOUNT_SLOT_COUNT)]
    return (*stock, *accounts)


def stock_shards_of(slots_of: Sequence[int]) -> int:
    """How many shards of a map own stock."""
    return max(slots_of[:SLOT_COUNT]) + 1


def owned_by(shard: int, slots_of: Sequence[int]) -> frozenset[int]:
    """The slots that a map (slot -> shard) gives to a shard."""
    return frozenset(slot for slot, owner in enumerate(slots_of) if owner == shard)


def replica_name(shard: int, replica: str) -> str:
    """Actor name of a replica."""
    return f"shard-{shard:04d}-{replica}"


def projector_name(index: int) -> str:
    """Actor name of a projector."""
    return f"projector-{index:02d}"


RELAY_NAME = "relay"
"""Actor name of the relay."""


def gateway_name(index: int) -> str:
    """Actor name of a gateway."""
    return f"gateway-{index:02d}"
