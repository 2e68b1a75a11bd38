"""The command line `stockray`; needs the extra `cli` (typer, rich).

Rules: data goes to stdout and nothing else does; exit codes are 0 ok, 1 failed, 2 usage,
3 degraded, 4 unreachable. Everything here speaks gRPC alone; the service distribution adds its
commands through the entry-point group `stockray.commands`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

__all__ = ["main"]

NEEDED = ("typer", "rich")


def main() -> None:
    """The entry point: says what to install where typer or rich are missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"stockray: the command line needs {' and '.join(missing)}: "
            "pip install 'stockray[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    # Only now: a library user without the extra must be able to import this package.
    app = importlib.import_module("stockray.cli._app")
    app.build()()
