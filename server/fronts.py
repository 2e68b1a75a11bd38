"""Which front serves the table, and how: chosen by settings, the same calls on both.

| option | nghttp2 | grpcio |
|---|---|---|
| TLS, client certificates | yes | yes |
| idle and age limits of connections | yes | yes |
| limit of connections | yes | no: grpcio has none |
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from server.counters import FrontCounters
from server.front_grpcio import GrpcioFront
from server.front_nghttp2 import Nghttp2Front
from server.handlers import HandlerTable
from wire.limits import WireLimits
from wire.tls import server_context

CONNECTION_GRACE_MS = 30_000
"""Calls of a connection that was open for too long may go on for this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontOptions:
    """How a gateway faces its callers. Files are read where the gateway runs."""

    kind: str = "nghttp2"
    """ "nghttp2", the fast one, or "grpcio", the reference."""
    tls_certificate: str = ""
    """PEM file of the certificate chain; '' serves without TLS."""
    tls_key: str = ""
    tls_client_ca: str = ""
    """PEM file of who may vouch for callers; '' asks callers for no certificate."""
    connections_max: int = 20_000
    connection_idle_ms: int = 3_600_000
    """0: never closed for being idle."""
    connection_age_ms: int = 0
    """0: never closed for being old."""


class Front(FrontCounters, Protocol):
    """A front, made and not yet serving."""

    def listen(self, address: str) -> int:
        """Bind host:port, shared with other gateways; answers the port. Connections wait until
        `start`. OSError or RuntimeError if it cannot be."""

    async def start(self) -> None:
        """Serve from now on."""

    async def stop(self, *, grace_s: float) -> None:
        """Take no new call, wait for those in flight, cut them off after `grace_s`."""


def make_front(options: FrontOptions, table: HandlerTable) -> Front:
    """The front that the options name, on this loop. TlsError if a TLS file is no good."""
    make: Callable[[FrontOptions, HandlerTable], Front]
    make = _make_nghttp2 if options.kind == "nghttp2" else _make_grpcio
    return make(options, table)


def check_tls(options: FrontOptions) -> None:
    """Raises TlsError, naming the file, if gateways could not serve with these files."""
    if options.tls_certificate:
        server_context(options.tls_certificate, options.tls_key, options.tls_client_ca)


def _make_nghttp2(options: FrontOptions, table: HandlerTable) -> Front:
    limits = WireLimits(
        connections_max=options.connections_max,
        idle_ms=options.connection_idle_ms,
        age_ms=options.connection_age_ms,
        age_grace_ms=CONNECTION_GRACE_MS,
    )
    tls = None
    if options.tls_certificate:
        tls = server_context(options.tls_certificate, options.tls_key, options.tls_client_ca)
    return Nghttp2Front(table, limits=limits, tls=tls)


def _make_grpcio(options: FrontOptions, table: HandlerTable) -> Front:
    arguments = [("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_MS)]
    if options.connection_idle_ms:
        arguments.append(("grpc.max_connection_idle_ms", options.connection_idle_ms))
    if options.connection_age_ms:
        arguments.append(("grpc.max_connection_age_ms", options.connection_age_ms))
    credentials = None
    if options.tls_certificate:
        check_tls(options)
        roots = Path(options.tls_client_ca).read_bytes() if options.tls_client_ca else None
        pair = Path(options.tls_key).read_bytes(), Path(options.tls_certificate).read_bytes()
        credentials = grpc.ssl_server_credentials([pair], roots, roots is not None)
    return GrpcioFront(table, options=arguments, credentials=credentials)
