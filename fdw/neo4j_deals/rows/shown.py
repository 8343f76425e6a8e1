"""In: a value of the graph. Out: its text for a message, its form in Cypher, Neo4j's name of its type.

Pure.
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Any

from neo4j import spatial
from neo4j import time as neo4j_time
from neo4j._codec.hydration import BrokenHydrationObject
from neo4j.vector import Vector

from neo4j_deals.errors import MOST_SHOWN
from neo4j_deals.moment import Moment

_ELEMENTS_SHOWN = 8  # of a list
#: Characters that PostgreSQL does not support.
CONTROL = re.compile("[\0\ud800-\udfff]")
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def shown(value: Any) -> str:
    """The offending value as Neo4j has it: a text unchanged, anything else in Cypher's syntax; cut to a readable length
    and without characters that PostgreSQL rejects."""
    text = value if isinstance(value, str) else cypher_form(value, _ELEMENTS_SHOWN)
    text = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def cypher_form(value: Any, most: int | None = None) -> str:
    """A value in Cypher's syntax; of a list the first `most` elements (None: all)."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case str():
            return _quoted(value if most is None else value[:MOST_SHOWN])
        case Moment():
            zone = f"[{value.zone}]" if value.zone else ""
            return _datetime_form(iso(value.seconds, value.nanoseconds, value.offset) + zone, value.offset is not None)
        case neo4j_time.DateTime():
            name = getattr(value.tzinfo, "zone", None)
            zone = f"[{name}]" if name and name != "UTC" else ""  # the driver's name for an offset of zero
            return _datetime_form(datetime_text(value) + zone, value.utcoffset() is not None)
        case neo4j_time.Date():
            return f"date({_quoted(value.iso_format())})"
        case neo4j_time.Time():
            return f"{'localtime' if value.utc_offset() is None else 'time'}({_quoted(value.iso_format())})"
        case neo4j_time.Duration():
            return f"duration({_quoted(value.iso_format())})"
        case spatial.Point():
            parts = zip("xyz", (cypher_form(float(part)) for part in value), strict=False)
            return f"point({{{', '.join(f'{name}: {part}' for name, part in parts)}, srid: {value.srid}}})"
        case dict():
            return f"{{{', '.join(f'{key}: {cypher_form(inner, most)}' for key, inner in value.items())}}}"
        case BrokenHydrationObject():
            return _raw_form(value.raw_data, most)
    items = elements_of(value)
    if not isinstance(items, list):
        return repr(value)
    listed = ", ".join(cypher_form(inner, most) for inner in items[:most])
    return f"[{listed}]" if most is None or len(items) <= most else f"[{listed}, … {len(items)} elements]"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _datetime_form(text: str, zoned: bool) -> str:
    return f"{'datetime' if zoned else 'localdatetime'}({_quoted(text)})"


def _raw_form(raw: Any, most: int | None) -> str:
    """A value that the driver could not read, because Python does not support its year or the driver does not know its
    zone; or a list or map with such a value in it."""
    match getattr(raw, "tag", None), getattr(raw, "fields", None):
        case b"D", [int(days)]:
            return f"date({_quoted(_day(days))})"
        case b"d", [int(seconds), int(nanoseconds)]:
            return _datetime_form(iso(seconds, nanoseconds, None), False)
        case b"I", [int(seconds), int(nanoseconds), int(offset)]:
            return _datetime_form(iso(seconds, nanoseconds, offset), True)
        case b"i", [int(seconds), int(nanoseconds), str(zone)]:
            return f"datetime({{epochSeconds: {seconds}, nanosecond: {nanoseconds}, timezone: {_quoted(zone)}}})"
    return cypher_form(raw, most) if isinstance(raw, list | dict | str | int) else kind_of(raw)


def iso(seconds: int, nanoseconds: int, offset: int | None) -> str:
    """ISO 8601 for any year, with the value's own offset: Neo4j's are up to 18 hours."""
    days, clock = divmod(seconds + (offset or 0), 86_400)
    text = f"{_day(days)}T{clock // 3600:02}:{clock // 60 % 60:02}:{clock % 60:02}.{nanoseconds:09}"
    return text if offset is None else text + _offset_text(offset)


def _day(days: int) -> str:
    """The day so many days after 1970-01-01; the calendar repeats itself after 400 years."""
    cycles, rest = divmod(days, 146_097)
    day = date.fromordinal(_EPOCH_DAY + rest)
    year = day.year + 400 * cycles
    return f"{year:04}{day:-%m-%d}" if 0 <= year <= 9999 else f"{year:+05}{day:-%m-%d}"


def _offset_text(offset: int) -> str:
    minutes, seconds = divmod(abs(offset), 60)
    ending = f":{seconds:02}" if seconds else ""
    return f"{'-' if offset < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}{ending}"


def with_article(name: str) -> str:
    """The name with its article."""
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def kind_of(value: Any) -> str:
    """Neo4j's name of a value's type, as `valueType()` returns it."""
    if isinstance(value, BrokenHydrationObject):
        return _RAW_NAMES.get(getattr(value.raw_data, "tag", b"")) or kind_of(value.raw_data)
    for python, name in _NEO4J_NAMES:
        if isinstance(value, python):
            return name
    return f"value that the driver cannot read ({type(value).__name__})"


_NEO4J_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "BOOLEAN"),
    (int, "INTEGER"),
    (float, "FLOAT"),
    (str, "STRING"),
    (bytes, "BYTES"),
    (neo4j_time.Duration, "DURATION"),
    (spatial.Point, "POINT"),
    (Vector, "VECTOR"),
    (list, "LIST"),
    (dict, "MAP"),
    (neo4j_time.DateTime, "DATETIME"),
    (Moment, "DATETIME"),
    (neo4j_time.Date, "DATE"),
    (neo4j_time.Time, "TIME"),
)


#: Types by the tag of their structure in Bolt.
_RAW_NAMES = {b"D": "DATE", b"d": "DATETIME", b"I": "DATETIME", b"i": "DATETIME"}


def datetime_text(value: neo4j_time.DateTime) -> str:
    """ISO 8601 with the offset; the driver's own text is an hour wrong for offsets such as -03:30."""
    offset = value.utcoffset()
    text = str(value.replace(tzinfo=None).iso_format())
    return text if offset is None else text + _offset_text(int(offset.total_seconds()))


def elements_of(value: Any) -> Any:
    """The elements of a value that is a list in Cypher: a byte array one of INTEGERs, a VECTOR one of numbers."""
    if isinstance(value, bytes | bytearray):
        return [byte - 256 if byte > 127 else byte for byte in value]
    if isinstance(value, BrokenHydrationObject) and isinstance(value.raw_data, list | dict):
        return value.raw_data  # one of its elements is broken
    return value.to_native() if isinstance(value, Vector) else value
