"""In: every kind of bad data that docs/internals/rules.md names, among good deals. Out: what lands all the same,
and a refusal that says what is missing, until its cause is gone.
"""

import json
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from neo4j.spatial import CartesianPoint, WGS84Point
from neo4j.time import Duration, Time
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC
from psycopg import sql
from support.database import Connection
from support.deals import Node, deal_node, full_deal, insert, row, rows, version_node
from support.graph import Graph
from support.sync import Reject, Run, add_tenant, one, rejects, sync

AddNode = Callable[..., Node]

NAN, INFINITY = math.nan, math.inf
POINT = WGS84Point((8.5, 47.4))
DURATION = Duration(months=3, days=1)
DIM = f"dim_{DIMENSIONS[0]}"
SCORES = "ontology_scores_json"
METADATA = "ai_workflow_metadata"
ABSENT = object()


@dataclass(frozen=True)
class Bad:
    """A value of the property `source` that does not fit.

    `column` of the foreign table is refused, `target` of the application's table holds what `lands`.

    `shown` is the value in the reject; `also` are the derived documents that report it too.
    """

    name: str
    source: str
    value: Any
    sqlstate: str
    says: str
    shown: str
    target: str = ""
    lands: Any = None
    column: str = ""
    also: tuple[str, ...] = ()

    @property
    def at(self) -> str:
        return self.column or self.source

    @property
    def rejects(self) -> set[tuple[str, str]]:
        """Column and SQLSTATE of each reject."""
        return {(column, self.sqlstate) for column in (self.at, *self.also)}


def vector(*, at: int, is_: Any) -> list[Any]:
    """An embedding that is fine but for one element."""
    return [*([0.5] * at), is_, *([0.5] * (1535 - at))]


CONFIDENCE = "extraction_confidence"
EMBEDDING = "extraction_embedding"
SUMMARY = "latest_ai_summary"
CLOSED = "actual_close_date"

BAD_VALUES = [
    # -- a number is due
    Bad("a text in a number", "confidence", "high", "2200G", "a STRING where a number is due", "high", CONFIDENCE),
    Bad("a number as a text", "confidence", "0.5", "2200G", "a STRING where a number is due", "0.5", CONFIDENCE),
    Bad("a boolean in a number", "confidence", True, "2200G", "a BOOLEAN where a number is due", "true", CONFIDENCE),
    Bad("a list in a number", "confidence", [0.5], "2200G", "a LIST where a number is due", "[0.5]", CONFIDENCE),
    Bad("a point in a number", "confidence", POINT, "2200G", "a POINT where a number is due", "point({", CONFIDENCE),
    Bad("a duration in a number", "confidence", DURATION, "2200G", "a DURATION where", "3", CONFIDENCE),
    Bad("NaN", "confidence", NAN, "22003", "NaN or infinity", "NaN", CONFIDENCE),
    Bad("infinity", "confidence", INFINITY, "22003", "NaN or infinity", "Infinity", CONFIDENCE),
    Bad("minus infinity", f"{MEDDIC[0]}_confidence", -INFINITY, "22003", "NaN or infinity", "-Infinity"),
    Bad("numeric(3,2): too large", "confidence", 10, "22003", "out of range for numeric(3,2)", "10", CONFIDENCE),
    Bad("numeric(3,2): too large once rounded", "confidence", 9.995, "22003", "numeric(3,2)", "9.995", CONFIDENCE),
    Bad("numeric(3,2): too small", f"{DIM}_confidence", -10.0, "22003", "numeric(3,2)", "-10.0"),
    Bad("numeric(3,2): far too large", "confidence", 1e300, "22003", "numeric(3,2)", "1e+300", CONFIDENCE),
    Bad("numeric(5,2): too large", "ontology_completeness", 1000, "22003", "numeric(5,2)", "1000"),
    Bad("a text as its own completeness", "meddic_completeness", "most", "2200G", "a STRING where a number", "most"),
    Bad("NaN as its own completeness", "ontology_completeness", NAN, "22003", "NaN or infinity", "NaN"),
    # -- an integer is due
    Bad(
        "a text in an integer", "version", "two", "2200G", "a STRING where a number is due", "two", "extraction_version"
    ),
    Bad("a text as a score", DIM, "strong", "2200G", "a STRING where a number is due", "strong"),
    Bad("int: too large", "version", 2**31, "22003", "out of range for a 32-bit", str(2**31), "extraction_version"),
    Bad("int: too small", "version", -(2**31) - 1, "22003", "32-bit", str(-(2**31) - 1), "extraction_version"),
    Bad("smallint: too large", DIM, 70000, "22003", "out of range for a 16-bit integer", "70000"),
    Bad("smallint: too small", DIM, -32769, "22003", "out of range for a 16-bit integer", "-32769"),
    Bad("a fraction in an integer", DIM, 2.5, "22P02", "a fraction where an integer is due", "2.5"),
    Bad("NaN in an integer", DIM, NAN, "22003", "NaN or infinity", "NaN"),
    Bad("infinity in an integer", "version", INFINITY, "22003", "NaN or infinity", "Infinity", "extraction_version"),
    # -- a vector is due
    Bad("NaN in an embedding", "embedding", vector(at=0, is_=NAN), "22003", "NaN", "[NaN, 0.5,", EMBEDDING),
    Bad("NaN at an embedding's end", "embedding", vector(at=1535, is_=NAN), "22003", "NaN", "[0.5,", EMBEDDING),
    Bad("infinity in an embedding", "embedding", vector(at=700, is_=INFINITY), "22003", "infinity", "[0.5,", EMBEDDING),
    Bad("both infinities", "embedding", [INFINITY, -INFINITY] * 768, "22003", "infinity", "[Infinity, -Inf", EMBEDDING),
    Bad("too large for a float4", "embedding", vector(at=3, is_=1e39), "22003", "4-byte float", "1e+39", EMBEDDING),
    Bad("too short an embedding", "embedding", [0.5] * 1535, "22000", "1535 dimensions where 1536", "1535", EMBEDDING),
    Bad("too long an embedding", "embedding", [0.5] * 1537, "22000", "1537 dimensions where 1536", "1537", EMBEDDING),
    Bad("an empty embedding", "embedding", [], "22000", "0 dimensions where 1536 are due", "[]", EMBEDDING),
    Bad("texts in an embedding", "embedding", ["a"] * 1536, "2200G", "a STRING inside a vector", "['a',", EMBEDDING),
    Bad("booleans in an embedding", "embedding", [True] * 1536, "2200G", "a BOOLEAN inside", "[true,", EMBEDDING),
    Bad("a text as an embedding", "embedding", "[0.5]", "2200G", "a STRING where a vector is due", "[0.5]", EMBEDDING),
    Bad(
        "the other embedding",
        "embedding_current",
        vector(at=9, is_=NAN),
        "22003",
        "NaN",
        "[0.5,",
        "extraction_embedding_current",
    ),
    # -- an id is due
    Bad("an account that is no UUID", "account_id", "ACC-17", "22P02", "no UUID", "ACC-17"),
    Bad("an account that is a number", "account_id", 17, "2200G", "INTEGER where a UUID is due", "17"),
    Bad("an account that is empty", "account_id", "", "22P02", "no UUID", ""),
    Bad("an interaction that is no UUID", "source_interaction_id", "mail-17", "22P02", "no UUID", "mail-17"),
    # -- a text is due
    Bad("too long for a varchar", "qualification_status", "q" * 21, "22001", "21 characters where 20", "q" * 21),
    Bad("too long for a varchar, in bytes only", "ontology_version", "é" * 65, "22001", "65 characters", "é" * 65),
    Bad("too long a reference", "deal_ref", "d" * 51, "22001", "51 characters where 50 fit", "d" * 51),
    Bad("too long a currency", "currency", "Euro", "22001", "4 characters where 3 fit", "Euro"),
    Bad("a point in a text", "opportunity_summary", POINT, "2200G", "a POINT where a text is due", "point({", SUMMARY),
    Bad("a plane's point in a text", MEDDIC[0], CartesianPoint((1, 2)), "2200G", "a POINT where a text", "point({"),
    Bad("a duration in a text", "meddic_competition", DURATION, "2200G", "a DURATION where a text is due", "3"),
    Bad("a list in a text", "opportunity_summary", ["a", "b"], "2200G", "a LIST where a text", "['a', 'b']", SUMMARY),
    Bad("bytes in a text", "meddic_competition", b"abc", "2200G", "a BYTES where a text is due", "[97, 98, 99]"),
    Bad(
        "a NUL character in a text",
        "opportunity_summary",
        "be\0fore",
        "22021",
        "a NUL character or lone surrogate was left out",
        "be\N{REPLACEMENT CHARACTER}fore",
        SUMMARY,
        "before",
    ),
    Bad(
        "a NUL character in a varchar",
        "qualification_status",
        "\0ok\0",
        "22021",
        "a NUL character",
        "\N{REPLACEMENT CHARACTER}ok\N{REPLACEMENT CHARACTER}",
        lands="ok",
    ),
    Bad(
        "a NUL character in a text that just fits",
        "qualification_status",
        "q" * 20 + "\0",
        "22021",
        "a NUL character",
        "q" * 20 + "\N{REPLACEMENT CHARACTER}",
        lands="q" * 20,
    ),
    # -- a date is due: actual_close_date has it, the metadata the value as it is
    Bad("an unreadable date", "closed_at", "soon", "22007", "no ISO 8601 date or time", "soon", CLOSED),
    Bad("an empty date", "closed_at", "", "22007", "no ISO 8601 date or time", "", CLOSED),
    Bad("a day that is not", "closed_at", "2026-02-30", "22008", "out of range", "2026-02-30", CLOSED),
    Bad("an hour that is not", "closed_at", "2026-02-01T25:00", "22008", "out of range", "2026-02-01T25:00", CLOSED),
    Bad("a year past 9999 as a text", "closed_at", "10000-01-01", "22007", "no ISO 8601", "10000-01-01", CLOSED),
    Bad("year 0", "closed_at", "0000-01-01", "22008", "years 1 to 9999", "0000-01-01", CLOSED),
    Bad("an unknown zone", "closed_at", "2026-02-01T10:00[Mars/Sea]", "22023", "unknown time zone", "Mars/Sea", CLOSED),
    Bad("a number as a date", "closed_at", 20260201, "2200G", "INTEGER where a date", "20260201", CLOSED),
    Bad("a time of day as a date", "closed_at", Time(12, 0), "2200G", "a TIME where a date or time", "12", CLOSED),
    Bad("a point as a date", "closed_at", POINT, "2200G", "a POINT where", "point({", CLOSED, also=(METADATA,)),
    # -- inside a document
    Bad("NaN in the metadata", "amount", NAN, "22003", "NaN or infinity", "NaN", column=METADATA),
    Bad("infinity in the metadata", "amount", -INFINITY, "22003", "NaN or infinity", "-Infinity", column=METADATA),
    Bad("a list in the metadata", "stage", ["a"], "2200G", "a LIST where", "['a']", column=METADATA),
    Bad("a point in the metadata", "expected_close_date", POINT, "2200G", "a POINT where", "point({", column=METADATA),
    Bad(
        "a NUL character in the metadata",
        "stage",
        "pro\0posal",
        "22021",
        "a NUL character",
        "pro\N{REPLACEMENT CHARACTER}posal",
        column=METADATA,
    ),
    Bad(
        "a name that is a list", "name", ["Acme"], "2200G", "a LIST where", "Acme", "opportunity_name", also=(METADATA,)
    ),
    Bad(
        "a NUL character in a name",
        "name",
        "Ac\0me",
        "22021",
        "a NUL character",
        "Ac\N{REPLACEMENT CHARACTER}me",
        "opportunity_name",
        "Acme",
        also=(METADATA,),
    ),
    Bad("a text as a score without a column", "dim_novelty", "strong", "2200G", "a STRING", "strong", column=SCORES),
    Bad("NaN without a column", "dim_novelty_confidence", NAN, "22003", "NaN", "NaN", column=SCORES),
    Bad("a point as evidence", f"{DIM}_evidence", POINT, "2200G", "a POINT where a text", "point({", column=SCORES),
]


@pytest.fixture
def tenant(pg: Connection) -> uuid.UUID:
    return add_tenant(pg)


@pytest.fixture
def deal(graph: Graph, tenant: uuid.UUID) -> AddNode:
    """Adds a Deal node of the tenant."""
    return lambda **properties: deal_node(graph, tenant, **properties)


@pytest.fixture
def version(graph: Graph, tenant: uuid.UUID) -> AddNode:
    """Adds a DealVersion node of a deal of the tenant."""
    return lambda of, **properties: version_node(graph, tenant, of, **properties)


def opportunity(pg: Connection, node: Node) -> dict[str, Any]:
    return row(pg, "opportunities", graph_opportunity_id=node.id)


def alter_mapping(pg: Connection, change: str, table: str = "deals") -> None:
    pg.execute(sql.SQL(f"ALTER FOREIGN TABLE neo4j.{table} {change}"))


def refused(run: Run, rows: int, values: int) -> None:
    """The run is partial and counts its refusals."""
    assert (run.status, run.rows_rejected, run.values_rejected) == ("partial", rows, values)
    assert run.message is not None
    assert f"{rows} row" in run.message
    assert f"{values} value" in run.message
    assert "deal_sync.rejects" in run.message


def healed(run: Run, pg: Connection, tenant: uuid.UUID) -> None:
    """Nothing is refused any more."""
    assert (run.status, run.rows_rejected, run.values_rejected) == ("ok", 0, 0)
    assert rejects(pg, tenant) == []


def check_value(reject: Reject, bad: Bad, node: Node) -> None:
    assert (reject.kind, reject.level, reject.graph_id) == ("deal", "value", node.key)
    assert reject.sqlstate == bad.sqlstate
    assert bad.says in reject.message
    assert reject.value is not None
    assert bad.shown in reject.value
    assert len(reject.value) <= 300


# -- one bad value harms its own column --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", BAD_VALUES, ids=lambda bad: bad.name)
def test_the_deal_lands_without_the_value_that_does_not_fit(
    bad: Bad, pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    properties = full_deal()
    good = deal(**properties)
    node = deal(**properties | {bad.source: bad.value})

    run = sync(writer, tenant)

    refused(run, 0, 1 + len(bad.also))
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
    """One deal a bad value, one deal with a bad value in every column, keys that are none, versions: all in one."""
    writer.execute(f"SET deal_sync.batch_rows = {batch_rows}")
    good = [deal(**full_deal()) for _ in range(3)]
    nodes = {bad.name: deal(**full_deal() | {bad.source: bad.value}) for bad in BAD_VALUES}
    by_source = {bad.source: bad for bad in BAD_VALUES}
    worst = deal(**{name: bad.value for name, bad in by_source.items()})
    keyless = [deal(opportunity_id=key) for key in ("deal-17", "deal-17", None, None, 17, ["a"])]
    refused_versions = [
        version(good[0], **{"version": number} | bad.properties) for number, bad in enumerate(BAD_VERSIONS)
    ]
    landing = version(good[0], version=len(BAD_VERSIONS))

    run = sync(writer, tenant)

    of_worst = {at for bad in by_source.values() for at, _ in bad.rejects}
    values = sum(len(bad.rejects) for bad in BAD_VALUES) + len(of_worst)
    refused(run, len(keyless) + len(refused_versions), values)
    assert (run.deals_read, run.deals_inserted) == (len(nodes) + len(keyless) + 4, len(nodes) + 4)
    assert run.versions_inserted == 1
    found = rejects(pg, tenant)
    assert {(reject.graph_id, reject.column_name, reject.sqlstate) for reject in found if reject.level == "value"} >= {
        (nodes[bad.name].key, *reject) for bad in BAD_VALUES for reject in bad.rejects
    }
    assert {reject.column_name for reject in found if reject.graph_id == worst.key} == of_worst
    assert {reject.graph_id for reject in found if reject.level == "row" and reject.kind == "version"} == {
        node.key for node in refused_versions
    }
    assert row(pg, "deal_versions", tenant_id=tenant)["id"] == landing.id
    assert one(pg, "SELECT count(*) FROM opportunities") == run.deals_inserted

    for node in (*nodes.values(), worst, *keyless, *refused_versions):
        node.delete()
    healed(sync(writer, tenant), pg, tenant)


def test_a_value_that_fits_again_lands(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    node = deal(confidence="high", embedding=[], deal_ref=POINT, **{DIM: 2.5})
    refused(sync(writer, tenant), 0, 5)  # deal_ref twice: the metadata has it too
    node.set(confidence=0.5, embedding=[0.5] * 1536, deal_ref="deal_1", **{DIM: 2})

    run = sync(writer, tenant)

    healed(run, pg, tenant)
    landed = opportunity(pg, node)
    assert (str(landed["extraction_confidence"]), landed["deal_ref"], landed[DIM]) == ("0.50", "deal_1", 2)
    assert landed["extraction_embedding"] is not None


def test_a_bad_amount_is_refused_at_its_column_where_amount_is_written(
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
    """Neo4j stores it, and replaces it on the wire: the deal lands, and nobody can tell. See test_values.py too."""
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

    refused(sync(writer, tenant), 0, 1)

    (reject,) = rejects(pg, tenant)
    assert reject.column_name == METADATA
    assert "amount: NaN or infinity" in reject.message
    assert "expected_close_date: a POINT" in reject.message


def test_the_value_of_a_refusal_is_cut_to_a_readable_length_and_not_in_its_message(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    deal(deal_ref="x" * 5000, opportunity_summary=["y" * 5000] * 3)

    refused(sync(writer, tenant), 0, 2)

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


# -- what a column does with a misfit ----------------------------------------------------------------------------------


def test_on_misfit_error_refuses_the_row_as_reject_does(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    alter_mapping(pg, "ALTER COLUMN version OPTIONS (ADD on_misfit 'error')")
    bad, fine = deal(version=0.5), deal(version=1)

    refused(sync(writer, tenant), 1, 0)

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

    refused(run, 2, 2)
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
    refused(sync(writer, tenant), 0, 1)
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

    refused(run, 0, 2)
    assert (run.deals_updated, run.deals_unchanged) == (0, 1)
    assert opportunity(pg, node) == before

    node.set(embedding=None)
    refused(sync(writer, tenant), 0, 1)
    assert opportunity(pg, node)["extraction_embedding"] is None


# -- insert-only columns -----------------------------------------------------------------------------------------------


def test_a_bad_value_in_an_insert_only_column_names_both_remedies_and_leaves_when_the_row_has_a_value(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(account_id="ACC-17")

    refused(sync(writer, tenant), 0, 1)

    (reject,) = rejects(pg, tenant)
    assert (reject.level, reject.column_name, reject.value) == ("value", "account_id", "ACC-17")
    assert "so this is not retried" in reject.message
    assert "set it by hand" in reject.message
    assert "'fill'" in reject.message

    # It counts as long as the row has NULL there.
    refused(sync(writer, tenant), 0, 1)
    assert [reject.times_seen for reject in rejects(pg, tenant)] == [2]

    account = uuid.uuid4()
    pg.execute("UPDATE opportunities SET account_id = %s", [account])
    healed(sync(writer, tenant), pg, tenant)
    assert opportunity(pg, node)["account_id"] == account


def test_a_bad_value_in_an_insert_only_column_leaves_when_the_graph_has_none(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(account_id="ACC-17")
    refused(sync(writer, tenant), 0, 1)
    node.set(account_id=None)

    healed(sync(writer, tenant), pg, tenant)

    assert opportunity(pg, node)["account_id"] is None


def test_the_remedy_fill_takes_a_value_that_has_been_mended(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(account_id="ACC-17")
    sync(writer, tenant)
    alter_mapping(pg, "ALTER COLUMN account_id OPTIONS (SET write 'fill')")
    refused(sync(writer, tenant), 0, 1)
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

    refused(run, 0, 1)
    assert (run.deals_updated, run.deals_adopted) == (1, 2)
    assert [reject.graph_id for reject in rejects(pg, tenant)] == [empty.key]


def test_a_name_without_its_nul_character_is_reported_while_it_stands(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    """The text landed, so there is nothing to set by hand; the metadata goes on reporting its own loss."""
    node = deal(name="Ac\0me")

    refused(sync(writer, tenant), 0, 2)

    by_column = {reject.column_name: reject for reject in rejects(pg, tenant)}
    assert opportunity(pg, node)["opportunity_name"] == "Acme"
    assert "by hand" not in by_column["name"].message
    refused(sync(writer, tenant), 0, 2)
    pg.execute("UPDATE opportunities SET opportunity_name = 'Acme & Co'")
    refused(sync(writer, tenant), 0, 1)
    assert [reject.column_name for reject in rejects(pg, tenant)] == [METADATA]


# -- a row that cannot land at all -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "sqlstate", "says", "shown"),
    [
        ("deal-17", "22P02", "no UUID", "deal-17"),
        ("", "22P02", "no UUID", ""),
        (None, "23502", 'no property "opportunity_id"', None),
        (17, "2200G", "INTEGER where a UUID is due", "17"),
        (["a"], "2200G", "a LIST where a UUID is due", "['a']"),
        (POINT, "2200G", "a POINT where a UUID is due", "point({"),
    ],
    ids=["no UUID", "empty", "missing", "a number", "a list", "a point"],
)
def test_a_deal_whose_key_is_no_uuid_is_refused_and_the_others_land(
    key: Any,
    sqlstate: str,
    says: str,
    shown: str | None,
    pg: Connection,
    writer: Connection,
    deal: AddNode,
    tenant: uuid.UUID,
) -> None:
    good, bad = deal(), deal(opportunity_id=key, confidence="high")

    run = sync(writer, tenant)

    refused(run, 1, 0)  # not the confidence beside it: nothing of the deal landed
    assert (run.deals_read, run.deals_inserted) == (2, 1)
    assert [found["id"] for found in rows(pg, "opportunities", tenant_id=tenant)] == [good.id]
    (reject,) = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.column_name) == ("deal", "row", "opportunity_id")
    assert reject.sqlstate == sqlstate
    assert says in reject.message
    assert (reject.value is None) == (shown is None)
    assert shown is None or shown in (reject.value or "")
    assert (reject.graph_id is None) == (key is None)
    # The only name of a node without a key.
    assert one(pg, "SELECT element_id FROM deal_sync.rejects") == bad.element_id

    id = uuid.uuid4()
    bad.set(opportunity_id=str(id), confidence=None)
    healed(sync(writer, tenant), pg, tenant)
    assert row(pg, "opportunities", id=id)


@dataclass(frozen=True)
class BadVersion:
    """A version that cannot land at all, and the column of the foreign table that says why."""

    name: str
    properties: dict[str, Any]
    column: str
    sqlstate: str
    says: str
    value: str | None


BAD_VERSIONS = [
    BadVersion("without a name", {"name": None}, "name", "23502", 'no property "name"', None),
    BadVersion("without a stage", {"stage": None}, "stage", "23502", 'no property "stage"', None),
    BadVersion("a name that is a list", {"name": ["a"]}, "name", "2200G", "a LIST where a text is due", "['a']"),
    BadVersion("too long a stage", {"stage": "s" * 21}, "stage", "22001", "21 characters where 20 fit", "s" * 21),
    BadVersion("an id that is no UUID", {"version_id": "v-1"}, "version_id", "22P02", "no UUID", "v-1"),
    BadVersion(
        "a deal that is no UUID", {"deal_opportunity_id": "d-1"}, "deal_opportunity_id", "22P02", "no UUID", "d-1"
    ),
    BadVersion(
        "without a deal",
        {"deal_opportunity_id": None},
        "deal_opportunity_id",
        "23502",
        'no property "deal_opportunity_id"',
        None,
    ),
    BadVersion("a number that is a text", {"version": "two"}, "version", "2200G", "a STRING where a number", "two"),
    BadVersion("a number that is a fraction", {"version": 1.5}, "version", "22P02", "a fraction", "1.5"),
    BadVersion("too large a number", {"version": 2**31}, "version", "22003", "32-bit integer", str(2**31)),
    BadVersion("an unreadable moment", {"created_at": "soon"}, "created_at", "22007", "no ISO 8601", "soon"),
    BadVersion(
        "an unreadable start", {"valid_from": "2026-02-30"}, "valid_from", "22008", "out of range", "2026-02-30"
    ),
]


@pytest.mark.parametrize("bad", BAD_VERSIONS, ids=lambda bad: bad.name)
def test_a_version_that_cannot_land_is_refused_and_the_others_land(
    bad: BadVersion, pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = deal()
    good = version(node, version=7)
    refused_one = version(node, **{"version": 8} | bad.properties)

    run = sync(writer, tenant)

    refused(run, 1, 0)
    assert (run.deals_inserted, run.versions_inserted) == (1, 1)
    assert [found["id"] for found in rows(pg, "deal_versions", tenant_id=tenant)] == [good.id]
    (reject,) = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.graph_id) == ("version", "row", refused_one.key)
    assert (reject.column_name, reject.sqlstate, reject.value) == (bad.column, bad.sqlstate, bad.value)
    assert bad.says in reject.message

    refused_one.set(
        version_id=str(uuid.uuid4()),
        deal_opportunity_id=node.key,
        version=8,
        name="",
        stage="",
        created_at="2026-01-01T00:00:00Z",
        valid_from=None,
    )
    run = sync(writer, tenant)
    healed(run, pg, tenant)
    assert run.versions_inserted == 1


def test_a_version_without_an_id_is_refused_by_its_element_id(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    node = version(deal(), version_id=None)

    refused(sync(writer, tenant), 1, 0)

    (reject,) = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.column_name, reject.graph_id) == ("version", "row", "version_id", None)
    assert (reject.sqlstate, reject.value) == ("23502", None)
    assert one(pg, "SELECT element_id FROM deal_sync.rejects") == node.element_id


@pytest.mark.parametrize(
    ("property", "value", "column", "sqlstate", "lands"),
    [
        ("amount", NAN, "amount", "22003", None),
        ("amount", 1e13, "amount", "22003", None),
        ("amount", "a lot", "amount", "2200G", None),
        ("ontology_version", "v" * 65, "ontology_version", "22001", None),
        ("ontology_completeness", 1000, "ontology_completeness", "22003", None),
        ("change_source_interaction_id", "mail-17", "change_source_interaction_id", "22P02", None),
        ("valid_until", "later", "valid_until", "22007", None),
        ("change_summary", POINT, "change_summary", "2200G", None),
        ("change_summary", "a\0b", "change_summary", "22021", "ab"),
        ("name", "a\0b", "name", "22021", "ab"),
        ("changed_fields", "stage", "changed_fields", "2200G", None),
        ("changed_fields", [1, 2], "changed_fields", "2200G", None),
        ("changed_fields", ["a\0b", "c"], "changed_fields", "22021", ["ab", "c"]),
        (MEDDIC[0], DURATION, MEDDIC[0], "2200G", None),
    ],
)
def test_a_version_lands_without_the_value_that_does_not_fit(
    property: str,
    value: Any,
    column: str,
    sqlstate: str,
    lands: Any,
    pg: Connection,
    writer: Connection,
    deal: AddNode,
    version: AddNode,
    tenant: uuid.UUID,
) -> None:
    """NULL and not the stand-in, which is for an absent property."""
    node = version(deal(), **{property: value})

    run = sync(writer, tenant)

    refused(run, 0, 1)
    assert run.versions_inserted == 1
    assert row(pg, "deal_versions", id=node.id)[column] == lands
    (reject,) = rejects(pg, tenant)
    assert (reject.kind, reject.level, reject.column_name, reject.sqlstate) == ("version", "value", column, sqlstate)
    assert ("set it by hand" in reject.message) == (lands is None)

    # Append-only: the row stays as it is, and the refusal until the graph has no such value.
    node.set(**{property: None if lands is None else "fine"})
    if property == "changed_fields" and lands is not None:
        node.set(changed_fields=["fine"])
    healed(sync(writer, tenant), pg, tenant)
    assert row(pg, "deal_versions", id=node.id)[column] == lands


@pytest.mark.german
def test_what_the_application_refuses_is_one_rows_matter(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """A trigger that raises, in a code of its own too, one that suppresses the row, a check, a unique constraint."""
    pg.execute(
        "CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.opportunity_name = 'raise' THEN RAISE EXCEPTION 'not % please', new.opportunity_name;"
        " ELSIF new.opportunity_name = 'own code' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'AB123';"
        " ELSIF new.opportunity_name = 'suppress' THEN RETURN NULL; END IF; RETURN new; END $$"
    )
    pg.execute("CREATE TRIGGER object BEFORE INSERT ON opportunities FOR EACH ROW EXECUTE FUNCTION object()")
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT cheap CHECK (extraction_version < 100)")
    pg.execute("CREATE UNIQUE INDEX one_reference ON opportunities (deal_ref) WHERE deal_ref = 'taken'")
    pg.execute("ALTER TABLE opportunities ALTER COLUMN account_id SET NOT NULL")
    account = {"account_id": str(uuid.uuid4())}
    insert(pg, "opportunities", tenant_id=tenant, deal_ref="taken", account_id=uuid.uuid4())
    good = [deal(**account) for _ in range(20)]
    bad = {
        "P0001": deal(name="raise", **account),
        "AB123": deal(name="own code", **account),
        "09000": deal(name="suppress", **account),
        "23514": deal(version=100, **account),
        "23505": deal(deal_ref="taken", **account),
        "23502": deal(account_id=None),
        "22P02": deal(account_id="ACC-17"),
    }
    for node in bad.values():
        version(node)
    version(good[0])

    run = sync(writer, tenant)

    refused(run, 2 * len(bad), 0)
    assert (run.deals_read, run.deals_inserted, run.versions_inserted) == (len(good) + len(bad), len(good), 1)
    found = {reject.sqlstate: reject for reject in rejects(pg, tenant) if reject.kind == "deal"}
    assert {sqlstate: (reject.level, reject.graph_id) for sqlstate, reject in found.items()} == {
        sqlstate: ("row", node.key) for sqlstate, node in bad.items()
    }
    assert 'in trigger "object" of table public.opportunities: it rejected the row' in found["P0001"].message
    assert "not raise please" in (found["P0001"].server_text or "")
    assert "raise" not in found["P0001"].message
    assert 'in trigger "object" of table public.opportunities: it rejected the row' in found["AB123"].message
    assert "a trigger of the table returned NULL" in found["09000"].message
    assert 'constraint "cheap"' in found["23514"].message
    assert 'constraint "one_reference"' in found["23505"].message
    assert '"account_id"' in found["23502"].message
    assert (found["23502"].column_name, found["23502"].value) == ("account_id", None)
    assert (found["22P02"].column_name, found["22P02"].value) == ("account_id", "ACC-17")

    pg.execute("DROP TRIGGER object ON opportunities")
    pg.execute("ALTER TABLE opportunities DROP CONSTRAINT cheap, ALTER COLUMN account_id DROP NOT NULL")
    pg.execute("DROP INDEX one_reference")
    bad["22P02"].set(account_id=None)
    run = sync(writer, tenant)
    healed(run, pg, tenant)
    assert (run.deals_inserted, run.versions_inserted) == (len(bad), len(bad))


def test_a_refused_update_leaves_the_row_as_it_was(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    """Refused by a check, suppressed by a trigger: the row has the old values, all of them."""
    checked, suppressed, good = (deal(version=1, opportunity_summary="old") for _ in range(3))
    sync(writer, tenant)
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT cheap CHECK (extraction_version < 100)")
    pg.execute(
        "CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF new.extraction_version = 50 THEN RETURN NULL; END IF; RETURN new; END $$"
    )
    pg.execute("CREATE TRIGGER suppress BEFORE UPDATE ON opportunities FOR EACH ROW EXECUTE FUNCTION suppress()")
    before = opportunity(pg, checked), opportunity(pg, suppressed)
    for node, number in ((checked, 100), (suppressed, 50), (good, 99)):
        node.set(version=number, opportunity_summary="new")

    run = sync(writer, tenant)

    refused(run, 2, 0)
    assert (run.deals_read, run.deals_updated, run.deals_unchanged) == (3, 1, 0)
    assert (opportunity(pg, checked), opportunity(pg, suppressed)) == before
    assert opportunity(pg, good)["latest_ai_summary"] == "new"
    assert {(reject.graph_id, reject.sqlstate) for reject in rejects(pg, tenant)} == {
        (checked.key, "23514"),
        (suppressed.key, "09000"),
    }


def test_a_refusal_hides_behind_no_note(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    """A deal whose CRM row stands beside its own row is worth a note; that it was refused counts more."""
    node = deal(version=100)
    insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=node.id)
    insert(pg, "opportunities", tenant_id=tenant, id=node.id)
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT cheap CHECK (extraction_version < 100)")

    refused(sync(writer, tenant), 1, 0)

    assert [(reject.level, reject.sqlstate) for reject in rejects(pg, tenant)] == [("row", "23514")]


@pytest.mark.german
def test_a_link_that_the_application_refuses_is_the_links_matter(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """Deal and version land, and so do the other links."""
    pg.execute("CREATE TABLE interactions (id uuid PRIMARY KEY)")
    pg.execute("ALTER TABLE interaction_links ADD FOREIGN KEY (interaction_id) REFERENCES interactions (id)")
    known, unknown = uuid.uuid4(), uuid.uuid4()
    pg.execute("INSERT INTO interactions VALUES (%s)", [known])
    good, bad = deal(source_interaction_id=str(known)), deal(source_interaction_id=str(unknown))
    change = version(good, change_source_interaction_id=str(unknown))

    run = sync(writer, tenant)

    refused(run, 2, 0)
    assert (run.deals_inserted, run.versions_inserted, run.links_inserted) == (2, 1, 1)
    assert {(reject.kind, reject.level, reject.sqlstate, reject.graph_id) for reject in rejects(pg, tenant)} == {
        ("link", "row", "23503", bad.key),
        ("link", "row", "23503", change.key),
    }

    pg.execute("INSERT INTO interactions VALUES (%s)", [unknown])
    run = sync(writer, tenant)
    healed(run, pg, tenant)
    assert run.links_inserted == 2


def test_a_column_that_keeps_what_it_has_keeps_it_where_it_takes_no_null(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    """A new row has nothing to keep: it is refused."""
    pg.execute("ALTER TABLE opportunities ALTER COLUMN deal_ref SET NOT NULL")
    alter_mapping(pg, "ALTER COLUMN deal_ref OPTIONS (ADD on_misfit 'keep')")
    node = deal(deal_ref="deal_1")
    sync(writer, tenant)
    node.set(deal_ref="x" * 51, opportunity_summary="new")
    new = deal(deal_ref="x" * 51)

    run = sync(writer, tenant)

    refused(run, 1, 1)
    landed = opportunity(pg, node)
    assert (landed["deal_ref"], landed["latest_ai_summary"]) == ("deal_1", "new")
    assert {(reject.graph_id, reject.level, reject.column_name, reject.sqlstate) for reject in rejects(pg, tenant)} == {
        (node.key, "value", "deal_ref", "22001"),
        (new.key, "row", "deal_ref", "22001"),
    }


# -- how long a refusal stays ------------------------------------------------------------------------------------------


def test_a_refusal_is_seen_once_a_run_and_keeps_when_it_was_first_seen(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    deal(confidence="high", deal_ref=POINT)
    times = "SELECT first_seen, last_seen, times_seen, run_id FROM deal_sync.rejects ORDER BY column_name"
    runs = [sync(writer, tenant)]
    at_first = pg.execute(times).fetchall()

    runs += [sync(writer, tenant), sync(writer, tenant)]

    now = pg.execute(times).fetchall()
    assert [times_seen for *_, times_seen, _ in at_first] == [1, 1, 1]
    assert [times_seen for *_, times_seen, _ in now] == [3, 3, 3]
    assert [found[0] for found in now] == [found[0] for found in at_first]
    assert all(last > first for first, last, *_ in now)
    assert {found[3] for found in now} == {runs[-1].run_id}
    assert [(run.status, run.values_rejected) for run in runs] == [("partial", 3)] * 3


def test_a_refusal_leaves_when_its_node_is_no_more(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    good = deal()
    gone = [
        deal(opportunity_id="deal-17"),
        deal(confidence="high"),
        version(good, name=None),
        version(good, version=2, amount="x"),
    ]
    refused(sync(writer, tenant), 2, 2)
    for node in gone:
        node.delete()

    healed(sync(writer, tenant), pg, tenant)


def test_a_refusal_of_one_tenant_is_not_settled_by_a_run_of_another(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    deal(confidence="high")
    refused(sync(writer, tenant), 0, 1)

    other = sync(writer, add_tenant(pg))

    assert (other.status, other.values_rejected) == ("ok", 0)
    assert len(rejects(pg, tenant)) == 1


def test_a_refusal_that_changes_its_reason_says_the_new_one(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    node = deal(confidence="high")
    sync(writer, tenant)
    node.set(confidence=11)

    refused(sync(writer, tenant), 0, 1)

    (reject,) = rejects(pg, tenant)
    assert (reject.sqlstate, reject.value, reject.times_seen) == ("22003", "11", 2)


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

    refused(run, 0, 2)
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


# -- dry run and strict ------------------------------------------------------------------------------------------------


def contents(pg: Connection) -> list[Any]:
    """All that a run may write."""
    return [
        pg.execute(sql.SQL("SELECT t::text, t.xmin::text FROM {} AS t ORDER BY 1").format(sql.SQL(table))).fetchall()
        for table in (
            *("opportunities", "deal_versions", "interaction_links", "forecast_jobs"),
            *("deal_sync.rejects", "deal_sync.runs"),
        )
    ]


@pytest.fixture
def mixed(pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID) -> None:
    """A tenant of whom a run inserts, updates, adopts, leaves alone and refuses, a run being behind it already."""
    known, same, adopted = deal(), deal(confidence="high"), deal(source_interaction_id=str(uuid.uuid4()))
    version(known)
    insert(pg, "opportunities", id=adopted.id, tenant_id=tenant)
    adopted.set(opportunity_id="not yet")
    sync(writer, tenant)
    known.set(opportunity_summary="new")
    adopted.set(opportunity_id=adopted.key)
    new = deal(source_interaction_id=str(uuid.uuid4()), embedding=[])
    deal(opportunity_id="deal-17")
    version(new)
    version(new, version=2, name=None)
    assert opportunity(pg, same)


COUNTS = {
    "status": "partial",
    "deals_read": 5,
    "deals_inserted": 1,
    "deals_updated": 1,
    "deals_unchanged": 1,
    "deals_adopted": 1,
    "versions_inserted": 1,
    "links_inserted": 2,
    "rows_rejected": 2,
    "values_rejected": 2,
}


@pytest.mark.usefixtures("mixed")
def test_a_dry_run_gives_the_same_counts_and_writes_nothing(
    pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    before = contents(pg)

    dry = sync(writer, tenant, dry_run=True)

    assert contents(pg) == before
    assert {name: getattr(dry, name) for name in COUNTS} == COUNTS
    real = sync(writer, tenant)
    assert {name: getattr(real, name) for name in COUNTS} == COUNTS
    assert real.message == dry.message
    assert contents(pg) != before


@pytest.mark.german
@pytest.mark.usefixtures("mixed")
def test_strict_raises_on_any_refusal_and_writes_nothing(pg: Connection, writer: Connection, tenant: uuid.UUID) -> None:
    before = contents(pg)

    with pytest.raises(psycopg.Error) as raised:
        sync(writer, tenant, strict=True)

    assert contents(pg) == before
    assert raised.value.sqlstate == "DS002"
    assert "2 rows, 2 values" in (raised.value.diag.message_detail or "")


def test_strict_with_nothing_refused_is_a_run_like_any_other(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """A note is no refusal."""
    node = deal()
    version(node, version=None)

    run = sync(writer, tenant, strict=True)

    assert (run.status, run.deals_inserted) == ("ok", 1)
    assert opportunity(pg, node)


def test_a_strict_dry_run_raises_too(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    deal(confidence="high")

    with pytest.raises(psycopg.Error, match="has rejects, and strict is set"):
        sync(writer, tenant, dry_run=True, strict=True)

    assert one(pg, "SELECT count(*) FROM opportunities") == 0


def test_a_text_that_landed_without_some_characters_is_told_as_long_as_it_stands(
    pg: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """Also in columns that an existing row keeps; no more when people put another text there."""
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
