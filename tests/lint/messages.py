"""In: the sources. Out: every message, DETAIL, HINT and comment that a user can meet, in one listing.

For a reader who judges the English alone (`make messages`): what a native DBA would not say is changed at its place.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TEXT = r"'((?:[^']|'')*)'"
SAID = re.compile(
    r"(?P<raise>RAISE (?:EXCEPTION|WARNING|NOTICE) )|(?P<field>\b(?:MESSAGE|DETAIL|HINT) (?:=|:=) )"
    rf"|(?P<comment>COMMENT ON [^;]*? IS\s+)(?={TEXT})"
)
#: What makes an error, a warning or a finding in Python.
CALLS = {"DealSyncError", "Finding", "Misfit", "Warned", "error", "warning", "notice", "cut_short", "failed", "ok"}


def of_sql(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, kind and text of what a script says; an expression counts by the texts in it, up to its end."""
    for found in SAID.finditer(text):
        kind = found.group().split()[0] if not found["raise"] else found.group().split()[1]
        end = re.compile(r";|,\s*\n|USING").search(text, found.end())
        if found["comment"]:
            end = re.compile(r"';").search(text, found.end())
        said = re.findall(TEXT, text[found.end() : end.end() if end else None])
        if said:
            yield text.count("\n", 0, found.start()) + 1, kind.lower(), " … ".join(said).replace("''", "'")


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
    for folder, suffix, of in (("sql", ".sql", of_sql), ("fdw", ".py", of_python)):
        for path in sorted((CHECKOUT / folder).rglob(f"*{suffix}")):
            lines = sorted(set(of(path.read_text())))
            if lines:
                sys.stdout.write(f"\n{path.relative_to(CHECKOUT)}\n")
                for line, kind, said in lines:
                    sys.stdout.write(f"  {line:4} {kind:9} {said}\n")


if __name__ == "__main__":
    main()
