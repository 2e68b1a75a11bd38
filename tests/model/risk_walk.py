"""Random histories of buyers' conduct, on a desk and beside the naive rules.

At every step the desk must say what the naive rules say, each edge must refuse whom they freeze,
and now and then a replica and a snapshot that was written in the middle must be the state.
"""

import itertools
import random

from actors.core.identity import account_slot
from actors.core.snapshot import Loader, chunks, digest
from actors.core.state import ShardState
from tests.model.naive_risk import HOUR_MS, MINUTE_MS, NaiveRisk, Signal
from tests.model.risk_desk import Desk, Edge
from tests.model.shop import replay

BUYERS = ("ann", "bob", "cat", "dan")
STEPS = 60
PAUSES_MS = (0, 1, 40_000, MINUTE_MS, 4 * MINUTE_MS, HOUR_MS, 7 * HOUR_MS, 30 * HOUR_MS)
ACTS = (
    *("fail", "fail", "fail", "unpaid", "return", "hit", "freeze", "unfreeze", "wait", "tell"),
    *("storm", "raid"),
)
CAUSES = {0: "", 1: "failures", 2: "operator"}


class Walk:
    """One history."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.desk = Desk()
        self.naive = NaiveRisk()
        self.edges = [Edge(self.desk), Edge(self.desk)]
        self.programme: dict[str, tuple[int, int]] = {}
        """What the commission programme knows of whom: as of when, and held until when."""
        self.tellings: list[tuple[str, int, int]] = []
        """All that was ever told: each may come once more, at a chance of its own."""
        self.late = random.Random(seed)

    def step(self) -> None:
        """Something happens, or time passes."""
        desk, naive, buyer = self.desk, self.naive, self.chance.choice(BUYERS)
        act = self.chance.choice(ACTS)
        if act == "fail":
            desk.fail_to_pay(buyer)
            naive.signal(buyer, Signal("failed", desk.now_ms), desk.now_ms)
        elif act == "unpaid":
            desk.leave_unpaid(buyer)
            naive.signal(buyer, Signal("unpaid", desk.now_ms), desk.now_ms)
        elif act == "return":
            desk.send_back(buyer)
            naive.signal(buyer, Signal("returned", desk.now_ms), desk.now_ms)
        elif act == "hit":
            times = self.chance.choice((1, 2, 9))
            desk.hit_the_limit(buyer, times)
            naive.signal(buyer, Signal("hit", desk.now_ms, min(times, 5)), desk.now_ms)
        elif act == "freeze":
            length_ms = self.chance.choice((MINUTE_MS, HOUR_MS, 50 * HOUR_MS))
            desk.freeze(buyer, length_ms)
            naive.freeze(buyer, desk.now_ms + length_ms)
        elif act == "unfreeze":
            desk.unfreeze(buyer)
            naive.unfreeze(buyer, desk.now_ms)
        elif act == "storm":
            for _ in range(12):
                desk.leave_unpaid(buyer)
                naive.signal(buyer, Signal("unpaid", desk.now_ms), desk.now_ms)
        elif act == "raid":
            desk.open()
            for other in BUYERS:
                desk.freeze(other, HOUR_MS)
                naive.freeze(other, desk.now_ms + HOUR_MS)
            desk.close()
        elif act == "tell":
            self._tell_the_programme()
        else:
            desk.wait(self.chance.choice(PAUSES_MS))

    def _tell_the_programme(self) -> None:
        for buyer in list(self.desk.state.risk.untold):
            profile = self.desk.state.slot(account_slot(buyer)).profiles.get(buyer)
            assert profile is not None
            told = (buyer, profile.frozen_as_of_ms, profile.frozen_until_ms)
            self.tellings.append(told)
            self._told(*told)
        for told in self.late.sample(self.tellings, min(3, len(self.tellings))):
            self._told(*told)
        assert not self.desk.state.risk.untold
        now_ms = self.desk.now_ms
        for buyer in BUYERS:
            _, until_ms = self.programme.get(buyer, (0, 0))
            known_ms = until_ms if until_ms > now_ms else 0
            assert known_ms == self.naive.frozen_until(buyer, now_ms), "what the programme knows"

    def _told(self, buyer: str, as_of_ms: int, until_ms: int) -> None:
        self.programme[buyer] = max((as_of_ms, until_ms), self.programme.get(buyer, (0, 0)))
        self.desk.told(buyer, as_of_ms)

    def pulse(self) -> None:
        """What is over ends, in slices."""
        while self.desk.pulse_risk(2):
            pass

    def check(self) -> None:
        """The desk says what the naive rules say, and the edges do what it says."""
        desk, naive, now_ms = self.desk, self.naive, self.desk.now_ms
        for buyer in BUYERS:
            score, until_ms, cause, *_ = desk.view(buyer)
            assert score == naive.score(buyer, now_ms), f"the score of {buyer}"
            assert until_ms == naive.frozen_until(buyer, now_ms), f"the freeze of {buyer}"
            assert CAUSES[cause] == naive.by(buyer, now_ms), f"who froze {buyer}"
        frozen = {buyer for buyer in BUYERS if naive.frozen_until(buyer, now_ms)}
        low = {buyer for buyer in BUYERS if naive.score(buyer, now_ms) < 40}
        for edge in self.edges:
            if self.chance.random() < 0.5:
                edge.pull()
                assert edge.frozen() == frozen, "whom the edge refuses"
                assert low <= set(edge.set.rows), "whose score is low"

    def check_replicas(self) -> None:
        """A fold of the journal, and a snapshot that is completed by it, are the state."""
        state = self.desk.state
        assert digest(self.desk.replica()) == digest(state), "the replica differs"
        loader = Loader(ShardState(), self.began)
        state.seq = len(self.desk.journal)  # What was only read is no entry.
        loader.read([*self.taken, *self.rest])
        if loader.end_seq > self.began:
            replay(loader.state, self.desk.journal[: loader.end_seq], self.began)
            loader.finish()
        loaded = loader.state
        replay(loaded, self.desk.journal, loader.end_seq)
        assert digest(loaded) == digest(state), "the snapshot differs"
        assert loaded.risk.count == state.risk.count, "profiles are counted otherwise"
        assert set(loaded.risk.untold) == set(state.risk.untold), "what is untold differs"
        mine, other = loaded.risk.changes, state.risk.changes
        over = {buyer: change for buyer, change in other.items() if any(change[1:])}
        now_ms = self.desk.now_ms
        assert {buyer for buyer, change in mine.items() if change[1] > now_ms} == {
            buyer for buyer, change in over.items() if change[1] > now_ms
        }, "who is over a line differs"
        due = [sorted(one.risk.due.due(2**60, 99)) for one in (loaded, state)]
        assert due[0] == due[1], "what is due differs"
        # The loaded one goes on: both are the same from here on, and the edges cannot tell.
        self.desk.state = loaded

    def begin_snapshot(self) -> None:
        """Write its first chunks."""
        self.began = self.desk.state.seq = len(self.desk.journal)
        self.rest = chunks(self.desk.state)
        self.taken = list(itertools.islice(self.rest, self.chance.randrange(3)))


def walk(seed: int) -> None:
    """One history from its seed. AssertionError or Impossible if a rule does not hold."""
    one = Walk(seed)
    for at in range(STEPS):
        if at % 20 == 0:
            one.begin_snapshot()
        one.step()
        if one.chance.random() < 0.7:
            one.pulse()
        one.check()
        if at % 20 == 19:
            one.check_replicas()
    one._tell_the_programme()
    one.desk.wait(4_000 * HOUR_MS)
    one.pulse()
    assert one.desk.remembered() == set(), "profiles stay in memory"
    assert one.desk.state.risk.count == 0
