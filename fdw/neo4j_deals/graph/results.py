"""In: queries. Out: their complete results: one that a server or a proxy ended early is an error, or is completed.

A result that was cut short looks complete: SUCCESS follows it in Bolt. So small answers come as one record, which is
there or is not, and nodes are counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from neo4j_deals.errors import DealSyncError, Garbled
from neo4j_deals.graph.connection import Ask
from neo4j_deals.graph.cypher import Query

AT_ONCE = 10_000  # nodes per list of element ids
_PARTS = 256  # of the nodes that arrived: one part at a time becomes a set
_TRIES = 3  # a node may be deleted and come back while it is looked for


def cut_short(said: str) -> DealSyncError:
    """The error for an incomplete result."""
    return DealSyncError(
        "HV000",
        "incomplete result from Neo4j, or from a proxy in front of it",
        said,
        'The server\'s option "uri" should be the address of Neo4j itself. Then try again.',
    )


def one(ask: Ask, query: Query, *types: Any) -> tuple[Any, ...]:
    """The record of a query that has exactly one. Raises Garbled if its values are not of these types."""
    for record in many(ask, query, *types):
        return record
    raise cut_short("a query that always returns one row returned none")


def many(ask: Ask, query: Query, *types: Any) -> Iterator[tuple[Any, ...]]:
    """The records of a query. Raises Garbled if their values are not of these types."""
    for record in ask(query):
        yield _of(types, record)


def everything(ask: Ask, query: Query, *types: Any) -> list[list[Any]]:
    """All rows of a query whose columns have names, gathered into one record.

    Raises Garbled if their values are not of these types; by default, a column named id has texts, others anything.
    """
    (found,) = one(ask, query.gathered(), list)
    return rows_of(found, *(types or [str if name == "id" else object for name in query.names]))


def rows_of(values: Sequence[Any], *types: Any) -> list[list[Any]]:
    """A list of lists. Raises Garbled if it is not one, or if its values are not of these types."""
    return [_of(types, value) for value in values]


def _of(types: Sequence[Any], values: Any) -> Any:
    if not isinstance(values, list | tuple) or len(values) != len(types) or not all(map(isinstance, values, types)):
        raise Garbled("a row does not have the values that the query returns")
    return values


def _element_id(record: tuple[Any, ...]) -> str:
    if isinstance(element := record[0], str):
        return element
    raise Garbled("a node has no element id")


@dataclass(frozen=True)
class Expected:
    """How to read some nodes: `read` asks for all of them (None) or for those with these element ids, id first.

    `count` asks how many there are; `ids` for the element ids of all (None), or of those of some that still exist.
    """

    read: Callable[[Sequence[str] | None], Query]
    count: Query
    ids: Callable[[Sequence[str] | None], Query]


def every(ask: Ask, nodes: Expected, limit: int | None = None) -> Iterator[tuple[Any, ...]]:
    """The records of all the nodes, or of `limit` of them.

    Nodes that are created or deleted meanwhile may be among them or not. If there are fewer than were counted before
    and afterwards, the missing ones are read again. Raises DealSyncError (HV000) if a node that exists does not arrive.
    """
    before = one(ask, nodes.count, int)[0] if limit is None else limit
    seen = [array("q") for _ in range(_PARTS)]  # 8 MB for a million nodes; a set would take eighty
    for record in ask(nodes.read(None)):
        hashed = hash(_element_id(record))
        seen[hashed % _PARTS].append(hashed)
        yield record
    arrived = sum(len(set(part)) for part in seen)
    if arrived >= before or arrived >= one(ask, nodes.count, int)[0]:
        return
    all_seen = {hashed for part in seen for hashed in part}
    missing = [id for (id, *_) in everything(ask, nodes.ids(None)) if hash(id) not in all_seen]
    yield from those(ask, nodes, missing if limit is None else missing[: limit - arrived])


def those(ask: Ask, nodes: Expected, elements: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The records of the nodes with these element ids, except those that no longer exist."""
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
    raise cut_short(f"existing nodes that were not returned: {len(elements)}")


def headed(ask: Ask, query: Query) -> Iterator[tuple[Any, ...]]:
    """The records of a query of `cypher.nodes` with `headed`."""
    due = -1
    for *record, total in ask(query):
        if due >= 0:
            _element_id(tuple(record))
            yield tuple(record)
        elif not isinstance(total, int):
            raise Garbled("the number of rows is missing")
        due = total if due < 0 else due - 1
    if due != 0:
        raise cut_short(
            "a query that always returns one row returned none" if due < 0 else f"rows that were not returned: {due}"
        )
