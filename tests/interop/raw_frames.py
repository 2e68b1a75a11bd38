"""HTTP/2 frames made by hand, to say what no library would."""

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
CANCEL = 8
STREAM = 1
QUESTION = b"alive?!?"
ANSWER_TIMEOUT_S = 10


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame."""
    length = len(payload).to_bytes(3, "big")
    return length + bytes([kind, flags]) + struct.pack(">I", stream_id) + payload


def headers(path: str, *, ended: bool, method: str = "POST", timeout: str = "") -> bytes:
    """The headers of a gRPC call on stream 1, uncompressed."""
    fields = {":method": method, ":scheme": "http", ":path": path, ":authority": "x"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    if timeout:
        fields["grpc-timeout"] = timeout
    block = b"".join(_field(name.encode(), value.encode()) for name, value in fields.items())
    return frame(HEADERS, END_HEADERS | (END_STREAM if ended else 0), STREAM, block)


def _field(name: bytes, value: bytes) -> bytes:
    """A literal header, never indexed; lengths below 127."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def message(size: int, *, ended: bool) -> bytes:
    """A DATA frame with a gRPC message of zeros."""
    body = b"\0" + size.to_bytes(4, "big") + bytes(size)
    return frame(DATA, END_STREAM if ended else 0, STREAM, body)


def number(kind: int, value: int) -> bytes:
    """A frame of stream 1 that holds one number: RST_STREAM, WINDOW_UPDATE."""
    return frame(kind, 0, STREAM, struct.pack(">I", value))


async def is_alive_after(port: int, *pieces: bytes) -> bool:
    """Whether a connection answers a PING after each of the pieces, sent in one segment each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PREFACE + frame(SETTINGS, 0, 0))
        for piece in pieces:
            writer.write(piece + frame(PING, 0, 0, QUESTION))
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await reader.readuntil(frame(PING, ACK, 0, QUESTION))
    except (asyncio.IncompleteReadError, ConnectionError):
        return False
    finally:
        writer.close()
    return True


async def last_words_after(port: int, pieces: bytes) -> int | None:
    """The error code of the GOAWAY with which the connection ends; None without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + frame(SETTINGS, 0, 0) + pieces)
    code = None
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while head := await reader.readexactly(9):
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == GOAWAY:
                    code = int.from_bytes(payload[4:8], "big")
    except (asyncio.IncompleteReadError, ConnectionError):
        return code
    finally:
        writer.close()
    return code
