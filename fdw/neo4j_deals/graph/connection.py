"""In: server options. Out: records of read-only queries, from one driver per backend, server and user mapping.

The driver is kept between calls, together with duplicates of its sockets' descriptors: shutting those down is the only
way to end a read that blocks (docs/internals/run.md, rules 8 and 9). Concurrent reads, such as the two sides of a join,
have a driver each, so that ending one never ends another.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import math
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar, cast

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the driver imports numpy if it can, whose threads take signals

import neo4j
from neo4j import exceptions
from neo4j._exceptions import BoltSecurityError

from neo4j_deals.errors import DealSyncError, Garbled
from neo4j_deals.graph import cypher
from neo4j_deals.graph.cypher import Query
from neo4j_deals.graph.hydration import MOMENTS
from neo4j_deals.graph.options import ServerOptions

Ask = Callable[[Query], Iterator[tuple[Any, ...]]]
"""Runs a query in the transaction of the read; a record is the tuple of its columns."""

_TRIES = 3
_AT_ONCE = struct.pack("ii", 1, 0)  # a struct linger
_LONGEST = 500  # characters of a text of Neo4j or the driver: a server may send anything
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # raised by writes to a spool file, never by a socket

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


class Overdue(Exception):
    """Neo4j did not answer within the time-out of a step."""

    def __init__(self, step: _Step) -> None:
        super().__init__(f"{step.option} ({step.allowed:g} s)")
        self.step = step


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
                if was_kept and isinstance(error, Overdue) and error.step is connecting:
                    retryable = True  # the test of an idle connection may use up all of the connect_timeout
                    self._start_anew()
                    connecting = self._as_long_as_connecting()
                if not retryable or attempt == _TRIES or began() or self.stopped.wait(0.2 * attempt):
                    raise _explained(error, self.options) from None

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
                    if query.moments:  # for this result only; it took seven tenths of a scan's time
                        result._hydration_scope._struct_hydration_functions.update(MOMENTS)
                    for record in result:
                        yield tuple(tuple.__iter__(record))  # Record's own access raises for broken values
                except exceptions.CypherSyntaxError as error:
                    if (lacking := _lacking(error, query, agent, options)) is not None:
                        raise lacking from None
                    raise

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
            raise Overdue(self.overdue) from failure
        if failure is not None:
            raise failure

    def waited(self, since: float) -> float:
        """The read's only clock: a caller has been waiting for it, and for nothing else, since then.

        The time that PostgreSQL spends on a batch does not count, nor the time until a client fetches on: meanwhile the
        reader is blocked, or has had its answer but not Python's lock. If a step has timed out, this ends the read by
        shutting the sockets down. Returns the seconds that are left.
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
        return _explained(Overdue(self.overdue), self.options)


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
            raise Garbled("a request was not answered, or by a message out of turn")
        fetch()

    bolt.fetch_message = fetch_message
    return str(bolt.server_info.agent)


#: What queries use and older versions of Neo4j lack: its text, its name, since when it exists, and a way round it.
_FEATURES = (
    ("elementId(", "function elementId()", (5, 0), ""),
    (" IS :: ", "type predicate IS ::", (5, 9), "; until then, full runs work: mode => 'full'"),
    ("SHOW VECTOR INDEXES", "command SHOW VECTOR INDEXES", (5, 13), "; until then, write CREATE FOREIGN TABLE by hand"),
)


def _lacking(error: Exception, query: Query, agent: str, options: ServerOptions) -> DealSyncError | None:
    """The error of a Neo4j that is too old for the query."""
    version = re.match(r"Neo4j/(\d+)\.(\d+)", agent)
    if version is None:
        return None
    for text, feature, since, meanwhile in _FEATURES:
        if text in query.text and (int(version[1]), int(version[2])) < since:
            return DealSyncError(
                "0A000",
                f'Neo4j server "{options.server}" is of version {version[1]}.{version[2]}, which has no {feature}',
                f"Neo4j has it since {since[0]}.{since[1]}",
                f"upgrade Neo4j; deal_sync is tested with 5.26{meanwhile}",
            )
    return None


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
        max_connection_pool_size=4,
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
                f'the scan reads more rows than the option "max_rows" of server "{options.server}" allows',
                f"it allows {options.max_rows}",
                "ask for less: a tenant, a key or a limit; or raise the option",
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


def no_descriptor(error: BaseException) -> DealSyncError | None:
    """The error if the operating system has no file descriptor left; None if it is another error."""
    if any(isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE) for cause in _causes(error)):
        return DealSyncError(
            "53000",
            "no file descriptor is left to read the graph",
            "the backend has as many files open as the operating system allows it",
            "reconnect; if it happens again, raise the limit of open files that PostgreSQL is started with (ulimit -n)",
        )
    return None


#: What to do, by the option that sets the time-out.
_OVERDUE = {
    "connect_timeout": 'check that Neo4j runs there and speaks Bolt, and the server\'s options "uri" and'
    ' "connect_timeout"',
    "query_timeout": "see whether Neo4j still answers there, and what keeps it busy (SHOW TRANSACTIONS), or raise the"
    ' server\'s option "query_timeout"',
}


def _explained(error: Exception, options: ServerOptions) -> DealSyncError:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return DealSyncError(
            "53100",
            "no room for PostgreSQL's temporary files",
            os.strerror(error.errno),
            "make room where its data lies",
        )
    if (none_left := no_descriptor(error)) is not None:
        return none_left
    where = f'Neo4j server "{options.server}"'
    if isinstance(error, Overdue):
        return DealSyncError(
            "08006",
            f"{where} at {options.redact(options.uri)} did not answer within {error}",
            hint=_OVERDUE[error.step.option],
        )
    if isinstance(error, MemoryError):
        return DealSyncError("53200", "not enough memory to read the graph", hint="lower deal_sync.batch_bytes")
    if isinstance(error, Garbled) or _came_up_in_reading(error):
        return DealSyncError(
            "08P01",
            f"{where} sent an answer that cannot be read",
            str(error) if isinstance(error, Garbled) else type(error).__name__,  # its text may contain data
            'check that Neo4j itself, and no other program, answers at the server\'s option "uri"',
        )
    if not isinstance(error, exceptions.Neo4jError | exceptions.DriverError | OSError):
        return internal_error(error)
    said = error.message if isinstance(error, exceptions.Neo4jError) else str(error)
    reason = " ".join(options.redact(said or type(error).__name__).split())[:_LONGEST]
    if isinstance(error, exceptions.AuthError):
        login = "bearer_token" if options.bearer_token else "user and password"
        return DealSyncError("28P01", f"{where} refused the login", reason, f"check the user mapping's {login}")
    if isinstance(error, exceptions.UnsupportedServerProduct):
        return DealSyncError(
            "08P01",
            f"{where} speaks no version of Bolt that deal_sync knows",
            reason,
            "upgrade Neo4j; deal_sync is tested with 5.26",
        )
    if isinstance(error, exceptions.ConfigurationError):
        return DealSyncError("HV00D", f"the options of {where} do not fit together", reason)
    if (cause := _tls_failure(error)) is not None and "+s" in options.uri:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return DealSyncError(
                "08006",
                f"{where} has no certificate that this server trusts",
                cause.verify_message,
                'check the host name in the option "uri", and "sslrootcert": the root that signed the certificate',
            )
        return DealSyncError(
            "08006",
            f"no TLS connection to {where} at {options.redact(options.uri)}",
            type(cause).__name__,
            'where Neo4j has no TLS, the option "uri" begins with bolt:// or neo4j://',
        )
    if isinstance(error, exceptions.DriverError | OSError):
        return DealSyncError(
            "08006",
            f"no connection to {where} at {options.redact(options.uri)}, or it broke",
            _of_the_system(error) or reason,
            'check that Neo4j runs there and speaks Bolt, and the server\'s option "uri"',
        )
    code = getattr(error, "code", None)
    return DealSyncError("HV000", f"{where} refused the query ({code})", reason)


def _came_up_in_reading(error: Exception) -> bool:
    """Whether the driver, or a function of ours that it calls to read a value, failed on what the server sent.

    Not an error that the driver raises on purpose, and not one in writing a request, which came from us.
    """
    if isinstance(error, exceptions.Neo4jError | exceptions.DriverError | OSError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(_module(frame).startswith("neo4j._") for frame in frames) and not any(
        frame.f_code.co_name == "append_message" for frame in frames
    )


def internal_error(error: Exception) -> DealSyncError:
    """The error for a bug of ours: where it is, and nothing of what was read."""
    places = [
        f"{_module(frame)}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _module(frame).startswith("neo4j_deals.")
    ]
    return DealSyncError(
        "XX000",
        f"internal error of deal_sync: {type(error).__name__}",
        f"in {places[-1]}" if places else None,
        "report it, with this line",
    )


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, back to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_the_system(error: BaseException) -> str | None:
    """The operating system's text for a connection that failed; the driver's contains names of its classes."""
    return next((cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror), None)


def _tls_failure(error: BaseException) -> BaseException | None:
    """The cause of a TLS handshake that failed, if one did."""
    return next((cause.__cause__ for cause in _causes(error) if isinstance(cause, BoltSecurityError)), None)
