"""Flows in: every place where a statement can wait for Neo4j, and every way in which PostgreSQL ends a statement. Flows
out: each ends it within a second, leaves a session that can be used, and nothing at Neo4j's side.

The seconds are in the last lines of the run.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import LiteralString

import pytest
from environment.servers import Instance
from psycopg import sql
from support.backend import Backend, Ended, await_true, run, running
from support.database import Connection, Database
from support.graph import Graph
from support.proxy import Fault, Proxy, full_backlog

DEALS = 40
WITHIN = 1.0  # seconds, of the issue
TIMEOUT = 1  # seconds of statement_timeout: the statement waits by then
QUERY = b"MATCH (n:"

SELECT: LiteralString = "SELECT opportunity_id, name FROM neo4j.deals"
SCAN: LiteralString = "SELECT opportunity_id, name FROM deal_sync.scan(NULL::neo4j.deals)"
JOIN: LiteralString = "SELECT a.opportunity_id, b.name FROM neo4j.deals AS a, neo4j.deals AS b WHERE a.name <> b.stage"
NO_OTHER_JOIN: LiteralString = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off"


@dataclass(frozen=True)
class Place:
    """A statement that waits for Neo4j: before it, the statement, its rows, where the answers stop coming."""

    statement: LiteralString
    rows: int
    share: float  # of the bytes of one whole answer to `reads`
    reads: LiteralString = SELECT
    before: tuple[LiteralString, ...] = ()
    after: tuple[LiteralString, ...] = ()
    connecting: bool = False


PLACES = {
    "scan through Multicorn": Place(SELECT, DEALS, 0.5),
    "join's inner side": Place(JOIN, DEALS * DEALS, 1.5, before=(NO_OTHER_JOIN,)),
    "scan()": Place(SCAN, DEALS, 0.5, reads=SCAN),
    "cursor": Place(
        "FETCH ALL FROM c", DEALS, 0.5, before=("BEGIN", f"DECLARE c CURSOR FOR {SELECT}"), after=("ROLLBACK",)
    ),
    "connecting through Multicorn": Place(SELECT, DEALS, 0, connecting=True),
    "connecting by scan()": Place(SCAN, DEALS, 0, connecting=True),
}
ENDS = ["cancel", "statement_timeout", "terminate"]


@pytest.fixture
def proxy(servers: Instance, pg: Connection, graph: Graph) -> Iterator[Proxy]:
    """What the server's uri leads to."""
    graph.run(
        "UNWIND range(1, $deals) AS i CREATE (:Deal {tenant_id: $tenant, opportunity_id: randomUUID(), stage: 'open',"
        " name: reduce(text = '', j IN range(1, 60) | text + 'a long name ')})",
        deals=DEALS,
        tenant=str(uuid.uuid4()),
    )
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        set_uri(pg, proxy.uri)
        pg.execute("ALTER SERVER neo4j OPTIONS (ADD fetch_size '10')")
        yield proxy


def set_uri(pg: Connection, uri: str) -> None:
    pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (SET uri {})").format(uri))


@contextmanager
def waiting(place: Place, pg: Connection, proxy: Proxy, backend: Backend) -> Iterator[Callable[[], bool]]:
    """While it lasts, the statement gets no further; yields how to see that it waits there."""
    with ExitStack() as stack:
        if place.connecting:
            set_uri(pg, stack.enter_context(full_backlog()))
            stack.callback(set_uri, pg, proxy.uri)
            yield lambda: backend.sockets() > 1
            return
        fault = proxy.silent(QUERY, int(whole_answer(proxy, pg, place.reads) * place.share))
        stack.callback(proxy.repaired)
        yield lambda: fault.struck.is_set()


def whole_answer(proxy: Proxy, pg: Connection, reads: LiteralString) -> int:
    """The bytes of the answer to one scan: it tells of every column that no node has, so each statement has its own."""
    fault: Fault = proxy.repaired(QUERY)
    assert len(pg.execute(reads).fetchall()) == DEALS
    return fault.passed


def ended(
    end: str, pg: Connection, session: Connection, place: Place, is_there: Callable[[], bool]
) -> tuple[Ended, float]:
    """How the statement ended, and after how many seconds from the moment when it should have."""
    pid = session.info.backend_pid
    for statement in place.before:
        session.execute(statement)
    if end == "statement_timeout":
        session.execute(sql.SQL("SET statement_timeout = {}").format(f"{TIMEOUT}s"))
    began = time.monotonic()
    with running(session, place.statement) as future:
        assert await_true(is_there)
        asked = began + TIMEOUT if end == "statement_timeout" else time.monotonic()
        if end == "cancel":
            pg.execute("SELECT pg_cancel_backend(%s)", [pid])
        elif end == "terminate":
            pg.execute("SELECT pg_terminate_backend(%s)", [pid])
        result = future.result()
    if end == "terminate":
        assert await_true(lambda: not Backend(pid).lives())
        return result, time.monotonic() - asked
    return result, result.at - asked


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if "scan()" in n else pytest.mark.multicorn, id=n.replace(" ", "-")) for n in PLACES],
)
def test_it_ends_within_a_second_and_leaves_no_trace(
    database: Database,
    pg: Connection,
    graph: Graph,
    proxy: Proxy,
    measure: Callable[[str, str, str, float], None],
    name: str,
    end: str,
) -> None:
    place = PLACES[name]
    session = database.connect()
    backend = Backend(session.info.backend_pid)
    with waiting(place, pg, proxy, backend) as is_there:
        result, seconds = ended(end, pg, session, place, is_there)
        assert await_true(lambda: reads_at_neo4j(graph) == 0, seconds=5), "while the proxy is still silent"
    measure("seconds until it ended", name, end, seconds)
    assert seconds < WITHIN
    assert result.error is not None
    if end == "terminate":
        assert run(session, "SELECT 1").error is not None
        session.close()
        return

    assert "cancel" in str(result.error)
    by_multicorn = "scan()" not in name
    assert result.sqlstate == ("XX000" if by_multicorn else "57014")
    assert backend.is_single_threaded()
    assert backend.sockets() == 1, "the client's is left"
    for statement in place.after:
        session.execute(statement)
    session.execute("RESET statement_timeout")
    for statement in place.before:
        session.execute(statement)
    again = run(session, place.statement)
    assert (again.error, len(again.rows)) == (None, place.rows)


def reads_at_neo4j(graph: Graph) -> int:
    """How many transactions at Neo4j read deals."""
    query = "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery CONTAINS $reads RETURN count(*) AS n"
    return int(graph.run(query, reads="RETURN elementId(n)")[0]["n"])


@pytest.mark.multicorn
def test_the_join_of_the_matrix_reads_its_inner_side_anew_for_each_row(pg: Connection, proxy: Proxy) -> None:
    pg.execute(NO_OTHER_JOIN)
    plan = "\n".join(row[0] for row in pg.execute(sql.SQL("EXPLAIN {}").format(sql.SQL(JOIN))))
    assert "Nested Loop" in plan
    assert "Materialize" not in plan
    assert plan.count("Foreign Scan") == 2


@pytest.mark.multicorn
def test_what_catches_every_error_does_not_hold_a_cancel_up(database: Database, pg: Connection, proxy: Proxy) -> None:
    """Multicorn's errors are XX000, which WHEN OTHERS catches: PostgreSQL then still has the cancel to serve."""
    caught: LiteralString = (
        "DO $$ BEGIN FOR i IN 1 .. 100 LOOP BEGIN PERFORM name FROM neo4j.deals;"
        " EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$"
    )
    session = database.connect()
    place = Place(caught, 0, 0.5)
    with waiting(place, pg, proxy, Backend(session.info.backend_pid)) as is_there:
        result, seconds = ended("cancel", pg, session, place, is_there)
    assert seconds < WITHIN
    assert result.sqlstate == "57014"
