"""Flows in: a graph that changes, and syncs of what has changed.
Flows out: what a full sync would leave; or an error.
"""

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import psycopg
import pytest
from support.database import Connection, Database, execute
from support.graph import Graph
from support.histories import counting_is_quick, moved_then
from support.sync import add_deal, add_tenant, add_version, incremental, one, rejects, sync

LONG_AGO: LiteralString = "datetime() - duration('P2D')"


def age(graph: Graph) -> None:
    """Everything was changed long ago, by its timestamp."""
    graph.run(f"MATCH (d:Deal) WHERE d.last_updated_at IS NOT NULL SET d.last_updated_at = {LONG_AGO}")
    graph.run(f"MATCH (v:DealVersion) SET v.valid_until = {LONG_AGO}, v.created_at = {LONG_AGO}")


def undate(graph: Graph) -> None:
    """Nothing says when it changed."""
    graph.run("MATCH (d:Deal) REMOVE d.last_updated_at")
    graph.run("MATCH (v:DealVersion) REMOVE v.valid_until, v.created_at")


# -- What a run reads --------------------------------------------------------------------------------------------------


def test_the_first_run_is_full_the_next_reads_what_changed(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    for _ in range(3):
        add_deal(graph, tenant)
    age(graph)
    assert (incremental(pg, tenant).mode, incremental(pg, tenant).deals_read) == ("full", 0)
    changed = add_deal(graph, tenant, name="New")
    run = incremental(pg, tenant)
    assert (run.mode, run.deals_read, run.deals_inserted) == ("incremental", 1, 1)
    assert one(pg, "SELECT opportunity_name FROM opportunities WHERE id = %s", changed) == "New"


def test_a_version_is_read_by_its_own_watermark_and_with_its_deal(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal, other = add_deal(graph, tenant), add_deal(graph, tenant)
    age(graph)
    incremental(pg, tenant)
    add_version(graph, tenant, deal)
    assert (incremental(pg, tenant).deals_read, one(pg, "SELECT count(*) FROM deal_versions")) == (0, 1)
    add_version(graph, tenant, other)
    age(graph)
    pg.execute("UPDATE deal_sync.watermarks SET facts = facts || jsonb_build_object('count_ms', 11)")
    assert incremental(pg, tenant).versions_inserted == 0  # nothing shows that it exists, and nodes are not counted
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.last_updated_at = toString(datetime())", id=str(other))
    assert incremental(pg, tenant).versions_inserted == 1


def test_the_watermark_is_the_graphs_clock_less_the_overlap_and_comes_with_the_rows(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("SET deal_sync.overlap = '1h'")
    add_deal(graph, tenant)
    [before] = graph.run("RETURN datetime.realtime() AS clock")
    run = incremental(pg, tenant)
    [after] = graph.run("RETURN datetime.realtime() AS clock")
    assert run.watermark is not None
    assert before["clock"].to_native() <= run.watermark + timedelta(hours=1) <= after["clock"].to_native()
    query: LiteralString = "SELECT watermark FROM deal_sync.watermarks WHERE tenant_id = %s AND run_id = %s"
    assert one(pg, query, tenant, run.run_id) == run.watermark
    assert incremental(pg, tenant, dry_run=True).status == "ok"
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT nobody CHECK (opportunity_name <> 'No')")
    pg.execute("ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')")
    assert incremental(pg, tenant).status == "failed"
    assert one(pg, "SELECT watermark FROM deal_sync.watermarks WHERE tenant_id = %s", tenant) == run.watermark


def test_a_change_of_the_mapping_makes_the_next_run_full_by_itself(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant, forecast_score=0.5)
    age(graph)
    incremental(pg, tenant)
    for change in (
        "ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN stage OPTIONS (SET write 'always')",
        "ALTER TABLE opportunities ADD COLUMN score float8;"
        "ALTER FOREIGN TABLE neo4j.deals ADD COLUMN forecast_score float8 OPTIONS (target 'score')",
        "ALTER TABLE opportunities ALTER COLUMN score TYPE float4",
    ):
        pg.execute(change.encode())
        run = incremental(pg, tenant)
        assert (run.mode, run.message) == ("full", "full run because the mapping has changed")
        assert incremental(pg, tenant).mode == "incremental"
    assert one(pg, "SELECT score FROM opportunities") == 0.5


def test_what_a_run_has_not_read_keeps_its_rejects_and_a_row_is_tried_again(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant, confidence="high")
    graph.run(
        "CREATE (d:Deal {tenant_id: $tenant, opportunity_id: 'OPP-1', name: 'x', last_updated_at: datetime()})",
        tenant=str(tenant),
    )
    age(graph)
    first = incremental(pg, tenant)
    assert (first.rows_rejected, first.values_rejected) == (1, 1)
    second = incremental(pg, tenant)
    assert (second.deals_read, second.rows_rejected, second.values_rejected) == (1, 1, 0)
    assert sorted(reject.level for reject in rejects(pg, tenant)) == ["row", "value"]
    graph.run("MATCH (d:Deal {opportunity_id: 'OPP-1'}) SET d.opportunity_id = $id", id=str(uuid.uuid4()))
    third = incremental(pg, tenant)
    assert (third.status, third.deals_inserted) == ("ok", 1)
    assert [reject.level for reject in rejects(pg, tenant)] == ["value"]


def test_what_does_not_say_when_it_changed_is_read_again_when_it_is_another(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("SET deal_sync.undated_every = '0s'")
    deal = add_deal(graph, tenant, opportunity_summary="one")
    add_version(graph, tenant, deal)
    add_deal(graph, tenant, ontology_version=[1.5, float("nan")], created_at=datetime(2026, 1, 1))
    undate(graph)
    assert [incremental(pg, tenant).deals_read for _ in range(3)] == [2, 2, 0]
    for value in ("two", None, float("inf"), datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01", 2, 2.0, True, ["2"]):
        graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.opportunity_summary = $value", id=str(deal), value=value)
        assert [incremental(pg, tenant).deals_read for _ in range(2)] == [1, 0], value
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.dim_of_a_team = 1", id=str(deal))
    assert [incremental(pg, tenant).deals_read for _ in range(2)] == [1, 0]
    assert one(pg, "SELECT count(*) FROM deal_versions") == 1


@pytest.mark.parametrize("between", ["full", "replay", "replay of it", "backfill", "incremental, as it was rejected"])
def test_what_does_not_say_when_it_changed_may_go_back_to_what_it_was(
    pg: Connection, graph: Graph, tenant: uuid.UUID, between: str
) -> None:
    pg.execute("SET deal_sync.undated_every = '0s'")
    deal = add_deal(graph, tenant, opportunity_summary="one")
    undate(graph)
    assert [incremental(pg, tenant).deals_read for _ in range(3)] == [1, 1, 0]
    change = "MATCH (d:Deal {opportunity_id: $id}) SET d += $properties"
    graph.run(change, id=str(deal), properties={"opportunity_summary": "two"})
    match between:
        case "full":
            assert sync(pg, tenant).deals_updated == 1
        case "replay":
            pg.execute("SELECT deal_sync.replay(%s)", [tenant])
        case "replay of it":
            pg.execute("SELECT deal_sync.replay(%s, %s)", [tenant, [str(deal)]])
        case "backfill":
            pg.execute("CALL deal_sync.backfill(%s)", [tenant])
        case _:
            pg.execute("ALTER TABLE opportunities ADD CONSTRAINT not_two CHECK (latest_ai_summary <> 'two')")
            assert incremental(pg, tenant).rows_rejected == 1
            pg.execute("ALTER TABLE opportunities DROP CONSTRAINT not_two")
            assert incremental(pg, tenant).deals_updated == 1
    assert one(pg, "SELECT latest_ai_summary FROM opportunities") == "two"
    graph.run(change, id=str(deal), properties={"opportunity_summary": "one"})
    incremental(pg, tenant)
    assert one(pg, "SELECT latest_ai_summary FROM opportunities") == "one"


def test_what_a_run_knew_of_nodes_without_a_timestamp_is_undone_with_it(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("SET deal_sync.undated_every = '0s'")
    deal = add_deal(graph, tenant, opportunity_summary="one")
    undate(graph)
    assert [incremental(pg, tenant).deals_read for _ in range(3)] == [1, 1, 0]
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.opportunity_summary = 'two'", id=str(deal))
    assert incremental(pg, tenant, dry_run=True).deals_updated == 1
    pg.execute("BEGIN")
    assert incremental(pg, tenant).deals_updated == 1
    pg.execute("ROLLBACK")
    assert incremental(pg, tenant).deals_updated == 1


def test_nodes_without_a_timestamp_are_looked_at_once_an_hour(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    deal = add_deal(graph, tenant, opportunity_summary="one")
    undate(graph)
    assert incremental(pg, tenant).mode == "full"
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.opportunity_summary = 'two'", id=str(deal))
    assert incremental(pg, tenant).deals_read == 0
    for found, at in (1, "now() - interval '61 min'"), (0, "now() - interval '59 min'"), (0, "now() + interval '1 d'"):
        execute(
            pg,
            f"UPDATE deal_sync.watermarks SET facts = facts || jsonb_build_object('undated_at', {at})",
        )
        assert incremental(pg, tenant).deals_read == found, at
    assert one(pg, "SELECT latest_ai_summary FROM opportunities") == "two"
    assert one(pg, "SELECT count(*) FROM _deal_sync.undated_nodes") == 1
    assert one(pg, "SELECT (facts ->> 'undated_at')::timestamptz <= now() FROM deal_sync.watermarks")


def test_a_new_node_without_a_timestamp_is_found_by_the_number_of_nodes(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    incremental(pg, tenant)
    add_deal(graph, tenant)
    undate(graph)
    assert incremental(pg, tenant).deals_inserted == 1


def test_a_run_that_finds_nothing_changed_reads_and_writes_nothing(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant))
    age(graph)
    incremental(pg, tenant)
    with pg.transaction():
        pg.execute("SET LOCAL track_functions = 'all'")
        before = one(pg, "SELECT watermark FROM deal_sync.watermarks")
        run = incremental(pg, tenant)
        assert (run.status, run.mode, run.deals_read, run.message) == ("ok", "incremental", 0, None)
        assert one(pg, "SELECT watermark FROM deal_sync.watermarks") == run.watermark > before
        called = "SELECT pg_stat_get_xact_function_calls($1::regproc)"
        assert one(pg, called.replace("$1", "'_deal_sync.graph_state'")) == 1
        assert one(pg, called.replace("$1", "'_deal_sync.fill_staging'")) is None


def test_without_an_index_it_reads_the_same(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    age(graph)
    incremental(pg, tenant)
    graph.run("MATCH (d:Deal) SET d.last_updated_at = toString(datetime()), d.opportunity_summary = 'new'")
    assert incremental(pg, tenant).deals_updated == 1
    graph.run("CREATE INDEX FOR (d:Deal) ON (d.tenant_id, d.last_updated_at)")
    graph.run("CALL db.awaitIndexes()")
    graph.run("MATCH (d:Deal) SET d.last_updated_at = toString(datetime()), d.opportunity_summary = 'newer'")
    assert incremental(pg, tenant).deals_updated == 1


def test_after_the_graphs_clock_has_gone_back_everything_is_read(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    incremental(pg, tenant)
    pg.execute("UPDATE deal_sync.watermarks SET watermark = watermark + interval '1 hour'")  # it was ahead by so much
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime() - duration('PT30M'), d.opportunity_summary = 'new'")
    run = incremental(pg, tenant)
    assert (run.mode, run.deals_updated) == ("full", 1)
    assert run.message == "full run because the graph's clock was set back"
    assert incremental(pg, tenant).mode == "incremental"


@pytest.mark.parametrize("hours", [1, -1])
def test_after_the_graphs_clock_has_moved_against_postgresqls_everything_is_read(
    pg: Connection, graph: Graph, tenant: uuid.UUID, hours: int
) -> None:
    for _ in range(20):
        add_deal(graph, tenant)
    incremental(pg, tenant)
    moved_then(pg, tenant, timedelta(hours=hours))
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime() - duration('PT20M'), d.opportunity_summary = 'new'")
    if hours > 0:  # the time of the watermark has come since: only the difference of the clocks tells
        pg.execute("UPDATE deal_sync.watermarks SET watermark = now() - interval '5min'")
    run = incremental(pg, tenant)
    assert (run.mode, run.deals_updated) == ("full", 20)
    assert run.message == (
        f"full run because the graph's clock was moved by {-3600 * hours} s relative to PostgreSQL's"
    )
    assert incremental(pg, tenant).mode == "incremental"
    moved_then(pg, tenant, timedelta(minutes=9))
    assert incremental(pg, tenant).mode == "incremental"
    pg.execute("SET deal_sync.overlap = '8min'")
    moved_then(pg, tenant, timedelta(minutes=9))
    assert incremental(pg, tenant).mode == "full"


def test_after_the_clock_of_the_one_machine_of_both_has_been_set_everything_is_read(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """An hour ahead at the first run and right since; the time of its watermark has come."""
    for _ in range(20):
        add_deal(graph, tenant)
    incremental(pg, tenant)
    hour_ahead: LiteralString = (
        "UPDATE deal_sync.watermarks SET watermark = now() - interval '5min',"
        " facts = facts || jsonb_build_object('at_boot', (facts ->> 'at_boot')::float8 + 3600)"
    )
    pg.execute(hour_ahead)
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime() - duration('PT20M'), d.opportunity_summary = 'new'")
    run = incremental(pg, tenant)
    assert (run.mode, run.deals_updated) == ("full", 20)
    assert run.message == "full run because the graph's and PostgreSQL's clocks were both moved by -3600 s"
    assert incremental(pg, tenant).mode == "incremental"
    pg.execute(hour_ahead)
    pg.execute('UPDATE deal_sync.watermarks SET facts = facts || \'{"boot": "another"}\'')
    assert incremental(pg, tenant).mode == "incremental", "there is nothing to compare with"


def test_a_full_run_says_so_where_the_graphs_clock_or_its_newest_deal_is_older_than_it_was(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime('2026-03-01T10:00:00+02:00')")
    add_deal(graph, tenant)
    graph.run("MATCH (d:Deal) WHERE d.last_updated_at.year > 2026 OR d.last_updated_at.month > 3 SET d.old = true")
    graph.run("MATCH (d:Deal {old: true}) SET d.last_updated_at = '2999-01-01T00:00:00Z'")
    assert sync(pg, tenant).message is None
    assert one(pg, "SELECT (facts ->> 'newest')::timestamptz FROM deal_sync.watermarks") == datetime(
        2026, 3, 1, 8, tzinfo=UTC
    )
    for older in (
        "datetime('2026-03-01T07:59:59Z')",
        "'2026-03-01T07:59:59+00:00'",
        "localdatetime('2026-03-01T07:59:59')",
    ):
        graph.run("MATCH (d:Deal) WHERE d.old IS NULL SET d.last_updated_at = datetime('2026-03-01T08:00:00Z')")
        assert sync(pg, tenant).message is None
        graph.run(f"MATCH (d:Deal) WHERE d.old IS NULL SET d.last_updated_at = {older}")
        assert sync(pg, tenant).message == (
            "the newest deal is of 2026-03-01 07:59:59+00, but the previous full run read one of"
            " 2026-03-01 08:00:00+00: that deal was deleted, or this is an older copy of the graph"
        )
        assert sync(pg, tenant).message is None, "it was said"
    graph.run("MATCH (d:Deal) WHERE d.old IS NULL SET d.last_updated_at = '2026-03-01T08:00:01.5Z'")
    assert sync(pg, tenant).message is None
    pg.execute("UPDATE deal_sync.watermarks SET watermark = watermark + interval '1 hour'")
    assert sync(pg, tenant).message == "the graph's clock was set back"


def test_that_the_newest_deal_has_gone_is_said_once(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    kept, gone = add_deal(graph, tenant), add_deal(graph, tenant)
    graph.run("MATCH (d:Deal) SET d.last_updated_at = datetime('2026-03-01T08:00:00Z')")
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.last_updated_at = datetime('2026-03-02')", id=str(gone))
    assert sync(pg, tenant).message is None
    graph.run("MATCH (d:Deal {opportunity_id: $id}) DETACH DELETE d", id=str(gone))
    assert (
        sync(pg, tenant, dry_run=True).message
        == sync(pg, tenant).message
        == (
            "the newest deal is of 2026-03-01 08:00:00+00, but the previous full run read one of"
            " 2026-03-02 00:00:00+00: that deal was deleted, or this is an older copy of the graph;"
            " rows whose deal is not in the graph: 1"
        )
    )
    for mode in ("full", "incremental", "full"):
        assert sync(pg, tenant, mode=mode).message == "rows whose deal is not in the graph: 1"
    graph.run("MATCH (d:Deal {opportunity_id: $id}) DETACH DELETE d", id=str(kept))
    assert [sync(pg, tenant).message for _ in range(2)] == ["rows whose deal is not in the graph: 2"] * 2
    assert one(pg, "SELECT (facts ->> 'newest')::timestamptz FROM deal_sync.watermarks") == datetime(
        2026, 3, 1, 8, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "moment", ["datetime() - duration('P400D')", "'2020-01-01'", "localdatetime('2020-01-01T00:00')"]
)
def test_what_is_new_with_an_old_time_is_found_by_the_number_of_nodes(
    pg: Connection, graph: Graph, tenant: uuid.UUID, moment: LiteralString
) -> None:
    counting_is_quick(pg)
    deal = add_deal(graph, tenant)
    age(graph)
    assert [incremental(pg, tenant).deals_read for _ in range(2)] == [1, 0]
    old = f"SET n.last_updated_at = {moment}, n.valid_until = {moment}, n.created_at = {moment}"
    new = add_deal(graph, tenant)
    graph.run(f"MATCH (n:Deal {{opportunity_id: $id}}) {old}", id=str(new))
    assert [incremental(pg, tenant).deals_inserted for _ in range(2)] == [1, 0]
    add_version(graph, tenant, deal)
    graph.run(f"MATCH (n:DealVersion) {old}")
    assert [incremental(pg, tenant).versions_inserted for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("kind", ["deal", "version"])
def test_a_duplicate_that_arrives_alone_and_old_is_rejected(
    pg: Connection, graph: Graph, tenant: uuid.UUID, kind: str
) -> None:
    counting_is_quick(pg)
    deal = add_deal(graph, tenant)
    version = add_version(graph, tenant, deal)
    age(graph)
    assert [incremental(pg, tenant).status for _ in range(2)] == ["ok", "ok"]
    if kind == "deal":
        add_deal(graph, tenant, opportunity_id=str(deal).upper())
    else:
        add_version(graph, tenant, deal, version_id=str(version))
    graph.run(
        "WITH datetime() - duration('P1D') AS day MATCH (n) WHERE n.last_updated_at > day OR n.valid_until > day"
        " SET n.last_updated_at = day, n.valid_until = day, n.created_at = day"
    )
    run = incremental(pg, tenant)
    assert (run.mode, run.status, run.rows_rejected) == ("incremental", "partial", 1)
    [found] = rejects(pg, tenant)
    assert found.kind == kind
    assert found.message.startswith(f"duplicate {kind}")
    assert sync(pg, tenant).rows_rejected == 1


def test_rows_whose_deal_has_left_the_graph_are_counted(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    counting_is_quick(pg)
    for _ in range(5):
        add_deal(graph, tenant)
    rejected = add_deal(graph, tenant)
    age(graph)
    incremental(pg, tenant)
    graph.run("MATCH (d:Deal) WHERE d.opportunity_id <> $id WITH d LIMIT 2 DETACH DELETE d", id=str(rejected))
    for mode in ("incremental", "incremental", "full", "incremental"):
        assert sync(pg, tenant, mode=mode).message == "rows whose deal is not in the graph: 2", mode
        assert one(pg, "SELECT facts ->> 'rows_without_deal' FROM deal_sync.watermarks") == "2"
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT nobody CHECK (latest_ai_summary <> 'x')")
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.opportunity_summary = 'x'", id=str(rejected))
    assert "rows whose deal is not in the graph: 2" in str(sync(pg, tenant).message)
    pg.execute("ALTER TABLE opportunities DROP CONSTRAINT nobody")
    pg.execute("INSERT INTO deal_sync.barred (tenant_id, graph_id) VALUES (%s, %s)", [tenant, rejected])
    assert sync(pg, tenant).message == "rows whose deal is not in the graph: 2"


@pytest.mark.parametrize("how", ["made anew", "moved"])
def test_a_deal_that_comes_back_to_its_row_with_an_old_time_is_read(
    pg: Connection, graph: Graph, tenant: uuid.UUID, how: str
) -> None:
    """By its key it looks like any deal that has its row."""
    counting_is_quick(pg)
    deal, other = add_deal(graph, tenant), add_tenant(pg)
    add_deal(graph, tenant)
    age(graph)
    incremental(pg, tenant)
    if how == "made anew":
        graph.run("MATCH (d:Deal {opportunity_id: $id}) DETACH DELETE d", id=str(deal))
    else:
        graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.tenant_id = $other", id=str(deal), other=str(other))
    assert incremental(pg, tenant).message == "rows whose deal is not in the graph: 1"
    if how == "made anew":
        add_deal(graph, tenant, opportunity_id=str(deal), opportunity_summary="as it was")
    else:
        graph.run(
            "MATCH (d:Deal {opportunity_id: $id}) SET d.tenant_id = $id2, d.opportunity_summary = 'as it was'",
            id=str(deal),
            id2=str(tenant),
        )
    age(graph)
    run = incremental(pg, tenant)
    assert run.message == "full run because deals have reappeared in the graph: 1"
    assert (run.mode, run.deals_updated) == ("full", 1)
    assert one(pg, "SELECT latest_ai_summary FROM opportunities WHERE graph_opportunity_id = %s", deal) == "as it was"
    assert (incremental(pg, tenant).mode, incremental(pg, tenant).message) == ("incremental", None)


def test_what_a_run_knows_of_a_tenant_is_looked_up_once_and_not_for_each_node(
    database: Database, graph: Graph, tenant: uuid.UUID
) -> None:
    for _ in range(30):
        add_deal(graph, tenant)
    barred, rejected = add_deal(graph, tenant), add_deal(graph, tenant, opportunity_id=str(uuid.uuid4()))
    session = database.connect(autocommit=False)
    session.execute("SET track_functions = 'all'")
    session.execute("INSERT INTO deal_sync.barred (tenant_id, graph_id) VALUES (%s, %s)", [tenant, barred])
    [node] = graph.run("MATCH (d:Deal {opportunity_id: $id}) RETURN elementId(d) AS id", id=str(rejected))
    session.execute(
        "INSERT INTO deal_sync.rejects (tenant_id, kind, level, element_id, column_name, sqlstate, message, run_id)"
        " VALUES (%s, 'deal', 'row', %s, '', '23514', 'x', gen_random_uuid())",
        [tenant, node["id"]],
    )
    assert one(session, "SELECT cardinality(u.elements) FROM _deal_sync.unread('deal', %s) AS u", tenant) == 30
    counted = "SELECT f.funcname, f.calls FROM pg_stat_xact_user_functions AS f WHERE f.schemaname = '_deal_sync'"
    calls: dict[str, int] = dict(session.execute(counted).fetchall())
    assert calls["unread"] == calls["graph_keys"] == calls["keys_held"] == 1
    # PostgreSQL 18 calls each once more, to estimate how many rows it gives.
    most = 2 if session.info.server_version >= 180000 else 1
    assert calls["barred_of"] <= most
    assert calls["rejected_elements"] <= most


def test_nodes_are_counted_once_an_hour_where_that_takes_long(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    age(graph)
    assert [incremental(pg, tenant).mode for _ in range(2)] == ["full", "incremental"]
    pg.execute("UPDATE deal_sync.watermarks SET facts = facts || jsonb_build_object('count_ms', 11)")
    add_deal(graph, tenant)
    age(graph)
    assert incremental(pg, tenant).deals_read == 0
    pg.execute(
        "UPDATE deal_sync.watermarks SET facts = facts || jsonb_build_object('counted_at', now() - interval '61min')"
    )
    assert incremental(pg, tenant).deals_inserted == 1


def test_a_transaction_that_neo4j_has_had_open_for_long_is_named(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute("SET deal_sync.overlap = '200ms'")
    pg.execute("SELECT * FROM deal_sync.scan(NULL::neo4j.deals) LIMIT 1")
    with graph.driver.session() as session, session.begin_transaction() as transaction:
        transaction.run("CREATE (d:Deal {tenant_id: $tenant})", tenant=str(tenant)).consume()
        time.sleep(1.3)
        for mode in ("full", "incremental"):
            message = str(sync(pg, tenant, mode=mode).message)
            assert message.startswith("transactions that have been open in Neo4j for longer than deal_sync.overlap, ")
            assert " may miss: neo4j-transaction-" in message
            assert message.count("-transaction-") == 1
        transaction.rollback()
    assert incremental(pg, tenant).message is None


# -- What stops a run --------------------------------------------------------------------------------------------------


def test_another_graph_stops_every_run_until_it_is_accepted(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deal(graph, tenant)
    incremental(pg, tenant)
    pg.execute("UPDATE deal_sync.graph SET database_id = 'of the staging graph'")
    add_deal(graph, tenant)
    for mode in ("incremental", "full"):
        run = sync(pg, tenant, mode=mode)
        assert run.status == "failed"
        assert run.message is not None
        assert run.message.startswith("this is not the graph this database was loaded from")
        assert "SELECT deal_sync.accept_graph()" in run.message
    with pytest.raises(psycopg.Error) as raised:
        sync(pg, tenant, strict=True)
    assert raised.value.sqlstate == "DS004"
    assert one(pg, "SELECT count(*) FROM opportunities") == 1
    [known] = graph.run("CALL db.info() YIELD id RETURN id")
    assert one(pg, "SELECT deal_sync.accept_graph()") == known["id"]
    run = incremental(pg, tenant)
    assert (run.mode, run.status, run.deals_inserted) == ("full", "ok", 1)
    assert one(pg, "SELECT count(*) FROM deal_sync.graph") == 1


def test_a_graph_is_accepted_in_a_database_that_publishes_all_tables(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    incremental(pg, tenant)
    pg.execute("SET client_min_messages = error; CREATE PUBLICATION everything FOR ALL TABLES")
    pg.execute("UPDATE deal_sync.graph SET database_id = 'another'")
    pg.execute("SELECT deal_sync.accept_graph()")
    assert incremental(pg, tenant).status == "ok"


def test_every_table_of_the_extension_has_a_primary_key(pg: Connection) -> None:
    """Otherwise a publication FOR ALL TABLES prevents updating it or deleting from it."""
    without = pg.execute(
        "SELECT c.oid::regclass::text FROM pg_class AS c"
        " WHERE c.relkind IN ('r', 'p') AND c.relnamespace IN ('deal_sync'::regnamespace, '_deal_sync'::regnamespace)"
        " AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)"
    ).fetchall()
    assert without == []


def test_a_graph_that_cannot_be_reached_is_not_accepted(pg: Connection, graph: Graph) -> None:
    pg.execute("ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')")
    with pytest.raises(psycopg.OperationalError, match=r"^could not connect to Neo4j server") as raised:
        pg.execute("SELECT deal_sync.accept_graph()")
    assert raised.value.sqlstate == "08006"


def test_the_watermark_of_a_run_that_began_with_the_graph_before_does_not_count(
    database: Database, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    age(graph)
    [known] = graph.run("CALL db.info() YIELD id RETURN id")
    before = database.connect(autocommit=False)
    assert incremental(before, tenant).mode == "full"
    pg.execute("SELECT deal_sync.accept_graph()")
    before.execute("UPDATE deal_sync.watermarks SET mapping = replace(mapping, %s, 'another')", [known["id"]])
    before.execute("UPDATE deal_sync.graph SET database_id = 'another' WHERE accepted_at = now()")
    before.commit()
    pg.execute("DELETE FROM opportunities")
    run = incremental(pg, tenant)
    assert (run.mode, run.status, run.message) == ("full", "ok", "full run because the graph is a different one")
    assert run.deals_inserted == 1


def test_a_run_whose_graph_becomes_another_one_meanwhile_writes_nothing(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deal(graph, tenant)
    pg.execute(
        "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE deal_sync.graph SET database_id = 'another'; RETURN new; END $$;"
        "CREATE TRIGGER change AFTER INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION change()"
    )
    run = incremental(pg, tenant)
    assert run.status == "failed"
    assert "not the graph this database was loaded from" in str(run.message)
    assert one(pg, "SELECT count(*) FROM opportunities") == 0
    assert one(pg, "SELECT count(*) FROM deal_sync.watermarks") == 0


def test_a_deal_that_is_barred_does_not_land_nor_do_its_versions(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    barred, other = add_deal(graph, tenant), add_deal(graph, tenant)
    for deal in (barred, other):
        add_version(graph, tenant, deal, change_source_interaction_id=str(uuid.uuid4()))
    pg.execute("INSERT INTO deal_sync.barred (tenant_id, graph_id) VALUES (%s, %s)", [tenant, barred])
    for mode in ("incremental", "incremental", "full"):
        assert sync(pg, tenant, mode=mode).status == "ok"
        assert pg.execute("SELECT id FROM opportunities").fetchall() == [(other,)]
        assert pg.execute("SELECT opportunity_id FROM deal_versions").fetchall() == [(other,)]
        assert pg.execute("SELECT entity_id FROM interaction_links").fetchall() == [(other,)]
