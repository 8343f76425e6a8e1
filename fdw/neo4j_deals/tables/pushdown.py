"""In: quals and sort keys from Multicorn2, and the columns they are about. Out: Cypher conditions and orders.

Pure. A column *shows* what `values` makes of what a node *has*, and PostgreSQL checks every qual on that. So a
condition may let too many nodes through, but never too few; the comments say which values show what. An order must be
exact, so it sorts by an expression that equals what the column shows. Values travel as parameters.

Multicorn2 3.2 does not tell a value's type. It even reads the result of a function that is called at run time as if it
were of the column's type: the days of a date as microseconds of a timestamptz, a bigint by its lower half. So a
condition allows for each type that PostgreSQL compares with the column's, or the qual is not pushed.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from neo4j.time import DateTime

from neo4j_deals.mapping.model import Column
from neo4j_deals.mapping.types import TEMPORAL


class Qual(Protocol):
    """`field_name operator value`; for a list, the operator is a pair: its name, and whether it is ANY or ALL."""

    @property
    def field_name(self) -> str:
        """The column."""

    @property
    def operator(self) -> str | tuple[str, bool]:
        """Its name in PostgreSQL."""

    @property
    def value(self) -> Any:
        """The other side; None for NULL, and for IS [NOT] NULL, whose operators are `=` and `<>`."""


class SortKey(Protocol):
    """One column of an ORDER BY."""

    attname: str
    is_reversed: bool
    nulls_first: bool


@dataclass
class Parameters:
    """The values of a query, by name."""

    values: dict[str, Any] = field(default_factory=dict)

    def add(self, value: Any) -> str:
        """The parameter that stands for a value, as Cypher writes it."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"${name}"


@dataclass(frozen=True)
class Condition:
    """A condition in Cypher; if it is not `exact`, it lets nodes through that PostgreSQL then filters out."""

    text: str
    exact: bool = False


@dataclass(frozen=True)
class Pushed:
    """The quals of a scan: conditions and parameters, and for EXPLAIN those that are left to PostgreSQL."""

    conditions: tuple[str, ...]
    parameters: Mapping[str, Any]
    superset: tuple[str, ...]
    left: tuple[str, ...]


Expression = Callable[[Column], str | None]
"""What a column is in Cypher: a property or the node's id; None if the reader computes it."""

#: Operators that are never true for NULL. (Those of PostgreSQL's own types are all strict.)
_STRICT = frozenset({"=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*", "~", "!~", "~*", "!~*", "^@"})
_RANGES = frozenset({"<", "<=", ">", ">="})

_INTEGERS = {"int2": 16, "int4": 32, "int8": 64}
_TEXTS = frozenset({"text", "varchar"})
_EXACT = 1 << 53  # below it, comparing an integer and a float is exact in both systems
_LONGEST = 1 << 25  # characters: a longer text may have more bytes than a column shows
_MOST = 1.7976931348623157e308
_NEXT_TO_NOTHING = 2.2e-314  # greater than all doubles whose upper half is zero


def pushed(quals: Iterable[Qual], columns: Mapping[str, Column], of: Expression, floats_exact: bool) -> Pushed:
    """The conditions for all quals. `floats_exact`: the server prints floats with all their digits."""
    parameters, conditions, superset, left = Parameters(), [], [], []
    for qual in quals:
        column, name = columns.get(qual.field_name), _named(qual)
        expression = of(column) if column else None
        found = None
        if column and expression:
            found = condition(column, qual.operator, qual.value, expression, parameters, floats_exact)
        if found is None:
            left.append(name)
            continue
        conditions.append(found.text)
        if not found.exact:
            superset.append(name)
    return Pushed(tuple(conditions), parameters.values, tuple(superset), tuple(left))


def _named(qual: Qual) -> str:
    """A qual without its value, which may be application data."""
    if isinstance(qual.operator, tuple):
        return f"{qual.field_name} {qual.operator[0]} {'ANY' if qual.operator[1] else 'ALL'}"
    if qual.value is None and qual.operator in ("=", "<>"):
        return f"{qual.field_name} IS {'NOT ' if qual.operator == '<>' else ''}NULL"
    return f"{qual.field_name} {qual.operator}"


def condition(
    column: Column,
    operator: str | tuple[str, bool],
    value: Any,
    expression: str,
    parameters: Parameters,
    floats_exact: bool,
) -> Condition | None:
    """One qual in Cypher, or None if it cannot be pushed."""
    if column.derive:
        return _identity(operator, value, expression, parameters) if column.derive == "element_id" else None
    if isinstance(operator, tuple):
        return _of_list(column, operator, value, expression, parameters, floats_exact)
    if value is None:
        if operator == "=":
            return _is_null(column, expression, parameters)
        return Condition(f"{expression} IS NOT NULL") if operator == "<>" else None
    if operator in ("IS", "IS NOT"):
        if operator == "IS" and (asked := _boolean(value)) is not None:
            return Condition(f"{expression} = {parameters.add(asked)}", exact=True)
        return None  # NULL counts too, and a misfit shows NULL
    if operator not in _STRICT:
        return None
    found = None
    if operator == "=":
        found = _equal(column, [value], expression, parameters, floats_exact)
    elif operator == "<>":
        found = _unequal(column, [value], expression, parameters, floats_exact)
    elif operator in _RANGES:
        found = _range(column, operator, value, expression, parameters, floats_exact)
    elif operator in ("~~", "^@") and column.type_name in _TEXTS and isinstance(value, str):
        found = _begins(column, value if operator == "^@" else _plain_prefix(value), expression, parameters)
    return found or Condition(f"{expression} IS NOT NULL")


def _of_list(
    column: Column,
    operator: tuple[str, bool],
    value: Any,
    expression: str,
    parameters: Parameters,
    floats_exact: bool,
) -> Condition | None:
    """IN and NOT IN. An empty list with ALL is true for every row, NULL for none."""
    name, any_of_them = operator
    if not isinstance(value, list) or name not in _STRICT or not (any_of_them or value):
        return None
    values, found = [item for item in value if item is not None], None
    if name == "=" and any_of_them:
        found = _equal(column, values, expression, parameters, floats_exact)
    elif name == "<>" and not any_of_them:
        found = _unequal(column, values, expression, parameters, floats_exact)
    return found or Condition(f"{expression} IS NOT NULL")


# -- equality ----------------------------------------------------------------------------------------------------------


def _equal(
    column: Column, values: Sequence[Any], expression: str, parameters: Parameters, floats_exact: bool
) -> Condition | None:
    """The column shows one of the values; None if the meaning of a value is not certain."""
    if column.type_name in _TEXTS:
        return _equal_texts(column, values, expression, parameters)
    if column.type_name == "bool":
        asked = [_boolean(value) for value in values]
        return None if None in asked else Condition(f"{expression} IN {parameters.add(asked)}", exact=True)
    if column.type_name in TEMPORAL:
        return _within(column, values, expression, parameters)
    numbers, exact = _numbers(column, values, floats_exact)
    if numbers is None:
        return None
    if column.type_name == "int4":  # an oid has no sign
        numbers += [number - (1 << 32) for number in numbers if 1 << 31 <= number < 1 << 32]
    parts, points = [], []
    for number in numbers:
        if not math.isfinite(number):
            continue  # never shown
        if abs(number) >= _EXACT:
            low, high = (parameters.add(bound) for bound in _around(number))
            parts.append(f"({expression} >= {low} AND {expression} <= {high})")
        else:
            points += _spellings(number)
    if points or not parts:
        parts.insert(0, f"{expression} IN {parameters.add(points)}")
    return Condition(_either(parts), exact and len(parts) == 1 and bool(points))


def _equal_texts(column: Column, values: Sequence[Any], expression: str, parameters: Parameters) -> Condition | None:
    """A text column shows INTEGER 5 as '5', a time in ISO 8601, and a STRING without its NUL characters."""
    if not all(isinstance(value, str) for value in values):
        return None
    cut = [value.rstrip(" ") for value in values]
    readings = [reading for value in values for reading in readings_of(value)]
    for value, short in zip(values, cut, strict=True):
        readings += readings_of(short) if short != value else []
    parts = [f"{expression} IN {parameters.add(readings)}"]
    if any(_LIKE_A_TIME.match(value) for value in values):
        parts.append(_is_a_time(expression))
    if not column.key:
        parts.append(f"{expression} CONTAINS {parameters.add(chr(0))}")
        # In a comparison as char(n), trailing blanks do not count.
        parts += [f"{expression} STARTS WITH {parameters.add(short + ' ')}" for short in dict.fromkeys(cut)]
    return Condition(_either(parts), len(parts) == 1 and len(readings) == len(values))


def readings_of(text: str) -> list[Any]:
    """The values that a text column may show as this text, except times."""
    readings: list[Any] = [text]
    with contextlib.suppress(ValueError):
        if -(1 << 63) <= (number := int(text)) < 1 << 63:
            readings.append(number)
    with contextlib.suppress(ValueError):
        if math.isfinite(real := float(text)):
            readings += [real] if real else [0.0, -0.0]
    if text in ("true", "false"):
        readings.append(text == "true")
    if text in ("t", "f"):  # a boolean in an array that is cast to text
        readings += ["true", True] if text == "t" else ["false", False]
    return readings


def _unequal(
    column: Column, values: Sequence[Any], expression: str, parameters: Parameters, floats_exact: bool
) -> Condition | None:
    """The column shows none of the values. Not for texts: too many values are shown as the same text."""
    if column.type_name == "bool":
        asked = [_boolean(value) for value in values]
        return None if None in asked else Condition(_none_of(expression, asked, parameters))
    if column.type_name in ("int8", "float8"):
        numbers, exact = _numbers(column, values, floats_exact)
        if numbers is None or not exact or not all(abs(number) < _EXACT for number in numbers):
            return None
        return Condition(_none_of(expression, [s for number in numbers for s in _spellings(number)], parameters))
    return None


def _none_of(expression: str, values: Sequence[Any], parameters: Parameters) -> str:
    return f"NOT {expression} IN {parameters.add(list(values))} AND {expression} IS NOT NULL"


def _identity(
    operator: str | tuple[str, bool], value: Any, expression: str, parameters: Parameters
) -> Condition | None:
    """Equality of the element id. Neo4j raises an error for a text that cannot be one, so such a text is left out."""
    values = [value] if operator == "=" else value if operator == ("=", True) else None
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        return None
    ids = [item for item in (value.rstrip(" ") for value in values) if _ELEMENT_ID.fullmatch(item)]
    return Condition(f"{expression} IN {parameters.add(ids)}", exact=True)


_ELEMENT_ID = re.compile(r"\d{1,9}:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}:\d{1,18}", re.ASCII)


# -- ranges ------------------------------------------------------------------------------------------------------------


def _range(
    column: Column, operator: str, value: Any, expression: str, parameters: Parameters, floats_exact: bool
) -> Condition | None:
    """The order of numbers, booleans and moments. That of texts depends on a collation that Multicorn does not tell."""
    if column.type_name in TEMPORAL:
        return _before_or_after(column, operator, value, expression, parameters)
    if column.type_name == "bool":
        asked = _boolean(value)
        return None if asked is None else Condition(f"{expression} {operator} {parameters.add(asked)}", exact=True)
    if column.type_name in ("int4", "int2"):
        return None  # the value may be the lower half of a bigint
    numbers, _ = _numbers(column, [value], floats_exact)
    if not numbers or not all(map(math.isfinite, numbers)):
        return None
    number = max(numbers) if operator[0] == "<" else min(numbers)
    if 0 < abs(number) < _EXACT:
        return Condition(f"{expression} {operator} {parameters.add(number)}")
    low, high = _around(number)
    parts = [f"{expression} {operator[0]}= {parameters.add(high if operator[0] == '<' else low)}"]
    if isinstance(number, int):
        parts.append(f"{expression} {operator} {parameters.add(number)}")
    return Condition(_either(parts))


def _numbers(column: Column, values: Sequence[Any], floats_exact: bool) -> tuple[list[int | float] | None, bool]:
    """The numbers that the values may be, and whether they are certain; None if one cannot be of the column's type.

    A real arrives as its shortest text, as a double precision does: 0.1 is one of two numbers. If its bytes are read as
    a double precision, it is NaN or close to zero; a real column's value may be half of a double precision: anything.
    """
    numbers: list[int | float] = []
    exact = True
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None, False
        try:
            if column.type_name in _INTEGERS:
                if isinstance(value, float):
                    return None, False
                numbers.append(int(value))
                continue
            if column.type_name != "float8" or (isinstance(value, str) and not floats_exact):
                return None, False
            numbers.append(number := float(value))
            if math.isnan(number) or 0 < number < _NEXT_TO_NOTHING:
                return None, False
            with contextlib.suppress(OverflowError):
                real = float(struct.unpack("f", struct.pack("f", number))[0])
                if real != number:
                    numbers.append(real)
                    exact = False
        except ValueError:
            return None, False
    return numbers, exact


def _spellings(number: int | float) -> list[int | float]:
    """A number as INTEGER and FLOAT, so that each is compared with its own type; a FLOAT zero has a sign."""
    if number == 0:
        return [0, 0.0, -0.0]
    return [int(number), float(number)] if number == int(number) else [number]


def _around(number: int | float) -> tuple[float, float]:
    """Bounds for all values that a column shows as this number."""
    near = float(number)
    low, high = math.nextafter(near, -math.inf), math.nextafter(near, math.inf)
    return max(low, -_MOST), min(high, _MOST)


# -- moments -----------------------------------------------------------------------------------------------------------

_MOMENT = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)(?: (?P<clock>\d\d:\d\d:\d\d(?:\.\d+)?)(?P<offset>[+-]\d\d(?::\d\d(?::\d\d)?)?))",
    re.ASCII,
)
_LIKE_A_TIME = re.compile(r"[-+]?\d{4,}-\d\d|\d\d:\d\d", re.ASCII)
_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)


def _moment(column: Column, value: Any) -> tuple[datetime, datetime] | None:
    """The earliest and the latest instant (in UTC, without a time zone) that a value may mean.

    A timestamp arrives without its microseconds; and the types of the two sides may differ, so that the session's time
    zone counts: three days allow for both. None if the type is not certain: the days of a date, read as microseconds,
    are minutes around 2000; and a date may be half of a timestamp.
    """
    room = timedelta(days=3)
    if isinstance(value, str):
        match = _MOMENT.fullmatch(value)
        if not match:
            return None  # another DateStyle, infinity, or BC
        offset = match["offset"][1:].split(":")
        shift = timedelta(**dict(zip(("hours", "minutes", "seconds"), map(int, offset), strict=False)))
        try:
            moment = datetime.fromisoformat(f"{match['day']} {match['clock']}")
            moment = moment - shift if match["offset"][0] == "+" else moment + shift
        except (ValueError, OverflowError):
            return None
    elif isinstance(value, datetime):
        moment = value.replace(tzinfo=None)
    elif isinstance(value, date) and column.type_name != "date":
        return _with_room(datetime(value.year, value.month, value.day), room)
    else:
        return None
    if abs(moment - datetime(2000, 1, 1)) < timedelta(hours=1):
        return None
    return _with_room(moment, room)


def _with_room(moment: datetime, room: timedelta) -> tuple[datetime, datetime]:
    return (
        moment - room if moment - _FIRST > room else _FIRST,
        moment + room if _LAST - moment > room else _LAST,
    )


def _before_or_after(
    column: Column, operator: str, value: Any, expression: str, parameters: Parameters
) -> Condition | None:
    bounds = _moment(column, value)
    if bounds is None:
        return None
    bound = bounds[1] if operator[0] == "<" else bounds[0]
    return Condition(
        _either([f"{expression} {operator[0]}= {parameters.add(form)}" for form in _forms(bound, operator[0])])
    )


def _within(column: Column, values: Sequence[Any], expression: str, parameters: Parameters) -> Condition | None:
    parts = []
    for value in values:
        bounds = _moment(column, value)
        if bounds is None:
            return None
        for low, high in zip(_forms(bounds[0], ">"), _forms(bounds[1], "<"), strict=True):
            parts.append(f"({expression} >= {parameters.add(low)} AND {expression} <= {parameters.add(high)})")
    return Condition(_either(parts)) if parts else Condition("false", exact=True)


def _forms(bound: datetime, side: str) -> list[Any]:
    """A bound for each type that a column of moments shows: Neo4j compares a value only with one of its own type.

    A text is compared by its date: its offset changes that by a day at most.
    """
    day = bound.date()
    if side == "<":  # "z" sorts after all that may follow a date, and 999 ns are the rest of a microsecond
        local = DateTime.from_native(bound).replace(nanosecond=bound.microsecond * 1000 + 999)
        zoned = local.replace(tzinfo=UTC)
        return [zoned, local, day, f"{min(day, date(9999, 12, 29)) + timedelta(days=2)}z"]
    return [bound.replace(tzinfo=UTC), bound, day, f"{max(day, date(1, 1, 3)) - timedelta(days=2)}"]


# -- texts -------------------------------------------------------------------------------------------------------------


def _plain_prefix(pattern: str) -> str:
    """The beginning of all texts that are LIKE the pattern."""
    return re.split(r"[%_\\]", pattern, maxsplit=1)[0]


def _begins(column: Column, prefix: str, expression: str, parameters: Parameters) -> Condition | None:
    if not prefix:
        return None
    parts = [f"{expression} STARTS WITH {parameters.add(prefix)}"]
    if not column.key:
        parts.append(f"{expression} CONTAINS {parameters.add(chr(0))}")
    if prefix[0] in "+-0123456789tf":  # so do numbers, times, true and false
        parts.append(f"NOT {expression} IS :: STRING")
    return Condition(_either(parts))


# -- NULL --------------------------------------------------------------------------------------------------------------


def _is_null(column: Column, expression: str, parameters: Parameters) -> Condition | None:
    """A misfit is shown as NULL, too: only values that certainly fit are left out."""
    fits: tuple[str, float, float] | None = None
    if column.type_name in _INTEGERS:
        top = (1 << (_INTEGERS[column.type_name] - 1)) - 1
        fits = "INTEGER NOT NULL", -top - 1, top
    elif column.type_name == "float8":
        fits = "INTEGER NOT NULL | FLOAT NOT NULL", -_MOST, _MOST
    elif column.type_name == "timestamptz":
        low, high = (moment.replace(tzinfo=UTC) for moment in (datetime(1, 1, 3), datetime(9999, 12, 29)))
        bounds = f"{expression} >= {parameters.add(low)} AND {expression} <= {parameters.add(high)}"
        known = _either([f"{expression}.timezone {test}" for test in ("STARTS WITH '+'", "STARTS WITH '-'", "= 'Z'")])
        return Condition(
            f"CASE WHEN {expression} IS :: ZONED DATETIME NOT NULL THEN NOT ({bounds} AND {known}) ELSE true END"
        )
    if fits:
        type_, lowest, highest = fits
        inside = f"{expression} >= {parameters.add(lowest)} AND {expression} <= {parameters.add(highest)}"
        return Condition(f"CASE WHEN {expression} IS :: {type_} THEN NOT ({inside}) ELSE true END")
    if column.type_name == "bool":
        return Condition(f"NOT {expression} IS :: BOOLEAN NOT NULL", exact=True)
    if column.type_name == "text":
        unfit = f"size({expression}) > {parameters.add(_LONGEST)}"
        if column.key:
            unfit += f" OR {expression} CONTAINS {parameters.add(chr(0))}"
        return Condition(f"CASE WHEN {expression} IS :: STRING NOT NULL THEN {unfit} ELSE true END")
    return None


# -- order -------------------------------------------------------------------------------------------------------------


def sortable(key: SortKey, columns: Mapping[str, Column]) -> bool:
    """Whether Neo4j can sort a column as PostgreSQL does."""
    column = columns.get(key.attname)
    return column is not None and _shown(column, "n") is not None


def order(keys: Iterable[SortKey], columns: Mapping[str, Column], of: Expression) -> list[str]:
    """The sort items. In Cypher NULL is the greatest value, which is also PostgreSQL's default."""
    items = []
    for key in keys:
        column = columns[key.attname]
        expression = of(column)
        shown = _shown(column, expression) if expression else None
        assert shown is not None  # `sortable` was true
        if key.nulls_first != key.is_reversed:
            items.append(f"{shown} IS {'NOT ' if key.nulls_first else ''}NULL")
        items.append(f"{shown} DESC" if key.is_reversed else shown)
    return items


def _shown(column: Column, expression: str) -> str | None:
    """What the column shows, in Cypher; None if Cypher cannot express it."""
    if column.derive:
        return None
    if column.type_name in _INTEGERS:
        top = 1 << (_INTEGERS[column.type_name] - 1)
        # A FLOAT without a fraction is an integer; its range is checked before it is converted.
        return (
            f"CASE WHEN {expression} IS :: INTEGER NOT NULL AND {expression} >= {-top} AND {expression} <= {top - 1}"
            f" THEN {expression} WHEN {expression} IS :: FLOAT NOT NULL AND {expression} >= {-top}.0"
            f" AND {expression} < {top}.0 AND floor({expression}) = {expression} THEN toInteger({expression}) END"
        )
    if column.type_name == "float8":
        # + 0.0: zero has no sign in PostgreSQL's order.
        return (
            f"CASE WHEN {expression} IS :: INTEGER NOT NULL THEN toFloat({expression})"
            f" WHEN {expression} IS :: FLOAT NOT NULL AND {expression} >= -{_MOST} AND {expression} <= {_MOST}"
            f" THEN {expression} + 0.0 END"
        )
    if column.type_name == "bool":
        return f"CASE WHEN {expression} IS :: BOOLEAN NOT NULL THEN {expression} END"
    return None


# -- pieces ------------------------------------------------------------------------------------------------------------


def _either(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else "(" + " OR ".join(parts) + ")"


def _is_a_time(expression: str) -> str:
    kinds = ("DATE", "LOCAL TIME", "ZONED TIME", "LOCAL DATETIME", "ZONED DATETIME")
    return f"{expression} IS :: " + " | ".join(f"{kind} NOT NULL" for kind in kinds)


def _boolean(value: Any) -> bool | None:
    """A boolean as Multicorn passes it: "t" or "f"."""
    if isinstance(value, bool):
        return value
    return {"t": True, "f": False, "true": True, "false": False}.get(value) if isinstance(value, str) else None
