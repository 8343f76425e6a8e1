"""In: a kind of node. Out: the names that a run uses for its temporary tables and for its own columns in them.

Pure. The staged columns of the mapping are added to these, under their own names.
"""

from __future__ import annotations

#: The staging table's columns before those of the mapping, and their types, in the order of a row.
OWN_COLUMNS = (
    ("row_number", "bigint"),
    ("element_id", "text"),
    ("graph_id", "text"),
    ("reject", "jsonb"),
    ("conversion_errors", "jsonb"),
    ("undated", "text"),  # for a node without a timestamp: the digest of what was read
)
#: The columns that the statements add to a staged row: `sql/source.sql`.
_ADDED = ("landed_id", "shadows", "landed place", "landed part", "landed deal", "number taken by")
_MISFIT = " lost"
_LONGEST = 63  # bytes of a PostgreSQL name


def staging(kind: str) -> str:
    """The qualified name of the staging table of a kind."""
    return f"pg_temp.deal_sync_{kind}s"


def plan(kind: str) -> str:
    """The qualified name of the table with the plan of a batch (see `statements`)."""
    return f"pg_temp.deal_sync_{kind}_plan"


def misfit(column: str) -> str:
    """The name of the column that tells whether a column's value is a misfit."""
    return column + _MISFIT


def reserved() -> tuple[list[str], int]:
    """The names that no staged column may have, and the most bytes that its name may have."""
    return [*(name for name, _ in OWN_COLUMNS), *_ADDED], _LONGEST - len(_MISFIT)
