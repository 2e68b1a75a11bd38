"""Finding a shard's primary among its two replicas, or making one.

Rules
-----
* Every answer carries (epoch, owner). On NOT_PRIMARY the highest epoch seen is followed, and nobody
  is promoted while that owner is one of the two instances that answer.
* Only OK proves ownership, for it follows a check. BUSY is believed of the highest epoch alone.
* A closed link is a dead primary, known at once, also between two rounds. A silent one may only be
  slow: nobody is promoted in its place before it left all questions of `SILENCE` unanswered, nor
  in the place of an owner whom a gateway that has just started could not greet yet.
* A promotion from an owner whom nobody knows to be dead is counted, and logged, as a false alarm:
  on a machine of its own a node that died counts as well, for nobody says so.
* A standby is asked to take over with the epoch seen last; if it says NOT_READY, both are asked
  again, however long it takes.
* A standby that came back is greeted before it is needed: the way to an heir is known when the
  primary dies.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from actors.links import Link, LinkClosed
from actors.rounds import Answers, MalformedRound, RoundStatus, unpack_answers
from actors.shard import PromoteStatus

log = structlog.get_logger()

ASK, SILENCE = 0.4, 0.8
"""Of the time for a round: for the answer to one question, and how long a silence must last."""
GREET_EVERY_S = 0.5
GREET_TIMEOUT_S = 1.0


class Replica:
    """One of a shard's two replicas, as a gateway knows it."""

    __slots__ = ("closed_token", "dead_token", "link", "name", "silent_since")

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self.link = link
        self.dead_token = ""
        """Of the last instance that is known to be dead."""
        self.closed_token = ""
        """Of an instance whose link closed while a primary was looked for."""
        self.silent_since: float | None = None
        """When the first of the questions was asked that it left unanswered."""

    def bury_closed(self) -> None:
        """Bury an instance whose link closed during a search, unless the search did, or met the
        next one."""
        closed, self.closed_token = self.closed_token, ""
        if closed and self.link.token == closed:
            self.bury()

    def bury(self) -> None:
        """The instance that `hello` met is gone."""
        self.dead_token = self.link.token or self.dead_token
        self.silent_since = None
        self.link.forget()


class PrimaryFinder:
    """Knows one shard's primary, or looks for it."""

    def __init__(
        self,
        *,
        shard: int,
        replicas: Sequence[Replica],
        empty_round: Callable[[], bytes],
        answer_timeout_ms: int,
        promotion_gap_ms: int,
    ) -> None:
        self.shard = shard
        self.epoch = 0
        self.owner = ""
        self.last_seq = 0
        """Of the newest entry that an answer is known to rest on."""
        self.failovers = 0
        self.false_alarms = 0
        """Of them, those that nobody's death explains, as far as known here."""
        self.primary: Replica | None = None
        self.ready = asyncio.Event()
        self._replicas = replicas
        self._empty_round = empty_round
        self._answer_timeout_ms = answer_timeout_ms
        self._promotion_gap_ms = promotion_gap_ms
        self._finding = asyncio.Lock()
        self._alarm = asyncio.Event()
        self._promoted_at = -1e9
        for replica in replicas:
            replica.link.on_closed = partial(self._closed, replica)

    def doubt(self, replica: Replica) -> None:
        """This one did not answer as a primary does: look again before the next round."""
        if self.primary is replica:
            self.primary = None
            self.ready.clear()

    def learn(self, epoch: int, owner: str, last_seq: int = 0) -> None:
        """An answer carried this; the highest epoch is followed, and who is promoted must find all
        entries that answers rest on."""
        self.last_seq = max(self.last_seq, last_seq)
        if epoch > self.epoch or (epoch == self.epoch and not self.owner):
            self.epoch, self.owner = epoch, owner

    async def find(self) -> Replica:
        """The primary, however long it takes to find or make one."""
        if self.primary is not None:
            return self.primary
        async with self._finding:
            attempts = 0
            while self.primary is None:
                if attempts:
                    await asyncio.sleep(0.02)
                attempts += 1
                await self._look()
            self.ready.set()
            return self.primary

    async def stay_acquainted(self) -> None:
        """For ever: greet whoever came back, since a hello over Ray to a process that is being
        started takes longer than a failover may, and look for a primary when its link closes, also
        when nobody calls."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(GREET_EVERY_S):
                    await self._alarm.wait()
                self._alarm.clear()
                await self.find()
            for replica in self._replicas:
                # While the primary is looked for, the search greets.
                if self._finding.locked():
                    continue
                if replica is not self.primary:
                    replica.bury_closed()
                if not replica.link.token:
                    await self._greet(replica)

    async def _greet(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(GREET_TIMEOUT_S):
                await replica.link.hello()
        except (LinkClosed, TimeoutError):
            return

    def _closed(self, replica: Replica) -> None:
        """Its process is gone. The primary's link stays closed, so that the next look need not ask
        it; the other's is forgotten, so that it is greeted again."""
        if self.primary is replica:
            log.warning("primary_gone", shard=self.shard, name=replica.name)
            self.doubt(replica)
            self._alarm.set()
        elif not self._finding.locked():
            replica.bury()
        else:
            # The search may be past it: unburied it would never be greeted again.
            replica.closed_token = replica.link.token

    async def _look(self) -> None:
        """One attempt: follow the owner that is known, else have a standby take over."""
        out: list[Replica] = []
        silent: list[Replica] = []
        busy: list[tuple[int, Replica]] = []
        for replica in self._replicas:
            answers = await self._ask(replica)
            if answers is None:
                silent.append(replica)
                continue
            self.learn(answers.epoch, answers.owner, answers.last_seq)
            if answers.status is RoundStatus.HALTED:
                out.append(replica)
                continue
            if answers.status is RoundStatus.OK and answers.epoch == self.epoch:
                self.primary = replica
                return
            if answers.status is RoundStatus.BUSY:
                busy.append((answers.epoch, replica))
        for epoch, replica in busy:
            if epoch == self.epoch:
                self.primary = replica
                return
        # An owner that halted never serves; the other replica may be whole.
        living = [replica for replica in self._replicas if replica not in out]
        owner = next((r for r in living if r.link.token == self.owner), None)
        if owner is not None and owner not in silent:
            return
        suspect = self._suspect(owner, silent)
        # An owner that no instance answers for is dead, and waiting helps nobody; a silent one may
        # only be slow, and promotions back and forth would help nobody either.
        if suspect is not None and (not self._silent_for_long(suspect) or self._promoted_lately()):
            return
        for replica in living:
            if replica is owner or replica in silent:
                continue
            if await self._promote(replica, suspect):
                return

    def _suspect(self, owner: Replica | None, silent: Sequence[Replica]) -> Replica | None:
        """Who may be an owner that lives: the one that is silent, or one not greeted yet."""
        if owner is not None or not self.owner:
            return owner
        if any(self.owner == replica.dead_token for replica in self._replicas):
            return None
        return next((replica for replica in silent if not replica.link.token), None)

    def _silent_for_long(self, replica: Replica) -> bool:
        since = replica.silent_since
        return since is not None and (
            (self._now() - since) * 1000 >= self._answer_timeout_ms * SILENCE
        )

    async def _ask(self, replica: Replica) -> Answers | None:
        """An empty round to a replica, after a hello if its instance may be a new one."""
        payload = self._empty_round()
        asked_at = self._now()
        try:
            async with asyncio.timeout(self._answer_timeout_ms * ASK / 1000):
                if not replica.link.token:
                    await replica.link.hello()
                answers = unpack_answers(await replica.link.round(payload))
                if answers.token != replica.link.token:
                    await replica.link.hello()
        except LinkClosed:
            replica.bury()
            return None
        except TimeoutError:
            if replica.silent_since is None:
                replica.silent_since = asked_at
            return None
        except MalformedRound:
            return None
        replica.silent_since = None
        return answers

    def _promoted_lately(self) -> bool:
        return (self._now() - self._promoted_at) * 1000 < self._promotion_gap_ms

    async def _promote(self, replica: Replica, suspect: Replica | None) -> bool:
        try:
            async with asyncio.timeout(self._answer_timeout_ms / 1000):
                status, epoch, owner = await replica.link.promote(self.epoch, self.last_seq)
        except (LinkClosed, TimeoutError) as error:
            log.warning("promote_failed", shard=self.shard, name=replica.name, error=str(error))
            return False
        self.learn(epoch, owner)
        if status is not PromoteStatus.OK:
            return False
        self._promoted_at = self._now()
        self.failovers += 1
        # Who was never greeted may be of an earlier start of the whole service.
        if suspect is not None and suspect.link.token:
            self.false_alarms += 1
            log.warning("false_alarm", shard=self.shard, name=suspect.name, epoch=epoch)
        self.primary = replica
        log.info("primary_found", shard=self.shard, name=replica.name, epoch=epoch)
        return True

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
