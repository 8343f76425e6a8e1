"""Flows in: lists of FLOATs as Bolt has them. Flows out: Python's list, and 4-byte floats, by struct and by numpy."""

import math
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neo4j_deals.floats import MARKER, Floats, by_numpy, by_struct
from neo4j_deals.rows.copy_format import ShortVector, Unusual, encoder
from neo4j_deals.rows.values import Misfit, converter
from support.properties import float4s, floats


def packed(numbers: list[float]) -> bytes:
    return b"".join(MARKER + struct.pack(">d", number) for number in numbers)


def lists(element: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    """Of up to 4,096 numbers, of which a few are drawn."""
    return st.builds(
        lambda some, size: (some * (size // len(some) + 1))[:size],
        st.lists(element, min_size=1, max_size=40),
        st.one_of(st.integers(0, 40), st.integers(0, 4096)),
    )


#: At the edges of a 4-byte float: the largest, the last that is rounded down to it, the first that is not; the
#: smallest, and its half, which is rounded to zero.
EDGES = [
    3.4028234663852886e38,
    3.4028235677973362e38,
    3.4028235677973366e38,
    1.401298464324817e-45,
    7.006492321624085e-46,
]


@given(lists(floats()))
@settings(deadline=None)
def test_as_a_list_it_is_what_the_driver_has(numbers: list[float]) -> None:
    value = Floats(packed(numbers))
    assert len(value) == len(numbers)
    assert struct.pack(f"{len(numbers)}d", *value.as_list()) == struct.pack(f"{len(numbers)}d", *numbers)


@given(lists(st.one_of(float4s(), st.floats(-3.4e38, 3.4e38), st.sampled_from([*EDGES[:2], *EDGES[3:]]))))
@settings(deadline=None)
def test_numpy_rounds_as_struct_does(numbers: list[float]) -> None:
    narrowed = by_numpy()
    assert narrowed is not None
    assert narrowed(packed(numbers)) == by_struct(packed(numbers)) == struct.pack(f">{len(numbers)}f", *numbers)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [*EDGES, 1e39, -1e308, math.inf, -math.inf, math.nan, 5e-324])
def test_what_is_out_of_range_is_an_error_or_an_infinity(number: float) -> None:
    narrowed = by_numpy()
    assert narrowed is not None
    (found,) = struct.unpack(">f", narrowed(packed([number])))
    try:
        (due,) = struct.unpack(">f", by_struct(packed([number])))
    except OverflowError:
        due = math.copysign(math.inf, number)
    assert struct.pack(">f", found) == struct.pack(">f", due)


@given(st.one_of(lists(floats()), lists(float4s())).filter(len))
@settings(deadline=None)
def test_a_vector_is_the_same_field_as_of_a_list_the_long_way(numbers: list[float]) -> None:
    short = ShortVector(len(numbers))
    assert field(short, Floats(packed(numbers))) == field(short, numbers)
    convert, encode = converter("vector", len(numbers)), encoder("vector", len(numbers))
    if (found := field(short, numbers)) is not None:
        assert found == encode(convert(numbers))
    else:  # at the latest the long way says what is wrong
        try:
            encode(convert(numbers))
        except Misfit:
            pass
        else:
            assert max(map(abs, numbers)) >= 2.0**127


def field(short: ShortVector, value: Any) -> bytes | None:
    try:
        return short(value)
    except Unusual:
        return None


def test_a_list_of_another_length_takes_the_long_way() -> None:
    with pytest.raises(Unusual):
        ShortVector(3)(Floats(packed([1.0, 2.0])))


def test_without_numpy_struct_does_all() -> None:
    script = (
        "import sys\n"
        "sys.modules['numpy'] = None\n"
        "from neo4j_deals.floats import Floats, by_numpy\n"
        "assert by_numpy() is None\n"
        "assert Floats((b'\\xc1' + bytes(8)) * 40).as_float4() == bytes(160)\n"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
