"""In: names of types. Out: which types a column can be filled from; the conversions are in `rows`.

Pure. The names are those in pg_type: `int2`, `numeric`, `timestamptz`, `vector`, `_text`.
"""

from __future__ import annotations

TEXTS = frozenset({"text", "varchar", "bpchar"})
NUMBERS = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"})
TEMPORAL = frozenset({"date", "timestamp", "timestamptz"})
JSON = frozenset({"json", "jsonb"})
VECTORS = frozenset({"vector", "halfvec"})
#: By the types of a foreign column, the other types that its target may have.
_BECOMES: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (TEXTS, TEXTS | NUMBERS | TEMPORAL | {"uuid", "bool", "time", "timetz"}),
    (NUMBERS, NUMBERS | TEXTS),
    (TEMPORAL, TEMPORAL | TEXTS),
    (frozenset({"time", "timetz"}), TEXTS | {"time", "timetz"}),
    (frozenset({"bool", "uuid"}), TEXTS),
    (JSON, JSON | TEXTS),
    (frozenset({"_text"}), JSON),
    (frozenset({*VECTORS, *(f"_{name}" for name in NUMBERS)}), VECTORS),
)

_OTHERS = frozenset({"bool", "uuid", "time", "timetz", "interval", "point", "bytea"})

#: Names of types as format_type() spells them, and as pg_type does.
_SPELLINGS = {
    "bigint": "int8",
    "integer": "int4",
    "smallint": "int2",
    "double precision": "float8",
    "real": "float4",
    "boolean": "bool",
    "character varying": "varchar",
    "character": "bpchar",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time with time zone": "timetz",
    "time without time zone": "time",
}


def type_named(spelling: str) -> str:
    """The name in pg_type of a type as format_type() spells it, with or without its schema: "text[]" → "_text"."""
    if spelling.endswith("[]"):
        return "_" + type_named(spelling.removesuffix("[]"))
    name = spelling.rsplit(".", 1)[-1].strip('"')
    return _SPELLINGS.get(name, name)


def convertible(type_name: str) -> bool:
    """Whether values of the graph can be converted to a type."""
    if type_name.startswith("_"):
        return type_name[1:] not in VECTORS | JSON and convertible(type_name[1:])
    return type_name in TEXTS | NUMBERS | TEMPORAL | JSON | VECTORS | _OTHERS


def takes(foreign: str, target: str) -> bool:
    """Whether a foreign column of one type may fill a target of another; if not, the mapping is a setup error."""
    if foreign == target or any(foreign in ones and target in others for ones, others in _BECOMES):
        return True
    return foreign[0] == target[0] == "_" and takes(foreign[1:], target[1:])


def suitable(target: str, spelling: str) -> str:
    """A type for a foreign column that holds every value of a target's type, and that Multicorn2 can serve.

    `spelling` is the target's type in SQL.
    """
    return _SUITABLE.get(target, spelling if convertible(target) else "text")


def shows(foreign: str, target: str) -> bool:
    """Whether a foreign column of a type, without a modifier, shows all of each value that another takes."""
    return foreign == "text" or target in _SHOWS.get(foreign, ())


_SHOWS = {
    "int8": frozenset({"int2", "int4"}),
    "float8": NUMBERS - {"int8", "float8"},
    "timestamptz": frozenset({"timestamp"}),
    "json": frozenset({"jsonb", "text", "varchar"}),
    "jsonb": frozenset({"json", "text", "varchar"}),
    "_text": JSON,
}

_SUITABLE = {
    "varchar": "text",
    "bpchar": "text",
    "uuid": "text",
    "int2": "bigint",
    "int4": "bigint",
    "float4": "double precision",
    "numeric": "double precision",
    "json": "jsonb",
    "timestamp": "timestamp with time zone",
}


def length(modifier: int) -> int | None:
    """The characters that a varchar or char of this modifier holds; None: any number."""
    return modifier - 4 if modifier >= 0 else None


def digits(modifier: int) -> tuple[int, int] | None:
    """Precision and scale of a numeric of this modifier; None: without limits. The scale has 11 bits, one its sign."""
    return ((modifier - 4) >> 16 & 0xFFFF, ((modifier - 4) & 0x7FF ^ 1024) - 1024) if modifier >= 0 else None
