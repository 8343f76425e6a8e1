"""Flows in: DealVersion nodes. Flows out: the row of each, which is written once, and which of them do not land."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal

from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC
from support.database import Connection
from support.deals import AddNode, deal_node, full_deal_but, insert, row, rows, version_node
from support.graph import Graph
from support.sync import clean, one, rejected_version, rejects, sync


def test_a_version_lands_with_every_property_at_its_column(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    change = version(deal())
    sync(writer, tenant)
    change.delete()

    clean(sync(writer, tenant))

    assert row(pg, "deal_versions", id=change.id)


def test_of_several_versions_with_one_number_the_first_created_lands(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    assert {rejected_version(reject) for reject in found} == {
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """Two nodes with one version_id: one lands, the other is and remains a reject of level row."""
    node = deal()
    first = version(node, version=1, created_at="2026-01-01T00:00:00Z")
    twin = version(
        node, version=2, version_id=first.key.upper(), created_at="2026-01-02T00:00:00Z", name="the other spelling"
    )
    for _ in range(2):
        run = sync(writer, tenant)

        assert (run.status, run.rows_rejected) == ("partial", 1)
        assert row(pg, "deal_versions", tenant_id=tenant)["name"] == "Acme"
        (rejected,) = rejects(pg, tenant)
        assert rejected_version(rejected) == ("version", "row", "23505", twin.key)


def test_a_version_that_has_landed_under_another_number_blocks_no_other(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal()
    first = version(node, version=1, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert sync(writer, tenant).versions_inserted == 1
    pg.execute("UPDATE deal_versions SET version_number = 7")
    second, third = (version(node, version=1, created_at=datetime(2026, 1, day, tzinfo=UTC)) for day in (2, 3))
    assert sync(writer, tenant).versions_inserted == 1
    landed = pg.execute("SELECT id, version_number FROM deal_versions ORDER BY version_number").fetchall()
    assert landed == [(second.id, 1), (first.id, 7)]
    assert {rejected_version(reject) for reject in rejects(pg, tenant)} == {("version", "row", "23505", third.key)}
    assert sync(writer, tenant).versions_inserted == 0


def test_a_version_without_a_number_is_a_note_and_the_run_stays_ok(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, graph: Graph, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    good, rejected, absent = deal(), deal(opportunity_id="no uuid"), str(uuid.uuid4())
    version(good)
    of_rejected = version(rejected)
    of_absent = version(good, deal_opportunity_id=absent)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.versions_inserted) == ("partial", 3, 1)
    missing = [reject for reject in rejects(pg, tenant) if reject.kind == "version"]
    by_key = {reject.graph_id: reject for reject in missing}
    assert by_key.keys() == {of_rejected.key, of_absent.key}
    assert (by_key[of_absent.key].level, by_key[of_absent.key].sqlstate) == ("row", "23503")
    assert by_key[of_absent.key].column_name == "deal_opportunity_id"
    assert by_key[of_absent.key].value == absent
    assert "its deal is not synced yet" in by_key[of_absent.key].message

    fixed = str(uuid.uuid4())
    rejected.set(opportunity_id=fixed)
    of_rejected.set(deal_opportunity_id=fixed)
    deal(opportunity_id=absent)
    run = sync(writer, tenant)
    clean(run)
    assert run.versions_inserted == 2
    assert rejects(pg, tenant) == []


def test_a_version_never_joins_a_deal_of_another_tenant(
    pg: Connection, graph: Graph, version: AddNode, tenant: uuid.UUID, other_tenant: uuid.UUID
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
    deal: AddNode,
    version: AddNode,
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
    assert rejected_version(rejects(pg, tenant)[0]) == ("version", "row", "23505", theirs.key)


def test_what_a_version_lacks_has_a_stand_in(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
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
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    version(deal(), created_at=None)

    before = one(pg, "SELECT clock_timestamp()")
    clean(sync(writer, tenant))

    landed = row(pg, "deal_versions", tenant_id=tenant)
    assert before < landed["created_at"] == landed["valid_from"]
    assert landed["valid_until"] is None


def test_texts_of_a_version_land_as_they_are_empty_ones_included(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    names = ("name", "stage", "opportunity_summary", "evolution_summary", "ontology_version", "change_summary", *MEDDIC)
    version(deal(), **dict.fromkeys(names, ""), changed_fields=[])

    clean(sync(writer, tenant))

    landed = row(pg, "deal_versions", tenant_id=tenant)
    assert {landed[name] for name in names} == {""}
    assert landed["changed_fields"] == []
    assert landed["meddic_completeness"] == 0
