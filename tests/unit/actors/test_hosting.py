"""The host of a process's program: its loop, its collector, and how it ends."""

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
