"""Snapshots as files: a directory per snapshot, a file per chunk, and a manifest that publishes it.

Layout: `shard-0007/<ordinal>-<random>/chunk-000000 ...` and `manifest.json`. Chunks are synced when
written; the manifest is renamed into place after everything else is on disk, so a directory without
one is a snapshot that was never finished. What is kept and how chunks are sealed is in
`snapshots.py`.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from persistence.errors import NotApplied, OutcomeUnknown, StorageError
from persistence.ports import SnapshotInfo
from persistence.snapshots import (
    Published,
    find,
    newest,
    seal,
    stored_byte_count,
    superseded,
    unseal,
)

_HANDLE = re.compile(r"^(\d{8})-[0-9a-f]{8}$")
_BEGUN = "begun.json"
_MANIFEST = "manifest.json"


class FileSnapshots:
    """The `Snapshots` port over a directory."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory).absolute()

    def begin(self, shard: int, *, incarnation: str, begin_seq: int) -> str:
        with _translated(self._directory):
            known = self._handles(shard)
            for handle in known:
                if not (self._path(shard, handle) / _MANIFEST).exists():
                    shutil.rmtree(self._path(shard, handle), ignore_errors=True)
            ordinal = 1 + max((int(handle[:8]) for handle in known), default=0)
            handle = f"{ordinal:08d}-{secrets.token_hex(4)}"
            self._path(shard, handle).mkdir(parents=True)
            begun = json.dumps({"incarnation": incarnation, "begin_seq": begin_seq})
            _write(self._path(shard, handle) / _BEGUN, begun.encode())
        return handle

    def write(self, shard: int, handle: str, index: int, chunk: bytes) -> None:
        sealed = seal(handle, index, chunk)
        directory = self._require(shard, handle)
        if (directory / _MANIFEST).exists():
            raise StorageError(f"snapshot {handle} of shard {shard} is published already")
        with _translated(directory):
            _write(directory / _chunk_name(index), sealed)

    def publish(self, shard: int, handle: str, *, end_seq: int) -> SnapshotInfo:
        directory = self._require(shard, handle)
        with _translated(directory):
            known = self._manifest(shard, handle)
            if known is not None:
                return known.info
            begun = json.loads((directory / _BEGUN).read_bytes())
            sizes = {path.name: path.stat().st_size for path in directory.glob("chunk-*")}
            if set(sizes) != {_chunk_name(index) for index in range(len(sizes))}:
                raise StorageError(f"snapshot {handle} of shard {shard} lacks a chunk")
            info = SnapshotInfo(
                incarnation=begun["incarnation"],
                begin_seq=begun["begin_seq"],
                end_seq=end_seq,
                chunk_count=len(sizes),
                byte_count=stored_byte_count(sum(sizes.values()), len(sizes)),
                handle=handle,
            )
            for path in (directory, directory.parent, self._directory):
                _sync(path)
            _write(directory / f"{_MANIFEST}.new", json.dumps(info._asdict()).encode())
        with _translated(directory, OutcomeUnknown):
            os.replace(directory / f"{_MANIFEST}.new", directory / _MANIFEST)
            _sync(directory)
            for gone in superseded(self._published(shard)):
                self._remove(shard, gone.handle)
        return info

    def list(self, shard: int) -> Sequence[SnapshotInfo]:
        with _translated(self._directory):
            return [one.info for one in newest(self._published(shard))]

    def read(self, shard: int, info: SnapshotInfo) -> Iterable[bytes]:
        handle = find(self._published(shard), info, shard).handle
        directory = self._path(shard, handle)
        for index in range(info.chunk_count):
            try:
                sealed: bytes | None = (directory / _chunk_name(index)).read_bytes()
            except FileNotFoundError:
                sealed = None
            yield unseal(handle, index, sealed, str(directory))

    def close(self) -> None:
        """Nothing is held open."""

    def _handles(self, shard: int) -> Sequence[str]:
        directory = self._path(shard, "")
        return sorted(p.name for p in directory.glob("*") if _HANDLE.match(p.name))

    def _published(self, shard: int) -> Sequence[Published]:
        found = [self._manifest(shard, handle) for handle in self._handles(shard)]
        return [one for one in found if one is not None]

    def _manifest(self, shard: int, handle: str) -> Published | None:
        """None as well for a manifest that cannot be read: the older snapshot is there for that."""
        try:
            fields = json.loads((self._path(shard, handle) / _MANIFEST).read_bytes())
            return Published(int(handle[:8]), handle, SnapshotInfo(**{**fields, "handle": handle}))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _require(self, shard: int, handle: str) -> Path:
        directory = self._path(shard, handle)
        if not _HANDLE.match(handle) or not directory.exists():
            raise StorageError(f"snapshot {handle} of shard {shard} was discarded")
        return directory

    def _remove(self, shard: int, handle: str) -> None:
        # Without its manifest first: what is left of an interrupted removal is never listed.
        (self._path(shard, handle) / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(self._path(shard, handle), ignore_errors=True)

    def _path(self, shard: int, handle: str) -> Path:
        return self._directory / f"shard-{shard:04d}" / handle


@contextmanager
def _translated(directory: Path, kind: type[StorageError] = NotApplied) -> Iterator[None]:
    """Nothing counts before the manifest is renamed; from then on, nobody knows."""
    try:
        yield
    except OSError as error:
        raise kind(f"{directory}: {error}") from error


def _chunk_name(index: int) -> str:
    return f"chunk-{index:06d}"


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
