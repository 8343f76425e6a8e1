"""In: graphs with everything in them. Out: the MERGE that merge_statement gives, run as it is over the real foreign
tables, leaves the rows that sync_deals leaves. Nodes that are rejected as a whole are excluded.
"""

import re
import uuid
from random import Random
from typing import Any

import psycopg
import pytest
from environment import database as environment_database
from environment.servers import Instance
from psycopg import sql
from support import hostile
from support.database import Connection, execute
from support.deals import deal_node, full_deal, version_node
from support.graph import Graph
from support.sync import add_deal, add_tenant, one, sync

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


def without_rejected_nodes(pg: Connection, graph: Graph, tenants: list[uuid.UUID]) -> int:
    """Deletes the nodes that are rejected as a whole from the graph; returns how many there were."""
    with pg.transaction(force_rollback=True):
        for tenant in tenants:
            sync(pg, tenant)
        rejected = [
            row[0]
            for row in pg.execute("SELECT element_id FROM deal_sync.rejects WHERE level <> 'value' AND kind <> 'link'")
        ]
    graph.run("MATCH (n) WHERE elementId(n) IN $rejected DETACH DELETE n", rejected=rejected)
    return len(rejected)


def test_the_demo_graph_lands_as_the_sync_lands_it(pg: Connection, graph: Graph, servers: Instance) -> None:
    environment_database.run_cypher(servers, DEMO / "graph.cypher")
    pg.execute((DEMO / "application.sql").read_bytes())
    tenants = [row[0] for row in pg.execute("SELECT id FROM tenants ORDER BY id")]
    assert without_rejected_nodes(pg, graph, tenants) > 0
    expected = synced_and_undone(pg, tenants)
    for tenant in tenants:
        merge(pg, tenant)

    assert landed(pg) == expected
    assert len(expected["opportunities"]) > 15
    again = [sync(pg, tenant) for tenant in tenants]
    assert [(run.deals_inserted, run.deals_updated, run.versions_inserted) for run in again] == [(0, 0, 0)] * len(again)


@pytest.mark.parametrize("seed", range(3))
def test_rejected_values_land_as_the_sync_lands_them(pg: Connection, graph: Graph, seed: int) -> None:
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
    without_rejected_nodes(pg, graph, [tenant])
    expected = synced_and_undone(pg, [tenant])
    merge(pg, tenant)

    assert len(expected["opportunities"]) > 20
    assert landed(pg) == expected


def test_the_merge_as_text_has_one_line_a_column_quoted_where_needed(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        'ALTER TABLE opportunities ADD COLUMN "Weird ""Name" integer;'
        'ALTER FOREIGN TABLE neo4j.deals ADD COLUMN "Weird ""Name" bigint OPTIONS (target \'Weird "Name\')'
    )
    text = one(pg, "SELECT deal_sync.merge_statement('neo4j.deals')")
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    assert lines[0] == "MERGE INTO public.opportunities AS t"
    assert '"Weird ""Name" = s."Weird ""Name"' in lines
    assert '_deal_sync.to_integer(s."Weird ""Name") AS "Weird ""Name"' in lines
    assert lines.count('"Weird ""Name"') == 1, "its place in the INSERT list"
    assert lines.count('s."Weird ""Name"') == 2, "its place in VALUES, and in the comparison"
    for line in lines:
        assert len(re.findall(r" AS \S", line)) <= 1
    updated = text[text.index("THEN UPDATE SET") : text.index("WHEN NOT MATCHED")]
    written = [
        target
        for (target,) in pg.execute(
            "SELECT m.target FROM _deal_sync.mapping_columns('neo4j.deals') AS m WHERE m.target IS NOT NULL"
            " AND m.write = 'always' AND m.target NOT IN ('tenant_id', 'graph_opportunity_id')"
        )
    ]
    for target in written:
        name = sql.Identifier(target).as_string(pg) if " " in target else target
        assert len([line for line in updated.splitlines() if line.strip().startswith(f"{name} = ")]) == 1, target
    for target in ("stage", "amount", "currency", "opportunity_name"):
        assert not re.search(rf"^ *{target} = ", updated, re.MULTILINE), "stage and amount never, the others on insert"
    execute(pg, f"PREPARE deals AS {text}")
    execute(pg, "PREPARE versions AS " + one(pg, "SELECT deal_sync.merge_statement('neo4j.deal_versions')"))

    add_deal(graph, tenant, **{'Weird "Name': 7})
    assert sync(writer, tenant).status == "ok"
    assert one(pg, 'SELECT "Weird ""Name" FROM opportunities') == 7


def test_there_is_a_merge_for_the_tables_of_the_mapping_only(pg: Connection) -> None:
    with pytest.raises(psycopg.errors.WrongObjectType, match="tenants") as raised:
        pg.execute("SELECT deal_sync.merge_statement('tenants')")
    assert "merge_statement('neo4j.deals')" in str(raised.value.diag.message_hint)
