"""Flows in: the templates of fdw/neo4j_deals/sync/sql. Flows out: that no name and no value gets into one unquoted.

What the statements are, tests/sql/test_golden.py shows; what they do, all tests of the sync.
"""

from importlib import resources
from pathlib import Path
from typing import LiteralString

import pytest
from jinja2 import Environment, ModuleLoader, nodes
from neo4j_deals.sync.statements import Quoting, Sql, _environment, compile_templates
from support.database import Connection
from support.sync import one

TEMPLATES = sorted(
    file.name for file in resources.files("neo4j_deals.sync").joinpath("sql").iterdir() if file.name.endswith(".sql")
)
FILTERS = {"ident", "literal", "sql"}
QUOTING = Quoting(lambda name: f'"{name}"', lambda value: "'" + value.replace("'", "''") + "'")


def is_quoted(node: nodes.Node) -> bool:
    """Whether what the node prints is SQL: by a filter, a constant of the template, or a macro that is looked into."""
    match node:
        case nodes.TemplateData() | nodes.Const():
            return True
        case nodes.Filter():
            return node.name in FILTERS
        case nodes.CondExpr():
            return is_quoted(node.expr1) and (node.expr2 is None or is_quoted(node.expr2))
        case nodes.Call(node=nodes.Name()):
            return True
    return False


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_takes_names_and_values_by_its_filters_alone(template: str) -> None:
    text = resources.files("neo4j_deals.sync").joinpath("sql", template).read_text()
    printed = [node for output in _environment(QUOTING).parse(text).find_all(nodes.Output) for node in output.nodes]
    assert printed
    assert [node for node in printed if not is_quoted(node)] == []


def test_the_test_finds_an_interpolation_without_a_filter() -> None:
    for text in (
        "{{ name }}",
        "{{ name | upper }}",
        "{{ name if name else 'x' }}",
        "{% for c in x %}{{ c.name }}{% endfor %}",
    ):
        [node] = [n for o in Environment().parse(text).find_all(nodes.Output) for n in o.nodes]
        assert not is_quoted(node), text


def test_what_is_sql_must_have_been_made_as_such() -> None:
    template = _environment(QUOTING).from_string("SELECT\n    {{ part | sql(4) }}")
    assert template.render(part=Sql("a,\nb")) == "SELECT\n    a,\n    b"
    with pytest.raises(TypeError, match="is not of type Sql"):
        template.render(part="a; DROP TABLE b")


def test_a_line_break_in_a_name_or_a_value_is_not_indented() -> None:
    template = _environment(QUOTING).from_string("{{ value | literal }} AS {{ value | ident }}")
    part = Sql(template.render(value="two\nlines"))
    whole = _environment(QUOTING).from_string("    {{ part | sql(4) }}").render(part=part)
    assert whole == "    'two\0lines' AS \"two\0lines\""


def test_an_installed_package_has_each_template_compiled(tmp_path: Path) -> None:
    compile_templates(tmp_path)
    loader, environment = ModuleLoader(tmp_path), _environment(QUOTING)
    for template in TEMPLATES:
        assert loader.load(environment, template).name == template


def test_a_session_of_the_server_compiles_no_template(pg: Connection) -> None:
    statement: LiteralString = (
        "CREATE FUNCTION pg_temp.loaded(OUT folder text) LANGUAGE plpython3u AS $$\n"
        "from neo4j_deals.sync import statements\n"
        "folder = statements.FOLDER / statements.COMPILED\n"
        "return len(list(folder.glob('*.py')))\n$$"
    )
    pg.execute(statement)
    assert one(pg, "SELECT pg_temp.loaded()") == str(len(TEMPLATES))
