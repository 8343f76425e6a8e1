"""In: the mapping and the application's tables. Out: the statements of a run, as text: what becomes of a batch is
decided here and nowhere else.

Pure. A statement is a template in sql/, which can be read as the SQL that it becomes; the expressions, which depend on
the column, are built here. A template inserts a name with the filter `ident`, a value with `literal`, and SQL that was
built here with `sql`: a test finds an interpolation without a filter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neo4j_deals.errors import MOST_SHOWN
from neo4j_deals.mapping.application import Application
from neo4j_deals.mapping.model import Column, Policy, Table, Written
from neo4j_deals.mapping.types import TEXTS, digits, length, type_named
from neo4j_deals.sync import names

if TYPE_CHECKING:
    from jinja2 import Environment


FOLDER = Path(__file__).parent
COMPILED = "compiled"  # the folder beside sql/ that only an installed package has


class Sql(str):
    """A text that is SQL: its names and values are quoted."""

    __slots__ = ()


@dataclass(frozen=True)
class Quoting:
    """How names and values are quoted: in the server, by PostgreSQL's own functions."""

    name: Callable[[str], str]
    value: Callable[[str], str]

    def ident(self, name: str) -> str:
        """A name, quoted."""
        return _masked(self.name(name))

    def literal(self, value: str | int) -> str:
        """A text, quoted, or a number."""
        return str(value) if isinstance(value, int) else _masked(self.value(value))


def _masked(text: str) -> str:
    """Replaces line breaks, which are not to be indented, by NUL characters, which no text of PostgreSQL has."""
    return text.replace("\n", "\0")


def _unmasked(text: str) -> str:
    return text.replace("\0", "\n")


@dataclass(frozen=True)
class MergeColumn(Written):
    """The expressions of a MERGE for one column."""

    name: str
    #: The column that it writes; None: none.
    target: str | None
    #: The policy for this kind and use.
    write: str
    on_misfit: str
    #: The staged or foreign value.
    source: Sql
    #: `source` in the type of the target, NULL if it is a misfit. The following expressions use what this selects.
    selected: Sql
    #: True if the graph has a value that is a misfit; None: not needed.
    misfit: Sql | None
    #: Whether only the cast to the target's type shows that.
    cast_decides: bool
    inserted: Sql
    #: None: an update does not change the target.
    updated: Sql | None
    link: bool
    target_family: str | None
    target_modifier: int

    @property
    def misfit_name(self) -> str:
        """The name of the column with `misfit`."""
        return names.misfit(self.name)


@dataclass(frozen=True)
class Statements:
    """What a run executes for each batch of a kind; None: nothing to do.

    The plan of a batch is a temporary table with a row for each staged row: its state (new, changed, adopted,
    unchanged, rejected, none), the place of the row that it changes, and what became of it.
    """

    #: Fills the plan.
    planned: str
    #: The rows to be written, and how many of them exist.
    to_write: str
    #: Locks those that exist, in the order of their keys.
    locks: str
    #: By column, how many values of the rows $1 a MERGE would replace with NULL.
    cleared: str | None
    #: Writes a batch; `completion`: one that changes rows, for which the caller needs the right to UPDATE.
    merge: str
    completion: str
    #: Marks the rows that the table rejected in the plan; `unwritten`: those that a trigger did not let through.
    failed: str
    unwritten: str
    #: Counts what became of the rows.
    counted: str
    #: The rejects to record.
    rejects: str
    #: Connects interactions.
    links: str | None
    #: The interactions of the batch.
    linked: str | None
    #: The rows whose link is missing; `suppressed`: those whose link is still missing afterwards.
    unlinked: str | None
    suppressed: str | None


def merge_by_hand(table: Table, application: Application, quoting: Quoting) -> str:
    """The MERGE from a foreign table into the application's table, for the tenant in app.tenant_id."""
    return _Merge(table, application, quoting, staged=False).statement("merge")


#: Stands for the tenant's id in a statement that is kept for all tenants: half a character, as no text of PostgreSQL
#: has it.
TENANT = Sql("\udfff")


def of_tenant(statement: str | None, tenant: str) -> str | None:
    """The statement for a tenant, whose id is quoted."""
    return None if statement is None else statement.replace(TENANT, tenant)


def statements(
    table: Table, application: Application, quoting: Quoting, without: Collection[str] = (), completes: bool = False
) -> Statements:
    """The statements that land a batch of a TENANT. The columns `without` were not read and are not compared.
    `completes`: existing versions get the values that they lack.
    """
    parts = _Merge(table, application, quoting, True, without, completes)
    merge = parts.statement("merge")
    links = any(column.link for column in parts.columns)
    missing = Sql(parts.render("missing_links"))

    def linking(statement: str) -> str | None:
        return parts.statement(statement, missing_links=missing) if links else None

    return Statements(
        planned=parts.statement("planned", plan=Sql(parts.render("plan"))),
        to_write=parts.statement("to_write"),
        locks=parts.statement("locks"),
        cleared=parts.statement("cleared") if table.kind == "deal" and parts.overwritten else None,
        merge=_Merge(table, application, quoting, True, without).statement("merge") if completes else merge,
        completion=merge,
        failed=parts.statement("failed"),
        unwritten=parts.statement("unwritten"),
        counted=parts.statement("counted"),
        rejects=parts.statement("rejects", misfits=Sql(parts.render("misfits"))),
        links=linking("links"),
        linked=linking("linked"),
        unlinked=linking("unlinked"),
        suppressed=linking("suppressed"),
    )


def count_of_values(table: Table, application: Application, quoting: Quoting) -> str:
    """The statement that counts a tenant's ($1) values in each column of the deals' table that a run overwrites."""
    columns = [
        column
        for column in table.columns
        if column.target_is_there and column.staged_as is not None and column.overwrites
    ]
    return _unmasked(_render("count_of_values", quoting, columns=columns, target=Sql(application.deals.name)))


def comparison(
    table: Table, application: Application, quoting: Quoting, without: Collection[str]
) -> tuple[str, str | None]:
    """The statements that compare a batch of a TENANT with its rows, using the plan of a replay: what it would write
    is missing or differs. The first returns the nodes, each with its state; the second, if any can differ, the values
    that do.
    """
    parts = _Merge(table, application, quoting, True, without, completes=True)
    nodes = Sql(parts.render("compared_nodes", plan=Sql(parts.render("plan"))))
    return _unmasked(nodes), parts.statement("compared_values", nodes=nodes) if parts.differing else None


def comparison_of_tenant(application: Application, quoting: Quoting) -> str:
    """The statement that compares all nodes of a tenant ($1), batch by batch, with its rows, and its rows with the
    nodes: deals, versions and links.
    """
    tables = {"deals": application.deals, "versions": application.versions, "links": application.links}
    return _unmasked(_render("compared_tenant", quoting, **{name: Sql(table.name) for name, table in tables.items()}))


class _Merge:
    """A MERGE and its parts: from the staging table of a TENANT or, if not `staged`, from the foreign table.

    `completes`: an existing version gets the values that it lacks, except those that identify it and its deal.
    """

    def __init__(
        self,
        table: Table,
        application: Application,
        quoting: Quoting,
        staged: bool,
        without: Collection[str] = (),
        completes: bool = False,
    ) -> None:
        self.quoting, self.table, self.kind = quoting, table, table.kind
        self.staged, self.completes = staged, completes
        self._own = table.key_target, table.deal_target
        self._span = self._columns_of_the_span()
        self.columns = [self._column(column) for column in table.columns if column.staged_as is not None]
        self.written = [column for column in self.columns if column.target is not None]
        self.updated = [column for column in self.columns if column.updated is not None]
        self.differing = [column for column in self.updated if column.name not in without]
        self.overwritten = [column for column in self.updated if column.overwrites]
        #: The variables of the templates.
        self.known = self._lists() | self._names(application)
        self.known["matching"] = self._matching()
        self.known["differs"] = self._differs()
        self.known |= self._look_ups()
        self.known["rows"] = Sql(self.render("rows"))
        self.known["source"] = Sql(self.render("source"))

    def statement(self, name: str, **more: Any) -> str:
        """A template as a statement, with the variables `known` and `more`."""
        return _unmasked(self.render(name, **more))

    def render(self, name: str, **more: Any) -> str:
        """The same, as part of another statement."""
        return _render(name, self.quoting, **self.known, **more)

    def _lists(self) -> dict[str, Any]:
        """Lists of columns."""
        return {
            "columns": self.columns,
            "updated": self.updated,
            "differing": self.differing,
            "overwritten": self.overwritten,
            "held_back_columns": [column for column in self.columns if self._holds_back(column)],
            "cast_columns": [column for column in self.columns if column.cast_decides],
            "keeping": [column for column in self.written if column.keeps],
            "inserted": [column for column in self.written if column.target not in self._own],
            "written": self.written,
            "mapped": self.table.columns,
            "dated_by": self._dated_by(),
        }

    def _names(self, application: Application) -> dict[str, Any]:
        """Names of tables and columns, and whatever else is the same for the whole statement."""
        targets = {column.target: column.name for column in self.columns}
        return {
            "kind": self.kind,
            "staged": self.staged,
            "completes": self.completes,
            "key": self.table.key.name,
            "key_target": self.table.key_target,
            "owner": self.table.deal.name,
            "owner_target": self.table.deal_target,
            "number": targets.get("version_number"),
            "stamp": self._stamp(application),
            "tenant_column": self.table.tenant.name,
            # A constant in a run: a trigger of the application may change the setting.
            "tenant": TENANT if self.staged else Sql("current_setting('app.tenant_id')"),
            "relation": Sql(self.table.name),
            "target": Sql((application.deals if self.kind == "deal" else application.versions).name),
            "deals": Sql(application.deals.name),
            "versions": Sql(application.versions.name),
            "links": Sql(application.links.name),
            "link_columns": [(name, Sql(value)) for name, value in application.link_columns],
            "links_have_index": application.links.has_index("interaction_id"),
            "staging": Sql(names.staging(self.kind)),
            "plan_table": Sql(names.plan(self.kind)),
            "shown": MOST_SHOWN,
        }

    def _matching(self) -> Sql:
        """That the row `t` is the one that the source `s` has found."""
        if self.staged:
            return Sql('t.ctid = s."landed place" AND t.tableoid = s."landed part"')
        return Sql(f"t.tenant_id = {self.known['tenant']}::uuid AND t.id = s.landed_id")

    def _look_ups(self) -> dict[str, Sql]:
        """The look-ups of the application's rows by the keys of a staged row `s`."""
        target, deals, key = self.known["target"], self.known["deals"], self._of_source(self.table.key.name)

        def by_key(table: Sql, **values: str) -> Sql:
            columns, value = ", ".join(f"k.{self.quoting.ident(name)}" for name in values), ", ".join(values.values())
            if len(values) > 1:
                columns, value = f"({columns})", f"({value})"
            return Sql(self.render("by_key", table=table, looked_up=Sql(columns), value=Sql(value), order=list(values)))

        found = {
            "by_key": by_key(target, **{self.table.key_target: key}),
            "by_id": by_key(target, id=key),
            "deal": by_key(deals, graph_opportunity_id=self._of_source(self.table.deal.name)),
            "at_place": Sql(self.render("at_place")),
        }
        if self.kind == "version":
            number = self._of_source(self.known["number"])
            found["taken"] = by_key(target, opportunity_id="o.id", version_number=number)
            found["ahead"] = by_key(target, id="ahead.id")
        return found

    def _stamp(self, application: Application) -> str | None:
        """The column that is set to the time of the change, if there is one that the mapping does not write."""
        stamp = self.table.stamp
        is_there = self.kind == "deal" and application.deals.column(stamp) is not None
        return stamp if is_there and all(column.target != stamp for column in self.columns) else None

    def _dated_by(self) -> list[str]:
        """The foreign column that decides which one of several nodes with the same key lands."""
        times = self.table.changed_by if self.kind == "deal" else self.table.created_by
        return [column.name for column in self.table.columns if column.property == times[0] and not column.derive][:1]

    def _differs(self) -> Sql:
        """True if an update from the source `s` would change the row `t`. Values are not compared with the operators of
        their types, which may treat different values as equal.
        """
        if not self.differing:
            return Sql("false")
        old = ",\n    ".join(f"t.{self.quoting.ident(column.target or '')}" for column in self.differing)
        new = ",\n    ".join(column.updated or "" for column in self.differing)
        return Sql(f"ROW(\n    {old}\n)::record OPERATOR(pg_catalog.*<>) ROW(\n    {new}\n)::record")

    def _holds_back(self, column: MergeColumn) -> bool:
        """Whether a misfit that the plan finds, not the reader, rejects the row."""
        if column.on_misfit != "reject":
            return False
        keeps = self.kind == "deal" and column.target is not None and not column.overwrites
        return column.cast_decides or (keeps and column.misfit is not None)

    # The expressions of one column.

    def _column(self, column: Column) -> MergeColumn:
        name = self._of_source(column.name)
        value = name
        if column.empty_is_null and column.type_name in TEXTS and not self.staged:
            value = f"nullif({name}, '')"
        selected, stand_ins = self._selected(column, value), self._stand_ins(column)
        cast_decides = self.staged and selected != value
        asked = stand_ins or column.on_misfit != "null" or cast_decides
        inserted = name
        if stand_ins:
            choices = ", ".join([name, *stand_ins])
            inserted = f"CASE WHEN {self._is_misfit(column)} THEN NULL ELSE coalesce({choices}) END"
        updated = self._updated(column, name, stand_ins, inserted)
        return MergeColumn(
            name=column.name,
            target=column.target if column.is_written else None,
            write=self._policy(column).write,
            on_misfit=column.on_misfit,
            source=Sql(name),
            selected=Sql(selected),
            misfit=self._misfit(column, value, selected) if asked else None,
            cast_decides=cast_decides,
            inserted=Sql(inserted),
            updated=None if updated is None else Sql(updated),
            link=column.link,
            target_family=column.target_family,
            target_modifier=column.target_modifier,
        )

    def _of_source(self, name: str) -> str:
        return "s." + self.quoting.ident(name)

    def _is_misfit(self, column: Column) -> str:
        return self._of_source(names.misfit(column.name))

    def _policy(self, column: Column) -> Policy:
        """For a version, the column's own policy does not count: a version is inserted, or completed."""
        if self.kind == "deal":
            return Policy(column.write)
        return Policy("fill" if self.completes and column.target not in self._own else "insert")

    def _selected(self, column: Column, value: str) -> str:
        """The value in the type of its target or, if nothing is written, in the type that it is staged in."""
        writes = column.is_written and column.target_family is not None
        return cast(
            value,
            column.staged_family if self.staged else column.type_family,
            column.staged_modifier if self.staged else column.type_modifier,
            (column.target_family if writes else column.staged_family) or "text",
            column.target_modifier if writes else column.staged_modifier,
            (column.target_as if writes else column.staged_as) or "text",
            self.quoting.literal,
        )

    def _misfit(self, column: Column, value: str, selected: str) -> Sql:
        """True if the graph has a value that is a misfit."""
        is_there = f"{value} IS NOT NULL OR " if selected != value else ""
        told = f"coalesce(jsonb_exists(s.conversion_errors, {self.quoting.literal(column.name)}::text), false)"
        return Sql(f"{selected} IS NULL AND ({is_there}{told})")

    def _stand_ins(self, column: Column) -> list[str]:
        """What an insert uses instead of an absent value: other columns, a constant, the target's own default."""
        fallbacks = {column.name: column.fallback for column in self.table.columns}
        found: list[str] = []
        fallback = column.fallback
        while fallback is not None and self._of_source(fallback) not in found:
            found.append(self._of_source(fallback))
            fallback = fallbacks.get(fallback)
        if column.default is not None:
            found.append(self.quoting.literal(column.default))
        elif column.not_null and column.target_default is not None:
            found.append(_masked(column.target_default))
        return found

    def _columns_of_the_span(self) -> dict[str, str]:
        """The columns with a version's times, by target. If a row has no end, or ends before it begins, the old service
        has stored the time of the insert in its other times: then all are taken from the node.
        """
        if self.kind != "version" or not self.completes:
            return {}
        found = {c.target or "": c.name for c in self.table.columns if c.is_written and c.target in _TIMES}
        return found if {"valid_from", "valid_until"} <= found.keys() else {}

    def _updated(self, column: Column, name: str, stand_ins: Sequence[str], inserted: str) -> str | None:
        """The value that an update assigns to a column; None: the column is not changed."""
        policy = self._policy(column)
        if column.target is None or not column.is_written or not (policy.overwrites or policy.fills):
            return None
        here = f"t.{self.quoting.ident(column.target)}"
        if column.target in self._span:
            end = self._of_source(self._span["valid_until"])
            return (
                f"CASE WHEN {end} IS NOT NULL AND (t.valid_until IS NULL OR t.valid_until < t.valid_from)"
                f" THEN coalesce({inserted}, {here}) ELSE coalesce({here}, {name}) END"
            )
        if policy.fills:
            return f"coalesce({here}, {name})"
        if column.on_misfit == "keep":
            new = f"coalesce({', '.join([name, *stand_ins])})" if stand_ins else name
            return f"CASE WHEN {self._is_misfit(column)} THEN {here} ELSE {new} END"
        return inserted  # with its stand-in, which the next run would otherwise remove


_TIMES = ("valid_from", "valid_until", "created_at")


def cast(
    value: str,
    source: str | None,
    source_modifier: int,
    target: str,
    target_modifier: int,
    target_as: str,
    literal: Callable[[str], str],
) -> str:
    """The expression that casts `value` from a foreign or staged type to that of its target, NULL for a misfit.

    `source` and `target` are types as format_type() returns them without a modifier, `target_as` with it.
    """
    if source == target and source_modifier == target_modifier:
        return value
    as_text = value if source in ("text", "character varying") else f"{value}::text"
    if source == "double precision":
        as_text = f"_deal_sync.to_text({value})"

    def to_type() -> str:
        return f"_deal_sync.to_type({value}, {literal(type_named(target))})::{target_as}"

    match source, target:
        case "bigint", "smallint" | "integer":
            return f"_deal_sync.to_{target}({value})"
        case "double precision", "smallint" | "integer" | "bigint":
            whole = f"_deal_sync.to_bigint({value})"
            return cast(whole, "bigint", -1, target, target_modifier, target_as, literal)
        case "bigint" | "double precision" | "numeric", "numeric":
            number = f"{value}::numeric" if source == "bigint" else value
            precision, scale = digits(target_modifier) or ("NULL", "NULL")
            return f"_deal_sync.to_numeric({number}, {precision}, {scale})::{target_as}"
        case _, "character varying" | "character" if (longest := length(target_modifier)) is not None:
            return f"_deal_sync.to_varchar({as_text}, {longest})::{target_as}"
        case _, "text":
            return as_text
        case _, "character varying":
            return f"{as_text}::{target_as}"
        case "text", "numeric":
            number = f"_deal_sync.to_type({value}, 'numeric')::numeric"
            return cast(number, "numeric", -1, target, target_modifier, target_as, literal)
        case "text", "uuid":
            return f"_deal_sync.to_uuid({value})"
        case "text", _ if target in _CONVERTED:
            return to_type()
        case "timestamp with time zone", "timestamp without time zone":
            return f"({value} AT TIME ZONE 'UTC')::{target_as}"
        case "text[]", "jsonb" | "json":
            return f"to_{target}({value})"
        case "jsonb", "json":
            return f"{value}::json"
    if source == target:
        return f"{value}::{target_as}"
    return f"_deal_sync.try_cast({value}::text, NULL::{target_as})"


#: The types to which the reader's own rules convert a text.
_CONVERTED = frozenset(
    {
        "smallint",
        "integer",
        "bigint",
        "real",
        "double precision",
        "boolean",
        "date",
        "time without time zone",
        "time with time zone",
        "timestamp without time zone",
        "timestamp with time zone",
    }
)


# -- the templates -----------------------------------------------------------------------------------------------------


def _render(statement: str, quoting: Quoting, **known: Any) -> str:
    return _environment(quoting).get_template(f"{statement}.sql").render(known).strip("\n")


@cache
def _environment(quoting: Quoting) -> Environment:
    # Not needed by a run that finds nothing changed.
    from jinja2 import ChoiceLoader, Environment, ModuleLoader, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([ModuleLoader(FOLDER / COMPILED), PackageLoader("neo4j_deals.sync", "sql")]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # SQL, not HTML: the filters quote
    )
    environment.filters |= {"ident": quoting.ident, "literal": quoting.literal, "sql": _sql}
    return environment


def compile_templates(folder: Path) -> None:
    """Writes the templates as Python code into a folder; with COMPILED, a new session need not compile them."""
    from jinja2 import FileSystemLoader

    environment = _environment(Quoting(str, str)).overlay(loader=FileSystemLoader(FOLDER / "sql"))
    environment.compile_templates(folder, extensions=["sql"], zip=None, ignore_errors=False)


def _sql(text: Any, indent: int = 0) -> str:
    """SQL that was built here; all lines but the first are indented by so many spaces."""
    if not isinstance(text, Sql):
        raise TypeError(f"{text!r} is not of type Sql")
    return text.replace("\n", "\n" + " " * indent)


def columns_of(statements: Statements, tenant: str) -> dict[str, str | None]:
    """The statements for a tenant, whose id is quoted, as a row."""
    return {field.name: of_tenant(getattr(statements, field.name), tenant) for field in fields(statements)}
