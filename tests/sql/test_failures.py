"""Flows in: errors of the extension, of the reader, of the application's code and of PostgreSQL, reported in English
and in German. Flows out: the text of an error of ours, and of nobody else's; the place of an error of the
application's.
"""

import contextlib
import secrets
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from environment.servers import Instance
from environment.state import SERVER_USER
from support.application import trigger
from support.database import Connection, Database
from support.graph import Graph
from support.sync import add_deal, add_version, one, rejects, sync

WORDS: LiteralString = "words of Acme"


@pytest.mark.german
def test_the_server_speaks_the_language(pg: Connection, language: str) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero) as raised:
        pg.execute("SELECT 1 / 0")
    said = {"C": "division by zero", "de_DE.UTF-8": "Division durch Null"}
    assert raised.value.diag.message_primary == said[language]


# Whose words


@pytest.mark.german
def test_a_dry_run_reports_its_counts(pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    run = sync(writer, tenant, dry_run=True)
    assert (run.status, run.deals_inserted, run.message) == ("ok", 1, None)
    assert one(pg, "SELECT count(*) FROM opportunities") == 0


@pytest.mark.german
def test_a_run_that_gives_up_says_why(pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    pg.execute(trigger(f"RAISE EXCEPTION '{WORDS}';"))
    writer.execute("SET deal_sync.max_rejects = 0")
    add_deal(graph, tenant)
    run = sync(writer, tenant)
    assert run.message == (
        "more than 0 rows were rejected. Most frequent reason: P0001 in trigger"
        ' "application" of table public.opportunities: the row was rejected (rows: 1). Fix the cause, or raise'
        " deal_sync.max_rejects; nothing was written"
    )


@pytest.mark.german
def test_a_graph_that_does_not_answer_is_reported_in_the_readers_words(
    pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')")
    assert str(sync(writer, tenant).message).startswith(
        'could not connect to Neo4j server "neo4j" at bolt://127.0.0.1:1'
    )
    with pytest.raises(psycopg.OperationalError) as raised:
        pg.execute("SELECT deal_sync.scan(NULL::neo4j.deals)")
    assert str(raised.value.diag.message_primary).startswith(
        'could not connect to Neo4j server "neo4j" at bolt://127.0.0.1:1'
    )


@pytest.mark.german
def test_a_mistake_of_set_up_is_recorded_in_its_own_words(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute("ALTER TABLE opportunities DROP COLUMN deal_ref")
    with pytest.raises(psycopg.DatabaseError):
        writer.execute("CALL deal_sync.sync_all()")
    assert str(one(pg, "SELECT message FROM deal_sync.runs")).startswith(
        'column "deal_ref" of table public.opportunities does not exist. It is the target of column "deal_ref" of'
        " foreign table"
    )


#: Where code of the application runs; it calls reject(), and some need a row that is there.
PLACES: dict[str, LiteralString] = {
    "a policy of the tenants": "CREATE POLICY reject ON tenants AS RESTRICTIVE USING (reject());"
    " CREATE POLICY all_of_them ON tenants USING (true); ALTER TABLE tenants ENABLE ROW LEVEL SECURITY",
    "a policy of the deals": "CREATE POLICY reject ON opportunities AS RESTRICTIVE USING (reject())",
    "a policy of new deals": "CREATE POLICY reject ON opportunities AS RESTRICTIVE FOR INSERT WITH CHECK (reject())",
    "a policy of the versions": "CREATE POLICY reject ON deal_versions AS RESTRICTIVE USING (reject())",
    "a policy of the links": "CREATE POLICY reject ON interaction_links AS RESTRICTIVE USING (reject())",
    "a trigger": "CREATE FUNCTION application_trigger() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN PERFORM reject(); RETURN new; END $$;"
    " CREATE TRIGGER application BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION application_trigger()",
    "a default": "ALTER TABLE opportunities ADD COLUMN late boolean DEFAULT reject()",
    "a check": "ALTER TABLE opportunities ADD CHECK (reject())",
    "an index": "CREATE INDEX odd ON opportunities ((reject(id)))",
}


@pytest.mark.parametrize(
    ("code", "language"),
    [("DS005", "C"), ("HV000", "C"), ("DS005", "de_DE.UTF-8")],
    ids=["DS005", "HV000", "DS005 in German"],
    indirect=["language"],
)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_code_and_mark_the_application_raises_its_words_stay_with_the_server(
    place: str, code: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant, source_interaction_id=str(uuid.uuid4()), deal_ref="x"))
    pg.execute(
        "CREATE FUNCTION reject(uuid DEFAULT NULL) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN true; END $$"
    )
    pg.execute(PLACES[place])
    sync(writer, tenant, mode="incremental")  # a tenant that was synced
    pg.execute("DELETE FROM interaction_links; DELETE FROM deal_versions; DELETE FROM opportunities")
    pg.execute("INSERT INTO opportunities (id, tenant_id, updated_at) VALUES (gen_random_uuid(), %s, now())", [tenant])
    pg.execute(
        "CREATE OR REPLACE FUNCTION reject(uuid DEFAULT NULL) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE '{WORDS}' USING ERRCODE = '{code}', SCHEMA = 'deal_sync', DATATYPE = 'own',"
        f" CONSTRAINT = '{WORDS}', DETAIL = 'more {WORDS}'; END $$".encode()
    )
    with contextlib.suppress(psycopg.DatabaseError):  # a row is rejected, or a run fails
        writer.execute("CALL deal_sync.sync_all('full')")
    told = pg.execute(
        "SELECT message, server_text FROM deal_sync.runs UNION ALL SELECT message, server_text FROM deal_sync.rejects"
    ).fetchall()
    assert any(WORDS in str(server_text) for _, server_text in told), "it was not provoked"
    assert not [message for message, _ in told if "Acme" in str(message)]


@pytest.mark.german
@pytest.mark.parametrize("code", ["DS005", "HV000"])
def test_a_policy_that_raises_while_nodes_are_looked_for_by_key_is_the_applications(
    code: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """As an incremental run does before it lands anything, when the number of nodes differs."""
    add_deal(graph, tenant)
    pg.execute("CREATE FUNCTION reject(uuid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'")
    pg.execute("CREATE POLICY reject ON opportunities AS RESTRICTIVE USING (reject(id))")
    assert sync(writer, tenant).status == "ok"
    pg.execute(
        "CREATE OR REPLACE FUNCTION reject(uuid) RETURNS boolean LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE '{WORDS}' USING ERRCODE = '{code}', DATATYPE = 'own'; END $$".encode()
    )
    add_deal(graph, tenant)
    run = sync(writer, tenant, mode="incremental")
    assert run.message == f"the run failed with SQLSTATE {code}, in function public.reject(uuid); nothing was written"


@pytest.mark.german
@pytest.mark.parametrize("code", ["DS005", "HV000"])
def test_what_the_callers_transaction_has_deferred_is_the_applications_too(
    code: str, database: Database, pg: Connection, tenant: uuid.UUID
) -> None:
    pg.execute(
        trigger(f"RAISE '{WORDS}' USING ERRCODE = '{code}', DATATYPE = 'own';", "AFTER INSERT").replace(
            "CREATE TRIGGER application AFTER INSERT ON opportunities",
            "CREATE CONSTRAINT TRIGGER application AFTER INSERT ON opportunities DEFERRABLE INITIALLY DEFERRED",
        )
    )
    session = database.connect("postgres", autocommit=False)
    session.execute(
        "INSERT INTO opportunities (id, tenant_id, updated_at) VALUES (gen_random_uuid(), %s, now())", [tenant]
    )
    run = sync(session, tenant)
    place = 'trigger "application" of table public.opportunities'
    assert run.message == f"the run failed with SQLSTATE {code}, in {place}; nothing was written"
    session.rollback()


# Where it was


@pytest.mark.german
def test_an_error_in_a_trigger_is_reported_as_the_triggers(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(trigger("PERFORM 'no number'::integer;"))
    add_deal(graph, tenant)
    assert sync(writer, tenant).rows_rejected == 1
    [reject] = rejects(pg, tenant)
    assert reject.message == 'in trigger "application" of table public.opportunities: data exception'
    said, *_, last = str(reject.server_text).splitlines()
    assert "no number" in said
    assert "application_trigger() " in last
    assert "deal_sync." not in str(reject.server_text)


@pytest.mark.german
def test_what_a_table_that_the_trigger_writes_rejects_is_reported_with_both_names(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("CREATE TABLE audit (id integer PRIMARY KEY); INSERT INTO audit VALUES (1)")
    pg.execute("GRANT INSERT ON audit TO PUBLIC")
    pg.execute(trigger("INSERT INTO audit VALUES (1);"))
    add_deal(graph, tenant)
    sync(writer, tenant)
    [reject] = rejects(pg, tenant)
    assert reject.message == (
        'in trigger "application" of table public.opportunities: another row has the same key:'
        ' table "audit", constraint "audit_pkey"'
    )


@pytest.mark.german
def test_a_value_that_the_table_itself_rejects_is_no_triggers(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """A trigger that has nothing to do with it is there."""
    pg.execute(trigger(""))
    pg.execute("ALTER TABLE opportunities ADD CHECK (1 / (extraction_version - 2) < 5)")
    add_deal(graph, tenant, version=2)
    sync(writer, tenant)
    assert [reject.message for reject in rejects(pg, tenant)] == ["a value is invalid"]


#: Functions that fail: by their names and languages.
FAILING: dict[str, tuple[LiteralString, LiteralString]] = {
    "plain": ("is_good", "plpgsql AS 'BEGIN RETURN 1 / (length($1) - 3) < 5; END'"),
    "odd": ('"is it ""good"""', "plpgsql AS 'BEGIN RETURN 1 / (length($1) - 3) < 5; END'"),
    "in SQL": ('"is good"', "sql SET work_mem = '1MB' AS 'SELECT 1 / (length($1) - 3) < 5'"),
    "in Python": ('"is ""good"""', "plpython3u AS 'return 1 / (len(args[0]) - 3) < 5'"),
}


@pytest.mark.german
@pytest.mark.parametrize("which", FAILING)
def test_an_error_in_a_function_is_reported_as_the_functions_in_every_language(
    which: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    name, body = FAILING[which]
    pg.execute(f"CREATE FUNCTION {name}(text) RETURNS boolean IMMUTABLE LANGUAGE {body}")
    pg.execute(f"ALTER TABLE opportunities ADD CHECK ({name}(opportunity_name))")
    add_deal(graph, tenant, name="Bad")
    sync(writer, tenant)
    [reject] = rejects(pg, tenant)
    assert reject.message.startswith(f"in function public.{name}(text): ")


def test_the_place_of_an_error_is_looked_up_by_name_and_not_among_all_functions(
    database: Database, graph: Graph, tenant: uuid.UUID
) -> None:
    session = database.connect(autocommit=False)
    session.execute("CREATE FUNCTION reject(uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    session.execute(trigger(""))
    contexts = {
        "PL/pgSQL function public.reject(uuid) line 1 at RAISE": "function public.reject(uuid)",
        "PL/pgSQL function application_trigger() line 1 at RAISE": 'trigger "application" of table'
        " public.opportunities",
    }
    read: LiteralString = (
        "SELECT pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid)"
        " + (SELECT sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) FROM pg_index AS i WHERE i.indrelid = c.oid)"
        " FROM pg_class AS c WHERE c.oid = 'pg_proc'::regclass"
    )
    for _ in range(2):  # what the first one puts into caches does not count
        before = one(session, read)
        for context, place in contexts.items():
            assert one(session, "SELECT _deal_sync.place_of_error(%s)", context) == place
    assert one(session, read) - before < 100 < one(session, "SELECT count(*) FROM pg_proc")


@pytest.mark.german
def test_an_error_that_is_raised_on_keeps_the_applications_context(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("CREATE FUNCTION inner_one() RETURNS void LANGUAGE sql AS 'SELECT 1'")
    pg.execute(
        "CREATE OR REPLACE FUNCTION inner_one() RETURNS void LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM * FROM not_there; END $$"
    )
    pg.execute(trigger("PERFORM inner_one();"))
    add_deal(graph, tenant)
    with pytest.raises(psycopg.errors.UndefinedTable) as raised:
        sync(writer, tenant)
    assert "not_there" in str(raised.value.diag.message_primary)
    place, *lines = str(raised.value.diag.message_detail).splitlines()
    assert place == 'In trigger "application" of table public.opportunities:'
    context = "\n".join(lines)
    assert -1 < context.find("inner_one() ") < context.find("application_trigger() ")
    assert "deal_sync." not in str(raised.value.diag.message_detail)


# What the machine lacks


@pytest.fixture
def small_disk(servers: Instance) -> Iterator[Path]:
    """A directory of the server's user on a disk of one megabyte."""
    if SERVER_USER is None:
        pytest.skip("a disk is mounted by root only")
    with tempfile.TemporaryDirectory(dir=servers.directory, prefix="disk") as directory:
        mount = ["mount", "-t", "tmpfs", "-o", f"size=1m,mode=0700,uid={SERVER_USER},gid={SERVER_USER}", "tmpfs"]
        if subprocess.run([*mount, directory], capture_output=True, check=False).returncode != 0:
            pytest.skip("this machine lets nobody mount a disk")
        Path(directory).parent.chmod(0o755)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.mark.german
def test_a_full_disk_is_reported_with_the_tablespaces(
    small_disk: Path, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    space = f"small_{uuid.uuid4().hex[:8]}"
    pg.execute(f"CREATE TABLESPACE {space} LOCATION '{small_disk}'".encode())
    try:
        pg.execute(f"ALTER TABLE opportunities SET TABLESPACE {space}".encode())
        for _ in range(20):
            add_deal(graph, tenant, opportunity_summary=secrets.token_hex(100_000))
        run = sync(writer, tenant)
        assert (run.status, run.message) == (
            "failed",
            "no space left on a disk of the database; the tables are in"
            f' tablespace "pg_default", tablespace "{space}"; free some space and sync again;'
            " server_text in deal_sync.runs names the file; nothing was written",
        )
        sqlstate, server_text = pg.execute("SELECT sqlstate, server_text FROM deal_sync.runs").fetchall()[0]
        assert (sqlstate, "pg_tblspc/" in server_text) == ("53100", True)
        assert one(pg, "SELECT count(*) FROM opportunities") == 0
        subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
        assert (sync(writer, tenant).status, one(pg, "SELECT count(*) FROM opportunities")) == ("ok", 20)
    finally:
        pg.execute("DROP TABLE opportunities CASCADE")
        pg.execute(f"DROP TABLESPACE {space}".encode())


@pytest.mark.parametrize("size", ["5000", "5000B", "5000 B", "5kB", "1 MB"])
def test_a_size_may_have_each_unit_that_postgresql_has_up_to_megabytes(
    size: str, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant, opportunity_summary="x" * 4_900)
    for setting in ("batch_bytes", "max_value_bytes"):
        pg.execute("SELECT set_config('deal_sync.' || %s, %s, false)", [setting, size])
    assert (sync(pg, tenant).status, one(pg, "SELECT length(latest_ai_summary) FROM opportunities")) == ("ok", 4_900)
