"""In: the table of docs/reference/options.md. Out: proof of each of its rows: where an option is allowed, which values
it takes, who may set it, and what its default is.
"""

import re
from typing import Any, NamedTuple

import psycopg
import pytest
from neo4j_deals.graph.options import ServerOptions
from neo4j_deals.mapping.model import Column
from psycopg import errors, sql
from support.database import Connection
from support.documents import PAGES

PLACES = ("server", "user mapping", "foreign table", "column")


class Option(NamedTuple):
    """An option, as described by a row of the table."""

    place: str
    name: str
    meaning: str

    @property
    def words(self) -> list[str]:
        """The values that the row lists, if no other is valid."""
        return re.findall(r"`([^`]+)`", self.meaning) if self.name in LISTED else []


LISTED = {"keep_alive", "kind", "write", "on_misfit", "empty", "link", "derive"}
#: A valid value of an option, and an invalid one (None: every value is valid).
SAMPLES: dict[str, tuple[str, str | None]] = {
    "uri": ("neo4j+ssc://h:1", "http://h"),
    "database": ("deals", "two words"),
    "connect_timeout": ("0.5", "0"),
    "query_timeout": ("60", "soon"),
    "fetch_size": ("999999", "0"),
    "sslrootcert": ("/r.crt", "r.crt"),
    "max_rows": ("1", "0"),
    "idle_timeout": ("0.5", "-1"),
    "keep_alive": ("false", "maybe"),
    "wrapper": ("neo4j_deals.tables.wrapper.Neo4jForeignDataWrapper", "os.system"),
    "user": ("neo4j", ""),
    "password": ("", None),
    "password_file": ("/p", "relative/path"),
    "bearer_token": ("t", "two words"),
    "label": ("Deal", ""),
    "cypher": ("RETURN 1 AS a", ""),
    "key": ("a", ""),
    "kind": ("deal", "contact"),
    "target": ("public.t", ""),
    "links": ("public.l", ""),
    "tenants": ("public.t", ""),
    "stamps": ("updatedAt", ""),
    "property": ("p", ""),
    "write": ("never", "sometimes"),
    "on_misfit": ("keep", "ignore"),
    "empty": ("null", "zero"),
    "default": ("", None),
    "fallback": ("b", ""),
    "link": ("true", "false"),
    "derive": ("labels", "sum"),
    "of": ("a,b", ""),
}
#: The options that another one requires.
BESIDE = {"password": {"user": "u"}, "password_file": {"user": "u"}, "sslrootcert": {"uri": "bolt+s://h"}}


def _rows() -> list[Option]:
    found, place = [], ""
    for line in PAGES["reference/options.md"].splitlines():
        if line.startswith("| ") and not line.startswith(("| where", "| ---")):
            first, names, meaning = (cell.strip() for cell in line.strip("|").split("|", 2))
            place = first or place
            found += [Option(place, name, meaning) for name in re.findall(r"`(\w+)`", names)]
    return found


OPTIONS = _rows()
each_row = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: f"{option.place}-{option.name}")


def define(pg: Connection, place: str, options: dict[str, str]) -> None:
    """Creates something with these options, and rolls back."""
    given = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in options.items()
    )
    statement = {
        "server": "CREATE SERVER readme FOREIGN DATA WRAPPER neo4j OPTIONS ({})",
        "user mapping": "CREATE USER MAPPING FOR CURRENT_USER SERVER bare OPTIONS ({})",
        "foreign table": "CREATE FOREIGN TABLE pg_temp.readme (a text) SERVER bare OPTIONS ({})",
        "column": "CREATE FOREIGN TABLE pg_temp.readme (a text OPTIONS ({})) SERVER bare",
    }[place]
    with pg.transaction(force_rollback=True):
        pg.execute(sql.SQL(statement).format(given))


@pytest.fixture(autouse=True)
def bare(pg: Connection) -> None:
    """A server that may be used by everybody."""
    pg.execute("CREATE SERVER bare FOREIGN DATA WRAPPER neo4j")
    pg.execute("GRANT USAGE ON FOREIGN SERVER bare TO PUBLIC")


def test_there_is_a_sample_of_each_row() -> None:
    assert {option.place for option in OPTIONS} == set(PLACES)
    assert {option.name for option in OPTIONS} == set(SAMPLES)


@each_row
def test_it_goes_where_the_row_says_and_nowhere_else(pg: Connection, option: Option) -> None:
    good, _ = SAMPLES[option.name]
    allowed = {other.place for other in OPTIONS if other.name == option.name}
    define(pg, option.place, {**BESIDE.get(option.name, {}), option.name: good})
    for place in set(PLACES) - allowed:
        with pytest.raises(errors.FdwInvalidOptionName, match=f'invalid option "{option.name}"') as raised:
            define(pg, place, {option.name: good})
        hint = raised.value.diag.message_hint or ""
        assert hint.startswith("A login belongs" if option.place == "user mapping" else "Valid options in this context")


@each_row
def test_it_takes_what_the_row_says_and_the_hint_lists_it(pg: Connection, option: Option) -> None:
    _, bad = SAMPLES[option.name]
    for word in option.words:
        define(pg, option.place, {option.name: word})
    if bad is None:
        return
    with pytest.raises(errors.FdwInvalidStringFormat, match=f'invalid value for option "{option.name}"') as raised:
        define(pg, option.place, {**BESIDE.get(option.name, {}), option.name: bad})
    hint = raised.value.diag.message_hint or ""
    assert hint.startswith("It must be ")
    if bad:
        assert bad not in str(raised.value).replace(hint, ""), "a value may be a secret"
    for word in option.words:
        assert word in hint


@each_row
def test_only_superusers_set_what_the_row_says_that_only_they_do(pg: Connection, option: Option) -> None:
    with pg.transaction(force_rollback=True):
        pg.execute("CREATE ROLE readme_role")
        pg.execute("GRANT USAGE ON FOREIGN DATA WRAPPER neo4j TO readme_role")
        pg.execute("GRANT USAGE ON SCHEMA deal_sync TO readme_role")
        pg.execute("SET LOCAL ROLE readme_role")
        options = {**BESIDE.get(option.name, {}), option.name: SAMPLES[option.name][0]}
        if "superusers only" in option.meaning:
            with pytest.raises(errors.InsufficientPrivilege, match=f'permission denied to set option "{option.name}"'):
                define(pg, option.place, options)
        else:
            define(pg, option.place, options)


def _default(option: Option) -> Any:
    """What the package uses if the option is not set."""
    if option.place == "server":
        return getattr(ServerOptions.read("s", {"uri": "bolt://h"}, "", {}), option.name)
    return getattr(Column.defined("a", "text", -1, {}, ()), option.name)


DEFAULTS = [
    (option, found[0] or found[1] or found[2])
    for option in OPTIONS
    for found in re.findall(r"([0-9]+) by default|`(\w+)` \(the default\)|(its own) limit by default", option.meaning)
]


@pytest.mark.parametrize(("option", "told"), DEFAULTS, ids=lambda value: getattr(value, "name", value))
def test_without_it_the_default_of_the_row_holds(option: Option, told: str) -> None:
    default = _default(option)
    if isinstance(default, float | int) and not isinstance(default, bool):
        assert default == float(told)
    else:
        assert {None: "its own", True: "true", False: "false"}.get(default, default) == told


def test_only_options_that_have_a_default_list_one() -> None:
    assert {option.name for option, _ in DEFAULTS} == {
        "connect_timeout", "query_timeout", "fetch_size", "idle_timeout", "keep_alive", "write", "on_misfit"
    }  # fmt: skip


def test_a_secret_is_in_no_message(pg: Connection) -> None:
    with pytest.raises(psycopg.Error) as raised:
        define(pg, "user mapping", {"bearer_token": "s3cret word"})
    assert "s3cret" not in f"{raised.value}{raised.value.diag.message_detail}{raised.value.diag.message_hint}"
