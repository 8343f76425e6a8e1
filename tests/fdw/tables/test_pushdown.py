"""In: quals and sort keys as Multicorn2 gives them. Out: the nodes that PostgreSQL would keep, in its order, and no
fewer.

All of this drives the wrapper's own class, without Multicorn2; tests/sql/test_statements.py asks the same through it.
"""

from collections.abc import Iterator
from datetime import date, datetime
from random import Random
from typing import Any

import psycopg
import pytest
from environment.servers import Instance
from neo4j_deals.graph import cypher
from neo4j_deals.mapping.model import Column, Source
from neo4j_deals.tables.pushdown import Parameters, condition, pushed, readings_of
from psycopg import sql
from support import hostile, multicorn_stub
from support.database import Connection
from support.graph import Graph
from support.multicorn_stub import ColumnDefinition, Qual, SortKey
from support.statements import COMPARISONS, PATTERNS, TYPES, Col, Statements, text_literal

Row = list[Any]


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    with multicorn_stub.wrapper() as module:
        yield module


def said(column: Column, operator: str | tuple[str, bool], value: Any) -> str | None:
    """The condition on `x`, with the values in the place of their parameters."""
    parameters = Parameters()
    found = condition(column, operator, value, "x", parameters, floats_exact=True)
    if found is None:
        return None
    text = found.text
    for name in sorted(parameters.values, key=len, reverse=True):
        text = text.replace(f"${name}", repr(parameters.values[name]))
    return text


def column(type_name: str, **more: Any) -> Column:
    return Column("c", "c", type_name, **more)


# -- conditions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_name", "operator", "value", "expected"),
    [
        ("int8", "=", "5", "x IN [5, 5.0]"),
        ("int4", "=", 0, "x IN [0, 0.0, -0.0]"),
        ("int4", "=", "4294967295", "x IN [4294967295, 4294967295.0, -1, -1.0]"),
        ("int4", "<", 5, "x IS NOT NULL"),
        ("int2", "<>", "5", "x IS NOT NULL"),
        ("int8", ("=", True), ["1", None, "2"], "x IN [1, 1.0, 2, 2.0]"),
        ("int8", "<", "5", "x < 5"),
        ("int8", "<>", "5", "NOT x IN [5, 5.0] AND x IS NOT NULL"),
        ("int8", ("<>", False), ["5", "6"], "NOT x IN [5, 5.0, 6, 6.0] AND x IS NOT NULL"),
        ("int8", "<>", "9007199254740993", "x IS NOT NULL"),
        ("int8", "<=", "9007199254740993", "(x <= 9007199254740994.0 OR x <= 9007199254740993)"),
        ("float8", "=", "0.1", "x IN [0.1, 0.10000000149011612]"),
        ("float8", "=", "NaN", "x IS NOT NULL"),
        ("float8", ">", "5.4e-315", "x IS NOT NULL"),
        ("float4", "=", "0.5", "x IS NOT NULL"),
        ("timestamptz", "<", "2000-01-01 00:00:00.009+00", "x IS NOT NULL"),
        ("timestamp", ">", datetime(2000, 1, 1), "x IS NOT NULL"),
        ("date", "<", date(2026, 1, 2), "x IS NOT NULL"),
        ("float8", "<", "NaN", "x IS NOT NULL"),
        ("bool", "=", "t", "x IN [True]"),
        ("bool", "IS", "f", "x = False"),
        ("bool", "IS NOT", "f", None),
        ("bool", "IS", None, None),
        ("text", ("=", False), ["a"], "x IS NOT NULL"),
        ("text", "<", "a", "x IS NOT NULL"),
        ("text", "~~", "%a", "x IS NOT NULL"),
        ("text", "~~*", "a%", "x IS NOT NULL"),
        ("text", "||", "a", None),
        ("text", "<", None, None),
        ("text", ("<>", False), [], None),
        ("text", ("=", True), "not a list", None),
        ("jsonb", "=", "5", "x IS NOT NULL"),
        ("timestamptz", "<", "infinity", "x IS NOT NULL"),
        ("timestamptz", "<", "02.01.2026 03:04:05 UTC", "x IS NOT NULL"),
    ],
)
def test_what_becomes_of_a_qual(type_name: str, operator: Any, value: Any, expected: str | None) -> None:
    assert said(column(type_name), operator, value) == expected


def test_a_key_is_asked_for_by_its_readings_alone_so_that_an_index_serves() -> None:
    assert said(column("text", key=True), "=", "a-b") == "x IN ['a-b']"
    assert said(column("text", key=True), "~~", "a%") == "x STARTS WITH 'a'"
    assert said(column("text"), "=", "a-b") == "(x IN ['a-b'] OR x CONTAINS '\\x00' OR x STARTS WITH 'a-b ')"


def test_a_text_is_read_as_what_shows_so() -> None:
    assert readings_of("a") == ["a"]
    assert readings_of("5") == ["5", 5, 5.0]
    assert readings_of("-0") == ["-0", 0, 0.0, -0.0]
    assert readings_of("true") == ["true", True]
    assert readings_of("f") == ["f", "false", False]
    assert readings_of("NaN") == ["NaN"]
    assert readings_of("9223372036854775808") == ["9223372036854775808", 9223372036854775808.0]


def test_an_id_that_can_be_none_is_not_sent() -> None:
    element_id = column("text", derive="element_id")
    known = "4:aaaaaaaa-0000-4000-8000-000000000001:7"
    assert said(element_id, "=", known) == f"x IN ['{known}']"
    assert said(element_id, ("=", True), ["what", known]) == f"x IN ['{known}']"
    assert said(element_id, "<>", known) is None
    assert said(column("jsonb", derive="ontology_scores"), "=", "{}") is None


def test_floats_that_the_session_prints_in_part_are_not_pushed() -> None:
    found = pushed([Qual("c", "=", "0.1")], {"c": column("float8")}, lambda c: "x", floats_exact=False)
    assert found.conditions == ("x IS NOT NULL",)


def test_what_is_left_to_postgresql_is_named_without_values() -> None:
    columns = {"c": column("text", key=True), "d": Column("d", "d", "jsonb", derive="ontology_scores")}
    quals = [
        Qual("c", "=", "secret"),
        Qual("c", "~~*", "secret"),
        Qual("d", "=", "secret"),
        Qual("c", ("=", True), "?"),
        Qual("d", "<>", None),
    ]
    found = pushed(quals, columns, lambda c: None if c.derive else "x", floats_exact=True)
    assert found.superset == ("c ~~*",)
    assert found.left == ("d =", "c = ANY", "d IS NOT NULL")


# -- against Neo4j and PostgreSQL --------------------------------------------------------------------------------------


def as_multicorn(oracle: Connection, literal: str) -> Any:
    """A constant as Multicorn passes it. Raises psycopg's DataError for those that Python cannot hold."""
    found = oracle.execute(f"SELECT {literal}, ({literal})::text, pg_typeof({literal})::text".encode()).fetchone()
    assert found is not None
    value, text, type_name = found
    if isinstance(value, datetime) and type_name == "timestamp without time zone":
        return value.replace(microsecond=0)
    if isinstance(value, bool):
        return text[0]
    return value if type_name in ("integer", "date") else text


class Far:
    """A table of the wrapper's class and its copy in PostgreSQL, whose rows have the same ids."""

    def __init__(self, module: Any, servers: Instance, oracle: Connection, graph: Graph, random: Random) -> None:
        names = [f"p{number}" for number in range(6)]
        label = "Far `" + str(random.random())
        hostile.fill(graph, random, label, names, 60)
        self.columns = [Col(f"c{number}", random.choice(TYPES)) for number in range(6)]
        definitions = [
            ColumnDefinition(c.name, c.family, self._modifier(c), {"property": name})
            for c, name in zip(self.columns, names, strict=True)
        ]
        definitions.append(ColumnDefinition("element_id", "text", options={"derive": "element_id"}))
        self.table = module.Neo4jForeignDataWrapper(
            multicorn_stub.options(servers, label=label), multicorn_stub.columns(*definitions)
        )
        self.all = self.rows([])
        assert len(self.all) == 60
        self.oracle = oracle
        self.near = "near_" + hex(random.getrandbits(32))  # psycopg prepares by the text
        oracle.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ({}, element_id text)").format(
                sql.Identifier(self.near), sql.SQL(", ").join(sql.SQL(f"{c.name} {c.type}") for c in self.columns)
            )
        )
        with oracle.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {self.near} VALUES ({', '.join(['%s'] * 7)})".encode(), self.all)
        shown = {
            c.name: [
                row[0]
                for row in oracle.execute(
                    f"SELECT DISTINCT {c.name}::text AS shown FROM {self.near}"
                    f" WHERE length({c.name}::text) < 100 ORDER BY shown".encode()
                )
            ]
            for c in self.columns
        }
        self.statements = Statements(random, self.columns, shown)

    @staticmethod
    def _modifier(column: Col) -> int:
        return int(column.type.split("(")[1][:-1]) + 4 if "(" in column.type else -1

    def rows(self, quals: list[Qual], **more: Any) -> list[Row]:
        return list(self.table.execute(quals, {*(c.name for c in self.columns), "element_id"}, **more))

    def kept(self, where: str) -> set[str]:
        """The ids of the rows that PostgreSQL keeps."""
        return {
            row[0] for row in self.oracle.execute(f"SELECT element_id FROM {self.near} AS t WHERE {where}".encode())
        }


@pytest.fixture(scope="module")
def pool(all_graph: Graph) -> Graph:
    all_graph.clear()
    hostile.fill_pool(all_graph)
    return all_graph


@pytest.mark.parametrize("seed", range(12))
def test_no_qual_loses_a_row(module: Any, servers: Instance, oracle: Connection, pool: Graph, seed: int) -> None:
    random = Random(seed)
    far = Far(module, servers, oracle, pool, random)
    for _ in range(60):
        column = random.choice(far.columns)
        name = f"t.{column.quoted}"
        form = random.random()
        if form < 0.15:
            is_null = random.random() < 0.5
            where, qual = (
                f"{name} IS {'' if is_null else 'NOT '}NULL",
                Qual(column.name, "=" if is_null else "<>", None),
            )
        elif column.family == "jsonb":
            where, qual = f"{name} <> '5'::jsonb", Qual(column.name, "<>", "5")
        elif form < 0.35 and column.family in ("text", "varchar"):
            pattern = random.choice(PATTERNS)
            operator = random.choice(("~~", "!~~", "~~*", "^@"))
            where, qual = f"{name} {operator} {text_literal(pattern)}", Qual(column.name, operator, pattern)
        else:
            literal = far.statements.literal(column)
            try:
                value = as_multicorn(oracle, literal)
                if form < 0.6:
                    any_of, operator = random.choice(((True, "="), (False, "<>")))
                    where = f"{name} {operator} {'ANY' if any_of else 'ALL'} (ARRAY[{literal}, NULL])"
                    qual = Qual(column.name, (operator, any_of), [value, None])
                else:
                    operator = random.choice(COMPARISONS)
                    where, qual = f"{name} {operator} {literal}", Qual(column.name, operator, value)
            except psycopg.DataError:
                continue
        found = far.rows([qual])
        assert {row[-1] for row in found} >= far.kept(where), f"{column}: {where}"
        assert all(row in far.all for row in found) or any(isinstance(v, float) and v != v for r in found for v in r)


@pytest.mark.parametrize("seed", range(6))
def test_an_order_is_postgresqls(module: Any, servers: Instance, oracle: Connection, pool: Graph, seed: int) -> None:
    random = Random(1000 + seed)
    far = Far(module, servers, oracle, pool, random)
    for column in far.columns:
        for is_reversed, nulls_first in ((False, False), (False, True), (True, False), (True, True)):
            key = SortKey(column.name, is_reversed, nulls_first)
            able = far.table.can_sort([key, SortKey("element_id")])
            assert able == ([key] if column.family in ABLE else []), column
            if not able:
                continue
            at = far.columns.index(column)
            direction = f"{'DESC' if is_reversed else 'ASC'} NULLS {'FIRST' if nulls_first else 'LAST'}"
            wanted = [
                row[0]
                for row in oracle.execute(
                    f"SELECT {column.name} FROM {far.near} ORDER BY {column.name} {direction}".encode()
                )
            ]
            assert [row[at] for row in far.rows([], sortkeys=able)] == wanted


ABLE = {"bigint", "integer", "smallint", "double precision", "boolean"}


# -- what is asked -----------------------------------------------------------------------------------------------------


def table(module: Any, servers: Instance, *columns: ColumnDefinition, **options: str) -> Any:
    return module.Neo4jForeignDataWrapper(multicorn_stub.options(servers, **options), multicorn_stub.columns(*columns))


def test_explain_shows_the_cypher_and_what_is_not_pushed_and_no_value(module: Any, servers: Instance) -> None:
    far = table(
        module, servers, ColumnDefinition("id", "text"), ColumnDefinition("size", "bigint"), label="A`b", key="id"
    )
    quals = [Qual("id", "=", "secret"), Qual("size", "<", "7"), Qual("size", ("<", True), "?")]
    lines = list(far.explain(quals, {"size"}, sortkeys=[SortKey("size", True, True)], verbose=True))
    assert lines[:2] == ["MATCH (n:`A``b`)", "WHERE n.`id` IN $p0 AND n.`size` < $p1"]
    assert lines[2].startswith("WITH n ORDER BY CASE WHEN n.`size` IS :: INTEGER NOT NULL")
    assert lines[2].endswith("END DESC")
    assert lines[3:] == [
        "WITH n AS sorted UNWIND [sorted] AS n",
        "RETURN elementId(n) AS c0, n.`size` AS c1",
        "Pushed as a superset: size <",
        "Not pushed: size < ANY",
        "Parameters: p0, p1",
    ]


@pytest.mark.parametrize("name", ["`", "a`b", "\\u0060", "x`) DETACH DELETE n //", "'", "$p0", "n", "c0", "{0}"])
def test_hostile_names_and_values_stay_names_and_values(
    module: Any, servers: Instance, graph: Graph, name: str
) -> None:
    graph.run("CREATE (n) SET n[$name] = $name, n.k = 1 SET n:$($name)", name=name)
    far = table(module, servers, ColumnDefinition(name, "text"), ColumnDefinition("k", "bigint"), label=name)
    assert list(far.execute([Qual(name, "=", name)], {name, "k"}, sortkeys=[SortKey("k")])) == [[name, 1]]
    assert list(far.execute([Qual(name, "~~", name + "%")], {name})) == [[name, None]]
    assert list(far.execute([Qual(name, "=", name + "'")], {name})) == []
    assert name not in "".join(far.explain([Qual("k", "=", name)], {"k"})).replace(quoted(name), "") or len(name) < 3


def quoted(name: str) -> str:
    return cypher.lines(Source(label=name))[0]


def test_a_text_with_a_nul_character_is_no_key(module: Any, servers: Instance, graph: Graph) -> None:
    graph.run("CREATE (:N {id: 'a' + $nul, text: 'a' + $nul}), (:N {id: 'a', text: 'a'})", nul="\0")
    far = table(module, servers, ColumnDefinition("id", "text"), ColumnDefinition("text", "text"), label="N", key="id")
    rows = {"id", "text"}
    assert sorted(far.execute([], rows), key=str) == [["a", "a"], [None, "a"]]
    assert list(far.execute([Qual("id", "=", "a")], rows)) == [["a", "a"]]
    assert list(far.execute([Qual("id", "=", None)], rows)) == [[None, "a"]]
    assert len(list(far.execute([Qual("text", "=", "a")], rows))) == 2


def test_the_planner_gets_neo4js_own_count(module: Any, servers: Instance, graph: Graph) -> None:
    graph.run("UNWIND range(1, 300) AS i CREATE (:Counted {id: toString(i)})")
    far = table(
        module,
        servers,
        ColumnDefinition("id", "text"),
        ColumnDefinition("v", "vector", 1536),
        label="Counted",
        key="id",
    )
    assert far.get_rel_size([], {"id"}) == (300, 32)
    assert far.get_rel_size([Qual("id", "=", "7")], {"id", "v"}) == (1, 6180)
    assert far.get_rel_size([Qual("id", ("=", True), ["7", "8"])], {"id"})[0] == 2
    graph.run("MATCH (n:Counted) DELETE n")
    assert far.get_rel_size([], {"id"})[0] == 300, "the count is kept for some minutes"


def test_a_neo4j_that_cannot_be_counted_is_guessed_at(module: Any, servers: Instance) -> None:
    options = multicorn_stub.options(servers, label="x") | {"uri": "bolt://127.0.0.1:1"}
    far = module.Neo4jForeignDataWrapper(options, multicorn_stub.columns(ColumnDefinition("id", "text")))
    assert far.get_rel_size([], {"id"}) == (1000, 32)


# -- a table defined by Cypher -----------------------------------------------------------------------------------------


def test_a_query_is_wrapped_so_that_quals_and_order_reach_it(module: Any, servers: Instance, graph: Graph) -> None:
    graph.run("UNWIND range(1, 20) AS i CREATE (:N {i: i, name: 'name ' + i})")
    query = "MATCH (m:N) RETURN m.i AS number, m.name AS `the name`, count(*) AS n; // a comment"
    far = table(
        module,
        servers,
        ColumnDefinition("number", "bigint"),
        ColumnDefinition("name", "text", options={"property": "the name"}),
        ColumnDefinition("n", "bigint"),
        cypher=query.replace("; //", " //"),
    )
    everything = {"number", "name", "n"}
    assert len(list(far.execute([], everything))) == 20
    assert list(far.execute([Qual("number", "=", "7")], everything)) == [[7, "name 7", 1]]
    ordered = far.execute([Qual("name", "~~", "name 1%")], {"number"}, sortkeys=[SortKey("number", True, True)])
    assert [row[0] for row in ordered] == [19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 1]
    lines = list(far.explain([Qual("number", "<", "3")], {"number"}))
    assert lines[0] == "CALL {"
    assert lines[2:] == ["}", "WITH * WHERE `number` < $p0", "RETURN null AS c0, `number` AS c1", lines[-1]]


@pytest.mark.parametrize("derive", ["labels", "ontology_scores"])
def test_a_querys_rows_are_no_nodes(module: Any, servers: Instance, derive: str) -> None:
    made = ColumnDefinition("made", "text[]" if derive == "labels" else "jsonb", options={"derive": derive})
    far = table(module, servers, made, cypher="RETURN 1 AS x")
    with pytest.raises(
        multicorn_stub.Rejected,
        match="cannot derive labels or ontology_scores in a foreign table that is defined by a query",
    ):
        list(far.execute([], {"made"}))


def test_a_query_that_writes_is_rejected_by_the_access_mode(module: Any, servers: Instance, graph: Graph) -> None:
    far = table(module, servers, ColumnDefinition("x", "bigint"), cypher="CREATE (n:Written {x: 1}) RETURN n.x AS x")
    with pytest.raises(multicorn_stub.Rejected, match=r"reported an error .*AccessMode"):
        list(far.execute([], {"x"}))
    assert graph.run("MATCH (n:Written) RETURN count(n) AS n") == [{"n": 0}]


@pytest.mark.parametrize("options", [{}, {"label": "x", "cypher": "RETURN 1 AS x"}])
def test_a_table_has_a_label_or_a_query(module: Any, servers: Instance, options: dict[str, str]) -> None:
    with pytest.raises(multicorn_stub.Rejected, match=r'no option "label"|has both options "label" and "cypher"'):
        table(module, servers, **options)
