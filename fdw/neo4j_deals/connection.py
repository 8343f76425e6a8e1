"""In: server options. Out: records of read-only queries, from one driver per backend, server and user mapping.

The driver is kept between calls, together with duplicates of its sockets' descriptors: shutting those down is the one
way to end a read that blocks (flow.md, rules 8 and 9).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the driver imports numpy where it is: its threads take signals

import neo4j
from neo4j import exceptions

from neo4j_deals.cypher import Query
from neo4j_deals.errors import DealSyncError
from neo4j_deals.options import ServerOptions

Ask = Callable[[Query], Iterator[tuple[Any, ...]]]
"""Runs a query in the transaction of the read; a record is the tuple of its columns."""

_TRIES = 3
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of a spool file's write: a socket knows none of them
_IDLE_SECONDS = 60.0  # a connection unused for longer is tested before it is used

logging.getLogger("neo4j").addHandler(logging.NullHandler())  # else each stop writes into the server's log
logging.getLogger("neo4j").propagate = False


class Stopped(Exception):
    """The read was called off from outside."""


@dataclass(eq=False)
class Connection:
    """A driver and duplicates of the descriptors of its sockets. One reading thread at a time."""

    options: ServerOptions
    driver: neo4j.Driver | None = None
    descriptors: list[tuple[int, int]] = field(default_factory=list)  # the driver's, and ours
    lock: threading.Lock = field(default_factory=threading.Lock)  # of `descriptors`
    stopped: threading.Event = field(default_factory=threading.Event)

    def shut(self) -> None:
        """Ends whatever read is under way, at once; the connection is of no use afterwards."""
        self.stopped.set()
        if _kept.get(_place(self.options)) is self:
            del _kept[_place(self.options)]
        with self.lock:
            for _, ours in self.descriptors:
                _LIBC.shutdown(ours, 2)

    def close(self) -> None:
        """Gives the sockets back. Quick once `shut` was called."""
        if self.driver is not None:
            with contextlib.suppress(Exception):
                self.driver.close()
        with self.lock:
            while self.descriptors:
                os.close(self.descriptors.pop()[1])

    def keep(self, theirs: int) -> None:
        """Duplicates a socket's descriptor, and gives back those whose socket the driver has closed since."""
        with self.lock:
            for pair in [pair for pair in self.descriptors if not _same_socket(*pair)]:
                self.descriptors.remove(pair)
                os.close(pair[1])
            self.descriptors.append((theirs, os.dup(theirs)))

    def read(self, produce: Callable[[Ask], None], began: Callable[[], bool]) -> None:
        """Runs `produce` with an `Ask` in one read transaction; again where the driver calls the error retryable
        and `began` says that nothing has been handed on yet.

        Raises DealSyncError (class 08 or 28, or HV000) for what Neo4j or the network refused, Stopped after `shut`.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                self._read_once(produce)
                return
            except (exceptions.Neo4jError, exceptions.DriverError, OSError) as error:
                if self.stopped.is_set():
                    raise Stopped from None
                retryable = getattr(error, "is_retryable", bool)()
                if not retryable or attempt == _TRIES or began() or self.stopped.wait(0.2 * attempt):
                    raise _explained(error, self.options) from None

    def _read_once(self, produce: Callable[[Ask], None]) -> None:
        options = self.options
        if self.driver is None:
            self.driver = neo4j.GraphDatabase.driver(
                options.uri,
                auth=(options.user, options.password() or "") if options.user else None,
                user_agent="deal_sync",
                connection_timeout=options.connect_timeout,
                connection_acquisition_timeout=options.connect_timeout,  # bounds handshake and login, too
                liveness_check_timeout=_IDLE_SECONDS,
                max_connection_pool_size=4,
                max_transaction_retry_time=0,
                notifications_min_severity="OFF",
            )
        with (
            self.driver.session(
                database=options.database, default_access_mode=neo4j.READ_ACCESS, fetch_size=options.fetch_size
            ) as session,
            session.begin_transaction(timeout=options.query_timeout) as transaction,
        ):

            def ask(query: Query) -> Iterator[tuple[Any, ...]]:
                # The text is ours alone (`cypher`): values travel as parameters, names are quoted.
                result = transaction.run(cast("Any", query.text), dict(query.parameters))
                for record in result:
                    yield tuple(tuple.__iter__(record))  # past Record's own access, which raises for broken values

            produce(ask)


_LIBC = ctypes.CDLL(None)
_kept: dict[tuple[str, str], Connection] = {}
_reading = threading.local()


def _place(options: ServerOptions) -> tuple[str, str]:
    return options.server, options.login


def connection(options: ServerOptions) -> Connection:
    """The kept connection of this server and user mapping; a new one where their options are no longer the same."""
    kept = _kept.get(_place(options))
    if kept is not None and kept.options == options:
        return kept
    if kept is not None:
        kept.shut()
        kept.close()
    _kept[_place(options)] = Connection(options)
    return _kept[_place(options)]


@contextlib.contextmanager
def reading(connection: Connection) -> Iterator[None]:
    """In this thread: the sockets that the driver opens belong to `connection`."""
    _reading.connection = connection
    try:
        yield
    finally:
        del _reading.connection


def _same_socket(theirs: int, ours: int) -> bool:
    """Whether the driver's descriptor still is the socket that ours duplicates: its number may be used again."""
    try:
        return os.path.samestat(os.fstat(theirs), os.fstat(ours))
    except OSError:
        return False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Sees each socket before it connects, plain or TLS, also one that never will."""
    if event == "socket.connect" and (owner := getattr(_reading, "connection", None)) is not None:
        owner.keep(arguments[0].fileno())
        if owner.stopped.is_set():
            raise ConnectionAbortedError


sys.addaudithook(_watch)


def _explained(error: Exception, options: ServerOptions) -> DealSyncError:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return DealSyncError(
            "53100",
            "no room for PostgreSQL's temporary files",
            os.strerror(error.errno),
            "make room where its data lies",
        )
    where = f'Neo4j server "{options.server}"'
    said = error.message if isinstance(error, exceptions.Neo4jError) else str(error)
    reason = " ".join(options.redact(said or type(error).__name__).split())
    if isinstance(error, exceptions.AuthError):
        return DealSyncError(
            "28P01", f"{where} refused the login", reason, "check the user mapping's user and password"
        )
    if isinstance(error, exceptions.ConfigurationError):
        return DealSyncError("HV00D", f"the options of {where} do not fit together", reason)
    if isinstance(error, exceptions.DriverError | OSError):
        return DealSyncError(
            "08006",
            f"no connection to {where} at {options.redact(options.uri)}, or it broke",
            reason,
            'check that Neo4j runs there and speaks Bolt, and the server\'s option "uri"',
        )
    code = getattr(error, "code", None)
    return DealSyncError("HV000", f"{where} refused the query ({code})", reason)
