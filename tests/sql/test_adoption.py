"""Flows in: rows of a CRM, and of the service that filled the tables before.
Flows out: which of them the sync takes over.
"""

import uuid
from datetime import UTC, datetime

from neo4j_deals.mapping.defaults import DIMENSIONS
from support.database import Connection
from support.deals import PEOPLES, AddNode, alter_mapping, insert, links, opportunity, row, rows
from support.graph import Graph
from support.sync import clean, counts, one, rejected_version, rejects, sync

# -- adoption ----------------------------------------------------------------------------------------------------------


def test_a_crm_row_with_the_deals_id_is_adopted_and_not_duplicated(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    alter_mapping(pg, "ALTER COLUMN account_id OPTIONS (SET write 'fill')")
    account = uuid.uuid4()
    node = deal(account_id=str(account), name="graph")
    insert(pg, "opportunities", id=node.id, tenant_id=tenant)

    assert counts(sync(writer, tenant)) == (1, 0, 0, 0, 1)

    assert (opportunity(pg, node)["account_id"], opportunity(pg, node)["opportunity_name"]) == (account, None)


def test_where_another_row_is_the_deal_already_the_crm_row_is_left_alone_and_noted(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
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

    # Reported once, however often it is met, and no longer once the CRM row is gone.
    assert counts(sync(writer, tenant)) == (1, 0, 0, 1, 0)
    assert len(rejects(pg, tenant)) == 1
    pg.execute("DELETE FROM opportunities WHERE id = %s", [node.id])
    clean(sync(writer, tenant))
    assert rejects(pg, tenant) == []


# -- rows of the old service -------------------------------------------------------------------------------------------


def test_rows_of_the_old_service_are_taken_over_or_left_alone(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal()
    own = insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=node.id)
    old = insert(pg, "deal_versions", tenant_id=tenant, opportunity_id=own, version_number=1, name="old", stage="old")
    late = version(node, version=1)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.versions_inserted) == ("partial", 1, 0)
    assert row(pg, "deal_versions", tenant_id=tenant)["id"] == old
    (rejected,) = rejects(pg, tenant)
    assert rejected_version(rejected) == ("version", "row", "23505", late.key)
    assert rejected.column_name == "version"
    assert "duplicate version number" in rejected.message


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
