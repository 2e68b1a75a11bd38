"""Network namespaces for the Ray nodes of a run, with a router between them that can drop packets.

Rules
-----
* Each node has a namespace with one address; the machine itself (stores, head, gateways) has one
  address on the same small network. All that crosses passes a router, a namespace too, and a cut
  is a rule of that router: by direction, and by port. Nothing is changed anywhere else.
* The namespaces have no names. They are held by processes whose standard input ends with us, so
  even after kill -9 of the run nothing of them stays.
* It needs root, `ip`, `unshare` and `nsenter`. Whether cuts really bite is tried at the beginning.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from types import TracebackType
from typing import NamedTuple, Self

COMMAND_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 1.0
NETWORKS = 64
"""How many networks 198.18.n.0/24, which are set aside for tests, are tried for a free one."""
_ROOT, _ROUTER, _FIRST_NODE = 1, 254, 11
_HOLD = ("sh", "-c", "echo; exec cat")
_CONNECT = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), {})"


class NoNetwork(Exception):
    """This machine allows no network namespaces. Says what is missing."""


class Cut(NamedTuple):
    """Packets to drop: those from one address to another. A port of 0 is any."""

    source: str
    target: str
    source_port: int = 0
    target_port: int = 0

    def words(self) -> tuple[str, ...]:
        """As `ip rule` takes it."""
        ports = [
            *(("sport", str(self.source_port)) if self.source_port else ()),
            *(("dport", str(self.target_port)) if self.target_port else ()),
        ]
        protocol = ("ipproto", "tcp") if ports else ()
        return ("from", self.source, "to", self.target, *protocol, *ports)


class Network:
    """The namespaces of one run."""

    def __init__(self, names: tuple[str, ...]) -> None:
        """Made and tried at once. NoNetwork, with nothing left of it."""
        if os.geteuid() != 0:
            raise NoNetwork("network namespaces need root")
        for program in ("ip", "unshare", "nsenter"):
            if shutil.which(program, path=_path()) is None:
                raise NoNetwork(f"network namespaces need the program `{program}`")
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._cuts: list[Cut] = []
        self._cable = ""
        self._names = names
        try:
            self._make()
            self._try()
        except (OSError, subprocess.SubprocessError, NoNetwork) as error:
            self.close()
            raise NoNetwork(f"network namespaces do not work here: {_told(error)}") from error

    @property
    def root_address(self) -> str:
        """The machine's own address on this network."""
        return f"{self._net}.{_ROOT}"

    def address_of(self, name: str) -> str:
        """A node's address."""
        return f"{self._net}.{_FIRST_NODE + self._names.index(name)}"

    def enter(self, name: str) -> tuple[str, ...]:
        """Words before a command that run it in a node's namespace."""
        return ("nsenter", f"--target={self._holders[name].pid}", "--net", "--")

    def cut(self, *cuts: Cut) -> None:
        """Drop these packets from now on, of open connections too."""
        for cut in cuts:
            self._router("ip", "rule", "add", *cut.words(), "blackhole")
            self._cuts.append(cut)

    def heal(self) -> None:
        """Let everything through again. Idempotent."""
        while self._cuts:
            self._router("ip", "rule", "del", *self._cuts[-1].words(), "blackhole")
            self._cuts.pop()

    def close(self) -> None:
        """Take the namespaces away; whoever still runs in one keeps it, without a way out.
        Idempotent."""
        if self._cable:
            # It would go with its namespace, a moment later.
            subprocess.run(["ip", "link", "del", self._cable], capture_output=True, check=False)
            self._cable = ""
        for holder in self._holders.values():
            if holder.stdin is not None:
                holder.stdin.close()
            if holder.stdout is not None:
                holder.stdout.close()
        for holder in self._holders.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                holder.wait(COMMAND_TIMEOUT_S)
        self._holders.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _make(self) -> None:
        for name in ("router", *self._names):
            self._holders[name] = _hold_namespace()
        self._net = _free_network()
        router = f"{self._net}.{_ROUTER}"
        self._router("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        # Interfaces of the machine carry our process id, so that two runs do not meet.
        outer = self._cable = f"sr{os.getpid()}"
        self._link(outer, 1, "to-root", self._holders["router"].pid)
        _run("ip", "addr", "add", self.root_address, "peer", router, "dev", outer)
        _run("ip", "link", "set", outer, "up")
        _run("ip", "route", "add", f"{self._net}.0/24", "via", router, "dev", outer)
        self._router("ip", "addr", "add", router, "peer", self.root_address, "dev", "to-root")
        self._router("ip", "link", "set", "to-root", "up")
        for number, name in enumerate(self._names):
            self._join(name, f"to-{number}", router)

    def _join(self, name: str, inner: str, router: str) -> None:
        address = self.address_of(name)
        self._link("up0", self._holders[name].pid, inner, self._holders["router"].pid)
        self._router("ip", "addr", "add", router, "peer", address, "dev", inner)
        self._router("ip", "link", "set", inner, "up")
        inside = self.enter(name)
        _run(*inside, "ip", "link", "set", "lo", "up")
        _run(*inside, "ip", "addr", "add", address, "peer", router, "dev", "up0")
        _run(*inside, "ip", "link", "set", "up0", "up")
        _run(*inside, "ip", "route", "add", "default", "via", router)

    def _link(self, one: str, one_pid: int, other: str, other_pid: int) -> None:
        """A cable between two namespaces; a pid of 1 is the machine's own."""
        where = () if one_pid == 1 else ("netns", str(one_pid))
        peer = ("peer", "name", other, "netns", str(other_pid))
        _run("ip", "link", "add", one, *where, "type", "veth", *peer)

    def _router(self, *command: str) -> None:
        _run(*self.enter("router"), *command)

    def _try(self) -> None:
        """A connection from a node must come through, not through a cut, and again after it."""
        with socket.create_server((self.root_address, 0)) as server:
            port = server.getsockname()[1]
            node = self._names[0]
            answers = Cut(self.root_address, self.address_of(node), source_port=port)
            if not self._reaches(node, port):
                raise NoNetwork("a node does not reach the machine")
            self.cut(answers)
            if self._reaches(node, port):
                raise NoNetwork("a rule of the router drops nothing")
            self.heal()
            if not self._reaches(node, port):
                raise NoNetwork("a healed cut stays cut")

    def _reaches(self, name: str, port: int) -> bool:
        program = [sys.executable, "-I", "-S", "-c", _CONNECT.format(PROBE_TIMEOUT_S)]
        done = subprocess.run(
            [*self.enter(name), *program, self.root_address, str(port)],
            capture_output=True,
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
        return done.returncode == 0


def _hold_namespace() -> subprocess.Popen[bytes]:
    """A process in a new network namespace, which ends when its standard input does."""
    holder = subprocess.Popen(
        ["unshare", "--net", *_HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert holder.stdout is not None
    if not holder.stdout.readline():
        raise NoNetwork("`unshare --net` is not allowed")
    return holder


def _free_network() -> str:
    """The first three numbers of a network that no route of this machine knows."""
    known = subprocess.run(
        ["ip", "-4", "route", "show"], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    for step in range(NETWORKS):
        net = f"198.18.{(os.getpid() + step) % 256}"
        if f"{net}." not in known:
            return net
    raise NoNetwork("no free network in 198.18.0.0/16")


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMAND_TIMEOUT_S)


def _told(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(error.cmd)}: {str(error.stderr).strip()}"
    return str(error)


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
