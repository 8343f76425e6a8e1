"""Flows in: backends that wait for a silent Neo4j, and whose postmaster or client is gone.
Flows out: that each ends, in every kind of wait; and the server can be started again.
"""

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from conftest import MULTICORN_ABSENT
from environment import database as environment_database
from environment.machine import BIN
from environment.servers import Instance, claimed
from support.backend import Backend, await_true, running
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
ORPHANED = "orphaned"


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


def test_the_server_starts_again_after_its_postmaster_was_killed_while_runs_wait(
    servers: Instance, graph: Graph
) -> None:
    tenants = [a_deal(graph) for _ in WAITS]
    with claimed("test", neo4j=False) as own, silent(servers.facts["neo4j_uri"]) as proxy, ExitStack() as stack:
        environment_database.create(own, ORPHANED)
        dsn = own.dsn(ORPHANED)
        with psycopg.connect(dsn, autocommit=True) as pg:
            pg.execute("INSERT INTO tenants (id, name) SELECT unnest(%s::uuid[]), 'a tenant'", [tenants])
            password = servers.facts["neo4j_password"]
            pg.execute(
                f"ALTER SERVER neo4j OPTIONS (SET uri '{proxy.uri}');"
                f" ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (SET password '{password}')".encode()
            )
        backends, ends = [], []
        for statement, tenant in zip(WAITS.values(), tenants, strict=True):
            session: psycopg.Connection[Any] = stack.enter_context(psycopg.connect(dsn, autocommit=True))
            setting, _, last = statement.rpartition("; ")
            if setting:
                session.execute(setting.encode())
            backend = Backend(session.info.backend_pid)
            ends.append(stack.enter_context(running(session, last.format(tenant=tenant))))
            stack.callback(proxy.repaired)  # else a failed test would wait for ever
            assert await_true(lambda backend=backend: waits(backend))
            backends.append(backend)
        assert await_true(lambda: proxy.fault.struck.is_set())
        everybody = backends + [child for backend in backends for child in backend.children()]

        postmaster = int((own.data / "postmaster.pid").read_text().split(maxsplit=1)[0])
        os.kill(postmaster, signal.SIGKILL)
        ended = await_true(lambda: not any(backend.lives() for backend in everybody), seconds=5)
        left = [backend for backend in everybody if backend.lives()]
        for backend in left:  # else the server's next start would meet them
            os.kill(backend.pid, signal.SIGKILL)
        assert ended, left
        assert all(end.result().error is not None for end in ends)

        own.start(neo4j=False)
        with psycopg.connect(dsn) as pg:
            assert one(pg, "SELECT count(*) FROM opportunities") == 0


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
