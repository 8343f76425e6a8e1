"""In: a foreign table and what is wanted of it. Out: its rows for PL/Python, without Multicorn2.

The body of `deal_sync.scan_rows`, which runs with the caller's rights and the caller's own user mapping.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from neo4j_deals import cypher
from neo4j_deals.catalog import Plpy, server_options, table
from neo4j_deals.connection import Ask, connection
from neo4j_deals.mapping import Column
from neo4j_deals.projection import Projection, to_foreign
from neo4j_deals.reader import Outlet, Reader
from neo4j_deals.values import Converter

CHUNK = 500  # rows that the thread hands over at once


def output(column: Column) -> Converter:
    """The form in which PL/Python and Multicorn hand a value of this type to PostgreSQL's input function."""
    return orjson_text if column.type_name == "vector" else _plain


def orjson_text(value: Any) -> str:
    """A vector as pgvector reads it: twenty times as fast as joining str()."""
    return orjson.dumps(value).decode()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, date | datetime | Decimal | UUID) else value


def rows(
    plpy: Plpy, relation: str, tenant: str | None, columns: list[str] | None, row_limit: int | None
) -> Iterator[tuple[Any, ...]]:
    """Rows of the foreign table, every column in its place; those not in `columns` are NULL and never asked for.

    `tenant` None: of every tenant. Raises DealSyncError for what the graph or the network refused.
    """
    source = table(plpy, relation)
    wanted = [c for c in source.columns if columns is None or c.name in columns]
    projection = Projection([(c, to_foreign(c), output(c), None) for c in wanted], source.columns)
    nodes = cypher.nodes(
        source.label,
        projection.properties,
        equal={source.tenant.property: cypher.spellings(tenant)} if tenant else {},
        dimensions_but=projection.known_dimensions if projection.wants_scores else None,
        limit=row_limit,
    )

    def produce(ask: Ask, reader: Outlet) -> None:
        chunk = []
        for record in ask(nodes):
            chunk.append(projection.row(record)[0])
            if len(chunk) == CHUNK:
                reader.put(chunk)
                chunk = []
        reader.put(chunk)

    places = [projection.columns.index(c) if c in wanted else None for c in source.columns]
    reader = Reader(connection(server_options(plpy, relation)), produce)
    with contextlib.closing(reader.batches(lambda: plpy.execute("SELECT 1"))) as batches:
        for (chunk,) in batches:
            for values in chunk:
                yield tuple(None if at is None else values[at] for at in places)


def tenant_counts(plpy: Plpy, relation: str) -> list[tuple[Any, int]]:
    """The values of the tenant's property on the nodes of a label, whatever they are, with the number of nodes."""
    source = table(plpy, relation)
    query = cypher.tenant_counts(source.label, source.tenant.property)
    reader = Reader(connection(server_options(plpy, relation)), lambda ask, to: to.put(list(ask(query))))
    with contextlib.closing(reader.batches(lambda: plpy.execute("SELECT 1"))) as batches:
        return [(value, nodes) for (found,) in batches for value, nodes in found]
