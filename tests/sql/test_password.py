"""Flows in: a login with a password that is like no other text. Flows out: it is in no error, log, view or plan."""

import socketserver
import threading
import uuid
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from environment.servers import Instance
from psycopg import sql
from support.database import Connection, Database
from support.graph import Graph
from support.roles import fresh
from support.sync import add_deal, sync

ODD: LiteralString = "p@ss:w/rd%41'\"\\ü"


class Said:
    """Everything that sessions, views and the log say while it is open."""

    def __init__(self, database: Database) -> None:
        self.database, self.texts = database, list[str]()
        self.log = database.instance.log
        self.start = self.log.stat().st_size

    def connect(self, user: str) -> Connection:
        session = self.database.connect(user)
        session.add_notice_handler(lambda notice: self.add(notice))
        return session

    def add(self, said: Any) -> None:
        for name in dir(said):
            if not name.startswith("_"):
                self.texts.append(str(getattr(said, name)))

    def run(self, session: Connection, statement: str, *parameters: Any) -> None:
        query: Any = statement
        try:
            cursor = session.execute(query, parameters)
            self.texts.extend(map(str, cursor.fetchall() if cursor.description else ()))
        except psycopg.Error as error:
            self.texts.append(str(error))
            self.add(error.diag)

    def everything(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self.start)
            return "\n".join([*self.texts, log.read().decode(errors="replace")])


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a server that speaks another protocol than Bolt."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_the_password_is_in_no_error_log_line_view_or_explain(
    database: Database, pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID, stranger: int
) -> None:
    login = fresh("login")
    graph.run(f"CREATE USER {login} SET PASSWORD $password CHANGE NOT REQUIRED", password=ODD)
    setting: LiteralString = (
        'ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET "user" {login}, SET password {password})'
    )
    pg.execute(sql.SQL(setting).format(login=login, password=ODD))  # before anybody listens
    pg.execute(
        "CREATE TABLE accounts (id uuid PRIMARY KEY); GRANT SELECT ON accounts TO PUBLIC;"
        "ALTER TABLE opportunities ADD FOREIGN KEY (account_id) REFERENCES accounts"
    )
    add_deal(graph, tenant, account_id=str(uuid.uuid4()))
    add_deal(graph, tenant, account_id="not a UUID", meddic_champion=["a", "list"])
    said = Said(database)
    superuser, writer = said.connect("postgres"), said.connect("app_writer")
    superuser.execute("SET log_statement = 'all'; SET log_min_messages = debug1; SET client_min_messages = debug1")
    superuser.execute("SET log_error_verbosity = verbose; SET log_duration = on")

    uri = servers.facts["neo4j_uri"]
    said.run(superuser, "SELECT * FROM sync_deals(%s::uuid, strict => true)", tenant)
    said.run(superuser, "SELECT * FROM sync_deals(%s::uuid, dry_run => true)", tenant)
    for options in (
        "ADD connect_timeout '0.2'",
        "SET uri 'bolt://127.0.0.1:1'",
        "SET uri 'bolt://no.such.host.invalid:7687'",
        f"SET uri 'bolt://127.0.0.1:{stranger}'",
        f"SET uri '{uri.replace('bolt', 'bolt+s')}'",
        f"SET uri '{uri}?strange=1'",
        f"SET uri '{uri}', ADD database 'missing'",
        "SET database 'neo4j', ADD query_timeout '0.0001'",
        "DROP uri",
        f"ADD uri '{uri}', DROP query_timeout",
    ):
        said.run(superuser, f"ALTER SERVER neo4j OPTIONS ({options})")
        if options.startswith("ADD uri"):
            graph.run(f"ALTER USER {login} SET PASSWORD 'another password'")
            said.run(superuser, "SELECT pg_backend_pid()")
            superuser.execute("ALTER SERVER neo4j OPTIONS (ADD fetch_size '7')")  # a new driver, so a new login
        said.run(superuser, "SELECT * FROM sync_deals(%s::uuid)", tenant)
        said.run(superuser, "SELECT * FROM deal_sync.scan(NULL::neo4j.deals)")
        said.run(superuser, "SELECT * FROM neo4j.deals")  # through Multicorn2, if that is installed
        said.run(writer, "SELECT * FROM sync_deals(%s::uuid, strict => true)", tenant)
    said.run(superuser, "ALTER SERVER neo4j OPTIONS (ADD password 'x')")
    said.run(superuser, "ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (ADD pasword 'x')")
    for relation in (
        *(
            "deal_sync.connections",
            "deal_sync.runs",
            "deal_sync.rejects",
            "pg_stat_activity",
            "pg_prepared_statements",
            "pg_cursors",
        ),
        *("pg_foreign_server", "pg_foreign_table", "information_schema.foreign_server_options", "pg_settings"),
    ):
        said.run(superuser, f"SELECT * FROM {relation}")
    for relation in ("pg_user_mappings", "information_schema.user_mapping_options", "pg_stat_activity"):
        said.run(writer, f"SELECT * FROM {relation}")
    for statement in ("SELECT * FROM neo4j.deals", "SELECT * FROM deal_sync.scan(NULL::neo4j.deals)"):
        said.run(superuser, f"EXPLAIN (VERBOSE, SETTINGS) {statement}")
        said.run(superuser, f"EXPLAIN (ANALYZE) {statement}")
    said.run(superuser, "SELECT deal_sync.mapping_ddl(), deal_sync.merge_statement('neo4j.deals')")
    graph.run(f"DROP USER {login}")

    everything = said.everything()
    for sign in ("08006", "HV000", "28P01", "23503", "DS002", "Function Scan", ": SELECT * FROM sync_deals($1"):
        assert sign in everything, "the test did not provoke or hear what it should"
    for form in {ODD, repr(ODD)[1:-1], ODD.replace("'", "''")}:
        assert form not in everything


def test_a_token_and_the_place_of_a_password_are_in_no_error_log_line_view_or_explain(
    database: Database, pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID, stranger: int
) -> None:
    """A statement that sets an option is logged as it is: it is set before anybody listens."""
    token, place = "the.TOKEN.of-the_test", "/not/there/the-place"
    uri, root = servers.facts["neo4j_uri"], servers.root_certificate
    logins = [f"DROP \"user\", DROP password, ADD bearer_token '{token}'"]
    logins += [f"DROP bearer_token, ADD \"user\" 'x', ADD password_file '{place}'"]
    everything, start = "", servers.log.stat().st_size
    for login in logins:
        alter: Any = f"ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS ({login})"
        pg.execute(alter)
        said = Said(database)
        said.start = start
        superuser = said.connect("postgres")
        superuser.execute("SET log_statement = 'all'; SET log_min_messages = debug1; SET client_min_messages = debug1")
        superuser.execute("SET log_error_verbosity = verbose")
        for server in (uri, "bolt://127.0.0.1:1", f"bolt+s://127.0.0.1:{stranger}", f"{uri}?strange=1"):
            said.run(superuser, f"ALTER SERVER neo4j OPTIONS (SET uri '{server}')")
            for statement in ("neo4j.deals", "deal_sync.scan(NULL::neo4j.deals)", f"sync_deals('{tenant}')"):
                said.run(superuser, f"SELECT * FROM {statement}")
            said.run(superuser, "EXPLAIN (VERBOSE) SELECT * FROM neo4j.deals")
            said.run(superuser, "SELECT * FROM deal_sync.connections, pg_stat_activity")
        said.run(superuser, f"ALTER SERVER neo4j OPTIONS (SET uri 'bolt+s://localhost:1', ADD sslrootcert '{root}')")
        said.run(superuser, "SELECT * FROM neo4j.deals")
        said.run(superuser, f"ALTER SERVER neo4j OPTIONS (SET uri '{uri}', DROP sslrootcert)")
        everything += said.everything()
    for sign in ("08006", "28P01", "HV00D", "rejected the login", "password file"):
        assert sign in everything, "the test did not provoke or hear what it should"
    assert token not in everything
    assert place not in everything


def test_a_password_in_an_exception_of_the_driver_is_redacted(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """A uri holds no login, so what could leak is the password itself: here it is a word of the driver's message."""
    setting: LiteralString = (
        "ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET \"user\" {}, SET password 'unauthorized')"
    )
    pg.execute(sql.SQL(setting).format(fresh("nobody")))
    run = sync(writer, tenant)
    assert run.status == "failed"
    assert "rejected the login" in str(run.message)
    assert "unauthorized" not in str(run.message)
