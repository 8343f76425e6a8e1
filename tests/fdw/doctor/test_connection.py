"""Flows in: neo4j_deals.doctor.connection, asking a Neo4j that cannot be reached, or is not as it should be.
Flows out: what it names, with a hint that works.
"""

import time
import uuid
from typing import LiteralString

import pytest
from environment.database import literal
from environment.servers import Instance
from neo4j_deals.doctor.connection import clock, sees_others, transactions, version
from support.database import Connection, execute
from support.doctor import NAMES, doctor, set_uri
from support.graph import Graph
from support.proxy import Proxy, closed_port
from support.sync import sync


@pytest.mark.parametrize(
    ("number", "ok"),
    [
        ("5.9.0", True),
        ("5.26.28", True),
        ("5.27-aura", True),
        ("2025.01.0", True),
        ("2026.08.1", True),
        ("5.8.0", False),
        ("5.0.0", False),
        ("4.4.40", False),
        ("6.0", False),
        ("dev", False),
    ],
)
def test_neo4j_5_from_9_on_and_the_calendar_line_are_sound(number: str, ok: bool) -> None:
    found = version(number, "community")
    assert found.ok is ok
    assert number in found.detail
    assert found.hint == (None if ok else "Use Neo4j 5.9 or later, which the sync requires.")


@pytest.mark.parametrize(("number", "said"), [("5.8.0", True), ("5.9.0", False), ("4.4.40", False)])
def test_what_an_older_neo4j_5_lacks_is_said(number: str, said: bool) -> None:
    assert ("an incremental run and a backfill" in version(number, "community").detail) is said


@pytest.mark.parametrize(
    ("ahead", "ok", "said"),
    [
        (0.2, True, "agree"),
        (-0.9, True, "agree"),
        (59.0, True, "59 s ahead of"),
        (61.0, False, "61 s ahead of"),
        (-3600.0, False, "3600 s behind"),
    ],
)
def test_clocks_may_differ_by_a_minute(ahead: float, ok: bool, said: str) -> None:
    found = clock(ahead)
    assert found.ok is ok
    assert said in found.detail
    assert (found.hint is None) is ok


@pytest.mark.parametrize(
    ("privileges", "sees"),
    [
        ([("GRANTED", "access"), ("GRANTED", "match")], False),
        ([("DENIED", "show_transaction")], False),
        ([("GRANTED", "show_transaction")], True),
        ([("GRANTED", "transaction_management")], True),
        ([], False),
    ],
)
def test_a_login_without_the_right_sees_its_own_transactions_only(
    privileges: list[tuple[str, str]], sees: bool
) -> None:
    found = transactions([], "10min", sees_others(privileges))
    assert found.ok is (True if sees else None)
    assert ("may not see the transactions of other logins" in found.detail) is not sees
    assert transactions(None, "10min", False).ok is None
    assert transactions([("neo4j-transaction-7", 700)], "10min", sees_others(privileges)).ok is False
    assert "as far as the login can see" in transactions([], "10min", None).detail


ABOUT_THE_GRAPH = NAMES[NAMES.index("neo4j version") : NAMES.index("target tables")]


def test_a_port_where_nobody_listens_is_named_once(pg: Connection, servers: Instance) -> None:
    set_uri(pg, closed_port())
    checks = doctor(pg)
    assert checks["connection"].ok is False
    assert 'option "uri"' in str(checks["connection"].hint)
    for name in ("login", "database", *ABOUT_THE_GRAPH):
        assert (checks[name].ok, checks[name].detail) == (None, "not checked: connection")
    assert checks["target types"].ok
    set_uri(pg, servers.facts["neo4j_uri"])
    assert doctor(pg)["connection"].ok


def test_after_a_failed_connection_nobody_tries_again(pg: Connection, servers: Instance) -> None:
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        proxy.cut()
        set_uri(pg, proxy.uri)
        assert doctor(pg)["connection"].ok is False
        tries = proxy.connections
    assert 1 <= tries <= 3, "the tries of one read"


def test_a_connection_that_breaks_on_the_way_ends_the_questions(
    pg: Connection, graph: Graph, servers: Instance
) -> None:
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        set_uri(pg, proxy.uri)
        proxy.cut(at=b"SHOW INDEXES")
        checks = doctor(pg)
    assert checks["clock"].ok
    assert checks["deals: key index"].ok is False
    assert checks["deals: duplicates"].detail == "not checked: connection"


def test_a_wrong_password_is_named(pg: Connection, graph: Graph, servers: Instance) -> None:
    pg.execute("ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password 'wrong-one')")
    checks = doctor(pg)
    assert checks["connection"].ok
    assert checks["login"].ok is False
    assert "user mapping" in str(checks["login"].hint)
    assert checks["clock"].detail == "not checked: login"
    assert "wrong-one" not in repr(checks)
    right = literal(servers.facts["neo4j_password"])
    execute(pg, f"ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password {right})")
    assert doctor(pg)["login"].ok


def test_a_database_that_is_not_there_is_named(pg: Connection, graph: Graph) -> None:
    pg.execute("ALTER SERVER neo4j OPTIONS (ADD database 'nowhere')")
    checks = doctor(pg)
    assert checks["login"].ok
    assert checks["database"].ok is False
    assert 'option "database"' in str(checks["database"].hint)
    assert checks["clock"].detail == "not checked: database"
    pg.execute("ALTER SERVER neo4j OPTIONS (SET database 'neo4j')")
    assert doctor(pg)["database"].ok


def test_transactions_that_are_open_for_long_are_named(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    assert doctor(pg)["open transactions"].ok
    pg.execute("SET deal_sync.overlap = '200ms'")
    with graph.driver.session() as session, session.begin_transaction() as transaction:
        transaction.run("CREATE (d:Deal {tenant_id: $tenant})", tenant=str(tenant)).consume()
        time.sleep(1.2)
        check = doctor(pg)["open transactions"]
        transaction.rollback()
    assert check.ok is False
    assert check.detail.startswith("open for longer than deal_sync.overlap (200ms): neo4j-transaction-")
    assert check.detail.count("-transaction-") == 1, "our own are none"
    assert doctor(pg)["open transactions"].ok


def test_another_graph_than_the_accepted_one_is_named(pg: Connection, graph: Graph) -> None:
    (found,) = graph.run("CALL db.info() YIELD id")
    assert found["id"] in doctor(pg)["graph id"].detail
    pg.execute("INSERT INTO deal_sync.graph (database_id) VALUES ('ANOTHER')")
    check = doctor(pg)["graph id"]
    assert check.ok is False
    assert "ANOTHER" in check.detail
    execute(pg, check.hint)
    assert doctor(pg)["graph id"].ok


def test_of_several_graphs_the_last_one_counts_as_in_a_run(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    (found,) = graph.run("CALL db.info() YIELD id")
    remember: LiteralString = (
        "INSERT INTO deal_sync.graph (database_id, accepted_at)"
        " VALUES (%s, now() - interval '1 hour'), (%s, now() - interval '2 hours')"
    )
    pg.execute(remember, [found["id"], "ANOTHER"])
    assert doctor(pg)["graph id"].ok
    pg.execute("UPDATE deal_sync.graph SET accepted_at = now() WHERE database_id = 'ANOTHER'")
    assert doctor(pg)["graph id"].ok is False
    assert "not the graph this database was loaded from" in str(sync(pg, tenant).message)
