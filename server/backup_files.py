"""The files of a backup: streams of msgpack values, counted and checked by a manifest.

Rules
-----
* The manifest is renamed into place when everything else is on disk. A directory without one is a
  backup that did not come to its end, and nothing accepts it.
* It names each file with its size, its SHA-256 and how many values are in it.
* Nothing is ever written over: a backup goes to a new or empty directory.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

FORMAT = 1
MANIFEST = "manifest.json"
READ_BYTES = 1 << 20


class CannotBackUp(Exception):
    """Why no backup was made, or none can be restored, and what to do."""


class FileFacts(NamedTuple):
    """What the manifest says of a file."""

    name: str
    byte_count: int
    sha256: str
    items: int


class Writer:
    """One file that is being written. Its directory exists."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.items = 0
        self._path = directory / name
        self._file = self._path.open("xb")
        self._hash = hashlib.sha256()
        self._packer = msgpack.Packer()

    def put(self, value: Any) -> None:
        """One more value. OSError."""
        packed = self._packer.pack(value)
        self._hash.update(packed)
        self._file.write(packed)
        self.items += 1

    def finish(self) -> FileFacts:
        """All of it is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        byte_count = self._file.tell()
        self._file.close()
        return FileFacts(self.name, byte_count, self._hash.hexdigest(), self.items)

    def close(self) -> None:
        """Give it up, finished or not. Idempotent."""
        self._file.close()

    def discard(self) -> None:
        """It is not wanted: the file is gone."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def make_directory(place: Path) -> None:
    """CannotBackUp unless `place` is a new or an empty directory."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise CannotBackUp(f"{place} is not empty: choose another place")
    except OSError as error:
        raise CannotBackUp(f"{place}: {error.strerror}") from error


def publish(place: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest: from now on it is a backup."""
    new = place / f"{MANIFEST}.new"
    with new.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    new.rename(place / MANIFEST)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(place: Path) -> dict[str, Any]:
    """CannotBackUp if there is none of a known format."""
    try:
        manifest: dict[str, Any] = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT
    except FileNotFoundError as error:
        raise CannotBackUp(
            f"{place} has no {MANIFEST}: it is no backup, or one that did not come to its end"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CannotBackUp(f"{place / MANIFEST}: cannot be read: {error}") from error
    if not known:
        raise CannotBackUp(
            f"{place}: a backup of format {manifest['format']}; this release reads {FORMAT}"
        )
    return manifest


def check(place: Path, facts: FileFacts) -> None:
    """CannotBackUp unless the file is what the manifest says."""
    digest = hashlib.sha256()
    try:
        with (place / facts.name).open("rb") as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
            byte_count = file.tell()
    except OSError as error:
        raise CannotBackUp(f"{place / facts.name}: {error.strerror}") from error
    if (byte_count, digest.hexdigest()) != (facts.byte_count, facts.sha256):
        raise CannotBackUp(
            f"{place / facts.name}: {byte_count:,} bytes that are not the {facts.byte_count:,} of "
            "the manifest: the backup is damaged"
        )


def values(place: Path, name: str) -> Iterator[Any]:
    """A checked file's values, in order."""
    with (place / name).open("rb") as file:
        yield from msgpack.Unpacker(
            file, use_list=False, strict_map_key=False, max_buffer_size=1 << 30
        )
