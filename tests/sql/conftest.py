"""Flows in: a test's database. Flows out: what several files of this folder need of it."""

import pytest
from support.database import Connection


@pytest.fixture
def out_of_reach(pg: Connection) -> None:
    """Whoever tried to read would be `failed`: there is no Neo4j."""
    pg.execute("ALTER SERVER neo4j OPTIONS (SET uri 'bolt://127.0.0.1:1')")
