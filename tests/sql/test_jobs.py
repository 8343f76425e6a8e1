"""Flows in: tenants, and several sessions that sync them together, as the jobs of a schedule do. Flows out: one run for
each tenant, one question to the graph, and nobody waits for a large tenant.
"""

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from support.backend import await_true, running
from support.database import Connection, Database
from support.doctor import set_uri
from support.graph import Graph
from support.proxy import closed_port
from support.sync import add_deal, add_tenant, one, runs, sync

SHARE: LiteralString = "CALL deal_sync.sync_all(quiet => true, shared => true)"
JOBS, TENANTS = 4, 12


@pytest.fixture
def tenants(pg: Connection, graph: Graph) -> list[uuid.UUID]:
    made = [add_tenant(pg) for _ in range(TENANTS)]
    for tenant in made:
        add_deal(graph, tenant)
    return made


def together(database: Database, jobs: int = JOBS, options: str = "") -> list[str | None]:
    """So many sessions share the tenants; the SQLSTATE with which each ended, None without an error."""

    def share(session: Connection) -> str | None:
        try:
            session.execute(SHARE)
        except psycopg.Error as error:
            return error.sqlstate
        return None

    with ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        sessions = [stack.enter_context(database.connect(options=options)) for _ in range(jobs)]
        return list(pool.map(share, sessions))


def the_next_tick_comes(pg: Connection) -> None:
    pg.execute("UPDATE _deal_sync.last_sync_all SET asked_at = asked_at - interval '1 min'")


def bring_up_to_date(pg: Connection) -> None:
    pg.execute("SET deal_sync.overlap = '0s'")
    for _ in range(2):
        pg.execute("CALL deal_sync.sync_all()")


def hold(database: Database, pg: Connection, tenant: uuid.UUID) -> Connection:
    """A session that holds the rows of a tenant, so that a run of it waits, as one of a large tenant lasts."""
    pg.execute("UPDATE opportunities SET deal_ref = 'changed' WHERE tenant_id = %s", [tenant])
    holder = database.connect(autocommit=False)
    holder.execute("SELECT FROM opportunities WHERE tenant_id = %s FOR UPDATE", [tenant])
    return holder


def test_jobs_share_the_tenants_and_each_gets_one_run(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    assert together(database) == [None] * JOBS
    assert sorted(runs(pg)) == sorted((tenant, "ok") for tenant in tenants)


def test_one_of_the_jobs_asks_the_graph_for_all(database: Database, pg: Connection, tenants: list[uuid.UUID]) -> None:
    together(database)
    the_next_tick_comes(pg)
    assert together(database, options="-c track_functions=all") == [None] * JOBS
    asked = "SELECT coalesce(max(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'changed_tenants'"
    assert await_true(lambda: one(pg, asked) > 0)
    assert one(pg, asked) == 1


def test_a_session_that_was_told_by_another_one_uses_no_python(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    bring_up_to_date(pg)
    pg.execute("UPDATE _deal_sync.last_sync_all SET asked_at = clock_timestamp()")
    with database.connect() as session:
        session.execute(SHARE)
        assert "plpython3" not in Path(f"/proc/{session.info.backend_pid}/maps").read_text()
    assert len(runs(pg)) == TENANTS


def test_a_large_tenant_does_not_hold_up_the_others_and_the_next_tick_comes_meanwhile(
    database: Database, pg: Connection, graph: Graph, tenants: list[uuid.UUID]
) -> None:
    for tenant in tenants:
        sync(pg, tenant)
    large = min(tenants)
    holder = hold(database, pg, large)
    pg.execute("DELETE FROM deal_sync.watermarks")  # full runs, which find the changed row
    pg.execute("DELETE FROM deal_sync.runs")
    with database.connect(options="-c deal_sync.lock_timeout=60s") as first, running(first, SHARE) as ended:
        assert await_true(lambda: one(pg, "SELECT count(*) FROM deal_sync.progress WHERE tenant_id = %s", large) == 1)
        assert together(database, jobs=2) == [None, None]
        others = [tenant for tenant in tenants if tenant != large]
        assert sorted(runs(pg)) == sorted((tenant, "ok") for tenant in others)
        graph.run("MATCH (d:Deal {tenant_id: $tenant}) SET d.last_updated_at = datetime()", tenant=str(others[0]))
        pg.execute("DELETE FROM deal_sync.runs")
        the_next_tick_comes(pg)
        pg.execute("SET deal_sync.overlap = '0s'")
        pg.execute(SHARE)
        assert others[0] in {tenant for tenant, _ in runs(pg)}
        assert large not in {tenant for tenant, _ in runs(pg)}
        holder.rollback()
    assert ended.result().sqlstate is None
    assert (large, "ok") in runs(pg)
    assert "skipped" not in {status for _, status in runs(pg)}


def test_a_graph_that_does_not_answer_is_one_failure_a_tenant_and_each_job_says_so(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    together(database)
    pg.execute("DELETE FROM deal_sync.runs WHERE tenant_id <> %s", [tenants[0]])
    pg.execute("DELETE FROM deal_sync.watermarks")
    the_next_tick_comes(pg)
    set_uri(pg, closed_port())
    ended = together(database)
    assert ended == ["08006"] * JOBS
    assert runs(pg)[-1] == (tenants[0], "failed")
    assert one(pg, "SELECT count(*) FROM deal_sync.runs WHERE status = 'failed' AND tenant_id = %s", tenants[0]) == 1


def test_jobs_leave_alone_what_a_session_syncs_by_hand(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    with database.connect(autocommit=False) as holder:
        sync(holder, tenants[0])
        assert together(database, jobs=2) == [None, None]
        assert sorted(runs(pg)) == sorted((tenant, "ok") for tenant in tenants[1:])
        holder.commit()


def test_what_another_session_has_asked_counts_for_its_own_role_and_time(
    database: Database, pg: Connection, graph: Graph, tenants: list[uuid.UUID]
) -> None:
    """Not for another role, whose rights are others, nor its error; not for ever, if the clock was set back since."""
    bring_up_to_date(pg)
    for before in (
        "SET asked_at = clock_timestamp() + interval '1 h'",
        "SET asked_at = clock_timestamp(), asked_by = 'another'",
        "SET failed_at = clock_timestamp(), asked_by = 'another', error = '{\"code\": \"42501\"}'",
    ):
        graph.run("MATCH (d:Deal {tenant_id: $tenant}) SET d.last_updated_at = datetime()", tenant=str(tenants[0]))
        pg.execute(f"UPDATE _deal_sync.last_sync_all {before}".encode())
        synced = len(runs(pg))
        pg.execute(SHARE)
        assert runs(pg)[synced:] == [(tenants[0], "ok")], before


def test_a_tick_writes_no_row_for_each_tenant(pg: Connection, tenants: list[uuid.UUID]) -> None:
    bring_up_to_date(pg)
    pg.execute("UPDATE _deal_sync.last_sync_all SET count_ms = 500")
    written = "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relname = 'graph_tenants'"
    pg.execute("SELECT pg_stat_force_next_flush()")
    before = one(pg, written)
    pg.execute("CALL deal_sync.sync_all()")
    pg.execute("SELECT pg_stat_force_next_flush()")
    assert one(pg, written) == before
    assert one(pg, "SELECT count(*) FROM deal_sync.tenant_status WHERE lag < '1 s' AND state = 'up to date'") == TENANTS


def test_who_shares_leaves_out_a_tenant_that_the_application_has_deleted(
    database: Database, pg: Connection, graph: Graph, tenants: list[uuid.UUID]
) -> None:
    together(database)
    pg.execute("UPDATE _deal_sync.last_sync_all SET count_ms = 500")
    pg.execute("DELETE FROM deal_sync.runs")
    gone = tenants[0]
    for table in ("deal_versions", "opportunities"):
        pg.execute(f"DELETE FROM {table} WHERE tenant_id = %s".encode(), [gone])
    pg.execute("DELETE FROM tenants WHERE id = %s", [gone])
    the_next_tick_comes(pg)
    assert together(database) == [None] * JOBS
    assert gone not in {tenant for tenant, _ in runs(pg)}


def test_who_shares_is_not_told_that_no_tenant_exists(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    bring_up_to_date(pg)
    said: list[str] = []
    with database.connect() as session:
        session.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        pg.execute("UPDATE _deal_sync.last_sync_all SET asked_at = clock_timestamp()")
        session.execute("CALL deal_sync.sync_all(shared => true)")
    assert said == []


def test_jobs_share_also_if_the_default_of_isolation_is_higher(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    options = "-c default_transaction_isolation=repeatable\\ read"
    assert together(database, options=options) == [None] * JOBS
    assert sorted(runs(pg)) == sorted((tenant, "ok") for tenant in tenants)


def test_nobody_waits_for_ever_for_a_session_that_asks(database: Database, pg: Connection) -> None:
    with database.connect(autocommit=False) as holder, database.connect() as waiting:
        holder.execute("SELECT pg_advisory_xact_lock(hashtextextended('deal_sync question', 0))")
        pg.execute("ALTER FUNCTION _deal_sync.wait_for_question() SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable, match="another session has been asking the graph"):
            waiting.execute(SHARE)
