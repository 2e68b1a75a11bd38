"""The scripts of `tests/bench` that measure accounts still run, at their smallest: a change of what
they call must change them too. What they print of CPU is judged by nobody here."""

import gc
import re
import sys
from collections.abc import Iterator

import pytest

from tests.bench import account_row, accrual_line, fact_line


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The scripts stop it."""
    yield
    gc.enable()
    gc.unfreeze()


def printed(
    script: object, *flags: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What a script prints."""
    patch.setattr(sys, "argv", ["script", *flags])
    script.main()  # type: ignore[attr-defined]
    return capsys.readouterr().out


def test_the_way_of_a_fact_is_measured_stage_by_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It asserts by itself that each order is in the ledger, and that the ledger sums to 0."""
    flags = ("--orders", "60", "--profile", "relay")
    out = printed(accrual_line, *flags, patch=monkeypatch, capsys=capsys)
    figures = re.findall(r"(\w+) (\d+\.\d\d) [+=]", out)
    assert [name for name, _ in figures] == list(accrual_line.STAGES)
    assert all(float(us) > 0 for _, us in figures)
    assert "relay.py" in out, "the profile names the relay's functions"


def test_what_an_order_costs_write_behind_is_measured_when_it_earns_and_when_it_matures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(account_row, "--orders", "60", patch=monkeypatch, capsys=capsys)
    assert re.findall(r"an order that ([a-z ]+):", out) == ["earns", "becomes available"]


def test_what_facts_cost_an_account_shard_is_measured_and_the_ledger_sums_to_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--facts", "100", "--distributors", "20")
    out = printed(fact_line, *flags, patch=monkeypatch, capsys=capsys)
    assert out.count("us per fact") == 6
    assert out.endswith("their sum 0\n")
