"""Flows in: neo4j_deals.sync.setup and sql/functions/15_setup_checks.sql, on databases that are set up wrongly or
oddly. Flows out: every setup error is raised before anything is read, with its remedy.
"""

import re
import uuid
from typing import Any, LiteralString

import psycopg
import pytest
from environment.servers import Instance
from neo4j_deals.sync.names import OWN_COLUMNS
from support.database import Connection, Database, execute
from support.graph import Graph
from support.migration import MIGRATION
from support.sync import add_deal, add_version, one, sync


def rejected(connection: Connection, tenant: uuid.UUID | None) -> psycopg.errors.Diagnostic:
    """What sync_deals raises."""
    with pytest.raises(psycopg.Error) as raised:
        connection.execute("SELECT * FROM sync_deals(%s)", [tenant])
    said = raised.value.diag
    assert "iterator" not in str(said.message_primary), "an error of Python arrives as it was meant"
    assert not str(said.message_primary).startswith("plpy")
    assert len(str(said.context).splitlines()) == 1
    return said


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
        'option "default" of column "dim_responsiveness"',
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN dim_responsiveness",
    ),
    "a default that is too long": (
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN currency OPTIONS (SET \"default\" 'DOLLARS')",
        "42804",
        'option "default" of column "currency"',
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN currency",
    ),
    "a fallback that is not there": (
        "ALTER FOREIGN TABLE neo4j.deal_versions ALTER COLUMN created_at OPTIONS (SET fallback 'nothing')",
        "42703",
        'has fallback "nothing"',
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
    "a key without its target": (
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN opportunity_id OPTIONS (DROP target)",
        "42703",
        'the target "graph_opportunity_id"',
        "ALTER COLUMN opportunity_id OPTIONS (ADD target 'graph_opportunity_id');",
    ),
    "a key that is never written": (
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN opportunity_id OPTIONS (ADD write 'never')",
        "42703",
        'the target "graph_opportunity_id"',
        "ALTER COLUMN opportunity_id OPTIONS (DROP write);",
    ),
    "a domain that is NOT NULL": (
        "CREATE DOMAIN score AS smallint NOT NULL; ALTER TABLE opportunities DROP COLUMN dim_responsiveness,"
        " ADD COLUMN dim_responsiveness score",
        "42804",
        'column "dim_responsiveness" of table public.opportunities is of a domain that does not allow NULL',
        "ALTER TABLE public.opportunities ALTER COLUMN dim_responsiveness SET NOT NULL;",
    ),
    "a domain whose CHECK rejects NULL": (
        "CREATE DOMAIN score AS smallint CHECK (value IS NOT NULL); ALTER TABLE opportunities"
        " DROP COLUMN dim_responsiveness, ADD COLUMN dim_responsiveness score",
        "42804",
        'column "dim_responsiveness" of table public.opportunities is of a domain that does not allow NULL',
        "ALTER TABLE public.opportunities ALTER COLUMN dim_responsiveness SET NOT NULL;",
    ),
    "an interaction that is a text": (
        "ALTER TABLE opportunities ALTER COLUMN source_interaction_id TYPE text",
        "42804",
        'column "source_interaction_id" of foreign table neo4j.deals has option "link"',
        "ALTER TABLE public.opportunities ALTER COLUMN source_interaction_id TYPE uuid",
    ),
    "a stamp of another type": (
        "ALTER TABLE opportunities ALTER COLUMN updated_at DROP DEFAULT, ALTER COLUMN updated_at TYPE bigint USING 0",
        "42804",
        'column "updated_at" of table public.opportunities is of type bigint, not a timestamp',
        "ADD stamps",
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
        said = rejected(database.connect(caller), tenant)
        assert said.sqlstate == sqlstate
        assert named in str(said.message_primary)
        assert hint in str(said.message_hint)
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0


@pytest.mark.german
@pytest.mark.usefixtures("out_of_reach")
def test_an_argument_that_makes_no_sense_raises(pg: Connection, writer: Connection, tenant: uuid.UUID) -> None:
    said = rejected(writer, uuid.uuid4())
    assert said.sqlstate == "23503"
    assert "is not in table public.tenants" in str(said.message_primary)
    assert "Insert it there first" in str(said.message_hint)

    said = rejected(writer, None)
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


#: A NOT NULL column that nothing fills: how it came to be, the property that the hint's column reads, and what lands.
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
    said = rejected(writer, tenant)
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
        advice = str(rejected(writer, tenant).message_hint)
        execute(pg, advice.partition(";")[0])
    run = sync(writer, tenant)
    assert (run.status, run.deals_inserted) == ("ok", 1)


def test_the_hint_for_a_column_that_no_default_fits_says_what_it_costs(
    pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE opportunities ADD COLUMN owner_id uuid NOT NULL")
    hint = str(rejected(writer, tenant).message_hint)
    assert hint.startswith("Give the column a default, or map it: ALTER FOREIGN TABLE neo4j.deals ADD COLUMN owner_id")
    assert hint.endswith("a node without this property is rejected then.")


def test_a_column_of_another_name_is_stamped(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute('ALTER TABLE opportunities RENAME COLUMN updated_at TO "updatedAt"')
    add_deal(graph, tenant, deal_ref="a")
    execute(pg, str(rejected(writer, tenant).message_hint))
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
    error = rejected(writer, tenant)
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
    hint = str(rejected(writer, tenant).message_hint)
    assert hint.startswith("Run the migration (sql/migration/deal_sync.sql)")
    assert "ADD COLUMN" not in hint
    pg.execute(MIGRATION.encode())
    assert sync(writer, tenant).status == "ok"


def test_a_versions_column_that_nothing_fills_is_named_too(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE deal_versions ADD COLUMN author text NOT NULL")
    add_version(graph, tenant, add_deal(graph, tenant), author="Miller")
    said = rejected(writer, tenant)
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


@pytest.mark.usefixtures("out_of_reach")
@pytest.mark.parametrize("name", [*(name for name, _ in OWN_COLUMNS), "landed_id", "shadows", "n" * 59])
def test_a_column_whose_name_the_staging_table_or_its_reading_uses_can_have_no_target(
    name: str, pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    added = f"ADD COLUMN {name} text OPTIONS (target 'deal_ref')"
    execute(pg, f"ALTER FOREIGN TABLE neo4j.deals DROP COLUMN IF EXISTS {name}, {added}")
    said = rejected(writer, tenant)
    assert said.sqlstate == "42701"
    assert said.message_primary == f'a column with a target cannot be named "{name}" in foreign table neo4j.deals'


@pytest.mark.usefixtures("out_of_reach")
def test_a_handler_under_a_python_that_it_would_crash_with_is_rejected(
    pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    """The handler is another wrapper's, and the newer Python only pretended: with both real the server would crash."""
    pg.execute(
        "CREATE EXTENSION postgres_fdw; ALTER FOREIGN DATA WRAPPER neo4j HANDLER postgres_fdw_handler;"
        "CREATE OR REPLACE FUNCTION _deal_sync.check_package() RETURNS integer LANGUAGE sql"
        " SET search_path = pg_catalog, pg_temp AS 'SELECT 313'"
    )
    said = rejected(writer, tenant)
    assert said.sqlstate == "55000"
    assert "Python 3.13" in str(said.message_primary)
    assert said.message_hint == "SELECT deal_sync.detach();"
    execute(pg, said.message_hint)
    assert sync(writer, tenant).status == "failed", "now it gets as far as the graph"
    assert "3.13" in one(pg, "SELECT deal_sync.attach()")
    assert one(pg, "SELECT fdwhandler::oid FROM pg_foreign_data_wrapper WHERE fdwname = 'neo4j'") == 0
