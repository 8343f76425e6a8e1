"""Flows in: a graph as the service writes it, and tables that hold people's data.
Flows out: what lands where, rule by rule of docs/internals/rules.md; what cannot land is test_refusals.py's.
"""

import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from neo4j.time import Date, DateTime
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC
from psycopg import sql
from support.database import Connection, Database
from support.deals import Node, deal_node, full_deal, insert, row, rows, version_node
from support.graph import Graph
from support.sync import Reject, Run, add_tenant, one, rejects, sync

AddDeal = Callable[..., Node]

ALWAYS = [name for dimension in DIMENSIONS for name in (f"dim_{dimension}", f"dim_{dimension}_confidence")]
PEOPLES = {
    "stage": "their stage",
    "amount": Decimal("12.50"),
    "close_date": date(2026, 5, 1),
    "deal_status": "their status",
    "forecast_category": "commit",
    "next_step": "call them",
    "description": "their words",
    "lost_reason": "their reason",
}
PIPELINES = {
    "latest_forecast_amount": Decimal("99.00"),
    "latest_forecast_confidence": Decimal("0.50"),
    "latest_forecast_at": datetime(2026, 1, 2, tzinfo=UTC),
    "forecast_count": 7,
    "attribute_maturity_stage": "ripe",
    "latest_user_context": None,
}


@pytest.fixture
def tenant(pg: Connection) -> uuid.UUID:
    return add_tenant(pg)


@pytest.fixture
def other_tenant(pg: Connection) -> uuid.UUID:
    return add_tenant(pg)


@pytest.fixture
def deal(graph: Graph, tenant: uuid.UUID) -> AddDeal:
    """Adds a Deal node of the tenant."""
    return lambda **properties: deal_node(graph, tenant, **properties)


@pytest.fixture
def version(graph: Graph, tenant: uuid.UUID) -> AddDeal:
    """Adds a DealVersion node of a deal of the tenant."""
    return lambda of, **properties: version_node(graph, tenant, of, **properties)


def opportunity(pg: Connection, node: Node) -> dict[str, Any]:
    return row(pg, "opportunities", graph_opportunity_id=node.id)


def alter_mapping(pg: Connection, change: str, table: str = "deals") -> None:
    pg.execute(sql.SQL(f"ALTER FOREIGN TABLE neo4j.{table} {change}"))


def clean(run: Run) -> None:
    """Everything landed."""
    assert (run.status, run.rows_rejected, run.values_rejected, run.message) == ("ok", 0, 0, None)


def counts(run: Run) -> tuple[int, int, int, int, int]:
    """Read, inserted, updated, unchanged, adopted."""
    return run.deals_read, run.deals_inserted, run.deals_updated, run.deals_unchanged, run.deals_adopted


# -- a deal, whole -----------------------------------------------------------------------------------------------------


def test_a_deal_lands_with_every_property_at_its_column(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    properties = full_deal()
    node = deal(name="Acme renewal", stage="negotiation", **properties)

    run = sync(writer, tenant)

    clean(run)
    assert counts(run) == (1, 1, 0, 0, 0)
    landed = opportunity(pg, node)
    assert landed.pop("created_at") == landed.pop("updated_at")
    for column in ("extraction_embedding", "extraction_embedding_current"):
        landed[column] = json.loads(landed[column])
    two_places = Decimal("0.01")
    assert landed == {
        "id": node.id,
        "tenant_id": tenant,
        "graph_opportunity_id": node.id,
        "opportunity_name": "Acme renewal",
        "currency": "EUR",
        "account_id": uuid.UUID(properties["account_id"]),
        "actual_close_date": date(2026, 11, 30),  # the day as written
        "deal_ref": "deal_8000000000000001",
        "qualification_status": "qualified",
        "latest_ai_summary": "They renew for three years.",
        "ai_evolution_summary": "Moved from trial to negotiation.",
        **{name: f"what {name} says" for name in MEDDIC},
        **{f"{name}_confidence": Decimal(number + 1) / 10 for number, name in enumerate(MEDDIC)},
        "meddic_completeness": Decimal("0.90"),
        "meddic_paper_process": "legal has the draft",
        "meddic_competition": "one rival",
        **{f"dim_{name}": number % 4 for number, name in enumerate(DIMENSIONS)},
        **{
            f"dim_{name}_confidence": (Decimal(number) / 16).quantize(two_places, "ROUND_HALF_UP")
            for number, name in enumerate(DIMENSIONS)
        },
        "ontology_scores_json": {
            name: {"score": number % 4, "confidence": number / 16, "evidence": None}
            for number, name in enumerate(DIMENSIONS)
        },
        "ontology_completeness": Decimal("0.75"),
        "ontology_version": "2026.1",
        "extraction_embedding": properties["embedding"],
        "extraction_embedding_current": properties["embedding_current"],
        "extraction_confidence": Decimal("0.88"),
        "extraction_version": 3,
        "source_interaction_id": uuid.UUID(properties["source_interaction_id"]),
        "ai_workflow_metadata": {
            "source": "deal_graph",
            "deal_name": "Acme renewal",
            "stage_assessment": "negotiation",
            "amount_estimate": 150000.5,
            "currency": "EUR",
            "deal_ref": "deal_8000000000000001",
            "expected_close_date": "2026-12-01",
            "closed_at": "2026-11-30T23:30:00-05:00",
        },
        "source_user_id": None,
        **dict.fromkeys(PEOPLES),
        **dict.fromkeys(PIPELINES),
    }


def test_what_a_skeleton_lacks_is_null_and_no_stand_in(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal(name="Skeleton", stage="prospecting")

    clean(sync(writer, tenant))

    landed = {name: value for name, value in opportunity(pg, node).items() if value is not None}
    del landed["created_at"], landed["updated_at"]
    assert landed == {
        "id": node.id,
        "tenant_id": tenant,
        "graph_opportunity_id": node.id,
        "opportunity_name": "Skeleton",
        "currency": "USD",
        "meddic_completeness": 0,
        "ontology_completeness": 0,
        "ai_workflow_metadata": {
            "source": "deal_graph",
            "deal_name": "Skeleton",
            "stage_assessment": "prospecting",
            "amount_estimate": None,
            "currency": None,
            "deal_ref": None,
            "expected_close_date": None,
            "closed_at": None,
        },
    }


def test_an_absent_property_of_a_not_null_column_takes_the_columns_default_on_insert(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE opportunities ALTER COLUMN extraction_version SET NOT NULL")
    node = deal(version=None)

    clean(sync(writer, tenant))

    assert opportunity(pg, node)["extraction_version"] == 1
    again = sync(writer, tenant)
    assert (again.status, again.deals_unchanged) == ("ok", 1), "what stands in for it stays"


def test_a_stage_outside_the_list_is_a_text_like_any_other(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal(stage="a stage that nobody has listed anywhere")

    clean(sync(writer, tenant))

    assert (
        opportunity(pg, node)["ai_workflow_metadata"]["stage_assessment"] == "a stage that nobody has listed anywhere"
    )


# -- tenants and keys --------------------------------------------------------------------------------------------------


def test_the_lower_and_the_upper_case_of_a_tenants_id_are_the_tenant(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    lower = deal(tenant_id=str(tenant).lower())
    upper = deal(tenant_id=str(tenant).upper())
    version(lower, tenant_id=str(tenant).upper(), version=1)
    version(upper, tenant_id=str(tenant).lower(), version=1)

    run = sync(writer, tenant)

    clean(run)
    assert {opportunity(pg, node)["tenant_id"] for node in (lower, upper)} == {tenant}
    assert run.versions_inserted == 2


def test_nodes_with_another_spelling_of_a_tenant_or_none_are_counted_and_land_nowhere(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID, other_tenant: uuid.UUID
) -> None:
    mixed = str(tenant)[:18].upper() + str(tenant)[18:].lower()
    mine = deal()
    for spelling in (tenant.hex, f"{{{tenant}}}", mixed, f" {tenant}", None, 17, [str(tenant)]):
        deal(tenant_id=spelling)
    version(mine, tenant_id=None)
    deal(tenant_id=str(other_tenant))  # somebody's: not counted

    run = sync(writer, tenant)

    assert (run.status, counts(run)) == ("ok", (1, 1, 0, 0, 0))
    assert run.message is not None
    assert "nodes" in run.message
    assert "belong to no tenant" in run.message
    assert re.findall(r"\d+", run.message) == ["8"]
    assert one(pg, "SELECT count(*) FROM opportunities") == 1
    assert one(pg, "SELECT count(*) FROM deal_versions") == 0


def test_ids_are_the_same_in_every_spelling_of_a_uuid(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    id = uuid.uuid4()
    node = deal(opportunity_id=str(id).upper(), account_id=f"{{{id}}}", source_interaction_id=id.hex)
    version(node, deal_opportunity_id=id.hex)

    run = sync(writer, tenant)

    clean(run)
    landed = row(pg, "opportunities", id=id)
    assert landed["graph_opportunity_id"] == landed["account_id"] == landed["source_interaction_id"] == id
    assert row(pg, "deal_versions", tenant_id=tenant)["opportunity_id"] == id
    assert counts(sync(writer, tenant)) == (1, 0, 0, 1, 0)


@pytest.mark.parametrize("role", ["app_writer", "postgres"])
@pytest.mark.parametrize("held", ["graph_opportunity_id", "id"])
def test_a_deal_never_touches_a_row_of_another_tenant(
    role: str,
    held: str,
    database: Database,
    pg: Connection,
    deal: AddDeal,
    version: AddDeal,
    tenant: uuid.UUID,
    other_tenant: uuid.UUID,
) -> None:
    """Whoever calls, a superuser too: the earlier row keeps the id, the later deal is refused with 23505."""
    node, good = deal(), deal()
    version(node)
    theirs = {"tenant_id": other_tenant, "opportunity_name": "theirs", held: node.id}
    before = row(pg, "opportunities", id=insert(pg, "opportunities", **theirs))

    run = sync(database.connect(role), tenant)

    assert (run.status, run.rows_rejected, run.values_rejected) == ("partial", 2, 0)
    assert counts(run) == (2, 1, 0, 0, 0)
    assert rows(pg, "opportunities", tenant_id=other_tenant) == [before]
    assert [found["id"] for found in rows(pg, "opportunities", tenant_id=tenant)] == [good.id]
    refused, version_refused = rejects(pg, tenant)
    assert (refused.kind, refused.level, refused.sqlstate, refused.graph_id) == ("deal", "row", "23505", node.key)
    assert "another row has this key" in refused.message
    assert (version_refused.kind, version_refused.level, version_refused.sqlstate) == ("version", "row", "23503")


def test_a_row_of_another_deal_keeps_its_id(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    """The tenant's row has the deal's id but is another deal: it is neither adopted nor overwritten."""
    node = deal()
    insert(pg, "opportunities", id=node.id, tenant_id=tenant, graph_opportunity_id=uuid.uuid4())
    before = row(pg, "opportunities", id=node.id)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.deals_inserted) == ("partial", 1, 0)
    assert rows(pg, "opportunities", tenant_id=tenant) == [before]
    assert [(reject.level, reject.sqlstate) for reject in rejects(pg, tenant)] == [("row", "23505")]


def test_a_new_row_takes_the_graphs_id_and_an_existing_one_keeps_its_own(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    new, known = deal(), deal(opportunity_summary="news")
    own = insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=known.id)

    run = sync(writer, tenant)

    assert counts(run) == (2, 1, 1, 0, 0)
    assert opportunity(pg, new)["id"] == new.id
    assert opportunity(pg, known)["id"] == own
    assert opportunity(pg, known)["latest_ai_summary"] == "news"


def test_a_deal_that_has_gone_from_the_graph_keeps_its_row(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    gone, stays = deal(), deal()
    version(gone)
    sync(writer, tenant)
    before = opportunity(pg, gone), rows(pg, "deal_versions", tenant_id=tenant)
    gone.delete()

    run = sync(writer, tenant)

    assert (run.status, run.message) == ("ok", "rows whose deal is not in the graph: 1")
    assert counts(run) == (1, 0, 0, 1, 0)
    assert (opportunity(pg, gone), rows(pg, "deal_versions", tenant_id=tenant)) == before
    assert opportunity(pg, stays)


# -- duplicates --------------------------------------------------------------------------------------------------------


def assert_duplicates(pg: Connection, tenant: uuid.UUID, lost: list[Node]) -> None:
    """These nodes are refused as duplicates, and nothing else is."""
    found = pg.execute(
        "SELECT element_id, kind, level, sqlstate, message FROM deal_sync.rejects WHERE tenant_id = %s", [tenant]
    ).fetchall()
    assert sorted(element for element, *_ in found) == sorted(node.element_id for node in lost)
    for _, kind, level, sqlstate, message in found:
        assert (kind, level, sqlstate) == ("deal", "row", "23505")
        assert "duplicate deal" in message


def test_of_several_nodes_with_one_key_the_newest_lands_and_the_others_are_refused(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    id = str(uuid.uuid4())
    old = deal(opportunity_id=id, opportunity_summary="old", last_updated_at="2026-01-01T00:00:00Z")
    # 13:00 UTC, and as a text it is smaller than the next one's 12:59.
    new = deal(opportunity_id=id, opportunity_summary="new", last_updated_at="2026-02-01T11:00:00-02:00")
    timed = deal(
        opportunity_id=id, opportunity_summary="timed", last_updated_at=datetime(2026, 2, 1, 12, 59, tzinfo=UTC)
    )
    never = deal(opportunity_id=id, opportunity_summary="skeleton", last_updated_at=None)
    good = deal()

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.values_rejected) == ("partial", 3, 0)
    assert counts(run) == (5, 2, 0, 0, 0)
    assert opportunity(pg, new)["latest_ai_summary"] == "new"
    assert opportunity(pg, good)
    assert_duplicates(pg, tenant, [old, timed, never])

    # The newest one goes: the next one is the deal, in the next run.
    new.delete()
    run = sync(writer, tenant)
    assert counts(run) == (4, 0, 1, 1, 0)
    assert opportunity(pg, timed)["latest_ai_summary"] == "timed"
    assert_duplicates(pg, tenant, [old, never])

    for node in (old, never):
        node.delete()
    clean(sync(writer, tenant))
    assert rejects(pg, tenant) == []


def test_of_two_nodes_equally_new_the_smaller_element_id_lands(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    id = str(uuid.uuid4())
    nodes = [
        deal(opportunity_id=id, opportunity_summary=f"number {number}", last_updated_at="2026-02-01T00:00:00Z")
        for number in range(3)
    ]
    first, *others = sorted(nodes, key=lambda node: node.element_id)

    run = sync(writer, tenant)

    assert counts(run) == (3, 1, 0, 0, 0)
    assert opportunity(pg, first)["latest_ai_summary"] == f"number {nodes.index(first)}"
    assert_duplicates(pg, tenant, others)


def test_two_spellings_of_one_uuid_and_of_one_tenant_are_one_key(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    id = uuid.uuid4()
    spellings = [str(id), str(id).upper(), id.hex, f"{{{id}}}"]
    nodes = [
        deal(opportunity_id=spelling, opportunity_summary=spelling, last_updated_at=f"2026-02-0{day}T00:00:00Z")
        for day, spelling in enumerate(spellings, start=1)
    ]
    nodes[1].set(tenant_id=str(tenant).upper())
    nodes[1].set(last_updated_at="2026-02-09T00:00:00Z")

    run = sync(writer, tenant)

    assert counts(run) == (4, 1, 0, 0, 0)
    assert row(pg, "opportunities", id=id)["latest_ai_summary"] == spellings[1]
    assert_duplicates(pg, tenant, [nodes[0], nodes[2], nodes[3]])


def test_one_key_with_two_tenants_is_no_duplicate(
    pg: Connection, writer: Connection, graph: Graph, deal: AddDeal, tenant: uuid.UUID, other_tenant: uuid.UUID
) -> None:
    """The key has the tenant in it: the other tenant's newer node does not make this one yield."""
    mine = deal(last_updated_at="2026-01-01T00:00:00Z")
    deal_node(graph, other_tenant, opportunity_id=mine.key, last_updated_at="2026-02-01T00:00:00Z")

    clean(sync(writer, tenant))

    assert opportunity(pg, mine)["tenant_id"] == tenant


# -- adoption ----------------------------------------------------------------------------------------------------------


def test_a_crm_row_with_the_deals_id_is_adopted_and_not_duplicated(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    account = uuid.uuid4()
    node = deal(name="graph", account_id=str(uuid.uuid4()), opportunity_summary="found", closed_at="2026-02-01")
    version(node)
    insert(pg, "opportunities", id=node.id, tenant_id=tenant, opportunity_name="people", account_id=account, **PEOPLES)

    run = sync(writer, tenant)

    clean(run)
    assert counts(run) == (1, 0, 0, 0, 1)
    landed = row(pg, "opportunities", tenant_id=tenant)
    assert landed["id"] == landed["graph_opportunity_id"] == node.id
    assert landed["latest_ai_summary"] == "found"
    assert landed["updated_at"] > datetime(2026, 1, 1, tzinfo=UTC)
    kept = {"opportunity_name": "people", "account_id": account, "currency": None, "actual_close_date": None, **PEOPLES}
    assert {name: landed[name] for name in kept} == kept
    assert run.versions_inserted == 1
    assert counts(sync(writer, tenant)) == (1, 0, 0, 1, 0)


def test_an_adopted_row_is_filled_where_the_policy_is_fill(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    alter_mapping(pg, "ALTER COLUMN account_id OPTIONS (SET write 'fill')")
    account = uuid.uuid4()
    node = deal(account_id=str(account), name="graph")
    insert(pg, "opportunities", id=node.id, tenant_id=tenant)

    assert counts(sync(writer, tenant)) == (1, 0, 0, 0, 1)

    assert (opportunity(pg, node)["account_id"], opportunity(pg, node)["opportunity_name"]) == (account, None)


def test_where_another_row_is_the_deal_already_the_crm_row_is_left_alone_and_noted(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal(opportunity_summary="found")
    own = insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=node.id)
    insert(pg, "opportunities", id=node.id, tenant_id=tenant, opportunity_name="people")
    before = row(pg, "opportunities", id=node.id)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.values_rejected) == ("ok", 0, 0)
    assert counts(run) == (1, 0, 1, 0, 0)
    assert row(pg, "opportunities", id=own)["latest_ai_summary"] == "found"
    assert row(pg, "opportunities", id=node.id) == before
    (note,) = rejects(pg, tenant)
    assert (note.kind, note.level, note.graph_id) == ("deal", "note", node.key)
    assert "duplicate opportunity" in note.message

    # Reported once, however often it is met; and no more once the CRM row is gone.
    assert counts(sync(writer, tenant)) == (1, 0, 0, 1, 0)
    assert len(rejects(pg, tenant)) == 1
    pg.execute("DELETE FROM opportunities WHERE id = %s", [node.id])
    clean(sync(writer, tenant))
    assert rejects(pg, tenant) == []


# -- who owns a column -------------------------------------------------------------------------------------------------


def test_what_people_and_the_forecast_pipeline_own_is_never_written_nor_mentioned(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
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


def full_deal_but(*names: str) -> dict[str, Any]:
    return {name: value for name, value in full_deal().items() if name not in names}


def test_insert_only_columns_are_written_with_the_row_and_never_again(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
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


# -- no write where nothing changed ------------------------------------------------------------------------------------

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
    pg: Connection, writer: Connection, graph: Graph, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
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


# -- dimensions, documents, completeness -------------------------------------------------------------------------------


def test_a_dimension_without_columns_lands_in_the_document(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal(dim_novelty=2, dim_novelty_confidence=0.5, dim_gut_feeling_confidence=0.25)
    version(node, dim_novelty=1)

    clean(sync(writer, tenant))

    assert opportunity(pg, node)["ontology_scores_json"] == {
        "novelty": {"score": 2, "confidence": 0.5, "evidence": None},
        "gut_feeling": {"score": None, "confidence": 0.25, "evidence": None},
    }
    assert row(pg, "deal_versions", tenant_id=tenant)["ontology_scores_json"] == {
        "novelty": {"score": 1, "confidence": None, "evidence": None}
    }


def test_a_dimension_is_added_by_alter_alone(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    known = deal(dim_novelty=2, dim_novelty_confidence=0.5)
    sync(writer, tenant)
    assert opportunity(pg, known)["ontology_completeness"] == 0

    pg.execute("ALTER TABLE opportunities ADD COLUMN dim_novelty smallint")
    pg.execute("ALTER TABLE opportunities ADD COLUMN dim_novelty_confidence numeric(3,2)")
    alter_mapping(pg, "ADD COLUMN dim_novelty bigint OPTIONS (target 'dim_novelty')")
    alter_mapping(pg, "ADD COLUMN dim_novelty_confidence double precision OPTIONS (target 'dim_novelty_confidence')")
    new = deal(dim_novelty=3)
    run = sync(writer, tenant)

    clean(run)
    assert counts(run) == (2, 1, 1, 0, 0)
    names = ("dim_novelty", "dim_novelty_confidence", "ontology_completeness")
    share = (Decimal(1) / (len(DIMENSIONS) + 1)).quantize(Decimal("0.01"))
    assert [opportunity(pg, known)[name] for name in names] == [2, Decimal("0.50"), share]
    assert [opportunity(pg, new)[name] for name in names] == [3, None, share]
    assert opportunity(pg, known)["ontology_scores_json"] == {
        "novelty": {"score": 2, "confidence": 0.5, "evidence": None}
    }


def test_the_scores_hold_every_dimension_that_has_a_score_or_a_confidence(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    scored, unsure, explained, silent, *_ = DIMENSIONS
    node = deal(
        **{
            f"dim_{scored}": 0,
            f"dim_{unsure}_confidence": 0.145,
            f"dim_{explained}": 3,
            f"dim_{explained}_confidence": 1,
            f"dim_{explained}_evidence": "They said so.",
            f"dim_{silent}_evidence": "evidence alone is no score",
        }
    )
    none = deal()

    clean(sync(writer, tenant))

    assert opportunity(pg, node)["ontology_scores_json"] == {
        scored: {"score": 0, "confidence": None, "evidence": None},
        unsure: {"score": None, "confidence": 0.145, "evidence": None},
        explained: {"score": 3, "confidence": 1, "evidence": "They said so."},
    }
    assert opportunity(pg, none)["ontology_scores_json"] is None


def test_completeness_is_the_nodes_own_figure_or_the_share_that_is_there(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    """A confidence is no score, and an empty text is not filled."""
    partly = {
        **{f"dim_{name}": 0 for name in DIMENSIONS[:5]},
        f"dim_{DIMENSIONS[5]}_confidence": 1.0,
        "dim_without_a_column": 3,
        **dict.fromkeys(MEDDIC[:4], "filled"),
        MEDDIC[4]: "",
        f"{MEDDIC[5]}_confidence": 1.0,
    }
    counted = deal(**partly)
    own = deal(**partly, ontology_completeness=0.9, meddic_completeness=1)
    whole = deal(**dict.fromkeys(MEDDIC, "filled"), **{f"dim_{name}": 1 for name in DIMENSIONS})
    for node in (counted, own):
        figures = {"ontology_completeness": 0.9, "meddic_completeness": 1} if node is own else {}
        version(node, **partly, **figures)

    clean(sync(writer, tenant))

    def figures_of(found: dict[str, Any]) -> tuple[Decimal, Decimal]:
        return found["ontology_completeness"], found["meddic_completeness"]

    computed = (Decimal(5) / len(DIMENSIONS)).quantize(Decimal("0.01")), Decimal("0.67")
    assert figures_of(opportunity(pg, counted)) == computed
    assert figures_of(opportunity(pg, own)) == (Decimal("0.90"), Decimal("1.00"))
    assert figures_of(opportunity(pg, whole)) == (Decimal("1.00"), Decimal("1.00"))
    assert figures_of(row(pg, "deal_versions", opportunity_id=counted.id)) == computed
    assert figures_of(row(pg, "deal_versions", opportunity_id=own.id)) == (Decimal("0.90"), Decimal("1.00"))


def test_the_metadata_passes_texts_unchanged_and_temporal_values_as_iso_8601(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    texts = deal(name="", amount=3, expected_close_date="end of Q3, perhaps", closed_at="2026-02-01T10:00:00+0530")
    times = deal(
        amount=0.1,
        expected_close_date=Date(2026, 3, 4),
        closed_at=DateTime(2026, 3, 4, 5, 6, 7, 123456789, tzinfo=timezone(timedelta(hours=2))),
    )

    clean(sync(writer, tenant))

    absent = {"currency": None, "deal_ref": None, "source": "deal_graph", "stage_assessment": "proposal"}
    assert opportunity(pg, texts)["ai_workflow_metadata"] == {
        "deal_name": "",
        "amount_estimate": 3,
        "expected_close_date": "end of Q3, perhaps",
        "closed_at": "2026-02-01T10:00:00+0530",
        **absent,
    }
    assert opportunity(pg, times)["ai_workflow_metadata"] == {
        "deal_name": "Acme",
        "amount_estimate": 0.1,
        "expected_close_date": "2026-03-04",
        "closed_at": "2026-03-04T05:06:07.123456789+02:00",
        **absent,
    }


# -- values ------------------------------------------------------------------------------------------------------------


def test_an_empty_summary_or_name_is_null_and_other_empty_texts_are_texts(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal(
        name="", opportunity_summary="", evolution_summary="", deal_ref="", meddic_competition="", account_id=None
    )

    clean(sync(writer, tenant))

    landed = opportunity(pg, node)
    names = ("opportunity_name", "latest_ai_summary", "ai_evolution_summary", "deal_ref", "meddic_competition")
    assert [landed[name] for name in names] == [None, None, None, "", ""]


def test_numbers_go_by_their_shortest_decimal_form(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    expected = {
        0.145: "0.15",  # as a double it is 0.14499999999999999
        0.285: "0.29",
        1.005: "1.01",
        0.995: "1.00",
        0.005: "0.01",
        0.00499: "0.00",
        0.1 + 0.2: "0.30",
        1e-9: "0.00",
        -0.145: "-0.15",
        9.994: "9.99",
        0.07: "0.07",
    }
    deals = {number: deal(confidence=number) for number in expected}
    integer = deal(confidence=1, version=2.0, embedding=[1] * 1536, embedding_current=[1e-50] * 1536)

    clean(sync(writer, tenant))

    landed = {number: str(opportunity(pg, node)["extraction_confidence"]) for number, node in deals.items()}
    assert landed == expected
    assert opportunity(pg, integer)["extraction_confidence"] == 1
    assert opportunity(pg, integer)["extraction_version"] == 2
    assert json.loads(opportunity(pg, integer)["extraction_embedding"]) == [1] * 1536
    assert json.loads(opportunity(pg, integer)["extraction_embedding_current"]) == [0] * 1536


def test_amounts_land_to_the_cent(pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID) -> None:
    alter_mapping(pg, "ALTER COLUMN amount OPTIONS (SET write 'always')")
    expected = {
        150000: "150000.00",
        150000.005: "150000.01",
        1.115: "1.12",
        9999999999999.99: "9999999999999.99",
        9999999999999: "9999999999999.00",
        1e12: "1000000000000.00",
        -0.5: "-0.50",
    }
    deals = {number: deal(amount=number) for number in expected}

    clean(sync(writer, tenant))

    assert {number: str(opportunity(pg, node)["amount"]) for number, node in deals.items()} == expected


def test_scalars_where_a_text_is_due_land_in_their_text_form(
    pg: Connection, writer: Connection, deal: AddDeal, tenant: uuid.UUID
) -> None:
    values = {17: "17", 0.1: "0.1", 3.0: "3", True: "true", Date(2026, 1, 2): "2026-01-02"}
    deals = {text: deal(deal_ref=value, meddic_competition=value) for value, text in values.items()}

    clean(sync(writer, tenant))

    for text, node in deals.items():
        assert (opportunity(pg, node)["deal_ref"], opportunity(pg, node)["meddic_competition"]) == (text, text)


CLOSED_AT = {
    "a date": ("2026-02-01", date(2026, 2, 1)),
    "a time in UTC": ("2026-02-01T23:30:00Z", date(2026, 2, 1)),
    "a time without an offset": ("2026-02-01T23:30:00", date(2026, 2, 1)),
    "a time without seconds": ("2026-02-01T23:30", date(2026, 2, 1)),
    "an offset to the west": ("2026-02-01T23:30:00-05:00", date(2026, 2, 1)),
    "an offset to the east": ("2026-02-01T00:30:00+0530", date(2026, 2, 1)),
    "an offset of hours": ("2026-02-01T00:30:00+02", date(2026, 2, 1)),
    "nanoseconds": ("2026-02-01T23:59:59.999999999Z", date(2026, 2, 1)),
    "nanoseconds and an offset": ("2026-02-01T23:59:59.999999999-00:01", date(2026, 2, 1)),
    "a named zone behind": ("2026-02-01T23:30:00-05:00[America/New_York]", date(2026, 2, 1)),
    "a blank instead of T": ("2026-02-01 23:30:00+00:00", date(2026, 2, 1)),
    "the last year": ("9999-12-31", date(9999, 12, 31)),
    "a DATE": (Date(2026, 2, 1), date(2026, 2, 1)),
    "a LOCAL DATETIME": (DateTime(2026, 2, 1, 23, 30), date(2026, 2, 1)),
    "a ZONED DATETIME": (DateTime(2026, 2, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5))), date(2026, 2, 1)),
}


def test_a_date_takes_the_day_as_written_in_every_form(
    pg: Connection, writer: Connection, graph: Graph, deal: AddDeal, tenant: uuid.UUID
) -> None:
    deals = {form: deal(closed_at=value) for form, (value, _) in CLOSED_AT.items()}
    # Made in the graph: the driver dies (signal 11) on a ZoneInfo that is handed to it.
    named = deal()
    graph.run(
        "MATCH (d) WHERE elementId(d) = $id SET d.closed_at = datetime('2026-02-01T00:30:00[Asia/Kolkata]')",
        id=named.element_id,
    )

    clean(sync(writer, tenant))

    assert opportunity(pg, named)["actual_close_date"] == date(2026, 2, 1), "the day as written, in its own zone"
    landed = {form: opportunity(pg, node)["actual_close_date"] for form, node in deals.items()}
    assert landed == {form: day for form, (_, day) in CLOSED_AT.items()}


def test_times_of_versions_are_floored_to_the_microsecond(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal()
    expected = {
        1: ("2026-01-02T03:04:05.123456999Z", datetime(2026, 1, 2, 3, 4, 5, 123456, UTC)),
        2: ("2026-01-02T03:04:05.9999999+02:00", datetime(2026, 1, 2, 1, 4, 5, 999999, UTC)),
        3: ("1969-12-31T23:59:59.9999999Z", datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        4: (DateTime(2026, 1, 2, 3, 4, 5, 123456999), datetime(2026, 1, 2, 3, 4, 5, 123456, UTC)),
        5: (
            DateTime(2026, 1, 2, 3, 4, 5, 999999999, tzinfo=timezone(timedelta(hours=-5))),
            datetime(2026, 1, 2, 8, 4, 5, 999999, UTC),
        ),
        6: ("2026-01-02T03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        7: (Date(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)),
    }
    for number, (value, _) in expected.items():
        version(node, version=number, created_at=value, valid_from=value, valid_until=value)

    clean(sync(writer, tenant))

    landed = rows(pg, "deal_versions", tenant_id=tenant)
    for name in ("created_at", "valid_from", "valid_until"):
        assert {found["version_number"]: found[name] for found in landed} == {
            number: moment for number, (_, moment) in expected.items()
        }


def test_rows_are_the_same_whatever_the_sessions_settings_are(
    database: Database, pg: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal(**full_deal() | {"confidence": 0.145, "closed_at": DateTime(2026, 2, 1, 23, 30)})
    version(node, amount=0.145, created_at="2026-01-02T23:30:00", valid_until=DateTime(2026, 1, 2, 23, 30))
    deal(closed_at="2026-02-01T00:30:00", expected_close_date=DateTime(2026, 2, 1, 0, 30), dim_novelty_confidence=1e-7)

    landed = []
    for settings in (
        {},
        {"TimeZone": "Asia/Kolkata", "DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard"},
        {"TimeZone": "America/New_York", "DateStyle": "German", "extra_float_digits": "-15", "bytea_output": "escape"},
        {"TimeZone": "Pacific/Kiritimati", "quote_all_identifiers": "on", "transform_null_equals": "on"},
        {"lc_numeric": "C", "lc_time": "C.UTF-8", "lc_monetary": "C", "array_nulls": "off", "xmloption": "document"},
        {"default_transaction_isolation": "serializable", "standard_conforming_strings": "off"},
    ):
        pg.execute("TRUNCATE opportunities, deal_versions, interaction_links")
        session = database.connect("app_writer")
        for name, value in settings.items():
            session.execute("SELECT set_config(%s, %s, false)", [name, value])
        clean(sync(session, tenant))
        landed.append([rows(pg, table, tenant_id=tenant) for table in ("opportunities", "deal_versions")])
        for found in landed[-1][0]:
            del found["created_at"], found["updated_at"]

    for rows_of_session in landed[1:]:
        assert rows_of_session == landed[0]


# -- versions ----------------------------------------------------------------------------------------------------------


def test_a_version_lands_with_every_property_at_its_column(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal()
    copied = full_deal_but("created_at", "version")
    change = version(
        node,
        **copied,
        name="Acme before",
        stage="qualification",
        version=4,
        change_summary="the stage moved",
        changed_fields=["stage", 'a "quoted" one'],
        change_source_interaction_id="1e000000-0000-4000-8000-000000000002",
        created_at="2026-03-01T12:00:00Z",
        valid_from="2026-01-01T00:00:00",
        valid_until=datetime(2026, 3, 1, 12, tzinfo=UTC),
    )

    run = sync(writer, tenant)

    clean(run)
    assert run.versions_inserted == 1
    assert row(pg, "deal_versions", tenant_id=tenant) == {
        "id": change.id,
        "tenant_id": tenant,
        "opportunity_id": node.id,
        "version_number": 4,
        "name": "Acme before",
        "stage": "qualification",
        "amount": Decimal("150000.50"),
        "opportunity_summary": "They renew for three years.",
        "evolution_summary": "Moved from trial to negotiation.",
        **{name: f"what {name} says" for name in MEDDIC},
        "meddic_completeness": Decimal("0.90"),
        "ontology_scores_json": {
            name: {"score": number % 4, "confidence": number / 16, "evidence": None}
            for number, name in enumerate(DIMENSIONS)
        },
        "ontology_completeness": Decimal("0.75"),
        "ontology_version": "2026.1",
        "change_summary": "the stage moved",
        "changed_fields": ["stage", 'a "quoted" one'],
        "change_source_interaction_id": uuid.UUID("1e000000-0000-4000-8000-000000000002"),
        "created_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "valid_from": datetime(2026, 1, 1, tzinfo=UTC),
        "valid_until": datetime(2026, 3, 1, 12, tzinfo=UTC),
    }


def test_every_version_lands_with_its_number_gaps_included(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    """opportunity_id is the id of the deal's row, whatever id that row has."""
    new, known = deal(), deal()
    own = insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=known.id)
    for number in (1, 2, 5, 0):
        version(new, version=number)
    version(known, version=7)

    run = sync(writer, tenant)

    clean(run)
    assert run.versions_inserted == 5
    assert {found["version_number"] for found in rows(pg, "deal_versions", opportunity_id=new.id)} == {0, 1, 2, 5}
    assert row(pg, "deal_versions", opportunity_id=own)["version_number"] == 7

    late = version(new, version=9)
    assert sync(writer, tenant).versions_inserted == 1
    assert row(pg, "deal_versions", id=late.id)["version_number"] == 9


def test_a_version_that_is_there_is_left_alone_whatever_it_holds(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal()
    landed, edited = version(node, version=1), version(node, version=2, valid_until="2026-03-01T00:00:00Z")
    sync(writer, tenant)
    pg.execute("UPDATE deal_versions SET name = 'people', valid_until = NULL WHERE id = %s", [edited.id])
    before = rows(pg, "deal_versions", tenant_id=tenant)
    landed.set(name="rewritten", stage="closed_won", version=3)

    run = sync(writer, tenant)

    clean(run)
    assert run.versions_inserted == 0
    assert rows(pg, "deal_versions", tenant_id=tenant) == before


def test_a_version_whose_node_has_gone_keeps_its_row(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    change = version(deal())
    sync(writer, tenant)
    change.delete()

    clean(sync(writer, tenant))

    assert row(pg, "deal_versions", id=change.id)


def refused_version(reject: Reject) -> tuple[str, str, str, str | None]:
    return reject.kind, reject.level, reject.sqlstate, reject.graph_id


def test_of_several_versions_with_one_number_the_first_created_lands(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    """By created_at in both temporal forms, then by version_id; the number counts within its deal."""
    node, another = deal(), deal()
    version(another, version=1)
    later = version(node, version=1, created_at="2026-01-02T00:00:00Z")
    first = version(node, version=1, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    second = version(node, version=1, created_at="2026-01-01T00:00:00+00:00", version_id=first.key[:-4] + "ffff")
    version(node, version=2)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.values_rejected) == ("partial", 2, 0)
    assert run.versions_inserted == 3
    assert row(pg, "deal_versions", opportunity_id=node.id, version_number=1)["id"] == first.id
    found = rejects(pg, tenant)
    assert {refused_version(reject) for reject in found} == {
        ("version", "row", "23505", later.key),
        ("version", "row", "23505", second.key),
    }
    assert all("duplicate version number" in reject.message for reject in found)

    # The first one has landed and stays, also when its node is gone or an older one appears.
    first.delete()
    older = version(node, version=1, created_at="2025-01-01T00:00:00Z")
    run = sync(writer, tenant)
    assert (run.rows_rejected, run.versions_inserted) == (3, 0)
    assert row(pg, "deal_versions", opportunity_id=node.id, version_number=1)["id"] == first.id

    for twin in (later, second, older):
        twin.set(version=int(twin.element_id.rpartition(":")[2]) + 10)
    run = sync(writer, tenant)
    clean(run)
    assert run.versions_inserted == 3


def test_two_spellings_of_one_version_are_one(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    """Two nodes with one version_id: one lands, the other is a row-level reject, and stays one."""
    node = deal()
    first = version(node, version=1, created_at="2026-01-01T00:00:00Z")
    twin = version(
        node, version=2, version_id=first.key.upper(), created_at="2026-01-02T00:00:00Z", name="the other spelling"
    )
    for _ in range(2):
        run = sync(writer, tenant)

        assert (run.status, run.rows_rejected) == ("partial", 1)
        assert row(pg, "deal_versions", tenant_id=tenant)["name"] == "Acme"
        (refused,) = rejects(pg, tenant)
        assert refused_version(refused) == ("version", "row", "23505", twin.key)


def test_a_version_that_has_landed_under_another_number_stands_in_no_ones_way(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal()
    first = version(node, version=1, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert sync(writer, tenant).versions_inserted == 1
    pg.execute("UPDATE deal_versions SET version_number = 7")
    second, third = (version(node, version=1, created_at=datetime(2026, 1, day, tzinfo=UTC)) for day in (2, 3))
    assert sync(writer, tenant).versions_inserted == 1
    landed = pg.execute("SELECT id, version_number FROM deal_versions ORDER BY version_number").fetchall()
    assert landed == [(second.id, 1), (first.id, 7)]
    assert {refused_version(reject) for reject in rejects(pg, tenant)} == {("version", "row", "23505", third.key)}
    assert sync(writer, tenant).versions_inserted == 0


def test_a_version_without_a_number_is_a_note_and_the_run_stays_ok(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal()
    numbered, skeleton, another = version(node), version(node, version=None), version(node, version=None)

    run = sync(writer, tenant)

    clean(run)
    assert run.versions_inserted == 1
    assert [found["id"] for found in rows(pg, "deal_versions", tenant_id=tenant)] == [numbered.id]
    notes = rejects(pg, tenant)
    assert {(note.kind, note.level, note.graph_id) for note in notes} == {
        ("version", "note", skeleton.key),
        ("version", "note", another.key),
    }
    assert all("without a number" in note.message for note in notes)

    skeleton.set(version=2)
    another.delete()
    run = sync(writer, tenant)
    clean(run)
    assert run.versions_inserted == 1
    assert rejects(pg, tenant) == []


def test_a_version_whose_deal_did_not_land_follows_by_itself(
    pg: Connection, writer: Connection, graph: Graph, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    good, refused, absent = deal(), deal(opportunity_id="no uuid"), str(uuid.uuid4())
    version(good)
    of_refused = version(refused)
    of_absent = version(good, deal_opportunity_id=absent)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.versions_inserted) == ("partial", 3, 1)
    missing = [reject for reject in rejects(pg, tenant) if reject.kind == "version"]
    by_key = {reject.graph_id: reject for reject in missing}
    assert by_key.keys() == {of_refused.key, of_absent.key}
    assert (by_key[of_absent.key].level, by_key[of_absent.key].sqlstate) == ("row", "23503")
    assert by_key[of_absent.key].column_name == "deal_opportunity_id"
    assert by_key[of_absent.key].value == absent
    assert "its deal is not synced yet" in by_key[of_absent.key].message

    mended = str(uuid.uuid4())
    refused.set(opportunity_id=mended)
    of_refused.set(deal_opportunity_id=mended)
    deal(opportunity_id=absent)
    run = sync(writer, tenant)
    clean(run)
    assert run.versions_inserted == 2
    assert rejects(pg, tenant) == []


def test_a_version_never_joins_a_deal_of_another_tenant(
    pg: Connection, graph: Graph, version: AddDeal, tenant: uuid.UUID, other_tenant: uuid.UUID
) -> None:
    """Not even when a superuser calls, who sees the other tenant's row."""
    theirs = deal_node(graph, other_tenant)
    sync(pg, other_tenant)
    version(theirs)

    run = sync(pg, tenant)

    assert (run.rows_rejected, run.versions_inserted, run.links_inserted) == (1, 0, 0)
    assert one(pg, "SELECT count(*) FROM deal_versions") == 0
    assert rejects(pg, tenant)[0].sqlstate == "23503"


def test_a_version_never_touches_a_version_of_another_tenant(
    pg: Connection,
    writer: Connection,
    graph: Graph,
    deal: AddDeal,
    version: AddDeal,
    tenant: uuid.UUID,
    other_tenant: uuid.UUID,
) -> None:
    theirs = version_node(graph, other_tenant, deal_node(graph, other_tenant))
    sync(writer, other_tenant)
    before = row(pg, "deal_versions", id=theirs.id)
    version(deal(), version_id=theirs.key)

    run = sync(writer, tenant)

    assert (run.rows_rejected, run.versions_inserted) == (1, 0)
    assert row(pg, "deal_versions", id=theirs.id) == before
    assert refused_version(rejects(pg, tenant)[0]) == ("version", "row", "23505", theirs.key)


def test_what_a_version_lacks_has_a_stand_in(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    """change_summary '', changed_fields [], valid_from as created_at, created_at as valid_until; else NULL."""
    node = deal()
    version(node, version=1, created_at="2026-01-01T00:00:00Z")
    version(node, version=2, created_at=None, valid_from="2026-01-01T00:00:00Z", valid_until="2026-02-01T00:00:00Z")
    version(node, version=3, created_at=None, valid_until="2026-03-01T00:00:00Z")

    clean(sync(writer, tenant))

    first, second, third = (row(pg, "deal_versions", tenant_id=tenant, version_number=number) for number in (1, 2, 3))
    times = ("created_at", "valid_from", "valid_until")
    january, february, march = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
    assert [first[name] for name in times] == [january, january, None]
    assert [second[name] for name in times] == [february, january, february]
    assert [third[name] for name in times] == [march, march, march]
    assert (first["change_summary"], first["changed_fields"]) == ("", [])
    assert {name: first[name] for name in first if first[name] is not None}.keys() == {
        *("id", "tenant_id", "opportunity_id", "version_number", "name", "stage", "change_summary", "changed_fields"),
        *("created_at", "valid_from", "meddic_completeness", "ontology_completeness"),
    }


def test_a_version_without_any_time_takes_the_columns_default(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    version(deal(), created_at=None)

    before = one(pg, "SELECT clock_timestamp()")
    clean(sync(writer, tenant))

    landed = row(pg, "deal_versions", tenant_id=tenant)
    assert before < landed["created_at"] == landed["valid_from"]
    assert landed["valid_until"] is None


def test_texts_of_a_version_land_as_they_are_empty_ones_included(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    names = ("name", "stage", "opportunity_summary", "evolution_summary", "ontology_version", "change_summary", *MEDDIC)
    version(deal(), **dict.fromkeys(names, ""), changed_fields=[])

    clean(sync(writer, tenant))

    landed = row(pg, "deal_versions", tenant_id=tenant)
    assert {landed[name] for name in names} == {""}
    assert landed["changed_fields"] == []
    assert landed["meddic_completeness"] == 0


# -- links -------------------------------------------------------------------------------------------------------------


def links(pg: Connection, tenant: uuid.UUID) -> list[tuple[uuid.UUID, str, uuid.UUID]]:
    return sorted(
        (found["interaction_id"], found["entity_type"], found["entity_id"])
        for found in rows(pg, "interaction_links", tenant_id=tenant)
    )


def test_every_interaction_that_touched_a_deal_is_linked_to_its_row(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    created, changed, again = (uuid.uuid4() for _ in range(3))
    new = deal(source_interaction_id=str(created))
    known = deal(source_interaction_id=str(created))
    own = insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=known.id)
    version(new, version=1, change_source_interaction_id=str(changed))
    version(new, version=2, change_source_interaction_id=str(again))
    version(known, version=1, change_source_interaction_id=str(changed))
    deal()

    run = sync(writer, tenant)

    clean(run)
    assert run.links_inserted == 5
    pairs = [(created, new.id), (changed, new.id), (again, new.id), (created, own), (changed, own)]
    assert links(pg, tenant) == sorted((interaction, "opportunity", entity) for interaction, entity in pairs)
    assert sync(writer, tenant).links_inserted == 0


def test_a_pair_is_linked_once_without_a_unique_constraint_too(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    """Two versions of one change, the deal's own source in another spelling, and a link that is there already."""
    interaction, linked = uuid.uuid4(), uuid.uuid4()
    node = deal(source_interaction_id=str(interaction))
    version(node, version=1, change_source_interaction_id=str(interaction).upper())
    version(node, version=2, change_source_interaction_id=interaction.hex)
    version(node, version=3, change_source_interaction_id=str(linked))
    insert(
        pg,
        "interaction_links",
        tenant_id=tenant,
        interaction_id=linked,
        entity_type="opportunity",
        entity_id=node.id,
    )

    run = sync(writer, tenant)

    clean(run)
    assert run.links_inserted == 1
    assert links(pg, tenant) == sorted((id, "opportunity", node.id) for id in (interaction, linked))


def test_links_land_in_a_table_with_a_default_and_a_unique_constraint(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    pg.execute("ALTER TABLE interaction_links ALTER COLUMN id SET DEFAULT '00000000-0000-4000-8000-00000000abcd'")
    pg.execute("ALTER TABLE interaction_links ADD UNIQUE (tenant_id, interaction_id, entity_type, entity_id)")
    node = deal(source_interaction_id=str(uuid.uuid4()))

    clean(sync(writer, tenant))

    (link,) = rows(pg, "interaction_links", tenant_id=tenant)
    assert link["id"] == uuid.UUID("00000000-0000-4000-8000-00000000abcd")
    assert link["entity_id"] == node.id
    assert sync(writer, tenant).links_inserted == 0


def test_a_link_that_somebody_removed_comes_again(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    """Links are what the graph says, also of deals and versions that are unchanged."""
    node = deal(source_interaction_id=str(uuid.uuid4()))
    version(node, change_source_interaction_id=str(uuid.uuid4()))
    sync(writer, tenant)
    before = links(pg, tenant)
    pg.execute("DELETE FROM interaction_links")

    run = sync(writer, tenant)

    assert (run.deals_unchanged, run.links_inserted) == (1, 2)
    assert links(pg, tenant) == before


def test_a_version_that_did_not_land_is_not_linked(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal()
    version(node, version=None, change_source_interaction_id=str(uuid.uuid4()))
    version(node, version=1, stage="x" * 21, change_source_interaction_id=str(uuid.uuid4()))

    run = sync(writer, tenant)

    assert (run.versions_inserted, run.links_inserted) == (0, 0)
    assert links(pg, tenant) == []


def test_an_interaction_id_that_is_no_uuid_is_refused_at_its_own_column_and_not_at_the_link(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal(source_interaction_id="mail-17")
    change = version(node, change_source_interaction_id="mail-18")

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.values_rejected) == ("partial", 0, 2)
    assert (run.deals_inserted, run.versions_inserted, run.links_inserted) == (1, 1, 0)
    assert [
        (reject.kind, reject.level, reject.graph_id, reject.column_name, reject.sqlstate, reject.value)
        for reject in rejects(pg, tenant)
    ] == [
        ("deal", "value", node.key, "source_interaction_id", "22P02", "mail-17"),
        ("version", "value", change.key, "change_source_interaction_id", "22P02", "mail-18"),
    ]


# -- rows of the old service -------------------------------------------------------------------------------------------


def test_rows_of_the_old_service_are_taken_over_or_left_alone(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    """Its opportunities have ids of their own, its versions no valid_until and no ontology, its links the graph id."""
    source, change = uuid.uuid4(), uuid.uuid4()
    node = deal(source_interaction_id=str(source), opportunity_summary="new", **{f"dim_{DIMENSIONS[0]}": 3})
    landed = version(
        node,
        version=1,
        valid_until="2026-03-01T00:00:00Z",
        change_source_interaction_id=str(change),
        ontology_version="x",
    )
    version(node, version=2)
    own = insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=node.id, **PEOPLES)
    old = {"id": landed.id, "tenant_id": tenant, "opportunity_id": own, "version_number": 1}
    insert(pg, "deal_versions", **old, name="old", stage="old", ontology_scores_json=None, valid_until=None)
    insert(
        pg, "interaction_links", tenant_id=tenant, interaction_id=source, entity_type="opportunity", entity_id=node.id
    )
    old_version, old_link = row(pg, "deal_versions", id=landed.id), rows(pg, "interaction_links", tenant_id=tenant)

    run = sync(writer, tenant)

    clean(run)
    assert counts(run) == (1, 0, 1, 0, 0)
    assert (run.versions_inserted, run.links_inserted) == (1, 2)
    taken = row(pg, "opportunities", tenant_id=tenant)
    assert (taken["id"], taken["latest_ai_summary"], taken[f"dim_{DIMENSIONS[0]}"]) == (own, "new", 3)
    assert row(pg, "deal_versions", id=landed.id) == old_version
    assert row(pg, "deal_versions", opportunity_id=own, version_number=2)
    assert rows(pg, "interaction_links", entity_id=node.id) == old_link
    assert links(pg, tenant) == sorted(
        [(source, "opportunity", node.id), (source, "opportunity", own), (change, "opportunity", own)]
    )
    assert one(pg, "SELECT count(*) FROM forecast_jobs") == 0


def test_a_number_that_the_old_service_gave_to_another_version_stays_with_it(
    pg: Connection, writer: Connection, deal: AddDeal, version: AddDeal, tenant: uuid.UUID
) -> None:
    node = deal()
    own = insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=node.id)
    old = insert(pg, "deal_versions", tenant_id=tenant, opportunity_id=own, version_number=1, name="old", stage="old")
    late = version(node, version=1)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.versions_inserted) == ("partial", 1, 0)
    assert row(pg, "deal_versions", tenant_id=tenant)["id"] == old
    (refused,) = rejects(pg, tenant)
    assert refused_version(refused) == ("version", "row", "23505", late.key)
    assert refused.column_name == "version"
    assert "duplicate version number" in refused.message


def test_a_first_load_does_not_look_through_the_versions_that_have_landed(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    graph.run(
        "UNWIND range(1, 20000) AS i WITH randomUUID() AS deal"
        " CREATE (:Deal {tenant_id: $tenant, opportunity_id: deal, name: 'x'})"
        " CREATE (:DealVersion {tenant_id: $tenant, version_id: randomUUID(), deal_opportunity_id: deal, version: 1,"
        " name: 'x', stage: 'y', created_at: datetime()})",
        tenant=str(tenant),
    )
    assert sync(pg, tenant).versions_inserted == 20_000
    pg.execute("SELECT pg_stat_force_next_flush()")
    read = one(pg, "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'deal_versions'")
    assert read < 20_000_000  # all that were there, for each: 180 million
