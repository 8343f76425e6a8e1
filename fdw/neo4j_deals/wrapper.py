"""In: what Multicorn2 asks of a foreign table. Out: rows, by the same reader and projection as scan().

Thin: `pushdown` says what becomes of quals and sort keys, `cypher` writes the query; PostgreSQL checks every qual
itself, but trusts the order and the limit that were promised.
The class is named by the server's option `wrapper`, which attach() sets. Nothing else may import this module: it needs
Multicorn2's library in the process.
"""

from __future__ import annotations

import contextlib
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

from neo4j_deals import cypher
from neo4j_deals.connection import bounded, connection
from neo4j_deals.errors import DealSyncError
from neo4j_deals.imports import Wish, read
from neo4j_deals.losses import Losses
from neo4j_deals.mapping import Column, keys_of
from neo4j_deals.options import ServerOptions
from neo4j_deals.projection import Projection
from neo4j_deals.pushdown import Pushed, order, pushed, sortable
from neo4j_deals.reader import Reader, Standing, Work, answer, pending, setting
from neo4j_deals.scan import hand_over, handed_over, selection
from neo4j_deals.values import type_named

#: EXPLAIN of a run-time value of these kills the backend in Multicorn2 3.2 (field notes).
_REFUSED = {"uuid", "numeric"}

#: Weak: at the end of a scan, after a LIMIT too, Multicorn lets go of the generator, and that ends it.
_open: weakref.WeakSet[Generator[list[Any], None, None]] = weakref.WeakSet()
#: By table: the readers of its nested loops.
_standing: dict[Neo4jForeignDataWrapper, list[Standing]] = {}
#: While a failed transaction ends its scans, nothing is said of their losses.
_rolling_back = threading.Event()


#: Bytes, for the planner.
_WIDTHS = {"int8": 8, "int4": 4, "int2": 2, "float8": 8, "float4": 4, "bool": 1, "timestamptz": 8, "vector": 6148}
#: Of a query, in the planner's measure, where a row costs its bytes: some rows' worth. It is far more in truth (1,000
#: look-ups take as long as 100,000 narrow rows), but Neo4j is asked for what is wanted, a limit too, and not for all.
_STARTUP_COST = 500
_UNKNOWN = 1000  # rows of a query, and of what cannot be counted
_COUNT_SECONDS, _FAILED_SECONDS = 300.0, 10.0  # for which a count, or a guess, is good enough
_counts: dict[tuple[ServerOptions, str], tuple[float, int]] = {}


@dataclass(frozen=True)
class _Asked:
    """A scan: how records become rows, the query, the place of each column in them, and what became of the quals."""

    projection: Projection
    query: cypher.Query
    places: Sequence[int | None]
    pushed: Pushed


class Neo4jForeignDataWrapper(ForeignDataWrapper):  # type: ignore[misc]
    """The nodes of one label, or the rows of one query."""

    def __init__(self, options: Mapping[str, str], columns: Mapping[str, Any]) -> None:
        super().__init__(options, columns)
        self._options = options
        with _reported():
            self._source = cypher.Source.read(options, "the foreign table")
            keys = keys_of(options)
            self._columns = [_column(definition, keys) for definition in columns.values()]
        self._by_name = {column.name: column for column in self._columns}
        self._selections: dict[frozenset[str], tuple[Projection, list[int | None]]] = {}  # a nested loop's are the same
        self._begun = 0  # scans, and look-ups of one, since the last end of a scan

    @classmethod
    def import_schema(
        cls,
        schema: str,
        srv_options: Mapping[str, str],
        options: Mapping[str, str],
        restriction_type: str | None,
        restricts: Sequence[str],
    ) -> list[Any]:
        """IMPORT FOREIGN SCHEMA: the tables, as Multicorn asks for them. `schema` is the Neo4j database's name."""
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

    # The names are Multicorn's: it gives sortkeys, limit and offset only where they are in force.
    def execute(
        self,
        quals: Sequence[Any],
        columns: Set[str],
        sortkeys: Sequence[Any] | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Iterator[list[Any]]:
        """The rows that meet the pushed quals, in the order of the table's columns; those not asked for are None."""
        with _reported():
            self._begun += 1
            rows = self._rows(self._asked(quals, columns, sortkeys, limit, offset))
        _open.add(rows)
        return rows

    def explain(
        self,
        quals: Sequence[Any],
        columns: Set[str],
        sortkeys: Sequence[Any] | None = None,
        verbose: bool = False,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Iterator[str]:
        """The Cypher that a scan runs, and which quals are PostgreSQL's; with VERBOSE the parameters' names."""
        with _reported():
            asked = self._asked(quals, columns, sortkeys, limit, offset)
        yield from asked.query.text.splitlines()
        if asked.pushed.superset:
            yield "Pushed as a superset: " + ", ".join(asked.pushed.superset)
        if asked.pushed.left:
            yield "Not pushed: " + ", ".join(asked.pushed.left)
        if verbose:
            yield "Parameters: " + (", ".join(asked.query.parameters) or "none")

    @property
    def rowid_column(self) -> str:
        """Asked for by UPDATE, DELETE and INSERT: there is none."""
        log_to_postgres("a foreign table of the graph can only be read", ERROR, hint="change the graph with Cypher")
        raise AssertionError  # an ERROR does not come back

    def can_sort(self, sortkeys: Sequence[Any]) -> list[Any]:
        """The first of the keys, as many as Neo4j can put in PostgreSQL's order."""
        return list(itertools.takewhile(lambda key: sortable(key, self._by_name), sortkeys))

    def can_limit(self, limit: int | None, offset: int | None) -> bool:
        """Asked only where there are no quals. Multicorn cuts the numbers to 32 bits; a negative one comes as None."""
        return limit is not None and limit > 0

    def get_path_keys(self) -> list[tuple[tuple[str, ...], int]]:
        """The columns by which a join looks nodes up one at a time, and how many nodes it finds: few."""
        return [
            ((c.name,), 1) for c in self._columns if (c.key and c.target != "tenant_id") or c.derive == "element_id"
        ]

    def get_rel_size(self, quals: Sequence[Any], columns: Set[str]) -> tuple[int, int]:
        """How many rows the planner has to expect, and how wide they are in bytes."""
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
        self._startup_cost = min(_STARTUP_COST, rows * width)  # Multicorn asks for it now, and takes the total for that
        return rows, width

    def _nodes(self) -> int:
        """The nodes of the label by Neo4j's own count, some minutes old at most. Where it cannot be asked, a guess:
        the scan itself will say what is wrong."""
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
            nodes = answer(connection(options), lambda ask: int(next(ask(query))[0]), _interrupted)
        except DealSyncError as error:
            if error.sqlstate == "57014":
                raise
            seconds, nodes = _FAILED_SECONDS, _UNKNOWN
        _counts[options, label] = time.monotonic() + seconds, nodes
        return nodes

    def _asked(
        self,
        quals: Sequence[Any],
        columns: Set[str],
        sortkeys: Sequence[Any] | None,
        limit: int | None,
        offset: int | None,
    ) -> _Asked:
        source = self._source
        wanted = frozenset(columns)
        if wanted not in self._selections:
            self._selections[wanted] = selection(self._columns, wanted)
        projection, places = self._selections[wanted]

        def expression(column: Column) -> str | None:
            if column.derive:
                return source.id if column.derive == "element_id" and source.label else None
            return source.value(column.property)

        found = pushed(quals, self._by_name, expression, setting("extra_float_digits", 1) > 0)
        query = cypher.rows(
            source,
            projection.properties,
            conditions=found.conditions,
            parameters=found.parameters,
            order=order(sortkeys or (), self._by_name, expression),
            offset=offset or None,
            limit=limit,
            labels=projection.wants_labels,
            dimensions_but=projection.dimensions_but,
        )
        return _Asked(projection, query, places, found)

    def rollback(self) -> None:
        """After an error in mid-scan neither end_scan nor the generator's own end is reached: it ends here."""
        _rolling_back.set()
        for rows in list(_open):
            with contextlib.suppress(Exception):  # a hook that raises takes the server down
                rows.close()
        _open.clear()
        _stop_standing()
        self._begun = 0
        _rolling_back.clear()

    def _rows(self, asked: _Asked) -> Generator[list[Any], None, None]:
        losses = Losses(str(self._source), asked.projection.columns)
        try:
            with _reported():
                options = _server_options(self._options)
                batches = self._batches(
                    options, lambda ask, to: hand_over(bounded(ask(asked.query), options), asked.projection, to)
                )
                with contextlib.closing(batches):
                    for values in handed_over(batches, losses):
                        yield [None if at is None else values[at] for at in asked.places]
        except GeneratorExit:  # a LIMIT has enough rows, or the scan has failed
            if not _rolling_back.is_set():
                self._warn(losses)
            raise
        self._warn(losses)

    def _batches(self, options: ServerOptions, work: Work) -> Generator[tuple[Any, ...], None, None]:
        """The answer by a reader of its own; a nested loop's, from its second look-up on, by one that stays."""
        if self._begun < 2:
            return Reader(connection(options), work).batches(_interrupted)
        for standing in _standing.get(self, []):
            if standing.idle and standing.connection.serves(options):
                return standing.answer(work)
        standing = Standing(connection(options), _interrupted)
        _standing.setdefault(self, []).append(standing)
        return standing.answer(work)

    def end_scan(self) -> None:
        """At the end of each scan of the table, also where another one in the same statement goes on."""
        self._begun = 0
        with contextlib.suppress(Exception):  # all rows were there; an interrupt is PostgreSQL's to serve
            busy = []
            for standing in _standing.pop(self, []):
                if standing.idle:
                    standing.end()
                else:
                    busy.append(standing)
            if busy:
                _standing[self] = busy

    def pre_commit(self) -> None:
        """What an error in a subtransaction has left behind."""
        _stop_standing()

    def _warn(self, losses: Losses) -> None:
        """At a scan's end, and once: in Python 3.14 a second WARNING kills the backend (field notes)."""
        if warning := losses.warning(self._columns):
            log_to_postgres(warning.message, WARNING, hint=warning.hint, detail=warning.detail)


def _stop_standing() -> None:
    """At the end of a transaction nothing of it stays."""
    while _standing:
        for standing in _standing.popitem()[1]:
            with contextlib.suppress(Exception):  # a hook that raises takes the server down
                standing.stop()


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Errors reach the client as they were meant, with DETAIL and HINT."""
    try:
        yield
    except DealSyncError as error:
        log_to_postgres(error.message, ERROR, hint=error.hint, detail=error.detail)


def _server_options(options: Mapping[str, str]) -> ServerOptions:
    """From those of table, server and user mapping, which come as one; Multicorn tells no server's name, so it is
    called by its address and database.

    Raises DealSyncError (42704) without a login: Multicorn takes no mapping for an empty one, and a Neo4j without
    authentication would serve everybody.
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
    if type_name.removeprefix("_") in _REFUSED:
        raise DealSyncError(
            "HV004",
            f'column "{definition.column_name}" is of type {type_name}, which Multicorn2 cannot serve',
            hint="make it text and cast in the query, or read the table with deal_sync.scan()",
        )
    return Column.defined(definition.column_name, type_name, definition.typmod, definition.options, keys)


def _interrupted() -> None:
    """Ends the scan on a cancel or a termination; PostgreSQL, back in charge, serves it."""
    if pending("QueryCancelPending") or pending("ProcDiePending"):
        raise DealSyncError("57014", "canceling statement: the scan of Neo4j was interrupted")
