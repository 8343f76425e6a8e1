"""In: the sources. Out: every message, DETAIL, HINT, remark and comment that a user can meet, in one listing.

For a reader who judges the English alone (`make messages`): whatever a native DBA would not say is changed in its
source.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
#: A comment of SQL, or a text; PostgreSQL joins those that only line breaks separate.
TEXT = r"'(?:[^']|'')*'"
TOKEN = re.compile(rf"--[^\n]*|({TEXT}(?:\s*\n\s*{TEXT})*)")
SAID = re.compile(
    r"RAISE (?P<raise>EXCEPTION|WARNING|NOTICE) |\b(?P<field>MESSAGE|DETAIL|HINT) (?:=|:=) "
    r"|(?P<on>COMMENT) ON [^;]*? IS\s"
)
END = re.compile(r";|,\s*\n|USING")
#: Other texts: two words or more, and not SQL.
PROSE = re.compile(r"[a-z]+[,;:]? [a-z]+")
SQL = re.compile(r"\b(?:SELECT|FROM|GRANT|WHERE|RESET|SET|ARRAY|TRUNCATE)\b|::|=>|pg_catalog")
#: The calls that make an error, a warning or a finding in Python.
CALLS = {
    "DealSyncError", "Finding", "Garbled", "Misfit", "ValueError", "Warned", "_reject", "error", "warning", "notice",
    "cut_short", "failed", "ok",
}  # fmt: skip


def of_sql(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, kind and text of what a script says; an expression counts by the texts in it, up to its end."""
    code, texts = tokens(text)
    for found in SAID.finditer(code):
        end = END.search(code, found.end())
        inside = [place for place in texts if found.end() <= place < (end.start() if end else len(code))]
        if said := " … ".join(texts.pop(place) for place in inside):
            kind = found["raise"] or found["field"] or found["on"]
            yield line(text, found.start()), kind.lower(), said
    for place, said in texts.items():  # part of a message, or a value that a user reads
        if PROSE.search(said) and not SQL.search(said):
            yield line(text, place), "text", said


def tokens(text: str) -> tuple[str, dict[int, str]]:
    """The script with its comments and texts blanked out, and the texts by their place."""
    texts: dict[int, str] = {}

    def blank(found: re.Match[str]) -> str:
        if found[1]:
            texts[found.start()] = "".join(part[1:-1] for part in re.findall(TEXT, found[1])).replace("''", "'")
        return " " * len(found.group())

    return TOKEN.sub(blank, text), texts


def line(text: str, place: int) -> int:
    """The number of the line at a place."""
    return text.count("\n", 0, place) + 1


def of_python(text: str) -> Iterator[tuple[int, str, str]]:
    """The same of a module: the texts that these calls are given."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in CALLS:
                for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                    if (said := words(argument)) and not re.fullmatch(r"[0-9A-Z]{5}", said):
                        yield argument.lineno, name.lower(), said


def words(node: ast.expr) -> str:
    """A text as it stands in the source, with … for what is put in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(words(value) for value in values)
        case ast.BinOp(left=left, right=right):
            return words(left) + words(right)
        case ast.IfExp(body=body, orelse=orelse):
            return " | ".join(filter(None, (words(body), words(orelse))))
        case ast.FormattedValue():
            return "…"
    return ""


def main() -> None:
    for folder, suffix, of in (("sql", ".sql", of_sql), ("fdw", ".py", of_python), ("fdw", ".sql", of_sql)):
        for path in sorted((CHECKOUT / folder).rglob(f"*{suffix}")):
            lines = sorted(set(of(path.read_text())))
            if lines:
                sys.stdout.write(f"\n{path.relative_to(CHECKOUT)}\n")
                for number, kind, said in lines:
                    sys.stdout.write(f"  {number:4} {kind:9} {said}\n")


if __name__ == "__main__":
    main()
