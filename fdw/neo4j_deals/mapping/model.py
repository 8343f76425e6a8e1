"""In: rows of the catalog, as `_deal_sync.mapping_columns` returns them. Out: a foreign table and its columns.

Pure. The catalog holds the mapping; the classes here only give names to what it says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neo4j_deals.errors import DealSyncError
from neo4j_deals.mapping.types import TEXTS, convertible


@dataclass(frozen=True)
class Source:
    """Where rows come from: the nodes of a label, or the query in the table's option cypher."""

    label: str | None = None
    query: str | None = None

    @classmethod
    def read(cls, options: Mapping[str, str], table: str) -> Source:
        """From a table's options. Raises DealSyncError if it has neither a label nor a query, or both."""
        found = cls(options.get("label"), options.get("cypher"))
        if (found.label is None) == (found.query is None):
            raise DealSyncError(
                "HV00J",
                f'{table} has no option "label"'
                if found.label is None
                else f'{table} has both options "label" and "cypher"',
                hint="ALTER FOREIGN TABLE ... OPTIONS (ADD label '...'); or (ADD cypher 'MATCH ... RETURN ...');"
                if found.label is None
                else "ALTER FOREIGN TABLE ... OPTIONS (DROP label);",
            )
        return found

    def __str__(self) -> str:
        return f"nodes :{self.label}" if self.query is None else "the query of the option cypher"


#: Derived columns that come in a type of their own and are not converted.
READY_MADE = frozenset({"ontology_scores", "workflow_metadata", "element_id", "conversion_errors"})


class Written:
    """What the option `write` means for a row that exists. An insert writes all columns but those with `never`."""

    write: str

    @property
    def is_written(self) -> bool:
        """Whether its target is written at all."""
        return self.write != "never"

    @property
    def overwrites(self) -> bool:
        """Whether an update replaces what the row has."""
        return self.write == "always"

    @property
    def fills(self) -> bool:
        """Whether an update replaces NULL, and nothing else."""
        return self.write == "fill"

    @property
    def keeps(self) -> bool:
        """Whether an update leaves what the row has."""
        return self.write in ("insert", "fill")


@dataclass(frozen=True)
class Policy(Written):
    """A value of the option by itself."""

    write: str


@dataclass(frozen=True)
class Column(Written):
    """A column of a foreign table. A type is its name in pg_type and its modifier; `*_family` is the type as
    format_type() spells it without the modifier, `*_as` with it.
    """

    name: str
    #: The property that it shows.
    property: str
    #: Its own type.
    type_name: str
    type_modifier: int = -1
    type_family: str = ""
    type_as: str = ""

    #: What it shows instead of a property, and the properties from which that is derived.
    derive: str | None = None
    of: tuple[str, ...] = ()
    #: Nodes are looked up by it (the mapping's ids, and the columns in the table's option "key"), so that Neo4j can use
    #: an index for equality; a text with a NUL character is not a key.
    key: bool = False
    #: The column that it fills, and how.
    target: str | None = None
    write: str = "always"
    write_is_given: bool = False
    #: What becomes of a misfit: `null`, `keep` or `reject`.
    on_misfit: str = "null"
    #: A misfit is an error in a SELECT; the sync rejects the row, as with `reject`.
    strict: bool = False
    empty_is_null: bool = False
    #: Its value is the id of an interaction, to be linked with the deal.
    link: bool = False
    #: What an insert writes instead of an absent value: another column, or a constant.
    fallback: str | None = None
    default: str | None = None

    #: The type in the staging table; None if the column is not staged.
    staged_as: str | None = None
    staged_name: str | None = None
    staged_modifier: int = -1
    staged_family: str | None = None
    #: The type of which it is staged as the text. None: it is staged as itself, or for a type that is unknown here: the
    #: input function of that decides what it takes.
    text_of: str | None = None
    #: The type of its target; of a domain, the base type.
    due_as: str | None = None
    due_name: str | None = None
    due_modifier: int = -1

    #: The target itself. Its default expression, if it is NOT NULL, is written instead of an absent value, too.
    target_is_there: bool = False
    target_family: str | None = None
    target_as: str | None = None
    target_modifier: int = -1
    target_default: str | None = None
    not_null: bool = False
    #: The target is NOT NULL, and an insert has nothing else to put there.
    required: bool = False

    @classmethod
    def read(cls, row: Mapping[str, Any], keys: Sequence[str] = ()) -> Column:
        """From a row of `_deal_sync.mapping_columns`; `keys` are the columns in the table's option "key"."""
        options = json.loads(row["options"] or "{}")
        due = row["due_name"]
        is_text = row["staged_name"] == "text" and due not in TEXTS and convertible(due)
        return cls(
            **_definition(row["name"], row["type_name"], row["type_modifier"], options, keys),
            required=bool(row["required"]),
            not_null=bool(row["not_null"]),
            staged_as=row["staged_as"],
            staged_name=row["staged_name"],
            staged_modifier=row["staged_modifier"] if row["staged_modifier"] is not None else -1,
            due_as=row["due_as"],
            text_of=due if is_text else None,
            due_name=due,
            due_modifier=row["due_modifier"] if row["due_modifier"] is not None else -1,
            type_family=row["type_family"],
            type_as=row["type_as"],
            staged_family=row["staged_family"],
            target_is_there=bool(row["target_is_there"]),
            target_family=row["target_family"],
            target_as=row["target_as"],
            target_modifier=row["target_modifier"] if row["target_modifier"] is not None else -1,
            target_default=row["target_default"],
        )

    @classmethod
    def defined(
        cls, name: str, type_name: str, type_modifier: int, options: Mapping[str, str], keys: Sequence[str]
    ) -> Column:
        """From its definition alone: name, type and options."""
        return cls(**_definition(name, type_name, type_modifier, options, keys))


def _definition(
    name: str, type_name: str, type_modifier: int, options: Mapping[str, str], keys: Sequence[str]
) -> dict[str, Any]:
    strict = options.get("on_misfit") == "error"
    return {
        "name": name,
        "property": options.get("property", name),
        "type_name": type_name,
        "type_modifier": type_modifier,
        "derive": options.get("derive"),
        "of": tuple(name.strip() for name in options["of"].split(",")) if "of" in options else (),
        "target": options.get("target"),
        "write": options.get("write", "always"),
        "write_is_given": "write" in options,
        "on_misfit": "reject" if strict else options.get("on_misfit", "null"),
        "strict": strict,
        "empty_is_null": options.get("empty") == "null",
        "link": options.get("link") == "true",
        "fallback": options.get("fallback"),
        "default": options.get("default"),
        "key": options.get("target") in _KEY_TARGETS or name in keys,
    }


#: By kind, the target with the node's own id, and the one with its deal's.
_KEY = {"deal": "graph_opportunity_id", "version": "id"}
_DEAL = {"deal": "graph_opportunity_id", "version": "opportunity_id"}
_TENANT = "tenant_id"
_NUMBER = "version_number"
_KEY_TARGETS = frozenset({_TENANT, *_KEY.values(), *_DEAL.values()})


def keys_of(options: Mapping[str, str]) -> list[str]:
    """The columns that a table's option "key" names."""
    return [name.strip() for name in options["key"].split(",")] if "key" in options else []


@dataclass(frozen=True)
class Table:
    """A foreign table: what it is in the graph, and its columns in their order. `kind` is empty of one that is not of
    the mapping.
    """

    name: str
    kind: str
    source: Source
    columns: tuple[Column, ...]
    #: The option: the column of the deals' target that is set to the time of each change.
    stamps: str | None = None

    @property
    def stamp(self) -> str:
        """That column by default, too; it need not exist then."""
        return self.stamps or "updated_at"

    @property
    def label(self) -> str:
        """The label of its nodes. Raises DealSyncError if the table is defined by a query."""
        if self.source.label is None:
            raise DealSyncError(
                "HV00J",
                f'foreign table {self.name} has no option "label"',
                hint="The sync reads labels only:"
                f" ALTER FOREIGN TABLE {self.name} OPTIONS (DROP cypher, ADD label '...');",
            )
        return self.source.label

    def targeting(self, target: str) -> Column:
        """The column that fills a column of the application's table. Raises DealSyncError if there is none."""
        for column in self.columns:
            if column.target == target:
                return column
        raise DealSyncError("42703", f'no column of foreign table {self.name} has the target "{target}"')

    @property
    def key_target(self) -> str:
        """The target with the node's own id."""
        return _KEY[self.kind]

    @property
    def deal_target(self) -> str:
        """The target with the deal's id: of the node itself, or of the deal that a version belongs to."""
        return _DEAL[self.kind]

    @property
    def key_targets(self) -> list[str]:
        """The targets without which no row can be found or made."""
        numbers = [_NUMBER] if self.kind == "version" else []
        return list(dict.fromkeys([_TENANT, self.key_target, self.deal_target, *numbers]))

    @property
    def key(self) -> Column:
        """The column with the node's own id."""
        return self.targeting(self.key_target)

    @property
    def deal(self) -> Column:
        """The column with the deal's id: of the node itself, or of the deal that a version belongs to."""
        return self.targeting(self.deal_target)

    @property
    def tenant(self) -> Column:
        """The column with the tenant's id."""
        return self.targeting(_TENANT)

    @property
    def changed_by(self) -> list[str]:
        """The properties that say when a node changed; the first one that a node has counts.

        Not a version's last_updated_at, which is a copy of its deal's.
        """
        names = ("last_updated_at",) if self.kind == "deal" else ("valid_until", "created_at")
        return [self.behind(name) for name in names]

    @property
    def created_by(self) -> list[str]:
        """The properties that say when a node was created; the first one that a node has counts."""
        return [self.behind(name) for name in ("created_at", "valid_until")]

    def behind(self, name: str) -> str:
        """The property that a foreign column shows; if the table lacks the column, its name."""
        return next((column.property for column in self.columns if column.name == name), name)
