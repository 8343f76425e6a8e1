"""Flows in: sql/migration/deal_sync.sql, on databases that hold pgvector and the application's tables only. Flows out:
what it creates, however and however often it is run, and what stops it.
"""

import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from environment.machine import BIN
from environment.state import CHECKOUT
from neo4j_deals.mapping.defaults import TABLES
from psycopg import sql
from support.database import Connection
from support.migration import (
    APPLICATION,
    DEAL_A,
    MEDDIC,
    MIGRATION,
    VERSION_COLUMNS,
    A,
    B,
    NewDatabase,
    columns,
    fill,
    fill_versions,
    owned_by_an_ordinary_role,
)
from support.sync import one

DIMENSIONS = [
    "champion_strength",
    "economic_buyer_access",
    "identified_pain",
    "metrics_business_case",
    "decision_criteria_alignment",
    "decision_process_clarity",
    "competitive_position",
    "incumbent_displacement_risk",
    "pricing_alignment",
    "procurement_legal_progress",
    "responsiveness",
    "close_date_credibility",
    "technical_fit",
    "integration_security_risk",
    "change_readiness",
]


CONFIDENCE = "numeric(3,2)"
OPPORTUNITY_COLUMNS = {
    "graph_opportunity_id": "uuid",
    "deal_ref": "character varying(50)",
    "qualification_status": "character varying(20)",
    "source_user_id": "text",
    **{f"meddic_{field}": "text" for field in MEDDIC},
    **{f"meddic_{field}_confidence": CONFIDENCE for field in MEDDIC},
    "meddic_completeness": CONFIDENCE,
    "meddic_paper_process": "text",
    "meddic_competition": "text",
    **{f"dim_{dimension}": "smallint" for dimension in DIMENSIONS},
    **{f"dim_{dimension}_confidence": CONFIDENCE for dimension in DIMENSIONS},
    "ontology_scores_json": "jsonb",
    "ontology_version": "character varying(64)",
    "extraction_embedding": "vector(1536)",
    "extraction_embedding_current": "vector(1536)",
    "extraction_confidence": CONFIDENCE,
    "extraction_version": "integer",
    "source_interaction_id": "uuid",
}


def catalog(connection: Connection) -> list[tuple[Any, ...]]:
    """Every catalog row that a migration could write, with the transaction that wrote it."""
    return connection.execute("""
        SELECT 'class', oid::bigint, xmin::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT 'attribute', attrelid::bigint * 10000 + attnum, xmin::text FROM pg_attribute
            WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
        UNION ALL SELECT 'constraint', oid::bigint, xmin::text FROM pg_constraint
        UNION ALL SELECT 'policy', oid::bigint, xmin::text FROM pg_policy
        UNION ALL SELECT 'description', objoid::bigint * 10000 + objsubid, xmin::text FROM pg_description
        ORDER BY 1, 2
        """).fetchall()


# -- What it makes -----------------------------------------------------------------------------------------------------


def test_opportunities_gains_the_columns_of_the_rules_and_no_other(database: Connection) -> None:
    before = columns(database, "opportunities")
    database.execute(MIGRATION)
    after = columns(database, "opportunities")
    assert after[: len(before)] == before
    gained = after[len(before) :]
    assert {name: type_name for name, type_name, _, _ in gained} == OPPORTUNITY_COLUMNS
    assert {name: default for name, _, _, default in gained if default} == {"extraction_version": "1"}
    assert not [name for name, _, not_null, _ in gained if not_null]


def test_no_column_has_the_prefix_of_the_dimensions_beside_the_30(database: Connection) -> None:
    database.execute(MIGRATION)
    assert len([name for name, *_ in columns(database, "opportunities") if name.startswith("dim_")]) == 30


def test_deal_versions_has_the_25_columns_of_the_plan(database: Connection) -> None:
    database.execute(MIGRATION)
    assert len(VERSION_COLUMNS) == 25
    assert columns(database, "deal_versions") == VERSION_COLUMNS


def test_the_indexes_are_made(database: Connection) -> None:
    database.execute(MIGRATION)
    made = database.execute(
        "SELECT indexdef FROM pg_indexes"
        " WHERE tablename IN ('opportunities', 'deal_versions', 'interaction_links') ORDER BY indexname"
    ).fetchall()
    assert [definition.replace("USING btree ", "").replace("public.", "") for (definition,) in made] == [
        "CREATE INDEX deal_versions_opportunity_id_idx ON deal_versions (opportunity_id)",
        "CREATE UNIQUE INDEX deal_versions_pkey ON deal_versions (id)",
        "CREATE INDEX deal_versions_tenant_id_idx ON deal_versions (tenant_id)",
        "CREATE UNIQUE INDEX deal_versions_tenant_id_opportunity_id_version_number_key"
        " ON deal_versions (tenant_id, opportunity_id, version_number)",
        "CREATE UNIQUE INDEX interaction_links_pkey ON interaction_links (id)",
        "CREATE INDEX interaction_links_tenant_id_interaction_id_idx ON interaction_links (tenant_id, interaction_id)",
        "CREATE UNIQUE INDEX opportunities_graph_opportunity_id_key ON opportunities (graph_opportunity_id)",
        "CREATE UNIQUE INDEX opportunities_pkey ON opportunities (id)",
        "CREATE INDEX opportunities_source_interaction_id_idx ON opportunities (source_interaction_id)",
    ]


@pytest.mark.parametrize(
    ("before", "makes"),
    [
        ("CREATE INDEX ours ON interaction_links (interaction_id, entity_id)", False),
        ("CREATE UNIQUE INDEX ours ON interaction_links (tenant_id, interaction_id, entity_id)", False),
        ("CREATE INDEX ours ON interaction_links (entity_id, interaction_id)", True),
        ("CREATE INDEX ours ON interaction_links (interaction_id) WHERE entity_type = 'opportunity'", True),
        ("CREATE ROLE links_owner; ALTER TABLE interaction_links OWNER TO links_owner", True),
        ("ALTER TABLE interaction_links RENAME interaction_id TO interaction", False),
        ("DROP TABLE interaction_links", False),
    ],
)
def test_the_links_get_an_index_if_none_leads_to_those_of_an_interaction(
    database: Connection, before: str, makes: bool
) -> None:
    with database.transaction(force_rollback=True):
        database.execute(before.encode())
        database.execute(MIGRATION)
        made = "SELECT count(*) FROM pg_class WHERE relname = 'interaction_links_tenant_id_interaction_id_idx'"
        assert one(database, made) == makes


def test_links_of_another_owner_are_left_alone(database: Connection) -> None:
    owned_by_an_ordinary_role(database)
    database.execute("ALTER TABLE interaction_links OWNER TO postgres")
    with database.transaction():
        database.execute("SET LOCAL ROLE app_owner")
        database.execute(MIGRATION)
    made = "SELECT count(*) FROM pg_class WHERE relname = 'interaction_links_tenant_id_interaction_id_idx'"
    assert one(database, made) == 0


def test_versions_follow_their_opportunity_and_their_tenant(database: Connection) -> None:
    database.execute(MIGRATION)
    fill(database)
    fill_versions(database)
    moved = uuid.uuid4()
    database.execute("UPDATE opportunities SET id = %s WHERE id = %s", [moved, DEAL_A])
    assert one(database, "SELECT opportunity_id FROM deal_versions WHERE tenant_id = %s", A) == moved
    database.execute("DELETE FROM opportunities WHERE id = %s", [moved])
    assert one(database, "SELECT array_agg(tenant_id) FROM deal_versions") == [B]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        database.execute("UPDATE deal_versions SET opportunity_id = gen_random_uuid()")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        database.execute("UPDATE deal_versions SET tenant_id = gen_random_uuid()")
    rules = database.execute(
        "SELECT confrelid::regclass::text, confdeltype::text, confupdtype::text, convalidated FROM pg_constraint"
        " WHERE conrelid = 'deal_versions'::regclass AND contype = 'f' ORDER BY 1"
    ).fetchall()
    assert rules == [("opportunities", "c", "c", True), ("tenants", "c", "c", True)]


def test_comments_say_what_they_are_for_and_leave_those_of_people(database: Connection) -> None:
    database.execute(MIGRATION)
    read = "SELECT obj_description('deal_versions'::regclass, 'pg_class')"
    assert "deal_sync" in one(database, read)
    database.execute("COMMENT ON TABLE deal_versions IS 'ours'")
    database.execute(MIGRATION)
    assert one(database, read) == "ours"


def test_the_migration_and_the_mapping_name_the_same_columns(database: Connection) -> None:
    before = {name for name, *_ in columns(database, "opportunities")}
    database.execute(MIGRATION)
    deals, versions = (
        {column.options["target"] for column in table.columns if "target" in column.options} for table in TABLES
    )
    after = {name for name, *_ in columns(database, "opportunities")}
    assert after - before - {"source_user_id"} == deals - before, "source_user_id has no property in the graph"
    assert {name for name, *_ in columns(database, "deal_versions")} == versions


# -- How it can be run -------------------------------------------------------------------------------------------------


def test_it_is_plain_sql_for_every_tool() -> None:
    assert not [line for line in MIGRATION.splitlines() if line.lstrip().startswith("\\")]
    assert "${" not in MIGRATION, "a placeholder to Flyway"
    assert not re.search(r"\bdeal_sync\.\w", MIGRATION.replace("deal_sync.sql", "")), "needs the extension"


def test_a_second_run_writes_nothing(database: Connection) -> None:
    database.execute(MIGRATION)
    first = catalog(database)
    database.execute(MIGRATION)
    assert catalog(database) == first


def test_a_second_run_takes_no_lock_that_a_writer_would_notice(database: Connection) -> None:
    database.execute(MIGRATION)
    with database.transaction():
        database.execute(MIGRATION)
        modes = database.execute(
            "SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid()"
            " AND relation IN ('opportunities'::regclass, 'deal_versions'::regclass, 'interaction_links'::regclass,"
            " 'tenants'::regclass)"
        ).fetchall()
    assert {mode for (mode,) in modes} <= {"AccessShareLock"}


def test_it_runs_inside_the_transaction_of_a_tool(database: Connection) -> None:
    before = catalog(database)
    with database.transaction(force_rollback=True):
        database.execute(MIGRATION)
        database.execute(MIGRATION)
    assert catalog(database) == before


def test_on_full_tables_rows_stay_as_they_are_and_no_job_is_queued(database: Connection) -> None:
    fill(database)
    read = "SELECT array_agg(to_jsonb(o) ORDER BY id) FROM opportunities o"
    before = one(database, read)
    database.execute(MIGRATION)
    after = one(database, read)
    assert [{**row, **old} for row, old in zip(after, before, strict=True)] == after
    gained = {(name, value) for row in after for name, value in row.items() if name not in before[0]}
    assert {(name, value) for name, value in gained if value is not None} == {("extraction_version", 1)}
    assert one(database, "SELECT count(*) FROM forecast_jobs") == 0
    fill_versions(database)
    database.execute(MIGRATION)
    assert one(database, read) == after
    assert one(database, "SELECT count(*) FROM deal_versions") == 2


def test_an_owner_under_forced_row_level_security_can_run_it_on_full_tables(database: Connection) -> None:
    owned_by_an_ordinary_role(database)
    fill(database)
    with database.transaction():
        database.execute("SET LOCAL ROLE app_owner")
        database.execute(MIGRATION)
    fill_versions(database)
    with database.transaction():
        database.execute("SET LOCAL ROLE app_owner")
        database.execute(MIGRATION)
    assert one(database, "SELECT relowner::regrole::text FROM pg_class WHERE relname = 'deal_versions'") == "app_owner"


def test_indexes_made_beforehand_are_kept(database: Connection) -> None:
    database.execute("ALTER TABLE opportunities ADD graph_opportunity_id uuid, ADD source_interaction_id uuid")
    database.execute(
        "CREATE UNIQUE INDEX CONCURRENTLY opportunities_graph_opportunity_id_key"
        " ON opportunities (graph_opportunity_id)"
    )
    database.execute(
        "CREATE INDEX CONCURRENTLY opportunities_source_interaction_id_idx ON opportunities (source_interaction_id)"
    )
    read = "SELECT array_agg(indexrelid ORDER BY 1) FROM pg_index WHERE indrelid = 'opportunities'::regclass"
    before = one(database, read)
    database.execute(MIGRATION)
    assert one(database, read) == before


def test_what_a_failed_concurrent_index_left_is_a_warning_and_stops_nothing(database: Connection) -> None:
    database.execute("ALTER TABLE opportunities ADD graph_opportunity_id uuid")
    fill(database)
    database.execute("UPDATE opportunities SET graph_opportunity_id = %s", [DEAL_A])
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY opportunities_graph_opportunity_id_key"
            " ON opportunities (graph_opportunity_id)"
        )
    notices: list[tuple[str | None, str | None]] = []
    database.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    database.execute(MIGRATION)
    assert notices == [
        (
            "WARNING",
            'index "opportunities_graph_opportunity_id_key" exists, but not as deal_sync requires it',
        )
    ]
    assert len(columns(database, "deal_versions")) == 25


@pytest.mark.parametrize("search_path", ["public", "public, extensions"])
def test_pgvector_may_sit_in_any_schema(new_database: NewDatabase, search_path: str) -> None:
    database = new_database(vector_schema="extensions")
    database.execute(sql.SQL("SET search_path = " + search_path))
    database.execute(MIGRATION)
    database.execute(MIGRATION)
    database.execute("SET search_path = pg_catalog")
    types = {name: type_name for name, type_name, *_ in columns(database, "public.opportunities")}
    assert types["extraction_embedding"] == types["extraction_embedding_current"] == "extensions.vector(1536)"


def test_a_type_of_that_name_that_is_not_pgvectors_is_not_taken_for_it(new_database: NewDatabase) -> None:
    database = new_database(vector_schema="extensions")
    database.execute("CREATE TYPE public.vector AS (x real, y real)")
    database.execute(MIGRATION)
    types = {name: type_name for name, type_name, *_ in columns(database, "opportunities")}
    assert types["extraction_embedding"] == "extensions.vector(1536)"


def test_without_pgvector_it_says_so_and_changes_nothing(new_database: NewDatabase) -> None:
    database = new_database(vector_schema=None)
    before = catalog(database)
    with pytest.raises(psycopg.errors.UndefinedObject, match='type "vector" does not exist') as error:
        database.execute(MIGRATION)
    assert "CREATE EXTENSION vector" in str(error.value.diag.message_hint)
    assert catalog(database) == before


def test_deal_versions_is_made_beside_opportunities(new_database: NewDatabase) -> None:
    database = new_database(application=False)
    database.execute('CREATE SCHEMA scratch; CREATE SCHEMA "CRM"; SET search_path = "CRM"')
    database.execute(APPLICATION)
    database.execute("CREATE TABLE scratch.deal_versions (id text)")
    database.execute('SET search_path = scratch, "CRM", public')
    database.execute(MIGRATION)
    database.execute(MIGRATION)
    assert len(columns(database, '"CRM".deal_versions')) == 25
    assert columns(database, "scratch.deal_versions") == [("id", "text", False, None)]
    assert one(database, "SHOW search_path") == 'scratch, "CRM", public'


def test_tables_that_the_search_path_does_not_show_are_named(database: Connection) -> None:
    database.execute("SET search_path = pg_catalog")
    with pytest.raises(psycopg.errors.UndefinedTable, match='table "opportunities" does not exist') as error:
        database.execute(MIGRATION)
    assert "search_path" in str(error.value.diag.message_hint)


# -- A column that is there with another type --------------------------------------------------------------------------


def test_columns_of_another_type_stop_it_and_are_all_named(database: Connection) -> None:
    database.execute(
        "ALTER TABLE opportunities ADD deal_ref text, ADD extraction_embedding vector(768), ADD meddic_champion text"
    )
    database.execute("CREATE TABLE deal_versions (id uuid, changed_fields text[])")
    before = catalog(database)
    with pytest.raises(psycopg.errors.DatatypeMismatch) as error:
        database.execute(MIGRATION)
    assert error.value.diag.message_primary == (
        'column "deal_ref" of table "opportunities" is of type text, but must be of type character varying(50); '
        'column "extraction_embedding" of table "opportunities" is of type vector(768),'
        " but must be of type vector(1536); "
        'column "changed_fields" of table "deal_versions" is of type text[], but must be of type jsonb'
    )
    assert catalog(database) == before


def test_every_column_is_looked_at(database: Connection) -> None:
    database.execute(MIGRATION)
    database.execute("DROP POLICY deal_versions_tenant_isolation ON deal_versions")
    for key in ("deal_versions_opportunity_id_fkey", "deal_versions_tenant_id_fkey"):
        database.execute(sql.SQL("ALTER TABLE deal_versions DROP CONSTRAINT {}").format(sql.Identifier(key)))
    expected = [("opportunities", name, type_name) for name, type_name in OPPORTUNITY_COLUMNS.items()]
    expected += [("deal_versions", name, type_name) for name, type_name, *_ in VERSION_COLUMNS]
    for table, name, type_name in expected:
        with database.transaction(force_rollback=True):
            place = [sql.Identifier(table), sql.Identifier(name)]
            database.execute(sql.SQL("ALTER TABLE {} ALTER {} DROP DEFAULT").format(*place))
            database.execute(sql.SQL("ALTER TABLE {} ALTER {} TYPE bytea USING NULL").format(*place))
            with (
                pytest.raises(psycopg.errors.DatatypeMismatch) as error,
                database.transaction(),
            ):
                database.execute(MIGRATION)
        assert (
            error.value.diag.message_primary
            == f'column "{name}" of table "{table}" is of type bytea, but must be of type {type_name}'
        )


@pytest.mark.parametrize(
    ("definition", "found"),
    [("deal_ref varchar(49)", "character varying(49)"), ("meddic_completeness numeric(5,2)", "numeric(5,2)")],
)
def test_a_length_or_precision_is_part_of_the_type(database: Connection, definition: str, found: str) -> None:
    database.execute(sql.SQL("ALTER TABLE opportunities ADD " + definition))
    with pytest.raises(psycopg.errors.DatatypeMismatch) as error:
        database.execute(MIGRATION)
    assert f"is of type {found}, but must be of type" in str(error.value.diag.message_primary)


def test_keys_that_deal_versions_could_not_refer_to_stop_it(new_database: NewDatabase) -> None:
    database = new_database(application=False)
    database.execute(re.sub(r"\b(\w*id) uuid", r"\1 text", APPLICATION).replace("::uuid", ""))
    with pytest.raises(psycopg.errors.DatatypeMismatch) as error:
        database.execute(MIGRATION)
    assert error.value.diag.message_primary == (
        'column "id" of table "tenants" is of type text, but must be of type uuid; '
        'column "id" of table "opportunities" is of type text, but must be of type uuid'
    )


def test_psql_stops_even_without_on_error_stop(database: Connection) -> None:
    database.execute("ALTER TABLE opportunities ADD deal_ref text")
    before = catalog(database)
    info = database.info
    command: list[str | Path] = [
        BIN / "psql",
        "-X",
        "-h",
        info.host,
        "-p",
        str(info.port),
        "-U",
        info.user,
        "-d",
        info.dbname,
    ]
    ended = subprocess.run(
        [*command, "-f", CHECKOUT / "sql/migration/deal_sync.sql"], capture_output=True, text=True, check=False
    )
    assert 'column "deal_ref" of table "opportunities" is of type text' in ended.stderr
    assert catalog(database) == before


def test_nothing_else_stops_it(database: Connection) -> None:
    fill(database)
    database.execute("""
        ALTER TABLE opportunities
            ADD deal_ref varchar(50) NOT NULL DEFAULT 'none' CHECK (deal_ref <> ''),
            ADD dim_of_our_own text,
            ADD gone text,
            ALTER ontology_completeness TYPE real,
            ALTER latest_ai_summary TYPE varchar(9000);
        ALTER TABLE opportunities DROP gone;
        CREATE UNIQUE INDEX our_own ON opportunities (deal_ref, id);
        CREATE SCHEMA other;
        CREATE TABLE other.opportunities (deal_ref int);
        CREATE VIEW deals AS SELECT * FROM opportunities;
        COMMENT ON TABLE opportunities IS 'ours';
        """)
    database.execute(MIGRATION)
    types = {name: (type_name, default) for name, type_name, _, default in columns(database, "opportunities")}
    assert types["deal_ref"] == ("character varying(50)", "'none'::character varying")
    assert types["dim_of_our_own"] == ("text", None)
    assert types["ontology_completeness"] == ("real", None)
