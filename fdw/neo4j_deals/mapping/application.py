"""In: pg_catalog's rows of the application's tables. Out: the tables that the sync writes, and their columns. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The columns of a link, and their types.
LINK = {"tenant_id": "uuid", "interaction_id": "uuid", "entity_id": "uuid", "entity_type": "text"}

#: Columns of the links, other than the link itself, that an insert fills if they have no default: by name, the types
#: that they may have, and the value.
_GIVEN = {
    "id": (("uuid",), "gen_random_uuid()"),
    "created_at": (("timestamptz", "timestamp"), "now()"),
    "updated_at": (("timestamptz", "timestamp"), "now()"),
}


@dataclass(frozen=True)
class TargetColumn:
    """A column of one of the application's tables."""

    name: str
    #: Its type, as format_type() spells it.
    type_family: str
    #: Its base type, if that is a domain: its name in pg_type, and with its modifier.
    base_name: str
    base_as: str
    not_null: bool = False
    #: Whether it gets a value if an insert does not name it.
    has_default: bool = False
    is_generated: bool = False
    #: Of an enum, the first.
    first_label: str | None = None

    @property
    def must_be_given(self) -> bool:
        """Whether an insert must name it."""
        return self.not_null and not self.has_default

    @property
    def given(self) -> str | None:
        """For a link: the expression that an insert writes to it."""
        types, value = _GIVEN.get(self.name, ((), None))
        return value if self.must_be_given and self.base_name in types else None


@dataclass(frozen=True)
class Rule:
    """A rule of a table, for a command as pg_rewrite numbers it: "2" UPDATE, "3" INSERT, "4" DELETE."""

    name: str
    command: str
    is_enabled: bool


@dataclass(frozen=True)
class TargetTable:
    """A table of the application: its quoted name, and its columns in their order."""

    name: str
    columns: tuple[TargetColumn, ...] = ()
    relkind: str = "r"
    rules: tuple[Rule, ...] = ()
    #: The columns of each index that has an order and all rows.
    indexes: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> TargetTable:
        """From a row of the catalog, with columns and rules as JSON."""
        columns, rules, indexes = (json.loads(row[name] or "[]") for name in ("columns", "rules", "indexes"))
        return cls(
            row["name"],
            tuple(TargetColumn(**column) for column in columns),
            row["relkind"],
            tuple(Rule(**rule) for rule in rules),
            tuple(map(tuple, indexes)),
        )

    def column(self, name: str) -> TargetColumn | None:
        """A column by its name; None if there is none."""
        return next((column for column in self.columns if column.name == name), None)

    def has_index(self, *names: str) -> bool:
        """Whether an index leads to the rows with these values, in this order, of a tenant or of all."""
        wanted = (names, ("tenant_id", *names))
        return any(index[: len(columns)] == columns for index in self.indexes for columns in wanted)


@dataclass(frozen=True)
class Application:
    """The application's tables that the sync writes."""

    deals: TargetTable
    versions: TargetTable
    links: TargetTable

    @property
    def link_columns(self) -> list[tuple[str, str]]:
        """The columns of the links that an insert fills beside the link itself, each with its expression."""
        return [(column.name, column.given) for column in self.links.columns if column.given is not None]
