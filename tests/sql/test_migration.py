"""Flows in: sql/migration/deal_sync.sql, on databases that hold pgvector and the application's tables only.
Flows out: what the migration promises, and that the tests' application is as strict as the rules say.
"""

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from environment.machine import BIN
from environment.servers import Instance
from neo4j_deals.mapping.defaults import TABLES
from psycopg import sql

CHECKOUT = Path(__file__).resolve().parents[2]
MIGRATION = (CHECKOUT / "sql/migration/deal_sync.sql").read_text()
APPLICATION = (CHECKOUT / "tests/application.sql").read_text()

Connection = psycopg.Connection[tuple[Any, ...]]
NewDatabase = Callable[..., Connection]

A = uuid.UUID("11111111-1111-1111-1111-111111111111")
B = uuid.UUID("22222222-2222-2222-2222-222222222222")
DEAL_A = uuid.UUID("aaaaaaaa-0000-0000-0000-000000000001")
DEAL_B = uuid.UUID("bbbbbbbb-0000-0000-0000-000000000001")

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
MEDDIC = ["metrics", "economic_buyer", "decision_criteria", "decision_process", "identified_pain", "champion"]

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
TIME = "timestamp with time zone"
VERSION_COLUMNS = [
    ("id", "uuid", True, "gen_random_uuid()"),
    ("tenant_id", "uuid", True, None),
    ("opportunity_id", "uuid", True, None),
    ("version_number", "integer", True, None),
    ("name", "text", True, None),
    ("stage", "character varying(20)", True, None),
    ("amount", "numeric(15,2)", False, None),
    ("opportunity_summary", "text", False, None),
    ("evolution_summary", "text", False, None),
    *((f"meddic_{field}", "text", False, None) for field in MEDDIC),
    ("meddic_completeness", "numeric(3,2)", False, None),
    ("ontology_scores_json", "jsonb", False, None),
    ("ontology_completeness", "numeric(5,2)", False, None),
    ("ontology_version", "character varying(64)", False, None),
    ("change_summary", "text", False, "''::text"),
    ("changed_fields", "jsonb", False, "'[]'::jsonb"),
    ("change_source_interaction_id", "uuid", False, None),
    ("created_at", TIME, True, "now()"),
    ("valid_from", TIME, True, "now()"),
    ("valid_until", TIME, False, None),
]
TENANT_POLICY = "(tenant_id = (NULLIF(current_setting('app.tenant_id'::text, true), ''::text))::uuid)"

# What the old plan's migration leaves: every column, no FORCE, a policy that raises where app.tenant_id is unset or ''.
OLD_DEAL_VERSIONS = (
    "CREATE TABLE deal_versions ("
    + ", ".join(
        f"{name} {type_name}{' NOT NULL' if not_null else ''}{f' DEFAULT {default}' if default else ''}"
        for name, type_name, not_null, default in VERSION_COLUMNS
    )
    + """, CONSTRAINT deal_versions_pkey PRIMARY KEY (id));
    CREATE UNIQUE INDEX deal_versions_tenant_id_opportunity_id_version_number_key
        ON deal_versions (tenant_id, opportunity_id, version_number);
    CREATE INDEX deal_versions_opportunity_id_idx ON deal_versions (opportunity_id);
    CREATE INDEX deal_versions_tenant_id_idx ON deal_versions (tenant_id);
    ALTER TABLE deal_versions ENABLE ROW LEVEL SECURITY;
    CREATE POLICY deal_versions_tenant_isolation ON deal_versions
        USING (tenant_id = current_setting('app.tenant_id')::uuid);
    """
)
OLD_FOREIGN_KEYS = """
    ALTER TABLE deal_versions ADD CONSTRAINT deal_versions_tenant_id_fkey
        FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE CASCADE ON UPDATE CASCADE;
    ALTER TABLE deal_versions ADD CONSTRAINT deal_versions_opportunity_id_fkey
        FOREIGN KEY (opportunity_id) REFERENCES opportunities (id) ON DELETE CASCADE ON UPDATE CASCADE;
    """


@pytest.fixture
def new_database(servers: Instance) -> Iterator[NewDatabase]:
    """Makes a database with pgvector and the application's tables, and drops it after the test."""
    with ExitStack() as stack:

        def make(vector_schema: str | None = "public", application: bool = True) -> Connection:
            name = f"migration_{uuid.uuid4().hex}"
            main = stack.enter_context(psycopg.connect(servers.dsn("postgres"), autocommit=True))
            main.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
            stack.callback(main.execute, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            connection = stack.enter_context(psycopg.connect(servers.dsn(name), autocommit=True))
            if vector_schema is not None:
                schema = sql.Identifier(vector_schema)
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
                connection.execute(sql.SQL("CREATE EXTENSION vector SCHEMA {}").format(schema))
            if application:
                connection.execute(APPLICATION)
            return connection

        yield make


@pytest.fixture
def database(new_database: NewDatabase) -> Connection:
    """Overrides conftest's: this one has no deal_sync."""
    return new_database()


@contextmanager
def acting_as(connection: Connection, role: str, tenant: uuid.UUID | str | None = None) -> Iterator[None]:
    """A transaction of `role`, with app.tenant_id set where one is given, undone at its end."""
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        if tenant is not None:
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        yield


def fill(connection: Connection) -> None:
    """Two tenants with one opportunity each."""
    connection.execute("INSERT INTO tenants VALUES (%s, 'A'), (%s, 'B')", [A, B])
    connection.execute(
        "INSERT INTO opportunities (id, tenant_id, stage, updated_at)"
        " VALUES (%s, %s, 'won', '2026-01-01'), (%s, %s, 'lost', '2026-01-01')",
        [DEAL_A, A, DEAL_B, B],
    )


def fill_versions(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO deal_versions (tenant_id, opportunity_id, version_number, name, stage)"
        " VALUES (%s, %s, 1, 'of A', 'won'), (%s, %s, 1, 'of B', 'lost')",
        [A, DEAL_A, B, DEAL_B],
    )


def owned_by_an_ordinary_role(connection: Connection) -> None:
    """As in most hosts: the owner of the tables, who migrates, is no superuser."""
    connection.execute("""
        DO $$
        BEGIN
            CREATE ROLE app_owner NOLOGIN NOSUPERUSER NOBYPASSRLS;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
        END
        $$;
        GRANT CREATE, USAGE ON SCHEMA public TO app_owner;
        ALTER TABLE tenants OWNER TO app_owner;
        ALTER TABLE opportunities OWNER TO app_owner;
        """)


def columns(connection: Connection, table: str) -> list[tuple[Any, ...]]:
    """(name, type, not null, default) in the order of the table."""
    return connection.execute(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)"
        " FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        [table],
    ).fetchall()


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


def one(connection: Connection, query: str, *parameters: Any) -> Any:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


# What it makes


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
        "SELECT indexdef FROM pg_indexes WHERE tablename IN ('opportunities', 'deal_versions') ORDER BY indexname"
    ).fetchall()
    assert [definition.replace("USING btree ", "").replace("public.", "") for (definition,) in made] == [
        "CREATE INDEX deal_versions_opportunity_id_idx ON deal_versions (opportunity_id)",
        "CREATE UNIQUE INDEX deal_versions_pkey ON deal_versions (id)",
        "CREATE INDEX deal_versions_tenant_id_idx ON deal_versions (tenant_id)",
        "CREATE UNIQUE INDEX deal_versions_tenant_id_opportunity_id_version_number_key"
        " ON deal_versions (tenant_id, opportunity_id, version_number)",
        "CREATE UNIQUE INDEX opportunities_graph_opportunity_id_key ON opportunities (graph_opportunity_id)",
        "CREATE UNIQUE INDEX opportunities_pkey ON opportunities (id)",
        "CREATE INDEX opportunities_source_interaction_id_idx ON opportunities (source_interaction_id)",
    ]


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


# How it can be run


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
            " AND relation IN ('opportunities'::regclass, 'deal_versions'::regclass, 'tenants'::regclass)"
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
            'index "opportunities_graph_opportunity_id_key" is there, but does not do what deal_sync needs of it',
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


# A column that is there with another type


def test_columns_of_another_type_stop_it_and_are_all_named(database: Connection) -> None:
    database.execute(
        "ALTER TABLE opportunities ADD deal_ref text, ADD extraction_embedding vector(768), ADD meddic_champion text"
    )
    database.execute("CREATE TABLE deal_versions (id uuid, changed_fields text[])")
    before = catalog(database)
    with pytest.raises(psycopg.errors.DatatypeMismatch) as error:
        database.execute(MIGRATION)
    assert error.value.diag.message_primary == (
        'column "deal_ref" of table "opportunities" is text, and has to be character varying(50); '
        'column "extraction_embedding" of table "opportunities" is vector(768), and has to be vector(1536); '
        'column "changed_fields" of table "deal_versions" is text[], and has to be jsonb'
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
            == f'column "{name}" of table "{table}" is bytea, and has to be {type_name}'
        )


@pytest.mark.parametrize(
    ("definition", "found"),
    [("deal_ref varchar(49)", "character varying(49)"), ("meddic_completeness numeric(5,2)", "numeric(5,2)")],
)
def test_a_length_or_precision_is_part_of_the_type(database: Connection, definition: str, found: str) -> None:
    database.execute(sql.SQL("ALTER TABLE opportunities ADD " + definition))
    with pytest.raises(psycopg.errors.DatatypeMismatch) as error:
        database.execute(MIGRATION)
    assert f"is {found}, and has to be" in str(error.value.diag.message_primary)


def test_keys_that_deal_versions_could_not_refer_to_stop_it(new_database: NewDatabase) -> None:
    database = new_database(application=False)
    database.execute(re.sub(r"\b(\w*id) uuid", r"\1 text", APPLICATION).replace("::uuid", ""))
    with pytest.raises(psycopg.errors.DatatypeMismatch) as error:
        database.execute(MIGRATION)
    assert error.value.diag.message_primary == (
        'column "id" of table "tenants" is text, and has to be uuid; '
        'column "id" of table "opportunities" is text, and has to be uuid'
    )


def test_psql_stops_too_when_nobody_told_it_to(database: Connection) -> None:
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
    assert 'column "deal_ref" of table "opportunities" is text' in ended.stderr
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


# deal_versions of the old plan


def policies(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT policyname, cmd, qual, with_check FROM pg_policies WHERE tablename = 'deal_versions'"
    ).fetchall()


def test_a_new_table_has_forced_row_level_security_by_tenant(database: Connection) -> None:
    database.execute(MIGRATION)
    assert one(database, "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE relname = 'deal_versions'")
    assert policies(database) == [("deal_versions_tenant_isolation", "ALL", TENANT_POLICY, TENANT_POLICY)]


def test_the_old_plans_table_is_completed_and_keeps_its_rows(database: Connection) -> None:
    fill(database)
    database.execute(OLD_DEAL_VERSIONS + OLD_FOREIGN_KEYS)
    fill_versions(database)
    read = "SELECT array_agg(to_jsonb(v) ORDER BY tenant_id) FROM deal_versions v"
    table = one(database, "SELECT 'deal_versions'::regclass::oid")
    before = one(database, read)
    constraints = "SELECT array_agg(oid ORDER BY oid) FROM pg_constraint WHERE conrelid = 'deal_versions'::regclass"
    kept = one(database, constraints)
    database.execute(MIGRATION)
    assert one(database, "SELECT 'deal_versions'::regclass::oid") == table
    assert one(database, read) == before
    assert one(database, constraints) == kept
    assert columns(database, "deal_versions") == VERSION_COLUMNS
    assert one(database, "SELECT relforcerowsecurity FROM pg_class WHERE relname = 'deal_versions'")
    assert policies(database) == [("deal_versions_tenant_isolation", "ALL", TENANT_POLICY, TENANT_POLICY)]


def test_a_column_that_an_older_table_lacks_is_added(database: Connection) -> None:
    database.execute(OLD_DEAL_VERSIONS)
    database.execute("ALTER TABLE deal_versions DROP valid_until, DROP changed_fields")
    database.execute(MIGRATION)
    assert sorted(columns(database, "deal_versions")) == sorted(VERSION_COLUMNS)


def test_missing_foreign_keys_are_added_and_old_orphans_stop_nothing(database: Connection) -> None:
    fill(database)
    database.execute(OLD_DEAL_VERSIONS)
    orphan = (
        "INSERT INTO deal_versions (tenant_id, opportunity_id, version_number, name, stage)"
        " VALUES (%s, gen_random_uuid(), 1, 'orphan', 'won')"
    )
    database.execute(orphan, [A])
    database.execute(MIGRATION)
    assert one(database, "SELECT count(*) FROM deal_versions") == 1
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        database.execute(orphan, [A])
    fill_versions(database)
    moved = uuid.uuid4()
    database.execute("UPDATE opportunities SET id = %s WHERE id = %s", [moved, DEAL_A])
    assert one(database, "SELECT opportunity_id FROM deal_versions WHERE name = 'of A'") == moved
    database.execute("DELETE FROM opportunities WHERE id = %s", [DEAL_B])
    assert one(database, "SELECT array_agg(name ORDER BY name) FROM deal_versions") == ["of A", "orphan"]


def test_a_foreign_key_of_another_name_is_not_doubled(database: Connection) -> None:
    database.execute(OLD_DEAL_VERSIONS)
    database.execute(
        "ALTER TABLE deal_versions ADD CONSTRAINT ours FOREIGN KEY (opportunity_id) REFERENCES opportunities (id)"
    )
    database.execute(MIGRATION)
    names = one(
        database,
        "SELECT array_agg(conname::text ORDER BY 1) FROM pg_constraint"
        " WHERE conrelid = 'deal_versions'::regclass AND contype = 'f'",
    )
    assert sorted(names) == ["deal_versions_tenant_id_fkey", "ours"]


def test_a_policy_that_somebody_changed_stays(database: Connection) -> None:
    database.execute(OLD_DEAL_VERSIONS)
    database.execute("ALTER POLICY deal_versions_tenant_isolation ON deal_versions USING (version_number > 5)")
    before = policies(database)
    database.execute(MIGRATION)
    assert policies(database) == before


# Row-level security


@pytest.fixture
def migrated(database: Connection) -> Connection:
    fill(database)
    database.execute(MIGRATION)
    fill_versions(database)
    return database


@pytest.mark.parametrize(
    ("tenant", "visible"), [(None, None), ("", None), (A, ["of A"]), (B, ["of B"])], ids=["unset", "empty", "A", "B"]
)
def test_the_writer_sees_the_versions_of_its_tenant_only(
    migrated: Connection, tenant: uuid.UUID | str | None, visible: list[str] | None
) -> None:
    with acting_as(migrated, "app_writer", tenant):
        assert one(migrated, "SELECT array_agg(name) FROM deal_versions") == visible


def test_after_a_transaction_that_set_the_tenant_nothing_is_seen_and_nothing_raises(migrated: Connection) -> None:
    with acting_as(migrated, "app_writer", A):
        assert one(migrated, "SELECT count(*) FROM deal_versions") == 1
    with acting_as(migrated, "app_writer"):
        assert one(migrated, "SELECT current_setting('app.tenant_id')") == ""
        assert one(migrated, "SELECT count(*) FROM deal_versions") == 0


INSERT_VERSION = (
    "INSERT INTO deal_versions (tenant_id, opportunity_id, version_number, name, stage)"
    " VALUES (%s, %s, 2, 'new', 'won')"
)


def test_the_writer_writes_versions_of_its_tenant(migrated: Connection) -> None:
    with acting_as(migrated, "app_writer", A):
        migrated.execute(INSERT_VERSION, [A, DEAL_A])
        changed = migrated.execute("UPDATE deal_versions SET change_summary = 'x' RETURNING tenant_id").fetchall()
        assert changed == [(A,), (A,)]


@pytest.mark.parametrize("tenant", [None, "", A], ids=["unset", "empty", "A"])
def test_the_writer_writes_no_version_of_another_tenant(migrated: Connection, tenant: uuid.UUID | str | None) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"),
        acting_as(migrated, "app_writer", tenant),
    ):
        migrated.execute(INSERT_VERSION, [B, DEAL_B])


def test_the_writer_hands_no_version_to_another_tenant(migrated: Connection) -> None:
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"),
        acting_as(migrated, "app_writer", A),
    ):
        migrated.execute("UPDATE deal_versions SET tenant_id = %s, opportunity_id = %s", [B, DEAL_B])


def test_row_level_security_holds_for_the_owner_too(database: Connection) -> None:
    owned_by_an_ordinary_role(database)
    fill(database)
    with database.transaction():
        database.execute("SET LOCAL ROLE app_owner")
        database.execute(MIGRATION)
    fill_versions(database)
    with acting_as(database, "app_owner", A):
        assert one(database, "SELECT array_agg(name) FROM deal_versions") == ["of A"]


# The application's tables of the tests


def test_the_application_is_as_strict_as_the_rules_say(database: Connection) -> None:
    facts = {name: (not_null, default) for name, _, not_null, default in columns(database, "opportunities")}
    assert facts["id"] == facts["updated_at"] == (True, None)
    links = {name: (not_null, default) for name, _, not_null, default in columns(database, "interaction_links")}
    assert links["id"] == (True, None)
    unique = "SELECT array_agg(indexrelid::regclass::text) FROM pg_index WHERE indrelid = %s::regclass AND indisunique"
    assert one(database, unique, "interaction_links") == ["interaction_links_pkey"]
    forced = "SELECT array_agg(relname::text ORDER BY 1) FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
    assert sorted(one(database, forced)) == ["interaction_links", "opportunities"]
    assert one(database, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = 'app_writer'") is False


@pytest.mark.parametrize("tenant", [None, ""], ids=["unset", "empty"])
def test_the_applications_own_policy_raises_without_a_tenant(migrated: Connection, tenant: str | None) -> None:
    error = psycopg.errors.UndefinedObject if tenant is None else psycopg.errors.InvalidTextRepresentation
    with pytest.raises(error), acting_as(migrated, "app_writer", tenant):
        migrated.execute("SELECT FROM opportunities")


@pytest.mark.parametrize(
    "column",
    ["stage", "amount", "close_date", "deal_status", "forecast_category", "next_step", "description", "lost_reason"],
)
def test_an_update_that_names_one_of_the_eight_columns_queues_a_job(migrated: Connection, column: str) -> None:
    with acting_as(migrated, "app_writer", A):
        migrated.execute("UPDATE opportunities SET latest_ai_summary = 'x'")
        assert one(migrated, "SELECT count(*) FROM forecast_jobs") == 0
        migrated.execute(sql.SQL("UPDATE opportunities SET {0} = {0}").format(sql.Identifier(column)))
        assert one(migrated, "SELECT array_agg(opportunity_id) FROM forecast_jobs") == [DEAL_A]
