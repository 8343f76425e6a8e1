"""In: where docs/internals and CONTRIBUTING.md say that something is. Out: proof that it is there."""

import re
from pkgutil import resolve_name

import pytest
from environment.state import CHECKOUT
from support.documents import PAGES, blocks

TEXTS = {name: page for name, page in PAGES.items() if name.startswith("internals/")}
TEXTS["CONTRIBUTING.md"] = (CHECKOUT / "CONTRIBUTING.md").read_text()
SQL, PYTHON = blocks(TEXTS["internals/index.md"], "text")


def is_defined(name: str, file: str) -> bool:
    """Whether a file creates a function of SQL; `file` may be a pattern."""
    texts = [path.read_text() for path in CHECKOUT.glob(file)]
    schema = "" if "." in name else r"(?:_deal_sync|@extschema@)\."
    return any(re.search(rf"^CREATE OR REPLACE \w+ {schema}{name}\(", text, re.M) for text in texts)


def test_each_function_of_the_way_of_a_deal_is_in_its_file() -> None:
    lines = re.findall(r"^ *([\w, ]+?)(?:\('\w+'\))? {2,}(\d\d)\b", SQL, re.M)
    assert len(lines) == len(SQL.splitlines()) > 20
    for names, number in lines:
        for name in names.split(", "):
            assert is_defined(name, f"sql/functions/{number}_*.sql"), (name, number)


def test_each_function_of_python_on_the_way_is_there() -> None:
    names = re.findall(r"^ *([\w.]+)", PYTHON, re.M)
    assert len(names) == len(PYTHON.splitlines()) > 10
    for name in names:
        assert callable(resolve_name(f"neo4j_deals.{name}")), name


@pytest.mark.parametrize("page", TEXTS)
def test_what_is_said_to_be_in_a_file_or_a_module_is_there(page: str) -> None:
    for name, place in re.findall(r"`([\w.]+)(?:\(\))?`\s+in\s+`([\w./]+)`", TEXTS[page]):
        if place.endswith(".sql"):
            assert is_defined(name, place), (name, place)
        else:
            assert resolve_name(f"neo4j_deals.{place}:{name}"), (name, place)
