"""Flows in: tenants that are synced, and one thing that happens to one of them. Flows out: sync_all opens a run for it,
and none for the others, which it asks the graph about all at once; they are up to date.
"""

import uuid
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from support.database import Connection
from support.graph import Graph
from support.histories import moved_then
from support.sync import add_deal, add_tenant, add_version, one, sync

LONG_AGO: LiteralString = "datetime() - duration('P2D')"


@pytest.fixture
def tenants(pg: Connection, graph: Graph) -> list[uuid.UUID]:
    """Three tenants, each with a deal and its version, that were changed long ago and are synced."""
    made = [add_tenant(pg) for _ in range(3)]
    for tenant in made:
        add_version(graph, tenant, add_deal(graph, tenant))
    graph.run(f"MATCH (d:Deal) SET d.last_updated_at = {LONG_AGO}")
    graph.run(f"MATCH (v:DealVersion) SET v.valid_until = {LONG_AGO}, v.created_at = {LONG_AGO}")
    for tenant in made:
        assert sync(pg, tenant).status == "ok"
    return made


def opened(pg: Connection) -> list[uuid.UUID]:
    """The tenants for which sync_all opens a run."""
    before = {id for (id,) in pg.execute("SELECT run_id FROM deal_sync.runs")}
    pg.execute("CALL deal_sync.sync_all()")
    found = pg.execute("SELECT run_id, tenant_id FROM deal_sync.runs ORDER BY started_at").fetchall()
    return [tenant for id, tenant in found if id not in before]


#: By name, what happens to the deal or the version of the tenant $tenant.
CHANGES: dict[str, LiteralString] = {
    "a deal changes": "MATCH (d:Deal {tenant_id: $tenant}) SET d.last_updated_at = datetime()",
    "a deal changes, by local time": "MATCH (d:Deal {tenant_id: $tenant}) SET d.last_updated_at = localdatetime()",
    "a deal changes, by its day": "MATCH (d:Deal {tenant_id: $tenant}) SET d.last_updated_at = date()",
    "a deal changes, by a text": "MATCH (d:Deal {tenant_id: $tenant}) SET d.last_updated_at = toString(datetime())",
    "a deal changes, by a text in another zone": "MATCH (d:Deal {tenant_id: $tenant})"
    " SET d.last_updated_at = toString(datetime({timezone: '-08:00'}))",
    "a deal changes, by a text that is no time": "MATCH (d:Deal {tenant_id: $tenant}) SET d.last_updated_at = 'today'",
    "a deal changes, by a number": "MATCH (d:Deal {tenant_id: $tenant}) SET d.last_updated_at = 20261201",
    "a deal is of the future": "MATCH (d:Deal {tenant_id: $tenant})"
    " SET d.last_updated_at = datetime() + duration('P9D')",
    "a version ends": "MATCH (v:DealVersion {tenant_id: $tenant}) SET v.valid_until = datetime()",
    "a version without an end comes": "MATCH (v:DealVersion {tenant_id: $tenant}) CREATE (w:DealVersion)"
    " SET w = properties(v), w.version_id = randomUUID(), w.version = 99, w.valid_until = null,"
    " w.created_at = datetime()",
    "a deal comes with an old time": "CREATE (:Deal {tenant_id: $tenant, opportunity_id: randomUUID(), name: 'new',"
    " last_updated_at: datetime() - duration('P9D')})",
    "a deal comes without a time": "CREATE (:Deal {tenant_id: $tenant, opportunity_id: randomUUID(), name: 'new'})",
    "a version comes with an old time": "MATCH (v:DealVersion {tenant_id: $tenant})"
    " CREATE (w:DealVersion) SET w = properties(v), w.version_id = randomUUID(), w.version = 99",
    "a deal goes": "MATCH (d:Deal {tenant_id: $tenant}) DETACH DELETE d",
    "a deal of upper case changes": "MATCH (d:Deal {tenant_id: $tenant})"
    " SET d.tenant_id = toUpper($tenant), d.last_updated_at = datetime()",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_is_opened_for_a_tenant_if(pg: Connection, graph: Graph, tenants: list[uuid.UUID], change: str) -> None:
    assert opened(pg) == []
    graph.run(CHANGES[change], tenant=str(tenants[1]))
    assert opened(pg) == [tenants[1]]


@pytest.mark.parametrize(
    "change",
    [
        "MATCH (d:Deal {tenant_id: $tenant, name: 'one'}) SET d.last_updated_at = datetime()",
        "MATCH (d:Deal {tenant_id: $tenant, name: 'one'}) SET d.last_updated_at = localdatetime()",
        "MATCH (d:Deal {tenant_id: $tenant, name: 'two'}) SET d.last_updated_at = toString(datetime())",
        "MATCH (d:Deal {tenant_id: $tenant, name: 'one'}) SET d.tenant_id = toUpper($tenant),"
        " d.last_updated_at = datetime()",
        "MATCH (v:DealVersion {tenant_id: $tenant, name: 'one'}) SET v.valid_until = datetime()",
        "MATCH (v:DealVersion {tenant_id: $tenant, name: 'two'}) SET v.valid_until = toString(datetime())",
    ],
)
def test_a_change_is_seen_beside_timestamps_of_another_type(
    pg: Connection, graph: Graph, tenants: list[uuid.UUID], change: LiteralString
) -> None:
    """As in a real graph: a ZONED DATETIME of those that were created, texts of those that were changed."""
    graph.run("MATCH (n:Deal|DealVersion) SET n.name = 'one'")
    for tenant in tenants:
        add_version(graph, tenant, add_deal(graph, tenant))
    graph.run("MATCH (n:Deal|DealVersion) WHERE coalesce(n.name, '') <> 'one' SET n.name = 'two'")
    graph.run(f"MATCH (d:Deal {{name: 'two'}}) SET d.last_updated_at = toString({LONG_AGO})")
    graph.run(f"MATCH (v:DealVersion {{name: 'two'}}) SET v.valid_until = toString({LONG_AGO})")
    for tenant in tenants:
        assert sync(pg, tenant, mode="full").status == "ok"
    assert opened(pg) == []
    graph.run(change, tenant=str(tenants[1]))
    assert opened(pg) == [tenants[1]]


def test_a_tenant_with_a_rejected_row_is_tried_again(pg: Connection, graph: Graph, tenants: list[uuid.UUID]) -> None:
    graph.run("CREATE (:Deal {tenant_id: $tenant, opportunity_id: 'OPP-1', name: 'x'})", tenant=str(tenants[0]))
    assert opened(pg) == [tenants[0]]
    assert opened(pg) == [tenants[0]]


def test_a_tenant_whose_run_failed_is_tried_again(pg: Connection, graph: Graph, tenants: list[uuid.UUID]) -> None:
    pg.execute("ALTER TABLE deal_versions RENAME TO elsewhere")
    with pytest.raises(psycopg.DatabaseError, match="3 of 3 tenants failed"):
        pg.execute("CALL deal_sync.sync_all()")
    pg.execute("ALTER TABLE elsewhere RENAME TO deal_versions")
    assert sorted(opened(pg)) == sorted(tenants)
    assert opened(pg) == []


def test_nodes_without_a_timestamp_are_looked_at_when_their_hour_has_come(
    pg: Connection, graph: Graph, tenants: list[uuid.UUID]
) -> None:
    pg.execute(
        "UPDATE deal_sync.watermarks SET facts = facts || jsonb_build_object('undated_at', now() - interval '2h')"
        " WHERE tenant_id = %s",
        [tenants[2]],
    )
    assert opened(pg) == [tenants[2]]
    pg.execute("SET deal_sync.undated_every = '0s'")
    assert sorted(opened(pg)) == sorted(tenants)


def test_a_changed_mapping_a_clock_that_was_set_and_another_graph_open_a_run(
    pg: Connection, graph: Graph, tenants: list[uuid.UUID]
) -> None:
    moved_then(pg, tenants[0], timedelta(hours=-3))
    assert opened(pg) == [tenants[0]]
    pg.execute("UPDATE deal_sync.watermarks SET mapping = mapping || 'x' WHERE tenant_id = %s", [tenants[1]])
    assert opened(pg) == [tenants[1]]
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ALTER deal_ref OPTIONS (ADD write 'fill')")
    assert sorted(opened(pg)) == sorted(tenants)
    assert opened(pg) == []


def test_a_full_run_passes_no_tenant_over(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute("CALL deal_sync.sync_all('full')")
    assert one(pg, "SELECT count(*) FROM deal_sync.runs WHERE mode = 'full'") == 2 * len(tenants)


def test_a_tenant_in_which_nothing_changes_is_up_to_date(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute("UPDATE deal_sync.runs SET started_at = started_at - interval '1h'")
    late = "SELECT count(*) FROM deal_sync.tenant_status WHERE state = 'late' AND lag > '59 min'"
    assert one(pg, late) == len(tenants)
    said: list[str] = []
    pg.add_notice_handler(lambda it: said.append(str(it.message_primary)))
    assert opened(pg) == []
    assert said == [f"tenants in which nothing has changed: {len(tenants)}"]
    assert one(pg, late) == 0
    assert one(pg, "SELECT max(lag) < '1 min' AND bool_and(state = 'up to date') FROM deal_sync.tenant_status")
    assert one(pg, "SELECT max(value) < 60 FROM deal_sync.metrics WHERE name = 'deal_sync_lag_seconds'")
    pg.execute("CALL deal_sync.sync_all(quiet => true)")
    assert len(said) == 1


def test_a_tenant_that_is_forgotten_was_never_up_to_date(pg: Connection, tenants: list[uuid.UUID]) -> None:
    assert opened(pg) == []
    pg.execute("SELECT deal_sync.forget(%s)", [tenants[0]])
    query: LiteralString = "SELECT state, lag FROM deal_sync.tenant_status WHERE tenant_id = %s"
    assert pg.execute(query, [tenants[0]]).fetchone() == ("never synced", None)


def calls(pg: Connection, expected: list[uuid.UUID]) -> dict[str, int]:
    """How often sync_all, which opens these runs, asks the graph what, and runs a tenant."""
    pg.execute("SELECT pg_stat_force_next_flush()")
    pg.execute("SELECT pg_stat_reset()")
    pg.execute("SET track_functions = 'all'")
    assert opened(pg) == expected
    pg.execute("RESET track_functions")
    pg.execute("SELECT pg_stat_force_next_flush()")
    found = pg.execute(
        "SELECT funcname, calls FROM pg_stat_user_functions"
        " WHERE funcname IN ('changed_tenants', 'tenants_of_graph', 'graph_state', 'sync_tenant') AND calls > 0"
    ).fetchall()
    return dict(found)


def test_the_graph_is_asked_once_however_many_tenants_there_are(pg: Connection, tenants: list[uuid.UUID]) -> None:
    assert calls(pg, []) == {"changed_tenants": 1, "tenants_of_graph": 1, "graph_state": 1}


# If counting takes long


@pytest.fixture
def large(pg: Connection, tenants: list[uuid.UUID]) -> list[uuid.UUID]:
    """The same tenants in a graph in which counting took half a second, their own as all nodes."""
    assert opened(pg) == []
    pg.execute("UPDATE _deal_sync.last_sync_all SET count_ms = 500")
    pg.execute("UPDATE deal_sync.watermarks SET facts = facts || '{\"count_ms\": 500}'")
    return tenants


def an_hour_passes(pg: Connection) -> None:
    pg.execute("UPDATE _deal_sync.last_sync_all SET counted_at = counted_at - interval '61 min'")


def test_a_large_graph_is_not_counted_again_and_changes_are_found(
    pg: Connection, graph: Graph, large: list[uuid.UUID]
) -> None:
    assert calls(pg, []) == {"changed_tenants": 1, "graph_state": 1}
    late = "SELECT count(*) FROM deal_sync.tenant_status WHERE lag > '1 min'"
    pg.execute("UPDATE deal_sync.runs SET started_at = started_at - interval '1h'")
    assert opened(pg) == []
    assert one(pg, late) == 0
    graph.run(CHANGES["a deal changes"], tenant=str(large[1]))
    assert calls(pg, [large[1]])["sync_tenant"] == 1
    assert opened(pg) == [large[1]]  # its overlap
    assert one(pg, "SELECT count_ms FROM _deal_sync.last_sync_all") == 500


def test_a_deal_that_goes_from_a_large_graph_is_missed_within_the_hour_and_brings_one_run(
    pg: Connection, graph: Graph, large: list[uuid.UUID]
) -> None:
    graph.run(CHANGES["a deal goes"], tenant=str(large[1]))
    assert opened(pg) == []
    an_hour_passes(pg)
    assert opened(pg) == [large[1]]
    assert one(pg, "SELECT message FROM deal_sync.runs ORDER BY started_at DESC LIMIT 1") == (
        "rows whose deal is not in the graph: 1"
    )
    pg.execute("UPDATE _deal_sync.last_sync_all SET count_ms = 500")
    pg.execute("UPDATE deal_sync.watermarks SET facts = facts || '{\"count_ms\": 500}'")
    assert opened(pg) == []
    graph.run(CHANGES["a deal comes with an old time"], tenant=str(large[1]))
    sync(pg, large[1], mode="full")  # has counted later than sync_all
    assert opened(pg) == []
    an_hour_passes(pg)
    assert opened(pg) == []


def test_a_new_tenant_of_a_large_graph_is_synced_at_once(pg: Connection, graph: Graph, large: list[uuid.UUID]) -> None:
    for new in (uuid.UUID(int=0), uuid.uuid4(), uuid.UUID(int=(1 << 128) - 1)):
        pg.execute("INSERT INTO tenants (id, name) VALUES (%s, 'new')", [new])
        add_deal(graph, new)
        graph.run(f"MATCH (d:Deal {{tenant_id: $tenant}}) SET d.last_updated_at = {LONG_AGO}", tenant=str(new))
        assert opened(pg) == [new]
        pg.execute("UPDATE _deal_sync.last_sync_all SET count_ms = 500")
        assert calls(pg, []) == {"changed_tenants": 1, "graph_state": 1}


def test_a_tenant_that_the_application_learns_of_later_is_synced_and_what_is_no_tenant_costs_nothing(
    pg: Connection, graph: Graph, large: list[uuid.UUID]
) -> None:
    late, odd = uuid.uuid4(), "OTHER"
    for tenant in (late, odd):
        graph.run(
            "CREATE (:Deal {tenant_id: $tenant, opportunity_id: randomUUID(), last_updated_at: datetime()})",
            tenant=str(tenant),
        )
    assert calls(pg, [])["tenants_of_graph"] == 1
    pg.execute("UPDATE _deal_sync.last_sync_all SET count_ms = 500")
    assert "tenants_of_graph" not in calls(pg, [])
    assert one(pg, "SELECT state FROM deal_sync.tenant_status WHERE tenant_id = %s", late) == "unknown"
    pg.execute("INSERT INTO tenants (id, name) VALUES (%s, 'late')", [late])
    assert opened(pg) == [late]


def test_a_full_run_counts_a_large_graph(pg: Connection, large: list[uuid.UUID]) -> None:
    pg.execute("CALL deal_sync.sync_all('full')")
    assert one(pg, "SELECT count_ms < 500 FROM _deal_sync.last_sync_all")
