"""In: the indexes of the graph. Out: whether each look-up of a run can use one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neo4j_deals.doctor.case import Finding, OwnersCase, check_of_nodes
from neo4j_deals.graph.cypher import quoted
from neo4j_deals.mapping.model import Table


@check_of_nodes("key index")
def key_index(case: OwnersCase, table: Table) -> Finding:
    """Can a node be found by its key?"""
    tenant, key = table.tenant.property, table.key.property
    return _index(case, table, "key", [[tenant, key], [key, tenant], [key]], is_unique=table.kind == "version")


@check_of_nodes("watermark index")
def watermark_index(case: OwnersCase, table: Table) -> Finding:
    """Can a tenant's nodes be found that have changed since a given time?"""
    return _index(case, table, "watermark", [[table.tenant.property, table.changed_by[0]]])


@check_of_nodes("tenant index")
def tenant_index(case: OwnersCase, table: Table) -> Finding:
    """Can a tenant's nodes be found that have no timestamp?"""
    return _index(case, table, "tenant", [[table.tenant.property]])


@check_of_nodes("deal index", "version")
def deal_index(case: OwnersCase, table: Table) -> Finding:
    """Can the versions of a deal be found?"""
    tenant, deal = table.tenant.property, table.deal.property
    return _index(case, table, "deal", [[tenant, deal], [deal, tenant], [deal]])


def _index(
    case: OwnersCase, table: Table, name: str, choices: Sequence[Sequence[str]], is_unique: bool = False
) -> Finding:
    if case.indexes is None:
        return Finding(None, "the login may not see indexes", "In Neo4j: GRANT SHOW INDEX ON DATABASE * TO …")
    return index(case.indexes, table.label, f"deal_sync_{table.kind}_{name}", choices, is_unique)


def index(
    found: Sequence[tuple[Any, ...]], label: str, name: str, choices: Sequence[Sequence[str]], is_unique: bool = False
) -> Finding:
    """Whether one of the indexes can be used; `choices` are the properties that will do, the best first.

    `is_unique`: propose a constraint, because a plain index would prevent the writer from creating its own.
    """
    serving = [row for row in found if row[1] == [label] and list(row[2]) in [list(choice) for choice in choices]]
    wanted = ", ".join(f"n.{quoted(name)}" for name in choices[0])
    for known, _, _, state, constraint in serving:
        if state == "ONLINE":
            return Finding(True, f'constraint "{constraint}"' if constraint else f'index "{known}"')
    if serving:
        known, _, _, state, constraint = serving[0]
        made = f"CREATE INDEX {quoted(known)} FOR (n:{quoted(label)}) ON ({wanted})"
        if state == "POPULATING":
            return Finding(
                False, f'index "{known}" is still being built', "In Neo4j, wait for it: CALL db.awaitIndexes()"
            )
        return Finding(
            False, f'index "{known}" is {state}', None if constraint else f"DROP INDEX {quoted(known)}; {made}"
        )
    return Finding(
        False,
        f"no index on ({', '.join(choices[0])}) of :{label}, so a look-up reads all nodes",
        f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{quoted(label)}) REQUIRE ({wanted}) IS UNIQUE"
        if is_unique
        else f"CREATE INDEX {name} IF NOT EXISTS FOR (n:{quoted(label)}) ON ({wanted})",
    )
