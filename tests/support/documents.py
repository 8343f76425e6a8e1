"""In: README.md and the pages of docs/, in the order of mkdocs.yml. Out: their code blocks, sections and tables."""

import re

from environment.state import CHECKOUT

README = (CHECKOUT / "README.md").read_text()
#: The pages' texts by their path below docs/, in the order of the site.
PAGES = {
    name: (CHECKOUT / "docs" / name).read_text()
    for name in re.findall(r"^ +- .*?([\w/-]+\.md)$", (CHECKOUT / "mkdocs.yml").read_text(), re.M)
}


def blocks(text: str, language: str = "sql") -> list[str]:
    """The code blocks of a language: `sql` runs as it stands, `postgresql` needs something that its page names."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def section(page: str, heading: str) -> str:
    """A section's text, up to the next heading of its level or a higher one."""
    (found,) = re.findall(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#|\Z)", page, re.M | re.S)
    return str(found[1])


def names_in_table(text: str, column: int = 0) -> set[str]:
    """The names in backticks in a column of the tables of a text."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name for row in cells if len(row) > column for name in re.findall(r"`([^`]+)`", row[column])}
