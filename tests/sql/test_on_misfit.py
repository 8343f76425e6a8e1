"""Flows in: values that do not fit, and columns of each on_misfit and policy. Flows out: what the row has then."""

import uuid

import psycopg
import pytest
from support.database import Connection
from support.deals import AddNode, alter_mapping, insert, opportunity, rows
from support.graph import Graph
from support.misfits import METADATA, NAN, healed, rejected, vector
from support.sync import rejects, sync

# -- what a column does with a misfit ----------------------------------------------------------------------------------


def test_on_misfit_error_rejects_the_row_as_reject_does(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    alter_mapping(pg, "ALTER COLUMN version OPTIONS (ADD on_misfit 'error')")
    bad, fine = deal(version=0.5), deal(version=1)

    rejected(sync(writer, tenant), 1, 0)

    assert rows(pg, "opportunities", graph_opportunity_id=bad.id) == []
    assert opportunity(pg, fine)["extraction_version"] == 1
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match=f'column "version" of node "{bad.element_id}"'):
        pg.execute("SELECT * FROM deal_sync.scan(NULL::neo4j.deals)")


def test_the_labels_of_a_node_land_in_a_document(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID, graph: Graph
) -> None:
    pg.execute("ALTER TABLE opportunities ADD COLUMN labels jsonb")
    alter_mapping(pg, "ADD COLUMN labels text[] OPTIONS (derive 'labels', target 'labels')")
    node = deal()
    graph.run("MATCH (d:Deal) SET d:Hot")

    assert sync(writer, tenant).status == "ok"
    assert opportunity(pg, node)["labels"] == ["Deal", "Hot"]


def test_on_misfit_null_keep_and_reject(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    alter_mapping(pg, "ALTER COLUMN qualification_status OPTIONS (ADD on_misfit 'keep')")
    alter_mapping(pg, "ALTER COLUMN version OPTIONS (ADD on_misfit 'reject')")
    fine = {"confidence": 0.5, "qualification_status": "fine", "version": 1, "opportunity_summary": "old"}
    nulled, kept, held_back = (deal(**fine) for _ in range(3))
    sync(writer, tenant)
    nulled.set(confidence="bad", opportunity_summary="new")
    kept.set(qualification_status=["bad"], opportunity_summary="new")
    held_back.set(version="bad", opportunity_summary="new")
    new = deal(**fine | {"version": 0.5})

    run = sync(writer, tenant)

    rejected(run, 2, 2)
    assert (run.deals_read, run.deals_inserted, run.deals_updated, run.deals_unchanged) == (4, 0, 2, 0)
    columns = ("extraction_confidence", "qualification_status", "extraction_version", "latest_ai_summary")
    half = opportunity(pg, kept)["extraction_confidence"]
    assert [opportunity(pg, nulled)[name] for name in columns] == [None, "fine", 1, "new"]
    assert [opportunity(pg, kept)[name] for name in columns] == [half, "fine", 1, "new"]
    assert [opportunity(pg, held_back)[name] for name in columns] == [half, "fine", 1, "old"]
    assert rows(pg, "opportunities", graph_opportunity_id=new.id) == []
    assert {
        (reject.graph_id, reject.level, reject.column_name, reject.sqlstate, reject.value)
        for reject in rejects(pg, tenant)
    } == {
        (nulled.key, "value", "confidence", "2200G", "bad"),
        (kept.key, "value", "qualification_status", "2200G", "['bad']"),
        (held_back.key, "row", "version", "2200G", "bad"),
        (new.key, "row", "version", "22P02", "0.5"),
    }

    # keep does not keep what has vanished
    kept.set(qualification_status=None)
    held_back.set(version=2)
    new.delete()
    rejected(sync(writer, tenant), 0, 1)
    assert opportunity(pg, kept)["qualification_status"] is None
    assert [opportunity(pg, held_back)[name] for name in columns] == [half, "fine", 2, "new"]


def test_an_embedding_that_does_not_fit_keeps_what_the_row_has(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(embedding=[0.5] * 1536, embedding_current=[0.25] * 1536)
    sync(writer, tenant)
    before = opportunity(pg, node)
    node.set(embedding=[0.5] * 3, embedding_current=vector(at=7, is_=NAN))

    run = sync(writer, tenant)

    rejected(run, 0, 2)
    assert (run.deals_updated, run.deals_unchanged) == (0, 1)
    assert opportunity(pg, node) == before

    node.set(embedding=None)
    rejected(sync(writer, tenant), 0, 1)
    assert opportunity(pg, node)["extraction_embedding"] is None


# -- insert-only columns -----------------------------------------------------------------------------------------------


def test_a_bad_value_in_an_insert_only_column_names_both_remedies_and_leaves_when_the_row_has_a_value(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(account_id="ACC-17")

    rejected(sync(writer, tenant), 0, 1)

    (reject,) = rejects(pg, tenant)
    assert (reject.level, reject.column_name, reject.value) == ("value", "account_id", "ACC-17")
    assert "so this is not retried" in reject.message
    assert "set it by hand" in reject.message
    assert "'fill'" in reject.message

    # It counts as long as the row has NULL there.
    rejected(sync(writer, tenant), 0, 1)
    assert [reject.times_seen for reject in rejects(pg, tenant)] == [2]

    account = uuid.uuid4()
    pg.execute("UPDATE opportunities SET account_id = %s", [account])
    healed(sync(writer, tenant), pg, tenant)
    assert opportunity(pg, node)["account_id"] == account


def test_a_bad_value_in_an_insert_only_column_leaves_when_the_graph_has_none(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(account_id="ACC-17")
    rejected(sync(writer, tenant), 0, 1)
    node.set(account_id=None)

    healed(sync(writer, tenant), pg, tenant)

    assert opportunity(pg, node)["account_id"] is None


def test_the_remedy_fill_lands_a_value_that_has_been_fixed(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(account_id="ACC-17")
    sync(writer, tenant)
    alter_mapping(pg, "ALTER COLUMN account_id OPTIONS (SET write 'fill')")
    rejected(sync(writer, tenant), 0, 1)
    (reject,) = rejects(pg, tenant)
    assert "so this is not retried" not in reject.message  # now it does

    account = uuid.uuid4()
    node.set(account_id=str(account))
    healed(sync(writer, tenant), pg, tenant)
    assert opportunity(pg, node)["account_id"] == account


def test_a_bad_value_in_an_insert_only_column_is_nobodys_concern_where_the_row_has_a_value(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    known, adopted, empty = (deal(account_id="ACC-17") for _ in range(3))
    account = uuid.uuid4()
    insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=known.id, account_id=account)
    insert(pg, "opportunities", tenant_id=tenant, id=adopted.id, account_id=account)
    insert(pg, "opportunities", tenant_id=tenant, id=empty.id)

    run = sync(writer, tenant)

    rejected(run, 0, 1)
    assert (run.deals_updated, run.deals_adopted) == (1, 2)
    assert [reject.graph_id for reject in rejects(pg, tenant)] == [empty.key]


def test_a_name_without_its_nul_character_is_reported_while_the_row_has_it(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    """The text landed, so there is nothing to set by hand; the metadata goes on reporting its own loss."""
    node = deal(name="Ac\0me")

    rejected(sync(writer, tenant), 0, 2)

    by_column = {reject.column_name: reject for reject in rejects(pg, tenant)}
    assert opportunity(pg, node)["opportunity_name"] == "Acme"
    assert "by hand" not in by_column["name"].message
    rejected(sync(writer, tenant), 0, 2)
    pg.execute("UPDATE opportunities SET opportunity_name = 'Acme & Co'")
    rejected(sync(writer, tenant), 0, 1)
    assert [reject.column_name for reject in rejects(pg, tenant)] == [METADATA]


# -- a text without some of its characters -----------------------------------------------------------------------------


def test_a_text_that_landed_without_some_characters_is_reported_while_the_row_has_it(
    pg: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """Also in columns that an existing row keeps; no longer once people have put another text there."""
    alter_mapping(pg, "ALTER COLUMN deal_ref OPTIONS (ADD write 'fill')")
    node = deal(name="Ac\0me", deal_ref="R\0-1", qualification_status="op\0en")
    version(node, opportunity_summary="sum\0mary")
    told = {"name", "deal_ref", "qualification_status", "opportunity_summary", METADATA}
    for _ in range(3):
        run = sync(pg, tenant)
        assert (run.status, run.deals_updated) == ("partial", 0)
        assert {reject.column_name for reject in rejects(pg, tenant)} == told
        assert not any("so this is not retried" in reject.message for reject in rejects(pg, tenant))
    pg.execute("UPDATE opportunities SET opportunity_name = 'theirs', deal_ref = 'theirs'")
    sync(pg, tenant)
    assert {reject.column_name for reject in rejects(pg, tenant)} == told - {"name", "deal_ref"}
