"""Flows in: versions that another service wrote in part. Flows out: what a replay makes of them."""

import uuid
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
import pytest
from neo4j_deals.mapping.defaults import DIMENSIONS, MEDDIC
from support.database import Connection, Database
from support.deals import Node, Row, deal_node, insert, row, version_node
from support.graph import Graph
from support.roles import fresh, role
from support.sync import add_tenant, one, rejects, sync

UNTIL = "2026-04-01T00:00:00Z"
CREATED = datetime(2026, 3, 1, 12, tzinfo=UTC)  # of the nodes of this file
ONTOLOGY = {"ontology_version": "2", f"dim_{DIMENSIONS[0]}": 3, MEDDIC[0]: "the graph's"}


@pytest.fixture
def tenant(pg: Connection, graph: Graph) -> uuid.UUID:
    return add_tenant(pg)


@pytest.fixture
def deal(graph: Graph, tenant: uuid.UUID, pg: Connection) -> Node:
    """A deal that the old service has landed under an id of its own."""
    node = deal_node(graph, tenant)
    insert(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=node.id)
    return node


def version(graph: Graph, tenant: uuid.UUID, deal: Node, **properties: Any) -> Node:
    return version_node(graph, tenant, deal, **({"valid_until": UNTIL} | ONTOLOGY | properties))


def in_part(pg: Connection, tenant: uuid.UUID, deal: Node, node: Node, **values: Any) -> uuid.UUID:
    """A row as the old service wrote it: the node's id, and neither valid_until nor ontology."""
    own = row(pg, "opportunities", tenant_id=tenant, graph_opportunity_id=deal.id)["id"]
    least = {"opportunity_id": own, "version_number": 1, "name": "old", "stage": "old", "change_summary": None}
    return insert(pg, "deal_versions", id=node.id, tenant_id=tenant, **(least | {"changed_fields": None} | values))


def replay(connection: Connection, tenant: uuid.UUID, *deals: Node) -> tuple[str, int, int, str | None]:
    """Status, versions_inserted, deals_updated, message."""
    query: LiteralString = (
        "SELECT status, versions_inserted, deals_updated, message FROM deal_sync.replay(%s, %s::text[])"
    )
    run = connection.execute(query, [tenant, [deal.key for deal in deals] or None]).fetchone()
    assert run is not None
    return run


def xmins(pg: Connection) -> list[tuple[Any, ...]]:
    return pg.execute("SELECT id, xmin FROM deal_versions ORDER BY id").fetchall()


def differing(connection: Connection, tenant: uuid.UUID) -> int:
    return int(one(connection, "SELECT differing FROM deal_sync.reconcile(%s) WHERE kind = 'versions'", tenant))


def changed(before: Row, after: Row) -> Row:
    return {name: value for name, value in after.items() if value != before[name]}


def test_a_replay_fills_what_a_landed_version_lacks_and_nothing_else(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    node = version(graph, tenant, deal, name="new", stage="new", change_summary="raised", changed_fields=["amount"])
    in_part(pg, tenant, deal, node, changed_fields="{}", **{MEDDIC[0]: "the row's"})
    new = version(graph, tenant, deal, version=2)
    sync(writer, tenant)
    before = row(pg, "deal_versions", id=node.id)
    assert (before["valid_until"], before["ontology_version"]) == (None, None)  # an ordinary run leaves it alone
    pg.execute("DELETE FROM deal_versions WHERE id = %s", [new.id])

    assert replay(writer, tenant) == ("ok", 1, 0, "completed versions: 1")

    after = row(pg, "deal_versions", id=node.id)
    made = changed(before, after)
    assert {name: made.pop(name) for name in ("valid_until", "ontology_version", "change_summary")} == {
        "valid_until": datetime(2026, 4, 1, tzinfo=UTC),
        "ontology_version": "2",
        "change_summary": "raised",
    }
    assert made.pop("ontology_scores_json").keys() == {DIMENSIONS[0]}
    assert (made.pop("created_at"), made.pop("valid_from")) == (CREATED, CREATED)
    assert {before[name] for name in made} == {None}
    assert not made.keys() & {"id", "tenant_id", "opportunity_id", "name", "stage", MEDDIC[0], "changed_fields"}


def test_a_completed_version_is_not_written_again(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    in_part(pg, tenant, deal, version(graph, tenant, deal))
    assert replay(writer, tenant)[3] == "completed versions: 1"
    before = xmins(pg)

    assert replay(writer, tenant) == ("ok", 0, 0, None)

    assert xmins(pg) == before


def test_an_absent_property_fills_nothing_not_even_with_its_stand_in(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    node = version(graph, tenant, deal, version=None)  # change_summary has a default, valid_from a fallback
    pg.execute("ALTER TABLE deal_versions ALTER valid_from DROP NOT NULL")
    in_part(pg, tenant, deal, node, valid_from=None)

    assert replay(writer, tenant)[3] == "completed versions: 1"

    after = row(pg, "deal_versions", id=node.id)
    assert (after["change_summary"], after["changed_fields"]) == (None, None)
    assert after["valid_from"] == CREATED  # a time needs its stand-in: else the row would end before it begins
    assert after["version_number"] == 1


@pytest.mark.parametrize("completed_before", [False, True])
def test_a_completed_version_has_the_times_of_its_node(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node, completed_before: bool
) -> None:
    """The old service's were the moments of insertion, after the end; a replay of before has left some so."""
    node = version(graph, tenant, deal, valid_from="2026-03-02T00:00:00Z")
    later = "2026-11-01T00:00:00Z"
    own = in_part(
        pg, tenant, deal, node, valid_from=later, created_at=later, valid_until=UNTIL if completed_before else None
    )

    assert replay(writer, tenant)[3] == "completed versions: 1"

    after = row(pg, "deal_versions", id=own)
    times = [after[name] for name in ("created_at", "valid_from", "valid_until")]
    assert times == [CREATED, datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)]
    assert one(pg, "SELECT tstzrange(valid_from, valid_until) @> '2026-03-15'::timestamptz FROM deal_versions")
    assert replay(writer, tenant) == ("ok", 0, 0, None)
    assert differing(writer, tenant) == 0


def test_a_replay_says_which_deals_it_could_not_bring_back(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    barred, gone = deal_node(graph, tenant), deal_node(graph, tenant)
    pg.execute("INSERT INTO deal_sync.barred (tenant_id, graph_id) VALUES (%s, %s)", [tenant, barred.id])
    graph.run("MATCH (d) WHERE elementId(d) = $id DETACH DELETE d", id=gone.element_id)
    assert replay(writer, tenant, deal, barred, gone)[::3] == (
        "ok",
        "skipped because barred: 1 (deal_sync.unbar() lifts the bar); not among the tenant's nodes: 1",
    )
    assert replay(writer, tenant, barred)[3] == "skipped because barred: 1 (deal_sync.unbar() lifts the bar)"
    assert replay(writer, tenant, deal) == ("ok", 0, 0, None)
    assert pg.execute("SELECT graph_opportunity_id FROM opportunities").fetchall() == [(deal.id,)]


def test_the_times_of_a_version_that_has_its_end_stay(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    node = version(graph, tenant, deal, valid_from="2026-03-02T00:00:00Z")
    theirs = {"created_at": "2026-01-01T00:00:00Z", "valid_from": "2026-01-02T00:00:00Z", "valid_until": UNTIL}
    own = in_part(pg, tenant, deal, node, **theirs)
    before = row(pg, "deal_versions", id=own)
    assert replay(writer, tenant)[3] == "completed versions: 1"
    after = row(pg, "deal_versions", id=own)
    assert {name: after[name] for name in theirs} == {name: before[name] for name in theirs}


@pytest.mark.parametrize("mode", ["full", "incremental", "backfill"])
def test_other_runs_leave_it_alone(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node, mode: str
) -> None:
    in_part(pg, tenant, deal, version(graph, tenant, deal))
    before = xmins(pg)

    if mode == "backfill":
        writer.execute("CALL deal_sync.backfill(%s)", [tenant])
    else:
        assert sync(writer, tenant, mode=mode).message is None

    assert xmins(pg) == before
    assert differing(writer, tenant) == 1


def test_a_replay_of_some_deals_completes_only_theirs(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    other = deal_node(graph, tenant)
    sync(writer, tenant)
    mine, others = version(graph, tenant, deal), version(graph, tenant, other)
    in_part(pg, tenant, deal, mine)
    in_part(pg, tenant, other, others)

    assert replay(writer, tenant, deal)[3] == "completed versions: 1"

    assert row(pg, "deal_versions", id=mine.id)["ontology_version"] == "2"
    assert row(pg, "deal_versions", id=others.id)["ontology_version"] is None
    assert differing(writer, tenant) == 1


def test_another_tenants_version_is_out_of_reach(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    node = version(graph, tenant, deal)
    in_part(pg, tenant, deal, node)
    other = add_tenant(pg)
    version(graph, other, deal_node(graph, other), version_id=node.key, version=2)
    before = xmins(pg)

    assert replay(pg, other)[3] == "rejected rows: 1 (see deal_sync.rejects)"  # the superuser sees the row

    assert xmins(pg) == before
    assert replay(pg, tenant)[3] == "completed versions: 1"


def test_a_misfit_stays_null_and_rejected_until_a_replay_of_the_fixed_node(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    node = version(graph, tenant, deal, valid_until="soon")
    in_part(pg, tenant, deal, node)

    status, _, _, message = replay(writer, tenant)

    assert (status, message) == (
        "partial",
        "completed versions: 1; rejected values: 1 (see deal_sync.rejects)",
    )
    after = row(pg, "deal_versions", id=node.id)
    assert (after["valid_until"], after["ontology_version"]) == (None, "2")
    (rejected,) = rejects(pg, tenant)
    assert (rejected.kind, rejected.level, rejected.column_name, rejected.value) == (
        "version", "value", "valid_until", "soon"
    )  # fmt: skip
    assert "fix the node and replay it" in rejected.message
    assert differing(writer, tenant) == 0

    node.set(valid_until=UNTIL)
    sync(writer, tenant)
    assert row(pg, "deal_versions", id=node.id)["valid_until"] is None
    assert replay(writer, tenant) == ("ok", 0, 0, "completed versions: 1")
    assert row(pg, "deal_versions", id=node.id)["valid_until"] == datetime(2026, 4, 1, tzinfo=UTC)
    assert rejects(pg, tenant) == []


def test_a_node_that_could_not_land_today_completes_its_row(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    """Its number is another version's, its name is gone: what rejects a new row does not matter for an existing one."""
    node = version(graph, tenant, deal, name=None, stage=None)
    other = version(graph, tenant, deal, version=1, created_at="2026-02-01T00:00:00Z")
    in_part(pg, tenant, deal, node, version_number=7)
    in_part(pg, tenant, deal, other)

    assert replay(writer, tenant) == ("ok", 0, 1, "completed versions: 2")  # the one is the deal

    after = row(pg, "deal_versions", id=node.id)
    assert (after["name"], after["version_number"], after["ontology_version"]) == ("old", 7, "2")


def test_of_two_nodes_with_one_id_the_one_that_counts_completes_the_row(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    first = version(graph, tenant, deal, created_at="2026-02-01T00:00:00Z")
    version(graph, tenant, deal, version_id=first.key.upper(), ontology_version="another")
    in_part(pg, tenant, deal, first)

    status, _, _, message = replay(writer, tenant)

    assert (status, message) == (
        "partial",
        "completed versions: 1; rejected rows: 1 (see deal_sync.rejects)",
    )
    assert row(pg, "deal_versions", id=first.id)["ontology_version"] == "2"


@pytest.mark.parametrize(
    ("body", "sqlstate"),
    [("RAISE EXCEPTION 'append only'", "P0001"), ("RETURN NULL", "09000")],
    ids=["raises", "drops"],
)
def test_an_update_that_a_trigger_rejects_is_a_reject_and_the_others_are_completed(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node, body: LiteralString, sqlstate: str
) -> None:
    nodes = [version(graph, tenant, deal, version=number) for number in (1, 2, 3)]
    for number, node in enumerate(nodes, 1):
        in_part(pg, tenant, deal, node, version_number=number)
    pg.execute(
        "CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF old.version_number = 2 THEN " + body + "; END IF; RETURN new; END $$;"
        " CREATE TRIGGER append_only BEFORE UPDATE ON deal_versions FOR EACH ROW EXECUTE FUNCTION append_only()"
    )
    writer.execute("SET deal_sync.batch_rows = 2")

    status, _, _, message = replay(writer, tenant)

    assert (status, message) == (
        "partial",
        "completed versions: 2; rejected rows: 1 (see deal_sync.rejects)",
    )
    (rejected,) = rejects(pg, tenant)
    assert (rejected.kind, rejected.level, rejected.graph_id, rejected.sqlstate) == (
        "version", "row", nodes[1].key, sqlstate
    )  # fmt: skip
    assert [row(pg, "deal_versions", id=node.id)["ontology_version"] for node in nodes] == ["2", None, "2"]
    assert differing(writer, tenant) == 0
    assert one(writer, "SELECT rejected FROM deal_sync.reconcile(%s) WHERE kind = 'versions'", tenant) == 1


def test_a_barred_deals_version_is_not_completed(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    in_part(pg, tenant, deal, version(graph, tenant, deal))
    pg.execute("SELECT deal_sync.forget(%s, %s)", [tenant, deal.id])
    before = xmins(pg)

    assert replay(writer, tenant)[3] is None
    assert differing(writer, tenant) == 0
    assert xmins(pg) == before

    pg.execute("SELECT deal_sync.unbar(%s, %s)", [tenant, deal.id])
    assert replay(writer, tenant)[3] == "completed versions: 1"


def test_reconcile_and_differences_show_what_a_replay_fills(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    node = version(graph, tenant, deal, name="new")
    in_part(pg, tenant, deal, node)
    whole = version(graph, tenant, deal, version=2)
    sync(writer, tenant)
    pg.execute("UPDATE deal_versions SET name = 'edited', change_summary = '' WHERE id = %s", [whole.id])
    before = row(pg, "deal_versions", id=node.id)

    found = writer.execute("SELECT * FROM deal_sync.differences(%s)", [tenant]).fetchall()
    assert differing(writer, tenant) == 1
    replay(writer, tenant)

    filled = changed(before, row(pg, "deal_versions", id=node.id))
    assert {(kind, graph_id) for kind, graph_id, _, _, _ in found} == {("version", node.key)}
    assert {column for _, _, column, _, value in found if value is not None} == {"created_at", "valid_from"}
    assert {"valid_until", "ontology_version", "ontology_scores_json"} <= filled.keys()
    assert [column for _, _, column, _, _ in found] == sorted(filled)
    assert ("version", node.key, "valid_until", "2026-04-01 00:00:00+00", None) in found
    assert writer.execute("SELECT * FROM deal_sync.differences(%s)", [tenant]).fetchall() == []
    assert differing(writer, tenant) == 0


def test_only_a_replay_that_completes_needs_the_right_to_update_versions(
    writer: Connection, pg: Connection, database: Database, graph: Graph, tenant: uuid.UUID, deal: Node
) -> None:
    with role(
        pg,
        fresh("inserts"),
        "SELECT ON tenants",
        "SELECT, INSERT, UPDATE ON opportunities, interaction_links",
        "SELECT, INSERT ON deal_versions",
    ) as name:
        pg.execute(f"GRANT USAGE ON SCHEMA public TO {name}; SELECT deal_sync.grant_sync('{name}')".encode())
        own = database.connect(name)
        node = version(graph, tenant, deal)
        assert sync(own, tenant).versions_inserted == 1
        assert replay(own, tenant) == ("ok", 0, 0, None)
        pg.execute("UPDATE deal_versions SET valid_until = NULL")
        assert sync(own, tenant).status == "ok"
        assert differing(own, tenant) == 1
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table deal_versions"):
            replay(own, tenant)
        own.close()
    assert row(pg, "deal_versions", id=node.id)["valid_until"] is None
