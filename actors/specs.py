"""What a process of the cluster is told when it is made: plain frozen values, nothing else.

They travel as constructor arguments, which Ray keeps to restart the process with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from actors.limits import ShardLimits

SINK_READER = "sink"
"""Name under which write-behind keeps its position in the journal."""

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
    slots_of: tuple[int, ...]
    """Shard of each of the 1,024 slots, as in the map that is stored beside the journal."""
    map_version: int
    incarnation: str
    places: Places
    log_directory: str
    """Where each process writes its log; '' for standard error."""
    limits: ShardLimits = field(default_factory=ShardLimits)
    road: RoadSpec = field(default_factory=RoadSpec)


def owned_by(shard: int, slots_of: Sequence[int]) -> frozenset[int]:
    """The slots that a map (slot -> shard) gives to a shard."""
    return frozenset(slot for slot, owner in enumerate(slots_of) if owner == shard)


def replica_name(shard: int, replica: str) -> str:
    """Actor name of a replica."""
    return f"shard-{shard:04d}-{replica}"


def projector_name(index: int) -> str:
    """Actor name of a projector."""
    return f"projector-{index:02d}"


def gateway_name(index: int) -> str:
    """Actor name of a gateway."""
    return f"gateway-{index:02d}"
