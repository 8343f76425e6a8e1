"""Flows in: neo4j_deals.doctor.nodes, on graphs that runs cannot read in whole. Flows out: what it names, with Cypher
that finds or fixes it.
"""

import uuid
from typing import Any

import pytest
from support.database import Connection, execute
from support.doctor import Check, cypher, doctor
from support.graph import Graph
from support.sync import add_deal, add_version, sync

NO_ZONE = "; with a time without a zone: {} (it counts as UTC, and runs look 14 hours further back for it)"


@pytest.mark.parametrize("other", [str.upper, lambda key: "{" + key.replace("-", "") + "}"])
def test_two_deals_with_one_key_are_named_in_any_spelling_and_over_tenants(
    pg: Connection, graph: Graph, tenant: uuid.UUID, other: Any
) -> None:
    key = str(add_deal(graph, tenant))
    assert doctor(pg)["deals: duplicates"].ok
    graph.run("CREATE (:Deal {tenant_id: $tenant, opportunity_id: $key})", tenant=str(uuid.uuid4()), key=other(key))
    check = doctor(pg)["deals: duplicates"]
    assert check.ok is False
    assert check.detail == "values of opportunity_id shared by several nodes: 1, on 2 nodes; one node of each lands"
    shown = cypher(graph, check.hint)
    assert len(shown) == 2
    graph.run("MATCH (d) WHERE elementId(d) = $id DELETE d", id=shown[0]["elementId(n)"])
    assert doctor(pg)["deals: duplicates"].ok


def test_two_versions_with_one_key_are_named(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    deal = add_deal(graph, tenant)
    version = str(add_version(graph, tenant, deal))
    add_version(graph, tenant, deal, version_id=version, version=2)
    assert doctor(pg)["versions: duplicates"].ok is False
    graph.run("MATCH (v:DealVersion {version: 2}) SET v.version_id = $id", id=str(uuid.uuid4()))
    assert doctor(pg)["versions: duplicates"].ok


@pytest.mark.parametrize("tenant_id", [None, 5, "no-uuid", "AAAAAAAA000040008000000000000001"])
def test_nodes_that_belong_to_no_tenant_are_named(
    pg: Connection, graph: Graph, tenant: uuid.UUID, tenant_id: Any
) -> None:
    deal = add_deal(graph, tenant)
    add_version(graph, tenant, deal, tenant_id=tenant_id)
    add_deal(graph, tenant, tenant_id=tenant_id)
    checks = doctor(pg)
    for name in ("deals: tenants", "versions: tenants"):
        assert checks[name].ok is False
        assert checks[name].detail.startswith("nodes of no tenant: 1; tenant_id is absent on ")
    listed = {row["tenant"]: row["nodes[..5]"] for row in cypher(graph, checks["deals: tenants"].hint)}
    assert set(listed) == {tenant_id, str(tenant)}
    graph.run("MATCH (n) SET n.tenant_id = $tenant", tenant=str(tenant))
    checks = doctor(pg)
    assert (checks["deals: tenants"].ok, checks["deals: tenants"].detail) == (True, "nodes: 2, tenants: 1")
    assert checks["versions: tenants"].ok


@pytest.mark.parametrize("moment", [None, 5, "soon", "31.12.2026"])
def test_deals_without_a_timestamp_are_named(pg: Connection, graph: Graph, tenant: uuid.UUID, moment: Any) -> None:
    add_deal(graph, tenant)
    graph.run("MATCH (d:Deal) SET d.last_updated_at = $moment", moment=moment)
    check = doctor(pg)["deals: timestamps"]
    assert check.ok is False
    cypher(graph, check.hint)
    assert doctor(pg)["deals: timestamps"].ok
    [kept] = graph.run("MATCH (d:Deal) RETURN d.last_updated_at_before AS value")
    assert kept["value"] == moment, "what stood there may be all that is known"
    assert sync(pg, tenant).status == "ok"


@pytest.mark.parametrize("moment", ["soon", "2999-01-01"])
def test_what_a_hint_has_kept_of_a_timestamp_stays_when_it_is_followed_again(
    pg: Connection, graph: Graph, tenant: uuid.UUID, moment: str
) -> None:
    add_deal(graph, tenant)
    check = "deals: timestamps" if moment == "soon" else "deals: future"
    hints = []
    for number in range(3):
        graph.run("MATCH (d:Deal) SET d.last_updated_at = $moment", moment=f"{moment} {number}")
        hints.append(doctor(pg)[check].hint)
        cypher(graph, hints[-1])
        assert doctor(pg)[check].ok
    [kept] = graph.run("MATCH (d:Deal) RETURN properties(d) AS values")
    beside = {name: value for name, value in kept["values"].items() if name.startswith("last_updated_at_before")}
    assert sorted(beside.values()) == [f"{moment} {number}" for number in range(3)]
    graph.run("MATCH (d:Deal) SET d.last_updated_at = $moment", moment=f"{moment} 3")
    for hint in hints:  # out of a run book
        cypher(graph, hint)
    [kept] = graph.run("MATCH (d:Deal) RETURN properties(d) AS values")
    assert kept["values"] == kept["values"] | beside
    assert kept["values"]["last_updated_at"] == f"{moment} 3"


@pytest.mark.parametrize("unit", ["epochSeconds", "epochMillis"])
def test_timestamps_that_count_from_1970_become_the_same_moments(
    unit: str, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    add_deal(graph, tenant, name="Odd")
    graph.run(
        "MATCH (n:Deal|DealVersion) SET n.last_updated_at = datetime('2026-03-01T10:00:00Z')."
        f"{unit}, n.valid_until = datetime('2026-03-01T10:00:00Z').{unit}"
    )
    graph.run("MATCH (d:Deal {name: 'Odd'}) SET d.last_updated_at = 5")
    checks = doctor(pg)
    for kind in ("deals", "versions"):
        assert checks[f"{kind}: timestamps"].ok is False
        cypher(graph, checks[f"{kind}: timestamps"].hint)
    checks = doctor(pg)
    assert checks["deals: timestamps"].ok
    assert checks["versions: timestamps"].ok
    found = graph.run(
        "MATCH (n:Deal|DealVersion) WHERE n.name <> 'Odd'"
        " RETURN CASE WHEN n:Deal THEN n.last_updated_at ELSE n.valid_until END"
        " = datetime('2026-03-01T10:00:00Z') AS same"
    )
    assert found == [{"same": True}, {"same": True}]
    assert sync(pg, tenant).status == "ok"


def test_a_few_skeletons_without_a_timestamp_are_counted_and_no_fault(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    graph.run(
        "UNWIND range(1, 40) AS i CREATE (:Deal {tenant_id: $tenant, opportunity_id: randomUUID(),"
        " last_updated_at: CASE i % 3 WHEN 0 THEN datetime() WHEN 1 THEN '2026-03-01T00:00:00Z'"
        " ELSE localdatetime() END})",
        tenant=str(tenant),
    )
    add_deal(graph, tenant)
    graph.run("MATCH (d:Deal {name: 'Acme'}) REMOVE d.last_updated_at")
    check = doctor(pg)["deals: timestamps"]
    assert (check.ok, check.detail) == (True, "nodes without last_updated_at: 1 of 41" + NO_ZONE.format(13))
    graph.run("MATCH (d:Deal) SET d.last_updated_at = toString(localdatetime())")
    assert doctor(pg)["deals: timestamps"].detail == "nodes without last_updated_at: 0 of 41" + NO_ZONE.format(41)
    graph.run("MATCH (d:Deal) SET d.last_updated_at = toString(datetime({timezone: '-03:00'}))")
    assert doctor(pg)["deals: timestamps"].detail == "nodes without last_updated_at: 0 of 41"


def test_versions_without_a_timestamp_are_named(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    graph.run("MATCH (v:DealVersion) REMOVE v.valid_until")
    assert doctor(pg)["versions: timestamps"].ok, "created_at stands in for it"
    graph.run("MATCH (v:DealVersion) REMOVE v.created_at")
    check = doctor(pg)["versions: timestamps"]
    assert check.ok is False
    (shown,) = cypher(graph, check.hint)
    graph.run("MATCH (v) WHERE elementId(v) = $id SET v.valid_until = datetime()", id=shown["elementId(n)"])
    assert doctor(pg)["versions: timestamps"].ok


@pytest.mark.parametrize(
    "moment",
    [
        "datetime() + duration('P2D')",
        "localdatetime() + duration('P2D')",
        "toString(datetime() + duration('P4D'))",
        "'2999-01-01'",
    ],
)
def test_timestamps_in_the_future_are_named(pg: Connection, graph: Graph, tenant: uuid.UUID, moment: str) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    checks = doctor(pg)
    assert checks["deals: future"].ok
    assert checks["versions: future"].ok
    graph.run(f"MATCH (d:Deal), (v:DealVersion) SET d.last_updated_at = {moment}, v.valid_until = {moment}")
    checks = doctor(pg)
    assert checks["deals: future"].ok is False
    assert checks["versions: future"].ok is False
    assert checks["deals: future"].detail == "nodes with a last_updated_at in the future: 1; every run reads them"
    [before] = graph.run("MATCH (d:Deal) RETURN d.last_updated_at AS value")
    cypher(graph, checks["deals: future"].hint)
    assert graph.run("MATCH (d:Deal) RETURN d.last_updated_at_before AS value") == [before]
    (shown,) = cypher(graph, checks["versions: future"].hint)
    graph.run("MATCH (v) WHERE elementId(v) = $id SET v.valid_until = datetime()", id=shown["elementId(n)"])
    checks = doctor(pg)
    assert checks["deals: future"].ok
    assert checks["versions: future"].ok


def test_properties_that_no_column_shows_are_named(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    assert doctor(pg)["deals: unmapped"].ok
    graph.run("MATCH (n) SET n.dim_of_tomorrow = 1, n.forecast_score = 0.5, n.`odd \"name` = 'x', n.currency = 'EUR'")
    checks = doctor(pg)  # the new dimension lands in the document of all of them
    assert checks["deals: unmapped"].detail == 'no column shows forecast_score, odd "name'
    assert '"odd ""name" text' in str(checks["deals: unmapped"].hint)
    execute(pg, checks["deals: unmapped"].hint)
    checks = doctor(pg)
    assert checks["deals: unmapped"].ok
    assert checks["versions: unmapped"].ok, "a version's copy of what a deal's column shows is left out on purpose"
    assert pg.execute(
        "SELECT forecast_score FROM deal_sync.scan(NULL::neo4j.deals, columns => '{forecast_score}')"
    ).fetchall() == [(0.5,)]


def test_a_mapped_property_that_no_node_has_is_named_and_so_is_the_one_that_is_meant(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """A name that PostgreSQL has folded, one that the graph's writer has changed, and one that nobody knows."""
    assert doctor(pg)["deals: absent"] == Check(True, "there are no nodes yet", None)
    add_deal(graph, tenant, nextStep="call", dealRef="R-1", confidence=0.5)
    add_deal(graph, tenant, version=1)
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ADD COLUMN nextStep text")
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ADD COLUMN owner text OPTIONS (property 'nobodys')")
    found = doctor(pg)["deals: absent"]
    assert found.ok is False
    assert found.detail == "no node has deal_ref (but some have dealRef), nextstep (but some have nextStep), nobodys"
    assert found.hint is not None
    assert "ALTER COLUMN owner OPTIONS (SET property '…')" in found.hint
    pg.execute("ALTER FOREIGN TABLE neo4j.deals DROP COLUMN owner")
    execute(pg, str(doctor(pg)["deals: absent"].hint).partition(": ")[2])
    found = doctor(pg)["deals: absent"]
    assert found.ok, found
    assert "account_id" in found.detail
    assert "deal_ref" not in found.detail
    assert "confidence," not in found.detail.replace("_confidence", "")
    assert sync(pg, tenant).status == "ok"
    assert pg.execute("SELECT deal_ref FROM opportunities ORDER BY 1").fetchall() == [("R-1",), (None,)]
    assert pg.execute("SELECT nextstep FROM deal_sync.scan(NULL::neo4j.deals) ORDER BY 1").fetchall() == [
        ("call",),
        (None,),
    ]


def test_a_property_that_cannot_give_its_name_to_a_column_gets_one_all_the_same(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant, **{"xmin": "a", "p" * 70: 1, "p" * 69: 2})
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ADD COLUMN taken text OPTIONS (property 'stage')")
    graph.run("MATCH (d:Deal) SET d.taken = 3")
    execute(pg, doctor(pg)["deals: unmapped"].hint)
    assert doctor(pg)["deals: unmapped"].ok
    query = f"""SELECT xmin_2, taken_2, {"p" * 63}, {"p" * 61}_2 FROM deal_sync.scan(NULL::neo4j.deals) AS s"""
    assert pg.execute(query.encode()).fetchall() == [("a", 3, 2, 1)]
