"""Flows in: backends that wait for a silent Neo4j, and whose client is gone. Flows out: that each ends."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from conftest import MULTICORN_ABSENT
from environment.machine import BIN
from environment.servers import Instance
from support.backend import Backend, await_true
from support.database import Database
from support.graph import Graph
from support.proxy import Proxy
from support.sync import one

READING = b"RETURN elementId(n)"
THREAD, PROCESS, MULTICORN = (
    "SET deal_sync.process_from = 1000000; SELECT status FROM sync_deals('{tenant}', mode => 'full')",
    "SET deal_sync.process_from = 1; SELECT status FROM sync_deals('{tenant}', mode => 'full')",
    "SELECT name FROM neo4j.deals",
)
WAITS = {"thread": THREAD, "process": PROCESS} | ({} if MULTICORN_ABSENT else {"Multicorn": MULTICORN})


@contextmanager
def silent(target: str) -> Iterator[Proxy]:
    """A proxy that lets no node through."""
    with Proxy(target) as proxy:
        proxy.silent(READING)
        yield proxy


def a_deal(graph: Graph) -> str:
    tenant = str(uuid.uuid4())
    graph.run("CREATE (:Deal {tenant_id: $tenant, opportunity_id: randomUUID(), name: 'a deal'})", tenant=tenant)
    return tenant


def waits(backend: Backend) -> bool:
    return backend.threads() > 1 or backend.children() != []


@pytest.mark.parametrize("kind", WAITS)
def test_a_wait_ends_without_its_client(
    servers: Instance, database: Database, pg: psycopg.Connection[Any], graph: Graph, kind: str
) -> None:
    tenant = a_deal(graph)
    pg.execute("INSERT INTO tenants (id, name) VALUES (%s, 'a tenant')", [tenant])
    with silent(servers.facts["neo4j_uri"]) as proxy:
        pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{proxy.uri}')".encode())
        statement = f"SET client_connection_check_interval = '200ms'; {WAITS[kind]}".format(tenant=tenant)
        with subprocess.Popen([BIN / "psql", "-X", "-d", database.dsn(), "-c", statement]) as client:
            try:
                assert await_true(proxy.fault.struck.is_set)
                pid = one(pg, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SET client_connection%%'")
                assert waits(Backend(pid))
            finally:
                client.kill()
        assert await_true(lambda: not Backend(pid).lives(), seconds=5)
