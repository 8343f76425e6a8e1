"""In: a function that reads and spools. Out: its batches, while the backend stays interruptible.

Reading and encoding happen in a thread; the main thread waits for its files, so that cancel, statement_timeout and
terminate work while Neo4j is silent. docs/internals/run.md has the flow and its rules, each found by breaking it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from typing import IO, Any, Protocol, TypeVar, cast

from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph.connection import Ask, Connection, Stopped, reading

AHEAD = 2  # batches that may wait; with the one being loaded and the one being filled they bound disk and memory
LOOK = 0.2  # seconds between two looks for an interrupt
PATIENCE = 5  # looks, from the end of a time-out to that of a read which shutting its sockets does not end
_NOTHING: Any = object()  # in the box


def pending(flag: str = "InterruptPending") -> bool:
    """Whether PostgreSQL has an interrupt to serve, or one of a kind; False outside a backend.

    InterruptPending is set for more than a cancel; QueryCancelPending and ProcDiePending are what they say.
    """
    return bool(setting(flag, 0))


def setting(name: str, otherwise: int) -> int:
    """An integer variable of the backend that we run in; outside of one, `otherwise`."""
    try:
        return ctypes.c_int.in_dll(ctypes.CDLL(None), name).value
    except ValueError:
        return otherwise


def look(serve_interrupt: Callable[[], object]) -> None:
    """Once in every turn of a wait: serves what has come up in PostgreSQL meanwhile.

    A backend that outlives its postmaster keeps the server from starting again. It ends itself then, as an
    administrator would end it: what catches errors and goes on does not catch that.
    """
    if setting("PostmasterPid", 0) not in (0, os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)
    if pending():
        serve_interrupt()


def client_is_gone() -> bool:
    """Whether it is time to look for the client (client_connection_check_interval), and there is none any more."""
    if not pending("CheckClientConnectionPending"):
        return False
    still_there = ctypes.CDLL(None).pq_check_connection
    still_there.restype = ctypes.c_bool
    return not still_there()


T = TypeVar("T")


class Outlet(Protocol):
    """Where a reader's work puts what it has read."""

    def spool(self) -> IO[bytes]:
        """A file to write to."""

    def put(self, *batch: Any) -> None:
        """Hands a batch over; waits while enough others wait."""


Work = Callable[[Ask, Outlet], None]
"""What a reader does in its read transaction."""


class Reader(threading.Thread):
    """Runs `produce(ask, reader)` in a read transaction; what it hands over with `put` comes out of `batches`.

    `ahead` batches may be handed over that nobody has done with.
    """

    def __init__(self, connection: Connection, produce: Work, folder: str | None = None, ahead: int = AHEAD):
        super().__init__(daemon=True, name="deal_sync reader")
        self._connection, self._produce, self._folder = connection, produce, folder
        self._box: queue.Queue[Any] = queue.Queue()
        self._room = threading.Semaphore(ahead)
        self._files: list[IO[bytes]] = []
        self._handed_on = False

    def run(self) -> None:
        try:
            with reading(self._connection):
                self._connection.read(lambda ask: self._produce(ask, self), lambda: self._handed_on)
            self._box.put(None)
        except BaseException as error:
            self._box.put(error)
        finally:
            if self._connection.stopped.is_set():  # nobody may be waiting any more (a name look-up can block for long)
                self._connection.close()

    def spool(self) -> IO[bytes]:
        """A file without a name: gone with its descriptor, whichever way the run ends."""
        self._files.append(tempfile.TemporaryFile(buffering=1 << 20, dir=self._folder))  # noqa: SIM115
        return self._files[-1]

    def put(self, *batch: Any) -> None:
        """Hands a batch over; waits while enough others wait. Raises Stopped when nobody takes them any more."""
        self._room.acquire()
        if self._connection.stopped.is_set():
            raise Stopped
        self._handed_on = True
        self._box.put(batch)

    def done_with(self, file: IO[bytes]) -> None:
        """Frees a spool file's disk."""
        file.close()
        self._files.remove(file)

    def batches(self, serve_interrupt: Callable[[], object]) -> Generator[tuple[Any, ...], None, None]:
        """The batches as they come. Close the iterator: that ends the thread and gives everything back.

        `serve_interrupt` is called when an interrupt is pending: it raises, or there was nothing to do.
        """
        finished, late, left = False, 0, math.inf
        self._connection.take()
        try:
            self._start_deaf()
            while True:
                look(serve_interrupt)
                late = late + 1 if self._connection.overdue is not None else 0
                if late > PATIENCE:
                    raise self._connection.too_late()
                began, got = time.monotonic(), _NOTHING
                with contextlib.suppress(queue.Empty):
                    got = self._box.get(timeout=min(LOOK, left))
                left = self._connection.waited(began)
                if got is _NOTHING:
                    continue
                if isinstance(got, BaseException):
                    raise got
                if got is None:
                    finished = True
                    return
                yield got
                self._room.release()
        finally:  # also in an aborted transaction and at exit: nothing here may call PostgreSQL
            if not finished:
                self._connection.shut()
            self._room.release(99)
            if self.ident:
                self.join(0.5)  # longer only where a name look-up hangs, which nothing can interrupt
            if finished:
                self._connection.give_back()
            elif not self.is_alive():
                self._connection.close()
            for file in self._files:
                with contextlib.suppress(OSError):  # no room for what is still in its buffer
                    file.close()

    def _start_deaf(self) -> None:
        """Starts the thread with every signal blocked: else PostgreSQL's handlers run in it."""
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.start()
        except RuntimeError:
            raise DealSyncError("53000", "the operating system allows no further thread to read the graph") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)


def answer(connection: Connection, work: Callable[[Ask], T], serve_interrupt: Callable[[], object]) -> T:
    """What `work` makes of a read transaction of its own: for what is no batch of rows."""
    reader = Reader(connection, lambda ask, outlet: outlet.put(work(ask)))
    with contextlib.closing(reader.batches(serve_interrupt)) as batches:
        [(result,)] = batches  # to the end: a reader that is left early takes its connection along
    return cast("T", result)


def unless_forbidden(read: Callable[[], T]) -> T | None:
    """What is read, or None where the login has no right to it."""
    try:
        return read()
    except DealSyncError as error:
        if "Neo.ClientError.Security.Forbidden" not in error.message:
            raise
        return None
