"""TLS and mutual TLS: who is let in, as whom, and who is not."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import grpc
import pytest

from tests.helpers.certificates import Authority, Issued
from tests.helpers.wire_peers import Service
from wire.call import MethodEntry, ServerCall
from wire.client import WireClient, WireError
from wire.limits import WireLimits
from wire.server import WireServer
from wire.tls import client_context, server_context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "theirs")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Issued:
    return authority.issue("server", names="DNS:localhost,IP:127.0.0.1")


class Listener:
    """A TLS server with a method that says who calls."""

    def __init__(self, context: ssl.SSLContext) -> None:
        service = Service()

        def who(call: ServerCall, _message: bytes) -> None:
            call.reply(call.identity.encode())

        service.routes["/test/Who"] = MethodEntry(unary=who)
        limits = WireLimits(handshake_ms=500, connections_max=10)
        self.server = WireServer(service.routes.get, limits=limits, tls=context)
        self.port = 0

    async def start(self) -> None:
        """On a free port."""
        self.port = await self.server.listen_tcp("127.0.0.1", 0)


@pytest.fixture
async def plain(certificate: Issued) -> AsyncIterator[Listener]:
    """TLS for everybody."""
    listener = Listener(server_context(certificate.certificate, certificate.key))
    await listener.start()
    yield listener
    await listener.server.close()


@pytest.fixture
async def mutual(certificate: Issued, authority: Authority) -> AsyncIterator[Listener]:
    """TLS for those whom our authority knows."""
    context = server_context(certificate.certificate, certificate.key, authority.certificate)
    listener = Listener(context)
    await listener.start()
    yield listener
    await listener.server.close()


async def who(listener: Listener, context: ssl.SSLContext) -> bytes:
    """Whom a client of ours is taken for."""
    client = await WireClient.connect_tcp(
        "127.0.0.1", listener.port, tls=context, server_name="localhost"
    )
    try:
        return await client.call("/test/Who", b"")
    finally:
        client.close()
        await client.gone


async def test_both_stock_and_our_clients_call_over_tls(
    plain: Listener, authority: Authority
) -> None:
    assert await who(plain, client_context(authority.certificate)) == b""
    with open(authority.certificate, "rb") as roots:  # noqa: ASYNC230 - a test's few bytes.
        trusted = grpc.ssl_channel_credentials(roots.read())
    async with grpc.aio.secure_channel(f"localhost:{plain.port}", trusted) as channel:
        assert await channel.unary_unary("/test/Echo")(b"x" * 300_000) == b"x" * 300_000


async def test_who_calls_arrives_with_the_call(mutual: Listener, authority: Authority) -> None:
    gate = authority.issue("gate", names="URI:spiffe://stockray/gate,DNS:gate")
    context = client_context(authority.certificate, gate.certificate, gate.key)
    assert await who(mutual, context) == b"spiffe://stockray/gate"


@pytest.mark.parametrize("kind", ["none", "stranger"])
async def test_callers_whom_our_authority_does_not_know_are_not_let_in(
    mutual: Listener, authority: Authority, other: Authority, kind: str
) -> None:
    context = client_context(authority.certificate)
    if kind == "stranger":
        stranger = other.issue("stranger")
        context = client_context(authority.certificate, stranger.certificate, stranger.key)
    # TLS 1.3 tells a client that it is refused only after its side of the handshake.
    with pytest.raises((OSError, WireError)):
        await who(mutual, context)
    assert mutual.server.counters.calls.started == 0
    assert not mutual.server.connections


async def test_a_server_of_another_authority_is_not_called(
    plain: Listener, other: Authority
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await who(plain, client_context(other.certificate))


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
async def test_a_caller_that_does_not_agree_on_http2_is_hung_up_on(
    plain: Listener, authority: Authority, protocols: list[str]
) -> None:
    context = ssl.create_default_context(cafile=authority.certificate)
    if protocols:
        context.set_alpn_protocols(protocols)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", plain.port, ssl=context, server_hostname="localhost"
    )
    assert await reader.read() == b""
    writer.close()
    assert not plain.server.connections


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(plain: Listener, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_alpn_protocols(["h2"])
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(
            "127.0.0.1", plain.port, ssl=context, server_hostname="localhost"
        )


async def test_a_handshake_that_stops_is_given_up(plain: Listener) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(bytes.fromhex("1603010200"))
    try:
        assert await reader.read() == b""
    except OSError:
        assert not plain.server.connections
    writer.close()


async def test_plain_text_to_a_tls_port_harms_nobody(plain: Listener, authority: Authority) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", plain.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
    try:
        while await reader.read(1_000):
            continue
    except OSError:
        assert not plain.server.connections
    writer.close()
    assert await who(plain, client_context(authority.certificate)) == b""
