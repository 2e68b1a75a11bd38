"""Page tokens: where the next page of a listing begins, opaque to callers and bound to its filters.

A token is URL-safe base64 of JSON `[filters' checksum, key]`. It is not a secret and protects
nothing: it only must not be used for another listing by mistake.
"""

import base64
import binascii
import json
from typing import Any
from zlib import crc32

from server.errors import bad_page_token

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
NUMBER_MIN, NUMBER_MAX = -(1 << 63), (1 << 63) - 1


def page_size(asked: int) -> int:
    """0 means 100; more than 1,000 means 1,000."""
    return min(asked or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def make_token(key: tuple[Any, ...] | None, *filters: object) -> str:
    """The token of the page after `key`; '' after the last one."""
    if key is None:
        return ""
    text = json.dumps([_checksum(filters), list(key)], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_token(token: str, kinds: tuple[type, ...], *filters: object) -> Any:
    """The key in a token, None for ''. Raises CallError for a token that is not ours, or was made
    for other filters. `kinds` are the types of the key's parts."""
    if not token:
        return None
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        checksum, key = json.loads(text)
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise bad_page_token() from error
    fits = (
        isinstance(key, list)
        and [type(part) for part in key] == list(kinds)
        and all(_storable(part) for part in key)
    )
    if checksum != _checksum(filters) or not fits:
        raise bad_page_token()
    return tuple(key)


def _storable(part: Any) -> bool:
    """Whether a column can have it: a number of 64 bits, or text without half characters, which
    JSON can spell and UTF-8 cannot."""
    if isinstance(part, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in part)
    return not isinstance(part, int) or NUMBER_MIN <= part <= NUMBER_MAX


def _checksum(filters: tuple[object, ...]) -> int:
    return crc32(repr(filters).encode())
