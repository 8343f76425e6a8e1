"""In: a kind of node. Out: the names that a run takes for itself: those of its temporary tables and of their columns.

Pure. A column of the mapping that is staged stands beside these under its own name.
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
#: What the statements add to a staged row.
_ADDED = ("landed_id", "shadows", "landed deal", "number taken by")
_MISFIT = " lost"
_LONGEST = 63  # bytes of a name in PostgreSQL


def staging(kind: str) -> str:
    """The staging table of a kind, qualified."""
    return f"pg_temp.deal_sync_{kind}s"


def plan(kind: str) -> str:
    """The table in which the plan of a batch stands (`statements`), qualified."""
    return f"pg_temp.deal_sync_{kind}_plan"


def misfit(column: str) -> str:
    """The column that says whether a column's value does not fit."""
    return column + _MISFIT


def reserved() -> tuple[list[str], int]:
    """What no column that is staged may be called, and how many bytes its name may have."""
    return [*(name for name, _ in OWN_COLUMNS), *_ADDED], _LONGEST - len(_MISFIT)
