"""Flows in: hypothesis. Flows out: settings for property tests on servers, and the values that a graph may hold."""

import struct
import sys
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytz  # type: ignore[import-untyped]
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from neo4j import spatial
from neo4j import time as neo4j_time
from neo4j._codec.hydration import BrokenHydrationObject
from neo4j._codec.packstream import Structure
from neo4j.vector import Vector

EMOJI = "👩‍👩‍👧‍👦🇺🇦"
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe")


def on_servers(max_examples: int) -> settings:
    """For tests that ask a server: the fixtures are read-only there, and a first connection takes its time."""
    return settings(
        max_examples=max_examples,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def texts(max_size: int = 40) -> st.SearchStrategy[str]:
    """Texts with everything in them: NUL characters, lone surrogates, emoji, quotes, line breaks."""
    nasty = st.sampled_from(["", "\0", "\ud83d", "\udfff", EMOJI, "'; DROP TABLE x; --", "\\u0060", "`", " \t\n", "İß"])
    anything = st.text(st.characters(exclude_categories=()), max_size=max_size)
    return st.one_of(anything, nasty, st.builds(str.__add__, anything, nasty)).map(lambda text: text[:max_size])


def sendable(text: str) -> str:
    """A text without what no server takes: NUL characters and lone surrogates."""
    return "".join(character for character in text if character != "\0" and not "\ud800" <= character <= "\udfff")


def integers() -> st.SearchStrategy[int]:
    """INTEGER: 64 bits, the bounds of the smaller types among them."""
    bounds = [sign * (1 << bits) + step for bits in (0, 15, 31, 53) for sign in (1, -1) for step in (-1, 0, 1)]
    return st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from(bounds), st.integers(-1000, 1000))


def finite_floats() -> st.SearchStrategy[float]:
    """FLOAT without NaN and infinity: any, and many of those that rounding to some decimals decides."""
    shares = st.builds(lambda thousandths: thousandths / 1000, st.integers(-20_000, 20_000))
    amounts = st.builds(lambda mills: mills / 1000, st.integers(-(10**17), 10**17))
    bounds = st.sampled_from(
        [0.145, 9.994999, 9.995, 1e13, 1e15, 1e16, 1e22, 5e-324, sys.float_info.max, -0.0, 3.5e38, 2.5]
    )
    return st.one_of(st.floats(allow_nan=False, allow_infinity=False), shares, amounts, bounds)


def floats() -> st.SearchStrategy[float]:
    """FLOAT, NaN and infinity too."""
    return st.one_of(finite_floats(), st.sampled_from([float("nan"), float("inf"), float("-inf")]))


def float4s() -> st.SearchStrategy[float]:
    """What a 4-byte float holds exactly."""
    return st.floats(width=32, allow_nan=False, allow_infinity=False)


def as_float4(value: float) -> float:
    """The nearest 4-byte float."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _nanoseconds(value: Any, nanoseconds: int) -> Any:
    return value.replace(nanosecond=nanoseconds)


def neo4j_datetimes() -> st.SearchStrategy[Any]:
    """ZONED DATETIME with an offset or a zone, and LOCAL DATETIME; to the nanosecond, from year 1 to 9999."""
    # The driver makes whole minutes of an offset; the moment is right all the same.
    offsets = st.integers(-18 * 60, 18 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
    local = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
    zoned = st.builds(
        lambda moment, zone: pytz.timezone(zone).localize(moment),
        st.datetimes(datetime(1800, 1, 1), datetime(2200, 1, 1)),
        st.sampled_from(ZONES),
    )
    any_native = st.one_of(local, st.builds(lambda moment, zone: moment.replace(tzinfo=zone), local, offsets), zoned)
    native = any_native.map(neo4j_time.DateTime.from_native)
    return st.builds(_nanoseconds, native, st.integers(0, 999_999_999))


def neo4j_dates() -> st.SearchStrategy[Any]:
    """DATE, from year 1 to 9999."""
    return st.dates(date(1, 1, 1), date(9999, 12, 31)).map(neo4j_time.Date.from_native)


def broken(tag: bytes, *fields: Any) -> Any:
    """The driver's stand-in for a temporal value that Python cannot hold: a year past 9999."""
    raw = Structure(tag, *fields)
    return BrokenHydrationObject(ValueError("year is out of range"), raw)  # type: ignore[no-untyped-call]


def neo4j_times() -> st.SearchStrategy[Any]:
    """TIME."""
    return st.times().map(neo4j_time.Time.from_native)


def scalars() -> st.SearchStrategy[Any]:
    """Every scalar that the driver may hand over, the unusable ones too."""
    return st.one_of(
        texts(),
        integers(),
        floats(),
        st.booleans(),
        st.binary(max_size=8),
        neo4j_datetimes(),
        neo4j_dates(),
        neo4j_times(),
        st.builds(neo4j_time.Duration, months=st.integers(-99, 99), seconds=st.integers(-99, 99)),
        st.builds(lambda x, y: spatial.CartesianPoint((x, y)), floats(), floats()),
        st.builds(lambda x: spatial.WGS84Point((x, x, x)), finite_floats()),
        integers().map(lambda seconds: broken(b"I", seconds, 5, 3600)),
        st.lists(float4s(), min_size=1, max_size=4).map(lambda values: Vector.from_native(values, "f32")),
    )


def neo4j_values() -> st.SearchStrategy[Any]:
    """Scalars, lists of them, and maps."""
    lists = st.one_of(
        *(st.lists(kind, max_size=4) for kind in (texts(), integers(), floats(), st.booleans(), scalars()))
    )
    return st.one_of(scalars(), lists, st.dictionaries(st.text(max_size=5), scalars(), max_size=3))
