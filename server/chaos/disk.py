"""A Redis on a small disk of its own, which can be filled up.

The disk is a tmpfs in a mount namespace that nobody else sees. A process whose standard input ends
with us holds it, so nothing stays mounted, whatever happens.
"""

import contextlib
import errno
import os
import subprocess
from pathlib import Path

from persistence.private import PrivateRedis

SIZE_BYTES = 1_000_000_000
PROBE_BYTES = 1_000_000
BLOCK_BYTES = 1_000_000
COMMAND_TIMEOUT_S = 10.0
_HOLD = 'mount -t tmpfs -o "size=$2" chaos "$1" && echo && exec cat'


class NoDisk(Exception):
    """This machine allows no small disk. Says why."""


class SmallDisk:
    """A tmpfs over a directory, in a mount namespace of its own."""

    def __init__(self, directory: Path, *, size_bytes: int = SIZE_BYTES) -> None:
        """Made, and filled once on trial. NoDisk, with nothing left of it."""
        if os.geteuid() != 0:
            raise NoDisk("a small disk needs root")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        try:
            self._holder = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _HOLD, "sh", str(directory), str(size_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise NoDisk(f"a small disk does not work here: {error}") from error
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            self.close()
            raise NoDisk("`unshare --mount` or mounting a tmpfs is not allowed")

    @property
    def enter(self) -> tuple[str, ...]:
        """Words before a command that run it where the disk is."""
        return ("nsenter", f"--target={self._holder.pid}", "--mount", "--")

    @property
    def _ballast(self) -> Path:
        """Seen from outside."""
        return Path(f"/proc/{self._holder.pid}/root{self.directory}/ballast")

    def fill(self) -> None:
        """Leave no room. Whoever gives some back in the meantime makes it free again: call it
        again and again while the disk is to be full. NoDisk when it cannot be filled."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (BLOCK_BYTES, 4_096):
                with contextlib.suppress(_Full):
                    while True:
                        _add(file.fileno(), size)

    def clear(self) -> None:
        """Give the room back. Idempotent."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """The disk is gone when nobody uses it any more. Idempotent."""
        for stream in (self._holder.stdin, self._holder.stdout):
            if stream is not None:
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._holder.wait(COMMAND_TIMEOUT_S)


class _Full(Exception):
    """No room is left."""


def _add(file: int, size: int) -> None:
    try:
        os.posix_fallocate(file, os.fstat(file).st_size, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _Full from error
        raise NoDisk(f"the small disk cannot be filled: {error}") from error


class RedisOnDisk(PrivateRedis):
    """A private Redis that keeps its data on a small disk; its socket and log stay outside."""

    def __init__(self, directory: Path, disk: SmallDisk, *, host: str) -> None:
        super().__init__(directory, host=host, settings={"dir": str(disk.directory)})
        self._disk = disk

    def _command(self) -> list[str]:
        program, *rest = super()._command()
        return ["/usr/bin/env", *self._disk.enter, program, *rest]
