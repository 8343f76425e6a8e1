"""Flows in: results that end early, graphs that change while they are read. Flows out: whole answers, or errors."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import psycopg
import pytest
from environment.servers import Instance
from support.database import Connection
from support.graph import Graph
from support.liar import Liar
from support.sync import Run, add_deal, add_tenant, one, sync

MANY = 120
EARLY = "incomplete result from Neo4j, or from a proxy in front of it"


@pytest.fixture
def liar(servers: Instance, pg: Connection) -> Iterator[Liar]:
    with Liar(servers.facts["neo4j_uri"]) as liar:
        pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{liar.uri}')".encode())
        yield liar


@pytest.fixture
def tenant(pg: Connection, graph: Graph) -> uuid.UUID:
    """With a version of each deal, all of it long unchanged."""
    tenant = add_tenant(pg)
    graph.run(
        "UNWIND range(1, $many) AS number CREATE (d:Deal {tenant_id: $tenant, opportunity_id: randomUUID(),"
        " name: 'A', stage: 'proposal', last_updated_at: datetime() - duration('P2D')})"
        " CREATE (d)-[:HAS_VERSION]->(:DealVersion {tenant_id: $tenant, version_id: randomUUID(), version: 1,"
        " name: 'A', deal_opportunity_id: d.opportunity_id, stage: 'proposal', valid_until: d.last_updated_at,"
        " created_at: d.last_updated_at})",
        many=MANY,
        tenant=str(tenant),
    )
    return tenant


def landed(pg: Connection) -> tuple[int, int]:
    return one(pg, "SELECT count(*) FROM opportunities"), one(pg, "SELECT count(*) FROM deal_versions")


def is_rejected(run: Run) -> bool:
    return run.status == "failed" and EARLY in str(run.message) and "HINT" not in str(run.message)


READS = b"elementId(n) AS c0"


@pytest.mark.parametrize("process_from", [5000, 10], ids=["thread", "process"])
@pytest.mark.parametrize("keep", [0, MANY // 2])
@pytest.mark.parametrize("label", [b"`Deal`", b"`DealVersion`"])
def test_a_full_run_reads_what_a_result_that_ended_early_has_left_out(
    pg: Connection, liar: Liar, tenant: uuid.UUID, label: bytes, keep: int, process_from: int
) -> None:
    pg.execute(f"SET deal_sync.process_from = {process_from}".encode())
    liar.lie(b":" + label + b"(`tenant_id`)\nWHERE n.`tenant_id` IN $equal_0\nWITH n ORDER BY", keep)
    run = sync(pg, tenant)
    assert (run.status, run.deals_read, landed(pg)) == ("ok", MANY, (MANY, MANY))
    assert liar.lies == 1


@pytest.mark.parametrize("mode", ["full", "incremental"])
@pytest.mark.parametrize("label", [b"`Deal`", b"`DealVersion`"])
def test_a_node_that_is_there_and_does_not_arrive_is_an_error(
    pg: Connection, graph: Graph, liar: Liar, tenant: uuid.UUID, label: bytes, mode: str
) -> None:
    liar.lie(READS, 0, 0)
    assert sync(pg, tenant).status == "ok"
    graph.run("MATCH (n) SET n.last_updated_at = datetime(), n.valid_until = datetime()")
    graph.run("MATCH (n) SET n.stage = 'negotiation', n.version_id = randomUUID(), n.version = 2")
    liar.lie(b"(n:" + label + b")\nWHERE elementId(n) IN $elements", 20)
    if mode == "full":
        everything = Liar(liar.uri)
        everything.lie(b":" + label + b"(`tenant_id`)\nWHERE n.`tenant_id` IN $equal_0\nWITH n ORDER BY", 7)
        pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{everything.uri}')".encode())
    run = sync(pg, tenant, mode=mode)
    assert is_rejected(run), run
    assert liar.lies == 3
    assert landed(pg) == (MANY, MANY)
    with pytest.raises(psycopg.Error, match=EARLY) as raised:
        sync(pg, tenant, mode=mode, strict=True)
    assert raised.value.diag.message_hint is not None
    assert 'option "uri"' in raised.value.diag.message_hint


@pytest.mark.parametrize(
    "at",
    [
        b"RETURN count(n)",
        b"CALL db.info()",
        b"count(DISTINCT",
        b"size(nodes) > 1",
        b"$zoned",
        b"UNWIND [null] + found",
        b"$ids",
    ],
    ids=["count", "state", "duplicates", "rivals", "changed", "undated", "ids"],
)
def test_a_question_that_a_run_asks_is_answered_or_ends_it(
    pg: Connection, graph: Graph, liar: Liar, tenant: uuid.UUID, at: bytes
) -> None:
    pg.execute("SET deal_sync.undated_every = '0s'")
    assert sync(pg, tenant).status == "ok"
    graph.run("MATCH (n) WITH n LIMIT 20 SET n.last_updated_at = datetime(), n.valid_until = datetime()")
    graph.run("MATCH (n:Deal) WITH n LIMIT 5 REMOVE n.last_updated_at SET n.opportunity_summary = 'new'")
    for keep in (0, 1):
        liar.lie(at, keep)
        run = sync(pg, tenant, mode="full" if at in (b"RETURN count(n)", b"count(DISTINCT") else "incremental")
        assert is_rejected(run) if liar.lies else run.status == "ok", (keep, run)
        assert keep or liar.lies


def test_a_backfill_is_not_over_where_a_list_of_keys_ends_early(pg: Connection, liar: Liar, tenant: uuid.UUID) -> None:
    liar.lie(b"ORDER BY key", 0, 1)
    with pytest.raises(psycopg.Error, match=EARLY):
        pg.execute("CALL deal_sync.backfill(%s, 100)", [tenant])
    pg.execute("CALL deal_sync.backfill(%s, 100)", [tenant])
    assert landed(pg) == (MANY, MANY)


def test_a_tenant_is_not_forgotten_where_the_list_of_tenants_ends_early(
    pg: Connection, graph: Graph, liar: Liar, tenant: uuid.UUID
) -> None:
    add_deal(graph, add_tenant(pg))
    liar.lie(b"AS tenant, count(*)", 0, 1)
    with pytest.raises(psycopg.Error, match=EARLY):
        pg.execute("CALL deal_sync.sync_all()")


@pytest.mark.parametrize("arguments", ["NULL::neo4j.deals", "NULL::neo4j.deals, %(tenant)s"])
def test_a_scan_gives_every_row_or_an_error(pg: Connection, liar: Liar, tenant: uuid.UUID, arguments: str) -> None:
    query: Any = f"SELECT count(DISTINCT opportunity_id) FROM deal_sync.scan({arguments})"
    for keep in (0, MANY // 2):
        liar.lie(READS, keep, 1)
        assert one(pg, query.replace("%(tenant)s", f"'{tenant}'")) == MANY
        assert liar.lies == 1
    liar.lie(READS, 5)
    with pytest.raises(psycopg.Error, match=EARLY):
        one(pg, query.replace("%(tenant)s", f"'{tenant}'"))


def test_a_scan_with_a_limit_gives_as_many(pg: Connection, liar: Liar, tenant: uuid.UUID) -> None:
    query: Any = f"SELECT count(*) FROM deal_sync.scan(NULL::neo4j.deals, '{tenant}', row_limit => %s)"
    for limit, due in ((5, 5), (MANY, MANY), (MANY + 9, MANY)):
        liar.lie(b"LIMIT $limit\nRETURN elementId(n) AS c0", 3, 1)
        assert one(pg, query, limit) == due
        assert liar.lies == 1


# Writers at full speed


def _created(random: Random, tenant: uuid.UUID, label: str) -> tuple[str, dict[str, Any]]:
    key = "opportunity_id" if label == "Deal" else "version_id"
    return (
        f"UNWIND range(1, 20) AS number CREATE (n:{label}) SET n = {{tenant_id: $tenant, {key}: randomUUID(),"
        " name: 'B', stage: 'proposal', version: number, deal_opportunity_id: randomUUID()}"
        + random.choice(("", ", n.last_updated_at = datetime(), n.valid_until = datetime()")),
        {},
    )


def writing(graph: Graph, tenants: list[uuid.UUID], stop: threading.Event, seed: int) -> int:
    """Creates, deletes, and moves: of nodes to another tenant and back, and to another place in the index."""
    random, written = Random(seed), 0
    some = "MATCH (n:{label}) WHERE n.tenant_id = $tenant WITH n SKIP $skip LIMIT 20 "
    key = {"Deal": "opportunity_id", "DealVersion": "version_id"}
    while not stop.is_set():
        label, tenant = random.choice(("Deal", "DealVersion")), random.choice(tenants)
        query, parameters = random.choice(
            (
                _created(random, tenant, label),
                (some.format(label=label) + "DETACH DELETE n", {}),
                (some.format(label=label) + "SET n.tenant_id = $other", {"other": str(random.choice(tenants))}),
                (some.format(label=label) + f"SET n.{key[label]} = randomUUID()", {}),
                (some.format(label=label) + "REMOVE n.last_updated_at, n.valid_until", {}),
            )
        )
        try:
            graph.run(query, tenant=str(tenant), skip=random.randrange(MANY), **parameters)
            written += 1
        except Exception as error:  # two writers that want one node
            if "Deadlock" not in str(error) and "EntityNotFound" not in str(error):
                raise
    return written


@pytest.mark.parametrize("indexed", [False, True], ids=["no index", "indexes"])
def test_no_writer_makes_a_run_fail_however_fast_it_is(
    pg: Connection, graph: Graph, tenant: uuid.UUID, indexed: bool
) -> None:
    if indexed:
        for properties in ("tenant_id", "tenant_id, n.opportunity_id", "tenant_id, n.last_updated_at"):
            graph.run(f"CREATE INDEX FOR (n:Deal) ON (n.{properties})")
        for properties in ("tenant_id", "tenant_id, n.version_id", "tenant_id, n.deal_opportunity_id"):
            graph.run(f"CREATE INDEX FOR (n:DealVersion) ON (n.{properties})")
        graph.run("CALL db.awaitIndexes()")
    tenants = [tenant, add_tenant(pg)]
    scans: Any = "SELECT count(*) FROM deal_sync.scan(NULL::neo4j.deals, %s)"
    ways: list[Callable[[], Any]] = [
        lambda: sync(pg, tenant),
        lambda: sync(pg, tenant, mode="incremental"),
        lambda: sync(pg, tenant, mode="incremental"),
        lambda: one(pg, scans, tenant),
    ]
    stop = threading.Event()
    until, bad, runs = time.monotonic() + 6, [], 0
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(writing, graph, tenants, stop, seed) for seed in range(3)]
        try:
            while time.monotonic() < until:
                for way in ways:
                    result, runs = way(), runs + 1
                    if isinstance(result, Run) and result.status not in ("ok", "partial"):
                        bad.append(
                            (
                                result.message,
                                one(pg, "SELECT server_text FROM deal_sync.runs WHERE run_id = %s", result.run_id),
                            )
                        )
        finally:
            stop.set()
        assert sum(writer.result() for writer in writers) > 100
    assert bad == [], f"{len(bad)} of {runs}"
    assert sync(pg, tenant).status in ("ok", "partial")
    assert sync(pg, tenant).deals_updated == 0
