"""docs/front.md says how every case ended, and each that is not passed has its reason."""

import re

from tests.interop import h2spec, sale
from tests.interop.cases import CASES, LEFT_OUT, LEFT_OUT_ON
from tests.interop.fronts import FRONTS
from tests.interop.report import DOCUMENT, PASSED


def table(name: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(f"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    assert found, name
    lines = found[1].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_case_of_the_official_clients_is_listed_and_passed_or_has_its_reason() -> None:
    listed = {(case.strip("`"), client): rest for case, client, *rest in table("interop")}
    ran = {(case, client) for client, cases in CASES.items() for case in cases}
    assert set(listed) == ran | {(case, "") for case in LEFT_OUT}
    for (case, client), (*results, why) in listed.items():
        if not client:
            assert (results, why) == (["skipped"] * len(FRONTS), LEFT_OUT[case])
            continue
        left_out = {f: LEFT_OUT_ON[f, case] for f in FRONTS if (f, case) in LEFT_OUT_ON}
        assert results == ["skipped" if front in left_out else PASSED for front in FRONTS], case
        assert why == "; ".join(set(left_out.values()))


def test_every_client_of_the_sale_is_listed_and_passed() -> None:
    assert table("sale") == [[client, *[PASSED] * len(FRONTS)] for client in sale.CLIENTS]


def test_every_case_of_h2spec_is_counted_and_those_not_passed_have_their_reasons() -> None:
    *sections, (_, cases, passed, _) = table("h2spec")
    assert int(cases) == h2spec.CASES == sum(int(section[1]) for section in sections)
    assert int(passed) == sum(int(section[2]) for section in sections)
    for name, count, good, why in sections:
        missed = [said.rpartition(": ") for said in why.split("; ")] if why else []
        assert len(missed) == int(count) - int(good), name
        assert {reason for _, _, reason in missed} <= set(h2spec.MAY_FAIL.values()), name
