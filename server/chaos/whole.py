"""A whole chaos run: stage, faults and load put together, from nothing to the verdict."""

import asyncio

from actors.nodes import NodeFailed
from persistence.private import ServerFailedError
from server.chaos.load import LoadPlan
from server.chaos.nemesis import Nemesis
from server.chaos.plan import ChaosOptions, plan_faults
from server.chaos.result import ChaosResult
from server.chaos.run import CannotRun, Run, Watcher
from server.chaos.stage import Stage
from server.children import ChildFailed


def run_chaos(options: ChaosOptions, watcher: Watcher) -> ChaosResult:
    """Everything; what it started is gone when it returns. Raises CannotRun, naming the part, when
    the stage does not stand or the load cannot begin."""
    faults = plan_faults(options)
    watcher.say(f"seed {options.seed}: {len(faults)} faults in {options.seconds:.0f} s")
    plan = LoadPlan(seed=options.seed, seconds=options.seconds)
    try:
        with Stage(options, watcher.say) as stage:
            run = Run(stage, plan, planned=len(faults), watcher=watcher)
            result = asyncio.run(run.play(lambda: Nemesis(stage, faults, watcher.say)))
            result.notes.extend(stage.warnings)
    except (ChildFailed, NodeFailed, ServerFailedError) as error:
        raise CannotRun(str(error)) from error
    return result
