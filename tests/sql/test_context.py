"""Flows in: what goes wrong most often when somebody sets the extension up. Flows out: one line of CONTEXT at most."""

import uuid
from typing import LiteralString

import psycopg
import pytest
from support.database import Connection

SYNC: LiteralString = "SELECT * FROM sync_deals(%(tenant)s)"

# What was done before, what is called, what the error is about.
MISTAKES: dict[str, tuple[LiteralString, LiteralString, str]] = {
    "another mode": ("", "SELECT * FROM sync_deals(%(tenant)s, 'everything')", "unknown mode"),
    "no tenant": ("", "SELECT * FROM sync_deals(NULL)", "requires a tenant"),
    "an unknown tenant": ("", "SELECT * FROM sync_deals(gen_random_uuid())", "is not in table"),
    "a tenant in the setting": ("SET app.tenant_id = 'none'", SYNC, "app.tenant_id"),
    "no server for attach": ("", "SELECT deal_sync.attach('none')", "does not exist"),
    "no rights": ("BEGIN; CREATE ROLE nobody; SELECT deal_sync.grant_sync('nobody'); SET ROLE nobody", SYNC, "lacks"),
    "a setting": ("SET deal_sync.max_rejects = 'many'", SYNC, "deal_sync.max_rejects"),
    "an option": ("", "ALTER SERVER neo4j OPTIONS (ADD fetchsize '1')", "fetchsize"),
    "a graph id": ("", "SELECT * FROM deal_sync.replay(%(tenant)s, '{none}')", "invalid graph id"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_setup_error_shows_no_chain_of_functions(pg: Connection, tenant: uuid.UUID, mistake: str) -> None:
    before, statement, about = MISTAKES[mistake]
    pg.execute(before)
    with pytest.raises(psycopg.Error, match=about) as raised:
        pg.execute(statement, {"tenant": tenant} if "%" in statement else None)
    assert len((raised.value.diag.context or "").splitlines()) <= 1
    assert raised.value.diag.message_hint
    assert raised.value.diag.message_detail != ""
