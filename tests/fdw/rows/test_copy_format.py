"""Flows in: random values of every type.
Flows out: that the hand-written COPY format is psycopg's, pgvector's and a real PostgreSQL's.
"""

import json
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neo4j_deals.rows.copy_format import HEADER, NULL, TRAILER, Unusual, encoder, row, short_uuid
from pgvector import Vector
from psycopg.types import datetime as psycopg_datetime
from psycopg.types import numeric as psycopg_numeric
from psycopg.types.bool import BoolBinaryDumper
from psycopg.types.json import Jsonb, JsonbBinaryDumper
from psycopg.types.string import StrBinaryDumper
from psycopg.types.uuid import UUIDBinaryDumper
from support.copied import copied
from support.database import Connection
from support.properties import EMOJI, as_float4, finite_floats, float4s, integers, on_servers, sendable, texts

YEAR_1, YEAR_9999 = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)


def good_texts() -> st.SearchStrategy[str]:
    return st.one_of(texts().map(sendable), st.just(""), st.just(EMOJI))


def documents() -> st.SearchStrategy[str]:
    return st.recursive(
        st.one_of(st.none(), st.booleans(), integers(), good_texts()),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(good_texts(), inner, max_size=3)),
    ).map(lambda document: json.dumps(document, ensure_ascii=False))


def decimals() -> st.SearchStrategy[Decimal]:
    """Numerics of all shapes: trailing and leading zeros, exponents on either side, negative zero."""
    digits = st.one_of(st.integers(0, 10**40), st.integers(0, 20_000), st.sampled_from([0, 1, 10, 9999, 10_000, 10**8]))
    return st.builds(
        lambda sign, number, exponent: Decimal((sign, tuple(map(int, str(number))), exponent)),
        st.integers(0, 1),
        digits,
        st.integers(-60, 60),
    )


def moments() -> st.SearchStrategy[datetime]:
    bounds = st.sampled_from([YEAR_1, YEAR_9999, datetime(1999, 12, 31, 23, 59, 59, 999_999), datetime(2000, 1, 1)])
    return st.one_of(st.datetimes(YEAR_1, YEAR_9999), bounds)


def days() -> st.SearchStrategy[date]:
    return st.one_of(st.dates(), st.sampled_from([date(1, 1, 1), date(9999, 12, 31), date(1999, 12, 31)]))


def vectors(size: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.one_of(float4s(), st.integers(-1000, 1000)), min_size=size, max_size=size)


def in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def unchanged(value: Any) -> Any:
    return value


# By type as SQL writes it: its name, its modifier, its values, how psycopg or pgvector dump one.
Oracle = Callable[[Any], Any]
TYPES: dict[str, tuple[str, int, st.SearchStrategy[Any], Oracle]] = {
    "text": ("text", -1, good_texts(), StrBinaryDumper(str).dump),
    "varchar(40)": ("varchar", 44, good_texts(), StrBinaryDumper(str).dump),
    "json": ("json", -1, documents(), StrBinaryDumper(str).dump),
    "jsonb": ("jsonb", -1, documents(), lambda text: JsonbBinaryDumper(Jsonb).dump(Jsonb(text, dumps=unchanged))),
    "smallint": ("int2", -1, st.integers(-(1 << 15), (1 << 15) - 1), psycopg_numeric.Int2BinaryDumper(int).dump),
    "integer": ("int4", -1, st.integers(-(1 << 31), (1 << 31) - 1), psycopg_numeric.Int4BinaryDumper(int).dump),
    "bigint": ("int8", -1, integers(), psycopg_numeric.Int8BinaryDumper(int).dump),
    "real": ("float4", -1, float4s(), psycopg_numeric.Float4BinaryDumper(float).dump),
    "double precision": ("float8", -1, finite_floats(), psycopg_numeric.FloatBinaryDumper(float).dump),
    "numeric": ("numeric", -1, decimals(), psycopg_numeric.DecimalBinaryDumper(Decimal).dump),
    "boolean": ("bool", -1, st.booleans(), BoolBinaryDumper(bool).dump),
    "uuid": ("uuid", -1, st.uuids(), UUIDBinaryDumper(UUID).dump),
    "date": ("date", -1, days(), psycopg_datetime.DateBinaryDumper(date).dump),
    "timestamp": ("timestamp", -1, moments(), psycopg_datetime.DatetimeNoTzBinaryDumper(datetime).dump),
    "timestamptz": ("timestamptz", -1, moments().map(in_utc), psycopg_datetime.DatetimeBinaryDumper(datetime).dump),
    "vector(3)": ("vector", 3, vectors(3), lambda value: Vector(value).to_binary()),
    "vector": ("vector", -1, vectors(5), lambda value: Vector(value).to_binary()),
}


@pytest.mark.parametrize("type_", TYPES)
@given(data=st.data())
@settings(deadline=None)
def test_a_field_is_its_length_and_what_psycopg_or_pgvector_dump(type_: str, data: st.DataObject) -> None:
    name, modifier, values, dump = TYPES[type_]
    value = data.draw(values)
    expected = bytes(dump(value))
    if name == "numeric":
        assert significant(encoder(name, modifier)(value)[4:]) == significant(expected)
    else:
        assert encoder(name, modifier)(value) == struct.pack(">i", len(expected)) + expected


def significant(numeric: bytes) -> tuple[int, int, int, tuple[int, ...]]:
    """Sign, dscale, weight and groups, without the groups of zeros at either end, which psycopg may leave."""
    count, weight, sign, scale, *groups = struct.unpack(f">hhHH{(len(numeric) - 8) // 2}H", numeric)
    assert count == len(groups)
    while groups and not groups[-1]:
        groups.pop()
    while groups and not groups[0]:
        groups.pop(0)
        weight -= 1
    return (sign, scale, weight, tuple(groups)) if groups else (0, scale, 0, ())


@given(moment=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), minutes=st.integers(-15 * 60, 15 * 60))
def test_a_time_with_an_offset_is_the_same_moment_in_utc(moment: datetime, minutes: int) -> None:
    offset, encode = timedelta(minutes=minutes), encoder("timestamptz")
    assert encode(moment.replace(tzinfo=timezone(offset))) == encode(in_utc(moment - offset))


@pytest.mark.parametrize("type_", TYPES)
@given(data=st.data())
@on_servers(max_examples=25)
def test_what_is_copied_in_is_what_the_table_holds(oracle: Connection, type_: str, data: st.DataObject) -> None:
    name, modifier, strategy, _ = TYPES[type_]
    values = data.draw(st.lists(st.one_of(st.none(), strategy), min_size=1, max_size=20))
    encode = encoder(name, modifier)
    fields = [[NULL if value is None else encode(value)] for value in values]
    form = {"timestamptz": "({} AT TIME ZONE 'UTC')", "json": "{}::text", "jsonb": "{}::text"}.get(name, "{}")
    form = "{}::real[]" if name == "vector" else form
    found = [value for (value,) in copied(oracle, [type_], fields, form)]
    assert list(map(as_read(name), found)) == list(map(as_read(name), values))


def as_read(name: str) -> Callable[[Any], Any]:
    """How a value of the type is compared: JSON by its content, 4-byte floats as such, moments in UTC."""

    def read(value: Any) -> Any:
        if value is None:
            return None
        if name in ("json", "jsonb"):
            return json.loads(value)
        if name == "float4":
            return as_float4(value)
        if name == "vector":
            return [as_float4(element) for element in value]
        if name == "timestamptz":
            return value.replace(tzinfo=None)
        return value

    return read


@given(values=st.lists(decimals(), min_size=1, max_size=20))
@on_servers(max_examples=25)
def test_a_numeric_keeps_each_digit_and_each_zero_behind_the_point(oracle: Connection, values: list[Decimal]) -> None:
    found = copied(oracle, ["numeric"], [[encoder("numeric")(value)] for value in values], "{}::text")
    # As PostgreSQL reads the same number as a text; its numeric knows no negative zero and no positive exponent.
    expected = oracle.execute("SELECT t::numeric::text FROM unnest(%s::text[]) AS t", [[f"{v:f}" for v in values]])
    assert found == [list(text) for text in expected]


@given(scales=st.permutations([0, 1, 2, 5]), number=st.integers(-50, 50))
def test_a_numeric_keeps_its_zeros_whatever_was_encoded_before(scales: list[int], number: int) -> None:
    values = [Decimal(number).scaleb(scale).quantize(Decimal(1).scaleb(-scale)) for scale in scales]
    assert [struct.unpack(">H", encoder("numeric")(value)[10:12])[0] for value in values] == scales


def test_a_whole_row_of_every_type_and_a_row_of_nulls_arrive(oracle: Connection) -> None:
    sample: dict[str, Any] = {
        "text": "",
        "varchar(40)": EMOJI,
        "json": '{"a": [1, null]}',
        "jsonb": '{"a": "\\n"}',
        "smallint": -32768,
        "integer": 2147483647,
        "bigint": -9223372036854775808,
        "real": -1.5,
        "double precision": 5e-324,
        "numeric": Decimal("-1234567890.0123400"),
        "boolean": True,
        "uuid": UUID("AAAAAAAA-0000-0000-0000-000000000001"),
        "date": date(1, 1, 1),
        "timestamp": YEAR_9999,
        "timestamptz": in_utc(YEAR_1),
        "vector(3)": [1, -0.5, 3.0e38],
        "vector": [0.0],
    }
    fields = [encoder(*TYPES[type_][:2])(value) for type_, value in sample.items()]
    full, empty = copied(oracle, list(sample), [fields, [NULL] * len(sample)], "{}::text")
    assert dict(zip(sample, full, strict=True)) == {
        "text": "",
        "varchar(40)": EMOJI,
        "json": '{"a": [1, null]}',
        "jsonb": '{"a": "\\n"}',
        "smallint": "-32768",
        "integer": "2147483647",
        "bigint": "-9223372036854775808",
        "real": "-1.5",
        "double precision": "5e-324",
        "numeric": "-1234567890.0123400",
        "boolean": "true",
        "uuid": "aaaaaaaa-0000-0000-0000-000000000001",
        "date": "0001-01-01",
        "timestamp": "9999-12-31 23:59:59.999999",
        "timestamptz": "0001-01-01 00:00:00+00",
        "vector(3)": "[1,-0.5,3e+38]",
        "vector": "[0]",
    }
    assert empty == [None] * len(sample)


def test_header_row_and_trailer_are_those_of_the_manual() -> None:
    header = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    assert header == HEADER
    assert row([NULL, encoder("text")("é")]) == b"\0\x02" + b"\xff\xff\xff\xff" + b"\0\0\0\x02\xc3\xa9"
    trailer = b"\xff\xff"
    assert trailer == TRAILER


def test_a_type_without_an_encoder_is_rejected_by_name() -> None:
    with pytest.raises(KeyError, match="inet"):
        encoder("inet")


@given(st.uuids(), st.booleans())
def test_the_short_cut_for_a_uuid_is_the_encoders_own(value: UUID, upper: bool) -> None:
    text = str(value).upper() if upper else str(value)
    assert short_uuid(text) == encoder("uuid")(value)


@given(st.uuids().map(str), st.integers(0, 35), st.sampled_from(" -\t\ng{٣é"))
def test_the_short_cut_for_a_uuid_leaves_what_is_unusual(value: str, place: int, character: str) -> None:
    text = value[:place] + character + value[place + 1 :]
    for other in (text, value.replace("-", ""), f"{{{value}}}", value[:-1], 5, None, [value]):
        if other != value:
            with pytest.raises(Unusual):
                short_uuid(other)
