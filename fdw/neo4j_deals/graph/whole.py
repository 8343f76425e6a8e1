"""In: queries. Out: their answers, whole: a result that a server or a proxy ended early is an error, or is made good.

A result that was cut short looks like one that has ended: Bolt says SUCCESS after it. So small answers come as one
record, which is there or is not, and of nodes it is known how many there must be.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from neo4j_deals.errors import DealSyncError
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


def one(ask: Ask, query: Query) -> tuple[Any, ...]:
    """The record of a query that has exactly one."""
    for record in ask(query):
        return record
    raise cut_short("a query that always has one row had none")


def everything(ask: Ask, query: Query) -> list[list[Any]]:
    """All rows of a query whose columns have names, asked for as one record."""
    return list(one(ask, query.gathered())[0])


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
    before = one(ask, nodes.count)[0] if limit is None else limit
    seen = array("q")  # of a million nodes 8 MB; of their ids it were a hundred
    for record in ask(nodes.read(None)):
        seen.append(hash(record[0]))
        yield record
    if len(arrived := set(seen)) >= before or len(arrived) >= one(ask, nodes.count)[0]:
        return
    missing = [id for (id, *_) in everything(ask, nodes.ids(None)) if hash(id) not in arrived]
    yield from those(ask, nodes, missing if limit is None else missing[: limit - len(arrived)])


def those(ask: Ask, nodes: Nodes, elements: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The records of the nodes with these element ids, but for those that are gone."""
    for _ in range(_TRIES):
        arrived: set[str] = set()
        for at in range(0, len(elements), AT_ONCE):
            for record in ask(nodes.read(elements[at : at + AT_ONCE])):
                arrived.add(record[0])
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
            yield tuple(record)
        due = total if due < 0 else due - 1
    if due != 0:
        raise cut_short("a query that always has one row had none" if due < 0 else f"rows that did not arrive: {due}")
