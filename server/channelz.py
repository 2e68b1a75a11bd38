"""The standard channelz service, `grpc.channelz.v1.Channelz`, as calls of the handler table.

A gateway is one server, number 1, with the sockets of its front. It has no channels: what it calls
out with is not gRPC to anybody else. Answered in every phase and under any load, as health is, for
that is when one looks; every answer is bounded by `SOCKETS_MAX`.
"""

from ipaddress import ip_address
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from grpc_channelz.v1 import channelz_pb2 as cz

from server.counters import Address, SocketCounters
from server.errors import not_found
from server.handlers import CallContext, Handler, HandlerTable, Method

SERVICE = "grpc.channelz.v1.Channelz"
SERVER_ID = 1
SOCKETS_MAX = 100
"""Sockets that one answer names at most; also when the caller does not say how many."""


class Channelz:
    """Tells of one table and of the front that serves it."""

    def __init__(self, table: HandlerTable) -> None:
        self._table = table

    def methods(self) -> list[Method]:
        """The calls of the channelz service."""
        calls: dict[str, tuple[type[Any], Handler]] = {
            "GetTopChannels": (cz.GetTopChannelsRequest, self.get_top_channels),
            "GetServers": (cz.GetServersRequest, self.get_servers),
            "GetServer": (cz.GetServerRequest, self.get_server),
            "GetServerSockets": (cz.GetServerSocketsRequest, self.get_server_sockets),
            "GetChannel": (cz.GetChannelRequest, self.no_channel),
            "GetSubchannel": (cz.GetSubchannelRequest, self.no_channel),
            "GetSocket": (cz.GetSocketRequest, self.get_socket),
        }
        return [
            Method(path=f"/{SERVICE}/{name}", request=request, unary=handler, always=True)
            for name, (request, handler) in calls.items()
        ]

    async def get_top_channels(self, request: Any, context: CallContext) -> Any:
        """There are none."""
        return cz.GetTopChannelsResponse(end=True)

    async def no_channel(self, request: Any, context: CallContext) -> Any:
        """There are none."""
        raise not_found("such channel: a gateway has none")

    async def get_servers(self, request: Any, context: CallContext) -> Any:
        """The one there is."""
        response = cz.GetServersResponse(end=True)
        if request.start_server_id <= SERVER_ID:
            response.server.append(self._server())
        return response

    async def get_server(self, request: Any, context: CallContext) -> Any:
        """Its counts and the sockets it listens on."""
        self._require(request.server_id)
        return cz.GetServerResponse(server=self._server())

    async def get_server_sockets(self, request: Any, context: CallContext) -> Any:
        """Open connections, by their ids."""
        self._require(request.server_id)
        wanted = request.max_results
        count = min(wanted, SOCKETS_MAX) if wanted > 0 else SOCKETS_MAX
        front = self._table.front
        found = front.sockets(request.start_socket_id, count + 1) if front else ()
        return cz.GetServerSocketsResponse(
            socket_ref=[_socket_ref(socket) for socket in found[:count]],
            end=len(found) <= count,
        )

    async def get_socket(self, request: Any, context: CallContext) -> Any:
        """One connection, or one that listens."""
        front, wanted = self._table.front, request.socket_id
        known = (*front.listening(), *front.sockets(wanted, 1)) if front else ()
        for socket in known:
            if socket.socket_id == wanted:
                return cz.GetSocketResponse(socket=_socket(socket))
        raise not_found("such socket, or it is closed")

    def _require(self, server_id: int) -> None:
        if server_id != SERVER_ID:
            raise not_found(f"such server: the gateway is server {SERVER_ID}")

    def _server(self) -> cz.Server:
        front, counters = self._table.front, self._table.counters
        return cz.Server(
            ref=cz.ServerRef(server_id=SERVER_ID, name=front.name if front else "gateway"),
            data=cz.ServerData(
                calls_started=counters.started,
                calls_succeeded=counters.succeeded,
                calls_failed=counters.failed,
                last_call_started_timestamp=_instant(counters.last_started_ms),
            ),
            listen_socket=[_socket_ref(socket) for socket in front.listening()] if front else (),
        )


def _socket_ref(socket: SocketCounters) -> cz.SocketRef:
    return cz.SocketRef(socket_id=socket.socket_id, name=socket.name)


def _socket(socket: SocketCounters) -> cz.Socket:
    return cz.Socket(
        ref=_socket_ref(socket),
        local=_address(socket.local),
        remote=None if socket.remote is None else _address(socket.remote),
        remote_name=socket.identity,
        data=cz.SocketData(
            streams_started=socket.streams_started,
            streams_succeeded=socket.streams_succeeded,
            streams_failed=socket.streams_failed,
            messages_sent=socket.messages_sent,
            messages_received=socket.messages_received,
            keep_alives_sent=socket.keepalives_sent,
            last_remote_stream_created_timestamp=_instant(socket.last_stream_ms),
            last_message_sent_timestamp=_instant(socket.last_message_sent_ms),
            last_message_received_timestamp=_instant(socket.last_message_received_ms),
        ),
    )


def _address(address: Address) -> cz.Address:
    if address.path:
        return cz.Address(uds_address=cz.Address.UdsAddress(filename=address.path))
    try:
        packed = ip_address(address.host).packed
    except ValueError:
        other = cz.Address.OtherAddress(name=f"{address.host}:{address.port}")
        return cz.Address(other_address=other)
    return cz.Address(tcpip_address=cz.Address.TcpIpAddress(ip_address=packed, port=address.port))


def _instant(at_ms: int) -> Timestamp | None:
    return Timestamp(seconds=at_ms // 1_000, nanos=at_ms % 1_000 * 1_000_000) if at_ms else None
