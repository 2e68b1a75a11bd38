"""Snapshots in Redis, beside the journal or on a server of their own.

Keys: `<prefix>:{7}:snapshots` is the index (handle -> JSON, and a counter), and
`<prefix>:{7}:snapshot:<handle>` a hash of sealed chunks. One hash per snapshot goes in one UNLINK.
A chunk is read and written by its own command, so that no call moves more than 256 kB. What is kept
and how chunks are sealed is in `snapshots.py`.
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from persistence.errors import StorageError
from persistence.ports import SnapshotInfo
from persistence.redis_link import RedisLink, Script
from persistence.snapshots import (
    Published,
    find,
    newest,
    seal,
    stored_byte_count,
    superseded,
    unseal,
)

_BEGIN = Script("snapshot_begin")
_WRITE = Script("snapshot_write")
_PUBLISH = Script("snapshot_publish")


class RedisSnapshots:
    """The `Snapshots` port over one Redis server."""

    def __init__(self, url: str, *, prefix: str = "stockray", timeout_ms: int = 1000) -> None:
        """`timeout_ms` bounds connecting and waiting for an answer, each."""
        self._link = RedisLink(url, timeout_ms=timeout_ms)
        self._prefix = prefix

    def begin(self, shard: int, *, incarnation: str, begin_seq: int) -> str:
        reply = self._link.run(
            _BEGIN,
            (self._index(shard),),
            incarnation,
            begin_seq,
            secrets.token_hex(4),
            self._chunks(shard, ""),
        )
        return str(reply[1].decode())

    def write(self, shard: int, handle: str, index: int, chunk: bytes) -> None:
        keys = (self._index(shard), self._chunks(shard, handle))
        reply = self._link.run(_WRITE, keys, handle, index, seal(handle, index, chunk))
        _require(reply, shard, handle)

    def publish(self, shard: int, handle: str, *, end_seq: int) -> SnapshotInfo:
        keys = (self._index(shard), self._chunks(shard, handle))
        reply = self._link.run(_PUBLISH, keys, handle, end_seq)
        _require(reply, shard, handle)
        for gone in superseded(self._published(shard)):
            self._link.call("HDEL", self._index(shard), gone.handle)
            self._link.call("UNLINK", self._chunks(shard, gone.handle))
        return _published(handle, json.loads(reply[1])).info

    def list(self, shard: int) -> Sequence[SnapshotInfo]:
        return [one.info for one in newest(self._published(shard))]

    def read(self, shard: int, info: SnapshotInfo) -> Iterable[bytes]:
        handle = find(self._published(shard), info, shard).handle
        key = self._chunks(shard, handle)
        for index in range(info.chunk_count):
            yield unseal(handle, index, self._link.call("HGET", key, index), key)

    def close(self) -> None:
        self._link.close()

    def _published(self, shard: int) -> Sequence[Published]:
        flat = self._link.call("HGETALL", self._index(shard))
        entries = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
        entries.pop("next", None)
        stored = {handle: json.loads(entry) for handle, entry in entries.items()}
        return [
            _published(h, entry) for h, entry in stored.items() if entry["state"] == "published"
        ]

    def _index(self, shard: int) -> str:
        return f"{self._prefix}:{{{shard}}}:snapshots"

    def _chunks(self, shard: int, handle: str) -> str:
        return f"{self._prefix}:{{{shard}}}:snapshot:{handle}"


def _published(handle: str, entry: dict[str, Any]) -> Published:
    chunk_count = int(entry["chunks"])
    info = SnapshotInfo(
        incarnation=entry["inc"],
        begin_seq=int(entry["begin_seq"]),
        end_seq=int(entry["end_seq"]),
        chunk_count=chunk_count,
        byte_count=stored_byte_count(int(entry["bytes"]), chunk_count),
        handle=handle,
    )
    return Published(int(entry["ordinal"]), handle, info)


def _require(reply: Sequence[Any], shard: int, handle: str) -> None:
    if reply[0] == b"DISCARDED":
        raise StorageError(f"snapshot {handle} of shard {shard} was discarded, or is published")
    if reply[0] == b"MISSING":
        raise StorageError(f"snapshot {handle} of shard {shard} lacks a chunk")
