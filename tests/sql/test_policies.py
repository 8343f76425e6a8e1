"""Flows in: rows of which people and the forecast pipeline own columns. Flows out: who writes what, and that nothing is
written if nothing changed.
"""

import uuid
from datetime import date
from decimal import Decimal
from typing import Any

from psycopg import sql
from support.database import Connection
from support.deals import PEOPLES, PIPELINES, AddNode, alter_mapping, full_deal, full_deal_but, insert, opportunity
from support.graph import Graph
from support.sync import clean, counts, one, sync

# -- who owns a column -------------------------------------------------------------------------------------------------


def test_what_people_and_the_forecast_pipeline_own_is_never_written_nor_mentioned(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """An AFTER UPDATE OF trigger fires for a column in the SET list, changed or not: no job may be queued."""
    new, adopted = deal(amount=5.0, **full_deal_but("amount")), deal(amount=6.0)
    theirs = PEOPLES | PIPELINES
    insert(pg, "opportunities", id=adopted.id, tenant_id=tenant, **theirs)
    version(new)

    sync(writer, tenant)
    for node in (new, adopted):
        node.set(amount=7.0, stage="closed_won", closed_at="2026-06-01", opportunity_summary="changed")
    run = sync(writer, tenant)

    assert counts(run) == (2, 0, 2, 0, 0)
    assert {name: opportunity(pg, new)[name] for name in theirs} == dict.fromkeys(theirs)
    assert {name: opportunity(pg, adopted)[name] for name in theirs} == theirs
    assert one(pg, "SELECT count(*) FROM forecast_jobs") == 0


def test_insert_only_columns_are_written_with_the_row_and_never_again(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    first, second = uuid.uuid4(), uuid.uuid4()
    edited = deal(name="graph", account_id=str(first), currency="EUR", closed_at="2026-01-01")
    bare = deal(name=None)
    sync(writer, tenant)
    pg.execute(
        "UPDATE opportunities SET opportunity_name = 'people', account_id = NULL, currency = 'CHF' WHERE id = %s",
        [edited.id],
    )
    for node in (edited, bare):
        node.set(
            name="again", account_id=str(second), currency="GBP", closed_at="2026-02-02", opportunity_summary="new"
        )

    run = sync(writer, tenant)

    clean(run)
    assert counts(run) == (2, 0, 2, 0, 0)
    names = ("opportunity_name", "account_id", "currency", "actual_close_date", "latest_ai_summary")
    assert [opportunity(pg, edited)[name] for name in names] == ["people", None, "CHF", date(2026, 1, 1), "new"]
    assert [opportunity(pg, bare)[name] for name in names] == [None, None, "USD", None, "new"]


def test_fill_writes_where_the_row_has_null_and_touches_nothing_that_people_entered(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    theirs, first, second = (uuid.uuid4() for _ in range(3))
    empty, entered = deal(), deal()
    sync(writer, tenant)
    pg.execute("UPDATE opportunities SET account_id = %s WHERE id = %s", [theirs, entered.id])
    alter_mapping(pg, "ALTER COLUMN account_id OPTIONS (SET write 'fill')")
    for node in (empty, entered):
        node.set(account_id=str(first))

    run = sync(writer, tenant)

    assert counts(run) == (2, 0, 1, 1, 0)
    assert opportunity(pg, empty)["account_id"] == first
    assert opportunity(pg, entered)["account_id"] == theirs

    # What is filled stays: another value, or none, changes nothing any more.
    empty.set(account_id=str(second))
    entered.set(account_id=None)
    assert counts(sync(writer, tenant)) == (2, 0, 0, 2, 0)
    assert opportunity(pg, empty)["account_id"] == first

    # A new row is filled too.
    new = deal(account_id=str(second))
    sync(writer, tenant)
    assert opportunity(pg, new)["account_id"] == second


def test_a_property_that_vanished_becomes_null(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(**full_deal())
    sync(writer, tenant)
    node.set(**dict.fromkeys(full_deal()))

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.values_rejected) == ("ok", 0, 0)
    assert str(run.message).startswith("cleared: ai_evolution_summary (1), deal_ref (1), dim_champion_strength (1), ")
    assert counts(run) == (1, 0, 1, 0, 0)
    landed = {name: value for name, value in opportunity(pg, node).items() if value is not None}
    metadata = landed.pop("ai_workflow_metadata")
    insert_only = {"opportunity_name", "account_id", "currency", "actual_close_date"}
    assert landed.keys() == insert_only | {
        *("id", "tenant_id", "graph_opportunity_id", "created_at", "updated_at"),
        *("meddic_completeness", "ontology_completeness"),
    }
    assert (landed["meddic_completeness"], landed["ontology_completeness"]) == (0, 0)
    assert len(metadata) == 8
    assert {name for name, value in metadata.items() if value is not None} == {
        *("source", "deal_name", "stage_assessment")
    }


def test_a_policy_changed_by_alter_holds_from_the_next_run_on(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(name="graph", qualification_status="old")
    sync(writer, tenant)
    pg.execute("UPDATE opportunities SET opportunity_name = 'people' WHERE id = %s", [node.id])
    alter_mapping(pg, "ALTER COLUMN name OPTIONS (SET write 'always')")
    alter_mapping(pg, "ALTER COLUMN qualification_status OPTIONS (ADD write 'never')")
    node.set(qualification_status="new")

    run = sync(writer, tenant)

    assert counts(run) == (1, 0, 1, 0, 0)
    assert opportunity(pg, node)["opportunity_name"] == "graph"
    assert opportunity(pg, node)["qualification_status"] == "old"

    # always means NULL too; and back again
    node.set(name=None)
    sync(writer, tenant)
    assert opportunity(pg, node)["opportunity_name"] is None
    alter_mapping(pg, "ALTER COLUMN name OPTIONS (SET write 'insert')")
    node.set(name="graph")
    assert counts(sync(writer, tenant))[2] == 1  # the deal's name in ai_workflow_metadata
    assert opportunity(pg, node)["opportunity_name"] is None


def test_the_services_later_choice_stage_and_amount_always_and_open_on_insert_takes_alter_alone(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    alter_mapping(pg, "ALTER COLUMN stage OPTIONS (SET write 'always')")
    alter_mapping(pg, "ALTER COLUMN amount OPTIONS (SET write 'always')")
    alter_mapping(pg, "ADD COLUMN deal_status text OPTIONS (target 'deal_status', write 'insert', \"default\" 'open')")
    known, new = deal(stage="negotiation", amount=12.345), deal(stage="proposal", amount=7)
    theirs = PEOPLES | PIPELINES
    insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=known.id, **theirs)

    run = sync(writer, tenant)

    clean(run)
    assert counts(run) == (2, 1, 1, 0, 0)
    names = ("stage", "amount", "deal_status")
    assert [opportunity(pg, new)[name] for name in names] == ["proposal", Decimal("7.00"), "open"]
    assert [opportunity(pg, known)[name] for name in names] == ["negotiation", Decimal("12.35"), "their status"]
    untouched = {name: value for name, value in theirs.items() if name not in names}
    assert {name: opportunity(pg, known)[name] for name in untouched} == untouched
    # They asked for it: a job for the row that was updated.
    assert one(pg, "SELECT count(*) FROM forecast_jobs") == 1

    known.set(amount=None, stage="closed_lost")
    sync(writer, tenant)
    assert [opportunity(pg, known)[name] for name in names] == ["closed_lost", None, "their status"]


# -- no write if nothing changed ---------------------------------------------------------------------------------------


TABLES = ("opportunities", "deal_versions", "interaction_links")


def places(pg: Connection, tenant: uuid.UUID) -> list[tuple[Any, ...]]:
    """Where each row of the tenant stands, and which transaction put it there."""
    return [
        found
        for table in TABLES
        for found in pg.execute(
            sql.SQL("SELECT ctid::text, xmin::text, xmax::text, id FROM {} WHERE tenant_id = %s ORDER BY id").format(
                sql.Identifier(table)
            ),
            [tenant],
        )
    ]


def test_a_run_in_which_nothing_changed_writes_no_row(
    pg: Connection, writer: Connection, graph: Graph, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """xmin and place of every row stay, and the log grows by the run's own record and little else."""
    for _ in range(150):
        node = deal(**full_deal())
        version(node, change_source_interaction_id=str(uuid.uuid4()), changed_fields=["stage"])
    first = sync(writer, tenant)
    assert (first.deals_inserted, first.versions_inserted, first.links_inserted) == (150, 150, 300)
    before = places(pg, tenant)
    pg.execute("CHECKPOINT")
    start = one(pg, "SELECT pg_current_wal_lsn()")

    run = sync(writer, tenant)

    grown = one(pg, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)", start)
    clean(run)
    assert counts(run) == (150, 0, 0, 150, 0)
    assert (run.versions_inserted, run.links_inserted) == (0, 0)
    assert places(pg, tenant) == before
    assert grown < 250_000  # measured: 67 kB, the catalog rows of staging; an update of all would be 2 MB


def test_a_row_in_which_nothing_changed_fires_no_trigger(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    changed, unchanged = deal(**full_deal()), deal(**full_deal() | {"account_id": "no uuid"})
    sync(writer, tenant)
    pg.execute("CREATE TABLE written (id uuid)")
    pg.execute("GRANT INSERT ON written TO app_writer")
    pg.execute(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO written VALUES (new.id); RETURN new; END'"
    )
    pg.execute("CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON opportunities FOR EACH ROW EXECUTE FUNCTION tell()")
    changed.set(opportunity_summary="news")
    unchanged.set(forecast_score=0.9, last_updated_at="2026-09-09T00:00:00Z", amount=full_deal()["amount"])

    run = sync(writer, tenant)

    assert counts(run) == (2, 0, 1, 1, 0)
    assert pg.execute("SELECT id FROM written").fetchall() == [(changed.id,)]


def test_updated_at_moves_on_a_real_change_only(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    changed, unchanged = deal(opportunity_summary="old"), deal(opportunity_summary="old")
    sync(writer, tenant)
    at_first = opportunity(pg, changed)["updated_at"]
    changed.set(opportunity_summary="new")

    before = one(pg, "SELECT clock_timestamp()")
    run = sync(writer, tenant)
    after = one(pg, "SELECT clock_timestamp()")

    assert counts(run) == (2, 0, 1, 1, 0)
    assert opportunity(pg, unchanged)["updated_at"] == at_first
    assert before < opportunity(pg, changed)["updated_at"] < after
    assert opportunity(pg, changed)["created_at"] == at_first
