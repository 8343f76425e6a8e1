"""Flows in: neo4j_deals.doctor.indexes, on graphs that lack one of them. Flows out: the statement that creates it."""

import pytest
from neo4j_deals.doctor.indexes import index
from support.database import Connection
from support.doctor import INDEXES, cypher, doctor
from support.graph import Graph


def row(properties: list[str], state: str = "ONLINE", label: str = "Deal") -> tuple[object, ...]:
    return "known", [label], properties, state, None


@pytest.mark.parametrize(
    ("found", "ok", "said"),
    [
        ([row(["a", "b"])], True, 'index "known"'),
        ([row(["b"])], True, 'index "known"'),
        ([row(["b", "a"]), row(["a", "b"], "FAILED")], True, 'index "known"'),
        ([row(["a"])], False, "no index on (a, b)"),
        ([row(["a", "b", "c"])], False, "no index on (a, b)"),
        ([row(["a", "b"], label="Other")], False, "no index on (a, b)"),
        ([row(["a", "b"], "POPULATING")], False, "still being built"),
        ([row(["a", "b"], "FAILED")], False, "is FAILED"),
    ],
)
def test_an_index_serves_when_it_is_online_and_of_these_properties(
    found: list[tuple[object, ...]], ok: bool, said: str
) -> None:
    looked = index(found, "Deal", "made", [["a", "b"], ["b", "a"], ["b"]])
    assert looked.ok is ok
    assert said in looked.detail
    assert (looked.hint is None) is ok


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_is_missing_is_named_with_the_statement_that_makes_it(
    pg: Connection, graph: Graph, name: str
) -> None:
    check = doctor(pg)[name]
    assert check.ok is False
    cypher(graph, check.hint)
    graph.run("CALL db.awaitIndexes()")
    checks = doctor(pg)
    assert [other for other in INDEXES if checks[other].ok] == [name]


def test_a_key_constraint_is_an_index_too(pg: Connection, graph: Graph) -> None:
    graph.run("CREATE CONSTRAINT deal_key FOR (d:Deal) REQUIRE (d.tenant_id, d.opportunity_id) IS UNIQUE")
    check = doctor(pg)["deals: key index"]
    assert (check.ok, check.detail) == (True, 'constraint "deal_key"')


def test_the_hint_for_the_versions_key_prevents_no_constraint(pg: Connection, graph: Graph) -> None:
    """A plain index on the same properties would: the service could not create its own any more."""
    cypher(graph, doctor(pg)["versions: key index"].hint)
    check = doctor(pg)["versions: key index"]
    assert (check.ok, check.detail) == (True, 'constraint "deal_sync_version_key"')
    for key in ("(v.tenant_id, v.version_id)", "v.version_id"):
        graph.run(f"CREATE CONSTRAINT IF NOT EXISTS FOR (v:DealVersion) REQUIRE {key} IS UNIQUE")
    assert doctor(pg)["versions: key index"].ok


def test_the_names_in_the_graph_are_those_of_the_mapping(pg: Connection, graph: Graph) -> None:
    pg.execute("ALTER FOREIGN TABLE neo4j.deals OPTIONS (SET label 'Sa``le')")
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN last_updated_at OPTIONS (ADD property 'touched at')")
    cypher(graph, doctor(pg)["deals: watermark index"].hint)
    graph.run("CALL db.awaitIndexes()")
    assert doctor(pg)["deals: watermark index"].ok
    assert graph.run("SHOW INDEXES YIELD labelsOrTypes, properties WHERE labelsOrTypes = ['Sa``le']") == [
        {"labelsOrTypes": ["Sa``le"], "properties": ["tenant_id", "touched at"]}
    ]
