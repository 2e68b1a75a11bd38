"""A certificate authority of a test's own, by the openssl command."""

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.helpers.services import require


class Issued(NamedTuple):
    """PEM files of a certificate and its key."""

    certificate: str
    key: str


class Authority:
    """Issues certificates below a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        require(shutil.which("openssl") is not None, "openssl is not installed")
        self._folder = folder
        self.certificate = str(folder / "ca.pem")
        self._key = str(folder / "ca.key")
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", self._key, "-out", self.certificate, "-subj", f"/CN={name}"),
            *("-days", "2"),
        )

    def issue(self, name: str, *, names: str = "", password: str = "") -> Issued:
        """A certificate with this common name and alternative `names`, such as "DNS:localhost"."""
        base = self._folder / name
        key, request, certificate = f"{base}.key", f"{base}.csr", f"{base}.pem"
        locked = ("-passout", f"pass:{password}") if password else ("-nodes",)
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *locked),
            *("-keyout", key, "-out", request, "-subj", f"/CN={name}"),
        )
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\n" if names else "")
        _openssl(
            *("x509", "-req", "-in", request, "-out", certificate, "-days", "2"),
            *("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial"),
            *("-extfile", str(extensions)),
        )
        return Issued(certificate, key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
