"""What Ray's global control service has in its tables: a program that counts when it is asked.

`python -m actors.census host:port` counts at each line that it reads, and answers with one line of
JSON: {"actors": 5, "workers": 7, "nodes": 1, "jobs": 1, "task_events": 0}. It ends with its input.

It is a process of its own because it has to import Ray, whose memory and threads are no business of
whoever wants to know.
"""

import importlib
import json
import sys
from typing import Any

TABLES = ("actors", "workers", "nodes", "jobs", "task_events")
"""What is counted."""


def main() -> None:
    """The program; the argument is the control service's address."""
    raylet: Any = importlib.import_module("ray._raylet")
    options = raylet.GcsClientOptions.create(
        sys.argv[1], None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
    )
    accessor = raylet.GlobalStateAccessor(options)
    if not accessor.connect():
        raise SystemExit(f"no control service at {sys.argv[1]}")
    for _ in sys.stdin:
        counted = (
            len(accessor.get_actor_table(None, None)),
            len(accessor.get_worker_table()),
            len(accessor.get_node_table()),
            len(accessor.get_job_table()),
            len(accessor.get_task_events()),
        )
        print(json.dumps(dict(zip(TABLES, counted, strict=True))), flush=True)


if __name__ == "__main__":
    main()
