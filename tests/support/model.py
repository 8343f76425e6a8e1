"""Flows in: nodes of a graph, an application's rows, policies, gates. Flows out: what a sync has to make of them.

Written from the rules of the sync and the description of the graph alone: nothing of the extension is used here but the
names of the dimensions and the MEDDIC fields. It is slow, plain and of one tenant at a time.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import neo4j.time
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC

Row = dict[str, Any]
UNSAID = "?"  # in a refusal: the rules do not say
TEMPORAL = (neo4j.time.DateTime, neo4j.time.Date)


# Values


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


# Derived values


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


# Columns


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


# The application's own rules


@dataclass(frozen=True)
class Gate:
    """A trigger or constraint of the application: refuses the rows of `table` that have `value` in `column`."""

    table: str
    column: str
    value: Any
    sqlstate: str
    create: str
    drop: str

    def refuses(self, table: str, row: Row) -> bool:
        return table == self.table and row[self.column] == self.value


# The sync


@dataclass
class Node:
    """A node of the graph as it was written."""

    element_id: str
    label: str
    properties: dict[str, Any]


# A column of the foreign table ('' for the row as a whole) and the class of the SQLSTATE.
Reason = tuple[str, str]


@dataclass(frozen=True)
class Reject:
    """A refusal: of a row for the first reason that is met, and the rules do not say which one that is."""

    tenant: uuid.UUID
    kind: str
    level: str
    element_id: str
    graph_id: str | None
    reasons: frozenset[Reason]

    def explains(self, other: Reject) -> bool:
        """Whether the other, which is one of the tables', is this one."""
        mine = (self.tenant, self.kind, self.level, self.element_id)
        its = (other.tenant, other.kind, other.level, other.element_id)
        return mine == its and self.graph_id in (UNSAID, other.graph_id) and self._has_reason(other)

    def _has_reason(self, other: Reject) -> bool:
        return any(
            column == its_column and sqlstate in (UNSAID, its_sqlstate)
            for column, sqlstate in self.reasons
            for its_column, its_sqlstate in other.reasons
        )


@dataclass
class Counts:
    """The counts and the status of a deal_sync.run_result."""

    status: str = "ok"
    deals_read: int = 0
    deals_inserted: int = 0
    deals_updated: int = 0
    deals_unchanged: int = 0
    deals_adopted: int = 0
    versions_inserted: int = 0
    links_inserted: int = 0
    rows_rejected: int = 0
    values_rejected: int = 0


@dataclass
class Tables:
    """The application's tables and the refusals."""

    opportunities: dict[uuid.UUID, Row] = field(default_factory=dict)
    versions: dict[uuid.UUID, Row] = field(default_factory=dict)
    links: list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


class Refused(Exception):
    """The row cannot land, for one of the reasons; `note` where that is nobody's fault."""

    def __init__(self, *reasons: Reason, level: str = "row") -> None:
        super().__init__(*reasons)
        self.reasons = reasons
        self.level = level


def spelled(value: object) -> str | None:
    """A key as the graph spells it, for the rejects."""
    if value is None:
        return None
    try:
        return text(value).replace("\0", "")
    except Unfit:
        return UNSAID


def age(properties: Mapping[str, Any], name: str) -> datetime | None:
    try:
        return instant(properties.get(name))
    except Unfit:
        return None


ALWAYS = datetime(1, 1, 1, tzinfo=UTC)
TAKEN: list[Reason] = [("", "23")]  # a key is another row's
DUPLICATE: list[Reason] = [("version", "23")]  # a number is another version's


@dataclass
class Version:
    """A version that is not in the table: the row that would land, what was lost, and why it cannot land."""

    node: Node
    row: Row
    losses: list[Loss]
    refusals: list[Reason]


def written_number(version: Node) -> tuple[Any, Any]:
    """The deal and the number of a version, as the graph has them."""
    return maybe_identity(version.properties.get("deal_opportunity_id")), score(version.properties.get("version"))


@dataclass
class Sync:
    """One run over `tables`, which it changes."""

    tenant: uuid.UUID
    now: datetime
    nodes: list[Node]
    columns: dict[str, Column]
    gates: list[Gate]
    tables: Tables

    def run(self) -> Counts:
        self.counts = Counts()
        self.found: list[Reject] = []
        self.landed: list[tuple[Node, uuid.UUID, Any]] = []
        self._deals()
        self._versions()
        self._links()
        self.counts.rows_rejected = sum(reject.level == "row" for reject in self.found)
        self.counts.values_rejected = sum(reject.level == "value" for reject in self.found)
        if self.counts.rows_rejected or self.counts.values_rejected:
            self.counts.status = "partial"
        others = [reject for reject in self.tables.rejects if reject.tenant != self.tenant]
        self.tables.rejects = others + self.found
        return self.counts

    # What all kinds share

    def _nodes(self, label: str) -> Iterator[Node]:
        spellings = (str(self.tenant).lower(), str(self.tenant).upper())
        for node in self.nodes:
            tenant = node.properties.get("tenant_id")
            if node.label == label and isinstance(tenant, str) and tenant in spellings:
                yield node

    def _reject(self, node: Node, kind: str, level: str, *reasons: Reason) -> None:
        key = "version_id" if node.label == "DealVersion" else "opportunity_id"
        graph_id = spelled(node.properties.get(key))
        self.found.append(Reject(self.tenant, kind, level, node.element_id, graph_id, frozenset(reasons)))

    def _pass_gates(self, table: str, row: Row, *other: Reason) -> None:
        """Raise for the application's rules, and for other reasons that are met when the row is written."""
        refusals = [("", gate.sqlstate) for gate in self.gates if gate.refuses(table, row)]
        if refusals or other:
            raise Refused(*refusals, *other)

    # Deals

    def _deals(self) -> None:
        by_key: dict[uuid.UUID, list[Node]] = {}
        for node in self._nodes("Deal"):
            self.counts.deals_read += 1
            written = node.properties.get("opportunity_id")
            key = maybe_identity(written)
            if key is None:
                self._reject(node, "deal", "row", ("opportunity_id", "23" if written is None else "22"))
            else:
                by_key.setdefault(key, []).append(node)
        for key in sorted(by_key):
            newest = sorted(
                sorted(by_key[key], key=lambda node: node.element_id),
                key=lambda node: age(node.properties, "last_updated_at") or ALWAYS,
                reverse=True,
            )
            for node in newest[1:]:
                self._reject(node, "deal", "row", ("opportunity_id", "23"))
            try:
                row, losses = self._deal(key, newest[0])
            except Refused as refused:
                self._reject(newest[0], "deal", "row", *refused.reasons)
                continue
            for loss in losses:
                self._reject(newest[0], "deal", "value", (loss.column, "22"))
            self.landed.append((newest[0], row["id"], newest[0].properties.get("source_interaction_id")))

    def _deal(self, key: uuid.UUID, node: Node) -> tuple[Row, list[Loss]]:
        rows = self.tables.opportunities
        mine = [row for row in rows.values() if row["tenant_id"] == self.tenant]
        existing = next((row for row in mine if row["graph_opportunity_id"] == key), None)
        same_id = rows.get(key)
        waits = same_id is not None and same_id in mine and same_id["graph_opportunity_id"] is None
        if existing is not None and waits:
            self._reject(node, "deal", "note", ("", UNSAID))
        adopted = existing is None and waits
        if adopted:
            existing = same_id

        written, losses = self._written(node, existing)
        if existing is None:
            row = dict.fromkeys(OPPORTUNITY_COLUMNS) | {"id": key, "tenant_id": self.tenant} | {"extraction_version": 1}
            row |= written | {"graph_opportunity_id": key, "updated_at": self.now}
            taken = key in rows or any(other["graph_opportunity_id"] == key for other in rows.values())
            self._pass_gates("opportunities", row, *TAKEN[:taken])
            rows[key] = row
            self.counts.deals_inserted += 1
            return row, losses

        row = existing | written | {"graph_opportunity_id": key}
        if row == existing:
            self.counts.deals_unchanged += 1
            return row, losses
        row["updated_at"] = self.now
        taken = adopted and any(other["graph_opportunity_id"] == key for other in rows.values())
        self._pass_gates("opportunities", row, *TAKEN[:taken])
        rows[row["id"]] = row
        if adopted:
            self.counts.deals_adopted += 1
        else:
            self.counts.deals_updated += 1
        return row, losses

    def _written(self, node: Node, existing: Row | None) -> tuple[Row, list[Loss]]:
        """The columns that the sync writes, by policy, and what was lost on the way."""
        written: Row = {}
        losses: list[Loss] = []
        refusals: list[Reason] = []
        for column in self.columns.values():
            value, loss = column.read(node.properties)
            if column.write == "never":
                if loss and column.link:  # the link is lost, and tells of it here
                    losses.append(loss)
                continue
            holds = None if existing is None else existing[column.target]
            writes = existing is None or column.write == "always" or (column.write == "fill" and holds is None)
            # What landed without some characters is told of for as long as it stands.
            if loss and (writes or holds is None or (loss.landed and holds == value)):
                losses.append(loss)
            if loss and not loss.landed and column.on_misfit == "reject" and (writes or holds is None):
                refusals.append((column.name, "22"))
            if not writes:
                continue
            if loss and not loss.landed:
                value = holds if column.on_misfit == "keep" else None
            elif value is None and (existing is None or column.write == "always"):
                value = column.default
            written[column.target] = value
        if refusals:
            raise Refused(*refusals)
        # What a dimension's own column tells in every run is not told again at the document.
        told = {column.name for column in self.columns.values() if column.write == "always"}
        return written, [loss for loss in losses if not loss.parts or loss.parts - told]

    # Versions

    def _versions(self) -> None:
        candidates = [candidate for node in self._nodes("DealVersion") if (candidate := self._version(node))]
        candidates.sort(key=lambda candidate: (candidate.row["created_at"], candidate.row["id"] or uuid.UUID(int=0)))
        written = Counter(map(written_number, self._nodes("DealVersion")))
        chosen = {(row["opportunity_id"], row["version_number"]) for row in self.tables.versions.values()}
        for candidate in candidates:
            row, node = candidate.row, candidate.node
            number = (row["opportunity_id"], row["version_number"])
            also = [*candidate.refusals, *TAKEN[: row["id"] in self.tables.versions]]
            # The first that can land by what the graph has, whatever the application says to it.
            also += DUPLICATE[: number in chosen or bool(candidate.refusals and written[written_number(node)] > 1)]
            if not candidate.refusals:
                chosen.add(number)
            try:
                self._pass_gates("deal_versions", row, *also)
            except Refused as refused:
                self._reject(node, "version", "row", *refused.reasons)
                continue
            self.tables.versions[row["id"]] = row
            self.counts.versions_inserted += 1
            for loss in candidate.losses:
                self._reject(node, "version", "value", (loss.column, "22"))
            self.landed.append((node, row["opportunity_id"], node.properties.get("change_source_interaction_id")))

    def _version(self, node: Node) -> Version | None:
        """What would land, or None where it is there already or has no number."""
        properties = node.properties
        identifier = maybe_identity(properties.get("version_id"))
        columns = {column.target: column for column in version_columns()}
        read = {target: column.read(properties) for target, column in columns.items()}
        losses = [loss for _, loss in read.values() if loss]

        there = self.tables.versions.get(identifier) if identifier else None
        if there is not None and there["tenant_id"] == self.tenant:
            for target, (value, loss) in read.items():
                # What landed without some characters is told of for as long as it stands.
                if loss and (there[target] is None or (loss.landed and there[target] == value)):
                    self._reject(node, "version", "value", (loss.column, "22"))
            deal = self._deal_of(node)
            if deal:
                self.landed.append((node, deal, properties.get("change_source_interaction_id")))
            return None
        if properties.get("version") is None and identifier:
            self._reject(node, "version", "note", ("", UNSAID))
            return None

        refusals: list[Reason] = []
        row: Row = {"id": identifier, "tenant_id": self.tenant, "version_number": None}
        if identifier is None:
            refusals.append(("version_id", "23" if properties.get("version_id") is None else "22"))
        try:
            row["version_number"], _ = whole_type(32)(properties.get("version"))
        except Unfit:
            refusals.append(("version", "22"))
        for target, (value, found) in read.items():
            row[target] = columns[target].default if value is None and not found else value
            if found and not found.landed and target in NOT_NULL_IN_VERSIONS:
                refusals.append((columns[target].name, "22"))
        refusals += [(name, "23") for name in ("name", "stage") if properties.get(name) is None]
        if row["created_at"] is None:
            row["created_at"] = row["valid_until"]
        if row["valid_from"] is None:
            row["valid_from"] = row["created_at"]
        for target in ("created_at", "valid_from"):
            row[target] = self.now if row[target] is None else row[target]

        row["opportunity_id"] = self._deal_of(node)
        if row["opportunity_id"] is None:
            refusals.append(("deal_opportunity_id", UNSAID))
        return Version(node, row, losses, refusals)

    def _deal_of(self, version: Node) -> uuid.UUID | None:
        """The id of the row of the version's deal, which may have landed in an earlier run."""
        deal = maybe_identity(version.properties.get("deal_opportunity_id"))
        mine = [row for row in self.tables.opportunities.values() if row["tenant_id"] == self.tenant]
        return next((row["id"] for row in mine if deal and row["graph_opportunity_id"] == deal), None)

    # Links

    def _links(self) -> None:
        for node, opportunity, written in self.landed:
            interaction = maybe_identity(written)
            if interaction is None or (link := (self.tenant, interaction, opportunity)) in self.tables.links:
                continue
            try:
                self._pass_gates("interaction_links", {"interaction_id": interaction})
            except Refused as refused:
                self._reject(node, "link", "row", *refused.reasons)
                continue
            self.tables.links.append(link)
            self.counts.links_inserted += 1


def nobodys(nodes: list[Node]) -> int:
    """How many nodes belong to no tenant: their tenant_id is no uuid in its lower-case or upper-case form."""
    found = 0
    for node in nodes:
        tenant = node.properties.get("tenant_id")
        key = maybe_identity(tenant)
        found += key is None or tenant not in (str(key), str(key).upper())
    return found


def same(expected: Any, actual: Any) -> bool:
    """Whether a column holds what the model says: a temporal value in a document may have any ISO 8601 form."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(same(expected[key], actual[key]) for key in expected)
    if isinstance(expected, neo4j.time.Date):
        return bool(actual == iso(expected))
    if isinstance(expected, neo4j.time.DateTime):
        return isinstance(actual, str) and "T" in actual and instant(actual) == instant(expected)
    return type(expected) is type(actual) and bool(expected == actual)
