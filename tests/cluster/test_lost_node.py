"""`stockray serve` beside a Ray node that died: nobody would ever start its gateways again."""

import os
import signal
from pathlib import Path

import pytest

from server.children import ServeChild, alive, descendants
from tests.helpers.stack import ended, stockray, within


def command_of(pid: int) -> str:
    """The program and arguments of a process; '' of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.extended
async def test_a_service_whose_ray_node_died_ends_and_serves_when_started_again(
    tmp_path: Path,
) -> None:
    """As a shell without gateways it would look alive to whoever watches over it."""
    arguments = ["--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    with ServeChild(arguments, log=tmp_path / "serve.log") as child:
        child.wait_ready()
        family = descendants(child.pid)
        [raylet] = [pid for pid in family if "raylet/raylet " in command_of(pid)]
        os.kill(raylet, signal.SIGKILL)
        assert await within(30, lambda: child.exit_code is not None)
        assert child.exit_code == 1
        assert "start `stockray serve` again" in " ".join(child.log_tail().split())
        for pid in family:
            assert await ended(pid, timeout_s=30), command_of(pid)
    with ServeChild(arguments, log=tmp_path / "serve.log") as again:
        again.wait_ready()
        assert alive(again.pid)
        status = stockray("status", "--address", again.listen)
        assert status.returncode in (0, 3), status.stderr
        assert again.terminate() == 0
