"""Flows in: a database whose graph is reached through a proxy that can fail. Flows out: what a reader there leaves."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import pytest

from support.backend import Backend
from support.database import Connection, Database
from support.graph import Graph
from support.proxy import Proxy, full_backlog
from support.sync import Run, one

DEALS = 40
VERSIONS = 6
BATCH = 10
RECORD_BYTES = 600  # of a deal in the answer, at the least

SYNC = "SELECT * FROM sync_deals(%s, mode => 'full')"
WRITTEN = ("opportunities", "deal_versions", "interaction_links", "deal_sync.runs", "deal_sync.rejects")

# What the driver sends: with the login, with any query, with one of them.
LOGIN = b"credentials"
QUERY = b"MATCH (n:"
READING = b"ORDER BY n.`opportunity_id`"

KEPT_SOCKETS = 2  # of a kept connection: the driver's own and its duplicate

THREAD, PROCESS = pytest.param(False, id="thread"), pytest.param(True, id="process")


@dataclass(frozen=True)
class World:
    """A database whose graph is reached through the proxy, and a tenant with deals, versions and links in the graph."""

    database: Database
    pg: Connection
    proxy: Proxy
    tenant: uuid.UUID

    def session(self, user: str = "app_writer", process: bool = False) -> Connection:
        """A session that hands deals over in small batches, read by a thread or by a process."""
        session = self.database.connect(user)
        session.execute(f"SET deal_sync.batch_rows = {BATCH}")
        read_by_process(session, process)
        return session

    def set_uri(self, uri: str) -> None:
        self.pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{uri}')".encode())

    def set_option(self, name: str, value: str) -> None:
        self.pg.execute(f"ALTER SERVER neo4j OPTIONS (ADD {name} '{value}')".encode())

    def set_password(self, password: str) -> None:
        statement = f"ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password '{password}')"
        self.pg.execute(statement.encode())

    def rows(self) -> dict[str, int]:
        """How many rows each table has that a sync writes."""
        return {table: one(self.pg, f"SELECT count(*) FROM {table}") for table in WRITTEN}

    def locks(self, pid: int) -> list[Any]:
        return self.pg.execute(
            "SELECT locktype, relation::regclass, mode FROM pg_locks WHERE pid = %s", [pid]
        ).fetchall()

    def has_landed_a_batch(self, pid: int) -> bool:
        """Whether the transaction has begun to write deals, and waits for more."""
        query: LiteralString = (
            "SELECT count(*) FROM pg_locks"
            " WHERE pid = %s AND relation = 'opportunities'::regclass AND mode = 'RowExclusiveLock'"
        )
        return bool(one(self.pg, query, pid))

    def written(self) -> int:
        """How many rows of the application's tables hold what a sync wrote."""
        return sum(self.rows()[table] for table in WRITTEN[:3])

    def temporary_files(self) -> list[Path]:
        return list((self.database.instance.data / "base/pgsql_tmp").iterdir())

    def last_run(self) -> tuple[Any, ...]:
        row = self.pg.execute(
            "SELECT status, sqlstate, message FROM deal_sync.runs ORDER BY started_at DESC"
        ).fetchone()
        assert row is not None
        return row


def read_by_process(session: Connection, process: bool = True) -> None:
    session.execute(f"SET deal_sync.process_from = {1 if process else 1000000}".encode())


def load(graph: Graph, tenant: uuid.UUID, deals: int, versions: int = 0, embedding: int = 0) -> None:
    """Deals with a source interaction each, all of one size; the first ones have a version."""
    graph.run(
        "UNWIND range(1, $deals) AS i CREATE (d:Deal {tenant_id: $tenant, opportunity_id: randomUUID(),"
        " name: 'Deal ' + (1000000 + i), stage: 'proposal', amount: 1.5, version: 2,"
        " opportunity_summary: reduce(text = '', j IN range(1, 40) | text + 'a summary '),"
        " source_interaction_id: randomUUID(), last_updated_at: datetime('2026-01-01T00:00:00Z')})"
        " SET d.embedding = $embedding, d.embedding_current = $embedding"
        " WITH d, i WHERE i <= $versions"
        " CREATE (d)-[:HAS_VERSION]->(:DealVersion {tenant_id: $tenant, version_id: randomUUID(), version: 1,"
        " deal_opportunity_id: d.opportunity_id, name: d.name, stage: d.stage,"
        " created_at: datetime('2026-01-01T00:00:00Z')})",
        tenant=str(tenant),
        deals=deals,
        versions=versions,
        embedding=[0.25 / n for n in range(1, embedding + 1)] or None,
    )


def complete(run: Run) -> bool:
    """Whether a first sync landed everything."""
    return (run.status, run.deals_read, run.deals_inserted, run.versions_inserted, run.links_inserted) == (
        "ok",
        DEALS,
        DEALS,
        VERSIONS,
        DEALS,
    )


@contextmanager
def stalled(world: World, where: str, statement: str) -> Iterator[Callable[[Backend], bool]]:
    """While it lasts, a reader gets no further than this; yields how to see that a backend's reader waits there."""
    reading = READING if statement == SYNC else QUERY
    with ExitStack() as stack:
        if where == "connecting":
            world.set_uri(stack.enter_context(full_backlog()))
            stack.callback(world.set_uri, world.proxy.uri)
            yield lambda backend: backend.sockets() > 1
            return
        fault = {
            "handshake": lambda: world.proxy.silent(),
            "login": lambda: world.proxy.silent(LOGIN),
            "before the first record": lambda: world.proxy.silent(reading),
            "mid-stream": lambda: world.proxy.silent(reading, DEALS * RECORD_BYTES // 2),
            "slow": lambda: world.proxy.slow(RECORD_BYTES * 2, reading, DEALS * RECORD_BYTES // 2),
        }[where]()
        stack.callback(world.proxy.repaired)
        landing = statement == SYNC and where in ("mid-stream", "slow")
        yield lambda backend: fault.struck.is_set() and (not landing or world.has_landed_a_batch(backend.pid))


def assert_holds_no_reader(backend: Backend, process: bool = False) -> None:
    """No thread, process, spool file or socket to Neo4j: the client's is the one that is left.

    Where a process read, the connection that counted the nodes before is kept.
    """
    assert backend.is_single_threaded()
    assert backend.children() == []
    assert backend.spool_files() == []
    assert backend.sockets() == 1 + process * KEPT_SOCKETS


def assert_holds_nothing(world: World, backend: Backend, process: bool = False) -> None:
    """Nor a lock, nor a file of whatever name."""
    assert_holds_no_reader(backend, process)
    assert world.locks(backend.pid) == []
    assert world.temporary_files() == []


def transactions(graph: Graph) -> list[str]:
    """The transactions in Neo4j that read deals."""
    found = graph.run("SHOW TRANSACTIONS YIELD transactionId, currentQuery, status")
    return [t["transactionId"] for t in found if "ORDER BY" in t["currentQuery"] and t["status"] == "Running"]


def end_transactions(graph: Graph) -> None:
    for transaction in transactions(graph):
        graph.run(f"TERMINATE TRANSACTION '{transaction}'")
