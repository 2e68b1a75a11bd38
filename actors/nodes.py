"""Several Ray nodes on one machine, each a family of processes of its own, to try faults on.

Each node is started by `actors/node_program.py` in a child process, as Ray's own `cluster_utils`
starts one, but so that it can have a network namespace and an environment of its own, and so that
nothing of it outlives us: a child whose standard input ends kills its node.

The head keeps its tables on disk (RocksDB), so that the global control service, or the whole head,
can be killed and started again on the same port. Nodes notice each other's death in some three
seconds instead of a minute.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from actors.cluster import RAY_ENVIRONMENT
from actors.node_program import RESTART_GCS

START_TIMEOUT_S = 100.0
END_TIMEOUT_S = 15.0

NODE_ENVIRONMENT = {
    **RAY_ENVIRONMENT,
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # Ray takes a preloaded library away from its workers unless told not to.
    "RAY_LD_PRELOAD_ON_WORKERS": "1",
}


class NodeFailed(Exception):
    """A node did not start or did not do as told; carries the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """Where a node runs."""

    name: str
    address: str
    """IP address that it listens on and is known by."""
    cpus: int
    """0 for a head that is to be free of shards."""
    port: int = 0
    """Of its raylet; 0: any."""
    enter: tuple[str, ...] = ()
    """Words before a command that run it in the node's namespaces."""
    environment: Mapping[str, str] = field(default_factory=dict)


class RayNode:
    """One node. It can be started again after its processes were killed, under a new id."""

    def __init__(self, place: NodePlace, directory: Path) -> None:
        """`directory` is Ray's, one for all nodes, and short: its sockets are in it."""
        self.place = place
        self.gcs_address = ""
        self._directory = directory
        self._log_path = directory / f"{place.name}.log"
        self._process: subprocess.Popen[str] | None = None
        self._pids: dict[str, list[int]] = {}

    @property
    def pid(self) -> int:
        """Of the process that all others of the node descend from. NodeFailed if not started."""
        if self._process is None:
            raise NodeFailed(f"{self.place.name} was not started")
        return self._process.pid

    @property
    def raylet_pid(self) -> int:
        """The raylet's, as of the last start."""
        return self._pid_of("raylet")

    @property
    def gcs_pid(self) -> int:
        """The global control service's, of a head."""
        return self._pid_of("gcs_server")

    @property
    def running(self) -> bool:
        """Whether its first process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, gcs_address: str = "", gcs_port: int = 0) -> None:
        """Start it: as the head on `gcs_port`, or as a node of the head at `gcs_address`. Returns
        when the head knows it. NodeFailed."""
        if self._process is not None:
            self._process.wait(END_TIMEOUT_S)
        wanted = {
            "address": self.place.address,
            "cpus": self.place.cpus,
            "port": self.place.port,
            "temp_dir": str(self._directory),
            "gcs_address": gcs_address,
            "gcs_port": gcs_port,
        }
        environment = {**os.environ, **NODE_ENVIRONMENT, **self.place.environment}
        if not gcs_address:
            environment["RAY_gcs_storage"] = "rocksdb"
            environment["RAY_gcs_storage_path"] = str(self._directory / "gcs")
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.place.enter,
                    *(sys.executable, "-m", "actors.node_program", json.dumps(wanted)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        self._hear()

    def restart_gcs(self) -> None:
        """Start a head's global control service again, after it was killed. NodeFailed."""
        process = self._process
        if process is None or process.stdin is None:
            raise NodeFailed(f"{self.place.name} was not started")
        process.stdin.write(f"{RESTART_GCS}\n")
        process.stdin.flush()
        self._hear()

    def close(self) -> None:
        """End the node. Idempotent; a node that does not end in time is left to the caller, who
        knows the family of `pid`."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)

    def _hear(self) -> None:
        """The line that the program prints when it has done what it was told."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        line = process.stdout.readline() if readable else ""
        if not line:
            raise NodeFailed(f"{self.place.name} did not start:\n{self._log_tail()}")
        told: dict[str, Any] = json.loads(line)
        self.gcs_address = told["gcs_address"]
        self._pids = told["pids"]

    def _pid_of(self, kind: str) -> int:
        try:
            return self._pids[kind][0]
        except (KeyError, IndexError):
            raise NodeFailed(f"{self.place.name} has no {kind}") from None

    def _log_tail(self) -> str:
        return self._log_path.read_text(errors="replace")[-2_000:]


def machine_address() -> str:
    """The address by which Ray knows this machine: it takes loopback for that one, too."""
    address_of: Any = ray.util.get_node_ip_address
    return str(address_of())


def free_port(address: str) -> int:
    """A TCP port that nobody listens on at an address of this machine."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
