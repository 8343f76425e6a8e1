"""In: an error of a read. Out: the error that the user sees, without secrets and without data."""

from __future__ import annotations

import errno
import os
import re
import ssl
import traceback
from collections.abc import Iterator
from types import FrameType

from neo4j import exceptions
from neo4j._exceptions import BoltSecurityError

from neo4j_deals.errors import DealSyncError, Garbled
from neo4j_deals.graph.cypher import Query
from neo4j_deals.graph.options import ServerOptions

_LONGEST = 500  # characters of a text of Neo4j or the driver: a server may send anything
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # raised by writes to a spool file, never by a socket

#: An address as the driver's classes print it, which is no text for a person: the message has the server's uri.
_ADDRESS = re.compile(r" ?\(?\b(?:Resolved)?IPv[46]Address\(\([^()]*\)\)\)?")

#: What to do, by the option that sets the time-out.
_OVERDUE = {
    "connect_timeout": 'Check that Neo4j runs there and accepts Bolt connections, and the server\'s options "uri" and'
    ' "connect_timeout".',
    "query_timeout": "Check whether Neo4j still answers there, and what keeps it busy (SHOW TRANSACTIONS), or raise the"
    ' server\'s option "query_timeout".',
}

#: What queries use and older versions of Neo4j lack: its text, its name, since when it exists, and a way round it.
_FEATURES = (
    ("elementId(", "function elementId()", (5, 0), ""),
    (" IS :: ", "type predicate IS ::", (5, 9), " Until then, full runs work: mode => 'full'."),
    ("SHOW VECTOR INDEXES", "command SHOW VECTOR INDEXES", (5, 13), " Until then, write CREATE FOREIGN TABLE by hand."),
)


class Overdue(Exception):
    """Neo4j did not answer within the time-out of a step, which an option of the server sets."""

    def __init__(self, option: str, allowed: float) -> None:
        super().__init__(f"{option} ({allowed:g} s)")
        self.option = option


def explained(error: Exception, options: ServerOptions) -> DealSyncError:
    """The error for the user."""
    for explain in (_of_this_machine, _of_time, _of_an_answer, _of_the_handshake, _of_tls, _of_the_network):
        if (found := explain(error, options)) is not None:
            return found
    return DealSyncError(
        "HV000", f"{_named(options)} reported an error ({getattr(error, 'code', None)})", _reason(error, options)
    )


def _named(options: ServerOptions) -> str:
    return _placed(options) if options.server.startswith(options.uri) else f'Neo4j server "{options.server}"'


def _placed(options: ServerOptions) -> str:
    """With the address, which stands for the name if that is not known: Multicorn does not pass it."""
    uri = options.redact(options.uri)
    return (
        f"Neo4j server at {uri}"
        if options.server.startswith(options.uri)
        else f'Neo4j server "{options.server}" at {uri}'
    )


def _reason(error: Exception, options: ServerOptions) -> str:
    """The text of Neo4j or the driver."""
    said = error.message if isinstance(error, exceptions.Neo4jError) else _ADDRESS.sub("", str(error))
    return " ".join(options.redact(said or type(error).__name__).split())[:_LONGEST]


def _of_this_machine(error: Exception, options: ServerOptions) -> DealSyncError | None:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return DealSyncError(
            "53100",
            "could not write PostgreSQL's temporary files",
            os.strerror(error.errno),
            "Check free disk space in the data directory.",
        )
    if (none_left := no_descriptor(error)) is not None:
        return none_left
    if isinstance(error, MemoryError):
        return DealSyncError("53200", "out of memory while reading the graph", hint="Lower deal_sync.batch_bytes.")
    return None


def no_descriptor(error: BaseException) -> DealSyncError | None:
    """The error if the operating system has no file descriptor left; None if it is another error."""
    if any(isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE) for cause in _causes(error)):
        return DealSyncError(
            "53000",
            "out of file descriptors while reading the graph",
            hint="Reconnect; if it happens again, raise the limit of open files that PostgreSQL is started with"
            " (ulimit -n).",
        )
    return None


def _of_time(error: Exception, options: ServerOptions) -> DealSyncError | None:
    if not isinstance(error, Overdue):
        return None
    return DealSyncError(
        "08006",
        f"{_placed(options)} did not answer within {error}",
        hint=_OVERDUE[error.option],
    )


def _of_an_answer(error: Exception, options: ServerOptions) -> DealSyncError | None:
    """An unreadable answer, or a bug: not an error that Neo4j, the driver or the network report as such."""
    if isinstance(error, exceptions.Neo4jError | exceptions.DriverError | OSError):
        return None
    if not isinstance(error, Garbled) and not _came_up_in_reading(error):
        return internal_error(error)
    return DealSyncError(
        "08P01",
        f"invalid answer from {_named(options)}",
        str(error) if isinstance(error, Garbled) else type(error).__name__,  # its text may contain data
        'Check that the server\'s option "uri" is the address of Neo4j itself.',
    )


def _came_up_in_reading(error: Exception) -> bool:
    """Whether the driver, or one of our functions that it calls to read a value, failed on what the server sent.

    False if it failed to write a request, which is our own data.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(_module(frame).startswith("neo4j._") for frame in frames) and not any(
        frame.f_code.co_name == "append_message" for frame in frames
    )


def internal_error(error: Exception) -> DealSyncError:
    """The error for a bug: where it is, and nothing of what was read."""
    places = [
        f"{_module(frame)}, line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _module(frame).startswith("neo4j_deals.")
    ]
    return DealSyncError(
        "XX000",
        f"internal error in deal_sync: {type(error).__name__}",
        f"in {places[-1]}" if places else None,
        "This is a bug: please report it, with this line.",
    )


def _of_the_handshake(error: Exception, options: ServerOptions) -> DealSyncError | None:
    """A login, a version of Bolt or an option that is not accepted."""
    where, reason = _named(options), _reason(error, options)
    if isinstance(error, exceptions.AuthError):
        login = "bearer_token" if options.bearer_token else "user and password"
        return DealSyncError("28P01", f"{where} rejected the login", reason, f"Check the {login} of the user mapping.")
    if isinstance(error, exceptions.UnsupportedServerProduct):
        return DealSyncError(
            "08P01",
            f"{where} supports no version of Bolt that deal_sync knows",
            reason,
            "Upgrade Neo4j; deal_sync is tested with 5.26.",
        )
    if isinstance(error, exceptions.ConfigurationError):
        return DealSyncError("HV00D", f"conflicting options for {where}", reason)
    return None


def _of_tls(error: Exception, options: ServerOptions) -> DealSyncError | None:
    cause = next((cause.__cause__ for cause in _causes(error) if isinstance(cause, BoltSecurityError)), None)
    if cause is None or "+s" not in options.uri:
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DealSyncError(
            "08006",
            f"the certificate of {_named(options)} is not trusted",
            cause.verify_message,
            'Check the host name in the option "uri", and "sslrootcert", the root that signed the certificate.',
        )
    return DealSyncError(
        "08006",
        f"could not establish a TLS connection to {_placed(options)}",
        type(cause).__name__,
        'If Neo4j has no TLS, the option "uri" must begin with bolt:// or neo4j://.',
    )


def _of_the_network(error: Exception, options: ServerOptions) -> DealSyncError | None:
    if not isinstance(error, exceptions.DriverError | OSError):
        return None
    # The operating system's text: the driver's contains names of its classes.
    system = (cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror)
    return DealSyncError(
        "08006",
        f"could not connect to {_placed(options)}, or the connection was lost",
        next(system, None) or _reason(error, options),
        'Check that Neo4j runs there and accepts Bolt connections, and the server\'s option "uri".',
    )


def lacking(query: Query, agent: str, options: ServerOptions) -> DealSyncError | None:
    """The error of a Neo4j that is too old for the query; `agent` is its name and version."""
    version = re.match(r"Neo4j/(\d+)\.(\d+)", agent)
    if version is None:
        return None
    for text, feature, since, meanwhile in _FEATURES:
        if text in query.text and (int(version[1]), int(version[2])) < since:
            return DealSyncError(
                "0A000",
                f"{_named(options)} has version {version[1]}.{version[2]}, but {feature} requires"
                f" {since[0]}.{since[1]} or later",
                hint=f"Upgrade Neo4j; deal_sync is tested with 5.26.{meanwhile}",
            )
    return None


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, back to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
