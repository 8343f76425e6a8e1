"""Flows in: sql/functions/06_mapping.sql and 07_attach.sql, on mappings that people have changed. Flows out: that
attach() leaves theirs, and the mapping as statements.
"""

import uuid
from typing import Any, LiteralString

import psycopg
import pytest
from environment.servers import Instance
from psycopg import sql
from support.database import Connection, execute, new_database
from support.deals import VECTOR
from support.doctor import doctor
from support.graph import Graph
from support.migration import APPLICATION, MIGRATION
from support.sync import add_deal, add_tenant, add_version, one, sync

# -- attach() ----------------------------------------------------------------------------------------------------------


def mapping(pg: Connection) -> list[tuple[Any, ...]]:
    """Everything that attach() could change, with the transaction that wrote it."""
    return pg.execute("""
        SELECT 'class', c.oid::bigint, c.xmin::text, c.relname::text FROM pg_class AS c
            WHERE c.relnamespace = 'neo4j'::regnamespace
        UNION ALL SELECT 'table', t.ftrelid::bigint, t.xmin::text, t.ftoptions::text FROM pg_foreign_table AS t
        UNION ALL SELECT 'column', a.attrelid::bigint * 10000 + a.attnum, a.xmin::text, a.attfdwoptions::text
            FROM pg_attribute AS a INNER JOIN pg_foreign_table AS t ON t.ftrelid = a.attrelid
        UNION ALL SELECT 'comment', d.objoid::bigint * 10000 + d.objsubid, d.xmin::text, d.description
            FROM pg_description AS d INNER JOIN pg_foreign_table AS t ON t.ftrelid = d.objoid
        UNION ALL SELECT 'schema', n.oid::bigint, n.xmin::text, n.nspacl::text FROM pg_namespace AS n
        ORDER BY 1, 2
        """).fetchall()


def test_a_second_attach_changes_nothing_that_a_person_changed(pg: Connection) -> None:
    pg.execute(
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN stage OPTIONS (SET write 'always');"
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN deal_ref OPTIONS (DROP target);"
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN dim_responsiveness TYPE double precision;"
        "ALTER FOREIGN TABLE neo4j.deals ADD COLUMN region text OPTIONS (target 'description');"
        "ALTER FOREIGN TABLE neo4j.deals OPTIONS (SET label 'Opportunity', SET target 'crm.opportunities');"
        "COMMENT ON FOREIGN TABLE neo4j.deals IS 'ours'"
    )
    before = mapping(pg)
    pg.execute("SELECT deal_sync.attach()")
    assert mapping(pg) == before


def test_attach_leaves_a_column_that_a_person_renamed(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "ALTER FOREIGN TABLE neo4j.deals RENAME COLUMN stage TO phase;"
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN phase OPTIONS (ADD property 'stage', SET write 'always');"
        "ALTER FOREIGN TABLE neo4j.deals RENAME COLUMN ontology_scores_json TO scores"
    )
    before = mapping(pg)
    pg.execute("SELECT deal_sync.attach()")
    assert mapping(pg) == before
    add_deal(graph, tenant, stage="proposal")
    assert sync(writer, tenant).status == "ok"
    assert one(pg, "SELECT stage FROM opportunities") == "proposal"


def test_attach_adds_a_column_that_is_missing_and_says_so(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    options: LiteralString = (
        "SELECT jsonb_object_agg(a.attname,"
        " format_type(a.atttypid, a.atttypmod) || coalesce(a.attfdwoptions::text, ''))"
        " FROM pg_attribute AS a WHERE a.attrelid = 'neo4j.deals'::regclass AND a.attnum > 0 AND NOT a.attisdropped"
    )
    before = one(pg, options)
    pg.execute(
        "ALTER FOREIGN TABLE neo4j.deals DROP COLUMN opportunity_id, DROP COLUMN embedding, DROP COLUMN currency"
    )
    said = one(pg, "SELECT deal_sync.attach()")
    for name in ("opportunity_id", "embedding", "currency"):
        assert f"added neo4j.deals.{name};" in said
    assert "created" not in said
    assert one(pg, options) == before
    add_deal(graph, tenant, embedding=VECTOR)
    assert sync(writer, tenant).deals_inserted == 1
    landed = pg.execute("SELECT currency, extraction_embedding IS NOT NULL FROM opportunities").fetchone()
    assert landed == ("EUR", True)


def test_attach_comments_what_has_no_comment_by_what_it_shows(pg: Connection) -> None:
    shown = one(pg, "SELECT col_description('neo4j.deals'::regclass, 4)")
    pg.execute(
        "ALTER FOREIGN TABLE neo4j.deals RENAME COLUMN stage TO phase;"
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN phase OPTIONS (ADD property 'stage');"
        "ALTER FOREIGN TABLE neo4j.deals ADD COLUMN region text;"
        "COMMENT ON COLUMN neo4j.deals.phase IS NULL;"
        "COMMENT ON COLUMN neo4j.deals.amount IS 'ours'"
    )
    pg.execute("SELECT deal_sync.attach()")
    query: LiteralString = (
        "SELECT a.attname, col_description(a.attrelid, a.attnum) FROM pg_attribute AS a"
        " WHERE a.attrelid = 'neo4j.deals'::regclass AND a.attname IN ('phase', 'amount', 'region')"
    )
    assert dict(pg.execute(query).fetchall()) == {"phase": shown, "amount": "ours", "region": None}
    assert shown


def test_attach_says_which_server_is_missing(pg: Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match='server "Graph 1"') as raised:
        pg.execute("SELECT deal_sync.attach('Graph 1')")
    execute(pg, str(raised.value.diag.message_hint))
    pg.execute("DROP FOREIGN TABLE neo4j.deals, neo4j.deal_versions")
    assert "created other.deals" in one(pg, "SELECT deal_sync.attach('Graph 1', 'other')")


def test_attach_makes_no_second_mapping_and_names_the_table_that_is_there(pg: Connection) -> None:
    for table, kind in (("neo4j.deals", "deals"), ("neo4j.deal_versions", "versions")):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as raised:
            pg.execute("SELECT deal_sync.attach('neo4j', 'other')")
        assert raised.value.diag.message_primary == f"foreign table {table} already maps the {kind} of the graph"
        keep, _, replace = str(raised.value.diag.message_hint).partition("; to replace it, first: ")
        assert keep == "To add columns that it lacks: SELECT deal_sync.attach('neo4j', 'neo4j')"
        execute(pg, replace)
    assert "created other.deals; created other.deal_versions" in one(pg, "SELECT deal_sync.attach('neo4j', 'other')")


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [
        ("ALTER FOREIGN TABLE neo4j.deals OPTIONS (DROP kind)", "ALTER FOREIGN TABLE neo4j.deals OPTIONS (ADD kind"),
        (
            "ALTER FOREIGN TABLE neo4j.deal_versions OPTIONS (DROP kind)",
            "ALTER FOREIGN TABLE neo4j.deal_versions OPTIONS (ADD kind",
        ),
        ("DROP FOREIGN TABLE neo4j.deals, neo4j.deal_versions", "SELECT deal_sync.attach();"),
        (
            'DROP FOREIGN TABLE neo4j.deals; ALTER SERVER neo4j RENAME TO graph; ALTER SCHEMA neo4j RENAME TO "My"',
            "SELECT deal_sync.attach('graph', 'My');",
        ),
    ],
)
def test_without_a_mapping_the_hint_makes_what_is_missing(
    pg: Connection, graph: Graph, tenant: uuid.UUID, mistake: str, hint: str
) -> None:
    execute(pg, mistake)
    found = doctor(pg)["foreign tables"]
    with pytest.raises(psycopg.errors.UndefinedObject, match="no foreign table maps") as raised:
        sync(pg, tenant)
    said = str(raised.value.diag.message_hint)
    assert said.startswith(hint)
    assert found.hint == said
    execute(pg, said)
    assert sync(pg, tenant).status == "ok"


def test_attach_says_that_the_application_s_schema_does_not_exist(pg: Connection) -> None:
    pg.execute("DROP FOREIGN TABLE neo4j.deals")
    with pytest.raises(psycopg.errors.InvalidSchemaName, match='schema "nope" does not exist') as raised:
        pg.execute("SELECT deal_sync.attach('neo4j', 'neo4j', 'nope')")
    execute(pg, str(raised.value.diag.message_hint))


@pytest.mark.parametrize(
    ("call", "required"),
    [
        ("attach(NULL)", "a server and a schema"),
        ("attach('neo4j', NULL)", "a server and a schema"),
        ("import_schema(NULL, NULL)", "a server and a schema"),
        ("import_schema('neo4j', NULL)", "a server and a schema"),
        ("merge_statement(NULL)", "a foreign table"),
        ("grant_sync(NULL)", "a role"),
        ("grant_monitor(NULL)", "a role"),
        ("grant_scan(NULL)", "a role"),
    ],
)
def test_an_argument_that_is_null_is_said_to_be_required(pg: Connection, call: str, required: str) -> None:
    with pytest.raises(psycopg.errors.NullValueNotAllowed) as raised:
        execute(pg, f"SELECT deal_sync.{call}")
    function = call.partition("(")[0]
    assert raised.value.diag.message_primary == f"deal_sync.{function} requires {required}"
    assert f"deal_sync.{function}(" in str(raised.value.diag.message_hint)


def test_attach_asks_which_schema_where_several_have_opportunities(pg: Connection) -> None:
    pg.execute(
        'DROP FOREIGN TABLE neo4j.deals; CREATE SCHEMA "Old CRM"; CREATE TABLE "Old CRM".opportunities (id uuid)'
    )
    with pytest.raises(psycopg.Error, match="Old CRM, public") as raised:
        pg.execute("SELECT deal_sync.attach()")
    assert raised.value.sqlstate == "42P08"
    execute(pg, str(raised.value.diag.message_hint))
    target: LiteralString = (
        "SELECT _deal_sync.options_of(ftoptions) ->> 'target' FROM pg_foreign_table"
        " WHERE ftrelid = 'neo4j.deals'::regclass"
    )
    assert one(pg, target) == '"Old CRM".opportunities'


def test_everything_may_stand_in_schemas_of_its_own(servers: Instance, graph: Graph) -> None:
    """pgvector, the application, the foreign tables, the entry point: none in public, and every name odd."""
    with new_database(servers) as database:
        pg = database.connect()
        pg.execute('CREATE SCHEMA "My Vectors"; CREATE EXTENSION vector SCHEMA "My Vectors"; CREATE SCHEMA "Sync"')
        pg.execute('CREATE EXTENSION deal_sync SCHEMA "Sync" CASCADE; CREATE SCHEMA "Cr""m"')
        pg.execute('SET search_path = "Cr""m"')
        execute(pg, APPLICATION)
        facts = servers.facts
        pg.execute(
            sql.SQL(
                'CREATE SERVER "My Graph" FOREIGN DATA WRAPPER neo4j OPTIONS (uri {});'
                'CREATE USER MAPPING FOR CURRENT_USER SERVER "My Graph" OPTIONS ("user" {}, password {})'
            ).format(facts["neo4j_uri"], facts["neo4j_user"], facts["neo4j_password"])
        )
        execute(pg, MIGRATION)
        pg.execute("SELECT deal_sync.attach('My Graph', 'The Graph')")
        pg.execute("SELECT deal_sync.grant_sync('app_writer'); GRANT USAGE ON SCHEMA \"Sync\" TO app_writer")
        tenant = add_tenant(pg)
        add_version(graph, tenant, add_deal(graph, tenant, embedding=VECTOR, source_interaction_id=str(uuid.uuid4())))
        with database.connect("app_writer") as writer:
            for expected in (("ok", 1, 1, 0, 1, 1), ("ok", 1, 0, 1, 0, 0)):
                run = writer.execute(
                    "SELECT status, deals_read, deals_inserted, deals_unchanged, versions_inserted, links_inserted"
                    ' FROM "Sync".sync_deals(%s::uuid)',
                    [tenant],
                ).fetchone()
                assert run == expected
        assert one(pg, "SELECT extraction_embedding::real[] FROM opportunities") == VECTOR
        assert '"My Vectors".vector(1536)' in one(pg, "SELECT deal_sync.mapping_ddl()")


# -- The mapping as statements -----------------------------------------------------------------------------------------


def test_the_mapping_as_statements_makes_the_mapping_again(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN stage OPTIONS (SET write 'always');"
        'ALTER TABLE opportunities ADD COLUMN "Weird ""Name" text;'
        'ALTER FOREIGN TABLE neo4j.deals ADD COLUMN "Weird ""Name" text OPTIONS (target \'Weird "Name\','
        " property 'it''s \\odd', \"default\" 'O''Neill');"
        "ALTER FOREIGN TABLE neo4j.deals DROP COLUMN meddic_paper_process"
    )
    kept = one(pg, "SELECT deal_sync.mapping_ddl()")
    pg.execute("DROP FOREIGN TABLE neo4j.deals, neo4j.deal_versions")
    execute(pg, kept)
    assert one(pg, "SELECT deal_sync.mapping_ddl()") == kept
    add_version(graph, tenant, add_deal(graph, tenant, **{"it's \\odd": "read"}))
    add_deal(graph, tenant)
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted, run.versions_inserted) == ("ok", 2, 1)
    landed = pg.execute('SELECT stage, "Weird ""Name" FROM opportunities ORDER BY 2 DESC').fetchall()
    assert landed == [("proposal", "read"), ("proposal", "O'Neill")]
