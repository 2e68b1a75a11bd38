"""Private Redis and MariaDB processes, for the tests and for a demo: nobody else's, gone with us.

Rules
-----
* A server listens on a free port, of loopback unless told otherwise, and on a socket in its own
  directory; the directory's path must be short (a socket's is 107 bytes at most).
* It dies with the *thread* that started it (PR_SET_PDEATHSIG): start one from a thread that lives
  as long as the server shall. A stopped server dies as well.
* `restart` is on the same port and data. MariaDB's first data directory costs seconds, so one is
  kept as a template in the user's temporary directory and copied.
* The settings are those that the journal and the tables require; nothing here is for production.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pymysql
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# Run in a fresh interpreter: forking this process, with the threads of gRPC or Ray in it, can hang.
_DIE_WITH_PARENT = """
import ctypes, os, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
_DATABASE = "stockray"
LOOPBACK = "127.0.0.1"


def dying_with_us(command: list[str]) -> list[str]:
    """The command, run so that its process is killed when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


class ServerFailedError(Exception):
    """A private server did not start; carries the end of its log."""


class _PrivateServer:
    """One server process on one directory and port; subclasses say how to run and to ask it."""

    program = ""
    start_timeout_s = 10.0

    def __init__(
        self, directory: str | os.PathLike[str], *, port: int | None = None, host: str = LOOPBACK
    ) -> None:
        """`directory` is made if missing and belongs to the server; `port` is a free one unless
        given. `host` is another address of this machine, for peers in network namespaces."""
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.host = host
        self.port = port or _free_port(host)
        self.socket_path = self.directory / "server.sock"
        self.log_path = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def available(cls) -> bool:
        """Whether the server's program is installed."""
        return _find(cls.program) is not None

    @property
    def pid(self) -> int:
        """The running server's process id; ServerFailedError when it is not running."""
        if self._process is None or self._process.poll() is not None:
            raise ServerFailedError(f"{self.program} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers. ServerFailedError, with its log, when it does not."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                dying_with_us(self._command()),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline_s = time.monotonic() + self.start_timeout_s
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill9()
                raise ServerFailedError(f"{self.program} did not start:\n{self._log_tail()}")
            time.sleep(0.005)

    def kill9(self) -> None:
        """Kill it at once and wait until it is gone. Nothing happens when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def sigstop(self) -> None:
        """Pause it: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def sigcont(self) -> None:
        """Let a paused one go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill -9, then start again on the same data and port."""
        self.kill9()
        self.start()

    def stop(self) -> None:
        """Ask it to end; kill it when it takes more than five seconds. Idempotent."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
        self.kill9()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError

    def _log_tail(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")[-2000:]


class PrivateRedis(_PrivateServer):
    """A Redis with the settings that the journal requires; `settings` overrides single ones."""

    program = "redis-server"

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        port: int | None = None,
        host: str = LOOPBACK,
        settings: dict[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port=port, host=host)
        self._settings = {
            "appendonly": "yes",
            "appendfsync": "always",
            "no-appendfsync-on-rewrite": "no",
            "aof-use-rdb-preamble": "yes",
            "maxmemory-policy": "noeviction",
            "save": "",
        } | (settings or {})

    @property
    def url(self) -> str:
        """Its address by TCP."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """Its address on its Unix socket."""
        return f"unix://{self.socket_path}"

    def _command(self) -> list[str]:
        fixed = {
            "bind": self.host,
            # It would refuse peers of a network namespace; the address decides who reaches it.
            "protected-mode": "yes" if self.host == LOOPBACK else "no",
            "port": str(self.port),
            "unixsocket": str(self.socket_path),
            "dir": str(self.directory),
            "daemonize": "no",
        }
        command = [_find(self.program) or self.program]
        for name, value in (fixed | self._settings).items():
            command += [f"--{name}", value]
        return command

    def _answers(self) -> bool:
        retry = Retry(NoBackoff(), 0)
        try:
            with redis.Redis(
                unix_socket_path=str(self.socket_path), retry=retry, socket_timeout=1
            ) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False


class PrivateMariaDB(_PrivateServer):
    """A MariaDB that syncs every commit, with a database and a user both named `stockray`."""

    program = "mariadbd"
    start_timeout_s = 30.0

    @property
    def url(self) -> str:
        """Its SQLAlchemy address by TCP, with the user's name and password in it."""
        login = f"{_DATABASE}:{_DATABASE}"
        return f"mysql+pymysql://{login}@{self.host}:{self.port}/{_DATABASE}?charset=utf8mb4"

    def start(self) -> None:
        if not self._data.exists():
            _copy_template(self._data)
        super().start()
        with self._as_root() as root, root.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS {_DATABASE} CHARACTER SET utf8mb4")
            cursor.execute(f"CREATE USER IF NOT EXISTS {_DATABASE}@'%' IDENTIFIED BY '{_DATABASE}'")
            # Tests make databases of their own.
            cursor.execute(f"GRANT ALL ON *.* TO {_DATABASE}@'%'")

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _command(self) -> list[str]:
        return [
            _find(self.program) or self.program,
            "--no-defaults",
            f"--datadir={self._data}",
            f"--socket={self.socket_path}",
            f"--pid-file={self.directory / 'server.pid'}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=64M",
            *_run_as(),
        ]

    def _answers(self) -> bool:
        try:
            with self._as_root() as root:
                root.ping(reconnect=False)
        except pymysql.MySQLError:
            return False
        return True

    def _as_root(self) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
        return pymysql.connect(
            unix_socket=str(self.socket_path), user="root", connect_timeout=5, read_timeout=5
        )


def _copy_template(target: Path) -> None:
    """A fresh data directory: made once per user and program, copied afterwards."""
    program = _find("mariadb-install-db")
    if program is None:
        raise ServerFailedError("mariadb-install-db is not installed")
    built = int(os.stat(_find("mariadbd") or program).st_mtime)
    template = Path(tempfile.gettempdir()) / f"stockray-mariadb-{os.getuid()}-{built}"
    if not _is_ours(template):
        with tempfile.TemporaryDirectory(prefix="stockray-mariadb-") as scratch:
            made = Path(scratch) / "data"
            done = subprocess.run(
                [
                    program,
                    "--no-defaults",
                    f"--datadir={made}",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    "--innodb-log-file-size=16M",
                    *_run_as(),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise ServerFailedError(f"mariadb-install-db failed:\n{done.stderr[-2000:]}")
            _publish(made, template)
    shutil.copytree(template, target)


def _publish(made: Path, template: Path) -> None:
    """Rename the template into place; whoever was faster has made the same."""
    try:
        made.rename(template)
    except OSError:
        if not _is_ours(template):
            raise


def _is_ours(template: Path) -> bool:
    return template.exists() and template.stat().st_uid == os.getuid()


def _run_as() -> list[str]:
    """The servers refuse to run as root unless told to."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _find(program: str) -> str | None:
    """The path of a program, also where a user's PATH does not look."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
