"""Links to replicas, as a cluster's spec wants them: for gateways, and for the relay."""

from collections.abc import Sequence
from typing import Any

from actors import cluster
from actors.links import Link
from actors.ray_link import RayLink
from actors.road_link import RoadLink
from actors.specs import REPLICAS, ClusterSpec, Rounds, replica_name


def links_of(
    spec: ClusterSpec, shard: int, handles: Sequence[Any] = (None, None)
) -> list[tuple[str, Link]]:
    """Links by replica, given the actors' handles; None of one that may not be started yet."""
    return [
        (replica, _link(spec, replica_name(shard, replica), handle))
        for replica, handle in zip(REPLICAS, handles, strict=True)
    ]


def _link(spec: ClusterSpec, name: str, handle: Any) -> Link:
    link = RayLink(handle, lambda: cluster.find(name, spec.namespace))
    return link if spec.road.rounds is Rounds.RAY else RoadLink(link, spec.road, name=name)
