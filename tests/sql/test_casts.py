"""Flows in: values of every foreign column's type, and sql/functions/10_casts.sql. Flows out: that the casts of the
MERGE by hand give what the reader stages, and NULL for a misfit.
"""

import json
import math
from typing import Any, LiteralString

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from neo4j_deals.sync.statements import cast
from support.copied import staged
from support.database import Connection
from support.properties import finite_floats, integers, neo4j_datetimes, on_servers, sendable, texts

TEXTS = texts().map(sendable)
UUIDS = st.uuids().map(str)
MOMENTS = st.sampled_from(
    [
        "2026-03-01",
        "2026-11-30T23:30:00-05:00",
        "2026-03-01T12:00:00.123456789Z",
        "2026-03-01 12:00",
        "2026-02-30",
        "0001-01-01T00:00:00+01:00",
        "March 1st, 2026",
        "2026-03-01T12:00:00+00:00[UTC]",
        "2026-07-01T00:30:00[Europe/Berlin]",
        "2026-07-01T00:30:00[Mars/Olympus]",
        "now",
        "infinity",
        "",
    ]
)

NUMBERS = ["smallint", "integer", "bigint", "numeric", "numeric(3,2)", "real", "double precision"]
NUMBER_TEXTS = st.one_of(
    integers().map(str),
    finite_floats().map(repr),
    st.sampled_from(["2", "+2", "-0", "2.0", ".5", "5.", "2e3", "1e400", "007", " 2", "NaN", "true", "false", "1_0"]),
)

# By foreign type: what the graph may hold for it, and the types of the table that may take it.
MAPPED: dict[str, tuple[st.SearchStrategy[Any], list[str]]] = {
    "text": (
        st.one_of(TEXTS, UUIDS, UUIDS.map(str.upper), MOMENTS, NUMBER_TEXTS),
        ["text", "varchar", "varchar(5)", "uuid", "date", "timestamp", "timestamptz", "boolean", *NUMBERS],
    ),
    "bigint": (
        integers(),
        ["bigint", "integer", "smallint", "numeric", "numeric(15,2)", "real", "double precision", "text", "varchar(5)"],
    ),
    "double precision": (
        finite_floats().filter(lambda value: abs(value) < 2**54),  # above, float8out is not always the shortest text
        [
            "double precision",
            "real",
            "numeric",
            "numeric(3,2)",
            "numeric(15,2)",
            "smallint",
            "integer",
            "bigint",
            "text",
            "varchar(5)",
        ],
    ),
    "boolean": (st.booleans(), ["boolean", "text", "varchar(5)", "varchar(4)"]),
    "timestamptz": (neo4j_datetimes(), ["timestamptz", "timestamp"]),
    "jsonb": (st.dictionaries(st.text("ab", max_size=2), integers() | st.none()), ["jsonb", "json", "text"]),
    "text[]": (st.lists(TEXTS, max_size=3), ["jsonb", "json"]),
}
PAIRS = [(foreign, target) for foreign, (_, targets) in MAPPED.items() for target in targets]


def quoted(text: str) -> str:
    return f"'{text}'"


def by_hand(oracle: Connection, foreign: str, target: str, value: Any) -> str | None:
    """What the MERGE from the foreign table makes of a value of the foreign column, as text."""
    query: Any = (
        "SELECT format_type(f.atttypid, NULL), f.atttypmod, format_type(t.atttypid, NULL), t.atttypmod,"
        " format_type(t.atttypid, t.atttypmod)"
        " FROM pg_attribute AS f, pg_attribute AS t"
        " WHERE f.attrelid = 'foreign_side'::regclass AND t.attrelid = 'target_side'::regclass"
        " AND f.attnum = 1 AND t.attnum = 1"
    )
    with oracle.transaction(force_rollback=True):
        for side, type_ in (("foreign_side", foreign), ("target_side", target)):
            oracle.execute(f"CREATE TEMPORARY TABLE {side} (c {type_})")
        oracle.execute("INSERT INTO foreign_side VALUES (%s)", [json.dumps(value) if foreign == "jsonb" else value])
        [types] = oracle.execute(query).fetchall()
        expression: Any = cast("s.c", types[0], types[1], types[2], types[3], types[4], quoted)
        oracle.execute(f"INSERT INTO target_side SELECT {expression} FROM foreign_side AS s".encode())
        oracle.execute("SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL timezone = 'UTC'; SET LOCAL extra_float_digits = 1")
        (text,) = oracle.execute("SELECT c::text FROM target_side").fetchone() or (None,)
        return None if text is None else str(text)


@pytest.mark.parametrize(("foreign", "target"), PAIRS)
@given(data=st.data())
@on_servers(max_examples=30)
def test_the_cast_by_hand_gives_what_the_sync_stages(
    oracle: Connection, foreign: str, target: str, data: st.DataObject
) -> None:
    value = data.draw(MAPPED[foreign][0])
    foreign_value = staged(oracle, foreign, foreign, [value])[0] if foreign == "timestamptz" else value
    landed, (expected,) = by_hand(oracle, foreign, target, foreign_value), staged(oracle, foreign, target, [value])
    if foreign in ("jsonb", "text[]") and landed and expected:  # a document: the same, but for blanks
        assert json.loads(landed) == json.loads(expected)
    else:
        assert landed == expected


@pytest.mark.parametrize(
    ("foreign", "target", "value", "landed"),
    [
        ("double precision", "numeric(3,2)", 0.145, "0.15"),
        ("double precision", "numeric(3,2)", 9.995, None),
        ("double precision", "numeric(3,2)", -9.994, "-9.99"),
        ("double precision", "numeric", 5.0, "5"),
        ("double precision", "text", 1e15, "1e+15"),
        ("double precision", "integer", 0.5, None),
        ("double precision", "integer", 7.0, "7"),
        ("bigint", "numeric", 2**53 + 1, str(2**53 + 1)),
        ("bigint", "numeric(15,2)", 10**13, None),
        ("bigint", "smallint", 32768, None),
        ("text", "varchar(5)", "sechsx", None),
        ("text", "varchar(5)", "fünfe", "fünfe"),
        ("text", "varchar(5)", "a     ", None),
        ("text", "date", "2026-11-30T23:30:00-05:00", "2026-11-30"),
        ("text", "date", "2026-10-01T00:00:00+02:00", "2026-10-01"),
        ("text", "timestamptz", "2026-07-01T10:00:00[Europe/Berlin]", "2026-07-01 08:00:00+00"),
        ("text", "timestamptz", "2026-07-01T10:00:00[Mars/Olympus]", None),
        ("text", "timestamptz", "2026-03-01T12:00:00.123456789", "2026-03-01 12:00:00.123456+00"),
        ("text", "timestamptz", "now", None),
        ("text", "uuid", "{AAAAAAAA-0000-4000-8000-000000000001}", "aaaaaaaa-0000-4000-8000-000000000001"),
        ("text", "uuid", "aaaaaaaa-0000-4000-8000-000000000001\n", None),
        ("text[]", "jsonb", ["stage", ""], '["stage", ""]'),
        ("text", "smallint", "2", "2"),
        ("text", "numeric(3,2)", "0.145", "0.15"),
        ("text", "numeric(3,2)", "9.995", None),
        ("text", "boolean", "true", "true"),
        ("boolean", "varchar(4)", False, None),
        ("boolean", "text", True, "true"),
    ],
)
def test_a_value_lands_alike_by_hand_and_by_the_sync(
    oracle: Connection, foreign: str, target: str, value: Any, landed: str | None
) -> None:
    assert by_hand(oracle, foreign, target, value) == landed
    assert staged(oracle, foreign, target, [value]) == [landed]


@pytest.mark.parametrize(("foreign", "target"), PAIRS)
def test_null_stays_null(oracle: Connection, foreign: str, target: str) -> None:
    if foreign != "jsonb":
        assert by_hand(oracle, foreign, target, None) is None


@pytest.mark.parametrize(
    ("foreign", "target", "value"),
    [
        ("double precision", "numeric(15,2)", 1234567.894999999),
        ("double precision", "numeric", 0.1 + 0.2),
        ("text", "date", "2026-02-01"),
        ("text", "timestamp", "2026-02-01T12:00:00"),
        ("timestamptz", "timestamp", "2026-01-31T20:00:00Z"),
    ],
)
def test_what_lands_does_not_depend_on_the_settings_of_the_session(
    oracle: Connection, foreign: str, target: str, value: Any
) -> None:
    with oracle.transaction(force_rollback=True):
        plain = by_hand(oracle, foreign, target, value)
        oracle.execute("SET LOCAL extra_float_digits = 0; SET LOCAL timezone = 'Asia/Kathmandu'")
        oracle.execute("SET LOCAL datestyle = 'SQL, DMY'; SET LOCAL intervalstyle = 'sql_standard'")
        assert by_hand(oracle, foreign, target, value) == plain


# -- the functions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize(
    "call",
    [
        "_deal_sync.to_numeric(%s::float8, 3, 2)",
        "_deal_sync.to_numeric(%s::float8, NULL, NULL)",
    ],
)
def test_what_is_not_finite_is_null(oracle: Connection, call: LiteralString, value: float | None) -> None:
    assert oracle.execute(f"SELECT {call}", [value]).fetchone() == (None,)


@given(value=integers())
@example(value=-32769)
@example(value=2147483648)
@on_servers(max_examples=50)
def test_an_integer_out_of_range_is_null(oracle: Connection, value: int) -> None:
    found = oracle.execute(
        "SELECT _deal_sync.to_smallint(%(v)s::bigint), _deal_sync.to_integer(%(v)s::bigint)", {"v": value}
    )
    assert found.fetchone() == (
        value if -(1 << 15) <= value < 1 << 15 else None,
        value if -(1 << 31) <= value < 1 << 31 else None,
    )


def test_any_other_type_is_tried_by_its_own_input(pg: Connection) -> None:
    pg.execute("CREATE TYPE mood AS ENUM ('hot', 'cold')")
    pg.execute("CREATE DOMAIN share AS numeric(3,2) CONSTRAINT share_is_positive CHECK (value >= 0)")
    pg.execute("CREATE DOMAIN name_of_deal AS text NOT NULL")
    tried = (
        "SELECT _deal_sync.try_cast('hot', NULL::mood)::text, _deal_sync.try_cast('mild', NULL::mood)::text,"
        " _deal_sync.try_cast('0.5', NULL::share)::text, _deal_sync.try_cast('-1', NULL::share)::text,"
        " _deal_sync.try_cast('127.0.0.1', NULL::inet)::text, _deal_sync.try_cast('here', NULL::inet)::text"
    )
    assert pg.execute(tried).fetchone() == ("hot", None, "0.50", None, "127.0.0.1/32", None)


def test_the_reason_of_a_misfit_names_type_and_constraint_and_never_the_value(pg: Connection) -> None:
    pg.execute("CREATE DOMAIN share AS numeric(3,2) CONSTRAINT share_is_positive CHECK (value >= 0)")

    def reason(value: str, type_: str) -> Any:
        found = pg.execute("SELECT _deal_sync.cast_error(%s, %s::regtype, -1)", [value, type_]).fetchone()
        assert found is not None
        return found[0]

    assert reason("0.5", "share") is None
    assert reason("-1.23", "share") == {
        "sqlstate": "23514",
        "message": 'invalid value for type public.share, constraint "share_is_positive"',
    }
    assert reason("secret", "integer") == {"sqlstate": "22P02", "message": "invalid value for type integer"}
    assert reason("99", "share")["sqlstate"] == "22003"
