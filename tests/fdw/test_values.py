"""Flows in: whatever a graph may hold, for every type of a column.
Flows out: that each conversion gives what PostgreSQL itself would, or a Misfit that says why not.
"""

import json
import math
import zoneinfo
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
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
from neo4j_deals.graph.hydration import driver_datetime, moment
from neo4j_deals.mapping.types import convertible, type_named
from neo4j_deals.moment import zone_named
from neo4j_deals.rows.copy_format import encoder
from neo4j_deals.rows.values import (
    MAX_VALUE_BYTES,
    Misfit,
    converter,
    kind_of,
    landing,
    shown,
    to_timestamptz,
    to_uuid,
)
from support.copied import convert_to, copied
from support.database import Connection
from support.graph import Graph
from support.properties import (
    EMOJI,
    as_float4,
    broken,
    finite_floats,
    floats,
    integers,
    neo4j_dates,
    neo4j_datetimes,
    neo4j_values,
    on_servers,
    sendable,
    texts,
)

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


def refusal(oracle: Connection, type_: str, text: str) -> str | None:
    """The SQLSTATE with which PostgreSQL refuses a text for a type, None where it takes it."""
    try:
        oracle.execute(f"SELECT %s::text::{type_}", [text])
    except psycopg.Error as error:
        return error.sqlstate
    return None


def shortest(oracle: Connection, value: float) -> str:
    """A number's shortest text, by PostgreSQL. Above 2^54 its float8out may write a digit more than the shortest."""
    if type(value) is float and abs(value) >= 2**54:
        return repr(value)
    native = "bigint" if type(value) is int else "double precision"
    found = oracle.execute(f"SELECT %s::{native}::text", [value]).fetchone()
    assert found is not None
    return str(found[0])


def outcome(convert: Callable[[Any], Any], value: Any) -> tuple[Any, Misfit | None]:
    """What lands, and why it is not the value itself."""
    try:
        return convert(value), None
    except Misfit as refused:
        return refused.substitute, refused


def misfit(type_name: str, value: Any, modifier: int = -1) -> Misfit:
    with pytest.raises(Misfit) as caught:
        converter(type_name, modifier)(value)
    return caught.value


# -- for every type ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [*TYPES, "text[]"])
@given(value=neo4j_values())
@settings(deadline=None)
def test_any_value_is_converted_or_refused_with_a_sqlstate_of_the_list_and_a_reason(type_: str, value: Any) -> None:
    convert = converter("_text") if type_ == "text[]" else converter(*TYPES[type_])
    landed, refused = outcome(convert, value)
    if refused is None:
        assert landed is not None
    else:
        assert refused.sqlstate in SQLSTATES
        assert refused.reason
        assert refused.reason.isprintable()


@pytest.mark.parametrize("type_", TYPES)
@given(values=st.lists(neo4j_values(), min_size=1, max_size=40))
@on_servers(max_examples=20)
def test_what_is_accepted_and_what_is_left_of_a_refused_text_enters_the_table_unchanged(
    oracle: Connection, type_: str, values: list[Any]
) -> None:
    name, modifier = TYPES[type_]
    convert, encode = converter(name, modifier), encoder(name, modifier)
    landing = [landed for value in values if (landed := outcome(convert, value)[0]) is not None]
    form = {"timestamp with time zone": "({} AT TIME ZONE 'UTC')", "json": "{}::text", "jsonb": "{}::text"}
    found = copied(oracle, [type_], [[encode(value)] for value in landing], form.get(type_, "{}"))
    assert [compared(name)(value) for (value,) in found] == [compared(name)(value) for value in landing]


def compared(name: str) -> Callable[[Any], Any]:
    """How a value of a type is told to be the same: JSON by its content, 4-byte floats as such, moments in UTC."""

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
def test_an_integer_is_taken_or_refused_for_the_reason_that_postgresql_gives(
    oracle: Connection, type_: str, value: float
) -> None:
    landed, refused = outcome(partial(convert_to, oracle, type_), value)
    if refused is None:
        assert landed == value
    elif value == int(value):
        assert refusal(oracle, type_, str(int(value))) == refused.sqlstate
    else:
        assert refused.sqlstate == "22P02"
        assert refusal(oracle, type_, str(value)) is not None


@pytest.mark.parametrize("type_", ["real", "double precision"])
@given(value=st.one_of(finite_floats(), integers()))
@on_servers(max_examples=60)
def test_a_float_is_taken_or_refused_as_postgresql_does(oracle: Connection, type_: str, value: float) -> None:
    landed, refused = outcome(partial(convert_to, oracle, type_), value)
    if refused:
        assert refusal(oracle, type_, repr(value)) == refused.sqlstate == "22003"
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
        refused = misfit("text", value)
        assert (refused.sqlstate, refused.substitute) == ("22021", sendable(value))


@given(value=texts(), length=st.integers(1, 10))
def test_a_varchar_counts_characters_of_what_is_left_and_takes_nothing_longer(value: str, length: int) -> None:
    if len(sendable(value)) > length:
        refused = misfit("varchar", value, length + 4)
        assert (refused.sqlstate, refused.substitute) == ("22001", None)
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
    landed, refused = outcome(to_uuid, value)
    if refused:
        assert refusal(oracle, "uuid", value) == refused.sqlstate
    else:
        assert oracle.execute("SELECT %s::text::uuid", [value]).fetchone() == (landed,)


# -- dates and times ---------------------------------------------------------------------------------------------------


def iso_texts() -> st.SearchStrategy[str]:
    """ISO 8601 with whatever offset, well formed and not quite; at most microseconds."""
    days = st.one_of(
        st.dates().map(date.isoformat),
        st.builds(
            "{:04}-{:02}-{:02}".format,
            st.sampled_from([0, 1, 2000, 2023, 9999]),
            st.integers(0, 13),
            st.integers(0, 32),
        ),
    )
    seconds = st.builds("{:02}:{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
    fractions = st.one_of(st.just(""), st.integers(0, 999_999).map(lambda n: "." + str(n)))
    clock = st.one_of(seconds.map(lambda text: text[:5]), st.builds(str.__add__, seconds, fractions))
    # PostgreSQL knows offsets up to 15:59, Neo4j up to 18:00: those between are another test's.
    signs, hours = st.sampled_from("+-"), st.integers(0, 15) | st.integers(19, 99)
    minutes = st.integers(0, 70)
    offsets = st.one_of(
        st.sampled_from(["", "Z", "z", "+00", "+01:00[Europe/Berlin]", "Z[UTC]", "[UTC]", "[Etc/GMT]"]),
        st.builds("{}{:02}".format, signs, hours),
        st.builds("{}{:02}:{:02}".format, signs, hours, minutes),
        st.builds("{}{:02}{:02}".format, signs, hours, minutes),
        st.builds("{}{:02}:{:02}:{:02}".format, signs, hours, minutes, minutes),
    )
    return st.builds(lambda *parts: "".join(parts), days, st.sampled_from("Tt "), clock, offsets)


@given(text=iso_texts())
@example(text="2026-01-01T00:00:00+99:99")
@example(text="2026-01-01T00:00:00+\u0660\u0661:00")
@example(text="\u0662\u0660\u0662\u0666-01-01T00:00:00Z")
@on_servers(max_examples=500)
def test_an_iso_text_is_the_moment_that_postgresql_reads_or_is_refused_as_there(oracle: Connection, text: str) -> None:
    as_postgresql_takes_it = text.partition("[")[0]
    expected = refusal(oracle, "timestamptz", as_postgresql_takes_it)
    moment, refused = outcome(to_timestamptz, text)
    if refused:
        assert refused.sqlstate in ("22007", "22008")
        if expected is None:
            year = oracle.execute(
                "SELECT extract(year FROM %s::text::timestamptz)", [as_postgresql_takes_it]
            ).fetchone()
            assert year is not None
            assert not 1 <= year[0] <= 9999
    else:
        assert expected is None
        same = oracle.execute("SELECT %s::text::timestamptz = %s::timestamptz", [as_postgresql_takes_it, moment])
        assert same.fetchone() == (True,)
        assert moment.tzinfo is UTC


@given(moment=neo4j_datetimes())
def test_a_temporal_value_is_its_moment_in_utc_floored_to_the_microsecond(moment: Any) -> None:
    native = moment.to_native()  # without what is finer than a microsecond
    assert to_timestamptz(moment) == (native if native.tzinfo else native.replace(tzinfo=UTC))
    assert to_timestamptz(moment).tzinfo is UTC


@given(moment=neo4j_datetimes() | neo4j_dates())
@example(moment=neo4j_time.DateTime.from_native(pytz.timezone("America/St_Johns").localize(datetime(2026, 3, 1))))
def test_a_temporal_value_in_a_text_column_is_the_same_moment_in_iso_8601(moment: Any) -> None:
    assert to_timestamptz(converter("text")(moment)) == to_timestamptz(moment)


@given(
    seconds=st.integers(-(10**11), 3 * 10**11),
    nanoseconds=st.integers(0, 999_999_999) | st.sampled_from([0, 999, 1000, 123_456_000]),
    offset=st.none() | st.integers(-1080, 1080).map(lambda minutes: minutes * 60),  # the driver rounds the seconds
)
@example(seconds=0, nanoseconds=0, offset=0)
@example(seconds=-1, nanoseconds=999_999_999, offset=-12_600)
def test_a_moment_is_in_every_column_what_the_drivers_own_datetime_is(
    seconds: int, nanoseconds: int, offset: int | None
) -> None:
    def outcome(value: Any, type_name: str) -> Any:
        try:
            return converter(type_name)(value)
        except Misfit as misfit:
            return misfit.sqlstate, misfit.reason, misfit.substitute

    try:
        own = driver_datetime(seconds, nanoseconds, offset)
    except (ValueError, OverflowError):
        with pytest.raises((ValueError, OverflowError)):  # the driver's stand-in for a broken value comes of that
            moment(seconds, nanoseconds, offset)
        return
    lean = moment(seconds, nanoseconds, offset)
    for type_name in ("timestamptz", "timestamp", "date", "text", "jsonb", "int8", "float8", "bool", "uuid", "time"):
        assert outcome(lean, type_name) == outcome(own, type_name)
    assert outcome([lean], "_timestamptz") == outcome([own], "_timestamptz")
    assert (kind_of(lean), shown(lean)) == (kind_of(own), shown(own))


def test_an_offset_keeps_its_seconds() -> None:
    lean = moment(-2_208_988_800, 0, 1172)  # Amsterdam before 1937
    assert converter("text")(lean) == "1900-01-01T00:19:32.000000000+00:19:32"
    assert to_timestamptz(converter("text")(lean)) == to_timestamptz(lean)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns"])
def test_a_moment_in_a_named_zone_is_in_every_column_what_the_drivers_own_is(zone: str) -> None:
    lean, own = (make(1_767_225_600, 5, zone) for make in (moment, driver_datetime))
    for type_name in ("timestamptz", "timestamp", "date", "text", "jsonb"):
        assert converter(type_name)(lean) == converter(type_name)(own)


def test_a_zone_of_the_graph_has_the_offset_that_neo4j_gives_it(graph: Graph) -> None:
    spellings = [
        "2026-07-01T12:00[Europe/Berlin]",
        "2026-12-01T12:00:00.123456789[America/New_York]",
        "1900-06-01T00:00[Europe/Amsterdam]",
        "2026-12-01T12:00[America/St_Johns]",
        "2026-10-25T02:30+02:00[Europe/Berlin]",
        "2026-10-25T02:30+01:00[Europe/Berlin]",
        "2026-03-01T00:00-18:00",
        "2026-03-01T00:00-03:30",
        "2050-07-01T00:30[Europe/Berlin]",  # the driver's own data end in 2037
        "2026-03-29T02:30[Europe/Berlin]",  # left out by the clock
        "2026-10-25T02:30[Europe/Berlin]",  # there twice
        "2026-10-04T02:15[Australia/Lord_Howe]",  # half an hour is left out
        "2026-04-05T01:45[Australia/Lord_Howe]",
        "2011-12-30T12:00[Pacific/Apia]",  # a whole day is left out
        "2026-01-01T10:00[UTC]",
        "2026-01-01T10:00[Etc/GMT+12]",
        "0001-06-01T00:00[Asia/Tokyo]",
    ]
    asked = (
        "UNWIND $texts AS given WITH given, datetime(given) AS d"
        " RETURN given, d AS moment, toString(d) AS text, d.epochSeconds AS seconds, d.nanosecond AS nanoseconds,"
        " toString(date(d)) AS day"
    )
    for found in graph.run(asked, texts=spellings):
        since_1970 = timedelta(seconds=found["seconds"], microseconds=found["nanoseconds"] // 1000)
        expected = datetime(1970, 1, 1, tzinfo=UTC) + since_1970
        assert to_timestamptz(found["moment"]) == to_timestamptz(found["text"]) == expected
        assert to_timestamptz(found["given"]) == expected
        if "[" in found["given"]:
            lean = moment(found["seconds"], found["nanoseconds"], found["given"].rpartition("[")[2].rstrip("]"))
            assert to_timestamptz(lean) == expected
            assert converter("date")(lean) == date.fromisoformat(found["day"])
        assert converter("date")(found["text"]) == date.fromisoformat(found["day"])


@pytest.mark.parametrize(
    "zone",
    ["Mars/Olympus", "Europe", "localtime", "posixrules", "right/UTC", "../zoneinfo/UTC", "/etc/passwd", "\0", "UTC "],
)
def test_a_text_in_an_unknown_zone_is_a_misfit_and_no_other_moment(zone: str) -> None:
    for type_ in ("timestamptz", "timestamp", "date"):
        assert misfit(type_, f"2026-01-01T10:00:00[{zone}]").sqlstate == "22023"
    assert converter("timestamptz")(f"2026-01-01T10:00:00+01:00[{zone}]") == datetime(2026, 1, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-01-01[Europe/Berlin]", "2026-01-01T10:00[]", "10:00[Europe/Berlin]"])
def test_a_zone_without_a_moment_to_resolve_it_by_is_no_date(text: str) -> None:
    for type_ in ("timestamptz", "timestamp", "date", "time", "timetz"):
        assert misfit(type_, text).sqlstate == "22007"


def test_the_zones_are_the_packages_own_whatever_the_server_has(monkeypatch: pytest.MonkeyPatch) -> None:
    zone_named.cache_clear()
    monkeypatch.setattr(zoneinfo, "TZPATH", ())
    assert to_timestamptz("2026-07-01T10:00:00[Europe/Berlin]") == datetime(2026, 7, 1, 8, tzinfo=UTC)


def test_a_time_without_an_offset_is_utc_and_a_date_is_its_midnight() -> None:
    assert to_timestamptz("2026-03-01T12:00:00") == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert to_timestamptz("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)
    assert to_timestamptz(neo4j_time.DateTime(2026, 3, 1, 12)) == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert to_timestamptz(neo4j_time.Date(2026, 3, 1)) == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("clock", ["2026-01-01T00:00:00", "1969-12-31T23:59:59"])
@pytest.mark.parametrize("fraction", [".1234567", ",123456999", ".123456999999999999"])
def test_what_is_finer_than_a_microsecond_is_cut_off_and_never_rounded_up(clock: str, fraction: str) -> None:
    assert to_timestamptz(f"{clock}{fraction}Z") == datetime.fromisoformat(f"{clock}.123456Z")


@given(value=neo4j_datetimes() | neo4j_dates())
@example(value=neo4j_time.DateTime(1, 1, 1, 0, 0, 0, 0, tzinfo=pytz.FixedOffset(60)))
@example(value=neo4j_time.DateTime(9999, 12, 31, 23, 59, 59, 0, tzinfo=pytz.FixedOffset(-60)))
def test_a_date_column_takes_the_day_as_written_in_the_values_own_zone(value: Any) -> None:
    day = date(value.year, value.month, value.day)
    assert converter("date")(value) == converter("date")(converter("text")(value)) == day
    assert converter("_date")([value]) == [day]


def test_a_text_with_an_offset_is_its_day_and_elsewhere_its_moment() -> None:
    assert converter("date")("2026-10-01T00:00:00+02:00") == date(2026, 10, 1)
    assert converter("date")("2026-11-30T23:30:00-05:00") == date(2026, 11, 30)
    assert converter("timestamp")("2026-11-30T23:30:00-05:00") == datetime(2026, 12, 1, 4, 30)


@pytest.mark.parametrize(
    ("value", "sqlstate"),
    [
        ("next week", "22007"),
        ("", "22007"),
        ("2026-02-30", "22008"),
        ("0000-01-01", "22008"),
        ("2026-01-01T24:00:01", "22008"),
        ("2026-01-01T00:00:00+18:01", "22008"),
        (broken(b"I", 253_402_300_800, 0, 0), "22008"),
        (20260301, "2200G"),
        (neo4j_time.Time(12, 0), "2200G"),
        (neo4j_time.Duration(days=1), "2200G"),
    ],
)
def test_an_unreadable_date_and_a_year_out_of_range_are_told_apart(value: Any, sqlstate: str) -> None:
    for type_ in ("date", "timestamp", "timestamptz"):
        assert misfit(type_, value).sqlstate == sqlstate


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_moment_out_of_range_has_a_day_all_the_same(text: str) -> None:
    assert converter("date")(text) == date.fromisoformat(text[:10])
    for type_ in ("timestamp", "timestamptz"):
        assert misfit(type_, text).sqlstate == "22008"


# -- vectors, lists, documents -----------------------------------------------------------------------------------------


@given(value=st.lists(floats() | integers(), max_size=5))
@on_servers(max_examples=100)
def test_a_vector_is_taken_or_refused_for_the_reason_that_pgvector_gives(
    oracle: Connection, value: list[float]
) -> None:
    text = "[" + ",".join(map(repr, value)) + "]"
    expected = refusal(oracle, "vector(3)", text)
    if expected is None:
        assert converter("vector", 3)(value) == value
    elif len(value) != 3:
        # No values at all is bad syntax (22P02) or a wrong length, whichever is looked at first.
        assert misfit("vector", value, 3).sqlstate == "22000"
        assert expected in ("22000", "22P02", "22003")
    else:
        assert misfit("vector", value, 3).sqlstate == "22003"
        assert expected in ("22000", "22003", "22P02")


def test_an_empty_vector_is_refused_also_where_the_column_has_no_length() -> None:
    assert misfit("vector", []).sqlstate == "22000"


def test_a_vector_longer_than_pgvector_takes_is_refused(oracle: Connection) -> None:
    limit = 16_000
    assert refusal(oracle, "vector", str([0.5] * (limit + 1))) == "54000"
    assert converter("vector")([0.5] * limit) == [0.5] * limit
    assert misfit("vector", [0.5] * (limit + 1)).sqlstate == "54000"


@pytest.mark.parametrize("value", [[1.0, "2", 3.0], [1.0, None, 3.0], ["1", 2.0, 3.0]])
def test_a_vector_with_something_else_than_numbers_in_it_is_of_the_wrong_type(value: list[Any]) -> None:
    assert misfit("vector", value, 3).sqlstate == "2200G"


@given(value=st.lists(texts(), max_size=4))
def test_a_list_of_texts_becomes_a_json_array_of_the_same_texts(value: list[str]) -> None:
    landed, refused = outcome(landing("_text", "jsonb"), value)
    assert refused is None or refused.sqlstate == "22021"
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
def test_a_text_that_is_no_time_of_day_is_refused(text: str, sqlstate: str) -> None:
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
        assert (misfit(type_, value).sqlstate, misfit(type_, value).reason) == ("22023", "an unknown time zone")
    assert misfit("int8", value).reason == "a DATETIME where a number is due"
    with pytest.raises(KeyError):
        moment(1, 2, "Mars/Olympus")


def test_a_list_with_a_broken_value_in_it_is_a_list() -> None:
    inner = broken(b"D", 10**7)
    value = BrokenHydrationObject(inner.error, [neo4j_time.Date(2026, 1, 1), inner])  # type: ignore[no-untyped-call]
    assert kind_of(value) == "LIST"
    assert misfit("_date", value).reason == "in a list: a date or time out of range (years 1 to 9999)"
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
        assert misfit("uuid", value).reason == f"{article} {name} where a UUID is due"


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
    found, refused = outcome(landing("text", target), text)
    assert (refused.sqlstate if refused else found) == landed
    assert misfit(target, text).sqlstate == "2200G"


def test_what_is_no_number_is_none_behind_a_text_column_either() -> None:
    for value in (True, neo4j_time.Date(2026, 1, 1), [1]):
        assert outcome(landing("text", "int4"), value)[1] is not None
    assert landing("text", "int4")(7.0) == 7


def test_a_type_that_has_no_conversion_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="inet"):
        converter("inet")
