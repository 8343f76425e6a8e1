"""Flows in: an instance and a template. Flows out: a database for one test, and connections to it."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from environment.servers import Instance

Connection = psycopg.Connection[tuple[Any, ...]]


class Database:
    """A clone of the template, until `close`; connections made here are closed with it."""

    def __init__(self, instance: Instance, name: str) -> None:
        self.instance = instance
        self.name = name
        self._connections = ExitStack()

    def dsn(self, user: str = "postgres") -> str:
        return self.instance.dsn(self.name, user)

    def connect(self, user: str = "postgres", **options: Any) -> Connection:
        """Connect as `user` (postgres or app_writer), autocommit unless the options say otherwise."""
        connection = psycopg.connect(self.dsn(user), **{"autocommit": True} | options)
        return self._connections.enter_context(connection)

    def create(self, template: str) -> None:
        self._administer(f'CREATE DATABASE "{self.name}" TEMPLATE "{template}"')

    def speak(self, language: str) -> None:
        """What the server says to sessions that are opened from now on is in the language of this lc_messages."""
        self._administer(f"ALTER DATABASE \"{self.name}\" SET lc_messages = '{language}'")

    def close(self) -> None:
        self._connections.close()
        self._administer(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    def _administer(self, statement: str) -> None:
        with psycopg.connect(self.instance.dsn("postgres"), autocommit=True) as connection:
            connection.execute(statement)


def execute(connection: Connection, statement: str | None) -> None:
    """A statement that is no literal of this file: a hint, say."""
    assert statement is not None
    query: Any = statement
    connection.execute(query)


@contextmanager
def new_database(servers: Instance) -> Iterator[Database]:
    """An empty database."""
    database = Database(servers, f"test_{uuid.uuid4().hex}")
    database.create("template0")
    try:
        yield database
    finally:
        database.close()
