"""One connection to Redis for the journal and the snapshots: scripts, time limits, honest errors.

Rules
-----
* Nothing is retried (redis-py's default of ten retries appends ten times). The one exception is
  NOSCRIPT, which says that nothing ran: the script is then sent whole.
* After any doubt the connection is dropped: an unread reply must never answer the next call.
* Failing before the command was sent is definite (NotApplied); failing afterwards is not
  (OutcomeUnknown): a command that reached a stopped Redis runs when it wakes up.
* LOADING, BUSY, MISCONF, OOM, READONLY and their kind are Redis refusing before it began.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from persistence.errors import (
    Corrupt,
    Misconfigured,
    NotApplied,
    OutcomeUnknown,
    StorageError,
)

_REFUSED = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
)
_NOT_ALLOWED = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.AuthenticationWrongNumberOfArgsError,
    redis.exceptions.NoPermissionError,
)
_REFUSED_CLASSES = (
    redis.exceptions.BusyLoadingError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)


class Script:
    """A Lua script from `persistence/lua/`, run by its digest."""

    __slots__ = ("digest", "name", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (Path(__file__).parent / "lua" / f"{name}.lua").read_bytes()
        # Redis names a script by its SHA-1; nothing is protected by it.
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


class RedisLink:
    """A connection that is opened when needed and dropped when in doubt. One thread at a time."""

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        """`timeout_ms` bounds connecting, and waiting for an answer, each."""
        timeout_s = timeout_ms / 1000
        options = {name for name, _ in parse_qsl(urlsplit(url).query)}
        if not all(name == "db" or name.startswith("ssl_") for name in options):
            # An option there would win over the ones below, `retry_on_timeout` for example.
            raise Misconfigured(f"the address of Redis may carry db and ssl_* only, not {options}")
        try:
            pool = redis.ConnectionPool.from_url(
                url,
                protocol=2,
                driver_info=None,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                health_check_interval=0,
            )
            # redis-py does not type the methods of a connection.
            self._connection: Any = pool.make_connection()
        except (ValueError, TypeError) as error:
            raise Misconfigured(f"not an address of Redis: {error}") from error
        self._connected = False

    def run(self, script: Script, keys: Sequence[str], *arguments: str | int | bytes) -> Any:
        """Run a script; answers its reply (bytes, ints and lists of them)."""
        try:
            return self._call("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except redis.exceptions.NoScriptError:
            return self.call("EVAL", script.text, len(keys), *keys, *arguments)

    def call(self, *command: str | int | bytes) -> Any:
        """Send one command; answers its reply."""
        try:
            return self._call(*command)
        except redis.exceptions.NoScriptError as error:
            raise NotApplied(str(error)) from error

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        self._connected = False
        self._connection.disconnect()

    def _call(self, *command: str | int | bytes) -> Any:
        if not self._connected:
            self._connect()
        try:
            self._connection.send_command(*command, check_health=False)
            return self._connection.read_response()
        except redis.exceptions.NoScriptError:
            raise
        except redis.exceptions.ResponseError as error:
            raise refusal(error) from error
        except redis.exceptions.BusyLoadingError as error:
            # A reply, although redis-py makes it a ConnectionError.
            self.close()
            raise NotApplied(f"Redis is loading: {error}") from error
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()
            raise OutcomeUnknown(f"no answer from Redis: {error}") from error
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        try:
            self._connection.connect()
        except _NOT_ALLOWED as error:
            self.close()
            raise Misconfigured(f"Redis does not let us in: {error}") from error
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()
            raise NotApplied(f"cannot connect to Redis: {error}") from error
        except BaseException:
            self.close()
            raise
        self._connected = True


def refusal(error: redis.exceptions.ResponseError) -> StorageError:
    """The port's word for an error reply."""
    text = str(error)
    if isinstance(error, _NOT_ALLOWED) or text.startswith(("NOAUTH", "NOPERM", "WRONGPASS")):
        return Misconfigured(f"Redis does not allow this: {text}")
    if isinstance(error, _REFUSED_CLASSES) or text.startswith(_REFUSED):
        return NotApplied(f"Redis refused: {text}")
    if text.startswith("WRONGTYPE") or "script:" in text:
        return Corrupt(f"a key of the journal is not what it was: {text}")
    return StorageError(f"Redis answered: {text}")
