"""What other languages need: which tools are here, and what tools/interop.sh made with them.

A toolchain that is missing skips its tests with a loud reason, also when CI is set: not every
machine has four languages. One that is here must build, and its cases must pass.
"""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/interop"
TOOLS: Mapping[str, tuple[str, ...]] = {
    "python": (),
    "go": ("go",),
    "js": ("node", "npm"),
    "java": ("java", "javac", "mvn"),
}
"""Language -> the commands that its clients need."""
BUILD_TIMEOUT_S = 600


def missing_tools(language: str) -> list[str]:
    """The commands that a language needs and that are not here."""
    return [tool for tool in TOOLS[language] if shutil.which(tool) is None]


def require_language(language: str) -> None:
    """Build the clients of a language, once; skip when its tools are not here."""
    if missing := missing_tools(language):
        pytest.skip(f"NOT RUN: {', '.join(missing)} not installed, so no {language} client")
    if TOOLS[language]:
        _build(language)


@functools.cache
def _build(language: str) -> None:
    built = subprocess.run(
        [ROOT / "tools/interop.sh", language],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if built.returncode != 0:
        pytest.fail(f"tools/interop.sh {language} failed:\n{built.stderr[-4000:]}", pytrace=False)


def binary(name: str) -> str:
    """A program that the Go build made."""
    return str(CACHE / "bin" / name)


def java(main: str) -> list[str]:
    """The command that runs a Java class."""
    classpath = (CACHE / "java/classpath").read_text().strip()
    # One collector thread and small heaps: many of these share the machine with the service.
    return [
        "java",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-cp",
        f"{CACHE}/java/classes:{classpath}",
        main,
    ]


def node(script: str) -> list[str]:
    """The command that runs a script; the environment needs `NODE_PATH`."""
    return ["node", str(ROOT / "tests/interop/js" / script)]


NODE_PATH = str(CACHE / "js/node_modules")


def python_module(name: str) -> list[str]:
    """The command that runs a module of this package."""
    return [sys.executable, "-m", f"tests.interop.{name}"]


def json_lines(text: str) -> list[dict[str, Any]]:
    """One object a line."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]
