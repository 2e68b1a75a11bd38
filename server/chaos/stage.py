"""Where a run takes place: stores, Ray nodes and the service, all of them ours, all gone with us.

Two stages. The cluster: a head and at least two nodes of Ray, each in a network namespace of its
own where the machine allows it, Redis, MariaDB, and `stockray serve` beside the head. The embedded
one: `stockray serve` with a Ray of its own, on SQLite.

Rules
-----
* What was started is ended by its process id, whatever happened, and nothing else is.
* What the machine cannot do is found out by doing it in small, and stands in `missing` with its
  reason; nothing is left out silently.
* Redis and MariaDB die with the thread that started them, so one thread starts all that is started,
  and lives as long as the stage.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from actors.nodes import NodeFailed, NodePlace, RayNode, free_port, machine_address
from persistence.private import LOOPBACK, PrivateMariaDB, PrivateRedis
from persistence.tcp_proxy import TcpProxy
from server.chaos.clock import Clocks, NoClocks
from server.chaos.disk import NoDisk, RedisOnDisk, SmallDisk
from server.chaos.network import Network, NoNetwork
from server.chaos.plan import ChaosOptions
from server.children import ServeChild, alive, descendants, kill_quietly
from server.demo import upgrade_database
from server.settings import Settings, load

GRACE_MS = 2_000
"""The run's `expiry_grace_ms`: a minute of it would outlast most runs."""
NODE_MANAGER_PORT = 6_380
"""Of each node that has an address of its own, so that it can be named in a cut."""
END_TIMEOUT_S = 10.0
NODE_STARTS = 2
HEAD = "head"

T = TypeVar("T")


class Stage:
    """What a run is done to. A context manager: everything runs inside the block."""

    def __init__(self, options: ChaosOptions, say: Callable[[str], None]) -> None:
        self.options = options
        self.warnings: list[str] = []
        """What a reader of the result should know: parts missing, parts that had to be started
        again by an operator."""
        self.missing: dict[str, str] = {}
        """`network`, `disk` or `clock`, and why this machine has none."""
        self.redis: PrivateRedis | None = None
        self.mariadb: PrivateMariaDB | None = None
        self.nodes: list[RayNode] = []
        """The head first; none on the embedded stage."""
        self.network: Network | None = None
        self.disk: SmallDisk | None = None
        self.clocks: Clocks | None = None
        self.proxy: TcpProxy | None = None
        """Between shards and Redis, where there are no namespaces to cut."""
        self._say = say
        self._serve: ServeChild | None = None
        self._listen = "127.0.0.1:0"
        self._settings: Settings | None = None
        self._flags: list[str] = []
        self._ray_directory = Path()
        self._gcs_port = 0
        self._cleanup = contextlib.ExitStack()
        self._keeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chaos-keeper")

    @property
    def address(self) -> str:
        """host:port of the gRPC service; stays the same for the whole run."""
        return self._listen

    @property
    def settings(self) -> Settings:
        """With the stores' own addresses, for who verifies them afterwards."""
        assert self._settings is not None, "the stage was not entered"
        return self._settings

    @property
    def log_directory(self) -> Path:
        """Logs of the service's processes."""
        return self.settings.log_directory

    @property
    def serve(self) -> ServeChild:
        """The process of `stockray serve`."""
        assert self._serve is not None, "the stage was not entered"
        return self._serve

    @property
    def head(self) -> RayNode:
        """The node with the global control service, `stockray serve` and the gateways."""
        return self.nodes[0]

    def __enter__(self) -> Self:
        try:
            self.keep(self._start).result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def keep(self, work: Callable[[], T]) -> Any:
        """Run `work` in the thread that outlives everything; answers a concurrent future."""
        return self._keeper.submit(work)

    def close(self) -> None:
        """End everything. Idempotent."""
        self.keep(self._cleanup.close).result()
        self._keeper.shutdown()

    def drain(self) -> bool:
        """Stop the service as an operator would (SIGTERM); whether it caught up before it ended.
        The stores go on until the end of the block."""
        return self.serve.terminate() == 0

    # What follows is called in the keeper's thread.

    def start_serve(self) -> None:
        """Start `stockray serve`, on the port that it had. ChildFailed."""
        if self._serve is not None:
            self._serve.__exit__(None, None, None)
        arguments = [*self._flags, "--listen", self._listen, "--expiry-grace-ms", str(GRACE_MS)]
        environment = self.clocks.environment if self.clocks and not self.nodes else {}
        self._serve = ServeChild(
            arguments,
            log=self.options.directory / "serve.log",
            environment=environment,
            dies_with_us=True,
        )
        self._serve.wait_ready()
        self._listen = self._serve.listen

    def start_node(self, node: RayNode) -> None:
        """Start a node whose processes are gone; the head on its old port. Ray gives a raylet 30 s,
        which a busy machine may take, so it is tried again. NodeFailed."""
        for tries_left in reversed(range(NODE_STARTS)):
            self.end_node(node)
            try:
                if node is self.head:
                    node.start(gcs_port=self._gcs_port)
                else:
                    node.start(gcs_address=self.head.gcs_address)
            except NodeFailed:
                if not tries_left:
                    raise
            else:
                return

    def end_node(self, node: RayNode) -> None:
        """kill -9 everything of a node, at once, and wait until it is gone."""
        with contextlib.suppress(NodeFailed):
            end_family([node.pid])

    def roots(self) -> list[int]:
        """Processes from which all of the service's descend."""
        nodes = [node.pid for node in self.nodes if node.running]
        return nodes or [self.serve.pid]

    def node_of(self, pid: int) -> RayNode | None:
        """The node that a process belongs to."""
        for node in self.nodes:
            if node.running and pid in descendants(node.pid):
                return node
        return None

    def _start(self) -> None:
        self.options.directory.mkdir(parents=True, exist_ok=True)
        self._find_clocks()
        if self.options.embedded:
            flags: dict[str, Any] = {"data_dir": self.options.directory / "data"}
            self._settings = load(flags, environment={}).settings
            self._flags = ["--data-dir", str(self._settings.data_dir)]
        else:
            self._find_network()
            self._start_stores()
            self._start_nodes()
        self._say("starting the service")
        self._cleanup.callback(self._end_serve)
        self.start_serve()
        self._say(f"serving on {self._listen}")

    def _find_clocks(self) -> None:
        # Under a short path of its own: the library's path stands in every process's environment.
        directory = Path(tempfile.mkdtemp(prefix="sr-"))
        self._cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        try:
            self.clocks = Clocks(directory)
        except NoClocks as error:
            self._lacks("clock", error)

    def _find_network(self) -> None:
        names = tuple(f"node-{number}" for number in range(1, self.options.nodes))
        try:
            self.network = self._cleanup.enter_context(Network(names))
        except NoNetwork as error:
            self._lacks("network", error)

    def _start_stores(self) -> None:
        self._say("starting Redis and MariaDB")
        directory = self.options.directory
        host = self.network.root_address if self.network else LOOPBACK
        try:
            self.disk = SmallDisk(directory / "disk")
            self._cleanup.callback(self.disk.close)
            self.redis = RedisOnDisk(directory / "redis", self.disk, host=host)
        except NoDisk as error:
            self._lacks("disk", error)
            self.redis = PrivateRedis(directory / "redis", host=host)
        self.mariadb = PrivateMariaDB(directory / "mariadb", host=host)
        for server in (self.redis, self.mariadb):
            self._cleanup.callback(server.stop)
            server.start()
        journal = self.redis.url
        flags = {"data_dir": directory / "data", "journal": journal, "database": self.mariadb.url}
        self._settings = load(flags, environment={}).settings
        upgrade_database(self._settings)
        if self.network is None:
            self.proxy = TcpProxy(self.redis.host, self.redis.port)
            self._cleanup.callback(self.proxy.close)
            self.proxy.start()
            journal = f"redis://{self.proxy.address}/0"
        self._flags = [
            *("--data-dir", str(self._settings.data_dir)),
            *("--journal", journal, "--database", self.mariadb.url),
        ]

    def _start_nodes(self) -> None:
        self._say(f"starting {self.options.nodes} Ray nodes")
        self._ray_directory = Path(tempfile.mkdtemp(prefix="sr-"))
        self._cleanup.callback(shutil.rmtree, self._ray_directory, ignore_errors=True)
        self._cleanup.callback(self._end_nodes)
        for number in range(self.options.nodes):
            place = self._place(HEAD if number == 0 else f"node-{number}")
            self.nodes.append(RayNode(place, self._ray_directory))
        self._gcs_port = free_port(self.head.place.address)
        for node in self.nodes:
            self.start_node(node)
        # The nodes are processes of one machine: TCP, so that a cut can come between them.
        self._flags += ["--ray-address", self.head.gcs_address, "--rounds", "tcp"]

    def _place(self, name: str) -> NodePlace:
        environment = self.clocks.environment if self.clocks else {}
        head = name == HEAD
        if self.network is None:
            return NodePlace(
                name=name, address=machine_address(), cpus=0 if head else 2, environment=environment
            )
        return NodePlace(
            name=name,
            address=self.network.root_address if head else self.network.address_of(name),
            cpus=0 if head else 2,
            port=0 if head else NODE_MANAGER_PORT,
            enter=() if head else self.network.enter(name),
            environment=environment,
        )

    def _lacks(self, what: str, error: Exception) -> None:
        self.missing[what] = str(error)
        self.warnings.append(str(error))

    def _end_serve(self) -> None:
        if self._serve is not None:
            if self._serve.exit_code is None:
                end_family([self._serve.pid])
            self._serve.__exit__(None, None, None)

    def _end_nodes(self) -> None:
        # All at once: a node that saw another one die would start its actors again.
        started = []
        for node in self.nodes:
            with contextlib.suppress(NodeFailed):
                started.append(node.pid)
        end_family(started)
        for node in self.nodes:
            node.close()


def end_family(roots: list[int]) -> None:
    """kill -9 processes and all that descends from them, and wait until they are gone."""
    family = [pid for root in roots for pid in (root, *descendants(root)) if alive(root)]
    for pid in family:
        kill_quietly(pid)
    deadline = time.monotonic() + END_TIMEOUT_S
    while any(alive(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.02)
