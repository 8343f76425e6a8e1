"""In: docs/quickstart.md, on the playground's graph and tables. Out: proof that each step shows what the page shows."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from environment import database as environment_database
from environment.machine import BIN
from environment.servers import Instance
from support.database import Database, new_database
from support.documents import PAGES, blocks
from support.graph import Graph

STEPS = re.findall(r"^```sql\n(.*?)^```\n\n```text\n(.*?)^```$", PAGES["quickstart.md"], re.M | re.S)


@pytest.fixture
def playground(servers: Instance, graph: Graph) -> Iterator[Database]:
    """A database as `make up` makes it."""
    environment_database.run_cypher(servers, environment_database.DEMO / "graph.cypher")
    with new_database(servers) as database:
        environment_database.set_up(servers, database.name)
        servers.psql(database.name, "-f", environment_database.DEMO / "application.sql")
        yield database


def test_each_step_shows_what_the_page_shows(playground: Database) -> None:
    assert len(STEPS) == len(blocks(PAGES["quickstart.md"])) > 5
    for statements, shown in STEPS:
        command = [BIN / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", playground.dsn(), "-c", statements]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip("\n")
        assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines(), statements
