"""In: names and values. Out: the same, quoted for SQL, whatever they contain.

Pure, for SQL that is written where PostgreSQL cannot be asked: the statements for Multicorn2, and hints.
"""

from __future__ import annotations

from collections.abc import Mapping


def ident(name: str) -> str:
    """A name, always in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text, for any setting of standard_conforming_strings."""
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return f"E{quoted}" if "\\" in text else quoted


def options(given: Mapping[str, str]) -> str:
    """The clause OPTIONS, with a blank before it; empty without options."""
    return f" OPTIONS ({', '.join(f'{name} {literal(value)}' for name, value in given.items())})" if given else ""
