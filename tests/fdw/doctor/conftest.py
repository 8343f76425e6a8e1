"""Flows in: a test's database.
Flows out: what doctor() is asked about: a role that has nothing, a password in a file.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from environment.database import literal
from environment.servers import Instance, make_directory, write_private
from support.database import Connection, execute


@pytest.fixture
def role(pg: Connection) -> Iterator[str]:
    """A role that has nothing yet."""
    pg.execute("CREATE ROLE doctors_patient LOGIN")
    yield "doctors_patient"
    pg.execute("DROP OWNED BY doctors_patient; DROP ROLE doctors_patient")


@pytest.fixture
def password_file(servers: Instance, pg: Connection) -> Iterator[Path]:
    """The user mapping's; the servers' user owns it."""
    directory = servers.directory / "doctor"
    make_directory(directory, 0o755)
    path = directory / "password"
    write_private(path, servers.facts["neo4j_password"])
    execute(
        pg,
        f"ALTER USER MAPPING FOR postgres SERVER neo4j OPTIONS (DROP password, ADD password_file {literal(str(path))})",
    )
    yield path
    path.unlink(missing_ok=True)
    directory.rmdir()
