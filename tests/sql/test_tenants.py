"""Flows in: a graph of several tenants, and faults of one of them. Flows out: what sync_all does with each: who is
synced, in which order, what is recorded and raised, when a tenant is tried again, and what retention removes.
"""

import json
import uuid
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from psycopg import errors
from support.backend import await_true, running
from support.database import Connection, Database
from support.graph import Graph
from support.sync import add_deal, add_tenant, one, runs, sync

ADD_RUN: LiteralString = (
    "INSERT INTO deal_sync.runs SELECT gen_random_uuid(), %(tenant)s, 'full', %(status)s, now() - %(age)s, 0.1,"
    " 1, 1, 0, 0, 0, 0, 0, 0, 0, NULL, %(message)s, NULL, %(server_text)s"
)


def add_run(pg: Connection, tenant: uuid.UUID, status: str, age: timedelta, server_text: str | None = None) -> None:
    """A run as it was some time ago."""
    message = "a cause; nothing was written" if status == "failed" else None
    values = {"tenant": tenant, "status": status, "age": age, "message": message, "server_text": server_text}
    pg.execute(ADD_RUN, values)


def notices(pg: Connection) -> list[str]:
    """What the session is told from now on."""
    said: list[str] = []
    pg.add_notice_handler(lambda it: said.append(str(it.message_primary)))
    return said


@pytest.fixture
def tenants(pg: Connection, graph: Graph) -> list[uuid.UUID]:
    """Three tenants with a deal each."""
    made = [add_tenant(pg) for _ in range(3)]
    for tenant in made:
        add_deal(graph, tenant)
    return made


def break_tenant(pg: Connection, tenant: uuid.UUID) -> None:
    """A trigger of the application that names what is not there: a setup error, but only for one tenant's rows."""
    pg.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF NEW.tenant_id = '{tenant}' THEN PERFORM 'secret of Acme' FROM not_there; END IF;"
        " RETURN NEW; END $$".encode()
    )
    pg.execute("CREATE TRIGGER fail BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION fail()")


# Who is synced


def test_every_tenant_of_the_graph_is_synced_under_row_level_security(
    pg: Connection, writer: Connection, tenants: list[uuid.UUID]
) -> None:
    pg.execute("ALTER TABLE tenants ENABLE ROW LEVEL SECURITY")
    pg.execute("CREATE POLICY own ON tenants USING (id = nullif(current_setting('app.tenant_id', true), '')::uuid)")
    assert one(writer, "SELECT count(*) FROM tenants") == 0
    writer.execute("CALL deal_sync.sync_all()")
    assert sorted(runs(pg)) == sorted((tenant, "ok") for tenant in tenants)
    assert one(pg, "SELECT count(*) FROM opportunities") == 3


def test_the_tenant_that_has_waited_longest_comes_first(pg: Connection, tenants: list[uuid.UUID]) -> None:
    first, second, third = tenants
    add_run(pg, second, "ok", timedelta(hours=1))
    add_run(pg, third, "failed", timedelta(hours=2))
    pg.execute("CALL deal_sync.sync_all()")
    assert [tenant for tenant, _ in runs(pg)[2:]] == [first, third, second]


def test_each_tenant_is_committed_before_the_next(database: Database, pg: Connection, tenants: list[uuid.UUID]) -> None:
    sync(pg, tenants[-1])  # so it comes last, and waits for a row that is locked
    pg.execute("UPDATE opportunities SET deal_ref = 'changed'")
    holder = database.connect(autocommit=False)
    holder.execute("SELECT FROM opportunities FOR UPDATE")
    with database.connect() as beside, running(beside, "CALL deal_sync.sync_all()"):
        assert await_true(lambda: one(pg, "SELECT count(*) FROM opportunities") == 3)
        assert [tenant for tenant, _ in runs(pg)].count(tenants[-1]) == 1
        holder.rollback()
    assert len(runs(pg)) == 4


def test_a_tenant_that_the_application_does_not_know_is_reported_and_not_synced(
    pg: Connection, graph: Graph, tenants: list[uuid.UUID]
) -> None:
    stranger = uuid.uuid4()
    add_deal(graph, stranger)
    said: list[tuple[str | None, ...]] = []
    pg.add_notice_handler(lambda it: said.append((it.severity, it.message_primary, it.message_detail)))
    pg.execute("CALL deal_sync.sync_all()")
    message = "tenants of the graph that do not exist in the application: 1"
    assert [notice for notice in said if notice[0] == "WARNING"] == [("WARNING", message, str(stranger))]
    assert stranger not in {tenant for tenant, _ in runs(pg)}
    assert pg.execute(
        "SELECT tenant_id, state FROM deal_sync.tenant_status WHERE state <> 'up to date'"
    ).fetchall() == [(stranger, "unknown")]


def test_a_tenant_that_has_left_the_graph_is_synced_as_one_without_deals(
    pg: Connection, graph: Graph, tenants: list[uuid.UUID]
) -> None:
    pg.execute("CALL deal_sync.sync_all()")
    graph.run("MATCH (d:Deal {tenant_id: $tenant}) DELETE d", tenant=str(tenants[0]))
    pg.execute("CALL deal_sync.nightly()")
    pg.execute("UPDATE deal_sync.runs SET started_at = started_at - interval '1 hour'")
    pg.execute("CALL deal_sync.sync_all()")
    found = pg.execute("SELECT tenant_id, state, deals, extra FROM deal_sync.tenant_status").fetchall()
    assert sorted(found) == sorted(
        (tenant, "up to date", int(tenant != tenants[0]), int(tenant == tenants[0])) for tenant in tenants
    )


def test_a_tenant_that_has_left_graph_and_application_is_unknown_until_it_is_forgotten(
    pg: Connection, graph: Graph, tenants: list[uuid.UUID]
) -> None:
    gone = tenants[0]
    pg.execute("CALL deal_sync.sync_all()")
    graph.run("MATCH (d:Deal {tenant_id: $tenant}) DELETE d", tenant=str(gone))
    pg.execute("DELETE FROM opportunities WHERE tenant_id = %s", [gone])
    pg.execute("DELETE FROM tenants WHERE id = %s", [gone])
    said: list[str | None] = []
    pg.add_notice_handler(lambda it: said.append(it.severity))
    pg.execute("CALL deal_sync.sync_all()")
    assert "WARNING" not in said
    state = "SELECT state FROM deal_sync.tenant_status WHERE tenant_id = %s"
    assert pg.execute(state, [gone]).fetchall() == [("unknown",)]
    pg.execute("SELECT deal_sync.forget(%s)", [gone])
    pg.execute("CALL deal_sync.sync_all()")
    assert pg.execute(state, [gone]).fetchall() == []


def test_a_limit_on_time_ends_it_between_two_tenants(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute("CALL deal_sync.sync_all(time_limit => '0 s')")
    assert runs(pg) == []
    pg.execute("CALL deal_sync.sync_all(time_limit => '1 h')")
    assert len(runs(pg)) == 3
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="time_limit must not be negative"):
        pg.execute("CALL deal_sync.sync_all(time_limit => '-1 s')")


def test_one_tenant_alone(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute("CALL deal_sync.sync_all(tenant => %s)", [tenants[1]])
    assert runs(pg) == [(tenants[1], "ok")]


def test_a_tenant_is_left_to_a_backfill_that_is_under_way(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute(
        "INSERT INTO deal_sync.backfills"
        " SELECT %s, gen_random_uuid(), '', now(), now(), now(), 'versions', NULL, 0, '{}', '{}', '{}'",
        [tenants[0]],
    )
    pg.execute("CALL deal_sync.sync_all()")
    pg.execute("CALL deal_sync.sync_all(tenant => %s)", [tenants[0]])
    assert {tenant for tenant, _ in runs(pg)} == set(tenants[1:])
    pg.execute("UPDATE deal_sync.backfills SET batch_at = batch_at - interval '11 minutes'")
    pg.execute("CALL deal_sync.sync_all()")
    assert tenants[0] in {tenant for tenant, _ in runs(pg)}


def test_one_tenant_that_the_application_does_not_know_is_rejected_and_leaves_no_record(
    pg: Connection, tenants: list[uuid.UUID]
) -> None:
    with pytest.raises(errors.ForeignKeyViolation, match="is not in table") as raised:
        pg.execute("CALL deal_sync.sync_all(tenant => %s)", [uuid.uuid4()])
    assert raised.value.diag.message_hint
    assert pg.execute("SELECT FROM deal_sync.tenant_status").fetchall() == []


def test_a_graph_without_a_tenant_of_ours_is_said(pg: Connection, graph: Graph) -> None:
    said = notices(pg)
    pg.execute("CALL deal_sync.sync_all()")
    assert said == ["no tenant of the graph exists in the application"]
    pg.execute("CALL deal_sync.sync_all(quiet => true)")
    assert len(said) == 1


@pytest.mark.parametrize("setting", ["app.tenant_id", "mode"])
def test_what_cannot_be_meant_is_rejected(setting: str, pg: Connection, tenants: list[uuid.UUID]) -> None:
    if setting == "mode":
        with pytest.raises(errors.InvalidParameterValue, match='unknown mode "half"'):
            pg.execute("CALL deal_sync.sync_all('half')")
    else:
        pg.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenants[0])])
        with pytest.raises(errors.InsufficientPrivilege, match=r"app\.tenant_id is set"):
            pg.execute("CALL deal_sync.sync_all()")
    assert runs(pg) == []


def test_in_a_transaction_block_it_raises_before_anything_is_done(database: Database, tenants: list[uuid.UUID]) -> None:
    connection = database.connect(autocommit=False)
    with pytest.raises(errors.InvalidTransactionTermination):
        connection.execute("CALL deal_sync.sync_all()")


def test_the_session_keeps_its_settings(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute("SET search_path = public, pg_temp")
    pg.execute("CALL deal_sync.sync_all(quiet => true)")
    assert one(pg, "SELECT current_setting('search_path')") == "public, pg_temp"
    assert one(pg, "SELECT current_setting('client_min_messages')") == "notice"
    assert not one(pg, "SELECT current_setting('app.tenant_id', true)")


# Failures


@pytest.mark.german
def test_a_failing_tenant_stops_no_other_and_is_recorded_and_raised_at_the_end(
    pg: Connection, tenants: list[uuid.UUID]
) -> None:
    break_tenant(pg, tenants[0])
    with pytest.raises(psycopg.DatabaseError) as raised:
        pg.execute("CALL deal_sync.sync_all()")
    assert raised.value.sqlstate == "DS006"
    assert raised.value.diag.message_primary == "1 of 3 tenants failed"
    assert f"{tenants[0]}: the run failed with SQLSTATE 42P01" in str(raised.value.diag.message_detail)
    assert dict(runs(pg)) == {tenants[0]: "failed", tenants[1]: "ok", tenants[2]: "ok"}
    message, server_text = pg.execute(
        "SELECT message, server_text FROM deal_sync.runs WHERE status = 'failed'"
    ).fetchall()[0]
    assert "not_there" not in message
    assert "not_there" in server_text


@pytest.mark.german
def test_a_mistake_of_set_up_is_recorded_in_its_own_words(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute("ALTER TABLE opportunities DROP COLUMN deal_ref")
    with pytest.raises(psycopg.DatabaseError, match="3 of 3 tenants failed"):
        pg.execute("CALL deal_sync.sync_all()")
    messages = pg.execute("SELECT DISTINCT message, sqlstate FROM deal_sync.runs").fetchall()
    assert len(messages) == 1
    assert messages[0][0].startswith('column "deal_ref" of table public.opportunities does not exist. ')
    assert messages[0][1] == "42703"


def test_what_is_partial_is_no_failure(pg: Connection, graph: Graph, tenants: list[uuid.UUID]) -> None:
    add_deal(graph, tenants[0], opportunity_id=str(uuid.uuid4()), meddic_completeness="no number")
    pg.execute("CALL deal_sync.sync_all()")
    assert dict(runs(pg))[tenants[0]] == "partial"


def test_a_graph_that_does_not_answer_fails_the_tenants_that_were_synced_before(
    pg: Connection, tenants: list[uuid.UUID]
) -> None:
    pg.execute("CALL deal_sync.sync_all()")
    pg.execute("ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')")
    with pytest.raises(psycopg.DatabaseError, match=r"127\.0\.0\.1:1"):
        pg.execute("CALL deal_sync.sync_all()")
    failed = pg.execute("SELECT tenant_id, message, sqlstate FROM deal_sync.runs WHERE status = 'failed'").fetchall()
    assert sorted(tenant for tenant, _, _ in failed) == sorted(tenants)
    assert {state for _, _, state in failed} == {"08006"}
    assert all("127.0.0.1:1" in message for _, message, _ in failed)


def test_a_cancel_ends_it_and_leaves_what_is_committed(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    for tenant in tenants:
        sync(pg, tenant)
    pg.execute("DELETE FROM opportunities WHERE tenant_id <> %s", [tenants[-1]])
    pg.execute("UPDATE opportunities SET deal_ref = 'changed'")
    holder = database.connect(autocommit=False)
    holder.execute("SELECT FROM opportunities FOR UPDATE")
    beside = database.connect(options="-c deal_sync.lock_timeout=30s")
    with running(beside, "CALL deal_sync.sync_all()") as ended:
        assert await_true(lambda: one(pg, "SELECT count(*) FROM opportunities") == 3)
        assert await_true(
            lambda: one(pg, "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s", beside.info.backend_pid)
        )
        beside.cancel_safe()
    assert ended.result().sqlstate == "57014"
    assert [status for _, status in runs(pg)] == ["ok"] * 5
    holder.rollback()


# Beside each other


def test_a_tenant_in_work_elsewhere_is_stepped_over(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    holder = database.connect(autocommit=False)
    assert sync(holder, tenants[1]).status == "ok"
    pg.execute("CALL deal_sync.sync_all()")
    assert dict(runs(pg)) == {tenants[0]: "ok", tenants[1]: "skipped", tenants[2]: "ok"}
    holder.commit()
    assert len(runs(pg)) == 4


def test_two_at_once_share_the_tenants(database: Database, pg: Connection, tenants: list[uuid.UUID]) -> None:
    """The first waits in its first tenant for a lock; the second goes on; what it did, the first does not do again."""
    for tenant in tenants:
        sync(pg, tenant)
    pg.execute("UPDATE opportunities SET deal_ref = 'changed'")
    pg.execute("DELETE FROM deal_sync.runs")
    held = min(tenants)
    holder = database.connect(autocommit=False)
    holder.execute("SELECT FROM opportunities WHERE tenant_id = %s FOR UPDATE", [held])
    with database.connect(options="-c deal_sync.lock_timeout=30s") as first:
        with running(first, "CALL deal_sync.sync_all()") as ended:
            assert await_true(
                lambda: one(pg, "SELECT count(*) FROM deal_sync.progress WHERE tenant_id = %s", held) == 1
            )
            pg.execute("CALL deal_sync.sync_all()")
            holder.rollback()
        assert ended.result().sqlstate is None
    assert sorted(runs(pg)) == sorted([(held, "skipped"), *((tenant, "ok") for tenant in tenants)])


def test_four_tenants_at_once_in_four_connections(database: Database, pg: Connection, graph: Graph) -> None:
    """Each waits in the middle of its run, so all four are at work together."""
    four = [add_tenant(pg) for _ in range(4)]
    for tenant in four:
        add_deal(graph, tenant)
        sync(pg, tenant)
    pg.execute("UPDATE opportunities SET deal_ref = 'changed'")
    holder = database.connect(autocommit=False)
    holder.execute("SELECT FROM opportunities FOR UPDATE")
    beside = [database.connect(options="-c deal_sync.lock_timeout=30s") for _ in four]
    call = "CALL deal_sync.sync_all(tenant => %s)"
    with (
        running(beside[0], call, four[0]) as a,
        running(beside[1], call, four[1]) as b,
        running(beside[2], call, four[2]) as c,
        running(beside[3], call, four[3]) as d,
    ):
        assert await_true(lambda: one(pg, "SELECT count(DISTINCT tenant_id) FROM deal_sync.progress") == 4)
        holder.rollback()
    assert [ended.result().sqlstate for ended in (a, b, c, d)] == [None] * 4
    assert [status for _, status in runs(pg)] == ["ok"] * 8
    assert one(pg, "SELECT count(*) FROM opportunities WHERE deal_ref IS NULL") == 4


# Back-off


@pytest.mark.parametrize(
    ("failures", "age", "is_tried"),
    [(4, 1, True), (5, 9, False), (5, 11, True), (6, 19, False), (6, 21, True), (9, 59, False), (9, 61, True)],
)
def test_after_five_failures_in_a_row_a_tenant_is_tried_less_often(
    failures: int, age: int, is_tried: bool, pg: Connection, graph: Graph
) -> None:
    """Every five minutes at first; then 10, 20, 40 and 60 minutes after the last failure."""
    tenant = add_tenant(pg)
    add_deal(graph, tenant)
    for number in range(failures):
        add_run(pg, tenant, "failed", timedelta(minutes=age + 5 * number))
    said = notices(pg)
    pg.execute("CALL deal_sync.sync_all()")
    assert len(runs(pg)) == failures + is_tried
    assert any(message.startswith("tenants waiting after consecutive failures: 1") for message in said) != is_tried
    if not is_tried:
        pg.execute("CALL deal_sync.sync_all(tenant => %s)", [tenant])
        assert len(runs(pg)) == failures


def test_by_hand_it_is_always_tried_and_a_good_run_ends_the_back_off(pg: Connection, graph: Graph) -> None:
    tenant = add_tenant(pg)
    add_deal(graph, tenant)
    for number in range(8):
        add_run(pg, tenant, "failed", timedelta(minutes=1 + 5 * number))
    state: LiteralString = "SELECT state FROM deal_sync.tenant_status"
    assert one(pg, state) == "backing off"
    assert sync(pg, tenant).status == "ok"
    assert one(pg, state) == "up to date"


# Nightly


def test_after_a_nightly_nothing_is_missing_and_nothing_differs(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute("CALL deal_sync.nightly()")
    found = pg.execute("SELECT missing, differing, extra, rejected FROM deal_sync.reconciliations").fetchall()
    assert found == [(0, 0, 0, 0)] * 3
    [deals, *_] = one(pg, "SELECT report FROM deal_sync.reconciliations LIMIT 1")
    assert (deals["kind"], deals["in_graph"], deals["matching"]) == ("deals", 1, 1)


def test_nightly_runs_in_full_and_keeps_what_reconcile_finds(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute(RECONCILE_STAND_IN)
    pg.execute("CALL deal_sync.nightly()")
    assert one(pg, "SELECT array_agg(DISTINCT mode) FROM deal_sync.runs") == ["full"]
    found = pg.execute("SELECT missing, differing, extra, rejected FROM deal_sync.reconciliations").fetchall()
    assert found == [(1, 5, 3, 0)] * 3
    kinds = one(pg, "SELECT report FROM deal_sync.reconciliations LIMIT 1")
    assert [row["kind"] for row in kinds] == ["deals", "versions"]
    assert pg.execute("SELECT missing, differing, extra FROM deal_sync.tenant_status").fetchall() == [(1, 5, 3)] * 3


def test_nightly_waits_for_a_run_that_is_under_way(
    database: Database, pg: Connection, tenants: list[uuid.UUID]
) -> None:
    other = database.connect(autocommit=False)
    sync(other, tenants[0], mode="incremental")
    waits: LiteralString = "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted"
    watcher = database.connect()
    with running(pg, "CALL deal_sync.nightly()") as night:
        assert await_true(lambda: one(watcher, waits, pg.info.backend_pid) == 1)
        other.commit()
    assert night.result().sqlstate is None
    full = one(pg, "SELECT count(*) FROM deal_sync.runs WHERE tenant_id = %s AND mode = 'full'", tenants[0])
    assert full == 2  # the first run of all, and the nightly
    assert one(pg, "SELECT count(*) FROM deal_sync.reconciliations") == 3


def test_nightly_says_that_a_tenant_was_skipped(database: Database, pg: Connection, tenants: list[uuid.UUID]) -> None:
    said: list[tuple[str | None, str | None]] = []
    pg.add_notice_handler(lambda notice: said.append((notice.severity, notice.message_primary)))
    pg.execute("SET deal_sync.lock_timeout = '50ms'")
    other = database.connect(autocommit=False)
    sync(other, tenants[0])
    pg.execute("CALL deal_sync.sync_all(quiet => true, tenant => %s)", [tenants[0]])
    assert said == []
    pg.execute("CALL deal_sync.nightly(%s)", [tenants[0]])
    [(severity, message)] = said
    assert severity == "WARNING"
    assert str(message).startswith(f"tenant {tenants[0]} is being synced by another session: pid")


def test_nightly_compares_what_is_there_at_one_moment(pg: Connection, tenants: list[uuid.UUID]) -> None:
    at_one_moment = "(current_setting('transaction_isolation') = 'repeatable read')::integer"
    pg.execute(RECONCILE_STAND_IN.replace("'deals', 1", f"'deals', {at_one_moment}").encode())
    pg.execute("CALL deal_sync.nightly()")
    assert pg.execute("SELECT missing FROM deal_sync.reconciliations").fetchall() == [(1,)] * 3
    assert one(pg, "SELECT current_setting('transaction_isolation')") == "read committed"


def test_a_reconcile_that_ends_with_an_error_is_raised_at_the_end(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute(RECONCILE_STAND_IN.replace("'deals', 1", "'deals', 1 / 0"))
    with pytest.raises(psycopg.DatabaseError, match="3 of 3 tenants failed") as raised:
        pg.execute("CALL deal_sync.nightly()")
    assert "the reconcile failed with SQLSTATE 22012" in str(raised.value.diag.message_detail)
    assert [status for _, status in runs(pg)] == ["ok"] * 3


#: Outcomes that are known beforehand, in the place of the real one.
RECONCILE_STAND_IN: LiteralString = (
    "DO $$ BEGIN IF to_regprocedure('deal_sync.reconcile(uuid)') IS NOT NULL THEN"
    " ALTER EXTENSION deal_sync DROP FUNCTION deal_sync.reconcile(uuid);"
    " DROP FUNCTION deal_sync.reconcile(uuid) CASCADE;"
    " END IF; END $$;"
    "CREATE FUNCTION deal_sync.reconcile(tenant uuid, OUT kind text, OUT missing bigint, OUT differing bigint,"
    " OUT extra bigint, OUT rejected bigint) RETURNS SETOF record LANGUAGE sql AS"
    " $$ SELECT 'deals', 1, 2, 3, 0 UNION ALL SELECT 'versions', 0, 3, 0, 0 $$"
)


# Retention


def test_old_runs_go_and_the_last_good_one_stays(pg: Connection, tenants: list[uuid.UUID]) -> None:
    tenant = tenants[0]
    for days in (50, 40, 31):
        add_run(pg, tenant, "ok", timedelta(days=days))
    add_run(pg, tenant, "failed", timedelta(days=30, hours=1), "words")
    add_run(pg, tenant, "failed", timedelta(days=29))
    written = "SELECT sum(value) FROM deal_sync.metrics WHERE name = 'deal_sync_runs_total' AND tenant_id = %s"
    counted = one(pg, written, tenant)
    pg.execute("SELECT deal_sync.retain()")
    left = pg.execute("SELECT status, extract(day FROM now() - started_at)::int FROM deal_sync.runs").fetchall()
    assert sorted(left) == [("failed", 29), ("ok", 31)]
    assert one(pg, written, tenant) == counted == 5

    pg.execute("SET deal_sync.runs_kept = '1d'")
    pg.execute("CALL deal_sync.sync_all(tenant => %s)", [tenant])
    assert runs(pg) == [(tenant, "ok")]


def test_offending_values_go_and_their_rejects_stay(pg: Connection, graph: Graph, tenants: list[uuid.UUID]) -> None:
    add_deal(graph, tenants[0], meddic_completeness="no number")
    sync(pg, tenants[0])
    held: LiteralString = "SELECT value FROM deal_sync.rejects"
    pg.execute("SELECT deal_sync.retain()")
    assert one(pg, held) == "no number"
    pg.execute("UPDATE deal_sync.rejects SET last_seen = now() - interval '31 days', server_text = 'words'")
    pg.execute("SELECT deal_sync.retain()")
    assert pg.execute("SELECT value, server_text FROM deal_sync.rejects").fetchall() == [(None, None)]


def test_the_records_of_a_tenant_that_is_gone_leave_with_it(pg: Connection, writer: Connection) -> None:
    gone, here = uuid.uuid4(), add_tenant(pg)
    pg.execute("ALTER TABLE tenants ENABLE ROW LEVEL SECURITY")
    pg.execute("CREATE POLICY own ON tenants USING (id = nullif(current_setting('app.tenant_id', true), '')::uuid)")
    for tenant in (gone, here):
        add_run(pg, tenant, "ok", timedelta(days=31))
        pg.execute(
            "INSERT INTO deal_sync.rejects (tenant_id, kind, level, element_id, column_name, sqlstate, message, run_id,"
            " last_seen) VALUES (%s, 'deal', 'value', '1', 'name', '22023', '', %s, now() - interval '31 days')",
            [tenant, uuid.uuid4()],
        )
    writer.execute("SELECT deal_sync.retain()")
    for table in ("runs", "rejects"):
        assert pg.execute(f"SELECT tenant_id FROM deal_sync.{table}".encode()).fetchall() == [(here,)]


# NOTIFY


def test_the_end_of_each_run_is_reported_without_application_data(pg: Connection, tenants: list[uuid.UUID]) -> None:
    pg.execute("LISTEN deal_sync")
    break_tenant(pg, tenants[0])
    with pytest.raises(psycopg.DatabaseError, match="1 of 3"):
        pg.execute("CALL deal_sync.sync_all()")
    told = [json.loads(notify.payload) for notify in pg.notifies(timeout=1, stop_after=3)]
    assert {(uuid.UUID(each["tenant"]), each["status"]) for each in told} == set(runs(pg))
    assert {tuple(each) for each in told} == {("run_id", "tenant", "status")}
