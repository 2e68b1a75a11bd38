"""The standard health service, `grpc.health.v1.Health`, as calls of the handler table.

Every service of the table is as healthy as its gateway: SERVING once it can route, NOT_SERVING
before, and from the beginning of the drain for ever. '' stands for the gateway as a whole. An
unknown service is NOT_FOUND to Check and SERVICE_UNKNOWN to Watch, as the protocol says. Watchers
are told of the drain at once, so that clients leave before the port closes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2 as _typed_health_pb2
from stockray_proto.v1 import common_pb2

from server.admission import Admission, GatewayPhase
from server.errors import Code, StockrayStatus, too_many_streams
from server.handlers import CallContext, Method

HEALTH = "/grpc.health.v1.Health/"
WATCHERS_MAX = 1_024

health_pb2: Any = _typed_health_pb2
"""Untyped: the published stubs do not know List yet."""


class Health:
    """Answers for a set of services by the phase of one gateway."""

    def __init__(
        self,
        services: Iterable[str],
        admission: Admission,
        *,
        on_drain: Callable[[], None] = lambda: None,
    ) -> None:
        self._services = frozenset({"", *services})
        self._admission = admission
        self._changed = asyncio.Event()
        self._watchers = 0
        self._on_drain = on_drain

    def methods(self) -> list[Method]:
        """The calls of the health service."""
        check, watch = health_pb2.HealthCheckRequest, self.watch
        return [
            Method(path=HEALTH + "Check", request=check, unary=self.check, always=True),
            Method(path=HEALTH + "Watch", request=check, stream=watch, always=True),
            Method(
                path=HEALTH + "List",
                request=health_pb2.HealthListRequest,
                unary=self.list,
                always=True,
            ),
        ]

    def open(self) -> None:
        """The gateway can route: SERVING from now on."""
        self._admission.open()
        self._tell()

    def drain(self) -> None:
        """The gateway is going away: NOT_SERVING from now on, and no new call is taken."""
        self._admission.drain()
        self._tell()
        self._on_drain()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, service: str) -> Any:
        if service not in self._services:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._admission.phase is GatewayPhase.SERVING:
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    async def check(self, request: Any, context: CallContext) -> Any:
        """One service, now."""
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            context.abort(
                StockrayStatus(
                    code=Code.NOT_FOUND,
                    reason=common_pb2.ERROR_REASON_UNIMPLEMENTED,
                    message="no such service in this release",
                )
            )
        return health_pb2.HealthCheckResponse(status=status)

    async def list(self, request: Any, context: CallContext) -> Any:
        """All services, now."""
        return health_pb2.HealthListResponse(
            statuses={
                service: health_pb2.HealthCheckResponse(status=self._status(service))
                for service in self._services
            }
        )

    async def watch(self, request: Any, context: CallContext) -> AsyncIterator[Message]:
        """One service, now and whenever it changes."""
        if self._watchers >= WATCHERS_MAX:
            raise too_many_streams()
        self._watchers += 1
        try:
            told = None
            while True:
                changed, status = self._changed, self._status(request.service)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                await changed.wait()
        finally:
            self._watchers -= 1
