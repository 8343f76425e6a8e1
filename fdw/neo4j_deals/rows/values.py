"""In: one value as the Neo4j driver returns it, and the PostgreSQL type that it is for.
Out: the value as Python's equivalent of that type, or a `Misfit` that says why there is none.

Pure. The rules are those of docs/internals/rules.md on misfits; the types are PostgreSQL's names in pg_type (`int2`,
`numeric`, `timestamptz`, `vector`, ...) with the modifier as in pg_attribute.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from neo4j import spatial
from neo4j import time as neo4j_time
from neo4j._codec.hydration import BrokenHydrationObject
from neo4j.vector import Vector

from neo4j_deals.mapping.types import JSON, NUMBERS, TEXTS, VECTORS, digits, length
from neo4j_deals.moment import Moment, zone_named
from neo4j_deals.rows.shown import CONTROL, datetime_text, elements_of, iso, kind_of, with_article

Converter = Callable[[Any], Any]

#: A longer text is a misfit, because a row may have 1 GB only: in a SELECT, and the default of the setting
#: deal_sync.max_value_bytes for the sync.
MAX_VALUE_BYTES = 128 * 1024 * 1024

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WIDE = Context(prec=1000)  # the maximum precision of PostgreSQL's numeric(p,s)
MOST_DIMENSIONS = 16000  # of pgvector
_UUID = re.compile(r"(\{)?[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}(?(1)\})", re.IGNORECASE)
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)"
    r"(?P<offset>[Zz]|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?(?:\[(?P<zone>[^\]]+)\])?)?",
    re.ASCII,
)
_CLOCK = re.compile(
    r"(?P<time>\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)(?P<offset>[Zz]|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?", re.ASCII
)


class Misfit(ValueError):
    """A value that cannot land in its column.

    `sqlstate` is PostgreSQL's code for the reason; `reason` is a message without the value itself.
    `substitute` lands instead: None, or the text without the characters that PostgreSQL does not support.
    """

    def __init__(self, sqlstate: str, reason: str, substitute: Any = None) -> None:
        super().__init__(reason)
        self.sqlstate = sqlstate
        self.reason = reason
        self.substitute = substitute


Misfits = dict[str, tuple[Misfit, Any]]
"""By column name: the misfit and the value."""


def _wrong_type(value: Any, expected: str) -> Misfit:
    return Misfit("2200G", f"expected {expected}, found {with_article(kind_of(value))}")


# -- texts and ids -----------------------------------------------------------------------------------------------------


_REMOVED = "a NUL character or lone surrogate was removed"


def to_text(value: Any, limit: int = MAX_VALUE_BYTES) -> str:
    """STRING as it is; INTEGER, FLOAT, BOOLEAN and temporal values in their text form (numbers: the shortest)."""
    if type(value) is str:
        if len(value) > limit // 4 and len(value.encode("utf-8", "surrogatepass")) > limit:
            raise Misfit("54000", f"text is longer than deal_sync.max_value_bytes ({limit} bytes)")
        if CONTROL.search(value):
            raise Misfit("22021", _REMOVED, CONTROL.sub("", value))
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float_text(_finite(value))
    if isinstance(value, Moment):
        return iso(value.seconds, value.nanoseconds, value.offset)
    if isinstance(value, neo4j_time.DateTime):
        return datetime_text(value)
    if isinstance(value, neo4j_time.Date | neo4j_time.Time):
        return value.iso_format()
    if isinstance(value, BrokenHydrationObject):
        raise _unreadable(value)
    if isinstance(value, date):  # or datetime: the value of a foreign column of that type
        return value.isoformat()
    raise _wrong_type(value, "a text")


def clean(texts: Sequence[str]) -> bool:
    """Whether these texts are short altogether and have no character that PostgreSQL does not support."""
    together = "".join(texts)
    if "\0" in together or len(together) > MAX_VALUE_BYTES // 4:
        return False
    return together.isascii() or not CONTROL.search(together)


def _float_text(value: float) -> str:
    """As PostgreSQL writes it: the shortest digits, with an exponent from 1e15 on (Python: from 1e16 on)."""
    text = repr(value).removesuffix(".0")
    if not 1e15 <= abs(value) < 1e16:
        return text
    sign, digits = ("-", text[1:]) if value < 0 else ("", text)
    digits = digits.rstrip("0")
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e+15"


def _varchar(longest: int, limit: int) -> Converter:
    def convert(value: Any) -> str:
        try:
            text, found = to_text(value, limit), None
        except Misfit as misfit:
            if misfit.substitute is None:
                raise
            text, found = misfit.substitute, misfit
        if len(text) > longest:
            raise Misfit("22001", f"text of {len(text)} characters is too long for {longest}")
        if found:
            raise found
        return text

    return convert


def to_uuid(value: Any) -> UUID:
    """A text in one of the spellings that PostgreSQL's uuid takes: any case, hyphens or none, braces or none."""
    if not isinstance(value, str):
        raise _wrong_type(value, "a UUID")
    if not _UUID.fullmatch(value):
        raise Misfit("22P02", "text is not a UUID")
    return UUID(value)


# -- numbers -----------------------------------------------------------------------------------------------------------


def maybe_uuid(value: Any) -> UUID | None:
    """A UUID as the tables compare it; None if the value is not one."""
    try:
        return to_uuid(value)
    except Misfit:
        return None


def finite(numbers: Sequence[float]) -> bool:
    """Whether all of these are finite; False also if their sum alone does not tell."""
    return math.isfinite(sum(numbers))


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise Misfit("22003", "not a finite number")
    return value


def _number(value: Any) -> int | float | Decimal:
    if type(value) is float:
        return _finite(value)
    if type(value) is int or type(value) is Decimal:
        return value
    raise _wrong_type(value, "a number")


def _integer(bits: int, type_: str) -> Converter:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def convert(value: Any) -> int:
        number = _number(value)
        if number != int(number):
            raise Misfit("22P02", "expected an integer, found a fraction")
        if not low <= number <= high:
            raise Misfit("22003", f"out of range for type {type_}")
        return int(number)

    return convert


def _float8(value: Any) -> float:
    number = _number(value)
    try:
        found = float(number)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or (number and not found):  # only a text can have such a number
        raise Misfit("22003", "out of range for type double precision")
    return found


def _float4(value: Any) -> float:
    number = _float8(value)
    try:
        single = float(struct.unpack(">f", struct.pack(">f", number))[0])
    except OverflowError:
        raise Misfit("22003", "out of range for type real") from None
    if number and not single:
        raise Misfit("22003", "out of range for type real: underflow")
    return single


def _numeric(precision: int | None, scale: int) -> Converter:
    """From the shortest decimal form, rounded half away from zero as PostgreSQL does: 0.145 → 0.15."""

    @lru_cache(maxsize=4096)
    def decimal(shortest: str) -> Decimal:
        exact = Decimal(shortest)
        if precision is None:
            return exact
        rounded = exact.quantize(unit, ROUND_HALF_UP, _WIDE) if abs(exact) < limit else exact
        if abs(rounded) >= limit:
            raise Misfit("22003", f"out of range for type numeric({precision},{scale})")
        return rounded

    unit, limit = Decimal(1).scaleb(-scale), Decimal(10) ** ((precision or 0) - scale)
    return lambda value: decimal(
        format(value, "f") if type(value) is Decimal else repr(_number(value)).removesuffix(".0")
    )


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "a boolean")
    return value


# -- dates and times; a moment in UTC ----------------------------------------------------------------------------------


_OUT_OF_RANGE = "date or time out of range (years 1 to 9999)"


def to_timestamptz(value: Any) -> datetime:
    """A temporal value or an ISO 8601 text; without an offset it is UTC; fractions of a microsecond are cut off."""
    if type(value) is Moment:
        return _EPOCH + timedelta(0, value.seconds, value.nanoseconds // 1000)
    try:
        if isinstance(value, neo4j_time.DateTime):
            moment = datetime(
                value.year, value.month, value.day, value.hour, value.minute, value.second, value.nanosecond // 1000
            )
            offset = value.utcoffset()
            return (moment - (timedelta(seconds=offset.total_seconds()) if offset else timedelta())).replace(tzinfo=UTC)
        if isinstance(value, neo4j_time.Date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, str):
            written, offset = _read(value)
            return (written - offset).replace(tzinfo=UTC)
    except (OverflowError, ValueError) as error:
        if isinstance(error, Misfit):
            raise
        raise Misfit("22008", _OUT_OF_RANGE) from None
    raise _unreadable(value)


def _unreadable(value: Any) -> Misfit:
    if isinstance(value, BrokenHydrationObject) and kind_of(value).startswith("DATE"):
        zone = isinstance(value.error, KeyError)
        return Misfit("22023", "unknown time zone") if zone else Misfit("22008", _OUT_OF_RANGE)
    return _wrong_type(value, "a date or time")


def _read(text: str) -> tuple[datetime, timedelta]:
    """A date or a moment as it is written, and its offset from UTC: its own, its zone's, or zero."""
    match = _ISO.fullmatch(text)
    if not match:
        raise Misfit("22007", "text is not an ISO 8601 date or time")
    try:
        day = date.fromisoformat(match["date"])
        if not match["time"]:
            return datetime.combine(day, time()), timedelta()
        written = datetime.combine(day, time.fromisoformat(match["time"].replace(",", ".")))
        if match["zone"] is None or match["offset"] is not None:
            return written, _offset(match["offset"])
        # As Neo4j does: an hour that occurs twice is the first one; one that is skipped has the offset from before.
        shift = zone_named(match["zone"]).utcoffset(written)
    except KeyError:
        raise Misfit("22023", "unknown time zone") from None
    except (OverflowError, ValueError) as error:
        if isinstance(error, Misfit):
            raise
        raise Misfit("22008", _OUT_OF_RANGE) from None
    assert shift is not None
    return written, shift


def _offset(text: str | None) -> timedelta:
    """The offset from UTC at the end of an ISO 8601 text; zero if there is none."""
    if text in (None, "Z", "z"):
        return timedelta()
    digits = text[1:].replace(":", "").ljust(6, "0")
    if int(digits[:4]) > 1800 or int(digits[2:4]) > 59 or int(digits[4:]) > 59:
        raise Misfit("22008", "offset from UTC out of range")
    shift = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:]))
    return -shift if text[0] == "-" else shift


def _timestamp(value: Any) -> datetime:
    return to_timestamptz(value).replace(tzinfo=None)


def _date(value: Any) -> date:
    """The day as it is written, in the value's own zone, because people mean that day."""
    if type(value) is Moment:
        return (_EPOCH + timedelta(0, value.seconds + (value.offset or 0))).date()
    if isinstance(value, neo4j_time.Date):
        return date(value.year, value.month, value.day)
    if isinstance(value, neo4j_time.DateTime):
        return date(value.year, value.month, value.day)
    if isinstance(value, str):
        return _read(value)[0].date()
    raise _unreadable(value)


# -- times of day, durations, points -----------------------------------------------------------------------------------


def _clock(value: Any) -> tuple[time, timedelta | None]:
    """A TIME or an ISO 8601 text as a time of day, cut to microseconds, and its offset from UTC, if it has one."""
    if isinstance(value, neo4j_time.Time):
        return time(value.hour, value.minute, value.second, value.nanosecond // 1000), value.utc_offset()
    if not isinstance(value, str):
        raise _wrong_type(value, "a time of day")
    match = _CLOCK.fullmatch(value)
    if not match:
        raise Misfit("22007", "text is not an ISO 8601 time of day")
    try:
        clock = time.fromisoformat(match["time"].replace(",", "."))
    except ValueError:
        raise Misfit("22008", "time of day out of range") from None
    return clock, _offset(match["offset"]) if match["offset"] else None


def _time(value: Any) -> time:
    """A local time. One with an offset is a misfit; it is not shifted."""
    clock, offset = _clock(value)
    if offset is not None:
        raise Misfit("2200G", "expected a LOCAL TIME, found a ZONED TIME")
    return clock


def _timetz(value: Any) -> time:
    """A time with its own offset; without one it is UTC."""
    clock, offset = _clock(value)
    shift = timedelta(seconds=int(offset.total_seconds())) if offset else timedelta()
    if abs(shift) >= timedelta(hours=16):
        raise Misfit("22009", "an offset from UTC of 16 hours or more is not supported by PostgreSQL")
    return clock.replace(tzinfo=timezone(shift))


def _interval(value: Any) -> str:
    """A DURATION as PostgreSQL reads it with any IntervalStyle: each part has its sign; nanoseconds are cut off."""
    if not isinstance(value, neo4j_time.Duration):
        raise _wrong_type(value, "a duration")
    months, days = int(value.months), int(value.days)
    nanoseconds = int(value.seconds) * 1_000_000_000 + int(value.nanoseconds)
    if max(abs(months), abs(days)) >= 1 << 31 or abs(nanoseconds) >= 1000 << 63:
        raise Misfit("22008", "out of range for type interval")
    seconds, fraction = divmod(abs(nanoseconds) // 1000, 1_000_000)
    sign = "-" if nanoseconds < 0 else "+"
    clock = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:06}"
    return f"{months:+d} mons {days:+d} days {clock}"


def _point(value: Any) -> str:
    """A POINT of two dimensions as PostgreSQL reads it: (x,y), which is (longitude,latitude)."""
    if not isinstance(value, spatial.Point):
        raise _wrong_type(value, "a point")
    if len(value) != 2:
        raise Misfit("2200G", f"expected a POINT of two dimensions, found one of {len(value)}")
    return f"({_finite(float(value[0]))!r},{_finite(float(value[1]))!r})"


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise _wrong_type(value, "a byte array")
    return bytes(value)


# -- lists and documents -----------------------------------------------------------------------------------------------


def _array(element: Converter) -> Converter:
    """A list; a misfit in it makes the whole list a misfit."""

    def convert(value: Any) -> list[Any]:
        elements = elements_of(value)
        if not isinstance(elements, list):
            raise _wrong_type(value, "a list")
        if None in elements:
            raise Misfit("22004", "list contains a null")
        try:
            return [element(item) for item in elements]
        except Misfit as misfit:
            raise Misfit(misfit.sqlstate, f"in a list: {misfit.reason}") from None

    return convert


def _vector(dimensions: int | None, element: str) -> Converter:
    """A list of finite numbers of the column's width; `element` is the format of a number for `struct`."""
    layout = struct.Struct(f">{dimensions}{element}") if dimensions else None

    def convert(value: Any) -> list[float]:
        elements: Any = value.to_native() if isinstance(value, Vector) else value
        if not isinstance(elements, list):
            raise _wrong_type(value, "a vector")
        if (dimensions and len(elements) != dimensions) or not elements:
            raise Misfit("22000", f"expected {dimensions or 'one or more'} dimensions, found {len(elements)}")
        if type(elements[0]) not in (float, int):
            raise Misfit("2200G", f"in a vector: expected a number, found {with_article(kind_of(elements[0]))}")
        if len(elements) > MOST_DIMENSIONS:
            raise Misfit("54000", f"vector cannot have more than {MOST_DIMENSIONS} dimensions")
        try:
            finite = math.isfinite(sum(elements))
        except TypeError:
            raise Misfit("2200G", "in a vector: not a number") from None
        if not finite:
            raise Misfit("22003", "in a vector: not a finite number")
        try:
            (layout or struct.Struct(f">{len(elements)}{element}")).pack(*elements)
        except OverflowError:
            raise Misfit("22003", f"in a vector: out of range for a {struct.calcsize(element)}-byte float") from None
        return elements

    return convert


def _text_array(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise _wrong_type(value, "a list of texts")
    for item in value:
        if not isinstance(item, str):
            raise Misfit("2200G", f"in a list: expected a text, found {with_article(kind_of(item))}")
    if any(CONTROL.search(item) for item in value):
        cleaned = [CONTROL.sub("", item) for item in value]
        raise Misfit("22021", _REMOVED, cleaned)
    return value


def json_scalar(value: Any, limit: int = MAX_VALUE_BYTES) -> Any:
    """A value inside a JSON document: scalars unchanged, temporal values as ISO 8601.

    Raises Misfit for a value that is not finite or not a scalar, and for a text with an invalid character.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return _finite(value)
    return to_text(value, limit)


def to_json(value: Any) -> str:
    """Any value as a JSON text; a value that JSON cannot represent becomes null in it, and is a misfit.

    A DURATION becomes its ISO 8601 text, a POINT an object of srid and coordinates, a VECTOR or a byte array a list.
    """
    misfits: list[Misfit] = []

    def plain(item: Any) -> Any:
        item = elements_of(item)
        if isinstance(item, Mapping):
            return {CONTROL.sub("", str(key)): plain(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [plain(inner) for inner in item]
        if isinstance(item, neo4j_time.Duration):
            return item.iso_format()
        if isinstance(item, spatial.Point):
            return {"srid": item.srid, **dict(zip("xyz", map(plain, item), strict=False))}
        try:
            return json_scalar(item)
        except Misfit as misfit:
            misfits.append(misfit)
            return misfit.substitute

    document = orjson.dumps(plain(value)).decode()
    if misfits:
        raise Misfit(misfits[0].sqlstate, f"in a document: {misfits[0].reason}", document)
    return document


# -- the converter of a column -----------------------------------------------------------------------------------------


def converter(type_name: str, modifier: int = -1, limit: int = MAX_VALUE_BYTES) -> Converter:
    """The conversion into a PostgreSQL type.

    `type_name` is the name in pg_type, `modifier` the column's atttypmod (-1: none), `limit` the maximum length of a
    text in bytes.
    Raises KeyError for a type that is not `convertible`.
    """
    if type_name in ("varchar", "bpchar") and (longest := length(modifier)) is not None:
        return _varchar(longest, limit)
    if type_name == "numeric" and (limits := digits(modifier)) is not None:
        return _numeric(*limits)
    if type_name in VECTORS:
        return _vector(modifier if modifier > 0 else None, "f" if type_name == "vector" else "e")
    if type_name in TEXTS:
        return lambda value: to_text(value, limit)
    if type_name.startswith("_") and type_name not in _CONVERTERS and type_name[1:] not in (*VECTORS, *JSON):
        return _array(converter(type_name[1:], modifier, limit))
    return _CONVERTERS[type_name]


_CONVERTERS: dict[str, Converter] = {
    "int2": _integer(16, "smallint"),
    "int4": _integer(32, "integer"),
    "int8": _integer(64, "bigint"),
    "float4": _float4,
    "float8": _float8,
    "numeric": _numeric(None, 0),
    "bool": _boolean,
    "uuid": to_uuid,
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": to_timestamptz,
    "time": _time,
    "timetz": _timetz,
    "interval": _interval,
    "point": _point,
    "bytea": _bytes,
    "json": to_json,
    "jsonb": to_json,
    "_text": _text_array,
}

# -- from the graph to the type of the application's table -------------------------------------------------------------

_NUMBER_TEXT = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,5})?", re.ASCII)
_LONGEST_NUMBER = 1000  # characters
_MOST_DIGITS = 1000  # before the decimal point and after it


def landing(foreign: str, target: str, modifier: int = -1, limit: int = MAX_VALUE_BYTES) -> Converter:
    """The conversion from the graph to the type of the application's table. The foreign column's type never limits what
    lands; it only says that a text is read as a number or a boolean, that a list is one of texts, that a text is a
    document."""
    convert = converter(target, modifier, limit)
    if foreign in TEXTS and target in NUMBERS:
        return lambda value: convert(_number_of(value) if type(value) is str else value)
    if foreign in TEXTS and target == "bool":
        return lambda value: convert({"true": True, "false": False}.get(value, value) if type(value) is str else value)
    if (foreign == "_text" and target in JSON) or (foreign in JSON and target in TEXTS):
        return _one_by_one(converter(foreign), convert)
    return convert


def _number_of(text: str) -> int | float | Decimal:
    if len(text) > _LONGEST_NUMBER or not _NUMBER_TEXT.fullmatch(text):
        raise Misfit("22P02", "text is not a number")
    number = Decimal(text)
    if number and not -_MOST_DIGITS < number.adjusted() < _MOST_DIGITS:
        raise Misfit("22003", "number too large or too small")
    return int(number) if number == number.to_integral_value() else number


def _one_by_one(first: Converter, second: Converter) -> Converter:
    def convert(value: Any) -> Any:
        try:
            return second(first(value))
        except Misfit as misfit:
            if misfit.substitute is None:
                raise
            raise Misfit(misfit.sqlstate, misfit.reason, second(misfit.substitute)) from None

    return convert


def as_text(convert: Converter) -> Converter:
    """The conversion to a type that has no encoder: to a text that the type's input reads."""
    return _one_by_one(convert, _input)


def vector_text(convert: Converter) -> Converter:
    """The same for halfvec."""
    return lambda value: orjson.dumps(convert(value)).decode()


def _input(value: Any) -> str:
    """As PostgreSQL reads it with any settings of the session."""
    if isinstance(value, list):
        items = (_input(item).replace("\\", "\\\\").replace('"', '\\"') for item in value)
        return "{" + ",".join(f'"{item}"' for item in items) + "}"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)
