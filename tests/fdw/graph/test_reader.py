"""Flows in: fdw/neo4j_deals/graph/reader.py, in a backend that reads through a proxy which can fail.
Flows out: that no stall holds a backend, no cut-off read is taken for a whole one, and no exit leaves a trace.
"""

import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from environment.servers import Instance
from support.backend import Backend, Ended, await_true, run, running
from support.database import Connection
from support.graph import Graph
from support.proxied import (
    DEALS,
    KEPT_SOCKETS,
    LOGIN,
    PROCESS,
    QUERY,
    READING,
    RECORD_BYTES,
    SYNC,
    THREAD,
    VERSIONS,
    World,
    assert_holds_no_reader,
    assert_holds_nothing,
    complete,
    end_transactions,
    load,
    read_by_process,
    stalled,
)
from support.server_log import ServerLog
from support.sync import Run, add_tenant, one, sync

SCAN = "SELECT s.opportunity_id FROM deal_sync.scan(NULL::neo4j.deals, %s) AS s"
READING_VERSIONS = b"ORDER BY n.`version_id`"
LOOKING_FOR_DUPLICATES = b"UNWIND nodes"
LOOKING_FOR_THE_NEWEST = b"max(CASE WHEN"


DATABASE_OID: LiteralString = "SELECT oid FROM pg_database WHERE datname = current_database()"


TIMEOUT = 2  # seconds of statement_timeout: a process has begun to read by then
WITHIN = 1.0  # seconds, of the issue


# -- A stalled reader --------------------------------------------------------------------------------------------------


STALLS = ["connecting", "handshake", "login", "before the first record", "mid-stream", "slow"]
IN_QUERY = STALLS[3:]  # a process is started when a thread has connected, and counted the nodes


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


@pytest.mark.parametrize(
    "statement", [SYNC, SCAN, "SELECT * FROM deal_sync.import_schema('neo4j', 'public') WHERE %s IS NOT NULL"]
)
def test_termination_within_a_set_returning_function_frees_no_generator_that_runs(
    world: World, servers: Instance, statement: str
) -> None:
    """Rule 12 of docs/internals/run.md."""
    log = ServerLog(servers.log)
    session = world.session("postgres")
    with stalled(world, "handshake", statement) as is_there:
        assert terminated(world, session, statement, is_there).sqlstate == "57P01"
    assert log.crashes() == []


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
def test_a_cancel_is_reported_as_postgresql_does_wherever_a_statement_waits(
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
    assert any("out of file descriptors while reading the graph" in message for message in said), said
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


# -- A read that is cut off --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [THREAD, PROCESS])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_read_that_is_cut_off_is_a_failed_run_that_writes_nothing(world: World, share: float, process: bool) -> None:
    world.proxy.cut(READING, int(DEALS * RECORD_BYTES * share))
    failed = sync(world.session(process=process), world.tenant)
    assert (failed.status, failed.deals_read, failed.deals_inserted) == ("failed", 0, 0)
    assert world.last_run()[:2] == ("failed", "08006")
    assert world.written() == 0


@pytest.mark.parametrize("at", [b"", LOGIN, QUERY, LOOKING_FOR_DUPLICATES, READING_VERSIONS, LOOKING_FOR_THE_NEWEST])
def test_a_connection_that_breaks_elsewhere_is_a_failed_run_that_writes_nothing(world: World, at: bytes) -> None:
    fault = world.proxy.cut(at)
    assert sync(world.session(), world.tenant).status == "failed"
    assert world.last_run()[:2] == ("failed", "08006")
    assert fault.strikes > 0
    assert world.written() == 0


def test_no_scan_that_is_cut_off_gives_fewer_rows(world: World) -> None:
    session = world.session("postgres")
    whole = world.proxy.repaired(QUERY)
    assert len(run(session, SCAN, world.tenant).rows) == DEALS
    for after in (0, 1, whole.passed // 2, whole.passed - 200, whole.passed - 100, whole.passed - 50, whole.passed - 1):
        fault = world.proxy.cut(QUERY, after)
        ended = run(session, SCAN, world.tenant)
        assert ended.sqlstate == "08006", after
        assert fault.strikes > 0
    world.proxy.repaired()
    assert len(run(session, SCAN, world.tenant).rows) == DEALS


def test_a_transaction_that_neo4j_ends_in_mid_stream_is_a_failed_run_that_writes_nothing(
    world: World, graph: Graph
) -> None:
    session = world.session()
    with stalled(world, "mid-stream", SYNC) as is_there, running(session, SYNC, world.tenant) as future:
        assert await_true(lambda: is_there(Backend(session.info.backend_pid)))
        end_transactions(graph)
        world.proxy.repaired()
        failed = Run(*future.result().rows[0])
    assert failed.status == "failed"
    assert world.written() == 0
    assert complete(sync(session, world.tenant))


@pytest.mark.parametrize(
    "at", [b"", LOGIN, QUERY, LOOKING_FOR_DUPLICATES, READING, READING_VERSIONS, LOOKING_FOR_THE_NEWEST]
)
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
        world.proxy.repaired()
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


# -- Growth ------------------------------------------------------------------------------------------------------------


@dataclass
class Peak:
    """What a run held at the most, in bytes; memory is that of the backend and its process."""

    memory: int = 0
    spool: int = 0
    staging: int = 0


def temporary_table_bytes(folder: Path) -> int:
    """The disk of a database's temporary tables."""
    held = 0
    for file in folder.glob("t*_*"):
        with suppress(FileNotFoundError):
            held += file.stat().st_size
    return held


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
