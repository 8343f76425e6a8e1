"""In: what Multicorn2 asks of a foreign table. Out: rows, by the same reader and projection as scan().

Thin: columns are pruned, equality on the tenant and on the key is pushed down; PostgreSQL checks every qual itself.
The class is named by the server's option `wrapper`, which attach() sets. Nothing else may import this module: it needs
Multicorn2's library in the process.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from logging import ERROR, INFO, WARNING
from typing import Any

from multicorn import ForeignDataWrapper  # type: ignore[import-untyped, import-not-found, unused-ignore]
from multicorn.utils import log_to_postgres  # type: ignore[import-untyped, import-not-found, unused-ignore]

from neo4j_deals import cypher
from neo4j_deals.connection import bounded, connection
from neo4j_deals.errors import DealSyncError
from neo4j_deals.imports import Wish, read
from neo4j_deals.losses import Losses
from neo4j_deals.mapping import Column
from neo4j_deals.options import ServerOptions
from neo4j_deals.projection import Projection, to_foreign
from neo4j_deals.reader import Reader, pending
from neo4j_deals.scan import hand_over, handed_over, output
from neo4j_deals.values import type_named

#: EXPLAIN of a run-time value of these kills the backend in Multicorn2 3.2 (field notes).
_REFUSED = {"uuid", "numeric"}

#: Weak: at the end of a scan, after a LIMIT too, Multicorn lets go of the generator, and that ends it.
_open: weakref.WeakSet[Generator[list[Any], None, None]] = weakref.WeakSet()
#: While a failed transaction ends its scans, nothing is said of their losses.
_rolling_back = threading.Event()


class Neo4jForeignDataWrapper(ForeignDataWrapper):  # type: ignore[misc]
    """The nodes of one label as rows."""

    def __init__(self, options: Mapping[str, str], columns: Mapping[str, Any]) -> None:
        super().__init__(options, columns)
        self._options = options
        self._columns = [_column(definition) for definition in columns.values()]
        self._pushed = {
            c.name: c.property
            for c in self._columns
            if c.target in ("tenant_id", "graph_opportunity_id", "opportunity_id") or c.name.endswith("opportunity_id")
        }

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
        try:
            wish = Wish.read(options, *names)
            server = _server_options(srv_options)
            database, result = read(connection(server), wish, "vector", _interrupted)
            if schema not in (database, server.database):
                raise DealSyncError(
                    "HV00R",
                    f'the server reads the database "{database}", not "{schema}"',
                    hint=f'IMPORT FOREIGN SCHEMA "{database}" FROM SERVER ... INTO ...;',
                )
        except DealSyncError as error:
            log_to_postgres(error.message, ERROR, hint=error.hint, detail=error.detail)
        for notice in result.notices:
            log_to_postgres(notice, INFO)
        for warning in result.warnings:
            log_to_postgres(warning, WARNING)
        return result.tables

    def execute(self, quals: Sequence[Any], columns: Set[str]) -> Iterator[list[Any]]:
        """The rows that meet the pushed quals, in the order of the table's columns; those not asked for are None."""
        rows = self._rows(*self._asked(quals, columns))
        _open.add(rows)
        return rows

    def explain(self, quals: Sequence[Any], columns: Set[str], verbose: bool = False) -> Iterator[str]:
        """The Cypher that a scan runs, line by line; with VERBOSE the names of its parameters."""
        query = self._asked(quals, columns)[1]
        yield from query.text.splitlines()
        if verbose:
            yield "Parameters: " + (", ".join(query.parameters) or "none")

    def _asked(self, quals: Sequence[Any], columns: Set[str]) -> tuple[Projection, cypher.Query, list[int | None]]:
        wanted = [c for c in self._columns if c.name in columns]
        projection = Projection([(c, to_foreign(c), output(c), None) for c in wanted], self._columns)
        nodes = cypher.nodes(
            self._options["label"],
            projection.properties,
            equal=self._equalities(quals),
            labels=projection.wants_labels,
            dimensions_but=projection.known_dimensions if projection.wants_scores else None,
        )
        return projection, nodes, [projection.columns.index(c) if c in wanted else None for c in self._columns]

    def rollback(self) -> None:
        """After an error in mid-scan neither end_scan nor the generator's own end is reached: it ends here."""
        _rolling_back.set()
        for rows in list(_open):
            with contextlib.suppress(Exception):  # a hook that raises takes the server down
                rows.close()
        _open.clear()
        _rolling_back.clear()

    def _rows(
        self, projection: Projection, nodes: cypher.Query, places: Sequence[int | None]
    ) -> Generator[list[Any], None, None]:
        losses = Losses(f"nodes :{self._options['label']}", projection.columns)
        try:
            options = _server_options(self._options)
            reader = Reader(
                connection(options), lambda ask, to: hand_over(bounded(ask(nodes), options), projection, to)
            )
            with contextlib.closing(reader.batches(_interrupted)) as batches:
                for values in handed_over(batches, losses):
                    yield [None if at is None else values[at] for at in places]
        except DealSyncError as error:
            log_to_postgres(error.message, ERROR, hint=error.hint, detail=error.detail)
        except GeneratorExit:  # a LIMIT has enough rows, or the scan has failed
            if not _rolling_back.is_set():
                self._warn(losses)
            raise
        self._warn(losses)

    def _warn(self, losses: Losses) -> None:
        """At a scan's end, and once: in Python 3.14 a second WARNING kills the backend (field notes)."""
        if warning := losses.warning(self._columns):
            log_to_postgres(warning.message, WARNING, hint=warning.hint, detail=warning.detail)

    def _equalities(self, quals: Sequence[Any]) -> dict[str, list[Any]]:
        """Superset of what a qual lets through: a column of texts shows INTEGER 5 as '5', so that is asked for too."""
        return {
            self._pushed[qual.field_name]: _readings(qual.value)
            for qual in quals
            if qual.operator == "=" and qual.field_name in self._pushed and isinstance(qual.value, str)
        }


def _server_options(options: Mapping[str, str]) -> ServerOptions:
    """From those of table, server and user mapping, which come as one; Multicorn tells no server's name.

    Raises DealSyncError (42704) without a login: Multicorn takes no mapping for an empty one, and a Neo4j without
    authentication would serve everybody.
    """
    read = ServerOptions.read(options.get("uri", "neo4j"), options, "", options)
    if read.user is None and read.bearer_token is None:
        raise DealSyncError(
            "42704",
            f'the current role has no user mapping with a login for server "{read.server}"',
            hint="CREATE USER MAPPING FOR CURRENT_USER SERVER ... OPTIONS (\"user\" '...', password '...');",
        )
    return read


def _column(definition: Any) -> Column:
    type_name = type_named(definition.base_type_name)
    if type_name.removeprefix("_") in _REFUSED:
        raise DealSyncError(
            "HV004",
            f'column "{definition.column_name}" is of type {type_name}, which Multicorn2 cannot serve: '
            "make it text and cast in the query, or read the table with deal_sync.scan()",
        )
    options = definition.options
    return Column(
        name=definition.column_name,
        property=options.get("property", definition.column_name),
        type_name=type_name,
        type_modifier=definition.typmod,
        derive=options.get("derive"),
        of=tuple(part.strip() for part in options["of"].split(",")) if "of" in options else (),
        target=options.get("target"),
        write=options.get("write", "always"),
        strict=options.get("on_misfit") == "error",
    )


def _readings(text: str) -> list[Any]:
    """The values whose text form is this one."""
    readings: list[Any] = [text]
    for reading in (int, float):
        with contextlib.suppress(ValueError):
            readings.append(reading(text))
    if text in ("true", "false"):
        readings.append(text == "true")
    return readings


def _interrupted() -> None:
    """Ends the scan on a cancel or a termination; PostgreSQL, back in charge, serves it."""
    if pending("QueryCancelPending") or pending("ProcDiePending"):
        raise DealSyncError("57014", "canceling statement: the scan of Neo4j was interrupted")
