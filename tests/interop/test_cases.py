"""The official interop clients pass against both fronts, plain and with TLS.

Here grpc-go runs all its cases, and grpc-java those that only it has, so that this stays short;
`make interop` runs all cases of both.
"""

from collections.abc import Iterator

import pytest

from tests.interop.cases import GO_CASES, JAVA_ONLY_CASES, LEFT_OUT_ON, run_case
from tests.interop.fronts import FRONTS
from tests.interop.serving import interop_server
from tests.interop.toolchains import require_language

# The first test of a language builds its clients.
pytestmark = pytest.mark.timeout(900)


class Server:
    """Where a front serves, and how."""

    def __init__(self, front: str, port: int, *, tls: bool) -> None:
        self.front = front
        self.port = port
        self.tls = tls


@pytest.fixture(
    scope="module",
    params=[(front, tls) for front in FRONTS for tls in (False, True)],
    ids=lambda param: f"{param[0]}-{'tls' if param[1] else 'plain'}",
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The interop server by one front."""
    front, tls = request.param
    with interop_server(front, tls=tls) as port:
        yield Server(front, port, tls=tls)


def passes(server: Server, client: str, case: str) -> None:
    """AssertionError with the client's words unless the case passes."""
    if reason := LEFT_OUT_ON.get((server.front, case)):
        pytest.skip(reason)
    outcome = run_case(client, case, server.port, tls=server.tls)
    assert outcome.passed, outcome.output


@pytest.mark.parametrize("case", GO_CASES)
def test_the_official_go_client_passes(server: Server, case: str) -> None:
    require_language("go")
    passes(server, "grpc-go", case)


@pytest.mark.parametrize("case", JAVA_ONLY_CASES)
def test_the_official_java_client_passes_what_go_does_not_have(server: Server, case: str) -> None:
    if server.tls:
        pytest.skip("left to `make interop`: a JVM for each case takes time")
    require_language("java")
    passes(server, "grpc-java", case)
