"""Flows in: whatever a graph may hold, for every type of a column. Flows out: that each conversion gives what
PostgreSQL itself would, or a Misfit that says why not. Dates and times are test_values_of_time.py's.
"""

import json
import math
from collections.abc import Callable
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
import pytest
import pytz  # type: ignore[import-untyped]
from hypothesis import example, given, settings
from hypothesis import strategies as st
from neo4j import spatial
from neo4j import time as neo4j_time
from neo4j._codec.hydration import BrokenHydrationObject
from neo4j.vector import Vector
from neo4j_deals.graph.hydration import moment
from neo4j_deals.mapping.types import convertible, type_named
from neo4j_deals.rows.copy_format import encoder
from neo4j_deals.rows.shown import kind_of, shown
from neo4j_deals.rows.values import (
    MAX_VALUE_BYTES,
    Misfit,
    converter,
    landing,
    to_timestamptz,
    to_uuid,
)
from support.copied import convert_to, copied
from support.database import Connection
from support.properties import (
    EMOJI,
    as_float4,
    broken,
    finite_floats,
    floats,
    integers,
    neo4j_values,
    on_servers,
    sendable,
    texts,
)
from support.values import misfit, outcome, rejection

CONFIDENCE = (3 << 16 | 2) + 4  # the modifier of numeric(3,2)


# Every type that is staged, as SQL writes it: its name in pg_type and its modifier.
TYPES = {
    "text": ("text", -1),
    "character varying": ("varchar", -1),
    "character varying(5)": ("varchar", 9),
    "smallint": ("int2", -1),
    "integer": ("int4", -1),
    "bigint": ("int8", -1),
    "real": ("float4", -1),
    "double precision": ("float8", -1),
    "numeric": ("numeric", -1),
    "numeric(3,2)": ("numeric", CONFIDENCE),
    "numeric(15,2)": ("numeric", (15 << 16 | 2) + 4),
    "numeric(2,-3)": ("numeric", (2 << 16 | 2045) + 4),
    "numeric(2,4)": ("numeric", (2 << 16 | 4) + 4),
    "boolean": ("bool", -1),
    "uuid": ("uuid", -1),
    "date": ("date", -1),
    "timestamp without time zone": ("timestamp", -1),
    "timestamp with time zone": ("timestamptz", -1),
    "json": ("json", -1),
    "jsonb": ("jsonb", -1),
    "vector(3)": ("vector", 3),
    "vector": ("vector", -1),
}
SQLSTATES = {"22023", "2200G", "22P02", "22007", "22003", "22008", "22001", "22021", "22000", "54000"}


def shortest(oracle: Connection, value: float) -> str:
    """A number's shortest text, by PostgreSQL. Above 2^54 its float8out may write a digit more than the shortest."""
    if type(value) is float and abs(value) >= 2**54:
        return repr(value)
    native = "bigint" if type(value) is int else "double precision"
    found = oracle.execute(f"SELECT %s::{native}::text", [value]).fetchone()
    assert found is not None
    return str(found[0])


# -- for every type ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [*TYPES, "text[]"])
@given(value=neo4j_values())
@settings(deadline=None)
def test_any_value_is_converted_or_rejected_with_a_sqlstate_of_the_list_and_a_reason(type_: str, value: Any) -> None:
    convert = converter("_text") if type_ == "text[]" else converter(*TYPES[type_])
    landed, rejected = outcome(convert, value)
    if rejected is None:
        assert landed is not None
    else:
        assert rejected.sqlstate in SQLSTATES
        assert rejected.reason
        assert rejected.reason.isprintable()


@pytest.mark.parametrize("type_", TYPES)
@given(values=st.lists(neo4j_values(), min_size=1, max_size=40))
@on_servers(max_examples=20)
def test_what_is_accepted_and_what_is_left_of_a_rejected_text_enters_the_table_unchanged(
    oracle: Connection, type_: str, values: list[Any]
) -> None:
    name, modifier = TYPES[type_]
    convert, encode = converter(name, modifier), encoder(name, modifier)
    landing = [landed for value in values if (landed := outcome(convert, value)[0]) is not None]
    form = {"timestamp with time zone": "({} AT TIME ZONE 'UTC')", "json": "{}::text", "jsonb": "{}::text"}
    found = copied(oracle, [type_], [[encode(value)] for value in landing], form.get(type_, "{}"))
    assert [compared(name)(value) for (value,) in found] == [compared(name)(value) for value in landing]


def compared(name: str) -> Callable[[Any], Any]:
    """How values of a type are compared: JSON by its content, 4-byte floats as such, moments in UTC."""

    def same(value: Any) -> Any:
        match name:
            case "float4":
                return as_float4(value)
            case "json" | "jsonb":
                return json.loads(value, parse_int=Decimal, parse_float=Decimal)
            case "vector":
                return [as_float4(element) for element in (json.loads(value) if isinstance(value, str) else value)]
            case "timestamptz":
                return value.replace(tzinfo=None)
        return value

    return same


# -- numbers -----------------------------------------------------------------------------------------------------------


@given(
    value=st.one_of(finite_floats(), integers()),
    precision=st.one_of(st.integers(1, 20), st.integers(1, 1000)),
    scale=st.one_of(st.integers(-3, 20), st.integers(-1000, 1000)),
)
@example(value=0.145, precision=3, scale=2)
@example(value=-9.995, precision=3, scale=2)
@example(value=9.994999999, precision=3, scale=2)
@example(value=2.5, precision=1, scale=0)
@example(value=5e-324, precision=1000, scale=1000)
@on_servers(max_examples=400)
def test_a_number_rounds_in_a_numeric_as_its_shortest_text_does_in_postgresql(
    oracle: Connection, value: float, precision: int, scale: int
) -> None:
    convert = converter("numeric", (precision << 16 | scale & 0x7FF) + 4)
    text = shortest(oracle, value)
    try:
        expected = oracle.execute(f"SELECT %s::text::numeric({precision},{scale})", [text]).fetchone()
    except psycopg.errors.NumericValueOutOfRange:
        with pytest.raises(Misfit) as caught:
            convert(value)
        assert caught.value.sqlstate == "22003"
    else:
        assert expected is not None
        assert convert(value) == expected[0]


@given(value=st.one_of(finite_floats(), integers()))
@example(value=5.0)
@example(value=-0.0)
@example(value=1e22)
@on_servers(max_examples=100)
def test_a_numeric_without_limits_holds_the_digits_of_the_shortest_text_and_no_other(
    oracle: Connection, value: float
) -> None:
    (expected,) = oracle.execute("SELECT %s::text::numeric::text", [shortest(oracle, value)])
    field = encoder("numeric")(converter("numeric")(value))
    assert copied(oracle, ["numeric"], [[field]], "{}::text") == [list(expected)]


@pytest.mark.parametrize("type_", ["smallint", "integer", "bigint"])
@given(value=st.one_of(integers(), finite_floats()))
@on_servers(max_examples=60)
def test_an_integer_is_taken_or_rejected_for_the_reason_that_postgresql_gives(
    oracle: Connection, type_: str, value: float
) -> None:
    landed, rejected = outcome(partial(convert_to, oracle, type_), value)
    if rejected is None:
        assert landed == value
    elif value == int(value):
        assert rejection(oracle, type_, str(int(value))) == rejected.sqlstate
    else:
        assert rejected.sqlstate == "22P02"
        assert rejection(oracle, type_, str(value)) is not None


@pytest.mark.parametrize("type_", ["real", "double precision"])
@given(value=st.one_of(finite_floats(), integers()))
@on_servers(max_examples=60)
def test_a_float_is_taken_or_rejected_as_postgresql_does(oracle: Connection, type_: str, value: float) -> None:
    landed, rejected = outcome(partial(convert_to, oracle, type_), value)
    if rejected:
        assert rejection(oracle, type_, repr(value)) == rejected.sqlstate == "22003"
    else:
        exact = oracle.execute(f"SELECT %s::text::{type_}::double precision", [repr(value)])
        assert exact.fetchone() == (landed,)


@pytest.mark.parametrize("type_", ["int2", "int4", "int8", "float4", "float8", "numeric"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_out_of_range_for_every_number(type_: str, value: float) -> None:
    assert misfit(type_, value).sqlstate == "22003"


def test_a_text_or_a_boolean_is_no_number() -> None:
    for value in ("1", True):
        for type_ in ("int2", "int4", "int8", "float4", "float8", "numeric"):
            assert misfit(type_, value).sqlstate == "2200G"


# -- texts and ids -----------------------------------------------------------------------------------------------------


@given(value=texts())
def test_a_text_lands_as_it_is_but_for_nul_characters_and_lone_surrogates(value: str) -> None:
    if sendable(value) == value:
        assert converter("text")(value) == value
    else:
        rejected = misfit("text", value)
        assert (rejected.sqlstate, rejected.substitute) == ("22021", sendable(value))


@given(value=texts(), length=st.integers(1, 10))
def test_a_varchar_counts_characters_of_what_is_left_and_takes_nothing_longer(value: str, length: int) -> None:
    if len(sendable(value)) > length:
        rejected = misfit("varchar", value, length + 4)
        assert (rejected.sqlstate, rejected.substitute) == ("22001", None)
    elif sendable(value) == value:
        assert converter("varchar", length + 4)(value) == value
    else:
        assert misfit("varchar", value, length + 4).substitute == sendable(value)


@given(value=floats().filter(math.isfinite) | integers() | st.booleans())
@example(value=1e15)
@example(value=1e16)
@example(value=0.0001)
@example(value=0.00001)
@example(value=-0.0)
@on_servers(max_examples=100)
def test_a_number_or_boolean_in_a_text_column_has_the_text_that_postgresql_gives_it(
    oracle: Connection, value: Any
) -> None:
    expected = str(value).lower() if isinstance(value, bool) else shortest(oracle, value)
    assert converter("text")(value) == expected


def test_a_temporal_value_in_a_text_column_is_iso_8601_to_the_nanosecond() -> None:
    moment = neo4j_time.DateTime(2026, 3, 1, 12, 30, 15, 5000)
    assert converter("text")(moment) == "2026-03-01T12:30:15.000005000"
    assert converter("text")(neo4j_time.Date(2026, 3, 1)) == "2026-03-01"


def test_a_text_is_measured_in_bytes_against_the_limit() -> None:
    assert landing("text", "text", limit=8)("éééé") == "éééé"
    with pytest.raises(Misfit) as caught:
        landing("text", "text", limit=8)("éééé!")
    assert (caught.value.sqlstate, caught.value.substitute) == ("54000", None)
    assert MAX_VALUE_BYTES == 128 << 20


def near_uuids() -> st.SearchStrategy[str]:
    """UUIDs, and what looks like one: hyphens, braces, case, digits and blanks moved, doubled or lost."""

    def disturb(draw: st.DrawFn) -> str:
        text = str(draw(st.uuids()))
        if draw(st.booleans()):
            text = text.replace("-", "")
        if draw(st.booleans()):
            digits = text.replace("-", "")
            ends = [4 * n for n in range(1, 8) if draw(st.booleans())]
            text = "".join(digits[at] + ("-" if at + 1 in ends else "") for at in range(32))
        if draw(st.booleans()):
            text = "{" + text + "}"
        if draw(st.booleans()):
            text = text.upper()
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(text)))
            added = draw(st.sampled_from(["", "-", "{", "}", "g", " ", "\n", "0", "\u0663", "\ufb00"]))
            text = text[:at] + added + text[at + draw(st.integers(0, 1)) :]
        return draw(st.sampled_from(["", "", "", "urn:uuid:", "0x", " "])) + text

    return st.composite(disturb)()


@given(value=near_uuids())
@example(value="")
@on_servers(max_examples=500)
def test_a_uuid_is_what_postgresql_takes_for_one(oracle: Connection, value: str) -> None:
    landed, rejected = outcome(to_uuid, value)
    if rejected:
        assert rejection(oracle, "uuid", value) == rejected.sqlstate
    else:
        assert oracle.execute("SELECT %s::text::uuid", [value]).fetchone() == (landed,)


# -- vectors, lists, documents -----------------------------------------------------------------------------------------


@given(value=st.lists(floats() | integers(), max_size=5))
@on_servers(max_examples=100)
def test_a_vector_is_taken_or_rejected_for_the_reason_that_pgvector_gives(
    oracle: Connection, value: list[float]
) -> None:
    text = "[" + ",".join(map(repr, value)) + "]"
    expected = rejection(oracle, "vector(3)", text)
    if expected is None:
        assert converter("vector", 3)(value) == value
    elif len(value) != 3:
        # No values at all is bad syntax (22P02) or a wrong length, whichever is looked at first.
        assert misfit("vector", value, 3).sqlstate == "22000"
        assert expected in ("22000", "22P02", "22003")
    else:
        assert misfit("vector", value, 3).sqlstate == "22003"
        assert expected in ("22000", "22003", "22P02")


def test_an_empty_vector_is_rejected_also_where_the_column_has_no_length() -> None:
    assert misfit("vector", []).sqlstate == "22000"


def test_a_vector_longer_than_pgvector_takes_is_rejected(oracle: Connection) -> None:
    limit = 16_000
    assert rejection(oracle, "vector", str([0.5] * (limit + 1))) == "54000"
    assert converter("vector")([0.5] * limit) == [0.5] * limit
    assert misfit("vector", [0.5] * (limit + 1)).sqlstate == "54000"


@pytest.mark.parametrize("value", [[1.0, "2", 3.0], [1.0, None, 3.0], ["1", 2.0, 3.0]])
def test_a_vector_with_something_else_than_numbers_in_it_is_of_the_wrong_type(value: list[Any]) -> None:
    assert misfit("vector", value, 3).sqlstate == "2200G"


@given(value=st.lists(texts(), max_size=4))
def test_a_list_of_texts_becomes_a_json_array_of_the_same_texts(value: list[str]) -> None:
    landed, rejected = outcome(landing("_text", "jsonb"), value)
    assert rejected is None or rejected.sqlstate == "22021"
    assert json.loads(landed) == [sendable(text) for text in value]


@given(value=neo4j_values())
@on_servers(max_examples=300)
def test_a_json_document_is_always_valid_and_says_null_where_something_was_lost(oracle: Connection, value: Any) -> None:
    document, _ = outcome(converter("jsonb"), value)
    assert oracle.execute("SELECT %s::text::jsonb::text IS NOT NULL", [document]).fetchone() == (True,)
    assert holds(json.loads(document), value)


def holds(document: Any, value: Any) -> bool:
    """Whether a document is the value: scalars alike, texts without what cannot be sent, null for the rest."""
    if isinstance(value, dict):
        return isinstance(document, dict) and set(document) == {sendable(key) for key in value}
    if isinstance(value, list):
        return len(document) == len(value) and all(map(holds, document, value))
    if isinstance(value, str):
        return bool(document == sendable(value))
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return type(document) is type(value) and bool(document == value)
    if isinstance(value, neo4j_time.DateTime):
        return bool(to_timestamptz(document) == to_timestamptz(value))
    if isinstance(value, neo4j_time.Date | neo4j_time.Time | neo4j_time.Duration):
        return bool(document == value.iso_format())
    if isinstance(value, spatial.Point):
        return bool(document == {"srid": value.srid} | dict(zip("xyz", map(finite_or_null, value), strict=False)))
    if isinstance(value, bytes):
        return bool(document == [byte - 256 if byte > 127 else byte for byte in value])
    if isinstance(value, Vector):
        return bool(document == value.to_native())
    return document is None


def finite_or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- what only a foreign table has: times of day, durations, points, byte arrays, lists --------------------------------


@given(value=st.times(), offset=st.none() | st.integers(-18 * 60, 18 * 60))
@on_servers(max_examples=200)
def test_a_time_of_day_keeps_its_offset_and_is_a_time_only_without_one(
    oracle: Connection, value: time, offset: int | None
) -> None:
    zone = None if offset is None else timezone(timedelta(minutes=offset))
    neo4j_value = neo4j_time.Time(value.hour, value.minute, value.second, value.microsecond * 1000 + 999, zone)
    if offset is None:
        assert converter("time")(neo4j_value) == value == converter("time")(value.isoformat())
    else:
        assert misfit("time", neo4j_value).sqlstate == "2200G"
    if offset and abs(offset) >= 16 * 60:
        assert misfit("timetz", neo4j_value).sqlstate == "22009"
        return
    landed = converter("timetz")(neo4j_value)
    assert (landed.replace(tzinfo=None), landed.utcoffset()) == (value, timedelta(minutes=offset or 0))
    minutes = "extract(timezone_minute FROM t) + 60 * extract(timezone_hour FROM t)"
    query = f"SELECT t::time, {minutes} FROM (SELECT %s::timetz) AS x (t)".encode()
    assert oracle.execute(query, [str(landed)]).fetchone() == (value, offset or 0), "as PostgreSQL reads it"


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [("25:00", "22008"), ("12:60", "22008"), ("noon", "22007"), ("12", "22007"), ("12:00+19:00", "22008")],
)
def test_a_text_that_is_no_time_of_day_is_rejected(text: str, sqlstate: str) -> None:
    assert misfit("timetz", text).sqlstate == sqlstate


@given(
    months=st.integers(-(2**31), 2**31),
    days=st.integers(-(2**31), 2**31),
    seconds=st.integers(-(2**43), 2**43),
    nanoseconds=st.integers(-(10**9) + 1, 10**9 - 1),
)
@example(months=0, days=0, seconds=0, nanoseconds=-1)
@example(months=-1, days=1, seconds=-1, nanoseconds=999)
@on_servers(max_examples=200)
def test_a_duration_keeps_its_parts_whatever_the_interval_style(
    oracle: Connection, months: int, days: int, seconds: int, nanoseconds: int
) -> None:
    value = neo4j_time.Duration(months=months, days=days, seconds=seconds, nanoseconds=nanoseconds)
    total = seconds * 10**9 + nanoseconds
    if max(abs(months), abs(days)) >= 2**31 or abs(total) >= 2**63 * 1000:
        assert misfit("interval", value).sqlstate == "22008"
        return
    landed = converter("interval")(value)
    for style in ("postgres", "sql_standard"):
        oracle.execute(f"SET intervalstyle = {style}")
        row = oracle.execute(
            "SELECT extract(year FROM i) * 12 + extract(month FROM i), extract(day FROM i),"
            " extract(hour FROM i) * 3600000000 + extract(minute FROM i) * 60000000 + extract(microseconds FROM i)"
            " FROM (SELECT %s::interval) AS t (i)",
            [landed],
        ).fetchone()
        assert row == (months, days, (abs(total) // 1000) * (-1 if total < 0 else 1))
    oracle.execute("RESET intervalstyle")


@given(x=floats(), y=floats())
@on_servers(max_examples=100)
def test_a_point_is_one_of_the_plane_with_finite_coordinates(oracle: Connection, x: float, y: float) -> None:
    value = spatial.WGS84Point((x, y))
    if math.isfinite(x) and math.isfinite(y):
        read = oracle.execute("SELECT p[0], p[1] FROM (SELECT %s::point) AS t (p)", [converter("point")(value)])
        assert read.fetchone() == (x, y)
    else:
        assert misfit("point", value).sqlstate == "22003"
    assert misfit("point", spatial.CartesianPoint((x, y, 1.0))).sqlstate == "2200G"


def test_a_list_fits_when_each_of_its_elements_does() -> None:
    assert converter("_int4")([1, 2.0]) == [1, 2]
    assert converter("_date")(["2026-02-03"]) == [date(2026, 2, 3)]
    assert converter("_varchar", 7)(["abc"]) == ["abc"]
    assert converter("_float8")(Vector.from_native([1.0, 2.0], "f32")) == [1.0, 2.0]
    assert converter("_int8")(b"\x00\xff") == [0, -1]
    assert converter("bytea")(bytearray(b"\xff")) == b"\xff"
    for type_, value, sqlstate in (
        ("_int4", [1, "2"], "2200G"),
        ("_int4", [2**31], "22003"),
        ("_int4", [1, None], "22004"),
        ("_int4", 1, "2200G"),
        ("_varchar", ["abcd"], "22001"),
        ("bytea", [1], "2200G"),
        ("interval", "P1D", "2200G"),
    ):
        assert misfit(type_, value, 7 if type_ == "_varchar" else -1).sqlstate == sqlstate


def test_a_vector_of_the_driver_is_a_vector_and_a_document() -> None:
    value = Vector.from_native([0.5, 1.0], "f32")
    assert converter("vector", 2)(value) == [0.5, 1.0]
    assert misfit("vector", value, 3).sqlstate == "22000"
    assert json.loads(converter("jsonb")({"a": [value, neo4j_time.Duration(days=1)]})) == {"a": [[0.5, 1.0], "P1D"]}


def test_the_names_of_types_are_read_as_format_type_writes_them(oracle: Connection) -> None:
    names = {
        type_: type_named(spelling)
        for type_, spelling in oracle.execute(
            "SELECT typname::text, format_type(oid, NULL) FROM pg_type WHERE typname = ANY (%s)",
            [[*_PLAIN, *(f"_{name}" for name in _PLAIN), "vector"]],
        )
    }
    assert len(names) == 2 * len(_PLAIN) + 1
    assert names == {name: name for name in names}
    assert all(map(convertible, names))
    assert not convertible("inet")
    assert not convertible("_inet")


_PLAIN = ["int2", "int4", "int8", "float4", "float8", "numeric", "bool", "uuid", "text", "varchar", "bpchar", "bytea"]
_PLAIN += ["date", "timestamp", "timestamptz", "time", "timetz", "interval", "point"]


# -- what a person reads -----------------------------------------------------------------------------------------------


def test_a_moment_in_a_zone_that_python_does_not_know_is_shown_as_neo4j_has_it() -> None:
    value = broken(b"i", 1, 2, "Mars/Olympus")
    value.error = pytz.UnknownTimeZoneError("Mars/Olympus")
    assert shown(value) == "datetime({epochSeconds: 1, nanosecond: 2, timezone: 'Mars/Olympus'})"
    for type_ in ("text", "date", "timestamp", "timestamptz"):
        assert (misfit(type_, value).sqlstate, misfit(type_, value).reason) == ("22023", "unknown time zone")
    assert misfit("int8", value).reason == "expected a number, found a DATETIME"
    with pytest.raises(KeyError):
        moment(1, 2, "Mars/Olympus")


def test_a_list_with_a_broken_value_in_it_is_a_list() -> None:
    inner = broken(b"D", 10**7)
    value = BrokenHydrationObject(inner.error, [neo4j_time.Date(2026, 1, 1), inner])  # type: ignore[no-untyped-call]
    assert kind_of(value) == "LIST"
    assert misfit("_date", value).reason == "in a list: date or time out of range (years 1 to 9999)"
    assert json.loads(misfit("jsonb", value).substitute) == ["2026-01-01", None]
    assert shown(value).startswith("[date('2026-01-01'), date('+29")


@given(value=neo4j_values())
def test_the_offending_value_is_shown_cut_and_sendable(value: Any) -> None:
    assert len(shown(value)) <= 201
    assert isinstance(value, str) or " object at 0x" not in shown(value)
    assert sendable(shown(value)) == shown(value)


def test_a_long_value_is_cut_and_a_long_list_says_how_long_it_is() -> None:
    assert shown("x" * 1000) == "x" * 200 + "…"
    assert shown([0.5] * 1536) == "[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, … 1536 elements]"
    assert shown("a\0b\ud83d") == "a\ufffdb\ufffd"
    assert shown(EMOJI) == EMOJI


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "BOOLEAN"),
        (1, "INTEGER"),
        (1.5, "FLOAT"),
        ("a", "STRING"),
        (b"a", "BYTES"),
        ([1], "LIST"),
        ({"a": 1}, "MAP"),
        (spatial.CartesianPoint((1, 2)), "POINT"),
        (neo4j_time.Duration(days=1), "DURATION"),
        (neo4j_time.Date(2026, 1, 1), "DATE"),
    ],
)
def test_a_wrong_type_is_named_as_neo4j_names_it(value: Any, name: str) -> None:
    assert kind_of(value) == name
    if name != "STRING":
        article = "an" if name == "INTEGER" else "a"
        assert misfit("uuid", value).reason == f"expected a UUID, found {article} {name}"


# -- from a foreign column's type to the table's -----------------------------------------------------------------------


@pytest.mark.parametrize("foreign", ["int2", "int8", "float4", "numeric", "text"])
def test_the_foreign_columns_type_never_narrows_what_lands(foreign: str) -> None:
    assert landing(foreign, "numeric", CONFIDENCE)(0.145) == Decimal("0.15")
    assert landing(foreign, "numeric")(2**53 + 1) == Decimal(2**53 + 1)
    assert landing(foreign, "int8")(2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize(
    ("target", "text", "landed"),
    [
        ("int2", "2", 2),
        ("int2", "-2.0", -2),
        ("int2", "3e4", 30000),
        ("int2", "32768", "22003"),
        ("int2", "2.5", "22P02"),
        ("int8", "9223372036854775807", 2**63 - 1),
        ("float8", ".5", 0.5),
        ("float8", "1e400", "22003"),
        ("float8", "1e-400", "22003"),
        ("float8", "1e99999", "22003"),
        ("float4", "1e39", "22003"),
        ("numeric", "007.250", Decimal("7.250")),
        ("numeric", "1" * 1001, "22P02"),
        ("bool", "true", True),
        ("bool", "yes", "2200G"),
        *(
            ("numeric", text, "22P02")
            for text in (" 2", "2 ", "1_000", "0x1F", "1,5", "\u0663", "\u00b2", "NaN", "inf", "")
        ),
        *(("numeric", text, "22P02") for text in ("-", "$2", "1e999999999", "true", ".", "2\n")),
    ],
)
def test_a_number_in_a_text_is_a_number_where_the_foreign_column_is_a_text(target: str, text: str, landed: Any) -> None:
    found, rejected = outcome(landing("text", target), text)
    assert (rejected.sqlstate if rejected else found) == landed
    assert misfit(target, text).sqlstate == "2200G"


def test_what_is_no_number_is_none_behind_a_text_column_either() -> None:
    for value in (True, neo4j_time.Date(2026, 1, 1), [1]):
        assert outcome(landing("text", "int4"), value)[1] is not None
    assert landing("text", "int4")(7.0) == 7


def test_a_type_that_has_no_conversion_is_rejected_by_name() -> None:
    with pytest.raises(KeyError, match="inet"):
        converter("inet")
