"""In: docs/reference, the catalog. Out: proof that they agree, and that everything is described."""

import re

import pytest
from environment import reference
from environment.reference import Member
from support.database import Connection
from support.documents import PAGES, section

PLACES = {name: page for page, text in reference.pages().items() for _, name, _ in reference.PLACE.findall(text)}


@pytest.fixture
def known(pg: Connection) -> list[Member]:
    (answer,) = pg.execute(reference.QUERY.read_bytes()).fetchone() or ("[]",)
    return reference.members(answer)


def test_the_pages_say_what_the_catalog_says(known: list[Member]) -> None:
    """`make docs` rewrites them."""
    for path, page in reference.pages().items():
        assert page == reference.filled(page, known), path.name


def test_each_object_that_people_call_or_read_has_a_place_and_no_other_has(known: list[Member]) -> None:
    assert set(PLACES) == {member.called for member in known}


def test_a_place_is_under_its_own_heading() -> None:
    for name, path in PLACES.items():
        assert f"<!-- catalog: {name} -->" in section(PAGES[f"reference/{path.name}"], name)


def test_each_argument_is_explained(known: list[Member]) -> None:
    for member in known:
        if member.arguments:
            text = section(PAGES["reference/functions.md"], member.called)
            explained = set(re.findall(r"^\| `(\w+)` \|", text, re.M))
            assert set(member.arguments) <= explained, member.called


def test_each_column_is_explained(known: list[Member]) -> None:
    unexplained = [
        f"{member.called}.{column['name']}"
        for member in known
        if not member.is_routine
        for column in member.columns
        if not column["comment"]
    ]
    assert unexplained == []


def column(name: str, type_: str, **more: object) -> dict[str, object]:
    return {"name": name, "type": type_, "out": False, **more}


def test_a_function_is_shown_as_a_call_with_what_it_returns() -> None:
    columns = [column("a", "text", default="'x'::text"), column("except", "text[]"), column("b", "bigint", out=True)]
    member = Member("deal_sync.f", "function", "does *this*", "setof record", columns)
    assert member.arguments == ["a", "except"]
    assert member.text() == (
        "```text\ndeal_sync.f(a text DEFAULT 'x', \"except\" text[]) → setof record(b bigint)\n```\n\n"
        "Does \\*this\\*.\n"
    )


def test_a_long_call_has_a_line_per_argument() -> None:
    member = Member("deal_sync.p", "procedure", "Done.", None, [column("a" * 40, "text"), column("b" * 40, "text")])
    assert member.text().splitlines()[1:5] == [
        "CALL deal_sync.p(", f"    {'a' * 40} text,", f"    {'b' * 40} text", ")"
    ]  # fmt: skip


def test_a_view_is_shown_as_its_columns() -> None:
    member = Member("deal_sync.v", "view", "one row", None, [{"name": "a", "type": "text", "comment": "x | y"}])
    assert member.text().splitlines()[0::4] == ["One row.", "| `a` | `text` | x \\| y |"]


def test_a_foreign_table_is_shown_as_its_mapping() -> None:
    columns = [
        column("a", "text", options={"target": "b", "write": "insert", "default": "x"}, comment="what a is"),
        column("c", "text", options=None, comment="x | y"),
    ]
    member = Member("neo4j.t", "foreign table", "nodes", None, columns)
    assert member.text().splitlines()[-2:] == [
        "| `a` | `text` | what a is | `b` | `insert` | `null` | `default x` |", "| `c` | `text` | x \\| y |  |  |  |  |"
    ]  # fmt: skip


def test_what_the_catalog_does_not_know_is_shown_as_missing() -> None:
    place = "<!-- catalog: deal_sync.gone -->\nold\n<!-- end -->"
    assert "It does not exist." in reference.filled(place, [])
