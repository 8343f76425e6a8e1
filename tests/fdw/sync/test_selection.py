"""Flows in: moments in every form that the graph holds. Flows out: which of them a watermark's query finds."""

import re
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neo4j_deals.rows.values import to_timestamptz
from neo4j_deals.sync.selection import (
    _IN_UTC,
    _INSTANT,
    _LOCAL,
    Selection,
    TenantsNodes,
    among,
    changed,
    changed_among,
    having,
    keys,
    latest,
    rest,
)
from support.graph import Graph

NODES = TenantsNodes("A `label`", "the tenant", "AAAAAAAA-0000-4000-8000-00000000000a")
SINCE = datetime(2026, 3, 1, 9, 30, 15, 250_000, UTC)
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC))
MINUTES = st.integers(-17 * 60 - 59, 17 * 60 + 59)
PRECISIONS = st.sampled_from(["seconds", "milliseconds", "microseconds"])
ODD = [
    "", " ", "n/a", "soon", "0", "1/2/2026", "24.11.2026", "2026/11/24", "2026-13-01", "2026-02-30", "2025-02-29",
    "1900-02-29", "2026-1-2", "20260101", "2026-W10-1", "2026-032", " 2020-01-01", "2020-01-01T25:00:00",
    "2020-01-01T10:61", "2020-01-01T10:00:00+19:00", "0000-01-01", "-2020-01-01", "2020-01-01T10:00:00 UTC",
    "2020-01-01t10:00:00z", "2020-01-01T10:00:00[Europe/Paris]", "99999-01-01",
]  # fmt: skip


def finds(text: str, since: datetime = SINCE) -> bool:
    """The conditions on a STRING, as Neo4j evaluates them: its order of texts is by code point, as Python's."""
    query = changed(NODES, ["at"], "key", since)
    day, second, local = (str(query.parameters[name]) for name in ("day", "second", "local_second"))
    if text >= day:
        in_utc, no_zone = (re.fullmatch(form, text, re.ASCII) for form in (_IN_UTC, _LOCAL))
        return text >= second or not in_utc or (text >= local and no_zone is not None)
    return not re.fullmatch(_INSTANT, text, re.ASCII)


@given(MOMENTS, MOMENTS, MINUTES, PRECISIONS, st.sampled_from("T "))
def test_no_moment_from_the_watermark_on_is_missed_in_any_offset_and_precision(
    since: datetime, moment: datetime, minutes: int, precision: str, separator: str
) -> None:
    there = moment.astimezone(timezone(timedelta(minutes=minutes)))
    if moment >= since:
        assert finds(there.isoformat(separator, precision), since.replace(microsecond=0))
        assert finds(there.isoformat(separator, "minutes"), since.replace(second=0, microsecond=0))
        assert finds(there.date().isoformat(), since)
        assert finds(moment.isoformat(separator, precision).replace("+00:00", "Z"), since.replace(microsecond=0))
        assert finds(moment.replace(tzinfo=None).isoformat(separator), since)


@given(MOMENTS, MOMENTS, st.integers(-14 * 60, 14 * 60), PRECISIONS, st.sampled_from("T "))
def test_no_moment_without_an_offset_is_missed_wherever_its_writer_is(
    since: datetime, moment: datetime, minutes: int, precision: str, separator: str
) -> None:
    there = moment.astimezone(timezone(timedelta(minutes=minutes))).replace(tzinfo=None)
    if moment >= since:
        assert finds(there.isoformat(separator, precision), since.replace(microsecond=0))
        parameters = changed(NODES, ["at"], "key", since).parameters
        assert there >= parameters["local"]


@given(MOMENTS, MOMENTS, MINUTES)
def test_what_is_long_past_is_not_read_again(since: datetime, moment: datetime, minutes: int) -> None:
    there = moment.astimezone(timezone(timedelta(minutes=minutes)))
    if moment < since - timedelta(days=2):
        assert not finds(there.isoformat(), since)
    if moment < since - timedelta(seconds=1):
        assert not finds(moment.isoformat(), since)
        assert not finds(moment.isoformat().replace("+00:00", "Z"), since)
    if moment < since - timedelta(hours=14, seconds=1):
        assert not finds(moment.replace(tzinfo=None).isoformat(), since)


@pytest.mark.parametrize("text", ODD)
def test_a_text_that_is_no_instant_in_the_usual_form_is_read_whatever_its_order(text: str) -> None:
    assert finds(text)


@given(st.from_regex(re.compile(_INSTANT, re.ASCII), fullmatch=True))
def test_every_text_that_goes_by_its_order_is_one_that_the_reader_can_read(text: str) -> None:
    if text.startswith("9999-12-31"):  # in another offset the year may be the next; it lies in the future, and is read
        assert finds(text)
    else:
        assert isinstance(to_timestamptz(text), datetime)


def test_each_type_is_compared_with_a_parameter_of_its_own() -> None:
    text, parameters = changed(NODES, ["at"], "key", SINCE).text, changed(NODES, ["at"], "key", SINCE).parameters
    assert parameters["zoned"] == SINCE
    assert parameters["local"] == SINCE.replace(tzinfo=None) - timedelta(hours=14)
    assert parameters["tenant"] == [NODES.tenant.upper(), NODES.tenant.lower()]
    for condition in ("n.`at` >= $zoned", "n.`at` >= $local", "n.`at` >= $date", "NOT n.`at` IS :: STRING"):
        assert condition in text
    assert str(SINCE.year) not in text


def test_the_second_moment_counts_where_the_first_is_absent() -> None:
    parts = changed(NODES, ["until", "made"], "key", SINCE).text.split("\nUNION\n")
    assert [part for part in parts if "n.`made` >= $zoned" in part and "n.`until` IS NULL AND" in part]
    assert all("n.`made`" not in part or "n.`until` IS NULL" in part for part in parts)


ENDS = {
    "datetime": (
        "-999999999-01-01T00:00:00+18:00", "-999999999-01-01T00:00:00Z", "-999999999-01-01T00:00:00-18:00",
        "0000-12-31T23:59:59Z", "+10000-01-01T00:00:00Z", "+999999999-12-31T23:59:59.999999999+18:00",
        "+999999999-12-31T23:59:59Z", "+999999999-12-31T23:59:59.999999999Z",
        "+999999999-12-31T23:59:59.999999999-18:00",
    ),
    "localdatetime": (
        "-999999999-01-01T00:00:00", "0000-12-31T23:59:59", "+10000-01-01T00:00:00",
        "+999999999-12-31T23:59:59.999999999",
    ),
    "date": ("-999999999-01-01", "0000-12-31", "+10000-01-01", "+999999999-12-31"),
}  # fmt: skip
TYPES_WITHOUT_A_DAY: tuple[str, ...] = (
    "time('00:00:00+18:00')",
    "time('23:59:59.999999999-18:00')",
    "localtime('00:00')",
)
TYPES_WITHOUT_A_DAY += ("localtime('23:59:59.999999999')", "duration({seconds: 9223372036854775807})")
TYPES_WITHOUT_A_DAY += (
    "duration({seconds: -9223372036854775807})",
    "9223372036854775807",
    "-1.0 / 0",
    "0.0 / 0",
    "true",
)
LONG_AGO = "datetime('2026-02-27T00:00Z')"
CREATED_AFTER_A_CHANGE = "'2026-02-27' and datetime($since)"
INDEXES = {
    "no index": (),
    "tenant and moment": ("n.tenant_id, n.at",),
    "moment": ("n.at",),
    "all": ("n.tenant_id, n.at", "n.tenant_id", "n.at"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_the_ends_of_every_type_are_found_with_and_without_an_index(graph: Graph, name: str) -> None:
    for properties in INDEXES[name]:
        graph.run(f"CREATE INDEX FOR (n:N) ON ({properties})")
    due = [f"{type_}('{value}')" for type_, values in ENDS.items() for value in values]
    due += [*TYPES_WITHOUT_A_DAY, "''", "'\U0010ffff'", "'9999-12-31T23:59:59.999999999Z'"]
    for value in due:
        graph.run(f"CREATE (:N {{tenant_id: 't', at: {value}, key: $value}})", value=value)
    for value in ("datetime('2026-02-27T00:00Z')", "date('2026-02-27')", "'2026-02-27'", "'2026-02-28T01:02:03Z'"):
        graph.run(f"CREATE (:N {{tenant_id: 't', at: {value}, key: 'long ago'}})")
    graph.run("UNWIND range(1, 500) AS i CREATE (:N {tenant_id: toString(i), at: datetime('2026-02-27T00:00Z')})")
    graph.run("CALL db.awaitIndexes()")
    for moments in (["at"], ["never", "at"]):
        query = changed(TenantsNodes("N", "tenant_id", "t"), moments, "key", SINCE)
        found = graph.run(query.text, **query.parameters)
        assert sorted(row["key"] for row in found) == sorted(due), moments


@pytest.mark.parametrize("name", INDEXES)
def test_no_tenant_with_a_timestamp_of_another_type_is_taken_for_unchanged(graph: Graph, name: str) -> None:
    """A deal of long ago, and in each tenant one more, of a type of its own; in one tenant two."""
    for properties in INDEXES[name]:
        graph.run(f"CREATE INDEX FOR (n:N) ON ({properties})")
    others = [f"{type_}('{value}')" for type_, values in ENDS.items() if type_ != "datetime" for value in values]
    others += [*TYPES_WITHOUT_A_DAY, "''", "'\U0010ffff'", "localdatetime()", "'2026-02-27'", "date('2026-02-27')"]
    others += [CREATED_AFTER_A_CHANGE]
    tenants = {}
    for value in [*others, *(f"datetime('{moment}')" for moment in ENDS["datetime"][4:]), "datetime($since)", LONG_AGO]:
        tenants[value] = str(uuid.uuid4())
        for moment in (LONG_AGO, *value.split(" and ")):
            graph.run(
                f"CREATE (:N {{tenant_id: $tenant, at: {moment}}})", tenant=tenants[value], since=SINCE.isoformat()
            )
    graph.run("CALL db.awaitIndexes()")
    query = latest("N", "tenant_id", "at", dict.fromkeys(tenants.values(), SINCE))
    found = {row["id"]: row["sure"] for row in graph.run(query.text, **query.parameters)}
    unsure = {*others} - {"9223372036854775807", "-1.0 / 0"}
    assert found == {id: value not in unsure for value, id in tenants.items() if value != LONG_AGO}

    query = changed_among("N", "tenant_id", "at", {id: SINCE for id, sure in found.items() if not sure})
    newer = {row["id"] for row in graph.run(query.text, **query.parameters)}
    assert {value for value, id in tenants.items() if id in newer} == {
        "localdatetime()",
        "'\U0010ffff'",
        CREATED_AFTER_A_CHANGE,
        *(value for value in others if value.startswith(("date('+", "localdatetime('+"))),
    }


@pytest.mark.parametrize(
    "query",
    [
        changed(NODES, ["a `moment`"], "a `key`", SINCE),
        latest("A `label`", "the tenant", "a `key`", {NODES.tenant: SINCE}),
        having(NODES, "an `id`", ["x' OR true //"], "a `key`"),
        among(NODES, ["4:x:1'"], "a `key`"),
        keys(NODES, "a `key`", "x'", 10),
        rest(NODES, "an `id`", "a `key`"),
    ],
)
def test_values_are_parameters_and_names_are_quoted(query: object) -> None:
    text = getattr(query, "text")  # noqa: B009
    assert "MATCH (n:`A ``label```)" in text
    assert "n.`a ``key```" in text
    assert "x'" not in text
    assert NODES.tenant not in text


def test_ids_are_looked_for_in_their_usual_spellings() -> None:
    forms = having(NODES, "id", ["ABCDEF00-0000-4000-8000-00000000000a"], "key").parameters["ids"]
    plain = {
        "ABCDEF00-0000-4000-8000-00000000000a",
        "ABCDEF00-0000-4000-8000-00000000000A",
        "abcdef00-0000-4000-8000-00000000000a",
        "ABCDEF0000004000800000000000000a",
        "ABCDEF0000004000800000000000000A",
        "abcdef0000004000800000000000000a",
    }
    assert set(forms) == plain | {f"{{{form}}}" for form in plain}
    for form in forms:
        assert set(having(NODES, "id", [form], "key").parameters["ids"]) >= plain - {min(plain), max(plain)} - {
            "ABCDEF00-0000-4000-8000-00000000000a",
            "ABCDEF0000004000800000000000000a",
        }


def test_a_selection_is_read_from_json() -> None:
    assert Selection.read(None).is_everything
    assert Selection.read('{"barred": ["aaaaaaaa-0000-4000-8000-00000000000a"]}').is_everything
    since = Selection.read('{"since": "2026-03-01T10:30:15.25+01:00", "elements": ["4:x:1"]}')
    assert since == Selection(since=SINCE, elements=("4:x:1",))
    assert not since.is_everything
    assert not Selection.read('{"graph_ids": []}').is_everything
    assert Selection.read('{"rest": true}') == Selection(rest=True)
    assert not Selection(rest=True).is_everything
