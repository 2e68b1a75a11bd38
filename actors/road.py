"""The straight road to a replica, its end in the replica's process: a listener for rounds.

How it works
------------
A Unix socket for gateways of the same machine and, if the cluster has a certificate, a TCP port for
the others. A round and its answer are the bytes of `rounds.py`, as one gRPC call. Where it listens
stands in the answer to the Ray call `hello`; a process that was restarted listens elsewhere.

Rules
-----
* Rounds of one connection begin in the order in which they came. How many may wait is the primary's
  business (BUSY), how many one gateway has in flight is the gateway's.
* Nobody gets in but the cluster: the socket stands in a directory of this user alone, and TCP asks
  for the cluster's certificate.
* A caller that goes away takes nothing back: what was begun is decided, journalled and forgotten.
* Without a road nothing fails: who has no address, or reaches none, uses Ray calls.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from actors.certificates import listening_context
from actors.rounds import Answers, pack_answers
from actors.specs import RoadSpec, Rounds
from wire.call import INTERNAL, MethodEntry, ServerCall
from wire.limits import ROUNDS
from wire.server import WireServer

log = structlog.get_logger()

ROUND = "/stockray.internal.Shard/Round"
HELLO = "/stockray.internal.Shard/Hello"
"""Answers the instance's token: an address may have become another's."""

UNIX_PATH_MAX_BYTES = 107
LISTENING = replace(ROUNDS, keepalive_ms=30_000)
"""A gateway that was stopped for some seconds must not find its roads closed when it wakes up, for
it would take all primaries for dead."""

TakeRound = Callable[[bytes, Callable[[Answers], None]], None]


class Road:
    """The listener of one replica. Make and open it on the replica's loop."""

    def __init__(self, spec: RoadSpec, *, name: str, token: str, take_round: TakeRound) -> None:
        self._spec = spec
        self._name = name
        self._token = token.encode()
        self._take_round = take_round
        entries = {ROUND: MethodEntry(unary=self._round), HELLO: MethodEntry(unary=self._hello)}
        self._near = WireServer(entries.get, limits=LISTENING)
        self._far: WireServer | None = None
        if spec.certificate:
            context = listening_context(spec.certificate)
            self._far = WireServer(entries.get, limits=LISTENING, tls=context)

    async def open(self, host: str) -> tuple[str, ...]:
        """Listen; answers the addresses, best first. What cannot be listened on is left out."""
        found = []
        if self._spec.rounds is Rounds.ROAD:
            try:
                path = socket_path(self._spec.directory, self._name)
                await self._near.listen_unix(path)
                found.append(f"unix:{path}")
            except OSError as error:
                log.warning("road_not_opened", name=self._name, kind="unix", error=str(error))
        if self._spec.rounds is not Rounds.RAY and self._far is not None:
            try:
                found.append(f"tcp:{host}:{await self._far.listen_tcp(host, 0)}")
            except OSError as error:
                log.warning("road_not_opened", name=self._name, kind="tcp", error=str(error))
        return tuple(found)

    async def close(self) -> None:
        """End all connections and listen no more."""
        await self._near.close()
        if self._far is not None:
            await self._far.close()

    def _round(self, call: ServerCall, payload: bytes) -> None:
        def answer(answers: Answers) -> None:
            try:
                packed = pack_answers(answers)
            except Exception:  # What cannot be packed ends its call, not the writer that answers.
                log.exception("answer_not_packed", name=self._name)
                call.fail(INTERNAL, "the answer cannot be packed")
                return
            call.reply(packed)

        self._take_round(payload, answer)

    def _hello(self, call: ServerCall, _: bytes) -> None:
        call.reply(self._token)


def road_directory(cluster: str) -> str:
    """Where a cluster's sockets stand on every machine: a short path, the same at every start."""
    return str(Path(tempfile.gettempdir()) / f"sr-road-{cluster[:12]}")


def socket_path(directory: str, name: str) -> str:
    """A new socket's path for a replica's process, in a directory of this user alone, without what
    earlier processes of the replica left. OSError says why there can be none."""
    own = os.getuid()
    Path(directory).mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != own or found.st_mode & 0o077:
        raise OSError(f"{directory} is no directory of user {own} alone")
    for left in Path(directory).glob(f"{name}-*.sock"):
        left.unlink(missing_ok=True)
    path = f"{directory}/{name}-{os.getpid()}.sock"
    if len(path.encode()) > UNIX_PATH_MAX_BYTES:
        raise OSError(
            f"{path} is longer than {UNIX_PATH_MAX_BYTES} bytes: set TMPDIR to a short one"
        )
    return path
