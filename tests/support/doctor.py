"""Flows in: connections and the graph of a test. Flows out: what doctor() says, by check, and its hints, followed."""

import re
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from support.database import Connection
from support.graph import Graph

#: The checks in their order.
NAMES = [
    "python",
    "package",
    "extension",
    "encoding",
    "writable",
    "settings",
    "multicorn",
    "embeddings",
    "foreign tables",
    "spool folder",
    "disk space",
    "server",
    "tls",
    "user mapping",
    "password file",
    "connection",
    "login",
    "database",
    "neo4j version",
    "clock",
    "graph id",
    "open transactions",
    "deals: key index",
    "deals: watermark index",
    "deals: tenant index",
    "versions: key index",
    "versions: watermark index",
    "versions: tenant index",
    "versions: deal index",
    *(
        f"{kind}: {what}"
        for kind in ("deals", "versions")
        for what in ("duplicates", "tenants", "timestamps", "future", "unmapped", "absent")
    ),
    "target tables",
    "target columns",
    "target types",
    "target indexes",
    "row security",
    "policies",
    "role",
    "rights on tables",
    "rights on sync",
    "pg_cron",
    "schedule",
    "last run",
]
INDEXES = [name for name in NAMES if name.endswith("index")]


@dataclass(frozen=True)
class Check:
    """A row of doctor(), but for its name."""

    ok: bool | None
    detail: str
    hint: str | None


def doctor(connection: Connection, role: str | None = None) -> dict[str, Check]:
    """What it says, by the names of the checks in their order."""
    rows = connection.execute(
        "SELECT name, ok, detail, hint FROM deal_sync.doctor(%s::text::regrole)", [role]
    ).fetchall()
    found = {row[0]: Check(*row[1:]) for row in rows}
    assert len(found) == len(rows), "each check has a name of its own"
    return found


def broken(checks: dict[str, Check]) -> set[str]:
    """The names of those that found something wrong."""
    return {name for name, check in checks.items() if check.ok is False}


def cypher(graph: Graph, hint: str | None) -> list[dict[str, Any]]:
    """Runs the Cypher of a hint, each statement: all of it, or what follows "they are"."""
    assert hint is not None
    statements = hint.split("; MATCH ")
    first = re.sub("^.*?([Tt]hey|which) are( among)?: ", "", statements[0])
    return [row for one in (first, *(f"MATCH {other}" for other in statements[1:])) for row in graph.run(one)]


def set_uri(pg: Connection, uri: str) -> None:
    pg.execute(sql.SQL("ALTER SERVER neo4j OPTIONS (SET uri {})").format(uri))
