"""Flows in: a superuser's connection. Flows out: roles that live as long as a test."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

from psycopg import sql

from support.database import Connection

#: What a run needs of the application's tables.
WRITES = (
    "SELECT ON tenants",
    "SELECT, INSERT, UPDATE ON opportunities, deal_versions, interaction_links, forecast_jobs",
)


@contextmanager
def role(pg: Connection, name: str, *grants: LiteralString) -> Iterator[str]:
    """A role of this test, with the grants ("SELECT ON t"), gone afterwards; returns its name."""
    identifier = sql.Identifier(name)
    pg.execute(sql.SQL("CREATE ROLE {} LOGIN").format(identifier))
    try:
        for grant in grants:
            pg.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(grant), identifier))
        yield name
    finally:
        pg.execute("RESET ROLE")
        pg.execute(sql.SQL("DROP OWNED BY {} CASCADE; DROP ROLE {}").format(identifier, identifier))


def fresh(prefix: str) -> str:
    """Roles are the cluster's: a name that no other test has."""
    return f"{prefix}_{uuid.uuid4().hex[:8]}"
