"""In: a call of one of the extension's PL/Python functions. Out: its result, or an error as PostgreSQL reports it.

The only module that SQL uses: each function there imports it and makes one call.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

# The driver makes large tables when it is imported, which would be scanned over and over: an eighth of the import.
_COLLECTS = gc.isenabled()
gc.disable()
# It would import numpy, too, for values that nobody passes to it: a fifth of the import.
_WITHOUT_NUMPY = "numpy" not in sys.modules
if _WITHOUT_NUMPY:
    sys.modules["numpy"] = None  # type: ignore[assignment]
try:
    from neo4j_deals import SERVES, __version__, catalog
    from neo4j_deals.catalog import Plpy, QuotingPlpy, TellingPlpy
    from neo4j_deals.errors import DealSyncError
    from neo4j_deals.graph.connection import connection
    from neo4j_deals.graph.connection import role as current_role
    from neo4j_deals.mapping.application import LINK, Application
    from neo4j_deals.mapping.checks import check_types
    from neo4j_deals.mapping.defaults import TABLES
    from neo4j_deals.mapping.model import Table
    from neo4j_deals.rows.values import Misfit, landing
    from neo4j_deals.sync import cron, setup, staging, state
    from neo4j_deals.sync import statements as compiler
    from neo4j_deals.sync.selection import Selection
    from neo4j_deals.tables import imports, scan, sessions

    gc.freeze()  # what was imported stays, and is not scanned later, either
finally:  # the session's other functions in Python find both as they were
    if _WITHOUT_NUMPY:
        del sys.modules["numpy"]
    if _COLLECTS:
        gc.enable()

if TYPE_CHECKING:
    from neo4j_deals.doctor.runner import Row


@contextmanager
def _reported(plpy: Plpy) -> Iterator[None]:
    """Reports an error to PostgreSQL in one text: PL/Python drops the DETAIL if a set-returning function raises it."""
    try:
        yield
    except DealSyncError as error:
        message = f"{error.message}: {error.detail}" if error.detail else error.message
        _raise(plpy, DealSyncError(error.sqlstate, message, hint=error.hint))


def _raise(plpy: Plpy, error: DealSyncError) -> NoReturn:
    fields = {"sqlstate": error.sqlstate, "detail": error.detail, "hint": error.hint}
    plpy.error(error.message, **{name: text for name, text in fields.items() if text})


T = TypeVar("T")
Parameters = ParamSpec("Parameters")


class _Rows(Generic[T]):
    """The rows of a generator that calls PostgreSQL, for a set-returning function: see docs/internals/run.md, rule 12.

    The call of `__next__` holds this object, which holds the generator.
    """

    def __init__(self, rows: Iterator[T]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._rows)


def _held(rows: Callable[Parameters, Iterator[T]]) -> Callable[Parameters, Iterator[T]]:
    """Makes a generator function of SQL return `_Rows`."""

    @wraps(rows)
    def held(*args: Parameters.args, **named: Parameters.kwargs) -> Iterator[T]:
        return _Rows(rows(*args, **named))

    return held


def check_version(plpy: Plpy, extension_version: str) -> None:
    """Raises if this package does not support the extension's version."""
    if extension_version not in SERVES:
        plpy.error(
            f"the Python package neo4j_deals {__version__} does not support deal_sync {extension_version}",
            sqlstate="55000",
            detail=f"It supports {', '.join(sorted(SERVES))}, and is installed in {sys.prefix}.",
            hint=f"Install deal-sync=={extension_version} there, or ALTER EXTENSION deal_sync UPDATE; then reconnect.",
        )


def package_versions() -> str:
    """See `package.versions`."""
    from neo4j_deals.doctor import package  # the doctor's imports take long, and a sync does not need them

    return package.versions()


def examine(plpy: QuotingPlpy, role: str) -> list[Row]:
    """See `runner.examine`."""
    from neo4j_deals.doctor import runner

    with _reported(plpy):
        return runner.examine(plpy, role)


def examine_graph(plpy: QuotingPlpy, is_mapped: bool) -> list[Row]:
    """See `runner.examine_graph`."""
    from neo4j_deals.doctor import runner

    with _reported(plpy):
        catalog.look(plpy)
        return runner.examine_graph(plpy, is_mapped)


def default_columns() -> Iterator[dict[str, Any]]:
    """The default mapping for `attach()`, a row for each column of its foreign tables."""
    for table in TABLES:
        for place, column in enumerate(table.columns, start=1):
            yield {
                "table_name": table.name,
                "label": table.label,
                "kind": table.kind,
                "target": table.target,
                "place": place,
                "name": column.name,
                "type": column.type,
                "options": json.dumps(dict(column.options)),
                "comment": column.comment,
            }


def check_source(plpy: QuotingPlpy, kinds: list[str]) -> None:
    """Raises if server or user mapping are not set up, or a target's type does not suit; does not query the graph."""
    with _reported(plpy):
        catalog.look(plpy)
        for kind in kinds:
            catalog.server_options(plpy, catalog.mapped(plpy, kind))
            catalog.once(plpy, ("types", kind), partial(_check_types, plpy, kind))


def _check_types(plpy: QuotingPlpy, kind: str) -> None:
    check_types(catalog.mapping(plpy, kind), plpy)


def check_targets(plpy: QuotingPlpy, shown: str | None) -> None:
    """See `setup.check_targets`."""
    if shown is not None:  # not a part of a run
        catalog.look(plpy)
    try:  # a domain of the application checks a default with the rights of the role
        catalog.once(plpy, ("targets", shown, current_role()), lambda: setup.check_targets(plpy, shown))
    except DealSyncError as error:
        _raise(plpy, error)


@_held
def fill_staging(
    plpy: TellingPlpy, kind: str, tenant: str, caller: str, selection: str | None, next_kind: str | None
) -> Iterator[int | None]:
    """See `staging.fill`, for one kind or two; `selection` is JSON."""
    kinds = [kind] if next_kind is None else [kind, next_kind]
    with _reported(plpy):
        yield from staging.fill(plpy, kinds, tenant, caller, Selection.read(selection))


def statements(plpy: QuotingPlpy, kind: str, tenant: str, without: list[str], completes: bool) -> dict[str, str | None]:
    """See `statements.statements`; returns a row."""
    with _reported(plpy):
        made = catalog.once(
            plpy,
            ("statements", kind, tuple(without), completes),
            lambda: compiler.statements(*_compiled_from(plpy, kind), without, completes),
        )
    return compiler.columns_of(made, plpy.quote_literal(tenant))


def merge_by_hand(plpy: QuotingPlpy, kind: str) -> str:
    """See `statements.merge_by_hand`."""
    with _reported(plpy):
        return compiler.merge_by_hand(*_compiled_from(plpy, kind))


def count_of_values(plpy: QuotingPlpy) -> str:
    """See `statements.count_of_values`."""
    with _reported(plpy):
        return catalog.once(plpy, "count", lambda: compiler.count_of_values(*_compiled_from(plpy, "deal")))


def comparison(plpy: QuotingPlpy, kind: str, tenant: str, without: list[str]) -> tuple[str, str | None]:
    """See `statements.comparison`."""
    with _reported(plpy):
        nodes, differing = compiler.comparison(*_compiled_from(plpy, kind), without)
    quoted = plpy.quote_literal(tenant)
    return str(compiler.of_tenant(nodes, quoted)), compiler.of_tenant(differing, quoted)


def comparison_of_tenant(plpy: QuotingPlpy) -> str:
    """See `statements.comparison_of_tenant`."""
    with _reported(plpy):
        _, application, quoting = _compiled_from(plpy, "deal")
        return compiler.comparison_of_tenant(application, quoting)


def link_columns() -> list[str]:
    """See `application.LINK`."""
    return list(LINK)


def _compiled_from(plpy: QuotingPlpy, kind: str) -> tuple[Table, Application, compiler.Quoting]:
    quoting = compiler.Quoting(plpy.quote_ident, plpy.quote_literal)
    return catalog.mapping(plpy, kind), catalog.application(plpy), quoting


def graph_state(
    plpy: Plpy, tenant: str | None, counts: bool, newest: bool, late: float | None, since: str | None
) -> dict[str, Any]:
    """See `state.graph_state`; `since` is a text with an offset."""
    moment = None if since is None else datetime.fromisoformat(since)
    with _reported(plpy):
        if tenant is None:  # not a part of a run
            catalog.look(plpy)
        return state.graph_state(plpy, tenant, state.Question(counts, newest, late, moment))


def graph_keys(plpy: Plpy, kind: str, tenant: str) -> list[tuple[str, str | None]]:
    """See `state.graph_keys`."""
    with _reported(plpy):
        return state.graph_keys(plpy, kind, tenant)


def deal_keys(plpy: Plpy, kind: str, tenant: str, after: str | None, size: int) -> list[str]:
    """See `state.deal_keys`."""
    with _reported(plpy):
        return state.deal_keys(plpy, kind, tenant, after, size)


def changed_tenants(plpy: Plpy, since: str, known: list[str] | None) -> list[str | None]:
    """See `state.changed_tenants`; `since` is JSON: by tenant, a text with an offset."""
    moments = {tenant: datetime.fromisoformat(moment) for tenant, moment in json.loads(since).items()}
    with _reported(plpy):
        return state.changed_tenants(plpy, moments, known)


def graph_tenants(plpy: Plpy) -> list[tuple[str | None, int, int, int]]:
    """See `state.graph_tenants`."""
    with _reported(plpy):
        return state.graph_tenants(plpy)


@_held
def scan_rows(
    plpy: TellingPlpy, relation: str, tenant: str | None, columns: list[str] | None, row_limit: int | None
) -> Iterator[tuple[Any, ...]]:
    """See `scan.rows`; raises if the caller may not read the columns."""
    with _reported(plpy):
        catalog.check_readable(plpy, relation, columns)
        yield from scan.rows(plpy, relation, tenant, columns, row_limit)


@_held
def import_statements(
    plpy: TellingPlpy,
    server: str,
    schema: str,
    only: list[str] | None,
    but: list[str] | None,
    options: dict[str, str],
) -> Iterator[tuple[str, str, str, int]]:
    """The tables of an import: name, label, statements, number of columns. Warns about what could not be mapped."""
    with _reported(plpy):
        wish = imports.Wish.read(options, only, but)
        to = connection(catalog.options_of_server(plpy, server))
        _, result = imports.read(to, wish, catalog.vector_type(plpy), partial(catalog.serve_interrupt, plpy))
    for notice in result.notices:
        plpy.notice(notice)
    for warning in result.warnings:
        plpy.warning(warning)
    for table in result.tables:
        yield table.name, table.label, table.to_script(schema, server), len(table.columns)


def kept_connections(plpy: Plpy) -> Iterator[dict[str, Any]]:
    """See `sessions.rows`."""
    return sessions.rows(plpy)


def close_connections(plpy: Plpy, server: str) -> dict[str, int]:
    """See `sessions.close`."""
    return sessions.close(plpy, server)


def next_run(plpy: Plpy, schedule: str, after: str, zone: str) -> str | None:
    """See `cron.next_run`; the times are texts."""
    try:
        found = cron.next_run(schedule, datetime.fromisoformat(after), zone)
    except ValueError as error:
        plpy.error(
            f'invalid schedule: "{schedule}"',
            sqlstate="22023",
            detail=f"{error}.",
            hint="The fields are minute, hour, day, month and day of the week: '*/5 * * * *' is every five minutes.",
        )
    return None if found is None else found.isoformat()


def to_type(value: str | None, type_name: str) -> Any:
    """A text as the reader converts it to `type_name`, or None for a misfit: for the MERGE by hand."""
    if value is None:
        return None
    try:
        return str(landing("text", type_name)(value))
    except Misfit:
        return None
