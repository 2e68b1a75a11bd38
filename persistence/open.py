"""From a setting's URL to an adapter. The only place that knows which schemes there are.

Nothing is connected or created here: an adapter opens what it needs when it is first used. An
adapter's module is imported when it is asked for: SQLAlchemy and Redis's client take most of a
second of CPU, and a process that has died is missed for as long as its successor imports.
"""

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from persistence.errors import Misconfigured
from persistence.files import FileSnapshots
from persistence.memory import MemoryJournal, MemorySnapshots
from persistence.ports import Journal, Sink, Snapshots
from persistence.sqlite import SqliteJournal

_REDIS_SCHEMES = ("redis", "rediss", "unix")
_REDIS_FORMS = ("redis://host:port/0", "rediss://host:port/0", "unix:///path/of/socket")


def open_journal(url: str) -> Journal:
    """The journal that the setting `journal` names. `memory:` is a new, empty one at each call.
    Misconfigured, naming the setting and what it may be, for anything else."""
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return SqliteJournal(_absolute_path("journal", url))
    if scheme in _REDIS_SCHEMES:
        from persistence.redis import RedisJournal  # noqa: PLC0415 - see above

        return RedisJournal(url)
    if url == "memory:":
        return MemoryJournal()
    raise _unknown("journal", url, ("sqlite:/absolute/directory", *_REDIS_FORMS, "memory:"))


def open_snapshots(url: str) -> Snapshots:
    """The snapshots that the setting `snapshots` names; else as `open_journal`."""
    scheme = urlsplit(url).scheme
    if scheme == "file":
        return FileSnapshots(_absolute_path("snapshots", url))
    if scheme in _REDIS_SCHEMES:
        from persistence.redis_snapshots import RedisSnapshots  # noqa: PLC0415 - see above

        return RedisSnapshots(url)
    if url == "memory:":
        return MemorySnapshots()
    raise _unknown("snapshots", url, ("file:/absolute/directory", *_REDIS_FORMS, "memory:"))


def open_sink(url: str) -> Sink:
    """The SQL view that the setting `database` names. Misconfigured for a URL it does not take."""
    from persistence.sql.sink import SqlSink  # noqa: PLC0415 - see above

    try:
        return SqlSink(url)
    except ValueError as error:
        raise Misconfigured(str(error)) from error


def _absolute_path(setting: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
        form = f"{parts.scheme}:/absolute/directory"
        raise Misconfigured(f"{setting}: {url!r} must be of the form {form}")
    return unquote(parts.path)


def _unknown(setting: str, url: str, allowed: Sequence[str]) -> Misconfigured:
    # The part after the scheme may hold a password, and this text is printed and logged.
    scheme = url.split(":", 1)[0]
    return Misconfigured(f"{setting}: unknown scheme {scheme!r}; allowed: {', '.join(allowed)}")
