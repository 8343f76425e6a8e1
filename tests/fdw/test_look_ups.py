"""Flows in: a nested loop's look-ups, asked of the wrapper's class without Multicorn2. Flows out: rows by one read
transaction, which is gone when the scan, or the transaction, has ended.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from environment.servers import Instance
from neo4j_deals.connection import kept
from support import multicorn_stub
from support.backend import await_true
from support.graph import Graph
from support.multicorn_stub import ColumnDefinition, Qual

LABEL = "Looked"


@pytest.fixture
def table(servers: Instance, graph: Graph) -> Iterator[Any]:
    """A table of the wrapper's class, over nodes with the ids 0 to 1999; 0 to 9 have names."""
    graph.run(f"UNWIND range(0, 1999) AS i CREATE (:{LABEL} {{id: toString(i), name: CASE WHEN i < 10 THEN 'a' END}})")
    with multicorn_stub.wrapper() as module:
        table = module.Neo4jForeignDataWrapper(
            multicorn_stub.options(servers, label=LABEL, key="id"),
            multicorn_stub.columns(ColumnDefinition("id", "text"), ColumnDefinition("name", "text")),
        )
        yield table
        table.rollback()
    for one in kept():
        one.shut()
        one.close()


def transactions(graph: Graph) -> int:
    """How many of ours are open in Neo4j."""
    mine = "SHOW TRANSACTIONS YIELD transactionId RETURN count(*) - 1 AS n"
    return int(graph.run(mine)[0]["n"])


def look_up(table: Any, number: int) -> Iterator[list[Any]]:
    return iter(table.execute([Qual("id", "=", str(number))], {"id", "name"}))


def test_look_ups_after_the_first_share_a_transaction_that_ends_with_the_scan(table: Any, graph: Graph) -> None:
    found = [list(look_up(table, number)) for number in range(30)]
    assert found == [[[str(number), "a" if number < 10 else None]] for number in range(30)]
    assert (transactions(graph), len(kept()), kept()[0].in_use) == (1, 1, True)
    table.end_scan()
    assert await_true(lambda: transactions(graph) == 0)
    assert (len(kept()), kept()[0].in_use) == (1, False)
    assert list(look_up(table, 3)) == [["3", "a"]]
    assert transactions(graph) == 0, "a single scan leaves nothing open"


def test_a_look_up_that_is_left_early_keeps_the_transaction_where_nothing_was_left_to_read(
    table: Any, graph: Graph
) -> None:
    list(look_up(table, 0))
    list(look_up(table, 1))
    before = kept()
    for number in range(2, 6):
        rows = look_up(table, number)
        assert next(rows) == [str(number), "a"]
        rows.close()  # type: ignore[attr-defined]
    assert kept() == before
    table.end_scan()


def test_a_scan_that_is_left_with_more_to_read_takes_its_connection_along(table: Any, graph: Graph) -> None:
    list(look_up(table, 0))
    rows = table.execute([], {"id"})
    next(rows)
    rows.close()
    assert kept() == []
    assert await_true(lambda: transactions(graph) == 0)
    assert list(look_up(table, 7)) == [["7", "a"]]


def test_two_that_are_read_at_the_same_time_have_a_transaction_each(table: Any, graph: Graph) -> None:
    list(look_up(table, 0))
    one, other = (iter(table.execute([], {"id"})) for _ in range(2))
    ids = {row[0] for pair in zip(one, other, strict=True) for row in pair}
    assert len(ids) == 2000
    assert len(kept()) == 2
    table.end_scan()
    assert await_true(lambda: transactions(graph) == 0)


@pytest.mark.parametrize("end", ["rollback", "pre_commit"])
def test_nothing_outlives_the_transaction_where_the_scan_did_not_come_to_its_end(
    table: Any, graph: Graph, end: str
) -> None:
    for number in range(3):
        list(look_up(table, number))
    assert transactions(graph) == 1
    getattr(table, end)()
    assert await_true(lambda: transactions(graph) == 0)
    assert list(look_up(table, 9)) == [["9", "a"]]


def test_a_loop_whose_connection_breaks_is_an_error_and_the_next_one_has_a_new_one(table: Any, graph: Graph) -> None:
    for number in range(3):
        list(look_up(table, number))
    for one in kept():
        one._shut_sockets()
    with pytest.raises(multicorn_stub.Refused, match="no connection to Neo4j server"):
        list(look_up(table, 3))
    table.rollback()
    assert list(look_up(table, 4)) == [["4", "a"]]


def test_other_options_have_a_reader_of_their_own(table: Any, graph: Graph) -> None:
    list(look_up(table, 0))
    list(look_up(table, 1))
    table._options = {**table._options, "fetch_size": "7"}
    assert list(look_up(table, 2)) == [["2", "a"]]
    assert len(kept()) == 2
    table.end_scan()
    assert await_true(lambda: transactions(graph) == 0)
