"""Turns messages into the frozen values of `records`, `results` and `cluster`, and back.

Both have the same field names, so one reader is compiled for each class from its annotations, once.
Instants must be aware: a naive datetime is refused rather than taken for UTC. The lines of batches
do not come by here; they have code of their own in `_verbs`, because they are counted in
microseconds.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Convert = Callable[[Any], Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(cls: type[T], message: Message) -> T:
    """Builds a `cls` from the message with the same field names."""
    values = {name: getter(message) for name, getter in _getters(cls)}  # type: ignore[arg-type]
    return cls(**values)


def write(message: M, value: object) -> M:
    """Fills a message from a record: None and empty values are left unset. Returns the message."""
    for field in fields(value):  # type: ignore[arg-type]
        set_field(message, field.name, getattr(value, field.name))
    return message


def set_field(message: Message, name: str, value: object) -> None:
    """Sets one field of a message from the value that a record would have for it."""
    if value is None or value in ((), {}):
        return
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{name}: must be an aware datetime, for example with timezone.utc")
        getattr(message, name).FromDatetime(value.astimezone(UTC))
    elif isinstance(value, timedelta):
        getattr(message, name).FromTimedelta(value)
    elif isinstance(value, Mapping):
        getattr(message, name).update(value)
    elif isinstance(value, (tuple, list)):
        _extend(getattr(message, name), value)
    elif is_dataclass(value):
        target = getattr(message, name)
        target.SetInParent()
        write(target, value)
    else:
        setattr(message, name, value)


def _extend(target: Any, values: tuple[Any, ...] | list[Any]) -> None:
    for value in values:
        if is_dataclass(value):
            write(target.add(), value)
        else:
            target.append(value)


@cache
def _getters(cls: type) -> tuple[tuple[str, Convert], ...]:
    hints = get_type_hints(cls)
    return tuple((field.name, _getter(field.name, hints[field.name])) for field in fields(cls))


def _getter(name: str, hint: Any) -> Convert:
    if get_origin(hint) is types.UnionType:
        inner = _convert(next(arg for arg in get_args(hint) if arg is not types.NoneType))
        return lambda message: inner(getattr(message, name)) if message.HasField(name) else None
    if get_origin(hint) is tuple:
        inner = _convert(get_args(hint)[0])
        return lambda message: tuple(inner(item) for item in getattr(message, name))
    if get_origin(hint) is Mapping:
        return lambda message: dict(getattr(message, name))
    inner = _convert(hint)
    return lambda message: inner(getattr(message, name))


def _convert(hint: Any) -> Convert:
    if hint is datetime:
        return instant
    if hint is timedelta:
        return span
    if is_dataclass(hint):
        return lambda message: read(hint, message)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return hint
    return _same


def _same(value: Any) -> Any:
    return value


def instant(value: Timestamp) -> datetime:
    """The aware datetime of a Timestamp, to the microsecond."""
    return EPOCH + timedelta(0, value.seconds, value.nanos // 1_000)


def span(value: Duration) -> timedelta:
    """The timedelta of a Duration, to the microsecond."""
    return timedelta(0, value.seconds, value.nanos // 1_000)
