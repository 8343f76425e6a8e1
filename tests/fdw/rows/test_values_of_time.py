"""Flows in: dates, times and zones in every form that a graph may hold.
Flows out: that each is the moment, or the day, that PostgreSQL itself would make of it, or a Misfit that says why not.
"""

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import pytz  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st
from neo4j import time as neo4j_time
from neo4j_deals.graph.hydration import driver_datetime, moment
from neo4j_deals.moment import zone_named
from neo4j_deals.rows.shown import kind_of, shown
from neo4j_deals.rows.values import (
    Misfit,
    converter,
    to_timestamptz,
)
from support.database import Connection
from support.graph import Graph
from support.properties import (
    broken,
    neo4j_dates,
    neo4j_datetimes,
    on_servers,
)
from support.values import misfit, outcome, rejection


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
def test_an_iso_text_is_the_moment_that_postgresql_reads_or_is_rejected_as_there(oracle: Connection, text: str) -> None:
    as_postgresql_takes_it = text.partition("[")[0]
    expected = rejection(oracle, "timestamptz", as_postgresql_takes_it)
    moment, rejected = outcome(to_timestamptz, text)
    if rejected:
        assert rejected.sqlstate in ("22007", "22008")
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
def test_an_unreadable_date_and_a_year_out_of_range_are_distinguished(value: Any, sqlstate: str) -> None:
    for type_ in ("date", "timestamp", "timestamptz"):
        assert misfit(type_, value).sqlstate == sqlstate


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_moment_out_of_range_has_a_day_all_the_same(text: str) -> None:
    assert converter("date")(text) == date.fromisoformat(text[:10])
    for type_ in ("timestamp", "timestamptz"):
        assert misfit(type_, text).sqlstate == "22008"
