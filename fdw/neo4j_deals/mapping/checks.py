"""In: a foreign table of the mapping, and a table of the application that it writes. Out: the setup errors in them.

Pure: what only PostgreSQL knows, how it quotes a name and whether a type accepts a text, is passed in. A check is one
function, which yields what it finds; its docstring is what must be true. A user sees the first error of the first check
that finds one, in the order of the lists at the end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from neo4j_deals.errors import DealSyncError
from neo4j_deals.mapping.application import LINK, TargetColumn, TargetTable
from neo4j_deals.mapping.defaults import TABLES
from neo4j_deals.mapping.model import READY_MADE, Column, Table
from neo4j_deals.mapping.types import JSON, NUMBERS, TEXTS, VECTORS, length, shows, suitable, takes, type_named


class Quoting(Protocol):
    """How names and texts are quoted: as PostgreSQL does."""

    def quote_ident(self, name: str) -> str:
        """An identifier, quoted."""

    def quote_literal(self, value: str) -> str:
        """A text, quoted."""


@dataclass(frozen=True)
class Setup:
    """What is checked."""

    table: Table
    target: TargetTable
    sql: Quoting
    #: Why a type (its name and its modifier) rejects a text, or NULL; None if it accepts it.
    cast_error: Callable[[str | None, str, int], str | None]
    #: The names that the sync uses itself in the staging table, and how many bytes a name may have there.
    reserved: Collection[str]
    longest: int

    @property
    def written(self) -> list[Column]:
        """The columns of the mapping that the sync writes."""
        return [column for column in self.table.columns if column.target is not None and column.is_written]

    def alter_column(self, name: str, change: str) -> str:
        """A statement that changes a column of the foreign table."""
        return f"ALTER FOREIGN TABLE {self.table.name} ALTER COLUMN {self.sql.quote_ident(name)} {change};"

    def alter_options(self, change: str) -> str:
        """A statement that changes the foreign table's options."""
        return f"ALTER FOREIGN TABLE {self.table.name} OPTIONS ({change});"


Errors = Iterator[DealSyncError]
Check = Callable[[Setup], Errors]


def raise_first(checks: Sequence[Check], setup: Setup) -> None:
    """Raises the first error."""
    for check in checks:
        for error in check(setup):
            raise error


# -- the target itself -------------------------------------------------------------------------------------------------


def target_is_a_table(setup: Setup) -> Errors:
    """The target is a table: the plan of a batch asks for the place of a row, which a view does not have."""
    name, relkind = setup.target.name, setup.target.relkind
    if relkind not in ("r", "p"):
        what = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}.get(relkind, "not a table")
        yield DealSyncError(
            "42809",
            f"{name} is {what}, but the sync can only write to tables",
            f'Option "target" of foreign table {setup.table.name} names it.',
            setup.alter_options("SET target 'schema.table'"),
        )


def target_has_no_rules(setup: Setup) -> Errors:
    """The target has no rules, not even disabled ones: MERGE does not support them."""
    for rule in setup.target.rules:
        yield _has_rule(setup.target, rule.name, "MERGE")


def _has_rule(table: TargetTable, rule: str, command: str) -> DealSyncError:
    return DealSyncError(
        "0A000",
        f'table {table.name} has rule "{rule}", but {command} does not support tables with rules',
        hint="Replace the rule with a trigger.",
    )


# -- the columns of the mapping ----------------------------------------------------------------------------------------


def key_is_written(setup: Setup) -> Errors:
    """The key of a kind has a column for each of its targets."""
    written = {column.target for column in setup.written}
    for target in setup.table.key_targets:
        if target not in written:
            yield DealSyncError(
                "42703",
                f'no column of foreign table {setup.table.name} has the target "{target}"',
                hint=_for_key(setup, target),
            )


def _for_key(setup: Setup, target: str) -> str:
    """The column that has the target by default may exist without it, or with the policy never."""
    names = {
        definition.name
        for table in TABLES
        if table.kind == setup.table.kind
        for definition in table.columns
        if definition.options.get("target") == target
    }
    for column in setup.table.columns:
        if column.target == target:
            return setup.alter_column(column.name, "OPTIONS (DROP write)")
        if column.name in names:
            verb = "ADD" if column.target is None else "SET"
            return setup.alter_column(column.name, f"OPTIONS ({verb} target {setup.sql.quote_literal(target)})")
    return "The key requires it. To add columns that are missing: SELECT deal_sync.attach();"


def targets_exist(setup: Setup) -> Errors:
    """Each target that is written exists."""
    for column in setup.written:
        if not column.target_is_there:
            yield DealSyncError(
                "42703",
                f'column "{column.target}" of table {setup.target.name} does not exist',
                f'It is the target of column "{column.name}" of foreign table {setup.table.name}.',
                _for_missing(setup, column),
            )


def _for_missing(setup: Setup, column: Column) -> str:
    """The foreign column's type says little about the target's; the migration knows the types of its columns."""
    assert column.target is not None
    migrated = {
        definition.options.get("target")
        for table in TABLES
        if table.kind == setup.table.kind
        for definition in table.columns
    }
    drop = setup.alter_column(column.name, "OPTIONS (DROP target)")
    if column.target not in migrated:
        name = setup.sql.quote_ident(column.target)
        return f"ALTER TABLE {setup.target.name} ADD COLUMN {name} {column.type_as}; or {drop}"
    run = "Run the migration (sql/migration/deal_sync.sql)"
    return f"{run}." if column.target in setup.table.key_targets else f"{run}, or {drop}"


def names_are_free(setup: Setup) -> Errors:
    """No staged column has a name that the sync uses itself."""
    for column in setup.table.columns:
        is_free = column.name not in setup.reserved and len(column.name.encode()) <= setup.longest
        if column.staged_as is not None and not is_free:
            table, name = setup.table.name, setup.sql.quote_ident(column.name)
            yield DealSyncError(
                "42701",
                f'a column with a target cannot be named "{column.name}" in foreign table {table}',
                f"The sync uses this name itself, or it is longer than {setup.longest} bytes.",
                f"ALTER FOREIGN TABLE {table} RENAME COLUMN {name} TO ...; ALTER FOREIGN TABLE {table}"
                f" ALTER COLUMN ... OPTIONS (ADD property {setup.sql.quote_literal(column.name)});",
            )


def targets_are_not_generated(setup: Setup) -> Errors:
    """No target is a generated column."""
    generated = {column.name for column in setup.target.columns if column.is_generated}
    for column in setup.written:
        if column.target in generated:
            yield DealSyncError(
                "428C9",
                f'cannot write to generated column "{column.target}" of table {setup.target.name}',
                hint=setup.alter_column(column.name, "OPTIONS (DROP target)"),
            )


def targets_take_null(setup: Setup) -> Errors:
    """No target is of a domain that rejects NULL: a row is compared as values of the domain before it is written."""
    for column in setup.written:
        there = setup.target.column(column.target or "")
        if there is None or type_named(there.type_family) == there.base_name:
            continue
        if setup.cast_error(None, there.type_family, -1) is not None:
            name = setup.sql.quote_ident(there.name)
            yield DealSyncError(
                "42804",
                f'column "{there.name}" of table {setup.target.name} is of a domain that does not allow NULL',
                f"The domain is {there.type_family}.",
                "Allow NULL in the domain, and forbid it in the column:"
                f" ALTER TABLE {setup.target.name} ALTER COLUMN {name} SET NOT NULL;",
            )


def links_are_ids(setup: Setup) -> Errors:
    """What is linked is the id of an interaction, a uuid."""
    for column in setup.table.columns:
        if column.link and column.staged_as is not None and (column.due_name or column.staged_name) != "uuid":
            yield DealSyncError(
                "42804",
                f'column "{column.name}" of foreign table {setup.table.name} has option "link", but is not staged as'
                " a uuid",
                f'Its target "{column.target}" is of type {column.due_as}.' if column.target else None,
                (
                    f"ALTER TABLE {setup.target.name} ALTER COLUMN {setup.sql.quote_ident(column.target)} TYPE uuid"
                    f" USING {setup.sql.quote_ident(column.target)}::uuid; or "
                    if column.target
                    else ""
                )
                + setup.alter_column(column.name, "OPTIONS (DROP link)"),
            )


def targets_differ(setup: Setup) -> Errors:
    """No target is written by several columns."""
    for target, number in Counter(column.target for column in setup.written).items():
        if number > 1:
            yield DealSyncError(
                "42701",
                f'several columns of foreign table {setup.table.name} have the target "{target}"',
                hint="Drop the target of one of them, or set its write policy to 'never'.",
            )


def defaults_fit(setup: Setup) -> Errors:
    """Each option `default` is valid for its target. A cast to varchar(n) truncates a text, an INSERT rejects it."""
    for column in setup.written:
        if column.default is None or not column.target_is_there:
            continue
        assert column.target_family is not None
        why = setup.cast_error(column.default, column.target_family, column.target_modifier)
        most = length(column.target_modifier) if type_named(column.target_family) in TEXTS else None
        if why is not None:
            why = f"It is an {why}."
        elif most is not None and len(column.default) > most:
            why = "It is too long."
        if why is not None:
            yield DealSyncError(
                "42804",
                f'option "default" of column "{column.name}" of foreign table {setup.table.name} does not fit its'
                " target",
                why,
                setup.alter_column(column.name, 'OPTIONS (SET "default" ...)'),
            )


def fallbacks_exist(setup: Setup) -> Errors:
    """Each option `fallback` names a column that is read."""
    staged = {column.name for column in setup.table.columns if column.staged_as is not None}
    for column in setup.table.columns:
        if column.fallback is not None and column.is_written and column.fallback not in staged:
            yield DealSyncError(
                "42703",
                f'column "{column.name}" of foreign table {setup.table.name} has fallback "{column.fallback}", which'
                " is not a column that the sync reads",
                hint=setup.alter_column(column.name, "OPTIONS (SET fallback ...)"),
            )


def stamps_are_times(setup: Setup) -> Errors:
    """The column that is set at each change, which only the deals' table has, is a timestamp."""
    stamps, there = setup.table.stamp, setup.target.column(setup.table.stamp)
    if setup.table.kind != "deal" or (there is not None and there.base_name in _STAMPS):
        return
    if there is None and setup.table.stamps is None:
        return
    why = "does not exist" if there is None else f"is of type {there.type_family}, not a timestamp"
    yield DealSyncError(
        "42703" if there is None else "42804",
        f'column "{stamps}" of table {setup.target.name} {why}',
        f'Option "stamps" of foreign table {setup.table.name} names it.'
        if setup.table.stamps is not None
        else "The sync sets it at each change.",
        setup.alter_options("DROP stamps" if setup.table.stamps is not None else "ADD stamps '<a timestamp>'"),
    )


_STAMPS = ("timestamptz", "timestamp")


# -- the other columns of the target -----------------------------------------------------------------------------------


def columns_are_filled(setup: Setup) -> Errors:
    """Something fills each column of the target that is NOT NULL and has no default."""
    filled = {"id", "tenant_id", *(column.target for column in setup.written)}
    if setup.table.kind == "deal":
        filled.add(setup.table.stamp)
    for column in setup.target.columns:
        if column.must_be_given and column.name not in filled:
            yield _is_unfilled(setup.target, column, _for_unfilled(setup, column))


def _is_unfilled(table: TargetTable, column: TargetColumn, hint: str) -> DealSyncError:
    return DealSyncError(
        "23502",
        f'column "{column.name}" of table {table.name} is NOT NULL and has no default, and the sync does not write it',
        hint=hint,
    )


def _for_unfilled(setup: Setup, column: TargetColumn) -> str:
    """Gives every new row a value: a property that no node has would reject them all."""
    ident, literal = setup.sql.quote_ident(column.name), setup.sql.quote_literal
    for mapped in setup.table.columns:
        if mapped.target == column.name or (mapped.target is None and mapped.name == column.name):
            verb = "SET" if mapped.write_is_given else "ADD"
            add = f", ADD target {literal(column.name)}" if mapped.target is None else ""
            return setup.alter_column(mapped.name, f"OPTIONS ({verb} write 'insert'{add})")
    if _is_stamp(setup, column):
        verb = "ADD" if setup.table.stamps is None else "SET"
        return setup.alter_options(f"{verb} stamps {literal(column.name)}")
    if column.base_name in ("date", "time", "timetz", *_STAMPS):
        return f"ALTER TABLE {setup.target.name} ALTER COLUMN {ident} SET DEFAULT now();"
    add = f"ALTER FOREIGN TABLE {setup.table.name} ADD COLUMN {ident} {suitable(column.base_name, column.base_as)}"
    options, default = f"target {literal(column.name)}, write 'insert'", _default(column)
    if default is None:
        return (
            f"Give the column a default, or map it: {add} OPTIONS ({options});"
            " a node without this property is rejected then."
        )
    return f'{add} OPTIONS ({options}, "default" {literal(default)}); or give the column of the table a default.'


def _is_stamp(setup: Setup, column: TargetColumn) -> bool:
    """Whether by its name it is a column that a framework sets at each change, and the sync sets no other."""
    return (
        setup.table.kind == "deal"
        and column.base_name in _STAMPS
        and re.search("updat|modif|chang", column.name, re.IGNORECASE) is not None
        and setup.target.column(setup.table.stamp) is None
    )


def _default(column: TargetColumn) -> str | None:
    """An empty value; None if the type has none."""
    if column.base_name in TEXTS:
        return ""
    if column.base_name in NUMBERS:
        return "0"
    if column.base_name in JSON:
        return "{}"
    return "false" if column.base_name == "bool" else column.first_label


# -- the table of links ------------------------------------------------------------------------------------------------


def links_have_no_rules(setup: Setup) -> Errors:
    """The table has no enabled rules for INSERT or UPDATE: INSERT ... ON CONFLICT does not support them."""
    for rule in setup.target.rules:
        if rule.is_enabled and rule.command in ("2", "3"):
            yield _has_rule(setup.target, rule.name, "INSERT ... ON CONFLICT")


def links_have_their_columns(setup: Setup) -> Errors:
    """The table has the four columns of a link."""
    for name, type_name in LINK.items():
        there = setup.target.column(name)
        if there is None or (type_name == "uuid" and there.base_name != "uuid"):
            why = "does not exist" if there is None else f"is of type {there.type_family}, but the sync writes a uuid"
            yield DealSyncError(
                "42703" if there is None else "42804",
                f'column "{name}" of table {setup.target.name} {why}',
                hint="Run the migration (sql/migration), or, if the links are in another table,"
                " ALTER FOREIGN TABLE ... OPTIONS (SET links ...);",
            )


def links_are_filled(setup: Setup) -> Errors:
    """No other column of a link requires a value."""
    for column in setup.target.columns:
        if column.must_be_given and column.name not in LINK and column.given is None:
            name = setup.sql.quote_ident(column.name)
            hint = f"ALTER TABLE {setup.target.name} ALTER COLUMN {name} SET DEFAULT ...;"
            yield _is_unfilled(setup.target, column, hint)


# -- the types of the mapping ------------------------------------------------------------------------------------------


def check_types(table: Table, sql: Quoting) -> None:
    """Raises DealSyncError (42804) for the first column that cannot fill its target, because of their types."""
    for column in table.columns:
        if column.staged_as is not None and not _fits_together(column):
            target = f'its target "{column.target}" requires' if column.target else "a link requires"
            raise DealSyncError(
                "42804",
                f'column "{column.name}" of foreign table {table.name} is of type {column.type_name},'
                f" but {target} {column.due_as}",
                hint=f"ALTER FOREIGN TABLE {table.name} ALTER COLUMN {sql.quote_ident(column.name)} "
                + ("OPTIONS (DROP target);" if column.derive in READY_MADE else f"TYPE {_suitable(column)};"),
            )


def _fits_together(column: Column) -> bool:
    due = column.text_of or column.staged_name
    assert due is not None
    if column.derive in READY_MADE:
        return due in ("text", "varchar") or (due in ("json", "jsonb") and column.derive != "element_id")
    if due in VECTORS and column.type_name in VECTORS and column.type_modifier > 0 < column.due_modifier:
        return column.type_modifier == column.due_modifier
    return takes(column.type_name, due)


def check_shown(table: Table, sql: Quoting) -> None:
    """Raises DealSyncError (42804) for the first column that cannot hold every value that the sync lands: the sync
    converts the graph's value, the MERGE by hand the value of the foreign column.
    """
    for column in table.columns:
        if column.staged_as is not None and column.derive is None and not _shows_all(column):
            raise DealSyncError(
                "42804",
                f'column "{column.name}" of foreign table {table.name} cannot hold every value that the sync lands',
                f"It is of type {column.type_as}, but the sync converts the graph's value to type {column.due_as}, that"
                " of its target, directly.",
                f"ALTER FOREIGN TABLE {table.name} ALTER COLUMN {sql.quote_ident(column.name)}"
                f" TYPE {_suitable(column)};",
            )


def _shows_all(column: Column) -> bool:
    assert column.due_name is not None
    if column.type_name == column.due_name:
        return column.type_modifier in (-1, column.due_modifier)
    return column.type_modifier == -1 and shows(column.type_name, column.due_name)


def _suitable(column: Column) -> str:
    assert column.due_name is not None
    assert column.due_as is not None
    return suitable(column.due_name, column.due_as)


#: Of a target, in this order.
OF_A_TARGET: tuple[Check, ...] = (
    target_is_a_table,
    target_has_no_rules,
    key_is_written,
    targets_exist,
    names_are_free,
    targets_are_not_generated,
    targets_differ,
    targets_take_null,
    links_are_ids,
    defaults_fit,
    fallbacks_exist,
    stamps_are_times,
    columns_are_filled,
)

#: Of the table of links, in this order.
OF_LINKS: tuple[Check, ...] = (links_have_no_rules, links_have_their_columns, links_are_filled)
