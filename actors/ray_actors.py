"""Plain classes as Ray actors: every Ray option in one place, nothing else.

`max_restarts=-1`: Ray starts a process again for ever; `max_task_retries=0`: Ray never repeats a
call, since retries belong to the gateway, with the caller's ids. Detached and named, so that no
driver's death takes them along. Control calls have threads of their own, so that a full round queue
does not silence `promote`.
"""

import inspect
from typing import Any

import ray

from actors.specs import ClusterSpec

OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    "max_restarts": -1,
    "max_task_retries": 0,
    "lifetime": "detached",
    "enable_task_events": False,
}
PLACED_CPUS = 0.001
"""Of an actor that has its node: without any resources Ray now and then starts it on another one,
the head included, though its node is there."""
ROUND_THREADS = 16
CONTROL_THREADS = 8


def make_actor(
    plain: type,
    name: str,
    spec: ClusterSpec,
    node_id: str | None,
    *arguments: Any,
    fixed: bool = False,
) -> Any:
    """Start `plain(spec, *arguments)` as a named actor, on a node if it is given and alive; if
    `fixed`, on that one or nowhere."""
    options = dict(OPTIONS)
    if node_id is not None:
        options["num_cpus"] = 0 if fixed else PLACED_CPUS
        options["scheduling_strategy"] = (
            ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=not fixed)
        )
    groups: Any = {"concurrency_groups": {"control": CONTROL_THREADS}}
    remote: Any = ray.remote
    if any(inspect.iscoroutinefunction(member) for member in vars(plain).values()):
        raise TypeError(f"{plain.__name__}: a coroutine method would make it an asyncio actor")
    decorated = remote(max_concurrency=ROUND_THREADS, **groups)(_with_control_group(plain))
    return decorated.options(name=name, namespace=spec.namespace, **options).remote(
        spec, *arguments
    )


def _with_control_group(plain: type) -> type:
    """A subclass whose methods, all but `round`, run in the control threads."""
    members: dict[str, Any] = {"__doc__": plain.__doc__}
    for name, method in vars(plain).items():
        if callable(method) and not name.startswith("_") and name != "round":
            members[name] = _method(concurrency_group="control")(_forward(plain, name))
    return type(plain.__name__, (plain,), members)


_method: Any = ray.method


def _forward(plain: type, name: str) -> Any:
    def method(self: Any, *arguments: Any) -> Any:
        return getattr(plain, name)(self, *arguments)

    method.__name__ = name
    return method
