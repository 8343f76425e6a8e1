"""In: a tenant, a foreign table of the mapping, what to read. Out: nodes as spool files of whole rows, ready for COPY.

No PostgreSQL here. docs/internals/rules.md says which nodes are rejected here.
"""

from __future__ import annotations

import marshal
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from hashlib import blake2b
from typing import IO, Any

import orjson

from neo4j_deals.floats import Floats
from neo4j_deals.graph import cypher, results
from neo4j_deals.graph.connection import Ask
from neo4j_deals.graph.reader import Outlet
from neo4j_deals.mapping.model import READY_MADE, Column, Table
from neo4j_deals.mapping.types import JSON, length
from neo4j_deals.rows.copy_format import (
    HEADER,
    NULL,
    TRAILER,
    Encoder,
    ShortVector,
    encoder,
    row,
    short_text,
    short_uuid,
)
from neo4j_deals.rows.projection import Projection, errors_json, to_staged
from neo4j_deals.rows.shown import cypher_form, shown
from neo4j_deals.rows.values import (
    Converter,
    Misfit,
    Misfits,
    converter,
    landing,
    maybe_uuid,
    to_timestamptz,
    to_uuid,
)
from neo4j_deals.sync import selection
from neo4j_deals.sync.selection import Selection, TenantsNodes

_AHEAD = 100  # up to so many nodes that take precedence over a node are listed
_integer = converter("int8")
_text, _bigint, _jsonb = encoder("text"), encoder("int8"), encoder("jsonb")


@dataclass(frozen=True)
class Limits:
    """The size of a batch (rows, bytes) and of a value (bytes), and from how many nodes on a process reads them."""

    batch_rows: int
    batch_bytes: int
    value_bytes: int
    process_from: int


class Feed:
    """What a reader does with a tenant's nodes of one kind; the same in a thread and in a process of its own."""

    def __init__(self, table: Table, tenant: str, limits: Limits, wanted: Selection) -> None:
        self.table, self.tenant, self.limits, self.wanted = table, tenant, limits, wanted
        self._undated: set[str] = set()
        self._nodes = TenantsNodes(table.label, table.tenant.property, tenant)
        self._equal = {table.tenant.property: cypher.spellings(tenant)}
        #: Counts the nodes.
        self.count = cypher.count(table.label, self._equal, table.tenant.property)
        staged = [
            _encoded(column, limits.value_bytes)
            for column in table.columns
            if column.staged_as and column.name not in wanted.without
        ]
        self._projection = Projection(staged, table.columns, limits.value_bytes)
        #: The staged columns in the order of a row.
        self.columns = self._projection.columns
        self._must_be_there = [
            (at, c)
            for at, c in enumerate(self.columns)
            if c is table.key or self._must_have(c) or (c.on_misfit == "reject" and self._counts_always(c))
        ]
        self._key_at, self._deal_at = (
            1 + self._projection.properties.index(column.property) for column in (table.key, table.deal)
        )

    def produce(self, ask: Ask, reader: Outlet) -> None:
        """Reads the nodes in key order and passes on files of whole rows in PostgreSQL's binary COPY format."""
        found = None if self.wanted.is_everything else self._selected(ask)
        compared = None if found is None else self._with_rivals(ask, found)
        duplicates, rivals = self._duplicates(ask, None if compared is None else list(compared))
        elements: list[str] | None = None
        if found is not None and compared is not None:
            elements = self._in_key_order(ask, found if self.wanted.since is None else compared, rivals)
        file: IO[bytes] | None = None
        last = rows = size = 0
        for last, record in enumerate(self._records(ask, elements), start=1):
            if file is None:
                file = reader.spool()
                file.write(HEADER)
            data = self._row(last, record, duplicates)
            file.write(data)
            rows, size = rows + 1, size + len(data)
            if rows >= self.limits.batch_rows or size >= self.limits.batch_bytes:
                _hand_over(reader, file, last)
                file, rows, size = None, 0, 0
        if file is not None:
            _hand_over(reader, file, last)

    def _records(self, ask: Ask, elements: Sequence[str] | None) -> Iterator[tuple[Any, ...]]:
        """The nodes, all of the tenant's or those with these element ids, except those of barred deals."""
        floats_at, by = self._projection.floats_at, self.table.key.property
        nodes = results.Expected(
            lambda part: replace(self._query(elements=part, order_by=by, whole=floats_at != ()), floats_at=floats_at),
            self.count,
            lambda part: cypher.element_ids(self.table.label, self._equal, part, self.table.tenant.property),
        )
        for record in results.every(ask, nodes) if elements is None else results.those(ask, nodes, elements):
            if not self.wanted.barred or maybe_uuid(record[self._deal_at]) not in self.wanted.barred:
                yield record

    def _query(self, **which: Any) -> cypher.Query:
        """Nodes of the tenant with all that a row needs; `which`: arguments of `cypher.nodes`."""
        projection = self._projection
        return cypher.nodes(
            self.table.source,
            projection.properties,
            equal=self._equal,
            by=self.table.tenant.property,
            labels=projection.wants_labels,
            dimensions_but=projection.dimensions_but,
            **which,
        )

    def _selected(self, ask: Ask) -> dict[str, Any]:
        """Element id and key of the nodes that are wanted."""
        wanted, nodes, key = self.wanted, self._nodes, self.table.key.property
        queries: list[cypher.Query] = []
        if wanted.rest:
            queries.append(selection.rest(nodes, self.table.deal.property, key))
        if wanted.since is not None:
            unclear = wanted.undated is not None
            queries.append(selection.changed(nodes, self.table.changed_by, key, wanted.since, unclear))
        if wanted.elements:
            queries.append(selection.among(nodes, wanted.elements, key))
        if wanted.graph_ids:
            queries.append(selection.having(nodes, self.table.deal.property, wanted.graph_ids, key))
        found: dict[str, Any] = dict(pair for query in queries for pair in results.everything(ask, query))
        if wanted.undated is not None:
            found |= self._undated_that_differ(ask, wanted.undated)
        return found

    def _undated_that_differ(self, ask: Ask, digests: Mapping[str, str]) -> dict[str, Any]:
        """The nodes without a timestamp that differ from when they last landed. One without a key, too, is in no index:
        if it is new, the number of nodes shows it.
        """
        differ: dict[str, Any] = {}
        which = self._query(absent=self.table.changed_by, present=[self.table.key.property], headed=True)
        for record in results.headed(ask, which):
            element = record[0]
            self._undated.add(element)
            if digests.get(element) != _digest(record):
                differ[element] = record[self._key_at]
        return differ

    def _with_rivals(self, ask: Ask, found: dict[str, Any]) -> dict[str, Any]:
        """The nodes together with their rivals, which have the same id; for versions, also the same deal. Not if the
        deals are named, by a replay or a backfill: then all of the tenant's are compared.
        """
        if not found or (self.table.kind == "deal" and self.wanted.since is None):
            return found
        compared, key = dict(found), self.table.key.property
        rivalry = list(dict.fromkeys((self.table.deal.property, key)))
        values = results.one(ask, selection.ids(self._nodes, list(found), rivalry), *[list] * len(rivalry))
        for name, ids in zip(rivalry, values, strict=True):
            texts = [id for id in ids if isinstance(id, str)]
            compared |= dict(results.everything(ask, selection.having(self._nodes, name, texts, key)))
        return compared

    def _in_key_order(self, ask: Ask, found: dict[str, Any], rivals: Iterable[str]) -> list[str]:
        """Element ids in key order, with those of rivals: only together they show which of them lands.

        If a replay named the deals, a rival counts only if its key is among them.
        """
        missing = [element for element in rivals if element not in found]
        if missing:
            which = selection.among(self._nodes, missing, self.table.key.property)
            added: dict[str, Any] = dict(results.everything(ask, which))
            if self.wanted.since is None:
                ids = set(map(maybe_uuid, found.values()))
                added = {element: value for element, value in added.items() if maybe_uuid(value) in ids}
            found = found | added
        return sorted(found, key=lambda element: (isinstance(found[element], str), str(found[element]), element))

    def _row(self, number: int, record: tuple[Any, ...], duplicates: dict[str, dict[str, Any]]) -> bytes:
        values, misfits = self._projection.row(record)
        key = record[self._key_at]
        reject = duplicates.get(record[0]) or self._reject(values, misfits)
        return row(
            [
                _bigint(number),
                _text(record[0]),
                NULL if key is None else _text(shown(key)),
                NULL if reject is None else _jsonb(orjson.dumps(reject).decode()),
                _jsonb(document) if (document := errors_json(misfits)) else NULL,
                _text(_digest(record)) if record[0] in self._undated else NULL,
                *[value or NULL for value in values],  # no field is empty, since it begins with its length
            ]
        )

    def _reject(self, values: list[Any], misfits: Misfits) -> dict[str, Any] | None:
        """Why the row cannot land at all, as far as the node itself shows."""
        if self._has_no_number(values, misfits):
            return None
        for at, column in self._must_be_there:
            if values[at] is not None:
                continue
            if column.name in misfits:
                if column.on_misfit == "keep" and column is not self.table.key:
                    continue  # the row may have a value; if not, the table rejects it
                misfit, offending = misfits[column.name]
                return _reject(misfit.sqlstate, misfit.reason, column.name, shown(offending))
            if column is self.table.key or (self._must_have(column) and column.target != "version_number"):
                return _reject("23502", f'no property "{column.property}" for a NOT NULL column', column.name)
        return None

    def _has_no_number(self, values: list[Any], misfits: Misfits) -> bool:
        """Whether it is a version with a key but no number: it gets a note, whatever else is wrong with it."""
        if self.table.kind != "version":
            return False
        named = dict(zip((column.name for column in self.columns), values, strict=True))
        number = self.table.targeting("version_number").name
        return named[number] is None and number not in misfits and named[self.table.key.name] is not None

    def _counts_always(self, column: Column) -> bool:
        """Whether a misfit counts whatever the row has; for other columns, that depends on the row."""
        return self.table.kind == "version" or column.overwrites

    def _must_have(self, column: Column) -> bool:
        """Whether the table rejects a row without this value, whatever an existing row has."""
        return column.required and self._counts_always(column)

    def _duplicates(self, ask: Ask, elements: list[str] | None) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Why a node gives way to another one with the same key, by element id; and the deals that share a key.

        In an incremental run only those that are read are compared, which are all that have one of their keys. So are
        always versions: any other one that counts has landed.
        """
        table = self.table
        if elements == []:
            return {}, set()
        if table.kind == "deal" and self.wanted.since is not None:
            return self._yielding(ask, [table.key], table.changed_by, "duplicate deal", newest=True, among=elements)
        if table.kind == "deal":
            check = cypher.may_share(table.label, self.tenant, table.tenant.property, table.key.property)
            if not results.one(ask, check, bool)[0]:
                return {}, set()
            return self._yielding(ask, [table.key], table.changed_by, "duplicate deal", newest=True)
        number = table.targeting("version_number")
        created, able = table.created_by, self._land_by_themselves()
        by_id, _ = self._yielding(ask, [table.key], created, "duplicate version", newest=False, among=elements)
        what = "duplicate version number"
        by_number, _ = self._yielding(
            ask, [table.deal, number], created, what, newest=False, able=able, but=by_id, among=elements
        )
        return by_number | {element: reject | {"even_if_there": True} for element, reject in by_id.items()}, set()

    def _land_by_themselves(self) -> list[tuple[Column, Converter]]:
        """The columns for which a version cannot land if the value is absent or a misfit."""
        return [
            (column, to_staged(column, self.limits.value_bytes))
            for column in self.columns
            if not column.derive and (column is self.table.key or column.not_null or column.on_misfit == "reject")
        ]

    def _is_able(self, able: Sequence[tuple[Column, Converter]], values: list[Any]) -> bool:
        for (column, convert), value in zip(able, values, strict=True):
            if value is None:
                if column.required or column is self.table.key:
                    return False
                continue
            try:
                convert(value)
            except Misfit as misfit:
                if misfit.substitute is None:
                    return False
        return True

    def _yielding(
        self,
        ask: Ask,
        keys: list[Column],
        times: list[str],
        what: str,
        *,
        newest: bool,
        able: Sequence[tuple[Column, Converter]] = (),
        but: Container[str] = (),
        among: Sequence[str] | None = None,
    ) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Of the nodes that share `keys`: why each but the first gives way, by element id; and all of them.

        The newest (or oldest) comes first, by the first of the properties `times` that it has, then the smaller key,
        then the smaller element id. Nodes that cannot land because of `able`, and those in `but`, do not count. With
        several `keys` (a version's number), `ahead` lists the ids of the nodes before, which do not count once landed.
        """
        order = [*times, self.table.key.property]
        names = [column.property for column in keys]
        groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        others = [*order, *(column.property for column, _ in able)]
        found = cypher.duplicates(self.table.label, self.tenant, self.table.tenant.property, names, others, among)
        for element, *values in results.everything(ask, found):
            identity = tuple(map(_identity, keys, values))
            rest = values[len(keys) :]
            if element in but or None in identity or not self._is_able(able, rest[len(order) :]):
                continue
            moment = next((value for value in rest[: len(times)] if value is not None), None)
            rank = (
                _moment(moment, newest),
                str(identity if len(keys) == 1 else to_uuid(rest[len(times)])),
                element,
            )
            groups.setdefault(identity, []).append((*rank, values[len(keys) - 1]))
        column = keys[-1].name  # of the two of a version: the number
        shared = [sorted(nodes) for nodes in groups.values() if len(nodes) > 1]
        return {
            node[-2]: _reject(
                "23505", f"{what}: node {nodes[0][-2]} with the same key takes precedence", column, shown(node[-1])
            )
            | ({"ahead": [before[1] for before in nodes[:at]]} if len(keys) > 1 and at <= _AHEAD else {})
            for nodes in shared
            for at, node in enumerate(nodes[1:], start=1)
        }, {node[-2] for nodes in shared for node in nodes}


def _encoded(column: Column, limit: int) -> tuple[Column, Converter, Encoder, Encoder | None]:
    """A column with its conversion, its encoder, and a faster way to do both, if there is one."""
    name = column.staged_name or "text"
    convert, encode = to_staged(column, limit), encoder(name, column.staged_modifier)
    short: Encoder | None = None
    if column.empty_is_null or column.text_of is not None or column.derive in READY_MADE:
        pass
    elif name in ("int2", "int4", "numeric", "bool", "date"):  # few values, often
        short = _remembering(column.type_name, name, column.staged_modifier)
    elif column.derive:
        pass
    elif name in ("text", "varchar") and column.type_name not in JSON:
        short = short_text(length(column.staged_modifier) or limit, limit)
    elif name == "uuid":
        short = short_uuid
    elif name == "vector" and column.staged_modifier > 0:
        short = ShortVector(column.staged_modifier)
    return column, convert, encode, short


@cache
def _remembering(foreign: str, staged: str, modifier: int) -> Encoder:
    """Conversion and encoder of all columns of these types, most of whose values occur again."""
    convert, encode = landing(foreign, staged, modifier), encoder(staged, modifier)
    return lru_cache(maxsize=4096, typed=True)(lambda value: encode(convert(value)))


def _digest(record: tuple[Any, ...]) -> str:
    """A digest of a node's values and its element id: the same for the same types and contents.

    In version 2 of marshal's format, which has no references: in later ones equal values may be written differently.
    """
    record = tuple(value.as_list() if type(value) is Floats else value for value in record)
    try:
        content = marshal.dumps(record, 2)
    except ValueError:  # moments, durations and points
        content = b"".join(map(_marshalled, record))
    return blake2b(content, digest_size=16).hexdigest()


def _marshalled(value: Any) -> bytes:
    try:
        return marshal.dumps(value, 2)
    except ValueError:
        return marshal.dumps((cypher_form(value),), 2)  # a value of the graph is never a tuple


def _identity(column: Column, value: Any) -> Any:
    """The value of a key as the table compares it; None if it is not valid."""
    if column.target != "version_number":
        return maybe_uuid(value)
    try:
        return _integer(value)
    except Misfit:
        return None


def _moment(value: Any, newest: bool) -> float:
    """A sort key: the newest or the oldest moment comes first, one that is absent or invalid comes last."""
    try:
        seconds = to_timestamptz(value).timestamp()
    except Misfit:
        return float("inf")
    return -seconds if newest else seconds


def _reject(sqlstate: str, message: str, column: str, value: str | None = None) -> dict[str, Any]:
    return {"sqlstate": sqlstate, "message": message, "column": column, "value": value}


def _hand_over(reader: Outlet, file: IO[bytes], last: int) -> None:
    file.write(TRAILER)
    file.flush()
    reader.put(file, last)
