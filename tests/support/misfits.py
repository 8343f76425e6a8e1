"""Flows in: nothing; runs with rejects, or without.
Flows out: values that fit no column; what a run says of rejects.
"""

import math
import uuid
from dataclasses import dataclass
from typing import Any

from neo4j.spatial import CartesianPoint, WGS84Point
from neo4j.time import Duration, Time
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC

from support.database import Connection
from support.sync import Run, rejects

NAN, INFINITY = math.nan, math.inf
POINT = WGS84Point((8.5, 47.4))
DURATION = Duration(months=3, days=1)
DIM = f"dim_{DIMENSIONS[0]}"
SCORES = "ontology_scores_json"
METADATA = "ai_workflow_metadata"


@dataclass(frozen=True)
class Bad:
    """A value of the property `source` that does not fit.

    `column` of the foreign table is rejected, `target` of the application's table holds what `lands`.

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
    # -- for a number
    Bad("a text in a number", "confidence", "high", "2200G", "expected a number, found a STRING", "high", CONFIDENCE),
    Bad("a number as a text", "confidence", "0.5", "2200G", "expected a number, found a STRING", "0.5", CONFIDENCE),
    Bad("a boolean in a number", "confidence", True, "2200G", "expected a number, found a BOOLEAN", "true", CONFIDENCE),
    Bad("a list in a number", "confidence", [0.5], "2200G", "expected a number, found a LIST", "[0.5]", CONFIDENCE),
    Bad("a point in a number", "confidence", POINT, "2200G", "expected a number, found a POINT", "point({", CONFIDENCE),
    Bad("a duration in a number", "confidence", DURATION, "2200G", "found a DURATION", "3", CONFIDENCE),
    Bad("NaN", "confidence", NAN, "22003", "not a finite number", "NaN", CONFIDENCE),
    Bad("infinity", "confidence", INFINITY, "22003", "not a finite number", "Infinity", CONFIDENCE),
    Bad("minus infinity", f"{MEDDIC[0]}_confidence", -INFINITY, "22003", "not a finite number", "-Infinity"),
    Bad("numeric(3,2): too large", "confidence", 10, "22003", "out of range for type numeric(3,2)", "10", CONFIDENCE),
    Bad("numeric(3,2): too large once rounded", "confidence", 9.995, "22003", "numeric(3,2)", "9.995", CONFIDENCE),
    Bad("numeric(3,2): too small", f"{DIM}_confidence", -10.0, "22003", "numeric(3,2)", "-10.0"),
    Bad("numeric(3,2): far too large", "confidence", 1e300, "22003", "numeric(3,2)", "1e+300", CONFIDENCE),
    Bad("numeric(5,2): too large", "ontology_completeness", 1000, "22003", "numeric(5,2)", "1000"),
    Bad(
        "a text as its own completeness",
        "meddic_completeness",
        "most",
        "2200G",
        "expected a number, found a STRING",
        "most",
    ),
    Bad("NaN as its own completeness", "ontology_completeness", NAN, "22003", "not a finite number", "NaN"),
    # -- for an integer
    Bad(
        "a text in an integer",
        "version",
        "two",
        "2200G",
        "expected a number, found a STRING",
        "two",
        "extraction_version",
    ),
    Bad("a text as a score", DIM, "strong", "2200G", "expected a number, found a STRING", "strong"),
    Bad("int: too large", "version", 2**31, "22003", "out of range for type integer", str(2**31), "extraction_version"),
    Bad("int: too small", "version", -(2**31) - 1, "22003", "type integer", str(-(2**31) - 1), "extraction_version"),
    Bad("smallint: too large", DIM, 70000, "22003", "out of range for type smallint", "70000"),
    Bad("smallint: too small", DIM, -32769, "22003", "out of range for type smallint", "-32769"),
    Bad("a fraction in an integer", DIM, 2.5, "22P02", "expected an integer, found a fraction", "2.5"),
    Bad("NaN in an integer", DIM, NAN, "22003", "not a finite number", "NaN"),
    Bad(
        "infinity in an integer", "version", INFINITY, "22003", "not a finite number", "Infinity", "extraction_version"
    ),
    # -- for a vector
    Bad(
        "NaN in an embedding",
        "embedding",
        vector(at=0, is_=NAN),
        "22003",
        "not a finite number",
        "[NaN, 0.5,",
        EMBEDDING,
    ),
    Bad(
        "NaN at an embedding's end",
        "embedding",
        vector(at=1535, is_=NAN),
        "22003",
        "not a finite number",
        "[0.5,",
        EMBEDDING,
    ),
    Bad(
        "infinity in an embedding",
        "embedding",
        vector(at=700, is_=INFINITY),
        "22003",
        "not a finite number",
        "[0.5,",
        EMBEDDING,
    ),
    Bad(
        "both infinities",
        "embedding",
        [INFINITY, -INFINITY] * 768,
        "22003",
        "not a finite number",
        "[Infinity, -Inf",
        EMBEDDING,
    ),
    Bad("too large for a float4", "embedding", vector(at=3, is_=1e39), "22003", "4-byte float", "1e+39", EMBEDDING),
    Bad(
        "too short an embedding",
        "embedding",
        [0.5] * 1535,
        "22000",
        "expected 1536 dimensions, found 1535",
        "1535",
        EMBEDDING,
    ),
    Bad(
        "too long an embedding",
        "embedding",
        [0.5] * 1537,
        "22000",
        "expected 1536 dimensions, found 1537",
        "1537",
        EMBEDDING,
    ),
    Bad("an empty embedding", "embedding", [], "22000", "expected 1536 dimensions, found 0", "[]", EMBEDDING),
    Bad(
        "texts in an embedding",
        "embedding",
        ["a"] * 1536,
        "2200G",
        "expected a number, found a STRING",
        "['a',",
        EMBEDDING,
    ),
    Bad(
        "booleans in an embedding",
        "embedding",
        [True] * 1536,
        "2200G",
        "expected a number, found a BOOLEAN",
        "[true,",
        EMBEDDING,
    ),
    Bad(
        "a text as an embedding", "embedding", "[0.5]", "2200G", "expected a vector, found a STRING", "[0.5]", EMBEDDING
    ),
    Bad(
        "the other embedding",
        "embedding_current",
        vector(at=9, is_=NAN),
        "22003",
        "not a finite number",
        "[0.5,",
        "extraction_embedding_current",
    ),
    # -- for an id
    Bad("an account that is no UUID", "account_id", "ACC-17", "22P02", "not a UUID", "ACC-17"),
    Bad("an account that is a number", "account_id", 17, "2200G", "expected a UUID, found an INTEGER", "17"),
    Bad("an account that is empty", "account_id", "", "22P02", "not a UUID", ""),
    Bad("an interaction that is no UUID", "source_interaction_id", "mail-17", "22P02", "not a UUID", "mail-17"),
    # -- for a text
    Bad(
        "too long for a varchar",
        "qualification_status",
        "q" * 21,
        "22001",
        "21 characters is too long for 20",
        "q" * 21,
    ),
    Bad("too long for a varchar, in bytes only", "ontology_version", "é" * 65, "22001", "65 characters", "é" * 65),
    Bad("too long a reference", "deal_ref", "d" * 51, "22001", "51 characters is too long for 50", "d" * 51),
    Bad("too long a currency", "currency", "Euro", "22001", "4 characters is too long for 3", "Euro"),
    Bad(
        "a point in a text", "opportunity_summary", POINT, "2200G", "expected a text, found a POINT", "point({", SUMMARY
    ),
    Bad(
        "a plane's point in a text",
        MEDDIC[0],
        CartesianPoint((1, 2)),
        "2200G",
        "expected a text, found a POINT",
        "point({",
    ),
    Bad("a duration in a text", "meddic_competition", DURATION, "2200G", "expected a text, found a DURATION", "3"),
    Bad(
        "a list in a text",
        "opportunity_summary",
        ["a", "b"],
        "2200G",
        "expected a text, found a LIST",
        "['a', 'b']",
        SUMMARY,
    ),
    Bad("bytes in a text", "meddic_competition", b"abc", "2200G", "expected a text, found a BYTES", "[97, 98, 99]"),
    Bad(
        "a NUL character in a text",
        "opportunity_summary",
        "be\0fore",
        "22021",
        "a NUL character or lone surrogate was removed",
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
    # -- for a date: actual_close_date has it, the metadata the value as it is
    Bad("an unreadable date", "closed_at", "soon", "22007", "not an ISO 8601 date or time", "soon", CLOSED),
    Bad("an empty date", "closed_at", "", "22007", "not an ISO 8601 date or time", "", CLOSED),
    Bad("a day that is not", "closed_at", "2026-02-30", "22008", "out of range", "2026-02-30", CLOSED),
    Bad("an hour that is not", "closed_at", "2026-02-01T25:00", "22008", "out of range", "2026-02-01T25:00", CLOSED),
    Bad("a year past 9999 as a text", "closed_at", "10000-01-01", "22007", "not an ISO 8601", "10000-01-01", CLOSED),
    Bad("year 0", "closed_at", "0000-01-01", "22008", "years 1 to 9999", "0000-01-01", CLOSED),
    Bad("an unknown zone", "closed_at", "2026-02-01T10:00[Mars/Sea]", "22023", "unknown time zone", "Mars/Sea", CLOSED),
    Bad(
        "a number as a date",
        "closed_at",
        20260201,
        "2200G",
        "expected a date or time, found an INTEGER",
        "20260201",
        CLOSED,
    ),
    Bad(
        "a time of day as a date",
        "closed_at",
        Time(12, 0),
        "2200G",
        "expected a date or time, found a TIME",
        "12",
        CLOSED,
    ),
    Bad("a point as a date", "closed_at", POINT, "2200G", "found a POINT", "point({", CLOSED, also=(METADATA,)),
    # -- inside a document
    Bad("NaN in the metadata", "amount", NAN, "22003", "not a finite number", "NaN", column=METADATA),
    Bad("infinity in the metadata", "amount", -INFINITY, "22003", "not a finite number", "-Infinity", column=METADATA),
    Bad("a list in the metadata", "stage", ["a"], "2200G", "found a LIST", "['a']", column=METADATA),
    Bad("a point in the metadata", "expected_close_date", POINT, "2200G", "found a POINT", "point({", column=METADATA),
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
        "a name that is a list", "name", ["Acme"], "2200G", "found a LIST", "Acme", "opportunity_name", also=(METADATA,)
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
    Bad("NaN without a column", "dim_novelty_confidence", NAN, "22003", "not a finite number", "NaN", column=SCORES),
    Bad(
        "a point as evidence",
        f"{DIM}_evidence",
        POINT,
        "2200G",
        "expected a text, found a POINT",
        "point({",
        column=SCORES,
    ),
]


def rejected(run: Run, rows: int, values: int) -> None:
    """The run is partial and counts its rejects."""
    assert (run.status, run.rows_rejected, run.values_rejected) == ("partial", rows, values)
    assert run.message is not None
    counts = [f"rejected {what}: {number}" for what, number in (("rows", rows), ("values", values)) if number]
    assert run.message.split("; ")[-1] == f"{', '.join(counts)} (see deal_sync.rejects)"


def healed(run: Run, pg: Connection, tenant: uuid.UUID) -> None:
    """Nothing is rejected any more."""
    assert (run.status, run.rows_rejected, run.values_rejected) == ("ok", 0, 0)
    assert rejects(pg, tenant) == []


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
    BadVersion("a name that is a list", {"name": ["a"]}, "name", "2200G", "expected a text, found a LIST", "['a']"),
    BadVersion("too long a stage", {"stage": "s" * 21}, "stage", "22001", "21 characters is too long for 20", "s" * 21),
    BadVersion("an id that is no UUID", {"version_id": "v-1"}, "version_id", "22P02", "not a UUID", "v-1"),
    BadVersion(
        "a deal that is no UUID", {"deal_opportunity_id": "d-1"}, "deal_opportunity_id", "22P02", "not a UUID", "d-1"
    ),
    BadVersion(
        "without a deal",
        {"deal_opportunity_id": None},
        "deal_opportunity_id",
        "23502",
        'no property "deal_opportunity_id"',
        None,
    ),
    BadVersion(
        "a number that is a text", {"version": "two"}, "version", "2200G", "expected a number, found a STRING", "two"
    ),
    BadVersion("a number that is a fraction", {"version": 1.5}, "version", "22P02", "a fraction", "1.5"),
    BadVersion(
        "too large a number", {"version": 2**31}, "version", "22003", "out of range for type integer", str(2**31)
    ),
    BadVersion("an unreadable moment", {"created_at": "soon"}, "created_at", "22007", "not an ISO 8601", "soon"),
    BadVersion(
        "an unreadable start", {"valid_from": "2026-02-30"}, "valid_from", "22008", "out of range", "2026-02-30"
    ),
]
