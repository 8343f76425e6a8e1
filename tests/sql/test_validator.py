"""Flows in: sql/functions/04_validator.sql, given valid and invalid options. Flows out: an error as soon as an invalid
one is set.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from environment.servers import Instance
from psycopg import sql
from support.database import Connection, new_database
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_deal, sync

SERVER, MAPPING = "ALTER SERVER neo4j", "ALTER USER MAPPING FOR postgres SERVER neo4j"
OTHER = "CREATE SERVER other FOREIGN DATA WRAPPER neo4j"
TABLE, COLUMN = "ALTER FOREIGN TABLE neo4j.deals", "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN deal_ref"
UNKNOWN, MALFORMED = "HV00D", "HV00A"


#: Where, the options, SQLSTATE, the option that the message names, and what the hint says.
BAD_OPTIONS = [
    (SERVER, "ADD host 'x'", UNKNOWN, "host", "uri, database, connect_timeout, query_timeout, fetch_size"),
    (SERVER, "SET uri 'http://x'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri 'bolt://'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri ''", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri 'bolt://a b'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri E'bolt://a\\nb'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri 'bolt+tls://x'", MALFORMED, "uri", "bolt://host:7687"),
    (SERVER, "SET uri 'bolt://neo4j:hunter2@x'", MALFORMED, "uri", "a login belongs in the user mapping"),
    (SERVER, "ADD database ''", MALFORMED, "database", "name of a database"),
    (SERVER, "ADD connect_timeout 'soon'", MALFORMED, "connect_timeout", "seconds"),
    (SERVER, "ADD connect_timeout '-1'", MALFORMED, "connect_timeout", "seconds"),
    (SERVER, "ADD query_timeout '1e3'", MALFORMED, "query_timeout", "seconds"),
    (SERVER, "ADD query_timeout 'NaN'", MALFORMED, "query_timeout", "seconds"),
    (SERVER, "ADD fetch_size '0'", MALFORMED, "fetch_size", "1 to 999999"),
    (SERVER, "ADD fetch_size '1.5'", MALFORMED, "fetch_size", "1 to 999999"),
    (SERVER, "ADD idle_timeout '0'", MALFORMED, "idle_timeout", "a number of seconds greater than 0"),
    (SERVER, "ADD keep_alive '60'", MALFORMED, "keep_alive", "true or false"),
    (SERVER, "ADD max_rows '0'", MALFORMED, "max_rows", "1 or more"),
    (SERVER, "ADD max_rows '-5'", MALFORMED, "max_rows", "1 or more"),
    (OTHER, "uri 'bolt+s://x', sslrootcert 'root.crt'", MALFORMED, "sslrootcert", "absolute path"),
    (
        SERVER,
        "ADD sslmode 'require'",
        UNKNOWN,
        "sslmode",
        "idle_timeout, keep_alive, max_rows, sslrootcert",
    ),
    (OTHER, "wrapper 'os.system'", MALFORMED, "wrapper", "attach()"),
    (SERVER, "ADD password 'hunter2'", UNKNOWN, "password", "user mapping"),
    (SERVER, "ADD \"user\" 'neo4j'", UNKNOWN, "user", "user mapping"),
    (SERVER, "ADD password_file '/etc/passwd'", UNKNOWN, "password_file", "user mapping"),
    (SERVER, "ADD bearer_token 'hunter2'", UNKNOWN, "bearer_token", "user mapping"),
    (TABLE, "ADD bearer_token 'hunter2'", UNKNOWN, "bearer_token", "user mapping"),
    (TABLE, "ADD max_rows '5'", UNKNOWN, "max_rows", "label, cypher, key, kind"),
    (MAPPING, "ADD sslrootcert '/x'", UNKNOWN, "sslrootcert", "password_file, bearer_token"),
    (MAPPING, "ADD bearer_token 'hunter 2'", MALFORMED, "bearer_token", "token"),
    (MAPPING, "ADD uri 'bolt://x'", UNKNOWN, "uri", "user, password, password_file"),
    (MAPPING, "ADD wrapper 'neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper'", UNKNOWN, "wrapper", "user, password"),
    (MAPPING, "SET \"user\" ''", MALFORMED, "user", "user of Neo4j"),
    (MAPPING, "ADD password_file 'relative'", MALFORMED, "password_file", "absolute path"),
    (TABLE, "ADD password 'hunter2'", UNKNOWN, "password", "user mapping"),
    (TABLE, "ADD labels 'x'", UNKNOWN, "labels", "label, cypher, key, kind, target, links, tenants"),
    (TABLE, "SET kind 'deals'", MALFORMED, "kind", "deal or version"),
    (TABLE, "SET label ''", MALFORMED, "label", "label"),
    (COLUMN, "ADD password 'hunter2'", UNKNOWN, "password", "user mapping"),
    (COLUMN, "ADD policy 'always'", UNKNOWN, "policy", "property, derive, of, target, write, on_misfit"),
    (COLUMN, "ADD write 'sometimes'", MALFORMED, "write", "never, insert, fill or always"),
    (COLUMN, "ADD write 'ALWAYS'", MALFORMED, "write", "never, insert, fill or always"),
    (COLUMN, "ADD on_misfit 'drop'", MALFORMED, "on_misfit", "null, keep, reject or error"),
    (COLUMN, "ADD derive 'magic'", MALFORMED, "derive", "ontology_scores"),
    (COLUMN, "ADD empty 'yes'", MALFORMED, "empty", "null"),
    (COLUMN, "ADD link 'no'", MALFORMED, "link", "true"),
]


@pytest.mark.parametrize(
    ("where", "options", "sqlstate", "named", "hint"), BAD_OPTIONS, ids=[f"{w} {o}" for w, o, *_ in BAD_OPTIONS]
)
def test_a_bad_option_is_rejected_where_it_is_set(
    where: str, options: str, sqlstate: str, named: str, hint: str, pg_once: Connection
) -> None:
    statement: Any = f"{where} OPTIONS ({options})"
    with pytest.raises(psycopg.Error) as raised:
        pg_once.execute(statement)
    said = raised.value.diag
    assert said.sqlstate == sqlstate
    assert said.message_primary == f'invalid {"value for " if sqlstate == MALFORMED else ""}option "{named}"'
    assert hint in str(said.message_hint)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("where", "options", "said", "hint"),
    [
        (
            MAPPING,
            "ADD bearer_token 'hunter2'",
            '"bearer_token" cannot be used together with option "password"',
            "either",
        ),
        (MAPPING, "DROP password, ADD bearer_token 'hunter2'", 'cannot be used together with option "user"', "either"),
        (
            MAPPING,
            'DROP "user"',
            'option "password" requires option "user"',
            'Set the option "user" in the same statement.',
        ),
        (
            SERVER,
            "ADD sslrootcert '/root.crt'",
            '"sslrootcert" requires the option "uri" to begin with',
            "no certificate",
        ),
        (
            OTHER,
            "uri 'bolt+ssc://x', sslrootcert '/root.crt'",
            '"sslrootcert" requires the option "uri" to begin with',
            "no certificate",
        ),
    ],
)
def test_options_that_do_not_go_together_are_rejected_where_they_are_set(
    where: str, options: str, said: str, hint: str, pg_once: Connection
) -> None:
    statement: Any = f"{where} OPTIONS ({options})"
    with pytest.raises(psycopg.Error) as raised:
        pg_once.execute(statement)
    assert raised.value.sqlstate == "HV024"
    assert said in str(raised.value.diag.message_primary)
    assert hint in str(raised.value.diag.message_hint)
    assert "hunter2" not in str(raised.value)


@pytest.fixture(scope="module")
def pg_once(servers: Instance, template: str) -> Iterator[Connection]:
    """A database for all tests that change nothing."""
    with new_database(servers, template) as database:
        yield database.connect()


def test_a_wrapper_or_a_place_without_options_is_named(pg_once: Connection) -> None:
    with pytest.raises(psycopg.Error, match='invalid option "debug"') as raised:
        pg_once.execute("ALTER FOREIGN DATA WRAPPER neo4j OPTIONS (ADD debug '1')")
    assert raised.value.diag.message_hint == "Valid options in this context are: <none>"


def test_every_good_option_is_taken(pg: Connection) -> None:
    for uri in ("bolt://a", "neo4j://a:7687", "bolt+s://a.b:1", "neo4j+ssc://[::1]:7687", "neo4j://a?policy=eu"):
        pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (SET uri {})").format(uri))
    pg.execute(
        "ALTER SERVER neo4j OPTIONS (database 'deals', connect_timeout '2.5', query_timeout '60', fetch_size '1',"
        " idle_timeout '0.5', keep_alive 'off', max_rows '100000', SET uri 'neo4j+s://a', sslrootcert '/root.crt');"
        "ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (DROP \"user\", DROP password, bearer_token 'a.b-c_d')"
    )


@pytest.mark.parametrize(
    ("place", "option"),
    [
        ("ALTER SERVER theirs", "wrapper 'neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper'"),
        ("ALTER SERVER theirs", "SET uri 'bolt+s://127.0.0.1:1', sslrootcert '/etc/passwd'"),
        ("CREATE USER MAPPING FOR CURRENT_USER SERVER theirs", "\"user\" 'x', password_file '/etc/passwd'"),
    ],
)
def test_options_that_name_files_or_code_are_for_superusers(place: str, option: str, pg: Connection) -> None:
    statement: Any = f"{place} OPTIONS ({option})"
    with role(pg, fresh("owner"), "USAGE ON FOREIGN DATA WRAPPER neo4j") as owner:
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner)))
        pg.execute("CREATE SERVER theirs FOREIGN DATA WRAPPER neo4j OPTIONS (uri 'bolt://127.0.0.1:1')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to set option") as raised:
            pg.execute(statement)
        assert "Only superusers" in str(raised.value.diag.message_hint)
        pg.execute("RESET ROLE")
        pg.execute(statement)


def test_a_password_file_serves_the_login(
    pg: Connection, writer: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute(
        sql.SQL("ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (DROP password, ADD password_file {})").format(
            str(servers.neo4j / "password")
        )
    )
    assert sync(writer, tenant).deals_inserted == 1
    pg.execute("ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password_file '/not/there')")
    assert "password file" in str(sync(writer, tenant).message)
