"""Flows in: runs, rejects and reconciliations, and a run that is under way. Flows out: what the views show of them,
also to a monitor, and what psql shows.
"""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from support.backend import await_true, running
from support.database import Connection, Database
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_deal, add_tenant, add_version, one, sync

ADD_RUN: LiteralString = (
    "INSERT INTO deal_sync.runs SELECT gen_random_uuid(), %s, 'full', %s, now() - %s, 0.1,"
    " 7, 1, 2, 0, 0, 3, 0, 0, 0, NULL, %s, NULL, 'words of Acme'"
)

STATES = ("up to date", "late", "failing", "backing off", "never synced", "unknown")


def add_run(pg: Connection, tenant: uuid.UUID, status: str, age: timedelta) -> None:
    """A run as it was some time ago."""
    pg.execute(ADD_RUN, [tenant, status, age, "a cause" if status == "failed" else None])


def status(connection: Connection, columns: LiteralString) -> tuple[Any, ...]:
    """The one row of tenant_status."""
    (row,) = connection.execute(sql.SQL("SELECT {} FROM deal_sync.tenant_status").format(sql.SQL(columns))).fetchall()
    return row


@pytest.fixture
def slow(database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID) -> Iterator[Connection]:
    """A session whose run of the tenant, of three deals and two a batch, waits in its second batch for a row."""
    ids = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(3)]
    for each in ids:
        add_deal(graph, tenant, opportunity_id=each)
    sync(pg, tenant)
    pg.execute("UPDATE opportunities SET deal_ref = 'changed'")
    holder = database.connect(autocommit=False)
    last = holder.execute(
        "SELECT graph_opportunity_id FROM opportunities WHERE graph_opportunity_id = %s FOR UPDATE", [ids[2]]
    )
    assert last.fetchone() is not None
    session = database.connect(
        options="-c deal_sync.lock_timeout=30s -c deal_sync.batch_rows=2", application_name="mine"
    )
    yield session
    holder.rollback()


# The state of a tenant


@pytest.mark.parametrize(
    ("past", "state"),
    [
        ([], "never synced"),
        ([("skipped", 1)], "never synced"),
        ([("ok", 14)], "up to date"),
        ([("partial", 14)], "up to date"),
        ([("ok", 16)], "late"),
        ([("ok", 14), ("failed", 10)], "failing"),
        ([("failed", 10)], "failing"),
        ([("failed", 10), ("ok", 5)], "up to date"),
        ([("ok", 30), *(("failed", age) for age in (25, 20, 15, 10, 5))], "backing off"),
        ([*(("failed", age) for age in (25, 20, 15, 10, 5)), ("ok", 1)], "up to date"),
    ],
)
def test_the_state(past: list[tuple[str, int]], state: str, pg: Connection, tenant: uuid.UUID) -> None:
    pg.execute("INSERT INTO _deal_sync.graph_tenants VALUES (%s, 7, true)", [tenant])
    for how, age in past:
        add_run(pg, tenant, how, timedelta(minutes=age))
    assert status(pg, "tenant_id, state, deals") == (tenant, state, 7)


def test_the_number_of_deals_is_that_of_the_last_run_that_read_all(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    assert sync(pg, tenant).deals_read == 1
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime() - duration('P1D')")
    assert sync(pg, tenant, mode="incremental").deals_read == 0
    assert status(pg, "deals") == (1,)


def test_the_number_of_deals_is_the_newer_of_sync_all_s_and_a_full_run_s(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute("CALL deal_sync.sync_all()")
    assert status(pg, "deals") == (1,)
    add_deal(graph, tenant)
    sync(pg, tenant, mode="incremental")
    assert status(pg, "deals") == (1,)
    sync(pg, tenant)
    assert status(pg, "deals") == (2,)
    add_deal(graph, tenant)
    pg.execute("CALL deal_sync.sync_all()")
    assert status(pg, "deals") == (3,)


def test_a_tenant_that_the_graph_has_is_shown_after_forget_one_that_has_left_it_is_not(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute("CALL deal_sync.sync_all()")
    pg.execute("SELECT deal_sync.forget(%s)", [tenant])
    assert status(pg, "tenant_id, state, deals, last_good_run") == (tenant, "never synced", 1, None)
    pg.execute("CALL deal_sync.sync_all()")
    graph.clear()
    pg.execute("CALL deal_sync.sync_all()")
    assert status(pg, "state, deals") == ("up to date", 0)
    pg.execute("SELECT deal_sync.forget(%s)", [tenant])
    assert one(pg, "SELECT count(*) FROM deal_sync.tenant_status") == 0


def test_what_counts_as_late_is_a_setting(pg: Connection, tenant: uuid.UUID) -> None:
    add_run(pg, tenant, "ok", timedelta(minutes=16))
    pg.execute("SET deal_sync.late_after = '1 h'")
    assert status(pg, "state, lag") == ("up to date", timedelta(minutes=16))


def test_a_tenant_that_backs_off_says_when_it_is_tried_again(pg: Connection, tenant: uuid.UUID) -> None:
    for age in (25, 20, 15, 10, 5):
        add_run(pg, tenant, "failed", timedelta(minutes=age))
    state, until = status(pg, "state, date_trunc('minute', next_run - now() + interval '1 s')")
    assert (state, until) == ("backing off", timedelta(minutes=5))  # ten minutes after the last failure
    assert status(pg, "failures, last_error, last_good_run") == (5, "a cause", None)


def test_rejects_and_which_of_them_are_new(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    for _ in range(2):
        add_deal(graph, tenant, meddic_completeness="no number")
    sync(pg, tenant)
    assert status(pg, "rejects_open, rejects_new") == (2, 2)
    pg.execute(
        "UPDATE deal_sync.rejects SET first_seen = now() - interval '25 h'"
        " WHERE ctid = (SELECT min(ctid) FROM deal_sync.rejects)"
    )
    assert status(pg, "rejects_open, rejects_new") == (2, 1)


def test_the_last_reconcile(pg: Connection, tenant: uuid.UUID) -> None:
    add_run(pg, tenant, "ok", timedelta(minutes=1))
    assert status(pg, "last_reconcile, missing") == (None, None)
    for report in (
        '[{"kind": "deals", "missing": 9}]',
        '[{"kind": "deals", "missing": 1}, {"kind": "links", "differing": 2}]',
    ):
        pg.execute("SELECT _deal_sync.record_reconciliation(%s, %s)", [tenant, report])
    assert status(pg, "last_reconcile IS NOT NULL, missing, differing, extra") == (True, 1, 2, 0)


def test_one_line_holds_no_offending_value_and_no_words_of_the_server(pg: Connection, tenant: uuid.UUID) -> None:
    add_run(pg, tenant, "failed", timedelta(minutes=1))
    for view in ("tenant_status", "metrics", "progress"):
        assert "Acme" not in str(pg.execute(f"SELECT * FROM deal_sync.{view}".encode()).fetchall())


# Metrics


def test_metrics_are_named_as_prometheus_wants_them(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    sync(pg, tenant)
    names = pg.execute("SELECT DISTINCT name, type, help FROM deal_sync.metrics").fetchall()
    assert len(names) == len({name for name, _, _ in names}) > 8
    for name, kind, _ in names:
        assert name.startswith("deal_sync_")
        assert name.endswith("_total") == (kind == "counter")


def test_metrics_have_one_row_a_tenant_and_label(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    with pg.transaction():  # so that now() is the same when the run is added and when its lag is read
        for how in ("ok", "ok", "failed", "partial"):
            add_run(pg, tenant, how, timedelta(minutes=20))
        twice = (
            "SELECT count(*) FROM"
            " (SELECT FROM deal_sync.metrics GROUP BY name, tenant_id, status, state HAVING count(*) > 1) AS t"
        )
        assert one(pg, twice) == 0
        value: LiteralString = (
            "SELECT value::int FROM deal_sync.metrics WHERE name = %s AND status IS NOT DISTINCT FROM %s"
        )
        assert one(pg, value, "deal_sync_runs_total", "ok") == 2
        assert one(pg, value, "deal_sync_rows_written_total", "partial") == 6
        assert one(pg, value, "deal_sync_lag_seconds", None) == 20 * 60
        assert one(pg, value, "deal_sync_up_to_date", None) == 0


@pytest.mark.parametrize(
    ("is_known", "past", "state"),
    [
        (True, [("ok", 1)], "up to date"),
        (True, [("ok", 16)], "late"),
        (True, [("failed", 1)], "failing"),
        (True, [("failed", 1)] * 5, "backing off"),
        (True, [], "never synced"),
        (False, [("ok", 1)], "unknown"),
    ],
)
def test_metrics_tell_the_state_with_a_one_and_all_others_with_a_zero(
    is_known: bool, past: list[tuple[str, int]], state: str, pg: Connection, tenant: uuid.UUID
) -> None:
    pg.execute("INSERT INTO _deal_sync.graph_tenants VALUES (%s, 7, %s)", [tenant, is_known])
    for how, age in past:
        add_run(pg, tenant, how, timedelta(minutes=age))
    told = pg.execute("SELECT state, value FROM deal_sync.metrics WHERE name = 'deal_sync_tenant_state'").fetchall()
    assert dict(told) == dict.fromkeys(STATES, 0) | {state: 1}
    assert len(told) == len(STATES)
    assert status(pg, "state") == (state,)


# A run under way


def test_progress_shows_a_run_in_another_connection_to_another_role(
    slow: Connection, pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    shown: LiteralString = "SELECT pid, tenant_id, phase, done, total, started_at, per_second FROM deal_sync.progress"
    with running(slow, "SELECT status FROM sync_deals(%s, 'full')", tenant) as ended:
        assert await_true(lambda: [row[3] for row in writer.execute(shown)] == [2])
        (row,) = writer.execute(shown).fetchall()
        assert row[:5] == (slow.info.backend_pid, tenant, "deals", 2, 3)
        assert row[5] <= one(pg, "SELECT clock_timestamp()")
        assert row[6] > 0
        slow.cancel_safe()
    assert ended.result().sqlstate == "57014"
    assert writer.execute(shown).fetchall() == []
    assert one(slow, "SELECT current_setting('application_name')") == "mine"


def test_the_name_of_the_application_comes_back_after_a_run_and_a_failure(pg: Connection, graph: Graph) -> None:
    tenant = add_tenant(pg)
    add_deal(graph, tenant)
    pg.execute("SET application_name = 'mine'")
    for how in ("ok", "failed"):
        if how == "failed":
            pg.execute("ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')")
        assert sync(pg, tenant).status == how
        assert one(pg, "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()") == "mine"


def test_progress_of_millions_fits_in_the_name(pg: Connection, tenant: uuid.UUID) -> None:
    name = f"deal_sync {tenant.hex} v 12345678/12345678"
    pg.execute("SELECT set_config('application_name', %s, false)", [name])
    assert one(pg, "SELECT current_setting('application_name')") == name
    assert pg.execute("SELECT tenant_id, phase, done, total FROM deal_sync.progress").fetchall() == [
        (tenant, "versions", 12345678, 12345678)
    ]


# What psql shows


def test_a_run_by_hand_ends_with_one_line(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    deal = add_deal(graph, tenant)
    add_version(graph, tenant, deal)
    said: list[str] = []
    pg.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    sync(pg, tenant, dry_run=True)
    sync(pg, tenant)
    dry, wet = said
    assert dry.startswith(f"tenant {tenant}: ok (dry run), deals read: 1, inserted: 1, new versions: 1 (")
    assert wet.startswith(f"tenant {tenant}: ok, deals read: 1, inserted: 1, new versions: 1 (")


def test_a_long_run_by_hand_shows_how_far_it_is_and_a_scheduled_one_does_not(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """Every batch counts as if it ended after five seconds; sync/test_staging.py tests the real interval."""
    deals = [add_deal(graph, tenant) for _ in range(3)]
    for deal in deals[:2]:
        add_version(graph, tenant, deal)
    said: list[str] = []
    pg.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    pg.execute("SET deal_sync.batch_rows = 1")
    pg.execute(
        "DO LANGUAGE plpython3u $$ from neo4j_deals.sync.staging import Progress; Progress.NOTICE_SECONDS = 0 $$"
    )
    pg.execute("CALL deal_sync.sync_all(mode => 'full', quiet => true)")
    assert said == []
    assert sync(pg, tenant).deals_read == 3
    kinds = [(f"{number} of {of} {kind}") for kind, of in (("deals", 3), ("versions", 2)) for number in range(of + 1)]
    assert said[:-1] == kinds


def test_a_scheduled_run_is_silent(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    add_deal(graph, uuid.uuid4())
    said: list[str] = []
    pg.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    pg.execute("CALL deal_sync.sync_all(quiet => true)")
    assert said == []
    pg.execute("CALL deal_sync.sync_all()")
    assert len(said) == 2  # the tenant's line, and the one that nobody knows


def test_a_monitor_needs_the_views_and_no_table(database: Database, pg: Connection, tenant: uuid.UUID) -> None:
    add_run(pg, tenant, "ok", timedelta(minutes=1))
    with role(pg, fresh("monitor")) as name:
        pg.execute("SELECT deal_sync.grant_monitor(%s::regrole)", [name])
        with psycopg.connect(database.dsn(name), autocommit=True) as monitor:
            assert status(monitor, "tenant_id, state") == (tenant, "up to date")
            assert one(monitor, "SELECT count(*) FROM deal_sync.metrics") > 5
            for query in ("TABLE deal_sync.progress", "TABLE deal_sync.schedules"):
                monitor.execute(query.encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                monitor.execute("SELECT value FROM deal_sync.rejects")
