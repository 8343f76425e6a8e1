"""In: a tenant and a foreign table of the mapping. Out: its nodes in a temporary staging table, batch by batch.

The body of `deal_sync.fill_staging`, which runs with the rights of the extension's owner: it takes no text that
becomes SQL or a path. Source of the refusals: `sync-rules.md`; of the control flow: `flow.md`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import orjson

from neo4j_deals import cypher
from neo4j_deals.catalog import Plpy, query, server_options, table
from neo4j_deals.connection import Ask, connection
from neo4j_deals.mapping import Column, Table
from neo4j_deals.projection import Lost, Projection, errors_json, to_staged
from neo4j_deals.reader import Reader
from neo4j_deals.spool import HEADER, NULL, TRAILER, Encoder, encoder, row, short_text, short_vector
from neo4j_deals.values import Converter, Misfit, refines, shown, to_timestamptz, to_uuid

_OWN_COLUMNS = (
    ("row_number", "bigint"),
    ("element_id", "text"),
    ("graph_id", "text"),
    ("refusal", "jsonb"),
    ("conversion_errors", "jsonb"),
)
_text, _bigint, _jsonb = encoder("text"), encoder("int8"), encoder("jsonb")


@dataclass(frozen=True)
class Limits:
    """What ends a batch, and what a text may measure: rows, bytes, bytes."""

    batch_rows: int
    batch_bytes: int
    value_bytes: int


def staging_name(kind: str) -> str:
    """The staging table of a kind, qualified."""
    return f"pg_temp.deal_sync_{kind}s"


def fill(plpy: Plpy, relation: str, tenant: str, caller: str, limits: Limits) -> Iterator[int]:
    """Stages the tenant's nodes and yields the number of the last row after each batch; the caller empties it then.

    `caller` is a role's name as SQL takes it: it may read and truncate the table, nothing else. Raises
    DealSyncError for what the graph or the network refused, and whatever PostgreSQL raises, a cancel too.
    """
    source = table(plpy, relation)
    feed = _Feed(source, tenant, limits)
    name = staging_name(source.kind)
    columns = [*_OWN_COLUMNS, *((plpy.quote_ident(column.name), column.staged_as) for column in feed.columns)]
    plpy.execute(f"CREATE TEMPORARY TABLE {name} ({', '.join(f'{n} {t}' for n, t in columns)}) ON COMMIT DROP")
    plpy.execute(f"GRANT SELECT, TRUNCATE ON {name} TO {caller}")

    reader = Reader(connection(server_options(plpy, relation)), feed.produce, _folder(plpy))
    with contextlib.closing(reader.batches(lambda: plpy.execute("SELECT 1"))) as batches:
        for file, last in batches:
            plpy.execute(f"COPY {name} FROM '/proc/self/fd/{file.fileno()}' (FORMAT binary)")
            reader.done_with(file)
            yield last
    plpy.execute(f"DROP TABLE {name}")


def _folder(plpy: Plpy) -> str:
    """Where PostgreSQL spills its own temporary files."""
    folder = Path(query(plpy, "SELECT current_setting('data_directory') AS path")[0]["path"], "base", "pgsql_tmp")
    folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


class _Feed:
    """The reading thread's work: no `plpy` here."""

    def __init__(self, source: Table, tenant: str, limits: Limits) -> None:
        self._source, self._tenant, self._limits = source, tenant, limits
        staged = [_encoded(column, limits.value_bytes) for column in source.columns if column.staged_as]
        self._projection = Projection(staged, source.columns, limits.value_bytes)
        #: The staged columns in the order of a row.
        self.columns = self._projection.columns
        self._must_be_there = [
            (at, c)
            for at, c in enumerate(self.columns)
            if c is source.key or self._must_have(c) or c.on_misfit == "reject"
        ]
        self._key_at = 1 + self._projection.properties.index(source.key.property)

    def produce(self, ask: Ask, reader: Reader) -> None:
        """Reads the nodes in key order and hands over files of whole rows in PostgreSQL's binary COPY format."""
        duplicates = self._duplicates(ask)
        projection = self._projection
        nodes = cypher.nodes(
            self._source.label,
            projection.properties,
            equal={self._source.tenant.property: cypher.spellings(self._tenant)},
            order_by=self._source.key.property,
            dimensions_but=projection.known_dimensions if projection.wants_scores else None,
        )
        file: IO[bytes] | None = None
        last = rows = size = 0
        for last, record in enumerate(ask(nodes), start=1):
            if file is None:
                file = reader.spool()
                file.write(HEADER)
            data = self._row(last, record, duplicates)
            file.write(data)
            rows, size = rows + 1, size + len(data)
            if rows >= self._limits.batch_rows or size >= self._limits.batch_bytes:
                _hand_over(reader, file, last)
                file, rows, size = None, 0, 0
        if file is not None:
            _hand_over(reader, file, last)

    def _row(self, number: int, record: tuple[Any, ...], duplicates: dict[str, dict[str, Any]]) -> bytes:
        values, lost = self._projection.row(record)
        key = record[self._key_at]
        refusal = duplicates.get(record[0]) or self._refusal(values, lost)
        return row(
            [
                _bigint(number),
                _text(record[0]),
                NULL if key is None else _text(shown(key)),
                NULL if refusal is None else _jsonb(orjson.dumps(refusal).decode()),
                _jsonb(document) if (document := errors_json(lost)) else NULL,
                *(NULL if value is None else value for value in values),
            ]
        )

    def _refusal(self, values: list[Any], lost: Lost) -> dict[str, Any] | None:
        """Why the row cannot land at all, as far as the node itself tells."""
        for at, column in self._must_be_there:
            if values[at] is not None:
                continue
            if column.name in lost:
                misfit, offending = lost[column.name]
                return _refusal(misfit.sqlstate, misfit.reason, column.name, shown(offending))
            if column is self._source.key or (self._must_have(column) and column.target != "version_number"):
                return _refusal("23502", f'no property "{column.property}", and the column takes no NULL', column.name)
        return None

    def _must_have(self, column: Column) -> bool:
        """Whether a row without this value is refused by the table, whatever stands there already."""
        return column.required and (self._source.kind == "version" or column.write == "always")

    def _duplicates(self, ask: Ask) -> dict[str, dict[str, Any]]:
        """By element id: why a node yields to another one with the same key."""
        source = self._source
        if source.kind == "deal":
            return self._yielding(ask, [source.key], ["last_updated_at"], "duplicate deal", newest=True)
        number, deal = source.targeting("version_number"), source.targeting("opportunity_id")
        order = ["created_at", source.key.property]
        by_number = self._yielding(ask, [deal, number], order, "duplicate version number", newest=False)
        by_id = self._yielding(ask, [source.key], order, "duplicate version", newest=False)
        return by_number | {element: refusal | {"even_if_there": True} for element, refusal in by_id.items()}

    def _yielding(
        self, ask: Ask, keys: list[Column], order: list[str], what: str, *, newest: bool
    ) -> dict[str, dict[str, Any]]:
        names = [column.property for column in keys]
        groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        found = cypher.duplicates(self._source.label, self._tenant, self._source.tenant.property, names, order)
        for element, *values in ask(found):
            identity = tuple(_identity(value) for value in values[: len(keys)])
            if None not in identity:
                rank = [_moment(values[len(keys)], newest), *map(str, values[len(keys) + 1 :]), element]
                groups.setdefault(identity, []).append((*rank, values[len(keys) - 1]))
        column = keys[-1].name  # of a version's two, the number
        return {
            node[-2]: _refusal("23505", f"{what}: node {nodes[0][-2]} with the same key lands", column, shown(node[-1]))
            for nodes in map(sorted, groups.values())
            for node in nodes[1:]
        }


def _encoded(column: Column, limit: int) -> tuple[Column, Converter, Encoder, Encoder | None]:
    """A column with its conversion, its encoder, and a short cut where there is one."""
    name = column.staged_name or "text"
    convert, encode = to_staged(column, limit), encoder(name, column.staged_modifier)
    short: Encoder | None = None
    if column.empty_is_null or column.derive:
        pass
    elif name in ("int2", "int4", "numeric", "bool", "date"):  # few values, often
        short = lru_cache(maxsize=4096, typed=True)(lambda value: encode(convert(value)))
    elif refines(column.type_name, name):
        if name in ("text", "varchar"):
            short = short_text(column.staged_modifier - 4 if column.staged_modifier > 0 else limit, limit)
        elif name == "vector" and column.staged_modifier > 0:
            short = short_vector(column.staged_modifier)
    return column, convert, encode, short


def _identity(value: Any) -> Any:
    """A key's value as the table compares it; None for one that is no key."""
    if type(value) is int:
        return value
    try:
        return to_uuid(value)
    except Misfit:
        return None


def _moment(value: Any, newest: bool) -> float:
    """A sort key, smallest first: the newest or the oldest moment; one that is absent or unreadable comes last."""
    try:
        seconds = to_timestamptz(value).timestamp()
    except Misfit:
        return float("inf")
    return -seconds if newest else seconds


def _refusal(sqlstate: str, message: str, column: str, value: str | None = None) -> dict[str, Any]:
    return {"sqlstate": sqlstate, "message": message, "column": column, "value": value}


def _hand_over(reader: Reader, file: IO[bytes], last: int) -> None:
    file.write(TRAILER)
    file.flush()
    reader.put(file, last)
