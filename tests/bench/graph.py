"""Flows in: a number of deals. Flows out: a Neo4j that holds so many, nearly all with every property, a tenth with a
version.
"""

import random
import sys
import uuid
from typing import Any

import psycopg
from neo4j import Driver
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC

TENANT = uuid.UUID("be7c4000-0000-4000-8000-000000000001")
VERSION_EVERY = 10
SKELETON_EVERY = 20  # about one in twenty of a real graph
_BATCH = 500
_POOL = [random.Random(1).uniform(-1, 1) for _ in range(500_000)]  # embeddings are slices of it: none is like another

CREATE = """
WITH datetime() - duration({days: 1}) AS at
UNWIND $rows AS row
CREATE (d:Deal) SET d = row.properties, d.created_at = at
WITH at, d, row WHERE row.properties.version IS NOT NULL
SET d.last_updated_at = at
WITH at, d, row WHERE row.version_id IS NOT NULL
CREATE (d)-[:HAS_VERSION]->(v:DealVersion)
SET v = properties(d), v.version_id = row.version_id, v.version = 1, v.deal_opportunity_id = d.opportunity_id,
    v.change_summary = 'The stage and two confidences changed.', v.changed_fields = ['stage', 'confidence'],
    v.change_source_interaction_id = randomUUID(), v.created_at = at, v.valid_from = d.created_at, v.valid_until = at
"""
CHANGE = """
MATCH (d:Deal {tenant_id: $tenant}) WHERE d.version IS NOT NULL
WITH d ORDER BY d.opportunity_id SKIP $skip LIMIT $limit
SET d.opportunity_summary = d.opportunity_summary + ' Changed.', d.last_updated_at = toString(datetime())
RETURN count(d) AS changed
"""


def build(driver: Driver, start: int, end: int, tenant: uuid.UUID = TENANT, embeddings: bool = True) -> None:
    """Add a tenant's deals with the numbers `start` up to `end`; the same numbers give the same deals.

    They are a day old, as nearly all of a real graph: a run does not read them again for what its overlap covers.
    """
    with driver.session() as session:
        for first in range(start, end, _BATCH):
            rows = [_deal(number, tenant, embeddings) for number in range(first, min(end, first + _BATCH))]
            session.run(CREATE, rows=rows).consume()


def index(driver: Driver, admin: psycopg.Connection[Any]) -> None:
    """Create the indexes that doctor() asks for, by its hints, as an administrator would."""
    asks = "SELECT name, hint FROM deal_sync.doctor() WHERE name ~ '^(deals|versions): .* index$' AND ok IS NOT true"
    with driver.session() as session:
        for _, hint in admin.execute(asks).fetchall():
            session.run(hint).consume()
        session.run("CALL db.awaitIndexes(3600)").consume()
    if missing := admin.execute(asks).fetchall():
        sys.exit(f"doctor() still asks for indexes: {missing}")


def change(driver: Driver, deals: int, again: int, tenant: uuid.UUID = TENANT) -> int:
    """Change so many of a tenant's deals, others at each `again`; return how many."""
    with driver.session() as session:
        changed = session.run(CHANGE, tenant=str(tenant), skip=again * deals, limit=deals).single(strict=True)
        return int(changed["changed"])


def clear(driver: Driver) -> None:
    """Remove everything."""
    with driver.session() as session:
        session.run("MATCH (n) CALL { WITH n DETACH DELETE n } IN TRANSACTIONS OF 1000 ROWS").consume()
        for constraint in session.run("SHOW CONSTRAINTS YIELD name").data():
            session.run(f"DROP CONSTRAINT `{constraint['name']}`").consume()
        for index in session.run("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP'").data():
            session.run(f"DROP INDEX `{index['name']}`").consume()


def _deal(number: int, tenant: uuid.UUID, embeddings: bool) -> dict[str, Any]:
    dice = random.Random(number)

    def new_id() -> str:
        return str(uuid.UUID(int=dice.getrandbits(128), version=4))

    deal_id = new_id()
    properties: dict[str, Any] = {
        "tenant_id": str(tenant),
        "opportunity_id": deal_id,
        "name": f"Deal {number} with a customer",
        "stage": dice.choice(["prospecting", "qualification", "proposal", "negotiation"]),
        "account_id": new_id(),
    }
    if dice.random() > 0.125:
        properties["amount"] = round(dice.uniform(1000, 1_000_000), 2)
    if number % SKELETON_EVERY == SKELETON_EVERY - 1:
        return {"properties": properties, "version_id": None}
    properties |= {
        "currency": dice.choice(["USD", "EUR", "GBP"]),
        "deal_ref": f"deal_{deal_id.replace('-', '')[-16:]}",
        "qualification_status": "qualified",
        "opportunity_summary": "They renew for three years if legal agrees on liability. " * dice.randint(3, 9),
        "evolution_summary": "Moved from a trial to a negotiation in six weeks. " * dice.randint(2, 6),
        "meddic_completeness": 1.0,
        "ontology_completeness": 1.0,
        "ontology_version": "2026.1",
        "confidence": round(dice.random(), 3),
        "version": 2,
        "source_interaction_id": new_id(),
        "expected_close_date": f"2026-{dice.randint(1, 12):02}-15",
    }
    if embeddings:
        properties |= {"embedding": _embedding(dice), "embedding_current": _embedding(dice)}
    for field in MEDDIC:
        properties |= {field: f"What the notes say about {field}. " * 3, f"{field}_confidence": round(dice.random(), 3)}
    for name in DIMENSIONS:
        properties |= {f"dim_{name}": dice.randint(0, 3), f"dim_{name}_confidence": round(dice.random(), 3)}
    return {"properties": properties, "version_id": new_id() if number % VERSION_EVERY == 0 else None}


def _embedding(dice: random.Random) -> list[float]:
    at = dice.randrange(len(_POOL) - 1536)
    return _POOL[at : at + 1536]
