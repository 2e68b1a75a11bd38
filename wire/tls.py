"""TLS contexts: version 1.2 or later, ALPN h2, and mutual where a client CA is given.

Every error names the file that is no good, and what it should be.
"""

import ssl
from pathlib import Path

ALPN = ["h2"]


class TlsError(Exception):
    """A file cannot be used. Says which and why."""


def server_context(certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """For a listener; with `client_ca` only callers with a certificate of its are let in.
    TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _prepare(context)
    _load_pair(context, certificate, key)
    if client_ca:
        _load_roots(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    """For an outgoing connection that trusts `ca` alone, and shows a certificate if given. Names
    are checked. TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _prepare(context)
    _load_roots(context, ca)
    if certificate:
        _load_pair(context, certificate, key)
    return context


def _prepare(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    # HTTP/2 forbids both (RFC 9113, 9.2.1).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    for path in (certificate, key):
        _require_file(path)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        # OpenSSL says "KEY_VALUES_MISMATCH" or that PEM is missing, and never the file.
        raise TlsError(
            f"{certificate} and {key}: no PEM certificate and its key: {error}"
        ) from error


def _load_roots(context: ssl.SSLContext, path: str) -> None:
    _require_file(path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsError(f"{path}: no PEM certificates of an authority: {error}") from error


def _require_file(path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise TlsError(f"{path}: cannot be read: {error.strerror}") from error
