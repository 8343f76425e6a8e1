"""Flows in: graphs in which values vanish or become misfits. Flows out: rows that keep theirs, or failed runs."""

import re
import uuid
from typing import Any, LiteralString

import psycopg
import pytest
from support.database import Connection
from support.graph import Graph
from support.sync import Run, add_deal, add_tenant, one, sync

VALUES: LiteralString = "SELECT count(deal_ref) FROM opportunities WHERE tenant_id = %s"
UNFIT = "SET d.deal_ref = [1], d.last_updated_at = datetime()"
RENAME = "SET d.dealRef = d.deal_ref, d.last_updated_at = datetime() REMOVE d.deal_ref"
REPLAY: LiteralString = "SELECT status, message FROM deal_sync.replay(%s)"


@pytest.fixture
def tenant(pg: Connection, graph: Graph) -> uuid.UUID:
    return add_tenant(pg)


def add_deals(graph: Graph, tenant: uuid.UUID, number: int, **properties: Any) -> None:
    """Deals with a deal_ref each, `number` from 0; their ids come in that order."""
    graph.run(
        "UNWIND range(0, $number - 1) AS n CREATE (d:Deal {tenant_id: $tenant, name: 'Acme', number: n,"
        " stage: 'proposal', deal_ref: 'R' + n, last_updated_at: datetime(),"
        " opportunity_id: right('0000000' + n, 8) + '-0000-4000-8000-' + $suffix}) SET d += $properties",
        number=number, tenant=str(tenant), suffix=tenant.hex[-12:], properties=properties,
    )  # fmt: skip


def lose(graph: Graph, number: int, how: str = RENAME) -> None:
    """The first deals lose their deal_ref, as a writer does that has renamed it."""
    graph.run(f"MATCH (d:Deal) WHERE d.number < $number {how}", number=number)


def run_replay(pg: Connection, tenant: uuid.UUID) -> tuple[str, str | None]:
    run = pg.execute(REPLAY, [tenant]).fetchone()
    assert run is not None
    return run


def outcome(run: Run) -> tuple[str, str | None]:
    return run.status, run.message


RUNS = {
    "incremental": lambda pg, tenant: outcome(sync(pg, tenant, mode="incremental")),
    "full": lambda pg, tenant: outcome(sync(pg, tenant)),
    "dry run": lambda pg, tenant: outcome(sync(pg, tenant, mode="incremental", dry_run=True)),
    "replay": run_replay,
}


@pytest.mark.parametrize("how", [RENAME, UNFIT], ids=["gone", "misfit"])
@pytest.mark.parametrize("mode", RUNS)
def test_a_run_in_no_mode_clears_a_fifth_of_a_columns_values(
    pg: Connection, graph: Graph, tenant: uuid.UUID, mode: str, how: str
) -> None:
    add_deals(graph, tenant, 300)
    sync(pg, tenant)
    lose(graph, 300, how)
    status, message = RUNS[mode](pg, tenant)
    assert status == "failed"
    assert message is not None
    assert 'the run would replace 300 of 300 values in column "deal_ref" of public.opportunities with NULL' in message
    assert 'The column is filled from column "deal_ref" of neo4j.deals; in the graph the property is absent' in message
    assert "SET deal_sync.max_loss = 100" in message
    assert one(pg, VALUES, tenant) == 300
    pg.execute("SET deal_sync.max_loss = 100")
    status, message = RUNS[mode](pg, tenant)
    assert status == ("ok" if how == RENAME else "partial")
    assert "cleared: deal_ref (300)" in str(message)
    assert one(pg, VALUES, tenant) == (300 if mode == "dry run" else 0)


@pytest.mark.parametrize(
    ("deals", "lost", "is_mass"),
    [(19, 19, False), (20, 20, True), (100, 20, False), (99, 20, True), (110, 22, False), (109, 22, True)],
)
def test_it_takes_more_than_a_fifth_and_at_least_20_values(
    pg: Connection, graph: Graph, tenant: uuid.UUID, deals: int, lost: int, is_mass: bool
) -> None:
    add_deals(graph, tenant, deals)
    add_deals(graph, add_tenant(pg), 200)  # another tenant's do not count
    sync(pg, tenant)
    lose(graph, lost)
    run = sync(pg, tenant, mode="incremental")
    assert (run.mode, run.status) == ("incremental", "failed" if is_mass else "ok")
    assert one(pg, VALUES, tenant) == deals - (0 if is_mass else lost)
    if not is_mass:
        assert run.message == f"cleared: deal_ref ({lost})"


def test_vanished_and_unfit_values_add_up_and_all_columns_are_named(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deals(graph, tenant, 40, opportunity_summary="a summary")
    sync(pg, tenant)
    lose(graph, 12)
    graph.run("MATCH (d:Deal) WHERE d.number >= 28 SET d.deal_ref = point({x: 1, y: 2})")
    graph.run("MATCH (d:Deal) WHERE d.number < 22 REMOVE d.opportunity_summary SET d.confidence = 0.5")
    status, message = outcome(sync(pg, tenant))
    assert status == "failed"
    assert message is not None
    assert 'replace 24 of 40 values in column "deal_ref" of public.opportunities' in message
    assert 'It would also replace 22 of 40 values in column "latest_ai_summary".' in message


def test_values_are_counted_as_they_were_before_the_run(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    """60 of 120 deals lose theirs: the 400 that are new in the same run, in earlier batches, make no difference."""
    add_deals(graph, tenant, 120)
    sync(pg, tenant)
    lose(graph, 60)
    graph.run(
        "UNWIND range(1, 400) AS n CREATE (d:Deal {tenant_id: $tenant, name: 'new', stage: 'proposal', deal_ref: 'new',"
        " opportunity_id: randomUUID(), last_updated_at: datetime()})",
        tenant=str(tenant),
    )
    pg.execute("SET deal_sync.batch_rows = 50")
    status, message = outcome(sync(pg, tenant))
    assert status == "failed"
    assert "60 of 120 values" in str(message)


def test_a_first_load_loses_nothing_whatever_does_not_fit(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    """A tenant whose account ids are no UUIDs, and whose confidences are texts, syncs."""
    add_deals(graph, tenant, 60, account_id="ACC-7", confidence="high")
    for mode in ("full", "incremental", "full"):
        run = sync(pg, tenant, mode=mode)
        assert (run.status, run.deals_read, run.values_rejected) == ("partial", 60, 120), run.message
        assert "cleared" not in str(run.message)


def test_columns_that_are_written_once_or_where_they_are_null_or_kept_lose_nothing(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN deal_ref OPTIONS (ADD write 'fill')")
    pg.execute("ALTER FOREIGN TABLE neo4j.deals ALTER COLUMN confidence OPTIONS (ADD on_misfit 'keep')")
    add_deals(graph, tenant, 30, account_id=str(uuid.uuid4()), confidence=0.5)
    sync(pg, tenant)
    graph.run("MATCH (d:Deal) REMOVE d.account_id, d.deal_ref SET d.confidence = 'high', d.version = 2")
    run = sync(pg, tenant)
    assert (run.status, run.deals_updated) == ("partial", 30)
    assert "cleared" not in str(run.message)
    query: LiteralString = "SELECT count(account_id), count(deal_ref), count(extraction_confidence) FROM opportunities"
    assert pg.execute(query).fetchone() == (30, 30, 30)


def test_what_adopted_rows_held_counts(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deals(graph, tenant, 30)
    graph.run("MATCH (d:Deal) REMOVE d.deal_ref")
    keys = [found["key"] for found in graph.run("MATCH (d:Deal) RETURN d.opportunity_id AS key")]
    pg.execute(
        "INSERT INTO opportunities (id, tenant_id, opportunity_name, deal_ref, updated_at)"
        " SELECT k::uuid, %s, 'theirs', 'theirs', now() FROM unnest(%s::text[]) AS k",
        [tenant, keys],
    )
    status, message = outcome(sync(pg, tenant))
    assert status == "failed"
    assert "30 of 30 values" in str(message)
    assert one(pg, VALUES, tenant) == 30


def test_a_column_that_follows_another_name_is_named_as_both(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    """What a DBA sees in the table, and what to look for in the mapping."""
    add_deals(graph, tenant, 20, opportunity_summary="a summary")
    sync(pg, tenant)
    graph.run("MATCH (d:Deal) REMOVE d.opportunity_summary")
    status, message = outcome(sync(pg, tenant))
    assert status == "failed"
    assert '20 of 20 values in column "latest_ai_summary"' in str(message)
    assert 'The column is filled from column "opportunity_summary" of neo4j.deals' in str(message)


def test_many_columns_are_named_by_their_number(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deals(graph, tenant, 20, confidence=0.5, version=1, opportunity_summary="x", evolution_summary="x",
              qualification_status="x")  # fmt: skip
    sync(pg, tenant)
    graph.run(
        "MATCH (d:Deal) REMOVE d.confidence, d.version, d.opportunity_summary, d.evolution_summary,"
        " d.qualification_status, d.deal_ref"
    )
    status, message = outcome(sync(pg, tenant))
    assert status == "failed"
    assert ", and values in 1 more columns." in str(message)


def test_rows_of_deals_that_are_gone_from_the_graph_keep_their_values(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deals(graph, tenant, 51)
    sync(pg, tenant)
    graph.run("MATCH (d:Deal) DETACH DELETE d")
    add_deal(graph, tenant)
    assert outcome(sync(pg, tenant)) == ("ok", "rows whose deal is not in the graph: 51")
    assert one(pg, VALUES, tenant) == 51


def test_rows_that_a_trigger_rejects_have_lost_nothing(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deals(graph, tenant, 50)
    sync(pg, tenant)
    pg.execute(
        "CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF old.deal_ref <> 'R0' THEN RAISE 'no'; END IF; RETURN new; END $$;"
        "CREATE TRIGGER reject BEFORE UPDATE ON opportunities FOR EACH ROW EXECUTE FUNCTION reject()"
    )
    lose(graph, 25)
    run = sync(pg, tenant)
    assert (run.status, run.rows_rejected) == ("partial", 24)
    assert "cleared: deal_ref (1)" in str(run.message)


def backfill(pg: Connection, tenant: uuid.UUID, batch_size: int) -> None:
    pg.execute("CALL deal_sync.backfill(%s, %s)", [tenant, batch_size])


def test_a_backfill_adds_up_its_batches_and_rolls_back_the_one_that_goes_over(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deals(graph, tenant, 200)
    sync(pg, tenant)
    lose(graph, 45)
    for _ in range(2):  # the second goes on with what the first has left, and knows what it cleared
        with pytest.raises(psycopg.Error) as raised:
            backfill(pg, tenant, 15)
        assert raised.value.sqlstate == "DS006"
        assert '45 of 200 values in column "deal_ref"' in str(raised.value.diag.message_detail)
        assert one(pg, VALUES, tenant) == 170
        assert pg.execute("SELECT done, cleared, (held ->> 'deal_ref')::int FROM deal_sync.backfills").fetchall() == [
            (30, {"deal_ref": 30}, 200)
        ]
    pg.execute("SET deal_sync.max_loss = 100")
    backfill(pg, tenant, 15)
    assert one(pg, VALUES, tenant) == 155
    message = one(pg, "SELECT message FROM deal_sync.runs WHERE mode = 'backfill' AND status = 'ok'")
    assert message == "cleared: deal_ref (45)"


def test_a_backfill_counts_values_as_they_were_at_its_beginning(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_deals(graph, tenant, 200)
    graph.run("MATCH (d:Deal) WHERE d.number < 100 REMOVE d.deal_ref")
    sync(pg, tenant)
    graph.run("MATCH (d:Deal) WHERE d.number < 100 SET d.deal_ref = 'new'")
    graph.run("MATCH (d:Deal) WHERE d.number >= 170 REMOVE d.deal_ref")
    with pytest.raises(psycopg.Error) as raised:
        backfill(pg, tenant, 50)
    assert re.search("30 of 100 values", str(raised.value.diag.message_detail))
    assert one(pg, VALUES, tenant) == 200


def test_values_that_never_fitted_do_not_stop_a_backfill(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_deals(graph, tenant, 60, confidence="high")
    backfill(pg, tenant, 20)
    query: LiteralString = "SELECT status, values_rejected FROM deal_sync.runs"
    assert pg.execute(query).fetchall() == [("partial", 60)]
