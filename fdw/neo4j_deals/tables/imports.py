"""In: the properties of each label of a graph, and the options of an import. Out: foreign tables, and notices.

`read` asks the graph; the rest is pure. `deal_sync.import_schema()` and IMPORT FOREIGN SCHEMA both take the statements
from here, so that both create the same tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from neo4j_deals import quoting
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph import cypher, results
from neo4j_deals.graph.connection import Ask, Connection
from neo4j_deals.graph.cypher import Query, quoted
from neo4j_deals.graph.reader import answer, unless_forbidden
from neo4j_deals.mapping.defaults import ELEMENT_ID
from neo4j_deals.rows.values import MOST_DIMENSIONS

T = TypeVar("T")

SAMPLE = 10_000
"""How many nodes of a label are looked at by default."""
SMALL_SAMPLE = 1_000
"""How many are enough to propose a type."""

_NAME_BYTES = 63  # PostgreSQL's limit for a name
_MOST_COLUMNS = 1600  # PostgreSQL's limit for a table
_BYTES_LOOKED_AT = 10  # values: valueType() does not distinguish a byte array from a list of INTEGERs
SYSTEM_COLUMNS = frozenset({"tableoid", "ctid", "xmin", "cmin", "xmax", "cmax"})
#: What every table has besides its properties: column, type, option `derive`, comment.
_DERIVED = (
    ("element_id", "text", "element_id", ELEMENT_ID),
    ("labels", "text[]", "labels", "all labels of the node"),
)

#: By Neo4j's types, as valueType() names them. Only the type counts: a text that looks like a date is a text.
_SCALARS = {
    "STRING": "text",
    "BOOLEAN": "boolean",
    "INTEGER": "bigint",
    "FLOAT": "double precision",
    "DATE": "date",
    "LOCAL TIME": "time",
    "ZONED TIME": "time with time zone",
    "LOCAL DATETIME": "timestamp",
    "ZONED DATETIME": "timestamp with time zone",
    "DURATION": "interval",
    "POINT": "point",
}
_SPATIAL = (4979, 9157)  # the SRIDs of points with three dimensions: z of another point is an error
_SPACE = "POINT of three dimensions"
#: The types that have a text form (`values.to_text`): a property with several of them becomes text.
_HAVE_A_TEXT = frozenset(_SCALARS) - {"DURATION", "POINT"}
_VECTOR = re.compile(r"VECTOR<[A-Z0-9]+>\((\d+)\)")


@dataclass(frozen=True)
class Wish:
    """What to import. The names are those of the tables, as in IMPORT FOREIGN SCHEMA."""

    only: Sequence[str] | None = None
    but: Sequence[str] = ()
    sample: int = SAMPLE
    prefix: str = ""

    @classmethod
    def read(cls, options: Mapping[str, str], only: Sequence[str] | None, but: Sequence[str] | None) -> Wish:
        """From the options of an import, `sample` (0: every node) and `prefix`. Raises DealSyncError (HV00D, HV024)."""
        for name in options:
            if name not in ("sample", "prefix"):
                raise DealSyncError(
                    "HV00D", f'invalid option "{name}"', hint="Valid options in this context are: sample, prefix"
                )
        sample = options.get("sample", str(SAMPLE))
        if not re.fullmatch("[0-9]{1,18}", sample, re.ASCII):
            raise DealSyncError(
                "HV024",
                'invalid value for option "sample"',
                hint="It must be a number of nodes; 0 stands for all nodes.",
            )
        return cls(
            None if only is None else [_clipped(name) for name in only],
            [_clipped(name) for name in but or ()],
            int(sample),
            options.get("prefix", ""),
        )

    def includes(self, table: str) -> bool:
        """Whether to import a table of this name."""
        return table not in self.but if self.only is None else table in self.only


@dataclass(frozen=True)
class Label:
    """A label: how many nodes have it, and for each property the types found, with the number of nodes.

    `dimensions`: by property, the width of its vector index; `byte_arrays`: properties that have nothing else.
    """

    name: str
    nodes: int
    properties: Mapping[str, Mapping[str, int]]
    dimensions: Mapping[str, int] = field(default_factory=dict)
    byte_arrays: Collection[str] = ()


Column = tuple[str, str, Mapping[str, str]]
"""Its name, its type as SQL takes it, and its options."""


def as_definition(column: Column) -> str:
    """A column as CREATE and ALTER FOREIGN TABLE take it."""
    name, type_, options = column
    return f"{quoting.ident(name)} {type_}{quoting.options(options)}"


@dataclass(frozen=True)
class Table:
    """A foreign table to create; `comments` by column."""

    name: str
    label: str
    columns: Sequence[Column]
    comments: Mapping[str, str] = field(default_factory=dict)

    def to_statement(self, schema: str, server: str) -> str:
        """CREATE FOREIGN TABLE, with names of any characters. Multicorn calls this method."""
        columns = ",\n".join(f"    {as_definition(column)}" for column in self.columns)
        return (
            f"CREATE FOREIGN TABLE {quoting.ident(schema)}.{quoting.ident(self.name)} (\n{columns}\n)"
            f" SERVER {quoting.ident(server)}{quoting.options({'label': self.label})}"
        )

    def to_script(self, schema: str, server: str) -> str:
        """The same with its comments, which IMPORT FOREIGN SCHEMA does not take."""
        table = f"{quoting.ident(schema)}.{quoting.ident(self.name)}"
        comments = (
            f"COMMENT ON COLUMN {table}.{quoting.ident(column)} IS {quoting.literal(comment)}"
            for column, comment in self.comments.items()
        )
        return ";\n".join((self.to_statement(schema, server), *comments))


@dataclass
class Import:
    """The tables, notices, and warnings of what could not be mapped."""

    tables: list[Table] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read(to: Connection, wish: Wish, vector: str, serve_interrupt: Callable[[], object]) -> tuple[str, Import]:
    """The database's name, and the tables for a graph. Raises DealSyncError for an error of Neo4j or the network.

    `vector` is the name of pgvector's type as SQL takes it.
    """

    # In a transaction of its own: one that has failed cannot go on.
    widths = unless_forbidden(lambda: answer(to, _vector_widths, serve_interrupt))
    database, named, labels = answer(to, lambda ask: found(ask, wish, widths or {}), serve_interrupt)
    result = tables(wish, named, labels, vector)
    if widths is None:
        result.notices.append("the login may not see indexes, so lists of FLOATs with a vector index become arrays")
    return database, result


# -- asking the graph --------------------------------------------------------------------------------------------------


def found(
    ask: Ask, wish: Wish, widths: Mapping[str, Mapping[str, int]]
) -> tuple[str, list[tuple[str, str]], list[Label]]:
    """The database's name, every label with the name of its table, and the labels to import.

    `widths` are those of vector indexes, by label and property.
    """
    (database,) = results.one(ask, Query("CALL db.info() YIELD name RETURN name"), str)
    labels = Query("CALL db.labels() YIELD label RETURN label ORDER BY label")
    names = [name for (name,) in results.many(ask, labels, str)]
    tables = table_names(names, wish.prefix)
    wanted = [label for label, table in tables if wish.includes(table)]
    return database, tables, [_label(ask, name, wish.sample, widths.get(name, {})) for name in wanted]


def _label(ask: Ask, name: str, sample: int, dimensions: Mapping[str, int]) -> Label:
    (nodes,) = results.one(ask, cypher.count(name, {}), int)
    properties: dict[str, dict[str, int]] = {}
    for key, type_, spatial, amount in results.many(ask, _types(name, sample), str, str, bool, int):
        kinds = properties.setdefault(key, {})
        kind = _kind(type_, spatial)
        kinds[kind] = kinds.get(kind, 0) + amount
    byte_arrays = [
        key
        for key, kinds in properties.items()
        if kinds.keys() == {"LIST<INTEGER>"}
        and all(
            isinstance(value, bytes | bytearray)
            for (value,) in results.many(ask, _some_values(name, key, sample), object)
        )
    ]
    return Label(name, nodes, properties, dimensions, byte_arrays)


def _kind(type_: str, spatial: bool) -> str:
    """The type as valueType() names it, without NOT NULL; a point in space, or a list of such, has another name."""
    kind = type_.replace(" NOT NULL", "")
    return kind.replace("POINT", _SPACE) if spatial else kind


def _sampled(label: str, sample: int) -> tuple[str, dict[str, Any]]:
    match = f"MATCH (n:{quoted(label)})"
    return (f"{match} WITH n LIMIT $sample", {"sample": sample}) if sample else (match, {})


def _types(label: str, sample: int) -> Query:
    """Each property and type in the sample, whether it is a point in space, and the number of nodes."""
    match, parameters = _sampled(label, sample)
    return Query(
        f"{match}\n"
        "UNWIND keys(n) AS property\n"
        "WITH property, n[property] AS value\n"
        "WITH property, valueType(value) AS type, CASE\n"
        "  WHEN value IS :: POINT NOT NULL THEN value.srid IN $spatial\n"
        "  WHEN value IS :: LIST<POINT NOT NULL> NOT NULL THEN any(point IN value WHERE point.srid IN $spatial)\n"
        "  ELSE false\n"
        "END AS spatial\n"
        "RETURN property, type, spatial, count(*) AS nodes",
        parameters | {"spatial": _SPATIAL},
    )


def _some_values(label: str, key: str, sample: int) -> Query:
    match, parameters = _sampled(label, sample)
    return Query(
        f"{match}\nWITH n.{quoted(key)} AS value WHERE value IS NOT NULL RETURN value LIMIT $some",
        parameters | {"some": _BYTES_LOOKED_AT},
    )


def _vector_widths(ask: Ask) -> dict[str, dict[str, int]]:
    """By label and property, the width of the vector index: a list of FLOATs that has one becomes a vector."""
    widths: dict[str, dict[str, int]] = {}
    indexes = Query(
        "SHOW VECTOR INDEXES YIELD entityType, labelsOrTypes, properties, options WHERE entityType = 'NODE'"
        " RETURN labelsOrTypes, properties, options"
    )
    for labels, properties, options in results.many(ask, indexes, list, list, dict):
        configured = options.get("indexConfig")
        width = configured.get("vector.dimensions") if isinstance(configured, dict) else None
        if isinstance(width, int) and width <= MOST_DIMENSIONS:
            for label in labels:
                widths.setdefault(label, {}).update(dict.fromkeys(properties[:1], width))
    return widths


# -- from what was found to tables -------------------------------------------------------------------------------------


def table_names(labels: Iterable[str], prefix: str) -> list[tuple[str, str]]:
    """Each label and the name of its table: the prefix and the label, cut to the length of a name."""
    used: set[str] = set()
    return [(label, free_name(prefix + label, used)) for label in labels]


def tables(wish: Wish, named: Sequence[tuple[str, str]], labels: Iterable[Label], vector: str) -> Import:
    """`named` is the result of `table_names`; `vector` the name of pgvector's type as SQL takes it."""
    result = Import()
    names = dict(named)
    for name in (*(wish.only or ()), *wish.but):
        if name not in names.values():
            result.warnings.append(
                f'no label of the graph becomes table "{name}" (names are case-sensitive and include the prefix)'
            )
    for label, table in named:
        if table != wish.prefix + label and wish.includes(table):
            result.notices.append(f'label "{label}" becomes table "{table}": its name is too long or already used')
    for known in labels:
        looked_at = min(wish.sample or known.nodes, known.nodes)
        columns, comments = _columns(known, looked_at, vector, result)
        result.tables.append(Table(names[known.name], known.name, columns, comments))
        if looked_at < known.nodes:
            result.notices.append(
                f'label "{known.name}": {looked_at} of {known.nodes} nodes were looked at (option sample, 0: all)'
            )
    return result


def _columns(label: Label, looked_at: int, vector: str, result: Import) -> tuple[list[Column], dict[str, str]]:
    """The columns, and the comment of each; `looked_at` is the number of nodes that the types were found in."""
    where = f'of label "{label.name}"'
    columns: list[Column] = []
    comments: dict[str, str] = {}
    used = set(SYSTEM_COLUMNS)
    room = _MOST_COLUMNS - len(_DERIVED)
    kept = set(sorted(label.properties, key=lambda key: (-sum(label.properties[key].values()), key))[:room])
    if len(kept) < len(label.properties):
        result.warnings.append(
            f"{len(label.properties) - len(kept)} properties {where} are left out:"
            f" a table can have at most {_MOST_COLUMNS} columns"
        )
    for key in sorted(kept):
        kinds = label.properties[key]
        type_ = _type(label, key, vector)
        if type_ is None:
            result.warnings.append(f'property "{key}" {where} is left out: there is no type for {_listed(kinds)}')
            continue
        if len(_without_empty_lists(kinds)) > 1:
            result.notices.append(f'property "{key}" {where} holds {_listed(kinds)}: its column is {type_}')
        name = free_name(key, used)
        if name != key:
            result.notices.append(
                f'property "{key}" {where} becomes column "{name}": its name is too long or already used'
            )
        columns.append((name, type_, {} if name == key else {"property": key}))
        types = ", ".join(f"{kind} in {kinds[kind]}" for kind in _most_first(kinds))
        comments[name] = f'the property "{key}": {types} of {looked_at} nodes'
    for wanted, type_, derive, comment in _DERIVED:
        name = free_name(wanted, used)
        columns.append((name, type_, {"derive": derive}))
        comments[name] = comment
    return columns, comments


def _type(label: Label, key: str, vector: str) -> str | None:
    """A type for every value found; None if there is none."""
    kinds = _without_empty_lists(label.properties[key])
    types = {_type_of(kind, vector) for kind in kinds}
    if None in types:
        return None
    if kinds == {"LIST<INTEGER>"} and key in label.byte_arrays:
        return "bytea"
    if kinds == {"LIST<FLOAT>"} and key in label.dimensions:
        return f"{vector}({label.dimensions[key]})"
    if len(types) == 1:
        return types.pop()
    if all(_VECTOR.fullmatch(kind) for kind in kinds):
        return vector  # of several widths
    return "text" if kinds <= _HAVE_A_TEXT else "jsonb"


def _type_of(kind: str, vector: str) -> str | None:
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind == "LIST<NOTHING>":
        return "text[]"
    if _SPACE in kind:
        return "jsonb"
    if match := _VECTOR.fullmatch(kind):
        return f"{vector}({match[1]})" if int(match[1]) <= MOST_DIMENSIONS else None
    element = _SCALARS.get(kind.removeprefix("LIST<").removesuffix(">")) if kind.startswith("LIST<") else None
    return f"{element}[]" if element else None


def _without_empty_lists(kinds: Iterable[str]) -> set[str]:
    """An empty list is compatible with any list."""
    kinds = set(kinds)
    return kinds - {"LIST<NOTHING>"} if any(kind.startswith("LIST<") for kind in kinds - {"LIST<NOTHING>"}) else kinds


def _listed(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} ({kinds[kind]})" for kind in _most_first(kinds))


def _most_first(kinds: Mapping[str, int]) -> list[str]:
    return sorted(kinds, key=lambda kind: (-kinds[kind], kind))


# -- names -------------------------------------------------------------------------------------------------------------


def _clipped(name: str, size: int = _NAME_BYTES) -> str:
    """Cuts a name to so many bytes, between two characters, as PostgreSQL does."""
    return name.encode()[:size].decode(errors="ignore")


def free_name(name: str, used: set[str]) -> str:
    """The name, cut to the length of a name, and with a number at its end if it is taken."""
    free, number = _clipped(name), 1
    while free in used:
        number += 1
        free = _clipped(name, _NAME_BYTES - len(f"_{number}")) + f"_{number}"
    used.add(free)
    return free
