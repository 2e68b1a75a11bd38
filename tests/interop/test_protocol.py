"""Requests that no client library makes: both fronts answer them, and where they differ it is said.

The table in docs/front.md rests on this, on the clients' cases, and on the tests of `wire/`.
"""

import gzip
from collections.abc import Iterator

import pytest

from tests.interop import messages as m
from tests.interop.fronts import FRONTS
from tests.interop.http2 import ask
from tests.interop.serving import interop_server

EMPTY = "/grpc.testing.TestService/EmptyCall"
UNARY = "/grpc.testing.TestService/UnaryCall"
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 3, 4, 8
UNIMPLEMENTED, INTERNAL = 12, 13
TOO_LARGE_BYTES = 17 * 1024 * 1024


class Server:
    """Where a front serves."""

    def __init__(self, front: str, port: int) -> None:
        self.front = front
        self.port = port


@pytest.fixture(scope="module", params=FRONTS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with interop_server(request.param) as port:
        yield Server(request.param, port)


@pytest.fixture(scope="module")
def fast_port() -> Iterator[int]:
    """Where the fast front serves."""
    with interop_server("nghttp2") as port:
        yield port


def framed(body: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message; `length` may lie."""
    size = len(body) if length is None else length
    return bytes([flag]) + size.to_bytes(4, "big") + body


NOTHING = framed(b"")
WISH = m.SimpleRequest(response_size=1_000).SerializeToString()


@pytest.mark.parametrize(
    "content_type", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"]
)
async def test_the_content_types_of_grpc_are_taken(server: Server, content_type: str) -> None:
    answer = await ask(server.port, EMPTY, NOTHING, content_type=content_type)
    assert (answer.status, answer.body) == (OK, NOTHING)
    assert answer.headers["content-type"] == "application/grpc"
    assert "gzip" in answer.headers["grpc-accept-encoding"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        pytest.param("/a.B/C", NOTHING, {}, UNIMPLEMENTED, id="unknown-service"),
        pytest.param(EMPTY + "s", NOTHING, {}, UNIMPLEMENTED, id="unknown-method"),
        pytest.param(EMPTY, framed(b"x", flag=1), {}, INTERNAL, id="compressed-by-nothing"),
        pytest.param(
            EMPTY, framed(b"x", flag=1), {"grpc_encoding": "gzip"}, INTERNAL, id="no-gzip"
        ),
        pytest.param(
            UNARY, framed(b"x", length=TOO_LARGE_BYTES), {}, RESOURCE_EXHAUSTED, id="too-large"
        ),
        pytest.param(UNARY, framed(b"\xff\xff"), {}, INVALID_ARGUMENT, id="no-such-message"),
        pytest.param(EMPTY, NOTHING, {"grpc_timeout": "soon"}, INTERNAL, id="no-deadline"),
        pytest.param(EMPTY, NOTHING, {"grpc_timeout": "0m"}, DEADLINE_EXCEEDED, id="too-late"),
        pytest.param(EMPTY, NOTHING, {"some_bin": "!"}, INTERNAL, id="no-base64"),
    ],
)
async def test_a_bad_request_ends_with_its_status_alone(
    server: Server, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await ask(server.port, path, body, **headers)
    assert answer.status == status
    assert answer.headers[":status"] == "200"
    assert answer.trailers_only


async def test_gzip_is_taken(server: Server) -> None:
    body = framed(gzip.compress(WISH), flag=1)
    answer = await ask(server.port, UNARY, body, grpc_encoding="gzip")
    assert answer.status == OK
    assert len(answer.body) > 1_000


async def test_an_unknown_encoding_is_refused_with_those_that_are_known(fast_port: int) -> None:
    """UNIMPLEMENTED, as the protocol says; grpcio answers INTERNAL and names none."""
    answer = await ask(fast_port, EMPTY, NOTHING, grpc_encoding="snappy")
    assert (answer.status, answer.trailers_only) == (UNIMPLEMENTED, True)
    assert answer.headers["grpc-accept-encoding"] == "identity,gzip"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"", UNIMPLEMENTED, id="none"),
        pytest.param(NOTHING + NOTHING, UNIMPLEMENTED, id="two"),
        pytest.param(framed(b"xx", length=10), INTERNAL, id="a-part-of-one"),
    ],
)
async def test_a_unary_request_is_one_whole_message(
    fast_port: int, body: bytes, status: int
) -> None:
    """grpcio takes the first of two, and leaves the other callers to their deadline."""
    answer = await ask(fast_port, EMPTY, body)
    assert (answer.status, answer.trailers_only) == (status, True)


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"method": "GET"}, "405", ("allow", "POST")),
        ({"content_type": "text/html"}, "415", ("accept-post", "application/grpc")),
        ({"content_type": "application/grpc+json"}, "415", ("accept-post", "application/grpc")),
    ],
)
async def test_what_is_no_grpc_is_told_so_in_http(
    fast_port: int, headers: dict[str, str], status: str, says: tuple[str, str]
) -> None:
    """grpcio takes any content type for its own, and resets what is no POST."""
    answer = await ask(fast_port, EMPTY, NOTHING, **headers)
    assert answer.headers[":status"] == status
    assert says in answer.headers.items()
    assert b"gRPC" in answer.body
