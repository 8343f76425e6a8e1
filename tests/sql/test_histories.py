"""Flows in: random histories of a graph, with a sync now and then.
Flows out: what a full sync would leave.

DEAL_SYNC_HISTORIES says how many random histories, DEAL_SYNC_SEED which ones; a failure tells its history step by step.
"""

import os
import time
import uuid
from datetime import timedelta
from random import Random
from typing import Any, LiteralString

import pytest
from support.backend import running
from support.database import Connection, Database
from support.graph import Graph
from support.histories import OVERLAP, History, counting_is_quick, moved_then
from support.sync import add_tenant, incremental, one, sync

INCREMENTAL = "SELECT * FROM sync_deals(%s)"


SEED = int(os.environ.get("DEAL_SYNC_SEED", "6"))
HISTORIES = int(os.environ.get("DEAL_SYNC_HISTORIES", "25"))


@pytest.mark.timeout(3600)
def test_whatever_the_writers_do_the_last_incremental_run_leaves_what_a_full_one_would(
    database: Database, pg: Connection, graph: Graph
) -> None:
    counting_is_quick(pg)
    for number in range(HISTORIES):
        random = Random(SEED * 1_000_000 + number)
        history = History(graph, add_tenant(pg), random)
        history.begin()
        live(database, history)
        before = state(pg, history.tenant)
        run = sync(pg, history.tenant)
        told = "\n".join([f"history {number} of seed {SEED}", *history.told])
        after = state(pg, history.tenant)
        assert [name for name in after if after[name] != before[name]] == [], f"{told}\n{before}\n{after}"
        assert (run.deals_inserted, run.deals_updated, run.deals_adopted) == (0, 0, 0), told
        assert (run.versions_inserted, run.links_inserted) == (0, 0), told
        graph.clear()


def live(database: Database, history: History) -> None:
    """Steps and syncs; the last one, incremental as they all are, comes when everything has committed."""
    random = history.random
    session = connect(database, random)
    assert incremental(session, history.tenant).mode == "full"
    for _ in range(random.randint(6, 14)):
        history.step()
        if random.random() < 0.45:
            run = incremental(session, history.tenant)
            history.told.append(f"sync: {run.mode} {run.status}, {run.deals_read} deals, {run.message}")
            if run.status in ("ok", "partial"):
                history.synced()
                check_nothing_is_left(session, history)
                afterwards(session, history)
        elif random.random() < 0.15:
            otherwise(session, history)
        elif random.random() < 0.2:
            victim = connect(database, random)
            with running(victim, INCREMENTAL, history.tenant) as doomed:
                time.sleep(random.uniform(0, 0.12))
                session.execute("SELECT pg_terminate_backend(%s)", [victim.info.backend_pid])
            history.told.append(f"sync, killed: {doomed.result().sqlstate}")
    history.end()
    while (run := incremental(session, history.tenant)).status == "skipped":  # the killed one may not be gone yet
        time.sleep(0.05)
    came_back = "deals have reappeared in the graph" in str(run.message)
    assert run.mode == ("full" if history.clock_moved or came_back else "incremental"), run.message
    why = "SELECT server_text FROM deal_sync.runs WHERE run_id = %s"
    assert run.status in ("ok", "partial"), one(session, why, run.run_id)
    session.close()


def check_nothing_is_left(session: Connection, history: History) -> None:
    """A full run would land nothing; now and then, since it takes its time."""
    if history.random.random() < 0.3:
        run = sync(session, history.tenant, dry_run=True)
        told = "\n".join([*history.told, str(run)])
        assert (run.deals_inserted, run.deals_updated, run.deals_adopted) == (0, 0, 0), told
        assert (run.versions_inserted, run.links_inserted) == (0, 0), told


def afterwards(session: Connection, history: History) -> None:
    """Time passes, or the graph's clock turns out to have been wrong while the run read."""
    history.clock_moved = False
    if history.random.random() < 0.4:
        history.age()
    elif history.random.random() < 0.25:
        hours = history.random.choice([-30, -1, 1, 5])
        moved_then(session, history.tenant, timedelta(hours=hours))
        history.clock_moved = True
        history.told.append(f"the graph's clock was {hours} hours ahead")


def otherwise(session: Connection, history: History) -> None:
    """The graph is read in another way than by an incremental run."""
    key = history.some_key()
    ways: list[tuple[LiteralString, list[Any]]] = [
        ("SELECT sync_deals(%s, 'full')", [history.tenant]),
        ("SELECT deal_sync.replay(%s)", [history.tenant]),
        ("SELECT deal_sync.replay(%s, %s)", [history.tenant, [] if key is None else [key]]),
        ("CALL deal_sync.backfill(%s, 2)", [history.tenant]),
    ]
    way, parameters = history.random.choice(ways)
    session.execute(way, parameters)
    history.told.append(f"{way} {parameters}")
    if len(parameters) == 1:  # all has been read, by the clock of now
        history.synced()
        history.clock_moved = False


def connect(database: Database, random: Random) -> Connection:
    session = database.connect()
    session.execute(f"SET deal_sync.overlap = '{OVERLAP}s'".encode())
    session.execute("SET deal_sync.undated_every = '0s'")  # or nodes without a timestamp are an hour behind
    session.execute(f"SET deal_sync.batch_rows = {random.choice((2, 5, 2000))}".encode())
    return session


def state(pg: Connection, tenant: uuid.UUID) -> dict[str, list[Any]]:
    """Everything that a sync may have written for a tenant, but the times and numbers of its runs."""
    queries: dict[str, LiteralString] = {
        "opportunities": "SELECT t::text FROM opportunities AS t WHERE t.tenant_id = %s ORDER BY t.id",
        "versions": "SELECT t::text FROM deal_versions AS t WHERE t.tenant_id = %s ORDER BY t.id",
        "links": "SELECT interaction_id, entity_id FROM interaction_links WHERE tenant_id = %s ORDER BY 1, 2",
        "rejects": "SELECT kind, level, graph_id, element_id, column_name, sqlstate, message, value"
        " FROM deal_sync.rejects WHERE tenant_id = %s ORDER BY 1, 4, 5",
    }
    return {name: pg.execute(query, [tenant]).fetchall() for name, query in queries.items()}
