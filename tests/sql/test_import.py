"""In: a graph of any labels. Out: a foreign table for each, by import_schema() and by IMPORT FOREIGN SCHEMA alike."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from environment.servers import Instance
from psycopg import sql
from support.backend import Backend, await_true
from support.database import Connection, Database
from support.graph import Graph
from support.proxy import full_backlog

HOSTILE_NAMES = [
    "UPPER",
    "with space",
    'double " quote',
    "single ' quote",
    "back`tick",
    "back\\slash",
    "\\u0060 escape",
    "line\nbreak",
    "\N{GRINNING FACE} e\N{COMBINING ACUTE ACCENT}",
    "select",
    "); DROP TABLE x; --",
    "$sample",
    "%s %I {0}",
    "ctid",
    "labels",
    "element_id",
    "ä" * 40,
    "ä" * 40 + " and more",
]


@dataclass
class Schema:
    """A schema into which is imported; `said` is what the client was told."""

    pg: Connection
    take: Callable[..., None]
    by_statement: bool
    name: str = "imported"
    said: list[str] = field(default_factory=list)

    def columns(self, table: str) -> dict[str, tuple[str, list[str] | None]]:
        """By name of the column its type and options."""
        found = self.pg.execute(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attfdwoptions FROM pg_attribute AS a"
            " WHERE a.attrelid = format('%%I.%%I', %s::text, %s::text)::regclass AND a.attnum > 0 ORDER BY a.attnum",
            [self.name, table],
        )
        return {name: (type_, options) for name, type_, options in found}

    def types(self, table: str) -> dict[str, str]:
        """By name of the column its type; without the derived ones."""
        return {name: type_ for name, (type_, options) in self.columns(table).items() if "derive" not in str(options)}

    def tables(self) -> dict[str, str]:
        """By name of the table its label."""
        found = self.pg.execute(
            "SELECT c.relname, _deal_sync.options_of(f.ftoptions) ->> 'label' FROM pg_foreign_table AS f"
            " JOIN pg_class AS c ON c.oid = f.ftrelid WHERE c.relnamespace = %s::regnamespace",
            [self.name],
        )
        return dict(found.fetchall())


def call(pg: Connection, schema: str, **options: Any) -> None:
    """import_schema()"""
    arguments = {"server": "neo4j", "schema": schema, **options}
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), value) for name, value in arguments.items()
    )
    pg.execute(sql.SQL("SELECT * FROM deal_sync.import_schema({})").format(named))


def statement(pg: Connection, schema: str, **options: Any) -> None:
    """IMPORT FOREIGN SCHEMA"""
    restriction: sql.Composable = sql.SQL("")
    for option, words in (("limit_to", "LIMIT TO"), ("except", "EXCEPT")):
        if option in options:
            names = sql.SQL(", ").join(map(sql.Identifier, options.pop(option)))
            restriction = sql.SQL(f"{words} ({{}})").format(names)
    given = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(n), str(v)) for n, v in options.items())
    pg.execute(
        sql.SQL("IMPORT FOREIGN SCHEMA neo4j {} FROM SERVER neo4j INTO {} {}").format(
            restriction, sql.Identifier(schema), sql.SQL("OPTIONS ({})").format(given) if options else sql.SQL("")
        )
    )


@pytest.fixture(
    params=[pytest.param(call, id="import_schema()"), pytest.param(statement, id="IMPORT", marks=pytest.mark.multicorn)]
)
def imported(pg: Connection, request: pytest.FixtureRequest) -> Schema:
    pg.execute("CREATE SCHEMA imported")

    def take(**options: Any) -> None:
        request.param(pg, "imported", **options)

    schema = Schema(pg, take, request.param is statement)
    pg.add_notice_handler(
        lambda diagnostic: schema.said.append(f"{diagnostic.severity_nonlocalized}: {diagnostic.message_primary}")
    )
    return schema


def test_each_label_is_a_table_with_the_types_that_the_graph_holds(imported: Schema, graph: Graph) -> None:
    graph.run(
        """
        CREATE (:Person {
            name: 'Ann', born: date('1990-01-02'), height: 1.75, children: 2, happy: true, seen: datetime(),
            wakes: localtime('07:00'), sleeps: time('23:00+02:00'), met: localdatetime('2026-01-02T03:04'),
            worked: duration('P1Y'), home: point({x: 1, y: 2}), peak: point({x: 1, y: 2, z: 3}),
            nicknames: ['An'], scores: [1, 2], weights: [0.5], days: [date('2026-01-02')], nothing: [], raw: $raw
        }), (:Company {name: 'Acme'})
        """,
        raw=b"\x00\xff",
    )

    imported.take()

    assert imported.tables() == {"Company": "Company", "Person": "Person"}
    assert imported.types("Company") == {"name": "text"}
    assert imported.types("Person") == {
        "name": "text",
        "born": "date",
        "height": "double precision",
        "children": "bigint",
        "happy": "boolean",
        "seen": "timestamp with time zone",
        "wakes": "time without time zone",
        "sleeps": "time with time zone",
        "met": "timestamp without time zone",
        "worked": "interval",
        "home": "point",
        "peak": "jsonb",
        "nicknames": "text[]",
        "scores": "bigint[]",
        "weights": "double precision[]",
        "days": "date[]",
        "nothing": "text[]",
        "raw": "bytea",
    }
    columns = imported.columns("Person")
    assert columns["element_id"] == ("text", ["derive=element_id"])
    assert columns["labels"] == ("text[]", ["derive=labels"])
    assert imported.said == []


def test_a_column_has_what_was_found_as_its_comment_which_the_statement_cannot_make(
    imported: Schema, pg: Connection, graph: Graph
) -> None:
    graph.run("CREATE (:Person {name: 'Ann'}), (:Person {name: 'Bob', ctid: 1}), (:Person {name: 3})")

    imported.take()

    query = (
        "SELECT a.attname, col_description(a.attrelid, a.attnum) FROM pg_attribute AS a"
        """ WHERE a.attrelid = 'imported."Person"'::regclass AND a.attnum > 0"""
    )
    comments = {name: comment for name, comment in pg.execute(query) if comment is not None}
    if imported.by_statement:
        assert comments == {}
    else:
        assert comments == {
            "ctid_2": 'the property "ctid": INTEGER in 1 of 3 nodes',
            "name": 'the property "name": STRING in 2, INTEGER in 1 of 3 nodes',
            "element_id": "Neo4j's element id of the node; it does not survive a restore of the graph",
            "labels": "all labels of the node",
        }


def test_what_is_imported_is_read_by_scan_and_by_a_select(imported: Schema, pg: Connection, graph: Graph) -> None:
    graph.run("CREATE (:Person {name: 'Ann', born: date('1990-01-02'), n: [1, 2]})")

    imported.take()

    row = pg.execute('SELECT name, born::text, n FROM deal_sync.scan(NULL::imported."Person")').fetchall()
    assert row == [("Ann", "1990-01-02", [1, 2])]
    if imported.by_statement:
        assert pg.execute('SELECT name, born::text, n FROM imported."Person"').fetchall() == row


def test_a_property_of_several_types_becomes_text_and_a_notice_says_so(
    imported: Schema, pg: Connection, graph: Graph
) -> None:
    graph.run(
        "CREATE (:T {m: 'x', n: 1, l: [1], e: []}), (:T {m: 1, n: 1.5, l: 'x', e: [true]}),(:T {m: date('2026-01-02')})"
    )

    imported.take()

    assert imported.types("T") == {"e": "boolean[]", "l": "jsonb", "m": "text", "n": "text"}
    assert imported.said == [
        'NOTICE: property "l" of label "T" holds LIST<INTEGER> (1), STRING (1): its column is jsonb',
        'NOTICE: property "m" of label "T" holds DATE (1), INTEGER (1), STRING (1): its column is text',
        'NOTICE: property "n" of label "T" holds FLOAT (1), INTEGER (1): its column is text',
    ], "e holds lists only, and an empty one goes with any"
    shown = pg.execute('SELECT m, n, l::text FROM deal_sync.scan(NULL::imported."T")').fetchall()
    assert sorted(shown, key=str) == sorted(
        [("x", "1", "[1]"), ("1", "1.5", '"x"'), ("2026-01-02", None, None)], key=str
    )


def test_a_list_of_floats_with_a_vector_index_becomes_a_vector(imported: Schema, graph: Graph) -> None:
    graph.run("CREATE (:Doc {embedding: [0.5, 1, 2], other: [0.5, 1, 2]})")
    graph.run(
        "CREATE VECTOR INDEX v FOR (d:Doc) ON d.embedding"
        " OPTIONS {indexConfig: {`vector.dimensions`: 3, `vector.similarity_function`: 'cosine'}}"
    )

    imported.take()

    assert imported.types("Doc") == {"embedding": "vector(3)", "other": "double precision[]"}


def test_hostile_names_of_labels_and_properties_arrive_whole(imported: Schema, pg: Connection, graph: Graph) -> None:
    values = {name: f"value of {number}" for number, name in enumerate(HOSTILE_NAMES)}
    for number, name in enumerate(HOSTILE_NAMES):
        label = "`" + name.replace("\\", "\\u005c").replace("`", "``") + "`"
        graph.run(f"CREATE (n:{label}) SET n = $values", values=values | {"number": number})

    imported.take()

    assert sorted(imported.tables().values()) == sorted(HOSTILE_NAMES)
    assert all(len(table.encode()) <= 63 for table in imported.tables())
    for table, label in imported.tables().items():
        columns = imported.columns(table)
        by_property = {
            next((o.removeprefix("property=") for o in options or [] if o.startswith("property=")), name): name
            for name, (_, options) in columns.items()
            if "derive" not in str(options)
        }
        assert set(by_property) == {*HOSTILE_NAMES, "number"}
        relation, row = (
            sql.Identifier("imported", table),
            sql.SQL(", ").join(sql.Identifier(by_property[name]) for name in HOSTILE_NAMES),
        )
        found = pg.execute(sql.SQL("SELECT number, {} FROM deal_sync.scan(NULL::{})").format(row, relation)).fetchall()
        assert found == [(HOSTILE_NAMES.index(label), *values.values())], label
    assert all(text.startswith("NOTICE") for text in imported.said)


def test_limit_to_and_except_name_the_tables(imported: Schema, graph: Graph) -> None:
    graph.run("CREATE (:A {x: 1}), (:B {x: 1}), (:C {x: 1})")

    imported.take(limit_to=["A", "c"])
    assert imported.tables() == {"A": "A"}
    assert imported.said == [
        'WARNING: no label of the graph becomes table "c" (names are case-sensitive and include the prefix)'
    ]
    imported.take(**{"except": ["A", "g_C"], "prefix": "g_"})
    assert imported.tables() == {"A": "A", "g_A": "A", "g_B": "B"}


def test_the_sample_bounds_what_is_looked_at_and_zero_is_every_node(imported: Schema, graph: Graph) -> None:
    graph.run("CREATE (:T {one: 1}), (:T {other: 1})")  # Neo4j does not say which comes first

    imported.take(sample=1)
    assert len(imported.types("T")) == 1
    assert imported.said == ['NOTICE: label "T": 1 of 2 nodes were looked at (option sample, 0: all)']
    imported.take(sample=0, prefix="all_")
    assert imported.types("all_T") == {"one": "bigint", "other": "bigint"}


def test_an_empty_graph_makes_no_table(imported: Schema, graph: Graph) -> None:
    imported.take()
    assert imported.tables() == {}


def test_a_table_that_is_there_already_ends_the_import(imported: Schema, graph: Graph) -> None:
    graph.run("CREATE (:A {x: 1}), (:B {x: 1})")
    imported.pg.execute('CREATE TABLE imported."B" ()')
    with pytest.raises(psycopg.errors.DuplicateTable, match='relation "B" already exists'):
        imported.take()
    assert imported.tables() == {}, "all or nothing"


def test_a_bad_option_is_rejected(imported: Schema) -> None:
    with pytest.raises(psycopg.Error, match='invalid value for option "sample"') as raised:
        imported.take(sample=-1)
    assert "0 stands for all nodes" in str(raised.value.diag.message_hint)


def test_more_properties_than_a_table_has_columns_are_left_out_with_a_warning(imported: Schema, graph: Graph) -> None:
    graph.run("CREATE (n:Wide) SET n = $many", many={f"p{number}": 1 for number in range(1700)})
    graph.run("CREATE (:Wide {p1699: 1})")

    imported.take()

    assert len(imported.columns("Wide")) == 1600
    assert "p1699" in imported.columns("Wide"), "what most nodes have comes first"
    assert imported.said == [
        'WARNING: 102 properties of label "Wide" are left out: a table can have at most 1600 columns'
    ]


def test_cancel_ends_an_import_that_waits_for_neo4j_within_a_second(imported: Schema, database: Database) -> None:
    with full_backlog() as uri, database.connect() as other:
        imported.pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (SET uri {})").format(uri))
        backend = Backend(imported.pg.info.backend_pid)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(imported.take)
            assert await_true(lambda: backend.threads() > 1)
            asked = time.monotonic()
            other.execute("SELECT pg_cancel_backend(%s)", [backend.pid])
            with pytest.raises(psycopg.Error) as ended:
                future.result()
            assert time.monotonic() - asked < 1
    # Multicorn knows one SQLSTATE for whatever Python raises.
    assert "interrupted" in str(ended.value) if imported.by_statement else ended.value.sqlstate == "57014"
    assert imported.pg.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.multicorn
def test_import_takes_its_own_options_and_its_own_database_only(pg: Connection, graph: Graph) -> None:
    pg.execute("CREATE SCHEMA imported")
    with pytest.raises(psycopg.Error, match='invalid option "colour"') as raised:
        statement(pg, "imported", colour="red")
    assert raised.value.diag.message_hint == "Valid options in this context are: sample, prefix"
    with pytest.raises(psycopg.Error, match='reads the database "neo4j", not "other"') as raised:
        pg.execute("IMPORT FOREIGN SCHEMA other FROM SERVER neo4j INTO imported")
    assert "IMPORT FOREIGN SCHEMA" in str(raised.value.diag.message_hint)


def test_import_schema_says_what_is_wrong_with_a_call(pg: Connection) -> None:
    for arguments, sqlstate, message in (
        ("'nowhere', 'public'", "42704", 'server "nowhere" of the foreign-data wrapper neo4j does not exist'),
        ("'neo4j', 'nowhere'", "3F000", 'schema "nowhere" does not exist'),
        (
            "'neo4j', 'public', limit_to => '{a}', \"except\" => '{b}'",
            "22023",
            "limit_to and except cannot be used together",
        ),
    ):
        with pytest.raises(psycopg.Error) as raised:
            pg.execute(f"SELECT deal_sync.import_schema({arguments})".encode())
        assert (raised.value.sqlstate, raised.value.diag.message_primary) == (sqlstate, message)


def test_imported_tables_belong_to_the_caller_who_reads_with_a_mapping_of_its_own(
    database: Database, pg: Connection, graph: Graph, servers: Instance
) -> None:
    graph.run("CREATE (:Person {name: 'Ann'})")
    pg.execute("SELECT deal_sync.grant_scan('app_writer'); CREATE SCHEMA imported AUTHORIZATION app_writer")
    writer = database.connect("app_writer")

    with pytest.raises(psycopg.errors.UndefinedObject, match='role "app_writer" has no user mapping'):
        call(writer, "imported")
    pg.execute(
        sql.SQL('CREATE USER MAPPING FOR app_writer SERVER neo4j OPTIONS ("user" {}, password {})').format(
            servers.facts["neo4j_user"], servers.facts["neo4j_password"]
        )
    )
    with pytest.raises(psycopg.errors.UndefinedObject, match="may not read its user mapping"):
        call(writer, "imported")
    pg.execute("GRANT USAGE ON FOREIGN SERVER neo4j TO app_writer")
    call(writer, "imported")

    owner = pg.execute("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'Person'").fetchone()
    assert owner == ("app_writer",)
    assert writer.execute('SELECT name FROM deal_sync.scan(NULL::imported."Person")').fetchall() == [("Ann",)]
    assert pg.execute(
        "SELECT count(*) FROM pg_foreign_table WHERE _deal_sync.options_of(ftoptions) ? 'kind'"
    ).fetchone() == (2,), "it is no mapping"
