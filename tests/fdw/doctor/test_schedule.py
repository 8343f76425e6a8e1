"""Flows in: neo4j_deals.doctor.schedule, without jobs, and after runs of every kind. Flows out: what it names."""

import uuid
from typing import LiteralString

import psycopg
from environment.servers import Instance
from support.database import Connection, execute
from support.doctor import doctor, set_uri
from support.graph import Graph
from support.proxy import closed_port
from support.sync import add_tenant, sync


def test_a_role_that_may_not_read_the_runs_is_reported(pg: Connection, writer: Connection) -> None:
    pg.execute("REVOKE SELECT ON deal_sync.runs FROM app_writer")
    check = doctor(writer)["last run"]
    assert check.ok is False
    assert check.detail == '"app_writer" may not read deal_sync.runs'
    execute(pg, check.hint)
    assert "no run yet" in doctor(writer)["last run"].detail


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
            assert (check.ok, check.detail) == (False, '"doctor" at 0 0 1 1 * (its last run failed)')
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
    assert "no run yet" in doctor(writer)["last run"].detail
    other = add_tenant(pg)
    assert sync(writer, other).status == "ok"
    set_uri(pg, closed_port())
    assert sync(writer, tenant).status == "failed"
    check = doctor(writer)["last run"]
    assert check.ok is False
    assert check.detail.startswith("it failed for 1 of 2 tenants; the last error: could not connect to Neo4j server")
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
