"""Flows in: PostgreSQL, and values. Flows out: what PostgreSQL thinks of each, and what a converter does."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from neo4j_deals.rows.values import (
    Misfit,
    converter,
)

from support.database import Connection


def rejection(oracle: Connection, type_: str, text: str) -> str | None:
    """The SQLSTATE with which PostgreSQL rejects a text for a type, None where it takes it."""
    try:
        oracle.execute(f"SELECT %s::text::{type_}", [text])
    except psycopg.Error as error:
        return error.sqlstate
    return None


def outcome(convert: Callable[[Any], Any], value: Any) -> tuple[Any, Misfit | None]:
    """What lands, and why it is not the value itself."""
    try:
        return convert(value), None
    except Misfit as rejected:
        return rejected.substitute, rejected


def misfit(type_name: str, value: Any, modifier: int = -1) -> Misfit:
    with pytest.raises(Misfit) as caught:
        converter(type_name, modifier)(value)
    return caught.value
