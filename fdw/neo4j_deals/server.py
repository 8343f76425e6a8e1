"""In: a call of one of the extension's PL/Python functions. Out: its result, or an error as PostgreSQL reports it.

The one module that the SQL names: each function there is an import of it and one call.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NoReturn

from neo4j_deals import SERVES, __version__, catalog, cron, cypher, imports, scan, staging, whole
from neo4j_deals.catalog import Plpy, TellingPlpy
from neo4j_deals.connection import Ask, connection
from neo4j_deals.errors import DealSyncError
from neo4j_deals.feed import maybe_uuid
from neo4j_deals.mapping import Column
from neo4j_deals.projection import READY_MADE
from neo4j_deals.reader import answer
from neo4j_deals.selection import Nodes, Selection, everyone, keys
from neo4j_deals.values import Misfit, landing, takes, to_timestamptz

_CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}")


def check_version(plpy: Plpy, extension_version: str) -> None:
    """Raises where this package does not serve the extension's version."""
    if extension_version not in SERVES:
        plpy.error(
            f"the Python package neo4j_deals {__version__} does not serve deal_sync {extension_version}",
            sqlstate="55000",
            detail=f"It serves {', '.join(sorted(SERVES))}; it lies in the Python of {sys.prefix}.",
            hint=f"install deal-sync=={extension_version} there, or ALTER EXTENSION deal_sync UPDATE; then reconnect",
        )


def fill_staging(plpy: TellingPlpy, kind: str, tenant: str, caller: str, selection: str | None) -> Iterator[int]:
    """See `staging.fill`, for the table of a kind; `selection` is JSON."""
    try:
        yield from staging.fill(plpy, catalog.mapped(plpy, kind), tenant, caller, Selection.read(selection))
    except DealSyncError as error:
        _raise(plpy, error)


def scan_rows(
    plpy: TellingPlpy, relation: str, tenant: str | None, columns: list[str] | None, row_limit: int | None
) -> Iterator[tuple[Any, ...]]:
    """See `scan.rows`."""
    try:
        yield from scan.rows(plpy, relation, tenant, columns, row_limit)
    except DealSyncError as error:
        _raise(plpy, error)


def import_statements(
    plpy: TellingPlpy,
    server: str,
    schema: str,
    only: list[str] | None,
    but: list[str] | None,
    options: dict[str, str],
) -> Iterator[tuple[str, str, str, int]]:
    """The tables of an import: name, label, CREATE FOREIGN TABLE, number of columns. Says what it could not map."""
    try:
        wish = imports.Wish.read(options, only, but)
        vector = catalog.query(plpy, "SELECT deal_sync.vector_type()::pg_catalog.regtype::text AS name")[0]["name"]
        to = connection(catalog.options_of_server(plpy, server))
        _, result = imports.read(to, wish, vector, lambda: plpy.execute("SELECT 1"))
    except DealSyncError as error:
        _raise(plpy, error)
    for notice in result.notices:
        plpy.notice(notice)
    for warning in result.warnings:
        plpy.warning(warning)
    for table in result.tables:
        yield table.name, table.label, table.to_statement(schema, server), len(table.columns)


def nobodys_nodes(plpy: Plpy, kind: str) -> int:
    """The nodes that belong to no tenant: tenant_id absent, no text, or in another spelling than a UUID's usual two."""
    try:
        counts = scan.tenant_counts(plpy, catalog.mapped(plpy, kind))
    except DealSyncError as error:
        _raise(plpy, error)
    return sum(nodes for value, nodes in counts if not is_a_tenant(value))


def is_a_tenant(value: Any) -> bool:
    """Whether a node with this tenant_id belongs to somebody."""
    return isinstance(value, str) and _CANONICAL.fullmatch(value) is not None


def graph_state(plpy: Plpy, tenant: str | None, counts: bool, newest: bool, late: float | None) -> dict[str, Any]:
    """The graph's database id and its clock as a text that PostgreSQL reads; of a tenant what its runs need to know.

    `ahead`: seconds that the graph's clock is ahead of PostgreSQL's, give or take `unsure`, what the answer was under
    way. With `counts`: `deals` and `versions`, the numbers of its nodes, and `count_ms`, what the counting took.
    `open`: transactions of others that have been open for longer than `late` seconds (None: not asked), each with its
    seconds; None where Neo4j does not tell. With `newest`: the newest moment of its deals that is past.
    """
    try:
        relation = catalog.mapped(plpy, "deal")
        to = connection(catalog.server_options(plpy, relation))
        counted = [(*catalog.nodes(plpy, kind), tenant) for kind in ("deal", "version")] if tenant and counts else []
        latest = None
        if tenant and newest:
            table = catalog.table(plpy, relation)
            latest = cypher.newest(table.label, tenant, table.tenant.property, table.moments[0])

        def work(ask: Ask, late: float | None) -> dict[str, Any]:
            before = time.time()
            id_, name, clock, numbers, milliseconds = whole.one(ask, cypher.state(counted))
            after = time.time() - milliseconds / 1000
            found = {
                "database_id": id_,
                "clock": clock.iso_format(),
                "ahead": clock.to_native().timestamp() - (before + after) / 2,
                "unsure": (after - before) / 2,
                "deals": numbers[0] if counted else None,
                "versions": numbers[1] if counted else None,
                "count_ms": milliseconds if counted else None,
                "open": None,
                "newest": None,
            }
            if late is not None:
                rows = whole.one(ask, cypher.open_transactions(name, int(late * 1000)))[0]
                found["open"] = [f"{transaction} ({seconds} s)" for transaction, seconds in rows]
            if latest is not None:
                moments = [to_timestamptz(value) for value in whole.one(ask, latest) if value is not None]
                found["newest"] = max(moments).isoformat() if moments else None
            return found

        def answered(late: float | None) -> dict[str, Any]:
            return answer(to, lambda ask: work(ask, late), lambda: plpy.execute("SELECT 1"))

        if late is None:
            return answered(None)
        return imports.unless_forbidden(lambda: answered(late)) or answered(None)
    except DealSyncError as error:
        _raise(plpy, error)


def graph_keys(plpy: Plpy, kind: str, tenant: str) -> list[tuple[str, str | None]]:
    """Of each node of a kind that a tenant has, the element id and the key; None where it is no UUID."""
    try:
        relation = catalog.mapped(plpy, kind)
        table = catalog.table(plpy, relation)
        wanted = everyone(Nodes(table.label, table.tenant.property, tenant), table.key.property)
        to = connection(catalog.server_options(plpy, relation))
        nodes = answer(to, lambda ask: whole.everything(ask, wanted), lambda: plpy.execute("SELECT 1"))
    except DealSyncError as error:
        _raise(plpy, error)
    return [(element, None if (key := maybe_uuid(value)) is None else str(key)) for element, value in nodes]


def graph_tenants(plpy: Plpy) -> list[tuple[str, int]]:
    """The tenants that have nodes of either kind, with their number of deals: those whose tenant_id counts as one."""
    deals: dict[str, int] = {}
    try:
        for kind in ("deal", "version"):
            for value, nodes in scan.tenant_counts(plpy, catalog.mapped(plpy, kind)):
                if isinstance(value, str) and _CANONICAL.fullmatch(value):
                    tenant = value.lower()
                    deals[tenant] = deals.get(tenant, 0) + (nodes if kind == "deal" else 0)
    except DealSyncError as error:
        _raise(plpy, error)
    return list(deals.items())


def next_run(plpy: Plpy, schedule: str, after: str, zone: str) -> str | None:
    """See `cron.next_run`; times as texts."""
    try:
        found = cron.next_run(schedule, datetime.fromisoformat(after), zone)
    except ValueError as error:
        plpy.error(
            f'"{schedule}" is no schedule that pg_cron takes',
            sqlstate="22023",
            detail=f"{error}.",
            hint="'*/5 * * * *' is every five minutes; the fields are minute, hour, day, month and day of the week",
        )
    return None if found is None else found.isoformat()


def deal_keys(plpy: Plpy, kind: str, tenant: str, after: str | None, size: int) -> list[str]:
    """The next ids of a tenant's deals, those that its nodes of a kind name: see `selection.keys`."""
    try:
        relation = catalog.mapped(plpy, kind)
        source = catalog.table(plpy, relation)
        wanted = keys(Nodes(source.label, source.tenant.property, tenant), source.deal.property, after, size)
        to = connection(catalog.server_options(plpy, relation))
        return answer(
            to, lambda ask: [str(key) for (key,) in whole.everything(ask, wanted)], lambda: plpy.execute("SELECT 1")
        )
    except DealSyncError as error:
        _raise(plpy, error)


def check_source(plpy: Plpy, kind: str) -> None:
    """Raises where server or user mapping are not set up, or a target cannot take its property; asks no graph."""
    relation = catalog.mapped(plpy, kind)
    try:
        catalog.server_options(plpy, relation)
        source = catalog.table(plpy, relation)
        for column in source.columns:
            if column.staged_as is not None and not _fits_together(column):
                target = f'column "{column.target}" of its target table' if column.target else "interaction_links"
                raise DealSyncError(
                    "42804",
                    f'{target} cannot take column "{column.name}" of foreign table {relation}',
                    f"{column.due_as} is due, and the foreign column is of type {column.type_name}",
                    f"ALTER FOREIGN TABLE {relation} ALTER COLUMN {plpy.quote_ident(column.name)} "
                    + ("OPTIONS (DROP target);" if column.derive in READY_MADE else f"TYPE {_suitable(column)};"),
                )
    except DealSyncError as error:
        _raise(plpy, error)


def _fits_together(column: Column) -> bool:
    assert column.staged_name is not None
    due = column.due_name or column.staged_name
    if column.derive in READY_MADE:
        return due in ("text", "varchar") or (due in ("json", "jsonb") and column.derive != "element_id")
    length = column.due_modifier if column.due_name else column.staged_modifier
    if due in ("vector", "halfvec") and column.type_name in ("vector", "halfvec") and column.type_modifier > 0 < length:
        return column.type_modifier == length
    return takes(column.type_name, due)


def _suitable(column: Column) -> str | None:
    """The type of a foreign column that shows whatever a target takes, and that Multicorn2 can serve."""
    if column.due_name is not None:
        return column.due_as
    match column.staged_name:
        case "varchar" | "uuid":
            return "text"
        case "int2" | "int4":
            return "bigint"
        case "float4" | "numeric":
            return "double precision"
        case "json":
            return "jsonb"
        case "timestamp":
            return "timestamp with time zone"
    return column.staged_as


def to_type(value: str | None, type_name: str) -> Any:
    """A text as the reader converts it to `type_name`, or None where it does not fit: for the MERGE by hand."""
    if value is None:
        return None
    try:
        return str(landing("text", type_name)(value))
    except Misfit:
        return None


def _raise(plpy: Plpy, error: DealSyncError) -> NoReturn:
    """In one text: PL/Python drops the DETAIL of what a set-returning function raises."""
    message = f"{error.message}: {error.detail}" if error.detail else error.message
    fields = {"sqlstate": error.sqlstate, "hint": error.hint}
    plpy.error(message, **{name: text for name, text in fields.items() if text})
