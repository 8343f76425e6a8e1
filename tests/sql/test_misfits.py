"""Flows in: every kind of bad value that docs/internals/rules.md names, among good deals. Flows out: what lands
nevertheless, and a reject for the value that did not, until its cause is gone.
"""

import json
import uuid

import pytest
from neo4j_deals.mapping.defaults import DIMENSIONS
from support.database import Connection
from support.deals import (
    AddNode,
    Node,
    alter_mapping,
    full_deal,
    opportunity,
    row,
    version_node,
)
from support.graph import Graph
from support.misfits import BAD_VALUES, BAD_VERSIONS, DIM, INFINITY, METADATA, NAN, POINT, SCORES, Bad, healed, rejected
from support.sync import Reject, one, rejects, sync


def check_value(reject: Reject, bad: Bad, node: Node) -> None:
    assert (reject.kind, reject.level, reject.graph_id) == ("deal", "value", node.key)
    assert reject.sqlstate == bad.sqlstate
    assert bad.says in reject.message
    assert reject.value is not None
    assert bad.shown in reject.value
    assert len(reject.value) <= 300


# -- a misfit affects only its own column ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_VALUES, ids=lambda bad: bad.name)
def test_the_deal_lands_without_the_value_that_does_not_fit(
    bad: Bad, pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    properties = full_deal()
    good = deal(**properties)
    node = deal(**properties | {bad.source: bad.value})

    run = sync(writer, tenant)

    rejected(run, 0, 1 + len(bad.also))
    assert (run.deals_read, run.deals_inserted) == (2, 2)
    found = rejects(pg, tenant)
    assert {(reject.column_name, reject.sqlstate) for reject in found} == bad.rejects
    for reject in found:
        check_value(reject, bad, node)

    # Its own column, and what is derived from it; nothing else.
    landed, whole = opportunity(pg, node), opportunity(pg, good)
    if bad.column != METADATA:
        target = bad.target or bad.at
        if target != SCORES:
            assert landed[target] == bad.lands
    differing = {name for name in landed if landed[name] != whole[name]}
    derived = {SCORES, METADATA, "meddic_completeness", "ontology_completeness"}
    assert differing - {"id", "graph_opportunity_id"} - derived <= {bad.target or bad.source}
    assert len(landed[METADATA]) == 8
    json.dumps(landed[SCORES], allow_nan=False)

    node.set(**{bad.source: None})
    healed(sync(writer, tenant), pg, tenant)


@pytest.mark.parametrize("batch_rows", [2000, 7])
def test_all_bad_values_in_one_run_at_once(
    batch_rows: int, pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """One deal a bad value, one deal with a bad value in every column, invalid keys, versions: all in one."""
    writer.execute(f"SET deal_sync.batch_rows = {batch_rows}")
    good = [deal(**full_deal()) for _ in range(3)]
    nodes = {bad.name: deal(**full_deal() | {bad.source: bad.value}) for bad in BAD_VALUES}
    by_source = {bad.source: bad for bad in BAD_VALUES}
    worst = deal(**{name: bad.value for name, bad in by_source.items()})
    keyless = [deal(opportunity_id=key) for key in ("deal-17", "deal-17", None, None, 17, ["a"])]
    rejected_versions = [
        version(good[0], **{"version": number} | bad.properties) for number, bad in enumerate(BAD_VERSIONS)
    ]
    landing = version(good[0], version=len(BAD_VERSIONS))

    run = sync(writer, tenant)

    of_worst = {at for bad in by_source.values() for at, _ in bad.rejects}
    values = sum(len(bad.rejects) for bad in BAD_VALUES) + len(of_worst)
    rejected(run, len(keyless) + len(rejected_versions), values)
    assert (run.deals_read, run.deals_inserted) == (len(nodes) + len(keyless) + 4, len(nodes) + 4)
    assert run.versions_inserted == 1
    found = rejects(pg, tenant)
    assert {(reject.graph_id, reject.column_name, reject.sqlstate) for reject in found if reject.level == "value"} >= {
        (nodes[bad.name].key, *reject) for bad in BAD_VALUES for reject in bad.rejects
    }
    assert {reject.column_name for reject in found if reject.graph_id == worst.key} == of_worst
    assert {reject.graph_id for reject in found if reject.level == "row" and reject.kind == "version"} == {
        node.key for node in rejected_versions
    }
    assert row(pg, "deal_versions", tenant_id=tenant)["id"] == landing.id
    assert one(pg, "SELECT count(*) FROM opportunities") == run.deals_inserted

    for node in (*nodes.values(), worst, *keyless, *rejected_versions):
        node.delete()
    healed(sync(writer, tenant), pg, tenant)


def test_a_value_that_fits_again_lands(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    node = deal(confidence="high", embedding=[], deal_ref=POINT, **{DIM: 2.5})
    rejected(sync(writer, tenant), 0, 5)  # deal_ref twice: the metadata has it too
    node.set(confidence=0.5, embedding=[0.5] * 1536, deal_ref="deal_1", **{DIM: 2})

    run = sync(writer, tenant)

    healed(run, pg, tenant)
    landed = opportunity(pg, node)
    assert (str(landed["extraction_confidence"]), landed["deal_ref"], landed[DIM]) == ("0.50", "deal_1", 2)
    assert landed["extraction_embedding"] is not None


def test_a_bad_amount_is_rejected_at_its_column_where_amount_is_written(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    alter_mapping(pg, "ALTER COLUMN amount OPTIONS (SET write 'always')")
    cases = {1e13: "22003", 9999999999999.996: "22003", -1e300: "22003", NAN: "22003", "a lot": "2200G"}
    nodes = [deal(amount=value) for value in cases]
    fits = deal(amount=9999999999999.99)

    run = sync(writer, tenant)

    assert run.deals_inserted == len(cases) + 1
    of_amount = {reject.graph_id: reject.sqlstate for reject in rejects(pg, tenant) if reject.column_name == "amount"}
    assert of_amount == {node.key: sqlstate for node, sqlstate in zip(nodes, cases.values(), strict=True)}
    assert [opportunity(pg, node)["amount"] for node in nodes] == [None] * len(cases)
    assert str(opportunity(pg, fits)["amount"]) == "9999999999999.99"
    assert run.values_rejected == len(cases) + 1  # NaN in the metadata, too


def test_a_temporal_value_past_9999_is_out_of_range(
    pg: Connection, writer: Connection, graph: Graph, deal: AddNode, tenant: uuid.UUID
) -> None:
    """The driver cannot hold it; its node lands all the same."""
    node, good = deal(), deal()
    graph.run("MATCH (d) WHERE elementId(d) = $id SET d.closed_at = datetime({year: 10000})", id=node.element_id)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.deals_inserted) == ("partial", 0, 2)
    by_column = {reject.column_name: reject for reject in rejects(pg, tenant)}
    assert by_column["closed_at"].sqlstate == "22008"
    assert "years 1 to 9999" in by_column["closed_at"].message
    assert by_column["closed_at"].value == "datetime('+10000-01-01T00:00:00.000000000+00:00')"
    assert by_column[METADATA].value == by_column["closed_at"].value
    assert opportunity(pg, node)["actual_close_date"] is None
    assert opportunity(pg, node)[METADATA]["closed_at"] is None
    assert opportunity(pg, good)


def test_a_lone_surrogate_reaches_the_reader_as_a_question_mark(
    pg: Connection, writer: Connection, graph: Graph, deal: AddNode, tenant: uuid.UUID
) -> None:
    """Neo4j stores it, and replaces it on the wire: the deal lands, and nobody notices. See also test_values.py."""
    node = deal()
    graph.run("MATCH (d) WHERE elementId(d) = $id SET d.opportunity_summary = 'a\\uD800b'", id=node.element_id)

    healed(sync(writer, tenant), pg, tenant)

    assert opportunity(pg, node)["latest_ai_summary"] == "a?b"


def test_json_columns_are_valid_with_null_where_a_value_did_not_fit(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(
        amount=NAN,
        expected_close_date=[1],
        stage="a\0b",
        **{DIM: "strong", f"{DIM}_confidence": INFINITY, "dim_novelty": 1, "dim_novelty_confidence": NAN},
        dim_novelty_evidence="be\0cause",
    )
    version(node, changed_fields=["sta\0ge"], dim_novelty=1, dim_novelty_confidence=NAN)

    sync(writer, tenant)

    landed = opportunity(pg, node)
    assert landed[SCORES] == {
        DIMENSIONS[0]: {"score": None, "confidence": None, "evidence": None},
        "novelty": {"score": 1, "confidence": None, "evidence": "because"},
    }
    assert landed[METADATA] == {
        "source": "deal_graph",
        "deal_name": "Acme",
        "stage_assessment": "ab",
        "amount_estimate": None,
        "currency": None,
        "deal_ref": None,
        "expected_close_date": None,
        "closed_at": None,
    }
    found = {(reject.kind, reject.column_name) for reject in rejects(pg, tenant)}
    assert found == {
        ("deal", DIM),
        ("deal", f"{DIM}_confidence"),
        ("deal", SCORES),
        ("deal", METADATA),
        ("version", "changed_fields"),
        ("version", SCORES),
    }
    landed_version = row(pg, "deal_versions", tenant_id=tenant)
    assert landed_version["changed_fields"] == ["stage"]
    assert landed_version[SCORES] == {"novelty": {"score": 1, "confidence": None, "evidence": None}}


def test_one_document_reports_all_that_it_lost(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    """One reject a column, so its message names each property."""
    deal(amount=NAN, expected_close_date=POINT)

    rejected(sync(writer, tenant), 0, 1)

    (reject,) = rejects(pg, tenant)
    assert reject.column_name == METADATA
    assert "amount: not a finite number" in reject.message
    assert "expected_close_date: expected a text, found a POINT" in reject.message


def test_the_value_of_a_reject_is_cut_to_a_readable_length_and_not_in_its_message(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    deal(deal_ref="x" * 5000, opportunity_summary=["y" * 5000] * 3)

    rejected(sync(writer, tenant), 0, 2)

    for reject in rejects(pg, tenant):
        assert reject.value is not None
        assert 100 < len(reject.value) <= 201
        assert reject.value.endswith("…")
        assert "xx" not in reject.message
        assert "yy" not in reject.message


def test_no_message_holds_the_value(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    """Monitors read the messages, and a value can be people's data."""
    secret = "Ms Secret"
    node = deal(
        account_id=secret, confidence=secret, closed_at=secret, qualification_status=secret * 9, deal_ref=[secret]
    )
    version_node(node.graph, tenant, node, change_source_interaction_id=secret, name=[secret])
    deal(opportunity_id=secret)

    run = sync(writer, tenant)

    found = rejects(pg, tenant)
    assert len(found) == 8
    assert all(secret in (reject.value or "") for reject in found)
    assert not any(secret in reject.message for reject in found)
    assert secret not in (run.message or "")


# -- large texts -------------------------------------------------------------------------------------------------------


def test_a_text_of_100_mb_lands(
    pg: Connection, writer: Connection, graph: Graph, deal: AddNode, tenant: uuid.UUID
) -> None:
    node, good = deal(), deal()
    graph.run(
        # Made in the graph: a hundredth of the text travels there.
        "MATCH (d) WHERE elementId(d) = $id"
        " SET d.opportunity_summary = reduce(text = '', part IN range(1, 100) | text + $part)",
        id=node.element_id,
        part="0123456789abcdef" * 62_500,
    )

    run = sync(writer, tenant)

    healed(run, pg, tenant)
    assert run.deals_inserted == 2
    found = pg.execute(
        "SELECT length(latest_ai_summary), md5(latest_ai_summary) = md5(repeat('0123456789abcdef', 6250000))"
        " FROM opportunities WHERE id = %s",
        [node.id],
    ).fetchone()
    assert found == (100_000_000, True)
    assert opportunity(pg, good)


def test_a_text_above_max_value_bytes_is_a_value_reject(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """Measured in bytes as the table stores them; the setting is 128 MB unless somebody says otherwise."""
    writer.execute("SET deal_sync.max_value_bytes = '1kB'")
    fits, above = deal(opportunity_summary="x" * 1024), deal(opportunity_summary="é" * 513)
    version(fits, change_summary="x" * 1025)

    run = sync(writer, tenant)

    rejected(run, 0, 2)
    assert (run.deals_inserted, run.versions_inserted) == (2, 1)
    assert opportunity(pg, fits)["latest_ai_summary"] == "x" * 1024
    assert opportunity(pg, above)["latest_ai_summary"] is None
    for reject in rejects(pg, tenant):
        assert (reject.level, reject.sqlstate) == ("value", "54000")
        assert "deal_sync.max_value_bytes" in reject.message
        assert len(reject.value or "") <= 201
    assert [(reject.kind, reject.column_name) for reject in rejects(pg, tenant)] == [
        ("deal", "opportunity_summary"),
        ("version", "change_summary"),
    ]
