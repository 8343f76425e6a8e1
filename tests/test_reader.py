"""Flows in: fdw/neo4j_deals/graph/reader.py and connection.py, in a backend that reads through a proxy which can fail.
Flows out: that no stall holds a backend, no cut-off read is taken for a whole one, and no exit leaves a trace.
"""

import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from environment.servers import Instance
from support.backend import Backend, Ended, await_true, run, running
from support.database import Connection, Database
from support.graph import Graph
from support.proxy import Proxy, closed_port, full_backlog
from support.server_log import ServerLog
from support.sync import Run, add_tenant, one, sync

DEALS = 40
VERSIONS = 6
BATCH = 10
RECORD_BYTES = 600  # of a deal in the answer, at the least

SYNC = "SELECT * FROM sync_deals(%s, mode => 'full')"
SCAN = "SELECT s.opportunity_id FROM deal_sync.scan(NULL::neo4j.deals, %s) AS s"
WRITTEN = ("opportunities", "deal_versions", "interaction_links", "deal_sync.runs", "deal_sync.rejects")

# What the driver sends: with the login, with any query, with one of them.
LOGIN = b"credentials"
QUERY = b"MATCH (n:"
READING = b"ORDER BY n.`opportunity_id`"
READING_VERSIONS = b"ORDER BY n.`version_id`"
LOOKING_FOR_DUPLICATES = b"UNWIND nodes"
COUNTING_NOBODYS = b"AS tenant, count"

KEPT_SOCKETS = 2  # of a kept connection: the driver's own and its duplicate

DATABASE_OID: LiteralString = "SELECT oid FROM pg_database WHERE datname = current_database()"

TIMEOUT = 2  # seconds of statement_timeout: a process has begun to read by then
WITHIN = 1.0  # seconds, of the issue


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


@pytest.fixture
def world(database: Database, pg: Connection, graph: Graph, servers: Instance) -> Iterator[World]:
    with Proxy(servers.facts["neo4j_uri"]) as proxy:
        world = World(database, pg, proxy, add_tenant(pg))
        world.set_uri(proxy.uri)
        world.set_option("fetch_size", str(BATCH))
        load(graph, world.tenant, DEALS, VERSIONS)
        yield world


def complete(run: Run) -> bool:
    """Whether a first sync landed everything."""
    return (run.status, run.deals_read, run.deals_inserted, run.versions_inserted, run.links_inserted) == (
        "ok",
        DEALS,
        DEALS,
        VERSIONS,
        DEALS,
    )


# A stalled reader

STALLS = ["connecting", "handshake", "login", "before the first record", "mid-stream", "slow"]
IN_QUERY = STALLS[3:]  # a process is started when a thread has connected, and counted the nodes
THREAD, PROCESS = pytest.param(False, id="thread"), pytest.param(True, id="process")


@contextmanager
def stalled(world: World, where: str, statement: str) -> Iterator[Callable[[Backend], bool]]:
    """While it lasts a reader gets no further than this; yields how to see that a backend's reader stands there."""
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
        stack.callback(world.proxy.mended)
        landing = statement == SYNC and where in ("mid-stream", "slow")
        yield lambda backend: fault.struck.is_set() and (not landing or world.has_landed_a_batch(backend.pid))


def cancelled(world: World, session: Connection, statement: str, is_there: Callable[[Backend], bool]) -> Ended:
    backend = Backend(session.info.backend_pid)
    with running(session, statement, world.tenant) as future:
        assert await_true(lambda: is_there(backend))
        asked = time.monotonic()
        world.pg.execute("SELECT pg_cancel_backend(%s)", [backend.pid])
        ended = future.result()
    assert ended.at - asked < WITHIN
    return ended


def timed_out(world: World, session: Connection, statement: str, is_there: Callable[[Backend], bool]) -> Ended:
    session.execute(f"SET statement_timeout = '{TIMEOUT}s'".encode())
    asked = time.monotonic() + TIMEOUT
    with running(session, statement, world.tenant) as future:
        assert await_true(lambda: is_there(Backend(session.info.backend_pid)), seconds=TIMEOUT)
        ended = future.result()
    session.execute("RESET statement_timeout")
    assert ended.at - asked < WITHIN
    return ended


def terminated(world: World, session: Connection, statement: str, is_there: Callable[[Backend], bool]) -> Ended:
    backend = Backend(session.info.backend_pid)
    with running(session, statement, world.tenant) as future:
        assert await_true(lambda: is_there(backend))
        processes = [backend, *backend.children()]
        asked = time.monotonic()
        world.pg.execute("SELECT pg_terminate_backend(%s)", [backend.pid])
        ended = future.result()
        assert await_true(lambda: not any(process.lives() for process in processes))
    assert time.monotonic() - asked < WITHIN
    return ended


def primary(ended: Ended) -> str | None:
    """The error's primary message."""
    assert isinstance(ended.error, psycopg.Error)
    return ended.error.diag.message_primary


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


@pytest.mark.parametrize(
    ("statement", "process", "where"),
    [
        *(pytest.param(SYNC, False, where, id=f"sync_deals-thread-{where}") for where in STALLS),
        *(pytest.param(SYNC, True, where, id=f"sync_deals-process-{where}") for where in IN_QUERY),
        *(pytest.param(SCAN, False, where, id=f"scan-{where}") for where in STALLS),
    ],
)
def test_cancel_timeout_and_terminate_end_a_stalled_reader_within_a_second_without_a_trace(
    world: World, where: str, statement: str, process: bool
) -> None:
    before = world.rows()
    user = "app_writer" if statement == SYNC else "postgres"
    session = world.session(user, process)
    session.execute("SELECT set_config('app.tenant_id', %s, false)", [str(world.tenant)])
    backend = Backend(session.info.backend_pid)

    with stalled(world, where, statement) as is_there:
        ended = cancelled(world, session, statement, is_there)
    assert (ended.sqlstate, primary(ended)) == ("57014", "canceling statement due to user request")
    assert_holds_nothing(world, backend, process)

    with stalled(world, where, statement) as is_there:
        ended = timed_out(world, session, statement, is_there)
    assert (ended.sqlstate, primary(ended)) == ("57014", "canceling statement due to statement timeout")
    assert_holds_nothing(world, backend, process)

    terminable = world.session(user, process)
    with stalled(world, where, statement) as is_there:
        ended = terminated(world, terminable, statement, is_there)
    assert ended.sqlstate == "57P01"
    assert world.locks(terminable.info.backend_pid) == []
    assert world.temporary_files() == []

    assert world.rows() == before
    assert one(session, "SELECT current_setting('app.tenant_id')") == str(world.tenant)
    ended = run(session, statement, world.tenant)
    assert complete(Run(*ended.rows[0])) if statement == SYNC else len(ended.rows) == DEALS


SLOW_RESOLVER: LiteralString = """DO $$
import socket, time
look_up = socket.getaddrinfo
def slow(host, *rest, **more):
    if host == 'hangs.invalid':
        time.sleep(3)
    return look_up(host, *rest, **more)
socket.getaddrinfo = slow
$$ LANGUAGE plpython3u"""


def test_cancel_ends_a_name_look_up_that_hangs_within_a_second(world: World) -> None:
    """Nothing can interrupt the resolver: its thread ends when it can, and holds nothing of the run until then."""
    session = world.session("postgres")
    backend = Backend(session.info.backend_pid)
    world.set_uri("bolt://hangs.invalid:7687")
    session.execute(SLOW_RESOLVER)
    ended = cancelled(world, session, SYNC, lambda backend: backend.threads() == 2)
    assert ended.sqlstate == "57014"
    assert backend.spool_files() == []
    assert world.locks(backend.pid) == []

    world.set_uri(world.proxy.uri)
    assert complete(sync(session, world.tenant))
    session.execute("DO $$ import time; time.sleep(3) $$ LANGUAGE plpython3u")
    assert backend.is_single_threaded()
    assert backend.sockets() == 1 + KEPT_SOCKETS


@pytest.mark.german
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM _deal_sync.compare(%s, false, true)",
        "SELECT * FROM deal_sync.doctor() WHERE %s IS NOT NULL",
        "SELECT deal_sync.accept_graph() WHERE %s IS NOT NULL",
        "CALL deal_sync.backfill(%s)",
        "CALL deal_sync.sync_all(tenant => %s)",
        "SELECT * FROM deal_sync.import_schema('neo4j', 'public') WHERE %s IS NOT NULL",
    ],
)
def test_a_cancel_is_told_in_postgresqls_own_words_wherever_a_statement_waits(
    world: World, statement: str, language: str
) -> None:
    words = {
        "C": "canceling statement due to user request",
        "de_DE.UTF-8": "storniere Anfrage wegen Benutzeraufforderung",
    }
    session = world.session("postgres")
    with stalled(world, "handshake", statement) as is_there:
        ended = cancelled(world, session, statement, is_there)
    assert isinstance(ended.error, psycopg.Error)
    said = ended.error.diag
    assert (ended.sqlstate, said.message_primary) == ("57014", words[language])
    assert (said.message_detail, said.message_hint) == (None, None)


@pytest.mark.parametrize("process", [THREAD, PROCESS])
def test_a_cancel_while_a_batch_is_written_ends_the_reader_too(world: World, process: bool) -> None:
    session = world.session(process=process)
    backend = Backend(session.info.backend_pid)
    world.pg.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(30); RETURN new; END $$"
    )
    world.pg.execute("CREATE TRIGGER wait BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION wait()")
    ended = cancelled(world, session, SYNC, lambda backend: world.has_landed_a_batch(backend.pid))
    assert ended.sqlstate == "57014"
    assert_holds_nothing(world, backend, process)


@pytest.mark.parametrize("process", [THREAD, PROCESS])
def test_a_run_that_ends_between_two_batches_ends_the_reader_too(world: World, process: bool) -> None:
    session = world.session(process=process)
    backend = Backend(session.info.backend_pid)
    session.execute("SET deal_sync.max_rejects = 3")
    world.pg.execute("ALTER TABLE opportunities ADD CHECK (opportunity_name IS NULL)")
    failed = sync(session, world.tenant)
    assert failed.status == "failed"
    assert_holds_nothing(world, backend, process)


def test_a_cancelled_run_can_be_rolled_back_to_a_savepoint_and_run_again_in_the_same_transaction(world: World) -> None:
    session = world.session()
    with session.transaction():
        with (
            stalled(world, "mid-stream", SYNC) as is_there,
            suppress(psycopg.errors.QueryCanceled),
            session.transaction(),
        ):
            ended = cancelled(world, session, SYNC, is_there)
            raise ended.error or AssertionError("it was not cancelled")
        assert_holds_no_reader(Backend(session.info.backend_pid))
        assert one(session, "SELECT coalesce(current_setting('app.tenant_id', true), '')") == ""
        assert complete(sync(session, world.tenant))
    assert world.written() == DEALS + VERSIONS + DEALS


def test_twenty_cancelled_runs_in_one_session_leave_no_descriptor_and_no_tenant_behind(world: World) -> None:
    session = world.session()
    backend = Backend(session.info.backend_pid)
    descriptors = []
    for number in range(20):
        read_by_process(session, number % 4 == 2)
        with stalled(world, "mid-stream", SYNC) as is_there:
            assert cancelled(world, session, SYNC, is_there).sqlstate == "57014"
        descriptors.append(len(backend.foreign_descriptors()))
    assert descriptors[-1] == descriptors[0]
    assert one(session, "SELECT coalesce(current_setting('app.tenant_id', true), '')") == ""
    assert complete(sync(session, world.tenant))


def test_runs_whose_kept_connection_was_cut_leave_no_descriptor(world: World) -> None:
    session = world.session()
    backend = Backend(session.info.backend_pid)
    descriptors = []
    for _ in range(5):
        assert sync(session, world.tenant).status == "ok"
        descriptors.append(len(backend.foreign_descriptors()))
        world.proxy.cut_all()
    assert descriptors[-1] == descriptors[0]


def limit_files(session: Connection, limit: int) -> None:
    """From now on the backend opens no file whose descriptor would be `limit` or more."""
    session.execute(
        "DO LANGUAGE plpython3u $$ import resource as r;"  # a soft limit, which can be raised again
        f" r.setrlimit(r.RLIMIT_NOFILE, ({limit}, r.getrlimit(r.RLIMIT_NOFILE)[1])) $$".encode()
    )


@pytest.mark.parametrize("process", [THREAD, PROCESS])
def test_a_run_without_a_file_descriptor_says_so_and_the_next_one_is_whole(world: World, process: bool) -> None:
    """At each place where none may be left. PostgreSQL says by itself that it has none."""
    session = world.session("postgres", process)
    sync(session, world.tenant, dry_run=True)
    backend = Backend(session.info.backend_pid)
    first = backend.free_descriptor()
    said = []
    for left in range(7):
        world.proxy.cut_all()
        limit_files(session, first + left)
        ended = run(session, SYNC.replace("'full'", "'full', dry_run => true"), world.tenant)
        limit_files(session, 1024)
        said.append(str(ended.error or ended.rows[0][-1]))
        if ended.error is not None:
            assert ended.sqlstate == "53000", said
    assert any("no file descriptor is left to read the graph" in message for message in said), said
    assert not [message for message in said if "Errno" in message], said
    assert complete(sync(session, world.tenant))


@pytest.mark.parametrize("end", ["cancel", "terminate"])
def test_twenty_runs_that_end_at_random_moments_leave_no_trace(world: World, servers: Instance, end: str) -> None:
    dry_run = "SELECT * FROM sync_deals(%s, dry_run => true)"
    log = ServerLog(servers.log)
    before = world.rows()
    session = world.session()
    read_by_process(session)
    lasts = [seconds(session, dry_run, world.tenant) for _ in range(2)]  # a session's first run is the slower one
    met, processes = set(), set[Backend]()
    for number in range(20):
        if end == "terminate":
            session = world.session()
        read_by_process(session, number % 2 == 1)
        backend = Backend(session.info.backend_pid)
        with running(session, dry_run, world.tenant) as future:
            time.sleep(random.uniform(0, lasts[end == "cancel"]))
            processes.update(backend.children())
            world.pg.execute(f"SELECT pg_{end}_backend(%s)", [backend.pid])
            ended = future.result()
        assert ended.sqlstate in (None, "57014", "57P01"), ended.error
        met.add(ended.sqlstate)
        if end == "terminate":
            processes.add(backend)
        elif ended.sqlstate:
            assert backend.is_single_threaded()
            assert backend.children() == []
            assert backend.spool_files() == []
            assert backend.sockets() in (1, 1 + KEPT_SOCKETS)  # a cancel between two reads spares the connection
    assert met & {"57014", "57P01"}
    session.close()
    assert await_true(lambda: not any(process.lives() for process in processes))
    orphans: LiteralString = "SELECT * FROM pg_locks WHERE pid NOT IN (SELECT pid FROM pg_stat_activity)"
    assert await_true(lambda: world.pg.execute(orphans).fetchall() == [])
    assert world.temporary_files() == []
    assert log.crashes() == []
    assert world.rows() == before
    assert complete(sync(world.session(process=True), world.tenant))


def test_a_process_reads_for_a_tenant_with_any_number_of_barred_deals(world: World) -> None:
    """Each is named to it: 20,000 are some 800 kB, six times what one message of a socket takes."""
    bars: LiteralString = (
        "INSERT INTO deal_sync.barred (tenant_id, graph_id) SELECT %s, gen_random_uuid() FROM generate_series(1, 20000)"
    )
    world.pg.execute(bars, [world.tenant])
    session = world.session(process=True)
    assert complete(sync(session, world.tenant))
    assert_holds_no_reader(Backend(session.info.backend_pid), process=True)


def seconds(session: Connection, statement: str, tenant: uuid.UUID) -> float:
    began = time.monotonic()
    ended = run(session, statement, tenant)
    assert ended.error is None
    return ended.at - began


# A read that is cut off


@pytest.mark.parametrize("process", [THREAD, PROCESS])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_read_that_is_cut_off_is_a_failed_run_that_writes_nothing(world: World, share: float, process: bool) -> None:
    world.proxy.cut(READING, int(DEALS * RECORD_BYTES * share))
    failed = sync(world.session(process=process), world.tenant)
    assert (failed.status, failed.deals_read, failed.deals_inserted) == ("failed", 0, 0)
    assert world.last_run()[:2] == ("failed", "08006")
    assert world.written() == 0


@pytest.mark.parametrize("at", [b"", LOGIN, QUERY, LOOKING_FOR_DUPLICATES, READING_VERSIONS, COUNTING_NOBODYS])
def test_a_connection_that_breaks_elsewhere_is_a_failed_run_that_writes_nothing(world: World, at: bytes) -> None:
    fault = world.proxy.cut(at)
    assert sync(world.session(), world.tenant).status == "failed"
    assert world.last_run()[:2] == ("failed", "08006")
    assert fault.strikes > 0
    assert world.written() == 0


def test_no_scan_that_is_cut_off_gives_fewer_rows(world: World) -> None:
    session = world.session("postgres")
    whole = world.proxy.mended(QUERY)
    assert len(run(session, SCAN, world.tenant).rows) == DEALS
    for after in (0, 1, whole.passed // 2, whole.passed - 200, whole.passed - 100, whole.passed - 50, whole.passed - 1):
        fault = world.proxy.cut(QUERY, after)
        ended = run(session, SCAN, world.tenant)
        assert ended.sqlstate == "08006", after
        assert fault.strikes > 0
    world.proxy.mended()
    assert len(run(session, SCAN, world.tenant).rows) == DEALS


def test_a_transaction_that_neo4j_ends_in_mid_stream_is_a_failed_run_that_writes_nothing(
    world: World, graph: Graph
) -> None:
    session = world.session()
    with stalled(world, "mid-stream", SYNC) as is_there, running(session, SYNC, world.tenant) as future:
        assert await_true(lambda: is_there(Backend(session.info.backend_pid)))
        end_transactions(graph)
        world.proxy.mended()
        failed = Run(*future.result().rows[0])
    assert failed.status == "failed"
    assert world.written() == 0
    assert complete(sync(session, world.tenant))


@pytest.mark.parametrize("at", [b"", LOGIN, QUERY, LOOKING_FOR_DUPLICATES, READING, READING_VERSIONS, COUNTING_NOBODYS])
def test_a_connection_that_breaks_once_before_the_first_batch_is_made_anew(world: World, at: bytes) -> None:
    fault = world.proxy.cut(at, times=1)
    assert complete(sync(world.session(), world.tenant))
    assert fault.strikes == 1


@pytest.mark.parametrize("at", [READING, READING_VERSIONS])
def test_a_process_connects_anew_where_its_connection_breaks_once(world: World, at: bytes) -> None:
    fault = world.proxy.cut(at, times=1)
    assert complete(sync(world.session(process=True), world.tenant))
    assert fault.strikes == 1


def test_a_process_that_is_killed_is_a_failed_run_that_writes_nothing(world: World) -> None:
    session = world.session(process=True)
    backend = Backend(session.info.backend_pid)
    with stalled(world, "mid-stream", SYNC) as is_there, running(session, SYNC, world.tenant) as future:
        assert await_true(lambda: is_there(backend))
        (process,) = backend.children()
        os.kill(process.pid, signal.SIGKILL)
        failed = Run(*future.result().rows[0])
    assert failed.status == "failed"
    assert world.last_run()[1] == "08006"
    assert world.written() == 0
    assert complete(sync(session, world.tenant))


def test_a_process_shows_no_password_in_its_arguments_or_environment(world: World, servers: Instance) -> None:
    session = world.session(process=True)
    backend = Backend(session.info.backend_pid)
    with stalled(world, "mid-stream", SYNC) as is_there, running(session, SYNC, world.tenant) as future:
        assert await_true(lambda: is_there(backend))
        (process,) = backend.children()
        shown = [Path(f"/proc/{process.pid}/{file}").read_bytes() for file in ("cmdline", "environ")]
        world.proxy.mended()
        assert complete(Run(*future.result().rows[0]))
    assert servers.facts["neo4j_password"].encode() not in b"".join(shown)


@pytest.mark.parametrize("process", [THREAD, PROCESS])
def test_a_connection_that_breaks_once_after_the_first_batch_is_not_read_again(world: World, process: bool) -> None:
    session = world.session(process=process)
    fault = world.proxy.cut(READING, DEALS * RECORD_BYTES // 2, times=1)
    assert sync(session, world.tenant).status == "failed"
    assert world.last_run()[1] == "08006"
    assert world.written() == 0
    assert fault.strikes == 1
    assert complete(sync(session, world.tenant))


# The kept driver


def test_two_runs_in_one_session_use_one_connection(world: World) -> None:
    session = world.session()
    assert complete(sync(session, world.tenant))
    assert sync(session, world.tenant).deals_unchanged == DEALS
    assert world.proxy.connections == 1


def test_a_changed_uri_holds_from_the_next_statement_on_and_the_old_connection_is_closed(
    world: World, servers: Instance
) -> None:
    session = world.session()
    backend = Backend(session.info.backend_pid)
    assert complete(sync(session, world.tenant))
    sockets = backend.sockets()
    with Proxy(servers.facts["neo4j_uri"]) as other:
        world.set_uri(other.uri)
        assert sync(session, world.tenant).status == "ok"
        assert (world.proxy.connections, other.connections) == (1, 1)
    assert backend.sockets() == sockets


def test_a_wrong_password_is_a_failed_run_that_does_not_show_it_and_harms_no_later_run(
    world: World, servers: Instance
) -> None:
    session = world.session()
    assert complete(sync(session, world.tenant))
    logged = servers.log.stat().st_size
    world.set_password("not-the-password")
    failed = sync(session, world.tenant)
    assert failed.status == "failed"
    assert failed.message is not None
    assert "refused the login" in failed.message
    assert world.last_run()[1] == "28P01"
    assert "not-the-password" not in str(world.pg.execute("SELECT r::text FROM deal_sync.runs AS r").fetchall())
    raised = run(session, "SELECT * FROM sync_deals(%s, strict => true)", world.tenant)
    assert raised.sqlstate == "28P01"
    assert "not-the-password" not in str(raised.error)
    with servers.log.open("rb") as log:
        log.seek(logged)
        assert b"not-the-password" not in log.read()

    world.set_password(servers.facts["neo4j_password"])
    assert sync(session, world.tenant).deals_unchanged == DEALS


def test_an_unknown_host_is_a_failed_run_that_names_it(world: World) -> None:
    world.set_uri("bolt://nobody.invalid:7687")
    failed = sync(world.session(), world.tenant)
    assert failed.status == "failed"
    assert world.last_run()[1] == "08006"
    assert "nobody.invalid" in str(failed.message)


def test_a_closed_port_is_a_failed_run_and_the_next_one_finds_the_server_again(world: World) -> None:
    session = world.session()
    backend = Backend(session.info.backend_pid)
    world.set_uri(closed_port())
    failed = sync(session, world.tenant)
    assert failed.status == "failed"
    assert world.last_run()[1] == "08006"
    assert_holds_nothing(world, backend)
    world.set_uri(world.proxy.uri)
    assert complete(sync(session, world.tenant))


@pytest.mark.parametrize("where", ["connecting", "handshake", "login"])
def test_connect_timeout_ends_an_attempt_to_connect(world: World, where: str) -> None:
    session = world.session()
    world.set_option("connect_timeout", "0.3")
    session.execute("SET statement_timeout = '5s'")
    with stalled(world, where, SYNC):
        failed = sync(session, world.tenant)
    assert failed.status == "failed"
    assert world.last_run()[1] == "08006"


@pytest.mark.parametrize("process", [THREAD, PROCESS])
def test_what_postgresql_takes_for_the_last_batch_is_no_wait_for_neo4j(world: World, process: bool) -> None:
    """The reader commits meanwhile, and both wake together."""
    session = world.session(process=process)
    session.execute(f"SET deal_sync.batch_rows = {DEALS}".encode())
    world.set_option("connect_timeout", "0.5")
    world.pg.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.8); RETURN NULL; END $$"
    )
    world.pg.execute("CREATE TRIGGER wait AFTER INSERT ON opportunities EXECUTE FUNCTION wait()")
    assert [sync(session, world.tenant, dry_run=True).deals_inserted for _ in range(8)] == [DEALS] * 8


@pytest.mark.parametrize("process", [THREAD, PROCESS])
@pytest.mark.parametrize("after", [0, DEALS * RECORD_BYTES // 2], ids=["before the first record", "mid-stream"])
def test_query_timeout_ends_a_wait_for_a_network_that_has_fallen_silent(
    world: World, after: int, process: bool
) -> None:
    session = world.session(process=process)
    world.set_option("connect_timeout", "1")
    world.set_option("query_timeout", "1")
    session.execute("SET statement_timeout = '15s'")
    world.proxy.silent(READING, after)
    began = time.monotonic()
    failed = sync(session, world.tenant)
    assert (failed.status, world.last_run()[1]) == ("failed", "08006")
    assert "did not answer within query_timeout (1 s)" in str(failed.message)
    assert time.monotonic() - began < 5


def test_query_timeout_ends_a_query_in_neo4j(world: World, graph: Graph) -> None:
    session = world.session()
    world.set_option("query_timeout", "0.5")
    with stalled(world, "mid-stream", SYNC) as is_there, running(session, SYNC, world.tenant) as future:
        assert await_true(lambda: is_there(Backend(session.info.backend_pid)))
        assert await_true(lambda: not transactions(graph))
        world.proxy.mended()
        failed = Run(*future.result().rows[0])
    assert failed.status == "failed"
    assert "TransactionTimedOut" in str(failed.message)
    assert world.written() == 0


def temporary_table_bytes(folder: Path) -> int:
    """The disk of a database's temporary tables."""
    held = 0
    for file in folder.glob("t*_*"):
        with suppress(FileNotFoundError):
            held += file.stat().st_size
    return held


def transactions(graph: Graph) -> list[str]:
    """The transactions in Neo4j that read deals."""
    found = graph.run("SHOW TRANSACTIONS YIELD transactionId, currentQuery, status")
    return [t["transactionId"] for t in found if "ORDER BY" in t["currentQuery"] and t["status"] == "Running"]


def end_transactions(graph: Graph) -> None:
    for transaction in transactions(graph):
        graph.run(f"TERMINATE TRANSACTION '{transaction}'")


# Growth


@dataclass
class Peak:
    """What a run held at the most, in bytes; memory is that of the backend and its process."""

    memory: int = 0
    spool: int = 0
    staging: int = 0


def peak_of_sync(world: World, tenant: uuid.UUID, process: bool) -> Peak:
    session = world.session(process=process)
    session.execute("SET deal_sync.batch_rows = 100")
    backend = Backend(session.info.backend_pid)
    folder = world.database.instance.data / "base" / str(one(world.pg, DATABASE_OID))
    peak = Peak()
    with running(session, SYNC, tenant) as future:
        while not future.done():
            processes = [backend, *backend.children()]
            peak.memory = max(peak.memory, sum(process.anonymous_memory() for process in processes))
            peak.spool = max(peak.spool, backend.spool_bytes())
            peak.staging = max(peak.staging, temporary_table_bytes(folder))
            time.sleep(0.002)
    assert future.result().error is None
    assert future.result().rows[0][3] == "ok"
    return peak


def test_memory_spool_and_staging_stay_flat_while_the_tenant_grows(world: World, graph: Graph) -> None:
    world.pg.execute("ALTER SERVER neo4j OPTIONS (DROP fetch_size)")
    small, large = add_tenant(world.pg), add_tenant(world.pg)
    load(graph, small, 1000, embedding=1536)
    load(graph, large, 2000, embedding=1536)
    batch = 100 * 2 * 4 * 1536  # bytes of embeddings in a batch of 100 rows
    for process in (False, True):
        of_small, of_large = (peak_of_sync(world, tenant, process) for tenant in (small, large))
        assert of_large.memory < 1.1 * of_small.memory + 4 * 2**20
        assert of_large.spool <= 5 * batch
        assert batch <= of_large.staging <= 3 * batch
        assert process or batch <= of_large.spool  # what a process has handed over is in flight, in no table
