"""Keeps the two replicas of a shard on two nodes: a node that died and came back has another id, so
Ray itself would leave a pair where it found room, and the next death would take both.

Rules
-----
* Only a standby moves, only away from its twin, only while its twin says that it is the primary,
  and only if the pair was found together twice: what has just started is left alone.
* One at a time: the next one only when the pair of the last is whole. A shard has no standby while
  one moves (a process start and a load); it had none that would have outlived its node before.
* Whoever cannot be asked is left where it is; the next look is `LOOK_EVERY_S` later.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog

from actors import cluster
from actors.specs import REPLICAS, ClusterSpec, replica_name

log = structlog.get_logger()

LOOK_EVERY_S = 3.0
ANSWER_TIMEOUT_S = 2.0
END_TIMEOUT_S = 10.0


class Standing(NamedTuple):
    """Where a replica is, as it says itself."""

    node_id: str
    role: str


class Move(NamedTuple):
    """A standby that is to start again on another node."""

    shard: int
    replica: int
    """Index in REPLICAS."""
    node_id: str


def next_move(pairs: Sequence[Sequence[Standing | None]], nodes: Sequence[str]) -> Move | None:
    """The first standby that shares its primary's node though another one of `nodes` is alive, and
    the node with the fewest replicas that it can go to. None if no pair is to be parted. A replica
    that did not answer is None."""
    held = Counter(standing.node_id for pair in pairs for standing in pair if standing is not None)
    for shard, pair in enumerate(pairs):
        if any(standing is None for standing in pair):
            continue
        roles = [standing.role for standing in pair if standing is not None]
        places = {standing.node_id for standing in pair if standing is not None}
        if len(places) > 1 or sorted(roles) != ["primary", "standby"]:
            continue
        others = [node for node in nodes if node not in places]
        if others:
            return Move(shard, roles.index("standby"), min(others, key=lambda n: (held[n], n)))
    return None


class Spreader:
    """Looks every few seconds, on a thread of its own: Ray's head, which it asks, may be silent for
    a minute."""

    def __init__(
        self, spec: ClusterSpec, shards: list[list[Any]], look_every_s: float = LOOK_EVERY_S
    ) -> None:
        """`shards`: the replicas' handles; one that moved is put in its place."""
        self._spec = spec
        self._shards = shards
        self._every_s = look_every_s
        self._stopping = threading.Event()
        self._wanted: Move | None = None
        self._ended: Move | None = None
        """Ended for a move, and not started again yet."""
        self._moved: int | None = None
        """Shard of the last move, until its pair is whole."""
        self._thread = threading.Thread(target=self._run, name="spreader", daemon=True)

    def start(self) -> None:
        """Look from now on. At once over if there is one node only, and there always was."""
        self._thread.start()

    def stop(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """Nobody is moved any more on return, unless the head keeps it waiting for longer."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self._look()
            except cluster.ClusterError as error:
                log.info("spreader_cannot_look", error=str(error))

    def _look(self) -> None:
        self._start_again()
        nodes = cluster.worker_nodes()
        if len(nodes) < 2:
            self._wanted = None
            return
        pairs = [[self._standing(handle) for handle in pair] for pair in self._shards]
        if self._moved is not None and None in pairs[self._moved]:
            return  # It starts; until then nobody else loses a standby.
        self._moved = None
        found = next_move(pairs, nodes)
        before, self._wanted = self._wanted, found
        if found is None or before is None or found.shard != before.shard:
            return
        if not self._stopping.is_set():
            self._wanted = None
            self._move(found)

    def _standing(self, handle: Any) -> Standing | None:
        try:
            status = cluster.call(handle.status.remote(), ANSWER_TIMEOUT_S)
        except cluster.ClusterError:
            return None
        return Standing(status["node_id"], status["role"])

    def _move(self, move: Move) -> None:
        name = REPLICAS[move.replica]
        log.info("replica_moves", replica=replica_name(move.shard, name), to_node=move.node_id[:12])
        cluster.kill(self._shards[move.shard][move.replica])
        self._ended, self._moved = move, move.shard
        self._start_again()

    def _start_again(self) -> None:
        """Start who was ended for a move, however many looks it takes: nobody else would. On any
        node if its own is gone meanwhile."""
        move = self._ended
        if move is None:
            return
        self._shards[move.shard][move.replica] = cluster.restart_replica(
            self._spec,
            move.shard,
            REPLICAS[move.replica],
            move.node_id,
            timeout_s=END_TIMEOUT_S,
        )
        self._ended = None
