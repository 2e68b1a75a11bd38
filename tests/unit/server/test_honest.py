"""The crowd behind one address that the benchmark tells of."""

from server.bench.honest import CROWDS, measure_honest


def test_a_campus_buys_under_the_default_rates_and_not_under_strict_ones() -> None:
    found = {(one.risk_profile, one.buyers): one for one in measure_honest()}
    assert len(found) == 2 * len(CROWDS)
    for buyers in (100, 600):
        assert found["default", buyers].turned_away_percent == 0
    assert found["default", 3_000].turned_away_percent > 0
    assert found["strict", 600].turned_away_percent > 50
    for one in found.values():
        assert one.turned_away_percent <= one.refused_first_percent
