"""Risk profiles as an account shard holds them, and the index of who is over a line.

A profile is there only while it says something: a score below 100, or a freeze. Its row is found
from its slot alone; the index is of the whole shard, is counted over the rows, and is made anew
when a snapshot was loaded.

The index is what gateways pull: the profiles that are over a line, in the order of their last
change, and for a while those that no longer are. Both together are bounded. When there are more,
the one that changed longest ago goes: of who is over no line only the news is lost, and whoever
would need it takes the whole set again; of who is over one, the edge knows nothing any more. So
`CHANGES_MAX` is how many buyers of one shard can be refused at once.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from actors.core.tables import Deadlines

HOUR_MS = 3_600_000
SCORE_MAX = 100
UNKNOWN_SCORE = -1
"""What a gateway says of a buyer while its set is too old."""
LOW_SCORE = 40
"""Gateways know the scores below this one; all others are as good as 100 to them."""
RATE_HIT, UNPAID, FAILED_PAYMENT, RETURN = 0, 1, 2, 3
WEIGHTS = (2, 5, 10, 3)
"""By signal: what it takes from the score, which heals by 1 an hour."""
HITS_A_REPORT_MAX = 5
"""Of a gateway's report of rate-limit hits, so many count: an impatient finger is no fraud."""

FAILURES_TO_FREEZE = 3
FAILURE_WINDOW_MS = 5 * 60_000
FAILURES_KEPT_MS = 2 * FAILURE_WINDOW_MS
"""Facts of different stock shards come in any order: a failure waits this long for older ones."""
FAILURES_MAX = 8
"""Kept of a buyer who is frozen already and goes on failing."""
FREEZE_MS = 24 * HOUR_MS
FREEZE_KEPT_MS = 60_000
"""So long a profile stays after its freeze was changed, ended or not: what the commission programme
was told before may still be on its way to it, for seconds, and the next change must be told as a
later one."""

PROFILES_MAX = 1_000_000
"""Of one shard; beyond it only payment failures and freezes make new ones."""
CHANGES_MAX = 100_000


class Profile:
    """What is known of a buyer's conduct."""

    __slots__ = (
        "caller",
        "cause",
        "counts",
        "due_ms",
        "failures",
        "frozen_as_of_ms",
        "frozen_until_ms",
        "reason",
        "seq",
        "told_as_of_ms",
        "whole_ms",
    )

    def __init__(self) -> None:
        self.whole_ms = 0
        """When the score is 100 again."""
        self.counts: tuple[int, ...] = (0, 0, 0, 0)
        """Signals by kind, since the profile began."""
        self.failures: tuple[int, ...] = ()
        self.frozen_until_ms = 0
        """0: not frozen."""
        self.frozen_as_of_ms = 0
        """When somebody changed that last; 0: nobody has. Each change has an instant of its own."""
        self.cause = 0
        self.caller = ""
        self.reason = ""
        self.told_as_of_ms = 0
        """Of the newest change that the commission programme knows of."""
        self.seq = 0
        """Entry of the last change."""
        self.due_ms = 0
        """When time changes it next, as the index has it; 0: by itself it does not."""

    def score(self, now_ms: int) -> int:
        """0 to 100, the best."""
        return score_at(self.whole_ms, now_ms)

    def untold(self) -> bool:
        """Whether the commission programme is to be told of a freeze or of its end."""
        return self.told_as_of_ms < self.frozen_as_of_ms

    def next_as_of_ms(self, now_ms: int) -> int:
        """The instant of a change that is decided now."""
        return max(now_ms, self.frozen_as_of_ms + 1)

    def rests_ms(self) -> int:
        """When nothing is left to say, if nothing is to be told."""
        kept_ms = self.frozen_as_of_ms + FREEZE_KEPT_MS if self.frozen_as_of_ms else 1
        return max(self.whole_ms, kept_ms)


class Change(NamedTuple):
    """What the edge is told of a buyer; both 0: over no line any more."""

    seq: int
    frozen_until_ms: int
    whole_ms: int


class RiskIndex:
    """What is counted over all profiles of a shard."""

    __slots__ = ("changes", "count", "due", "floor", "untold")

    def __init__(self) -> None:
        self.changes: OrderedDict[str, Change] = OrderedDict()
        """By buyer, in the order of the last change."""
        self.floor = 0
        """Of entries up to this one it is not known who came from above a line to below it."""
        self.count = 0
        """Profiles."""
        self.due = Deadlines()
        """Buyers by when their freeze ends, or their score is whole."""
        self.untold: dict[str, None] = {}
        """Buyers whose freeze, or its end, the commission programme does not know of."""

    def recount(self, profiles: Iterable[tuple[str, Profile]], seq: int, now_ms: int) -> None:
        """Begin anew with these, as of this entry."""
        self.changes.clear()
        self.untold.clear()
        self.due = Deadlines()
        self.count = 0
        for buyer_id, profile in sorted(profiles, key=lambda item: item[1].seq):
            profile.due_ms = 0
            self.count += 1
            self.touch(buyer_id, profile, now_ms)
        # After them: what was dropped of theirs is no news of before.
        self.floor = seq

    def touch(self, buyer_id: str, profile: Profile, now_ms: int) -> None:
        """The profile changed."""
        frozen = profile.frozen_until_ms > 0
        self._remember(buyer_id, profile, frozen or profile.score(now_ms) < LOW_SCORE)
        untold = profile.untold()
        if untold:
            self.untold[buyer_id] = None
        else:
            self.untold.pop(buyer_id, None)
        due_ms = profile.frozen_until_ms if frozen else 0 if untold else profile.rests_ms()
        if due_ms != profile.due_ms:
            key = buyer_id.encode()
            if profile.due_ms:
                self.due.remove(key, profile.due_ms)
            if due_ms:
                self.due.add(key, due_ms, now_ms)
            profile.due_ms = due_ms

    def drop(self, buyer_id: str, profile: Profile, seq: int) -> None:
        """The profile left memory in this entry."""
        if profile.due_ms:
            self.due.remove(buyer_id.encode(), profile.due_ms)
            profile.due_ms = 0
        self.untold.pop(buyer_id, None)
        self.count -= 1
        if self.changes.pop(buyer_id, None) is not None:
            self._put(buyer_id, Change(seq, 0, 0))

    def _remember(self, buyer_id: str, profile: Profile, over: bool) -> None:
        if self.changes.pop(buyer_id, None) is None and not over:
            return
        if over:
            change = Change(profile.seq, profile.frozen_until_ms, profile.whole_ms)
        else:
            change = Change(profile.seq, 0, 0)
        self._put(buyer_id, change)

    def _put(self, buyer_id: str, change: Change) -> None:
        self.changes[buyer_id] = change
        while len(self.changes) > CHANGES_MAX:
            _, lost = self.changes.popitem(last=False)
            self.floor = max(self.floor, lost.seq)


def score_at(whole_ms: int, now_ms: int) -> int:
    """The score of who is whole at `whole_ms`: each hour until then, begun or not, is a point."""
    missing = -(-max(0, whole_ms - now_ms) // HOUR_MS)
    return SCORE_MAX - min(SCORE_MAX, missing)
