"""In: a feed. Out: its spool files, from a process of its own: PostgreSQL merges a batch while the next one is read.

For large loads, behind the same `batches` as the thread: a thread stands still while PostgreSQL works, since PL/Python
never lets go of Python's lock (docs/internals/run.md). Descriptors travel over a socket: of the nameless files with
rows, and of memory with the job and the outcome, which may be of any length (a job names each deal that is barred).
Nothing of the login is on a command line, in the environment or on disk.
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
from collections.abc import Callable, Generator
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
_NEVER = 999_999_999  # nodes, of deal_sync.process_from: no tenant has them
_BY_ITSELF = f"the backend can read by itself: SET deal_sync.process_from = {_NEVER};"


class ReaderProcess:
    """A process that reads and encodes; it ends with the iterator of `batches`, and with the backend."""

    def __init__(self, options: ServerOptions, feed: Feed, folder: str) -> None:
        self._job = os.getpid(), options, feed.table, feed.tenant, feed.limits, feed.wanted, folder
        try:
            self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise no_descriptor(error) or error from None

    def done_with(self, file: IO[bytes]) -> None:
        """Frees a spool file's disk, and lets the process go on."""
        file.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # what it sent before it ended still counts
            self._ours.send(b".")

    def _received(self) -> tuple[bytes, list[int]]:
        """A message and the descriptor that came with it; empty where the process is gone."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._ours, len(_OUTCOME) + _LAST.size, 1)
        except ConnectionResetError:  # it ended with something of ours unread
            return b"", []
        return message, descriptors

    def batches(self, serve_interrupt: Callable[[], object]) -> Generator[tuple[Any, ...], None, None]:
        """As `Reader.batches`. Raises what the process met, and DealSyncError (08006) where it ended without a word."""
        process = None
        try:
            with self._theirs:
                process = _start(self._theirs.fileno())
            with contextlib.suppress(BrokenPipeError):  # what is received says so
                _send_object(self._ours, b"job", self._job)
            came = select.poll()  # not select(): that takes no descriptor above 1023
            came.register(self._ours, select.POLLIN)
            while True:
                look(serve_interrupt)
                if not came.poll(LOOK * 1000):
                    continue
                message, descriptors = self._received()
                if message and not descriptors:  # what could not be taken is gone
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
                        "08006", f"the process that reads the graph has ended ({_end(process.wait())})", hint=_BY_ITSELF
                    )
        finally:  # also in an aborted transaction and at exit: nothing here may call PostgreSQL
            self._ours.close()
            if process is not None:
                process.kill()
                process.wait()


def _send_object(to: socket.socket, name: bytes, content: object) -> None:
    """Sends memory with an object of any length: a message of a socket has a limit."""
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
        memory.seek(0)  # the place in it came along
        return pickle.load(memory)


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    python = Path(sys.prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    try:
        return subprocess.Popen(
            [python, "-m", __name__, str(descriptor)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            cwd="/",
            pass_fds=[descriptor],
            start_new_session=True,  # a signal to the backend's group is not for it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise no_descriptor(error) or DealSyncError(
            "HV00N", "the process that reads the graph cannot be started", f"{python}: {error.strerror}", _BY_ITSELF
        ) from None


def _end(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def main() -> None:
    """The process: takes its job from the socket whose descriptor is the first argument.

    An orphan's parent is process 1, in a container the postmaster, and that takes any end of a child but exit status 0
    or 1 for a crash, and restarts the server. So the backend's death is SIGTERM and not SIGKILL, and every way out is
    `_exit`: in Python's own way out the handler is gone before the process is.
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
    if not job:  # the backend was gone before it sent one
        raise SystemExit(1)
    backend, options, table, tenant, limits, wanted, folder = _received_object(job)
    if os.getppid() != backend:  # it was gone before prctl
        raise SystemExit(1)
    gc.disable()  # it would look through every vector again and again, and nothing here makes cycles worth it
    reader = Reader(Connection(options), Feed(table, tenant, limits, wanted).produce, folder, ahead=1)
    outcome: Exception | None = None
    try:
        _pass_on(reader, peer)
    except DealSyncError as error:
        outcome = error
    except Exception as error:
        outcome = internal_error(error)
    _send_object(peer, _OUTCOME, outcome)
    while peer.recv(1):  # leaving with answers unread would reset the connection, and lose the outcome
        pass


def _pass_on(reader: Reader, peer: socket.socket) -> None:
    """Sends each batch, the descriptor of a file and the number of its last row, once the backend has taken enough
    others: that is no wait for the graph, as it is none in the backend."""
    ahead = 0
    with contextlib.closing(reader.batches(lambda: None)) as batches:  # nothing to serve: SIGTERM ends it
        for file, last in batches:
            while ahead >= AHEAD:
                if not peer.recv(1):
                    raise SystemExit(1)
                ahead -= 1
            socket.send_fds(peer, [_LAST.pack(last)], [file.fileno()])
            reader.done_with(file)
            ahead += 1


if __name__ == "__main__":
    main()
