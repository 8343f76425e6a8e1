"""Flows in: a Neo4j, a PostgreSQL and a tenant, as JSON on standard input. Flows out: the tenant's deals, versions and
links in the application's tables, written as a team's own script would write them, and the seconds it took.

It uses nothing of deal_sync but its list of names, and has none of the sync's care: no rejects, no adoption, no check
that a row changed; one bad value stops it.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import psycopg
from neo4j import READ_ACCESS, GraphDatabase
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC

Node = dict[str, Any]

DEAL_PROPERTIES = [
    *("opportunity_id", "name", "stage", "amount", "currency", "account_id", "deal_ref", "qualification_status"),
    *("opportunity_summary", "evolution_summary", "meddic_completeness", "meddic_paper_process", "meddic_competition"),
    *(f"{field}{ending}" for field in MEDDIC for ending in ("", "_confidence")),
    *(f"dim_{name}{ending}" for name in DIMENSIONS for ending in ("", "_confidence")),
    *("ontology_completeness", "ontology_version", "embedding", "embedding_current", "confidence", "version"),
    *("source_interaction_id", "expected_close_date", "closed_at"),
]
VERSION_PROPERTIES = [
    *("version_id", "deal_opportunity_id", "version", "name", "stage", "amount"),
    *("opportunity_summary", "evolution_summary", *MEDDIC, "meddic_completeness"),
    *(f"dim_{name}{ending}" for name in DIMENSIONS for ending in ("", "_confidence")),
    *("ontology_completeness", "ontology_version", "change_summary", "changed_fields"),
    *("change_source_interaction_id", "created_at", "valid_from", "valid_until"),
]


def identifier(text: str | None) -> str | None:
    try:
        return None if text is None else str(uuid.UUID(text))
    except ValueError:
        return None


def vector(values: list[float] | None) -> str | None:
    return None if values is None else orjson.dumps(values).decode()


def moment(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else value.iso_format()


def scores(node: Node) -> str | None:
    document = {
        name: {"score": node[f"dim_{name}"], "confidence": node[f"dim_{name}_confidence"], "evidence": None}
        for name in DIMENSIONS
        if node[f"dim_{name}"] is not None or node[f"dim_{name}_confidence"] is not None
    }
    return orjson.dumps(document).decode() if document else None


def completeness(node: Node) -> tuple[float, float]:
    """Of MEDDIC, of the dimensions."""
    meddic, ontology = node["meddic_completeness"], node["ontology_completeness"]
    if meddic is None:
        meddic = sum(bool(node[field]) for field in MEDDIC) / len(MEDDIC)
    if ontology is None:
        ontology = sum(node[f"dim_{name}"] is not None for name in DIMENSIONS) / len(DIMENSIONS)
    return meddic, ontology


def metadata(node: Node) -> str:
    return orjson.dumps(
        {
            "source": "deal_graph",
            "deal_name": node["name"],
            "stage_assessment": node["stage"],
            "amount_estimate": node["amount"],
            "currency": node["currency"],
            "deal_ref": node["deal_ref"],
            "expected_close_date": node["expected_close_date"],
            "closed_at": node["closed_at"],
        }
    ).decode()


INSERT_ONLY = {"opportunity_name", "currency", "account_id", "actual_close_date"}


def opportunity(node: Node) -> Node:
    meddic, ontology = completeness(node)
    return {
        "graph_opportunity_id": node["opportunity_id"],
        "opportunity_name": node["name"] or None,
        "currency": node["currency"] or "USD",
        "account_id": identifier(node["account_id"]),
        "actual_close_date": moment(node["closed_at"]),
        "deal_ref": node["deal_ref"],
        "qualification_status": node["qualification_status"],
        "latest_ai_summary": node["opportunity_summary"] or None,
        "ai_evolution_summary": node["evolution_summary"] or None,
        **{f"{field}{ending}": node[f"{field}{ending}"] for field in MEDDIC for ending in ("", "_confidence")},
        "meddic_completeness": meddic,
        "meddic_paper_process": node["meddic_paper_process"],
        "meddic_competition": node["meddic_competition"],
        **{f"dim_{name}{ending}": node[f"dim_{name}{ending}"] for name in DIMENSIONS for ending in ("", "_confidence")},
        "ontology_scores_json": scores(node),
        "ontology_completeness": ontology,
        "ontology_version": node["ontology_version"],
        "extraction_embedding": vector(node["embedding"]),
        "extraction_embedding_current": vector(node["embedding_current"]),
        "extraction_confidence": node["confidence"],
        "extraction_version": node["version"],
        "source_interaction_id": identifier(node["source_interaction_id"]),
        "ai_workflow_metadata": metadata(node),
    }


def deal_version(node: Node) -> Node:
    meddic, ontology = completeness(node)
    created_at = moment(node["created_at"]) or moment(node["valid_until"])
    return {
        "id": node["version_id"],
        "opportunity_id": node["deal_opportunity_id"],
        "version_number": node["version"],
        **{name: node[name] for name in ("name", "stage", "amount", "opportunity_summary", "evolution_summary")},
        **{field: node[field] for field in MEDDIC},
        "meddic_completeness": meddic,
        "ontology_scores_json": scores(node),
        "ontology_completeness": ontology,
        "ontology_version": node["ontology_version"],
        "change_summary": node["change_summary"] or "",
        "changed_fields": orjson.dumps(node["changed_fields"] or []).decode(),
        "change_source_interaction_id": identifier(node["change_source_interaction_id"]),
        "created_at": created_at,
        "valid_from": moment(node["valid_from"]) or created_at,
        "valid_until": moment(node["valid_until"]),
    }


def stage(cursor: psycopg.Cursor[Any], table: str, rows: Iterable[Node], row: Callable[[Node], Node]) -> list[str]:
    """COPY the nodes, as rows of `table`, into a temporary table of the same columns and types; return their names."""
    columns: list[str] = []
    copy = None
    for node in rows:
        values = row(node)
        if copy is None:
            columns = list(values)
            names = ", ".join(columns)
            cursor.execute(f"CREATE TEMP TABLE new_{table} ON COMMIT DROP AS SELECT {names} FROM {table} WITH NO DATA")
            opened = cursor.copy(f"COPY new_{table} ({names}) FROM STDIN")
            copy = opened.__enter__()
        copy.write_row(list(values.values()))
    if copy is not None:
        opened.__exit__(None, None, None)
        cursor.execute(f"ANALYZE new_{table}")
    return columns


def links(table: str, interaction: str, deal: str) -> str:
    """The INSERT that connects the interactions of a staged table."""
    return f"""
        INSERT INTO interaction_links (id, tenant_id, interaction_id, entity_type, entity_id)
        SELECT gen_random_uuid(), %(tenant)s, pair.interaction, 'opportunity', pair.deal
        FROM (
            SELECT DISTINCT n.{interaction} AS interaction, o.id AS deal
            FROM {table} AS n JOIN opportunities AS o ON o.graph_opportunity_id = n.{deal}
            WHERE n.{interaction} IS NOT NULL
        ) AS pair
        WHERE NOT EXISTS (
            SELECT FROM interaction_links AS l
            WHERE l.tenant_id = %(tenant)s AND l.interaction_id = pair.interaction
            AND l.entity_type = 'opportunity' AND l.entity_id = pair.deal
        )"""


def write(connection: psycopg.Connection[Any], tenant: str, nodes: Callable[[str, list[str]], Iterable[Node]]) -> None:
    """Everything in one transaction."""
    this = {"tenant": tenant}
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('app.tenant_id', %(tenant)s, true), set_config('timezone', 'UTC', true)", this
        )
        columns = stage(cursor, "opportunities", nodes("Deal", DEAL_PROPERTIES), opportunity)
        if not columns:
            return
        names = ", ".join(columns)
        updated = [name for name in columns if name not in INSERT_ONLY | {"graph_opportunity_id"}]
        cursor.execute(
            f"INSERT INTO opportunities (id, tenant_id, updated_at, {names})"
            f" SELECT graph_opportunity_id, %(tenant)s, now(), {names} FROM new_opportunities"
            " ON CONFLICT (graph_opportunity_id) DO UPDATE SET updated_at = now(), "
            + ", ".join(f"{name} = excluded.{name}" for name in updated),
            this,
        )
        cursor.execute(links("new_opportunities", "source_interaction_id", "graph_opportunity_id"), this)

        columns = stage(cursor, "deal_versions", nodes("DealVersion", VERSION_PROPERTIES), deal_version)
        if not columns:
            return
        others = ", ".join(name for name in columns if name != "opportunity_id")
        cursor.execute(
            f"INSERT INTO deal_versions (tenant_id, opportunity_id, {others})"
            f" SELECT %(tenant)s, o.id, {', '.join(f'n.{name}' for name in columns if name != 'opportunity_id')}"
            " FROM new_deal_versions AS n JOIN opportunities AS o ON o.graph_opportunity_id = n.opportunity_id"
            " ON CONFLICT DO NOTHING",
            this,
        )
        cursor.execute(links("new_deal_versions", "change_source_interaction_id", "opportunity_id"), this)


def main() -> None:
    task = json.load(sys.stdin)
    began = time.perf_counter()
    with (
        psycopg.connect(task["dsn"]) as connection,
        GraphDatabase.driver(task["uri"], auth=tuple(task["auth"]), notifications_min_severity="OFF") as driver,
        driver.session(default_access_mode=READ_ACCESS) as session,
    ):

        def nodes(label: str, properties: list[str]) -> Iterable[Node]:
            returned = ", ".join(f"n.{name} AS {name}" for name in properties)
            query: Any = f"MATCH (n:{label} {{tenant_id: $tenant}}) RETURN {returned}"
            for record in session.run(query, tenant=task["tenant"]):
                yield record.data()

        write(connection, task["tenant"], nodes)
    json.dump({"seconds": time.perf_counter() - began}, sys.stdout)


if __name__ == "__main__":
    main()
