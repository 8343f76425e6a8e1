"""Flows in: nodes of a graph, an application's rows, policies, gates.
Flows out: what a sync has to make of them.

Written from the rules of the sync and the description of the graph alone: nothing of the extension is used here and in
model_columns.py but the names of the dimensions and the MEDDIC fields. It is slow, plain and of one tenant at a time.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import neo4j.time

from support.model_columns import (
    NOT_NULL_IN_VERSIONS,
    OPPORTUNITY_COLUMNS,
    Column,
    Loss,
    Row,
    Unfit,
    instant,
    iso,
    maybe_identity,
    score,
    text,
    version_columns,
    whole_type,
)

UNSAID = "?"  # in a reject: the rules do not say


@dataclass(frozen=True)
class Gate:
    """A trigger or constraint of the application: rejects the rows of `table` that have `value` in `column`."""

    table: str
    column: str
    value: Any
    sqlstate: str
    create: str
    drop: str

    def rejects(self, table: str, row: Row) -> bool:
        return table == self.table and row[self.column] == self.value


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
    """A reject: of a row for the first reason that is met, and the rules do not say which one that is."""

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
    """The application's tables and the rejects."""

    opportunities: dict[uuid.UUID, Row] = field(default_factory=dict)
    versions: dict[uuid.UUID, Row] = field(default_factory=dict)
    links: list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


class Rejected(Exception):
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
    reasons: list[Reason]


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
        reasons = [("", gate.sqlstate) for gate in self.gates if gate.rejects(table, row)]
        if reasons or other:
            raise Rejected(*reasons, *other)

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
            except Rejected as rejected:
                self._reject(newest[0], "deal", "row", *rejected.reasons)
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
        reasons: list[Reason] = []
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
                reasons.append((column.name, "22"))
            if not writes:
                continue
            if loss and not loss.landed:
                value = holds if column.on_misfit == "keep" else None
            elif value is None and (existing is None or column.write == "always"):
                value = column.default
            written[column.target] = value
        if reasons:
            raise Rejected(*reasons)
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
            also = [*candidate.reasons, *TAKEN[: row["id"] in self.tables.versions]]
            # The first that can land by what the graph has, whatever the application says to it.
            also += DUPLICATE[: number in chosen or bool(candidate.reasons and written[written_number(node)] > 1)]
            if not candidate.reasons:
                chosen.add(number)
            try:
                self._pass_gates("deal_versions", row, *also)
            except Rejected as rejected:
                self._reject(node, "version", "row", *rejected.reasons)
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

        reasons: list[Reason] = []
        row: Row = {"id": identifier, "tenant_id": self.tenant, "version_number": None}
        if identifier is None:
            reasons.append(("version_id", "23" if properties.get("version_id") is None else "22"))
        try:
            row["version_number"], _ = whole_type(32)(properties.get("version"))
        except Unfit:
            reasons.append(("version", "22"))
        for target, (value, found) in read.items():
            row[target] = columns[target].default if value is None and not found else value
            if found and not found.landed and target in NOT_NULL_IN_VERSIONS:
                reasons.append((columns[target].name, "22"))
        reasons += [(name, "23") for name in ("name", "stage") if properties.get(name) is None]
        if row["created_at"] is None:
            row["created_at"] = row["valid_until"]
        if row["valid_from"] is None:
            row["valid_from"] = row["created_at"]
        for target in ("created_at", "valid_from"):
            row[target] = self.now if row[target] is None else row[target]

        row["opportunity_id"] = self._deal_of(node)
        if row["opportunity_id"] is None:
            reasons.append(("deal_opportunity_id", UNSAID))
        return Version(node, row, losses, reasons)

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
            except Rejected as rejected:
                self._reject(node, "link", "row", *rejected.reasons)
                continue
            self.tables.links.append(link)
            self.counts.links_inserted += 1


def same(expected: Any, actual: Any) -> bool:
    """Whether a column holds what the model says: a temporal value in a document may have any ISO 8601 form."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(same(expected[key], actual[key]) for key in expected)
    if isinstance(expected, neo4j.time.Date):
        return bool(actual == iso(expected))
    if isinstance(expected, neo4j.time.DateTime):
        return isinstance(actual, str) and "T" in actual and instant(actual) == instant(expected)
    return type(expected) is type(actual) and bool(expected == actual)
