"""In: what went wrong. Out: an error in PostgreSQL's terms, for the person who meets it, without a secret."""

from __future__ import annotations


class Garbled(Exception):
    """An answer of another form than was asked for. Its text holds nothing of the answer."""


class DealSyncError(Exception):
    """An error with SQLSTATE, message, DETAIL and HINT, as `plpy.error` takes them."""

    def __init__(self, sqlstate: str, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint

    def __reduce__(self) -> tuple[type[DealSyncError], tuple[str, str, str | None, str | None]]:
        """So that it comes whole from the process that reads."""
        return type(self), (self.sqlstate, self.message, self.detail, self.hint)
