"""Flows in: a Neo4j whose certificate has a root of its own. Flows out: whom the server trusts, and if not, why."""

import shutil
import socketserver
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import trustme
from environment.servers import HOST, Instance
from psycopg import sql
from support.database import Connection
from support.graph import Graph
from support.proxy import Proxy
from support.sync import add_deal, add_tenant, sync

SCAN = b"SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)"
SELECT = b"SELECT opportunity_id FROM neo4j.deals"
READS = [pytest.param(SCAN, id="scan"), pytest.param(SELECT, id="select", marks=pytest.mark.multicorn)]


@pytest.fixture(scope="module")
def root(servers: Instance) -> Path:
    """The root that signed Neo4j's certificate."""
    return servers.root_certificate


@pytest.fixture(scope="module")
def another_root(servers: Instance) -> Iterator[Path]:
    file = servers.directory / "another.crt"
    trustme.CA().cert_pem.write_to_path(file)
    yield file
    file.unlink()


def set_server(pg: Connection, uri: str, root: Path | None = None) -> None:
    pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (SET uri {})").format(uri))
    if root is not None:
        pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (ADD sslrootcert {})").format(str(root)))


def uri(servers: Instance, scheme: str, host: str = HOST) -> str:
    return f"{scheme}://{host}:{urlsplit(servers.facts['neo4j_uri']).port}"


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("scheme", ["bolt+s", "neo4j+s"])
def test_a_certificate_of_the_right_root_is_accepted(
    pg: Connection, graph: Graph, servers: Instance, root: Path, scheme: str, read: bytes
) -> None:
    deal = add_deal(graph, uuid.uuid4())
    set_server(pg, uri(servers, scheme), root)
    assert pg.execute(read).fetchall() == [(str(deal),)]


def test_the_sync_reads_through_tls(pg: Connection, graph: Graph, servers: Instance, root: Path) -> None:
    tenant = add_tenant(pg)
    add_deal(graph, tenant)
    set_server(pg, uri(servers, "bolt+s"), root)
    pg.execute("SET deal_sync.process_from = 1")
    assert sync(pg, tenant).deals_inserted == 1, "by a process of its own"


def test_by_ssc_any_certificate_will_do(pg: Connection, graph: Graph, servers: Instance) -> None:
    deal = add_deal(graph, uuid.uuid4())
    set_server(pg, uri(servers, "bolt+ssc", "127.0.0.1"))
    assert pg.execute(SCAN).fetchall() == [(str(deal),)]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("host", "whose", "why"),
    [
        ("localhost", "another_root", "unable to get local issuer certificate"),
        ("localhost", None, "unable to get local issuer certificate"),
        ("127.0.0.1", "root", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
def test_a_wrong_root_and_a_wrong_host_name_are_rejected(
    request: pytest.FixtureRequest, pg: Connection, servers: Instance, host: str, whose: str, why: str, read: bytes
) -> None:
    set_server(pg, uri(servers, "bolt+s", host), request.getfixturevalue(whose) if whose else None)
    with pytest.raises(psycopg.Error, match="is not trusted") as raised:
        pg.execute(read)
    assert why in str(raised.value)
    assert "sslrootcert" in str(raised.value.diag.message_hint)
    assert raised.value.sqlstate == ("08006" if read == SCAN else "XX000")


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), ("no certificate", "no certificate in PEM form")])
def test_a_file_of_roots_that_cannot_be_used_is_named_by_its_option(
    pg: Connection, servers: Instance, tmp_path: Path, content: str | None, why: str
) -> None:
    file = servers.directory / "roots"
    if content:
        file.write_text(content)
        file.chmod(0o644)
    try:
        set_server(pg, uri(servers, "bolt+s"), file)
        with pytest.raises(
            psycopg.Error, match='could not load the file in option "sslrootcert" of server "neo4j"'
        ) as raised:
            pg.execute(SCAN)
    finally:
        file.unlink(missing_ok=True)
    assert raised.value.sqlstate == "08006"
    assert why in str(raised.value)
    assert str(file) not in str(raised.value)


def test_the_file_of_roots_is_read_when_a_connection_is_made(
    pg: Connection, graph: Graph, servers: Instance, root: Path, another_root: Path
) -> None:
    add_deal(graph, uuid.uuid4())
    file = servers.directory / "roots"
    shutil.copy(another_root, file)
    file.chmod(0o644)
    try:
        set_server(pg, uri(servers, "bolt+s"), file)
        with pytest.raises(psycopg.Error, match='certificate of Neo4j server "neo4j" is not trusted'):
            pg.execute(SCAN)
        shutil.copy(root, file)
        assert len(pg.execute(SCAN).fetchall()) == 1
    finally:
        file.unlink()


@contextmanager
def plain_text(answer: bytes) -> Iterator[int]:
    """The port of a server that knows no TLS: it answers, or, as Neo4j without TLS does, closes the connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
@pytest.mark.parametrize("with_root", [True, False])
def test_a_plain_text_server_behind_tls_is_named(
    pg: Connection, root: Path, answer: bytes, with_root: bool, read: bytes
) -> None:
    with plain_text(answer) as port:
        set_server(pg, f"bolt+s://localhost:{port}", root if with_root else None)
        with pytest.raises(psycopg.Error, match="could not establish a TLS connection to Neo4j server") as raised:
            pg.execute(read)
    assert f"bolt+s://localhost:{port}" in str(raised.value)
    assert "If Neo4j has no TLS" in str(raised.value.diag.message_hint)


@pytest.mark.parametrize("scheme", ["bolt", "bolt+s"])
@pytest.mark.parametrize("what", ["the password", "the query"])
def test_with_tls_neither_login_nor_query_goes_over_the_wire_in_plain_text(
    pg: Connection, graph: Graph, servers: Instance, root: Path, scheme: str, what: str
) -> None:
    add_deal(graph, uuid.uuid4())
    words = servers.facts["neo4j_password"].encode() if what == "the password" else b"MATCH (n:"
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        seen = proxy.repaired(words)
        set_server(pg, f"{scheme}://localhost:{urlsplit(proxy.uri).port}", root if scheme == "bolt+s" else None)
        assert len(pg.execute(SCAN).fetchall()) == 1
        assert (seen.passed > 0) is (scheme == "bolt")
