"""The fast front passes h2spec, but for what has its reason."""

import pytest

from tests.interop import h2spec
from tests.interop.serving import interop_server
from tests.interop.toolchains import require_language

# The first test of a language builds its clients.
pytestmark = pytest.mark.timeout(900)


def test_the_fast_front_passes_h2spec() -> None:
    require_language("go")
    with interop_server(h2spec.FRONT) as port:
        cases = h2spec.run(port)
    assert len(cases) == h2spec.CASES
    known = {(case.package, case.title) for case in cases}
    assert set(h2spec.MAY_FAIL) <= known
    assert [case for case in cases if not case.passed and not case.excuse] == []
