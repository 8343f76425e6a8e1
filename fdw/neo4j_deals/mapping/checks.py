"""In: a foreign table of the mapping. Out: a setup error, if a target cannot take the values of its column. Pure."""

from __future__ import annotations

from collections.abc import Callable

from neo4j_deals.errors import DealSyncError
from neo4j_deals.mapping.model import READY_MADE, Column, Table
from neo4j_deals.mapping.types import VECTORS, suitable, takes


def check_types(table: Table, quoted: Callable[[str], str]) -> None:
    """Raises DealSyncError (42804) for the first column that cannot fill its target, because of their types."""
    for column in table.columns:
        if column.staged_as is not None and not _fits_together(column):
            target = f'column "{column.target}" of its target table' if column.target else "interaction_links"
            raise DealSyncError(
                "42804",
                f'{target} cannot take column "{column.name}" of foreign table {table.name}',
                f"{column.due_as} is due, and the foreign column is of type {column.type_name}",
                f"ALTER FOREIGN TABLE {table.name} ALTER COLUMN {quoted(column.name)} "
                + ("OPTIONS (DROP target);" if column.derive in READY_MADE else f"TYPE {_suitable(column)};"),
            )


def _fits_together(column: Column) -> bool:
    assert column.staged_name is not None
    due = column.due_name or column.staged_name
    if column.derive in READY_MADE:
        return due in ("text", "varchar") or (due in ("json", "jsonb") and column.derive != "element_id")
    length = column.due_modifier if column.due_name else column.staged_modifier
    if due in VECTORS and column.type_name in VECTORS and column.type_modifier > 0 < length:
        return column.type_modifier == length
    return takes(column.type_name, due)


def _suitable(column: Column) -> str:
    assert column.staged_name is not None
    name, spelling = column.staged_name, column.staged_as
    if column.due_name is not None:
        name, spelling = column.due_name, column.due_as
    return suitable(name, spelling or "text")
