"""Flows in: embeddings of all kinds. Flows out: the same rows, bytes and rejects, whoever unpacks and narrows them."""

import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from psycopg import sql
from support.database import Connection, Database
from support.graph import Graph
from support.sync import add_deal, add_version, incremental, rejects, sync

SIZE = 1536
GOOD = [math.sin(number) / 3 for number in range(SIZE)]
KINDS: dict[str, Any] = {
    "usual": GOOD,
    "tiny": [number * 1e-41 for number in GOOD],
    "zero": [-0.0] * SIZE,
    "largest": [3.4028234663852886e38, *GOOD[1:]],
    "rounded down to the largest": [3.4028235677973362e38, *GOOD[1:]],
    "too large": [3.4028235677973366e38, *GOOD[1:]],
    "far too large": [*GOOD[1:], 1e308],
    "NaN": [*GOOD[1:], math.nan],
    "infinite": [*GOOD[1:], -math.inf],
    "too short": GOOD[1:],
    "too long": [*GOOD, 0.5],
    "short": GOOD[:8],
    "empty": [],
    "integers": list(range(SIZE)),
    "a text": "0.5",
    "a number": 0.5,
    "texts": ["0.5"] * SIZE,
    "absent": None,
}


@contextmanager
def session(database: Database, way: str, process_from: int = 5000) -> Iterator[Connection]:
    """A session whose reader, thread or process, goes this way."""
    with database.connect() as connection:
        connection.execute(
            sql.SQL("DO LANGUAGE plpython3u {}").format(f"import os; os.environ['DEAL_SYNC_FLOATS'] = {way!r}")
        )
        connection.execute(sql.SQL("SET deal_sync.process_from = {}").format(process_from))
        connection.execute("SET deal_sync.undated_every = '0s'")
        yield connection


def landed(database: Database, tenant: uuid.UUID, way: str, process_from: int = 5000) -> Any:
    """All that a first load leaves, the vectors as bytes."""
    with session(database, way, process_from) as connection:
        connection.execute("DELETE FROM opportunities WHERE tenant_id = %s", [tenant])
        run = sync(connection, tenant)
        rows = connection.execute(
            "SELECT id, vector_send(extraction_embedding), vector_send(extraction_embedding_current)"
            " FROM opportunities WHERE tenant_id = %s ORDER BY id",
            [tenant],
        ).fetchall()
        return (
            run.status,
            run.message,
            run.deals_read,
            rows,
            [replace(it, times_seen=1) for it in rejects(connection, tenant)],
        )


@pytest.mark.parametrize("on_misfit", ["null", "reject"])
def test_all_ways_land_the_same_bytes_and_rejects(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID, on_misfit: str
) -> None:
    pg.execute(f"ALTER FOREIGN TABLE neo4j.deals ALTER embedding OPTIONS (SET on_misfit '{on_misfit}')".encode())
    for name, embedding in KINDS.items():
        add_version(graph, tenant, add_deal(graph, tenant, name=name, embedding=embedding, embedding_current=GOOD))
    add_deal(graph, tenant, name="twice", embedding=GOOD, embedding_current=KINDS["NaN"])
    due = landed(database, tenant, "none")
    assert len(due[3]) == len(KINDS) + 1 - (11 if on_misfit == "reject" else 0)
    assert landed(database, tenant, "") == due
    assert landed(database, tenant, "all") == due
    assert landed(database, tenant, "all", process_from=1) == due


def test_a_property_of_a_vector_that_another_column_shows_too_lands_in_both(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE opportunities ADD seen jsonb")
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ADD seen jsonb OPTIONS (property 'embedding', target 'seen')")
    add_deal(graph, tenant, embedding=GOOD)
    for way in ("none", "all"):
        landed(database, tenant, way)
        assert pg.execute("SELECT seen, extraction_embedding IS NOT NULL FROM opportunities").fetchall() == [
            (GOOD, True)
        ]


def test_a_node_without_a_timestamp_is_as_it_was_whichever_way_it_was_read(
    database: Database, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant, name="one", embedding=GOOD)
    graph.run("MATCH (d:Deal) REMOVE d.last_updated_at")
    with session(database, "none") as one, session(database, "all") as other:
        sync(one, tenant)
        for name, reads, compares in (("two", one, other), ("three", other, one)):
            graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.name = $name", id=str(deal), name=name)
            assert incremental(reads, tenant).deals_updated == 1
            assert incremental(compares, tenant).deals_read == 0
