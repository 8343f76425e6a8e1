"""Flows in: the rights and the catalog of the extension, and a hostile application, caller and colleague.
Flows out: nobody gets more than the trust model of docs/security.md gives: no rights, no rows of others.
"""

import itertools
import re
import uuid
from typing import Any, LiteralString

import psycopg
import pytest
from environment.state import CHECKOUT
from psycopg import sql
from support.database import Connection, Database
from support.graph import Graph
from support.roles import WRITES, fresh, role
from support.sync import add_deal, add_tenant, add_version, one, rejects, sync

SQL = sorted(CHECKOUT.glob("sql/*/[0-9]*.sql"))
EXTENSION: LiteralString = (
    "(SELECT d.classid, d.objid FROM pg_depend AS d INNER JOIN pg_extension AS e ON e.oid = d.refobjid"
    " WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'deal_sync')"
)


# -- What the catalog says ---------------------------------------------------------------------------------------------


def test_nothing_is_executable_by_public(pg: Connection) -> None:
    query: LiteralString = (
        f"SELECT p.oid::regprocedure::text FROM pg_proc AS p INNER JOIN {EXTENSION} AS m ON m.objid = p.oid"
        " WHERE m.classid = 'pg_proc'::regclass AND has_function_privilege('public', p.oid, 'EXECUTE')"
    )
    assert pg.execute(query).fetchall() == []


def test_nothing_else_is_open_to_public(pg: Connection) -> None:
    assert one(pg, "SELECT has_schema_privilege('public', 'deal_sync', 'USAGE, CREATE')") is False
    assert one(pg, "SELECT has_schema_privilege('public', '_deal_sync', 'USAGE, CREATE')") is False
    assert one(pg, "SELECT has_foreign_data_wrapper_privilege('public', 'neo4j', 'USAGE')") is False
    assert one(pg, "SELECT has_server_privilege('public', 'neo4j', 'USAGE')") is False
    tables: LiteralString = (
        "SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relnamespace IN ('deal_sync'::regnamespace,"
        " '_deal_sync'::regnamespace, 'neo4j'::regnamespace) AND c.relkind IN ('r', 'v', 'f')"
        " AND has_table_privilege('public', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')"
    )
    assert pg.execute(tables).fetchall() == []


def test_every_function_sets_its_search_path(pg: Connection) -> None:
    # A procedure that commits cannot have a SET clause (docs/internals/run.md). These are inlined where they are
    # called, since they need the caller's settings; their names are qualified.
    query: LiteralString = (
        f"SELECT p.oid::regprocedure::text FROM pg_proc AS p INNER JOIN {EXTENSION} AS m ON m.objid = p.oid"
        " WHERE m.classid = 'pg_proc'::regclass AND p.prokind <> 'p'"
        " AND p.proname <> ALL ('{sync_deals,replay,caller,check_tenant,raise_again,begin_transaction}')"
        " AND NOT 'search_path=pg_catalog, pg_temp' = ANY (coalesce(p.proconfig, '{}'))"
    )
    assert pg.execute(query).fetchall() == []


def test_no_text_is_another_one_with_standard_conforming_strings_off(pg: Connection) -> None:
    query: LiteralString = (
        f"SELECT p.oid::regprocedure::text FROM pg_proc AS p INNER JOIN {EXTENSION} AS m ON m.objid = p.oid"
        " INNER JOIN pg_language AS l ON l.oid = p.prolang"
        " WHERE m.classid = 'pg_proc'::regclass AND l.lanname <> 'plpython3u'"
        # Comments apart, and texts that begin with E.
        " AND regexp_replace(regexp_replace(p.prosrc, '--[^\\n]*', '', 'g'), $$E'([^']|'')*'$$, '', 'g') LIKE '%\\\\%'"
    )
    assert pg.execute(query).fetchall() == []


def test_every_object_has_a_comment(pg: Connection) -> None:
    query: LiteralString = (
        f"SELECT pg_describe_object(m.classid, m.objid, 0) FROM {EXTENSION} AS m"
        " WHERE NOT EXISTS (SELECT FROM pg_description AS d"
        " WHERE d.classoid = m.classid AND d.objoid = m.objid AND d.objsubid = 0)"
        # From PostgreSQL 17 on those are members, too, that it makes by itself.
        " AND NOT (m.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type AS t LEFT JOIN pg_class AS c"
        " ON c.oid = t.typrelid WHERE t.oid = m.objid AND (t.typcategory = 'A' OR c.relkind <> 'c')))"
    )
    assert pg.execute(query).fetchall() == []
    assert one(pg, "SELECT obj_description(oid, 'pg_extension') FROM pg_extension WHERE extname = 'deal_sync'")


def test_these_functions_and_no_others_run_with_the_owners_rights(pg: Connection) -> None:
    query: LiteralString = (
        f"SELECT p.oid::regprocedure::text FROM pg_proc AS p INNER JOIN {EXTENSION} AS m ON m.objid = p.oid"
        " WHERE m.classid = 'pg_proc'::regclass AND p.prosecdef ORDER BY 1"
    )
    assert [name for (name,) in pg.execute(query)] == [
        "_deal_sync.asked_since(timestamp with time zone,name)",
        "_deal_sync.bar(uuid,uuid,text[])",
        "_deal_sync.barred_of(uuid)",
        "_deal_sync.changed_tenants(jsonb,uuid[])",
        "_deal_sync.check_graph(text)",
        "_deal_sync.check_source(text[])",
        "_deal_sync.counted_lately()",
        "_deal_sync.counted_otherwise(uuid,jsonb)",
        "_deal_sync.cron_facts()",
        "_deal_sync.deal_keys(text,uuid,text,integer)",
        "_deal_sync.end_backfill(deal_sync.backfills)",
        "_deal_sync.examine_graph(boolean)",
        "_deal_sync.fill_staging(text,uuid,regrole,jsonb,text)",
        "_deal_sync.graph_keys(text,uuid)",
        "_deal_sync.graph_state(uuid,boolean,boolean,double precision,timestamp with time zone)",
        "_deal_sync.is_retention_due()",
        "_deal_sync.keep_backfill(deal_sync.backfills)",
        "_deal_sync.record_failed_question(_deal_sync.error,name)",
        "_deal_sync.record_question(uuid[],name)",
        "_deal_sync.record_reconciliation(uuid,jsonb)",
        "_deal_sync.record_rejects(uuid,uuid,jsonb)",
        "_deal_sync.record_retention()",
        "_deal_sync.record_run(deal_sync.run_result,timestamp with time zone,text,text)",
        "_deal_sync.record_tenants(jsonb,bigint)",
        "_deal_sync.record_watermark(uuid,uuid,timestamp with time zone,text,boolean,jsonb)",
        "_deal_sync.rejected_elements(uuid)",
        "_deal_sync.remember_undated(uuid,text[],text[])",
        "_deal_sync.remove_bar(uuid,uuid)",
        "_deal_sync.remove_records(interval,interval,uuid[])",
        "_deal_sync.remove_tenant(uuid)",
        "_deal_sync.replace_graph(text)",
        "_deal_sync.running()",
        "_deal_sync.scheduled_jobs()",
        "_deal_sync.settle_rejects(uuid,uuid,text[])",
        "_deal_sync.settled(jsonb,timestamp with time zone,text,jsonb,interval,interval)",
        "_deal_sync.tenants_of_graph()",
        "_deal_sync.watermark_of(uuid)",
    ]


# -- Who may run it ----------------------------------------------------------------------------------------------------


def test_a_role_without_execute_may_call_nothing(database: Database, pg: Connection, tenant: uuid.UUID) -> None:
    with role(pg, fresh("stranger"), *WRITES) as stranger:
        pg.execute(sql.SQL("GRANT USAGE ON SCHEMA deal_sync, _deal_sync TO {}").format(sql.Identifier(stranger)))
        with database.connect(stranger) as session:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="function sync_deals"):
                sync(session, tenant)
            calls = (
                "deal_sync.attach()",
                "deal_sync.detach()",
                "deal_sync.mapping_ddl()",
                "_deal_sync.check_package()",
            )
            for call in (*calls, "deal_sync.scan(NULL::neo4j.deals)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(f"SELECT {call}".encode())
            for table in ("runs", "rejects"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match=table):
                    session.execute(f"SELECT FROM deal_sync.{table}")


def test_execute_gives_no_rights_on_the_applications_tables(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    with role(pg, fresh("clerk")) as clerk:
        pg.execute("SELECT deal_sync.grant_sync(%s::regrole)", [clerk])
        granted = sql.Identifier(clerk)
        with database.connect(clerk) as session:
            for right in (
                *("SELECT ON tenants", "SELECT ON opportunities", "INSERT, UPDATE ON opportunities"),
                *("SELECT, INSERT ON deal_versions", "SELECT, INSERT ON interaction_links"),
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f'^role "{clerk}" lacks .*'):
                    sync(session, tenant)
                pg.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(right), granted))
            assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0
            assert one(pg, "SELECT count(*) FROM opportunities") == 0
            assert sync(session, tenant).status == "ok"


@pytest.mark.parametrize("name", ['we"ird; role', "Ärger", "public "])
def test_a_callers_name_is_never_sql(
    name: str, database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    with role(pg, name, *WRITES):
        pg.execute(
            sql.SQL("SELECT deal_sync.grant_sync({}::regrole)").format(sql.Literal(sql.Identifier(name).as_string()))
        )
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
        assert sync(pg, tenant).deals_inserted == 1


def test_the_log_is_written_by_runs_alone(writer: Connection) -> None:
    for statement in (
        "INSERT INTO deal_sync.runs SELECT * FROM deal_sync.runs",
        "UPDATE deal_sync.rejects SET message = ''",
        "DELETE FROM deal_sync.runs",
        "TRUNCATE deal_sync.rejects",
        "CREATE TRIGGER spy BEFORE INSERT ON deal_sync.runs EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute(statement)


# -- Whose rights the application's code gets --------------------------------------------------------------------------


SPY: LiteralString = (
    "CREATE TABLE seen (who name); GRANT SELECT, INSERT ON seen TO PUBLIC;"
    "CREATE FUNCTION spy(anyelement) RETURNS boolean LANGUAGE plpgsql AS"
    " $$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN true; END $$;"
)


@pytest.mark.parametrize("table", ["opportunities", "deal_versions"])
def test_a_domain_of_the_application_runs_with_the_callers_rights(
    table: LiteralString, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        SPY + "CREATE DOMAIN watched AS text CHECK (spy(value)); CREATE DOMAIN twice AS watched CHECK (spy(value));"
        f"ALTER TABLE {table} ALTER COLUMN meddic_champion TYPE twice; TRUNCATE seen"
    )
    add_version(graph, tenant, add_deal(graph, tenant, meddic_champion="Eve"), meddic_champion="Eve")
    assert sync(writer, tenant).status == "ok"
    assert one(pg, f"SELECT meddic_champion FROM {table}") == "Eve"
    assert one(pg, "SELECT array_agg(DISTINCT who) FROM seen") == ["app_writer"]


def test_triggers_defaults_and_policies_run_with_the_callers_rights(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        SPY + "CREATE FUNCTION spying() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM public.spy(1); RETURN new; END $$;"
    )
    for table in ("opportunities", "deal_versions", "interaction_links"):
        statement: Any = (
            f"CREATE TRIGGER spying BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION spying();"
            f"CREATE POLICY watched ON {table} AS RESTRICTIVE USING (spy(1));"
            f"ALTER TABLE {table} ADD COLUMN watched boolean DEFAULT spy(1)"
        )
        pg.execute(statement)
    pg.execute("TRUNCATE seen")
    add_version(graph, tenant, add_deal(graph, tenant, source_interaction_id=str(uuid.uuid4())))
    assert sync(writer, tenant).status == "ok"
    assert one(pg, "SELECT array_agg(DISTINCT who) FROM seen") == ["app_writer"]


# -- The staging table -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["deal", "version"])
@pytest.mark.parametrize(
    "made", ["TABLE {} (LIKE opportunities)", "TABLE {} (row_number bigint)", "VIEW {} AS SELECT 1", "SEQUENCE {}"]
)
def test_a_staging_table_made_beforehand_is_rejected(
    made: LiteralString, kind: LiteralString, writer: Connection, tenant: uuid.UUID, pg: Connection, graph: Graph
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    writer.execute(f"CREATE TEMPORARY {made.format(f'deal_sync_{kind}s')}")
    with pytest.raises(psycopg.errors.DuplicateTable, match=f"deal_sync_{kind}s"):
        sync(writer, tenant)
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0


def test_a_trigger_on_a_staging_table_made_beforehand_never_runs(
    writer: Connection, graph: Graph, tenant: uuid.UUID, pg: Connection
) -> None:
    add_deal(graph, tenant)
    pg.execute(SPY)
    writer.execute(
        "CREATE TEMPORARY TABLE deal_sync_deals (row_number bigint, element_id text);"
        "CREATE FUNCTION pg_temp.spying() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM public.spy(1); RETURN new; END $$;"
        "CREATE TRIGGER spying BEFORE INSERT OR TRUNCATE ON deal_sync_deals EXECUTE FUNCTION pg_temp.spying();"
        "CREATE TRIGGER spying_rows BEFORE INSERT ON deal_sync_deals FOR EACH ROW EXECUTE FUNCTION pg_temp.spying()"
    )
    with pytest.raises(psycopg.errors.DuplicateTable):
        sync(writer, tenant)
    assert one(pg, "SELECT count(*) FROM seen") == 0


def test_the_caller_may_only_read_and_empty_the_staging_table_during_a_run(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    attempts = {
        "SELECT": "SELECT FROM pg_temp.deal_sync_deals",
        "INSERT": "INSERT INTO pg_temp.deal_sync_deals (row_number) VALUES (2)",
        "UPDATE": "UPDATE pg_temp.deal_sync_deals SET element_id = NULL",
        "DELETE": "DELETE FROM pg_temp.deal_sync_deals",
        "ALTER": "ALTER TABLE pg_temp.deal_sync_deals ADD COLUMN more int",
        "RENAME": "ALTER TABLE pg_temp.deal_sync_deals RENAME TO gone",
        "OWNER": "ALTER TABLE pg_temp.deal_sync_deals OWNER TO app_writer",
        "DROP": "DROP TABLE pg_temp.deal_sync_deals",
        "INDEX": "CREATE INDEX ON pg_temp.deal_sync_deals (row_number)",
        "RULE": "CREATE RULE r AS ON INSERT TO pg_temp.deal_sync_deals DO INSTEAD NOTHING",
        "POLICY": "CREATE POLICY p ON pg_temp.deal_sync_deals",
        "TRIGGER": "CREATE TRIGGER t BEFORE INSERT ON pg_temp.deal_sync_deals"
        " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    }
    pg.execute("CREATE TABLE tried (what text, sqlstate text); GRANT INSERT ON tried TO PUBLIC")
    tries = " ".join(
        f"BEGIN EXECUTE $try${statement}$try$; INSERT INTO public.tried VALUES ('{what}', '00000');"
        f" EXCEPTION WHEN OTHERS THEN INSERT INTO public.tried VALUES ('{what}', SQLSTATE); END;"
        for what, statement in attempts.items()
    )
    attack: Any = (
        f"CREATE FUNCTION attack() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {tries} RETURN new; END $$;"
        "CREATE TRIGGER attack BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION attack()"
    )
    pg.execute(attack)
    add_deal(graph, tenant)
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted) == ("ok", 1)
    assert dict(pg.execute("SELECT what, sqlstate FROM tried").fetchall()) == {
        what: "00000" if what == "SELECT" else "42501" for what in attempts
    }


@pytest.mark.parametrize("vanish", ["a savepoint rolled back", "DISCARD TEMP"])
def test_a_table_put_in_the_place_of_staging_between_two_fetches_is_not_filled(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID, vanish: str
) -> None:
    for _ in range(3):
        add_deal(graph, tenant)
    with psycopg.connect(database.dsn("app_writer")) as writer:
        writer.execute("SET deal_sync.batch_rows = 1")
        writer.execute(
            "DECLARE c CURSOR FOR SELECT _deal_sync.fill_staging('deal', %s, 'app_writer', NULL)",
            [tenant],
        )
        writer.execute("SAVEPOINT a")
        writer.execute("FETCH 1 FROM c")
        writer.execute("CREATE TEMP TABLE copied AS SELECT * FROM pg_temp.deal_sync_deals")
        columns = writer.execute(
            "SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)"
            " FROM pg_attribute WHERE attrelid = 'pg_temp.copied'::regclass AND attnum > 0"
        ).fetchone()
        assert columns is not None
        writer.execute("ROLLBACK TO a" if vanish == "a savepoint rolled back" else "DISCARD TEMP")
        writer.execute(sql.SQL("CREATE TEMP TABLE deal_sync_deals ({})").format(sql.SQL(columns[0])))
        writer.execute(
            "CREATE FUNCTION pg_temp.trap() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN ALTER ROLE app_writer SUPERUSER; RETURN new; END $$"
        )
        writer.execute(
            "CREATE TRIGGER trap BEFORE INSERT ON deal_sync_deals FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.trap()"
        )

        with pytest.raises(psycopg.Error) as raised:
            writer.execute("FETCH 1 FROM c")
    assert raised.value.sqlstate == "55000"
    assert pg.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'app_writer'").fetchone() == (False,)


# -- A search_path full of traps ---------------------------------------------------------------------------------------


USED = sorted({name for file in SQL for name in re.findall(r"\b([a-z_0-9]+)\(", file.read_text())})


def test_names_on_the_callers_search_path_shadow_nothing(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """Every function that the extension's SQL may mean, its operators and its tables, with traps in two schemas before
    pg_catalog: in one of the path's own, and, for tables, in pg_temp.
    """
    pg.execute("ALTER TABLE interaction_links ALTER COLUMN entity_type TYPE varchar(20)")
    pg.execute("CREATE SCHEMA traps; GRANT USAGE ON SCHEMA traps TO PUBLIC")
    trapped = pg.execute(
        "SELECT p.proname, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid) FROM pg_proc AS p"
        " WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.proname = ANY (%s)"
        " AND NOT p.proargtypes::oid[] && ARRAY['\"any\"'::regtype, 'internal'::regtype, 'cstring'::regtype]::oid[]"
        " AND p.provariadic = 0 AND p.prorettype <> 'internal'::regtype",
        [USED],
    ).fetchall()
    assert len(trapped) > 50
    body: LiteralString = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'TRAPPED' USING ERRCODE = 'XX001'; END $$"
    for name, arguments, result in trapped:
        statement: Any = f"CREATE FUNCTION traps.{name}({arguments}) RETURNS {result} {body}"
        pg.execute(statement)
    for left, right in [*itertools.product(["text", "varchar", "uuid"], repeat=2), ("bigint", "bigint")]:
        for function, operator, result in (("eq", "=", "boolean"), ("ne", "<>", "boolean"), ("cat", "||", "text")):
            statement = (
                f"CREATE OR REPLACE FUNCTION traps.{function}({left}, {right}) RETURNS {result} {body};"
                f"CREATE OPERATOR traps.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = traps.{function})"
            )
            pg.execute(statement)
    pg.execute("CREATE FUNCTION traps.format(text, uuid) RETURNS text LANGUAGE sql AS $$ SELECT 1 / 0 $$")
    deal = add_deal(graph, tenant, account_id="not a UUID", source_interaction_id=str(uuid.uuid4()))
    add_version(graph, tenant, deal)
    add_version(graph, tenant, deal)

    for first in ("traps", "pg_temp, traps", "traps, pg_catalog"):
        with database.connect("app_writer") as session:
            for table in (
                "opportunities",
                "deal_versions",
                "tenants",
                "interaction_links",
                "runs",
                "rejects",
                "pg_class",
            ):
                shadow: Any = f"CREATE TEMPORARY TABLE {table} AS SELECT 1 AS trap"
                session.execute(shadow)
            session.execute(f"SET search_path = {first}, public")
            run = session.execute(
                "SELECT status, deals_read, rows_rejected, values_rejected FROM public.sync_deals(%s::uuid)", [tenant]
            )
            assert run.fetchone() == ("partial", 1, 1, 1)
    assert one(pg, "SELECT count(*) FROM opportunities") == 1
    assert one(pg, "SELECT count(*) FROM interaction_links") == 1
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 3


# -- One tenant --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["5e77a5e7-0000-4000-8000-000000000001", "not a UUID"])
@pytest.mark.parametrize("local", [True, False])
def test_a_setting_of_another_tenant_is_rejected(local: bool, setting: str, pg: Connection, tenant: uuid.UUID) -> None:
    with pg.transaction():
        pg.execute("SELECT set_config('app.tenant_id', %s, %s)", [setting, local])
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="tenant other than") as raised, pg.transaction():
            sync(pg, tenant)
        assert "RESET app.tenant_id" in str(raised.value.diag.message_hint)
        assert one(pg, "SELECT current_setting('app.tenant_id')") == setting
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0


def test_the_same_tenant_in_the_setting_is_fine_in_any_spelling(
    writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for spelling in (str(tenant), str(tenant).upper(), tenant.hex, ""):
        writer.execute("SELECT set_config('app.tenant_id', %s, false)", [spelling])
        assert sync(writer, tenant).status == "ok"
        assert one(writer, "SELECT current_setting('app.tenant_id')") == spelling


@pytest.mark.parametrize("caller", ["app_writer", "postgres"])
def test_a_tenants_deal_never_touches_a_row_of_another_tenant(
    caller: str, database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """Also for a superuser, whom no policy binds."""
    other = add_tenant(pg)
    by_key, by_id, of_version = (add_deal(graph, tenant, name="Mine") for _ in range(3))
    version = add_version(graph, tenant, of_version)
    for statement in (
        "INSERT INTO opportunities (id, tenant_id, graph_opportunity_id, opportunity_name, updated_at)"
        " VALUES (gen_random_uuid(), %(other)s, %(by_key)s, 'Theirs', '2026-01-01')",
        "INSERT INTO opportunities (id, tenant_id, opportunity_name, updated_at)"
        " VALUES (%(by_id)s, %(other)s, 'Theirs', '2026-01-01')",
        "INSERT INTO deal_versions (id, tenant_id, opportunity_id, version_number, name, stage)"
        " VALUES (%(version)s, %(other)s, %(by_id)s, 1, 'Theirs', 'proposal')",
    ):
        pg.execute(statement, {"other": other, "by_key": by_key, "by_id": by_id, "version": version})
    theirs: LiteralString = (
        "SELECT array_agg(r ORDER BY r) FROM (SELECT o.xmin::text || o::text FROM opportunities AS o"
        " WHERE tenant_id = %(other)s UNION ALL SELECT v.xmin::text || v::text FROM deal_versions AS v"
        " WHERE tenant_id = %(other)s) AS t (r)"
    )
    before = pg.execute(theirs, {"other": other}).fetchone()

    run = sync(database.connect(caller), tenant)
    assert (run.status, run.deals_inserted, run.rows_rejected) == ("partial", 1, 3)
    rejected = [(r.kind, r.level, r.graph_id, r.sqlstate) for r in rejects(pg, tenant)]
    assert rejected == sorted(
        [("deal", "row", str(id), "23505") for id in (by_key, by_id)] + [("version", "row", str(version), "23505")]
    )
    assert pg.execute(theirs, {"other": other}).fetchone() == before
