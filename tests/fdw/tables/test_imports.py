"""In: what was found in a graph, made up here. Out: the tables of an import, their statements, and what is said.

What a real graph gives is in tests/sql/test_import.py; here is what none of version 5 holds, and each odd name.
"""

import psycopg
import pytest
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph.reader import unless_forbidden
from neo4j_deals.tables.imports import Label, Table, Wish, table_names, tables
from support.database import Connection


def column_types(properties: dict[str, list[str]], **facts: dict[str, int]) -> tuple[dict[str, str], list[str]]:
    """By property its column's type, and the warnings, for a label whose properties hold these kinds of values."""
    label = Label("T", 1, {name: dict.fromkeys(kinds, 1) for name, kinds in properties.items()}, **facts)
    result = tables(Wish(), [("T", "T")], [label], "v.vector")
    (table,) = result.tables
    return {name: type_ for name, type_, options in table.columns if "derive" not in options}, result.warnings


def test_a_vector_of_newer_versions_becomes_a_vector_of_its_width() -> None:
    types, warnings = column_types(
        {
            "one": ["VECTOR<FLOAT32>(3)"],
            "two": ["VECTOR<FLOAT32>(3)", "VECTOR<FLOAT64>(4)"],
            "mixed": ["VECTOR<INTEGER8>(3)", "STRING"],
            "long": ["VECTOR<FLOAT32>(16001)"],
        }
    )
    assert types == {"one": "v.vector(3)", "two": "v.vector", "mixed": "jsonb"}
    assert len(warnings) == 1
    assert 'property "long" of label "T" is left out' in warnings[0]


def test_a_type_that_is_unknown_here_is_left_out_with_a_warning() -> None:
    types, warnings = column_types({"odd": ["QUATERNION"], "odd_list": ["LIST<QUATERNION>"], "fine": ["STRING"]})
    assert types == {"fine": "text"}
    assert warnings == [
        'property "odd" of label "T" is left out: there is no type for QUATERNION (1)',
        'property "odd_list" of label "T" is left out: there is no type for LIST<QUATERNION> (1)',
    ]


def test_the_width_of_a_vector_index_counts_only_where_nothing_but_floats_is_held() -> None:
    types, _ = column_types(
        {"a": ["LIST<FLOAT>"], "b": ["LIST<FLOAT>", "LIST<NOTHING>"], "c": ["LIST<STRING>"], "d": ["STRING"]},
        dimensions=dict.fromkeys("abcd", 8),
    )
    assert types == {"a": "v.vector(8)", "b": "v.vector(8)", "c": "text[]", "d": "text"}


def test_names_that_are_the_same_when_they_are_cut_get_a_number_within_the_63_bytes() -> None:
    long = "ä" * 31  # 62 bytes
    names = table_names([long, long + "ä", long + "b", long + "bc", "short"], "")
    assert [table for _, table in names] == [long, "ä" * 30 + "_2", long + "b", "ä" * 30 + "_3", "short"]
    assert all(len(table.encode()) <= 63 for _, table in names)
    assert [table for _, table in table_names(["a", "b"], "p_")] == ["p_a", "p_b"]


def test_a_statement_quotes_every_name_and_value_whatever_the_settings(oracle: Connection) -> None:
    name = "a\"b'c\\d; -- \n$$"
    statement = Table(name, name, [(name, "text", {"property": name}), ("plain", "bigint", {})]).to_statement(
        name, 'se"rver'
    )
    for standard in ("on", "off"):
        oracle.execute(f"SET standard_conforming_strings = {standard}")
        with pytest.raises(psycopg.errors.InvalidSchemaName):  # so far it gets, read as one statement
            oracle.execute(statement.encode())
    oracle.execute("RESET standard_conforming_strings")
    assert statement.startswith('CREATE FOREIGN TABLE "a""b\'c\\d; -- \n$$".')
    assert "OPTIONS (property E'a\"b''c\\\\d; -- \n$$')" in statement


def test_limits_are_names_as_postgresql_cuts_them() -> None:
    wish = Wish.read({}, ["x" * 70], None)
    assert wish.includes("x" * 63)
    assert not wish.includes("y")
    assert Wish.read({}, None, ["y"]).includes("x")


def test_a_login_that_may_not_see_indexes_imports_without_them() -> None:
    def rejected(code: str) -> None:
        raise DealSyncError("HV000", f'Neo4j server "neo4j" reported an error ({code})')

    assert unless_forbidden(lambda: rejected("Neo.ClientError.Security.Forbidden")) is None
    assert unless_forbidden(lambda: {"T": {"p": 3}}) == {"T": {"p": 3}}
    with pytest.raises(DealSyncError):
        unless_forbidden(lambda: rejected("Neo.ClientError.Statement.SyntaxError"))


@pytest.mark.parametrize("sample", ["-1", "1.5", "", "many", "1" * 19, "\N{ARABIC-INDIC DIGIT ONE}"])
def test_a_sample_is_a_number_of_nodes(sample: str) -> None:
    with pytest.raises(DealSyncError) as raised:
        Wish.read({"sample": sample}, None, None)
    assert raised.value.sqlstate == "HV024"
