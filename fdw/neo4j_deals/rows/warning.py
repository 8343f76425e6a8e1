"""In: the misfits of a SELECT. Out: one WARNING at the end of the scan, or an error at once.

Pure. It depends on the column's option `on_misfit`: `error` raises an error; otherwise the value is NULL (or a text
without the characters that PostgreSQL does not support), and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from neo4j_deals.errors import DealSyncError
from neo4j_deals.mapping.model import Column
from neo4j_deals.rows.values import Misfits


@dataclass(frozen=True)
class Warned:
    """A message with DETAIL and HINT, as `plpy.warning` and Multicorn's `log_to_postgres` take them."""

    message: str
    detail: str
    hint: str


class MisfitCount:
    """Misfits by column. `source` names what the values belong to, for the message."""

    def __init__(self, source: str, columns: Iterable[Column]) -> None:
        self._source = source
        self._strict = {column.name for column in columns if column.strict}
        self._counts: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}

    def add(self, element_id: str, misfits: Misfits) -> None:
        """Adds the misfits of a row. Raises DealSyncError, with the misfit's SQLSTATE, for on_misfit 'error'."""
        for name, (misfit, _) in misfits.items():
            if name in self._strict:
                raise DealSyncError(
                    misfit.sqlstate,
                    f'misfit in column "{name}" of node "{element_id}"',
                    misfit.reason,
                    "Fix the node, give the column a type that takes the value, or "
                    f"ALTER FOREIGN TABLE ... ALTER COLUMN \"{name}\" OPTIONS (SET on_misfit 'null');",
                )
            self._counts[name] += 1
            self._reasons.setdefault(name, misfit.reason)

    def warning(self, order: Sequence[Column]) -> Warned | None:
        """The warning at the end of a scan, or None; `order` is the table's columns. It contains no values."""
        if not self._counts:
            return None
        names = [column.name for column in order if column.name in self._counts]
        total = sum(self._counts.values())
        return Warned(
            f"{total} misfit{'s' if total > 1 else ''} in {self._source}: "
            + ", ".join(f'"{name}" {self._counts[name]}' for name in names),
            "They are shown as NULL, or as a text without the invalid characters. First of each column: "
            + "; ".join(f"{name}: {self._reasons[name]}" for name in names),
            "Give the column a type that takes them (text, jsonb), or the option on_misfit 'error' to see the node. "
            "A column with the option derive 'conversion_errors' shows them row by row.",
        )
