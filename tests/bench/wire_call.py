"""CPU of one unary call in `wire/` alone: no socket, no handler, no loop.

`python -m tests.bench.wire_call`. Batches of calls made by a client-role connection go through a
server connection on a transport that keeps nothing; only the serving side's time is counted.
"""

import asyncio
import time

import ngh2
import uvloop

from wire.call import MethodEntry, ServerCall
from wire.framing import frame
from wire.limits import WireLimits
from wire.server import WireServer
from wire.server_connection import ServerConnection

CALLS, BATCH = 64_000, 64
ECHO = "/floor.Echo/Echo"


class Sink(asyncio.Transport):
    """Takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep for the client."""
        self.taken.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of no use here."""

    def is_closing(self) -> bool:
        """Never."""
        return False


def serve(call: ServerCall, message: bytes) -> None:
    """Echo."""
    call.reply(message)


async def measure() -> float:
    """Microseconds of CPU a call."""
    server = WireServer({ECHO: MethodEntry(unary=serve, keeps_deadline=True)}.get)
    connection, sink = ServerConnection(server), Sink()
    client = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(peer_max_concurrent_streams=4096))
    client.initiate_connection({4: 2**24})
    connection.connection_made(sink)
    body = frame(b"x" * 90)
    spent = 0.0
    for batch in range(CALLS // BATCH):
        for number in range(BATCH):
            head = [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", ECHO.encode()),
                (b":authority", b"127.0.0.1:7443"),
                (b"grpc-accept-encoding", b"identity, deflate, gzip"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"grpc-python-asyncio/1.76.0 grpc-c/51.0.0 (linux; chttp2)"),
                (b"grpc-timeout", b"%du" % (9_999_000 - batch * BATCH - number)),
            ]
            stream = client.send_request(head)
            client.send_data(stream, body, end_stream=True)
        data = client.data_to_send()
        began = time.process_time()
        connection.data_received(data)
        spent += time.process_time() - began
        client.receive_data(b"".join(sink.taken))
        sink.taken.clear()
        client.events()
    assert connection.counters.succeeded == CALLS, connection.counters
    return spent / CALLS * 1e6


if __name__ == "__main__":
    WireLimits()
    for _ in range(3):
        print(f"{uvloop.run(measure()):.2f} us a call")
