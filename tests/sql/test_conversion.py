"""Flows in: a value of the graph, a foreign column of each type, a target of each type.
Flows out: that it lands exactly, or that the mapping is a setup error whose HINT, run as it is, makes it land.

Dimensions: the value's type, the foreign column's, the target's with its typmod or domain, kind, '', a misfit.
The values' own extremes are fdw/rows/test_values.py's; one sync lands a value by way of all foreign types at once.
"""

import psycopg
import pytest
from neo4j_deals.rows.values import MAX_VALUE_BYTES
from support.database import Connection
from support.deals import deal_node, version_node
from support.graph import Graph
from support.sync import add_tenant, sync

FOREIGN = (
    *("text", "varchar(5)", "smallint", "integer", "bigint", "real", "double precision", "numeric", "numeric(3,2)"),
    *("boolean", "uuid", "date", "timestamp", "timestamptz", "time", "timetz", "interval", "point", "bytea"),
    *("json", "jsonb", "text[]", "bigint[]", "numeric(3,2)[]", "date[]", "timestamptz[]", "vector(3)", "halfvec(3)"),
)
#: By target: a value in Cypher, and what lands as text.
TARGETS = {
    "text": ("'2026-01-02'", "2026-01-02"),
    "varchar(12)": ("'2026-01-02'", "2026-01-02"),
    "char(4)": ("'ab'", "ab"),
    "smallint": ("7", "7"),
    "integer": ("-2147483648", "-2147483648"),
    "bigint": ("9007199254740993", "9007199254740993"),
    "real": ("0.5", "0.5"),
    "double precision": ("0.1", "0.1"),
    "numeric": ("9007199254740993", "9007199254740993"),
    "numeric(3,2)": ("0.145", "0.15"),
    "numeric(2,-1)": ("145", "150"),
    "boolean": ("true", "true"),
    "uuid": ("'AAAAAAAA-0000-4000-8000-000000000001'", "aaaaaaaa-0000-4000-8000-000000000001"),
    "date": ("datetime('2026-10-01T00:00:00+02:00')", "2026-10-01"),
    "timestamp": ("datetime('2026-10-01T00:00:00+02:00')", "2026-09-30 22:00:00"),
    "timestamptz": ("datetime('2026-10-01T00:00:00.123456789+02:00')", "2026-09-30 22:00:00.123456+00"),
    "timestamptz(0)": ("datetime('2026-10-01T00:00:00+02:00')", "2026-09-30 22:00:00+00"),
    "time": ("localtime('12:34:56.5')", "12:34:56.5"),
    "timetz": ("time('12:34:56-03:30')", "12:34:56-03:30"),
    "interval": ("duration('P14M3DT-4.5S')", "1 year 2 mons 3 days -00:00:04.5"),
    "point": ("point({x: 1.5, y: -2})", "(1.5,-2)"),
    "bytea": ("$bytes", "\\x00ff"),
    "json": ("['a', 'b']", '["a","b"]'),
    "jsonb": ("['a', 'b']", '["a", "b"]'),
    "text[]": ("""['a "b"', '{c\\\\,}', '']""", '{"a \\"b\\"","{c\\\\,}",""}'),
    "bigint[]": ("[1, -2]", "{1,-2}"),
    "numeric(3,2)[]": ("[0.145, 1.0]", "{0.15,1.00}"),
    "date[]": ("[date('2026-02-03')]", "{2026-02-03}"),
    "timestamptz[]": ("[datetime('2026-02-03T00:30:00+02:00')]", '{"2026-02-02 22:30:00+00"}'),
    "vector(3)": ("[1, 0.5, -2]", "[1,0.5,-2]"),
    "halfvec(3)": ("[1, 0.5, -2]", "[1,0.5,-2]"),
    "span": ("duration('P1D')", "1 day"),
    "share": ("0.145", "0.15"),
}


def set_up(pg: Connection, kind: str, foreign: str, target: str, place: int) -> bool:
    """A column of each type, one filling the other by way of property "v"; whether it takes the HINT for that."""
    mapped, table = {"deal": ("deals", "opportunities"), "version": ("deal_versions", "deal_versions")}[kind]
    pg.execute(f"ALTER TABLE {table} ADD COLUMN v{place} {target}".encode())
    options = f"OPTIONS (property 'v', target 'v{place}')"
    pg.execute(f"ALTER FOREIGN TABLE neo4j.{mapped} ADD COLUMN v{place} {foreign} {options}".encode())
    said: psycopg.errors.Diagnostic | None = None
    try:
        with pg.transaction():
            pg.execute("SELECT _deal_sync.check_source(%s)", [kind])
    except psycopg.errors.DatatypeMismatch as error:
        said = error.diag
    if said is None:
        return False
    assert said.message_hint is not None
    assert f'column "v{place}" of foreign table neo4j.{mapped} is of type' in str(said.message_primary)
    assert f'its target "v{place}" requires' in str(said.message_primary)
    pg.execute(said.message_hint.encode())
    pg.execute("SELECT _deal_sync.check_source(%s)", [kind])
    return True


@pytest.fixture
def types(pg: Connection) -> Connection:
    pg.execute("CREATE DOMAIN span AS interval CHECK (value > interval '0'); CREATE DOMAIN share AS numeric(3,2)")
    pg.execute("SET timezone = 'UTC'")
    return pg


@pytest.mark.parametrize("kind", ["deal", "version"])
@pytest.mark.parametrize("target", TARGETS)
def test_each_pair_of_types_lands_exactly_or_has_a_remedy_that_does(
    types: Connection, graph: Graph, target: str, kind: str
) -> None:
    tenant = add_tenant(types)
    foreign = FOREIGN if kind == "deal" else ("text", target)
    fixed = [name for place, name in enumerate(foreign) if set_up(types, kind, name, target, place)]
    literal, landed = TARGETS[target]
    deal = deal_node(graph, tenant)
    node = deal if kind == "deal" else version_node(graph, tenant, deal)
    graph.run(f"MATCH (n) WHERE elementId(n) = $id SET n.v = {literal}", id=node.element_id, bytes=b"\x00\xff")

    run = sync(types, tenant)

    assert (run.status, run.message, run.values_rejected) == ("ok", None, 0)
    columns = ", ".join(f"v{place}::text" for place in range(len(foreign)))
    table = "opportunities" if kind == "deal" else "deal_versions"
    (row,) = types.execute(f"SELECT {columns} FROM {table}".encode()).fetchall()
    for name, found in zip(foreign, row, strict=True):
        shown_as_document = name in ("json", "jsonb") and target in ("text", "varchar(12)", "char(4)")
        assert found == (f'"{literal[1:-1]}"' if shown_as_document else landed), name
    if kind == "deal":
        assert target not in fixed
        assert sync(types, tenant).deals_updated == 0


def test_by_default_the_sync_takes_as_long_a_text_as_a_select_does(pg: Connection) -> None:
    assert pg.execute("SELECT _deal_sync.size_setting('max_value_bytes')").fetchone() == (MAX_VALUE_BYTES,)


def test_a_text_that_is_a_number_lands_by_way_of_a_text_column(types: Connection, graph: Graph) -> None:
    tenant = add_tenant(types)
    targets = ("smallint", "bigint", "numeric(3,2)", "double precision", "boolean", "share")
    fixed = [set_up(types, "deal", "text", target, place) for place, target in enumerate(targets)]
    assert fixed == [False] * len(targets)
    node = deal_node(graph, tenant, v="2")

    assert sync(types, tenant).values_rejected == 1
    columns = ", ".join(f"v{place}::text" for place in range(len(targets)))
    query = f"SELECT {columns} FROM opportunities".encode()
    assert types.execute(query).fetchone() == ("2", "2", "2.00", "2", None, "2.00")
    node.set(v="two")
    assert sync(types, tenant).values_rejected == len(targets)
    assert types.execute(query).fetchone() == (None,) * len(targets)


def test_a_duration_that_a_domain_rejects_is_a_value_reject_as_neo4j_has_it(types: Connection, graph: Graph) -> None:
    tenant = add_tenant(types)
    set_up(types, "deal", "interval", "span", 0)
    deal_node(graph, tenant)
    graph.run("MATCH (d:Deal) SET d.v = duration('-P1D')")

    assert sync(types, tenant).values_rejected == 1
    ((code, message),) = types.execute("SELECT sqlstate, message FROM deal_sync.rejects").fetchall()
    assert (code, "span" in message) == ("23514", True)
    graph.run("MATCH (d:Deal) SET d.v = time('12:00:00+02:00')")
    assert sync(types, tenant).values_rejected == 1
    assert types.execute("SELECT sqlstate, value FROM deal_sync.rejects").fetchall() == [
        ("2200G", "time('12:00:00.000000000+02:00')")
    ]


@pytest.mark.parametrize("foreign", ["text", "target"])
def test_an_empty_text_is_null_before_it_is_converted_and_zero_is_zero(
    types: Connection, graph: Graph, foreign: str
) -> None:
    tenant = add_tenant(types)
    targets = ("smallint", "numeric(3,2)", "boolean", "uuid", "date", "interval", "jsonb", "text[]", "text")
    for place, target in enumerate(targets):
        set_up(types, "deal", target if foreign == "target" else "text", target, place)
        types.execute(f"ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN v{place} OPTIONS (ADD empty 'null')".encode())
    node = deal_node(graph, tenant, v="")

    run = sync(types, tenant)
    assert (run.status, run.values_rejected) == ("ok", 0)
    columns = ", ".join(f"v{place}::text" for place in range(len(targets)))
    assert types.execute(f"SELECT {columns} FROM opportunities".encode()).fetchone() == (None,) * len(targets)
    node.set(v=0)
    sync(types, tenant)
    assert types.execute(b"SELECT v0, v1 FROM opportunities").fetchone() == (0, 0)
    node.set(v=False)
    sync(types, tenant)
    assert types.execute(b"SELECT v2 FROM opportunities").fetchone() == (False,)


@pytest.mark.parametrize(
    ("foreign", "target"),
    [
        ("bigint", "numeric(3,2)"),
        ("bigint", "text"),
        ("smallint", "bigint"),
        ("double precision", "bigint"),
        ("date", "timestamptz"),
        ("timestamptz", "date"),
        ("timestamptz(0)", "timestamptz"),
        ("varchar(5)", "text"),
        ("numeric(3,2)", "numeric"),
        ("boolean", "text"),
        ("time", "timetz"),
    ],
)
def test_the_merge_by_hand_is_not_given_where_the_foreign_column_shows_less_than_lands(
    types: Connection, foreign: str, target: str
) -> None:
    set_up(types, "deal", foreign, target, 0)
    with (
        pytest.raises(psycopg.errors.DatatypeMismatch, match="cannot hold every value that the sync lands") as raised,
        types.transaction(),
    ):
        types.execute("SELECT deal_sync.merge_statement('neo4j.deals')")
    assert raised.value.diag.message_hint is not None
    types.execute(raised.value.diag.message_hint.encode())
    assert types.execute("SELECT deal_sync.merge_statement('neo4j.deals') LIKE 'MERGE%'").fetchone() == (True,)
    types.execute("SELECT _deal_sync.check_source('deal')")
