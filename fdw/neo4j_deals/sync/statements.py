"""In: the mapping and the application's tables. Out: the statements of a run, as text: what a batch becomes is decided
here, once.

Pure. A statement is a template in sql/, which a person can read as the SQL that it becomes; what differs from column to
column, its expressions, is made here. A template takes a name by the filter `ident`, a value by `literal`, and SQL that
was made here by `sql`: a test finds an interpolation without one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neo4j_deals.mapping.model import Application, Column, Table
from neo4j_deals.mapping.types import type_named

if TYPE_CHECKING:
    from jinja2 import Environment


FOLDER = Path(__file__).parent
COMPILED = "compiled"  # the folder beside sql/ that only an installed package has


class Sql(str):
    """A text that is SQL: names and values in it are quoted."""

    __slots__ = ()


@dataclass(frozen=True)
class Quoting:
    """How names and values become SQL: PostgreSQL's own, in the server."""

    name: Callable[[str], str]
    value: Callable[[str], str]

    def ident(self, name: str) -> str:
        """A name as SQL takes it."""
        return _kept(self.name(name))

    def literal(self, value: str | int) -> str:
        """A text or a number as SQL takes it."""
        return str(value) if isinstance(value, int) else _kept(self.value(value))


def _kept(text: str) -> str:
    """A line break in a name or a value is not to be indented. PostgreSQL has no text with a NUL character."""
    return text.replace("\n", "\0")


def _whole(text: str) -> str:
    return text.replace("\0", "\n")


@dataclass(frozen=True)
class MergeColumn:
    """A column of a MERGE, as expressions: `selected` over the source `s`, the others over what that selects.

    `target` is None if nothing is written, `write` the policy that counts for this kind and use. `lost` is true if the
    graph has a value that the target cannot take (None: nobody asks), `exotic` if that shows only when the value is
    cast. `updated` is None if an update leaves the column alone.
    """

    name: str
    target: str | None
    write: str
    on_misfit: str
    source: Sql
    selected: Sql
    lost: Sql | None
    inserted: Sql
    updated: Sql | None
    exotic: bool
    link: bool
    target_family: str | None
    target_modifier: int

    @property
    def lost_name(self) -> str:
        """The name of the column with `lost`."""
        return f"{self.name} lost"


@dataclass(frozen=True)
class Statements:
    """What a run executes for each batch of a kind; None: nothing of this sort is to be done.

    A batch's plan is a temporary table with a row for each that is staged: its state (new, changed, adopted, unchanged,
    rejected, none), where the row is that it changes, and what became of it. `planned` fills it, `to_write` gives the
    rows to be written and the number of those that are there, `locks` takes these in the order of their keys. `cleared`
    counts, by column, the values that a MERGE of the rows $1 would replace by NULL. `merge` writes, `completion` a
    batch that changes rows (its UPDATE needs a right that an INSERT does not). `failed` puts the rows that the table
    refused into the plan, `unwritten` those that a trigger kept from being written. `counted` counts what has become of
    all, `rejects` gives what is to be recorded. `links` connects interactions (`linked`: those of the batch;
    `unlinked`: rows whose link is missing; `suppressed`: those whose link is missing still).
    """

    planned: str
    to_write: str
    locks: str
    cleared: str | None
    merge: str
    completion: str
    failed: str
    unwritten: str
    counted: str
    rejects: str
    links: str | None
    linked: str | None
    unlinked: str | None
    suppressed: str | None


def merge_by_hand(source: Table, application: Application, quoting: Quoting) -> str:
    """The MERGE from a foreign table into the application's table, for the tenant in app.tenant_id."""
    return _Merge(source, application, quoting, tenant=None).statement("merge")


def statements(
    source: Table,
    application: Application,
    quoting: Quoting,
    tenant: str,
    without: Collection[str] = (),
    completes: bool = False,
) -> Statements:
    """The statements that land a batch of a tenant's. The columns `without` were not read: they make no row differ.
    `completes`: versions that are there get what they lack.
    """
    parts = _Merge(source, application, quoting, tenant, without, completes)
    merge = parts.statement("merge")
    links = any(column.link for column in parts.columns)
    missing = Sql(parts.render("missing_links"))

    def linking(statement: str) -> str | None:
        return parts.statement(statement, missing_links=missing) if links else None

    return Statements(
        planned=parts.statement("planned", plan=Sql(parts.render("plan"))),
        to_write=parts.statement("to_write"),
        locks=parts.statement("locks"),
        cleared=parts.statement("cleared") if source.kind == "deal" and parts.overwritten else None,
        merge=_Merge(source, application, quoting, tenant, without).statement("merge") if completes else merge,
        completion=merge,
        failed=parts.statement("failed"),
        unwritten=parts.statement("unwritten"),
        counted=parts.statement("counted"),
        rejects=parts.statement("rejects", losses=Sql(parts.render("losses"))),
        links=linking("links"),
        linked=linking("linked"),
        unlinked=linking("unlinked"),
        suppressed=linking("suppressed"),
    )


def count_of_values(source: Table, application: Application, quoting: Quoting) -> str:
    """The statement that counts a tenant's ($1) values in each column of the deals' table that a run overwrites."""
    columns = [
        column
        for column in source.columns
        if column.target_is_there and column.staged_as is not None and column.write == "always"
    ]
    return _whole(_render("count_of_values", quoting, columns=columns, target=Sql(application.deals)))


def comparison(
    source: Table, application: Application, quoting: Quoting, tenant: str, without: Collection[str]
) -> tuple[str, str | None]:
    """The statements that compare a batch with its rows, by the plan of a replay: what is missing or differs is what it
    would write. The first gives the nodes, each with its state; the second the values that differ, if any can.
    """
    parts = _Merge(source, application, quoting, tenant, without, completes=True)
    nodes = Sql(parts.render("compared_nodes", plan=Sql(parts.render("plan"))))
    return _whole(nodes), parts.statement("compared_values", nodes=nodes) if parts.differing else None


class _Merge:
    """A MERGE and its parts: over the staging table of a tenant, or, without one, over the foreign table."""

    def __init__(
        self,
        source: Table,
        application: Application,
        quoting: Quoting,
        tenant: str | None,
        without: Collection[str] = (),
        completes: bool = False,
    ) -> None:
        self.quoting = quoting
        self.table = source
        self.kind = source.kind
        self.staged = tenant is not None
        self.completes = completes
        self.columns = _merge_columns(source, self.staged, completes, quoting)
        self.written = [column for column in self.columns if column.target is not None]
        self.updated = [column for column in self.columns if column.updated is not None]
        self.differing = [column for column in self.updated if column.name not in without]
        self.overwritten = [column for column in self.updated if column.write == "always"]
        key = "graph_opportunity_id" if self.kind == "deal" else "id"
        owner = "graph_opportunity_id" if self.kind == "deal" else "opportunity_id"
        targets = {column.target: column.name for column in self.columns}
        stamp = application.stamp if self.kind == "deal" and application.stamp not in targets else None
        #: What the templates know.
        self.names: dict[str, Any] = {
            "kind": self.kind,
            "staged": self.staged,
            "completes": completes,
            "columns": self.columns,
            "updated": self.updated,
            "differing": self.differing,
            "overwritten": self.overwritten,
            "held_back_columns": [column for column in self.columns if self._holds_back(column)],
            "exotic": [column for column in self.columns if column.exotic],
            "keeping": [column for column in self.written if column.write in ("insert", "fill")],
            "inserted": [column for column in self.written if column.target not in (key, "opportunity_id")],
            "key": targets[key],
            "key_target": key,
            "owner": targets[owner],
            "number": targets.get("version_number"),
            "stamp": stamp,
            "tenant_column": source.tenant.name,
            # Of a run, a constant: a trigger of the application may change the setting.
            "tenant": Sql(quoting.literal(tenant) if tenant is not None else "current_setting('app.tenant_id')"),
            "relation": Sql(source.name),
            "target": Sql(application.deals if self.kind == "deal" else application.versions),
            "deals": Sql(application.deals),
            "versions": Sql(application.versions),
            "links": Sql(application.links),
            "link_columns": [(name, Sql(value)) for name, value in application.link_columns],
            "written": self.written,
            "mapped": source.columns,
            "staging": Sql(f"pg_temp.deal_sync_{self.kind}s"),
            "plan_table": Sql(f"pg_temp.deal_sync_{self.kind}_plan"),
        }
        self.names["matching"] = Sql(f"t.tenant_id = {self.names['tenant']}::uuid AND t.id = s.landed_id")
        self.names["differs"] = self._differs()
        self.names["rows"] = Sql(self.render("rows"))
        self.names["source"] = Sql(self.render("source"))

    def _differs(self) -> Sql:
        """True if an update by the source `s` would change the row `t`. No value is compared by an operator of its
        type, which may find equal what is not the same.
        """
        if not self.differing:
            return Sql("false")
        old = ",\n    ".join(f"t.{self.quoting.ident(column.target or '')}" for column in self.differing)
        new = ",\n    ".join(column.updated or "" for column in self.differing)
        return Sql(f"ROW(\n    {old}\n)::record OPERATOR(pg_catalog.*<>) ROW(\n    {new}\n)::record")

    def _holds_back(self, column: MergeColumn) -> bool:
        """Whether its misfit is found by the plan and not by the reader, and holds the row back."""
        if column.on_misfit != "reject":
            return False
        fills = self.kind == "deal" and column.write != "always"
        return column.exotic or (fills and column.target is not None and column.lost is not None)

    def statement(self, name: str, **more: Any) -> str:
        """A template as a statement, with what templates know and `more`."""
        return _whole(self.render(name, **more))

    def render(self, name: str, **more: Any) -> str:
        """The same as a part of others."""
        return _render(name, self.quoting, **self.names, **more)


def _merge_columns(source: Table, staged: bool, completes: bool, quoting: Quoting) -> list[MergeColumn]:
    """`completes`: a version that is there gets what it lacks, but for what says which version of which deal it is.

    Where it lacks its end, or ends before it begins, the old service has put the moment of insertion into its other
    times: all become the node's.
    """
    ident, literal = quoting.ident, quoting.literal
    fallbacks = {column.name: column.fallback for column in source.columns if column.fallback is not None}
    span: dict[str | None, str] = {
        column.target: column.name
        for column in source.columns
        if completes and source.kind == "version" and column.write != "never" and column.target in _TIMES
    }
    found = []
    for column in source.columns:
        if column.staged_as is None:
            continue
        target = column.target if column.write != "never" else None
        write = column.write
        if source.kind == "version":
            write = "fill" if completes and column.target not in ("id", "opportunity_id") else "insert"
        name = "s." + ident(column.name)
        value = f"nullif({name}, '')" if not staged and column.empty_is_null and column.type_name in _TEXTS else name
        writes = column.write != "never" and column.target_family is not None
        selected = cast(
            value,
            column.staged_family if staged else column.type_family,
            column.staged_modifier if staged else column.type_modifier,
            (column.target_family if writes else column.staged_family) or "text",
            column.target_modifier if writes else column.staged_modifier,
            (column.target_as if writes else column.staged_as) or "text",
            literal,
        )
        exotic = staged and selected != value
        is_there = f"{value} IS NOT NULL OR " if selected != value else ""
        misfit = f"coalesce(jsonb_exists(s.conversion_errors, {literal(column.name)}::text), false)"
        lost: str | None = f"{selected} IS NULL AND ({is_there}{misfit})"

        # What stands in for an absent value on insert: other columns, a constant, the column's own default.
        after: list[str] = []
        fallback = column.fallback
        while fallback is not None and f"s.{ident(fallback)}" not in after:
            after.append(f"s.{ident(fallback)}")
            fallback = fallbacks.get(fallback)
        if column.default is not None:
            after.append(literal(column.default))
        elif column.not_null and column.target_default is not None:
            after.append(_kept(column.target_default))
        inserted = name
        if after:
            flag = ident(f"{column.name} lost")
            inserted = f"CASE WHEN s.{flag} THEN NULL ELSE coalesce({', '.join([name, *after])}) END"
        elif column.on_misfit == "null" and not exotic:
            lost = None
        updated = _updated(column, target, write, inserted, name, after, span, ident)
        found.append(
            MergeColumn(
                name=column.name,
                target=target,
                write=write,
                on_misfit=column.on_misfit,
                source=Sql(name),
                selected=Sql(selected),
                lost=None if lost is None else Sql(lost),
                inserted=Sql(inserted),
                updated=None if updated is None else Sql(updated),
                exotic=exotic,
                link=column.link,
                target_family=column.target_family,
                target_modifier=column.target_modifier,
            )
        )
    return found


_TEXTS = ("text", "varchar", "bpchar")
_TIMES = ("valid_from", "valid_until", "created_at")


def _updated(
    column: Column,
    target: str | None,
    write: str,
    inserted: str,
    name: str,
    after: Sequence[str],
    span: Mapping[str | None, str],
    ident: Callable[[str], str],
) -> str | None:
    """The value that an update gives a column; None: it leaves it alone."""
    if target is None or write not in ("always", "fill"):
        return None
    here = f"t.{ident(target)}"
    if target in span and {"valid_from", "valid_until"} <= span.keys():
        return (
            f"CASE WHEN s.{ident(span['valid_until'])} IS NOT NULL AND (t.valid_until IS NULL OR t.valid_until <"
            f" t.valid_from) THEN coalesce({inserted}, {here}) ELSE coalesce({here}, {name}) END"
        )
    if write == "fill":
        return f"coalesce({here}, {name})"
    if column.on_misfit == "keep":
        new = f"coalesce({', '.join([name, *after])})" if after else name
        return f"CASE WHEN s.{ident(f'{column.name} lost')} THEN {here} ELSE {new} END"
    return inserted  # with its stand-in: else the next run would take away what this one has put there


def cast(
    value: str,
    source: str | None,
    source_modifier: int,
    target: str,
    target_modifier: int,
    target_as: str,
    literal: Callable[[str], str],
) -> str:
    """The expression that takes `value` from a foreign or staged type to its target's, NULL if it does not fit.

    `source` and `target` are types as format_type() spells them without a modifier, `target_as` with it.
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
            return f"_deal_sync.to_numeric({number}, {_digits(target_modifier)})::{target_as}"
        case _, "character varying" | "character" if target_modifier >= 0:
            return f"_deal_sync.to_varchar({as_text}, {target_modifier - 4})::{target_as}"
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


#: What a text becomes by the reader's own rules.
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


def _digits(modifier: int) -> str:
    """Precision and scale of a numeric type, as two arguments."""
    if modifier < 0:
        return "NULL, NULL"
    return f"{(modifier - 4) >> 16 & 65535}, {((modifier - 4) & 2047 ^ 1024) - 1024}"


# -- the templates -----------------------------------------------------------------------------------------------------


def _render(statement: str, quoting: Quoting, **names: Any) -> str:
    return _environment(quoting).get_template(f"{statement}.sql").render(names).strip("\n")


@cache
def _environment(quoting: Quoting) -> Environment:
    # A run with nothing changed needs none of it.
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
    """Write the templates as Python into a folder: where COMPILED is, a new session need not compile them."""
    from jinja2 import FileSystemLoader

    environment = _environment(Quoting(str, str)).overlay(loader=FileSystemLoader(FOLDER / "sql"))
    environment.compile_templates(folder, extensions=["sql"], zip=None, ignore_errors=False)


def _sql(text: Any, indent: int = 0) -> str:
    """SQL that was made here; its lines but for the first are indented by so many blanks."""
    if not isinstance(text, Sql):
        raise TypeError(f"{text!r} is no SQL that was made here")
    return text.replace("\n", "\n" + " " * indent)


def columns_of(statements: Statements) -> dict[str, str | None]:
    """As a row."""
    return {field.name: getattr(statements, field.name) for field in fields(statements)}
