"""Entries of the journal to bytes and back.

An entry is a msgpack array `[format, epoch, now_ms, records, balances]`: a round's records in the
order they were decided, then the balance of every pool they touched. The balances are redundant on
purpose: whoever folds the records must arrive at them, so a replica that diverges stops at the
entry that shows it. Format 1 is readable for ever (`tests/fixtures` keeps one of each release).
"""

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import msgpack

from actors.core.records import RECORDS, Balance

ENTRY_FORMAT = 1


class UnreadableEntry(Exception):
    """The bytes are no entry of a format this release knows."""


class EntryContent(NamedTuple):
    """A decoded entry."""

    epoch: int
    now_ms: int
    records: Sequence[Any]
    balances: Sequence[Balance]


def pack_entry(
    *, epoch: int, now_ms: int, records: Sequence[Any], balances: Sequence[Balance]
) -> bytes:
    """One entry of format 1."""
    packed: bytes = msgpack.packb((ENTRY_FORMAT, epoch, now_ms, records, balances))
    return packed


def unpack_entry(data: bytes) -> EntryContent:
    """The entry. Raises UnreadableEntry on anything but a known format with known records."""
    epoch, now_ms, records, balances = _parts(data)
    try:
        return EntryContent(
            epoch,
            now_ms,
            [RECORDS[fields[0]](*fields) for fields in records],
            [Balance(*fields) for fields in balances],
        )
    except (IndexError, KeyError, TypeError) as error:
        raise UnreadableEntry(f"unknown record: {error}") from error


def pack_told(
    entry: bytes, content: EntryContent, untold: Set[int], unkept: Set[int]
) -> bytes | None:
    """What the feed keeps of an entry: the entry with nothing in the place of records of the kinds
    `unkept`; None if only `untold` ones are in it, of which those are some. Most entries have none
    to leave out, and are kept as they are: 0.05 us a record, and 0.7 us packed again."""
    kinds = {record[0] for record in content.records}
    if kinds <= untold:
        return None
    if unkept.isdisjoint(kinds):
        return entry
    told = [None if record[0] in unkept else record for record in content.records]
    return pack_entry(epoch=content.epoch, now_ms=content.now_ms, records=told, balances=())


def unpack_told(data: bytes, kinds: Set[int] = frozenset(RECORDS)) -> tuple[int, Sequence[Any]]:
    """(now_ms, records) of an entry, or of what `pack_told` left of it: each in its place, None
    where one was left out, or is of a known kind that is not among `kinds`. Raises as
    `unpack_entry`."""
    _, now_ms, records, _ = _parts(data)
    try:
        if unknown := {fields[0] for fields in records if fields} - RECORDS.keys():
            raise UnreadableEntry(f"unknown record: {min(unknown)}")
        return now_ms, [
            RECORDS[fields[0]](*fields) if fields and fields[0] in kinds else None
            for fields in records
        ]
    except (IndexError, KeyError, TypeError) as error:
        raise UnreadableEntry(f"unknown record: {error}") from error


def _parts(data: bytes) -> tuple[int, int, Any, Any]:
    try:
        entry = msgpack.unpackb(data, use_list=False, strict_map_key=False)
        version, epoch, now_ms, records, balances = entry
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise UnreadableEntry(f"not an entry: {error}") from error
    if version != ENTRY_FORMAT:
        raise UnreadableEntry(f"entry format {version}; this release reads {ENTRY_FORMAT}")
    return epoch, now_ms, records, balances
