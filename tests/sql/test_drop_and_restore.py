"""Flows in: databases that are dumped, restored, or lose the extension.
Flows out: what outlives it, and what goes on.
"""

import subprocess
import uuid
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from environment.machine import BIN
from environment.servers import Instance
from psycopg import sql
from support.database import Connection, Database, new_database
from support.deals import VECTOR
from support.graph import Graph
from support.sync import Reject, add_deal, add_tenant, add_version, one, rejects, sync


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
    add_version(graph, tenant, add_deal(graph, tenant, account_id="not a UUID", embedding=VECTOR))
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


def test_a_database_in_another_encoding_is_rejected(pg: Connection, servers: Instance) -> None:
    name = f"latin_{uuid.uuid4().hex}"
    pg.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with psycopg.connect(servers.dsn(name), autocommit=True) as latin:
            latin.execute("CREATE EXTENSION deal_sync CASCADE")
            with pytest.raises(
                psycopg.errors.FeatureNotSupported, match="has encoding LATIN1, but deal_sync requires UTF8"
            ):
                latin.execute("SELECT sync_deals(%s)", [uuid.uuid4()])
    finally:
        pg.execute(f"DROP DATABASE {name}")
