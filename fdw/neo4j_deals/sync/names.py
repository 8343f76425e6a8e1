"""In: a kind of node. Out: the names that a run uses for its temporary tables and for its own columns in them.

Pure. The staged columns of the mapping stand beside these, under their own names.
"""

from __future__ import annotations

#: The staging table's columns before those of the mapping, and their types, in the order of a row.
OWN_COLUMNS = (
    ("row_number", "bigint"),
    ("element_id", "text"),
    ("graph_id", "text"),
    ("refusal", "jsonb"),
    ("conversion_errors", "jsonb"),
    ("undated", "text"),  # of a node that does not say when it changed, the digest of what was read
)
#: What the statements add to a staged row: `sql/source.sql`.
_ADDED = ("landed_id", "shadows", "landed deal", "number taken by")
_MISFIT = " lost"
_LONGEST = 63  # bytes of a name in PostgreSQL


def staging(kind: str) -> str:
    """The staging table of a kind, qualified."""
    return f"pg_temp.deal_sync_{kind}s"


def plan(kind: str) -> str:
    """The table with the plan of a batch (`statements`), qualified."""
    return f"pg_temp.deal_sync_{kind}_plan"


def misfit(column: str) -> str:
    """The column that says whether the value of a column is a misfit."""
    return column + _MISFIT


def reserved() -> tuple[list[str], int]:
    """The names that a staged column cannot have, and how many bytes its name can have."""
    return [*(name for name, _ in OWN_COLUMNS), *_ADDED], _LONGEST - len(_MISFIT)
