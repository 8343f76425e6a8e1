"""Flows in: neo4j_deals.doctor.runner, on set-ups with one thing broken, or several.
Flows out: the checks in their order, and that a check's hint, when it is followed, makes it pass.
"""

import uuid
from itertools import groupby
from pathlib import Path
from typing import LiteralString

import pytest
from environment.servers import Instance
from neo4j_deals.doctor.runner import CHECKS
from psycopg import errors, sql
from support.database import Connection, Database, execute, new_database
from support.deals import full_deal
from support.doctor import INDEXES, NAMES, broken, cypher, doctor
from support.graph import Graph
from support.proxy import full_backlog
from support.sync import add_deal, add_version, sync


def test_a_check_has_a_name_of_its_own_asks_a_question_and_needs_only_checks_before_it() -> None:
    names = ["python", "package", "extension"]  # those that SQL makes
    for check in CHECKS:
        assert check.name not in names
        assert set(check.needs) <= set(names), check.name
        assert "?" in str(check.find.__doc__), check.name
        names.append(check.name)


def test_the_checks_with_the_owners_rights_are_made_in_one_go() -> None:
    assert [whose for whose, _ in groupby(check.with_owners_rights for check in CHECKS)] == [False, True, False]


#: What a test's database lacks before anything is broken: pg_cron runs in another one.
NO_SCHEDULE = {"pg_cron", "schedule"}


# -- Everything --------------------------------------------------------------------------------------------------------


def test_the_checks_have_a_fixed_order_and_a_sound_set_up_passes_all(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID, password_file: Path
) -> None:
    """A sound set-up has its password in a file, not in the catalog."""
    everything = {name: value for name, value in full_deal().items() if name != "forecast_score"}
    add_version(graph, tenant, add_deal(graph, tenant, **everything), **everything)
    checks = doctor(pg)
    assert list(checks) == NAMES
    for name in INDEXES:
        cypher(graph, checks[name].hint)
    graph.run("CALL db.awaitIndexes()")
    execute(pg, checks["policies"].hint)
    assert sync(writer, tenant).status == "ok"

    checks = doctor(writer)
    assert list(checks) == NAMES
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


def test_nothing_set_up_yet_is_no_error(servers: Instance) -> None:
    with new_database(servers) as bare:
        pg = bare.connect()
        pg.execute("SET client_min_messages = warning; CREATE EXTENSION deal_sync CASCADE")
        checks = doctor(pg)
        assert list(checks) == NAMES
        assert {"foreign tables", "server", "last run"} <= broken(checks)
        assert checks["target tables"].detail == "not checked: foreign tables"
        assert checks["user mapping"].detail == "not checked: server"


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


def test_nobody_calls_it_without_a_grant(pg: Connection, database: Database, role: str) -> None:
    pg.execute("GRANT USAGE ON SCHEMA deal_sync TO doctors_patient")
    other = database.connect(role)
    for call in ("deal_sync.doctor()", "_deal_sync.examine_graph(false)", "_deal_sync.package_versions()"):
        with pytest.raises(errors.InsufficientPrivilege):
            execute(other, f"SELECT {call}")


# -- Statements that break something, whose hint is the statement that fixes it ----------------------------------------


BREAKS: dict[str, tuple[str, LiteralString, str]] = {
    "no server": ("server", "DROP SERVER neo4j CASCADE", "no server"),
    "no uri": ("server", "ALTER SERVER neo4j OPTIONS (DROP uri)", 'no option "uri"'),
    "a server of somebody": ("server", "ALTER SERVER neo4j OWNER TO app_writer", "belongs neither to a superuser"),
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
        "No foreign table has the option kind 'version'",
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
        "off for public.interaction_links",
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
        'public.deal_versions has no policy that allows INSERT to role "app_writer"',
    ),
    "a policy for another role": (
        "row security",
        "DROP POLICY opportunities_tenant_isolation ON opportunities;"
        " CREATE POLICY deal_sync_tenant ON opportunities TO pg_monitor USING (true)",
        'public.opportunities has no policy that allows SELECT, INSERT, UPDATE to role "app_writer"',
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
        "REVOKE EXECUTE ON FUNCTION sync_deals(uuid, text, boolean, boolean) FROM app_writer",
        "may not run",
    ),
    "no right to what it calls": (
        "rights on sync",
        "REVOKE EXECUTE ON FUNCTION _deal_sync.lock_key(uuid) FROM app_writer",
        "or a function that it calls",
    ),
    "no right to where it stands": (
        "rights on sync",
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC, app_writer",
        "may not run",
    ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_what_is_broken_is_named_and_the_hint_fixes_it(pg: Connection, graph: Graph, case: str) -> None:
    name, statement, said = BREAKS[case]
    pg.execute(statement)
    check = doctor(pg, "app_writer")[name]
    assert check.ok is False
    assert said in check.detail
    execute(pg, check.hint)
    assert doctor(pg, "app_writer")[name].ok
