"""Honest buyers behind one address, and how many of them the edge turns away.

No cluster is needed: the edge of one gateway is asked in virtual time. Each buyer of the crowd
comes once, at some instant of the first minute of a sale, half of them in its first five seconds;
who is refused comes again when told to, twice at most, and then gives up.
"""

import random
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from actors.core.commands import RESERVE, Reserve
from server.edge import PROFILES, Edge

CROWDS = (100, 600, 1_000, 3_000)
"""Buyers who share an address: an office, a campus, the exit of a mobile network."""
OPENING_S, MINUTE_S = 5.0, 60.0
TRIES = 3
ADDRESS = "203.0.113.7"


class HonestCrowd(NamedTuple):
    """A crowd, and what became of it."""

    risk_profile: str
    buyers: int
    refused_first_percent: float
    """Buyers whose first attempt was refused."""
    turned_away_percent: float
    """Buyers who gave up."""


def measure_honest() -> list[HonestCrowd]:
    """Every crowd under every profile."""
    return [_crowd(profile, buyers) for profile in PROFILES for buyers in CROWDS]


def _crowd(profile: str, buyers: int) -> HonestCrowd:
    now_s = 0.0
    edge = Edge(PROFILES[profile], now_s=lambda: now_s, now_ms=lambda: int(now_s * 1_000))
    chance = random.Random(buyers)
    coming = [
        (chance.uniform(0, OPENING_S if chance.random() < 0.5 else MINUTE_S), number, 1)
        for number in range(buyers)
    ]
    heapify(coming)
    first = gone = 0
    while coming:
        now_s, number, attempt = heappop(coming)
        refusal = edge.refusal(_wish(number), edge.begin(1))
        if refusal is None:
            continue
        first += attempt == 1
        gone += attempt == TRIES
        if attempt < TRIES:
            heappush(coming, (now_s + refusal[2] / 1_000, number, attempt + 1))
    return HonestCrowd(profile, buyers, first * 100 / buyers, gone * 100 / buyers)


def _wish(number: int) -> Reserve:
    buyer = f"u-{number}"
    return Reserve(RESERVE, 0, 0, "", buyer, "sale", "sku", 1, buyer, ip=ADDRESS)
