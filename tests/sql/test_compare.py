"""Flows in: a graph and tables that differ. Flows out: counts that add up, what differs, a replay that fixes it."""

import json
import uuid
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from support.database import Connection
from support.graph import Graph
from support.sync import add_deal, add_tenant, add_version, one, sync

NAMES = ("in_graph", "in_postgres", "matching", "differing", "missing", "extra", "rejected", "legacy", "kept")


@pytest.fixture
def tenant(pg: Connection, graph: Graph) -> uuid.UUID:
    return add_tenant(pg)


def reconcile(connection: Connection, tenant: uuid.UUID) -> dict[str, dict[str, int]]:
    """By kind the counts that are not zero; and they add up, with those that are counted here."""
    found: dict[str, dict[str, int]] = {}
    for kind, *counts in connection.execute("SELECT * FROM deal_sync.reconcile(%s)", [tenant]):
        c = dict(zip(NAMES, counts, strict=True))
        assert c["in_graph"] == c["matching"] + c["differing"] + c["missing"] + c["rejected"], kind
        assert c["in_postgres"] == c["matching"] + c["differing"] + c["extra"] + c["legacy"] + c["kept"], kind
        found[kind] = {name: count for name, count in c.items() if count}
    assert list(found) == ["deals", "versions", "links"]
    return found


def differences(connection: Connection, tenant: uuid.UUID, embeddings: bool = False) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT * FROM deal_sync.differences(%s, %s)", [tenant, embeddings]).fetchall()


def linked() -> dict[str, str]:
    return {"source_interaction_id": str(uuid.uuid4())}


def test_after_a_sync_nothing_is_missing_or_differs(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    for deal in [add_deal(graph, tenant, **linked()) for _ in range(3)]:
        add_version(graph, tenant, deal)
    add_deal(graph, add_tenant(pg))  # another tenant's is not seen
    sync(writer, tenant)
    writer.execute("SET deal_sync.batch_rows = 2")
    assert reconcile(writer, tenant) == {
        kind: {"in_graph": 3, "in_postgres": 3, "matching": 3} for kind in ("deals", "versions", "links")
    }
    assert differences(writer, tenant, embeddings=True) == []


def test_before_the_first_sync_everything_is_missing_and_the_graph_is_not_remembered(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    add_version(graph, tenant, add_deal(graph, tenant, **linked()))
    add_version(graph, tenant, add_deal(graph, tenant), version=None)
    assert reconcile(pg, tenant) == {
        "deals": {"in_graph": 2, "missing": 2},
        "versions": {"in_graph": 2, "missing": 1, "rejected": 1},
        "links": {"in_graph": 1, "missing": 1},
    }
    assert one(pg, "SELECT count(*) FROM deal_sync.graph") == 0
    assert [kind for kind, *_ in differences(pg, tenant)] == ["deal", "deal", "link", "version"]


def test_damage_in_both_stores_is_found_listed_and_fixed(
    writer: Connection, pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deals = [add_deal(graph, tenant, evolution_summary="proposal", **linked()) for _ in range(5)]
    versions = [add_version(graph, tenant, deal) for deal in deals]
    sync(writer, tenant)
    changed, dropped, orphan, renamed, _ = deals
    pg.execute("UPDATE opportunities SET ai_evolution_summary = 'won' WHERE id = %s", [changed])
    pg.execute("DELETE FROM deal_versions WHERE id IN (%s, %s)", [versions[0], versions[1]])
    pg.execute("DELETE FROM interaction_links WHERE entity_id IN (%s, %s)", [changed, dropped])
    pg.execute("DELETE FROM opportunities WHERE id = %s", [dropped])
    graph.run("MATCH (d:Deal {opportunity_id: $id}) DETACH DELETE d", id=str(orphan))
    graph.run("MATCH (d:Deal {opportunity_id: $id}) SET d.evolution_summary = 'lost'", id=str(renamed))
    assert reconcile(writer, tenant) == {
        "deals": {"in_graph": 4, "in_postgres": 4, "matching": 1, "differing": 2, "missing": 1, "extra": 1},
        "versions": {"in_graph": 5, "in_postgres": 3, "matching": 3, "missing": 2},
        "links": {"in_graph": 4, "in_postgres": 3, "matching": 2, "missing": 2, "extra": 1},
    }
    found = differences(writer, tenant)
    assert {row for row in found if row[2]} == {
        ("deal", str(changed), "evolution_summary", "proposal", "won"),
        ("deal", str(renamed), "evolution_summary", "lost", "proposal"),
    }
    assert ("deal", str(dropped), "", str(dropped), None) in found
    assert ("deal", str(orphan), "", None, str(orphan)) in found
    assert {row[3] for row in found if row[0] == "version"} == {str(versions[0]), str(versions[1])}

    mark = one(pg, "SELECT watermark FROM deal_sync.watermarks")
    run = replay(writer, tenant, [str(changed).upper()])
    assert run == ("replay", "ok", 1, 0, 1, 1, 1)
    assert one(pg, "SELECT watermark FROM deal_sync.watermarks") == mark
    assert reconcile(writer, tenant)["deals"] == {
        "in_graph": 4, "in_postgres": 4, "matching": 2, "differing": 1, "missing": 1, "extra": 1
    }  # fmt: skip
    assert replay(writer, tenant) == ("replay", "ok", 4, 1, 1, 1, 1)
    assert one(pg, "SELECT watermark FROM deal_sync.watermarks") > mark
    for kind, counts in reconcile(writer, tenant).items():
        assert "missing" not in counts, kind
        assert "differing" not in counts, kind
    assert replay(writer, tenant)[3:] == (0, 0, 0, 0)
    assert one(pg, "SELECT count(*) FROM deal_sync.runs WHERE mode = 'replay'") == 3


def replay(connection: Connection, tenant: uuid.UUID, deals: list[str] | None = None) -> tuple[Any, ...]:
    query: LiteralString = (
        "SELECT mode, status, deals_read, deals_inserted, deals_updated, versions_inserted, links_inserted"
        " FROM deal_sync.replay(%s, %s)"
    )
    row = connection.execute(query, [tenant, deals]).fetchone()
    assert row is not None
    return row


def test_a_replay_of_some_leaves_the_rejects_of_others(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    bad, good = add_deal(graph, tenant, closed_at="soon"), add_deal(graph, tenant)
    sync(pg, tenant)
    assert replay(pg, tenant, [str(good)])[1:3] == ("ok", 1)
    assert one(pg, "SELECT graph_id FROM deal_sync.rejects") == str(bad)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match='"nonsense"'):
        replay(pg, tenant, ["nonsense"])


def test_barred_rejected_and_legacy_rows_are_neither_missing_nor_extra(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    barred, deal, mute = (add_deal(graph, tenant, **linked()) for _ in range(3))
    version = add_version(graph, tenant, deal)
    add_version(graph, tenant, deal)  # its number is taken
    sync(pg, tenant)
    pg.execute("SELECT deal_sync.forget(%s, %s)", [tenant, barred])
    graph.run("CREATE (d:Deal {opportunity_id: 'no uuid', tenant_id: $tenant})", tenant=str(tenant))
    graph.run("MATCH (d:Deal {opportunity_id: $id}) CREATE (e:Deal) SET e = properties(d)", id=str(mute))
    # As the old service did: rows with ids of their own.
    pg.execute("UPDATE deal_versions SET id = gen_random_uuid() WHERE tenant_id = %s", [tenant])
    assert reconcile(pg, tenant) == {
        "deals": {"in_graph": 5, "in_postgres": 3, "matching": 2, "rejected": 2 + 1, "kept": 1},
        "versions": {"in_graph": 2, "in_postgres": 1, "rejected": 2, "legacy": 1},
        "links": {"in_graph": 3, "in_postgres": 3, "matching": 2, "rejected": 1, "kept": 1},
    }
    assert differences(pg, tenant) == []
    assert one(pg, "SELECT count(*) FROM deal_versions WHERE id = %s", version) == 0


def test_reading_writes_nothing(pg: Connection, graph: Graph, tenant: uuid.UUID) -> None:
    add_version(graph, tenant, add_deal(graph, tenant, **linked()))
    sync(pg, tenant)
    pg.execute("UPDATE opportunities SET ai_evolution_summary = 'won'")
    before = state(pg)
    reconcile(pg, tenant)
    assert differences(pg, tenant) != []
    assert state(pg) == before


def state(pg: Connection) -> list[Any]:
    """Rows with the transactions that wrote them."""
    tables = (
        "opportunities",
        "deal_versions",
        "interaction_links",
        *(f"deal_sync.{name}" for name in ("runs", "rejects", "watermarks", "graph")),
    )
    return [pg.execute(f"SELECT t.xmin, t.* FROM {name} AS t ORDER BY t::text".encode()).fetchall() for name in tables]


@pytest.mark.parametrize("call", ["reconcile", "differences", "replay"])
def test_app_tenant_id_must_name_the_tenant(writer: Connection, tenant: uuid.UUID, call: str) -> None:
    writer.execute("SELECT set_config('app.tenant_id', %s, false)", [str(uuid.uuid4())])
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="a tenant other than"):
        writer.execute(f"SELECT * FROM deal_sync.{call}(%s)".encode(), [tenant])


# A row of the application's own


def own_row(pg: Connection, tenant: uuid.UUID, **columns: Any) -> uuid.UUID:
    """A row as the application makes it; returns its id."""
    values = {"id": uuid.uuid4(), "tenant_id": tenant, "updated_at": "2026-01-01Z"} | columns
    names = sql.SQL(", ").join(map(sql.Identifier, values))
    places = sql.SQL(", ").join(map(sql.Placeholder, values))
    pg.execute(sql.SQL("INSERT INTO opportunities ({}) VALUES ({})").format(names, places), values)
    return uuid.UUID(str(values["id"]))


def own_link(pg: Connection, tenant: uuid.UUID, interaction: str, entity: uuid.UUID) -> None:
    pg.execute(
        "INSERT INTO interaction_links (id, tenant_id, interaction_id, entity_type, entity_id)"
        " VALUES (gen_random_uuid(), %s, %s, 'opportunity', %s)",
        [tenant, interaction, entity],
    )


def test_a_link_of_the_old_service_is_legacy_beside_the_expected_one(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """The old service linked the graph's id, where a row has an id of its own."""
    interaction = str(uuid.uuid4())
    deal = add_deal(graph, tenant, source_interaction_id=interaction)
    row = own_row(pg, tenant, graph_opportunity_id=deal)
    own_link(pg, tenant, interaction, deal)
    own_link(pg, tenant, str(uuid.uuid4()), uuid.uuid4())  # of no deal: nothing of ours
    assert reconcile(pg, tenant)["links"] == {"in_graph": 1, "in_postgres": 1, "missing": 1, "legacy": 1}
    assert [each for each in differences(pg, tenant) if each[0] == "link"] == [
        ("link", str(deal), "", interaction, None)
    ]
    assert replay(pg, tenant)[-1] == 1
    assert reconcile(pg, tenant)["links"] == {"in_graph": 1, "in_postgres": 2, "matching": 1, "legacy": 1}
    assert differences(pg, tenant) == []
    own_link(pg, tenant, str(uuid.uuid4()), row)
    assert reconcile(pg, tenant)["links"]["extra"] == 1


def test_a_deal_whose_row_waits_to_be_adopted_is_missing_until_then(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deal = add_deal(graph, tenant, **linked())
    add_version(graph, tenant, deal)
    own_row(pg, tenant, id=deal, opportunity_name="of the application")
    other = own_row(pg, tenant)  # of no deal
    assert reconcile(pg, tenant) == {kind: {"in_graph": 1, "missing": 1} for kind in ("deals", "versions", "links")}
    assert differences(pg, tenant)[0] == ("deal", str(deal), "", str(deal), None)
    assert one(pg, "SELECT deals_adopted FROM deal_sync.replay(%s)", tenant) == 1
    assert reconcile(pg, tenant) == {
        kind: {"in_graph": 1, "in_postgres": 1, "matching": 1} for kind in ("deals", "versions", "links")
    }
    assert differences(pg, tenant) == []
    assert one(pg, "SELECT graph_opportunity_id FROM opportunities WHERE id = %s", other) is None


# Embeddings


def test_an_embedding_that_differs_is_listed_if_embeddings_are_asked_for_and_fixed(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    deals = [add_deal(graph, tenant, embedding=[0.5] * 1536, embedding_current=[0.25] * 1536) for _ in range(2)]
    sync(pg, tenant)
    pg.execute(
        "UPDATE opportunities SET extraction_embedding = array_fill(1, ARRAY[1536])::vector WHERE id = %s", [deals[0]]
    )
    assert reconcile(pg, tenant)["deals"] == {"in_graph": 2, "in_postgres": 2, "matching": 2}
    assert differences(pg, tenant) == []
    ((kind, deal, column, in_graph, in_table),) = differences(pg, tenant, embeddings=True)
    assert (kind, deal, column) == ("deal", str(deals[0]), "embedding")
    assert (set(json.loads(in_graph)), set(json.loads(in_table))) == ({0.5}, {1})
    assert replay(pg, tenant)[2:5] == (2, 0, 1)
    assert differences(pg, tenant, embeddings=True) == []


# Rejects


def test_what_the_tables_reject_is_rejected_and_a_value_that_does_not_fit_is_no_difference(
    pg: Connection, graph: Graph, tenant: uuid.UUID
) -> None:
    """The rejected nodes are counted here by what the run recorded."""
    deals = [add_deal(graph, tenant, confidence=0.5, deal_ref="good", **linked()) for _ in range(4)]
    for deal in deals[:2]:
        add_version(graph, tenant, deal)
    sync(pg, tenant)
    pg.execute("ALTER TABLE opportunities ADD CONSTRAINT good_ref CHECK (deal_ref <> 'bad')")
    new = add_deal(graph, tenant, deal_ref="bad", **linked())  # no row, nor one of its version and link
    version = add_version(graph, tenant, new)
    set_("deal_ref", "bad", graph, deals[0])  # its row stays as it was
    set_("confidence", "no number", graph, deals[1])  # its row lands without it
    assert reconcile(pg, tenant)["deals"] == {
        "in_graph": 5, "in_postgres": 4, "matching": 2, "differing": 2, "missing": 1
    }  # fmt: skip
    assert {row[1:3] for row in differences(pg, tenant) if row[2]} == {
        (str(deals[0]), "deal_ref"),
        (str(deals[0]), "ai_workflow_metadata"),  # which repeats it
        (str(deals[1]), "confidence"),
    }
    assert sync(pg, tenant).status == "partial"
    assert rejected(pg, "row") == {("deal", deals[0]), ("deal", new), ("version", version)}
    assert rejected(pg, "value") == {("deal", deals[1])}
    assert reconcile(pg, tenant) == {
        "deals": {"in_graph": 5, "in_postgres": 4, "matching": 3, "rejected": 2, "kept": 1},
        "versions": {"in_graph": 3, "in_postgres": 2, "matching": 2, "rejected": 1},
        "links": {"in_graph": 5, "in_postgres": 4, "matching": 3, "rejected": 2, "kept": 1},
    }
    assert differences(pg, tenant) == []


def set_(name: LiteralString, value: Any, graph: Graph, deal: uuid.UUID) -> None:
    graph.run(f"MATCH (d:Deal {{opportunity_id: $id}}) SET d.{name} = $value", id=str(deal), value=value)


def rejected(pg: Connection, level: str) -> set[tuple[str, uuid.UUID]]:
    """Kind and graph id of what the runs have recorded."""
    found = pg.execute("SELECT kind, graph_id FROM deal_sync.rejects WHERE level = %s", [level])
    return {(kind, uuid.UUID(graph_id)) for kind, graph_id in found}
