"""Logs of a process: one JSON object a line, with a stable event name and key=value fields."""

import logging
import sys
from pathlib import Path
from typing import TextIO

import structlog


def configure_logs(directory: str, name: str) -> None:
    """Log to `directory/name.log` (appending), or to standard error when there is no directory."""
    stream: TextIO = sys.stderr
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        stream = (Path(directory) / f"{name}.log").open("a", buffering=1, encoding="utf-8")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
