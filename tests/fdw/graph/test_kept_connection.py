"""Flows in: fdw/neo4j_deals/graph/connection.py, in a backend that reads again and again through a proxy which can
fail. Flows out: that a kept connection is used while it is good, replaced when it is not, and waited for no longer than
promised.
"""

import time

import pytest
from environment.servers import Instance
from support.backend import Backend, await_true, run, running
from support.graph import Graph
from support.proxied import (
    DEALS,
    PROCESS,
    READING,
    RECORD_BYTES,
    SYNC,
    THREAD,
    World,
    assert_holds_nothing,
    complete,
    stalled,
    transactions,
)
from support.proxy import Proxy, closed_port
from support.sync import Run, sync


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
    assert "rejected the login" in failed.message
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
        world.proxy.repaired()
        failed = Run(*future.result().rows[0])
    assert failed.status == "failed"
    assert "TransactionTimedOut" in str(failed.message)
    assert world.written() == 0
