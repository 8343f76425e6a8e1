"""Flows in: sql/functions/06_mapping.sql, 08_merge.sql and 11_setup_checks.sql, on databases set up wrongly or oddly.
Flows out: every mistake of set-up raises before anything is read, with its remedy; what people made their own stays.
"""

import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from environment.machine import BIN
from environment.servers import Instance
from neo4j_deals.sync.feed import OWN_COLUMNS
from psycopg import sql
from support.database import Connection, Database
from support.graph import Graph
from support.sync import Reject, add_deal, add_tenant, add_version, one, rejects, sync

CHECKOUT = Path(__file__).resolve().parents[2]
MIGRATION = (CHECKOUT / "sql/migration/deal_sync.sql").read_text()
APPLICATION = (CHECKOUT / "tests/application.sql").read_text()
VECTOR = [number / 4 for number in range(1536)]


@pytest.fixture
def tenant(pg: Connection) -> uuid.UUID:
    return add_tenant(pg)


@pytest.fixture
def out_of_reach(pg: Connection) -> None:
    """Whoever tried to read would be `failed`: there is no Neo4j."""
    pg.execute("ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')")


def execute(connection: Connection, statement: str) -> None:
    """A statement that is no literal of this file: a hint, say."""
    query: Any = statement
    connection.execute(query)


def refused(connection: Connection, tenant: uuid.UUID | None) -> psycopg.errors.Diagnostic:
    """What sync_deals raises."""
    with pytest.raises(psycopg.Error) as raised:
        connection.execute("SELECT * FROM sync_deals(%s)", [tenant])
    said = raised.value.diag
    assert "iterator" not in str(said.message_primary), "an error of Python arrives as it was meant"
    assert not str(said.message_primary).startswith("plpy")
    return said


# Mistakes

#: What went wrong, SQLSTATE, what the message names and what the hint says.
MISTAKES: dict[str, tuple[LiteralString, str, str, str]] = {
    "no server": ("DROP SERVER neo4j CASCADE", "42704", "no foreign table maps the deal", "CREATE SERVER neo4j"),
    "no foreign table of the versions": (
        "DROP FOREIGN TABLE neo4j.deal_versions",
        "42704",
        "no foreign table maps the version",
        "deal_sync.attach()",
    ),
    "no user mapping": (
        "DROP USER MAPPING FOR postgres SERVER neo4j",
        "42704",
        'role "postgres" has no user mapping for server "neo4j"',
        "CREATE USER MAPPING FOR postgres SERVER neo4j",
    ),
    "no uri": (
        "ALTER SERVER neo4j OPTIONS (DROP uri)",
        "HV00L",
        'no option "uri"',
        "ALTER SERVER neo4j OPTIONS (ADD uri",
    ),
    "two mappings": (
        "CREATE FOREIGN TABLE neo4j.others (id text OPTIONS (target 'graph_opportunity_id')) SERVER neo4j"
        " OPTIONS (label 'Deal', kind 'deal', target 'public.opportunities')",
        "55000",
        "neo4j.deals",
        "OPTIONS (DROP kind)",
    ),
    "no table of the deals": (
        "DROP TABLE opportunities CASCADE",
        "42P01",
        "public.opportunities",
        "ALTER the option",
    ),
    "no table of the versions": ("DROP TABLE deal_versions", "42P01", "public.deal_versions", "migration"),
    "no table of the links": ("DROP TABLE interaction_links", "42P01", "public.interaction_links", "schema"),
    "no column of a link": (
        "ALTER TABLE interaction_links DROP COLUMN entity_id",
        "42703",
        'column "entity_id" of table public.interaction_links does not exist',
        "migration",
    ),
    "a link's id of another type": (
        "ALTER TABLE interaction_links ALTER COLUMN interaction_id TYPE text USING interaction_id::text",
        "42804",
        'column "interaction_id" of table public.interaction_links is of type text',
        "migration",
    ),
    "a default of another type": (
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN dim_responsiveness OPTIONS (ADD \"default\" 'abc')",
        "42804",
        'default of column "dim_responsiveness"',
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN dim_responsiveness",
    ),
    "a default that is too long": (
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN currency OPTIONS (SET \"default\" 'DOLLARS')",
        "42804",
        'default of column "currency"',
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN currency",
    ),
    "a fallback that is not there": (
        "ALTER FOREIGN TABLE neo4j.deal_versions ALTER COLUMN created_at OPTIONS (SET fallback 'nothing')",
        "42703",
        'the fallback "nothing"',
        "ALTER FOREIGN TABLE neo4j.deal_versions ALTER COLUMN created_at",
    ),
    "no table of the tenants": ("DROP TABLE tenants CASCADE", "42P01", "public.tenants", "schema"),
    "no option target": (
        "ALTER FOREIGN TABLE neo4j.deals OPTIONS (DROP target)",
        "HV00J",
        'no option "target"',
        "ALTER FOREIGN TABLE neo4j.deals OPTIONS (ADD target",
    ),
    "no column of a deal": (
        "ALTER TABLE opportunities DROP COLUMN deal_ref",
        "42703",
        'column "deal_ref" of table public.opportunities does not exist',
        "Run the migration (sql/migration/deal_sync.sql), or ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN deal_ref",
    ),
    "no column of a version": (
        "ALTER TABLE deal_versions DROP COLUMN ontology_version",
        "42703",
        'column "ontology_version" of table public.deal_versions does not exist',
        "migration",
    ),
    "no key": (
        "ALTER FOREIGN TABLE neo4j.deals DROP COLUMN opportunity_id",
        "42703",
        'the target "graph_opportunity_id"',
        "deal_sync.attach()",
    ),
    "no tenant's column": (
        "ALTER FOREIGN TABLE neo4j.deals DROP COLUMN tenant_id",
        "42703",
        'the target "tenant_id"',
        "deal_sync.attach()",
    ),
    "no number of a version": (
        "ALTER FOREIGN TABLE neo4j.deal_versions DROP COLUMN version",
        "42703",
        'the target "version_number"',
        "deal_sync.attach()",
    ),
    "one target twice": (
        "ALTER FOREIGN TABLE neo4j.deals ADD COLUMN ref text OPTIONS (target 'deal_ref')",
        "42701",
        'the target "deal_ref"',
        "set its write policy to 'never'",
    ),
    "an integer for a UUID": (
        "ALTER TABLE opportunities DROP COLUMN dim_responsiveness, ADD COLUMN dim_responsiveness uuid",
        "42804",
        '"dim_responsiveness"',
        "ALTER",
    ),
    "a vector for an integer": (
        "ALTER TABLE opportunities DROP COLUMN extraction_embedding, ADD COLUMN extraction_embedding integer",
        "42804",
        '"embedding"',
        "ALTER",
    ),
    "a vector of another length": (
        "ALTER TABLE opportunities DROP COLUMN extraction_embedding, ADD COLUMN extraction_embedding vector(3)",
        "42804",
        '"embedding"',
        "ALTER",
    ),
    "a document for a number": (
        "ALTER TABLE opportunities DROP COLUMN ontology_scores_json, ADD COLUMN ontology_scores_json integer",
        "42804",
        '"ontology_scores_json"',
        "ALTER",
    ),
    "a time for a boolean": (
        "ALTER TABLE deal_versions DROP COLUMN valid_until, ADD COLUMN valid_until boolean",
        "42804",
        '"valid_until"',
        "ALTER",
    ),
    "a link that nothing fills": (
        "ALTER TABLE interaction_links ADD COLUMN weight integer NOT NULL",
        "23502",
        'column "weight" of table public.interaction_links',
        "ALTER TABLE public.interaction_links ALTER COLUMN weight SET DEFAULT",
    ),
    "a bad setting": (
        "ALTER DATABASE {database} SET deal_sync.batch_rows = 'many'",
        "22023",
        'deal_sync.batch_rows": "many"',
        "2000",
    ),
    "an overlap that is none": (
        "ALTER DATABASE {database} SET deal_sync.overlap = 'some'",
        "22023",
        'deal_sync.overlap": "some"',
        "10min",
    ),
    "an overlap that no clock has": (
        "ALTER DATABASE {database} SET deal_sync.overlap = '999999999h'",
        "22023",
        'deal_sync.overlap": "999999999h"',
        "10min",
    ),
    "a percentage that is none": (
        "ALTER DATABASE {database} SET deal_sync.max_loss = '101'",
        "22023",
        'deal_sync.max_loss": "101"',
        "20",
    ),
    "a time to wait that is none": (
        "ALTER DATABASE {database} SET deal_sync.lock_timeout = 'long'",
        "22023",
        'deal_sync.lock_timeout": "long"',
        "5s",
    ),
}


@pytest.mark.usefixtures("out_of_reach")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_of_set_up_raises_before_anything_is_read(
    mistake: str, database: Database, pg: Connection, tenant: uuid.UUID
) -> None:
    statement, sqlstate, named, hint = MISTAKES[mistake]
    execute(pg, statement.format(database=database.name))
    for caller in ("postgres", "app_writer"):
        said = refused(database.connect(caller), tenant)
        assert said.sqlstate == sqlstate
        assert named in str(said.message_primary)
        assert hint in str(said.message_hint)
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0


@pytest.mark.german
@pytest.mark.usefixtures("out_of_reach")
def test_an_argument_that_makes_no_sense_raises(pg: Connection, writer: Connection, tenant: uuid.UUID) -> None:
    said = refused(writer, uuid.uuid4())
    assert said.sqlstate == "23503"
    assert "is not in table public.tenants" in str(said.message_primary)
    assert "Insert it there first" in str(said.message_hint)

    said = refused(writer, None)
    assert said.sqlstate == "22004"
    assert "sync_deals(" in str(said.message_hint)

    for mode in ("everything", None):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="mode") as raised:
            sync(writer, tenant, mode=mode)
        assert "incremental or full" in str(raised.value.diag.message_hint)
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0


def test_a_column_that_is_never_written_may_be_missing(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE opportunities DROP COLUMN amount CASCADE")
    add_deal(graph, tenant, amount=3)
    assert sync(writer, tenant).status == "ok"


#: A NOT NULL column that nothing fills: how it came about, the property that the hint's column reads, and what lands.
UNFILLED: dict[str, tuple[LiteralString, LiteralString, dict[str, Any], Any]] = {
    "a column that the mapping never writes": (
        "ALTER TABLE opportunities ALTER COLUMN stage SET NOT NULL",
        "stage",
        {"stage": "proposal"},
        "proposal",
    ),
    "a column without a foreign one": (
        "ALTER TABLE opportunities ADD COLUMN region text NOT NULL",
        "region",
        {"region": "north"},
        "north",
    ),
    "a column of an odd name": (
        'ALTER TABLE opportunities ADD COLUMN "Sales ""Region" varchar(20) NOT NULL',
        '"Sales ""Region"',
        {'Sales "Region': "north"},
        "north",
    ),
    "a column whose foreign one has no target": (
        "ALTER TABLE opportunities ADD COLUMN expected_close_date date NOT NULL",
        "expected_close_date",
        {"expected_close_date": "2026-12-01"},
        "2026-12-01",
    ),
    "a number": (
        "ALTER TABLE opportunities ADD COLUMN priority integer NOT NULL",
        "priority",
        {"priority": 7},
        "7",
    ),
    "a truth": (
        "ALTER TABLE opportunities ADD COLUMN strategic boolean NOT NULL",
        "strategic",
        {"strategic": True},
        "true",
    ),
}


@pytest.mark.parametrize("how", UNFILLED)
def test_the_hint_for_a_column_that_nothing_fills_works_when_it_is_executed(
    how: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    statement, column, properties, landed = UNFILLED[how]
    pg.execute(statement)
    add_deal(graph, tenant, **properties)
    said = refused(writer, tenant)
    assert said.sqlstate == "23502"
    assert str(said.message_primary).endswith("is NOT NULL and has no default, and the sync does not write it")
    advice = re.match(r"ALTER FOREIGN TABLE neo4j\.deals .*?;", str(said.message_hint))
    assert advice, said.message_hint
    execute(pg, advice[0])
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted) == ("ok", 1)
    assert one(pg, f"SELECT {column}::text FROM opportunities") == landed


@pytest.mark.parametrize(
    "definition",
    [
        "region text",
        "region varchar(3)",
        "priority integer",
        "price numeric(5, 2)",
        "strategic boolean",
        "details jsonb",
        "mood mood",
        "day date",
        '"createdAt" timestamptz',
        '"updatedAt" timestamp(3)',
        '"modifiedOn" timestamptz',
        '"createdAt" timestamptz NOT NULL, ADD COLUMN "updatedAt" timestamptz',
    ],
)
def test_the_hint_for_a_column_that_nothing_fills_lands_deals_without_such_a_property(
    definition: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("CREATE TYPE mood AS ENUM ('calm', 'angry'); ALTER TABLE opportunities DROP COLUMN updated_at")
    pg.execute(f"ALTER TABLE opportunities ADD COLUMN {definition} NOT NULL".encode())
    add_deal(graph, tenant)
    for _ in range(definition.count(",") + 1 if "ADD" in definition else 1):
        advice = str(refused(writer, tenant).message_hint)
        execute(pg, advice.partition(";")[0])
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted) == ("ok", 1)


def test_the_hint_for_a_column_that_no_default_fits_says_what_it_costs(
    pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE opportunities ADD COLUMN owner_id uuid NOT NULL")
    hint = str(refused(writer, tenant).message_hint)
    assert hint.startswith("Give the column a default, or map it: ALTER FOREIGN TABLE neo4j.deals ADD COLUMN owner_id")
    assert hint.endswith("a node without this property is rejected then.")


def test_a_column_of_another_name_is_stamped(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute('ALTER TABLE opportunities RENAME COLUMN updated_at TO "updatedAt"')
    add_deal(graph, tenant, deal_ref="a")
    execute(pg, str(refused(writer, tenant).message_hint))
    sync(writer, tenant)
    stamp: LiteralString = 'SELECT "updatedAt" FROM opportunities'
    inserted = one(pg, stamp)
    assert inserted is not None
    sync(writer, tenant)
    assert one(pg, stamp) == inserted, "nothing has changed"
    graph.run("MATCH (d:Deal) SET d.deal_ref = 'b', d.last_updated_at = datetime()")
    sync(writer, tenant)
    assert one(pg, stamp) > inserted
    assert '"updatedAt" = now()' in one(pg, "SELECT deal_sync.merge_statement('neo4j.deals')")


@pytest.mark.parametrize(
    ("stamps", "said"),
    [
        ("updatedAt", 'column "updatedAt" of table public.opportunities does not exist'),
        ("deal_ref", 'column "deal_ref" of table public.opportunities is of type character varying, not a timestamp'),
    ],
)
def test_a_stamp_that_is_no_column_of_a_time_is_named(
    stamps: str, said: str, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    execute(pg, f"ALTER FOREIGN TABLE neo4j.deals OPTIONS (ADD stamps '{stamps}')")
    error = refused(writer, tenant)
    assert error.message_primary == said
    execute(pg, str(error.message_hint))
    assert sync(writer, tenant).status == "ok"


@pytest.mark.parametrize("column", ["graph_opportunity_id", "source_interaction_id", "dim_responsiveness"])
def test_the_hint_for_a_column_of_the_migration_that_is_missing_gives_it_its_type(
    column: str, pg: Connection, writer: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    """The foreign column is a text or a bigint: a column of that type would be taken, and every run fail."""
    add_deal(graph, tenant, **{column: 2} if column.startswith("dim") else {})
    pg.execute(f"ALTER TABLE opportunities DROP COLUMN {column} CASCADE".encode())
    hint = str(refused(writer, tenant).message_hint)
    assert hint.startswith("Run the migration (sql/migration/deal_sync.sql)")
    assert "ADD COLUMN" not in hint
    pg.execute(MIGRATION.encode())
    assert sync(writer, tenant).status == "ok"


def test_a_versions_column_that_nothing_fills_is_named_too(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE deal_versions ADD COLUMN author text NOT NULL")
    add_version(graph, tenant, add_deal(graph, tenant), author="Miller")
    said = refused(writer, tenant)
    assert said.sqlstate == "23502"
    assert 'column "author" of table public.deal_versions' in str(said.message_primary)
    execute(pg, str(said.message_hint).partition(";")[0])
    assert sync(writer, tenant).versions_inserted == 1
    assert one(pg, "SELECT author FROM deal_versions") == "Miller"


def test_columns_that_fill_themselves_are_no_mistake(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "ALTER TABLE opportunities ADD COLUMN number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,"
        " ADD COLUMN rank integer NOT NULL DEFAULT 1, ADD COLUMN serial serial NOT NULL,"
        " ADD COLUMN shout text NOT NULL GENERATED ALWAYS AS (coalesce(upper(opportunity_name), '')) STORED"
    )
    pg.execute("GRANT USAGE ON SEQUENCE opportunities_serial_seq TO app_writer")
    add_deal(graph, tenant)
    assert sync(writer, tenant).status == "ok"
    assert pg.execute("SELECT number, rank, serial, shout FROM opportunities").fetchall() == [(1, 1, 1, "ACME")]


# The Python package


ENTRIES: tuple[LiteralString, ...] = (
    "SELECT * FROM sync_deals(gen_random_uuid())",
    "SELECT deal_sync.attach()",
    "SELECT * FROM deal_sync.scan(NULL::neo4j.deals)",
)


@pytest.mark.german
@pytest.mark.usefixtures("out_of_reach")
def test_a_package_of_another_version_is_named_with_the_remedy(pg: Connection) -> None:
    pg.execute("UPDATE pg_extension SET extversion = '99.1' WHERE extname = 'deal_sync'")
    for entry in ENTRIES:
        with pytest.raises(
            psycopg.errors.ObjectNotInPrerequisiteState, match=r"does not serve deal_sync 99\.1"
        ) as raised:
            pg.execute(entry)
        assert "It serves" in str(raised.value.diag.message_detail)
        assert "99.1" in str(raised.value.diag.message_hint)
        assert "reconnect" in str(raised.value.diag.message_hint)


@pytest.mark.german
@pytest.mark.usefixtures("out_of_reach")
def test_a_missing_package_is_named_with_the_remedy(database: Database) -> None:
    for entry in ENTRIES:
        with database.connect() as session:
            session.execute("DO LANGUAGE plpython3u $$ import sys; sys.modules['neo4j_deals'] = None $$")
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot be imported") as raised:
                session.execute(entry)
        assert "Python is 3." in str(raised.value.diag.message_detail)
        assert "install the package" in str(raised.value.diag.message_hint)


@pytest.mark.usefixtures("out_of_reach")
@pytest.mark.parametrize("name", [*(name for name, _ in OWN_COLUMNS), "landed_id", "shadows", "n" * 59])
def test_a_column_whose_name_the_staging_table_or_its_reading_uses_can_have_no_target(
    name: str, pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    added = f"ADD COLUMN {name} text OPTIONS (target 'deal_ref')"
    execute(pg, f"ALTER FOREIGN TABLE neo4j.deals DROP COLUMN IF EXISTS {name}, {added}")
    said = refused(writer, tenant)
    assert said.sqlstate == "42701"
    assert said.message_primary == f'column "{name}" of foreign table neo4j.deals cannot have a target under this name'


@pytest.mark.usefixtures("out_of_reach")
def test_a_handler_under_a_python_that_it_would_crash_with_is_refused(
    pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    """The handler is another wrapper's, and the newer Python only said: with the real two the server would go down."""
    pg.execute(
        "CREATE EXTENSION postgres_fdw; ALTER FOREIGN DATA WRAPPER neo4j HANDLER postgres_fdw_handler;"
        "CREATE OR REPLACE FUNCTION _deal_sync.check_package() RETURNS integer LANGUAGE sql"
        " SET search_path = pg_catalog, pg_temp AS 'SELECT 313'"
    )
    said = refused(writer, tenant)
    assert said.sqlstate == "55000"
    assert "Python 3.13" in str(said.message_primary)
    assert said.message_hint == "SELECT deal_sync.detach();"
    execute(pg, said.message_hint)
    assert sync(writer, tenant).status == "failed", "now it gets as far as the graph"
    assert "3.13" in one(pg, "SELECT deal_sync.attach()")
    assert one(pg, "SELECT fdwhandler::oid FROM pg_foreign_data_wrapper WHERE fdwname = 'neo4j'") == 0


# attach()


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


def test_attach_says_which_server_is_missing(pg: Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match='server "Graph 1"') as raised:
        pg.execute("SELECT deal_sync.attach('Graph 1')")
    execute(pg, str(raised.value.diag.message_hint))
    assert "created other.deals" in one(pg, "SELECT deal_sync.attach('Graph 1', 'other')")


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


@contextmanager
def new_database(servers: Instance) -> Iterator[Database]:
    """An empty database."""
    database = Database(servers, f"test_{uuid.uuid4().hex}")
    database.create("template0")
    try:
        yield database
    finally:
        database.close()


# The mapping and the MERGE as text


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


def test_the_merge_as_text_has_one_line_a_column_quoted_where_needed(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        'ALTER TABLE opportunities ADD COLUMN "Weird ""Name" integer;'
        'ALTER FOREIGN TABLE neo4j.deals ADD COLUMN "Weird ""Name" bigint OPTIONS (target \'Weird "Name\')'
    )
    text = one(pg, "SELECT deal_sync.merge_statement('neo4j.deals')")
    lines = [line.strip().rstrip(",") for line in text.splitlines()]
    assert lines[0] == "MERGE INTO public.opportunities AS t"
    assert '"Weird ""Name" = s."Weird ""Name"' in lines
    assert '_deal_sync.to_integer(s."Weird ""Name") AS "Weird ""Name"' in lines
    assert lines.count('"Weird ""Name"') == 1, "its place in the INSERT list"
    assert lines.count('s."Weird ""Name"') == 2, "its place in VALUES, and in the comparison"
    for line in lines:
        assert len(re.findall(r" AS \S", line)) <= 1
    updated = text[text.index("THEN UPDATE SET") : text.index("WHEN NOT MATCHED")]
    written = [
        target
        for (target,) in pg.execute(
            "SELECT m.target FROM _deal_sync.mapping_columns('neo4j.deals') AS m WHERE m.target IS NOT NULL"
            " AND m.write = 'always' AND m.target NOT IN ('tenant_id', 'graph_opportunity_id')"
        )
    ]
    for target in written:
        name = sql.Identifier(target).as_string(pg) if " " in target else target
        assert len([line for line in updated.splitlines() if line.strip().startswith(f"{name} = ")]) == 1, target
    for target in ("stage", "amount", "currency", "opportunity_name"):
        assert not re.search(rf"^ *{target} = ", updated, re.MULTILINE), "stage and amount never, the others on insert"
    execute(pg, f"PREPARE deals AS {text}")
    execute(pg, "PREPARE versions AS " + one(pg, "SELECT deal_sync.merge_statement('neo4j.deal_versions')"))

    add_deal(graph, tenant, **{'Weird "Name': 7})
    assert sync(writer, tenant).status == "ok"
    assert one(pg, 'SELECT "Weird ""Name" FROM opportunities') == 7


def test_there_is_a_merge_for_the_tables_of_the_mapping_only(pg: Connection) -> None:
    with pytest.raises(psycopg.errors.WrongObjectType, match="tenants") as raised:
        pg.execute("SELECT deal_sync.merge_statement('tenants')")
    assert "merge_statement('neo4j.deals')" in str(raised.value.diag.message_hint)


# What outlives the extension


def application_of(pg: Connection) -> dict[str, Any]:
    """Definition and content of everything in public that is no extension's."""
    found: dict[str, Any] = {}
    for name, query in {
        "columns": "SELECT attrelid::regclass::text, attname::text, format_type(atttypid, atttypmod), attnotnull"
        " FROM pg_attribute INNER JOIN pg_class AS c ON c.oid = attrelid WHERE c.relnamespace = 'public'::regnamespace"
        " AND c.relkind = 'r' AND attnum > 0 AND NOT attisdropped",
        "constraints": "SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace",
        "indexes": "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "triggers": "SELECT tgrelid::regclass::text, tgname::text FROM pg_trigger WHERE NOT tgisinternal",
        "policies": "SELECT tablename::text, policyname::text, qual FROM pg_policies WHERE schemaname = 'public'",
        "rights": "SELECT oid::regclass::text, relacl::text, relforcerowsecurity FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
        **{
            table: f"SELECT t::text FROM {table} AS t"
            for table in ("tenants", "opportunities", "deal_versions", "interaction_links", "forecast_jobs")
        },
    }.items():
        statement: Any = query
        found[name] = sorted(map(repr, pg.execute(statement).fetchall()))
    return found


def test_dropping_the_extension_loses_nothing_of_the_application(
    database: Database, pg: Connection, writer: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant, embedding=VECTOR, source_interaction_id=str(uuid.uuid4()))
    add_version(graph, tenant, deal)
    assert sync(writer, tenant).status == "ok"
    before = application_of(pg)
    pg.execute("DROP EXTENSION deal_sync CASCADE")
    assert application_of(pg) == before
    assert one(pg, "SELECT count(*) FROM opportunities") == 1

    pg.execute("DROP SCHEMA neo4j; CREATE EXTENSION deal_sync")
    facts = servers.facts
    pg.execute(
        sql.SQL(
            "CREATE SERVER neo4j FOREIGN DATA WRAPPER neo4j OPTIONS (uri {});"
            'CREATE USER MAPPING FOR CURRENT_USER SERVER neo4j OPTIONS ("user" {}, password {})'
        ).format(facts["neo4j_uri"], facts["neo4j_user"], facts["neo4j_password"])
    )
    pg.execute("SELECT deal_sync.attach()")
    run = sync(pg, tenant)
    assert (run.status, run.deals_unchanged, run.versions_inserted, run.links_inserted) == ("ok", 1, 0, 0)


def test_a_restored_dump_has_the_log_and_syncs_after_attach(
    database: Database, pg: Connection, writer: Connection, graph: Graph, servers: Instance, tmp_path: Path
) -> None:
    tenant = add_tenant(pg)
    add_version(graph, tenant, add_deal(graph, tenant, account_id="no UUID", embedding=VECTOR))
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN stage OPTIONS (SET write 'always')")
    first = sync(writer, tenant)
    assert first.status == "partial"
    log: LiteralString = "SELECT array_agg(r::text ORDER BY r::text) FROM deal_sync.{} AS r"
    kept = {table: one(pg, log.format(table)) for table in ("runs", "rejects")}
    seen: list[Reject] = rejects(pg, tenant)

    file = tmp_path / "dump.sql"
    with file.open("w") as output:
        subprocess.run([BIN / "pg_dump", "-d", database.dsn()], stdout=output, check=True)
    with new_database(servers) as restored:
        command: list[str | Path] = [BIN / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", restored.dsn()]
        with file.open() as dump:
            subprocess.run(command, stdin=dump, stdout=subprocess.DEVNULL, check=True)
        again = restored.connect()
        assert {table: one(again, log.format(table)) for table in ("runs", "rejects")} == kept
        said = one(again, "SELECT deal_sync.attach()")
        assert "created" not in said
        assert "added" not in said
        assert one(again, "SELECT deal_sync.mapping_ddl()") == one(pg, "SELECT deal_sync.mapping_ddl()")
        run = sync(restored.connect("app_writer"), tenant)
        assert (run.status, run.deals_unchanged, run.versions_inserted) == ("partial", 1, 0)
        assert [(r.column_name, r.times_seen) for r in rejects(again, tenant)] == [
            (r.column_name, r.times_seen + 1) for r in seen
        ]


def test_the_first_run_after_a_dump_and_restore_is_incremental(
    database: Database, pg: Connection, graph: Graph, servers: Instance, tmp_path: Path
) -> None:
    """The types' OIDs and, after a dropped column, the columns' numbers are others in the new database."""
    tenant = add_tenant(pg)
    add_deal(graph, tenant, embedding=VECTOR)
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ADD COLUMN gone text; ALTER FOREIGN TABLE neo4j.deals DROP COLUMN gone")
    pg.execute("ALTER TABLE opportunities ADD COLUMN extra text")
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ADD COLUMN extra text OPTIONS (target 'extra', write 'fill')")
    sync(pg, tenant)
    file = tmp_path / "dump.sql"
    with file.open("w") as output:
        subprocess.run([BIN / "pg_dump", "-d", database.dsn()], stdout=output, check=True)
    with new_database(servers) as restored:
        servers.psql(restored.name, "-o", "/dev/null", "-f", file)
        again = restored.connect()
        vector: LiteralString = "SELECT 'vector'::regtype::oid"
        assert one(again, vector) != one(pg, vector)
        again.execute("SELECT deal_sync.attach()")
        run = sync(again, tenant, mode="incremental")
        assert (run.mode, run.status, run.message) == ("incremental", "ok", None)


def test_a_database_in_another_encoding_is_refused(pg: Connection, servers: Instance) -> None:
    name = f"latin_{uuid.uuid4().hex}"
    pg.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with psycopg.connect(servers.dsn(name), autocommit=True) as latin:
            latin.execute("CREATE EXTENSION deal_sync CASCADE")
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="LATIN1, and the graph's texts need UTF8"):
                latin.execute("SELECT sync_deals(%s)", [uuid.uuid4()])
    finally:
        pg.execute(f"DROP DATABASE {name}")
