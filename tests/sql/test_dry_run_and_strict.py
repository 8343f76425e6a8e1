"""Flows in: a graph of good deals and bad ones. Flows out: the same counts and nothing written, or an error."""

import uuid
from typing import Any

import psycopg
import pytest
from psycopg import sql
from support.database import Connection
from support.deals import AddNode, insert, opportunity
from support.sync import one, sync


def contents(pg: Connection) -> list[Any]:
    """All that a run may write."""
    return [
        pg.execute(sql.SQL("SELECT t::text, t.xmin::text FROM {} AS t ORDER BY 1").format(sql.SQL(table))).fetchall()
        for table in (
            *("opportunities", "deal_versions", "interaction_links", "forecast_jobs"),
            *("deal_sync.rejects", "deal_sync.runs"),
        )
    ]


@pytest.fixture
def mixed(pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID) -> None:
    """A tenant with an earlier run, of which a run inserts, updates, adopts, keeps and rejects rows."""
    known, same, adopted = deal(), deal(confidence="high"), deal(source_interaction_id=str(uuid.uuid4()))
    version(known)
    insert(pg, "opportunities", id=adopted.id, tenant_id=tenant)
    adopted.set(opportunity_id="not yet")
    sync(writer, tenant)
    known.set(opportunity_summary="new")
    adopted.set(opportunity_id=adopted.key)
    new = deal(source_interaction_id=str(uuid.uuid4()), embedding=[])
    deal(opportunity_id="deal-17")
    version(new)
    version(new, version=2, name=None)
    assert opportunity(pg, same)


COUNTS = {
    "status": "partial",
    "deals_read": 5,
    "deals_inserted": 1,
    "deals_updated": 1,
    "deals_unchanged": 1,
    "deals_adopted": 1,
    "versions_inserted": 1,
    "links_inserted": 2,
    "rows_rejected": 2,
    "values_rejected": 2,
}


@pytest.mark.usefixtures("mixed")
def test_a_dry_run_gives_the_same_counts_and_writes_nothing(
    pg: Connection, writer: Connection, tenant: uuid.UUID
) -> None:
    before = contents(pg)

    dry = sync(writer, tenant, dry_run=True)

    assert contents(pg) == before
    assert {name: getattr(dry, name) for name in COUNTS} == COUNTS
    real = sync(writer, tenant)
    assert {name: getattr(real, name) for name in COUNTS} == COUNTS
    assert real.message == dry.message
    assert contents(pg) != before


@pytest.mark.german
@pytest.mark.usefixtures("mixed")
def test_strict_raises_on_any_reject_and_writes_nothing(pg: Connection, writer: Connection, tenant: uuid.UUID) -> None:
    before = contents(pg)

    with pytest.raises(psycopg.Error) as raised:
        sync(writer, tenant, strict=True)

    assert contents(pg) == before
    assert raised.value.sqlstate == "DS002"
    assert "Rejected rows: 2. Rejected values: 2." in (raised.value.diag.message_detail or "")


def test_strict_with_nothing_rejected_is_a_run_like_any_other(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    """A note is not a reject."""
    node = deal()
    version(node, version=None)

    run = sync(writer, tenant, strict=True)

    assert (run.status, run.deals_inserted) == ("ok", 1)
    assert opportunity(pg, node)


def test_a_strict_dry_run_raises_too(pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID) -> None:
    deal(confidence="high")

    with pytest.raises(psycopg.Error, match="has rejects, and strict is set"):
        sync(writer, tenant, dry_run=True, strict=True)

    assert one(pg, "SELECT count(*) FROM opportunities") == 0


@pytest.mark.parametrize("argument", ["dry_run", "strict"])
def test_null_is_neither(pg: Connection, tenant: uuid.UUID, argument: str) -> None:
    with pytest.raises(psycopg.errors.NullValueNotAllowed, match=f"{argument} must not be NULL"):
        sync(pg, tenant, **{argument: None})
