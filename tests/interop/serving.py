"""The interop server as a process of its own, plain or with TLS, and certificates for it."""

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.toolchains import ROOT, python_module

TLS_NAME = "stock.test"
STORE_PASSWORD = "changeit"
STOP_TIMEOUT_S = 20


@contextmanager
def interop_server(front: str, *, tls: bool = False) -> Iterator[int]:
    """Serves by one front until the block ends; gives the port."""
    flags = ["--tls-folder", str(certificates())] if tls else []
    process = subprocess.Popen(
        [*python_module("server"), "--front", front, *flags],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the interop server did not start: exit code {process.wait(STOP_TIMEOUT_S)}"
        yield int(json.loads(line)["port"])
        assert process.poll() is None, "the interop server ended under its clients"
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
        process.stdout.close()


@functools.cache
def certificates() -> Path:
    """A folder with `key.pem` and `cert.pem` for `TLS_NAME`, made by the system's openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("NOT RUN: openssl is not installed, so no TLS")
    folder = _kept_folder()
    subject = ["-subj", f"/CN={TLS_NAME}", "-addext", f"subjectAltName=DNS:{TLS_NAME}"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
    subprocess.run(
        ["openssl", "req", *kind, *subject, *files], cwd=folder, check=True, capture_output=True
    )
    return folder


@functools.cache
def java_trust_store() -> Path:
    """The certificate as Java wants it."""
    folder = certificates()
    store = folder / "trust.p12"
    words = ["-importcert", "-noprompt", "-alias", "interop", "-storetype", "PKCS12"]
    files = ["-file", "cert.pem", "-keystore", store.name, "-storepass", STORE_PASSWORD]
    subprocess.run(["keytool", *words, *files], cwd=folder, check=True, capture_output=True)
    return store


_folders: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when this process ends."""


def _kept_folder() -> Path:
    _folders.append(tempfile.TemporaryDirectory(prefix="sr-tls-"))
    return Path(_folders[-1].name)
