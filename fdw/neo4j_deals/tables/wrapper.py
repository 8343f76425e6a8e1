"""In: Multicorn2's calls for a foreign table. Out: rows, by the same reader and projection as scan().

`pushdown` translates quals and sort keys, and `cypher` builds the query; PostgreSQL checks every qual itself, but
relies on a sort order that was promised. Joins and LIMIT are not pushed: Multicorn2 3.2 then drops other clauses
silently (docs/internals/multicorn2.md).
The server's option `wrapper`, which attach() sets, names the class. Nothing else may import this module: it needs
Multicorn2's library in the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from logging import ERROR, INFO, WARNING
from typing import Any

from multicorn import ForeignDataWrapper  # type: ignore[import-untyped, import-not-found, unused-ignore]
from multicorn.utils import log_to_postgres  # type: ignore[import-untyped, import-not-found, unused-ignore]

from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph import cypher, results
from neo4j_deals.graph.connection import bounded, connection
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.graph.reader import Reader, answer, client_is_gone, pending, setting
from neo4j_deals.mapping.model import Column, Source, keys_of
from neo4j_deals.mapping.types import type_named
from neo4j_deals.rows.projection import Projection
from neo4j_deals.rows.warning import MisfitCount
from neo4j_deals.tables.imports import Wish, read
from neo4j_deals.tables.pushdown import Pushed, order, pushed, sortable
from neo4j_deals.tables.scan import hand_over, handed_over, selection

_POSTGRES = ctypes.CDLL(None)

#: Types for which EXPLAIN with a run-time value crashes the backend in Multicorn2 3.2 (docs/internals/multicorn2.md).
_UNSAFE = {"uuid", "numeric"}

#: Weak: Multicorn drops a scan at its end, after a LIMIT too, and that ends it; but not after an error that a savepoint
#: catches, nor under EXPLAIN ANALYZE.
_open: weakref.WeakSet[_Scan] = weakref.WeakSet()
#: Scans that Multicorn may have forgotten, the oldest first.
_doubtful: dict[_Scan, None] = {}
_numbers = itertools.count()
_MOST_DOUBTFUL = 8  # each has a thread, a connection and a transaction in Neo4j
#: Set while a failed transaction ends its scans: their misfits are not reported.
_rolling_back = threading.Event()


#: Widths in bytes, for the planner.
_WIDTHS = {"int8": 8, "int4": 4, "int2": 2, "float8": 8, "float4": 4, "bool": 1, "timestamptz": 8, "vector": 6148}
#: The cost of a query, in the planner's unit: as much as a few rows, which cost their bytes.
_STARTUP_COST = 500
_UNKNOWN = 1000  # rows of a query, and of nodes that cannot be counted
_COUNT_SECONDS, _FAILED_SECONDS = 300.0, 10.0  # how long a count, or a guess, is used
_counts: dict[tuple[ServerOptions, str], tuple[float, int]] = {}


@dataclass(frozen=True)
class _Asked:
    """A scan: how records become rows, the query, the place of each column in a row, and the pushed quals."""

    projection: Projection
    query: cypher.Query
    places: Sequence[int | None]
    pushed: Pushed


class _Scan:
    """The rows of one scan. Reading on after it was ended is an error, never a shorter result."""

    def __init__(self, rows: Generator[list[Any], None, None], projection: Projection) -> None:
        self._rows, self._is_ended = rows, False
        self.projection, self.level, self.number = projection, _level(), next(_numbers)
        _open.add(self)

    def __iter__(self) -> Iterator[list[Any]]:
        return self

    def __next__(self) -> list[Any]:
        _doubtful.pop(self, None)  # it is being read
        if self._is_ended:
            log_to_postgres(
                "the scan of Neo4j was ended, because this transaction has left too many others unfinished",
                ERROR,
                hint="Read a cursor to its end before the next savepoints, or declare it WITH HOLD.",
            )
        return next(self._rows)

    def end(self) -> None:
        """Releases thread, connection and transaction, also in an aborted transaction."""
        _doubtful.pop(self, None)
        self._is_ended = True
        with contextlib.suppress(Exception):  # an exception in a hook crashes the server
            self._rows.close()


class Neo4jForeignDataWrapper(ForeignDataWrapper):  # type: ignore[misc]
    """The nodes of one label, or the rows of one query."""

    def __init__(self, options: Mapping[str, str], columns: Mapping[str, Any]) -> None:
        super().__init__(options, columns)
        self._options = options
        with _reported():
            self._source = Source.read(options, "the foreign table")
            keys = keys_of(options)
            self._columns = [_column(definition, keys) for definition in columns.values()]
        self._by_name = {column.name: column for column in self._columns}
        self._selections: dict[frozenset[str], tuple[Projection, list[int | None]]] = {}  # for the rescans of a join

    @classmethod
    def import_schema(
        cls,
        schema: str,
        srv_options: Mapping[str, str],
        options: Mapping[str, str],
        restriction_type: str | None,
        restricts: Sequence[str],
    ) -> list[Any]:
        """IMPORT FOREIGN SCHEMA: the tables, for Multicorn. `schema` is the name of the Neo4j database."""
        names = {"limit": (restricts, None), "except": (None, restricts)}.get(restriction_type or "", (None, None))
        with _reported():
            wish = Wish.read(options, *names)
            server = _server_options(srv_options)
            database, result = read(connection(server), wish, "vector", _interrupted)
            if schema not in (database, server.database):
                raise DealSyncError(
                    "HV00R",
                    f'the server reads the database "{database}", not "{schema}"',
                    hint=f'IMPORT FOREIGN SCHEMA "{database}" FROM SERVER ... INTO ...;',
                )
        for notice in result.notices:
            log_to_postgres(notice, INFO)
        for warning in result.warnings:
            log_to_postgres(warning, WARNING)
        return result.tables

    # The names are Multicorn's; it passes sortkeys only if the order was promised.
    def execute(
        self, quals: Sequence[Any], columns: Set[str], sortkeys: Sequence[Any] | None = None
    ) -> Iterator[list[Any]]:
        """The rows that satisfy the pushed quals, with all columns of the table; those not asked for are None."""
        with _reported():
            asked = self._asked(quals, columns, sortkeys)
        return _Scan(self._rows(asked), asked.projection)

    def explain(
        self,
        quals: Sequence[Any],
        columns: Set[str],
        sortkeys: Sequence[Any] | None = None,
        verbose: bool = False,
    ) -> Iterator[str]:
        """The Cypher of a scan, and which quals are left to PostgreSQL; with VERBOSE the names of the parameters.

        Under ANALYZE the scan has run, and Multicorn forgets it now.
        """
        with _reported():
            asked = self._asked(quals, columns, sortkeys)
        run = [scan for scan in _open if scan.projection is asked.projection and scan not in _doubtful]
        _doubt(sorted(run, key=lambda scan: scan.number)[-1:])
        yield from asked.query.text.splitlines()
        if asked.pushed.superset:
            yield "Pushed as a superset: " + ", ".join(asked.pushed.superset)
        if asked.pushed.left:
            yield "Not pushed: " + ", ".join(asked.pushed.left)
        if verbose:
            yield "Parameters: " + (", ".join(asked.query.parameters) or "none")

    @property
    def rowid_column(self) -> str:
        """Called for UPDATE, DELETE and INSERT, which are not supported."""
        log_to_postgres("cannot change a foreign table of the graph", ERROR, hint="Change the graph with Cypher.")
        raise AssertionError  # an ERROR does not return

    def can_sort(self, sortkeys: Sequence[Any]) -> list[Any]:
        """The leading keys that Neo4j can sort as PostgreSQL does."""
        return list(itertools.takewhile(lambda key: sortable(key, self._by_name), sortkeys))

    def get_rel_size(self, quals: Sequence[Any], columns: Set[str]) -> tuple[int, int]:
        """The number of rows, for the planner, and their width in bytes."""
        width = sum(_WIDTHS.get(c.type_name, 32) for c in self._columns if c.name in columns)
        share = 1.0
        with _reported():
            nodes = self._nodes()
        for qual in quals:
            column = self._by_name.get(qual.field_name)
            by_key = column is not None and (column.key or column.derive == "element_id")
            if by_key and column is not None and column.target != "tenant_id" and qual.operator == "=":
                share = min(share, 1 / max(nodes, 1))
            elif by_key and isinstance(qual.value, list) and qual.operator == ("=", True):
                share = min(share, len(qual.value) / max(nodes, 1))
            else:
                share *= 0.1 if qual.operator == "=" else 0.33
        rows, width = max(1, round(nodes * share)), max(1, width)
        self._startup_cost = min(_STARTUP_COST, rows * width)  # Multicorn reads it next, as part of the total cost
        return rows, width

    def _nodes(self) -> int:
        """The nodes of the label, by Neo4j's own count, a few minutes old at most. If Neo4j cannot be asked, a guess:
        the scan itself will raise the error."""
        label = self._source.label
        if label is None:
            return _UNKNOWN
        try:
            options = _server_options(self._options)
        except DealSyncError:
            return _UNKNOWN
        until, nodes = _counts.get((options, label), (0.0, 0))
        if time.monotonic() < until:
            return nodes
        seconds = _COUNT_SECONDS
        try:
            query = cypher.count(label, {})
            nodes = answer(connection(options), lambda ask: int(results.one(ask, query, int)[0]), _interrupted)
        except DealSyncError as error:
            if error.is_cancel:
                raise
            seconds, nodes = _FAILED_SECONDS, _UNKNOWN
        _counts[options, label] = time.monotonic() + seconds, nodes
        return nodes

    def _asked(self, quals: Sequence[Any], columns: Set[str], sortkeys: Sequence[Any] | None) -> _Asked:
        source = self._source
        wanted = frozenset(columns)
        if wanted not in self._selections:
            self._selections[wanted] = selection(self._columns, wanted)
        projection, places = self._selections[wanted]

        def expression(column: Column) -> str | None:
            if column.derive:
                return cypher.identity(source) if column.derive == "element_id" and source.label else None
            return cypher.value(source, column.property)

        found = pushed(quals, self._by_name, expression, setting("extra_float_digits", 1) > 0)
        query = cypher.rows(
            source,
            projection.properties,
            conditions=found.conditions,
            parameters=found.parameters,
            order=order(sortkeys or (), self._by_name, expression),
            labels=projection.wants_labels,
            dimensions_but=projection.dimensions_but,
        )
        return _Asked(projection, query, places, found)

    def pre_commit(self) -> None:
        """Cursors WITH HOLD have been read to their end by now; the other scans are left over."""
        for scan in list(_open):
            scan.end()
        _doubtful.clear()

    def rollback(self) -> None:
        """After an error in a scan, neither end_scan nor the end of the generator is reached, so it is ended here."""
        _rolling_back.set()
        self.pre_commit()
        _rolling_back.clear()

    def sub_rollback(self, level: int) -> None:
        """After an error that a savepoint catches, scans that were begun after it are left over, except for a cursor
        that was declared before it and first read after it."""
        _rolling_back.set()
        _doubt([scan for scan in _open if scan.level >= level])
        _rolling_back.clear()

    def _rows(self, asked: _Asked) -> Generator[list[Any], None, None]:
        count = MisfitCount(str(self._source), asked.projection.columns)
        try:
            with _reported():
                options = _server_options(self._options)
                reader = Reader(
                    connection(options),
                    lambda ask, to: hand_over(bounded(ask(asked.query), options), asked.projection, to),
                )
                with contextlib.closing(reader.batches(_interrupted)) as batches:
                    for values in handed_over(batches, count):
                        yield [None if at is None else values[at] for at in asked.places]
        except GeneratorExit:  # a LIMIT has enough rows, or the query has failed
            if not _rolling_back.is_set():
                self._warn(count)
            raise
        self._warn(count)

    def _warn(self, count: MisfitCount) -> None:
        """At the end of a scan, and only once: with Python 3.14 a second WARNING crashes the backend."""
        if warning := count.warning(self._columns):
            log_to_postgres(warning.message, WARNING, hint=warning.hint, detail=warning.detail)


def _doubt(scans: Sequence[_Scan]) -> None:
    """Notes that these may never be read again. Only the newest are kept; one that is read after all is in use."""
    for scan in scans:
        _doubtful.setdefault(scan)
    while len(_doubtful) > _MOST_DOUBTFUL:
        next(iter(_doubtful)).end()


def _level() -> int:
    """The nesting level of subtransactions; 0 outside a backend."""
    try:
        return int(_POSTGRES.GetCurrentTransactionNestLevel())
    except AttributeError:
        return 0


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Raises errors as PostgreSQL's, with DETAIL and HINT."""
    try:
        yield
    except DealSyncError as error:
        log_to_postgres(error.message, ERROR, hint=error.hint, detail=error.detail)


def _server_options(options: Mapping[str, str]) -> ServerOptions:
    """From the options of table, server and user mapping, which Multicorn passes as one. It does not pass the server's
    name, so address and database stand for it.

    Raises DealSyncError (42704) without a login: Multicorn treats a missing user mapping as an empty one, and a Neo4j
    without authentication would answer anybody.
    """
    name = "/".join(options[part] for part in ("uri", "database") if part in options)
    read = ServerOptions.read(name or "neo4j", options, "", options)
    if read.user is None and read.bearer_token is None:
        raise DealSyncError(
            "42704",
            f'the current role has no user mapping with a login for server "{read.server}"',
            hint="CREATE USER MAPPING FOR CURRENT_USER SERVER ... OPTIONS (\"user\" '...', password '...');",
        )
    return read


def _column(definition: Any, keys: Sequence[str]) -> Column:
    type_name = type_named(definition.base_type_name)
    if type_name.removeprefix("_") in _UNSAFE:
        raise DealSyncError(
            "HV004",
            f'column "{definition.column_name}" is of type {type_name}, which is not supported with Multicorn2',
            hint="Make it text and cast it in the query, or read the table with deal_sync.scan().",
        )
    return Column.defined(definition.column_name, type_name, definition.typmod, definition.options, keys)


def _interrupted() -> None:
    """Ends the scan on a cancel, a termination or if the client is gone; PostgreSQL then serves the interrupt."""
    if pending("QueryCancelPending") or pending("ProcDiePending"):
        raise DealSyncError("57014", "canceling statement: the scan of Neo4j was interrupted")
    if client_is_gone():
        raise DealSyncError("57014", "canceling statement: connection to client lost")
