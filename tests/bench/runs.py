"""Flows in: a graph. Flows out: a database that is set up for it, and runs of the sync in backends of their own, each
with its row, its seconds and CPU seconds, its memory and its WAL.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import repeat
from typing import Any
from uuid import UUID

import psycopg
from bench.graph import TENANT, clear
from bench.graph import index as index_graph
from bench.measures import Measure, Run, cpu_of, watched
from environment import database
from environment.servers import Instance
from neo4j import Driver
from psycopg.rows import dict_row

NAME = "deal_sync_bench"
WRITER = "app_writer"
TABLES = ("opportunities", "deal_versions", "interaction_links")
STATE = ("deal_sync.runs", "deal_sync.rejects", "deal_sync.watermarks", "_deal_sync.undated_nodes")
NOBODY = UUID("be7c4000-0000-4000-8000-000000000002")  # a tenant without deals

Connection = psycopg.Connection[Any]


def progress(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def tenants(number: int, first: int = 1) -> list[UUID]:
    """So many tenants besides the one whose deals are measured, and the one that has none."""
    return [UUID(int=NOBODY.int + first + place) for place in range(number)]


@contextmanager
def opened(instance: Instance, driver: Driver) -> Iterator["Bench"]:
    """An empty graph, and a database as a user sets it up; both are removed again."""
    clear(driver)
    database.create(instance, NAME)
    bench = Bench(instance, driver)
    try:
        yield bench
    finally:
        bench.admin.close()
        instance.psql("postgres", "-c", f'DROP DATABASE IF EXISTS "{NAME}" WITH (FORCE)')
        clear(driver)


class Bench:
    """A database and a graph, and what is run on them.

    Runs read a graph that was changed just before, so with an overlap they would read each change again: they are
    measured without one.
    """

    def __init__(self, instance: Instance, driver: Driver) -> None:
        self.instance, self.driver = instance, driver
        self.neo4j: int = instance.facts["neo4j_pid"]
        self.first_call = Measure("the first call of a backend")
        self.admin: Connection = psycopg.connect(instance.dsn(NAME), autocommit=True)
        self.add_tenants([TENANT, NOBODY])

    def add_tenants(self, tenants: Sequence[UUID]) -> None:
        """Adds tenants to the application's table."""
        with self.admin.cursor() as cursor:
            cursor.executemany("INSERT INTO tenants VALUES (%s, 'bench')", [(tenant,) for tenant in tenants])

    def index(self) -> None:
        """Creates the indexes of the graph."""
        index_graph(self.driver, self.admin)

    # Runs

    def sync(self, mode: str = "full", tenant: UUID = TENANT, times: int = 1) -> Run:
        """A run in a backend of its own, or several in one.

        It is measured in a session that has been used: what the first call of a backend takes in addition (Python, the
        driver, a login) is measured separately, with a tenant without deals.
        """
        with self.connected() as connection:
            connection.execute("SET deal_sync.overlap = '0s'")
            self.first_call.seconds.append(self.timed(connection, NOBODY, mode)[1])
            backend = connection.info.backend_pid
            with watched(backend) as memory, cpu_of(self.neo4j, backend) as cpu:
                runs, wal = self.wal_of(lambda: [self.timed(connection, tenant, mode) for _ in range(times)])
        for result, _ in runs:
            if result["status"] != "ok" or result["mode"] != mode:
                sys.exit(f"a sync, {result['mode']}, was {result['status']}: {result['message']}")
        seconds = statistics.median(seconds for _, seconds in runs)
        return Run(runs[-1][0], seconds, cpu.over(times), memory, wal // times)

    def side_by_side(self, tenants: Sequence[UUID]) -> float:
        """First loads of these tenants, each by a backend of its own, all at once: the seconds of the whole."""
        with ExitStack() as stack, ThreadPoolExecutor(len(tenants)) as pool:
            connections = [stack.enter_context(self.connected()) for _ in tenants]
            for connection in connections:
                self.timed(connection, NOBODY, "full")
            began = time.perf_counter()
            runs = list(pool.map(self.timed, connections, tenants, repeat("full")))
            seconds = time.perf_counter() - began
        if any(result["status"] != "ok" for result, _ in runs):
            sys.exit(f"a sync was not ok: {runs}")
        return seconds

    def compare(self, function: str, alike: Callable[[list[tuple[Any, ...]]], bool]) -> float:
        """A comparison of graph and tables, which are `alike`, in a session that has been used."""
        call = f"SELECT * FROM deal_sync.{function}(%s)".encode()
        with self.connected() as connection:
            connection.execute(call, [NOBODY])
            began = time.perf_counter()
            rows = connection.execute(call, [TENANT]).fetchall()
            seconds = time.perf_counter() - began
        if not alike(rows):
            sys.exit(f"{function}() of what was synced found {rows[:3]}")
        return seconds

    @staticmethod
    def timed(connection: Connection, tenant: UUID, mode: str) -> tuple[dict[str, Any], float]:
        """A run in this session: its row and its seconds."""
        began = time.perf_counter()
        with connection.cursor(row_factory=dict_row) as cursor:
            result = cursor.execute("SELECT * FROM sync_deals(%s, %s)", [tenant, mode]).fetchone()
        assert result is not None
        return result, time.perf_counter() - began

    # What surrounds them

    def empty(self) -> None:
        """Empties the application's tables and what the sync knows; nothing from before is left to be written."""
        self.admin.execute(f"TRUNCATE {', '.join(TABLES + STATE)} CASCADE")
        self.admin.execute("CHECKPOINT")

    def empty_tenant(self, tenant: UUID = TENANT) -> None:
        """The same for one tenant, with the others' rows beside it."""
        for name in (*reversed(TABLES), *STATE):
            self.admin.execute(f"DELETE FROM {name} WHERE tenant_id = %s".encode(), [tenant])
        self.vacuum()

    def vacuum(self) -> None:
        """Does what autovacuum would do after a load, whose WAL would be counted for a sync at the same time."""
        for name in TABLES:
            self.admin.execute(f"VACUUM ANALYZE {name}")
        self.admin.execute("CHECKPOINT")

    def wal_of(self, work: Callable[[], Any]) -> tuple[Any, int]:
        """What a piece of work returns, and the bytes of WAL that it wrote."""
        before = self.one("SELECT pg_current_wal_insert_lsn()")
        outcome = work()
        return outcome, int(self.one("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::pg_lsn)", before))

    def rows_written_since(self, transaction: int) -> int:
        """Rows of the application's tables that this transaction or a later one has written."""
        counts = [f"(SELECT count(*) FROM {table} WHERE xmin::text::bigint >= {transaction})" for table in TABLES]
        return int(self.one(f"SELECT {' + '.join(counts)}"))

    def next_transaction(self) -> int:
        return int(self.one("SELECT pg_current_xact_id()::text::bigint % (1::bigint << 32)")) + 1

    def remember(self, name: str) -> None:
        """What the tables hold now, except what differs between two loads of a graph: times and a link's own id."""
        self.admin.execute(f"DROP TABLE IF EXISTS {name}")
        parts = [
            "SELECT 'deal' AS kind, id, to_jsonb(o) - '{created_at,updated_at,extraction_embedding,"
            "extraction_embedding_current}'::text[] AS content, extraction_embedding AS one,"
            " extraction_embedding_current AS two FROM opportunities AS o",
            "SELECT 'version', id, to_jsonb(v), NULL, NULL FROM deal_versions AS v",
            "SELECT 'link', interaction_id, to_jsonb(l) - '{id,created_at}'::text[], NULL, NULL"
            " FROM interaction_links AS l",
        ]
        self.admin.execute(f"CREATE UNLOGGED TABLE {name} AS {' UNION ALL '.join(parts)}")

    def differences(self, one: str, other: str) -> int:
        """Rows that two remembered states do not share."""
        return int(
            self.one(
                f"SELECT count(*) FROM {one} AS a FULL JOIN {other} AS b USING (kind, id) WHERE a.content IS NULL OR"
                " b.content IS NULL OR a.content <> b.content OR a.one IS DISTINCT FROM b.one"
                " OR a.two IS DISTINCT FROM b.two"
            )
        )

    @contextmanager
    def connected(self, user: str = WRITER) -> Iterator[Connection]:
        with psycopg.connect(self.instance.dsn(NAME, user), autocommit=True) as connection:
            yield connection

    def one(self, query: Any, *parameters: Any) -> Any:
        """The value of a query with one, as a superuser."""
        with psycopg.RawCursor(self.admin) as cursor:
            row = cursor.execute(query, parameters).fetchone()
        assert row is not None
        return row[0]
