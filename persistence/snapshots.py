"""What every snapshot store shares: which snapshots are kept, and how a chunk is sealed.

Rules
-----
* Snapshots are ordered by the sequence at which they end, and by the order of `begin` among equals.
* Only the incarnation that was begun last counts; snapshots of two journals are never mixed.
* The newest two are kept. Those of another incarnation stay until the current one has two, so
  that a rebuilt journal never leaves a shard without any.
* A chunk carries its checksum, seeded with the snapshot's handle and the chunk's index: a chunk in
  another one's place is as corrupt as a damaged one.
"""

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from persistence.errors import Corrupt
from persistence.ports import SnapshotInfo

KEPT_COUNT = 2
CHUNK_BYTES_MAX = 256 * 1024
_SEAL = struct.Struct("<II")


class Published(NamedTuple):
    """A published snapshot as its store knows it; `ordinal` grows with every `begin`."""

    ordinal: int
    handle: str
    info: SnapshotInfo


def newest(published: Iterable[Published]) -> list[Published]:
    """Those that `list` answers: newest first, at most two, of the current incarnation."""
    return _current(list(published))[:KEPT_COUNT]


def superseded(published: Iterable[Published]) -> list[Published]:
    """Those that a `publish` may remove."""
    known = list(published)
    kept = _current(known)[:KEPT_COUNT]
    if len(kept) == KEPT_COUNT:
        return [one for one in known if one not in kept]
    return []


def find(published: Iterable[Published], info: SnapshotInfo, shard: int) -> Published:
    """The stored snapshot that `info` describes; Corrupt when it is gone."""
    matching = [one for one in published if one.info == info]
    if not matching:
        raise Corrupt(f"the snapshot of shard {shard} that ends at {info.end_seq} is gone")
    return max(matching)


def seal(handle: str, index: int, chunk: bytes) -> bytes:
    """What is stored for a chunk. ValueError for a chunk that the port does not allow."""
    if index < 0:
        raise ValueError(f"chunk index {index} is negative")
    if len(chunk) > CHUNK_BYTES_MAX:
        raise ValueError(f"chunk {index} has {len(chunk)} bytes, more than {CHUNK_BYTES_MAX}")
    return _SEAL.pack(len(chunk), _checksum(handle, index, chunk)) + chunk


def unseal(handle: str, index: int, stored: bytes | None, where: str) -> bytes:
    """The chunk that was sealed; Corrupt, naming `where`, when it cannot be the same."""
    if stored is None:
        raise Corrupt(f"chunk {index} of the snapshot in {where} is missing")
    chunk = stored[_SEAL.size :]
    if len(stored) < _SEAL.size or _SEAL.unpack_from(stored) != (
        len(chunk),
        _checksum(handle, index, chunk),
    ):
        raise Corrupt(f"chunk {index} of the snapshot in {where} fails its checksum")
    return chunk


def stored_byte_count(sealed_byte_count: int, chunk_count: int) -> int:
    """Bytes of the chunks themselves, from what their sealed forms take together."""
    return sealed_byte_count - chunk_count * _SEAL.size


def _current(published: list[Published]) -> list[Published]:
    if not published:
        return []
    incarnation = max(published, key=lambda one: one.ordinal).info.incarnation
    mine = [one for one in published if one.info.incarnation == incarnation]
    return sorted(mine, key=lambda one: (one.info.end_seq, one.ordinal), reverse=True)


def _checksum(handle: str, index: int, chunk: bytes) -> int:
    return zlib.crc32(chunk, zlib.crc32(f"{handle}:{index}".encode()))
