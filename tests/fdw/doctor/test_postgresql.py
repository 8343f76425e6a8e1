"""Flows in: neo4j_deals.doctor.package and postgresql, on unsuitable servers and databases. Flows out: what they name,
with a hint that works.
"""

import subprocess
from pathlib import Path

import psycopg
import pytest
from environment.machine import BIN, EXTENSIONS
from environment.servers import Instance
from support.database import Connection, Database, execute, new_database
from support.doctor import broken, doctor
from support.graph import Graph
from support.sync import one

# -- The server's Python, the extension, the settings ------------------------------------------------------------------


def test_python_and_the_package_are_shown_with_where_they_lie(pg: Connection) -> None:
    checks = doctor(pg)
    prefix = one(pg, "SELECT said FROM _deal_sync.python_version()").partition(" of ")[2]
    assert prefix in checks["python"].detail
    assert f"{prefix}/lib" in checks["package"].detail
    assert "neo4j-rust-ext" in checks["package"].detail


def test_an_older_python_is_named(pg: Connection) -> None:
    """The older Python is only pretended: PL/Python has just one."""
    pg.execute(
        "CREATE OR REPLACE FUNCTION _deal_sync.python_version(OUT number integer, OUT said text) LANGUAGE sql"
        " SET search_path = pg_catalog, pg_temp AS $$ SELECT 310, '3.10.1 of /usr' $$"
    )
    check = doctor(pg)["python"]
    assert (check.ok, check.detail) == (False, "3.10.1 of /usr")
    assert "3.11" in str(check.hint)


def test_a_package_of_another_version_is_named(pg: Connection) -> None:
    version = one(pg, "SELECT extversion FROM pg_extension WHERE extname = 'deal_sync'")
    pg.execute("UPDATE pg_extension SET extversion = '99.1' WHERE extname = 'deal_sync'")
    checks = doctor(pg)
    assert "does not support deal_sync 99.1" in checks["package"].detail
    pg.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'deal_sync'", [version])
    assert doctor(pg)["package"].ok


def test_files_of_a_newer_version_are_named(pg: Connection) -> None:
    version = one(pg, "SELECT extversion FROM pg_extension WHERE extname = 'deal_sync'")
    update = EXTENSIONS / f"deal_sync--0.0.1--{version}.sql"
    update.write_text("")
    try:
        pg.execute("UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'deal_sync'")
        check = doctor(pg)["extension"]
        assert not check.ok
        execute(pg, check.hint)
    finally:
        update.unlink()
    assert doctor(pg)["extension"].ok


def test_an_encoding_other_than_utf8_is_named(servers: Instance, pg: Connection) -> None:
    servers.psql("postgres", "-c", "DROP DATABASE IF EXISTS doctors_latin")
    servers.psql("postgres", "-c", "CREATE DATABASE doctors_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        with psycopg.connect(servers.dsn("doctors_latin"), autocommit=True, client_encoding="utf8") as latin:
            latin.execute("SET client_min_messages = warning; CREATE EXTENSION deal_sync CASCADE")
            check = doctor(latin)["encoding"]
            assert (check.ok, check.detail) == (False, "LATIN1")
            assert "UTF8" in str(check.hint)
    finally:
        servers.psql("postgres", "-c", "DROP DATABASE doctors_latin WITH (FORCE)")
    assert doctor(pg)["encoding"].ok


def test_a_setting_that_may_not_be_is_named_wherever_it_comes_from(pg: Connection, database: Database) -> None:
    pg.execute("SET deal_sync.batch_rows = 'many'")
    check = doctor(pg)["settings"]
    assert not check.ok
    assert "deal_sync.batch_rows" in check.detail
    execute(pg, check.hint)
    assert doctor(pg)["settings"].ok

    execute(pg, f"ALTER DATABASE {database.name} SET deal_sync.max_rejects = '-1'")
    execute(pg, f"ALTER DATABASE {database.name} SET deal_sync.lock_timout = '1s'")
    check = doctor(database.connect())["settings"]
    assert "deal_sync.max_rejects" in check.detail
    assert 'unknown setting "deal_sync.lock_timout"' in check.detail
    execute(pg, check.hint)
    assert doctor(database.connect())["settings"].ok


# -- Multicorn2 --------------------------------------------------------------------------------------------------------


@pytest.mark.multicorn
def test_after_a_dump_and_restore_the_handler_is_what_is_missing(
    pg: Connection, database: Database, graph: Graph, servers: Instance, tmp_path: Path
) -> None:
    before = broken(doctor(pg, "app_writer"))
    with new_database(servers) as restored:
        file = tmp_path / "dump.sql"
        with file.open("w") as output:
            subprocess.run([BIN / "pg_dump", "-d", database.dsn()], stdout=output, check=True)
        servers.psql(restored.name, "-o", "/dev/null", "-f", file)
        again = restored.connect()
        checks = doctor(again, "app_writer")
        assert broken(checks) == before | {"multicorn"}
        assert "as after a restore" in checks["multicorn"].detail
        execute(again, checks["multicorn"].hint)
        assert broken(doctor(again, "app_writer")) == before


def test_a_handler_that_would_crash_the_server_is_named(pg: Connection) -> None:
    """The handler is another wrapper's, and the newer Python only pretended: with both real the server would crash."""
    pg.execute(
        "CREATE EXTENSION postgres_fdw; ALTER FOREIGN DATA WRAPPER neo4j HANDLER postgres_fdw_handler;"
        "CREATE OR REPLACE FUNCTION _deal_sync.python_version(OUT number integer, OUT said text) LANGUAGE sql"
        " SET search_path = pg_catalog, pg_temp AS $$ SELECT 313, '3.13.1 of /usr' $$"
    )
    check = doctor(pg)["multicorn"]
    assert not check.ok
    assert "3.13" in check.detail
    execute(pg, check.hint)
    assert doctor(pg)["multicorn"].ok


# -- Embeddings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "back", "found"),
    [
        (
            "import sys; sys.modules['numpy'] = None",
            "import sys; del sys.modules['numpy']",
            "no numpy that works",
        ),
        (
            "from neo4j_deals.doctor import postgresql; postgresql.WHY_NOT = 'AttributeError: UNPACKER_CLS'",
            "from neo4j_deals.doctor import postgresql; postgresql.WHY_NOT = None",
            "AttributeError: UNPACKER_CLS",
        ),
    ],
    ids=["no numpy", "another driver"],
)
def test_what_makes_embeddings_slow_is_named(pg: Connection, change: str, back: str, found: str) -> None:
    assert doctor(pg)["embeddings"].ok
    pg.execute(f"DO LANGUAGE plpython3u $${change}$$".encode())
    check = doctor(pg)["embeddings"]
    assert (check.ok, found in check.detail) == (False, True)
    assert "make install-python" in str(check.hint)
    pg.execute(f"DO LANGUAGE plpython3u $${back}$$".encode())
    assert doctor(pg)["embeddings"].ok
