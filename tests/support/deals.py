"""Flows in: the graph and connections of a test. Flows out: nodes that can be changed, and rows as dictionaries."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC
from psycopg import sql
from psycopg.rows import dict_row

from support.database import Connection
from support.graph import Graph

Row = dict[str, Any]

VECTOR = [number / 4 for number in range(1536)]
#: What people, and the forecast pipeline, have in the columns that are theirs.
PEOPLES = {
    "stage": "their stage",
    "amount": Decimal("12.50"),
    "close_date": date(2026, 5, 1),
    "deal_status": "their status",
    "forecast_category": "commit",
    "next_step": "call them",
    "description": "their words",
    "lost_reason": "their reason",
}
PIPELINES = {
    "latest_forecast_amount": Decimal("99.00"),
    "latest_forecast_confidence": Decimal("0.50"),
    "latest_forecast_at": datetime(2026, 1, 2, tzinfo=UTC),
    "forecast_count": 7,
    "attribute_maturity_stage": "ripe",
    "latest_user_context": None,
}


@dataclass(frozen=True)
class Node:
    """A node of the graph; `key` is the opportunity_id or version_id that it was given."""

    graph: Graph
    element_id: str
    key: Any

    @property
    def id(self) -> uuid.UUID:
        """The key as the tables hold it."""
        return uuid.UUID(self.key)

    def set(self, **properties: Any) -> None:
        """Change some properties; None takes one away."""
        self.graph.run(
            "MATCH (n) WHERE elementId(n) = $id SET n += $properties", id=self.element_id, properties=properties
        )

    def delete(self) -> None:
        self.graph.run("MATCH (n) WHERE elementId(n) = $id DETACH DELETE n", id=self.element_id)


AddNode = Callable[..., Node]


def deal_node(graph: Graph, tenant: uuid.UUID, **properties: Any) -> Node:
    """A Deal node with the least that a landed one has, and the properties given (None: absent)."""
    defaults = {"tenant_id": str(tenant), "opportunity_id": str(uuid.uuid4()), "name": "Acme", "stage": "proposal"}
    return _node(graph, "Deal", defaults | properties, "opportunity_id")


def version_node(graph: Graph, tenant: uuid.UUID, deal: Node, **properties: Any) -> Node:
    """A DealVersion node with the least that a landed one has, and the properties given (None: absent)."""
    defaults = {
        "tenant_id": str(tenant),
        "version_id": str(uuid.uuid4()),
        "deal_opportunity_id": deal.key,
        "version": 1,
        "name": "Acme",
        "stage": "proposal",
        "created_at": "2026-03-01T12:00:00Z",
    }
    node = _node(graph, "DealVersion", defaults | properties, "version_id")
    graph.run(
        "MATCH (d), (v) WHERE elementId(d) = $deal AND elementId(v) = $version CREATE (d)-[:HAS_VERSION]->(v)",
        deal=deal.element_id,
        version=node.element_id,
    )
    return node


def _node(graph: Graph, label: str, properties: Row, key: str) -> Node:
    created = graph.run(f"CREATE (n:{label}) SET n = $properties RETURN elementId(n) AS id", properties=properties)
    return Node(graph, created[0]["id"], properties[key])


def full_deal() -> Row:
    """Every property that a Deal has (docs/internals/graph.md), but for its keys and its name and stage."""
    return {
        "amount": 150000.5,
        "currency": "EUR",
        "account_id": "acc00000-0000-4000-8000-000000000001",
        "deal_ref": "deal_8000000000000001",
        "qualification_status": "qualified",
        "opportunity_summary": "They renew for three years.",
        "evolution_summary": "Moved from trial to negotiation.",
        **{name: f"what {name} says" for name in MEDDIC},
        **{f"{name}_confidence": (number + 1) / 10 for number, name in enumerate(MEDDIC)},
        "meddic_completeness": 0.9,
        "meddic_paper_process": "legal has the draft",
        "meddic_competition": "one rival",
        **{f"dim_{name}": number % 4 for number, name in enumerate(DIMENSIONS)},
        **{f"dim_{name}_confidence": number / 16 for number, name in enumerate(DIMENSIONS)},
        "ontology_completeness": 0.75,
        "ontology_version": "2026.1",
        "embedding": [number / 1000 for number in range(1536)],
        "embedding_current": [-number / 1000 for number in range(1536)],
        "confidence": 0.88,
        "version": 3,
        "source_interaction_id": "1e000000-0000-4000-8000-000000000001",
        "expected_close_date": "2026-12-01",
        "closed_at": "2026-11-30T23:30:00-05:00",
        "created_at": "2026-01-01T00:00:00Z",
        "last_updated_at": "2026-03-01T00:00:00Z",
        "forecast_score": 0.4,
    }


def rows(connection: Connection, table: str, **where: Any) -> list[Row]:
    """The rows of a table that hold these values, by id."""
    condition = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in where)
    query = sql.SQL("SELECT * FROM {} WHERE {} ORDER BY id").format(sql.Identifier(table), condition)
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, list(where.values())).fetchall()


def row(connection: Connection, table: str, **where: Any) -> Row:
    """The one row of a table that holds these values."""
    found = rows(connection, table, **where)
    assert len(found) == 1, f"{len(found)} rows of {table} with {where}"
    return found[0]


def insert(pg: Connection, table: str, **values: Any) -> uuid.UUID:
    """A row that the application has written; returns its id."""
    values = {"id": uuid.uuid4(), **values}
    if table == "opportunities":
        # The column's default would be a value that a deal without a version takes away.
        values = {"updated_at": "2026-01-01T00:00:00Z", "extraction_version": None, **values}
    pg.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join([sql.Placeholder()] * len(values)),
        ),
        list(values.values()),
    )
    assert isinstance(values["id"], uuid.UUID)
    return values["id"]


def opportunity(pg: Connection, node: Node) -> dict[str, Any]:
    return row(pg, "opportunities", graph_opportunity_id=node.id)


def alter_mapping(pg: Connection, change: str, table: str = "deals") -> None:
    pg.execute(sql.SQL(f"ALTER FOREIGN TABLE neo4j.{table} {change}"))


def full_deal_but(*names: str) -> dict[str, Any]:
    return {name: value for name, value in full_deal().items() if name not in names}


def links(pg: Connection, tenant: uuid.UUID) -> list[tuple[uuid.UUID, str, uuid.UUID]]:
    return sorted(
        (found["interaction_id"], found["entity_type"], found["entity_id"])
        for found in rows(pg, "interaction_links", tenant_id=tenant)
    )
