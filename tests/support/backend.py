"""Flows in: a connection to PostgreSQL. Flows out: statements run beside the test, and what a backend holds."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.database import Connection
from support.sync import Run, one


@dataclass(frozen=True)
class Ended:
    """How a statement ended: its rows or its error, and when, by the monotonic clock."""

    rows: list[tuple[Any, ...]]
    error: Exception | None
    at: float

    @property
    def sqlstate(self) -> str | None:
        return getattr(self.error, "sqlstate", None)


def run(connection: Connection, statement: str, *arguments: Any) -> Ended:
    try:
        rows = connection.execute(statement.encode(), arguments or None).fetchall()
    except Exception as error:
        return Ended([], error, time.monotonic())
    return Ended(rows, None, time.monotonic())


@contextmanager
def running(connection: Connection, statement: str, *arguments: Any) -> Iterator[Future[Ended]]:
    """The statement runs in a thread of its own while the block does something to it."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run, connection, statement, *arguments)


def await_true(condition: Any, seconds: float = 20) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(true)


@dataclass(frozen=True)
class Backend:
    """The server's process behind a connection, as the operating system sees it."""

    pid: int

    @property
    def _proc(self) -> Path:
        return Path(f"/proc/{self.pid}")

    def lives(self) -> bool:
        """Whether it runs: one that has ended may be a zombie."""
        try:
            return (self._proc / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def children(self) -> list["Backend"]:
        """The processes that it has started, for as long as they live."""
        try:
            pids = (self._proc / f"task/{self.pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [Backend(int(pid)) for pid in pids]

    def threads(self) -> int:
        return len(list((self._proc / "task").iterdir()))

    def is_single_threaded(self) -> bool:
        """The operating system may show a thread for a moment after it was joined."""
        return await_true(lambda: self.threads() == 1, seconds=0.5)

    def descriptors(self) -> list[str]:
        """What each open descriptor leads to."""
        found = []
        for descriptor in (self._proc / "fd").iterdir():
            try:
                found.append(str(descriptor.readlink()))
            except (FileNotFoundError, ProcessLookupError):  # closed since
                continue
        return found

    def free_descriptor(self) -> int:
        """The number that the next file gets."""
        used = {int(path.name) for path in (self._proc / "fd").iterdir()}
        return min(set(range(len(used) + 1)) - used)

    def foreign_descriptors(self) -> list[str]:
        """The same without relations and log segments, which PostgreSQL itself keeps open."""
        return [target for target in self.descriptors() if not re.search(r"/(base/\d+|global|pg_\w+)/", target)]

    def sockets(self) -> int:
        return sum(target.startswith("socket:") for target in self.descriptors())

    def spool_bytes(self) -> int:
        """The disk that nameless files of pgsql_tmp hold."""
        held = 0
        for descriptor in (self._proc / "fd").iterdir():
            try:
                target = str(descriptor.readlink())
                held += descriptor.stat().st_size if "pgsql_tmp" in target and "(deleted)" in target else 0
            except (FileNotFoundError, ProcessLookupError):
                continue
        return held

    def spool_files(self) -> list[str]:
        return [target for target in self.descriptors() if "(deleted)" in target and "pgsql_tmp" in target]

    def anonymous_memory(self) -> int:
        """RssAnon in bytes; none if the process has ended."""
        try:
            status = (self._proc / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0


def waits_for_lock(pg: Connection, pid: int) -> None:
    """Returns as soon as a backend waits for a lock."""
    deadline = time.monotonic() + 20
    while not one(pg, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted)", pid):
        assert time.monotonic() < deadline, "it never waited"
        time.sleep(0.01)


@contextmanager
def in_background(work: Callable[[], Run]) -> Iterator[Future[Run]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(work)
