"""The journal in Redis: a stream and a head per shard, changed only by Lua scripts.

Keys (the shard's share a hash tag, so that they always lie together)
----
`<prefix>:{7}:meta` hash: incarnation, epoch, owner, last seq and batch, running byte count
`<prefix>:{7}:log` stream: one entry a round, id `<seq>-0`
`<prefix>:{7}:positions` hash: reader -> seq · `<prefix>:{map}:map` hash: version, data

Rules
-----
* Every call is one script, atomic in Redis. A script is not rolled back, so all checks come before
  its first write (the scripts are in `lua/`, each with its keys on top).
* Durability is Redis's: append-only file on, `appendfsync always`. `verify_settings` refuses
  anything less, and a Redis without the head is a missing journal, never an empty one.
* No time to live anywhere: it would follow the wall clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from persistence.errors import (
    Conflict,
    Corrupt,
    Fenced,
    JournalExists,
    Misconfigured,
    NoJournal,
    StorageError,
    Trimmed,
)
from persistence.ports import Entry, Meta, Ownership
from persistence.redis_link import RedisLink, Script

_CREATE = Script("create")
_START_OVER = Script("start_over")
_READ_META = Script("read_meta")
_ACQUIRE = Script("acquire")
_APPEND = Script("append")
_CHECK = Script("check")
_READ = Script("read")
_POSITIONS = Script("positions")
_SET_POSITION = Script("set_position")
_TRIM = Script("trim")
_BYTES_USED = Script("bytes_used")
_SWAP_MAP = Script("swap_map")

_NEEDED_SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}


class RedisJournal:
    """The `Journal` port over one Redis server."""

    def __init__(self, url: str, *, prefix: str = "stockray", timeout_ms: int = 1000) -> None:
        """`url`: `redis://`, `rediss://` or `unix://`. `timeout_ms` bounds connecting and waiting
        for an answer, each; an answer that does not come in time is an OutcomeUnknown."""
        self._link = RedisLink(url, timeout_ms=timeout_ms)
        self._prefix = prefix
        self._keys: dict[int, tuple[str, str, str]] = {}

    def create(self, shard: int, *, incarnation: str) -> None:
        meta, log, positions = self._keys_of(shard)
        self._run(shard, _CREATE, (meta, log, positions), incarnation)

    def start_over(
        self, shard: int, *, incarnation: str, replaces: str, last_seq: int, epoch: int = 0
    ) -> None:
        keys = self._keys_of(shard)
        self._run(shard, _START_OVER, keys, incarnation, replaces, last_seq, epoch)

    def read_meta(self, shard: int) -> Meta:
        meta, log, _ = self._keys_of(shard)
        inc, epoch, owner, last_seq, first_id = self._run(shard, _READ_META, (meta, log))
        first_seq = _seq_of(first_id) if first_id else int(last_seq) + 1
        return Meta(inc.decode(), int(epoch), owner.decode(), int(last_seq), first_seq)

    def acquire(
        self, shard: int, *, incarnation: str, seen_epoch: int, token: str, owner_info: str = ""
    ) -> Ownership:
        meta, _, _ = self._keys_of(shard)
        epoch, owner = self._run(
            shard, _ACQUIRE, (meta,), incarnation, seen_epoch, seen_epoch + 1, token, owner_info
        )
        return Ownership(int(epoch), owner.decode())

    def append(
        self, shard: int, *, incarnation: str, epoch: int, seq: int, batch_id: str, entry: bytes
    ) -> None:
        meta, log, _ = self._keys_of(shard)
        self._run(shard, _APPEND, (meta, log), incarnation, epoch, seq, batch_id, entry)

    def check(self, shard: int, *, incarnation: str, epoch: int) -> None:
        self._run(shard, _CHECK, (self._keys_of(shard)[0],), incarnation, epoch)

    def read(self, shard: int, *, after_seq: int, max_bytes: int) -> Sequence[Entry]:
        meta, log, _ = self._keys_of(shard)
        last_seq, rows = self._run(shard, _READ, (meta, log), after_seq + 1, max_bytes)
        found = [
            Entry(_seq_of(key), int(fields[1]), fields[3].decode(), fields[7])
            for key, fields in rows
        ]
        if not found and after_seq < int(last_seq):
            raise Trimmed(first_seq=int(last_seq) + 1)
        if found and found[0].seq != after_seq + 1:
            raise Trimmed(first_seq=found[0].seq)
        if found and found[-1].seq - found[0].seq != len(found) - 1:
            raise Corrupt(f"the stream {log} has a gap after entry {after_seq}")
        return found

    def positions(self, shard: int) -> Mapping[str, int]:
        meta, _, positions = self._keys_of(shard)
        (flat,) = self._run(shard, _POSITIONS, (meta, positions))
        return {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}

    def set_position(self, shard: int, reader: str, seq: int) -> None:
        meta, _, positions = self._keys_of(shard)
        self._run(shard, _SET_POSITION, (meta, positions), reader, seq)

    def trim(self, shard: int, *, before_seq: int, max_entries: int) -> int:
        if max_entries <= 0:
            return 0
        meta, log, _ = self._keys_of(shard)
        (removed,) = self._run(shard, _TRIM, (meta, log), before_seq, max_entries)
        return int(removed)

    def bytes_used(self, shard: int) -> int:
        meta, log, _ = self._keys_of(shard)
        (byte_count,) = self._run(shard, _BYTES_USED, (meta, log))
        return int(byte_count)

    def read_map(self) -> tuple[int, bytes]:
        version, data = self._link.call("HMGET", self._map_key, "version", "data")
        return (int(version), data) if version is not None else (0, b"")

    def swap_map(self, *, expected_version: int, data: bytes) -> bool:
        reply = self._link.run(
            _SWAP_MAP, (self._map_key,), expected_version, expected_version + 1, data
        )
        return bool(reply[1])

    def verify_settings(self) -> Sequence[str]:
        server = self._info("server")
        if int(server.get("redis_version", "0").split(".")[0]) < 7:
            raise Misconfigured(
                f"Redis {server.get('redis_version')}: the journal needs 7 or newer"
            )
        if server.get("redis_mode") == "cluster":
            raise Misconfigured(
                "Redis Cluster fails over without its newest writes: use one server"
            )
        role = self._info("replication").get("role")
        if role != "master":
            raise Misconfigured(f"this Redis is a {role}: the journal needs the primary")
        settings = {name: self._setting(name) for name in _NEEDED_SETTINGS}
        wrong = [
            f"{name} must be {needed!r} (it is {settings[name]!r})"
            for name, needed in _NEEDED_SETTINGS.items()
            if settings[name] != needed
        ]
        if wrong:
            raise Misconfigured(f"this Redis would lose acknowledged sales: {'; '.join(wrong)}")
        return self._warnings()

    def close(self) -> None:
        self._link.close()

    @property
    def _map_key(self) -> str:
        return f"{self._prefix}:{{map}}:map"

    def _keys_of(self, shard: int) -> tuple[str, str, str]:
        keys = self._keys.get(shard)
        if keys is None:
            stem = f"{self._prefix}:{{{shard}}}"
            keys = self._keys[shard] = (f"{stem}:meta", f"{stem}:log", f"{stem}:positions")
        return keys

    def _run(self, shard: int, script: Script, keys: tuple[str, ...], *arguments: Any) -> Any:
        """A script's answer without its status; any status but OK is raised."""
        status, *answer = self._link.run(script, keys, *arguments)
        if status == b"OK":
            return answer
        if status == b"NOJOURNAL":
            raise NoJournal(f"no such journal at {keys[0]} (found: {answer[0].decode()!r})")
        if status == b"FENCED":
            raise Fenced(epoch=int(answer[0]), owner=answer[1].decode())
        if status == b"CONFLICT":
            raise Conflict(last_seq=int(answer[0]))
        if status == b"EXISTS":
            raise JournalExists(f"{keys[0]} has a journal of {answer[0].decode()!r}")
        raise StorageError(f"{script.name} of shard {shard} answered {status!r}")

    def _info(self, section: str) -> dict[str, str]:
        text = self._link.call("INFO", section).decode()
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def _setting(self, name: str) -> str:
        reply = self._link.call("CONFIG", "GET", name)
        return reply[1].decode() if reply else ""

    def _warnings(self) -> list[str]:
        persistence = self._info("persistence")
        found = []
        if persistence.get("aof_enabled") != "1":
            raise Misconfigured("this Redis has no append-only file yet: wait, or restart it")
        for name in ("aof_last_write_status", "aof_last_bgrewrite_status"):
            if persistence.get(name, "ok") != "ok":
                found.append(f"{name} is {persistence[name]}: look at the disk of Redis")
        if self._setting("maxmemory") == "0":
            found.append("maxmemory is 0: set it, or a full machine kills Redis instead of OOM")
        if self._setting("save"):
            found.append("save is set: a failing RDB snapshot makes Redis refuse appends; unset it")
        return found


def _seq_of(stream_id: bytes) -> int:
    return int(stream_id.split(b"-")[0])
