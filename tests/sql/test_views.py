"""Flows in: foreign tables, views over them, and roles with and without grants and user mappings, under Multicorn2.
Flows out: who sees which rows of the graph, by whose login, and that a tenant's view shows no other tenant's.
"""

import uuid
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from environment.servers import Instance
from psycopg import sql
from support.database import Connection, Database
from support.graph import Graph

MINE, THEIRS = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"

pytestmark = pytest.mark.multicorn


@pytest.fixture(autouse=True)
def deals(graph: Graph) -> None:
    for tenant, name in ((MINE, "mine"), (THEIRS, "theirs")):
        graph.run(
            "CREATE (:Deal {tenant_id: $tenant, opportunity_id: randomUUID(), name: $name, stage: 'open'})",
            tenant=tenant,
            name=name,
        )


@pytest.fixture
def role(pg: Connection) -> Iterator[str]:
    """A role that has nothing yet."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    pg.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    yield name
    pg.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def reader(database: Database, role: str) -> Iterator[Connection]:
    """Its session."""
    with psycopg.connect(database.dsn(role), autocommit=True) as session:
        yield session


def grant(pg: Connection, what: LiteralString, role: str) -> None:
    pg.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(what), sql.Identifier(role)))


def give_mapping(pg: Connection, servers: Instance, role: str) -> None:
    statement: LiteralString = 'CREATE USER MAPPING FOR {} SERVER neo4j OPTIONS ("user" {}, password {})'
    login = servers.facts["neo4j_user"], servers.facts["neo4j_password"]
    pg.execute(sql.SQL(statement).format(sql.Identifier(role), *login))


def test_a_role_needs_a_grant_and_a_mapping_of_its_own(
    pg: Connection, reader: Connection, role: str, servers: Instance
) -> None:
    read: LiteralString = "SELECT name FROM neo4j.deals ORDER BY name"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema neo4j"):
        reader.execute(read)
    grant(pg, "USAGE ON SCHEMA neo4j", role)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="foreign table deals"):
        reader.execute(read)
    grant(pg, "SELECT (name) ON neo4j.deals", role)
    with pytest.raises(psycopg.Error, match="no user mapping with a login"):
        reader.execute(read)
    give_mapping(pg, servers, role)
    assert reader.execute(read).fetchall() == [("mine",), ("theirs",)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="foreign table deals"):
        reader.execute("SELECT stage FROM neo4j.deals")


def test_a_view_needs_a_mapping_for_each_role_that_reads_it(
    pg: Connection, reader: Connection, role: str, servers: Instance
) -> None:
    """PostgreSQL checks its owner's rights on the foreign table; Multicorn takes the login of whoever reads."""
    pg.execute("CREATE VIEW names AS SELECT name FROM neo4j.deals")
    grant(pg, "SELECT ON names", role)
    with pytest.raises(psycopg.Error, match="no user mapping with a login"):
        reader.execute("SELECT * FROM names")
    give_mapping(pg, servers, role)
    assert len(reader.execute("SELECT * FROM names").fetchall()) == 2


def test_a_role_without_usage_on_the_server_reads_by_its_mapping_and_cannot_see_the_password(
    pg: Connection, reader: Connection, role: str, servers: Instance
) -> None:
    pg.execute("CREATE VIEW names AS SELECT name FROM neo4j.deals")
    grant(pg, "SELECT ON names", role)
    give_mapping(pg, servers, role)
    assert len(reader.execute("SELECT * FROM names").fetchall()) == 2
    own: LiteralString = "SELECT usename, umoptions FROM pg_user_mappings WHERE usename = current_user"
    assert reader.execute(own).fetchall() == [(role, None)]
    grant(pg, "USAGE ON FOREIGN SERVER neo4j", role)
    assert servers.facts["neo4j_password"] in str(reader.execute(own).fetchall())


# "lower" keeps the qual from being pushed down: both tenants' rows reach PostgreSQL, and the order of quals decides.
TENANTS_VIEW: LiteralString = (
    "CREATE VIEW tenants_deals {} AS SELECT name, stage FROM neo4j.deals WHERE lower(tenant_id) = '" + MINE + "'"
)


@pytest.mark.parametrize("barrier", [True, False])
def test_a_leaky_function_sees_no_other_tenants_row_through_a_view_with_a_security_barrier(
    pg: Connection, reader: Connection, role: str, servers: Instance, barrier: bool
) -> None:
    pg.execute(sql.SQL(TENANTS_VIEW).format(sql.SQL("WITH (security_barrier)" if barrier else "")))
    grant(pg, "SELECT ON tenants_deals", role)
    give_mapping(pg, servers, role)
    reader.execute(
        "CREATE FUNCTION pg_temp.leak(name text) RETURNS boolean LANGUAGE plpgsql COST 0.0001"
        " AS $$ BEGIN RAISE NOTICE 'leaked %', name; RETURN true; END $$"
    )
    said: list[str] = []
    reader.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    assert reader.execute("SELECT name FROM tenants_deals WHERE pg_temp.leak(name)").fetchall() == [("mine",)]
    seen = {text.removeprefix("leaked ") for text in said if text.startswith("leaked ")}
    assert seen == ({"mine"} if barrier else {"mine", "theirs"}), "without the barrier it does see them"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT * FROM neo4j.deals")


def test_an_error_of_an_operator_reveals_nothing_of_another_tenants_row(
    pg: Connection, reader: Connection, role: str, servers: Instance
) -> None:
    pg.execute(sql.SQL(TENANTS_VIEW).format(sql.SQL("WITH (security_barrier)")))
    grant(pg, "SELECT ON tenants_deals", role)
    give_mapping(pg, servers, role)
    probe: LiteralString = "SELECT stage FROM tenants_deals WHERE 1 / (CASE name WHEN {} THEN 0 ELSE 1 END) = 1"
    assert reader.execute(sql.SQL(probe).format("theirs")).fetchall() == [("open",)]
    with pytest.raises(psycopg.errors.DivisionByZero):
        reader.execute(sql.SQL(probe).format("mine"))
