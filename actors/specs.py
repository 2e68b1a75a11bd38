"""What a process of the cluster is told when it is made: plain frozen values, nothing else.

They travel as constructor arguments, which Ray keeps to restart the process with.
"""

from dataclasses import dataclass, field

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


def replica_name(shard: int, replica: str) -> str:
    """Actor name of a replica."""
    return f"shard-{shard:04d}-{replica}"


def projector_name(index: int) -> str:
    """Actor name of a projector."""
    return f"projector-{index:02d}"


def gateway_name(index: int) -> str:
    """Actor name of a gateway."""
    return f"gateway-{index:02d}"
