"""Flows in: mappings, servers and files that other roles have made. Flows out: nobody reads the graph with a login that
is not theirs to use, and the owner's serves the sync alone.
"""

import uuid
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from environment.servers import Instance
from psycopg import sql
from support.database import Connection, Database
from support.graph import Graph
from support.roles import WRITES, fresh, role
from support.sync import add_deal, one, sync

# -- Whose mapping counts ----------------------------------------------------------------------------------------------


def test_a_mapping_that_another_role_made_does_not_count(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    with role(pg, fresh("mallory"), "USAGE ON FOREIGN DATA WRAPPER neo4j", "CREATE ON SCHEMA public") as mallory:
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(mallory)))
        pg.execute(
            "CREATE SERVER evil FOREIGN DATA WRAPPER neo4j OPTIONS (uri 'bolt://127.0.0.1:1');"
            "CREATE USER MAPPING FOR PUBLIC SERVER evil OPTIONS (\"user\" 'neo4j', password 'x');"
            "CREATE FOREIGN TABLE evil_deals (id text OPTIONS (target 'graph_opportunity_id')) SERVER evil"
            " OPTIONS (label 'Deal', kind 'deal', target 'public.opportunities');"
        )
        pg.execute("RESET ROLE")
        assert sync(writer, tenant).deals_inserted == 1, "theirs neither counts nor disturbs"

        pg.execute("DROP FOREIGN TABLE neo4j.deals")
        with pytest.raises(psycopg.errors.UndefinedObject, match="no foreign table maps the deal") as raised:
            sync(writer, tenant)
        assert "evil_deals" in str(raised.value.diag.message_detail)


@pytest.mark.parametrize("what", ["FOREIGN TABLE neo4j.deals", "SERVER neo4j"])
def test_a_mapping_or_server_given_to_another_role_does_not_count(
    what: LiteralString, pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    grants = ("USAGE ON FOREIGN DATA WRAPPER neo4j", "USAGE, CREATE ON SCHEMA neo4j")
    with role(pg, fresh("mallory"), *grants) as mallory:
        pg.execute(sql.SQL("ALTER {} OWNER TO {}").format(sql.SQL(what), sql.Identifier(mallory)))
        with pytest.raises(psycopg.errors.UndefinedObject, match="no foreign table maps the deal") as raised:
            sync(writer, tenant)
        assert "neo4j.deals" in str(raised.value.diag.message_detail)
        assert "superuser" in str(raised.value.diag.message_detail)
        pg.execute(sql.SQL("ALTER {} OWNER TO postgres").format(sql.SQL(what)))
        assert sync(writer, tenant).status == "ok"


def test_the_sync_reads_with_the_owners_login_whatever_mapping_the_caller_has(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute("CREATE USER MAPPING FOR app_writer SERVER neo4j OPTIONS (\"user\" 'neo4j', password 'wrong')")
    assert sync(writer, tenant).deals_inserted == 1


def test_a_session_never_reads_with_another_roles_login(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """One backend, four roles: the owner, one with a bad login, one with none, one with a login of its own."""
    deal = add_deal(graph, tenant)
    read: LiteralString = "SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)"
    own = fresh("reader")
    graph.run(f"CREATE USER {own} SET PASSWORD 'a password of its own' CHANGE NOT REQUIRED")
    grants = ("USAGE ON SCHEMA neo4j, deal_sync", "USAGE ON FOREIGN SERVER neo4j", "SELECT ON neo4j.deals", *WRITES)
    try:
        with role(pg, fresh("bad"), *grants) as bad, role(pg, fresh("none"), *grants) as none, role(pg, own, *grants):
            for name in (bad, none, own):
                pg.execute(
                    "SELECT deal_sync.grant_sync(%(role)s::regrole), deal_sync.grant_scan(%(role)s::regrole)",
                    {"role": name},
                )
            mapping: LiteralString = 'CREATE USER MAPPING FOR {} SERVER neo4j OPTIONS ("user" {}, password {})'
            pg.execute(sql.SQL(mapping).format(sql.Identifier(bad), fresh("nobody"), "wrong"))
            pg.execute(sql.SQL(mapping).format(sql.Identifier(own), own, "a password of its own"))

            expected = {"postgres": None, bad: "28P01", none: "42704", own: None}
            for name in [*expected, *reversed(expected)]:
                pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
                if expected[name] is None:
                    assert one(pg, read) == str(deal)
                else:
                    with pytest.raises(psycopg.Error) as raised:
                        pg.execute(read)
                    assert raised.value.sqlstate == expected[name], name
                assert sync(pg, tenant).status == "ok", "always the owner's login"

            # Its login is gone: what the session holds open for others must not serve it.
            pg.execute("RESET ROLE")
            graph.run(f"ALTER USER {own} SET PASSWORD 'another password'")
            pg.execute(
                sql.SQL("ALTER USER MAPPING FOR {} SERVER neo4j OPTIONS (SET password 'no longer')").format(
                    sql.Identifier(own)
                )
            )
            pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(own)))
            with pytest.raises(psycopg.errors.InvalidPassword):
                pg.execute(read)
    finally:
        graph.run(f"DROP USER {own}")


def test_a_mapping_for_everybody_is_not_readable_by_a_caller(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute(
        "CREATE USER MAPPING FOR PUBLIC SERVER neo4j OPTIONS (\"user\" 'neo4j', password 'for everybody');"
        "GRANT USAGE ON SCHEMA neo4j TO app_writer; GRANT SELECT ON neo4j.deals TO app_writer;"
        "SELECT deal_sync.grant_scan('app_writer')"
    )
    with pytest.raises(psycopg.errors.UndefinedObject, match="may not read the PUBLIC user mapping") as raised:
        writer.execute("SELECT FROM deal_sync.scan(NULL::neo4j.deals)")
    assert "CREATE USER MAPPING FOR app_writer" in str(raised.value.diag.message_hint)


def test_scan_serves_a_role_of_any_name(pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID) -> None:
    deal = add_deal(graph, tenant)
    facts = servers.facts
    for name in (fresh("Reader"), fresh('re"ader ')):
        with role(pg, name, "USAGE ON SCHEMA neo4j", "USAGE ON FOREIGN SERVER neo4j", "SELECT ON neo4j.deals"):
            pg.execute(
                sql.SQL(
                    'CREATE USER MAPPING FOR {role} SERVER neo4j OPTIONS ("user" {user}, password {password});'
                    "SELECT deal_sync.grant_scan({name}::regrole); SET ROLE {role}"
                ).format(
                    role=sql.Identifier(name),
                    name=sql.Identifier(name).as_string(),
                    user=facts["neo4j_user"],
                    password=facts["neo4j_password"],
                )
            )
            assert one(pg, "SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)") == str(deal)


def test_what_scan_rejects_no_function_under_it_gives(
    pg: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    facts = servers.facts
    with role(pg, fresh("reader"), "USAGE ON SCHEMA neo4j", "USAGE ON FOREIGN SERVER neo4j") as reader:
        pg.execute(
            sql.SQL(
                'CREATE USER MAPPING FOR {role} SERVER neo4j OPTIONS ("user" {user}, password {password});'
                "SELECT deal_sync.grant_scan({name}::regrole)"
            ).format(
                role=sql.Identifier(reader), name=reader, user=facts["neo4j_user"], password=facts["neo4j_password"]
            )
        )
        columns = one(
            pg,
            "SELECT string_agg(format('%%I %%s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)"
            " FROM pg_attribute WHERE attrelid = 'neo4j.deals'::regclass AND attnum > 0",
        )
        relation = one(pg, "SELECT 'neo4j.deals'::regclass::oid")
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(reader)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pg.execute(f"SELECT * FROM _deal_sync.scan_rows({relation}, NULL, NULL, NULL) AS t ({columns})")


def test_scan_needs_select_on_each_column_that_it_returns(
    pg: Connection, writer: Connection, graph: Graph, servers: Instance, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant)
    pg.execute(
        sql.SQL('CREATE USER MAPPING FOR app_writer SERVER neo4j OPTIONS ("user" {}, password {})').format(
            servers.facts["neo4j_user"], servers.facts["neo4j_password"]
        )
    )
    pg.execute(
        "GRANT USAGE ON FOREIGN SERVER neo4j TO app_writer; GRANT USAGE ON SCHEMA neo4j TO app_writer;"
        "GRANT SELECT (opportunity_id) ON neo4j.deals TO app_writer; SELECT deal_sync.grant_scan('app_writer')"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for column"):
        writer.execute("SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)")
    only: LiteralString = "SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals, columns => '{opportunity_id}')"
    assert one(writer, only) == str(deal)


# -- Other ways to a login ---------------------------------------------------------------------------------------------


def test_scan_reads_no_password_file_that_another_wrapper_lets_a_role_name(
    pg: Connection, servers: Instance, tmp_path: Path
) -> None:
    pg.execute("CREATE FOREIGN DATA WRAPPER without_a_validator")
    with role(
        pg, fresh("reader"), "USAGE ON FOREIGN DATA WRAPPER without_a_validator", "CREATE ON SCHEMA public"
    ) as reader:
        pg.execute(
            sql.SQL("SELECT deal_sync.grant_scan({name}::regrole); SET ROLE {role}").format(
                name=reader, role=sql.Identifier(reader)
            )
        )
        pg.execute(
            "CREATE SERVER theirs FOREIGN DATA WRAPPER without_a_validator OPTIONS (uri 'bolt://127.0.0.1:1');"
            "CREATE USER MAPPING FOR CURRENT_USER SERVER theirs OPTIONS (\"user\" 'x', password_file '/etc/hostname');"
            "CREATE FOREIGN TABLE theirs (name text) SERVER theirs OPTIONS (label 'Deal')"
        )
        with pytest.raises(psycopg.Error, match="of the foreign-data wrapper neo4j does not exist") as raised:
            pg.execute("SELECT * FROM deal_sync.scan(NULL::public.theirs)")
        assert raised.value.sqlstate == "42704"
        pg.execute("RESET ROLE")


def test_a_table_by_cypher_is_made_by_a_superuser_or_the_extensions_owner_alone(pg: Connection) -> None:
    """LOAD CSV reads files and addresses, and a read transaction does not forbid it."""
    query = (
        "CREATE FOREIGN TABLE theirs.files (line text) SERVER neo4j"
        " OPTIONS (cypher 'LOAD CSV FROM ''file:///x'' AS line RETURN line')"
    )
    pg.execute("CREATE SCHEMA theirs")
    with role(pg, fresh("reader"), "USAGE ON FOREIGN SERVER neo4j", "ALL ON SCHEMA theirs") as reader:
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(reader)))
        pg.execute("CREATE FOREIGN TABLE theirs.labelled (name text) SERVER neo4j OPTIONS (label 'Deal')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match='to set option "cypher"') as raised:
            pg.execute(query.encode())
        assert "the host of Neo4j" in str(raised.value.diag.message_detail)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            pg.execute("ALTER FOREIGN TABLE theirs.labelled OPTIONS (DROP label, ADD cypher 'RETURN 1 AS name')")
        pg.execute("DROP FOREIGN TABLE theirs.labelled")
        pg.execute("RESET ROLE")
        pg.execute(sql.SQL("UPDATE pg_extension SET extowner = {}::regrole WHERE extname = 'deal_sync'").format(reader))
        pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(reader)))
        pg.execute(query.encode())
        pg.execute("DROP FOREIGN TABLE theirs.files; RESET ROLE")
        pg.execute("UPDATE pg_extension SET extowner = 10 WHERE extname = 'deal_sync'")
