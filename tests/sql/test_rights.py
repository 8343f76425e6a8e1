"""Flows in: roles with grant_sync, grant_monitor, grant_scan, or none. Flows out: what each may call and read, and no
more; and what it means that an application binds a role to a tenant.
"""

import uuid
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from support.database import Connection, Database
from support.deals import deal_node
from support.documents import PAGES
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_tenant, one, sync

MEMBERS: LiteralString = (
    "(SELECT d.classid, d.objid FROM pg_depend AS d INNER JOIN pg_extension AS e ON e.oid = d.refobjid"
    " WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'deal_sync') AS m"
)
NAME = "Jane Roe"  # somebody's data


def callable_by(pg: Connection, name: str, which: LiteralString = "true") -> set[str]:
    """The extension's routines that a role may call, as "schema.name(types)"."""
    query = (
        f"SELECT p.oid::regprocedure::text FROM pg_proc AS p INNER JOIN {MEMBERS} ON m.objid = p.oid"
        f" WHERE m.classid = 'pg_proc'::regclass AND has_function_privilege(%s, p.oid, 'EXECUTE') AND {which}"
    )
    return {routine for (routine,) in pg.execute(query.encode(), [name])}


def names(routines: set[str]) -> set[str]:
    """The names of routines, without schema and types."""
    return {routine.split("(")[0].rpartition(".")[2] for routine in routines}


def readable_by(pg: Connection, name: str) -> dict[str, set[str]]:
    """The extension's tables and views of which a role may read something, each with the columns that it may not."""
    found: dict[str, set[str]] = {}
    query = (
        "SELECT c.oid::regclass::text, a.attname, has_column_privilege(%s, c.oid, a.attnum, 'SELECT')"
        f" FROM pg_class AS c INNER JOIN {MEMBERS} ON m.classid = 'pg_class'::regclass AND m.objid = c.oid"
        " INNER JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relkind IN ('r', 'v') AND has_any_column_privilege(%s, c.oid, 'SELECT')"
    )
    for relation, column, may in pg.execute(query.encode(), [name, name]):
        found.setdefault(relation, set()).update(() if may else (column,))
    return found


@pytest.fixture
def watcher(pg: Connection) -> Iterator[str]:
    """A role with grant_monitor and nothing else."""
    with role(pg, fresh("monitor")) as name:
        pg.execute("SELECT deal_sync.grant_monitor(%s::regrole)", [name])
        yield name


@pytest.fixture
def rejected(pg: Connection, graph: Graph, tenant: uuid.UUID) -> uuid.UUID:
    """A tenant with a run that rejected a deal whose key is somebody's name, and a value with one."""
    deal_node(graph, tenant, opportunity_id=NAME)
    deal_node(graph, tenant, meddic_completeness=NAME)
    assert sync(pg, tenant).status == "partial"
    pg.execute("UPDATE deal_sync.runs SET server_text = %s", [NAME])
    return tenant


# Every routine and who may call it


def test_a_role_without_a_grant_calls_nothing(pg: Connection) -> None:
    with role(pg, fresh("stranger")) as stranger:
        assert callable_by(pg, stranger) == set()
        assert readable_by(pg, stranger) == {}


def test_what_changes_the_set_up_or_decides_about_the_graph_is_not_the_syncs(pg: Connection) -> None:
    """A new routine is the sync's, or is listed here."""
    owners = {"attach", "create_mapping", "detach", "set_handler", "grant_sync", "grant_monitor", "grant_scan"}
    owners |= {"accept_graph", "replace_graph", "forget", "unbar", "remove_tenant", "bar", "remove_bar"}
    scans = {"scan", "scan_rows", "import_schema", "import_statements"}
    with role(pg, fresh("clerk")) as clerk:
        pg.execute("SELECT deal_sync.grant_sync(%s::regrole)", [clerk])
        there = callable_by(pg, "postgres")
        assert names(there - callable_by(pg, clerk)) == (owners | scans) & names(there)
        assert {"sync_deals", "sync_all", "schedule", "unschedule", "doctor"} <= names(callable_by(pg, clerk))


def test_the_functions_with_the_owners_rights_that_the_sync_may_not_call_are_those_of_the_documentation(
    pg: Connection,
) -> None:
    """A new one is granted with the sync unless it is listed: security.md says which are not."""
    listed = {
        name
        for line in PAGES["security.md"].splitlines()
        if line.startswith("| `") and "not for the sync's role" in line
        for name in line.split("|")[1].replace("`", "").strip().split(", ")
    }
    with role(pg, fresh("clerk")) as clerk:
        pg.execute("SELECT deal_sync.grant_sync(%s::regrole)", [clerk])
        withheld = callable_by(pg, "postgres", "p.prosecdef") - callable_by(pg, clerk)
    assert "replace_graph" in listed
    assert names(withheld) == listed


def test_a_function_that_somebody_put_into_the_schema_is_not_given_away(pg: Connection) -> None:
    pg.execute("CREATE FUNCTION deal_sync.mine() RETURNS void SECURITY DEFINER LANGUAGE sql AS 'SELECT'")
    pg.execute("REVOKE EXECUTE ON FUNCTION deal_sync.mine() FROM PUBLIC")
    with role(pg, fresh("clerk")) as clerk:
        pg.execute("SELECT deal_sync.grant_sync(%s::regrole)", [clerk])
        assert one(pg, "SELECT has_function_privilege(%s, 'deal_sync.mine()', 'EXECUTE')", clerk) is False


def test_who_reads_the_graph_calls_nothing_with_the_owners_rights(pg: Connection) -> None:
    with role(pg, fresh("reader")) as reader:
        pg.execute("SELECT deal_sync.grant_scan(%s::regrole)", [reader])
        assert callable_by(pg, reader, "p.prosecdef") == set()
        assert {"scan", "import_schema"} <= names(callable_by(pg, reader))
        assert readable_by(pg, reader) == {"deal_sync.connections": set()}


def test_a_monitor_calls_what_the_views_call(pg: Connection, watcher: str) -> None:
    assert callable_by(pg, watcher) == {
        "_deal_sync.setting(text)",
        "deal_sync.settings()",
        "_deal_sync.running()",
        "_deal_sync.scheduled_jobs()",
    }


# What a monitor sees


def test_a_monitor_reads_the_status_and_the_log_without_what_can_hold_peoples_data(
    pg: Connection, watcher: str
) -> None:
    assert readable_by(pg, watcher) == {
        "deal_sync.tenant_status": set(),
        "deal_sync.metrics": set(),
        "deal_sync.progress": set(),
        "deal_sync.schedules": set(),
        "deal_sync.runs": {"server_text"},
        "deal_sync.rejects": {"value", "server_text", "graph_id"},
    }


def test_a_monitor_writes_nothing(pg: Connection, watcher: str) -> None:
    query = (
        f"SELECT c.relname FROM pg_class AS c INNER JOIN {MEMBERS} ON m.objid = c.oid"
        " WHERE m.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'v')"
        " AND has_table_privilege(%s, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')"
    )
    assert pg.execute(query.encode(), [watcher]).fetchall() == []


def test_nobodys_data_is_in_what_a_monitor_reads(
    database: Database, pg: Connection, watcher: str, rejected: uuid.UUID
) -> None:
    hidden = [*pg.execute("TABLE deal_sync.rejects"), *pg.execute("TABLE deal_sync.runs")]
    assert sum(str(row).count(NAME) for row in hidden) > 3, "the test did not provoke what it should"
    with psycopg.connect(database.dsn(watcher), autocommit=True) as monitor:
        read: list[Any] = []
        for relation, without in readable_by(pg, watcher).items():
            columns = {
                name
                for (name,) in pg.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", [relation]
                )
            }
            listed = sql.SQL(", ").join(map(sql.Identifier, sorted(columns - without)))
            schema, name = relation.split(".")
            read += monitor.execute(sql.SQL("SELECT {} FROM {}").format(listed, sql.Identifier(schema, name)))
        for column in ("value", "server_text", "graph_id", "*"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                monitor.execute(f"SELECT {column} FROM deal_sync.rejects".encode())
    assert str(rejected) in str(read)
    assert "meddic_completeness" in str(read)
    assert NAME not in str(read)


# A role that its application binds to a tenant


def test_a_role_of_the_application_sees_nothing_of_runs_and_rejects(
    database: Database, pg: Connection, rejected: uuid.UUID
) -> None:
    with (
        role(pg, fresh("clerk"), "SELECT ON tenants, opportunities, deal_versions, interaction_links") as clerk,
        database.connect(clerk) as session,
    ):
        session.execute("SELECT set_config('app.tenant_id', %s, false)", [str(rejected)])
        assert one(session, "SELECT count(*) FROM opportunities") == 1
        for relation in ("runs", "rejects", "tenant_status", "metrics", "reconciliations"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT FROM deal_sync.{relation}".encode())


def test_app_tenant_id_is_no_boundary_and_a_constant_is(
    database: Database, pg: Connection, graph: Graph, rejected: uuid.UUID
) -> None:
    """Whoever may run SET is bound to no tenant: not in the application's tables, and not in a view over the log."""
    other = add_tenant(pg)
    sync(pg, other)
    by_setting = "tenant_id = current_setting('app.tenant_id')::uuid"
    view = "CREATE VIEW {} WITH (security_barrier) AS SELECT tenant_id, status FROM deal_sync.runs WHERE {}"
    pg.execute(view.format("by_setting", by_setting).encode())
    pg.execute(view.format("by_constant", f"tenant_id = '{other}'").encode())
    with (
        role(pg, fresh("clerk"), "SELECT ON by_setting, by_constant, opportunities") as clerk,
        database.connect(clerk, options=f"-c app.tenant_id={other}") as session,
    ):
        assert one(session, "SELECT count(*) FROM opportunities") == 0
        assert one(session, "SELECT tenant_id FROM by_setting") == other
        session.execute("SELECT set_config('app.tenant_id', %s, false)", [str(rejected)])
        assert one(session, "SELECT count(*) FROM opportunities") == 1
        assert one(session, "SELECT tenant_id FROM by_setting") == rejected
        assert one(session, "SELECT tenant_id FROM by_constant") == other
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT FROM deal_sync.runs")
