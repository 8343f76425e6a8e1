"""Flows in: graphs of awkward deals, backends that are killed. Flows out: what a full run leaves, batch by batch."""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from random import Random
from typing import Any, LiteralString

import psycopg
import pytest
from environment import database as environment_database
from environment.servers import Instance, claimed
from psycopg import errors
from support.backend import await_true, running
from support.database import Connection, Database, new_database
from support.graph import Graph
from support.histories import History
from support.sync import add_deal, add_tenant, add_version, one, sync

SEED = 7
BACKFILL = "CALL deal_sync.backfill(%s, %s)"
STATE: dict[str, LiteralString] = {
    "opportunities": "SELECT to_jsonb(t) - 'created_at' - 'updated_at' FROM opportunities AS t"
    " WHERE t.tenant_id = %s ORDER BY t.id",
    "versions": "SELECT to_jsonb(t) - 'created_at' FROM deal_versions AS t WHERE t.tenant_id = %s ORDER BY t.id",
    "links": "SELECT interaction_id, entity_id FROM interaction_links WHERE tenant_id = %s ORDER BY 1, 2",
    "rejects": "SELECT kind, level, graph_id, element_id, column_name, sqlstate, message, value"
    " FROM deal_sync.rejects WHERE tenant_id = %s ORDER BY 1, 4, 5",
}


@pytest.fixture
def tenant(pg: Connection, graph: Graph) -> uuid.UUID:
    return add_tenant(pg)


def backfill(connection: Connection, tenant: uuid.UUID, batch_size: int) -> None:
    connection.execute(BACKFILL.encode(), [tenant, batch_size])


def numbered(number: int) -> str:
    """An opportunity_id; they come in the order of their numbers."""
    return f"{number:08d}-0000-4000-8000-00000000000a"


def state(pg: Connection, tenant: uuid.UUID) -> dict[str, list[Any]]:
    """Everything that a run writes for a tenant, but the times and numbers of runs."""
    return {name: pg.execute(query, [tenant]).fetchall() for name, query in STATE.items()}


def forget_all(pg: Connection) -> None:
    """As if nothing had ever been synced."""
    pg.execute(
        "TRUNCATE opportunities, deal_versions, interaction_links,"
        " deal_sync.rejects, deal_sync.watermarks, deal_sync.runs CASCADE"
    )


def last_run(pg: Connection) -> tuple[Any, ...]:
    row = pg.execute(
        "SELECT mode, status, deals_read, deals_inserted, versions_inserted, rows_rejected, values_rejected, message"
        " FROM deal_sync.runs ORDER BY started_at DESC LIMIT 1"
    ).fetchone()
    assert row is not None
    return row


def make_awkward(graph: Graph, tenant: uuid.UUID) -> None:
    """Nodes that share ids, have none or one of another type, and versions of nobody."""
    for number in range(6):
        add_deal(graph, tenant, opportunity_id=numbered(number), confidence="high" if number == 4 else 0.5)
    for number in (1, 2, 3):  # a twin behind each border of pages of one, two and three
        add_deal(graph, tenant, opportunity_id=numbered(number), name="twin")
    add_deal(graph, tenant, opportunity_id=numbered(5).upper(), name="shouted twin")
    for key in ("OPP-1", "", "a\0b", 7, 1.5, True, [numbered(0)], None):
        graph.run(
            "CREATE (d:Deal) SET d = $properties",
            properties={"tenant_id": str(tenant), "opportunity_id": key, "name": "x"},
        )
    for number in range(6):
        link = str(uuid.uuid4())
        deal = uuid.UUID(numbered(number))
        add_version(graph, tenant, deal, version_id=numbered(100 + number), change_source_interaction_id=link)
        add_version(graph, tenant, deal, version_id=numbered(200 - number), version=number % 2 + 1)
    shared = str(uuid.uuid4())  # one id in two deals: what goes first by its id yields to an older one by its number
    add_version(graph, tenant, uuid.UUID(numbered(5)), version=9)
    add_version(graph, tenant, uuid.UUID(numbered(5)), version_id=shared, version=9)
    add_version(graph, tenant, uuid.UUID(numbered(0)), version_id=shared, version=9)
    add_version(graph, tenant, uuid.UUID(numbered(0)), version=9)
    for orphan in (str(uuid.uuid4()), "OPP-1", "a\0b", 7, None):  # orphans
        graph.run(
            "CREATE (v:DealVersion) SET v = $properties",
            properties={
                "tenant_id": str(tenant),
                "version_id": str(uuid.uuid4()),
                "deal_opportunity_id": orphan,
                "version": 1,
                "name": "x",
                "created_at": "2026-01-01T00:00:00Z",
            },
        )


# What it leaves


@pytest.mark.parametrize("batch_size", [1, 2, 3, 1000])
def test_it_leaves_the_rows_and_rejects_of_a_full_run(
    pg: Connection, graph: Graph, tenant: uuid.UUID, batch_size: int
) -> None:
    make_awkward(graph, tenant)
    run = sync(pg, tenant)
    expected = state(pg, tenant)
    assert min(map(len, expected.values())) > 4
    forget_all(pg)
    backfill(pg, tenant, batch_size)
    found = state(pg, tenant)
    for name in STATE:
        assert found[name] == expected[name], name
    assert one(pg, "SELECT count(*) FROM deal_sync.backfills") == 0
    assert one(pg, "SELECT count(*) FROM deal_sync.runs") == 1
    mode, status, _, *counts, message = last_run(pg)
    assert (mode, status, message) == ("backfill", "partial", run.message)
    assert counts == [run.deals_inserted, run.versions_inserted, run.rows_rejected, run.values_rejected]


def test_it_leaves_that_of_random_graphs(pg: Connection, graph: Graph) -> None:
    for number in range(4):
        random = Random(SEED * 1_000 + number)
        history = History(graph, add_tenant(pg), random)
        history.begin()
        for _ in range(25):
            history.step()
        history.end()
        sync(pg, history.tenant)
        expected = state(pg, history.tenant)
        forget_all(pg)
        backfill(pg, history.tenant, random.choice((1, 2, 3)))
        assert state(pg, history.tenant) == expected, history.told
        graph.clear()


def test_rejects_leave_whose_cause_has_gone_and_the_others_stay(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    fixed, gone = add_deal(graph, tenant, confidence="high"), add_deal(graph, tenant, confidence="low")
    add_deal(graph, tenant, confidence="none")
    sync(pg, tenant)
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.confidence = 0.5", id=str(fixed))
    graph.run("MATCH (d:Deal {opportunity_id: $id}) DETACH DELETE d", id=str(gone))
    backfill(pg, tenant, 1)
    assert pg.execute("SELECT value, times_seen FROM deal_sync.rejects").fetchall() == [("none", 2)]
    assert last_run(pg)[5:7] == (0, 1)


def test_what_is_barred_does_not_land(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    barred, other = add_deal(graph, tenant), add_deal(graph, tenant)
    for deal in (barred, other):
        add_version(graph, tenant, deal, change_source_interaction_id=str(uuid.uuid4()))
    pg.execute("INSERT INTO deal_sync.barred (tenant_id, graph_id) VALUES (%s, %s)", [tenant, barred])
    backfill(pg, tenant, 1)
    assert pg.execute("SELECT id FROM opportunities").fetchall() == [(other,)]
    assert pg.execute("SELECT opportunity_id FROM deal_versions").fetchall() == [(other,)]
    assert pg.execute("SELECT entity_id FROM interaction_links").fetchall() == [(other,)]


def test_a_writer_under_row_level_security_may_call_it(
    pg: Connection, writer: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    backfill(writer, tenant, 1)
    assert last_run(pg)[:5] == ("backfill", "ok", 1, 1, 1)
    assert one(writer, "SELECT current_setting('search_path')") == one(pg, "SELECT current_setting('search_path')")


# The watermark


def test_the_watermark_is_of_its_beginning_and_comes_at_its_end(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for number in (1, 2):
        add_deal(graph, tenant, opportunity_id=numbered(number), name=f"stop {number}")
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime() - duration('P2D')")
    add_stops(pg)
    session = patient(database)
    session.execute("SET deal_sync.overlap = '0s'")
    [before] = graph.run("RETURN datetime.realtime() AS clock")
    holder = stop_at(database, 2)
    with running(session, BACKFILL, tenant, 1), holder:
        assert await_true(lambda: waits(pg, session.info.backend_pid))
        assert one(pg, "SELECT count(*) FROM deal_sync.watermarks") == 0
        assert one(pg, "SELECT count(*) FROM opportunities") == 1
        [meanwhile] = graph.run("RETURN datetime.realtime() AS clock")
        missed = add_deal(graph, tenant, opportunity_id=numbered(0))  # the batches have passed it
        graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.name = 'new'", id=numbered(1))
    watermark = one(pg, "SELECT watermark FROM deal_sync.watermarks WHERE tenant_id = %s", tenant)
    assert before["clock"].to_native() <= watermark <= meanwhile["clock"].to_native()
    assert one(pg, "SELECT watermark FROM deal_sync.runs") == watermark
    run = sync(pg, tenant, mode="incremental")
    assert (run.mode, run.deals_inserted) == ("incremental", 1)
    assert one(pg, "SELECT count(*) FROM opportunities WHERE id = %s", missed) == 1


def test_a_run_in_between_keeps_its_later_watermark(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for number in (1, 2):
        add_deal(graph, tenant, opportunity_id=numbered(number), name=f"stop {number}")
    broken_at_second(pg)
    with pytest.raises(psycopg.Error):
        backfill(pg, tenant, 1)
    pg.execute("DROP TRIGGER break ON opportunities")
    later = sync(pg, tenant).watermark
    backfill(pg, tenant, 1)
    assert one(pg, "SELECT watermark FROM deal_sync.watermarks") == later


def test_a_watermark_of_a_clock_that_was_ahead_ends_with_it(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    sync(pg, tenant)
    pg.execute("UPDATE deal_sync.watermarks SET watermark = watermark + interval '1 hour'")
    pg.execute(BACKFILL, [tenant, 2])
    assert sync(pg, tenant, mode="incremental").mode == "incremental"


def test_a_change_of_the_mapping_lets_it_start_over(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    for number in (1, 2):
        add_deal(graph, tenant, opportunity_id=numbered(number), name=f"stop {number}", forecast_score=0.5)
    broken_at_second(pg)
    with pytest.raises(psycopg.Error):
        backfill(pg, tenant, 1)
    pg.execute("DROP TRIGGER break ON opportunities")
    pg.execute("ALTER TABLE opportunities ADD COLUMN score float8")
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ADD COLUMN forecast_score float8 OPTIONS (target 'score')")
    notices: list[str | None] = []
    pg.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    backfill(pg, tenant, 1)
    assert f"the backfill of tenant {tenant} starts over because the mapping has changed" in notices
    assert one(pg, "SELECT count(score) FROM opportunities") == 2
    assert last_run(pg)[2] == 2


# What it says


def test_a_clock_that_was_ahead_and_rows_without_a_deal_are_reported(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for number in (1, 2, 3):
        add_deal(graph, tenant, opportunity_id=numbered(number))
    sync(pg, tenant)
    pg.execute("UPDATE deal_sync.watermarks SET watermark = watermark + interval '1 hour'")
    graph.run("MATCH (d:Deal {opportunity_id: $id}) DETACH DELETE d", id=numbered(2))
    backfill(pg, tenant, 1)
    gone = "rows whose deal is not in the graph: 1"
    assert last_run(pg)[-1] == f"the graph's clock was set back; {gone}"
    assert one(pg, "SELECT facts ->> 'rows_without_deal' FROM deal_sync.watermarks") == "1"
    backfill(pg, tenant, 1)
    assert last_run(pg)[-1] == gone


def test_a_newest_deal_that_is_older_than_an_earlier_full_runs_is_reported(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for number in (1, 2, 3):
        add_deal(graph, tenant, opportunity_id=numbered(number))
    sync(pg, tenant)
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime('2026-03-01T00:00:00Z')")
    backfill(pg, tenant, 1)
    message = str(last_run(pg)[-1])
    assert message.startswith("the newest deal is of 2026-03-01 00:00:00+00, but the previous full run read one of ")
    assert sync(pg, tenant).message is None


def test_what_a_clock_that_was_ahead_has_stamped_is_not_compared_at_its_end(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """Though by then the time of the watermark may have come."""
    for number in (1, 2):
        add_deal(graph, tenant, opportunity_id=numbered(number), name=f"stop {number}")
    sync(pg, tenant)
    pg.execute("DELETE FROM opportunities")
    pg.execute(
        "UPDATE deal_sync.watermarks SET watermark = watermark + interval '1 hour',"
        " facts = facts || jsonb_build_object('newest', now() + interval '1 hour')"
    )
    broken_at_second(pg)
    with pytest.raises(psycopg.Error):
        backfill(pg, tenant, 1)
    pg.execute("DROP TRIGGER break ON opportunities")
    pg.execute("UPDATE deal_sync.watermarks SET watermark = watermark - interval '1 hour'")
    backfill(pg, tenant, 1)
    assert last_run(pg)[-1] == "the graph's clock was set back"


def test_a_transaction_that_neo4j_had_open_for_long_when_it_began_is_named(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for number in (1, 2):
        add_deal(graph, tenant, opportunity_id=numbered(number), name=f"stop {number}")
    broken_at_second(pg)
    pg.execute("SET deal_sync.overlap = '200ms'")
    with graph.driver.session() as session, session.begin_transaction() as transaction:
        transaction.run("CREATE (d:Deal {tenant_id: $tenant})", tenant=str(tenant)).consume()
        time.sleep(1.3)
        with pytest.raises(psycopg.Error):
            backfill(pg, tenant, 1)
        transaction.rollback()
    pg.execute("DROP TRIGGER break ON opportunities")
    backfill(pg, tenant, 1)
    message = str(last_run(pg)[-1])
    assert message.startswith("transactions that have been open in Neo4j for longer than deal_sync.overlap, ")
    assert message.count("-transaction-") == 1


def test_a_deal_that_comes_back_after_it_makes_a_run_full(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    age: LiteralString = "MATCH (d:Deal) SET d.last_updated_at = datetime('2026-03-01T00:00:00Z')"
    for number in (1, 2):
        add_deal(graph, tenant, opportunity_id=numbered(number))
    graph.run(age)
    sync(pg, tenant)
    graph.run("MATCH (d:Deal {opportunity_id: $id}) DETACH DELETE d", id=numbered(2))
    backfill(pg, tenant, 1)
    add_deal(graph, tenant, opportunity_id=numbered(2), opportunity_summary="as it was")
    graph.run(age)
    run = sync(pg, tenant, mode="incremental")
    assert run.message == "full run because deals have reappeared in the graph: 1"
    graph.run("MATCH (d:Deal {opportunity_id: $id}) DETACH DELETE d", id=numbered(2))
    assert sync(pg, tenant).message == "rows whose deal is not in the graph: 1"
    add_deal(graph, tenant, opportunity_id=numbered(2))
    backfill(pg, tenant, 1)  # which has read it
    run = sync(pg, tenant, mode="incremental")
    assert (run.mode, run.message) == ("incremental", None)


# What stops it


def broken_at_second(pg: Connection) -> None:
    """A trigger of the application that names what is not there, for the second deal."""
    pg.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.opportunity_name = 'stop 2' THEN"
        " RAISE EXCEPTION 'secret of Acme' USING ERRCODE = '53400'; END IF; RETURN NEW; END $$"
    )
    pg.execute("CREATE TRIGGER break BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION fail()")


def test_a_batch_that_fails_leaves_the_earlier_ones_and_the_next_call_goes_on(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for number in (1, 2, 3):
        add_deal(graph, tenant, opportunity_id=numbered(number), name=f"stop {number}")
    broken_at_second(pg)
    with pytest.raises(psycopg.Error) as raised:
        backfill(pg, tenant, 1)
    assert raised.value.sqlstate == "DS006"
    assert raised.value.diag.message_hint is not None
    assert "CALL it again" in raised.value.diag.message_hint
    assert "secret" not in str(raised.value)
    assert one(pg, "SELECT count(*) FROM opportunities") == 1
    assert pg.execute("SELECT phase, after, done FROM deal_sync.backfills").fetchall() == [("deals", numbered(1), 1)]
    assert last_run(pg)[:3] == ("backfill", "failed", 0)
    pg.execute("DROP TRIGGER break ON opportunities")
    backfill(pg, tenant, 1)
    assert last_run(pg)[:4] == ("backfill", "ok", 3, 3)
    assert one(pg, "SELECT count(DISTINCT run_id) FROM deal_sync.runs") == 2


def test_another_session_that_has_the_tenant_is_named(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    holder = database.connect(autocommit=False)
    sync(holder, tenant)
    with pytest.raises(errors.LockNotAvailable) as raised:
        backfill(pg, tenant, 1)
    assert f"pid {holder.info.backend_pid}" in str(raised.value.diag.message_detail)
    holder.rollback()
    backfill(pg, tenant, 1)
    assert last_run(pg)[:2] == ("backfill", "ok")


def test_its_arguments_are_checked(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    for arguments, sqlstate in (((None, 1), "22004"), ((tenant, 0), "22023"), ((tenant, None), "22023")):
        with pytest.raises(psycopg.Error) as raised:
            pg.execute(BACKFILL.encode(), arguments)
        assert raised.value.sqlstate == sqlstate
        assert raised.value.diag.message_hint is not None
    pg.execute("SET app.tenant_id = '00000000-0000-0000-0000-000000000000'")
    with pytest.raises(errors.InsufficientPrivilege):
        backfill(pg, tenant, 1)
    pg.execute("RESET app.tenant_id")
    with pg.transaction(), pytest.raises(errors.InvalidTransactionTermination):
        backfill(pg, tenant, 1)


# A backend that is killed


def add_stops(pg: Connection) -> None:
    """Whoever inserts a deal or a version called `stop 1` waits for whoever holds the advisory lock 1."""
    pg.execute(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_advisory_xact_lock(substring(NEW::text FROM 'stop ([0-9])')::bigint); RETURN NEW; END $$"
    )
    for table in ("opportunities", "deal_versions"):
        pg.execute(f"CREATE TRIGGER stop BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION stop()".encode())


def patient(database: Database) -> Connection:
    """A session that waits for a lock as long as a test takes, and whose commits a crash does not undo."""
    session = database.connect()
    session.execute("SET deal_sync.lock_timeout = '5min'")
    session.execute("SET synchronous_commit = on")
    return session


def stop_at(database: Database, number: int) -> Connection:
    """Until the connection is closed, nobody passes the stop of this number."""
    holder = database.connect()
    holder.execute("SELECT pg_advisory_lock(%s)", [number])
    return holder


def waits(pg: Connection, pid: int) -> bool:
    return bool(one(pg, "SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted", pid))


@pytest.fixture
def mortal() -> Iterator[Database]:
    """On a PostgreSQL of this test's own: a kill of one backend restarts all."""
    with claimed("test", neo4j=False) as instance, new_database(instance) as database:
        environment_database.set_up(instance, database.name)
        yield database


def again(database: Database) -> Connection:
    """A session as soon as PostgreSQL takes any, after a crash."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return database.connect()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_killed_three_times_it_goes_on_where_it_was_and_ends_as_a_full_run(
    servers: Instance, mortal: Database, graph: Graph
) -> None:
    pg = mortal.connect()
    for option in ("user", "password"):
        secret = servers.facts[f"neo4j_{option}"]
        pg.execute(f"ALTER USER MAPPING FOR CURRENT_USER SERVER neo4j OPTIONS (SET \"{option}\" '{secret}')".encode())
    pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{servers.facts['neo4j_uri']}')".encode())
    pg.execute("SET synchronous_commit = on")
    tenant = add_tenant(pg)
    make_awkward(graph, tenant)
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.name = 'stop 1'", id=numbered(1))
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.name = 'stop 2'", id=numbered(4))
    graph.run("MATCH (v:DealVersion {version_id: $id}) SET v.name = 'stop 3'", id=numbered(103))
    sync(pg, tenant)
    expected = state(pg, tenant)
    forget_all(pg)
    add_stops(pg)

    places = []
    runs = set()
    for number in (1, 2, 3):
        session = patient(mortal)
        pid = session.info.backend_pid
        stop_at(mortal, number)
        with running(session, BACKFILL, tenant, 1) as killed:
            assert await_true(lambda: waits(pg, pid))  # noqa: B023
            os.kill(pid, signal.SIGKILL)
        assert isinstance(killed.result().error, psycopg.OperationalError)
        await_true(lambda: pg.closed or not lives(pg))  # noqa: B023
        pg = again(mortal)
        places.append(pg.execute("SELECT phase, after FROM deal_sync.backfills").fetchone())
        runs.add(one(pg, "SELECT run_id FROM deal_sync.backfills"))
    assert places == [("deals", numbered(0)), ("deals", numbered(3)), ("versions", numbered(2))]
    assert len(runs) == 1
    backfill(pg, tenant, 1)
    found = state(pg, tenant)
    for part in STATE:
        assert found[part] == expected[part], part
    assert pg.execute("SELECT run_id, mode FROM deal_sync.runs").fetchall() == [(runs.pop(), "backfill")]
    assert one(pg, "SELECT count(*) FROM deal_sync.watermarks") == 1


def lives(connection: Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
