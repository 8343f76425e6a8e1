"""Flows in: the driver's connections. Flows out: the same to Neo4j and back; the queries, and what they cost there."""

import re
import struct
from collections.abc import Iterator
from typing import Any

from neo4j._codec.hydration.bolt import v2
from neo4j._codec.packstream import v1

from support.graph import Graph
from support.proxy import Proxy, _Link

RUN = b"\xb3\x10"
VERSIONS, CHOICE = 20, 5  # bytes: the versions that the driver offers; its choice, if the server names several


class Recorder(Proxy):
    """`queries` are those that were sent since it was last emptied, each with its parameters."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.queries: list[tuple[str, dict[str, Any]]] = []

    def _requests(self, link: _Link) -> None:
        buffer, message, greeted = b"", b"", False
        while data := link.client.recv(65536):
            buffer += data
            if not greeted and len(buffer) >= VERSIONS + CHOICE:
                has_choice = buffer[VERSIONS : VERSIONS + 2] == b"\0\0"
                buffer, greeted = buffer[VERSIONS + CHOICE * has_choice :], True
            while greeted and len(buffer) >= 2 and len(buffer) >= 2 + (size := struct.unpack(">H", buffer[:2])[0]):
                message += buffer[2 : 2 + size]
                buffer = buffer[2 + size :]
                if not size:
                    if message.startswith(RUN):
                        self.queries.append(_query(message[len(RUN) :]))
                    message = b""
            link.server.sendall(data)


def _query(fields: bytes) -> tuple[str, dict[str, Any]]:
    driver: Any = v1
    unpacker = driver.Unpacker(driver.UnpackableBuffer(fields))
    hooks = v2.HydrationHandler().new_hydration_scope().hydration_hooks
    return unpacker.unpack(hooks), unpacker.unpack(hooks)


def db_hits(graph: Graph, text: str, parameters: dict[str, Any]) -> int:
    """How often a query asks the store for something, as PROFILE counts it."""
    with graph.driver.session() as session:
        return _hits(session.run(f"PROFILE {text}", parameters).consume().profile)


def _hits(plan: Any) -> int:
    return int(plan.get("dbHits", 0)) + sum(map(_hits, plan.get("children", ())))


def ways(graph: Graph, text: str, parameters: dict[str, Any]) -> set[str]:
    """How a query finds its nodes: by which indexes, as Label(properties), or else by which operators."""
    with graph.driver.session() as session:
        return set(_ways(session.run(f"EXPLAIN {text}", parameters).consume().plan))


def _ways(plan: Any) -> Iterator[str]:
    operator = plan["operatorType"].split("@")[0]
    if re.match("Node.*(Seek|Scan)|AllNodesScan", operator):
        index = re.search(r"(?:INDEX|UNIQUE) n:(\w+\([\w, ]+\))", plan["args"]["Details"])
        yield index[1] if index and "Seek" in operator else operator
    for child in plan.get("children", ()):
        yield from _ways(child)
