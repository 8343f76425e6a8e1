"""In: a function that reads and spools. Out: its batches, while the backend stays interruptible.

A thread reads and encodes; the main thread waits for its files, so that cancel, statement_timeout and termination work
while Neo4j does not answer. docs/internals/run.md has the flow and its rules.
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

AHEAD = 2  # batches that may wait; with the one being loaded and the one being filled they limit disk and memory
LOOK = 0.2  # seconds between two checks for an interrupt
PATIENCE = 5  # checks after a time-out, before a read is given up that does not end when its sockets are shut down
_GRACE = 0.5  # seconds for the thread to end: it takes longer only in a name look-up, which nothing can interrupt
_NOTHING: Any = object()  # the box is empty


def pending(flag: str = "InterruptPending") -> bool:
    """Whether an interrupt flag of PostgreSQL is set; False outside a backend.

    InterruptPending is set for more than a cancel; QueryCancelPending and ProcDiePending for what they say.
    """
    return bool(setting(flag, 0))


def setting(name: str, otherwise: int) -> int:
    """An integer variable of the backend; `otherwise` outside a backend."""
    try:
        return ctypes.c_int.in_dll(ctypes.CDLL(None), name).value
    except ValueError:
        return otherwise


def look(serve_interrupt: Callable[[], object]) -> None:
    """Called in every turn of a wait: serves PostgreSQL's interrupts.

    A backend that outlives its postmaster would keep the server from starting again, so it terminates itself, which no
    exception handler catches.
    """
    if setting("PostmasterPid", 0) not in (0, os.getppid()):
        os.kill(os.getpid(), signal.SIGTERM)
    if pending():
        serve_interrupt()


def client_is_gone() -> bool:
    """Whether client_connection_check_interval has passed and the client has disconnected."""
    if not pending("CheckClientConnectionPending"):
        return False
    still_there = ctypes.CDLL(None).pq_check_connection
    still_there.restype = ctypes.c_bool
    return not still_there()


T = TypeVar("T")


class Outlet(Protocol):
    """Takes what a reader's work has read."""

    def spool(self) -> IO[bytes]:
        """A file to write to."""

    def put(self, *batch: Any) -> None:
        """Hands a batch over; waits while enough others are waiting."""


Work = Callable[[Ask, Outlet], None]
"""What a reader does in its read transaction."""


class Reader(threading.Thread):
    """Runs `produce(ask, reader)` in a read transaction; what it hands over with `put` comes out of `batches`.

    At most `ahead` batches may be waiting.
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
            if self._connection.stopped.is_set():  # the main thread may have given up (a name look-up can block)
                self._connection.close()

    def spool(self) -> IO[bytes]:
        """A file without a name, which is gone with its descriptor, however the run ends."""
        self._files.append(tempfile.TemporaryFile(buffering=1 << 20, dir=self._folder))  # noqa: SIM115
        return self._files[-1]

    def put(self, *batch: Any) -> None:
        """Hands a batch over; waits while enough others are waiting. Raises Stopped once the read was stopped."""
        self._room.acquire()
        if self._connection.stopped.is_set():
            raise Stopped
        self._handed_on = True
        self._box.put(batch)

    def done_with(self, file: IO[bytes]) -> None:
        """Frees the disk space of a spool file."""
        file.close()
        self._files.remove(file)

    def batches(self, serve_interrupt: Callable[[], object]) -> Generator[tuple[Any, ...], None, None]:
        """The batches as they come. Close the iterator: that ends the thread and releases everything.

        `serve_interrupt` is called if an interrupt is pending, and may raise.
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
        finally:  # also runs in an aborted transaction and at exit, so it must not call PostgreSQL
            if not finished:
                self._connection.shut()
            self._room.release()  # a thread that waits for it goes on, and sees that it is stopped
            if self.ident:
                self.join(_GRACE)
            if finished:
                self._connection.give_back()
            elif not self.is_alive():
                self._connection.close()
            for file in self._files:
                with contextlib.suppress(OSError):  # no room for what is still in its buffer
                    file.close()

    def _start_deaf(self) -> None:
        """Starts the thread with all signals blocked, or PostgreSQL's handlers would run in it."""
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.start()
        except RuntimeError:
            raise DealSyncError("53000", "could not start a thread to read the graph") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)


def answer(connection: Connection, work: Callable[[Ask], T], serve_interrupt: Callable[[], object]) -> T:
    """The result of `work` in a read transaction of its own: for answers other than rows."""
    reader = Reader(connection, lambda ask, outlet: outlet.put(work(ask)))
    with contextlib.closing(reader.batches(serve_interrupt)) as batches:
        [(result,)] = batches  # to the end: a reader that is closed early loses its connection
    return cast("T", result)


def unless_forbidden(read: Callable[[], T]) -> T | None:
    """The result, or None if Neo4j denies the login the right to it."""
    try:
        return read()
    except DealSyncError as error:
        if "Neo.ClientError.Security.Forbidden" not in error.message:
            raise
        return None
