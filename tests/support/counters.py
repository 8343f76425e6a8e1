"""Flows in: a test's database and graph. Flows out: tenants of many deals, and how many rows a session has read."""

import uuid
from typing import LiteralString

from support.database import Connection
from support.graph import Graph
from support.sync import one

ROWS: LiteralString = (
    "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables"
    " WHERE schemaname !~ '^pg_'"
)


def graph_of(graph: Graph, tenant: uuid.UUID, deals: int) -> None:
    """Deals with a version and an interaction each; one in twenty, and its version, has no timestamp."""
    graph.run(
        "UNWIND range(1, $deals) AS i"
        " WITH i, CASE i % 20 WHEN 0 THEN null WHEN 1 THEN '2026-01-01T00:00:00Z'"
        " ELSE datetime('2026-01-01T00:00:00Z') END AS moment"
        " CREATE (d:Deal {tenant_id: $tenant, opportunity_id: randomUUID(), name: 'Deal ' + i, stage: 'proposal',"
        " version: 2, source_interaction_id: randomUUID(), last_updated_at: moment})"
        " CREATE (d)-[:HAS_VERSION]->(:DealVersion {tenant_id: $tenant, version_id: randomUUID(), version: 1,"
        " deal_opportunity_id: d.opportunity_id, name: d.name, stage: d.stage, created_at: moment,"
        " valid_until: moment})",
        tenant=str(tenant),
        deals=deals,
    )


def change(graph: Graph, tenant: uuid.UUID, deals: int) -> None:
    """Changes some of the tenant's deals."""
    graph.run(
        "MATCH (d:Deal {tenant_id: $tenant}) WHERE d.last_updated_at IS NOT NULL WITH d LIMIT $deals"
        " SET d.opportunity_summary = 'changed', d.last_updated_at = datetime()",
        tenant=str(tenant),
        deals=deals,
    )


def rows_of(pg: Connection, tenant: uuid.UUID, deals: int) -> None:
    """The rows of a tenant with so many deals, as a run has landed them."""
    pg.execute(
        "WITH d AS ("
        " INSERT INTO opportunities (id, tenant_id, graph_opportunity_id, opportunity_name, updated_at)"
        " SELECT g.id, %(tenant)s, g.id, 'a deal', now()"
        " FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %(deals)s)) AS g RETURNING id"
        "), v AS ("
        " INSERT INTO deal_versions (tenant_id, opportunity_id, version_number, name, stage)"
        " SELECT %(tenant)s, d.id, 1, 'a deal', 'proposal' FROM d"
        ") INSERT INTO interaction_links (id, tenant_id, interaction_id, entity_type, entity_id)"
        " SELECT gen_random_uuid(), %(tenant)s, gen_random_uuid(), 'opportunity', d.id FROM d",
        {"tenant": tenant, "deals": deals},
    )


def rows_read(*sessions: Connection) -> int:
    """How many rows of tables, except temporary ones and those of the catalog, were read so far."""
    for session in sessions:
        session.execute("SELECT pg_stat_force_next_flush()")
    sessions[0].execute("SELECT pg_stat_clear_snapshot()")
    return int(one(sessions[0], ROWS))
