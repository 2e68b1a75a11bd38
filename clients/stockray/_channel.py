"""The connections of one client, and calls over them.

One channel is one TCP connection to one gateway process, so `connections` channels are opened,
each with a subchannel pool of its own, and calls go round them. Channels are opened at the first
call and connect by themselves; a lost connection is tried again soon, because a gateway that
restarts is back within a second.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from stockray.options import ClientOptions

A = TypeVar("A", bound=Message)
RECONNECT_MIN_MS = 50
RECONNECT_MAX_MS = 1_000
CONNECT_TIMEOUT_MS = 2_000


class Method(NamedTuple, Generic[A]):
    """One RPC: its path, and how its answer is read."""

    path: str
    read: Callable[[bytes], A]


class Connections:
    """Opened once, used by the loop that opened them, closed once."""

    def __init__(self, target: str, options: ClientOptions) -> None:
        self._options = options
        self._channels = [_open_channel(target, options) for _ in range(options.connections)]
        self._turn = itertools.count()
        self._calls: dict[tuple[int, str], Any] = {}
        self._metadata = [("stockray-caller", options.caller)]
        if options.token is not None:
            self._metadata.append(("authorization", f"Bearer {options.token}"))

    async def call(self, method: Method[A], payload: bytes, timeout_s: float) -> A:
        """One attempt of a unary RPC with an encoded request; raises AioRpcError."""
        index = next(self._turn) % len(self._channels)
        call = self._calls.get((index, method.path))
        if call is None:
            call = self._channels[index].unary_unary(
                method.path, request_serializer=None, response_deserializer=method.read
            )
            self._calls[index, method.path] = call
        timeout_s = min(timeout_s, self._options.rpc_timeout_ms / 1_000)
        answer: A = await call(payload, timeout=timeout_s, metadata=self._metadata)
        return answer

    def stream(self, method: Method[A], payload: bytes) -> grpc.aio.UnaryStreamCall[bytes, A]:
        """Opens a server stream; the caller cancels it."""
        channel = self._channels[next(self._turn) % len(self._channels)]
        call: grpc.aio.UnaryStreamMultiCallable[bytes, A] = channel.unary_stream(
            method.path, request_serializer=None, response_deserializer=method.read
        )
        return call(payload, metadata=self._metadata)

    async def close(self) -> None:
        """Ends all connections; calls that still fly fail with CANCELLED."""
        for channel in self._channels:
            await channel.close(None)


def _open_channel(target: str, options: ClientOptions) -> grpc.aio.Channel:
    arguments: list[tuple[str, Any]] = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", options.keepalive_ms),
        ("grpc.keepalive_timeout_ms", options.keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_send_message_length", options.message_bytes_max),
        ("grpc.max_receive_message_length", options.message_bytes_max),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MIN_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MS),
    ]
    if not options.tls:
        return grpc.aio.insecure_channel(target, options=arguments)
    if options.tls_server_name is not None:
        arguments.append(("grpc.ssl_target_name_override", options.tls_server_name))
    credentials = grpc.ssl_channel_credentials(
        options.tls_ca_pem, options.tls_key_pem, options.tls_certificate_pem
    )
    return grpc.aio.secure_channel(target, credentials, options=arguments)
