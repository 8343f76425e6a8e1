"""Flows in: tenants alone and beside others in the graph, and the indexes that doctor() asks for.
Flows out: that the queries of a run ask as much of Neo4j's store.
"""

import uuid

import pytest
from environment.servers import Instance
from support.counters import change, graph_of
from support.database import Connection
from support.doctor import INDEXES, cypher, doctor
from support.graph import Graph
from support.recorder import Recorder, db_hits, ways
from support.sync import sync

DEALS, CHANGED = 300, 10
KINDS = {"first load": "full", "unchanged": "full", "nothing changed": "incremental", "changed": "incremental"}
#: Cannot be profiled.
OTHERS_TRANSACTIONS = "SHOW TRANSACTIONS"
#: Once an hour, if it takes long; it grows with the tenant.
COUNT = "COUNT {"


def create_indexes(pg: Connection, graph: Graph, lacking: tuple[str, ...] = ()) -> None:
    """Creates the indexes that doctor() asks for, except those that are to be lacking."""
    checks = doctor(pg)
    for name in INDEXES:
        if name not in lacking:
            cypher(graph, checks[name].hint)
    graph.run("CALL db.awaitIndexes()")


def hits(
    kinds: dict[str, str],
    deals: int,
    others: int,
    lacking: tuple[str, ...],
    pg: Connection,
    writer: Connection,
    graph: Graph,
    servers: Instance,
) -> dict[str, float]:
    """The db hits of each kind of run of a tenant with so many deals: for a deal that was staged, or altogether."""
    tenant = uuid.uuid4()
    pg.execute("INSERT INTO tenants (id, name) VALUES (%s, 'a tenant')", [tenant])
    create_indexes(pg, graph, lacking)
    for _ in range(others // DEALS):
        graph_of(graph, uuid.uuid4(), DEALS)
    graph_of(graph, tenant, deals)
    graph.run("CALL db.prepareForReplanning(60)")  # which Neo4j does by itself, within seconds
    found = {}
    with Recorder(servers.facts["neo4j_uri"]) as recorder:
        pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{recorder.uri}')".encode())
        for kind, mode in kinds.items():
            if kind == "changed":
                change(graph, tenant, CHANGED)
            recorder.queries.clear()
            run = sync(writer, tenant, mode=mode)
            staged = {"nothing changed": 0, "changed": CHANGED, "first look": deals // 20}
            assert run.deals_read == staged.get(kind, deals)
            assert len(recorder.queries) > 2
            counted = [
                db_hits(graph, text, parameters)
                for text, parameters in recorder.queries
                if not text.startswith(OTHERS_TRANSACTIONS) and COUNT not in text
            ]
            found[kind] = sum(counted) / max(1, run.deals_read)
    pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{servers.facts['neo4j_uri']}')".encode())
    return found


#: Those of a tenant alone, with all indexes: the first test measures them.
measured: dict[str, float] = {}


@pytest.fixture
def alone(pg: Connection, writer: Connection, graph: Graph, servers: Instance) -> dict[str, float]:
    if not measured:
        measured.update(hits(KINDS, DEALS, 0, (), pg, writer, graph, servers))
        graph.clear()
    return measured


def test_a_tenant_beside_others_costs_what_it_costs_alone(
    alone: dict[str, float], pg: Connection, writer: Connection, graph: Graph, servers: Instance
) -> None:
    assert hits(KINDS, DEALS, 10 * DEALS, (), pg, writer, graph, servers) == pytest.approx(alone, rel=0.1)
    assert alone["nothing changed"] < 100, "index seeks that find nothing"


@pytest.mark.parametrize(
    ("deals", "others", "lacking"),
    [
        pytest.param(2 * DEALS, 0, (), id="a larger tenant"),
        pytest.param(DEALS, 10 * DEALS, ("deals: tenant index", "versions: tenant index"), id="no tenant index"),
    ],
)
def test_an_incremental_run_costs_what_has_changed(
    deals: int,
    others: int,
    lacking: tuple[str, ...],
    alone: dict[str, float],
    pg: Connection,
    writer: Connection,
    graph: Graph,
    servers: Instance,
) -> None:
    found = hits(KINDS, deals, others, lacking, pg, writer, graph, servers)
    for kind in ("nothing changed", "changed"):
        assert found[kind] == pytest.approx(alone[kind], rel=0.1), kind


def test_nodes_without_a_timestamp_are_looked_for_among_the_tenants_own(
    pg: Connection, writer: Connection, graph: Graph, servers: Instance
) -> None:
    writer.execute("SET deal_sync.undated_every = '0s'")
    kinds = {"first load": "full", "first look": "incremental", "nothing changed": "incremental"}
    lacking = ("deals: tenant index", "versions: tenant index")
    found = hits(kinds, DEALS, 10 * DEALS, lacking, pg, writer, graph, servers)
    assert found["nothing changed"] < 20 * DEALS, "the graph has 3,300 deals and as many versions"


TENANTS = 5


def question(deals: int, pg: Connection, writer: Connection, graph: Graph, servers: Instance) -> int:
    """The db hits of what sync_all asks if no tenant has changes: tenants with so many deals each, in a graph that is
    not counted again.
    """
    graph.clear()
    create_indexes(pg, graph)
    for _ in range(TENANTS):
        tenant = uuid.uuid4()
        pg.execute("INSERT INTO tenants (id, name) VALUES (%s, 'a tenant')", [tenant])
        graph_of(graph, tenant, deals)
    graph.run("CALL db.prepareForReplanning(60)")
    for _ in range(2):
        writer.execute("CALL deal_sync.sync_all()")
    pg.execute("UPDATE _deal_sync.last_sync_all SET count_ms = 500")
    with Recorder(servers.facts["neo4j_uri"]) as recorder:
        pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{recorder.uri}')".encode())
        writer.execute("CALL deal_sync.sync_all()")
        found = [db_hits(graph, text, parameters) for text, parameters in recorder.queries]
    pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{servers.facts['neo4j_uri']}')".encode())
    pg.execute("TRUNCATE tenants, _deal_sync.graph_tenants, deal_sync.watermarks, deal_sync.runs CASCADE")
    assert len(found) == 6, "the graph's state, changed deals, changed versions, each by two questions, a new tenant"
    return sum(found)


def test_what_sync_all_asks_if_nothing_has_changed_does_not_grow_with_the_deals(
    pg: Connection, writer: Connection, graph: Graph, servers: Instance
) -> None:
    writer.execute("SET deal_sync.overlap = '0s'")
    few = question(DEALS // 10, pg, writer, graph, servers)
    assert few < 30 * TENANTS
    assert question(DEALS, pg, writer, graph, servers) == pytest.approx(few, rel=0.1)


#: How an incremental run finds nodes, and what a full run, which reads all nodes of a tenant, asks beside that.
CHANGES = {
    "Deal(tenant_id, last_updated_at)",
    "Deal(tenant_id, opportunity_id)",
    "DealVersion(tenant_id, valid_until)",
    "DealVersion(tenant_id, version_id)",
    "DealVersion(tenant_id, deal_opportunity_id)",
    "NodeByElementIdSeek",
}
EVERYTHING = {"Deal(tenant_id)", "DealVersion(tenant_id)"}
OF_ALL = {"Deal(tenant_id, last_updated_at)", "Deal(tenant_id, opportunity_id)"}
#: Nodes of either kind.
MORE = 10_000


def test_no_index_keeps_the_planner_from_a_better_one_whatever_the_sizes_of_tenants(
    pg: Connection, writer: Connection, graph: Graph, servers: Instance
) -> None:
    tenant = uuid.uuid4()
    pg.execute("INSERT INTO tenants (id, name) VALUES (%s, 'a tenant')", [tenant])
    create_indexes(pg, graph)
    graph_of(graph, tenant, DEALS)
    writer.execute("CALL deal_sync.sync_all()")
    pg.execute("UPDATE _deal_sync.last_sync_all SET count_ms = 500")
    change(graph, tenant, CHANGED)
    with Recorder(servers.facts["neo4j_uri"]) as recorder:
        pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{recorder.uri}')".encode())
        writer.execute("CALL deal_sync.sync_all()")
        incremental = len(recorder.queries)
        sync(writer, tenant, mode="full")
    pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{servers.facts['neo4j_uri']}')".encode())

    def planned(counted: bool = True) -> tuple[set[str], set[str]]:
        if counted:
            graph.run("CALL db.prepareForReplanning(60)")
        found = [
            set[str]() if text.startswith(OTHERS_TRANSACTIONS) or COUNT in text else ways(graph, text, parameters)
            for text, parameters in recorder.queries
        ]
        return set().union(*found[:incremental]), set().union(*found[incremental:])

    assert planned() == (CHANGES, EVERYTHING | OF_ALL), "one tenant"
    graph.run("MATCH (n) DETACH DELETE n")
    graph.run("CALL db.prepareForReplanning(60)")
    graph_of(graph, tenant, DEALS)
    assert planned(counted=False) == (CHANGES, EVERYTHING | OF_ALL), "indexes that were counted when they were empty"
    graph.run(
        "UNWIND range(1, $nodes) AS i WITH randomUUID() AS tenant, randomUUID() AS key, datetime() AS now"
        " CREATE (:Deal {tenant_id: tenant, opportunity_id: key, last_updated_at: now})"
        " CREATE (:DealVersion {tenant_id: tenant, version_id: key, deal_opportunity_id: key, valid_until: now})",
        nodes=MORE,
    )
    assert planned() == (CHANGES, EVERYTHING | OF_ALL), "beside many tenants with a deal each"
    graph_of(graph, tenant, MORE)
    assert planned() == (CHANGES, EVERYTHING | OF_ALL), "and it has half of all deals"
