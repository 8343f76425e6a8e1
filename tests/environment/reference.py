"""In: the catalog of a database with the extension. Out: what the pages of docs/reference say of it.

The place of an object is between `<!-- catalog: deal_sync.name -->` and `<!-- end -->`: the text between them is
generated here, from the definition and its COMMENT; the rest is written by hand.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import database
from .servers import claimed
from .state import CHECKOUT

PAGES = CHECKOUT / "docs/reference"
PLACE = re.compile(r"(<!-- catalog: (\S+) -->\n).*?(<!-- end -->)", re.S)
WIDTH = 100

QUERY = Path(__file__).with_suffix(".sql")


class Member(NamedTuple):
    """A routine, table or view of the extension, as its catalog has it."""

    called: str
    kind: str
    comment: str
    result: str | None
    columns: list[dict[str, Any]]

    @property
    def arguments(self) -> list[str]:
        """The names that a caller gives."""
        return [column["name"] for column in self.columns if self.is_routine and not column["out"]]

    @property
    def is_routine(self) -> bool:
        return self.kind in ("function", "procedure")

    def text(self) -> str:
        """What the page says of it: synopsis and comment, or comment and columns."""
        if self.is_routine:
            return f"{self._synopsis()}\n{_sentence(self.comment)}\n"
        return self._mapping() if self.kind == "foreign table" else self._table()

    def _synopsis(self) -> str:
        given = [_declared(column) for column in self.columns if not column["out"]]
        returned = [_declared(column) for column in self.columns if column["out"]]
        call = "CALL " if self.kind == "procedure" else ""
        lines = _wrapped(f"{call}{self.called}", given)
        if self.kind == "function":
            head = f"{lines.pop()} → {self.result}"
            lines += _wrapped(head, returned) if returned else [head]
        return "\n".join(["```text", *lines, "```", ""])

    def _table(self) -> str:
        rows = [f"| `{c['name']}` | `{c['type']}` | {_cell(c['comment'] or '')} |" for c in self.columns]
        return "\n".join(
            [f"{_sentence(self.comment)}", "", "| column | type | meaning |", "| --- | --- | --- |", *rows, ""]
        )

    def _mapping(self) -> str:
        rows = [_mapped(column, column["options"] or {}) for column in self.columns]
        head = [
            "| column | type | meaning | fills | policy | a misfit | besides |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        return "\n".join([_sentence(self.comment), "", *head, *rows, ""])


def _mapped(column: Mapping[str, Any], options: Mapping[str, str]) -> str:
    """A column of the mapping: what it shows, its target, with the policy and what a misfit does; its other options."""
    target = options.get("target")
    policy, misfit = (options.get("write", "always"), options.get("on_misfit", "null")) if target else ("", "")
    besides = [f"{name} {value}" for name, value in options.items() if name not in ("target", "write", "on_misfit")]
    name, type_, *rest = (
        f"`{cell}`" if cell else ""
        for cell in (column["name"], column["type"], target, policy, misfit, ", ".join(besides))
    )
    return f"| {' | '.join((name, type_, _cell(column['comment'] or ''), *rest))} |"


def _declared(column: Mapping[str, Any]) -> str:
    name = f'"{column["name"]}"' if column["name"] in ("except", "table") else column["name"]
    default = re.sub(r"::[a-z ]+(\[\])?", "", column.get("default") or "")
    return f"{name} {column['type']}{default and f' DEFAULT {default}'}"


def _wrapped(head: str, parts: list[str]) -> list[str]:
    one = f"{head}({', '.join(parts)})"
    if len(one) <= WIDTH:
        return [one]
    return [f"{head}(", *(f"    {part}{',' if part is not parts[-1] else ''}" for part in parts), ")"]


def _sentence(comment: str) -> str:
    return _cell(comment[:1].upper() + comment[1:] + ("" if comment.endswith(".") else "."))


def _cell(comment: str) -> str:
    """A comment as Markdown, with its special characters escaped."""
    return re.sub(r"([|*\[\]])", r"\\\1", comment).replace("<", "&lt;")


def members(answer: str) -> list[Member]:
    """The answer to QUERY; a routine that has two forms is there twice."""
    return [
        Member(row["called"], row["kind"], row["comment"] or "", row["result"], row["columns"])
        for row in json.loads(answer)
    ]


def filled(page: str, known: Iterable[Member]) -> str:
    """The page with what the catalog says between its marks."""
    texts: dict[str, str] = {}
    for member in known:
        texts[member.called] = f"{texts[member.called]}\n{member.text()}" if member.called in texts else member.text()
    return PLACE.sub(lambda place: f"{place[1]}\n{texts.get(place[2], 'It does not exist.')}\n{place[3]}", page)


def pages() -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(PAGES.glob("*.md"))}


def write() -> None:
    """Ask a server for the catalog, and write the pages that differ."""
    with claimed("test", neo4j=False) as instance:
        database.create(instance, "reference")
        known = members(instance.psql("reference", "-f", QUERY))
        instance.psql("postgres", "-c", "DROP DATABASE reference")
    for path, page in pages().items():
        if (text := filled(page, known)) != page:
            path.write_text(text)
