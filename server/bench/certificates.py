"""A certificate for a benchmark over TLS, made with the openssl command: its own root, one day."""

import shutil
import subprocess
from pathlib import Path

from server.bench.result import CannotMeasure
from server.echo import Certificate


def make_certificate(directory: Path) -> Certificate:
    """For "localhost" and 127.0.0.1. CannotMeasure without openssl."""
    program = shutil.which("openssl")
    if program is None:
        raise CannotMeasure("--tls needs the openssl command, which is not installed")
    made = Certificate(str(directory / "localhost.pem"), str(directory / "localhost.key"))
    done = subprocess.run(
        [
            *(program, "req", "-x509", "-nodes", "-days", "1"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", made.key, "-out", made.certificate),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotMeasure(f"openssl made no certificate: {done.stderr[-500:]}")
    return made
