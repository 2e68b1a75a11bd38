"""One Ray node in a process of its own: the program behind `actors/nodes.py`.

It starts a node as Ray's `cluster_utils` does, says so in one line of JSON, and then follows the
lines of its standard input. When that ends, whoever started it is gone, and so is the node. It also
collects its dead children: a raylet that nobody waited for looks alive to its workers.
"""

import json
import os
import select
import sys
from typing import Any

from ray._private.node import Node
from ray._private.parameter import RayParams

LOOK_EVERY_S = 0.1
OBJECT_STORE_BYTES = 80_000_000
"""Ray's smallest is 75 MB; we keep nothing in it."""
RESTART_GCS = "restart-gcs"


def main() -> None:
    """Arguments: one JSON object with address, port, cpus, temp_dir, gcs_address and gcs_port."""
    wanted = json.loads(sys.argv[1])
    head = not wanted["gcs_address"]
    parameters: dict[str, Any] = {
        "node_ip_address": wanted["address"],
        "num_cpus": wanted["cpus"],
        "node_manager_port": wanted["port"],
        "num_gpus": 0,
        "object_store_memory": OBJECT_STORE_BYTES,
        "min_worker_port": 0,
        "max_worker_port": 0,
        "temp_dir": wanted["temp_dir"],
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,
        "dashboard_agent_listen_port": 0,
    }
    key = "gcs_server_port" if head else "gcs_address"
    parameters[key] = wanted["gcs_port" if head else "gcs_address"]
    node: Any = Node(RayParams(**parameters), head=head, shutdown_at_exit=True, spawn_reaper=False)
    try:
        _tell(node)
        _follow(node)
    finally:
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        # Ray's own leave-taking would ask the head, which may be gone, for minutes.
        os._exit(0)


def _tell(node: Any) -> None:
    pids = {kind: [p.process.pid for p in found] for kind, found in node.all_processes.items()}
    told = {"gcs_address": node.gcs_address, "pids": pids}
    print(json.dumps(told), flush=True)


def _follow(node: Any) -> None:
    while True:
        for processes in list(node.all_processes.values()):
            for process in processes:
                process.process.poll()
        # A raylet that heard that the head takes it for dead has ended itself, and all its workers.
        if any(raylet.process.poll() is not None for raylet in node.all_processes["raylet"]):
            return
        readable, _, _ = select.select([0], [], [], LOOK_EVERY_S)
        if not readable:
            continue
        word = os.read(0, 1_000).decode().strip()
        if not word:
            return
        if word == RESTART_GCS:
            node.kill_gcs_server(check_alive=False)
            node.start_gcs_server()
            node.get_gcs_client()
            _tell(node)


if __name__ == "__main__":
    main()
