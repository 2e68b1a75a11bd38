"""Starting, finding and stopping a cluster's processes. The only `ray.init`.

Ray places, starts, restarts and names the actors; who is primary is decided in the journal, not
here. A pair of replicas is never on one node when there are two, as far as Ray allows at the start.
"""

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import structlog

from actors.projector_process import ProjectorProcess
from actors.ray_actors import make_actor
from actors.shard_process import ShardProcess
from actors.specs import REPLICAS, ClusterSpec, projector_name, replica_name

log = structlog.get_logger()

# GCS keeps task events for ever at these rates, and a driver that loses GCS for a minute would be
# ended by Ray: both are decided here, for every process that Ray starts for us.
RAY_ENVIRONMENT = {
    "RAY_task_events_report_interval_ms": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_AUTH_MODE": "disabled",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_usage_stats_enabled": "0",
    # Ray runs workers at niceness 15, so that anything else on the machine goes first. A shard that
    # waits for a core keeps all its callers waiting.
    "RAY_worker_niceness": "0",
    "RAY_DEDUP_LOGS": "0",
}


LISTENING = 0x10000
"""`__SO_ACCEPTCON`, in the flags of /proc/net/unix."""

CANNOT_START = (ConnectionError, RuntimeError, ValueError, TimeoutError)
"""What `ray.init` raises when it finds no cluster, or one it does not like."""

_local_directories: list[str] = []
"""Where a local Ray that this process started keeps its sockets and logs; gone with it."""


class ClusterError(Exception):
    """The cluster cannot be started or reached. Says what to do."""


def connect(address: str, *, namespace: str) -> None:
    """Start a local Ray ("local") or join the one at `address`. ClusterError if neither works.

    A local one belongs to this process and ends with it."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {}
    if address == "local":
        # Ray's sockets have 107 bytes for their path: the directory must be a short one.
        directory = tempfile.mkdtemp(prefix="sr-")
        _local_directories.append(directory)
        options = {
            "include_dashboard": False,
            "num_cpus": 4,
            "object_store_memory": 100_000_000,
            "_temp_dir": directory,
        }
    try:
        ray.init(
            address=address,
            namespace=namespace,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **options,
        )
    except Exception as error:
        # A node that was slow to start is a bare Exception of Ray's.
        if type(error) is not Exception and not isinstance(error, CANNOT_START):
            raise
        raise ClusterError(f"ray_address: cannot use {address!r}: {error}") from error


def node_socket() -> str:
    """The socket of this machine's Ray node; '' where the system does not list sockets."""
    worker: Any = ray._private.worker  # The only place where Ray tells it.
    path = str(worker._global_node.raylet_socket_name)
    return path if listens(path) else ""


def listens(path: str) -> bool:
    """Whether a process of this machine listens on a Unix socket. Asks the system's list, not the
    process: a stopped one counts."""
    try:
        lines = Path("/proc/net/unix").read_text().splitlines()
    except OSError:
        return False
    sockets = (line.split(maxsplit=7) for line in lines[1:])
    return any(
        fields[-1] == path and int(fields[3], 16) & LISTENING
        for fields in sockets
        if len(fields) == 8  # others have no path
    )


def disconnect() -> None:
    """Leave Ray; a local one ends. Idempotent."""
    ray.shutdown()
    remove_directories()


def remove_directories() -> None:
    """What a local Ray kept on disk. Idempotent."""
    while _local_directories:
        shutil.rmtree(_local_directories.pop(), ignore_errors=True)


def clear(spec: ClusterSpec) -> int:
    """End what an earlier server of this namespace left on a Ray that it had joined: detached
    actors outlive a server that was killed. Safe at any time, since the journal fences whoever
    still writes. Answers how many there were."""
    left = [
        name["name"]
        for name in ray.util.list_named_actors(all_namespaces=True)
        if name["namespace"] == spec.namespace
    ]
    for name in left:
        try:
            kill(ray.get_actor(name, namespace=spec.namespace))
        except ValueError:
            continue
    return len(left)


def start_shards(
    spec: ClusterSpec, shards: Sequence[int], replicas: Sequence[str] = REPLICAS
) -> list[list[Any]]:
    """Start replicas of these shards; answers their handles by shard. They recover by themselves;
    who asks first makes one of them primary. The two of a pair are on two nodes, if there are."""
    nodes = worker_nodes()
    return [
        [
            start_replica(
                spec,
                shard,
                replica,
                nodes[(shard + REPLICAS.index(replica)) % len(nodes)] if len(nodes) > 1 else None,
            )
            for replica in replicas
        ]
        for shard in shards
    ]


def start_replica(spec: ClusterSpec, shard: int, replica: str, node_id: str | None) -> Any:
    """Start one replica, on a node if it is given and alive; answers its handle."""
    name = replica_name(shard, replica)
    return make_actor(ShardProcess, name, spec, node_id, shard, replica)


def restart_replica(
    spec: ClusterSpec, shard: int, replica: str, node_id: str, *, timeout_s: float
) -> Any:
    """The same for one that was just killed: its name is free only when Ray has taken note of
    that. ClusterError if it does not become so."""
    made: list[Any] = []

    def start() -> bool:
        try:
            made.append(start_replica(spec, shard, replica, node_id))
        except ValueError as error:  # The name is taken.
            raise ClusterError(str(error)) from error
        return True

    wait_until(start, timeout_s=timeout_s, what=f"the end of {replica_name(shard, replica)}")
    return made[0]


def start_projectors(spec: ClusterSpec) -> list[Any]:
    """Start write-behind: one process for all shards of a small cluster, one for eight of a big."""
    shards = range(spec.shards)
    groups = [tuple(shards[start : start + 8]) for start in range(0, spec.shards, 8)]
    return [
        make_actor(ProjectorProcess, projector_name(index), spec, None, index, group)
        for index, group in enumerate(groups)
    ]


def start_anywhere(plain: type, name: str, spec: ClusterSpec, *arguments: Any) -> Any:
    """Start a plain class of ours as an actor, on any node, and on another one if that dies."""
    return make_actor(plain, name, spec, None, *arguments)


def start_process(plain: type, name: str, spec: ClusterSpec, *arguments: Any) -> Any:
    """Start any other plain class of ours as an actor (gateways), on the node of this process and
    on no other: the address that it listens at is one of this machine."""
    here = ray.get_runtime_context().get_node_id()
    return make_actor(plain, name, spec, here, *arguments, fixed=True)


def find_stock_shards(spec: ClusterSpec) -> list[list[Any]]:
    """Handles of the replicas of stock shards, by shard."""
    return [
        [ray.get_actor(replica_name(shard, r), namespace=spec.namespace) for r in REPLICAS]
        for shard in range(spec.stock_shards)
    ]


def find(name: str, namespace: str) -> Any:
    """A handle by actor name. ClusterError if there is none."""
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError as error:
        raise ClusterError(f"no actor {name!r} in {namespace!r}") from error


def call(reference: Any, timeout_s: float) -> Any:
    """The result of a control call. ClusterError when it does not come."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise ClusterError(_told(error)) from error


async def awaited(reference: Any) -> Any:
    """The result of a control call, on an event loop. ClusterError when the process is gone."""
    try:
        return await asyncio.wrap_future(reference.future())
    except ray.exceptions.RayError as error:
        raise ClusterError(_told(error)) from error


def wait_until(question: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Ask every 50 ms until the answer is yes. A question that fails counts as a no: processes
    that start may still be restarted. ClusterError, naming `what`, when it never is."""
    deadline = time.monotonic() + timeout_s
    trouble = ""
    while True:
        try:
            if question():
                return
        except ClusterError as error:
            trouble = f"; last: {error}"
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {timeout_s:.0f} s for {what}{trouble}")
        time.sleep(0.05)


def kill(handle: Any) -> None:
    """End an actor for good (at shutdown)."""
    ray.kill(handle, no_restart=True)


def worker_nodes() -> Sequence[str]:
    """Nodes that may hold shards: alive, and not a head kept free of work (no CPUs)."""
    list_nodes: Any = ray.nodes
    alive = [node for node in list_nodes() if node["Alive"]]
    workers = [node["NodeID"] for node in alive if node["Resources"].get("CPU", 0) > 0]
    return sorted(workers) or [node["NodeID"] for node in alive]


def _told(error: Exception) -> str:
    """Ray's errors are a page each: what failed, and why, stand in the first and last lines."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
