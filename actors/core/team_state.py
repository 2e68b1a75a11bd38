"""Teams and their seats as a shard holds them, and the index by which they are found.

A seat is a reservation with a team. A team's row holds what records of its own said; who is in it
(`buyers`) and how many paid is counted over its seats, like the limits of buyers: while a snapshot
is completed nothing of that is kept, and `recount_teams` makes it anew at the end.

Open teams of a line stand in buckets by how many seats are free, within a bucket by deadline, so
that neither a suggestion nor a deadline looks at more than it answers.
"""

from collections.abc import Iterator

from actors.core.campaign_config import GroupRules, Tier
from actors.core.tables import Seconds

TEAM_FORMING, TEAM_FORMED, TEAM_FAILED, TEAM_CANCELLED = 1, 2, 3, 4
"""Team states, numbered as `stockray.v1.TeamState`."""

NOT_JOINABLE = 0
"""Bucket of forming teams that take nobody: unpaid by all, or full."""
FOR_EVER_MS = 1 << 60


class Group:
    """What a campaign's line says of its teams, and its teams that are forming."""

    __slots__ = ("capacity", "forming", "new_buyer_seats", "opened", "rules", "tiers")

    def __init__(self) -> None:
        self.tiers: tuple[Tier, ...] = ()
        self.rules = GroupRules(0, 0, 1, 0, 0, False)
        self.capacity = 0
        """Seats of a team: people of the last tier."""
        self.new_buyer_seats = 0
        """Of the rules, at hand."""
        self.opened = 0
        """Teams ever opened: from the first on, tiers and rules stand."""
        self.forming: dict[int, Seconds] = {}
        """Bucket (`Team.place`) -> keys of its teams by deadline."""

    def set_terms(self, tiers: tuple[Tier, ...], rules: GroupRules) -> None:
        """What the campaign's configuration says; refused once a team was opened."""
        self.tiers, self.rules = tiers, rules
        self.capacity = tiers[-1].people
        self.new_buyer_seats = rules.new_buyer_seats

    def joinable(self, new_buyer: bool) -> Iterator[Seconds]:
        """Buckets of teams that such a buyer may join, nearest to full first."""
        for place in sorted(self.forming):
            if place >= 2 and (new_buyer or not place & 1):
                yield self.forming[place]


class Team:
    """A team, from its opening on."""

    __slots__ = (
        "buyers",
        "campaign_id",
        "completed_by",
        "deadline_ms",
        "ended_ms",
        "group",
        "key",
        "leader",
        "leader_id",
        "members",
        "new_count",
        "new_paid",
        "opened_ms",
        "opener_id",
        "paid",
        "place",
        "seq",
        "sku_id",
        "state",
        "tier_people",
        "touched_ms",
        "unit_price_minor",
        "virtual",
    )

    key: bytes
    campaign_id: str
    sku_id: str
    group: Group
    opener_id: str
    opened_ms: int
    deadline_ms: int

    def __init__(self) -> None:
        self.state = TEAM_FORMING
        self.leader = b""
        """Key of the leader's seat, a paid one; b'' while there is none."""
        self.leader_id = ""
        self.members: tuple[bytes, ...] = ()
        """Of a team that ended: keys of the seats that were paid."""
        self.tier_people = self.unit_price_minor = self.virtual = 0
        """Of a formed one: the tier that it reached."""
        self.completed_by = ""
        """The caller who completed it by hand; '' of any other."""
        self.ended_ms = 0
        self.seq = 0
        """Entry of the last record of its own."""
        self.touched_ms = 0
        self.buyers: dict[str, bytes] = {}
        """Of a forming one: buyer -> key of the seat, reserved or paid."""
        self.paid = 0
        self.new_count = 0
        """Seats of new buyers, reserved or paid."""
        self.new_paid = 0
        self.place = -1
        """Its bucket in `group.forming`; -1: in none."""

    def free(self) -> int:
        """Seats that nobody holds."""
        return self.group.capacity - len(self.buyers)

    def missing_new(self) -> int:
        """Seats that are still to be taken by new buyers."""
        return max(0, self.group.new_buyer_seats - self.new_count)

    def takes(self, new_buyer: bool) -> bool:
        """Whether a free seat may go to such a buyer."""
        free = self.free()
        return free > 0 and (new_buyer or free > self.missing_new())


def find_place(team: Team) -> int:
    """The bucket where a team belongs: twice its free seats, odd if only new buyers may join."""
    if team.state != TEAM_FORMING:
        return -1
    group = team.group
    free = group.capacity - len(team.buyers)
    if not team.leader or free <= 0:
        return NOT_JOINABLE
    return 2 * free + (group.new_buyer_seats - team.new_count >= free)


def put_in_place(team: Team, now_ms: int) -> None:
    """After any change of a team: into the bucket where it belongs now."""
    _put_in(team, find_place(team), now_ms)


def after_taking(team: Team, now_ms: int) -> None:
    """As `put_in_place`, after a seat was taken: whether the team is open and led stays as it is,
    so a team that took anybody before is put by its seats alone."""
    before, group = team.place, team.group
    free = group.capacity - len(team.buyers)
    place = 2 * free + (0 < free <= group.new_buyer_seats - team.new_count)
    forming = group.forming
    if before < 2 or place not in forming:
        put_in_place(team, now_ms)
    else:
        forming[before].move(team.key, team.deadline_ms, forming[place])
        team.place = place


def _put_in(team: Team, place: int, now_ms: int) -> None:
    before = team.place
    if place == before:
        return
    # A bucket that is empty stays: there are no more of them than two for each seat.
    forming = team.group.forming
    if place >= 0 and place not in forming:
        forming[place] = Seconds()
    if before < 0:
        forming[place].add(team.key, team.deadline_ms, now_ms)
    elif place < 0:
        forming[before].remove(team.key, team.deadline_ms)
    else:
        forming[before].move(team.key, team.deadline_ms, forming[place])
    team.place = place
