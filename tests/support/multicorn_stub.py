"""Flows in: nothing. Out: modules that stand for Multicorn2's, so that the wrapper's class can be driven without it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

from environment.servers import Instance

NAMES = ("multicorn", "multicorn.utils", "neo4j_deals.tables.wrapper")


class Qual(NamedTuple):
    """As Multicorn gives it."""

    field_name: str
    operator: str | tuple[str, bool]
    value: Any


class SortKey(NamedTuple):
    """As Multicorn gives it; `attnum` is of no use to the wrapper."""

    attname: str
    is_reversed: bool = False
    nulls_first: bool = False
    collate: str | None = None
    attnum: int = 0


@dataclass(frozen=True)
class ColumnDefinition:
    """As Multicorn gives it."""

    column_name: str
    base_type_name: str
    typmod: int = -1
    options: Mapping[str, str] = field(default_factory=dict)


class Rejected(Exception):
    """What log_to_postgres raises for ERROR."""


class ForeignDataWrapper:
    """The base class; it does nothing."""

    def __init__(self, options: Any, columns: Any) -> None:
        pass


def log_to_postgres(message: str, level: int = 20, hint: str | None = None, detail: str | None = None) -> None:
    """Raises for an ERROR; all else is only said."""
    if level >= 40:
        raise Rejected(message, detail, hint)


@contextmanager
def wrapper() -> Iterator[Any]:
    """The wrapper's module, loaded beside modules that stand for Multicorn2's."""
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    base, utils = ModuleType("multicorn"), ModuleType("multicorn.utils")
    base.ForeignDataWrapper = ForeignDataWrapper  # type: ignore[attr-defined]
    base.utils = utils  # type: ignore[attr-defined]
    utils.log_to_postgres = log_to_postgres  # type: ignore[attr-defined]
    utils.ERROR = 40  # type: ignore[attr-defined]
    sys.modules |= {"multicorn": base, "multicorn.utils": utils}
    try:
        import neo4j_deals.tables.wrapper as module

        yield module
    finally:
        for name, module_before in before.items():
            sys.modules.pop(name, None)
            if module_before is not None:
                sys.modules[name] = module_before


def options(servers: Instance, **table: str) -> dict[str, str]:
    """The options of server, user mapping and table, which Multicorn gives as one."""
    facts = servers.facts
    return {"uri": facts["neo4j_uri"], "user": facts["neo4j_user"], "password": facts["neo4j_password"], **table}


def columns(*definitions: ColumnDefinition) -> dict[str, ColumnDefinition]:
    """A table's columns as Multicorn gives them."""
    return {definition.column_name: definition for definition in definitions}
