"""A bare grpc.aio echo in a process of its own: the floor that every rate is compared with."""

import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

METHOD = "/floor.Echo/Echo"


class EchoChild:
    """The echo server as a child process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server.echo"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout is None:
            raise RuntimeError("the echo child has no standard output")
        self.target = f"127.0.0.1:{int(self._process.stdout.readline())}"

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
        self._process.wait()


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def echo(data: bytes, context: Any) -> bytes:
            return data

        return grpc.unary_unary_rpc_method_handler(echo)


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve())
