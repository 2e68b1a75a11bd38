"""What every command over gRPC shares: its options, its client and its exit code.

A command is a function `(client, show, **own options)`; `over_grpc` gives it `--address`, `-o`,
`--token`, `--timeout-ms` and the TLS roots, opens the client, and turns what happens into an exit
code. A command returns an exit code of its own, or None for 0.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from stockray.cli._output import Format, Show
from stockray.enums import Status
from stockray.errors import DeadlineExceeded, InvalidRequest, StockrayError, Unavailable
from stockray.options import OptionChanges
from stockray.results import Answer, ConfirmResult, ReleaseResult, ReserveResult
from stockray.sync import Client

OK, FAILED, USAGE, DEGRADED, UNREACHABLE = range(5)

Address = Annotated[
    str, typer.Option("--address", envvar="STOCKRAY_ADDRESS", help="Gateway to ask, host:port.")
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="STOCKRAY_TOKEN", help="Bearer token.")
]
TimeoutMs = Annotated[
    int, typer.Option("--timeout-ms", min=1, max=600_000, help="Time for the command.")
]
TlsCa = Annotated[
    Path | None,
    typer.Option("--tls-ca", envvar="STOCKRAY_TLS_CA", help="Roots to trust, PEM; uses TLS."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]

SHARED: dict[str, tuple[Any, Any]] = {
    "address": (Address, "127.0.0.1:7443"),
    "output": (Output, Format.TABLE),
    "token": (Token, None),
    "timeout_ms": (TimeoutMs, 5_000),
    "tls_ca": (TlsCa, None),
}
Command = Callable[..., int | None]
M = TypeVar("M", bound=Message)
E = TypeVar("E", bound=Enum)


def over_grpc(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Registers a function as a command of `app`."""

    def register(command: Command) -> Command:
        app.command(name)(_with_shared_options(command))
        return command

    return register


def _with_shared_options(command: Command) -> Callable[..., None]:
    hints = get_type_hints(command, include_extras=True)
    own = list(inspect.signature(command).parameters.values())[2:]
    parameters = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own
    ]
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in SHARED.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        shared = {name: given.pop(name) for name in SHARED}
        raise typer.Exit(_run(command, given, **shared))

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _run(
    command: Command,
    given: dict[str, Any],
    *,
    address: str,
    output: Format,
    token: str | None,
    timeout_ms: int,
    tls_ca: Path | None,
) -> int:
    try:
        options: OptionChanges = {"timeout_ms": timeout_ms, "token": token, "caller": "cli"}
        if tls_ca is not None:
            options["tls"] = True
            options["tls_ca_pem"] = tls_ca.read_bytes()
        with Client(address, **options) as client:
            return command(client, Show(output), **given) or OK
    except StockrayError as error:
        return _tell(error, address)
    except (ValueError, OSError) as error:
        say(str(error))
        return USAGE


def _tell(error: StockrayError, address: str) -> int:
    if isinstance(error, (Unavailable, DeadlineExceeded)):
        say(f"{address} gave no answer: {error}")
        if error.maybe_applied and error.ids:
            say(f"it may have been applied; ask again with {', '.join(error.ids)}")
        return UNREACHABLE
    say(f"{type(error).__name__}: {error}")
    for violation in error.violations:
        say(f"  {violation.field}: {violation.description}")
    return USAGE if isinstance(error, InvalidRequest) else FAILED


def say(text: str) -> None:
    """A message for people, on stderr."""
    print(f"stockray: {text}", file=sys.stderr)


def shown(show: Show, result: Answer | ReserveResult | ConfirmResult | ReleaseResult) -> int:
    """Shows a result and says the exit code of its status."""
    show.one(result)
    if result.ok:
        return OK
    say(f"{result.status.name} {result.message}".rstrip())
    return UNREACHABLE if result.status in (Status.RETRY, Status.UNKNOWN) else FAILED


def agreed(question: str, yes: bool) -> None:
    """Asks before something that cannot be undone; without a terminal `--yes` is needed."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ValueError(f"{question} Say --yes.")
    typer.confirm(question, abort=True, err=True)


def message_of(file: Path, kind: type[M]) -> M:
    """The message that a file of JSON says; ValueError says what is wrong with it."""
    try:
        return json_format.Parse(file.read_text(encoding="utf-8"), kind())
    except json_format.ParseError as error:
        raise ValueError(f"{file}: {error}") from error


def parse_member(kind: type[E], name: str) -> E:
    """The member of an enum by its name, in any case."""
    found = kind.__members__.get(name.upper())
    if found is None:
        raise ValueError(f"{name!r} is none of {', '.join(kind.__members__)}")
    return found
