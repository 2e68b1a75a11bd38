"""The client installs alone: from the tree into a fresh environment, without the service's needs.

Needs a package index for grpcio and protobuf. Where none answers the test skips with a loud reason,
and fails in CI.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.client.scripted import ScriptedServer

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("ray", "sqlalchemy", "redis", "pydantic_settings", "server", "actors", "persistence")
PROGRAM = f"""
import importlib.metadata, importlib.util, sys
import stockray
assert "site-packages" in stockray.__file__, stockray.__file__
found = [name for name in {ABSENT!r} if importlib.util.find_spec(name)]
assert not found, found
assert "site-packages" in importlib.util.find_spec("pytest_stockray").origin
from stockray.testing import ServiceMissing, start_local
try:
    start_local().start()
except ServiceMissing as error:
    assert "pip install stockray-server" in str(error), error
else:
    raise AssertionError("there is no service to start")
with stockray.Client(sys.argv[1]) as client:
    answer = client.grab("double-11", "sku-1001", buyer_id="u-7", quantity=1)
    assert answer.ok, answer
    paid = client.confirm(answer.reservation_id, payment_id="p-1", paid_minor=9900)
    paid.raise_for_status()
print("installed", importlib.metadata.version("stockray"), answer.reservation_id)
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
        env=environment,
    )


def install(python: Path, environment: Path) -> subprocess.CompletedProcess[str]:
    """Installs wire types and client by uv, or by pip where there is no uv."""
    what = (ROOT / "protos", ROOT / "clients")
    uv = shutil.which("uv")
    if uv is not None:
        run(uv, "venv", "--quiet", "--python", sys.executable, environment)
        return run(uv, "pip", "install", "--quiet", "--python", python, *what)
    run(sys.executable, "-m", "venv", environment)
    return run(python, "-m", "pip", "install", "--quiet", *what)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment = tmp_path_factory.mktemp("fresh") / "venv"
    python = environment / "bin" / "python"
    installed = install(python, environment)
    if installed.returncode != 0:
        reason = f"THE CLIENT COULD NOT BE INSTALLED: {installed.stderr.strip()[-600:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python


async def test_the_installed_client_makes_a_sale_without_the_service(
    fresh_python: Path, server: ScriptedServer
) -> None:
    done = await asyncio.to_thread(run, fresh_python, "-c", PROGRAM, server.address)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("installed ")
    assert len(server.calls["ConfirmMany"]) == 1


def test_the_command_without_its_extra_says_what_to_install(fresh_python: Path) -> None:
    done = run(fresh_python.parent / "stockray", "status")

    assert (done.returncode, done.stdout) == (2, "")
    assert "stockray[cli]" in done.stderr
