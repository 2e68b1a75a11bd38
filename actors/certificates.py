"""The cluster's certificate: what its processes know each other by across nodes.

One certificate that signs itself, and its key, are made anew at every start and given to every
process of the cluster. Each end of a connection shows it and takes no other, so whoever holds the
key is of the cluster: it is the cluster's secret. It travels as the other constructor arguments do,
over Ray, whose port must be private anyway: who reaches that may run any code.

It is made by the `openssl` command, on the machine that starts the cluster and nowhere else.
"""

import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wire.tls import client_context, server_context

SERVER_NAME = "shards.stockray.internal"
"""What the certificate is for: no host's name, since every process shows the same one."""
VALID_DAYS = 3_650
MAKE_TIMEOUT_S = 20


class NoCertificate(Exception):
    """The certificate could not be made. Says what to do."""


def make_certificate() -> str:
    """A new certificate and its key, as PEM text. NoCertificate."""
    with tempfile.TemporaryDirectory(prefix="sr-") as directory:
        key, certificate = Path(directory) / "key.pem", Path(directory) / "certificate.pem"
        command = [
            *("openssl", "req", "-x509", "-nodes", "-days", str(VALID_DAYS)),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-keyout", str(key), "-out", str(certificate)),
            *("-subj", f"/CN={SERVER_NAME}"),
            *("-addext", f"subjectAltName=DNS:{SERVER_NAME}"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=MAKE_TIMEOUT_S)
        except FileNotFoundError as error:
            raise NoCertificate("the openssl command is missing: install openssl") from error
        except subprocess.TimeoutExpired as error:
            raise NoCertificate(f"openssl took more than {MAKE_TIMEOUT_S} s") from error
        except subprocess.CalledProcessError as error:
            told = error.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason"]
            raise NoCertificate(f"openssl req failed: {told[-1]}") from error
        return certificate.read_text() + key.read_text()


def listening_context(certificate: str) -> ssl.SSLContext:
    """For the end that listens: it asks its callers for the certificate too."""
    with _file_of(certificate) as path:
        return _newest(server_context(path, path, client_ca=path))


def calling_context(certificate: str) -> ssl.SSLContext:
    """For the end that calls, by the server name `SERVER_NAME`."""
    with _file_of(certificate) as path:
        return _newest(client_context(path, path, path))


@contextmanager
def _file_of(certificate: str) -> Iterator[str]:
    """The ssl module reads keys from files only; this one is of this user alone, and soon gone."""
    with tempfile.NamedTemporaryFile("w", prefix="sr-", suffix=".pem") as file:
        file.write(certificate)
        file.flush()
        yield file.name


def _newest(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
