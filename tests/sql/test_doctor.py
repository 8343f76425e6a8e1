"""Flows in: sql/functions/21_doctor.sql, on set-ups with one thing broken, or several. Flows out: what doctor()
names, and that its hint, when it is followed, makes the check pass.
"""

import re
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from environment import certificates
from environment.database import literal
from environment.machine import BIN, EXTENSIONS
from environment.servers import Instance, make_directory, write_private
from psycopg import errors, sql
from support.database import Connection, Database
from support.deals import full_deal
from support.graph import Graph
from support.proxy import Proxy, closed_port, full_backlog
from support.sync import add_deal, add_tenant, add_version, one, sync

CHECKOUT = Path(__file__).resolve().parents[2]

#: The checks in their order.
CHECKS = [
    "python",
    "package",
    "extension",
    "encoding",
    "writable",
    "settings",
    "multicorn",
    "foreign tables",
    "spool folder",
    "disk space",
    "server",
    "tls",
    "user mapping",
    "password file",
    "connection",
    "login",
    "database",
    "neo4j version",
    "clock",
    "graph id",
    "open transactions",
    "deals: key index",
    "deals: watermark index",
    "deals: tenant index",
    "versions: key index",
    "versions: watermark index",
    "versions: tenant index",
    "versions: deal index",
    *(
        f"{kind}: {what}"
        for kind in ("deals", "versions")
        for what in ("duplicates", "tenants", "timestamps", "future", "unmapped", "absent")
    ),
    "target tables",
    "target columns",
    "target types",
    "row security",
    "policies",
    "role",
    "rights on tables",
    "rights on sync",
    "pg_cron",
    "schedule",
    "last run",
]
INDEXES = [name for name in CHECKS if name.endswith("index")]
ABOUT_THE_GRAPH = CHECKS[CHECKS.index("neo4j version") : CHECKS.index("target tables")]
NO_ZONE = ", with one that says no zone: {}; it counts as UTC, and runs look for it 14 hours further back"
#: What a test's database lacks before anything is broken: pg_cron works in another one.
NO_SCHEDULE = {"pg_cron", "schedule"}


@dataclass(frozen=True)
class Check:
    """A row of doctor(), but for its name."""

    ok: bool | None
    detail: str
    hint: str | None


def doctor(connection: Connection, role: str | None = None) -> dict[str, Check]:
    """What it says, by the names of the checks in their order."""
    rows = connection.execute(
        "SELECT name, ok, detail, hint FROM deal_sync.doctor(%s::text::regrole)", [role]
    ).fetchall()
    found = {row[0]: Check(*row[1:]) for row in rows}
    assert len(found) == len(rows), "each check has a name of its own"
    return found


def execute(connection: Connection, statement: str | None) -> None:
    """A statement that is no literal of this file: a hint, say."""
    assert statement is not None
    query: Any = statement
    connection.execute(query)


def broken(checks: dict[str, Check]) -> set[str]:
    """The names of those that found something wrong."""
    return {name for name, check in checks.items() if check.ok is False}


def cypher(graph: Graph, hint: str | None) -> list[dict[str, Any]]:
    """Runs the Cypher of a hint, each statement: all of it, or what stands behind "they are"."""
    assert hint is not None
    statements = hint.split("; MATCH ")
    first = re.sub("^.*?(they|which) are( among)?: ", "", statements[0])
    return [row for one in (first, *(f"MATCH {other}" for other in statements[1:])) for row in graph.run(one)]


@pytest.fixture
def tenant(pg: Connection) -> uuid.UUID:
    return add_tenant(pg)


@pytest.fixture
def role(pg: Connection) -> Iterator[str]:
    """A role that has nothing yet."""
    pg.execute("CREATE ROLE doctors_patient LOGIN")
    yield "doctors_patient"
    pg.execute("DROP OWNED BY doctors_patient; DROP ROLE doctors_patient")


# The whole


def test_the_checks_stand_in_a_fixed_order_and_a_sound_set_up_has_nothing_to_mend(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID, password_file: Path
) -> None:
    """A sound set-up has its password in a file, not in the catalog."""
    everything = {name: value for name, value in full_deal().items() if name != "forecast_score"}
    add_version(graph, tenant, add_deal(graph, tenant, **everything), **everything)
    checks = doctor(pg)
    assert list(checks) == CHECKS
    for name in INDEXES:
        cypher(graph, checks[name].hint)
    graph.run("CALL db.awaitIndexes()")
    execute(pg, checks["policies"].hint)
    assert sync(writer, tenant).status == "ok"

    checks = doctor(writer)
    assert list(checks) == CHECKS
    assert {name for name, check in checks.items() if check.ok is not True} == NO_SCHEDULE
    assert all(check.hint is None for check in checks.values() if check.ok)
    assert all(check.hint for check in checks.values() if check.ok is False)


def test_five_things_broken_at_once_are_all_named(
    pg: Connection, database: Database, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    before = broken(doctor(pg, "app_writer"))
    pg.execute("SET deal_sync.batch_rows = '0'")
    pg.execute("ALTER TABLE opportunities DROP COLUMN deal_ref")
    pg.execute("ALTER TABLE interaction_links DISABLE ROW LEVEL SECURITY")
    pg.execute("REVOKE INSERT ON deal_versions FROM app_writer")
    graph.run("MATCH (d:Deal) SET d.tenant_id = replace(d.tenant_id, '-', '')")
    assert broken(doctor(pg, "app_writer")) - before == {
        "settings",
        "target columns",
        "row security",
        "rights on tables",
        "deals: tenants",
    }


def test_nothing_set_up_yet_is_no_error(servers: Instance, database: Database) -> None:
    bare = Database(servers, "doctors_bare")
    servers.psql("postgres", "-c", "DROP DATABASE IF EXISTS doctors_bare WITH (FORCE)")
    bare.create("template0")
    try:
        pg = bare.connect()
        pg.execute("SET client_min_messages = warning; CREATE EXTENSION deal_sync CASCADE")
        checks = doctor(pg)
        assert list(checks) == CHECKS
        assert {"foreign tables", "server", "last run"} <= broken(checks)
        assert checks["target tables"].detail == "not checked: foreign tables"
        assert checks["user mapping"].detail == "not checked: server"
    finally:
        bare.close()


def test_a_cancel_is_no_finding(pg: Connection) -> None:
    with full_backlog() as uri:
        pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (SET uri {})").format(uri))
        pg.execute("SET statement_timeout = '300ms'")
        with pytest.raises(errors.QueryCanceled):
            doctor(pg)


def test_no_secret_is_shown(pg: Connection, graph: Graph, servers: Instance) -> None:
    password = servers.facts["neo4j_password"]
    for change in (
        "SELECT 1",
        "ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')",
        "ALTER SERVER neo4j OPTIONS (SET uri 'bolt+s://graph.invalid')",
    ):
        execute(pg, change)
        assert password not in repr(doctor(pg))


# The server's Python, the extension, the settings


def test_python_and_the_package_are_shown_with_where_they_lie(pg: Connection) -> None:
    checks = doctor(pg)
    prefix = one(pg, "SELECT said FROM _deal_sync.python_version()").partition(" of ")[2]
    assert prefix in checks["python"].detail
    assert f"{prefix}/lib" in checks["package"].detail
    assert "neo4j-rust-ext" in checks["package"].detail


def test_an_older_python_is_named(pg: Connection) -> None:
    """The older Python is only said: PL/Python has one."""
    pg.execute(
        "CREATE OR REPLACE FUNCTION _deal_sync.python_version(OUT number integer, OUT said text) LANGUAGE sql"
        " SET search_path = pg_catalog, pg_temp AS $$ SELECT 310, '3.10.1 of /usr' $$"
    )
    check = doctor(pg)["python"]
    assert (check.ok, check.detail) == (False, "3.10.1 of /usr")
    assert "3.11" in str(check.hint)


def test_a_missing_package_is_named_and_what_needs_it_is_not_checked(database: Database) -> None:
    pg = database.connect()
    pg.execute("DO LANGUAGE plpython3u $$ import sys; sys.modules['neo4j_deals'] = None $$")
    checks = doctor(pg)
    assert not checks["package"].ok
    assert "cannot be imported" in checks["package"].detail
    assert "reconnect" in str(checks["package"].hint)
    assert checks["graph"].detail == checks["target types"].detail == "not checked: package"
    assert checks["target columns"].ok
    assert doctor(database.connect())["package"].ok


def test_a_package_of_another_version_is_named(pg: Connection) -> None:
    version = one(pg, "SELECT extversion FROM pg_extension WHERE extname = 'deal_sync'")
    pg.execute("UPDATE pg_extension SET extversion = '99.1' WHERE extname = 'deal_sync'")
    checks = doctor(pg)
    assert "does not serve deal_sync 99.1" in checks["package"].detail
    pg.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'deal_sync'", [version])
    assert doctor(pg)["package"].ok


def test_files_of_a_newer_version_are_named(pg: Connection) -> None:
    version = one(pg, "SELECT extversion FROM pg_extension WHERE extname = 'deal_sync'")
    update = EXTENSIONS / f"deal_sync--0.0.1--{version}.sql"
    update.write_text("")
    try:
        pg.execute("UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'deal_sync'")
        check = doctor(pg)["extension"]
        assert not check.ok
        execute(pg, check.hint)
    finally:
        update.unlink()
    assert doctor(pg)["extension"].ok


def test_an_encoding_other_than_utf8_is_named(servers: Instance, pg: Connection) -> None:
    servers.psql("postgres", "-c", "DROP DATABASE IF EXISTS doctors_latin")
    servers.psql("postgres", "-c", "CREATE DATABASE doctors_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        with psycopg.connect(servers.dsn("doctors_latin"), autocommit=True, client_encoding="utf8") as latin:
            latin.execute("SET client_min_messages = warning; CREATE EXTENSION deal_sync CASCADE")
            check = doctor(latin)["encoding"]
            assert (check.ok, check.detail) == (False, "LATIN1")
            assert "UTF8" in str(check.hint)
    finally:
        servers.psql("postgres", "-c", "DROP DATABASE doctors_latin WITH (FORCE)")
    assert doctor(pg)["encoding"].ok


def test_a_setting_that_may_not_be_is_named_wherever_it_comes_from(pg: Connection, database: Database) -> None:
    pg.execute("SET deal_sync.batch_rows = 'many'")
    check = doctor(pg)["settings"]
    assert not check.ok
    assert "deal_sync.batch_rows" in check.detail
    execute(pg, check.hint)
    assert doctor(pg)["settings"].ok

    execute(pg, f"ALTER DATABASE {database.name} SET deal_sync.max_rejects = '-1'")
    execute(pg, f"ALTER DATABASE {database.name} SET deal_sync.lock_timout = '1s'")
    check = doctor(database.connect())["settings"]
    assert "deal_sync.max_rejects" in check.detail
    assert 'unknown setting "deal_sync.lock_timout"' in check.detail
    execute(pg, check.hint)
    assert doctor(database.connect())["settings"].ok


# Statements that break something, whose hint is the statement that mends it

BREAKS: dict[str, tuple[str, LiteralString, str]] = {
    "no server": ("server", "DROP SERVER neo4j CASCADE", "no server"),
    "no uri": ("server", "ALTER SERVER neo4j OPTIONS (DROP uri)", 'no option "uri"'),
    "a server of somebody": ("server", "ALTER SERVER neo4j OWNER TO app_writer", "belongs to no superuser"),
    "several servers": (
        "server",
        "DROP FOREIGN TABLE neo4j.deals, neo4j.deal_versions; CREATE SERVER a FOREIGN DATA WRAPPER neo4j"
        " OPTIONS (uri 'bolt://127.0.0.1:1')",
        "several servers",
    ),
    "no user mapping": ("user mapping", "DROP USER MAPPING FOR postgres SERVER neo4j", "has no user mapping"),
    "no foreign table": (
        "foreign tables",
        "DROP FOREIGN TABLE neo4j.deal_versions",
        "None has the option kind 'version'",
    ),
    "a foreign table of somebody": (
        "foreign tables",
        "ALTER FOREIGN TABLE neo4j.deals OWNER TO app_writer",
        "Foreign table neo4j.deals does not count",
    ),
    "a foreign table on a server of somebody": (
        "foreign tables",
        "ALTER SERVER neo4j OWNER TO app_writer",
        "does not count",
    ),
    "another validator": (
        "multicorn",
        "ALTER FOREIGN DATA WRAPPER neo4j VALIDATOR postgresql_fdw_validator",
        "postgresql_fdw_validator",
    ),
    "no row-level security": (
        "row security",
        "ALTER TABLE interaction_links DISABLE ROW LEVEL SECURITY",
        "public.interaction_links has none",
    ),
    "no policy": (
        "row security",
        "DROP POLICY opportunities_tenant_isolation ON opportunities",
        "public.opportunities has no policy",
    ),
    "a policy to read alone": (
        "row security",
        "DROP POLICY deal_versions_tenant_isolation ON deal_versions;"
        " CREATE POLICY deal_sync_tenant ON deal_versions FOR SELECT USING (true)",
        'public.deal_versions has no policy for INSERT by role "app_writer"',
    ),
    "a policy for another role": (
        "row security",
        "DROP POLICY opportunities_tenant_isolation ON opportunities;"
        " CREATE POLICY deal_sync_tenant ON opportunities TO pg_monitor USING (true)",
        'public.opportunities has no policy for SELECT, INSERT, UPDATE by role "app_writer"',
    ),
    "a policy that raises": ("policies", "SELECT 1", '"opportunities_tenant_isolation" of public.opportunities'),
    "a policy that raises where the setting is unset": (
        "policies",
        "ALTER POLICY deal_versions_tenant_isolation ON deal_versions"
        " USING (tenant_id::text = current_setting('app.tenant_id'))",
        '"deal_versions_tenant_isolation" of public.deal_versions',
    ),
    "no right to write": ("rights on tables", "REVOKE INSERT ON opportunities FROM app_writer", "INSERT on public.opp"),
    "no right to see the tenants": ("rights on tables", "REVOKE SELECT ON tenants FROM app_writer", "SELECT on public"),
    "no right to run it": (
        "rights on sync",
        "REVOKE EXECUTE ON FUNCTION sync_deals(uuid, text, boolean, boolean, text) FROM app_writer",
        "may not run",
    ),
    "no right to what it calls": (
        "rights on sync",
        "REVOKE EXECUTE ON FUNCTION _deal_sync.lock_key(uuid) FROM app_writer",
        "or not all that it calls",
    ),
    "no right to where it stands": (
        "rights on sync",
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC, app_writer",
        "may not run",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_what_is_broken_is_named_and_the_hint_mends_it(pg: Connection, graph: Graph, case: str) -> None:
    name, statement, said = BREAKS[case]
    pg.execute(statement)
    check = doctor(pg, "app_writer")[name]
    assert check.ok is False
    assert said in check.detail
    execute(pg, check.hint)
    assert doctor(pg, "app_writer")[name].ok


# Multicorn2


@pytest.mark.multicorn
def test_after_a_dump_and_restore_the_handler_is_what_is_missing(
    pg: Connection, database: Database, graph: Graph, servers: Instance, tmp_path: Path
) -> None:
    before = broken(doctor(pg, "app_writer"))
    restored = Database(servers, f"restored_{uuid.uuid4().hex}")
    restored.create("template0")
    try:
        file = tmp_path / "dump.sql"
        with file.open("w") as output:
            subprocess.run([BIN / "pg_dump", "-d", database.dsn()], stdout=output, check=True)
        servers.psql(restored.name, "-o", "/dev/null", "-f", file)
        again = restored.connect()
        checks = doctor(again, "app_writer")
        assert broken(checks) == before | {"multicorn"}
        assert "as after a restore" in checks["multicorn"].detail
        execute(again, checks["multicorn"].hint)
        assert broken(doctor(again, "app_writer")) == before
    finally:
        restored.close()


def test_a_handler_that_would_crash_the_server_is_named(pg: Connection) -> None:
    """The handler is another wrapper's, and the newer Python only said: with the real two the server would go down."""
    pg.execute(
        "CREATE EXTENSION postgres_fdw; ALTER FOREIGN DATA WRAPPER neo4j HANDLER postgres_fdw_handler;"
        "CREATE OR REPLACE FUNCTION _deal_sync.python_version(OUT number integer, OUT said text) LANGUAGE sql"
        " SET search_path = pg_catalog, pg_temp AS $$ SELECT 313, '3.13.1 of /usr' $$"
    )
    check = doctor(pg)["multicorn"]
    assert not check.ok
    assert "3.13" in check.detail
    execute(pg, check.hint)
    assert doctor(pg)["multicorn"].ok


# The server's files


def test_a_spool_folder_that_cannot_be_written_is_named(pg: Connection, servers: Instance) -> None:
    folder = servers.data / "base/pgsql_tmp"
    assert doctor(pg)["spool folder"].ok
    folder.chmod(0o500)
    try:
        checks = doctor(pg)
        assert not checks["spool folder"].ok
        assert checks["disk space"].detail == "not checked: spool folder"
        assert "chmod 700" in str(checks["spool folder"].hint)
    finally:
        folder.chmod(0o700)
    assert doctor(pg)["spool folder"].ok


@pytest.fixture
def password_file(servers: Instance, pg: Connection) -> Iterator[Path]:
    """The user mapping's; the servers' user owns it."""
    directory = servers.directory / "doctor"
    make_directory(directory, 0o755)
    path = directory / "password"
    write_private(path, servers.facts["neo4j_password"])
    execute(
        pg,
        f"ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (DROP password, ADD password_file {literal(str(path))})",
    )
    yield path
    path.unlink(missing_ok=True)
    directory.rmdir()


def test_a_user_mapping_that_holds_a_password_is_named_with_what_moves_it_into_a_file(
    pg: Connection, password_file: Path
) -> None:
    assert doctor(pg)["password file"].hint is None
    execute(pg, "CREATE USER MAPPING FOR app_writer SERVER neo4j OPTIONS (\"user\" 'x', password 'plain')")
    found = doctor(pg)["password file"]
    assert found.ok
    assert "holds the password of the user mapping for app_writer" in found.detail
    assert "plain" not in repr(found)
    execute(pg, str(found.hint))
    assert doctor(pg)["password file"].hint is None


def test_a_password_file_that_others_can_read_is_named(pg: Connection, password_file: Path) -> None:
    assert doctor(pg)["password file"].ok
    password_file.chmod(0o644)
    checks = doctor(pg)
    assert not checks["password file"].ok
    assert "0644" in checks["password file"].detail
    assert str(password_file) not in repr(checks)
    assert "chmod 600" in str(checks["password file"].hint)
    password_file.chmod(0o600)
    assert doctor(pg)["password file"].ok


def test_a_password_file_that_is_not_there_is_named_and_nobody_connects(
    pg: Connection, servers: Instance, password_file: Path
) -> None:
    password_file.unlink()
    checks = doctor(pg)
    assert not checks["password file"].ok
    assert "cannot be read" in checks["password file"].detail
    assert checks["connection"].detail == "not checked: password file"
    assert checks["clock"].detail == "not checked: connection"
    write_private(password_file, servers.facts["neo4j_password"])
    assert doctor(pg)["connection"].ok


# Reaching Neo4j


def set_uri(pg: Connection, uri: str) -> None:
    pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (SET uri {})").format(uri))


def test_a_port_where_nobody_listens_is_named_once(pg: Connection, servers: Instance) -> None:
    set_uri(pg, closed_port())
    checks = doctor(pg)
    assert checks["connection"].ok is False
    assert 'option "uri"' in str(checks["connection"].hint)
    for name in ("login", "database", *ABOUT_THE_GRAPH):
        assert (checks[name].ok, checks[name].detail) == (None, "not checked: connection")
    assert checks["target types"].ok
    set_uri(pg, servers.facts["neo4j_uri"])
    assert doctor(pg)["connection"].ok


def test_after_a_failed_connection_nobody_tries_again(pg: Connection, servers: Instance) -> None:
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        proxy.cut()
        set_uri(pg, proxy.uri)
        assert doctor(pg)["connection"].ok is False
        tries = proxy.connections
    assert 1 <= tries <= 3, "the tries of one read"


def test_a_connection_that_breaks_on_the_way_ends_the_questions(
    pg: Connection, graph: Graph, servers: Instance
) -> None:
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        set_uri(pg, proxy.uri)
        proxy.cut(at=b"SHOW INDEXES")
        checks = doctor(pg)
    assert checks["clock"].ok
    assert checks["deals: key index"].ok is False
    assert checks["deals: duplicates"].detail == "not checked: connection"


def test_a_wrong_password_is_named(pg: Connection, graph: Graph, servers: Instance) -> None:
    pg.execute("ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password 'wrong-one')")
    checks = doctor(pg)
    assert checks["connection"].ok
    assert checks["login"].ok is False
    assert "user mapping" in str(checks["login"].hint)
    assert checks["clock"].detail == "not checked: login"
    assert "wrong-one" not in repr(checks)
    right = literal(servers.facts["neo4j_password"])
    execute(pg, f"ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password {right})")
    assert doctor(pg)["login"].ok


def test_a_database_that_is_not_there_is_named(pg: Connection, graph: Graph) -> None:
    pg.execute("ALTER SERVER neo4j OPTIONS (ADD database 'nowhere')")
    checks = doctor(pg)
    assert checks["login"].ok
    assert checks["database"].ok is False
    assert 'option "database"' in str(checks["database"].hint)
    assert checks["clock"].detail == "not checked: database"
    pg.execute("ALTER SERVER neo4j OPTIONS (SET database 'neo4j')")
    assert doctor(pg)["database"].ok


def test_tls_that_takes_any_certificate_is_named(pg: Connection, graph: Graph, servers: Instance) -> None:
    assert "nothing leaves this machine" in doctor(pg)["tls"].detail
    set_uri(pg, servers.facts["neo4j_uri"].replace("bolt://127.0.0.1", f"bolt+ssc://{certificates.HOST}"))
    check = doctor(pg)["tls"]
    assert check.ok is False
    execute(pg, check.hint)
    checks = doctor(pg)
    assert checks["tls"].ok
    assert "no certificate that this server trusts" in checks["connection"].detail
    assert '"sslrootcert"' in str(checks["connection"].hint)
    root = literal(str(servers.certificates / certificates.ROOT))
    execute(pg, f"ALTER SERVER neo4j OPTIONS (ADD sslrootcert {root})")
    assert doctor(pg)["connection"].ok


def test_a_server_of_somebody_gets_no_login(pg: Connection, servers: Instance) -> None:
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        set_uri(pg, proxy.uri)
        pg.execute("ALTER SERVER neo4j OWNER TO app_writer")
        assert doctor(pg)["connection"].detail == "not checked: server"
        assert proxy.connections == 0
        execute(pg, doctor(pg)["server"].hint)
        assert doctor(pg)["connection"].ok
        assert proxy.connections > 0


def test_no_tls_to_another_machine_is_named(pg: Connection) -> None:
    set_uri(pg, f"bolt://{socket.gethostname()}.invalid:7687")
    check = doctor(pg)["tls"]
    assert check.ok is False
    execute(pg, check.hint)
    assert doctor(pg)["tls"].ok


# What the graph holds


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


def test_the_hint_for_the_versions_key_stands_in_the_way_of_no_constraint(pg: Connection, graph: Graph) -> None:
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


@pytest.mark.parametrize("other", [str.upper, lambda key: "{" + key.replace("-", "") + "}"])
def test_two_deals_with_one_key_are_named_in_any_spelling_and_over_tenants(
    pg: Connection, graph: Graph, tenant: uuid.UUID, other: Any
) -> None:
    key = str(add_deal(graph, tenant))
    assert doctor(pg)["deals: duplicates"].ok
    graph.run("CREATE (:Deal {tenant_id: $tenant, opportunity_id: $key})", tenant=str(uuid.uuid4()), key=other(key))
    check = doctor(pg)["deals: duplicates"]
    assert check.ok is False
    assert check.detail == "values of opportunity_id that several nodes share: 1; these nodes: 2; one of each lands"
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


def test_transactions_that_are_open_for_long_are_named(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    assert doctor(pg)["open transactions"].ok
    pg.execute("SET deal_sync.overlap = '200ms'")
    with graph.driver.session() as session, session.begin_transaction() as transaction:
        transaction.run("CREATE (d:Deal {tenant_id: $tenant})", tenant=str(tenant)).consume()
        time.sleep(1.2)
        check = doctor(pg)["open transactions"]
        transaction.rollback()
    assert check.ok is False
    assert check.detail.startswith("open for longer than deal_sync.overlap (200ms): neo4j-transaction-")
    assert check.detail.count("-transaction-") == 1, "our own are none"
    assert doctor(pg)["open transactions"].ok


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
    assert found.detail == "no node has deal_ref (but dealRef is there), nextstep (but nextStep is there), nobodys"
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


def test_another_graph_than_the_accepted_one_is_named(pg: Connection, graph: Graph) -> None:
    (found,) = graph.run("CALL db.info() YIELD id")
    assert found["id"] in doctor(pg)["graph id"].detail
    pg.execute("INSERT INTO deal_sync.graph (database_id) VALUES ('ANOTHER')")
    check = doctor(pg)["graph id"]
    assert check.ok is False
    assert "ANOTHER" in check.detail
    execute(pg, check.hint)
    assert doctor(pg)["graph id"].ok


# The application's tables, and who writes them


def test_a_target_table_that_is_missing_is_named(pg: Connection, servers: Instance, database: Database) -> None:
    pg.execute("DROP TABLE deal_versions")
    checks = doctor(pg)
    assert "public.deal_versions" in checks["target tables"].detail
    assert "Run the migration" in str(checks["target tables"].hint)
    assert checks["target columns"].detail == checks["policies"].detail == "not checked: target tables"
    servers.psql(
        database.name, "-c", "SET client_min_messages = warning", "-f", CHECKOUT / "sql/migration/deal_sync.sql"
    )
    assert doctor(pg)["target tables"].ok


def test_a_target_column_that_is_missing_is_named(pg: Connection) -> None:
    pg.execute("ALTER TABLE opportunities DROP COLUMN deal_ref")
    checks = doctor(pg)
    assert 'column "deal_ref"' in checks["target columns"].detail
    (statement,) = re.findall(r"ALTER FOREIGN TABLE .*?;", str(checks["target columns"].hint))
    execute(pg, statement)
    assert doctor(pg)["target columns"].ok


def test_a_target_of_another_type_is_named(pg: Connection) -> None:
    pg.execute("ALTER TABLE opportunities DROP COLUMN extraction_embedding, ADD COLUMN extraction_embedding vector(3)")
    check = doctor(pg)["target types"]
    assert check.ok is False
    assert check.detail.startswith('column "extraction_embedding"')
    execute(pg, check.hint)
    assert doctor(pg)["target types"].ok


def test_a_policy_that_was_mended_no_longer_raises_and_still_keeps_tenants_apart(
    pg: Connection, writer: Connection, tenant: uuid.UUID, graph: Graph
) -> None:
    add_deal(graph, tenant)
    assert sync(writer, tenant).status == "ok"
    writer.execute("SET app.tenant_id = ''")
    with pytest.raises(errors.InvalidTextRepresentation):
        writer.execute("SELECT FROM opportunities")
    execute(pg, doctor(pg)["policies"].hint)
    assert one(writer, "SELECT count(*) FROM opportunities") == 0
    writer.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
    assert one(writer, "SELECT count(*) FROM opportunities") == 1


def test_a_role_that_bypasses_row_level_security_is_named(pg: Connection, role: str) -> None:
    pg.execute("ALTER ROLE doctors_patient BYPASSRLS")
    check = doctor(pg, role)["role"]
    assert check.ok is False
    execute(pg, check.hint)
    assert doctor(pg, role)["role"].ok


def test_a_superuser_is_told_whose_rights_to_look_at(pg: Connection) -> None:
    check = doctor(pg)["role"]
    assert check.ok is None
    assert "deal_sync.doctor('app_writer')" in str(check.hint)


def test_a_role_that_has_nothing_yet_gets_everything_by_the_hints(
    pg: Connection, database: Database, graph: Graph, role: str
) -> None:
    checks = doctor(pg, role)
    assert checks["rights on tables"].ok is checks["rights on sync"].ok is False
    execute(pg, checks["rights on tables"].hint)
    execute(pg, checks["rights on sync"].hint)
    checks = doctor(database.connect(role))
    assert checks["rights on tables"].ok
    assert checks["rights on sync"].ok


def test_who_may_not_read_the_runs_is_told_so(pg: Connection, writer: Connection) -> None:
    pg.execute("REVOKE SELECT ON deal_sync.runs FROM app_writer")
    check = doctor(writer)["last run"]
    assert check.ok is False
    assert check.detail == '"app_writer" may not read deal_sync.runs'
    execute(pg, check.hint)
    assert "none yet" in doctor(writer)["last run"].detail


def test_nobody_calls_it_without_a_grant(pg: Connection, database: Database, role: str) -> None:
    pg.execute("GRANT USAGE ON SCHEMA deal_sync TO doctors_patient")
    other = database.connect(role)
    for call in ("deal_sync.doctor()", "_deal_sync.examine_graph(false)", "_deal_sync.package_versions()"):
        with pytest.raises(errors.InsufficientPrivilege):
            execute(other, f"SELECT {call}")


# Schedule and runs


def test_pg_cron_and_a_schedule_that_are_missing_are_named(
    servers: Instance, pg: Connection, writer: Connection
) -> None:
    for connection in (pg, writer):
        check = doctor(connection)["pg_cron"]
        assert check.ok is False
        assert '"deal_sync"' in check.detail
        assert "cron.database_name" in str(check.hint)
    with psycopg.connect(servers.dsn("deal_sync"), autocommit=True) as home:
        home.execute("SET client_min_messages = warning; DROP EXTENSION IF EXISTS pg_cron")
        home.execute("CREATE EXTENSION IF NOT EXISTS deal_sync CASCADE")
        try:
            checks = doctor(home)
            assert checks["pg_cron"].ok is False
            assert checks["schedule"].detail == "not checked: pg_cron"
            execute(home, checks["pg_cron"].hint)
            checks = doctor(home)
            assert checks["pg_cron"].ok
            assert checks["schedule"].ok is False
            assert "deal_sync.schedule(" in str(checks["schedule"].hint)
            home.execute("SELECT cron.schedule('other', '0 0 1 1 *', 'SELECT deal_sync.retain()')")
            assert doctor(home)["schedule"].ok is False
            home.execute("SELECT cron.schedule('doctor', '0 0 1 1 *', 'SELECT sync_deals(id) FROM tenants')")
            check = doctor(home)["schedule"]
            assert (check.ok, check.detail) == (True, '"doctor" at 0 0 1 1 *')
            record: LiteralString = (
                "INSERT INTO cron.job_run_details (jobid, status, return_message)"
                " SELECT jobid, %s, %s FROM cron.job WHERE jobname = 'doctor'"
            )
            home.execute(record, ["failed", "connection failed"])
            check = doctor(home)["schedule"]
            assert (check.ok, check.detail) == (False, '"doctor" at 0 0 1 1 * (failed the last time)')
            assert "cron.use_background_workers = on" in str(check.hint)
            home.execute(record, ["failed", "ERROR: 1 of 2 tenants failed"])
            assert "deal_sync.schedules" in str(doctor(home)["schedule"].hint)
            home.execute(record, ["succeeded", "CALL"])
            home.execute(record, ["running", None])
            assert doctor(home)["schedule"].ok
            home.execute("SELECT deal_sync.grant_sync('app_writer'); SET ROLE app_writer")
            check = doctor(home)["schedule"]
            assert check.ok is False
            home.execute("RESET ROLE")
            execute(home, check.hint)
            home.execute("SET ROLE app_writer")
            assert doctor(home)["schedule"].detail == "no job of this role runs the sync"
            home.execute("RESET ROLE; DROP OWNED BY app_writer")
        finally:
            home.execute("DROP EXTENSION IF EXISTS pg_cron; DROP EXTENSION deal_sync CASCADE")


def test_a_failed_run_is_named_until_it_succeeds(
    pg: Connection, writer: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    assert "none yet" in doctor(writer)["last run"].detail
    other = add_tenant(pg)
    assert sync(writer, other).status == "ok"
    set_uri(pg, closed_port())
    assert sync(writer, tenant).status == "failed"
    check = doctor(writer)["last run"]
    assert check.ok is False
    assert check.detail.startswith("tenants for which it failed: 1 of 2, the newest: no connection to Neo4j server")
    set_uri(pg, servers.facts["neo4j_uri"])
    execute(writer, check.hint)
    assert doctor(writer)["last run"].ok


def test_a_failed_run_of_a_tenant_that_is_gone_is_no_finding(
    pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    assert sync(pg, add_tenant(pg)).status == "ok"
    set_uri(pg, closed_port())
    assert sync(pg, tenant).status == "failed"
    set_uri(pg, servers.facts["neo4j_uri"])
    assert doctor(pg)["last run"].ok is False
    pg.execute("DELETE FROM tenants WHERE id = %s", [tenant])
    pg.execute("CALL deal_sync.sync_all()")
    assert doctor(pg)["last run"].ok


def test_a_run_of_long_ago_is_named(pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    assert sync(writer, tenant).status == "ok"
    pg.execute("UPDATE deal_sync.runs SET started_at = now() - interval '2 days'")
    check = doctor(writer)["last run"]
    assert check.ok is False
    assert "more than a day ago" in check.detail
    execute(writer, check.hint)
    assert doctor(writer)["last run"].ok
