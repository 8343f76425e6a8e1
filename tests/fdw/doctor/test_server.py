"""Flows in: neo4j_deals.doctor.server: files, options and logins. Flows out: what it names, with a hint that works."""

import socket
from pathlib import Path

import pytest
from environment.database import literal
from environment.servers import HOST, Instance, write_private
from neo4j_deals.doctor.server import disk, tls
from support.database import Connection, execute
from support.doctor import doctor, set_uri
from support.graph import Graph
from support.proxy import Proxy


@pytest.mark.parametrize(("free", "ok"), [(1 << 30, True), ((1 << 30) - 1, False), (0, False)])
def test_there_must_be_room_for_a_gigabyte(free: int, ok: bool) -> None:
    assert disk(free).ok is ok


@pytest.mark.parametrize(
    ("uri", "ok", "change"),
    [
        ("bolt+s://graph.example.com:7687", True, None),
        ("neo4j+s://graph.example.com", True, None),
        ("bolt://localhost:7687", True, None),
        ("bolt://[::1]:7687", True, None),
        ("bolt://127.9.9.9", True, None),
        ("bolt://graph.example.com:7687", False, "SET uri 'bolt+s://graph.example.com:7687'"),
        ("neo4j+ssc://10.0.0.1", False, "SET uri 'neo4j+s://10.0.0.1'"),
        ("bolt://localhost.example.com", False, "SET uri 'bolt+s://localhost.example.com'"),
        ("bolt://it's.example.com", False, "SET uri 'bolt+s://it''s.example.com'"),
        ("bolt://somebody:secret@graph.example.com", False, "SET uri 'bolt+s://graph.example.com'"),
    ],
)
def test_what_leaves_the_machine_is_to_be_encrypted(uri: str, ok: bool, change: str | None) -> None:
    found = tls('"my server"', uri)
    assert found.ok is ok
    assert found.hint == (f'ALTER SERVER "my server" OPTIONS ({change});' if change else None)
    assert "secret" not in repr(found)


# -- The server's files ------------------------------------------------------------------------------------------------


def test_a_spool_folder_that_cannot_be_written_is_named(pg: Connection, servers: Instance) -> None:
    folder = servers.data / "base/pgsql_tmp"
    assert doctor(pg)["spool folder"].ok
    folder.chmod(0o500)
    try:
        checks = doctor(pg)
        assert not checks["spool folder"].ok
        assert checks["disk space"].detail == "not checked: spool folder"
        assert "chmod 700" in str(checks["spool folder"].hint)
    finally:
        folder.chmod(0o700)
    assert doctor(pg)["spool folder"].ok


def test_a_user_mapping_that_holds_a_password_is_named_with_what_moves_it_into_a_file(
    pg: Connection, password_file: Path
) -> None:
    assert doctor(pg)["password file"].hint is None
    execute(pg, "CREATE USER MAPPING FOR app_writer SERVER neo4j OPTIONS (\"user\" 'x', password 'plain')")
    found = doctor(pg)["password file"]
    assert found.ok
    assert "contain the password of the user mapping for app_writer" in found.detail
    assert "plain" not in repr(found)
    execute(pg, str(found.hint))
    assert doctor(pg)["password file"].hint is None


def test_a_password_file_that_others_can_read_is_named(pg: Connection, password_file: Path) -> None:
    assert doctor(pg)["password file"].ok
    password_file.chmod(0o644)
    checks = doctor(pg)
    assert not checks["password file"].ok
    assert "0644" in checks["password file"].detail
    assert str(password_file) not in repr(checks)
    assert "chmod 600" in str(checks["password file"].hint)
    password_file.chmod(0o600)
    assert doctor(pg)["password file"].ok


def test_a_password_file_that_is_not_there_is_named_and_nobody_connects(
    pg: Connection, servers: Instance, password_file: Path
) -> None:
    password_file.unlink()
    checks = doctor(pg)
    assert not checks["password file"].ok
    assert "could not read" in checks["password file"].detail
    assert checks["connection"].detail == "not checked: password file"
    assert checks["clock"].detail == "not checked: connection"
    write_private(password_file, servers.facts["neo4j_password"])
    assert doctor(pg)["connection"].ok


# -- TLS, and whose server it is ---------------------------------------------------------------------------------------


def test_tls_that_takes_any_certificate_is_named(pg: Connection, graph: Graph, servers: Instance) -> None:
    assert "the connection does not leave this machine" in doctor(pg)["tls"].detail
    set_uri(pg, servers.facts["neo4j_uri"].replace("bolt://127.0.0.1", f"bolt+ssc://{HOST}"))
    check = doctor(pg)["tls"]
    assert check.ok is False
    execute(pg, check.hint)
    checks = doctor(pg)
    assert checks["tls"].ok
    assert 'the certificate of Neo4j server "neo4j" is not trusted' in checks["connection"].detail
    assert '"sslrootcert"' in str(checks["connection"].hint)
    root = literal(str(servers.root_certificate))
    execute(pg, f"ALTER SERVER neo4j OPTIONS (ADD sslrootcert {root})")
    assert doctor(pg)["connection"].ok


def test_a_server_of_somebody_gets_no_login(pg: Connection, servers: Instance) -> None:
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        set_uri(pg, proxy.uri)
        pg.execute("ALTER SERVER neo4j OWNER TO app_writer")
        assert doctor(pg)["connection"].detail == "not checked: server"
        assert proxy.connections == 0
        execute(pg, doctor(pg)["server"].hint)
        assert doctor(pg)["connection"].ok
        assert proxy.connections > 0


def test_no_tls_to_another_machine_is_named(pg: Connection) -> None:
    set_uri(pg, f"bolt://{socket.gethostname()}.invalid:7687")
    check = doctor(pg)["tls"]
    assert check.ok is False
    execute(pg, check.hint)
    assert doctor(pg)["tls"].ok
