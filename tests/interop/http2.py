"""One HTTP/2 request with headers and bytes of one's own choice, and the answer as it came."""

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import ngh2

ANSWER_TIMEOUT_S = 10
HEADERS: Mapping[str, str] = {
    ":method": "POST",
    ":scheme": "http",
    ":authority": "localhost",
    "te": "trailers",
    "content-type": "application/grpc",
}


class Answer(NamedTuple):
    """What a server said to one request."""

    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str]

    @property
    def status(self) -> int:
        """The gRPC status, wherever it stands; -1 without one."""
        return int({**self.headers, **self.trailers}.get("grpc-status", -1))

    @property
    def trailers_only(self) -> bool:
        """Headers alone, with the status among them."""
        return "grpc-status" in self.headers and not self.body and not self.trailers


async def ask(port: int, path: str, body: bytes, **changed: str) -> Answer:
    """Sends a request; `content_type="x"` changes a header, `method` stands for ":method". Raises
    ConnectionError if the stream or the connection ends without an answer."""
    names = {name.replace("_", "-"): value for name, value in changed.items()}
    method = {":method": names.pop("method")} if "method" in names else {}
    sent = {**HEADERS, ":path": path, **names, **method}
    # Pseudo-headers come first, whatever was changed.
    pairs = sorted(((k.encode(), v.encode()) for k, v in sent.items()), key=lambda p: p[0][0] != 58)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    h2 = ngh2.Connection(ngh2.Role.CLIENT)
    h2.initiate_connection()
    stream = h2.send_request(pairs, end_stream=not body)
    if body:
        h2.send_data(stream, body, end_stream=True)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await _answer(h2, stream, reader, writer)
    finally:
        writer.close()


async def _answer(
    h2: ngh2.Connection, stream: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Answer:
    headers: dict[str, str] = {}
    trailers: dict[str, str] = {}
    body = b""
    while True:
        writer.write(h2.data_to_send())
        data = await reader.read(65_536)
        if not data:
            raise ConnectionError("the connection ended")
        h2.receive_data(data)
        for event in h2.events():
            if isinstance(event, ngh2.ResponseReceived):
                headers = _text(event.headers)
            elif isinstance(event, ngh2.TrailersReceived):
                trailers = _text(event.headers)
            elif isinstance(event, ngh2.DataReceived):
                body += event.data
            elif isinstance(event, ngh2.StreamClosed):
                if not headers:
                    raise ConnectionError(f"the stream was reset with {event.error_code}")
                return Answer(headers, body, trailers)


def _text(pairs: tuple[tuple[bytes, bytes], ...]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in pairs}
