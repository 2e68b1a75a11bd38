"""The host of a process's program: its loop, its collector, and how it ends."""

import os
import select
import signal
import subprocess
import sys

PROGRAM = """
import asyncio, gc
from actors import hosting

hosting.STARTED_AFTER_S = 0.05
found = []

def is_left_alone(thing):
    return not any(thing is other for other in gc.get_objects())

async def main():
    early = [{}]
    found.append(type(asyncio.get_running_loop()).__module__)
    found.append(is_left_alone(made_before))
    found.append(is_left_alone(early))
    while not is_left_alone(early):
        await asyncio.sleep(0.01)
    print(*found, flush=True)

made_before = [{}]
hosting.Host("program").start(main)
import threading
threading.Event().wait()
"""


def test_a_program_has_uvloop_no_old_objects_to_collect_and_ends_with_its_process() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.splitlines()[:1] == ["uvloop True False"], run
    assert run.returncode == 70, run


CIRCLES = """
import asyncio, weakref
from actors import hosting

hosting.COLLECT_ALL_EVERY_S = 0.05

class Circle:
    pass

async def main():
    await asyncio.sleep(0)
    circle = Circle()
    circle.itself = circle
    gone = weakref.ref(circle)
    del circle
    while gone() is not None:
        await asyncio.sleep(0.01)
    print("collected", flush=True)

hosting.Host("program").start(main)
import threading
threading.Event().wait()
"""


def test_a_few_circles_are_collected_without_a_hundred_thousand_more() -> None:
    """Found by a soak: until its young objects were counted a gateway grew by 45 kB a second."""
    run = subprocess.run(
        [sys.executable, "-c", CIRCLES], check=False, capture_output=True, text=True, timeout=30
    )
    assert run.stdout.splitlines()[:1] == ["collected"], run


CHILD = """
import asyncio, os, threading
from actors import hosting

async def main():
    print(os.getpid(), flush=True)
    await asyncio.Event().wait()

hosting.Host("program").start(main)
threading.Event().wait()
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}])
"""


def test_a_program_ends_when_its_node_was_killed_and_nobody_else_ends_it() -> None:
    """After a node was cut off from the global control service, which had been restarted before, a
    primary lived on as nobody's child, beside the two standbys that Ray had started."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        # The child holds the pipe open for as long as it lives.
        said, _, _ = select.select([parent.stdout], [], [], 20)
        if not said:
            os.kill(child, signal.SIGKILL)
        assert "process_ends" in parent.stdout.read()
