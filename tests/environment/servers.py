"""Flows in: what `machine` installed. Flows out: PostgreSQL and Neo4j by name, on a socket and a port of their own."""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import BIN
from .state import INSTANCES, NEO4J, SERVER_USER, VENV, SetupError, as_server, locked, run, say

PORT = 5432  # names the socket file only: the socket's directory is the instance's own
CRON_DATABASE = "deal_sync"  # pg_cron works there
HOST = "localhost"  # of Neo4j's certificate, which is for no address: 127.0.0.1 is a wrong host name
START_SECONDS = 90

# What sets one instance apart: settings of postgresql.conf beyond the common ones, and Neo4j's memory. A test's queries
# are too few each for Java's second compiler, which took half of Neo4j's CPU.
# 2 GB of heap take a property of 100 MB; the benchmark's page cache holds its whole store, 4 kB a deal.
FAST = "fsync = off\nsynchronous_commit = off\n"
KINDS: dict[str, tuple[str, str]] = {
    "playground": ("", "256m"),
    "test": (FAST + "full_page_writes = off\n", "256m"),
    "bench": (FAST + "max_wal_size = 4GB\n", "5g"),
    "soak": ("", "256m"),  # its servers are killed: nothing may be lost
}


@dataclass(frozen=True)
class Instance:
    """One PostgreSQL cluster and one Neo4j; `name` is a kind, or a kind with a number behind it."""

    name: str

    @property
    def directory(self) -> Path:
        return INSTANCES / self.name

    @property
    def data(self) -> Path:
        return self.directory / "postgresql"

    @property
    def socket_directory(self) -> Path:
        return self.directory / "socket"

    @property
    def log(self) -> Path:
        """PostgreSQL's log."""
        return self.directory / "postgresql.log"

    @property
    def neo4j(self) -> Path:
        return self.directory / "neo4j"

    @property
    def certificates(self) -> Path:
        """Neo4j's certificate and key."""
        return self.directory / "certificates"

    @property
    def root_certificate(self) -> Path:
        """What signed Neo4j's certificate."""
        return self.certificates / "root.crt"

    @property
    def facts(self) -> dict[str, Any]:
        """socket, port, superuser, neo4j_uri, neo4j_user, neo4j_password, neo4j_pid: what instance.json says."""
        file = self.directory / "instance.json"
        facts: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return facts

    def dsn(self, database: str, user: str = "postgres") -> str:
        return f"host={self.socket_directory} port={PORT} user={user} dbname={database}"

    def psql(self, database: str, *arguments: str | Path) -> str:
        psql: list[str | Path] = [BIN / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", self.dsn(database)]
        return run([*psql, *arguments])

    def start(self, neo4j: bool = True) -> None:
        """Start what is not running; return when both answer."""
        with locked():
            make_directory(self.directory, 0o755)
            started = neo4j and self._launch_neo4j()
            self._start_postgresql()
            if started:
                self._await_neo4j()

    def stop(self) -> None:
        with locked():
            self._stop()

    def remove(self) -> None:
        with locked():
            self._stop()
            shutil.rmtree(self.directory, ignore_errors=True)

    def restart_postgresql(self) -> None:
        """As an administrator does it: sessions are terminated, what they have committed is kept."""
        with locked():
            if self._pg_ctl("restart", "-m", "fast", "-w", "-t", str(START_SECONDS), "-l", self.log) != 0:
                raise SetupError(f"PostgreSQL does not start again:\n{tail(self.log)}")

    def stop_neo4j(self) -> None:
        with locked():
            self._stop_neo4j()

    def start_neo4j_again(self) -> None:
        """After `stop_neo4j`: with the port and the password that it had."""
        with locked():
            (self.neo4j / "password").unlink(missing_ok=True)
            facts = self.facts
            facts["neo4j_pid"] = self._spawn_neo4j()
            write_private(self.directory / "instance.json", json.dumps(facts, indent=2), owner=False)
            self._await_neo4j()

    # PostgreSQL

    def _pg_ctl(self, *arguments: str | Path) -> int:
        command = [BIN / "pg_ctl", "-s", "-D", self.data, *arguments]
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **as_server()
        ).returncode

    def _start_postgresql(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            self._init_postgresql()
        if self._postgresql_runs():
            return
        if self._pg_ctl("start", "-w", "-t", str(START_SECONDS), "-l", self.log) != 0:
            raise SetupError(f"PostgreSQL does not start:\n{tail(self.log)}")
        self._check_python()
        if self.psql("postgres", "-c", f"SELECT 1 FROM pg_database WHERE datname = '{CRON_DATABASE}'") == "":
            self.psql("postgres", "-c", f"CREATE DATABASE {CRON_DATABASE}")  # pg_cron's launcher waits for it

    def _postgresql_runs(self) -> bool:
        """Whether the server of this directory runs. Lock files that a crash of the machine left behind are removed:
        their number may by now be that of another process or thread, which PostgreSQL and pg_ctl take for a server.
        """
        lock = self.data / "postmaster.pid"
        if lock.exists() and is_running(int(lock.read_text().split(maxsplit=1)[0]), self.data):
            return True
        for left in (lock, *self.socket_directory.glob(".s.PGSQL.*.lock")):
            left.unlink(missing_ok=True)
        return False

    def _init_postgresql(self) -> None:
        if len(str(self.socket_directory)) > 90:
            raise SetupError(f"{self.socket_directory} is too long for a socket; set DEAL_SYNC_STATE to a shorter path")
        make_directory(self.socket_directory, 0o700)
        shutil.rmtree(self.data, ignore_errors=True)
        initdb = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        run([BIN / "initdb", "-D", self.data, *initdb], **as_server())
        settings, _ = kind(self.name)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.socket_directory}'\nport = {PORT}\n"
                "shared_preload_libraries = 'pg_cron'\n"
                f"cron.database_name = '{CRON_DATABASE}'\ncron.host = '{self.socket_directory}'\n"
                f"log_line_prefix = '%m [%p] %d '\n{settings}"
            )

    def _check_python(self) -> None:
        """A wrong PATH makes PL/Python fall back to the system's Python in silence."""
        check = (
            "BEGIN; SET LOCAL client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS plpython3u; DO $$\n"
            f"import sys\nassert sys.prefix == '{VENV}', sys.prefix\n$$ LANGUAGE plpython3u; ROLLBACK"
        )
        self.psql("postgres", "-c", check)

    # Neo4j

    def _launch_neo4j(self) -> bool:
        """Launch the server unless it runs; say whether it was launched."""
        facts = self.facts
        if is_running(facts.get("neo4j_pid", 0), self.neo4j):
            return False
        make_directory(self.neo4j, 0o700)
        password = secrets.token_urlsafe(24)  # a new one at each start: Neo4j refuses to set the one that it has
        write_private(self.neo4j / "password", password)
        self._certify_neo4j()
        port = free_port(facts.get("neo4j_port", 0))
        _, page_cache = kind(self.name)
        write_private(
            self.neo4j / "neo4j.conf",
            "dbms.security.auth_enabled=true\ndbms.usage_report.enabled=false\nserver.bolt.enabled=true\n"
            f"server.bolt.listen_address=127.0.0.1:{port}\nserver.memory.pagecache.size={page_cache}\n"
            "server.bolt.tls_level=OPTIONAL\ndbms.ssl.policy.bolt.enabled=true\n"
            f"dbms.ssl.policy.bolt.client_auth=NONE\ndbms.ssl.policy.bolt.base_directory={self.certificates}\n"
            "internal.server.bolt.thread_pool_shutdown_wait_time=100ms\n",  # else it waits 10 s for nothing
        )
        # Known before it is up, so that an interrupted start can still be stopped.
        facts = {
            "socket": str(self.socket_directory),
            "port": PORT,
            "superuser": "postgres",
            "neo4j_uri": f"bolt://127.0.0.1:{port}",
            "neo4j_user": "neo4j",
            "neo4j_password": password,
            "neo4j_port": port,
            "neo4j_pid": self._spawn_neo4j(),
        }
        write_private(self.directory / "instance.json", json.dumps(facts, indent=2), owner=False)
        return True

    def _certify_neo4j(self) -> None:
        import trustme  # here, because set-up runs before any package is installed

        make_directory(self.certificates, 0o700)
        root = trustme.CA()
        certificate = root.issue_cert(HOST)
        root.cert_pem.write_to_path(self.root_certificate)
        certificate.cert_chain_pems[0].write_to_path(self.certificates / "public.crt")  # the names that Neo4j looks for
        write_private(self.certificates / "private.key", certificate.private_key_pem.bytes().decode())

    def _spawn_neo4j(self) -> int:
        classes = f"{NEO4J}/classes:{NEO4J}/lib/*"
        compilers = ["-XX:TieredStopAtLevel=1"] if self.name.startswith("test") else []
        command = ["java", "-Xmx2g", "-XX:+UseSerialGC", *compilers, "-cp", classes, "Neo4jServer", self.neo4j]
        with (self.neo4j / "server.log").open("w") as log:
            process = subprocess.Popen(  # type: ignore[call-overload]
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **as_server()
            )
        return int(process.pid)

    def _await_neo4j(self) -> None:
        log = self.neo4j / "server.log"
        deadline = time.monotonic() + START_SECONDS
        while "\nready\n" not in "\n" + log.read_text():
            if not is_running(self.facts["neo4j_pid"], self.neo4j) or time.monotonic() > deadline:
                raise SetupError(f"Neo4j does not start:\n{tail(log, self.neo4j / 'logs/debug.log')}")
            time.sleep(0.1)

    def _stop(self) -> None:
        pid: int = self.facts.get("neo4j_pid", 0)  # 0 is no process of /proc
        if is_running(pid, self.neo4j):
            os.kill(pid, signal.SIGTERM)
        if self._postgresql_runs():
            self._pg_ctl("stop", "-m", "fast")
        self._stop_neo4j()

    def _stop_neo4j(self) -> None:
        pid: int = self.facts.get("neo4j_pid", 0)
        if is_running(pid, self.neo4j):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while is_running(pid, self.neo4j):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def kind(name: str) -> tuple[str, str]:
    return KINDS[name.partition("-")[0]]


def make_directory(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    if SERVER_USER:
        shutil.chown(path, SERVER_USER, SERVER_USER)


def write_private(path: Path, content: str, owner: bool = True) -> None:
    """Write a file that only one user can read: the servers' user, or ourselves."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    if owner and SERVER_USER:
        shutil.chown(path, SERVER_USER, SERVER_USER)


def is_running(pid: int, directory: Path) -> bool:
    """Whether the process lives and is ours: process ids are reused."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(directory) in arguments


def free_port(wanted: int) -> int:
    """The port of the last start if it is still free, else a random one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port(0)
        return int(probe.getsockname()[1])


def tail(*logs: Path) -> str:
    """The last lines of each log: what ends a server before it can log anything is in another one."""
    lines = []
    for log in logs:
        text = log.read_text(errors="replace").strip() if log.exists() else ""
        lines.append(f"{log}:\n{text[-3000:]}" if text else f"{log} is empty")
    return "\n".join(lines)


@contextmanager
def claimed(name: str, neo4j: bool = True) -> Iterator[Instance]:
    """A started instance of this kind that nobody else uses: a second user at the same time gets the next one.

    It is stopped at the end unless DEAL_SYNC_KEEP is set.
    """
    INSTANCES.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10):
        instance = Instance(name if number == 1 else f"{name}-{number}")
        with (INSTANCES / f"{instance.name}.claim").open("w") as claim:
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            try:
                instance.start(neo4j)
                yield instance
            finally:
                if "DEAL_SYNC_KEEP" not in os.environ:
                    instance.stop()
            return
    raise SetupError(f"nine {name} instances are in use")


def remove_all() -> None:
    """Stop and remove every instance of this checkout."""
    for directory in sorted(INSTANCES.glob("*/")):
        say(f"removing {directory.name}")
        Instance(directory.name).remove()
