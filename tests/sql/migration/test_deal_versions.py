"""Flows in: sql/migration/deal_sync.sql, on databases with a table deal_versions or none.
Flows out: its row-level security, and that the tests' application is as strict as the rules say.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from support.database import Connection
from support.migration import (
    DEAL_A,
    DEAL_B,
    MIGRATION,
    VERSION_COLUMNS,
    A,
    B,
    columns,
    fill,
    fill_versions,
    owned_by_an_ordinary_role,
)
from support.sync import one

TENANT_POLICY = "(tenant_id = (NULLIF(current_setting('app.tenant_id'::text, true), ''::text))::uuid)"


# What the old plan's migration leaves: every column, no FORCE, a policy that raises if app.tenant_id is unset or ''.
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


@contextmanager
def acting_as(connection: Connection, role: str, tenant: uuid.UUID | str | None = None) -> Iterator[None]:
    """A transaction of `role`, with app.tenant_id set if one is given; it is rolled back."""
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        if tenant is not None:
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        yield


# -- deal_versions of the old plan -------------------------------------------------------------------------------------


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


# -- Row-level security ------------------------------------------------------------------------------------------------


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


# -- The application's tables of the tests -----------------------------------------------------------------------------


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
