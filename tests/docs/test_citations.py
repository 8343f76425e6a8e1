"""In: a repository with citations. Out: proof that the lint names each one that leads nowhere, and no other."""

import subprocess
from pathlib import Path

import pytest
from environment import citations

#: In two parts, since the lint reads this file, too.
MD = ".md"
NOTES = "field" + " notes"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with a page, a module and a file that cites."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in ("docs/internals/run.md", "fdw/neo4j_deals/sync/feed.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "docs/internals/run.md").write_text("# The flow of a run()\n")
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "see docs/internals/run.md, rule 3",
        "see internals/run.md",
        "[run](docs/internals/run.md#the-flow-of-a-run)",
        "`docs/internals/run.md` and `sync.feed` and `fdw/neo4j_deals`",
        "SELECT '*.md', p.md5 FROM designs",
    ],
)
def test_what_leads_somewhere_is_no_finding(repository: Path, line: str) -> None:
    (repository / "README.md").write_text(line)
    assert citations.missing(repository) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"(flow{MD}, rule 3)", f"flow{MD}"),
        (f"`docs/internals/flow{MD}`", f"docs/internals/flow{MD}"),
        (f"({NOTES})", NOTES),
        ("as the" + " design says", "the" + " design"),
        ("`fdw/neo4j_deals/spool.py`", "fdw/neo4j_deals/spool.py"),
        ("`sync.spool`", "sync.spool"),
        ("[run](docs/internals/run.md#flow)", "docs/internals/run.md#flow"),
    ],
)
def test_what_leads_nowhere_is_named_with_its_place(repository: Path, line: str, found: str) -> None:
    (repository / "README.md").write_text(f"\n{line}\n")
    assert f"README.md:2: {found}" in citations.missing(repository)


def test_code_is_read_too(repository: Path) -> None:
    (repository / "fdw/neo4j_deals/sync/feed.py").write_text(f'"""Source: `flow{MD}`."""\n')
    assert citations.missing(repository) == [f"fdw/neo4j_deals/sync/feed.py:1: flow{MD}"]
