"""In: a foreign table, and which columns and rows to read. Out: its rows for PL/Python, without Multicorn2.

The body of `_deal_sync.scan_rows`, which runs with the caller's rights and the caller's own user mapping.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import orjson

from neo4j_deals import catalog
from neo4j_deals.catalog import TellingPlpy
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph import cypher, results
from neo4j_deals.graph.connection import Ask, bounded, connection
from neo4j_deals.graph.reader import Outlet, Reader
from neo4j_deals.mapping.model import Column, Table
from neo4j_deals.rows.projection import Projection, as_it_is, to_foreign
from neo4j_deals.rows.values import Converter, Misfits
from neo4j_deals.rows.warning import MisfitCount

CHUNK = 500  # rows that the thread hands over at once


def output(column: Column) -> Converter:
    """The conversion of a value to what PL/Python and Multicorn pass to the type's input function."""
    if column.type_name in ("vector", "halfvec"):
        return orjson_text
    return _plain_list if column.type_name.startswith("_") else _plain


def orjson_text(value: Any) -> str:
    """A vector as pgvector reads it; twenty times as fast as joining str()."""
    return orjson.dumps(value).decode()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, date | datetime | time | Decimal | UUID) else value


def _plain_list(value: list[Any]) -> list[Any]:
    return [_plain(item) for item in value]


def selection(columns: Sequence[Column], names: Collection[str] | None) -> tuple[Projection, list[int | None]]:
    """How records become the named columns (None: all), and for each column of the table its place among them."""
    wanted = [column for column in columns if names is None or column.name in names]
    projection = Projection([(c, to_foreign(c), output(c), as_it_is(c)) for c in wanted], columns)
    return projection, [projection.columns.index(column) if column in wanted else None for column in columns]


def hand_over(records: Iterable[tuple[Any, ...]], projection: Projection, to: Outlet) -> None:
    """In the reader: records as rows, in chunks, each with the misfits of its rows (by place: node and misfits)."""
    chunk: list[list[Any]] = []
    misfits: dict[int, tuple[str, Misfits]] = {}
    for record in records:
        values, found = projection.row(record)
        if found:
            misfits[len(chunk)] = record[0], found
        chunk.append(values)
        if len(chunk) == CHUNK:
            to.put(chunk, misfits)
            chunk, misfits = [], {}
    to.put(chunk, misfits)


def handed_over(batches: Iterable[tuple[Any, ...]], count: MisfitCount) -> Iterator[list[Any]]:
    """The rows from `hand_over`; the misfits of those that are read are added to `count`, which may raise."""
    for chunk, misfits in batches:
        for at, values in enumerate(chunk):
            if at in misfits:
                count.add(*misfits[at])
            yield values


def rows(
    plpy: TellingPlpy, relation: str, tenant: str | None, columns: list[str] | None, row_limit: int | None
) -> Iterator[tuple[Any, ...]]:
    """Rows of the foreign table with all its columns; those not in `columns` are NULL and are not read from the graph.

    `tenant` None: all tenants. Raises DealSyncError for an error of Neo4j or the network, and for a misfit in a column
    with on_misfit 'error'; all other misfits are reported by one WARNING at the end.
    """
    if row_limit is not None and row_limit < 0:
        raise DealSyncError("2201W", "row_limit must not be negative")
    table = catalog.table(plpy, relation)
    projection, places = selection(table.columns, columns)
    equal = {_tenant_property(table): cypher.spellings(tenant)} if tenant else {}

    def read(elements: Sequence[str] | None) -> cypher.Query:
        return cypher.nodes(
            table.source,
            projection.properties,
            equal=equal,
            elements=elements,
            labels=projection.wants_labels,
            dimensions_but=projection.dimensions_but,
            limit=row_limit,
        )

    def records(ask: Ask) -> Iterator[tuple[Any, ...]]:
        label = table.source.label
        if label is None:  # the rows of a query cannot be counted
            return ask(read(None))
        ids = partial(cypher.element_ids, label, equal)
        return results.every(ask, results.Expected(read, cypher.count(label, equal), ids), row_limit)

    count = MisfitCount(f"foreign table {relation}", projection.columns)
    options = catalog.server_options(plpy, relation)
    reader = Reader(connection(options), lambda ask, to: hand_over(bounded(records(ask), options), projection, to))
    with contextlib.closing(reader.batches(partial(catalog.serve_interrupt, plpy))) as batches:
        for values in handed_over(batches, count):
            yield tuple(None if at is None else values[at] for at in places)
    if warning := count.warning(table.columns):
        plpy.warning(warning.message, detail=warning.detail, hint=warning.hint)


def _tenant_property(table: Table) -> str:
    """The property with the tenant's id: by the mapping, or a column tenant_id of an imported table."""
    for column in table.columns:
        if column.target == "tenant_id" or (not table.kind and column.name == "tenant_id" and not column.derive):
            return column.property
    raise DealSyncError(
        "42703",
        f"foreign table {table.name} has no column for the tenant",
        hint="Leave out the argument tenant, or give a column the option target 'tenant_id'.",
    )
