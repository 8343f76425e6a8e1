"""Flows in: connections and the graph of a test. Flows out: tenants, Deal nodes, runs and rejects, in a word each."""

import uuid
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, LiteralString

from support.database import Connection
from support.graph import Graph


@dataclass(frozen=True)
class Run:
    """A deal_sync.run_result."""

    run_id: uuid.UUID
    tenant_id: uuid.UUID
    mode: str
    status: str
    deals_read: int
    deals_inserted: int
    deals_updated: int
    deals_unchanged: int
    deals_adopted: int
    versions_inserted: int
    links_inserted: int
    rows_rejected: int
    values_rejected: int
    watermark: datetime | None
    seconds: float
    message: str | None


@dataclass(frozen=True)
class Reject:
    """A row of deal_sync.rejects, without its times."""

    kind: str
    level: str
    graph_id: str | None
    column_name: str
    sqlstate: str
    message: str
    value: str | None
    server_text: str | None
    times_seen: int


def sync(connection: Connection, tenant: uuid.UUID, **arguments: Any) -> Run:
    """SELECT * FROM sync_deals(tenant, …); the arguments are mode, dry_run and strict.

    In full, if nothing else is said: tests write to the graph by hand, and leave last_updated_at as it is.
    """
    arguments = {"mode": "full"} | arguments
    named = "".join(f", {name} => %({name})s" for name in arguments)
    moment = "extract(epoch FROM watermark)::float8"  # psycopg reads no other DateStyle than ISO
    columns = ", ".join(moment if field.name == "watermark" else field.name for field in fields(Run))
    query: Any = f"SELECT {columns} FROM sync_deals(%(tenant)s{named})"
    row = connection.execute(query, {"tenant": tenant, **arguments}).fetchone()
    assert row is not None
    run = Run(*row)
    return run if run.watermark is None else replace(run, watermark=datetime.fromtimestamp(row[13], UTC))


def rejects(pg: Connection, tenant: uuid.UUID) -> list[Reject]:
    """What is rejected at present, by kind, graph id and column."""
    names = ", ".join(field.name for field in fields(Reject))
    query: Any = f"SELECT {names} FROM deal_sync.rejects WHERE tenant_id = %s ORDER BY kind, graph_id, column_name"
    return [Reject(*row) for row in pg.execute(query, [tenant])]


def add_tenant(pg: Connection, name: str = "a tenant") -> uuid.UUID:
    """A new tenant in the application's table."""
    tenant = uuid.uuid4()
    pg.execute("INSERT INTO tenants (id, name) VALUES (%s, %s)", [tenant, name])
    return tenant


def add_deal(graph: Graph, tenant: uuid.UUID, **properties: Any) -> uuid.UUID:
    """A Deal node that lands as it is, but for the properties given (None: absent); returns its opportunity_id."""
    deal = uuid.UUID(properties.setdefault("opportunity_id", str(uuid.uuid4())))
    defaults = {"tenant_id": str(tenant), "name": "Acme", "stage": "proposal", "currency": "EUR"}
    graph.run("CREATE (d:Deal) SET d = $properties, d.last_updated_at = datetime()", properties=defaults | properties)
    return deal


def add_version(graph: Graph, tenant: uuid.UUID, deal: uuid.UUID, **properties: Any) -> uuid.UUID:
    """A DealVersion node of a deal, as `add_deal`; returns its version_id."""
    version = uuid.UUID(properties.setdefault("version_id", str(uuid.uuid4())))
    defaults = {"tenant_id": str(tenant), "deal_opportunity_id": str(deal), "name": "Acme", "stage": "proposal"}
    graph.run(
        "MATCH (d:Deal {opportunity_id: $deal}) CREATE (d)-[:HAS_VERSION]->(v:DealVersion)"
        " SET v = $properties, v.created_at = datetime(), v.valid_from = datetime(), v.valid_until = datetime()",
        properties={"version": 1} | defaults | properties,
        deal=str(deal),
    )
    return version


def one(connection: Connection, query: LiteralString, *parameters: Any) -> Any:
    """The one value of a query."""
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def clean(run: Run) -> None:
    """Everything landed."""
    assert (run.status, run.rows_rejected, run.values_rejected, run.message) == ("ok", 0, 0, None)


def counts(run: Run) -> tuple[int, int, int, int, int]:
    """Read, inserted, updated, unchanged, adopted."""
    return run.deals_read, run.deals_inserted, run.deals_updated, run.deals_unchanged, run.deals_adopted


def rejected_version(reject: Reject) -> tuple[str, str, str, str | None]:
    return reject.kind, reject.level, reject.sqlstate, reject.graph_id


def incremental(connection: Connection, tenant: uuid.UUID, **arguments: Any) -> Run:
    return sync(connection, tenant, mode="incremental", **arguments)


def runs(pg: Connection) -> list[tuple[Any, ...]]:
    """Tenant and status of each run, as they began."""
    return pg.execute("SELECT tenant_id, status FROM deal_sync.runs ORDER BY started_at").fetchall()
