"""In: where docs/internals and CONTRIBUTING.md say that something is. Out: proof that it is there."""

import inspect
import re
from collections.abc import Iterator
from pkgutil import resolve_name
from typing import Any

import pytest
from environment.state import CHECKOUT
from support.documents import PAGES, blocks

TEXTS = {name: page for name, page in PAGES.items() if name.startswith("internals/")}
TEXTS["CONTRIBUTING.md"] = (CHECKOUT / "CONTRIBUTING.md").read_text()
OF_A_TENANT, OF_ALL, PYTHON = blocks(TEXTS["internals/index.md"], "text")
LINE = re.compile(r"^(?P<indent> *)(?P<names>[\w., ]+?)(?:\('\w+'\))?(?: {2,}(?P<number>\d\d)?\b.*)?$")
#: What their callers name in their place: what the driver finds them by, and the module that a process runs.
INSTEAD = {
    "graph.hydration.moment": "HYDRATION",
    "graph.unpacking.with_floats": "ask_for_floats",
    "sync.process.main": "__name__",
}


def calls(tree: str) -> Iterator[tuple[str | None, str, str]]:
    """The functions of a tree: the nearest one above that is indented less, if there is one, the name, the file."""
    above: list[tuple[int, str]] = []
    for line in tree.splitlines():
        found = LINE.match(line)
        assert found is not None, line
        indent = len(found["indent"])
        above = [(depth, name) for depth, name in above if depth < indent]
        names = found["names"].split(", ")
        for name in names:
            yield above[-1][1] if above else None, name, found["number"]
        above.append((indent, names[-1]))


def bodies(name: str, file: str = "sql/functions/*.sql") -> list[str]:
    """What follows the name in the statements that create a function of SQL; `file` may be a pattern."""
    schema = "" if "." in name else r"(?:_deal_sync|@extschema@)\."
    statement = rf"^CREATE OR REPLACE \w+ {schema}{re.escape(name)}(\(.*?^\$\$;)"
    return [body for path in CHECKOUT.glob(file) for body in re.findall(statement, path.read_text(), re.M | re.S)]


def is_defined(name: str, file: str) -> bool:
    """Whether a file creates a function of SQL; `file` may be a pattern."""
    return bodies(name, file) != []


def source(name: str) -> str:
    """The text of a class or a function, and of the functions with an underscore in its class or module that it uses:
    they are parts of it.
    """
    text = inspect.getsource(resolve_name(f"neo4j_deals.{name}"))
    parts: dict[str, Any] = {}
    path = name.split(".")
    for end in range(1, len(path)):
        home = resolve_name(f"neo4j_deals.{'.'.join(path[:end])}")
        parts |= {part: value for part, value in vars(home).items() if part[:1] == "_" and inspect.isfunction(value)}
    used: set[str] = set()
    while more := set(re.findall(r"\b_\w+", text)) & parts.keys() - used:
        used |= more
        text += "".join(inspect.getsource(parts[part]) for part in more)
    return text


@pytest.mark.parametrize("tree", [OF_A_TENANT, OF_ALL])
def test_each_function_of_sql_is_in_its_file_and_is_called_by_the_one_that_it_stands_under(tree: str) -> None:
    called = list(calls(tree))
    assert len(called) >= len(tree.splitlines()) > 15
    for caller, name, number in called:
        assert is_defined(name, f"sql/functions/{number}_*.sql"), (name, number)
        if caller is not None:
            qualified = name if "." in name else f"_deal_sync.{name}"
            assert any(re.search(rf"\b{re.escape(qualified)}\(", body) for body in bodies(caller)), (caller, name)


def test_each_function_of_python_is_there_and_is_called_by_the_one_that_it_stands_under() -> None:
    called = list(calls(PYTHON))
    assert len(called) == len(PYTHON.splitlines()) > 10
    for caller, name, _ in called:
        assert callable(resolve_name(f"neo4j_deals.{name}")), name
        if caller is not None:
            named = INSTEAD.get(name, name.rpartition(".")[2])
            assert re.search(rf"\b{named}\b", source(caller)), (caller, name)


@pytest.mark.parametrize("page", TEXTS)
def test_what_is_said_to_be_in_a_file_or_a_module_is_there(page: str) -> None:
    for name, place in re.findall(r"`([\w.]+)(?:\(\))?`\s+in\s+`([\w./]+)`", TEXTS[page]):
        if place.endswith(".sql"):
            assert is_defined(name, place), (name, place)
        else:
            assert resolve_name(f"neo4j_deals.{place}:{name}"), (name, place)
