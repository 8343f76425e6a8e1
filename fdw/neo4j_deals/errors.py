"""In: what went wrong. Out: an error in PostgreSQL's terms, without secrets."""

from __future__ import annotations

MOST_SHOWN = 200  # characters of an offending value in a reject


class Garbled(Exception):
    """An answer that does not have the form that the query asked for. The message contains nothing of the answer."""


class DealSyncError(Exception):
    """An error with SQLSTATE, message, DETAIL and HINT, as `plpy.error` takes them."""

    def __init__(self, sqlstate: str, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint

    @property
    def is_cancel(self) -> bool:
        """Whether the user or an administrator has canceled the statement: no code may go on after it."""
        return self.sqlstate[:2] == "57"

    def __reduce__(self) -> tuple[type[DealSyncError], tuple[str, str, str | None, str | None]]:
        """Keeps all four when the process that reads sends it."""
        return type(self), (self.sqlstate, self.message, self.detail, self.hint)
