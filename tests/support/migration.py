"""Flows in: databases that hold the application's tables.
Flows out: rows in them, owners, and what the catalog says.
"""

import uuid
from collections.abc import Callable
from typing import Any

from environment.state import CHECKOUT

from support.database import Connection

MIGRATION = (CHECKOUT / "sql/migration/deal_sync.sql").read_text()
APPLICATION = (CHECKOUT / "tests/application.sql").read_text()
NewDatabase = Callable[..., Connection]

A = uuid.UUID("11111111-1111-1111-1111-111111111111")
B = uuid.UUID("22222222-2222-2222-2222-222222222222")
DEAL_A = uuid.UUID("aaaaaaaa-0000-0000-0000-000000000001")
DEAL_B = uuid.UUID("bbbbbbbb-0000-0000-0000-000000000001")
MEDDIC = ["metrics", "economic_buyer", "decision_criteria", "decision_process", "identified_pain", "champion"]
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
