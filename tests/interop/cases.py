"""The official interop clients of grpc-go and grpc-java: which cases they run, and how.

All cases that a client without Google's cloud can run are run; what is left out has its reason
here, and stands with it in `docs/front.md`.
"""

import subprocess
from collections.abc import Mapping
from typing import NamedTuple

from tests.interop import serving, toolchains
from tests.interop.toolchains import ROOT

GO_CASES = (
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
    "pick_first_unary",
    "rpc_soak",
    "channel_soak",
)
JAVA_ONLY_CASES = (
    "client_compressed_unary",
    "client_compressed_unary_noprobe",
    "client_compressed_streaming",
    "client_compressed_streaming_noprobe",
    "server_compressed_unary",
    "server_compressed_streaming",
    "very_large_request",
)
CASES: Mapping[str, tuple[str, ...]] = {
    "grpc-go": GO_CASES,
    "grpc-java": (*GO_CASES, *JAVA_ONLY_CASES),
}
"""Client -> its cases."""

_CLOUD = "needs an account of Google's cloud"
_ORCA = "a load report to a load balancer, which the service does not make"
LEFT_OUT: Mapping[str, str] = {
    "cacheable_unary": "needs a caching proxy before the server",
    "concurrent_large_unary": "no client has it; the sale makes 1,000 calls at once",
    "compute_engine_creds": _CLOUD,
    "compute_engine_channel_credentials": _CLOUD,
    "service_account_creds": _CLOUD,
    "jwt_token_creds": _CLOUD,
    "oauth2_auth_token": _CLOUD,
    "per_rpc_creds": _CLOUD,
    "google_default_credentials": _CLOUD,
    "orca_per_rpc": _ORCA,
    "orca_oob": _ORCA,
}
"""Case -> why no client runs it."""
_UNSEEN = "grpcio tells a server nothing of a request's compression, so it cannot refuse the probe"
LEFT_OUT_ON: Mapping[tuple[str, str], str] = {
    ("grpcio", "client_compressed_unary"): _UNSEEN,
    ("grpcio", "client_compressed_streaming"): _UNSEEN,
}
"""(front, case) -> why it is not run there."""

CASE_TIMEOUT_S = 60
SOAK = ("--soak_iterations=20", "--soak_overall_timeout_seconds=30")
SOAK_LATENCY_MS = 5_000
"""The machine is shared: the soak is for leaks and order, not for speed."""


class Outcome(NamedTuple):
    """How a case ended."""

    passed: bool
    output: str


def run_case(client: str, case: str, port: int, *, tls: bool) -> Outcome:
    """Run one case of one official client against a server on loopback."""
    flags = ["--server_host=127.0.0.1", f"--server_port={port}", f"--test_case={case}"]
    if case.endswith("soak"):
        flags += [*SOAK, f"--soak_per_iteration_max_acceptable_latency_ms={SOAK_LATENCY_MS}"]
    command = _go(tls) if client == "grpc-go" else _java(tls)
    if tls:
        flags.append(f"--server_host_override={serving.TLS_NAME}")
    try:
        done = subprocess.run(
            [*command, *flags],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=CASE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(passed=False, output=f"did not end in {CASE_TIMEOUT_S} s")
    return Outcome(passed=done.returncode == 0, output=(done.stdout + done.stderr)[-3000:])


def _go(tls: bool) -> list[str]:
    command = [toolchains.binary("go-interop-client")]
    if tls:
        command += ["--use_tls", f"--ca_file={serving.certificates()}/cert.pem", "--use_test_ca"]
    return command


def _java(tls: bool) -> list[str]:
    command = toolchains.java("io.grpc.testing.integration.TestServiceClient")
    if not tls:
        return [*command, "--use_tls=false"]
    trust = [
        f"-Djavax.net.ssl.trustStore={serving.java_trust_store()}",
        f"-Djavax.net.ssl.trustStorePassword={serving.STORE_PASSWORD}",
    ]
    return [command[0], *trust, *command[1:], "--use_tls=true"]
