"""In: the demo's graph and rows. Out: proof that every form of docs/internals/graph.md is there, and what lands."""

from typing import Any, LiteralString

import pytest
from environment import database as environment_database
from environment.servers import Instance
from neo4j_deals.mapping.defaults import MEDDIC
from support.database import Connection
from support.graph import Graph
from support.sync import one

DEMO = environment_database.DEMO
ATLAS, HARBORLINE = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
NO_MEDDIC = " AND ".join(f"d.{name} IS NULL" for name in MEDDIC)


@pytest.fixture
def demo(graph: Graph, servers: Instance, pg: Connection) -> Graph:
    """The demo graph, and the demo's rows in a fresh database."""
    environment_database.run_cypher(servers, DEMO / "graph.cypher")
    pg.execute((DEMO / "application.sql").read_bytes())
    return graph


def synced(pg: Connection, tenant: str) -> dict[str, Any]:
    """The run's row by column name."""
    cursor = pg.execute("SELECT * FROM sync_deals(%s)", [tenant])
    names = [column.name for column in cursor.description or ()]
    return dict(zip(names, cursor.fetchone() or (), strict=True))


FORMS = {
    "a ZONED DATETIME after a create": "MATCH (d:Deal) WHERE d.last_updated_at IS :: ZONED DATETIME",
    "a STRING after an update": "MATCH (d:Deal) WHERE d.last_updated_at IS :: STRING NOT NULL",
    "created_at in both types": "MATCH (d:Deal) WHERE d.created_at IS :: STRING NOT NULL"
    " MATCH (e:Deal) WHERE e.created_at IS :: ZONED DATETIME NOT NULL",
    "valid_from in both types": "MATCH (v:DealVersion) WHERE v.valid_from IS :: STRING NOT NULL"
    " MATCH (w:DealVersion) WHERE w.valid_from IS :: ZONED DATETIME NOT NULL",
    "nanoseconds": r"MATCH (d:Deal) WHERE toString(d.created_at) =~ '.*\\.\\d{9}.*'",
    "a skeleton": "MATCH (d:Deal) WHERE d.last_updated_at IS NULL AND d.version IS NULL",
    "a gap between version numbers": "MATCH (d:Deal)-[:HAS_VERSION]->(v) WITH d, collect(v.version) AS numbers"
    " WHERE any(n IN numbers WHERE n > 1 AND NOT n - 1 IN numbers)",
    "one number on two versions": "MATCH (d:Deal)-[:HAS_VERSION]->(v) WITH d, v.version AS number, count(*) AS times"
    " WHERE times > 1",
    "a version without a number": "MATCH (v:DealVersion) WHERE v.version IS NULL",
    "a version with the deal's embeddings": "MATCH (v:DealVersion) WHERE size(v.embedding) = 1536",
    "an INTEGER amount": "MATCH (d:Deal) WHERE d.amount IS :: INTEGER NOT NULL",
    "a FLOAT amount": "MATCH (d:Deal) WHERE d.amount IS :: FLOAT NOT NULL",
    "no amount": "MATCH (d:Deal) WHERE d.amount IS NULL AND d.version IS NOT NULL",
    "no MEDDIC": f"MATCH (d:Deal) WHERE d.version IS NOT NULL AND {NO_MEDDIC}",
    "an empty text": "MATCH (d:Deal) WHERE d.opportunity_summary = ''",
    "both embeddings": "MATCH (d:Deal) WHERE size(d.embedding) = 1536 AND size(d.embedding_current) = 1536",
    "an embedding of wrong length": "MATCH (d:Deal) WHERE size(d.embedding) <> 1536",
    "a confidence without a score": "MATCH (d:Deal) WHERE d.dim_competitive_position IS NULL"
    " AND d.dim_competitive_position_confidence IS NOT NULL",
    "an unknown dimension": "MATCH (d:Deal) WHERE d.dim_executive_sponsorship IS NOT NULL",
    "an account that is no UUID": "MATCH (d:Deal) WHERE d.account_id STARTS WITH 'SFDC'",
    "a confidence out of range": "MATCH (d:Deal) WHERE d.meddic_champion_confidence > 1",
    "a key that is no UUID": "MATCH (d:Deal) WHERE NOT d.opportunity_id CONTAINS '-4000-'",
    "two nodes with one key": "MATCH (d:Deal), (e:Deal) WHERE toLower(d.opportunity_id) = toLower(e.opportunity_id)"
    " AND elementId(d) < elementId(e)",
    "a tenant in upper case": "MATCH (d:Deal) WHERE d.tenant_id STARTS WITH 'AAAA'",
    "a tenant without dashes": "MATCH (d:Deal) WHERE NOT d.tenant_id CONTAINS '-'",
    "interactions": "MATCH (d:Deal) MATCH (:Interaction {interaction_id: d.source_interaction_id})",
}


def test_the_graph_has_every_form_of_the_model(demo: Graph) -> None:
    forms = {form for form, pattern in FORMS.items() if demo.run(f"{pattern} RETURN 1 LIMIT 1")}
    assert forms == set(FORMS)


def test_both_tenants_land_and_each_reject_has_its_reason(demo: Graph, pg: Connection) -> None:
    atlas, harborline = synced(pg, ATLAS), synced(pg, HARBORLINE)
    counts = ("status", "deals_read", "deals_inserted", "deals_adopted", "versions_inserted", "links_inserted")
    assert [atlas[name] for name in counts] == ["partial", 14, 11, 1, 5, 15]
    assert [harborline[name] for name in counts] == ["ok", 8, 8, 0, 2, 9]
    rejected = pg.execute(
        "SELECT level, kind, right(graph_id, 4), sqlstate FROM deal_sync.rejects ORDER BY level, kind, graph_id"
    ).fetchall()
    assert rejected == [
        ("note", "version", "0007", "00000"),
        ("row", "deal", "0001", "23505"),
        ("row", "deal", "2291", "22P02"),
        ("row", "version", "0005", "23505"),
        ("row", "version", "0020", "22P02"),
        ("value", "deal", "0004", "22P02"),
        ("value", "deal", "0005", "22000"),
        ("value", "deal", "0006", "22003"),
    ]


def test_the_change_of_the_demo_writes_one_deal_and_heals_one_reject(
    demo: Graph, pg: Connection, servers: Instance
) -> None:
    values: LiteralString = "SELECT count(*) FROM deal_sync.rejects WHERE level = 'value'"
    synced(pg, ATLAS)
    before = one(pg, values)
    environment_database.run_cypher(servers, DEMO / "change.cypher")
    after = synced(pg, ATLAS)
    written = ("deals_inserted", "deals_updated", "versions_inserted", "links_inserted")
    assert [after[name] for name in written] == [0, 1, 1, 1]
    assert after["mode"] == "incremental"
    assert one(pg, values) == before - 1
