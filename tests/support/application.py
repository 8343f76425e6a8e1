"""Flows in: statements in PL/pgSQL. Flows out: an application with a trigger that executes them; its deals, by name."""

import uuid
from typing import Any, LiteralString

from support.database import Connection

WORDS: LiteralString = "Ms Miller is on leave"
ACCOUNT = str(uuid.uuid4())


def names(pg: Connection, tenant: uuid.UUID) -> list[str]:
    return [
        name
        for (name,) in pg.execute(
            "SELECT opportunity_name FROM opportunities WHERE tenant_id = %s ORDER BY opportunity_name", [tenant]
        )
    ]


def trigger(body: LiteralString, when: LiteralString = "BEFORE INSERT", table: LiteralString = "opportunities") -> Any:
    """A row trigger; its function has no search_path of its own, as most have none."""
    return (
        f"CREATE FUNCTION application_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN new; END $$;"
        f"CREATE TRIGGER application {when} ON {table} FOR EACH ROW EXECUTE FUNCTION application_trigger()"
    )
