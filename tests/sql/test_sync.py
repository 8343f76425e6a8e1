"""Flows in: sql/functions/16_sync.sql, beside other sessions, locks and runs, in sessions set up in every way. Flows
out: an error that is not of a row ends the run, and the session is afterwards as before.
"""

import uuid
from typing import Any, LiteralString

import psycopg
import pytest
from support.application import ACCOUNT, WORDS, names, trigger
from support.backend import in_background, waits_for_lock
from support.database import Connection, Database
from support.graph import Graph
from support.sync import Run, add_deal, add_tenant, add_version, one, rejects, sync

# -- Everything else ends the run --------------------------------------------------------------------------------------


def only_the_failed_run(pg: Connection, run: Run, sqlstate: str) -> None:
    """The run is recorded, and nothing else of it is there."""
    recorded = pg.execute("SELECT status, sqlstate, message FROM deal_sync.runs WHERE run_id = %s", [run.run_id])
    assert recorded.fetchall() == [("failed", sqlstate, run.message)]
    assert "nothing was written" in str(run.message)
    counts = (run.deals_read, run.deals_inserted, run.deals_updated, run.deals_unchanged, run.deals_adopted)
    assert counts == (0,) * 5
    assert (run.versions_inserted, run.links_inserted, run.rows_rejected, run.values_rejected) == (0,) * 4
    assert one(pg, "SELECT count(*) FROM deal_sync.rejects WHERE run_id = %s", run.run_id) == 0


@pytest.mark.german
def test_a_row_that_another_session_holds_fails_the_run_after_the_lock_timeout(
    database: Database, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deals = [add_deal(graph, tenant, deal_ref="old", account_id="not a UUID") for _ in range(3)]
    sync(writer, tenant)
    seen = rejects(pg, tenant)
    graph.run("MATCH (d:Deal) SET d.deal_ref = 'new', d.last_updated_at = datetime()")
    other = database.connect(autocommit=False)
    other.execute("SELECT FROM opportunities WHERE graph_opportunity_id = %s FOR UPDATE", [max(deals)])

    writer.execute("SET deal_sync.lock_timeout = '50ms'")
    run = sync(writer, tenant)
    assert run.status == "failed"
    assert "locked by another transaction" in str(run.message)
    assert "50ms" in str(run.message)
    only_the_failed_run(pg, run, "55P03")
    assert one(pg, "SELECT array_agg(DISTINCT deal_ref) FROM opportunities") == ["old"]
    assert rejects(pg, tenant) == seen

    other.rollback()
    assert sync(writer, tenant).deals_updated == 3


def test_strict_raises_what_the_world_did(
    database: Database, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant, deal_ref="old")
    sync(writer, tenant)
    graph.run("MATCH (d:Deal) SET d.deal_ref = 'new'")
    database.connect(autocommit=False).execute("SELECT FROM opportunities FOR UPDATE")
    writer.execute("SET deal_sync.lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        sync(writer, tenant, strict=True)
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 1


@pytest.mark.german
def test_a_deadlock_fails_the_run(
    database: Database, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    first, second = sorted(add_deal(graph, tenant, deal_ref="old") for _ in range(2))
    sync(writer, tenant)
    graph.run("MATCH (d:Deal) SET d.deal_ref = 'new'")
    other = database.connect(autocommit=False)
    other.execute("SET deadlock_timeout = '1min'")
    other.execute("SELECT FROM opportunities WHERE id = %s FOR UPDATE", [second])
    runner = database.connect()  # only a superuser may set deadlock_timeout
    runner.execute("SET deadlock_timeout = '1s'")
    with in_background(lambda: sync(runner, tenant)) as run:
        waits_for_lock(pg, runner.info.backend_pid)  # in key order: it has the first row, and wants the second
        other.execute("SELECT FROM opportunities WHERE id = %s FOR UPDATE", [first])
    assert run.result().status == "failed"
    assert "deadlock" in str(run.result().message)
    only_the_failed_run(pg, run.result(), "40P01")


def test_neo4j_out_of_reach_fails_the_run(pg: Connection, writer: Connection, tenant: uuid.UUID) -> None:
    pg.execute("ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')")
    run = sync(writer, tenant)
    assert run.status == "failed"
    assert 'Neo4j server "neo4j"' in str(run.message)
    only_the_failed_run(pg, run, "08006")


@pytest.mark.german
def test_a_trigger_that_misses_a_table_raises_and_nothing_is_recorded(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(trigger("PERFORM 1 FROM a_table_that_is_not_there;"))
    add_deal(graph, tenant)
    with pytest.raises(psycopg.errors.UndefinedTable, match="a_table_that_is_not_there"):
        sync(writer, tenant)
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0
    assert names(pg, tenant) == []


@pytest.mark.german
def test_statement_timeout_during_a_write_is_raised(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(trigger("PERFORM pg_sleep(60);"))
    add_deal(graph, tenant)
    writer.execute("SET statement_timeout = '1s'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        sync(writer, tenant)
    writer.execute("RESET statement_timeout")
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0
    pg.execute("DROP TRIGGER application ON opportunities")
    assert sync(writer, tenant).deals_inserted == 1


@pytest.mark.german
def test_too_many_rejects_fail_the_run_and_the_commonest_is_named(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "ALTER TABLE opportunities ADD CONSTRAINT no_bad_name CHECK (opportunity_name <> 'Bad');"
        "ALTER TABLE opportunities ADD CONSTRAINT no_odd_name CHECK (opportunity_name <> 'Odd');"
    )
    for name in ("Good", "Odd", "Bad", "Bad", "Bad"):
        add_deal(graph, tenant, name=name)

    writer.execute("SET deal_sync.max_rejects = 4")
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted, run.rows_rejected) == ("partial", 1, 4)
    kept = rejects(pg, tenant)

    add_deal(graph, tenant, name="Odd")
    graph.run("MATCH (d:Deal {name: 'Good'}) SET d.deal_ref = 'new'")
    run = sync(writer, tenant)
    assert run.status == "failed"
    assert "more than 4 rows" in str(run.message)
    assert "(rows: 3)" in str(run.message)
    assert "23514" in str(run.message)
    assert "no_bad_name" in str(run.message)
    only_the_failed_run(pg, run, "DS001")
    assert rejects(pg, tenant) == kept
    assert one(pg, "SELECT deal_ref FROM opportunities") is None

    writer.execute("SET deal_sync.max_rejects = 5")
    assert sync(writer, tenant).rows_rejected == 5


@pytest.mark.german
@pytest.mark.parametrize("code", ["DS001", "DS003", "DS004"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_code_of_ours_that_the_application_raises_is_a_failure_and_its_words_stay_with_the_server(
    code: str, dry_run: bool, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant)
    pg.execute("INSERT INTO opportunities (id, tenant_id, updated_at) VALUES (%s, %s, now())", [deal, tenant])
    pg.execute(
        "CREATE FUNCTION reject(uuid) RETURNS boolean LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE 'words of Acme' USING ERRCODE = '{code}', DETAIL = 'more of Acme'; END $$".encode()
    )
    pg.execute("CREATE POLICY reject ON opportunities AS RESTRICTIVE USING (reject(id))")
    run = sync(writer, tenant, dry_run=dry_run)
    assert (run.status, run.message) == (
        "failed",
        f"the run failed with SQLSTATE {code}, in function public.reject(uuid); nothing was written",
    )
    kept = pg.execute("SELECT status, server_text FROM deal_sync.runs").fetchall()
    assert len(kept) == (0 if dry_run else 1)
    for status, words in kept:
        assert status == "failed"
        assert words.startswith("words of Acme\nmore of Acme\nIn function public.reject(uuid):\n")
        assert "reject(uuid) " in words.splitlines()[-1]


# -- Concurrent runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["postgres", "app_writer"])
def test_a_second_run_of_one_tenant_steps_aside_and_names_the_holder(
    second: str, database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    first = database.connect("app_writer", autocommit=False, application_name="the night's run")
    assert sync(first, tenant).status == "ok"

    with database.connect(second) as beside:
        notices: list[str] = []
        beside.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        run = sync(beside, tenant)
    assert (run.status, run.deals_read) == ("skipped", 0)
    for holder in (str(first.info.backend_pid), "app_writer"):
        assert holder in str(run.message)
    assert notices == [f"{run.message}, the night's run"]
    assert pg.execute("SELECT status FROM deal_sync.runs").fetchall() == [("skipped",)]

    first.commit()
    assert sync(pg, tenant).deals_unchanged == 1


def test_runs_of_different_tenants_go_side_by_side(
    database: Database, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    other = add_tenant(pg)
    add_deal(graph, tenant)
    add_deal(graph, other)
    first = database.connect("app_writer", autocommit=False)
    assert sync(first, tenant).deals_inserted == 1
    assert sync(writer, other).deals_inserted == 1
    first.commit()
    assert one(pg, "SELECT count(*) FROM opportunities") == 2


def test_many_runs_in_one_transaction(pg: Connection, writer: Connection, graph: Graph) -> None:
    tenants = [add_tenant(pg) for _ in range(3)]
    for each in tenants:
        add_version(graph, each, add_deal(graph, each))
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT good_name CHECK (opportunity_name <> 'Bad')")
    add_deal(graph, tenants[1], name="Bad")
    runs = writer.execute(
        "SELECT r.tenant_id, r.status, r.deals_inserted, r.versions_inserted FROM tenants t, sync_deals(t.id) r"
    ).fetchall()
    assert sorted(runs) == sorted((each, "partial" if each == tenants[1] else "ok", 1, 1) for each in tenants)
    with writer.transaction():
        assert [sync(writer, tenants[0]).status for _ in range(2)] == ["ok", "ok"]
        assert one(writer, "SELECT count(*) FROM pg_class WHERE relname LIKE 'deal\\_sync\\_%%s'") == 0
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 5


def test_a_transaction_that_rolls_back_leaves_nothing(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant, account_id="not a UUID", source_interaction_id=ACCOUNT))
    with writer.transaction(force_rollback=True):
        run = sync(writer, tenant)
        assert (run.deals_inserted, run.versions_inserted, run.links_inserted, run.values_rejected) == (1, 1, 1, 1)
    for table in ("opportunities", "deal_versions", "interaction_links", "deal_sync.runs", "deal_sync.rejects"):
        query: Any = f"SELECT count(*) FROM {table}"
        assert one(pg, query) == 0, table


# -- What the session is afterwards ------------------------------------------------------------------------------------


ENDINGS: dict[str, dict[str, Any]] = {
    "ok": {},
    "partial": {},
    "dry run": {"dry_run": True},
    "failed": {},
    "skipped": {},
    "raised": {"strict": True},
}


@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.parametrize("was_set", [False, True])
def test_the_settings_are_afterwards_as_before_whichever_way_the_run_ends(
    was_set: bool, in_transaction: bool, database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant, name="Bad")
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT good_name CHECK (opportunity_name <> 'Bad') NOT VALID")
    reached = {}
    for ending, arguments in ENDINGS.items():
        with database.connect("app_writer", autocommit=True) as session:
            session.execute("SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET search_path = public, pg_temp")
            session.execute("SET lock_timeout = '7s'; SET work_mem = '5MB'")
            if was_set:
                session.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
            holder = database.connect("app_writer", autocommit=False)
            match ending:
                case "ok":
                    graph.run("MATCH (d:Deal) SET d.name = 'Good'")
                case "failed":
                    session.execute("SET deal_sync.max_rejects = 0")
                case "skipped":
                    sync(holder, tenant)
            query: LiteralString = (
                "SELECT jsonb_object_agg(name, setting) || jsonb_build_object('app.tenant_id',"
                " coalesce(current_setting('app.tenant_id', true), ''), 'deal_sync.search_path',"
                " coalesce(current_setting('deal_sync.search_path', true), '')) FROM pg_settings"
            )
            before = one(session, query)
            if in_transaction:
                session.execute("BEGIN")
            try:
                reached[ending] = sync(session, tenant, **arguments).status
            except psycopg.errors.Error as error:
                reached[ending] = f"raised {error.sqlstate}"
                if in_transaction:
                    session.execute("ROLLBACK")
            after = one(session, query)
            assert after["app.tenant_id"] == (str(tenant) if was_set else ""), ending
            assert {name: value for name, value in after.items() if before.get(name, value) != value} == {}, ending
            if in_transaction and ending != "raised":
                session.execute("ROLLBACK")
            holder.close()
            if ending == "ok":
                graph.run("MATCH (d:Deal) SET d.name = 'Bad'")
                pg.execute("DELETE FROM opportunities")
    assert reached == {
        "ok": "ok",
        "partial": "partial",
        "dry run": "partial",
        "failed": "failed",
        "skipped": "skipped",
        "raised": "raised DS002",
    }


def test_a_setting_of_the_transaction_is_restored_after_the_run(
    writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    with writer.transaction():
        writer.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        assert sync(writer, tenant).status == "ok"
        assert one(writer, "SELECT current_setting('app.tenant_id')") == str(tenant)


def test_deferred_constraints_are_deferred_again_after_the_run(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "CREATE TABLE parent (id int PRIMARY KEY);"
        "CREATE TABLE child (id int CONSTRAINT its_parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED);"
        "GRANT SELECT, INSERT ON parent, child TO app_writer"
    )
    add_deal(graph, tenant)
    with writer.transaction():
        assert sync(writer, tenant).status == "ok"
        writer.execute("INSERT INTO child VALUES (1)")
        writer.execute("INSERT INTO parent VALUES (1)")
    assert one(pg, "SELECT count(*) FROM child") == 1


@pytest.mark.parametrize("where", ["a schema that the caller may not use", "two tables with one constraint's name"])
def test_deferred_constraints_of_others_do_not_disturb_the_run(
    where: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    if where.startswith("a schema"):
        pg.execute(
            "CREATE SCHEMA billing; CREATE TABLE billing.parent (id int PRIMARY KEY);"
            "CREATE TABLE billing.child (id int REFERENCES billing.parent DEFERRABLE INITIALLY DEFERRED)"
        )
    else:
        pg.execute(
            "CREATE TABLE parent (id int PRIMARY KEY);"
            "CREATE TABLE child (id int CONSTRAINT its_parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED);"
            "CREATE TABLE stepchild (id int CONSTRAINT its_parent REFERENCES parent)"
        )
    add_deal(graph, tenant)
    assert sync(writer, tenant).status == "ok"


# -- The application's triggers count on the caller's search_path ------------------------------------------------------


def test_a_trigger_finds_its_tables_by_the_callers_search_path(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "CREATE SCHEMA crm; GRANT USAGE ON SCHEMA crm TO app_writer;"
        "ALTER TABLE forecast_jobs SET SCHEMA crm; ALTER TABLE opportunities SET SCHEMA crm;"
        "ALTER FOREIGN TABLE neo4j.deals OPTIONS (SET target 'crm.opportunities');"
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN stage OPTIONS (SET write 'always')"
    )
    add_deal(graph, tenant, stage="proposal")
    writer.execute("SET search_path = crm, public")
    assert sync(writer, tenant).status == "ok"
    graph.run("MATCH (d:Deal) SET d.stage = 'closed_won', d.last_updated_at = datetime()")
    assert sync(writer, tenant).deals_updated == 1
    assert one(pg, "SELECT count(*) FROM crm.forecast_jobs") == 1
    assert one(writer, "SHOW search_path") == "crm, public"


def test_a_trigger_finds_its_tables_by_the_search_path_of_the_function_that_syncs(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "CREATE SCHEMA crm; GRANT USAGE ON SCHEMA crm TO app_writer; ALTER TABLE forecast_jobs SET SCHEMA crm;"
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA crm TO app_writer;"
        "CREATE FUNCTION crm.nightly(tenant uuid) RETURNS text LANGUAGE sql SET search_path = crm"
        " AS 'SELECT status FROM public.sync_deals(tenant)';"
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN stage OPTIONS (SET write 'always')"
    )
    add_deal(graph, tenant, stage="proposal")
    assert one(writer, "SELECT crm.nightly(%s)", tenant) == "ok"
    graph.run("MATCH (d:Deal) SET d.stage = 'closed_won', d.last_updated_at = datetime()")
    assert one(writer, "SELECT crm.nightly(%s)", tenant) == "ok"
    assert one(pg, "SELECT count(*) FROM crm.forecast_jobs") == 1


# -- What an application does while a run is open, and what its triggers leave behind ----------------------------------


def test_a_row_that_refers_to_a_changed_deal_is_in_nobodys_way(
    database: Database, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant, name="Before")
    sync(writer, tenant)
    pg.execute("CREATE TABLE notes (deal uuid REFERENCES opportunities)")
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.name = 'After', d.embedding = null", id=str(deal))
    application = database.connect(autocommit=False)
    application.execute("INSERT INTO notes SELECT id FROM opportunities")
    run = sync(writer, tenant)
    assert (run.status, run.deals_read) == ("ok", 1)
    application.rollback()


@pytest.mark.parametrize("rows", ["1", "2000"])
def test_a_trigger_that_changes_the_tenants_setting_sends_nothing_to_another_tenant(
    rows: str, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    other = add_tenant(pg)
    pg.execute(
        f"CREATE FUNCTION application_trigger() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM set_config('app.tenant_id', '{other}', true); RETURN new; END $$;"
        "CREATE TRIGGER application BEFORE INSERT OR UPDATE ON opportunities"
        " FOR EACH ROW EXECUTE FUNCTION application_trigger()"
    )
    for _ in range(3):
        add_version(graph, tenant, add_deal(graph, tenant, source_interaction_id=str(uuid.uuid4())))
    pg.execute("SELECT set_config('deal_sync.batch_rows', %s, false)", [rows])
    run = sync(pg, tenant)
    assert (run.status, run.deals_inserted, run.versions_inserted, run.links_inserted) == ("ok", 3, 3, 3)
    for table in ("opportunities", "deal_versions", "interaction_links"):
        assert one(pg, f"SELECT array_agg(DISTINCT tenant_id) FROM {table}") == [tenant]


@pytest.mark.german
def test_a_triggers_words_are_in_no_message_though_they_look_like_the_readers(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "CREATE FUNCTION application_trigger() RETURNS trigger LANGUAGE plpython3u AS"
        f" $$ plpy.error('{WORDS}', sqlstate='HV000') $$;"
        "CREATE TRIGGER application BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION application_trigger()"
    )
    add_deal(graph, tenant)
    run = sync(writer, tenant)
    place = 'trigger "application" of table public.opportunities'
    message = f"the run failed with SQLSTATE HV000, in {place}; nothing was written"
    assert (run.status, run.message) == ("failed", message)


def test_a_run_is_the_same_with_standard_conforming_strings_off(
    writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    bad = add_deal(graph, tenant, name="back\\slash", embedding=[])
    add_version(graph, tenant, bad, name=None)
    writer.execute("SET standard_conforming_strings = off; SET escape_string_warning = on")
    warnings: list[str] = []
    writer.add_notice_handler(lambda notice: warnings.append(str(notice.severity_nonlocalized)))
    assert sync(writer, tenant).status == "partial"
    assert writer.execute("SELECT * FROM deal_sync.differences(%s)", [tenant]).fetchall() == []
    assert writer.execute("SELECT count(*) FROM deal_sync.doctor()").fetchone() != (0,)
    assert "WARNING" not in warnings


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP"])
def test_texts_land_as_they_are_whatever_the_sessions_encoding(
    encoding: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant, name="Café Zoé « 漢 🎉")
    writer.execute("SELECT set_config('client_encoding', %s, false)", [encoding])
    assert sync(writer, tenant).status == "ok"
    name = "SELECT opportunity_name FROM opportunities WHERE graph_opportunity_id = %s"
    assert one(pg, name, deal) == "Café Zoé « 漢 🎉"
    assert writer.execute("SHOW client_encoding").fetchone() == (encoding,)
