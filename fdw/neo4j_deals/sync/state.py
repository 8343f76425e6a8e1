"""In: the mapping's graph. Out: what a run must know besides the nodes: the database's id, its clock, keys, tenants.

Each function is a read transaction of its own and raises DealSyncError for errors of the graph or the network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from neo4j.time import DateTime

from neo4j_deals import catalog
from neo4j_deals.catalog import Plpy
from neo4j_deals.errors import Garbled
from neo4j_deals.graph import cypher, results
from neo4j_deals.graph.connection import Ask, connection
from neo4j_deals.graph.cypher import Query
from neo4j_deals.graph.reader import answer, unless_forbidden
from neo4j_deals.mapping.model import Table
from neo4j_deals.rows.values import Misfit, maybe_uuid, to_timestamptz
from neo4j_deals.sync import selection
from neo4j_deals.sync.selection import TenantsNodes, everyone, keys

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What is asked of a tenant beside the identity and the clock of the graph: see `graph_state`."""

    counts: bool = False
    newest: bool = False
    late: float | None = None
    since: datetime | None = None


def graph_state(plpy: Plpy, tenant: str | None, asked: Question) -> dict[str, Any]:
    """The state of the graph, and of a tenant in it: a row of `_deal_sync.graph_state`.

    `database_id`, and `clock` as a text for PostgreSQL. `mapping`: the fingerprint of the mapping, and that id.
    `ahead`: seconds that the graph's clock is ahead of PostgreSQL's; `unsure`: half of the round trip. `at_boot`: the
    graph's clock minus this machine's CLOCK_BOOTTIME; it changes only if the graph's clock is set. `boot`: identifies
    this boot of the machine.
    With `counts`: `deals` and `versions`, the numbers of the tenant's nodes, and `count_ms`, the time to count them.
    `open`: other transactions that have been open for longer than `late` seconds (None: not asked), each with its
    seconds; None if Neo4j does not permit that. With `newest`: the newest timestamp of the tenant's deals, except those
    in the future. With `since`: `changed`, whether a node of the tenant has changed since then.
    """
    tables = [catalog.mapping(plpy, kind) for kind in ("deal", "version")] if tenant else []
    counted = [(table.label, table.tenant.property, tenant or "") for table in tables if asked.counts]
    newest, changed = None, list[Query]()
    if tenant and asked.newest:
        table = tables[0]
        newest = cypher.newest(table.label, tenant, table.tenant.property, table.changed_by[0])
    if tenant and asked.since is not None:
        changed = [_changes(table, tenant, asked.since).counted() for table in tables]

    def answered(late: float | None) -> dict[str, Any]:
        def work(ask: Ask) -> dict[str, Any]:
            database, found = _identity_and_counts(ask, counted)
            found["open"] = None if late is None else _open(ask, database, late)
            found["newest"] = None if newest is None else _newest(ask, newest)
            found["changed"] = any(results.one(ask, query, int)[0] > 0 for query in changed) if changed else None
            return found

        return _asked(plpy, catalog.mapped(plpy, "deal"), work)

    found = None if asked.late is None else unless_forbidden(lambda: answered(asked.late))
    found = found or answered(None)
    fingerprint = catalog.fingerprint(plpy)
    return found | {"mapping": f"{fingerprint} {found['database_id']}"}


def _changes(table: Table, tenant: str, since: datetime) -> Query:
    nodes = TenantsNodes(table.label, table.tenant.property, tenant)
    return selection.changed(nodes, table.changed_by, table.key.property, since, unclear=False)


def _identity_and_counts(ask: Ask, counted: Sequence[tuple[str, str, str]]) -> tuple[str, dict[str, Any]]:
    """The database's name, and the part of `graph_state` that one query answers; `counted` is `cypher.state`'s."""
    before = time.time()
    id_, name, clock, numbers, milliseconds = results.one(ask, cypher.state(counted), str, str, DateTime, list, int)
    after = time.time() - milliseconds / 1000
    [numbers] = results.rows_of([numbers], *[int] * len(counted))
    ahead = clock.to_native().timestamp() - (before + after) / 2
    return name, {
        "database_id": id_,
        "clock": clock.iso_format(),
        "ahead": ahead,
        "unsure": (after - before) / 2,
        "boot": _boot(),
        "at_boot": ahead + time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
        "deals": numbers[0] if counted else None,
        "versions": numbers[1] if counted else None,
        "count_ms": milliseconds if counted else None,
    }


def _open(ask: Ask, database: str, late: float) -> list[str]:
    """Other transactions that have been open for longer than `late` seconds."""
    (rows,) = results.one(ask, cypher.open_transactions(database, int(late * 1000)), list)
    return [f"{transaction} ({seconds} s)" for transaction, seconds in results.rows_of(rows, str, int)]


def _newest(ask: Ask, query: Query) -> str | None:
    """The newest of the timestamps that `cypher.newest` finds, one for each type."""
    moments = []
    for value in results.one(ask, query, *[object] * 3):
        try:
            moments += [] if value is None else [to_timestamptz(value)]
        except Misfit:
            raise Garbled("a timestamp is not a date and time") from None
    return max(moments).isoformat() if moments else None


def _boot() -> str | None:
    """The id of this boot of the machine, if it may be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def graph_keys(plpy: Plpy, kind: str, tenant: str) -> list[tuple[str, str | None]]:
    """The element id and the key of each node of a kind that a tenant has; None for a key that is not a UUID."""
    relation, table = _mapped(plpy, kind)
    wanted = everyone(TenantsNodes(table.label, table.tenant.property, tenant), table.key.property)
    nodes = _asked(plpy, relation, lambda ask: results.everything(ask, wanted, str, object))
    return [(element, None if (key := maybe_uuid(value)) is None else str(key)) for element, value in nodes]


def deal_keys(plpy: Plpy, kind: str, tenant: str, after: str | None, size: int) -> list[str]:
    """The next deal ids in a tenant's nodes of a kind: see `selection.keys`."""
    relation, table = _mapped(plpy, kind)
    wanted = keys(TenantsNodes(table.label, table.tenant.property, tenant), table.deal.property, after, size)
    return _asked(plpy, relation, lambda ask: [key for (key,) in results.everything(ask, wanted, str)])


def graph_tenants(plpy: Plpy) -> list[tuple[str | None, int, int, int]]:
    """The tenants that have nodes of either kind, with the numbers of their deals and versions; None with the
    numbers of the nodes that belong to no tenant: tenant_id is absent, not a text, or not a UUID in a usual form. Last
    in each tuple are the milliseconds that counting took.
    """
    counts: dict[str | None, list[int]] = {None: [0, 0]}
    milliseconds = 0
    for at, kind in enumerate(("deal", "version")):
        values, took = _tenant_counts(plpy, kind)
        milliseconds += took
        for value, nodes in values:
            tenant = value.lower() if cypher.is_a_tenant(value) else None
            counts.setdefault(tenant, [0, 0])[at] += nodes
    return [(tenant, deals, versions, milliseconds) for tenant, (deals, versions) in counts.items()]


def changed_tenants(plpy: Plpy, since: Mapping[str, datetime], known: Sequence[str] | None) -> list[str | None]:
    """The tenants of `since` with a node that has changed since then, or may have; and None if a tenant that is not
    among `known` has a deal. If `known` is None, that is not asked.
    """
    tables = [catalog.mapping(plpy, kind) for kind in ("deal", "version")]
    deals = tables[0]

    def work(ask: Ask) -> list[str | None]:
        found = set[str | None]()
        for table in tables:
            names = table.label, table.tenant.property, table.changed_by[0]
            latest = results.everything(ask, selection.latest(*names, since), str, bool)
            found |= {tenant for tenant, sure in latest if sure}
            if unsure := {tenant: since[tenant] for tenant, sure in latest if not sure}:
                found |= {tenant for (tenant,) in results.everything(ask, selection.changed_among(*names, unsure), str)}
        if known is not None:
            strangers = selection.strangers(deals.label, deals.tenant.property, deals.changed_by[0], known)
            found |= {None for _ in results.everything(ask, strangers, bool)}
        return list(found)

    return _asked(plpy, catalog.mapped(plpy, "deal"), work)


def _tenant_counts(plpy: Plpy, kind: str) -> tuple[list[list[Any]], int]:
    """All values of the tenant property on the nodes of a kind, valid or not, with the number of nodes; and the
    milliseconds that counting took.
    """
    relation, table = _mapped(plpy, kind)
    query = cypher.tenant_counts(table.label, table.tenant.property)
    counts, milliseconds = _asked(plpy, relation, lambda ask: results.one(ask, query, list, int))
    return results.rows_of(counts, object, int), milliseconds


def _mapped(plpy: Plpy, kind: str) -> tuple[str, Table]:
    return catalog.mapped(plpy, kind), catalog.mapping(plpy, kind)


def _asked(plpy: Plpy, relation: str, work: Callable[[Ask], T]) -> T:
    to = connection(catalog.server_options(plpy, relation))
    return answer(to, work, partial(catalog.serve_interrupt, plpy))
