"""In: a node of every Neo4j type. Out: what a column of every PostgreSQL type shows of it: reference/types.md.

One table has a column of each type, all over one property; so a scan gives the whole matrix. Misfits are NULL and
counted in the scan's one WARNING.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any

import psycopg
import pytest
from psycopg import sql
from support.database import Connection
from support.documents import PAGES
from support.graph import Graph

#: By Neo4j's name: a value in Cypher, and by PostgreSQL type the text that it shows; any other type shows NULL.
MATRIX: dict[str, tuple[str, dict[str, str]]] = {
    "BOOLEAN": ("true", {"boolean": "true", "text": "true", "jsonb": "true"}),
    "INTEGER": (
        "7",
        dict.fromkeys(("bigint", "integer", "smallint", "double precision", "real", "numeric", "text", "jsonb"), "7"),
    ),
    "FLOAT": ("0.145", dict.fromkeys(("double precision", "real", "numeric", "text", "jsonb"), "0.145")),
    "STRING": ("'x'", {"text": "x", "jsonb": '"x"'}),
    "DATE": (
        "date('2026-02-03')",
        {
            "date": "2026-02-03",
            "timestamp": "2026-02-03 00:00:00",
            "timestamptz": "2026-02-03 00:00:00+00",
            "text": "2026-02-03",
            "jsonb": '"2026-02-03"',
        },
    ),
    "LOCAL TIME": (
        "localtime('12:34:56.123456789')",
        {
            "time": "12:34:56.123456",
            "timetz": "12:34:56.123456+00",
            "text": "12:34:56.123456789",
            "jsonb": '"12:34:56.123456789"',
        },
    ),
    "ZONED TIME": (
        "time('12:34:56-03:30')",
        {"timetz": "12:34:56-03:30", "text": "12:34:56.000000000-03:30", "jsonb": '"12:34:56.000000000-03:30"'},
    ),
    "LOCAL DATETIME": (
        "localdatetime('2026-02-03T04:05:06.123456789')",
        {
            "timestamp": "2026-02-03 04:05:06.123456",
            "timestamptz": "2026-02-03 04:05:06.123456+00",
            "date": "2026-02-03",
            "text": "2026-02-03T04:05:06.123456789",
            "jsonb": '"2026-02-03T04:05:06.123456789"',
        },
    ),
    "ZONED DATETIME": (
        "datetime('2026-02-03T00:30:00+02:00')",
        {
            "timestamptz": "2026-02-02 22:30:00+00",
            "timestamp": "2026-02-02 22:30:00",
            "date": "2026-02-03",
            "text": "2026-02-03T00:30:00.000000000+02:00",
            "jsonb": '"2026-02-03T00:30:00.000000000+02:00"',
        },
    ),
    "DURATION": (
        "duration('P14M3DT-4.5S')",
        {"interval": "1 year 2 mons 3 days -00:00:04.5", "jsonb": '"P1Y2M3DT-4.5S"'},
    ),
    "POINT": (
        "point({longitude: 8.5, latitude: 47.25})",
        {"point": "(8.5,47.25)", "jsonb": '{"x": 8.5, "y": 47.25, "srid": 4326}'},
    ),
    "POINT, 3D": ("point({x: 1, y: 2, z: 3})", {"jsonb": '{"x": 1.0, "y": 2.0, "z": 3.0, "srid": 9157}'}),
    "LIST<STRING>": (
        """['a "b"', '{c\\\\,}', '']""",
        {"text[]": '{"a \\"b\\"","{c\\\\,}",""}', "jsonb": '["a \\"b\\"", "{c\\\\,}", ""]'},
    ),
    "LIST<INTEGER>": (
        "[1, 2, 3]",
        {
            **dict.fromkeys(("bigint[]", "integer[]", "double precision[]", "real[]", "numeric[]"), "{1,2,3}"),
            "vector": "[1,2,3]",
            "jsonb": "[1, 2, 3]",
        },
    ),
    "LIST<FLOAT>": (
        "[0.5, 1.5]",
        {
            **dict.fromkeys(("double precision[]", "real[]", "numeric[]"), "{0.5,1.5}"),
            "vector": "[0.5,1.5]",
            "jsonb": "[0.5, 1.5]",
        },
    ),
    "LIST<BOOLEAN>": ("[true, false]", {"boolean[]": "{t,f}", "jsonb": "[true, false]"}),
    "LIST<DATE>": (
        "[date('2026-02-03')]",
        {"date[]": "{2026-02-03}", "timestamptz[]": '{"2026-02-03 00:00:00+00"}', "jsonb": '["2026-02-03"]'},
    ),
    "LIST<ZONED DATETIME>": (
        "[datetime('2026-02-03T00:30:00+02:00')]",
        {
            "timestamptz[]": '{"2026-02-02 22:30:00+00"}',
            "date[]": "{2026-02-03}",
            "jsonb": '["2026-02-03T00:30:00.000000000+02:00"]',
        },
    ),
    "LIST<DURATION>": ("[duration('P1D')]", {"interval[]": '{"1 day"}', "jsonb": '["P1D"]'}),
    "LIST<POINT>": (
        "[point({x: 1, y: 2})]",
        {"point[]": '{"(1,2)"}', "jsonb": '[{"x": 1.0, "y": 2.0, "srid": 7203}]'},
    ),
    "byte array": (
        "$bytes",
        {
            "bytea": "\\x00ff",
            **dict.fromkeys(("bigint[]", "integer[]", "double precision[]", "real[]", "numeric[]"), "{0,-1}"),
            "jsonb": "[0, -1]",
        },
    ),
}
#: The type that an import chooses: the first of each.
IMPORTED = {kind: next(iter(texts)) for kind, (_, texts) in MATRIX.items()}
SERVED_BY_SCAN_ONLY = ("uuid", "numeric", "numeric[]")
TYPES = [*dict.fromkeys(type_ for _, shown in MATRIX.values() for type_ in shown), "uuid"]


@dataclass(frozen=True)
class Said:
    """A WARNING as the client gets it."""

    message: str
    detail: str
    hint: str


@contextmanager
def warnings(connection: Connection) -> Iterator[list[Said]]:
    """The WARNINGs of the block."""
    said: list[Said] = []

    def listen(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            message, detail, hint = diagnostic.message_primary, diagnostic.message_detail, diagnostic.message_hint
            said.append(Said(message or "", detail or "", hint or ""))

    connection.add_notice_handler(listen)
    try:
        yield said
    finally:
        connection.remove_notice_handler(listen)


def table(pg: Connection, types: list[str]) -> None:
    """The foreign table "everything": `kind`, and a column of each type that bears the type's name."""
    columns = ", ".join(f"\"{type_}\" {type_} OPTIONS (property 'v')" for type_ in types)
    created = f"CREATE FOREIGN TABLE everything (kind text, {columns}) SERVER neo4j OPTIONS (label 'Thing')"
    pg.execute(f"SET timezone = 'UTC'; {created}".encode())


def read(pg: Connection, source: str, types: list[str]) -> dict[str, dict[str, str]]:
    """By kind and type, what is shown as a text; without what is NULL."""
    listed = ", ".join(f'"{type_}"::text' for type_ in types)
    return {
        kind: {type_: text for type_, text in zip(types, texts, strict=True) if text is not None}
        for kind, *texts in pg.execute(f"SELECT kind, {listed} FROM {source}".encode())
    }


def fill(graph: Graph) -> None:
    for kind, (value, _) in MATRIX.items():
        graph.run(f"CREATE (:Thing {{kind: $kind, v: {value}}})", kind=kind, bytes=b"\x00\xff")


SOURCES = [
    pytest.param("deal_sync.scan(NULL::everything)", TYPES, id="scan"),
    pytest.param(
        "everything",
        [type_ for type_ in TYPES if type_ not in SERVED_BY_SCAN_ONLY],
        id="foreign table",
        marks=pytest.mark.multicorn,
    ),
]


@pytest.mark.parametrize(("source", "types"), SOURCES)
def test_every_cell_of_the_type_table_is_as_it_says(
    pg: Connection, graph: Graph, source: str, types: list[str]
) -> None:
    fill(graph)
    table(pg, types)

    with warnings(pg) as said:
        shown = read(pg, source, types)

    due = {
        kind: {type_: text for type_, text in texts.items() if type_ in types} for kind, (_, texts) in MATRIX.items()
    }
    assert shown == due
    lost = {type_: sum(type_ not in texts for texts in due.values()) for type_ in types}
    whose = "nodes :Thing" if source == "everything" else "foreign table public.everything"
    counts = ", ".join(f'"{type_}" {lost[type_]}' for type_ in types if lost[type_])
    assert [warning.message for warning in said] == [f"{sum(lost.values())} misfits in {whose}: {counts}"]


def test_an_import_chooses_the_first_type_of_each_row(pg: Connection, graph: Graph) -> None:
    for kind, (value, _) in MATRIX.items():
        graph.run(f"CREATE (:`{kind}` {{v: {value}}})", bytes=b"\x00\xff")

    pg.execute("CREATE SCHEMA imported; SELECT deal_sync.import_schema('neo4j', 'imported')")

    found = pg.execute(
        "SELECT c.relname, a.atttypid FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = 'imported'::regnamespace AND a.attname = 'v'"
    ).fetchall()
    assert dict(found) == {
        kind: pg.execute("SELECT %s::regtype::oid", [type_]).fetchall()[0][0] for kind, type_ in IMPORTED.items()
    }


def test_the_documentation_has_this_table() -> None:
    listed = {
        kind: (imported, re.findall(r"`([^`]+)`", also.partition(";")[0] if kind == "FLOAT" else also))
        for kind, imported, also in re.findall(
            r"^\| ([^|]+) \| `([^|]+)` \| ([^|]*)\|$", unescape(PAGES["reference/types.md"]), re.M
        )
    }

    listed["STRING"] = ("text", ["jsonb"])  # what its content decides is the text's, and tested with the values
    assert {kind: {imported, *also} for kind, (imported, also) in listed.items()} == {
        kind: set(texts) for kind, (_, texts) in MATRIX.items()
    }
    assert {kind: imported for kind, (imported, _) in listed.items()} == IMPORTED


HOSTILE: list[Any] = [
    "",
    " ",
    "NULL",
    "null",
    "a\0b",
    "quotes ' \" ` and \\ and { } ( ) , and %_",
    "\N{GRINNING FACE} e\N{COMBINING ACUTE ACCENT}",
    "x" * 1_000_000,
    "2026-02-03",
    "2026-02-30",
    "12:30+02",
    "25:00",
    "aaaaaaaa-0000-4000-8000-000000000001",
    2**63 - 1,
    -(2**63),
    2**53 + 1,
    0,
    -0.0,
    1e300,
    5e-324,
    float("nan"),
    float("inf"),
    -float("inf"),
    True,
    False,
    [],
    ["", "NULL", "null", 'a"b', "a\\b", "{}", "a,b", "\N{GRINNING FACE}"],
    ["a\0b"],
    [2**63 - 1, -1],
    [float("nan"), 1.0],
    [-0.0, 1e300],
    [True],
    b"",
    b"\x00\\'\xff",
]
HOSTILE_CYPHER = [
    "date('0001-01-01')",
    "date('9999-12-31')",
    "date({year: -44, month: 3, day: 15})",
    "datetime('9999-12-31T23:59:59.999999999-18:00')",
    "datetime('0001-01-01T00:00:00+18:00')",
    "datetime('2026-03-29T02:30:00[Europe/Berlin]')",
    "time('00:00:00+18:00')",
    "time('23:59:59.999999999-15:59')",
    "duration({months: 2147483648})",
    "duration({seconds: 9223372036854})",
    "duration({seconds: -1, nanoseconds: 1})",
    "[point({x: 1e300, y: -0.0})]",
    "point({longitude: 1, latitude: 2, height: 3})",
]


@pytest.mark.multicorn
def test_scan_gives_what_the_foreign_table_gives_of_hostile_values(pg: Connection, graph: Graph) -> None:
    types = [type_ for type_ in TYPES if type_ not in SERVED_BY_SCAN_ONLY]
    for kind, value in enumerate(HOSTILE):
        graph.run("CREATE (:Thing {kind: $kind, v: $value})", kind=str(kind), value=value)
    for expression in HOSTILE_CYPHER:
        graph.run(f"CREATE (:Thing {{kind: $kind, v: {expression}}})", kind=expression)
    table(pg, types)

    with warnings(pg) as said:
        rows = [read(pg, source, types) for source in ("everything", "deal_sync.scan(NULL::everything)")]

    assert rows[0] == rows[1]
    assert len(rows[0]) == len(HOSTILE) + len(HOSTILE_CYPHER)
    one, other = (warning.message for warning in said)
    lost = one.partition(" misfits in nodes :Thing: ")[2]
    assert lost == other.partition(" misfits in foreign table public.everything: ")[2] != ""


def test_a_type_into_which_nothing_is_converted_is_a_clear_error(pg: Connection) -> None:
    pg.execute("CREATE FOREIGN TABLE odd (name inet) SERVER neo4j OPTIONS (label 'Thing')")

    with pytest.raises(psycopg.Error, match='column "name" is of type inet') as raised:
        pg.execute("SELECT * FROM deal_sync.scan(NULL::odd)")

    assert raised.value.sqlstate == "HV004"
    assert "text" in str(raised.value.diag.message_hint)


# -- what a SELECT does with a misfit ----------------------------------------------------------------------------------


BOTH = [
    pytest.param("deal_sync.scan(NULL::misfits)", id="scan"),
    pytest.param("misfits", id="foreign table", marks=pytest.mark.multicorn),
]


@pytest.fixture
def misfits(pg: Connection, graph: Graph) -> list[str]:
    """Three nodes, two of which have a text in `n`, which must be a number; the element ids of these two."""
    graph.run("CREATE (:Thing {name: 'fine', n: 1}), (:Thing {name: 'bad', n: 'secret'})")
    graph.run("CREATE (:Thing {name: 'bad', n: 'secret', t: 'a' + $nul + 'b'})", nul="\0")
    pg.execute(
        "CREATE FOREIGN TABLE misfits (name text, n bigint, t text, other bigint OPTIONS (property 'n'))"
        " SERVER neo4j OPTIONS (label 'Thing')"
    )
    return [row["id"] for row in graph.run("MATCH (t:Thing {name: 'bad'}) RETURN elementId(t) AS id")]


@pytest.mark.parametrize("source", BOTH)
def test_a_value_that_does_not_fit_is_null_and_one_warning_names_column_and_count(
    pg: Connection, misfits: list[str], source: str
) -> None:
    with warnings(pg) as said:
        rows = pg.execute(f"SELECT name, n, t FROM {source}".encode()).fetchall()

    assert sorted(rows, key=str) == [("bad", None, "ab"), ("bad", None, None), ("fine", 1, None)]
    (warning,) = said
    assert warning.message == (
        '3 misfits in nodes :Thing: "n" 2, "t" 1'
        if source == "misfits"
        else '5 misfits in foreign table public.misfits: "n" 2, "t" 1, "other" 2'
    )
    assert "n: expected a number, found a STRING" in warning.detail
    assert "secret" not in str(warning)


@pytest.mark.parametrize("source", BOTH)
def test_on_misfit_error_names_the_node_and_the_column(pg: Connection, misfits: list[str], source: str) -> None:
    pg.execute("ALTER FOREIGN TABLE misfits ALTER n OPTIONS (ADD on_misfit 'error')")

    with pytest.raises(psycopg.Error) as raised:
        pg.execute(f"SELECT n FROM {source}".encode())

    said = str(raised.value)
    assert any(f'misfit in column "n" of node "{node}"' in said for node in misfits)
    assert "expected a number, found a STRING" in said
    assert "on_misfit 'null'" in str(raised.value.diag.message_hint)
    assert "secret" not in said
    if source != "misfits":
        assert raised.value.sqlstate == "2200G"


def test_a_column_that_is_not_asked_for_is_not_read_and_so_not_warned_of(pg: Connection, misfits: list[str]) -> None:
    pg.execute("ALTER FOREIGN TABLE misfits ALTER n OPTIONS (ADD on_misfit 'error')")
    with warnings(pg) as said:
        rows = pg.execute("SELECT name, n FROM deal_sync.scan(NULL::misfits, columns => '{name}')").fetchall()

    assert sorted(rows) == [("bad", None), ("bad", None), ("fine", None)]
    assert said == []


@pytest.mark.multicorn
def test_a_scan_that_a_limit_ends_warns_of_the_rows_that_it_gave(
    pg: Connection, graph: Graph, misfits: list[str]
) -> None:
    graph.run("UNWIND range(1, 2000) AS i CREATE (:Thing {n: 'bad'})")
    with warnings(pg) as said:
        rows = pg.execute("SELECT n FROM misfits WHERE n IS NULL LIMIT 3").fetchall()

    assert rows == [(None,)] * 3
    assert [warning.message for warning in said] == ['3 misfits in nodes :Thing: "n" 3']


@pytest.mark.multicorn
def test_a_scan_that_fails_says_nothing_of_its_losses(pg: Connection, misfits: list[str]) -> None:
    with warnings(pg) as said, pytest.raises(psycopg.errors.DivisionByZero):
        pg.execute("SELECT 1 / (n - 1), pg_sleep(0) FROM misfits")

    assert said == []
    assert len(pg.execute("SELECT name FROM misfits").fetchall()) == 3


# -- scan() ------------------------------------------------------------------------------------------------------------


def test_labels_and_element_id_are_columns(pg: Connection, graph: Graph) -> None:
    graph.run("CREATE (:Thing:Other {name: 'x'})")
    pg.execute(
        "CREATE FOREIGN TABLE derived (e text OPTIONS (derive 'element_id'), l text[] OPTIONS (derive 'labels'),"
        " j jsonb OPTIONS (derive 'labels')) SERVER neo4j OPTIONS (label 'Thing')"
    )

    element_id = graph.run("MATCH (t:Thing) RETURN elementId(t) AS id")[0]["id"]
    assert pg.execute("SELECT * FROM deal_sync.scan(NULL::derived)").fetchall() == [
        (element_id, ["Other", "Thing"], ["Other", "Thing"])
    ]


def test_row_limit_stops_the_reader_and_is_not_negative(pg: Connection, misfits: list[str]) -> None:
    assert len(pg.execute("SELECT * FROM deal_sync.scan(NULL::misfits, row_limit => 1)").fetchall()) == 1
    assert pg.execute("SELECT * FROM deal_sync.scan(NULL::misfits, row_limit => 0)").fetchall() == []
    with pytest.raises(psycopg.Error, match="row_limit must not be negative") as raised:
        pg.execute("SELECT * FROM deal_sync.scan(NULL::misfits, row_limit => -1)")
    assert raised.value.sqlstate == "2201W"


def test_a_table_outside_the_mapping_is_filtered_by_its_column_tenant_id(pg: Connection, graph: Graph) -> None:
    tenant = "aaaaaaaa-0000-4000-8000-000000000001"
    graph.run(
        "CREATE (:Thing {tenant_id: $t, n: 1}), (:Thing {tenant_id: toUpper($t), n: 2}), (:Thing {n: 3})", t=tenant
    )
    pg.execute("CREATE FOREIGN TABLE mine (tenant_id text, n bigint) SERVER neo4j OPTIONS (label 'Thing')")
    pg.execute("CREATE FOREIGN TABLE anyones (n bigint) SERVER neo4j OPTIONS (label 'Thing')")

    found = pg.execute("SELECT n FROM deal_sync.scan(NULL::mine, tenant => %s) ORDER BY n", [tenant]).fetchall()
    assert found == [(1,), (2,)]
    with pytest.raises(psycopg.errors.UndefinedColumn, match="no column for the tenant"):
        pg.execute("SELECT n FROM deal_sync.scan(NULL::anyones, tenant => %s)", [tenant])


def test_the_sync_rejects_a_row_whose_column_wants_an_error(pg: Connection, graph: Graph) -> None:
    statement = sql.SQL("SELECT deal_sync.merge_statement({})").format("neo4j.deals")
    reject, error = (
        pg.execute(
            sql.SQL("ALTER FOREIGN TABLE neo4j.deals ALTER confidence OPTIONS ({} on_misfit {})").format(
                sql.SQL(verb), action
            )
        )
        and pg.execute(statement).fetchone()
        for verb, action in (("ADD", "reject"), ("SET", "error"))
    )
    assert error == reject


def test_a_column_of_scan_that_is_not_there_is_named_beside_those_that_are(pg: Connection) -> None:
    pg.execute("CREATE FOREIGN TABLE small (a text, b bigint) SERVER neo4j OPTIONS (label 'Small')")
    with pytest.raises(psycopg.errors.UndefinedColumn, match=r'column "c" of foreign table public\.small') as raised:
        pg.execute("SELECT * FROM deal_sync.scan(NULL::small, columns => '{a,c}')")
    assert raised.value.diag.message_hint == "Its columns are a, b."
