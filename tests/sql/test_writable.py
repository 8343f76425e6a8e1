"""Flows in: servers, tables and rights that a sync cannot write with. Flows out: setup errors, and the same lines of
doctor().
"""

import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from environment.machine import BIN
from environment.servers import PORT, Instance
from environment.state import as_server
from psycopg import errors, sql
from support.database import Connection, Database
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_deal, add_version, one, sync


def finding(connection: Connection, name: str, of: str = "postgres") -> tuple[Any, ...] | None:
    return connection.execute(
        "SELECT ok, detail, hint FROM deal_sync.doctor(%s::regrole) WHERE name = %s", [of, name]
    ).fetchone()


def execute(connection: Connection, statement: str | None) -> None:
    assert statement is not None
    connection.execute(statement.encode())


# The server


@pytest.fixture
def standby(servers: Instance, database: Database) -> Iterator[Connection]:
    """A connection to the test's database on a streaming standby of the server."""
    with tempfile.TemporaryDirectory(dir=servers.directory, prefix="standby") as directory:
        subprocess.run(["chown", "postgres:postgres", directory], check=False)
        data = Path(directory, "data")
        copy: list[str | Path] = [BIN / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-X", "stream"]
        options: dict[str, Any] = as_server(check=True)
        subprocess.run([*copy, "-d", servers.dsn("postgres")], **options)
        control: list[str | Path] = [BIN / "pg_ctl", "-s", "-D", data, "-w", "-l", Path(directory, "log")]
        subprocess.run([*control, "start", "-o", f"-k {directory}"], **options, stdout=subprocess.DEVNULL)
        try:
            where = f"host={directory} port={PORT} user=postgres dbname={database.name}"
            with psycopg.connect(where, autocommit=True) as connection:
                yield connection
        finally:
            subprocess.run([*control, "stop", "-m", "immediate"], **options)


def test_a_sync_on_a_standby_says_where_to_run_it(standby: Connection) -> None:
    for statement in (
        "SELECT sync_deals(gen_random_uuid())",
        "SELECT sync_deals(gen_random_uuid(), dry_run => true)",
        "SELECT deal_sync.replay(gen_random_uuid())",
        "CALL deal_sync.sync_all()",
        "CALL deal_sync.nightly()",
        "CALL deal_sync.backfill(gen_random_uuid())",
    ):
        with pytest.raises(errors.ReadOnlySqlTransaction, match=r"^cannot sync on a standby server") as raised:
            standby.execute(statement.encode())
        assert raised.value.diag.message_hint == "Connect to the primary server."
    assert finding(standby, "writable") == (False, "cannot sync on a standby server", "Connect to the primary server.")


@pytest.mark.german
def test_a_sync_in_a_read_only_transaction_says_what_to_set(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    pg.execute("SET default_transaction_read_only = on")
    with pytest.raises(errors.ReadOnlySqlTransaction, match=r"^cannot sync in a read-only transaction") as raised:
        sync(pg, tenant)
    found = finding(pg, "writable")
    assert found == (False, "cannot sync in a read-only transaction", raised.value.diag.message_hint)
    execute(pg, raised.value.diag.message_hint)
    assert sync(pg, tenant).status == "ok"
    found = finding(pg, "writable")
    assert found is not None
    assert found[0] is True
    pg.execute("BEGIN READ ONLY")
    with pytest.raises(errors.ReadOnlySqlTransaction) as raised:
        sync(pg, tenant)
    pg.execute("ROLLBACK")
    assert raised.value.diag.message_hint == "START TRANSACTION READ WRITE;"
    for comparison in ("reconcile", "differences"):
        pg.execute("BEGIN READ ONLY")
        with pytest.raises(errors.ReadOnlySqlTransaction, match=r"^cannot sync in a read-only transaction"):
            pg.execute(f"SELECT * FROM deal_sync.{comparison}(%s)".encode(), [tenant])
        pg.execute("ROLLBACK")


# The targets


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            "ALTER TABLE opportunities RENAME TO deals; CREATE VIEW opportunities AS SELECT * FROM deals",
            "public.opportunities is a view, but the sync can only write to tables",
        ),
        (
            "ALTER TABLE deal_versions RENAME TO v; CREATE MATERIALIZED VIEW deal_versions AS SELECT * FROM v",
            "public.deal_versions is a materialized view, but the sync can only write to tables",
        ),
        (
            "CREATE RULE keep AS ON DELETE TO opportunities DO INSTEAD NOTHING",
            'table public.opportunities has rule "keep", but MERGE does not support tables with rules',
        ),
        (
            "CREATE RULE log AS ON INSERT TO deal_versions DO ALSO NOTIFY versions",
            'table public.deal_versions has rule "log", but MERGE does not support tables with rules',
        ),
        (
            "CREATE RULE log AS ON INSERT TO interaction_links DO ALSO NOTIFY links",
            'table public.interaction_links has rule "log", but INSERT ... ON CONFLICT does not support tables'
            " with rules",
        ),
    ],
)
def test_a_target_that_cannot_be_written_is_named_before_anything_is_read(
    made: str, said: str, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    pg.execute(made.encode())
    with pytest.raises(psycopg.Error) as raised:
        sync(pg, tenant)
    assert raised.value.diag.message_primary == said
    assert raised.value.diag.message_hint
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 0
    found = finding(pg, "target columns")
    assert found is not None
    assert found[0] is False
    assert found[1].startswith(said)


def test_a_rule_that_is_disabled_counts_where_it_does_for_postgresql(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute(
        "CREATE RULE log AS ON INSERT TO interaction_links DO ALSO NOTIFY links;"
        "ALTER TABLE interaction_links DISABLE RULE log;"
    )
    assert sync(pg, tenant).status == "ok"
    pg.execute(
        "CREATE RULE keep AS ON DELETE TO opportunities DO INSTEAD NOTHING;ALTER TABLE opportunities DISABLE RULE keep"
    )
    with pytest.raises(errors.FeatureNotSupported, match='has rule "keep"'):
        sync(pg, tenant)


# The rights


def test_rights_on_columns_will_do_and_what_lacks_is_named_by_column(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    with role(
        pg,
        fresh("clerk"),
        "SELECT (id) ON tenants",
        "SELECT, INSERT ON opportunities",
        "SELECT, INSERT ON deal_versions",
        "SELECT, INSERT (tenant_id, interaction_id, entity_type) ON interaction_links",
    ) as clerk:
        pg.execute("SELECT deal_sync.grant_sync(%s::regrole)", [clerk])
        columns = pg.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'opportunities'::regclass AND attnum > 0"
            " AND attname NOT IN ('stage', 'amount', 'deal_ref', 'updated_at')"
        ).fetchall()
        pg.execute(
            sql.SQL("GRANT UPDATE ({}) ON opportunities TO {}").format(
                sql.SQL(", ").join(sql.Identifier(name) for (name,) in columns), sql.Identifier(clerk)
            )
        )
        said = "INSERT (entity_id) on public.interaction_links, UPDATE (deal_ref, updated_at) on public.opportunities"
        with database.connect(clerk) as session:
            with pytest.raises(errors.InsufficientPrivilege) as raised:
                sync(session, tenant)
            assert raised.value.diag.message_primary == f'role "{clerk}" lacks {said}'
            found = finding(pg, "rights on tables", clerk)
            assert found == (False, f'"{clerk}" lacks {said}', raised.value.diag.message_hint)
            execute(pg, raised.value.diag.message_hint)
            run = sync(session, tenant)
            assert (run.status, run.deals_inserted, run.versions_inserted) == ("ok", 1, 1)
            graph.run("MATCH (d:Deal) SET d.deal_ref = 'other'")
            assert sync(session, tenant).deals_updated == 1
            found = finding(pg, "rights on tables", clerk)
            assert found is not None
            assert found[0] is True
