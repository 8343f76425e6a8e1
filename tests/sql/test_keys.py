"""Flows in: nodes whose ids and tenants are written in every way, or twice.
Flows out: which row a deal is, and whose.
"""

import uuid
from datetime import UTC, datetime

import pytest
from support.database import Connection, Database, execute
from support.deals import AddNode, Node, deal_node, insert, opportunity, row, rows
from support.graph import Graph
from support.sync import clean, counts, one, rejects, sync

# -- tenants and keys --------------------------------------------------------------------------------------------------


def test_the_lower_and_the_upper_case_of_a_tenants_id_are_the_tenant(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    lower = deal(tenant_id=str(tenant).lower())
    upper = deal(tenant_id=str(tenant).upper())
    version(lower, tenant_id=str(tenant).upper(), version=1)
    version(upper, tenant_id=str(tenant).lower(), version=1)

    run = sync(writer, tenant)

    clean(run)
    assert {opportunity(pg, node)["tenant_id"] for node in (lower, upper)} == {tenant}
    assert run.versions_inserted == 2


def test_nodes_with_another_spelling_of_a_tenant_or_none_are_counted_and_land_nowhere(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID, other_tenant: uuid.UUID
) -> None:
    mixed = str(tenant)[:18].upper() + str(tenant)[18:].lower()
    mine = deal()
    for spelling in (tenant.hex, f"{{{tenant}}}", mixed, f" {tenant}", None, 17, [str(tenant)]):
        deal(tenant_id=spelling)
    version(mine, tenant_id=None)
    deal(tenant_id=str(other_tenant))  # somebody's: not counted

    run = sync(writer, tenant)

    assert (run.status, counts(run), run.message) == ("ok", (1, 1, 0, 0, 0), None)
    assert one(pg, "SELECT count(*) FROM opportunities") == 1
    assert one(pg, "SELECT count(*) FROM deal_versions") == 0
    said: list[str | None] = []
    pg.add_notice_handler(lambda it: said.append(it.message_primary))
    for statement, times in (
        ("CALL deal_sync.sync_all(quiet => true)", 0),
        ("CALL deal_sync.sync_all()", 1),
        ("CALL deal_sync.nightly()", 1),
    ):
        execute(pg, statement)
        assert said.count("nodes of the graph that belong to no tenant: 8") == times
        said.clear()


def test_ids_are_the_same_in_every_spelling_of_a_uuid(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    id = uuid.uuid4()
    node = deal(opportunity_id=str(id).upper(), account_id=f"{{{id}}}", source_interaction_id=id.hex)
    version(node, deal_opportunity_id=id.hex)

    run = sync(writer, tenant)

    clean(run)
    landed = row(pg, "opportunities", id=id)
    assert landed["graph_opportunity_id"] == landed["account_id"] == landed["source_interaction_id"] == id
    assert row(pg, "deal_versions", tenant_id=tenant)["opportunity_id"] == id
    assert counts(sync(writer, tenant)) == (1, 0, 0, 1, 0)


@pytest.mark.parametrize("role", ["app_writer", "postgres"])
@pytest.mark.parametrize("held", ["graph_opportunity_id", "id"])
def test_a_deal_never_touches_a_row_of_another_tenant(
    role: str,
    held: str,
    database: Database,
    pg: Connection,
    deal: AddNode,
    version: AddNode,
    tenant: uuid.UUID,
    other_tenant: uuid.UUID,
) -> None:
    """Whoever calls, even a superuser: the earlier row keeps the id, the later deal is rejected with 23505."""
    node, good = deal(), deal()
    version(node)
    theirs = {"tenant_id": other_tenant, "opportunity_name": "theirs", held: node.id}
    before = row(pg, "opportunities", id=insert(pg, "opportunities", **theirs))

    run = sync(database.connect(role), tenant)

    assert (run.status, run.rows_rejected, run.values_rejected) == ("partial", 2, 0)
    assert counts(run) == (2, 1, 0, 0, 0)
    assert rows(pg, "opportunities", tenant_id=other_tenant) == [before]
    assert [found["id"] for found in rows(pg, "opportunities", tenant_id=tenant)] == [good.id]
    rejected, version_rejected = rejects(pg, tenant)
    assert (rejected.kind, rejected.level, rejected.sqlstate, rejected.graph_id) == ("deal", "row", "23505", node.key)
    assert "another row has the same key" in rejected.message
    assert (version_rejected.kind, version_rejected.level, version_rejected.sqlstate) == ("version", "row", "23503")


def test_a_row_of_another_deal_keeps_its_id(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    """The tenant's row has the deal's id but is another deal: it is neither adopted nor overwritten."""
    node = deal()
    insert(pg, "opportunities", id=node.id, tenant_id=tenant, graph_opportunity_id=uuid.uuid4())
    before = row(pg, "opportunities", id=node.id)

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.deals_inserted) == ("partial", 1, 0)
    assert rows(pg, "opportunities", tenant_id=tenant) == [before]
    assert [(reject.level, reject.sqlstate) for reject in rejects(pg, tenant)] == [("row", "23505")]


def test_a_new_row_takes_the_graphs_id_and_an_existing_one_keeps_its_own(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    new, known = deal(), deal(opportunity_summary="news")
    own = insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=known.id)

    run = sync(writer, tenant)

    assert counts(run) == (2, 1, 1, 0, 0)
    assert opportunity(pg, new)["id"] == new.id
    assert opportunity(pg, known)["id"] == own
    assert opportunity(pg, known)["latest_ai_summary"] == "news"


def test_a_deal_that_has_gone_from_the_graph_keeps_its_row(
    pg: Connection, writer: Connection, deal: AddNode, version: AddNode, tenant: uuid.UUID
) -> None:
    gone, stays = deal(), deal()
    version(gone)
    sync(writer, tenant)
    before = opportunity(pg, gone), rows(pg, "deal_versions", tenant_id=tenant)
    gone.delete()

    run = sync(writer, tenant)

    assert (run.status, run.message) == ("ok", "rows whose deal is not in the graph: 1")
    assert counts(run) == (1, 0, 0, 1, 0)
    assert (opportunity(pg, gone), rows(pg, "deal_versions", tenant_id=tenant)) == before
    assert opportunity(pg, stays)


# -- duplicates --------------------------------------------------------------------------------------------------------


def assert_duplicates(pg: Connection, tenant: uuid.UUID, lost: list[Node]) -> None:
    """These nodes are rejected as duplicates, and nothing else is."""
    found = pg.execute(
        "SELECT element_id, kind, level, sqlstate, message FROM deal_sync.rejects WHERE tenant_id = %s", [tenant]
    ).fetchall()
    assert sorted(element for element, *_ in found) == sorted(node.element_id for node in lost)
    for _, kind, level, sqlstate, message in found:
        assert (kind, level, sqlstate) == ("deal", "row", "23505")
        assert "duplicate deal" in message


def test_of_several_nodes_with_one_key_the_newest_lands_and_the_others_are_rejected(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    id = str(uuid.uuid4())
    old = deal(opportunity_id=id, opportunity_summary="old", last_updated_at="2026-01-01T00:00:00Z")
    # 13:00 UTC, and as a text it is smaller than the next one's 12:59.
    new = deal(opportunity_id=id, opportunity_summary="new", last_updated_at="2026-02-01T11:00:00-02:00")
    timed = deal(
        opportunity_id=id, opportunity_summary="timed", last_updated_at=datetime(2026, 2, 1, 12, 59, tzinfo=UTC)
    )
    never = deal(opportunity_id=id, opportunity_summary="skeleton", last_updated_at=None)
    good = deal()

    run = sync(writer, tenant)

    assert (run.status, run.rows_rejected, run.values_rejected) == ("partial", 3, 0)
    assert counts(run) == (5, 2, 0, 0, 0)
    assert opportunity(pg, new)["latest_ai_summary"] == "new"
    assert opportunity(pg, good)
    assert_duplicates(pg, tenant, [old, timed, never])

    # The newest one goes: the next one is the deal, in the next run.
    new.delete()
    run = sync(writer, tenant)
    assert counts(run) == (4, 0, 1, 1, 0)
    assert opportunity(pg, timed)["latest_ai_summary"] == "timed"
    assert_duplicates(pg, tenant, [old, never])

    for node in (old, never):
        node.delete()
    clean(sync(writer, tenant))
    assert rejects(pg, tenant) == []


def test_of_two_nodes_equally_new_the_smaller_element_id_lands(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    id = str(uuid.uuid4())
    nodes = [
        deal(opportunity_id=id, opportunity_summary=f"number {number}", last_updated_at="2026-02-01T00:00:00Z")
        for number in range(3)
    ]
    first, *others = sorted(nodes, key=lambda node: node.element_id)

    run = sync(writer, tenant)

    assert counts(run) == (3, 1, 0, 0, 0)
    assert opportunity(pg, first)["latest_ai_summary"] == f"number {nodes.index(first)}"
    assert_duplicates(pg, tenant, others)


def test_two_spellings_of_one_uuid_and_of_one_tenant_are_one_key(
    pg: Connection, writer: Connection, deal: AddNode, tenant: uuid.UUID
) -> None:
    id = uuid.uuid4()
    spellings = [str(id), str(id).upper(), id.hex, f"{{{id}}}"]
    nodes = [
        deal(opportunity_id=spelling, opportunity_summary=spelling, last_updated_at=f"2026-02-0{day}T00:00:00Z")
        for day, spelling in enumerate(spellings, start=1)
    ]
    nodes[1].set(tenant_id=str(tenant).upper())
    nodes[1].set(last_updated_at="2026-02-09T00:00:00Z")

    run = sync(writer, tenant)

    assert counts(run) == (4, 1, 0, 0, 0)
    assert row(pg, "opportunities", id=id)["latest_ai_summary"] == spellings[1]
    assert_duplicates(pg, tenant, [nodes[0], nodes[2], nodes[3]])


def test_one_key_with_two_tenants_is_no_duplicate(
    pg: Connection, writer: Connection, graph: Graph, deal: AddNode, tenant: uuid.UUID, other_tenant: uuid.UUID
) -> None:
    """The key has the tenant in it: this one does not give way to the other tenant's newer node."""
    mine = deal(last_updated_at="2026-01-01T00:00:00Z")
    deal_node(graph, other_tenant, opportunity_id=mine.key, last_updated_at="2026-02-01T00:00:00Z")

    clean(sync(writer, tenant))

    assert opportunity(pg, mine)["tenant_id"] == tenant
