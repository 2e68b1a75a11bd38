"""Tidiness as a test: sizes, names, imports and the lock. What ruff and mypy cannot say.

Generated code (`*_pb2*`) is left out everywhere.
"""

import ast
import importlib
import re
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    "actors",
    "server",
    "persistence",
    "wire",
    "clients/stockray",
    "clients/pytest_stockray",
    "protos/stockray_proto",
]
OWN_DISTRIBUTIONS = {"stockray", "stockray-proto", "stockray-server"}
FILE_LINES_MAX = 520
FUNCTION_LINES_MAX = 60
EMPTY_WORDS = {"utils", "util", "common", "base", "helpers", "helper", "manager", "misc"}
READS_THE_ENVIRONMENT = {
    "server/settings.py",
    "server/testing_host.py",
    "actors/__init__.py",
    "actors/cluster.py",
    # These hand it on to processes that they start, or look for a program.
    "actors/nodes.py",
    "server/children.py",
    "server/chaos/clock.py",
    "server/chaos/network.py",
}
UNFINISHED = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b")

LARGER: dict[str, str] = {
    "actors/core/reservations.py::reserve": "the hot path: a call costs what a rule costs, and "
    "half of its lines are the fields of one record",
    "server/cli.py::serve": "half of it is the declaration of its flags",
}
"""File, or file::function, that may be larger, and why. One that has become small again fails."""


def files_below(rooms: list[str]) -> list[Path]:
    """Python files that people wrote."""
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in found if "_pb2" not in path.name]


def name_of(path: Path) -> str:
    """As `git ls-files` writes it."""
    return path.relative_to(ROOT).as_posix()


SOURCE = files_below(ROOMS)
TESTS = files_below(["tests"])


def sizes() -> dict[str, tuple[int, int]]:
    """File or function -> (lines, most that it may have)."""
    found = {}
    for path in SOURCE + TESTS:
        text = path.read_text(encoding="utf-8")
        found[name_of(path)] = (len(text.splitlines()), FILE_LINES_MAX)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                found[f"{name_of(path)}::{node.name}"] = (lines, FUNCTION_LINES_MAX)
    return found


def test_files_and_functions_are_small() -> None:
    too_large = {name: lines for name, (lines, most) in sizes().items() if lines > most}
    assert too_large.keys() == LARGER.keys(), too_large


def test_every_file_says_what_it_is() -> None:
    silent = []
    for path in SOURCE + TESTS:
        text = path.read_text(encoding="utf-8")
        if text.strip() and not ast.get_docstring(ast.parse(text)):
            silent.append(name_of(path))
    assert not silent


def test_no_file_is_named_after_nothing() -> None:
    """A room is known by what it holds."""
    named = [
        name_of(path)
        for path in SOURCE
        if EMPTY_WORDS & set(path.relative_to(ROOT).with_suffix("").as_posix().split("/"))
        or path.stem.strip("_") in EMPTY_WORDS
    ]
    assert not named


def test_settings_are_read_in_one_place() -> None:
    """The client's commands leave their variables to typer (`envvar=`)."""
    reading = set()
    for path in SOURCE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "getenv" | "putenv"):
                    reading.add(name_of(path))
                case ast.ImportFrom(module="os", names=names) if {"environ", "getenv"} & {
                    name.name for name in names
                }:
                    reading.add(name_of(path))
    assert reading == READS_THE_ENVIRONMENT


def test_nothing_is_left_to_do() -> None:
    left = [
        f"{name_of(path)}:{number}"
        for path in SOURCE + TESTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert not left


@pytest.mark.parametrize("name", [Path(room).name for room in ROOMS])
def test_no_installed_distribution_has_a_package_of_our_names(name: str) -> None:
    """Literal names such as `server` could be taken by somebody else's package."""
    module = importlib.import_module(name)
    assert Path(module.__file__ or "").is_relative_to(ROOT)
    assert set(packages_distributions().get(name, [])) <= OWN_DISTRIBUTIONS


def test_the_lock_names_no_package_index() -> None:
    """Versions and hashes only, so that it works behind any mirror."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if re.match(r"[a-z0-9]", line)]
    assert packages
    assert not [line for line in lines if "://" in line or line.startswith("-")]
    assert all("==" in line for line in packages)
