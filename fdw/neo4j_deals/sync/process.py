"""In: feeds. Out: their spool files, from a process of its own: PostgreSQL merges a batch while the next one is read.

For large loads, with the same `batches` as the thread: a thread makes no progress while PostgreSQL works, since
PL/Python never releases Python's global lock (docs/internals/run.md). File descriptors are passed over a socket: those
of the unnamed files with rows, and of memory with the job and the outcome, which may have any length (a job names each
barred deal). No part of the login is on a command line, in the environment or on disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import IO, Any

from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph.connection import Connection
from neo4j_deals.graph.failures import internal_error, no_descriptor
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.graph.reader import AHEAD, LOOK, Reader, look
from neo4j_deals.sync.feed import Feed

_LAST = struct.Struct(">q")
_OUTCOME = b"outcome"  # in place of the number of the last row
_PR_SET_PDEATHSIG = 1
_NEVER = 999_999_999  # for deal_sync.process_from: no tenant has so many nodes
_BY_ITSELF = f"To read the graph in the backend itself: SET deal_sync.process_from = {_NEVER};"


class ReaderProcess:
    """A process that reads and encodes several feeds of one server, each as far ahead as it may; it ends with `close`,
    and with the backend.
    """

    def __init__(self, options: ServerOptions, feeds: Sequence[Feed], folder: str) -> None:
        try:
            self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise no_descriptor(error) or error from None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with theirs:
                self._process = _start(theirs.fileno())
            with contextlib.suppress(BrokenPipeError):  # _received() will find out
                works = [(feed.table, feed.tenant, feed.limits, feed.wanted) for feed in feeds]
                _send_object(self._ours, b"job", (os.getpid(), options, works, folder))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the process. Also called in an aborted transaction and at exit: it must not call PostgreSQL."""
        self._ours.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def done_with(self, file: IO[bytes]) -> None:
        """Frees the disk space of a spool file, and lets the process continue."""
        file.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it sent before still counts
            self._ours.send(b".")

    def _received(self) -> tuple[bytes, list[int]]:
        """A message and the descriptor that came with it; empty if the process has terminated."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._ours, len(_OUTCOME) + _LAST.size, 1)
        except ConnectionResetError:  # it terminated without reading all that was sent
            return b"", []
        return message, descriptors

    def batches(self, serve_interrupt: Callable[[], object]) -> Generator[tuple[Any, ...], None, None]:
        """As `Reader.batches`, of the next feed. Raises the error that the process sent, or DealSyncError (08006) if it
        sent none.
        """
        assert self._process is not None
        came = select.poll()  # not select(), which does not support descriptors above 1023
        came.register(self._ours, select.POLLIN)
        while True:
            look(serve_interrupt)
            if not came.poll(LOOK * 1000):
                continue
            message, descriptors = self._received()
            if message and not descriptors:  # a descriptor that could not be received is lost
                raise no_descriptor(OSError(errno.EMFILE, "")) or AssertionError
            if message == _OUTCOME:
                outcome = _received_object(descriptors)
                if outcome is None:
                    return
                raise outcome
            if message:
                with open(descriptors[0], "rb", buffering=0) as file:
                    yield file, _LAST.unpack(message)[0]
            else:
                raise DealSyncError(
                    "08006",
                    f"the process that reads the graph terminated ({_end(self._process.wait())})",
                    hint=_BY_ITSELF,
                )


def _send_object(to: socket.socket, name: bytes, content: object) -> None:
    """Sends memory with an object of any length: the size of a socket message is limited."""
    try:
        descriptor = os.memfd_create("deal_sync")
    except OSError as error:
        raise no_descriptor(error) or error from None
    with open(descriptor, "wb") as memory:
        pickle.dump(content, memory)
        memory.flush()
        socket.send_fds(to, [name], [memory.fileno()])


def _received_object(descriptors: list[int]) -> Any:
    """What `_send_object` was given."""
    with open(descriptors[0], "rb") as memory:
        memory.seek(0)  # its file offset was passed on, too
        return pickle.load(memory)


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    python = Path(sys.prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    try:
        return subprocess.Popen(
            [python, "-m", __name__, str(descriptor)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            cwd="/",
            pass_fds=[descriptor],
            start_new_session=True,  # outside the group that gets the backend's signals
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise no_descriptor(error) or DealSyncError(
            "HV00N", "could not start the process that reads the graph", f"{python}: {error.strerror}", _BY_ITSELF
        ) from None


def _end(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def main() -> None:
    """The process: receives its job from the socket whose descriptor is the first argument.

    An orphan's parent is process 1, which in a container is the postmaster. If a child exits with a status other than 0
    or 1, the postmaster assumes a crash and restarts the server. So the process gets SIGTERM, not SIGKILL, when the
    backend terminates, and it always ends by `_exit`: Python's own exit removes the handler before the process ends.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        _work(socket.socket(fileno=int(sys.argv[1])))
        os._exit(0)
    finally:
        os._exit(1)


def _work(peer: socket.socket) -> None:
    job = socket.recv_fds(peer, 3, 1)[1]
    if not job:  # the backend terminated before it sent one
        raise SystemExit(1)
    backend, options, works, folder = _received_object(job)
    if os.getppid() != backend:  # the backend terminated before prctl
        raise SystemExit(1)
    gc.disable()  # it would scan every vector again and again, and hardly any cycles are created here
    connection, ahead, outcome = Connection(options), 0, None
    for work in works:
        try:
            ahead = _pass_on(Reader(connection, Feed(*work).produce, folder, ahead=1), peer, ahead)
        except DealSyncError as error:
            outcome = error
        except Exception as error:
            outcome = internal_error(error)
        _send_object(peer, _OUTCOME, outcome)
        if outcome is not None:
            break
    while peer.recv(1):  # exiting with unread answers would reset the connection, and lose the outcome
        pass


def _pass_on(reader: Reader, peer: socket.socket, ahead: int) -> int:
    """Sends each batch, the descriptor of a file and the number of its last row, once the backend has taken enough of
    those before; returns how many it has not taken yet. As in the backend, this time does not count as waiting for the
    graph.
    """
    with contextlib.closing(reader.batches(lambda: None)) as batches:  # no interrupts here: SIGTERM ends it
        for file, last in batches:
            while ahead >= AHEAD:
                if not peer.recv(1):
                    raise SystemExit(1)
                ahead -= 1
            socket.send_fds(peer, [_LAST.pack(last)], [file.fileno()])
            reader.done_with(file)
            ahead += 1
    return ahead


if __name__ == "__main__":
    main()
