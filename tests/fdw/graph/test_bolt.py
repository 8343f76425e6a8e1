"""Flows in: fdw/neo4j_deals/graph/connection.py in a backend, and servers that break every rule of Bolt at every step.
Flows out: that each ends the statement in time with one clear error, and leaves no thread, socket or transaction.

The table of scripts, messages, seconds and what was left is in the last lines of the run.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from environment.servers import Instance
from support.backend import Backend, await_true, run
from support.bolt import (
    FAILURE,
    GOODBYE,
    IGNORED,
    RECORD,
    ROWS,
    SUCCESS,
    UNKNOWN,
    BoltServer,
    Script,
    Talk,
    chunked,
    failure,
    message,
    success,
)
from support.database import Connection, Database, new_database

TIMEOUT = 1  # seconds of connect_timeout and of query_timeout
SCAN = "SELECT name FROM deal_sync.scan(NULL::scripted)"
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Case:
    """`error`: the expected SQLSTATE; None: all rows arrive."""

    step: str
    script: Script
    error: str | None
    says: str = ""


def send(*parts: bytes) -> Script:
    return lambda talk: talk.send(b"".join(parts))


def then_close(data: bytes = b"") -> Script:
    def script(talk: Talk) -> None:
        talk.send(data)
        talk.close()

    return script


def slowly(data: bytes) -> Script:
    return lambda talk: talk.slowly(data)


def for_ever(data: bytes) -> Script:
    def script(talk: Talk) -> None:
        while not talk.ended.is_set():
            talk.send(data)

    return script


def rows_then(data: bytes = b"", close: bool = False) -> Script:
    def script(talk: Talk) -> None:
        talk.send(talk.rows + data)
        if close:
            talk.close()

    return script


def rows_for_ever(talk: Talk) -> None:
    for_ever(talk.rows)(talk)


def fail(data: bytes) -> Script:
    return lambda talk: talk.fail(data)


SILENT = send()
MANIFEST = b"\0\0\1\xff" + b"\xff" * 64
UNKNOWN_VERSION = "supports no version of Bolt that deal_sync knows"
VERSION = bytes([0, 0, 4, 5])
LATE = f"did not answer within connect_timeout ({TIMEOUT} s)"
LATE_QUERY = f"did not answer within query_timeout ({TIMEOUT} s)"
GARBLED, BROKEN = "invalid answer from Neo4j server", "or the connection was lost"

HANDSHAKES = {
    "silent": Case("HANDSHAKE", SILENT, "08006", LATE),
    "closed": Case("HANDSHAKE", then_close(), "08006", BROKEN),
    "two of four bytes": Case("HANDSHAKE", send(VERSION[:2]), "08006", BROKEN),
    "slow manifest": Case("HANDSHAKE", slowly(MANIFEST * 50), "08006", BROKEN),
    "no common version": Case("HANDSHAKE", send(bytes(4)), "08P01", UNKNOWN_VERSION),
    "version 99": Case("HANDSHAKE", send(bytes([0, 0, 0, 99])), "08P01", UNKNOWN_VERSION),
    "HTTP": Case("HANDSHAKE", then_close(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "08006", BROKEN),
    "manifest for ever": Case("HANDSHAKE", for_ever(MANIFEST), "08006"),
}


def at(step: str, late: str) -> dict[str, Case]:
    """What can come instead of an answer that reports success."""
    return {
        "silent": Case(step, SILENT, "08006", late),
        "GOODBYE": Case(step, send(message(GOODBYE)), "08P01", GARBLED),
        "unknown message": Case(step, send(message(UNKNOWN, {})), "08P01", GARBLED),
        "RECORD": Case(step, send(message(RECORD, [1])), "08"),
        "FAILURE": Case(step, fail(failure()), "HV000", "reported an error"),
        "garbage in a chunk": Case(step, send(chunked(b"\xc7\xdf\xef" * 10)), "08P01", GARBLED),
        "cut in a chunk": Case(step, then_close(success(x="y" * 100)[:50]), "08006", BROKEN),
    }


#: The login's are told of HELLO, LOGON and BEGIN alike.
HELLO = {
    "IGNORED": Case("HELLO", send(message(IGNORED)), None),
    "slow byte by byte": Case("HELLO", slowly(success(x="y" * 100)), "08006", LATE),
    "text for a map": Case("HELLO", send(message(SUCCESS, "well")), "08P01", GARBLED),
    "FAILURE without a code": Case("HELLO", fail(message(FAILURE, {})), "HV000", "reported an error"),
}
RUN = {
    "IGNORED": Case("RUN", send(message(IGNORED)), "08P01", GARBLED),
    "fields missing": Case("RUN", send(success()), "08P01", GARBLED),
    "more fields than values": Case("RUN", send(success(fields=["a", "b", "c"])), "08P01", GARBLED),
}
PULLED = {
    "IGNORED": Case("PULL", send(message(IGNORED)), "08P01", GARBLED),
    "IGNORED after records": Case("PULL", rows_then(message(IGNORED)), "08P01", GARBLED),
    "GOODBYE after records": Case("PULL", rows_then(message(GOODBYE)), "08P01", GARBLED),
    "closed after records": Case("PULL", rows_then(close=True), "08006", BROKEN),
    "text for a map": Case("PULL", send(message(SUCCESS, "well")), "08P01", GARBLED),
    "a chunk without its end": Case("PULL", send(success(x="y" * 100)[:50]), "08006", LATE_QUERY),
    "record too short": Case("PULL", send(message(RECORD, [1]), success()), "08P01", GARBLED),
    "record is no list": Case("PULL", send(message(RECORD, 7), success()), "08P01", GARBLED),
    "FAILURE of a megabyte": Case("PULL", fail(failure("x" * MEGABYTE)), "HV000", "reported an error"),
    "has_more for ever": Case("PULL", send(success(has_more=True)), "08006", LATE_QUERY),
    "records for ever": Case("PULL", rows_for_ever, "08006", LATE_QUERY),
    "a chunk for ever": Case("PULL", for_ever(b"\xff\xff" + b"\xd2" * 0xFFFF), "08006", LATE_QUERY),
    "SUCCESS twice": Case("PULL", rows_then(success() + success()), None),
}
STEPS = {
    "handshake": HANDSHAKES,
    "HELLO": at("HELLO", LATE) | HELLO,
    "LOGON": at("LOGON", LATE) | {"slow byte by byte": Case("LOGON", slowly(success(x="y" * 100)), "08006", LATE)},
    "BEGIN": at("BEGIN", LATE),
    "RUN": at("RUN", LATE_QUERY) | RUN,
    "PULL": at("PULL", LATE_QUERY) | PULLED,
    "COMMIT": at("COMMIT", LATE),
}
CASES = {f"{step}: {name}": case for step, cases in STEPS.items() for name, case in cases.items()}


@pytest.fixture(scope="module")
def scripted(servers: Instance, template: str) -> Iterator[Database]:
    """A database with a foreign table that one query fills."""
    with new_database(servers, template) as database:
        pg = database.connect()
        pg.execute(
            "CREATE FOREIGN TABLE scripted (name text) SERVER neo4j OPTIONS"
            " (cypher 'MATCH (n) WHERE n.at IS :: DATE RETURN elementId(n) AS name');"
            f" ALTER SERVER neo4j OPTIONS (ADD connect_timeout '{TIMEOUT}', ADD query_timeout '{TIMEOUT}')".encode()
        )
        yield database


@pytest.fixture(scope="module")
def session(scripted: Database) -> Connection:
    """One for all the scripts: what one leaves behind, the next would meet."""
    return scripted.connect()


@pytest.fixture
def usual(scripted: Database, session: Connection) -> float:
    """The seconds that a sound scan takes just now, with a connection of its own: the machine may be busy."""
    taken = []
    for _ in range(2):  # a session's first one is the slower one
        with BoltServer("", SILENT) as server:
            set_uri(scripted, server.uri)
            began = time.monotonic()
            assert len(run(session, SCAN).rows) == ROWS
            taken.append(time.monotonic() - began)
    return min(taken)


def longest(case: Case, usual: float) -> float:
    """The seconds that it may take: half of a time-out more than the option says, and what the machine needs."""
    return TIMEOUT * (2.5 if case.step in ("RUN", "PULL") else 1.5) + 4 * usual


@pytest.mark.parametrize("name", [pytest.param(name, id=name.replace(" ", "-")) for name in CASES])
def test_it_ends_in_time_with_one_clear_error_and_leaves_nothing(
    scripted: Database, session: Connection, usual: float, measure: Callable[[str, str, str, Any], None], name: str
) -> None:
    case = CASES[name]
    with BoltServer(case.step, case.script) as server:
        set_uri(scripted, server.uri)
        backend = Backend(session.info.backend_pid)
        began = time.monotonic()
        ended = run(session, SCAN)
        seconds = ended.at - began
        assert isinstance(ended.error, psycopg.Error | None)
        said = (
            f"{ended.error.sqlstate} {ended.error.diag.message_primary}" if ended.error else f"{len(ended.rows)} rows"
        )
        if ended.error:
            await_true(lambda: (backend.threads(), backend.sockets(), server.open) == (1, 1, 0), seconds=5)
        left = f"{backend.threads() - 1} threads, {backend.sockets() - 1} sockets, {server.open} transactions"
        for column, value in (("seconds", seconds), ("left", left), ("message", said[:150])):
            measure("Bolt script", name, column, value)
    assert seconds < longest(case, usual)
    if case.error is None:
        assert (len(ended.rows), ended.error) == (ROWS, None)
        return
    assert ended.error is not None
    assert left == "0 threads, 0 sockets, 0 transactions"
    assert (ended.sqlstate or "").startswith(case.error)
    assert case.says in said
    assert ended.error.diag.message_primary is not None
    assert 'Neo4j server "neo4j"' in ended.error.diag.message_primary
    assert len(ended.error.diag.message_primary) < 1000


#: What ends the statement that goes on with a kept connection, and after how many time-outs.
OF_A_KEPT_ONE = {
    "RESET: silent": (None, 1),  # the test of an idle connection: a new one serves
    "BEGIN: silent": (LATE, 2),  # is taken for that test, and a new one is no better
    "RUN: silent": (LATE_QUERY, 2),
    "PULL: a chunk for ever": (LATE_QUERY, 2),
    "COMMIT: silent": (LATE, 1),
}


@pytest.mark.parametrize("name", [pytest.param(name, id=name.replace(" ", "-")) for name in OF_A_KEPT_ONE])
def test_a_kept_connection_is_tested_once_and_no_query_is_run_again(
    scripted: Database, session: Connection, usual: float, measure: Callable[[str, str, str, Any], None], name: str
) -> None:
    said, times = OF_A_KEPT_ONE[name]
    step = name.partition(":")[0]
    script = SILENT if name == "RESET: silent" else CASES[name].script
    with BoltServer("", script) as server, psycopg.connect(scripted.dsn(), autocommit=True) as pg:
        set_uri(scripted, server.uri)
        pg.execute(f"ALTER SERVER neo4j OPTIONS (ADD idle_timeout '{0.01 if step == 'RESET' else 60}')".encode())
        assert len(run(session, SCAN).rows) == ROWS
        time.sleep(0.02)
        server.step = step
        began = time.monotonic()
        ended = run(session, SCAN)
        seconds = ended.at - began
        pg.execute("ALTER SERVER neo4j OPTIONS (DROP idle_timeout)")
        measure("Bolt script, kept connection", name, "seconds", seconds)
        measure("Bolt script, kept connection", name, "message", str(ended.error)[:150])
    assert seconds < TIMEOUT * (times + 0.5) + 4 * usual
    if said is None:
        assert (len(ended.rows), ended.error) == (ROWS, None)
    else:
        assert said in str(ended.error)
        option = "query_timeout" if said == LATE_QUERY else "connect_timeout"
        assert isinstance(ended.error, psycopg.Error)
        assert f'"{option}"' in (ended.error.diag.message_hint or "")


STARTING = 1.5  # seconds that a process may need to begin on a busy machine
#: For the process that reads large loads; its steps are the thread's, and only some of them are tested again.
OF_A_PROCESS = (
    "handshake: silent",
    "LOGON: slow byte by byte",
    "BEGIN: GOODBYE",
    "RUN: silent",
    "PULL: garbage in a chunk",
    "PULL: closed after records",
    "PULL: a chunk for ever",
    "PULL: records for ever",
    "COMMIT: silent",
    "COMMIT: FAILURE",
)


@pytest.mark.parametrize("name", [pytest.param(name, id=name.replace(" ", "-")) for name in OF_A_PROCESS])
def test_a_process_ends_in_time_with_the_same_error_and_leaves_nothing(
    scripted: Database, session: Connection, usual: float, measure: Callable[[str, str, str, Any], None], name: str
) -> None:
    """The connection by which the backend has counted the nodes before is kept."""
    case = CASES[name]
    with BoltServer(case.step, case.script, spared=1) as server:
        set_uri(scripted, server.uri)
        backend = Backend(session.info.backend_pid)
        session.execute("SET deal_sync.process_from = 1; SET statement_timeout = '20s'")
        began = time.monotonic()
        ended = run(session, "SELECT _deal_sync.fill_staging('deal', gen_random_uuid(), 'postgres', NULL)")
        seconds = ended.at - began
        session.execute("RESET ALL")
        assert isinstance(ended.error, psycopg.Error)
        said = f"{ended.sqlstate} {ended.error.diag.message_detail}"
        await_true(lambda: (backend.children(), server.open) == ([], 1), seconds=5)
        left = f"{len(backend.children())} processes, {server.open - 1} transactions"
        for column, value in (("seconds", seconds), ("left", left), ("message", said[:150])):
            measure("Bolt script, process", name, column, value)
    assert left == "0 processes, 0 transactions"
    assert seconds < longest(case, usual) + STARTING
    assert ended.sqlstate == case.error
    assert case.says in said
    assert 'Neo4j server "neo4j"' in said


@pytest.mark.parametrize(
    ("agent", "bolt", "lacks"),
    [
        ("Neo4j/4.4.0", (4, 4), "has version 4.4, but function elementId() requires 5.0 or later"),
        ("Neo4j/5.8.0", (5, 2), "has version 5.8, but type predicate IS :: requires 5.9 or later"),
        ("Neo4j/5.26.0", (5, 4), "reported an error (Neo.ClientError.Statement.SyntaxError): it went wrong"),
    ],
)
def test_a_query_that_a_neo4j_is_too_old_for_names_what_it_lacks(
    scripted: Database, session: Connection, agent: str, bolt: tuple[int, int], lacks: str
) -> None:
    with BoltServer("RUN", fail(failure()), agent, bolt) as server:
        set_uri(scripted, server.uri)
        ended = run(session, SCAN)
    assert isinstance(ended.error, psycopg.Error)
    assert lacks in (ended.error.diag.message_primary or "")


@pytest.mark.multicorn
def test_a_client_that_takes_its_time_costs_none_of_the_query(scripted: Database, session: Connection) -> None:
    """More than are read ahead: the reader waits for the client, and Neo4j's answer with it."""
    many = 10_000
    row = message(RECORD, [None, "name"])
    with BoltServer("PULL", send(row * many + success()), version=(5, 4)) as server, session.transaction():
        set_uri(scripted, server.uri)
        session.execute("DECLARE c NO SCROLL CURSOR FOR SELECT name FROM scripted")
        session.execute("FETCH 1 FROM c")
        time.sleep(2 * TIMEOUT + 0.5)
        assert len(session.execute("FETCH ALL FROM c").fetchall()) == many - 1


NOBODY = "00000000-0000-0000-0000-000000000000"
QUESTIONS = [
    f"SELECT _deal_sync.graph_state('{NOBODY}', true, true, 1)",
    "SELECT _deal_sync.tenants_of_graph()",
    f"SELECT _deal_sync.graph_keys('deal', '{NOBODY}')",
    f"SELECT _deal_sync.deal_keys('deal', '{NOBODY}', NULL, 10)",
    "SELECT deal_sync.import_schema('neo4j', 'public')",
    f"SELECT _deal_sync.fill_staging('deal', '{NOBODY}', 'postgres', NULL)",
    f"SELECT _deal_sync.fill_staging('version', '{NOBODY}', 'postgres', NULL)",
    f"SELECT _deal_sync.fill_staging('deal', '{NOBODY}', 'postgres', '{{\"since\": \"2026-01-01T00:00:00Z\"}}')",
    "SELECT opportunity_id FROM deal_sync.scan(NULL::neo4j.deals)",
]


def nested(value: Any) -> list[Any]:
    return [[value], [[value]], [[[value]]], [[[value, value]]], [value, value], [value] * 5]


@pytest.mark.parametrize("statement", QUESTIONS)
def test_a_record_of_another_form_is_reported_as_an_invalid_answer(
    scripted: Database, session: Connection, statement: str
) -> None:
    """Never as a Python error, nor with what the record holds."""
    read = []
    for record in [[[7], None], *(record for value in (None, 7, "secret", {"a": 1}) for record in nested(value))]:
        with BoltServer("", SILENT, record=record) as server:
            set_uri(scripted, server.uri)
            ended = run(session, statement)
        assert isinstance(ended.error, psycopg.Error | None)
        assert ended.sqlstate in (None, "08P01", "HV000"), (record, ended.error)
        assert "secret" not in str(ended.error), record
        read.append(ended.sqlstate)
    assert "08P01" in read


def test_the_doctor_says_of_each_question_that_its_answer_cannot_be_read(
    scripted: Database, session: Connection
) -> None:
    for record in [[[7], None], *nested(None), *nested("secret")]:
        with BoltServer("", SILENT, record=record) as server:
            set_uri(scripted, server.uri)
            ended = run(session, "SELECT d::text FROM deal_sync.doctor() AS d")
        assert ended.error is None, record
        assert "internal error" not in str(ended.rows), record


def test_a_bug_of_ours_is_reported_as_ours_without_what_was_read(scripted: Database, session: Connection) -> None:
    broken: LiteralString = """DO $$
    from neo4j_deals.rows.projection import Projection
    def row(self, record):
        raise KeyError('secret')
    Projection.row = row
    $$ LANGUAGE plpython3u"""
    with BoltServer("", SILENT) as server:
        set_uri(scripted, server.uri)
        broken_session = scripted.connect()
        assert run(broken_session, SCAN).error is None
        broken_session.execute(broken)
        ended = run(broken_session, SCAN)
        broken_session.close()
    assert ended.sqlstate == "XX000"
    assert "internal error in deal_sync: KeyError: in neo4j_deals.tables.scan, line " in str(ended.error)
    assert "secret" not in str(ended.error)


def test_a_name_look_up_that_hangs_counts_for_the_time_to_connect(scripted: Database) -> None:
    """Nothing can interrupt it: its thread ends when it can."""
    slow: LiteralString = """DO $$
    import socket, time
    look_up = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **more: time.sleep(7) or look_up(host, *rest, **more)
    $$ LANGUAGE plpython3u"""
    set_uri(scripted, "bolt://localhost:7")
    session = scripted.connect()
    session.execute(slow)
    began = time.monotonic()
    ended = run(session, SCAN)
    session.close()
    assert LATE in str(ended.error)
    assert ended.at - began < 6


def set_uri(scripted: Database, uri: str) -> None:
    with psycopg.connect(scripted.dsn(), autocommit=True) as pg:
        pg.execute(f"ALTER SERVER neo4j OPTIONS (SET uri '{uri}')".encode())
