"""gRPC's length-prefixed messages: one flag byte, four bytes of length, the message.

Rules
-----
* A message is refused by its announced length, before its bytes are kept.
* Compressed messages are unpacked up to the limit and no further: a small one may hide a huge one.
  Those of a stream stay packed until their handler reads them: a window may hold many of them.
"""

import zlib

PREFIX_BYTES = 5
IDENTITY, GZIP = "identity", "gzip"
ENCODINGS = (IDENTITY, GZIP)
_GZIP_WINDOW = 31


class BadFraming(Exception):
    """The bytes are no message of this stream. Carries the gRPC code to answer with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class MessageTooLarge(BadFraming):
    """A message is longer than the limit."""

    def __init__(self, size: int, limit: int, what: str) -> None:
        super().__init__(8, f"{what} message of {size} bytes, at most {limit} are allowed")


class Packed(bytes):
    """A message that is still compressed."""


class Decoder:
    """The messages of one stream, from its bytes. `encoding` is what the call's headers said;
    a `lazy` one gives compressed messages as they came, as `Packed`."""

    __slots__ = ("_buffer", "_encoding", "_lazy", "_limit")

    def __init__(self, limit: int, encoding: str = IDENTITY, *, lazy: bool = False) -> None:
        self._buffer = bytearray()
        self._limit = limit
        self._encoding = encoding
        self._lazy = lazy

    @property
    def pending(self) -> int:
        """Bytes of a message that has not come whole."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Messages that are whole now. Raises BadFraming; nothing can be fed after it."""
        buffer = self._buffer
        if not buffer and len(data) >= PREFIX_BYTES:
            # Nearly all calls are one message in one DATA frame.
            length = int.from_bytes(data[1:PREFIX_BYTES], "big")
            if length + PREFIX_BYTES == len(data):
                return [self._open(data[0], length, data[PREFIX_BYTES:])]
        buffer += data
        messages = []
        at = 0
        while len(buffer) - at >= PREFIX_BYTES:
            length = int.from_bytes(buffer[at + 1 : at + PREFIX_BYTES], "big")
            if length > self._limit:
                raise MessageTooLarge(length, self._limit, "a received")
            end = at + PREFIX_BYTES + length
            if len(buffer) < end:
                break
            messages.append(self._open(buffer[at], length, bytes(buffer[at + PREFIX_BYTES : end])))
            at = end
        del buffer[:at]
        return messages

    def _open(self, flag: int, length: int, body: bytes) -> bytes:
        if length > self._limit:
            raise MessageTooLarge(length, self._limit, "a received")
        if flag == 0:
            return body
        if flag != 1:
            raise BadFraming(13, f"a message's flag byte is {flag}, 0 and 1 are known")
        if self._encoding != GZIP:
            raise BadFraming(13, "a message is compressed, and the call names no grpc-encoding")
        return Packed(body) if self._lazy else unpack(body, self._limit)


def frame(message: bytes) -> bytes:
    """A message as it travels, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def frame_gzip(message: bytes) -> bytes:
    """A message as it travels, compressed for speed, not for size."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
    packed = packer.compress(message) + packer.flush()
    return b"\1" + len(packed).to_bytes(4, "big") + packed


def unpack(body: bytes, limit: int) -> bytes:
    """A gzip member's content. Raises BadFraming if it is none, or longer than `limit`."""
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        message = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadFraming(13, f"a message is not gzip: {error}") from None
    if len(message) > limit:
        raise MessageTooLarge(len(message), limit, "an unpacked")
    if not unpacker.eof or unpacker.unused_data:
        raise BadFraming(13, "a message is not one whole gzip member")
    return message
