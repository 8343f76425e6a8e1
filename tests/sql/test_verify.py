"""Flows in: a tenant's rows after a sync. Flows out: how many there are, as deal_sync.verify shows."""

from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC
from support.database import Connection
from support.graph import Graph
from support.sync import add_deal, add_tenant, add_version, sync


def test_one_row_a_tenant_says_what_its_deals_have(writer: Connection, pg: Connection, graph: Graph) -> None:
    tenant, other = add_tenant(pg), add_tenant(pg)
    full = add_deal(
        graph, tenant, **dict.fromkeys(MEDDIC, "said"), embedding=[0.5] * 1536, **{f"dim_{DIMENSIONS[0]}": 2}
    )
    add_deal(graph, tenant, **{MEDDIC[0]: "said", MEDDIC[1]: ""})
    add_deal(graph, tenant)
    for number in (1, 2):
        add_version(graph, tenant, full, version=number)
    add_deal(graph, other)
    pg.execute("INSERT INTO opportunities (id, tenant_id, updated_at) VALUES (gen_random_uuid(), %s, now())", [tenant])
    for each in (tenant, other):
        sync(writer, each)

    query = "SELECT * FROM deal_sync.verify ORDER BY deals DESC"
    filled = round((1 + 1 / len(MEDDIC) + 0) / 3, 3)
    expected = [(tenant, 4, 3, 2, filled, 1, 1, 2, 1), (other, 1, 1, 0, 0, 0, 0, 0, 0)]
    found = [tuple(float(value) if at == 4 else value for at, value in enumerate(row)) for row in pg.execute(query)]
    assert found == expected


def test_it_shows_what_the_asking_role_may_see_and_leaves_its_tenant_set(
    writer: Connection, pg: Connection, graph: Graph
) -> None:
    tenant = add_tenant(pg)
    add_deal(graph, tenant)
    sync(writer, tenant)
    writer.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
    assert writer.execute("SELECT tenant_id, deals FROM deal_sync.verify").fetchall() == [(tenant, 1)]
    assert writer.execute("SHOW app.tenant_id").fetchone() == (str(tenant),)
