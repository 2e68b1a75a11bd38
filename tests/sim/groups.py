"""Those who buy together: some seeds have them, and what they ask comes beside all else.

A party is somebody who opens a team, pays, and is followed by friends of whom some pay in time,
some late and some never; beside parties there are single acts by chance.
"""

import random
from collections.abc import Callable
from typing import Any

from actors.core import commands as c
from actors.core import team_commands as t
from actors.core.campaign_config import CampaignConfig, GroupRules, Tier
from actors.core.identity import public_id, request_key, slot_of
from actors.core.outcomes import Outcome
from tests.sim.callers import SALE, SKUS, Callers
from tests.sim.operations import Operation
from tests.sim.team_ledger import TeamLedger

BUYERS = ("ann", "bob", "cid", "dan", "eve")
TIERS = (Tier(2, 77), Tier(3, 61))
SLOT = slot_of(SALE)


def has_groups(seed: int) -> bool:
    """Half of the seeds; by chance of its own, so that the others are what they were without."""
    return random.Random(~seed).random() < 0.5


class Groups:
    """Asks for teams in the name of buyers."""

    def __init__(self, callers: Callers, ledger: TeamLedger) -> None:
        self._callers, self._rules = callers, ledger.rules
        self._world = callers.world
        self._teams: list[bytes] = []
        self._seats: list[tuple[str, Operation]] = []
        self._end_s = 0.0
        """From when on nobody asks any more."""

    def terms(self, config: CampaignConfig) -> CampaignConfig:
        """The campaign, sold to teams too."""
        chance = self._world.chance
        rules = GroupRules(
            window_ms=chance.choice((450, 900, 2_000)),
            new_buyer_seats=chance.choice((0, 0, 1)),
            teams_per_buyer=chance.choice((1, 2)),
            leader_discount_bps=chance.choice((0, 333)),
            nearly_full_seats=1,
            virtual_completion=True,
        )
        lines = tuple(line._replace(tiers=TIERS) for line in config.lines)
        return config._replace(lines=lines, group=rules)

    def schedule(self, length_s: float) -> None:
        """Choose when they come."""
        chance = self._world.chance
        self._end_s = self._world.now + length_s
        for _ in range(chance.randint(1, 2)):
            self._within(length_s * 0.7, self._party)
        for _ in range(chance.randint(2, 4)):
            self._within(length_s, self._something)

    def _within(self, within_s: float, act: Callable[..., None], *arguments: Any) -> None:
        def do() -> None:
            if self._world.now < self._end_s:
                act(*arguments)

        self._world.after(self._world.chance.random() * within_s, do)

    def _something(self) -> None:
        if self._seats:
            self._world.chance.choice(ACTS)(self)
        else:
            self._party()

    def _party(self) -> None:
        self._open(self._invite)

    def _open(self, then: Callable[[], None]) -> None:
        callers, chance = self._callers, self._world.chance
        name = callers.name("t")
        head = (t.OPEN_TEAM, SLOT, 0, "web", name, SALE, SKUS[0], 1, chance.choice(BUYERS))
        self._teams.append(request_key("team", request_key("web", name).hex()))
        self._sit(t.OpenTeam(*head, new_buyer=chance.random() < 0.5), then, pays=0.9)

    def _invite(self) -> None:
        team, chance = self._teams[-1], self._world.chance
        # As many as there are seats, or more: the last one is asked for by several.
        for buyer in chance.sample(BUYERS, chance.randint(2, 4)):
            self._within(0.4, self._join, team, buyer)

    def _join(self, team: bytes = b"", buyer: str = "") -> None:
        callers, chance = self._callers, self._world.chance
        key = team or chance.choice(self._teams[-3:])
        quantity = chance.choice((1, 1, 2))
        head = (t.JOIN_TEAM, SLOT, 0, "web", callers.name("j"), key, quantity)
        command = t.JoinTeam(*head, buyer or chance.choice(BUYERS), new_buyer=chance.random() < 0.6)
        self._sit(command, lambda: None, pays=0.7)

    def _sit(
        self, command: t.OpenTeam | t.JoinTeam, then: Callable[[], None], *, pays: float
    ) -> None:
        public = public_id(SLOT, request_key("web", command.request_id))

        def told(operation: Operation) -> None:
            chance = self._world.chance
            if operation.final != Outcome.RESERVED:
                return
            if chance.random() < 0.1:
                self._within(0.4, self._leave, public)
            if chance.random() < pays:
                # Some within the window, some after it.
                self._within(chance.choice((0.05, 0.05, 0.3, 1.2)), self._pay, public, then)

        operation = self._callers.ask(self._callers.share(command), told)
        self._seats.append((public, operation))
        self._callers.sold(public, operation)

    def _pay(self, public: str = "", then: Callable[[], None] = lambda: None) -> None:
        public = public or self._one()
        row = self._rules.held.get(public)
        due = 77 if row is None else row["payable"]
        payment = self._callers.payment_of(public)
        head = (c.CONFIRM, SLOT, 0, "web", public, payment)
        self._callers.ask(c.Confirm(*head, due), lambda _: then())

    def _one(self) -> str:
        return self._world.chance.choice(self._seats[-6:])[0]

    def _leave(self, public: str = "") -> None:
        chance = self._world.chance
        leaders = [team["leader"] for team in self._rules.teams.values() if team["leader"]]
        public = public or self._one()
        if leaders and chance.random() < 0.5:
            public = public_id(SLOT, chance.choice(leaders))
        self._callers.ask(t.LeaveTeam(t.LEAVE_TEAM, SLOT, 0, "web", public, "changed my mind"))

    def _complete(self) -> None:
        head = (t.COMPLETE_TEAM, SLOT, 0, "web", self._world.chance.choice(self._teams[-2:]))
        self._callers.ask(t.CompleteTeam(*head, 0, "goodwill"))

    def _short(self) -> None:
        head = (c.DECLARE_SHORTAGE, SLOT, 0, "web", self._callers.name("d"), SALE, SKUS[0])
        fields = (self._world.chance.randint(1, 8), "broken", False)
        self._callers.ask(c.DeclareShortage(*head, *fields))

    def _read(self) -> None:
        key = self._world.chance.choice(self._teams)
        self._callers.ask(t.GetTeam(t.GET_TEAM, SLOT, 0, "web", key))

    def _suggest(self) -> None:
        chance = self._world.chance
        head = (t.SUGGEST_TEAMS, SLOT, 0, "web", SALE, "", chance.choice(BUYERS))
        self._callers.ask(t.SuggestTeams(*head, chance.random() < 0.5, chance.choice((1, 5))))


ACTS: tuple[Callable[[Groups], None], ...] = (
    Groups._party,
    Groups._join,
    Groups._join,
    Groups._pay,
    Groups._pay,
    Groups._leave,
    Groups._leave,
    Groups._complete,
    Groups._short,
    Groups._read,
    Groups._suggest,
)
