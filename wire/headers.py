"""What gRPC says in HTTP/2 headers: timeouts, metadata, statuses. Bytes in, values out.

Rules
-----
* `-bin` values are base64 on the wire, with or without padding, and bytes here; others are ASCII.
* `grpc-message` is percent-encoded UTF-8; a receiver never fails over a badly encoded one.
* A header that is gRPC's own never shows up as metadata.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence

Pair = tuple[bytes, bytes]
Metadata = Sequence[tuple[str, str | bytes]]

OK_HEADERS: tuple[Pair, ...] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,gzip"),
)
OK_TRAILERS: tuple[Pair, ...] = ((b"grpc-status", b"0"),)
GZIP_HEADER: Pair = (b"grpc-encoding", b"gzip")
CONTENT_TYPES = frozenset({b"application/grpc", b"application/grpc+proto"})

_UNITS_S = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_TIMEOUT_DIGITS_MAX = 8
_PLAIN = re.compile(rb"[\x20-\x24\x26-\x7e]*")
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


class BadHeader(Exception):
    """A header cannot be read, or metadata cannot be sent. Says which and what is allowed."""


def parse_timeout(value: bytes) -> float:
    """Seconds of a `grpc-timeout`. Raises BadHeader."""
    text = value.decode("latin-1")
    digits, unit = text[:-1], text[-1:]
    known = unit in _UNITS_S and 0 < len(digits) <= _TIMEOUT_DIGITS_MAX
    if not known or not digits.isascii() or not digits.isdigit():
        raise BadHeader(f"grpc-timeout: {text[:20]!r} is not 1-8 digits and one of HMSmun")
    return int(digits) * _UNITS_S[unit]


def format_timeout(timeout_ms: int) -> bytes:
    """A `grpc-timeout`, at least 1 ms and at most what its eight digits can say."""
    if timeout_ms < 10**_TIMEOUT_DIGITS_MAX:
        return b"%dm" % max(1, timeout_ms)
    return b"%dS" % min(timeout_ms // 1_000, 10**_TIMEOUT_DIGITS_MAX - 1)


def metadata_value(key: str, value: bytes) -> str | bytes:
    """One metadata value as it is meant. Raises BadHeader for a `-bin` value that is no base64."""
    if not key.endswith("-bin"):
        return value.decode("latin-1")
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise BadHeader(f"(metadata) {key}: not base64") from None


def encode_metadata(metadata: Metadata) -> list[Pair]:
    """Metadata as headers. Raises BadHeader for a key or value that the wire cannot carry."""
    pairs = []
    for key, value in metadata:
        if not _KEY.fullmatch(key) or (key.startswith("grpc-") and key not in _OWN_SENT):
            raise BadHeader(f"(metadata) {key!r}: 1 or more of 0-9a-z_.- and not grpc-...")
        if key.endswith("-bin"):
            raw = value if isinstance(value, bytes) else value.encode()
            pairs.append((key.encode(), base64.b64encode(raw).rstrip(b"=")))
            continue
        text = value if isinstance(value, str) else value.decode("latin-1")
        if not _VALUE.fullmatch(text):
            raise BadHeader(f"(metadata) {key}: printable ASCII only; name it ...-bin for bytes")
        pairs.append((key.encode(), text.encode()))
    return pairs


_OWN_SENT = frozenset({"grpc-status-details-bin", "grpc-retry-pushback-ms"})
"""Keys of gRPC's own that a service may send with a status."""


def encode_message(message: str) -> bytes:
    """A `grpc-message`."""
    raw = message.encode("utf-8", "replace")
    if _PLAIN.fullmatch(raw):
        return raw
    return b"".join(
        b"%%%02X" % byte if byte < 0x20 or byte > 0x7E or byte == 0x25 else bytes((byte,))
        for byte in raw
    )


def decode_message(value: bytes) -> str:
    """A `grpc-message`; what is badly encoded stays as it is."""
    if b"%" not in value:
        return value.decode("utf-8", "replace")
    decoded = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), value)
    return decoded.decode("utf-8", "replace")


def status_trailers(code: int, message: str, trailers: Metadata = ()) -> list[Pair]:
    """The headers that end a call."""
    pairs = [(b"grpc-status", b"%d" % code)]
    if message:
        pairs.append((b"grpc-message", encode_message(message)))
    if trailers:
        pairs.extend(encode_metadata(trailers))
    return pairs


def accepts_gzip(value: bytes) -> bool:
    """Whether a `grpc-accept-encoding` lists gzip."""
    return b"gzip" in (part.strip() for part in value.split(b","))


def header_of(headers: Iterable[Pair], name: bytes) -> bytes | None:
    """The first header of this name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def is_grpc(content_type: bytes) -> bool:
    """`application/grpc`, with a `+suffix` of protobuf or with parameters."""
    kind = content_type.partition(b";")[0].strip().lower()
    return kind in CONTENT_TYPES
