"""A bare echo in a process of its own: the floor that every rate is compared with.

`--front grpcio` is grpc.aio as its users write it, on bytes and without parsing; `--front nghttp2`
is the wire room's server with a handler that does nothing. Prints its port, and ends with its
standard input, so that it never outlives whoever started it.
"""

import argparse
import asyncio
import ssl
import subprocess
import sys
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
import grpc.aio
import uvloop

from server.load_calls import ECHO_PATH
from wire.call import MethodEntry, ServerCall
from wire.server import WireServer

FRONTS = ("grpcio", "nghttp2")
PENDING_MAX = 100_000
"""grpcio turns calls away by chance above 1,000 that wait, and a floor must not."""


class Certificate(NamedTuple):
    """Files of a server's certificate, which is its own root, and of its key."""

    certificate: str
    key: str


class EchoChild:
    """The echo server as a child process. RuntimeError when it does not start."""

    def __init__(self, front: str = "grpcio", tls: Certificate | None = None) -> None:
        command = [sys.executable, "-m", "server.echo", "--front", front]
        if tls:
            command += ["--certificate", tls.certificate, "--key", tls.key]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._process.wait()
            raise RuntimeError(f"the {front} echo did not start")
        self.target = f"127.0.0.1:{int(line)}"

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def echo(data: bytes, context: Any) -> bytes:
            return data

        return grpc.unary_unary_rpc_method_handler(echo)


async def _serve_grpcio(tls: Certificate | None) -> None:
    server = grpc.aio.server(
        options=[
            ("grpc.server.max_pending_requests", PENDING_MAX),
            ("grpc.server.max_pending_requests_hard_limit", PENDING_MAX),
        ]
    )
    server.add_generic_rpc_handlers((_Echo(),))
    if tls is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        with open(tls.key, "rb") as key, open(tls.certificate, "rb") as certificate:  # noqa: ASYNC230 - before it serves
            pair = (key.read(), certificate.read())
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def _serve_nghttp2(tls: Certificate | None) -> None:
    def echo(call: ServerCall, message: bytes) -> None:
        call.reply(message)

    entry = MethodEntry(unary=echo)
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        context.set_alpn_protocols(["h2"])
    server = WireServer(lambda path: entry if path == ECHO_PATH else None, tls=context)
    print(await server.listen_tcp("127.0.0.1", 0), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m server.echo", description=__doc__)
    parser.add_argument("--front", choices=FRONTS, default="grpcio")
    parser.add_argument("--certificate", help="TLS with this certificate, PEM")
    parser.add_argument("--key", help="the key to it, PEM")
    options = parser.parse_args()
    tls = Certificate(options.certificate, options.key) if options.certificate else None
    if options.front == "grpcio":
        asyncio.run(_serve_grpcio(tls))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_nghttp2(tls))


if __name__ == "__main__":
    main()
