"""Flows in: an instance and a template. Flows out: a database for one test, and connections to it."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from environment.servers import PORT, Instance
from pytest_postgresql.janitor import DatabaseJanitor

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Database:
    """Connections made here are closed before the database is dropped."""

    instance: Instance
    name: str
    _connections: ExitStack

    def dsn(self, user: str = "postgres") -> str:
        return self.instance.dsn(self.name, user)

    def connect(self, user: str = "postgres", **options: Any) -> Connection:
        """Connect as `user` (postgres or app_writer), autocommit unless the options say otherwise."""
        connection = psycopg.connect(self.dsn(user), **{"autocommit": True} | options)
        return self._connections.enter_context(connection)


@contextmanager
def new_database(instance: Instance, template: str = "template0") -> Iterator[Database]:
    """A clone of the template, while it lasts; of template0: an empty database."""
    name = f"test_{uuid.uuid4().hex}"
    host = str(instance.socket_directory)
    with (
        DatabaseJanitor(user="postgres", host=host, port=PORT, dbname=name, template_dbname=template),
        ExitStack() as connections,
    ):
        yield Database(instance, name, connections)


def execute(connection: Connection, statement: str | None) -> None:
    """A statement that is no literal of this file: a hint, say."""
    assert statement is not None
    query: Any = statement
    connection.execute(query)
