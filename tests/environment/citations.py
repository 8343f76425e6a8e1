"""In: the files of the repository. Out: what they cite and the repository does not have, a line for each.

A Markdown file, by its path from the checkout, from docs/ or from where it is cited; a path or a module that a page
names in backticks; a link of a page that the site does not hold; and notes that a reader cannot have.
"""

import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from .state import CHECKOUT

_MARKDOWN = re.compile(r"(?<![\w./*-])[\w./-]*\w\.md\b")
_NOTES = re.compile(r"field[ -]notes|\bthe\s+design\b", re.I)
_PATH = re.compile(r"`((?:fdw|sql|tests|extra|extension|docs|\.ci)/[\w./-]*)`")
_MODULE = re.compile(r"`((?:mapping|graph|rows|sync|tables|doctor)\.(?!md\b)\w+)`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#([\w-]+))?\)")
TEXTS = {".py", ".sql", ".md", ".yml", ".toml", ".sh", ".cypher", ".json", ".java", ".xml", ".postgres", ""}


def files(checkout: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "-C", checkout, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    released = "extension/deal_sync--*.sql"  # what a version was does not change
    found = (checkout / name for name in listed if not fnmatch(name, released))
    return [path for path in found if path.suffix in TEXTS and path.is_file()]


def missing(checkout: Path = CHECKOUT) -> list[str]:
    """`file:line: what is cited`, for each citation that leads nowhere."""
    return [
        f"{path.relative_to(checkout)}:{number}: {what}"
        for path in files(checkout)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for what in _missing(line, path, checkout)
    ]


def _missing(line: str, path: Path, checkout: Path) -> Iterator[str]:
    places = (checkout, checkout / "docs", path.parent)
    for name in _MARKDOWN.findall(line):
        if not any((place / name).is_file() for place in places):
            yield name
    yield from _NOTES.findall(line)
    if path.suffix == ".md":
        yield from (name for name in _PATH.findall(line) if not (checkout / name).exists())
        package = checkout / "fdw/neo4j_deals"
        yield from (name for name in _MODULE.findall(line) if not (package / f"{name.replace('.', '/')}.py").exists())
        for target, anchor in _LINK.findall(line):
            page = path.parent / target
            if not page.exists() or (anchor and anchor not in _anchors(page)):
                yield f"{target}#{anchor}" if anchor else target


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
