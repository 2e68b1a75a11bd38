"""h2spec, the conformance test of HTTP/2, against the fast front.

grpcio's own HTTP/2 is not ours to mend, so it is not asked. h2spec tests the older RFC 7540 and
sends requests that are no gRPC, which are refused at once; what may therefore fail has its reason
here. Nothing else may.
"""

import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.interop import toolchains
from tests.interop.toolchains import ROOT

FRONT = "nghttp2"
CASES = 146
TIMEOUT_S = 240
ATTEMPTS_MORE = 5
SILENCE_S = 1
"""How long h2spec waits for an answer that does not come."""

_CLOSED = "nghttp2 drops frames of a closed stream, as RFC 9113 (5.1) allows"
_PRIORITY = "RFC 9113 took priorities out, and nghttp2 does not read them"
_EARLY = "may fail, since the refusal can close the stream before h2spec's next frame"
MAY_FAIL: Mapping[tuple[str, str], str] = {
    ("http2/5.1", "closed: Sends a DATA frame after sending RST_STREAM frame"): _CLOSED,
    ("http2/5.1", "closed: Sends a HEADERS frame after sending RST_STREAM frame"): _CLOSED,
    ("http2/5.1", "closed: Sends a DATA frame"): _CLOSED,
    ("http2/5.1", "closed: Sends a HEADERS frame"): _CLOSED,
    (
        "http2/5.1.1",
        "Sends stream identifier that is numerically smaller than previous",
    ): "nghttp2 counts a stream below the last one as closed, and drops its frames",
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"): _PRIORITY,
    ("http2/6.3", "Sends a PRIORITY frame with 0x0 stream identifier"): _PRIORITY,
    (
        "http2/6.9.1",
        "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 "
        "on a stream",
    ): "nghttp2 ends the connection (GOAWAY, FLOW_CONTROL_ERROR), not the stream alone",
    ("http2/5.1", "half closed (remote): Sends a DATA frame"): _EARLY,
    ("http2/5.1", "half closed (remote): Sends a HEADERS frame"): _EARLY,
    (
        "http2/6.1",
        'Sends a DATA frame on the stream that is not in "open" or "half-closed (local)" state',
    ): _EARLY,
    (
        "http2/6.9",
        "Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream",
    ): _EARLY,
    ("http2/8.1", "Sends a second HEADERS frame without the END_STREAM flag"): _EARLY,
    (
        "http2/8.1.2.1",
        "Sends a HEADERS frame that contains a pseudo-header field as trailers",
    ): _EARLY,
    (
        "http2/8.1.2.6",
        'Sends a HEADERS frame with the "content-length" header field which does not equal the '
        "DATA frame payload length",
    ): _EARLY,
    (
        "http2/8.1.2.6",
        'Sends a HEADERS frame with the "content-length" header field which does not equal the '
        "sum of the multiple DATA frames payload length",
    ): _EARLY,
}
"""(section, case) -> why it may fail."""


class Case(NamedTuple):
    """One case and how it ended."""

    package: str
    section: str
    title: str
    passed: bool
    said: str

    @property
    def excuse(self) -> str:
        """Why it may fail; '' if it must pass."""
        return MAY_FAIL.get((self.package, self.title), "")


def run(port: int) -> list[Case]:
    """All cases of h2spec, the strict ones too. A refusal can close the stream before h2spec sends
    what it is to be told about; so a case that must pass and has not is asked again, and has failed
    if it never passes. AssertionError if h2spec does not end."""
    cases = {(case.package, case.title): case for case in _asked(port)}
    for _ in range(ATTEMPTS_MORE):
        failed = {key for key, case in cases.items() if not case.passed and not case.excuse}
        if not failed:
            break
        again = _asked(port, *sorted({package for package, _ in failed}))
        cases |= {key: case for case in again if (key := (case.package, case.title)) in failed}
    return list(cases.values())


def _asked(port: int, *sections: str) -> list[Case]:
    """One run of h2spec; of all sections if none is named."""
    with tempfile.TemporaryDirectory(prefix="sr-") as folder:
        report = Path(folder) / "junit.xml"
        where = ["--host", "127.0.0.1", "--port", str(port)]
        how = ["--strict", "--timeout", str(SILENCE_S), "--junit-report", str(report)]
        done = subprocess.run(
            [toolchains.binary("h2spec"), *where, *how, *sections],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
        return [
            Case(
                package=suite.get("package", ""),
                section=suite.get("name", ""),
                title=case.get("classname", ""),
                passed=not len(case),
                said="".join(case.itertext()).strip(),
            )
            for suite in ET.parse(report).getroot()
            for case in suite
        ]
