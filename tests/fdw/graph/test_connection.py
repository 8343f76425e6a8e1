"""Flows in: neo4j_deals.graph.connection without PostgreSQL. Flows out: a connection a read, no secret in an error."""

import traceback
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
from environment.servers import Instance
from neo4j.time import DateTime
from neo4j_deals.errors import DealSyncError
from neo4j_deals.graph.connection import Ask, Connection, bounded, connection, kept
from neo4j_deals.graph.cypher import Query
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.moment import Moment
from neo4j_deals.rows.shown import shown
from neo4j_deals.rows.values import converter
from support.graph import Graph
from support.proxy import Proxy, closed_port

SECRET = "s3cret-w0rd-of-the-test"


@pytest.fixture
def options(servers: Instance) -> ServerOptions:
    facts = servers.facts
    mapping = {"user": facts["neo4j_user"], "password": facts["neo4j_password"]}
    return ServerOptions.read("graph", {"uri": facts["neo4j_uri"]}, "somebody", mapping)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Neither of this test nor of another file's before it in this process."""
    close_all()
    yield
    close_all()


def close_all() -> None:
    for one in kept():
        one.shut()
        one.close()


def read(one: Connection) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []

    def produce(ask: Ask) -> None:
        rows.extend(ask(Query("RETURN 1 AS n")))

    one.read(produce, lambda: False)
    return rows


def test_a_connection_is_lent_to_one_read_at_a_time(options: ServerOptions) -> None:
    one = connection(options)
    assert connection(options) is one
    one.take()
    other = connection(options)
    assert other is not one
    assert (one.idle(), kept()) == (0.0, [one, other])
    one.give_back()
    assert connection(options) is one


def test_the_name_of_the_server_is_for_messages_and_makes_no_other_connection(options: ServerOptions) -> None:
    assert connection(replace(options, server="bolt://x", login="other")) is connection(options)
    assert connection(replace(options, fetch_size=7)) is not connection(options)


def test_what_nobody_uses_goes_when_the_options_of_its_server_change(options: ServerOptions) -> None:
    old = connection(options)
    assert read(old) == [(1,)]
    new = connection(replace(options, fetch_size=7))
    assert kept() == [new]
    assert old.descriptors == []


def test_an_open_read_outlives_a_change_of_options(options: ServerOptions) -> None:
    old = connection(options)
    old.take()
    new = connection(replace(options, fetch_size=7))
    assert kept() == [old, new]
    assert read(old) == [(1,)]


def test_what_is_shut_is_kept_no_longer(options: ServerOptions) -> None:
    one = connection(options)
    one.shut()
    assert kept() == []
    assert connection(options) is not one


@pytest.mark.parametrize(
    ("changed", "sqlstate"),
    [
        ({"secret": SECRET}, "28P01"),
        ({"user": None, "bearer_token": SECRET}, "28P01"),
        ({"secret": SECRET, "uri": closed_port()}, "08006"),
        ({"bearer_token": SECRET, "uri": "bolt+s://localhost:1"}, "08006"),
        ({"secret": SECRET, "uri": "bolt://no.such.host.invalid"}, "08006"),
        ({"secret": SECRET, "uri": "bolt://localhost:1?strange=1"}, "HV00D"),
        ({"secret": SECRET, "sslrootcert": "/not/there", "uri": "bolt+s://localhost:1"}, "08006"),
        ({"password_file": "/not/there/" + SECRET}, "28P01"),
    ],
)
def test_no_error_holds_a_secret_nor_does_its_whole_chain(
    options: ServerOptions, changed: dict[str, str | None], sqlstate: str
) -> None:
    with pytest.raises(DealSyncError) as caught:
        read(Connection(replace(options, connect_timeout=2.0, **changed)))  # type: ignore[arg-type]
    error = caught.value
    assert error.sqlstate == sqlstate
    told = "".join(traceback.format_exception(error)) + str(error.detail) + str(error.hint)
    assert SECRET not in told
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_the_secrets_are_not_in_the_representation_of_a_connection(options: ServerOptions) -> None:
    assert SECRET not in repr(Connection(replace(options, secret=SECRET, bearer_token=SECRET, password_file=SECRET)))


def test_a_connection_cut_while_it_was_idle_is_made_anew(options: ServerOptions) -> None:
    with Proxy(options.uri) as proxy:
        one = connection(replace(options, uri=proxy.uri, idle_timeout=0.001))
        assert read(one) == [(1,)]
        proxy.cut_all()
        assert read(one) == [(1,)]
        assert proxy.connections == 2


@pytest.mark.parametrize(("rows", "allowed"), [(0, 1), (1, 1), (2, 1), (5, 5), (6, 5), (6, None)])
def test_a_bounded_scan_gives_as_many_rows_as_are_allowed_and_then_an_error(
    options: ServerOptions, rows: int, allowed: int | None
) -> None:
    records = bounded(iter(range(rows)), replace(options, max_rows=allowed))
    if allowed is None or rows <= allowed:
        assert list(records) == list(range(rows))
        return
    assert list(islice(records, allowed)) == list(range(allowed))
    with pytest.raises(DealSyncError, match='"max_rows" of server "graph"') as caught:
        next(records)
    assert caught.value.sqlstate == "54000"


def test_a_datetime_comes_in_the_short_form_where_that_is_asked_for(
    options: ServerOptions,
) -> None:
    text = (
        "RETURN datetime('2026-01-02T03:04:05.123456789+02:00'), localdatetime('2026-01-02T03:04:05'),"
        " datetime('2026-01-02T03:04:05[Europe/Berlin]'), [datetime('2026-01-02T03:04:05Z')]"
    )
    found: list[tuple[Any, ...]] = []
    for moments in (True, False):

        def produce(ask: Ask, moments: bool = moments) -> None:
            found.extend(ask(Query(text, as_moments=moments)))

        connection(options).read(produce, lambda: False)
    (offset, local, zone, [listed]), own = found
    assert [type(value) for value in (offset, local, zone, listed)] == [Moment] * 4
    assert [type(value) for value in (*own[:3], own[3][0])] == [DateTime] * 4
    for lean, full in zip((offset, local, zone, listed), (*own[:3], own[3][0]), strict=True):
        assert converter("text")(lean) == converter("text")(full)


FORMS = [
    "datetime('+10000-01-01T00:00:00.000000000+00:00')",
    "datetime('-0005-03-15T12:00:00.000000001+02:00')",
    "datetime('+999999999-12-31T23:59:59.999999999-18:00')",
    "localdatetime('+12345-06-07T08:09:10.000000011')",
    "localdatetime('2026-02-03T04:05:06.123456789')",
    "date('+10000-02-29')",
    "date('-999999999-01-01')",
    "date('2026-02-03')",
    "datetime('2026-07-01T12:00:00.000000000+02:00[Europe/Berlin]')",
    "datetime('2026-03-01T00:00:00.000000000-03:30')",
    "time('12:34:56.000000001-03:30')",
    "localtime('12:34:56.000000000')",
    "duration('P1Y2M3DT-4.500000000S')",
    "duration('P0D')",
    "point({x: 1.0, y: -0.0, srid: 7203})",
    "point({x: 8.5, y: 47.25, z: 3.0, srid: 4979})",
    "[1, 2]",
    "[true, false]",
    "['a', 'it\\'s \\\\']",
    "[date('+10000-02-29'), date('2026-02-03')]",
    "0.1",
    "NaN",
    "-Infinity",
    "true",
    "7",
]


@pytest.mark.parametrize("moments", [True, False])
def test_what_is_shown_of_a_value_is_cypher_that_neo4j_takes_for_that_value(
    graph: Graph, options: ServerOptions, moments: bool
) -> None:
    for form in FORMS:
        graph.run(f"CREATE (:Form {{text: $text, v: {form}}})", text=form)
    read: list[tuple[Any, ...]] = []
    asked = Query("MATCH (f:Form) RETURN f.text, f.v", as_moments=moments)
    connection(options).read(lambda ask: read.extend(ask(asked)), lambda: False)
    assert len(read) == len(FORMS)
    for form, value in read:
        (found,) = graph.run(
            f"MATCH (f:Form {{text: $form}}) WITH f.v AS v, {shown(value)} AS s"
            " RETURN v = s OR (v <> v AND s <> s) AS same, valueType(v) = valueType(s) AS alike",
            form=form,
        )
        assert found["alike"], (form, shown(value))
        assert found["same"], (form, shown(value))
