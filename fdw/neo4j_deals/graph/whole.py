"""In: queries. Out: their answers, whole: a result that a server or a proxy ended early is an error, or is made good.

A result that was cut short looks like one that has ended: Bolt says SUCCESS after it. So small answers come as one
record, which is there or is not, and of nodes it is known how many there must be.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from neo4j_deals.errors import DealSyncError, Garbled
from neo4j_deals.graph.connection import Ask
from neo4j_deals.graph.cypher import Query

AT_ONCE = 10_000  # nodes that are asked for by one list of element ids
_TRIES = 3  # a node may go and come back while it is looked for


def cut_short(said: str) -> DealSyncError:
    """The error of a result that is not whole."""
    return DealSyncError(
        "HV000",
        "Neo4j, or a proxy before it, ended a result early and called it complete",
        said,
        "let the server's option uri name Neo4j itself, and run again",
    )


def one(ask: Ask, query: Query, *types: Any) -> tuple[Any, ...]:
    """The record of a query that has exactly one. Raises Garbled where its values are not of these types."""
    for record in many(ask, query, *types):
        return record
    raise cut_short("a query that always has one row had none")


def many(ask: Ask, query: Query, *types: Any) -> Iterator[tuple[Any, ...]]:
    """The records of a query. Raises Garbled where their values are not of these types."""
    for record in ask(query):
        yield _of(types, record)


def everything(ask: Ask, query: Query, *types: Any) -> list[list[Any]]:
    """All rows of a query whose columns have names, asked for as one record.

    Raises Garbled where their values are not of these types; without any, a column that is called id holds texts.
    """
    (found,) = one(ask, query.gathered(), list)
    return rows_of(found, *(types or [str if name == "id" else object for name in query.names]))


def rows_of(values: Sequence[Any], *types: Any) -> list[list[Any]]:
    """A list of lists. Raises Garbled where it is none, or of others than these types."""
    return [_of(types, value) for value in values]


def _of(types: Sequence[Any], values: Any) -> Any:
    if not isinstance(values, list | tuple) or len(values) != len(types) or not all(map(isinstance, values, types)):
        raise Garbled("it is of another form than was asked for")
    return values


def _element_id(record: tuple[Any, ...]) -> str:
    if isinstance(element := record[0], str):
        return element
    raise Garbled("a node came without its id")


@dataclass(frozen=True)
class Nodes:
    """Nodes that are read: `read` asks for all of them (None), or for those with these element ids, each id first.

    `count` asks how many there are; `ids` for the element ids of all, or of those that are left of some.
    """

    read: Callable[[Sequence[str] | None], Query]
    count: Query
    ids: Callable[[Sequence[str] | None], Query]


def every(ask: Ask, nodes: Nodes, limit: int | None = None) -> Iterator[tuple[Any, ...]]:
    """The records of all the nodes, or of `limit` of them.

    What comes and goes meanwhile may be among them or not. Fewer than there were at the beginning and at the end are
    made good. Raises DealSyncError (HV000) where a node that is there does not come.
    """
    before = one(ask, nodes.count, int)[0] if limit is None else limit
    seen = array("q")  # of a million nodes 8 MB; of their ids it were a hundred
    for record in ask(nodes.read(None)):
        seen.append(hash(_element_id(record)))
        yield record
    if len(arrived := set(seen)) >= before or len(arrived) >= one(ask, nodes.count, int)[0]:
        return
    missing = [id for (id, *_) in everything(ask, nodes.ids(None)) if hash(id) not in arrived]
    yield from those(ask, nodes, missing if limit is None else missing[: limit - len(arrived)])


def those(ask: Ask, nodes: Nodes, elements: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The records of the nodes with these element ids, but for those that are gone."""
    for _ in range(_TRIES):
        arrived: set[str] = set()
        for at in range(0, len(elements), AT_ONCE):
            for record in ask(nodes.read(elements[at : at + AT_ONCE])):
                arrived.add(_element_id(record))
                yield record
        absent = [element for element in elements if element not in arrived]
        if not absent:
            return
        left = {id for (id, *_) in everything(ask, nodes.ids(absent))}
        elements = [element for element in absent if element in left]
        if not elements:
            return
    raise cut_short(f"nodes that are there and did not arrive: {len(elements)}")


def headed(ask: Ask, query: Query) -> Iterator[tuple[Any, ...]]:
    """The records of a query of `cypher.nodes` that is `headed`."""
    due = -1
    for *record, total in ask(query):
        if due >= 0:
            _element_id(tuple(record))
            yield tuple(record)
        elif not isinstance(total, int):
            raise Garbled("it does not say how many rows there are")
        due = total if due < 0 else due - 1
    if due != 0:
        raise cut_short("a query that always has one row had none" if due < 0 else f"rows that did not arrive: {due}")
