"""In: graphs with everything in them. Out: the MERGE that merge_statement gives, run as it is over the real foreign
tables, leaves the rows that sync_deals leaves. Nodes that are refused as a whole are outside its promise.
"""

import uuid
from random import Random
from typing import Any

import pytest
from environment import database as environment_database
from environment.servers import Instance
from support import hostile
from support.database import Connection
from support.deals import deal_node, full_deal, version_node
from support.graph import Graph
from support.sync import add_tenant, sync

pytestmark = pytest.mark.multicorn

DEMO = environment_database.DEMO
LANDED = {
    "opportunities": "SELECT to_jsonb(t) - 'created_at' - 'updated_at' FROM opportunities AS t ORDER BY t.id",
    "deal_versions": "SELECT to_jsonb(t) FROM deal_versions AS t ORDER BY t.id",
}


def landed(pg: Connection) -> dict[str, list[Any]]:
    return {table: [row[0] for row in pg.execute(query.encode())] for table, query in LANDED.items()}


def merge(pg: Connection, tenant: uuid.UUID) -> None:
    """As a person at psql does it."""
    pg.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
    for table in ("neo4j.deals", "neo4j.deal_versions"):
        statement = pg.execute("SELECT deal_sync.merge_statement(%s)", [table]).fetchone()
        assert statement is not None
        pg.execute(statement[0].encode())
    pg.execute("RESET app.tenant_id")


def synced_and_undone(pg: Connection, tenants: list[uuid.UUID]) -> dict[str, list[Any]]:
    """What sync_deals leaves; the tables are as they were afterwards."""
    with pg.transaction(force_rollback=True):
        for tenant in tenants:
            assert sync(pg, tenant).status in ("ok", "partial")
        return landed(pg)


def without_refused_nodes(pg: Connection, graph: Graph, tenants: list[uuid.UUID]) -> int:
    """Takes the nodes that are refused as a whole out of the graph; how many they were."""
    with pg.transaction(force_rollback=True):
        for tenant in tenants:
            sync(pg, tenant)
        refused = [
            row[0]
            for row in pg.execute("SELECT element_id FROM deal_sync.rejects WHERE level <> 'value' AND kind <> 'link'")
        ]
    graph.run("MATCH (n) WHERE elementId(n) IN $refused DETACH DELETE n", refused=refused)
    return len(refused)


def test_the_demo_graph_lands_as_the_sync_lands_it(pg: Connection, graph: Graph, servers: Instance) -> None:
    environment_database.run_cypher(servers, DEMO / "graph.cypher")
    pg.execute((DEMO / "application.sql").read_bytes())
    tenants = [row[0] for row in pg.execute("SELECT id FROM tenants ORDER BY id")]
    assert without_refused_nodes(pg, graph, tenants) > 0
    expected = synced_and_undone(pg, tenants)
    for tenant in tenants:
        merge(pg, tenant)

    assert landed(pg) == expected
    assert len(expected["opportunities"]) > 15
    again = [sync(pg, tenant) for tenant in tenants]
    assert [(run.deals_inserted, run.deals_updated, run.versions_inserted) for run in again] == [(0, 0, 0)] * len(again)


@pytest.mark.parametrize("seed", range(3))
def test_refused_values_land_as_the_sync_lands_them(pg: Connection, graph: Graph, seed: int) -> None:
    random, tenant = Random(seed), add_tenant(pg)
    hostile.fill_pool(graph)
    names = [name for name in full_deal() if not name.startswith("embedding")]
    cells = []
    for _ in range(40):
        deal = deal_node(graph, tenant, **{k: v for k, v in full_deal().items() if not k.startswith("embedding")})
        version = version_node(graph, tenant, deal)
        for node in (deal, version):
            cells += [
                [node.element_id, name, random.randrange(len(hostile.VALUES))] for name in random.sample(names, 8)
            ]
    graph.run(
        "UNWIND $cells AS c MATCH (n), (p:Pool {i: c[2]}) WHERE elementId(n) = c[0] SET n[c[1]] = p.v", cells=cells
    )
    without_refused_nodes(pg, graph, [tenant])
    expected = synced_and_undone(pg, [tenant])
    merge(pg, tenant)

    assert len(expected["opportunities"]) > 20
    assert landed(pg) == expected
