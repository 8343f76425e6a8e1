"""Flows in: interactions that deals and versions name. Flows out: one link of each to the deal's row."""

import uuid

from support.database import Connection
from support.deals import AddNode, insert, links, rows
from support.sync import clean, rejects, sync


def test_every_interaction_that_touched_a_deal_is_linked_to_its_row(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal()
    version(node, version=None, change_source_interaction_id=str(uuid.uuid4()))
    version(node, version=1, stage="x" * 21, change_source_interaction_id=str(uuid.uuid4()))

    run = sync(writer, tenant)

    assert (run.versions_inserted, run.links_inserted) == (0, 0)
    assert links(pg, tenant) == []


def test_an_interaction_id_that_is_no_uuid_is_rejected_at_its_own_column_and_not_at_the_link(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
