"""Flows in: the properties of a node. Flows out: what each column of the model in model.py has to hold of them."""

from __future__ import annotations

import hashlib
import math
import re
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import neo4j.time
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC

Row = dict[str, Any]
TEMPORAL = (neo4j.time.DateTime, neo4j.time.Date)


class Unfit(Exception):
    """The value does not fit its column; the argument is the class of the SQLSTATE, where the rules give it."""

    def __init__(self) -> None:
        super().__init__("22")


@dataclass(frozen=True)
class Vector:
    """An embedding of `size` times the same number: its repr is short where a counterexample is printed."""

    number: Any = 0.5
    size: int = 1536

    def property(self) -> list[Any]:
        return [self.number] * self.size


def digest(numbers: list[float]) -> str:
    """md5 of pgvector's binary form, as md5(vector_send(…)) gives it."""
    packed = struct.pack(f">HH{len(numbers)}f", len(numbers), 0, *numbers)
    return hashlib.md5(packed, usedforsecurity=False).hexdigest()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def instant(value: object) -> datetime:
    """A temporal value or an ISO 8601 text in UTC, floored to the microsecond; a time without an offset is UTC."""
    if isinstance(value, neo4j.time.Date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, neo4j.time.DateTime):
        if value.year > 9998:
            raise Unfit
        found = datetime(
            value.year, value.month, value.day, value.hour, value.minute, value.second, value.nanosecond // 1000
        )
        offset = value.utcoffset()
        return (found - (offset or timedelta())).replace(tzinfo=UTC)
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError):
            raise Unfit from None
    raise Unfit


def iso(value: Any) -> str:
    """ISO 8601 with an offset, comparable after `instant`."""
    return str(value.iso_format())


def text(value: object) -> str:
    """The text form of a scalar; NUL characters are still in it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, TEMPORAL):
        return iso(value)
    raise Unfit


@dataclass(frozen=True)
class Loss:
    """A value that is not, or not wholly, what the graph has; `landed` where what is left of it lands."""

    column: str
    landed: bool = False
    parts: frozenset[str] = frozenset()


# A type takes a value of the graph that is there, and gives the column's value and whether something was lost from it.
Type = Callable[[Any], tuple[Any, bool]]


def text_type(limit: int | None = None) -> Type:
    def convert(value: Any) -> tuple[Any, bool]:
        found = text(value)
        kept = found.replace("\0", "")
        if limit is not None and len(kept) > limit:
            raise Unfit
        return kept, kept != found

    return convert


UUID_TEXT = re.compile(r"[0-9a-f]{4}(-?[0-9a-f]{4}){7}", re.IGNORECASE)


def identity(value: object) -> uuid.UUID:
    """What PostgreSQL takes for a uuid: upper case, braces, a hyphen after any four digits."""
    if not isinstance(value, str):
        raise Unfit
    inner = value[1:-1] if value.startswith("{") and value.endswith("}") else value
    if not UUID_TEXT.fullmatch(inner):
        raise Unfit
    return uuid.UUID(inner.replace("-", ""))


def maybe_identity(value: object) -> uuid.UUID | None:
    try:
        return identity(value)
    except Unfit:
        return None


def uuid_type(value: Any) -> tuple[Any, bool]:
    return identity(value), False


def whole_type(bits: int) -> Type:
    def convert(value: Any) -> tuple[Any, bool]:
        if not is_number(value) or not math.isfinite(value) or value != int(value):
            raise Unfit
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise Unfit
        return int(value), False

    return convert


def number_type(precision: int, scale: int) -> Type:
    def convert(value: Any) -> tuple[Any, bool]:
        if not is_number(value) or not math.isfinite(value):
            raise Unfit
        shortest = Decimal(repr(value))
        rounded = shortest.quantize(Decimal(1).scaleb(-scale), rounding=ROUND_HALF_UP)
        if abs(rounded) >= Decimal(10) ** (precision - scale):
            raise Unfit
        return rounded, False

    return convert


def date_type(value: Any) -> tuple[Any, bool]:
    """The day as it is written, in the value's own zone."""
    if isinstance(value, neo4j.time.Date | neo4j.time.DateTime) and value.year <= 9998:
        return date(value.year, value.month, value.day), False
    if not isinstance(value, str):
        raise Unfit
    try:
        return datetime.fromisoformat(value).date(), False
    except ValueError:
        raise Unfit from None


def moment_type(value: Any) -> tuple[Any, bool]:
    return instant(value), False


def vector_type(value: Any) -> tuple[Any, bool]:
    if not isinstance(value, list) or len(value) != 1536 or not all(is_number(number) for number in value):
        raise Unfit
    try:
        singles = struct.unpack("1536f", struct.pack("1536f", *value))
    except OverflowError:
        raise Unfit from None
    if not all(math.isfinite(number) for number in singles):
        raise Unfit
    return digest(list(singles)), False


def texts_type(value: Any) -> tuple[Any, bool]:
    """A list of texts, for a jsonb array."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unfit
    kept = [item.replace("\0", "") for item in value]
    return kept, kept != value


CONFIDENCE = number_type(3, 2)


def completeness_of_meddic(properties: Mapping[str, Any]) -> Any:
    own = properties.get("meddic_completeness")
    if own is not None:
        return own
    filled = sum(isinstance(properties.get(name), str) and properties[name] != "" for name in MEDDIC)
    return filled / len(MEDDIC)


def score(value: object) -> int | None:
    if is_number(value) and math.isfinite(value) and value == int(value):  # type: ignore[arg-type, call-overload]
        return int(value)  # type: ignore[call-overload, no-any-return]
    return None


def completeness_of_ontology(properties: Mapping[str, Any]) -> Any:
    own = properties.get("ontology_completeness")
    if own is not None:
        return own
    return sum(score(properties.get(f"dim_{name}")) is not None for name in DIMENSIONS) / len(DIMENSIONS)


def ontology_scores(properties: Mapping[str, Any]) -> tuple[Any, set[str]]:
    """The document, and the properties of which it has less than the node."""
    names = set()
    for key in properties:
        if key.startswith("dim_") and not key.endswith("_evidence"):
            names.add(key.removeprefix("dim_").removesuffix("_confidence"))
    document = {}
    lost = set()
    for name in names:
        entry: dict[str, Any] = {"score": score(properties.get(f"dim_{name}")), "confidence": None, "evidence": None}
        confidence, evidence = properties.get(f"dim_{name}_confidence"), properties.get(f"dim_{name}_evidence")
        if is_number(confidence) and math.isfinite(confidence):  # type: ignore[arg-type]
            entry["confidence"] = confidence
        if isinstance(evidence, str):
            entry["evidence"] = evidence.replace("\0", "")
        document[name] = entry
        for key, suffix in (("score", ""), ("confidence", "_confidence"), ("evidence", "_evidence")):
            found = properties.get(f"dim_{name}{suffix}")
            if found is not None and found != entry[key]:
                lost.add(f"dim_{name}{suffix}")
    return document or None, lost


METADATA = {
    "deal_name": "name",
    "stage_assessment": "stage",
    "amount_estimate": "amount",
    "currency": "currency",
    "deal_ref": "deal_ref",
    "expected_close_date": "expected_close_date",
    "closed_at": "closed_at",
}


def workflow_metadata(properties: Mapping[str, Any]) -> tuple[Any, set[str]]:
    """The document, and what of it is less than the node has."""
    document: dict[str, Any] = {"source": "deal_graph"}
    lost = set()
    for key, name in METADATA.items():
        value = properties.get(name)
        document[key] = None
        if isinstance(value, str):
            document[key] = value.replace("\0", "")
        elif isinstance(value, (*TEMPORAL, bool)) or (is_number(value) and math.isfinite(value)):  # type: ignore[arg-type]
            document[key] = value
        if value is not None and document[key] != value:
            lost.add(f"{key} of the document")
    return document, lost


@dataclass
class Column:
    """A column of a foreign table that has a target; write and on_misfit are what people change."""

    name: str
    target: str
    type: Type
    write: str = "always"
    on_misfit: str = "null"
    empty_is_null: bool = False
    default: Any = None
    link: bool = False
    derived: Callable[[Mapping[str, Any]], Any] | None = None
    document: Callable[[Mapping[str, Any]], tuple[Any, set[str]]] | None = None

    def read(self, properties: Mapping[str, Any]) -> tuple[Any, Loss | None]:
        """The value that would land, None where there is none, and what was lost."""
        if self.document:
            value, parts = self.document(properties)
            return value, Loss(self.name, landed=True, parts=frozenset(parts)) if parts else None
        found = self.derived(properties) if self.derived else properties.get(self.name)
        if found is None or (found == "" and self.empty_is_null):
            return None, None
        try:
            value, lost = self.type(found)
        except Unfit:
            return None, Loss(self.name)
        if self.empty_is_null and value == "":
            value = None
        return value, Loss(self.name, landed=True) if lost else None


def deal_columns() -> dict[str, Column]:
    """The default mapping of deals, by the foreign column's name."""
    long_text = text_type()
    columns = [
        Column("name", "opportunity_name", long_text, "insert", empty_is_null=True),
        Column("stage", "stage", long_text, "never"),
        Column("amount", "amount", number_type(15, 2), "never"),
        Column("currency", "currency", text_type(3), "insert", default="USD"),
        Column("account_id", "account_id", uuid_type, "insert"),
        Column("deal_ref", "deal_ref", text_type(50)),
        Column("qualification_status", "qualification_status", text_type(20)),
        Column("opportunity_summary", "latest_ai_summary", long_text, empty_is_null=True),
        Column("evolution_summary", "ai_evolution_summary", long_text, empty_is_null=True),
        *(Column(name, name, long_text) for name in MEDDIC),
        *(Column(f"{name}_confidence", f"{name}_confidence", CONFIDENCE) for name in MEDDIC),
        Column("meddic_completeness", "meddic_completeness", CONFIDENCE, derived=completeness_of_meddic),
        Column("meddic_paper_process", "meddic_paper_process", long_text),
        Column("meddic_competition", "meddic_competition", long_text),
        *(Column(f"dim_{name}", f"dim_{name}", whole_type(16)) for name in DIMENSIONS),
        *(Column(f"dim_{name}_confidence", f"dim_{name}_confidence", CONFIDENCE) for name in DIMENSIONS),
        Column("ontology_scores_json", "ontology_scores_json", long_text, document=ontology_scores),
        Column("ontology_completeness", "ontology_completeness", number_type(5, 2), derived=completeness_of_ontology),
        Column("ontology_version", "ontology_version", text_type(64)),
        Column("embedding", "extraction_embedding", vector_type, on_misfit="keep"),
        Column("embedding_current", "extraction_embedding_current", vector_type, on_misfit="keep"),
        Column("confidence", "extraction_confidence", CONFIDENCE),
        Column("version", "extraction_version", whole_type(32)),
        Column("source_interaction_id", "source_interaction_id", uuid_type, link=True),
        Column("closed_at", "actual_close_date", date_type, "insert"),
        Column("ai_workflow_metadata", "ai_workflow_metadata", long_text, document=workflow_metadata),
    ]
    return {column.name: column for column in columns}


def version_columns() -> list[Column]:
    """The mapping of deal_versions, without its keys and times."""
    long_text = text_type()
    return [
        Column("name", "name", long_text),
        Column("stage", "stage", text_type(20)),
        Column("amount", "amount", number_type(15, 2)),
        Column("opportunity_summary", "opportunity_summary", long_text),
        Column("evolution_summary", "evolution_summary", long_text),
        *(Column(name, name, long_text) for name in MEDDIC),
        Column("meddic_completeness", "meddic_completeness", CONFIDENCE, derived=completeness_of_meddic),
        Column("ontology_scores_json", "ontology_scores_json", long_text, document=ontology_scores),
        Column("ontology_completeness", "ontology_completeness", number_type(5, 2), derived=completeness_of_ontology),
        Column("ontology_version", "ontology_version", text_type(64)),
        Column("change_summary", "change_summary", long_text, default=""),
        Column("changed_fields", "changed_fields", texts_type, default=[]),
        Column("change_source_interaction_id", "change_source_interaction_id", uuid_type),
        Column("created_at", "created_at", moment_type),
        Column("valid_from", "valid_from", moment_type),
        Column("valid_until", "valid_until", moment_type),
    ]


# What an application has of its own, which the sync never writes.
CRM_COLUMNS = (
    "close_date",
    "deal_status",
    "forecast_category",
    "next_step",
    "description",
    "lost_reason",
    "latest_forecast_amount",
    "latest_forecast_confidence",
    "latest_forecast_at",
    "forecast_count",
    "attribute_maturity_stage",
    "latest_user_context",
    "source_user_id",
)
OPPORTUNITY_COLUMNS = (
    "id",
    "tenant_id",
    "graph_opportunity_id",
    *(column.target for column in deal_columns().values()),
    *CRM_COLUMNS,
    "updated_at",
)
VERSION_COLUMNS = (
    "id",
    "tenant_id",
    "opportunity_id",
    "version_number",
    *(column.target for column in version_columns()),
)
NOT_NULL_IN_VERSIONS = ("name", "stage", "created_at", "valid_from")
