"""Flows in: a database in which pg_cron runs, and others in which it does not. Flows out: what schedule() creates and
rejects, when a job runs next, and what a real tick of the clock does.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
import pytest
from environment import database as environment_database
from environment.servers import CRON_DATABASE, Instance, claimed
from psycopg import errors
from support.backend import await_true
from support.database import Connection
from support.doctor import doctor
from support.documents import PAGES
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_deal, add_tenant, one

SCHEDULING = PAGES["how-to/schedule.md"]
HOME = CRON_DATABASE
TICK = 75  # seconds in which a minute begins, and a short run ends


@pytest.fixture(scope="module")
def home(servers: Instance) -> Iterator[str]:
    """The one database of the cluster in which pg_cron runs, set up as a user would.

    It is not dropped: pg_cron's launcher is connected to it.
    """
    environment_database.empty(servers, HOME)
    environment_database.set_up(servers, HOME)
    yield HOME
    environment_database.empty(servers, HOME)


@pytest.fixture
def cron(servers: Instance, home: str, graph: Graph) -> Iterator[Connection]:
    """The superuser's connection there; no job and no row at its beginning."""
    with emptied(servers, home) as connection:
        yield connection


@contextmanager
def emptied(servers: Instance, home: str) -> Iterator[Connection]:
    with psycopg.connect(servers.dsn(home), autocommit=True) as connection:
        connection.execute("SELECT cron.unschedule(jobid) FROM cron.job")
        connection.execute("TRUNCATE cron.job_run_details, tenants, deal_sync.runs, _deal_sync.graph_tenants CASCADE")
        connection.execute("TRUNCATE deal_sync.reconciliations")
        yield connection
        connection.execute("SELECT cron.unschedule(jobid) FROM cron.job")


def jobs(connection: Connection) -> list[tuple[str, str, str]]:
    return connection.execute("SELECT jobname, schedule, command FROM cron.job ORDER BY jobname").fetchall()


# What is made


def test_the_job_of_the_documentation_keeps_pg_crons_record_from_growing(cron: Connection) -> None:
    (statement,) = re.findall(r"^SELECT cron\.schedule\(.*?\$\$\);$", SCHEDULING, re.M | re.S)
    cron.execute(str(statement).encode())
    cron.execute(
        "INSERT INTO cron.job_run_details (jobid, runid, end_time)"
        " VALUES (1, 1, now() - interval '8 days'), (1, 2, now() - interval '6 days')"
    )
    [(name, _, command)] = jobs(cron)
    assert name == "purge job_run_details"
    cron.execute(command.encode())
    assert cron.execute("SELECT runid FROM cron.job_run_details").fetchall() == [(2,)]


def test_all_tenants_and_the_night(cron: Connection) -> None:
    cron.execute("SELECT deal_sync.schedule('*/5 * * * *')")
    expected = [
        ("deal_sync deal_sync", "*/5 * * * *", "CALL deal_sync.sync_all(quiet => true)"),
        ("deal_sync nightly deal_sync", "17 2 * * *", "CALL deal_sync.nightly()"),
    ]
    assert jobs(cron) == expected
    cron.execute("SELECT deal_sync.schedule('*/5 * * * *')")
    assert jobs(cron) == expected


def test_once_more_replaces(cron: Connection) -> None:
    cron.execute("SELECT deal_sync.schedule('*/5 * * * *')")
    cron.execute("SELECT deal_sync.schedule('*/2 * * * *', nightly => NULL)")
    assert [(name, schedule) for name, schedule, _ in jobs(cron)] == [("deal_sync deal_sync", "*/2 * * * *")]


def test_one_tenant_beside_all_and_away_again(cron: Connection) -> None:
    tenant, other = add_tenant(cron), add_tenant(cron)
    cron.execute("SELECT deal_sync.schedule('0 * * * *')")
    for one_of_two in (tenant, other):
        cron.execute("SELECT deal_sync.schedule('* * * * *', %s, nightly => NULL)", [one_of_two])
    commands = {name: command for name, _, command in jobs(cron)}
    assert commands[f"deal_sync {tenant.hex} deal_sync"] == (
        f"CALL deal_sync.sync_all(quiet => true, tenant => '{tenant}')"
    )
    assert one(cron, "SELECT deal_sync.unschedule(%s)", tenant) == 1
    assert {name for name, _, _ in jobs(cron)} == set(commands) - {f"deal_sync {tenant.hex} deal_sync"}


def test_several_jobs_share_the_tenants_and_fewer_replace_them(cron: Connection) -> None:
    shared = "CALL deal_sync.sync_all(quiet => true, shared => true)"
    night = ("deal_sync nightly deal_sync", "17 2 * * *", "CALL deal_sync.nightly()")
    rows = cron.execute("SELECT job, task, tenant_id FROM deal_sync.schedule('* * * * *', jobs => 3)").fetchall()
    names = ["deal_sync deal_sync", "deal_sync job 2 deal_sync", "deal_sync job 3 deal_sync"]
    assert jobs(cron) == [*((name, "* * * * *", shared) for name in names), night]
    assert set(rows) == {*((name, "sync", None) for name in names), (night[0], "full run and reconcile", None)}
    cron.execute("SELECT deal_sync.schedule('* * * * *', jobs => 2)")
    assert [name for name, *_ in jobs(cron)] == [*names[:2], night[0]]
    cron.execute("SELECT deal_sync.schedule('* * * * *')")
    assert jobs(cron) == [(names[0], "* * * * *", "CALL deal_sync.sync_all(quiet => true)"), night]
    cron.execute("SELECT deal_sync.schedule('* * * * *', nightly => NULL, jobs => 32)")
    assert one(cron, "SELECT deal_sync.unschedule()") == 32


@pytest.mark.parametrize("number", [None, 0, -1, 33])
def test_a_number_of_jobs_that_makes_no_sense_is_rejected(number: int | None, cron: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match='argument "jobs" must be between 1 and 32'):
        cron.execute("SELECT deal_sync.schedule('* * * * *', jobs => %s)", [number])
    assert jobs(cron) == []


def test_one_tenant_has_one_job(cron: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="the sync of one tenant is one job"):
        cron.execute("SELECT deal_sync.schedule('* * * * *', %s, jobs => 2)", [add_tenant(cron)])


def test_a_server_that_cannot_run_so_many_jobs_at_once_is_said_with_the_setting(cron: Connection) -> None:
    """Its pg_cron logs in, or uses workers, as the tests' servers have it."""
    said: list[tuple[str | None, ...]] = []
    cron.add_notice_handler(lambda it: said.append((it.message_primary, it.message_detail, it.message_hint)))
    cron.execute("SELECT deal_sync.schedule('* * * * *', jobs => 32)")
    few = [words for words in said if str(words[0]).startswith("pg_cron cannot run")]
    setting, at_once = cron.execute("SELECT too_few, at_once FROM _deal_sync.cron_facts()").fetchone() or ("", 0)
    assert at_once <= 32
    due = int(one(cron, "SELECT current_setting(%s)", setting)) + 33 - at_once
    assert few == [
        (
            "pg_cron cannot run 33 jobs at the same time",
            f"{setting} lets it run {at_once}, and other jobs need some, too.",
            f"ALTER SYSTEM SET {setting} = {due}; then restart the server.",
        )
    ]
    said.clear()
    cron.execute("SELECT deal_sync.schedule('* * * * *', jobs => %s)", [at_once - 1])
    assert not [words for words in said if str(words[0]).startswith("pg_cron cannot run")]


def test_unschedule_takes_all_of_ours_and_nobody_elses(cron: Connection) -> None:
    cron.execute("SELECT cron.schedule('deal_sync deal_sync of mine', '0 0 1 1 *', 'SELECT 1')")
    cron.execute("SELECT deal_sync.schedule('0 * * * *')")
    cron.execute("SELECT deal_sync.schedule('0 * * * *', %s)", [add_tenant(cron)])
    assert one(cron, "SELECT count(*) FROM deal_sync.schedules") == 4
    assert one(cron, "SELECT deal_sync.unschedule()") == 4
    assert [name for name, _, _ in jobs(cron)] == ["deal_sync deal_sync of mine"]
    assert one(cron, "SELECT deal_sync.unschedule()") == 0


def test_schedules_shows_what_runs_when(cron: Connection) -> None:
    cron.execute("SELECT deal_sync.schedule('30 4 * * *')")
    rows = cron.execute(
        "SELECT task, tenant_id, schedule, active, owner, next_run, last_status FROM deal_sync.schedules"
    ).fetchall()
    assert [(*row[:5], row[6]) for row in rows] == [
        ("sync", None, "30 4 * * *", True, "postgres", None),
        ("full run and reconcile", None, "17 2 * * *", True, "postgres", None),
    ]
    now = datetime.now(UTC)
    for row, time in zip(rows, ((4, 30), (2, 17)), strict=True):
        due = row[5].astimezone(UTC)
        assert (due.hour, due.minute) == time
        assert 0 <= (due - now).total_seconds() <= 24 * 3600


def test_a_schedule_that_somebody_altered_to_one_that_never_fires_has_no_next_run(cron: Connection) -> None:
    cron.execute("SELECT deal_sync.schedule('30 4 * * *', nightly => NULL)")
    cron.execute("UPDATE cron.job SET schedule = '0 0 30 2 *'")
    assert one(cron, "SELECT next_run FROM deal_sync.schedules") is None


# What is rejected


@pytest.mark.parametrize(
    "schedule", ["", "every minute", "61 * * * *", "* * * *", "* * * * * *", "0 seconds", "0 0 30 2 *"]
)
def test_what_is_no_schedule_is_rejected(schedule: str, cron: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="invalid schedule: ") as raised:
        cron.execute("SELECT deal_sync.schedule(%s)", [schedule])
    assert "every five minutes" in str(raised.value.diag.message_hint)
    assert str(raised.value.diag.message_primary).startswith('argument "cron": ')
    with pytest.raises(errors.InvalidParameterValue, match=r'^argument "nightly": invalid schedule: '):
        cron.execute("SELECT deal_sync.schedule('* * * * *', nightly => %s)", [schedule])
    assert jobs(cron) == []


@pytest.mark.parametrize("schedule", ["30 seconds", "0 0 $ * *"])
def test_a_form_that_this_pg_cron_is_too_old_for(schedule: str, cron: Connection) -> None:
    if (one(cron, "SELECT (_deal_sync.cron_facts()).version")) >= 1.5:
        pytest.skip("this machine has a newer pg_cron")
    with pytest.raises(
        errors.FeatureNotSupported, match=r"pg_cron 1\.4 (does not support schedules in seconds|does not support \$)"
    ) as raised:
        cron.execute("SELECT deal_sync.schedule(%s)", [schedule])
    assert "pg_cron 1.5" in str(raised.value.diag.message_hint)


def test_in_another_database_it_says_what_to_run_where(pg: Connection, cron: Connection) -> None:
    with pytest.raises(errors.ObjectNotInPrerequisiteState) as raised:
        pg.execute("SELECT deal_sync.schedule('* * * * *')")
    here = pg.info.dbname
    assert raised.value.diag.message_primary == f'pg_cron runs in database "{HOME}", not in "{here}"'
    statement = str(raised.value.diag.message_hint).partition(f"In database {HOME}: ")[2].partition("; or ")[0]
    cron.execute(statement.encode())
    assert one(cron, "SELECT database FROM cron.job") == here
    assert jobs(cron) == [(f"deal_sync {here}", "* * * * *", "CALL deal_sync.sync_all(quiet => true)")]


def test_without_the_extension_it_says_so(cron: Connection) -> None:
    cron.execute("BEGIN")
    cron.execute("DROP EXTENSION pg_cron")
    assert one(cron, "SELECT count(*) FROM deal_sync.schedules") == 0
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="is not installed in this database") as raised:
        cron.execute("SELECT deal_sync.schedule('* * * * *')")
    assert raised.value.diag.message_hint == "CREATE EXTENSION pg_cron;"
    cron.execute("ROLLBACK")


def test_a_server_that_does_not_load_it_says_what_to_set(cron: Connection) -> None:
    """A server without it has no such setting; here it is hidden from the function that looks for it."""
    cron.execute("BEGIN")
    source = one(cron, "SELECT pg_get_functiondef('_deal_sync.cron_facts'::regproc)")
    cron.execute(source.replace("'cron.database_name'", "'cron.no_such_setting'"))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="is not loaded by this server") as raised:
        cron.execute("SELECT deal_sync.schedule('* * * * *')")
    assert "shared_preload_libraries" in str(raised.value.diag.message_hint)
    cron.execute("ROLLBACK")


def test_a_role_without_rights_on_it_gets_the_grant_as_a_hint(cron: Connection, servers: Instance, home: str) -> None:
    with psycopg.connect(servers.dsn(home, "app_writer"), autocommit=True) as writer:
        with pytest.raises(errors.InsufficientPrivilege) as raised:
            writer.execute("SELECT deal_sync.schedule('* * * * *')")
        cron.execute(str(raised.value.diag.message_hint).encode())
        writer.execute("SELECT deal_sync.schedule('* * * * *')")
        assert one(cron, "SELECT array_agg(DISTINCT owner) FROM deal_sync.schedules") == ["app_writer"]
        assert one(writer, "SELECT deal_sync.unschedule()") == 2
    cron.execute("REVOKE USAGE ON SCHEMA cron FROM app_writer")


def test_a_tenant_that_the_application_does_not_know_is_rejected(cron: Connection) -> None:
    with pytest.raises(errors.ForeignKeyViolation, match="is not in table"):
        cron.execute("SELECT deal_sync.schedule('* * * * *', %s)", [uuid.uuid4()])
    assert jobs(cron) == []


def test_whose_rights_the_jobs_have_and_who_else_has_them_is_said(
    cron: Connection, servers: Instance, home: str
) -> None:
    said: list[str | None] = []
    cron.execute("GRANT USAGE ON SCHEMA cron TO app_writer")
    with psycopg.connect(servers.dsn(home, "app_writer"), autocommit=True) as writer:
        for connection in (writer, cron):
            connection.add_notice_handler(lambda it: said.append(it.message_primary))
        writer.execute("SELECT deal_sync.schedule('* * * * *')")
        assert said == []
        cron.execute("SELECT deal_sync.schedule('0 0 1 1 *')")
        assert said == [
            'the jobs run as role "postgres", which bypasses row-level security',
            "the same sync is also scheduled by another role: app_writer",
        ]
        assert one(writer, "SELECT deal_sync.unschedule()") == 2
        assert {owner for (owner,) in cron.execute("SELECT owner FROM deal_sync.schedules")} == {"postgres"}
    cron.execute("REVOKE USAGE ON SCHEMA cron FROM app_writer")


def test_without_its_launcher_no_job_starts_and_a_restart_is_the_hint() -> None:
    gone = "the pg_cron launcher is not running, so no job starts"
    with claimed("test", neo4j=False) as own:
        environment_database.create(own, HOME)
        for statement in (f"DROP DATABASE {HOME} WITH (FORCE)", f"CREATE DATABASE {HOME}"):
            own.psql("postgres", "-c", statement)
        environment_database.set_up(own, HOME)
        with psycopg.connect(own.dsn(HOME), autocommit=True) as pg:
            pg.execute("CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO app_writer")
        with psycopg.connect(own.dsn(HOME, "app_writer"), autocommit=True) as writer:
            if one(writer, "SELECT (_deal_sync.cron_facts()).version >= 1.6"):
                assert await_true(lambda: bool(doctor(writer)["pg_cron"].ok), seconds=10)
                pytest.skip("this machine's pg_cron restarts its launcher")
            said: list[tuple[str | None, str | None]] = []
            writer.add_notice_handler(lambda it: said.append((it.message_primary, it.message_hint)))
            writer.execute("SELECT deal_sync.schedule('* * * * *')")
            assert said == [(gone, "Restart the server.")]
            check = doctor(writer)["pg_cron"]
            assert (check.ok, check.hint) == (False, "Restart the server.")
            assert gone in check.detail
        own.restart_postgresql()
        with psycopg.connect(own.dsn(HOME, "app_writer"), autocommit=True) as writer:
            assert await_true(lambda: bool(doctor(writer)["pg_cron"].ok), seconds=10)
            said.clear()
            writer.add_notice_handler(lambda it: said.append((it.message_primary, it.message_hint)))
            writer.execute("SELECT deal_sync.schedule('* * * * *')")
            assert said == []


# When it runs next

MOMENT = "2026-03-07 13:59:30+00"


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("* * * * *", "2026-03-07 14:00:00+00"),
        ("*/5 * * * *", "2026-03-07 14:00:00+00"),
        ("59 13 * * *", "2026-03-08 13:59:00+00"),
        ("0 0 1 * *", "2026-04-01 00:00:00+00"),
        ("15 9 * * mon-fri", "2026-03-09 09:15:00+00"),
        ("0 0 13 * 5", "2026-03-13 00:00:00+00"),
        ("0 0 20 * 1", "2026-03-09 00:00:00+00"),  # one of the two is enough
        ("0 0 $ * *", "2026-03-31 00:00:00+00"),
        ("@hourly", "2026-03-07 14:00:00+00"),
        ("30 seconds", "2026-03-07 14:00:00+00"),
        ("@reboot", None),
    ],
)
def test_the_next_run(schedule: str, due: str | None, pg: Connection) -> None:
    query: LiteralString = "SELECT _deal_sync.next_run(%s, %s, 'GMT') IS NOT DISTINCT FROM %s::timestamptz"
    assert one(pg, query, schedule, MOMENT, due)


def test_the_next_run_goes_by_pg_crons_own_time_zone(pg: Connection) -> None:
    pg.execute("SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'")
    query: LiteralString = "SELECT _deal_sync.next_run('0 3 * * *', %s::timestamptz, 'Europe/Berlin') = %s::timestamptz"
    assert one(pg, query, MOMENT, "2026-03-08T02:00:00+00:00")


# A real tick


@dataclass(frozen=True)
class Minute:
    """What a real minute left: of tenants of whom one fails; on another server, of one that was being synced."""

    cron: Connection
    good: uuid.UUID
    bad: uuid.UUID
    busy: Connection


@pytest.fixture(scope="module")
def minute(servers: Instance, home: str, all_graph: Graph) -> Iterator[Minute]:
    """One minute for all tests of it."""
    all_graph.clear()
    with emptied(servers, home) as cron, claimed("test", neo4j=False) as other, ExitStack() as stack:
        environment_database.create(other, HOME)
        environment_database.follow_neo4j(other, HOME, servers)
        busy = stack.enter_context(psycopg.connect(other.dsn(HOME), autocommit=True))
        busy.execute("CREATE EXTENSION pg_cron")
        tenant = add_tenant(busy)
        add_deal(all_graph, tenant)
        holder = stack.enter_context(psycopg.connect(other.dsn(HOME)))
        holder.execute("SELECT sync_deals(%s)", [tenant])
        all_graph.clear()  # the other server's job would come upon this tenant

        good, bad = add_tenant(cron), add_tenant(cron)
        for tenant_of_two in (good, bad):
            add_deal(all_graph, tenant_of_two)
        cron.execute(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF NEW.tenant_id = '{bad}' THEN PERFORM 1 FROM not_there; END IF; RETURN NEW; END $$".encode()
        )
        cron.execute("CREATE TRIGGER fail BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION fail()")
        try:
            busy.execute("SELECT deal_sync.schedule('* * * * *', %s, nightly => NULL)", [tenant])
            cron.execute("SELECT deal_sync.schedule('* * * * *', nightly => NULL)")
            ended: LiteralString = (
                "SELECT count(*) FROM deal_sync.schedules WHERE last_status IN ('failed', 'succeeded')"
            )
            assert await_true(lambda: one(busy, ended), seconds=TICK)
            busy.execute("SELECT deal_sync.unschedule()")
            failed: LiteralString = "SELECT count(*) FROM deal_sync.schedules WHERE last_status = 'failed'"
            assert await_true(lambda: one(cron, failed), seconds=TICK)
        finally:
            cron.execute("DROP TRIGGER fail ON opportunities")
        yield Minute(cron, good, bad, busy)


def test_a_real_minute_syncs_one_tenant_fails_another_and_keeps_the_record(minute: Minute, servers: Instance) -> None:
    cron, good, bad = minute.cron, minute.good, minute.bad
    runs: dict[Any, Any] = dict(cron.execute("SELECT tenant_id, status FROM deal_sync.runs").fetchall())
    assert runs == {good: "ok", bad: "failed"}
    details = one(cron, "SELECT return_message FROM cron.job_run_details")
    for part in ("1 of 2 tenants failed", str(bad), "SQLSTATE 42P01"):
        assert part in details
    assert one(cron, "SELECT last_message FROM deal_sync.schedules") == details
    with role(cron, fresh("monitor")) as name:
        cron.execute("SELECT deal_sync.grant_monitor(%s::regrole)", [name])
        with psycopg.connect(servers.dsn(HOME, name)) as monitor:
            seen = monitor.execute("SELECT last_status, last_message FROM deal_sync.schedules").fetchall()
    assert seen == [("failed", None)]  # the server's words are its owner's
    states: dict[Any, Any] = dict(cron.execute("SELECT tenant_id, state FROM deal_sync.tenant_status").fetchall())
    assert states == {good: "up to date", bad: "failing"}
    assert one(cron, "SELECT bool_and(next_run > now()) FROM deal_sync.tenant_status")


def test_a_tick_that_meets_a_run_steps_aside_and_is_no_failure(minute: Minute) -> None:
    assert one(minute.busy, "SELECT status FROM cron.job_run_details") == "succeeded"
    assert one(minute.busy, "SELECT status FROM deal_sync.runs") == "skipped"
