"""Flows in: the servers. Flows out: databases that hold pgvector and the application's tables, and no deal_sync."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from environment.servers import Instance
from psycopg import sql
from support.database import Connection
from support.database import new_database as empty_database
from support.migration import APPLICATION, MIGRATION, NewDatabase, fill, fill_versions


@pytest.fixture
def new_database(servers: Instance) -> Iterator[NewDatabase]:
    """Makes a database with pgvector and the application's tables, and drops it after the test."""
    with ExitStack() as stack:

        def make(vector_schema: str | None = "public", application: bool = True) -> Connection:
            connection = stack.enter_context(empty_database(servers)).connect()
            if vector_schema is not None:
                schema = sql.Identifier(vector_schema)
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
                connection.execute(sql.SQL("CREATE EXTENSION vector SCHEMA {}").format(schema))
            if application:
                connection.execute(APPLICATION)
            return connection

        yield make


@pytest.fixture
def database(new_database: NewDatabase) -> Connection:
    """Overrides conftest's: this one has no deal_sync."""
    return new_database()


@pytest.fixture
def migrated(database: Connection) -> Connection:
    fill(database)
    database.execute(MIGRATION)
    fill_versions(database)
    return database
