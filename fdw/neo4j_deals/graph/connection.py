"""In: server options. Out: records of read-only queries, from one driver per backend, server and user mapping.

The driver is kept between calls, together with duplicates of its sockets' descriptors: shutting those down is the only
way to end a read that blocks (docs/internals/run.md, rules 8 and 9). Concurrent reads, such as the two sides of a join,
have a driver each, so that ending one never ends another.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the driver imports numpy if it can, whose threads take signals

import neo4j
from neo4j import exceptions

from neo4j_deals.errors import DealSyncError, Garbled
from neo4j_deals.graph import cypher
from neo4j_deals.graph.cypher import Query
from neo4j_deals.graph.failures import Overdue, explained, lacking
from neo4j_deals.graph.hydration import HYDRATION
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.graph.unpacking import ask_for_floats

Ask = Callable[[Query], Iterator[tuple[Any, ...]]]
"""Runs a query in the transaction of the read; a record is the tuple of its columns."""

_TRIES = 3
_PAUSE = 0.2  # seconds after the first try, twice as many after the second
_MOST_SOCKETS = 4  # of a driver: one reads, the others ask the members of a cluster where to read
_AT_ONCE = struct.pack("ii", 1, 0)  # a struct linger

logging.getLogger("neo4j").addHandler(logging.NullHandler())  # or each stop would write to the server's log
logging.getLogger("neo4j").propagate = False


class Stopped(Exception):
    """The read was stopped from outside."""


@dataclass(eq=False)
class _Step:
    """A part of the read that has a time-out: only the seconds that somebody has waited for it count."""

    option: str
    allowed: float  # what the option says
    seconds: float
    waited: float = 0.0
    began: float = 0.0

    def error(self) -> Overdue:
        """The error for a part that took longer."""
        return Overdue(self.option, self.allowed)


@dataclass(eq=False)
class Connection:
    """A driver and duplicates of the descriptors of its sockets. One reading thread at a time."""

    options: ServerOptions
    role: int = 0  # OID of the role whose user mapping it uses
    in_use: bool = False
    used: float = field(default_factory=time.monotonic)  # when it was last used
    driver: neo4j.Driver | None = None
    descriptors: list[tuple[int, int]] = field(default_factory=list)  # the driver's, and ours
    lock: threading.RLock = field(default_factory=threading.RLock)  # of `descriptors`, `step` and `overdue`
    stopped: threading.Event = field(default_factory=threading.Event)
    step: _Step | None = None  # the current step of the read
    overdue: _Step | None = None  # the step that has timed out

    def shut(self) -> None:
        """Ends any read in progress at once; the connection cannot be used afterwards."""
        self.stopped.set()
        if self in _kept:
            _kept.remove(self)
        self._shut_sockets()

    def _shut_sockets(self) -> None:
        with self.lock:
            for _, ours in self.descriptors:
                # Closed with a reset: a server that is blocked in a write takes a minute to notice an orderly end.
                _LIBC.setsockopt(ours, socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE, len(_AT_ONCE))
                _LIBC.shutdown(ours, socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the sockets; quick once `shut` has been called."""
        if self.driver is not None:
            with contextlib.suppress(Exception):
                self.driver.close()
        with self.lock:
            while self.descriptors:
                os.close(self.descriptors.pop()[1])

    def serves(self, options: ServerOptions) -> bool:
        """Whether it belongs to the current role and has these options."""
        return self.role == role() and self.options == options

    def take(self) -> None:
        """Marks it as in use, until `give_back`."""
        self.in_use = True

    def give_back(self) -> None:
        """Marks it as idle."""
        self.in_use, self.used = False, time.monotonic()

    def idle(self) -> float:
        """Seconds since it was last used; 0 while it is in use."""
        return 0.0 if self.in_use else time.monotonic() - self.used

    def keep(self, theirs: int) -> None:
        """Duplicates a socket's descriptor, and closes duplicates of sockets that the driver has closed since."""
        with self.lock:
            for pair in [pair for pair in self.descriptors if not _same_socket(*pair)]:
                self.descriptors.remove(pair)
                os.close(pair[1])
            self.descriptors.append((theirs, os.dup(theirs)))

    def read(self, produce: Callable[[Ask], None], began: Callable[[], bool]) -> None:
        """Runs `produce` with an `Ask` in one read transaction; again if the driver calls the error retryable and
        `began` says that no row has been handed on yet. A caller that waits for it reports that to `waited`.

        Raises DealSyncError (class 08 or 28, or HV000) for an error of Neo4j or the network, Stopped after `shut`.
        """
        connecting = self._as_long_as_connecting()
        for attempt in range(1, _TRIES + 1):
            was_kept = self.driver is not None
            try:
                self._read_once(produce, connecting)
                return
            except (DealSyncError, Stopped):
                raise
            except Exception as error:
                if self.stopped.is_set():
                    raise Stopped from None
                retryable = getattr(error, "is_retryable", bool)()
                if was_kept and isinstance(error, Overdue) and self.overdue is connecting:
                    retryable = True  # the test of an idle connection may use up all of the connect_timeout
                    self._start_anew()
                    connecting = self._as_long_as_connecting()
                if not retryable or attempt == _TRIES or began() or self.stopped.wait(_PAUSE * attempt):
                    raise explained(error, self.options) from None

    def _start_anew(self) -> None:
        """Drops the sockets, also if the other end does not answer."""
        self._shut_sockets()
        self.close()
        self.driver = None

    def _read_once(self, produce: Callable[[Ask], None], connecting: _Step) -> None:
        """`connecting` ends when the transaction has begun. The other steps have a time-out each: the queries Neo4j's
        own, if there is one, plus the time for an answer to arrive; the end of the transaction the connect_timeout.
        """
        options = self.options
        self.overdue = None
        if self.driver is None:
            self.driver = _driver(options)
        session = self.driver.session(
            database=options.database, default_access_mode=neo4j.READ_ACCESS, fetch_size=options.fetch_size
        )
        try:
            with self._within(connecting):
                transaction = session.begin_transaction(metadata=cypher.OURS, timeout=options.query_timeout)
            agent = _never_waits_in_vain(session._connection)

            def ask(query: Query) -> Iterator[tuple[Any, ...]]:
                try:
                    # The text comes from `cypher` only: values travel as parameters, names are quoted.
                    result = transaction.run(cast("Any", query.text), dict(query.parameters))
                    if query.as_moments:  # for this result only; it took seven tenths of a scan's time
                        result._hydration_scope._struct_hydration_functions.update(HYDRATION)
                    ask_for_floats(result, query.floats_at)
                    for record in result:
                        yield tuple(tuple.__iter__(record))  # Record's own access raises for broken values
                except exceptions.CypherSyntaxError as error:
                    raise lacking(query, agent, options) or error from None

            with self._within(self._querying()):
                produce(ask)
            with self._within(self._as_long_as_connecting()):
                transaction.commit()
                session.close()
        except BaseException as error:
            if not isinstance(error, exceptions.Neo4jError):  # after an error of Neo4j the connection still works
                self._shut_sockets()  # or the driver would wait for the rest of the answer
            with contextlib.suppress(Exception), self._within(self._as_long_as_connecting()):
                session.close()
            raise

    def _as_long_as_connecting(self) -> _Step:
        seconds = self.options.connect_timeout
        return _Step("connect_timeout", seconds, seconds)

    def _querying(self) -> _Step | None:
        seconds = self.options.query_timeout
        return None if seconds is None else _Step("query_timeout", seconds, seconds + self.options.connect_timeout)

    @contextlib.contextmanager
    def _within(self, step: _Step | None) -> Iterator[None]:
        """Raises Overdue if `waited` has ended the block, whatever the driver was waiting for."""
        failure: Exception | None = None
        with self.lock:
            self.step = step
            if step is not None:
                step.began = time.monotonic()
        try:
            yield
        except Exception as error:
            failure = error
        finally:
            with self.lock:
                self.step = None  # it can no longer time out
        if self.overdue is not None and (failure is None or not self.stopped.is_set()):
            raise self.overdue.error() from failure
        if failure is not None:
            raise failure

    def waited(self, since: float) -> float:
        """Called after each wait of the main thread: adds the time since `since` to the current step.

        If the step's time is over, shuts the sockets, which ends the read. Returns the seconds left. Only time spent
        waiting counts: not a batch in PostgreSQL, not a slow client.
        """
        with self.lock:
            step = self.step
            if step is None or self.overdue is not None:
                return math.inf
            step.waited += max(0.0, time.monotonic() - max(since, step.began))
            if step.waited < step.seconds:
                return step.seconds - step.waited
            self.overdue = step
            self._shut_sockets()
            return math.inf

    def too_late(self) -> DealSyncError:
        """The error of a read that its time-out does not end at once, because it hangs in a name look-up or still has
        much of the answer to process."""
        assert self.overdue is not None
        return explained(self.overdue.error(), self.options)


def _never_waits_in_vain(bolt: Any) -> str:
    """Makes a connection of the driver raise instead of waiting for an answer to no request, for ever.

    The driver does that if a request was IGNORED, or answered by a message of another type. Returns the server's agent
    string.
    """
    if "fetch_message" in vars(bolt):
        return str(bolt.server_info.agent)
    fetch = bolt.fetch_message

    def fetch_message() -> None:
        if not bolt.responses:
            raise Garbled("a request was not answered, or answered out of order")
        fetch()

    bolt.fetch_message = fetch_message
    return str(bolt.server_info.agent)


def _driver(options: ServerOptions) -> neo4j.Driver:
    """It connects when it is first used."""
    uri, tls = options.uri, dict[str, Any]()
    if (trust := options.trusting()) is not None:  # the driver takes an SSL context only with a plain scheme
        uri = uri.replace("+s://", "://", 1)
        tls = {"encrypted": True, "ssl_context": trust}
    auth: tuple[str, str] | neo4j.Auth | None = None
    if options.bearer_token is not None:
        auth = neo4j.bearer_auth(options.bearer_token)
    elif options.user:
        auth = options.user, options.password() or ""
    longest = 2 * options.connect_timeout  # the driver's own time-out must not be the first to end
    return neo4j.GraphDatabase.driver(
        uri,
        auth=auth,
        user_agent="deal_sync",
        keep_alive=options.keep_alive,
        connection_timeout=longest,
        connection_acquisition_timeout=longest,  # bounds handshake and login, too
        liveness_check_timeout=options.idle_timeout,
        max_connection_pool_size=_MOST_SOCKETS,
        max_transaction_retry_time=0,
        **tls,
    )


_LIBC = ctypes.CDLL(None)
_kept: list[Connection] = []
_reading = threading.local()


def role() -> int:
    """The OID of the role whose rights PostgreSQL checks at the moment; 0 outside a backend."""
    try:
        return int(_LIBC.GetUserId())
    except AttributeError:
        return 0


def kept() -> list[Connection]:
    """The connections that this backend keeps."""
    return list(_kept)


def connection(options: ServerOptions) -> Connection:
    """An idle connection of this role with these options, or a new one.

    Other idle connections are closed if they have been idle for their idle_timeout, or if they are of the same server
    and role: the server's options have changed since.
    """
    mine, found = role(), None
    for other in kept():
        if other.in_use:
            continue
        if found is None and other.serves(options):
            found = other
        elif other.idle() > other.options.idle_timeout or (
            other.role == mine and other.options.server == options.server and other.options != options
        ):
            other.shut()
            other.close()
    if found is None:
        found = Connection(options, mine)
        _kept.append(found)
    return found


_Record = TypeVar("_Record")


def bounded(records: Iterator[_Record], options: ServerOptions) -> Iterator[_Record]:
    """The records of one scan. Raises DealSyncError (54000) if there are more than the server's max_rows."""
    for number, record in enumerate(records, start=1):
        if options.max_rows is not None and number > options.max_rows:
            raise DealSyncError(
                "54000",
                f'the scan reads more rows than option "max_rows" of server "{options.server}" allows'
                f" ({options.max_rows})",
                hint="Limit the scan to a tenant, a key or a number of rows, or raise the option.",
            )
        yield record


@contextlib.contextmanager
def reading(connection: Connection) -> Iterator[None]:
    """The sockets that the driver opens in this thread belong to `connection`."""
    _reading.connection = connection
    try:
        yield
    finally:
        del _reading.connection


def _same_socket(theirs: int, ours: int) -> bool:
    """Whether the driver's descriptor is still the socket that ours duplicates: its number may have been reused."""
    try:
        return os.path.samestat(os.fstat(theirs), os.fstat(ours))
    except OSError:
        return False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Sees each socket before it connects, plain or TLS, even one that never connects."""
    if event == "socket.connect" and (owner := getattr(_reading, "connection", None)) is not None:
        owner.keep(arguments[0].fileno())
        if owner.stopped.is_set() or owner.overdue is not None:
            raise ConnectionAbortedError


sys.addaudithook(_watch)
