"""In: the mapping's graph. Out: what a run has to know of it besides its nodes: whose it is, its clock, keys, tenants.

Each question is a read transaction of its own and raises DealSyncError for what the graph or the network refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from neo4j.time import DateTime

from neo4j_deals import catalog
from neo4j_deals.catalog import Plpy
from neo4j_deals.errors import Garbled
from neo4j_deals.graph import cypher, whole
from neo4j_deals.graph.connection import Ask, connection
from neo4j_deals.graph.reader import answer, unless_forbidden
from neo4j_deals.rows.values import Misfit, maybe_uuid, to_timestamptz
from neo4j_deals.sync.selection import Nodes, everyone, keys

T = TypeVar("T")


def graph_state(plpy: Plpy, tenant: str | None, counts: bool, newest: bool, late: float | None) -> dict[str, Any]:
    """The graph's database id and its clock as a text that PostgreSQL reads; of a tenant what its runs need to know.

    `ahead`: seconds that the graph's clock is ahead of PostgreSQL's, give or take `unsure`, what the answer was under
    way. `at_boot`: what it said when PostgreSQL's machine was started (`boot`), by a clock there that nobody sets: the
    same each time, until one sets the graph's clock, with or without PostgreSQL's. With `counts`: `deals` and
    `versions`, the numbers of its nodes, and `count_ms`, what the counting took. `open`: transactions of others that
    have been open for longer than `late` seconds (None: not asked), each with its seconds; None where Neo4j does not
    tell. With `newest`: the newest moment of its deals that is past.
    """
    relation = catalog.mapped(plpy, "deal")
    counted = [(*catalog.nodes(plpy, kind), tenant) for kind in ("deal", "version")] if tenant and counts else []
    latest = None
    if tenant and newest:
        table = catalog.table(plpy, relation)
        latest = cypher.newest(table.label, tenant, table.tenant.property, table.moments[0])

    def work(ask: Ask, late: float | None) -> dict[str, Any]:
        before = time.time()
        id_, name, clock, numbers, milliseconds = whole.one(ask, cypher.state(counted), str, str, DateTime, list, int)
        [numbers] = whole.rows_of([numbers], *[int] * len(counted))
        after = time.time() - milliseconds / 1000
        ahead = clock.to_native().timestamp() - (before + after) / 2
        found = {
            "database_id": id_,
            "clock": clock.iso_format(),
            "ahead": ahead,
            "unsure": (after - before) / 2,
            "boot": _boot(),
            "at_boot": ahead + time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
            "deals": numbers[0] if counted else None,
            "versions": numbers[1] if counted else None,
            "count_ms": milliseconds if counted else None,
            "open": None,
            "newest": None,
        }
        if late is not None:
            (rows,) = whole.one(ask, cypher.open_transactions(name, int(late * 1000)), list)
            open_ = whole.rows_of(rows, str, int)
            found["open"] = [f"{transaction} ({seconds} s)" for transaction, seconds in open_]
        if latest is not None:
            moments = []
            for value in whole.one(ask, latest, *[object] * 3):
                try:
                    moments += [] if value is None else [to_timestamptz(value)]
                except Misfit:
                    raise Garbled("it is no moment that was asked for") from None
            found["newest"] = max(moments).isoformat() if moments else None
        return found

    def answered(late: float | None) -> dict[str, Any]:
        return _asked(plpy, relation, lambda ask: work(ask, late))

    if late is None:
        return answered(None)
    return unless_forbidden(lambda: answered(late)) or answered(None)


def _boot() -> str | None:
    """What tells one start of this machine from another, if it may be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def graph_keys(plpy: Plpy, kind: str, tenant: str) -> list[tuple[str, str | None]]:
    """Of each node of a kind that a tenant has, the element id and the key; None where it is no UUID."""
    relation = catalog.mapped(plpy, kind)
    table = catalog.table(plpy, relation)
    wanted = everyone(Nodes(table.label, table.tenant.property, tenant), table.key.property)
    nodes = _asked(plpy, relation, lambda ask: whole.everything(ask, wanted, str, object))
    return [(element, None if (key := maybe_uuid(value)) is None else str(key)) for element, value in nodes]


def deal_keys(plpy: Plpy, kind: str, tenant: str, after: str | None, size: int) -> list[str]:
    """The next ids of a tenant's deals, those that its nodes of a kind name: see `selection.keys`."""
    relation = catalog.mapped(plpy, kind)
    source = catalog.table(plpy, relation)
    wanted = keys(Nodes(source.label, source.tenant.property, tenant), source.deal.property, after, size)
    return _asked(plpy, relation, lambda ask: [key for (key,) in whole.everything(ask, wanted, str)])


def graph_tenants(plpy: Plpy) -> list[tuple[str, int]]:
    """The tenants that have nodes of either kind, with their number of deals: those whose tenant_id counts as one."""
    deals: dict[str, int] = {}
    for kind in ("deal", "version"):
        for value, nodes in _tenant_counts(plpy, kind):
            if cypher.is_a_tenant(value):
                tenant = value.lower()
                deals[tenant] = deals.get(tenant, 0) + (nodes if kind == "deal" else 0)
    return list(deals.items())


def nobodys_nodes(plpy: Plpy, kind: str) -> int:
    """The nodes that belong to no tenant: tenant_id absent, no text, or in another spelling than a UUID's usual two."""
    return sum(nodes for value, nodes in _tenant_counts(plpy, kind) if not cypher.is_a_tenant(value))


def _tenant_counts(plpy: Plpy, kind: str) -> list[tuple[Any, int]]:
    """The values of the tenant's property on the nodes of a kind, whatever they are, with the number of nodes."""
    relation = catalog.mapped(plpy, kind)
    source = catalog.table(plpy, relation)
    query = cypher.tenant_counts(source.label, source.tenant.property)
    counts = _asked(plpy, relation, lambda ask: whole.everything(ask, query, object, int))
    return [(value, nodes) for value, nodes in counts]


def _asked(plpy: Plpy, relation: str, work: Callable[[Ask], T]) -> T:
    return answer(connection(catalog.server_options(plpy, relation)), work, lambda: plpy.execute("SELECT 1"))
