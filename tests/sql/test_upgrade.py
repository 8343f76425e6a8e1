"""In: the scripts of the extension's versions. Out: proof that a database that is updated is one that is new.

extension/deal_sync--0.1.0.sql is what `make` built from sql/ before commit 60691cf, and changes no more. What later
commits have corrected in 0.1.0's SQL stands on names that it does not have, and comes with 0.2.0.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from environment import database as environment_database
from environment import upgrade
from environment.database import literal
from environment.servers import Instance
from environment.state import CHECKOUT, SetupError
from environment.upgrade import AFTER, BEFORE, Member, generated, with_new_names
from neo4j_deals import SERVES, __version__
from psycopg import sql
from psycopg.types.json import Jsonb
from support.database import Connection, Database, new_database
from support.graph import Graph
from support.roles import fresh, role
from support.sync import one, sync

HARBORLINE = uuid.UUID("bbbbbbbb-0000-4000-8000-000000000002")
OLD_WRAPPER = "neo4j_deals.wrapper.Neo4jForeignDataWrapper"
VERSION: LiteralString = "SELECT extversion FROM pg_extension WHERE extname = 'deal_sync'"

MEMBERS: LiteralString = """
    SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'deal_sync' ORDER BY 1
"""
# What an update could leave other than it is in a new database: each a list of rows.
FACTS: dict[str, LiteralString] = {
    "members": MEMBERS,
    "routines": """
        SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), p.proowner::regrole::text
        FROM pg_proc AS p
        WHERE p.pronamespace::regnamespace::text IN ('deal_sync', '_deal_sync') OR p.proname = 'sync_deals' ORDER BY 1
    """,
    "relations": """
        SELECT c.oid::regclass::text, c.relkind, pg_get_viewdef(c.oid), c.relowner::regrole::text, c.reloptions
        FROM pg_class AS c WHERE c.relnamespace::regnamespace::text IN ('deal_sync', '_deal_sync') ORDER BY 1
    """,
    "columns": """
        SELECT a.attrelid::regclass::text, row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), a.attname,
            format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute AS a
        JOIN pg_class AS c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace::regnamespace::text IN ('deal_sync', '_deal_sync') AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY 1, 2
    """,
    "labels": """
        SELECT e.enumtypid::regtype::text, e.enumlabel FROM pg_enum AS e ORDER BY 1, e.enumsortorder
    """,
    "constraints and indexes": """
        SELECT c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint AS c
        WHERE c.connamespace::regnamespace::text IN ('deal_sync', '_deal_sync')
        AND c.contype <> 'n' -- PostgreSQL 18 names them as the column was named once; "columns" has them
        UNION ALL
        SELECT i.indrelid::regclass::text, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
        WHERE c.relnamespace::regnamespace::text IN ('deal_sync', '_deal_sync')
        ORDER BY 1, 2
    """,
    "comments": """
        SELECT pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description FROM pg_description AS d
        WHERE pg_describe_object(d.classoid, d.objoid, d.objsubid) ~ '(deal_sync|sync_deals|wrapper neo4j)' ORDER BY 1
    """,
    "the wrapper": """
        SELECT w.fdwhandler::regproc::text, w.fdwvalidator::regproc::text FROM pg_foreign_data_wrapper AS w
        WHERE w.fdwname = 'neo4j'
    """,
    "what a dump keeps": """
        SELECT c.relation::regclass::text, c.condition FROM pg_extension AS e
        CROSS JOIN unnest(e.extconfig, e.extcondition) AS c (relation, condition)
        WHERE e.extname = 'deal_sync' ORDER BY 1
    """,
    "what a dump takes for granted": """
        SELECT pg_describe_object(i.classoid, i.objoid, i.objsubid), i.privtype, i.initprivs::text
        FROM pg_init_privs AS i
        WHERE pg_describe_object(i.classoid, i.objoid, i.objsubid) ~ 'deal_sync|sync_deals' ORDER BY 1
    """,
    "privileges": """
        SELECT 'routine ' || p.oid::regprocedure::text AS of, a::text FROM pg_proc AS p CROSS JOIN unnest(p.proacl) AS a
        WHERE p.pronamespace::regnamespace::text IN ('deal_sync', '_deal_sync') OR p.proname = 'sync_deals'
        UNION ALL
        SELECT c.oid::regclass::text, a::text FROM pg_class AS c CROSS JOIN unnest(c.relacl) AS a
        WHERE c.relnamespace::regnamespace::text IN ('deal_sync', '_deal_sync')
        UNION ALL
        SELECT format('%s.%s', t.attrelid::regclass, t.attname), a::text
        FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid CROSS JOIN unnest(t.attacl) AS a
        WHERE c.relnamespace::regnamespace::text IN ('deal_sync', '_deal_sync')
        UNION ALL
        SELECT 'schema ' || n.nspname, a::text FROM pg_namespace AS n CROSS JOIN unnest(n.nspacl) AS a
        WHERE n.nspname IN ('deal_sync', '_deal_sync')
        ORDER BY 1, 2
    """,
}
TABLES: LiteralString = """
    SELECT c.oid::regclass::text FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relnamespace::regnamespace::text IN ('deal_sync', '_deal_sync', 'public') ORDER BY 1
"""

COLUMNS: LiteralString = """
    SELECT a.attname FROM pg_attribute AS a
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum
"""


def facts(connection: Connection) -> dict[str, list[Any]]:
    connection.execute("SET search_path = pg_catalog")
    found = {name: connection.execute(query).fetchall() for name, query in FACTS.items()}
    connection.execute("RESET search_path")
    return found


def rows(connection: Connection) -> dict[str, list[Any]]:
    """All rows of the extension's and the application's tables, by table, in whichever schema it stands; without the
    column that an update drops."""
    connection.execute("SET search_path = pg_catalog")
    tables = [table for (table,) in connection.execute(TABLES).fetchall()]
    connection.execute("RESET search_path")
    texts: LiteralString = "SELECT (to_jsonb(t) - 'undated')::text FROM {} AS t ORDER BY 1"
    return {
        table.removeprefix("_"): connection.execute(sql.SQL(texts).format(sql.Identifier(*table.split(".")))).fetchall()
        for table in tables
    }


@contextmanager
def database_of(servers: Instance, version: str) -> Iterator[Database]:
    """A database with this version, the application and the server, as its user had it who lacks the Python package."""
    with new_database(servers) as database:
        connection = database.connect()
        create = "SET client_min_messages = warning; CREATE EXTENSION deal_sync VERSION {} CASCADE"
        connection.execute(sql.SQL(create).format(version))
        servers.psql(database.name, "-f", CHECKOUT / "tests/application.sql")
        uri, user, password = (literal(servers.facts[f"neo4j_{name}"]) for name in ("uri", "user", "password"))
        for statement in (
            f"CREATE SERVER neo4j FOREIGN DATA WRAPPER neo4j OPTIONS (uri {uri}, wrapper {literal(OLD_WRAPPER)})",
            f'CREATE USER MAPPING FOR CURRENT_USER SERVER neo4j OPTIONS ("user" {user}, password {password})',
            "CREATE SCHEMA neo4j",
        ):
            environment_database.run_sql(servers, database.name, statement)
        yield database


def fill(old: Database, new: Connection, servers: Instance) -> Connection:
    """Foreign tables, migration and all rows of the new database, in the old one; a superuser's connection to it.

    Its watermarks are of the mapping as the old version sees it.
    """
    connection = old.connect()
    connection.execute(one(new, "SELECT deal_sync.mapping_ddl()"))
    for migration in sorted((CHECKOUT / "sql/migration").glob("*.sql")):
        servers.psql(old.name, "-f", migration)
    connection.execute("SET session_replication_role = replica")  # the copied rows fire nothing
    new.execute("SET search_path = pg_catalog")
    for (table,) in new.execute(TABLES).fetchall():
        there, here = (sql.Identifier(*name.split(".")) for name in (table, table.removeprefix("_")))
        if one(connection, "SELECT to_regclass(%s)", table.removeprefix("_")) is None:
            continue
        old_names = [name for (name,) in connection.execute(COLUMNS, [table.removeprefix("_")]).fetchall()]
        names = [sql.Identifier(name) for (name,) in new.execute(COLUMNS, [table]).fetchall() if name in old_names]
        columns = sql.SQL(", ").join(names)
        with (
            new.cursor().copy(sql.SQL("COPY {} ({}) TO STDOUT (FORMAT binary)").format(there, columns)) as source,
            connection.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(here, columns)) as into,
        ):
            for block in source:
                into.write(block)
    connection.execute("RESET session_replication_role")
    fingerprints = (
        one(new, "SELECT _deal_sync.mapping_fingerprint()"),
        one(connection, "SELECT deal_sync.mapping_fingerprint()"),
    )
    connection.execute("UPDATE deal_sync.watermarks SET mapping = replace(mapping, %s, %s)", fingerprints)
    return connection


def grant(connection: Connection, monitor: str, scanner: str) -> None:
    connection.execute("SELECT deal_sync.grant_sync('app_writer')")
    connection.execute("SELECT deal_sync.grant_monitor(%s::text::regrole)", [monitor])
    connection.execute("SELECT deal_sync.grant_scan(%s::text::regrole)", [scanner])


def test_the_package_has_the_version_of_the_extension() -> None:
    control = (CHECKOUT / "extension/deal_sync.control").read_text()
    assert re.findall("^default_version = '(.*)'$", control, re.M) == [__version__]
    assert __version__ in SERVES


def test_the_files_of_sql_are_numbered_without_gaps_or_twins() -> None:
    for folder in ("tables", "functions", "last"):
        numbers = sorted(file.name[:3] for file in (CHECKOUT / "sql" / folder).iterdir())
        assert numbers == [f"{number:02}_" for number in range(1, len(numbers) + 1)]


def test_the_generated_parts_of_the_script_are_those_of_this_tree(servers: Instance) -> None:
    stale = [str(path) for path, text in upgrade.parts(servers).items() if path.read_text() != text]
    assert not stale, "run: make upgrade"


def test_an_update_of_the_demo_leaves_what_a_new_database_has(
    database: Database, pg: Connection, graph: Graph, servers: Instance
) -> None:
    environment_database.run_cypher(servers, environment_database.DEMO / "graph.cypher")
    pg.execute((environment_database.DEMO / "application.sql").read_bytes())
    for (tenant,) in pg.execute("SELECT id FROM tenants").fetchall():
        sync(database.connect("app_writer"), tenant, mode="incremental")
    with role(pg, fresh("monitor")) as monitor, role(pg, fresh("scanner")) as scanner:
        grant(pg, monitor, scanner)
        with database_of(servers, "0.1.0") as updated:
            old = fill(updated, pg, servers)
            grant(old, monitor, scanner)
            old.execute("CREATE VIEW on_what_stays AS SELECT s.state FROM deal_sync.tenant_status AS s")
            old.execute("CREATE VIEW on_what_moves AS SELECT deal_sync.size_setting('batch_bytes') AS bytes")

            kept = rows(old)
            old.execute("ALTER EXTENSION deal_sync UPDATE")
            assert one(old, "SELECT srvoptions::text FROM pg_foreign_server").count("neo4j_deals.tables.wrapper.") == 1
            assert rows(old) == {**kept, "deal_sync.undated_nodes": [], "deal_sync.last_sync_all": []}
            old.execute("SELECT deal_sync.attach()")
            grant(old, monitor, scanner)
            assert facts(old) == facts(pg)
            assert one(old, "SELECT deal_sync.mapping_ddl()") == one(pg, "SELECT deal_sync.mapping_ddl()")
            assert one(old, "SELECT count(*) FROM on_what_stays") == 2
            assert one(old, "SELECT bytes FROM on_what_moves") == 32 * 1024 * 1024

            writer = updated.connect("app_writer")
            runs = [sync(writer, HARBORLINE, mode="incremental") for _ in range(2)]
            assert [(run.mode, run.status) for run in runs] == [("full", "ok"), ("incremental", "ok")]
            assert [run.deals_inserted + run.deals_updated + run.versions_inserted for run in runs] == [0, 0]


def test_a_column_with_a_new_name_keeps_its_values_and_the_views_on_it(servers: Instance) -> None:
    report = [{"kind": "deals", "refused": 2, "extra": 1}, {"kind": "links", "refused": 0, "extra": 0}]
    with database_of(servers, "0.1.0") as updated:
        old = updated.connect()
        row = [HARBORLINE, Jsonb(report)]
        old.execute("INSERT INTO deal_sync.reconciliations VALUES (%s, now(), 0, 0, 1, 2, %s)", row)
        old.execute("CREATE VIEW of_tenants AS SELECT refusals_open, refusals_new FROM deal_sync.tenant_status")
        old.execute("CREATE VIEW of_graph AS SELECT r.refused FROM deal_sync.reconciliations AS r")
        old.execute("ALTER EXTENSION deal_sync UPDATE")
        assert one(old, "SELECT rejected FROM deal_sync.reconciliations") == 2
        assert one(old, "SELECT refused FROM of_graph") == 2
        assert one(old, "SELECT report FROM deal_sync.reconciliations") == [
            {"kind": "deals", "rejected": 2, "extra": 1},
            {"kind": "links", "rejected": 0, "extra": 0},
        ]
        assert one(old, "SELECT count(*) FROM of_tenants") == 0


def test_a_view_on_what_an_update_drops_stops_it_and_leaves_everything_as_it_was(servers: Instance) -> None:
    with database_of(servers, "0.1.0") as old:
        connection = old.connect()
        before = facts(connection)
        connection.execute("CREATE VIEW public.of_mine AS SELECT deal_sync.to_text(now()) AS moment")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist) as raised:
            connection.execute("ALTER EXTENSION deal_sync UPDATE")
        assert "view public.of_mine depends on function deal_sync.to_text" in str(raised.value.diag.message_detail)
        assert (one(connection, VERSION), facts(connection)) == ("0.1.0", before)
        assert one(connection, "SELECT count(*) FROM of_mine, deal_sync.settings() AS s WHERE s.name = 'overlap'") == 1
        connection.execute("DROP VIEW of_mine; ALTER EXTENSION deal_sync UPDATE")
        assert one(connection, VERSION) == __version__


def test_only_its_owner_updates_the_extension(servers: Instance) -> None:
    with database_of(servers, "0.1.0") as old, role(old.connect(), fresh("administrator")) as name:
        old.connect().execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(name)))
        administrator = old.connect(name)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be updated by its owner") as raised:
            administrator.execute("ALTER EXTENSION deal_sync UPDATE")
        administrator.execute((raised.value.diag.message_hint or "").encode())
        administrator.execute("ALTER EXTENSION deal_sync UPDATE")
        assert one(administrator, VERSION) == __version__


def routine(oid: int, name: str, needs: tuple[int, ...] = (), **changed: Any) -> Member:
    signature: dict[str, Any] = {"arguments": "a text, b text", "result": "text", "kind": "f", "defaults": 1} | changed
    return Member(oid, "ROUTINE", "deal_sync", name, signature.pop("types", "text"), signature, needs, {})


def table(kind: str, oid: int, name: str, *columns: str, needs: tuple[int, ...] = ()) -> Member:
    """A view, a table or a composite type."""
    return Member(oid, kind, "deal_sync", name, None, {"columns": [*columns], "labels": None}, needs, {})


def drops(before: list[Member], after: list[Member]) -> list[str]:
    text = generated(before, after, "1")[BEFORE]
    return re.findall("^DROP (.*);$", text, re.M)


@pytest.mark.parametrize(
    ("changed", "is_dropped"),
    [
        ({}, False),
        ({"defaults": 2}, False),
        ({"defaults": 0}, True),
        ({"result": "bigint"}, True),
        ({"arguments": "other text, b text"}, True),
        ({"kind": "p"}, True),
        ({"types": "uuid"}, True),
    ],
)
def test_a_routine_is_dropped_if_it_cannot_be_replaced(changed: dict[str, Any], is_dropped: bool) -> None:
    before, after = routine(1, "f"), routine(1, "f", **changed)
    assert drops([before], [after]) == ["ROUTINE deal_sync.f(text)"] * is_dropped
    revoked = f"REVOKE EXECUTE ON ROUTINE {after.called} FROM PUBLIC;" in generated([before], [after], "1")[AFTER]
    assert revoked == is_dropped


def test_a_view_is_dropped_if_a_column_changes_after_what_depends_on_it() -> None:
    base, longer, other = (
        table("VIEW", 1, "base", "a text", *more) for more in (["b text"], ["b text", "c text"], ["b bigint"])
    )
    upper = table("VIEW", 2, "upper", "a text", needs=(1,))
    assert drops([base, upper], [longer, upper]) == []
    assert drops([base, upper], [other, upper]) == ["VIEW deal_sync.upper", "VIEW deal_sync.base"]


def test_a_view_with_a_new_name_for_a_column_is_not_dropped() -> None:
    old, new = (table("VIEW", 1, "base", "a text", f"{column} text") for column in ("b", "c"))
    assert drops([old], [new]) == ["VIEW deal_sync.base"]
    [renamed] = with_new_names([old], "ALTER VIEW deal_sync.base RENAME COLUMN b TO c;\n")
    assert drops([renamed], [new]) == []


def test_a_type_that_changes_takes_what_names_it_along_but_no_table() -> None:
    old, new = (table("TYPE", 1, "t", column) for column in ("a text", "a bigint"))
    user = routine(2, "f", (1,), types="deal_sync.t", arguments="a deal_sync.t")
    assert drops([old, user], [new, user]) == ["ROUTINE deal_sync.f(deal_sync.t)", "TYPE deal_sync.t"]
    log = table("TABLE", 3, "log", "t deal_sync.t", needs=(1,))
    with pytest.raises(SetupError, match=r"needed by deal_sync\.log"):
        generated([old, log], [new, log], "1")
