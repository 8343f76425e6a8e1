"""Flows in: hostile labels, property names and values. Flows out: Cypher that a real Neo4j reads as they were meant."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neo4j_deals.graph import cypher
from neo4j_deals.graph.cypher import Query, duplicates, quoted, spellings, tenant_counts
from neo4j_deals.mapping.model import Source
from support.graph import Graph
from support.properties import EMOJI, on_servers, sendable, texts


def nodes(label: str, properties: list[str], **more: Any) -> Query:
    return cypher.nodes(Source(label), properties, **more)


HOSTILE = [
    "`",
    "``",
    "a`b",
    "\\",
    "\\\\",
    "\\u0060",
    "\\\\u0060",
    "\\u005c",
    "\\u005cu0060",
    "\\`",
    "'",
    '"',
    "a b",
    "$tenant",
    "n.x",
    "x`) DETACH DELETE n //",
    "\\u0060) DETACH DELETE n //",
    "// comment",
    "/* comment",
    "line\nbreak\ttab\r",
    "İß",
    EMOJI,
    "null",
    "MATCH",
    " ",
]


def names() -> st.SearchStrategy[str]:
    """Names that Neo4j can hold: all but the empty one and those with NUL characters."""
    hostile = st.lists(st.sampled_from([*HOSTILE, "u0060", "\\u", "b"]), min_size=1, max_size=4).map("".join)
    return st.one_of(hostile, texts().map(sendable).filter(bool))


def ask(graph: Graph, query: Query) -> list[list[Any]]:
    with graph.driver.session() as session:
        found: Any = session.run(query.text, dict(query.parameters))
        return [list(record) for record in found]


def node(graph: Graph, label: str, properties: dict[str, Any]) -> None:
    """Create a node by names that are passed as values, so that our code does not quote them."""
    graph.run("CREATE (n) SET n = $properties, n:$($label)", properties=properties, label=label)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_quoted_name_is_read_back_as_it_was(graph: Graph, name: str) -> None:
    graph.run(f"CREATE (n:{quoted(name)} {{{quoted(name)}: 1}})")
    assert graph.run("MATCH (n) RETURN labels(n) AS labels, keys(n) AS keys") == [{"labels": [name], "keys": [name]}]


@given(asked=st.lists(names(), min_size=2, max_size=12, unique=True))
@on_servers(max_examples=15)
def test_labels_and_properties_of_any_name_are_found_and_returned_in_the_order_asked(
    all_graph: Graph, asked: list[str]
) -> None:
    all_graph.clear()
    label, *properties = asked
    node(all_graph, label, {name: number for number, name in enumerate(properties)})
    node(all_graph, "Another", dict.fromkeys(properties, -1))
    query = nodes(label, properties, equal={properties[0]: [0]}, order_by=properties[-1])
    assert [found[1:] for found in ask(all_graph, query)] == [list(range(len(properties)))]


@given(name=names())
def test_a_name_cannot_end_its_quotes(name: str) -> None:
    text = quoted(name)
    assert text[0] == text[-1] == "`"
    assert "`" not in text[1:-1].replace("``", "")
    assert "\\" not in text.replace("\\u005c", "")


# -- values ------------------------------------------------------------------------------------------------------------


@given(value=texts(), other=texts(), limit=st.integers(1, 9))
def test_a_value_never_becomes_part_of_the_text(value: str, other: str, limit: int) -> None:
    def both(value: str, limit: int) -> list[Query]:
        return [
            nodes(
                "Deal",
                ["name"],
                equal={"tenant_id": [value], "name": [value, value]},
                dimensions_but=[value],
                limit=limit,
            ),
            duplicates("Deal", value, "tenant_id", ["opportunity_id"], ["last_updated_at"]),
        ]

    for one, another in zip(both(value, limit), both(other, limit + 1), strict=True):
        assert one.text == another.text
    first, second = both(value, limit)
    assert first.parameters["equal_0"] == [value]
    assert first.parameters["equal_1"] == [value, value]
    assert first.parameters["known"] == [value]
    assert first.parameters["limit"] == limit
    assert second.parameters["tenant"] == spellings(value)


@given(values=st.lists(texts().map(sendable), min_size=1, max_size=8, unique=True))
@on_servers(max_examples=15)
def test_a_value_finds_the_nodes_that_hold_it_and_no_other(all_graph: Graph, values: list[str]) -> None:
    all_graph.clear()
    all_graph.run("UNWIND $values AS value CREATE (:Deal {name: value})", values=values)
    for value in values:
        assert [found[1] for found in ask(all_graph, nodes("Deal", ["name"], equal={"name": [value]}))] == [value]


# -- what is asked -----------------------------------------------------------------------------------------------------


def test_the_text_is_readable() -> None:
    query = nodes("Deal", ["name", "stage"], equal={"tenant_id": ["t"]}, order_by="opportunity_id", limit=3)
    assert query.text == (
        "MATCH (n:`Deal`)\n"
        "WHERE n.`tenant_id` IN $equal_0\n"
        "WITH n ORDER BY n.`opportunity_id` LIMIT $limit\n"
        "WITH n AS sorted UNWIND [sorted] AS n\n"
        "RETURN elementId(n) AS c0, n.`name` AS c1, n.`stage` AS c2"
    )
    assert query.parameters == {"equal_0": ["t"], "limit": 3}


def test_without_a_condition_every_node_of_the_label_is_read(graph: Graph) -> None:
    graph.run("CREATE (:Deal {name: 'a'}), (:Deal), (:DealVersion {name: 'b'})")
    assert sorted(str(found[1]) for found in ask(graph, nodes("Deal", ["name"], equal={}))) == ["None", "a"]


def test_the_element_id_comes_first_and_an_absent_property_is_null(graph: Graph) -> None:
    graph.run("CREATE (:Deal {name: 'a'})")
    element = graph.run("MATCH (n) RETURN elementId(n) AS id")[0]["id"]
    assert ask(graph, nodes("Deal", ["stage", "name"], equal={})) == [[element, None, "a"]]


@pytest.mark.parametrize("whole", [False, True])
def test_a_sort_holds_of_a_node_the_same_however_much_is_read_of_it(graph: Graph, whole: bool) -> None:
    graph.run("UNWIND range(1, 1000) AS key CREATE (:Deal {key: key})")
    held = []
    for properties in (["key"], ["key", *(f"p{number}" for number in range(50))]):
        query = nodes("Deal", properties, equal={}, order_by="key", whole=whole)
        with graph.driver.session() as session:
            result = session.run(f"PROFILE {query.text}", dict(query.parameters))
            assert [record["c1"] for record in result] == list(range(1, 1001))
            profile: Any = result.consume().profile
            held.append(profile["args"]["GlobalMemory"])
    assert held[1] == pytest.approx(held[0], rel=0.1)
    assert held[0] < 250 * 1000


def test_the_order_and_the_limit_are_kept(graph: Graph) -> None:
    graph.run("UNWIND ['c', 'a', 'b'] AS key CREATE (:Deal {key: key})")
    query = nodes("Deal", ["key"], equal={}, order_by="key", limit=2)
    assert [found[1] for found in ask(graph, query)] == ["a", "b"]


def test_dimensions_that_are_not_among_the_known_come_last_by_name_and_value(graph: Graph) -> None:
    graph.run("CREATE (:Deal {dim_known: 1, dim_other: 2, dim_other_confidence: 0.5, name: 'a', `other_dim_x`: 3})")
    ((_, known, unknown),) = ask(graph, nodes("Deal", ["dim_known"], equal={}, dimensions_but=["dim_known"]))
    assert known == 1
    assert sorted(unknown) == [["dim_other", 2], ["dim_other_confidence", 0.5]]


def test_a_node_that_is_read_whole_gives_the_same_rows(graph: Graph) -> None:
    names = [*HOSTILE, "absent", "dim_a"]
    graph.run("CREATE (:Deal {n: 1}) CREATE (n:Deal) SET n = $given", given={it: [it] for it in names[:-2]} | {"n": 2})
    more: dict[str, Any] = {"equal": {}, "order_by": "n", "labels": True, "dimensions_but": []}
    for headed in (False, True):
        rows = [ask(graph, nodes("Deal", names, headed=headed, whole=whole, **more)) for whole in (False, True)]
        assert rows[0] == rows[1]
        assert len(rows[0]) == 2 + headed


def test_a_tenant_is_spelled_in_lower_and_in_upper_case() -> None:
    mixed = "AAAAaaaa-0000-4000-8000-00000000000b"
    assert spellings(mixed) == [mixed.upper(), mixed.lower()]
    assert spellings("11111111-1111-1111-1111-111111111111") == ["11111111-1111-1111-1111-111111111111"]


# -- duplicates and strangers ------------------------------------------------------------------------------------------


def test_two_spellings_of_one_uuid_are_duplicates_within_a_tenant_only(graph: Graph) -> None:
    tenant, key = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-00000000000c"
    same = [key, key.upper(), key.replace("-", ""), "{" + key + "}"]
    others = [str(uuid.uuid4()), key[:-1] + "d"]
    rows = [(tenant.upper() if number % 2 else tenant, spelling) for number, spelling in enumerate(same + others)]
    rows += [(str(uuid.uuid4()), key), (tenant.replace("-", ""), key)]
    graph.run(
        "UNWIND $rows AS row CREATE (:Deal {tenant_id: row[0], opportunity_id: row[1], last_updated_at: 'x'})",
        rows=[list(row) for row in rows],
    )
    graph.run("CREATE (:Deal {tenant_id: $tenant}), (:Deal {tenant_id: $tenant})", tenant=tenant)  # no key: no twins
    found = ask(graph, duplicates("Deal", tenant, "tenant_id", ["opportunity_id"], ["last_updated_at"]))
    assert sorted(row[1] for row in found) == sorted(same)
    assert {row[2] for row in found} == {"x"}
    elements = graph.run("MATCH (n:Deal) WHERE n.opportunity_id IN $same RETURN elementId(n) AS id", same=same)
    assert {row[0] for row in found} <= {row["id"] for row in elements}


def test_duplicates_by_several_properties_share_all_of_them(graph: Graph) -> None:
    tenant, deal = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-00000000000c"
    versions = [(deal, 1, "a"), (deal.upper(), 1, "b"), (deal, 2, "c"), (str(uuid.uuid4()), 1, "d"), (deal, None, "e")]
    graph.run(
        "UNWIND $rows AS row CREATE (:DealVersion {tenant_id: $tenant, deal: row[0], version: row[1], id: row[2]})",
        rows=[list(row) for row in versions],
        tenant=tenant,
    )
    found = ask(graph, duplicates("DealVersion", tenant, "tenant_id", ["deal", "version"], ["id"]))
    assert sorted(row[1:] for row in found) == sorted([[deal, 1, "a"], [deal.upper(), 1, "b"]])


def test_a_key_of_any_type_disturbs_no_search_for_duplicates(graph: Graph) -> None:
    tenant = "aaaaaaaa-0000-4000-8000-000000000001"
    keys: list[Any] = [["a", "b"], ["a", "b"], True, True, 1.5, 1.5]
    for key in keys:
        graph.run("CREATE (:Deal {tenant_id: $tenant, opportunity_id: $key})", tenant=tenant, key=key)
    graph.run("CREATE (:Deal {tenant_id: $tenant, opportunity_id: point({x: 1, y: 2})})", tenant=tenant)
    found = ask(graph, duplicates("Deal", tenant, "tenant_id", ["opportunity_id"], []))
    assert all(row[1] in keys for row in found)


def test_tenants_are_counted_whatever_their_property_holds(graph: Graph) -> None:
    graph.run("CREATE (:Deal {tenant_id: 'a'}), (:Deal {tenant_id: 'a'}), (:Deal {tenant_id: 7}), (:Deal), (:Other)")
    [[counted, milliseconds]] = ask(graph, tenant_counts("Deal", "tenant_id"))
    assert sorted(counted, key=str) == sorted([["a", 2], [7, 1], [None, 1]], key=str)
    assert milliseconds >= 0
