"""The root command: the groups of this distribution, and what the service distribution adds."""

from __future__ import annotations

from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from stockray.cli import (
    _campaigns,
    _cluster,
    _distributors,
    _events,
    _reservations,
    _risk,
    _stock,
    _teams,
)
from stockray.cli._command import FAILED, say

GROUP = "stockray.commands"
OF_THE_SERVICE = ("serve", "demo", "verify", "bench", "db", "doctor")


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="stockray",
        help="An in-memory inventory cluster that cannot oversell.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for module in (
        _cluster,
        _campaigns,
        _stock,
        _reservations,
        _teams,
        _distributors,
        _risk,
        _events,
    ):
        module.register(app)
    problem = _add_service_commands(app)
    known = {command.name for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    for name in OF_THE_SERVICE:
        if name not in known:
            _add_missing(app, name, problem)
    return app


def _root(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if show_version:
        print(version("stockray"))
        raise typer.Exit


def _add_service_commands(app: typer.Typer) -> str:
    """Lets every plugin register; says why one could not, which must not stop the others."""
    problem = "the service distribution (stockray-server) is not installed"
    for point in entry_points(group=GROUP):
        try:
            point.load()(app)
        except Exception as error:  # noqa: BLE001 Somebody else's code must not stop `status`.
            problem = f"{point.value} is installed but could not be loaded: {error!r}"
    return problem


def _add_missing(app: typer.Typer, name: str, problem: str) -> None:
    def missing() -> None:
        say(f"`{name}` is a command of the service: {problem}")
        raise typer.Exit(FAILED)

    missing.__doc__ = "Needs the service distribution."
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, hidden=True, context_settings=settings)(missing)
