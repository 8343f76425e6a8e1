"""In: a foreign table of the mapping. Out: a setup error, if a target cannot take the values of its column. Pure."""

from __future__ import annotations

from collections.abc import Callable

from neo4j_deals.errors import DealSyncError
from neo4j_deals.mapping.model import READY_MADE, Column, Table
from neo4j_deals.mapping.types import takes


def check_types(source: Table, quoted: Callable[[str], str]) -> None:
    """Raises DealSyncError (42804) for the first column that cannot fill its target, because of their types."""
    for column in source.columns:
        if column.staged_as is not None and not _fits_together(column):
            target = f'column "{column.target}" of its target table' if column.target else "interaction_links"
            raise DealSyncError(
                "42804",
                f'{target} cannot take column "{column.name}" of foreign table {source.name}',
                f"{column.due_as} is due, and the foreign column is of type {column.type_name}",
                f"ALTER FOREIGN TABLE {source.name} ALTER COLUMN {quoted(column.name)} "
                + ("OPTIONS (DROP target);" if column.derive in READY_MADE else f"TYPE {_suitable(column)};"),
            )


def _fits_together(column: Column) -> bool:
    assert column.staged_name is not None
    due = column.due_name or column.staged_name
    if column.derive in READY_MADE:
        return due in ("text", "varchar") or (due in ("json", "jsonb") and column.derive != "element_id")
    length = column.due_modifier if column.due_name else column.staged_modifier
    if due in ("vector", "halfvec") and column.type_name in ("vector", "halfvec") and column.type_modifier > 0 < length:
        return column.type_modifier == length
    return takes(column.type_name, due)


def _suitable(column: Column) -> str | None:
    """A type for the foreign column that holds every value the target takes, and that Multicorn2 can serve."""
    if column.due_name is not None:
        return column.due_as
    match column.staged_name:
        case "varchar" | "uuid":
            return "text"
        case "int2" | "int4":
            return "bigint"
        case "float4" | "numeric":
            return "double precision"
        case "json":
            return "jsonb"
        case "timestamp":
            return "timestamp with time zone"
    return column.staged_as
