"""Flows in: the rights, the catalog and the words of the extension, and a hostile application, caller and colleague.
Flows out: nobody gets more than the trust model of docs/security.md gives: no rights, no rows, no login, no password.
"""

import itertools
import re
import socketserver
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from environment.servers import Instance
from psycopg import sql
from support.database import Connection, Database
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_deal, add_tenant, add_version, one, rejects, sync

SQL = sorted((Path(__file__).resolve().parents[2]).glob("sql/*/[0-9]*.sql"))
EXTENSION: LiteralString = (
    "(SELECT d.classid, d.objid FROM pg_depend AS d INNER JOIN pg_extension AS e ON e.oid = d.refobjid"
    " WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'deal_sync')"
)


@pytest.fixture
def tenant(pg: Connection) -> uuid.UUID:
    return add_tenant(pg)


WRITES = (
    "SELECT ON tenants",
    "SELECT, INSERT, UPDATE ON opportunities, deal_versions, interaction_links, forecast_jobs",
)


# What the catalog says


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
    # A procedure that commits cannot have a SET clause (docs/internals/run.md).
    query: LiteralString = (
        f"SELECT p.oid::regprocedure::text FROM pg_proc AS p INNER JOIN {EXTENSION} AS m ON m.objid = p.oid"
        " WHERE m.classid = 'pg_proc'::regclass AND p.prokind <> 'p'"
        " AND NOT 'search_path=pg_catalog, pg_temp' = ANY (coalesce(p.proconfig, '{}'))"
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
        "_deal_sync.bar(uuid,uuid,text[])",
        "_deal_sync.barred_of(uuid)",
        "_deal_sync.check_graph(text)",
        "_deal_sync.check_source(text)",
        "_deal_sync.cron_facts()",
        "_deal_sync.deal_keys(text,uuid,text,integer)",
        "_deal_sync.end_backfill(deal_sync.backfills)",
        "_deal_sync.examine_graph(boolean)",
        "_deal_sync.fill_staging(text,uuid,regrole,jsonb)",
        "_deal_sync.graph_keys(text,uuid)",
        "_deal_sync.graph_state(uuid,boolean,boolean,double precision)",
        "_deal_sync.keep_backfill(deal_sync.backfills)",
        "_deal_sync.nobodys_nodes(text)",
        "_deal_sync.record_reconciliation(uuid,jsonb)",
        "_deal_sync.record_rejects(uuid,uuid,jsonb)",
        "_deal_sync.record_run(deal_sync.run_result,timestamp with time zone,text,text)",
        "_deal_sync.record_tenants(jsonb)",
        "_deal_sync.record_watermark(uuid,uuid,timestamp with time zone,text,boolean,jsonb)",
        "_deal_sync.refused_elements(uuid)",
        "_deal_sync.remember_undated(uuid,text[],jsonb)",
        "_deal_sync.remove_bar(uuid,uuid)",
        "_deal_sync.remove_records(interval,interval,uuid[])",
        "_deal_sync.remove_tenant(uuid)",
        "_deal_sync.replace_graph(text)",
        "_deal_sync.running()",
        "_deal_sync.scheduled_jobs()",
        "_deal_sync.settle_rejects(uuid,uuid,text[])",
        "_deal_sync.tenants_of_graph()",
        "_deal_sync.watermark_of(uuid)",
    ]


# Who may run it


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


# Whose rights the application's code gets

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


# The staging table


@pytest.mark.parametrize("kind", ["deal", "version"])
@pytest.mark.parametrize(
    "made", ["TABLE {} (LIKE opportunities)", "TABLE {} (row_number bigint)", "VIEW {} AS SELECT 1", "SEQUENCE {}"]
)
def test_a_staging_table_made_beforehand_is_refused(
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


# Whose mapping counts


def test_a_mapping_that_another_role_made_does_not_count(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    with role(pg, fresh("mallory"), "USAGE ON FOREIGN DATA WRAPPER neo4j", "CREATE ON SCHEMA public") as mallory:
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(mallory)))
        pg.execute(
            "CREATE SERVER evil FOREIGN DATA WRAPPER neo4j OPTIONS (uri 'bolt://127.0.0.1:1');"
            "CREATE USER MAPPING FOR PUBLIC SERVER evil OPTIONS (\"user\" 'neo4j', password 'x');"
            "CREATE FOREIGN TABLE evil_deals (id text OPTIONS (target 'graph_opportunity_id')) SERVER evil"
            " OPTIONS (label 'Deal', kind 'deal', target 'public.opportunities');"
        )
        pg.execute("RESET ROLE")
        assert sync(writer, tenant).deals_inserted == 1, "theirs neither counts nor disturbs"

        pg.execute("DROP FOREIGN TABLE neo4j.deals")
        with pytest.raises(psycopg.errors.UndefinedObject, match="no foreign table maps the deal") as refused:
            sync(writer, tenant)
        assert "evil_deals" in str(refused.value.diag.message_detail)


@pytest.mark.parametrize("what", ["FOREIGN TABLE neo4j.deals", "SERVER neo4j"])
def test_a_mapping_or_server_given_to_another_role_does_not_count(
    what: LiteralString, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    grants = ("USAGE ON FOREIGN DATA WRAPPER neo4j", "USAGE, CREATE ON SCHEMA neo4j")
    with role(pg, fresh("mallory"), *grants) as mallory:
        pg.execute(sql.SQL("ALTER {} OWNER TO {}").format(sql.SQL(what), sql.Identifier(mallory)))
        with pytest.raises(psycopg.errors.UndefinedObject, match="no foreign table maps the deal") as refused:
            sync(writer, tenant)
        assert "neo4j.deals" in str(refused.value.diag.message_detail)
        assert "superuser" in str(refused.value.diag.message_detail)
        pg.execute(sql.SQL("ALTER {} OWNER TO postgres").format(sql.SQL(what)))
        assert sync(writer, tenant).status == "ok"


def test_the_sync_reads_with_the_owners_login_whatever_mapping_the_caller_has(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute("CREATE USER MAPPING FOR app_writer SERVER neo4j OPTIONS (\"user\" 'neo4j', password 'wrong')")
    assert sync(writer, tenant).deals_inserted == 1


def test_a_session_never_reads_with_another_roles_login(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """One backend, four roles: the owner, one with a bad login, one with none, one with a login of its own."""
    deal = add_deal(graph, tenant)
    read: LiteralString = "SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)"
    own = fresh("reader")
    graph.run(f"CREATE USER {own} SET PASSWORD 'a password of its own' CHANGE NOT REQUIRED")
    grants = ("USAGE ON SCHEMA neo4j, deal_sync", "USAGE ON FOREIGN SERVER neo4j", "SELECT ON neo4j.deals", *WRITES)
    try:
        with role(pg, fresh("bad"), *grants) as bad, role(pg, fresh("none"), *grants) as none, role(pg, own, *grants):
            for name in (bad, none, own):
                pg.execute(
                    "SELECT deal_sync.grant_sync(%(role)s::regrole), deal_sync.grant_scan(%(role)s::regrole)",
                    {"role": name},
                )
            mapping: LiteralString = 'CREATE USER MAPPING FOR {} SERVER neo4j OPTIONS ("user" {}, password {})'
            pg.execute(sql.SQL(mapping).format(sql.Identifier(bad), fresh("nobody"), "wrong"))
            pg.execute(sql.SQL(mapping).format(sql.Identifier(own), own, "a password of its own"))

            expected = {"postgres": None, bad: "28P01", none: "42704", own: None}
            for name in [*expected, *reversed(expected)]:
                pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
                if expected[name] is None:
                    assert one(pg, read) == str(deal)
                else:
                    with pytest.raises(psycopg.Error) as refused:
                        pg.execute(read)
                    assert refused.value.sqlstate == expected[name], name
                assert sync(pg, tenant).status == "ok", "always the owner's login"

            # Its login is gone: what the session holds open for others must not serve it.
            pg.execute("RESET ROLE")
            graph.run(f"ALTER USER {own} SET PASSWORD 'another password'")
            pg.execute(
                sql.SQL("ALTER USER MAPPING FOR {} SERVER neo4j OPTIONS (SET password 'no longer')").format(
                    sql.Identifier(own)
                )
            )
            pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(own)))
            with pytest.raises(psycopg.errors.InvalidPassword):
                pg.execute(read)
    finally:
        graph.run(f"DROP USER {own}")


def test_a_mapping_for_everybody_is_not_readable_by_a_caller(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "CREATE USER MAPPING FOR PUBLIC SERVER neo4j OPTIONS (\"user\" 'neo4j', password 'for everybody');"
        "GRANT USAGE ON SCHEMA neo4j TO app_writer; GRANT SELECT ON neo4j.deals TO app_writer;"
        "SELECT deal_sync.grant_scan('app_writer')"
    )
    with pytest.raises(psycopg.errors.UndefinedObject, match="may not read the PUBLIC user mapping") as refused:
        writer.execute("SELECT FROM deal_sync.scan(NULL::neo4j.deals)")
    assert "CREATE USER MAPPING FOR app_writer" in str(refused.value.diag.message_hint)


def test_scan_serves_a_role_of_any_name(pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID) -> None:
    deal = add_deal(graph, tenant)
    facts = servers.facts
    for name in (fresh("Reader"), fresh('re"ader ')):
        with role(pg, name, "USAGE ON SCHEMA neo4j", "USAGE ON FOREIGN SERVER neo4j", "SELECT ON neo4j.deals"):
            pg.execute(
                sql.SQL(
                    'CREATE USER MAPPING FOR {role} SERVER neo4j OPTIONS ("user" {user}, password {password});'
                    "SELECT deal_sync.grant_scan({name}::regrole); SET ROLE {role}"
                ).format(
                    role=sql.Identifier(name),
                    name=sql.Identifier(name).as_string(),
                    user=facts["neo4j_user"],
                    password=facts["neo4j_password"],
                )
            )
            assert one(pg, "SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)") == str(deal)


def test_what_scan_refuses_no_function_under_it_gives(
    pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    facts = servers.facts
    with role(pg, fresh("reader"), "USAGE ON SCHEMA neo4j", "USAGE ON FOREIGN SERVER neo4j") as reader:
        pg.execute(
            sql.SQL(
                'CREATE USER MAPPING FOR {role} SERVER neo4j OPTIONS ("user" {user}, password {password});'
                "SELECT deal_sync.grant_scan({name}::regrole)"
            ).format(
                role=sql.Identifier(reader), name=reader, user=facts["neo4j_user"], password=facts["neo4j_password"]
            )
        )
        columns = one(
            pg,
            "SELECT string_agg(format('%%I %%s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)"
            " FROM pg_attribute WHERE attrelid = 'neo4j.deals'::regclass AND attnum > 0",
        )
        relation = one(pg, "SELECT 'neo4j.deals'::regclass::oid")
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(reader)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pg.execute(f"SELECT * FROM _deal_sync.scan_rows({relation}, NULL, NULL, NULL) AS t ({columns})")


def test_scan_needs_select_on_each_column_that_it_returns(
    pg: Connection, writer: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant)
    pg.execute(
        sql.SQL('CREATE USER MAPPING FOR app_writer SERVER neo4j OPTIONS ("user" {}, password {})').format(
            servers.facts["neo4j_user"], servers.facts["neo4j_password"]
        )
    )
    pg.execute(
        "GRANT USAGE ON FOREIGN SERVER neo4j TO app_writer; GRANT USAGE ON SCHEMA neo4j TO app_writer;"
        "GRANT SELECT (opportunity_id) ON neo4j.deals TO app_writer; SELECT deal_sync.grant_scan('app_writer')"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for column"):
        writer.execute("SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)")
    only: LiteralString = "SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals, columns => '{opportunity_id}')"
    assert one(writer, only) == str(deal)


# A search_path full of traps

USED = sorted({name for file in SQL for name in re.findall(r"\b([a-z_0-9]+)\(", file.read_text())})


def test_names_on_the_callers_search_path_shadow_nothing(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """Every function that the extension's SQL may mean, its operators and its tables, trapped in two schemas before
    pg_catalog: in one of the path's own, and, for tables, in pg_temp."""
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
    deal = add_deal(graph, tenant, account_id="no UUID", source_interaction_id=str(uuid.uuid4()))
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


# One tenant


@pytest.mark.parametrize("setting", ["5e77a5e7-0000-4000-8000-000000000001", "no UUID"])
@pytest.mark.parametrize("local", [True, False])
def test_another_tenant_in_the_setting_is_refused(local: bool, setting: str, pg: Connection, tenant: uuid.UUID) -> None:
    with pg.transaction():
        pg.execute("SELECT set_config('app.tenant_id', %s, %s)", [setting, local])
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="another tenant") as refused, pg.transaction():
            sync(pg, tenant)
        assert "RESET app.tenant_id" in str(refused.value.diag.message_hint)
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
    refused = [(r.kind, r.level, r.graph_id, r.sqlstate) for r in rejects(pg, tenant)]
    assert refused == sorted(
        [("deal", "row", str(id), "23505") for id in (by_key, by_id)] + [("version", "row", str(version), "23505")]
    )
    assert pg.execute(theirs, {"other": other}).fetchone() == before


# Options


SERVER, MAPPING = "ALTER SERVER neo4j", "ALTER USER MAPPING FOR postgres SERVER neo4j"
OTHER = "CREATE SERVER other FOREIGN DATA WRAPPER neo4j"
TABLE, COLUMN = "ALTER FOREIGN TABLE neo4j.deals", "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN deal_ref"
UNKNOWN, MALFORMED = "HV00D", "HV00A"

#: Where, the options, SQLSTATE, the option that the message names, and what the hint says.
BAD_OPTIONS = [
    (SERVER, "ADD host 'x'", UNKNOWN, "host", "uri, database, connect_timeout, query_timeout, fetch_size"),
    (SERVER, "SET uri 'http://x'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri 'bolt://'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri ''", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri 'bolt://a b'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri E'bolt://a\\nb'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri 'bolt+tls://x'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri 'bolt://neo4j:hunter2@x'", MALFORMED, "uri", "a login belongs in the user mapping"),
    (SERVER, "ADD database ''", MALFORMED, "database", "name of a database"),
    (SERVER, "ADD connect_timeout 'soon'", MALFORMED, "connect_timeout", "seconds"),
    (SERVER, "ADD connect_timeout '-1'", MALFORMED, "connect_timeout", "seconds"),
    (SERVER, "ADD query_timeout '1e3'", MALFORMED, "query_timeout", "seconds"),
    (SERVER, "ADD query_timeout 'NaN'", MALFORMED, "query_timeout", "seconds"),
    (SERVER, "ADD fetch_size '0'", MALFORMED, "fetch_size", "1 to 999999"),
    (SERVER, "ADD fetch_size '1.5'", MALFORMED, "fetch_size", "1 to 999999"),
    (SERVER, "ADD idle_timeout '0'", MALFORMED, "idle_timeout", "seconds, more than 0"),
    (SERVER, "ADD keep_alive '60'", MALFORMED, "keep_alive", "true or false"),
    (SERVER, "ADD max_rows '0'", MALFORMED, "max_rows", "1 or more"),
    (SERVER, "ADD max_rows '-5'", MALFORMED, "max_rows", "1 or more"),
    (OTHER, "uri 'bolt+s://x', sslrootcert 'root.crt'", MALFORMED, "sslrootcert", "absolute path"),
    (
        SERVER,
        "ADD sslmode 'require'",
        UNKNOWN,
        "sslmode",
        "idle_timeout, keep_alive, max_rows, sslrootcert",
    ),
    (OTHER, "wrapper 'os.system'", MALFORMED, "wrapper", "attach()"),
    (SERVER, "ADD password 'hunter2'", UNKNOWN, "password", "user mapping"),
    (SERVER, "ADD \"user\" 'neo4j'", UNKNOWN, "user", "user mapping"),
    (SERVER, "ADD password_file '/etc/passwd'", UNKNOWN, "password_file", "user mapping"),
    (SERVER, "ADD bearer_token 'hunter2'", UNKNOWN, "bearer_token", "user mapping"),
    (TABLE, "ADD bearer_token 'hunter2'", UNKNOWN, "bearer_token", "user mapping"),
    (TABLE, "ADD max_rows '5'", UNKNOWN, "max_rows", "label, cypher, key, kind"),
    (MAPPING, "ADD sslrootcert '/x'", UNKNOWN, "sslrootcert", "password_file, bearer_token"),
    (MAPPING, "ADD bearer_token 'hunter 2'", MALFORMED, "bearer_token", "token"),
    (MAPPING, "ADD uri 'bolt://x'", UNKNOWN, "uri", "user, password, password_file"),
    (MAPPING, "ADD wrapper 'neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper'", UNKNOWN, "wrapper", "user, password"),
    (MAPPING, "SET \"user\" ''", MALFORMED, "user", "user of Neo4j"),
    (MAPPING, "ADD password_file 'relative'", MALFORMED, "password_file", "absolute path"),
    (TABLE, "ADD password 'hunter2'", UNKNOWN, "password", "user mapping"),
    (TABLE, "ADD labels 'x'", UNKNOWN, "labels", "label, cypher, key, kind, target, links, tenants"),
    (TABLE, "SET kind 'deals'", MALFORMED, "kind", "deal or version"),
    (TABLE, "SET label ''", MALFORMED, "label", "label"),
    (COLUMN, "ADD password 'hunter2'", UNKNOWN, "password", "user mapping"),
    (COLUMN, "ADD policy 'always'", UNKNOWN, "policy", "property, derive, of, target, write, on_misfit"),
    (COLUMN, "ADD write 'sometimes'", MALFORMED, "write", "never, insert, fill or always"),
    (COLUMN, "ADD write 'ALWAYS'", MALFORMED, "write", "never, insert, fill or always"),
    (COLUMN, "ADD on_misfit 'drop'", MALFORMED, "on_misfit", "null, keep, reject or error"),
    (COLUMN, "ADD derive 'magic'", MALFORMED, "derive", "ontology_scores"),
    (COLUMN, "ADD empty 'yes'", MALFORMED, "empty", "null"),
    (COLUMN, "ADD link 'no'", MALFORMED, "link", "true"),
]


@pytest.mark.parametrize(
    ("where", "options", "sqlstate", "named", "hint"), BAD_OPTIONS, ids=[f"{w} {o}" for w, o, *_ in BAD_OPTIONS]
)
def test_a_bad_option_is_refused_where_it_is_set(
    where: str, options: str, sqlstate: str, named: str, hint: str, pg_once: Connection
) -> None:
    statement: Any = f"{where} OPTIONS ({options})"
    with pytest.raises(psycopg.Error) as refused:
        pg_once.execute(statement)
    said = refused.value.diag
    assert said.sqlstate == sqlstate
    assert said.message_primary == f'invalid {"value for " if sqlstate == MALFORMED else ""}option "{named}"'
    assert hint in str(said.message_hint)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("where", "options", "said", "hint"),
    [
        (MAPPING, "ADD bearer_token 'hunter2'", '"bearer_token" does not go with option "password"', "either"),
        (MAPPING, "DROP password, ADD bearer_token 'hunter2'", 'does not go with option "user"', "either"),
        (MAPPING, 'DROP "user"', 'option "password" requires option "user"', "user of Neo4j"),
        (
            SERVER,
            "ADD sslrootcert '/root.crt'",
            '"sslrootcert" requires the option "uri" to begin with',
            "no certificate",
        ),
        (
            OTHER,
            "uri 'bolt+ssc://x', sslrootcert '/root.crt'",
            '"sslrootcert" requires the option "uri" to begin with',
            "no certificate",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused_where_they_are_set(
    where: str, options: str, said: str, hint: str, pg_once: Connection
) -> None:
    statement: Any = f"{where} OPTIONS ({options})"
    with pytest.raises(psycopg.Error) as refused:
        pg_once.execute(statement)
    assert refused.value.sqlstate == "HV024"
    assert said in str(refused.value.diag.message_primary)
    assert hint in str(refused.value.diag.message_hint)
    assert "hunter2" not in str(refused.value)


@pytest.fixture(scope="module")
def pg_once(servers: Instance, template: str) -> Iterator[Connection]:
    """A database for all tests that change nothing."""
    database = Database(servers, f"test_{uuid.uuid4().hex}")
    database.create(template)
    yield database.connect()
    database.close()


def test_a_wrapper_or_a_place_without_options_is_named(pg_once: Connection) -> None:
    with pytest.raises(psycopg.Error, match='invalid option "debug"') as refused:
        pg_once.execute("ALTER FOREIGN DATA WRAPPER neo4j OPTIONS (ADD debug '1')")
    assert refused.value.diag.message_hint == "Valid options in this context are: <none>"


def test_every_good_option_is_taken(pg: Connection) -> None:
    for uri in ("bolt://a", "neo4j://a:7687", "bolt+s://a.b:1", "neo4j+ssc://[::1]:7687", "neo4j://a?policy=eu"):
        pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (SET uri {})").format(uri))
    pg.execute(
        "ALTER SERVER neo4j OPTIONS (database 'deals', connect_timeout '2.5', query_timeout '60', fetch_size '1',"
        " idle_timeout '0.5', keep_alive 'off', max_rows '100000', SET uri 'neo4j+s://a', sslrootcert '/root.crt');"
        "ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (DROP \"user\", DROP password, bearer_token 'a.b-c_d')"
    )


@pytest.mark.parametrize(
    ("place", "option"),
    [
        ("ALTER SERVER theirs", "wrapper 'neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper'"),
        ("ALTER SERVER theirs", "SET uri 'bolt+s://127.0.0.1:1', sslrootcert '/etc/passwd'"),
        ("CREATE USER MAPPING FOR CURRENT_USER SERVER theirs", "\"user\" 'x', password_file '/etc/passwd'"),
    ],
)
def test_options_that_name_files_or_code_are_for_superusers(place: str, option: str, pg: Connection) -> None:
    statement: Any = f"{place} OPTIONS ({option})"
    with role(pg, fresh("owner"), "USAGE ON FOREIGN DATA WRAPPER neo4j") as owner:
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
        pg.execute("CREATE SERVER theirs FOREIGN DATA WRAPPER neo4j OPTIONS (uri 'bolt://127.0.0.1:1')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to set option") as refused:
            pg.execute(statement)
        assert "Only superusers" in str(refused.value.diag.message_hint)
        pg.execute("RESET ROLE")
        pg.execute(statement)


def test_a_password_file_serves_the_login(
    pg: Connection, writer: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute(
        sql.SQL("ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (DROP password, ADD password_file {})").format(
            str(servers.neo4j / "password")
        )
    )
    assert sync(writer, tenant).deals_inserted == 1
    pg.execute("ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password_file '/not/there')")
    assert "password file" in str(sync(writer, tenant).message)


# The password is nowhere

ODD: LiteralString = "p@ss:w/rd%41'\"\\ü"


class Said:
    """Everything that sessions, views and the log say while it is open."""

    def __init__(self, database: Database) -> None:
        self.database, self.texts = database, list[str]()
        self.log = database.instance.log
        self.start = self.log.stat().st_size

    def connect(self, user: str) -> Connection:
        session = self.database.connect(user)
        session.add_notice_handler(lambda notice: self.add(notice))
        return session

    def add(self, said: Any) -> None:
        for name in dir(said):
            if not name.startswith("_"):
                self.texts.append(str(getattr(said, name)))

    def run(self, session: Connection, statement: str, *parameters: Any) -> None:
        query: Any = statement
        try:
            cursor = session.execute(query, parameters)
            self.texts.extend(map(str, cursor.fetchall() if cursor.description else ()))
        except psycopg.Error as error:
            self.texts.append(str(error))
            self.add(error.diag)

    def everything(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self.start)
            return "\n".join([*self.texts, log.read().decode(errors="replace")])


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a server that speaks another protocol than Bolt."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_the_password_is_in_no_error_log_line_view_or_explain(
    database: Database, pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID, stranger: int
) -> None:
    login = fresh("login")
    graph.run(f"CREATE USER {login} SET PASSWORD $password CHANGE NOT REQUIRED", password=ODD)
    setting: LiteralString = (
        'ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET "user" {login}, SET password {password})'
    )
    pg.execute(sql.SQL(setting).format(login=login, password=ODD))  # before anybody listens
    pg.execute(
        "CREATE TABLE accounts (id uuid PRIMARY KEY); GRANT SELECT ON accounts TO PUBLIC;"
        "ALTER TABLE opportunities ADD FOREIGN KEY (account_id) REFERENCES accounts"
    )
    add_deal(graph, tenant, account_id=str(uuid.uuid4()))
    add_deal(graph, tenant, account_id="no UUID", meddic_champion=["a", "list"])
    said = Said(database)
    superuser, writer = said.connect("postgres"), said.connect("app_writer")
    superuser.execute("SET log_statement = 'all'; SET log_min_messages = debug1; SET client_min_messages = debug1")
    superuser.execute("SET log_error_verbosity = verbose; SET log_duration = on")

    uri = servers.facts["neo4j_uri"]
    said.run(superuser, "SELECT * FROM sync_deals(%s::uuid, strict => true)", tenant)
    said.run(superuser, "SELECT * FROM sync_deals(%s::uuid, dry_run => true)", tenant)
    for options in (
        "ADD connect_timeout '0.2'",
        "SET uri 'bolt://127.0.0.1:1'",
        "SET uri 'bolt://no.such.host.invalid:7687'",
        f"SET uri 'bolt://127.0.0.1:{stranger}'",
        f"SET uri '{uri.replace('bolt', 'bolt+s')}'",
        f"SET uri '{uri}?strange=1'",
        f"SET uri '{uri}', ADD database 'missing'",
        "SET database 'neo4j', ADD query_timeout '0.0001'",
        "DROP uri",
        f"ADD uri '{uri}', DROP query_timeout",
    ):
        said.run(superuser, f"ALTER SERVER neo4j OPTIONS ({options})")
        if options.startswith("ADD uri"):
            graph.run(f"ALTER USER {login} SET PASSWORD 'another password'")
            said.run(superuser, "SELECT pg_backend_pid()")
            superuser.execute("ALTER SERVER neo4j OPTIONS (ADD fetch_size '7')")  # a new driver, so a new login
        said.run(superuser, "SELECT * FROM sync_deals(%s::uuid)", tenant)
        said.run(superuser, "SELECT * FROM deal_sync.scan(NULL::neo4j.deals)")
        said.run(superuser, "SELECT * FROM neo4j.deals")  # through Multicorn2, where that is installed
        said.run(writer, "SELECT * FROM sync_deals(%s::uuid, strict => true)", tenant)
    said.run(superuser, "ALTER SERVER neo4j OPTIONS (ADD password 'x')")
    said.run(superuser, "ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (ADD pasword 'x')")
    for relation in (
        *(
            "deal_sync.connections",
            "deal_sync.runs",
            "deal_sync.rejects",
            "pg_stat_activity",
            "pg_prepared_statements",
            "pg_cursors",
        ),
        *("pg_foreign_server", "pg_foreign_table", "information_schema.foreign_server_options", "pg_settings"),
    ):
        said.run(superuser, f"SELECT * FROM {relation}")
    for relation in ("pg_user_mappings", "information_schema.user_mapping_options", "pg_stat_activity"):
        said.run(writer, f"SELECT * FROM {relation}")
    for statement in ("SELECT * FROM neo4j.deals", "SELECT * FROM deal_sync.scan(NULL::neo4j.deals)"):
        said.run(superuser, f"EXPLAIN (VERBOSE, SETTINGS) {statement}")
        said.run(superuser, f"EXPLAIN (ANALYZE) {statement}")
    said.run(superuser, "SELECT deal_sync.mapping_ddl(), deal_sync.merge_statement('neo4j.deals')")
    graph.run(f"DROP USER {login}")

    everything = said.everything()
    for sign in ("08006", "HV000", "28P01", "23503", "DS002", "Function Scan", ": SELECT * FROM sync_deals($1"):
        assert sign in everything, "the test did not provoke or hear what it should"
    for form in {ODD, repr(ODD)[1:-1], ODD.replace("'", "''")}:
        assert form not in everything


def test_a_token_and_the_place_of_a_password_are_in_no_error_log_line_view_or_explain(
    database: Database, pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID, stranger: int
) -> None:
    """A statement that sets an option is logged as it is: it is set before anybody listens."""
    token, place = "the.TOKEN.of-the_test", "/not/there/the-place"
    uri, root = servers.facts["neo4j_uri"], servers.certificates / "root.crt"
    logins = [f"DROP \"user\", DROP password, ADD bearer_token '{token}'"]
    logins += [f"DROP bearer_token, ADD \"user\" 'x', ADD password_file '{place}'"]
    everything, start = "", servers.log.stat().st_size
    for login in logins:
        alter: Any = f"{MAPPING} OPTIONS ({login})"
        pg.execute(alter)
        said = Said(database)
        said.start = start
        superuser = said.connect("postgres")
        superuser.execute("SET log_statement = 'all'; SET log_min_messages = debug1; SET client_min_messages = debug1")
        superuser.execute("SET log_error_verbosity = verbose")
        for server in (uri, "bolt://127.0.0.1:1", f"bolt+s://127.0.0.1:{stranger}", f"{uri}?strange=1"):
            said.run(superuser, f"ALTER SERVER neo4j OPTIONS (SET uri '{server}')")
            for statement in ("neo4j.deals", "deal_sync.scan(NULL::neo4j.deals)", f"sync_deals('{tenant}')"):
                said.run(superuser, f"SELECT * FROM {statement}")
            said.run(superuser, "EXPLAIN (VERBOSE) SELECT * FROM neo4j.deals")
            said.run(superuser, "SELECT * FROM deal_sync.connections, pg_stat_activity")
        said.run(superuser, f"ALTER SERVER neo4j OPTIONS (SET uri 'bolt+s://localhost:1', ADD sslrootcert '{root}')")
        said.run(superuser, "SELECT * FROM neo4j.deals")
        said.run(superuser, f"ALTER SERVER neo4j OPTIONS (SET uri '{uri}', DROP sslrootcert)")
        everything += said.everything()
    for sign in ("08006", "28P01", "HV00D", "refused the login", "password file"):
        assert sign in everything, "the test did not provoke or hear what it should"
    assert token not in everything
    assert place not in everything


def test_a_password_in_an_exception_of_the_driver_is_redacted(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """A uri holds no login, so what could leak is the password itself: here it is a word of the driver's message."""
    setting: LiteralString = (
        "ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET \"user\" {}, SET password 'unauthorized')"
    )
    pg.execute(sql.SQL(setting).format(fresh("nobody")))
    run = sync(writer, tenant)
    assert run.status == "failed"
    assert "refused the login" in str(run.message)
    assert "unauthorized" not in str(run.message)


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

        with pytest.raises(psycopg.Error) as refused:
            writer.execute("FETCH 1 FROM c")
    assert refused.value.sqlstate == "55000"
    assert pg.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'app_writer'").fetchone() == (False,)


def test_scan_reads_no_password_file_that_another_wrapper_lets_a_role_name(
    pg: Connection, servers: Instance, tmp_path: Path
) -> None:
    pg.execute("CREATE FOREIGN DATA WRAPPER without_a_validator")
    with role(
        pg, fresh("reader"), "USAGE ON FOREIGN DATA WRAPPER without_a_validator", "CREATE ON SCHEMA public"
    ) as reader:
        pg.execute(
            sql.SQL("SELECT deal_sync.grant_scan({name}::regrole); SET ROLE {role}").format(
                name=reader, role=sql.Identifier(reader)
            )
        )
        pg.execute(
            "CREATE SERVER theirs FOREIGN DATA WRAPPER without_a_validator OPTIONS (uri 'bolt://127.0.0.1:1');"
            "CREATE USER MAPPING FOR CURRENT_USER SERVER theirs OPTIONS (\"user\" 'x', password_file '/etc/hostname');"
            "CREATE FOREIGN TABLE theirs (name text) SERVER theirs OPTIONS (label 'Deal')"
        )
        with pytest.raises(psycopg.Error, match="of the foreign-data wrapper neo4j does not exist") as raised:
            pg.execute("SELECT * FROM deal_sync.scan(NULL::public.theirs)")
        assert raised.value.sqlstate == "42704"
        pg.execute("RESET ROLE")


def test_a_table_by_cypher_is_made_by_a_superuser_or_the_extensions_owner_alone(pg: Connection) -> None:
    """LOAD CSV reads files and addresses, and a read transaction does not forbid it."""
    query = (
        "CREATE FOREIGN TABLE theirs.files (line text) SERVER neo4j"
        " OPTIONS (cypher 'LOAD CSV FROM ''file:///x'' AS line RETURN line')"
    )
    pg.execute("CREATE SCHEMA theirs")
    with role(pg, fresh("reader"), "USAGE ON FOREIGN SERVER neo4j", "ALL ON SCHEMA theirs") as reader:
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(reader)))
        pg.execute("CREATE FOREIGN TABLE theirs.labelled (name text) SERVER neo4j OPTIONS (label 'Deal')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match='to set option "cypher"') as refused:
            pg.execute(query.encode())
        assert "the host of Neo4j" in str(refused.value.diag.message_detail)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pg.execute("ALTER FOREIGN TABLE theirs.labelled OPTIONS (DROP label, ADD cypher 'RETURN 1 AS name')")
        pg.execute("DROP FOREIGN TABLE theirs.labelled")
        pg.execute("RESET ROLE")
        pg.execute(sql.SQL("UPDATE pg_extension SET extowner = {}::regrole WHERE extname = 'deal_sync'").format(reader))
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(reader)))
        pg.execute(query.encode())
        pg.execute("DROP FOREIGN TABLE theirs.files; RESET ROLE")
        pg.execute("UPDATE pg_extension SET extowner = 10 WHERE extname = 'deal_sync'")
