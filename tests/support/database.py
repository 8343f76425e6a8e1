"""Flows in: an instance and a template. Flows out: a database for one test, and connections to it."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from environment.servers import Instance

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
    """A clone of the template, while it lasts; of template0: an empty database.

    Its files are copied: by the log, as PostgreSQL does it by default, it takes half as long again.
    """
    name = f"test_{uuid.uuid4().hex}"
    _maintain(instance, f'CREATE DATABASE {name} TEMPLATE "{template}" STRATEGY file_copy')
    try:
        with ExitStack() as connections:
            yield Database(instance, name, connections)
    finally:
        _maintain(instance, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _maintain(instance: Instance, statement: str) -> None:
    with psycopg.connect(instance.dsn("postgres"), autocommit=True) as connection:
        execute(connection, statement)


def execute(connection: Connection, statement: str | None) -> None:
    """A statement that is no literal of this file: a hint, say."""
    assert statement is not None
    query: Any = statement
    connection.execute(query)
