"""The documents are true: what they name is in the code, and what operators need is in them.

Documents are read as text. Settings and events stand between `<!-- name -->` and `<!-- /name -->`.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stockray
import typer.main
from stockray.cli._app import build

from server import cli
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "clients/README.md",
    "protos/README.md",
    "docs/architecture.md",
    "docs/front.md",
    "docs/glossary.md",
    "docs/measuring.md",
    "docs/operating.md",
    "docs/recovery.md",
    "docs/style.md",
]
NOT_IN_THE_TREE = {"uv.lock", "stockray.toml"}
"""Files that a document speaks of, and that the repository does not hold."""
SOURCES = ["actors", "server", "persistence", "wire"]
LEVELS = {"info": "info", "warning": "warning", "error": "error", "exception": "error"}


def text_of(document: str) -> str:
    """A document's text."""
    return (ROOT / document).read_text(encoding="utf-8")


def between(document: str, name: str) -> list[list[str]]:
    """The cells of the table between the two marks, without its head."""
    found = re.search(f"<!-- {name} -->\n(.*?)<!-- /{name} -->", text_of(document), re.DOTALL)
    assert found, f"{document} has no <!-- {name} -->"
    lines = found[1].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def code_of(document: str) -> list[str]:
    """What a document shows as code: between backticks, and the lines of fenced blocks."""
    text = text_of(document)
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in fenced for line in block.splitlines()]
    return re.findall(r"`([^`\n]+)`", rest) + lines


def logged_events() -> Iterator[tuple[str, str]]:
    """(event, level) of each line that the source logs."""
    for room in SOURCES:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="log"), attr=method),
                        args=[ast.Constant(value=str(event)), *_],
                    ) if method in LEVELS:
                        yield event, LEVELS[method]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document: str) -> None:
    """In backticks: paths from the root, from the document's folder, or from a distribution's."""
    starts = [ROOT, (ROOT / document).parent, ROOT / "protos", ROOT / "clients"]
    missing = []
    for code in code_of(document):
        if not re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", code) or code in NOT_IN_THE_TREE:
            continue
        is_path = "/" in code and any((start / code.split("/")[0]).is_dir() for start in starts)
        is_file = code.endswith((".md", ".lock", ".toml", ".proto"))
        if (is_path or is_file) and not any(path for s in starts for path in s.glob(code)):
            missing.append(code)
    assert not missing


def test_the_map_names_every_folder() -> None:
    mapped = set(re.findall(r"`([\w/]+)/`", text_of("README.md")))
    kept = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not path.name.startswith(".") and any(path.glob("**/*.*"))
    }
    kept -= {"build", "dist", "stockray-data"}
    assert kept <= mapped


def test_the_readme_fits_on_two_screens() -> None:
    assert len(text_of("README.md").splitlines()) <= 120


def test_operating_lists_every_setting_as_it_is() -> None:
    """Name, default and meaning are those of the code; so is whether `serve` has a flag for it."""
    flags = inspect.signature(cli.serve).parameters
    expected = [
        [
            f"`{name}`",
            f"`--{name.replace('_', '-')}`" if name in flags else "",
            shown_default(field.default),
            field.description or "",
        ]
        for name, field in Settings.model_fields.items()
    ]
    assert between("docs/operating.md", "settings") == expected


def shown_default(value: Any) -> str:
    """A default as the table writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else str(value) or "empty"


def test_operating_explains_every_event_of_the_logs() -> None:
    explained = {
        (event.strip("`"), level) for event, level, *_ in between("docs/operating.md", "events")
    }
    assert explained == set(logged_events())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_that_a_document_names_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    named = {found[1] for code in code_of(document) if (found := re.match(r"make ([a-z-]+)", code))}
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_that_a_document_names_exists(document: str) -> None:
    """`stockray shards promote --flag`: each word, and each flag, is one of the command line."""
    wrong = []
    for code in code_of(document):
        if found := re.search(r"(?:^|[/=])stockray ([a-z].*)", code):
            command: Any = typer.main.get_command(build())
            for word in found[1].split():
                if word.startswith("--"):
                    known = {option for p in command.params for option in p.opts}
                    if word not in known:
                        wrong.append(f"{code}: {word}")
                elif word in getattr(command, "commands", {}):
                    command = command.commands[word]
                elif hasattr(command, "commands"):
                    wrong.append(f"{code}: {word}")
                    break
    assert not wrong


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_a_document_names_exists(document: str) -> None:
    named = {code for code in code_of(document) if re.fullmatch(r"test_\w+", code)}
    tests = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py"))
    assert not {name for name in named if f"def {name}(" not in tests}


@pytest.mark.parametrize("document", ["README.md", "clients/README.md"])
def test_the_example_uses_the_client_as_it_is(document: str) -> None:
    """Names of the package exist, and each verb takes the arguments that it is given."""
    examples = re.findall(r"^```python\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)
    assert examples
    verbs = 0
    for example in examples:
        compile(example, document, "exec")
        for node in ast.walk(ast.parse(example)):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="client"), attr=verb)):
                    verbs += 1
                    bind(getattr(stockray.AsyncClient, verb), node, of_instance=True)
                case ast.Call(func=ast.Attribute(value=ast.Name(id="stockray"), attr=name)):
                    bind(getattr(stockray, name), node)
                case ast.Attribute(value=ast.Name(id="stockray"), attr=name):
                    assert hasattr(stockray, name)
    assert verbs


def bind(function: Any, call: ast.Call, *, of_instance: bool = False) -> None:
    """TypeError when `function` cannot be called with these arguments."""
    arguments = [None] * (len(call.args) + of_instance)
    inspect.signature(function).bind(*arguments, **{k.arg: None for k in call.keywords if k.arg})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_no_machine(document: str) -> None:
    """No home directory, build folder or package index of whoever wrote it."""
    found = re.findall(r"/(?:work|root|home)/\S*|\bpypi\b\S*|\S*simple/", text_of(document))
    assert not found
