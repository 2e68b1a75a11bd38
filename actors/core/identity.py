"""Names that are computed, never counted: slots, request keys, reservation and refund ids.

A reservation id is its slot and 16 bytes of hash(caller, request id), so it cannot be given out
twice, whatever is lost and rebuilt, and the table of reservations is also the table of request ids.
"""

from hashlib import blake2b
from zlib import crc32

SLOT_COUNT = 1024
"""Stock slots: the first half of the map."""
ACCOUNT_SLOT_COUNT = 1024
"""Account slots: the second half, owned by account shards."""
SLOTS_IN_ALL = SLOT_COUNT + ACCOUNT_SLOT_COUNT
BUYER_PARTS = 64
"""Reservation rows are partitioned by crc32(buyer) % 64 in SQL."""

FINGERPRINT_VERSION = 1
_ID_LENGTH, _ID_BYTES = 3 + 32, 2 + 16


def slot_of(key: str) -> int:
    """The stock slot (0..1023) of a SKU or campaign. Fixed for ever."""
    return crc32(key.encode()) % SLOT_COUNT


def account_slot(key: str) -> int:
    """The account slot (1024..2047) of a buyer, or of the programme. Fixed for ever."""
    return SLOT_COUNT + crc32(key.encode()) % ACCOUNT_SLOT_COUNT


PROGRAMME_SLOT = account_slot("programme")
"""Where everything of the commission programme lives."""


def buyer_part(buyer_id: str) -> int:
    """The SQL partition (0..63) of a buyer's rows."""
    return crc32(buyer_id.encode()) % BUYER_PARTS


def request_key(caller: str, request_id: str) -> bytes:
    """16 bytes that stand for a request id; the length keeps ("a", "bc") from ("ab", "c")."""
    return blake2b(f"{len(caller)}:{caller}{request_id}".encode(), digest_size=16).digest()


def fingerprint(*fields: object) -> int:
    """A versioned digest of the decoded business fields of a request (not of its wire bytes).

    32 bits: enough to tell a caller that it reused an id by mistake; nothing else rests on it."""
    return fingerprint_of("\x00".join([str(field) for field in fields]))


def fingerprint_of(text: str) -> int:
    """The digest of the fields as text, joined with NUL: for who has them at hand."""
    return FINGERPRINT_VERSION << 32 | crc32(text.encode())


def public_id(slot: int, key: bytes) -> str:
    """The id that callers see of a reservation or refund: 3 hex digits of slot, 32 of key."""
    return f"{slot:03x}{key.hex()}"


def parse_public_id(text: str) -> tuple[int, bytes] | None:
    """(slot, key) of a reservation, refund or team, or None if no id of ours can look like this."""
    found = _parse(text)
    return found if found is not None and found[0] < SLOT_COUNT else None


def parse_account_id(text: str) -> tuple[int, bytes] | None:
    """(slot, key) of a withdrawal, or None if no id of ours can look like this."""
    found = _parse(text)
    return found if found is not None and SLOT_COUNT <= found[0] < SLOTS_IN_ALL else None


def _parse(text: str) -> tuple[int, bytes] | None:
    # `fromhex` reads capitals and skips blanks; nothing else that it reads is another id.
    if len(text) != _ID_LENGTH or text != text.lower():
        return None
    try:
        raw = bytes.fromhex(f"0{text}")
    except ValueError:
        return None
    return (raw[0] << 8 | raw[1], raw[2:]) if len(raw) == _ID_BYTES else None
