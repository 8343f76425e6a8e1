"""Flows in: sql/functions/05_connections.sql and fdw/neo4j_deals/graph/connection.py, a session that reads both ways.
Flows out: how many connections it keeps, that changed options hold at once, what the guard stops, and whose login goes.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from environment.servers import Instance
from psycopg import sql
from support.backend import Backend, await_true
from support.database import Connection, Database
from support.graph import Graph
from support.proxy import Proxy
from support.sync import add_deal, add_tenant, one, sync

SCAN: LiteralString = "SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)"
SELECT: LiteralString = "SELECT opportunity_id FROM neo4j.deals"
FEW: LiteralString = SELECT + " WHERE opportunity_id IN ('1', '2', '3')"
READS = [pytest.param(SCAN, id="scan"), pytest.param(SELECT, id="select", marks=pytest.mark.multicorn)]
multicorn = pytest.mark.multicorn
DEALS = 1200  # more than a scan hands over at once
TENANT = "aaaaaaaa-0000-4000-8000-000000000001"
#: As the sync does: a function in FROM would be read to its end at the first FETCH. A row tells of a batch.
BATCHES: LiteralString = "SELECT _deal_sync.fill_staging('deal', '" + TENANT + "', 'postgres', NULL)"


@pytest.fixture
def deals(graph: Graph) -> None:
    graph.run(
        "UNWIND range(1, $n) AS i CREATE (:Deal {tenant_id: $tenant, opportunity_id: toString(i), stage: 'open'})",
        n=DEALS,
        tenant=TENANT,
    )


@pytest.fixture
def proxy(servers: Instance, pg: Connection) -> Iterator[Proxy]:
    """What the server's uri leads to."""
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        alter(pg, "SET uri {}", proxy.uri)
        yield proxy


def alter(pg: Connection, options: LiteralString, *values: str) -> None:
    pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS ({})").format(sql.SQL(options).format(*values)))


def kept(pg: Connection) -> list[tuple[Any, ...]]:
    return pg.execute("SELECT server, login, state, valid FROM deal_sync.connections ORDER BY valid, state").fetchall()


# One connection


def test_a_session_that_has_read_nothing_keeps_nothing(pg: Connection) -> None:
    assert kept(pg) == []


@pytest.mark.parametrize("read", READS)
def test_a_session_reads_by_one_connection_and_shows_it(
    pg: Connection, proxy: Proxy, deals: None, read: LiteralString
) -> None:
    for _ in range(3):
        assert len(pg.execute(read).fetchall()) == DEALS
    assert proxy.connections == 1
    assert kept(pg) == [("neo4j", "postgres", "idle", True)]
    uri, idle = pg.execute("SELECT uri, idle_seconds FROM deal_sync.connections").fetchone() or ("", -1)
    assert uri == proxy.uri
    assert 0 <= idle < 5


@multicorn
def test_scan_select_and_sync_share_it(pg: Connection, proxy: Proxy, graph: Graph) -> None:
    tenant = add_tenant(pg)
    add_deal(graph, tenant)
    assert len(pg.execute(SCAN).fetchall()) == len(pg.execute(SELECT).fetchall()) == 1
    assert sync(pg, tenant).deals_inserted == 1
    assert proxy.connections == 1


@pytest.mark.parametrize(
    ("read", "first", "others"),
    [
        pytest.param(BATCHES, 1, 11, id="sync"),
        pytest.param(SELECT, 10, DEALS - 10, id="select", marks=multicorn),
    ],
)
def test_a_connection_that_a_cursor_reads_by_is_in_use_and_another_statement_has_its_own(
    pg: Connection, deals: None, read: LiteralString, first: int, others: int
) -> None:
    pg.execute("SET deal_sync.batch_rows = 100")
    with pg.transaction():
        pg.execute(sql.SQL("DECLARE c NO SCROLL CURSOR FOR {}").format(sql.SQL(read)))
        assert len(pg.execute(sql.SQL("FETCH {} FROM c").format(first)).fetchall()) == first
        assert kept(pg) == [("neo4j", "postgres", "in use", True)]
        assert len(pg.execute(SCAN).fetchall()) == DEALS
        assert kept(pg) == [("neo4j", "postgres", "idle", True), ("neo4j", "postgres", "in use", True)]
        assert len(pg.execute("FETCH ALL FROM c").fetchall()) == others, "it reads on, undisturbed"
    assert len(pg.execute(SCAN).fetchall()) == DEALS


@pytest.mark.parametrize("read", [pytest.param(BATCHES, id="sync"), pytest.param(FEW, id="select", marks=multicorn)])
def test_a_pause_between_two_fetches_is_no_wait_for_neo4j(pg: Connection, deals: None, read: LiteralString) -> None:
    """Its reader waits to commit, and wakes together with the one that fetches."""
    alter(pg, "ADD connect_timeout '0.5'")
    for _ in range(8):
        with pg.transaction():
            pg.execute(sql.SQL("DECLARE c NO SCROLL CURSOR FOR {}").format(sql.SQL(read)))
            pg.execute("FETCH 1 FROM c")
            time.sleep(0.8)
            pg.execute("FETCH ALL FROM c")


@multicorn
def test_the_end_of_one_side_of_a_join_leaves_the_other_alone(pg: Connection, deals: None) -> None:
    """LIMIT and EXISTS leave a scan before its end; many tables at once are read side by side."""
    assert one(pg, "SELECT count(*) FROM neo4j.deals AS d WHERE EXISTS (SELECT FROM neo4j.deals LIMIT 1)") == DEALS
    pg.execute("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off")
    lateral: LiteralString = (
        "SELECT count(*), count(DISTINCT d.opportunity_id) FROM neo4j.deals AS d,"
        " LATERAL (SELECT FROM neo4j.deals AS e WHERE e.opportunity_id >= d.stage OR d.stage = 'open' LIMIT 1) AS e"
        " WHERE d.opportunity_id LIKE '11_'"
    )
    assert pg.execute(lateral).fetchone() == (10, 10)
    seven: LiteralString = "SELECT opportunity_id FROM neo4j.deals WHERE opportunity_id IN ('7', '8')"
    query = sql.SQL("SELECT count(*) FROM {} AS a, {} AS b, {} AS c, {} AS d, {} AS e, {} AS f").format(
        *[sql.SQL("({})").format(sql.SQL(seven))] * 6
    )
    assert pg.execute(query).fetchone() == (64,)


@multicorn
def test_two_databases_of_one_neo4j_have_a_connection_each(
    pg: Connection, servers: Instance, proxy: Proxy, deals: None
) -> None:
    wrapper = "neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper"
    pg.execute(
        sql.SQL(
            "CREATE SERVER another FOREIGN DATA WRAPPER neo4j OPTIONS (uri {}, database 'neo4j', wrapper {});"
            'CREATE USER MAPPING FOR postgres SERVER another OPTIONS ("user" {}, password {});'
            "CREATE FOREIGN TABLE other (opportunity_id text) SERVER another OPTIONS (label 'Deal')"
        ).format(proxy.uri, wrapper, servers.facts["neo4j_user"], servers.facts["neo4j_password"])
    )
    for _ in range(3):
        assert one(pg, "SELECT count(opportunity_id) FROM neo4j.deals") == DEALS
        assert one(pg, "SELECT count(opportunity_id) FROM other") == DEALS
    assert proxy.connections == 2
    assert {row[0] for row in kept(pg)} == {"neo4j", "another"}


# Changed options


@pytest.mark.parametrize("read", READS)
def test_a_changed_uri_holds_from_the_next_statement_on(
    pg: Connection, servers: Instance, proxy: Proxy, deals: None, read: LiteralString
) -> None:
    session_sockets = Backend(pg.info.backend_pid).sockets
    pg.execute(read)
    sockets = session_sockets()
    with Proxy(servers.facts["neo4j_uri"]) as other:
        alter(pg, "SET uri {}", other.uri)
        assert kept(pg)[0][3] is False
        pg.execute(read)
        assert (proxy.connections, other.connections) == (1, 1)
        assert ("neo4j", "postgres", "idle", True) in kept(pg)
        assert pg.execute("SELECT deal_sync.disconnect('neo4j')").fetchone() == (True,)
        assert kept(pg) == [], "the one that fits no server any more goes, too"
    assert session_sockets() < sockets


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("end", ["another session", "the same session", "the same transaction"])
def test_a_changed_password_holds_from_the_next_statement_on_whoever_changed_it(
    database: Database, pg: Connection, servers: Instance, proxy: Proxy, deals: None, read: LiteralString, end: str
) -> None:
    change: LiteralString = "ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password {})"
    pg.execute(read)
    with database.connect() as another, pg.transaction(force_rollback=True):
        if end == "another session":
            another.execute(sql.SQL(change).format("wrong"))
        elif end == "the same transaction":
            pg.execute(sql.SQL(change).format("wrong"))
        else:
            pg.execute("SELECT 1")
    if end == "the same session":
        pg.execute(sql.SQL(change).format("wrong"))
    if end == "the same transaction":
        assert len(pg.execute(read).fetchall()) == DEALS, "rolled back"
        return
    with pytest.raises(psycopg.Error, match="rejected the login"):
        pg.execute(read)
    pg.execute(sql.SQL(change).format(servers.facts["neo4j_password"]))
    assert len(pg.execute(read).fetchall()) == DEALS


@pytest.mark.parametrize("read", READS)
def test_each_role_reads_with_its_own_login_by_a_connection_of_its_own(
    pg: Connection, servers: Instance, proxy: Proxy, deals: None, read: LiteralString
) -> None:
    """Also where the foreign table's instance in Multicorn is one for the whole session."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    identifier = sql.Identifier(name)
    pg.execute(sql.SQL("CREATE ROLE {}").format(identifier))
    try:
        pg.execute(
            sql.SQL(
                "GRANT USAGE ON SCHEMA neo4j TO {0}; GRANT USAGE ON FOREIGN SERVER neo4j TO {0};"
                "GRANT SELECT ON neo4j.deals TO {0}; SELECT deal_sync.grant_scan({1}::regrole);"
                'CREATE USER MAPPING FOR {0} SERVER neo4j OPTIONS ("user" {2}, password {3})'
            ).format(identifier, name, servers.facts["neo4j_user"], servers.facts["neo4j_password"])
        )
        for _ in range(2):
            for who in (sql.SQL("NONE"), identifier):
                pg.execute(sql.SQL("SET ROLE {}").format(who))
                assert len(pg.execute(read).fetchall()) == DEALS
        assert proxy.connections == 2
        assert sorted(kept(pg), key=str) == [("neo4j", "postgres", "idle", None), ("neo4j", name, "idle", True)]
        assert pg.execute("SELECT deal_sync.disconnect('neo4j')").fetchone() == (True,)
        assert kept(pg) == []
    finally:
        pg.execute("RESET ROLE")
        pg.execute(sql.SQL("DROP OWNED BY {} CASCADE; DROP ROLE {}").format(identifier, identifier))


# Idle connections


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("fault", ["cut", "silent"])
def test_a_connection_that_broke_while_it_was_idle_is_made_anew(
    pg: Connection, proxy: Proxy, deals: None, read: LiteralString, fault: str
) -> None:
    """Cut: it is closed. Silent: packets vanish on the old connection, which only a test before use finds out."""
    alter(pg, "ADD idle_timeout '0.2', ADD connect_timeout '1'")
    pg.execute(read)
    if fault == "cut":
        proxy.cut_all()
    else:
        proxy.deaf()
    time.sleep(0.3)
    began = time.monotonic()
    assert len(pg.execute(read).fetchall()) == DEALS
    assert time.monotonic() - began < 5
    assert proxy.connections == 2


def test_a_spare_connection_goes_when_it_was_idle_for_long_enough(pg: Connection, deals: None) -> None:
    alter(pg, "ADD idle_timeout '0.3'")
    pg.execute("SET deal_sync.batch_rows = 100")
    with pg.transaction():
        pg.execute("DECLARE c CURSOR FOR " + BATCHES)
        pg.execute("FETCH 1 FROM c")
        pg.execute(SCAN)
        pg.execute("FETCH ALL FROM c")
    assert len(kept(pg)) == 2
    time.sleep(0.4)
    pg.execute(SCAN)
    assert len(kept(pg)) == 1


# A connection that breaks

QUERY = b"MATCH (n:"


@pytest.mark.parametrize("read", READS)
def test_a_read_is_tried_again_until_rows_were_handed_out(
    pg: Connection, proxy: Proxy, deals: None, read: LiteralString
) -> None:
    for after in (0, 100):
        fault = proxy.cut(QUERY, after, times=1)
        assert len(pg.execute(read).fetchall()) == DEALS
        assert fault.strikes == 1


@pytest.mark.parametrize("read", READS)
def test_after_that_it_is_an_error_and_never_fewer_rows(
    pg: Connection, proxy: Proxy, deals: None, read: LiteralString
) -> None:
    whole = proxy.repaired(QUERY)
    assert len(pg.execute(read).fetchall()) == DEALS
    fault = proxy.cut(QUERY, whole.passed * 9 // 10, times=1)
    with pytest.raises(psycopg.Error, match="could not connect to Neo4j server") as broken:
        pg.execute(read)
    assert fault.strikes == 1
    assert broken.value.sqlstate == ("08006" if read is SCAN else "XX000")
    assert len(pg.execute(read).fetchall()) == DEALS


def test_what_breaks_each_time_is_given_up(pg: Connection, proxy: Proxy, deals: None) -> None:
    fault = proxy.cut(QUERY)
    with pytest.raises(psycopg.errors.ConnectionFailure):
        pg.execute(SCAN)
    assert fault.strikes == 3


# disconnect()


def test_disconnect_closes_what_is_idle_and_says_whether_there_was_something(
    pg: Connection, proxy: Proxy, deals: None
) -> None:
    backend = Backend(pg.info.backend_pid)
    assert one(pg, "SELECT deal_sync.disconnect('neo4j')") is False
    sockets = backend.sockets()
    pg.execute(SCAN)
    assert backend.sockets() == sockets + 2
    assert one(pg, "SELECT deal_sync.disconnect('neo4j')") is True
    assert backend.sockets() == sockets
    assert len(pg.execute(SCAN).fetchall()) == DEALS
    assert proxy.connections == 2


def test_disconnect_leaves_a_connection_in_use_and_warns(pg: Connection, deals: None) -> None:
    said: list[str] = []
    pg.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    pg.execute("SET deal_sync.batch_rows = 100")
    with pg.transaction():
        pg.execute("DECLARE c CURSOR FOR " + BATCHES)
        pg.execute("FETCH 1 FROM c")
        assert one(pg, "SELECT deal_sync.disconnect('neo4j')") is False
        assert said == ['connections to server "neo4j" that are in use remain open']
        assert len(pg.execute("FETCH ALL FROM c").fetchall()) == 11


def test_disconnect_leaves_another_servers_connection(pg: Connection, servers: Instance, deals: None) -> None:
    facts = servers.facts
    pg.execute(
        sql.SQL(
            "CREATE SERVER another FOREIGN DATA WRAPPER neo4j OPTIONS (uri {}, fetch_size '99');"
            'CREATE USER MAPPING FOR postgres SERVER another OPTIONS ("user" {}, password {});'
            "CREATE FOREIGN TABLE other (opportunity_id text) SERVER another OPTIONS (label 'Deal')"
        ).format(facts["neo4j_uri"], facts["neo4j_user"], facts["neo4j_password"])
    )
    pg.execute(SCAN)
    pg.execute("SELECT FROM deal_sync.scan(NULL::other)")
    assert {row[0] for row in kept(pg)} == {"neo4j", "another"}
    pg.execute("SELECT deal_sync.disconnect('neo4j')")
    assert [row[0] for row in kept(pg)] == ["another"]


def test_a_server_that_does_not_exist_cannot_be_disconnected(pg: Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match='server "nowhere" does not exist') as raised:
        pg.execute("SELECT deal_sync.disconnect('nowhere')")
    assert "deal_sync.connections" in str(raised.value.diag.message_hint)


# max_rows


@pytest.mark.parametrize("read", READS)
def test_a_scan_of_more_rows_than_max_rows_is_an_error_and_one_of_as_many_is_not(
    pg: Connection, deals: None, read: LiteralString
) -> None:
    alter(pg, "ADD max_rows {}", str(DEALS))
    assert len(pg.execute(read).fetchall()) == DEALS
    alter(pg, "SET max_rows {}", str(DEALS - 1))
    with pytest.raises(psycopg.Error, match='more rows than option "max_rows"') as raised:
        pg.execute(read)
    assert raised.value.sqlstate == ("54000" if read is SCAN else "XX000")
    assert str(DEALS - 1) in str(raised.value)
    assert "Limit the scan" in str(raised.value.diag.message_hint)
    limited = pg.execute("SELECT count(*) FROM deal_sync.scan(NULL::neo4j.deals, row_limit => 10)").fetchone()
    assert limited == (10,)


@multicorn
def test_what_a_qual_asks_for_is_what_max_rows_counts(pg: Connection, deals: None) -> None:
    alter(pg, "ADD max_rows '1'")
    assert pg.execute(SELECT + " WHERE opportunity_id = '7'").fetchall() == [("7",)]


def test_the_sync_is_not_cut_by_max_rows(pg: Connection, graph: Graph) -> None:
    alter(pg, "ADD max_rows '1'")
    tenant = add_tenant(pg)
    for _ in range(3):
        add_deal(graph, tenant)
    assert (sync(pg, tenant).status, sync(pg, tenant).deals_unchanged) == ("ok", 3)


# The login that goes


def test_a_bearer_token_goes_instead_of_user_and_password_and_a_reject_does_not_show_it(
    pg: Connection, servers: Instance, proxy: Proxy
) -> None:
    """Neo4j Community takes no tokens: what is seen is that it gets this one, and what it says comes without it."""
    token = "header.PAYLOAD-of-the-token.signature"
    pg.execute(
        sql.SQL(
            'ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (DROP "user", DROP password, ADD bearer_token {})'
        ).format(token)
    )
    for words in (b"bearer", token.encode()):
        seen = proxy.repaired(words)
        with pytest.raises(psycopg.errors.InvalidPassword, match="rejected the login") as raised:
            pg.execute(SCAN)
        assert seen.passed > 0
        assert token not in str(raised.value)
        assert "bearer_token" in str(raised.value.diag.message_hint)


@multicorn
def test_a_role_without_a_mapping_reads_nothing_through_the_foreign_table(pg: Connection, deals: None) -> None:
    pg.execute("DROP USER MAPPING FOR postgres SERVER neo4j")
    with pytest.raises(psycopg.Error, match="no user mapping with a login") as raised:
        pg.execute(SELECT)
    assert "CREATE USER MAPPING" in str(raised.value.diag.message_hint)


def test_keep_alive_is_a_property_of_the_socket(pg: Connection, deals: None) -> None:
    keep_alive = """DO $$
import socket
from neo4j_deals.graph import connection
(one,) = connection.kept()
with socket.socket(fileno=__import__("os").dup(one.descriptors[0][1])) as ours:
    plpy.notice(str(ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))
$$ LANGUAGE plpython3u"""
    said: list[str] = []
    pg.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    alter(pg, "ADD keep_alive 'on'")
    for _ in range(2):
        pg.execute(SCAN)
        pg.execute(keep_alive.encode())
        alter(pg, "SET keep_alive 'off'")
    assert said == ["1", "0"]


def test_a_connection_is_no_business_of_another_session(database: Database, pg: Connection, deals: None) -> None:
    pg.execute(SCAN)
    with database.connect() as another:
        assert kept(another) == []
    assert await_true(lambda: len(kept(pg)) == 1)
