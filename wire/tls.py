"""TLS contexts: version 1.2 or later, ALPN h2, and mutual where a client CA is given.

Every error names the file that is no good, and what it should be.
"""

import ssl
from pathlib import Path
from typing import Any

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
    # HTTP/2 forbids both (RFC 9113, 9.2.1); renegotiation is also work for the asking.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Of TLS 1.2 only what HTTP/2 allows (RFC 9113, 9.2.2): forward secrecy, and AEAD.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    for path in (certificate, key):
        _require_file(path)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        raise TlsError(f"{key}: is encrypted; give a key without a password") from None
    except ssl.SSLError as error:
        # OpenSSL says "KEY_VALUES_MISMATCH" or that PEM is missing, and never the file.
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key}: is not the key of {certificate}") from error
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


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    """Called for a key that is encrypted; else OpenSSL would ask at the terminal, and wait."""
    raise _Encrypted


def identity_of(certificate: Any) -> str:
    """Who a verified client certificate speaks for: its first URI name (SPIFFE), else its first
    other name, else its common name; '' without a certificate."""
    if not certificate:
        return ""
    names = certificate.get("subjectAltName", ())
    subject = [field for part in certificate.get("subject", ()) for field in part]
    found = [
        *(value for kind, value in names if kind == "URI"),
        *(value for _, value in names),
        *(value for kind, value in subject if kind == "commonName"),
    ]
    return str(found[0]) if found else ""
