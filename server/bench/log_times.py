"""When processes of the service logged something, as seen from a moment that a benchmark chose."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple


class Logged(NamedTuple):
    """One line of a log."""

    after_ms: float
    """Since the moment."""
    fields: dict[str, Any]


class LogTimes:
    """What all logs of a directory say from a moment on (wall time, seconds since 1970)."""

    def __init__(self, directory: Path, moment: float) -> None:
        self._found: list[Logged] = []
        for path in directory.glob("*.log"):
            for line in path.read_text(errors="replace").splitlines():
                logged = _read(line, moment)
                if logged is not None and logged.after_ms >= 0:
                    self._found.append(logged)
        self._found.sort(key=lambda logged: logged.after_ms)

    def first(self, event: str, **fields: Any) -> Logged | None:
        """The first line of this event with these fields; None if there is none."""
        return next(
            (
                logged
                for logged in self._found
                if logged.fields["event"] == event and fields.items() <= logged.fields.items()
            ),
            None,
        )


def _read(line: str, moment: float) -> Logged | None:
    """None for what is no whole line of a log."""
    try:
        fields = json.loads(line)
        at = datetime.fromisoformat(fields["timestamp"])
        return Logged((at.timestamp() - moment) * 1000, {"event": "", **fields})
    except (ValueError, KeyError, TypeError):
        return None
